//! `haar simulate`: a simulated ward against any broker and CoAP address.

use crate::failure::Failure;
use haar_schema::Timestamp;
use haar_simulator::transport::{
    Credentials, MqttTarget, Pace, Publisher, Sent, Target, run as send,
};
use haar_simulator::truth::write_truth;
use haar_simulator::{FrameSource, Scenario, Ward};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs a simulated ward: devices that publish to an MQTT broker and post to a CoAP server.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    destination: Destination,
    /// The CoAP server (haar-edge's CoAP source) for temperature patches; without it they are silent, and counted.
    #[arg(long, value_name = "HOST:PORT")]
    coap: Option<String>,
    /// How many patients.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=i64::from(haar_simulator::ward::MAX_PATIENTS)))]
    patients: u32,
    /// What everything is drawn from; the same seed gives the same ward. Drawn from the clock if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds of simulated time; 0 runs until Ctrl-C.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(0..=i64::from(haar_simulator::scenario::MAX_EPISODE_S)))]
    seconds: u32,
    /// What happens to whom (TOML, one `[[episode]]` each); without it, the demo's scenario.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Writes what really happened here, as JSON lines.
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
}

/// Where frames go, and how fast; also `haar replay`'s.
#[derive(clap::Args, Debug)]
pub struct Destination {
    /// The MQTT broker.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    broker: String,
    /// Simulated seconds a second. Event times begin so far in the past that they never run ahead of the clock.
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    pub speed: f64,
    /// User at the broker.
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// File with the password at the broker, on its first line.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Certificate authority (PEM) of the broker; turns TLS on.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Over how many MQTT connections the patients are spread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(haar_simulator::transport::MAX_CONNECTIONS)))]
    connections: u16,
    /// Print one JSON object at the end instead of a line of text.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let now = wall_clock();
    let seed = args.seed.unwrap_or(now.micros().unsigned_abs());
    let scenario = match &args.scenario {
        Some(path) => Scenario::from_toml(&text(path)?)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?,
        None => Scenario::demo(seed, args.patients),
    };
    let seconds = (args.seconds > 0).then_some(args.seconds);
    let pace = Pace::ending_now(now, seconds, args.destination.speed);
    let mut ward = Ward::new(seed, args.patients, pace.start, scenario)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let mut truth = args.truth.as_deref().map(create).transpose()?;
    eprintln!("{} patients, seed {seed}, event time from {}", args.patients, pace.start);
    let mut trouble = None;
    let sent = args.destination.deliver(args.coap.as_deref(), seed, &mut ward, pace, |ward| {
        let lines = ward.take_truth();
        if let Some(out) = &mut truth
            && let Err(error) = write_truth(out, &lines)
        {
            trouble.get_or_insert(error);
        }
    })?;
    if let Some(mut out) = truth {
        trouble = trouble.or(out.flush().err());
    }
    if let Some(error) = trouble {
        return Err(Failure::new(format!("the truth file is not whole: {error}")));
    }
    args.destination.conclude(sent)
}

impl Destination {
    /// Sends everything from `source` at `pace` until its end or Ctrl-C; `tick` is called after each step.
    pub fn deliver<S: FrameSource>(
        &self,
        coap: Option<&str>,
        seed: u64,
        source: &mut S,
        pace: Pace,
        mut tick: impl FnMut(&mut S),
    ) -> Result<Sent, Failure> {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            let publisher = Publisher::connect(self.target(coap, seed).await?).await?;
            let stop = CancellationToken::new();
            let interrupted = stop.clone();
            tokio::spawn(async move {
                if tokio::signal::ctrl_c().await.is_ok() {
                    interrupted.cancel();
                }
            });
            let progress = ProgressBar::new_spinner();
            progress.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
            progress.enable_steady_tick(Duration::from_millis(200));
            let sending = send(source, &publisher, pace, &stop, |source, sent| {
                tick(source);
                progress.set_message(format!(
                    "{} frames, {} acknowledged, {} readings",
                    sent.frames, sent.acked, sent.readings
                ));
            })
            .await;
            let sent = publisher.finish().await;
            progress.finish_and_clear();
            if let Err(error) = sending {
                return Err(Failure::new(format!("{error} ({})", summary(&sent))));
            }
            Ok(sent)
        })
    }

    /// Prints the counts; ends badly if something was never acknowledged.
    pub fn conclude(&self, sent: Sent) -> Result<(), Failure> {
        if self.json {
            println!("{}", json(&sent));
        } else {
            println!("{}", summary(&sent));
        }
        let lost = sent.frames - sent.acked;
        if lost > 0 {
            return Err(Failure::new(format!(
                "{lost} frames were never acknowledged; look into the log of the broker or of haar-edge"
            )));
        }
        Ok(())
    }

    async fn target(&self, coap: Option<&str>, seed: u64) -> Result<Target, Failure> {
        let (host, port) = self
            .broker
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .ok_or_else(|| Failure::usage(format!("--broker {} is not HOST:PORT", self.broker)))?;
        let credentials = match (&self.user, &self.password_file) {
            (Some(user), Some(path)) => Some(Credentials {
                user: user.clone(),
                password: text(path)?.lines().next().unwrap_or_default().to_owned(),
            }),
            _ => None,
        };
        let ca_pem = self.ca.as_deref().map(text).transpose()?.map(String::into_bytes);
        let mqtt = MqttTarget {
            // Two simulators at one broker must not throw each other out.
            client: format!("haar-simulator-{}", std::process::id()),
            credentials,
            ca_pem,
            connections: self.connections,
            ..MqttTarget::plain(host, port)
        };
        let coap = match coap {
            Some(address) => Some(
                tokio::net::lookup_host(address)
                    .await
                    .map_err(|error| Failure::usage(format!("--coap {address}: {error}")))?
                    .next()
                    .ok_or_else(|| {
                        Failure::usage(format!("--coap {address}: the name has no address"))
                    })?,
            ),
            None => None,
        };
        Ok(Target { mqtt: Some(mqtt), coap, seed })
    }
}

/// The wall clock.
pub fn wall_clock() -> Timestamp {
    Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
}

fn create(path: &Path) -> Result<BufWriter<File>, Failure> {
    let file = File::create(path);
    let file =
        file.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    Ok(BufWriter::new(file))
}

fn text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error: io::Error| Failure::usage(format!("{}: {error}", path.display())))
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (0.01..=10_000.0).contains(&speed) => Ok(speed),
        _ => Err("a speed is a number from 0.01 to 10000".to_owned()),
    }
}

fn summary(sent: &Sent) -> String {
    format!(
        "{} frames sent ({} readings, {} bytes), {} acknowledged, {} failed, {} skipped for want of an address",
        sent.frames, sent.readings, sent.bytes, sent.acked, sent.failed, sent.skipped
    )
}

fn json(sent: &Sent) -> serde_json::Value {
    serde_json::json!({
        "frames": sent.frames,
        "readings": sent.readings,
        "bytes": sent.bytes,
        "acked": sent.acked,
        "readings_acked": sent.readings_acked,
        "failed": sent.failed,
        "skipped": sent.skipped,
    })
}
