//! One log that follows another.

use super::*;
use crate::SignedCheckpoint;

const NEXT: &str = "log-2.example/consortium";

fn successor(consortium: &Consortium) -> Genesis {
    let state = &consortium.state;
    let log = identity(LOG);
    let checkpoint = SignedCheckpoint::sign(&log, state.next_index(), [7; 32]).unwrap();
    Genesis {
        consortium: state.consortium().to_owned(),
        operator: operator(NEXT),
        members: state.members().cloned().collect(),
        quorums: state.quorums().clone(),
        policy_bundle: state.policy_bundle(),
        predecessor: Some(Predecessor {
            origin: LOG.to_owned(),
            checkpoint: checkpoint.note().to_owned(),
            state: state.digest(),
        }),
    }
}

fn succeed(consortium: &Consortium, genesis: &Genesis, signers: usize) -> Result<State, Refused> {
    let keys: Vec<_> = consortium.members.values().take(signers).collect();
    consortium.state.succeed(&Entry::sign(EntryKind::Genesis, NEXT, genesis, &keys).unwrap())
}

#[test]
fn members_go_on_without_the_operator() {
    let mut consortium = Consortium::new();
    consortium.register(&member("a", 1).1, "fog.a", Role::Fog).unwrap();
    consortium.propose("a", add("e"), 100);
    let genesis = successor(&consortium);
    let next = succeed(&consortium, &genesis, 3).unwrap();
    assert_eq!((next.origin(), next.next_index(), next.version()), (NEXT, 1, 1));
    assert_eq!(next.open_proposals().count(), 0);
    assert!(next.keys_named("fog.a")[0].counts_at(1));
    assert_eq!(succeed(&consortium, &genesis, 2), Err(Refused::Signers(EntryKind::Genesis)));
    let keys: Vec<_> = consortium.members.values().collect();
    let alone = Entry::sign(EntryKind::Genesis, NEXT, &genesis, &keys).unwrap();
    assert!(matches!(State::genesis(&alone), Err(Refused::Successor(_))), "it follows a log");
}

#[test]
fn a_log_that_has_ended_takes_nothing() {
    let mut consortium = Consortium::new();
    consortium.accept(Change::ChangeOperator { operator: Box::new(operator(NEXT)) });
    assert_eq!(consortium.state.ended(), Some(&operator(NEXT)));
    let proposal = Proposal { change: add("e"), version: 1, expires_after: 9, reason: "x".into() };
    assert_eq!(consortium.say("a", EntryKind::Proposal, &proposal), Err(Refused::Ended));
    let genesis = successor(&consortium);
    assert!(succeed(&consortium, &genesis, 3).is_ok());
    let mut other = genesis;
    other.operator.url = "https://elsewhere.example".parse().unwrap();
    assert!(matches!(succeed(&consortium, &other, 3), Err(Refused::Successor(_))));
}

#[test]
fn a_successor_changes_nothing_else() {
    let mut consortium = Consortium::new();
    let genesis = successor(&consortium);
    let wrong = |edit: &dyn Fn(&mut Genesis)| {
        let mut edited = genesis.clone();
        edit(&mut edited);
        let refused = succeed(&consortium, &edited, 4);
        assert!(matches!(refused, Err(Refused::Successor(_))), "{refused:?}");
    };
    wrong(&|genesis| genesis.predecessor = None);
    wrong(&|genesis| genesis.policy_bundle = Digest::of(b"other"));
    wrong(&|genesis| genesis.members[0].admission = Digest::of(b"other"));
    wrong(&|genesis| genesis.quorums.ballot = Quorum::All);
    wrong(&|genesis| genesis.predecessor.as_mut().unwrap().state = Digest::of(b"other"));
    wrong(&|genesis| genesis.predecessor.as_mut().unwrap().origin = "other".into());
    for (log, size) in [(NEXT, 1), (LOG, 2)] {
        let note = SignedCheckpoint::sign(&identity(log), size, [7; 32]).unwrap().note().to_owned();
        wrong(&|genesis| genesis.predecessor.as_mut().unwrap().checkpoint.clone_from(&note));
    }
    // One leaf later it follows no more.
    consortium.propose("a", add("e"), 9);
    assert!(matches!(succeed(&consortium, &genesis, 4), Err(Refused::Successor(_))));
}
