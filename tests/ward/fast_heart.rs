//! Patients whose hearts beat fast: the shortest way to flagged events and alarms.

use super::{Monitors, Site, now};

/// Windows of 10 s; four flagged ones make an alarm of medium priority by the built-in policy.
pub const FAST_HEART: &str = r#"
id = "fast"
version = 1
title = "Fast heart"
family = "vitals"

[window]
size = "10s"

[[signals]]
name = "heart_rate"
rate_hz = 1.0

[[flags]]
name = "fast"
priority = "high"
text = "The heart beats fast."
when = "heart_rate.mean > 100"
"#;
const SECONDS: i64 = 60;

/// A minute of vitals with a heart rate of 120, by MQTT, for each patient.
pub fn fast_hearts(site: &Site, patients: &[&str]) {
    let begin = now().plus_micros(-2 * SECONDS * 1_000_000);
    let mut monitors = Monitors::connect(site.broker_port);
    for second in 0..SECONDS {
        for patient in patients {
            let at = begin.plus_micros(second * 1_000_000);
            let topic = format!("ward/{patient}/monitor-of-{patient}/vitals");
            let payload = format!(r#"{{"ts":"{at}","seq":{second},"hr":120.0,"spo2":97.0}}"#);
            monitors.publish(&topic, &payload);
        }
    }
    monitors.finish();
}
