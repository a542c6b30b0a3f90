//! The signed requests that have counted, kept over a restart for as long as they could count again.
//!
//! # Format
//! `fog.nonces`: (when it was signed u64, POSIX seconds; SHA-256 of what was signed \[32\]) → nothing. Written in the transaction that records what was
//! decided on the request, before it is answered; what can count no more goes in the same one.

use haar_ledger::consent::{MAX_SKEW_S, Nonces, SignedRequest};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

const NONCES: TableDefinition<(u64, [u8; 32]), ()> = TableDefinition::new("fog.nonces");

/// Makes the table.
pub(crate) fn create(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(NONCES)?;
    Ok(())
}

/// Notes a request that has counted.
pub(super) fn note(
    tx: &WriteTransaction,
    request: &SignedRequest,
    now_s: u64,
) -> Result<(), redb::Error> {
    let mut table = tx.open_table(NONCES)?;
    let past = now_s.saturating_sub(MAX_SKEW_S);
    table.retain_in(..(past, [0; 32]), |_, ()| false)?;
    table.insert((request.created_s(), request.id()), ())?;
    Ok(())
}

/// Those of before.
pub(super) fn restore(db: &Database) -> Result<Nonces, redb::Error> {
    let table = db.begin_read()?.open_table(NONCES)?;
    let rows = table.iter()?.map(|row| row.map(|(key, _)| key.value()));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(Nonces::restore(rows.into_iter().map(|(created_s, id)| (id, created_s))))
}
