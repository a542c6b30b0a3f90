//! A beat's shape beside the patient's own usual one.
//!
//! What holds from patient to patient is not what a beat looks like but how it differs from the patient's dominant
//! beat (Llamedo, Martínez, "Heartbeat classification using feature selection driven by database generalization
//! criteria", IEEE Trans Biomed Eng 58(3):616-625, 2011; Zhang et al., "Heartbeat classification using
//! disease-specific feature selection", Comput Biol Med 46:79-89, 2014). It is found without labels: among the
//! beats of the context, the one that most others are like; the template is their mean. Early beats
//! count half, so that in bigeminy the template is of the beats that come in time.

use super::input::{SEGMENT_BEFORE, SEGMENT_RATE, SEGMENT_SAMPLES};
use super::intervals::{CLAMP, Far, Intervals};
use std::ops::Range;
use std::sync::Arc;

/// Numbers about the shape.
pub const SHAPE_FEATURES: usize = SHAPE_NAMES.len();
/// What they are, each clamped to ±3. Where there are two leads, the mean over both, or the less like one
/// (`worst`). QRS is 80 ms before to 104 ms after the centre, P 280 to 72 ms before, T 104 to 400 ms after. A
/// difference is the root mean square of beat less template, in heights of the template. `alike` are the beats of the
/// context whose QRS complexes correlate by 0.9 or more with this one's.
pub const SHAPE_NAMES: [&str; 19] = [
    "3 (1 - correlation of QRS)",
    "3 (1 - correlation of QRS), worst",
    "3 (1 - correlation of P)",
    "3 (1 - correlation of T)",
    "10 difference of QRS",
    "10 difference of QRS, worst",
    "10 difference of P",
    "10 difference of T",
    "4 ln(width / template's)",
    "4 ln(width / template's), worst",
    "(width - 50 ms) / 15 ms",
    "2 ln(height / template's)",
    "2 ln(height of P / template's)",
    "3 (1 - correlation of QRS) of the beat before",
    "3 (1 - correlation of QRS) of the beat after",
    "share of alike beats",
    "4 ln(pre / near), mean of alike beats",
    "4 ln((pre + post) / (2 near)), mean of alike beats",
    "ln(beats of the context / 60)",
];

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
/// A template lower than this is a lead that is off.
const HEIGHT_MIN_MV: f32 = 0.05;

const QRS: Range<usize> = around(-80, 104);
const P_WAVE: Range<usize> = around(-280, -72);
const T_WAVE: Range<usize> = around(104, 400);

const fn around(from_ms: i64, to_ms: i64) -> Range<usize> {
    let hz = SEGMENT_RATE.millihertz() as i64 / 1_000;
    let (from, to) = (from_ms * hz / 1_000, to_ms * hz / 1_000);
    (SEGMENT_BEFORE as i64 + from) as usize..(SEGMENT_BEFORE as i64 + to) as usize
}

/// One lead's segments in millivolt, by beat, without margins.
pub(crate) type LeadBeats<'a> = Vec<Option<&'a [f32]>>;

/// A beat beside its context.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    /// By lead the template in millivolt; `None` if the lead is off.
    pub(crate) templates: Arc<Vec<Option<Template>>>,
    pub(crate) far: Arc<Far>,
    pub(crate) shape: [f32; SHAPE_FEATURES],
}

/// A lead's dominant beat.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Template {
    /// [`SEGMENT_SAMPLES`] in millivolt.
    pub(crate) mv: Vec<f32>,
    /// Largest less smallest value.
    pub(crate) height: f32,
    width_s: f32,
    p_height: f32,
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
    templates: Arc<Vec<Option<Template>>>,
    far: Arc<Far>,
    beats: usize,
    compared: Vec<Known>,
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
        let is_dominant =
            |beat: usize| Known::new(leads, intervals, beat).like(&dominant.qrs) >= ALIKE;
        let dominants: Vec<bool> = context.clone().map(is_dominant).collect();
        let far = intervals.far(context.clone(), |beat| {
            beat.checked_sub(context.start).and_then(|at| dominants.get(at)) == Some(&true)
        })?;
        let (templates, far) = (Arc::new(templates), Arc::new(far));
        Some(Self { templates, far, beats: there.len(), compared })
    }

    fn compare(
        &self,
        leads: &[LeadBeats<'_>],
        intervals: &Intervals,
        beat: usize,
    ) -> Option<Compared> {
        let mut by_lead = leads
            .iter()
            .zip(&*self.templates)
            .filter_map(|(lead, template)| Some(template.as_ref()?.beside(lead[beat]?)));
        let first = by_lead.next()?;
        let (mut mean, mut worst, mut count) = (first, first, 1.0);
        for other in by_lead {
            count += 1.0;
            for ((mean, worst), other) in mean.iter_mut().zip(&mut worst).zip(other) {
                *mean += other;
                *worst = worst.max(other);
            }
        }
        let [qrs, p, t, qrs_off, p_off, t_off, width, width_s, height, p_height] =
            mean.map(|sum| sum / count);
        let known = Known::new(leads, intervals, beat);
        let (mut alike, mut early, mut compensated) = (0.0_f32, 0.0, 0.0);
        for other in &self.compared {
            if other.like(&known.qrs) >= ALIKE {
                alike += 1.0;
                early += other.early;
                compensated += other.compensated;
            }
        }
        let beside = |beat: Option<usize>| {
            beat.filter(|beat| *beat < leads[0].len()).and_then(|beat| self.unlike(leads, beat))
        };
        let shape = [
            3.0 * qrs,
            3.0 * worst[0],
            3.0 * p,
            3.0 * t,
            10.0 * qrs_off,
            10.0 * worst[3],
            10.0 * p_off,
            10.0 * t_off,
            4.0 * width,
            4.0 * worst[6],
            (width_s - 0.05) / 0.015,
            2.0 * height,
            2.0 * p_height,
            3.0 * beside(beat.checked_sub(1)).unwrap_or(0.0),
            3.0 * beside(beat.checked_add(1)).unwrap_or(0.0),
            2.0 * alike / self.compared.len() as f32,
            early / alike.max(1.0),
            compensated / alike.max(1.0),
            (self.beats as f32 / 60.0).ln(),
        ];
        let shape = shape.map(|value| value.clamp(-CLAMP, CLAMP));
        Some(Compared { templates: self.templates.clone(), far: self.far.clone(), shape })
    }

    /// One less the correlation of a beat's QRS with the template's, mean of the leads.
    fn unlike(&self, leads: &[LeadBeats<'_>], beat: usize) -> Option<f32> {
        let each: Vec<f32> = leads
            .iter()
            .zip(&*self.templates)
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

impl Template {
    /// The mean of the lead's `members`; `None` without any or if it is flat.
    fn new(lead: &LeadBeats<'_>, members: &[usize]) -> Option<Self> {
        let mut mv = vec![0.0_f32; SEGMENT_SAMPLES];
        let mut count = 0.0;
        for segment in members.iter().filter_map(|beat| lead[*beat]) {
            count += 1.0;
            mv.iter_mut().zip(segment).for_each(|(sum, mv)| *sum += mv);
        }
        mv.iter_mut().for_each(|sum| *sum /= count);
        let height = height(&mv);
        // Not so for the NaN of no member either.
        (height >= HEIGHT_MIN_MV).then(|| Self {
            width_s: width_s(&mv[QRS]),
            p_height: height_of(&mv[P_WAVE], height),
            mv,
            height,
        })
    }

    /// Unlikeness of QRS, P, T; differences of QRS, P, T; width against the template's, in seconds; height, height of P.
    /// Larger is less like the template in all that have a worst lead.
    fn beside(&self, beat: &[f32]) -> [f32; 10] {
        let unlike = |part: Range<usize>| 1.0 - correlation(&beat[part.clone()], &self.mv[part]);
        let difference = |part: Range<usize>| {
            let pairs = beat[part.clone()].iter().zip(&self.mv[part.clone()]);
            let sum: f32 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
            (sum / part.len() as f32).sqrt() / self.height
        };
        let width_s = width_s(&beat[QRS]);
        let tall = height(&beat[QRS]).max(0.01 * self.height);
        [
            unlike(QRS),
            unlike(P_WAVE),
            unlike(T_WAVE),
            difference(QRS),
            difference(P_WAVE),
            difference(T_WAVE),
            (width_s / self.width_s).ln(),
            width_s,
            (tall / self.height).ln(),
            (height_of(&beat[P_WAVE], self.height) / self.p_height).ln(),
        ]
    }
}

/// The spread of the squared slope around its centre: about a third of a QRS complex's duration. At least 4 ms.
fn width_s(qrs: &[f32]) -> f32 {
    let slopes: Vec<f32> = qrs.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).collect();
    let total = slopes.iter().sum::<f32>().max(f32::MIN_POSITIVE);
    let centre =
        slopes.iter().enumerate().map(|(at, slope)| at as f32 * slope).sum::<f32>() / total;
    let moments = slopes.iter().enumerate().map(|(at, slope)| (at as f32 - centre).powi(2) * slope);
    let spread = (moments.sum::<f32>() / total).sqrt();
    (spread / SEGMENT_RATE.hz() as f32).max(0.004)
}

fn height(values: &[f32]) -> f32 {
    let (low, high) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    high - low
}

/// The height of a part, at least a hundredth of the whole.
fn height_of(part: &[f32], whole: f32) -> f32 {
    height(part).max(0.01 * whole)
}

fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    let norm = (aa * bb).sqrt();
    if norm > 0.0 { ab / norm } else { 0.0 }
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
