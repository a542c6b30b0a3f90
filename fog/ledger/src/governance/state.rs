//! The state that a log's entries come to.
//!
//! # Format
//! [`State::to_json`] is the canonical encoding: JSON without white space, maps in the order of their
//! keys. [`State::digest`] is SHA-256 over it. Whoever saves it trusts the place where it lies, or
//! compares the digest.

use super::bodies::{Change, ChangeKind, Member, Operator, Predecessor, Proposal, Vote};
use super::judge::Effect;
use super::keys::{Register, RegisteredKey};
use super::names::{Digest, Hex, MemberName, StatementKey};
use super::quorum::{Members, Quorums, witness_names};
use super::refused::{Refused, RestoreError};
use super::sites::{DeviceHistory, SiteHead};
use crate::custody::{Chain, Items};
use crate::entry::{Entry, EntryId};
use crate::leaf::{LEAF_BYTES, LeafKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// How many proposals a member may make until one is applied.
pub const MAX_PROPOSALS_PER_MEMBER: usize = 64;

/// How many resolved proposals of earlier versions are remembered, to be shown.
const MAX_RESOLVED: usize = 1_024;

/// How many entries that change nothing else (evidence, re-identifications) are remembered, to refuse
/// them when they come again.
const MAX_REMEMBERED: usize = 4_096;

/// Everything that a consortium log's entries have decided.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub(super) rules: Rules,
    pub(super) predecessor: Option<Predecessor>,
    pub(super) next_index: u64,
    /// Changes applied so far.
    pub(super) version: u64,
    pub(super) ended: Option<Operator>,
    pub(super) keys: Register,
    /// Shared, as keys and items are, so that who serves a state can copy it at every step.
    pub(super) sites: BTreeMap<String, Arc<SiteHead>>,
    pub(super) devices: BTreeMap<String, DeviceHistory>,
    pub(super) items: Items,
    pub(super) open: BTreeMap<Digest, OpenProposal>,
    pub(super) resolved: BTreeMap<Digest, Resolved>,
    pub(super) remembered: BTreeMap<Digest, u64>,
}

/// What proposals change.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    pub(super) consortium: String,
    pub(super) operator: Operator,
    pub(super) members: Members,
    pub(super) quorums: Quorums,
    pub(super) policy_bundle: Digest,
}

/// A proposal that is not resolved yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenProposal {
    /// What is proposed.
    pub proposal: Proposal,
    /// Who proposes it.
    pub by: MemberName,
    /// The leaf that it came with.
    pub index: u64,
    /// Who is in favour.
    pub yes: BTreeSet<MemberName>,
    /// Who is against.
    pub no: BTreeSet<MemberName>,
}

/// A proposal that is resolved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolved {
    /// What was proposed.
    pub kind: ChangeKind,
    /// The version it was meant for.
    pub version: u64,
    /// Who proposed it.
    pub by: MemberName,
    /// The leaf that it came with.
    pub opened: u64,
    /// The leaf that resolved it.
    pub closed: u64,
    /// How.
    pub resolution: Resolution,
}

/// How a proposal ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// Enough were in favour; it has been applied.
    Accepted,
    /// Enough can no longer be in favour.
    Rejected,
    /// Too many leaves have passed.
    Expired,
    /// Another one was applied first.
    Overtaken,
}

/// What an entry did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Applied {
    /// A site's log is known up to here.
    SiteCheckpoint {
        /// Its origin.
        site: String,
        /// Its size.
        size: u64,
    },
    /// A leaf was put before the members.
    Commitment {
        /// The origin of the site's log.
        site: String,
        /// The leaf's index in it.
        index: u64,
        /// The leaf.
        leaf: [u8; LEAF_BYTES],
    },
    /// A key counts from the next leaf on.
    KeyRegistered(StatementKey),
    /// A key does not count from the next leaf on.
    KeyRevoked(StatementKey),
    /// A proposal is open.
    Proposed(EntryId),
    /// A ballot was counted.
    Voted {
        /// The proposal.
        proposal: EntryId,
        /// How that resolved it, if it did.
        resolution: Option<Resolution>,
    },
    /// Something happened to this item.
    Custody(Digest),
    /// Evidence, or that a pseudonym was asked to be opened: remembered, nothing else.
    Remembered,
}

impl State {
    /// The state after the first entry of a log that follows no other.
    ///
    /// # Errors
    /// If it is no genesis, names a predecessor (see [`State::succeed`]), or is not signed by as many of
    /// its members as its own rules want for a change of operator.
    pub fn genesis(entry: &Entry) -> Result<Self, Refused> {
        let genesis = super::judge::genesis_body(entry)?;
        if genesis.predecessor.is_some() {
            return Err(Refused::Successor(
                "it names a log before it; start from that one's state",
            ));
        }
        let rules = Rules::of(&genesis)?;
        rules.signed_by_quorum(entry)?;
        Ok(Self::with(rules, None))
    }

    /// The state after the first entry of the log that follows this one.
    ///
    /// Keys, sites and histories go on; open proposals do not. Whoever follows still has to check that
    /// the predecessor's checkpoint bears a quorum of cosignatures under [`State::policy_text`].
    ///
    /// # Errors
    /// If it does not follow from exactly this state, changes anything but the operator, or is not signed
    /// by as many members as the rules here want for a change of operator.
    pub fn succeed(&self, entry: &Entry) -> Result<Self, Refused> {
        let genesis = super::judge::genesis_body(entry)?;
        let rules = Rules::of(&genesis)?;
        self.followed_by(&rules, genesis.predecessor.as_ref())?;
        self.rules.signed_by_quorum(entry)?;
        let mut next = Self::with(rules, genesis.predecessor);
        next.version = self.version + 1;
        next.keys = self.keys.clone();
        next.keys.carry_over();
        next.sites = self.sites.clone();
        next.sites.values_mut().for_each(|site| Arc::make_mut(site).index = 0);
        next.devices = self.devices.clone();
        next.items = self.items.clone();
        next.items.carry_over();
        Ok(next)
    }

    /// Takes the entry at `index`, which must be the next.
    ///
    /// # Errors
    /// If it does not apply; then nothing has changed but what had to expire at this leaf, and the next
    /// leaf is `index + 1`, but after [`Refused::Position`] it is not.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Result<Applied, Refused> {
        self.step(index)?;
        let effect = self.judge(index, entry)?;
        Ok(self.make(index, effect))
    }

    /// As [`State::apply`], from the leaf's bytes, which may be anything.
    ///
    /// # Errors
    /// As there, and if the bytes are no entry.
    pub fn apply_leaf(&mut self, index: u64, leaf: &[u8]) -> Result<Applied, Refused> {
        match Entry::parse(leaf) {
            Ok(entry) => self.apply(index, &entry),
            Err(error) => {
                self.step(index)?;
                Err(error.into())
            }
        }
    }

    /// Takes `entry` as the next leaf if it applies: what an operator does, at the price of one check.
    ///
    /// # Errors
    /// If it does not apply; then nothing has changed, and it is not a leaf.
    pub fn append(&mut self, entry: &Entry) -> Result<Applied, Refused> {
        let index = self.next_index;
        let effect = self.judge(index, entry)?;
        self.step(index)?;
        Ok(self.make(index, effect))
    }

    /// Whether `entry` would apply as the next: what an operator asks before it appends.
    ///
    /// # Errors
    /// If it would not.
    pub fn may_append(&self, entry: &Entry) -> Result<(), Refused> {
        self.judge(self.next_index, entry).map(drop)
    }

    /// The origin of the log.
    pub fn origin(&self) -> &str {
        self.rules.operator.log.name()
    }

    /// What the consortium calls itself.
    pub fn consortium(&self) -> &str {
        &self.rules.consortium
    }

    /// Who runs the log.
    pub fn operator(&self) -> &Operator {
        &self.rules.operator
    }

    /// Who was elected to go on in another log; nothing applies here any more.
    pub fn ended(&self) -> Option<&Operator> {
        self.ended.as_ref()
    }

    /// The log that this one follows.
    pub fn predecessor(&self) -> Option<&Predecessor> {
        self.predecessor.as_ref()
    }

    /// The index of the next leaf, which is how many there are.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// How many changes have been applied; a proposal names the one it is meant for.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All members, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.rules.members.values()
    }

    /// One member.
    pub fn member(&self, name: &MemberName) -> Option<&Member> {
        self.rules.members.get(name)
    }

    /// All rules.
    pub fn quorums(&self) -> &Quorums {
        &self.rules.quorums
    }

    /// SHA-256 of the Cedar policies that decide on access.
    pub fn policy_bundle(&self) -> Digest {
        self.rules.policy_bundle
    }

    /// All keys ever registered under a name, the latest last.
    pub fn keys_named(&self, name: &str) -> &[RegisteredKey] {
        self.keys.named(name)
    }

    /// All keys ever registered.
    pub fn keys(&self) -> impl Iterator<Item = &RegisteredKey> {
        self.keys.iter()
    }

    /// How far a site's log is known.
    pub fn site(&self, origin: &str) -> Option<&SiteHead> {
        self.sites.get(origin).map(Arc::as_ref)
    }

    /// How a device did, by the name of its key.
    pub fn device(&self, name: &str) -> Option<&DeviceHistory> {
        self.devices.get(name)
    }

    /// The way of a numbered item.
    pub fn item(&self, item: &Digest) -> Option<&Chain> {
        self.items.get(item)
    }

    /// What members are asked to vote on. One that expires with the next leaf is still there.
    pub fn open_proposals(&self) -> impl Iterator<Item = (EntryId, &OpenProposal)> {
        self.open.iter().map(|(id, open)| (id.0, open))
    }

    /// What was resolved: all of this version and the last of earlier ones.
    pub fn resolved_proposals(&self) -> impl Iterator<Item = (EntryId, &Resolved)> {
        self.resolved.iter().map(|(id, resolved)| (id.0, resolved))
    }

    /// The rule for checkpoints as a C2SP tlog-policy: for a commitment to a leaf of this kind, or for
    /// everything else.
    pub fn policy_text(&self, kind: Option<LeafKind>) -> String {
        let mut text = format!("log {} {}\n", self.rules.operator.log, self.rules.operator.url);
        for member in self.members() {
            for (name, key) in witness_names(member).iter().zip(&member.cosigners) {
                let _ = writeln!(text, "witness {name} {key} {}", member.url);
            }
        }
        text + &self.rules.quorums.for_leaf(kind).to_policy(&self.rules.members)
    }

    /// Whether commitments to leaves of some kind want other cosignatures than everything else.
    pub fn has_stricter_kinds(&self) -> bool {
        !self.rules.quorums.commitments.is_empty()
    }

    /// SHA-256 of the canonical encoding: equal for two members exactly if they have the same state.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_json())
    }

    /// The canonical encoding.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps have text keys and nothing here fails to be written")
    }

    /// Reads what [`State::to_json`] wrote.
    ///
    /// # Errors
    /// If it is not that, byte for byte.
    pub fn from_json(bytes: &[u8]) -> Result<Self, RestoreError> {
        let state: Self = serde_json::from_slice(bytes).map_err(|_| RestoreError)?;
        if state.to_json() == bytes { Ok(state) } else { Err(RestoreError) }
    }

    fn with(rules: Rules, predecessor: Option<Predecessor>) -> Self {
        Self {
            rules,
            predecessor,
            next_index: 1,
            version: 0,
            ended: None,
            keys: Register::default(),
            sites: BTreeMap::new(),
            devices: BTreeMap::new(),
            items: Items::default(),
            open: BTreeMap::new(),
            resolved: BTreeMap::new(),
            remembered: BTreeMap::new(),
        }
    }

    /// Goes to leaf `index`, and closes what expires by it.
    fn step(&mut self, index: u64) -> Result<(), Refused> {
        if index != self.next_index {
            return Err(Refused::Position { expected: self.next_index, found: index });
        }
        self.next_index = index + 1;
        let expired = |(id, open): (&Digest, &OpenProposal)| open.expired_at(index).then_some(*id);
        for id in self.open.iter().filter_map(expired).collect::<Vec<_>>() {
            self.close(id, index, Resolution::Expired);
        }
        Ok(())
    }

    fn make(&mut self, index: u64, effect: Effect) -> Applied {
        match effect {
            Effect::SiteCheckpoint { site, checkpoint, devices } => {
                let size = checkpoint.size();
                let head = self.sites.entry(site.clone()).or_default();
                Arc::make_mut(head).advance(&checkpoint, index);
                for (name, tally) in devices {
                    self.devices.entry(name).or_default().add(&tally);
                }
                Applied::SiteCheckpoint { site, size }
            }
            Effect::Commitment(body) => {
                let site = self.sites.entry(body.site.clone()).or_default();
                Arc::make_mut(site).add_leaf(body.index, body.leaf);
                Applied::Commitment { site: body.site, index: body.index, leaf: body.leaf.0 }
            }
            Effect::Register(key) => {
                let registered = RegisteredKey { registered: index, ..*key };
                let applied = Applied::KeyRegistered(registered.key.clone());
                self.keys.add(registered);
                applied
            }
            Effect::Revoke(key) => {
                self.keys.revoke(&key, index);
                Applied::KeyRevoked(key)
            }
            Effect::Propose { id, by, proposal } => {
                let (yes, no) = (BTreeSet::new(), BTreeSet::new());
                self.open.insert(Hex(id), OpenProposal { proposal: *proposal, by, index, yes, no });
                Applied::Proposed(id)
            }
            Effect::Vote { id, by, vote } => {
                let resolution = self.count(index, id, by, vote);
                Applied::Voted { proposal: id.0, resolution }
            }
            Effect::Custody { id, by, body } => {
                self.items.take(&body, id, &by, index);
                Applied::Custody(body.item)
            }
            Effect::Remember(id) => {
                self.remembered.insert(Hex(id), index);
                if self.remembered.len() > MAX_REMEMBERED {
                    let oldest = self.remembered.iter().min_by_key(|(_, index)| **index);
                    if let Some(oldest) = oldest.map(|(id, _)| *id) {
                        self.remembered.remove(&oldest);
                    }
                }
                Applied::Remembered
            }
        }
    }

    fn count(&mut self, index: u64, id: Digest, by: MemberName, vote: Vote) -> Option<Resolution> {
        let open = self.open.get_mut(&id)?;
        match vote {
            Vote::Yes => open.yes.insert(by),
            Vote::No => open.no.insert(by),
        };
        let (open, members) = (open.clone(), &self.rules.members);
        let quorum = self.rules.quorums.for_proposal(open.proposal.change.kind());
        if quorum.reached(members, &|name: &MemberName| open.yes.contains(name)) {
            self.close(id, index, Resolution::Accepted);
            self.accept(index, &open.proposal.change);
            Some(Resolution::Accepted)
        } else if !quorum.reached(members, &|name: &MemberName| !open.no.contains(name)) {
            self.close(id, index, Resolution::Rejected);
            Some(Resolution::Rejected)
        } else {
            None
        }
    }

    fn accept(&mut self, index: u64, change: &Change) {
        // It was possible when it was proposed, and the rules are still the same: any change that is
        // applied closes what was proposed before it.
        let Ok(rules) = self.rules.after(change, &self.keys) else { return };
        match change {
            Change::ChangeOperator { operator } => self.ended = Some((**operator).clone()),
            Change::RemoveMember { member, .. } => self.keys.revoke_all(member, index),
            _ => {}
        }
        self.rules = rules;
        for id in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(id, index, Resolution::Overtaken);
        }
        self.version += 1;
        let old = |(id, resolved): (&Digest, &Resolved)| (resolved.closed, *id);
        let mut ids: Vec<_> = self.resolved.iter().map(old).collect();
        ids.sort_unstable();
        for (_, id) in ids.iter().take(ids.len().saturating_sub(MAX_RESOLVED)) {
            self.resolved.remove(id);
        }
    }

    fn close(&mut self, id: Digest, index: u64, resolution: Resolution) {
        if let Some(open) = self.open.remove(&id) {
            let resolved = Resolved {
                kind: open.proposal.change.kind(),
                version: open.proposal.version,
                by: open.by,
                opened: open.index,
                closed: index,
                resolution,
            };
            self.resolved.insert(id, resolved);
        }
    }
}

impl OpenProposal {
    pub(super) fn expired_at(&self, index: u64) -> bool {
        index - self.index > self.proposal.expires_after
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({} at {}: {})", self.origin(), self.next_index, self.digest())
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Overtaken => "overtaken by another change",
        })
    }
}
