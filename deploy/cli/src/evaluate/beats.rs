//! `haar evaluate beats`: classes of beats against annotations.

use super::qrs::{annotated_records, progress_bar};
use super::report::{Part, Report, ecg_strip};
use crate::failure::Failure;
use haar_inference::beats::AnnotatedRecord;
use haar_inference::statistics::{ClassMetrics, Confusion};
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
        println!("{}", evaluation.confusion);
        print_summary(&summary);
    }
    Ok(())
}

struct Evaluation {
    confusion: Confusion,
    held_out: usize,
    unknown: usize,
    paced: usize,
    /// Annotated beats that have no input, or were not detected.
    without: u64,
    /// Detections that are no annotated beat.
    false_detections: u64,
    took: Duration,
    per_record: Vec<Line>,
    /// Probability that was given to the true class, and the beat.
    mistakes: Vec<(f32, String, Strip)>,
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
    classes: BTreeMap<&'static str, ClassMetrics>,
    /// True class (row) by called class (column), in the order N, S, V, F, Q.
    confusion: Vec<Vec<u64>>,
    /// Inputs and networks, reading the files and detecting peaks not counted.
    beats_per_s: f64,
    per_record: Vec<Line>,
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
            held_out: 0,
            unknown: 0,
            paced: 0,
            without: 0,
            false_detections: 0,
            took: Duration::ZERO,
            per_record: Vec::new(),
            mistakes: Vec::new(),
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
                    if args.report.is_some() && truth != score.class {
                        self.mistake(&record, peaks[at], truth, score);
                    }
                }
                (Some(_), None) => self.without += 1,
                (None, _) => self.false_detections += 1,
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
                None => self.without += 1,
            }
        }
        (peaks, truth)
    }

    /// Keeps the worst.
    fn mistake(
        &mut self,
        record: &AnnotatedRecord,
        peak: usize,
        truth: BeatClass,
        score: &BeatScore,
    ) {
        let given = score.probabilities[truth.index()];
        let most = super::report::MAX_STRIPS;
        if self.mistakes.len() == most && self.mistakes[most - 1].0 <= given {
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
        self.mistakes.push((given, text, strip));
        self.mistakes.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.mistakes.truncate(most);
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
            classes: (0..5).map(|at| (BeatClass::NAMES[at], self.confusion.class(at))).collect(),
            confusion: self.confusion.counts().to_vec(),
            beats_per_s: beats as f64 / self.took.as_secs_f64().max(1e-9),
            per_record: self.per_record.clone(),
        }
    }

    fn page(&self, summary: &Summary) -> Report {
        let accuracy = summary.accuracy.unwrap_or(0.0) * 100.0;
        let strips = self.mistakes.iter().map(|(_, text, strip)| (text.clone(), strip.clone()));
        Report {
            title: "Classes of heart beats".into(),
            tiles: vec![
                ["accuracy".into(), format!("{accuracy:.2} %"), "of all beats".into()],
                ["beats".into(), summary.beats.to_string(), format!("{} records", summary.records)],
                ["context".into(), summary.context.into(), format!("{} R peaks", summary.peaks)],
            ],
            parts: vec![
                Part::confusion("Classes", &self.confusion),
                Part::Strips { title: "Worst mistakes".into(), strips: strips.collect() },
            ],
        }
    }
}

fn print_summary(summary: &Summary) {
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
            let v = summary.classes["V"];
            assert!(v.sensitivity > Some(0.85) && v.ppv > Some(0.75), "{options:?} {v:?}");
            assert!(summary.beats_without_input < 60, "{}", summary.beats_without_input);
        }
    }
}
