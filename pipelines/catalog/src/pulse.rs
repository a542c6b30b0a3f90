//! A window of a plethysmogram as features, with the ECG and the impedance beside it where there are any.

use crate::Family;
use crate::feature::features;
use haar_schema::{Feature, Features, Missing, SampleRate, SignalId, SignalSet};
use haar_signals::ecg::{coverage, detect_r_peaks};
use haar_signals::ppg::{
    detect_pulses, perfusion_index, pulse_arrival, pulse_rate_variability, quality,
};
use haar_signals::respiration::{Refusal, Signals, respiration_rate};

/// One signal of a window, from its first sample to its last; NaN where nothing was received.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    /// Which.
    pub signal: SignalId,
    /// Sampling rate.
    pub rate: SampleRate,
    /// In the signal's unit.
    pub samples: &'a [f32],
}

/// Describes a window by these curves, which begin at the same instant and last equally long.
pub(crate) fn describe(signals: SignalSet, curves: &[Curve<'_>]) -> Features {
    let curve = |signal| curves.iter().find(|curve| curve.signal == signal);
    let ppg = curve(SignalId::PPG);
    let received = ppg.map_or(0.0, |ppg| coverage(ppg.samples));
    let reason = if received == 0.0 { Missing::NoData } else { Missing::TooFew };
    let mut features: Features = features(Family::Pulse, signals, None, &[])
        .into_iter()
        .map(|feature| (feature.name, Feature::missing(reason)))
        .collect();
    let mut set = |name: &str, feature: Feature| features.insert(name.to_owned(), feature);
    set("pulse.coverage", Feature::value(received));
    set("pulse.continuity", Feature::value(ppg.map_or(0.0, |ppg| continuity(ppg.samples))));
    let Some(Curve { rate, samples, .. }) = ppg.copied().filter(|_| received > 0.0) else {
        return features;
    };
    let pulses = detect_pulses(samples, rate);
    let judged = quality(samples, rate, &pulses);
    set("pulse.pulses", Feature::value(pulses.len() as f64));
    set("pulse.correlation", Feature::value(judged.correlation));
    set("pulse.acceptable", Feature::value(f64::from(u8::from(judged.is_acceptable()))));
    if let Some(percent) = perfusion_index(&pulses) {
        set("pulse.perfusion_index", Feature::value(percent));
    }
    if let Ok(found) = pulse_rate_variability(&pulses, rate) {
        set("pulse.rate", Feature::value(found.rate));
        set("pulse.sdnn_ms", Feature::value(found.sdnn_ms));
        set("pulse.rmssd_ms", Feature::value(found.rmssd_ms));
    }
    // On the grid of the plethysmogram: they are compared sample by sample.
    let beside =
        |signal| curve(signal).map(|curve| onto(curve.samples, curve.rate, rate, samples.len()));
    let (ecg, impedance) = (beside(SignalId::ECG), beside(SignalId::RESPIRATION));
    if signals.contains(SignalId::ECG) {
        let peaks = ecg.as_deref().map_or(Vec::new(), |ecg| detect_r_peaks(ecg, rate));
        let arrival = pulse_arrival(&peaks, &pulses, rate).ok();
        let missing = match ecg {
            Some(_) => Missing::TooFew,
            None => Missing::NoData,
        };
        let value = |value: Option<f64>| value.map_or(Feature::missing(missing), Feature::value);
        set("pulse.arrival_ms", value(arrival.as_ref().map(|own| own.median_ms)));
        set("pulse.arrival_spread_ms", value(arrival.as_ref().map(|own| own.spread_ms)));
        let deficit = arrival.as_ref().map(|own| own.unpaired as f64 / peaks.len().max(1) as f64);
        set("pulse.deficit", value(deficit));
    }
    let breathing = respiration_rate(&Signals {
        rate,
        impedance: impedance.as_deref(),
        ppg: Some(samples),
        ecg: ecg.as_deref(),
    });
    let (rate, quality) = match breathing {
        Ok(found) => (Feature::value(found.rate), Feature::value(found.quality)),
        Err(Refusal::PoorQuality { quality, .. }) => {
            (Feature::missing(Missing::PoorQuality), Feature::value(quality))
        }
        Err(Refusal::Disagreement { .. }) => {
            (Feature::missing(Missing::PoorQuality), Feature::missing(Missing::PoorQuality))
        }
        Err(_) => (Feature::missing(Missing::TooFew), Feature::missing(Missing::TooFew)),
    };
    set("breathing.rate", rate);
    set("breathing.quality", quality);
    features
}

/// Samples received of those from the first one on.
fn continuity(samples: &[f32]) -> f64 {
    let first = samples.iter().position(|value| value.is_finite());
    first.map_or(0.0, |first| coverage(&samples[first..]))
}

/// A curve at another rate, by linear interpolation; NaN beside a gap.
fn onto(samples: &[f32], from: SampleRate, to: SampleRate, count: usize) -> Vec<f32> {
    if from == to && samples.len() == count {
        return samples.to_vec();
    }
    let step = from.hz() / to.hz();
    let at = |place: usize| samples.get(place).copied().unwrap_or(f32::NAN);
    (0..count)
        .map(|place| {
            let exact = place as f64 * step;
            let (before, share) = (exact as usize, exact.fract() as f32);
            match share {
                0.0 => at(before),
                share => at(before) * (1.0 - share) + at(before + 1) * share,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pipeline;
    use haar_recordings::bidmc::{RATE_HZ, Recording, is_part, names};
    use haar_recordings::corpus::Corpus;

    fn pipeline() -> Pipeline {
        let own = crate::OPTIONAL.into_iter().find(|(name, _)| *name == "pulse.toml");
        let (name, text) = own.unwrap();
        Pipeline::parse(name, text).unwrap()
    }

    #[test]
    fn nothing_received_is_no_data() {
        let features = pipeline().describe_pulse(&[]);
        assert_eq!(features["pulse.coverage"], Feature::Value(0.0));
        assert_eq!(features["pulse.rate"], Feature::missing(Missing::NoData));
        assert_eq!(features["breathing.rate"], Feature::missing(Missing::NoData));
        let names: Vec<String> = pipeline().features().into_iter().map(|doc| doc.name).collect();
        assert_eq!(features.len(), names.len());
        assert!(names.iter().all(|name| features.contains_key(name)));
    }

    #[test]
    fn a_curve_of_another_rate_is_laid_on_the_grid() {
        let rate = |hz| SampleRate::from_hz(hz).unwrap();
        let twice = onto(&[0.0, 1.0, 2.0, f32::NAN], rate(50), rate(100), 8);
        assert_eq!(twice[..5], [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert!(twice[5..].iter().all(|value| value.is_nan()));
        assert_eq!(onto(&[0.0, 1.0, 2.0, 3.0], rate(100), rate(50), 2), [0.0, 2.0]);
    }

    /// Half minutes of 53 intensive-care recordings: the pulse rate is the monitor's, and the breaths are those that people marked.
    #[test]
    fn recorded_pulses_and_breaths_are_those_of_monitor_and_people() {
        let data =
            std::env::var("HAAR_DATA").expect("set HAAR_DATA to the folder that holds bidmc/");
        let folder = std::path::Path::new(&data).join("bidmc");
        let corpus = Corpus::open(&folder, "a recording", is_part).unwrap();
        let (pipeline, rate) = (pipeline(), SampleRate::from_hz(RATE_HZ).unwrap());
        let (mut pulse, mut breaths, mut deficits) = (Vec::new(), Vec::new(), Vec::new());
        let mut windows = 0;
        for name in names(&corpus) {
            let recording = Recording::read(&corpus, &name).unwrap();
            let Some(numerics) = &recording.numerics else { continue };
            for from_s in (0..450).step_by(90) {
                let range = from_s * RATE_HZ as usize..(from_s + 30) * RATE_HZ as usize;
                let curve = |signal, column| {
                    let samples = recording.signal(column)?.get(range.clone())?;
                    Some(Curve { signal, rate, samples })
                };
                let curves: Vec<Curve<'_>> = [
                    curve(SignalId::PPG, "PLETH"),
                    curve(SignalId::ECG, "II"),
                    curve(SignalId::RESPIRATION, "RESP"),
                ]
                .into_iter()
                .flatten()
                .collect();
                let features = pipeline.describe_pulse(&curves);
                let value = |name: &str| features[name].get();
                windows += 1;
                let shown = numerics.pulse_rate[from_s + 15];
                if value("pulse.acceptable") == Some(1.0) && shown.is_finite() {
                    pulse.extend(value("pulse.rate").map(|own| (own - f64::from(shown)).abs()));
                    deficits.extend(value("pulse.deficit"));
                }
                let marked = recording.breaths[0].iter().filter(|at| range.contains(at)).count();
                if let Some(own) = value("breathing.rate") {
                    breaths.push((own - 2.0 * marked as f64).abs());
                }
            }
        }
        let within = |errors: &[f64], most: f64| {
            errors.iter().filter(|error| **error <= most).count() as f64 / errors.len() as f64
        };
        println!("{windows} windows, {} pulses, {} breaths", pulse.len(), breaths.len());
        println!(
            "{:.3} {:.3} {:.3}",
            within(&pulse, 3.0),
            within(&breaths, 3.0),
            within(&deficits, 0.1)
        );
        assert!(pulse.len() * 10 >= windows * 6 && within(&pulse, 3.0) >= 0.95);
        assert!(breaths.len() * 10 >= windows * 7 && within(&breaths, 3.0) >= 0.85);
        assert!(within(&deficits, 0.1) >= 0.85);
    }
}
