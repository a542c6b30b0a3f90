//! The keys of sealed records: whether they are all there, or erased by a leaf.

use super::{Found, Problem, Rows, guarded};
use crate::leaf::LeafKind;
use crate::privacy::records_key::{DataKey, RecordsKey, RecordsKeyId};
use crate::privacy::seal::{
    ERASED, HOLDERS, KEYS, KeyRow, Keyholder, RECORDS_KEY, Row, SEALING, SLOTS,
};
use crate::tables::Record;
use redb::{ReadTransaction, TableError};
use serde_json::Value;
use std::collections::BTreeMap;

/// What can be said of a record.
pub(super) enum Content {
    Record(Record),
    Erased,
    Locked,
    Damaged,
}

impl Content {
    pub(super) fn record(&self) -> Option<&Record> {
        match self {
            Self::Record(record) => Some(record),
            _ => None,
        }
    }
}

/// All slots of the log.
#[derive(Default)]
pub(super) struct Slots {
    /// `None` where no records key was given.
    keys: BTreeMap<u64, Option<DataKey>>,
    /// With the leaf that says so.
    erased: BTreeMap<u64, u64>,
}

impl Slots {
    /// Reads all keys. Whatever does not fit together is a problem.
    pub(super) fn check(
        tx: &ReadTransaction,
        given: Option<&RecordsKey>,
        found: &mut Found,
    ) -> Self {
        if let Ok(Err(TableError::TableDoesNotExist(_))) = guarded(|| tx.open_table(SEALING)) {
            return Self::default();
        }
        let sealing = Rows::open(tx, "site_log.sealing", SEALING, found);
        sealing.each_key(found, |found, key| {
            if key != RECORDS_KEY && key != SLOTS {
                let row = key.to_owned();
                found.problem(Problem::StrayRow { table: "site_log.sealing", row });
            }
        });
        let in_force = sealing.bytes(RECORDS_KEY, found);
        let in_force: Option<RecordsKeyId> = in_force.and_then(|id| id.try_into().ok());
        let given = given.filter(|given| {
            in_force == Some(given.id()) || {
                found.problem(Problem::RecordsKey);
                false
            }
        });
        let mut slots = Self::default();
        slots.read_keys(tx, given, found);
        slots.read_erased(tx, found);
        // Every slot that was given out is either there or erased.
        let given_out = sealing.bytes(SLOTS, found).and_then(|slots| slots.try_into().ok());
        let given_out = given_out.map_or(0, u64::from_be_bytes);
        let mut known = slots.keys.keys().chain(slots.erased.keys()).copied().collect::<Vec<_>>();
        known.sort_unstable();
        let missing = (0..given_out).zip(&known).find(|(slot, known)| slot != *known);
        if let Some((slot, _)) = missing {
            found.problem(Problem::DataKey { slot });
        } else if given_out != known.len() as u64 {
            found.problem(Problem::DataKey { slot: given_out.min(known.len() as u64) });
        }
        slots
    }

    fn read_keys(&mut self, tx: &ReadTransaction, given: Option<&RecordsKey>, found: &mut Found) {
        let mut holders: BTreeMap<u64, Keyholder> = BTreeMap::new();
        Rows::open(tx, "site_log.keys", KEYS, found).each_row(found, |found, slot, row| {
            let row = KeyRow::decode(row);
            let key = row.as_ref().map(|row| given.map(|given| row.data_key(slot, given)));
            match (row, key) {
                (Some(row), Some(key)) if !matches!(key, Some(None)) => {
                    holders.insert(slot, row.holder);
                    self.keys.insert(slot, key.flatten());
                }
                // It is in the table but no key: its records are damaged, not erased.
                _ => found.problem(Problem::DataKey { slot }),
            }
        });
        Rows::open(tx, "site_log.holders", HOLDERS, found).each_row(
            found,
            |found, holder, slot| {
                if holders.remove(&slot).is_none_or(|known| known.bytes() != holder) {
                    found.problem(Problem::DataKey { slot });
                }
            },
        );
        for slot in holders.into_keys() {
            found.problem(Problem::DataKey { slot });
        }
    }

    fn read_erased(&mut self, tx: &ReadTransaction, found: &mut Found) {
        Rows::open(tx, "site_log.erased", ERASED, found).each_row(found, |found, slot, leaf| {
            self.erased.insert(slot, leaf);
            if self.keys.contains_key(&slot) {
                found.problem(Problem::DataKey { slot });
            }
        });
    }

    pub(super) fn read(&self, index: u64, row: &Row<'_>) -> Content {
        let sealed = match row {
            Row::Plain(record) => return Content::Record(record.clone()),
            Row::Sealed(sealed) => sealed,
        };
        match self.keys.get(&sealed.slot) {
            Some(Some(key)) => sealed.open(index, key).map_or(Content::Damaged, Content::Record),
            Some(None) => Content::Locked,
            None if self.erased.contains_key(&sealed.slot) => Content::Erased,
            None => Content::Damaged,
        }
    }

    /// Erased slots, each with the leaf that says so.
    pub(super) fn erasures(&self) -> impl Iterator<Item = (u64, u64)> {
        self.erased.iter().map(|(slot, leaf)| (*slot, *leaf))
    }
}

/// Whether this record says that `slot` was erased.
pub(super) fn says_erased(record: &Record, slot: u64) -> bool {
    let body: Option<Value> = serde_json::from_slice(&record.body).ok();
    let says = body.and_then(|body| body.get("slot").and_then(Value::as_u64));
    record.kind == LeafKind::Erasure && says == Some(slot)
}
