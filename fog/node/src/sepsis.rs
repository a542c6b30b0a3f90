//! Sepsis within six hours: each patient's hourly chart, and what the model says when an hour is over.
//!
//! Like [`crate::courses`], driven by the windows that an epoch commits, with rows written in the epoch's transaction: after a kill charts
//! stand where the log says, and windows that a replay brings again are not seen twice. A patient's vital signs are charted from one pipeline,
//! the first that shows one, so that alarms count that pipeline's votes; laboratory values from any.
//!
//! The window that opens an hour gets the score of the hours before it: the features `sepsis.probability` and
//! `sepsis.uncertainty`, and at the model's threshold the flag `sepsis-risk`, with model, digest of the features and attribution. Of the
//! windows between, none says anything of it, which to alarms is neither raised nor clear; so the alarm policy counts hours.
//!
//! # Limits and non-guarantees
//! [`MAX_CHARTS`] patients; of more the one who was silent longest is forgotten. What [`haar_inference::sepsis`] says holds;
//! what a chart lacks says [`haar_inference::sepsis::Chart`]. While no laboratory has reported, a chart is scored and raises nothing
//! ([`haar_inference::sepsis::Chart::has_results`]). Corrections of windows are not charted.

use crate::facts::{ChangedRow, Facts};
use haar_dataflow::conclude::Concluded;
use haar_dataflow::deployment::{Said, Step, Timeline, WARNING};
use haar_inference::sepsis::{Chart, HORIZON_H, SepsisModel, SepsisRisk};
use haar_schema::{
    Attribution, Evidence, Feature, FlaggedEvent, Priority, Scale, Score, SignalId, Subject,
    features_digest,
};
use serde::{Deserialize, Serialize};

/// Patients whose charts are kept; a chart is about five kilobytes.
pub(crate) const MAX_CHARTS: usize = 20_000;
/// The flag, and the name of the score.
const FLAG: &str = "sepsis-risk";
const RULE: &str = "sepsis.probability >= sepsis.threshold";

/// All charts.
pub(crate) struct Charts {
    vital_signs: Vec<Input>,
    laboratory: Vec<Input>,
    states: Facts<State>,
}

/// A signal, and the feature that is its value.
type Input = (SignalId, String);

#[derive(Serialize, Deserialize)]
struct State {
    /// Whose vital signs are charted; none yet if only a laboratory has reported.
    pipeline: Option<String>,
    chart: Chart,
    /// Whether the flag was ever raised, so that an alarm may be open.
    was_raised: bool,
}

impl Charts {
    /// As they were. Rows that this version does not understand are dropped, and said: those patients begin anew.
    pub(crate) fn restore(rows: impl IntoIterator<Item = (Subject, Vec<u8>)>) -> Self {
        let heard = |state: &State| Some(state.chart.open_since());
        let (states, dropped) = Facts::restore(rows, MAX_CHARTS, heard);
        if dropped > 0 {
            tracing::warn!(dropped, "charts of patients are not understood; they begin anew");
        }
        let input = |signal: SignalId| (signal, format!("{}.mean", signal.name()));
        let vital_signs = Chart::vital_signs().map(input).collect();
        let laboratory = Chart::laboratory().map(input).collect();
        Self { vital_signs, laboratory, states }
    }

    /// Charts a window that is to be committed; if it opens an hour, adds the score of those before it, and the flag.
    pub(crate) fn judge(
        &mut self,
        window: &mut Concluded,
        models: &Timeline<SepsisModel>,
        said: &mut Said,
    ) {
        let key = &window.digest.key;
        let subject = key.subject;
        let (vital_signs, results) =
            (values(window, &self.vital_signs), values(window, &self.laboratory));
        // A window belongs to the hour of its last microsecond.
        let at = key.end_us.plus_micros(-1);
        if window.digest.revision > 0 {
            self.say_nothing(window);
            return;
        }
        let is_over = self.states.get(&subject).is_none_or(|state| state.chart.is_over_at(at));
        if is_over {
            if vital_signs.is_empty() && results.is_empty() {
                return;
            }
            let chart = Chart::begin(at);
            self.states.put(subject, State { pipeline: None, chart, was_raised: false });
        }
        let Some(state) = self.states.get_mut(&subject) else { return };
        if state.pipeline.is_none() && !vital_signs.is_empty() {
            state.pipeline = Some(key.pipeline.clone());
        }
        let is_charted = state.pipeline.as_ref() == Some(&key.pipeline);
        // Only the vital signs' pipeline turns the page: of others some windows may come before and some after.
        let row = if is_charted { state.chart.turn_to(at) } else { None };
        let mut changed = row.is_some() || is_over;
        let vital_signs = vital_signs.into_iter().filter(|_| is_charted);
        for (signal, value) in vital_signs.chain(results) {
            changed |= state.chart.note(signal, value, at);
        }
        if changed {
            self.states.changed(subject);
        }
        match row {
            Some(row) => {
                let (_, step) = models.at(window.digest.key.end_us.micros());
                self.score(window, &row, step, said);
            }
            None => self.say_nothing(window),
        }
    }

    /// The patient was erased.
    pub(crate) fn forget(&mut self, subject: Subject) {
        self.states.forget(subject);
    }

    /// The rows that have changed since they were last taken.
    pub(crate) fn take_changes(&mut self) -> Vec<ChangedRow> {
        self.states.take_changes()
    }

    /// Between the hours: neither raised nor clear.
    fn say_nothing(&self, window: &mut Concluded) {
        let state = self.states.get(&window.digest.key.subject);
        if state.is_some_and(|state| state.was_raised) {
            window.undetermined.push(FLAG.to_owned());
        }
    }

    fn score(
        &mut self,
        window: &mut Concluded,
        row: &[f32],
        models: &Step<SepsisModel>,
        said: &mut Said,
    ) {
        let Step { live: model, shadow, .. } = models;
        let Some(risk) = model.risk(row, model.all_members()) else { return };
        let (edge, word) = (&window.digest.key.edge, WARNING[usize::from(risk.warning)]);
        said.live(model.reference(), edge).add(word);
        let beside = shadow.as_ref().and_then(|own| Some((own, own.risk(row, own.all_members())?)));
        if let Some((shadow, own)) = beside {
            said.shadow(shadow.reference(), edge).compare(WARNING[usize::from(own.warning)], word);
        }
        let features = &mut window.digest.features;
        features.insert("sepsis.probability".to_owned(), Feature::value(risk.probability));
        if let Some(uncertainty) = risk.uncertainty {
            features.insert("sepsis.uncertainty".to_owned(), Feature::value(uncertainty));
        }
        let state = self.states.get_mut(&window.digest.key.subject);
        let Some(state) = state.filter(|own| risk.warning && own.chart.has_results()) else {
            return;
        };
        state.was_raised = true;
        let hours = state.chart.hours();
        raise(window, row, &risk, hours, model);
    }
}

/// What of these a window has a value of.
fn values(window: &Concluded, inputs: &[Input]) -> Vec<(SignalId, f64)> {
    let value = |name: &String| window.digest.features.get(name).and_then(|own| own.get());
    inputs.iter().filter_map(|(signal, name)| Some((*signal, value(name)?))).collect()
}

fn raise(window: &mut Concluded, row: &[f32], risk: &SepsisRisk, hours: u32, model: &SepsisModel) {
    let evidence = [
        ("sepsis.hours", Some(f64::from(hours))),
        ("sepsis.probability", Some(risk.probability)),
        ("sepsis.threshold", Some(model.threshold())),
        ("sepsis.uncertainty", risk.uncertainty),
    ];
    let evidence = evidence.into_iter().filter_map(|(feature, value)| {
        Some(Evidence { feature: feature.to_owned(), value: Feature::value(value?) })
    });
    let digest = &mut window.digest;
    digest.flags.push(FLAG.to_owned());
    window.flagged.push(FlaggedEvent {
        window: digest.id,
        revision: digest.revision,
        key: digest.key.clone(),
        flag: FLAG.to_owned(),
        priority: Priority::Medium,
        text: format!("Sepsis within {HORIZON_H} h is likely enough to be looked for."),
        rule: RULE.to_owned(),
        evidence: evidence.collect(),
        model: Some(model.reference().clone()),
        condition: None,
        scores: explained(row, risk, model).into_iter().collect(),
        strip: None,
    });
}

fn explained(row: &[f32], risk: &SepsisRisk, model: &SepsisModel) -> Option<Score> {
    let shares = model.explain(row, model.all_members())?;
    let inputs = shares.inputs.into_iter().map(|(input, share)| (input.to_owned(), share));
    Some(Score {
        name: FLAG.to_owned(),
        value: haar_schema::quantise(risk.probability),
        uncertainty: risk.uncertainty.map(haar_schema::quantise),
        horizon_h: Some(HORIZON_H),
        model: model.reference().clone(),
        features_sha256: features_digest(row.iter().map(|value| f64::from(*value))),
        attribution: Attribution::new(Scale::LogOdds, shares.neutral, shares.log_odds, inputs),
        over_time: None,
    })
}

#[cfg(test)]
mod tests;
