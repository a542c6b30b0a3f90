//! Where a window has no value, and why.

use std::ops::Range;

/// One reading of a vital, or the news that there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Event time in microseconds.
    pub time_us: i64,
    /// The value in the vital's unit, or why there is none. A value that is not finite is an artefact.
    pub value: Result<f64, Unmeasured>,
}

/// What a device says instead of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmeasured {
    /// Switched off, or taken off the patient. Lasts until the next reading.
    DeviceOff,
    /// A value that is none: motion, a bad contact, beyond what can be.
    Artefact,
}

/// A window's microseconds by what was known in them; they add up to its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missingness {
    /// A value that still counted.
    pub measured_us: i64,
    /// Before the first reading of all.
    pub never_measured_us: i64,
    /// Device off.
    pub device_off_us: i64,
    /// After an artefact, as long as a value would have counted.
    pub artefact_us: i64,
    /// After the last reading stopped counting, device on: nobody measured again.
    pub stale_us: i64,
}

impl Missingness {
    /// Share of the window with a value that counts, 0–1; `None` of an empty window.
    pub fn coverage(&self) -> Option<f64> {
        let all = self.measured_us
            + self.never_measured_us
            + self.device_off_us
            + self.artefact_us
            + self.stale_us;
        (all > 0).then(|| self.measured_us as f64 / all as f64)
    }

    fn add(&mut self, kind: Kind, us: i64) {
        match kind {
            Kind::Measured => self.measured_us += us,
            Kind::NeverMeasured => self.never_measured_us += us,
            Kind::DeviceOff => self.device_off_us += us,
            Kind::Artefact => self.artefact_us += us,
            Kind::Stale => self.stale_us += us,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Measured,
    NeverMeasured,
    DeviceOff,
    Artefact,
    Stale,
}

/// Accounts for every microsecond of `window_us`.
///
/// A value, as well as an artefact, counts from its time for `validity_us` or until the next reading; then
/// it is stale. `readings` in rising order of time (of equal times the last holds), and from before the
/// window too, or its beginning counts as never measured. An empty or reversed window has nothing.
pub fn missingness(readings: &[Reading], window_us: Range<i64>, validity_us: i64) -> Missingness {
    let mut account = Missingness::default();
    if window_us.is_empty() {
        return account;
    }
    let mut spend = |kind: Kind, from_us: i64, to_us: i64| {
        let us = to_us.min(window_us.end).saturating_sub(from_us.max(window_us.start));
        account.add(kind, us.max(0));
    };
    let first = readings.first().map_or(i64::MAX, |reading| reading.time_us);
    spend(Kind::NeverMeasured, i64::MIN, first);
    for (index, reading) in readings.iter().enumerate() {
        let next = readings.get(index + 1).map_or(i64::MAX, |next| next.time_us);
        let valid = reading.time_us.saturating_add(validity_us.max(0)).min(next);
        match reading.value {
            Err(Unmeasured::DeviceOff) => spend(Kind::DeviceOff, reading.time_us, next),
            Ok(value) if value.is_finite() => {
                spend(Kind::Measured, reading.time_us, valid);
                spend(Kind::Stale, valid, next);
            }
            Ok(_) | Err(Unmeasured::Artefact) => {
                spend(Kind::Artefact, reading.time_us, valid);
                spend(Kind::Stale, valid, next);
            }
        }
    }
    account
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn readings(of: &[(i64, Result<f64, Unmeasured>)]) -> Vec<Reading> {
        of.iter().map(|(time_us, value)| Reading { time_us: *time_us, value: *value }).collect()
    }

    #[test]
    fn every_reason_by_hand() {
        let readings = readings(&[
            (10, Ok(80.0)),
            (20, Err(Unmeasured::Artefact)),
            (50, Ok(82.0)),
            (55, Err(Unmeasured::DeviceOff)),
            (90, Ok(f64::NAN)),
        ]);
        let found = missingness(&readings, 0..100, 15);
        let expected = Missingness {
            never_measured_us: 10,
            measured_us: 10 + 5,
            artefact_us: 15 + 10,
            stale_us: 15,
            device_off_us: 35,
        };
        assert_eq!(found, expected);
        assert_eq!(found.coverage(), Some(0.15));
        assert_eq!(missingness(&[], 0..100, 15).never_measured_us, 100);
        assert_eq!(missingness(&readings, 7..7, 15).coverage(), None);
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole_and_windows_add_up(
            times in proptest::collection::vec((0i64..1_000, 0u8..4), 0..30),
            cut in 0i64..1_000, validity in 0i64..100,
        ) {
            let mut all: Vec<Reading> = times.iter().map(|(time_us, kind)| Reading {
                time_us: *time_us,
                value: match kind {
                    0 => Err(Unmeasured::DeviceOff),
                    1 => Err(Unmeasured::Artefact),
                    _ => Ok(f64::from(*kind)),
                },
            }).collect();
            all.sort_by_key(|reading| reading.time_us);
            let sum = |m: Missingness| {
                m.measured_us + m.never_measured_us + m.device_off_us + m.artefact_us + m.stale_us
            };
            let whole = missingness(&all, 0..1_000, validity);
            let (left, right) =
                (missingness(&all, 0..cut, validity), missingness(&all, cut..1_000, validity));
            prop_assert_eq!(sum(whole), 1_000);
            prop_assert_eq!(left.measured_us + right.measured_us, whole.measured_us);
            prop_assert_eq!(left.stale_us + right.stale_us, whole.stale_us);
        }
    }
}
