//! The configuration of one edge: one TOML file, every key with its default where there is a sensible one.
//!
//! `haar-edge.example.toml` beside this crate holds every key; a test compares it with the defaults. Unknown keys
//! are errors. Relative paths are relative to the configuration file. Secrets are never in the file itself: it
//! names the files that hold them.

use haar_link::{MAX_BATCH_BYTES, MAX_BATCH_ENTRIES};
use haar_schema::EdgeId;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The largest configuration file.
pub const MAX_CONFIG_BYTES: u64 = 1024 * 1024;
/// How alike a key must be to be suggested for an unknown one (Jaro–Winkler, 0 to 1).
const SUGGEST_FROM: f64 = 0.7;

/// The configuration of one edge.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The edge's id; the first `dNSName` of its certificate is the same.
    pub edge_id: EdgeId,
    /// The folder of the spool; made if it is not there.
    pub data_dir: PathBuf,
    /// File with the key of the pseudonyms: at least 32 bytes, as they are.
    pub pseudonym_key_file: PathBuf,
    /// Whether the built-in device profiles are used.
    #[serde(default = "yes")]
    pub built_in_profiles: bool,
    /// More device profiles.
    #[serde(default)]
    pub profile_files: Vec<PathBuf>,
    /// How long a stopping edge waits for the fog to commit what is in the spool; what is left is sent after
    /// the next start.
    #[serde(default = "default_drain_timeout_ms")]
    pub drain_timeout_ms: u64,
    /// How readings are taken in.
    #[serde(default)]
    pub intake: Intake,
    /// How they are kept.
    #[serde(default)]
    pub spool: Spool,
    /// The broker to take readings from; none without this table.
    #[serde(default)]
    pub mqtt: Option<Mqtt>,
    /// The CoAP server; none without this table.
    #[serde(default)]
    pub coap: Option<Coap>,
    /// The fog to send to.
    pub uplink: Uplink,
    /// Metrics and health.
    #[serde(default)]
    pub admin: Admin,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: Telemetry,
}

/// How readings are taken in.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Intake {
    /// Frames that may wait for the spool. When it is full, CoAP answers 5.03 and MQTT is read no further.
    pub queue_frames: usize,
    /// The most frames in one commit.
    pub group_frames: usize,
    /// How long the first frame of a commit waits for more.
    pub group_wait_ms: u64,
}

/// How readings are kept.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Spool {
    /// The most bytes of entries.
    pub capacity_bytes: u64,
    /// What happens then.
    pub on_full: OnFull,
    /// How many frames are remembered, so that one that is delivered again is not counted twice.
    pub dedupe_frames: u64,
    /// The most bytes of frames that could not be decoded, of which the oldest go first.
    pub quarantine_bytes: u64,
    /// Memory for pages of the file.
    pub cache_bytes: usize,
}

/// What happens when the spool is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnFull {
    /// Nothing more is acknowledged; devices and brokers keep their readings.
    Refuse,
    /// The oldest waveforms make room; vitals are refused only when there are none.
    ShedWaveforms,
}

/// An MQTT broker to take readings from.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Mqtt {
    /// Its host.
    pub host: String,
    /// Its port; 1883, or 8883 with TLS.
    #[serde(default)]
    pub port: Option<u16>,
    /// The protocol to speak.
    #[serde(default)]
    pub protocol: MqttProtocol,
    /// The client id, under which the broker keeps the session; `haar-` and the edge's id.
    #[serde(default)]
    pub client_id: Option<String>,
    /// User name.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password; a newline at its end does not count.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// CA of the broker in PEM; turns on TLS.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Client certificate in PEM.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// Its key in PEM.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// What to subscribe to; what the device profiles match, if empty.
    #[serde(default)]
    pub topic_filters: Vec<String>,
    /// How many messages may be unacknowledged (MQTT 5 `Receive Maximum`; a 3.1.1 broker has its own setting).
    #[serde(default = "default_inflight")]
    pub inflight: u16,
    /// Keep-alive interval.
    #[serde(default = "default_keep_alive_s")]
    pub keep_alive_s: u16,
    /// How long a broker keeps the session of an edge that is away (MQTT 5; a 3.1.1 broker has its own setting).
    #[serde(default = "default_session_expiry_s")]
    pub session_expiry_s: u32,
    /// The longest packet. A 3.1.1 broker must be told not to accept longer ones: one would be delivered over
    /// and over again.
    #[serde(default = "default_max_packet_bytes")]
    pub max_packet_bytes: u32,
}

/// Versions of MQTT.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[non_exhaustive]
pub enum MqttProtocol {
    /// MQTT 3.1.1.
    #[default]
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[serde(rename = "5")]
    V5,
}

/// The CoAP server.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Coap {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The longest payload; a longer one is answered 4.13.
    pub max_payload_bytes: usize,
    /// How many requests may wait for the spool; more are answered 5.03.
    pub max_in_flight: usize,
}

/// The fog to send to.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Uplink {
    /// `https://host:port`.
    pub endpoint: String,
    /// CA of the fog in PEM.
    pub ca_file: PathBuf,
    /// The edge's certificate in PEM.
    pub cert_file: PathBuf,
    /// Its key in PEM.
    pub key_file: PathBuf,
    /// The name in the fog's certificate, if it is not the endpoint's host.
    #[serde(default)]
    pub server_name: Option<String>,
    /// File with the edge's signing key (`haar-ledger key <site>/<edge id> --out edge.sign`): every batch is signed by it.
    #[serde(default)]
    pub signing_key_file: Option<PathBuf>,
    /// The most entries in a batch.
    #[serde(default = "default_batch_entries")]
    pub batch_entries: usize,
    /// The most bytes in a batch.
    #[serde(default = "default_batch_bytes")]
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more.
    #[serde(default = "default_linger_ms")]
    pub linger_ms: u64,
    /// The first wait after a connection failed; doubled each time, with jitter.
    #[serde(default = "default_backoff_min_ms")]
    pub backoff_min_ms: u64,
    /// The longest wait.
    #[serde(default = "default_backoff_max_ms")]
    pub backoff_max_ms: u64,
}

/// Metrics and health.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Admin {
    /// Where `/metrics` and `/health` are; plain HTTP, so loopback or a management network.
    pub listen: SocketAddr,
}

/// Logs and traces. Used by the binary; whoever starts an edge as a library has its own.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Telemetry {
    /// Which log lines: a level, or directives such as `info,haar_link=debug`.
    pub log: String,
    /// Log lines as JSON objects.
    pub json: bool,
    /// Where traces go by OTLP over HTTP, such as `http://127.0.0.1:4318`; nowhere without it.
    pub otlp_endpoint: Option<String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// Over [`MAX_CONFIG_BYTES`].
    #[error(
        "the configuration {path} has more than {MAX_CONFIG_BYTES} bytes; is it the right file?"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{path}: {message}{}", suggestion.as_ref().map_or(String::new(), |key| format!("did you mean `{key}`?\n")))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line, column and the line itself.
        message: String,
        /// The known key that is most like the unknown one.
        suggestion: Option<String>,
    },
    /// A value out of its bounds.
    #[error("{key} = {value} is out of bounds: {bounds}")]
    Bounds {
        /// The key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// What is allowed.
        bounds: String,
    },
    /// Keys that do not go together.
    #[error("{0}")]
    Conflict(&'static str),
}

impl Config {
    /// A configuration with defaults, without sources: add [`Config::mqtt`] or [`Config::coap`].
    pub fn new(
        edge_id: EdgeId,
        data_dir: impl Into<PathBuf>,
        pseudonym_key_file: impl Into<PathBuf>,
        uplink: Uplink,
    ) -> Self {
        Self {
            edge_id,
            data_dir: data_dir.into(),
            pseudonym_key_file: pseudonym_key_file.into(),
            built_in_profiles: true,
            profile_files: Vec::new(),
            drain_timeout_ms: default_drain_timeout_ms(),
            intake: Intake::default(),
            spool: Spool::default(),
            mqtt: None,
            coap: None,
            uplink,
            admin: Admin::default(),
            telemetry: Telemetry::default(),
        }
    }

    /// Reads a file; relative paths in it become relative to its folder.
    ///
    /// # Errors
    /// If it cannot be read or used; says where and why.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |error| ConfigError::Read { path: path.to_owned(), error };
        if std::fs::metadata(path).map_err(read)?.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLong { path: path.to_owned() });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(path, &text)
    }

    /// Reads the text of the file `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            suggestion: suggestion(error.message()),
            message: error.to_string(),
        })?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        config.check()?;
        Ok(config)
    }

    /// Checks what types cannot say. [`crate::start`] does it too.
    ///
    /// # Errors
    /// If a value is out of bounds or keys do not go together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Uplink { batch_entries, batch_bytes, backoff_min_ms, backoff_max_ms, .. } = self.uplink;
        within("intake.queue_frames", self.intake.queue_frames, 1, 1 << 20)?;
        within("intake.group_frames", self.intake.group_frames, 1, 8_192)?;
        within("intake.group_wait_ms", self.intake.group_wait_ms as usize, 0, 1_000)?;
        within("uplink.batch_entries", batch_entries, 1, MAX_BATCH_ENTRIES)?;
        // A batch must be able to hold the longest entry.
        within("uplink.batch_bytes", batch_bytes, haar_schema::MAX_ENTRY_BYTES, MAX_BATCH_BYTES)?;
        within("uplink.linger_ms", self.uplink.linger_ms as usize, 0, 1_000)?;
        within("uplink.backoff_min_ms", backoff_min_ms as usize, 1, backoff_max_ms as usize)?;
        if let Some(mqtt) = &self.mqtt {
            within("mqtt.inflight", mqtt.inflight.into(), 1, u16::MAX.into())?;
            within("mqtt.keep_alive_s", mqtt.keep_alive_s.into(), 5, u16::MAX.into())?;
            if mqtt.cert_file.is_some() != mqtt.key_file.is_some() {
                return Err(ConfigError::Conflict("mqtt.cert_file and mqtt.key_file go together"));
            }
            if mqtt.cert_file.is_some() && mqtt.ca_file.is_none() {
                return Err(ConfigError::Conflict("mqtt.cert_file needs TLS: set mqtt.ca_file"));
            }
            if mqtt.password_file.is_some() && mqtt.username.is_none() {
                return Err(ConfigError::Conflict("mqtt.password_file needs mqtt.username"));
            }
        }
        if let Some(coap) = &self.coap {
            within("coap.max_payload_bytes", coap.max_payload_bytes, 64, 60_000)?;
            within("coap.max_in_flight", coap.max_in_flight, 1, 65_536)?;
        }
        Ok(())
    }

    fn resolve(&mut self, folder: &Path) {
        let Uplink { ca_file, cert_file, key_file, signing_key_file, .. } = &mut self.uplink;
        let mut paths =
            vec![&mut self.data_dir, &mut self.pseudonym_key_file, ca_file, cert_file, key_file];
        paths.extend(&mut self.profile_files);
        paths.extend(signing_key_file);
        if let Some(Mqtt { password_file, ca_file, cert_file, key_file, .. }) = &mut self.mqtt {
            paths.extend([password_file, ca_file, cert_file, key_file].into_iter().flatten());
        }
        for path in paths {
            *path = folder.join(&*path);
        }
    }
}

impl Mqtt {
    /// A broker without TLS and credentials.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port: Some(port),
            protocol: MqttProtocol::default(),
            client_id: None,
            username: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            topic_filters: Vec::new(),
            inflight: default_inflight(),
            keep_alive_s: default_keep_alive_s(),
            session_expiry_s: default_session_expiry_s(),
            max_packet_bytes: default_max_packet_bytes(),
        }
    }
}

impl Coap {
    /// A server there.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, ..Self::default() }
    }
}

impl Admin {
    /// An endpoint there.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen }
    }
}

impl Uplink {
    /// A fog at `endpoint`.
    pub fn new(
        endpoint: impl Into<String>,
        ca_file: impl Into<PathBuf>,
        cert_file: impl Into<PathBuf>,
        key_file: impl Into<PathBuf>,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            ca_file: ca_file.into(),
            cert_file: cert_file.into(),
            key_file: key_file.into(),
            server_name: None,
            signing_key_file: None,
            batch_entries: default_batch_entries(),
            batch_bytes: default_batch_bytes(),
            linger_ms: default_linger_ms(),
            backoff_min_ms: default_backoff_min_ms(),
            backoff_max_ms: default_backoff_max_ms(),
        }
    }
}

impl Default for Intake {
    fn default() -> Self {
        Self { queue_frames: 4_096, group_frames: 1_024, group_wait_ms: 5 }
    }
}

impl Default for Spool {
    fn default() -> Self {
        let haar_spool::Settings {
            capacity_bytes,
            dedupe_frames,
            quarantine_bytes,
            cache_bytes,
            ..
        } = haar_spool::Settings::new([0; 16]);
        let on_full = OnFull::Refuse;
        Self { capacity_bytes, on_full, dedupe_frames, quarantine_bytes, cache_bytes }
    }
}

impl Default for Coap {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5683));
        Self { listen, max_payload_bytes: 1_024, max_in_flight: 256 }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)) }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: "info".to_owned(), json: false, otlp_endpoint: None }
    }
}

const fn yes() -> bool {
    true
}

const fn default_drain_timeout_ms() -> u64 {
    10_000
}

const fn default_inflight() -> u16 {
    1_024
}

const fn default_keep_alive_s() -> u16 {
    30
}

const fn default_session_expiry_s() -> u32 {
    7 * 24 * 3_600
}

const fn default_max_packet_bytes() -> u32 {
    512 * 1024
}

const fn default_batch_entries() -> usize {
    MAX_BATCH_ENTRIES
}

const fn default_batch_bytes() -> usize {
    1024 * 1024
}

const fn default_linger_ms() -> u64 {
    5
}

const fn default_backoff_min_ms() -> u64 {
    200
}

const fn default_backoff_max_ms() -> u64 {
    30_000
}

fn within(key: &'static str, value: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Bounds { key, value: value as u64, bounds: format!("{least} to {most}") })
}

/// The known key that is most like the unknown one in serde's message
/// ``unknown field `topic_filter`, expected one of `host`, `port``…
fn suggestion(message: &str) -> Option<String> {
    let mut names = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    names
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(likeness, _)| *likeness >= SUGGEST_FROM)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests;
