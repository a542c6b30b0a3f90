//! Heart rate variability of a window of NN intervals: in time, in frequency, and non-linear.
//!
//! Definitions, bands and lengths: Task Force of the ESC and NASPE 1996, Circulation 93:1043–1065. The
//! measures take an [`NnSeries`], so that artefacts and ectopic beats are out before anything is counted.
//! Differences and scatter are taken only between intervals that follow each other in time. Variances are
//! those of samples (n − 1).
//!
//! The spectrum is the Lomb–Scargle periodogram of the intervals at the times at which they end, which
//! needs neither resampling nor repaired artefacts (Laguna, Moody & Mark 1998, IEEE Trans Biomed Eng
//! 45:698–715). Interval lengths in ms, spectral power in ms².
//!
//! A measure for which a window is too short or too empty is an error that says what is missing. The limits
//! are those at which a measure means something, not those at which it is precise. HRV tells of a sinus
//! rhythm: in atrial fibrillation, pacing or with many ectopic beats the numbers come out, and mean nothing.

use super::nn::NnSeries;
use crate::lomb::{Grid, MAX_FREQUENCIES, lomb_scargle};

/// The bands of short recordings, in Hz: VLF from the first to the second, LF, HF up to the last.
pub const BANDS_HZ: [f64; 4] = [0.003_3, 0.04, 0.15, 0.4];

/// The shortest span for HF, LF and VLF in seconds. The Task Force asks for about one, two and five minutes;
/// five minutes less the interval that the first beat lacks, and a gap.
pub const MIN_SPAN_S: [f64; 3] = [55.0, 115.0, 270.0];

/// The fewest NN intervals for a spectrum.
pub const MIN_SPECTRUM_INTERVALS: usize = 30;

/// The fewest NN intervals for entropy and fluctuation analysis.
pub const MIN_COMPLEXITY_INTERVALS: usize = 64;

/// The most NN intervals for the entropy, which is quadratic in them: about an hour. Of more the last are
/// taken.
pub const MAX_ENTROPY_INTERVALS: usize = 5_000;

/// Frequencies in one inverse span: half of it apart, so that no peak falls between two.
const OVERSAMPLING: f64 = 2.0;

/// Width of a bin of the triangular index in ms: 1/128 s (Task Force 1996).
const BIN_MS: f64 = 7.812_5;

/// Tolerance of the sample entropy in standard deviations (Richman & Moorman 2000).
const ENTROPY_TOLERANCE: f64 = 0.2;

/// Box lengths of the short-term scaling exponent in beats (Peng et al. 1995).
const SCALES: std::ops::RangeInclusive<usize> = 4..=16;

/// Why a measure cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HrvError {
    /// Too few intervals, or neighbouring pairs of them.
    #[error("{found} usable NN intervals, {needed} are needed: take a longer window")]
    TooFew {
        /// Intervals or pairs that there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The intervals span too little time for the band.
    #[error("the NN intervals span {span_s:.0} s, {needed_s:.0} are needed: take a longer window")]
    TooShort {
        /// From the start of the first to the end of the last.
        span_s: f64,
        /// The shortest span for the band.
        needed_s: f64,
    },
    /// The measure is a ratio or a logarithm of nothing.
    #[error("the intervals do not vary in the way that this measure is about: leave it out")]
    Undefined,
}

/// Measures in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeDomain {
    /// Mean NN interval.
    pub mean_nn_ms: f64,
    /// Mean heart rate over the NN intervals, per minute.
    pub heart_rate: f64,
    /// Standard deviation of the NN intervals.
    pub sdnn_ms: f64,
    /// Root mean square of successive differences.
    pub rmssd_ms: f64,
    /// Standard deviation of successive differences; zero for a single pair.
    pub sdsd_ms: f64,
    /// Successive differences of more than 50 ms either way, per cent.
    pub pnn50_percent: f64,
    /// Intervals per interval in the fullest bin of 1/128 s: the HRV triangular index, dimensionless. The
    /// Task Force wants 20 minutes for it; in five it is small and coarse.
    pub triangular_index: f64,
}

/// Measures in frequency. A band for which the window is too short is absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrequencyDomain {
    /// 0.0033–0.04 Hz.
    pub vlf_ms2: Option<f64>,
    /// 0.04–0.15 Hz.
    pub lf_ms2: Option<f64>,
    /// 0.15–0.4 Hz.
    pub hf_ms2: f64,
    /// LF by HF; absent too if HF is zero.
    pub lf_hf: Option<f64>,
    /// LF in per cent of LF and HF (total power less VLF).
    pub lf_normalised: Option<f64>,
    /// HF in per cent of LF and HF.
    pub hf_normalised: Option<f64>,
    /// Where HF is highest: near the breathing rate, if that lies in the band.
    pub hf_peak_hz: f64,
}

/// Scatter of each interval against the one before: an ellipse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Poincare {
    /// Across the line of identity: short-term variability.
    pub sd1_ms: f64,
    /// Along it: long-term variability.
    pub sd2_ms: f64,
}

/// The measures in time; at least two NN intervals of which two follow each other.
pub fn time_domain(nn: &NnSeries) -> Result<TimeDomain, HrvError> {
    let ms = nn.intervals_ms();
    enough(ms.len(), 2)?;
    let (mut differences, mut sum, mut squares, mut over_50) = (0_usize, 0.0, 0.0, 0_usize);
    for (before, after) in nn.pairs() {
        let difference = after - before;
        differences += 1;
        sum += difference;
        squares += difference * difference;
        over_50 += usize::from(difference.abs() > 50.0);
    }
    enough(differences, 1)?;
    let count = differences as f64;
    let spread = (squares - sum * sum / count).max(0.0);
    let mean_nn_ms = mean(ms);
    Ok(TimeDomain {
        mean_nn_ms,
        heart_rate: 60_000.0 / mean_nn_ms,
        sdnn_ms: variance(ms, mean_nn_ms).sqrt(),
        rmssd_ms: (squares / count).sqrt(),
        sdsd_ms: (spread / (count - 1.0).max(1.0)).sqrt(),
        pnn50_percent: 100.0 * over_50 as f64 / count,
        triangular_index: triangular_index(ms),
    })
}

/// The power in the bands.
///
/// Lomb–Scargle at two frequencies per inverse span from one such step up to 0.4 Hz, mean taken off, no
/// window and no detrending (a drift shows as VLF). Scaled as a one-sided density (2·P·T/N, ms²/Hz) and
/// summed over the band: a sinusoidal modulation of amplitude A ms has A²/2 ms², to a few per cent.
/// Above half the heart rate (below 48 beats per minute within HF) power is that of aliases.
pub fn frequency_domain(nn: &NnSeries) -> Result<FrequencyDomain, HrvError> {
    let ms = nn.intervals_ms();
    enough(ms.len(), MIN_SPECTRUM_INTERVALS)?;
    let ends_s = nn.ends_s();
    let span_s = ends_s[ends_s.len() - 1] - ends_s[0] + ms[0] * 1e-3;
    let [min_hf_s, min_lf_s, min_vlf_s] = MIN_SPAN_S;
    if span_s < min_hf_s {
        return Err(HrvError::TooShort { span_s, needed_s: min_hf_s });
    }
    let mean_ms = mean(ms);
    let centred: Vec<f64> = ms.iter().map(|ms| ms - mean_ms).collect();
    let [vlf_hz, lf_hz, hf_hz, end_hz] = BANDS_HZ;
    // Of a window of many hours the grid would be endless; then it is as fine as the limit allows.
    let step_hz = (1.0 / (OVERSAMPLING * span_s)).max(end_hz / MAX_FREQUENCIES as f64);
    let grid = Grid { first_hz: step_hz, step_hz, count: (end_hz / step_hz) as usize };
    let powers = lomb_scargle(ends_s, &centred, grid);
    let scale = 2.0 * span_s / ms.len() as f64 * step_hz;
    let within = |from_hz: f64, to_hz: f64| {
        let first = (from_hz / step_hz - 1.0).ceil().max(0.0) as usize;
        let end = ((to_hz / step_hz - 1.0).ceil().max(0.0) as usize).min(powers.len());
        (first, powers.get(first..end).unwrap_or_default())
    };
    let band = |from_hz, to_hz| scale * within(from_hz, to_hz).1.iter().sum::<f64>();
    let hf_ms2 = band(hf_hz, end_hz);
    let lf_ms2 = (span_s >= min_lf_s).then(|| band(lf_hz, hf_hz));
    let both = lf_ms2.map(|lf| lf + hf_ms2).filter(|both| *both > 0.0);
    let (first, in_hf) = within(hf_hz, end_hz);
    let highest = (0..in_hf.len()).max_by(|a, b| in_hf[*a].total_cmp(&in_hf[*b])).unwrap_or(0);
    Ok(FrequencyDomain {
        vlf_ms2: (span_s >= min_vlf_s).then(|| band(vlf_hz, lf_hz)),
        lf_ms2,
        hf_ms2,
        lf_hf: lf_ms2.filter(|_| hf_ms2 > 0.0).map(|lf| lf / hf_ms2),
        lf_normalised: lf_ms2.zip(both).map(|(lf, both)| 100.0 * lf / both),
        hf_normalised: both.map(|both| 100.0 * hf_ms2 / both),
        hf_peak_hz: grid.first_hz + step_hz * (first + highest) as f64,
    })
}

/// Width and length of the Poincaré plot: standard deviations of (b − a)/√2 and (a + b)/√2 over neighbours
/// a, b (Brennan, Palaniswami & Kamen 2001, IEEE Trans Biomed Eng 48:1342–1347). At least two pairs.
pub fn poincare(nn: &NnSeries) -> Result<Poincare, HrvError> {
    let half = std::f64::consts::FRAC_1_SQRT_2;
    let (across, along): (Vec<f64>, Vec<f64>) =
        nn.pairs().map(|(a, b)| ((b - a) * half, (a + b) * half)).unzip();
    enough(across.len(), 2)?;
    Ok(Poincare {
        sd1_ms: variance(&across, mean(&across)).sqrt(),
        sd2_ms: variance(&along, mean(&along)).sqrt(),
    })
}

/// Sample entropy with m = 2 and r = 0.2 standard deviations, in nats (Richman & Moorman 2000, Am J Physiol
/// 278:H2039–H2049). Low is regular.
///
/// The NN intervals are strung together over what was left out. At least [`MIN_COMPLEXITY_INTERVALS`]; of
/// more than [`MAX_ENTROPY_INTERVALS`] the last. Undefined where nothing matches or nothing varies.
pub fn sample_entropy(nn: &NnSeries) -> Result<f64, HrvError> {
    let all = nn.intervals_ms();
    enough(all.len(), MIN_COMPLEXITY_INTERVALS)?;
    let ms = &all[all.len().saturating_sub(MAX_ENTROPY_INTERVALS)..];
    let tolerance = ENTROPY_TOLERANCE * variance(ms, mean(ms)).sqrt();
    if tolerance <= 0.0 {
        return Err(HrvError::Undefined);
    }
    let (mut two, mut three) = (0_u64, 0_u64);
    let mut near = vec![0_u8; ms.len()];
    // Pairs by their distance in the series: then each comparison is made once, and in a straight line.
    for lag in 1..ms.len() - 2 {
        let count = ms.len() - lag;
        for ((near, a), b) in near.iter_mut().zip(ms).zip(&ms[lag..]) {
            *near = u8::from((a - b).abs() <= tolerance);
        }
        for part in (0..count - 2).step_by(128).map(|from| from..(from + 128).min(count - 2)) {
            // At most 128 of them: no byte overflows.
            let (mut of_two, mut of_three) = (0_u8, 0_u8);
            let shifted = near[part.start + 1..].iter().zip(&near[part.start + 2..]);
            for (first, (second, third)) in near[part].iter().zip(shifted) {
                of_two += first & second;
                of_three += first & second & third;
            }
            two += u64::from(of_two);
            three += u64::from(of_three);
        }
    }
    if three == 0 { Err(HrvError::Undefined) } else { Ok((two as f64 / three as f64).ln()) }
}

/// Short-term scaling exponent α₁ of detrended fluctuation analysis over 4 to 16 beats, dimensionless (Peng
/// et al. 1995, Chaos 5:82–87). About 0.5 for unrelated intervals, 1 in health, 1.5 for a random walk.
///
/// The NN intervals are strung together over what was left out; boxes do not overlap, and what is left at
/// the end of the series is in no box. At least [`MIN_COMPLEXITY_INTERVALS`].
pub fn dfa_alpha1(nn: &NnSeries) -> Result<f64, HrvError> {
    let ms = nn.intervals_ms();
    enough(ms.len(), MIN_COMPLEXITY_INTERVALS)?;
    let mean_ms = mean(ms);
    let mut level = 0.0;
    let walk: Vec<f64> = ms
        .iter()
        .map(|ms| {
            level += ms - mean_ms;
            level
        })
        .collect();
    let (mut n, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for scale in SCALES {
        let boxes = walk.chunks_exact(scale);
        let count = (boxes.len() * scale) as f64;
        let fluctuation = (boxes.map(residual).sum::<f64>() / count).sqrt();
        // Less than a nanosecond is rounding of a series that does not vary.
        if fluctuation < 1e-6 {
            return Err(HrvError::Undefined);
        }
        let (log_scale, log_fluctuation) = ((scale as f64).ln(), fluctuation.ln());
        n += 1.0;
        x += log_scale;
        y += log_fluctuation;
        xx += log_scale * log_scale;
        xy += log_scale * log_fluctuation;
    }
    Ok((n * xy - x * y) / (n * xx - x * x))
}

fn enough(found: usize, needed: usize) -> Result<(), HrvError> {
    if found < needed { Err(HrvError::TooFew { found, needed }) } else { Ok(()) }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64], mean: f64) -> f64 {
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    squares / (values.len() as f64 - 1.0).max(1.0)
}

fn triangular_index(ms: &[f64]) -> f64 {
    // NN intervals are at most 3,000 ms.
    let mut bins = [0_u32; 385];
    for ms in ms {
        bins[((ms / BIN_MS) as usize).min(384)] += 1;
    }
    let fullest = bins.iter().copied().max().unwrap_or(0).max(1);
    ms.len() as f64 / f64::from(fullest)
}

/// Sum of squares around the least-squares line of a box.
fn residual(part: &[f64]) -> f64 {
    let n = part.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let (mut y, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (index, value) in part.iter().enumerate() {
        // From the first: levels of a walk are large beside their bends.
        let value = value - part[0];
        y += value;
        yy += value * value;
        xy += (index as f64 - middle) * value;
    }
    let xx = n * (n * n - 1.0) / 12.0;
    (yy - y * y / n - xy * xy / xx).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecg::RrSeries;
    use proptest::prelude::*;

    fn nn(intervals: impl IntoIterator<Item = f64>) -> NnSeries {
        RrSeries::from_intervals_ms(intervals).nn()
    }

    /// Intervals of 800 ms modulated by so many ms at so many Hz.
    fn modulated(seconds: f64, waves: &[(f64, f64)]) -> NnSeries {
        let mut time = 0.0;
        let mut intervals = Vec::new();
        while time < seconds {
            let wave = |(ms, hz): &(f64, f64)| ms * (std::f64::consts::TAU * hz * time).sin();
            let interval = 800.0 + waves.iter().map(wave).sum::<f64>();
            time += interval * 1e-3;
            intervals.push(interval);
        }
        nn(intervals)
    }

    /// Reproducible intervals without memory, 800 ± 50 ms.
    fn unrelated(count: usize) -> Vec<f64> {
        let mut state = 7_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            750.0 + 100.0 * f64::from(state >> 8) / f64::from(1 << 24)
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn time_domain_by_hand() {
        let found = time_domain(&nn([800.0, 860.0, 790.0, 810.0])).unwrap();
        // Differences 60, −70, 20; mean 815; deviations −15, 45, −25, −5.
        assert_eq!(found.mean_nn_ms, 815.0);
        assert!((found.sdnn_ms - (2_900.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert!((found.rmssd_ms - (8_900.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        let spread = 8_900.0 - 100.0 / 3.0;
        assert!((found.sdsd_ms - (spread / 2.0_f64).sqrt()).abs() < 1e-9);
        assert!((found.pnn50_percent - 200.0 / 3.0).abs() < 1e-9);
        // Bins 102, 110, 101 and 103.
        assert_eq!(found.triangular_index, 4.0);
        let short = poincare(&nn([800.0, 860.0, 790.0, 810.0])).unwrap();
        assert!((short.sd1_ms - found.sdsd_ms * 0.5_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn a_modulation_has_half_its_square_in_its_band() {
        let found = frequency_domain(&modulated(300.0, &[(30.0, 0.1), (20.0, 0.25)])).unwrap();
        assert!((found.lf_ms2.unwrap() / 450.0 - 1.0).abs() < 0.06, "{found:?}");
        assert!((found.hf_ms2 / 200.0 - 1.0).abs() < 0.06, "{found:?}");
        assert!(found.vlf_ms2.unwrap() < 10.0, "{found:?}");
        assert!((found.hf_peak_hz - 0.25).abs() < 0.002, "{found:?}");
        let (lf, hf) = (found.lf_normalised.unwrap(), found.hf_normalised.unwrap());
        assert!((lf + hf - 100.0).abs() < 1e-9);
        assert!((found.lf_hf.unwrap() - lf / hf).abs() < 1e-9);
    }

    #[test]
    fn a_gap_and_an_ectopic_beat_leave_the_spectrum_alone() {
        let whole = modulated(300.0, &[(30.0, 0.1), (20.0, 0.25)]);
        let mut intervals = whole.intervals_ms().to_vec();
        // An early beat: one interval shorter, the next longer by as much. Then a missed beat.
        (intervals[100], intervals[101]) = (intervals[100] - 300.0, intervals[101] + 300.0);
        let merged = intervals.remove(201);
        intervals[200] += merged;
        let holed = nn(intervals);
        assert_eq!(holed.intervals_ms().len(), whole.intervals_ms().len() - 4);
        let (a, b) = (frequency_domain(&whole).unwrap(), frequency_domain(&holed).unwrap());
        assert!((a.lf_ms2.unwrap() / b.lf_ms2.unwrap() - 1.0).abs() < 0.05, "{a:?} {b:?}");
        assert!((a.hf_ms2 / b.hf_ms2 - 1.0).abs() < 0.05, "{a:?} {b:?}");
    }

    #[test]
    fn bands_need_their_minutes() {
        let found = frequency_domain(&modulated(70.0, &[(20.0, 0.25)])).unwrap();
        assert_eq!((found.vlf_ms2, found.lf_ms2, found.lf_hf), (None, None, None));
        assert!((found.hf_ms2 / 200.0 - 1.0).abs() < 0.1, "{found:?}");
        assert!(frequency_domain(&modulated(130.0, &[(20.0, 0.1)])).unwrap().lf_ms2.is_some());
        let error = frequency_domain(&modulated(40.0, &[(20.0, 0.25)])).unwrap_err();
        assert!(error.to_string().ends_with("55 are needed: take a longer window"), "{error}");
    }

    #[test]
    fn complexity_of_known_series() {
        let noise = nn(unrelated(1_000));
        assert!((dfa_alpha1(&noise).unwrap() - 0.5).abs() < 0.15, "{:?}", dfa_alpha1(&noise));
        // Of uniform noise −ln of the chance that two values lie within r: r/width·(2 − r/width).
        let share: f64 = 0.2 / 12.0_f64.sqrt();
        let expected = -(share * (2.0 - share)).ln();
        let entropy = sample_entropy(&noise).unwrap();
        assert!((entropy - expected).abs() < 0.1, "{entropy} {expected}");
        let periodic = nn((0..300).map(|i| 800.0 + 40.0 * f64::from(i % 4)));
        assert!(sample_entropy(&periodic).unwrap() < 0.05);
        let mut level = 800.0;
        let walk = nn(unrelated(1_000).into_iter().map(|ms| {
            level = (level + (ms - 800.0) * 0.2_f64).clamp(500.0, 1_200.0);
            level
        }));
        assert!((dfa_alpha1(&walk).unwrap() - 1.5).abs() < 0.2, "{:?}", dfa_alpha1(&walk));
    }

    #[test]
    fn entropy_as_counted_by_the_definition() {
        let series = unrelated(90);
        let tolerance = 0.2 * variance(&series, mean(&series)).sqrt();
        let matches = |m: usize| {
            let near = |i: usize, j: usize| {
                (0..m).all(|k| (series[i + k] - series[j + k]).abs() <= tolerance)
            };
            let starts = series.len() - 2;
            (0..starts)
                .flat_map(|i| (i + 1..starts).map(move |j| (i, j)))
                .filter(|(i, j)| near(*i, *j))
                .count() as f64
        };
        let expected = (matches(2) / matches(3)).ln();
        assert_eq!(sample_entropy(&nn(series.iter().copied())), Ok(expected));
    }

    #[test]
    fn too_little_says_so_and_constant_is_undefined() {
        let nothing = nn([]);
        let few = |needed| Err(HrvError::TooFew { found: 0, needed });
        assert_eq!(time_domain(&nothing).map(|_| ()), few(2));
        assert_eq!(frequency_domain(&nothing).map(|_| ()), few(MIN_SPECTRUM_INTERVALS));
        assert_eq!(poincare(&nothing).map(|_| ()), few(2));
        assert_eq!(sample_entropy(&nothing).map(|_| ()), few(MIN_COMPLEXITY_INTERVALS));
        let constant = nn([800.0; 100]);
        assert_eq!(sample_entropy(&constant), Err(HrvError::Undefined));
        assert_eq!(dfa_alpha1(&constant), Err(HrvError::Undefined));
        let found = frequency_domain(&constant).unwrap();
        assert_eq!((found.hf_ms2, found.lf_hf, found.hf_normalised), (0.0, None, None));
        assert_eq!(time_domain(&constant).unwrap().sdnn_ms, 0.0);
    }

    proptest! {
        #[test]
        fn anything_is_finite_and_scales(
            intervals in proptest::collection::vec(
                prop_oneof![12 => 600.0..900.0f64, 1 => 200.0..4_000.0f64, 1 => Just(f64::NAN)], 0..400),
        ) {
            let nn = nn(intervals.iter().copied());
            if let Ok(time) = time_domain(&nn) {
                prop_assert!(time.rmssd_ms.is_finite() && time.sdnn_ms.is_finite());
                prop_assert!((0.0..=100.0).contains(&time.pnn50_percent));
                prop_assert!(time.triangular_index >= 1.0);
                prop_assert!(time.sdsd_ms <= time.rmssd_ms * 1.5 + 1e-9);
            }
            if let Ok(found) = frequency_domain(&nn) {
                prop_assert!(found.hf_ms2.is_finite() && found.hf_ms2 >= 0.0);
                prop_assert!((0.15 - 1e-3..0.4 + 1e-9).contains(&found.hf_peak_hz));
            }
            if let Ok(entropy) = sample_entropy(&nn) {
                prop_assert!(entropy.is_finite() && entropy >= 0.0);
            }
            if let Ok(alpha) = dfa_alpha1(&nn) {
                prop_assert!(alpha.is_finite());
            }
        }
    }
}
