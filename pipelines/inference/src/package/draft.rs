//! A trained model on its way to disk.

use super::{Lineage, Manifest};
use candle_core::Tensor;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "weights.safetensors";

/// A trained model that has no folder yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What it says of itself; the name and hash of the weights are filled in when they are written.
    pub manifest: Manifest,
    /// The tensors of each member.
    pub members: Vec<BTreeMap<String, Tensor>>,
    /// Whom it was trained on.
    pub lineage: Lineage,
    /// What people should know: the text of `CARD.md` after its head, which names model and hash.
    pub card: String,
}

/// Why a model was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The manifest cannot be written as TOML.
    #[error("the manifest cannot be written as TOML: {0}")]
    Manifest(#[from] toml::ser::Error),
    /// The tensors cannot be written.
    #[error("the weights cannot be written: {0}")]
    Weights(#[from] candle_core::Error),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Draft {
    /// The manifest's text and the weights, which belong together.
    ///
    /// # Errors
    /// If either cannot be encoded.
    pub fn encode(&self) -> Result<(String, Vec<u8>), WriteError> {
        let mut tensors: BTreeMap<String, Tensor> = self.lineage.tensors()?.into();
        for (number, member) in self.members.iter().enumerate() {
            let named = |(name, tensor): (&String, &Tensor)| {
                Ok((format!("m{number}.{name}"), tensor.contiguous()?))
            };
            let own: candle_core::Result<Vec<_>> = member.iter().map(named).collect();
            tensors.extend(own?);
        }
        let weights = safetensors::serialize(&tensors, None).map_err(candle_core::Error::from)?;
        let mut manifest = self.manifest.clone();
        manifest.members = self.members.len() as u32;
        manifest.weights.file = WEIGHTS.into();
        manifest.weights.sha256 = hex::encode(Sha256::digest(&weights));
        Ok((manifest.to_toml()?, weights))
    }

    /// Writes `weights.safetensors`, `CARD.md` and `manifest.toml` into a folder, which is made if it is not there. The
    /// manifest comes last, so that a folder with one is whole.
    ///
    /// # Errors
    /// If something cannot be encoded or written.
    pub fn write(&self, folder: &Path) -> Result<(), WriteError> {
        let (manifest, weights) = self.encode()?;
        let file = |name: &str| folder.join(name);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(file(WEIGHTS), &weights))
            .and_then(|()| std::fs::write(file("CARD.md"), self.card(&weights)))
            .and_then(|()| std::fs::write(file("manifest.toml"), manifest))
            .map_err(|source| WriteError::File { path: folder.into(), source })
    }

    fn card(&self, weights: &[u8]) -> String {
        let Manifest { id, version, title, date, .. } = &self.manifest;
        format!(
            "# Model card: {id} version {version}\n\n{title}. Trained {date}. Weights SHA-256 `{}`.\n\n{}\n",
            hex::encode(Sha256::digest(weights)),
            self.card.trim(),
        )
    }
}
