//! The outbox: what is to be delivered, in the database that also holds the log.
//!
//! # Format
//! - `fog.outbox`: (target, rank, leaf) → (attempts u32, queued i64, due i64). The rank is 0 for high to 3 for information, so rows
//!   lie in the order in which they are to go out; times are microseconds since 1970.
//! - `fog.dead_letters`: (time i64, target, leaf) → (reason u8, attempts u32).

use haar_schema::{Priority, Timestamp};
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The most rows that wait, of all targets together.
pub(crate) const MAX_WAITING: u64 = 100_000;
/// The most dead letters that are kept; the oldest go first.
pub(crate) const MAX_DEAD: u64 = 10_000;

const OUTBOX: TableDefinition<(&str, u8, u64), (u32, i64, i64)> =
    TableDefinition::new("fog.outbox");
const DEAD: TableDefinition<(i64, &str, u64), (u8, u32)> = TableDefinition::new("fog.dead_letters");

/// What names one delivery: of one step to one target.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) target: String,
    rank: u8,
    pub(crate) leaf: u64,
}

impl Key {
    pub(crate) fn new(target: &str, priority: Priority, leaf: u64) -> Self {
        let rank = match priority {
            Priority::High => 0,
            Priority::Medium => 1,
            Priority::Low => 2,
            Priority::Information => 3,
        };
        Self { target: target.to_owned(), rank, leaf }
    }

    /// The idempotency key: the first 16 bytes of SHA-256 over the domain `haar-notice-v1`, the log's origin with its length
    /// as u32, the leaf as u64 and the target; numbers little-endian. In hexadecimal.
    pub(crate) fn id(&self, origin: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(b"haar-notice-v1");
        hash.update((origin.len() as u32).to_le_bytes());
        hash.update(origin);
        hash.update(self.leaf.to_le_bytes());
        hash.update(&self.target);
        hex::encode(&hash.finalize()[..16])
    }

    fn row(&self) -> (&str, u8, u64) {
        (&self.target, self.rank, self.leaf)
    }
}

/// A row that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Waiting {
    pub(crate) key: Key,
    pub(crate) attempts: u32,
    pub(crate) queued: Timestamp,
    pub(crate) due: Timestamp,
}

/// Why something will not be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reason {
    /// The receiver does not want it.
    Refused,
    /// It was not taken in time.
    Expired,
    /// Too much waited.
    Full,
    /// Its leaf is nothing to be told, or was erased.
    Unreadable,
}

impl Reason {
    const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Refused,
            1 => Self::Expired,
            2 => Self::Full,
            _ => Self::Unreadable,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Full => "full",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What became of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The receiver has it.
    Delivered,
    /// To be tried again.
    Again { attempts: u32, due: Timestamp },
    /// Given up.
    Dead { attempts: u32, reason: Reason },
}

/// What waits and what was given up, without content.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Standing {
    pub(crate) targets: Vec<TargetStanding>,
    /// The newest first.
    pub(crate) dead_letters: Vec<DeadLetter>,
}

/// What waits for one target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct TargetStanding {
    pub(crate) target: String,
    pub(crate) waiting: u64,
    pub(crate) oldest_us: Option<Timestamp>,
    pub(crate) attempts_max: u32,
}

/// What was given up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct DeadLetter {
    pub(crate) at_us: Timestamp,
    pub(crate) target: String,
    pub(crate) leaf: u64,
    pub(crate) reason: Reason,
    pub(crate) attempts: u32,
}

/// Makes the tables.
pub(crate) fn create(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(OUTBOX)?;
    tx.open_table(DEAD)?;
    Ok(())
}

/// Queues deliveries in the transaction that commits their steps. Says how many were given up since too many wait.
pub(crate) fn queue(
    tx: &WriteTransaction,
    keys: &[Key],
    now: Timestamp,
) -> Result<u64, redb::Error> {
    queue_up_to(tx, keys, now, MAX_WAITING)
}

fn queue_up_to(
    tx: &WriteTransaction,
    keys: &[Key],
    now: Timestamp,
    most: u64,
) -> Result<u64, redb::Error> {
    if keys.is_empty() {
        return Ok(0);
    }
    let mut outbox = tx.open_table(OUTBOX)?;
    let mut dead = tx.open_table(DEAD)?;
    let mut given_up = 0;
    for key in keys {
        outbox.insert(key.row(), (0, now.micros(), now.micros()))?;
        if outbox.len()? > most {
            // The last of the target's rows is its least pressing and newest: this one, or one that it displaces.
            let range = (key.target.as_str(), 0, 0)..=(key.target.as_str(), u8::MAX, u64::MAX);
            let last = outbox.range(range)?.next_back().transpose()?;
            let Some((rank, leaf, attempts)) = last.map(|(key, row)| {
                let (_, rank, leaf) = key.value();
                (rank, leaf, row.value().0)
            }) else {
                continue;
            };
            outbox.remove((key.target.as_str(), rank, leaf))?;
            let letter = (now.micros(), key.target.as_str(), leaf);
            dead.insert(letter, (Reason::Full as u8, attempts))?;
            given_up += 1;
        }
    }
    while dead.len()? > MAX_DEAD {
        dead.pop_first()?;
    }
    Ok(given_up)
}

/// The outbox, in the hands of those who empty it. What they ask blocks: not for an async thread.
#[derive(Clone)]
pub(crate) struct Outbox {
    store: Arc<crate::store::Store>,
}

impl Outbox {
    pub(crate) fn new(store: Arc<crate::store::Store>) -> Self {
        Self { store }
    }

    fn db(&self) -> &Database {
        self.store.database()
    }

    /// Name of the log whose steps are told.
    pub(crate) fn origin(&self) -> &str {
        self.store.log().identity().origin()
    }

    /// The record behind a leaf.
    pub(crate) fn record(&self, leaf: u64) -> Result<haar_ledger::Record, haar_ledger::ReadError> {
        self.store.log().record(leaf)
    }

    /// Up to `most` rows of a target that are due, the most pressing first; if none is, when the next will be.
    pub(crate) fn due(
        &self,
        target: &str,
        now: Timestamp,
        most: usize,
    ) -> Result<(Vec<Waiting>, Option<Timestamp>), redb::Error> {
        let table = self.db().begin_read()?.open_table(OUTBOX)?;
        let (mut due, mut next) = (Vec::new(), None::<Timestamp>);
        for row in table.range((target, 0, 0)..=(target, u8::MAX, u64::MAX))? {
            let (key, row) = row?;
            let ((_, rank, leaf), (attempts, queued, at)) = (key.value(), row.value());
            let at = Timestamp::from_micros(at);
            if at > now {
                next = Some(next.map_or(at, |next| next.min(at)));
                continue;
            }
            due.push(Waiting {
                key: Key { target: target.to_owned(), rank, leaf },
                attempts,
                queued: Timestamp::from_micros(queued),
                due: at,
            });
            if due.len() == most {
                break;
            }
        }
        Ok((due, next))
    }

    /// How many rows of a target wait.
    pub(crate) fn waiting(&self, target: &str) -> Result<usize, redb::Error> {
        let table = self.db().begin_read()?.open_table(OUTBOX)?;
        Ok(table.range((target, 0, 0)..=(target, u8::MAX, u64::MAX))?.count())
    }

    /// Writes down what became of rows.
    pub(crate) fn settle(
        &self,
        outcomes: &[(Waiting, Outcome)],
        now: Timestamp,
    ) -> Result<(), redb::Error> {
        let tx = self.db().begin_write()?;
        {
            let mut outbox = tx.open_table(OUTBOX)?;
            let mut dead = tx.open_table(DEAD)?;
            for (waiting, outcome) in outcomes {
                let key = waiting.key.row();
                match outcome {
                    Outcome::Again { attempts, due } => {
                        // It may have been displaced meanwhile.
                        if outbox.get(key)?.is_some() {
                            let row = (*attempts, waiting.queued.micros(), due.micros());
                            outbox.insert(key, row)?;
                        }
                    }
                    Outcome::Delivered => drop(outbox.remove(key)?),
                    Outcome::Dead { attempts, reason } => {
                        outbox.remove(key)?;
                        let letter = (now.micros(), key.0, key.2);
                        dead.insert(letter, (*reason as u8, *attempts))?;
                    }
                }
            }
            while dead.len()? > MAX_DEAD {
                dead.pop_first()?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// What waits, and up to `most` dead letters.
    pub(crate) fn standing(&self, most: usize) -> Result<Standing, redb::Error> {
        let tx = self.db().begin_read()?;
        let mut standing = Standing::default();
        for row in tx.open_table(OUTBOX)?.iter()? {
            let (key, row) = row?;
            let ((target, _, _), (attempts, queued, _)) = (key.value(), row.value());
            if standing.targets.last().is_none_or(|last| last.target != target) {
                let target = target.to_owned();
                let (waiting, oldest_us, attempts_max) = (0, None, 0);
                standing.targets.push(TargetStanding { target, waiting, oldest_us, attempts_max });
            }
            if let Some(last) = standing.targets.last_mut() {
                let queued = Timestamp::from_micros(queued);
                last.waiting += 1;
                last.attempts_max = last.attempts_max.max(attempts);
                last.oldest_us = Some(last.oldest_us.map_or(queued, |oldest| oldest.min(queued)));
            }
        }
        for row in tx.open_table(DEAD)?.iter()?.rev().take(most) {
            let (key, row) = row?;
            let ((at, target, leaf), (reason, attempts)) = (key.value(), row.value());
            standing.dead_letters.push(DeadLetter {
                at_us: Timestamp::from_micros(at),
                target: target.to_owned(),
                leaf,
                reason: Reason::from_byte(reason),
                attempts,
            });
        }
        Ok(standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Epoch, Notice, Store};
    use haar_ledger::Identity;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn outbox(dir: &std::path::Path) -> Outbox {
        let identity = Identity::generate("haar.test/site", [7; 32]).unwrap();
        Outbox::new(Arc::new(Store::open(dir, identity).unwrap()))
    }

    fn notices() -> Vec<Notice> {
        let notice = |(key, record): (&Key, u64)| {
            let priorities =
                [Priority::High, Priority::Medium, Priority::Low, Priority::Information];
            let priority = priorities[usize::from(key.rank)];
            Notice { record, priority, target: key.target.clone() }
        };
        keys().iter().zip(0..).map(notice).collect()
    }

    fn keys() -> Vec<Key> {
        let priorities = [
            Priority::Low,
            Priority::High,
            Priority::Information,
            Priority::Medium,
            Priority::High,
        ];
        let keys =
            priorities.iter().zip(0..).map(|(priority, leaf)| Key::new("a", *priority, leaf));
        keys.chain([Key::new("b", Priority::Low, 9)]).collect()
    }

    #[test]
    fn the_most_pressing_goes_first_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        {
            let outbox = outbox(dir.path());
            let epoch = Epoch { notices: notices(), at: at(5), ..Epoch::default() };
            outbox.store.commit(&epoch).unwrap();
        }
        let outbox = outbox(dir.path());
        let (due, _) = outbox.due("a", at(5), 10).unwrap();
        assert_eq!(due.iter().map(|row| row.key.leaf).collect::<Vec<_>>(), [1, 4, 3, 0, 2]);
        assert_eq!(outbox.due("a", at(5), 2).unwrap().0.len(), 2);
        assert_eq!(outbox.due("a", at(4), 9).unwrap(), (vec![], Some(at(5))));
        let later = Outcome::Again { attempts: 1, due: at(9) };
        let dead = Outcome::Dead { attempts: 3, reason: Reason::Refused };
        let outcomes =
            [(due[0].clone(), Outcome::Delivered), (due[1].clone(), later), (due[2].clone(), dead)];
        outbox.settle(&outcomes, at(6)).unwrap();
        let (left, next) = outbox.due("a", at(8), 10).unwrap();
        assert_eq!(left.iter().map(|row| row.key.leaf).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(next, Some(at(9)));
        assert_eq!(outbox.due("a", at(9), 1).unwrap().0[0].attempts, 1);
        let standing = outbox.standing(5).unwrap();
        let waiting: Vec<_> =
            standing.targets.iter().map(|own| (own.target.as_str(), own.waiting)).collect();
        assert_eq!(waiting, [("a", 3), ("b", 1)]);
        let letter = &standing.dead_letters[0];
        assert_eq!((letter.leaf, letter.reason, letter.attempts), (3, Reason::Refused, 3));
    }

    #[test]
    fn what_is_too_much_displaces_the_least_pressing() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = outbox(dir.path());
        let tx = outbox.db().begin_write().unwrap();
        assert_eq!(queue_up_to(&tx, &keys()[..5], at(1), 3).unwrap(), 2);
        tx.commit().unwrap();
        let (due, _) = outbox.due("a", at(1), 10).unwrap();
        assert_eq!(due.iter().map(|row| row.key.leaf).collect::<Vec<_>>(), [1, 4, 3]);
        let dead = outbox.standing(9).unwrap().dead_letters;
        let mut leaves: Vec<u64> = dead.iter().map(|letter| letter.leaf).collect();
        leaves.sort_unstable();
        assert_eq!(leaves, [0, 2]);
        assert!(dead.iter().all(|letter| letter.reason == Reason::Full));
    }

    #[test]
    fn the_key_tells_steps_targets_and_sites_apart() {
        let key = Key::new("a", Priority::High, 7);
        assert_eq!(key.id("x"), Key::new("a", Priority::Low, 7).id("x"));
        let others = [
            Key::new("b", Priority::High, 7).id("x"),
            Key::new("a", Priority::High, 8).id("x"),
            key.id("y"),
        ];
        assert!(others.iter().all(|other| *other != key.id("x")));
        assert_eq!(key.id("x").len(), 32);
    }
}
