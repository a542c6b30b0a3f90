//! Candidates of falls: free fall, impact, and stillness after it.
//!
//! Kangas et al. 2008, "Comparison of low-complexity fall detection algorithms for body attached
//! accelerometers", Gait Posture 28:285–291: acceleration sinks below 0.6 g, and within a second rises above 2 g;
//! two seconds later the posture is looked at. Here stillness is asked for besides, since who gets up at once
//! needs no alarm, and the turn of the trunk is reported rather than judged: a wrist has none that means
//! anything.
//!
//! A candidate is a reason to look, and not a fall: sitting down hard and a sensor that is put on a table make
//! them too, and a slow slide down a wall makes none. The thresholds come from young volunteers' intended
//! falls; no public recordings of real falls were at hand to measure on.

use std::collections::VecDeque;

use haar_schema::SampleRate;

use super::{RateOutOfRange, angle_deg, length, samples};

/// Below this somebody falls, in g (Kangas 2008).
const FREE_FALL_G: f64 = 0.6;

/// Above this is an impact, in g (ibid.).
const IMPACT_G: f64 = 2.0;

/// From free fall to impact at most, in seconds (ibid.).
const FALL_S: f64 = 1.0;

/// From the impact to where stillness is looked at, in seconds (ibid.).
const SETTLING_S: f64 = 2.0;

/// Over so many seconds.
const STILL_S: f64 = 2.0;

/// Still is: no more mean absolute deviation of length than this, in g. Breathing is below 0.02, any
/// movement above 0.1.
const STILL_G: f64 = 0.06;

/// Direction before the fall is that of so many seconds, which end so many before the free fall.
const BEFORE_S: f64 = 1.0;

/// Share of the still stretch's samples that must be there.
const MIN_COVERAGE: f64 = 0.5;

/// What may have been a fall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FallCandidate {
    /// Sample at which acceleration last sank below 0.6 g before the impact, counted from the first pushed.
    pub free_fall: u64,
    /// Sample of the highest acceleration between impact and settling.
    pub impact: u64,
    /// That acceleration in g.
    pub impact_g: f64,
    /// Angle between the direction of gravity before and after, in degrees; `None` if the samples before are
    /// missing. Kangas et al. hold more than about 60° of a trunk for lying.
    pub turn_deg: Option<f64>,
}

/// Looks for falls in a stream of samples.
#[derive(Clone, Debug)]
pub struct Falls {
    fall_samples: u64,
    settling_samples: u64,
    still_samples: u64,
    position: u64,
    before: Gravity,
    free_fall: Option<(u64, Option<[f64; 3]>)>,
    impact: Option<Impact>,
}

#[derive(Clone, Debug)]
struct Impact {
    free_fall: u64,
    direction_before: Option<[f64; 3]>,
    first: u64,
    highest: u64,
    highest_g: f64,
    lengths: Vec<f64>,
    sum: [f64; 3],
}

impl Falls {
    /// Of samples at a rate within the limits of [`super`].
    pub fn new(rate: SampleRate) -> Result<Self, RateOutOfRange> {
        Ok(Self {
            fall_samples: samples(FALL_S, rate)? as u64,
            settling_samples: samples(SETTLING_S, rate)? as u64,
            still_samples: samples(STILL_S, rate)? as u64,
            position: 0,
            before: Gravity::new(samples(BEFORE_S, rate)?),
            free_fall: None,
            impact: None,
        })
    }

    /// Takes the next sample (x, y, z in g); gives the candidate that it completes, four seconds after the
    /// impact. While one is pending further impacts belong to it.
    pub fn push(&mut self, g: [f32; 3]) -> Option<FallCandidate> {
        let here = self.position;
        self.position += 1;
        let length = length(g);
        if let Some(impact) = &mut self.impact {
            let since = here - impact.first;
            if since < self.settling_samples {
                if let Some(length) = length.filter(|length| *length > impact.highest_g) {
                    (impact.highest, impact.highest_g) = (here, length);
                }
                return None;
            }
            if let Some(length) = length {
                impact.lengths.push(length);
                impact.sum.iter_mut().zip(g).for_each(|(sum, axis)| *sum += f64::from(axis));
            }
            if since + 1 < self.settling_samples + self.still_samples {
                return None;
            }
            let coverage = impact.lengths.len() as f64 / self.still_samples as f64;
            let candidate = impact.candidate().filter(|_| coverage >= MIN_COVERAGE);
            (self.impact, self.free_fall) = (None, None);
            self.before.forget();
            return candidate;
        }
        let length = length?;
        if length < FREE_FALL_G {
            let direction = match self.free_fall {
                // Of a fall that goes on the direction is that before it began.
                Some((last, direction)) if here - last <= self.fall_samples => direction,
                _ => self.before.direction(),
            };
            self.free_fall = Some((here, direction));
        } else if length > IMPACT_G
            && let Some((free_fall, direction_before)) = self.free_fall
            && here - free_fall <= self.fall_samples
        {
            self.impact = Some(Impact {
                free_fall,
                direction_before,
                first: here,
                highest: here,
                highest_g: length,
                lengths: Vec::new(),
                sum: [0.0; 3],
            });
        }
        self.before.push(g);
        None
    }
}

impl Impact {
    fn candidate(&self) -> Option<FallCandidate> {
        let count = self.lengths.len() as f64;
        let mean = self.lengths.iter().sum::<f64>() / count;
        let deviation =
            self.lengths.iter().map(|length| (length - mean).abs()).sum::<f64>() / count;
        // Of nothing the deviation is NaN, and not still.
        (deviation <= STILL_G).then(|| FallCandidate {
            free_fall: self.free_fall,
            impact: self.highest,
            impact_g: self.highest_g,
            turn_deg: self.direction_before.and_then(|before| angle_deg(before, self.sum)),
        })
    }
}

/// Sum of the last samples.
#[derive(Clone, Debug)]
struct Gravity {
    count: usize,
    recent: VecDeque<[f32; 3]>,
}

impl Gravity {
    fn new(count: usize) -> Self {
        Self { count, recent: VecDeque::with_capacity(count) }
    }

    fn push(&mut self, g: [f32; 3]) {
        if self.recent.len() == self.count {
            self.recent.pop_front();
        }
        self.recent.push_back(g);
    }

    fn forget(&mut self) {
        self.recent.clear();
    }

    fn direction(&self) -> Option<[f64; 3]> {
        (self.recent.len() == self.count).then(|| {
            self.recent.iter().fold([0.0; 3], |mut sum, g| {
                sum.iter_mut().zip(g).for_each(|(sum, axis)| *sum += f64::from(*axis));
                sum
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: u32 = 50;
    const STANDING: [f32; 3] = [0.0, 1.0, 0.0];
    const LYING: [f32; 3] = [0.0, 0.0, 1.0];

    fn find(samples: &[[f32; 3]]) -> Vec<FallCandidate> {
        let mut falls = Falls::new(SampleRate::from_hz(RATE).unwrap()).unwrap();
        samples.iter().filter_map(|g| falls.push(*g)).collect()
    }

    /// Ten seconds upright, 0.3 s of free fall, an impact, and what comes after.
    fn fall(impact_g: f32, after: [f32; 3]) -> Vec<[f32; 3]> {
        let mut samples = vec![STANDING; 500];
        samples.extend([[0.0, 0.2, 0.1]; 15]);
        samples.extend([[0.5, 0.0, impact_g], [0.0, 0.3, 1.4]]);
        samples.extend([after; 500]);
        samples
    }

    #[test]
    fn a_fall_is_one_candidate() {
        let found = find(&fall(3.2, LYING));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].free_fall, found[0].impact), (514, 515));
        assert!((found[0].impact_g - (0.25_f64 + 3.2 * 3.2).sqrt()).abs() < 1e-5);
        assert!((found[0].turn_deg.unwrap() - 90.0).abs() < 1.0);
    }

    #[test]
    fn what_lacks_a_part_is_none() {
        // No impact; no free fall; free fall too long ago; up and about at once; the sensor lost.
        assert_eq!(find(&fall(1.6, LYING)), []);
        let mut jolt = vec![STANDING; 500];
        jolt[250] = [0.0, 3.5, 0.0];
        assert_eq!(find(&jolt), []);
        let mut apart = vec![STANDING; 500];
        apart[100] = [0.0, 0.3, 0.0];
        apart[200] = [0.0, 3.5, 0.0];
        assert_eq!(find(&apart), []);
        let mut walking = fall(3.2, STANDING);
        walking[530..]
            .iter_mut()
            .enumerate()
            .for_each(|(i, g)| g[1] = 1.0 + 0.3 * (i as f32).sin());
        assert_eq!(find(&walking), []);
        assert_eq!(find(&fall(3.2, [f32::NAN; 3])), []);
    }

    #[test]
    fn without_a_before_there_is_no_turn() {
        let samples = fall(3.2, LYING);
        let found = find(&samples[490..]);
        assert_eq!((found.len(), found[0].turn_deg), (1, None));
    }

    proptest! {
        #[test]
        fn candidates_are_what_they_say(
            samples in proptest::collection::vec(
                (proptest::array::uniform3(-3.0f32..3.0), 1usize..150), 1..40),
            still in proptest::array::uniform3(-0.7f32..0.7),
        ) {
            let mut samples: Vec<[f32; 3]> =
                samples.iter().flat_map(|(g, count)| std::iter::repeat_n(*g, *count)).collect();
            samples.extend([still; 300]);
            let found = find(&samples);
            for candidate in &found {
                let at = |place: u64| length(samples[place as usize]).unwrap();
                prop_assert!(at(candidate.free_fall) < 0.6);
                prop_assert_eq!(at(candidate.impact), candidate.impact_g);
                prop_assert!(candidate.impact_g > 2.0 && candidate.free_fall < candidate.impact);
            }
            // Two seconds of settling and two of stillness lie between.
            prop_assert!(found.windows(2).all(|pair| pair[1].free_fall >= pair[0].free_fall + 200));
        }
    }
}
