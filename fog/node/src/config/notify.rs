//! `[[notify]]`: who is told of alarms, and how.

use super::ConfigError;
use crate::notify::MAX_TARGETS;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The longest name of a target, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// One way to tell some contacts of alarms: exactly one of `webhook`, `smtp`, `mqtt`, `fhir`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyTarget {
    /// Its name in metrics, logs and dead letters: lower case, digits, hyphens.
    pub name: String,
    /// The contacts of the alarm policy that it tells.
    pub contacts: Vec<String>,
    /// After so many seconds a notification that was not taken is given up; default 3600.
    #[serde(default = "default_give_up")]
    pub give_up_after_s: u32,
    /// By HTTP.
    pub webhook: Option<WebhookTarget>,
    /// By mail.
    pub smtp: Option<SmtpTarget>,
    /// By MQTT.
    pub mqtt: Option<MqttTarget>,
    /// As FHIR Communication.
    pub fhir: Option<FhirTarget>,
}

/// By HTTP: a POST of JSON.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookTarget {
    /// Where to.
    pub url: String,
    /// File of the secret that messages are signed with (Standard Webhooks); default none: unsigned.
    pub secret_file: Option<PathBuf>,
    /// File of a bearer token.
    pub token_file: Option<PathBuf>,
    /// PEM file of the only authorities that are trusted; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether the patient's pseudonym is told; default false.
    #[serde(default)]
    pub show_subject: bool,
}

/// By mail.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpTarget {
    /// The mail server.
    pub host: String,
    /// Its port; default 587, 465 or 25 by `tls`.
    pub port: Option<u16>,
    /// `starttls` (default), `implicit` or `none`.
    #[serde(default)]
    pub tls: MailTls,
    /// PEM file of a further trusted authority.
    pub ca_file: Option<PathBuf>,
    /// Login.
    pub username: Option<String>,
    /// File of the password.
    pub password_file: Option<PathBuf>,
    /// The sender's address.
    pub from: String,
    /// The receivers' addresses.
    pub to: Vec<String>,
    /// Whether the patient's pseudonym is told; default false.
    #[serde(default)]
    pub show_subject: bool,
}

/// How mail is protected on its way to the first server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// Not; for a server on this machine.
    None,
    /// The connection becomes TLS, or nothing is sent.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Implicit,
}

/// By MQTT.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttTarget {
    /// The broker.
    pub host: String,
    /// Its port; default 1883, with `ca_file` 8883.
    pub port: Option<u16>,
    /// The topic; `{priority}`, `{flag}` and `{site}` are filled in. Default `haar/alarms/{priority}/{flag}`.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// Client id; default `haar-fog-notify`.
    #[serde(default = "default_client_id")]
    pub client_id: String,
    /// PEM file of the trusted authority; with it TLS is spoken.
    pub ca_file: Option<PathBuf>,
    /// Login.
    pub username: Option<String>,
    /// File of the password.
    pub password_file: Option<PathBuf>,
    /// Whether the patient's pseudonym is told; default false.
    #[serde(default)]
    pub show_subject: bool,
}

/// As FHIR Communication.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FhirTarget {
    /// Base URL of the FHIR R4 server.
    pub url: String,
    /// File of a bearer token.
    pub token_file: Option<PathBuf>,
    /// PEM file of the only authorities that are trusted; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// System of the pseudonym as identifier; default `urn:haar:subject`.
    #[serde(default = "default_subject_system")]
    pub subject_system: String,
    /// Whether the patient's pseudonym is told; default false.
    #[serde(default)]
    pub show_subject: bool,
}

const fn default_give_up() -> u32 {
    3_600
}

fn default_topic() -> String {
    "haar/alarms/{priority}/{flag}".to_owned()
}

fn default_client_id() -> String {
    "haar-fog-notify".to_owned()
}

fn default_subject_system() -> String {
    "urn:haar:subject".to_owned()
}

impl NotifyTarget {
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let webhook = self.webhook.iter_mut().flat_map(|own| {
            [&mut own.secret_file, &mut own.token_file, &mut own.ca_file].into_iter().flatten()
        });
        let smtp = self
            .smtp
            .iter_mut()
            .flat_map(|own| [&mut own.ca_file, &mut own.password_file].into_iter().flatten());
        let mqtt = self
            .mqtt
            .iter_mut()
            .flat_map(|own| [&mut own.ca_file, &mut own.password_file].into_iter().flatten());
        let fhir = self
            .fhir
            .iter_mut()
            .flat_map(|own| [&mut own.ca_file, &mut own.token_file].into_iter().flatten());
        webhook.chain(smtp).chain(mqtt).chain(fhir)
    }

    fn channels(&self) -> usize {
        usize::from(self.webhook.is_some())
            + usize::from(self.smtp.is_some())
            + usize::from(self.mqtt.is_some())
            + usize::from(self.fhir.is_some())
    }
}

/// Whether the targets make sense by themselves.
pub(super) fn check(targets: &[NotifyTarget]) -> Result<(), ConfigError> {
    let wrong = |problem: String| Err(ConfigError::Value { key: "notify", problem });
    if targets.len() > MAX_TARGETS {
        return wrong(format!("has {} targets; there are at most {MAX_TARGETS}", targets.len()));
    }
    let mut names = BTreeSet::new();
    for target in targets {
        let name = &target.name;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
            return wrong(format!("name {name:?} must be lower-case letters, digits and hyphens"));
        }
        if !names.insert(name) {
            return wrong(format!("has two targets {name}; each needs a name of its own"));
        }
        if target.contacts.is_empty() {
            return wrong(format!("target {name} has no contacts; name those of the alarm policy"));
        }
        if target.channels() != 1 {
            return wrong(format!(
                "target {name} must have exactly one of webhook, smtp, mqtt, fhir"
            ));
        }
        if !(1..=604_800).contains(&target.give_up_after_s) {
            return wrong(format!("target {name}: give_up_after_s must be between 1 and 604800"));
        }
    }
    Ok(())
}
