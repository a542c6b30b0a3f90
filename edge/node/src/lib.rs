//! The edge: device protocols in, durable spool, uplink out.
//!
//! ```text
//! mqtt ─┐                     ┌─ acknowledge devices
//!       ├─▶ intake ─▶ spool ──┤
//! coap ─┘                     └─▶ uplink ─▶ fog
//! ```
//!
//! - sources (`mqtt`, `coap`) hand over frames with their ingest time and wait to be told what became of them;
//! - `intake`, one thread, normalises, writes watermarks, commits groups of frames, and then has them acknowledged;
//! - `uplink` sends the spool to the fog by `haar-link` and prunes it as the fog says.
//!
//! [`start`] runs all of it as a library; the binary `haar-edge` is that and a command line.
//!
//! # Stopping
//! When `shutdown` is cancelled, the sources take nothing more, intake commits what it has and acknowledges it, the uplink
//! sends until the fog has committed everything or `drain_timeout_ms` is over, and then all of it ends. What is left
//! in the spool is sent after the next start. Being killed instead loses nothing either; devices send again what
//! was not acknowledged.
//!
//! # What is not guaranteed
//! A device or broker that does not send again what was not acknowledged loses it. A destroyed disk loses what the fog had
//! not committed.
#![forbid(unsafe_code)]

mod backoff;
mod clock;
mod coap;
pub mod config;
mod intake;
mod mqtt;
mod stats;
mod uplink;

#[cfg(test)]
mod tests;

pub use coap::CoapError;
pub use config::{Config, ConfigError};
pub use intake::IntakeError;
pub use mqtt::MqttError;
pub use stats::EdgeStats;

use coap::CoapSource;
use haar_identity::{Identity, IdentityError};
use haar_link::ClientTls;
use haar_normalize::{Connector, Normalizer, Profile, PseudonymKey};
use haar_spool::Spool;
use haar_telemetry::{Admin, AdminError, Metrics, MetricsError, Readiness};
use intake::Intake;
use mqtt::MqttSource;
use stats::Shared;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The spool's file in the data folder.
pub const SPOOL_FILE: &str = "spool.redb";
/// How long a stopped edge waits for its last read of the spool, so that the file is free afterwards.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why an edge did not start. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Neither `mqtt` nor `coap` is configured.
    #[error("no source is configured; add [mqtt] or [coap]")]
    NoSource,
    /// A file that the configuration names cannot be read.
    #[error("cannot read {path}, which {key} names: {error}")]
    File {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// The pseudonym key cannot be used.
    #[error("pseudonym_key_file: {0}")]
    PseudonymKey(#[from] haar_normalize::PseudonymKeyError),
    /// The key that signs batches cannot be used.
    #[error("uplink.signing_key_file: {0}")]
    SigningKey(#[from] IdentityError),
    /// That key is another edge's.
    #[error(
        "uplink.signing_key_file: the key is called {name}; behind the last / its name must have the edge's id, {edge}"
    )]
    SigningKeyName {
        /// What it is called.
        name: String,
        /// The edge's id.
        edge: String,
    },
    /// A device profile cannot be used.
    #[error(transparent)]
    Profile(#[from] haar_normalize::ProfileError),
    /// The device profiles do not go together.
    #[error(transparent)]
    Profiles(#[from] haar_normalize::NormalizerError),
    /// The broker cannot be set up.
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    /// The data folder cannot be made.
    #[error("cannot make the folder {path}, which data_dir names: {error}")]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// No random numbers for the spool's incarnation.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] haar_spool::OpenError),
    /// The CoAP server does not listen.
    #[error(transparent)]
    Coap(#[from] CoapError),
    /// The admin endpoint does not listen.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A task that opens the spool panicked.
    #[error("opening the spool panicked: {0}")]
    Panicked(#[from] JoinError),
}

/// Why an edge stopped by itself. What was acknowledged is in the spool all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There are no metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Intake cannot go on.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// A part of it panicked.
    #[error("a part of the edge panicked: {0}")]
    Panicked(#[from] JoinError),
}

/// An edge at work. Dropped, it stops without draining.
pub struct Running {
    /// Where the CoAP server listens, if there is one.
    pub coap_addr: Option<SocketAddr>,
    /// Where `/metrics` and `/health` are.
    pub admin_addr: SocketAddr,
    readiness: Readiness,
    shared: Arc<Shared>,
    spool: Arc<Spool>,
    supervisor: JoinHandle<Result<(), RunError>>,
    abort: DropGuard,
}

impl Running {
    /// What it has done so far.
    pub fn stats(&self) -> EdgeStats {
        self.shared.counters.snapshot(&self.spool)
    }

    /// What it waits for.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Waits until it has stopped: `shutdown` and draining, or a failure.
    ///
    /// # Errors
    /// If it stopped by itself.
    pub async fn join(self) -> Result<EdgeStats, RunError> {
        let Self { shared, spool, supervisor, abort, .. } = self;
        let ended = supervisor.await;
        drop(abort);
        let stats = shared.counters.snapshot(&spool);
        let released = async {
            while Arc::strong_count(&spool) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, released).await;
        ended??;
        Ok(stats)
    }
}

/// Checks all that can be checked without starting: the configuration and every file that it names.
///
/// # Errors
/// As [`start`] would.
pub fn check(config: &Config) -> Result<(), StartError> {
    Materials::load(config).map(drop)
}

/// Runs an edge until `shutdown` and draining.
///
/// # Errors
/// If it does not start, or stops by itself.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<EdgeStats, RunError> {
    let metrics = Metrics::new("haar-edge")?;
    start(config, metrics, shutdown).await?.join().await
}

/// Starts an edge in this tokio runtime (multi-threaded).
///
/// # Errors
/// If anything of it cannot start; says what to do.
pub async fn start(
    config: Config,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<Running, StartError> {
    let materials = Materials::load(&config)?;
    let coap = match &config.coap {
        Some(coap) => Some(CoapSource::bind(coap).await?),
        None => None,
    };
    let admin = Admin::bind(config.admin.listen).await?;
    let spool = Arc::new(open_spool(&config).await?);
    let shared = Arc::new(Shared::new(&metrics));
    // All of them now: without a condition an edge would count as ready before its parts run.
    let readiness = Readiness::new();
    let sources = [
        ("broker", config.mqtt.is_some()),
        ("coap", coap.is_some()),
        ("spool", true),
        ("uplink", true),
    ];
    for (name, _) in sources.iter().filter(|(_, configured)| *configured) {
        readiness.condition(name);
    }
    let admin_addr = admin.local_addr();
    let coap_addr = coap.as_ref().map(CoapSource::local_addr);
    tracing::info!(
        edge = %config.edge_id,
        admin = %admin_addr,
        coap = coap_addr.map(tracing::field::display),
        entries = spool.stats().entries,
        "edge starts"
    );
    let abort = CancellationToken::new();
    let parts = Parts {
        config,
        materials,
        coap,
        spool: spool.clone(),
        shared: shared.clone(),
        readiness: readiness.clone(),
        stop: shutdown.child_token(),
        abort: abort.clone(),
    };
    let router = Admin::router(&metrics, &readiness);
    let supervisor = tokio::spawn(parts.supervise(admin, router));
    let abort = abort.drop_guard();
    Ok(Running { coap_addr, admin_addr, readiness, shared, spool, supervisor, abort })
}

/// What the files say that a configuration names.
struct Materials {
    normalizer: Normalizer,
    tls: ClientTls,
    key: Option<Arc<Identity>>,
    mqtt: Option<MqttSource>,
}

impl Materials {
    fn load(config: &Config) -> Result<Self, StartError> {
        config.check()?;
        if config.mqtt.is_none() && config.coap.is_none() {
            return Err(StartError::NoSource);
        }
        let mut profiles = if config.built_in_profiles { Profile::built_in()? } else { Vec::new() };
        for path in &config.profile_files {
            let text = String::from_utf8_lossy(&read("profile_files", path)?).into_owned();
            profiles.push(Profile::parse(&path.display().to_string(), &text)?);
        }
        let mqtt_profiles = profiles.iter().filter(|p| p.connector() == Connector::Mqtt);
        let mut filters: Vec<String> = mqtt_profiles.map(Profile::topic_filter).collect();
        filters.sort();
        filters.dedup();
        let key = PseudonymKey::new(read("pseudonym_key_file", &config.pseudonym_key_file)?)?;
        let normalizer = Normalizer::new(profiles, key, haar_normalize::Limits::default())?;
        let tls = ClientTls {
            ca_pem: read("uplink.ca_file", &config.uplink.ca_file)?,
            cert_pem: read("uplink.cert_file", &config.uplink.cert_file)?,
            key_pem: read("uplink.key_file", &config.uplink.key_file)?,
            server_name: config.uplink.server_name.clone(),
        };
        let key = signing_key(config)?;
        let edge = config.edge_id.as_str();
        let mqtt = config.mqtt.as_ref().map(|mqtt| MqttSource::new(mqtt, edge, filters));
        Ok(Self { normalizer, tls, key, mqtt: mqtt.transpose()? })
    }
}

/// The key that signs batches, whose name ends in the edge's id.
fn signing_key(config: &Config) -> Result<Option<Arc<Identity>>, StartError> {
    let Some(path) = &config.uplink.signing_key_file else { return Ok(None) };
    let key = Identity::load(path)?;
    let edge = config.edge_id.as_str();
    if key.origin().rsplit('/').next() != Some(edge) {
        let (name, edge) = (key.origin().to_owned(), edge.to_owned());
        return Err(StartError::SigningKeyName { name, edge });
    }
    Ok(Some(Arc::new(key)))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|error| StartError::File { key, path: path.to_owned(), error })
}

async fn open_spool(config: &Config) -> Result<Spool, StartError> {
    let mut incarnation = [0; 16];
    getrandom::fill(&mut incarnation).map_err(StartError::Random)?;
    let config::Spool { capacity_bytes, on_full, dedupe_frames, quarantine_bytes, cache_bytes } =
        config.spool;
    let mut settings = haar_spool::Settings::new(incarnation);
    settings.capacity_bytes = capacity_bytes;
    settings.dedupe_frames = dedupe_frames;
    settings.quarantine_bytes = quarantine_bytes;
    settings.cache_bytes = cache_bytes;
    settings.on_full = match on_full {
        config::OnFull::Refuse => haar_spool::OnFull::Refuse,
        config::OnFull::ShedWaveforms => {
            haar_spool::OnFull::ShedWaveforms { tombstone: haar_schema::Entry::Shed.encode() }
        }
    };
    let path = config.data_dir.clone();
    let opening = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&path)
            .map_err(|error| StartError::DataDir { path: path.clone(), error })?;
        Ok(Spool::open(&path.join(SPOOL_FILE), settings)?)
    });
    opening.await?
}

/// Everything that runs.
struct Parts {
    config: Config,
    materials: Materials,
    coap: Option<CoapSource>,
    spool: Arc<Spool>,
    shared: Arc<Shared>,
    readiness: Readiness,
    /// Stop and drain.
    stop: CancellationToken,
    /// Stop without draining.
    abort: CancellationToken,
}

impl Parts {
    /// Runs the parts and stops them in order: sources, intake, uplink, admin.
    async fn supervise(self, admin: Admin, router: axum::Router) -> Result<(), RunError> {
        let (stop, abort) = (self.stop.clone(), self.abort.clone());
        let (settled, draining, admin_stop) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        // Whatever way this ends, nothing of it goes on.
        let _ends = [
            stop.clone().drop_guard(),
            abort.clone().drop_guard(),
            settled.clone().drop_guard(),
            draining.clone().drop_guard(),
            admin_stop.clone().drop_guard(),
        ];
        let drain_timeout = Duration::from_millis(self.config.drain_timeout_ms);
        let serving = tokio::spawn(admin.serve(router, admin_stop.clone()));
        let sources = TaskTracker::new();
        let (mut intake, uplink) = self.spawn(&sources, &settled, &draining);

        let early = tokio::select! {
            () = stop.cancelled() => None,
            () = abort.cancelled() => None,
            // The sources hold its channel open, so only a failure ends it now.
            ended = &mut intake => Some(ended),
        };
        stop.cancel();
        let ended = match early {
            Some(ended) => {
                abort.cancel();
                ended
            }
            None => intake.await,
        };
        settled.cancel();
        sources.close();
        sources.wait().await;
        draining.cancel();
        let mut uplink = uplink;
        if tokio::time::timeout(drain_timeout, &mut uplink).await.is_err() {
            tracing::warn!(
                "the fog has not committed everything in time; the rest is sent after the next start"
            );
            abort.cancel();
            uplink.await?;
        }
        admin_stop.cancel();
        if let Err(error) = serving.await? {
            tracing::warn!(%error, "the admin endpoint had stopped");
        }
        Ok(ended??)
    }

    fn spawn(
        self,
        sources: &TaskTracker,
        settled: &CancellationToken,
        draining: &CancellationToken,
    ) -> (JoinHandle<Result<(), IntakeError>>, JoinHandle<()>) {
        let Self { config, materials, coap, spool, shared, readiness, stop, abort } = self;
        let (arrivals, arriving) = mpsc::channel(config.intake.queue_frames);
        let (appended, follow) = watch::channel(spool.next_seq());
        let intake = Intake {
            spool: spool.clone(),
            normalizer: materials.normalizer,
            arrivals: arriving,
            appended,
            shared: shared.clone(),
            condition: readiness.condition("spool"),
            group_frames: config.intake.group_frames,
            group_wait: Duration::from_millis(config.intake.group_wait_ms),
            shutdown: stop.clone(),
        };
        let runtime = tokio::runtime::Handle::current();
        let intake = tokio::task::spawn_blocking(move || intake.run(&runtime));
        if let Some(mqtt) = materials.mqtt {
            sources.spawn(mqtt.run(mqtt::Surroundings {
                arrivals: arrivals.clone(),
                shared: shared.clone(),
                condition: readiness.condition("broker"),
                shutdown: stop.clone(),
                settled: settled.clone(),
            }));
        }
        if let Some(coap) = coap {
            let condition = readiness.condition("coap");
            let (stop, settled) = (stop.clone(), settled.clone());
            sources.spawn(coap.run(arrivals.clone(), shared.clone(), condition, stop, settled));
        }
        let uplink = uplink::Uplink {
            edge: config.edge_id,
            config: config.uplink,
            tls: materials.tls,
            key: materials.key,
            spool,
            appended: follow,
            shared,
            condition: readiness.condition("uplink"),
            draining: draining.clone(),
            abort,
            sent_below: 0,
        };
        (intake, tokio::spawn(uplink.run()))
    }
}
