//! `haar prove`: writes a proof file for one leaf of a fog's log.

use crate::failure::Failure;
use crate::records_key::RecordsKeyArgs;
use haar_ledger::{Snapshot, open_read_only};
use std::path::PathBuf;

/// Write a proof file for one leaf of a log. It discloses what that leaf commits to, and nothing else.
/// The fog must be stopped; the database is only read.
#[derive(clap::Args)]
pub struct Args {
    /// Index of the leaf, counted from 0.
    #[arg(long, value_name = "N")]
    index: u64,
    /// The fog's redb database.
    #[arg(long, value_name = "PATH")]
    log: PathBuf,
    #[command(flatten)]
    records_key: RecordsKeyArgs,
    /// Prove that the leaf is there and say nothing of what it commits to; also where that was erased.
    #[arg(long)]
    leaf_only: bool,
    /// Where to write the proof (ending in .tlog-proof by custom); without it to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let db = open_read_only(&args.log)?;
    let snapshot = match args.records_key.load(&args.log)? {
        Some(key) => Snapshot::open_with(&db, key)?,
        None => Snapshot::open(&db)?,
    };
    let proof = if args.leaf_only {
        snapshot.prove_leaf(args.index)?
    } else {
        snapshot.prove(args.index)?
    };
    let proof = proof.to_text();
    match &args.out {
        Some(path) => {
            std::fs::write(path, proof)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
            println!("haar verify {} --key '{}'", path.display(), snapshot.vkey());
        }
        None => print!("{proof}"),
    }
    Ok(())
}
