use super::*;
use haar_recordings::wfdb::{Annotation, Record, find_records, read_annotations};
use haar_schema::{Feature, Missing};
use std::collections::BTreeMap;
use std::ops::Range;

fn pipeline(id: &str) -> Pipeline {
    builtin().into_iter().find(|pipeline| pipeline.reference().id == id).unwrap()
}

/// A minute of readings, each `interval_s` apart, of level and rise per minute.
fn minute(interval_s: i64, level: f64, rise: f64) -> Moments {
    let mut moments = Moments::default();
    for second in (0..60).step_by(interval_s as usize) {
        moments.add(second * 1_000_000, level + rise * second as f64 / 60.0);
    }
    moments
}

/// A healthy adult; the sensors that the ward has.
fn healthy() -> Vec<(SignalId, Moments)> {
    vec![
        (SignalId::HEART_RATE, minute(1, 72.0, 0.0)),
        (SignalId::SPO2, minute(1, 98.0, 0.0)),
        (SignalId::RESPIRATION_RATE, minute(1, 14.0, 0.0)),
        (SignalId::SYSTOLIC, minute(1, 122.0, 0.0)),
        (SignalId::DIASTOLIC, minute(1, 78.0, 0.0)),
        (SignalId::TEMPERATURE, minute(10, 36.8, 0.0)),
    ]
}

fn with(changes: &[(SignalId, Moments)]) -> Vec<(SignalId, Moments)> {
    let mut series = healthy();
    for (signal, moments) in changes {
        series.retain(|(other, _)| other != signal);
        series.push((*signal, *moments));
    }
    series
}

fn flags(decision: &Decision) -> Vec<&str> {
    decision.raised.iter().map(|raised| raised.flag.as_str()).collect()
}

fn decide(series: &[(SignalId, Moments)]) -> Decision {
    let pipeline = pipeline("ward-vitals");
    pipeline.decide(&pipeline.describe_vitals(series), None)
}

#[test]
fn built_in_definitions_have_no_mistakes() {
    for (name, text) in DEFINITIONS {
        if let Err(diagnostics) = Pipeline::parse(name, text) {
            panic!("{diagnostics}");
        }
    }
    let ids: Vec<String> =
        builtin().iter().map(|pipeline| pipeline.reference().id.clone()).collect();
    assert_eq!(ids, ["ward-vitals", "ecg-rhythm", "laboratory"]);
}

#[test]
fn a_pipeline_goes_to_every_worker() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(&pipeline("ward-vitals"));
}

#[test]
fn the_reference_is_the_text() {
    let text = DEFINITIONS[0].1;
    let one = Pipeline::parse("a.toml", text).unwrap();
    let same = Pipeline::parse("b.toml", text).unwrap();
    let other = Pipeline::parse("a.toml", &format!("{text}\n# a remark\n")).unwrap();
    assert_eq!(one.reference(), same.reference());
    assert_ne!(one.reference().sha256, other.reference().sha256);
    assert_eq!(one.reference().sha256.len(), 64);
}

#[test]
fn a_healthy_patient_is_not_flagged() {
    let decision = decide(&healthy());
    assert_eq!(flags(&decision), [""; 0]);
    assert_eq!(decision.undetermined, []);
}

#[test]
fn each_derangement_raises_its_flag_and_no_other() {
    let cases: [(&str, SignalId, Moments, &[&str]); 8] = [
        ("febrile", SignalId::TEMPERATURE, minute(10, 38.9, 0.0), &["fever"]),
        ("hypoxic", SignalId::SPO2, minute(1, 88.0, 0.0), &["hypoxia"]),
        ("in shock", SignalId::SYSTOLIC, minute(1, 84.0, 0.0), &["hypotension"]),
        ("fast", SignalId::HEART_RATE, minute(1, 150.0, 0.0), &["tachycardia"]),
        ("slow", SignalId::HEART_RATE, minute(1, 36.0, 0.0), &["bradycardia"]),
        ("panting", SignalId::RESPIRATION_RATE, minute(1, 30.0, 0.0), &["respiration-abnormal"]),
        ("sedated", SignalId::RESPIRATION_RATE, minute(1, 6.0, 0.0), &["respiration-abnormal"]),
        ("not quite febrile", SignalId::TEMPERATURE, minute(10, 38.2, 0.0), &[]),
    ];
    for (name, signal, moments, expected) in cases {
        let decision = decide(&with(&[(signal, moments)]));
        assert_eq!(flags(&decision), expected, "{name}");
    }
}

#[test]
fn a_septic_patient_scores() {
    let decision = decide(&with(&[
        (SignalId::HEART_RATE, minute(1, 118.0, 4.0)),
        (SignalId::RESPIRATION_RATE, minute(1, 23.0, 0.0)),
        (SignalId::SYSTOLIC, minute(1, 98.0, -2.0)),
        (SignalId::TEMPERATURE, minute(10, 39.4, 0.0)),
    ]));
    // Pulse 2, respiration 2, pressure 2, temperature 2.
    assert_eq!(flags(&decision), ["news2-high", "fever"]);
    let raised = &decision.raised[0];
    assert_eq!(raised.priority, Priority::High);
    assert_eq!(
        raised.evidence,
        [Evidence { feature: "news2.lower".to_owned(), value: Feature::Value(8.0) }]
    );
    assert!(!raised.by_model);
}

#[test]
fn gaps_are_a_technical_flag_and_no_clinical_one() {
    // Ten readings of a finger that has been moved away.
    let mut few = Moments::default();
    for second in 0..10 {
        few.add(second * 1_000_000, 70.0);
    }
    let decision = decide(&with(&[(SignalId::SPO2, few)]));
    assert_eq!(flags(&decision), ["sensor-gaps"]);
    assert_eq!(decision.raised[0].priority, Priority::Low);

    // Both signals of the monitor have a hole of forty seconds.
    let mut holed = Moments::default();
    for second in (0..10).chain(50..60) {
        holed.add(second * 1_000_000, 70.0);
    }
    let monitor = |moments| [(SignalId::HEART_RATE, moments), (SignalId::SPO2, moments)];
    assert!(flags(&decide(&with(&monitor(holed)))).contains(&"sensor-gaps"));
}

#[test]
fn the_beginning_of_a_stay_is_no_gap() {
    let mut begun = Moments::default();
    for second in 50..60 {
        begun.add(second * 1_000_000, 97.0);
    }
    let decision = decide(&[(SignalId::HEART_RATE, begun), (SignalId::SPO2, begun)]);
    assert_eq!(flags(&decision), [""; 0]);
}

#[test]
fn without_readings_nothing_is_known() {
    let pipeline = pipeline("ward-vitals");
    let features = pipeline.describe_vitals(&[]);
    for (name, feature) in &features {
        let expected = match name.split_once('.') {
            Some((_, "coverage")) => Feature::Value(0.0),
            Some((_, "score")) => Feature::missing(Missing::Incomplete),
            _ => Feature::missing(Missing::NoData),
        };
        assert_eq!(*feature, expected, "{name}");
    }
    let decision = pipeline.decide(&features, None);
    assert_eq!(decision.raised, []);
    let undetermined: Vec<(&str, String)> = decision
        .undetermined
        .iter()
        .map(|undetermined| (undetermined.flag.as_str(), undetermined.missing.join(" ")))
        .collect();
    expect_test::expect![[r#"
        [
            (
                "news2-high",
                "news2.lower",
            ),
            (
                "news2-medium",
                "news2.lower",
            ),
            (
                "fever",
                "temperature.mean",
            ),
            (
                "hypotension",
                "systolic.mean",
            ),
            (
                "sensor-gaps",
                "heart_rate.continuity spo2.continuity",
            ),
        ]
    "#]]
    .assert_debug_eq(&undetermined);
}

#[test]
fn a_window_has_the_features_that_are_documented() {
    for pipeline in builtin() {
        let described = match pipeline.family() {
            Family::Vitals => pipeline.describe_vitals(&healthy()),
            Family::Ecg => pipeline.describe_ecg(&[], SampleRate::from_hz(250).unwrap()).features,
            Family::Device => pipeline.describe_devices(&[]),
            Family::Pulse => pipeline.describe_pulse(&[]),
        };
        let mut documented: Vec<String> =
            pipeline.features().into_iter().map(|feature| feature.name).collect();
        documented.sort();
        assert_eq!(described.into_keys().collect::<Vec<_>>(), documented);
    }
}

#[test]
fn statistics_are_those_of_the_readings() {
    let features =
        pipeline("ward-vitals").describe_vitals(&[(SignalId::HEART_RATE, minute(2, 70.0, 6.0))]);
    let value = |name: &str| features[name].get().unwrap();
    assert_eq!(value("heart_rate.min"), 70.0);
    assert_eq!(value("heart_rate.max"), 75.8);
    assert_eq!(value("heart_rate.mean"), 72.9);
    assert_eq!(value("heart_rate.slope_per_min"), 6.0);
    assert_eq!(value("heart_rate.coverage"), 0.5);
    let mut one = Moments::default();
    one.add(0, 70.0);
    let features = pipeline("ward-vitals").describe_vitals(&[(SignalId::HEART_RATE, one)]);
    let missing = Feature::missing(Missing::TooFew);
    assert_eq!(features["heart_rate.standard_deviation"], missing);
    assert_eq!(features["heart_rate.slope_per_min"], missing);
}

/// Values of features by name.
type Values = &'static [(&'static str, f64)];

/// Features of a clean ECG in sinus rhythm, with changes.
fn rhythm(changes: &[(&str, f64)]) -> Features {
    let mut features: Features = [
        ("ecg.heart_rate", 72.0),
        ("ecg.rmssd_ms", 30.0),
        ("ecg.sdnn_ms", 40.0),
        ("ecg.ectopic_fraction", 0.0),
        ("ecg.rr_irregularity", -2.4),
        ("ecg.quality", 0.9),
        ("ecg.coverage", 1.0),
        ("ecg.continuity", 1.0),
        ("ecg.beats", 36.0),
        ("beats.fraction_n", 1.0),
        ("beats.fraction_v", 0.0),
    ]
    .iter()
    .chain(changes)
    .map(|(name, value)| ((*name).to_owned(), Feature::value(*value)))
    .collect();
    features.retain(|_, feature| feature.get().is_some());
    features
}

#[test]
fn rhythms_raise_their_flags() {
    let pipeline = pipeline("ecg-rhythm");
    let cases: [(&str, Values, &[&str]); 10] = [
        ("sinus", &[], &[]),
        ("fibrillation", &[("ecg.rr_irregularity", -0.9)], &["possible-atrial-fibrillation"]),
        (
            "fibrillation, no model",
            &[("ecg.rr_irregularity", -0.9), ("beats.fraction_v", f64::NAN)],
            &["possible-atrial-fibrillation"],
        ),
        (
            "irregular by ectopy",
            &[("ecg.rr_irregularity", -0.9), ("beats.fraction_v", 0.2)],
            &["ventricular-ectopy"],
        ),
        ("few beats", &[("ecg.rr_irregularity", -0.9), ("ecg.beats", 12.0)], &[]),
        ("noise", &[("ecg.rr_irregularity", -0.9), ("ecg.quality", 0.1)], &["ecg-quality-low"]),
        ("fast", &[("ecg.heart_rate", 160.0)], &["tachycardia"]),
        ("slow", &[("ecg.heart_rate", 35.0)], &["bradycardia"]),
        ("lead off", &[("ecg.continuity", 0.2), ("ecg.quality", f64::NAN)], &["ecg-quality-low"]),
        ("just connected", &[("ecg.coverage", 0.2)], &[]),
    ];
    for (name, changes, expected) in cases {
        assert_eq!(flags(&pipeline.decide(&rhythm(changes), None)), expected, "{name}");
    }
    let decision = pipeline.decide(&rhythm(&[("beats.fraction_v", 0.2)]), None);
    assert!(decision.raised[0].by_model);
}

#[test]
fn the_readme_documents_every_feature() {
    let mut table = String::from("| feature | unit | meaning |\n|---|---|---|\n");
    let mut row = |name: &str, unit: &str, meaning: &str| {
        table.push_str(&format!("| `{name}` | {unit} | {meaning} |\n"));
    };
    // Every signal has the same statistics; one stands for all.
    let one: SignalSet = [SignalId::SPO2].into_iter().collect();
    for FeatureDoc { name, unit, meaning } in features(Family::Vitals, one, None, &[]) {
        match name.strip_prefix("spo2.") {
            Some(statistic) => row(
                &format!("<signal>.{statistic}"),
                &unit.replace('%', "the signal's"),
                meaning.trim_start_matches("SpO₂: "),
            ),
            None => row(&name, &unit, &meaning),
        }
    }
    for FeatureDoc { name, unit, meaning } in
        features(Family::Ecg, SignalSet::EMPTY, Some("ecg-beats"), &[])
    {
        row(&name, &unit, &meaning);
    }
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&table), "README.md lacks this table:\n{table}");
    let mut table = String::from("| feature | meaning |\n|---|---|\n");
    for FeatureDoc { name, meaning, .. } in features(Family::Device, one, None, &[]) {
        let (name, meaning) = (name.replace("spo2.", "<signal>."), meaning.replace("SpO₂: ", ""));
        table.push_str(&format!("| `{name}` | {meaning} |\n"));
    }
    assert!(readme.contains(&table), "README.md lacks this table:\n{table}");
    // The groups stand in one table, the pulse in another.
    let groups = Group::ALL
        .iter()
        .flat_map(|group| features(group.family(), SignalSet::EMPTY, None, &[*group]));
    let plain = |docs: Vec<FeatureDoc>| {
        let mut table = String::from("| feature | unit | meaning |\n|---|---|---|\n");
        for FeatureDoc { name, unit, meaning } in docs {
            table.push_str(&format!("| `{name}` | {unit} | {meaning} |\n"));
        }
        table
    };
    let of_group = |doc: &FeatureDoc| {
        Group::ALL.iter().any(|group| doc.name.starts_with(&format!("{}.", group.as_str())))
    };
    let pulse = [SignalId::PPG, SignalId::ECG].into_iter().collect();
    for table in
        [plain(groups.filter(of_group).collect()), plain(features(Family::Pulse, pulse, None, &[]))]
    {
        assert!(readme.contains(&table), "README.md lacks this table:\n{table}");
    }
}

#[test]
fn the_readme_lists_the_signals() {
    let readme = include_str!("../../README.md");
    for signal in SignalId::all() {
        let definition = signal.definition();
        let row = format!("| `{}` | {} | {} |", definition.name, definition.unit, definition.title);
        assert!(readme.contains(&row), "README.md lacks: {row}");
    }
}

#[test]
fn the_readme_tells_the_limits() {
    let readme = include_str!("../../README.md").replace('\n', " ");
    for limit in [
        format!("at most {} KiB", crate::MAX_DEFINITION_BYTES / 1_024),
        format!("{} signals and {} flags", crate::MAX_SIGNALS, crate::MAX_FLAGS),
        format!("nests at most {} deep", crate::MAX_RULE_DEPTH),
        "at most 1,024 bytes".to_owned(),
    ] {
        assert!(readme.contains(&limit), "README.md lacks: {limit}");
    }
    assert_eq!(crate::MAX_RULE_BYTES, 1_024);
}

/// The example in the README is a definition without a mistake.
#[test]
fn the_readme_example_is_a_definition() {
    let readme = include_str!("../../README.md");
    let example =
        readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    if let Err(diagnostics) = Pipeline::parse("README.md", example) {
        panic!("{diagnostics}");
    }
}

/// On the MIT-BIH Arrhythmia Database: of the half minutes that are fibrillation by the cardiologists'
/// rhythm annotations and not full of ventricular beats nearly all are flagged, and of those in sinus rhythm
/// few. The annotated share of ventricular beats stands in for the model, which has tests of its own.
#[test]
fn recorded_fibrillation_is_flagged_and_sinus_rhythm_is_not() {
    let Ok(data) = std::env::var("HAAR_DATA") else {
        panic!("set HAAR_DATA to the folder of recordings (it holds mitdb/)");
    };
    let pipeline = pipeline("ecg-rhythm");
    let (mut fibrillation, mut sinus) = ([0u32; 2], [0u32; 2]);
    for path in find_records(format!("{data}/mitdb")).unwrap() {
        let record = Record::open(&path).unwrap();
        let annotations = read_annotations(path.with_extension("atr")).unwrap();
        let mv = &record.signals[0];
        let size = 30 * 360;
        for start in (0..mv.len() - size).step_by(size) {
            let window = start..start + size;
            let Some(rhythm) = steady_rhythm(&annotations, &window) else { continue };
            let ectopic = ventricular_share(&annotations, &window);
            let mut description =
                pipeline.describe_ecg(&mv[window], SampleRate::from_hz(360).unwrap());
            description.features.insert("beats.fraction_v".to_owned(), Feature::value(ectopic));
            let decision = pipeline.decide(&description.features, None);
            let flagged = flags(&decision).contains(&"possible-atrial-fibrillation");
            match rhythm {
                "(AFIB" if ectopic < 0.1 => fibrillation[usize::from(flagged)] += 1,
                "(N" => sinus[usize::from(flagged)] += 1,
                _ => {}
            }
        }
    }
    let share = |[no, yes]: [u32; 2]| f64::from(yes) / f64::from(no + yes);
    assert!(fibrillation[0] + fibrillation[1] >= 20 && sinus[0] + sinus[1] >= 900);
    assert!(share(fibrillation) >= 0.9, "flagged in fibrillation: {fibrillation:?}");
    assert!(share(sinus) <= 0.05, "flagged in sinus rhythm: {sinus:?}");
}

/// The rhythm that is annotated for the whole window.
fn steady_rhythm<'a>(annotations: &'a [Annotation], window: &Range<usize>) -> Option<&'a str> {
    let changes = || annotations.iter().filter(|annotation| annotation.symbol == '+');
    if changes().any(|change| window.contains(&(change.sample as usize)) && change.sample > 0) {
        return None;
    }
    let before = changes().take_while(|change| change.sample as usize <= window.start);
    before.last().and_then(|change| change.aux.as_deref())
}

fn ventricular_share(annotations: &[Annotation], window: &Range<usize>) -> f64 {
    let beats = annotations.iter().filter(|annotation| {
        annotation.is_beat() && window.contains(&(annotation.sample as usize))
    });
    let (all, ventricular) = beats.fold((0u32, 0u32), |(all, ventricular), beat| {
        (all + 1, ventricular + u32::from(beat.symbol == 'V'))
    });
    f64::from(ventricular) / f64::from(all.max(1))
}

#[test]
fn optional_definitions_are_sound() {
    for (name, text) in crate::OPTIONAL {
        let pipeline = Pipeline::parse(name, text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(format!("{}.toml", pipeline.reference().id), name);
        assert!(builtin().iter().all(|other| other.reference().id != pipeline.reference().id));
    }
}

/// The model of rhythm, trained on other patients with another device, on every second half minute of the MIT-BIH Arrhythmia Database
/// that is annotated as fibrillation or as sinus rhythm throughout.
#[test]
fn recorded_fibrillation_is_seen_by_the_model() {
    let data = std::env::var("HAAR_DATA").expect("set HAAR_DATA to the folder that holds mitdb/");
    let (name, text) = crate::OPTIONAL[0];
    let pipeline = Pipeline::parse(name, text).unwrap();
    let model = haar_inference::rhythm::RhythmModel::builtin().unwrap();
    let rate = SampleRate::from_hz(360).unwrap();
    let (mut fibrillation, mut sinus) = ([0_u32; 2], [0_u32; 2]);
    for path in find_records(format!("{data}/mitdb")).unwrap() {
        let record = Record::open(&path).unwrap();
        let annotations = read_annotations(path.with_extension("atr")).unwrap();
        let size = 30 * 360;
        for (number, mv) in record.signals[0].chunks_exact(size).enumerate().step_by(2) {
            let window = number * size..(number + 1) * size;
            let counts = match steady_rhythm(&annotations, &window) {
                Some("(AFIB") => &mut fibrillation,
                Some("(N") if ventricular_share(&annotations, &window) == 0.0 => &mut sinus,
                _ => continue,
            };
            let mut description = pipeline.describe_ecg(mv, rate);
            let input = haar_inference::rhythm::RhythmInput::new(mv, rate).unwrap();
            let score = model.classify(&[input]).unwrap()[0];
            pipeline.conclude_rhythm(&mut description, &score);
            let decision = pipeline.decide(&description.features, None);
            counts[usize::from(flags(&decision).contains(&"atrial-fibrillation"))] += 1;
        }
    }
    let share = |[no, yes]: [u32; 2]| f64::from(yes) / f64::from(no + yes);
    assert!(fibrillation[0] + fibrillation[1] >= 10 && sinus[0] + sinus[1] >= 80);
    assert!(share(fibrillation) >= 0.6, "flagged in fibrillation: {fibrillation:?}");
    assert!(share(sinus) <= 0.05, "flagged in sinus rhythm: {sinus:?}");
}

/// How often ST and QT are flagged where nobody has looked for them: every five minutes of the MIT-BIH Arrhythmia Database.
#[test]
fn recorded_intervals_are_told_and_seldom_flagged() {
    let data = std::env::var("HAAR_DATA").expect("set HAAR_DATA to the folder that holds mitdb/");
    let own = crate::OPTIONAL.into_iter().find(|(name, _)| *name == "ecg-intervals.toml");
    let (name, text) = own.unwrap();
    let pipeline = Pipeline::parse(name, text).unwrap();
    let rate = SampleRate::from_hz(360).unwrap();
    let (mut windows, mut told, mut raised) = (0, BTreeMap::new(), BTreeMap::new());
    for path in find_records(format!("{data}/mitdb")).unwrap() {
        let record = Record::open(&path).unwrap();
        for mv in record.signals[0].chunks_exact(300 * 360).step_by(2) {
            windows += 1;
            let features = pipeline.describe_ecg(mv, rate).features;
            for name in ["st.level_mv", "qt.qtc_fridericia_ms", "hrv.sd1_ms", "hrv.lf_hf"] {
                *told.entry(name).or_insert(0) += u32::from(features[name].get().is_some());
            }
            for flag in flags(&pipeline.decide(&features, None)) {
                *raised.entry(flag.to_owned()).or_insert(0) += 1;
            }
        }
    }
    println!("{windows} windows, told {told:?}, raised {raised:?}");
    assert!(told["st.level_mv"] == windows && told["hrv.sd1_ms"] * 10 >= windows * 8);
    assert!(told["qt.qtc_fridericia_ms"] * 10 >= windows * 7);
    // Patients with pacemakers and bundle branch blocks among them.
    assert!(raised["qtc-prolonged"] * 10 <= windows);
}
