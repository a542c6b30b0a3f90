//! Atrial fibrillation over hours: how much of the time, how long, how often.
//!
//! [`af_burden`] takes what was judged window by window over event time and says which share of the *analysable* time was
//! fibrillation (AHA scientific statement, Chen et al. 2018, Circulation 137:e623–e644: burden as the
//! share of monitored time). Time without a judgement — gaps, noise, too few samples — is unknown: it is
//! never counted as rhythm of either kind, and the bounds say what the burden would be if all of it were one or the other.
//!
//! # Episodes
//! Stretches of fibrillation of at least [`BurdenSettings::episode_s`] (30 s by the ESC guideline 2020, Eur Heart J
//! 42:373–498). Unknown time of up to [`BurdenSettings::bridge_s`] between windows of fibrillation does not end one, and does
//! not count as fibrillation either.
//!
//! # Not guaranteed
//! A window is judged as a whole: fibrillation of a few seconds in it is not seen, and edges of episodes are those of windows.

use super::{RhythmClass, RhythmScore};
use haar_schema::Timestamp;

/// The most windows at once: a year of half minutes.
pub const MAX_BURDEN_WINDOWS: usize = 1_100_000;

const MICROS: f64 = 1e6;

/// What was judged of one window.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct JudgedWindow {
    /// Event time of its begin.
    pub begin: Timestamp,
    /// Event time of its end, after the begin.
    pub end: Timestamp,
    /// The probability of fibrillation, 0–1; `None` if it was not judged, or judged too noisy.
    pub fibrillation: Option<f32>,
    /// Share of its samples that are there, 0–1.
    pub coverage: f32,
}

/// What counts as what.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BurdenSettings {
    /// Fibrillation from this probability.
    pub threshold: f32,
    /// A window with a smaller share of its samples is unknown.
    pub coverage_min: f32,
    /// The shortest episode, in seconds.
    pub episode_s: f64,
    /// The longest unknown time within an episode, in seconds.
    pub bridge_s: f64,
}

impl Default for BurdenSettings {
    fn default() -> Self {
        Self { threshold: 0.5, coverage_min: 0.7, episode_s: 30.0, bridge_s: 60.0 }
    }
}

/// An episode of fibrillation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Episode {
    /// Begin of its first window.
    pub begin: Timestamp,
    /// End of its last window.
    pub end: Timestamp,
    /// Seconds between them that were judged fibrillation; the rest is unknown.
    pub fibrillation_s: f64,
    /// Whether there was unknown time, or the end of what was looked at, right before or after it: it may have been longer.
    pub cut: bool,
}

/// Fibrillation over a span of time.
#[derive(Clone, PartialEq, Debug)]
pub struct AfBurden {
    /// Seconds judged fibrillation.
    pub fibrillation_s: f64,
    /// Seconds judged something else.
    pub other_s: f64,
    /// Seconds without a judgement, gaps between windows included.
    pub unknown_s: f64,
    /// Episodes in order of time.
    pub episodes: Vec<Episode>,
}

/// Why there is no burden.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BurdenError {
    /// More than [`MAX_BURDEN_WINDOWS`].
    #[error("{0} windows; take at most {MAX_BURDEN_WINDOWS} at once")]
    TooMany(usize),
    /// The window with this number begins before the one before it ends, ends before it begins, or lies outside the span.
    #[error(
        "window {0} is not after the one before and within the span; give windows in order of time, not overlapping"
    )]
    Order(usize),
}

impl JudgedWindow {
    /// Of a score: noisy is not judged, and fibrillation is weighed against the two other rhythms.
    pub fn of(score: &RhythmScore, begin: Timestamp, end: Timestamp, coverage: f32) -> Self {
        let of = |class: RhythmClass| score.probabilities[class.index()];
        let fibrillation = of(RhythmClass::Fibrillation);
        let rhythms = fibrillation + of(RhythmClass::Normal) + of(RhythmClass::Other);
        let judged = score.class != RhythmClass::Noisy && rhythms > 0.0;
        Self { begin, end, fibrillation: judged.then(|| fibrillation / rhythms), coverage }
    }
}

impl AfBurden {
    /// Share of the analysable time that is fibrillation, 0–1; `None` if nothing was analysable.
    pub fn share(&self) -> Option<f64> {
        let analysable = self.fibrillation_s + self.other_s;
        (analysable > 0.0).then(|| self.fibrillation_s / analysable)
    }

    /// The least and the most that the share of the *whole* time can be, with the unknown time taken for
    /// other rhythm and for fibrillation; `None` for an empty span.
    pub fn bounds(&self) -> Option<(f64, f64)> {
        let whole = self.fibrillation_s + self.other_s + self.unknown_s;
        (whole > 0.0)
            .then(|| (self.fibrillation_s / whole, (self.fibrillation_s + self.unknown_s) / whole))
    }

    /// The episode from whose begin to whose end it is longest, the first of equals.
    pub fn longest(&self) -> Option<&Episode> {
        self.episodes.iter().rev().max_by_key(|episode| episode.end.micros_since(episode.begin))
    }
}

/// The burden over the span from `begin` to `end` of windows in order of time, not overlapping, within the span.
///
/// # Errors
/// If there are too many windows, or they are not so.
pub fn af_burden(
    begin: Timestamp,
    end: Timestamp,
    windows: &[JudgedWindow],
    settings: &BurdenSettings,
) -> Result<AfBurden, BurdenError> {
    if windows.len() > MAX_BURDEN_WINDOWS {
        return Err(BurdenError::TooMany(windows.len()));
    }
    let mut burden =
        AfBurden { fibrillation_s: 0.0, other_s: 0.0, unknown_s: 0.0, episodes: Vec::new() };
    let mut open: Option<Episode> = None;
    // End of the last judged window, and whether the time since it is judged other.
    let mut judged_until = begin;
    let mut reached = begin;
    for (number, window) in windows.iter().enumerate() {
        if window.begin < reached || window.end <= window.begin || window.end > end {
            return Err(BurdenError::Order(number));
        }
        burden.unknown_s += seconds(reached, window.begin);
        reached = window.end;
        let length = seconds(window.begin, window.end);
        let judged = window.fibrillation.filter(|p| !p.is_nan());
        let Some(p) = judged.filter(|_| window.coverage >= settings.coverage_min) else {
            burden.unknown_s += length;
            continue;
        };
        let unknown_s = seconds(judged_until, window.begin);
        if p >= settings.threshold {
            burden.fibrillation_s += length;
            if unknown_s > settings.bridge_s {
                close(&mut open, true, settings, &mut burden.episodes);
            }
            let cut = unknown_s > 0.0 || window.begin == begin;
            let episode = open.get_or_insert(Episode {
                begin: window.begin,
                end: window.end,
                fibrillation_s: 0.0,
                cut,
            });
            episode.end = window.end;
            episode.fibrillation_s += length;
        } else {
            burden.other_s += length;
            close(&mut open, unknown_s > 0.0, settings, &mut burden.episodes);
        }
        judged_until = window.end;
    }
    burden.unknown_s += seconds(reached, end);
    close(&mut open, true, settings, &mut burden.episodes);
    Ok(burden)
}

/// Ends the open episode, if there is one; it counts if it is long enough.
fn close(
    open: &mut Option<Episode>,
    cut: bool,
    settings: &BurdenSettings,
    episodes: &mut Vec<Episode>,
) {
    if let Some(mut episode) = open.take()
        && episode.fibrillation_s >= settings.episode_s
    {
        episode.cut |= cut;
        episodes.push(episode);
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.micros_since(from).max(0) as f64 / MICROS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    /// Windows of 30 s: A fibrillation, N other, ~ not judged, a blank no window.
    fn windows(text: &str) -> Vec<JudgedWindow> {
        let window = |(index, c): (usize, char)| {
            let begin = index as i64 * 30;
            let fibrillation = match c {
                'A' => Some(0.9),
                'N' => Some(0.1),
                '~' => None,
                _ => return None,
            };
            Some(JudgedWindow {
                begin: at(begin),
                end: at(begin + 30),
                fibrillation,
                coverage: 1.0,
            })
        };
        text.chars().enumerate().filter_map(window).collect()
    }

    fn of(text: &str) -> AfBurden {
        let end = at(text.len() as i64 * 30);
        af_burden(at(0), end, &windows(text), &BurdenSettings::default()).unwrap()
    }

    #[test]
    fn unknown_time_is_neither() {
        let burden = of("NAAN~ NN");
        assert_eq!((burden.fibrillation_s, burden.other_s, burden.unknown_s), (60.0, 120.0, 60.0));
        assert_eq!(burden.share(), Some(1.0 / 3.0));
        assert_eq!(burden.bounds(), Some((0.25, 0.5)));
        let nothing = of("~ ~");
        assert_eq!((nothing.share(), nothing.bounds()), (None, Some((0.0, 1.0))));
        assert_eq!(nothing.longest(), None);
    }

    #[test]
    fn episodes_bridge_short_gaps_and_say_where_they_are_cut() {
        let burden = of("NAA~AN    AAN  A");
        let found: Vec<(i64, i64, f64, bool)> = burden
            .episodes
            .iter()
            .map(|e| (e.begin.millis() / 1_000, e.end.millis() / 1_000, e.fibrillation_s, e.cut))
            .collect();
        assert_eq!(found, [(30, 150, 90.0, false), (300, 360, 60.0, true), (450, 480, 30.0, true)]);
        assert_eq!(burden.longest().unwrap().begin, at(30));
        assert_eq!(of("A   A").episodes.len(), 2);
        assert_eq!(of("A  A").episodes.len(), 1);
    }

    #[test]
    fn poor_coverage_is_unknown_and_short_stretches_are_no_episode() {
        let mut poor = windows("AA");
        poor[1].coverage = 0.5;
        let burden = af_burden(at(0), at(60), &poor, &BurdenSettings::default()).unwrap();
        assert_eq!((burden.fibrillation_s, burden.unknown_s), (30.0, 30.0));
        let settings = BurdenSettings { episode_s: 31.0, ..BurdenSettings::default() };
        let burden = af_burden(at(0), at(60), &poor, &settings).unwrap();
        assert_eq!((burden.fibrillation_s, burden.episodes.len()), (30.0, 0));
    }

    #[test]
    fn disorder_is_refused() {
        let mut windows = windows("AA");
        windows.swap(0, 1);
        let settings = BurdenSettings::default();
        assert_eq!(af_burden(at(0), at(60), &windows, &settings), Err(BurdenError::Order(1)));
        windows.swap(0, 1);
        assert_eq!(af_burden(at(0), at(50), &windows, &settings), Err(BurdenError::Order(1)));
        assert_eq!(af_burden(at(1), at(60), &windows, &settings), Err(BurdenError::Order(0)));
    }

    #[test]
    fn a_score_becomes_a_judgement() {
        let score =
            |probabilities: [f32; 4], class| RhythmScore { probabilities, class, spread: 0.0 };
        let judged = |score| JudgedWindow::of(&score, at(0), at(30), 1.0).fibrillation;
        assert_eq!(judged(score([0.3, 0.45, 0.15, 0.1], RhythmClass::Fibrillation)), Some(0.5));
        assert_eq!(judged(score([0.1, 0.2, 0.1, 0.6], RhythmClass::Noisy)), None);
    }

    proptest! {
        #[test]
        fn all_time_is_one_of_three(text in "[AN~ ]{0,60}") {
            let burden = of(&text);
            let sum = burden.fibrillation_s + burden.other_s + burden.unknown_s;
            prop_assert!((sum - 30.0 * text.len() as f64).abs() < 1e-6);
            let in_episodes: f64 = burden.episodes.iter().map(|episode| episode.fibrillation_s).sum();
            prop_assert!((in_episodes - burden.fibrillation_s).abs() < 1e-6);
            for pair in burden.episodes.windows(2) {
                prop_assert!(pair[0].end < pair[1].begin);
            }
        }
    }
}
