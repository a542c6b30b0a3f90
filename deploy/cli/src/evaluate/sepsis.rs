//! `haar evaluate sepsis`: warnings six hours ahead against labels.

use super::report::{Part, Report};
use crate::failure::Failure;
use crate::sepsis_data::read_cases;
use haar_inference::sepsis::{Evaluation, Figures, HORIZON_H, SepsisModel, evaluate};
use haar_recordings::cinc2019::{Stay, VITALS};
use haar_schema::ModelRef;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Judges every hour of the stays in a folder. Stays that the model was trained on are judged by the one member of the
/// committee that has not seen them, all others by the whole committee.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of `.psv` files as in the PhysioNet/CinC Challenge 2019, or of `.tar.zst` archives of them; figures are
    /// given by folder of the files, and by age and sex.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only stays in folders of this name; once for each.
    #[arg(long, value_name = "FOLDER")]
    group: Vec<String>,
    /// As if this were not known, to see what a site without it has: laboratory values; age, sex and time of admission. Once for each.
    #[arg(long, value_enum, value_name = "WHAT")]
    without: Vec<Unknown>,
    /// Folder of the model [default: the one that is built in].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print one JSON object instead of a table; shares are fractions of 1.
    #[arg(long)]
    json: bool,
    /// Write a page with the figures, ROC and calibration curves by folder.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// What may be missing at a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Unknown {
    /// All laboratory values.
    Laboratory,
    /// Age, sex and time of admission.
    Patient,
}

impl Unknown {
    fn forget(self, stay: &mut Stay) {
        match self {
            Self::Laboratory => {
                for hour in &mut stay.hours {
                    hour.values[VITALS..].fill(f32::NAN);
                }
            }
            Self::Patient => {
                stay.age_years = f32::NAN;
                stay.male = f32::NAN;
                stay.hospital_admission_h = f32::NAN;
            }
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    task: &'static str,
    horizon_h: u32,
    model: ModelRef,
    without: Vec<Unknown>,
    #[serde(flatten)]
    evaluation: Evaluation,
    hours_per_s: f64,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let model = match &args.model {
        Some(folder) => SepsisModel::load(folder)?,
        None => SepsisModel::builtin()?,
    };
    let mut cases = read_cases(&args.data, &args.group)?;
    for unknown in &args.without {
        cases.iter_mut().for_each(|case| unknown.forget(&mut case.stay));
    }
    // Drawn on standard error, and only where that is a terminal.
    let bar = ProgressBar::new(cases.len() as u64);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} stays, {eta} to go")?);
    let begin = Instant::now();
    let evaluation = evaluate(&model, &cases, &mut |done| bar.set_position(done as u64));
    let hours_per_s = evaluation.all.hours as f64 / begin.elapsed().as_secs_f64().max(1e-9);
    bar.finish_and_clear();
    let model = model.reference().clone();
    let without = args.without.clone();
    let (task, horizon_h) = ("sepsis", HORIZON_H);
    let summary = Summary { task, horizon_h, model, without, evaluation, hours_per_s };
    if let Some(path) = &args.report {
        super::report::write(path, &page(&summary))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print!("{}", table(&summary.evaluation));
        println!("{:.0} hours/s, model {}", summary.hours_per_s, summary.model.sha256);
    }
    Ok(())
}

fn page(summary: &Summary) -> Report {
    let number =
        |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
    let evaluation = &summary.evaluation;
    let groups = || {
        let named = evaluation.groups.iter().map(|(name, figures)| (name.as_str(), figures));
        named.chain([("all", &evaluation.all)])
    };
    let row = |(name, figures): (&str, &Figures)| {
        let counts = [figures.patients, figures.septic, figures.hours, figures.held_out];
        let shares = [figures.auroc, figures.auprc, figures.utility, figures.warned];
        let cells = counts.map(|count| count.to_string()).into_iter().chain(shares.map(number));
        std::iter::once(name.to_owned()).chain(cells).collect()
    };
    let head =
        ["stays in", "stays", "septic", "hours", "held out", "AUROC", "AUPRC", "utility", "warned"];
    let mut parts = vec![
        Part::Table {
            title: "By folder".into(),
            head: head.map(str::to_owned).into(),
            rows: groups().map(row).collect(),
        },
        Part::Table {
            title: "By age and sex".into(),
            head: head.map(str::to_owned).into(),
            rows: evaluation.subgroups.iter().map(|(name, own)| row((name, own))).collect(),
        },
        Part::Roc {
            title: format!("Sepsis {HORIZON_H} h ahead, by hour"),
            curves: groups()
                .map(|(name, figures)| (name.to_owned(), figures.roc.clone(), figures.auroc))
                .collect(),
        },
    ];
    for (name, figures) in groups() {
        if let Some(calibration) = figures.calibration.clone() {
            parts.push(Part::Calibration { title: format!("Calibration, {name}"), calibration });
        }
    }
    let tile = |name: &str, value, below: String| [name.to_owned(), number(value), below];
    let hours = format!("{} hours of {} stays", evaluation.all.hours, evaluation.all.patients);
    Report {
        title: format!("Sepsis {HORIZON_H} hours ahead"),
        tiles: vec![
            tile("AUROC", evaluation.all.auroc, hours.clone()),
            tile("AUPRC", evaluation.all.auprc, hours),
            tile("Utility", evaluation.all.utility, "of the challenge, normalised".into()),
        ],
        parts,
    }
}

/// A line for each group, one for all, and one for each subgroup.
pub(crate) fn table(evaluation: &Evaluation) -> String {
    let mut text = format!(
        "{:<16} {:>8} {:>6} {:>8} {:>22} {:>22} {:>8} {:>8} {:>6} {:>7}\n",
        "stays in",
        "stays",
        "septic",
        "held out",
        "AUROC",
        "AUPRC",
        "utility",
        "Brier",
        "slope",
        "warned"
    );
    for (name, figures) in &evaluation.groups {
        text.push_str(&line(name, figures));
    }
    text.push_str(&line("all", &evaluation.all));
    for (name, figures) in &evaluation.subgroups {
        text.push_str(&line(name, figures));
    }
    if evaluation.unlabelled > 0 {
        text.push_str(&format!("{} stays without labels left out\n", evaluation.unlabelled));
    }
    text
}

fn line(name: &str, figures: &Figures) -> String {
    let number =
        |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
    let with_interval = |value, interval: Option<haar_inference::statistics::Interval>| {
        let interval = interval.map_or_else(String::new, |interval| {
            format!(" ({:.4}–{:.4})", interval.lower, interval.upper)
        });
        format!("{}{interval}", number(value))
    };
    let brier = figures.calibration.as_ref().map(|calibration| calibration.brier);
    format!(
        "{name:<16} {:>8} {:>6} {:>8} {:>22} {:>22} {:>8} {:>8} {:>6.2} {:>7}\n",
        figures.patients,
        figures.septic,
        figures.held_out,
        with_interval(figures.auroc, figures.auroc_interval),
        with_interval(figures.auprc, figures.auprc_interval),
        number(figures.utility),
        number(brier),
        figures.calibration_line.slope,
        number(figures.warned),
    )
}
