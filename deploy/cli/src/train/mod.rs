//! `haar train`: trains a model from recordings, with the metrics of patients held out.

mod beats;
mod faults;

use crate::failure::Failure;

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
}

/// Runs the task.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.task {
        Task::Beats(args) => beats::run(&args),
        Task::Faults(args) => faults::run(&args),
    }
}
