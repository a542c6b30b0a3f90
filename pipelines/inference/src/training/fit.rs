//! One training of one network.
//!
//! # Format
//! Where a training stands is kept in a safetensors file: the optimiser's tensors, and under `state` (u8) the
//! JSON of stage, epoch, steps and fingerprint. Written to a neighbour and renamed, after every epoch. Not
//! synced: losing it costs time only. It is our own file and belongs to one data set and one set of settings,
//! held by a fingerprint of both.

use super::{AdamW, random};
use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The largest file that keeps where a training stands.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
const STATE: &str = "state";

/// The length of a gradient above which it is shortened to this: one odd batch does not undo an epoch.
const GRADIENT_NORM_MAX: f64 = 5.0;

/// How one network is trained.
#[derive(Clone, Copy, Debug)]
pub struct Run<'r> {
    /// What the random numbers grow from.
    pub seed: u64,
    /// Which of the `stages` this is (a member's number); part of the random numbers.
    pub stage: usize,
    /// How many networks are trained in all, for progress.
    pub stages: usize,
    /// Passes over the data.
    pub epochs: u32,
    /// The highest learning rate; it falls along half a cosine to nothing.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Of data and settings: what is resumed must have the same.
    pub fingerprint: &'r str,
    /// Where to keep how far the training has come; the caller deletes it at the end.
    pub resume: Option<&'r Path>,
}

/// What a training tells after each epoch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FitProgress {
    /// Which network, from 0.
    pub stage: usize,
    /// Of how many.
    pub stages: usize,
    /// Epochs done.
    pub epoch: u32,
    /// Of how many.
    pub epochs: u32,
    /// Mean loss over the epoch's steps.
    pub loss: f64,
}

/// Why a network was not trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The loss is no number any more.
    #[error("the training diverged in epoch {epoch}; lower the learning rate")]
    Diverged {
        /// When.
        epoch: u32,
    },
    /// candle failed.
    #[error("the network could not be computed: {0}")]
    Network(#[from] candle_core::Error),
    /// The file to resume from cannot be read or written.
    #[error("cannot read or write {path}: {source}")]
    File {
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

#[derive(Serialize, Deserialize)]
struct State {
    fingerprint: String,
    stage: usize,
    epoch: u32,
    steps: u32,
}

/// Trains a network from its `initial` parameters: AdamW, the learning rate falling along half a cosine.
///
/// `plan` gives the batches of an epoch as numbers of cases, in order; `loss` computes the loss of one batch, a scalar, from
/// the tracked parameters. Both get the epoch's random numbers. With [`Run::resume`], what was finished or begun
/// before is not trained again: each stage is kept beside that path, as `<path>.<stage>`, until [`forget`].
///
/// # Errors
/// If the training diverges, candle fails, or the file to resume from does not belong to it.
pub fn fit(
    run: &Run,
    initial: BTreeMap<String, Tensor>,
    mut plan: impl FnMut(u32, &mut ChaCha8Rng) -> Vec<Vec<usize>>,
    mut loss: impl FnMut(
        &BTreeMap<String, Tensor>,
        &[usize],
        &mut ChaCha8Rng,
    ) -> candle_core::Result<Tensor>,
    progress: &mut dyn FnMut(FitProgress),
) -> Result<BTreeMap<String, Tensor>, FitError> {
    crate::on_the_calling_thread();
    let mut optimizer = AdamW::new(initial, run.weight_decay)?;
    let done = match run.resume {
        Some(path) => resume(path, run, &mut optimizer)?,
        None => 0,
    };
    for epoch in done..run.epochs {
        let mut rng = random(run.seed, run.stage, epoch + 1);
        let batches = plan(epoch, &mut rng);
        let mut mean = 0.0;
        for (at, batch) in batches.iter().enumerate() {
            let share =
                (f64::from(epoch) + at as f64 / batches.len() as f64) / f64::from(run.epochs);
            let rate = run.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
            let error = loss(&optimizer.tracked(), batch, &mut rng)?;
            optimizer.step_clipped(&error.backward()?, rate, GRADIENT_NORM_MAX)?;
            mean += f64::from(error.to_scalar::<f32>()?) / batches.len() as f64;
        }
        if !mean.is_finite() {
            return Err(FitError::Diverged { epoch: epoch + 1 });
        }
        if let Some(path) = run.resume {
            save(&of_stage(path, run.stage), run, epoch + 1, &optimizer)?;
        }
        let (stage, stages, epochs) = (run.stage, run.stages, run.epochs);
        progress(FitProgress { stage, stages, epoch: epoch + 1, epochs, loss: mean });
    }
    Ok(optimizer.parameters()?)
}

/// Deletes what trainings of `stages` networks kept at `path`.
///
/// # Errors
/// If a file is there and cannot be deleted.
pub fn forget(path: &Path, stages: usize) -> Result<(), FitError> {
    for stage in 0..stages {
        let path = of_stage(path, stage);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FitError::File { path, source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Each stage has a file of its own, so that finished ones need no training when a later one is resumed.
fn of_stage(path: &Path, stage: usize) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{stage}"));
    path.with_file_name(name)
}

fn save(path: &Path, run: &Run, epoch: u32, optimizer: &AdamW) -> Result<(), FitError> {
    let file = |source| FitError::File { path: path.into(), source };
    let (mut tensors, steps) = optimizer.state();
    let state = State { fingerprint: run.fingerprint.into(), stage: run.stage, epoch, steps };
    let json = serde_json::to_vec(&state).map_err(|error| file(error.into()))?;
    let length = json.len();
    tensors.insert(STATE.into(), Tensor::from_vec(json, length, &Device::Cpu)?);
    let bytes = safetensors::serialize(&tensors, None).map_err(candle_core::Error::from)?;
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).map_err(file)?;
    std::fs::rename(&beside, path).map_err(file)
}

/// Epochs that an earlier run has done in this stage, after which the optimiser stands where it stood.
fn resume(path: &Path, run: &Run, optimizer: &mut AdamW) -> Result<u32, FitError> {
    let path = of_stage(path, run.stage);
    let other = || FitError::Resume { path: path.clone() };
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Ok(file) if file.len() > MAX_BYTES => return Err(other()),
        _ => {}
    }
    let bytes =
        std::fs::read(&path).map_err(|source| FitError::File { path: path.clone(), source })?;
    let tensors =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|_| other())?;
    let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let json = tensors.remove(STATE).and_then(|state| state.to_vec1::<u8>().ok());
    let state: Option<State> = json.and_then(|json| serde_json::from_slice(&json).ok());
    let ours = state
        .filter(|state| state.fingerprint == run.fingerprint && state.stage == run.stage)
        .filter(|state| state.epoch <= run.epochs)
        .ok_or_else(other)?;
    if !optimizer.restore(&tensors, ours.steps)? {
        return Err(other());
    }
    Ok(ours.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    /// y = 2 x₀ - x₁ from 64 random points.
    fn train(
        run: &Run,
        stop_after: Option<u32>,
    ) -> (Result<BTreeMap<String, Tensor>, FitError>, Vec<f64>) {
        let points: Vec<[f32; 2]> = {
            let mut rng = random(9, 0, 0);
            (0..64).map(|_| [rng.random_range(-1.0..1.0), rng.random_range(-1.0..1.0)]).collect()
        };
        let mut losses = Vec::new();
        let start = [(
            "w".to_owned(),
            Tensor::zeros((2, 1), candle_core::DType::F32, &Device::Cpu).unwrap(),
        )];
        let trained = fit(
            run,
            start.into(),
            |epoch, _| match stop_after {
                // Broken off: an empty plan gives a loss of zero and no step, so stop with an odd batch.
                Some(last) if epoch >= last => vec![vec![usize::MAX]],
                _ => (0..8).map(|batch| (batch * 8..batch * 8 + 8).collect()).collect(),
            },
            |parameters, batch, rng| {
                if batch == [usize::MAX] {
                    candle_core::bail!("broken off");
                }
                let jitter: f32 = rng.random_range(-0.01..0.01);
                let x: Vec<f32> =
                    batch.iter().flat_map(|at| points[*at].map(|x| x + jitter)).collect();
                let y: Vec<f32> =
                    batch.iter().map(|at| 2.0 * points[*at][0] - points[*at][1]).collect();
                let x = Tensor::from_vec(x, (batch.len(), 2), &Device::Cpu)?;
                let y = Tensor::from_vec(y, (batch.len(), 1), &Device::Cpu)?;
                (x.matmul(&parameters["w"])? - y)?.sqr()?.mean_all()
            },
            &mut |progress| losses.push(progress.loss),
        );
        (trained, losses)
    }

    fn run(resume: Option<&Path>) -> Run<'_> {
        Run {
            seed: 1,
            stage: 2,
            stages: 3,
            epochs: 30,
            learning_rate: 0.1,
            weight_decay: 0.0,
            fingerprint: "points",
            resume,
        }
    }

    #[test]
    fn it_learns_and_goes_on_to_the_same_weights() {
        let weights = |trained: Result<BTreeMap<String, Tensor>, FitError>| {
            trained.unwrap()["w"].flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (whole, losses) = train(&run(None), None);
        let whole = weights(whole);
        assert!((whole[0] - 2.0).abs() < 0.05 && (whole[1] + 1.0).abs() < 0.05, "{whole:?}");
        assert!(losses[29] < losses[0] / 100.0);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resume");
        let (broken, losses) = train(&run(Some(&path)), Some(11));
        assert!(matches!(broken, Err(FitError::Network(_))));
        assert_eq!(losses.len(), 11);
        let (resumed, losses) = train(&run(Some(&path)), None);
        assert_eq!(losses.len(), 19);
        assert_eq!(weights(resumed), whole);
        // Done is done: a third run trains nothing.
        let (again, losses) = train(&run(Some(&path)), None);
        assert!(losses.is_empty());
        assert_eq!(weights(again), whole);

        let other = Run { fingerprint: "other points", ..run(Some(&path)) };
        assert!(matches!(train(&other, None).0, Err(FitError::Resume { .. })));
        forget(&path, 3).unwrap();
        assert_eq!(train(&run(Some(&path)), None).1.len(), 30);
    }

    #[test]
    fn folds_are_even_and_grow_from_the_seed() {
        let dealt = super::super::folds(23, 5, 1);
        for fold in 0..5 {
            let size = dealt.iter().filter(|of| **of == fold).count();
            assert!((4..=5).contains(&size), "{size}");
        }
        assert_eq!(dealt, super::super::folds(23, 5, 1));
        assert_ne!(dealt, super::super::folds(23, 5, 2));
    }
}
