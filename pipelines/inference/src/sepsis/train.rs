//! Training of the committee (see [`super`]).
//!
//! # Format
//! With a path to resume from, each finished forest is kept beside it as `<path>.<number>`, until [`Trained::forget`].

use super::evaluate::{Case, Evaluation, evaluate};
use super::{
    History, Member, Patient, SepsisModel, TASK, features, inputs, mean, platt, sigmoid, utility,
};
use crate::package::{
    Draft, Lineage, LoadError, Manifest, Metrics, OutputSpec, Package, TrainingData, TrainingRun,
    WeightsFile, WriteError,
};
use crate::training::{folds, random};
use crate::trees::{
    Forest, Growth, KeepError, MAX_FEATURES, Table, forget, grow, keep, numbered, restore,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How the model is trained.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SepsisSettings {
    /// What all random numbers grow from.
    pub seed: u64,
    /// Folds of patients, 3 to 16; as many members.
    pub folds: usize,
    /// Of stays without sepsis one hour in so many is learned from, with that weight.
    pub thinning: usize,
    /// How each forest is grown.
    pub growth: Growth,
}

impl Default for SepsisSettings {
    fn default() -> Self {
        let growth = Growth {
            trees: 150,
            leaves: 12,
            learning_rate: 0.05,
            leaf_weight: 300.0,
            regularisation: 10.0,
            feature_share: 0.3,
            group_share: 0.8,
        };
        Self { seed: 2019, folds: 8, thinning: 2, growth }
    }
}

/// What a training tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TrainProgress {
    /// Trees are grown.
    Grown {
        /// So many.
        trees: usize,
        /// Of so many in all.
        of: usize,
    },
    /// Stays are judged by the member that has not seen them.
    Judged {
        /// So many.
        stays: usize,
        /// Of so many.
        of: usize,
    },
}

/// Why a model was not trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Too few or too many folds.
    #[error("a committee has 3 to 16 folds")]
    Folds,
    /// A thinning of 0.
    #[error("thinning is 1 (every hour) or more")]
    Thinning,
    /// Too few stays with sepsis, or without.
    #[error(
        "of {patients} labelled stays {septic} have sepsis; {folds} folds want that many of either kind at least"
    )]
    Few {
        /// Labelled stays.
        patients: usize,
        /// With sepsis.
        septic: usize,
        /// Folds.
        folds: usize,
    },
    /// candle failed.
    #[error("tensors could not be made: {0}")]
    Tensor(#[from] candle_core::Error),
    /// What was trained is not loaded again.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What was trained cannot be encoded.
    #[error(transparent)]
    Encode(#[from] WriteError),
    /// A file to resume from cannot be read or written.
    #[error("cannot read or write {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file to resume from is another training's.
    #[error(
        "{path} is of a training with other data or settings, or is damaged: delete it to begin anew"
    )]
    Resume {
        /// Which.
        path: PathBuf,
    },
}

impl From<KeepError> for TrainError {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::File { path, source } => Self::File { path, source },
            KeepError::Tensor(error) => Self::Tensor(error),
            KeepError::Other { path } => Self::Resume { path },
        }
    }
}

/// A trained model and how good its members are on whom they have not seen.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The model; card and what the data is called are the caller's to write.
    pub draft: Draft,
    /// On the training stays, each judged by the member without it.
    pub held_out: Evaluation,
}

/// Trains on labelled stays; what has the same content twice is used once.
///
/// # Errors
/// If there is too little to learn from, or what was to be resumed does not belong here.
pub fn train(
    cases: &[Case],
    settings: &SepsisSettings,
    command: &str,
    date: &str,
    resume: Option<&Path>,
    progress: &mut dyn FnMut(TrainProgress),
) -> Result<Trained, TrainError> {
    let mut seen = BTreeSet::new();
    let labelled = |case: &&Case| case.stay.has_sepsis().is_some() && seen.insert(case.id);
    let cases: Vec<&Case> = cases.iter().filter(labelled).collect();
    let septic = cases.iter().filter(|case| case.stay.has_sepsis() == Some(true)).count();
    if !(3..=16).contains(&settings.folds) {
        return Err(TrainError::Folds);
    }
    if settings.thinning == 0 {
        return Err(TrainError::Thinning);
    }
    if septic.min(cases.len() - septic) < settings.folds {
        let (patients, folds) = (cases.len(), settings.folds);
        return Err(TrainError::Few { patients, septic, folds });
    }
    let fold_of = folds(cases.len(), settings.folds, settings.seed);
    let rows = Rows::new(&cases, settings.thinning);
    let fingerprint = fingerprint(&cases, settings);
    let pairs = Pairs::grow(&rows, &fold_of, settings, &fingerprint, resume, progress)?;
    let members: Vec<Member> =
        (0..settings.folds).map(|fold| pairs.member(&rows, &fold_of, fold)).collect();
    let draft = draft(&cases, &fold_of, &members, settings, command, date)?;
    let (text, weights) = draft.encode()?;
    let model = SepsisModel::new(Package::from_parts(&text, &weights)?)?;
    let owned: Vec<Case> = cases.iter().map(|case| (*case).clone()).collect();
    let held_out = evaluate(&model, &owned, &mut |stays| {
        progress(TrainProgress::Judged { stays, of: owned.len() });
    });
    let mut trained = Trained { draft, held_out };
    trained.draft.manifest.metrics = metrics(&trained.held_out);
    Ok(trained)
}

impl Trained {
    /// Deletes what a training with these settings kept at `resume`.
    ///
    /// # Errors
    /// If a file is there and cannot be deleted.
    pub fn forget(settings: &SepsisSettings, resume: &Path) -> Result<(), TrainError> {
        for number in 0..pairs(settings.folds).len() {
            forget(&numbered(resume, number))?;
        }
        Ok(())
    }
}

/// The hours that are learned from.
struct Rows {
    values: Vec<f32>,
    features: usize,
    positive: Vec<bool>,
    weights: Vec<f32>,
    patients: Vec<usize>,
    /// What a warning in the hour is worth over none.
    gains: Vec<f64>,
}

impl Rows {
    fn new(cases: &[&Case], thinning: usize) -> Self {
        let features = features().len().min(MAX_FEATURES);
        let mut rows = Self {
            values: Vec::new(),
            features,
            positive: Vec::new(),
            weights: Vec::new(),
            patients: Vec::new(),
            gains: Vec::new(),
        };
        for (patient, case) in cases.iter().enumerate() {
            let labels: Vec<bool> =
                case.stay.hours.iter().map(|hour| hour.sepsis == Some(true)).collect();
            let step = if labels.contains(&true) { 1 } else { thinning };
            let gains = utility::gains(&labels);
            let mut history = History::new(Patient::from(&case.stay));
            for (at, hour) in case.stay.hours.iter().enumerate() {
                let row = history.push(hour);
                // Another offset for each patient, so that every hour of stays is learned from.
                if (at + patient) % step == 0 {
                    rows.values.extend(row);
                    rows.positive.push(labels[at]);
                    rows.weights.push(step as f32);
                    rows.patients.push(patient);
                    rows.gains.push(gains[at] * step as f64);
                }
            }
        }
        rows
    }

    fn of_folds(&self, fold_of: &[usize], take: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.patients.len()).filter(|row| take(fold_of[self.patients[*row]])).collect()
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.features..(row + 1) * self.features]
    }
}

/// The pairs of folds.
fn pairs(folds: usize) -> Vec<(usize, usize)> {
    (0..folds).flat_map(|a| (a + 1..folds).map(move |b| (a, b))).collect()
}

/// A forest for each pair of folds, grown without both.
struct Pairs(BTreeMap<(usize, usize), Forest>);

impl Pairs {
    fn grow(
        rows: &Rows,
        fold_of: &[usize],
        settings: &SepsisSettings,
        fingerprint: &[u8],
        resume: Option<&Path>,
        progress: &mut dyn FnMut(TrainProgress),
    ) -> Result<Self, TrainError> {
        let table = Table {
            values: &rows.values,
            features: rows.features,
            positive: &rows.positive,
            weights: &rows.weights,
            groups: &rows.patients,
        };
        let pairs = pairs(settings.folds);
        let of = pairs.len() * settings.growth.trees;
        let mut forests = BTreeMap::new();
        for (number, (a, b)) in pairs.into_iter().enumerate() {
            let path = resume.map(|path| numbered(path, number));
            let before = number * settings.growth.trees;
            let kept = path.as_deref().map(|path| restore(path, fingerprint, rows.features));
            let forest = match kept.transpose()?.flatten() {
                Some(forest) => forest,
                None => {
                    let cases = rows.of_folds(fold_of, |fold| fold != a && fold != b);
                    let mut rng = random(settings.seed, number, 0);
                    let mut tell =
                        |trees| progress(TrainProgress::Grown { trees: before + trees, of });
                    grow(&table, &cases, &settings.growth, &mut rng, &mut tell)
                }
            };
            if let Some(path) = path {
                keep(&path, &forest, fingerprint)?;
            }
            forests.insert((a, b), forest);
        }
        Ok(Self(forests))
    }

    /// The mean of the forests without a fold; calibration and threshold from what each of them says of its other
    /// fold.
    fn member(&self, rows: &Rows, fold_of: &[usize], fold: usize) -> Member {
        let (mut forests, mut scores, mut cases) = (Vec::new(), Vec::new(), Vec::new());
        for ((a, b), forest) in &self.0 {
            let other = match fold {
                fold if fold == *a => *b,
                fold if fold == *b => *a,
                _ => continue,
            };
            forests.push(forest);
            for row in rows.of_folds(fold_of, |fold| fold == other) {
                scores.push(forest.predict(rows.row(row)));
                cases.push(row);
            }
        }
        let positive: Vec<bool> = cases.iter().map(|row| rows.positive[*row]).collect();
        let weights: Vec<f64> = cases.iter().map(|row| f64::from(rows.weights[*row])).collect();
        let platt = platt(&scores, &positive, &weights);
        let gains: Vec<(f64, f64)> = scores
            .iter()
            .zip(&cases)
            .map(|(score, row)| (sigmoid(platt.apply(*score)), rows.gains[*row]))
            .collect();
        Member { forest: Forest::mean(&forests), platt, threshold: best_threshold(gains) }
    }
}

/// The threshold from which on warnings gain most together; above every score if none gains anything.
fn best_threshold(mut gains: Vec<(f64, f64)>) -> f64 {
    gains.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut sum, mut best, mut threshold) = (0.0, 0.0, 1.0);
    for (at, (score, gain)) in gains.iter().enumerate() {
        sum += gain;
        let next = gains.get(at + 1).map(|next| next.0);
        if sum > best && next != Some(*score) {
            (best, threshold) = (sum, *score);
        }
    }
    threshold
}

fn draft(
    cases: &[&Case],
    fold_of: &[usize],
    members: &[Member],
    settings: &SepsisSettings,
    command: &str,
    date: &str,
) -> Result<Draft, TrainError> {
    let growth = &settings.growth;
    let set = |name: &str, value: String| (name.to_owned(), value);
    let slopes: Vec<f64> = members.iter().map(|member| member.platt.slope).collect();
    let thresholds: Vec<f64> = members.iter().map(|member| member.threshold).collect();
    let training = TrainingRun {
        seed: settings.seed,
        epochs: growth.trees as u32,
        folds: settings.folds as u32,
        command: command.into(),
        settings: [
            set("leaves", growth.leaves.to_string()),
            set("learning_rate", growth.learning_rate.to_string()),
            set("leaf_weight", growth.leaf_weight.to_string()),
            set("regularisation", growth.regularisation.to_string()),
            set("feature_share", growth.feature_share.to_string()),
            set("group_share", growth.group_share.to_string()),
            set("thinning", settings.thinning.to_string()),
            set("features", super::feature_digest()),
            set("mean_calibration_slope", format!("{:.4}", mean(&slopes))),
            set("mean_threshold", format!("{:.5}", mean(&thresholds))),
        ]
        .into(),
    };
    let manifest = Manifest {
        id: "sepsis".into(),
        version: 1,
        task: TASK.into(),
        title: "Sepsis within six hours, from hourly vital signs and laboratory values".into(),
        date: date.into(),
        members: members.len() as u32,
        inputs: inputs(),
        outputs: OutputSpec::probabilities(["sepsis within 6 h"]),
        weights: WeightsFile::default(),
        data: vec![TrainingData {
            name: "PhysioNet/CinC Challenge 2019".into(),
            citation: "Reyna MA et al. Early Prediction of Sepsis From Clinical Data. Crit Care Med 48(2):210-217, 2020, 10.1097/CCM.0000000000004145; Goldberger AL et al. PhysioBank, PhysioToolkit, and PhysioNet. Circulation 101(23):e215-e220, 2000".into(),
            licence: "CC BY 4.0".into(),
            cases: cases.len() as u64,
            note: groups(cases),
        }],
        training,
        metrics: Metrics::default(),
    };
    let members = members.iter().map(Member::tensors).collect::<Result<_, _>>()?;
    let lineage =
        Lineage::new(cases.iter().zip(fold_of).map(|(case, fold)| (case.id, *fold as u8)));
    Ok(Draft { manifest, members, lineage, card: String::new() })
}

/// How many stays of which group.
fn groups(cases: &[&Case]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for case in cases {
        *counts.entry(&case.group).or_default() += 1;
    }
    let each: Vec<String> = counts.iter().map(|(name, count)| format!("{name}: {count}")).collect();
    format!("stays by folder: {}", each.join(", "))
}

fn metrics(evaluation: &Evaluation) -> Metrics {
    let all = &evaluation.all;
    let figures = [
        ("auroc", all.auroc),
        ("auprc", all.auprc),
        ("utility", all.utility),
        ("brier", all.calibration.as_ref().map(|calibration| calibration.brier)),
        ("calibration_slope", Some(all.calibration_line.slope)),
    ];
    Metrics {
        evaluation: format!(
            "by hour; {} stays, each judged by the one member that was trained without it",
            all.patients
        ),
        values: figures
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect(),
        ..Metrics::default()
    }
}

fn fingerprint(cases: &[&Case], settings: &SepsisSettings) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update(format!("{settings:?} {}", super::feature_digest()));
    for case in cases {
        digest.update(case.id.0.to_le_bytes());
    }
    digest.finalize().to_vec()
}
