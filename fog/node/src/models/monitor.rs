//! What models say, counted: how much, how far a shadow agrees, and whether they still see what they were measured on.

use haar_dataflow::deployment::Scored;
use haar_inference::statistics::population_stability;
use haar_schema::{EdgeId, ModelRef};
use haar_telemetry::{Counter, Gauge, KeyValue, Metrics, names};
use std::collections::BTreeMap;

/// Scores below which an index of stability says more about chance than about the model.
const STABILITY_SCORES_MIN: u64 = 500;
/// When this many scores were counted, all counts are halved: the index forgets.
const STABILITY_SCORES_MAX: u64 = 50_000;
/// Edges whose drift is followed apart; those beyond are not followed.
const MAX_EDGES: usize = 256;

/// How often something was said, by class.
pub(crate) type Classes = BTreeMap<&'static str, u64>;

/// Follows what models say: how much, how far a shadow agrees, and whether they still see what they were measured on.
pub(crate) struct Monitor {
    /// By the manifest's hash: how often each class was said when the model was measured.
    expected: BTreeMap<String, Classes>,
    seen: BTreeMap<(String, EdgeId), Classes>,
    scores: Counter<u64>,
    agreed: Counter<u64>,
    stability: Gauge<f64>,
}

impl Monitor {
    pub(crate) fn new(expected: BTreeMap<String, Classes>, metrics: &Metrics) -> Self {
        Self {
            expected,
            seen: BTreeMap::new(),
            scores: metrics.counter(&names::FOG_MODEL_SCORES),
            agreed: metrics.counter(&names::FOG_MODEL_AGREED),
            stability: metrics.gauge(&names::FOG_MODEL_STABILITY),
        }
    }

    /// More models may be asked.
    pub(crate) fn expect(&mut self, expected: BTreeMap<String, Classes>) {
        self.expected.extend(expected);
    }

    /// Counts what was said in an epoch.
    pub(crate) fn note(&mut self, scored: &[Scored]) {
        for scored in scored {
            let role = if scored.agreed.is_some() { "shadow" } else { "live" };
            let labels = [
                KeyValue::new(names::label::MODEL, short(&scored.model)),
                KeyValue::new(names::label::EDGE, scored.edge.as_str().to_owned()),
                KeyValue::new(names::label::ROLE, role),
            ];
            for (class, count) in &scored.classes {
                let class = KeyValue::new(names::label::CLASS, *class);
                let labels: Vec<KeyValue> = labels.iter().cloned().chain([class]).collect();
                self.scores.add(*count, &labels);
            }
            if let Some(agreed) = scored.agreed {
                self.agreed.add(agreed, &labels[..2]);
            }
            if let Some(index) = self.follow(scored) {
                self.stability.record(index, &labels[..2]);
            }
        }
    }

    /// The index of stability of a model at an edge, once there are enough scores.
    fn follow(&mut self, scored: &Scored) -> Option<f64> {
        let key = (scored.model.sha256.clone(), scored.edge.clone());
        if self.seen.len() >= MAX_EDGES && !self.seen.contains_key(&key) {
            return None;
        }
        let seen = self.seen.entry(key).or_default();
        for (class, more) in &scored.classes {
            *seen.entry(class).or_default() += more;
        }
        if seen.values().sum::<u64>() > STABILITY_SCORES_MAX {
            seen.values_mut().for_each(|seen| *seen /= 2);
        }
        let enough = seen.values().sum::<u64>() >= STABILITY_SCORES_MIN;
        let expected = self.expected.get(&scored.model.sha256).filter(|_| enough)?;
        let seen = |class: &&str| seen.get(*class).copied().unwrap_or(0);
        let seen: Vec<u64> = expected.keys().map(seen).collect();
        population_stability(&expected.values().copied().collect::<Vec<_>>(), &seen)
    }
}

/// Id and the beginning of the hash: enough to tell models apart, short enough for a label.
fn short(model: &ModelRef) -> String {
    format!("{}@{}", model.id, model.sha256.get(..12).unwrap_or(&model.sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_dataflow::deployment::{Deployed as _, Said, expected};
    use haar_inference::BeatModel;

    #[test]
    fn a_model_that_sees_something_else_is_found() {
        let model = BeatModel::built_in().unwrap();
        let usual = expected::<BeatModel>(model.manifest());
        let hash = model.name().sha256.clone();
        let metrics = Metrics::new("haar-fog").unwrap();
        let mut monitor = Monitor::new([(hash, usual.clone())].into(), &metrics);
        let edge: EdgeId = "edge-1".parse().unwrap();
        let mut said = Said::default();
        said.live(model.name(), &edge).add("N");
        let mut scored = said.into_scored().remove(0);
        assert_eq!(monitor.follow(&scored), None, "too few to say");
        scored.classes = usual;
        let stable = monitor.follow(&scored).unwrap();
        assert!(stable < 0.1, "{stable}");
        scored.classes = [("V", 60_000)].into();
        let shifted = monitor.follow(&scored).unwrap();
        assert!(shifted > 0.25, "{shifted}");
    }
}
