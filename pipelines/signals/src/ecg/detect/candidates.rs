//! From the band to places that may be QRS complexes: slope energy, its local maxima, the R near each.

use super::Scale;
use super::front::Front;

/// Energies that are computed side by side.
const LANES: usize = 16;

/// The least deflection of an R in the band, in mV: twice the usual step of a converter. Less is a flat line.
const MIN_R_MV: f32 = 0.01;

/// Maxima that rise, each within the refractory time of the one before, replace each other for so many of
/// these times: a swelling wave is no single beat, and the delay is bounded.
const RISING_TIMES: usize = 4;

/// A place that may be a QRS complex; in samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// Where its energy is largest.
    pub(super) at: usize,
    /// Its largest deflection.
    pub(super) peak: usize,
    /// Root of the slope energy.
    pub(super) strength: f32,
}

/// A stretch of a stream, addressed by the place in the whole.
#[derive(Default)]
pub(super) struct Stretch {
    first: usize,
    pub(super) samples: Vec<f32>,
}

impl Stretch {
    fn end(&self) -> usize {
        self.first + self.samples.len()
    }

    fn get(&self, at: usize) -> f32 {
        self.samples[at - self.first]
    }

    /// Lets go of what lies before `at`, once that is worth the moving.
    fn forget_before(&mut self, at: usize) {
        let past = at.saturating_sub(self.first).min(self.samples.len());
        if 2 * past > self.samples.len() {
            self.samples.drain(..past);
            self.first += past;
        }
    }
}

/// Sums of squared slopes over a window around each sample; before the first nothing slopes.
pub(super) struct SlopeEnergy {
    half: usize,
    squares: Vec<f32>,
    before: Option<f32>,
}

impl SlopeEnergy {
    /// Over `half` slopes on either side and the one in the middle.
    pub(super) fn new(half: usize) -> Self {
        Self { half, squares: vec![0.0; half], before: None }
    }

    pub(super) fn push(&mut self, band: &[f32], out: &mut Vec<f32>) {
        let Some(first) = band.first() else { return };
        let square = |here: f32, before: f32| (here - before) * (here - before);
        self.squares.push(square(*first, self.before.unwrap_or(*first)));
        self.squares
            .extend(band.iter().zip(&band[1..]).map(|(before, here)| square(*here, *before)));
        self.before = band.last().copied();
        let ready = self.squares.len().saturating_sub(2 * self.half) / LANES * LANES;
        self.sums(ready, out);
    }

    /// Appends the sums that are left. Where the stream ends before the window, there is none: half a complex
    /// is no beat.
    pub(super) fn finish(&mut self, out: &mut Vec<f32>) {
        self.sums(self.squares.len().saturating_sub(2 * self.half), out);
    }

    fn sums(&mut self, outputs: usize, out: &mut Vec<f32>) {
        let width = 2 * self.half + 1;
        let mut at = 0;
        while at + LANES <= outputs {
            let mut sums = [0.0_f32; LANES];
            for k in at..at + width {
                let squares = &self.squares[k..][..LANES];
                for lane in 0..LANES {
                    sums[lane] += squares[lane];
                }
            }
            out.extend(sums);
            at += LANES;
        }
        for at in at..outputs {
            out.push(self.squares[at..at + width].iter().fold(0.0, |sum, square| sum + square));
        }
        self.squares.drain(..outputs);
    }
}

/// Local maxima of the energy; of those nearer to each other than the refractory time the larger.
pub(super) struct Maxima {
    scale: Scale,
    /// The last two energies; the later is that of working sample `seen - 1`.
    last: (f32, f32),
    seen: usize,
    /// A maximum that a larger one may still replace.
    open: Option<Open>,
}

/// A maximum of the energy, in working samples.
#[derive(Clone, Copy)]
struct Open {
    at: usize,
    energy: f32,
    /// The first of those that replaced each other.
    since: usize,
}

impl Maxima {
    pub(super) fn new(scale: Scale) -> Self {
        Self { scale, last: (f32::INFINITY, f32::INFINITY), seen: 0, open: None }
    }

    /// All candidates before this sample have been given.
    pub(super) fn frontier(&self) -> usize {
        let open = self.open.map_or(self.seen.saturating_sub(1), |open| open.at);
        open * self.scale.divisor
    }

    /// Scans further energies; `band` and `front` reach as far at least, and back to the
    /// [`horizon`](Self::horizon).
    pub(super) fn push(
        &mut self,
        energies: &[f32],
        band: &Stretch,
        front: &Front,
        out: &mut impl Extend<Candidate>,
    ) {
        let (mut before, mut here) = self.last;
        for (ahead, after) in energies.iter().enumerate() {
            if here > before && here >= *after {
                self.maximum(self.seen + ahead - 1, here, band, front, out);
            }
            (before, here) = (here, *after);
        }
        self.last = (before, here);
        self.seen += energies.len();
        if self.open.is_some_and(|open| open.at + self.scale.refractory < self.seen) {
            self.close(band, front, out);
        }
    }

    /// Gives the candidate that is still open.
    pub(super) fn close(
        &mut self,
        band: &Stretch,
        front: &Front,
        out: &mut impl Extend<Candidate>,
    ) {
        if let Some(Open { at, energy, .. }) = self.open.take() {
            out.extend(self.candidate(at, energy, band, front));
        }
    }

    /// The first working sample of the band that is still needed.
    pub(super) fn forget(&self, band: &mut Stretch, front: &mut Front) {
        let at = self.open.map_or(self.seen.saturating_sub(2), |open| open.at);
        let needed = at.saturating_sub(self.scale.reach + 1);
        band.forget_before(needed);
        front.forget_before(needed * self.scale.divisor);
    }

    fn maximum(
        &mut self,
        at: usize,
        energy: f32,
        band: &Stretch,
        front: &Front,
        out: &mut impl Extend<Candidate>,
    ) {
        let refractory = self.scale.refractory;
        match &mut self.open {
            Some(open) if at - open.at < refractory => {
                if energy > open.energy && at - open.since < RISING_TIMES * refractory {
                    (open.at, open.energy) = (at, energy);
                }
            }
            _ => {
                self.close(band, front, out);
                self.open = Some(Open { at, energy, since: at });
            }
        }
    }

    /// The R near a maximum; none where nothing deflects or samples are missing.
    fn candidate(
        &self,
        at: usize,
        energy: f32,
        band: &Stretch,
        front: &Front,
    ) -> Option<Candidate> {
        let from = at.saturating_sub(self.scale.reach).max(band.first);
        let to = (at + self.scale.reach + 1).min(band.end());
        let mut largest = from;
        for index in from..to {
            if band.get(index).abs() > band.get(largest).abs() {
                largest = index;
            }
        }
        let divisor = self.scale.divisor;
        let middle = at * divisor + divisor / 2;
        let peak = self.refined(largest, band).min(front.taken().saturating_sub(1));
        let there = band.get(largest).abs() >= MIN_R_MV
            && !front.is_missing(middle)
            && !front.is_missing(peak);
        there.then(|| Candidate { at: middle, peak, strength: energy.sqrt() })
    }

    /// The sample where a parabola through the largest deflection and its neighbours has its top.
    fn refined(&self, largest: usize, band: &Stretch) -> usize {
        let divisor = self.scale.divisor;
        let mut offset = 0.0;
        if divisor > 1 && largest > band.first && largest + 1 < band.end() {
            let [before, here, after] =
                [largest - 1, largest, largest + 1].map(|index| band.get(index).abs());
            let bend = before - 2.0 * here + after;
            if bend < 0.0 {
                offset = (0.5 * (before - after) / bend).clamp(-0.5, 0.5);
            }
        }
        // A working sample lies in the middle of those that it is the mean of.
        let middle = (divisor - 1) as f32 / 2.0 + offset * divisor as f32;
        (largest * divisor).saturating_add_signed(middle.round() as isize)
    }
}
