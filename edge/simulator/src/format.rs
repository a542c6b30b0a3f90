//! The four frame formats of the simulated devices; the built-in device profiles of `haar-normalize` read them.
//!
//! - `bedside-monitor`, MQTT `ward/{patient}/{device}/vitals`, JSON:
//!   `{"ts":"2026-11-22T20:15:00Z","seq":17,"hr":72.0,"spo2":97.1,"rr":14.2,"nibp":{"sys":121.0,"dia":79.0},"temp":98.4}`,
//!   each value optional, `temp` in `[degF]`.
//! - `ecg-json`, MQTT `ward/{patient}/{device}/ecg`, JSON:
//!   `{"ts":…,"seq":3,"fs":250,"unit":"uV","samples":[…]}` with `ts` that of the first sample.
//! - `wave-binary`, MQTT `ward/{patient}/{device}/wave`, little-endian: `HW`, u8 version 1, u8 channel (1 ECG in mV,
//!   2 PPG, 3 respiration), u32 seq, i64 time of the first sample in µs since 1970, u32 rate in mHz,
//!   f32 factor, f32 origin, u16 count, count × i16, u32 CRC-32 (IEEE 802.3) of everything before.
//! - `temperature-patch`, CoAP POST `ward/{patient}/{device}/temperature`, SenML JSON (RFC 8428):
//!   `[{"bn":…,"bt":1276020076.5,"n":"temperature","u":"Cel","v":36.9}]`, `bt` optional.
//!
//! In both ECG formats a sample of −32768 means "no sample".
//!
//! # Limits
//! A frame has at most [`MAX_FRAME_BYTES`], so a run at most [`MAX_FRAME_SAMPLES`] samples.

use bytes::Bytes;
use haar_schema::{SampleRate, Timestamp};
use serde::Serialize;

/// The longest payload.
pub const MAX_FRAME_BYTES: usize = 8 * 1024;
/// The most samples in a frame: what fits in binary with its head and checksum.
pub const MAX_FRAME_SAMPLES: usize = (MAX_FRAME_BYTES - WAVE_HEAD_BYTES - 4) / 2;
/// What stands for "no sample".
pub const NO_SAMPLE: i16 = i16::MIN;
/// SenML in JSON, the CoAP Content-Format (RFC 8428, section 12.3).
pub const SENML_JSON: u16 = 110;

const WAVE_HEAD_BYTES: usize = 30;

/// The channels of `wave-binary`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// ECG in millivolts.
    Ecg = 1,
    /// Plethysmogram.
    Ppg = 2,
    /// Respiration.
    Respiration = 3,
}

impl Channel {
    /// Physical units a step: 1 µV for the ECG, a ten-thousandth for the others.
    pub const fn factor(self) -> f32 {
        match self {
            Self::Ecg => 0.001,
            Self::Ppg | Self::Respiration => 0.0001,
        }
    }

    /// A physical value as a sample: rounded, clamped to what a sample can say, NaN as [`NO_SAMPLE`].
    pub fn sample(self, physical: f64) -> i16 {
        if physical.is_nan() {
            return NO_SAMPLE;
        }
        let steps = (physical / f64::from(self.factor())).round();
        steps.clamp(f64::from(i16::MIN + 1), f64::from(i16::MAX)) as i16
    }
}

/// What a bedside monitor says; what is `None` is left out.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct MonitorReading {
    /// Heart rate per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hr: Option<f64>,
    /// SpO₂ in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spo2: Option<f64>,
    /// Breaths per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rr: Option<f64>,
    /// Pressure in `mm[Hg]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nibp: Option<Pressure>,
    /// Temperature in `[degF]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temp: Option<f64>,
}

/// Non-invasive pressure in `mm[Hg]`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Pressure {
    /// Systolic.
    pub sys: f64,
    /// Diastolic.
    pub dia: f64,
}

impl MonitorReading {
    /// How many readings are in it.
    pub fn readings(&self) -> u32 {
        let single = [self.hr, self.spo2, self.rr, self.temp].iter().flatten().count() as u32;
        single + if self.nibp.is_some() { 2 } else { 0 }
    }
}

/// A `bedside-monitor` frame.
pub fn monitor_frame(at: Timestamp, seq: u32, reading: &MonitorReading) -> Bytes {
    #[derive(Serialize)]
    struct Json<'a> {
        ts: String,
        seq: u32,
        #[serde(flatten)]
        reading: &'a MonitorReading,
    }
    json(&Json { ts: at.to_string(), seq, reading })
}

/// An `ecg-json` frame; samples in µV.
pub fn ecg_json_frame(start: Timestamp, seq: u32, rate_hz: u32, samples: &[i16]) -> Bytes {
    #[derive(Serialize)]
    struct Json<'a> {
        ts: String,
        seq: u32,
        fs: u32,
        unit: &'static str,
        samples: &'a [i16],
    }
    json(&Json { ts: start.to_string(), seq, fs: rate_hz, unit: "uV", samples })
}

/// A `wave-binary` frame; samples in steps of [`Channel::factor`], of which those over
/// [`MAX_FRAME_SAMPLES`] are left out.
pub fn wave_frame(
    channel: Channel,
    start: Timestamp,
    seq: u32,
    rate: SampleRate,
    samples: &[i16],
) -> Bytes {
    let samples = &samples[..samples.len().min(MAX_FRAME_SAMPLES)];
    let mut out = Vec::with_capacity(WAVE_HEAD_BYTES + samples.len() * 2 + 4);
    out.extend(b"HW");
    out.extend([1, channel as u8]);
    out.extend(seq.to_le_bytes());
    out.extend(start.micros().to_le_bytes());
    out.extend(rate.millihertz().to_le_bytes());
    out.extend(channel.factor().to_le_bytes());
    out.extend(0.0_f32.to_le_bytes());
    // Bounded by MAX_FRAME_SAMPLES, which fits.
    out.extend((samples.len() as u16).to_le_bytes());
    for sample in samples {
        out.extend(sample.to_le_bytes());
    }
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out.into()
}

/// A `temperature-patch` frame; `at` is left out for a patch without a clock.
pub fn patch_frame(base_name: &str, at: Option<Timestamp>, celsius: f64) -> Bytes {
    #[derive(Serialize)]
    struct Senml<'a> {
        bn: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        bt: Option<f64>,
        n: &'static str,
        u: &'static str,
        v: f64,
    }
    let bt = at.map(|at| at.millis() as f64 / 1e3);
    json(&[Senml { bn: base_name, bt, n: "temperature", u: "Cel", v: celsius }])
}

/// Rounds to one decimal, which is what such devices show.
pub fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn json(value: &impl Serialize) -> Bytes {
    // Of numbers, texts and lists: there is nothing in it that cannot be written.
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn text(frame: Bytes) -> String {
        String::from_utf8(frame.to_vec()).unwrap()
    }

    #[test]
    fn frames_are_as_documented() {
        let at = Timestamp::parse_rfc3339("2026-11-22T20:15:00.25Z").unwrap();
        let reading = MonitorReading {
            hr: Some(72.0),
            nibp: Some(Pressure { sys: 121.0, dia: 79.5 }),
            temp: Some(98.4),
            ..MonitorReading::default()
        };
        assert_eq!(reading.readings(), 4);
        expect![[r#"{"ts":"2026-11-22T20:15:00.25Z","seq":17,"hr":72.0,"nibp":{"sys":121.0,"dia":79.5},"temp":98.4}"#]]
        .assert_eq(&text(monitor_frame(at, 17, &reading)));
        expect![[r#"{"ts":"2026-11-22T20:15:00.25Z","seq":3,"fs":250,"unit":"uV","samples":[-5,1200,-32768]}"#]]
        .assert_eq(&text(ecg_json_frame(at, 3, 250, &[-5, 1200, NO_SAMPLE])));
        expect![[
            r#"[{"bn":"urn:dev:mac:1:","bt":1795378500.25,"n":"temperature","u":"Cel","v":36.9}]"#
        ]]
        .assert_eq(&text(patch_frame("urn:dev:mac:1:", Some(at), 36.9)));
        expect![[r#"[{"bn":"urn:dev:mac:1:","n":"temperature","u":"Cel","v":36.9}]"#]]
            .assert_eq(&text(patch_frame("urn:dev:mac:1:", None, 36.9)));
    }

    #[test]
    fn the_binary_frame_is_as_documented() {
        let rate = SampleRate::from_hz(125).unwrap();
        let frame = wave_frame(Channel::Ppg, Timestamp::from_micros(1), 7, rate, &[1, -2]);
        assert_eq!(&frame[..8], b"HW\x01\x02\x07\0\0\0");
        assert_eq!(frame[8..16], 1_i64.to_le_bytes());
        assert_eq!(frame[16..20], 125_000_u32.to_le_bytes());
        assert_eq!(frame[20..24], 0.0001_f32.to_le_bytes());
        assert_eq!(frame[28..34], [2, 0, 1, 0, 0xFE, 0xFF]);
        assert_eq!(frame[34..], crc32fast::hash(&frame[..34]).to_le_bytes());
        let longest = vec![0; MAX_FRAME_SAMPLES + 1];
        assert_eq!(
            wave_frame(Channel::Ecg, Timestamp::MIN, 0, rate, &longest).len(),
            MAX_FRAME_BYTES
        );
    }

    #[test]
    fn samples_clamp_and_nan_is_none() {
        assert_eq!(Channel::Ecg.sample(1.2344), 1234);
        assert_eq!(Channel::Ecg.sample(-99.0), -32767);
        assert_eq!(Channel::Ecg.sample(99.0), 32767);
        assert_eq!(Channel::Ecg.sample(f64::NAN), NO_SAMPLE);
    }
}
