//! Motion and place: activity, posture and falls from a tri-axial accelerometer, and dwell per zone.
//!
//! Acceleration is in g, gravity included, so that a sensor at rest reads 1 g in length; sampling is even, and
//! a lost sample is NaN in any axis. All forms here take one sample at a time and keep what they need: the
//! same samples give the same results to the bit, however they were cut into frames.
//!
//! [`Posture`] wants to know how the sensor sits on the body: worn on the chest with x to the wearer's left,
//! y to the head and z to the front. [`Activity`] and [`Falls`] do not care.

mod activity;
mod fall;
mod posture;
mod zones;

pub use activity::{Activity, EPOCH_S, Epoch};
pub use fall::{FallCandidate, Falls};
pub use posture::{Posture, PostureChange, PostureTracker};
pub use zones::{Dwell, MAX_ZONES, ZoneDwell};

/// The lowest sampling rate that is taken: falls are over in a tenth of a second.
pub const MIN_RATE_HZ: f64 = 10.0;

/// The highest: what is buffered is bounded by it.
pub const MAX_RATE_HZ: f64 = 1_600.0;

/// The sampling rate is outside of [`MIN_RATE_HZ`] to [`MAX_RATE_HZ`].
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "{rate_hz} Hz: an accelerometer is sampled at {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz here, resample it"
)]
#[non_exhaustive]
pub struct RateOutOfRange {
    /// The rate that was given.
    pub rate_hz: f64,
}

/// So many seconds in samples, at least one.
fn samples(seconds: f64, rate: haar_schema::SampleRate) -> Result<usize, RateOutOfRange> {
    let rate_hz = rate.hz();
    if !(MIN_RATE_HZ..=MAX_RATE_HZ).contains(&rate_hz) {
        return Err(RateOutOfRange { rate_hz });
    }
    Ok(((seconds * rate_hz).round() as usize).max(1))
}

/// Length of an acceleration in g; `None` for a lost sample or one beyond 64 g, which no sensor measures.
fn length(g: [f32; 3]) -> Option<f64> {
    let squares: f64 = g.iter().map(|axis| f64::from(*axis).powi(2)).sum();
    (squares <= 64.0 * 64.0).then(|| squares.sqrt())
}

/// Angle between two directions in degrees; `None` if one has no length.
fn angle_deg(a: [f64; 3], b: [f64; 3]) -> Option<f64> {
    let dot = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (lengths > 0.0).then(|| (dot(a, b) / lengths).clamp(-1.0, 1.0).acos().to_degrees())
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_schema::SampleRate;

    #[test]
    fn rates_and_lengths() {
        let rate = |hz| SampleRate::from_hz(hz).unwrap();
        assert_eq!(samples(0.5, rate(50)), Ok(25));
        let error = samples(0.5, rate(5)).unwrap_err();
        assert!(error.to_string().starts_with("5 Hz: an accelerometer"), "{error}");
        assert_eq!(length([3.0, 4.0, 0.0]), Some(5.0));
        assert_eq!(length([f32::NAN, 0.0, 0.0]), None);
        assert_eq!(length([f32::INFINITY, 0.0, 0.0]), None);
        assert!((angle_deg([0.0, 1.0, 0.0], [0.0, 0.0, 2.0]).unwrap() - 90.0).abs() < 1e-9);
        assert_eq!(angle_deg([0.0; 3], [0.0, 0.0, 2.0]), None);
    }
}
