//! Posture from the direction of gravity, and when it changes.
//!
//! After Karantonis et al. 2006, "Implementation of a real-time human movement classifier using a triaxial
//! accelerometer for ambulatory monitoring", IEEE Trans Inf Technol Biomed 10:156–167: the trunk's tilt from
//! the vertical up to 60° is upright, to 120° lying, beyond it inverted; lying is told apart by the axis that
//! gravity is nearest to. Sitting and standing are not told apart: one sensor on the trunk cannot.

use haar_schema::SampleRate;

use super::{RateOutOfRange, angle_deg, length, samples};

/// Gravity is the mean over so many seconds.
const GRAVITY_S: f64 = 1.0;

/// While the mean's length is further than this from 1 g, or its parts from it, somebody is moving.
const STEADY_G: f64 = 0.2;

/// Share of a mean's samples that must be there.
const MIN_COVERAGE: f64 = 0.5;

/// A posture counts when it has lasted for so many seconds.
const HOLD_S: u64 = 3;

/// Tilt up to which somebody is upright, and up to which lying, in degrees.
const UPRIGHT_DEG: f64 = 60.0;
const LYING_DEG: f64 = 120.0;

/// How the wearer holds the trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posture {
    /// Standing, sitting or reclined.
    Upright,
    /// On the back.
    Supine,
    /// On the belly.
    Prone,
    /// On the left side.
    LeftSide,
    /// On the right side.
    RightSide,
    /// Head down, or the sensor upside down.
    Inverted,
}

/// A posture that has come to last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PostureChange {
    /// The sample with which it began, counted from the first that was pushed; to about a second.
    pub start: u64,
    /// The one before; `None` if this is the first that is known.
    pub from: Option<Posture>,
    /// The new one.
    pub to: Posture,
    /// The trunk's tilt from the vertical in degrees, when it was decided.
    pub tilt_deg: f64,
}

/// Follows the posture of one wearer.
#[derive(Clone, Debug)]
pub struct PostureTracker {
    mean_samples: usize,
    position: u64,
    sum: [f64; 3],
    spread: f64,
    count: usize,
    current: Option<Posture>,
    candidate: Option<(Posture, u64, u64)>,
}

impl PostureTracker {
    /// Of samples at a rate within the limits of [`super`].
    pub fn new(rate: SampleRate) -> Result<Self, RateOutOfRange> {
        Ok(Self {
            mean_samples: samples(GRAVITY_S, rate)?,
            position: 0,
            sum: [0.0; 3],
            spread: 0.0,
            count: 0,
            current: None,
            candidate: None,
        })
    }

    /// The posture that was last decided on.
    pub fn current(&self) -> Option<Posture> {
        self.current
    }

    /// Takes the next sample (x to the left, y to the head, z to the front, in g, at rest pointing up: upright
    /// reads 0, 1, 0); gives the change that it confirms, three seconds after it began. A second in which the
    /// wearer moves, or half of the samples are lost, neither confirms nor interrupts.
    pub fn push(&mut self, g: [f32; 3]) -> Option<PostureChange> {
        if let Some(length) = length(g) {
            self.sum.iter_mut().zip(g).for_each(|(sum, axis)| *sum += f64::from(axis));
            self.spread += (length - 1.0).abs();
            self.count += 1;
        }
        self.position += 1;
        if !self.position.is_multiple_of(self.mean_samples as u64) {
            return None;
        }
        let (count, spread) = (self.count as f64, self.spread);
        let mean = self.sum.map(|sum| sum / count);
        (self.sum, self.spread, self.count) = ([0.0; 3], 0.0, 0);
        let there = count >= MIN_COVERAGE * self.mean_samples as f64;
        let length = mean.iter().map(|axis| axis * axis).sum::<f64>().sqrt();
        if !there || (length - 1.0).abs() > STEADY_G || spread / count > STEADY_G {
            return None;
        }
        let tilt_deg = angle_deg(mean, [0.0, 1.0, 0.0])?;
        self.decide(classify(mean, tilt_deg), tilt_deg)
    }

    fn decide(&mut self, seen: Posture, tilt_deg: f64) -> Option<PostureChange> {
        if self.current == Some(seen) {
            self.candidate = None;
            return None;
        }
        let begin = self.position - self.mean_samples as u64;
        let (start, seconds) = match self.candidate {
            Some((posture, start, seconds)) if posture == seen => (start, seconds + 1),
            _ => (begin, 1),
        };
        if seconds < HOLD_S {
            self.candidate = Some((seen, start, seconds));
            return None;
        }
        self.candidate = None;
        let from = self.current.replace(seen);
        Some(PostureChange { start, from, to: seen, tilt_deg })
    }
}

fn classify([x, _, z]: [f64; 3], tilt_deg: f64) -> Posture {
    if tilt_deg <= UPRIGHT_DEG {
        Posture::Upright
    } else if tilt_deg > LYING_DEG {
        Posture::Inverted
    } else if z.abs() >= x.abs() {
        // A sensor at rest reads up: on the back, up is to the front.
        if z > 0.0 { Posture::Supine } else { Posture::Prone }
    } else if x > 0.0 {
        Posture::RightSide
    } else {
        Posture::LeftSide
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UP: [f32; 3] = [0.0, 1.0, 0.0];

    fn tracker() -> PostureTracker {
        PostureTracker::new(SampleRate::from_hz(50).unwrap()).unwrap()
    }

    fn changes(samples: &[[f32; 3]]) -> Vec<PostureChange> {
        let mut tracker = tracker();
        samples.iter().filter_map(|g| tracker.push(*g)).collect()
    }

    #[test]
    fn each_posture_is_known() {
        let all = [
            (UP, Posture::Upright),
            ([0.0, 0.0, 1.0], Posture::Supine),
            ([0.0, 0.0, -1.0], Posture::Prone),
            ([1.0, 0.0, 0.0], Posture::RightSide),
            ([-1.0, 0.1, 0.2], Posture::LeftSide),
            ([0.0, -1.0, 0.0], Posture::Inverted),
            ([0.0, 0.7, 0.7], Posture::Upright),
            ([0.1, 0.3, 0.95], Posture::Supine),
        ];
        for (g, expected) in all {
            let found = changes(&[g; 200]);
            assert_eq!(found.len(), 1, "{expected:?}");
            assert_eq!((found[0].start, found[0].from, found[0].to), (0, None, expected));
        }
    }

    #[test]
    fn a_change_is_told_when_it_lasts() {
        let mut samples = vec![UP; 500];
        // Bent over for two seconds, then lain down for good.
        samples[200..300].fill([0.0, 0.1, -1.0]);
        samples.extend([[0.0, 0.0, 1.0]; 500]);
        let found = changes(&samples);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[1].start, found[1].from, found[1].to),
            (500, Some(Posture::Upright), Posture::Supine)
        );
        assert!((found[1].tilt_deg - 90.0).abs() < 1e-6);
    }

    #[test]
    fn movement_and_loss_decide_nothing() {
        let shaken: Vec<[f32; 3]> =
            (0..1_000).map(|i| [0.0, if i % 2 == 0 { 0.2 } else { 1.8 }, 0.0]).collect();
        assert_eq!(changes(&shaken), []);
        assert_eq!(changes(&[[f32::NAN; 3]; 500]), []);
        assert_eq!(changes(&[[0.0; 3]; 500]), []);
        let mut tracker = tracker();
        for _ in 0..200 {
            tracker.push(UP);
        }
        for _ in 0..500 {
            assert_eq!(tracker.push([f32::NAN; 3]), None);
        }
        assert_eq!(tracker.current(), Some(Posture::Upright));
    }

    proptest! {
        #[test]
        fn changes_change(
            samples in proptest::collection::vec(
                (proptest::array::uniform3(-1.1f32..1.1), 20usize..200), 1..12),
        ) {
            let samples: Vec<[f32; 3]> =
                samples.iter().flat_map(|(g, count)| std::iter::repeat_n(*g, *count)).collect();
            let found = changes(&samples);
            for pair in found.windows(2) {
                prop_assert_eq!(pair[1].from, Some(pair[0].to));
                prop_assert!(pair[1].to != pair[0].to && pair[1].start > pair[0].start);
            }
        }
    }
}
