//! A window of vital signs as features.

use crate::WindowSpec;
use crate::feature::NEWS2_SIGNALS;
use crate::group::{self, Group};
use haar_schema::{Feature, Features, Missing, SampleRate, SignalId};
use haar_signals::moments::Moments;
use haar_signals::news2::{Inputs, News2, SpO2Scale, news2};

/// The features of one window. Every feature that [`crate::features`] lists is in the result.
pub(crate) fn describe(
    rates: impl Iterator<Item = (SignalId, SampleRate)>,
    window: WindowSpec,
    series: &[(SignalId, Moments)],
    groups: &[Group],
) -> Features {
    let mut features = Features::new();
    let mut scored = false;
    for (signal, rate) in rates {
        let seen = series.iter().find(|(other, _)| *other == signal).map(|(_, moments)| *moments);
        statistics(&mut features, signal, rate, window, &seen.unwrap_or_default());
        scored |= NEWS2_SIGNALS.contains(&signal);
    }
    if scored {
        early_warning(&mut features, SpO2Scale::One);
    }
    group::describe_vitals(&mut features, groups);
    features
}

/// NEWS2 of the means in the window. A monitor has no way to tell consciousness, so the score is never
/// complete; its bounds say what holds all the same. Saturation is on scale 1 unless a clinician has decided otherwise (RCP
/// 2017: scale 2 is for hypercapnic respiratory failure).
pub(crate) fn early_warning(features: &mut Features, spo2_scale: SpO2Scale) {
    let mean = |signal: SignalId| {
        features.get(&format!("{}.mean", signal.name())).and_then(|feature| feature.get())
    };
    let News2 { lower, upper, score, .. } = news2(&Inputs {
        respiration_rate: mean(SignalId::RESPIRATION_RATE),
        spo2: mean(SignalId::SPO2),
        spo2_scale,
        supplemental_oxygen: mean(SignalId::OXYGEN_FLOW).map(|flow| flow > 0.0),
        systolic_mmhg: mean(SignalId::SYSTOLIC),
        heart_rate: mean(SignalId::HEART_RATE),
        consciousness: None,
        temperature_celsius: mean(SignalId::TEMPERATURE),
    });
    // Without any reading the bounds are those of the chart, which is to say nothing.
    let known = NEWS2_SIGNALS.iter().any(|signal| mean(*signal).is_some());
    let bound = |points: u8| match known {
        true => Feature::value(f64::from(points)),
        false => Feature::missing(Missing::NoData),
    };
    let score = score
        .map_or(Feature::missing(Missing::Incomplete), |points| Feature::value(f64::from(points)));
    for (name, feature) in [("lower", bound(lower)), ("upper", bound(upper)), ("score", score)] {
        features.insert(format!("news2.{name}"), feature);
    }
}

fn statistics(
    features: &mut Features,
    signal: SignalId,
    rate: SampleRate,
    window: WindowSpec,
    moments: &Moments,
) {
    // Without a reading there is no data; with one, what is missing needs more of them.
    let reason = if moments.count() == 0 { Missing::NoData } else { Missing::TooFew };
    let mut add = |statistic: &str, value: Option<f64>| {
        let feature = value.map_or(Feature::missing(reason), Feature::value);
        features.insert(format!("{}.{statistic}", signal.name()), feature);
    };
    add("mean", moments.mean());
    add("min", moments.min());
    add("max", moments.max());
    add("standard_deviation", moments.standard_deviation());
    add("slope_per_min", moments.slope_per_s().map(|slope| slope * 60.0));
    // No reading is known to be none: coverage is zero then, and not missing.
    add("coverage", Some(coverage(moments.count(), rate, window.size_us)));
    let spanned = moments.evenly_spaced(rate.hz());
    add("continuity", spanned.map(|expected| (moments.count() as f64 / expected).min(1.0)));
}

/// Readings seen of those expected, at most 1. A signal that is expected less than once a window is
/// covered by one reading.
fn coverage(seen: u64, rate: SampleRate, size_us: i64) -> f64 {
    let expected = (rate.hz() * size_us as f64 * 1e-6).max(1.0);
    (seen as f64 / expected).min(1.0)
}

#[cfg(test)]
mod tests;
