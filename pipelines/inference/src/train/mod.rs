//! Training the classifier of beats, and measuring it on patients that it has not seen.
//!
//! The patients are shuffled by the seed and dealt into folds. For each fold a network is trained on all
//! other patients and asked about every beat of the fold's; the counts of all folds together are the
//! reported metrics. The shipped network is then trained on all patients with the same settings: it has no metrics
//! of its own, and those of the folds are, if anything, a little worse than it.
//!
//! Loss: cross-entropy with a weight by class. Optimiser: AdamW, learning rate falling along half a cosine.
//! The number of epochs is fixed beforehand and nothing is chosen on a fold's patients, so they stay unseen.

mod dataset;
mod epoch;

mod output;
mod resume;

pub use dataset::{LabelledBeat, labelled_beats};
pub use output::{About, WriteError};

use crate::manifest::WeightsFile;
use crate::model::{BATCH, batch, on_the_calling_thread};
use crate::network::{Network, PARAMETERS, log_softmax};
use crate::training::AdamW;
use crate::{BeatClass, BeatInput, Confusion};
use candle_core::{D, Device, Tensor};
use dataset::{Dataset, Patient};
use haar_recordings::wfdb::{AnnotationError, FindError, RecordError};
use rand::RngExt;
use rand::seq::SliceRandom;
use resume::{Earlier, State};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The most epochs.
pub const MAX_EPOCHS: u32 = 1_000;
/// The most beats in a step.
pub const MAX_BATCH: usize = 4_096;
/// The most samples (of 4 ms) by which training moves a beat.
pub const MAX_SHIFT_SAMPLES: usize = 25;

/// The shuffling of patients has its own random numbers, apart from every stage's.
const DEAL: usize = usize::MAX;

/// How to train. What is random grows from `seed` alone.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TrainSettings {
    /// What the random numbers grow from.
    pub seed: u64,
    /// Passes over the data, 1 to [`MAX_EPOCHS`].
    pub epochs: u32,
    /// Beats in a step, 1 to [`MAX_BATCH`].
    pub batch: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Share of the convolutions' features that a step leaves out, 0 to less than 1.
    pub dropout: f32,
    /// Folds of patients for the metrics, at least 2.
    pub folds: usize,
    /// Recordings that are of one patient; none of a group's is in two folds.
    pub same_patient: Vec<Vec<String>>,
    /// The most normal beats of one patient in one epoch.
    pub normals_per_patient: usize,
    /// Weight of a beat in the loss by class.
    pub class_weights: [f32; 5],
    /// A beat is moved by up to this many samples of 4 ms, at most [`MAX_SHIFT_SAMPLES`]: a detector does not
    /// find the R peak where a person marked it.
    pub shift_samples_max: usize,
    /// Standard deviation of the gain around 1.
    pub gain: f32,
    /// Largest standard deviation of white noise, in heights of the median beat.
    pub noise: f32,
    /// Standard deviation of the amplitude of baseline wander, in heights of the median beat.
    pub wander: f32,
    /// Standard deviation of noise on the numbers about the rhythm.
    pub rr_noise: f32,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 4,
            batch: 64,
            learning_rate: 1e-3,
            weight_decay: 0.05,
            dropout: 0.3,
            folds: 5,
            same_patient: Vec::new(),
            normals_per_patient: 500,
            class_weights: [1.0, 2.0, 1.0, 1.0, 1.0],
            shift_samples_max: 4,
            gain: 0.1,
            noise: 0.03,
            wander: 0.05,
            rr_noise: 0.05,
        }
    }
}

/// What a training tells while it runs.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// Recordings were read.
    Loaded {
        /// So many.
        records: usize,
        /// Of so many.
        of: usize,
    },
    /// An epoch is done.
    Epoch {
        /// The fold from 0, or the number of folds for the final training.
        stage: usize,
        /// Folds, and the final training.
        stages: usize,
        /// Epochs done in this stage.
        epoch: u32,
        /// Epochs in each stage.
        epochs: u32,
        /// Mean loss over the epoch's steps.
        loss: f64,
    },
}

/// A trained model.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The weights as safetensors.
    pub weights: Vec<u8>,
    /// Every beat of every fold's patients, asked of a network that had not seen them.
    pub held_out: Confusion,
    /// Recordings used, in order.
    pub records: Vec<String>,
    /// Recordings left out because the patient is paced.
    pub left_out: Vec<String>,
    /// How it was trained.
    pub settings: TrainSettings,
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
    /// A recording is not readable.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its annotations are not readable.
    #[error(transparent)]
    Annotations(#[from] AnnotationError),
    /// A recording without a usable signal.
    #[error("{record} has no signal with a sampling rate")]
    NoLead {
        /// Its header.
        record: PathBuf,
    },
    /// Another unit.
    #[error("the lead of {record} is in `{unit}`; training wants `mV`")]
    Unit {
        /// Its header.
        record: PathBuf,
        /// The unit.
        unit: String,
    },
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
    /// The loss is no number any more.
    #[error("the training diverged in epoch {epoch}; lower the learning rate")]
    Diverged {
        /// When.
        epoch: u32,
    },
    /// candle failed.
    #[error("the network could not be computed: {0}")]
    Network(#[from] candle_core::Error),
    /// The file to resume from cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file to resume from cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file to resume from is another training's, or damaged.
    #[error(
        "{path} is of a training with other data or settings, or is damaged: delete it to begin anew"
    )]
    Resume {
        /// Which.
        path: PathBuf,
    },
}

/// Trains on all WFDB recordings in `folder`, and measures on patients held out.
///
/// With `resume`, where the training stands is kept in that file after every epoch, and a training with
/// the same data and settings goes on from there to the same result; the file is left for the caller to delete.
///
/// # Errors
/// If recordings are unreadable or too few, settings are out of bounds, or the training diverges.
pub fn beats(
    folder: &Path,
    settings: &TrainSettings,
    resume: Option<&Path>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Trained, TrainError> {
    settings.check()?;
    let data = dataset::load(
        folder,
        &settings.same_patient,
        settings.shift_samples_max,
        |records, of| progress(Progress::Loaded { records, of }),
    )?;
    run(data, settings, resume, progress)
}

impl TrainSettings {
    fn check(&self) -> Result<(), TrainError> {
        let rules = [
            ((1..=MAX_EPOCHS).contains(&self.epochs), "epochs must be 1 to 1000"),
            ((1..=MAX_BATCH).contains(&self.batch), "the batch must be 1 to 4096 beats"),
            (self.folds >= 2, "there must be at least 2 folds"),
            ((0.0..1.0).contains(&self.dropout), "the dropout must be 0 to less than 1"),
            (
                self.learning_rate > 0.0 && self.learning_rate < 1.0,
                "the learning rate must be more than 0 and less than 1",
            ),
            (
                self.shift_samples_max <= MAX_SHIFT_SAMPLES,
                "beats can be moved by at most 25 samples",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, message)) => Err(TrainError::Setting(message)),
            None => Ok(()),
        }
    }
}

/// All folds, then the final training.
fn run(
    data: Dataset,
    settings: &TrainSettings,
    resume: Option<&Path>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Trained, TrainError> {
    on_the_calling_thread();
    let (patients, folds) = (data.patients.len(), settings.folds);
    if patients < folds {
        return Err(TrainError::TooFew { patients, folds });
    }
    let mut order: Vec<usize> = (0..patients).collect();
    order.shuffle(&mut epoch::random(settings.seed, DEAL, 0));
    let fold_of = |place: usize| place % folds;

    let fingerprint = fingerprint(&data, settings);
    let mut earlier = match resume {
        Some(path) => resume::load(path, &fingerprint)?,
        None => None,
    };
    let (mut stage, mut held_out) = earlier
        .as_ref()
        .map_or((0, Confusion::default()), |(state, _)| (state.stage, state.confusion));
    loop {
        let (unseen, seen): (Vec<usize>, Vec<usize>) =
            (0..patients).partition(|place| stage < folds && fold_of(*place) == stage);
        let at = |places: &[usize]| -> Vec<&Patient> {
            places.iter().map(|place| &data.patients[order[*place]]).collect()
        };
        let start = State {
            fingerprint: fingerprint.clone(),
            stage,
            epoch: 0,
            steps: 0,
            confusion: held_out,
        };
        let optimizer = train(&at(&seen), settings, start, earlier.take(), resume, progress)?;
        if stage == folds {
            let weights = safetensors::serialize(&optimizer.parameters()?, None)
                .map_err(|error| TrainError::Network(error.into()))?;
            let mut records: Vec<String> =
                data.patients.iter().flat_map(|patient| patient.records.clone()).collect();
            records.sort();
            let settings = settings.clone();
            return Ok(Trained { weights, held_out, records, left_out: data.left_out, settings });
        }
        let network = Network::new(optimizer.parameters()?).map_err(shape)?;
        for patient in at(&unseen) {
            ask(&network, patient, &mut held_out)?;
        }
        stage += 1;
    }
}

/// One stage: from random weights, or from where `earlier` stood in this stage.
fn train(
    patients: &[&Patient],
    settings: &TrainSettings,
    mut state: State,
    earlier: Option<Earlier>,
    resume: Option<&Path>,
    progress: &mut dyn FnMut(Progress),
) -> Result<AdamW, TrainError> {
    let mut optimizer = AdamW::new(initial(settings.seed, state.stage)?, settings.weight_decay)?;
    if let Some((at, tensors)) = earlier {
        if !optimizer.restore(&tensors, at.steps)? {
            let path = resume.unwrap_or(Path::new("")).into();
            return Err(TrainError::Resume { path });
        }
        state = at;
    }
    for epoch in state.epoch..settings.epochs {
        let mut rng = epoch::random(settings.seed, state.stage, epoch + 1);
        let chosen = epoch::choose(patients, settings, &mut rng);
        let steps = chosen.len().div_ceil(settings.batch);
        let mut loss = 0.0;
        for (at, chosen) in chosen.chunks(settings.batch).enumerate() {
            let done = (f64::from(epoch) + at as f64 / steps as f64) / f64::from(settings.epochs);
            let rate = settings.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
            let step = epoch::step(patients, chosen, settings, &mut rng)?;
            let network = Network::new(optimizer.tracked()).map_err(shape)?;
            let scores = network.forward(&step.waveform, &step.rr, Some(&step.mask))?;
            let error = (log_softmax(&scores)? * &step.weights)?.sum_all()?.neg()?;
            optimizer.step(&error.backward()?, rate)?;
            loss += f64::from(error.to_scalar::<f32>()?) / steps as f64;
        }
        if !loss.is_finite() {
            return Err(TrainError::Diverged { epoch: epoch + 1 });
        }
        state.epoch = epoch + 1;
        if let Some(path) = resume {
            resume::save(path, &state, &optimizer)?;
        }
        progress(Progress::Epoch {
            stage: state.stage,
            stages: settings.folds + 1,
            epoch: state.epoch,
            epochs: settings.epochs,
            loss,
        });
    }
    Ok(optimizer)
}

/// Random weights after He et al., "Delving deep into rectifiers", ICCV 2015 (uniform, by inputs); no bias.
fn initial(seed: u64, stage: usize) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let mut rng = epoch::random(seed, stage, 0);
    PARAMETERS
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product();
            let inputs: usize = shape[1..].iter().product();
            let limit = if shape.len() > 1 { (6.0 / inputs as f32).sqrt() } else { 0.0 };
            let values: Vec<f32> =
                (0..count).map(|_| limit * (2.0 * rng.random::<f32>() - 1.0)).collect();
            Ok((name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu)?))
        })
        .collect()
}

/// Asks about every beat of a patient, as [`crate::BeatModel::classify`] would.
fn ask(network: &Network, patient: &Patient, confusion: &mut Confusion) -> Result<(), TrainError> {
    for beats in patient.beats.chunks(BATCH) {
        let inputs: Vec<BeatInput> = beats
            .iter()
            .map(|(_, segment)| BeatInput::from_parts(segment.waveform(0.0), segment.rr))
            .collect();
        let (waveform, rr) = batch(&inputs, BATCH)?;
        let called = network.forward(&waveform, &rr, None)?.argmax(D::Minus1)?.to_vec1::<u32>()?;
        for ((class, _), called) in beats.iter().zip(called) {
            let called = BeatClass::ALL.get(called as usize).copied().unwrap_or(BeatClass::Q);
            confusion.add(*class, called);
        }
    }
    Ok(())
}

/// Settings and what was read, in one hash.
fn fingerprint(data: &Dataset, settings: &TrainSettings) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{settings:?}"));
    for patient in &data.patients {
        hash.update(format!("{:?}", patient.records));
        for (class, segment) in &patient.beats {
            hash.update([class.index() as u8]);
            hash.update(segment.rr[0].to_le_bytes());
        }
    }
    hex::encode(hash.finalize())
}

/// The optimiser holds just the network's parameters, so this cannot happen; but it is no reason to panic.
fn shape(tensor: String) -> TrainError {
    TrainError::Network(candle_core::Error::Msg(format!("tensor `{tensor}` does not fit")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::segments;
    use crate::{BeatModel, SEGMENT_RATE};

    /// A patient with a ventricular beat (early, broad) after every seventh.
    fn patient(name: &str, period: usize) -> Patient {
        let mut mv = vec![0.0_f32; 250 * 60];
        let mut beats = Vec::new();
        let mut at = period;
        while at + 2 * period < mv.len() {
            let ventricular = beats.len() % 7 == 6;
            let peak = if ventricular { at - period / 3 } else { at };
            let width = if ventricular { 12.0 } else { 4.0 };
            for (sample, value) in mv.iter_mut().enumerate() {
                let away = (sample as f32 - peak as f32) / width;
                *value += (-away * away).exp();
            }
            beats.push((peak, if ventricular { BeatClass::V } else { BeatClass::N }));
            at += period;
        }
        let peaks: Vec<usize> = beats.iter().map(|(peak, _)| *peak).collect();
        let cuts = segments(&mv, SEGMENT_RATE, &peaks, TrainSettings::default().shift_samples_max);
        let beats = beats.iter().zip(cuts).filter_map(|((_, class), cut)| Some((*class, cut?)));
        Patient { records: vec![name.into()], beats: beats.collect() }
    }

    fn data() -> Dataset {
        let patients = [("a", 190), ("b", 200), ("c", 220), ("d", 180)];
        let patients = patients.map(|(name, period)| patient(name, period)).into();
        Dataset { patients, left_out: vec!["paced".into()] }
    }

    fn settings() -> TrainSettings {
        TrainSettings {
            epochs: 6,
            folds: 2,
            batch: 16,
            learning_rate: 2e-3,
            ..TrainSettings::default()
        }
    }

    fn about() -> About {
        About {
            id: "ecg-beats".into(),
            version: 1,
            date: "2026-11-22".into(),
            data: "made up".into(),
            citation: "nobody".into(),
            licence: "none".into(),
            command: "cargo test".into(),
        }
    }

    #[test]
    fn it_learns_and_what_it_writes_is_loaded() {
        let trained = run(data(), &settings(), None, &mut |_| {}).unwrap();
        let v = trained.held_out.class(BeatClass::V);
        assert!(v.beats > 30 && v.f1 > Some(0.95), "{}", trained.held_out);
        let folder = tempfile::tempdir().unwrap();
        let manifest = trained.write(folder.path(), &about()).unwrap();
        let model = BeatModel::load(folder.path()).unwrap();
        assert_eq!(*model.manifest(), manifest);
        let beat = &data().patients[0].beats[20];
        let input = BeatInput::from_parts(beat.1.waveform(0.0), beat.1.rr);
        assert_eq!(model.classify(&[input]).unwrap()[0].class, beat.0);
        let card = std::fs::read_to_string(folder.path().join("CARD.md")).unwrap();
        assert!(card.contains("left out because the patient is paced: paced"), "{card}");
    }

    #[test]
    fn broken_off_and_resumed_it_ends_the_same() {
        let settings = TrainSettings { epochs: 2, ..settings() };
        let whole = run(data(), &settings, None, &mut |_| {}).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resume.safetensors");
        for stop in [(0, 1), (1, 2), (2, 1)] {
            // The file as it lies there when the process ends in this epoch.
            let kept = folder.path().join("kept");
            run(data(), &settings, Some(&path), &mut |progress| {
                if let Progress::Epoch { stage, epoch, .. } = progress
                    && (stage, epoch) == stop
                {
                    std::fs::copy(&path, &kept).unwrap();
                }
            })
            .unwrap();
            std::fs::rename(&kept, &path).unwrap();
            let resumed = run(data(), &settings, Some(&path), &mut |_| {}).unwrap();
            assert!(resumed.weights == whole.weights, "{stop:?}");
            assert_eq!(resumed.held_out, whole.held_out);
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::write(&path, b"something else").unwrap();
        let error = run(data(), &settings, Some(&path), &mut |_| {}).unwrap_err();
        assert!(matches!(error, TrainError::Resume { .. }), "{error}");
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        let nowhere = Path::new("/nowhere");
        for settings in [
            TrainSettings { epochs: 0, ..settings() },
            TrainSettings { folds: 1, ..settings() },
            TrainSettings { learning_rate: f64::NAN, ..settings() },
            TrainSettings { shift_samples_max: 26, ..settings() },
        ] {
            let error = beats(nowhere, &settings, None, &mut |_| {}).unwrap_err();
            assert!(matches!(error, TrainError::Setting(_)), "{error}");
        }
        let error = beats(nowhere, &settings(), None, &mut |_| {}).unwrap_err();
        assert!(matches!(error, TrainError::Find(_)), "{error}");
        let few = TrainSettings { folds: 5, ..settings() };
        assert!(matches!(run(data(), &few, None, &mut |_| {}), Err(TrainError::TooFew { .. })));
    }
}
