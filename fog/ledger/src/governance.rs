//! Who may say what in the log: members, keys, quorum and their changes, from the log's own entries.
//!
//! [`State`] begins empty and applies entry after entry. It reads no clock and nothing but the log, so
//! everybody who has the same entries comes to the same state ([`State::digest`]), and nobody has to be asked
//! or trusted for it. An entry that the rules refuse changes nothing: an honest operator does not put it
//! into the log, and if one does all the same, everybody ignores it and monitors tell.
//!
//! # Who may
//! | entry | signed by | refused when |
//! |---|---|---|
//! | genesis | every founding member | it is not the first |
//! | key | a member | the name is another member's, or registered and not revoked |
//! | site-checkpoint | the site's registered key | it is not larger than the site's last, or the size is the same and the root another |
//! | commitment | the site's registered key | the site is not registered |
//! | proposal | a member | it changes nothing, or [`MAX_OPEN`] are open |
//! | ballot | a member | the proposal is not open, or this member has voted |
//! | evidence, custody, reidentification | a member or a registered key | – |
//!
//! # Proposals
//! As in CCF: validated → open → accepted, rejected or expired → applied, by everybody at the same index.
//! The one who proposes votes for it by that. A change is accepted when the weights of the votes for it
//! reach the quorum's threshold, rejected when they cannot any more, expired after [`OPEN_FOR`] further
//! entries: there is no clock in a log.
//!
//! # A revoked key
//! From the index of its revocation on, entries of that key are refused; what it said before stays. A member
//! that is removed keeps its past entries in the log and can add none.

mod bodies;
mod state;

pub use bodies::{
    Ballot, Change, Commitment, Genesis, Key, KeyAction, KeyKind, Member, Operator, Predecessor,
    Proposal, Quorum, QuorumRule, SiteCheckpoint, Vote,
};
pub use state::{
    Applied, Ended, MAX_KEYS, MAX_MEMBERS, MAX_OPEN, OPEN_FOR, Outcome, Refused, RegisteredKey,
    State, Summary,
};
