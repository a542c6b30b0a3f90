//! One MQTT connection that keeps what was not acknowledged.
//!
//! `rumqttc` forgets unacknowledged messages when a broker begins a new session, so they are kept here and published
//! again, oldest first, on a fresh client with a clean session.

use super::{ConnectError, Counts, IN_FLIGHT, SendError};
use crate::frame::{Connector, Frame};
use rumqttc::{
    AsyncClient, ConnectionError, Event, MqttOptions, Outgoing, Packet, QoS, TlsConfiguration,
    Transport,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// How long a lost connection is tried again before its frames count as failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long [`Connection::finish`] waits for acknowledgements on a connection that says nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// Wait before the first, and at most before any, attempt to connect again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Events that wait to be looked at; the network waits when they are that many.
const EVENTS: usize = 1_024;
/// The largest MQTT packet either way.
const MAX_PACKET_BYTES: usize = 64 * 1024;

/// User and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(redacted)")
    }
}

/// An MQTT broker.
#[derive(Clone, Debug)]
pub struct MqttTarget {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Client identifiers begin with this; two publishers at one broker need different ones.
    pub client: String,
    /// If the broker asks for them.
    pub credentials: Option<Credentials>,
    /// The certificate authorities (PEM) that the broker's certificate is checked against; `None` for no TLS.
    pub ca_pem: Option<Vec<u8>>,
    /// Over how many connections the patients are spread.
    pub connections: u16,
}

impl MqttTarget {
    /// A broker without password or TLS, on one connection.
    pub fn plain(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            client: "haar-simulator".to_owned(),
            credentials: None,
            ca_pem: None,
            connections: 1,
        }
    }

    fn options(&self, number: u16) -> Result<MqttOptions, ConnectError> {
        let client = format!("{}-{number}", self.client);
        let mut options = MqttOptions::new(client, &self.host, self.port);
        options
            .set_keep_alive(Duration::from_secs(30))
            .set_inflight(IN_FLIGHT)
            .set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES)
            .set_clean_session(true);
        if let Some(Credentials { user, password }) = &self.credentials {
            options.set_credentials(user, password);
        }
        if let Some(pem) = &self.ca_pem {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate?)?;
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
            let tls = TlsConfiguration::Rustls(Arc::new(config));
            options.set_transport(Transport::Tls(tls));
        }
        Ok(options)
    }
}

/// The way to the task that holds the connection.
#[derive(Debug)]
pub(super) struct Connection {
    frames: mpsc::Sender<Frame>,
    task: JoinHandle<()>,
}

impl Connection {
    pub(super) async fn open(
        target: &MqttTarget,
        number: u16,
        counts: Arc<Counts>,
    ) -> Result<Self, ConnectError> {
        let address = format!("{}:{}", target.host, target.port);
        let options = target.options(number)?;
        let mut session = Session::begin(options.clone());
        loop {
            match session.events.recv().await {
                Some(Ok(Event::Incoming(Packet::ConnAck(_)))) => break,
                Some(Ok(_)) => {}
                Some(Err(source)) => {
                    return Err(ConnectError::Mqtt { address, source: Box::new(source) });
                }
                None => return Err(ConnectError::MqttEnded { address }),
            }
        }
        let (frames, inbox) = mpsc::channel(usize::from(IN_FLIGHT));
        let keeper = Keeper { options, counts, waiting: VecDeque::new(), flying: VecDeque::new() };
        let task = tokio::spawn(keeper.keep(session, inbox));
        Ok(Self { frames, task })
    }

    pub(super) async fn send(&self, frame: Frame) -> Result<(), SendError> {
        self.frames.send(frame).await.map_err(|_| SendError::MqttLost)
    }

    pub(super) async fn finish(self) {
        drop(self.frames);
        // The task ends by itself; it fails only if it panicked, and then its frames stay unacknowledged.
        let _ = self.task.await;
    }
}

/// A client and the events of its network.
struct Session {
    client: AsyncClient,
    events: mpsc::Receiver<Result<Event, ConnectionError>>,
    poller: JoinHandle<()>,
}

impl Session {
    fn begin(options: MqttOptions) -> Self {
        // Room for everything that may be in flight, so that a publish never waits for the poller.
        let (client, mut network) = AsyncClient::new(options, usize::from(IN_FLIGHT) + 8);
        let (sender, events) = mpsc::channel(EVENTS);
        // Polled in a task of its own because a poll that is dropped half way may lose what it read.
        let poller = tokio::spawn(async move {
            loop {
                let event = network.poll().await;
                let over = event.is_err();
                if sender.send(event).await.is_err() || over {
                    return;
                }
            }
        });
        Self { client, events, poller }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

/// Holds frames until they are acknowledged.
struct Keeper {
    options: MqttOptions,
    counts: Arc<Counts>,
    /// Given to the client, not on the wire yet.
    waiting: VecDeque<Frame>,
    /// On the wire under this packet identifier, in the order sent.
    flying: VecDeque<(u16, Frame)>,
}

impl Keeper {
    async fn keep(mut self, mut session: Session, mut inbox: mpsc::Receiver<Frame>) {
        let mut open = true;
        while open || self.outstanding() > 0 {
            let room = self.outstanding() < usize::from(IN_FLIGHT);
            tokio::select! {
                frame = inbox.recv(), if open && room => match frame {
                    Some(frame) => {
                        self.counts.sent(&frame);
                        self.publish(&session, frame);
                    }
                    None => open = false,
                },
                event = session.events.recv() => match event {
                    Some(Ok(event)) => self.note(event),
                    Some(Err(_)) | None => match self.again().await {
                        Some(fresh) => session = fresh,
                        None => return self.give_up(inbox),
                    },
                },
                () = sleep(SILENCE), if self.outstanding() > 0 => match self.again().await {
                    Some(fresh) => session = fresh,
                    None => return self.give_up(inbox),
                },
            }
        }
        if session.client.try_disconnect().is_ok() {
            // Until the packet is out.
            let goodbye = async { while let Some(Ok(_)) = session.events.recv().await {} };
            let _ = timeout(Duration::from_secs(1), goodbye).await;
        }
    }

    fn outstanding(&self) -> usize {
        self.waiting.len() + self.flying.len()
    }

    fn publish(&mut self, session: &Session, frame: Frame) {
        let topic = match &frame.connector {
            Connector::Mqtt(topic) if rumqttc::valid_topic(topic) => topic,
            _ => return self.counts.failed(1),
        };
        // The client has room for everything in flight; it refuses only when its network has just ended. Then the
        // frame waits here and is published again in the next session.
        let payload = frame.payload.to_vec();
        let _ = session.client.try_publish(topic, QoS::AtLeastOnce, false, payload);
        self.waiting.push_back(frame);
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Outgoing(Outgoing::Publish(id)) => {
                if let Some(frame) = self.waiting.pop_front() {
                    self.flying.push_back((id, frame));
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                // Brokers acknowledge in order, so it is the first.
                let place = self.flying.iter().position(|(id, _)| *id == ack.pkid);
                if let Some((_, frame)) = place.and_then(|place| self.flying.remove(place)) {
                    self.counts.acked(&frame);
                }
            }
            _ => {}
        }
    }

    /// A new session in which everything outstanding is published again; `None` if there is none to be had.
    async fn again(&mut self) -> Option<Session> {
        let deadline = Instant::now() + PATIENCE;
        let mut back_off = BACK_OFF.0;
        while Instant::now() < deadline {
            sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF.1);
            let mut session = Session::begin(self.options.clone());
            let first = timeout(BACK_OFF.1 * 3, session.events.recv()).await;
            if matches!(first, Ok(Some(Ok(Event::Incoming(Packet::ConnAck(_)))))) {
                let waiting = std::mem::take(&mut self.waiting);
                let flying = std::mem::take(&mut self.flying);
                tracing::info!(frames = flying.len() + waiting.len(), "MQTT session begun again");
                for frame in flying.into_iter().map(|(_, frame)| frame).chain(waiting) {
                    self.publish(&session, frame);
                }
                return Some(session);
            }
        }
        None
    }

    fn give_up(self, mut inbox: mpsc::Receiver<Frame>) {
        inbox.close();
        let mut left = self.outstanding();
        while let Ok(frame) = inbox.try_recv() {
            self.counts.sent(&frame);
            left += 1;
        }
        self.counts.failed(left);
        tracing::warn!(frames = left, "MQTT session given up");
    }
}
