//! Rows about one patient: found by a hash of the pseudonym, sealed under the patient's key.
//!
//! # Format
//! The key is the 32 bytes of the patient's [`Keyholder`], or nothing for the site itself. The value is a sealed fact of `haar-ledger` of:
//! the length of the pseudonym (0 or 16), the pseudonym, the content.

use super::keyholder;
use haar_ledger::{FactError, FactOpener, FactSealer, Place, SealError};
use haar_schema::Subject;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

/// A row that was opened: whom it is about, and its content.
pub(super) type Row = (Option<Subject>, Vec<u8>);

/// A table of such rows.
pub(super) struct Sealed(&'static str);

impl Sealed {
    pub(super) const fn new(name: &'static str) -> Self {
        Self(name)
    }

    fn table(&self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.0)
    }

    pub(super) fn create(&self, tx: &WriteTransaction) -> Result<(), redb::Error> {
        tx.open_table(self.table())?;
        Ok(())
    }

    /// Writes or removes rows.
    pub(super) fn write<'r>(
        &self,
        tx: &WriteTransaction,
        sealer: &mut FactSealer<'_>,
        rows: impl IntoIterator<Item = (Option<Subject>, Option<&'r [u8]>)>,
    ) -> Result<(), SealError> {
        let mut table = tx.open_table(self.table()).map_err(redb::Error::from)?;
        for (subject, content) in rows {
            let key = key(subject);
            let Some(content) = content else {
                table.remove(key.as_slice())?;
                continue;
            };
            let pseudonym = subject.map_or(Vec::new(), |subject| subject.to_bytes().to_vec());
            let fact = [&[pseudonym.len() as u8], &pseudonym[..], content].concat();
            let place = Place { table: self.0, key: &key };
            let row = sealer.seal(subject.map(keyholder), place, &fact)?;
            table.insert(key.as_slice(), row.as_slice())?;
        }
        Ok(())
    }

    /// All rows of patients who were not erased.
    pub(super) fn read(
        &self,
        tx: &ReadTransaction,
        facts: &mut FactOpener,
    ) -> Result<Vec<Row>, FactError> {
        let table = tx.open_table(self.table()).map_err(redb::Error::from)?;
        let mut rows = Vec::new();
        for row in table.iter().map_err(redb::Error::from)? {
            let (key, row) = row.map_err(redb::Error::from)?;
            let place = Place { table: self.0, key: key.value() };
            let Some(fact) = facts.open(place, row.value())? else { continue };
            let damaged = || FactError::Damaged { table: self.0.to_owned() };
            rows.push(parse(&fact).ok_or_else(damaged)?);
        }
        Ok(rows)
    }

    pub(super) fn remove(&self, tx: &WriteTransaction, of: Subject) -> Result<(), redb::Error> {
        tx.open_table(self.table())?.remove(key(Some(of)).as_slice())?;
        Ok(())
    }
}

fn key(subject: Option<Subject>) -> Vec<u8> {
    subject.map_or(Vec::new(), |subject| keyholder(subject).to_bytes().to_vec())
}

fn parse(fact: &[u8]) -> Option<Row> {
    match fact.split_first()? {
        (0, content) => Some((None, content.to_vec())),
        (16, rest) => {
            let (pseudonym, content) = rest.split_first_chunk::<16>()?;
            Some((Some(Subject::from_bytes(*pseudonym)), content.to_vec()))
        }
        _ => None,
    }
}
