//! Which models there are, and which of them are at work.
//!
//! # Format
//! A folder:
//! - `models/<id>/<sha256 of the manifest>/`: a model ([`crate::package`]), added once and never changed.
//! - `statements/<number, six digits>.note`: what was decided about models, each signed ([`Statement`]) and bound to
//!   the one before by hash, so that none can be taken out, put in or reordered unseen ([`History`]).
//!
//! # Trust
//! Files in the folder are trusted for nothing: models by the hash that a statement names, statements by the signature of a
//! key that the reader was given. Whoever can write to the folder can take away the newest statements; the fog
//! puts each statement it follows into its log, where it stays.
//!
//! # Limits
//! [`MAX_MODELS`] models, [`MAX_STATEMENTS`] statements of [`MAX_NOTE_BYTES`].

mod history;
mod statement;

pub use history::{Decision, Deployment, History, HistoryError, Refused};
pub use statement::{Action, MAX_NOTE_BYTES, MAX_REASON_CHARS, Statement, StatementError};

use crate::package::{LoadError, MAX_MANIFEST_BYTES, Manifest, Package};
use haar_schema::ModelRef;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The most models in a registry.
pub const MAX_MODELS: usize = 10_000;
/// The most statements in a registry.
pub const MAX_STATEMENTS: u64 = 100_000;

/// A folder of models and of what was decided about them.
#[derive(Clone, Debug)]
pub struct Registry {
    root: PathBuf,
}

/// A model in a registry, as its manifest describes it. The weights are not read.
#[derive(Clone, PartialEq, Debug)]
pub struct Listed {
    /// Its name in digests.
    pub reference: ModelRef,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// Why a registry was not read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A file or folder cannot be read or written.
    #[error("cannot read or write {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A model does not load.
    #[error("{path}: {source}")]
    Load {
        /// Its folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<LoadError>,
    },
    /// What lies at a model's place is another one.
    #[error("{path} holds a model whose manifest has another hash; fetch it again")]
    Changed {
        /// Its folder.
        path: PathBuf,
    },
    /// Not in the registry.
    #[error("the registry has no model {id} with the hash {sha256}; add it with `haar model add`", id = .0.id, sha256 = .0.sha256)]
    Unknown(ModelRef),
    /// A statement is missing, altered, or not signed by a key that is trusted.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Somebody else added a statement in the meantime.
    #[error("{path} is there already: somebody else decided in the meantime; look and try again")]
    Raced {
        /// The statement's file.
        path: PathBuf,
    },
    /// More models or statements than a registry holds.
    #[error("the registry has more than {0} entries")]
    TooMany(u64),
    /// A file is larger than it may be.
    #[error("{path} has more than {limit} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its limit.
        limit: u64,
    },
}

impl Registry {
    /// The registry in a folder, which may be empty or not there yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Copies the model in `folder` into the registry, after checking that it is whole. One that is there already
    /// stays as it is.
    ///
    /// # Errors
    /// If the model does not load, or a file cannot be written.
    pub fn add(&self, folder: &Path) -> Result<ModelRef, RegistryError> {
        let load = |source| RegistryError::Load { path: folder.into(), source: Box::new(source) };
        let package = Package::load(folder).map_err(load)?;
        let reference = package.reference().clone();
        let place = self.folder(&reference);
        if place.join("manifest.toml").is_file() {
            return Ok(reference);
        }
        let file = |source| RegistryError::File { path: place.clone(), source };
        std::fs::create_dir_all(&place).map_err(file)?;
        for name in [package.manifest().weights.file.as_str(), "CARD.md"] {
            let from = folder.join(name);
            if name != "CARD.md" || from.is_file() {
                std::fs::copy(&from, place.join(name)).map_err(file)?;
            }
        }
        // The manifest comes last and at once, so that a folder with one is whole.
        let (beside, manifest) = (place.join("manifest.new"), place.join("manifest.toml"));
        std::fs::copy(folder.join("manifest.toml"), &beside)
            .and_then(|_| std::fs::rename(&beside, &manifest))
            .map_err(file)?;
        Ok(reference)
    }

    /// The models in it, by id, then version, then hash.
    ///
    /// # Errors
    /// If a folder or manifest cannot be read.
    pub fn models(&self) -> Result<Vec<Listed>, RegistryError> {
        let mut listed = Vec::new();
        for id in folders(&self.root.join("models"))? {
            for place in folders(&id)? {
                let path = place.join("manifest.toml");
                let bytes = read(&path, MAX_MANIFEST_BYTES as u64)?;
                let text = String::from_utf8_lossy(&bytes);
                let load = |source: LoadError| RegistryError::Load {
                    path: place.clone(),
                    source: Box::new(source),
                };
                let manifest = Manifest::parse(&text).map_err(|error| load(error.into()))?;
                let reference = manifest.reference(&text);
                if self.folder(&reference) != place {
                    return Err(RegistryError::Changed { path: place });
                }
                listed.push(Listed { reference, manifest });
                if listed.len() > MAX_MODELS {
                    return Err(RegistryError::TooMany(MAX_MODELS as u64));
                }
            }
        }
        listed.sort_by(|a, b| {
            let key = |listed: &Listed| (listed.manifest.version, listed.reference.sha256.clone());
            a.reference.id.cmp(&b.reference.id).then_with(|| key(a).cmp(&key(b)))
        });
        Ok(listed)
    }

    /// Loads a model and checks that it is the one that was asked for.
    ///
    /// # Errors
    /// If it is not there, damaged, or another one.
    pub fn package(&self, reference: &ModelRef) -> Result<Package, RegistryError> {
        let path = self.folder(reference);
        if !path.join("manifest.toml").is_file() {
            return Err(RegistryError::Unknown(reference.clone()));
        }
        let package = Package::load(&path).map_err(|source| RegistryError::Load {
            path: path.clone(),
            source: Box::new(source),
        })?;
        match package.reference() == reference {
            true => Ok(package),
            false => Err(RegistryError::Changed { path }),
        }
    }

    /// Where a model lies.
    pub fn folder(&self, reference: &ModelRef) -> PathBuf {
        self.root.join("models").join(&reference.id).join(&reference.sha256)
    }

    /// What was decided, checked against `keys` (verifier keys as of C2SP signed-note).
    ///
    /// # Errors
    /// If a statement cannot be read, does not follow from the one before, or is not signed by one of the keys.
    pub fn history(&self, keys: &[String]) -> Result<History, RegistryError> {
        self.history_after(0, keys)
    }

    /// The same, of which the caller has checked the first `checked` before, and compares them with what it has kept
    /// ([`History::open_after`]).
    ///
    /// # Errors
    /// As of [`Self::history`].
    pub fn history_after(&self, checked: usize, keys: &[String]) -> Result<History, RegistryError> {
        let mut notes = Vec::new();
        for number in 1..=MAX_STATEMENTS + 1 {
            let path = self.statement(number);
            if !path.is_file() {
                // One that is missing in the middle must not hide those behind it.
                let newest = self.newest_statement()?;
                if newest > notes.len() as u64 {
                    return Err(HistoryError::Missing { number }.into());
                }
                return Ok(History::open_after(checked, &notes, keys)?);
            }
            notes.push(read(&path, MAX_NOTE_BYTES as u64)?);
        }
        Err(RegistryError::TooMany(MAX_STATEMENTS))
    }

    /// Adds a signed statement, which must be the next of `history`. On success it is on disk.
    ///
    /// # Errors
    /// If it does not follow, is not signed by one of the history's keys, or another one took its number.
    pub fn append(&self, history: &mut History, note: &[u8]) -> Result<(), RegistryError> {
        // The caller's history follows only what is on disk.
        let mut next = history.clone();
        next.push(note)?;
        let folder = self.root.join("statements");
        let path = self.statement(next.decisions().len() as u64);
        let file = |source| RegistryError::File { path: path.clone(), source };
        std::fs::create_dir_all(&folder).map_err(file)?;
        let mut options = std::fs::OpenOptions::new();
        let mut opened = match options.write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(RegistryError::Raced { path });
            }
            opened => opened.map_err(file)?,
        };
        opened.write_all(note).and_then(|()| opened.sync_all()).map_err(file)?;
        // The file's name is on disk with its folder.
        std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(file)?;
        *history = next;
        Ok(())
    }

    fn statement(&self, number: u64) -> PathBuf {
        self.root.join("statements").join(format!("{number:06}.note"))
    }

    /// The highest number among the statements' files; 0 without one. Nothing of them is checked: it says whether there may be something new.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn newest_statement(&self) -> Result<u64, RegistryError> {
        let path = self.root.join("statements");
        let names = match std::fs::read_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            entries => entries.and_then(Iterator::collect::<Result<Vec<_>, _>>),
        }
        .map_err(|source| RegistryError::File { path, source })?;
        let number = |name: &std::fs::DirEntry| {
            name.file_name().to_str()?.strip_suffix(".note")?.parse::<u64>().ok()
        };
        Ok(names.iter().filter_map(number).max().unwrap_or(0))
    }
}

/// The folders in a folder, in order; none if it is not there.
fn folders(path: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<Result<Vec<_>, _>>),
    };
    let entries = entries.map_err(|source| RegistryError::File { path: path.into(), source })?;
    let mut folders: Vec<PathBuf> =
        entries.iter().map(std::fs::DirEntry::path).filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let file = |source| RegistryError::File { path: path.into(), source };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).map_err(file)?;
    opened.take(limit + 1).read_to_end(&mut bytes).map_err(file)?;
    match bytes.len() as u64 > limit {
        true => Err(RegistryError::TooLarge { path: path.into(), limit }),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests;
