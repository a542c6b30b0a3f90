//! Delivery of alarms: who is to be told of a step is told, and if that fails, somebody learns of it.
//!
//! ```text
//! commit thread ── one transaction: leaf of the step + a row in the outbox for each target ──▶ redb
//! courier of each target ◀── due rows, the most pressing first ── redb ── delivered: the row goes
//!                        └─▶ webhook | SMTP | MQTT | FHIR                  dead: the row moves to the dead letters
//! ```
//!
//! Of a break-glass ([`crate::access`]) the contact [`PATIENT`] is told the same way.
//!
//! A step of an alarm names contacts ([`haar_alarms::Transition::notify`]); a `[[notify]]` target of the configuration
//! tells some of them. What a target is told is the step as it stands in the log ([`message::Message`]), so the outbox
//! holds no content but the number of a leaf.
//!
//! # Guarantee
//! At least once: a row leaves the outbox only after the receiver has taken the message (HTTP 2xx, SMTP 250, MQTT
//! PUBACK) or for good reasons given to the dead letters. After a kill in between, the same message goes out again under
//! the same [`outbox::Key::id`], by which receivers tell repeats. High alarms overtake low ones; of one priority the
//! older goes first, except where a retry waits.
//!
//! # When it fails
//! A refusal that no retry will mend goes to the dead letters at once; what was not taken within
//! [`NotifyTarget::give_up_after_s`](crate::config::NotifyTarget) goes there then. A target that has dead
//! letters or has failed for [`courier::FAILING_AFTER`] raises the technical alarm `notification-failed` of the site, which is
//! told by the other targets, and clears when the target takes a message again. Notifications *about* that alarm raise nothing when they
//! die: they are counted.
//!
//! # Trust and limits
//! Receivers are told pseudonyms only if the target says so. Secrets are read from files at the start and never shown. Nothing a
//! receiver answers is believed beyond its status, and at most [`webhook::MAX_ANSWER_BYTES`] of it are read.
//! [`outbox::MAX_WAITING`] rows wait; beyond them the least pressing go to the dead letters, of which
//! [`outbox::MAX_DEAD`] are kept. Commitment never waits for delivery.

mod courier;
mod fhir;
mod mail;
pub(crate) mod message;
mod mqtt;
pub(crate) mod outbox;
mod webhook;

use crate::config::{ConfigError, NotifyTarget};
use courier::Courier;
use haar_alarms::Transition;
use haar_telemetry::Metrics;
use outbox::Outbox;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The most targets: each is a source of one alarm of the site.
pub const MAX_TARGETS: usize = haar_alarms::MAX_SOURCES;
/// The contact who is told that a patient's records were read under break-glass: whoever reaches patients, a portal say.
pub(crate) const PATIENT: &str = "patient";
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(15);
/// The longest secret, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Why delivery cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// A file with a secret or a certificate.
    #[error("notify target {target}: cannot read {path}: {error}", path = .path.display())]
    File {
        /// The target's name.
        target: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// An address, certificate or name that cannot be used.
    #[error("notify target {target}: {problem}")]
    Target {
        /// The target's name.
        target: String,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// The policy never tells a contact that a target is for.
    #[error(
        "notify target {target} is for the contact {contact}, whom the alarm policy never tells; it tells {known}"
    )]
    Contact {
        /// The target's name.
        target: String,
        /// The contact.
        contact: String,
        /// Whom it tells.
        known: String,
    },
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// How one attempt ended that did not deliver.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum SendError {
    /// The receiver does not want this message, and will not want it later.
    #[error("refused: {0}")]
    Refused(String),
    /// The receiver answered that it cannot now; it may say how long to wait.
    #[error("not now: {0}")]
    NotNow(String, Option<Duration>),
    /// Nobody answered, or the connection broke: it is not known whether the message arrived.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

/// A way to somebody.
enum Channel {
    Webhook(webhook::Webhook),
    Mail(Box<mail::Mail>),
    Mqtt(Box<mqtt::Mqtt>),
    Fhir(fhir::Fhir),
}

impl Channel {
    fn new(target: &NotifyTarget) -> Result<Self, NotifyError> {
        let wrong = |problem: String| NotifyError::Target { target: target.name.clone(), problem };
        // The TLS of all clients takes the process's provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let secrets = Secrets { target: &target.name };
        match (&target.webhook, &target.smtp, &target.mqtt, &target.fhir) {
            (Some(own), None, None, None) => {
                webhook::Webhook::new(own, &secrets).map(Self::Webhook)
            }
            (None, Some(own), None, None) => {
                mail::Mail::new(own, &secrets).map(|mail| Self::Mail(Box::new(mail)))
            }
            (None, None, Some(own), None) => {
                mqtt::Mqtt::new(own, &secrets).map(|mqtt| Self::Mqtt(Box::new(mqtt)))
            }
            (None, None, None, Some(own)) => fhir::Fhir::new(own, &secrets).map(Self::Fhir),
            _ => Err(wrong("must have exactly one of webhook, smtp, mqtt, fhir".to_owned())),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Mail(_) => "smtp",
            Self::Mqtt(_) => "mqtt",
            Self::Fhir(_) => "fhir",
        }
    }

    async fn send(&self, message: &message::Message) -> Result<(), SendError> {
        let attempt = async {
            match self {
                Self::Webhook(webhook) => webhook.send(message).await,
                Self::Mail(mail) => mail.send(message).await,
                Self::Mqtt(mqtt) => mqtt.send(message).await,
                Self::Fhir(fhir) => fhir.send(message).await,
            }
        };
        let late = || SendError::NoAnswer(format!("nothing within {} s", ATTEMPT.as_secs()));
        tokio::time::timeout(ATTEMPT, attempt).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Reads what a target keeps in files.
struct Secrets<'t> {
    target: &'t str,
}

impl Secrets<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, NotifyError> {
        let failed = |error| NotifyError::File {
            target: self.target.to_owned(),
            path: path.to_owned(),
            error,
        };
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        if bytes > MAX_SECRET_BYTES {
            return Err(
                self.wrong(format!("{} is no secret: it has {bytes} bytes", path.display()))
            );
        }
        std::fs::read(path).map_err(failed)
    }

    /// A secret in one line, without the line's end.
    fn line(&self, path: &Path) -> Result<String, NotifyError> {
        let text = String::from_utf8(self.read(path)?);
        let text = text.map_err(|_| self.wrong(format!("{} is not UTF-8", path.display())))?;
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        if text.is_empty() || text.contains(['\r', '\n']) {
            return Err(self.wrong(format!("{} must hold one line", path.display())));
        }
        Ok(text)
    }

    fn wrong(&self, problem: String) -> NotifyError {
        NotifyError::Target { target: self.target.to_owned(), problem }
    }
}

/// Which targets tell whom. In the hands of the commit thread.
#[derive(Clone, Default)]
pub(crate) struct Roster {
    targets: Vec<(String, BTreeSet<String>)>,
    /// Wakes the couriers.
    pub(crate) news: Arc<Notify>,
}

impl Roster {
    /// Checks that the targets and the policy know the same contacts. A contact whom no target tells is no error, but said.
    pub(crate) fn new(
        targets: &[NotifyTarget],
        contacts: &BTreeSet<&str>,
    ) -> Result<Self, NotifyError> {
        for target in targets {
            let is_known = |name: &str| name == PATIENT || contacts.contains(name);
            let unknown = target.contacts.iter().find(|name| !is_known(name));
            if let Some(contact) = unknown {
                return Err(NotifyError::Contact {
                    target: target.name.clone(),
                    contact: contact.clone(),
                    known: contacts.iter().copied().collect::<Vec<_>>().join(", "),
                });
            }
        }
        let told: BTreeSet<&str> =
            targets.iter().flat_map(|target| target.contacts.iter().map(String::as_str)).collect();
        let untold: Vec<&str> = contacts.difference(&told).copied().collect();
        if targets.is_empty() {
            tracing::info!("there is no [[notify]] target: alarms are shown by /v1/alarms alone");
        } else if !untold.is_empty() {
            tracing::warn!(contacts = ?untold, "no [[notify]] target tells these contacts of the alarm policy");
        }
        let own = |target: &NotifyTarget| {
            (target.name.clone(), target.contacts.iter().cloned().collect::<BTreeSet<_>>())
        };
        Ok(Self { targets: targets.iter().map(own).collect(), news: Arc::default() })
    }

    /// The targets that reach patients.
    pub(crate) fn of_patients(&self) -> impl Iterator<Item = &str> {
        let own = self.targets.iter().filter(|(_, contacts)| contacts.contains(PATIENT));
        own.map(|(name, _)| name.as_str())
    }

    /// The targets that are to be told of a step.
    pub(crate) fn targets<'r>(
        &'r self,
        transition: &'r Transition,
    ) -> impl Iterator<Item = &'r str> + 'r {
        let told = |contacts: &BTreeSet<String>| {
            transition.notify.iter().any(|contact| contacts.contains(contact))
        };
        self.targets
            .iter()
            .filter(move |(_, contacts)| told(contacts))
            .map(|(name, _)| name.as_str())
    }
}

/// Couriers that are ready to go.
pub(crate) struct Couriers(Vec<Courier>);

impl Couriers {
    /// Reads secrets and certificates; connects to nobody yet.
    pub(crate) fn new(
        targets: &[NotifyTarget],
        outbox: &Outbox,
        roster: &Roster,
        desk: &crate::alarms::Desk,
        metrics: &Metrics,
    ) -> Result<Self, NotifyError> {
        let courier = |target: &NotifyTarget| {
            let channel = Channel::new(target)?;
            let (outbox, news) = (outbox.clone(), Arc::clone(&roster.news));
            Ok(Courier::new(target, channel, outbox, news, desk.clone(), metrics))
        };
        targets.iter().map(courier).collect::<Result<_, _>>().map(Self)
    }

    /// Delivers until `shutdown`. What is under way then ends first; what waits, waits for the next start.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut couriers: JoinSet<()> =
            self.0.into_iter().map(|courier| courier.run(shutdown.clone())).collect();
        while couriers.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests;
