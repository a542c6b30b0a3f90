//! The built-in profiles with good and bad frames, and what must hold for any frame.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test with its line")]

use expect_test::{Expect, expect};
use haar_normalize::{
    BUILT_IN, Connector, Frame, Limits, MAX_PATH_BYTES, MAX_PAYLOAD_BYTES, Normalizer,
    NormalizerError, Profile, PseudonymKey, RawMessage, RejectReason, Rejected,
};
use haar_schema::{Entry, Quality, SignalId, Timestamp, Value};
use proptest::prelude::*;
use std::fmt::Write;

const VITALS: &str = "ward/patient-17/monitor-3/vitals";
const ECG: &str = "ward/patient-17/monitor-3/ecg";
const WAVE: &str = "ward/patient-17/monitor-3/wave";
const TEMPERATURE: &str = "ward/patient-17/patch-9/temperature";

fn normalizer() -> Normalizer {
    let key = PseudonymKey::new(vec![7; 32]).unwrap();
    Normalizer::new(Profile::built_in().unwrap(), key, Limits::default()).unwrap()
}

/// 2026-11-22T20:15:01Z
fn received() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-22T20:15:01Z").unwrap()
}

fn read(path: &str, payload: &[u8]) -> Result<Frame, Rejected> {
    let connector = if path.ends_with("temperature") { Connector::Coap } else { Connector::Mqtt };
    normalizer().normalize(&RawMessage {
        connector,
        path,
        payload,
        received: received(),
        redelivered: false,
    })
}

fn check(path: &str, payload: &[u8], expected: Expect) {
    let frame = read(path, payload).unwrap();
    let mut text = format!("{} {} id {}\n", frame.profile, frame.device, frame.frame_id.is_some());
    for reading in &frame.observations {
        let unit = reading.signal.definition().unit;
        let value = match &reading.value {
            Value::Quantity(quantity) => format!("{:.4}", quantity.get()),
            Value::Sampled(data) => format!(
                "{:?} × {} + {} at {} mHz",
                data.samples(),
                data.factor(),
                data.origin(),
                data.rate().millihertz()
            ),
        };
        let (signal, quality, clock) = (reading.signal, reading.quality, reading.clock);
        let time = reading.effective;
        writeln!(text, "{signal:?} {value} {unit} {time} {quality:?} {clock:?}").unwrap();
        assert!(Entry::Observation(reading.clone()).encode().len() < haar_schema::MAX_ENTRY_BYTES);
    }
    expected.assert_eq(&text);
}

fn wave(channel: u8, rate_mhz: u32, factor: f32, samples: &[i16]) -> Vec<u8> {
    let mut frame = b"HW\x01".to_vec();
    frame.push(channel);
    frame.extend(41u32.to_le_bytes());
    frame.extend(received().plus_micros(-1_000_000).micros().to_le_bytes());
    frame.extend(rate_mhz.to_le_bytes());
    frame.extend(factor.to_le_bytes());
    frame.extend(0.5f32.to_le_bytes());
    frame.extend((samples.len() as u16).to_le_bytes());
    frame.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    let crc = crc32fast::hash(&frame);
    frame.extend(crc.to_le_bytes());
    frame
}

#[test]
fn a_bedside_monitor_is_read() {
    check(
        VITALS,
        br#"{"ts":"2026-11-22T21:15:00.25+01:00","seq":17,"hr":72.0,"spo2":97.1,"rr":14.2,"nibp":{"sys":121.0,"dia":79.0},"temp":98.4}"#,
        expect![[r#"
            bedside-monitor monitor-3 id true
            heart_rate 72.0000 /min 2026-11-22T20:15:00.25Z {} Device
            spo2 97.1000 % 2026-11-22T20:15:00.25Z {} Device
            respiration_rate 14.2000 /min 2026-11-22T20:15:00.25Z {} Device
            systolic 121.0000 mm[Hg] 2026-11-22T20:15:00.25Z {} Device
            diastolic 79.0000 mm[Hg] 2026-11-22T20:15:00.25Z {} Device
            temperature 36.8889 Cel 2026-11-22T20:15:00.25Z {} Device
        "#]],
    );
    check(
        VITALS,
        br#"{"ts":"2026-11-22T20:15:00Z","hr":null,"spo2":131,"more":[1]}"#,
        expect![[r#"
            bedside-monitor monitor-3 id true
            spo2 131.0000 % 2026-11-22T20:15:00Z {"implausible"} Device
        "#]],
    );
}

#[test]
fn an_ecg_in_json_is_read() {
    check(
        ECG,
        br#"{"ts":"2026-11-22T20:15:00Z","seq":3,"fs":250,"unit":"uV","samples":[-120,0,1500,null,-32768]}"#,
        expect![[r#"
            ecg-json monitor-3 id true
            ecg [-120, 0, 1500, -32768, -32768] × 0.001 + 0 at 250000 mHz mV 2026-11-22T20:15:00Z {} Device
        "#]],
    );
    check(
        ECG,
        br#"{"ts":"2026-11-22T20:15:00Z","seq":3,"fs":360,"unit":"mV","samples":[-32768,-32768]}"#,
        expect![[r#"
            ecg-json monitor-3 id true
            ecg [-32768, -32768] × 1 + 0 at 360000 mHz mV 2026-11-22T20:15:00Z {"sensor-off"} Device
        "#]],
    );
    check(
        ECG,
        br#"{"ts":"2026-11-22T20:15:00Z","fs":128.5,"unit":"V","samples":[1]}"#,
        expect![[r#"
            ecg-json monitor-3 id true
            ecg [1] × 1000 + 0 at 128500 mHz mV 2026-11-22T20:15:00Z {"implausible"} Device
        "#]],
    );
}

#[test]
fn a_binary_wave_is_read() {
    check(
        WAVE,
        &wave(1, 360_000, 0.005, &[-3, i16::MIN, 200]),
        expect![[r#"
        wave-binary monitor-3 id true
        ecg [-3, -32768, 200] × 0.005 + 0.5 at 360000 mHz mV 2026-11-22T20:15:00Z {} Device
    "#]],
    );
    check(
        WAVE,
        &wave(2, 125_000, 1.0, &[i16::MIN; 4]),
        expect![[r#"
        wave-binary monitor-3 id true
        ppg [-32768, -32768, -32768, -32768] × 1 + 0.5 at 125000 mHz 1 2026-11-22T20:15:00Z {"sensor-off"} Device
    "#]],
    );
    check(
        WAVE,
        &wave(3, 25_000, 2.0, &[1]),
        expect![[r#"
        wave-binary monitor-3 id true
        respiration [1] × 2 + 0.5 at 25000 mHz 1 2026-11-22T20:15:00Z {} Device
    "#]],
    );
}

#[test]
fn a_temperature_patch_is_read() {
    check(
        TEMPERATURE,
        br#"[{"bn":"urn:dev:mac:0024befffe804ff1:","bt":1795378500.5,"n":"temperature","u":"Cel","v":36.9}]"#,
        expect![[r#"
            temperature-patch patch-9 id true
            temperature 36.9000 Cel 2026-11-22T20:15:00.5Z {} Device
        "#]],
    );
    check(
        TEMPERATURE,
        br#"[{"n":"temperature","u":"K","v":310.15}]"#,
        expect![[r#"
        temperature-patch patch-9 id false
        temperature 37.0000 Cel 2026-11-22T20:15:01Z {} Ingest
    "#]],
    );
    let slash = format!("/{TEMPERATURE}");
    assert!(
        normalizer()
            .normalize(&RawMessage {
                connector: Connector::Coap,
                path: &slash,
                payload: br#"[{"u":"Cel","v":36.9}]"#,
                received: received(),
                redelivered: false,
            })
            .is_ok()
    );
}

#[test]
fn bad_frames_are_rejected_with_a_reason() {
    let long_path = format!("ward/{}/m/vitals", "p".repeat(MAX_PATH_BYTES));
    let long_patient = format!("ward/{}/m/vitals", "p".repeat(65));
    let spaces = vec![b' '; MAX_PAYLOAD_BYTES + 1];
    let many = format!(
        r#"{{"ts":"2026-11-22T20:15:00Z","fs":250,"unit":"uV","samples":[{}1]}}"#,
        "1,".repeat(16_384)
    );
    let mut flipped = wave(1, 360_000, 0.005, &[5, 6]);
    flipped[31] ^= 1;
    let mut cut_off = wave(1, 360_000, 0.005, &[5, 6]);
    cut_off.pop();
    let cases: &[(&str, &[u8])] = &[
        ("ward/p/m/unknown", b"{}"),
        ("ward/p/m 3/vitals", b"{}"),
        ("ward//m/vitals", b"{}"),
        ("ward/p\u{7}/m/vitals", b"{}"),
        (&long_patient, b"{}"),
        (&long_path, b"{}"),
        (VITALS, &spaces),
        (VITALS, b""),
        (VITALS, b"\xff\xfe"),
        (VITALS, br#"{"ts":"2026-11-22T20:15:00Z","hr":72"#),
        (VITALS, br#"{"ts":"2026-11-22T20:15:00Z","hr":NaN}"#),
        (VITALS, br#"{"ts":"2026-11-22T20:15:00Z","hr":1e999}"#),
        (VITALS, br#"{"ts":"2026-11-22T20:15:00Z","hr":"72"}"#),
        (VITALS, br#"{"ts":"2026-11-22T20:15:00Z","hr":72,"spo2":[]}"#),
        (VITALS, br#"{"ts":"2026-11-22T20:15:00Z","seq":{},"hr":72}"#),
        (VITALS, br#"{"ts":"2026-11-22T20:15:00Z"}"#),
        (VITALS, br#"{"hr":72}"#),
        (VITALS, br#"{"ts":"yesterday","hr":72}"#),
        (VITALS, br#"{"ts":1795378500,"hr":72}"#),
        (VITALS, br#"{"ts":"1970-01-01T00:00:00Z","hr":72}"#),
        (ECG, br#"{"ts":"2026-11-22T20:15:00Z","fs":250,"unit":"mm[Hg]","samples":[1]}"#),
        (ECG, br#"{"ts":"2026-11-22T20:15:00Z","fs":250,"unit":7,"samples":[1]}"#),
        (ECG, br#"{"ts":"2026-11-22T20:15:00Z","fs":250,"samples":[1]}"#),
        (ECG, br#"{"ts":"2026-11-22T20:15:00Z","fs":0,"unit":"uV","samples":[1]}"#),
        (ECG, br#"{"ts":"2026-11-22T20:15:00Z","fs":250,"unit":"uV","samples":[]}"#),
        (ECG, br#"{"ts":"2026-11-22T20:15:00Z","fs":250,"unit":"uV","samples":[40000]}"#),
        (ECG, br#"{"ts":"2026-11-22T20:15:00Z","fs":250,"unit":"uV","samples":7}"#),
        (ECG, many.as_bytes()),
        (WAVE, b"HW"),
        (WAVE, &[0; 40]),
        (WAVE, &flipped),
        (WAVE, &cut_off),
        (WAVE, &wave(9, 360_000, 0.005, &[5])),
        (WAVE, &wave(1, 0, 0.005, &[5])),
        (WAVE, &wave(1, 360_000, f32::NAN, &[5])),
        (WAVE, &wave(1, 360_000, 0.0, &[5])),
        (WAVE, &wave(1, 360_000, 0.005, &[])),
        (WAVE, &wave(1, 360_000, 0.005, &[5; 20_000])),
        (TEMPERATURE, br#"[{"bt":99,"u":"Cel","v":36.9}]"#),
        (TEMPERATURE, br#"[{"bt":1e300,"u":"Cel","v":36.9}]"#),
        (TEMPERATURE, br#"[{"u":"lx","v":36.9}]"#),
        (TEMPERATURE, br#"[{"u":"Cel"}]"#),
        (TEMPERATURE, br#"[]"#),
    ];
    let mut text = String::new();
    for (path, payload) in cases {
        writeln!(text, "{}", read(path, payload).unwrap_err()).unwrap();
    }
    expect![[r#"
        no_profile: no profile matches the connector and path
        bad_identifier: the device's level: an identifier has only letters, digits and . _ : -; byte 1 is something else
        bad_identifier: the patient's level is empty
        bad_identifier: the patient's level has control characters
        bad_identifier: the patient's level is over 64 bytes
        too_large: the path has more than 512 bytes
        too_large: the payload has more than 262144 bytes
        malformed_payload: not JSON (Eof) at 1:0
        malformed_payload: not JSON (Syntax) at 1:1
        malformed_payload: not JSON (Eof) at 1:36
        malformed_payload: not JSON (Syntax) at 1:35
        malformed_payload: not JSON (Syntax) at 1:39
        not_a_number: the value at /hr is no number
        not_a_number: the value at /spo2 is no number
        malformed_payload: the sequence at /seq is no number or text
        no_observation: the frame has none of the profile's observations
        missing_field: /ts is missing
        bad_time: the time at /ts is not in the format Rfc3339
        bad_time: the time at /ts is not in the format Rfc3339
        too_old: the reading is older than this edge accepts; check the device's clock
        wrong_unit: the unit at /unit is not one that converts to mV
        wrong_unit: the unit at /unit is not one that converts to mV
        missing_field: /unit is missing
        bad_samples: the rate at /fs is out of range
        bad_samples: there is no sample
        bad_samples: a sample at /samples does not fit 16 bits at the resolution
        malformed_payload: /samples is no array of samples
        too_large: more than 16384 samples at /samples
        malformed_payload: shorter than the header
        malformed_payload: it does not begin with the magic bytes
        bad_checksum: the CRC-32 does not fit
        malformed_payload: its length is not that of its number of samples
        unknown_channel: the channel is not in the profile
        bad_samples: the rate is zero or out of range
        bad_samples: the scale of the samples is not finite or zero
        bad_samples: the scale of the samples is not finite or zero
        bad_samples: there is no sample
        too_large: more than 16384 samples
        too_old: the reading is older than this edge accepts; check the device's clock
        bad_time: the time at /0/bt is not in the format EpochS
        wrong_unit: the unit at /0/u is not one that converts to Cel
        missing_field: /0/v is missing
        missing_field: /0/v is missing
    "#]].assert_eq(&text);
    for leak in ["patient-17", "monitor-3", "36.9", "72", "lx", "yesterday"] {
        assert!(!text.contains(leak), "{leak}");
    }
}

#[test]
fn labels_of_reasons_are_stable() {
    let labels: Vec<_> = RejectReason::ALL.iter().map(|reason| reason.as_str()).collect();
    expect!["no_profile bad_identifier too_large malformed_payload bad_checksum missing_field no_observation bad_time too_old wrong_unit not_a_number bad_samples unknown_channel"].assert_eq(&labels.join(" "));
}

#[test]
fn mistakes_in_profiles_are_shown_at_their_place() {
    let head = "name = \"x\"\nconnector = \"mqtt\"\npath = \"a/{patient}/{device}\"\n";
    let with = |rest: &str| format!("{head}{rest}");
    let scalar = |row: &str| with(&format!("[json]\n[[json.observations]]\n{row}\n"));
    let (_, good) = BUILT_IN.into_iter().find(|(file, _)| *file == "wave-binary.toml").unwrap();
    let mut text = String::new();
    for profile in [
        "name = \"x\"\nconnector = mqtt".to_owned(),
        with("colour = 1\n"),
        with("idle_after_ms = -1\n"),
        with(""),
        head.replace("\"x\"", "\"X y\"") + "[json]\n",
        head.replace("{device}", "#") + "[json]\n",
        with("[json]\n"),
        scalar("signal = \"heart_rat\"\npointer = \"/hr\"\nunit = \"/min\""),
        scalar("signal = \"ecg\"\npointer = \"/hr\"\nunit = \"mV\""),
        scalar("signal = \"heart_rate\"\npointer = \"/hr\"\nunit = \"bpm\""),
        scalar("signal = \"heart_rate\"\npointer = \"hr\"\nunit = \"/min\""),
        scalar("signal = \"heart_rate\"\npointer = \"/hr\""),
        scalar("signal = \"heart_rate\"\npointer = \"/hr\"\nunits = \"/min\""),
        with("[json]\ntime = { pointer = \"/t\", format = \"iso\" }\n"),
        with(
            "[json]\n[[json.waveforms]]\nsignal = \"ecg\"\nsamples = \"/s\"\nrate_hz = 0.0\nunit = \"mV\"\n",
        ),
        good.replace("485701", "4857x"),
        good.replace("offset = 28", "offset = 29"),
        good.replace("type = \"u16\"", "type = \"f32\""),
        good.replace("channel = 2", "channel = 1"),
        good.replace("epoch_us", "rfc3339"),
        "#".repeat(70_000),
    ] {
        writeln!(text, "{}", Profile::parse("x.toml", &profile).unwrap_err()).unwrap();
    }
    expect![[r#"
        x.toml:2:13: string values must be quoted, expected literal string
        x.toml:4:1: unknown field `colour`, expected one of `name`, `connector`, `path`, `out_of_orderness_ms`, `idle_after_ms`, `mark_interval_ms`, `json`, `binary`
        x.toml:4:17: invalid value: integer `-1`, expected u32
        x.toml:1:8: a profile has one of [json] and [binary], and exactly one
        x.toml:1:8: a name has 1 to 48 lower-case letters, digits and -
        x.toml:3:8: not a path pattern: a level is plain text, {patient} or {device}; there are no other wildcards
        x.toml:4:1: list at least one of [[json.observations]] and [[json.waveforms]]
        x.toml:6:10: there is no signal "heart_rat"; did you mean "heart_rate"?
        x.toml:6:10: "ecg" is a waveform; list it under [[json.waveforms]] or [[binary.channels]]
        x.toml:8:8: "bpm" is not a UCUM unit that converts to /min, the unit of heart_rate; see https://ucum.org/ucum (such as [degF], uV, /min, mm[Hg])
        x.toml:7:11: a JSON pointer is empty or begins with / (RFC 6901), such as /nibp/sys or /0/v
        x.toml:5:1: give unit or unit_pointer, exactly one of them
        x.toml:8:1: unknown field `units`, expected one of `signal`, `pointer`, `unit`, `unit_pointer`, `required`
        x.toml:5:35: unknown variant `iso`, expected one of `rfc3339`, `epoch_s`, `epoch_ms`, `epoch_us`
        x.toml:8:11: a rate is at least 0.001 and at most 1e6 Hz
        x.toml:8:9: magic is a whole number of bytes in hexadecimal, before samples_offset
        x.toml:15:9: the field reaches behind samples_offset
        x.toml:15:9: the field reaches behind samples_offset
        x.toml:25:1: this channel is listed twice
        x.toml:9:8: a binary time is epoch_s, epoch_ms or epoch_us
        x.toml:1:1: a profile has at most 65536 bytes, this one has 70000
    "#]].assert_eq(&text);
}

#[test]
fn profiles_that_contradict_each_other_are_refused() {
    let new = |profiles| {
        let key = PseudonymKey::new(vec![7; 32]).unwrap();
        Normalizer::new(profiles, key, Limits::default()).map(|_| ())
    };
    assert_eq!(new(vec![]), Err(NormalizerError::NoProfile));
    let one = Profile::parse(BUILT_IN[0].0, BUILT_IN[0].1).unwrap();
    assert!(matches!(new(vec![one.clone(), one.clone()]), Err(NormalizerError::SameName(_))));
    let renamed = BUILT_IN[0].1.replace("\"bedside-monitor\"", "\"other\"");
    let other = Profile::parse("other.toml", &renamed).unwrap();
    assert!(matches!(new(vec![one, other]), Err(NormalizerError::SamePath(..))));
    let wanted = [
        "laboratory/+/+/results",
        "ward/+/+/ecg",
        "ward/+/+/glucose",
        "ward/+/+/vitals",
        "ward/+/+/wave",
    ];
    assert_eq!(normalizer().topic_filters(), wanted);
}

#[test]
fn a_clock_ahead_is_clamped_and_one_far_behind_refused() {
    let at = |seconds: i64| {
        let time = received().plus_micros(seconds * 1_000_000);
        read(VITALS, format!(r#"{{"ts":"{time}","hr":72}}"#).as_bytes())
    };
    let effective = |seconds| at(seconds).unwrap().observations[0].clone();
    assert_eq!(effective(5).effective, received().plus_micros(5_000_000));
    assert_eq!(effective(5).quality, Quality::GOOD);
    assert_eq!(effective(6).effective, received());
    assert_eq!(effective(6).quality, Quality::CLOCK_CLAMPED);
    let month = 30 * 86_400;
    assert!(at(-month).is_ok());
    assert_eq!(at(-month - 1).unwrap_err().reason, RejectReason::TooOld);
}

#[test]
fn a_redelivery_has_the_same_id_and_a_timeless_reading_none() {
    let id = |path: &str, payload: &[u8]| read(path, payload).unwrap().frame_id;
    let one = br#"{"ts":"2026-11-22T20:15:00Z","hr":72}"#;
    assert_eq!(id(VITALS, one), id(VITALS, one));
    assert_ne!(id(VITALS, one), id("ward/patient-18/monitor-3/vitals", one));
    assert_ne!(id(VITALS, one), id(VITALS, br#"{"ts":"2026-11-22T20:15:00Z","hr":73}"#));
    let timeless = br#"[{"u":"Cel","v":36.9}]"#;
    assert_eq!(id(TEMPERATURE, timeless), None);
    let message = RawMessage {
        connector: Connector::Coap,
        path: TEMPERATURE,
        payload: timeless,
        received: received(),
        redelivered: true,
    };
    assert!(normalizer().normalize(&message).unwrap().frame_id.is_some());
}

#[test]
fn nothing_printed_names_a_patient() {
    let message = RawMessage {
        connector: Connector::Mqtt,
        path: VITALS,
        payload: br#"{"ts":"2026-11-22T20:15:00Z","hr":72.5}"#,
        received: received(),
        redelivered: false,
    };
    let frame = normalizer().normalize(&message).unwrap();
    let printed = format!("{message:?} {frame:?} {:?}", normalizer());
    assert!(!printed.contains("patient-17") && !printed.contains("72.5"), "{printed}");
    assert_eq!(frame.observations[0].signal, SignalId::HEART_RATE);
}

/// JSON-like text out of the pieces that profiles look for, so that more than the parser is met.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        any::<f64>().prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("\"2026-11-22T20:15:00Z\"".to_owned()),
        Just("[1,-32768,null,1e5]".to_owned()),
        Just("\"uV\"".to_owned()),
        Just("{\"sys\":1}".to_owned()),
    ];
    let key = prop_oneof![
        Just("ts"),
        Just("hr"),
        Just("fs"),
        Just("unit"),
        Just("samples"),
        Just("nibp"),
        Just("bt"),
        Just("u"),
        Just("v")
    ];
    (proptest::collection::vec((key, value), 0..8), any::<bool>()).prop_map(|(fields, list)| {
        let fields: Vec<_> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        let object = format!("{{{}}}", fields.join(","));
        if list { format!("[{object}]").into_bytes() } else { object.into_bytes() }
    })
}

/// A wave frame with arbitrary fields and a checksum that holds.
fn nearly_wave() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 27..90).prop_map(|rest| {
        let mut frame = b"HW\x01".to_vec();
        frame.extend(rest);
        let samples = (frame.len() - 30) / 2;
        frame.truncate(30 + 2 * samples);
        frame[28..30].copy_from_slice(&(samples as u16).to_le_bytes());
        let crc = crc32fast::hash(&frame);
        frame.extend(crc.to_le_bytes());
        frame
    })
}

proptest! {
    #[test]
    fn any_bytes_give_a_frame_or_a_rejection(
        payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..120),
            nearly_json(),
            nearly_wave(),
        ],
        path in prop_oneof![
            Just(VITALS.to_owned()), Just(ECG.to_owned()), Just(WAVE.to_owned()),
            Just(TEMPERATURE.to_owned()), ".{0,40}",
        ],
        received in any::<i64>(),
    ) {
        for connector in [Connector::Mqtt, Connector::Coap] {
            let received = Timestamp::from_micros(received);
            let message =
                RawMessage { connector, path: &path, payload: &payload, received, redelivered: false };
            if let Ok(frame) = normalizer().normalize(&message) {
                prop_assert!(!frame.observations.is_empty());
                for reading in &frame.observations {
                    // Never further ahead than the skew, and decodable behind the edge.
                    prop_assert!(reading.effective <= received.plus_micros(5_000_000));
                    let entry = Entry::Observation(reading.clone());
                    prop_assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
                }
            }
        }
    }
}
