//! The recent readings of one vital of one patient.

use std::collections::VecDeque;

use super::missingness::{Missingness, Reading, missingness};
use super::{Trend, TrendError, Variability, trend, variability};

/// A history holds at most so many readings: those of an hour at one a second, and some. Of more it
/// forgets the oldest.
pub const MAX_READINGS: usize = 4_096;

/// The readings within a horizon before the newest. The same readings give the same history in whatever
/// pieces they come, as long as none is later than the horizon.
#[derive(Clone, Debug)]
pub struct History {
    horizon_us: i64,
    readings: VecDeque<Reading>,
}

impl History {
    /// Keeps so many microseconds (at least one) before the newest reading, and the last reading before
    /// them, which says what held when they began.
    pub fn new(horizon_us: i64) -> Self {
        Self { horizon_us: horizon_us.max(1), readings: VecDeque::new() }
    }

    /// Adds a reading at its place in time. One at a time that is there already takes its place.
    pub fn push(&mut self, reading: Reading) {
        let place = self.readings.partition_point(|other| other.time_us < reading.time_us);
        match self.readings.get_mut(place) {
            Some(other) if other.time_us == reading.time_us => *other = reading,
            _ => self.readings.insert(place, reading),
        }
        let newest = self.readings.back().map_or(reading.time_us, |last| last.time_us);
        let begin = newest.saturating_sub(self.horizon_us);
        while self.readings.len() > MAX_READINGS
            || self.readings.get(1).is_some_and(|second| second.time_us <= begin)
        {
            self.readings.pop_front();
        }
    }

    /// The newest value, and its age at `now_us` in microseconds (not below zero).
    pub fn last(&self, now_us: i64) -> Option<(f64, i64)> {
        let (time_us, value) = self.values_since(i64::MIN).pop()?;
        Some((value, now_us.saturating_sub(time_us).max(0)))
    }

    /// Trend of the values of the last `over_us` before the newest reading; its slope is the rate of change.
    pub fn trend(&self, over_us: i64) -> Result<Trend, TrendError> {
        trend(&self.values_since(self.since(over_us)))
    }

    /// Variability of the values of the last `over_us` before the newest reading.
    pub fn variability(&self, over_us: i64) -> Result<Variability, TrendError> {
        let values: Vec<f64> =
            self.values_since(self.since(over_us)).into_iter().map(|(_, value)| value).collect();
        variability(&values)
    }

    /// What was known in the last `over_us` before `now_us`, if a value counts for `validity_us`.
    pub fn missingness(&self, now_us: i64, over_us: i64, validity_us: i64) -> Missingness {
        let readings: Vec<Reading> = self.readings.iter().copied().collect();
        missingness(&readings, now_us.saturating_sub(over_us)..now_us, validity_us)
    }

    fn since(&self, over_us: i64) -> i64 {
        self.readings.back().map_or(i64::MIN, |last| last.time_us.saturating_sub(over_us))
    }

    fn values_since(&self, since_us: i64) -> Vec<(i64, f64)> {
        self.readings
            .iter()
            .filter(|reading| reading.time_us >= since_us)
            .filter_map(|reading| Some((reading.time_us, reading.value.ok()?)))
            .filter(|(_, value)| value.is_finite())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Unmeasured;
    use super::*;
    use proptest::prelude::*;

    const MINUTE: i64 = 60_000_000;

    #[test]
    fn keeps_the_horizon_and_answers() {
        let mut history = History::new(60 * MINUTE);
        for minute in 0..180 {
            history.push(Reading { time_us: minute * MINUTE, value: Ok(70.0 + minute as f64) });
        }
        history.push(Reading { time_us: 180 * MINUTE, value: Err(Unmeasured::Artefact) });
        assert_eq!(history.last(182 * MINUTE), Some((249.0, 3 * MINUTE)));
        assert!((history.trend(30 * MINUTE).unwrap().slope_per_hour - 60.0).abs() < 1e-9);
        assert_eq!(history.trend(30 * MINUTE).unwrap().readings, 30);
        assert_eq!(history.variability(10 * MINUTE).unwrap().rmssd, 1.0);
        let known = history.missingness(185 * MINUTE, 10 * MINUTE, 2 * MINUTE);
        assert_eq!(
            (known.measured_us, known.artefact_us, known.stale_us),
            (5 * MINUTE, 2 * MINUTE, 3 * MINUTE)
        );
        assert_eq!(History::new(5).last(0), None);
    }

    proptest! {
        #[test]
        fn the_order_within_the_horizon_does_not_matter(
            mut times in proptest::collection::vec(0i64..1_000, 1..60), swap in 0usize..60,
        ) {
            times.sort_unstable();
            times.dedup();
            let fill = |times: &[i64]| {
                let mut history = History::new(2_000);
                for time_us in times {
                    history.push(Reading { time_us: *time_us, value: Ok(*time_us as f64) });
                }
                history.readings
            };
            let mut other = times.clone();
            other.rotate_left(swap % times.len());
            prop_assert_eq!(fill(&times), fill(&other));
        }
    }
}
