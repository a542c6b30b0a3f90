//! One edge's stream at the fog, from Hello to the end.
//!
//! A session task owns the stream. It reads a batch only after the fog has taken the last one: HTTP/2 flow
//! control then holds the edge back. Acks go out beside that, so that a fog that waits does not hold them up.

use crate::ack::{AckSender, Outgoing};
use crate::signing::Origin;
use crate::wire::{self, EdgeMessage, FogMessage, FromEdge, Signature, Unchecked};
use crate::{
    Batch, Fog, HANDSHAKE_TIMEOUT, Hello, MAX_CREDIT, Refusal, RefusalReason, SessionId, Welcome,
};
use haar_schema::EdgeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// Why a session ended: refused by this side, or the edge has gone.
enum End {
    Refused(Refusal),
    Gone,
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

pub(crate) type Outbound = mpsc::Sender<Result<FogMessage, Status>>;

/// Runs one stream to its end and tells the edge why it ended.
pub(crate) async fn run<F: Fog>(
    fog: Arc<F>,
    sessions: Arc<Sessions>,
    certified: Result<EdgeId, Refusal>,
    mut inbound: Streaming<EdgeMessage>,
    out: Outbound,
) {
    let end = match certified {
        Ok(edge) => converse(&*fog, &sessions, &edge, &mut inbound, &out).await,
        Err(refusal) => End::Refused(refusal),
    };
    if let End::Refused(refusal) = end {
        tracing::warn!(reason = %refusal.reason, advice = %refusal.advice, "refused an edge");
        // The edge may have gone, or not read: then it will not learn why.
        let _ =
            tokio::time::timeout(HANDSHAKE_TIMEOUT, out.send(Ok(wire::encode_refusal(refusal))))
                .await;
    }
}

async fn converse<F: Fog>(
    fog: &F,
    sessions: &Arc<Sessions>,
    edge: &EdgeId,
    inbound: &mut Streaming<EdgeMessage>,
    out: &Outbound,
) -> End {
    let hello = match read_hello(inbound, edge).await {
        Ok(hello) => hello,
        Err(end) => return end,
    };
    let enrolment = sessions.enrol(edge);
    let interrupted = async {
        tokio::select! {
            biased;
            () = sessions.shutdown.cancelled() => Refusal::new(
                RefusalReason::Stopping, "the fog is stopping; connect again in a moment"),
            () = enrolment.replaced.cancelled() => Refusal::new(
                RefusalReason::Replaced,
                "this edge has opened a newer connection; if that was not you, another box has its key"),
        }
    };
    tokio::select! {
        biased;
        refusal = interrupted => End::Refused(refusal),
        end = attend(fog, &enrolment, edge, hello, inbound, out) => end,
    }
}

async fn read_hello(inbound: &mut Streaming<EdgeMessage>, edge: &EdgeId) -> Result<Hello, End> {
    let timeout = || {
        Refusal::new(RefusalReason::Malformed, "no Hello came; is this an edge of this version?")
    };
    let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, inbound.message())
        .await
        .map_err(|_| End::Refused(timeout()))?;
    let message = match first {
        Ok(Some(message)) => message,
        Ok(None) => return Err(End::Gone),
        Err(status) => return Err(unreadable(&status)),
    };
    let FromEdge::Hello(hello) = wire::decode_edge(message)? else {
        return Err(Refusal::new(RefusalReason::Malformed, "the first message is a Hello").into());
    };
    if hello.edge != *edge {
        let advice =
            "the Hello names another edge than the certificate; use the certificate of that edge";
        return Err(Refusal::new(RefusalReason::Identity, advice).into());
    }
    Ok(hello)
}

/// From the edge's turn to its end. May be dropped at any await; `Attached` then tells the fog.
async fn attend<F: Fog>(
    fog: &F,
    enrolment: &Enrolment,
    edge: &EdgeId,
    hello: Hello,
    inbound: &mut Streaming<EdgeMessage>,
    out: &Outbound,
) -> End {
    let _turn: OwnedMutexGuard<()> = enrolment.turn.clone().lock_owned().await;
    let (acks, latest) = AckSender::new();
    let held = hello.oldest_seq..=hello.next_seq;
    let origin = Origin { edge: hello.edge.clone(), incarnation: hello.incarnation };
    let id = enrolment.id;
    let welcome = match fog.open(edge, id, hello, acks).await {
        Ok(welcome) => welcome,
        Err(refusal) => return End::Refused(refusal),
    };
    let _attached = Attached { fog, edge, id };
    if !held.contains(&welcome.resume_from) {
        let advice = "the fog needs readings that this spool does not hold";
        return Refusal::new(RefusalReason::Incarnation, advice).into();
    }
    let welcome = Welcome { credit: welcome.credit.min(MAX_CREDIT), ..welcome };
    if out.send(Ok(wire::encode_welcome(welcome))).await.is_err() {
        return End::Gone;
    }
    let mut lane = Lane::new(welcome);
    let told = latest.clone();
    tokio::select! {
        end = tell(latest, out) => end,
        end = async {
            loop {
                let batch = match read_batch(inbound, &origin).await {
                    Ok(batch) => batch,
                    Err(end) => return end,
                };
                if let Err(refusal) = lane.admit(&batch, told.borrow().limit) {
                    return End::Refused(refusal);
                }
                if let Err(refusal) = fog.batch(edge, id, batch).await {
                    return End::Refused(refusal);
                }
            }
        } => end,
    }
}

/// Sends the latest ack whenever there is a newer one.
async fn tell(mut latest: watch::Receiver<Outgoing>, out: &Outbound) -> End {
    // An ack may have been given before the Welcome.
    latest.mark_changed();
    while latest.changed().await.is_ok() {
        let Outgoing { ack, refusal, .. } = latest.borrow_and_update().clone();
        if let Some(refusal) = refusal {
            return End::Refused(refusal);
        }
        if let Some(ack) = ack
            && out.send(Ok(wire::encode_ack(ack))).await.is_err()
        {
            return End::Gone;
        }
    }
    // The fog dropped its sender: it will never acknowledge, but may still take batches.
    std::future::pending().await
}

async fn read_batch(inbound: &mut Streaming<EdgeMessage>, origin: &Origin) -> Result<Batch, End> {
    match inbound.message().await {
        Ok(Some(message)) => match wire::decode_edge(message)? {
            FromEdge::Batch(unchecked) => Ok(checked(unchecked, origin)?),
            FromEdge::Hello(_) => {
                Err(Refusal::new(RefusalReason::Malformed, "a second Hello; open a stream").into())
            }
        },
        Ok(None) => Err(End::Gone),
        Err(status) => Err(unreadable(&status)),
    }
}

/// The batch, if it is not signed or by the key that it names.
fn checked(
    Unchecked { mut batch, signature }: Unchecked,
    origin: &Origin,
) -> Result<Batch, Refusal> {
    if let Some(Signature { key, bytes }) = signature {
        if !origin.verifies(&batch, &key, &bytes) {
            let advice = "a batch is not signed by the key that it names; is the edge's key file the right one?";
            return Err(Refusal::new(RefusalReason::Key, advice));
        }
        batch.key = Some(key);
    }
    Ok(batch)
}

/// A stream that broke has nobody to tell; a message too long or not of protobuf has.
fn unreadable(status: &Status) -> End {
    match status.code() {
        tonic::Code::OutOfRange => {
            End::Refused(Refusal::new(RefusalReason::Limits, "a message over the limit of bytes"))
        }
        tonic::Code::Internal => End::Refused(Refusal::new(
            RefusalReason::Malformed,
            "a message that is not of this protocol; update the edge",
        )),
        _ => End::Gone,
    }
}

/// Where a session's sequence stands.
struct Lane {
    next_seq: u64,
    limit: u64,
}

impl Lane {
    fn new(welcome: Welcome) -> Self {
        let before = welcome.resume_from.saturating_sub(1);
        Self { next_seq: welcome.resume_from, limit: before + u64::from(welcome.credit) }
    }

    /// Checks that a batch goes on where the last one ended, within the highest limit announced.
    fn admit(&mut self, batch: &Batch, announced_limit: u64) -> Result<(), Refusal> {
        if batch.first_seq != self.next_seq {
            let advice = format!(
                "a batch began with {}, but {} is next; connect again to be asked where to go on",
                batch.first_seq, self.next_seq
            );
            return Err(Refusal::new(RefusalReason::Gap, advice));
        }
        self.limit = self.limit.max(announced_limit);
        let last = batch.end_seq() - 1;
        if last > self.limit {
            let advice = format!("{last} was sent, but credit ends at {}", self.limit);
            return Err(Refusal::new(RefusalReason::Credit, advice));
        }
        self.next_seq = batch.end_seq();
        Ok(())
    }
}

/// Says `closed` exactly once after an `open` that succeeded, however the session ends.
struct Attached<'a, F: Fog> {
    fog: &'a F,
    edge: &'a EdgeId,
    id: SessionId,
}

impl<F: Fog> Drop for Attached<'_, F> {
    fn drop(&mut self) {
        self.fog.closed(self.edge, self.id);
    }
}

/// All sessions of a server: at most one per edge is with the fog. One row per connected edge, and an edge needs
/// a certificate of the site, so the CA bounds it.
pub(crate) struct Sessions {
    shutdown: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    newest: BTreeMap<EdgeId, Newest>,
}

struct Newest {
    id: SessionId,
    replaced: CancellationToken,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A session's place in [`Sessions`], left on drop.
struct Enrolment {
    sessions: Arc<Sessions>,
    edge: EdgeId,
    id: SessionId,
    replaced: CancellationToken,
    /// Held while the session is with the fog, so that an edge's sessions follow each other.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Sessions {
    pub(crate) fn new(shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self { shutdown, state: Mutex::default() })
    }

    /// Makes a session the newest of its edge and ends the one before.
    fn enrol(self: &Arc<Self>, edge: &EdgeId) -> Enrolment {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_id += 1;
        let id = SessionId(state.last_id);
        let replaced = CancellationToken::new();
        let turn = match state.newest.get(edge) {
            Some(older) => {
                older.replaced.cancel();
                older.turn.clone()
            }
            None => Arc::default(),
        };
        let newest = Newest { id, replaced: replaced.clone(), turn: turn.clone() };
        state.newest.insert(edge.clone(), newest);
        Enrolment { sessions: self.clone(), edge: edge.clone(), id, replaced, turn }
    }
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        let mut state = self.sessions.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.newest.get(&self.edge).is_some_and(|newest| newest.id == self.id) {
            state.newest.remove(&self.edge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_takes_what_is_next_and_within_credit() {
        let batch = |first_seq, count| Batch {
            first_seq,
            entries: vec![vec![0].into(); count],
            traceparent: None,
            key: None,
        };
        let mut lane = Lane::new(Welcome { resume_from: 5, credit: 10 });
        assert!(lane.admit(&batch(5, 6), 0).is_ok());
        assert_eq!(lane.admit(&batch(10, 1), 0).unwrap_err().reason, RefusalReason::Gap);
        assert_eq!(lane.admit(&batch(12, 1), 0).unwrap_err().reason, RefusalReason::Gap);
        assert_eq!(lane.admit(&batch(11, 5), 0).unwrap_err().reason, RefusalReason::Credit);
        assert!(lane.admit(&batch(11, 5), 15).is_ok());
        // A credit that shrank does not take back what was announced.
        assert!(lane.admit(&batch(16, 1), 16).is_ok());
        assert_eq!(lane.next_seq, 17);
    }

    #[test]
    fn a_batch_that_another_key_signed_ends_the_session() {
        let [named, other] = [3, 4].map(|seed| {
            Arc::new(haar_identity::Identity::generate("site.example/edge-1", [seed; 32]).unwrap())
        });
        let origin = Origin { edge: "edge-1".parse().unwrap(), incarnation: [7; 16] };
        let entries = vec![vec![1].into()];
        let mut batch = Batch { first_seq: 1, entries, traceparent: None, key: None };
        let stranger = origin.sign(&mut batch, &other);
        let signature = origin.sign(&mut batch, &named);
        let taken = |batch: &Batch, bytes| {
            let key = Arc::new(named.vkey().clone());
            let batch = Batch { key: None, ..batch.clone() };
            checked(Unchecked { batch, signature: Some(Signature { key, bytes }) }, &origin)
        };
        assert_eq!(taken(&batch, signature).unwrap(), batch);
        assert_eq!(taken(&batch, stranger).unwrap_err().reason, RefusalReason::Key);
        let altered = Batch { entries: vec![vec![2].into()], ..batch.clone() };
        assert_eq!(taken(&altered, signature).unwrap_err().reason, RefusalReason::Key);
        let unsigned = Batch { key: None, ..batch };
        let bare = Unchecked { batch: unsigned.clone(), signature: None };
        assert_eq!(checked(bare, &origin).unwrap(), unsigned);
    }

    #[test]
    fn the_newest_session_of_an_edge_replaces_the_older() {
        let sessions = Sessions::new(CancellationToken::new());
        let edge = "edge-1".parse().unwrap();
        let older = sessions.enrol(&edge);
        let newer = sessions.enrol(&edge);
        assert!(older.replaced.is_cancelled() && !newer.replaced.is_cancelled());
        drop(older);
        assert_eq!(sessions.state.lock().unwrap().newest.len(), 1);
        drop(newer);
        assert!(sessions.state.lock().unwrap().newest.is_empty());
    }
}
