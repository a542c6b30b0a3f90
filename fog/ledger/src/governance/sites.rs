//! What sites put before the members: their logs' checkpoints, single leaves, and how devices did.
//!
//! # Site checkpoints
//! An entry signed by the site's key holds the site log's signed note and an RFC 6962 consistency proof
//! from the checkpoint before it. So a site that rewrites its history cannot go on: everybody refuses.
//! One of one size with another root is evidence against the site. One that is smaller and was never here
//! is so too, as an attempt: the entry around it is the site's word to this log. One that was here before
//! is a repetition, by whomsoever.
//!
//! # Commitments
//! A leaf of the site's log by its index. One index has one leaf; another at the same index is evidence.
//! The last [`MAX_RECENT_COMMITMENTS`] indices of a site are remembered; what comes from before them is
//! refused, so a site hands its leaves in roughly in order.
//!
//! # Device history
//! A checkpoint entry may say of devices how many readings came since the one before, how many of them
//! were faulty and how many late. The sums per device key are a device's history.
//!
//! # Not guaranteed
//! That a site counts truly; only that everybody reads the same counts, signed by the site.

use super::names::{Digest, Hex};
use super::refused::Refused;
use crate::checkpoint::SignedCheckpoint;
use crate::leaf::{LEAF_BYTES, LEAF_VERSION};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tlog_tiles::{Hash, check_tree};

/// How many commitments of a site are remembered, to refuse a second one of the same index.
pub const MAX_RECENT_COMMITMENTS: usize = 4_096;

/// How many checkpoints of a site are remembered, to tell a repetition from a rollback.
const MAX_RECENT_HEADS: usize = 1_024;

/// The most devices that one entry speaks of.
pub const MAX_DEVICE_TALLIES: usize = 256;

/// The longest consistency proof: two hashes a level for 2^40 leaves.
const MAX_PROOF_HASHES: usize = 80;

/// The object of a site-checkpoint entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteCheckpointBody {
    /// The signed note of the site's log.
    pub checkpoint: String,
    /// The consistency proof from the site's checkpoint before this one; empty if there is none.
    pub proof: Vec<Digest>,
    /// How devices did since the checkpoint before, by the names of their keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, DeviceTally>,
}

/// The object of a commitment entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitmentBody {
    /// The origin of the site's log.
    pub site: String,
    /// The leaf's index in it.
    pub index: u64,
    /// The leaf.
    pub leaf: Hex<LEAF_BYTES>,
}

/// What came from a device in some time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceTally {
    /// Readings.
    pub readings: u64,
    /// Of these, such as may not enter a feature: implausible, questionable, with the sensor off.
    pub faulty: u64,
    /// Of these, such as came behind what the edge had promised for the device (its watermark).
    pub late: u64,
}

impl DeviceTally {
    /// Adds what came in another time.
    pub fn add(&mut self, more: &Self) {
        self.readings = self.readings.saturating_add(more.readings);
        self.faulty = self.faulty.saturating_add(more.faulty);
        self.late = self.late.saturating_add(more.late);
    }
}

/// All that is known of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceHistory {
    /// Readings.
    pub readings: u64,
    /// Of these, faulty.
    pub faulty: u64,
    /// Of these, late.
    pub late: u64,
}

impl DeviceHistory {
    /// Faulty readings per reading; `None` before the first.
    pub fn fault_rate(&self) -> Option<f64> {
        (self.readings > 0).then(|| self.faulty as f64 / self.readings as f64)
    }

    /// Late readings per reading; `None` before the first.
    pub fn late_rate(&self) -> Option<f64> {
        (self.readings > 0).then(|| self.late as f64 / self.readings as f64)
    }

    pub(crate) fn add(&mut self, tally: &DeviceTally) {
        self.readings = self.readings.saturating_add(tally.readings);
        self.faulty = self.faulty.saturating_add(tally.faulty);
        self.late = self.late.saturating_add(tally.late);
    }
}

/// How far a site's log is known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteHead {
    /// Its last checkpoint, the signed note; empty before the first.
    pub checkpoint: String,
    /// That one's size.
    pub size: u64,
    /// That one's root.
    pub root: Digest,
    /// The leaf of this log that brought it.
    pub index: u64,
    /// Roots of recent checkpoints by their size: what is one of these is a repetition or a fork.
    pub(crate) heads: BTreeMap<u64, Digest>,
    /// Leaves of recent commitments, by their index.
    pub(crate) recent: BTreeMap<u64, Hex<LEAF_BYTES>>,
    /// Commitments below this index are too old to tell whether they were there.
    pub(crate) floor: u64,
}

impl Default for SiteHead {
    fn default() -> Self {
        let (heads, recent) = (BTreeMap::new(), BTreeMap::new());
        let (checkpoint, root) = (String::new(), Hex([0; 32]));
        Self { checkpoint, size: 0, root, index: 0, heads, recent, floor: 0 }
    }
}

impl SiteHead {
    /// Whether `checkpoint` may follow.
    pub(crate) fn admits(&self, next: &SignedCheckpoint, proof: &[Digest]) -> Result<(), Refused> {
        if proof.len() > MAX_PROOF_HASHES {
            return Err(Refused::Full);
        }
        if self.checkpoint.is_empty() {
            return if proof.is_empty() { Ok(()) } else { Err(Refused::SiteInconsistent) };
        }
        match self.heads.get(&next.size()) {
            Some(root) if root.0 == next.root() => return Err(Refused::Again),
            Some(_) => return Err(Refused::SiteFork),
            None => {}
        }
        match self.heads.first_key_value() {
            Some((oldest, _)) if next.size() < *oldest => Err(Refused::TooOld),
            _ if next.size() < self.size => Err(Refused::SiteRollback),
            _ if self.size == 0 && proof.is_empty() => Ok(()),
            _ => {
                let proof = proof.iter().map(|hash| Hash(hash.0)).collect();
                let (old, new) = (Hash(self.root.0), Hash(next.root()));
                check_tree(&proof, next.size(), new, self.size, old)
                    .map_err(|_| Refused::SiteInconsistent)
            }
        }
    }

    pub(crate) fn advance(&mut self, next: &SignedCheckpoint, index: u64) {
        (self.size, self.root, self.index) = (next.size(), Hex(next.root()), index);
        next.note().clone_into(&mut self.checkpoint);
        self.heads.insert(self.size, self.root);
        if self.heads.len() > MAX_RECENT_HEADS {
            self.heads.pop_first();
        }
    }

    /// Whether `leaf` may be put before the members.
    pub(crate) fn admits_leaf(&self, index: u64, leaf: &Hex<LEAF_BYTES>) -> Result<(), Refused> {
        match self.recent.get(&index) {
            _ if leaf.0[0] != LEAF_VERSION => Err(Refused::Leaf),
            Some(known) if known == leaf => Err(Refused::Again),
            Some(_) => Err(Refused::CommitmentFork),
            None if index < self.floor => Err(Refused::TooOld),
            None => Ok(()),
        }
    }

    pub(crate) fn add_leaf(&mut self, index: u64, leaf: Hex<LEAF_BYTES>) {
        self.recent.insert(index, leaf);
        if self.recent.len() > MAX_RECENT_COMMITMENTS
            && let Some((oldest, _)) = self.recent.pop_first()
        {
            self.floor = oldest + 1;
        }
    }
}
