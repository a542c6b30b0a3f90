//! Why an entry does not apply.

use super::bodies::ChangeKind;
use super::keys::{MAX_KEYS_PER_NAME, Role};
use super::quorum::QuorumError;
use super::state::Resolution;
use crate::entry::{EntryError, EntryKind};

/// Why an entry does not apply. It changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Not an entry, or its object is not what its kind wants, or a signature does not fit.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Not the next leaf: this is a mistake of the caller and not of the log, and it does not count as
    /// a leaf.
    #[error("leaf {found} was given where leaf {expected} is next")]
    Position {
        /// The next.
        expected: u64,
        /// What was given.
        found: u64,
    },
    /// Meant for another log.
    #[error("the entry is meant for the log {0}")]
    Origin(String),
    /// The members have changed the operator.
    #[error("this log has ended: its members have elected another operator")]
    Ended,
    /// The first entry is no genesis, or a later one is.
    #[error("a log's first entry is its genesis, and no other is")]
    Genesis,
    /// A genesis that is not sound in itself.
    #[error("the genesis is wrong: {0}")]
    GenesisBody(&'static str),
    /// A genesis that does not follow the log that it says it follows.
    #[error("the genesis does not follow the log before: {0}")]
    Successor(&'static str),
    /// Signed by a name that nobody has.
    #[error("the entry is signed by {0}, who is neither a member nor has a registered key")]
    Stranger(String),
    /// Signed by a key that has been revoked.
    #[error("the entry is signed by a key of {name} that was revoked at leaf {index}")]
    Revoked {
        /// The key's name.
        name: String,
        /// Since when.
        index: u64,
    },
    /// Not signed by whom it must be, or by more.
    #[error("a {0} entry must be signed by exactly those who make it, and each of them may")]
    Signers(EntryKind),
    /// Not for this one to say.
    #[error("{who} may not make this {kind} entry")]
    NotAllowed {
        /// The name of the key.
        who: String,
        /// What it tried.
        kind: EntryKind,
    },
    /// The role cannot register the other.
    #[error("a {by} may not register the key of a {role}")]
    Registrar {
        /// Who tried.
        by: Role,
        /// What.
        role: Role,
    },
    /// The name is taken by a key of another role or member, or does not fit the role.
    #[error(
        "the key's name is taken by another's or does not fit its role (a patient's is a pseudonym)"
    )]
    KeyName,
    /// No such key.
    #[error("no such key is registered")]
    NoKey,
    /// It is there already.
    #[error("it is in the log already")]
    Again,
    /// A limit of the register was reached.
    #[error("a limit is reached (a name has at most {MAX_KEYS_PER_NAME} keys)")]
    Full,
    /// Meant for another version of the state.
    #[error(
        "the proposal is meant for version {found}, the state has {expected}: propose it again"
    )]
    Version {
        /// The state's.
        expected: u64,
        /// The proposal's.
        found: u64,
    },
    /// A text or a term is out of its limits.
    #[error("the proposal's reason or term is out of its limits")]
    ProposalLimits,
    /// What is proposed changes nothing or cannot be.
    #[error("this {kind} cannot be: {why}")]
    Change {
        /// The change.
        kind: ChangeKind,
        /// Why not.
        why: &'static str,
    },
    /// No quorum can be as proposed.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// A member has too many proposals.
    #[error("the member has made as many proposals as it may until one is applied")]
    TooManyProposals,
    /// A ballot on nothing.
    #[error("the ballot is on a proposal that this log does not have")]
    NoProposal,
    /// A ballot on what is resolved.
    #[error("the ballot is on a proposal that is {0} already")]
    Closed(Resolution),
    /// A second ballot.
    #[error("the member has voted on this proposal already")]
    Voted,
    /// A site's checkpoint is no checkpoint of it.
    #[error("the site's checkpoint is not one: {0}")]
    SiteCheckpoint(#[from] crate::checkpoint::CheckpointError),
    /// A site's checkpoint is smaller than the one before.
    #[error("the site's checkpoint is smaller than the one before: its log was rolled back")]
    SiteRollback,
    /// A site has signed two roots of one size.
    #[error("the site has signed two roots for one size: its log was forked")]
    SiteFork,
    /// A site's checkpoint does not contain the one before, or the proof is for another.
    #[error("the site's checkpoint is not shown to contain the one before")]
    SiteInconsistent,
    /// Not a leaf of a version that is known.
    #[error("the commitment is not a leaf of a known version")]
    Leaf,
    /// A site has put two leaves at one index.
    #[error("the site has put another leaf at this index before")]
    CommitmentFork,
    /// Too far behind.
    #[error("the commitment or checkpoint is older than what is remembered of the site")]
    TooOld,
    /// An item is issued that is there already.
    #[error("the item has been issued before: its serial number appears twice")]
    SerialTwice,
    /// No such item.
    #[error("no such item was ever issued")]
    NoItem,
    /// Not by the holder, or not after the last step.
    #[error("the step is off the item's chain: not by its holder, or not after its last step")]
    OffChain,
    /// The chain has ended.
    #[error("the item's chain has ended")]
    ItemEnded,
    /// Not signed by those whom the step concerns.
    #[error(
        "the step must be signed by its holder, a hand-over by giver and receiver, an excursion by a fog"
    )]
    Hands,
}

impl Refused {
    /// Whether whoever made the entry has attempted something. The rest comes to who did nothing wrong: a repetition, or what
    /// others did in the meantime. A checkpoint that is not shown to contain the one before may come from a site that did not
    /// know that its last entry was taken.
    pub fn is_attempt(&self) -> bool {
        !matches!(
            self,
            Self::Again
                | Self::Ended
                | Self::Full
                | Self::Version { .. }
                | Self::TooManyProposals
                | Self::Closed(_)
                | Self::TooOld
                | Self::SiteInconsistent
        )
    }
}

/// Bytes are not a saved [`State`](super::State).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the saved state cannot be read; rebuild it from the log's first leaf")]
pub struct RestoreError;
