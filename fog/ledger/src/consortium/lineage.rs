//! The logs that a log follows: one operator was gone or dismissed, and the members went on with another.
//!
//! The first entry of a log that follows another names that one's last cosigned checkpoint and the digest of the state there, and
//! is signed by as many members as the rules *there* want ([`State::succeed`]). So whoever follows the new log needs the old one's
//! entries, once, to know what they come to; a copy on disk will do, of whichever member. [`Lineage`] checks it all: the old entries
//! hash to the checkpoint that is named, a quorum under the rules of that state has cosigned it, and the new first entry follows.
//!
//! # What is lost
//! What the old log had sequenced beyond its last cosigned checkpoint is not in the new one. Nobody was told that it was witnessed;
//! sites put it forward again.

use super::tiles::{Tiles, TilesError};
use crate::checkpoint::Head;
use crate::entry::{Entry, EntryError, EntryKind};
use crate::governance::{Genesis, Operator, Predecessor, Refused, State};
use crate::policy::{Policy, PolicyError};
use haar_identity::Identity;

/// The most logs before one.
pub const MAX_PREDECESSORS: usize = 64;

/// Why a log does not begin, or cannot be followed by another.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineageError {
    /// The first entry is none, or does not follow.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What is to be the first entry cannot be one.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// A copy of a log before it.
    #[error("the copy of {log}: {error}")]
    Tiles {
        /// Whose.
        log: String,
        /// What is wrong.
        #[source]
        error: TilesError,
    },
    /// A copy is too short.
    #[error(
        "the copy of {log} has {have} entries and its last cosigned checkpoint {want}: take the data \
         directory of a member whose copy is whole"
    )]
    Short {
        /// Whose.
        log: String,
        /// Entries of the copy.
        have: u64,
        /// Entries of the checkpoint.
        want: u64,
    },
    /// The copy is of another history than the checkpoint.
    #[error("the copy of {0} does not lead to the checkpoint that the next log names")]
    Root(String),
    /// The checkpoint does not count.
    #[error("the last checkpoint of {log} does not count: {error}")]
    Checkpoint {
        /// Whose.
        log: String,
        /// Why not.
        #[source]
        error: PolicyError,
    },
    /// Nothing is published.
    #[error("{0} has published nothing that counts")]
    Nothing(String),
}

/// The logs before one, the oldest first; none for a log that follows no other.
#[derive(Clone, Default)]
pub struct Lineage {
    logs: Vec<Tiles>,
}

impl Lineage {
    /// Copies of the logs before, the oldest first. Only [`MAX_PREDECESSORS`] are looked at.
    pub fn new(mut logs: Vec<Tiles>) -> Self {
        logs.truncate(MAX_PREDECESSORS);
        Self { logs }
    }

    /// The state after the first entry of the log that follows them.
    ///
    /// # Errors
    /// See [`LineageError`].
    pub fn begin(&self, first: &Entry) -> Result<State, LineageError> {
        begin(&self.logs, first)
    }

    /// Applies an entry that is in the log: the first begins the state, the others change it. Everybody comes to the same.
    ///
    /// # Errors
    /// If the rules refuse it; the state is as before.
    pub fn apply(
        &self,
        state: &mut Option<State>,
        index: u64,
        entry: &[u8],
    ) -> Result<(), LineageError> {
        match state {
            Some(state) => drop(state.apply_leaf(index, entry)?),
            None => *state = Some(self.begin(&Entry::parse(entry)?)?),
        }
        Ok(())
    }

    /// The first entry of a log that follows `last`, which itself follows these; to be signed by more members. Only the
    /// operator changes.
    ///
    /// # Errors
    /// If the copy has no cosigned checkpoint, or the entry cannot be made.
    pub fn successor(
        &self,
        last: &Tiles,
        operator: Operator,
        founder: &Identity,
    ) -> Result<Entry, LineageError> {
        let log = || last.log().origin().to_owned();
        let tiles = |error| LineageError::Tiles { log: log(), error };
        let published = last.published().map_err(tiles)?;
        let published = published.ok_or_else(|| LineageError::Nothing(log()))?;
        let state = state_at(&self.logs, last, published.size)?;
        check_cosigned(&state, last, &published.note)?;
        let genesis = Genesis {
            consortium: state.consortium().to_owned(),
            members: state.members().cloned().collect(),
            quorums: state.quorums().clone(),
            policy_bundle: state.policy_bundle(),
            predecessor: Some(Predecessor {
                origin: log(),
                checkpoint: published.note,
                state: state.digest(),
            }),
            operator,
        };
        let origin = genesis.operator.log.name().to_owned();
        Ok(Entry::sign(EntryKind::Genesis, &origin, &genesis, &[founder])?)
    }
}

fn begin(before: &[Tiles], first: &Entry) -> Result<State, LineageError> {
    let Some((last, earlier)) = before.split_last() else { return Ok(State::genesis(first)?) };
    let genesis: Genesis = first.body().map_err(Refused::from)?;
    let Some(predecessor) = genesis.predecessor else {
        return Err(Refused::Successor("it names no log before it").into());
    };
    let head = Head::open_stored(&predecessor.checkpoint).map_err(Refused::from)?;
    let state = state_at(earlier, last, head.size)?;
    check_cosigned(&state, last, &predecessor.checkpoint)?;
    Ok(state.succeed(first)?)
}

/// What the first `size` entries of a log come to.
fn state_at(before: &[Tiles], log: &Tiles, size: u64) -> Result<State, LineageError> {
    let name = || log.log().origin().to_owned();
    let tiles = |error| LineageError::Tiles { log: name(), error };
    let have = log.applied().map_err(tiles)?.map_or(0, |applied| applied.size());
    if have < size || size == 0 {
        return Err(LineageError::Short { log: name(), have, want: size });
    }
    let mut state = begin(before, &Entry::parse(&log.entry(0).map_err(tiles)?)?)?;
    let mut next = 1;
    while next < size {
        for entry in log.entries(next).map_err(tiles)?.into_iter().take((size - next) as usize) {
            // One that the rules refuse changes nothing, for everybody alike.
            let _ = state.apply_leaf(next, &entry);
            next += 1;
        }
    }
    Ok(state)
}

/// Whether the checkpoint is of this copy, and counts by the rules of `state`.
fn check_cosigned(state: &State, log: &Tiles, checkpoint: &str) -> Result<(), LineageError> {
    let name = || log.log().origin().to_owned();
    // What a state writes is a policy.
    let policy: Policy = state.policy_text(None).parse().unwrap_or_default();
    let cosigned = policy
        .check(checkpoint.as_bytes())
        .map_err(|error| LineageError::Checkpoint { log: name(), error })?;
    let root = log.root_at(cosigned.size);
    match root.map_err(|error| LineageError::Tiles { log: name(), error })? == cosigned.root {
        true => Ok(()),
        false => Err(LineageError::Root(name())),
    }
}
