//! The newest readings of many devices at once, as a running pipeline asks about them.
//!
//! Each series is judged by its last [`WINDOW`](super::WINDOW) readings in the light of those before, up to
//! [`CONTEXT`](super::CONTEXT). All go through the networks together, padded to whole batches, so that what is said of one
//! does not depend on its neighbours. Nothing is remembered: the same readings give the same answer.
//!
//! A kind is said of a stretch of readings, not of a window: [`Watched::probability`] is the mean probability over the stretch of this
//! kind that is likeliest. A stretch of fewer than [`STRETCH_MIN`] readings says nothing, but for a spike, which is one reading.
//!
//! # Not guaranteed
//! What [`super`] says holds. The very last readings are judged before it is known what follows.

use super::features::{Features, features};
use super::model::{FaultAttribution, FaultError, FaultModel, Segment, Way, segments};
use super::{FaultKind, Reading};

/// Fewest readings with one fault, but for [`FaultKind::Spike`].
pub const STRETCH_MIN: usize = 6;

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
        for window in seen {
            watched.push(window.and_then(|window| {
                let mut rows = judged.next()?;
                rows.truncate(window.rows);
                Some(Watched { numbers: window.numbers, stretches: likeliest(segments(&rows)) })
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

/// By kind the likeliest of the stretches that are long enough; of equals the earliest.
fn likeliest(stretches: Vec<Segment>) -> [Option<Segment>; FaultKind::ALL.len()] {
    let mut best: [Option<Segment>; FaultKind::ALL.len()] = Default::default();
    for own in stretches {
        if own.rows.len() < STRETCH_MIN && own.kind != FaultKind::Spike {
            continue;
        }
        let held = &mut best[own.kind.index()];
        if held.as_ref().is_none_or(|held| own.probability > held.probability) {
            *held = Some(own);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::inject::{inject, tests::wave};
    use super::super::streams::{self, Origin, Stream};
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

    /// Windows of five minutes of BIDMC numerics, each patient judged by the member that has not seen it: as they are every half minute, and
    /// with each fault put in. What is called a dropout as it is was one: values are missing there.
    #[test]
    fn recorded_numerics_are_seldom_called_faulty() {
        let data =
            std::env::var_os("HAAR_DATA").expect("set HAAR_DATA to the recordings, see README");
        let corpus = streams::open(&std::path::Path::new(&data).join("bidmc")).unwrap();
        let model = FaultModel::builtin().unwrap();
        let streams: Vec<Stream> = streams::read(&corpus).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        // By kind: called so as they are, put in, found of those, called another kind.
        let mut counts = [[0_usize; 4]; FaultKind::ALL.len()];
        let mut windows = 0;
        for stream in streams.iter().filter(|own| own.origin == Origin::Bidmc) {
            let mut made: Vec<(FaultKind, Vec<Reading>)> = Vec::new();
            for end in (30..=stream.readings.len()).step_by(30) {
                let window = &stream.readings[end.saturating_sub(300)..end];
                made.push((FaultKind::Sound, window.to_vec()));
                if end >= 300 && end % 90 == 0 {
                    for kind in &FaultKind::ALL[1..] {
                        let faulty = inject(window, *kind, stream.range, &mut random);
                        made.extend(faulty.map(|own| (*kind, own.readings)));
                    }
                }
            }
            let series: Vec<Series<'_>> =
                made.iter().map(|(_, own)| Series { readings: own, range: stream.range }).collect();
            let found = model.watch_by(&series, model.members_for(stream.case)).unwrap();
            for ((put, _), watched) in made.iter().zip(found) {
                let Some(watched) = watched else { continue };
                windows += usize::from(*put == FaultKind::Sound);
                counts[put.index()][1] += 1;
                for kind in &FaultKind::ALL[1..] {
                    let called = usize::from(watched.probability(*kind) >= CALLED);
                    counts[kind.index()][0] += called * usize::from(*put == FaultKind::Sound);
                    counts[put.index()][2] += called * usize::from(kind == put);
                    counts[put.index()][3] += called * usize::from(kind != put);
                }
            }
        }
        println!("{windows} windows; by kind, called as they are, put in, found, called another");
        for kind in &FaultKind::ALL[1..] {
            println!("{kind}: {:?}", counts[kind.index()]);
        }
        let [stuck, drift, spike, noise, detached, clock] = [
            FaultKind::Stuck,
            FaultKind::Drift,
            FaultKind::Spike,
            FaultKind::Noise,
            FaultKind::Detached,
            FaultKind::Clock,
        ]
        .map(|kind| counts[kind.index()][0] as f64 / windows as f64);
        assert!(stuck.max(drift).max(noise).max(detached).max(clock) <= 0.002, "{counts:?}");
        assert!(spike <= 0.02, "{counts:?}");
    }

    /// As the rules of the built-in definition.
    const CALLED: f32 = 0.9;
}
