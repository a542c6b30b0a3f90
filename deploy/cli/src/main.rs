//! `haar`: one command for people. Every subcommand is a module; this file only chooses.
#![forbid(unsafe_code)]

mod alarms;
mod bench;
mod demo;
mod erase;
mod evaluate;
mod failure;
mod fog;
mod fsck;
mod keys;
mod ledger;
mod members;
mod model;
mod parameters;
mod prove;
mod records_key;
mod replay;
mod sepsis_data;
mod simulate;
mod train;
mod validate;
mod verify;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;

/// Haar: an edge/fog stream processor for medical devices.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole path on this machine: a simulated ward, an edge, a fog, its log and four members who witness it, and a report.
    Demo(demo::Args),
    /// Send a simulated ward to a broker and a CoAP server.
    Simulate(simulate::Args),
    /// Send recordings to a broker and a CoAP server.
    Replay(replay::Args),
    /// Check pipeline definitions.
    Validate(validate::Args),
    /// Check a proof file, with no network and no state.
    Verify(verify::Args),
    /// Make the proof file of a leaf.
    Prove(prove::Args),
    /// Re-hash everything in a site log.
    Fsck(fsck::Args),
    /// Divide a secret among custodians, and put it together again.
    Keys(keys::Args),
    /// Destroy patients' keys, so that what was recorded of them cannot be read again.
    Erase(erase::Args),
    /// Found a consortium, look at its log, propose and vote.
    Ledger(ledger::Args),
    /// Measure detectors and models on recordings.
    Evaluate(evaluate::Args),
    /// Train a model.
    Train(train::Args),
    /// Look at models, and decide which are at work.
    Model(model::Args),
    /// Look at alarms and act on them.
    Alarms(alarms::Args),
    /// Set limits and scales for one patient.
    Parameters(parameters::Args),
    /// Measure speed.
    Bench(bench::Args),
}

/// The status of a process that a closed pipe has ended (128 and SIGPIPE), as a shell would say it.
const CLOSED_PIPE: i32 = 141;

/// A reader that went away, as in `haar … | head`, is no failure worth a backtrace.
fn end_quietly_on_a_closed_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(CLOSED_PIPE);
        }
        usual(panic);
    }));
}

fn main() -> ExitCode {
    end_quietly_on_a_closed_pipe();
    let ended = match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Prove(args) => prove::run(args),
        Command::Fsck(args) => fsck::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Erase(args) => erase::run(args),
        Command::Ledger(args) => ledger::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Train(args) => train::run(args),
        Command::Model(args) => model::run(args),
        Command::Alarms(args) => alarms::run(args),
        Command::Parameters(args) => parameters::run(args),
        Command::Bench(args) => bench::run(args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // One text, on standard error, so that `--json` output stays whole.
            eprintln!("haar: {failure}");
            Failure::status(&failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// clap finds its mistakes, such as an argument that is there twice, when a command is used.
    #[test]
    fn every_command_can_be_parsed() {
        Cli::command().debug_assert();
    }
}
