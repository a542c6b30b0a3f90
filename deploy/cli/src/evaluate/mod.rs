//! `haar evaluate`: how good an analysis is on annotated recordings.

mod beats;
mod burden;
mod faults;
mod news2;
mod personal;
mod qrs;
pub(crate) mod report;
mod respiration;
mod rhythm;
mod sepsis;

use crate::failure::Failure;
use clap::Subcommand;

pub(crate) use personal::table as personal_table;
pub(crate) use qrs::progress_bar;
pub(crate) use sepsis::table as sepsis_table;

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
    /// How much of long recordings is atrial fibrillation, against rhythm annotations: sensitivity and PPV of time, error of the burden.
    Burden(burden::Args),
    /// Device faults: injected into sound streams, events of labelled motes, and the score of the Numenta Anomaly Benchmark.
    Faults(faults::Args),
    /// Completeness and bounds of NEWS2 on hourly records, and its AUROC for sepsis: the baseline.
    News2(news2::Args),
    /// What is usual for a patient: coverage and sharpness of the intervals around hourly vital signs.
    Personal(personal::Args),
    /// R-peak detection: all annotated beats from the first on, first lead or first two, 150 ms tolerance.
    Qrs(qrs::Args),
    /// Respiration rate of 32 s windows against breaths marked by two annotators.
    Respiration(respiration::Args),
    /// Sepsis six hours ahead: hourly stays of the CinC 2019 challenge, AUROC, AUPRC, utility, calibration.
    Sepsis(sepsis::Args),
    /// Rhythm of short single-lead ECGs: normal, atrial fibrillation, other, noisy.
    Rhythm(rhythm::Args),
}

/// Runs the task.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.task {
        Task::Beats(args) => beats::run(&args),
        Task::Burden(args) => burden::run(&args),
        Task::Faults(args) => faults::run(&args),
        Task::News2(args) => news2::run(&args),
        Task::Personal(args) => personal::run(&args),
        Task::Qrs(args) => qrs::run(&args),
        Task::Respiration(args) => respiration::run(&args),
        Task::Sepsis(args) => sepsis::run(&args),
        Task::Rhythm(args) => rhythm::run(&args),
    }
}
