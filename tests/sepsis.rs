//! A septic patient's recorded hours, hour by hour over real sockets: vital signs by a monitor, laboratory values as the laboratory reports
//! them. Every hour gets the score that the model gives to the same chart, with the laboratory's values in it, through a kill of the fog.

use crate::ward::{Leaves, Monitors, Process, Site, Wanted, http_get, now, until};
use haar_inference::sepsis::{Chart, SepsisModel, SepsisRisk};
use haar_normalize::BUILT_IN;
use haar_recordings::cinc2019::{EXTENSION, Hour, Stay, VARIABLES, read_stay};
use haar_recordings::corpus::Corpus;
use haar_schema::{SignalId, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const HOUR_US: i64 = 3_600_000_000;
const MINUTE_US: i64 = 60_000_000;
/// Hours that are played at most.
const HOURS: usize = 30;
/// Where the monitor's values stand in [`VARIABLES`], and under which pointer it sends them.
const VITAL_SIGNS: [(SignalId, usize); 6] = [
    (SignalId::HEART_RATE, 0),
    (SignalId::SPO2, 1),
    (SignalId::TEMPERATURE, 2),
    (SignalId::SYSTOLIC, 3),
    (SignalId::DIASTOLIC, 5),
    (SignalId::RESPIRATION_RATE, 6),
];
/// The laboratory's values begin here in [`VARIABLES`], in the order of [`Chart::laboratory`].
const LABORATORY: usize = 8;

#[test]
fn a_recorded_septic_patient_is_scored_by_vital_signs_and_laboratory() {
    let model = SepsisModel::builtin().unwrap();
    let data = std::env::var("HAAR_DATA").expect("HAAR_DATA names the folder of recordings");
    let stays = stays(&Path::new(&data).join("cinc2019"));
    let begin = now().floor_to(HOUR_US).plus_micros(-(HOURS as i64 + 1) * HOUR_US);
    // The first in the archive for whom the model warns in time, and of whom the laboratory has much to say.
    let (stay, expected) = stays
        .into_iter()
        .filter(|stay| stay.has_sepsis() == Some(true) && results(stay) >= 20)
        .map(|stay| (expected(&model, &stay, begin), stay))
        .find(|(risks, _)| risks.values().any(|risk| risk.warning))
        .map(|(risks, stay)| (stay, risks))
        .unwrap();
    let mut without = stay.clone();
    for hour in &mut without.hours {
        hour.values[LABORATORY..].fill(f32::NAN);
    }
    let without = self::expected(&model, &without, begin);

    // In a replay nobody is silent for seconds.
    let quick = |text: &str| {
        let path = "path = \"ward/{patient}/{device}/vitals\"\n";
        text.replace("idle_after_ms = 5000", "idle_after_ms = 200")
            .replace(path, &format!("{path}idle_after_ms = 200\n"))
    };
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| quick(text)).collect();
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: "", otlp: None });
    site.edit("fog.toml", "pipelines = [\"pipeline.toml\"]\n", "");
    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    let hours = stay.hours.len().min(HOURS);
    let mut ward = Ward { site: &site, begin, committed: [0; 2] };
    for (at, hour) in stay.hours.iter().take(hours).enumerate() {
        if at == hours / 2 {
            fog.kill();
            fog = site.fog();
            site.wait_ready(&mut fog, site.fog_admin);
            ward.committed = [0; 2];
        }
        ward.hour(at as i64, hour);
    }
    // The next hour's first reading says that the last is over.
    ward.vital_signs(hours as i64, &json!({ "hr": 80.0 }));
    stop(edge);
    stop(fog);

    let leaves = Leaves::read(&site.database(), &site.vkey());
    let subject = site.subject("bed-1");
    let mut found = BTreeMap::new();
    for digest in leaves.newest().into_values().filter(|own| own.key.subject == subject) {
        if let Some(probability) =
            digest.features.get("sepsis.probability").and_then(|feature| feature.get())
        {
            let hour = digest.key.end_us.plus_micros(-1).micros_since(begin) / HOUR_US;
            assert!(found.insert(hour, probability).is_none(), "an hour is scored once");
        }
    }
    let flagged: BTreeMap<i64, _> = leaves
        .flagged
        .iter()
        .filter(|(_, event)| event.flag == "sepsis-risk")
        .map(|(_, event)| (event.key.end_us.plus_micros(-1).micros_since(begin) / HOUR_US, event))
        .collect();
    let hours = |own: &BTreeMap<i64, SepsisRisk>| own.keys().copied().collect::<Vec<_>>();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), hours(&expected));
    let mut differs = 0;
    for (hour, risk) in &expected {
        let probability = found[hour];
        assert!(
            (probability - risk.probability).abs() < 1e-6,
            "hour {hour}: {probability} {risk:?}"
        );
        assert_eq!(flagged.contains_key(hour), risk.warning, "hour {hour}: {risk:?}");
        differs += usize::from((without[hour].probability - risk.probability).abs() > 1e-3);
    }
    assert!(differs > expected.len() / 2, "the laboratory changes the score in {differs} hours");
    let event = flagged.values().next().unwrap();
    assert_eq!(event.model.as_ref().unwrap().sha256, model.reference().sha256);
    let score = &event.scores[0];
    assert!(score.attribution.is_complete(), "{score:?}");
    let sounded = leaves.transitions.iter().any(|(_, step)| step.flag == "sepsis-risk");
    assert!(sounded, "an alarm was raised");
    println!(
        "{} hours scored, {} of them at the threshold; the laboratory changes {differs}",
        expected.len(),
        flagged.len()
    );
}

/// What the model says at the end of every hour, of a chart that is kept by hand; by the hour of the window that says it.
fn expected(model: &SepsisModel, stay: &Stay, begin: Timestamp) -> BTreeMap<i64, SepsisRisk> {
    let mut risks = BTreeMap::new();
    let mut chart: Option<Chart> = None;
    let hours = stay.hours.len().min(HOURS);
    for (at, hour) in (0_i64..).zip(stay.hours.iter().take(hours)) {
        let measured = begin.plus_micros(at * HOUR_US + MINUTE_US);
        let vital_signs = VITAL_SIGNS.iter().any(|(_, place)| !hour.values[*place].is_nan());
        if chart.is_none() && hour.values.iter().all(|value| value.is_nan()) {
            continue;
        }
        let chart = chart.get_or_insert_with(|| Chart::begin(measured));
        if vital_signs && let Some(row) = chart.turn_to(measured) {
            risks.insert(at, model.risk(&row, model.all_members()).unwrap());
        }
        let vital_signs = VITAL_SIGNS.into_iter();
        let laboratory = Chart::laboratory().zip(LABORATORY..);
        for (signal, place) in vital_signs.chain(laboratory) {
            if let Some(value) = sent(signal, hour.values[place]) {
                chart.note(signal, value, measured);
            }
        }
    }
    // The reading after the last hour closes that.
    let after = begin.plus_micros(hours as i64 * HOUR_US + MINUTE_US);
    if let Some(row) = chart.and_then(|mut chart| chart.turn_to(after)) {
        risks.insert(hours as i64, model.risk(&row, model.all_members()).unwrap());
    }
    risks
}

/// A value as it arrives, in the signal's unit.
fn sent(signal: SignalId, value: f32) -> Option<f64> {
    let value = f64::from(value);
    // Recorded as a share of one.
    let value = if signal == SignalId::INSPIRED_OXYGEN { value * 100.0 } else { value };
    let (low, high) = signal.definition().plausible;
    (low..=high).contains(&value).then_some(value)
}

struct Ward<'s> {
    site: &'s Site,
    begin: Timestamp,
    /// Windows of vital signs and of the laboratory that the fog has been brought to since it started.
    committed: [u64; 2],
}

impl Ward<'_> {
    fn hour(&mut self, at: i64, hour: &Hour) {
        let value = |place: usize| sent(VITAL_SIGNS[place].0, hour.values[VITAL_SIGNS[place].1]);
        let mut payload = Map::new();
        for (place, name) in [(0, "hr"), (1, "spo2"), (5, "rr")] {
            payload.extend(value(place).map(|value| (name.to_owned(), json!(value))));
        }
        // This maker sends Fahrenheit.
        let fahrenheit = value(2).map(|celsius| celsius * 1.8 + 32.0);
        payload.extend(fahrenheit.map(|value| ("temp".to_owned(), json!(value))));
        let mut pressure = Map::new();
        for (place, name) in [(3, "sys"), (4, "dia")] {
            pressure.extend(value(place).map(|value| (name.to_owned(), json!(value))));
        }
        if !pressure.is_empty() {
            payload.insert("nibp".to_owned(), pressure.into());
        }
        if !payload.is_empty() {
            self.vital_signs(at, &payload.into());
        }
        let mut report = Map::new();
        for (signal, place) in Chart::laboratory().zip(LABORATORY..) {
            if let Some(value) = sent(signal, hour.values[place]) {
                let unit = signal.definition().unit;
                report.insert(signal.name().to_owned(), json!({"value": value, "unit": unit}));
            }
        }
        if !report.is_empty() {
            self.report(at, report);
        }
    }

    fn vital_signs(&mut self, at: i64, payload: &Value) {
        let mut payload = payload.clone();
        payload["seq"] = json!(at);
        let time = self.begin.plus_micros(at * HOUR_US + MINUTE_US);
        // Windows of a minute every ten seconds.
        self.send("ward/bed-1/monitor-1/vitals", time, payload, [6, 0]);
    }

    fn report(&mut self, at: i64, report: Map<String, Value>) {
        let time = self.begin.plus_micros(at * HOUR_US + 2 * MINUTE_US);
        self.send("laboratory/bed-1/analyser-1/results", time, report.into(), [0, 1]);
    }

    /// Sends something, after which the device is silent: its windows are committed before anything else comes.
    fn send(&mut self, topic: &str, time: Timestamp, mut payload: Value, windows: [u64; 2]) {
        payload["ts"] = json!(time.to_string());
        let mut monitors = Monitors::connect(self.site.broker_port);
        monitors.publish(topic, &payload.to_string());
        monitors.finish();
        for (at, pipeline) in ["ward-vitals", "laboratory"].into_iter().enumerate() {
            self.committed[at] += windows[at];
            let wanted = self.committed[at] as f64;
            until("it is committed", || committed(self.site.fog_admin, pipeline) >= wanted);
        }
    }
}

/// Windows of a pipeline that the fog has committed since it started.
fn committed(admin: u16, pipeline: &str) -> f64 {
    let (_, text) = http_get(admin, "/metrics").unwrap_or_default();
    let of_it = format!("haar_fog_windows_total{{pipeline=\"{pipeline}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&of_it)?.parse().ok());
    count.unwrap_or(0.0)
}

fn stop(node: Process) {
    assert!(node.terminate().success());
}

fn results(stay: &Stay) -> usize {
    let measured =
        |hour: &Hour| hour.values[LABORATORY..].iter().filter(|own| !own.is_nan()).count();
    stay.hours.iter().take(HOURS).map(measured).sum()
}

fn stays(folder: &Path) -> Vec<Stay> {
    assert_eq!(VARIABLES[LABORATORY].name, "BaseExcess");
    let corpus = Corpus::open(folder, "a stay", |path| path.ends_with(EXTENSION)).unwrap();
    corpus.into_iter().map(|file| read_stay(&file.bytes).unwrap()).collect()
}
