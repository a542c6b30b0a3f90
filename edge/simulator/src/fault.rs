//! What faults do to values, clocks and delivery.

use crate::format::MonitorReading;
use crate::scenario::{Device, Episode, What};
use haar_schema::Timestamp;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Chance of a spike in a sample of a curve, and in a set of vitals.
const SPIKE_CHANCE: (f64, f64) = (0.001, 0.1);
/// Height of a spike in a curve, in the curve's unit.
const SPIKE_HEIGHT: f64 = 5.0;
/// What a spike multiplies vitals with.
const SPIKE_FACTOR: f64 = 1.6;
/// How much later the second copy of a duplicate leaves, in microseconds.
const DUPLICATE_DELAY_US: i64 = 400_000;

/// The scripted faults of one patient during one second.
pub(crate) struct Faults<'a> {
    /// Those that are on, with the seconds since each began.
    pub active: Vec<(&'a Episode, u64)>,
}

impl Faults<'_> {
    fn of(&self, device: Device) -> impl Iterator<Item = (&What, u64)> {
        let concerns = move |what: &What| concerned(what) == Some(device);
        self.active
            .iter()
            .filter(move |(episode, _)| concerns(&episode.what))
            .map(|(episode, elapsed)| (&episode.what, *elapsed))
    }

    /// Changes one second of a curve. `held` is the last value before a flat line.
    pub(crate) fn curve(
        &self,
        device: Device,
        samples: &mut [f64],
        held: &mut f64,
        rng: &mut ChaCha8Rng,
    ) {
        let mut flat = false;
        for (what, elapsed_s) in self.of(device) {
            match what {
                What::Flatline { .. } => {
                    samples.fill(*held);
                    flat = true;
                }
                What::Spike { .. } => {
                    for sample in samples.iter_mut() {
                        if rng.random_bool(SPIKE_CHANCE.0) {
                            *sample += if rng.random() { SPIKE_HEIGHT } else { -SPIKE_HEIGHT };
                        }
                    }
                }
                What::Drift { per_min, .. } => {
                    let rate = f64::from(samples.len() as u32);
                    for (i, sample) in samples.iter_mut().enumerate() {
                        *sample += per_min * (elapsed_s as f64 + i as f64 / rate) / 60.0;
                    }
                }
                What::DetachedLead => samples.fill(f64::NAN),
                _ => {}
            }
        }
        if !flat && let Some(last) = samples.last().filter(|last| last.is_finite()) {
            *held = *last;
        }
    }

    /// Changes a set of vitals. `held` is the last set before a flat line.
    pub(crate) fn vitals(
        &self,
        reading: MonitorReading,
        held: &mut MonitorReading,
        rng: &mut ChaCha8Rng,
    ) -> MonitorReading {
        let mut flat = false;
        let mut change = reading;
        for (what, elapsed_s) in self.of(Device::Monitor) {
            match what {
                What::Flatline { .. } => {
                    change = *held;
                    flat = true;
                }
                What::Spike { .. } if rng.random_bool(SPIKE_CHANCE.1) => {
                    change = map(change, |value| value * SPIKE_FACTOR);
                }
                What::Drift { per_min, .. } => {
                    change = map(change, |value| value + per_min * elapsed_s as f64 / 60.0);
                }
                _ => {}
            }
        }
        if !flat {
            *held = change;
        }
        change
    }

    /// Whether the device is silent.
    pub(crate) fn silent(&self, device: Device) -> bool {
        self.of(device).any(|(what, _)| matches!(what, What::Dropout { .. }))
    }

    /// Whether the patch sends no time.
    pub(crate) fn without_clock(&self) -> bool {
        self.of(Device::Patch).any(|(what, _)| matches!(what, What::NoClock))
    }

    /// What the device's clock says at a true time.
    pub(crate) fn clock(&self, device: Device, time: Timestamp) -> Timestamp {
        self.of(device).fold(time, |time, (what, elapsed_s)| match what {
            What::ClockOffset { seconds, .. } => time.plus_micros((seconds * 1e6) as i64),
            What::ClockDrift { ppm, .. } => time.plus_micros((ppm * elapsed_s as f64) as i64),
            _ => time,
        })
    }

    /// When a frame leaves that should leave at `at`, and when its second copy does if it has one. `period_us` is the
    /// time to the device's next frame.
    pub(crate) fn delivery(
        &self,
        device: Device,
        at: Timestamp,
        period_us: i64,
        rng: &mut ChaCha8Rng,
    ) -> (Timestamp, Option<Timestamp>) {
        let (mut at, mut copy) = (at, false);
        for (what, _) in self.of(device) {
            match what {
                What::LateDelivery { seconds, .. } => at = at.plus_micros((seconds * 1e6) as i64),
                What::Reordering { fraction, .. } if rng.random_bool(*fraction) => {
                    at = at.plus_micros(period_us + period_us / 5);
                }
                What::Duplicates { fraction, .. } => copy |= rng.random_bool(*fraction),
                _ => {}
            }
        }
        (at, copy.then(|| at.plus_micros(DUPLICATE_DELAY_US)))
    }
}

/// The device that a fault is of; `None` for what happens to the patient.
pub(crate) fn concerned(what: &What) -> Option<Device> {
    match what {
        What::Deterioration(_) | What::AtrialFibrillation | What::Ectopy { .. } => None,
        What::DetachedLead => Some(Device::Ecg),
        What::NoClock => Some(Device::Patch),
        What::Flatline { device }
        | What::Spike { device }
        | What::Drift { device, .. }
        | What::Dropout { device }
        | What::ClockOffset { device, .. }
        | What::ClockDrift { device, .. }
        | What::LateDelivery { device, .. }
        | What::Duplicates { device, .. }
        | What::Reordering { device, .. } => Some(*device),
    }
}

fn map(reading: MonitorReading, f: impl Fn(f64) -> f64) -> MonitorReading {
    MonitorReading {
        hr: reading.hr.map(&f),
        spo2: reading.spo2.map(&f),
        rr: reading.rr.map(&f),
        nibp: reading.nibp.map(|mut pressure| {
            pressure.sys = f(pressure.sys);
            pressure.dia = f(pressure.dia);
            pressure
        }),
        temp: reading.temp.map(&f),
    }
}
