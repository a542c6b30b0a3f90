//! How good the model is on stays that the asked members have not seen.

use super::utility::Utility;
use super::{History, Patient, Platt, SepsisModel, platt};
use crate::statistics::{
    Calibration, Interval, RocPoint, auprc, auroc, bootstrap, calibration, roc_curve,
};

use haar_recordings::cinc2019::Stay;
use haar_recordings::corpus::CaseId;
use serde::Serialize;
use std::collections::BTreeMap;

/// The most points kept of a curve.
const MAX_CURVE_POINTS: usize = 400;

/// Bins of the reliability curve.
const BINS: usize = 10;
/// Resamples of the bootstrap intervals.
const RESAMPLES: usize = 200;
const SEED: u64 = 2019;

/// A stay to be judged.
#[derive(Clone, Debug)]
pub struct Case {
    /// Names its file by content.
    pub id: CaseId,
    /// What it is reported under, such as its hospital.
    pub group: String,
    /// The stay, with labels.
    pub stay: Stay,
}

/// How good the model was.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Evaluation {
    /// Over all stays.
    #[serde(flatten)]
    pub all: Figures,
    /// By group.
    pub groups: BTreeMap<String, Figures>,
    /// By age, and by sex: whether it is worse for some than for others.
    pub subgroups: BTreeMap<&'static str, Figures>,
    /// Stays that were left out because an hour has no label.
    pub unlabelled: usize,
}

/// Figures over hours; intervals are 95 % bootstrap intervals over patients.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figures {
    /// Stays.
    pub patients: usize,
    /// Stays with sepsis.
    pub septic: usize,
    /// Hours.
    pub hours: usize,
    /// Stays in the training data, judged by the one member that has not seen them.
    pub held_out: usize,
    /// Stays that no member has seen, judged by all.
    pub unknown: usize,
    /// Area under the ROC curve, by hour.
    pub auroc: Option<f64>,
    /// Its interval.
    pub auroc_interval: Option<Interval>,
    /// The curve, for a drawing; not in the JSON.
    #[serde(skip)]
    pub roc: Vec<RocPoint>,
    /// Average precision, by hour.
    pub auprc: Option<f64>,
    /// Its interval.
    pub auprc_interval: Option<Interval>,
    /// The challenge's normalised utility, warnings at the threshold chosen in training.
    pub utility: Option<f64>,
    /// Its interval.
    pub utility_interval: Option<Interval>,
    /// Share of septic stays with a warning between twelve hours before onset and onset.
    pub warned: Option<f64>,
    /// Share of the other stays' hours with a warning.
    pub false_warning_hours: Option<f64>,
    /// Brier score, expected error and the reliability curve.
    pub calibration: Option<Calibration>,
    /// Calibration slope and intercept (Cox 1958); 1 and 0 are right.
    pub calibration_line: Platt,
    /// Mean uncertainty of the hours that all members judged.
    pub uncertainty: Option<f64>,
}

/// Judges stays hour by hour. `progress` is told how many stays are done after each.
pub fn evaluate(
    model: &SepsisModel,
    cases: &[Case],
    progress: &mut dyn FnMut(usize),
) -> Evaluation {
    let mut judged = Vec::with_capacity(cases.len());
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut subgroups: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
    for (done, case) in cases.iter().enumerate() {
        if let Some(patient) = judge(model, case) {
            groups.entry(case.group.clone()).or_default().push(judged.len());
            for subgroup in [age_band(case.stay.age_years), sex(case.stay.male)] {
                subgroups.entry(subgroup).or_default().push(judged.len());
            }
            judged.push(patient);
        }
        progress(done + 1);
    }
    let of = |own: &[usize]| figures(&own.iter().map(|at| &judged[*at]).collect::<Vec<_>>());
    Evaluation {
        all: of(&(0..judged.len()).collect::<Vec<_>>()),
        groups: groups.iter().map(|(name, own)| (name.clone(), of(own))).collect(),
        subgroups: subgroups.iter().map(|(name, own)| (*name, of(own))).collect(),
        unlabelled: cases.len() - judged.len(),
    }
}

fn age_band(years: f32) -> &'static str {
    match years {
        years if years < 50.0 => "age below 50",
        years if years < 65.0 => "age 50 to 64",
        years if years < 80.0 => "age 65 to 79",
        years if years >= 80.0 => "age 80 and above",
        _ => "age unknown",
    }
}

fn sex(male: f32) -> &'static str {
    match male {
        1.0 => "male",
        0.0 => "female",
        _ => "sex unknown",
    }
}

struct Judged {
    labels: Vec<bool>,
    probabilities: Vec<f64>,
    warnings: Vec<bool>,
    uncertainties: Vec<f64>,
    held_out: bool,
}

impl Judged {
    fn is_septic(&self) -> bool {
        self.labels.contains(&true)
    }
}

fn judge(model: &SepsisModel, case: &Case) -> Option<Judged> {
    let labels = case.stay.hours.iter().map(|hour| hour.sepsis).collect::<Option<Vec<bool>>>()?;
    let members = model.members_for(case.id);
    let held_out = members != model.all_members();
    let mut history = History::new(Patient::from(&case.stay));
    let mut judged = Judged {
        labels,
        probabilities: Vec::new(),
        warnings: Vec::new(),
        uncertainties: Vec::new(),
        held_out,
    };
    for hour in &case.stay.hours {
        let risk = model.risk(&history.push(hour), members.clone())?;
        judged.probabilities.push(risk.probability);
        judged.warnings.push(risk.warning);
        judged.uncertainties.extend(risk.uncertainty);
    }
    Some(judged)
}

fn figures(patients: &[&Judged]) -> Figures {
    let labels: Vec<bool> = patients.iter().flat_map(|p| p.labels.iter().copied()).collect();
    let scores: Vec<f64> = patients.iter().flat_map(|p| p.probabilities.iter().copied()).collect();
    let ranked = Ranked::new(patients);
    let utilities: Vec<Utility> =
        patients.iter().map(|p| Utility::of_stay(&p.labels, &p.warnings)).collect();
    let utility = |drawn: &mut dyn Iterator<Item = usize>| {
        let mut sum = Utility::default();
        drawn.for_each(|patient| sum += utilities[patient]);
        sum.normalised()
    };
    let interval = |figure: &dyn Fn(&[usize]) -> Option<f64>| {
        bootstrap(patients.len(), RESAMPLES, SEED, figure)
    };
    let septic: Vec<&&Judged> = patients.iter().filter(|p| p.is_septic()).collect();
    let held_out = patients.iter().filter(|p| p.held_out).count();
    let others = patients.iter().filter(|p| !p.is_septic());
    let (alarms, hours) = others.fold((0, 0), |(alarms, hours), p| {
        (alarms + p.warnings.iter().filter(|w| **w).count(), hours + p.warnings.len())
    });
    let uncertainties: Vec<f64> =
        patients.iter().flat_map(|p| p.uncertainties.iter().copied()).collect();
    let log_odds: Vec<f64> = scores.iter().map(|p| (p / (1.0 - p)).ln()).collect();
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    Figures {
        patients: patients.len(),
        septic: septic.len(),
        hours: labels.len(),
        held_out,
        unknown: patients.len() - held_out,
        auroc: auroc(&scores, &labels),
        auroc_interval: interval(&|drawn| ranked.areas(drawn).map(|areas| areas.0)),
        roc: roc_curve(&scores, &labels, MAX_CURVE_POINTS),
        auprc: auprc(&scores, &labels),
        auprc_interval: interval(&|drawn| ranked.areas(drawn).map(|areas| areas.1)),
        utility: utility(&mut (0..patients.len())),
        utility_interval: interval(&|drawn| utility(&mut drawn.iter().copied())),
        warned: share(septic.iter().filter(|p| is_warned(p)).count(), septic.len()),
        false_warning_hours: share(alarms, hours),
        calibration: calibration(&scores, &labels, BINS),
        calibration_line: platt(&log_odds, &labels, &vec![1.0; labels.len()]),
        uncertainty: (!uncertainties.is_empty()).then(|| super::mean(&uncertainties)),
    }
}

/// Labels begin six hours before onset, so from six hours before the first label to six after.
fn is_warned(patient: &Judged) -> bool {
    let Some(first) = patient.labels.iter().position(|label| *label) else { return false };
    let around = first.saturating_sub(6)..=first + 6;
    patient.warnings.iter().enumerate().any(|(hour, warning)| *warning && around.contains(&hour))
}

/// All hours from the highest score down, sorted once for all resamples.
struct Ranked {
    /// Patient, label, and whether the next hour has another score.
    hours: Vec<(u32, bool, bool)>,
    patients: usize,
}

impl Ranked {
    fn new(patients: &[&Judged]) -> Self {
        let mut hours: Vec<(f64, u32, bool)> = Vec::new();
        for (number, patient) in patients.iter().enumerate() {
            let pairs = patient.probabilities.iter().zip(&patient.labels);
            hours.extend(pairs.map(|(score, label)| (*score, number as u32, *label)));
        }
        hours.sort_by(|a, b| b.0.total_cmp(&a.0));
        let last = |at: usize| hours.get(at + 1).is_none_or(|next| next.0 != hours[at].0);
        let hours = (0..hours.len()).map(|at| (hours[at].1, hours[at].2, last(at))).collect();
        Self { hours, patients: patients.len() }
    }

    /// AUROC and average precision of a resample, each patient as often as it was drawn; `None` without both classes.
    fn areas(&self, drawn: &[usize]) -> Option<(f64, f64)> {
        let mut times = vec![0.0; self.patients];
        drawn.iter().for_each(|patient| times[*patient] += 1.0);
        let (mut hits, mut alarms, mut area, mut precision) = (0.0, 0.0, 0.0, 0.0);
        let (mut own, mut others) = (0.0, 0.0);
        for (patient, label, last) in &self.hours {
            let weight = times[*patient as usize];
            if *label {
                own += weight
            } else {
                others += weight
            }
            if *last && own + others > 0.0 {
                area += others * (hits + own / 2.0);
                hits += own;
                alarms += others;
                precision += own * hits / (hits + alarms);
                (own, others) = (0.0, 0.0);
            }
        }
        (hits > 0.0 && alarms > 0.0).then(|| (area / (hits * alarms), precision / hits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patient(hours: &[(u8, bool)]) -> Judged {
        Judged {
            labels: hours.iter().map(|hour| hour.1).collect(),
            probabilities: hours.iter().map(|hour| (f64::from(hour.0) + 0.5) / 12.0).collect(),
            warnings: hours.iter().map(|hour| hour.0 > 8).collect(),
            uncertainties: Vec::new(),
            held_out: false,
        }
    }

    proptest! {
        /// A resample is the same as writing each patient down as often as it was drawn.
        #[test]
        fn resampled_areas(
            stays in prop::collection::vec(prop::collection::vec((0u8..12, any::<bool>()), 1..8), 1..8),
            drawn in prop::collection::vec(0usize..8, 1..12),
        ) {
            let stays: Vec<Judged> = stays.iter().map(|hours| patient(hours)).collect();
            let drawn: Vec<usize> = drawn.into_iter().map(|at| at % stays.len()).collect();
            let areas = Ranked::new(&stays.iter().collect::<Vec<_>>()).areas(&drawn);
            let scores: Vec<f64> = drawn.iter().flat_map(|at| stays[*at].probabilities.clone()).collect();
            let labels: Vec<bool> = drawn.iter().flat_map(|at| stays[*at].labels.clone()).collect();
            match (areas, auroc(&scores, &labels)) {
                (Some((roc, precision)), Some(known)) => {
                    prop_assert!((roc - known).abs() < 1e-9);
                    prop_assert!((precision - auprc(&scores, &labels).unwrap()).abs() < 1e-9);
                }
                (areas, known) => prop_assert!(areas.is_none() && known.is_none()),
            }
        }
    }

    #[test]
    fn everybody_is_in_a_band_and_of_a_sex() {
        let bands = [0.0, 49.9, 50.0, 64.0, 65.0, 80.0, f32::NAN].map(age_band);
        let four = ["age below 50", "age 50 to 64", "age 65 to 79", "age 80 and above"];
        assert_eq!(bands, [four[0], four[0], four[1], four[1], four[2], four[3], "age unknown"]);
        assert_eq!([0.0, 1.0, f32::NAN].map(sex), ["female", "male", "sex unknown"]);
    }

    #[test]
    fn figures_of_two_stays() {
        let septic: Vec<(u8, bool)> =
            (0..20).map(|hour| (if hour > 9 { 11 } else { 1 }, hour > 11)).collect();
        let (septic, healthy) = (patient(&septic), patient(&[(0, false), (10, false)]));
        let figures = figures(&[&septic, &healthy]);
        assert_eq!((figures.patients, figures.septic, figures.hours), (2, 1, 22));
        assert_eq!((figures.held_out, figures.unknown), (0, 2));
        assert_eq!((figures.warned, figures.false_warning_hours), (Some(1.0), Some(0.5)));
        assert!(figures.auroc.is_some_and(|area| area > 0.9));
        assert!(figures.utility.is_some_and(|utility| (0.5..1.0).contains(&utility)));
        assert_eq!(figures.uncertainty, None);
    }
}
