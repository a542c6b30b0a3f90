//! Training the classifier of beats.
//!
//! The patients are shuffled by the seed and dealt into folds; member `k` of the committee is trained on the patients of
//! all folds but `k`. The metrics are those of every patient's beats asked of the one member that has not seen the
//! patient, with the whole recording as context and at annotated R peaks.
//!
//! Every recording is read as the model may meet it: both leads with the whole recording around a beat, and each lead
//! alone with only a window of 30 s; and beside it one with more supraventricular beats that is made of it ([`super::synthesis`]).
//! Beats of a class that a patient has many of count less, so that no patient outweighs the others.
//! Where short recordings in fibrillation are given, the forests of S learn from them that none of it is S (`fibrillation`).
//!
//! A member's thresholds are those at which sensitivity and PPV by EC57 stand in a given ratio
//! ([`BeatSettings::ppv_by_sensitivity`]) on the patients of the other folds, each judged by the member that has not seen them. (Those members have seen the patients of fold `k`; the thresholds have not been
//! chosen on them.)
//!
//! With a path to resume from, each finished forest is kept beside it as `<path>.<number>`.

mod fibrillation;

use super::alike::Alike;
use super::card::{Trained, draft};
use super::input::{NUMBERS, numbers_name};
use super::model::{SCORED, Scorer, probabilities, score};
use super::recordings::{AnnotatedRecord, ReadError};
use super::synthesis::with_early_beats;
use super::{BeatClass, BeatInput};
use crate::package::{Draft, Lineage};
use crate::statistics::Confusion;
use crate::training::{folds, random};
use crate::trees::{Forest, Growth, KeepError, Table, forget, grow, keep, numbered, restore};
use fibrillation::Fibrillation;
use haar_recordings::cinc2017::Cinc2017Error;
use haar_recordings::corpus::CaseId;
use haar_recordings::wfdb::{FindError, find_records};
use rand::seq::IndexedRandom;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// What a beat counts as it is met: whole recording with all leads, window of the first, of the second lead.
const VARIANTS: [f32; 3] = [0.6, 0.25, 0.15];
/// Beats of one patient, class and variant that are learned from; more are drawn from.
const ROWS_MAX: usize = 600;
/// Random numbers of recordings that are made, apart from those of the forests.
const SYNTHESIS: usize = 1 << 32;
/// Thresholds beyond say that there was nothing to choose by.
const THRESHOLD_MAX: f64 = 3.0;
/// F is called only where it is likely: it has few patients, and a ventricular beat must not be lost to it.
const FUSION_THRESHOLD_MIN: f64 = 1.0;

/// How to train. What is random grows from `seed` alone.
#[derive(Clone, PartialEq, Debug)]
pub struct BeatSettings {
    /// What the random numbers grow from.
    pub seed: u64,
    /// Folds of patients and members of the committee, at least 2.
    pub folds: usize,
    /// How each forest is grown.
    pub growth: Growth,
    /// What the beats of one patient count together at most, by class.
    pub beats_per_patient: [f32; 5],
    /// The same of the normal and supraventricular beats of the recordings that are made.
    pub made_per_patient: [f32; 2],
    /// What the beats of one recording in fibrillation without annotated beats count together.
    pub per_fibrillation: f32,
    /// What the PPV of S, V and F is to be, in sensitivities.
    pub ppv_by_sensitivity: [f64; 3],
    /// Within which distance of shape beats are alike, for S, V and F.
    pub alike_within: [f64; 3],
    /// How far their sums are drawn together then, from 0 to 1.
    pub alike_share: [f64; 3],
    /// Recordings that are of one patient, by name; none of a group's is in two folds.
    pub same_patient: Vec<Vec<String>>,
    /// For the manifest: the model's version.
    pub version: u32,
    /// For the manifest: today, `YYYY-MM-DD`.
    pub date: String,
    /// For the manifest: the command.
    pub command: String,
    /// For the manifest: name, citation and licence of the data.
    pub data: [String; 3],
    /// The same of the recordings in fibrillation.
    pub fibrillation_data: [String; 3],
}

impl Default for BeatSettings {
    fn default() -> Self {
        let growth = Growth {
            trees: 300,
            leaves: 16,
            learning_rate: 0.05,
            leaf_weight: 10.0,
            regularisation: 5.0,
            feature_share: 0.3,
            group_share: 0.9,
        };
        Self {
            seed: 1,
            folds: 5,
            growth,
            beats_per_patient: [400.0, 150.0, 250.0, 80.0, 20.0],
            made_per_patient: [120.0, 100.0],
            per_fibrillation: 4.0,
            // As in what is asked of this model: S 80 and 70 %, V 93 and 93 %.
            ppv_by_sensitivity: [0.875, 1.0, 1.0],
            alike_within: [0.7, 2.0, 1.0],
            alike_share: [0.5, 0.5, 0.0],
            same_patient: Vec::new(),
            version: 5,
            date: String::new(),
            command: String::new(),
            data: Default::default(),
            fibrillation_data: Default::default(),
        }
    }
}

/// How far a training has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BeatProgress {
    /// Recordings are read.
    Read {
        /// So many.
        records: usize,
        /// Of so many.
        of: usize,
    },
    /// Trees are grown.
    Grown {
        /// So many.
        trees: usize,
        /// Of so many in all.
        of: usize,
    },
}

/// Why there is no trained model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting is out of its bounds.
    #[error("{0}")]
    Setting(&'static str),
    /// The folder has no recordings.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A recording is not usable.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A recording in fibrillation is not usable.
    #[error(transparent)]
    Fibrillation(#[from] Cinc2017Error),
    /// Too few patients.
    #[error(
        "{patients} patients are too few for {folds} folds; give more recordings or fewer folds"
    )]
    TooFew {
        /// Patients who are not paced.
        patients: usize,
        /// Folds.
        folds: usize,
    },
    /// A forest cannot be kept or found again.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// candle failed.
    #[error("tensors could not be made: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Trains on all WFDB recordings with `.atr` annotations under `folder` and, for S, on the recordings in fibrillation under
/// `fibrillation` (as CinC 2017 has them). With `resume` a training that was broken off
/// goes on to the same result.
///
/// # Errors
/// If recordings are unreadable or too few, settings are out of bounds, or a forest cannot be kept.
pub fn train(
    folder: &Path,
    fibrillation: Option<&Path>,
    settings: &BeatSettings,
    resume: Option<&Path>,
    progress: &mut dyn FnMut(BeatProgress),
) -> Result<(Draft, Confusion), TrainError> {
    settings.check()?;
    let headers: Vec<_> = find_records(folder)?
        .into_iter()
        .filter(|header| header.with_extension("atr").is_file())
        .collect();
    let mut data = Dataset::default();
    for (at, header) in headers.iter().enumerate() {
        data.add(&AnnotatedRecord::read(header)?, settings);
        progress(BeatProgress::Read { records: at + 1, of: headers.len() });
    }
    if let Some(folder) = fibrillation {
        data.fibrillation = fibrillation::read(folder, settings.seed)?;
    }
    data.train(settings, resume, progress)
}

impl BeatSettings {
    fn check(&self) -> Result<(), TrainError> {
        let rules = [
            ((1..=4_000).contains(&self.growth.trees), "there must be 1 to 4000 trees"),
            ((2..=64).contains(&self.growth.leaves), "a tree must have 2 to 64 leaves"),
            ((2..=16).contains(&self.folds), "there must be 2 to 16 folds"),
            (
                self.growth.learning_rate > 0.0 && self.growth.learning_rate < 1.0,
                "the learning rate must be more than 0 and less than 1",
            ),
            (
                self.alike().is_sound(),
                "alike beats must be within 0.01 to 100, and their share from 0 to 1",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, message)) => Err(TrainError::Setting(message)),
            None => Ok(()),
        }
    }

    fn alike(&self) -> Alike {
        Alike { bandwidths: self.alike_within, shares: self.alike_share }
    }

    pub(super) fn named(&self) -> BTreeMap<String, String> {
        let growth = &self.growth;
        [
            ("leaves", growth.leaves.to_string()),
            ("learning_rate", growth.learning_rate.to_string()),
            ("leaf_weight", growth.leaf_weight.to_string()),
            ("regularisation", growth.regularisation.to_string()),
            ("feature_share", growth.feature_share.to_string()),
            ("group_share", growth.group_share.to_string()),
            ("beats_per_patient", format!("{:?}", self.beats_per_patient)),
            ("made_per_patient", format!("{:?}", self.made_per_patient)),
            ("per_fibrillation", self.per_fibrillation.to_string()),
            ("ppv_by_sensitivity", format!("{:?}", self.ppv_by_sensitivity)),
            ("alike_within", format!("{:?}", self.alike_within)),
            ("alike_share", format!("{:?}", self.alike_share)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// What was read.
#[derive(Default)]
struct Dataset {
    patients: Vec<Patient>,
    fibrillation: Vec<Fibrillation>,
    paced: u64,
    records: usize,
}

/// One person's beats.
#[derive(Default)]
struct Patient {
    records: Vec<String>,
    cases: Vec<CaseId>,
    /// By recording, every beat with all of it as context: what is measured on.
    contexts: Vec<Context>,
    /// What is learned from, by where it is from.
    groups: BTreeMap<Origin, Group>,
}

/// A recording's beats, in order, and what they truly are.
struct Context {
    classes: Vec<BeatClass>,
    inputs: Vec<BeatInput>,
}

/// Beats of one kind: whether their recording was made, its variant, their class.
type Origin = (bool, usize, BeatClass);

/// Beats that are learned from.
#[derive(Default)]
struct Group {
    /// How many there were to draw from.
    count: usize,
    drawn: Vec<BeatInput>,
}

impl Dataset {
    fn add(&mut self, record: &AnnotatedRecord, settings: &BeatSettings) {
        if record.is_paced {
            self.paced += 1;
            return;
        }
        let mut rng = random(settings.seed, SYNTHESIS + self.records, 0);
        self.records += 1;
        let groups = &settings.same_patient;
        let group = groups.iter().find(|group| group.contains(&record.name));
        let known = group.and_then(|group| {
            let of_group = |patient: &Patient| patient.records.iter().any(|r| group.contains(r));
            self.patients.iter().position(of_group)
        });
        let at = known.unwrap_or_else(|| {
            self.patients.push(Patient::default());
            self.patients.len() - 1
        });
        let patient = &mut self.patients[at];
        patient.records.push(record.name.clone());
        patient.cases.push(record.case);
        let made = with_early_beats(record, &mut rng);
        let leads = record.leads.len();
        for (record, is_made) in [(record, false), (&made, true)] {
            let peaks: Vec<usize> = record.beats.iter().map(|beat| beat.sample).collect();
            let variants = [(0..leads, false), (0..1, true), (1.min(leads - 1)..leads, true)];
            for (variant, (leads, windowed)) in variants.into_iter().enumerate() {
                let inputs = record.inputs_of(leads, &peaks, windowed);
                let beats = record.beats.iter().zip(inputs);
                let known: Vec<(BeatClass, BeatInput)> =
                    beats.filter_map(|(beat, input)| Some((beat.class, input?))).collect();
                for class in BeatClass::ALL {
                    let of_class: Vec<&BeatInput> = known
                        .iter()
                        .filter(|(own, _)| *own == class)
                        .map(|(_, input)| input)
                        .collect();
                    let group = patient.groups.entry((is_made, variant, class)).or_default();
                    group.count += of_class.len();
                    group.drawn.extend(of_class.sample(&mut rng, ROWS_MAX).map(|i| (*i).clone()));
                }
                if !is_made && variant == 0 {
                    let (classes, inputs) = known.into_iter().unzip();
                    patient.contexts.push(Context { classes, inputs });
                }
            }
        }
    }

    fn train(
        &self,
        settings: &BeatSettings,
        resume: Option<&Path>,
        progress: &mut dyn FnMut(BeatProgress),
    ) -> Result<(Draft, Confusion), TrainError> {
        let patients = self.patients.len();
        if patients < settings.folds {
            return Err(TrainError::TooFew { patients, folds: settings.folds });
        }
        let fold_of = self.folds(settings);
        let mut members = self.grow(settings, &fold_of, resume, progress)?;
        self.choose_thresholds(&mut members, &fold_of, settings);
        let mut confusion = Confusion::new(&BeatClass::NAMES);
        for (patient, fold) in self.patients.iter().zip(&fold_of) {
            for Context { classes, inputs } in &patient.contexts {
                for (class, sums) in classes.iter().zip(members[*fold].sums(inputs)) {
                    let called = score(&probabilities(sums));
                    let called = called.map_or(BeatClass::Q, |score| score.class);
                    confusion.add(class.index(), called.index());
                }
            }
        }
        if let Some(path) = resume {
            for number in 0..settings.folds * SCORED.len() {
                forget(&numbered(path, number))?;
            }
        }
        let annotated = self.patients.iter().map(|patient| patient.cases.as_slice());
        let short = self.fibrillation.iter().map(|record| std::slice::from_ref(&record.case));
        let lineage = annotated.chain(short).zip(&fold_of).flat_map(|(cases, fold)| {
            cases.iter().map(|case| (*case, u8::try_from(*fold).unwrap_or(u8::MAX)))
        });
        let draft = draft(Trained {
            settings,
            patients,
            fibrillation: self.fibrillation.len(),
            paced: self.paced,
            members: members.iter().map(Scorer::tensors).collect::<Result<_, _>>()?,
            thresholds: members.iter().map(|member| member.thresholds).collect(),
            lineage: Lineage::new(lineage),
            confusion: &confusion,
        });
        Ok((draft, confusion))
    }

    /// The fold of each patient, then of each recording in fibrillation.
    fn folds(&self, settings: &BeatSettings) -> Vec<usize> {
        let mut fold_of = folds(self.patients.len(), settings.folds, settings.seed);
        fold_of.extend(folds(self.fibrillation.len(), settings.folds, settings.seed));
        fold_of
    }

    /// The forests of each member, without thresholds.
    fn grow(
        &self,
        settings: &BeatSettings,
        fold_of: &[usize],
        resume: Option<&Path>,
        progress: &mut dyn FnMut(BeatProgress),
    ) -> Result<Vec<Scorer>, TrainError> {
        let rows = Rows::new(self, settings);
        let fingerprint = self.fingerprint(settings);
        let of = settings.folds * SCORED.len() * settings.growth.trees;
        let mut members = Vec::new();
        for fold in 0..settings.folds {
            let seen: Vec<usize> = (0..rows.patients.len())
                .filter(|row| fold_of[rows.patients[*row]] != fold)
                .collect();
            let annotated = seen.partition_point(|row| rows.patients[*row] < self.patients.len());
            let mut forests = [const { None }; 3];
            for (at, class) in SCORED.into_iter().enumerate() {
                let number = fold * SCORED.len() + at;
                let path = resume.map(|path| numbered(path, number));
                let kept = path.as_deref().map(|path| restore(path, &fingerprint, NUMBERS));
                let mut tell = |trees| {
                    let trees = number * settings.growth.trees + trees;
                    progress(BeatProgress::Grown { trees, of });
                };
                let forest = match kept.transpose()?.flatten() {
                    Some(forest) => forest,
                    None if class == BeatClass::S => {
                        rows.grow(class, &seen, settings, number, &mut tell)
                    }
                    None => rows.grow(class, &seen[..annotated], settings, number, &mut tell),
                };
                if let Some(path) = path {
                    keep(&path, &forest, &fingerprint)?;
                }
                forests[at] = Some(forest);
            }
            let forests = forests.map(Option::unwrap_or_default);
            members.push(Scorer { forests, alike: settings.alike(), thresholds: [0.0; 3] });
        }
        Ok(members)
    }

    /// Gives each member the thresholds that are best on the patients of the other folds.
    fn choose_thresholds(
        &self,
        members: &mut [Scorer],
        fold_of: &[usize],
        settings: &BeatSettings,
    ) {
        let mut judged: Vec<(usize, BeatClass, [f64; 3])> = Vec::new();
        for (patient, fold) in self.patients.iter().zip(fold_of) {
            for Context { classes, inputs } in &patient.contexts {
                let sums = members[*fold].alone(inputs);
                judged.extend(classes.iter().zip(sums).map(|(class, sums)| (*fold, *class, sums)));
            }
        }
        for (fold, member) in members.iter_mut().enumerate() {
            for (at, class) in SCORED.into_iter().enumerate() {
                let counts = |truth: BeatClass| {
                    class != BeatClass::V || !matches!(truth, BeatClass::F | BeatClass::Q)
                };
                let others: Vec<(f64, bool)> = judged
                    .iter()
                    .filter(|(own, truth, _)| *own != fold && counts(*truth))
                    .map(|(_, truth, sums)| (sums[at], *truth == class))
                    .collect();
                let least =
                    if class == BeatClass::F { FUSION_THRESHOLD_MIN } else { -THRESHOLD_MAX };
                member.thresholds[at] =
                    threshold(others, settings.ppv_by_sensitivity[at]).clamp(least, THRESHOLD_MAX);
            }
        }
    }

    /// Settings and what was read, in one hash.
    fn fingerprint(&self, settings: &BeatSettings) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(format!("{settings:?} {}", numbers_name()));
        for patient in &self.patients {
            hash.update(format!("{:?}", patient.cases));
        }
        for record in &self.fibrillation {
            hash.update(format!("{:?}", record.case));
        }
        hash.finalize().to_vec()
    }
}

/// The table that is learned from: the patients' beats, then those of recordings in fibrillation.
struct Rows {
    values: Vec<f32>,
    classes: Vec<BeatClass>,
    weights: Vec<f32>,
    patients: Vec<usize>,
}

impl Rows {
    fn new(data: &Dataset, settings: &BeatSettings) -> Self {
        let mut rows = Self { values: vec![], classes: vec![], weights: vec![], patients: vec![] };
        for (at, patient) in data.patients.iter().enumerate() {
            for ((is_made, variant, class), group) in &patient.groups {
                let most = match (is_made, class) {
                    (false, class) => settings.beats_per_patient[class.index()],
                    (true, BeatClass::N) => settings.made_per_patient[0],
                    (true, BeatClass::S) => settings.made_per_patient[1],
                    (true, _) => continue,
                };
                let all = most.min(group.count as f32) * VARIANTS[*variant];
                rows.extend(&group.drawn, *class, all, at);
            }
        }
        for (at, record) in data.fibrillation.iter().enumerate() {
            let all = settings.per_fibrillation;
            rows.extend(&record.beats, BeatClass::N, all, data.patients.len() + at);
        }
        rows
    }

    /// Beats of a class that count `all` together.
    fn extend(&mut self, beats: &[BeatInput], class: BeatClass, all: f32, patient: usize) {
        for input in beats {
            self.values.extend(input.numbers());
            self.classes.push(class);
            self.weights.push(all / beats.len() as f32);
            self.patients.push(patient);
        }
    }

    fn grow(
        &self,
        class: BeatClass,
        cases: &[usize],
        settings: &BeatSettings,
        number: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Forest {
        let positive: Vec<bool> = self.classes.iter().map(|own| *own == class).collect();
        let table = Table {
            values: &self.values,
            features: NUMBERS,
            positive: &positive,
            weights: &self.weights,
            groups: &self.patients,
        };
        grow(&table, cases, &settings.growth, &mut random(settings.seed, number, 0), progress)
    }
}

/// The threshold with the best of the lesser of PPV and `ratio` × sensitivity, half way between two scores; 0 without a
/// positive.
fn threshold(mut scores: Vec<(f64, bool)>, ratio: f64) -> f64 {
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = scores.iter().filter(|(_, positive)| *positive).count() as f64;
    let (mut hits, mut best, mut threshold) = (0.0, 0.0, 0.0);
    for (at, (score, positive)) in scores.iter().enumerate() {
        hits += f64::from(u8::from(*positive));
        let reached = (hits / (at + 1) as f64).min(ratio * hits / positives);
        let next = scores.get(at + 1).map_or(score - 1.0, |next| next.0);
        if reached > best && next < *score {
            (best, threshold) = (reached, 0.5 * (score + next));
        }
    }
    threshold
}

#[cfg(test)]
mod tests;
