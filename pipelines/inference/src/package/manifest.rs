//! What a model says of itself, in TOML.
//!
//! # Format
//! One document of at most [`MAX_MANIFEST_BYTES`]; keys that are not in [`Manifest`] are refused. The
//! SHA-256 of its text, byte for byte, is the model's name in digests, so a manifest is never rewritten
//! in place: what changes is another model.

use super::MAX_MEMBERS;
use crate::statistics::ClassMetrics;
use haar_schema::{ModelRef, SampleRate};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The longest manifest.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;

/// A model's manifest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the model is called, such as `ecg-beats`.
    pub id: String,
    /// Counts up with every training that is put to work.
    pub version: u32,
    /// What it does, such as `ecg-beat-class`; the place that runs it wants its own task.
    pub task: String,
    /// The same for people, in a few words.
    pub title: String,
    /// The day it was trained, `YYYY-MM-DD`.
    pub date: String,
    /// Networks in the committee, 1 to [`MAX_MEMBERS`].
    pub members: u32,
    /// What goes into a network, in order.
    pub inputs: Vec<InputSpec>,
    /// What comes out, in order.
    pub outputs: Vec<OutputSpec>,
    /// The file of weights.
    pub weights: WeightsFile,
    /// What it was trained on.
    pub data: Vec<TrainingData>,
    /// How it was trained.
    pub training: TrainingRun,
    /// How well it did on patients that it had not seen.
    pub metrics: Metrics,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_millihertz: Option<SampleRate>,
}

/// One output of a network: a class's probability, or a number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Its name.
    pub name: String,
    /// Its UCUM unit; `1` for a probability.
    pub unit: String,
}

impl OutputSpec {
    /// The probabilities of classes with these names.
    pub fn probabilities<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<Self> {
        names.into_iter().map(|name| Self { name: name.into(), unit: "1".into() }).collect()
    }
}

/// The weights.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFile {
    /// Name of the safetensors file beside the manifest.
    pub file: String,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Data that a model was trained on. Which patients, file by file, is in the weights: [`super::Lineage`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// Its name.
    pub name: String,
    /// How its authors want to be cited.
    pub citation: String,
    /// Its licence.
    pub licence: String,
    /// Recordings or patients that were used.
    pub cases: u64,
    /// What was left out or changed, and why.
    pub note: String,
}

/// How a model was trained.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRun {
    /// What its random numbers grew from.
    pub seed: u64,
    /// Passes over the data, for each member.
    pub epochs: u32,
    /// Folds of patients; each member was trained without one.
    pub folds: u32,
    /// The command that trains it again.
    pub command: String,
    /// Whatever else was set, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

/// How well a model did on patients that the asked member had not seen.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// How this was measured.
    pub evaluation: String,
    /// By name, such as `accuracy` or `auroc`.
    pub values: BTreeMap<String, f64>,
    /// By class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, ClassMetrics>,
    /// True class (row) by predicted class (column), in the order of the outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Vec<Vec<u64>>>,
}

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Over [`MAX_MANIFEST_BYTES`].
    #[error("a manifest has at most {MAX_MANIFEST_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// Not TOML, or not these keys.
    #[error("not a model manifest: {0}")]
    Syntax(#[from] toml::de::Error),
    /// No members, or too many.
    #[error("a model has 1 to {MAX_MEMBERS} members, this one says {0}")]
    Members(u32),
    /// The weights are not a plain file name.
    #[error("`{0}` is not the name of a file beside the manifest")]
    WeightsName(String),
    /// The id cannot be a folder's name.
    #[error("`{0}` is no id: use 1 to 64 of a-z, 0-9 and -")]
    Id(String),
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong(text.len()));
        }
        let manifest: Self = toml::from_str(text)?;
        if !(1..=MAX_MEMBERS).contains(&manifest.members) {
            return Err(ManifestError::Members(manifest.members));
        }
        let id = &manifest.id;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
            return Err(ManifestError::Id(manifest.id));
        }
        let name = &manifest.weights.file;
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
            return Err(ManifestError::WeightsName(manifest.weights.file));
        }
        Ok(manifest)
    }

    /// As TOML.
    ///
    /// # Errors
    /// If a number is not finite.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The model's name in digests, of the manifest's `text`.
    pub fn reference(&self, text: &str) -> ModelRef {
        ModelRef { id: self.id.clone(), sha256: hex::encode(Sha256::digest(text)) }
    }
}
