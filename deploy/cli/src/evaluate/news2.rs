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
use haar_recordings::corpus::Corpus;
use haar_signals::news2::{Inputs, News2, Parameter, Risk, news2};
use serde::Serialize;

use crate::failure::Failure;

/// How long a measurement stands in for the next. The Royal College's chart has the least ill observed every 12 hours.
const CARRY_HOURS: usize = 12;
/// Air.
const AIR: f64 = 0.21;
/// For the interval of the AUROC.
const RESAMPLES: usize = 100;
const SEED: u64 = 1;
/// The columns that are read.
const COLUMNS: [&str; 6] = ["HR", "O2Sat", "Temp", "SBP", "Resp", "FiO2"];
const LABEL: &str = "SepsisLabel";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the .psv files, or of a .tar.zst of them.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print one JSON object instead of a table; shares are fractions of 1.
    #[arg(long)]
    json: bool,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let summary = evaluate(args)?;
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print_table(&summary);
    }
    Ok(())
}

fn evaluate(args: &Args) -> Result<Summary, Failure> {
    let corpus = Corpus::open(&args.data, "a .psv file", |path| path.ends_with(".psv"))?;
    let mut stays = Vec::with_capacity(corpus.len());
    for (path, bytes) in corpus.iter() {
        let stay = read_stay(bytes)
            .map_err(|reason| Failure::usage(format!("{path}: {reason}; fetch the file again")))?;
        stays.push(stay);
    }
    let measured = Scored::of(&stays, 0);
    let carried = Scored::of(&stays, CARRY_HOURS);
    let hours: usize = stays.iter().map(Vec::len).sum();
    Ok(Summary {
        task: "news2",
        patients: stays.len(),
        hours,
        sepsis_hours: measured.labels().filter(|label| *label).count(),
        carry_hours: CARRY_HOURS,
        auroc: carried.auroc(|score| f64::from(score.lower)),
        auroc_interval: carried.auroc_interval(),
        measured: measured.figures(),
        carried: carried.figures(),
    })
}

/// One hour: the values of [`COLUMNS`], and the label if there is one.
struct Hour {
    values: [Option<f64>; COLUMNS.len()],
    sepsis: Option<bool>,
}

/// Lines of values with `|` between them under a line of headings; `NaN` is not measured.
fn read_stay(bytes: &[u8]) -> Result<Vec<Hour>, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let headings: Vec<&str> =
        lines.next().ok_or("it is empty")?.split('|').map(str::trim).collect();
    let place = |name: &str| headings.iter().position(|heading| *heading == name);
    let places = COLUMNS.map(place);
    if places.iter().any(Option::is_none) {
        return Err("a column of the 2019 challenge is missing");
    }
    let label = place(LABEL);
    lines
        .map(|line| {
            let cells: Vec<f64> = line
                .split('|')
                .map(|cell| cell.trim().parse().map_err(|_| "a cell is not a number"))
                .collect::<Result<_, _>>()?;
            if cells.len() != headings.len() {
                return Err("a line has not as many cells as there are headings");
            }
            let cell =
                |place: Option<usize>| place.map(|place| cells[place]).filter(|v| v.is_finite());
            Ok(Hour { values: places.map(cell), sepsis: cell(label).map(|label| label > 0.5) })
        })
        .collect()
}

/// The scores of all stays.
struct Scored {
    stays: Vec<Vec<(News2, Option<bool>)>>,
}

impl Scored {
    fn of(stays: &[Vec<Hour>], carry: usize) -> Self {
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

fn score_stay(stay: &[Hour], carry: usize) -> Vec<(News2, Option<bool>)> {
    let value = |at: usize, column: usize| {
        stay[at.saturating_sub(carry)..=at].iter().rev().find_map(|hour| hour.values[column])
    };
    (0..stay.len())
        .map(|at| {
            let inputs = Inputs {
                heart_rate: value(at, 0),
                spo2: value(at, 1),
                temperature_celsius: value(at, 2),
                systolic_mmhg: value(at, 3),
                respiration_rate: value(at, 4),
                // Some wrote per cent, some none at all.
                supplemental_oxygen: value(at, 5)
                    .filter(|fraction| (AIR - 0.01..=1.0).contains(fraction))
                    .map(|fraction| fraction > AIR + 0.005),
                ..Inputs::default()
            };
            (news2(&inputs), stay[at].sepsis)
        })
        .collect()
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

fn print_table(summary: &Summary) {
    let Summary { patients, hours, sepsis_hours, carry_hours, .. } = summary;
    println!("{patients} patients, {hours} hours, {sepsis_hours} of them with the label");
    println!("{:<34} {:>9} {:>9}", "", "measured", "carried");
    let line = |name: &str, scale: f64, of: &dyn Fn(&Figures) -> Option<f64>| {
        let cell = |figures: &Figures| {
            of(figures).map_or_else(|| "–".to_owned(), |value| format!("{:.3}", scale * value))
        };
        println!("{name:<34} {:>9} {:>9}", cell(&summary.measured), cell(&summary.carried));
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

    const STAY: &str = "HR|O2Sat|Temp|SBP|Resp|FiO2|SepsisLabel\n\
        70|98|37|120|16|0.21|0\n\
        140|NaN|NaN|95|30|NaN|1\n";

    #[test]
    fn figures_of_a_small_stay() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.psv"), STAY).unwrap();
        let summary = evaluate(&Args { data: folder.path().to_owned(), json: true }).unwrap();
        // Second hour: 3 + 2 + 3 = 8 points known; measured alone, saturation, oxygen and temperature are open.
        expect![[r#""#]].assert_eq(&serde_json::to_string(&summary).unwrap());
    }

    #[test]
    fn measurements_are_carried_no_longer_than_said() {
        let stay = read_stay(STAY.as_bytes()).unwrap();
        let at = |carry: usize| score_stay(&stay, carry)[1].0.clone();
        assert_eq!((at(0).lower, at(0).upper), (8, 8 + 3 + 2 + 3 + 3));
        assert_eq!((at(1).lower, at(1).upper), (8, 8 + 3));
        assert_eq!(at(1).missing, [Parameter::Consciousness]);
    }

    #[test]
    fn what_is_no_stay_is_refused() {
        let refusal = |text: &str| read_stay(text.as_bytes()).err();
        assert_eq!(refusal(""), Some("it is empty"));
        assert_eq!(refusal("HR|SBP\n1|2\n"), Some("a column of the 2019 challenge is missing"));
        assert_eq!(refusal(&STAY.replace("140", "x")), Some("a cell is not a number"));
        let short = STAY.replace("|NaN|1", "|NaN");
        assert_eq!(refusal(&short), Some("a line has not as many cells as there are headings"));
    }
}
