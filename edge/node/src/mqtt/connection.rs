//! rumqttc has two clients of the same shape, one per protocol version; this makes one of them.

use super::{MqttError, read};
use crate::config::{Mqtt, MqttProtocol};
use bytes::Bytes;
use rumqttc::v5;
use rumqttc::{Event, Outgoing, Packet, QoS, Transport};
use std::time::Duration;

/// Packet ids are 16 bits, so no more acknowledgements than these can wait; subscriptions and a DISCONNECT beside.
const MAX_QUEUED_REQUESTS: usize = 65_535 + 16;
/// How long a connection may take.
const CONNECT_TIMEOUT_S: u64 = 10;

/// The queue to a broker.
pub(super) enum Client {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// The socket to a broker, and the state of the protocol.
pub(super) enum Connection {
    V4 { events: Box<rumqttc::EventLoop>, open: bool },
    V5 { events: Box<v5::EventLoop>, open: bool },
}

/// A message, with what is needed to acknowledge it.
pub(super) enum Message {
    V4(Box<rumqttc::Publish>),
    V5(Box<v5::mqttbytes::v5::Publish>),
}

/// What the broker did.
pub(super) enum Happened {
    Connected,
    Subscribed { refused: usize },
    Message(Message),
    Other,
}

/// What went wrong, for a human.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    V4(rumqttc::ConnectionError),
    #[error(transparent)]
    V5(Box<v5::ConnectionError>),
    #[error(
        "the broker refuses the login ({0}); check mqtt.username, mqtt.password_file and the broker's own"
    )]
    Login(String),
    #[error("the broker said goodbye ({0})")]
    Disconnected(String),
}

impl From<rumqttc::ConnectionError> for Problem {
    fn from(error: rumqttc::ConnectionError) -> Self {
        use rumqttc::ConnectReturnCode::{BadUserNamePassword, NotAuthorized};
        match error {
            rumqttc::ConnectionError::ConnectionRefused(
                code @ (BadUserNamePassword | NotAuthorized),
            ) => Self::Login(format!("{code:?}")),
            error => Self::V4(error),
        }
    }
}

impl From<v5::ConnectionError> for Problem {
    fn from(error: v5::ConnectionError) -> Self {
        use v5::mqttbytes::v5::ConnectReturnCode::{BadUserNamePassword, NotAuthorized};
        match error {
            v5::ConnectionError::ConnectionRefused(
                code @ (BadUserNamePassword | NotAuthorized),
            ) => Self::Login(format!("{code:?}")),
            error => Self::V5(Box::new(error)),
        }
    }
}

pub(super) fn port(config: &Mqtt) -> u16 {
    config.port.unwrap_or(if config.ca_file.is_some() { 8883 } else { 1883 })
}

impl Connection {
    pub(super) fn new(config: &Mqtt, client_id: &str) -> Result<(Client, Self), MqttError> {
        let transport = transport(config)?;
        let login = login(config)?;
        let keep_alive = Duration::from_secs(config.keep_alive_s.into());
        let max_packet_bytes = config.max_packet_bytes;
        match config.protocol {
            MqttProtocol::V311 => {
                let mut options = rumqttc::MqttOptions::new(client_id, &config.host, port(config));
                options
                    .set_transport(transport)
                    .set_keep_alive(keep_alive)
                    .set_clean_session(false)
                    .set_manual_acks(true)
                    .set_max_packet_size(max_packet_bytes as usize, max_packet_bytes as usize);
                if let Some((username, password)) = login {
                    options.set_credentials(username, password);
                }
                let (client, mut events) = rumqttc::AsyncClient::new(options, MAX_QUEUED_REQUESTS);
                events.network_options.set_connection_timeout(CONNECT_TIMEOUT_S);
                events.network_options.set_tcp_nodelay(true);
                Ok((Client::V4(client), Self::V4 { events: Box::new(events), open: false }))
            }
            MqttProtocol::V5 => {
                let mut options = v5::MqttOptions::new(client_id, &config.host, port(config));
                let mut network = rumqttc::NetworkOptions::new();
                network.set_tcp_nodelay(true);
                options
                    .set_transport(transport)
                    .set_keep_alive(keep_alive)
                    .set_clean_start(false)
                    .set_manual_acks(true)
                    .set_connection_timeout(CONNECT_TIMEOUT_S)
                    .set_network_options(network)
                    .set_session_expiry_interval(Some(config.session_expiry_s))
                    .set_receive_maximum(Some(config.inflight))
                    .set_max_packet_size(Some(max_packet_bytes));
                if let Some((username, password)) = login {
                    options.set_credentials(username, password);
                }
                let (client, events) = v5::AsyncClient::new(options, MAX_QUEUED_REQUESTS);
                Ok((Client::V5(client), Self::V5 { events: Box::new(events), open: false }))
            }
        }
    }

    /// Connects if there is no connection, and waits for what happens next. After an error, wait and poll again.
    pub(super) async fn poll(&mut self) -> Result<Happened, Problem> {
        let happened = match self {
            Self::V4 { events, .. } => match events.poll().await? {
                Event::Incoming(Packet::ConnAck(_)) => Happened::Connected,
                Event::Incoming(Packet::SubAck(ack)) => {
                    let refused = ack.return_codes.iter();
                    let refused =
                        refused.filter(|c| !matches!(c, rumqttc::SubscribeReasonCode::Success(_)));
                    Happened::Subscribed { refused: refused.count() }
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    Happened::Message(Message::V4(Box::new(publish)))
                }
                _ => Happened::Other,
            },
            Self::V5 { events, .. } => {
                use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
                match events.poll().await? {
                    v5::Event::Incoming(Packet::ConnAck(_)) => Happened::Connected,
                    v5::Event::Incoming(Packet::SubAck(ack)) => {
                        let refused = ack.return_codes.iter();
                        let refused =
                            refused.filter(|c| !matches!(c, SubscribeReasonCode::Success(_)));
                        Happened::Subscribed { refused: refused.count() }
                    }
                    v5::Event::Incoming(Packet::Publish(publish)) => {
                        Happened::Message(Message::V5(Box::new(publish)))
                    }
                    v5::Event::Incoming(Packet::Disconnect(disconnect)) => {
                        return Err(Problem::Disconnected(format!("{:?}", disconnect.reason_code)));
                    }
                    _ => Happened::Other,
                }
            }
        };
        if matches!(happened, Happened::Connected) {
            *self.open() = true;
        }
        Ok(happened)
    }

    /// Polls while leaving: `true` once the DISCONNECT has gone out.
    pub(super) async fn poll_until_disconnect(&mut self) -> Result<bool, Problem> {
        Ok(match self {
            Self::V4 { events, .. } => {
                events.poll().await? == Event::Outgoing(Outgoing::Disconnect)
            }
            Self::V5 { events, .. } => {
                let event = events.poll().await?;
                event == v5::Event::Outgoing(Outgoing::Disconnect)
            }
        })
    }

    /// Drops the socket, and every acknowledgement that waits for it.
    pub(super) fn clean(&mut self) {
        match self {
            Self::V4 { events, .. } => {
                events.clean();
                events.pending.clear();
            }
            Self::V5 { events, .. } => {
                events.clean();
                events.pending.clear();
            }
        }
        *self.open() = false;
    }

    pub(super) fn is_open(&mut self) -> bool {
        *self.open()
    }

    fn open(&mut self) -> &mut bool {
        match self {
            Self::V4 { open, .. } | Self::V5 { open, .. } => open,
        }
    }
}

impl Client {
    /// Queues an acknowledgement; `false` if the queue is full.
    pub(super) fn try_ack(&self, message: &Message) -> bool {
        match (self, message) {
            (Self::V4(client), Message::V4(publish)) => client.try_ack(publish).is_ok(),
            (Self::V5(client), Message::V5(publish)) => client.try_ack(publish).is_ok(),
            // A source has one version for all its life.
            _ => false,
        }
    }

    /// Queues the subscriptions. That the queue has no room shows by the answer that does not come.
    pub(super) fn subscribe(&self, filters: &[String]) {
        let queued = match self {
            Self::V4(client) => {
                let filters = filters.iter().cloned();
                let filters = filters.map(|f| rumqttc::SubscribeFilter::new(f, QoS::AtLeastOnce));
                client.try_subscribe_many(filters).is_ok()
            }
            Self::V5(client) => {
                use v5::mqttbytes::{QoS, v5::Filter};
                let filters = filters.iter().cloned();
                let filters = filters.map(|filter| Filter::new(filter, QoS::AtLeastOnce));
                client.try_subscribe_many(filters).is_ok()
            }
        };
        if !queued {
            tracing::error!("the subscriptions cannot be sent; check mqtt.topic_filters");
        }
    }

    pub(super) fn disconnect(&self) {
        // If it is full, the broker sees the socket close instead.
        match self {
            Self::V4(client) => drop(client.try_disconnect()),
            Self::V5(client) => drop(client.try_disconnect()),
        }
    }
}

impl Message {
    pub(super) fn topic(&self) -> String {
        match self {
            Self::V4(publish) => publish.topic.clone(),
            Self::V5(publish) => String::from_utf8_lossy(&publish.topic).into_owned(),
        }
    }

    pub(super) fn payload(&self) -> Bytes {
        match self {
            Self::V4(publish) => publish.payload.clone(),
            Self::V5(publish) => publish.payload.clone(),
        }
    }

    pub(super) fn is_duplicate(&self) -> bool {
        match self {
            Self::V4(publish) => publish.dup,
            Self::V5(publish) => publish.dup,
        }
    }
}

fn transport(config: &Mqtt) -> Result<Transport, MqttError> {
    let Some(ca) = &config.ca_file else { return Ok(Transport::tcp()) };
    // rumqttc takes the process's provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
        _ => None,
    };
    Ok(Transport::tls(read(ca)?, client, None))
}

fn login(config: &Mqtt) -> Result<Option<(String, String)>, MqttError> {
    let Some(username) = &config.username else { return Ok(None) };
    let password = match &config.password_file {
        None => String::new(),
        Some(path) => {
            let bytes = read(path)?;
            String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    Ok(Some((username.clone(), password)))
}
