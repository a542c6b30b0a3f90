//! One error an operation, each saying what to do next.

use std::io;
use std::path::PathBuf;

/// Why [`crate::Spool::open`] or [`crate::Spool::recover`] did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process holds the file's lock.
    #[error(
        "the spool {path} is in use by another process; stop that one, or give this edge a folder of its own"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is a spool, but its content does not agree with its checksums.
    #[error(
        "the spool {path} is damaged ({detail}); move it away and keep it for a repair, then start again: the edge begins an empty spool with a new incarnation, and the readings in the damaged one that no fog had committed are lost with it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What redb, or the check of our own tables, found.
        detail: String,
    },
    /// The file is something else.
    #[error("{path} is not a spool; give the path of one, or of a file that is not there yet")]
    NotASpool {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer version.
    #[error(
        "the spool {path} has format {found}, this build reads {}; run the newer haar-edge, or let it drain the spool first",
        crate::FORMAT_VERSION
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
    /// The user may not read and write the file or its folder.
    #[error(
        "no permission to read and write the spool {path}; give the file and its folder to the user that runs the edge"
    )]
    Permission {
        /// The file.
        path: PathBuf,
    },
    /// No room to create or repair the file.
    #[error(
        "the disk that holds the spool {path} is full; free some space on it, then start again (nothing in the spool is lost)"
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// Anything else that the operating system says.
    #[error(
        "the spool {path} could not be opened: {source}; check that its folder is there and the disk is well"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// How a storage call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageFailure {
    /// No space left on the device, or over a quota or size limit.
    #[error("the disk is full; free some space, then recover the spool")]
    DiskFull,
    /// The file does not agree with itself.
    #[error(
        "the spool is damaged ({0}); recover it, which checks the whole file and says what to do"
    )]
    Damaged(String),
    /// Any other error of the operating system.
    #[error("{0}; check the disk, then recover the spool")]
    Io(io::Error),
    /// An earlier failure closed the storage.
    #[error("closed after an earlier storage failure; recover the spool")]
    Closed,
}

/// Whether a failed append may have been written all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Certainty {
    /// Nothing of it was written, nor ever will be.
    NotWritten,
    /// All of it is there or nothing; only [`crate::Spool::recover`] tells which.
    Unknown,
}

/// Why [`crate::Spool::append`] did not succeed. No device may be acknowledged for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Over capacity, and nothing (more) may be shed.
    #[error(
        "the spool is full: {bytes} of {capacity_bytes} bytes, {needed_bytes} more wanted; readings are refused until the fog commits some, or spool capacity is raised"
    )]
    Full {
        /// What it holds.
        bytes: u64,
        /// What it may hold.
        capacity_bytes: u64,
        /// What this append wanted to add.
        needed_bytes: u64,
    },
    /// One entry or the whole append is over a limit.
    #[error("{what} has {found}, over the limit of {limit}; split or refuse it")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The storage failed before the commit: nothing was written.
    #[error("nothing was appended: {0}")]
    NotWritten(#[source] StorageFailure),
    /// The storage failed in the commit: all was written, or nothing.
    #[error(
        "it is unknown whether the append was written: {0}; its frames may be appended again, those with an id are not taken twice"
    )]
    Unknown(#[source] StorageFailure),
}

impl AppendError {
    /// Whether something may have been written.
    ///
    /// After [`Certainty::Unknown`]: [`crate::Spool::recover`], decode the latest marks anew, and give
    /// the same frames again. Frames with an id are recognised; whether those without were written is
    /// told by `recover`'s next sequence against the one before.
    pub const fn certainty(&self) -> Certainty {
        match self {
            Self::Unknown(_) => Certainty::Unknown,
            _ => Certainty::NotWritten,
        }
    }

    /// Whether every call fails until [`crate::Spool::recover`] has succeeded.
    pub const fn needs_recover(&self) -> bool {
        matches!(self, Self::NotWritten(_) | Self::Unknown(_))
    }
}

/// Why reading did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The entries asked for are gone.
    #[error(
        "the entries before {oldest_seq} were committed by the fog and forgotten; read from {oldest_seq}"
    )]
    Pruned {
        /// The oldest that is there.
        oldest_seq: u64,
    },
    /// A row that this version never writes.
    #[error(
        "entry {seq} is damaged; restart the edge, which checks the whole file and says what to do"
    )]
    Damaged {
        /// Its sequence, or the number of a quarantined frame.
        seq: u64,
    },
    /// The storage failed.
    #[error("the spool could not be read: {0}")]
    Storage(#[source] StorageFailure),
}

/// Why pruning did not succeed. Entries that were to be kept are kept in any case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// The fog names a sequence that this spool has not given out: it speaks of another incarnation.
    #[error(
        "cannot forget up to {keep_from}: the next sequence is {next_seq}; the other side means another spool, compare incarnations"
    )]
    Beyond {
        /// What was asked.
        keep_from: u64,
        /// What is next.
        next_seq: u64,
    },
    /// The storage failed; part of the entries may be forgotten, from the oldest on.
    #[error("the spool could not be pruned: {0}; recover it and prune again")]
    Storage(#[source] StorageFailure),
}

impl StorageFailure {
    pub(crate) fn of(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(source) if is_full(&source) => Self::DiskFull,
            redb::Error::Io(source) => Self::Io(source),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => Self::Closed,
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl OpenError {
    pub(crate) fn of(path: &std::path::Path, error: impl Into<redb::Error>) -> Self {
        let path = path.to_owned();
        match error.into() {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                Self::InUse { path }
            }
            redb::Error::UpgradeRequired(_) => Self::NotASpool { path },
            redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
                Self::NotASpool { path }
            }
            redb::Error::Io(source) => Self::of_io(path, source),
            other => Self::Damaged { path, detail: other.to_string() },
        }
    }

    pub(crate) fn of_io(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            _ if is_full(&source) => Self::DiskFull { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { path }
            }
            // redb's files are a whole number of pages; one that was cut off ends early.
            io::ErrorKind::UnexpectedEof => {
                Self::Damaged { path, detail: "the file is shorter than it says".to_owned() }
            }
            io::ErrorKind::IsADirectory => Self::NotASpool { path },
            _ => Self::Io { path, source },
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
