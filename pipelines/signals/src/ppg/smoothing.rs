//! A centred moving mean over a stream.

use std::collections::VecDeque;

/// The mean of each sample and `half` samples to either side of it; at both ends of the stream of those that
/// there are. Sample k comes out when sample k + `half` has gone in, or at the end.
#[derive(Clone, Debug)]
pub(super) struct CentredMean {
    half: usize,
    ring: VecDeque<f64>,
    sum: f64,
    taken: usize,
    given: usize,
}

impl CentredMean {
    pub(super) fn new(half: usize) -> Self {
        Self { half, ring: VecDeque::with_capacity(2 * half + 2), sum: 0.0, taken: 0, given: 0 }
    }

    /// The window nearest to `seconds` that has a middle.
    pub(super) fn spanning(seconds: f64, rate_hz: f64) -> Self {
        Self::new((seconds * rate_hz / 2.0).round() as usize)
    }

    pub(super) fn push(&mut self, value: f64) -> Option<f64> {
        self.ring.push_back(value);
        self.sum += value;
        self.taken += 1;
        (self.taken > self.half).then(|| self.give())
    }

    /// The next of the means that lack their right side, once the stream has ended.
    pub(super) fn drain(&mut self) -> Option<f64> {
        (self.given < self.taken).then(|| self.give())
    }

    fn give(&mut self) -> f64 {
        let first = self.given.saturating_sub(self.half);
        while self.ring.len() > self.taken - first {
            self.sum -= self.ring.pop_front().unwrap_or(0.0);
        }
        // A running sum keeps the rounding of every large value that has passed; begin afresh now and then.
        if self.given.is_multiple_of(2 * self.half + 1) {
            self.sum = self.ring.iter().sum();
        }
        self.given += 1;
        self.sum / self.ring.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(values: &[f64], half: usize) -> Vec<f64> {
        let mut mean = CentredMean::new(half);
        let mut out: Vec<f64> = values.iter().filter_map(|value| mean.push(*value)).collect();
        out.extend(std::iter::from_fn(|| mean.drain()));
        out
    }

    #[test]
    fn windows_shrink_at_both_ends() {
        assert_eq!(means(&[1.0, 3.0, 5.0, 7.0], 1), [2.0, 3.0, 5.0, 6.0]);
        assert_eq!(means(&[1.0, 3.0], 5), [2.0, 2.0]);
        assert_eq!(means(&[4.0, 2.0], 0), [4.0, 2.0]);
        assert_eq!(means(&[], 3), [0.0; 0]);
    }

    #[test]
    fn a_huge_value_leaves_no_trace() {
        let mut values = vec![1.0; 200];
        values[50] = 1e30;
        assert_eq!(means(&values, 4)[100..], [1.0; 100]);
    }
}
