//! Who belongs to a consortium, who decides, and whose keys count: all from the log alone.
//!
//! [`State`] is what the entries of a consortium log, applied in their order, come to. Every member
//! computes it; [`State::digest`] says whether two have the same. It reads no clock: what expires,
//! expires after a number of leaves.
//!
//! # How something is decided
//! A member signs a [`Proposal`]; it is *validated* against the state and then *open*; members sign a
//! [`Ballot`] each; it is *resolved* as soon as those in favour reach the quorum for that kind of change
//! (accepted), or could not reach it any more (rejected), or too many leaves have passed (expired). What
//! is accepted is *applied* at the same leaf. Whatever else is open then is dropped, since it was
//! weighed under other rules: a proposal names the [version](State::version) that it is meant for.
//! (Proposals and ballots as CCF has them.)
//!
//! # Refused
//! An entry that does not apply changes nothing ([`Refused`] says why). An honest operator does not
//! append it ([`State::may_append`]); if one does, everybody passes over it in the same way.
//!
//! # A new operator
//! A `change-operator` that is applied ends the log. Members then sign the genesis of the next one, which
//! holds the last cosigned checkpoint and the digest of the state there. An operator who is gone or
//! hostile cannot stop that: [`State::succeed`] asks for the signatures of the quorum for
//! `change-operator` on the new genesis, whether or not the old log holds the decision.
//!
//! # Not guaranteed
//! That what an entry says is true. That who holds a key is who the admission document says. Cosignatures
//! on a predecessor's checkpoint are not looked at here: whoever follows checks them against the policy.

mod bodies;
mod judge;
mod keys;
mod names;
mod quorum;
mod refused;
mod sites;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use bodies::{
    Ballot, Change, ChangeKind, Genesis, MAX_COSIGNERS, MAX_EXPIRY_LEAVES, MAX_MEMBERS, Member,
    Operator, Predecessor, Proposal, Vote,
};
pub use keys::{KeyBody, MAX_KEYS_PER_NAME, RegisteredKey, Role};
pub use names::{CosignerText, Digest, GroupName, Hex, MemberName, NameError, StatementKey, Url};
pub use quorum::{Group, MAX_GROUPS, Part, Quorum, QuorumError, Quorums};
pub use refused::{Refused, RestoreError};
pub use sites::{
    CommitmentBody, DeviceHistory, DeviceTally, MAX_DEVICE_TALLIES, MAX_RECENT_COMMITMENTS,
    SiteCheckpointBody, SiteHead,
};
pub use state::{Applied, MAX_PROPOSALS_PER_MEMBER, OpenProposal, Resolution, Resolved, State};
