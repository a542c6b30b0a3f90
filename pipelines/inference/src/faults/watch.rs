//! The newest readings of many devices at once, as a running pipeline asks about them.
//!
//! Each series is judged by its last [`WINDOW`](super::WINDOW) readings in the light of those before, up to
//! [`CONTEXT`]. All go through the networks together, padded to whole batches, so that what is said of one
//! does not depend on its neighbours. Nothing is remembered: the same readings give the same answer.
//!
//! A kind is said of a stretch of readings, not of a window: [`Watched::probability`] is the mean probability over the stretch of this
//! kind that is likeliest. [`threshold`] is the one at which the built-in definition flags.
//!
//! # What differs from [`evaluate`](super::evaluate)
//! There a window has one fault or none, each kind as often, and is called what its heaviest segment is, however unsure. Here nearly every
//! window is sound, so a kind must reach its threshold. Features, scale and networks are the same to the bit; 300 readings of history
//! instead of [`CONTEXT`] change nothing that could be measured (BIDMC). Three things do:
//! - *Short stretches.* Readings that are gone leave one reading that shows it, the first behind the gap; a clock that repeats a stamp or jumps
//!   shows in one or a few. So [`stretch_min`] is 1 for these, as for a spike; six were asked of all others, and are.
//! - *Blurred ends.* Where a drift begins nobody can say, so its mean is lower than that of a stretch with sharp ends: hence thresholds by kind.
//! - *Order.* A caller that has readings from a network gives them in the order of their stamps, as the order of arrival is the
//!   network's doing. A clock that went back then shows as stamps too close together, and less surely than where the order is known.
//!
//! A stretch of equal values says *stuck* only if the stream's other readings change often enough for [`STUCK_CHANGES`] changes in it: what
//! hardly moves (a temperature in tenths, read each second) cannot be told from what is stuck, in principle.
//!
//! # How late
//! A fault is seen when a window ends behind it, and those of short stretches at once; a stretch of [`STRETCH_MIN`] readings no sooner
//! than these have come. It is no longer seen once it is over by [`WINDOW`](super::WINDOW) readings. [`live`](super::live) measures it.
//!
//! # Not guaranteed
//! What [`super`] says holds. The very last readings are judged before it is known what follows. That a device ceased for good is not seen: there is
//! nothing behind the gap. Readings that are stuck, drifting or noisy for the whole history have become the stream's own way.

use super::features::{Features, features};
use super::inject::STUCK_CHANGES;
use super::model::{FaultAttribution, FaultError, FaultModel, Segment, Way, segments};
use super::{CONTEXT, FaultKind, Reading};
use std::ops::Range;

/// Fewest readings of a fault that lasts.
pub const STRETCH_MIN: usize = 6;

/// Fewest readings that say a kind.
pub const fn stretch_min(kind: FaultKind) -> usize {
    match kind {
        FaultKind::Spike | FaultKind::Dropout | FaultKind::Clock => 1,
        _ => STRETCH_MIN,
    }
}

/// The probability from which the built-in definition of a pipeline flags a kind. Chosen from 0.8, 0.85, 0.9 and 0.95 on the pooled
/// figures of [`live`](super::live).
pub const fn threshold(kind: FaultKind) -> f32 {
    match kind {
        FaultKind::Stuck | FaultKind::Drift | FaultKind::Detached => 0.85,
        _ => 0.9,
    }
}

/// Readings of one device, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// What was read.
    pub readings: &'a [Reading],
    /// Physical range of the unit, lowest and highest, if known.
    pub range: Option<(f32, f32)>,
}

/// What was found in the newest readings of one series.
#[derive(Clone, PartialEq, Debug)]
pub struct Watched {
    /// What the networks were shown.
    numbers: Vec<f32>,
    /// By kind in the order of [`FaultKind::ALL`]: its likeliest stretch, in rows of the window.
    stretches: [Option<Segment>; FaultKind::ALL.len()],
}

impl Watched {
    /// The mean probability of a kind over its likeliest stretch; 0 without one.
    pub fn probability(&self, kind: FaultKind) -> f32 {
        self.stretch(kind).map_or(0.0, |stretch| stretch.probability)
    }

    /// The likeliest stretch of a kind, in rows of the window that was judged.
    pub fn stretch(&self, kind: FaultKind) -> Option<&Segment> {
        self.stretches[kind.index()].as_ref()
    }

    /// What the networks were shown, by reading.
    pub fn numbers(&self) -> &[f32] {
        &self.numbers
    }
}

impl FaultModel {
    /// Looks at the newest readings of each series; `None` where there are too few to say anything.
    ///
    /// # Errors
    /// If a network cannot be computed.
    pub fn watch(&self, series: &[Series<'_>]) -> Result<Vec<Option<Watched>>, FaultError> {
        self.watch_by(series, self.members())
    }

    /// [`FaultModel::watch`] by some of the committee ([`FaultModel::members_for`]).
    ///
    /// # Errors
    /// As for [`FaultModel::watch`].
    pub fn watch_by(
        &self,
        series: &[Series<'_>],
        members: std::ops::Range<usize>,
    ) -> Result<Vec<Option<Watched>>, FaultError> {
        let seen: Vec<Option<Features>> =
            series.iter().map(|own| features(own.readings, own.range)).collect();
        let windows: Vec<&Features> = seen.iter().flatten().collect();
        let mut judged = self.mean_windows(&windows, members)?.into_iter();
        let mut watched = Vec::with_capacity(series.len());
        for (window, own) in seen.into_iter().zip(series) {
            watched.push(window.and_then(|window| {
                let mut rows = judged.next()?;
                rows.truncate(window.rows);
                let stretches = likeliest(segments(&rows), own.readings, window.rows);
                Some(Watched { numbers: window.numbers, stretches })
            }));
        }
        Ok(watched)
    }

    /// Why a stretch that was found in this series is of its kind, as [`FaultModel::attribute`] has it, but by
    /// [`integrated_differences`](crate::explain::integrated_differences): in a fixed time.
    ///
    /// # Errors
    /// As for [`FaultModel::attribute`].
    pub fn explain_stretch(
        &self,
        series: Series<'_>,
        stretch: &Segment,
    ) -> Result<FaultAttribution, FaultError> {
        let (Series { readings, range }, Segment { kind, rows, .. }) = (series, stretch);
        self.explain(readings, range, *kind, rows.clone(), Way::Quick)
    }
}

/// By kind the likeliest of the stretches that can be told, in the last `rows` of some readings; of equals the earliest.
fn likeliest(
    stretches: Vec<Segment>,
    readings: &[Reading],
    rows: usize,
) -> [Option<Segment>; FaultKind::ALL.len()] {
    let readings = &readings[readings.len().saturating_sub(CONTEXT)..];
    let first = readings.len() - rows;
    let mut best: [Option<Segment>; FaultKind::ALL.len()] = Default::default();
    for own in stretches {
        let still = own.kind == FaultKind::Stuck
            && !would_change(readings, first + own.rows.start..first + own.rows.end);
        if own.rows.len() < stretch_min(own.kind) || still {
            continue;
        }
        let held = &mut best[own.kind.index()];
        if held.as_ref().is_none_or(|held| own.probability > held.probability) {
            *held = Some(own);
        }
    }
    best
}

/// Whether a stretch of this length has [`STUCK_CHANGES`] changes if it changes as often as the readings before and behind it.
fn would_change(readings: &[Reading], stretch: Range<usize>) -> bool {
    let (before, behind) = (&readings[..stretch.start], &readings[stretch.end..]);
    let pairs = before.windows(2).chain(behind.windows(2));
    let (mut changes, mut all) = (0, 0);
    for pair in pairs.filter(|pair| pair.iter().all(|row| row.value.is_finite())) {
        all += 1;
        changes += usize::from(pair[0].value != pair[1].value);
    }
    all > 0 && changes * stretch.len() >= STUCK_CHANGES * all
}

#[cfg(test)]
mod tests {
    use super::super::inject::{inject, tests::wave};
    use super::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn what_is_said_of_a_series_does_not_depend_on_its_neighbours() {
        let model = FaultModel::builtin().unwrap();
        let waves: Vec<Vec<Reading>> = (0..20).map(|seed| wave(200, seed)).collect();
        let series = |readings| Series { readings, range: None };
        let short = wave(8, 3);
        let mut all: Vec<Series<'_>> = waves.iter().map(|wave| series(wave)).collect();
        all.insert(7, series(&short));
        let together = model.watch(&all).unwrap();
        assert!(together[7].is_none());
        for at in [0, 6, 8, 20] {
            assert_eq!(together[at..=at], model.watch(&all[at..=at]).unwrap());
        }
    }

    #[test]
    fn a_sensor_that_comes_off_is_found_and_explained() {
        let model = FaultModel::builtin().unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let made = inject(&wave(300, 5), FaultKind::Detached, None, &mut random).unwrap();
        let series = Series { readings: &made.readings, range: None };
        let watched = model.watch(&[series]).unwrap().remove(0).unwrap();
        let stretch = watched.stretch(FaultKind::Detached).unwrap();
        assert!(watched.probability(FaultKind::Detached) > 0.8, "{stretch:?}");
        assert_eq!(watched.probability(FaultKind::Clock), 0.0);
        let why = model.explain_stretch(series, stretch).unwrap();
        let difference = f64::from(why.output) - f64::from(why.neutral);
        assert!((why.sum() - difference).abs() <= 0.01 * difference.abs().max(0.1));
        assert!(why.output > 0.0);
    }

    #[test]
    fn the_watch_says_what_evaluation_says_of_the_same_readings() {
        let model = FaultModel::builtin().unwrap();
        let mut said = 0;
        for (kind, seed) in FaultKind::ALL.into_iter().zip(0..) {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let made = inject(&wave(300, seed), kind, None, &mut random).unwrap().readings;
            let window = features(&made, None).unwrap();
            let mut rows = model.mean_windows(&[&window], model.members()).unwrap().remove(0);
            rows.truncate(window.rows);
            let series = Series { readings: &made, range: None };
            let watched = model.watch(&[series]).unwrap().remove(0).unwrap();
            assert_eq!(watched.numbers(), window.numbers);
            let segments = segments(&rows);
            for own in FaultKind::ALL {
                let Some(stretch) = watched.stretch(own) else { continue };
                assert!(segments.contains(stretch), "{kind}: {stretch:?}");
                said += 1;
            }
        }
        assert!(said >= FaultKind::ALL.len() - 1, "{said}");
    }

    #[test]
    fn one_reading_behind_a_gap_is_enough() {
        let model = FaultModel::builtin().unwrap();
        let mut readings = wave(300, 11);
        readings.drain(250..280);
        let series = Series { readings: &readings, range: None };
        let watched = model.watch(&[series]).unwrap().remove(0).unwrap();
        let stretch = watched.stretch(FaultKind::Dropout).unwrap();
        assert!(stretch.rows.len() < STRETCH_MIN, "{stretch:?}");
        assert!(stretch.probability >= threshold(FaultKind::Dropout));
    }

    #[test]
    fn what_hardly_moves_is_not_stuck() {
        let row = |at: usize, value: f32| Reading { time_s: at as f64, value };
        // Of ten readings one differs from the one before it: six in sixty.
        let slow: Vec<Reading> = (0..300).map(|at| row(at, (at / 10) as f32)).collect();
        assert!(!would_change(&slow, 200..240));
        assert!(would_change(&slow, 200..270));
        assert!(!would_change(&slow, 0..300));
    }
}
