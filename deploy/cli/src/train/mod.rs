//! `haar train`: trains a model from recordings, with the metrics of patients held out.

mod beats;
mod rhythm;

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
    /// Tell the rhythm of short single-lead ECGs: normal, atrial fibrillation, other, noisy.
    Rhythm(rhythm::Args),
}

/// Runs the task.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.task {
        Task::Beats(args) => beats::run(&args),
        Task::Rhythm(args) => rhythm::run(&args),
    }
}
