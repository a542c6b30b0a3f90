//! What a model is, in TOML.
//!
//! # Format
//! One document of at most [`MAX_MANIFEST_BYTES`]; keys that are not in [`Manifest`] are refused. The
//! SHA-256 of its text, byte for byte, is the model's name in digests, so a manifest is never rewritten
//! in place: what changes is another model.
//!
//! # Trust
//! A manifest vouches for its weights by their hash. Nothing vouches for the manifest here; whoever
//! puts a model to work checks the manifest's hash against the one that was agreed.

use crate::{
    BeatClass, CHANNELS, ClassMetrics, Confusion, RR_FEATURES, SEGMENT_RATE, SEGMENT_SAMPLES,
};
use haar_schema::{ModelRef, SampleRate, SignalId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The longest manifest.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;

/// What the task of [`crate::BeatModel`] is called.
pub(crate) const BEAT_TASK: &str = "ecg-beat-class";

/// A model's manifest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the model is called, such as `ecg-beats`.
    pub id: String,
    /// Counts up with every training that is put to work.
    pub version: u32,
    /// What it does: `ecg-beat-class`.
    pub task: String,
    /// The classes, in the order of its outputs.
    pub classes: Vec<BeatClass>,
    /// The day it was trained, `YYYY-MM-DD`.
    pub date: String,
    /// The signal that its inputs are made of.
    pub source: Source,
    /// What goes into the network, in order.
    pub inputs: Vec<InputSpec>,
    /// The file of weights.
    pub weights: WeightsFile,
    /// What it was trained on.
    pub data: TrainingData,
    /// How it was trained.
    pub training: TrainingRun,
    /// How well it did on patients that it had not seen.
    pub metrics: Metrics,
}

/// The signal that inputs are made of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name in the common schema.
    pub signal: String,
    /// Its UCUM unit.
    pub unit: String,
}

/// One input of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Its name.
    pub name: String,
    /// Its UCUM unit; `1` for what has none.
    pub unit: String,
    /// Its extents, that of the batch left out.
    pub shape: Vec<usize>,
    /// Rate of its last extent, if that is time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_millihertz: Option<SampleRate>,
}

/// The weights.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFile {
    /// Name of the safetensors file beside the manifest.
    pub file: String,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Data that a model was trained on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// Its name.
    pub name: String,
    /// How its authors want to be cited.
    pub citation: String,
    /// Its licence.
    pub licence: String,
    /// The recordings that were used.
    pub records: Vec<String>,
    /// The recordings that were left out because the patient is paced.
    pub left_out: Vec<String>,
    /// Recordings that are of one patient; all others are of a patient each.
    pub same_patient: Vec<Vec<String>>,
    /// Beats used, by class.
    pub beats: BTreeMap<BeatClass, u64>,
}

/// How a model was trained.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRun {
    /// What its random numbers grew from.
    pub seed: u64,
    /// Passes over the data.
    pub epochs: u32,
    /// Beats in a step.
    pub batch: usize,
    /// AdamW's highest learning rate.
    pub learning_rate: f64,
    /// The folds that gave the metrics; the shipped weights were trained on all patients.
    pub folds: usize,
}

/// How well a model did.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// How this was measured.
    pub evaluation: String,
    /// Share of beats whose class was found.
    pub accuracy: f64,
    /// By class.
    pub classes: BTreeMap<BeatClass, ClassMetrics>,
    /// True class (row) by predicted class (column), in the order of `classes`.
    pub confusion: Confusion,
}

/// Why a text is not the manifest of a model that this build can run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Over [`MAX_MANIFEST_BYTES`].
    #[error("a manifest has at most {MAX_MANIFEST_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// Not TOML, or not these keys.
    #[error("not a model manifest: {0}")]
    Syntax(#[from] toml::de::Error),
    /// Another task's model.
    #[error("the model's task is `{0}`; this place wants a model for `{BEAT_TASK}`")]
    Task(String),
    /// Another set or order of classes.
    #[error("the model's classes are {0:?}; this build knows N, S, V, F, Q in this order")]
    Classes(Vec<BeatClass>),
    /// It was trained on another signal or in another unit than readings come in.
    #[error("the model wants `{found}` in `{unit}`; this build gives `ecg` in `mV`: convert the weights or train anew", found = .0.signal, unit = .0.unit)]
    Source(Source),
    /// An input of another name, unit, shape or rate than this build computes.
    #[error(
        "the model's inputs are {found:?}; this build computes {expected:?}: use the weights of this version or train anew with `haar train beats`"
    )]
    Inputs {
        /// What the manifest says.
        found: Vec<InputSpec>,
        /// What the build computes.
        expected: Vec<InputSpec>,
    },
    /// The weights are not a plain file name.
    #[error("`{0}` is not the name of a file beside the manifest")]
    WeightsName(String),
}

impl Manifest {
    /// Reads a manifest of a model for beats.
    ///
    /// # Errors
    /// If it is none, or this build cannot run its model: task, classes, unit, inputs.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong(text.len()));
        }
        let manifest: Self = toml::from_str(text)?;
        if manifest.task != BEAT_TASK {
            return Err(ManifestError::Task(manifest.task));
        }
        if manifest.classes != BeatClass::ALL {
            return Err(ManifestError::Classes(manifest.classes));
        }
        if manifest.source != Source::ecg() {
            return Err(ManifestError::Source(manifest.source));
        }
        let expected = InputSpec::of_beats();
        if manifest.inputs != expected {
            return Err(ManifestError::Inputs { found: manifest.inputs, expected });
        }
        let name = &manifest.weights.file;
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
            return Err(ManifestError::WeightsName(manifest.weights.file));
        }
        Ok(manifest)
    }

    /// The text that [`Manifest::parse`] reads.
    ///
    /// # Errors
    /// If a number does not fit TOML (whole numbers have 63 bits).
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// The model's name in digests: its id and the SHA-256 of the manifest's text.
    pub(crate) fn reference(&self, text: &str) -> ModelRef {
        ModelRef { id: self.id.clone(), sha256: hex::encode(Sha256::digest(text)) }
    }
}

impl Source {
    /// What readings of an ECG are in the common schema.
    pub fn ecg() -> Self {
        let signal = SignalId::ECG.definition();
        Self { signal: signal.name.into(), unit: signal.unit.into() }
    }
}

impl InputSpec {
    /// What [`crate::beat_inputs`] computes.
    pub fn of_beats() -> Vec<Self> {
        vec![
            Self {
                name: "waveform".into(),
                unit: "1".into(),
                shape: vec![CHANNELS, SEGMENT_SAMPLES],
                rate_millihertz: Some(SEGMENT_RATE),
            },
            Self {
                name: "rr".into(),
                unit: "1".into(),
                shape: vec![RR_FEATURES],
                rate_millihertz: None,
            },
        ]
    }
}

impl Metrics {
    /// From counts; `evaluation` says how they came about.
    pub fn new(evaluation: impl Into<String>, confusion: Confusion) -> Self {
        Self {
            evaluation: evaluation.into(),
            accuracy: confusion.accuracy().unwrap_or(0.0),
            classes: BeatClass::ALL.map(|class| (class, confusion.class(class))).into(),
            confusion,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn manifest(weights: &[u8]) -> Manifest {
        let mut confusion = Confusion::default();
        confusion.add(BeatClass::N, BeatClass::N);
        Manifest {
            id: "ecg-beats".into(),
            version: 1,
            task: BEAT_TASK.into(),
            classes: BeatClass::ALL.to_vec(),
            date: "2026-11-22".into(),
            source: Source::ecg(),
            inputs: InputSpec::of_beats(),
            weights: WeightsFile {
                file: "weights.safetensors".into(),
                sha256: hex::encode(Sha256::digest(weights)),
            },
            data: TrainingData {
                name: "made up".into(),
                citation: "nobody".into(),
                licence: "none".into(),
                records: vec!["a".into(), "b".into()],
                left_out: vec![],
                same_patient: vec![vec!["a".into(), "b".into()]],
                beats: [(BeatClass::N, 1)].into(),
            },
            training: TrainingRun { seed: 1, epochs: 2, batch: 3, learning_rate: 0.5, folds: 2 },
            metrics: Metrics::new("none", confusion),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = manifest(b"weights");
        let text = manifest.to_toml().unwrap();
        assert_eq!(Manifest::parse(&text).unwrap(), manifest);
        let reference = manifest.reference(&text);
        assert_eq!(reference.id, "ecg-beats");
        assert_ne!(manifest.reference(&format!("{text} ")).sha256, reference.sha256);
    }

    fn refusal(change: impl FnOnce(&mut Manifest)) -> ManifestError {
        let mut manifest = manifest(b"weights");
        change(&mut manifest);
        Manifest::parse(&manifest.to_toml().unwrap()).unwrap_err()
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(matches!(refusal(|m| m.task = "rhythm".into()), ManifestError::Task(_)));
        assert!(matches!(refusal(|m| m.classes.swap(0, 1)), ManifestError::Classes(_)));
        let unit = refusal(|m| m.source.unit = "uV".into());
        expect_test::expect!["the model wants `ecg` in `uV`; this build gives `ecg` in `mV`: convert the weights or train anew"]
            .assert_eq(&unit.to_string());
        let shape = refusal(|m| m.inputs[0].shape[1] = 200);
        assert!(matches!(shape, ManifestError::Inputs { .. }), "{shape}");
        let name = refusal(|m| m.weights.file = "../weights".into());
        assert!(matches!(name, ManifestError::WeightsName(_)));
        let text = manifest(b"weights").to_toml().unwrap();
        let unknown = Manifest::parse(&format!("surprise = 1\n{text}")).unwrap_err();
        assert!(unknown.to_string().contains("surprise"), "{unknown}");
        let long = format!("{text}#{}", "x".repeat(MAX_MANIFEST_BYTES));
        assert!(matches!(Manifest::parse(&long), Err(ManifestError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = Manifest::parse(&text);
        }
    }
}
