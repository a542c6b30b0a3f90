//! A hospital and its region: keys, certificates and configuration files, and the programs that use them.

use super::{Process, http_get};
use crate::programs;
use haar_ledger::{Identity, VerifierKey};
use haar_normalize::PseudonymKey;
use haar_schema::Subject;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::TempDir;

/// The pseudonym key: any 32 bytes.
const KEY: [u8; 32] = [7; 32];
/// Ports are picked from here: below the ones that the system gives to outgoing connections, so that a
/// node that was killed finds its port free when it starts again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// What a site is to run with.
pub struct Wanted<'a> {
    /// Device profiles, the only ones.
    pub profiles: &'a [String],
    /// The pipeline definition, the only one.
    pub pipeline: &'a str,
    /// Port of an OTLP collector, if there is one.
    pub otlp: Option<u16>,
}

/// Where everything is.
pub struct Site {
    folder: TempDir,
    pub broker_port: u16,
    pub coap_port: u16,
    pub edge_admin: u16,
    pub fog_admin: u16,
}

impl Site {
    /// Writes all files; starts nothing.
    pub fn new(wanted: &Wanted<'_>) -> Self {
        let folder = TempDir::new().unwrap();
        let [broker_port, coap_port, edge_admin, fog_admin, link_port] =
            std::array::from_fn(|_| free_port());
        let site = Self { folder, broker_port, coap_port, edge_admin, fog_admin };
        site.write("pseudonym.key", &KEY);
        site.certificates();
        site.write("pipeline.toml", wanted.pipeline.as_bytes());
        let mut profiles = Vec::new();
        for (number, text) in wanted.profiles.iter().enumerate() {
            profiles.push(format!("profile-{number}.toml"));
            site.write(&profiles[number], text.as_bytes());
        }
        // The user is heeded only when root starts it; it must reach this folder.
        let mosquitto = format!(
            "listener {broker_port} 127.0.0.1\nuser root\nallow_anonymous true\npersistence true\n\
             persistence_location {}/\nmax_inflight_messages 1024\nmax_queued_messages 0\n\
             message_size_limit 524288\n",
            site.folder.path().display()
        );
        site.write("mosquitto.conf", mosquitto.as_bytes());
        let telemetry = match wanted.otlp {
            Some(port) => format!("[telemetry]\notlp_endpoint = \"http://127.0.0.1:{port}\"\n"),
            None => String::new(),
        };
        let edge = format!(
            "edge_id = \"edge-1\"\ndata_dir = \"edge\"\npseudonym_key_file = \"pseudonym.key\"\n\
             built_in_profiles = false\nprofile_files = {profiles:?}\ndrain_timeout_ms = 30000\n\
             [mqtt]\nhost = \"127.0.0.1\"\nport = {broker_port}\n\
             [coap]\nlisten = \"127.0.0.1:{coap_port}\"\n\
             [uplink]\nendpoint = \"https://localhost:{link_port}\"\nca_file = \"ca.pem\"\n\
             cert_file = \"edge-1.pem\"\nkey_file = \"edge-1.key\"\n\
             backoff_min_ms = 50\nbackoff_max_ms = 500\n\
             [admin]\nlisten = \"127.0.0.1:{edge_admin}\"\n{telemetry}"
        );
        site.write("edge.toml", edge.as_bytes());
        let fog = format!(
            "data_dir = \"fog\"\n\
             [link]\nlisten = \"127.0.0.1:{link_port}\"\nca_file = \"ca.pem\"\n\
             cert_file = \"localhost.pem\"\nkey_file = \"localhost.key\"\n\
             [dataflow]\npipelines = [\"pipeline.toml\"]\n\
             [admin]\nlisten = \"127.0.0.1:{fog_admin}\"\n{telemetry}"
        );
        site.write("fog.toml", fog.as_bytes());
        site
    }

    /// A file of the site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts `new` in the place of `old` in a file.
    pub fn edit(&self, name: &str, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old), "{name} has no {old}");
        self.write(name, text.replace(old, new).as_bytes());
    }

    /// The fog's database.
    pub fn database(&self) -> PathBuf {
        self.path("fog").join("fog.redb")
    }

    /// The log's verifier key, from the signing key that its operator keeps: not from the log.
    pub fn vkey(&self) -> VerifierKey {
        Identity::load(&self.path("fog").join("log.key")).unwrap().vkey().clone()
    }

    /// Whose pseudonym a patient has.
    pub fn subject(&self, patient: &str) -> Subject {
        PseudonymKey::new(KEY.to_vec()).unwrap().subject(patient)
    }

    /// Starts mosquitto.
    pub fn broker(&self) -> Process {
        let config = self.path("mosquitto.conf");
        let args = ["-c", config.to_str().unwrap()];
        let mut broker = Process::start(&programs::mosquitto(), &args, &self.path("mosquitto.log"));
        broker.wait_until("listening", || {
            TcpStream::connect(("127.0.0.1", self.broker_port)).is_ok()
        });
        broker
    }

    /// Starts `haar-edge`; [`Site::wait_ready`] waits for it.
    pub fn edge(&self) -> Process {
        self.node("haar-edge", "edge")
    }

    /// Starts `haar-fog`; [`Site::wait_ready`] waits for it.
    pub fn fog(&self) -> Process {
        self.node("haar-fog", "fog")
    }

    /// Waits until a node's `/health/ready` says so.
    pub fn wait_ready(&self, node: &mut Process, admin_port: u16) {
        node.wait_until("ready", || {
            http_get(admin_port, "/health/ready").is_some_and(|(status, _)| status == 200)
        });
    }

    /// What a node has printed so far.
    pub fn log_of(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap()
    }

    fn node(&self, program: &str, name: &str) -> Process {
        let config = self.path(&format!("{name}.toml"));
        let args = ["--config", config.to_str().unwrap()];
        Process::start(&programs::own(program), &args, &self.path(&format!("{name}.log")))
    }

    /// A certificate authority for this site alone, and a certificate for either side.
    fn certificates(&self) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        self.write("ca.pem", authority.pem().as_bytes());
        for name in ["localhost", "edge-1"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            self.write(&format!("{name}.pem"), certificate.pem().as_bytes());
            self.write(&format!("{name}.key"), key.serialize_pem().as_bytes());
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(Path::new(name)), bytes).unwrap();
    }
}

/// A port that is free for TCP and UDP, and that no other test of this process was given.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Two runs at the same time begin at different places.
    let begin = std::process::id() as u16 % 1_000 * 12;
    for _ in PORTS {
        let offset = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + offset % (PORTS.end - PORTS.start);
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if free {
            return port;
        }
    }
    panic!("no port from {PORTS:?} is free");
}
