//! `haar evaluate rhythm`: the rhythm of short single-lead ECGs against annotations.
//!
//! A recording that the model was trained on is scored by the one member that has not seen it, any other by the whole
//! committee; which it is follows from its content, never from its name.

use super::report::{MAX_STRIPS, Part, Report, ecg_strip};
use crate::failure::Failure;
use haar_inference::rhythm::{RhythmClass, RhythmInput, RhythmModel, RhythmScore};
use haar_inference::statistics::{
    ClassMetrics, Confusion, Interval, auroc, bootstrap, calibration, roc_curve,
};
use haar_recordings::cinc2017::{self, Recording};
use haar_schema::{SampleRate, Strip};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The classes of which the challenge's score is the mean F1: N, A and O.
const SCORED: [usize; 3] = [0, 1, 2];
/// Resamples of the interval of the score, and what they grow from.
const RESAMPLES: usize = 1_000;
const SEED: u64 = 1;
const CALIBRATION_BINS: usize = 10;
/// The most points drawn of a curve.
const MAX_CURVE_POINTS: usize = 400;

/// Scores recordings of the PhysioNet/CinC Challenge 2017 (or of its format) and compares.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with .hea and .mat files and REFERENCE-v3.csv, or with their .tar.zst.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of another model than the one that is built in.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print one JSON object instead of a table; shares are fractions of 1.
    #[arg(long)]
    json: bool,
    /// Write a page with the figures, curves, and the recordings that were most surely called wrongly.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let model = match &args.model {
        Some(folder) => RhythmModel::load(folder)?,
        None => RhythmModel::builtin()?,
    };
    let recordings = cinc2017::read(&args.data)?;
    let results = score_all(&model, &recordings)?;
    let reference = model.reference();
    let summary = summary(format!("{} {}", reference.id, reference.sha256), &results)?;
    if let Some(path) = &args.report {
        super::report::write(path, &page(&summary, &recordings, &results))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print_table(&summary, &results);
    }
    Ok(())
}

/// One recording's score and truth.
struct Scored {
    truth: RhythmClass,
    score: RhythmScore,
    /// Whether the model was trained on it, and one member asked.
    held_out: bool,
    seconds: f64,
    took: Duration,
}

fn score_all(model: &RhythmModel, recordings: &[Recording]) -> Result<Vec<Scored>, Failure> {
    let bar = ProgressBar::new(recordings.len() as u64);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} recordings {eta} left")?);
    let mut results = Vec::with_capacity(recordings.len());
    for recording in recordings {
        let rate = SampleRate::from_millihertz(recording.rate_millihertz).ok_or_else(|| {
            Failure::usage("a recording has no sampling rate; correct its header".to_owned())
        })?;
        let begin = Instant::now();
        let input = RhythmInput::new(&recording.mv, rate)?;
        let members = model.members_for(recording.case);
        let held_out = model.package().lineage().held_out_by(recording.case).is_some();
        let seconds = input.seconds();
        let score = model.classify_by(&[input], members)?[0];
        let took = begin.elapsed();
        results.push(Scored { truth: recording.rhythm.into(), score, held_out, seconds, took });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(results)
}

/// The probability of a class and whether it is the truth, by recording.
fn against_rest(results: &[Scored], class: RhythmClass) -> (Vec<f64>, Vec<bool>) {
    let probability = |r: &Scored| f64::from(r.score.probabilities[class.index()]);
    results.iter().map(|result| (probability(result), result.truth == class)).unzip()
}

fn page(summary: &Summary, recordings: &[Recording], results: &[Scored]) -> Report {
    let number = |share: Option<f64>| share.map_or_else(|| "–".into(), |s| format!("{s:.4}"));
    let curve = |class: RhythmClass| {
        let (scores, positive) = against_rest(results, class);
        (
            class.name().to_owned(),
            roc_curve(&scores, &positive, MAX_CURVE_POINTS),
            auroc(&scores, &positive),
        )
    };
    let (scores, positive) = against_rest(results, RhythmClass::Fibrillation);
    let mut parts = vec![
        Part::confusion("Classes", &confusion(results)),
        Part::Roc {
            title: "Each class against the rest".into(),
            curves: RhythmClass::ALL.map(curve).into(),
        },
    ];
    if let Some(calibration) = calibration(&scores, &positive, CALIBRATION_BINS) {
        parts.push(Part::Calibration { title: "Probability of fibrillation".into(), calibration });
    }
    parts.push(Part::Strips {
        title: "Most surely called wrongly".into(),
        strips: mistakes(recordings, results),
    });
    let tile = |name: &str, share, below: String| [name.to_owned(), number(share), below];
    Report {
        title: format!("Rhythm of {} recordings", summary.recordings),
        tiles: vec![
            tile("Mean F1 of N, A, O", summary.f1, "all recordings".into()),
            tile(
                "Held-out folds",
                summary.held_out.f1,
                format!("{} recordings", summary.held_out.recordings),
            ),
            tile(
                "Unknown to the model",
                summary.unknown.f1,
                format!("{} recordings", summary.unknown.recordings),
            ),
            tile("Accuracy", summary.accuracy, "all recordings".into()),
        ],
        parts,
    }
}

/// Recordings whose wrong class was given the highest probability.
fn mistakes(recordings: &[Recording], results: &[Scored]) -> Vec<(String, Strip)> {
    let sureness = |result: &Scored| result.score.probabilities[result.score.class.index()];
    let mut wrong: Vec<(&Recording, &Scored)> =
        recordings.iter().zip(results).filter(|(_, r)| r.truth != r.score.class).collect();
    wrong.sort_by(|a, b| sureness(b.1).total_cmp(&sureness(a.1)));
    wrong
        .into_iter()
        .take(MAX_STRIPS)
        .filter_map(|(recording, result)| {
            let rate = SampleRate::from_millihertz(recording.rate_millihertz)?;
            let (truth, called) = (result.truth.name(), result.score.class.name());
            let said = format!("{truth}, called {called} with {:.2}", sureness(result));
            Some((said, ecg_strip(&recording.mv, rate, &[])))
        })
        .collect()
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    task: &'static str,
    model: String,
    recordings: usize,
    /// Recordings that the model was trained on, scored by the member that has not seen them.
    held_out: Group,
    /// Recordings that no member has seen, scored by all.
    unknown: Group,
    /// The mean F1 of N, A and O over both.
    f1: Option<f64>,
    f1_interval: Option<Interval>,
    accuracy: Option<f64>,
    classes: BTreeMap<&'static str, ClassMetrics>,
    confusion: Vec<Vec<u64>>,
    /// Of each class against the rest.
    auroc: BTreeMap<&'static str, Option<f64>>,
    /// Expected calibration error of the probability of fibrillation.
    calibration_error: Option<f64>,
    /// Seconds of signal by second of one core, from samples to score.
    signal_seconds_per_s: f64,
}

#[derive(Serialize)]
struct Group {
    recordings: usize,
    f1: Option<f64>,
    accuracy: Option<f64>,
}

fn confusion<'s>(results: impl IntoIterator<Item = &'s Scored>) -> Confusion {
    let mut confusion = Confusion::new(RhythmClass::NAMES);
    for result in results {
        confusion.add(result.truth.index(), result.score.class.index());
    }
    confusion
}

fn group(results: &[Scored], held_out: bool) -> Group {
    let confusion = confusion(results.iter().filter(|result| result.held_out == held_out));
    Group {
        recordings: confusion.cases() as usize,
        f1: confusion.mean_f1(SCORED),
        accuracy: confusion.accuracy(),
    }
}

fn summary(model: String, results: &[Scored]) -> Result<Summary, Failure> {
    if results.is_empty() {
        return Err(Failure::usage("there are no recordings; give the folder of the data set"));
    }
    let all = confusion(results);
    let (scores, positive) = against_rest(results, RhythmClass::Fibrillation);
    let took: f64 = results.iter().map(|result| result.took.as_secs_f64()).sum();
    Ok(Summary {
        task: "rhythm",
        model,
        recordings: results.len(),
        held_out: group(results, true),
        unknown: group(results, false),
        f1: all.mean_f1(SCORED),
        f1_interval: bootstrap(results.len(), RESAMPLES, SEED, |drawn| {
            confusion(drawn.iter().map(|at| &results[*at])).mean_f1(SCORED)
        }),
        accuracy: all.accuracy(),
        classes: RhythmClass::ALL.map(|class| (class.name(), all.class(class.index()))).into(),
        confusion: all.counts().to_vec(),
        auroc: RhythmClass::ALL
            .map(|class| {
                let (scores, positive) = against_rest(results, class);
                (class.name(), auroc(&scores, &positive))
            })
            .into(),
        calibration_error: calibration(&scores, &positive, CALIBRATION_BINS)
            .map(|calibration| calibration.expected_error),
        signal_seconds_per_s: results.iter().map(|result| result.seconds).sum::<f64>()
            / took.max(1e-9),
    })
}

fn print_table(summary: &Summary, results: &[Scored]) {
    let number = |share: Option<f64>| share.map_or_else(|| "–".into(), |s| format!("{s:.4}"));
    println!("{}", confusion(results));
    println!("model {}", summary.model);
    for (name, group) in
        [("held-out folds", &summary.held_out), ("unknown to the model", &summary.unknown)]
    {
        println!(
            "{name}: {} recordings, mean F1 of N, A, O {}",
            group.recordings,
            number(group.f1)
        );
    }
    let interval = summary.f1_interval.as_ref();
    println!(
        "all: mean F1 of N, A, O {} ({}–{}), accuracy {}, calibration error of A {}",
        number(summary.f1),
        number(interval.map(|interval| interval.lower)),
        number(interval.map(|interval| interval.upper)),
        number(summary.accuracy),
        number(summary.calibration_error),
    );
    println!("{:.0} s of signal by second of one core", summary.signal_seconds_per_s);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(truth: usize, called: usize, held_out: bool) -> Scored {
        let mut probabilities = [0.1; 4];
        probabilities[called] = 0.7;
        Scored {
            truth: RhythmClass::ALL[truth],
            score: RhythmScore { probabilities, class: RhythmClass::ALL[called], spread: 0.0 },
            held_out,
            seconds: 30.0,
            took: Duration::from_millis(10),
        }
    }

    #[test]
    fn the_score_is_the_mean_of_three_and_groups_are_apart() {
        let pairs = [(0, 0, true), (0, 2, true), (1, 1, true), (2, 2, true), (3, 0, false)];
        let results: Vec<Scored> = pairs.map(|(t, c, h)| scored(t, c, h)).into();
        let summary = summary("model".into(), &results).unwrap();
        // N: 2·1/(2 + 2), A: 1, O: 2·1/(1 + 2).
        assert!((summary.f1.unwrap() - (0.5 + 1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!((summary.held_out.recordings, summary.unknown.recordings), (4, 1));
        assert_eq!(summary.unknown.accuracy, Some(0.0));
        assert_eq!(summary.confusion[0], [1, 0, 1, 0]);
        assert!((summary.signal_seconds_per_s - 3_000.0).abs() < 1e-6);
        let json = serde_json::to_value(&summary).unwrap();
        assert!(json["classes"]["~"]["f1"].is_number());
    }
}
