//! The demo's report: one HTML file that a person looks at instead of reading logs.
//!
//! # Format
//! One self-contained HTML 5 page: style and script inline, drawings as SVG, nothing fetched. It is
//! complete without the script, which only folds all sections at once and reads values off charts.
//!
//! # Limits
//! [`MAX_PATIENTS`], [`MAX_EPISODES_PER_PATIENT`], [`MAX_STRIPS_PER_PATIENT`], [`MAX_STRIP_ROWS`]
//! and [`MAX_POINTS_PER_SERIES`] bound the page. What was left out is said where it would stand.
//!
//! # Trust
//! Every text is escaped by `maud`; flag texts and rules come from pipeline definitions and records.
//! The page shows readings and pseudonyms' labels: it belongs where the records belong.
//!
//! # Not guaranteed
//! The page is a rendering. What is proved is the record's bytes, by the proof file, not this page.

mod chart;
mod episode;
mod page;
mod scale;
pub(crate) mod strip;
mod trace;

use haar_schema::{FlaggedEvent, Subject, Timestamp, WindowDigest};
use std::collections::BTreeMap;

use trace::VitalSeries;

pub(crate) use page::document;
pub use page::render;

/// The most patients on one page.
pub const MAX_PATIENTS: usize = 200;
/// The most episodes listed per patient, the most urgent first.
pub const MAX_EPISODES_PER_PATIENT: usize = 60;
/// The most waveform strips drawn per patient.
pub const MAX_STRIPS_PER_PATIENT: usize = 8;
/// The most rows of ten seconds drawn of one strip.
pub const MAX_STRIP_ROWS: usize = 3;
/// The most points drawn per series; more are merged so that every minimum and maximum stays.
pub const MAX_POINTS_PER_SERIES: usize = 240;

/// Everything on the page.
pub struct Report {
    /// The heading.
    pub title: String,
    /// When the report was made.
    pub generated: Timestamp,
    /// The numbers on top.
    pub summary: Summary,
    /// From [`patients`].
    pub patients: Vec<Patient>,
}

/// The numbers of the whole run.
pub struct Summary {
    /// Readings that the edge took in.
    pub readings: u64,
    /// Windows committed.
    pub windows: u64,
    /// Flagged events committed.
    pub flags: u64,
    /// Bytes that devices sent.
    pub bytes_in: u64,
    /// Bytes committed upstream of the edge's hospital: leaves and checkpoints.
    pub bytes_committed: u64,
    /// From reading to flag, in milliseconds; `None` if nothing was flagged.
    pub latency_ms: Option<Latency>,
    /// Leaves in the site log.
    pub log_size: u64,
    /// Of them, how many a quorum of the members has witnessed.
    pub witnessed: u64,
    /// How many members there are.
    pub members: usize,
    /// The log's origin line.
    pub origin: String,
    /// Its root, as printed in its checkpoint.
    pub root: String,
}

/// Quantiles of the time from a reading to the flag that it raised, in milliseconds.
#[derive(Clone, Copy)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// One patient's card.
pub struct Patient {
    /// What the patient is called here, such as `bed-3`.
    pub label: String,
    vitals: Vec<VitalSeries>,
    flags: Vec<FlagEntry>,
}

/// One flagged event of the log.
pub struct FlagEntry {
    /// The record.
    pub event: FlaggedEvent,
    /// Its leaf in the site log.
    pub leaf_index: u64,
    /// What became of its proof.
    pub proof: ProofState,
    /// From the last reading of its window to the flag, in milliseconds, where it was measured.
    pub latency_ms: Option<f64>,
}

/// Whether a flag's inclusion proof was checked and held.
pub struct ProofState {
    /// It was checked and it held.
    pub verified: bool,
    /// If so, against what (tree size, key); if not, why.
    pub detail: String,
}

/// Sorts records into patients.
///
/// Vitals are read off the features of `digests`, one point at each window's end. Of a window that
/// was corrected only the last revision counts, for vitals and for flags alike: a flag whose window
/// no longer raises it is not drawn (it stays in the log). `label` names a subject on the page.
pub fn patients(
    digests: impl IntoIterator<Item = WindowDigest>,
    flags: impl IntoIterator<Item = FlagEntry>,
    label: impl Fn(Subject) -> String,
) -> Vec<Patient> {
    let mut windows = BTreeMap::new();
    for digest in digests {
        let known: &mut WindowDigest = windows.entry(digest.id).or_insert_with(|| digest.clone());
        if known.revision < digest.revision {
            *known = digest;
        }
    }
    let mut cards: BTreeMap<Subject, (Vec<&WindowDigest>, Vec<FlagEntry>)> = BTreeMap::new();
    for digest in windows.values() {
        cards.entry(digest.key.subject).or_default().0.push(digest);
    }
    for flag in flags {
        let revision = windows.get(&flag.event.window).map(|digest| digest.revision);
        if revision.is_none_or(|revision| revision == flag.event.revision) {
            cards.entry(flag.event.key.subject).or_default().1.push(flag);
        }
    }
    let mut patients: Vec<Patient> = cards
        .into_iter()
        .map(|(subject, (windows, mut flags))| {
            flags.sort_by_key(|flag| (flag.event.key.start_us, flag.leaf_index));
            Patient { label: label(subject), vitals: trace::series(&windows), flags }
        })
        .collect();
    // Shorter labels first, so that bed-2 stands before bed-10.
    patients.sort_by(|a, b| (a.label.len(), &a.label).cmp(&(b.label.len(), &b.label)));
    patients
}

#[cfg(test)]
mod tests;
