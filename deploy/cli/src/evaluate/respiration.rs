//! `haar evaluate respiration`: rates of 32 s windows against breaths that people marked.
//!
//! The reference of a window is the mean of the two annotators' rates, each 60 × (breaths − 1) over the time
//! from its first to its last. A window is left out of everything where an annotator has fewer than
//! [`MIN_BREATHS`] in it or the two are more than [`MAX_DISAGREEMENT`] apart; how many these are is said.
//!
//! In BIDMC both annotated the impedance, so that impedance is judged by its own breaths; the line `ppg+ecg` says what
//! there would be without it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::ValueEnum;
use haar_inference::statistics::{Interval, bootstrap};
use haar_recordings::bidmc::{self, Recording};
use haar_recordings::corpus::{CaseId, Corpus};
use haar_schema::SampleRate;
use haar_signals::respiration::{self, Estimate, Signals, WINDOW_S};
use serde::Serialize;

use super::report::Trace;
use crate::failure::Failure;

mod page;

/// From the start of one window to that of the next, in seconds: windows overlap by half.
const SLIDE_S: f64 = 16.0;
/// With fewer marked breaths a window has no reference.
const MIN_BREATHS: usize = 3;
/// Annotators further apart than this give no reference, breaths/min.
const MAX_DISAGREEMENT: f64 = 2.0;
/// ECG leads, the first that a recording has.
const LEADS: [&str; 6] = ["II", "I", "III", "AVR", "V", "MCL"];
/// For the interval of the mean error.
const RESAMPLES: usize = 1_000;
const SEED: u64 = 1;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the BIDMC CSV files, or of a .tar.zst of them.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only these recordings, by name.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    records: Vec<String>,
    /// Only these sources of the rate.
    #[arg(long, value_delimiter = ',', default_value = "impedance,ppg,ecg")]
    sources: Vec<Source>,
    /// Only one half of the people, drawn by a hash. (The constants of the method were chosen on the even half.)
    #[arg(long, value_name = "HALF")]
    half: Option<Half>,
    /// Print one JSON object instead of a table; rates are in breaths/min, `kept` is a fraction of 1.
    #[arg(long)]
    json: bool,
    /// Write a page with the figures, how rates and reference agree, and the windows with the largest errors.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Source {
    Impedance,
    Ppg,
    Ecg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Half {
    Even,
    Odd,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let report = evaluate(args)?;
    let summary = report.summary();
    if let Some(path) = &args.report {
        super::report::write(path, &page::page(&summary, &report.windows))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print_table(&summary);
    }
    Ok(())
}

fn evaluate(args: &Args) -> Result<Report, Failure> {
    let corpus = Corpus::open(&args.data, "a BIDMC …_Signals.csv", bidmc::is_part)?;
    let mut wanted: BTreeSet<&str> = args.records.iter().map(String::as_str).collect();
    let all = wanted.is_empty();
    let (contenders, drawn) = (contenders(&args.sources), args.report.is_some());
    let mut report = Report { contenders, drawn, ..Report::default() };
    for path in bidmc::names(&corpus) {
        let name = path.rsplit('/').next().unwrap_or(&path);
        if !(wanted.remove(name) || all) {
            continue;
        }
        let recording = Recording::read(&corpus, &path)?;
        // Where the person is not named, a recording stands for one.
        let person = recording.subject.unwrap_or_else(|| CaseId::of(path.as_bytes()));
        let half = if person.0 % 2 == 0 { Half::Even } else { Half::Odd };
        if args.half.is_none_or(|asked| asked == half) {
            report.add(&recording, person)?;
        }
    }
    if !wanted.is_empty() {
        let missing: Vec<&str> = wanted.into_iter().collect();
        return Err(Failure::usage(format!(
            "no recording called {} in {}; names are what stands before _Signals.csv",
            missing.join(", "),
            args.data.display()
        )));
    }
    Ok(report)
}

/// What is compared: all chosen sources fused, each alone, and what there is without impedance.
fn contenders(sources: &[Source]) -> Vec<(&'static str, Vec<respiration::Source>)> {
    let chosen: BTreeSet<Source> = sources.iter().copied().collect();
    let named = |source: Source| match source {
        Source::Impedance => ("impedance", respiration::Source::Impedance),
        Source::Ppg => ("ppg", respiration::Source::Ppg),
        Source::Ecg => ("ecg", respiration::Source::Ecg),
    };
    let mut contenders = vec![("fused", chosen.iter().map(|source| named(*source).1).collect())];
    for source in &chosen {
        let (name, source) = named(*source);
        contenders.push((name, vec![source]));
    }
    if chosen.len() == 3 {
        contenders.push(("ppg+ecg", vec![respiration::Source::Ppg, respiration::Source::Ecg]));
    }
    contenders
}

#[derive(Default)]
struct Report {
    contenders: Vec<(&'static str, Vec<respiration::Source>)>,
    /// Whether windows are kept to be drawn.
    drawn: bool,
    windows: Vec<Window>,
    recordings: u64,
    unmarked: u64,
    disagreeing: u64,
}

/// A window that has a reference.
struct Window {
    recording: String,
    /// Where it begins.
    start_s: f64,
    person: CaseId,
    reference: f64,
    /// By contender; `None` is a refusal.
    rates: Vec<Option<f64>>,
    /// What its breaths look like, if it is to be drawn.
    trace: Option<Trace>,
}

impl Report {
    fn add(&mut self, recording: &Recording, person: CaseId) -> Result<(), Failure> {
        let rate = SampleRate::from_hz(bidmc::RATE_HZ)
            .ok_or_else(|| Failure::new("the sampling rate of BIDMC is out of range"))?;
        let window = (WINDOW_S * rate.hz()) as usize;
        let slide = (SLIDE_S * rate.hz()) as usize;
        let samples = recording.signals.first().map_or(0, |signal| signal.samples.len());
        let lead = LEADS.iter().find_map(|lead| recording.signal(lead));
        self.recordings += 1;
        for start in (0..(samples + 1).saturating_sub(window)).step_by(slide) {
            let span = start..start + window;
            let marked =
                recording.breaths.each_ref().map(|breaths| marked_rate(breaths, &span, rate));
            let [Some(one), Some(other)] = marked else {
                self.unmarked += 1;
                continue;
            };
            if (one - other).abs() > MAX_DISAGREEMENT {
                self.disagreeing += 1;
                continue;
            }
            let estimates = respiration::estimates(&Signals {
                rate,
                impedance: cut(recording.signal("RESP"), &span),
                ppg: cut(recording.signal("PLETH"), &span),
                ecg: cut(lead, &span),
            });
            let rates = self.contenders.iter().map(|(_, sources)| fused(&estimates, sources));
            self.windows.push(Window {
                recording: recording.name.clone(),
                start_s: start as f64 / rate.hz(),
                person,
                reference: (one + other) / 2.0,
                rates: rates.collect(),
                trace: self.drawn.then(|| page::trace(recording, &span)),
            });
        }
        Ok(())
    }

    fn summary(&self) -> Summary {
        let figures = |contender: usize, of: &dyn Fn(&Window) -> bool| {
            Figures::of(self.windows.iter().filter(|window| of(window)), contender)
        };
        let fused = figures(0, &|_| true);
        let sources = (1..self.contenders.len())
            .map(|contender| (self.contenders[contender].0, figures(contender, &|_| true)))
            .collect();
        let names: BTreeSet<&str> =
            self.windows.iter().map(|window| window.recording.as_str()).collect();
        let per_recording = names
            .into_iter()
            .map(|name| Line {
                recording: name.to_owned(),
                figures: figures(0, &|window| window.recording == name),
            })
            .collect();
        let people = self.by_person();
        let mae_interval = bootstrap(people.len(), RESAMPLES, SEED, |drawn| {
            let windows = drawn.iter().flat_map(|person| people[*person].iter().copied());
            Figures::of(windows, 0).mae
        });
        Summary {
            task: "respiration",
            recordings: self.recordings,
            people: people.len() as u64,
            window_s: WINDOW_S,
            slide_s: SLIDE_S,
            reference: Reference {
                excluded: self.unmarked + self.disagreeing,
                too_few_breaths: self.unmarked,
                annotators_disagree: self.disagreeing,
            },
            fused,
            mae_interval,
            sources,
            per_recording,
        }
    }

    fn by_person(&self) -> Vec<Vec<&Window>> {
        let mut people: BTreeMap<CaseId, Vec<&Window>> = BTreeMap::new();
        for window in &self.windows {
            people.entry(window.person).or_default().push(window);
        }
        people.into_values().collect()
    }
}

fn cut<'a>(signal: Option<&'a [f32]>, span: &std::ops::Range<usize>) -> Option<&'a [f32]> {
    signal.and_then(|samples| samples.get(span.clone()))
}

/// The rate of the breaths within a span, if they are enough.
fn marked_rate(breaths: &[usize], span: &std::ops::Range<usize>, rate: SampleRate) -> Option<f64> {
    let within: Vec<usize> =
        breaths.iter().copied().filter(|breath| span.contains(breath)).collect();
    let (first, last) = (within.first()?, within.last()?);
    (within.len() >= MIN_BREATHS)
        .then(|| 60.0 * rate.hz() * (within.len() - 1) as f64 / (last - first) as f64)
}

fn fused(estimates: &[Estimate], sources: &[respiration::Source]) -> Option<f64> {
    let chosen =
        estimates.iter().filter(|estimate| sources.contains(&estimate.source)).cloned().collect();
    respiration::fuse(chosen).ok().map(|found| found.rate)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    task: &'static str,
    recordings: u64,
    people: u64,
    window_s: f64,
    slide_s: f64,
    reference: Reference,
    #[serde(flatten)]
    fused: Figures,
    /// 95 %, over people.
    mae_interval: Option<Interval>,
    sources: BTreeMap<&'static str, Figures>,
    per_recording: Vec<Line>,
}

/// Windows that have no reference.
#[derive(Serialize)]
struct Reference {
    excluded: u64,
    too_few_breaths: u64,
    annotators_disagree: u64,
}

#[derive(Serialize)]
struct Line {
    recording: String,
    #[serde(flatten)]
    figures: Figures,
}

/// In breaths/min, of the windows that were not refused; null where there are none.
#[derive(Serialize)]
struct Figures {
    /// That have a reference.
    windows: u64,
    /// Share of these that was not refused.
    kept: Option<f64>,
    mae: Option<f64>,
    rmse: Option<f64>,
    /// Mean of rate − reference.
    bias: Option<f64>,
    /// Bias ± 1.96 standard deviations (Bland and Altman 1986).
    limits_of_agreement: Option<[f64; 2]>,
}

impl Figures {
    fn of<'a>(windows: impl Iterator<Item = &'a Window>, contender: usize) -> Self {
        let (mut count, mut errors) = (0_u64, Vec::new());
        for window in windows {
            count += 1;
            errors.extend(window.rates[contender].map(|rate| rate - window.reference));
        }
        let mean = |of: &dyn Fn(f64) -> f64| {
            let sum: f64 = errors.iter().map(|error| of(*error)).sum();
            (!errors.is_empty()).then(|| sum / errors.len() as f64)
        };
        let (bias, square) = (mean(&|error| error), mean(&|error| error * error));
        let limits_of_agreement = bias.zip(square).map(|(bias, square)| {
            let reach = 1.96 * (square - bias * bias).max(0.0).sqrt();
            [bias - reach, bias + reach]
        });
        Self {
            windows: count,
            kept: (count > 0).then(|| errors.len() as f64 / count as f64),
            mae: mean(&f64::abs),
            rmse: square.map(f64::sqrt),
            bias,
            limits_of_agreement,
        }
    }
}

fn print_table(summary: &Summary) {
    println!(
        "{:<12} {:>8} {:>7} {:>6} {:>6} {:>6}  95 % limits",
        "", "windows", "kept %", "MAE", "RMSE", "bias"
    );
    for line in &summary.per_recording {
        print_line(&line.recording, &line.figures);
    }
    for (name, figures) in &summary.sources {
        print_line(name, figures);
    }
    print_line("fused", &summary.fused);
    let interval = summary.mae_interval.map_or_else(String::new, |interval| {
        format!(", MAE {:.2}–{:.2} (95 %, over people)", interval.lower, interval.upper)
    });
    println!(
        "{} recordings of {} people{interval}; windows of {} s every {} s",
        summary.recordings, summary.people, summary.window_s, summary.slide_s
    );
    println!(
        "without a reference: {} windows ({} with fewer than {MIN_BREATHS} breaths marked, {} where the annotators \
         differ by over {MAX_DISAGREEMENT} breaths/min)",
        summary.reference.excluded,
        summary.reference.too_few_breaths,
        summary.reference.annotators_disagree
    );
}

fn print_line(name: &str, figures: &Figures) {
    let number = |value: Option<f64>, scale: f64, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{:.digits$}", scale * value))
    };
    let limits = figures.limits_of_agreement.map(|[low, high]| format!("{low:.2} to {high:.2}"));
    println!(
        "{name:<12} {:>8} {:>7} {:>6} {:>6} {:>6}  {}",
        figures.windows,
        number(figures.kept, 100.0, 1),
        number(figures.mae, 1.0, 2),
        number(figures.rmse, 1.0, 2),
        number(figures.bias, 1.0, 2),
        limits.unwrap_or_else(|| "–".to_owned())
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;
    use std::fmt::Write as _;
    use std::path::Path;

    /// A minute of 15 breaths/min in the impedance, marked by both; the second annotator stops when told to.
    fn folder(second_until: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = "Time [s], RESP\n".to_owned();
        for row in 0..=60 * 125 {
            let value = (2.0 * PI * f64::from(row) / 500.0).sin();
            writeln!(rows, "{},{value:.5}", f64::from(row) / 125.0).unwrap();
        }
        std::fs::write(folder.path().join("x_Signals.csv"), rows).unwrap();
        let mut marks = "breaths ann1, breaths ann2\n".to_owned();
        for breath in (125..7_500).step_by(500) {
            let second = if breath < second_until { breath.to_string() } else { "NaN".to_owned() };
            writeln!(marks, "{breath},{second}").unwrap();
        }
        std::fs::write(folder.path().join("x_Breaths.csv"), marks).unwrap();
        folder
    }

    fn args(data: &Path, records: &[&str]) -> Args {
        Args {
            data: data.to_owned(),
            records: records.iter().map(|name| (*name).to_owned()).collect(),
            sources: vec![Source::Impedance],
            half: None,
            json: true,
            report: None,
        }
    }

    #[test]
    fn figures_of_a_small_recording() {
        let folder = folder(usize::MAX);
        let summary = evaluate(&args(folder.path(), &["x"])).unwrap().summary();
        assert_eq!((summary.recordings, summary.people, summary.fused.windows), (1, 1, 2));
        assert_eq!(summary.fused.kept, Some(1.0));
        assert!(summary.fused.mae.unwrap() < 0.1, "{:?}", summary.fused.mae);
        assert_eq!(summary.reference.excluded, 0);
        assert_eq!(summary.sources.keys().copied().collect::<Vec<_>>(), ["impedance"]);
    }

    #[test]
    fn a_page_shows_the_windows() {
        let folder = folder(usize::MAX);
        let path = folder.path().join("page.html");
        run(&Args { report: Some(path.clone()), ..args(folder.path(), &["x"]) }).unwrap();
        let page = std::fs::read_to_string(path).unwrap();
        assert_eq!(page.matches("values by reading").count(), 2, "{page}");
        assert!(page.contains("Agreement") && page.contains("x, from 16 s"), "{page}");
    }

    #[test]
    fn windows_without_a_reference_are_counted() {
        let folder = folder(2_000);
        let summary = evaluate(&args(folder.path(), &[])).unwrap().summary();
        // The second annotator has four breaths in the first window and none in the next.
        assert_eq!((summary.fused.windows, summary.reference.too_few_breaths), (1, 1));
    }

    #[test]
    fn figures_by_hand() {
        let window = |reference, rate| Window {
            recording: String::new(),
            start_s: 0.0,
            person: CaseId(0),
            reference,
            rates: vec![rate],
            trace: None,
        };
        let windows = [
            window(15.0, Some(16.0)),
            window(15.0, Some(12.0)),
            window(15.0, None),
            window(9.0, None),
        ];
        let figures = Figures::of(windows.iter(), 0);
        assert_eq!((figures.windows, figures.kept), (4, Some(0.5)));
        assert_eq!((figures.mae, figures.bias), (Some(2.0), Some(-1.0)));
        assert_eq!(figures.rmse, Some(5.0_f64.sqrt()));
        assert_eq!(figures.limits_of_agreement, Some([-1.0 - 1.96 * 2.0, -1.0 + 1.96 * 2.0]));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let folder = folder(usize::MAX);
        let error = evaluate(&args(folder.path(), &["x", "y"])).err().unwrap();
        assert!(error.to_string().starts_with("no recording called y in "), "{error}");
    }

    #[test]
    fn recorded_rates_hold_the_bar() {
        let data =
            std::env::var_os("HAAR_DATA").expect("set HAAR_DATA to the recordings, see README");
        let mut all = args(&PathBuf::from(data).join("bidmc"), &[]);
        all.sources = vec![Source::Impedance, Source::Ppg, Source::Ecg];
        let summary = evaluate(&all).unwrap().summary();
        for figures in [&summary.fused, &summary.sources["ppg+ecg"]] {
            assert!(
                figures.mae.unwrap() <= 1.5 && figures.kept.unwrap() >= 0.8,
                "{:?}",
                figures.mae
            );
        }
    }
}
