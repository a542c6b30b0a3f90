//! The simulated ward: patients, their devices, and what the devices send.
//!
//! Each patient has a monitor (vitals at 1 Hz), an ECG (frames of 1 s; `wave-binary` for patients with an even
//! number, `ecg-json` for the others), an oximeter with a breathing belt (`wave-binary`, two frames a second), and
//! either a temperature in the monitor's vitals or a patch that speaks CoAP every ten seconds: of every four patients the
//! second and the third have the patch.
//!
//! A frame leaves when its last sample has been taken, plus a phase of the patient's own (below a second), so that the
//! ward does not speak in one breath.
//!
//! # Determinism
//! Frames and truth are a function of seed, number of patients, start and scenario. How [`Ward::next_until`] is called
//! changes nothing.
//!
//! # Limits
//! [`MAX_PATIENTS`]; a frame is held back 600 s at most, so that is what is kept in memory.

use crate::ecg::ECG_HZ;
use crate::fault::{Faults, concerned};
use crate::format::{self, Channel, MonitorReading, Pressure, tenth};
use crate::frame::{Connector, Frame, FrameSource};
use crate::patient::{Condition, Patient, Second, random_stream};
use crate::pulse::{PPG_HZ, RESPIRATION_HZ};
use crate::rhythm::Rhythm;
use crate::scenario::{Device, Scenario, ScenarioError, What};
use crate::truth::{ExpectedFlag, Truth};
use crate::vitals::{Course, news2, onset};
use bytes::Bytes;
use haar_schema::{DeviceId, IdError, SampleRate, Timestamp};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// The most patients on a ward.
pub const MAX_PATIENTS: u32 = 4_096;
/// Seconds between two readings of a patch.
pub const PATCH_PERIOD_S: u64 = 10;

const SECOND_US: i64 = 1_000_000;

/// Why there is no ward.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WardError {
    /// None or too many.
    #[error("a ward has 1 to {MAX_PATIENTS} patients, not {0}")]
    Patients(u32),
    /// The scenario does not fit.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A device's name is none.
    #[error("a device cannot be named: {0}")]
    Device(#[from] IdError),
}

/// A ward full of patients.
#[derive(Debug)]
pub struct Ward {
    start: Timestamp,
    scenario: Scenario,
    beds: Vec<Bed>,
    second: u64,
    order: u64,
    /// Made but not gone, by time of leaving and order of making.
    pending: BTreeMap<(Timestamp, u64), Frame>,
    truth: Vec<Truth>,
}

impl Ward {
    /// A ward that begins at `start` with everything drawn from `seed`.
    ///
    /// # Errors
    /// If the number of patients is out of range, or the scenario speaks of others.
    pub fn new(
        seed: u64,
        patients: u32,
        start: Timestamp,
        scenario: Scenario,
    ) -> Result<Self, WardError> {
        if patients == 0 || patients > MAX_PATIENTS {
            return Err(WardError::Patients(patients));
        }
        scenario.fits(patients)?;
        let beds = (0..patients)
            .map(|number| Bed::new(seed, number, patients, &scenario))
            .collect::<Result<Vec<_>, _>>()?;
        let mut truth = vec![Truth::Ward { seed, patients, start_us: start }];
        truth.extend(scripted(&scenario, &beds, start));
        Ok(Self { start, scenario, beds, second: 0, order: 0, pending: BTreeMap::new(), truth })
    }

    /// When simulated time began.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// How many patients there are.
    pub fn patients(&self) -> u32 {
        self.beds.len() as u32
    }

    /// The patients' names, by number.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.beds.iter().map(|bed| bed.name.as_str())
    }

    /// What has become true since the last call.
    pub fn take_truth(&mut self) -> Vec<Truth> {
        std::mem::take(&mut self.truth)
    }

    fn make_second(&mut self) {
        let from = self.start.plus_micros(self.second as i64 * SECOND_US);
        for bed in &mut self.beds {
            let active = bed
                .episodes
                .iter()
                .filter_map(|&index| {
                    let episode = self.scenario.episodes.get(index)?;
                    Some((episode, episode.elapsed_s(self.second)?))
                })
                .collect();
            let faults = Faults { active };
            let second = bed.patient.second(&condition(&faults));
            bed.tell(&second, self.start, from, &mut self.truth);
            for frame in bed.speak(second, self.second, from, &faults) {
                self.pending.insert((frame.at, self.order), frame);
                self.order += 1;
            }
        }
        self.second += 1;
    }
}

impl FrameSource for Ward {
    fn next_until(&mut self, time: Timestamp) -> Vec<Frame> {
        while self.start.plus_micros((self.second as i64 + 1) * SECOND_US) <= time {
            self.make_second();
        }
        let later = self.pending.split_off(&(time.plus_micros(1), 0));
        std::mem::replace(&mut self.pending, later).into_values().collect()
    }

    fn finish(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.pending).into_values().collect()
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// A patient with devices.
#[derive(Debug)]
struct Bed {
    number: u32,
    name: String,
    phase_us: i64,
    patient: Patient,
    monitor: Speaker,
    ecg: Speaker,
    oximeter: Speaker,
    patch: Option<Speaker>,
    rng: ChaCha8Rng,
    held: Held,
    /// Which episodes of the scenario are this patient's.
    episodes: Vec<usize>,
}

/// A device's name and how many frames it has sent.
#[derive(Debug)]
struct Speaker {
    id: DeviceId,
    seq: u32,
}

/// What devices said last, for flat lines.
#[derive(Debug, Default)]
struct Held {
    monitor: MonitorReading,
    ecg: f64,
    ppg: f64,
    respiration: f64,
    patch: f64,
}

impl Bed {
    fn new(seed: u64, number: u32, patients: u32, scenario: &Scenario) -> Result<Self, IdError> {
        let speaker = |kind: &str| -> Result<Speaker, IdError> {
            Ok(Speaker { id: format!("{kind}-{number:03}").parse()?, seq: 0 })
        };
        let episodes = scenario.episodes.iter().enumerate();
        let has_patch = matches!(number % 4, 1 | 2);
        Ok(Self {
            number,
            name: format!("patient-{number:03}"),
            phase_us: i64::from(number) * (SECOND_US * 9 / 10) / i64::from(patients),
            patient: Patient::new(seed, number),
            monitor: speaker("monitor")?,
            ecg: speaker("ecg")?,
            oximeter: speaker("oximeter")?,
            patch: has_patch.then(|| speaker("patch")).transpose()?,
            rng: random_stream(seed, number, 5),
            held: Held::default(),
            episodes: episodes.filter(|(_, e)| e.patient == number).map(|(i, _)| i).collect(),
        })
    }

    fn tell(&self, second: &Second, start: Timestamp, from: Timestamp, truth: &mut Vec<Truth>) {
        truth.extend(second.beats.iter().map(|beat| Truth::Beat {
            patient: self.name.clone(),
            at_us: start.plus_micros((beat.at_s * 1e6).round() as i64),
            class: beat.class,
            rhythm: beat.rhythm,
        }));
        truth.push(Truth::Vitals {
            patient: self.name.clone(),
            at_us: from.plus_micros(SECOND_US),
            vitals: second.vitals,
            news2: news2(&second.vitals),
        });
    }

    fn speak(
        &mut self,
        second: Second,
        number: u64,
        from: Timestamp,
        faults: &Faults<'_>,
    ) -> Vec<Frame> {
        let Second { ecg, ppg, respiration, vitals, .. } = second;
        let mut out = Vec::new();
        let reading = MonitorReading {
            hr: Some(vitals.heart_rate),
            spo2: Some(vitals.spo2),
            rr: Some(vitals.respiration_rate),
            nibp: Some(Pressure { sys: vitals.systolic, dia: vitals.diastolic }),
            temp: self.patch.is_none().then_some(vitals.temperature * 1.8 + 32.0),
        };
        self.speak_vitals(reading, from, faults, &mut out);
        self.speak_ecg(ecg, from, faults, &mut out);
        self.speak_curve(Channel::Ppg, ppg, from, faults, &mut out);
        self.speak_curve(Channel::Respiration, respiration, from, faults, &mut out);
        if number.is_multiple_of(PATCH_PERIOD_S) {
            self.speak_patch(vitals.temperature, from, faults, &mut out);
        }
        out
    }

    fn speak_vitals(
        &mut self,
        reading: MonitorReading,
        from: Timestamp,
        faults: &Faults<'_>,
        out: &mut Vec<Frame>,
    ) {
        let reading = faults.vitals(reading, &mut self.held.monitor, &mut self.rng).rounded();
        let at = faults.clock(Device::Monitor, from.plus_micros(SECOND_US));
        self.monitor.seq = self.monitor.seq.wrapping_add(1);
        let payload = format::monitor_frame(at, self.monitor.seq, &reading);
        let device = self.monitor.id.clone();
        let message = Message { kind: Device::Monitor, device, suffix: "vitals", payload };
        self.send(message, reading.readings(), from, faults, out);
    }

    fn speak_ecg(
        &mut self,
        mut samples: Vec<f64>,
        from: Timestamp,
        faults: &Faults<'_>,
        out: &mut Vec<Frame>,
    ) {
        faults.curve(Device::Ecg, &mut samples, &mut self.held.ecg, &mut self.rng);
        let samples: Vec<i16> = samples.iter().map(|mv| Channel::Ecg.sample(*mv)).collect();
        let at = faults.clock(Device::Ecg, from);
        self.ecg.seq = self.ecg.seq.wrapping_add(1);
        let seq = self.ecg.seq;
        let (suffix, payload) = if self.number.is_multiple_of(2) {
            ("wave", format::wave_frame(Channel::Ecg, at, seq, rate(Channel::Ecg), &samples))
        } else {
            ("ecg", format::ecg_json_frame(at, seq, ECG_HZ, &samples))
        };
        let device = self.ecg.id.clone();
        self.send(Message { kind: Device::Ecg, device, suffix, payload }, 1, from, faults, out);
    }

    fn speak_curve(
        &mut self,
        channel: Channel,
        mut samples: Vec<f64>,
        from: Timestamp,
        faults: &Faults<'_>,
        out: &mut Vec<Frame>,
    ) {
        let held = match channel {
            Channel::Respiration => &mut self.held.respiration,
            Channel::Ppg | Channel::Ecg => &mut self.held.ppg,
        };
        faults.curve(Device::Oximeter, &mut samples, held, &mut self.rng);
        let samples: Vec<i16> = samples.iter().map(|value| channel.sample(*value)).collect();
        let at = faults.clock(Device::Oximeter, from);
        self.oximeter.seq = self.oximeter.seq.wrapping_add(1);
        let payload = format::wave_frame(channel, at, self.oximeter.seq, rate(channel), &samples);
        let device = self.oximeter.id.clone();
        let message = Message { kind: Device::Oximeter, device, suffix: "wave", payload };
        self.send(message, 1, from, faults, out);
    }

    fn speak_patch(
        &mut self,
        celsius: f64,
        from: Timestamp,
        faults: &Faults<'_>,
        out: &mut Vec<Frame>,
    ) {
        let Some(patch) = &self.patch else { return };
        let device = patch.id.clone();
        // A second of one sample.
        let mut value = [celsius];
        faults.curve(Device::Patch, &mut value, &mut self.held.patch, &mut self.rng);
        let at = faults.clock(Device::Patch, from.plus_micros(SECOND_US));
        let at = (!faults.without_clock()).then_some(at);
        let base_name = format!("urn:dev:mac:0024befffe8{:05x}:", self.number);
        let payload = format::patch_frame(&base_name, at, (value[0] * 100.0).round() / 100.0);
        let message = Message { kind: Device::Patch, device, suffix: "temperature", payload };
        self.send(message, 1, from, faults, out);
    }

    fn send(
        &mut self,
        message: Message,
        readings: u32,
        from: Timestamp,
        faults: &Faults<'_>,
        out: &mut Vec<Frame>,
    ) {
        let Message { kind, device, suffix, payload } = message;
        if faults.silent(kind) {
            return;
        }
        let address = format!("ward/{}/{device}/{suffix}", self.name);
        let (connector, period_us) = match kind {
            Device::Patch => (Connector::Coap(address), PATCH_PERIOD_S as i64 * SECOND_US),
            Device::Monitor | Device::Ecg | Device::Oximeter => {
                (Connector::Mqtt(address), SECOND_US)
            }
        };
        let at = from.plus_micros(SECOND_US + self.phase_us);
        let (at, copy) = faults.delivery(kind, at, period_us, &mut self.rng);
        let patient = self.name.clone();
        let bed = self.number;
        let frame = Frame { bed, patient, device, connector, at, payload, readings, repeat: false };
        if let Some(at) = copy {
            out.push(Frame { at, repeat: true, ..frame.clone() });
        }
        out.push(frame);
    }
}

/// A frame in the making.
struct Message {
    kind: Device,
    device: DeviceId,
    suffix: &'static str,
    payload: Bytes,
}

fn rate(channel: Channel) -> SampleRate {
    const ECG: SampleRate = hertz(ECG_HZ);
    const PPG: SampleRate = hertz(PPG_HZ);
    const RESPIRATION: SampleRate = hertz(RESPIRATION_HZ);
    match channel {
        Channel::Ecg => ECG,
        Channel::Ppg => PPG,
        Channel::Respiration => RESPIRATION,
    }
}

/// Only for the constants above: a wrong one does not compile.
const fn hertz(hz: u32) -> SampleRate {
    match SampleRate::from_hz(hz) {
        Some(rate) => rate,
        None => panic!("not a rate"),
    }
}

fn condition(faults: &Faults<'_>) -> Condition {
    let mut condition = Condition::default();
    for (episode, elapsed_s) in &faults.active {
        match episode.what {
            What::Deterioration(course) => {
                let share = onset(*elapsed_s as f64, f64::from(episode.duration_s));
                condition.courses.push((course, share));
            }
            What::AtrialFibrillation => condition.rhythm = Rhythm::AtrialFibrillation,
            What::Ectopy { ventricular, supraventricular } => {
                condition.ventricular = ventricular;
                condition.supraventricular = supraventricular;
            }
            _ => {}
        }
    }
    condition
}

/// Episodes and the flags that they call for.
fn scripted(scenario: &Scenario, beds: &[Bed], start: Timestamp) -> Vec<Truth> {
    let mut truth = Vec::new();
    for episode in &scenario.episodes {
        let Some(bed) = beds.get(episode.patient as usize) else { continue };
        let from_us = start.plus_micros(i64::from(episode.start_s) * SECOND_US);
        let to_us = from_us.plus_micros(i64::from(episode.duration_s) * SECOND_US);
        let device = concerned(&episode.what).and_then(|device| match device {
            Device::Monitor => Some(bed.monitor.id.clone()),
            Device::Ecg => Some(bed.ecg.id.clone()),
            Device::Oximeter => Some(bed.oximeter.id.clone()),
            Device::Patch => bed.patch.as_ref().map(|patch| patch.id.clone()),
        });
        let patient = bed.name.clone();
        let what = episode.what.clone();
        for flag in expected(&what) {
            truth.push(Truth::Expected { patient: patient.clone(), flag: *flag, from_us, to_us });
        }
        truth.push(Truth::Episode { patient, device, from_us, to_us, what });
    }
    truth
}

fn expected(what: &What) -> &'static [ExpectedFlag] {
    match what {
        What::Deterioration(Course::SepticShock) => &[ExpectedFlag::News2, ExpectedFlag::Fever],
        What::Deterioration(Course::Fever) => &[ExpectedFlag::Fever],
        What::AtrialFibrillation => &[ExpectedFlag::AtrialFibrillation],
        What::Ectopy { ventricular, .. } if *ventricular >= 0.15 => {
            &[ExpectedFlag::VentricularEctopy]
        }
        What::DetachedLead => &[ExpectedFlag::LeadOff],
        What::Flatline { device: Device::Monitor } => &[ExpectedFlag::MonitorStuck],
        What::ClockOffset { seconds, .. } if seconds.abs() >= 60.0 => &[ExpectedFlag::Clock],
        _ => &[],
    }
}

impl MonitorReading {
    fn rounded(self) -> Self {
        Self {
            hr: self.hr.map(tenth),
            spo2: self.spo2.map(tenth),
            rr: self.rr.map(tenth),
            nibp: self.nibp.map(|p| Pressure { sys: tenth(p.sys), dia: tenth(p.dia) }),
            temp: self.temp.map(tenth),
        }
    }
}

#[cfg(test)]
mod tests;
