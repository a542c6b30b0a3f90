//! What a record is about, and what of it is shown.
//!
//! | kind | leaves | shown | its time |
//! |---|---|---|---|
//! | vitals | window digests, corrections | all of it | the window's beginning |
//! | waveform | flagged events | the strip | the window's beginning |
//! | flagged-event | flagged events | all but the strip | the window's beginning |
//! | alarm | alarm transitions | all but who of the staff did it and who was told | the end of the newest window that voted on it |
//! | parameters | parameters of patients | version, effective time, the signed note | the effective time |

use haar_alarms::Transition;
use haar_catalog::parameters::Parameters;
use haar_ledger::LeafKind;
use haar_ledger::consent::DataKind;
use haar_schema::{Subject, Timestamp, WindowKey};
use serde_json::{Value, json};

/// A record that may be answered.
pub(super) struct Shown {
    pub(super) subject: Subject,
    /// First and last moment that it is about; equal where it is about one.
    pub(super) span: (Timestamp, Timestamp),
    /// What computed it, if it is of a window.
    pub(super) pipeline: Option<String>,
    pub(super) body: Value,
}

impl Shown {
    /// Its time, in POSIX seconds.
    pub(super) fn event_s(&self) -> u64 {
        u64::try_from(self.span.0.micros().div_euclid(1_000_000)).unwrap_or(0)
    }

    /// A leaf's record as one of this kind; `None` if it is none, or has nothing of it.
    pub(super) fn read(kind: DataKind, body: &[u8]) -> Option<Self> {
        match kind {
            DataKind::Alarm => transition(body),
            DataKind::Parameters => parameters(body),
            kind => window(kind, body),
        }
    }
}

/// The kinds of leaves that have records of this kind; none for a kind that is not served.
pub(super) fn leaves(kind: DataKind) -> &'static [LeafKind] {
    match kind {
        DataKind::Vitals => &[LeafKind::WindowDigest, LeafKind::Correction],
        DataKind::Waveform | DataKind::FlaggedEvent => &[LeafKind::FlaggedEvent],
        DataKind::Alarm => &[LeafKind::AlarmTransition],
        DataKind::Parameters => &[LeafKind::PatientParameters],
        _ => &[],
    }
}

fn window(kind: DataKind, body: &[u8]) -> Option<Shown> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let key: WindowKey = serde_json::from_value(body["key"].clone()).ok()?;
    let strip = body.as_object_mut().and_then(|body| body.remove("strip"));
    if kind == DataKind::Waveform {
        body = strip.filter(|strip| !strip.is_null())?;
    }
    let span = (key.start_us, key.end_us);
    Some(Shown { subject: key.subject, span, pipeline: Some(key.pipeline), body })
}

fn transition(body: &[u8]) -> Option<Shown> {
    let transition = Transition::from_json(body).ok()?;
    let mut body: Value = serde_json::from_slice(body).ok()?;
    // An alarm of the site itself is nobody's.
    let subject = transition.subject?;
    if let Some(body) = body.as_object_mut() {
        body.remove("by");
        body.remove("notify");
    }
    let span = (transition.event_us, transition.event_us);
    Some(Shown { subject, span, pipeline: None, body })
}

fn parameters(note: &[u8]) -> Option<Shown> {
    let own = Parameters::unverified(note).ok()?;
    let note = std::str::from_utf8(note).ok()?;
    let (version, effective_us) = (own.version, own.effective.micros());
    let body = json!({ "version": version, "effective_us": effective_us, "note": note });
    let span = (own.effective, own.effective);
    Some(Shown { subject: own.subject, span, pipeline: None, body })
}
