//! `haar erase`: destroys the keys of patients, so that what a fog has recorded of them cannot be read any more.

use crate::failure::Failure;
use haar_fog::Erasure;
use haar_ledger::erasure_name;
use haar_schema::Subject;
use serde_json::json;
use std::path::PathBuf;

/// Destroy the keys of patients: what the log has recorded of them can never be read again, on this disk. Leaves and
/// proofs stay as they are. There is no way back. The fog must be stopped. Backups of the records key (records.key)
/// from before must be destroyed too, or they undo it for whoever has them.
#[derive(clap::Args)]
pub struct Args {
    /// The fog's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// A patient's pseudonym, 32 hexadecimal digits; may be given several times.
    #[arg(long = "subject", value_name = "HEX", required = true, value_parser = subject)]
    subjects: Vec<Subject>,
    /// The log's signing key; without it log.key in the data directory.
    #[arg(long, value_name = "FILE")]
    log_key: Option<PathBuf>,
    /// The records key; without it records.key in the data directory.
    #[arg(long, value_name = "FILE")]
    records_key: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn subject(text: &str) -> Result<Subject, &'static str> {
    Subject::from_hex(text).ok_or("a subject is 32 hexadecimal digits")
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let Args { data_dir, subjects, log_key, records_key, json } = args;
    let erased = Erasure { data_dir, log_key, records_key }.run(&subjects)?;
    let rows = subjects.iter().zip(&erased);
    if json {
        let rows: Vec<_> = rows
            .map(|(subject, erased)| {
                json!({
                    "subject": subject.to_hex(),
                    "leaf": erased.leaf,
                    "name": hex::encode(erasure_name(&erased.receipt, &erased.keyholder)),
                    "receipt": hex::encode(erased.receipt),
                })
            })
            .collect();
        println!("{}", json!({ "erased": rows }));
        return Ok(());
    }
    for (subject, erased) in rows {
        println!("erased  {}", subject.to_hex());
        println!("  leaf     {}", erased.leaf);
        println!("  receipt  {}", hex::encode(erased.receipt));
    }
    println!(
        "The receipt is kept nowhere else. With it and the pseudonym it can be shown whose erasure the leaf is."
    );
    Ok(())
}
