//! `haar evaluate burden`: how much of a long recording is atrial fibrillation, against rhythm annotations.
//!
//! Reads WFDB records with `.atr` annotations of rhythm (`+` with `(AFIB`, `(N` ..). The first lead in mV is cut into windows, end to
//! end from the first rhythm annotation on; each is judged by the rhythm model, and
//! [`haar_inference::rhythm::af_burden`] sums them up.
//!
//! # What counts
//! Fibrillation is what the annotators call `AFIB`. Flutter (`AFL`) is *not*: it counts as another rhythm, and how
//! much of it was called fibrillation is told beside. Sensitivity and PPV are of *time* (ANSI/AAMI EC57): of the annotated fibrillation the
//! share that was called, unjudged time being missed; of the called time the share that is annotated. A
//! window is called as a whole, so that edges are wrong by up to a window. Burden is the called share of judged
//! time, held against the annotated share of all time.
//!
//! # Limits
//! [`MAX_WINDOWS`] windows a record.

mod page;

use super::qrs::{annotated_records, progress_bar};
use super::report::ecg_strip;
use crate::failure::Failure;
use haar_inference::rhythm::{
    AfBurden, BurdenSettings, JudgedWindow, MAX_SECONDS, MIN_SECONDS, RhythmInput, RhythmModel,
    af_burden,
};
use haar_inference::statistics::{Interval, bootstrap};
use haar_recordings::corpus::CaseId;
use haar_recordings::wfdb::{Annotation, Record, read_annotations};
use haar_schema::{SampleRate, Strip, Timestamp};
use serde::Serialize;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The most windows of one record: a week of half minutes.
const MAX_WINDOWS: usize = 20_160;
/// Windows that are judged together.
const BATCH: usize = 32;
const RESAMPLES: usize = 1_000;
const SEED: u64 = 1;

/// Sums fibrillation up over long recordings and compares.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of WFDB records with `.atr` annotations of rhythm, or one record.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only these records, by name.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    records: Vec<String>,
    /// Length of a window, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(MIN_SECONDS as i64..=MAX_SECONDS as i64))]
    window_s: u32,
    /// Folder of another rhythm model than the one that is built in.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print one JSON object instead of a table; shares are fractions of 1.
    #[arg(long)]
    json: bool,
    /// Write a page with the figures, burdens called and annotated, and the windows that were most surely called wrongly.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let model = match &args.model {
        Some(folder) => RhythmModel::load(folder)?,
        None => RhythmModel::builtin()?,
    };
    let paths = annotated_records(&args.data, &args.records)?;
    let progress = progress_bar(paths.len() as u64);
    let (mut found, mut mistakes, mut without_rhythm) = (Vec::new(), Vec::new(), 0);
    for path in &paths {
        match judge_record(path, &model, args.window_s)? {
            Some(judged) => {
                if args.report.is_some() {
                    mistakes.extend(judged.mistakes()?);
                }
                found.push(Line::of(&judged)?);
            }
            None => without_rhythm += 1,
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    if found.is_empty() {
        return Err(Failure::usage(
            "no record has annotations of rhythm (`+` with a text such as `(AFIB`)",
        ));
    }
    let reference = model.reference();
    let name = format!("{} {}", reference.id, reference.sha256);
    let summary = Summary::of(name, args.window_s, without_rhythm, found);
    if let Some(path) = &args.report {
        super::report::write(path, &page::page(&summary, mistakes))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print_table(&summary);
    }
    Ok(())
}

/// What annotators say of a stretch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rhythm {
    Fibrillation,
    Flutter,
    Another,
}

/// Annotated rhythms from the first one to the end, in samples, without gaps.
fn rhythms(annotations: &[Annotation], samples: usize) -> Vec<(Range<usize>, Rhythm)> {
    let changes: Vec<(usize, Rhythm)> = annotations
        .iter()
        .filter(|annotation| annotation.symbol == '+')
        .filter_map(|annotation| {
            let text = annotation.aux.as_deref()?.trim_end_matches('\0').strip_prefix('(')?;
            let rhythm = match text.trim() {
                "AFIB" => Rhythm::Fibrillation,
                "AFL" => Rhythm::Flutter,
                _ => Rhythm::Another,
            };
            let at = usize::try_from(annotation.sample).ok().filter(|at| *at < samples)?;
            Some((at, rhythm))
        })
        .collect();
    let ends = changes.iter().skip(1).map(|change| change.0).chain([samples]);
    changes.iter().zip(ends).map(|((at, rhythm), end)| (*at..end.max(*at), *rhythm)).collect()
}

/// A record with its windows.
struct Judged {
    name: String,
    rate: SampleRate,
    lead: Vec<f32>,
    rhythms: Vec<(Range<usize>, Rhythm)>,
    /// Samples of each window, end to end, and what was judged of it.
    windows: Vec<(Range<usize>, JudgedWindow)>,
}

/// `None` without an annotation of rhythm.
fn judge_record(
    path: &Path,
    model: &RhythmModel,
    window_s: u32,
) -> Result<Option<Judged>, Failure> {
    let record = Record::open(path)?;
    let annotations = read_annotations(path.with_extension("atr"))?;
    let millihertz = (record.header.rate_hz * 1_000.0).round();
    let rate = SampleRate::from_millihertz(millihertz as u32).ok_or_else(|| {
        Failure::usage(format!("{}: no sampling rate, correct the header", path.display()))
    })?;
    let in_mv = record.header.signals.iter().position(|signal| signal.units == "mV");
    let lead = in_mv.and_then(|at| record.signals.into_iter().nth(at)).ok_or_else(|| {
        Failure::usage(format!("{} has no signal in mV; convert it", path.display()))
    })?;
    let rhythms = rhythms(&annotations, lead.len());
    let Some(begin) = rhythms.first().map(|(span, _)| span.start) else { return Ok(None) };
    let length = (f64::from(window_s) * rate.hz()) as usize;
    let spans: Vec<Range<usize>> = (begin..lead.len())
        .step_by(length.max(1))
        .map(|start| start..(start + length).min(lead.len()))
        .collect();
    if spans.len() > MAX_WINDOWS {
        return Err(Failure::usage(format!(
            "{} has {} windows; at most {MAX_WINDOWS} are taken: cut it",
            path.display(),
            spans.len()
        )));
    }
    // A recording that the model was trained on has the same content, so that its one blind member is asked.
    let bytes = std::fs::read(path.with_extension("dat"))
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let members = model.members_for(CaseId::of(&bytes));
    let mut windows = Vec::with_capacity(spans.len());
    for spans in spans.chunks(BATCH) {
        // What is too short or too coarse to judge stays unknown.
        let inputs: Vec<Option<RhythmInput>> =
            spans.iter().map(|span| RhythmInput::new(&lead[span.clone()], rate).ok()).collect();
        let known: Vec<RhythmInput> = inputs.iter().flatten().cloned().collect();
        let mut scores = model.classify_by(&known, members.clone())?.into_iter();
        for (span, input) in spans.iter().zip(&inputs) {
            let [from, to] = [span.start, span.end].map(|at| time(rate, at));
            let there = lead[span.clone()].iter().filter(|mv| mv.is_finite()).count();
            let coverage = there as f32 / span.len().max(1) as f32;
            let window = match input.as_ref().and_then(|_| scores.next()) {
                Some(score) => JudgedWindow::of(&score, from, to, coverage),
                None => JudgedWindow { begin: from, end: to, fibrillation: None, coverage },
            };
            windows.push((span.clone(), window));
        }
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Some(Judged { name, rate, lead, rhythms, windows }))
}

fn time(rate: SampleRate, sample: usize) -> Timestamp {
    rate.sample_time(Timestamp::from_micros(0), sample as u64)
}

/// What was called of a window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Fibrillation,
    Another,
    Unknown,
}

fn call(window: &JudgedWindow, settings: &BurdenSettings) -> Call {
    match window.fibrillation.filter(|_| window.coverage >= settings.coverage_min) {
        Some(p) if p >= settings.threshold => Call::Fibrillation,
        Some(_) => Call::Another,
        None => Call::Unknown,
    }
}

impl Judged {
    /// Samples of a rhythm within a span.
    fn overlap(&self, span: &Range<usize>, wanted: Rhythm) -> usize {
        let of = self.rhythms.iter().filter(|(_, rhythm)| *rhythm == wanted);
        of.map(|(own, _)| own.end.min(span.end).saturating_sub(own.start.max(span.start))).sum()
    }

    fn burden(&self) -> Result<AfBurden, Failure> {
        let begin = self.windows.first().map_or(0, |(span, _)| span.start);
        let end = self.windows.last().map_or(0, |(span, _)| span.end);
        let windows: Vec<JudgedWindow> = self.windows.iter().map(|(_, window)| *window).collect();
        let settings = BurdenSettings::default();
        Ok(af_burden(time(self.rate, begin), time(self.rate, end), &windows, &settings)?)
    }

    /// The window that was most surely called fibrillation without any, and the one that was most surely not called though
    /// it is nothing else, each with how sure.
    fn mistakes(&self) -> Result<Vec<(f32, String, Strip)>, Failure> {
        let settings = BurdenSettings::default();
        let mut worst: [Option<(f32, &Range<usize>)>; 2] = [None, None];
        for (span, window) in &self.windows {
            let share = self.overlap(span, Rhythm::Fibrillation) as f64 / span.len() as f64;
            let Some(p) = window.fibrillation else { continue };
            let (kind, sureness) = match call(window, &settings) {
                Call::Fibrillation if share <= 0.0 => (0, p),
                Call::Another if share >= 1.0 => (1, 1.0 - p),
                _ => continue,
            };
            if worst[kind].is_none_or(|(most, _)| sureness > most) {
                worst[kind] = Some((sureness, span));
            }
        }
        let said = ["called fibrillation, annotated otherwise", "fibrillation, called otherwise"];
        let strips = worst.into_iter().zip(said).filter_map(|(worst, said)| {
            let (sureness, span) = worst?;
            let from_s = span.start as f64 / self.rate.hz();
            let caption = format!("{}, from {from_s:.0} s: {said} with {sureness:.2}", self.name);
            Some((sureness, caption, ecg_strip(&self.lead[span.clone()], self.rate, &[])))
        });
        Ok(strips.collect())
    }
}

/// Seconds of one record, or of all.
#[derive(Clone, Copy, Default, Serialize)]
struct Seconds {
    /// From the first annotation of rhythm to the end.
    annotated_s: f64,
    /// Annotated as fibrillation.
    fibrillation_s: f64,
    /// Called so.
    called_s: f64,
    /// Both.
    both_s: f64,
    /// Not judged: noise or gaps.
    unknown_s: f64,
    /// Annotated as flutter.
    flutter_s: f64,
    /// Flutter that was called fibrillation.
    flutter_called_s: f64,
}

impl Seconds {
    fn of(judged: &Judged) -> Self {
        let (rate_hz, settings) = (judged.rate.hz(), BurdenSettings::default());
        let mut sum = Self::default();
        for (span, window) in &judged.windows {
            let seconds = |rhythm| judged.overlap(span, rhythm) as f64 / rate_hz;
            let (whole, own) = (span.len() as f64 / rate_hz, seconds(Rhythm::Fibrillation));
            let flutter = seconds(Rhythm::Flutter);
            let mut add = Self { annotated_s: whole, fibrillation_s: own, ..Self::default() };
            add.flutter_s = flutter;
            match call(window, &settings) {
                Call::Fibrillation => {
                    (add.called_s, add.both_s, add.flutter_called_s) = (whole, own, flutter);
                }
                Call::Another => {}
                Call::Unknown => add.unknown_s = whole,
            }
            sum = sum.plus(&add);
        }
        sum
    }

    fn plus(&self, other: &Self) -> Self {
        Self {
            annotated_s: self.annotated_s + other.annotated_s,
            fibrillation_s: self.fibrillation_s + other.fibrillation_s,
            called_s: self.called_s + other.called_s,
            both_s: self.both_s + other.both_s,
            unknown_s: self.unknown_s + other.unknown_s,
            flutter_s: self.flutter_s + other.flutter_s,
            flutter_called_s: self.flutter_called_s + other.flutter_called_s,
        }
    }

    fn sensitivity(&self) -> Option<f64> {
        (self.fibrillation_s > 0.0).then(|| self.both_s / self.fibrillation_s)
    }

    fn ppv(&self) -> Option<f64> {
        (self.called_s > 0.0).then(|| self.both_s / self.called_s)
    }

    /// The same with flutter as fibrillation.
    fn with_flutter(&self) -> Self {
        Self {
            fibrillation_s: self.fibrillation_s + self.flutter_s,
            both_s: self.both_s + self.flutter_called_s,
            ..*self
        }
    }
}

/// One record's figures.
#[derive(Serialize)]
struct Line {
    record: String,
    #[serde(flatten)]
    seconds: Seconds,
    sensitivity: Option<f64>,
    ppv: Option<f64>,
    /// Called share of judged time; null if nothing was judged.
    burden: Option<f64>,
    /// The least and the most that the unknown time leaves open, of all time.
    bounds: Option<(f64, f64)>,
    reference_burden: f64,
    /// Called episodes of 30 s and more.
    episodes: usize,
}

impl Line {
    fn of(judged: &Judged) -> Result<Self, Failure> {
        let (seconds, burden) = (Seconds::of(judged), judged.burden()?);
        Ok(Self {
            record: judged.name.clone(),
            seconds,
            sensitivity: seconds.sensitivity(),
            ppv: seconds.ppv(),
            burden: burden.share(),
            bounds: burden.bounds(),
            reference_burden: seconds.fibrillation_s / seconds.annotated_s.max(f64::MIN_POSITIVE),
            episodes: burden.episodes.len(),
        })
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    task: &'static str,
    model: String,
    window_s: u32,
    records: usize,
    /// Records left out: no annotation of rhythm.
    without_rhythm: usize,
    /// Of all records together.
    #[serde(flatten)]
    seconds: Seconds,
    sensitivity: Option<f64>,
    sensitivity_interval: Option<Interval>,
    ppv: Option<f64>,
    ppv_interval: Option<Interval>,
    /// With flutter counted as fibrillation.
    sensitivity_with_flutter: Option<f64>,
    ppv_with_flutter: Option<f64>,
    /// Mean absolute error of the burden, a share, over records of which something was judged.
    mae: Option<f64>,
    mae_interval: Option<Interval>,
    /// The same of the records with fibrillation in them.
    mae_with_fibrillation: Option<f64>,
    per_record: Vec<Line>,
}

impl Summary {
    fn of(model: String, window_s: u32, without_rhythm: usize, per_record: Vec<Line>) -> Self {
        let pooled = |lines: &mut dyn Iterator<Item = &Line>| {
            lines.fold(Seconds::default(), |sum, line| sum.plus(&line.seconds))
        };
        // Over records: hours of one person are not independent.
        let interval = |of: &dyn Fn(&mut dyn Iterator<Item = &Line>) -> Option<f64>| {
            bootstrap(per_record.len(), RESAMPLES, SEED, |drawn| {
                of(&mut drawn.iter().map(|at| &per_record[*at]))
            })
        };
        let seconds = pooled(&mut per_record.iter());
        Self {
            task: "burden",
            model,
            window_s,
            records: per_record.len(),
            without_rhythm,
            seconds,
            sensitivity: seconds.sensitivity(),
            sensitivity_interval: interval(&|lines| pooled(lines).sensitivity()),
            ppv: seconds.ppv(),
            ppv_interval: interval(&|lines| pooled(lines).ppv()),
            sensitivity_with_flutter: seconds.with_flutter().sensitivity(),
            ppv_with_flutter: seconds.with_flutter().ppv(),
            mae: mae(&mut per_record.iter()),
            mae_interval: interval(&mae),
            mae_with_fibrillation: mae(&mut per_record
                .iter()
                .filter(|line| line.seconds.fibrillation_s > 0.0)),
            per_record,
        }
    }
}

fn mae(lines: &mut dyn Iterator<Item = &Line>) -> Option<f64> {
    let errors: Vec<f64> =
        lines.filter_map(|line| Some((line.burden? - line.reference_burden).abs())).collect();
    (!errors.is_empty()).then(|| errors.iter().sum::<f64>() / errors.len() as f64)
}

/// A share in per cent.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.1}", 100.0 * share))
}

fn print_table(summary: &Summary) {
    println!(
        "{:<10} {:>7} {:>9} {:>8} {:>13} {:>9} {:>6} {:>6} {:>8}",
        "record", "min", "annotated", "called", "bounds", "unknown %", "Se %", "PPV %", "episodes"
    );
    for line in &summary.per_record {
        let (low, high) = line.bounds.unwrap_or((f64::NAN, f64::NAN));
        println!(
            "{:<10} {:>7.1} {:>9} {:>8} {:>13} {:>9} {:>6} {:>6} {:>8}",
            line.record,
            line.seconds.annotated_s / 60.0,
            percent(Some(line.reference_burden)),
            percent(line.burden),
            format!("{:.1}–{:.1}", 100.0 * low, 100.0 * high),
            percent(Some(line.seconds.unknown_s / line.seconds.annotated_s.max(1.0))),
            percent(line.sensitivity),
            percent(line.ppv),
            line.episodes
        );
    }
    let with = |share: Option<f64>, interval: &Option<Interval>| match interval {
        Some(Interval { lower, upper }) => {
            format!("{} % ({}–{})", percent(share), percent(Some(*lower)), percent(Some(*upper)))
        }
        None => format!("{} %", percent(share)),
    };
    println!("model {}, windows of {} s, first lead in mV", summary.model, summary.window_s);
    println!(
        "of {:.1} h fibrillation {:.2} h: sensitivity {}, PPV {}",
        summary.seconds.annotated_s / 3_600.0,
        summary.seconds.fibrillation_s / 3_600.0,
        with(summary.sensitivity, &summary.sensitivity_interval),
        with(summary.ppv, &summary.ppv_interval)
    );
    println!(
        "mean absolute error of the burden by record: {} of the whole; {} % where there is fibrillation",
        with(summary.mae, &summary.mae_interval),
        percent(summary.mae_with_fibrillation)
    );
    println!(
        "flutter is another rhythm here: {:.1} min, of these called fibrillation {:.1} min; counted as fibrillation, sensitivity \
         {} %, PPV {} %",
        summary.seconds.flutter_s / 60.0,
        summary.seconds.flutter_called_s / 60.0,
        percent(summary.sensitivity_with_flutter),
        percent(summary.ppv_with_flutter)
    );
    println!("{} records without annotated rhythm left out", summary.without_rhythm);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(sample: u64, text: &str) -> Annotation {
        let aux = Some(text.to_owned());
        Annotation { sample, symbol: '+', subtype: 0, channel: 0, number: 0, aux }
    }

    /// Windows of 10 s at 100 Hz: A called, N not, ~ not judged.
    fn judged(changes: &[Annotation], calls: &str) -> Judged {
        let rate = SampleRate::from_hz(100).unwrap();
        let windows = calls.chars().enumerate().map(|(at, call)| {
            let span = at * 1_000..(at + 1) * 1_000;
            let fibrillation = match call {
                'A' => Some(0.8),
                'N' => Some(0.3),
                _ => None,
            };
            let [begin, end] = [span.start, span.end].map(|at| time(rate, at));
            (span, JudgedWindow { begin, end, fibrillation, coverage: 1.0 })
        });
        let samples = calls.len() * 1_000;
        Judged {
            name: "a".into(),
            rate,
            lead: vec![0.0; samples],
            rhythms: rhythms(changes, samples),
            windows: windows.collect(),
        }
    }

    #[test]
    fn rhythms_last_until_the_next_one() {
        let found = rhythms(&[change(5, "(N"), change(20, "(AFIB\0"), change(30, "(AFL")], 50);
        let expected =
            [(5..20, Rhythm::Another), (20..30, Rhythm::Fibrillation), (30..50, Rhythm::Flutter)];
        assert_eq!(found, expected);
        // A remark is no rhythm, and neither is what lies behind the end.
        assert!(rhythms(&[change(5, "TS"), change(99, "(AFIB")], 50).is_empty());
    }

    #[test]
    fn seconds_by_hand() {
        // 0–15 s another, 15–35 s fibrillation, 35–60 s flutter.
        let changes = [change(0, "(N"), change(1_500, "(AFIB"), change(3_500, "(AFL")];
        let line = Line::of(&judged(&changes, "NAA~AN")).unwrap();
        let seconds = &line.seconds;
        assert_eq!((seconds.annotated_s, seconds.fibrillation_s), (60.0, 20.0));
        // 10–20, 20–30, 40–50 s were called, 30–40 s were not judged: 5 s of these are fibrillation.
        assert_eq!((seconds.called_s, seconds.both_s, seconds.unknown_s), (30.0, 15.0, 10.0));
        assert_eq!((seconds.flutter_s, seconds.flutter_called_s), (25.0, 10.0));
        assert_eq!((line.sensitivity, line.ppv), (Some(0.75), Some(0.5)));
        let wider = seconds.with_flutter();
        assert_eq!((wider.sensitivity(), wider.ppv()), (Some(25.0 / 45.0), Some(25.0 / 30.0)));
        assert_eq!((line.burden, line.episodes), (Some(0.6), 1));
        assert!((line.reference_burden - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(line.bounds, Some((0.5, 40.0 / 60.0)));
    }

    #[test]
    fn all_records_together() {
        let with = [change(0, "(AFIB")];
        let without = [change(0, "(N")];
        let lines = [judged(&with, "AANN"), judged(&without, "ANNN"), judged(&without, "~~~~")];
        let lines = lines.iter().map(|judged| Line::of(judged).unwrap()).collect();
        let summary = Summary::of("m".into(), 10, 0, lines);
        assert_eq!((summary.sensitivity, summary.ppv), (Some(0.5), Some(2.0 / 3.0)));
        // Errors of 0.5 and 0.25; the third has no burden.
        assert_eq!((summary.mae, summary.mae_with_fibrillation), (Some(0.375), Some(0.5)));
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!((&json["task"], &json["fibrillation_s"]), (&"burden".into(), &40.0.into()));
        assert_eq!(json["per_record"][0]["called_s"], 20.0);
    }

    #[test]
    fn the_most_sure_mistakes_of_either_kind_are_shown() {
        let changes = [change(0, "(N"), change(2_000, "(AFIB")];
        let mistakes = judged(&changes, "NAAN").mistakes().unwrap();
        let said: Vec<&str> = mistakes.iter().map(|mistake| mistake.1.as_str()).collect();
        assert_eq!(
            said,
            [
                "a, from 10 s: called fibrillation, annotated otherwise with 0.80",
                "a, from 30 s: fibrillation, called otherwise with 0.70"
            ]
        );
    }

    #[test]
    fn recorded_burden_is_near_what_annotators_say() {
        let data =
            std::env::var_os("HAAR_DATA").expect("set HAAR_DATA to the recordings, see README");
        let model = RhythmModel::builtin().unwrap();
        let mut lines = Vec::new();
        for path in annotated_records(&PathBuf::from(data).join("mitdb"), &[]).unwrap() {
            let judged = judge_record(&path, &model, 30).unwrap();
            lines.extend(judged.map(|judged| Line::of(&judged).unwrap()));
        }
        let summary = Summary::of(String::new(), 30, 0, lines);
        assert!(summary.sensitivity.unwrap() > 0.75 && summary.mae.unwrap() < 0.03);
    }
}
