//! The server's one configuration file: TOML, unknown keys an error, secrets only by the names of files.
//! `haar-ledger.example.toml` documents it, and a test reads it.

use crate::consortium::MAX_PREDECESSORS;
pub use haar_telemetry::ConfigError;
use haar_telemetry::read_config;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What a server does; roles combine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes entries, puts them in order, signs and publishes.
    Operator,
    /// Remembers the checkpoint that it saw last and cosigns what follows from it.
    Witness,
    /// Keeps all tiles, and as a witness cosigns only what it has stored.
    Mirror,
    /// Reads every entry, follows the log's rules, compares views, and tells everybody of what is wrong.
    Monitor,
}

/// The configuration of a ledger server.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where databases and tiles lie. Made if it is not there.
    pub data_dir: PathBuf,
    /// What the server does; `--role` on the command line takes its place.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Verifier key of the consortium log.
    pub log: String,
    /// Where members, sites and other logs connect.
    #[serde(default)]
    pub http: HttpConfig,
    /// The key by which this member speaks: what it signs evidence with.
    #[serde(default)]
    pub member: Option<MemberConfig>,
    /// For the role operator.
    #[serde(default)]
    pub operator: Option<OperatorConfig>,
    /// For the role witness.
    #[serde(default)]
    pub witness: Option<WitnessConfig>,
    /// For the roles mirror and monitor: the log that is followed.
    #[serde(default)]
    pub follow: Option<FollowConfig>,
    /// The logs that this one follows, the oldest first: this member's copies of them.
    #[serde(default)]
    pub predecessor: Vec<PredecessorConfig>,
    /// Metrics and health.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Log lines.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// Where others connect.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address and port; default `0.0.0.0:7543`.
    pub listen: SocketAddr,
    /// PEM file of the certificate chain. Without it the server speaks plain HTTP, and only on a loopback address.
    pub cert_file: Option<PathBuf>,
    /// PEM file of its private key.
    pub key_file: Option<PathBuf>,
    /// PEM file of the only authorities that are trusted when this server asks another; default the system's.
    pub ca_file: Option<PathBuf>,
}

/// The key by which this member speaks.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// Its signing key (`haar-ledger key`).
    pub key_file: PathBuf,
}

/// How the log is operated.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorConfig {
    /// The log's signing key.
    pub key_file: PathBuf,
    /// The first entry of the log, read when the log is made.
    pub genesis_file: PathBuf,
    /// How long entries are gathered before they are sequenced, in milliseconds; default 50.
    #[serde(default = "default_batch_ms")]
    pub batch_ms: u64,
    /// The most entries in one batch; default 4096.
    #[serde(default = "default_batch_entries")]
    pub batch_entries: usize,
    /// How often witnesses are asked again when nothing new has come, in seconds; default 15.
    #[serde(default = "default_refresh_s")]
    pub refresh_s: u64,
    /// Several nodes under one key, ordered by etcd; without it one node, ordered by its own database.
    #[serde(default)]
    pub etcd: Option<EtcdConfig>,
}

/// The etcd cluster that orders several nodes.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdConfig {
    /// Client URLs, tried in turn.
    pub endpoints: Vec<String>,
    /// This node's name among the log's nodes.
    pub node: String,
}

/// How this member witnesses.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its cosigning key.
    pub key_file: PathBuf,
}

/// The log that is followed.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowConfig {
    /// The log's URL, to which `/checkpoint` is added.
    pub url: String,
    /// How often it is asked, in milliseconds; default 1000.
    #[serde(default = "default_poll_ms")]
    pub poll_ms: u64,
    /// After how many seconds without a fresh cosignature a checkpoint is stale; default 60.
    #[serde(default = "default_stale_s")]
    pub stale_s: u64,
}

/// A log that was before this one.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredecessorConfig {
    /// Its verifier key.
    pub log: String,
    /// The data directory of the server that operated, mirrored or monitored it. That server must be stopped.
    pub data_dir: PathBuf,
}

/// Metrics and health.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address and port; default `127.0.0.1:9466`.
    pub listen: SocketAddr,
}

/// Log lines.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Level or filter of log lines; default `info`.
    pub log: String,
    /// Log lines as JSON; default false.
    pub json: bool,
}

impl OperatorConfig {
    /// One node with these files; all else as it is by default.
    pub fn new(key_file: PathBuf, genesis_file: PathBuf) -> Self {
        Self {
            key_file,
            genesis_file,
            batch_ms: default_batch_ms(),
            batch_entries: default_batch_entries(),
            refresh_s: default_refresh_s(),
            etcd: None,
        }
    }
}

impl FollowConfig {
    /// The log at `url`; all else as it is by default.
    pub fn new(url: String) -> Self {
        Self { url, poll_ms: default_poll_ms(), stale_s: default_stale_s() }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7543));
        Self { listen, cert_file: None, key_file: None, ca_file: None }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9466)) }
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info".to_owned(), json: false }
    }
}

const fn default_batch_ms() -> u64 {
    50
}

const fn default_batch_entries() -> usize {
    4096
}

const fn default_refresh_s() -> u64 {
    15
}

const fn default_poll_ms() -> u64 {
    1000
}

const fn default_stale_s() -> u64 {
    60
}

impl Config {
    /// Reads a file. Relative paths in it are relative to it.
    ///
    /// # Errors
    /// If it cannot be read, is no configuration, or has values that make no sense.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = read_config(path, "haar-ledger.example.toml")?;
        config.settle(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Checks what one value says against another.
    ///
    /// # Errors
    /// Names the key, what is wrong and what to do.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let wrong =
            |key, problem: &str| Err(ConfigError::Value { key, problem: problem.to_owned() });
        let has = |role| self.roles.contains(&role);
        if self.roles.is_empty() {
            return wrong(
                "roles",
                "is empty: name at least one of operator, witness, mirror, monitor",
            );
        }
        match (&self.http.cert_file, &self.http.key_file) {
            (Some(_), Some(_)) => {}
            (None, None) if self.http.listen.ip().is_loopback() => {}
            (None, None) => {
                return wrong(
                    "http.listen",
                    "is no loopback address, so http.cert_file and http.key_file are needed",
                );
            }
            _ => return wrong("http.cert_file", "and http.key_file go together: set both"),
        }
        if has(Role::Operator) && self.operator.is_none() {
            return wrong(
                "operator",
                "is missing: the role operator needs key_file and genesis_file",
            );
        }
        if has(Role::Witness) && self.witness.is_none() {
            return wrong("witness", "is missing: the role witness needs its key_file");
        }
        if (has(Role::Mirror) || has(Role::Monitor)) && self.follow.is_none() {
            return wrong("follow", "is missing: the roles mirror and monitor need the log's url");
        }
        if let Some(operator) = &self.operator {
            if !(1..=10_000).contains(&operator.batch_ms) {
                return wrong("operator.batch_ms", "is from 1 to 10000");
            }
            if !(1..=super::operator::MAX_BATCH_ENTRIES).contains(&operator.batch_entries) {
                return wrong("operator.batch_entries", "is from 1 to 65536");
            }
            if !(1..=3_600).contains(&operator.refresh_s) {
                return wrong("operator.refresh_s", "is from 1 to 3600");
            }
            if operator.etcd.as_ref().is_some_and(|etcd| etcd.endpoints.is_empty()) {
                return wrong(
                    "operator.etcd.endpoints",
                    "is empty: name the cluster's client URLs",
                );
            }
        }
        if self.predecessor.len() > MAX_PREDECESSORS {
            return wrong("predecessor", "is there more than 64 times");
        }
        if self.predecessor.iter().any(|before| before.data_dir == self.data_dir) {
            return wrong(
                "predecessor.data_dir",
                "is this server's own: a log has its own data_dir",
            );
        }
        if self.follow.as_ref().is_some_and(|follow| !(50..=60_000).contains(&follow.poll_ms)) {
            return wrong("follow.poll_ms", "is from 50 to 60000");
        }
        Ok(self)
    }

    fn settle(&mut self, base: &Path) {
        let mut paths = vec![&mut self.data_dir];
        let http = &mut self.http;
        paths.extend(
            [&mut http.cert_file, &mut http.key_file, &mut http.ca_file].into_iter().flatten(),
        );
        paths.extend(self.member.as_mut().map(|member| &mut member.key_file));
        paths.extend(self.witness.as_mut().map(|witness| &mut witness.key_file));
        paths.extend(self.predecessor.iter_mut().map(|before| &mut before.data_dir));
        if let Some(operator) = &mut self.operator {
            paths.extend([&mut operator.key_file, &mut operator.genesis_file]);
        }
        for path in paths {
            *path = base.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_shows_every_key_and_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("haar-ledger.example.toml");
        let config = Config::load(&path).unwrap().checked().unwrap();
        assert_eq!(config.roles, [Role::Operator, Role::Witness]);
        assert!(config.http.cert_file.unwrap().is_absolute());
        // What is commented out is read too, so that the example cannot go stale.
        let text = std::fs::read_to_string(&path).unwrap();
        let all: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(key) if key.contains(" = ") || key.starts_with('[') => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let all = parse(&all).unwrap();
        assert!(
            all.follow.is_some()
                && !all.predecessor.is_empty()
                && all.operator.unwrap().etcd.is_some()
        );
    }

    #[test]
    fn roles_and_what_they_need_go_together() {
        let base = "data_dir = 'd'\nlog = 'x'\n[http]\nlisten = '127.0.0.1:0'\n";
        let with = |roles: &str| format!("roles = {roles}\n{base}");
        assert!(parse(base).unwrap_err().contains("roles is empty"));
        assert!(parse(&with("['witness']")).unwrap_err().contains("witness is missing"));
        assert!(parse(&with("['operator']")).unwrap_err().contains("operator is missing"));
        assert!(parse(&with("['monitor']")).unwrap_err().contains("follow is missing"));
        assert!(parse(&format!("{}[witness]\nkey_file = 'w'\n", with("['witness']"))).is_ok());
        let open = "roles = ['witness']\ndata_dir = 'd'\nlog = 'x'\n[witness]\nkey_file = 'w'\n";
        assert!(parse(open).unwrap_err().contains("cert_file"));
        assert!(parse(&format!("{open}rol = 1\n")).unwrap_err().contains("unknown field"));
    }
}
