//! Count, mean, deviation, extremes and slope of a scalar series, in one mergeable value.
//!
//! Sums are kept around the first value and the first time that were added, so that neither a large
//! level nor a large clock cancels digits away. [`Moments::merge`] moves one side's sums to the other's
//! origin (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", for two-part
//! updates; the slope is ordinary least squares of value on time).

/// Mergeable moments of `(time, value)` pairs. Times in microseconds, slope in units per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    count: u64,
    origin_us: i64,
    origin: f64,
    sum: f64,
    sum_squares: f64,
    seconds: f64,
    seconds_squares: f64,
    seconds_times_value: f64,
    min: f64,
    max: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self {
            count: 0,
            origin_us: 0,
            origin: 0.0,
            sum: 0.0,
            sum_squares: 0.0,
            seconds: 0.0,
            seconds_squares: 0.0,
            seconds_times_value: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Moments {
    /// Adds a finite value at a time.
    #[inline]
    pub fn add(&mut self, time_us: i64, value: f64) {
        if self.count == 0 {
            self.origin_us = time_us;
            self.origin = value;
        }
        let seconds = time_us.wrapping_sub(self.origin_us) as f64 * 1e-6;
        let offset = value - self.origin;
        self.count += 1;
        self.sum += offset;
        self.sum_squares += offset * offset;
        self.seconds += seconds;
        self.seconds_squares += seconds * seconds;
        self.seconds_times_value += seconds * offset;
        // Comparisons and not f64::min: the values are finite, and this is one instruction.
        if value < self.min {
            self.min = value;
        }
        if value > self.max {
            self.max = value;
        }
    }

    /// Adds everything that `other` has seen.
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let n = other.count as f64;
        let dt = other.origin_us.wrapping_sub(self.origin_us) as f64 * 1e-6;
        let dv = other.origin - self.origin;
        self.count += other.count;
        self.sum += other.sum + n * dv;
        self.sum_squares += other.sum_squares + dv * (2.0 * other.sum + n * dv);
        self.seconds += other.seconds + n * dt;
        self.seconds_squares += other.seconds_squares + dt * (2.0 * other.seconds + n * dt);
        self.seconds_times_value +=
            other.seconds_times_value + dv * other.seconds + dt * other.sum + n * dt * dv;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many values.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Arithmetic mean; `None` without values.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.origin + self.sum / self.count as f64)
    }

    /// Smallest value.
    pub fn min(&self) -> Option<f64> {
        (self.count > 0).then_some(self.min)
    }

    /// Largest value.
    pub fn max(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max)
    }

    /// Sample standard deviation (n − 1); `None` with fewer than two values.
    pub fn standard_deviation(&self) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        let n = self.count as f64;
        let squares = self.sum_squares - self.sum * self.sum / n;
        Some((squares.max(0.0) / (n - 1.0)).sqrt())
    }

    /// How many evenly spaced values, `1 / rate_hz` seconds apart, would have times as far spread as
    /// these: as many as there are for an unbroken run, more for one with holes. From the variance of n
    /// points at distance d, d²(n² − 1)/12. `None` without values.
    pub fn evenly_spaced(&self, rate_hz: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let n = self.count as f64;
        let variance = self.seconds_squares / n - (self.seconds / n) * (self.seconds / n);
        Some((12.0 * variance.max(0.0) * rate_hz * rate_hz + 1.0).sqrt())
    }

    /// Least-squares slope in units per second; `None` without two different times.
    pub fn slope_per_s(&self) -> Option<f64> {
        let n = self.count as f64;
        let spread = n * self.seconds_squares - self.seconds * self.seconds;
        // Equal times leave rounding noise here, a microsecond apart does not.
        (self.count > 1 && spread > 1e-13 * n * n)
            .then(|| (n * self.seconds_times_value - self.seconds * self.sum) / spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn holes_show_in_the_spread_of_times() {
        let of = |seconds: &[i64]| {
            let mut moments = Moments::default();
            seconds.iter().for_each(|second| moments.add(second * 1_000_000, 1.0));
            moments.evenly_spaced(1.0)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7]), Some(1.0));
        let run: Vec<i64> = (50..60).rev().collect();
        assert!((of(&run).unwrap() - 10.0).abs() < 1e-9);
        let holed: Vec<i64> = (0..5).chain(55..60).collect();
        assert!(of(&holed).unwrap() > 60.0);
    }

    #[test]
    fn of_nothing_and_of_one() {
        let mut moments = Moments::default();
        assert_eq!(moments.mean(), None);
        assert_eq!(moments.min(), None);
        moments.add(5, 3.0);
        assert_eq!(moments.mean(), Some(3.0));
        assert_eq!(moments.standard_deviation(), None);
        assert_eq!(moments.slope_per_s(), None);
        moments.add(5, 4.0);
        assert_eq!(moments.slope_per_s(), None);
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole(
            values in proptest::collection::vec((0i64..60_000_000, -50.0..200.0f64), 1..80),
            cut in 0usize..80,
        ) {
            let base = 1_795_000_000_000_000;
            let cut = cut.min(values.len());
            let (mut left, mut right, mut whole) = Default::default();
            let fill = |moments: &mut Moments, part: &[(i64, f64)]| {
                for (time, value) in part { moments.add(base + time, *value); }
            };
            fill(&mut left, &values[..cut]);
            fill(&mut right, &values[cut..]);
            fill(&mut whole, &values);
            left.merge(&right);
            let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * (1.0 + a.abs()),
                (a, b) => a == b,
            };
            prop_assert_eq!(left.count(), whole.count());
            prop_assert_eq!((left.min(), left.max()), (whole.min(), whole.max()));
            prop_assert!(near(left.mean(), whole.mean()));
            prop_assert!(near(left.standard_deviation(), whole.standard_deviation()));
            prop_assert!(near(left.slope_per_s(), whole.slope_per_s()));

            // And the whole is what the textbook says, in two passes.
            let n = values.len() as f64;
            let mean = values.iter().map(|v| v.1).sum::<f64>() / n;
            prop_assert!(near(whole.mean(), Some(mean)));
            if values.len() > 1 {
                let squares: f64 = values.iter().map(|v| (v.1 - mean).powi(2)).sum();
                prop_assert!(near(whole.standard_deviation(), Some((squares / (n - 1.0)).sqrt())));
            }
        }
    }
}
