//! `haar evaluate qrs`: R peaks against annotations.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use haar_recordings::wfdb::{Record, find_records, read_annotations};
use haar_schema::{SampleRate, Strip};
use haar_signals::ecg::{Matches, detect_r_peaks, detect_r_peaks_in_pair, match_beats};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::report::{Part, Report, ecg_strip};
use crate::failure::Failure;

/// A detection this near to an annotated beat is that beat (ANSI/AAMI EC57), in seconds.
const TOLERANCE_S: f64 = 0.15;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of WFDB records with `.atr` annotations, or one record.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only these records, by name.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    records: Vec<String>,
    /// Leads to detect beats in: the first (as the peers do), or the first two together.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    leads: u8,
    /// Print one JSON object instead of a table; shares are fractions of 1.
    #[arg(long)]
    json: bool,
    /// Write a page with the figures, and the stretches with the most mistakes as strips.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let paths = annotated_records(&args.data, &args.records)?;
    let progress = progress_bar(paths.len() as u64);
    let (mut report, mut mistakes) = (QrsReport::default(), Vec::new());
    for path in &paths {
        progress.set_message(name_of(path));
        let result = evaluate_record(path, args.leads)?;
        if args.report.is_some() {
            mistakes.extend(worst_stretch(path, &result)?);
        }
        report.add(result);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let summary = report.summary();
    if let Some(path) = &args.report {
        super::report::write(path, &page(&summary, mistakes))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print_table(&summary);
    }
    Ok(())
}

/// Records that have an `.atr`, and among them those that were asked for.
pub(super) fn annotated_records(data: &Path, records: &[String]) -> Result<Vec<PathBuf>, Failure> {
    let mut wanted: BTreeSet<&str> = records.iter().map(String::as_str).collect();
    let all = wanted.is_empty();
    let mut paths: Vec<PathBuf> = find_records(data)?;
    paths.retain(|path| path.with_extension("atr").is_file());
    paths.retain(|path| wanted.remove(name_of(path).as_str()) || all);
    if !wanted.is_empty() {
        let missing: Vec<&str> = wanted.into_iter().collect();
        return Err(Failure::usage(format!(
            "no annotated record called {} in {}; a record needs its .hea, .dat and .atr there",
            missing.join(", "),
            data.display()
        )));
    }
    if paths.is_empty() {
        return Err(Failure::usage(format!(
            "no record in {} has annotations; the .atr files lie beside the .hea files",
            data.display()
        )));
    }
    Ok(paths)
}

fn evaluate_record(path: &Path, leads: u8) -> Result<RecordResult, Failure> {
    let record = Record::open(path)?;
    let annotations = read_annotations(path.with_extension("atr"))?;
    let lead = record.signals.first().ok_or_else(|| {
        Failure::usage(format!("{} has no signals to detect beats in", path.display()))
    })?;
    let millihertz = (record.header.rate_hz * 1_000.0).round();
    let rate = SampleRate::from_millihertz(millihertz as u32).ok_or_else(|| {
        Failure::usage(format!("{}: no sampling rate, correct the header", path.display()))
    })?;
    let reference: Vec<usize> = annotations
        .iter()
        .filter(|annotation| annotation.is_beat())
        .map(|annotation| annotation.sample as usize)
        .collect();
    let begin = Instant::now();
    let detected = match (leads, record.signals.get(1)) {
        (2, Some(second)) => detect_r_peaks_in_pair([lead, second], rate),
        _ => detect_r_peaks(lead, rate),
    };
    let took = begin.elapsed();
    let matches = match_beats(&reference, &detected, (TOLERANCE_S * rate.hz()) as usize);
    let (name, samples) = (name_of(path), lead.len() as u64);
    Ok(RecordResult { name, samples, took, matches, reference, detected })
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// On standard error, and only where somebody watches.
pub(crate) fn progress_bar(records: u64) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    // The template is a constant; if it were wrong the plain bar would do.
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} records  {msg}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(records), target).with_style(style)
}

struct RecordResult {
    name: String,
    samples: u64,
    took: Duration,
    matches: Matches,
    reference: Vec<usize>,
    detected: Vec<usize>,
}

/// A stretch of a record, how many mistakes are in it, and what to say of it.
type Mistakes = (usize, String, Strip);

/// The ten seconds of a record with the most mistakes; `None` if it has none.
fn worst_stretch(path: &Path, result: &RecordResult) -> Result<Option<Mistakes>, Failure> {
    let record = Record::open(path)?;
    let rate = SampleRate::from_millihertz((record.header.rate_hz * 1_000.0).round() as u32);
    let (Some(lead), Some(rate)) = (record.signals.first(), rate) else { return Ok(None) };
    let tolerance = (TOLERANCE_S * rate.hz()) as usize;
    let alone = |beats: &[usize], others: &[usize], letter: char| -> Vec<(usize, char)> {
        let far = |at: &&usize| {
            let from = others.partition_point(|other| other + tolerance < **at);
            others.get(from).is_none_or(|other| *other > **at + tolerance)
        };
        beats.iter().filter(far).map(|at| (*at, letter)).collect()
    };
    let missed = alone(&result.reference, &result.detected, '−');
    let added = alone(&result.detected, &result.reference, '+');
    let mut all = [missed, added].concat();
    all.sort_unstable();
    let length = (10.0 * rate.hz()) as usize;
    let count =
        |from: usize| all.iter().filter(|(at, _)| (from..from + length).contains(at)).count();
    let starts = all.iter().map(|(at, _)| at.saturating_sub(length / 4));
    let Some(from) = starts.max_by_key(|from| count(*from)) else { return Ok(None) };
    let marks: Vec<(usize, char)> = all
        .iter()
        .filter(|(at, _)| (from..from + length).contains(at))
        .map(|(at, letter)| (at - from, *letter))
        .collect();
    let piece = &lead[from..(from + length).min(lead.len())];
    let (missed, added) = (count_of(&marks, '−'), count_of(&marks, '+'));
    let second = from as f64 / rate.hz();
    let caption =
        format!("{} at {second:.0} s: {missed} missed (−), {added} false (+)", result.name);
    Ok(Some((marks.len(), caption, ecg_strip(piece, rate, &marks))))
}

fn count_of(marks: &[(usize, char)], letter: char) -> usize {
    marks.iter().filter(|(_, other)| *other == letter).count()
}

fn page(summary: &QrsSummary, mut mistakes: Vec<Mistakes>) -> Report {
    mistakes.sort_by_key(|(count, _, _)| std::cmp::Reverse(*count));
    let percent = |share: Option<f64>| {
        share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", share * 100.0))
    };
    let row = |name: &str, figures: &QrsFigures| {
        let counts =
            [figures.beats, figures.matches.false_negatives, figures.matches.false_positives];
        let shares = [figures.sensitivity, figures.ppv, figures.f1].map(percent);
        let counts = counts.map(|count| count.to_string());
        std::iter::once(name.to_owned()).chain(counts).chain(shares).collect()
    };
    let mut rows: Vec<Vec<String>> =
        summary.per_record.iter().map(|line| row(&line.record, &line.figures)).collect();
    rows.push(row("all", &summary.total));
    let below = format!("of {} beats", summary.total.beats);
    let tile = |name: &str, share| [name.to_owned(), percent(share), below.clone()];
    let head = ["record", "beats", "missed", "false", "sensitivity", "PPV", "F1"];
    Report {
        title: format!("R peaks of {} records", summary.records),
        tiles: vec![
            tile("Sensitivity", summary.total.sensitivity),
            tile("PPV", summary.total.ppv),
            tile("F1", summary.total.f1),
        ],
        parts: vec![
            Part::Strips {
                title: "The ten seconds of each record with the most mistakes".into(),
                strips: mistakes.into_iter().map(|(_, said, strip)| (said, strip)).collect(),
            },
            Part::Table { title: "Records".into(), head: head.map(str::to_owned).into(), rows },
        ],
    }
}

#[derive(Default)]
struct QrsReport {
    total: Matches,
    samples: u64,
    took: Duration,
    per_record: Vec<QrsLine>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct QrsSummary {
    task: &'static str,
    records: usize,
    #[serde(flatten)]
    total: QrsFigures,
    samples: u64,
    /// Of the detector alone, reading the files not counted.
    samples_per_s: f64,
    per_record: Vec<QrsLine>,
}

#[derive(Clone, Serialize)]
struct QrsLine {
    record: String,
    #[serde(flatten)]
    figures: QrsFigures,
}

/// Counts, and shares of 1 (null where there is nothing to take a share of).
#[derive(Clone, Copy, Serialize)]
struct QrsFigures {
    beats: u64,
    #[serde(flatten)]
    matches: Matches,
    sensitivity: Option<f64>,
    ppv: Option<f64>,
    f1: Option<f64>,
}

impl QrsReport {
    fn add(&mut self, result: RecordResult) {
        self.total += result.matches;
        self.samples += result.samples;
        self.took += result.took;
        self.per_record
            .push(QrsLine { record: result.name, figures: QrsFigures::from(result.matches) });
    }

    fn summary(self) -> QrsSummary {
        QrsSummary {
            task: "qrs",
            records: self.per_record.len(),
            total: QrsFigures::from(self.total),
            samples: self.samples,
            samples_per_s: self.samples as f64 / self.took.as_secs_f64().max(1e-9),
            per_record: self.per_record,
        }
    }
}

impl From<Matches> for QrsFigures {
    fn from(matches: Matches) -> Self {
        Self {
            beats: matches.true_positives + matches.false_negatives,
            matches,
            sensitivity: matches.sensitivity(),
            ppv: matches.ppv(),
            f1: matches.f1(),
        }
    }
}

fn print_table(summary: &QrsSummary) {
    println!(
        "{:<12} {:>7} {:>7} {:>6} {:>8} {:>8} {:>8}",
        "record", "beats", "missed", "false", "Se %", "PPV %", "F1 %"
    );
    for line in &summary.per_record {
        print_line(&line.record, &line.figures);
    }
    print_line("all", &summary.total);
    println!(
        "{} records, {:.1} million samples/s in the detector",
        summary.records,
        summary.samples_per_s / 1e6
    );
}

fn print_line(name: &str, figures: &QrsFigures) {
    let percent = |share: Option<f64>| {
        share.map_or_else(|| "–".to_owned(), |share| format!("{:.2}", share * 100.0))
    };
    println!(
        "{name:<12} {:>7} {:>7} {:>6} {:>8} {:>8} {:>8}",
        figures.beats,
        figures.matches.false_negatives,
        figures.matches.false_positives,
        percent(figures.sensitivity),
        percent(figures.ppv),
        percent(figures.f1)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use haar_recordings::wfdb::{Format, write_record};

    /// A folder with a record of one spike a second and an annotation file of two beats (at 250 and 500).
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut mv = vec![0.0_f32; 1_000];
        for beat in [250, 500, 750] {
            mv[beat - 1..=beat + 1].copy_from_slice(&[0.5, 1.0, 0.5]);
        }
        write_record(folder.path(), "a", Format::F16, 250.0, 200.0, &[("II", &mv)]).unwrap();
        // annot(5): code 1 (normal beat) in the upper six bits, the interval below; then the end.
        let beat = (1_u16 << 10 | 250).to_le_bytes();
        let bytes = [beat, beat, [0, 0]].concat();
        std::fs::write(folder.path().join("a.atr"), bytes).unwrap();
        folder
    }

    #[test]
    fn figures_of_a_small_record() {
        let folder = folder();
        let paths = annotated_records(folder.path(), &["a".into()]).unwrap();
        let mut report = QrsReport::default();
        for path in &paths {
            let mut result = evaluate_record(path, 1).unwrap();
            result.took = Duration::from_millis(1);
            report.add(result);
        }
        let json = serde_json::to_string(&report.summary()).unwrap();
        expect![[r#"{"task":"qrs","records":1,"beats":2,"true_positives":2,"false_negatives":0,"false_positives":1,"sensitivity":1.0,"ppv":0.6666666666666666,"f1":0.8,"samples":1000,"samples_per_s":1000000.0,"per_record":[{"record":"a","beats":2,"true_positives":2,"false_negatives":0,"false_positives":1,"sensitivity":1.0,"ppv":0.6666666666666666,"f1":0.8}]}"#]]
        .assert_eq(&json);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let folder = folder();
        let error =
            annotated_records(folder.path(), &["a".into(), "b".into(), "c".into()]).unwrap_err();
        assert!(error.to_string().starts_with("no annotated record called b, c in "));
        std::fs::remove_file(folder.path().join("a.atr")).unwrap();
        let error = annotated_records(folder.path(), &[]).unwrap_err();
        assert!(error.to_string().contains("no record in "));
    }
}
