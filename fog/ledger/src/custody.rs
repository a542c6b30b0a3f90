//! Numbered items (a medication, a device, a sample) on their way from member to member.
//!
//! # In the log
//! Entries of kind `custody` ([`CustodyBody`]): a member *issues* an item; its holder *hands it over*,
//! signed by both; the fog of the holder attaches an *excursion* (the cold chain was broken) by the leaf
//! of its own log; the holder *ends* the chain. [`State::item`](crate::governance::State::item) has the
//! chain. A hand-over names the entry before it, so nobody hands the same thing to two.
//!
//! # Not in the log
//! The serial number. An item is named by an HMAC of it under a key of its own, which goes along the chain
//! with the item ([`Opening`]). The key comes from the issuer's secret and the number, so a number that
//! an issuer issues again is the same item again, and refused. Who forges a number of another issuer has
//! an item under his own name; who receives it sees that ([`Opening::check`]), or that he has that number
//! already ([`Holdings`]).
//!
//! # Not guaranteed
//! That the thing is the one that the number was printed on. An item whose holder leaves the consortium
//! goes no further.

mod chain;
mod opening;

pub use chain::{
    AttachedExcursion, Chain, CustodyBody, Ending, Handed, ItemKind, MAX_EXCURSIONS,
    MAX_HAND_OVERS, Step,
};
pub(crate) use chain::{Hands, Items};
pub use opening::{CustodySecret, Flag, Holdings, MAX_HOLDINGS, Opening};

#[cfg(test)]
mod tests;
