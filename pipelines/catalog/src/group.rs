//! Groups of features that windows have only where their definition names them (`features = ["hrv", "st"]`): they cost
//! work and bytes in every digest, and not every ward acts on them.

use crate::Family;
use haar_schema::{Feature, Features, Missing, SampleRate, SignalId};
use haar_signals::ecg::qt::{Correction, QtError, qt_intervals, summarise};
use haar_signals::ecg::st::{StError, median_st};
use haar_signals::ecg::{Delineation, RrSeries, delineate, hrv};
use haar_signals::scores::{
    MewsInputs, PartialScore, QsofaInputs, ShockInputs, mews, qsofa, shock_index,
};

/// HRV of a window in which fewer of the intervals are normal says little (see [`haar_signals::ecg::NnSeries::kept`]).
const MIN_KEPT: f64 = 0.9;
/// A lead in which QT scatters by more shows no clear T wave (see [`haar_signals::ecg::qt::QtSummary`]).
const MAX_QT_SPREAD_MS: f64 = 60.0;

/// A group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// Heart-rate variability: in time, in frequency, non-linear.
    Hrv,
    /// Level and slope of the ST segment.
    St,
    /// QT interval, corrected for the heart rate.
    Qt,
    /// Quick SOFA.
    Qsofa,
    /// Modified Early Warning Score.
    Mews,
    /// Heart rate over pressure.
    ShockIndex,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Hrv, Self::St, Self::Qt, Self::Qsofa, Self::Mews, Self::ShockIndex];

    /// The word in a definition, and in front of the features' names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hrv => "hrv",
            Self::St => "st",
            Self::Qt => "qt",
            Self::Qsofa => "qsofa",
            Self::Mews => "mews",
            Self::ShockIndex => "shock_index",
        }
    }

    /// Whose windows can have it.
    pub const fn family(self) -> Family {
        match self {
            Self::Hrv | Self::St | Self::Qt => Family::Ecg,
            Self::Qsofa | Self::Mews | Self::ShockIndex => Family::Vitals,
        }
    }

    /// Names, units and meanings of its features.
    pub(crate) const fn table(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Self::Hrv => &HRV,
            Self::St => &ST,
            Self::Qt => &QT,
            Self::Qsofa => &QSOFA,
            Self::Mews => &MEWS,
            Self::ShockIndex => &SHOCK,
        }
    }
}

const HRV: [(&str, &str, &str); 11] = [
    (
        "hrv.kept",
        "1",
        "RR intervals that are normal, of all; the rest of `hrv.*` is missing below 0.9",
    ),
    ("hrv.pnn50_percent", "%", "successive differences of more than 50 ms"),
    ("hrv.triangular_index", "1", "intervals per interval in the fullest bin of 1/128 s"),
    ("hrv.lf_ms2", "ms2", "power from 0.04 to 0.15 Hz (Lomb–Scargle); needs a long window"),
    ("hrv.hf_ms2", "ms2", "power from 0.15 to 0.4 Hz"),
    ("hrv.lf_hf", "1", "LF by HF"),
    (
        "hrv.hf_peak_hz",
        "Hz",
        "where HF is highest: near the breathing rate, if that lies in the band",
    ),
    ("hrv.sd1_ms", "ms", "width of the Poincaré plot"),
    ("hrv.sd2_ms", "ms", "length of the Poincaré plot"),
    ("hrv.sample_entropy", "1", "sample entropy in nats, m = 2, r = 0.2 standard deviations"),
    ("hrv.dfa_alpha1", "1", "short-term scaling exponent of detrended fluctuation analysis"),
];

const ST: [(&str, &str, &str); 3] = [
    (
        "st.level_mv",
        "mV",
        "median beat, 80 ms (60 at a high rate) behind the J point, above the isoelectric line",
    ),
    ("st.slope_mv_per_s", "mV/s", "slope from the J point to there"),
    ("st.beats", "1", "beats that the median is of"),
];

const QT: [(&str, &str, &str); 5] = [
    (
        "qt.qt_ms",
        "ms",
        "median QT by the tangent; missing if the beats' QT scatter by more than 60 ms",
    ),
    ("qt.qtc_fridericia_ms", "ms", "QT corrected by the cube root of RR"),
    (
        "qt.qtc_bazett_ms",
        "ms",
        "QT corrected by the square root of RR: too long at high rates, too short at low ones",
    ),
    ("qt.spread_ms", "ms", "between the quartiles of the beats' QT"),
    ("qt.beats", "1", "beats that were measured"),
];

const QSOFA: [(&str, &str, &str); 3] = [
    ("qsofa.lower", "1", "least quick SOFA that the known criteria allow"),
    ("qsofa.upper", "1", "greatest quick SOFA: unknown criteria count"),
    ("qsofa.score", "1", "quick SOFA (Singer 2016); missing while a criterion is unknown"),
];

const MEWS: [(&str, &str, &str); 3] = [
    ("mews.lower", "1", "least MEWS that the known parameters allow"),
    ("mews.upper", "1", "greatest MEWS: unknown parameters count their maximum"),
    ("mews.score", "1", "MEWS (Subbe 2001); missing while a parameter is unknown"),
];

const SHOCK: [(&str, &str, &str); 2] = [
    (
        "shock_index.index",
        "1",
        "heart rate by systolic pressure (Allgöwer 1967), per minute and mmHg",
    ),
    (
        "shock_index.modified",
        "1",
        "heart rate by mean arterial pressure (Liu 2012), per minute and mmHg",
    ),
];

/// Adds the groups of a window of ECG. `peaks` are its R peaks, `rhythm` the intervals between them; `usable`: the signal is good enough for what is computed from them.
pub(crate) fn describe_ecg(
    features: &mut Features,
    groups: &[Group],
    (mv, rate): (&[f32], SampleRate),
    (peaks, rhythm): (&[usize], &RrSeries),
    usable: bool,
) {
    let no_data = peaks.is_empty() && mv.iter().all(|mv| !mv.is_finite());
    let refuse = |features: &mut Features, group: Group, why: Missing| {
        for (name, ..) in group.table() {
            features.insert((*name).to_owned(), Feature::missing(why));
        }
    };
    let wanted = |group| groups.contains(&group);
    let beats = match usable && (wanted(Group::St) || wanted(Group::Qt)) {
        true => delineate(mv, rate, peaks),
        false => Vec::new(),
    };
    for group in groups {
        // What is not computed is missing for this reason.
        let why = match (no_data, usable) {
            (true, _) => Missing::NoData,
            (_, false) => Missing::PoorQuality,
            _ => Missing::TooFew,
        };
        refuse(features, *group, why);
        match group {
            Group::Hrv if usable => variability(features, rhythm),
            Group::St if usable => st(features, mv, rate, &beats),
            Group::Qt if usable => qt(features, mv, rate, &beats),
            _ => {}
        }
    }
}

fn set(features: &mut Features, name: &str, value: Option<f64>) {
    if let Some(value) = value {
        features.insert(name.to_owned(), Feature::value(value));
    }
}

fn variability(features: &mut Features, rhythm: &RrSeries) {
    let nn = rhythm.nn();
    let Some(kept) = nn.kept() else { return };
    if kept < MIN_KEPT {
        for (name, ..) in Group::Hrv.table() {
            features.insert((*name).to_owned(), Feature::missing(Missing::PoorQuality));
        }
        set(features, "hrv.kept", Some(kept));
        return;
    }
    let (time, frequency) = (hrv::time_domain(&nn).ok(), hrv::frequency_domain(&nn).ok());
    let plot = hrv::poincare(&nn).ok();
    for (name, value) in [
        ("hrv.kept", Some(kept)),
        ("hrv.pnn50_percent", time.map(|own| own.pnn50_percent)),
        ("hrv.triangular_index", time.map(|own| own.triangular_index)),
        ("hrv.lf_ms2", frequency.and_then(|own| own.lf_ms2)),
        ("hrv.hf_ms2", frequency.map(|own| own.hf_ms2)),
        ("hrv.lf_hf", frequency.and_then(|own| own.lf_hf)),
        ("hrv.hf_peak_hz", frequency.map(|own| own.hf_peak_hz)),
        ("hrv.sd1_ms", plot.map(|own| own.sd1_ms)),
        ("hrv.sd2_ms", plot.map(|own| own.sd2_ms)),
        ("hrv.sample_entropy", hrv::sample_entropy(&nn).ok()),
        ("hrv.dfa_alpha1", hrv::dfa_alpha1(&nn).ok()),
    ] {
        set(features, name, value);
    }
}

fn st(features: &mut Features, mv: &[f32], rate: SampleRate, beats: &[Delineation]) {
    match median_st(mv, rate, beats) {
        Ok(found) => {
            set(features, "st.level_mv", Some(found.level_mv));
            set(features, "st.slope_mv_per_s", Some(found.slope_mv_per_s));
            set(features, "st.beats", Some(found.beats as f64));
        }
        Err(StError::TooFewBeats { found }) => set(features, "st.beats", Some(found as f64)),
        Err(_) => {}
    }
}

fn qt(features: &mut Features, mv: &[f32], rate: SampleRate, beats: &[Delineation]) {
    match summarise(&qt_intervals(mv, rate, beats)) {
        Ok(found) => {
            set(features, "qt.spread_ms", Some(found.spread_ms));
            set(features, "qt.beats", Some(found.beats as f64));
            let corrected = |correction: Correction| correction.qtc_ms(found.qt_ms, found.rr_ms);
            for (name, value) in [
                ("qt.qt_ms", found.qt_ms),
                ("qt.qtc_fridericia_ms", corrected(Correction::Fridericia)),
                ("qt.qtc_bazett_ms", corrected(Correction::Bazett)),
            ] {
                let feature = match found.spread_ms <= MAX_QT_SPREAD_MS {
                    true => Feature::value(value),
                    false => Feature::missing(Missing::PoorQuality),
                };
                features.insert(name.to_owned(), feature);
            }
        }
        Err(QtError::TooFewBeats { found }) => set(features, "qt.beats", Some(found as f64)),
        Err(_) => {}
    }
}

/// Adds the groups of a window of vital signs, from the means that are in it. Monitors cannot tell consciousness.
pub(crate) fn describe_vitals(features: &mut Features, groups: &[Group]) {
    let mean = |signal: SignalId| {
        features.get(&format!("{}.mean", signal.name())).and_then(|feature| feature.get())
    };
    let heart_rate = mean(SignalId::HEART_RATE);
    let respiration_rate = mean(SignalId::RESPIRATION_RATE);
    let (systolic, diastolic) = (mean(SignalId::SYSTOLIC), mean(SignalId::DIASTOLIC));
    let temperature = mean(SignalId::TEMPERATURE);
    let mut found = Vec::new();
    for group in groups {
        match group {
            Group::Qsofa => {
                let known = respiration_rate.is_some() || systolic.is_some();
                let (systolic_mmhg, consciousness) = (systolic, None);
                let inputs = QsofaInputs { respiration_rate, systolic_mmhg, consciousness };
                found.extend(bounds("qsofa", &qsofa(&inputs), known));
            }
            Group::Mews => {
                let inputs = MewsInputs {
                    systolic_mmhg: systolic,
                    heart_rate,
                    respiration_rate,
                    temperature_celsius: temperature,
                    consciousness: None,
                };
                let all = [systolic, heart_rate, respiration_rate, temperature];
                found.extend(bounds("mews", &mews(&inputs), all.iter().any(Option::is_some)));
            }
            Group::ShockIndex => {
                let indices = shock_index(&ShockInputs {
                    heart_rate,
                    systolic_mmhg: systolic,
                    diastolic_mmhg: diastolic,
                    ..ShockInputs::default()
                });
                let all = [heart_rate, systolic, diastolic];
                let why = match all.iter().any(Option::is_some) {
                    true => Missing::Incomplete,
                    false => Missing::NoData,
                };
                for (name, range) in [("index", indices.index), ("modified", indices.modified)] {
                    let value = range.value().map_or(Feature::missing(why), Feature::value);
                    found.push((format!("shock_index.{name}"), value));
                }
            }
            // Of another family.
            Group::Hrv | Group::St | Group::Qt => {}
        }
    }
    features.extend(found);
}

/// A score with its bounds; without any reading those of the chart say nothing.
fn bounds<P: Copy>(
    name: &str,
    score: &PartialScore<P>,
    known: bool,
) -> impl Iterator<Item = (String, Feature)> {
    let bound = |points: u8| match known {
        true => Feature::value(f64::from(points)),
        false => Feature::missing(Missing::NoData),
    };
    let whole = score.score.map(|points| Feature::value(f64::from(points)));
    [
        (format!("{name}.lower"), bound(score.lower)),
        (format!("{name}.upper"), bound(score.upper)),
        (format!("{name}.score"), whole.unwrap_or(Feature::missing(Missing::Incomplete))),
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pipeline;
    use haar_signals::moments::Moments;

    fn optional(file: &str) -> Pipeline {
        let (name, text) = crate::OPTIONAL.into_iter().find(|(name, _)| *name == file).unwrap();
        Pipeline::parse(name, text).unwrap()
    }

    /// P, QRS and T, with ST this high, at 75 beats a minute whose intervals swing by 40 ms within four seconds.
    fn ecg(seconds: usize, st_mv: f64) -> Vec<f32> {
        let waves = [
            (-0.17, 0.022, 0.15),
            (-0.028, 0.009, -0.12),
            (0.0, 0.011, 1.1),
            (0.03, 0.01, -0.25),
            (0.27, 0.045, 0.3),
        ];
        let mut beats = vec![0.4];
        while beats[beats.len() - 1] < seconds as f64 {
            let at = beats[beats.len() - 1];
            beats.push(at + 0.8 + 0.02 * (std::f64::consts::TAU * at / 4.0).sin());
        }
        (0..seconds * 250)
            .map(|sample| {
                let time = sample as f64 / 250.0;
                let near = beats.iter().filter(|beat| (**beat - time).abs() < 0.7);
                near.map(|beat| {
                    let since = time - beat;
                    let raised = match since {
                        0.05..0.16 => st_mv,
                        _ => 0.0,
                    };
                    raised
                        + waves
                            .iter()
                            .map(|(at, wide, high)| {
                                high * (-((since - at) / wide).powi(2) / 2.0).exp()
                            })
                            .sum::<f64>()
                })
                .sum::<f64>() as f32
            })
            .collect()
    }

    #[test]
    fn intervals_and_levels_of_an_ecg_are_features() {
        let rate = SampleRate::from_hz(250).unwrap();
        let pipeline = optional("ecg-intervals.toml");
        let names: Vec<String> = pipeline.features().into_iter().map(|doc| doc.name).collect();
        for (st_mv, flags) in
            [(0.0, vec![]), (-0.2, vec!["st-depression"]), (0.3, vec!["st-elevation"])]
        {
            let features = pipeline.describe_ecg(&ecg(300, st_mv), rate).features;
            assert!(
                names.iter().all(|name| features.contains_key(name))
                    && names.len() == features.len()
            );
            let value = |name: &str| features[name].get().unwrap_or(f64::NAN);
            assert!((value("st.level_mv") - st_mv).abs() < 0.05, "{}", value("st.level_mv"));
            // A swing of 20 ms within 4 s is 200 ms² at 0.25 Hz. The tangent to T meets the line 360 ms behind R.
            assert!((value("hrv.hf_peak_hz") - 0.25).abs() < 0.01, "{}", value("hrv.hf_peak_hz"));
            assert!((150.0..250.0).contains(&value("hrv.hf_ms2")), "{}", value("hrv.hf_ms2"));
            assert!(value("hrv.lf_hf") < 0.1 && value("hrv.kept") > 0.95);
            assert!((390.0..440.0).contains(&value("qt.qt_ms")), "{}", value("qt.qt_ms"));
            let decision = pipeline.decide(&features, None);
            assert_eq!(
                decision.raised.iter().map(|own| own.flag.as_str()).collect::<Vec<_>>(),
                flags
            );
        }
    }

    #[test]
    fn what_cannot_be_told_says_why() {
        let rate = SampleRate::from_hz(250).unwrap();
        let pipeline = optional("ecg-intervals.toml");
        let missing = |mv: &[f32], name: &str| pipeline.describe_ecg(mv, rate).features[name];
        let nothing = vec![f32::NAN; 75_000];
        for name in ["hrv.lf_ms2", "st.level_mv", "qt.qt_ms"] {
            assert_eq!(missing(&nothing, name), Feature::missing(Missing::NoData), "{name}");
            assert_eq!(missing(&ecg(2, 0.0), name), Feature::missing(Missing::TooFew), "{name}");
        }
        // What a whole definition does not ask for is not there.
        let (name, text) = crate::OPTIONAL[0];
        let other = Pipeline::parse(name, text).unwrap();
        assert!(!other.describe_ecg(&ecg(30, 0.0), rate).features.contains_key("st.level_mv"));
    }

    #[test]
    fn scores_have_bounds_and_flags_read_them() {
        let pipeline = optional("ward-scores.toml");
        let one = |value: f64| {
            let mut moments = Moments::default();
            (0..300).for_each(|second| moments.add(second * 1_000_000, value));
            moments
        };
        let series = [
            (SignalId::HEART_RATE, one(125.0)),
            (SignalId::RESPIRATION_RATE, one(24.0)),
            (SignalId::SYSTOLIC, one(95.0)),
        ];
        let features = pipeline.describe_vitals(&series);
        assert_eq!(features["qsofa.lower"], Feature::value(2.0));
        assert_eq!(features["qsofa.upper"], Feature::value(3.0));
        assert_eq!(features["qsofa.score"], Feature::missing(Missing::Incomplete));
        assert_eq!(features["mews.lower"], Feature::value(5.0));
        assert_eq!(features["shock_index.index"], Feature::value(125.0 / 95.0));
        assert_eq!(features["shock_index.modified"], Feature::missing(Missing::Incomplete));
        let raised = pipeline.decide(&features, None).raised;
        let raised: Vec<&str> = raised.iter().map(|own| own.flag.as_str()).collect();
        assert_eq!(raised, ["qsofa-positive", "mews-critical", "shock-index-high"]);
        let nothing = pipeline.describe_vitals(&[]);
        for name in ["qsofa.lower", "mews.upper", "shock_index.index"] {
            assert_eq!(nothing[name], Feature::missing(Missing::NoData), "{name}");
        }
    }
}
