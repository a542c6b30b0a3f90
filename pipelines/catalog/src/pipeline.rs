//! A checked pipeline and its decisions.

use crate::definition::{self, Definition};
use crate::device;
use crate::diagnostics::Diagnostics;
use crate::ecg::{self, EcgDescription};
use crate::feature::{FeatureDoc, features, is_from_model};
use crate::group::Group;
use crate::limits::Limits;
use crate::parameters::Parameters;
use crate::pulse::{self, Curve};
use crate::rule::Outcome;
use crate::vitals;
use crate::window::WindowSpec;
use haar_inference::BeatScore;
use haar_inference::faults::watch::Watched;
use haar_inference::rhythm::RhythmScore;
use haar_schema::{Evidence, Features, PipelineRef, Priority, SampleRate, SignalId, SignalSet};
use haar_signals::moments::Moments;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// What kind of windows a pipeline has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// Scalar signals, each described by its moments.
    Vitals,
    /// One ECG lead, described by its beats.
    Ecg,
    /// Scalar signals, each described by what a model says is wrong with its device.
    Device,
    /// A plethysmogram, described by its pulses; with an ECG beside it by the time that they travel, too.
    Pulse,
}

impl Family {
    /// The word in a definition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vitals => "vitals",
            Self::Ecg => "ecg",
            Self::Device => "device",
            Self::Pulse => "pulse",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A pipeline definition that has been read and checked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pipeline(Arc<Checked>);

#[derive(Debug)]
struct Checked {
    reference: PipelineRef,
    definition: Definition,
    signals: SignalSet,
}

/// One flag of a definition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlagDoc<'p> {
    /// Its name.
    pub name: &'p str,
    /// How soon somebody must act.
    pub priority: Priority,
    /// For a person.
    pub text: &'p str,
    /// The rule as written.
    pub rule: &'p str,
}

/// What the rules say about one window; each list in the order of the definition.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Decision {
    /// Flags whose rule holds.
    pub raised: Vec<Raised>,
    /// Flags whose rule could not be decided. They are not raised, and they are not all clear.
    pub undetermined: Vec<Undetermined>,
}

/// A flag whose rule holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Raised {
    /// The flag's name.
    pub flag: String,
    /// How soon somebody must act.
    pub priority: Priority,
    /// For a person.
    pub text: String,
    /// The rule as written.
    pub rule: String,
    /// The features that the rule names, sorted by name.
    pub evidence: Vec<Evidence>,
    /// Whether the rule reads what a model said.
    pub by_model: bool,
}

/// A flag whose rule could not be decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undetermined {
    /// The flag's name.
    pub flag: String,
    /// The features that were missing for it, sorted.
    pub missing: Vec<String>,
}

impl Pipeline {
    /// Reads a definition. `file_name` is what diagnostics call it; nothing is opened.
    ///
    /// # Errors
    /// Every mistake in the text.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Diagnostics> {
        let definition = definition::parse(file_name, text)?;
        let reference = PipelineRef {
            id: definition.id.clone(),
            version: definition.version,
            sha256: hex::encode(Sha256::digest(text)),
        };
        let signals = definition.signals.iter().map(|(signal, _)| *signal).collect();
        Ok(Self(Arc::new(Checked { reference, definition, signals })))
    }

    /// Its id, version, and the SHA-256 of its text.
    pub fn reference(&self) -> &PipelineRef {
        &self.0.reference
    }

    /// What people call it.
    pub fn title(&self) -> &str {
        &self.0.definition.title
    }

    /// What kind of windows it has.
    pub fn family(&self) -> Family {
        self.0.definition.family
    }

    /// How it cuts event time.
    pub fn window(&self) -> WindowSpec {
        self.0.definition.window
    }

    /// The signals that it reads; for [`Family::Ecg`] the ECG alone.
    pub fn signals(&self) -> SignalSet {
        self.0.signals
    }

    /// How many readings (or samples) of a signal a second are expected.
    pub fn expected(&self, signal: SignalId) -> Option<SampleRate> {
        self.rates().find(|(other, _)| *other == signal).map(|(_, rate)| rate)
    }

    /// The id of the model that scores its windows.
    pub fn model(&self) -> Option<&str> {
        self.0.definition.model.as_deref()
    }

    /// Its flags, in order.
    pub fn flags(&self) -> impl ExactSizeIterator<Item = FlagDoc<'_>> {
        self.0.definition.flags.iter().map(|flag| FlagDoc {
            name: &flag.name,
            priority: flag.priority,
            text: &flag.text,
            rule: flag.rule.text(),
        })
    }

    /// Every feature that its windows have, as value or as missing.
    pub fn features(&self) -> Vec<FeatureDoc> {
        features(self.family(), self.signals(), self.model(), self.groups())
    }

    /// The groups of features that its windows have beside those of the family.
    pub fn groups(&self) -> &[Group] {
        &self.0.definition.groups
    }

    /// Describes a window of [`Family::Vitals`] by the moments of its signals. A signal of the
    /// pipeline that is not in `series` has no data; one that is no signal of it is passed over.
    pub fn describe_vitals(&self, series: &[(SignalId, Moments)]) -> Features {
        vitals::describe(self.rates(), self.window(), series, self.groups())
    }

    /// Describes a window of [`Family::Device`] by what was found in the newest readings of its signals; `None`: too few to say
    /// anything. A signal of the pipeline that is not in `found` has no data.
    pub fn describe_devices(&self, found: &[(SignalId, Option<&Watched>)]) -> Features {
        device::describe(self.signals(), found)
    }

    /// Describes a window of [`Family::Ecg`]. `mv` is the window's waveform from its first sample to
    /// its last, in millivolts, with NaN where nothing was received.
    pub fn describe_ecg(&self, mv: &[f32], rate: SampleRate) -> EcgDescription {
        ecg::describe(mv, rate, self.model(), self.groups())
    }

    /// Describes a window of [`Family::Pulse`] by its curves, which begin at the same instant and last equally long. A signal of the pipeline
    /// that is not among them has no data.
    pub fn describe_pulse(&self, curves: &[Curve<'_>]) -> Features {
        pulse::describe(self.signals(), curves)
    }

    /// Adds what the model said about the beats: `scores[i]` is that of `description.inputs[i]`.
    pub fn conclude_ecg(&self, description: &mut EcgDescription, scores: &[Option<BeatScore>]) {
        ecg::conclude(description, scores);
    }

    /// Adds what the model of rhythm said about the window.
    pub fn conclude_rhythm(&self, description: &mut EcgDescription, score: &RhythmScore) {
        ecg::conclude_rhythm(description, score);
    }

    /// Makes the features of a window those of a patient with these parameters: NEWS2 is on the patient's scale of saturation.
    pub fn personalise(&self, features: &mut Features, parameters: &Parameters) {
        if features.contains_key("news2.lower") {
            vitals::early_warning(features, parameters.spo2_scale);
        }
    }

    /// Which flags are raised on a window with these features. With parameters of the patient, their limits are decided as well, and
    /// flags that they take the place of are not; see [`crate::parameters`]. What is wrong with a device is the same for every patient.
    pub fn decide(&self, features: &Features, parameters: Option<&Parameters>) -> Decision {
        let mut decision = Decision::default();
        let parameters = parameters.filter(|_| self.family() != Family::Device);
        let limits = parameters.map(|parameters| Limits::new(parameters, self.signals()));
        if let Some(limits) = &limits {
            limits.decide(features, &mut decision);
        }
        for flag in &self.0.definition.flags {
            let outcome = flag.rule.outcome(features);
            // Asked last: it costs more than the rule.
            let is_replaced = |limits: &Limits<'_>| limits.replace(&flag.rule, features);
            if outcome != Outcome::NotRaised && limits.as_ref().is_some_and(is_replaced) {
                continue;
            }
            match outcome {
                Outcome::NotRaised => {}
                Outcome::Undetermined { missing } => {
                    decision.undetermined.push(Undetermined { flag: flag.name.clone(), missing });
                }
                Outcome::Raised => decision.raised.push(Raised {
                    flag: flag.name.clone(),
                    priority: flag.priority,
                    text: flag.text.clone(),
                    rule: flag.rule.text().to_owned(),
                    evidence: flag.rule.evidence(features),
                    by_model: flag.rule.features().iter().any(|name| is_from_model(name)),
                }),
            }
        }
        decision
    }

    fn rates(&self) -> impl Iterator<Item = (SignalId, SampleRate)> {
        self.0.definition.signals.iter().copied()
    }
}

/// File names and texts of the definitions that come with Haar.
const DEFINITIONS: [(&str, &str); 3] = [
    ("ward-vitals.toml", include_str!("../definitions/ward-vitals.toml")),
    ("ecg-rhythm.toml", include_str!("../definitions/ecg-rhythm.toml")),
    ("laboratory.toml", include_str!("../definitions/laboratory.toml")),
];

/// Definitions that come with Haar and run only where they are named: file name and text.
pub const OPTIONAL: [(&str, &str); 7] = [
    ("ecg-fibrillation.toml", include_str!("../definitions/ecg-fibrillation.toml")),
    ("device-faults.toml", include_str!("../definitions/device-faults.toml")),
    ("cold-chain.toml", include_str!("../definitions/cold-chain.toml")),
    ("ecg-intervals.toml", include_str!("../definitions/ecg-intervals.toml")),
    ("pulse.toml", include_str!("../definitions/pulse.toml")),
    ("ward-scores.toml", include_str!("../definitions/ward-scores.toml")),
    ("glucose.toml", include_str!("../definitions/glucose.toml")),
];

/// The definitions that run where none is named: `ward-vitals`, `ecg-rhythm` and `laboratory`.
pub fn builtin() -> Vec<Pipeline> {
    // A definition that did not parse would be missing here; a test holds that none is.
    DEFINITIONS.iter().filter_map(|(name, text)| Pipeline::parse(name, text).ok()).collect()
}

#[cfg(test)]
mod tests;
