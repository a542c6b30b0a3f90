//! What a training leaves behind: manifest, weights and card.

use super::{Trained, WeightsFile};
use crate::manifest::{BEAT_TASK, InputSpec, Manifest, Metrics, Source, TrainingData, TrainingRun};
use crate::{BeatClass, RR_NAMES, SEGMENT_SAMPLES};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "weights.safetensors";

/// What a training cannot know about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// What the model is called.
    pub id: String,
    /// Counts up with every training that is put to work.
    pub version: u32,
    /// Today, `YYYY-MM-DD`.
    pub date: String,
    /// Name of the data.
    pub data: String,
    /// How its authors want to be cited.
    pub citation: String,
    /// Its licence.
    pub licence: String,
    /// The command that trains it again.
    pub command: String,
}

/// Why a model was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The manifest cannot be written as TOML.
    #[error("the manifest cannot be written as TOML: {0}")]
    Manifest(#[from] toml::ser::Error),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Trained {
    /// The model's manifest.
    pub fn manifest(&self, about: &About) -> Manifest {
        let evaluation = format!(
            "{} folds by patient; each beat asked of a network that was not trained on its patient; \
             annotated R peaks, 30 s windows",
            self.settings.folds
        );
        Manifest {
            id: about.id.clone(),
            version: about.version,
            task: BEAT_TASK.into(),
            classes: BeatClass::ALL.to_vec(),
            date: about.date.clone(),
            source: Source::ecg(),
            inputs: InputSpec::of_beats(),
            weights: WeightsFile {
                file: WEIGHTS.into(),
                sha256: hex::encode(Sha256::digest(&self.weights)),
            },
            data: TrainingData {
                name: about.data.clone(),
                citation: about.citation.clone(),
                licence: about.licence.clone(),
                records: self.records.clone(),
                left_out: self.left_out.clone(),
                same_patient: self.settings.same_patient.clone(),
                beats: BeatClass::ALL.map(|class| (class, self.held_out.class(class).beats)).into(),
            },
            training: TrainingRun {
                seed: self.settings.seed,
                epochs: self.settings.epochs,
                batch: self.settings.batch,
                learning_rate: self.settings.learning_rate,
                folds: self.settings.folds,
            },
            metrics: Metrics::new(evaluation, self.held_out),
        }
    }

    /// Writes `manifest.toml`, `weights.safetensors` and `CARD.md` into a folder, which is made if it is
    /// not there. The manifest comes last, so that a folder with one is whole.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path, about: &About) -> Result<Manifest, WriteError> {
        let manifest = self.manifest(about);
        let text = manifest.to_toml()?;
        let file = |name: &str| folder.join(name);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(file(WEIGHTS), &self.weights))
            .and_then(|()| std::fs::write(file("CARD.md"), self.card(&manifest, about)))
            .and_then(|()| std::fs::write(file("manifest.toml"), text))
            .map_err(|source| WriteError::File { path: folder.into(), source })?;
        Ok(manifest)
    }

    fn card(&self, manifest: &Manifest, about: &About) -> String {
        let settings = &self.settings;
        let data = &manifest.data;
        let groups: Vec<String> = data.same_patient.iter().map(|group| group.join(" = ")).collect();
        let listed = |names: &[String]| match names {
            [] => "none".to_string(),
            names => names.join(", "),
        };
        let mut card = String::new();
        // Writing into a String has no failure.
        let _ = write!(
            card,
            "# Model card: {id} version {version}\n\n\
             Classifies each heart beat of a single-lead ECG (lead II) into the AAMI classes N, S, V, F, Q.\n\
             Trained {date}. Weights SHA-256 `{hash}`.\n\n\
             ## Use\n\n\
             For flags that a person looks at. Decision support, measured on the data below; not a certified\n\
             medical device. Not for paced patients: none were in training. Class Q is nearly empty without them, so\n\
             the model hardly ever gives it. Fusion beats (F) are few and from few patients.\n\
             Probabilities are not calibrated: rare classes weigh more in training than in life.\n\n\
             ## Inputs\n\n\
             From one window (30 s) of samples in mV and its R peaks: {samples} samples at 250 Hz around the peak and their\n\
             difference from the window's median beat, both in heights of the median beat; and {features} numbers about the\n\
             rhythm ({names}).\n\n\
             ## Data\n\n\
             {data_name}. Licence: {licence}.\n\
             {citation}\n\n\
             - recordings: {records}\n\
             - left out because the patient is paced: {left_out}\n\
             - recordings of one patient, kept together: {groups}\n\n\
             ## Metrics\n\n\
             {evaluation}. The shipped weights were trained on all recordings and have no\n\
             metrics of their own. A patient's share in these numbers is that of the beats: a few patients have most of the S beats.\n\n\
             ```text\n{table}\n```\n\n\
             ## Training\n\n\
             Seed {seed}, {epochs} epochs of {batch} beats a step, AdamW at {rate}. Full settings:\n\n\
             ```text\n{settings:#?}\n```\n\n\
             Again:\n\n\
             ```\n{command}\n```\n",
            id = manifest.id,
            version = manifest.version,
            date = manifest.date,
            hash = manifest.weights.sha256,
            samples = SEGMENT_SAMPLES,
            features = RR_NAMES.len(),
            names = RR_NAMES.join("; "),
            data_name = data.name,
            licence = data.licence,
            citation = data.citation,
            records = listed(&data.records),
            left_out = listed(&data.left_out),
            groups = listed(&groups),
            evaluation = manifest.metrics.evaluation,
            table = self.held_out,
            seed = settings.seed,
            epochs = settings.epochs,
            batch = settings.batch,
            rate = settings.learning_rate,
            command = about.command,
        );
        card
    }
}
