//! What happens on the ward: illnesses, rhythms, faults of sensors, clocks and delivery.
//!
//! # Format
//! TOML, one `[[episode]]` each; unknown keys are an error:
//!
//! ```toml
//! [[episode]]
//! patient = 0
//! start_s = 60
//! duration_s = 300
//! what = "atrial-fibrillation"
//!
//! [[episode]]
//! patient = 1
//! start_s = 30
//! duration_s = 500
//! what = { deterioration = "septic-shock" }
//!
//! [[episode]]
//! patient = 2
//! start_s = 0
//! duration_s = 600
//! what = { clock-offset = { device = "monitor", seconds = 3600.0 } }
//! ```
//!
//! # Limits
//! At most [`MAX_EPISODES`]; an episode lasts at most [`MAX_EPISODE_S`].

use crate::vitals::Course;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The most episodes in a scenario.
pub const MAX_EPISODES: usize = 100_000;
/// The longest episode, and the latest start: a week, in seconds.
pub const MAX_EPISODE_S: u32 = 7 * 86_400;
/// What a clock may be wrong by: six thousand years either way, so that RFC 3339 has a word for it.
const MAX_CLOCK_ERROR_S: f64 = 2.0e11;
/// The longest that a frame is held back; bounds what a ward keeps in memory.
const MAX_DELAY_S: f64 = 600.0;

/// Everything that is scripted.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// In any order; those of one patient may overlap.
    #[serde(default, rename = "episode")]
    pub episodes: Vec<Episode>,
}

/// Something that happens to one patient or to one of the patient's devices.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episode {
    /// The patient's number, from 0.
    pub patient: u32,
    /// When it begins, in seconds of simulated time.
    pub start_s: u32,
    /// How long it lasts, in seconds.
    pub duration_s: u32,
    /// What it is.
    pub what: What,
}

/// One of a patient's devices.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The bedside monitor: vitals.
    Monitor,
    /// The ECG.
    Ecg,
    /// The oximeter with its breathing belt: the PPG and respiration curves.
    Oximeter,
    /// The temperature patch; patients whose monitor takes the temperature have none.
    Patch,
}

/// What happens.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// An illness moves the vitals.
    Deterioration(Course),
    /// The atria fibrillate.
    AtrialFibrillation,
    /// Ectopic beats, as shares of all beats; together at most 0.4.
    Ectopy {
        /// Share of ventricular ones.
        #[serde(default)]
        ventricular: f64,
        /// Share of supraventricular ones.
        #[serde(default)]
        supraventricular: f64,
    },
    /// The device repeats the last value that it had.
    Flatline {
        /// Which.
        device: Device,
    },
    /// Values far off, at random: one sample in a thousand of a curve, one set of vitals in ten.
    Spike {
        /// Which.
        device: Device,
    },
    /// Values move away from the truth steadily.
    Drift {
        /// Which.
        device: Device,
        /// By so much a minute, in the unit of the signal (every signal of the device).
        per_min: f64,
    },
    /// The device says nothing.
    Dropout {
        /// Which.
        device: Device,
    },
    /// The ECG's lead is off: frames come, with no sample in them.
    DetachedLead,
    /// The device's clock is ahead (behind if negative). Far past and far future are large numbers here.
    ClockOffset {
        /// Which.
        device: Device,
        /// By how much.
        seconds: f64,
    },
    /// The device's clock runs fast (slow if negative) from the start of the episode.
    ClockDrift {
        /// Which.
        device: Device,
        /// By how much, in parts per million.
        ppm: f64,
    },
    /// The patch sends no time; the edge takes the time of arrival, which agrees with the rest of the ward
    /// only at a speed of 1.
    NoClock,
    /// Frames of the device are held back and then come all the same.
    LateDelivery {
        /// Which.
        device: Device,
        /// By how much.
        seconds: f64,
    },
    /// This share of the device's frames is sent twice.
    Duplicates {
        /// Which.
        device: Device,
        /// Share, 0 to 1.
        fraction: f64,
    },
    /// This share of the device's frames arrives behind its successor.
    Reordering {
        /// Which.
        device: Device,
        /// Share, 0 to 1.
        fraction: f64,
    },
}

/// Why a text is no scenario, or a scenario does not fit a ward.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// Not TOML of this form.
    #[error("the scenario cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// Over [`MAX_EPISODES`].
    #[error("a scenario has at most {MAX_EPISODES} episodes, this one has {0}")]
    TooMany(usize),
    /// A patient that the ward has not.
    #[error(
        "episode {episode} is of patient {patient}, but the ward has patients 0 to {last}; start it with more patients or change the scenario"
    )]
    Patient {
        /// Which episode, from 1.
        episode: usize,
        /// The patient asked for.
        patient: u32,
        /// The last patient there is.
        last: u32,
    },
    /// A number out of its range.
    #[error("episode {episode}: `{key}` must be {range}")]
    Range {
        /// Which episode, from 1.
        episode: usize,
        /// Which number.
        key: &'static str,
        /// What it may be.
        range: &'static str,
    },
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// If it is not one, or a number in it is out of range.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        if scenario.episodes.len() > MAX_EPISODES {
            return Err(ScenarioError::TooMany(scenario.episodes.len()));
        }
        for (index, episode) in scenario.episodes.iter().enumerate() {
            episode.within_range(index + 1)?;
        }
        Ok(scenario)
    }

    /// The demo's ward. Of the first eight patients: 0 fibrillates, 1 has a fever (seen by the patch), 2 has
    /// frequent ventricular ectopic beats, 3 goes into septic shock, 4 loses an ECG lead, the monitor of 5 is an
    /// hour ahead, that of 6 is stuck for five minutes, 7 is healthy. Of every further eight the first four do as those, the rest are
    /// healthy. Everything happens in the first ten minutes; the seed moves the beginnings by up to 40 s.
    pub fn demo(seed: u64, patients: u32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let episodes = (0..patients)
            .filter_map(|patient| {
                // Drawn for every patient, so that one more patient changes nothing for the others.
                let jitter_s = rng.random_range(0..40);
                let (start_s, duration_s, what) = match (patient % 8, patient) {
                    (0, _) => (60, 400, What::AtrialFibrillation),
                    (1, _) => (40, 560, What::Deterioration(Course::Fever)),
                    (2, _) => (30, 560, What::Ectopy { ventricular: 0.2, supraventricular: 0.0 }),
                    (3, _) => (40, 560, What::Deterioration(Course::SepticShock)),
                    (_, 4) => (90, 120, What::DetachedLead),
                    (_, 6) => (180, 300, What::Flatline { device: Device::Monitor }),
                    (_, 5) => {
                        (0, 86_400, What::ClockOffset { device: Device::Monitor, seconds: 3_600.0 })
                    }
                    _ => return None,
                };
                // A wrong clock is wrong from the first frame.
                let start_s = if start_s == 0 { 0 } else { start_s + jitter_s };
                Some(Episode { patient, start_s, duration_s, what })
            })
            .collect();
        Self { episodes }
    }

    /// Checks that every patient is on a ward of this many.
    pub(crate) fn fits(&self, patients: u32) -> Result<(), ScenarioError> {
        for (index, episode) in self.episodes.iter().enumerate() {
            episode.within_range(index + 1)?;
            if episode.patient >= patients {
                return Err(ScenarioError::Patient {
                    episode: index + 1,
                    patient: episode.patient,
                    last: patients.saturating_sub(1),
                });
            }
        }
        Ok(())
    }
}

impl Episode {
    /// Seconds since it began, while it lasts.
    pub fn elapsed_s(&self, second: u64) -> Option<u64> {
        let elapsed = second.checked_sub(u64::from(self.start_s))?;
        (elapsed < u64::from(self.duration_s)).then_some(elapsed)
    }

    fn within_range(&self, episode: usize) -> Result<(), ScenarioError> {
        let check = |ok: bool, key, range| {
            if ok { Ok(()) } else { Err(ScenarioError::Range { episode, key, range }) }
        };
        check(self.start_s <= MAX_EPISODE_S, "start_s", "at most a week (604800)")?;
        check((1..=MAX_EPISODE_S).contains(&self.duration_s), "duration_s", "1 to 604800")?;
        let share = |x: f64| (0.0..=1.0).contains(&x);
        match self.what {
            What::Ectopy { ventricular, supraventricular } => check(
                share(ventricular)
                    && share(supraventricular)
                    && ventricular + supraventricular <= 0.4,
                "ventricular + supraventricular",
                "0 to 0.4",
            ),
            What::Drift { per_min, .. } => {
                check(per_min.abs() <= 1e6, "per_min", "between -1e6 and 1e6")
            }
            What::ClockOffset { seconds, .. } => {
                check(seconds.abs() <= MAX_CLOCK_ERROR_S, "seconds", "between -2e11 and 2e11")
            }
            What::ClockDrift { ppm, .. } => {
                check(ppm.abs() <= 1e5, "ppm", "between -100000 and 100000")
            }
            What::LateDelivery { seconds, .. } => {
                check((0.0..=MAX_DELAY_S).contains(&seconds), "seconds", "0 to 600")
            }
            What::Duplicates { fraction, .. } | What::Reordering { fraction, .. } => {
                check(share(fraction), "fraction", "0 to 1")
            }
            What::Deterioration(_)
            | What::AtrialFibrillation
            | What::Flatline { .. }
            | What::Spike { .. }
            | What::Dropout { .. }
            | What::DetachedLead
            | What::NoClock => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_scenario_is_read_and_written() {
        let text = r#"
            [[episode]]
            patient = 0
            start_s = 60
            duration_s = 300
            what = "atrial-fibrillation"
            [[episode]]
            patient = 1
            start_s = 30
            duration_s = 500
            what = { deterioration = "septic-shock" }
            [[episode]]
            patient = 2
            start_s = 0
            duration_s = 600
            what = { clock-offset = { device = "monitor", seconds = 3600.0 } }
        "#;
        let scenario = Scenario::from_toml(text).unwrap();
        assert_eq!(scenario.episodes.len(), 3);
        assert_eq!(scenario.episodes[1].what, What::Deterioration(Course::SepticShock));
        let again = Scenario::from_toml(&toml::to_string(&scenario).unwrap()).unwrap();
        assert_eq!(again, scenario);
    }

    #[test]
    fn mistakes_say_what_is_wrong() {
        let error = |text: &str| Scenario::from_toml(text).unwrap_err().to_string();
        expect![[r#"
            the scenario cannot be read: TOML parse error at line 1, column 50
              |
            1 | episode = [{patient=0, start_s=0, duration_s=10, waht="no-clock"}]
              |                                                  ^^^^
            unknown field `waht`, expected one of `patient`, `start_s`, `duration_s`, `what`
        "#]]
        .assert_eq(&error(r#"episode = [{patient=0, start_s=0, duration_s=10, waht="no-clock"}]"#));
        expect!["episode 1: `ventricular + supraventricular` must be 0 to 0.4"].assert_eq(&error(
            "episode = [{patient=0, start_s=0, duration_s=10, what={ectopy={ventricular=nan}}}]",
        ));
    }

    #[test]
    fn the_demo_has_one_of_everything_and_half_of_the_rest() {
        let demo = Scenario::demo(1, 64);
        demo.fits(64).unwrap();
        assert_eq!(demo.episodes.len(), 35);
        assert_eq!(Scenario::demo(1, 8).episodes, demo.episodes[..7]);
        assert!(matches!(Scenario::demo(1, 8).fits(5), Err(ScenarioError::Patient { .. })));
        assert_eq!(Scenario::demo(2, 0).episodes, []);
    }
}
