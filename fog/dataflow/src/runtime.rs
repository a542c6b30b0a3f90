//! The running dataflow: worker threads, what goes in, what comes out an epoch.
//!
//! Timely workers are threads of their own. Entries go in through one bounded channel a worker
//! ([`QUEUED_COMMANDS`]); a full channel blocks the sender, which is how a fog that cannot keep up slows
//! its edges. Results come out as one [`WorkerEpoch`] per worker and epoch, in order, through one
//! bounded channel ([`QUEUED_EPOCHS`] a worker); whoever commits and does not keep up slows the workers.
//!
//! Epochs end when [`Feed::end_epoch`] says so, at all workers at the same place in what was sent.

use crate::conclude::{self, Concluded, Conclusion, Means, Scorer, SharedWard};
use crate::deployment::{Deployed as _, Scored, SharedDeployments};
use crate::device;
use crate::item::{Item, Items, Lane, Segment};
use crate::operator::windows;
use crate::rollup::{Change, Episode, Rollup, with_rollups};
use crate::window::{Counts, Windowing};
use haar_catalog::{Family, Pipeline};
use haar_inference::BeatModel;
use haar_inference::faults::FaultModel;
use haar_inference::rhythm::RhythmModel;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline as Local;
use timely::dataflow::operators::core::Concatenate;
use timely::dataflow::operators::{Operator, Probe};
use timely::dataflow::{InputHandle, ProbeHandle, StreamVec};
use timely::worker::Worker;

/// Commands that wait for one worker.
pub const QUEUED_COMMANDS: usize = 256;

/// Results that wait for whoever commits, per worker.
pub const QUEUED_EPOCHS: usize = 16;

/// The most workers of one process.
pub const MAX_WORKERS: usize = 256;

/// How long a worker that has nothing to do sleeps at most before it looks at its channel again.
const PARK: Duration = Duration::from_millis(50);

/// Commands that a worker takes before it lets the dataflow run.
const COMMANDS_PER_STEP: usize = 32;

/// What one worker's share of the dataflow came to in one epoch.
#[derive(Debug, Default)]
pub struct WorkerEpoch {
    /// The worker.
    pub worker: usize,
    /// The epoch.
    pub epoch: u64,
    /// The windows that fired.
    pub windows: Vec<Concluded>,
    /// By pipeline: from where a lane would need a replay, see [`crate::operator::Report::Holds`].
    pub holds: BTreeMap<usize, BTreeMap<Lane, u64>>,
    /// By pipeline: what became of readings.
    pub counts: BTreeMap<usize, Counts>,
    /// Beats that the model refused.
    pub unscored: u64,
    /// What models said, by model and edge.
    pub scored: Vec<Scored>,
    /// Series of readings whose devices could not be judged.
    pub unjudged: u64,
    /// How episodes changed. In no order: what no longer holds is to be taken off first.
    pub episodes: Vec<Change<Episode>>,
    /// How rollups changed; in no order either.
    pub rollups: Vec<Change<Rollup>>,
}

/// Why the dataflow did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No worker, or over [`MAX_WORKERS`].
    #[error("workers must be between 1 and {MAX_WORKERS}, not {0}")]
    Workers(usize),
    /// A definition whose window no [`Windowing`] can be made of, or no definition.
    #[error("pipeline {0} has a window that cannot be computed; run `haar validate` on it")]
    Window(String),
    /// A pipeline names a model that no windows are scored by.
    #[error("pipeline {pipeline} names the model {model}, which cannot score its windows")]
    Model {
        /// The pipeline's id.
        pipeline: String,
        /// The model's id.
        model: String,
    },
    /// Timely could not start.
    #[error("timely could not start its workers: {0}")]
    Timely(String),
}

/// The dataflow has stopped; its thread's panic, if there was one, is in the log.
#[derive(Debug, thiserror::Error)]
#[error("the dataflow has stopped")]
pub struct Stopped;

/// What goes into the dataflow.
#[derive(Clone)]
pub struct Feed {
    workers: Vec<Entrance>,
}

#[derive(Clone)]
struct Entrance {
    commands: SyncSender<Command>,
    /// Set by the worker when it starts.
    thread: Arc<OnceLock<Thread>>,
}

impl Entrance {
    fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)?;
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
        Ok(())
    }
}

enum Command {
    Items(Items),
    EndEpoch(u64),
}

/// A dataflow that runs.
pub struct Runtime {
    /// What goes in. When the last clone is dropped, the workers finish what they have and stop.
    pub feed: Feed,
    /// What comes out; ends after the workers have stopped.
    pub epochs: Receiver<WorkerEpoch>,
    /// The thread that waits for the workers; its result says whether one of them panicked.
    pub thread: JoinHandle<Result<(), String>>,
}

impl Feed {
    /// Sends entries of one lane to the worker where that lane enters; blocks while its channel is full.
    ///
    /// # Errors
    /// If the dataflow has stopped.
    pub fn send(&self, lane: Lane, items: Items) -> Result<(), Stopped> {
        let worker = lane.0 as usize % self.workers.len();
        self.workers[worker].send(Command::Items(items))
    }

    /// Ends the epoch before `next`: everything sent so far belongs to it, everything sent later to `next`.
    ///
    /// # Errors
    /// If the dataflow has stopped.
    pub fn end_epoch(&self, next: u64) -> Result<(), Stopped> {
        for worker in &self.workers {
            worker.send(Command::EndEpoch(next))?;
        }
        Ok(())
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }
}

/// The greatest width that divides every pipeline's panes: runs of samples are cut by it.
pub fn common_pane_us(pipelines: &[Pipeline]) -> i64 {
    let mut common = 0;
    for pipeline in pipelines {
        let (mut a, mut b) = (common, pipeline.window().slide_us);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        common = a;
    }
    common.max(1)
}

/// Starts the pipelines on `workers` threads. Epochs begin at 0.
///
/// # Errors
/// If a pipeline cannot be run, or timely does not start.
pub fn start(
    pipelines: &[Pipeline],
    models: &SharedDeployments,
    ward: &SharedWard,
    workers: usize,
) -> Result<Runtime, StartError> {
    if workers == 0 || workers > MAX_WORKERS {
        return Err(StartError::Workers(workers));
    }
    let plan = Arc::new(plan(pipelines, models, ward)?);
    let (results, epochs) = sync_channel(QUEUED_EPOCHS * workers);
    let (entrances, exits): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| {
            let (commands, receiver) = sync_channel(QUEUED_COMMANDS);
            let thread = Arc::new(OnceLock::new());
            (Entrance { commands, thread: Arc::clone(&thread) }, Some((receiver, thread)))
        })
        .unzip();
    let exits = Mutex::new(exits);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let taken = exits.lock().unwrap_or_else(PoisonError::into_inner)[worker.index()].take();
        if let Some((commands, thread)) = taken {
            thread.get_or_init(std::thread::current);
            run(worker, &plan, &commands, &results);
        }
    })
    .map_err(StartError::Timely)?;
    let thread = std::thread::spawn(move || guards.join().into_iter().collect());
    Ok(Runtime { feed: Feed { workers: entrances }, epochs, thread })
}

struct Planned {
    means: Means,
    windowing: Windowing,
}

fn plan(
    pipelines: &[Pipeline],
    models: &SharedDeployments,
    ward: &SharedWard,
) -> Result<Vec<Planned>, StartError> {
    pipelines
        .iter()
        .enumerate()
        .map(|(number, pipeline)| {
            let id = || pipeline.reference().id.clone();
            let spec = pipeline.window();
            let windowing = Windowing::new(spec.size_us, spec.slide_us, spec.lateness_us)
                .ok_or_else(|| StartError::Window(id()))?;
            let scorer = match pipeline.model() {
                None => None,
                Some(FaultModel::ID) if pipeline.family() == Family::Device => Some(Scorer::Faults),
                Some(RhythmModel::ID) => Some(Scorer::Rhythm),
                Some(BeatModel::ID) => Some(Scorer::Beats),
                Some(name) => {
                    return Err(StartError::Model { pipeline: id(), model: name.to_owned() });
                }
            };
            let (pipeline, models) = (pipeline.clone(), models.clone());
            let means = Means { pipeline, number, scorer, models, ward: Arc::clone(ward) };
            Ok(Planned { means, windowing })
        })
        .collect()
}

fn run(
    worker: &mut Worker,
    plan: &[Planned],
    commands: &Receiver<Command>,
    results: &SyncSender<WorkerEpoch>,
) {
    let mut scalars = InputHandle::<u64, CapacityContainerBuilder<Vec<Item<f64>>>>::new();
    let mut waveforms = InputHandle::<u64, CapacityContainerBuilder<Vec<Item<Segment>>>>::new();
    let probe = ProbeHandle::new();
    let index = worker.index();
    // The first epoch that has not been ended.
    let ended = Rc::new(Cell::new(0));
    worker.dataflow::<u64, _, _>(|scope| {
        let scalar_items = scalars.to_stream(scope);
        let waveform_items = waveforms.to_stream(scope);
        let concluded: Vec<_> = plan
            .iter()
            .map(|Planned { means, windowing }| {
                let pipeline = &means.pipeline;
                let (name, signals) = (&pipeline.reference().id, pipeline.signals());
                match pipeline.family() {
                    Family::Vitals => {
                        let reports = windows(scalar_items.clone(), name, *windowing, signals);
                        conclude::vitals(reports, means.clone())
                    }
                    Family::Ecg => {
                        let reports = windows(waveform_items.clone(), name, *windowing, signals);
                        conclude::ecg(reports, means.clone())
                    }
                    Family::Pulse => {
                        let reports = windows(waveform_items.clone(), name, *windowing, signals);
                        conclude::pulse(reports, means.clone())
                    }
                    Family::Device => {
                        let reports = windows(scalar_items.clone(), name, *windowing, signals);
                        device::faults(reports, means.clone())
                    }
                }
            })
            .collect();
        let all = with_rollups(scope.concatenate(concluded));
        collect(all, index, results.clone(), Rc::clone(&ended)).probe_with(&probe);
    });
    let mut open = true;
    while open {
        for _ in 0..COMMANDS_PER_STEP {
            match commands.try_recv() {
                Ok(Command::Items(mut items)) => {
                    scalars.send_batch(&mut items.scalars);
                    waveforms.send_batch(&mut items.waveforms);
                }
                Ok(Command::EndEpoch(next)) => {
                    ended.set(next);
                    scalars.advance_to(next);
                    waveforms.advance_to(next);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        // Parks only when no operator is active; `Feed` and timely's channels unpark.
        worker.step_or_park(Some(PARK));
    }
    scalars.close();
    waveforms.close();
    worker.step_while(|| !probe.done());
}

/// Gathers a worker's conclusions and sends them on, epoch by epoch, the empty ones too.
fn collect<'scope>(
    conclusions: StreamVec<'scope, u64, Conclusion>,
    worker: usize,
    results: SyncSender<WorkerEpoch>,
    ended: Rc<Cell<u64>>,
) -> StreamVec<'scope, u64, ()> {
    conclusions.unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
        Local,
        "Collect",
        move |_capability, _| {
            let mut next = 0;
            let mut pending: BTreeMap<u64, WorkerEpoch> = BTreeMap::new();
            move |(input, frontier), _output| {
                input.for_each(|stamp, conclusions| {
                    let Some(epoch) = stamp.least() else { return };
                    let gathered = pending.entry(*epoch).or_default();
                    for conclusion in conclusions.drain(..) {
                        gathered.add(conclusion);
                    }
                });
                // The input may end in the same step as its last epoch, which is reported all the same.
                let left = pending.last_key_value().map_or(next, |(epoch, _)| epoch + 1);
                let last = left.max(ended.get());
                let end = frontier.frontier().first().copied().unwrap_or(last);
                while next < end {
                    let gathered = pending.remove(&next).unwrap_or_default();
                    // The receiver is gone only when the fog stops without waiting for results.
                    let _ = results.send(WorkerEpoch { worker, epoch: next, ..gathered });
                    next += 1;
                }
            }
        },
    )
}

impl WorkerEpoch {
    fn add(&mut self, conclusion: Conclusion) {
        match conclusion {
            Conclusion::Window(window) => self.windows.push(*window),
            Conclusion::Holds(pipeline, holds) => {
                self.holds.insert(pipeline, holds);
            }
            Conclusion::Counts(pipeline, counts) => {
                self.counts.insert(pipeline, counts);
            }
            Conclusion::Episode(change) => self.episodes.push(change),
            Conclusion::Rollup(change) => self.rollups.push(change),
            Conclusion::Unscored(beats) => self.unscored += beats,
            Conclusion::Scored(scored) => self.scored.extend(scored),
            Conclusion::Unjudged(series) => self.unjudged += series,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::Deployments;

    #[test]
    fn an_epoch_that_was_ended_is_reported_though_the_feed_goes_at_once() {
        for _ in 0..100 {
            let Runtime { feed, epochs, thread } =
                start(&haar_catalog::builtin(), &models(), &SharedWard::default(), 2).unwrap();
            feed.end_epoch(1).unwrap();
            drop(feed);
            let reported: Vec<u64> = epochs.iter().map(|result| result.epoch).collect();
            assert_eq!(reported, [0, 0]);
            thread.join().unwrap().unwrap();
        }
    }

    fn models() -> SharedDeployments {
        SharedDeployments::new(Deployments::built_in().unwrap())
    }
}
