//! How long to wait before the next attempt: exponential, capped, with jitter, so that a hospital's edges do not all
//! come back in the same instant.

use std::time::Duration;

/// Doublings after which the wait no longer grows, whatever the cap.
const MAX_DOUBLINGS: u32 = 16;

/// The waits of one thing that is tried again and again.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// It worked: the next failure begins with the shortest wait.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: between half and all of min × 2^failures, at most max.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let whole = self.min.saturating_mul(1 << self.failures.min(MAX_DOUBLINGS)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let jitter = f64::from(random) / (f64::from(u32::MAX) + 1.0);
        whole.mul_f64(0.5 + jitter / 2.0)
    }

    /// [`Backoff::next`] with the system's random numbers; without any, the longest of the range.
    pub(crate) fn next_random(&mut self) -> Duration {
        self.next(getrandom::u32().unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let shortest: Vec<u128> = (0..5).map(|_| backoff.next(0).as_millis()).collect();
        assert_eq!(shortest, [50, 100, 200, 400, 500]);
        for _ in 0..100 {
            assert!(backoff.next(u32::MAX) <= Duration::from_secs(1));
        }
        backoff.reset();
        assert_eq!(backoff.next(0).as_millis(), 50);
    }
}
