//! A ledger server: operator, witness, mirror, monitor, in any combination.
//!
//! One process, one database in `data_dir`, one HTTP(S) address for others and one admin address.
//!
//! | role | does | reads |
//! |---|---|---|
//! | operator | takes entries, orders, signs, gathers cosignatures, publishes | its key, its store |
//! | witness | remembers the checkpoint seen last, cosigns what follows | its own database only |
//! | mirror | copies every entry before it cosigns, serves the copy | the log over HTTP |
//! | monitor | applies every entry to the rules, compares what others are shown | the log and the witnesses |
//!
//! # Shutdown
//! What was handed in is sequenced and answered, requests under way may finish, then the process ends. A
//! `kill -9` at any moment loses nothing that was answered.

mod config;
mod cosign;
mod follow;
mod gossip;
mod instruments;
mod judge;
mod operator;
mod routes;
#[cfg(test)]
mod tests;
mod tls;

pub use config::{
    AdminConfig, Config, ConfigError, EtcdConfig, FollowConfig, HttpConfig, MemberConfig,
    OperatorConfig, PredecessorConfig, Role, TelemetryConfig, WitnessConfig,
};
pub use gossip::MAX_KEPT;
pub use routes::{MAX_BODY_BYTES, MAX_WAIT};
pub use tls::{Connection, Door, TlsError};

use crate::client::{self, Client, HttpError};
use crate::consortium::{
    Copy, ExportError, Lineage, LineageError, Reader, SequenceError, Sequencer, Tiles, TilesError,
};
use crate::cosignature::Cosigner;
use crate::entry::{Entry, EntryError};
use crate::governance::{Operator as OperatorBody, State};
use crate::store::{CheckpointStore, EtcdStore, RedbStore, StoreError};
use crate::witness::Witness;
use axum::Router;
use cosign::Cosigning;
use follow::Follower;
use gossip::{Gossip, Target, Telling};
use haar_identity::{Identity, IdentityError, VerifierKey, VerifierKeyError};
use haar_telemetry::{Admin, AdminError, Metrics, Readiness};
use instruments::Instruments;
use judge::Judge;
use operator::{Batching, Operator, SharedState};
use redb::Database;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The database's name in the data directory.
pub const DATABASE_FILE: &str = "ledger.redb";
/// How long open requests may take after shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a server did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A value of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log's key in the configuration.
    #[error("log: {0}")]
    LogKey(#[from] VerifierKeyError),
    /// A key file.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// The operator's key is not the log's.
    #[error(
        "operator.key_file holds the key {given}, and `log` names {log}; configure the log's own key"
    )]
    OtherKey {
        /// What the file holds.
        given: String,
        /// What the configuration names.
        log: String,
    },
    /// A file or folder.
    #[error("{path}: {error}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// The first entry.
    #[error("operator.genesis_file: {0}")]
    Genesis(#[from] EntryError),
    /// The first entry does not begin a log, or not after those that it follows.
    #[error("the log's first entry: {0}")]
    Begin(#[from] LineageError),
    /// The log that is stored has none.
    #[error("the log's first entry is no genesis: it was made by something else")]
    NoGenesis,
    /// The copy of a log before.
    #[error("predecessor.data_dir: {path}: {error}. Stop the server whose data directory it is", path = .path.display())]
    Predecessor {
        /// Its database.
        path: PathBuf,
        /// Why it does not open.
        #[source]
        error: Box<redb::DatabaseError>,
    },
    /// The database.
    #[error("the ledger's database: {0}")]
    Database(#[from] redb::Error),
    /// The tiles.
    #[error(transparent)]
    Tiles(#[from] TilesError),
    /// The folder to export to.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The store of checkpoints.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// Address or certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client for asking others.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The admin address.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The listening socket failed.
    #[error("serving: {0}")]
    Serve(#[source] std::io::Error),
}

/// A server that runs.
pub struct Running {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    tasks: JoinSet<Result<(), ServerError>>,
    shutdown: CancellationToken,
}

/// Starts a server and waits until it has stopped.
///
/// # Errors
/// If it does not start, or stops by itself.
pub async fn run(
    config: Config,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    start(config, metrics, shutdown).await?.join().await
}

/// Starts a server: when it returns, others can connect.
///
/// # Errors
/// Before anything runs.
pub async fn start(
    config: Config,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<Running, ServerError> {
    let config = config.checked()?;
    let log: VerifierKey = config.log.parse()?;
    std::fs::create_dir_all(&config.data_dir)
        .map_err(|error| ServerError::File { path: config.data_dir.clone(), error })?;
    let path = config.data_dir.join(DATABASE_FILE);
    let db = Arc::new(Database::create(path).map_err(redb::Error::from)?);
    let http = client::http(config.http.ca_file.as_deref())?;
    let door = tls::Door::open(&config.http).await?;
    let admin = Admin::bind(config.admin.listen).await?;
    let (addr, admin_addr) = (door.addr(), admin.local_addr());
    let instruments = Instruments::new(&metrics);
    let before = lineage(&config.predecessor)?;
    let tasks = JoinSet::new();
    let mut server = Server { config, log, db, http, instruments, before, shutdown, tasks };
    let router = server.roles().await?;
    let readiness = Readiness::new();
    readiness.condition("ledger").ready();
    let Server { mut tasks, shutdown, .. } = server;
    let stop = shutdown.clone();
    tasks.spawn(async move {
        let serving =
            axum::serve(door, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::select! {
            served = async { serving.await } => served.map_err(ServerError::Serve),
            () = async { stop.cancelled().await; tokio::time::sleep(DRAIN_TIMEOUT).await; } => Ok(()),
        }
    });
    let router = Admin::router(&metrics, &readiness);
    let stop = shutdown.clone();
    tasks.spawn(async move { Ok(admin.serve(router, stop).await?) });
    tracing::info!(%addr, %admin_addr, "haar-ledger is up");
    Ok(Running { addr, admin_addr, tasks, shutdown })
}

/// Makes the first entry of a log that follows the one of this configuration, whose server is stopped: signed by
/// `founder`, to be signed by as many members as the rules want.
///
/// # Errors
/// If the server runs, or its copy has no cosigned checkpoint.
pub fn succeed(
    config: &Config,
    operator: OperatorBody,
    founder: &Identity,
) -> Result<Entry, ServerError> {
    let path = config.data_dir.join(DATABASE_FILE);
    let db = Arc::new(Database::open(path).map_err(redb::Error::from)?);
    let tiles = Tiles::open(db, config.log.parse()?)?;
    Ok(lineage(&config.predecessor)?.successor(&tiles, operator, founder)?)
}

/// Whether `genesis` begins the log of this configuration, after those that it follows.
///
/// # Errors
/// If it does not, or a copy cannot be read.
pub fn check_genesis(config: &Config, genesis: &Entry) -> Result<State, ServerError> {
    Ok(lineage(&config.predecessor)?.begin(genesis)?)
}

/// This member's copies of the logs before.
fn lineage(before: &[PredecessorConfig]) -> Result<Lineage, ServerError> {
    let mut logs = Vec::new();
    for PredecessorConfig { log, data_dir } in before {
        let path = data_dir.join(DATABASE_FILE);
        let db = Database::open(&path)
            .map_err(|error| ServerError::Predecessor { path, error: Box::new(error) })?;
        logs.push(Tiles::open(Arc::new(db), log.parse()?)?);
    }
    Ok(Lineage::new(logs))
}

/// Writes what a server that is stopped has published to a folder of static files; how many entries.
///
/// # Errors
/// If the server runs, has published nothing, or something cannot be written.
pub fn export(config: &Config, folder: &Path) -> Result<u64, ServerError> {
    let path = config.data_dir.join(DATABASE_FILE);
    let db = Arc::new(Database::open(path).map_err(redb::Error::from)?);
    let tiles = Tiles::open(db, config.log.parse()?)?;
    tiles.export(folder)?;
    Ok(tiles.published()?.map_or(0, |published| published.size))
}

impl Running {
    /// Where others connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where metrics and health are.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Waits until the server has stopped. The first part that fails stops the others.
    ///
    /// # Errors
    /// If a part failed.
    pub async fn join(mut self) -> Result<(), ServerError> {
        let mut ended = Ok(());
        while let Some(task) = self.tasks.join_next().await {
            let result = task.unwrap_or_else(|error| {
                Err(ServerError::Serve(std::io::Error::other(error.to_string())))
            });
            if result.is_err() && ended.is_ok() {
                self.shutdown.cancel();
                ended = result;
            }
        }
        ended
    }
}

/// A server while its roles are put together.
struct Server {
    config: Config,
    log: VerifierKey,
    db: Arc<Database>,
    http: reqwest::Client,
    instruments: Instruments,
    before: Lineage,
    shutdown: CancellationToken,
    tasks: JoinSet<Result<(), ServerError>>,
}

impl Server {
    async fn roles(&mut self) -> Result<Router, ServerError> {
        let has = |role| self.config.roles.contains(&role);
        let (operates, witnesses) = (has(Role::Operator), has(Role::Witness));
        // A witness follows too where it can: it learns from the log whom to tell of attempts.
        let follows = self.config.follow.is_some() && !operates;
        let mirrors = has(Role::Mirror);
        let tiles = match operates || follows {
            true => Some(Tiles::open(self.db.clone(), self.log.clone())?),
            false => None,
        };
        let state = SharedState::default();
        if let Some(tiles) = &tiles {
            replay(&self.before, &state, tiles)?;
        }
        let gossip = self.gossip(&state)?;
        let mut router = routes::evidence(gossip.clone());
        if let Some(tiles) = &tiles {
            router = router.merge(routes::tiles(tiles.clone())).merge(routes::state(state.clone()));
        }
        let (mut follower, own) = (None, tiles.clone());
        match tiles {
            Some(tiles) if operates => {
                router = router.merge(self.operate(tiles, &state, gossip.clone()).await?);
            }
            Some(tiles) if follows => follower = self.follow(tiles, state, gossip.clone())?,
            _ => {}
        }
        if witnesses {
            let judge = Judge { tiles: own, follower, gossip };
            router = router.merge(self.witness(judge, mirrors)?);
        }
        Ok(router)
    }

    fn gossip(&mut self, state: &SharedState) -> Result<Gossip, ServerError> {
        let identity = match &self.config.member {
            Some(member) => Some(Arc::new(Identity::load(&member.key_file)?)),
            None => None,
        };
        let own = identity.as_ref().map(|identity| identity.origin().to_owned());
        // Only who can sign puts evidence into the log.
        let log_url = self.config.follow.as_ref().map(|follow| follow.url.clone());
        let log_url = log_url.filter(|_| own.is_some());
        let members = Arc::clone(state);
        let targets = move || {
            let state = members.read().unwrap_or_else(PoisonError::into_inner);
            let members = state.as_ref().into_iter().flat_map(State::members);
            let others = members.filter(|member| Some(member.name.as_str()) != own.as_deref());
            let named = others.map(|member| Target {
                name: member.name.as_str().to_owned(),
                url: member.url.as_str().to_owned(),
            });
            let log = log_url.iter().map(|url| Target { name: String::new(), url: url.clone() });
            named.chain(log).collect()
        };
        let (db, instruments) = (self.db.clone(), self.instruments.clone());
        let gossip = Gossip::open(db, self.log.clone(), Arc::clone(state), identity, instruments)?;
        let telling = Telling { gossip: gossip.clone(), http: self.http.clone(), targets };
        let stop = self.shutdown.clone();
        self.tasks.spawn(async move {
            telling.run(stop).await;
            Ok(())
        });
        Ok(gossip)
    }

    fn witness(&self, judge: Judge, mirrors: bool) -> Result<Router, ServerError> {
        let Some(config) = &self.config.witness else { return Ok(Router::new()) };
        let cosigner = Cosigner::load(&config.key_file)?;
        let witness = Witness::open(self.db.clone(), cosigner, vec![self.log.clone()])?;
        let witness = Arc::new(witness);
        let instruments = self.instruments.clone();
        Ok(routes::witness(routes::Booth { witness, judge, mirrors, instruments }))
    }

    async fn operate(
        &mut self,
        tiles: Tiles,
        state: &SharedState,
        gossip: Gossip,
    ) -> Result<Router, ServerError> {
        let Some(config) = self.config.operator.clone() else { return Ok(Router::new()) };
        let identity = Identity::load(&config.key_file)?;
        if *identity.vkey() != self.log {
            let (given, log) = (identity.vkey().to_string(), self.log.to_string());
            return Err(ServerError::OtherKey { given, log });
        }
        let genesis = std::fs::read(&config.genesis_file)
            .map_err(|error| ServerError::File { path: config.genesis_file.clone(), error })?;
        let first = Entry::parse(&genesis)?;
        self.before.begin(&first)?;
        match &config.etcd {
            None => {
                let store = RedbStore::open(self.db.clone())?;
                let sequencer = Sequencer::open(store, tiles, identity, "node-1", &genesis).await?;
                self.run_operator(sequencer, &config, state, gossip)
            }
            Some(etcd) => {
                let store = EtcdStore::new(&etcd.endpoints, self.log.origin())?;
                let sequencer =
                    Sequencer::open(store, tiles, identity, &etcd.node, &genesis).await?;
                self.run_operator(sequencer, &config, state, gossip)
            }
        }
    }

    fn run_operator<S: CheckpointStore>(
        &mut self,
        sequencer: Sequencer<S>,
        config: &OperatorConfig,
        state: &SharedState,
        gossip: Gossip,
    ) -> Result<Router, ServerError> {
        let tiles = sequencer.tiles().clone();
        // Opening may have made the log, or applied what was staged.
        replay(&self.before, state, &tiles)?;
        let known = state.read().unwrap_or_else(PoisonError::into_inner).clone();
        let known = known.ok_or(ServerError::NoGenesis)?;
        let batching = Batching {
            gather: Duration::from_millis(config.batch_ms),
            entries: config.batch_entries,
        };
        let instruments = self.instruments.clone();
        let shared = Arc::clone(state);
        let (operator, desk, latest) =
            Operator::new(sequencer, known, shared, batching, instruments.clone());
        let (published, seen) = watch::channel(tiles.published()?.unwrap_or_default());
        let policy = {
            let state = Arc::clone(state);
            move || {
                let stricter = state.read().unwrap_or_else(PoisonError::into_inner);
                let stricter = stricter.as_ref().is_some_and(State::has_stricter_kinds);
                (follow::policy_of(&state), stricter)
            }
        };
        let cosigning = Cosigning {
            tiles,
            http: self.http.clone(),
            policy,
            latest,
            published,
            refresh: Duration::from_secs(config.refresh_s),
            gossip: gossip.clone(),
            instruments: instruments.clone(),
            ahead_since: BTreeMap::new(),
        };
        let (stop, done) = (self.shutdown.clone(), self.shutdown.clone());
        // Both write to disk: each on a thread of its own, not on one that serves others.
        let (here, there) = (Handle::current(), Handle::current());
        self.tasks.spawn_blocking(move || Ok(here.block_on(operator.run(stop))?));
        self.tasks.spawn_blocking(move || {
            there.block_on(cosigning.run(done));
            Ok(())
        });
        let origin = Arc::from(self.log.origin());
        Ok(routes::counter(routes::Counter {
            desk,
            published: seen,
            origin,
            gossip,
            state: Arc::clone(state),
            instruments,
        }))
    }

    fn follow(
        &mut self,
        tiles: Tiles,
        state: SharedState,
        gossip: Gossip,
    ) -> Result<Option<Arc<Follower>>, ServerError> {
        let Some(config) = &self.config.follow else { return Ok(None) };
        let follower = Arc::new(Follower {
            copy: tokio::sync::Mutex::new(Copy::open(tiles.clone())?),
            tiles,
            state,
            reader: Reader::new(Client::new(self.http.clone(), &config.url)),
            http: self.http.clone(),
            gossip,
            poll: Duration::from_millis(config.poll_ms),
            stale_s: config.stale_s,
            monitors: self.config.roles.contains(&Role::Monitor),
            instruments: self.instruments.clone(),
            before: self.before.clone(),
        });
        let (own, stop) = (Arc::clone(&follower), self.shutdown.clone());
        self.tasks.spawn(async move {
            own.run(stop).await;
            Ok(())
        });
        Ok(Some(follower))
    }
}

/// Applies to the state what is stored here and not in it yet.
fn replay(before: &Lineage, state: &SharedState, tiles: &Tiles) -> Result<(), TilesError> {
    let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
    loop {
        let first = state.as_ref().map_or(0, State::next_index);
        let entries = tiles.entries(first)?;
        if entries.is_empty() {
            return Ok(());
        }
        for (index, entry) in (first..).zip(entries) {
            // What the rules refuse was told when it came.
            let _ = before.apply(&mut state, index, &entry);
        }
        if state.is_none() {
            // Not a log of ours: its first entry is no genesis.
            return Ok(());
        }
    }
}

/// The system's clock, in POSIX seconds: the server's only reading of it.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
