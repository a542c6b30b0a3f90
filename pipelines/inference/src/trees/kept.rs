//! Forests that a training has finished, kept for the case that it is broken off.
//!
//! # Format
//! Safetensors of the forest's tensors and `fingerprint` (u8), which says what data and settings it was grown with.
//! Written to a neighbour and renamed, so that a file is whole or not there. A file of another fingerprint is refused.

use super::Forest;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FINGERPRINT: &str = "fingerprint";

/// Why a forest was not kept or found again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// A file cannot be read, written or deleted.
    #[error("cannot read or write {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Tensors cannot be made.
    #[error("the forest cannot be kept: {0}")]
    Tensor(#[from] candle_core::Error),
    /// Another training's.
    #[error(
        "{path} is of a training with other data or settings, or is damaged: delete it to begin anew"
    )]
    Other {
        /// Which.
        path: PathBuf,
    },
}

/// Where the forest with this number is kept, beside `path`: `<path>.<number>`.
pub(crate) fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{number}"));
    path.with_file_name(name)
}

/// Writes a forest.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn keep(path: &Path, forest: &Forest, fingerprint: &[u8]) -> Result<(), KeepError> {
    let file = |source| KeepError::File { path: path.into(), source };
    let mut tensors = forest.tensors()?;
    tensors.insert(FINGERPRINT.into(), Tensor::new(fingerprint, &Device::Cpu)?);
    let bytes = safetensors::serialize(&tensors, None).map_err(candle_core::Error::from)?;
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).map_err(file)?;
    std::fs::rename(&beside, path).map_err(file)
}

/// The forest at a path, if there is one.
///
/// # Errors
/// If the file cannot be read, or is another training's.
pub(crate) fn restore(
    path: &Path,
    fingerprint: &[u8],
    features: usize,
) -> Result<Option<Forest>, KeepError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(KeepError::File { path: path.into(), source }),
    };
    let other = || KeepError::Other { path: path.into() };
    let tensors =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|_| other())?;
    let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let found = tensors.remove(FINGERPRINT).and_then(|tensor| tensor.to_vec1::<u8>().ok());
    if found.as_deref() != Some(fingerprint) {
        return Err(other());
    }
    Forest::take_from(&mut tensors, features).map(Some).map_err(|_| other())
}

/// Deletes a file, if there is one.
///
/// # Errors
/// If it is there and cannot be deleted.
pub(crate) fn forget(path: &Path) -> Result<(), KeepError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(KeepError::File { path: path.into(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::forest::tests::forest;
    use super::*;

    #[test]
    fn a_kept_forest_comes_back_to_its_own_training_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resume.0");
        assert!(matches!(restore(&path, &[1], 2), Ok(None)));
        keep(&path, &forest(), &[1]).unwrap();
        assert_eq!(restore(&path, &[1], 2).unwrap(), Some(forest()));
        assert!(matches!(restore(&path, &[2], 2), Err(KeepError::Other { .. })));
        std::fs::write(&path, b"damaged").unwrap();
        assert!(matches!(restore(&path, &[1], 2), Err(KeepError::Other { .. })));
        forget(&path).unwrap();
        forget(&path).unwrap();
        assert!(!path.exists());
    }
}
