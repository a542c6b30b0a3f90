//! `haar evaluate`: how good an analysis is on annotated recordings.

mod qrs;
mod report;
mod sepsis;

use crate::failure::Failure;
use clap::Subcommand;

pub(crate) use sepsis::table as sepsis_table;

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
    /// Sepsis six hours ahead: hourly stays of the CinC 2019 challenge, AUROC, AUPRC, utility, calibration.
    Sepsis(sepsis::Args),
}

/// Runs the task.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.task {
        Task::Qrs(args) => qrs::run(&args),
        Task::Sepsis(args) => sepsis::run(&args),
    }
}
