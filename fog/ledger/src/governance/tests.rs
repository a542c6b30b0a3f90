//! What entries do to the state, and that everybody who applies them gets the same one.

mod property;
mod sites;
mod succession;

use super::*;
use crate::{Entry, EntryId, EntryKind, Identity};
use serde::Serialize;
use std::collections::BTreeMap;

pub(crate) const LOG: &str = "log.example/consortium";

/// A member of that weight, and its statement key. The same name gives the same keys.
pub(crate) fn member(name: &str, weight: usize) -> (Member, Identity) {
    let seed = |salt: u8| Digest::of(&[name.as_bytes(), &[salt]].concat()).0;
    let identity = Identity::generate(name, seed(0)).unwrap();
    let cosigners = (1..=weight as u8)
        .map(|n| names::cosigner(&format!("{name}/witness-{n}"), seed(n)))
        .collect();
    let member = Member {
        name: name.parse().unwrap(),
        key: identity.vkey().into(),
        cosigners,
        url: format!("https://{name}").parse().unwrap(),
        admission: Digest::of(name.as_bytes()),
    };
    (member, identity)
}

pub(crate) fn identity(name: &str) -> Identity {
    Identity::generate(name, Digest::of(name.as_bytes()).0).unwrap()
}

pub(crate) fn operator(origin: &str) -> Operator {
    Operator {
        name: "operator.example".parse().unwrap(),
        log: identity(origin).vkey().into(),
        url: "https://log.example".parse().unwrap(),
    }
}

/// A log in memory: its state and its entries, and everybody's keys.
pub(crate) struct Consortium {
    pub(crate) state: State,
    pub(crate) entries: Vec<Entry>,
    pub(crate) members: BTreeMap<String, Identity>,
}

impl Consortium {
    /// Of members a, b, c, d with weight 1 each.
    pub(crate) fn new() -> Self {
        let list: Vec<_> = ["a", "b", "c", "d"].map(|name| member(name, 1)).into();
        let (members, keys): (Vec<_>, Vec<_>) = list.into_iter().unzip();
        let genesis = Genesis {
            consortium: "Example".into(),
            operator: operator(LOG),
            members,
            quorums: Quorums::default(),
            policy_bundle: Digest::of(b"policies"),
            predecessor: None,
        };
        let signers: Vec<_> = keys.iter().collect();
        let entry = Entry::sign(EntryKind::Genesis, LOG, &genesis, &signers[..3]).unwrap();
        let state = State::genesis(&entry).unwrap();
        let members = keys.into_iter().map(|key| (key.origin().to_owned(), key)).collect();
        Self { state, entries: vec![entry], members }
    }

    /// Signs and applies an entry of a member.
    pub(crate) fn say(
        &mut self,
        who: &str,
        kind: EntryKind,
        body: &impl Serialize,
    ) -> Result<Applied, Refused> {
        let entry = Entry::sign(kind, LOG, body, &[&self.members[who]]).unwrap();
        self.apply(entry)
    }

    pub(crate) fn apply(&mut self, entry: Entry) -> Result<Applied, Refused> {
        let (index, asked) = (self.entries.len() as u64, self.state.may_append(&entry));
        let applied = self.state.apply(index, &entry);
        assert_eq!(asked, applied.clone().map(drop), "an operator would have said otherwise");
        self.entries.push(entry);
        applied
    }

    pub(crate) fn propose(&mut self, who: &str, change: Change, expires_after: u64) -> EntryId {
        let (version, reason) = (self.state.version(), format!("because {}", self.entries.len()));
        let proposal = Proposal { change, version, expires_after, reason };
        match self.say(who, EntryKind::Proposal, &proposal) {
            Ok(Applied::Proposed(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn vote(&mut self, who: &str, id: EntryId, vote: Vote) -> Result<Applied, Refused> {
        self.say(who, EntryKind::Ballot, &Ballot { proposal: Hex(id), vote })
    }

    /// All of a, b and c in favour: three of four.
    pub(crate) fn accept(&mut self, change: Change) {
        let id = self.propose("a", change, 10);
        for who in ["a", "b", "c"] {
            self.vote(who, id, Vote::Yes).unwrap();
        }
    }

    pub(crate) fn register(
        &mut self,
        by: &Identity,
        name: &str,
        role: Role,
    ) -> Result<Applied, Refused> {
        let new = identity(name);
        let body = KeyBody::Register { key: new.vkey().into(), role };
        self.apply(Entry::sign(EntryKind::Key, LOG, &body, &[by, &new]).unwrap())
    }
}

fn add(name: &str) -> Change {
    Change::AddMember { member: Box::new(member(name, 1).0), quorums: None }
}

fn resolved(id: EntryId, resolution: Option<Resolution>) -> Result<Applied, Refused> {
    Ok(Applied::Voted { proposal: id, resolution })
}

#[test]
fn a_genesis_is_signed_by_a_quorum_of_sound_members() {
    let consortium = Consortium::new();
    let genesis: Genesis = consortium.entries[0].body().unwrap();
    let keys: Vec<_> = consortium.members.values().collect();
    let sign = |genesis: &Genesis, signers: &[&Identity]| {
        State::genesis(&Entry::sign(EntryKind::Genesis, LOG, genesis, signers).unwrap())
    };
    assert!(sign(&genesis, &keys[1..]).is_ok());
    let too_few = Err(Refused::Signers(EntryKind::Genesis));
    assert_eq!(sign(&genesis, &keys[..2]), too_few);
    assert_eq!(sign(&genesis, &[keys[0], keys[0], keys[1]]), too_few);
    let stranger = identity("stranger");
    let with_stranger = sign(&genesis, &[keys[0], keys[1], keys[2], &stranger]);
    assert_eq!(with_stranger, Err(Refused::Stranger("stranger".into())));

    let mut twice = genesis.clone();
    twice.members[1].cosigners = twice.members[0].cosigners.clone();
    assert!(matches!(sign(&twice, &keys[..3]), Err(Refused::GenesisBody(_))));
    let mut unsorted = genesis.clone();
    unsorted.members.reverse();
    assert!(matches!(sign(&unsorted, &keys[..3]), Err(Refused::GenesisBody(_))));
    let mut split = genesis.clone();
    split.quorums.witness = Quorum::AtLeast(2);
    assert_eq!(sign(&split, &keys[..3]), Err(Refused::Quorum(QuorumError::Disjoint)));
    let mut elsewhere = genesis;
    elsewhere.operator = operator("other.example/log");
    assert!(matches!(sign(&elsewhere, &keys[..3]), Err(Refused::Origin(_))));
}

#[test]
fn the_policy_is_exported() {
    let mut consortium = Consortium::new();
    let quorums = Quorums {
        commitments: [(crate::LeafKind::Correction, Quorum::All)].into(),
        ..Quorums::default()
    };
    consortium.accept(Change::ChangeQuorum { quorums: Box::new(quorums) });
    let text = consortium.state.policy_text(None);
    expect_test::expect![[r#"
        log log.example/consortium+da12ad2f+AcWGN+gjuzq/kKRGfXZ+/Uw+g/Xv7HuaxopI/IF+8zh/ https://log.example
        witness a a/witness-1+9b14f61c+BODxY9HJpulpsae18D/BbNwtG3fAa9s6VvmrxjI8f0d3 https://a
        witness b b/witness-1+5ba90568+BCeRj/IwE7euIG9zP5XSMRoKTbt3lfxQ/5pOgY0fWi4O https://b
        witness c c/witness-1+1e94416f+BPVtF/zW0r5grSehb5PRC8sogGec6n/8mFPgj0rbJjsV https://c
        witness d d/witness-1+d40aed96+BKEX6A3D2xUdSWtyolzMKU7KgbqjpJ3jbJRZXMLkBHCN https://d
        group group:members 3 a b c d
        quorum group:members
    "#]]
    .assert_eq(&text);
    let strict = consortium.state.policy_text(Some(crate::LeafKind::Correction));
    assert_eq!(strict, text.replace("members 3", "members 4"));
    assert_eq!(consortium.state.policy_text(Some(crate::LeafKind::FlaggedEvent)), text);
}

#[test]
fn a_proposal_is_accepted_by_a_quorum_and_applied_at_once() {
    let mut consortium = Consortium::new();
    let id = consortium.propose("a", add("e"), 10);
    assert_eq!(consortium.vote("a", id, Vote::Yes), resolved(id, None));
    assert_eq!(consortium.vote("b", id, Vote::No), resolved(id, None));
    assert_eq!(consortium.vote("c", id, Vote::Yes), resolved(id, None));
    assert_eq!(consortium.state.members().count(), 4);
    assert_eq!(consortium.vote("d", id, Vote::Yes), resolved(id, Some(Resolution::Accepted)));
    assert_eq!((consortium.state.members().count(), consortium.state.version()), (5, 1));
    assert!(consortium.state.policy_text(None).contains("group:members 4 a b c d e"));
    let (_, e) = member("e", 1);
    consortium.members.insert("e".into(), e);
    let next = consortium.propose("e", Change::ChangePolicy { bundle: Digest::of(b"other") }, 10);
    for who in ["e", "a", "b"] {
        assert_eq!(consortium.vote(who, next, Vote::Yes), resolved(next, None));
    }
    assert_eq!(consortium.vote("c", next, Vote::Yes), resolved(next, Some(Resolution::Accepted)));
    assert_eq!(consortium.state.policy_bundle(), Digest::of(b"other"));
}

#[test]
fn a_proposal_is_rejected_as_soon_as_it_cannot_pass() {
    let mut consortium = Consortium::new();
    let id = consortium.propose("a", add("e"), 10);
    assert_eq!(consortium.vote("a", id, Vote::No), resolved(id, None));
    assert_eq!(consortium.vote("b", id, Vote::No), resolved(id, Some(Resolution::Rejected)));
    let closed = Err(Refused::Closed(Resolution::Rejected));
    assert_eq!(consortium.vote("c", id, Vote::Yes), closed);
    assert_eq!(consortium.state.version(), 0);
}

#[test]
fn a_proposal_expires_after_as_many_leaves_as_it_says() {
    let mut consortium = Consortium::new();
    let id = consortium.propose("a", add("e"), 3);
    for who in ["a", "b"] {
        consortium.vote(who, id, Vote::Yes).unwrap();
    }
    let mut late = Consortium {
        state: consortium.state.clone(),
        entries: consortium.entries.clone(),
        ..Consortium::new()
    };
    assert_eq!(consortium.vote("c", id, Vote::Yes), resolved(id, Some(Resolution::Accepted)));
    assert_eq!(late.vote("a", id, Vote::Yes), Err(Refused::Again));
    assert_eq!(late.vote("c", id, Vote::Yes), Err(Refused::Closed(Resolution::Expired)));
    assert_eq!(late.state.open_proposals().count(), 0);
}

#[test]
fn what_is_applied_drops_what_was_weighed_under_other_rules() {
    let mut consortium = Consortium::new();
    let dropped = consortium.propose("d", add("f"), 100);
    consortium.vote("d", dropped, Vote::Yes).unwrap();
    consortium.accept(add("e"));
    let overtaken = Err(Refused::Closed(Resolution::Overtaken));
    assert_eq!(consortium.vote("a", dropped, Vote::Yes), overtaken);
    let stale = Proposal { change: add("f"), version: 0, expires_after: 9, reason: "late".into() };
    let refused = consortium.say("a", EntryKind::Proposal, &stale);
    assert_eq!(refused, Err(Refused::Version { expected: 1, found: 0 }));
}

#[test]
fn ballots_that_do_not_count_say_why() {
    let mut consortium = Consortium::new();
    let id = consortium.propose("a", add("e"), 100);
    consortium.vote("a", id, Vote::Yes).unwrap();
    assert_eq!(consortium.vote("a", id, Vote::Yes), Err(Refused::Again));
    assert_eq!(consortium.vote("a", id, Vote::No), Err(Refused::Voted));
    assert_eq!(consortium.vote("b", [7; 32], Vote::Yes), Err(Refused::NoProposal));

    let ballot = Ballot { proposal: Hex(id), vote: Vote::Yes };
    let sign = |log: &str, signers: &[&Identity]| {
        Entry::sign(EntryKind::Ballot, log, &ballot, signers).unwrap()
    };
    let (b, c) = (member("b", 1).1, member("c", 1).1);
    let stranger = consortium.apply(sign(LOG, &[&identity("x")]));
    assert_eq!(stranger, Err(Refused::Stranger("x".into())));
    let false_b = Identity::generate("b", [1; 32]).unwrap();
    let forged = consortium.apply(sign(LOG, &[&false_b]));
    assert!(matches!(forged, Err(Refused::Entry(_))), "{forged:?}");
    let elsewhere = consortium.apply(sign("other.example/log", &[&b]));
    assert_eq!(elsewhere, Err(Refused::Origin("other.example/log".into())));
    let two = consortium.apply(sign(LOG, &[&b, &c]));
    assert_eq!(two, Err(Refused::Signers(EntryKind::Ballot)));
    consortium.register(&b, "fog.b", Role::Fog).unwrap();
    let fog = consortium.apply(sign(LOG, &[&identity("fog.b")]));
    assert!(matches!(fog, Err(Refused::NotAllowed { .. })));
    let (_, open) = consortium.state.open_proposals().next().unwrap();
    assert_eq!((open.yes.len(), open.no.len()), (1, 0), "none of these was counted");
}

#[test]
fn a_change_that_cannot_be_is_not_opened() {
    let mut consortium = Consortium::new();
    let mut refuse = |change: Change| {
        let proposal = Proposal { change, version: 0, expires_after: 9, reason: String::new() };
        consortium.say("a", EntryKind::Proposal, &proposal).unwrap_err()
    };
    let cannot = |refused: Refused| matches!(refused, Refused::Change { .. });
    assert!(cannot(refuse(add("a"))));
    let gone = |name: &str| Change::RemoveMember { member: name.parse().unwrap(), quorums: None };
    assert!(cannot(refuse(gone("z"))));
    assert!(cannot(refuse(Change::ChangePolicy { bundle: Digest::of(b"policies") })));
    assert!(cannot(refuse(Change::ChangeOperator { operator: Box::new(operator(LOG)) })));
    let quorums = Quorums { ballot: Quorum::AtLeast(9), ..Quorums::default() };
    let size = Refused::Quorum(QuorumError::Size { k: 9, of: 4 });
    assert_eq!(refuse(Change::ChangeQuorum { quorums: Box::new(quorums) }), size);
    let mut two = member("e", 1).0;
    two.cosigners = member("a", 1).0.cosigners;
    assert!(cannot(refuse(Change::AddMember { member: Box::new(two), quorums: None })));
    let mut wrong_key = member("e", 1).0;
    wrong_key.key = identity("f").vkey().into();
    assert!(cannot(refuse(Change::AddMember { member: Box::new(wrong_key), quorums: None })));
    for expires_after in [0, MAX_EXPIRY_LEAVES + 1] {
        let proposal =
            Proposal { change: add("e"), version: 0, expires_after, reason: String::new() };
        let refused = consortium.say("a", EntryKind::Proposal, &proposal);
        assert_eq!(refused, Err(Refused::ProposalLimits));
    }
}

#[test]
fn rules_that_name_members_go_with_them() {
    let mut consortium = Consortium::new();
    let part = |name: &str| Part::Member(name.parse().unwrap());
    let group = |names: &[&str]| {
        let of = names.iter().map(|name| part(name)).collect();
        Quorum::Groups(Group { name: "three".parse().unwrap(), k: 2, of })
    };
    let rules = |names: &[&str]| Quorums { witness: group(names), ..Quorums::default() };
    consortium.accept(Change::ChangeQuorum { quorums: Box::new(rules(&["a", "b", "d"])) });
    let gone = |quorums| Change::RemoveMember { member: "d".parse().unwrap(), quorums };
    let without =
        Proposal { change: gone(None), version: 1, expires_after: 9, reason: "leaves".into() };
    let no_member = Refused::Quorum(QuorumError::NoMember("d".parse().unwrap()));
    assert_eq!(consortium.say("a", EntryKind::Proposal, &without), Err(no_member));
    consortium.accept(gone(Some(Box::new(rules(&["a", "b", "c"])))));
    assert!(consortium.state.policy_text(None).contains("group:three 2 a b c\n"));
}

#[test]
fn words_are_plain() {
    let mut consortium = Consortium::new();
    for reason in ["a\u{1b}[2Jb".to_owned(), "x".repeat(513)] {
        let proposal = Proposal { change: add("e"), version: 0, expires_after: 9, reason };
        let refused = consortium.say("a", EntryKind::Proposal, &proposal);
        assert_eq!(refused, Err(Refused::ProposalLimits));
    }
}

/// Who changes the encoding changes what members compare; it must not happen by accident.
#[test]
fn the_digest_is_as_it_was() {
    let mut consortium = Consortium::new();
    consortium.register(&member("a", 1).1, "fog.a", Role::Fog).unwrap();
    consortium.propose("a", add("e"), 9);
    expect_test::expect!["b5b8d463767cce84c5eccb019ff6a24d0f8a5f91bae7ff5b5f93c43f306a6946"]
        .assert_eq(&consortium.state.digest().to_string());
}

#[test]
fn a_member_cannot_fill_the_state_with_proposals() {
    let mut consortium = Consortium::new();
    for _ in 0..MAX_PROPOSALS_PER_MEMBER {
        let id = consortium.propose("a", add("e"), 1 << 20);
        consortium.vote("b", id, Vote::No).unwrap();
        consortium.vote("c", id, Vote::No).unwrap();
    }
    let more = Proposal { change: add("e"), version: 0, expires_after: 9, reason: "more".into() };
    let refused = consortium.say("a", EntryKind::Proposal, &more);
    assert_eq!(refused, Err(Refused::TooManyProposals));
    consortium.say("b", EntryKind::Proposal, &more).unwrap();
}

#[test]
fn a_rotated_key_replaces_the_old_one() {
    let mut consortium = Consortium::new();
    let key = Identity::generate("d", [9; 32]).unwrap();
    consortium.accept(Change::RotateKey {
        member: "d".parse().unwrap(),
        key: Box::new(key.vkey().into()),
        cosigners: vec![names::cosigner("d/1", [10; 32]), names::cosigner("d/2", [11; 32])],
    });
    let id = consortium.propose("a", add("e"), 100);
    let old = consortium.vote("d", id, Vote::Yes);
    assert!(matches!(old, Err(Refused::Entry(_))), "{old:?}");
    consortium.members.insert("d".into(), key);
    consortium.vote("d", id, Vote::Yes).unwrap();
    assert!(consortium.state.policy_text(None).contains("group:members 4 a b c d/1 d/2"));
}

#[test]
fn keys_are_registered_by_whom_they_may() {
    let mut consortium = Consortium::new();
    let a = member("a", 1).1;
    let (fog, edge) = (identity("fog.a"), identity("edge.a"));
    consortium.register(&a, "fog.a", Role::Fog).unwrap();
    consortium.register(&fog, "edge.a", Role::Edge).unwrap();
    consortium.register(&edge, "pump-7", Role::Device).unwrap();
    let pump = &consortium.state.keys_named("pump-7")[0];
    assert_eq!((pump.member.as_str(), pump.by.as_str(), pump.registered), ("a", "edge.a", 3));

    assert_eq!(consortium.register(&a, "fog.a", Role::Fog), Err(Refused::Again));
    let registrar = Err(Refused::Registrar { by: Role::Edge, role: Role::Fog });
    assert_eq!(consortium.register(&edge, "fog.b", Role::Fog), registrar);
    assert_eq!(
        consortium.register(&identity("x"), "y", Role::Device),
        Err(Refused::Stranger("x".into()))
    );
    for (name, role) in
        [("b", Role::Device), ("patient/john", Role::Patient), ("john", Role::Patient)]
    {
        assert_eq!(consortium.register(&a, name, role), Err(Refused::KeyName), "{name}");
    }
    let pseudonym = format!("patient/{}", "0f".repeat(16));
    assert_eq!(consortium.register(&a, &pseudonym, Role::Device), Err(Refused::KeyName));
    consortium.register(&a, &pseudonym, Role::Patient).unwrap();
    // Without the new key's own signature.
    let body = KeyBody::Register { key: identity("pump-8").vkey().into(), role: Role::Device };
    let alone = consortium.say("a", EntryKind::Key, &body);
    assert_eq!(alone, Err(Refused::Signers(EntryKind::Key)));
}

#[test]
fn a_revoked_key_signs_nothing_from_then_on() {
    let mut consortium = Consortium::new();
    let (a, fog) = (member("a", 1).1, identity("fog.a"));
    consortium.register(&a, "fog.a", Role::Fog).unwrap();
    consortium.register(&fog, "pump-7", Role::Device).unwrap();
    let body = KeyBody::Revoke { key: fog.vkey().into() };
    assert!(matches!(consortium.say("b", EntryKind::Key, &body), Err(Refused::NotAllowed { .. })));
    let revoked = consortium.apply(Entry::sign(EntryKind::Key, LOG, &body, &[&fog]).unwrap());
    assert!(matches!(revoked, Ok(Applied::KeyRevoked(_))));
    let refused = Err(Refused::Revoked { name: "fog.a".into(), index: 4 });
    assert_eq!(consortium.register(&fog, "pump-8", Role::Device), refused);
    assert_eq!(consortium.say("a", EntryKind::Key, &body), Err(Refused::Again));
    assert_eq!(consortium.register(&a, "fog.a", Role::Fog), Err(Refused::Again), "never again");
    let known = &consortium.state.keys_named("fog.a")[0];
    let counts: Vec<_> = (0..6).filter(|index| known.counts_at(*index)).collect();
    assert_eq!(counts, [2, 3, 4]);

    // A new key under the old name goes on.
    let new = Identity::generate("fog.a", [3; 32]).unwrap();
    let body = KeyBody::Register { key: new.vkey().into(), role: Role::Fog };
    consortium.apply(Entry::sign(EntryKind::Key, LOG, &body, &[&a, &new]).unwrap()).unwrap();
    consortium.register(&new, "pump-8", Role::Device).unwrap();
}

#[test]
fn a_member_that_leaves_takes_its_keys_along() {
    let mut consortium = Consortium::new();
    let d = member("d", 1).1;
    consortium.register(&d, "fog.d", Role::Fog).unwrap();
    consortium.register(&identity("fog.d"), "pump-7", Role::Device).unwrap();
    consortium.accept(Change::RemoveMember { member: "d".parse().unwrap(), quorums: None });
    assert!(consortium.state.keys().all(|key| key.revoked == Some(6)));
    let refused = consortium.register(&identity("fog.d"), "pump-8", Role::Device);
    assert_eq!(refused, Err(Refused::Revoked { name: "fog.d".into(), index: 6 }));
    let vote = consortium.vote("d", [0; 32], Vote::Yes);
    assert_eq!(vote, Err(Refused::Stranger("d".into())));
    assert!(consortium.state.policy_text(None).contains("group:members 3 a b c\n"));
}
