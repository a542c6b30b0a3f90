//! `haar alarms report`: alarms per patient-day on replayed recordings.
//!
//! Each recording goes through the pipelines, windows, beat model and rules of a fog, and its windows through the alarm
//! machine, with the fog's clock a constant behind event time. Nobody acknowledges in a replay: a latching alarm that has
//! once sounded sounds to the end of its recording. What is counted are episodes that sound, not reminders or escalations.
//!
//! Same recordings, same pipelines, same policy: same figures.

mod machine;
mod recordings;
mod replay;
mod show;
mod strip;
mod tally;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use haar_alarms::{MAX_POLICY_BYTES, Policy};
use haar_catalog::{MAX_DEFINITION_BYTES, Pipeline};
use haar_dataflow::deployment::Deployments;
use haar_inference::BeatModel;

use self::recordings::DataSet;
use self::replay::Means;
use self::strip::AlarmStrip;
use self::tally::{Machines, Summary, Tally};
use crate::evaluate::progress_bar;
use crate::failure::Failure;

/// The most recordings of which a strip is kept for the page, which shows those with the most alarms.
const MAX_STRIPS_KEPT: usize = 1_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of WFDB records (or one .hea), or of BIDMC (.csv) or CinC 2019 (.psv) files or a .tar.zst of them.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only these recordings, by name.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    records: Vec<String>,
    /// Pipeline definitions instead of those that are built in.
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pipelines: Vec<PathBuf>,
    /// The alarm policy; what it leaves out is as in the built-in one.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Print one JSON object instead of tables; shares are fractions of 1.
    #[arg(long)]
    json: bool,
    /// Write a page with the figures.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (summary, strips) = measure(args)?;
    if let Some(path) = &args.report {
        crate::evaluate::report::write(path, &show::page(&summary, strips))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print!("{}", show::text(&summary));
    }
    Ok(())
}

/// What was counted; and if a page is asked for, the ECG of the first alarm about it of every recording.
fn measure(args: &Args) -> Result<(Summary, Vec<AlarmStrip>), Failure> {
    let machines = Machines::new(policy(args.policy.as_deref())?);
    let means = Means {
        pipelines: pipelines(&args.pipelines)?,
        beats: BeatModel::builtin()?,
        models: Deployments::built_in()?,
    };
    let set = DataSet::open(&args.data, &args.records)?;
    let progress = progress_bar(set.len() as u64);
    let (mut tally, mut strips) = (Tally::default(), Vec::new());
    for place in 0..set.len() {
        progress.set_message(set.name(place));
        match set.read(place)? {
            Some(recording) => {
                let replayed = replay::replay(&recording, &means)?;
                let heard = tally.add(&recording, &replayed, &machines);
                if args.report.is_some() && strips.len() < MAX_STRIPS_KEPT {
                    strips.extend(strip::first(&recording, &means.pipelines, heard));
                }
            }
            None => tally.leave_out(set.name(place)),
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let summary = tally.summary();
    if summary.recordings == 0 {
        return Err(Failure::usage(format!(
            "no recording in {} has an ECG or vital signs that could be replayed",
            args.data.display()
        )));
    }
    Ok((summary, strips))
}

fn policy(path: Option<&Path>) -> Result<Policy, Failure> {
    match path {
        None => Ok(Policy::default()),
        Some(path) => {
            Ok(Policy::parse(&path.display().to_string(), &text(path, MAX_POLICY_BYTES)?)?)
        }
    }
}

fn pipelines(paths: &[PathBuf]) -> Result<Vec<Pipeline>, Failure> {
    if paths.is_empty() {
        return Ok(haar_catalog::builtin());
    }
    paths
        .iter()
        .map(|path| {
            let text = text(path, MAX_DEFINITION_BYTES)?;
            Pipeline::parse(&path.display().to_string(), &text).map_err(Failure::usage)
        })
        .collect()
}

/// A file, and at most one byte more than it may have, so that whoever reads it says so.
fn text(path: &Path, bytes_max: usize) -> Result<String, Failure> {
    let failed = |error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
