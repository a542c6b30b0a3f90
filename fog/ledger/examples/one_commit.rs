//! One commit of the consortium log, for fault injection: `one_commit DIR ENTRY`.
//!
//! Opens the log in `DIR` (or makes it), appends `ENTRY` and prints the new size *after* it is durable. Exit
//! status 0 then; 1 if it said that it could not. `tests/` runs this under `strace -e inject`.

use haar_ledger::Identity;
use haar_ledger::consortium::{Sequencer, Tiles};
use haar_ledger::store::RedbStore;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, entry] = arguments.as_slice() else {
        return Err("usage: one_commit DIR ENTRY".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let db = Arc::new(redb::Database::create(Path::new(dir).join("ledger.redb"))?);
    let log = Identity::generate("consortium.example/log", [1; 32])?;
    let tiles = Tiles::open(db.clone(), log.vkey().clone())?;
    let store = RedbStore::open(db)?;
    let mut own = runtime.block_on(Sequencer::open(store, tiles, log, "node-1", b"genesis"))?;
    let sequenced = runtime.block_on(own.append(&[entry.as_bytes()]))?;
    own.tiles().publish(sequenced.checkpoint.note())?;
    println!("{} {}", sequenced.first_index, own.checkpoint().size());
    Ok(())
}
