//! Erasing patients from the fog that runs: between two epochs, so that what is in memory goes with what is on disk.
//!
//! From then on windows that began before the erasure are left out of what is committed, whenever they come: what the dataflow had
//! in its memory, what an edge still had in its spool, what a replay brings again. What began later is
//! recorded anew, under a new key.

use super::Receipts;
use super::order::{ErasureOrder, OrderError};
use crate::consortium::signers::Signers;
use crate::store::{Store, StoreEraseError, StoreError, keyholder};
use haar_ledger::{EraseError, Keyholder};
use haar_schema::{Subject, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::oneshot;

/// Orders that wait for an epoch to end. Who comes after is told to try again.
pub(crate) const QUEUED_ORDERS: usize = 16;

/// Why patients are not erased, or not surely.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusedOrder {
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Erase(#[from] StoreEraseError),
}

type Answer = Result<Receipts, RefusedOrder>;

struct Request {
    note: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// The way from HTTP to the commit thread.
#[derive(Clone)]
pub(crate) struct Orders(SyncSender<Request>);

impl Orders {
    /// Hands in an order; the receiver has the answer when it was followed. `None`: too many wait, or the node stops.
    pub(crate) fn hand_in(&self, note: Vec<u8>) -> Option<oneshot::Receiver<Answer>> {
        let (answer, receiver) = oneshot::channel();
        self.0.try_send(Request { note, answer }).ok().map(|()| receiver)
    }
}

/// In the hands of the commit thread.
pub(crate) struct Eraser {
    requests: Receiver<Request>,
    signers: Signers,
    store: Arc<Store>,
    erased: BTreeMap<Keyholder, Timestamp>,
}

impl Eraser {
    /// With who was erased before.
    pub(crate) fn restore(
        store: &Arc<Store>,
        signers: Signers,
        now: Timestamp,
    ) -> Result<(Self, Orders), StoreError> {
        let (sender, requests) = sync_channel(QUEUED_ORDERS);
        let store = Arc::clone(store);
        let erased = store.erased(now)?;
        Ok((Self { requests, signers, store, erased }, Orders(sender)))
    }

    /// Whether a window that began then is left out.
    pub(crate) fn leaves_out(&self, subject: Subject, begun: Timestamp) -> bool {
        !self.erased.is_empty()
            && self.erased.get(&keyholder(subject)).is_some_and(|at| begun < *at)
    }

    /// Follows the orders that wait, and calls `forget` for everybody who was erased.
    ///
    /// # Errors
    /// If it is not known whether they were erased: the node must stop, and the next start finds out.
    pub(crate) fn follow(
        &mut self,
        now: Timestamp,
        mut forget: impl FnMut(Subject),
    ) -> Result<(), StoreEraseError> {
        let waiting: Vec<Request> = self.requests.try_iter().take(QUEUED_ORDERS).collect();
        for Request { note, answer } in waiting {
            let site = self.store.log().identity().origin();
            let order = match ErasureOrder::open(&note, &self.signers.now(), site, now) {
                Ok(order) => order,
                Err(refused) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(Err(refused.into()));
                    continue;
                }
            };
            let erased = self.store.erase(&order.subjects, now);
            let is_done = match &erased {
                Ok(_) | Err(StoreEraseError::Erase(EraseError::OldKey(_))) => true,
                Err(StoreEraseError::Erase(EraseError::Unknown(_))) => {
                    return erased.map(|_| ());
                }
                Err(_) => false,
            };
            if is_done {
                for subject in &order.subjects {
                    self.erased.insert(keyholder(*subject), now);
                    forget(*subject);
                }
                tracing::info!(patients = order.subjects.len(), "patients were erased, as ordered");
            }
            let receipts = erased.map(|erased| Receipts::of(&order.subjects, &erased));
            let _ = answer.send(receipts.map_err(Into::into));
        }
        Ok(())
    }
}
