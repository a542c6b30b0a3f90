//! `haar evaluate`: how good an analysis is on annotated recordings.

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
    /// R-peak detection: all annotated beats from the first on, first lead, 150 ms tolerance.
    Qrs(qrs::Args),
}

/// Runs the task.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.task {
        Task::Qrs(args) => qrs::run(&args),
    }
}
