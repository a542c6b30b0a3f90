//! From candidates to beats: thresholds that follow the signal, and search back in gaps of the rhythm.

use std::collections::VecDeque;

use super::candidates::Candidate;

/// Within this of a stronger complex a weak one is its P or T wave, in seconds (Pan & Tompkins: 360 ms).
const WAVE_S: f64 = 0.36;

/// And "weak" is less than this share of it (ibid.: half of the slope).
const WAVE_SHARE: f32 = 0.5;

/// Blocks in which the strongest complex is sought, in seconds: each holds a beat from 40 per minute up.
const BLOCK_S: f64 = 1.5;

/// Blocks before and after from which the usual strength is taken.
const BLOCKS_BEFORE: usize = 4;
const BLOCKS_AFTER: usize = 4;

/// At the beginning so many blocks are waited for at least.
const BLOCKS_FIRST: usize = 5;

/// Rank of the usual strength among them; below the median, because ectopic beats are often the stronger.
const USUAL_RANK: f64 = 0.45;

/// A complex has at least this share of the usual strength.
const THRESHOLD: f32 = 0.35;

/// And in a gap of the rhythm at least this one.
const SEARCH_BACK_THRESHOLD: f32 = 0.2;

/// A gap is longer than this many usual intervals.
const GAP: f64 = 1.5;

/// A longer one, in seconds, is searched no more: the rhythm has ended there. It bounds the delay.
const GAP_MAX_S: f64 = 6.0;

/// Intervals on either side from which the usual one is taken.
const INTERVALS_AROUND: usize = 4;

/// Those after a gap end within this of it, in seconds.
const INTERVALS_AFTER_S: f64 = 6.0;

/// Candidates that await their threshold.
pub(super) struct Thresholds {
    block: usize,
    near: usize,
    waiting: VecDeque<Candidate>,
    /// The candidate before those.
    before: Option<Candidate>,
    /// Strongest of each block; the first is block `first`.
    strongest: VecDeque<f32>,
    first: usize,
    /// The next block whose candidates are decided.
    next: usize,
}

/// A candidate with its share of the usual strength.
pub(super) struct Complex {
    pub(super) candidate: Candidate,
    share: f32,
}

impl Thresholds {
    pub(super) fn new(rate_hz: f64) -> Self {
        Self {
            block: ((BLOCK_S * rate_hz) as usize).max(1),
            near: (WAVE_S * rate_hz) as usize,
            waiting: VecDeque::new(),
            before: None,
            strongest: VecDeque::new(),
            first: 0,
            next: 0,
        }
    }

    /// Candidates come in order.
    pub(super) fn push(&mut self, candidate: Candidate) {
        let block = candidate.at / self.block - self.first;
        if block >= self.strongest.len() {
            self.strongest.resize(block + 1, 0.0);
        }
        self.strongest[block] = self.strongest[block].max(candidate.strength);
        self.waiting.push_back(candidate);
    }

    /// Decides what can be once all candidates before `frontier` are here; gives the place before which
    /// everything is decided.
    pub(super) fn advance(&mut self, frontier: usize, mut complex: impl FnMut(Complex)) -> usize {
        while (self.last_needed() + 1) * self.block <= frontier {
            self.decide(&mut complex);
        }
        self.next * self.block
    }

    /// Decides the rest: no more candidates come.
    pub(super) fn finish(&mut self, mut complex: impl FnMut(Complex)) {
        while !self.waiting.is_empty() {
            self.decide(&mut complex);
        }
    }

    /// The last block that the threshold of the next one depends on.
    fn last_needed(&self) -> usize {
        (self.next + BLOCKS_AFTER).max(BLOCKS_FIRST - 1)
    }

    fn decide(&mut self, complex: &mut impl FnMut(Complex)) {
        let end = (self.next + 1) * self.block;
        if self.waiting.front().is_some_and(|candidate| candidate.at < end) {
            let usual = self.usual();
            while let Some(candidate) = self.waiting.front().copied().filter(|next| next.at < end) {
                self.waiting.pop_front();
                let wave = self.outdone(candidate, self.before)
                    || self.outdone(candidate, self.waiting.front().copied());
                self.before = Some(candidate);
                if !wave {
                    complex(Complex { candidate, share: candidate.strength / usual });
                }
            }
        }
        self.next += 1;
        while self.first + BLOCKS_BEFORE < self.next {
            self.strongest.pop_front();
            self.first += 1;
        }
    }

    /// The strength that complexes around the next block usually have.
    fn usual(&self) -> f32 {
        let last = self.last_needed() - self.first;
        let mut around: Vec<f32> = self
            .strongest
            .iter()
            .take(last + 1)
            .copied()
            .filter(|strength| *strength > 0.0)
            .collect();
        around.sort_unstable_by(f32::total_cmp);
        let rank = (around.len().saturating_sub(1) as f64 * USUAL_RANK) as usize;
        around.get(rank).copied().unwrap_or(f32::INFINITY)
    }

    fn outdone(&self, weak: Candidate, strong: Option<Candidate>) -> bool {
        strong.is_some_and(|strong| {
            weak.at.abs_diff(strong.at) < self.near && weak.strength < WAVE_SHARE * strong.strength
        })
    }
}

/// A beat, and the strongest of the weak complexes in the gap after it.
struct Beat {
    candidate: Candidate,
    given: bool,
    weak: Option<Candidate>,
}

/// Beats for sure, and the gaps between them.
pub(super) struct SearchBack {
    near: usize,
    after: usize,
    gap_max: usize,
    /// The last [`INTERVALS_AROUND`] intervals before the first of `beats`.
    intervals: VecDeque<usize>,
    beats: VecDeque<Beat>,
    /// Weak complexes that the next beat may be too near to.
    weak: Vec<Candidate>,
}

impl SearchBack {
    pub(super) fn new(rate_hz: f64) -> Self {
        Self {
            near: (WAVE_S * rate_hz) as usize,
            after: (INTERVALS_AFTER_S * rate_hz) as usize,
            gap_max: (GAP_MAX_S * rate_hz) as usize,
            intervals: VecDeque::new(),
            beats: VecDeque::new(),
            weak: Vec::new(),
        }
    }

    /// Complexes come in order.
    pub(super) fn push(&mut self, complex: Complex) {
        let Complex { candidate, share } = complex;
        if share >= THRESHOLD {
            self.settle_weak(candidate.at);
            self.weak.clear();
            self.beats.push_back(Beat { candidate, given: false, weak: None });
        } else if share >= SEARCH_BACK_THRESHOLD
            && self.beats.back().is_some_and(|last| candidate.at > last.candidate.at + self.near)
        {
            self.settle_weak(candidate.at);
            self.weak.retain(|weak| weak.at + self.near >= candidate.at);
            self.weak.push(candidate);
        }
    }

    /// Gives the beats that are settled once all complexes before `frontier` are here, and the place before
    /// which no more complexes become beats.
    pub(super) fn advance(&mut self, frontier: usize, out: &mut Vec<usize>) -> usize {
        while let Some(first) = self.beats.front_mut() {
            if !std::mem::replace(&mut first.given, true) {
                out.push(first.candidate.peak);
            }
            let begin = first.candidate.at;
            let Some(end) = self.beats.get(1).map(|second| second.candidate.at) else {
                if frontier <= begin + self.gap_max {
                    return begin.min(frontier);
                }
                break;
            };
            if let Some(weak) = self.beats[0].weak.filter(|_| end - begin <= self.gap_max) {
                let last = end + self.after;
                if self.beats.len() < 2 + INTERVALS_AROUND && frontier <= last {
                    return begin;
                }
                if (end - begin) as f64 > GAP * self.usual_interval(last) as f64 {
                    out.push(weak.peak);
                }
            }
            self.intervals.push_back(end - begin);
            if self.intervals.len() > INTERVALS_AROUND {
                self.intervals.pop_front();
            }
            self.beats.pop_front();
        }
        frontier
    }

    /// Of the weak complexes that are not near `at`, the strongest is remembered.
    fn settle_weak(&mut self, at: usize) {
        let Some(last) = self.beats.back_mut() else { return };
        for weak in self.weak.iter().filter(|weak| weak.at + self.near < at) {
            if last.weak.is_none_or(|strongest| weak.strength >= strongest.strength) {
                last.weak = Some(*weak);
            }
        }
    }

    /// Median of the intervals around that between the first two beats, none ending after `last`.
    fn usual_interval(&self, last: usize) -> usize {
        let places = self.beats.iter().map(|beat| beat.candidate.at);
        let mut around: Vec<usize> = places
            .clone()
            .zip(places.skip(1))
            .take(1 + INTERVALS_AROUND)
            .filter(|(_, end)| *end <= last)
            .map(|(begin, end)| end - begin)
            .chain(self.intervals.iter().copied())
            .collect();
        around.sort_unstable();
        around[around.len() / 2]
    }
}
