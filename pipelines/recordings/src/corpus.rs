//! The files of a data set, from a folder or from the archives in it.
//!
//! Public data sets come as a folder of many small files or as one archive of them. [`Corpus::open`] takes
//! either: every file under a folder, and every file in the `.tar.zst` archives that lie in it, in order of their
//! paths, so that the same data gives the same order. A single file that is packed as `NAME.csv.zst` counts as the file
//! `NAME.csv`.
//!
//! # Limits
//! [`MAX_FILE_BYTES`] a file, [`MAX_FILES`] files, [`MAX_DEPTH`] folders deep. Everything that is asked for is in memory at once:
//! these are data sets for training and evaluation, not the live path.
//!
//! # Trust
//! Archives are outside data: nothing is unpacked to disk, so a path in one can do no harm.

use ruzstd::decoding::StreamingDecoder;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest file that is taken.
pub const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// The most files in one data set.
pub const MAX_FILES: usize = 200_000;
/// How many folders deep files are looked for.
pub const MAX_DEPTH: usize = 8;

/// One file of a data set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Its path in the data set, with `/` between folders.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl File {
    /// The last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Its content's name.
    pub fn case(&self) -> CaseId {
        CaseId::of(&self.bytes)
    }
}

/// Names a patient's file by what is in it: the first eight bytes of its SHA-256. A model's lineage is made of
/// these, so whether a file was trained on does not depend on what it is called.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CaseId(pub u64);

impl CaseId {
    /// Of a file's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        Self(digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }
}

/// The files of a data set, by path.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    files: BTreeMap<String, Vec<u8>>,
}

/// Why a data set is not readable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// A folder or file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An archive or packed file is damaged.
    #[error("{path} is not a readable .zst archive or file ({reason}); fetch it again")]
    Archive {
        /// Which.
        path: PathBuf,
        /// What the decoder says.
        reason: String,
    },
    /// Over [`MAX_FILE_BYTES`].
    #[error("{path} has more than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// Over [`MAX_FILES`].
    #[error("more than {MAX_FILES} files; name a smaller folder")]
    TooMany,
    /// Nothing that was asked for.
    #[error("no file in {path} is {wanted}; give the folder of the data set, or of its .tar.zst")]
    Empty {
        /// Where.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
}

impl Corpus {
    /// The files under `folder`, and in the `.tar.zst` archives under it, for which `take` says yes to the path;
    /// of a `.csv.zst` the path is asked, and kept, without the `.zst`.
    /// `wanted` says in words what these are, for the error when there are none. A path that is
    /// both in the folder and in an archive is taken from the folder.
    ///
    /// # Errors
    /// If something is not readable or over a limit, or there is no such file.
    pub fn open(
        folder: &Path,
        wanted: &'static str,
        take: impl Fn(&str) -> bool,
    ) -> Result<Self, CorpusError> {
        let mut corpus = Self::default();
        let mut archives = Vec::new();
        if folder.is_file() {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            match packed_csv(&name) {
                Some(name) => corpus.insert(name.to_owned(), unpacked(folder)?)?,
                None => archives.push(folder.to_path_buf()),
            }
        } else {
            corpus.walk(folder, "", 0, &take, &mut archives)?;
        }
        archives.sort();
        for archive in archives {
            corpus.unpack(&archive, &take)?;
        }
        if corpus.files.is_empty() {
            return Err(CorpusError::Empty { path: folder.into(), wanted });
        }
        Ok(corpus)
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The bytes of the file at `path`.
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// Paths and bytes, in order of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    fn walk(
        &mut self,
        folder: &Path,
        prefix: &str,
        depth: usize,
        take: &impl Fn(&str) -> bool,
        archives: &mut Vec<PathBuf>,
    ) -> Result<(), CorpusError> {
        let error = |source| CorpusError::Read { path: folder.into(), source };
        let mut entries = std::fs::read_dir(folder)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(error)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let within = format!("{prefix}{name}");
            if path.is_dir() {
                if depth + 1 < MAX_DEPTH {
                    self.walk(&path, &format!("{within}/"), depth + 1, take, archives)?;
                }
            } else if name.ends_with(".tar.zst") {
                archives.push(path);
            } else if let Some(within) = packed_csv(&within) {
                if take(within) && !self.files.contains_key(within) {
                    self.insert(within.to_owned(), unpacked(&path)?)?;
                }
            } else if take(&within) {
                let file = std::fs::File::open(&path)
                    .map_err(|source| CorpusError::Read { path: path.clone(), source })?;
                let bytes = read(file, &path)?;
                self.insert(within, bytes)?;
            }
        }
        Ok(())
    }

    fn unpack(&mut self, path: &Path, take: &impl Fn(&str) -> bool) -> Result<(), CorpusError> {
        let damaged = |reason: String| CorpusError::Archive { path: path.into(), reason };
        let file = std::fs::File::open(path)
            .map_err(|source| CorpusError::Read { path: path.into(), source })?;
        let decoder = StreamingDecoder::new(std::io::BufReader::new(file))
            .map_err(|error| damaged(error.to_string()))?;
        let mut archive = tar::Archive::new(decoder);
        let entries = archive.entries().map_err(|error| damaged(error.to_string()))?;
        for entry in entries {
            let entry = entry.map_err(|error| damaged(error.to_string()))?;
            let within = entry
                .path()
                .map_err(|error| damaged(error.to_string()))?
                .to_string_lossy()
                .into_owned();
            if entry.header().entry_type().is_file() && take(&within) {
                let bytes = read(entry, path)?;
                if !self.files.contains_key(&within) {
                    self.insert(within, bytes)?;
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: String, bytes: Vec<u8>) -> Result<(), CorpusError> {
        if self.files.len() >= MAX_FILES {
            return Err(CorpusError::TooMany);
        }
        self.files.insert(path, bytes);
        Ok(())
    }
}

impl IntoIterator for Corpus {
    type Item = File;
    type IntoIter = std::iter::Map<
        std::collections::btree_map::IntoIter<String, Vec<u8>>,
        fn((String, Vec<u8>)) -> File,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.files.into_iter().map(|(path, bytes)| File { path, bytes })
    }
}

/// The path without `.zst`, of a single packed table.
fn packed_csv(path: &str) -> Option<&str> {
    path.strip_suffix(".zst").filter(|path| path.ends_with(".csv"))
}

fn unpacked(path: &Path) -> Result<Vec<u8>, CorpusError> {
    let file = std::fs::File::open(path)
        .map_err(|source| CorpusError::Read { path: path.into(), source })?;
    let decoder = StreamingDecoder::new(std::io::BufReader::new(file))
        .map_err(|error| CorpusError::Archive { path: path.into(), reason: error.to_string() })?;
    read(decoder, path)
}

fn read(file: impl Read, path: &Path) -> Result<Vec<u8>, CorpusError> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| CorpusError::Read { path: path.into(), source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(CorpusError::TooLarge { path: path.into() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_text(path: &str) -> bool {
        path.ends_with(".txt")
    }

    /// An archive made by `ruzstd`'s own encoder, raw blocks.
    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, path, *bytes).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        ruzstd::encoding::compress_to_vec(
            tar.as_slice(),
            ruzstd::encoding::CompressionLevel::Fastest,
        )
    }

    #[test]
    fn folder_and_archive_give_the_same_files() {
        let plain = tempfile::tempdir().unwrap();
        std::fs::create_dir(plain.path().join("set")).unwrap();
        std::fs::write(plain.path().join("set/b.txt"), "two").unwrap();
        std::fs::write(plain.path().join("set/a.txt"), "one").unwrap();
        std::fs::write(plain.path().join("set/c.bin"), "no").unwrap();
        let packed = tempfile::tempdir().unwrap();
        let bytes = archive(&[("set/a.txt", b"one"), ("set/c.bin", b"no"), ("set/b.txt", b"two")]);
        std::fs::write(packed.path().join("x.tar.zst"), bytes).unwrap();
        let from = |folder: &Path| -> Vec<File> {
            Corpus::open(folder, "a text", is_text).unwrap().into_iter().collect()
        };
        assert_eq!(from(plain.path()), from(packed.path()));
        let names: Vec<String> =
            from(packed.path()).iter().map(|file| file.name().into()).collect();
        assert_eq!(names, ["a.txt", "b.txt"]);
        // printf one | sha256sum
        assert_eq!(from(plain.path())[0].case(), CaseId(0x7692_c3ad_3540_bb80));
    }

    #[test]
    fn a_packed_table_is_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = ruzstd::encoding::compress_to_vec(
            b"a,b\n1,2\n".as_slice(),
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        std::fs::write(folder.path().join("x.csv.zst"), bytes).unwrap();
        for path in [folder.path().to_path_buf(), folder.path().join("x.csv.zst")] {
            let corpus = Corpus::open(&path, "a table", |path| path == "x.csv").unwrap();
            assert_eq!(corpus.get("x.csv"), Some(b"a,b\n1,2\n".as_slice()));
        }
    }

    #[test]
    fn what_is_missing_or_damaged_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = Corpus::open(folder.path(), "a text", is_text).unwrap_err();
        assert!(error.to_string().contains("is a text"), "{error}");
        std::fs::write(folder.path().join("x.tar.zst"), "not zstd").unwrap();
        let error = Corpus::open(folder.path(), "a text", is_text).unwrap_err();
        assert!(matches!(error, CorpusError::Archive { .. }), "{error}");
    }
}
