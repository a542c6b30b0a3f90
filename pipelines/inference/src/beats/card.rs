//! What a trained classifier of beats says of itself: manifest and card.

use super::model::{BEAT_TASK, input_specs, output_specs};
use super::training::BeatSettings;
use super::{BeatClass, RHYTHM_NAMES, SHAPE_NAMES, SURROUNDING_NAMES, Unmatched, ec57};
use crate::package::{Draft, Lineage, Manifest, Metrics, TrainingData, TrainingRun, WeightsFile};
use crate::statistics::Confusion;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const EVALUATION: &str = "each patient's beats asked of the one member that was trained without the patient, its thresholds chosen \
     on other patients; annotated R peaks, whole recordings as context, up to two leads; counted by ANSI/AAMI EC57";

/// What was trained.
pub(super) struct Trained<'t> {
    pub(super) settings: &'t BeatSettings,
    pub(super) patients: usize,
    pub(super) paced: u64,
    /// Recordings in fibrillation without annotated beats.
    pub(super) fibrillation: usize,
    pub(super) members: Vec<BTreeMap<String, Tensor>>,
    /// By member, of S, V, F.
    pub(super) thresholds: Vec<[f64; 3]>,
    pub(super) lineage: Lineage,
    pub(super) confusion: &'t Confusion,
}

/// The model that has no folder yet.
pub(super) fn draft(trained: Trained<'_>) -> Draft {
    let Trained { settings, confusion, .. } = trained;
    let [name, citation, licence] = settings.data.clone();
    let data = TrainingData {
        name,
        citation,
        licence,
        cases: (trained.lineage.len() - trained.fibrillation) as u64,
        note: format!("{} recordings of paced patients left out", trained.paced),
    };
    let mut sources = vec![data];
    if trained.fibrillation > 0 {
        let [name, citation, licence] = settings.fibrillation_data.clone();
        let cases = trained.fibrillation as u64;
        let note = "those in fibrillation, from which only what is not S is learned".into();
        sources.push(TrainingData { name, citation, licence, cases, note });
    }
    let metrics = |class: BeatClass| {
        let found = ec57(confusion, &Unmatched::default(), class);
        (BeatClass::NAMES[class.index()].to_owned(), found)
    };
    let strict = |class: BeatClass| confusion.class(class.index()).ppv;
    let values = [
        ("accuracy", confusion.accuracy()),
        ("ppv_strict_S", strict(BeatClass::S)),
        ("ppv_strict_V", strict(BeatClass::V)),
    ];
    let card = card(&trained, &sources);
    Draft {
        manifest: Manifest {
            id: "ecg-beats".into(),
            version: settings.version,
            task: BEAT_TASK.into(),
            title: "AAMI class of each heart beat of an ECG".into(),
            date: settings.date.clone(),
            members: trained.members.len() as u32,
            inputs: input_specs(),
            outputs: output_specs(),
            weights: WeightsFile::default(),
            data: sources,
            training: TrainingRun {
                seed: settings.seed,
                epochs: settings.growth.trees as u32,
                folds: settings.folds as u32,
                command: settings.command.clone(),
                settings: settings.named(),
            },
            metrics: Metrics {
                evaluation: EVALUATION.into(),
                values: values
                    .into_iter()
                    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                    .collect(),
                classes: BeatClass::ALL.map(metrics).into(),
                confusion: Some(confusion.counts().to_vec()),
            },
        },
        members: trained.members,
        lineage: trained.lineage,
        card,
    }
}

fn card(trained: &Trained<'_>, sources: &[TrainingData]) -> String {
    let Trained { settings, patients, confusion, .. } = trained;
    let mut data = String::new();
    for (at, TrainingData { name, citation, licence, cases, note }) in sources.iter().enumerate() {
        let of = if at == 0 { format!(" of {patients} patients") } else { String::new() };
        let _ = writeln!(
            data,
            "{name}, {cases} recordings{of}; {note}. Licence: {licence}.\n{citation}\n"
        );
    }
    let mut by_ec57 = String::new();
    for class in [BeatClass::V, BeatClass::S] {
        let found = ec57(confusion, &Unmatched::default(), class);
        let percent = |share: Option<f64>| share.unwrap_or(f64::NAN) * 100.0;
        // Writing into a String has no failure.
        let _ = writeln!(
            by_ec57,
            "{class}: sensitivity {:.2} %, PPV {:.2} % by EC57",
            percent(found.sensitivity),
            percent(found.ppv)
        );
    }
    format!(
        "## Use\n\nFor flags that a person looks at. Decision support, measured on the data below; not a certified medical device.\n\
         Not for paced patients: none were in training. Q is never called. Fusion beats (F) and supraventricular beats (S)\n\
         are few and from few patients; most S beats of the training were made from normal ones (see Training).\n\n\
         ## Inputs\n\nOf one lead or two, and of as much context as there is (up to 150 s on both sides): numbers about the rhythm near by\n({})\n\
         about the beat's shape beside the patient's dominant beat\n({})\nand about the rhythm further around\n({}).\n\n\
         ## Data\n\n{data}\
         ## Metrics\n\n{EVALUATION}. The table counts every other call as false; by EC57 a fusion beat that is called\n\
         ventricular is no false call.\n\n```text\n{confusion}\n{by_ec57}```\n\n\
         ## Training\n\nA forest each for S, V and F against the rest, and a threshold for each at which PPV and sensitivity stand in the ratio below\n\
         on the patients of the other folds. Then beats of one context that look alike are drawn together: each beat's sum (less the threshold)\n\
         by `alike_share` towards the mean of those within `alike_within` of its shape (Gaussian weights), up to 200 beats on each side. Beside each recording one that was made of it is learned from, in which normal beats of a regular rhythm were\n\
         moved forward in time (single, in runs, as bigeminy) and count as S, and sections whose rate drifts, or whose intervals\n\
         vary as in atrial fibrillation, and count as N. Nothing made is measured on. Where recordings in fibrillation are listed,\n\
         the forests for S learn from the beats that are detected in them as well, all as not S.\n\n\
         Seed {}, {} trees in a forest, {} members; thresholds by member (S, V, F) {:.2?}. Settings:\n\n\
         ```text\n{:#?}\n```\n\nAgain:\n\n```\n{}\n```\n",
        RHYTHM_NAMES.join("; "),
        SHAPE_NAMES.join("; "),
        SURROUNDING_NAMES.join("; "),
        settings.seed,
        settings.growth.trees,
        settings.folds,
        trained.thresholds,
        settings.named(),
        settings.command,
    )
}
