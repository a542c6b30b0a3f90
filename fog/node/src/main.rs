//! `haar-fog`: the fog node as a process. All of it is in the library.
#![forbid(unsafe_code)]

use clap::Parser;
use haar_fog::{Config, run};
use haar_telemetry::{Metrics, Settings, Telemetry, stop_on_signals};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// The fog node of Haar: takes readings from edges, runs the pipelines, commits digests and flags.
///
/// Exit status: 0 stopped as told, 1 failed, 2 unusable command line or configuration, 130 stopped by a
/// second signal.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The configuration file; haar-fog.example.toml shows every key.
    #[arg(long)]
    config: PathBuf,
    /// Only check the configuration.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("haar-fog: {error}");
            return ExitCode::from(2);
        }
    };
    if args.check {
        println!("{}: ok", args.config.display());
        return ExitCode::SUCCESS;
    }
    match node(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("haar-fog: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn node(config: Config) -> Result<(), String> {
    let telemetry = Telemetry::start(Settings {
        service: "haar-fog".to_owned(),
        log: config.telemetry.log.clone(),
        json: config.telemetry.json,
        otlp_endpoint: config.telemetry.otlp_endpoint.clone(),
    })
    .map_err(|error| error.to_string())?;
    let metrics = Metrics::new("haar-fog").map_err(|error| error.to_string())?;
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone()).map_err(|error| error.to_string())?;
    let ended = run(config, metrics, shutdown).await;
    telemetry.shutdown().await;
    let stats = ended.map_err(|error| error.to_string())?;
    eprintln!("haar-fog: stopped; {} leaves in the site log", stats.leaves);
    Ok(())
}
