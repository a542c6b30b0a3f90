//! Where a training stands, so that it can go on after it was broken off.
//!
//! # Format
//! A safetensors file: the optimiser's tensors, and under `state` (u8) the JSON of [`State`]. Written
//! to a neighbour and renamed, after every epoch. Not synced: losing it costs time only.
//!
//! # Trust
//! It is our own file. It belongs to one data set and one set of settings, held by a fingerprint of both.

use super::TrainError;
use crate::Confusion;
use crate::training::AdamW;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The largest such file.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
const STATE: &str = "state";

/// How far a training has come.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Of data and settings.
    pub(super) fingerprint: String,
    /// The fold that is being trained, or their number for the final training.
    pub(super) stage: usize,
    /// Epochs done in it.
    pub(super) epoch: u32,
    /// Steps done in it.
    pub(super) steps: u32,
    /// Of the folds before.
    pub(super) confusion: Confusion,
}

/// An earlier training: how far it came, and its optimiser's tensors.
pub(super) type Earlier = (State, BTreeMap<String, Tensor>);

/// Keeps where the training stands.
pub(super) fn save(path: &Path, state: &State, optimizer: &AdamW) -> Result<(), TrainError> {
    let (mut tensors, steps) = optimizer.state();
    let state = State { steps, ..state.clone() };
    let json = serde_json::to_vec(&state).map_err(|error| write(path, error.into()))?;
    let length = json.len();
    tensors.insert(STATE.into(), Tensor::from_vec(json, length, &Device::Cpu)?);
    let bytes = safetensors::serialize(&tensors, None)
        .map_err(|error| TrainError::Network(error.into()))?;
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).map_err(|error| write(path, error))?;
    std::fs::rename(&beside, path).map_err(|error| write(path, error))
}

/// Where an earlier training stood; `None` if there is no file.
pub(super) fn load(path: &Path, fingerprint: &str) -> Result<Option<Earlier>, TrainError> {
    let other = || TrainError::Resume { path: path.into() };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(file) if file.len() > MAX_BYTES => return Err(other()),
        _ => {}
    }
    let bytes =
        std::fs::read(path).map_err(|source| TrainError::Read { path: path.into(), source })?;
    let tensors =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|_| other())?;
    let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let json = tensors.remove(STATE).and_then(|state| state.to_vec1::<u8>().ok());
    let state: Option<State> = json.and_then(|json| serde_json::from_slice(&json).ok());
    match state {
        Some(state) if state.fingerprint == fingerprint => Ok(Some((state, tensors))),
        _ => Err(other()),
    }
}

fn write(path: &Path, source: std::io::Error) -> TrainError {
    TrainError::Write { path: path.into(), source }
}
