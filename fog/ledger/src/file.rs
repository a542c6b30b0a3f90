//! Opening a fog's or a ledger server's database to read its log, while that is not running.

use crate::fsck::rows::guarded;
use redb::{DatabaseError, ReadOnlyDatabase, StorageError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Why a database file is not opened. It was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A process has it open.
    #[error(
        "{path} is in use: the program that writes it (haar-fog, haar-ledger) is running. Stop it, or work on a copy of the file taken while it \
         was stopped",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// The process that wrote it did not stop cleanly.
    #[error(
        "{path} was not closed cleanly and needs the recovery that its program (haar-fog, haar-ledger) does when it \
         starts. Start that and stop it with SIGTERM, then try again",
        path = .0.display()
    )]
    NotClosed(PathBuf),
    /// No such file.
    #[error("{path}: there is no such file; the log is in the data directory of its program", path = .0.display())]
    Missing(PathBuf),
    /// The file is no database, or its structure is damaged.
    #[error(
        "{path} is no redb database or is damaged: {cause}. Restore it from a backup or the disk's \
         mirror",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the database said.
        cause: String,
    },
    /// The system or the database refused.
    #[error("{path}: {error}", path = .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        error: DatabaseError,
    },
}

/// Opens a database that no process is using, for reading only.
///
/// # Errors
/// If it is in use, was not closed cleanly, is missing or damaged. A panic of redb on a damaged file
/// is caught and is [`FileError::Damaged`].
pub fn open_read_only(path: &Path) -> Result<ReadOnlyDatabase, FileError> {
    let owned = || path.to_owned();
    let error = match guarded(|| ReadOnlyDatabase::open(path)) {
        Ok(Ok(db)) => return Ok(db),
        Ok(Err(error)) => error,
        Err(cause) => return Err(FileError::Damaged { path: owned(), cause }),
    };
    Err(match error {
        DatabaseError::DatabaseAlreadyOpen => FileError::InUse(owned()),
        DatabaseError::RepairAborted => FileError::NotClosed(owned()),
        DatabaseError::Storage(StorageError::Io(io)) if io.kind() == ErrorKind::NotFound => {
            FileError::Missing(owned())
        }
        DatabaseError::Storage(StorageError::Io(io)) if io.kind() == ErrorKind::InvalidData => {
            FileError::Damaged { path: owned(), cause: io.to_string() }
        }
        DatabaseError::Storage(StorageError::Corrupted(cause)) => {
            FileError::Damaged { path: owned(), cause }
        }
        error => FileError::Database { path: owned(), error },
    })
}
