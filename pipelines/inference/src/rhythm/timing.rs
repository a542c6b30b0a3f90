//! What the timing of the beats tells.
//!
//! - Sample entropy for short series: Lake & Moorman 2011, Am J Physiol Heart Circ Physiol 300:H319–H325, by
//!   [`RrSeries::irregularity`].
//! - Plot of successive differences: Sarkar, Ritscher & Mehra 2008, IEEE Trans Biomed Eng 55:1219–1224. Bins are
//!   of 40 ms as there; the counts are taken as shares of the pairs, because recordings are of any length.
//! - Turning points: Dash et al. 2009, Ann Biomed Eng 37:1701–1709.
//! - Poincaré plot: Brennan, Palaniswami & Kamen 2001, IEEE Trans Biomed Eng 48:1342–1347.

use super::statistic::{Row, correlation, deviation, entropy, mean, median, quantile, share};
use haar_signals::ecg::RrSeries;
use std::collections::BTreeSet;

/// Bin of the plot of successive differences, and the half-width of its origin, in s (Sarkar 2008).
const LORENZ_BIN_S: f64 = 0.04;
const LORENZ_ORIGIN_S: f64 = 0.08;
/// An interval is premature, or a pause, from this ratio to the usual one around it.
const PREMATURE: f64 = 0.85;
const PAUSE: f64 = 1.3;
/// Intervals on either side that say what is usual.
const AROUND: usize = 5;
/// Intervals in a run over which the least and the most irregular stretch are sought.
const STRETCH: usize = 8;

/// Features of beats at `beats_s` (rising) in a recording of `seconds`.
pub(super) fn timing(beats_s: &[f64], seconds: f64, row: &mut Row) {
    let rr: Vec<f64> = beats_s.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let usual = median(&rr);
    let relative: Vec<f64> = rr.iter().map(|rr| rr / usual).collect();
    let steps: Vec<f64> = relative.windows(2).map(|pair| pair[1] - pair[0]).collect();
    row.push("seconds", seconds);
    row.push("beats", (beats_s.len() as f64).ln_1p());
    row.push("rate", beats_s.len() as f64 / seconds);
    row.push("rr_median", usual);
    row.push("rr_mean", mean(&relative));
    spread(&rr, &relative, row);
    differences(&rr, &steps, row);
    order(&relative, &steps, row);
    row.push(
        "rr_cosen",
        RrSeries::from_intervals_ms(rr.iter().map(|rr| rr * 1e3))
            .irregularity()
            .unwrap_or(f64::NAN),
    );
    lorenz(&rr, row);
    ectopy(&relative, row);
    stretches(&rr, row);
}

fn spread(rr: &[f64], relative: &[f64], row: &mut Row) {
    for (name, q) in [
        ("rr_least", 0.0),
        ("rr_q05", 0.05),
        ("rr_q10", 0.1),
        ("rr_q25", 0.25),
        ("rr_q75", 0.75),
        ("rr_q90", 0.9),
        ("rr_q95", 0.95),
        ("rr_most", 1.0),
    ] {
        row.push(name, quantile(relative, q));
    }
    row.push("rr_longest_s", quantile(rr, 1.0));
    row.push("rr_shortest_s", quantile(rr, 0.0));
    row.push("rr_cv", deviation(relative) / mean(relative));
    let off: Vec<f64> = relative.iter().map(|rr| (rr - 1.0).abs()).collect();
    row.push("rr_mad", median(&off));
    row.push("rr_within_3", share(&off, |off| off < 0.03));
    row.push("rr_within_6", share(&off, |off| off < 0.06));
    row.push("rr_within_12", share(&off, |off| off < 0.12));
    row.push("rr_entropy", entropy(relative, 0.06));
    let (least, most) = (quantile(relative, 0.0), quantile(relative, 1.0));
    let mut sorted = relative.to_vec();
    sorted.sort_by(f64::total_cmp);
    let gaps: Vec<f64> = sorted.windows(2).map(|pair| pair[1] - pair[0]).collect();
    row.push("rr_gap", quantile(&gaps, 1.0) / (most - least).max(1e-3));
}

fn differences(rr: &[f64], steps: &[f64], row: &mut Row) {
    let sizes: Vec<f64> = steps.iter().map(|step| step.abs()).collect();
    let ms: Vec<f64> = rr.windows(2).map(|pair| (pair[1] - pair[0]).abs() * 1e3).collect();
    let squares: Vec<f64> = steps.iter().map(|step| step * step).collect();
    row.push("step_rms", mean(&squares).sqrt());
    for (name, q) in
        [("step_q25", 0.25), ("step_median", 0.5), ("step_q75", 0.75), ("step_q90", 0.9)]
    {
        row.push(name, quantile(&sizes, q));
    }
    row.push("step_over_20ms", share(&ms, |ms| ms > 20.0));
    row.push("step_over_50ms", share(&ms, |ms| ms > 50.0));
    row.push("step_over_100ms", share(&ms, |ms| ms > 100.0));
    row.push("step_over_200ms", share(&ms, |ms| ms > 200.0));
    row.push("step_entropy", entropy(steps, 0.06));
    // Half the variance of the differences lies across the diagonal of the Poincaré plot, the rest along it.
    let across = mean(&squares) / 2.0;
    let usual = median(rr);
    let along = (2.0 * (deviation(rr) / usual).powi(2) - across).max(0.0);
    row.push("poincare_across", across.sqrt());
    row.push("poincare_along", along.sqrt());
    row.push("poincare_ratio", across.sqrt() / (along.sqrt() + 1e-3));
    let second: Vec<f64> = rr.windows(3).map(|t| ((t[2] - t[0]) / usual).abs()).collect();
    row.push("second_step_median", median(&second));
    row.push("second_step_q90", quantile(&second, 0.9));
}

fn order(relative: &[f64], steps: &[f64], row: &mut Row) {
    let turning: Vec<f64> = steps.windows(2).map(|pair| pair[0] * pair[1]).collect();
    row.push("turning_points", share(&turning, |product| product < 0.0));
    let swings: Vec<f64> = steps
        .windows(2)
        .map(|p| f64::from(u8::from(p[0] * p[1] < 0.0 && p[0].abs().min(p[1].abs()) > 0.1)))
        .collect();
    row.push("alternation", mean(&swings));
    for (name, lag) in [("echo_1", 1), ("echo_2", 2), ("echo_3", 3), ("echo_4", 4)] {
        let pair = (relative.get(lag..), relative.get(..relative.len().saturating_sub(lag)));
        let echo = match pair {
            (Some(late), Some(early)) if late.len() > 4 => correlation(early, late),
            _ => f64::NAN,
        };
        row.push(name, echo);
    }
    let places: Vec<f64> = (0..relative.len()).map(|place| place as f64).collect();
    row.push("trend", correlation(&places, relative).powi(2));
}

/// Where pairs of successive differences lie.
fn lorenz(rr: &[f64], row: &mut Row) {
    let steps: Vec<f64> = rr.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let pairs: Vec<(f64, f64)> = steps.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let count = pairs.len() as f64;
    let of = |holds: &dyn Fn(f64, f64) -> bool| {
        pairs.iter().filter(|pair| holds(pair.0, pair.1)).count() as f64 / count
    };
    let far = |x: f64| x.abs() > LORENZ_ORIGIN_S;
    let origin = of(&|x, y| !far(x) && !far(y));
    let bin = |x: f64| (x / LORENZ_BIN_S).floor() as i64;
    let bins: BTreeSet<(i64, i64)> =
        pairs.iter().filter(|(x, y)| far(*x) || far(*y)).map(|(x, y)| (bin(*x), bin(*y))).collect();
    let spread = bins.len() as f64 / count;
    row.push("lorenz_origin", origin);
    row.push("lorenz_spread", spread);
    row.push("lorenz_crowded", 1.0 - origin - spread);
    row.push("lorenz_short_long", of(&|x, y| x < -LORENZ_ORIGIN_S && y > LORENZ_ORIGIN_S));
    row.push("lorenz_long_short", of(&|x, y| x > LORENZ_ORIGIN_S && y < -LORENZ_ORIGIN_S));
    row.push("lorenz_same_way", of(&|x, y| far(x) && far(y) && x * y > 0.0));
    row.push("lorenz_one_axis", of(&|x, y| far(x) != far(y)));
}

/// Each interval's ratio to the median of those around it, without itself.
fn local_ratios(relative: &[f64]) -> Vec<f64> {
    (0..relative.len())
        .map(|at| {
            let around = at.saturating_sub(AROUND)..(at + AROUND + 1).min(relative.len());
            let others: Vec<f64> =
                around.filter(|other| *other != at).map(|other| relative[other]).collect();
            relative[at] / median(&others)
        })
        .collect()
}

fn ectopy(relative: &[f64], row: &mut Row) {
    let ratios = local_ratios(relative);
    let count = ratios.len() as f64;
    let next = |at: usize| ratios.get(at + 1).copied().unwrap_or(f64::NAN);
    let early: Vec<usize> = (0..ratios.len()).filter(|at| ratios[*at] < PREMATURE).collect();
    let paused = early.iter().filter(|at| next(**at) > 1.08).count() as f64;
    let sums: Vec<f64> = early.iter().map(|at| ratios[*at] + next(*at)).collect();
    row.push("early", early.len() as f64 / count);
    row.push("early_count", (early.len() as f64).ln_1p());
    row.push("early_paused", paused / count);
    row.push("early_paused_count", paused.ln_1p());
    row.push("early_sum", if sums.is_empty() { 2.0 } else { median(&sums) });
    row.push("earliest", quantile(&ratios, 0.0));
    row.push("latest", quantile(&ratios, 1.0));
    row.push("pauses", share(&ratios, |ratio| ratio > PAUSE));
    row.push("pauses_count", (share(&ratios, |ratio| ratio > PAUSE) * count).ln_1p());
    row.push("double", share(&ratios, |ratio| (1.8..2.2).contains(&ratio)));
    row.push("half", share(&ratios, |ratio| ratio < 0.6));
    // What remains without early beats and the pauses after them.
    let kept: Vec<bool> = (0..ratios.len())
        .map(|at| {
            (PREMATURE..PAUSE).contains(&ratios[at]) && (at == 0 || ratios[at - 1] >= PREMATURE)
        })
        .collect();
    let rest: Vec<f64> = (0..ratios.len()).filter(|at| kept[*at]).map(|at| relative[at]).collect();
    let steps: Vec<f64> = (1..ratios.len())
        .filter(|at| kept[*at] && kept[at - 1])
        .map(|at| (relative[at] - relative[at - 1]).abs())
        .collect();
    row.push("rest_share", rest.len() as f64 / count);
    row.push("rest_cv", deviation(&rest) / mean(&rest));
    row.push("rest_step_mean", mean(&steps));
    row.push("rest_step_median", median(&steps));
    row.push("rest_step_q90", quantile(&steps, 0.9));
}

/// The most and the least irregular, the fastest and the slowest stretch.
fn stretches(rr: &[f64], row: &mut Row) {
    let stretches: Vec<&[f64]> = rr.windows(STRETCH).collect();
    let cvs: Vec<f64> = stretches.iter().map(|s| deviation(s) / mean(s)).collect();
    let rates: Vec<f64> = stretches.iter().map(|s| 1.0 / mean(s)).collect();
    let steps: Vec<f64> = stretches
        .iter()
        .map(|s| {
            let steps: Vec<f64> = s.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
            median(&steps) / mean(s)
        })
        .collect();
    row.push("stretch_cv_least", quantile(&cvs, 0.0));
    row.push("stretch_cv_median", median(&cvs));
    row.push("stretch_cv_most", quantile(&cvs, 1.0));
    row.push("stretch_step_least", quantile(&steps, 0.0));
    row.push("stretch_step_most", quantile(&steps, 1.0));
    row.push("stretch_rate_least", quantile(&rates, 0.0));
    row.push("stretch_rate_most", quantile(&rates, 1.0));
    let longest = rr
        .windows(2)
        .fold((0_u32, 0_u32), |(run, most), pair| {
            let run = if (pair[1] - pair[0]).abs() < 0.06 * pair[0] { run + 1 } else { 0 };
            (run, most.max(run))
        })
        .1;
    row.push("regular_run", f64::from(longest) / rr.len() as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(intervals: &[f64]) -> std::collections::BTreeMap<&'static str, f32> {
        let mut at = 0.5;
        let mut beats = vec![at];
        for interval in intervals {
            at += interval;
            beats.push(at);
        }
        let mut row = Row::default();
        timing(&beats, at + 0.5, &mut row);
        row.0.into_iter().collect()
    }

    #[test]
    fn a_regular_rhythm_with_one_early_beat() {
        let mut intervals = vec![0.8; 30];
        intervals[10] = 0.5;
        intervals[11] = 1.1;
        let row = of(&intervals);
        assert_eq!(row["rr_median"], 0.8);
        assert!((row["early_count"] - 2.0_f32.ln()).abs() < 1e-6);
        assert!((row["early_sum"] - 2.0).abs() < 1e-6);
        assert!(row["rest_cv"] < 1e-6 && row["rr_cv"] > 0.05);
        assert_eq!(row["stretch_cv_least"], 0.0);
        assert!((row["rr_shortest_s"] - 0.5).abs() < 1e-6);
    }

    #[test]
    fn fibrillation_is_spread_and_bigeminy_crowded() {
        let irregular: Vec<f64> =
            (0..40_u32).map(|i| 0.4 + f64::from(i * i * 7_919 % 700) / 1e3).collect();
        let bigeminy: Vec<f64> = (0..40).map(|i| if i % 2 == 0 { 0.5 } else { 1.0 }).collect();
        let (irregular, bigeminy) = (of(&irregular), of(&bigeminy));
        let (spread, crowded) = (irregular["lorenz_spread"], bigeminy["lorenz_spread"]);
        assert!(spread > 2.0 * crowded && crowded < 0.2, "{spread} {crowded}");
        assert!(bigeminy["alternation"] > 0.99 && bigeminy["echo_2"] > 0.99);
        assert!(irregular["rr_cosen"] > bigeminy["rr_cosen"]);
    }

    #[test]
    fn few_beats_leave_gaps_not_panics() {
        for count in 0..6 {
            let row = of(&vec![0.8; count]);
            assert_eq!(row.len(), of(&[0.8; 30]).len());
        }
    }
}
