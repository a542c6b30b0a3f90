//! `haar-edge`: runs one edge as a service.
//!
//! Exit status: 0 stopped as told (or the configuration is good, with `--check`); 1 stopped by itself, or the spool
//! cannot be opened; 2 the command line or the configuration cannot be used; 130 stopped at once by a second signal.
#![forbid(unsafe_code)]

use clap::Parser;
use haar_edge::{Config, RunError, StartError};
use haar_telemetry::{Telemetry, stop_on_signals};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// A running edge that failed.
const FAILED: u8 = 1;
/// A configuration that cannot be used.
const UNUSABLE: u8 = 2;

/// Takes readings from devices by MQTT and CoAP, keeps them durably and sends them to the fog.
///
/// SIGTERM or SIGINT drains and stops; a second one stops at once.
#[derive(Parser)]
#[command(name = "haar-edge", version)]
struct Args {
    /// The configuration; haar-edge.example.toml in the source shows every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and the files that it names, start nothing.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return unusable(&error),
    };
    if args.check {
        return match haar_edge::check(&config) {
            Ok(()) => {
                println!("{} is good", args.config.display());
                ExitCode::SUCCESS
            }
            Err(error) => unusable(&error),
        };
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("haar-edge: cannot start threads: {error}");
            return ExitCode::from(FAILED);
        }
    };
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> ExitCode {
    let telemetry = haar_telemetry::Settings {
        service: "haar-edge".to_owned(),
        log: config.telemetry.log.clone(),
        json: config.telemetry.json,
        otlp_endpoint: config.telemetry.otlp_endpoint.clone(),
    };
    let telemetry = match Telemetry::start(telemetry) {
        Ok(telemetry) => telemetry,
        Err(error) => return unusable(&error),
    };
    let shutdown = CancellationToken::new();
    if let Err(error) = stop_on_signals(shutdown.clone()) {
        eprintln!("haar-edge: cannot listen to signals: {error}");
        return ExitCode::from(FAILED);
    }
    let ended = haar_edge::run(config, shutdown).await;
    let status = match &ended {
        Ok(stats) => {
            tracing::info!(
                readings = stats.readings,
                left_in_spool = stats.next_seq.saturating_sub(stats.acked_through + 1),
                "edge stopped"
            );
            ExitCode::SUCCESS
        }
        Err(RunError::Start(error)) => not_started(error),
        Err(error) => {
            tracing::error!(%error, "edge failed");
            ExitCode::from(FAILED)
        }
    };
    telemetry.shutdown().await;
    status
}

/// A spool that cannot be opened, or a system that gives nothing, is no mistake of the configuration.
fn not_started(error: &StartError) -> ExitCode {
    match error {
        StartError::Spool(_) | StartError::Random(_) | StartError::Panicked(_) => {
            eprintln!("haar-edge: {error}");
            ExitCode::from(FAILED)
        }
        _ => unusable(error),
    }
}

fn unusable(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("haar-edge: {error}");
    ExitCode::from(UNUSABLE)
}
