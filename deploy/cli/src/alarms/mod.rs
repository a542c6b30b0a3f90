//! `haar alarms`: what sounds, who acts, what was told to whom.

mod desk;
mod report;

use crate::failure::Failure;
use clap::{Args as ClapArgs, Subcommand};

/// Look at alarms and act on them.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The alarms that are not over, the most pressing first.
    List(desk::Look),
    /// Steps that alarms took, the newest first, each with its leaf in the log.
    History(desk::History),
    /// Notifications that wait, and those that were given up.
    Outbox(desk::Look),
    /// Alarms per patient-day on replayed recordings, before and after delays, episodes and suppression.
    Report(report::Args),
    /// Take an alarm on: it is silent for the rest of the episode.
    Acknowledge(desk::Act),
    /// Silence an alarm for a time.
    Pause(desk::Pause),
    /// End a pause.
    Resume(desk::Act),
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::List(look) => desk::list(&look),
        Command::History(page) => desk::history(&page),
        Command::Outbox(look) => desk::outbox(&look),
        Command::Report(args) => report::run(&args),
        Command::Acknowledge(act) => desk::act(&act, "acknowledge", None),
        Command::Pause(pause) => desk::pause(&pause),
        Command::Resume(act) => desk::act(&act, "resume", None),
    }
}
