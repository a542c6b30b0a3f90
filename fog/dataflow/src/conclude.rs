//! From a window that fired to what is committed of it: features, scores, flags, digest.
//!
//! Vitals windows are concluded one by one. ECG windows that fire in one epoch on one worker go through
//! the model together (design D6); the model pads its batches, so no score depends on its neighbours.

use crate::aggregate::{Segments, Waveform};
use crate::deployment::{Deployment, Scored, Step};
use crate::explain;
use crate::item::Lane;
use crate::operator::Report;
use crate::rollup::{Change, Episode, Rollup};
use crate::window::{Counts, Fired};
use haar_catalog::parameters::Ward;
use haar_catalog::{EcgDescription, Pipeline, Raised};
use haar_inference::condition::{ConditionFeatures, ConditionModel};
use haar_inference::faults::FaultModel;
use haar_inference::rhythm::{RhythmInput, RhythmModel};
use haar_inference::{BeatInput, BeatScore};
use haar_schema::{
    Condition, EdgeId, Evidence, Features, FlaggedEvent, MAX_STRIP_SAMPLES, ModelRef, Score,
    SignalId, Strip, Timestamp, WindowDigest, WindowKey,
};
use haar_signals::moments::Moments;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline as Local;
use timely::dataflow::operators::Operator;

/// Microvolts per step of a strip's samples, in millivolts: ±32.767 mV fit.
const STRIP_FACTOR_MV: f32 = 0.001;

/// A window with all that it came to.
#[derive(Clone, Debug)]
pub struct Concluded {
    /// Its lane.
    pub lane: Lane,
    /// The sequence number of the mark that fired it.
    pub seq: u64,
    /// When the edge received the latest reading in it, microseconds.
    pub ingested_us: i64,
    /// The digest to commit.
    pub digest: WindowDigest,
    /// The flagged events to commit.
    pub flagged: Vec<FlaggedEvent>,
    /// Flags whose rule could not be decided for want of a feature.
    pub undetermined: Vec<String>,
}

/// What a pipeline says at the end of an epoch.
#[derive(Clone, Debug)]
pub enum Conclusion {
    /// A window.
    Window(Box<Concluded>),
    /// See [`Report::Holds`]; of the pipeline with this number.
    Holds(usize, BTreeMap<Lane, u64>),
    /// What became of readings in the pipeline with this number.
    Counts(usize, Counts),
    /// See [`Episode`].
    Episode(Change<Episode>),
    /// See [`Rollup`].
    Rollup(Change<Rollup>),
    /// A batch of this many beats that the model refused; their windows are concluded without it.
    Unscored(u64),
    /// What models said, by model and edge.
    Scored(Vec<Scored>),
    /// A batch of this many series of readings whose devices could not be judged; their windows are concluded without it.
    Unjudged(u64),
}

/// What the windows of one pipeline are concluded with.
#[derive(Clone)]
pub struct Means {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The number that it bears in reports.
    pub number: usize,
    /// What scores its windows, if anything does.
    pub scorer: Option<Scorer>,
    /// Sorts its flags.
    pub conditions: ConditionModel,
    /// What doctors have set for single patients.
    pub ward: SharedWard,
}

/// What scores the windows of a pipeline.
#[derive(Clone)]
pub enum Scorer {
    /// Each beat by itself, with the models that are deployed.
    Beats(Deployment),
    /// The window as a whole, with the built-in model of rhythm.
    Rhythm(Box<RhythmModel>),
    /// The devices that sent the window, with the built-in model of their faults.
    Faults(Box<FaultModel>),
}

impl Scorer {
    /// The model whose word counts for a window that ends at this event time.
    fn reference(&self, end: Timestamp) -> &ModelRef {
        match self {
            Self::Beats(models) => models.at(end.micros()).1.live.reference(),
            Self::Rhythm(model) => model.reference(),
            Self::Faults(model) => model.reference(),
        }
    }
}

/// Parameters of patients, shared with whoever takes new ones. A window is concluded with those that hold at its end; so that a
/// replay comes to the same, none may be taken whose effective time lies before windows that were concluded.
pub type SharedWard = Arc<RwLock<Ward>>;

/// Concludes the windows of a vitals pipeline.
pub fn vitals<'scope>(
    reports: StreamVec<'scope, u64, Report<Moments>>,
    means: Means,
) -> StreamVec<'scope, u64, Conclusion> {
    reports.unary::<CapacityContainerBuilder<Vec<Conclusion>>, _, _, _>(
        Local,
        "Conclude",
        |_, _| {
            move |input, output| {
                input.for_each(|capability, reports| {
                    let mut session = output.session(&capability);
                    for report in reports.drain(..) {
                        session.give(match report {
                            Report::Fired(fired) => {
                                let features = means.pipeline.describe_vitals(&fired.series);
                                Conclusion::Window(Box::new(conclude(
                                    &means, *fired, features, None, None,
                                )))
                            }
                            Report::Holds(holds) => Conclusion::Holds(means.number, holds),
                            Report::Counts(counts) => Conclusion::Counts(means.number, counts),
                        });
                    }
                });
            }
        },
    )
}

/// Concludes the windows of an ECG pipeline.
pub fn ecg<'scope>(
    reports: StreamVec<'scope, u64, Report<Segments>>,
    means: Means,
) -> StreamVec<'scope, u64, Conclusion> {
    by_epoch(reports, means, conclude_epoch)
}

/// Concludes the windows that fire in one epoch on one worker together.
pub(crate) fn by_epoch<'scope, A: 'static>(
    reports: StreamVec<'scope, u64, Report<A>>,
    means: Means,
    conclude: fn(&Means, Vec<Report<A>>) -> Vec<Conclusion>,
) -> StreamVec<'scope, u64, Conclusion> {
    reports.unary_frontier::<CapacityContainerBuilder<Vec<Conclusion>>, _, _, _>(
        Local,
        "Infer",
        move |capability, _| {
            let mut capability = Some(capability);
            let mut pending: BTreeMap<u64, Vec<Report<A>>> = BTreeMap::new();
            move |(input, frontier), output| {
                input.for_each(|stamp, reports| {
                    if let Some(epoch) = stamp.least() {
                        pending.entry(*epoch).or_default().append(reports);
                    }
                });
                let Some(held) = &mut capability else { return };
                while let Some(entry) =
                    pending.first_entry().filter(|entry| !frontier.less_equal(entry.key()))
                {
                    let (epoch, reports) = entry.remove_entry();
                    let at_epoch = held.delayed(&epoch);
                    let mut session = output.session(&at_epoch);
                    for conclusion in conclude(&means, reports) {
                        session.give(conclusion);
                    }
                }
                match frontier.frontier().first() {
                    Some(next) if next > held.time() => held.downgrade(next),
                    Some(_) => {}
                    None => capability = None,
                }
            }
        },
    )
}

fn conclude_epoch(means: &Means, reports: Vec<Report<Segments>>) -> Vec<Conclusion> {
    let Means { pipeline, number, scorer, .. } = means;
    let mut conclusions = Vec::new();
    let mut described: Vec<Described> = Vec::new();
    for report in reports {
        match report {
            Report::Fired(fired) => {
                let segments = fired.series.iter().find(|(signal, _)| *signal == SignalId::ECG);
                let laid = segments.and_then(|(_, ecg)| ecg.lay_out(fired.start, fired.end));
                if let Some(waveform) = laid {
                    let description = pipeline.describe_ecg(&waveform.samples, waveform.rate);
                    described.push((*fired, waveform, description));
                }
            }
            Report::Holds(holds) => conclusions.push(Conclusion::Holds(*number, holds)),
            Report::Counts(counts) => conclusions.push(Conclusion::Counts(*number, counts)),
        }
    }
    match scorer {
        None => {}
        Some(Scorer::Beats(models)) => {
            let (scored, unscored) = score(pipeline, models, &mut described);
            if !scored.is_empty() {
                conclusions.push(Conclusion::Scored(scored));
            }
            if unscored > 0 {
                conclusions.push(Conclusion::Unscored(unscored));
            }
        }
        Some(Scorer::Rhythm(model)) => judge_rhythm(pipeline, model, &mut described),
        // Of another family.
        Some(Scorer::Faults(_)) => {}
    }
    for (fired, waveform, description) in described {
        let features = description.features.clone();
        let strip = || strip(&waveform, &description);
        let model = scorer.as_ref().map(|scorer| scorer.reference(fired.end));
        let end = fired.end;
        let why = |evidence: &[Evidence]| match scorer.as_ref()? {
            Scorer::Beats(models) => {
                let live = &models.at(end.micros()).1.live;
                explain::beats(live, &description, waveform.start, evidence)
            }
            Scorer::Rhythm(model) => {
                explain::rhythm(model, &waveform.samples, waveform.rate, waveform.start, evidence)
            }
            // Of another family.
            Scorer::Faults(_) => None,
        };
        let shown = Shown { strip: &strip, why: &why };
        conclusions.push(Conclusion::Window(Box::new(conclude(
            means,
            fired,
            features,
            model,
            Some(&shown),
        ))));
    }
    conclusions
}

/// Windows that fired in one epoch, with their waveform and what it is like.
type Described = (Fired<Segments>, Waveform, EcgDescription);

/// Asks the model of rhythm about the epoch's windows, together. One that it cannot judge keeps its features missing.
fn judge_rhythm(pipeline: &Pipeline, model: &RhythmModel, described: &mut [Described]) {
    let (mut places, mut inputs) = (Vec::new(), Vec::new());
    for (place, (_, waveform, _)) in described.iter().enumerate() {
        if let Ok(input) = RhythmInput::new(&waveform.samples, waveform.rate) {
            places.push(place);
            inputs.push(input);
        }
    }
    let Ok(scores) = model.classify(&inputs) else { return };
    for (place, score) in places.into_iter().zip(scores) {
        pipeline.conclude_rhythm(&mut described[place].2, &score);
    }
}

/// Runs the epoch's beats through the models of their time, each model in one go. Says what they said, and how
/// many beats a live model refused.
fn score(
    pipeline: &Pipeline,
    models: &Deployment,
    described: &mut [Described],
) -> (Vec<Scored>, u64) {
    let mut by_step: BTreeMap<usize, Vec<&mut Described>> = BTreeMap::new();
    for window in described {
        let (place, _) = models.at(window.0.end.micros());
        by_step.entry(place).or_default().push(window);
    }
    let (mut said, mut unscored) = (BTreeMap::new(), 0);
    for (place, windows) in by_step {
        let Step { live, shadow, .. } = models.step(place);
        let inputs: Vec<BeatInput> = windows
            .iter()
            .flat_map(|(_, _, description)| description.inputs.iter().flatten().cloned())
            .collect();
        let Ok(scores) = live.classify(&inputs) else {
            unscored += inputs.len() as u64;
            continue;
        };
        let beside = shadow
            .as_ref()
            .and_then(|shadow| Some((shadow.reference(), shadow.classify(&inputs).ok()?)));
        let mut at = 0;
        for (fired, _, description) in windows {
            let count = description.inputs.iter().flatten().count();
            let own = &scores[at..at + count];
            note(&mut said, live.reference(), fired, own, own, false);
            if let Some((shadow, beside)) = &beside {
                note(&mut said, shadow, fired, &beside[at..at + count], own, true);
            }
            at += count;
            let mut own = own.iter().copied();
            let placed: Vec<Option<BeatScore>> = description
                .inputs
                .iter()
                .map(|input| input.as_ref().and_then(|_| own.next()))
                .collect();
            pipeline.conclude_ecg(description, &placed);
        }
    }
    (said.into_values().collect(), unscored)
}

/// Counts what a model said of a window's beats, beside what the live one said.
fn note(
    said: &mut BTreeMap<(String, EdgeId), Scored>,
    model: &ModelRef,
    fired: &Fired<Segments>,
    scores: &[BeatScore],
    live: &[BeatScore],
    is_shadow: bool,
) {
    let key = (model.sha256.clone(), fired.edge.clone());
    let scored = said.entry(key).or_insert_with(|| Scored::new(model, &fired.edge, is_shadow));
    for (score, live) in scores.iter().zip(live) {
        scored.add(score, live.class);
    }
}

/// What only a flagged window needs: both cost more than deciding.
pub(crate) struct Shown<'w> {
    strip: &'w dyn Fn() -> Strip,
    /// Why the model's word raised a flag whose rule read this.
    why: &'w dyn Fn(&[Evidence]) -> Option<Score>,
}

pub(crate) fn conclude<A>(
    means: &Means,
    fired: Fired<A>,
    mut features: Features,
    model: Option<&ModelRef>,
    shown: Option<&Shown<'_>>,
) -> Concluded {
    let Means { pipeline, conditions, ward, .. } = means;
    let ward = ward.read().unwrap_or_else(PoisonError::into_inner);
    let parameters = ward.at(fired.subject, fired.end);
    if let Some(parameters) = parameters {
        pipeline.personalise(&mut features, parameters);
    }
    let key = WindowKey {
        edge: fired.edge,
        subject: fired.subject,
        pipeline: pipeline.reference().id.clone(),
        start_us: fired.start,
        end_us: fired.end,
    };
    let id = key.id();
    let decision = pipeline.decide(&features, parameters);
    let (condition, group) = match decision.raised.is_empty() {
        true => (None, None),
        false => sort(conditions, &features).unzip(),
    };
    let group = group.flatten();
    let flagged: Vec<FlaggedEvent> = decision
        .raised
        .into_iter()
        .map(|raised: Raised| {
            let asked = shown.filter(|_| raised.by_model);
            let own = asked.and_then(|shown| (shown.why)(&raised.evidence));
            FlaggedEvent {
                window: id,
                revision: fired.revision,
                key: key.clone(),
                flag: raised.flag,
                priority: raised.priority,
                text: raised.text,
                rule: raised.rule,
                evidence: raised.evidence,
                model: model.filter(|_| raised.by_model).cloned(),
                condition: condition.clone(),
                scores: own.into_iter().chain(group.clone()).collect(),
                strip: shown.map(|shown| (shown.strip)()),
            }
        })
        .collect();
    Concluded {
        lane: fired.lane,
        seq: fired.seq,
        ingested_us: fired.ingested_us,
        undetermined: decision.undetermined.into_iter().map(|rule| rule.flag).collect(),
        digest: WindowDigest {
            id,
            revision: fired.revision,
            key,
            pipeline: pipeline.reference().clone(),
            inputs: fired.inputs,
            model: model.cloned(),
            features,
            flags: flagged.iter().map(|event| event.flag.clone()).collect(),
        },
        flagged,
    }
}

/// What a flagged window is probably about, and why; `None` if the model cannot say, which is not worth losing a flag for.
fn sort(conditions: &ConditionModel, features: &Features) -> Option<(Condition, Option<Score>)> {
    let known = ConditionFeatures::of(|name| features.get(name).and_then(|feature| feature.get()));
    let score = *conditions.classify(&[known]).ok()?.first()?;
    let probability = score.probabilities[score.group.index()];
    let condition = Condition {
        group: score.group.as_str().to_owned(),
        per_mille: (probability * 1_000.0).round() as u16,
        model: conditions.reference().clone(),
    };
    Some((condition, explain::condition(conditions, &known, &score)))
}

fn strip(waveform: &Waveform, description: &EcgDescription) -> Strip {
    let samples: Vec<Option<i16>> = waveform
        .samples
        .iter()
        .take(MAX_STRIP_SAMPLES)
        .map(|mv| mv.is_finite().then(|| (mv / STRIP_FACTOR_MV).round() as i16))
        .collect();
    let mut beats = description.beats();
    beats.retain(|beat| (beat.sample as usize) < samples.len());
    Strip {
        signal: SignalId::ECG,
        start_us: waveform.start,
        rate_millihertz: waveform.rate,
        factor: STRIP_FACTOR_MV,
        samples,
        beats,
    }
}
