//! `haar replay`: recordings as patients, against any broker.

use crate::failure::Failure;
use crate::simulate::{Destination, wall_clock};
use haar_simulator::replay::Recordings;
use haar_simulator::transport::Pace;
use std::path::PathBuf;

/// Replays WFDB recordings as patients: each record is one, with the channels that it has.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A record's .hea file, or a folder of records.
    path: PathBuf,
    #[command(flatten)]
    destination: Destination,
    /// Taken for symmetry with `simulate`; recordings have nothing that goes by CoAP.
    #[arg(long, value_name = "HOST:PORT")]
    coap: Option<String>,
    /// Stop after so many seconds of the recordings; 0 plays them to their end.
    #[arg(long, default_value_t = 0)]
    seconds: u32,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let recordings = Recordings::open(&args.path)?;
    for reason in recordings.rejected() {
        eprintln!("left out: {reason}");
    }
    let whole = recordings.seconds();
    let seconds = if args.seconds == 0 { whole } else { args.seconds.min(whole) };
    let pace = Pace::ending_now(wall_clock(), Some(seconds), args.destination.speed);
    eprintln!(
        "{} records, {seconds} s, event time from {}",
        recordings.names().count(),
        pace.start
    );
    let mut replay = recordings.play(pace.start);
    // The seed draws CoAP timeouts only.
    let sent = args.destination.deliver(args.coap.as_deref(), 0, &mut replay, pace, |_| {})?;
    args.destination.conclude(sent)
}
