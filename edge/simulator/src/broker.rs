//! An MQTT broker inside the process, for `haar demo` and tests: rumqttd on a loopback port.
//!
//! # What it is not
//! A boundary. It acknowledges a message once it lies in its memory, before any subscriber has seen it; it forgets
//! everything when the process ends; when a subscriber falls more than [`SEGMENT_BYTES`] × [`SEGMENTS`] behind, it drops the
//! oldest messages; there is no password, no access control and no TLS; it cannot be stopped, its threads end with the
//! process. It binds to 127.0.0.1 only. A ward with something to lose uses a real broker, or CoAP.
//!
//! # Limits
//! Chosen for 64 patients at twenty times real time: at an estimated 2.5 MB/s the segments last for about 100 s of an edge
//! that is away. See the constants. MQTT 3.1.1 only.

use rumqttd::{Config, ConnectionSettings, RouterConfig, ServerSettings};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The largest message.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Bytes in one segment of a subscription's log.
pub const SEGMENT_BYTES: usize = 32 * 1024 * 1024;
/// Segments of a subscription's log; the oldest goes when there is one more.
pub const SEGMENTS: usize = 8;
/// Connections at once.
pub const MAX_CONNECTIONS: usize = 256;
/// Messages on the way to one subscriber.
pub const MAX_IN_FLIGHT: usize = 1_000;
/// How long starting may take.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// No port, or no thread.
    #[error("the demo's MQTT broker cannot start: {0}")]
    Io(#[from] io::Error),
    /// It does not listen.
    #[error(
        "the demo's MQTT broker did not listen on {addr} within {} s; start again, another program \
         may have taken the port",
        START_TIMEOUT.as_secs()
    )]
    NotListening {
        /// Where it should.
        addr: SocketAddr,
    },
}

/// A running broker.
#[derive(Clone, Copy, Debug)]
pub struct Broker {
    addr: SocketAddr,
}

impl Broker {
    /// Starts a broker on a free loopback port; returns when it accepts connections. Blocks for some milliseconds.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start() -> Result<Self, BrokerError> {
        // Found by binding and letting go: rumqttd binds by itself. Should another program be quicker, that program's
        // port answers below and the demo's clients will say that it is no broker.
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut broker = rumqttd::Broker::new(config(addr));
        thread::Builder::new().name("demo-broker".to_owned()).spawn(move || {
            if let Err(error) = broker.start() {
                tracing::error!(%error, "the demo's broker ended");
            }
        })?;
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect_timeout(&addr, Duration::from_millis(100)).is_err() {
            if Instant::now() > deadline {
                return Err(BrokerError::NotListening { addr });
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { addr })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn config(listen: SocketAddr) -> Config {
    let server = ServerSettings {
        name: "demo".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: MAX_MESSAGE_BYTES,
            max_inflight_count: MAX_IN_FLIGHT,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    Config {
        router: RouterConfig {
            max_connections: MAX_CONNECTIONS,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("demo".to_owned(), server)])),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Connector, Frame};
    use crate::transport::{MqttTarget, Publisher, Target};
    use haar_schema::Timestamp;
    use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
    use std::collections::BTreeSet;

    const MESSAGES: u32 = 12_000;

    fn frame(number: u32) -> Frame {
        // Up to the largest frame, as ECG in JSON may be.
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(200 + number as usize % 8 * 1_000, 0);
        Frame {
            bed: number % 64,
            patient: format!("p{}", number % 64),
            device: "monitor-1".parse().unwrap(),
            connector: Connector::Mqtt(format!("ward/p{}/monitor-1/vitals", number % 64)),
            at: Timestamp::from_millis(0),
            payload: payload.into(),
            readings: 1,
            repeat: false,
        }
    }

    fn subscriber(addr: SocketAddr) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new("edge", addr.ip().to_string(), addr.port());
        options
            .set_clean_session(false)
            .set_manual_acks(true)
            .set_keep_alive(Duration::from_secs(30));
        options.set_max_packet_size(MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES);
        AsyncClient::new(options, 2_000)
    }

    /// The next packet; like an edge, it connects again when the connection breaks.
    async fn next(events: &mut EventLoop) -> Packet {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(20), events.poll()).await;
            match event.expect("the broker went silent") {
                Ok(Event::Incoming(packet)) => return packet,
                Ok(Event::Outgoing(_)) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// A ward's load, an edge with a persistent session that acknowledges by hand and goes away in the
    /// middle: every message published is received.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_lost_between_ward_and_edge() {
        let broker = Broker::start().unwrap();
        let (edge, mut events) = subscriber(broker.addr());
        edge.subscribe("ward/+/+/vitals", QoS::AtLeastOnce).await.unwrap();
        while !matches!(next(&mut events).await, Packet::SubAck(_)) {}

        let mqtt = MqttTarget {
            connections: 4,
            ..MqttTarget::plain(broker.addr().ip().to_string(), broker.addr().port())
        };
        let target = Target { mqtt: Some(mqtt), ..Target::default() };
        let publisher = Publisher::connect(target).await.unwrap();
        let publishing = tokio::spawn(async move {
            for number in 0..MESSAGES {
                publisher.send(frame(number)).await.unwrap();
            }
            publisher.finish().await
        });

        let mut received = BTreeSet::new();
        let mut away = false;
        while received.len() < MESSAGES as usize {
            if let Packet::Publish(publish) = next(&mut events).await {
                received.insert(u32::from_le_bytes(publish.payload[..4].try_into().unwrap()));
                edge.try_ack(&publish).unwrap();
            }
            if !away && received.len() > MESSAGES as usize / 3 {
                away = true;
                // The connection breaks; the client comes back into its session.
                events.clean();
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        let sent = publishing.await.unwrap();
        assert_eq!((sent.acked, sent.failed), (u64::from(MESSAGES), 0));
    }
}
