//! What each family reads, has, and is judged by.

use super::*;

#[test]
fn signals_exist_once_and_fit_the_family() {
    check(
        &sound_but("name = \"heart_rate\"", "name = \"ecg\""),
        expect![[r#"
            error: a pipeline of family `vitals` does not read `ecg`
              --> test.toml:11:8
               |
            11 | name = "ecg"
               |        ^^^^^
               |
               = help: it reads `heart_rate`, `spo2`, `respiration_rate`, `systolic`, `diastolic`, `temperature`, `oxygen_flow`, `ambient_temperature`, `base_excess`, `bicarbonate`, `inspired_oxygen`, `blood_ph`, `arterial_co2`, `arterial_saturation`, `aspartate_aminotransferase`, `urea_nitrogen`, `alkaline_phosphatase`, `calcium`, `chloride`, `creatinine`, `bilirubin_direct`, `blood_glucose`, `lactate`, `magnesium`, `phosphate`, `potassium`, `bilirubin_total`, `troponin_i`, `hematocrit`, `hemoglobin`, `aptt`, `leukocytes`, `fibrinogen`, `platelets`, `glucose`
        "#]],
    );
    check(
        &sound_but("[[flags]]", "[[signals]]\nname = \"heart_rate\"\nrate_hz = 0\n\n[[flags]]"),
        expect![[r#"
            error: the signal `heart_rate` is listed twice
              --> test.toml:15:8
               |
            15 | name = "heart_rate"
               |        ^^^^^^^^^^^^
            error: `rate_hz` is from 0.001 to 100000
              --> test.toml:16:11
               |
            16 | rate_hz = 0
               |           ^
        "#]],
    );
}

#[test]
fn features_need_their_signal() {
    check(
        &sound_but("heart_rate.mean > 130", "heart_rate.mena > 130 && spo2.mean < 90"),
        expect![[r#"
            error: unknown feature `heart_rate.mena`
              --> test.toml:18:9
               |
            18 | when = "heart_rate.mena > 130 && spo2.mean < 90"
               |         ^^^^^^^^^^^^^^^
               |
               = help: did you mean `heart_rate.mean` or `heart_rate.min`?
            error: `spo2.mean` needs the signal `spo2`, which this pipeline does not have
              --> test.toml:18:34
               |
            18 | when = "heart_rate.mena > 130 && spo2.mean < 90"
               |                                  ^^^^^^^^^
               |
               = help: add a `[[signals]]` with `name = "spo2"`
        "#]],
    );
}

#[test]
fn vitals_have_no_model() {
    check(
        &sound_but("[window]", "[model]\nid = \"ecg-beats\"\n\n[window]"),
        expect![[r#"
        error: a pipeline of family `vitals` has no model
         --> test.toml:6:2
          |
        6 | [model]
          |  ^^^^^
          |
          = help: remove `[model]`
    "#]],
    );
}

#[test]
fn groups_of_features_are_asked_for_by_name() {
    let with = |line: &str, rule: &str| {
        sound_but("version = 1", &format!("version = 1\n{line}"))
            .replace("heart_rate.mean > 130", rule)
    };
    let asked =
        parse("test.toml", &with("features = [\"mews\", \"qsofa\", \"mews\"]", "mews.lower > 4"));
    assert_eq!(asked.unwrap().groups, [Group::Qsofa, Group::Mews]);
    check(
        &with("", "mews.lower > 4"),
        expect![[r#"
        error: `mews.lower` is a feature that windows have only where it is asked for
          --> test.toml:19:9
           |
        19 | when = "mews.lower > 4"
           |         ^^^^^^^^^^
           |
           = help: add `features = ["mews"]` before the first table
    "#]],
    );
    check(
        &with("features = [\"hrv\", \"mew\"]", "heart_rate.mean > 130"),
        expect![[r#"
        error: `hrv` is no group of features of this family
         --> test.toml:3:13
          |
        3 | features = ["hrv", "mew"]
          |             ^^^^^
          |
          = help: write `qsofa` or `mews` or `shock_index`
        error: `mew` is no group of features of this family
         --> test.toml:3:20
          |
        3 | features = ["hrv", "mew"]
          |                    ^^^^^
          |
          = help: did you mean `mews`?
    "#]],
    );
    check(
        &with("features = \"mews\"", "heart_rate.mean > 130"),
        expect![[r#"
        error: `features` is a list of words, not a string
         --> test.toml:3:12
          |
        3 | features = "mews"
          |            ^^^^^^
    "#]],
    );
}

#[test]
fn a_pulse_is_told_from_a_plethysmogram() {
    let pulse = SOUND
        .replace("\"vitals\"", "\"pulse\"")
        .replace("name = \"heart_rate\"", "name = \"ecg\"")
        .replace("heart_rate.mean > 130", "pulse.rate > 130");
    check(
        &pulse,
        expect![[r#"
        error: a pipeline of family `pulse` reads `ppg`, and may read others beside it
          --> test.toml:10:1
           |
        10 | [[signals]]
           | ^^^^^^^^^^^
           |
           = help: add a `[[signals]]` with `name = "ppg"`
    "#]],
    );
    let model = format!("{pulse}\n[model]\nid = \"ecg-beats\"\n").replace("\"ecg\"", "\"ppg\"");
    check(
        &model,
        expect![[r#"
        error: a pipeline of family `pulse` has no model
          --> test.toml:20:2
           |
        20 | [model]
           |  ^^^^^
           |
           = help: remove `[model]`
    "#]],
    );
}
