//! `haar evaluate news2`: how much of NEWS2 hourly records allow, and what it says of sepsis.
//!
//! Reads stays as the PhysioNet/CinC Challenge 2019 publishes them: one `.psv` a patient, one line an hour. Its label is 1
//! from six hours before the onset of sepsis on. The figures are the baseline that a sepsis model has to beat.
//!
//! Two ways to fill the score: `measured` takes the hour's own values, `carried` also those of the last
//! [`CARRY_HOURS`] hours before it, as a chart at the bedside does. In these data nobody noted consciousness, so that **no
//! score is ever complete**, and supplemental oxygen is known only from the inspired fraction (above 0.21). What is
//! not known is left open: scale 1 is assumed, as for all but a few.

use std::path::PathBuf;

use haar_inference::statistics::{Interval, auprc, auroc, bootstrap};
use haar_recordings::cinc2019::{self, Hour, Stay, VARIABLES, read_stay};
use haar_recordings::corpus::Corpus;
use haar_signals::news2::{Inputs, News2, Parameter, Risk, news2};
use serde::Serialize;

use crate::failure::Failure;

mod page;

/// How long a measurement stands in for the next. The Royal College's chart has the least ill observed every 12 hours.
const CARRY_HOURS: usize = 12;
/// Air.
const AIR: f64 = 0.21;
/// For the interval of the AUROC.
const RESAMPLES: usize = 100;
const SEED: u64 = 1;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the .psv files, or of a .tar.zst of them.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print one JSON object instead of a table; shares are fractions of 1.
    #[arg(long)]
    json: bool,
    /// Write a page with the figures, curves, sepsis by score, and hours in which score and label disagree most.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (summary, charts) = evaluate(args)?;
    if let Some(path) = &args.report {
        super::report::write(path, &page::page(&summary, &charts))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print_table(&summary);
    }
    Ok(())
}

/// What the page is drawn from.
struct Charts {
    stays: Vec<Stay>,
    /// Their files, in the same order.
    paths: Vec<String>,
    carried: Scored,
}

fn evaluate(args: &Args) -> Result<(Summary, Charts), Failure> {
    let corpus =
        Corpus::open(&args.data, "a .psv file", |path| path.ends_with(cinc2019::EXTENSION))?;
    let mut stays = Vec::with_capacity(corpus.len());
    let mut paths = Vec::with_capacity(corpus.len());
    for (path, bytes) in corpus.iter() {
        let stay = read_stay(bytes).map_err(|error| Failure::usage(format!("{path}: {error}")))?;
        stays.push(stay);
        paths.push(path.to_owned());
    }
    let measured = Scored::of(&stays, 0);
    let carried = Scored::of(&stays, CARRY_HOURS);
    let hours: usize = stays.iter().map(|stay| stay.hours.len()).sum();
    let summary = Summary {
        task: "news2",
        patients: stays.len(),
        hours,
        sepsis_hours: measured.labels().filter(|label| *label).count(),
        carry_hours: CARRY_HOURS,
        auroc: carried.auroc(|score| f64::from(score.lower)),
        auroc_interval: carried.auroc_interval(),
        measured: measured.figures(),
        carried: carried.figures(),
    };
    Ok((summary, Charts { stays, paths, carried }))
}

/// The scores of all stays.
struct Scored {
    stays: Vec<Vec<(News2, Option<bool>)>>,
}

impl Scored {
    fn of(stays: &[Stay], carry: usize) -> Self {
        Self { stays: stays.iter().map(|stay| score_stay(stay, carry)).collect() }
    }

    fn hours(&self) -> impl Iterator<Item = &News2> + Clone {
        self.stays.iter().flatten().map(|(score, _)| score)
    }

    fn labels(&self) -> impl Iterator<Item = bool> {
        self.stays.iter().flatten().filter_map(|(_, label)| *label)
    }

    /// Scores and labels of the hours that have a label.
    fn labelled(&self, of: impl Fn(&News2) -> f64) -> (Vec<f64>, Vec<bool>) {
        let hours = self.stays.iter().flatten();
        hours.filter_map(|(score, label)| label.map(|label| (of(score), label))).unzip()
    }

    fn auroc(&self, of: impl Fn(&News2) -> f64) -> Option<f64> {
        let (scores, labels) = self.labelled(of);
        auroc(&scores, &labels)
    }

    /// Of the lower bound's, over patients.
    fn auroc_interval(&self) -> Option<Interval> {
        bootstrap(self.stays.len(), RESAMPLES, SEED, |drawn| {
            let hours = drawn.iter().flat_map(|patient| &self.stays[*patient]);
            let labelled = hours
                .filter_map(|(score, label)| label.map(|label| (f64::from(score.lower), label)));
            let (scores, labels): (Vec<f64>, Vec<bool>) = labelled.unzip();
            auroc(&scores, &labels)
        })
    }

    fn figures(&self) -> Figures {
        let count = self.hours().count();
        let share = |of: &dyn Fn(&News2) -> bool| {
            (count > 0)
                .then(|| self.hours().filter(|score| of(score)).count() as f64 / count as f64)
        };
        let width: usize = self.hours().map(|score| usize::from(score.upper - score.lower)).sum();
        let known = |parameter: Parameter| share(&|score| !score.missing.contains(&parameter));
        let middle = |score: &News2| f64::from(score.lower) + f64::from(score.upper);
        let (lower, labels) = self.labelled(|score| f64::from(score.lower));
        Figures {
            complete: share(&|score| score.score.is_some()),
            all_but_consciousness: share(&|score| {
                score.missing.iter().all(|missing| *missing == Parameter::Consciousness)
            }),
            mean_width: (count > 0).then(|| width as f64 / count as f64),
            risk_certain: share(&|score| score.risk.is_some()),
            high_risk_certain: share(&|score| score.risk == Some(Risk::High)),
            known: Known {
                respiration_rate: known(Parameter::RespirationRate),
                spo2: known(Parameter::SpO2),
                supplemental_oxygen: known(Parameter::SupplementalOxygen),
                systolic: known(Parameter::SystolicPressure),
                heart_rate: known(Parameter::HeartRate),
                consciousness: known(Parameter::Consciousness),
                temperature: known(Parameter::Temperature),
            },
            auroc_lower: auroc(&lower, &labels),
            auroc_upper: self.auroc(|score| f64::from(score.upper)),
            auroc_middle: self.auroc(middle),
            auprc_lower: auprc(&lower, &labels),
        }
    }
}

fn score_stay(stay: &Stay, carry: usize) -> Vec<(News2, Option<bool>)> {
    let score = |at: usize| (news2(&inputs_at(stay, at, carry)), stay.hours[at].sepsis);
    (0..stay.hours.len()).map(score).collect()
}

/// What is known at an hour, with values of up to `carry` hours before.
fn inputs_at(stay: &Stay, at: usize, carry: usize) -> Inputs {
    let hours = &stay.hours[at.saturating_sub(carry)..=at];
    let [heart_rate, spo2, temperature_celsius, systolic_mmhg, respiration_rate, fraction] =
        ["HR", "O2Sat", "Temp", "SBP", "Resp", "FiO2"].map(|name| {
            let column = VARIABLES.iter().position(|variable| variable.name == name)?;
            latest(hours, column)
        });
    Inputs {
        heart_rate,
        spo2,
        temperature_celsius,
        systolic_mmhg,
        respiration_rate,
        // Some wrote per cent, and some nothing that one can breathe.
        supplemental_oxygen: fraction
            .filter(|fraction| (AIR - 0.01..=1.0).contains(fraction))
            .map(|fraction| fraction > AIR + 0.005),
        ..Inputs::default()
    }
}

/// The last value that was measured.
fn latest(hours: &[Hour], column: usize) -> Option<f64> {
    let value =
        hours.iter().rev().map(|hour| hour.values[column]).find(|value| value.is_finite())?;
    // The file has two digits; half a tenth of a degree must not be lost in an f32's last bit.
    Some((f64::from(value) * 1_000.0).round() / 1_000.0)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    task: &'static str,
    patients: usize,
    hours: usize,
    /// Hours labelled as six hours before sepsis or later.
    sepsis_hours: usize,
    carry_hours: usize,
    /// Of the lower bound with values carried forward: what is known for certain.
    auroc: Option<f64>,
    /// 95 %, over patients.
    auroc_interval: Option<Interval>,
    measured: Figures,
    carried: Figures,
}

/// Shares of all hours; null where there is none.
#[derive(Serialize)]
struct Figures {
    /// Nothing is missing.
    complete: Option<f64>,
    /// Nothing else is missing.
    all_but_consciousness: Option<f64>,
    /// Points between the lower and the upper bound.
    mean_width: Option<f64>,
    /// The risk is certain in spite of what is missing.
    risk_certain: Option<f64>,
    high_risk_certain: Option<f64>,
    known: Known,
    auroc_lower: Option<f64>,
    auroc_upper: Option<f64>,
    auroc_middle: Option<f64>,
    auprc_lower: Option<f64>,
}

/// Shares of hours in which each parameter is known.
#[derive(Serialize)]
struct Known {
    respiration_rate: Option<f64>,
    spo2: Option<f64>,
    supplemental_oxygen: Option<f64>,
    systolic: Option<f64>,
    heart_rate: Option<f64>,
    consciousness: Option<f64>,
    temperature: Option<f64>,
}

/// Each figure's name, and its value as measured and as carried.
fn lines(summary: &Summary) -> Vec<[String; 3]> {
    let mut lines = Vec::new();
    let mut line = |name: &str, scale: f64, of: &dyn Fn(&Figures) -> Option<f64>| {
        let cell = |figures: &Figures| {
            of(figures).map_or_else(|| "–".to_owned(), |value| format!("{:.3}", scale * value))
        };
        lines.push([name.to_owned(), cell(&summary.measured), cell(&summary.carried)]);
    };
    line("complete, %", 100.0, &|figures| figures.complete);
    line("complete but for consciousness, %", 100.0, &|figures| figures.all_but_consciousness);
    line("upper − lower bound, points", 1.0, &|figures| figures.mean_width);
    line("risk certain, %", 100.0, &|figures| figures.risk_certain);
    line("high risk certain, %", 100.0, &|figures| figures.high_risk_certain);
    line("AUROC of the lower bound", 1.0, &|figures| figures.auroc_lower);
    line("AUROC of the upper bound", 1.0, &|figures| figures.auroc_upper);
    line("AUROC of their middle", 1.0, &|figures| figures.auroc_middle);
    line("AUPRC of the lower bound", 1.0, &|figures| figures.auprc_lower);
    lines
}

fn print_table(summary: &Summary) {
    let Summary { patients, hours, sepsis_hours, carry_hours, .. } = summary;
    println!("{patients} patients, {hours} hours, {sepsis_hours} of them with the label");
    println!("{:<34} {:>9} {:>9}", "", "measured", "carried");
    for [name, measured, carried] in lines(summary) {
        println!("{name:<34} {measured:>9} {carried:>9}");
    }
    if let Some(interval) = summary.auroc_interval {
        println!(
            "AUROC of the lower bound, carried, 95 % over patients: {:.3}–{:.3}",
            interval.lower, interval.upper
        );
    }
    println!(
        "carried: the last value of up to {carry_hours} hours before; consciousness is not in these data"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    /// Two hours with these values, nothing else measured.
    fn stay() -> String {
        let measured = ["HR", "O2Sat", "Temp", "SBP", "Resp", "FiO2"];
        let rows =
            [["70", "98", "37", "120", "16", "0.21"], ["140", "NaN", "NaN", "95", "30", "NaN"]];
        let names: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
        let mut text = format!("{}|Age|Gender|HospAdmTime|ICULOS|SepsisLabel\n", names.join("|"));
        for (hour, row) in rows.iter().enumerate() {
            let cell = |name: &&str| {
                measured.iter().position(|known| known == name).map_or("NaN", |at| row[at])
            };
            let cells: Vec<&str> = names.iter().map(cell).collect();
            text += &format!("{}|70|1|-2|{}|{hour}\n", cells.join("|"), hour + 1);
        }
        text
    }

    #[test]
    fn figures_of_a_small_stay() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.psv"), stay()).unwrap();
        let path = folder.path().join("page.html");
        let args = Args { data: folder.path().to_owned(), json: true, report: Some(path.clone()) };
        run(&args).unwrap();
        let page = std::fs::read_to_string(path).unwrap();
        assert!(page.contains("a.psv, hour 2") && page.contains("8–11"), "{page}");
        let (summary, _) = evaluate(&args).unwrap();
        // Second hour: 3 + 2 + 3 = 8 points known; measured alone, saturation, oxygen and temperature are open.
        expect![[r#"{"task":"news2","patients":1,"hours":2,"sepsis_hours":1,"carry_hours":12,"auroc":1.0,"auroc_interval":{"lower":1.0,"upper":1.0},"measured":{"complete":0.0,"all_but_consciousness":0.5,"mean_width":7.0,"risk_certain":0.5,"high_risk_certain":0.5,"known":{"respiration_rate":1.0,"spo2":0.5,"supplemental_oxygen":0.5,"systolic":1.0,"heart_rate":1.0,"consciousness":0.0,"temperature":0.5},"auroc_lower":1.0,"auroc_upper":1.0,"auroc_middle":1.0,"auprc_lower":1.0},"carried":{"complete":0.0,"all_but_consciousness":1.0,"mean_width":3.0,"risk_certain":0.5,"high_risk_certain":0.5,"known":{"respiration_rate":1.0,"spo2":1.0,"supplemental_oxygen":1.0,"systolic":1.0,"heart_rate":1.0,"consciousness":0.0,"temperature":1.0},"auroc_lower":1.0,"auroc_upper":1.0,"auroc_middle":1.0,"auprc_lower":1.0}}"#]].assert_eq(&serde_json::to_string(&summary).unwrap());
    }

    #[test]
    fn measurements_are_carried_no_longer_than_said() {
        let stay = read_stay(stay().as_bytes()).unwrap();
        let at = |carry: usize| score_stay(&stay, carry)[1].0.clone();
        assert_eq!((at(0).lower, at(0).upper), (8, 8 + 3 + 2 + 3 + 3));
        assert_eq!((at(1).lower, at(1).upper), (8, 8 + 3));
        assert_eq!(at(1).missing, [Parameter::Consciousness]);
    }

    #[test]
    fn what_is_no_stay_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.psv"), "HR|SBP\n1|2\n").unwrap();
        let args = Args { data: folder.path().to_owned(), json: true, report: None };
        let error = evaluate(&args).err().unwrap();
        assert!(error.to_string().starts_with("a.psv: no column `O2Sat`"), "{error}");
    }
}
