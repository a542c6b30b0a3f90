//! `haar-ledger`: the ledger server as a process, and the making of its keys. All of it is in the library.
#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use haar_ledger::governance::Operator;
use haar_ledger::server::{self, Config, PredecessorConfig, Role, check_genesis, run};
use haar_ledger::{Cosigner, Entry, Identity, VerifierKey};
use haar_telemetry::{Metrics, Settings, Telemetry, stop_on_signals};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// A member of Haar's ledger: operator, witness, mirror or monitor of the consortium log.
///
/// Exit status: 0 stopped as told, 1 failed, 2 unusable command line or configuration, 130 stopped by a
/// second signal.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve in the roles that the configuration names.
    Serve(Serve),
    /// Make a signing key and print its public half.
    Key(Key),
    /// Make or check the first entry of a log that follows this server's, because its operator is gone.
    Succeed(Succeed),
    /// Write the published log of a stopped server as static files, for any web server.
    Export(Export),
}

#[derive(Args)]
struct Serve {
    /// The configuration file; haar-ledger.example.toml shows every key.
    #[arg(long)]
    config: PathBuf,
    /// What to do, in the place of `roles` in the configuration; may be given more than once.
    #[arg(long, value_enum)]
    role: Vec<Role>,
    /// Only check the configuration.
    #[arg(long)]
    check: bool,
}

#[derive(Args)]
struct Export {
    /// The configuration of the server.
    #[arg(long)]
    config: PathBuf,
    /// The folder; what is there of the same log already is not written again.
    #[arg(long)]
    out: PathBuf,
}

/// The server of the configuration must be stopped. Other members then sign the entry with `haar ledger sign`; the new
/// operator and everybody else start a server with a configuration and data directory of its own, which names this one's
/// under `[[predecessor]]`.
#[derive(Args)]
struct Succeed {
    /// The configuration of the server that followed or operated the log that has ended.
    #[arg(long)]
    config: PathBuf,
    /// Who is to operate the next log.
    #[arg(long, required_unless_present = "check")]
    name: Option<String>,
    /// Verifier key of the next log; its name must be another.
    #[arg(long, value_name = "VKEY", required_unless_present = "check")]
    log: Option<String>,
    /// Where the next log will be.
    #[arg(long, required_unless_present = "check")]
    url: Option<String>,
    /// This member's key, which signs first.
    #[arg(long, value_name = "FILE", required_unless_present = "check")]
    key: Option<PathBuf>,
    /// Where to write the entry; it must not be there.
    #[arg(long, value_name = "FILE", required_unless_present = "check")]
    out: Option<PathBuf>,
    /// Only check such an entry.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    check: Option<PathBuf>,
}

#[derive(Args)]
struct Key {
    /// The key's name: a schema-less URL that nobody else uses, such as consortium.example/log.
    name: String,
    /// Where to write the secret; the file must not exist.
    #[arg(long)]
    out: PathBuf,
    /// A witness's cosigning key, not a log's or member's.
    #[arg(long)]
    cosigner: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve(args).await,
        Command::Key(args) => say(make_key(&args)),
        Command::Succeed(args) => say(succeed(args)),
        Command::Export(args) => say(export(&args)),
    }
}

fn say(done: Result<String, String>) -> ExitCode {
    match done {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("haar-ledger: {message}");
            ExitCode::FAILURE
        }
    }
}

fn export(args: &Export) -> Result<String, String> {
    let config = Config::load(&args.config).map_err(|error| error.to_string())?;
    let entries =
        haar_ledger::server::export(&config, &args.out).map_err(|error| error.to_string())?;
    Ok(format!("{entries} entries in {}; check them: haar fsck --log", args.out.display()))
}

fn succeed(args: Succeed) -> Result<String, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let config = Config::load(&args.config).map_err(|error| text(&error))?;
    if let Some(path) = args.check {
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let entry = Entry::parse(&bytes).map_err(|error| text(&error))?;
        let own = PredecessorConfig { log: config.log.clone(), data_dir: config.data_dir.clone() };
        let mut next = config;
        next.predecessor.push(own);
        check_genesis(&next, &entry).map_err(|error| text(&error))?;
        return Ok(format!("{}: it begins the log {}", path.display(), entry.origin()));
    }
    let (Some(name), Some(log), Some(url), Some(key), Some(out)) =
        (args.name, args.log, args.url, args.key, args.out)
    else {
        return Err("--name, --log, --url, --key and --out go together".to_owned());
    };
    let log: VerifierKey = log.parse().map_err(|error| text(&error))?;
    let operator = Operator {
        name: name.parse().map_err(|error| text(&error))?,
        log: (&log).into(),
        url: url.parse().map_err(|error| text(&error))?,
    };
    let founder = Identity::load(&key).map_err(|error| text(&error))?;
    let entry = server::succeed(&config, operator, &founder).map_err(|error| text(&error))?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&out)
        .map_err(|error| format!("{}: {error}", out.display()))?;
    file.write_all(entry.as_bytes()).map_err(|error| text(&error))?;
    Ok(format!(
        "{}: signed by {}; others sign it: haar ledger sign",
        out.display(),
        founder.origin()
    ))
}

async fn serve(args: Serve) -> ExitCode {
    let loaded = Config::load(&args.config).map(|mut config| {
        if !args.role.is_empty() {
            config.roles = args.role;
        }
        config
    });
    let config = match loaded.and_then(Config::checked) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("haar-ledger: {error}");
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
            eprintln!("haar-ledger: {message}");
            ExitCode::FAILURE
        }
    }
}

fn make_key(args: &Key) -> Result<String, String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| format!("the system gives no random bytes: {error}"))?;
    let text = |error: haar_ledger::IdentityError| error.to_string();
    if args.cosigner {
        let cosigner = Cosigner::generate(&args.name, seed).map_err(text)?;
        cosigner.save_new(&args.out).map_err(text)?;
        Ok(cosigner.vkey().to_string())
    } else {
        let identity = Identity::generate(&args.name, seed).map_err(text)?;
        identity.save_new(&args.out).map_err(text)?;
        Ok(identity.vkey().to_string())
    }
}

async fn node(config: Config) -> Result<(), String> {
    let telemetry = Telemetry::start(Settings {
        service: "haar-ledger".to_owned(),
        log: config.telemetry.log.clone(),
        json: config.telemetry.json,
        otlp_endpoint: None,
    })
    .map_err(|error| error.to_string())?;
    let metrics = Metrics::new("haar-ledger").map_err(|error| error.to_string())?;
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone()).map_err(|error| error.to_string())?;
    let ended = run(config, metrics, shutdown).await;
    telemetry.shutdown().await;
    ended.map_err(|error| error.to_string())
}
