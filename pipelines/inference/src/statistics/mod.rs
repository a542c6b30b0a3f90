//! How good a score is: curves, calibration, intervals, counts, drift.
//!
//! Pure functions over scores and truths. Shares are fractions of 1; what would be 0/0 is `None`. NaN scores are a
//! caller's mistake and sort last.

mod bootstrap;
mod calibration;
mod confusion;
mod roc;
mod stability;

pub use bootstrap::{Interval, MAX_RESAMPLES, bootstrap};
pub use calibration::{Bin, Calibration, brier, calibration};
pub use confusion::{ClassMetrics, Confusion};
pub use roc::{RocPoint, auprc, auroc, roc_curve};
pub use stability::population_stability;

/// The median, the upper one of an even number; `None` of nothing. Reorders.
pub(crate) fn upper_median(values: &mut [f32]) -> Option<f32> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f32::total_cmp).1)
}
