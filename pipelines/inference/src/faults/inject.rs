//! Puts faults into sound readings, from a seed, so that what is wrong is known to the reading.
//!
//! # What is put in
//! Magnitudes are in the stream's own [`Scale`], taken before the fault: *noise* (how far a value lies from the one before) and
//! *spread* (how far values lie from their median). Ranges are drawn evenly, those marked × by their logarithm. A fault begins
//! in the window's first seven eighths; one of seven of the long ones has begun up to 32 readings before the window, which are added to its length. Values are
//! rounded to the stream's step and kept within the physical range, if one is known.
//!
//! | kind | length (readings) | what | called faulty |
//! |---|---|---|---|
//! | stuck | 16–96 | the value before it stays | all of it |
//! | drift | 40–112 | ramp (power 1–1.5) to ±6–15 × spread, then stays or is corrected | from 2 × noise on |
//! | spike | 1–3 times 1–2 | ±8–40 × noise | the spikes |
//! | noise | 24–96 | normal, deviation 3–12 × noise, is added | all of it |
//! | dropout | 4–48 in a row, or 24–80 with 40–80 % lost | without value, or without a reading at all | readings without value, the first after each gap; with losses here and there, all |
//! | detached | 12–96 | settles (time constant 0.2–6 ×) at a level 6–30 × half the spread (at least the noise) away, with scatter 0.2–2 × noise or none, and comes back (0.2–12 ×) | until 4 × noise from the truth |
//! | clock, excursion | 4–48 | stamps ±3–200 intervals × off, then right again | the excursion; stamps not after the latest before |
//! | clock, back | – | stamps 2–30 intervals × back for good | stamps not after the latest before |
//! | clock, frozen | 4–48 | one stamp for all | from the second on |
//! | clock, repeated | 2–6 times | the stamp before again | those |
//! | clock, rate | 24–96 | intervals × 0.3–0.7 or 1.4–2.5 | all of it |
//!
//! # What is detectable
//! A fault that changes nothing is none: [`inject`] gives up when the readings do not let it show. *Stuck* needs [`STUCK_CHANGES`] changes of
//! the true value in the window's part of it (a saturation of 97 % for ten minutes cannot be told from a stuck one); *drift* and *detached* must reach
//! three quarters of what was drawn after the range is kept; and long faults need [`VISIBLE`] faulty readings within the window.
//!
//! # Taxonomy
//! Ni, Ramanathan, Chehade, Balzano, Nair, Zahedi, Kohler, Pottie, Hansen, Srivastava, "Sensor network data fault types", ACM TOSN 5(3), 2009,
//! for stuck-at, drift (calibration), spike (outlier) and noise; the rest are what ward devices do.

use super::{FaultKind, Reading, Scale, WINDOW};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};
use std::ops::Range;

/// How often the true value must change while a stuck one hides it.
pub const STUCK_CHANGES: usize = 6;
/// Fewest faulty readings in the window of stuck, drift, noise and detached.
pub const VISIBLE: usize = 12;

/// Draws before giving up.
const TRIES: usize = 8;
/// How far before the window a long fault may begin.
const BEFORE: usize = 32;

/// Readings with a fault in them.
#[derive(Clone, PartialEq, Debug)]
pub struct Injected {
    /// The readings; fewer than there were if some were lost.
    pub readings: Vec<Reading>,
    /// What is wrong with each.
    pub labels: Vec<FaultKind>,
    /// What was drawn for the size: in noise for spike and noise, in spreads for drift, in half spreads for detached, else 0.
    pub magnitude: f32,
}

impl Injected {
    /// Readings without a fault.
    pub fn sound(readings: Vec<Reading>) -> Self {
        let labels = vec![FaultKind::Sound; readings.len()];
        Self { readings, labels, magnitude: 0.0 }
    }

    fn mark(&mut self, rows: Range<usize>, kind: FaultKind) {
        self.labels[rows].fill(kind);
    }

    fn marked(&self, rows: Range<usize>) -> usize {
        self.labels[rows].iter().filter(|label| **label != FaultKind::Sound).count()
    }
}

/// Puts a fault of `kind` into the last [`WINDOW`] of `sound` (all of it, if it is shorter); what is before gives the scale.
/// `range` is the physical range of the unit, lowest and highest. `None` when the readings do not let such a fault show; for
/// [`FaultKind::Sound`] the readings as they are.
pub fn inject(
    sound: &[Reading],
    kind: FaultKind,
    range: Option<(f32, f32)>,
    random: &mut ChaCha8Rng,
) -> Option<Injected> {
    if kind == FaultKind::Sound {
        return Some(Injected::sound(sound.to_vec()));
    }
    let site =
        Site { sound, range, scale: Scale::of(sound)?, first: sound.len().saturating_sub(WINDOW) };
    (0..TRIES).find_map(|_| match kind {
        FaultKind::Sound => None,
        FaultKind::Stuck => site.stuck(random),
        FaultKind::Drift => site.drift(random),
        FaultKind::Spike => site.spike(random),
        FaultKind::Noise => site.noise(random),
        FaultKind::Dropout => site.dropout(random),
        FaultKind::Detached => site.detached(random),
        FaultKind::Clock => site.clock(random),
    })
}

/// Small flaws that are no faults: with odds of 3 to 7 each, stamps scatter by up to 5 % of the interval, and up to 2 % of the readings
/// (never two in a row) lose their value or are gone.
pub fn blemish(readings: &mut Vec<Reading>, random: &mut ChaCha8Rng) {
    let Some(scale) = Scale::of(readings) else { return };
    if random.random_bool(0.3) {
        for reading in readings.iter_mut() {
            reading.time_s += scale.interval_s * random.random_range(-0.05..0.05);
        }
    }
    if random.random_bool(0.3) {
        let gone = random.random_bool(0.5);
        let mut at = random.random_range(2..64);
        while at + 1 < readings.len() {
            if gone {
                readings.remove(at);
            } else {
                readings[at].value = f32::NAN;
            }
            at += random.random_range(32..128);
        }
    }
}

/// Where a fault goes.
struct Site<'a> {
    sound: &'a [Reading],
    range: Option<(f32, f32)>,
    scale: Scale,
    first: usize,
}

impl Site<'_> {
    /// Where a fault of some length begins and ends; the end may be the window's.
    fn stretch(&self, length: Range<usize>, random: &mut ChaCha8Rng) -> Range<usize> {
        let rows = self.sound.len() - self.first;
        let early = self.first > 2 * BEFORE && random.random_bool(1.0 / 7.0);
        let before = if early { random.random_range(1..=BEFORE) } else { 0 };
        let begin = match before {
            0 => self.first + random.random_range(1..(rows * 7 / 8).max(2)),
            before => self.first - before,
        };
        begin..(begin + before + random.random_range(length)).min(self.sound.len())
    }

    fn kept(&self, value: f32) -> f32 {
        let (low, high) = self.range.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        self.scale.quantised(value).clamp(low, high)
    }

    fn stuck(&self, random: &mut ChaCha8Rng) -> Option<Injected> {
        let rows = self.stretch(16..97, random);
        let held =
            self.sound[..rows.start].iter().rev().map(|row| row.value).find(|v| v.is_finite())?;
        let seen = &self.sound[rows.start.max(self.first)..rows.end];
        let changes = seen.windows(2).filter(|pair| pair[0].value != pair[1].value).count();
        if changes < STUCK_CHANGES {
            return None;
        }
        let mut injected = Injected::sound(self.sound.to_vec());
        for reading in &mut injected.readings[rows.clone()] {
            reading.value = held;
        }
        injected.mark(rows, FaultKind::Stuck);
        self.visible(injected, 0.0)
    }

    fn drift(&self, random: &mut ChaCha8Rng) -> Option<Injected> {
        let rows = self.stretch(40..113, random);
        let magnitude = logarithmic(6.0..15.0, random);
        let end = magnitude * self.scale.spread * sign(random);
        let (power, corrected) = (random.random_range(1.0..1.5_f32), random.random_bool(0.5));
        let length = rows.len() as f32;
        let mut injected = Injected::sound(self.sound.to_vec());
        let last = if corrected { rows.end } else { self.sound.len() };
        let mut reached = 0.0_f32;
        for at in rows.start..last {
            let share = ((at - rows.start + 1) as f32 / length).min(1.0);
            let value = self.sound[at].value;
            let moved = self.kept(value + end * share.powf(power));
            injected.readings[at].value = moved;
            reached = reached.max((moved - value).abs());
            if (moved - value).abs() >= 2.0 * self.scale.noise {
                injected.labels[at] = FaultKind::Drift;
            }
        }
        (reached >= 0.75 * end.abs()).then_some(())?;
        self.visible(injected, magnitude)
    }

    fn spike(&self, random: &mut ChaCha8Rng) -> Option<Injected> {
        let magnitude = logarithmic(8.0..40.0, random);
        let mut injected = Injected::sound(self.sound.to_vec());
        for _ in 0..random.random_range(1..=3) {
            let begin = random.random_range(self.first + 1..self.sound.len() - 1);
            let offset = magnitude * self.scale.noise * sign(random);
            for at in begin..(begin + random.random_range(1..=2)).min(self.sound.len()) {
                let value = self.sound[at].value;
                let moved = self.kept(value + offset);
                if (moved - value).abs() >= 0.75 * offset.abs() {
                    injected.readings[at].value = moved;
                    injected.labels[at] = FaultKind::Spike;
                }
            }
        }
        injected.magnitude = magnitude;
        (injected.marked(self.first..self.sound.len()) > 0).then_some(injected)
    }

    fn noise(&self, random: &mut ChaCha8Rng) -> Option<Injected> {
        let rows = self.stretch(24..97, random);
        let magnitude = logarithmic(3.0..12.0, random);
        let mut injected = Injected::sound(self.sound.to_vec());
        for reading in &mut injected.readings[rows.clone()] {
            let scatter: f32 = StandardNormal.sample(random);
            reading.value = self.kept(reading.value + scatter * magnitude * self.scale.noise);
        }
        injected.mark(rows, FaultKind::Noise);
        self.visible(injected, magnitude)
    }

    fn dropout(&self, random: &mut ChaCha8Rng) -> Option<Injected> {
        let (gone, whole) = (random.random_bool(0.5), random.random_bool(0.5));
        let rows = self.stretch(if whole { 4..49 } else { 24..81 }, random);
        let lost_share = if whole { 1.0 } else { random.random_range(0.4..0.8) };
        let mut injected = Injected::sound(self.sound.to_vec());
        if !whole {
            injected.mark(rows.clone(), FaultKind::Dropout);
        }
        let lost: Vec<usize> = rows.filter(|_| random.random_bool(lost_share)).collect();
        for at in lost.iter().rev().copied() {
            if gone {
                injected.readings.remove(at);
                injected.labels.remove(at);
                // What comes after a gap is where the gap shows.
                if let Some(label) = injected.labels.get_mut(at) {
                    *label = FaultKind::Dropout;
                }
            } else {
                injected.readings[at].value = f32::NAN;
                injected.labels[at] = FaultKind::Dropout;
            }
        }
        let rows = injected.labels.len();
        (injected.marked(rows.saturating_sub(WINDOW)..rows) > 0).then_some(injected)
    }

    fn detached(&self, random: &mut ChaCha8Rng) -> Option<Injected> {
        let rows = self.stretch(12..97, random);
        let magnitude = logarithmic(6.0..30.0, random);
        let unit = (self.scale.spread / 2.0).max(self.scale.noise);
        let level = self.kept(self.scale.centre + magnitude * unit * sign(random));
        let from = self.sound[rows.start - 1].value;
        if !from.is_finite() || (level - from).abs() < 0.75 * magnitude * unit {
            return None;
        }
        let settle = logarithmic(0.2..6.0, random);
        let back = logarithmic(0.2..12.0, random);
        let scatter = if random.random_bool(0.3) {
            0.0
        } else {
            random.random_range(0.2..2.0) * self.scale.noise
        };
        let mut injected = Injected::sound(self.sound.to_vec());
        for at in rows.clone() {
            let share = (-((at - rows.start + 1) as f32) / settle).exp();
            let jitter: f32 = StandardNormal.sample(random);
            injected.readings[at].value =
                self.kept(level + (from - level) * share + jitter * scatter);
        }
        injected.mark(rows.clone(), FaultKind::Detached);
        for at in rows.end..self.sound.len() {
            let value = self.sound[at].value;
            let left = (level - value) * (-((at - rows.end + 1) as f32) / back).exp();
            if left.is_nan() || left.abs() < 4.0 * self.scale.noise {
                break;
            }
            injected.readings[at].value = self.kept(value + left);
            injected.labels[at] = FaultKind::Detached;
        }
        self.visible(injected, magnitude)
    }

    fn clock(&self, random: &mut ChaCha8Rng) -> Option<Injected> {
        let mut injected = Injected::sound(self.sound.to_vec());
        let interval_s = self.scale.interval_s;
        match random.random_range(0..5) {
            0 => {
                let rows = self.stretch(4..49, random);
                let jump = f64::from(logarithmic(3.0..200.0, random) * sign(random)) * interval_s;
                for reading in &mut injected.readings[rows.clone()] {
                    reading.time_s += jump;
                }
                injected.mark(rows, FaultKind::Clock);
            }
            1 => {
                let begin = self.stretch(4..5, random).start;
                let jump = f64::from(logarithmic(2.0..30.0, random)) * interval_s;
                for reading in &mut injected.readings[begin..] {
                    reading.time_s -= jump;
                }
            }
            2 => {
                let rows = self.stretch(4..49, random);
                let stamp = injected.readings[rows.start].time_s;
                for reading in &mut injected.readings[rows.clone()] {
                    reading.time_s = stamp;
                }
            }
            3 => {
                for _ in 0..random.random_range(2..=6) {
                    let at = random.random_range(self.first.max(1)..self.sound.len());
                    injected.readings[at].time_s = injected.readings[at - 1].time_s;
                }
            }
            _ => {
                let rows = self.stretch(24..97, random);
                let slow = random.random_bool(0.5);
                let rate = if slow {
                    random.random_range(0.3..0.7)
                } else {
                    random.random_range(1.4..2.5)
                };
                let mut ahead = 0.0;
                for at in rows.start..self.sound.len() {
                    if at < rows.end {
                        ahead += (rate - 1.0) * (self.sound[at].time_s - self.sound[at - 1].time_s);
                    }
                    injected.readings[at].time_s += ahead;
                }
                injected.mark(rows, FaultKind::Clock);
            }
        }
        self.mark_stamps(&mut injected);
        (injected.marked(self.first..self.sound.len()) > 0).then_some(injected)
    }

    /// Marks the stamps that do not come after the latest before them, though they did before the fault. Stamps
    /// within a tenth of the interval count as equal.
    fn mark_stamps(&self, injected: &mut Injected) {
        let mut latest = f64::NEG_INFINITY;
        let least = self.scale.interval_s * 0.1;
        for (reading, label) in injected
            .readings
            .iter()
            .zip(&mut injected.labels)
            .skip(self.first.saturating_sub(BEFORE))
        {
            if reading.time_s < latest + least {
                *label = FaultKind::Clock;
            }
            latest = latest.max(reading.time_s);
        }
    }

    fn visible(&self, mut injected: Injected, magnitude: f32) -> Option<Injected> {
        injected.magnitude = magnitude;
        let rows = injected.labels.len();
        (injected.marked(self.first.min(rows)..rows) >= VISIBLE).then_some(injected)
    }
}

fn logarithmic(range: Range<f32>, random: &mut ChaCha8Rng) -> f32 {
    random.random_range(range.start.ln()..range.end.ln()).exp()
}

fn sign(random: &mut ChaCha8Rng) -> f32 {
    if random.random_bool(0.5) { 1.0 } else { -1.0 }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    /// A sine with noise, rounded to tenths, every five seconds.
    pub(crate) fn wave(rows: usize, seed: u64) -> Vec<Reading> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..rows)
            .map(|at| {
                let noise: f32 = StandardNormal.sample(&mut random);
                let value = 37.0 + (at as f32 / 30.0).sin() + 0.2 * noise;
                Reading { time_s: at as f64 * 5.0, value: (value * 10.0).round() / 10.0 }
            })
            .collect()
    }

    fn same(a: &Reading, b: &Reading) -> bool {
        a.time_s == b.time_s && a.value.to_bits() == b.value.to_bits()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_called_sound_is_untouched(seed in 0..1_000_u64, kind in 1..8_usize, rows in 160..CONTEXT_ROWS) {
            let sound = wave(rows, seed);
            let kind = FaultKind::ALL[kind];
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let injected = inject(&sound, kind, None, &mut random).unwrap();
            prop_assert_eq!(injected.readings.len(), injected.labels.len());
            prop_assert!(injected.labels.iter().all(|label| [FaultKind::Sound, kind].contains(label)));
            let marked = injected.labels.iter().filter(|label| **label == kind).count();
            let long = matches!(
                kind,
                FaultKind::Stuck | FaultKind::Noise | FaultKind::Drift | FaultKind::Detached
            );
            let least = if long { VISIBLE } else { 1 };
            prop_assert!(marked >= least, "{} marked", marked);
            // Before the fault may begin nothing has changed, and the same seed gives the same.
            for (before, after) in sound.iter().zip(&injected.readings).take(rows - WINDOW - BEFORE.min(rows - WINDOW)) {
                prop_assert!(same(before, after));
            }
            let again = inject(&sound, kind, None, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
            prop_assert_eq!(&injected.labels, &again.labels);
            prop_assert!(injected.readings.iter().zip(&again.readings).all(|(a, b)| same(a, b)));
            if matches!(kind, FaultKind::Stuck | FaultKind::Spike | FaultKind::Noise | FaultKind::Detached) {
                for ((before, after), label) in sound.iter().zip(&injected.readings).zip(&injected.labels) {
                    prop_assert!(*label == kind || same(before, after));
                }
            }
        }
    }

    const CONTEXT_ROWS: usize = 400;

    #[test]
    fn what_cannot_show_is_not_put_in() {
        let constant: Vec<Reading> =
            (0..300).map(|at| Reading { time_s: f64::from(at), value: 97.0 }).collect();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(inject(&constant, FaultKind::Stuck, None, &mut random), None);
        // A saturation near its ceiling cannot rise above it.
        for seed in 0..20 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let sound: Vec<Reading> = wave(300, seed)
                .into_iter()
                .map(|reading| Reading { value: reading.value + 61.0, ..reading })
                .collect();
            let Some(injected) =
                inject(&sound, FaultKind::Detached, Some((0.0, 100.0)), &mut random)
            else {
                continue;
            };
            assert!(injected.readings.iter().all(|row| row.value <= 100.0));
        }
        assert_eq!(inject(&constant[..8], FaultKind::Noise, None, &mut random), None);
    }

    #[test]
    fn lost_readings_are_gone_or_without_value() {
        let sound = wave(300, 3);
        let (mut shorter, mut hollow) = (0, 0);
        for seed in 0..40 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let injected = inject(&sound, FaultKind::Dropout, None, &mut random).unwrap();
            if injected.readings.len() < sound.len() {
                shorter += 1;
                assert!(injected.readings.iter().all(|reading| reading.value.is_finite()));
            } else {
                hollow += 1;
                assert!(injected.readings.iter().any(|reading| reading.value.is_nan()));
            }
        }
        assert!(shorter > 5 && hollow > 5);
    }

    #[test]
    fn blemishes_never_take_two_in_a_row() {
        for seed in 0..20 {
            let mut readings = wave(400, seed);
            blemish(&mut readings, &mut ChaCha8Rng::seed_from_u64(seed));
            assert!(readings.windows(2).all(|pair| pair[1].time_s - pair[0].time_s < 11.0));
            assert!(readings.windows(2).all(|pair| pair.iter().any(|row| row.value.is_finite())));
        }
    }
}
