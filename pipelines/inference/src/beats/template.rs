//! A beat's shape beside the patient's own usual one.
//!
//! What holds from patient to patient is not what a beat looks like but how it differs from the patient's dominant
//! beat (Llamedo, Martínez, "Heartbeat classification using feature selection driven by database generalization
//! criteria", IEEE Trans Biomed Eng 58(3):616-625, 2011; Zhang et al., "Heartbeat classification using
//! disease-specific feature selection", Comput Biol Med 46:79-89, 2014). It is found without labels: among the
//! beats of the context, the one that most others are like; the template is their mean. Early beats
//! count half, so that in bigeminy the template is of the beats that come in time.

use super::intervals::{CLAMP, Far, Intervals};
use super::shape::{QRS, SHAPE_FEATURES, Template, correlation};
use super::surroundings::{Rhythm, SURROUNDING_FEATURES};
use std::ops::Range;
use std::sync::Arc;

/// How far the context of a beat reaches, in seconds on both sides, where the window gives so much.
pub(crate) const CONTEXT_S: f64 = 150.0;
/// Beats of the context that are compared with each other, spread over it.
const COMPARED_MAX: usize = 96;
/// Beats that share a context.
const PANE_BEATS: usize = 32;
/// From this correlation on, two QRS complexes are of one shape.
const ALIKE: f32 = 0.9;
/// A beat that comes before this share of the usual interval is early.
const EARLY: f32 = 0.88;
/// One lead's segments in millivolt, by beat, without margins.
pub(crate) type LeadBeats<'a> = Vec<Option<&'a [f32]>>;

/// A beat beside its context.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    pub(crate) far: Arc<Far>,
    pub(crate) shape: [f32; SHAPE_FEATURES],
    pub(super) surrounding: [f32; SURROUNDING_FEATURES],
}

/// Compares each beat with its context. `position_s` are the peaks' times.
pub(crate) fn compare(
    leads: &[LeadBeats<'_>],
    intervals: &Intervals,
    position_s: &[f64],
) -> Vec<Option<Compared>> {
    let mut all = Vec::with_capacity(position_s.len());
    for first in (0..position_s.len()).step_by(PANE_BEATS) {
        let pane = first..(first + PANE_BEATS).min(position_s.len());
        let middle = position_s[first] + 0.5 * (position_s[pane.end - 1] - position_s[first]);
        let context = position_s.partition_point(|at| *at < middle - CONTEXT_S)
            ..position_s.partition_point(|at| *at <= middle + CONTEXT_S);
        match Context::new(leads, intervals, context) {
            Some(context) => all.extend(pane.map(|beat| context.compare(leads, intervals, beat))),
            None => all.extend(pane.map(|_| None)),
        }
    }
    all
}

/// What is usual around a few neighbouring beats.
struct Context {
    /// By lead; `None` if the lead is off.
    templates: Vec<Option<Template>>,
    far: Arc<Far>,
    beats: usize,
    compared: Vec<Known>,
    start: usize,
    dominants: Vec<bool>,
    rhythm: Rhythm,
    unlike_p: f32,
}

/// A beat of the context.
struct Known {
    qrs: Vec<Option<Qrs>>,
    early: f32,
    compensated: f32,
}

/// A QRS complex with mean 0 and norm 1, for correlations.
type Qrs = [f32; QRS.end - QRS.start];

impl Context {
    fn new(leads: &[LeadBeats<'_>], intervals: &Intervals, context: Range<usize>) -> Option<Self> {
        let there: Vec<usize> =
            context.clone().filter(|beat| leads.iter().any(|lead| lead[*beat].is_some())).collect();
        let chosen: Vec<usize> =
            there.iter().copied().step_by(there.len().div_ceil(COMPARED_MAX).max(1)).collect();
        let compared: Vec<Known> =
            chosen.iter().map(|beat| Known::new(leads, intervals, *beat)).collect();
        let dominant = dominant(&compared)?;
        let like = |beat: &usize| compared[*beat].like(&dominant.qrs) >= ALIKE;
        let members: Vec<usize> = (0..chosen.len()).filter(like).map(|beat| chosen[beat]).collect();
        let templates: Vec<Option<Template>> =
            leads.iter().map(|lead| Template::new(lead, &members)).collect();
        if templates.iter().all(Option::is_none) {
            return None;
        }
        let is_alike =
            |beat: usize| Known::new(leads, intervals, beat).like(&dominant.qrs) >= ALIKE;
        let dominants: Vec<bool> = context.clone().map(is_alike).collect();
        let is_dominant = |beat: usize| {
            beat.checked_sub(context.start).and_then(|at| dominants.get(at)) == Some(&true)
        };
        let far = intervals.far(context.clone(), is_dominant)?;
        let rhythm = Rhythm::new(intervals, context.clone(), &is_dominant);
        let unlike_p: Vec<f32> = leads
            .iter()
            .zip(&templates)
            .flat_map(|(lead, template)| {
                members
                    .iter()
                    .filter_map(move |beat| Some(template.as_ref()?.unlike_p(lead[*beat]?)))
            })
            .collect();
        let unlike_p = unlike_p.iter().sum::<f32>() / unlike_p.len().max(1) as f32;
        let far = Arc::new(far);
        let start = context.start;
        Some(Self {
            templates,
            far,
            beats: there.len(),
            compared,
            start,
            dominants,
            rhythm,
            unlike_p,
        })
    }

    fn compare<'a>(
        &self,
        leads: &[LeadBeats<'a>],
        intervals: &Intervals,
        beat: usize,
    ) -> Option<Compared> {
        let neighbour =
            |lead: &LeadBeats<'a>, at: Option<usize>| -> Option<&'a [f32]> { *lead.get(at?)? };
        let mut by_lead = leads.iter().zip(&self.templates).filter_map(|(lead, template)| {
            let (before, after) =
                (neighbour(lead, beat.checked_sub(1)), neighbour(lead, Some(beat + 1)));
            Some(template.as_ref()?.beside(lead[beat]?, before, after))
        });
        let first = by_lead.next()?;
        let (mut most, mut least) = (first, first);
        for other in by_lead {
            for ((most, least), other) in most.iter_mut().zip(&mut least).zip(other) {
                *most = most.max(other);
                *least = least.min(other);
            }
        }
        let known = Known::new(leads, intervals, beat);
        let (mut alike, mut early, mut squared, mut compensated) = (0.0_f32, 0.0, 0.0, 0.0);
        for other in &self.compared {
            if other.like(&known.qrs) >= ALIKE {
                alike += 1.0;
                early += other.early;
                squared += other.early * other.early;
                compensated += other.compensated;
            }
        }
        let mean = early / alike.max(1.0);
        let beside = |away: isize| {
            beat.checked_add_signed(away)
                .filter(|beat| *beat < leads[0].len())
                .and_then(|beat| self.unlike(leads, beat))
                .map_or(0.0, |unlike| 3.0 * unlike)
        };
        let more = [
            beside(-2),
            beside(-1),
            beside(1),
            beside(2),
            2.0 * alike / self.compared.len() as f32,
            mean,
            compensated / alike.max(1.0),
            2.0 * (squared / alike.max(1.0) - mean * mean).max(0.0).sqrt(),
            3.0 * self.unlike_p,
            (self.beats as f32 / 60.0).ln(),
        ];
        let mut shape = [0.0; SHAPE_FEATURES];
        let all = most.into_iter().chain(least).chain(more);
        shape.iter_mut().zip(all).for_each(|(slot, value)| *slot = value.clamp(-CLAMP, CLAMP));
        let is_dominant = |beat: usize| self.is_dominant(beat);
        let surrounding = self.rhythm.around(intervals, beat, &is_dominant)?;
        Some(Compared { far: self.far.clone(), shape, surrounding })
    }

    fn is_dominant(&self, beat: usize) -> bool {
        beat.checked_sub(self.start).and_then(|at| self.dominants.get(at)) == Some(&true)
    }

    /// One less the correlation of a beat's QRS with the template's, mean of the leads.
    fn unlike(&self, leads: &[LeadBeats<'_>], beat: usize) -> Option<f32> {
        let each: Vec<f32> = leads
            .iter()
            .zip(&self.templates)
            .filter_map(|(lead, template)| {
                Some(1.0 - correlation(&lead[beat]?[QRS], &template.as_ref()?.mv[QRS]))
            })
            .collect();
        (!each.is_empty()).then(|| each.iter().sum::<f32>() / each.len() as f32)
    }
}

impl Known {
    fn new(leads: &[LeadBeats<'_>], intervals: &Intervals, beat: usize) -> Self {
        let qrs = leads.iter().map(|lead| lead[beat].and_then(|mv| unit(&mv[QRS]))).collect();
        let near = intervals.near(beat);
        let ratio = |whole: Option<f32>| match (whole, near) {
            (Some(whole), Some(near)) => (4.0 * (whole / near).ln()).clamp(-CLAMP, CLAMP),
            _ => 0.0,
        };
        let both = intervals.pre(beat).zip(intervals.post(beat)).map(|(a, b)| 0.5 * (a + b));
        Self { qrs, early: ratio(intervals.pre(beat)), compensated: ratio(both) }
    }

    /// The mean correlation over the leads that both have; -1 without one.
    fn like(&self, other: &[Option<Qrs>]) -> f32 {
        let (mut sum, mut count) = (0.0, 0.0);
        for (a, b) in self.qrs.iter().zip(other) {
            if let (Some(a), Some(b)) = (a, b) {
                sum += a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
                count += 1.0;
            }
        }
        if count > 0.0 { sum / count } else { -1.0 }
    }
}

/// The beat that most are like, the first of equals.
fn dominant(beats: &[Known]) -> Option<&Known> {
    let weight = |beat: &Known| if beat.early < 4.0 * EARLY.ln() { 0.5_f32 } else { 1.0 };
    let mut best: Option<(&Known, f32)> = None;
    for beat in beats {
        let alike = beats.iter().filter(|other| other.like(&beat.qrs) >= ALIKE);
        let votes = alike.map(weight).sum();
        if best.is_none_or(|(_, most)| votes > most) {
            best = Some((beat, votes));
        }
    }
    best.map(|(beat, _)| beat)
}

/// With mean 0 and norm 1; `None` of a flat line.
fn unit(qrs: &[f32]) -> Option<Qrs> {
    let mut unit: Qrs = qrs.try_into().ok()?;
    let mean = unit.iter().sum::<f32>() / unit.len() as f32;
    unit.iter_mut().for_each(|value| *value -= mean);
    let norm = unit.iter().map(|value| value * value).sum::<f32>().sqrt();
    unit.iter_mut().for_each(|value| *value /= norm);
    (norm > 1e-6).then_some(unit)
}
