//! From samples as they come to working samples: gaps bridged, the level taken off, the rate brought down.

use std::collections::VecDeque;
use std::ops::Range;

use crate::ecg::filter::is_sample;

/// Gaps up to this are bridged by a straight line, in seconds. After a longer one the signal goes on at the
/// level where it stopped, so that a lead that is put on again makes no step.
const BRIDGE_S: f64 = 0.1;

/// Samples that are looked at together for being samples at all.
const RUN: usize = 64;

/// Makes means of `divisor` samples each, less the level of the first sample.
pub(in crate::ecg) struct Front {
    divisor: usize,
    scale: f32,
    bridge: usize,
    level: f32,
    /// The last value given, and whether it is only held, for want of samples.
    held: f32,
    holding: bool,
    /// Samples missing since, not yet given.
    missing: usize,
    sum: f32,
    summed: usize,
    taken: usize,
    gaps: VecDeque<Range<usize>>,
}

impl Front {
    pub(in crate::ecg) fn new(divisor: usize, rate_hz: f64) -> Self {
        Self {
            divisor,
            scale: 1.0 / divisor as f32,
            bridge: (BRIDGE_S * rate_hz) as usize,
            level: 0.0,
            held: 0.0,
            holding: true,
            missing: 0,
            sum: 0.0,
            summed: 0,
            taken: 0,
            gaps: VecDeque::new(),
        }
    }

    /// Samples taken in so far.
    pub(in crate::ecg) fn taken(&self) -> usize {
        self.taken
    }

    /// Whether sample `at`, not yet forgotten, was missing.
    pub(in crate::ecg) fn is_missing(&self, at: usize) -> bool {
        let next = self.gaps.partition_point(|gap| gap.end <= at);
        self.gaps.get(next).is_some_and(|gap| gap.contains(&at))
    }

    pub(in crate::ecg) fn forget_before(&mut self, at: usize) {
        while self.gaps.front().is_some_and(|gap| gap.end <= at) {
            self.gaps.pop_front();
        }
    }

    pub(in crate::ecg) fn push(&mut self, mut mv: &[f32], out: &mut Vec<f32>) {
        while !mv.is_empty() {
            let samples = leading_samples(mv);
            self.push_samples(&mv[..samples], out);
            mv = &mv[samples..];
            let missing = mv.iter().take_while(|value| !is_sample(**value)).count();
            self.push_gap(missing, out);
            mv = &mv[missing..];
        }
    }

    /// The last working sample may be the mean of fewer.
    pub(in crate::ecg) fn finish(&mut self, out: &mut Vec<f32>) {
        self.hold_missing(out);
        if self.summed > 0 {
            out.push(self.sum / self.summed as f32);
            self.summed = 0;
        }
    }

    fn push_gap(&mut self, missing: usize, out: &mut Vec<f32>) {
        if missing == 0 {
            return;
        }
        let gap = self.taken..self.taken + missing;
        self.taken = gap.end;
        match self.gaps.back_mut() {
            Some(last) if last.end == gap.start => last.end = gap.end,
            _ => self.gaps.push_back(gap),
        }
        self.missing += missing;
        if self.holding || self.missing > self.bridge {
            self.hold_missing(out);
            self.holding = true;
        }
    }

    fn hold_missing(&mut self, out: &mut Vec<f32>) {
        for _ in 0..std::mem::take(&mut self.missing) {
            self.put(self.held, out);
        }
    }

    fn push_samples(&mut self, run: &[f32], out: &mut Vec<f32>) {
        let Some((first, mut rest)) = run.split_first() else { return };
        self.taken += run.len();
        if self.holding {
            self.level = first - self.held;
            self.holding = false;
        }
        let here = first - self.level;
        let missing = std::mem::take(&mut self.missing);
        let step = (here - self.held) / (missing + 1) as f32;
        for k in 1..=missing {
            self.put(self.held + step * k as f32, out);
        }
        self.put(here, out);
        self.held = run.last().map_or(here, |last| last - self.level);

        while self.summed > 0
            && let Some((value, after)) = rest.split_first()
        {
            self.put(value - self.level, out);
            rest = after;
        }
        let tail = match self.divisor {
            1 => self.put_means::<1>(rest, out),
            2 => self.put_means::<2>(rest, out),
            3 => self.put_means::<3>(rest, out),
            4 => self.put_means::<4>(rest, out),
            8 => self.put_means::<8>(rest, out),
            _ => rest,
        };
        for value in tail {
            self.put(value - self.level, out);
        }
    }

    /// As [`put`](Self::put) would, to the last bit; gives back what is left over.
    fn put_means<'a, const N: usize>(&self, run: &'a [f32], out: &mut Vec<f32>) -> &'a [f32] {
        let (whole, tail) = run.as_chunks::<N>();
        let (level, scale) = (self.level, self.scale);
        out.extend(whole.iter().map(|part| {
            let first = part[0] - level;
            part[1..].iter().fold(first, |sum, value| sum + (value - level)) * scale
        }));
        tail
    }

    fn put(&mut self, value: f32, out: &mut Vec<f32>) {
        self.sum = if self.summed == 0 { value } else { self.sum + value };
        self.summed += 1;
        if self.summed == self.divisor {
            out.push(self.sum * self.scale);
            self.summed = 0;
        }
    }
}

/// How many samples stand at the front, up to the first that is missing.
fn leading_samples(mv: &[f32]) -> usize {
    let mut samples = 0;
    for run in mv.chunks(RUN) {
        if run.iter().fold(true, |all, value| all & is_sample(*value)) {
            samples += run.len();
        } else {
            return samples + run.iter().take_while(|value| is_sample(**value)).count();
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    fn working(mv: &[f32], divisor: usize) -> Vec<f32> {
        let (mut front, mut out) = (Front::new(divisor, 50.0), Vec::new());
        front.push(mv, &mut out);
        front.finish(&mut out);
        out
    }

    #[test]
    fn short_gaps_become_straight_lines_and_long_ones_make_no_step() {
        let nan = f32::NAN;
        assert_eq!(
            working(&[nan, 1.0, nan, f32::INFINITY, 4.0, nan], 1),
            [0.0, 0.0, 1.0, 2.0, 3.0, 3.0]
        );
        let mut mv = vec![1.0, 2.0];
        mv.extend([nan; 6]);
        mv.extend([-300.0, -299.0]);
        assert_eq!(working(&mv, 1), [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0]);
        assert_eq!(working(&[nan; 4], 2), [0.0, 0.0]);
    }

    #[test]
    fn means_of_what_there_is() {
        assert_eq!(working(&[1.0, 3.0, 5.0, 7.0, 9.0], 2), [1.0, 5.0, 8.0]);
        assert_eq!(working(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 5), [2.0, 5.5]);
    }

    #[test]
    fn what_was_missing_is_known() {
        let (mut front, mut out) = (Front::new(3, 50.0), Vec::new());
        front.push(&[1.0, f32::NAN], &mut out);
        front.push(&[f32::NAN, 2.0, 1e9], &mut out);
        let missing: Vec<usize> = (0..6).filter(|at| front.is_missing(*at)).collect();
        assert_eq!(missing, [1, 2, 4]);
        front.forget_before(3);
        assert_eq!((front.gaps.len(), front.is_missing(4)), (1, true));
        assert_eq!(front.taken(), 5);
    }
}
