//! From a window that fired to what is committed of it: features, scores, flags, digest.
//!
//! Vitals windows are concluded one by one. ECG windows that fire in one epoch on one worker go through
//! the model together (design D6); the model pads its batches, so no score depends on its neighbours.

use crate::aggregate::{Segments, Waveform};
use crate::deployment::{Deployments, Said, Scored, SharedDeployments, Step, Timeline};
use crate::explain;
use crate::item::Lane;
use crate::operator::Report;
use crate::rollup::{Change, Episode, Rollup};
use crate::window::{Counts, Fired};
use haar_catalog::parameters::Ward;
use haar_catalog::{Curve, EcgDescription, Pipeline, Raised};
use haar_inference::condition::{ConditionFeatures, ConditionModel};
use haar_inference::rhythm::{RhythmInput, RhythmModel};
use haar_inference::{BeatInput, BeatModel, BeatScore};
use haar_schema::{
    Condition, Evidence, Features, FlaggedEvent, MAX_STRIP_SAMPLES, ModelRef, Score, SignalId,
    Strip, Timestamp, WindowDigest, WindowKey,
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
    /// The models, which score windows and sort flags.
    pub models: SharedDeployments,
    /// What doctors have set for single patients.
    pub ward: SharedWard,
}

/// What scores the windows of a pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scorer {
    /// Each beat by itself.
    Beats,
    /// The window as a whole, by its rhythm.
    Rhythm,
    /// The devices that sent the window, by their faults.
    Faults,
}

impl Said {
    /// What is to be reported of it; `None` if nothing was said.
    pub(crate) fn into_conclusion(self) -> Option<Conclusion> {
        let scored = self.into_scored();
        (!scored.is_empty()).then_some(Conclusion::Scored(scored))
    }
}

impl Scorer {
    /// The model whose word counts for a window that ends at this event time.
    fn reference(self, models: &Deployments, end: Timestamp) -> &ModelRef {
        let end = end.micros();
        match self {
            Self::Beats => models.beats.live(end).reference(),
            Self::Rhythm => models.rhythm.live(end).reference(),
            Self::Faults => models.faults.live(end).reference(),
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
                    let (models, mut said) = (means.models.now(), Said::default());
                    for report in reports.drain(..) {
                        session.give(match report {
                            Report::Fired(fired) => {
                                let features = means.pipeline.describe_vitals(&fired.series);
                                Conclusion::Window(Box::new(conclude(
                                    &means, &models, *fired, features, None, &mut said,
                                )))
                            }
                            Report::Holds(holds) => Conclusion::Holds(means.number, holds),
                            Report::Counts(counts) => Conclusion::Counts(means.number, counts),
                        });
                    }
                    session.give_iterator(said.into_conclusion().into_iter());
                });
            }
        },
    )
}

/// Concludes the windows of a pipeline of pulses.
pub fn pulse<'scope>(
    reports: StreamVec<'scope, u64, Report<Segments>>,
    means: Means,
) -> StreamVec<'scope, u64, Conclusion> {
    by_epoch(reports, means, |means, reports| {
        let (models, mut said) = (means.models.now(), Said::default());
        let mut conclusions = Vec::new();
        for report in reports {
            conclusions.push(match report {
                Report::Fired(fired) => {
                    let features = describe_pulse(&means.pipeline, &fired);
                    let own = conclude(means, &models, *fired, features, None, &mut said);
                    Conclusion::Window(Box::new(own))
                }
                Report::Holds(holds) => Conclusion::Holds(means.number, holds),
                Report::Counts(counts) => Conclusion::Counts(means.number, counts),
            });
        }
        conclusions.extend(said.into_conclusion());
        conclusions
    })
}

fn describe_pulse(pipeline: &Pipeline, fired: &Fired<Segments>) -> Features {
    let laid: Vec<(SignalId, Waveform)> = fired
        .series
        .iter()
        .filter_map(|(signal, own)| Some((*signal, own.lay_out(fired.start, fired.end)?)))
        .collect();
    let curves: Vec<Curve<'_>> = laid
        .iter()
        .map(|(signal, Waveform { rate, samples, .. })| Curve {
            signal: *signal,
            rate: *rate,
            samples,
        })
        .collect();
    pipeline.describe_pulse(&curves)
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
    // One state of affairs for the whole epoch.
    let models = means.models.now();
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
    let mut said = Said::default();
    match scorer {
        Some(Scorer::Beats) => {
            let unscored = score(pipeline, &models.beats, &mut described, &mut said);
            if unscored > 0 {
                conclusions.push(Conclusion::Unscored(unscored));
            }
        }
        Some(Scorer::Rhythm) => judge_rhythm(pipeline, &models.rhythm, &mut described, &mut said),
        // The last is of another family.
        None | Some(Scorer::Faults) => {}
    }
    for (fired, waveform, description) in described {
        let features = description.features.clone();
        let strip = || strip(&waveform, &description);
        let end = fired.end.micros();
        let why = |evidence: &[Evidence]| match (*scorer)? {
            Scorer::Beats => {
                explain::beats(models.beats.live(end), &description, waveform.start, evidence)
            }
            Scorer::Rhythm => {
                let (model, Waveform { samples, rate, start, .. }) =
                    (models.rhythm.live(end), &waveform);
                explain::rhythm(model, samples, *rate, *start, evidence)
            }
            // Of another family.
            Scorer::Faults => None,
        };
        let shown = Shown { strip: &strip, why: &why };
        conclusions.push(Conclusion::Window(Box::new(conclude(
            means,
            &models,
            fired,
            features,
            Some(&shown),
            &mut said,
        ))));
    }
    conclusions.extend(said.into_conclusion());
    conclusions
}

/// Windows that fired in one epoch, with their waveform and what it is like.
type Described = (Fired<Segments>, Waveform, EcgDescription);

/// Asks the models of rhythm about the epoch's windows, each model in one go. A window that one cannot judge keeps its features
/// missing.
fn judge_rhythm(
    pipeline: &Pipeline,
    models: &Timeline<RhythmModel>,
    described: &mut [Described],
    said: &mut Said,
) {
    for (place, windows) in models.divide(described, |window| window.0.end) {
        let Step { live, shadow, .. } = models.step(place);
        let (mut judged, mut inputs) = (Vec::new(), Vec::new());
        for window in windows {
            if let Ok(input) = RhythmInput::new(&window.1.samples, window.1.rate) {
                judged.push(window);
                inputs.push(input);
            }
        }
        let Ok(scores) = live.classify(&inputs) else { continue };
        let beside = shadow
            .as_ref()
            .and_then(|shadow| Some((shadow.reference(), shadow.classify(&inputs).ok()?)));
        for (at, (window, score)) in judged.into_iter().zip(scores).enumerate() {
            let edge = &window.0.edge;
            said.live(live.reference(), edge).add(score.class.name());
            if let Some((shadow, beside)) = &beside {
                said.shadow(shadow, edge).compare(beside[at].class.name(), score.class.name());
            }
            pipeline.conclude_rhythm(&mut window.2, &score);
        }
    }
}

/// Runs the epoch's beats through the models of their time, window by window. Says how many beats a live model refused.
fn score(
    pipeline: &Pipeline,
    models: &Timeline<BeatModel>,
    described: &mut [Described],
    said: &mut Said,
) -> u64 {
    let mut unscored = 0;
    for (place, windows) in models.divide(described, |window| window.0.end) {
        let Step { live, shadow, .. } = models.step(place);
        for (fired, _, description) in windows {
            // Of one window: beats that look alike are judged together.
            let context: Vec<BeatInput> = description.inputs.iter().flatten().cloned().collect();
            let Ok(scores) = live.classify(&context) else {
                unscored += context.len() as u64;
                continue;
            };
            let tally = said.live(live.reference(), &fired.edge);
            scores.iter().for_each(|score| tally.add(score.class.name()));
            if let Some(shadow) = shadow
                && let Ok(beside) = shadow.classify(&context)
            {
                let tally = said.shadow(shadow.reference(), &fired.edge);
                for (other, score) in beside.iter().zip(&scores) {
                    tally.compare(other.class.name(), score.class.name());
                }
            }
            let mut own = scores.into_iter();
            let placed: Vec<Option<BeatScore>> = description
                .inputs
                .iter()
                .map(|input| input.as_ref().and_then(|_| own.next()))
                .collect();
            pipeline.conclude_ecg(description, &placed);
        }
    }
    unscored
}

/// What only a flagged window needs: both cost more than deciding.
pub(crate) struct Shown<'w> {
    strip: &'w dyn Fn() -> Strip,
    /// Why the model's word raised a flag whose rule read this.
    why: &'w dyn Fn(&[Evidence]) -> Option<Score>,
}

pub(crate) fn conclude<A>(
    means: &Means,
    models: &Deployments,
    fired: Fired<A>,
    mut features: Features,
    shown: Option<&Shown<'_>>,
    said: &mut Said,
) -> Concluded {
    let Means { pipeline, scorer, ward, .. } = means;
    let model = scorer.map(|scorer| scorer.reference(models, fired.end));
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
        false => sort(&models.conditions, &key, &features, said).unzip(),
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
fn sort(
    models: &Timeline<ConditionModel>,
    window: &WindowKey,
    features: &Features,
    said: &mut Said,
) -> Option<(Condition, Option<Score>)> {
    let known = ConditionFeatures::of(|name| features.get(name).and_then(|feature| feature.get()));
    let (_, Step { live: conditions, shadow, .. }) = models.at(window.end_us.micros());
    let classify = |model: &ConditionModel| model.classify(&[known]).ok()?.first().copied();
    let score = classify(conditions)?;
    let group = score.group.as_str();
    said.live(conditions.reference(), &window.edge).add(group);
    if let Some((shadow, own)) = shadow.as_ref().and_then(|own| Some((own, classify(own)?))) {
        said.shadow(shadow.reference(), &window.edge).compare(own.group.as_str(), group);
    }
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
