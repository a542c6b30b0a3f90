//! What a ledger server measures. No label has a name of a patient, device, site or entry.

use crate::entry::EntryKind;
use crate::evidence::EvidenceKind;
use haar_telemetry::{Counter, Gauge, Histogram, KeyValue, Metrics, names};
use names::label;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Instruments {
    entries: Counter<u64>,
    refused: Counter<u64>,
    sequenced_s: Histogram<f64>,
    published_s: Histogram<f64>,
    size: Gauge<f64>,
    published: Gauge<f64>,
    vouched: Gauge<f64>,
    behind: Gauge<f64>,
    ahead: Counter<u64>,
    store_errors: Counter<u64>,
    cosigned: Counter<u64>,
    evidence: Counter<u64>,
    untold: Gauge<f64>,
}

impl Instruments {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            entries: metrics.counter(&names::LEDGER_ENTRIES),
            refused: metrics.counter(&names::LEDGER_REFUSED),
            sequenced_s: metrics.histogram(&names::LEDGER_SEQUENCED_SECONDS),
            published_s: metrics.histogram(&names::LEDGER_PUBLISHED_SECONDS),
            size: metrics.gauge(&names::LEDGER_SIZE),
            published: metrics.gauge(&names::LEDGER_PUBLISHED_SIZE),
            vouched: metrics.gauge(&names::LEDGER_VOUCHED_TIMESTAMP),
            behind: metrics.gauge(&names::LEDGER_COSIGNERS_BEHIND),
            ahead: metrics.counter(&names::LEDGER_WITNESSES_AHEAD),
            store_errors: metrics.counter(&names::LEDGER_STORE_ERRORS),
            cosigned: metrics.counter(&names::LEDGER_COSIGNED),
            evidence: metrics.counter(&names::LEDGER_EVIDENCE),
            untold: metrics.gauge(&names::LEDGER_EVIDENCE_UNTOLD),
        }
    }

    /// An entry is in the log, so long after it was handed in.
    pub(crate) fn sequenced(&self, kind: EntryKind, seconds: f64) {
        self.entries.add(1, &[KeyValue::new(label::KIND, kind.as_str())]);
        self.sequenced_s.record(seconds, &[]);
    }

    /// An entry was not taken.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.add(1, &[KeyValue::new(label::REASON, reason)]);
    }

    /// The log, or the copy of it, has so many entries.
    pub(crate) fn size(&self, entries: u64) {
        self.size.record(entries as f64, &[]);
    }

    /// A checkpoint counts, so long after the round with it began; so many witnesses have not cosigned it.
    pub(crate) fn published(&self, entries: u64, seconds: f64, behind: usize) {
        self.published.record(entries as f64, &[]);
        self.published_s.record(seconds, &[]);
        self.behind.record(behind as f64, &[]);
    }

    /// So many witnesses have not cosigned what was published last.
    pub(crate) fn behind(&self, witnesses: usize) {
        self.behind.record(witnesses as f64, &[]);
    }

    /// A witness has seen more of this log than its operator has.
    pub(crate) fn behind_witness(&self) {
        self.ahead.add(1, &[]);
    }

    /// What is served here counts.
    pub(crate) fn serves(&self, entries: u64) {
        self.published.record(entries as f64, &[]);
    }

    /// A quorum vouches for what is served here since then (POSIX seconds).
    pub(crate) fn vouched(&self, since_s: u64) {
        self.vouched.record(since_s as f64, &[]);
    }

    /// The store of checkpoints, or the own database, failed or was not reached.
    pub(crate) fn store_error(&self) {
        self.store_errors.add(1, &[]);
    }

    /// The witness was asked.
    pub(crate) fn cosigned(&self, result: &'static str) {
        self.cosigned.add(1, &[KeyValue::new(label::RESULT, result)]);
    }

    /// Evidence is new here.
    pub(crate) fn evidence(&self, kind: EvidenceKind) {
        self.evidence.add(1, &[KeyValue::new(label::KIND, kind.to_string())]);
    }

    /// So many members, the log among them, have not heard all evidence yet.
    pub(crate) fn untold(&self, targets: usize) {
        self.untold.record(targets as f64, &[]);
    }
}
