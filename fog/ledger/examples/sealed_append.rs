//! How much sealing costs an append: the same records in clear and sealed, durable, in turn.
//!
//! `cargo run -p haar-ledger --example sealed_append`

#![allow(clippy::unwrap_used, reason = "a measurement: a failure is its end")]

use haar_ledger::{Held, Identity, Keyholder, LeafKind, Record, Sealing, SiteLog};
use redb::Database;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 20;
const RECORDS: u32 = 1_000;
const PATIENTS: u32 = 50;
const BODY_BYTES: usize = 1_500;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let database = |name| Arc::new(Database::create(dir.path().join(name)).unwrap());
    let identity = || Identity::generate("haar.test/site", [7; 32]).unwrap();
    let (plain_db, sealed_db) = (database("plain.redb"), database("sealed.redb"));
    let plain = SiteLog::open(Arc::clone(&plain_db), identity()).unwrap();
    let random = |bytes: &mut [u8; 32]| getrandom::fill(bytes).map_err(std::io::Error::from);
    let sealing = Sealing { key_file: dir.path().join("records.key"), random };
    let sealed = SiteLog::open_sealed(Arc::clone(&sealed_db), identity(), sealing).unwrap();
    let (mut in_clear, mut under_keys) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        let held: Vec<Held> = (0..RECORDS).map(|n| held(round * RECORDS + n)).collect();
        for (db, log, took) in
            [(&plain_db, &plain, &mut in_clear), (&sealed_db, &sealed, &mut under_keys)]
        {
            let begun = Instant::now();
            let tx = db.begin_write().unwrap();
            log.append_held(&tx, &held).unwrap();
            tx.commit().unwrap();
            *took += begun.elapsed();
        }
    }
    let leaves = f64::from(ROUNDS * RECORDS);
    println!("in clear  {:.0} leaves/s", leaves / in_clear.as_secs_f64());
    println!("sealed    {:.0} leaves/s", leaves / under_keys.as_secs_f64());
}

fn held(number: u32) -> Held {
    let (mut name, mut key) = ([0; 32], [9; 32]);
    name[..4].copy_from_slice(&number.to_le_bytes());
    key[..4].copy_from_slice(&number.to_le_bytes());
    let keyholder = Some(Keyholder::of(&(number % PATIENTS).to_le_bytes()));
    let kind = LeafKind::WindowDigest;
    Held { keyholder, record: Record { kind, name, key, body: vec![b'x'; BODY_BYTES] } }
}
