//! The baseline: what somebody would write by hand.
//!
//! Run length for stuck, Hampel's test for spikes (Davies, Gather, "The identification of multiple outliers", JASA 1993), a ratio of scatter for noise, distance
//! from the median for detached and drift (fast or slow on the way there), gaps and stamps for the rest. Thresholds were set by reasoning, not by a search.

use super::features::{FEATURES, Features, NAMES};
use super::{FaultKind, WINDOW};

/// What a rule says of each reading of a window.
pub fn judge(window: &Features) -> Vec<FaultKind> {
    let mut kinds: Vec<FaultKind> = (0..window.rows).map(|row| by_reading(window, row)).collect();
    let far: Vec<bool> = (0..window.rows)
        .map(|row| linear(number(window, row, "level")).abs() > FAR_SPREADS)
        .collect();
    let mut begin = 0;
    while begin < window.rows {
        let end = (begin..window.rows).find(|row| !far[*row]).unwrap_or(window.rows);
        if end - begin >= FAR_READINGS {
            let jumped = begin > 0 && linear(number(window, begin, "shift")).abs() > JUMP_NOISES
                || begin == 0;
            let kind = if jumped { FaultKind::Detached } else { FaultKind::Drift };
            for own in &mut kinds[begin..end] {
                if matches!(own, FaultKind::Sound | FaultKind::Spike) {
                    *own = kind;
                }
            }
        }
        begin = end.max(begin + 1);
    }
    kinds
}

/// A value this many spreads from the median, for [`FAR_READINGS`] in a row, is no longer the patient's.
const FAR_SPREADS: f32 = 3.0;
const FAR_READINGS: usize = 8;
/// The way there was a jump if the medians of five differ by so many noises.
const JUMP_NOISES: f32 = 8.0;
const SPIKE_NOISES: f32 = 6.0;
/// Scatter of so many times the usual.
const ROUGH: f32 = 2.5;
/// Odds of 1 to e⁹ against so long a run of equal values.
const RUN_SURPRISE: f32 = 9.0;
const RUN_READINGS: f32 = 10.0;
const MISSING_SHARE: f32 = 0.3;
const GAP_INTERVALS: f32 = 3.0;
const RATE: f32 = 0.25;

fn by_reading(window: &Features, row: usize) -> FaultKind {
    let own = |name| number(window, row, name);
    let gap = (own("gap") * 2.0).exp_m1();
    let rate = mean_rate(window, row);
    if own("stamp_stands") > 0.0 || own("stamp_behind") < 0.0 || rate.abs() > RATE && gap < 2.0 {
        return FaultKind::Clock;
    }
    if own("missing_near") > MISSING_SHARE && (own("missing") > 0.0 || gap >= 1.0)
        || gap >= GAP_INTERVALS
    {
        return FaultKind::Dropout;
    }
    let run = (own("run") * 3.0).exp_m1();
    if (own("run_surprise") * 3.0).exp_m1() > RUN_SURPRISE && run >= RUN_READINGS {
        return FaultKind::Stuck;
    }
    if linear(own("outlier")).abs() > SPIKE_NOISES && linear(own("bend")).abs() > SPIKE_NOISES / 2.0
    {
        return if own("roughness") > (ROUGH.ln()) * 0.5 {
            FaultKind::Noise
        } else {
            FaultKind::Spike
        };
    }
    if own("roughness") > ROUGH.ln() * 0.5 {
        return FaultKind::Noise;
    }
    FaultKind::Sound
}

/// How far the clock is off its usual interval over 13 readings, as a share.
fn mean_rate(window: &Features, row: usize) -> f32 {
    let near = row.saturating_sub(6)..(row + 7).min(window.rows);
    let count = near.len() as f32;
    near.map(|row| number(window, row, "clock_rate")).sum::<f32>() / count
}

fn number(window: &Features, row: usize, name: &str) -> f32 {
    let column = NAMES.iter().position(|own| *own == name).unwrap_or(0);
    window.numbers[row.min(WINDOW - 1) * FEATURES + column]
}

/// Undoes the squashing of features.
fn linear(squashed: f32) -> f32 {
    (squashed * 2.0).sinh()
}

#[cfg(test)]
mod tests {
    use super::super::features::features;
    use super::super::inject::{inject, tests::wave};
    use super::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    /// On a plain wave the rules find most of what is put in; that is what a baseline is for.
    #[test]
    fn plain_faults_are_found() {
        let (mut found, mut cases) = (0, 0);
        for seed in 0..40 {
            for kind in FaultKind::ALL.into_iter().skip(1) {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let Some(injected) = inject(&wave(500, seed), kind, None, &mut random) else {
                    continue;
                };
                let kinds = judge(&features(&injected.readings, None).unwrap());
                cases += 1;
                found += usize::from(kinds.contains(&kind));
            }
        }
        assert!(found * 10 > cases * 7, "{found} of {cases}");
        let sound = judge(&features(&wave(500, 1), None).unwrap());
        let wrong = sound.iter().filter(|kind| **kind != FaultKind::Sound).count();
        assert!(wrong < 5, "{sound:?}");
    }
}
