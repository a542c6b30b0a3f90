//! Which model scores a window: the one that was live at the window's end.
//!
//! A promotion holds from an event time on. The model of a window is therefore a function of the window, and a replay that
//! comes after the promotion scores an old window with the model of then. Deployments may change while the dataflow runs
//! ([`SharedDeployments::put`]); whoever changes them adds only steps that begin after every window that was concluded.
//!
//! A model in shadow scores the same windows. What it says is counted and compared, and goes nowhere else: no feature,
//! no flag, no digest depends on it.

use haar_inference::BeatModel;
use haar_inference::beats::BeatClass;
use haar_inference::condition::{ConditionGroup, ConditionModel};
use haar_inference::faults::{FaultKind, FaultModel};
use haar_inference::package::{LoadError, Manifest, Package};
use haar_inference::personal::Normals;
use haar_inference::rhythm::{RhythmClass, RhythmModel};
use haar_inference::sepsis::SepsisModel;
use haar_schema::{EdgeId, ModelRef, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// A kind of model that can be replaced while a fog runs.
pub trait Deployed: Sized + Send + Sync + 'static {
    /// The id that all models of the kind bear.
    const ID: &'static str;

    /// The model that is built in.
    ///
    /// # Errors
    /// None that a build which passed its tests can give.
    fn built_in() -> Result<Self, LoadError>;

    /// The model of a package.
    ///
    /// # Errors
    /// If it is one for something else: task, inputs, units, outputs or tensors do not fit.
    fn of(package: Package) -> Result<Self, LoadError>;

    /// Its name in digests.
    fn name(&self) -> &ModelRef;

    /// The models of this kind.
    fn timeline(deployments: &mut Deployments) -> &mut Timeline<Self>;

    /// What it says, in words for a metric's label, in the order of its outputs.
    fn classes() -> Vec<&'static str>;
}

/// The models of one kind over event time.
#[derive(Debug)]
pub struct Timeline<M> {
    /// By rising time; the first holds from the beginning of time.
    steps: Vec<Step<M>>,
}

/// From a time on.
#[derive(Debug)]
pub struct Step<M> {
    from_us: i64,
    /// Its scores count.
    pub live: Arc<M>,
    /// Its scores are compared.
    pub shadow: Option<Arc<M>>,
}

/// All models that a fog runs.
#[derive(Clone, Debug)]
pub struct Deployments {
    /// Beats, one by one.
    pub beats: Timeline<BeatModel>,
    /// The rhythm of a window.
    pub rhythm: Timeline<RhythmModel>,
    /// Device faults.
    pub faults: Timeline<FaultModel>,
    /// What a flagged window is about.
    pub conditions: Timeline<ConditionModel>,
    /// Sepsis, by the hour.
    pub sepsis: Timeline<SepsisModel>,
    /// What is usual for a patient.
    pub personal: Timeline<Normals>,
}

/// The models of a running fog, for whoever asks them and the one who changes them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedDeployments(Arc<RwLock<Arc<Deployments>>>);

/// What a model said at one edge in one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scored {
    /// The model.
    pub model: ModelRef,
    /// The edge that the readings came from.
    pub edge: EdgeId,
    /// For a model in shadow: how often it said the same as the live one.
    pub agreed: Option<u64>,
    /// How often it said what ([`Deployed::classes`]).
    pub classes: BTreeMap<&'static str, u64>,
}

/// What models said, gathered by model and edge.
#[derive(Default, Debug)]
pub struct Said(BTreeMap<(ModelRef, EdgeId), Scored>);

impl<M> Timeline<M> {
    /// One model, always.
    pub fn constant(live: M) -> Self {
        Self { steps: vec![Step { from_us: i64::MIN, live: Arc::new(live), shadow: None }] }
    }

    /// From `from_us` (event time, microseconds) on, others. A time before the last step's counts as that; of
    /// equal ones the last counts.
    pub fn then(&mut self, from_us: i64, live: Arc<M>, shadow: Option<Arc<M>>) {
        let last = self.steps.last().map_or(i64::MIN, |step| step.from_us);
        self.steps.push(Step { from_us: from_us.max(last), live, shadow });
    }

    /// The models for a window that ends at this event time, and their place among the steps.
    pub fn at(&self, event_us: i64) -> (usize, &Step<M>) {
        let at = self.steps.partition_point(|step| step.from_us <= event_us).max(1) - 1;
        (at, &self.steps[at])
    }

    /// The model that counts for a window that ends at this event time.
    pub fn live(&self, event_us: i64) -> &M {
        &self.at(event_us).1.live
    }

    /// The models of the step at this place.
    pub fn step(&self, place: usize) -> &Step<M> {
        &self.steps[place.min(self.steps.len() - 1)]
    }

    /// Windows by the place of the step that they fall into, by their ends.
    pub fn divide<'w, W>(
        &self,
        windows: &'w mut [W],
        end: impl Fn(&W) -> Timestamp,
    ) -> BTreeMap<usize, Vec<&'w mut W>> {
        let mut by_step: BTreeMap<usize, Vec<&mut W>> = BTreeMap::new();
        for window in windows {
            let (place, _) = self.at(end(window).micros());
            by_step.entry(place).or_default().push(window);
        }
        by_step
    }

    /// All models in it.
    pub fn models(&self) -> impl Iterator<Item = &Arc<M>> {
        self.steps.iter().flat_map(|step| [&step.live].into_iter().chain(&step.shadow))
    }
}

// Not derived: the models themselves are shared.
impl<M> Clone for Timeline<M> {
    fn clone(&self) -> Self {
        Self { steps: self.steps.clone() }
    }
}

impl<M> Clone for Step<M> {
    fn clone(&self) -> Self {
        let Self { from_us, live, shadow } = self;
        Self { from_us: *from_us, live: Arc::clone(live), shadow: shadow.clone() }
    }
}

impl Deployments {
    /// The models that are built in, always.
    ///
    /// # Errors
    /// None that a build which passed its tests can give.
    pub fn built_in() -> Result<Self, LoadError> {
        Ok(Self {
            beats: Timeline::constant(BeatModel::built_in()?),
            rhythm: Timeline::constant(RhythmModel::built_in()?),
            faults: Timeline::constant(FaultModel::built_in()?),
            conditions: Timeline::constant(ConditionModel::built_in()?),
            sepsis: Timeline::constant(SepsisModel::built_in()?),
            personal: Timeline::constant(Normals::built_in()?),
        })
    }
}

impl SharedDeployments {
    /// To begin with.
    pub fn new(deployments: Deployments) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(deployments))))
    }

    /// As they are now.
    pub fn now(&self) -> Arc<Deployments> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these.
    pub fn put(&self, deployments: Deployments) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(deployments);
    }
}

impl Said {
    /// Where to count what the live model says of readings of this edge.
    pub fn live(&mut self, model: &ModelRef, edge: &EdgeId) -> &mut Scored {
        self.of(model, edge, None)
    }

    /// Where to count what a model in shadow says of them.
    pub fn shadow(&mut self, model: &ModelRef, edge: &EdgeId) -> &mut Scored {
        self.of(model, edge, Some(0))
    }

    /// All that was said, in order.
    pub fn into_scored(self) -> Vec<Scored> {
        self.0.into_values().collect()
    }

    fn of(&mut self, model: &ModelRef, edge: &EdgeId, agreed: Option<u64>) -> &mut Scored {
        self.0.entry((model.clone(), edge.clone())).or_insert_with(|| Scored {
            model: model.clone(),
            edge: edge.clone(),
            agreed,
            classes: BTreeMap::new(),
        })
    }
}

impl Scored {
    /// It said this.
    pub fn add(&mut self, class: &'static str) {
        *self.classes.entry(class).or_default() += 1;
    }

    /// In shadow it said this, and the live one `live`.
    pub fn compare(&mut self, class: &'static str, live: &'static str) {
        self.add(class);
        if let Some(agreed) = &mut self.agreed {
            *agreed += u64::from(class == live);
        }
    }
}

/// How often each class was said when a model was measured; nothing if its manifest has no confusion matrix.
pub fn expected<M: Deployed>(manifest: &Manifest) -> BTreeMap<&'static str, u64> {
    let confusion = manifest.metrics.confusion.as_deref().unwrap_or_default();
    let said = |class: usize| confusion.iter().filter_map(|row| row.get(class)).sum();
    let classes = M::classes();
    match confusion.first().is_some_and(|row| row.len() == classes.len()) {
        true => classes.into_iter().enumerate().map(|(at, class)| (class, said(at))).collect(),
        false => BTreeMap::new(),
    }
}

/// What [`SepsisModel`] says of an hour.
pub const WARNING: [&str; 2] = ["none", "warning"];
/// What [`Normals`] says of a reading.
pub const USUAL: [&str; 2] = ["usual", "unusual"];

/// Implements [`Deployed`] for a model with `builtin` and `reference`.
macro_rules! deployed {
    ($($model:ident $id:literal in $field:ident, $of:expr, $classes:expr;)*) => {
        $(impl Deployed for $model {
            const ID: &'static str = $id;
            fn built_in() -> Result<Self, LoadError> {
                Self::builtin()
            }
            fn of(package: Package) -> Result<Self, LoadError> {
                $of(package)
            }
            fn name(&self) -> &ModelRef {
                self.reference()
            }
            fn timeline(deployments: &mut Deployments) -> &mut Timeline<Self> {
                &mut deployments.$field
            }
            fn classes() -> Vec<&'static str> {
                $classes.to_vec()
            }
        })*
    };
}

deployed! {
    BeatModel "ecg-beats" in beats, Self::from_package, BeatClass::NAMES;
    RhythmModel "ecg-rhythm" in rhythm, Self::new, RhythmClass::NAMES;
    FaultModel "device-faults" in faults, Self::from_package, FaultKind::ALL.map(FaultKind::name);
    ConditionModel "condition-group" in conditions, |own| Self::from_package(&own), ConditionGroup::NAMES;
    SepsisModel "sepsis" in sepsis, Self::new, WARNING;
    Normals "personal-normal" in personal, Self::new, USUAL;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_the_model_of_its_time() {
        let mut letters = Timeline::constant('a');
        letters.then(100, Arc::new('a'), Some(Arc::new('b')));
        letters.then(200, Arc::new('b'), None);
        // As after a clock that went back: no step begins before the one that precedes it.
        letters.then(150, Arc::new('c'), None);
        for (time, place, live, in_shadow) in [
            (i64::MIN, 0, 'a', false),
            (99, 0, 'a', false),
            (100, 1, 'a', true),
            (199, 1, 'a', true),
            (200, 3, 'c', false),
        ] {
            let (at, step) = letters.at(time);
            assert_eq!((at, *step.live, step.shadow.is_some()), (place, live, in_shadow), "{time}");
            assert_eq!(*letters.live(time), live);
        }
        assert_eq!(letters.models().count(), 5);
    }

    #[test]
    fn every_built_in_model_is_of_one_kind_and_bears_its_id() {
        fn id<M: Deployed>() -> &'static str {
            let model = M::built_in().unwrap();
            assert_eq!(model.name().id, M::ID);
            let own = |builtin: &&haar_inference::Builtin| {
                builtin.package().unwrap().reference() == model.name()
            };
            let package = haar_inference::BUILTIN.iter().find(own).unwrap().package().unwrap();
            // Those that were measured by a table of confusion have as many classes as it has columns.
            let measured = package.manifest().metrics.confusion.is_some();
            assert_eq!(expected::<M>(package.manifest()).len() > 1, measured, "{}", M::ID);
            assert_eq!(M::of(package).unwrap().name(), model.name());
            M::ID
        }
        let mut ids = [
            id::<BeatModel>(),
            id::<RhythmModel>(),
            id::<FaultModel>(),
            id::<ConditionModel>(),
            id::<SepsisModel>(),
            id::<Normals>(),
        ];
        ids.sort_unstable();
        let built_in: Vec<String> = haar_inference::BUILTIN
            .iter()
            .map(|builtin| builtin.package().unwrap().reference().id.clone())
            .collect();
        assert_eq!(ids.as_slice(), built_in);
    }

    #[test]
    fn a_model_of_another_kind_is_refused() {
        for builtin in haar_inference::BUILTIN {
            let package = builtin.package().unwrap();
            let is_beats = package.reference().id == BeatModel::ID;
            assert_eq!(BeatModel::of(package).is_ok(), is_beats);
        }
    }
}
