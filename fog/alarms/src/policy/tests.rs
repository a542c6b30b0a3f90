use super::*;
use crate::Condition;

fn refused(text: &str) -> String {
    Policy::parse("ward.toml", text).unwrap_err().to_string()
}

#[test]
fn the_built_in_policy_reads_and_names_every_key_of_each_priority() {
    assert_eq!(Policy::parse("default-policy.toml", DEFAULT_POLICY).unwrap(), Policy::default());
    assert_eq!(Policy::parse("empty.toml", "").unwrap(), Policy::default());
    let shown: toml::Table = DEFAULT_POLICY.parse().unwrap();
    for (priority, keys) in shown["priority"].as_table().unwrap() {
        assert_eq!(keys.as_table().unwrap().len(), 9, "{priority}");
    }
    let policy = Policy::default();
    assert_eq!(policy.rule("anything", Priority::High).escalate.len(), 3);
    assert_eq!(policy.rule("sensor-gaps", Priority::Low).raised, 1);
    assert_eq!(policy.condition("sensor-gaps"), Some(Condition::Technical));
    assert_eq!(policy.contacts(), BTreeSet::from(["ward", "charge-nurse", "doctor"]));
    assert!(policy.flags().contains("news2-medium"));
}

#[test]
fn a_file_says_what_differs() {
    let policy = Policy::parse("w", "[priority.low]\nclear = 7\nremind_every = \"1h\"\n").unwrap();
    let rule = policy.rule("fever", Priority::Low);
    assert_eq!((rule.clear, rule.remind_us, rule.of), (7, Some(3_600_000_000), 5));
    // The built-in entry of a flag differs from the file's priority, not from the built-in one.
    assert_eq!(policy.rule("sensor-gaps", Priority::Low).clear, 7);
    let policy = Policy::parse("w", "[[flags]]\nname = \"fever\"\nwindows = \"4 of 6\"\n").unwrap();
    assert_eq!(policy.rule("fever", Priority::High).of, 6);
    assert_eq!(policy.condition("sensor-gaps"), None);
}

#[test]
fn a_policy_without_delays_or_suppressions_differs_in_nothing_else() {
    let policy = Policy::parse("w", "[[flags]]\nname = \"fever\"\nwindows = \"4 of 6\"\n").unwrap();
    let bare = policy.clone().without_suppressions();
    assert_eq!(bare.suppressions("news2-medium", Condition::Score).count(), 0);
    assert_eq!(policy.suppressions("news2-medium", Condition::Score).count(), 1);
    assert_eq!(bare.flags, policy.flags);
    let prompt = policy.clone().without_delays();
    for flag in ["fever", "hypoxia"] {
        let (own, was) = (prompt.rule(flag, Priority::High), policy.rule(flag, Priority::High));
        let but_delay =
            Rule { raised: was.raised, of: was.of, hold_us: was.hold_us, ..own.clone() };
        assert_eq!((own.raised, own.of, own.hold_us, but_delay), (1, 1, 0, was.clone()));
    }
    assert_eq!(prompt.suppressions, policy.suppressions);
}

#[test]
fn mistakes_have_a_place_and_a_suggestion() {
    expect_test::expect![[r#"
        ward.toml:2:1: unknown field `laching`, expected one of `windows`, `hold`, `clear`, `latching`, `remind_every`, `acknowledged_for`, `pause_at_most`, `episode_gap`, `escalate`; did you mean `latching`?"#]]
    .assert_eq(&refused("[priority.high]\nlaching = true\n"));
    expect_test::expect![[r#"ward.toml:1:15: write a time as `"10s"`, `"3m"` or `"1h"`"#]]
        .assert_eq(&refused("stale_after = \"10 min\""));
    expect_test::expect![[r#"
        ward.toml:2:11: write windows as `"2 of 3"`: at least 1, of at most 64"#]]
    .assert_eq(&refused("[priority.low]\nwindows = \"4 of 3\""));
    for (text, told) in [
        ("[priority.urgent]\n", "expected one of `information`"),
        ("[[flags]]\nname = \"a\"\ncondition = \"tecnical\"", "did you mean `technical`?"),
        ("[[flags]]\nname = \"a\"\n[[flags]]\nname = \"a\"", "4:8: the flag `a` is listed twice"),
        ("[[suppress]]\nby = \"a\"\nflags = [\"a\"]\nat_most = \"1m\"", "cannot suppress itself"),
        ("[priority.low]\npause_at_most = \"0s\"", "longer than nothing"),
        ("[priority.low]\nclear = 0", "between 1 and 64"),
        ("stale_after = \"169h\"", "the longest time is 168h"),
        (
            "[priority.low]\nescalate = [{after = \"1m\", to = [\"a\"]}, {after = \"1m\", to = [\"b\"]}]",
            "in the order of their times",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(told), "{error}");
    }
    assert!(refused(&" ".repeat(MAX_POLICY_BYTES + 1)).contains("at most 65536 bytes"));
}
