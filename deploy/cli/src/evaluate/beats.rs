//! `haar evaluate beats`: classes of beats against annotations.
//!
//! Counted by ANSI/AAMI EC57 ([`ec57`]): a fusion beat that is called ventricular is not a false call. The PPV with every
//! other call as false is printed beside it.

use super::qrs::{annotated_records, progress_bar};
use super::report::{MAX_STRIPS, Part, Report, ecg_strip};
use crate::failure::Failure;
use haar_inference::beats::{AnnotatedRecord, Unmatched, ec57};
use haar_inference::statistics::{
    ClassMetrics, Confusion, RocPoint, auprc, auroc, calibration, roc_curve,
};
use haar_inference::{BeatClass, BeatInput, BeatModel, BeatScore};
use haar_schema::Strip;
use haar_signals::ecg::detect_r_peaks;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A detection this near to an annotated beat is that beat (ANSI/AAMI EC57), in seconds.
const TOLERANCE_S: f64 = 0.15;
/// What a strip shows on each side of a mistake, in seconds.
const STRIP_S: f64 = 3.0;
/// Points of a curve in the report.
const MAX_CURVE_POINTS: usize = 400;
/// Bins of calibration.
const CALIBRATION_BINS: usize = 20;

/// Paced patients are left out (EC57). A patient of the model's training is asked of the one member that was trained without
/// the patient; any other of the whole committee.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of WFDB records with `.atr` annotations.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only these records, by name.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    records: Vec<String>,
    /// Folder of another model than the built-in one.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// At the R peaks that the detector finds in the first lead, instead of the annotated ones. Beats that it misses, and
    /// detections that are no beat, are counted apart.
    #[arg(long)]
    detected: bool,
    /// With windows of 30 s as the live path has them, instead of the whole recording as context.
    #[arg(long)]
    windows: bool,
    /// Of the first lead alone.
    #[arg(long)]
    one_lead: bool,
    /// Print one JSON object instead of a table; shares are fractions of 1.
    #[arg(long)]
    json: bool,
    /// Write a page with the figures, and the worst mistakes as strips.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let model = match &args.model {
        Some(folder) => BeatModel::load(folder)?,
        None => BeatModel::builtin()?,
    };
    let paths = annotated_records(&args.data, &args.records)?;
    let progress = progress_bar(paths.len() as u64);
    let mut evaluation = Evaluation::new();
    for path in &paths {
        let record = AnnotatedRecord::read(path)?;
        progress.set_message(record.name.clone());
        if record.is_paced {
            evaluation.paced += 1;
        } else {
            evaluation.add(args, &model, record)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let summary = evaluation.summary(args, &model);
    if let Some(path) = &args.report {
        super::report::write(path, &evaluation.page(&summary))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print_summary(&summary);
    }
    Ok(())
}

struct Evaluation {
    confusion: Confusion,
    unmatched: Unmatched,
    held_out: usize,
    unknown: usize,
    paced: usize,
    /// Annotated beats that have no input, or were not detected.
    without: u64,
    /// Detections that are no annotated beat.
    false_detections: u64,
    took: Duration,
    per_record: Vec<Line>,
    /// Of each classified beat its true class and the probabilities, where a report or areas want them.
    scored: Vec<(BeatClass, [f32; 5])>,
    /// Probability that was given to the true class, and the beat: what was called V or S and is not, and the other way round.
    false_calls: Vec<(f32, String, Strip)>,
    misses: Vec<(f32, String, Strip)>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    task: &'static str,
    model: String,
    peaks: &'static str,
    context: &'static str,
    leads: &'static str,
    records: usize,
    /// Of the training, asked of the member that had not seen the patient.
    records_held_out: usize,
    /// Not of the training, asked of all members.
    records_unknown: usize,
    records_paced_left_out: usize,
    beats: u64,
    beats_without_input: u64,
    false_detections: u64,
    accuracy: Option<f64>,
    /// How classes are counted.
    scoring: &'static str,
    classes: BTreeMap<&'static str, ClassFigures>,
    /// Against the rest, of beats that are neither F nor Q.
    auroc: BTreeMap<&'static str, Option<f64>>,
    auprc: BTreeMap<&'static str, Option<f64>>,
    /// True class (row) by called class (column), in the order N, S, V, F, Q.
    confusion: Vec<Vec<u64>>,
    /// Inputs and networks, reading the files and detecting peaks not counted.
    beats_per_s: f64,
    per_record: Vec<Line>,
}

/// One class by EC57, and how it is with every other call as false.
#[derive(Clone, Serialize)]
struct ClassFigures {
    #[serde(flatten)]
    ec57: ClassMetrics,
    ppv_strict: Option<f64>,
    f1_strict: Option<f64>,
}

#[derive(Clone, Serialize)]
struct Line {
    record: String,
    held_out: bool,
    accuracy: Option<f64>,
    confusion: Vec<Vec<u64>>,
}

impl Evaluation {
    fn new() -> Self {
        Self {
            confusion: Confusion::new(&BeatClass::NAMES),
            unmatched: Unmatched::default(),
            held_out: 0,
            unknown: 0,
            paced: 0,
            without: 0,
            false_detections: 0,
            took: Duration::ZERO,
            per_record: Vec::new(),
            scored: Vec::new(),
            false_calls: Vec::new(),
            misses: Vec::new(),
        }
    }

    fn add(
        &mut self,
        args: &Args,
        model: &BeatModel,
        mut record: AnnotatedRecord,
    ) -> Result<(), Failure> {
        if args.one_lead {
            record.leads.truncate(1);
        }
        let (peaks, truth) = self.peaks(args, &record);
        let members = model.lineage().members_for(record.case, model.members());
        let is_held_out = model.lineage().held_out_by(record.case).is_some();
        let begin = Instant::now();
        let inputs = record.inputs(&peaks, args.windows);
        let there: Vec<BeatInput> = inputs.iter().flatten().cloned().collect();
        let scores = model.classify_by(members, &there)?;
        self.took += begin.elapsed();
        let mut own = Confusion::new(&BeatClass::NAMES);
        let mut scores = scores.iter();
        for (at, input) in inputs.iter().enumerate() {
            let score = input.as_ref().and_then(|_| scores.next());
            match (truth[at], score) {
                (Some(truth), Some(score)) => {
                    own.add(truth.index(), score.class.index());
                    self.scored.push((truth, score.probabilities));
                    if args.report.is_some() {
                        self.mistake(&record, peaks[at], truth, score);
                    }
                }
                (Some(_), None) => self.without += 1,
                (None, score) => {
                    self.false_detections += 1;
                    if let Some(score) = score {
                        self.unmatched.extra[score.class.index()] += 1;
                    }
                }
            }
        }
        self.held_out += usize::from(is_held_out);
        self.unknown += usize::from(!is_held_out);
        self.confusion.merge(&own);
        self.per_record.push(Line {
            record: record.name,
            held_out: is_held_out,
            accuracy: own.accuracy(),
            confusion: own.counts().to_vec(),
        });
        Ok(())
    }

    /// Where beats are looked for, and what each truly is (none: no annotated beat).
    fn peaks(
        &mut self,
        args: &Args,
        record: &AnnotatedRecord,
    ) -> (Vec<usize>, Vec<Option<BeatClass>>) {
        if !args.detected {
            return record.beats.iter().map(|beat| (beat.sample, Some(beat.class))).unzip();
        }
        let peaks = detect_r_peaks(&record.leads[0], record.rate);
        let tolerance = (TOLERANCE_S * record.rate.hz()) as usize;
        let mut truth = vec![None; peaks.len()];
        for beat in &record.beats {
            let after = peaks.partition_point(|peak| *peak < beat.sample);
            let nearest = [after.checked_sub(1), Some(after)]
                .into_iter()
                .flatten()
                .filter(|at| *at < peaks.len() && truth[*at].is_none())
                .filter(|at| peaks[*at].abs_diff(beat.sample) <= tolerance)
                .min_by_key(|at| peaks[*at].abs_diff(beat.sample));
            match nearest {
                Some(at) => truth[at] = Some(beat.class),
                None => {
                    self.without += 1;
                    self.unmatched.missed[beat.class.index()] += 1;
                }
            }
        }
        (peaks, truth)
    }

    /// Keeps the worst of the false calls and misses that EC57 counts.
    fn mistake(
        &mut self,
        record: &AnnotatedRecord,
        peak: usize,
        truth: BeatClass,
        score: &BeatScore,
    ) {
        let ectopic = |class| matches!(class, BeatClass::V | BeatClass::S);
        let kept = match (truth, score.class) {
            (truth, called) if truth == called => return,
            (BeatClass::Q, _) | (BeatClass::F, BeatClass::V) => return,
            (truth, called) if ectopic(truth) && !ectopic(called) => &mut self.misses,
            (_, called) if ectopic(called) => &mut self.false_calls,
            _ => return,
        };
        let given = score.probabilities[truth.index()];
        if kept.len() == MAX_STRIPS && kept[MAX_STRIPS - 1].0 <= given {
            return;
        }
        let reach = (STRIP_S * record.rate.hz()) as usize;
        let from = peak.saturating_sub(reach);
        let to = (peak + reach).min(record.leads[0].len());
        let inside = record.beats.iter().filter(|beat| (from..to).contains(&beat.sample));
        let beats: Vec<(usize, char)> =
            inside.map(|beat| (beat.sample - from, beat.class.letter())).collect();
        let strip = ecg_strip(&record.leads[0][from..to], record.rate, &beats);
        let text = format!(
            "{}, {:.1} s: {truth} called {} ({:.0} %)",
            record.name,
            peak as f64 / record.rate.hz(),
            score.class,
            100.0 * score.probabilities[score.class.index()]
        );
        kept.push((given, text, strip));
        kept.sort_by(|a, b| a.0.total_cmp(&b.0));
        kept.truncate(MAX_STRIPS);
    }

    fn figures(&self, class: BeatClass) -> ClassFigures {
        let strict = self.confusion.class(class.index());
        ClassFigures {
            ec57: ec57(&self.confusion, &self.unmatched, class),
            ppv_strict: strict.ppv,
            f1_strict: strict.f1,
        }
    }

    /// The probability of a class, and whether it is, of all beats that are neither F nor Q.
    fn against_rest(&self, class: BeatClass) -> (Vec<f64>, Vec<bool>) {
        self.scored
            .iter()
            .filter(|(truth, _)| !matches!(truth, BeatClass::F | BeatClass::Q))
            .map(|(truth, given)| (f64::from(given[class.index()]), *truth == class))
            .unzip()
    }

    fn summary(&self, args: &Args, model: &BeatModel) -> Summary {
        let beats = self.confusion.cases();
        Summary {
            task: "beats",
            model: model.reference().sha256.clone(),
            peaks: if args.detected { "detected" } else { "annotated" },
            context: if args.windows { "windows of 30 s" } else { "whole recordings" },
            leads: if args.one_lead { "first" } else { "up to two" },
            records: self.per_record.len(),
            records_held_out: self.held_out,
            records_unknown: self.unknown,
            records_paced_left_out: self.paced,
            beats,
            beats_without_input: self.without,
            false_detections: self.false_detections,
            accuracy: self.confusion.accuracy(),
            scoring: "ANSI/AAMI EC57: F and Q called V, and Q called S, are no false calls",
            classes: BeatClass::ALL
                .map(|class| (BeatClass::NAMES[class.index()], self.figures(class)))
                .into(),
            auroc: self.areas(auroc),
            auprc: self.areas(auprc),
            confusion: self.confusion.counts().to_vec(),
            beats_per_s: beats as f64 / self.took.as_secs_f64().max(1e-9),
            per_record: self.per_record.clone(),
        }
    }

    fn areas(
        &self,
        area: impl Fn(&[f64], &[bool]) -> Option<f64>,
    ) -> BTreeMap<&'static str, Option<f64>> {
        [BeatClass::S, BeatClass::V]
            .map(|class| {
                let (scores, positive) = self.against_rest(class);
                (BeatClass::NAMES[class.index()], area(&scores, &positive))
            })
            .into()
    }

    fn page(&self, summary: &Summary) -> Report {
        let percent = |share: Option<f64>| {
            share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", share * 100.0))
        };
        let tile = |name: &str, figures: &ClassFigures| {
            let ClassMetrics { cases, sensitivity, ppv, .. } = figures.ec57;
            let below = format!("sensitivity / PPV, {cases} beats");
            [name.to_owned(), format!("{} / {}", percent(sensitivity), percent(ppv)), below]
        };
        let strips = |kept: &[(f32, String, Strip)]| {
            kept.iter().map(|(_, text, strip)| (text.clone(), strip.clone())).collect()
        };
        let curve = |class: BeatClass, name: &str| -> (String, Vec<RocPoint>, Option<f64>) {
            let (scores, positive) = self.against_rest(class);
            let curve = roc_curve(&scores, &positive, MAX_CURVE_POINTS);
            (name.to_owned(), curve, auroc(&scores, &positive))
        };
        let mut parts = vec![
            Part::confusion("Classes, every other call as false", &self.confusion),
            Part::Roc {
                title: "Each class against the rest, without F and Q".into(),
                curves: vec![
                    curve(BeatClass::V, "ventricular"),
                    curve(BeatClass::S, "supraventricular"),
                ],
            },
        ];
        for (class, title) in [
            (BeatClass::V, "Probability of a ventricular beat"),
            (BeatClass::S, "Probability of a supraventricular beat"),
        ] {
            let (scores, positive) = self.against_rest(class);
            if let Some(calibration) = calibration(&scores, &positive, CALIBRATION_BINS) {
                parts.push(Part::Calibration { title: title.into(), calibration });
            }
        }
        parts.extend([
            Part::Strips { title: "Worst false alarms".into(), strips: strips(&self.false_calls) },
            Part::Strips { title: "Worst misses".into(), strips: strips(&self.misses) },
        ]);
        Report {
            title: format!("Classes of heart beats of {} recordings", summary.records),
            tiles: vec![
                [
                    "Accuracy".into(),
                    percent(summary.accuracy),
                    format!("{} beats, context: {}", summary.beats, summary.context),
                ],
                tile("Ventricular by EC57", &summary.classes["V"]),
                tile("Supraventricular by EC57", &summary.classes["S"]),
                [
                    "R peaks".into(),
                    summary.peaks.into(),
                    format!("{} paced recordings left out", summary.records_paced_left_out),
                ],
            ],
            parts,
        }
    }
}

fn print_summary(summary: &Summary) {
    let percent = |share: Option<f64>| match share {
        Some(share) => format!("{:.2}", share * 100.0),
        None => "-".into(),
    };
    println!("class   cases    Se %   PPV %    F1 %   PPV % strict   called N/S/V/F/Q");
    for (class, counts) in BeatClass::ALL.into_iter().zip(&summary.confusion) {
        let figures = &summary.classes[BeatClass::NAMES[class.index()]];
        let ClassMetrics { cases, sensitivity, ppv, f1 } = figures.ec57;
        let called: Vec<String> = counts.iter().map(u64::to_string).collect();
        println!(
            "{class}     {cases:>7} {:>7} {:>7} {:>7} {:>14}   {}",
            percent(sensitivity),
            percent(ppv),
            percent(f1),
            percent(figures.ppv_strict),
            called.join("/")
        );
    }
    println!("scoring: {}", summary.scoring);
    let accuracy = summary.accuracy.unwrap_or(0.0) * 100.0;
    println!(
        "accuracy {accuracy:.2} % of {} beats, {} without input",
        summary.beats, summary.beats_without_input
    );
    println!(
        "{} records of the training (asked of the member that had not seen them), {} unknown to the model, {} paced left out",
        summary.records_held_out, summary.records_unknown, summary.records_paced_left_out
    );
    println!(
        "{} R peaks ({} false), context {}, leads: {}, {:.0} beats/s",
        summary.peaks,
        summary.false_detections,
        summary.context,
        summary.leads,
        summary.beats_per_s
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn data() -> String {
        let data = std::env::var("HAAR_DATA")
            .expect("set HAAR_DATA to the folder that holds mitdb (PhysioNet) to run this test");
        format!("{data}/mitdb")
    }

    fn evaluate(options: &[&str]) -> Summary {
        let data = data();
        let given = ["haar", "--data", &data, "--records", "119,208"];
        let args = Cli::parse_from(given.iter().chain(options)).args;
        let model = BeatModel::builtin().unwrap();
        let mut evaluation = Evaluation::new();
        for path in annotated_records(&args.data, &args.records).unwrap() {
            evaluation.add(&args, &model, AnnotatedRecord::read(&path).unwrap()).unwrap();
        }
        evaluation.summary(&args, &model)
    }

    /// Two patients, each asked of the member that was trained without the patient.
    #[test]
    fn recorded_ventricular_beats_are_found() {
        for options in [&[][..], &["--windows", "--one-lead"], &["--detected"]] {
            let summary = evaluate(options);
            assert_eq!((summary.records_held_out, summary.records_unknown), (2, 0));
            let v = &summary.classes["V"];
            let ClassMetrics { sensitivity, ppv, .. } = v.ec57;
            assert!(sensitivity > Some(0.85) && ppv > Some(0.85), "{options:?} {:?}", v.ec57);
            // A fusion beat that is called ventricular counts strictly only.
            assert!(v.ppv_strict < ppv, "{:?} {:?}", v.ppv_strict, ppv);
            assert!(summary.beats_without_input < 60, "{}", summary.beats_without_input);
        }
    }
}
