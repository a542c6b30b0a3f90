use super::*;
use crate::Family;
use crate::feature::Vocabulary;
use haar_schema::SignalSet;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

fn vocabulary() -> Vocabulary {
    let all: SignalSet = haar_schema::SignalId::all().collect();
    Vocabulary::new(Some(Family::Vitals), all, true, None, &[])
}

fn rule(text: &str) -> Rule {
    Rule::compile(text, &vocabulary()).unwrap()
}

fn mistakes(text: &str) -> Vec<String> {
    let place = |mistake: RuleMistake| {
        let suggestion = mistake.suggestion.map(|text| format!(" ({text})")).unwrap_or_default();
        format!("{:?} {}{suggestion}", text.get(mistake.range).unwrap_or("?"), mistake.message)
    };
    Rule::compile(text, &vocabulary()).unwrap_err().into_iter().map(place).collect()
}

fn features(values: &[(&str, f64)]) -> Features {
    values.iter().map(|(name, value)| ((*name).to_owned(), Feature::value(*value))).collect()
}

fn undetermined(missing: &[&str]) -> Outcome {
    Outcome::Undetermined { missing: missing.iter().map(|name| (*name).to_owned()).collect() }
}

#[test]
fn a_side_that_decides_absorbs_one_that_is_missing() {
    let known = features(&[("heart_rate.mean", 140.0)]);
    for text in [
        "heart_rate.mean > 130 || spo2.mean < 90",
        "spo2.mean < 90 || heart_rate.mean > 130",
        "!(heart_rate.mean <= 130 && spo2.mean < 90)",
        "heart_rate.mean > 130 || spo2.mean < 90 || temperature.mean > 39.0",
    ] {
        assert_eq!(rule(text).outcome(&known), Outcome::Raised, "{text}");
    }
    for text in
        ["heart_rate.mean > 150 && spo2.mean < 90", "spo2.mean < 90 && heart_rate.mean > 150"]
    {
        assert_eq!(rule(text).outcome(&known), Outcome::NotRaised, "{text}");
    }
}

#[test]
fn missing_is_neither_true_nor_false() {
    let known = features(&[("heart_rate.mean", 140.0)]);
    let missing = undetermined(&["spo2.mean"]);
    for text in [
        "spo2.mean < 90",
        "!(spo2.mean < 90)",
        "spo2.mean != spo2.mean",
        "heart_rate.mean > 130 && spo2.mean < 90",
        "heart_rate.mean > 150 || spo2.mean < 90",
        "spo2.mean + 1.0 > heart_rate.mean",
        "spo2.mean < 90 ? true : true",
    ] {
        assert_eq!(rule(text).outcome(&known), missing, "{text}");
    }
    assert_eq!(
        rule("temperature.mean > 38.0 && spo2.mean < 90").outcome(&known),
        undetermined(&["spo2.mean", "temperature.mean"]),
    );
    // A feature that says why it is missing is missing as much as one that is not there.
    let mut known = known;
    known.insert("spo2.mean".to_owned(), Feature::missing(Missing::NoData));
    assert_eq!(rule("spo2.mean < 90").outcome(&known), missing);
}

#[test]
fn presence_can_be_asked_for() {
    let known = features(&[("heart_rate.mean", 140.0)]);
    assert_eq!(rule("has(heart_rate.mean)").outcome(&known), Outcome::Raised);
    assert_eq!(rule("has(spo2.mean)").outcome(&known), Outcome::NotRaised);
    assert_eq!(rule("has(spo2.mean) && spo2.mean < 90").outcome(&known), Outcome::NotRaised);
    assert_eq!(rule("!has(spo2.mean) || spo2.mean < 90").outcome(&known), Outcome::Raised);
    assert_eq!(
        rule("has(spo2.mean) ? spo2.mean < 90 : heart_rate.mean > 130").outcome(&known),
        Outcome::Raised
    );
}

#[test]
fn mistakes_are_placed_and_explained() {
    let told: Vec<String> = [
        "heart_rate.mean > ",
        "heart_rate.mean",
        "heart_rate > 100",
        "heart_rate.men > 100",
        "hart_rate.mean > 100",
        "heart_rate.mean + 10 > 100",
        "heart_rate.mean > 100 > 3",
        "heart_rate.mean = 3",
        "size(heart_rate.mean) > 3",
        "heart_rate.mean in [1, 2]",
        "heart_rate['mean'] > 2.0",
        "true",
        "heart_rate.mean > 3u",
        "heart_rate.mean > 9007199254740993",
        "spo2.mean < 90 && (heart_rate.mean || spo2.min)",
        "heart_rate.mean > 1 && ",
        "heart_rate.mean > 'high'",
        "heart_rate.mean > 100 and spo2.mean < 90",
        "températüre.mean > 3",
        "[1].exists(x, x > 0)",
        "heart_rate.mean - 1.0",
        "ecg.quality > 0.5",
    ]
    .iter()
    .map(|text| format!("{text}\n  {}", mistakes(text).join("\n  ")))
    .collect();
    expect_test::expect![[r#"
        heart_rate.mean > 
          " " the rule ends where a number, a feature or a condition must follow
        heart_rate.mean
          "heart_rate.mean" this is a number, not a condition (compare it, such as `heart_rate.mean > 1.0`)
        heart_rate > 100
          "heart_rate" `heart_rate` is no feature (name one of its features, such as `heart_rate.mean`)
        heart_rate.men > 100
          "heart_rate.men" unknown feature `heart_rate.men` (did you mean `heart_rate.mean` or `heart_rate.min` or `heart_rate.max`?)
        hart_rate.mean > 100
          "hart_rate.mean" unknown feature `hart_rate.mean` (did you mean `heart_rate.mean`?)
        heart_rate.mean + 10 > 100
          "10" CEL does not calculate with whole numbers and decimals together (write `10.0`)
        heart_rate.mean > 100 > 3
          "heart_rate.mean > 100" this is a condition, not a number (combine conditions with `&&` and `||`)
        heart_rate.mean = 3
          "=" `=` cannot stand here (compare with `==`)
        size(heart_rate.mean) > 3
          "size(heart_rate.mean)" `size()` is not available in rules (rules know numbers, features, has(), + - * /, < <= > >= == !=, && || !, ? : and parentheses)
        heart_rate.mean in [1, 2]
          "heart_rate.mean in [1, 2]" this part of CEL is not available in rules (rules know numbers, features, has(), + - * /, < <= > >= == !=, && || !, ? : and parentheses)
        heart_rate['mean'] > 2.0
          "heart_rate['mean']" this part of CEL is not available in rules (rules know numbers, features, has(), + - * /, < <= > >= == !=, && || !, ? : and parentheses)
        true
          "true" the rule reads no feature, so it says the same of every window
        heart_rate.mean > 3u
          "3u" rules know no unsigned numbers (write `3`)
        heart_rate.mean > 9007199254740993
          "9007199254740993" a whole number beyond 2^53 is not exact
        spo2.mean < 90 && (heart_rate.mean || spo2.min)
          "heart_rate.mean" this is a number, not a condition (compare it, such as `heart_rate.mean > 1.0`)
          "spo2.min" this is a number, not a condition (compare it, such as `spo2.min > 1.0`)
        heart_rate.mean > 1 && 
          " " the rule ends where a number, a feature or a condition must follow
        heart_rate.mean > 'high'
          "'high'" this part of CEL is not available in rules (rules know numbers, features, has(), + - * /, < <= > >= == !=, && || !, ? : and parentheses)
        heart_rate.mean > 100 and spo2.mean < 90
          "and" `and` cannot stand here (write `&&`)
        températüre.mean > 3
          "é" `é` has no meaning in a rule
        [1].exists(x, x > 0)
          ".exists(x, x > 0)" this part of CEL is not available in rules (rules know numbers, features, has(), + - * /, < <= > >= == !=, && || !, ? : and parentheses)
        heart_rate.mean - 1.0
          "heart_rate.mean - 1.0" this is a number, not a condition (compare it with `<`, `<=`, `>` or `>=`)
        ecg.quality > 0.5
          "ecg.quality" `ecg.quality` is a feature of family `ecg`, not of this pipeline"#]].assert_eq(&told.join("\n"));
}

#[test]
fn limits_hold() {
    assert!(
        mistakes(&format!("heart_rate.mean > 1.0{}", " ".repeat(MAX_RULE_BYTES)))[0]
            .contains("at most 1024 bytes")
    );
    let deep = |n: usize| format!("{}heart_rate.mean > 1{}", "(".repeat(n), ")".repeat(n));
    assert!(Rule::compile(&deep(usize::from(MAX_RULE_DEPTH) - 2), &vocabulary()).is_ok());
    assert!(mistakes(&deep(usize::from(MAX_RULE_DEPTH) + 1))[0].contains("nests deeper"));
}

/// The longest chains of everything that a recursive parser could follow down, on the stack of a
/// thread that tests have.
#[test]
fn long_rules_do_not_exhaust_the_stack() {
    for part in [
        "1+", "!", "-", "a.", "a?", "a?b:", "a&&", "a||", "(", "[", "{", "a<", "a(", "- -", "!-",
        "a[0]",
    ] {
        let text = part.repeat(MAX_RULE_BYTES / part.len());
        for text in [format!("{}1", &text[..text.len() - 1]), text] {
            assert!(Rule::compile(&text, &vocabulary()).is_err(), "{part}");
        }
    }
}

/// Conditions that CEL accepts, over three features.
fn condition() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        Just("spo2.mean".to_owned()),
        Just("heart_rate.mean".to_owned()),
        Just("heart_rate.max".to_owned()),
        (-3i32..4).prop_map(|n| format!("{n}.0")),
        Just("2.5".to_owned()),
    ]
    .prop_recursive(2, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), prop_oneof!["\\+", "-", "\\*"], inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            // Never by zero: CEL's comparisons with NaN are false, the interpreter's an error.
            inner.clone().prop_map(|inner| format!("({inner} / 2.5)")),
            inner.prop_map(|inner| format!("-({inner})")),
        ]
    });
    let leaf = prop_oneof![
        (number.clone(), prop_oneof!["<", "<=", ">", ">=", "==", "!="], number)
            .prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
        ("spo2\\.mean|heart_rate\\.(mean|max)", "<|>=|==", -3i32..4)
            .prop_map(|(feature, operator, whole)| format!("{feature} {operator} {whole}")),
        Just("has(spo2.mean)".to_owned()),
        Just("has(heart_rate.max)".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

/// What the `cel` crate's interpreter says of the rule, `None` for an error.
fn interpreted(text: &str, values: &BTreeMap<&str, f64>) -> Option<bool> {
    let mut fields: BTreeMap<&str, HashMap<String, f64>> = BTreeMap::new();
    for signal in ["spo2", "heart_rate"] {
        fields.insert(signal, HashMap::new());
    }
    for (name, value) in values {
        let (signal, statistic) = name.split_once('.').unwrap();
        fields.get_mut(signal).unwrap().insert(statistic.to_owned(), *value);
    }
    let mut context = cel::Context::default();
    for (signal, statistics) in fields {
        context.add_variable_from_value(signal, statistics);
    }
    match cel::Program::compile(text).unwrap().execute(&context) {
        Ok(cel::Value::Bool(truth)) => Some(truth),
        Ok(other) => panic!("{text} is {other:?}"),
        Err(_) => None,
    }
}

proptest! {
    /// The tree says what CEL says, also about which rules missing features leave without a value.
    #[test]
    fn agrees_with_the_interpreter_of_the_cel_crate(
        condition in condition(),
        spo2 in proptest::option::of(-3i32..4),
        heart_rate in proptest::option::of(-3i32..4),
        max in proptest::option::of(-3i32..4),
    ) {
        let text = format!("has(spo2.min) || ({condition})");
        let given = [("spo2.mean", spo2), ("heart_rate.mean", heart_rate), ("heart_rate.max", max)];
        let values: BTreeMap<&str, f64> = given
            .iter()
            .filter_map(|(name, value)| value.map(|value| (*name, f64::from(value))))
            .collect();
        let known = features(&values.iter().map(|(name, value)| (*name, *value)).collect::<Vec<_>>());
        let outcome = rule(&text).outcome(&known);
        let expected = interpreted(&text, &values);
        match expected {
            Some(true) => prop_assert_eq!(outcome, Outcome::Raised, "{}", text),
            Some(false) => prop_assert_eq!(outcome, Outcome::NotRaised, "{}", text),
            None => {
                let undetermined = matches!(outcome, Outcome::Undetermined { .. });
                prop_assert!(undetermined, "{}: {:?}", text, outcome);
            }
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}|[a-z0-9_.<>=!&|?:()+*/ '\"\\[\\]{}-]{0,80}") {
        let _ = Rule::compile(&text, &vocabulary());
    }
}
