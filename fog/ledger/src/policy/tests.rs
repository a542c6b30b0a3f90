use super::*;
use crate::checkpoint::SignedCheckpoint;
use crate::cosignature::Cosigner;
use haar_identity::Identity;
use proptest::prelude::*;

fn log() -> Identity {
    Identity::generate("log.example", [1; 32]).unwrap()
}

fn cosigner(n: u8) -> Cosigner {
    Cosigner::generate(&format!("w{n}.example"), [n + 10; 32]).unwrap()
}

fn witness(n: u8) -> PolicyWitness {
    let url = (n == 1).then(|| "https://w1.example/".to_owned());
    PolicyWitness { name: format!("w{n}"), key: cosigner(n).vkey().clone(), url }
}

fn names(range: std::ops::Range<u8>) -> Vec<Rule> {
    range.map(|n| Rule::Witness(format!("w{n}"))).collect()
}

fn policy(rule: Option<&Rule>) -> Policy {
    let logs = vec![PolicyLog { key: log().vkey().clone(), url: None }];
    Policy::new(logs, (0..6).map(witness).collect(), rule).unwrap()
}

fn note(cosigners: &[u8]) -> String {
    let signed = SignedCheckpoint::sign(&log(), 7, [9; 32]).unwrap().note().to_owned();
    let text = signed.split_inclusive("\n\n").next().unwrap().strip_suffix('\n').unwrap();
    cosigners.iter().fold(signed.clone(), |note, n| note + &cosigner(*n).cosign(text, 1_000))
}

#[test]
fn the_example_of_the_specification() {
    let inner = vec![Rule::AtLeast(2, names(0..3)), Rule::AtLeast(1, names(3..6))];
    let policy = policy(Some(&Rule::AtLeast(2, inner)));
    let met = |cosigned: &[u8]| policy.check(note(cosigned).as_bytes()).is_ok();
    assert!(met(&[0, 1, 3]) && met(&[1, 2, 5]) && met(&[0, 1, 2, 3, 4, 5]));
    assert!(!met(&[0, 1]) && !met(&[0, 3, 4, 5]) && !met(&[]) && !met(&[0, 0, 3]));
    let text = policy.to_text();
    assert_eq!(text.parse::<Policy>().unwrap(), policy);
    let spelt = text.replace("group group-3 2", "#c\n\n \tgroup  group-3\tall ");
    assert_eq!(spelt.parse::<Policy>().unwrap(), policy);
}

#[test]
fn what_is_checked_is_said() {
    let policy = policy(Some(&Rule::AtLeast(usual_threshold(6), names(0..6))));
    let cosigned = policy.check(note(&[0, 1, 2, 3, 5]).as_bytes()).unwrap();
    assert_eq!(
        (cosigned.origin.as_str(), cosigned.size, cosigned.root),
        ("log.example", 7, [9; 32])
    );
    assert_eq!(cosigned.witnesses.len(), 5);
    let few = policy.check(note(&[0, 1]).as_bytes()).unwrap_err();
    assert_eq!(few.to_string(), "the quorum is not reached: cosigned by w0, w1");
    let altered = note(&[0, 1, 2, 3, 5]).replace("\n7\n", "\n8\n");
    assert!(policy.check(altered.as_bytes()).is_err());
    // A stranger's line is ignored, a known witness's broken line is not.
    let stranger = note(&[0, 1, 2, 3, 5, 60]);
    assert!(policy.check(stranger.as_bytes()).is_ok());
}

#[test]
fn what_is_no_policy_says_where() {
    let key = cosigner(1).vkey().to_string();
    let again = Cosigner::generate("other.example", [11; 32]).unwrap().vkey().to_string();
    let own = log().vkey().to_string();
    for (text, problem) in [
        (format!("witness a {key}\n"), "no quorum line"),
        (format!("witness a {key}\nwitness b {again}\nquorum a\n"), "line 2"),
        (format!("witness a {own}\nquorum a\n"), "line 1"),
        (format!("log {key}\nquorum none\n"), "line 1"),
        (format!("witness none {key}\nquorum none\n"), "no name"),
        (format!("witness a {key}\ngroup g 2 a\nquorum g\n"), "line 2"),
        (format!("witness a {key}\ngroup g 01 a\nquorum g\n"), "line 2"),
        (format!("witness a {key}\ngroup g 1 a\ngroup h 1 a\nquorum g\n"), "line 3"),
        (format!("group g 1 a\nwitness a {key}\nquorum g\n"), "line 1"),
        ("quorum none\nquorum none\n".to_owned(), "line 2"),
        ("quorum none\r\n".to_owned(), "line 1"),
        ("quorums none\n".to_owned(), "line 1"),
    ] {
        let error = text.parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
    assert_eq!("quorum none".parse::<Policy>().unwrap(), Policy::default());
}

#[test]
fn what_is_not_one_word_cannot_become_another_line() {
    let logs = || vec![PolicyLog { key: log().vkey().clone(), url: None }];
    let stranger = Identity::generate("log.example", [9; 32]).unwrap();
    let url = format!("https://w0.example/\nlog {}", stranger.vkey());
    let made = Policy::new(logs(), vec![PolicyWitness { url: Some(url), ..witness(0) }], None);
    assert_eq!(made, Err(PolicySyntaxError::Word));
    for name in ["", "a b", "a\tb", "a\nquorum none", "none", "a\u{7f}"] {
        let made =
            Policy::new(logs(), vec![PolicyWitness { name: name.into(), ..witness(0) }], None);
        assert_eq!(made, Err(PolicySyntaxError::Word), "{name:?}");
        let rule = Rule::AtLeast(1, vec![Rule::Witness(name.into())]);
        assert!(Policy::new(logs(), vec![witness(0)], Some(&rule)).is_err(), "{name:?}");
        let rule = Rule::Witness(name.into());
        assert!(Policy::new(logs(), vec![witness(0)], Some(&rule)).is_err(), "{name:?}");
    }
    // A member that is named as a group would be does not stop the others.
    let witnesses = vec![PolicyWitness { name: "group-1".into(), ..witness(0) }, witness(1)];
    let rule = Rule::AtLeast(2, vec![Rule::Witness("group-1".into()), Rule::Witness("w1".into())]);
    let policy = Policy::new(logs(), witnesses, Some(&rule)).unwrap();
    assert!(policy.check(note(&[0, 1]).as_bytes()).is_ok());
    assert!(policy.check(note(&[0]).as_bytes()).is_err());
}

/// A rule over the witnesses `from` on, and how many it names.
fn rule(from: u8, shape: &[u8]) -> (Rule, u8) {
    match shape {
        [] => (Rule::Witness(format!("w{from}")), 1),
        [first, rest @ ..] => {
            let (mut rules, mut named) = (Vec::new(), 0);
            for part in rest.chunks(rest.len().div_ceil(2).max(1)).take(2) {
                let (inner, more) = rule(from + named, part);
                rules.push(inner);
                named += more;
            }
            rules.push(Rule::Witness(format!("w{}", from + named)));
            (Rule::AtLeast(1 + usize::from(*first) % rules.len(), rules), named + 1)
        }
    }
}

fn met(rule: &Rule, cosigned: &[u8]) -> bool {
    match rule {
        Rule::Witness(name) => cosigned.iter().any(|n| *name == format!("w{n}")),
        Rule::AtLeast(k, rules) => rules.iter().filter(|rule| met(rule, cosigned)).count() >= *k,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_nested_rule_is_met_as_it_reads(shape in prop::collection::vec(any::<u8>(), 0..5), set: u16) {
        let (rule, named) = rule(0, &shape);
        let logs = vec![PolicyLog { key: log().vkey().clone(), url: None }];
        let policy = Policy::new(logs, (0..named).map(witness).collect(), Some(&rule)).unwrap();
        let cosigned: Vec<u8> = (0..named).filter(|n| set >> n & 1 == 1).collect();
        let got = policy.check(note(&cosigned).as_bytes());
        prop_assert_eq!(got.is_ok(), met(&rule, &cosigned));
        prop_assert_eq!(policy.to_text().parse::<Policy>(), Ok(policy));
    }

    #[test]
    fn any_text_is_a_policy_or_none(lines in prop::collection::vec(
        "(log|witness|group|quorum|#|)[ \t]?(a|b|none|1|2|any|all|[ -~\u{80}-\u{2ff}]{0,9}|[ ab12]{0,9})*", 0..6,
    ), keys: u8) {
        let key = cosigner(keys % 3).vkey().to_string();
        let text = format!("witness a {key}\n{}\nquorum a\n", lines.join("\n"));
        for text in [lines.join("\n"), text] {
            if let Ok(policy) = text.parse::<Policy>() {
                prop_assert_eq!(policy.to_text().parse::<Policy>(), Ok(policy));
            }
        }
    }

    /// Lines in any order, some twice, some of strangers: who counts is who cosigned.
    #[test]
    fn lines_count_once_and_in_any_order(lines in prop::collection::vec(0_u8..9, 0..20)) {
        let policy = policy(Some(&Rule::AtLeast(5, names(0..6))));
        let distinct: BTreeSet<u8> = lines.iter().copied().filter(|n| *n < 6).collect();
        let got = policy.check(note(&lines).as_bytes());
        prop_assert_eq!(got.is_ok(), distinct.len() >= 5);
    }
}

#[test]
fn the_usual_threshold_is_over_two_thirds() {
    let of = |n| usual_threshold(n);
    assert_eq!((of(1), of(2), of(3), of(4), of(7), of(10)), (1, 2, 3, 3, 5, 7));
}
