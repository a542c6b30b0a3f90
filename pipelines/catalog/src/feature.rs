//! The features that windows have, by family: names, units and meanings, in one table.
//!
//! Validation, suggestions and the README's table are all made from [`features`].

use crate::Family;
use crate::device::faults;
use crate::diagnostics::did_you_mean;
use crate::group::Group;
use haar_inference::faults::FaultKind;
use haar_schema::{SignalId, SignalKind, SignalSet};

/// One feature, as documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeatureDoc {
    /// Dotted name, such as `heart_rate.mean`.
    pub name: String,
    /// UCUM unit; `1` for a share, a count or a score.
    pub unit: String,
    /// What it is.
    pub meaning: String,
}

/// Statistics of one scalar signal: suffix, unit (`@` stands for the signal's), meaning.
const STATISTICS: [(&str, &str, &str); 7] = [
    ("mean", "@", "arithmetic mean of the readings"),
    ("min", "@", "smallest reading"),
    ("max", "@", "largest reading"),
    ("standard_deviation", "@", "sample standard deviation (n − 1); missing below 2 readings"),
    ("slope_per_min", "@/min", "least-squares slope; missing without two different times"),
    ("coverage", "1", "readings seen of those expected (`rate_hz` × size), at most 1"),
    (
        "continuity",
        "1",
        "readings seen of those expected in the time they span, at most 1: low where there are holes, but not at the beginning of a stay",
    ),
];

/// Signals that enter the early warning score.
pub(crate) const NEWS2_SIGNALS: [SignalId; 5] = [
    SignalId::RESPIRATION_RATE,
    SignalId::SPO2,
    SignalId::SYSTOLIC,
    SignalId::HEART_RATE,
    SignalId::TEMPERATURE,
];

const NEWS2: [(&str, &str, &str); 3] = [
    ("news2.lower", "1", "least NEWS2 total that the known parameters allow: unknown ones count 0"),
    ("news2.upper", "1", "greatest NEWS2 total: unknown parameters count their maximum"),
    ("news2.score", "1", "NEWS2 total (RCP 2017); missing while a parameter is unknown"),
];

const ECG: [(&str, &str, &str); 9] = [
    ("ecg.heart_rate", "/min", "mean rate over all plausible RR intervals"),
    ("ecg.rmssd_ms", "ms", "root mean square of the differences of adjacent normal RR intervals"),
    ("ecg.sdnn_ms", "ms", "standard deviation (n − 1) of the normal RR intervals"),
    ("ecg.ectopic_fraction", "1", "share of beats that come early and are followed by a pause"),
    (
        "ecg.rr_irregularity",
        "1",
        "coefficient of sample entropy of the RR intervals; atrial fibrillation lies above −1.4",
    ),
    ("ecg.quality", "1", "signal-quality index, 0 (worthless) to 1"),
    ("ecg.coverage", "1", "samples received of those in the window"),
    (
        "ecg.continuity",
        "1",
        "samples received of those from the first one to the window's end: the beginning of a stay is no gap; 0 without one",
    ),
    ("ecg.beats", "1", "R peaks found"),
];

const BEATS: [(&str, &str, &str); 7] = [
    ("beats.fraction_n", "1", "share of scored beats in AAMI class N (normal and bundle branch)"),
    ("beats.fraction_s", "1", "share in class S (supraventricular ectopic)"),
    ("beats.fraction_v", "1", "share in class V (ventricular ectopic)"),
    ("beats.fraction_f", "1", "share in class F (fusion of ventricular and normal)"),
    ("beats.fraction_q", "1", "share in class Q (paced or unclassifiable)"),
    ("beats.run_v", "1", "beats in the longest run of class V without another beat in between"),
    ("beats.run_v_rate", "/min", "mean rate within that run; missing if it has fewer than 3 beats"),
];

const RHYTHM: [(&str, &str, &str); 4] = [
    ("rhythm.normal", "1", "probability of sinus rhythm by the model; the four sum to 1"),
    ("rhythm.fibrillation", "1", "probability of atrial fibrillation"),
    ("rhythm.other", "1", "probability of another rhythm"),
    ("rhythm.noisy", "1", "probability that the rhythm cannot be told"),
];

const PULSE: [(&str, &str, &str); 9] = [
    ("pulse.rate", "/min", "mean pulse rate over even intervals"),
    ("pulse.sdnn_ms", "ms", "standard deviation (n − 1) of the intervals between pulses"),
    ("pulse.rmssd_ms", "ms", "root mean square of the differences of adjacent intervals"),
    (
        "pulse.perfusion_index",
        "%",
        "median pulse height by level; missing where the device has taken the level off",
    ),
    ("pulse.pulses", "1", "pulses found"),
    ("pulse.correlation", "1", "how alike the pulses are: mean correlation with their mean"),
    (
        "pulse.acceptable",
        "1",
        "1 if rate, gaps, intervals and likeness are those of a pulse (Orphanidou 2015), else 0",
    ),
    ("pulse.coverage", "1", "samples received of those in the window"),
    (
        "pulse.continuity",
        "1",
        "samples received of those from the first one to the window's end; 0 without one",
    ),
];

const ARRIVAL: [(&str, &str, &str); 3] = [
    ("pulse.arrival_ms", "ms", "median time from the R peak to the foot of its pulse"),
    ("pulse.arrival_spread_ms", "ms", "median absolute deviation of that"),
    ("pulse.deficit", "1", "share of R peaks that no pulse follows"),
];

const BREATHING: [(&str, &str, &str); 2] = [
    (
        "breathing.rate",
        "/min",
        "breaths, fused from plethysmogram, ECG and impedance, as far as they are there",
    ),
    ("breathing.quality", "1", "how far to believe it, 0 to 1"),
];

/// All families.
const FAMILIES: [Family; 4] = [Family::Vitals, Family::Ecg, Family::Device, Family::Pulse];

/// A model that classifies beats, as do all but [`RHYTHM_MODEL`].
const BEATS_MODEL: &str = "ecg-beats";

/// The model that judges the rhythm of a window; every other one classifies beats.
pub(crate) const RHYTHM_MODEL: &str = "ecg-rhythm";

/// Features of a window of that family over these signals, in a fixed order.
///
/// `vitals`: seven statistics of each scalar signal, and NEWS2 if one of its signals is there. `ecg`:
/// rhythm and quality, and from the model, if there is one, `rhythm.*` if it is `ecg-rhythm`, else `beats.*`. `device`: the probability of each fault of
/// each scalar signal. `pulse`: the pulses and the breathing in them, and if there is an ECG how long they travel. The groups come last.
pub fn features(
    family: Family,
    signals: SignalSet,
    model: Option<&str>,
    groups: &[Group],
) -> Vec<FeatureDoc> {
    let mut table = always(family, signals, model);
    table.extend(groups.iter().flat_map(|group| group.table()).map(row));
    table
}

fn always(family: Family, signals: SignalSet, model: Option<&str>) -> Vec<FeatureDoc> {
    match family {
        Family::Vitals => vitals(signals),
        Family::Pulse => {
            let beside = signals.contains(SignalId::ECG);
            let rows = PULSE.iter().chain(ARRIVAL.iter().filter(|_| beside)).chain(&BREATHING);
            rows.map(row).collect()
        }
        Family::Ecg => {
            let said: &[_] = match model {
                Some(RHYTHM_MODEL) => &RHYTHM,
                Some(_) => &BEATS,
                None => &[],
            };
            ECG.iter().chain(said).map(row).collect()
        }
        Family::Device => {
            faults(signals).map(|(signal, kind, name)| fault(signal, kind, name)).collect()
        }
    }
}

/// Whether a feature comes from the model and not from the signal alone.
pub(crate) fn is_from_model(name: &str) -> bool {
    let is_fault = || {
        let suffix = name.split_once('.').map(|(_, suffix)| suffix);
        FaultKind::ALL.iter().any(|kind| suffix == Some(kind.name()))
    };
    name.starts_with("beats.") || name.starts_with("rhythm.") || is_fault()
}

fn fault(signal: SignalId, kind: FaultKind, name: String) -> FeatureDoc {
    let meaning = match kind {
        FaultKind::Sound => "nothing is wrong",
        FaultKind::Stuck => "the last good value is repeated",
        FaultKind::Drift => "the values move slowly away from the truth",
        FaultKind::Spike => "single values are far off",
        FaultKind::Noise => "the values scatter much more than they did",
        FaultKind::Dropout => "readings are missing",
        FaultKind::Detached => "the sensor is off its subject: another level altogether",
        FaultKind::Clock => "the time stamps stand still, run wrong, or jump and return",
    };
    let title = signal.definition().title;
    FeatureDoc {
        name,
        unit: "1".to_owned(),
        meaning: format!("{title}: probability, over the likeliest stretch, that {meaning}"),
    }
}

fn vitals(signals: SignalSet) -> Vec<FeatureDoc> {
    let mut table = Vec::new();
    let scalars = signals.iter().filter(|signal| signal.definition().kind == SignalKind::Scalar);
    for signal in scalars {
        let definition = signal.definition();
        table.extend(STATISTICS.iter().map(|(suffix, unit, meaning)| FeatureDoc {
            name: format!("{}.{suffix}", definition.name),
            unit: unit.replace('@', definition.unit),
            meaning: format!("{}: {meaning}", definition.title),
        }));
    }
    if NEWS2_SIGNALS.iter().any(|signal| signals.contains(*signal)) {
        table.extend(NEWS2.iter().map(row));
    }
    table
}

fn row((name, unit, meaning): &(&str, &str, &str)) -> FeatureDoc {
    FeatureDoc {
        name: (*name).to_owned(),
        unit: (*unit).to_owned(),
        meaning: (*meaning).to_owned(),
    }
}

/// The names that the rules of one definition may use.
pub(crate) struct Vocabulary {
    family: Option<Family>,
    known: Vec<FeatureDoc>,
}

impl Vocabulary {
    /// `signals_are_known`: the list of signals has no mistake. If it has, a feature of a signal that is
    /// not in the list is no second mistake.
    pub(crate) fn new(
        family: Option<Family>,
        signals: SignalSet,
        signals_are_known: bool,
        model: Option<&str>,
        groups: &[Group],
    ) -> Self {
        let signals = if signals_are_known { signals } else { SignalId::all().collect() };
        let known = match family {
            Some(family) => features(family, signals, model, groups),
            None => FAMILIES
                .iter()
                .flat_map(|family| always(*family, signals, model.or(Some(BEATS_MODEL))))
                .chain(Group::ALL.iter().flat_map(|group| group.table()).map(row))
                .collect(),
        };
        Self { family, known }
    }

    /// Accepts a name, or says what is wrong with it and what to write.
    pub(crate) fn check(&self, name: &str) -> Result<(), (String, Option<String>)> {
        if self.known.iter().any(|feature| feature.name == name) {
            return Ok(());
        }
        let names = || self.known.iter().map(|feature| feature.name.as_str());
        let Some((signal, _)) = name.split_once('.') else {
            let prefix = format!("{name}.");
            let example = names().find(|known| known.starts_with(&prefix));
            let suggestion = example
                .map(|example| format!("name one of its features, such as `{example}`"))
                .or_else(|| did_you_mean(name, names()));
            return Err((format!("`{name}` is no feature"), suggestion));
        };
        let undeclared = SignalId::by_name(signal)
            .filter(|_| !names().any(|known| known.split('.').next() == Some(signal)))
            .filter(|id| {
                let one: SignalSet = [*id].into_iter().collect();
                let own = self.family.unwrap_or(Family::Vitals);
                always(own, one, None).iter().any(|doc| doc.name == name)
            });
        let said = [(BEATS_MODEL, &BEATS[..]), (RHYTHM_MODEL, &RHYTHM[..])];
        let model = said.iter().find(|(_, own)| own.iter().any(|(own, ..)| *own == name));
        if let (Some(Family::Ecg), Some((model, _))) = (self.family, model) {
            return Err((
                format!(
                    "`{name}` comes from the model `{model}`, which this pipeline does not have"
                ),
                Some(format!("write `[model]` with `id = \"{model}\"`")),
            ));
        }
        // In a definition that does not say its family every group is known.
        let group = Group::ALL.iter().find(|group| {
            Some(group.family()) == self.family
                && group.table().iter().any(|(own, ..)| *own == name)
        });
        if let Some(group) = group {
            let group = group.as_str();
            return Err((
                format!("`{name}` is a feature that windows have only where it is asked for"),
                Some(format!("add `features = [\"{group}\"]` before the first table")),
            ));
        }
        match undeclared {
            Some(_) => Err((
                format!("`{name}` needs the signal `{signal}`, which this pipeline does not have"),
                Some(format!("add a `[[signals]]` with `name = \"{signal}\"`")),
            )),
            None => match other_family(name) {
                Some(family) => Err((
                    format!("`{name}` is a feature of family `{family}`, not of this pipeline"),
                    None,
                )),
                None => Err((format!("unknown feature `{name}`"), did_you_mean(name, names()))),
            },
        }
    }
}

/// The family that has the feature over some signals.
fn other_family(name: &str) -> Option<Family> {
    let has = |family: Family| {
        let of_group = Group::ALL.iter().filter(|group| group.family() == family);
        always(family, SignalId::all().collect(), Some(BEATS_MODEL))
            .iter()
            .any(|feature| feature.name == name)
            || of_group.flat_map(|group| group.table()).any(|(own, ..)| *own == name)
    };
    FAMILIES.into_iter().find(|family| has(*family))
}
