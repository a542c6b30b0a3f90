//! Readings from an MQTT broker, 3.1.1 or 5, by rumqttc.
//!
//! The edge subscribes with QoS 1 in a session that outlives connections (`clean_session = false`, MQTT 5: session
//! expiry) and acknowledges a message only after the spool has committed it. While the edge is away the broker keeps
//! what it has not acknowledged, on the broker's own terms: MQTT has no way to notice a gap. So the broker needs:
//!
//! | mosquitto.conf | why |
//! |---|---|
//! | `persistence true` | else a restart of the broker forgets sessions and messages |
//! | `max_queued_messages 0` (or enough for the longest outage), `max_queued_bytes` likewise | else it drops beyond 1,000 |
//! | `max_inflight_messages 1024` | throughput: 20 by default |
//! | `message_size_limit 524288` | below `max_packet_bytes`: a longer message would be delivered over and over |
//! | devices publish with QoS 1 | QoS 0 may be lost at every hop |
//!
//! # Acknowledgements
//! Packet ids are the broker's and begin anew with a session, so an acknowledgement must not outlive the connection
//! that brought its message: a [`Receipt`] of an older connection does nothing, and the message comes again, marked as
//! a duplicate, which the spool recognises by its frame id.
//!
//! # Trust
//! Topic and payload are anybody's bytes; they are judged in intake. The broker's messages are bounded by
//! `max_packet_bytes`, the waiting ones by the queue of intake: when that is full, nothing more is read.

mod connection;

use crate::backoff::Backoff;
use crate::clock;
use crate::config::{ConfigError, Mqtt};
use crate::intake::{Arrival, Reply};
use crate::stats::Shared;
use connection::{Connection, Happened, Message};
use haar_normalize::Connector;
use haar_telemetry::Condition;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The first and the longest wait before the broker is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How long a stopping edge gives the broker to take the last acknowledgements.
const GOODBYE: Duration = Duration::from_secs(2);

/// The right to acknowledge one message, as long as its connection lives.
pub(crate) struct Receipt {
    message: Message,
    number: u64,
    acks: Arc<Acks>,
}

/// The number of the connection that may be acknowledged on, and the way there. Locked while an acknowledgement is
/// queued, and while a connection that has ended is cleaned up.
struct Acks {
    current: Mutex<u64>,
    client: connection::Client,
}

impl Receipt {
    /// Acknowledges the message, if its connection is still the current one.
    pub(crate) fn acknowledge(&self) {
        let current = self.acks.current.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == self.number && !self.acks.client.try_ack(&self.message) {
            // Cannot happen while the queue holds as many as there are packet ids. The broker delivers again after
            // the next reconnect.
            tracing::warn!("an acknowledgement did not fit into the queue to the broker");
        }
    }
}

/// The source.
pub(crate) struct MqttSource {
    connection: Connection,
    acks: Arc<Acks>,
    filters: Vec<String>,
    broker: String,
}

/// What the source needs of the rest of the edge.
pub(crate) struct Surroundings {
    pub(crate) arrivals: mpsc::Sender<Arrival>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) condition: Condition,
    /// Take nothing more.
    pub(crate) shutdown: CancellationToken,
    /// Intake has answered everything; leave.
    pub(crate) settled: CancellationToken,
}

/// Why the broker cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MqttError {
    /// A file that the configuration names cannot be read.
    #[error(
        "cannot read {path}: {error}; check mqtt.password_file, ca_file, cert_file and key_file"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl MqttSource {
    /// Sets the source up; connects to nobody yet. `profile_filters` is what to subscribe to if the configuration
    /// does not say.
    pub(crate) fn new(
        config: &Mqtt,
        edge: &str,
        profile_filters: Vec<String>,
    ) -> Result<Self, MqttError> {
        let client_id = config.client_id.clone().unwrap_or_else(|| format!("haar-{edge}"));
        let (client, connection) = Connection::new(config, &client_id)?;
        let filters = if config.topic_filters.is_empty() {
            profile_filters
        } else {
            config.topic_filters.clone()
        };
        let broker = format!("{}:{}", config.host, connection::port(config));
        let acks = Arc::new(Acks { current: Mutex::new(0), client });
        Ok(Self { connection, acks, filters, broker })
    }

    /// Takes messages until shutdown, then acknowledges until intake has settled.
    pub(crate) async fn run(mut self, surroundings: Surroundings) {
        let Surroundings { arrivals, shared, condition, shutdown, settled } = surroundings;
        // Dropped at shutdown, so that intake sees that no more will come.
        let mut arrivals = Some(arrivals);
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut reachable = true;
        loop {
            let happened = tokio::select! {
                biased;
                () = shutdown.cancelled(), if arrivals.is_some() => {
                    arrivals = None;
                    continue;
                }
                () = settled.cancelled() => break,
                happened = self.connection.poll() => happened,
            };
            match happened {
                Ok(Happened::Connected) => {
                    backoff.reset();
                    reachable = true;
                    tracing::info!(broker = %self.broker, "connected to the broker");
                    self.acks.client.subscribe(&self.filters);
                }
                Ok(Happened::Subscribed { refused: 0 }) => {
                    condition.ready();
                    shared.set_broker_connected(true);
                }
                Ok(Happened::Subscribed { refused }) => {
                    tracing::error!(broker = %self.broker, refused, "the broker refused subscriptions; check its ACL");
                    condition.not_ready(format!(
                        "the broker refused {refused} subscriptions; check its ACL"
                    ));
                }
                Ok(Happened::Message(message)) => {
                    if let Some(arrivals) = &arrivals {
                        let arrival = self.arrival(message);
                        tokio::select! {
                            // The message stays with the broker.
                            () = shutdown.cancelled() => {}
                            // Fails when intake has died; the edge is stopping then.
                            _ = arrivals.send(arrival) => {}
                        }
                    }
                }
                Ok(Happened::Other) => {}
                Err(problem) => {
                    self.disconnected();
                    shared.set_broker_connected(false);
                    condition.not_ready(format!("no broker at {}: {problem}", self.broker));
                    if std::mem::replace(&mut reachable, false) {
                        tracing::warn!(broker = %self.broker, %problem, "no connection to the broker; trying until there is one");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next_random()) => {}
                        () = settled.cancelled() => return,
                    }
                }
            }
        }
        self.leave().await;
        shared.set_broker_connected(false);
    }

    fn arrival(&self, message: Message) -> Arrival {
        let number = *self.acks.current.lock().unwrap_or_else(PoisonError::into_inner);
        Arrival {
            connector: Connector::Mqtt,
            path: message.topic(),
            payload: message.payload(),
            received: clock::now(),
            redelivered: message.is_duplicate(),
            reply: Reply::Mqtt(Receipt { message, number, acks: self.acks.clone() }),
        }
    }

    /// Makes every receipt of the ended connection void, also those whose acknowledgement is queued already.
    fn disconnected(&mut self) {
        let mut current = self.acks.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current += 1;
        self.connection.clean();
    }

    /// Sends what is queued, the last acknowledgements among it, and a DISCONNECT behind it.
    async fn leave(&mut self) {
        if !self.connection.is_open() {
            return;
        }
        self.acks.client.disconnect();
        let sent = async {
            while !matches!(self.connection.poll_until_disconnect().await, Ok(true) | Err(_)) {}
        };
        // A broker that does not read delivers again what it did not hear of.
        let _ = tokio::time::timeout(GOODBYE, sent).await;
    }
}

fn read(path: &Path) -> Result<Vec<u8>, MqttError> {
    std::fs::read(path).map_err(|error| MqttError::File { path: path.to_owned(), error })
}
