//! A stretch of waveform on ECG paper, as it would come out of a recorder.
//!
//! 25 mm/s, and for an ECG 10 mm/mV (less for very large signals, and then said): a thin line every
//! millimetre (0.04 s, 0.1 mV), a bold one every five (0.2 s, 0.5 mV). Rows of ten seconds. One unit
//! of the drawing is a twentieth of a millimetre, so that a path is short whole-number steps.

use super::MAX_STRIP_ROWS;
use super::scale::clock;
use haar_schema::{Beat, MAX_TIME_SHARES, OverTime, SignalId, Strip};
use maud::{Markup, html};
use std::fmt::Write as _;
use std::ops::Range;

const UNITS_PER_MM: f64 = 20.0;
const SPEED_MM_PER_S: f64 = 25.0;
const ROW_S: f64 = 10.0;
/// Room for the calibration pulse, above the trace for beats, and below for the time; multiples of
/// 5 mm, so that bold lines fall on whole half millivolts.
const LEFT_MM: f64 = 10.0;
const TOP_MM: f64 = 10.0;
const BOTTOM_MM: f64 = 5.0;
/// A trace is at most this high; what is beyond is cut off at the edge, and said.
const MAX_TRACE_MM: f64 = 60.0;
/// Signals without a unit of their own are drawn this high.
const UNITLESS_MM: f64 = 30.0;
const USUAL_GAIN_MM_PER_MV: f64 = 10.0;
/// Tried in turn for what is too large.
const SMALLER_GAINS_MM_PER_MV: [f64; 3] = [5.0, 2.5, 1.0];
/// The darkest shade of an explanation, and what is too light to be drawn, of the darkest.
const SHADE_MOST: f64 = 0.55;
const SHADE_MIN: f64 = 0.05;
/// What counts as a spike: this share of the samples at either end.
const SPIKE_SHARE: f64 = 0.001;

/// Patterns that every strip on the page refers to; stands once in the page.
pub(super) fn patterns() -> Markup {
    html! {
        svg width="0" height="0" style="position:absolute" aria-hidden="true" {
            defs {
                pattern id="paper" width="100" height="100" patternUnits="userSpaceOnUse" {
                    path.minor d="M20 0V100M40 0V100M60 0V100M80 0V100M0 20H100M0 40H100M0 60H100M0 80H100" {}
                    path.major d="M0 0V100M0 0H100" {}
                }
                pattern id="gap" width="40" height="40" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    path.gapline d="M0 0V40" {}
                }
            }
        }
    }
}

/// The strip with its beats, and what its letters mean.
pub(crate) fn draw(strip: &Strip) -> Markup {
    explained(strip, None)
}

/// The same, shaded by what spoke for and against a model's word.
pub(super) fn explained(strip: &Strip, why: Option<&OverTime>) -> Markup {
    let Some(scale) = Vertical::of(strip) else {
        return html! { p.note { "The strip holds no sample: nothing was received." } };
    };
    let per_row = ((strip.rate_millihertz.hz() * ROW_S) as usize).max(1);
    let rows = strip.samples.len().div_ceil(per_row);
    let first = match why.map(|why| stretch(strip, why, 0).start / per_row) {
        Some(row) => row.min(rows.saturating_sub(MAX_STRIP_ROWS)),
        None => most_telling_row(strip, per_row, rows),
    };
    let last = (first + MAX_STRIP_ROWS).min(rows);
    let seconds = strip.samples.len() as f64 / strip.rate_millihertz.hz();
    html! {
        figure.strip {
            @for row in first..last {
                (draw_row(strip, &scale, row * per_row..((row + 1) * per_row).min(strip.samples.len()), why))
            }
            figcaption {
                b { (strip.signal.definition().title) } ", 25 mm/s, " (scale.said())
                @if last - first < rows {
                    ", " ((last - first) * ROW_S as usize) " s of " (format!("{seconds:.0}")) " s shown"
                }
                ". " (legend(strip))
                @if why.is_some() {
                    " Shaded: what spoke " span.for { "for" } " and " span.against { "against" } " the model's word."
                }
            }
        }
    }
}

/// How values become heights.
struct Vertical {
    /// The value on the top edge and on the bottom edge of the trace, physical.
    high: f64,
    low: f64,
    mm_per_unit: f64,
    /// mm/mV for an ECG, none for signals without a unit.
    gain: Option<f64>,
    cut: bool,
}

impl Vertical {
    fn of(strip: &Strip) -> Option<Self> {
        let factor = f64::from(strip.factor);
        let values = || strip.samples.iter().flatten().map(|sample| f64::from(*sample) * factor);
        let low = values().fold(f64::INFINITY, f64::min);
        let high = values().fold(f64::NEG_INFINITY, f64::max);
        if !(low.is_finite() && high.is_finite()) {
            return None;
        }
        if strip.signal != SignalId::ECG {
            let span = if high > low { high - low } else { 1.0 };
            let (low, high) = (low - span * 0.05, low + span * 1.05);
            let mm_per_unit = UNITLESS_MM / (high - low);
            return Some(Self { high, low, mm_per_unit, gain: None, cut: false });
        }
        let height_mm = |low, high, gain: f64| {
            let (low, high) = half_centimetres(low, high, gain);
            (high - low) * gain
        };
        // A spike is cut off before the rest is made too small to read.
        let (inner_low, inner_high) = if height_mm(low, high, USUAL_GAIN_MM_PER_MV) > MAX_TRACE_MM {
            without_spikes(values().collect())
        } else {
            (low, high)
        };
        let gain =
            SMALLER_GAINS_MM_PER_MV.into_iter().fold(USUAL_GAIN_MM_PER_MV, |gain, smaller| {
                let is_too_high = height_mm(inner_low, inner_high, gain) > MAX_TRACE_MM;
                if is_too_high { smaller } else { gain }
            });
        let (mut bottom, mut top) = half_centimetres(inner_low, inner_high, gain);
        if (top - bottom) * gain > MAX_TRACE_MM {
            let middle = ((bottom + top) / 2.0 * gain / 5.0).round() * 5.0 / gain;
            let half = MAX_TRACE_MM / 2.0 / gain;
            (bottom, top) = (middle - half, middle + half);
        }
        let cut = low < bottom || high > top;
        Some(Self { high: top, low: bottom, mm_per_unit: gain, gain: Some(gain), cut })
    }

    fn height_mm(&self) -> f64 {
        (self.high - self.low) * self.mm_per_unit
    }

    /// Twentieths of a millimetre from the top of the drawing.
    fn y(&self, value: f64) -> i64 {
        let mm = ((self.high - value) * self.mm_per_unit).clamp(0.0, self.height_mm());
        units(TOP_MM + mm)
    }

    fn said(&self) -> String {
        match (self.gain, self.cut) {
            (None, _) => "height to fit (the signal has no unit)".to_owned(),
            (Some(gain), false) => format!("{gain} mm/mV"),
            (Some(gain), true) => format!("{gain} mm/mV, spikes cut off at the edge"),
        }
    }
}

/// The bounds of all but the outermost [`SPIKE_SHARE`] of the values at either end.
fn without_spikes(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let spikes = (values.len() as f64 * SPIKE_SHARE).ceil() as usize;
    let last = values.len() - 1;
    (values[spikes.min(last / 2)], values[last - spikes.min(last / 2)])
}

/// Bounds on bold lines of the paper (5 mm), at least 20 mm apart.
fn half_centimetres(low: f64, high: f64, gain: f64) -> (f64, f64) {
    let step = 5.0 / gain;
    let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
    (low, high.max(low + 20.0 / gain))
}

fn units(mm: f64) -> i64 {
    (mm * UNITS_PER_MM).round() as i64
}

/// The row to begin with if not all fit: the one from which on the most abnormal beats are shown.
fn most_telling_row(strip: &Strip, per_row: usize, rows: usize) -> usize {
    let abnormal = |first: usize| {
        let shown = first * per_row..(first + MAX_STRIP_ROWS) * per_row;
        let beats = strip.beats.iter().filter(|beat| beat.class.is_some_and(|class| class != 'N'));
        beats.filter(|beat| shown.contains(&(beat.sample as usize))).count()
    };
    // Of equals the first: `max_by_key` takes the last, so the rows are walked backwards.
    (0..=rows.saturating_sub(MAX_STRIP_ROWS)).rev().max_by_key(|row| abnormal(*row)).unwrap_or(0)
}

fn draw_row(
    strip: &Strip,
    scale: &Vertical,
    shown: Range<usize>,
    why: Option<&OverTime>,
) -> Markup {
    let hz = strip.rate_millihertz.hz();
    let x = |index: usize| {
        units(LEFT_MM + (index.saturating_sub(shown.start)) as f64 / hz * SPEED_MM_PER_S)
    };
    let whole = strip.samples.len() as f64 / hz;
    let width_mm = (LEFT_MM + whole.min(ROW_S) * SPEED_MM_PER_S).max(60.0).ceil();
    let height_mm = (TOP_MM + scale.height_mm() + BOTTOM_MM).ceil();
    let (top, bottom) = (units(TOP_MM), units(TOP_MM + scale.height_mm()));
    let time = |index: usize| strip.rate_millihertz.sample_time(strip.start_us, index as u64);
    let beats: Vec<&Beat> =
        strip.beats.iter().filter(|beat| shown.contains(&(beat.sample as usize))).collect();
    let seconds = (shown.len() as f64 / hz).floor() as usize;
    html! {
        svg viewBox=(format!("0 0 {} {}", units(width_mm), units(height_mm))) role="img"
            style=(format!("max-width:{width_mm}mm")) {
            title {
                (strip.signal.definition().title) " from " (clock(time(shown.start))) " UTC, "
                (beats.len()) " beats detected"
            }
            rect.sheet width="100%" height="100%" {}
            rect width="100%" height="100%" fill="url(#paper)" {}
            (calibration(scale, bottom))
            @for (class, opacity, lit) in shades(strip, why, &shown) {
                rect class=(class) x=(x(lit.start)) y=(top) width=(x(lit.end) - x(lit.start))
                    height=(bottom - top) fill-opacity=(format!("{opacity:.2}")) {}
            }
            @for gap in gaps(strip, &shown) {
                @let (from, to) = (x(gap.start), x(gap.end));
                rect.gap x=(from) y=(top) width=(to - from) height=(bottom - top) fill="url(#gap)" {
                    title { "Nothing was received here" }
                }
                @if to - from > 400 {
                    text.missing x=((from + to) / 2) y=((top + bottom) / 2) text-anchor="middle" { "no signal" }
                }
            }
            path.trace d=(path(strip, scale, &shown, x)) {}
            @for beat in &beats {
                @let at = x(beat.sample as usize);
                g class=(format!("beat {}", beat_class(beat.class))) {
                    path d=(format!("M{at} 110V{}", top)) {}
                    text x=(at) y="90" text-anchor="middle" { (beat.class.unwrap_or('•')) }
                }
            }
            @for second in (0..=seconds).step_by(2) {
                @let index = shown.start + (second as f64 * hz) as usize;
                text.clock x=(x(index)) y=(units(height_mm) - 24) { (clock(time(index))) }
            }
        }
    }
}

/// The samples of a stretch of an explanation; clipped to the strip.
fn stretch(strip: &Strip, why: &OverTime, at: usize) -> Range<usize> {
    let sample = |at: usize| {
        let since =
            why.start_us.micros_since(strip.start_us) as f64 + at as f64 * f64::from(why.step_us);
        let sample = (since / 1e6 * strip.rate_millihertz.hz()).round().max(0.0);
        (sample as usize).min(strip.samples.len())
    };
    sample(at)..sample(at + 1)
}

/// Class, opacity and samples of the shades in a row. What counts for less than a twentieth of the most is left white.
fn shades(
    strip: &Strip,
    why: Option<&OverTime>,
    shown: &Range<usize>,
) -> Vec<(&'static str, f64, Range<usize>)> {
    let Some(why) = why else { return Vec::new() };
    let most = why.shares.iter().fold(f64::MIN_POSITIVE, |most, share| most.max(share.abs()));
    let shares = why.shares.iter().enumerate().take(MAX_TIME_SHARES);
    let visible = shares.filter(|(_, share)| share.abs() > SHADE_MIN * most);
    visible
        .map(|(at, share)| {
            let lit = stretch(strip, why, at);
            let lit =
                lit.start.clamp(shown.start, shown.end)..lit.end.clamp(shown.start, shown.end);
            (if *share > 0.0 { "for" } else { "against" }, SHADE_MOST * share.abs() / most, lit)
        })
        .filter(|(_, _, lit)| !lit.is_empty())
        .collect()
}

/// The trace: a new stroke behind every gap, each a run of relative steps.
fn path(strip: &Strip, scale: &Vertical, shown: &Range<usize>, x: impl Fn(usize) -> i64) -> String {
    let mut path = String::new();
    let mut pen: Option<(i64, i64)> = None;
    for index in shown.clone() {
        let Some(sample) = strip.samples.get(index).copied().flatten() else {
            pen = None;
            continue;
        };
        let (to_x, to_y) = (x(index), scale.y(f64::from(sample) * f64::from(strip.factor)));
        // Writing into a string does not fail.
        let _ = match pen {
            // `h0` makes a lone sample a dot, with round line ends.
            None => write!(path, "M{to_x} {to_y}h0l"),
            Some((at_x, at_y)) => write!(path, "{} {} ", to_x - at_x, to_y - at_y),
        };
        pen = Some((to_x, to_y));
    }
    // A stroke of one sample leaves its `l` without a step.
    path.replace("lM", "M").trim_end_matches(['l', ' ']).to_owned()
}

/// The stretches without samples.
fn gaps(strip: &Strip, shown: &Range<usize>) -> Vec<Range<usize>> {
    let mut gaps: Vec<Range<usize>> = Vec::new();
    for index in shown.clone().filter(|index| strip.samples.get(*index).is_none_or(Option::is_none))
    {
        match gaps.last_mut() {
            Some(gap) if gap.end == index => gap.end = index + 1,
            _ => gaps.push(index..index + 1),
        }
    }
    gaps
}

/// The pulse of one millivolt and 0.2 s in the margin.
fn calibration(scale: &Vertical, bottom: i64) -> Markup {
    let Some(gain) = scale.gain else { return html! {} };
    html! {
        path.calibration d=(format!("M20 {bottom}h20v{}h100v{}h20", -units(gain), units(gain))) {
            title { "Calibration: 1 mV, 0.2 s" }
        }
    }
}

fn beat_class(class: Option<char>) -> &'static str {
    match class {
        Some('N') => "beat-n",
        Some('S') => "beat-s",
        Some('V') => "beat-v",
        Some('F') => "beat-f",
        Some('Q') => "beat-q",
        _ => "beat-unknown",
    }
}

/// The letters that occur, in words (AAMI EC57 classes).
fn legend(strip: &Strip) -> Markup {
    const CLASSES: [(Option<char>, &str); 6] = [
        (Some('N'), "normal"),
        (Some('S'), "supraventricular ectopic"),
        (Some('V'), "ventricular ectopic"),
        (Some('F'), "fusion"),
        (Some('Q'), "paced or unclassifiable"),
        (None, "detected, not classified"),
    ];
    let occurs = |class: Option<char>| strip.beats.iter().any(|beat| beat.class == class);
    if strip.beats.is_empty() {
        return html! { "No beat detected." };
    }
    let known: Vec<_> = CLASSES.into_iter().filter(|(class, _)| occurs(*class)).collect();
    html! {
        // Other marks than classes are explained by whoever put them there.
        @if !known.is_empty() { "Beats: " }
        @for (class, meaning) in known {
            span class=(format!("key {}", beat_class(class))) { b { (class.unwrap_or('•')) } " " (meaning) }
            " "
        }
    }
}
