//! Limits that a doctor has set for one patient, beside the rules that hold for everybody.
//!
//! For each signal of the pipeline with a limit there are up to two flags, `<signal>-below-limit` and `<signal>-above-limit` (with
//! hyphens): raised if the mean of the window lies beyond the limit and at least [`COVERAGE_MIN`] of the readings are there.
//!
//! # What they take the place of
//! A rule that reads features of this one signal only and would be raised by a value on a side for which a limit is set: the
//! built-in `hypoxia` gives way to a lower limit of saturation. A rule that would be raised on both sides gives way only
//! if both limits are set, and rules over several signals, such as those of NEWS2, never do. Which sides those are is found by asking
//! the rule about windows whose readings all lie at one end of the signal's plausible range, with everything else about them in order.

use crate::parameters::{Limit, Parameters};
use crate::pipeline::{Decision, Raised, Undetermined};
use crate::rule::{Outcome, Rule};
use haar_schema::{Evidence, Feature, Features, Priority, SignalId, SignalSet};

/// Share of the readings below which the mean of a window is no ground for a flag.
const COVERAGE_MIN: f64 = 0.5;

/// The limits of one patient in one pipeline.
pub(crate) struct Limits<'p> {
    parameters: &'p Parameters,
    signals: SignalSet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Below,
    Above,
}

impl<'p> Limits<'p> {
    pub(crate) fn new(parameters: &'p Parameters, signals: SignalSet) -> Self {
        Self { parameters, signals }
    }

    /// Adds what the limits say.
    pub(crate) fn decide(&self, features: &Features, decision: &mut Decision) {
        for (signal, limit) in self.own() {
            for (side, end) in [(Side::Below, limit.low), (Side::Above, limit.high)] {
                if let Some(end) = end {
                    self.decide_one(features, decision, signal, side, end);
                }
            }
        }
    }

    /// Whether the limits take the place of a rule.
    pub(crate) fn replace(&self, rule: &Rule, features: &Features) -> bool {
        let reads = |signal: SignalId, name: &String| {
            name.strip_prefix(signal.name()).is_some_and(|rest| rest.starts_with('.'))
        };
        let mut own = self.own();
        let Some((signal, limit)) =
            own.find(|(signal, _)| rule.features().iter().all(|name| reads(*signal, name)))
        else {
            return false;
        };
        let (least, most) = signal.definition().plausible;
        let below = would_raise(rule, features, signal, least);
        let above = would_raise(rule, features, signal, most);
        (below || above) && (!below || limit.low.is_some()) && (!above || limit.high.is_some())
    }

    fn own(&self) -> impl Iterator<Item = (SignalId, &'p Limit)> {
        let signals = self.signals;
        let limits = self.parameters.limits.iter().map(|(signal, limit)| (*signal, limit));
        limits.filter(move |(signal, _)| signals.contains(*signal))
    }

    fn decide_one(
        &self,
        features: &Features,
        decision: &mut Decision,
        signal: SignalId,
        side: Side,
        end: f64,
    ) {
        let name = signal.name();
        let (word, sign) = match side {
            Side::Below => ("below", '<'),
            Side::Above => ("above", '>'),
        };
        let flag = format!("{}-{word}-limit", name.replace('_', "-"));
        let (mean, coverage) = (format!("{name}.mean"), format!("{name}.coverage"));
        let value = |name: &String| features.get(name).and_then(|feature| feature.get());
        let (Some(found), Some(share)) = (value(&mean), value(&coverage)) else {
            decision.undetermined.push(Undetermined { flag, missing: vec![mean] });
            return;
        };
        let beyond = match side {
            Side::Below => found < end,
            Side::Above => found > end,
        };
        if !beyond || share < COVERAGE_MIN {
            return;
        }
        let definition = signal.definition();
        let evidence = |feature: String| {
            let value = features.get(&feature).copied();
            value.map(|value| Evidence { feature, value })
        };
        decision.raised.push(Raised {
            flag,
            priority: Priority::High,
            text: format!(
                "{} is {word} the limit that a doctor has set for this patient, {end} {} (version {}).",
                definition.title, definition.unit, self.parameters.version
            ),
            rule: format!("{mean} {sign} {end:?} && {coverage} >= {COVERAGE_MIN:?}"),
            evidence: [coverage, mean].into_iter().filter_map(evidence).collect(),
            by_model: false,
        });
    }
}

/// Whether a rule would be raised on a window whose readings of a signal are all `value`.
fn would_raise(rule: &Rule, features: &Features, signal: SignalId, value: f64) -> bool {
    let mut window = features.clone();
    for (statistic, value) in [
        ("mean", value),
        ("min", value),
        ("max", value),
        ("standard_deviation", 0.0),
        ("slope_per_min", 0.0),
        ("coverage", 1.0),
        ("continuity", 1.0),
    ] {
        window.insert(format!("{}.{statistic}", signal.name()), Feature::value(value));
    }
    rule.outcome(&window) == Outcome::Raised
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;
    use haar_schema::{Subject, Timestamp};
    use haar_signals::moments::Moments;
    use haar_signals::news2::SpO2Scale;

    fn limit(signal: SignalId, low: Option<f64>, high: Option<f64>) -> (SignalId, Limit) {
        let unit = signal.definition().unit.to_owned();
        (signal, Limit { unit, low, high, ..Limit::default() })
    }

    fn parameters(limits: impl IntoIterator<Item = (SignalId, Limit)>) -> Parameters {
        Parameters {
            subject: Subject::from_bytes([7; 16]),
            version: 3,
            effective: Timestamp::from_micros(0),
            spo2_scale: SpO2Scale::Two,
            limits: limits.into_iter().collect(),
            reason: "chronic hypercapnia".to_owned(),
        }
    }

    /// Flags of a minute with constant values.
    fn flags(values: &[(SignalId, f64)], parameters: Option<&Parameters>) -> Vec<String> {
        let pipeline = builtin().remove(0);
        let moments = |value: f64| {
            let mut moments = Moments::default();
            (0..60).for_each(|second| moments.add(second * 1_000_000, value));
            moments
        };
        let series: Vec<_> =
            values.iter().map(|(signal, value)| (*signal, moments(*value))).collect();
        let mut features = pipeline.describe_vitals(&series);
        if let Some(parameters) = parameters {
            pipeline.personalise(&mut features, parameters);
        }
        let decision = pipeline.decide(&features, parameters);
        decision.raised.into_iter().map(|raised| raised.flag).collect()
    }

    #[test]
    fn a_limit_takes_the_place_of_the_rule_for_everybody() {
        let at = |spo2| [(SignalId::SPO2, spo2), (SignalId::HEART_RATE, 80.0)];
        let own = parameters([limit(SignalId::SPO2, Some(85.0), None)]);
        assert_eq!(flags(&at(89.0), None), ["hypoxia"]);
        assert!(flags(&at(89.0), Some(&own)).is_empty(), "usual for this patient");
        assert_eq!(flags(&at(84.0), Some(&own)), ["spo2-below-limit"]);
    }

    #[test]
    fn the_side_without_a_limit_keeps_its_rule() {
        let own = parameters([limit(SignalId::HEART_RATE, Some(45.0), None)]);
        let at = |rate| [(SignalId::HEART_RATE, rate), (SignalId::SPO2, 97.0)];
        assert_eq!(flags(&at(140.0), Some(&own)), ["tachycardia"]);
        assert_eq!(flags(&at(42.0), Some(&own)), ["heart-rate-below-limit"]);
        assert_eq!(flags(&at(38.0), None), ["bradycardia"]);
        assert_eq!(flags(&at(38.0), Some(&own)), ["heart-rate-below-limit"]);
        // A rule for both sides gives way to two limits only.
        let rate = [
            (SignalId::RESPIRATION_RATE, 27.0),
            (SignalId::SPO2, 97.0),
            (SignalId::HEART_RATE, 80.0),
        ];
        let high = parameters([limit(SignalId::RESPIRATION_RATE, None, Some(30.0))]);
        assert_eq!(flags(&rate, Some(&high)), ["respiration-abnormal"]);
        let both = parameters([limit(SignalId::RESPIRATION_RATE, Some(6.0), Some(30.0))]);
        assert!(flags(&rate, Some(&both)).is_empty());
    }

    #[test]
    fn the_scale_of_saturation_is_the_patients_own() {
        // 88 to 92 % is the target on scale 2 and scores 2 or 3 on scale 1; with the pulse that makes 5.
        let values = [(SignalId::SPO2, 91.0), (SignalId::HEART_RATE, 115.0)];
        assert!(flags(&values, None).contains(&"news2-medium".to_owned()));
        let own = parameters([]);
        let found = flags(&values, Some(&own));
        assert_eq!(
            found,
            ["hypoxia"],
            "the rule on the saturation alone needs a limit to give way"
        );
    }
}
