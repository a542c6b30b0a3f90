//! `haar alarms`: what there is to say and do about alarms.

mod report;

use crate::failure::Failure;
use clap::Subcommand;

/// Alarms.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Alarms per patient-day on replayed recordings, before and after delays, episodes and suppression.
    Report(report::Args),
}

/// Runs the task.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.task {
        Task::Report(args) => report::run(&args),
    }
}
