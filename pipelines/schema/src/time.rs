//! Event time and sample rates.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A point on the time line: microseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// Signed, so that times before 1970 (and the synthetic time lines of tests and benches) are
/// ordinary values. Arithmetic saturates: a time that a device invented must not overflow a window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// Why a text is not a [`Timestamp`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimestampError {
    /// Not an RFC 3339 date and time with an offset.
    #[error("not an RFC 3339 time such as 2026-11-22T20:15:00.250Z")]
    Syntax,
}

impl Timestamp {
    /// Earlier than every reading; the watermark before the first mark.
    pub const MIN: Self = Self(i64::MIN);
    /// Later than every reading.
    pub const MAX: Self = Self(i64::MAX);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded towards the past.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// This time moved by `micros` (negative: into the past).
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to `self`.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The latest multiple of `step_us` that is not after this time. `step_us` must be positive.
    #[must_use]
    pub const fn floor_to(self, step_us: i64) -> Self {
        Self(self.0.div_euclid(step_us).saturating_mul(step_us))
    }

    /// Reads an RFC 3339 date and time with offset.
    ///
    /// # Errors
    /// [`TimestampError::Syntax`] if it is not one.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimestampError> {
        let parsed: jiff::Timestamp = text.parse().map_err(|_| TimestampError::Syntax)?;
        Ok(Self(parsed.as_microsecond()))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC where the time is a date that has one, else `@` and microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "@{}us", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A sampling rate in millihertz, so that 360 Hz and 0.1 Hz are both exact. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SampleRate(u32);

impl SampleRate {
    /// From millihertz; `None` for zero.
    pub const fn from_millihertz(millihertz: u32) -> Option<Self> {
        if millihertz == 0 { None } else { Some(Self(millihertz)) }
    }

    /// From whole hertz; `None` for zero or more than 4 MHz.
    pub const fn from_hz(hz: u32) -> Option<Self> {
        match hz.checked_mul(1_000) {
            Some(millihertz) => Self::from_millihertz(millihertz),
            None => None,
        }
    }

    /// Millihertz.
    pub const fn millihertz(self) -> u32 {
        self.0
    }

    /// Hertz.
    pub fn hz(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }

    /// The time of sample `index` in a run that began at `start`, rounded down to the microsecond.
    /// Computed from the start, not summed, so that no error accumulates.
    pub const fn sample_time(self, start: Timestamp, index: u64) -> Timestamp {
        let micros = (index as u128 * 1_000_000_000) / self.0 as u128;
        start.plus_micros(if micros > i64::MAX as u128 { i64::MAX } else { micros as i64 })
    }
}

impl TryFrom<u32> for SampleRate {
    type Error = &'static str;
    fn try_from(millihertz: u32) -> Result<Self, Self::Error> {
        Self::from_millihertz(millihertz).ok_or("a sample rate of zero")
    }
}

impl From<SampleRate> for u32 {
    fn from(rate: SampleRate) -> Self {
        rate.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_times_do_not_drift() {
        let rate = SampleRate::from_hz(360).unwrap();
        let start = Timestamp::from_micros(-7);
        assert_eq!(rate.sample_time(start, 0), start);
        assert_eq!(rate.sample_time(start, 1).micros(), -7 + 2_777);
        // A whole day later the sample stands on the second again.
        assert_eq!(rate.sample_time(start, 360 * 86_400).micros_since(start), 86_400_000_000);
    }

    #[test]
    fn floor_goes_to_the_past_before_1970_too() {
        assert_eq!(Timestamp::from_millis(-1).floor_to(10_000_000).micros(), -10_000_000);
        assert_eq!(Timestamp::from_millis(19_999).floor_to(10_000_000).micros(), 10_000_000);
    }

    #[test]
    fn rfc3339_in_and_out() {
        let time = Timestamp::parse_rfc3339("2026-11-22T21:15:00.25+01:00").unwrap();
        assert_eq!(time.to_string(), "2026-11-22T20:15:00.25Z");
        assert!(Timestamp::parse_rfc3339("yesterday").is_err());
        assert_eq!(Timestamp::MAX.to_string(), format!("@{}us", i64::MAX));
    }
}
