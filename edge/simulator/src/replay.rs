//! WFDB recordings as patients.
//!
//! Each record is one patient. Its first ECG channel goes out as `wave-binary` frames of one second at the
//! record's own rate, its first PPG and first respiration channel too if it has them. What a channel is, its
//! description says (leads by their usual names, `PLETH`, `PPG`, `RESP`); if none is known, the first channel in volts
//! is the ECG. Nothing is invented: no vitals, no heart rate. A record is played once; there is no loop.
//!
//! A record that cannot be read, or has nothing to send, is rejected with its reason ([`Recordings::rejected`]) and the
//! others go on; if none is left, opening fails.
//!
//! # Limits
//! [`MAX_REPLAY_SAMPLES`] in memory; rates up to [`MAX_FRAME_SAMPLES`] samples/s. A value outside what a frame can say
//! (±32.7 mV, ±3.27 for PPG and respiration) is clamped; an invalid sample is sent as "no sample".

use crate::format::{Channel, MAX_FRAME_SAMPLES, wave_frame};
use crate::frame::{Connector, Frame, FrameSource};
use haar_recordings::wfdb::{FindError, Record, RecordError, SignalSpec, find_records};
use haar_schema::{DeviceId, SampleRate, Timestamp};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The most samples that are kept of all records together (512 MiB).
pub const MAX_REPLAY_SAMPLES: usize = 256 * 1024 * 1024;
/// The longest name of a patient that is made from a record's.
const MAX_NAME_BYTES: usize = 40;

/// Why there is nothing to replay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// No records there.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Every record was rejected.
    #[error("none of the {count} records can be replayed; the first: {first}")]
    AllRejected {
        /// How many.
        count: usize,
        /// The first one's reason.
        #[source]
        first: Box<RejectReason>,
    },
}

/// Why a record is not replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// It cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It has neither ECG nor PPG nor respiration.
    #[error("{path}: no channel is an ECG, PPG or respiration; name it so in the header")]
    NoChannel {
        /// Its header.
        path: PathBuf,
    },
    /// Its rate does not fit a frame.
    #[error("{path}: {rate_hz} samples/s; a frame of one second has 1 to {MAX_FRAME_SAMPLES}")]
    Rate {
        /// Its header.
        path: PathBuf,
        /// Samples a second.
        rate_hz: f64,
    },
    /// Over [`MAX_REPLAY_SAMPLES`].
    #[error(
        "{path}: more than {MAX_REPLAY_SAMPLES} samples with the records before it; replay fewer at a time"
    )]
    TooMuch {
        /// Its header.
        path: PathBuf,
    },
}

/// Recordings that have been read.
#[derive(Debug)]
pub struct Recordings {
    patients: Vec<Recorded>,
    rejected: Vec<RejectReason>,
}

impl Recordings {
    /// Reads a record, or all records in a folder.
    ///
    /// # Errors
    /// If there is none that can be replayed.
    pub fn open(path: &Path) -> Result<Self, ReplayError> {
        let headers = find_records(path)?;
        let (mut patients, mut rejected) = (Vec::new(), Vec::new());
        let mut names = BTreeSet::new();
        let mut room = MAX_REPLAY_SAMPLES;
        for header in headers {
            match Recorded::open(&header, patients.len(), &mut names, &mut room) {
                Ok(patient) => patients.push(patient),
                Err(reason) => rejected.push(reason),
            }
        }
        if patients.is_empty() {
            let count = rejected.len();
            return match rejected.into_iter().next() {
                Some(first) => Err(ReplayError::AllRejected { count, first: Box::new(first) }),
                None => Err(FindError::Empty { path: path.to_owned() }.into()),
            };
        }
        Ok(Self { patients, rejected })
    }

    /// The patients' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.patients.iter().map(|patient| patient.name.as_str())
    }

    /// Records that are left out, and why.
    pub fn rejected(&self) -> &[RejectReason] {
        &self.rejected
    }

    /// Seconds that the longest record lasts, rounded up.
    pub fn seconds(&self) -> u32 {
        self.patients.iter().map(Recorded::seconds).max().unwrap_or(0)
    }

    /// Plays them all from this instant of event time.
    pub fn play(self, start: Timestamp) -> Replay {
        Replay { start, second: 0, patients: self.patients }
    }
}

/// Recordings being played.
#[derive(Debug)]
pub struct Replay {
    start: Timestamp,
    second: u32,
    patients: Vec<Recorded>,
}

impl FrameSource for Replay {
    fn next_until(&mut self, time: Timestamp) -> Vec<Frame> {
        let mut frames = Vec::new();
        while !self.is_over() {
            // A frame leaves when its second is over.
            let at = self.start.plus_micros((i64::from(self.second) + 1) * 1_000_000);
            if at > time {
                break;
            }
            for patient in &mut self.patients {
                patient.second(self.second, self.start, at, &mut frames);
            }
            self.second += 1;
        }
        frames
    }

    fn finish(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    fn is_over(&self) -> bool {
        self.patients.iter().all(|patient| self.second >= patient.seconds())
    }
}

#[derive(Debug)]
struct Recorded {
    bed: u32,
    name: String,
    rate: SampleRate,
    ecg: DeviceId,
    oximeter: DeviceId,
    /// Frames sent by each.
    seq: [u32; 2],
    channels: Vec<(Channel, Vec<i16>)>,
}

impl Recorded {
    fn open(
        header: &Path,
        bed: usize,
        names: &mut BTreeSet<String>,
        room: &mut usize,
    ) -> Result<Self, RejectReason> {
        let path = || header.to_owned();
        let record = Record::open(header)?;
        let rate_hz = record.header.rate_hz;
        let rate = Some(rate_hz)
            .filter(|hz| (1.0..=MAX_FRAME_SAMPLES as f64).contains(hz))
            .and_then(|hz| SampleRate::from_millihertz((hz * 1_000.0).round() as u32))
            .ok_or_else(|| RejectReason::Rate { path: path(), rate_hz })?;
        let channels = channels(&record);
        if channels.iter().all(|(_, samples)| samples.is_empty()) {
            return Err(RejectReason::NoChannel { path: path() });
        }
        let samples: usize = channels.iter().map(|(_, samples)| samples.len()).sum();
        *room = room.checked_sub(samples).ok_or_else(|| RejectReason::TooMuch { path: path() })?;
        let name = unique(&record.header.name, names);
        let device = |kind: &str| format!("{kind}-{name}").parse();
        // `unique` gives only what an identifier may have.
        let (Ok(ecg), Ok(oximeter)) = (device("ecg"), device("oximeter")) else {
            return Err(RejectReason::NoChannel { path: path() });
        };
        Ok(Self { bed: bed as u32, name, rate, ecg, oximeter, seq: [0; 2], channels })
    }

    /// Index of the first sample that is not before the end of so many seconds.
    fn index(&self, seconds: u32) -> usize {
        (u64::from(seconds) * u64::from(self.rate.millihertz())).div_ceil(1_000) as usize
    }

    fn seconds(&self) -> u32 {
        let longest = self.channels.iter().map(|(_, samples)| samples.len()).max().unwrap_or(0);
        (longest as u64 * 1_000).div_ceil(u64::from(self.rate.millihertz())) as u32
    }

    fn second(&mut self, second: u32, start: Timestamp, at: Timestamp, out: &mut Vec<Frame>) {
        let (from, to) = (self.index(second), self.index(second + 1));
        for (channel, samples) in &self.channels {
            let samples = &samples[from.min(samples.len())..to.min(samples.len())];
            if samples.is_empty() {
                continue;
            }
            let (device, seq) = match channel {
                Channel::Ecg => (&self.ecg, &mut self.seq[0]),
                Channel::Ppg | Channel::Respiration => (&self.oximeter, &mut self.seq[1]),
            };
            *seq = seq.wrapping_add(1);
            let first = self.rate.sample_time(start, from as u64);
            out.push(Frame {
                bed: self.bed,
                patient: self.name.clone(),
                device: device.clone(),
                connector: Connector::Mqtt(format!("ward/{}/{device}/wave", self.name)),
                at,
                payload: wave_frame(*channel, first, *seq, self.rate, samples),
                readings: 1,
                repeat: false,
            });
        }
    }
}

/// Which channel of a record is taken for its ECG, and how many millivolts its unit is: the first whose
/// description is a lead, else the first in volts that is not something else.
pub fn ecg_channel(record: &Record) -> Option<(usize, f64)> {
    let specs = &record.header.signals;
    let lead = specs.iter().position(|spec| kind(spec) == Some(Channel::Ecg));
    let volts = || specs.iter().position(|spec| kind(spec).is_none() && millivolts(spec).is_some());
    let place = lead.or_else(volts)?;
    Some((place, millivolts(&specs[place])?))
}

/// The first channel of each kind, as samples.
fn channels(record: &Record) -> Vec<(Channel, Vec<i16>)> {
    let specs = &record.header.signals;
    let of = |channel| specs.iter().position(|spec| kind(spec) == Some(channel));
    [
        (Channel::Ecg, ecg_channel(record).map(|(place, _)| place)),
        (Channel::Ppg, of(Channel::Ppg)),
        (Channel::Respiration, of(Channel::Respiration)),
    ]
    .into_iter()
    .filter_map(|(channel, place)| {
        let (spec, values) = (specs.get(place?)?, record.signals.get(place?)?);
        let scale = if channel == Channel::Ecg { millivolts(spec)? } else { 1.0 };
        let samples = values.iter().map(|value| channel.sample(f64::from(*value) * scale));
        Some((channel, samples.collect()))
    })
    .collect()
}

/// What a channel's description says that it is.
fn kind(spec: &SignalSpec) -> Option<Channel> {
    let name = spec.description.trim_matches(|c: char| !c.is_alphanumeric()).to_uppercase();
    const LEADS: [&str; 19] = [
        "I", "II", "III", "MLI", "MLII", "MLIII", "AVR", "AVL", "AVF", "V", "V1", "V2", "V3", "V4",
        "V5", "V6", "MCL1", "MV2", "CM5",
    ];
    if name.contains("PLETH") || name.contains("PPG") {
        Some(Channel::Ppg)
    } else if name.contains("RESP") {
        Some(Channel::Respiration)
    } else if LEADS.contains(&name.as_str()) || name.contains("ECG") {
        (millivolts(spec).is_some()).then_some(Channel::Ecg)
    } else {
        None
    }
}

/// Millivolts per unit of the channel; WFDB's default unit is the millivolt.
fn millivolts(spec: &SignalSpec) -> Option<f64> {
    match spec.units.as_str() {
        "" | "mV" | "mv" | "MV" => Some(1.0),
        "uV" | "uv" | "µV" | "μV" => Some(1e-3),
        "V" | "v" => Some(1e3),
        _ => None,
    }
}

/// The record's name with only what an identifier and a topic may have, not used before.
fn unique(name: &str, names: &mut BTreeSet<String>) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = name.chars().take(MAX_NAME_BYTES).map(allowed).collect();
    let mut candidate = name.clone();
    let mut number = 2;
    while !names.insert(candidate.clone()) {
        candidate = format!("{name}-{number}");
        number += 1;
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> PathBuf {
        let data = std::env::var("HAAR_DATA").expect("HAAR_DATA names the folder of recordings");
        PathBuf::from(data)
    }

    fn samples(frame: &Frame) -> Vec<i16> {
        let payload = &frame.payload;
        let body = &payload[30..payload.len() - 4];
        body.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn recorded_arrhythmia_is_sent_whole_and_in_millivolts() {
        let path = data().join("mitdb/101.hea");
        let record = Record::open(&path).unwrap();
        let recordings = Recordings::open(&path).unwrap();
        assert_eq!(recordings.names().collect::<Vec<_>>(), ["101"]);
        assert_eq!(recordings.seconds(), 1806);
        let start = Timestamp::from_millis(1_000);
        let mut replay = recordings.play(start);
        let mut frames = replay.next_until(start.plus_micros(999_999));
        assert!(frames.is_empty());
        frames.extend(replay.next_until(start.plus_micros(10_000_000)));
        assert_eq!(frames.len(), 10);
        frames.extend(replay.next_until(Timestamp::MAX));
        assert!(replay.is_over());
        let sent: Vec<i16> = frames.iter().flat_map(samples).collect();
        let steps: Vec<i16> =
            record.signals[0].iter().map(|mv| (f64::from(*mv) * 1_000.0).round() as i16).collect();
        assert_eq!(sent.len(), 650_000);
        assert!(sent == steps);
        assert!(frames.iter().all(|frame| frame.payload[20..24] == 0.001_f32.to_le_bytes()));
    }

    #[test]
    fn channels_go_by_their_descriptions() {
        let folder = tempfile::tempdir().unwrap();
        let signal = |what: &str| format!("bed.dat 16 1000/{what}\n");
        let header = [
            "bed 4 125 2\n".to_owned(),
            signal("NU 16 0 0 0 0 RESP,"),
            signal("NU 16 0 0 0 0 PLETH,"),
            signal("mV 16 0 0 0 0 V,"),
            signal("mV 16 0 0 0 0 II,"),
        ];
        std::fs::write(folder.path().join("bed.hea"), header.concat()).unwrap();
        std::fs::write(folder.path().join("bed.dat"), [0; 16]).unwrap();
        let recordings = Recordings::open(folder.path()).unwrap();
        let patient = &recordings.patients[0];
        let kinds: Vec<Channel> = patient.channels.iter().map(|(channel, _)| *channel).collect();
        assert_eq!(kinds, [Channel::Ecg, Channel::Ppg, Channel::Respiration]);
    }

    #[test]
    fn a_broken_record_is_named_and_the_others_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("good.hea", b"good 1 4 4\ngood.dat 16 1000 16 0 1 -32766 0 MLII\n");
        write("good.dat", &[1, 0, 2, 0, 0, 0x80, 0xFF, 0xFF]);
        write("short.hea", b"short 1 4 400\nshort.dat 16 1000 16 0 0 0 0 MLII\n");
        write("short.dat", &[0; 10]);
        write("odd.hea", b"odd 1 4 2\nodd.dat 16 1000/degC 16 0 0 0 0 core\n");
        write("odd.dat", &[0; 4]);
        let recordings = Recordings::open(folder.path()).unwrap();
        assert_eq!(recordings.names().collect::<Vec<_>>(), ["good"]);
        let reasons: Vec<String> = recordings.rejected().iter().map(ToString::to_string).collect();
        assert!(reasons[0].contains("odd") && reasons[0].contains("no channel"), "{reasons:?}");
        assert!(reasons[1].contains("short"), "{reasons:?}");
        let frames = recordings.play(Timestamp::MIN).next_until(Timestamp::MAX);
        assert_eq!(frames.len(), 1);
        assert_eq!(samples(&frames[0]), [1, 2, i16::MIN, -1]);
    }

    #[test]
    fn names_are_safe_and_unique() {
        let mut names = BTreeSet::new();
        assert_eq!(unique("a/b+#", &mut names), "a-b--");
        assert_eq!(unique("a/b+#", &mut names), "a-b---2");
    }
}
