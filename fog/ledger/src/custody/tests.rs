//! Items on their way, and what is refused and flagged.

mod property;

use super::*;
use crate::governance::tests::{Consortium, LOG, identity, member};
use crate::governance::{Applied, Digest, Hex, Refused, Role};
use crate::{Entry, EntryKind, LeafKind};

const LEAF: [u8; 34] = [1; 34];

fn opening(issuer: &str, serial: &str) -> Opening {
    let secret = CustodySecret::new(Digest::of(issuer.as_bytes()).0);
    secret.open(issuer.parse().unwrap(), serial.parse().unwrap())
}

fn say(
    consortium: &mut Consortium,
    who: &[&str],
    item: Digest,
    step: Step,
) -> Result<Digest, Refused> {
    let keys: Vec<_> = who
        .iter()
        .map(|who| if who.len() == 1 { member(who, 1).1 } else { identity(who) })
        .collect();
    let keys: Vec<_> = keys.iter().collect();
    let entry = Entry::sign(EntryKind::Custody, LOG, &CustodyBody { item, step }, &keys).unwrap();
    let id = Hex(entry.id());
    let applied = consortium.apply(entry)?;
    assert_eq!(applied, Applied::Custody(item));
    Ok(id)
}

fn issue() -> Step {
    Step::Issue { what: ItemKind::Medication }
}

fn to(to: &str, previous: Digest) -> Step {
    Step::HandOver { to: to.parse().unwrap(), previous }
}

#[test]
fn names_are_as_documented() {
    // Computed with Python: key = hmac.new(bytes([5])*32, b"haar-item-key-v1" + b"\x01a" + b"S-1", "sha256"),
    // item = hmac.new(key.digest(), b"haar-item-v1" + b"\x01a" + b"S-1", "sha256").
    let secret = CustodySecret::new([5; 32]);
    let one = secret.open("a".parse().unwrap(), "S-1".parse().unwrap());
    assert_eq!(
        one.item().to_string(),
        "af59acdaf4dd6ec85a73405bc85fb9c71e4720e05944cfde48d419b5f457d92f"
    );
    assert_ne!(secret.open("a".parse().unwrap(), "S-2".parse().unwrap()).item(), one.item());
    assert_ne!(secret.open("b".parse().unwrap(), "S-1".parse().unwrap()).item(), one.item());
    assert!(!format!("{one:?}").contains("S-1"));
    let record = one.record([1; 32]);
    assert_eq!(
        (record.kind, serde_json::from_slice::<Opening>(&record.body).unwrap()),
        (LeafKind::Custody, one)
    );
}

#[test]
fn an_item_goes_from_hand_to_hand() {
    let mut log = Consortium::new();
    log.register(&member("b", 1).1, "fog.b", Role::Fog).unwrap();
    let item = opening("a", "S-1").item();
    let issued = say(&mut log, &["a"], item, issue()).unwrap();
    let first = say(&mut log, &["a", "b"], item, to("b", issued)).unwrap();
    say(&mut log, &["fog.b"], item, Step::Excursion { index: 9, leaf: Hex(LEAF) }).unwrap();
    let second = say(&mut log, &["b", "c"], item, to("c", first)).unwrap();
    say(&mut log, &["c"], item, Step::End { how: Ending::Used, previous: second }).unwrap();
    let chain = log.state.item(&item).unwrap();
    let holders: Vec<_> =
        chain.handed.iter().map(|handed| (handed.holder.as_str(), handed.index)).collect();
    assert_eq!(holders, [("a", 2), ("b", 3), ("c", 5)]);
    assert_eq!((chain.excursions[0].holder.as_str(), chain.excursions[0].site_index), ("b", 9));
    assert_eq!(chain.ended, Some((6, Ending::Used)));
    let after = say(&mut log, &["c", "d"], item, to("d", second));
    assert_eq!(after, Err(Refused::ItemEnded));
    assert!(
        !log.entries.iter().any(|entry| entry.as_bytes().windows(3).any(|bytes| bytes == b"S-1"))
    );
}

#[test]
fn what_is_off_the_chain_is_refused() {
    let mut log = Consortium::new();
    log.register(&member("c", 1).1, "fog.c", Role::Fog).unwrap();
    let item = opening("a", "S-1").item();
    let issued = say(&mut log, &["a"], item, issue()).unwrap();
    let handed = say(&mut log, &["a", "b"], item, to("b", issued)).unwrap();
    let mut refuse = |who: &[&str], item, step| say(&mut log, who, item, step).unwrap_err();
    assert_eq!(refuse(&["a", "b"], item, to("b", issued)), Refused::Again, "a repetition");
    assert_eq!(refuse(&["a", "c"], item, to("c", issued)), Refused::OffChain, "handed to two");
    assert_eq!(refuse(&["c", "d"], item, to("d", handed)), Refused::OffChain, "never had it");
    assert_eq!(refuse(&["b", "c"], item, to("c", issued)), Refused::OffChain, "skips an entry");
    assert_eq!(refuse(&["b", "c"], item, to("d", handed)), Refused::Hands, "another receiver");
    assert_eq!(refuse(&["b"], item, to("c", handed)), Refused::Hands, "not countersigned");
    assert_eq!(refuse(&["b", "b"], item, to("b", handed)), Refused::Hands, "to itself");
    let end = |previous| Step::End { how: Ending::Lost, previous };
    assert_eq!(refuse(&["a"], item, end(issued)), Refused::OffChain);
    let excursion = Step::Excursion { index: 1, leaf: Hex(LEAF) };
    assert_eq!(refuse(&["fog.c"], item, excursion.clone()), Refused::OffChain);
    assert_eq!(refuse(&["b"], item, excursion), Refused::Hands);
    assert_eq!(refuse(&["fog.c"], opening("a", "S-2").item(), issue()), Refused::Hands);
    assert_eq!(refuse(&["a", "b"], opening("a", "S-3").item(), to("b", issued)), Refused::NoItem);
    assert!(Refused::OffChain.is_attempt() && !Refused::Again.is_attempt());
}

#[test]
fn a_number_that_comes_twice_is_found() {
    let mut log = Consortium::new();
    let true_one = opening("a", "S-1");
    let issued = say(&mut log, &["a"], true_one.item(), issue()).unwrap();
    // The issuer again, an entry that differs.
    let again =
        say(&mut log, &["a"], opening("a", "S-1").item(), Step::Issue { what: ItemKind::Sample });
    assert_eq!(again, Err(Refused::SerialTwice));
    let same = say(&mut log, &["a"], true_one.item(), issue());
    assert_eq!(same, Err(Refused::Again));
    say(&mut log, &["a", "b"], true_one.item(), to("b", issued)).unwrap();

    // d forges the number: without the issuer's secret it is another item, which d must issue.
    let forged = CustodySecret::new([13; 32]).open("a".parse().unwrap(), "S-1".parse().unwrap());
    let d = "d".parse().unwrap();
    let check = |opening: &Opening, giver: &str, log: &Consortium| {
        opening.check(ItemKind::Medication, &giver.parse().unwrap(), &log.state).map(drop)
    };
    assert_eq!(check(&forged, "d", &log), Err(Flag::Unknown));
    say(&mut log, &["d"], forged.item(), issue()).unwrap();
    assert_eq!(check(&forged, "d", &log), Err(Flag::Issuer(d)));
    let mut holdings = Holdings::default();
    assert_eq!((holdings.add(&true_one), holdings.add(&true_one)), (Ok(()), Ok(())));
    assert_eq!(holdings.add(&forged), Err(Flag::SerialTwice));

    assert_eq!(check(&true_one, "b", &log), Ok(()));
    assert_eq!(check(&true_one, "a", &log), Err(Flag::Holder("b".parse().unwrap())));
    let other = true_one.check(ItemKind::Device, &"b".parse().unwrap(), &log.state).map(drop);
    assert_eq!(other, Err(Flag::Kind(ItemKind::Medication)));
}

#[test]
fn chains_are_bounded() {
    let mut log = Consortium::new();
    let item = opening("a", "S-1").item();
    let mut last = say(&mut log, &["a"], item, issue()).unwrap();
    for n in 0..MAX_HAND_OVERS {
        let (from, next) = if n % 2 == 0 { ("a", "b") } else { ("b", "a") };
        last = say(&mut log, &[from, next], item, to(next, last)).unwrap();
    }
    assert_eq!(say(&mut log, &["a", "b"], item, to("b", last)), Err(Refused::Full));
    say(&mut log, &["a"], item, Step::End { how: Ending::Used, previous: last }).unwrap();
}
