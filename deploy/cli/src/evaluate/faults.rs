//! `haar evaluate faults`: faults of devices, injected and labelled.
//!
//! Whatever of BIDMC, glucose, motes and the Numenta Anomaly Benchmark a folder holds is evaluated. A patient or mote that the model was trained on is
//! judged by the one member that has not seen them, any other by the whole committee; which it is follows from the content.
//! Each figure stands beside that of a baseline: rules written by hand, a z-score, or for the benchmark a Gaussian over the last readings and what was published.
//! Labelled events of motes and the benchmark are for detectors that are not trained ([`haar_inference::faults::excursion`], [`haar_inference::faults::novelty`]);
//! the model's figures are beside them. *Live* is how the same model does as the fog asks it: every half minute, at a threshold, mostly about sound streams.

mod live;
mod page;

use crate::failure::Failure;
use haar_inference::faults::evaluate::{Cases, InjectedFigures, Judge, events, injected};
use haar_inference::faults::motes::{self, MoteFigures};
use haar_inference::faults::nab::{self, NabFigures};
use haar_inference::faults::{FaultKind, FaultModel, WINDOW, streams};
use haar_inference::statistics::{ClassMetrics, Confusion};
use haar_recordings::corpus::Corpus;
use haar_recordings::nab::{Series, read as read_nab};
use indicatif::{ProgressBar, ProgressStyle};
use live::Live;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

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
    /// Write an HTML page with curves, and the surest false alarms and misses.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let model = match &args.model {
        Some(folder) => FaultModel::load(folder)?,
        None => FaultModel::builtin()?,
    };
    let corpus = streams::open(&args.data)?;
    let (summary, figures) = summary(&model, &corpus, args)?;
    if summary.injected.is_none() && summary.nab.is_none() {
        return Err(Failure::usage(format!(
            "{} has no table of BIDMC numerics, glucose, motes or the Numenta Anomaly Benchmark",
            args.data.display()
        )));
    }
    if let Some(path) = &args.report {
        super::report::write(path, &page::page(&summary, figures.as_ref()))?;
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
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
    #[serde(rename = "suthaharan-wsn", skip_serializing_if = "Option::is_none")]
    motes: Option<Motes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nab: Option<Nab>,
}

#[derive(Serialize)]
struct Compared<T> {
    model: T,
    rules: T,
}

#[derive(Serialize)]
struct Motes {
    definition: &'static str,
    /// F1 by reading of the detector of excursions.
    f1: Option<f64>,
    excursions: Events,
    z_score: Events,
    model: Events,
    rules: Events,
}

#[derive(Serialize)]
struct Injected {
    definition: &'static str,
    /// Patients and motes judged by the member that had not seen them, and those that no member had seen.
    held_out: usize,
    unknown: usize,
    /// Readings judged in a second by one thread, features, all members that were asked and the injection included.
    readings_per_second: f64,
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
    /// F1 of each kind by data set, windows.
    f1_by_origin: BTreeMap<&'static str, BTreeMap<&'static str, Option<f64>>>,
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
    /// Stretches called where nothing is labelled, where that was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    false_events: Option<u64>,
    /// By table, as the other tables chose them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thresholds: Vec<f32>,
    #[serde(skip)]
    table: String,
}

impl From<MoteFigures> for Events {
    fn from(figures: MoteFigures) -> Self {
        Self {
            readings: confusion(&figures.readings),
            f1: figures.readings.class(1).f1,
            events: figures.events.1,
            events_found: figures.events.0,
            false_events: Some(figures.false_events),
            thresholds: figures.thresholds,
            table: figures.readings.to_string(),
        }
    }
}

#[derive(Serialize)]
struct Nab {
    definition: &'static str,
    series: usize,
    novelty: NabPart,
    gaussian: NabPart,
    model: NabPart,
    readings_per_second: f64,
    /// Published scores of the same series, each detector at the threshold that was best on all 58; empty where one of them is not NAB's.
    published_these_series: BTreeMap<&'static str, f64>,
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
const MOTES: &str = "labelled events by reading, humidity and temperature of a mote together; excursions and z-score at \
    the threshold that is best on the motes of the other tables; model and rules: any fault";
const NAB: &str =
    "NAB 1.1, standard profile, normalised; online; one threshold for all series given";

fn summary(
    model: &FaultModel,
    corpus: &Corpus,
    args: &Args,
) -> Result<(Summary, Option<InjectedFigures>), Failure> {
    let streams = streams::read(corpus)?;
    let series = read_nab(corpus)?;
    let mut summary = Summary {
        task: "faults",
        model: model.reference().sha256.clone(),
        f1: None,
        accuracy: None,
        classes: BTreeMap::new(),
        injected: None,
        live: None,
        motes: None,
        nab: None,
    };
    let mut figures = None;
    if !streams.is_empty() {
        let cases = Cases { seed: args.seed, windows_per_stream: args.windows };
        let bar = bar(2 * streams.len() as u64, "streams")?;
        let begin = Instant::now();
        let ours = injected(&streams, cases, Judge::Model(model), &mut |at| {
            bar.set_position(at as u64);
        })?;
        let readings = (ours.windows.cases() as usize * WINDOW) as f64;
        let readings_per_second = readings / begin.elapsed().as_secs_f64();
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
            readings_per_second,
            by: Compared { model: Told::new(&ours), rules: Told::new(&rules) },
        });
        figures = Some(ours);
        summary.live = Some(Live::of(model, &streams, args.seed)?);
    }
    if streams.iter().any(|stream| stream.events.contains(&true)) {
        summary.motes = Some(labelled(model, corpus, &streams)?);
    }
    if !series.is_empty() {
        summary.nab = Some(benchmark(model, &series)?);
    }
    Ok((summary, figures))
}

fn labelled(
    model: &FaultModel,
    corpus: &Corpus,
    streams: &[streams::Stream],
) -> Result<Motes, Failure> {
    let told = |judge| -> Result<Events, Failure> {
        let (readings, (events_found, events)) = events(streams, judge)?;
        Ok(Events {
            readings: confusion(&readings),
            f1: readings.class(1).f1,
            events,
            events_found,
            false_events: None,
            thresholds: Vec::new(),
            table: readings.to_string(),
        })
    };
    let tables = motes::read(corpus)?;
    let excursions = Events::from(motes::by_excursion(&tables));
    Ok(Motes {
        definition: MOTES,
        f1: excursions.f1,
        excursions,
        z_score: motes::by_z_score(&tables).into(),
        model: told(Judge::Model(model))?,
        rules: told(Judge::Rules)?,
    })
}

fn benchmark(model: &FaultModel, series: &[Series]) -> Result<Nab, Failure> {
    let bar = bar(2 * series.len() as u64, "series")?;
    let mut ours = Vec::with_capacity(series.len());
    for one in series {
        ours.push(nab::by_model(model, one)?);
        bar.inc(1);
    }
    let begin = Instant::now();
    let mut novelty = Vec::with_capacity(series.len());
    for one in series {
        novelty.push(nab::by_novelty(one));
        bar.inc(1);
    }
    let readings: usize = series.iter().map(|one| one.readings.len()).sum();
    let readings_per_second = readings as f64 / begin.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let gaussian: Vec<Vec<f64>> = series.iter().map(nab::by_gaussian).collect();
    Ok(Nab {
        definition: NAB,
        series: series.len(),
        novelty: NabPart::from(nab::score(series, &novelty)),
        gaussian: NabPart::from(nab::score(series, &gaussian)),
        model: NabPart::from(nab::score(series, &ours)),
        readings_per_second,
        published_these_series: nab::published_of(series).into_iter().collect(),
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
            f1_by_origin: figures
                .origins
                .iter()
                .map(|(origin, own)| {
                    let f1 = classes(own).into_iter().map(|(name, class)| (name, class.f1));
                    (origin.name(), f1.collect())
                })
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
        print_origins(&injected.by.model.f1_by_origin);
        println!("{:.0} readings/s on one thread\n", injected.readings_per_second);
    }
    if let Some(live) = &summary.live {
        live.print();
    }
    if let Some(motes) = &summary.motes {
        print_motes(motes);
    }
    if let Some(nab) = &summary.nab {
        print_nab(nab);
    }
}

/// F1 by kind and data set.
fn print_origins(origins: &BTreeMap<&'static str, BTreeMap<&'static str, Option<f64>>>) {
    for (origin, kinds) in origins {
        let kind = |kind: FaultKind| {
            let f1 = kinds.get(kind.name()).copied().flatten();
            format!("{} {}", kind.name(), percent(f1))
        };
        println!("{origin}: {}", FaultKind::ALL.map(kind).join(", "));
    }
}

fn print_motes(motes: &Motes) {
    let told = [
        ("excursions", &motes.excursions),
        ("z-score", &motes.z_score),
        ("model", &motes.model),
        ("rules", &motes.rules),
    ];
    for (name, told) in told {
        let wrong = told.false_events.map_or(String::new(), |count| format!(", {count} false"));
        let (found, all) = (told.events_found, told.events);
        let mut thresholds = String::new();
        if !told.thresholds.is_empty() {
            thresholds = format!(", thresholds by table {:?}", told.thresholds);
        }
        println!("Motes, {name}: {found} of {all} events{wrong}{thresholds}\n{}\n", told.table);
    }
}

fn print_nab(nab: &Nab) {
    println!("NAB, {} series, {:.0} readings/s of novelty", nab.series, nab.readings_per_second);
    println!("  {:<58} novelty Gaussian   model", "");
    let score = |part: Option<f64>| part.map_or("–".into(), |score| format!("{score:.1}"));
    let row = |name: &str, own: [Option<f64>; 3]| {
        let [novelty, gaussian, model] = own.map(score);
        println!("  {name:<58} {novelty:>7} {gaussian:>8} {model:>7}");
    };
    for name in nab.novelty.series.keys() {
        row(
            name,
            [&nab.novelty, &nab.gaussian, &nab.model].map(|part| part.series.get(name).copied()),
        );
    }
    row("all", [&nab.novelty, &nab.gaussian, &nab.model].map(|part| part.score));
    for (title, scores) in [
        ("published, the same series (thresholds best on all 58)", &nab.published_these_series),
        ("published, all 58 series", &nab.published_all_series),
    ] {
        let scores: Vec<String> =
            scores.iter().map(|(name, score)| format!("{name} {score:.1}")).collect();
        if !scores.is_empty() {
            println!("{title}: {}", scores.join(", "));
        }
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".into(), |share| format!("{:.2} %", share * 100.0))
}
