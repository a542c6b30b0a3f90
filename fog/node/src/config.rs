//! The node's one configuration file: TOML, every key with a default but the data directory and the
//! keys, unknown keys an error, secrets only by the names of files. `haar-fog.example.toml` documents it.

use haar_telemetry::read_config;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

mod notify;

pub use haar_telemetry::ConfigError;

pub use notify::{FhirTarget, MailTls, MqttTarget, NotifyTarget, SmtpTarget, WebhookTarget};

/// The configuration of a fog node.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the database and the log's key lie. Made if it is not there.
    pub data_dir: PathBuf,
    /// Where edges connect.
    pub link: LinkConfig,
    /// The pipelines and how they run.
    #[serde(default)]
    pub dataflow: DataflowConfig,
    /// From flags to alarms.
    #[serde(default)]
    pub alarms: AlarmsConfig,
    /// Who is told of alarms, and how; default nobody.
    #[serde(default)]
    pub notify: Vec<NotifyTarget>,
    /// Who may set parameters of single patients.
    #[serde(default)]
    pub parameters: ParametersConfig,
    /// Who may have patients erased.
    #[serde(default)]
    pub erasure: ErasureConfig,
    /// Which models run.
    #[serde(default)]
    pub models: ModelsConfig,
    /// The site log.
    #[serde(default)]
    pub log: LogConfig,
    /// The log of many parties that the site log is put before; default none.
    #[serde(default)]
    pub consortium: Option<ConsortiumConfig>,
    /// Who may read records from outside; needs `consortium`. Default: nobody.
    #[serde(default)]
    pub access: Option<AccessConfig>,
    /// Metrics, health and queries.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// Where edges connect.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// Address and port; default `0.0.0.0:7443`.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// PEM file of the authority that signs edges' certificates.
    pub ca_file: PathBuf,
    /// PEM file of this node's certificate chain.
    pub cert_file: PathBuf,
    /// PEM file of this node's private key.
    pub key_file: PathBuf,
    /// How many entries an edge may have under way that are not committed; default 65536.
    #[serde(default = "default_credit")]
    pub credit_entries: u32,
    /// Whether batches must be signed by a key of the consortium log; default `optional`.
    #[serde(default)]
    pub edge_keys: EdgeKeys,
}

/// Whose batches are taken, of edges with a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EdgeKeys {
    /// Unsigned ones too, and those of keys that the consortium log does not know; never those of a key that it has revoked.
    #[default]
    Optional,
    /// Those alone that are signed by a key that the consortium log has for this edge.
    Registered,
}

/// The pipelines and how they run.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataflowConfig {
    /// Dataflow workers, each a thread; default 2.
    pub workers: usize,
    /// Length of an epoch, the unit of commitment, in milliseconds; default 250.
    pub epoch_ms: u64,
    /// Files of pipeline definitions; empty (the default): the built-in ones.
    pub pipelines: Vec<PathBuf>,
}

/// From flags to alarms.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlarmsConfig {
    /// File with the policy: delays, latching, reminders, escalation, suppression; default none: the built-in policy.
    pub policy: Option<PathBuf>,
}

/// Who may set parameters of single patients.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParametersConfig {
    /// Verifier keys of the doctors; default none: nobody may.
    pub trusted_keys: Vec<String>,
    /// Whether the keys of clinicians may, too, that the consortium log has under this site's member; default no.
    pub registered_keys: bool,
}

/// Who may have patients erased while the fog runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErasureConfig {
    /// Verifier keys of those who may order it; default none: nobody may.
    pub trusted_keys: Vec<String>,
}

/// Which models run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsConfig {
    /// Folder of a model registry (`haar model`); default none: the built-in models.
    pub registry: Option<PathBuf>,
    /// Verifier keys of those who may decide which models run; needed with a registry.
    pub trusted_keys: Vec<String>,
    /// Whether keys may, too, that the consortium log has for the role `model` under this site's member; default no.
    pub registered_keys: bool,
}

/// The site log.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The log's origin: a schema-less URL that nobody else uses; default `haar.invalid/site`.
    pub origin: String,
    /// File of the signing key; default `log.key` in the data directory. Made if it is not there.
    pub key_file: Option<PathBuf>,
    /// File of the key under which records are sealed; default `records.key` in the data directory. Made if it
    /// is not there. An erasure replaces it, so the fog must be able to write in its folder.
    pub records_key_file: Option<PathBuf>,
}

/// The log of many parties that the site log is put before.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsortiumConfig {
    /// Nodes that take entries, tried in turn.
    pub urls: Vec<String>,
    /// File of the trust policy (C2SP tlog-policy): the log, its witnesses and the quorum.
    pub policy_file: PathBuf,
    /// Verifier keys of the logs that this one follows, the oldest first, where the members have gone on with another operator.
    #[serde(default)]
    pub predecessors: Vec<String>,
    /// PEM file of the only authorities that are trusted; default the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How often the site's checkpoint is put before the members, in milliseconds; default 1000.
    #[serde(default = "default_every_ms")]
    pub every_ms: u64,
    /// How often the consortium log is looked at, in milliseconds; default 1000.
    #[serde(default = "default_every_ms")]
    pub poll_ms: u64,
    /// How far a reading's consequences must have come before its edge may forget it; default `committed`.
    #[serde(default)]
    pub edges_keep_until: KeepUntil,
    /// File of the items that are watched over: TOML, `[[item]]` with `id`, `subject`, `flags`; default none.
    #[serde(default)]
    pub items_file: Option<PathBuf>,
    /// Members' servers that are asked for evidence of attempts; default those of `urls`.
    #[serde(default)]
    pub evidence_from: Vec<String>,
}

impl ConsortiumConfig {
    /// The log behind `url` under the policy in this file; all else as it is by default.
    pub fn new(url: String, policy_file: PathBuf) -> Self {
        Self {
            urls: vec![url],
            policy_file,
            predecessors: Vec::new(),
            ca_file: None,
            every_ms: default_every_ms(),
            poll_ms: default_every_ms(),
            edges_keep_until: KeepUntil::default(),
            items_file: None,
            evidence_from: Vec::new(),
        }
    }
}

/// Where patients, clinicians, insurers and researchers connect, and patients' statements are taken.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    /// Address and port; default `0.0.0.0:7643`. HTTPS only.
    #[serde(default = "default_access")]
    pub listen: SocketAddr,
    /// PEM file of the certificate chain.
    pub cert_file: PathBuf,
    /// PEM file of its private key.
    pub key_file: PathBuf,
    /// File of the claims that insurers settle; default none.
    #[serde(default)]
    pub claims_file: Option<PathBuf>,
}

/// How far something has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepUntil {
    /// On this site's disk.
    #[default]
    Committed,
    /// In a checkpoint that the consortium log has signed.
    Sequenced,
    /// In a checkpoint that a quorum has cosigned, by a proof that was checked here.
    Witnessed,
}

const fn default_every_ms() -> u64 {
    1_000
}

/// Metrics, health and queries.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address and port; default `127.0.0.1:9465`. The queries show records: keep it on a private address.
    pub listen: SocketAddr,
}

/// Logs and traces.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Level or filter of log lines; default `info`.
    pub log: String,
    /// Log lines as JSON; default false.
    pub json: bool,
    /// OTLP over HTTP for traces, such as `http://127.0.0.1:4318`; default none.
    pub otlp_endpoint: Option<String>,
}

impl Default for DataflowConfig {
    fn default() -> Self {
        Self { workers: 2, epoch_ms: 250, pipelines: Vec::new() }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { origin: "haar.invalid/site".to_owned(), key_file: None, records_key_file: None }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9465)) }
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info".to_owned(), json: false, otlp_endpoint: None }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7443))
}

fn default_access() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7643))
}

const fn default_credit() -> u32 {
    65_536
}

impl Config {
    /// Reads a file. Relative paths in it are relative to the file.
    ///
    /// # Errors
    /// If it cannot be read, is malformed, or a value makes no sense.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = read_config(path, "haar-fog.example.toml")?;
        let base = path.parent().unwrap_or(Path::new(""));
        for file in config.files() {
            *file = base.join(&*file);
        }
        config.checked()
    }

    /// This configuration, if its values make sense.
    ///
    /// # Errors
    /// Names the first key whose value does not.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let value =
            |key, problem: &str| Err(ConfigError::Value { key, problem: problem.to_owned() });
        if !(1..=haar_dataflow::runtime::MAX_WORKERS).contains(&self.dataflow.workers) {
            return value("dataflow.workers", "must be between 1 and 256");
        }
        if !(10..=60_000).contains(&self.dataflow.epoch_ms) {
            return value("dataflow.epoch_ms", "must be between 10 and 60000");
        }
        if !(1..=haar_link::MAX_CREDIT).contains(&self.link.credit_entries) {
            return value("link.credit_entries", "must be between 1 and 1048576");
        }
        notify::check(&self.notify)?;
        let models = &self.models;
        let anybody_may = models.registered_keys || !models.trusted_keys.is_empty();
        if models.registry.is_some() && !anybody_may {
            return value(
                "models.trusted_keys",
                "must name who decides about models; `haar model key` makes one",
            );
        }
        if let Some(consortium) = &self.consortium {
            if consortium.urls.is_empty() {
                return value("consortium.urls", "is empty: name the log's nodes");
            }
            if !(50..=3_600_000).contains(&consortium.every_ms) {
                return value("consortium.every_ms", "must be between 50 and 3600000");
            }
            if !(50..=10_000).contains(&consortium.poll_ms) {
                return value("consortium.poll_ms", "must be between 50 and 10000");
            }
        } else if self.link.edge_keys == EdgeKeys::Registered {
            return value(
                "link.edge_keys",
                "registered needs [consortium]: the keys are in its log",
            );
        }
        if self.access.is_some() && self.consortium.is_none() {
            return value("access", "needs [consortium]: keys and policies are in its log");
        }
        for (key, registered) in [
            ("models.registered_keys", self.models.registered_keys),
            ("parameters.registered_keys", self.parameters.registered_keys),
        ] {
            if registered && self.consortium.is_none() {
                return value(key, "needs [consortium]: the keys are in its log");
            }
        }
        Ok(self)
    }

    fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let link = &mut self.link;
        [&mut self.data_dir, &mut link.ca_file, &mut link.cert_file, &mut link.key_file]
            .into_iter()
            .chain(&mut self.log.key_file)
            .chain(&mut self.log.records_key_file)
            .chain(&mut self.dataflow.pipelines)
            .chain(&mut self.models.registry)
            .chain(&mut self.alarms.policy)
            .chain(self.consortium.iter_mut().flat_map(|consortium| {
                [
                    Some(&mut consortium.policy_file),
                    consortium.ca_file.as_mut(),
                    consortium.items_file.as_mut(),
                ]
                .into_iter()
                .flatten()
            }))
            .chain(self.access.iter_mut().flat_map(|access| {
                [&mut access.cert_file, &mut access.key_file]
                    .into_iter()
                    .chain(&mut access.claims_file)
            }))
            .chain(self.notify.iter_mut().flat_map(NotifyTarget::files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../haar-fog.example.toml");

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fog.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    /// The example names every key with its default, so that it can be trusted as the documentation.
    #[test]
    fn the_example_shows_every_key_with_its_default() {
        let shown: toml::Table = EXAMPLE.parse().unwrap();
        let mut required = shown.clone();
        required.retain(|key, _| key == "data_dir" || key == "link");
        required["link"].as_table_mut().unwrap().retain(|key, _| key.ends_with("_file"));
        let all = load(EXAMPLE).unwrap();
        let defaults = load(&toml::to_string(&required).unwrap()).unwrap();
        // They were read from two folders; what is left are the values.
        assert_eq!(
            Config { data_dir: PathBuf::new(), link: defaults.link.clone(), ..all.clone() },
            Config { data_dir: PathBuf::new(), ..defaults.clone() }
        );
        assert_eq!(all.link.listen, defaults.link.listen);
        assert_eq!(all.link.credit_entries, defaults.link.credit_entries);
        assert_eq!(all.link.edge_keys, defaults.link.edge_keys);
        for key in [
            "workers",
            "epoch_ms",
            "pipelines",
            "policy",
            "registry",
            "trusted_keys",
            "registered_keys",
            "origin",
            "key_file",
            "log",
            "json",
            "otlp_endpoint",
        ] {
            assert!(EXAMPLE.contains(key), "{key}");
        }
    }

    /// The commented targets of the example are right too.
    #[test]
    fn the_example_targets_are_read() {
        let (_, commented) = EXAMPLE.split_once("# [[notify]]\n").unwrap();
        let (commented, _) = commented.split_once("\n\n").unwrap();
        let targets: String = format!("# [[notify]]\n{commented}")
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|line| !line.starts_with("# ")))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = load(&format!("{EXAMPLE}\n{targets}")).unwrap();
        assert_eq!(config.notify.len(), 4, "{targets}");
        let twice = targets.replace("doctor-mail", "ward-pager");
        let error = load(&format!("{EXAMPLE}\n{twice}")).unwrap_err().to_string();
        assert!(error.contains("two targets ward-pager"), "{error}");
        let both =
            targets.replace("[notify.smtp]", "[notify.fhir]\nurl = \"http://x\"\n[notify.smtp]");
        assert!(
            load(&format!("{EXAMPLE}\n{both}")).unwrap_err().to_string().contains("exactly one")
        );
    }

    /// So is the commented consortium.
    #[test]
    fn the_example_consortium_is_read() {
        let (_, commented) = EXAMPLE.split_once("# [consortium]\n").unwrap();
        let (commented, _) = commented.split_once("\n\n").unwrap();
        let keys: String = format!("# [consortium]\n{commented}")
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|line| !line.starts_with("# ")))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = load(&format!("{EXAMPLE}\n{keys}")).unwrap().checked().unwrap();
        let consortium = config.consortium.unwrap();
        assert_eq!(consortium.edges_keep_until, KeepUntil::Witnessed);
        assert_eq!((consortium.every_ms, consortium.poll_ms), (1_000, 1_000));
    }

    /// And the commented read API.
    #[test]
    fn the_example_access_is_read() {
        let (_, commented) = EXAMPLE.split_once("# [access]\n").unwrap();
        let (commented, _) = commented.split_once("\n\n").unwrap();
        let keys: String = format!("# [access]\n{commented}")
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|line| !line.starts_with("# ")))
            .map(|line| format!("{line}\n"))
            .collect();
        let alone = load(&format!("{EXAMPLE}\n{keys}")).unwrap_err().to_string();
        assert!(alone.contains("needs [consortium]"), "{alone}");
        let log = "[consortium]\nurls = ['https://a']\npolicy_file = 'p'\n";
        let access = load(&format!("{EXAMPLE}\n{keys}{log}")).unwrap().access.unwrap();
        assert_eq!(access.listen, default_access());
        assert!(access.claims_file.is_some());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let error = load(
            "data_dir = \"x\"\nworker = 3\n[link]\nca_file=\"a\"\ncert_file=\"a\"\nkey_file=\"a\"\n",
        );
        let text = error.unwrap_err().to_string();
        assert!(text.contains("worker") && text.contains("line 2"), "{text}");
    }

    #[test]
    fn values_without_sense_are_refused() {
        let text = EXAMPLE.replace("workers = 2", "workers = 0");
        assert!(matches!(load(&text), Err(ConfigError::Value { key: "dataflow.workers", .. })));
    }
}
