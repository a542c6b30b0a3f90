//! One lead of a beat beside the same lead of the dominant beat.

use super::input::{SEGMENT_BEFORE, SEGMENT_RATE, SEGMENT_SAMPLES};
use super::template::LeadBeats;
use std::ops::Range;

/// Numbers about the shape.
pub const SHAPE_FEATURES: usize = SHAPE_NAMES.len();
/// What they are, each clamped to ±3. First the measures of a lead, the largest of both leads where there are two; then the
/// same, the `least` of both; then about neighbours and the context. QRS is 80 ms before to 104 ms after the centre, P
/// 280 to 72 ms before, PQ 200 to 64 ms before, T 104 to 400 ms after. Differences are beat less template, in heights of the template: the
/// root mean square if nothing else is said. `best` is where the complexes lie best on each other within 32 ms. A width is the spread
/// of the squared slope, a third of a complex's duration; the half width the time beyond half the furthest value. `alike`
/// are the beats of the context whose QRS complexes correlate by 0.9 or more with this one's.
pub const SHAPE_NAMES: [&str; 62] = [
    "3 (1 - correlation of QRS)",
    "3 (1 - correlation of P)",
    "3 (1 - correlation of PQ)",
    "3 (1 - correlation of T)",
    "3 (1 - best correlation of QRS)",
    "10 difference of QRS",
    "10 difference of P",
    "10 difference of T",
    "4 ln(width / template's)",
    "(width - 50 ms) / 15 ms",
    "(template's width - 50 ms) / 15 ms",
    "2 ln(half width / template's)",
    "20 half width",
    "2 ln(height / template's)",
    "2 (peak - template's)",
    "2 (trough - template's)",
    "2 ln(slope / template's)",
    "2 ln(height of P / template's)",
    "5 least difference of P",
    "5 largest difference of P",
    "10 mean difference of PQ",
    "10 mean difference of T",
    "10 mean of T along QRS",
    "2 ln(height of template's P) + 4",
    "3 (1 - correlation of QRS with the beat before's)",
    "3 (1 - correlation of QRS with the beat after's)",
    "3 (1 - correlation of QRS), least",
    "3 (1 - correlation of P), least",
    "3 (1 - correlation of PQ), least",
    "3 (1 - correlation of T), least",
    "3 (1 - best correlation of QRS), least",
    "10 difference of QRS, least",
    "10 difference of P, least",
    "10 difference of T, least",
    "4 ln(width / template's), least",
    "(width - 50 ms) / 15 ms, least",
    "(template's width - 50 ms) / 15 ms, least",
    "2 ln(half width / template's), least",
    "20 half width, least",
    "2 ln(height / template's), least",
    "2 (peak - template's), least",
    "2 (trough - template's), least",
    "2 ln(slope / template's), least",
    "2 ln(height of P / template's), least",
    "5 least difference of P, least",
    "5 largest difference of P, least",
    "10 mean difference of PQ, least",
    "10 mean difference of T, least",
    "10 mean of T along QRS, least",
    "2 ln(height of template's P) + 4, least",
    "3 (1 - correlation of QRS with the beat before's), least",
    "3 (1 - correlation of QRS with the beat after's), least",
    "3 (1 - correlation of QRS) of the beat but one before",
    "3 (1 - correlation of QRS) of the beat before",
    "3 (1 - correlation of QRS) of the beat after",
    "3 (1 - correlation of QRS) of the beat but one after",
    "share of alike beats",
    "4 ln(pre / near), mean of alike beats",
    "4 ln((pre + post) / (2 near)), mean of alike beats",
    "4 ln(pre / near), spread of alike beats",
    "3 (1 - correlation of P), mean of dominant beats",
    "ln(beats of the context / 60)",
];

/// What a lead of a beat is measured by, in the order of [`Template::beside`].
pub(super) const MEASURES: usize = 26;
/// Samples of a beat.
pub(super) const SAMPLES: usize = SEGMENT_SAMPLES;

/// A template lower than this is a lead that is off.
const HEIGHT_MIN_MV: f32 = 0.05;
/// Samples by which a QRS complex may be moved to lie best on the template's.
const ALIGN: usize = 4;

pub(super) const QRS: Range<usize> = around(-80, 104);
const P_WAVE: Range<usize> = around(-280, -72);
const PQ: Range<usize> = around(-200, -64);
const T_WAVE: Range<usize> = around(104, 400);

const fn around(from_ms: i64, to_ms: i64) -> Range<usize> {
    let hz = SEGMENT_RATE.millihertz() as i64 / 1_000;
    let (from, to) = (from_ms * hz / 1_000, to_ms * hz / 1_000);
    (SEGMENT_BEFORE as i64 + from) as usize..(SEGMENT_BEFORE as i64 + to) as usize
}

/// The samples that a number of [`SHAPE_NAMES`] is computed from; `None` if it is not about the beat's own shape.
pub(super) fn span(number: usize) -> Option<Range<usize>> {
    let name = SHAPE_NAMES.get(number).filter(|_| number < 2 * MEASURES)?;
    let parts = [("PQ", PQ), ("of P", P_WAVE), ("template's P", P_WAVE), ("of T", T_WAVE)];
    let part = parts.into_iter().find(|(part, _)| name.contains(part));
    Some(part.map_or(QRS, |(_, span)| span))
}

/// A lead's dominant beat.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Template {
    /// [`SEGMENT_SAMPLES`] in millivolt.
    pub(crate) mv: Vec<f32>,
    /// Largest less smallest value.
    pub(crate) height: f32,
    width_s: f32,
    half_width_s: f32,
    slope: f32,
    p_height: f32,
}

impl Template {
    /// The mean of the lead's `members`; `None` without any or if it is flat.
    pub(super) fn new(lead: &LeadBeats<'_>, members: &[usize]) -> Option<Self> {
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
            half_width_s: half_width_s(&mv[QRS]),
            slope: slope(&mv[QRS]).max(f32::MIN_POSITIVE),
            p_height: height_of(&mv[P_WAVE], height),
            mv,
            height,
        })
    }

    /// The measures of a beat, `before` and `after` being its neighbours.
    pub(super) fn beside(
        &self,
        beat: &[f32],
        before: Option<&[f32]>,
        after: Option<&[f32]>,
    ) -> [f32; MEASURES] {
        let unlike = |part: Range<usize>| 1.0 - correlation(&beat[part.clone()], &self.mv[part]);
        let pairs = |part: Range<usize>| beat[part.clone()].iter().zip(&self.mv[part]);
        let difference = |part: Range<usize>| {
            let sum: f32 = pairs(part.clone()).map(|(a, b)| (a - b) * (a - b)).sum();
            (sum / part.len() as f32).sqrt() / self.height
        };
        let mean_off = |part: Range<usize>| {
            pairs(part.clone()).map(|(a, b)| a - b).sum::<f32>() / part.len() as f32 / self.height
        };
        let ends_off = |part: Range<usize>| {
            let off = pairs(part).map(|(a, b)| (a - b) / self.height);
            off.fold((0.0_f32, 0.0_f32), |(low, high), off| (low.min(off), high.max(off)))
        };
        let neighbour = |other: Option<&[f32]>| {
            other.map_or(0.0, |other| 1.0 - correlation(&beat[QRS], &other[QRS]))
        };
        let width = width_s(&beat[QRS]);
        let half = half_width_s(&beat[QRS]);
        let tall = height(&beat[QRS]).max(0.01 * self.height);
        let ((low, high), (own_low, own_high)) = (ends(&self.mv[QRS]), ends(&beat[QRS]));
        let (p_low, p_high) = ends_off(P_WAVE);
        let area: f32 = beat[QRS].iter().sum();
        let t_mean = beat[T_WAVE].iter().sum::<f32>() / T_WAVE.len() as f32;
        [
            3.0 * unlike(QRS),
            3.0 * unlike(P_WAVE),
            3.0 * unlike(PQ),
            3.0 * unlike(T_WAVE),
            3.0 * self.unlike_aligned(beat),
            10.0 * difference(QRS),
            10.0 * difference(P_WAVE),
            10.0 * difference(T_WAVE),
            4.0 * (width / self.width_s).ln(),
            (width - 0.05) / 0.015,
            (self.width_s - 0.05) / 0.015,
            2.0 * (half / self.half_width_s).ln(),
            20.0 * half,
            2.0 * (tall / self.height).ln(),
            2.0 * (own_high - high) / self.height,
            2.0 * (own_low - low) / self.height,
            2.0 * (slope(&beat[QRS]).max(0.01 * self.slope) / self.slope).ln(),
            2.0 * (height_of(&beat[P_WAVE], self.height) / self.p_height).ln(),
            5.0 * p_low,
            5.0 * p_high,
            10.0 * mean_off(PQ),
            10.0 * mean_off(T_WAVE),
            10.0 * t_mean / self.height * area.signum(),
            2.0 * (self.p_height / self.height).ln() + 4.0,
            3.0 * neighbour(before),
            3.0 * neighbour(after),
        ]
    }

    /// One less the correlation of the QRS complexes where they lie best on each other.
    fn unlike_aligned(&self, beat: &[f32]) -> f32 {
        let shifts = QRS.start - ALIGN..=QRS.start + ALIGN;
        let each = shifts.map(|from| correlation(&beat[from..from + QRS.len()], &self.mv[QRS]));
        1.0 - each.fold(-1.0, f32::max)
    }

    /// One less the correlation of P waves.
    pub(super) fn unlike_p(&self, beat: &[f32]) -> f32 {
        1.0 - correlation(&beat[P_WAVE], &self.mv[P_WAVE])
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

/// How long the values are further from their median than half the furthest.
fn half_width_s(qrs: &[f32]) -> f32 {
    let mut sorted = qrs.to_vec();
    sorted.sort_by(f32::total_cmp);
    let middle = sorted[sorted.len() / 2];
    let furthest = qrs.iter().fold(0.0_f32, |most, mv| most.max((mv - middle).abs()));
    let beyond = qrs.iter().filter(|mv| (*mv - middle).abs() > 0.5 * furthest).count();
    beyond.max(1) as f32 / SEGMENT_RATE.hz() as f32
}

/// The steepest step between samples.
fn slope(qrs: &[f32]) -> f32 {
    qrs.windows(2).fold(0.0, |most, pair| most.max((pair[1] - pair[0]).abs()))
}

fn ends(values: &[f32]) -> (f32, f32) {
    values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
}

fn height(values: &[f32]) -> f32 {
    let (low, high) = ends(values);
    high - low
}

/// The height of a part, at least a hundredth of the whole.
fn height_of(part: &[f32], whole: f32) -> f32 {
    height(part).max(0.01 * whole)
}

pub(super) fn correlation(a: &[f32], b: &[f32]) -> f32 {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A P wave, a QRS complex `scale` times as broad as usual and a T wave, in millivolt.
    fn beat(scale: f32, p: f32) -> Vec<f32> {
        let wave = |at: usize, centre: f32, width: f32, height: f32| {
            let away = (at as f32 - centre) / width;
            height * (-away * away).exp()
        };
        let centre = SEGMENT_BEFORE as f32;
        (0..SEGMENT_SAMPLES)
            .map(|at| {
                wave(at, centre - 20.0, 3.0, p)
                    + wave(at, centre, 2.0 * scale, 1.0)
                    + wave(at, centre + 35.0, 6.0, 0.3)
            })
            .collect()
    }

    fn measured(beat: &[f32], name: &str) -> f32 {
        let usual = self::beat(1.0, 0.15);
        let lead: LeadBeats<'_> = vec![Some(&usual); 3];
        let template = Template::new(&lead, &[0, 1, 2]).unwrap();
        let at = SHAPE_NAMES.iter().position(|other| *other == name).unwrap();
        template.beside(beat, Some(&usual), None)[at]
    }

    #[test]
    fn measures_stand_under_their_names() {
        let (usual, broad, turned) = (beat(1.0, 0.15), beat(2.5, 0.15), beat(1.0, -0.15));
        for name in &SHAPE_NAMES[..MEASURES] {
            if name.contains("of QRS") || name.contains("difference") {
                assert!(measured(&usual, name).abs() < 1e-3, "{name}");
            }
        }
        for name in ["3 (1 - correlation of QRS)", "4 ln(width / template's)"] {
            assert!(measured(&broad, name) > 0.3, "{name}");
            assert!(measured(&turned, name).abs() < 1e-3, "{name}");
        }
        assert!(measured(&turned, "3 (1 - correlation of P)") > 3.0);
        assert!(measured(&turned, "5 least difference of P") < -1.0);
        assert!(measured(&broad, "3 (1 - correlation of QRS with the beat before's)") > 0.3);
        assert_eq!(measured(&broad, "3 (1 - correlation of QRS with the beat after's)"), 0.0);
        // Moved by two samples it is the same complex.
        let moved: Vec<f32> = usual[2..].iter().chain(&usual[..2]).copied().collect();
        assert!(measured(&moved, "3 (1 - correlation of QRS)") > 0.3);
        assert!(measured(&moved, "3 (1 - best correlation of QRS)") < 1e-3);
    }

    #[test]
    fn numbers_lie_where_they_are_computed() {
        let of = |name: &str| span(SHAPE_NAMES.iter().position(|other| *other == name).unwrap());
        assert_eq!(of("3 (1 - correlation of QRS)"), Some(QRS));
        assert_eq!(of("5 least difference of P, least"), Some(P_WAVE));
        assert_eq!(of("10 mean difference of PQ"), Some(PQ));
        assert_eq!(of("10 difference of T"), Some(T_WAVE));
        assert_eq!(of("share of alike beats"), None);
    }
}
