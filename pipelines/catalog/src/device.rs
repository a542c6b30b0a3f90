//! A window of readings as probabilities of what is wrong with the devices that sent them.

use haar_inference::faults::FaultKind;
use haar_inference::faults::watch::Watched;
use haar_schema::{Feature, Features, Missing, SignalId, SignalKind, SignalSet};

/// The model that judges devices; every pipeline of the family has it.
pub(crate) const FAULT_MODEL: &str = "device-faults";

/// What may be wrong with the device of each scalar signal: the feature's suffix is the kind's name.
pub(crate) fn faults(signals: SignalSet) -> impl Iterator<Item = (SignalId, FaultKind, String)> {
    let scalars = signals.iter().filter(|signal| signal.definition().kind == SignalKind::Scalar);
    scalars.flat_map(|signal| {
        let kinds = FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::Sound);
        kinds.map(move |kind| (signal, kind, format!("{}.{kind}", signal.name())))
    })
}

/// The features of one window. Every feature that [`crate::features`] lists is in the result. A signal that is not in `found` has no
/// reading; one with `None` has too few.
pub(crate) fn describe(signals: SignalSet, found: &[(SignalId, Option<&Watched>)]) -> Features {
    faults(signals)
        .map(|(signal, kind, name)| {
            let own = found.iter().find(|(other, _)| *other == signal);
            let feature = match own {
                None => Feature::missing(Missing::NoData),
                Some((_, None)) => Feature::missing(Missing::TooFew),
                Some((_, Some(watched))) => Feature::value(f64::from(watched.probability(kind))),
            };
            (name, feature)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Limit, Parameters};
    use crate::{OPTIONAL, Pipeline};
    use haar_inference::faults::watch::threshold;
    use haar_schema::{Priority, Subject, Timestamp};
    use haar_signals::news2::SpO2Scale;

    fn devices() -> Pipeline {
        let (name, text) = OPTIONAL[1];
        Pipeline::parse(name, text).unwrap()
    }

    /// A patient with a lower limit of saturation.
    fn limited() -> Parameters {
        let limit = Limit { unit: "%".to_owned(), low: Some(88.0), ..Limit::default() };
        Parameters {
            subject: Subject::from_bytes([7; 16]),
            version: 1,
            effective: Timestamp::from_micros(0),
            spo2_scale: SpO2Scale::One,
            limits: [(SignalId::SPO2, limit)].into(),
            reason: "as agreed".to_owned(),
        }
    }

    #[test]
    fn a_fault_is_technical_and_what_may_be_the_patient_tells_nobody() {
        let pipeline = devices();
        let sound: Features =
            pipeline.features().into_iter().map(|own| (own.name, Feature::value(0.0))).collect();
        assert!(pipeline.decide(&sound, None).raised.is_empty());
        for kind in ["stuck", "drift", "spike", "noise", "dropout", "detached", "clock"] {
            let mut features = sound.clone();
            features.insert(format!("spo2.{kind}"), Feature::value(0.93));
            let decision = pipeline.decide(&features, None);
            let raised = &decision.raised[0];
            let (flag, priority) = match kind {
                "drift" | "spike" => ("spo2-doubtful", Priority::Information),
                _ => ("spo2-fault", Priority::Low),
            };
            assert_eq!(
                (raised.flag.as_str(), raised.priority, raised.by_model),
                (flag, priority, true)
            );
            assert_eq!(decision.raised.len(), 1);
            // A doctor's limits for a patient are none for a device.
            let parameters = limited();
            assert_eq!(pipeline.decide(&features, Some(&parameters)), decision);
        }
        let nothing = pipeline.decide(&pipeline.describe_devices(&[]), None);
        assert!(nothing.raised.is_empty());
        assert_eq!(nothing.undetermined.len(), pipeline.flags().len());
    }

    #[test]
    fn the_rules_have_the_thresholds_that_are_measured() {
        let pipeline = devices();
        for (signal, kind, name) in faults(pipeline.signals()) {
            let raises = |probability: f32| {
                let mut features: Features = pipeline
                    .features()
                    .into_iter()
                    .map(|own| (own.name, Feature::value(0.0)))
                    .collect();
                features.insert(name.clone(), Feature::value(f64::from(probability)));
                pipeline.decide(&features, None).raised.len()
            };
            let threshold = threshold(kind);
            let found = (raises(threshold - 0.001), raises(threshold + 0.001));
            assert_eq!(found, (0, 1), "{signal:?} {kind}");
        }
    }

    #[test]
    fn a_heart_rate_that_scatters_may_be_the_patients() {
        let pipeline = devices();
        let mut features: Features =
            pipeline.features().into_iter().map(|own| (own.name, Feature::value(0.0))).collect();
        features.insert("heart_rate.noise".to_owned(), Feature::value(0.97));
        let decision = pipeline.decide(&features, None);
        let raised: Vec<&str> = decision.raised.iter().map(|own| own.flag.as_str()).collect();
        assert_eq!(raised, ["heart-rate-doubtful"]);
    }

    #[test]
    fn a_definition_of_devices_has_their_model_and_their_features() {
        let text = include_str!("../definitions/device-faults.toml");
        let own = text.replace("[model]\nid = \"device-faults\"\n", "");
        assert_eq!(Pipeline::parse("own.toml", &own).unwrap().model(), Some(FAULT_MODEL));
        let wrong = |from: &str, to: &str| {
            Pipeline::parse("own.toml", &text.replace(from, to)).unwrap_err().to_string()
        };
        let other = wrong("[model]\nid = \"device-faults\"", "[model]\nid = \"ecg-beats\"");
        assert!(other.contains("is judged by `device-faults`"), "{other}");
        let feature = wrong("spo2.stuck >=", "spo2.mean >=");
        assert!(feature.contains("`spo2.mean` is a feature of family `vitals`"), "{feature}");
    }
}
