//! What an edge counts, for its owner and for `/metrics`.

use haar_normalize::Connector;
use haar_telemetry::{Counter, Gauge, Histogram, Metrics, names};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What an edge has done since it started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct EdgeStats {
    /// Frames received, duplicates and quarantined ones among them.
    pub frames: u64,
    /// Payload bytes received.
    pub bytes: u64,
    /// Observations committed to the spool.
    pub readings: u64,
    /// Frames that could not be decoded and are kept for a human.
    pub quarantined: u64,
    /// Frames that were delivered again and not counted twice.
    pub duplicates: u64,
    /// Observations whose device clock was ahead.
    pub clamped: u64,
    /// Frames not taken, so that the device sends them again.
    pub refused: u64,
    /// Entries now in the spool.
    pub spool_entries: u64,
    /// Their bytes.
    pub spool_bytes: u64,
    /// Waveforms shed since the spool was made.
    pub shed_entries: u64,
    /// The sequence that the next entry will have.
    pub next_seq: u64,
    /// The highest sequence that the fog has committed, as far as this process has heard.
    pub acked_through: u64,
    /// Entries sent to the fog, those sent again among them.
    pub sent_entries: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Entries sent again after a reconnect.
    pub resent_entries: u64,
    /// Whether a session with the fog is open.
    pub uplink_connected: bool,
    /// Whether the broker has accepted the subscriptions.
    pub broker_connected: bool,
}

/// The numbers behind [`EdgeStats`].
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) readings: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) clamped: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) acked_through: AtomicU64,
    pub(crate) sent_entries: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) resent_entries: AtomicU64,
    pub(crate) uplink_connected: AtomicBool,
    pub(crate) broker_connected: AtomicBool,
}

impl Counters {
    pub(crate) fn snapshot(&self, spool: &haar_spool::Spool) -> EdgeStats {
        let kept = spool.stats();
        EdgeStats {
            frames: self.frames.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            readings: self.readings.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            clamped: self.clamped.load(Relaxed),
            refused: self.refused.load(Relaxed),
            spool_entries: kept.entries,
            spool_bytes: kept.bytes,
            shed_entries: kept.shed_entries,
            next_seq: spool.next_seq(),
            acked_through: self.acked_through.load(Relaxed),
            sent_entries: self.sent_entries.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            resent_entries: self.resent_entries.load(Relaxed),
            uplink_connected: self.uplink_connected.load(Relaxed),
            broker_connected: self.broker_connected.load(Relaxed),
        }
    }
}

/// The instruments of an edge.
pub(crate) struct Meters {
    pub(crate) frames: Counter<u64>,
    pub(crate) readings: Counter<u64>,
    pub(crate) bytes: Counter<u64>,
    pub(crate) quarantined: Counter<u64>,
    pub(crate) duplicates: Counter<u64>,
    pub(crate) refused: Counter<u64>,
    pub(crate) clamped: Counter<u64>,
    pub(crate) shed: Counter<u64>,
    pub(crate) append_seconds: Histogram<f64>,
    pub(crate) append_failures: Counter<u64>,
    pub(crate) spool_entries: Gauge<f64>,
    pub(crate) spool_bytes: Gauge<f64>,
    pub(crate) uplink_connected: Gauge<f64>,
    pub(crate) broker_connected: Gauge<f64>,
    pub(crate) batches: Counter<u64>,
    pub(crate) sent: Counter<u64>,
    pub(crate) sent_bytes: Counter<u64>,
    pub(crate) resent: Counter<u64>,
    pub(crate) acks: Counter<u64>,
    pub(crate) acked_through: Gauge<f64>,
    pub(crate) connects: Counter<u64>,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            frames: metrics.counter(&names::EDGE_FRAMES),
            readings: metrics.counter(&names::EDGE_READINGS),
            bytes: metrics.counter(&names::EDGE_BYTES),
            quarantined: metrics.counter(&names::EDGE_QUARANTINED),
            duplicates: metrics.counter(&names::EDGE_DUPLICATES),
            refused: metrics.counter(&names::EDGE_REFUSED),
            clamped: metrics.counter(&names::EDGE_CLAMPED),
            shed: metrics.counter(&names::EDGE_SHED),
            append_seconds: metrics.histogram(&names::EDGE_APPEND_SECONDS),
            append_failures: metrics.counter(&names::EDGE_APPEND_FAILURES),
            spool_entries: metrics.gauge(&names::EDGE_SPOOL_ENTRIES),
            spool_bytes: metrics.gauge(&names::EDGE_SPOOL_BYTES),
            uplink_connected: metrics.gauge(&names::EDGE_UPLINK_CONNECTED),
            broker_connected: metrics.gauge(&names::EDGE_BROKER_CONNECTED),
            batches: metrics.counter(&names::EDGE_BATCHES),
            sent: metrics.counter(&names::EDGE_SENT),
            sent_bytes: metrics.counter(&names::EDGE_SENT_BYTES),
            resent: metrics.counter(&names::EDGE_RESENT),
            acks: metrics.counter(&names::EDGE_ACKS),
            acked_through: metrics.gauge(&names::EDGE_ACKED_THROUGH),
            connects: metrics.counter(&names::EDGE_CONNECTS),
        }
    }
}

/// What all parts of an edge share.
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    pub(crate) meters: Meters,
    /// Set while the spool takes nothing: sources refuse at once instead of queueing.
    pub(crate) stalled: AtomicBool,
}

impl Shared {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            counters: Counters::default(),
            meters: Meters::new(metrics),
            stalled: AtomicBool::new(false),
        }
    }

    /// Counts a frame that a device or broker has to send again.
    pub(crate) fn refuse(&self, connector: Connector, reason: &'static str) {
        self.counters.refused.fetch_add(1, Relaxed);
        let labels = [
            label(names::label::CONNECTOR, connector.as_str()),
            label(names::label::REASON, reason),
        ];
        self.meters.refused.add(1, &labels);
    }

    pub(crate) fn set_uplink_connected(&self, connected: bool) {
        self.counters.uplink_connected.store(connected, Relaxed);
        self.meters.uplink_connected.record(f64::from(u8::from(connected)), &[]);
    }

    pub(crate) fn set_broker_connected(&self, connected: bool) {
        self.counters.broker_connected.store(connected, Relaxed);
        self.meters.broker_connected.record(f64::from(u8::from(connected)), &[]);
    }
}

pub(crate) fn label(name: &'static str, value: &'static str) -> haar_telemetry::KeyValue {
    haar_telemetry::KeyValue::new(name, value)
}
