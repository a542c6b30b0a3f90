//! `haar fsck`: re-hashes a whole log.

use crate::failure::Failure;
use crate::records_key::RecordsKeyArgs;
use crate::verify::KeyArgs;
use haar_ledger::consortium::{LogReport, fsck_folder, fsck_tables, keeps_consortium_log};
use haar_ledger::{FsckError, RecordsKey, Report, Trust, VerifierKey, open_read_only};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Re-hash a whole log, from the records up to the signed root, and name everything that is not as it
/// was written. The fog or ledger server must be stopped; the database is only read. Exit status 1 if there is a problem.
#[derive(clap::Args)]
pub struct Args {
    /// The fog's redb database (fog.redb); the consortium log as a ledger server (ledger.redb) or a fog (consortium-….redb) keeps
    /// it, or as a folder of tiles.
    #[arg(long, value_name = "PATH")]
    log: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    records_key: RecordsKeyArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let keys = args.keys.pinned()?;
    if args.log.is_dir() {
        return run_consortium(&args, keys.as_deref(), |log, key, progress| {
            Ok(fsck_folder(log, key, progress))
        });
    }
    if keeps_consortium_log(&open_read_only(&args.log)?)? {
        return run_consortium(&args, keys.as_deref(), |log, key, progress| {
            Ok(fsck_tables(&open_read_only(log)?, key, progress)?)
        });
    }
    let records_key = args.records_key.load(&args.log)?;
    // On a damaged page redb may panic; that is caught and becomes a problem in the report, so its
    // text need not be printed here too.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let report = check(&args.log, keys.as_deref(), records_key.as_deref());
    std::panic::set_hook(hook);
    let report = report?;
    if args.json {
        println!("{}", object(&report));
    } else {
        print(&report);
    }
    match report.problems.len() as u64 + report.omitted {
        0 if report.is_sound() => Ok(()),
        problems => Err(Failure::new(format!(
            "FAIL  {problems} problems; restore {} from a backup or the disk's mirror, and keep this \
             file for whoever looks into it",
            args.log.display()
        ))),
    }
}

/// Checks a consortium log.
fn run_consortium(
    args: &Args,
    keys: Option<&[VerifierKey]>,
    check: impl FnOnce(&Path, &VerifierKey, &mut dyn FnMut(u64, u64)) -> Result<LogReport, Failure>,
) -> Result<(), Failure> {
    let [key] = keys.unwrap_or_default() else {
        return Err(Failure::usage("a consortium log is checked against its key: pass --key once"));
    };
    let bar = progress_bar();
    let report = check(&args.log, key, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let problems: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    let sound = problems.is_empty();
    if args.json {
        println!(
            "{}",
            json!({
                "sound": sound,
                "origin": key.origin(),
                "leaves": report.leaves,
                "problems": problems,
                "problems_omitted": report.omitted,
            })
        );
    } else {
        problems.iter().for_each(|problem| println!("{problem}"));
        let verdict = if sound { "PASS  every bit of" } else { "looked at" };
        println!("{verdict} {} leaves of {}", report.leaves.unwrap_or_default(), key.origin());
    }
    match problems.len() as u64 + report.omitted {
        0 => Ok(()),
        problems => Err(Failure::new(format!(
            "FAIL  {problems} problems; copy or export the log again, and keep this for whoever looks into it"
        ))),
    }
}

fn check(
    log: &Path,
    keys: Option<&[VerifierKey]>,
    records_key: Option<&RecordsKey>,
) -> Result<Report, Failure> {
    let db = open_read_only(log)?;
    let bar = progress_bar();
    let trust = keys.map_or(Trust::Unpinned, Trust::Pinned);
    let report = haar_ledger::fsck(&db, trust, records_key, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    report.map_err(|error: FsckError| error.into())
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {per_sec}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn object(report: &Report) -> serde_json::Value {
    let problems: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    let checkpoint = report.checkpoint.as_ref();
    json!({
        "sound": report.is_sound(),
        "key_pinned": report.key_pinned,
        "origin": checkpoint.map(|checkpoint| checkpoint.origin()),
        "signer": checkpoint.map(|checkpoint| checkpoint.signer().as_str()),
        "root": checkpoint.map(|checkpoint| hex::encode(checkpoint.root())),
        "leaves": report.leaves,
        "leaves_erased": report.erased,
        "leaves_locked": report.locked,
        "problems": problems,
        "problems_omitted": report.omitted,
    })
}

fn print(report: &Report) {
    for problem in &report.problems {
        println!("{problem}");
    }
    if report.omitted > 0 {
        println!("and {} problems more", report.omitted);
    }
    if let Some(checkpoint) = &report.checkpoint {
        let verdict = if report.is_sound() { "PASS  every bit of" } else { "looked at" };
        println!("{verdict} {} leaves of {}", report.leaves, checkpoint.origin());
        println!("  root       {}", hex::encode(checkpoint.root()));
        if report.erased > 0 {
            println!("  erased     {} of them: the leaf holds, its content is gone", report.erased);
        }
        if report.locked > 0 {
            println!(
                "  sealed     {} of them: only the leaf was checked; pass the records key with \
                 --records-key",
                report.locked
            );
        }
        println!("  signed by  {}", checkpoint.signer());
        if !report.key_pinned {
            println!(
                "             NOT PINNED: this key lies in the same database. That rules out damage, \
                 not a forger; pass the log's key with --key"
            );
        }
    }
}
