//! What a model is on disk, whatever its task: manifest, weights of its members, lineage.
//!
//! # A committee
//! A model has members: networks of one shape, each trained without the patients of one fold. In use their outputs
//! are averaged, and their spread says how sure they are of each other. When a model is measured on a patient that
//! it was trained on, only the one member is asked that has not seen this patient ([`Lineage`]); so a measurement
//! is honest on old and on new data, with the weights that are shipped, and needs no training.
//!
//! # Format
//! A folder with `manifest.toml` ([`Manifest`]), the safetensors file that it names, and a card for people.
//! In the safetensors file: member `k`'s tensor `x` as `m{k}.x`; and the lineage, `lineage.case` (i64) and
//! `lineage.fold` (u8), of one length.
//!
//! # Trust
//! The manifest holds the SHA-256 of the weights; a model's name in digests ([`ModelRef`]) that of the manifest.
//! One hash settles both. Loading refuses what does not fit together; who is allowed to put a hash to work is
//! not decided here.

mod draft;
mod lineage;
mod manifest;

pub use draft::{Draft, WriteError};
pub use lineage::Lineage;
pub use manifest::{
    InputSpec, MAX_MANIFEST_BYTES, Manifest, ManifestError, Metrics, OutputSpec, TrainingData,
    TrainingRun, WeightsFile,
};

use candle_core::{Device, Tensor};
use haar_schema::ModelRef;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest file of weights.
pub const MAX_WEIGHTS_BYTES: usize = 16 * 1024 * 1024;

/// The most members of a committee.
pub const MAX_MEMBERS: u32 = 16;

/// A model that has been read and whose parts belong together.
#[derive(Clone, Debug)]
pub struct Package {
    manifest: Manifest,
    reference: ModelRef,
    members: Vec<BTreeMap<String, Tensor>>,
    lineage: Lineage,
}

/// Why a model is not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than it may be.
    #[error("{path} has more than {limit} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// [`MAX_MANIFEST_BYTES`] or [`MAX_WEIGHTS_BYTES`].
        limit: usize,
    },
    /// The manifest does not fit.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The weights are not those that the manifest speaks of.
    #[error(
        "the weights' SHA-256 is {found}, the manifest says {expected}: they do not belong together, fetch both again"
    )]
    Hash {
        /// What the file has.
        found: String,
        /// What the manifest says.
        expected: String,
    },
    /// The weights are not safetensors.
    #[error("the weights are not readable safetensors: {0}")]
    Weights(#[source] candle_core::Error),
    /// A tensor is missing, left over, or of another shape or type than the network's.
    #[error(
        "the weights' tensor `{0}` does not fit this build's network: train anew with `haar train`"
    )]
    Tensor(String),
    /// A model for something else.
    #[error("the model's task is `{found}`; this place wants a model for `{wanted}`")]
    Task {
        /// What the manifest says.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// An input of another name, unit, shape or rate than this build computes.
    #[error(
        "the model's inputs are {found:?}; this build computes {wanted:?}: use the weights of this version or train anew"
    )]
    Inputs {
        /// What the manifest says.
        found: Vec<InputSpec>,
        /// What the build computes.
        wanted: Vec<InputSpec>,
    },
    /// Outputs of another name, unit or order.
    #[error("the model's outputs are {found:?}; this build reads {wanted:?}")]
    Outputs {
        /// What the manifest says.
        found: Vec<OutputSpec>,
        /// What the build reads.
        wanted: Vec<OutputSpec>,
    },
}

impl Package {
    /// The model in a folder with `manifest.toml` and the weights it names.
    ///
    /// # Errors
    /// If a file is missing or too large, or hash or members do not fit.
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join("manifest.toml");
        let text = String::from_utf8(read(&path, MAX_MANIFEST_BYTES)?).map_err(|error| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
            LoadError::Read { path, source }
        })?;
        let manifest = Manifest::parse(&text)?;
        let weights = read(&folder.join(&manifest.weights.file), MAX_WEIGHTS_BYTES)?;
        Self::from_parts(&text, &weights)
    }

    /// The model of a manifest's text and its weights.
    ///
    /// # Errors
    /// If hash or members do not fit.
    pub fn from_parts(text: &str, weights: &[u8]) -> Result<Self, LoadError> {
        crate::on_the_calling_thread();
        let manifest = Manifest::parse(text)?;
        let found = hex::encode(Sha256::digest(weights));
        if found != manifest.weights.sha256 {
            return Err(LoadError::Hash { found, expected: manifest.weights.sha256 });
        }
        let tensors = candle_core::safetensors::load_buffer(weights, &Device::Cpu)
            .map_err(LoadError::Weights)?;
        let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
        let lineage = Lineage::take_from(&mut tensors).map_err(LoadError::Tensor)?;
        let mut members = vec![BTreeMap::new(); manifest.members as usize];
        for (name, tensor) in tensors {
            let member = name.strip_prefix('m').and_then(|rest| rest.split_once('.')).and_then(
                |(number, own)| Some((members.get_mut(number.parse::<usize>().ok()?)?, own)),
            );
            match member {
                Some((member, own)) => member.insert(own.to_owned(), tensor),
                None => return Err(LoadError::Tensor(name)),
            };
        }
        let reference = manifest.reference(text);
        Ok(Self { manifest, reference, members, lineage })
    }

    /// Refuses a model of another task, or whose inputs or outputs differ in name, unit, shape or order.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(
        &self,
        task: &str,
        inputs: &[InputSpec],
        outputs: &[OutputSpec],
    ) -> Result<(), LoadError> {
        let manifest = &self.manifest;
        if manifest.task != task {
            let (found, wanted) = (manifest.task.clone(), task.into());
            return Err(LoadError::Task { found, wanted });
        }
        if manifest.inputs != inputs {
            let (found, wanted) = (manifest.inputs.clone(), inputs.into());
            return Err(LoadError::Inputs { found, wanted });
        }
        if manifest.outputs != outputs {
            let (found, wanted) = (manifest.outputs.clone(), outputs.into());
            return Err(LoadError::Outputs { found, wanted });
        }
        Ok(())
    }

    /// What it says of itself.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its name in digests.
    pub const fn reference(&self) -> &ModelRef {
        &self.reference
    }

    /// Whom it was trained on.
    pub const fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// How many members it has, at least one.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The tensors of one member by name; none if there is no such member.
    pub fn member(&self, number: usize) -> BTreeMap<String, Tensor> {
        self.members.get(number).cloned().unwrap_or_default()
    }
}

/// Takes the parameters that a network has, each of its shape and f32.
///
/// # Errors
/// [`LoadError::Tensor`] with the first that is missing, left over, or of another shape or type.
pub fn take_parameters(
    mut tensors: BTreeMap<String, Tensor>,
    shapes: &[(&'static str, &[usize])],
) -> Result<BTreeMap<&'static str, Tensor>, LoadError> {
    let mut parameters = BTreeMap::new();
    for (name, shape) in shapes {
        let fits =
            |tensor: &Tensor| tensor.dims() == *shape && tensor.dtype() == candle_core::DType::F32;
        match tensors.remove(*name).filter(fits) {
            Some(tensor) => parameters.insert(*name, tensor),
            None => return Err(LoadError::Tensor((*name).into())),
        };
    }
    match tensors.pop_first() {
        Some((name, _)) => Err(LoadError::Tensor(name)),
        None => Ok(parameters),
    }
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, LoadError> {
    let error = |source| LoadError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(error)?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() > limit {
        return Err(LoadError::TooLarge { path: path.into(), limit });
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
