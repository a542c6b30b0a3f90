//! Sends frames over real sockets: MQTT 3.1.1 at QoS 1 and CoAP confirmable messages, at a pace.
//!
//! # Promise
//! A frame counts as *acked* when the other side said so: PUBACK, or 2.04 (any 2.xx). What was on the way when a
//! connection broke is sent again with the same payload, so the other side may see it twice and knows it by its bytes.
//! A frame counts as *failed* when its acknowledgement did not come although everything was tried.
//!
//! # Time
//! [`run`] asks a [`FrameSource`] for what has left until now, now being event time at `speed` × real time. Event time
//! begins so far in the past ([`Pace::ending_now`]) that it never runs ahead of the wall clock: an edge takes what
//! is ahead for a wrong clock. A run without an end begins an hour of wall time early, and goes on at real time
//! once it has caught up.
//!
//! # Limits
//! [`IN_FLIGHT`] frames on the way on each MQTT connection, at most [`MAX_CONNECTIONS`] of them; CoAP see [`coap`].
//! When they are used up, [`Publisher::send`] waits; nothing is dropped.

pub mod coap;
mod mqtt;

use crate::frame::{Connector, Frame, FrameSource};
use haar_schema::Timestamp;
use mqtt::Connection;
pub use mqtt::{Credentials, MqttTarget};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The most unacknowledged frames on one MQTT connection.
pub const IN_FLIGHT: u16 = 200;
/// The most MQTT connections of one publisher.
pub const MAX_CONNECTIONS: u16 = 64;
/// How often [`run`] asks for frames.
const TICK: Duration = Duration::from_millis(50);
/// How much wall time a run without an end can go faster than real time.
const CATCH_UP_S: f64 = 3_600.0;

/// Where frames go. Frames of a protocol without an address are counted as skipped.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The MQTT broker.
    pub mqtt: Option<MqttTarget>,
    /// The CoAP server.
    pub coap: Option<SocketAddr>,
    /// Draws the CoAP timeouts and tokens.
    pub seed: u64,
}

/// Why a publisher could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The broker refused or is not there.
    #[error(
        "no MQTT session with {address}: {source}; is the broker running there, and do user, password and TLS agree with its configuration?"
    )]
    Mqtt {
        /// Which broker.
        address: String,
        /// What the client says.
        source: Box<rumqttc::ConnectionError>,
    },
    /// It broke off while connecting.
    #[error("the MQTT session with {address} ended while it began; look into the broker's log")]
    MqttEnded {
        /// Which broker.
        address: String,
    },
    /// Too many connections, or none.
    #[error("a publisher has 1 to {MAX_CONNECTIONS} MQTT connections, not {0}")]
    Connections(u16),
    /// The certificate authority cannot be read.
    #[error("the broker's CA certificate cannot be used: {0}")]
    Certificate(#[from] rustls::pki_types::pem::Error),
    /// The certificate authority is none, or TLS cannot be set up.
    #[error("TLS to the broker cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// No socket for CoAP.
    #[error("no UDP socket for CoAP to {address}: {source}")]
    Coap {
        /// Which server.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Why frames can no longer be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// A connection was given up.
    #[error("the MQTT session was lost and did not come back within {} s; frames that were not acknowledged are counted as failed", mqtt::PATIENCE.as_secs())]
    MqttLost,
}

/// What was sent so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Frames given to the network, repeats included.
    pub frames: u64,
    /// Distinct readings in them.
    pub readings: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
    /// Frames acknowledged.
    pub acked: u64,
    /// Distinct readings acknowledged.
    pub readings_acked: u64,
    /// Frames whose acknowledgement never came, or that were refused.
    pub failed: u64,
    /// Frames that were not sent for want of an address.
    pub skipped: u64,
}

/// The counters behind [`Sent`].
#[derive(Debug, Default)]
struct Counts {
    frames: AtomicU64,
    readings: AtomicU64,
    bytes: AtomicU64,
    acked: AtomicU64,
    readings_acked: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
}

impl Counts {
    fn sent(&self, frame: &Frame) {
        self.frames.fetch_add(1, Relaxed);
        self.readings.fetch_add(distinct(frame), Relaxed);
        self.bytes.fetch_add(frame.payload.len() as u64, Relaxed);
    }

    fn acked(&self, frame: &Frame) {
        self.acked.fetch_add(1, Relaxed);
        self.readings_acked.fetch_add(distinct(frame), Relaxed);
    }

    fn failed(&self, frames: usize) {
        self.failed.fetch_add(frames as u64, Relaxed);
    }
}

fn distinct(frame: &Frame) -> u64 {
    if frame.repeat { 0 } else { u64::from(frame.readings) }
}

/// Sends frames.
#[derive(Debug)]
pub struct Publisher {
    mqtt: Vec<Connection>,
    coap: Option<coap::Endpoints>,
    counts: Arc<Counts>,
}

impl Publisher {
    /// Connects; returns once every MQTT connection has its session.
    ///
    /// # Errors
    /// If one cannot be had.
    pub async fn connect(target: Target) -> Result<Self, ConnectError> {
        let counts = Arc::new(Counts::default());
        let mut mqtt = Vec::new();
        if let Some(broker) = &target.mqtt {
            if !(1..=MAX_CONNECTIONS).contains(&broker.connections) {
                return Err(ConnectError::Connections(broker.connections));
            }
            for number in 0..broker.connections {
                mqtt.push(Connection::open(broker, number, Arc::clone(&counts)).await?);
            }
        }
        let coap = match target.coap {
            Some(address) => {
                let open = coap::Endpoints::open(address, target.seed, Arc::clone(&counts)).await;
                Some(open.map_err(|source| ConnectError::Coap { address, source })?)
            }
            None => None,
        };
        Ok(Self { mqtt, coap, counts })
    }

    /// Sends a frame; waits while too many are on the way.
    ///
    /// # Errors
    /// If its connection has been given up.
    pub async fn send(&self, frame: Frame) -> Result<(), SendError> {
        match (&frame.connector, self.coap.as_ref()) {
            (Connector::Mqtt(_), _) if !self.mqtt.is_empty() => {
                // One patient's frames go by one connection, so they keep their order.
                self.mqtt[frame.bed as usize % self.mqtt.len()].send(frame).await
            }
            (Connector::Coap(_), Some(coap)) => {
                coap.send(frame).await;
                Ok(())
            }
            _ => {
                self.counts.skipped.fetch_add(1, Relaxed);
                Ok(())
            }
        }
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        let counts = &self.counts;
        Sent {
            frames: counts.frames.load(Relaxed),
            readings: counts.readings.load(Relaxed),
            bytes: counts.bytes.load(Relaxed),
            acked: counts.acked.load(Relaxed),
            readings_acked: counts.readings_acked.load(Relaxed),
            failed: counts.failed.load(Relaxed),
            skipped: counts.skipped.load(Relaxed),
        }
    }

    /// Waits until every frame is acknowledged or has failed, and disconnects.
    pub async fn finish(mut self) -> Sent {
        for connection in std::mem::take(&mut self.mqtt) {
            connection.finish().await;
        }
        if let Some(coap) = &self.coap {
            coap.finish().await;
        }
        self.sent()
    }
}

/// How event time runs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pace {
    /// Event time when the run begins.
    pub start: Timestamp,
    /// Event time when it ends; `None` for never.
    pub end: Option<Timestamp>,
    /// Event seconds a wall second; above 0.
    pub speed: f64,
    /// The wall clock when the run begins; event time never passes the wall clock.
    pub now: Timestamp,
}

impl Pace {
    /// A run of `seconds` of event time (`None`: without an end) at `speed` that begins now and never runs ahead of
    /// the wall clock. A speed that is not above 0 counts as 1.
    pub fn ending_now(now: Timestamp, seconds: Option<u32>, speed: f64) -> Self {
        let speed = if speed > 0.0 && speed.is_finite() { speed } else { 1.0 };
        let lead_s = match seconds {
            Some(seconds) => f64::from(seconds) * (1.0 - 1.0 / speed),
            None => CATCH_UP_S * (speed - 1.0),
        };
        let start = now.plus_micros(-((lead_s.max(0.0) * 1e6).ceil() as i64));
        let end = seconds.map(|seconds| start.plus_micros(i64::from(seconds) * 1_000_000));
        Self { start, end, speed, now }
    }

    /// Event time so long after the run began.
    pub fn event_time(&self, elapsed: Duration) -> Timestamp {
        let wall = self.now.plus_micros(elapsed.as_micros().min(i64::MAX as u128) as i64);
        let event = self.start.plus_micros((elapsed.as_secs_f64() * self.speed * 1e6) as i64);
        let event = event.min(wall.max(self.start));
        self.end.map_or(event, |end| event.min(end))
    }
}

/// Sends what `source` makes at this pace, until its end, the pace's end, or `stop`; then what is still held back.
/// `tick` is called after each step with the source and the counts, for progress and truth. It does not wait for the last
/// acknowledgements: [`Publisher::finish`] does.
///
/// # Errors
/// Those of [`Publisher::send`].
pub async fn run<S: FrameSource>(
    source: &mut S,
    publisher: &Publisher,
    pace: Pace,
    stop: &CancellationToken,
    mut tick: impl FnMut(&mut S, Sent),
) -> Result<(), SendError> {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        let until = pace.event_time(began.elapsed());
        for frame in source.next_until(until) {
            publisher.send(frame).await?;
        }
        tick(source, publisher.sent());
        if source.is_over() || pace.end.is_some_and(|end| until >= end) {
            break;
        }
    }
    for frame in source.finish() {
        publisher.send(frame).await?;
    }
    tick(source, publisher.sent());
    Ok(())
}

#[cfg(test)]
mod tests;
