//! The window operator: [`Windows`] within timely.
//!
//! Items are exchanged by subject. Timely's timestamp is the *epoch*, the unit of commitment, and says
//! nothing of event time. The operator keeps what arrives until its epoch is complete everywhere and
//! then works it off, so that its state stands exactly between two epochs whenever it reports holds.
//!
//! Order within a lane is kept because one lane enters at one worker, timely's channels are first in,
//! first out, and the operator takes messages one by one: `for_each_stamp` sorts them unstably, and the
//! stock `exchange` operator uses it, so neither is used between the input and this operator.

use crate::item::{Item, Lane};
use crate::window::{Aggregate, Counts, Fired, Windowing, Windows};
use haar_schema::SignalSet;
use std::collections::BTreeMap;
use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Operator;

/// How many epochs pass between two reports of holds. A hold that is told late keeps a spool's tail a
/// little longer and nothing else, but to find it every open pane is looked at.
pub const EPOCHS_PER_HOLDS: u64 = 8;

/// What the window operator says at the end of an epoch.
#[derive(Clone, Debug)]
pub enum Report<A> {
    /// A window fired.
    Fired(Box<Fired<A>>),
    /// From where each lane would need a replay for this worker's open windows, at the end of the epoch.
    /// Takes the place of the worker's earlier such report; a lane that is not in it has no open window
    /// here. Every worker reports every [`EPOCHS_PER_HOLDS`] epochs, with or without readings.
    Holds(BTreeMap<Lane, u64>),
    /// What became of readings.
    Counts(Counts),
}

/// Windows over a stream of items.
pub fn windows<'scope, A>(
    items: StreamVec<'scope, u64, Item<A::Payload>>,
    name: &str,
    windowing: Windowing,
    signals: SignalSet,
) -> StreamVec<'scope, u64, Report<A>>
where
    A: Aggregate + 'static,
    A::Payload: ExchangeData,
{
    let by_subject = Exchange::new(|item: &Item<A::Payload>| item.route());
    items.unary_frontier::<CapacityContainerBuilder<Vec<Report<A>>>, _, _, _>(
        by_subject,
        name,
        move |capability, _info| {
            let mut windows = Windows::<A>::new(windowing, signals);
            // What arrived of epochs that are not complete everywhere.
            let mut pending: BTreeMap<u64, Vec<Vec<Item<A::Payload>>>> = BTreeMap::new();
            let mut capability = Some(capability);
            move |(input, frontier), output| {
                input.for_each(|stamp, items| {
                    if let Some(epoch) = stamp.least() {
                        pending.entry(*epoch).or_default().push(std::mem::take(items));
                    }
                });
                let Some(held) = &mut capability else { return };
                let complete = |epoch: u64| !frontier.less_equal(&epoch);
                while let Some(entry) = pending.first_entry().filter(|e| complete(*e.key())) {
                    let (epoch, batches) = entry.remove_entry();
                    let at_epoch = held.delayed(&epoch);
                    let mut session = output.session(&at_epoch);
                    for item in batches.into_iter().flatten() {
                        windows.push(item, &mut |fired| {
                            session.give(Report::Fired(Box::new(fired)));
                        });
                    }
                    session.give(Report::Counts(windows.take_counts()));
                }
                match frontier.frontier().first() {
                    Some(&next) if next > *held.time() => {
                        if next / EPOCHS_PER_HOLDS > *held.time() / EPOCHS_PER_HOLDS {
                            let last = held.delayed(&(next - 1));
                            output.session(&last).give(Report::Holds(windows.holds()));
                        }
                        held.downgrade(&next);
                    }
                    Some(_) => {}
                    None => capability = None,
                }
            }
        },
    )
}
