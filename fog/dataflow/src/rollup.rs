//! Facts across windows, kept right by differential dataflow (design D4).
//!
//! A window's result may be corrected, and a correction may take a flag back. So what is said *across*
//! windows is a differential collection over window results: when one changes, what depended on it is
//! retracted and what now holds is added, and nothing else is touched. Order does not matter here, so a
//! patient's windows from several edges and a backlog that arrives hours late need no special care.
//!
//! - [`Episode`]: a run of windows of one patient that raise one flag, each beginning before or where
//!   the one before it ends.
//! - [`Rollup`]: how many patients had an episode of a flag begin in an hour, over all edges.
//!
//! # Limits
//! Windows that ended more than [`HORIZON_US`] of event time before the newest are retracted, so memory
//! is bounded by a day's flagged and corrected windows. Windows that raised nothing and correct nothing
//! are never put in.
//!
//! # Not guaranteed
//! This is memory: after a restart it covers what has fired since, replays included. The log has it all.

use crate::conclude::{Concluded, Conclusion};
use differential_dataflow::AsCollection;
use differential_dataflow::operators::count::CountTotal;
use haar_schema::{EdgeId, Subject, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline as Local;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Operator};

/// How far event time is looked back: a day, in microseconds.
pub const HORIZON_US: i64 = 86_400_000_000;

const HOUR_US: i64 = 3_600_000_000;

/// A run of windows of one patient that raise one flag.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Episode {
    /// The flag.
    pub flag: String,
    /// The pipeline whose windows raise it.
    pub pipeline: String,
    /// The edge that the patient is at.
    pub edge: EdgeId,
    /// Whom it is about.
    pub subject: Subject,
    /// Start of the first window.
    pub start: Timestamp,
    /// End of the last window.
    pub end: Timestamp,
    /// How many windows.
    pub windows: u64,
}

/// How many patients had an episode of a flag begin in an hour.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Rollup {
    /// The flag.
    pub flag: String,
    /// Start of the hour.
    pub hour: Timestamp,
    /// Patients, each counted once.
    pub patients: u64,
}

/// Adds or takes back a fact.
#[derive(Clone, PartialEq, Debug)]
pub struct Change<F> {
    /// The fact.
    pub fact: F,
    /// Whether it holds from now on, or no longer.
    pub holds: bool,
}

/// What a window says of flags; the greatest revision of a window is what counts.
type Result = (u32, Timestamp, Vec<String>);
type Window = (EdgeId, Subject, String, Timestamp);

/// Adds the changes of episodes and rollups to a stream of conclusions.
pub fn with_rollups<'scope>(
    conclusions: StreamVec<'scope, u64, Conclusion>,
) -> StreamVec<'scope, u64, Conclusion> {
    let results = results(conclusions.clone()).as_collection();
    let latest = results.reduce(|_window, revisions, latest| {
        // Sorted by revision; the last one present is the newest.
        if let Some((newest, _)) = revisions.iter().rev().find(|(_, count)| *count > 0) {
            latest.push(((*newest).clone(), 1isize));
        }
    });
    let episodes = latest
        .flat_map(|((edge, subject, pipeline, start), (_, end, flags))| {
            flags.into_iter().map(move |flag| {
                let patient = (flag, pipeline.clone(), edge.clone(), subject);
                (patient, (start, end))
            })
        })
        .reduce(|_patient, windows, episodes| {
            let spans = windows.iter().filter(|(_, count)| *count > 0).map(|(span, _)| **span);
            episodes.extend(runs(spans).into_iter().map(|run| (run, 1isize)));
        });
    let rollups = episodes
        .clone()
        .map(|((flag, _, _, subject), (start, _, _))| ((flag, start.floor_to(HOUR_US)), subject))
        .distinct()
        .map(|(flag_and_hour, _)| flag_and_hour)
        .count_total();
    let episode_changes = episodes.inner.map(|((patient, run), _, count): (_, u64, isize)| {
        let (flag, pipeline, edge, subject) = patient;
        let (start, end, windows) = run;
        let fact = Episode { flag, pipeline, edge, subject, start, end, windows };
        Conclusion::Episode(Change { fact, holds: count > 0 })
    });
    let rollup_changes = rollups.inner.map(
        |(((flag, hour), patients), _, count): (((String, Timestamp), isize), u64, isize)| {
            let patients = u64::try_from(patients).unwrap_or(0);
            Conclusion::Rollup(Change { fact: Rollup { flag, hour, patients }, holds: count > 0 })
        },
    );
    conclusions.concat(episode_changes).concat(rollup_changes)
}

/// The results that matter across windows, added as they come and retracted behind the horizon.
fn results<'scope>(
    conclusions: StreamVec<'scope, u64, Conclusion>,
) -> StreamVec<'scope, u64, ((Window, Result), u64, isize)> {
    type Update = ((Window, Result), u64, isize);
    conclusions.unary::<CapacityContainerBuilder<Vec<Update>>, _, _, _>(Local, "Results", |_, _| {
        let mut kept: BTreeMap<Timestamp, Vec<(Window, Result)>> = BTreeMap::new();
        move |input, output| {
            input.for_each(|capability, conclusions| {
                let Some(epoch) = capability.least().copied() else { return };
                let mut session = output.session(&capability);
                for conclusion in conclusions.drain(..) {
                    let Conclusion::Window(window) = conclusion else { continue };
                    if let Some(result) = result(&window) {
                        kept.entry(result.1.1).or_default().push(result.clone());
                        session.give((result, epoch, 1));
                    }
                }
                let newest = kept.last_key_value().map(|(end, _)| *end);
                let horizon = newest.map_or(Timestamp::MIN, |end| end.plus_micros(-HORIZON_US));
                while let Some(oldest) = kept.first_entry().filter(|entry| *entry.key() < horizon) {
                    for result in oldest.remove() {
                        session.give((result, epoch, -1));
                    }
                }
            });
        }
    })
}

fn result(window: &Concluded) -> Option<(Window, Result)> {
    let digest = &window.digest;
    if digest.flags.is_empty() && digest.revision == 0 {
        return None;
    }
    let key = &digest.key;
    let name = (key.edge.clone(), key.subject, key.pipeline.clone(), key.start_us);
    Some((name, (digest.revision, key.end_us, digest.flags.clone())))
}

/// Spans in order of their starts, joined where one begins before or where the run so far ends.
fn runs(spans: impl Iterator<Item = (Timestamp, Timestamp)>) -> Vec<(Timestamp, Timestamp, u64)> {
    let mut runs: Vec<(Timestamp, Timestamp, u64)> = Vec::new();
    for (start, end) in spans {
        match runs.last_mut() {
            Some((_, last, windows)) if start <= *last => {
                *last = end.max(*last);
                *windows += 1;
            }
            _ => runs.push((start, end, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Lane;
    use haar_schema::{Features, InputsDigest, PipelineRef, WindowDigest, WindowKey};
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};
    use timely::dataflow::operators::{Inspect, Probe};
    use timely::dataflow::{InputHandle, ProbeHandle};

    fn window(patient: u8, start_s: i64, revision: u32, flags: &[&str]) -> Conclusion {
        let key = WindowKey {
            edge: "edge-1".parse().unwrap(),
            subject: Subject::from_bytes([patient; 16]),
            pipeline: "p".into(),
            start_us: Timestamp::from_millis(start_s * 1_000),
            end_us: Timestamp::from_millis((start_s + 60) * 1_000),
        };
        Conclusion::Window(Box::new(Concluded {
            lane: Lane(1),
            seq: 1,
            ingested_us: 0,
            digest: WindowDigest {
                id: key.id(),
                revision,
                key,
                pipeline: PipelineRef { id: "p".into(), version: 1, sha256: String::new() },
                inputs: InputsDigest { observations: 1, sha256: String::new() },
                model: None,
                features: Features::new(),
                flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            },
            flagged: vec![],
            undetermined: Vec::new(),
        }))
    }

    /// Episodes as (patient, start, end, windows), and patients over all flags.
    type Facts = (Vec<(u8, i64, i64, u64)>, u64);

    /// What holds after each of these epochs.
    fn facts(epochs: Vec<Vec<Conclusion>>, workers: usize) -> Vec<Facts> {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let (sink, count) = (Arc::clone(&changes), epochs.len());
        timely::execute(timely::Config::process(workers), move |worker| {
            let mut input = InputHandle::<u64, CapacityContainerBuilder<Vec<Conclusion>>>::new();
            let probe = ProbeHandle::new();
            let sink = Arc::clone(&sink);
            worker.dataflow::<u64, _, _>(|scope| {
                with_rollups(input.to_stream(scope))
                    .inspect_core(move |event| {
                        let Ok((stamp, conclusions)) = event else { return };
                        let epoch = *stamp.least().unwrap();
                        let seen = conclusions.iter().map(|conclusion| (epoch, conclusion.clone()));
                        sink.lock().unwrap().extend(seen);
                    })
                    .probe_with(&probe);
            });
            // Windows of one patient may come from different workers.
            for (epoch, conclusions) in epochs.iter().enumerate() {
                for (place, conclusion) in conclusions.iter().enumerate() {
                    if place % worker.peers() == worker.index() {
                        input.send(conclusion.clone());
                    }
                }
                input.advance_to(epoch as u64 + 1);
                worker.step_while(|| probe.less_than(input.time()));
            }
        })
        .unwrap();
        let changes = Arc::into_inner(changes).unwrap().into_inner().unwrap();
        (0..count as u64)
            .map(|now| {
                let (mut episodes, mut patients) = (BTreeSet::new(), 0);
                let mut until: Vec<_> = changes.iter().filter(|(epoch, _)| *epoch <= now).collect();
                // Within an epoch, what no longer holds goes first.
                until.sort_by_key(|(epoch, change)| {
                    (*epoch, !matches!(change, Conclusion::Episode(c) if !c.holds))
                });
                for (_, change) in until {
                    match change {
                        Conclusion::Episode(Change { fact, holds }) => {
                            let key = (
                                fact.subject.to_bytes()[0],
                                fact.start.millis() / 1_000,
                                fact.end.millis() / 1_000,
                                fact.windows,
                            );
                            if *holds {
                                episodes.insert(key)
                            } else {
                                episodes.remove(&key)
                            };
                        }
                        Conclusion::Rollup(Change { fact, holds: true }) => {
                            patients += fact.patients
                        }
                        Conclusion::Rollup(Change { fact, holds: false }) => {
                            patients -= fact.patients
                        }
                        _ => {}
                    }
                }
                (episodes.into_iter().collect(), patients)
            })
            .collect()
    }

    #[test]
    fn a_correction_revises_the_episodes_it_touches_and_no_other() {
        let epochs = || {
            vec![
                vec![
                    window(1, 0, 0, &["fever"]),
                    window(1, 60, 0, &["fever"]),
                    window(2, 0, 0, &["fever"]),
                ],
                vec![window(1, 120, 0, &[]), window(1, 180, 0, &["fever"])],
                // Late readings: the gap was fever too, so two episodes are one.
                vec![window(1, 120, 1, &["fever"])],
                // And patient 2's was none.
                vec![window(2, 0, 1, &[])],
            ]
        };
        let expected = vec![
            (vec![(1, 0, 120, 2), (2, 0, 60, 1)], 2),
            (vec![(1, 0, 120, 2), (1, 180, 240, 1), (2, 0, 60, 1)], 2),
            (vec![(1, 0, 240, 4), (2, 0, 60, 1)], 2),
            (vec![(1, 0, 240, 4)], 1),
        ];
        for workers in [1, 2, 4] {
            assert_eq!(facts(epochs(), workers), expected, "{workers} workers");
        }
    }

    #[test]
    fn behind_the_horizon_nothing_is_kept() {
        let day = HORIZON_US / 1_000_000;
        let epochs =
            vec![vec![window(1, 0, 0, &["fever"])], vec![window(1, day + 120, 0, &["fever"])]];
        let after = facts(epochs, 1).pop().unwrap();
        assert_eq!(after, (vec![(1, day + 120, day + 180, 1)], 1));
    }
}
