//! `haar erase`: destroys the keys of patients, so that what a fog has recorded of them cannot be read any more.

use crate::failure::Failure;
use crate::fog::{Fog, text};
use haar_fog::{Erasure, ErasureOrder};
use haar_ledger::Identity;
use haar_schema::{Subject, Timestamp};
use std::path::PathBuf;

/// Destroy the keys of patients: what the log has recorded of them can never be read again, on this disk. Leaves and
/// proofs stay as they are. There is no way back.
///
/// With --data-dir the fog must be stopped. With --key a fog that runs is told to: the key must be one of its
/// `erasure.trusted_keys` (`haar model key` makes one). Whatever edges still hold of the patients from before is left out.
/// Backups of the records key (records.key) from before must be destroyed too, or they undo it for whoever has them.
#[derive(clap::Args)]
pub struct Args {
    /// The data directory of a fog that is stopped.
    #[arg(long, value_name = "DIR", required_unless_present = "key", conflicts_with = "key")]
    data_dir: Option<PathBuf>,
    /// A patient's pseudonym, 32 hexadecimal digits; may be given several times.
    #[arg(long = "subject", value_name = "HEX", required = true, value_parser = subject)]
    subjects: Vec<Subject>,
    /// The log's signing key; without it log.key in the data directory.
    #[arg(long, value_name = "FILE", requires = "data_dir")]
    log_key: Option<PathBuf>,
    /// The records key; without it records.key in the data directory.
    #[arg(long, value_name = "FILE", requires = "data_dir")]
    records_key: Option<PathBuf>,
    /// Your key, to order it from a fog that runs.
    #[arg(long, value_name = "FILE", requires = "site")]
    key: Option<PathBuf>,
    /// Origin of that fog's log (`log.origin`): an order holds at one site.
    #[arg(long, value_name = "ORIGIN", requires = "key")]
    site: Option<String>,
    #[command(flatten)]
    fog: Fog,
}

fn subject(text: &str) -> Result<Subject, &'static str> {
    Subject::from_hex(text).ok_or("a subject is 32 hexadecimal digits")
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let now = Timestamp::from_micros(jiff::Timestamp::now().as_microsecond());
    let Args { data_dir, subjects, log_key, records_key, key, site, fog } = args;
    let answer = match (data_dir, key) {
        (Some(data_dir), _) => {
            serde_json::to_value(Erasure { data_dir, log_key, records_key }.run(&subjects, now)?)?
        }
        (None, Some(key)) => {
            let order = ErasureOrder { site: site.unwrap_or_default(), issued: now, subjects };
            let note = Identity::load(&key)?.sign(&order.text())?;
            fog.post("/v1/erasures", "text/plain", note)?
        }
        (None, None) => return Err(Failure::usage("give --data-dir, or --key and --site")),
    };
    fog.show(&answer, |answer| {
        let mut out = String::new();
        for erased in answer["erased"].as_array().into_iter().flatten() {
            let [subject, receipt] = ["subject", "receipt"].map(|field| text(&erased[field]));
            out += &format!("erased  {subject}\n  leaf     {}\n  receipt  {receipt}\n", erased["leaf"]);
        }
        out + "The receipt is kept nowhere else. With it and the pseudonym it can be shown whose erasure the leaf is.\n"
    });
    Ok(())
}
