//! `haar evaluate faults`: faults of devices, injected and labelled.
//!
//! Whatever of BIDMC, glucose, motes and the Numenta Anomaly Benchmark a folder holds is evaluated. A patient or mote that the model was trained on is
//! judged by the one member that has not seen them, any other by the whole committee; which it is follows from the content.
//! Each figure stands beside that of a baseline: rules written by hand, or for the benchmark a Gaussian over the last readings.

use crate::failure::Failure;
use haar_inference::faults::evaluate::{Cases, InjectedFigures, Judge, events, injected};
use haar_inference::faults::nab::{self, NabFigures};
use haar_inference::faults::{FaultKind, FaultModel, streams};
use haar_inference::statistics::{ClassMetrics, Confusion};
use haar_recordings::corpus::Corpus;
use haar_recordings::nab::{Series, read as read_nab};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Puts faults into sound streams and asks the model; asks about labelled series; compares with baselines.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with any of BIDMC numerics, glucose, labelled motes and the Numenta Anomaly Benchmark, or their archives.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of another model than the one that is built in.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Sound windows from each stream; each gets every kind of fault in turn.
    #[arg(long, default_value_t = 2)]
    windows: usize,
    /// What the faults grow from.
    #[arg(long, default_value_t = 2026)]
    seed: u64,
    /// Print one JSON object instead of tables; shares are fractions of 1.
    #[arg(long)]
    json: bool,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let model = match &args.model {
        Some(folder) => FaultModel::load(folder)?,
        None => FaultModel::builtin()?,
    };
    let corpus = streams::open(&args.data)?;
    let summary = summary(&model, &corpus, args)?;
    if summary.injected.is_none() && summary.nab.is_none() {
        return Err(Failure::usage(format!(
            "{} has no table of BIDMC numerics, glucose, motes or the Numenta Anomaly Benchmark",
            args.data.display()
        )));
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print_tables(&summary);
    }
    Ok(())
}

/// What `--json` prints.
#[derive(Serialize)]
pub(super) struct Summary {
    task: &'static str,
    model: String,
    /// Mean F1 of the seven injected faults, by window.
    f1: Option<f64>,
    accuracy: Option<f64>,
    classes: BTreeMap<&'static str, ClassMetrics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    injected: Option<Injected>,
    #[serde(rename = "suthaharan-wsn", skip_serializing_if = "Option::is_none")]
    motes: Option<Compared<Events>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nab: Option<Nab>,
}

#[derive(Serialize)]
struct Compared<T> {
    model: T,
    rules: T,
}

#[derive(Serialize)]
struct Injected {
    definition: &'static str,
    /// Patients and motes judged by the member that had not seen them, and those that no member had seen.
    held_out: usize,
    unknown: usize,
    #[serde(flatten)]
    by: Compared<Told>,
}

#[derive(Serialize)]
struct Told {
    windows: Value,
    readings: Value,
    origins: BTreeMap<&'static str, Value>,
    /// Share found by magnitude in noises: below 8, below 16, from 16 on; with the number of windows.
    by_magnitude: BTreeMap<&'static str, Vec<(Option<f64>, u64)>>,
    /// Share of windows without a fault that are called faulty.
    false_alarms: Option<f64>,
    #[serde(skip)]
    table: String,
}

#[derive(Serialize)]
struct Events {
    readings: Value,
    f1: Option<f64>,
    events: u64,
    events_found: u64,
    #[serde(skip)]
    table: String,
}

#[derive(Serialize)]
struct Nab {
    definition: &'static str,
    series: usize,
    model: NabPart,
    gaussian: NabPart,
    /// Scores over all 58 series of the benchmark, by its own repository.
    published_all_series: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
struct NabPart {
    score: Option<f64>,
    threshold: f64,
    series: BTreeMap<String, f64>,
}

const INJECTED: &str = "windows of 128 readings, each of 8 kinds put into each (where it can show): \
    a window's kind is that of its heaviest segment; f1 is the mean of the seven faults by window";
const NAB: &str =
    "NAB 1.1, standard profile, normalised; online; one threshold for all series given";

fn summary(model: &FaultModel, corpus: &Corpus, args: &Args) -> Result<Summary, Failure> {
    let streams = streams::read(corpus)?;
    let series = read_nab(corpus)?;
    let mut summary = Summary {
        task: "faults",
        model: model.reference().sha256.clone(),
        f1: None,
        accuracy: None,
        classes: BTreeMap::new(),
        injected: None,
        motes: None,
        nab: None,
    };
    let cases = Cases { seed: args.seed, windows_per_stream: args.windows };
    if !streams.is_empty() {
        let bar = bar(2 * streams.len() as u64, "streams")?;
        let ours = injected(&streams, cases, Judge::Model(model), &mut |at| {
            bar.set_position(at as u64);
        })?;
        let rules = injected(&streams, cases, Judge::Rules, &mut |at| {
            bar.set_position((streams.len() + at) as u64);
        })?;
        bar.finish_and_clear();
        summary.f1 = ours.mean_f1();
        summary.accuracy = ours.windows.accuracy();
        summary.classes = classes(&ours.windows);
        summary.injected = Some(Injected {
            definition: INJECTED,
            held_out: ours.held_out,
            unknown: ours.unknown,
            by: Compared { model: Told::new(&ours), rules: Told::new(&rules) },
        });
    }
    if streams.iter().any(|stream| stream.events.contains(&true)) {
        let told = |judge| -> Result<Events, Failure> {
            let (readings, (events_found, events)) = events(&streams, judge)?;
            let f1 = readings.class(1).f1;
            let table = readings.to_string();
            Ok(Events { readings: confusion(&readings), f1, events, events_found, table })
        };
        let (model, rules) = (told(Judge::Model(model))?, told(Judge::Rules)?);
        summary.motes = Some(Compared { model, rules });
    }
    if !series.is_empty() {
        summary.nab = Some(benchmark(model, &series)?);
    }
    Ok(summary)
}

fn benchmark(model: &FaultModel, series: &[Series]) -> Result<Nab, Failure> {
    let bar = bar(series.len() as u64, "series")?;
    let mut ours = Vec::with_capacity(series.len());
    for one in series {
        ours.push(nab::by_model(model, one)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let gaussian: Vec<Vec<f64>> = series.iter().map(nab::by_gaussian).collect();
    Ok(Nab {
        definition: NAB,
        series: series.len(),
        model: NabPart::from(nab::score(series, &ours)),
        gaussian: NabPart::from(nab::score(series, &gaussian)),
        published_all_series: nab::PUBLISHED.into(),
    })
}

impl From<NabFigures> for NabPart {
    fn from(figures: NabFigures) -> Self {
        // JSON has no infinity; a threshold of 2 is never reached either.
        let threshold = figures.threshold.min(2.0);
        Self { score: figures.score, threshold, series: figures.series }
    }
}

impl Told {
    fn new(figures: &InjectedFigures) -> Self {
        let share =
            |(found, all): &(u64, u64)| ((*all > 0).then(|| *found as f64 / *all as f64), *all);
        let sound = figures.windows.class(FaultKind::Sound.index());
        Self {
            windows: confusion(&figures.windows),
            readings: confusion(&figures.readings),
            origins: figures
                .origins
                .iter()
                .map(|(origin, own)| (origin.name(), confusion(own)))
                .collect(),
            by_magnitude: figures
                .by_magnitude
                .iter()
                .map(|(kind, bins)| (kind.name(), bins.iter().map(share).collect()))
                .collect(),
            false_alarms: sound.sensitivity.map(|share| 1.0 - share),
            table: figures.windows.to_string(),
        }
    }
}

fn classes(confusion: &Confusion) -> BTreeMap<&'static str, ClassMetrics> {
    let class = |(at, name): (usize, &&'static str)| (*name, confusion.class(at));
    confusion.names().iter().enumerate().map(class).collect()
}

fn confusion(confusion: &Confusion) -> Value {
    json!({
        "cases": confusion.cases(),
        "accuracy": confusion.accuracy(),
        "mean_f1_of_faults": confusion.mean_f1(1..confusion.names().len()),
        "classes": classes(confusion),
        "names": confusion.names(),
        "confusion": confusion.counts(),
    })
}

/// Drawn on standard error, and only where that is a terminal.
fn bar(length: u64, what: &str) -> Result<ProgressBar, Failure> {
    let bar = ProgressBar::new(length);
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {what} {{eta}} left");
    bar.set_style(ProgressStyle::with_template(&template)?);
    Ok(bar)
}

fn print_tables(summary: &Summary) {
    if let Some(injected) = &summary.injected {
        let (held_out, unknown) = (injected.held_out, injected.unknown);
        println!(
            "Injected faults, {held_out} patients and motes held out, {unknown} unknown to the model\n"
        );
        println!("{}\n\nRules:\n{}\n", injected.by.model.table, injected.by.rules.table);
        println!("mean F1 of the seven faults {}\n", percent(summary.f1));
    }
    if let Some(motes) = &summary.motes {
        for (name, told) in [("model", &motes.model), ("rules", &motes.rules)] {
            println!(
                "Motes, {name}: {} of {} events\n{}\n",
                told.events_found, told.events, told.table
            );
        }
    }
    if let Some(nab) = &summary.nab {
        let score = |part: &NabPart| part.score.map_or("–".into(), |score| format!("{score:.1}"));
        println!(
            "NAB, {} series: model {}, Gaussian {}",
            nab.series,
            score(&nab.model),
            score(&nab.gaussian)
        );
        for (name, own) in &nab.model.series {
            println!(
                "  {name:<60} {own:>7.1} {:>7.1}",
                nab.gaussian.series.get(name).unwrap_or(&0.0)
            );
        }
        let published: Vec<String> = nab
            .published_all_series
            .iter()
            .map(|(name, score)| format!("{name} {score:.1}"))
            .collect();
        println!("published over all 58 series: {}", published.join(", "));
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".into(), |share| format!("{:.2} %", share * 100.0))
}
