//! Erasing patients, and knowing for a while who was: what edges still hold of them must not come back.
//!
//! # Format
//! `fog.erased`: number u64 → a sealed fact of the site's: keyholder \[32\] | when, microseconds by the fog's clock, i64 little-endian.
//! Kept for [`KEPT_US`], longer than an edge keeps readings for a fog that is away. Until then whoever has the database,
//! the records key and a pseudonym can tell that this patient was erased.

use super::{PARAMETERS, SEALED, Store, keyholder};
use haar_ledger::{EraseError, Erased, FactError, FactSealer, Keyholder, Place, SealError};
use haar_schema::{Subject, Timestamp};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::collections::BTreeMap;

const ERASED: TableDefinition<u64, &[u8]> = TableDefinition::new("fog.erased");
const TABLE: &str = "fog.erased";

/// How long it is known who was erased: 90 days, in microseconds.
pub(crate) const KEPT_US: i64 = 90 * 86_400_000_000;

/// Makes the table.
pub(super) fn create(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(ERASED)?;
    Ok(())
}

/// Why patients were not erased, or not surely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreEraseError {
    /// See there.
    #[error(transparent)]
    Erase(#[from] EraseError),
    /// Who was erased before cannot be read; nobody was erased.
    #[error("nobody was erased: {0}")]
    Fact(#[from] FactError),
}

impl Store {
    /// Erases patients: their keys, and in the same transaction what is kept of them here. What a node
    /// that runs has of them in memory is its own to forget. `at`: now, by the fog's clock.
    pub(crate) fn erase(
        &self,
        subjects: &[Subject],
        at: Timestamp,
    ) -> Result<Vec<Erased>, StoreEraseError> {
        let keyholders: Vec<_> = subjects.iter().copied().map(keyholder).collect();
        let known = self.erased(at)?;
        let erased = self.log.erase(&keyholders, |tx, sealer| {
            // What is under the names of windows stays, as the log's records do: nothing opens it any more.
            let mut parameters = tx.open_table(PARAMETERS).map_err(redb::Error::from)?;
            for (subject, keyholder) in subjects.iter().zip(&keyholders) {
                for sealed in SEALED {
                    sealed.remove(tx, *subject)?;
                }
                let holder = keyholder.to_bytes();
                parameters.retain_in((holder, 0)..=(holder, u32::MAX), |_, _| false)?;
            }
            let known = known.into_iter().filter(|(holder, _)| !keyholders.contains(holder));
            note(tx, sealer, known.chain(keyholders.iter().map(|holder| (*holder, at))))
        })?;
        Ok(erased)
    }

    /// Who was erased within [`KEPT_US`], and when.
    pub(crate) fn erased(
        &self,
        now: Timestamp,
    ) -> Result<BTreeMap<Keyholder, Timestamp>, FactError> {
        self.log.read_facts(|tx, facts| {
            let mut erased = BTreeMap::new();
            let table = tx.open_table(ERASED).map_err(redb::Error::from)?;
            for row in table.iter().map_err(redb::Error::from)? {
                let (number, row) = row.map_err(redb::Error::from)?;
                let key = number.value().to_be_bytes();
                let damaged = || FactError::Damaged { table: TABLE.to_owned() };
                let place = Place { table: TABLE, key: &key };
                let fact = facts.open(place, row.value())?.ok_or_else(damaged)?;
                let (holder, at) = decode(&fact).ok_or_else(damaged)?;
                if now.micros_since(at) < KEPT_US {
                    erased.insert(holder, at);
                }
            }
            Ok(erased)
        })
    }
}

/// Writes who was erased and when, in the place of what stood there.
fn note(
    tx: &WriteTransaction,
    sealer: &mut FactSealer<'_>,
    erased: impl Iterator<Item = (Keyholder, Timestamp)>,
) -> Result<(), SealError> {
    let mut table = tx.open_table(ERASED).map_err(redb::Error::from)?;
    table.retain(|_, _| false)?;
    for (number, (holder, at)) in (0_u64..).zip(erased) {
        let place = Place { table: TABLE, key: &number.to_be_bytes() };
        let fact = [&holder.to_bytes()[..], &at.micros().to_le_bytes()].concat();
        table.insert(number, sealer.seal(None, place, &fact)?.as_slice())?;
    }
    Ok(())
}

fn decode(fact: &[u8]) -> Option<(Keyholder, Timestamp)> {
    let (holder, at) = fact.split_first_chunk::<32>()?;
    let at = i64::from_le_bytes(at.try_into().ok()?);
    Some((Keyholder::from_bytes(*holder), Timestamp::from_micros(at)))
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    const AT: Timestamp = Timestamp::from_micros(5_000_000);

    fn subject(n: u8) -> Subject {
        Subject::from_bytes([n; 16])
    }

    fn store(dir: &Path) -> Store {
        Store::open(dir, Identity::generate("haar.test/site", [7; 32]).unwrap()).unwrap()
    }

    fn held(n: u8) -> Held {
        Held {
            keyholder: Some(keyholder(subject(n))),
            record: Record {
                kind: haar_ledger::LeafKind::WindowDigest,
                name: [10 + n; 32],
                key: [9; 32],
                body: b"{}".to_vec(),
            },
        }
    }

    /// Everything there is of patients 1 and 2.
    fn epoch() -> (Epoch, Known) {
        let known = Known { revision: 0, inputs: [6; 32] };
        let both = [subject(1), subject(2)];
        let epoch = Epoch {
            records: vec![held(1), held(2)],
            windows: [1, 2].map(|n| (WindowId::from_bytes([10 + n; 32]), subject(n), known)).into(),
            alarms: both.map(|own| (own.to_bytes().to_vec(), Some(vec![1]))).into(),
            courses: both.map(|own| (own, Some(vec![1]))).into(),
            charts: both.map(|own| (own, Some(vec![1]))).into(),
            parameters: vec![(subject(1), 1, 0), (subject(2), 1, 1)],
            ..Epoch::default()
        };
        (epoch, known)
    }

    #[test]
    fn an_erased_patient_leaves_nothing_here_that_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let (epoch, known) = epoch();
        store.commit(&epoch).unwrap();
        let erased = store.erase(&[subject(1)], AT).unwrap();
        assert_eq!(erased.len(), 1);
        assert!(matches!(store.log().record(0), Err(haar_ledger::ReadError::Erased { .. })));
        assert_eq!(store.log().record(1).unwrap(), held(2).record);
        let windows = [11, 12].map(|n| WindowId::from_bytes([n; 32]));
        assert_eq!(store.known(&windows).unwrap(), [None, Some(known)]);
        assert_eq!(store.alarms().unwrap(), [(vec![2; 16], vec![1])]);
        assert_eq!(store.courses().unwrap(), [(subject(2), vec![1])]);
        assert_eq!(store.charts().unwrap(), [(subject(2), vec![1])]);
        assert_eq!(store.parameters().unwrap(), [1]);
        let again = store.erase(&[subject(1)], AT);
        assert!(again.is_err(), "there is nothing left to erase");
    }

    #[test]
    fn it_is_known_for_a_while_who_was_erased() {
        let dir = tempfile::tempdir().unwrap();
        let later = AT.plus_micros(KEPT_US - 1);
        {
            let store = store(dir.path());
            store.commit(&epoch().0).unwrap();
            store.erase(&[subject(1)], AT).unwrap();
            store.erase(&[subject(2)], later).unwrap();
        }
        let store = store(dir.path());
        let [first, second] = [1, 2].map(|n| keyholder(subject(n)));
        assert_eq!(store.erased(later).unwrap(), [(first, AT), (second, later)].into());
        let past = later.plus_micros(1);
        assert_eq!(store.erased(past).unwrap(), [(second, later)].into());
    }

    /// Whoever has the file alone finds no pseudonym and no fact in any page of it.
    #[test]
    fn the_file_alone_tells_nothing_of_a_patient() {
        let dir = tempfile::tempdir().unwrap();
        let secret = b"what is known of this patient";
        {
            let store = store(dir.path());
            let mut epoch = epoch().0;
            let subject = Subject::from_bytes(*b"pseudonym 16 by.");
            epoch.alarms = vec![(subject.to_bytes().to_vec(), Some(secret.to_vec()))];
            epoch.courses = vec![(subject, Some(secret.to_vec()))];
            epoch.charts = vec![(subject, Some(secret.to_vec()))];
            epoch.parameters = vec![(subject, 1, 0)];
            epoch.windows[0].1 = subject;
            epoch.windows[0].2.inputs = *b"hash of what the readings were..";
            store.commit(&epoch).unwrap();
        }
        let file = std::fs::read(dir.path().join(DATABASE_FILE)).unwrap();
        let needles = [&secret[..], b"pseudonym 16 by.", b"hash of what the readings"];
        for needle in needles {
            assert!(!file.windows(needle.len()).any(|part| part == needle));
        }
        assert!(file.windows(10).any(|part| part == b"fog.alarms"), "names of tables are found");
    }
}
