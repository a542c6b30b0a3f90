//! What the shape of the beats tells, and what lies between them.
//!
//! Beats are laid over each other and their median is the usual beat. Activity that is tied to the beat, such
//! as a P wave, survives the averaging; the waves of fibrillation do not. How much survives is the coherence:
//! the energy of the mean over the mean energy (signal-averaged P wave after Slocum, Sahakian & Swiryn 1992,
//! J Electrocardiol 25:1–8, as a ratio).

use super::signal::{Signal, WORKING_HZ};
use super::statistic::{Row, correlation, deviation, mean, median, quantile, share};
use std::ops::Range;

/// A beat's window around its R peak, in samples: 0.3 s before to 0.5 s after.
const BEFORE: usize = WORKING_HZ * 3 / 10;
const AFTER: usize = WORKING_HZ / 2;
const LENGTH: usize = BEFORE + AFTER;
/// How far a beat may be moved to lie on the usual one, in samples: 30 ms.
const SHIFT: usize = WORKING_HZ * 3 / 100;
/// Parts of the window.
const QRS: Range<usize> = at(-0.08)..at(0.12);
const P: Range<usize> = at(-0.25)..at(-0.07);
const T: Range<usize> = at(0.14)..at(0.45);
const PQ: Range<usize> = at(-0.07)..at(-0.045);
const ST: Range<usize> = at(0.08)..at(0.13);
/// A complex is like the usual one from this correlation.
const ALIKE: f64 = 0.85;
/// A beat comes early from this share of the usual interval.
const EARLY: f64 = 0.87;
/// A slope belongs to the complex from this share of the steepest.
const SLOPE: f64 = 0.12;

/// The usual beat in steps, from the start of the window.
const STEPS: [&str; 24] = [
    "beat_00", "beat_01", "beat_02", "beat_03", "beat_04", "beat_05", "beat_06", "beat_07",
    "beat_08", "beat_09", "beat_10", "beat_11", "beat_12", "beat_13", "beat_14", "beat_15",
    "beat_16", "beat_17", "beat_18", "beat_19", "beat_20", "beat_21", "beat_22", "beat_23",
];

const fn at(seconds: f64) -> usize {
    (BEFORE as f64 + seconds * WORKING_HZ as f64) as usize
}

/// Features of the beats; gives what is left of the signal when the usual beat is taken away from each.
pub(super) fn morphology(signal: &Signal, row: &mut Row) -> Vec<f32> {
    let clean = &signal.clean;
    let peaks: Vec<usize> = signal
        .peaks
        .iter()
        .copied()
        .filter(|peak| *peak >= BEFORE + SHIFT && peak + AFTER + SHIFT <= clean.len())
        .collect();
    let window = |peak: usize| -> Vec<f64> {
        clean[peak - BEFORE..peak + AFTER].iter().map(|value| f64::from(*value)).collect()
    };
    let first = usual(&peaks.iter().map(|peak| window(*peak)).collect::<Vec<_>>());
    let peaks: Vec<usize> = peaks.into_iter().map(|peak| best_place(clean, peak, &first)).collect();
    let beats: Vec<Vec<f64>> = peaks.iter().map(|peak| window(*peak)).collect();
    let template = usual(&beats);
    likeness(&peaks, &beats, &template, row);
    heights(&beats, row);
    waves(&template, row);
    coherence(&beats, &template, row);
    between(signal, row);
    residue(clean, &peaks, &template)
}

/// The median beat; zeros for none.
fn usual(beats: &[Vec<f64>]) -> Vec<f64> {
    if beats.is_empty() {
        return vec![0.0; LENGTH];
    }
    let column = |at: usize| median(&beats.iter().map(|beat| beat[at]).collect::<Vec<_>>());
    (0..LENGTH).map(column).collect()
}

/// Where the complex fits the usual one best.
fn best_place(clean: &[f32], peak: usize, template: &[f64]) -> usize {
    let fit = |place: usize| -> f64 {
        let start = place - BEFORE;
        let complex = &clean[start + QRS.start..start + QRS.end];
        complex.iter().zip(&template[QRS]).map(|(value, usual)| f64::from(*value) * usual).sum()
    };
    let place = |place: &usize| fit(*place);
    (peak - SHIFT..=peak + SHIFT).max_by(|a, b| place(a).total_cmp(&place(b))).unwrap_or(peak)
}

/// How alike the beats are, and what those that are not alike look like.
fn likeness(peaks: &[usize], beats: &[Vec<f64>], template: &[f64], row: &mut Row) {
    let alike = |range: Range<usize>| -> Vec<f64> {
        let usual = &template[range.clone()];
        beats.iter().map(|beat| correlation(&beat[range.clone()], usual)).collect()
    };
    let complexes = alike(QRS);
    let whole = alike(0..LENGTH);
    row.push("qrs_alike_mean", mean(&complexes));
    row.push("qrs_alike_least", quantile(&complexes, 0.0));
    row.push("qrs_alike_q05", quantile(&complexes, 0.05));
    row.push("qrs_alike_q20", quantile(&complexes, 0.2));
    row.push("qrs_alike_median", median(&complexes));
    row.push("qrs_unlike", share(&complexes, |alike| alike < ALIKE));
    row.push("qrs_unlike_count", (share(&complexes, |a| a < ALIKE) * beats.len() as f64).ln_1p());
    row.push("beat_alike_mean", mean(&whole));
    row.push("beat_alike_q10", quantile(&whole, 0.1));
    row.push("beat_alike_median", median(&whole));
    row.push("p_alike_median", median(&alike(P)));
    row.push("p_alike_q25", quantile(&alike(P), 0.25));
    row.push("t_alike_median", median(&alike(T)));
    row.push("t_alike_q25", quantile(&alike(T), 0.25));
    let intervals: Vec<f64> =
        peaks.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / WORKING_HZ as f64).collect();
    let usual = median(&intervals);
    let early = |beat: usize| beat > 0 && intervals[beat - 1] < EARLY * usual;
    let count =
        |holds: &dyn Fn(usize) -> bool| (0..beats.len()).filter(|b| holds(*b)).count() as f64;
    let strange = count(&|beat| early(beat) && complexes[beat] < ALIKE);
    let plain = count(&|beat| early(beat) && complexes[beat] >= ALIKE);
    row.push("early_unlike", strange / beats.len() as f64);
    row.push("early_unlike_count", strange.ln_1p());
    row.push("early_alike", plain / beats.len() as f64);
    row.push("early_alike_count", plain.ln_1p());
    let area = |beat: &[f64]| beat[QRS].iter().map(|value| value.abs()).sum::<f64>();
    let areas: Vec<f64> = beats.iter().map(|beat| area(beat) / area(template).max(1e-9)).collect();
    row.push("qrs_area_most", quantile(&areas, 1.0));
    row.push("qrs_area_q90", quantile(&areas, 0.9));
    row.push("qrs_area_least", quantile(&areas, 0.0));
    row.push("qrs_area_spread", quantile(&areas, 0.8) - quantile(&areas, 0.2));
}

fn heights(beats: &[Vec<f64>], row: &mut Row) {
    let peak = |beat: &Vec<f64>| beat[at(-0.03)..at(0.03)].iter().fold(0.0_f64, |a, b| a.max(*b));
    let heights: Vec<f64> = beats.iter().map(peak).collect();
    row.push("r_cv", deviation(&heights) / mean(&heights));
    row.push("r_least", quantile(&heights, 0.0));
    row.push("r_most", quantile(&heights, 1.0));
    let steps: Vec<f64> = heights.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    row.push("r_step", median(&steps));
}

/// Heights, places and widths of the waves of the usual beat.
fn waves(template: &[f64], row: &mut Row) {
    let base = mean(&template[PQ]);
    let beat: Vec<f64> = template.iter().map(|value| value - base).collect();
    let most = |range: Range<usize>| {
        let best =
            range.clone().max_by(|a, b| beat[*a].total_cmp(&beat[*b])).unwrap_or(range.start);
        (beat[best], (best as f64 - BEFORE as f64) / WORKING_HZ as f64)
    };
    let least = |range: Range<usize>| {
        let best =
            range.clone().min_by(|a, b| beat[*a].total_cmp(&beat[*b])).unwrap_or(range.start);
        (beat[best], (best as f64 - BEFORE as f64) / WORKING_HZ as f64)
    };
    row.push("r_height", most(QRS).0);
    row.push("q_depth", least(at(-0.07)..BEFORE).0);
    row.push("s_depth", least(BEFORE..at(0.1)).0);
    row.push("p_height", most(P).0);
    row.push("p_place", most(P).1);
    row.push("p_depth", least(P).0);
    row.push("p_mean", mean(&beat[P]));
    row.push("t_height", most(T).0);
    row.push("t_place", most(T).1);
    row.push("t_depth", least(T).0);
    row.push("t_depth_place", least(T).1);
    row.push("st_level", mean(&beat[ST]));
    let slopes: Vec<f64> = beat.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    let complex = at(-0.12)..at(0.16);
    let steepest = quantile(&slopes[complex.clone()], 1.0);
    let mut steep = complex.filter(|place| slopes[*place] > SLOPE * steepest);
    let begin = steep.next().unwrap_or(BEFORE);
    let end = steep.next_back().unwrap_or(begin);
    row.push("qrs_width", (end - begin) as f64 / WORKING_HZ as f64);
    row.push("qrs_begin", (BEFORE as f64 - begin as f64) / WORKING_HZ as f64);
    row.push("qrs_steepest", steepest);
    let above = beat[QRS].iter().filter(|value| value.abs() > 0.5 * most(QRS).0).count();
    row.push("qrs_half_width", above as f64 / WORKING_HZ as f64);
    let narrow: Vec<f64> = beat[QRS].windows(3).map(|s| s[0] - 2.0 * s[1] + s[2]).collect();
    let notches = narrow.windows(2).filter(|pair| pair[0] * pair[1] < 0.0).count();
    row.push("qrs_bends", notches as f64);
    for (name, step) in STEPS.into_iter().zip(beat.chunks(LENGTH / STEPS.len())) {
        row.push(name, mean(step));
    }
}

/// What of each part survives averaging, and how far the beats scatter around it.
fn coherence(beats: &[Vec<f64>], template: &[f64], row: &mut Row) {
    let names = [
        ("p_coherence", "p_scatter", P),
        ("qrs_coherence", "qrs_scatter", QRS),
        ("t_coherence", "t_scatter", T),
    ];
    for (coherence, scatter, range) in names {
        let centred = |beat: &[f64]| -> Vec<f64> {
            let part = &beat[range.clone()];
            let (middle, tilt) = (mean(part), (part[part.len() - 1] - part[0]) / part.len() as f64);
            let half = (part.len() - 1) as f64 / 2.0;
            part.iter().enumerate().map(|(i, v)| v - middle - tilt * (i as f64 - half)).collect()
        };
        let energy = |part: &[f64]| part.iter().map(|value| value * value).sum::<f64>();
        let parts: Vec<Vec<f64>> = beats.iter().map(|beat| centred(beat)).collect();
        let energies: Vec<f64> = parts.iter().map(|part| energy(part)).collect();
        // The median of the energies, for a single artefact should not drown what is there.
        let survives = energy(&centred(template)) / median(&energies).max(1e-9);
        row.push(coherence, if beats.is_empty() { f64::NAN } else { survives.ln_1p() });
        let off: Vec<f64> = beats
            .iter()
            .map(|beat| {
                let off: Vec<f64> = beat[range.clone()]
                    .iter()
                    .zip(&template[range.clone()])
                    .map(|(a, b)| a - b)
                    .collect();
                (energy(&off) / off.len() as f64).sqrt()
            })
            .collect();
        row.push(scatter, (median(&off) + 1e-3).ln());
    }
}

/// How quiet it is between the beats, away from complexes and T waves.
fn between(signal: &Signal, row: &mut Row) {
    let mut quiet = Vec::new();
    let mut crossings = Vec::new();
    for pair in signal.peaks.windows(2) {
        let interval = pair[1] - pair[0];
        let from = pair[0] + interval * 55 / 100;
        let to = pair[1].saturating_sub(WORKING_HZ / 12);
        if to > from + WORKING_HZ / 15 {
            let part: Vec<f64> =
                signal.clean[from..to].iter().map(|value| f64::from(*value)).collect();
            let middle = mean(&part);
            quiet.push(deviation(&part));
            let signs = part.windows(2).filter(|p| (p[0] - middle) * (p[1] - middle) < 0.0).count();
            crossings.push(signs as f64 * WORKING_HZ as f64 / part.len() as f64);
        }
    }
    row.push("rest_level", (median(&quiet) + 1e-3).ln());
    row.push("rest_level_q90", (quantile(&quiet, 0.9) + 1e-3).ln());
    row.push("rest_crossings", median(&crossings));
}

/// The signal without the usual beat at each peak, scaled to fit.
fn residue(clean: &[f32], peaks: &[usize], template: &[f64]) -> Vec<f32> {
    let mut residue = clean.to_vec();
    let energy: f64 = template[QRS].iter().map(|value| value * value).sum();
    let mut taken = 0;
    for (index, peak) in peaks.iter().enumerate() {
        let start = peak - BEFORE;
        let complex = &clean[start + QRS.start..start + QRS.end];
        let fit: f64 = complex
            .iter()
            .zip(&template[QRS])
            .map(|(value, usual)| f64::from(*value) * usual)
            .sum();
        let scale = if energy > 0.0 { (fit / energy).clamp(0.5, 2.0) } else { 0.0 };
        // A fast rhythm's windows overlap: each sample belongs to one beat only.
        let until = peaks.get(index + 1).map_or(clean.len(), |next| next - BEFORE.min(next - peak));
        let from = start.max(taken);
        taken = (start + LENGTH).min(until.max(peak + 1));
        for place in from..taken {
            residue[place] -= (scale * template[place - start]) as f32;
        }
    }
    residue
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_schema::SampleRate;
    use std::collections::BTreeMap;

    /// Beats with or without P wave every 0.8 s; every `odd`-th is early and broad.
    fn features(p: f64, odd: usize) -> (BTreeMap<&'static str, f32>, Vec<f32>) {
        let beats: Vec<f64> = (0..30)
            .map(|beat| 0.8 * f64::from(beat) + 0.5)
            .enumerate()
            .map(|(index, time)| if index % odd == odd - 1 { time - 0.25 } else { time })
            .collect();
        let mv: Vec<f32> = (0..300 * 25)
            .map(|sample| {
                let time = sample as f64 / 300.0;
                let bump = |place: f64, width: f64| (-0.5 * ((time - place) / width).powi(2)).exp();
                let wave = |(index, beat): (usize, &f64)| {
                    if index % odd == odd - 1 {
                        1.2 * bump(*beat, 0.03) - 0.7 * bump(beat + 0.08, 0.03)
                    } else {
                        bump(*beat, 0.012)
                            + p * bump(beat - 0.16, 0.025)
                            + 0.25 * bump(beat + 0.28, 0.04)
                    }
                };
                beats.iter().enumerate().map(wave).sum::<f64>() as f32
            })
            .collect();
        let signal = Signal::new(&mv, SampleRate::from_hz(300).unwrap()).unwrap();
        let mut row = Row::default();
        let residue = morphology(&signal, &mut row);
        (row.0.into_iter().collect(), residue)
    }

    #[test]
    fn waves_are_where_they_are() {
        let (with, residue) = features(0.15, 100);
        let (without, _) = features(0.0, 100);
        assert!((with["p_place"] + 0.16).abs() < 0.01 && (with["t_place"] - 0.28).abs() < 0.02);
        assert!(with["p_height"] > without["p_height"] + 0.08);
        assert!((0.03..0.12).contains(&with["qrs_width"]));
        assert!(with["qrs_alike_least"] > 0.99 && with["qrs_unlike"] == 0.0);
        assert!(residue[600..6_600].iter().all(|value| value.abs() < 0.1));
    }

    #[test]
    fn early_and_broad_beats_are_counted() {
        let (row, _) = features(0.15, 10);
        assert!((row["early_unlike_count"] - 3.0_f32.ln_1p()).abs() < 0.3, "{row:?}");
        assert!(row["qrs_area_most"] > 1.5);
    }

    #[test]
    fn without_beats_there_are_gaps_not_panics() {
        let rate = SampleRate::from_hz(300).unwrap();
        for mv in [vec![0.0; 10], vec![0.0; 3_000]] {
            let mut row = Row::default();
            let signal = Signal::new(&mv, rate).unwrap();
            assert_eq!(morphology(&signal, &mut row).len(), mv.len());
            assert_eq!(row.0.len(), features(0.1, 10).0.len());
        }
    }
}
