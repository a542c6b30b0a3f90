//! Who an edge talks to in these tests.

use crate::config::{Admin, Coap, Config, Mqtt, MqttProtocol, Uplink};
use crate::{EdgeStats, Running, start};
use haar_link::{
    Ack, AckSender, Batch, Fog, Hello, LinkServer, Refusal, ServerTls, SessionId, Welcome,
};
use haar_schema::{EdgeId, Entry, Observation};
use haar_telemetry::Metrics;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "waited {PATIENCE:?} until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A hospital: a CA, an edge's folder and key.
pub(super) struct Site {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A fog that listens.
pub(super) struct Serving {
    pub(super) port: u16,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), haar_link::ServeError>>,
}

/// An edge that runs.
pub(super) struct Edge {
    pub(super) running: Running,
    pub(super) metrics: Metrics,
    shutdown: CancellationToken,
}

impl Site {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let site = Self { folder, authority };
        let (cert, key) = site.issue("edge-1");
        for (name, bytes) in [
            ("ca.pem", site.authority.pem().into_bytes()),
            ("edge.pem", cert),
            ("edge.key", key),
            ("pseudonym.key", vec![7; 32]),
        ] {
            std::fs::write(site.folder.path().join(name), bytes).unwrap();
        }
        site
    }

    fn issue(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    /// A fog on `port`, or on a free one.
    pub(super) async fn serve(&self, fog: &Arc<CountingFog>, port: Option<u16>) -> Serving {
        let (cert_pem, key_pem) = self.issue("localhost");
        let tls = ServerTls { ca_pem: self.authority.pem().into_bytes(), cert_pem, key_pem };
        let addr = SocketAddr::from(([127, 0, 0, 1], port.unwrap_or(0)));
        let server = LinkServer::bind(addr, tls).await.unwrap();
        let port = server.local_addr().port();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(server.serve(fog.clone(), shutdown.clone()));
        Serving { port, shutdown, server }
    }

    fn config(&self, fog_port: u16) -> Config {
        let file = |name: &str| self.folder.path().join(name);
        let mut uplink = Uplink::new(
            format!("https://localhost:{fog_port}"),
            file("ca.pem"),
            file("edge.pem"),
            file("edge.key"),
        );
        uplink.backoff_min_ms = 20;
        uplink.backoff_max_ms = 200;
        let edge = "edge-1".parse().unwrap();
        let mut config = Config::new(edge, file("data"), file("pseudonym.key"), uplink);
        config.admin = Admin::new(([127, 0, 0, 1], 0).into());
        config
    }

    pub(super) fn with_coap(&self, fog: &Serving) -> Config {
        let mut config = self.config(fog.port);
        config.coap = Some(Coap::new(([127, 0, 0, 1], 0).into()));
        config
    }

    pub(super) fn with_mqtt(&self, fog_port: u16, broker: u16, protocol: MqttProtocol) -> Config {
        let mut config = self.config(fog_port);
        config.mqtt = Some(Mqtt { protocol, ..Mqtt::new("127.0.0.1", broker) });
        config
    }

    pub(super) async fn start(&self, config: Config) -> Edge {
        let shutdown = CancellationToken::new();
        let metrics = Metrics::new("haar-edge").unwrap();
        let running = start(config, metrics.clone(), shutdown.clone()).await.unwrap();
        Edge { running, metrics, shutdown }
    }
}

impl Serving {
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
    }
}

impl Edge {
    /// Drains and stops.
    pub(super) async fn stop(self) -> EdgeStats {
        self.shutdown.cancel();
        self.running.join().await.unwrap()
    }

    /// Ends it without draining, as near to a crash as one process can do it to itself.
    pub(super) async fn crash(self, data: &Site) {
        drop(self);
        let spool = data.folder.path().join("data").join(crate::SPOOL_FILE);
        for _ in 0..400 {
            let settings = haar_spool::Settings::new([0; 16]);
            if haar_spool::Spool::open(&spool, settings).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the edge has not let go of its spool");
    }
}

/// A fog that keeps every entry, commits at once or when told, and fails on anything that is not exactly once.
pub(super) struct CountingFog {
    state: Mutex<State>,
    credit: u32,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<u64, Entry>,
    committing: bool,
    acks: Option<AckSender>,
    sessions: u64,
}

impl CountingFog {
    /// Commits whatever comes.
    pub(super) fn committing(credit: u32) -> Arc<Self> {
        let state = State { committing: true, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), credit })
    }

    /// Commits nothing until [`CountingFog::commit`].
    pub(super) fn holding(credit: u32) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), credit })
    }

    /// Commits what came and from now on everything.
    pub(super) fn commit(&self) {
        let mut state = self.state.lock().unwrap();
        state.committing = true;
        self.ack(&state);
    }

    fn ack(&self, state: &State) {
        let through = state.entries.last_key_value().map_or(0, |(seq, _)| *seq);
        if let (true, Some(acks)) = (state.committing, &state.acks) {
            let ack = Ack { durable_through: through, keep_from: through + 1, credit: self.credit };
            acks.send(ack);
        }
    }

    pub(super) fn observations(&self) -> Vec<Observation> {
        let state = self.state.lock().unwrap();
        let observations = state.entries.values().filter_map(|entry| match entry {
            Entry::Observation(observation) => Some(observation.clone()),
            _ => None,
        });
        observations.collect()
    }

    pub(super) fn sessions(&self) -> u64 {
        self.state.lock().unwrap().sessions
    }
}

impl Fog for CountingFog {
    async fn open(
        &self,
        _edge: &EdgeId,
        _session: SessionId,
        hello: Hello,
        acks: AckSender,
    ) -> Result<Welcome, Refusal> {
        let mut state = self.state.lock().unwrap();
        state.sessions += 1;
        state.acks = Some(acks);
        let next = state.entries.last_key_value().map_or(1, |(seq, _)| seq + 1);
        self.ack(&state);
        Ok(Welcome { resume_from: next.max(hello.oldest_seq), credit: self.credit })
    }

    async fn batch(&self, _: &EdgeId, _: SessionId, batch: Batch) -> Result<(), Refusal> {
        let mut state = self.state.lock().unwrap();
        for (seq, bytes) in (batch.first_seq..).zip(&batch.entries) {
            let entry = Entry::decode(bytes).unwrap();
            assert!(state.entries.insert(seq, entry).is_none(), "{seq} came twice");
        }
        self.ack(&state);
        Ok(())
    }

    fn closed(&self, _: &EdgeId, _: SessionId) {}
}

/// A mosquitto of its own.
pub(super) struct Broker {
    child: Child,
    pub(super) port: u16,
    _folder: TempDir,
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Broker {
    pub(super) async fn start(port: u16) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n\
             max_inflight_messages 1024\nmax_queued_messages 0\nlog_type none\n"
        );
        std::fs::write(&file, text).unwrap();
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is missing: apt-get install mosquitto");
        until("mosquitto listens", || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        Self { child, port, _folder: folder }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
