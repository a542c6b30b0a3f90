//! Faults of devices, counted by kind.

use haar_inference::faults::FaultKind;
use haar_schema::FlaggedEvent;
use haar_telemetry::{Counter, KeyValue, Metrics, names};

/// Counts what stands behind flagged windows of devices.
pub(crate) struct FaultCounter(Counter<u64>);

impl FaultCounter {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self(metrics.counter(&names::FOG_DEVICE_FAULTS))
    }

    /// Counts a flagged event that was committed; one of something else is passed over.
    pub(crate) fn note(&self, event: &FlaggedEvent) {
        for kind in kinds(event) {
            let labels = [
                KeyValue::new(names::label::FLAG, event.flag.clone()),
                KeyValue::new(names::label::KIND, kind.name()),
            ];
            self.0.add(1, &labels);
        }
    }
}

/// The kinds of fault behind an event: its scores are named `<signal>.<kind>`, see [`haar_dataflow::device`].
fn kinds(event: &FlaggedEvent) -> impl Iterator<Item = FaultKind> {
    event.scores.iter().filter_map(|score| {
        let (_, name) = score.name.split_once('.')?;
        FaultKind::ALL.into_iter().find(|kind| kind.name() == name)
    })
}
