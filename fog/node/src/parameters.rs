//! What doctors set for single patients: taken over HTTP, committed, in force from its effective time on.
//!
//! A note is [`haar_catalog::parameters`]' signed text. It is taken by the commit thread, between two epochs: checked, put into the ward that
//! the dataflow reads, and committed as a leaf with the epoch. The answer comes when it is on disk. After a start the
//! ward is read back from the log.
//!
//! # Limits and trust
//! [`QUEUED_NOTES`] wait. Only keys count that [`Signers`] has. A note cannot be effective in the past: windows of then
//! are committed, and a replay would have to come to other ones.

use crate::consortium::signers::Signers;
use crate::store::{Store, StoreError};
use haar_catalog::parameters::{ParameterError, Parameters};
use haar_dataflow::conclude::SharedWard;
use haar_schema::{Subject, Timestamp};
use serde::Serialize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use tokio::sync::oneshot;

/// Notes that wait for an epoch to end. Who comes after is told to try again.
pub(crate) const QUEUED_NOTES: usize = 64;

/// Why parameters are not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RefusedNote {
    /// They are not acceptable in themselves.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// They would change what is committed.
    #[error(
        "they would hold from {0}, which is past: windows of then are committed; choose a later effective time"
    )]
    Past(Timestamp),
}

/// What was committed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct InForce {
    pub(crate) leaf: u64,
    pub(crate) version: u32,
}

type Answer = Result<InForce, RefusedNote>;

/// A note that waits.
pub(crate) struct Request {
    note: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// The way from HTTP to the commit thread, and what is in force.
#[derive(Clone)]
pub(crate) struct Charts {
    requests: SyncSender<Request>,
    ward: SharedWard,
}

/// The parameters, in the hands of the commit thread.
pub(crate) struct Registrar {
    requests: Receiver<Request>,
    ward: SharedWard,
    signers: Signers,
}

/// A note that was taken, not yet committed.
pub(crate) struct Taken {
    pub(crate) note: Vec<u8>,
    pub(crate) subject: Subject,
    pub(crate) version: u32,
    answer: oneshot::Sender<Answer>,
}

impl Charts {
    /// Hands in a note; the receiver has the answer when it is committed. `None`: too many wait, or the node stops.
    pub(crate) fn set(&self, note: Vec<u8>) -> Option<oneshot::Receiver<Answer>> {
        let (answer, receiver) = oneshot::channel();
        self.requests.try_send(Request { note, answer }).ok().map(|()| receiver)
    }

    /// All versions of a patient's parameters.
    pub(crate) fn versions(&self, subject: Subject) -> Vec<Parameters> {
        self.ward.read().unwrap_or_else(PoisonError::into_inner).versions(subject).to_vec()
    }
}

impl Registrar {
    /// Reads what is in force back from the log.
    ///
    /// # Errors
    /// If the log cannot be read. Parameters that this version does not understand are left out, and said.
    pub(crate) fn restore(store: &Store, signers: Signers) -> Result<(Self, Charts), StoreError> {
        let ward = SharedWard::default();
        for leaf in store.parameters()? {
            let record = match store.log().record(leaf) {
                Ok(record) => record,
                Err(error) => {
                    tracing::error!(leaf, %error, "parameters of a patient cannot be read and are not in force");
                    continue;
                }
            };
            let mut ward = ward.write().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = ward.restore(&record.body) {
                tracing::error!(leaf, %error, "parameters of a patient are not understood and not in force");
            }
        }
        let (sender, requests) = sync_channel(QUEUED_NOTES);
        let charts = Charts { requests: sender, ward: Arc::clone(&ward) };
        Ok((Self { requests, ward, signers }, charts))
    }

    /// What the dataflow reads.
    pub(crate) fn ward(&self) -> &SharedWard {
        &self.ward
    }

    /// Takes what waits. Who is refused is told at once.
    pub(crate) fn take(&self, now: Timestamp) -> Vec<Taken> {
        let take = |Request { note, answer }| match self.take_one(now, &note) {
            Ok((subject, version)) => Some(Taken { note, subject, version, answer }),
            Err(refused) => {
                // Whoever asked may have gone.
                let _ = answer.send(Err(refused));
                None
            }
        };
        self.requests.try_iter().take(QUEUED_NOTES).filter_map(take).collect()
    }

    /// The patient was erased.
    pub(crate) fn forget(&self, subject: Subject) {
        self.ward.write().unwrap_or_else(PoisonError::into_inner).forget(subject);
    }

    fn take_one(&self, now: Timestamp, note: &[u8]) -> Result<(Subject, u32), RefusedNote> {
        let parameters = Parameters::open(note, &self.signers.now())?;
        let mut ward = self.ward.write().unwrap_or_else(PoisonError::into_inner);
        ward.check(&parameters)?;
        if parameters.effective < now {
            return Err(RefusedNote::Past(parameters.effective));
        }
        let taken = ward.add(parameters)?;
        Ok((taken.subject, taken.version))
    }
}

impl Taken {
    /// It is on disk, at this leaf.
    pub(crate) fn committed(self, leaf: u64) {
        let _ = self.answer.send(Ok(InForce { leaf, version: self.version }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EdgeKeys;
    use crate::consortium::roll::Roll;
    use crate::store::Epoch;
    use haar_catalog::parameters::Limit;
    use haar_ledger::{Identity, LeafKind, Record};
    use haar_schema::SignalId;
    use haar_signals::news2::SpO2Scale;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn doctor() -> Identity {
        Identity::generate("haar.test/doctor", [3; 32]).unwrap()
    }

    fn signers(configured: Vec<String>) -> Signers {
        Signers::new(configured, None, Roll::new("haar.test/site", EdgeKeys::Optional))
    }

    fn note(version: u32, effective: Timestamp) -> Vec<u8> {
        let limit = Limit { unit: "%".into(), low: Some(85.0), ..Limit::default() };
        let parameters = Parameters {
            subject: Subject::from_bytes([7; 16]),
            version,
            effective,
            spo2_scale: SpO2Scale::Two,
            limits: [(SignalId::SPO2, limit)].into(),
            reason: "hypercapnic failure".into(),
        };
        doctor().sign(&parameters.text()).unwrap()
    }

    #[test]
    fn parameters_are_in_force_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let site = || Identity::generate("haar.test/site", [7; 32]).unwrap();
        let keys = || signers(vec![doctor().vkey().to_string()]);
        {
            let store = Store::open(dir.path(), site()).unwrap();
            let (registrar, charts) = Registrar::restore(&store, keys()).unwrap();
            let mut answer = charts.set(note(1, at(10))).unwrap();
            let mut past = charts.set(note(2, at(4))).unwrap();
            let mut forged = charts.set(b"no note".to_vec()).unwrap();
            let taken = registrar.take(at(5));
            assert_eq!(past.try_recv().unwrap(), Err(ParameterError::Effective.into()));
            assert_eq!(forged.try_recv().unwrap(), Err(ParameterError::Malformed.into()));
            let [taken] = <[Taken; 1]>::try_from(taken).ok().unwrap();
            let record = Record {
                kind: LeafKind::PatientParameters,
                name: [0; 32],
                key: [1; 32],
                body: taken.note.clone(),
            };
            let epoch = Epoch {
                records: vec![record.into()],
                parameters: vec![(taken.subject, taken.version, 0)],
                ..Epoch::default()
            };
            let first = store.commit(&epoch).unwrap().first_index;
            taken.committed(first);
            assert_eq!(answer.try_recv().unwrap(), Ok(InForce { leaf: 0, version: 1 }));
        }
        let store = Store::open(dir.path(), site()).unwrap();
        // The key was withdrawn meanwhile: what was taken stays, and nothing new is.
        let (registrar, charts) = Registrar::restore(&store, signers(Vec::new())).unwrap();
        assert_eq!(charts.versions(Subject::from_bytes([7; 16])).len(), 1);
        let mut refused = charts.set(note(2, at(20))).unwrap();
        assert!(registrar.take(at(5)).is_empty());
        assert_eq!(refused.try_recv().unwrap(), Err(ParameterError::Signature.into()));
    }

    #[test]
    fn the_past_cannot_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let site = Identity::generate("haar.test/site", [7; 32]).unwrap();
        let store = Store::open(dir.path(), site).unwrap();
        let keys = signers(vec![doctor().vkey().to_string()]);
        let (registrar, charts) = Registrar::restore(&store, keys).unwrap();
        let mut answer = charts.set(note(1, at(4))).unwrap();
        assert!(registrar.take(at(5)).is_empty());
        assert_eq!(answer.try_recv().unwrap(), Err(RefusedNote::Past(at(4))));
        assert!(charts.versions(Subject::from_bytes([7; 16])).is_empty());
    }
}
