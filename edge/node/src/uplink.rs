//! From the spool to the fog: one session at a time, opened again for as long as the edge runs.
//!
//! Intake never waits for the fog: what cannot be sent stays in the spool. A session begins where the fog asks for it,
//! sends batches as far as credit goes, and lets the spool forget what the fog no longer needs.

use crate::backoff::Backoff;
use crate::config;
use crate::stats::{Shared, label};
use bytes::Bytes;
use haar_identity::Identity;
use haar_link::{
    Ack, AckReceiver, Batch, BatchSender, ClientTls, ConnectError, Hello, SendError, SessionEnd,
};
use haar_schema::{EdgeId, Entry};
use haar_spool::{PruneError, ReadError, Spool};
use haar_telemetry::{Condition, names, trace};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How often the spool is relieved of what the fog no longer needs; each time is a transaction.
const PRUNE_INTERVAL: Duration = Duration::from_millis(500);

/// The task's state.
pub(crate) struct Uplink {
    pub(crate) edge: EdgeId,
    pub(crate) config: config::Uplink,
    pub(crate) tls: ClientTls,
    /// Signs batches.
    pub(crate) key: Option<Arc<Identity>>,
    pub(crate) spool: Arc<Spool>,
    /// The next sequence, told by intake after each append.
    pub(crate) appended: watch::Receiver<u64>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) condition: Condition,
    /// Intake has finished: leave once the fog has committed everything.
    pub(crate) draining: CancellationToken,
    /// Leave now.
    pub(crate) abort: CancellationToken,
    /// One behind the highest sequence ever sent, to tell what is sent again.
    pub(crate) sent_below: u64,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Session(#[from] SessionEnd),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the spool cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the spool cannot be pruned: {0}")]
    Prune(#[from] PruneError),
    #[error("a task of the edge has panicked")]
    Panicked(#[from] tokio::task::JoinError),
    #[error("everything is committed")]
    Drained,
}

impl Uplink {
    /// Runs until everything is committed after `draining`, or until `abort`.
    pub(crate) async fn run(mut self) {
        let abort = self.abort.clone();
        tokio::select! {
            () = abort.cancelled() => {}
            () = self.reconnect() => {}
        }
        self.shared.set_uplink_connected(false);
    }

    async fn reconnect(&mut self) {
        let mut backoff = Backoff::new(
            Duration::from_millis(self.config.backoff_min_ms),
            Duration::from_millis(self.config.backoff_max_ms),
        );
        let mut reachable = true;
        loop {
            if self.is_drained() {
                return;
            }
            let ended = match self.connect().await {
                Ok(uplink) => {
                    reachable = true;
                    let shared = Arc::clone(&self.shared);
                    let acked = || shared.counters.acked_through.load(Relaxed);
                    let before = acked();
                    let ended = self.session(uplink).await;
                    // A fog that takes the Hello and refuses what comes then is not asked again and again.
                    let refused = matches!(ended, Ended::Session(SessionEnd::Refused(_)));
                    if !refused || acked() > before {
                        backoff.reset();
                    }
                    ended
                }
                Err(ended) => ended,
            };
            self.shared.set_uplink_connected(false);
            if matches!(ended, Ended::Drained) {
                return;
            }
            self.condition.not_ready(ended.to_string());
            if std::mem::replace(&mut reachable, false) {
                tracing::warn!(reason = %ended, "no session with the fog; readings are kept and sent later");
            }
            tokio::time::sleep(backoff.next_random()).await;
        }
    }

    async fn connect(&self) -> Result<haar_link::Uplink, Ended> {
        let spool = self.spool.clone();
        let (base, next_seq) = tokio::task::spawn_blocking(move || {
            // In this order: the spool only grows in between.
            spool.base_marks().map(|base| (base, spool.next_seq()))
        })
        .await??;
        let base_marks = base.marks.iter().filter_map(|bytes| match Entry::decode(bytes) {
            Ok(Entry::Mark(mark)) => Some(mark),
            _ => None,
        });
        let hello = Hello {
            edge: self.edge.clone(),
            incarnation: self.spool.incarnation(),
            oldest_seq: base.oldest_seq,
            next_seq,
            base_marks: base_marks.collect(),
        };
        let connected =
            haar_link::connect(&self.config.endpoint, &self.tls, hello, self.key.clone()).await;
        let outcome = match &connected {
            Ok(_) => "open",
            Err(ConnectError::Refused(refusal)) => refusal.reason.as_str(),
            Err(_) => "unreachable",
        };
        self.shared.meters.connects.add(1, &[label(names::label::REASON, outcome)]);
        Ok(connected?)
    }

    async fn session(&mut self, uplink: haar_link::Uplink) -> Ended {
        let haar_link::Uplink { welcome, batches, acks } = uplink;
        tracing::info!(
            resume_from = welcome.resume_from,
            credit = welcome.credit,
            "session with the fog is open"
        );
        self.shared.set_uplink_connected(true);
        self.condition.ready();
        let credit = Notify::new();
        let mut sent_below = self.sent_below;
        let this = &*self;
        let ended = tokio::select! {
            ended = this.send(batches, &credit, &mut sent_below) => ended,
            ended = this.receive(acks, &credit) => ended,
            ended = this.drained() => ended,
        };
        self.sent_below = sent_below;
        match ended {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    /// Sends what the spool has, as far as credit goes.
    async fn send(
        &self,
        mut batches: BatchSender,
        credit: &Notify,
        sent_below: &mut u64,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut appended = self.appended.clone();
        let linger = Duration::from_millis(self.config.linger_ms);
        loop {
            let next = batches.next_seq();
            let available = appended.borrow_and_update().saturating_sub(next);
            let allowed = batches.limit().saturating_add(1).saturating_sub(next);
            let most = available.min(allowed).min(self.config.batch_entries as u64) as usize;
            if most == 0 {
                tokio::select! {
                    changed = appended.changed() => {
                        if changed.is_err() {
                            // Intake has finished; what is left waits for credit.
                            credit.notified().await;
                        } else if !linger.is_zero() {
                            tokio::time::sleep(linger).await;
                        }
                    }
                    () = credit.notified() => {}
                }
                continue;
            }
            let span = tracing::info_span!(names::span::EDGE_BATCH, first_seq = next);
            let (spool, most_bytes) = (self.spool.clone(), self.config.batch_bytes);
            let sending = async {
                let entries =
                    tokio::task::spawn_blocking(move || spool.read(next, most, most_bytes))
                        .await??;
                let batch = Batch {
                    first_seq: next,
                    entries: entries.into_iter().map(|(_, bytes)| Bytes::from(bytes)).collect(),
                    traceparent: trace::traceparent(&tracing::Span::current()),
                    key: None,
                };
                let (entries, bytes) = (batch.entries.len() as u64, batch.bytes() as u64);
                batches.send(batch).await?;
                Ok::<_, Ended>((entries, bytes))
            };
            let (entries, bytes) = sending.instrument(span).await?;
            self.count(next, entries, bytes, sent_below);
        }
    }

    fn count(&self, first_seq: u64, entries: u64, bytes: u64, sent_below: &mut u64) {
        let Shared { counters, meters, .. } = &*self.shared;
        let resent = sent_below.saturating_sub(first_seq).min(entries);
        *sent_below = (*sent_below).max(first_seq + entries);
        counters.sent_entries.fetch_add(entries, Relaxed);
        counters.sent_bytes.fetch_add(bytes, Relaxed);
        counters.resent_entries.fetch_add(resent, Relaxed);
        meters.batches.add(1, &[]);
        meters.sent.add(entries, &[]);
        meters.sent_bytes.add(bytes, &[]);
        meters.resent.add(resent, &[]);
    }

    /// Takes acks, and relieves the spool now and then.
    async fn receive(
        &self,
        mut acks: AckReceiver,
        credit: &Notify,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut keep_from = 0;
        let mut prune = tokio::time::interval(PRUNE_INTERVAL);
        prune.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ack = acks.recv() => {
                    let ack = ack?;
                    keep_from = ack.keep_from;
                    self.acked(ack);
                    credit.notify_one();
                }
                _ = prune.tick() => {
                    // Never beyond what exists, whatever a fog says.
                    let keep_from = keep_from.min(self.spool.next_seq());
                    if keep_from > self.spool.oldest_seq() {
                        let spool = self.spool.clone();
                        tokio::task::spawn_blocking(move || spool.prune(keep_from)).await??;
                    }
                }
            }
        }
    }

    fn acked(&self, ack: Ack) {
        let Shared { counters, meters, .. } = &*self.shared;
        counters.acked_through.fetch_max(ack.durable_through, Relaxed);
        meters.acks.add(1, &[]);
        meters.acked_through.record(ack.durable_through as f64, &[]);
    }

    /// Ends when intake has finished and everything is committed.
    async fn drained(&self) -> Result<std::convert::Infallible, Ended> {
        self.draining.cancelled().await;
        while !self.is_drained() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Ended::Drained)
    }

    fn is_drained(&self) -> bool {
        let acked = self.shared.counters.acked_through.load(Relaxed) + 1;
        self.draining.is_cancelled() && acked.max(self.spool.oldest_seq()) >= self.spool.next_seq()
    }
}
