//! The state that a log's entries come to.

use super::bodies::{
    Ballot, Change, Commitment, Genesis, Key, KeyAction, KeyKind, Member, Operator, Proposal,
    Quorum, QuorumRule, SiteCheckpoint, Vote,
};
use crate::checkpoint::SignedCheckpoint;
use crate::cosignature::CosignerKey;
use crate::entry::{Entry, EntryError, EntryKind};
use crate::identity::VerifierKey;
use crate::leaf::LEAF_BYTES;
use crate::policy::{Policy, PolicyLog, PolicyWitness, Rule, usual_threshold};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// The most members.
pub const MAX_MEMBERS: usize = 64;
/// The most keys that are registered, revoked ones among them.
pub const MAX_KEYS: usize = 1_000_000;
/// The most proposals that are open.
pub const MAX_OPEN: usize = 64;
/// Entries after which an open proposal expires.
pub const OPEN_FOR: u64 = 1_000_000;
/// Resolved proposals that are remembered, so that a late ballot is told what happened.
const REMEMBERED: usize = 1_024;

/// What an entry did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Applied {
    /// It is in the log; nothing changed.
    Noted,
    /// Keys, sites or proposals changed.
    Changed,
    /// A proposal was resolved by it.
    Resolved(Outcome),
}

/// How a proposal ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Its change holds from here on.
    Accepted,
    /// It could not pass any more.
    Rejected,
    /// Nobody decided in time.
    Expired,
}

/// Why the rules refuse an entry. It changes nothing, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The entry itself.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Meant for another log.
    #[error("the entry is meant for the log {0}")]
    OtherLog(String),
    /// Out of place: the log has no genesis yet, or one already, or has ended.
    #[error("{0}")]
    Place(&'static str),
    /// Nobody who may say this has signed it.
    #[error("nobody who may say this has signed it (the entry names {0})")]
    Signer(String),
    /// The key was revoked.
    #[error("the key of {name} was revoked at index {at}")]
    Revoked {
        /// Whose.
        name: String,
        /// Since when.
        at: u64,
    },
    /// What it says makes no sense in this state.
    #[error("{0}")]
    Content(&'static str),
    /// A limit.
    #[error("the log has as many {0} as it can hold")]
    Limit(&'static str),
}

/// A key and since when it speaks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RegisteredKey {
    /// Whose.
    pub kind: KeyKind,
    /// The verifier key.
    pub key: String,
    /// The member that registered it.
    pub by: String,
    /// Index of the registration.
    pub since: u64,
    /// Index of the revocation.
    pub revoked: Option<u64>,
}

/// A proposal that is open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Open {
    proposal: Proposal,
    by: String,
    since: u64,
    votes: BTreeMap<String, Vote>,
}

/// That the log came to its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// Index of the ballot that decided it.
    pub at: u64,
    /// Who operates the log that follows.
    pub next: Operator,
}

/// The state after some entries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    origin: String,
    size: u64,
    genesis: Option<Genesis>,
    members: BTreeMap<String, Member>,
    keys: BTreeMap<String, RegisteredKey>,
    sites: BTreeMap<String, Site>,
    open: BTreeMap<String, Open>,
    resolved: Vec<(String, Outcome)>,
    ended: Option<Ended>,
}

/// Where a site's log stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Site {
    size: u64,
    root: String,
    commitments: u64,
}

/// What is told of a state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Summary {
    /// The log's origin.
    pub origin: String,
    /// Entries applied.
    pub size: u64,
    /// [`State::digest`] in hexadecimal digits.
    pub digest: String,
    /// Who operates.
    pub operator: Option<Operator>,
    /// SHA-256 of the bundle of access policies.
    pub access_policy: Option<String>,
    /// Open proposals: id, who proposed, why, votes.
    pub proposals: Vec<OpenProposal>,
    /// Sites by origin: size of the last checkpoint.
    pub sites: BTreeMap<String, u64>,
    /// That it came to its end.
    pub ended: Option<Ended>,
}

/// An open proposal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OpenProposal {
    /// Its id.
    pub id: String,
    /// Who proposed.
    pub by: String,
    /// What.
    pub change: Change,
    /// Why.
    pub reason: String,
    /// Votes so far.
    pub votes: BTreeMap<String, Vote>,
}

impl State {
    /// The state before the first entry of the log `origin`.
    pub fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            size: 0,
            genesis: None,
            members: BTreeMap::new(),
            keys: BTreeMap::new(),
            sites: BTreeMap::new(),
            open: BTreeMap::new(),
            resolved: Vec::new(),
            ended: None,
        }
    }

    /// Applies the entry at `index`, which is the next one.
    ///
    /// # Errors
    /// If the rules refuse it. It counts as applied all the same, and has changed nothing.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Result<Applied, Refused> {
        self.size = index + 1;
        self.expire(index);
        if entry.origin() != self.origin {
            return Err(Refused::OtherLog(entry.origin().to_owned()));
        }
        match (entry.kind(), &self.genesis, &self.ended) {
            (EntryKind::Genesis, None, _) if index == 0 => return self.begin(entry),
            (EntryKind::Genesis, ..) => {
                return Err(Refused::Place("a log has one genesis, at its first place"));
            }
            (_, None, _) => return Err(Refused::Place("the log has no genesis")),
            (_, _, Some(_)) => {
                return Err(Refused::Place(
                    "the log has ended: its members chose another operator",
                ));
            }
            _ => {}
        }
        match entry.kind() {
            EntryKind::Key => self.key(index, entry),
            EntryKind::SiteCheckpoint => self.site_checkpoint(entry),
            EntryKind::Commitment => self.commitment(entry),
            EntryKind::Proposal => self.propose(index, entry),
            EntryKind::Ballot => self.vote(index, entry),
            _ => {
                self.speaker(entry)?;
                Ok(Applied::Noted)
            }
        }
    }

    /// As [`State::apply`], where an entry that is not a form of one is passed over as well: what everybody
    /// does with the bytes that are in a log.
    pub fn pass(&mut self, index: u64) {
        self.size = index + 1;
        self.expire(index);
    }

    /// Entries applied, refused ones among them.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The log's origin.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// SHA-256 of the state: who has the same entries has the same.
    pub fn digest(&self) -> [u8; 32] {
        // Maps are ordered and there is no number that JSON could not hold: one state, one text.
        Sha256::digest(serde_json::to_vec(self).unwrap_or_default()).into()
    }

    /// The members, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// One member.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.get(name)
    }

    /// A key that is or was registered, by its name.
    pub fn registered(&self, name: &str) -> Option<&RegisteredKey> {
        self.keys.get(name)
    }

    /// The keys that are registered, by name.
    pub fn keys(&self) -> impl Iterator<Item = (&String, &RegisteredKey)> {
        self.keys.iter()
    }

    /// SHA-256 of the bundle of access policies that holds, 64 hexadecimal digits.
    pub fn access_policy(&self) -> Option<&str> {
        self.genesis.as_ref().map(|genesis| genesis.access_policy.as_str())
    }

    /// Whether and how the log came to its end.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// What is told of it.
    pub fn summary(&self) -> Summary {
        let proposals = self.open.iter().map(|(id, open)| OpenProposal {
            id: id.clone(),
            by: open.by.clone(),
            change: open.proposal.change.clone(),
            reason: open.proposal.reason.clone(),
            votes: open.votes.clone(),
        });
        Summary {
            origin: self.origin.clone(),
            size: self.size,
            digest: hex::encode(self.digest()),
            operator: self.genesis.as_ref().map(|genesis| genesis.operator.clone()),
            access_policy: self.access_policy().map(str::to_owned),
            proposals: proposals.collect(),
            sites: self.sites.iter().map(|(name, site)| (name.clone(), site.size)).collect(),
            ended: self.ended.clone(),
        }
    }

    /// Whose cosignatures make a checkpoint of this log count now.
    pub fn policy(&self) -> Policy {
        let Some(genesis) = &self.genesis else { return Policy::default() };
        policy(&genesis.operator, &self.members, &genesis.quorum).unwrap_or_default()
    }

    /// How many votes an entry of this kind needs before it counts.
    pub fn votes_needed(&self, kind: EntryKind) -> usize {
        let own = self.genesis.as_ref().and_then(|genesis| genesis.quorum.kinds.get(kind.as_str()));
        own.copied().unwrap_or_else(|| usual_threshold(self.votes()))
    }

    fn votes(&self) -> usize {
        self.members.values().map(|member| member.cosigners.len()).sum()
    }

    fn begin(&mut self, entry: &Entry) -> Result<Applied, Refused> {
        let genesis: Genesis = entry.body()?;
        let mut members = BTreeMap::new();
        for member in &genesis.members {
            let key = check_member(member)?;
            entry.verify(&key)?;
            if members.insert(member.name.clone(), member.clone()).is_some() {
                return Err(Refused::Content("a member is there twice"));
            }
        }
        let Some(_) = members.get(&genesis.operator.member) else {
            return Err(Refused::Content("the operator is not a member"));
        };
        if !(1..=MAX_MEMBERS).contains(&members.len()) {
            return Err(Refused::Limit("members"));
        }
        check_operator(&genesis.operator, &self.origin)?;
        check_hash(&genesis.access_policy)?;
        check_quorum(&genesis.operator, &members, &genesis.quorum)?;
        self.members = members;
        self.genesis = Some(genesis);
        Ok(Applied::Changed)
    }

    fn key(&mut self, index: u64, entry: &Entry) -> Result<Applied, Refused> {
        let by = self.member_who_signed(entry)?;
        let body: Key = entry.body()?;
        let key: VerifierKey =
            body.key.parse().map_err(|_| Refused::Content("the verifier key is malformed"))?;
        let name = key.origin().to_owned();
        match (body.action, self.keys.get_mut(&name)) {
            (KeyAction::Register, _) if self.members.contains_key(&name) => {
                Err(Refused::Content("the name is a member's"))
            }
            (KeyAction::Register, Some(own)) if own.revoked.is_none() => {
                Err(Refused::Content("the name has a key already: revoke that first"))
            }
            (KeyAction::Register, Some(own)) if own.by != by => {
                Err(Refused::Content("the name was registered by another member"))
            }
            (KeyAction::Register, Some(own)) if own.key == body.key => {
                Err(Refused::Content("a key that was revoked does not come back: make a new one"))
            }
            (KeyAction::Register, _) => {
                if self.keys.len() >= MAX_KEYS {
                    return Err(Refused::Limit("keys"));
                }
                let (kind, key) = (body.kind, body.key);
                let registered = RegisteredKey { kind, key, by, since: index, revoked: None };
                self.keys.insert(name, registered);
                Ok(Applied::Changed)
            }
            (KeyAction::Revoke, Some(own)) => {
                if own.by != by {
                    return Err(Refused::Content("the key was registered by another member"));
                }
                if own.key != body.key || own.revoked.is_some() {
                    return Err(Refused::Content("this key is not registered now"));
                }
                own.revoked = Some(index);
                Ok(Applied::Changed)
            }
            (KeyAction::Revoke, None) => Err(Refused::Content("this key is not registered now")),
        }
    }

    fn site_checkpoint(&mut self, entry: &Entry) -> Result<Applied, Refused> {
        let (name, key) = self.registered_who_signed(entry, KeyKind::Fog)?;
        let body: SiteCheckpoint = entry.body()?;
        let keys = std::slice::from_ref(&key);
        let checkpoint = SignedCheckpoint::open(body.checkpoint.as_bytes(), keys)
            .map_err(|_| Refused::Content("the checkpoint is not signed by the site's log"))?;
        let root = hex::encode(checkpoint.root());
        let site =
            self.sites.entry(name).or_insert(Site { size: 0, root: String::new(), commitments: 0 });
        if checkpoint.size() < site.size {
            return Err(Refused::Content("the site has put a larger checkpoint here before"));
        }
        if checkpoint.size() == site.size && site.root != root && !site.root.is_empty() {
            return Err(Refused::Content("the site has signed another root of this size before"));
        }
        (site.size, site.root) = (checkpoint.size(), root);
        Ok(Applied::Changed)
    }

    fn commitment(&mut self, entry: &Entry) -> Result<Applied, Refused> {
        let (name, _) = self.registered_who_signed(entry, KeyKind::Fog)?;
        let body: Commitment = entry.body()?;
        if body.site != name {
            return Err(Refused::Content("a site speaks of its own log only"));
        }
        let mut leaf = [0; LEAF_BYTES];
        if hex::decode_to_slice(&body.leaf, &mut leaf).is_err() || hex::encode(leaf) != body.leaf {
            return Err(Refused::Content("the leaf is 68 hexadecimal digits"));
        }
        let site =
            self.sites.entry(name).or_insert(Site { size: 0, root: String::new(), commitments: 0 });
        site.commitments += 1;
        Ok(Applied::Changed)
    }

    fn propose(&mut self, index: u64, entry: &Entry) -> Result<Applied, Refused> {
        let by = self.member_who_signed(entry)?;
        let proposal: Proposal = entry.body()?;
        let id = hex::encode(entry.id());
        if self.open.contains_key(&id) || self.resolved.iter().any(|(old, _)| *old == id) {
            return Err(Refused::Content("this was proposed already: say it in other words"));
        }
        if self.open.len() >= MAX_OPEN {
            return Err(Refused::Limit("open proposals"));
        }
        self.changed(&proposal.change)?;
        let votes = BTreeMap::from([(by.clone(), Vote::Accept)]);
        self.open.insert(id.clone(), Open { proposal, by, since: index, votes });
        self.resolve(index, &id)
    }

    fn vote(&mut self, index: u64, entry: &Entry) -> Result<Applied, Refused> {
        let by = self.member_who_signed(entry)?;
        let ballot: Ballot = entry.body()?;
        let Some(open) = self.open.get_mut(&ballot.proposal) else {
            return Err(match self.resolved.iter().any(|(old, _)| *old == ballot.proposal) {
                true => Refused::Content("the proposal is resolved already"),
                false => Refused::Content("there is no such proposal"),
            });
        };
        if open.votes.contains_key(&by) {
            return Err(Refused::Content("this member has voted on it already"));
        }
        open.votes.insert(by, ballot.vote);
        self.resolve(index, &ballot.proposal)
    }

    /// Ends a proposal that can be decided.
    fn resolve(&mut self, index: u64, id: &str) -> Result<Applied, Refused> {
        let Some(open) = self.open.get(id) else { return Ok(Applied::Noted) };
        let (mut accepted, mut rejected) = (0, 0);
        for (member, vote) in &open.votes {
            // A member without a witness has one voice in what changes, or it could never leave.
            let weight = self.members.get(member).map_or(0, weight);
            match vote {
                Vote::Accept => accepted += weight,
                Vote::Reject => rejected += weight,
            }
        }
        let all: usize = self.members.values().map(weight).sum();
        let own = self.genesis.as_ref().and_then(|genesis| genesis.quorum.kinds.get("proposal"));
        let needed = own.copied().unwrap_or_else(|| usual_threshold(all)).min(all);
        if accepted >= needed {
            let change = open.proposal.change.clone();
            // What could be done when it was proposed may have become impossible since.
            let outcome = match self.changed(&change) {
                Ok(next) => {
                    self.members = next.members;
                    self.genesis = next.genesis;
                    if let Change::Operator(operator) = change {
                        self.ended = Some(Ended { at: index, next: operator });
                    }
                    Outcome::Accepted
                }
                Err(_) => Outcome::Rejected,
            };
            Ok(self.end(id, outcome))
        } else if all - rejected < needed {
            Ok(self.end(id, Outcome::Rejected))
        } else {
            Ok(Applied::Changed)
        }
    }

    fn end(&mut self, id: &str, outcome: Outcome) -> Applied {
        self.open.remove(id);
        if self.resolved.len() >= REMEMBERED {
            self.resolved.remove(0);
        }
        self.resolved.push((id.to_owned(), outcome));
        Applied::Resolved(outcome)
    }

    fn expire(&mut self, index: u64) {
        let old = |open: &Open| index.saturating_sub(open.since) >= OPEN_FOR;
        let expired: Vec<String> =
            self.open.iter().filter(|(_, open)| old(open)).map(|(id, _)| id.clone()).collect();
        for id in expired {
            self.end(&id, Outcome::Expired);
        }
    }

    /// Members and genesis after a change.
    fn changed(&self, change: &Change) -> Result<Next, Refused> {
        let (mut members, mut genesis) = (self.members.clone(), self.genesis.clone());
        let Some(own) = &mut genesis else { return Err(Refused::Place("the log has no genesis")) };
        match change {
            Change::AddMember(member) => {
                check_member(member)?;
                if self.keys.contains_key(&member.name)
                    || members.insert(member.name.clone(), member.clone()).is_some()
                {
                    return Err(Refused::Content("the name is taken"));
                }
                if members.len() > MAX_MEMBERS {
                    return Err(Refused::Limit("members"));
                }
            }
            Change::RemoveMember { name } => {
                if *name == own.operator.member {
                    return Err(Refused::Content(
                        "the operator cannot be removed: change it first",
                    ));
                }
                if members.remove(name).is_none() {
                    return Err(Refused::Content("there is no such member"));
                }
            }
            Change::RotateKeys(member) => {
                check_member(member)?;
                match members.get_mut(&member.name) {
                    Some(old) if old != member => old.clone_from(member),
                    Some(_) => return Err(Refused::Content("nothing would change")),
                    None => return Err(Refused::Content("there is no such member")),
                }
            }
            Change::Quorum(quorum) => own.quorum.clone_from(quorum),
            Change::AccessPolicy { hash } => {
                check_hash(hash)?;
                own.access_policy.clone_from(hash);
            }
            Change::Operator(operator) => {
                let key: VerifierKey = operator
                    .log
                    .parse()
                    .map_err(|_| Refused::Content("the next log's key is malformed"))?;
                if key.origin() == self.origin {
                    return Err(Refused::Content("the next log needs an origin of its own"));
                }
                if !members.contains_key(&operator.member) {
                    return Err(Refused::Content("the next operator is not a member"));
                }
            }
        }
        if members == self.members
            && genesis == self.genesis
            && !matches!(change, Change::Operator(_))
        {
            return Err(Refused::Content("nothing would change"));
        }
        if let Some(own) = &genesis {
            check_quorum(&own.operator, &members, &own.quorum)?;
        }
        Ok(Next { members, genesis })
    }

    /// The member who signed an entry: the first signature is its author's.
    fn member_who_signed(&self, entry: &Entry) -> Result<String, Refused> {
        let name = entry.signers().first().cloned().unwrap_or_default();
        let member = self.members.get(&name).ok_or_else(|| Refused::Signer(name.clone()))?;
        let key: VerifierKey =
            member.key.parse().map_err(|_| Refused::Content("the member's key is malformed"))?;
        entry.verify(&key)?;
        Ok(name)
    }

    fn registered_who_signed(
        &self,
        entry: &Entry,
        kind: KeyKind,
    ) -> Result<(String, VerifierKey), Refused> {
        let name = entry.signers().first().cloned().unwrap_or_default();
        let own = self.keys.get(&name).filter(|own| own.kind == kind);
        let own = own.ok_or_else(|| Refused::Signer(name.clone()))?;
        if let Some(at) = own.revoked {
            return Err(Refused::Revoked { name, at });
        }
        let key: VerifierKey =
            own.key.parse().map_err(|_| Refused::Content("the registered key is malformed"))?;
        entry.verify(&key)?;
        Ok((name, key))
    }

    /// Any member or registered key.
    fn speaker(&self, entry: &Entry) -> Result<(), Refused> {
        let name = entry.signers().first().cloned().unwrap_or_default();
        match self.keys.get(&name).map(|own| own.kind) {
            Some(kind) => self.registered_who_signed(entry, kind).map(|_| ()),
            None => self.member_who_signed(entry).map(|_| ()),
        }
    }
}

struct Next {
    members: BTreeMap<String, Member>,
    genesis: Option<Genesis>,
}

/// A member's voice in what changes.
fn weight(member: &Member) -> usize {
    member.cosigners.len().max(1)
}

fn check_member(member: &Member) -> Result<VerifierKey, Refused> {
    let key: VerifierKey =
        member.key.parse().map_err(|_| Refused::Content("a member's key is malformed"))?;
    if key.origin() != member.name {
        return Err(Refused::Content("a member's name is the name of its key"));
    }
    let mut seen = BTreeSet::new();
    for cosigner in &member.cosigners {
        if cosigner.parse::<CosignerKey>().is_err() || !seen.insert(cosigner) {
            return Err(Refused::Content("a member's cosigner key is malformed or there twice"));
        }
    }
    if !member.cosigners.is_empty() && member.url.is_none() {
        return Err(Refused::Content("a member with a witness needs its url"));
    }
    check_hash(&member.admission)?;
    Ok(key)
}

fn check_operator(operator: &Operator, origin: &str) -> Result<(), Refused> {
    let key: VerifierKey =
        operator.log.parse().map_err(|_| Refused::Content("the log's key is malformed"))?;
    match key.origin() == origin {
        true => Ok(()),
        false => Err(Refused::Content("the log's key is not of this log's origin")),
    }
}

fn check_hash(hash: &str) -> Result<(), Refused> {
    let mut bytes = [0; 32];
    match hex::decode_to_slice(hash, &mut bytes).is_ok() && hex::encode(bytes) == hash {
        true => Ok(()),
        false => Err(Refused::Content("a hash is 64 lower-case hexadecimal digits")),
    }
}

/// The quorum must be one that these members can reach.
fn check_quorum(
    operator: &Operator,
    members: &BTreeMap<String, Member>,
    quorum: &Quorum,
) -> Result<(), Refused> {
    let votes: usize = members.values().map(|member| member.cosigners.len()).sum();
    let reachable = |(kind, needed): (&String, &usize)| {
        kind.parse::<EntryKind>().is_ok() && (1..=votes.max(1)).contains(needed)
    };
    if !quorum.kinds.iter().all(reachable) {
        return Err(Refused::Content("a kind's threshold names no kind or cannot be reached"));
    }
    match policy(operator, members, quorum) {
        Some(_) => Ok(()),
        None => Err(Refused::Content("the quorum names who is no member or cannot be reached")),
    }
}

/// The C2SP policy of a log with these members; `None` if there is none that can be met.
fn policy(
    operator: &Operator,
    members: &BTreeMap<String, Member>,
    quorum: &Quorum,
) -> Option<Policy> {
    let logs = vec![PolicyLog { key: operator.log.parse().ok()?, url: Some(operator.url.clone()) }];
    let mut witnesses = Vec::new();
    for member in members.values() {
        for (place, cosigner) in member.cosigners.iter().enumerate() {
            let key = cosigner.parse().ok()?;
            let name = vote_name(&member.name, place);
            witnesses.push(PolicyWitness { name, key, url: member.url.clone() });
        }
    }
    let all = |member: &Member| -> Vec<Rule> {
        (0..member.cosigners.len()).map(|n| Rule::Witness(vote_name(&member.name, n))).collect()
    };
    let rule = match &quorum.rule {
        Some(rule) => Some(to_rule(rule, members, &all)?),
        None => {
            let votes: Vec<Rule> = members.values().flat_map(all).collect();
            let needed = usual_threshold(votes.len());
            (!votes.is_empty()).then_some(Rule::AtLeast(needed, votes))
        }
    };
    Policy::new(logs, witnesses, rule.as_ref()).ok()
}

fn to_rule(
    rule: &QuorumRule,
    members: &BTreeMap<String, Member>,
    all: &impl Fn(&Member) -> Vec<Rule>,
) -> Option<Rule> {
    match rule {
        QuorumRule::Member(name) => match all(members.get(name)?).as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            votes => Some(Rule::AtLeast(votes.len(), votes.to_vec())),
        },
        QuorumRule::AtLeast(needed, rules) => {
            let rules: Option<Vec<Rule>> =
                rules.iter().map(|rule| to_rule(rule, members, all)).collect();
            Some(Rule::AtLeast(*needed, rules?))
        }
    }
}

/// How a policy names one vote of a member.
fn vote_name(member: &str, place: usize) -> String {
    match place {
        0 => member.to_owned(),
        place => format!("{member}#{}", place + 1),
    }
}
