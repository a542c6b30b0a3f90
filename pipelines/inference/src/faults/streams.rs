//! Sound streams to train on and to put faults into, from the data sets that a folder holds.
//!
//! A table is known by its header, wherever it lies: BIDMC numerics (heart rate, pulse, breaths, saturation at 1 Hz; Pimentel et al., IEEE TBME 2017),
//! glucose ([`haar_recordings::cgm`]), motes ([`haar_recordings::suthaharan`]). "Sound" means: nobody has marked a fault; what the devices
//! got wrong without anybody noticing is in there. All streams of one patient or mote have one [`CaseId`].

use super::{CONTEXT, Reading, WINDOW};
use haar_recordings::cgm::{self, CgmError};
use haar_recordings::corpus::{CaseId, Corpus, CorpusError};
use haar_recordings::suthaharan::{self, SuthaharanError};
use std::path::Path;

/// Where a stream comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// BIDMC numerics.
    Bidmc,
    /// Continuous glucose.
    Cgm,
    /// Motes' temperature and humidity.
    Suthaharan,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bidmc, Self::Cgm, Self::Suthaharan];

    /// As reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bidmc => "bidmc",
            Self::Cgm => "cgm",
            Self::Suthaharan => "suthaharan-wsn",
        }
    }
}

/// One signal of one patient or mote.
#[derive(Clone, PartialEq, Debug)]
pub struct Stream {
    /// The patient or mote.
    pub case: CaseId,
    /// Where it comes from.
    pub origin: Origin,
    /// Physical range of the unit, if known.
    pub range: Option<(f32, f32)>,
    /// What was read.
    pub readings: Vec<Reading>,
    /// By reading: whether a labelled event was going on (motes only; else empty).
    pub events: Vec<bool>,
}

/// Why there are no streams.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The folder is not readable.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// The glucose is not readable.
    #[error(transparent)]
    Cgm(#[from] CgmError),
    /// The motes are not readable.
    #[error(transparent)]
    Suthaharan(#[from] SuthaharanError),
    /// The numerics are not readable.
    #[error("a table of numerics is damaged: {0}")]
    Numerics(String),
}

/// The tables in a folder, and what labels belong to them.
///
/// # Errors
/// If the folder is not readable or holds no table.
pub fn open(folder: &Path) -> Result<Corpus, CorpusError> {
    Corpus::open(folder, "a .csv table", |path| {
        let waveform = path.ends_with("Signals.csv") || path.ends_with("Breaths.csv");
        path.ends_with(haar_recordings::nab::WINDOWS_FILE) || path.ends_with(".csv") && !waveform
    })
}

/// All streams in a data set that are known by their tables' headers; in order of path, patient and signal.
///
/// # Errors
/// If such a table is damaged.
pub fn read(corpus: &Corpus) -> Result<Vec<Stream>, StreamError> {
    let mut streams = Vec::new();
    for (_, bytes) in corpus.iter() {
        if is_numerics(bytes) {
            numerics(bytes, &mut streams)?;
        } else if cgm::is_cgm(bytes) {
            streams.extend(cgm::read(bytes)?.into_iter().map(glucose));
        } else if suthaharan::is_suthaharan(bytes) {
            streams.extend(suthaharan::read(bytes)?.into_iter().flat_map(mote));
        }
    }
    Ok(streams)
}

impl Stream {
    /// Ends of windows, every `step` readings, in which nothing is missing, the clock is even, and nothing is labelled in the context.
    pub fn sound_windows(&self, step: usize) -> Vec<usize> {
        let usual = |pair: &[Reading], interval: f64| {
            let passed = pair[1].time_s - pair[0].time_s;
            pair[1].value.is_finite() && passed > 0.3 * interval && passed < 1.8 * interval
        };
        (WINDOW + 1..=self.readings.len())
            .step_by(step.max(1))
            .filter(|end| {
                let context = end.saturating_sub(CONTEXT)..*end;
                let Some(scale) = super::Scale::of(&self.readings[context.clone()]) else {
                    return false;
                };
                let window = &self.readings[end - WINDOW - 1..*end];
                window.windows(2).all(|pair| usual(pair, scale.interval_s))
                    && self.events.get(context).is_none_or(|events| !events.contains(&true))
            })
            .collect()
    }

    /// The readings that a window ending before row `end` is judged by.
    pub fn context(&self, end: usize) -> &[Reading] {
        &self.readings[end.saturating_sub(CONTEXT)..end]
    }
}

const NUMERICS: &[u8] = b"Time [s], HR, PULSE, RESP, SpO2";
/// Of heart rate, pulse, breaths and saturation.
const NUMERICS_RANGES: [(f32, f32); 4] = [(0.0, 300.0), (0.0, 300.0), (0.0, 120.0), (0.0, 100.0)];
/// In mg/dL: beyond what any sensor of these studies shows.
const GLUCOSE_RANGE: (f32, f32) = (20.0, 600.0);
const HUMIDITY_RANGE: (f32, f32) = (0.0, 100.0);

fn is_numerics(bytes: &[u8]) -> bool {
    bytes.starts_with(NUMERICS)
}

fn numerics(bytes: &[u8], streams: &mut Vec<Stream>) -> Result<(), StreamError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| StreamError::Numerics(error.to_string()))?;
    let mut signals: [Vec<Reading>; 4] = Default::default();
    for line in text.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let mut cells = line.split(',').map(str::trim);
        let time_s = cells.next().and_then(|cell| cell.parse().ok());
        let time_s = time_s.ok_or_else(|| StreamError::Numerics("a time is no number".into()))?;
        for signal in &mut signals {
            let value = cells.next().and_then(|cell| cell.parse().ok()).unwrap_or(f32::NAN);
            signal.push(Reading { time_s, value });
        }
    }
    let case = CaseId::of(bytes);
    streams.extend(signals.into_iter().zip(NUMERICS_RANGES).map(|(readings, range)| Stream {
        case,
        origin: Origin::Bidmc,
        range: Some(range),
        readings,
        events: Vec::new(),
    }));
    Ok(())
}

fn glucose(subject: cgm::Subject) -> Stream {
    let reading = |(time_s, glucose): &(f64, cgm::Glucose)| Reading {
        time_s: *time_s,
        value: glucose.mg_dl(),
    };
    Stream {
        case: subject.case,
        origin: Origin::Cgm,
        range: Some(GLUCOSE_RANGE),
        readings: subject.readings.iter().map(reading).collect(),
        events: Vec::new(),
    }
}

fn mote(mote: suthaharan::Mote) -> [Stream; 2] {
    let stream = |range, value: fn(&suthaharan::MoteReading) -> f32| Stream {
        case: mote.case,
        origin: Origin::Suthaharan,
        range,
        readings: mote
            .readings
            .iter()
            .map(|row| Reading { time_s: row.time_s, value: value(row) })
            .collect(),
        events: mote.readings.iter().map(|row| row.event).collect(),
    };
    [
        stream(None, |row| row.temperature_c),
        stream(Some(HUMIDITY_RANGE), |row| row.humidity_percent),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(files: &[(&str, String)]) -> Result<Vec<Stream>, StreamError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        read(&open(folder.path()).unwrap())
    }

    #[test]
    fn tables_are_known_by_their_headers() {
        let numerics = "Time [s], HR, PULSE, RESP, SpO2\n0,94,93,25,97\n1,95,NaN,,97\n".to_owned();
        let motes =
            "reading,mote_id,indoor,humidity,temperature,label\n1,1,0,43.82,30.21,1\n".to_owned();
        let other = "a,b\n1,2\n".to_owned();
        let streams = streams(&[("x.csv", numerics), ("y.csv", motes), ("z.csv", other)]).unwrap();
        let origins: Vec<Origin> = streams.iter().map(|stream| stream.origin).collect();
        assert_eq!(origins[..4], [Origin::Bidmc; 4]);
        assert_eq!(origins[4..], [Origin::Suthaharan; 2]);
        assert_eq!(streams[0].case, streams[3].case);
        assert!(streams[1].readings[1].value.is_nan() && streams[2].readings[1].value.is_nan());
        assert_eq!(streams[5].readings[0].value, 43.82);
        assert_eq!(streams[4].events, [true]);
    }

    #[test]
    fn damage_is_said() {
        let broken = "Time [s], HR, PULSE, RESP, SpO2\nx,94,93,25,97\n".to_owned();
        assert!(matches!(streams(&[("x.csv", broken)]), Err(StreamError::Numerics(_))));
    }

    #[test]
    fn windows_with_gaps_or_events_are_not_sound() {
        let readings: Vec<Reading> = super::super::inject::tests::wave(600, 1);
        let mut stream = Stream {
            case: CaseId(1),
            origin: Origin::Suthaharan,
            range: None,
            events: vec![false; readings.len()],
            readings,
        };
        assert_eq!(stream.sound_windows(1).len(), 600 - WINDOW);
        stream.readings[300].value = f32::NAN;
        let ends = stream.sound_windows(1);
        assert!(ends.iter().all(|end| *end <= 300 || *end > 300 + WINDOW));
        stream.events[0] = true;
        assert!(stream.sound_windows(1).iter().all(|end| *end > CONTEXT));
    }
}
