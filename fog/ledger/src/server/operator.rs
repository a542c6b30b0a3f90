//! The operator: admits entries by the log's own rules, puts them in order in batches, and tells their
//! submitters where they are.
//!
//! One task owns the sequencer and the state; everybody else reaches it through a bounded queue. An entry
//! is admitted against the state *as it will be at its place*, so two entries of one batch see each other.
//! When another node of the same log was quicker, the batch is admitted again on top of what that node did. A node that is handed
//! nothing looks for what others did twice a second.

use super::instruments::Instruments;
use crate::checkpoint::SignedCheckpoint;
use crate::consortium::{SequenceError, Sequencer};
use crate::entry::Entry;
use crate::governance::{Refused, State};
use crate::store::CheckpointStore;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// The most entries in one batch.
pub(crate) const MAX_BATCH_ENTRIES: usize = 65_536;
/// Entries that wait to be sequenced; more are answered "not now".
const QUEUED_ENTRIES: usize = 16_384;
/// How often a node looks for what others of the same log have put into it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a batch is tried again when another node was quicker, before its submitters are told so.
const MAX_TRIES: u32 = 16;

/// How batches are cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batching {
    pub(crate) gather: Duration,
    pub(crate) entries: usize,
}

/// Why an entry was not sequenced.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NotSequenced {
    /// By the log's rules.
    #[error("{0}")]
    Refused(Refused),
    /// The queue is full.
    #[error("{QUEUED_ENTRIES} entries wait already; try again in a second")]
    Full,
    /// Other nodes were always quicker, or the store failed before anything was written.
    #[error("the log could not be written: {0}; try again")]
    Failed(String),
    /// The store did not answer: whether the entry is in the log will be known later.
    #[error("the log's store did not answer: {0}; submit the same entry again")]
    Unknown(String),
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
}

/// What waits.
struct Submission {
    entry: Entry,
    since: Instant,
    /// More than one if the same bytes were handed in again before they were sequenced.
    answers: Vec<oneshot::Sender<Result<u64, NotSequenced>>>,
}

impl Submission {
    fn answer(self, answer: &Result<u64, NotSequenced>) {
        for waiting in self.answers {
            let _ = waiting.send(answer.clone());
        }
    }
}

/// Where entries are handed in.
#[derive(Clone)]
pub(crate) struct Desk {
    queue: mpsc::Sender<Submission>,
}

impl Desk {
    /// Hands in an entry; answers with its index when a signed checkpoint has it.
    pub(crate) async fn submit(&self, entry: Entry) -> Result<u64, NotSequenced> {
        let (answer, placed) = oneshot::channel();
        match self.queue.try_send(Submission {
            entry,
            since: Instant::now(),
            answers: vec![answer],
        }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(NotSequenced::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(NotSequenced::Stopping),
        }
        placed.await.unwrap_or(Err(NotSequenced::Stopping))
    }
}

/// The state that the log's entries give, for whoever asks; none before its genesis is known here.
pub(crate) type SharedState = Arc<RwLock<Option<State>>>;

/// The task that sequences.
pub(crate) struct Operator<S> {
    sequencer: Sequencer<S>,
    state: State,
    shared: SharedState,
    latest: watch::Sender<SignedCheckpoint>,
    submissions: mpsc::Receiver<Submission>,
    batching: Batching,
    instruments: Instruments,
}

impl<S: CheckpointStore> Operator<S> {
    /// An operator over a log that is open, with the state that its entries give; `shared` follows it.
    pub(crate) fn new(
        sequencer: Sequencer<S>,
        state: State,
        shared: SharedState,
        batching: Batching,
        instruments: Instruments,
    ) -> (Self, Desk, watch::Receiver<SignedCheckpoint>) {
        let (queue, submissions) = mpsc::channel(QUEUED_ENTRIES);
        let (latest, seen) = watch::channel(sequencer.checkpoint().clone());
        instruments.size(sequencer.checkpoint().size());
        let own = Self { sequencer, state, shared, latest, submissions, batching, instruments };
        (own, Desk { queue }, seen)
    }

    /// Sequences until `shutdown`; what was handed in before is sequenced first.
    ///
    /// # Errors
    /// If the log could not be written for a reason that only a new start can mend: redb takes nothing more
    /// after a failed write.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), SequenceError> {
        let mut ended = Ok(());
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shared = self.sequencer.is_shared();
        loop {
            ended = tokio::select! {
                biased;
                first = self.submissions.recv() => {
                    let Some(first) = first else { break };
                    let batch = self.gather(first, &shutdown).await;
                    self.place(batch).await
                }
                () = shutdown.cancelled() => break,
                _ = look.tick(), if shared => self.follow().await,
            };
            if ended.is_err() {
                break;
            }
        }
        self.submissions.close();
        while let Ok(left) = self.submissions.try_recv() {
            left.answer(&Err(NotSequenced::Stopping));
        }
        ended
    }

    async fn gather(&mut self, first: Submission, shutdown: &CancellationToken) -> Vec<Submission> {
        let mut batch = vec![first];
        let until = tokio::time::sleep(self.batching.gather);
        tokio::pin!(until);
        while batch.len() < self.batching.entries {
            let room = self.batching.entries - batch.len();
            tokio::select! {
                biased;
                more = self.submissions.recv_many(&mut batch, room) => if more == 0 { break },
                () = &mut until => break,
                () = shutdown.cancelled() => break,
            }
        }
        batch
    }

    async fn place(&mut self, mut batch: Vec<Submission>) -> Result<(), SequenceError> {
        for _ in 0..MAX_TRIES {
            let state = self.admit(&mut batch);
            if batch.is_empty() {
                return Ok(());
            }
            let entries: Vec<&[u8]> = batch.iter().map(|own| own.entry.as_bytes()).collect();
            match self.sequencer.append(&entries).await {
                Ok(sequenced) => {
                    self.accept(sequenced.first_index, state, batch);
                    return Ok(());
                }
                Err(SequenceError::Behind) => {
                    if let Err(error) = self.catch_up().await {
                        answer_all(batch, &NotSequenced::Failed(error.to_string()));
                        return lasting(error);
                    }
                }
                Err(SequenceError::Unknown(problem)) => {
                    tracing::error!(problem, "the store did not answer; reading the log again");
                    self.instruments.store_error();
                    answer_all(batch, &NotSequenced::Unknown(problem));
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!(%error, "a batch was not sequenced");
                    self.instruments.store_error();
                    answer_all(batch, &NotSequenced::Failed(error.to_string()));
                    return lasting(error);
                }
            }
        }
        answer_all(batch, &NotSequenced::Failed("other nodes were always quicker".to_owned()));
        Ok(())
    }

    /// Takes from the batch what the log's rules refuse and what is in the log already, and answers it. The
    /// state after what is left.
    fn admit(&mut self, batch: &mut Vec<Submission>) -> State {
        let mut state = self.state.clone();
        let mut left: Vec<Submission> = Vec::with_capacity(batch.len());
        let mut places = BTreeMap::new();
        for submission in batch.drain(..) {
            let name: [u8; 32] = Sha256::digest(submission.entry.as_bytes()).into();
            if let Some(first) = places.get(&name).and_then(|place: &usize| left.get_mut(*place)) {
                first.answers.extend(submission.answers);
                continue;
            }
            match self.sequencer.tiles().find_hash(&name) {
                Ok(None) => {}
                Ok(Some(index)) => {
                    submission.answer(&Ok(index));
                    continue;
                }
                Err(error) => {
                    submission.answer(&Err(NotSequenced::Failed(error.to_string())));
                    continue;
                }
            }
            match state.append(&submission.entry) {
                Ok(_) => {
                    places.insert(name, left.len());
                    left.push(submission);
                }
                Err(refused) => submission.answer(&Err(NotSequenced::Refused(refused))),
            }
        }
        *batch = left;
        state
    }

    fn accept(&mut self, first_index: u64, state: State, batch: Vec<Submission>) {
        self.state = state;
        self.share();
        let _ = self.latest.send_replace(self.sequencer.checkpoint().clone());
        self.instruments.size(self.sequencer.checkpoint().size());
        for (index, submission) in (first_index..).zip(batch) {
            let seconds = submission.since.elapsed().as_secs_f64();
            self.instruments.sequenced(submission.entry.kind(), seconds);
            submission.answer(&Ok(index));
        }
    }

    /// Looks for what other nodes have put into the log, so that a node serves it that is handed nothing.
    async fn follow(&mut self) -> Result<(), SequenceError> {
        match self.catch_up().await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the log's store was not read; looking again");
                self.instruments.store_error();
                lasting(error)
            }
        }
    }

    /// Takes over what other nodes have put into the log.
    async fn catch_up(&mut self) -> Result<(), SequenceError> {
        let new = self.sequencer.catch_up().await?;
        if new.is_empty() {
            return Ok(());
        }
        for (index, bytes) in new {
            if self.state.apply_leaf(index, &bytes).is_err() {
                // Why may name a key, and that of a patient is a pseudonym.
                tracing::error!(index, "another node put into the log what its rules refuse");
            }
        }
        self.share();
        let _ = self.latest.send_replace(self.sequencer.checkpoint().clone());
        Ok(())
    }

    fn share(&self) {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        *shared = Some(self.state.clone());
    }
}

/// Whether the error ends the operator: its own database does, the cluster's being away does not.
fn lasting(error: SequenceError) -> Result<(), SequenceError> {
    match error {
        SequenceError::Tiles(_) | SequenceError::Staged(_) | SequenceError::Foreign(_) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn answer_all(batch: Vec<Submission>, error: &NotSequenced) {
    for submission in batch {
        submission.answer(&Err(error.clone()));
    }
}
