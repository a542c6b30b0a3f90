//! The watch as a running fog has it: what is found, how late, and how often it is wrong.

use super::percent;
use crate::failure::Failure;
use haar_inference::faults::live::{EVERY, HISTORY, LiveFigures, LiveKind, live};
use haar_inference::faults::streams::Stream;
use haar_inference::faults::watch::threshold;
use haar_inference::faults::{FaultKind, FaultModel};
use serde::Serialize;
use std::collections::BTreeMap;

const DEFINITION: &str = "windows of the last 300 readings every 30 readings, in the order of stamps, at the \
    built-in definition's thresholds; a false flag is windows in a row of a stream as it was recorded, \
    dropouts where values are missing left out; device-days include pauses; \
    delay in readings, to the end of the first window that flags";

/// What is printed, by data set.
#[derive(Serialize)]
pub(super) struct Live {
    definition: &'static str,
    origins: BTreeMap<&'static str, Own>,
}

#[derive(Serialize)]
struct Own {
    streams: u64,
    windows: u64,
    device_days: f64,
    kinds: BTreeMap<&'static str, Kind>,
}

#[derive(Serialize)]
struct Kind {
    threshold: f32,
    put_in: u64,
    found: Option<f64>,
    /// Share of faults of this kind of which another kind is said, too or instead.
    other: Option<f64>,
    median_delay_readings: Option<u32>,
    false_flags: u64,
    false_flags_per_device_day: Option<f64>,
    /// Share of windows as recorded.
    false_windows: Option<f64>,
}

impl Live {
    /// Plays the streams.
    pub(super) fn of(model: &FaultModel, streams: &[Stream], seed: u64) -> Result<Self, Failure> {
        let bar = super::bar(streams.len() as u64, "streams played")?;
        let figures = live(model, streams, seed, &mut |at| bar.set_position(at as u64))?;
        bar.finish_and_clear();
        let origins = figures.iter().map(|(origin, own)| (origin.name(), Own::from(own)));
        Ok(Self { definition: DEFINITION, origins: origins.collect() })
    }

    /// As a table.
    pub(super) fn print(&self) {
        for (origin, own) in &self.origins {
            let Own { streams, windows, device_days, kinds } = own;
            println!(
                "Live, {origin}: {HISTORY} readings every {EVERY}; {streams} streams, {windows} windows, \
                 {device_days:.2} device-days as recorded"
            );
            println!("kind      at    put in   found  other  delay  false flags  per device-day");
            for (name, kind) in kinds {
                println!(
                    "{name:<9} {:.2} {:>8} {:>7} {:>6} {:>6} {:>12} {:>15}",
                    kind.threshold,
                    kind.put_in,
                    percent(kind.found),
                    percent(kind.other),
                    kind.median_delay_readings.map_or("–".into(), |delay| delay.to_string()),
                    kind.false_flags,
                    kind.false_flags_per_device_day
                        .map_or("–".into(), |rate| format!("{rate:.3}")),
                );
            }
            println!();
        }
    }
}

impl From<&LiveFigures> for Own {
    fn from(figures: &LiveFigures) -> Self {
        let kind = |(kind, own): (&FaultKind, &LiveKind)| {
            let kind = *kind;
            let told = Kind {
                threshold: threshold(kind),
                put_in: own.put_in,
                found: share(own.found, own.put_in),
                other: share(own.other, own.put_in),
                median_delay_readings: own.median_delay(),
                false_flags: own.false_flags,
                false_flags_per_device_day: (figures.device_days > 0.0)
                    .then(|| own.false_flags as f64 / figures.device_days),
                false_windows: share(own.false_windows, figures.windows),
            };
            (kind.name(), told)
        };
        Self {
            streams: figures.streams,
            windows: figures.windows,
            device_days: figures.device_days,
            kinds: figures.kinds.iter().map(kind).collect(),
        }
    }
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}
