//! `haar train`: trains a model from recordings, with the metrics of patients held out.

mod beats;
mod condition;
mod faults;
mod personal;
mod rhythm;
mod sepsis;

use crate::failure::Failure;
use haar_inference::training::FitProgress;
use indicatif::{ProgressBar, ProgressStyle};

/// Train a model from recordings.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Classify heart beats of a single-lead ECG (AAMI classes N, S, V, F, Q).
    Beats(beats::Args),
    /// Tell device faults on any stream of numbers.
    Faults(faults::Args),
    /// Sort flagged windows into groups of conditions.
    Condition(condition::Args),
    /// Say what is usual for a patient: vital signs an hour ahead with intervals (CinC 2019 stays).
    Personal(personal::Args),
    /// Warn of sepsis six hours ahead from hourly stays (CinC 2019 challenge).
    Sepsis(sepsis::Args),
    /// Tell the rhythm of short single-lead ECGs: normal, atrial fibrillation, other, noisy.
    Rhythm(rhythm::Args),
}

/// Runs the task.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.task {
        Task::Beats(args) => beats::run(&args),
        Task::Faults(args) => faults::run(&args),
        Task::Condition(args) => condition::run(&args),
        Task::Personal(args) => personal::run(&args),
        Task::Sepsis(args) => sepsis::run(&args),
        Task::Rhythm(args) => rhythm::run(&args),
    }
}

/// Epochs of all members, on standard error, and only where that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    // The template is a constant; if it were wrong the plain bar would do.
    let style = ProgressStyle::with_template(
        "{wide_bar} {pos}/{len} {elapsed} elapsed, {eta} to go  {msg}",
    );
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Shows how far a training has come.
fn show(bar: &ProgressBar, progress: FitProgress) {
    let FitProgress { stage, stages, epoch, epochs, loss } = progress;
    bar.set_length(stages as u64 * u64::from(epochs));
    bar.set_position(stage as u64 * u64::from(epochs) + u64::from(epoch));
    bar.set_message(format!("member {} of {stages}, epoch {epoch}, loss {loss:.4}", stage + 1));
}
