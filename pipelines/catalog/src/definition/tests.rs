mod families;

use super::*;
use crate::Pipeline;
use expect_test::{Expect, expect};
use proptest::prelude::*;

const SOUND: &str = r#"id = "test"
version = 1
title = "Test"
family = "vitals"

[window]
size = "60s"
slide = "10s"

[[signals]]
name = "heart_rate"
rate_hz = 1.0

[[flags]]
name = "fast"
priority = "medium"
text = "Fast."
when = "heart_rate.mean > 130"
"#;

/// The diagnostics of a definition, as a terminal without colours shows them.
fn check(text: &str, expected: Expect) {
    let diagnostics = Pipeline::parse("test.toml", text).unwrap_err();
    expected.assert_eq(&format!("{diagnostics}\n"));
}

/// The sound definition with one line replaced.
fn sound_but(line: &str, instead: &str) -> String {
    let text = SOUND.replacen(line, instead, 1);
    assert_ne!(text, SOUND, "{line}");
    text
}

#[test]
fn a_sound_definition_is_read() {
    let definition = parse("test.toml", SOUND).unwrap();
    let window = WindowSpec { size_us: 60_000_000, slide_us: 10_000_000, lateness_us: 0 };
    assert_eq!(definition.window, window);
    assert_eq!(definition.model, None);
    let tumbling = parse("test.toml", &sound_but("slide = \"10s\"\n", "")).unwrap();
    assert!(tumbling.window.is_tumbling());
}

#[test]
fn every_mistake_is_found_in_one_pass() {
    check(
        r#"id = "Ward Vitals"
version = 0
titel = "Vital signs"
family = "vital"

[window]
size = "60"
slide = "500ms"
lateness_s = 30

[[signals]]
name = "hart_rate"
rate_hz = "1"

[[flags]]
name = "fast"
priority = "urgent"
text = ""
when = "heart_rate.mean >> 130"
"#,
        expect![[r#"
            error: the definition has no `title`
             --> test.toml:1:1
              |
            1 | id = "Ward Vitals"
              | ^
              |
              = help: add `title = "…"`
            error: `id` is lower-case letters, digits and hyphens, a letter first, at most 64 bytes
             --> test.toml:1:6
              |
            1 | id = "Ward Vitals"
              |      ^^^^^^^^^^^^^
              |
              = help: write `ward-vitals`
            error: `version` is from 1 to 4294967295
             --> test.toml:2:11
              |
            2 | version = 0
              |           ^
            error: unknown key `titel`
             --> test.toml:3:1
              |
            3 | titel = "Vital signs"
              | ^^^^^
              |
              = help: did you mean `title`?
            error: `vital` is no family
             --> test.toml:4:10
              |
            4 | family = "vital"
              |          ^^^^^^^
              |
              = help: did you mean `vitals`?
            error: a duration has the unit `ms`, `s`, `min` or `h`
             --> test.toml:7:8
              |
            7 | size = "60"
              |        ^^^^
              |
              = help: write `"60s"`
            error: `slide` is from 1s to 1h here
             --> test.toml:8:9
              |
            8 | slide = "500ms"
              |         ^^^^^^^
              |
              = help: write `"1s"`
            error: unknown key `lateness_s`
             --> test.toml:9:1
              |
            9 | lateness_s = 30
              | ^^^^^^^^^^
              |
              = help: did you mean `lateness`?
            error: unknown signal `hart_rate`
              --> test.toml:12:8
               |
            12 | name = "hart_rate"
               |        ^^^^^^^^^^^
               |
               = help: did you mean `heart_rate`?
            error: `rate_hz` is a number, not a string
              --> test.toml:13:11
               |
            13 | rate_hz = "1"
               |           ^^^
               |
               = help: write `rate_hz = 1.0`
            error: `urgent` is no priority
              --> test.toml:17:12
               |
            17 | priority = "urgent"
               |            ^^^^^^^^
               |
               = help: write `information` or `low` or `medium` or `high`
            error: `text` is one line of 1 to 240 characters
              --> test.toml:18:8
               |
            18 | text = ""
               |        ^^
            error: `>` cannot stand here
              --> test.toml:19:26
               |
            19 | when = "heart_rate.mean >> 130"
               |                          ^
        "#]],
    );
}

#[test]
fn an_unknown_key_is_named_with_its_neighbour() {
    check(
        &sound_but("slide = \"10s\"", "slide = \"10s\"\nlateness_s = 30"),
        expect![[r#"
        error: unknown key `lateness_s`
         --> test.toml:9:1
          |
        9 | lateness_s = 30
          | ^^^^^^^^^^
          |
          = help: did you mean `lateness`?
    "#]],
    );
}

#[test]
fn a_size_fits_its_slide() {
    check(
        &sound_but("size = \"60s\"", "size = \"65s\""),
        expect![[r#"
        error: the size is no multiple of the slide, 10s
         --> test.toml:7:8
          |
        7 | size = "65s"
          |        ^^^^^
          |
          = help: write `"1min"` or `"70s"`
    "#]],
    );
}

#[test]
fn durations_have_limits() {
    check(
        &sound_but("size = \"60s\"", "size = \"2h\"\nlateness = \"90min\""),
        expect![[r#"
        error: `size` is from 1s to 1h here
         --> test.toml:7:8
          |
        7 | size = "2h"
          |        ^^^^
          |
          = help: write `"1h"`
        error: `lateness` is from 0s to 1h here
         --> test.toml:8:12
          |
        8 | lateness = "90min"
          |            ^^^^^^^
          |
          = help: write `"1h"`
    "#]],
    );
    check(
        &sound_but("size = \"60s\"", "size = \"1m\""),
        expect![[r#"
        error: a duration has the unit `ms`, `s`, `min` or `h`
         --> test.toml:7:8
          |
        7 | size = "1m"
          |        ^^^^
          |
          = help: write `"1min"`
    "#]],
    );
    check(
        &sound_but("size = \"60s\"", "size = 60"),
        expect![[r#"
        error: `size` is a duration with its unit, not a whole number
         --> test.toml:7:8
          |
        7 | size = 60
          |        ^^
          |
          = help: write `"60s"`
    "#]],
    );
}

#[test]
fn rules_are_placed_inside_their_string() {
    check(
        &sound_but(
            "when = \"heart_rate.mean > 130\"",
            "when = \"\"\"\nheart_rate.mean > 130 &&\n  heart_rate.max = 180\"\"\"",
        ),
        expect![[r#"
            error: `=` cannot stand here
              --> test.toml:20:18
               |
            20 |   heart_rate.max = 180"""
               |                  ^
               |
               = help: compare with `==`
        "#]],
    );
    check(
        &sound_but("heart_rate.mean > 130", "heart_rate.mean >\\t130 and\\u0020true"),
        expect![[r#"
            error: `and` cannot stand here
              --> test.toml:18:32
               |
            18 | when = "heart_rate.mean >\t130 and\u0020true"
               |                                ^^^
               |
               = help: write `&&`
        "#]],
    );
}

#[test]
fn flags_have_names_of_their_own() {
    check(
        &format!("{SOUND}\n[[flags]]\nname = \"fast\"\npriority = \"hihg\"\nwhen = \"true\"\n"),
        expect![[r#"
            error: this flag has no `text`
              --> test.toml:20:1
               |
            20 | [[flags]]
               | ^^^^^^^^^
               |
               = help: add `text = "…"`, for the person who has to act
            error: there are two flags `fast`
              --> test.toml:21:8
               |
            21 | name = "fast"
               |        ^^^^^^
               |
               = help: each flag has a name of its own
            error: `hihg` is no priority
              --> test.toml:22:12
               |
            22 | priority = "hihg"
               |            ^^^^^^
               |
               = help: did you mean `high`?
            error: the rule reads no feature, so it says the same of every window
              --> test.toml:23:9
               |
            23 | when = "true"
               |         ^^^^
        "#]],
    );
}

#[test]
fn toml_errors_are_told_without_their_consequences() {
    check(
        &sound_but("version = 1", "version = "),
        expect![[r#"
        error: string values must be quoted, expected literal string
         --> test.toml:2:11
          |
        2 | version = 
          |           ^
    "#]],
    );
    check(
        &sound_but("[[signals]]", "[[signals]"),
        expect![[r#"
        error: unclosed array table, expected `]`
          --> test.toml:10:11
           |
        10 | [[signals]
           |           ^
    "#]],
    );
    check(
        &sound_but("version = 1", "version = 1\nversion = 2"),
        expect![[r#"
        error: duplicate key
         --> test.toml:3:1
          |
        3 | version = 2
          | ^^^^^^^
    "#]],
    );
}

#[test]
fn an_empty_file_lacks_everything() {
    check(
        "",
        expect![[r#"
        error: the definition has no `id`
         --> test.toml:1:1
          |
        1 |
          | ^
          |
          = help: add `id = "ward-vitals"`
        error: the definition has no `version`
         --> test.toml:1:1
          |
        1 |
          | ^
          |
          = help: add `version = 1`
        error: the definition has no `title`
         --> test.toml:1:1
          |
        1 |
          | ^
          |
          = help: add `title = "…"`
        error: the definition has no `family`
         --> test.toml:1:1
          |
        1 |
          | ^
          |
          = help: add `family = "vitals"` or `family = "ecg"`
        error: the definition has no `window`
         --> test.toml:1:1
          |
        1 |
          | ^
          |
          = help: add `[window]` with `size = "60s"`
        error: the definition has no `signals`
         --> test.toml:1:1
          |
        1 |
          | ^
          |
          = help: add `[[signals]]` with `name` and `rate_hz`
        error: the definition has no `flags`
         --> test.toml:1:1
          |
        1 |
          | ^
          |
          = help: add `[[flags]]` with `name`, `priority`, `text` and `when`
    "#]],
    );
}

#[test]
fn tables_are_tables() {
    check(
        &sound_but("[[signals]]", "[signals]"),
        expect![[r#"
        error: `signals` is a list of tables, not a table
          --> test.toml:10:1
           |
        10 | [signals]
           | ^^^^^^^^^
           |
           = help: write `[[signals]]`
    "#]],
    );
    check(
        "window = 3\nflags = []\nsignals = [1]\n",
        expect![[r#"
        error: the definition has no `id`
         --> test.toml:1:1
          |
        1 | window = 3
          | ^
          |
          = help: add `id = "ward-vitals"`
        error: the definition has no `version`
         --> test.toml:1:1
          |
        1 | window = 3
          | ^
          |
          = help: add `version = 1`
        error: the definition has no `title`
         --> test.toml:1:1
          |
        1 | window = 3
          | ^
          |
          = help: add `title = "…"`
        error: the definition has no `family`
         --> test.toml:1:1
          |
        1 | window = 3
          | ^
          |
          = help: add `family = "vitals"` or `family = "ecg"`
        error: `window` is a table, not a whole number
         --> test.toml:1:10
          |
        1 | window = 3
          |          ^
          |
          = help: write `[window]`
        error: `flags` has 1 to 64 entries, not 0
         --> test.toml:2:9
          |
        2 | flags = []
          |         ^^
        error: `signals` is a list of tables, not a list
         --> test.toml:3:11
          |
        3 | signals = [1]
          |           ^^^
          |
          = help: write `[[signals]]`
    "#]],
    );
}

#[test]
fn limits_hold() {
    let long = format!("# {}\n{SOUND}", "x".repeat(MAX_DEFINITION_BYTES));
    assert!(parse("test.toml", &long).unwrap_err().to_string().contains("at most 65536 bytes"));
    let flag = SOUND.split("[[flags]]").nth(1).unwrap();
    let flags = |count: usize| {
        let more: String = (0..count)
            .map(|n| format!("[[flags]]{}", flag.replace("fast", &format!("fast-{n}"))))
            .collect();
        format!("{SOUND}{more}")
    };
    assert_eq!(parse("test.toml", &flags(MAX_FLAGS - 1)).unwrap().flags.len(), MAX_FLAGS);
    assert!(parse("test.toml", &flags(MAX_FLAGS)).is_err());
}

/// A sound definition with pieces cut out and put in at random places.
fn damaged() -> impl Strategy<Value = String> {
    let cut = (0..SOUND.len(), 0usize..20, "[a-z\"'\\[\\]=.\n\\\\é0-9 ]{0,6}");
    proptest::collection::vec(cut, 1..5).prop_map(|cuts| {
        let mut text = SOUND.to_owned();
        for (at, length, put) in cuts {
            let start = text.floor_char_boundary(at.min(text.len()));
            let end = text.ceil_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end, &put);
        }
        text
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in prop_oneof![".{0,200}", damaged()]) {
        if let Err(diagnostics) = Pipeline::parse("any.toml", &text) {
            prop_assert!(diagnostics.count() > 0);
            let lines = text.matches('\n').count() + 1;
            for diagnostic in diagnostics.iter() {
                prop_assert!((1..=lines).contains(&diagnostic.line));
                prop_assert!(diagnostic.column >= 1);
            }
            prop_assert!(!diagnostics.render(true).is_empty());
        }
    }
}
