//! Any sequence of leaves gives everybody one state.

use super::*;
use crate::custody::{CustodyBody, ItemKind, Step};
use proptest::prelude::*;
use proptest::sample::Index;

/// Entries of all sorts, of which many fit only in some order.
fn pool() -> Vec<Vec<u8>> {
    let mut consortium = Consortium::new();
    let (a, fog) = (member("a", 1).1, identity("fog.a"));
    let _ = consortium.register(&a, "fog.a", Role::Fog);
    let _ = consortium.register(&fog, "pump-7", Role::Device);
    let ids: Vec<_> = ["e", "f"].map(|name| consortium.propose("a", add(name), 6)).into();
    for id in ids {
        for (who, vote) in [("a", Vote::Yes), ("b", Vote::Yes), ("c", Vote::No), ("d", Vote::Yes)] {
            let _ = consortium.vote(who, id, vote);
        }
    }
    let gone = Change::RemoveMember { member: "d".parse().unwrap(), quorums: None };
    let gone = consortium.propose("a", gone, 10);
    for who in ["a", "b", "c", "d"] {
        let _ = consortium.vote(who, gone, Vote::Yes);
    }
    let revoke = KeyBody::Revoke { key: fog.vkey().into() };
    let _ = consortium.say("a", EntryKind::Key, &revoke);
    let leaf = Hex([1; 34]);
    for index in 0..3 {
        let body = CommitmentBody { site: "fog.a".into(), index, leaf };
        let _ = consortium.apply(Entry::sign(EntryKind::Commitment, LOG, &body, &[&fog]).unwrap());
    }
    let _ = consortium.say("b", EntryKind::Evidence, &serde_json::json!({"what": 1}));
    let _ = consortium.say("b", EntryKind::Evidence, &serde_json::json!({"what": 1}));
    let item = Digest::of(b"item");
    let mut previous = None;
    for holders in [&["a"][..], &["a", "b"], &["b", "c"], &["c", "a"]] {
        let step = match previous {
            None => Step::Issue { what: ItemKind::Sample },
            Some(previous) => Step::HandOver { to: holders[1].parse().unwrap(), previous },
        };
        let keys: Vec<_> = holders.iter().map(|name| member(name, 1).1).collect();
        let keys: Vec<_> = keys.iter().collect();
        let body = CustodyBody { item, step };
        let entry = Entry::sign(EntryKind::Custody, LOG, &body, &keys).unwrap();
        previous = Some(Hex(entry.id()));
        let _ = consortium.apply(entry);
    }
    consortium.entries.iter().map(|entry| entry.as_bytes().to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_with_repetitions_and_garbage_gives_everybody_one_state(
        leaves in proptest::collection::vec((any::<Index>(), any::<Index>(), 0u8..8), 0..60),
        cut in any::<Index>(),
    ) {
        let pool = pool();
        let leaves: Vec<Vec<u8>> = leaves.iter().map(|(entry, bit, garbage)| {
            let mut leaf = entry.get(&pool).clone();
            if *garbage == 0 {
                let bit = bit.index(leaf.len() * 8);
                leaf[bit / 8] ^= 1 << (bit % 8);
            }
            leaf
        }).collect();

        let start = State::genesis(&Entry::parse(&pool[0]).unwrap()).unwrap();
        let (mut one, mut other) = (start.clone(), start);
        let cut = cut.index(leaves.len() + 1);
        for (n, leaf) in leaves.iter().enumerate() {
            if n == cut {
                // The other is restarted from what it saved.
                other = State::from_json(&other.to_json()).unwrap();
            }
            let index = n as u64 + 1;
            let before = one.clone();
            let first = one.apply_leaf(index, leaf);
            prop_assert_eq!(&first, &other.apply_leaf(index, leaf));
            if first.is_err() && before.open == one.open {
                let mut same = before;
                same.next_index = one.next_index;
                prop_assert!(same == one, "it was refused and changed something");
            }
        }
        prop_assert_eq!(one.digest(), other.digest());
        prop_assert!(one == other);
    }

    #[test]
    fn an_honest_operator_appends_nothing_that_is_refused(
        order in proptest::collection::vec(any::<Index>(), 0..40),
    ) {
        let pool = pool();
        let mut state = State::genesis(&Entry::parse(&pool[0]).unwrap()).unwrap();
        for entry in order {
            let leaf: &Vec<u8> = entry.get(&pool);
            let entry = Entry::parse(leaf).unwrap();
            let (index, mut appended) = (state.next_index(), state.clone());
            let asked = state.may_append(&entry);
            let done = appended.append(&entry);
            prop_assert_eq!(done.clone().map(drop), asked.clone());
            prop_assert_eq!(state.clone().apply(index, &entry), done);
            if asked.is_ok() {
                state.apply(index, &entry).unwrap();
            }
            prop_assert!(appended == state, "what is refused is no leaf, what applies is the same");
        }
    }
}

/// In the order in which it was written, everything in the pool happens.
#[test]
fn the_pool_is_of_all_sorts() {
    let pool = pool();
    let mut state = State::genesis(&Entry::parse(&pool[0]).unwrap()).unwrap();
    let applied = |(n, leaf): (usize, &Vec<u8>)| state.apply_leaf(n as u64 + 1, leaf).is_ok();
    let applied = pool[1..].iter().enumerate().map(applied).filter(|applied| *applied).count();
    assert_eq!((applied, pool.len() - 1), (19, 27));
    assert_eq!((state.version(), state.members().count()), (2, 4));
}

#[test]
fn a_leaf_out_of_turn_is_not_taken() {
    let mut consortium = Consortium::new();
    let entry = consortium.entries[0].clone();
    let digest = consortium.state.digest();
    for index in [0, 2, u64::MAX] {
        let refused = consortium.state.apply(index, &entry);
        assert_eq!(refused, Err(Refused::Position { expected: 1, found: index }));
    }
    assert_eq!(consortium.state.digest(), digest);
}

#[test]
fn what_was_saved_is_read_only_as_it_was_written() {
    let saved = Consortium::new().state.to_json();
    assert!(State::from_json(&saved).is_ok());
    assert!(State::from_json(&saved[..saved.len() - 1]).is_err());
    assert!(State::from_json(&[saved.as_slice(), b"\n"].concat()).is_err());
}
