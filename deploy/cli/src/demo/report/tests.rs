//! The page as a whole: well-formed, escaped, bounded, and true to the records.

use super::*;
use haar_schema::{
    Beat, Evidence, Feature, InputsDigest, Missing, ModelRef, PipelineRef, Priority, SampleRate,
    SignalId, Strip, WindowKey,
};

const START_S: i64 = 1_795_377_600; // 2026-11-22T20:00:00Z
const RATE_HZ: u32 = 250;

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis((START_S + second) * 1_000)
}

fn key(bed: u8, pipeline: &str, start_s: i64, length_s: i64) -> WindowKey {
    WindowKey {
        edge: "edge-1".parse().unwrap(),
        subject: Subject::from_bytes([bed; 16]),
        pipeline: pipeline.into(),
        start_us: at(start_s),
        end_us: at(start_s + length_s),
    }
}

fn digest(key: WindowKey, features: &[(&str, f64)]) -> WindowDigest {
    WindowDigest {
        id: key.id(),
        revision: 0,
        pipeline: PipelineRef { id: key.pipeline.clone(), version: 1, sha256: "00".repeat(32) },
        key,
        inputs: InputsDigest::of_window(0, std::iter::empty()),
        model: None,
        features: features
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Feature::value(*value)))
            .collect(),
        flags: vec![],
    }
}

/// A drawn heart beat: `phase` in seconds from the R peak; `broad` as from a ventricle.
fn beat_mv(phase: f64, broad: bool) -> f64 {
    let wave = |centre: f64, width: f64, height: f64| {
        height * (-((phase - centre) / width).powi(2) / 2.0).exp()
    };
    if broad {
        wave(0.0, 0.045, 1.7) + wave(0.22, 0.07, -0.6)
    } else {
        wave(-0.17, 0.025, 0.13)
            + wave(-0.028, 0.01, -0.1)
            + wave(0.0, 0.011, 1.15)
            + wave(0.03, 0.011, -0.25)
            + wave(0.28, 0.055, 0.28)
    }
}

fn ecg(start_s: i64, seconds: u32) -> Strip {
    let hz = f64::from(RATE_HZ);
    let mut beats = Vec::new();
    let mut r_s = 0.4;
    while r_s < f64::from(seconds) - 0.3 {
        let broad = beats.len() % 5 == 3;
        beats.push((r_s - if broad { 0.28 } else { 0.0 }, broad));
        r_s += 0.82;
    }
    let samples = (0..seconds * RATE_HZ).map(|index| {
        let t = f64::from(index) / hz;
        let near = beats.iter().map(|(r, broad)| (t - r, *broad));
        let value: f64 = near.map(|(phase, broad)| beat_mv(phase, broad)).sum();
        let noise = f64::from(index.wrapping_mul(2_654_435_761) >> 20) / 4_096.0 - 0.5;
        let wander = 0.08 * (t * 1.6).sin();
        (!(5.2..6.1).contains(&t)).then_some(((value + wander + noise * 0.03) * 200.0) as i16)
    });
    Strip {
        signal: SignalId::ECG,
        start_us: at(start_s),
        rate_millihertz: SampleRate::from_hz(RATE_HZ).unwrap(),
        factor: 1.0 / 200.0,
        samples: samples.collect(),
        beats: beats
            .iter()
            .filter(|(r, _)| !(5.2..6.1).contains(r))
            .map(|(r, broad)| Beat {
                sample: (r * hz) as u32,
                class: Some(if *broad { 'V' } else { 'N' }),
            })
            .collect(),
    }
}

fn flag(key: WindowKey, name: &str, priority: Priority, strip: Option<Strip>) -> FlagEntry {
    FlagEntry {
        leaf_index: 100 + key.start_us.millis().unsigned_abs() / 1_000 % 1_000,
        event: FlaggedEvent {
            window: key.id(),
            revision: 0,
            key,
            flag: name.into(),
            priority,
            text: "NEWS2 of 7 or more: urgent assessment by a critical-care team".into(),
            rule: "news2.lower >= 7 && heart_rate.mean > 110".into(),
            evidence: vec![
                Evidence { feature: "news2.lower".into(), value: Feature::value(8.0) },
                Evidence { feature: "heart_rate.mean".into(), value: Feature::value(118.437) },
                Evidence { feature: "spo2.coverage".into(), value: Feature::value(0.9333) },
                Evidence {
                    feature: "temperature.mean".into(),
                    value: Feature::missing(Missing::NoData),
                },
            ],
            model: strip
                .as_ref()
                .map(|_| ModelRef { id: "ecg-beats".into(), sha256: "ab".repeat(32) }),
            condition: None,
            scores: Vec::new(),
            strip,
        },
        proof: ProofState { verified: true, detail: "in the tree of 1 023 leaves".into() },
        latency_ms: Some(412.0),
    }
}

/// A ward of three: one deteriorates, one has ectopic beats, one is well.
pub fn ward() -> Report {
    let (mut digests, mut flags) = (Vec::new(), Vec::new());
    for step in 0..55 {
        let start_s = step * 10;
        let worse = (start_s as f64 - 200.0).max(0.0) / 350.0;
        let wobble = (step as f64 * 0.7).sin();
        for (bed, ill) in [(1, worse), (2, 0.0), (3, 0.0)] {
            // Nothing came from bed 1 for a minute.
            if bed == 1 && (20..26).contains(&step) {
                continue;
            }
            let around = |mean: f64, spread: f64| [mean, mean - spread, mean + spread];
            let rows = [
                ("heart_rate", around(72.0 + 50.0 * ill + 2.0 * wobble, 6.0)),
                ("spo2", around(97.5 - 8.0 * ill + 0.4 * wobble, 0.9)),
                ("respiration_rate", around(14.0 + 14.0 * ill + wobble, 2.0)),
                ("systolic", around(124.0 - 32.0 * ill + 2.0 * wobble, 4.0)),
                ("diastolic", around(78.0 - 14.0 * ill + wobble, 3.0)),
                ("temperature", around(36.8 + 1.6 * ill, 0.1)),
            ];
            let names: Vec<(String, f64)> = rows
                .iter()
                .flat_map(|(name, [mean, min, max])| {
                    [("mean", mean), ("min", min), ("max", max)]
                        .map(|(stat, value)| (format!("{name}.{stat}"), *value))
                })
                .chain([
                    ("news2.lower".to_owned(), (ill * 9.0).floor()),
                    (
                        "news2.upper".to_owned(),
                        (ill * 9.0).floor() + if step < 8 { 3.0 } else { 0.0 },
                    ),
                ])
                .collect();
            let features: Vec<(&str, f64)> =
                names.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let key = key(bed, "ward-vitals", start_s, 60);
            if ill > 0.75 {
                flags.push(flag(key.clone(), "news2-high", Priority::High, None));
            } else if ill > 0.4 {
                flags.push(flag(key.clone(), "news2-medium", Priority::Medium, None));
            }
            digests.push(digest(key, &features));
        }
        let ecg_key = key(2, "ecg-rhythm", start_s, 10);
        let rate = 73.0 + 3.0 * wobble;
        digests.push(digest(
            ecg_key.clone(),
            &[
                ("ecg.heart_rate", rate),
                ("ecg.rmssd_ms", 38.0 + 9.0 * wobble),
                ("ecg.ectopic_fraction", 0.2),
            ],
        ));
        if (12..15).contains(&step) || step == 40 {
            let mut entry = flag(ecg_key, "ectopic-run", Priority::Medium, Some(ecg(start_s, 10)));
            if step == 40 {
                entry.proof = ProofState { verified: false, detail: "root differs".into() };
                entry.event.strip = Some(ecg(start_s, 34));
            }
            flags.push(entry);
        }
    }
    let mut pulse = ecg(300, 10);
    pulse.signal = SignalId::PPG;
    pulse.beats.iter_mut().for_each(|beat| beat.class = None);
    flags.push(flag(key(3, "pulse", 300, 10), "pulse-irregular", Priority::Low, Some(pulse)));
    Report {
        title: "Haar demo: simulated ward".into(),
        generated: at(640),
        summary: Summary {
            readings: 1_234_567,
            windows: 229,
            flags: flags.len() as u64,
            bytes_in: 48_300_000,
            bytes_committed: 71_000,
            latency_ms: Some(Latency { p50: 388.2, p99: 911.0 }),
            log_size: 1_023,
            witnessed: 1_020,
            members: 4,
            origin: "demo.haar/site".into(),
            root: "3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into(),
        },
        patients: patients(digests, flags, |subject| format!("bed-{}", subject.to_bytes()[0])),
    }
}

/// The page's tags, checked to be balanced; attributes as written.
fn tags(page: &str) -> Vec<&str> {
    const VOID: [&str; 2] = ["meta", "!DOCTYPE"];
    let (mut open, mut tags) = (Vec::new(), Vec::new());
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag that ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = tag.split_whitespace().next().expect("a tag with a name");
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "closed in the wrong order");
        } else if !VOID.contains(&name) {
            open.push(name);
            if let Some(raw) = ["style", "script"].into_iter().find(|raw| *raw == name) {
                rest = &rest[rest.find(&format!("</{raw}")).expect("its end")..];
            }
        }
        tags.push(tag);
    }
    assert_eq!(open, Vec::<&str>::new(), "left open");
    tags
}

#[test]
fn a_page_is_well_formed_and_has_only_finite_numbers() {
    let mut report = ward();
    report.patients[0].vitals[0].points[3].max = f64::INFINITY;
    report.patients[0].vitals[1].points[0].mean = f64::NAN;
    let page = render(&report);
    for tag in tags(&page) {
        for bad in ["NaN", "inf", "e-", "--"] {
            let numbers = ["points=\"", " d=\"", "viewBox=\"", " x=\"", " y=\"", "width=\""];
            for attribute in numbers.iter().filter_map(|name| tag.split_once(name)) {
                let value = attribute.1.split('"').next().unwrap_or_default();
                assert!(!value.contains(bad), "{bad} in {tag}");
            }
        }
    }
    for outside in ["http://", "https://", "src=", "@import", "url(h"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("not a certified medical device"));
}

#[test]
fn texts_are_escaped() {
    let mut report = ward();
    let hostile = "<script>alert(\"1\")</script>";
    report.title = hostile.into();
    report.summary.origin = hostile.into();
    for patient in &mut report.patients {
        patient.label = hostile.into();
        for flag in &mut patient.flags {
            flag.event.flag = hostile.into();
            flag.event.text = hostile.into();
            flag.event.rule = hostile.into();
            flag.proof.detail = hostile.into();
        }
    }
    let page = render(&report);
    tags(&page);
    assert!(!page.contains("<script>alert"));
    assert_eq!(page.matches("<script>").count(), 1);
}

#[test]
fn an_empty_ward_has_a_page_too() {
    let mut report = ward();
    report.patients = patients([], [], |_| String::new());
    report.summary.latency_ms = None;
    let page = render(&report);
    tags(&page);
    assert!(page.contains("No window was flagged."));
}

#[test]
fn one_window_without_readings_has_a_card() {
    let mut report = ward();
    let digests = [digest(key(9, "ward-vitals", 0, 60), &[])];
    let mut empty = ecg(0, 10);
    empty.samples.fill(None);
    empty.beats.clear();
    let entry = flag(key(9, "ecg-rhythm", 0, 10), "lead-off", Priority::Low, Some(empty));
    report.patients = patients(digests, [entry], |_| "bed-9".into());
    let page = render(&report);
    tags(&page);
    assert!(page.contains("nothing was received"));
}

#[test]
fn touching_windows_are_one_episode_and_a_gap_starts_another() {
    let ward = ward();
    let bed_2 = &ward.patients[1];
    assert_eq!(bed_2.label, "bed-2");
    let episodes = episode::episodes(&bed_2.flags);
    let sizes: Vec<usize> = episodes.iter().map(|episode| episode.entries.len()).collect();
    assert_eq!(sizes, [3, 1]);
    assert_eq!((episodes[0].start, episodes[0].end), (at(120), at(150)));
    // The most urgent stands first, though it came last.
    let bed_1 = episode::episodes(&ward.patients[0].flags);
    assert_eq!(bed_1[0].flag(), "news2-high");
}

#[test]
fn a_correction_takes_the_place_of_what_it_corrects() {
    let first = digest(key(1, "ward-vitals", 0, 60), &[("heart_rate.mean", 140.0)]);
    let mut corrected = digest(key(1, "ward-vitals", 0, 60), &[("heart_rate.mean", 90.0)]);
    corrected.revision = 1;
    let raised = flag(first.key.clone(), "tachycardia", Priority::Medium, None);
    let label = |_| "bed-1".to_owned();
    let patients = patients([corrected, first], [raised], label);
    assert_eq!(patients[0].vitals[0].points[0].mean, 90.0);
    assert!(patients[0].flags.is_empty());
}

#[test]
fn merging_keeps_every_minimum_and_maximum_and_gaps() {
    let mut digests: Vec<WindowDigest> = (0..5_000)
        .map(|step| digest(key(1, "ward-vitals", step, 1), &[("heart_rate.mean", 70.0)]))
        .collect();
    digests[1_234] = digest(key(1, "ward-vitals", 1_234, 1), &[("heart_rate.mean", 181.0)]);
    digests.drain(3_000..3_100);
    let patients = patients(digests, [], |_| "bed-1".into());
    let pieces = patients[0].vitals[0].pieces();
    assert_eq!(pieces.len(), 2);
    assert!(pieces.iter().map(Vec::len).sum::<usize>() <= MAX_POINTS_PER_SERIES + 2);
    let highest = pieces.iter().flatten().map(|point| point.max).fold(0.0, f64::max);
    assert_eq!(highest, 181.0);
}

#[test]
fn a_spike_is_cut_off_and_a_large_signal_made_smaller() {
    let entry_of = |strip: Strip| {
        let mut report = ward();
        let entry = flag(key(9, "ecg-rhythm", 0, 10), "noise", Priority::Low, Some(strip));
        report.patients = patients([], [entry], |_| "bed-9".into());
        render(&report)
    };
    assert!(entry_of(ecg(0, 10)).contains("10 mm/mV. "));
    let mut spike = ecg(0, 10);
    spike.samples[700] = Some(i16::MAX);
    assert!(entry_of(spike).contains("10 mm/mV, spikes cut off at the edge. "));
    let mut large = ecg(0, 10);
    large.factor *= 4.0;
    assert!(entry_of(large).contains("5 mm/mV. "));
    let mut huge = ecg(0, 10);
    huge.factor = f32::MAX;
    tags(&entry_of(huge.clone()));
    huge.samples.fill(Some(i16::MAX));
    tags(&entry_of(huge));
}

#[test]
fn a_long_run_stays_a_bounded_page() {
    let strip = ecg(0, 30);
    let flags = (0..400).map(|step| {
        let key = key(1, "ecg-rhythm", step * 100, 30);
        flag(key, "ectopic-run", Priority::Low, Some(strip.clone()))
    });
    let mut report = ward();
    report.patients = patients([], flags, |_| "bed-1".into());
    let page = render(&report);
    assert_eq!(page.matches("<details").count(), MAX_EPISODES_PER_PATIENT);
    assert_eq!(page.matches("<figure class=\"strip\"").count(), MAX_STRIPS_PER_PATIENT);
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}
