//! `haar evaluate`: how good an analysis is on annotated recordings.

mod faults;
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
    /// Device faults: injected into sound streams, events of labelled motes, and the score of the Numenta Anomaly Benchmark.
    Faults(faults::Args),
    /// R-peak detection: all annotated beats from the first on, first lead, 150 ms tolerance.
    Qrs(qrs::Args),
}

/// Runs the task.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.task {
        Task::Faults(args) => faults::run(&args),
        Task::Qrs(args) => qrs::run(&args),
    }
}
