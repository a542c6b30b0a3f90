//! The score of the Numenta Anomaly Benchmark, and detectors that are held to it.
//!
//! # Score
//! As of NAB 1.1 (Lavin, Ahmad, ICMLA 2015; Ahmad, Lavin, Purdy, Agha, Neurocomputing 262, 2017), standard profile. A detector gives each reading a number from 0 to
//! 1, knowing only what came before. The first 15 % of a series (at most 750 readings) do not count. In each labelled window the
//! earliest detection counts, by a sigmoid from 0.987 (at its beginning) to about 0, divided by the greatest; a window without costs 1. A
//! detection outside costs 0.11, less shortly after a window. One threshold is chosen for all series, the best. Normalised: 0 for a detector that never
//! says anything, 100 for one that says all at once and nothing else.
//!
//! # Published
//! [`PUBLISHED`] are NAB's results over all of its 58 series; a part of them is another test. [`published_of`] sums up, for a part, what NAB's repository
//! says of each series, at the threshold that was best for that detector on all 58. A detector of ours has the best one for the part, which favours it.

use super::features::{Features, features};
use super::model::{FaultError, FaultModel};
use super::novelty::Novelty;
use super::{CONTEXT, Reading, WINDOW};
use haar_recordings::nab::Series;
use std::collections::BTreeMap;

/// NAB's published scores over its whole corpus, standard profile: `results/final_results.json` at numenta/NAB
/// 5a98e4f15e4508b2d1472ac31db2467dd87a9a28.
pub const PUBLISHED: [(&str, f64); 14] = [
    ("ARTime", 74.85),
    ("Numenta HTM", 70.10),
    ("CAD OSE", 69.90),
    ("HTM Java", 65.55),
    ("NumentaTM HTM", 64.55),
    ("earthgecko Skyline", 58.20),
    ("KNN CAD", 57.99),
    ("relative entropy", 54.64),
    ("random cut forest", 51.72),
    ("Twitter ADVec", 47.06),
    ("windowed Gaussian", 39.65),
    ("Etsy Skyline", 35.69),
    ("random", 16.83),
    ("EXPoSE", 16.44),
];

/// Score by series and detector, standard profile, before normalisation: `results/*/*_standard_scores.csv` at numenta/NAB (MIT), in the
/// versions whose sums are those of [`PUBLISHED`].
const PUBLISHED_SERIES: &str = include_str!("published.tsv");

const FALSE_POSITIVE: f64 = 0.11;
const MISSED: f64 = 1.0;
const PROBATION: f64 = 0.15;
const PROBATION_READINGS_MAX: f64 = 750.0;
/// Readings between two looks of the fault model; what it sees in between is said at the end.
const HOP: usize = 16;
/// Readings that the Gaussian is taken from.
const GAUSSIAN_READINGS: usize = 1_000;

/// How a detector did on some series.
#[derive(Clone, PartialEq, Debug)]
pub struct NabFigures {
    /// The threshold that gives the best score over all series.
    pub threshold: f64,
    /// Normalised, 100 is perfect, 0 says nothing; `None` where no series has a window.
    pub score: Option<f64>,
    /// The same threshold's normalised score by series; without those that have no window.
    pub series: BTreeMap<String, f64>,
}

/// Scores a detector by the numbers it gave each series' readings.
///
/// A series whose numbers are fewer than its readings is scored as far as they go.
pub fn score(series: &[Series], numbers: &[Vec<f64>]) -> NabFigures {
    let marked: Vec<Vec<Point>> =
        series.iter().zip(numbers).map(|(series, numbers)| points(series, numbers)).collect();
    let threshold = best_threshold(&marked);
    let mut by_series = BTreeMap::new();
    let (mut gained, mut possible) = (0.0, 0.0);
    for (series, points) in series.iter().zip(&marked) {
        // Against a detector that never says anything, which misses each window; a perfect one gains 1 for each.
        let windows = windows(points);
        let (own, most) = (at_threshold(points, threshold), (1.0 + MISSED) * windows as f64);
        gained += own;
        possible += most;
        if windows > 0 {
            by_series.insert(series.name.clone(), 100.0 * own / most);
        }
    }
    let score = (possible > 0.0).then(|| 100.0 * gained / possible);
    NabFigures { threshold, score, series: by_series }
}

/// The probability that something is wrong with the newest reading, by the fault model, looked at every `HOP` readings.
///
/// # Errors
/// If a network cannot be computed.
pub fn by_model(model: &FaultModel, series: &Series) -> Result<Vec<f64>, FaultError> {
    let readings = readings(series);
    let mut numbers = vec![0.0; readings.len()];
    let looks: Vec<(usize, Features)> = (HOP..=readings.len())
        .step_by(HOP)
        .filter_map(|end| Some((end, features(&readings[end.saturating_sub(CONTEXT)..end], None)?)))
        .collect();
    for some in looks.chunks(WINDOW) {
        let windows: Vec<&Features> = some.iter().map(|(_, window)| window).collect();
        for ((end, window), judged) in
            some.iter().zip(model.mean_windows(&windows, model.members())?)
        {
            let newest = &judged[window.rows.saturating_sub(HOP)..window.rows];
            let wrong = newest.iter().map(|row| 1.0 - f64::from(row[0])).fold(0.0, f64::max);
            numbers[end - 1] = wrong;
        }
    }
    Ok(numbers)
}

/// The baseline: how far the newest value lies from the last `GAUSSIAN_READINGS`, as the two-sided tail of a normal with their
/// mean and deviation (NAB's windowed Gaussian).
pub fn by_gaussian(series: &Series) -> Vec<f64> {
    let values: Vec<f64> = series.readings.iter().map(|(_, value)| f64::from(*value)).collect();
    (0..values.len())
        .map(|at| {
            let past = &values[at.saturating_sub(GAUSSIAN_READINGS)..at];
            if past.is_empty() {
                return 0.0;
            }
            let mean = past.iter().sum::<f64>() / past.len() as f64;
            let variance =
                past.iter().map(|own| (own - mean).powi(2)).sum::<f64>() / past.len() as f64;
            let z = (values[at] - mean).abs() / variance.sqrt().max(1e-6);
            // Monotone in the tail's probability, and not 1 for all of the far ones.
            z / (1.0 + z)
        })
        .collect()
}

/// The novelty of each reading, from 0 to 1.
pub fn by_novelty(series: &Series) -> Vec<f64> {
    let first = probation(series.readings.len());
    let mut intervals: Vec<f64> = series.readings[..first.max(2).min(series.readings.len())]
        .windows(2)
        .map(|pair| pair[1].0 - pair[0].0)
        .collect();
    intervals.sort_unstable_by(f64::total_cmp);
    let interval_s = intervals.get(intervals.len() / 2).copied().unwrap_or(f64::NAN);
    let mut novelty = Novelty::new(interval_s);
    let number = |(_, value): &(f64, f32)| {
        let own = novelty.push(*value);
        own / (1.0 + own)
    };
    series.readings.iter().map(number).collect()
}

/// What published detectors score on some series, normalised as [`score`] is; empty if one of them that has a window is not in the table.
pub fn published_of(series: &[Series]) -> Vec<(&'static str, f64)> {
    let mut lines = PUBLISHED_SERIES.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split('\t').skip(1).collect();
    let rows: BTreeMap<&str, Vec<f64>> = lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, cells)| (name, cells.split('\t').filter_map(|c| c.parse().ok()).collect()))
        .collect();
    let (mut gained, mut possible) = (vec![0.0; names.len()], 0.0);
    for one in series {
        let windows = windows(&points(one, &vec![0.0; one.readings.len()])) as f64;
        match rows.get(one.name.as_str()) {
            Some(row) => {
                for (gained, own) in gained.iter_mut().zip(row) {
                    *gained += own + MISSED * windows;
                }
            }
            None if windows > 0.0 => return Vec::new(),
            None => {}
        }
        possible += (1.0 + MISSED) * windows;
    }
    if possible == 0.0 {
        return Vec::new();
    }
    names.into_iter().zip(gained.into_iter().map(|own| 100.0 * own / possible)).collect()
}

fn readings(series: &Series) -> Vec<Reading> {
    let reading = |(time_s, value): &(f64, f32)| Reading { time_s: *time_s, value: *value };
    series.readings.iter().map(reading).collect()
}

/// One reading that counts.
#[derive(Clone, Copy)]
struct Point {
    number: f64,
    /// What a detection here is worth.
    worth: f64,
    /// Which of the series' windows it is in.
    window: Option<usize>,
}

/// The readings of a series that count.
fn points(series: &Series, numbers: &[f64]) -> Vec<Point> {
    let rows = series.readings.len();
    (probation(rows)..rows.min(numbers.len()))
        .map(|at| {
            let window =
                series.windows.iter().position(|(first, last)| (*first..=*last).contains(&at));
            let worth = match window {
                Some(window) => {
                    let (first, last) = series.windows[window];
                    let width = (last - first + 1) as f64;
                    sigmoid(-((last - at + 1) as f64) / width) / sigmoid(-1.0)
                }
                None => {
                    let before = series.windows.iter().filter(|(_, last)| *last < at).max();
                    let past = before.map_or(f64::INFINITY, |(first, last)| {
                        (at - last) as f64 / (last - first).max(1) as f64
                    });
                    FALSE_POSITIVE * if past >= 3.0 { -1.0 } else { sigmoid(past) }
                }
            };
            Point { number: numbers[at], worth, window }
        })
        .collect()
}

/// Readings at the beginning of so many that do not count.
fn probation(rows: usize) -> usize {
    (PROBATION * rows as f64).floor().min(PROBATION_READINGS_MAX) as usize
}

/// NAB's scaled sigmoid: nearly 1 at -1, 0 at 0, nearly -1 at 1.
fn sigmoid(position: f64) -> f64 {
    2.0 / (1.0 + (5.0 * position).exp()) - 1.0
}

fn windows(points: &[Point]) -> usize {
    let mut windows: Vec<usize> = points.iter().filter_map(|point| point.window).collect();
    windows.dedup();
    windows.len()
}

/// What detections at a threshold gain over none at all.
fn at_threshold(points: &[Point], threshold: f64) -> f64 {
    let mut found: BTreeMap<usize, f64> = BTreeMap::new();
    let mut gained = 0.0;
    for point in points.iter().filter(|point| point.number >= threshold) {
        match point.window {
            Some(window) => {
                let best = found.entry(window).or_insert(-MISSED);
                *best = best.max(point.worth);
            }
            None => gained += point.worth,
        }
    }
    gained + found.values().map(|worth| worth + MISSED).sum::<f64>()
}

/// The threshold that gains most over all series; infinite if none gains anything.
fn best_threshold(marked: &[Vec<Point>]) -> f64 {
    let mut all: Vec<(usize, Point)> = marked
        .iter()
        .enumerate()
        .flat_map(|(place, points)| points.iter().map(move |point| (place, *point)))
        .collect();
    all.sort_by(|a, b| b.1.number.total_cmp(&a.1.number));
    let mut found: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    let (mut gained, mut best) = (0.0, (f64::INFINITY, 0.0));
    for (at, (place, point)) in all.iter().enumerate() {
        gained += match point.window {
            Some(window) => {
                let kept = found.entry((*place, window)).or_insert(-MISSED);
                let gain = (point.worth - *kept).max(0.0);
                *kept += gain;
                gain
            }
            None => point.worth,
        };
        let last = all.get(at + 1).is_none_or(|(_, next)| next.number < point.number);
        if last && gained > best.1 {
            best = (point.number, gained);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000 readings with windows at 300..=399 and 600..=699.
    fn series() -> Series {
        Series {
            name: "a/b.csv".into(),
            readings: (0..1_000).map(|at| (f64::from(at) * 300.0, (at % 7) as f32)).collect(),
            windows: vec![(300, 399), (600, 699)],
        }
    }

    fn with(detections: &[usize]) -> Vec<f64> {
        let mut numbers = vec![0.0; 1_000];
        for at in detections {
            numbers[*at] = 1.0;
        }
        numbers
    }

    #[test]
    fn the_ends_of_the_scale() {
        let perfect = score(&[series()], &[with(&[300, 600])]);
        assert!((perfect.score.unwrap() - 100.0).abs() < 1e-9, "{perfect:?}");
        // Nothing but false alarms: better to say nothing, and that scores 0.
        let never = score(&[series()], &[with(&[250, 500, 900])]);
        assert_eq!((never.score, never.threshold), (Some(0.0), f64::INFINITY));
        // In probation nothing counts.
        assert_eq!(score(&[series()], &[with(&[10])]).score, Some(0.0));
    }

    /// The numbers of NAB's own sweeper for the same detections, worked out by its formulas.
    #[test]
    fn late_and_false_detections_cost_as_in_nab() {
        let sigma = |x: f64| 2.0 / (1.0 + (5.0 * x).exp()) - 1.0;
        let late = score(&[series()], &[with(&[350, 600])]);
        let expected = (sigma(-0.5) / sigma(-1.0) + 1.0 + 2.0) / 4.0 * 100.0;
        assert!((late.score.unwrap() - expected).abs() < 1e-9, "{late:?} {expected}");
        let false_alarm = score(&[series()], &[with(&[300, 449, 600])]);
        let expected = (4.0 + 0.11 * sigma(50.0 / 99.0)) / 4.0 * 100.0;
        assert!((false_alarm.score.unwrap() - expected).abs() < 1e-9, "{false_alarm:?}");
        let twice = score(&[series()], &[with(&[300, 301, 600])]);
        assert!((twice.score.unwrap() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn published_scores_are_of_the_series_given() {
        let named = |name: &str| Series { name: name.into(), ..series() };
        let asked = named("realTraffic/TravelTime_451.csv");
        let found = published_of(std::slice::from_ref(&asked));
        // 0.855 of two windows: (0.855 + 2) / 4.
        assert_eq!(found[0].0, "ARTime");
        assert!((found[0].1 - 100.0 * 2.855 / 4.0).abs() < 1e-9);
        assert_eq!(published_of(&[asked, named("another.csv")]), []);
        assert_eq!(published_of(&[]), []);
        for line in PUBLISHED_SERIES.lines() {
            assert_eq!(line.split('\t').count(), found.len() + 1, "{line}");
        }
    }

    #[test]
    fn novelty_sees_a_jump_when_it_comes() {
        let mut series = series();
        for (_, value) in &mut series.readings[600..] {
            *value += 100.0;
        }
        let numbers = by_novelty(&series);
        let before = numbers[..600].iter().copied().fold(0.0, f64::max);
        assert!(numbers[600] > before && numbers[600] < 1.0);
    }

    #[test]
    fn the_gaussian_sees_a_jump_when_it_comes() {
        let mut series = series();
        for (_, value) in &mut series.readings[600..] {
            *value += 100.0;
        }
        let numbers = by_gaussian(&series);
        assert!(numbers[600] > 0.9 && numbers[599] < 0.7);
        assert_eq!(numbers.len(), 1_000);
    }

    /// The score is NAB's: for series where our Gaussian raises the same alarms as its own did, it is what NAB's repository says.
    #[test]
    fn recorded_scores_are_those_of_nab() {
        let data =
            std::env::var_os("HAAR_DATA").expect("set HAAR_DATA to the recordings, see README");
        let folder = std::path::PathBuf::from(data).join("nab");
        let series =
            haar_recordings::nab::read(&super::super::streams::open(&folder).unwrap()).unwrap();
        assert!(published_of(&series).iter().all(|(_, score)| (-100.0..100.0).contains(score)));
        // Where NAB's numbers, 1 - tail, round to its threshold of 1.0.
        let threshold = 8.3 / 9.3;
        for (name, published) in [
            ("realAWSCloudwatch/ec2_cpu_utilization_c6585a.csv", -1.32),
            ("realKnownCause/cpu_utilization_asg_misconfiguration.csv", -1.11),
            ("realKnownCause/rogue_agent_key_hold.csv", -2.44),
            ("realAWSCloudwatch/elb_request_count_8c0756.csv", -0.138),
        ] {
            let one = series.iter().find(|one| one.name == name).unwrap();
            let points = points(one, &by_gaussian(one));
            let found = at_threshold(&points, threshold) - windows(&points) as f64;
            assert!((found - published).abs() < 1e-3, "{name}: {found} {published}");
        }
        let novelty: Vec<Vec<f64>> = series.iter().map(by_novelty).collect();
        let found = score(&series, &novelty).score.unwrap();
        assert!(found > 58.0, "{found}");
    }
}
