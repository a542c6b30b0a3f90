//! How a pipeline cuts event time, and the durations that say so.

use std::fmt;

/// The shortest slide: windows of one subject follow each other at least this far apart.
pub const MIN_SLIDE_US: i64 = 1_000_000;
/// The longest window. Its state is held in memory, once per subject.
pub const MAX_SIZE_US: i64 = 3_600_000_000;
/// The longest window over a waveform: five minutes, the length of a short-term HRV recording (Task
/// Force of the ESC and NASPE 1996, Circulation 93:1043).
pub const MAX_ECG_SIZE_US: i64 = 300_000_000;
/// The longest allowed lateness.
pub const MAX_LATENESS_US: i64 = 3_600_000_000;

/// Windows of a pipeline: `[k·slide, k·slide + size)` for whole k, in microseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowSpec {
    /// Length; a multiple of `slide_us`, from [`MIN_SLIDE_US`] to [`MAX_SIZE_US`].
    pub size_us: i64,
    /// From one start to the next. Also the length of a pane, since it divides the size.
    pub slide_us: i64,
    /// How long after its window closed a late reading still revises it.
    pub lateness_us: i64,
}

impl WindowSpec {
    /// Whether windows do not overlap.
    pub const fn is_tumbling(self) -> bool {
        self.size_us == self.slide_us
    }
}

/// For a person, such as `1min every 10s, revised by late readings for 30s`.
impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", duration(self.size_us))?;
        if !self.is_tumbling() {
            write!(f, " every {}", duration(self.slide_us))?;
        }
        if self.lateness_us > 0 {
            write!(f, ", revised by late readings for {}", duration(self.lateness_us))?;
        }
        Ok(())
    }
}

/// Why a text is no duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DurationError {
    #[error("not a duration")]
    Syntax,
    #[error("a duration has the unit `ms`, `s`, `min` or `h`")]
    Unit,
    #[error("a duration this long cannot be meant")]
    Overflow,
}

/// Reads a whole number and a unit, such as `250ms`, `60s`, `5min`, `1h`, into microseconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(DurationError::Syntax);
    }
    let unit_us = match unit {
        "ms" => 1_000,
        "s" => 1_000_000,
        "min" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(DurationError::Unit),
    };
    let number: i64 = number.parse().map_err(|_| DurationError::Overflow)?;
    number.checked_mul(unit_us).ok_or(DurationError::Overflow)
}

/// Writes microseconds the way [`parse_duration`] reads them, in the largest unit that is exact.
pub(crate) fn duration(micros: i64) -> String {
    for (unit, unit_us) in [("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000)] {
        if micros != 0 && micros % unit_us == 0 {
            return format!("{}{unit}", micros / unit_us);
        }
    }
    if micros == 0 { "0s".to_owned() } else { format!("{}ms", micros / 1_000) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(parse_duration("250ms"), Ok(250_000));
        assert_eq!(parse_duration("60s"), Ok(60_000_000));
        assert_eq!(parse_duration("5min"), Ok(300_000_000));
        assert_eq!(parse_duration("1h"), Ok(3_600_000_000));
        assert_eq!(parse_duration(""), Err(DurationError::Syntax));
        assert_eq!(parse_duration("-1s"), Err(DurationError::Syntax));
        assert_eq!(parse_duration("60"), Err(DurationError::Unit));
        assert_eq!(parse_duration("60 s"), Err(DurationError::Unit));
        assert_eq!(parse_duration("9999999999999h"), Err(DurationError::Overflow));
    }

    #[test]
    fn windows_are_told_to_a_person() {
        let mut window =
            WindowSpec { size_us: 60_000_000, slide_us: 10_000_000, lateness_us: 30_000_000 };
        assert_eq!(window.to_string(), "1min every 10s, revised by late readings for 30s");
        window.slide_us = window.size_us;
        window.lateness_us = 0;
        assert_eq!(window.to_string(), "1min");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(millis in 0i64..10_000_000) {
            let micros = millis * 1_000;
            prop_assert_eq!(parse_duration(&duration(micros)), Ok(micros));
        }
    }
}
