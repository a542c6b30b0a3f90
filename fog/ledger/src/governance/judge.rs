//! What an entry would do, without doing it.
//!
//! Everything is decided here, from the state and the entry; `State::make` only writes it down. So what
//! is refused cannot have changed anything, and an operator asks the very function that all others run.

use super::bodies::{
    Ballot, Change, Genesis, MAX_EXPIRY_LEAVES, MAX_MEMBERS, MAX_REASON_BYTES, Member, Predecessor,
    Proposal, Vote,
};
use super::keys::{KeyBody, Register, RegisteredKey, Role};
use super::names::{Digest, Hex, MemberName, StatementKey};
use super::quorum::Quorums;
use super::refused::Refused;
use super::sites::{CommitmentBody, DeviceTally, MAX_DEVICE_TALLIES, SiteCheckpointBody, SiteHead};
use super::state::{MAX_PROPOSALS_PER_MEMBER, Rules, State};
use crate::checkpoint::SignedCheckpoint;
use crate::custody::{CustodyBody, Hands};
use crate::entry::{Entry, EntryError, EntryId, EntryKind};
use signed_note::{Note, VerifierList};
use std::collections::{BTreeMap, BTreeSet};
use tlog_tiles::Checkpoint;

/// What an entry does.
pub(super) enum Effect {
    SiteCheckpoint {
        site: String,
        checkpoint: Box<SignedCheckpoint>,
        devices: BTreeMap<String, DeviceTally>,
    },
    Commitment(CommitmentBody),
    Register(Box<RegisteredKey>),
    Revoke(StatementKey),
    Propose {
        id: EntryId,
        by: MemberName,
        proposal: Box<Proposal>,
    },
    Vote {
        id: Digest,
        by: MemberName,
        vote: Vote,
    },
    Custody {
        id: EntryId,
        by: String,
        body: CustodyBody,
    },
    Remember(EntryId),
}

/// Somebody whose signature was checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signer<'a> {
    Member(&'a Member),
    Key(&'a RegisteredKey),
    /// A key that is about to be registered.
    Newcomer,
}

pub(super) fn genesis_body(entry: &Entry) -> Result<Genesis, Refused> {
    if entry.kind() != EntryKind::Genesis {
        return Err(Refused::Genesis);
    }
    let genesis: Genesis = entry.body()?;
    if entry.origin() != genesis.operator.log.name() {
        return Err(Refused::Origin(entry.origin().to_owned()));
    }
    Ok(genesis)
}

impl State {
    pub(super) fn judge(&self, index: u64, entry: &Entry) -> Result<Effect, Refused> {
        if self.ended.is_some() {
            return Err(Refused::Ended);
        }
        if entry.origin() != self.origin() {
            return Err(Refused::Origin(entry.origin().to_owned()));
        }
        match entry.kind() {
            EntryKind::Genesis => Err(Refused::Genesis),
            EntryKind::SiteCheckpoint => self.site_checkpoint(entry),
            EntryKind::Commitment => self.commitment(entry),
            EntryKind::Key => self.key(entry),
            EntryKind::Proposal => self.proposal(entry),
            EntryKind::Ballot => self.ballot(index, entry),
            EntryKind::Evidence => self.remember(entry, &[Role::Fog, Role::Edge]),
            EntryKind::Reidentification => self.remember(entry, &[Role::Custodian]),
            EntryKind::Custody => self.custody(entry),
        }
    }

    /// Whether a genesis with `rules` after `predecessor` follows this state.
    pub(super) fn followed_by(
        &self,
        rules: &Rules,
        predecessor: Option<&Predecessor>,
    ) -> Result<(), Refused> {
        let wrong = |what| Err(Refused::Successor(what));
        let Some(predecessor) = predecessor else { return wrong("it names no log before it") };
        if predecessor.origin != self.origin() || rules.operator.log.name() == self.origin() {
            return wrong("it must name this log's origin and have another of its own");
        }
        if predecessor.state != self.digest() {
            return wrong("it names another state, or another size, than this log has here");
        }
        let size = checkpoint_size(&predecessor.checkpoint, &self.rules.operator.log);
        if size != Some(self.next_index) {
            return wrong("its checkpoint is not one of this log at this size");
        }
        if self.ended.as_ref().is_some_and(|elected| *elected != rules.operator) {
            return wrong("its operator is not the one that was elected");
        }
        let mut same = self.rules.clone();
        same.operator = rules.operator.clone();
        if same == *rules { Ok(()) } else { wrong("it changes more than the operator") }
    }

    fn site_checkpoint(&self, entry: &Entry) -> Result<Effect, Refused> {
        let body: SiteCheckpointBody = entry.body()?;
        let site = self.only_key(entry, &[Role::Fog])?;
        let vkey = std::slice::from_ref(site.key.vkey());
        let checkpoint = SignedCheckpoint::open(body.checkpoint.as_bytes(), vkey)?;
        let fresh = SiteHead::default();
        let head = self.site(site.key.name()).unwrap_or(&fresh);
        head.admits(&checkpoint, &body.proof)?;
        if body.devices.len() > MAX_DEVICE_TALLIES {
            return Err(Refused::Full);
        }
        // A device that this member has not registered is nobody's: it gets no history.
        let known = |name: &String| {
            self.keys
                .named(name)
                .iter()
                .any(|key| key.role == Role::Device && key.member == site.member)
        };
        let devices = body.devices.into_iter().filter(|(name, _)| known(name)).collect();
        let site = site.key.name().to_owned();
        Ok(Effect::SiteCheckpoint { site, checkpoint: Box::new(checkpoint), devices })
    }

    fn commitment(&self, entry: &Entry) -> Result<Effect, Refused> {
        let body: CommitmentBody = entry.body()?;
        let site = self.only_key(entry, &[Role::Fog])?;
        if site.key.name() != body.site {
            return Err(not_allowed(entry));
        }
        if let Some(head) = self.site(&body.site) {
            head.admits_leaf(body.index, &body.leaf)?;
        } else {
            SiteHead::default().admits_leaf(body.index, &body.leaf)?;
        }
        Ok(Effect::Commitment(body))
    }

    fn key(&self, entry: &Entry) -> Result<Effect, Refused> {
        match entry.body()? {
            KeyBody::Register { key, role } => self.register(entry, key, role),
            KeyBody::Revoke { key } => {
                let known = self.keys.find(&key).ok_or(Refused::NoKey)?;
                if known.revoked.is_some() {
                    return Err(Refused::Again);
                }
                let may = match self.signers(entry, None)?[..] {
                    [Signer::Member(member)] => member.name == known.member,
                    [Signer::Key(by)] => by.key == key || by.key.name() == known.by,
                    _ => return Err(Refused::Signers(entry.kind())),
                };
                if may { Ok(Effect::Revoke(key)) } else { Err(not_allowed(entry)) }
            }
        }
    }

    fn register(&self, entry: &Entry, key: StatementKey, role: Role) -> Result<Effect, Refused> {
        if self.rules.members.keys().any(|member| member.as_str() == key.name()) {
            return Err(Refused::KeyName);
        }
        let (member, by) = match self.signers(entry, Some(&key))?[..] {
            [Signer::Member(member), Signer::Newcomer] => (&member.name, member.name.as_str()),
            [Signer::Key(by), Signer::Newcomer] if by.role.registers(role) => {
                (&by.member, by.key.name())
            }
            [Signer::Key(by), Signer::Newcomer] => {
                return Err(Refused::Registrar { by: by.role, role });
            }
            _ => return Err(Refused::Signers(entry.kind())),
        };
        self.keys.admits(&key, role, member)?;
        let (member, by) = (member.clone(), by.to_owned());
        let registered = RegisteredKey { key, role, member, by, registered: 0, revoked: None };
        Ok(Effect::Register(Box::new(registered)))
    }

    fn proposal(&self, entry: &Entry) -> Result<Effect, Refused> {
        let proposal: Proposal = entry.body()?;
        let by = self.only_member(entry)?.name.clone();
        let id = entry.id();
        if self.open.contains_key(&Hex(id)) || self.resolved.contains_key(&Hex(id)) {
            return Err(Refused::Again);
        }
        if proposal.version != self.version {
            return Err(Refused::Version { expected: self.version, found: proposal.version });
        }
        if !is_plain(&proposal.reason) || !(1..=MAX_EXPIRY_LEAVES).contains(&proposal.expires_after)
        {
            return Err(Refused::ProposalLimits);
        }
        let open = self.open.values().filter(|open| open.by == by).count();
        let closed = self.resolved.values();
        let closed =
            closed.filter(|closed| closed.by == by && closed.version == self.version).count();
        if open + closed >= MAX_PROPOSALS_PER_MEMBER {
            return Err(Refused::TooManyProposals);
        }
        self.rules.after(&proposal.change, &self.keys)?;
        Ok(Effect::Propose { id, by, proposal: Box::new(proposal) })
    }

    fn ballot(&self, index: u64, entry: &Entry) -> Result<Effect, Refused> {
        let ballot: Ballot = entry.body()?;
        let by = self.only_member(entry)?.name.clone();
        let id = ballot.proposal;
        if let Some(resolved) = self.resolved.get(&id) {
            return Err(Refused::Closed(resolved.resolution));
        }
        let open = self.open.get(&id).ok_or(Refused::NoProposal)?;
        if open.expired_at(index) {
            return Err(Refused::Closed(super::state::Resolution::Expired));
        }
        let (same, other) = match ballot.vote {
            Vote::Yes => (&open.yes, &open.no),
            Vote::No => (&open.no, &open.yes),
        };
        match () {
            () if same.contains(&by) => Err(Refused::Again),
            () if other.contains(&by) => Err(Refused::Voted),
            () => Ok(Effect::Vote { id, by, vote: ballot.vote }),
        }
    }

    fn custody(&self, entry: &Entry) -> Result<Effect, Refused> {
        let body: CustodyBody = entry.body()?;
        let hands = match self.signers(entry, None)?[..] {
            [Signer::Member(one)] => Hands::One(&one.name),
            [Signer::Member(giver), Signer::Member(receiver)] => {
                Hands::Two(&giver.name, &receiver.name)
            }
            [Signer::Key(key)] if key.role == Role::Fog => Hands::Fog(key.key.name(), &key.member),
            [Signer::Key(_)] => return Err(not_allowed(entry)),
            _ => return Err(Refused::Signers(entry.kind())),
        };
        self.items.admits(&body, entry.id(), hands)?;
        let by = entry.signers().first().cloned().unwrap_or_default();
        Ok(Effect::Custody { id: entry.id(), by, body })
    }

    /// An entry whose object is other modules' concern: signed by one member or one key of these roles.
    fn remember(&self, entry: &Entry, roles: &[Role]) -> Result<Effect, Refused> {
        match self.signers(entry, None)?[..] {
            [Signer::Member(_)] => {}
            [Signer::Key(key)] if roles.contains(&key.role) => {}
            [Signer::Key(_)] => return Err(not_allowed(entry)),
            _ => return Err(Refused::Signers(entry.kind())),
        }
        if self.remembered.contains_key(&Hex(entry.id())) {
            return Err(Refused::Again);
        }
        Ok(Effect::Remember(entry.id()))
    }

    fn only_member(&self, entry: &Entry) -> Result<&Member, Refused> {
        match self.signers(entry, None)?[..] {
            [Signer::Member(member)] => Ok(member),
            [Signer::Key(_)] => Err(not_allowed(entry)),
            _ => Err(Refused::Signers(entry.kind())),
        }
    }

    fn only_key(&self, entry: &Entry, roles: &[Role]) -> Result<&RegisteredKey, Refused> {
        match self.signers(entry, None)?[..] {
            [Signer::Key(key)] if roles.contains(&key.role) => Ok(key),
            [_] => Err(not_allowed(entry)),
            _ => Err(Refused::Signers(entry.kind())),
        }
    }

    /// Who signed, each of them checked, in the order of the signatures.
    fn signers(
        &self,
        entry: &Entry,
        newcomer: Option<&StatementKey>,
    ) -> Result<Vec<Signer<'_>>, Refused> {
        let (mut names, mut signers) = (BTreeSet::new(), Vec::new());
        for name in entry.signers() {
            let member = self.rules.members.values().find(|member| member.name.as_str() == name);
            signers.push(match (member, newcomer) {
                _ if !names.insert(name) => return Err(Refused::Signers(entry.kind())),
                (Some(member), _) => {
                    entry.verify(member.key.vkey())?;
                    Signer::Member(member)
                }
                (None, Some(key)) if key.name() == name => {
                    entry.verify(key.vkey())?;
                    Signer::Newcomer
                }
                _ => Signer::Key(self.key_signer(entry, name)?),
            });
        }
        Ok(signers)
    }

    fn key_signer(&self, entry: &Entry, name: &str) -> Result<&RegisteredKey, Refused> {
        for key in self.keys.named(name) {
            match (entry.verify(key.key.vkey()), key.revoked) {
                (Ok(()), None) => return Ok(key),
                (Ok(()), Some(index)) => {
                    return Err(Refused::Revoked { name: name.to_owned(), index });
                }
                // Another key of that name, such as the one after a rotation.
                (Err(EntryError::NotSigned(_)), _) => {}
                (Err(error), _) => return Err(error.into()),
            }
        }
        Err(Refused::Stranger(name.to_owned()))
    }
}

impl Rules {
    pub(super) fn of(genesis: &Genesis) -> Result<Self, Refused> {
        if genesis.consortium.is_empty() || !is_plain(&genesis.consortium) {
            return Err(Refused::GenesisBody(
                "the consortium's name is empty, too long or not plain",
            ));
        }
        let named = genesis.members.iter().map(|member| (member.name.clone(), member.clone()));
        let members: BTreeMap<_, _> = named.collect();
        if !members.values().eq(&genesis.members) {
            return Err(Refused::GenesisBody(
                "members must stand once each, in the order of their names",
            ));
        }
        let rules = Self {
            consortium: genesis.consortium.clone(),
            operator: genesis.operator.clone(),
            members,
            quorums: genesis.quorums.clone(),
            policy_bundle: genesis.policy_bundle,
        };
        rules.check().map_err(|why| match why {
            Unsound::Quorum(error) => Refused::Quorum(error),
            Unsound::Members(why) => Refused::GenesisBody(why),
        })?;
        Ok(rules)
    }

    /// Whether `entry` is signed by as many of these members as it takes to change the operator, and by
    /// nobody else.
    pub(super) fn signed_by_quorum(&self, entry: &Entry) -> Result<(), Refused> {
        let mut signed = BTreeSet::new();
        for name in entry.signers() {
            let member = self.members.values().find(|member| member.name.as_str() == name);
            let member = member.ok_or_else(|| Refused::Stranger(name.clone()))?;
            entry.verify(member.key.vkey())?;
            if !signed.insert(&member.name) {
                return Err(Refused::Signers(EntryKind::Genesis));
            }
        }
        let quorum = self.quorums.for_proposal(super::bodies::ChangeKind::ChangeOperator);
        if quorum.reached(&self.members, &|name: &MemberName| signed.contains(name)) {
            Ok(())
        } else {
            Err(Refused::Signers(EntryKind::Genesis))
        }
    }

    /// The rules after a change.
    pub(super) fn after(&self, change: &Change, keys: &Register) -> Result<Self, Refused> {
        let no = |why| Refused::Change { kind: change.kind(), why };
        let mut rules = self.clone();
        match change {
            Change::AddMember { member, quorums } => {
                if !keys.named(member.name.as_str()).is_empty() {
                    return Err(no("its name is that of a registered key"));
                }
                rules.replace(quorums.as_deref());
                if rules.members.insert(member.name.clone(), (**member).clone()).is_some() {
                    return Err(no("it is a member already"));
                }
            }
            Change::RemoveMember { member, quorums } => {
                rules.replace(quorums.as_deref());
                rules.members.remove(member).ok_or_else(|| no("it is no member"))?;
            }
            Change::RotateKey { member, key, cosigners } => {
                let member = rules.members.get_mut(member).ok_or_else(|| no("it is no member"))?;
                (member.key, member.cosigners) = ((**key).clone(), cosigners.clone());
            }
            Change::ChangeQuorum { quorums } => rules.replace(Some(quorums)),
            Change::ChangePolicy { bundle } => rules.policy_bundle = *bundle,
            // The rules of this log stay: it has ended, and the next one's genesis holds its own.
            Change::ChangeOperator { operator } => {
                return if operator.log.name() == self.operator.log.name() {
                    Err(no("the next log must have another origin"))
                } else {
                    Ok(rules)
                };
            }
        }
        rules.check().map_err(|why| match why {
            Unsound::Quorum(error) => Refused::Quorum(error),
            Unsound::Members(why) => no(why),
        })?;
        if rules == *self { Err(no("it changes nothing")) } else { Ok(rules) }
    }

    fn replace(&mut self, quorums: Option<&Quorums>) {
        if let Some(quorums) = quorums {
            self.quorums = quorums.clone();
        }
    }

    fn check(&self) -> Result<(), Unsound> {
        if !(1..=MAX_MEMBERS).contains(&self.members.len()) {
            return Err(Unsound::Members("a consortium has 1 to 64 members"));
        }
        if !self.members.values().all(Member::is_sound) {
            return Err(Unsound::Members(
                "a member's key bears its name, and it has 1 to 16 cosigner keys, no two the same",
            ));
        }
        // One key under two members would be one party counted twice.
        let mut keys = BTreeSet::from([self.operator.log.key()]);
        let statements = self.members.values().map(|member| member.key.key());
        let mut cosigners = self.members.values().flat_map(|member| &member.cosigners);
        if !statements.into_iter().all(|key| keys.insert(key))
            || !cosigners.all(|cosigner| keys.insert(cosigner.key()))
        {
            return Err(Unsound::Members("one key stands for two"));
        }
        self.quorums.check(&self.members).map_err(Unsound::Quorum)
    }
}

/// Why [`Rules`] cannot be.
enum Unsound {
    Members(&'static str),
    Quorum(super::quorum::QuorumError),
}

/// Words that can be shown to people as they are.
fn is_plain(text: &str) -> bool {
    text.len() <= MAX_REASON_BYTES && !text.chars().any(char::is_control)
}

/// The size that a checkpoint with whatever cosignatures says, if it is signed by `log`.
fn checkpoint_size(note: &str, log: &StatementKey) -> Option<u64> {
    let note = Note::from_bytes(note.as_bytes()).ok()?;
    note.verify(&VerifierList::new(vec![Box::new(log.vkey().note_verifier().clone())])).ok()?;
    let checkpoint = Checkpoint::from_bytes(note.text()).ok()?;
    (checkpoint.origin() == log.name()).then(|| checkpoint.size())
}

fn not_allowed(entry: &Entry) -> Refused {
    let who = entry.signers().first().cloned().unwrap_or_default();
    Refused::NotAllowed { who, kind: entry.kind() }
}
