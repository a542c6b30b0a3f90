//! What a training leaves: manifest, metrics on held-out recordings, card.

use super::model::{RHYTHM_TASK, RhythmModel, inputs, outputs};
use super::train::{Committee, RhythmCase, RhythmSettings};
use super::{RhythmClass, RhythmError};
use crate::package::{
    Draft, Lineage, LoadError, Manifest, Metrics, Package, TrainingData, TrainingRun, WeightsFile,
    WriteError,
};
use crate::statistics::{Confusion, bootstrap};
use std::collections::BTreeMap;

/// The model's name.
const ID: &str = "ecg-rhythm";
/// The classes of which the challenge's score is the mean F1.
const SCORED: [usize; 3] = [0, 1, 2];
/// Resamples of the score's interval.
const RESAMPLES: usize = 1_000;

const CITATION: &str = "Clifford GD et al. AF classification from a short single lead ECG recording: the PhysioNet/Computing in Cardiology Challenge 2017. Computing in Cardiology 2017;44. doi:10.22489/CinC.2017.065-469. Goldberger AL et al. PhysioBank, PhysioToolkit, and PhysioNet. Circulation 2000;101:e215-e220";

const LICENCE: &str = "ODC-BY-1.0";

/// What the training itself does not know about the model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RhythmAbout {
    /// Counts up with every training that is put to work.
    pub version: u32,
    /// The day, `YYYY-MM-DD`.
    pub date: String,
    /// The command that trains it again.
    pub command: String,
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DraftError {
    /// What was trained is not what is loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It cannot be encoded.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It cannot be asked.
    #[error(transparent)]
    Ask(#[from] RhythmError),
}

/// The model of a committee, with the metrics of each recording scored by the member that has not seen it.
///
/// # Errors
/// If the committee cannot be encoded or asked.
pub fn rhythm_draft(
    committee: &Committee,
    cases: &[RhythmCase],
    settings: &RhythmSettings,
    about: &RhythmAbout,
) -> Result<Draft, DraftError> {
    let lineage = Lineage::new(
        cases.iter().zip(&committee.fold_of).map(|(case, fold)| (case.case, *fold as u8)),
    );
    let mut draft = Draft {
        manifest: manifest(cases.len() as u64, settings, about),
        members: committee.members.clone(),
        lineage,
        card: String::new(),
    };
    let (text, weights) = draft.encode()?;
    let model = RhythmModel::new(Package::from_parts(&text, &weights)?)?;
    let mut called = vec![RhythmClass::Normal; cases.len()];
    for member in 0..settings.members {
        let own: Vec<usize> =
            (0..cases.len()).filter(|at| committee.fold_of[*at] == member).collect();
        let inputs: Vec<_> = own.iter().map(|at| cases[*at].input().clone()).collect();
        for (at, score) in own.iter().zip(model.classify_by(&inputs, member..member + 1)?) {
            called[*at] = score.class;
        }
    }
    draft.manifest.metrics = metrics(cases, &called, settings);
    draft.card = card(&draft.manifest);
    Ok(draft)
}

fn metrics(cases: &[RhythmCase], called: &[RhythmClass], settings: &RhythmSettings) -> Metrics {
    let count = |places: &mut dyn Iterator<Item = usize>| {
        let mut confusion = Confusion::new(RhythmClass::NAMES);
        places.for_each(|at| confusion.add(cases[at].class.index(), called[at].index()));
        confusion
    };
    let all = count(&mut (0..cases.len()));
    let mut values = BTreeMap::new();
    let mut insert = |name: &str, value: Option<f64>| {
        value.map(|value| values.insert(name.to_owned(), value));
    };
    insert("accuracy", all.accuracy());
    insert("f1", all.mean_f1(SCORED));
    let interval = bootstrap(cases.len(), RESAMPLES, settings.seed, |drawn| {
        count(&mut drawn.iter().copied()).mean_f1(SCORED)
    });
    insert("f1_lower", interval.as_ref().map(|interval| interval.lower));
    insert("f1_upper", interval.as_ref().map(|interval| interval.upper));
    let of = |class: RhythmClass| (class.name().to_owned(), all.class(class.index()));
    Metrics {
        evaluation: format!(
            "each recording by the one of {} members that has not seen it; f1 is the mean of N, A and O, with its 95 % bootstrap interval by recording",
            settings.members
        ),
        values,
        classes: RhythmClass::ALL.map(of).into(),
        confusion: Some(all.counts().to_vec()),
    }
}

fn manifest(cases: u64, settings: &RhythmSettings, about: &RhythmAbout) -> Manifest {
    let extra = [
        ("batch", settings.batch.to_string()),
        ("costs", format!("{:?}", settings.costs)),
        ("dropout", settings.dropout.to_string()),
        ("growth", format!("{:?}", settings.growth)),
        ("learning_rate", settings.learning_rate.to_string()),
        ("smoothing", settings.smoothing.to_string()),
        ("weight_decay", settings.weight_decay.to_string()),
    ];
    Manifest {
        id: ID.into(),
        version: about.version,
        task: RHYTHM_TASK.into(),
        title: "Rhythm of a short single-lead ECG: normal, atrial fibrillation, other, noisy".into(),
        date: about.date.clone(),
        members: settings.members as u32,
        inputs: inputs(),
        outputs: outputs(),
        weights: WeightsFile::default(),
        data: vec![TrainingData {
            name: "PhysioNet/CinC Challenge 2017, training set".into(),
            citation: CITATION.into(),
            licence: LICENCE.into(),
            cases,
            note: "classes of REFERENCE-v3; no names of patients are published, so folds are of recordings".into(),
        }],
        training: TrainingRun {
            seed: settings.seed,
            epochs: settings.epochs,
            folds: settings.members as u32,
            command: about.command.clone(),
            settings: extra.map(|(name, value)| (name.to_owned(), value)).into(),
        },
        metrics: Metrics::default(),
    }
}

fn card(manifest: &Manifest) -> String {
    let mut table = String::new();
    for class in RhythmClass::ALL {
        let percent = |share: Option<f64>| {
            share.map_or_else(|| "–".to_owned(), |share| format!("{:.1}", share * 100.0))
        };
        if let Some(of) = manifest.metrics.classes.get(class.name()) {
            let shares = [of.sensitivity, of.ppv, of.f1].map(percent).join(" | ");
            table.push_str(&format!("| {} | {} | {shares} |\n", class.name(), of.cases));
        }
    }
    let value = |name: &str| manifest.metrics.values.get(name).copied().unwrap_or(f64::NAN);
    CARD.trim()
        .replace("{members}", &manifest.members.to_string())
        .replace("{cases}", &manifest.data.iter().map(|data| data.cases).sum::<u64>().to_string())
        .replace("{citation}", CITATION)
        .replace("{licence}", LICENCE)
        .replace("{table}", table.trim_end())
        .replace("{f1}", &format!("{:.3}", value("f1")))
        .replace("{lower}", &format!("{:.3}", value("f1_lower")))
        .replace("{upper}", &format!("{:.3}", value("f1_upper")))
        .replace("{accuracy}", &format!("{:.3}", value("accuracy")))
        .replace("{seed}", &manifest.training.seed.to_string())
        .replace("{epochs}", &manifest.training.epochs.to_string())
        .replace("{command}", &manifest.training.command)
}

const CARD: &str = include_str!("card.md");
