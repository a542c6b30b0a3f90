//! Starting, running and stopping the node.

use crate::access::{Access, AccessError};
use crate::alarms::Warden;
use crate::commit::{self, Committer, CommitterError, Work};
use crate::config::{Config, ConfigError, KeepUntil};
use crate::consortium::envoy::Envoy;
use crate::consortium::roll::Roll;
use crate::consortium::signers::Authorities;
use crate::consortium::view::{Follower, ViewError};
use crate::consortium::{Held, Pinned, PinnedError};
use crate::courses::Courses;
use crate::erasure::eraser::Eraser;
use crate::ingest::{Counters, EpochEnd, Gate, Ingest, QUEUED_INBOUND};
use crate::models::{Models, ModelsError, Monitor};
use crate::notify::outbox::Outbox;
use crate::notify::{Couriers, NotifyError, Roster};
use crate::parameters::Registrar;
use crate::query;
use crate::sepsis::Charts;
use crate::stats::{FogStats, Tally};
use crate::store::{RECORDS_KEY_FILE, Store, StoreError};
use haar_alarms::{Alarms, Policy};
use haar_catalog::Pipeline;
use haar_dataflow::runtime::{self, WorkerEpoch};
use haar_ledger::{Identity, IdentityError};
use haar_link::{BindError, LinkServer, ServeError, ServerTls};
use haar_telemetry::{Admin, AdminError, Metrics, Readiness};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Ended epochs that wait to be committed.
const QUEUED_ENDS: usize = 16;

/// Why the node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A value of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file that the configuration names.
    #[error("cannot read {path}: {error}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// A pipeline definition; the text points at each mistake.
    #[error("{0}")]
    Pipeline(haar_catalog::Diagnostics),
    /// The models, or who decided about them.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The policy of alarms.
    #[error(transparent)]
    Policy(#[from] haar_alarms::PolicyError),
    /// Who is told of alarms.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// The consortium log that is pinned.
    #[error(transparent)]
    Consortium(#[from] PinnedError),
    /// What is known of the consortium log.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The read API.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// What was kept of alarms.
    #[error(transparent)]
    Alarms(#[from] haar_alarms::RestoreError),
    /// The site log cannot be read.
    #[error(transparent)]
    Log(#[from] haar_ledger::ReadError),
    /// The log's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The link's address or certificates.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin address.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The dataflow.
    #[error(transparent)]
    Dataflow(#[from] runtime::StartError),
    /// The system gives no randomness for the log's key.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Why the node stopped before it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An epoch could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitterError),
    /// The link's listener failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The admin endpoint failed.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A thread panicked.
    #[error("{0} stopped by a panic; see the log")]
    Panic(&'static str),
}

/// A node that runs.
pub struct Running {
    link_addr: SocketAddr,
    admin_addr: SocketAddr,
    tally: Arc<Tally>,
    gate: Arc<Gate>,
    vkey: String,
    parts: Parts,
}

struct Parts {
    link: tokio::task::JoinHandle<Result<(), ServeError>>,
    admin: tokio::task::JoinHandle<Result<(), AdminError>>,
    couriers: tokio::task::JoinHandle<()>,
    envoy: Option<tokio::task::JoinHandle<()>>,
    access: Option<tokio::task::JoinHandle<()>>,
    view: Option<tokio::task::JoinHandle<()>>,
    follower: Option<tokio::task::JoinHandle<()>>,
    ingest: JoinHandle<()>,
    committer: JoinHandle<Result<(), CommitterError>>,
    dataflow: JoinHandle<Result<(), String>>,
    last_batch: CancellationToken,
    drained: CancellationToken,
}

/// Starts the node and waits until it has stopped.
///
/// # Errors
/// If it does not start, or stops by itself.
pub async fn run(
    config: Config,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<FogStats, RunError> {
    start(config, metrics, shutdown).await?.join().await
}

/// Starts the node: when it returns, edges can connect. `shutdown` drains and stops it.
///
/// # Errors
/// Before anything runs; what was begun is undone.
pub async fn start(
    config: Config,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<Running, StartError> {
    let config = config.checked()?;
    let pipelines = pipelines(&config.dataflow.pipelines)?;
    let policy = policy(config.alarms.policy.as_deref())?;
    let roster = Roster::new(&config.notify, &policy.contacts())?;
    let tls = ServerTls {
        ca_pem: read(&config.link.ca_file)?,
        cert_pem: read(&config.link.cert_file)?,
        key_pem: read(&config.link.key_file)?,
    };
    let identity = identity(&config)?;
    let vkey = identity.vkey().to_string();
    let records_key = config.log.records_key_file.clone();
    let records_key = records_key.unwrap_or_else(|| config.data_dir.join(RECORDS_KEY_FILE));
    let store = Arc::new(Store::open_with(&config.data_dir, identity, records_key)?);
    let link = LinkServer::bind(config.link.listen, tls).await?;
    let admin = Admin::bind(config.admin.listen).await?;
    let (link_addr, admin_addr) = (link.local_addr(), admin.local_addr());
    let dir = &config.data_dir;
    let roll = Roll::new(store.log().identity().origin(), config.link.edge_keys);
    let consortium = match &config.consortium {
        Some(own) => {
            let pinned = Pinned::load(own)?;
            // Before anything that asks the roll: it is read from the copy on disk.
            let view = Follower::open(own, &pinned, dir, &store, roll.clone(), &metrics)?;
            Some((own, pinned, view))
        }
        None => None,
    };
    let authorities = Authorities::of(&config, &roll);
    let Models { deployments, expected, decided, follower } =
        Models::open(&config.models, authorities.models, &store, &metrics)?;
    let (eraser, orders) = Eraser::restore(&store, authorities.erasure, commit::now())?;
    let (registrar, charts) = Registrar::restore(&store, authorities.parameters)?;
    let runtime =
        runtime::start(&pipelines, &deployments, registrar.ward(), config.dataflow.workers)?;

    let tally = Arc::new(Tally::new());
    let (inbound, inbound_receiver) = tokio::sync::mpsc::channel(QUEUED_INBOUND);
    let held = held(&config, &store)?;
    let gate = Arc::new(Gate::new(
        Arc::clone(&store),
        inbound,
        config.link.credit_entries,
        roll.clone(),
        held,
        &metrics,
    ));
    let shared_view = consortium.as_ref().map(|(_, _, view)| view.view());
    let (envoy, view) = match consortium {
        Some((own, pinned, view)) => {
            let reach = (Arc::clone(&gate), Arc::clone(&tally));
            let known = (roll, view.view());
            let envoy = Envoy::new(own, &pinned, Arc::clone(&store), reach, known, &metrics)
                .map_err(StoreError::from)?;
            (Some(envoy), Some(view))
        }
        None => (None, None),
    };
    let access = match (&config.access, &view) {
        (Some(own), Some(view)) => Some(
            Access::open(own, view.view(), dir, Arc::clone(&store), roster.clone(), &metrics)
                .await?,
        ),
        _ => None,
    };
    if let Some(access) = &access {
        tracing::info!(addr = %access.addr(), "the read API is up");
    }
    let (ends, end_receiver) = sync_channel(QUEUED_ENDS);
    let ingest = Ingest {
        feed: runtime.feed,
        pane_us: runtime::common_pane_us(&pipelines),
        epoch_length: Duration::from_millis(config.dataflow.epoch_ms),
        ends,
        tally: Arc::clone(&tally),
        counters: Counters::new(&metrics),
    };
    let alarms = Alarms::restore(policy, store.alarms().map_err(StoreError::from)?)?;
    let (warden, desk) = Warden::new(alarms, &metrics);
    let outbox = Outbox::new(Arc::clone(&store));
    let couriers = Couriers::new(&config.notify, &outbox, &roster, &desk, &metrics)?;
    let work = Work {
        store: Arc::clone(&store),
        gate: Arc::clone(&gate),
        tally: Arc::clone(&tally),
        workers: config.dataflow.workers,
        pipelines: pipelines.iter().map(|pipeline| pipeline.reference().id.clone()).collect(),
        monitor: Monitor::new(expected, &metrics),
        warden,
        roster,
        registrar,
        eraser,
        view: shared_view,
        courses: Courses::restore(store.courses().map_err(StoreError::from)?),
        charts: Charts::restore(store.charts().map_err(StoreError::from)?),
        decided,
    };
    let committer = Committer::new(work, &metrics);
    let readiness = Readiness::new();
    readiness.condition("dataflow").ready();
    let router = Admin::router(&metrics, &readiness).merge(query::router(
        store,
        Arc::clone(&tally),
        desk,
        outbox,
        charts,
        orders,
    ));
    let (last_batch, drained) = (CancellationToken::new(), CancellationToken::new());
    let ingest_stop = last_batch.clone();
    let handle = tokio::runtime::Handle::current();
    tracing::info!(%link_addr, %admin_addr, workers = config.dataflow.workers, "haar-fog is up");
    Ok(Running {
        link_addr,
        admin_addr,
        vkey,
        parts: Parts {
            committer: commit_thread(committer, end_receiver, runtime.epochs, shutdown.clone()),
            ingest: std::thread::spawn(move || ingest.run(inbound_receiver, &ingest_stop, &handle)),
            dataflow: runtime.thread,
            link: tokio::spawn(link.serve(Arc::clone(&gate), shutdown)),
            admin: tokio::spawn(admin.serve(router, drained.clone())),
            couriers: tokio::spawn(couriers.run(drained.clone())),
            envoy: envoy.map(|envoy| tokio::spawn(envoy.run(drained.clone()))),
            follower: follower.map(|own| tokio::spawn(own.run(drained.clone()))),
            view: view.map(|view| tokio::spawn(view.run(drained.clone()))),
            access: access.map(|access| tokio::spawn(access.run(drained.clone()))),
            last_batch,
            drained,
        },
        tally,
        gate,
    })
}

impl Running {
    /// Where edges connect.
    pub fn link_addr(&self) -> SocketAddr {
        self.link_addr
    }

    /// Where metrics, health and queries are.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// The verifier key of the site log.
    pub fn vkey(&self) -> &str {
        &self.vkey
    }

    /// What the node has done so far.
    pub fn stats(&self) -> FogStats {
        FogStats { edges: self.gate.connected(), ..self.tally.snapshot() }
    }

    /// Waits until the node has stopped: after `shutdown`, what was taken from edges is committed first.
    ///
    /// # Errors
    /// If a part failed. The first failure stops the others.
    pub async fn join(self) -> Result<FogStats, RunError> {
        let Self { tally, parts, .. } = self;
        let link = parts.link.await;
        // No batch comes any more: ingest ends the last epoch, the workers finish it, it is committed.
        parts.last_batch.cancel();
        let ended = tokio::task::spawn_blocking(move || {
            (parts.ingest.join(), parts.committer.join(), parts.dataflow.join())
        })
        .await;
        parts.drained.cancel();
        let admin = parts.admin.await;
        let couriers = parts.couriers.await;
        let envoy = match parts.envoy {
            Some(envoy) => envoy.await,
            None => Ok(()),
        };
        let access = match parts.access {
            Some(access) => access.await,
            None => Ok(()),
        };
        let view = match parts.view {
            Some(view) => view.await,
            None => Ok(()),
        };
        if let Some(follower) = parts.follower {
            follower.await.map_err(|_| RunError::Panic("the follower of the model registry"))?;
        }
        let (ingest, committer, dataflow) = ended.map_err(|_| RunError::Panic("the node"))?;
        // The committer's error comes first: it says why the others ended.
        committer.map_err(|_| RunError::Panic("the committer"))??;
        ingest.map_err(|_| RunError::Panic("ingest"))?;
        match dataflow {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(RunError::Panic("the dataflow")),
        }
        link.map_err(|_| RunError::Panic("the link"))??;
        admin.map_err(|_| RunError::Panic("the admin endpoint"))??;
        couriers.map_err(|_| RunError::Panic("a courier"))?;
        envoy.map_err(|_| RunError::Panic("the envoy to the consortium log"))?;
        access.map_err(|_| RunError::Panic("the read API"))?;
        view.map_err(|_| RunError::Panic("the follower of the consortium log"))?;
        Ok(FogStats { edges: 0, ..tally.snapshot() })
    }
}

/// Commits on a thread of its own; when it ends early, so does the node.
fn commit_thread(
    committer: Committer,
    ends: Receiver<EpochEnd>,
    results: Receiver<WorkerEpoch>,
    shutdown: CancellationToken,
) -> JoinHandle<Result<(), CommitterError>> {
    std::thread::spawn(move || {
        let _stop = shutdown.drop_guard();
        committer.run(&ends, &results)
    })
}

/// What edges keep until the consortium log has it.
fn held(config: &Config, store: &Store) -> Result<Option<Held>, StartError> {
    let keep = config.consortium.as_ref().map(|own| own.edges_keep_until).unwrap_or_default();
    if keep == KeepUntil::Committed {
        return Ok(None);
    }
    let positions = store.positions().map_err(StoreError::from)?;
    Ok(Some(Held::new(store.log().size()?, positions)))
}

fn policy(path: Option<&Path>) -> Result<Policy, StartError> {
    let Some(path) = path else { return Ok(Policy::default()) };
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    Ok(Policy::parse(&path.display().to_string(), &text)?)
}

fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|error| StartError::File { path: path.to_owned(), error })
}

fn pipelines(files: &[PathBuf]) -> Result<Vec<Pipeline>, StartError> {
    if files.is_empty() {
        return Ok(haar_catalog::builtin());
    }
    files
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path)
                .map_err(|error| StartError::File { path: path.clone(), error })?;
            Pipeline::parse(&path.display().to_string(), &text).map_err(StartError::Pipeline)
        })
        .collect()
}

/// The log's key: as configured, or made on the first start.
fn identity(config: &Config) -> Result<Identity, StartError> {
    let directory = |error| StoreError::Directory { path: config.data_dir.clone(), error };
    std::fs::create_dir_all(&config.data_dir).map_err(directory)?;
    let path = config.log.key_file.clone().unwrap_or_else(|| config.data_dir.join("log.key"));
    if path.exists() {
        return Ok(Identity::load(&path)?);
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(StartError::Random)?;
    let identity = Identity::generate(&config.log.origin, seed)?;
    identity.save_new(&path)?;
    tracing::info!(key_file = %path.display(), "made a signing key for a new site log; back it up");
    Ok(identity)
}
