//! `haar demo`: the whole path on one machine, over real sockets.
//!
//! The edge, the fog and the four members who witness its log are the code of `haar-edge`, `haar-fog` and `haar-ledger`; only
//! the broker (`rumqttd`) and the certificate authority are the demo's own. Devices speak MQTT to the broker and CoAP to the edge.
//!
//! Event time runs `--speed` times as fast as the wall clock and begins so far in the past that it ends
//! now: the edge's limits on clocks hold as they would on a ward.

mod outcome;
mod pki;
pub(crate) mod report;
mod script;
mod view;

use crate::failure::Failure;
use crate::members::{self, Members};
use haar_edge::EdgeStats;
use haar_fog::FogStats;
use haar_ledger::Identity;
use haar_normalize::PseudonymKey;
use haar_schema::{Subject, Timestamp};
use haar_simulator::broker::Broker;
use haar_simulator::replay::Recordings;
use haar_simulator::transport::{self, MqttTarget, Pace, Publisher, Sent, Target};
use haar_simulator::truth::write_truth;
use haar_simulator::{Scenario, Ward};
use haar_telemetry::{Metrics, Settings, Telemetry};
use std::collections::BTreeMap;
use std::io::{BufWriter, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;
use view::{Snapshot, View};

/// Event seconds a wall second, unless it is said otherwise.
const SPEED: f64 = 20.0;
/// The same for recordings that are measured: twice as many patients, and more.
const RECORDINGS_SPEED: f64 = 10.0;
const PATIENTS: u32 = 8;
const SECONDS: u32 = 30;
const SEED: u64 = 1;
const WORKERS: usize = 2;
/// How often the view is drawn.
const VIEW_EVERY: Duration = Duration::from_millis(250);
/// How long what is under way may take to arrive once the devices are silent.
const SETTLE: Duration = Duration::from_secs(20);
/// Over how many seconds readings/s is averaged.
const RATE_OVER: Duration = Duration::from_secs(2);
/// The demo's edge, as its certificate names it.
const EDGE: &str = "demo-edge";
/// What the simulated ward says of itself, in the demo's folder.
const TRUTH: &str = "truth.jsonl";
/// Log lines shown unless it is said otherwise. The broker calls every client that leaves an error.
const LOG: &str = "warn,rumqttd=off";
/// The demo's log.
const ORIGIN: &str = "haar.invalid/demo";
/// The log of many parties that it is put before, and who they are.
const MEMBERS_ORIGIN: &str = "haar.invalid/demo/members";
const MEMBERS: [&str; 4] =
    ["health-board.invalid", "hospital.invalid", "insurer.invalid", "patients.invalid"];
/// How often the site's log is put before the members.
const PUT_FORWARD_EVERY_MS: u64 = 1_000;
/// How long the members may take to witness the last of it.
const WITNESS: Duration = Duration::from_secs(10);

/// Run the whole path on this machine.
#[derive(clap::Args)]
pub struct Args {
    /// Simulated patients.
    #[arg(long, default_value_t = PATIENTS)]
    patients: u32,
    /// Wall seconds until it stops; 0: until Ctrl-C.
    #[arg(long, default_value_t = SECONDS)]
    seconds: u32,
    /// Event time runs so many times as fast as the wall clock [default: 20, or 1 with --seconds 0].
    #[arg(long)]
    speed: Option<f64>,
    /// What the patients are drawn from.
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Replay recordings as patients instead: a WFDB record, or a folder of them.
    #[arg(long, value_name = "PATH")]
    wfdb: Option<PathBuf>,
    /// Where everything is kept [default: a new temporary directory].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Dataflow workers.
    #[arg(long, default_value_t = WORKERS)]
    workers: usize,
    /// A file of a pipeline definition, once for each [default: those that run where none is named].
    #[arg(long, value_name = "FILE")]
    pipeline: Vec<PathBuf>,
    /// Send traces there by OTLP over HTTP, such as http://127.0.0.1:4318.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Which log lines to show: a level, or directives [default: warnings, without the broker's].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let telemetry = Telemetry::start(Settings {
            service: "haar-demo".to_owned(),
            log: args.log.clone().unwrap_or_else(|| LOG.to_owned()),
            json: false,
            otlp_endpoint: args.otlp.clone(),
        })?;
        let ended = demo(&args).await;
        telemetry.shutdown().await;
        ended
    })
}

async fn demo(args: &Args) -> Result<(), Failure> {
    let dir = directory(args)?;
    let source = Source::open(args, &dir)?;
    eprintln!("haar demo: {} in {}", source.describe(args), dir.display());
    let parts = Parts::start(args, &dir).await?;
    let played = play(args, source, &parts).await?;
    let stopped = parts.stop().await?;
    let done = outcome::Done {
        dir: &dir,
        sent: played.sent,
        settled: played.settled,
        is_witnessed: stopped.is_witnessed,
        edge: stopped.edge,
        fog: stopped.fog,
        names: played.names,
        is_ward: args.wfdb.is_none(),
        origin: ORIGIN,
    };
    let concluded = outcome::conclude(done, &stopped.members, &stopped.site).await;
    stopped.members.stop().await?;
    concluded
}

/// Bytes from devices, and what of them was committed upstream, as the demo has it: for the ward that it simulates, or for recordings.
pub(crate) struct Upstream {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_committed: u64,
}

impl Upstream {
    /// Plays the demo once.
    pub(crate) async fn measure(args: &Args) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("haar-upstream-").tempdir()?;
        let source = Source::open(args, folder.path())?;
        let parts = Parts::start(args, folder.path()).await?;
        let played = play(args, source, &parts).await?;
        let Stopped { edge, fog, members, .. } = parts.stop().await?;
        members.stop().await?;
        if !played.settled {
            return Err(Failure::new("not everything that was sent was committed in time"));
        }
        Ok(Self { bytes_in: edge.bytes, bytes_committed: fog.bytes_committed })
    }

    /// How many bytes came for each that was committed.
    pub(crate) fn ratio(&self) -> f64 {
        self.bytes_in as f64 / self.bytes_committed.max(1) as f64
    }
}

impl Args {
    /// What `haar demo` does if nothing is said; of recordings, half as fast.
    pub(crate) fn usual(wfdb: Option<PathBuf>) -> Self {
        let speed = wfdb.as_ref().map(|_| RECORDINGS_SPEED);
        Self {
            patients: PATIENTS,
            seconds: SECONDS,
            speed,
            seed: SEED,
            wfdb,
            dir: None,
            workers: WORKERS,
            pipeline: Vec::new(),
            otlp: None,
            log: None,
        }
    }
}

fn directory(args: &Args) -> Result<PathBuf, Failure> {
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .and_then(|()| tempfile::tempfile_in(dir).map(drop))
                .map_err(|error| {
                    let dir = dir.display();
                    Failure::usage(format!(
                        "--dir {dir} cannot be written: {error}; name another folder"
                    ))
                })?;
            Ok(dir.clone())
        }
        // Kept: the proof and the report are what the demo is for.
        None => Ok(tempfile::Builder::new().prefix("haar-demo-").tempdir()?.keep()),
    }
}

/// Who the patients are.
enum Source {
    Ward { ward: Box<Ward>, truth: BufWriter<std::fs::File>, pace: Pace },
    Recordings { recordings: Recordings, pace: Pace },
}

impl Source {
    fn open(args: &Args, dir: &Path) -> Result<Self, Failure> {
        let speed = args.speed.unwrap_or(if args.seconds == 0 { 1.0 } else { SPEED });
        if !(speed > 0.0 && speed.is_finite()) {
            return Err(Failure::usage("--speed must be above 0"));
        }
        let wanted = (args.seconds > 0).then(|| (f64::from(args.seconds) * speed).round() as u32);
        let Some(path) = &args.wfdb else {
            let pace = Pace::ending_now(now(), wanted, speed);
            let scenario = Scenario::demo(args.seed, args.patients);
            let ward = Ward::new(args.seed, args.patients, pace.start, scenario)
                .map_err(Failure::usage)?;
            let truth = BufWriter::new(std::fs::File::create(dir.join(TRUTH))?);
            return Ok(Self::Ward { ward: Box::new(ward), truth, pace });
        };
        let recordings = Recordings::open(path).map_err(Failure::usage)?;
        for rejected in recordings.rejected() {
            eprintln!("haar demo: left out: {rejected}");
        }
        let length = wanted.unwrap_or(u32::MAX).min(recordings.seconds());
        let pace = Pace::ending_now(now(), Some(length), speed);
        Ok(Self::Recordings { recordings, pace })
    }

    fn describe(&self, args: &Args) -> String {
        match self {
            Self::Ward { ward, pace, .. } => format!(
                "{} simulated patients (seed {}) at {} × real time",
                ward.patients(),
                args.seed,
                pace.speed
            ),
            Self::Recordings { recordings, pace } => {
                format!("{} recordings at {} × real time", recordings.names().count(), pace.speed)
            }
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Ward { ward, .. } => ward.names().map(str::to_owned).collect(),
            Self::Recordings { recordings, .. } => recordings.names().map(str::to_owned).collect(),
        }
    }

    async fn send(self, publisher: &Publisher, stop: &CancellationToken) -> Result<(), Failure> {
        match self {
            Self::Ward { mut ward, mut truth, pace } => {
                let mut unwritten = None;
                transport::run(ward.as_mut(), publisher, pace, stop, |ward, _| {
                    if let Err(error) = write_truth(&mut truth, &ward.take_truth()) {
                        unwritten.get_or_insert(error);
                    }
                })
                .await?;
                unwritten.map_or(Ok(()), |error| Err(Failure::new(format!("truth.jsonl: {error}"))))
            }
            Self::Recordings { recordings, pace } => {
                let mut replay = recordings.play(pace.start);
                transport::run(&mut replay, publisher, pace, stop, |_, _| {}).await?;
                Ok(())
            }
        }
    }
}

/// Broker, edge, fog and members at work.
struct Parts {
    broker: Broker,
    members: Members,
    site: Identity,
    edge: haar_edge::Running,
    fog: haar_fog::Running,
    coap: SocketAddr,
    key: Vec<u8>,
    stop_edge: CancellationToken,
    stop_fog: CancellationToken,
}

impl Parts {
    async fn start(args: &Args, dir: &Path) -> Result<Self, Failure> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let pki = pki::Pki::make(&dir.join("pki"), "localhost", EDGE)?;
        let key_file = dir.join("pseudonym.key");
        // A new one each time: event time begins before now, so a second run in a directory overlaps the
        // first, and the first one's patients would find all their windows closed.
        let mut key = vec![0; 32];
        getrandom::fill(&mut key)
            .map_err(|error| Failure::new(format!("no random bytes: {error}")))?;
        pki::write_secret(&key_file, &key)?;
        let broker = Broker::start()?;
        let (stop_edge, stop_fog) = (CancellationToken::new(), CancellationToken::new());
        let members = Members::found(members::Wanted {
            dir: &members_dir(dir),
            origin: MEMBERS_ORIGIN,
            names: MEMBERS,
            tls: Some(members::Tls {
                cert_file: pki.fog_cert.clone(),
                key_file: pki.fog_key.clone(),
                ca_file: pki.ca.clone(),
            }),
        })
        .await?;
        let site = site(&dir.join("fog"))?;
        members.register(&site).await?;
        let fog_config = haar_fog::Config {
            access: None,
            alarms: haar_fog::AlarmsConfig::default(),
            notify: Vec::new(),
            parameters: haar_fog::ParametersConfig::default(),
            erasure: haar_fog::ErasureConfig::default(),
            models: haar_fog::ModelsConfig::default(),
            data_dir: dir.join("fog"),
            link: haar_fog::LinkConfig {
                edge_keys: haar_fog::EdgeKeys::default(),
                listen: loopback,
                ca_file: pki.ca.clone(),
                cert_file: pki.fog_cert,
                key_file: pki.fog_key,
                credit_entries: 65_536,
            },
            dataflow: haar_fog::DataflowConfig {
                workers: args.workers,
                pipelines: args.pipeline.clone(),
                ..Default::default()
            },
            log: haar_fog::LogConfig {
                origin: ORIGIN.to_owned(),
                key_file: None,
                records_key_file: None,
            },
            consortium: Some(haar_fog::ConsortiumConfig {
                ca_file: Some(pki.ca.clone()),
                every_ms: PUT_FORWARD_EVERY_MS,
                ..haar_fog::ConsortiumConfig::new(
                    members.operator().url().to_owned(),
                    members.policy_file().to_owned(),
                )
            }),
            admin: haar_fog::AdminConfig { listen: loopback },
            telemetry: haar_fog::TelemetryConfig::default(),
        };
        let fog = haar_fog::start(fog_config, Metrics::new("haar-fog")?, stop_fog.clone()).await?;
        let endpoint = format!("https://localhost:{}", fog.link_addr().port());
        let uplink = haar_edge::config::Uplink::new(endpoint, pki.ca, pki.edge_cert, pki.edge_key);
        let mut config = haar_edge::Config::new(EDGE.parse()?, dir.join("edge"), key_file, uplink);
        config.mqtt = Some(haar_edge::config::Mqtt::new("127.0.0.1", broker.addr().port()));
        config.coap = Some(haar_edge::config::Coap::new(loopback));
        config.admin = haar_edge::config::Admin::new(loopback);
        let edge = haar_edge::start(config, Metrics::new("haar-edge")?, stop_edge.clone()).await?;
        let coap = edge.coap_addr.ok_or_else(|| Failure::new("the edge has no CoAP address"))?;
        eprintln!(
            "haar demo: metrics at http://{}/metrics (edge) and http://{}/metrics (fog)",
            edge.admin_addr,
            fog.admin_addr()
        );
        Ok(Self { broker, members, site, edge, fog, coap, key, stop_edge, stop_fog })
    }

    /// Edge first: it drains into the fog, whose log is witnessed before the fog stops.
    async fn stop(self) -> Result<Stopped, Failure> {
        let Self { members, site, .. } = self;
        self.stop_edge.cancel();
        let edge = self.edge.join().await?;
        let leaves = self.fog.stats().leaves;
        let is_witnessed = wait_for(WITNESS, || self.fog.stats().witnessed >= Some(leaves)).await;
        self.stop_fog.cancel();
        let fog = self.fog.join().await?;
        Ok(Stopped { edge, fog, is_witnessed, members, site })
    }
}

/// What is left when edge and fog have stopped.
struct Stopped {
    edge: EdgeStats,
    fog: FogStats,
    /// Whether the members have witnessed all that the edge had sent.
    is_witnessed: bool,
    members: Members,
    site: Identity,
}

/// Where the members' keys and databases lie. A second run in a folder founds another consortium: its servers have other ports.
fn members_dir(dir: &Path) -> PathBuf {
    let numbered = (2..).map(|number| dir.join(format!("members-{number}")));
    let mut all = std::iter::once(dir.join("members")).chain(numbered);
    all.find(|dir| !dir.exists()).unwrap_or_else(|| dir.join("members"))
}

/// The key of the fog's log, made here so that a member can register it before the fog starts.
fn site(fog_dir: &Path) -> Result<Identity, Failure> {
    let path = fog_dir.join("log.key");
    if path.exists() {
        return Ok(Identity::load(&path)?);
    }
    std::fs::create_dir_all(fog_dir)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Failure::new)?;
    let identity = Identity::generate(ORIGIN, seed)?;
    identity.save_new(&path)?;
    Ok(identity)
}

/// What was played.
struct Played {
    sent: Sent,
    settled: bool,
    names: BTreeMap<Subject, String>,
}

async fn play(args: &Args, source: Source, parts: &Parts) -> Result<Played, Failure> {
    wait_for(Duration::from_secs(10), || parts.edge.stats().broker_connected).await;
    let key = PseudonymKey::new(parts.key.clone())?;
    let names: BTreeMap<Subject, String> =
        source.names().into_iter().map(|name| (key.subject(&name), name)).collect();
    let addr = parts.broker.addr();
    let publisher = Publisher::connect(Target {
        mqtt: Some(MqttTarget::plain(addr.ip().to_string(), addr.port())),
        coap: Some(parts.coap),
        seed: args.seed,
    })
    .await?;
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let mut screen = Screen::new(args);
    {
        let sending = source.send(&publisher, &stop);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                sent = &mut sending => { sent?; break }
                () = tokio::time::sleep(VIEW_EVERY) => screen.draw(parts, &names),
            }
        }
    }
    let sent = publisher.finish().await;
    // Everything the devices were told is delivered must come out of the broker and into the log.
    let settled = wait_for(SETTLE, || {
        screen.draw(parts, &names);
        let edge = parts.edge.stats();
        edge.frames >= sent.acked && edge.acked_through + 1 >= edge.next_seq
    })
    .await;
    screen.view.finish();
    Ok(Played { sent, settled, names })
}

async fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    true
}

/// The terminal view and what it needs to remember.
struct Screen {
    view: View,
    began: Instant,
    total: Option<Duration>,
    earlier: std::collections::VecDeque<(Instant, u64)>,
}

impl Screen {
    fn new(args: &Args) -> Self {
        Self {
            view: View::start(std::io::stderr().is_terminal()),
            began: Instant::now(),
            total: (args.seconds > 0).then(|| Duration::from_secs(args.seconds.into())),
            earlier: std::collections::VecDeque::new(),
        }
    }

    fn draw(&mut self, parts: &Parts, names: &BTreeMap<Subject, String>) {
        let (edge, fog) = (parts.edge.stats(), parts.fog.stats());
        let now = Instant::now();
        while self.earlier.front().is_some_and(|(then, _)| now - *then > RATE_OVER) {
            self.earlier.pop_front();
        }
        let (since, before) = self.earlier.front().copied().unwrap_or((self.began, 0));
        self.earlier.push_back((now, edge.readings));
        let last_flags = fog.recent.iter().rev().take(view::LAST_FLAGS).rev().map(|flag| {
            let name = names.get(&flag.subject).map_or("?", String::as_str);
            format!("{:<12} {} ({} ms)", name, flag.flag, flag.latency_ms)
        });
        self.view.update(&Snapshot {
            elapsed: self.began.elapsed(),
            total: self.total,
            readings: edge.readings,
            readings_per_s: (edge.readings - before) as f64
                / (now - since).as_secs_f64().max(0.001),
            spool_depth: edge.next_seq.saturating_sub(1 + edge.acked_through),
            windows: fog.windows.values().sum(),
            flags: fog.flags.values().sum(),
            log_size: fog.leaves,
            witnessed: fog.witnessed.unwrap_or(0),
            broker_connected: edge.broker_connected,
            uplink_connected: edge.uplink_connected,
            last_flags: last_flags.collect(),
        });
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(since.as_micros() as i64)
}
