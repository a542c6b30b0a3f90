//! Which model scores a window: the one that was live at the window's end.
//!
//! A promotion holds from an event time on. The model of a window is therefore a function of the window, and a replay that
//! comes after the promotion scores an old window with the model of then.
//!
//! A model in shadow scores the same windows. What it says is counted and compared, and goes nowhere else: no feature,
//! no flag, no digest depends on it.

use haar_inference::{BeatClass, BeatModel, BeatScore};
use haar_schema::{EdgeId, ModelRef};

/// The models of one id over event time.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// By rising time; the first holds from the beginning of time.
    steps: Vec<Step>,
}

/// From a time on.
#[derive(Clone, Debug)]
pub struct Step {
    from_us: i64,
    /// Its scores count.
    pub live: BeatModel,
    /// Its scores are compared.
    pub shadow: Option<BeatModel>,
}

/// What a model said of the beats of one edge in one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scored {
    /// The model.
    pub model: ModelRef,
    /// The edge that the beats came from.
    pub edge: EdgeId,
    /// For a model in shadow: how many classes were those of the live one.
    pub agreed: Option<u64>,
    /// Beats by predicted class, in the order of [`BeatClass::ALL`].
    pub classes: [u64; 5],
}

impl Deployment {
    /// One model, always.
    pub fn constant(live: BeatModel) -> Self {
        Self { steps: vec![Step { from_us: i64::MIN, live, shadow: None }] }
    }

    /// From `from_us` (event time, microseconds) on, others. Times must not fall; of equal ones the last counts.
    #[must_use]
    pub fn then(mut self, from_us: i64, live: BeatModel, shadow: Option<BeatModel>) -> Self {
        self.steps.push(Step { from_us, live, shadow });
        self
    }

    /// The models for a window that ends at this event time, and their place among the steps.
    pub fn at(&self, event_us: i64) -> (usize, &Step) {
        let at = self.steps.partition_point(|step| step.from_us <= event_us).max(1) - 1;
        (at, &self.steps[at])
    }

    /// The models of the step at this place.
    pub fn step(&self, place: usize) -> &Step {
        &self.steps[place.min(self.steps.len() - 1)]
    }
}

impl Scored {
    /// Nothing yet.
    pub fn new(model: &ModelRef, edge: &EdgeId, is_shadow: bool) -> Self {
        let agreed = is_shadow.then_some(0);
        Self { model: model.clone(), edge: edge.clone(), agreed, classes: [0; 5] }
    }

    /// Counts one beat; `live` is what the live model said of it.
    pub fn add(&mut self, score: &BeatScore, live: BeatClass) {
        self.classes[score.class.index()] += 1;
        if let Some(agreed) = &mut self.agreed {
            *agreed += u64::from(score.class == live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_the_model_of_its_time() {
        let model = BeatModel::builtin().unwrap();
        let deployment = Deployment::constant(model.clone())
            .then(100, model.clone(), Some(model.clone()))
            .then(200, model, None);
        for (time, place, in_shadow) in
            [(i64::MIN, 0, false), (99, 0, false), (100, 1, true), (199, 1, true), (200, 2, false)]
        {
            let (at, step) = deployment.at(time);
            assert_eq!((at, step.shadow.is_some()), (place, in_shadow), "{time}");
        }
    }
}
