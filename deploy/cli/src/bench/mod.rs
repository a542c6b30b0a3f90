//! `haar bench`: speed, each job as a peer does it, so that a ratio can be taken in the same minute.

mod inference;
mod ledger;
mod signals;
mod ward;

use crate::failure::Failure;

/// Measure speed.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    job: Job,
}

#[derive(clap::Subcommand)]
enum Job {
    /// A small convolutional network on one thread, the peer being ONNX Runtime.
    Inference(inference::Args),
    /// Entries made durable in the consortium log, alone or through etcd, and proofs.
    Ledger(ledger::Args),
    /// R peaks of recordings on one core, and heart-rate variability of 1,000 patients.
    Signals(signals::Args),
    /// Sliding windows over a ward's vitals, in-process: the job of the peers' programs.
    Ward(ward::Args),
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.job {
        Job::Inference(args) => inference::run(&args),
        Job::Ledger(args) => ledger::run(&args),
        Job::Signals(args) => signals::run(&args),
        Job::Ward(args) => ward::run(&args),
    }
}
