//! `haar evaluate`: how good an analysis is on annotated recordings.

mod beats;
mod qrs;
mod report;

use crate::failure::Failure;
use clap::Subcommand;

/// Hold an analysis against annotated recordings.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Classes of heart beats (AAMI N, S, V, F, Q), on patients that the asked networks were not trained on.
    Beats(beats::Args),
    /// R-peak detection: all annotated beats from the first on, first lead, 150 ms tolerance.
    Qrs(qrs::Args),
}

/// Runs the task.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.task {
        Task::Beats(args) => beats::run(&args),
        Task::Qrs(args) => qrs::run(&args),
    }
}
