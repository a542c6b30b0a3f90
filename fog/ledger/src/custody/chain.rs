//! Chains as the log has them.

use crate::entry::EntryId;
use crate::governance::{Digest, Hex, MemberName, Refused};
use crate::leaf::{LEAF_BYTES, LEAF_VERSION};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The most hand-overs of one item.
pub const MAX_HAND_OVERS: usize = 256;

/// The most excursions of one item.
pub const MAX_EXCURSIONS: usize = 256;

/// The most items.
const MAX_ITEMS: usize = 1 << 20;

/// The object of a custody entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodyBody {
    /// [`Opening::item`](super::Opening::item).
    pub item: Digest,
    /// What happens to it.
    pub step: Step,
}

/// What happens to an item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// It comes into the world. Signed by the member that issues it and holds it first.
    Issue {
        /// What it is.
        what: ItemKind,
    },
    /// It goes on. Signed by the holder, then by the receiver.
    HandOver {
        /// Who receives it.
        to: MemberName,
        /// [`Entry::id`](crate::Entry::id) of the issue or hand-over before.
        previous: Digest,
    },
    /// It was kept wrongly. Signed by the key of a fog of the holder.
    Excursion {
        /// The leaf's index in the fog's log.
        index: u64,
        /// The leaf that commits to what was measured.
        leaf: Hex<LEAF_BYTES>,
    },
    /// It is no more. Signed by the holder.
    End {
        /// How.
        how: Ending,
        /// [`Entry::id`](crate::Entry::id) of the issue or hand-over before.
        previous: Digest,
    },
}

/// What an item is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ItemKind {
    /// A package of a medicine.
    Medication,
    /// A medical device.
    Device,
    /// A specimen.
    Sample,
}

/// How a chain ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Ending {
    /// Given to a patient, or used up.
    Used,
    /// Destroyed.
    Destroyed,
    /// Called back by its issuer.
    Recalled,
    /// Lost.
    Lost,
}

/// The way of one item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// What it is.
    pub what: ItemKind,
    /// Who had it, the issuer first, the holder last.
    pub handed: Vec<Handed>,
    /// When it was kept wrongly.
    pub excursions: Vec<AttachedExcursion>,
    /// How it ended, if it did, and the leaf that says so.
    pub ended: Option<(u64, Ending)>,
}

/// One holder of an item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handed {
    /// Who has had it from then on.
    pub holder: MemberName,
    /// The leaf that says so; 0 if that was in a log before this one.
    pub index: u64,
    /// [`Entry::id`](crate::Entry::id) of it.
    pub entry: Digest,
}

/// An excursion that a fog has attached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachedExcursion {
    /// The origin of the fog's log.
    pub site: String,
    /// The leaf's index in it.
    pub site_index: u64,
    /// The leaf.
    pub leaf: Hex<LEAF_BYTES>,
    /// Who held the item.
    pub holder: MemberName,
    /// The leaf of this log that attached it; 0 if that was in a log before this one.
    pub index: u64,
}

/// Who has signed a step.
#[derive(Clone, Copy)]
pub(crate) enum Hands<'a> {
    One(&'a MemberName),
    /// The giver and the receiver.
    Two(&'a MemberName, &'a MemberName),
    /// A fog and the member that it stands under.
    Fog(&'a str, &'a MemberName),
}

impl Chain {
    /// Who has it.
    pub fn holder(&self) -> Option<&MemberName> {
        self.handed.last().map(|handed| &handed.holder)
    }

    /// Who issued it.
    pub fn issuer(&self) -> Option<&MemberName> {
        self.handed.first().map(|handed| &handed.holder)
    }
}

/// All items, by their names.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Items(BTreeMap<Digest, Arc<Chain>>);

impl Items {
    pub(crate) fn get(&self, item: &Digest) -> Option<&Chain> {
        self.0.get(item).map(Arc::as_ref)
    }

    /// Whether the step may be taken by these hands; `entry` is the entry's id.
    pub(crate) fn admits(
        &self,
        body: &CustodyBody,
        entry: EntryId,
        by: Hands<'_>,
    ) -> Result<(), Refused> {
        let Some(chain) = self.get(&body.item) else {
            return match (&body.step, by) {
                (Step::Issue { .. }, Hands::One(_)) if self.0.len() < MAX_ITEMS => Ok(()),
                (Step::Issue { .. }, Hands::One(_)) => Err(Refused::Full),
                (Step::Issue { .. }, _) => Err(Refused::Hands),
                _ => Err(Refused::NoItem),
            };
        };
        if chain.handed.iter().any(|handed| handed.entry.0 == entry) {
            return Err(Refused::Again);
        }
        if matches!(body.step, Step::Issue { .. }) {
            return Err(Refused::SerialTwice);
        }
        if chain.ended.is_some() {
            return Err(Refused::ItemEnded);
        }
        let held_by = |member: &MemberName| chain.holder() == Some(member);
        let at_head =
            |previous: &Digest| chain.handed.last().is_some_and(|handed| handed.entry == *previous);
        match (&body.step, by) {
            (Step::HandOver { to, previous }, Hands::Two(giver, receiver)) if receiver == to => {
                match () {
                    () if !held_by(giver) || !at_head(previous) => Err(Refused::OffChain),
                    () if chain.handed.len() > MAX_HAND_OVERS => Err(Refused::Full),
                    () => Ok(()),
                }
            }
            (Step::End { previous, .. }, Hands::One(holder)) => {
                if held_by(holder) && at_head(previous) { Ok(()) } else { Err(Refused::OffChain) }
            }
            (Step::Excursion { index, leaf }, Hands::Fog(site, member)) => {
                let known = chain
                    .excursions
                    .iter()
                    .any(|known| known.site == site && known.site_index == *index);
                match () {
                    () if leaf.0[0] != LEAF_VERSION => Err(Refused::Leaf),
                    () if known => Err(Refused::Again),
                    () if !held_by(member) => Err(Refused::OffChain),
                    () if chain.excursions.len() >= MAX_EXCURSIONS => Err(Refused::Full),
                    () => Ok(()),
                }
            }
            _ => Err(Refused::Hands),
        }
    }

    /// Takes a step that was admitted; `signer` is the first who signed.
    pub(crate) fn take(&mut self, body: &CustodyBody, entry: EntryId, signer: &str, index: u64) {
        let entry = Hex(entry);
        if let Step::Issue { what } = body.step {
            let Ok(holder) = signer.parse() else { return };
            let handed = vec![Handed { holder, index, entry }];
            let chain = Chain { what, handed, excursions: Vec::new(), ended: None };
            self.0.insert(body.item, Arc::new(chain));
            return;
        }
        let Some(chain) = self.0.get_mut(&body.item).map(Arc::make_mut) else { return };
        match &body.step {
            Step::Issue { .. } => {}
            Step::HandOver { to, .. } => {
                chain.handed.push(Handed { holder: to.clone(), index, entry })
            }
            Step::End { how, .. } => chain.ended = Some((index, *how)),
            Step::Excursion { index: site_index, leaf } => {
                let Some(holder) = chain.holder().cloned() else { return };
                let (site, site_index, leaf) = (signer.to_owned(), *site_index, *leaf);
                chain.excursions.push(AttachedExcursion { site, site_index, leaf, holder, index });
            }
        }
    }

    /// The same items in the log that follows.
    pub(crate) fn carry_over(&mut self) {
        for chain in self.0.values_mut().map(Arc::make_mut) {
            chain.handed.iter_mut().for_each(|handed| handed.index = 0);
            chain.excursions.iter_mut().for_each(|excursion| excursion.index = 0);
            chain.ended = chain.ended.map(|(_, how)| (0, how));
        }
    }
}

impl fmt::Display for ItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Medication => "medication",
            Self::Device => "device",
            Self::Sample => "sample",
        })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Used => "used",
            Self::Destroyed => "destroyed",
            Self::Recalled => "recalled",
            Self::Lost => "lost",
        })
    }
}
