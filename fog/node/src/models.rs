//! Which models this node runs: those that are built in, or what was decided in a registry.
//!
//! Decisions are read when the node starts. Each holds from an event time on, so it does not matter when exactly
//! that is, as long as it is before the windows of that time close. A decision that is not signed by
//! one of `models.trusted_keys`, or a model that does not fit its hash, keeps the node from starting: running
//! something else than what was decided is worse than not running.

use crate::config::ModelsConfig;
use haar_catalog::Pipeline;
use haar_dataflow::deployment::{Deployment, Scored};
use haar_inference::registry::{Registry, RegistryError};
use haar_inference::statistics::population_stability;
use haar_inference::{BeatModel, LoadError};
use haar_schema::{EdgeId, ModelRef};
use haar_telemetry::{Counter, Gauge, KeyValue, Metrics, names};
use std::collections::BTreeMap;

/// Scores below which an index of stability says more about chance than about the model.
const STABILITY_SCORES_MIN: u64 = 500;
/// When this many scores were counted, all counts are halved: the index forgets.
const STABILITY_SCORES_MAX: u64 = 50_000;
/// Edges whose drift is followed apart; those beyond are followed together.
const MAX_EDGES: usize = 256;

/// Why the models are not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelsError {
    /// The registry, or a decision in it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It was decided on, but it is another kind of model than the pipeline wants.
    #[error("the registry has decisions about {0}, a model that no pipeline of this node runs")]
    NoPipeline(String),
}

/// What runs.
pub(crate) struct Models {
    /// By id.
    pub(crate) deployments: BTreeMap<String, Deployment>,
    /// The signed notes of all decisions, in order.
    pub(crate) statements: Vec<Vec<u8>>,
    /// How each model's predictions were distributed when it was measured, by the manifest's hash.
    pub(crate) expected: BTreeMap<String, Vec<u64>>,
}

impl Models {
    /// The models that these pipelines want.
    pub(crate) fn open(config: &ModelsConfig, pipelines: &[Pipeline]) -> Result<Self, ModelsError> {
        let (mut deployments, mut expected) = (BTreeMap::new(), BTreeMap::new());
        if pipelines.iter().any(|pipeline| pipeline.model().is_some()) {
            let model = BeatModel::builtin()?;
            expected.insert(model.reference().sha256.clone(), predicted(&model));
            deployments.insert(model.reference().id.clone(), Deployment::constant(model));
        }
        let Some(root) = &config.registry else {
            return Ok(Self { deployments, statements: Vec::new(), expected });
        };
        let registry = Registry::at(root);
        let history = registry.history(&config.trusted_keys)?;
        let decided: Vec<&str> = history
            .decisions()
            .iter()
            .map(|decision| decision.statement.model.id.as_str())
            .collect();
        if let Some(other) = decided.iter().find(|id| !deployments.contains_key(**id)) {
            return Err(ModelsError::NoPipeline((*other).to_owned()));
        }
        let built_in = BeatModel::builtin()?;
        // A model is named by several decisions; it is read once.
        let mut opened = BTreeMap::from([(built_in.reference().sha256.clone(), built_in.clone())]);
        let mut open = |reference: &ModelRef| -> Result<BeatModel, ModelsError> {
            if let Some(model) = opened.get(&reference.sha256) {
                return Ok(model.clone());
            }
            // Checks the hash before the model is used.
            let model = BeatModel::from_package(registry.package(reference)?)?;
            expected.insert(reference.sha256.clone(), predicted(&model));
            opened.insert(reference.sha256.clone(), model.clone());
            Ok(model)
        };
        for (id, deployment) in &mut deployments {
            for (from_us, now) in history.timeline(id) {
                let live = now.live.as_ref().map_or_else(|| Ok(built_in.clone()), &mut open)?;
                let shadow = now.shadow.as_ref().map(&mut open).transpose()?;
                *deployment = deployment.clone().then(from_us, live, shadow);
            }
        }
        let statements = history.decisions().iter().map(|decision| decision.note.clone()).collect();
        Ok(Self { deployments, statements, expected })
    }
}

/// How often each class was predicted when the model was measured.
fn predicted(model: &BeatModel) -> Vec<u64> {
    let confusion = model.manifest().metrics.confusion.as_deref().unwrap_or_default();
    let classes = confusion.first().map_or(0, Vec::len);
    (0..classes).map(|class| confusion.iter().filter_map(|row| row.get(class)).sum()).collect()
}

/// Follows what models say: how much, how far a shadow agrees, and whether they still see what they were measured on.
pub(crate) struct Monitor {
    expected: BTreeMap<String, Vec<u64>>,
    seen: BTreeMap<(String, EdgeId), [u64; 5]>,
    scores: Counter<u64>,
    agreed: Counter<u64>,
    stability: Gauge<f64>,
}

impl Monitor {
    pub(crate) fn new(expected: BTreeMap<String, Vec<u64>>, metrics: &Metrics) -> Self {
        Self {
            expected,
            seen: BTreeMap::new(),
            scores: metrics.counter(&names::FOG_MODEL_SCORES),
            agreed: metrics.counter(&names::FOG_MODEL_AGREED),
            stability: metrics.gauge(&names::FOG_MODEL_STABILITY),
        }
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
            for (class, count) in haar_inference::BeatClass::ALL.iter().zip(scored.classes) {
                let class = KeyValue::new(names::label::CLASS, class.letter().to_string());
                let labels: Vec<KeyValue> = labels.iter().cloned().chain([class]).collect();
                self.scores.add(count, &labels);
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
        for (seen, more) in seen.iter_mut().zip(scored.classes) {
            *seen += more;
        }
        if seen.iter().sum::<u64>() > STABILITY_SCORES_MAX {
            seen.iter_mut().for_each(|seen| *seen /= 2);
        }
        let enough = seen.iter().sum::<u64>() >= STABILITY_SCORES_MIN;
        let expected = self.expected.get(&scored.model.sha256).filter(|_| enough)?;
        population_stability(expected, seen)
    }
}

/// Id and the beginning of the hash: enough to tell models apart, short enough for a label.
fn short(model: &ModelRef) -> String {
    format!("{}@{}", model.id, model.sha256.get(..12).unwrap_or(&model.sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_registry_the_built_in_model_is_live() {
        let pipelines = haar_catalog::builtin();
        let models = Models::open(&ModelsConfig::default(), &pipelines).unwrap();
        assert!(models.statements.is_empty());
        let (_, step) = models.deployments["ecg-beats"].at(0);
        assert!(step.shadow.is_none());
        let expected = &models.expected[&step.live.reference().sha256];
        assert!(expected.len() == 5 && expected.iter().sum::<u64>() > 1_000, "{expected:?}");
    }

    #[test]
    fn a_model_that_sees_something_else_is_found() {
        let pipelines = haar_catalog::builtin();
        let models = Models::open(&ModelsConfig::default(), &pipelines).unwrap();
        let reference = models.deployments["ecg-beats"].at(0).1.live.reference().clone();
        let mut monitor = Monitor::new(models.expected.clone(), &Metrics::new("haar-fog").unwrap());
        let edge: EdgeId = "edge-1".parse().unwrap();
        let mut scored = Scored::new(&reference, &edge, false);
        scored.classes = [100, 0, 0, 0, 0];
        assert_eq!(monitor.follow(&scored), None, "too few to say");
        let usual: Vec<u64> = models.expected[&reference.sha256].clone();
        scored.classes = usual.try_into().unwrap();
        let stable = monitor.follow(&scored).unwrap();
        assert!(stable < 0.1, "{stable}");
        scored.classes = [0, 0, 60_000, 0, 0];
        let shifted = monitor.follow(&scored).unwrap();
        assert!(shifted > 0.25, "{shifted}");
    }
}
