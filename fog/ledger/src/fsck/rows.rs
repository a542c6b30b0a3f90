//! Reading tables that may be missing, damaged, or make redb panic; and what was found so far.

use super::{MAX_PROBLEMS, Problem};
use crate::tables;
use redb::{
    Key, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition,
    Value,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The problems so far.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) problems: Vec<Problem>,
    pub(crate) omitted: u64,
    pub(crate) erased: u64,
    pub(crate) locked: u64,
}

impl Found {
    pub(crate) fn problem(&mut self, problem: Problem) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        } else {
            self.omitted += 1;
        }
    }

    /// Once for a table: a damaged page has many rows.
    pub(crate) fn unreadable(&mut self, table: &'static str, cause: String) {
        let same = |problem: &Problem| matches!(problem, Problem::Unreadable { table: known, .. } if *known == table);
        if !self.problems.iter().any(same) {
            self.problem(Problem::Unreadable { table, cause });
        }
    }
}

/// A table that may be missing, damaged, or make redb panic.
pub(crate) struct Rows<K: Key + 'static, V: Value + 'static> {
    pub(crate) name: &'static str,
    table: Option<ReadOnlyTable<K, V>>,
}

impl<K: Key + 'static, V: Value + 'static> Rows<K, V> {
    pub(crate) fn open(
        tx: &ReadTransaction,
        name: &'static str,
        definition: TableDefinition<'static, K, V>,
        found: &mut Found,
    ) -> Self {
        let table = match guarded(|| tx.open_table(definition)) {
            Ok(Ok(table)) => Some(table),
            Ok(Err(error)) => {
                found.unreadable(name, error.to_string());
                None
            }
            Err(panic) => {
                found.unreadable(name, panic);
                None
            }
        };
        Self { name, table }
    }

    pub(crate) fn len(&self, found: &mut Found) -> u64 {
        let len = self.read(found, |table| table.len());
        len.unwrap_or_default()
    }

    /// What `read` makes of the table; `None` if that fails, which is noted.
    pub(crate) fn read<T>(
        &self,
        found: &mut Found,
        read: impl FnOnce(&ReadOnlyTable<K, V>) -> Result<T, redb::StorageError>,
    ) -> Option<T> {
        let table = self.table.as_ref()?;
        match guarded(|| read(table)) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => found.unreadable(self.name, error.to_string()),
            Err(panic) => found.unreadable(self.name, panic),
        }
        None
    }

    /// Visits every key, in order.
    pub(crate) fn each_key(
        &self,
        found: &mut Found,
        mut visit: impl FnMut(&mut Found, K::SelfType<'_>),
    ) {
        self.each_row(found, |found, key, _| visit(found, key));
    }

    /// Visits every row, in the order of the keys.
    pub(crate) fn each_row(
        &self,
        found: &mut Found,
        mut visit: impl FnMut(&mut Found, K::SelfType<'_>, V::SelfType<'_>),
    ) {
        let mut inner = Found::default();
        self.read(found, |table| {
            for row in table.iter()? {
                let (key, value) = row?;
                visit(&mut inner, key.value(), value.value());
            }
            Ok(())
        });
        for problem in inner.problems {
            found.problem(problem);
        }
        found.omitted += inner.omitted;
    }
}

impl<K: Key + 'static> Rows<K, &'static [u8]> {
    pub(crate) fn bytes(&self, key: K::SelfType<'_>, found: &mut Found) -> Option<Vec<u8>> {
        self.read(found, |table| tables::bytes(table, key)).flatten()
    }
}

/// Runs a read of a file that may be damaged; the error is what redb said when it panicked.
pub(crate) fn guarded<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "redb gave up on a page".to_owned())
    })
}
