//! Where the waves of a beat begin, peak and end.
//!
//! After Martínez et al. 2004, "A wavelet-based ECG delineator: evaluation on standard databases", IEEE
//! Trans Biomed Eng 51:570–581. The quadratic spline wavelet at a scale is the derivative of the signal
//! smoothed with a cubic spline. Its moduli are large on the slopes of a wave, and it crosses zero at the
//! peak: complexes are sought at the paper's scale 2², P and T at 2⁴ of 250 Hz. Three things differ:
//!
//! - Scales are durations, so that any sampling rate will do: the spline is four moving averages of 8 ms (2²)
//!   or 32 ms (2⁴).
//! - Before P and T are sought, the complex is replaced by a straight line, so that its slopes do not leak
//!   into theirs.
//! - Whether there is a P or T at all is decided on its height above the line between its ends, against
//!   [`MIN_WAVE_MV`] and against the noise, rather than on the moduli.
//!
//! A beat is judged on the samples from [`BEFORE_S`] before to [`AFTER_S`] after its R alone, and on where the
//! neighbouring R peaks are: the result does not depend on how a recording was cut, as long as those are
//! there.
//!
//! Not guaranteed: in atrial fibrillation and flutter some fibrillatory waves pass for P; where P sits on the
//! T before it, one of the two is missed; U waves are not told from a biphasic T. Baseline wander of more than
//! about half a millivolt a second moves the ends of P and T, that of T's onset first: take it off before. The
//! accuracy has been checked on synthetic beats, and not against the QT database.

use std::ops::Range;

use haar_schema::SampleRate;

use super::detect::MIN_RATE_HZ;
use super::filter::is_sample;

/// How far before its R a beat is looked at, in seconds.
pub const BEFORE_S: f64 = 0.5;

/// How far after its R a beat is looked at, in seconds.
pub const AFTER_S: f64 = 0.8;

/// A P or T of less height is none, in mV: the usual step of a converter several times.
pub const MIN_WAVE_MV: f64 = 0.02;

/// The longest run of missing samples that is bridged within a wave's reach, in seconds.
pub const MAX_BRIDGED_S: f64 = 0.02;

/// A P or T stands out of the noise by this many of its standard deviations, after smoothing.
const NOISE_DEVIATIONS: f64 = 4.0;

/// Width of each of the four averages at scale 2² and 2⁴, in seconds.
const COMPLEX_BOX_S: f64 = 0.008;
const WAVE_BOX_S: f64 = 0.032;

/// Around the R the steepest slope of the complex is sought, in seconds.
const STEEPEST_S: f64 = 0.06;

/// The furthest slope of a complex before and after its R, in seconds: half of a wide one.
const COMPLEX_REACH_S: (f64, f64) = (0.12, 0.16);

/// From one slope of a complex to the next, in seconds; P and T are further away.
const SLOPE_DISTANCE_S: f64 = 0.08;

/// A slope of the complex has at least this share of the steepest, before and after (ibid., γ; the first a
/// little higher, for steep P waves).
const SLOPE_SHARE: (f64, f64) = (0.08, 0.09);

/// And is so many standard deviations of noise at least.
const SLOPE_OVER_NOISE: f64 = 3.0;

/// The complex begins and ends where the slope has sunk to this share (ibid., ξ).
const COMPLEX_END_SHARE: (f64, f64) = (0.05, 0.125);

/// But not lower than so many lower quartiles of all slopes around: one standard deviation of noise.
const NOISE_QUARTILES: f64 = 3.0;

/// The shares for P and for T.
const P_END_SHARE: (f64, f64) = (0.5, 0.5);
const T_END_SHARE: (f64, f64) = (0.25, 0.4);

/// A third slope of T of this share of its main ones makes it biphasic.
const BIPHASIC_SHARE: f64 = 0.5;

/// P is sought from so much of the interval before its R on, at most so many seconds.
const P_REACH: (f64, f64) = (0.4, 0.32);

/// T is sought until so much of the interval after its R, at most so many seconds.
const T_REACH: (f64, f64) = (0.68, 0.6);

/// The interval between beats if no neighbour is known, in seconds.
const USUAL_INTERVAL_S: f64 = 0.8;

/// The waves of one beat; places are sample indices into the slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Delineation {
    /// The R peak that was given.
    pub r: usize,
    /// The P wave.
    pub p: Result<Wave, Absent>,
    /// The QRS complex, from the first sample that belongs to it to the last: `start..=end`.
    pub qrs: Result<Complex, Absent>,
    /// The T wave; of a biphasic one the peak is that of the larger phase.
    pub t: Result<Wave, Absent>,
}

/// Onset, peak and end of a P or T wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wave {
    /// Where it begins.
    pub onset: usize,
    /// Where it is furthest from its ends.
    pub peak: usize,
    /// Where it ends.
    pub end: usize,
}

/// Onset and end of a QRS complex. The end is the J point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complex {
    /// Where it begins.
    pub onset: usize,
    /// Where it ends.
    pub end: usize,
}

/// Why a wave has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Absent {
    /// The slice begins or ends within the wave's reach, or the rate is below [`MIN_RATE_HZ`].
    #[error("the samples end before the wave can be told: give more on either side of the beat")]
    CutOff,
    /// More than [`MAX_BRIDGED_S`] of samples in a row are missing.
    #[error("samples are missing where the wave would be")]
    Gap,
    /// The neighbouring beats leave no room for it.
    #[error("the beats are too close to each other to tell the wave from the next")]
    NoRoom,
    /// Nothing stands out: there is none, or it is too small or too noisy.
    #[error("no wave stands out of the noise")]
    Indistinct,
}

/// Delineates every beat of one lead: `mv` in mV with NaN for what is missing, `peaks` rising as
/// [`super::detect_r_peaks`] gives them. One result a peak, in order. See the module for the method.
pub fn delineate(mv: &[f32], rate: SampleRate, peaks: &[usize]) -> Vec<Delineation> {
    (0..peaks.len())
        .map(|index| {
            let before = index.checked_sub(1).map(|before| peaks[before]);
            delineate_beat(mv, rate, before, peaks[index], peaks.get(index + 1).copied())
        })
        .collect()
}

/// Delineates one beat, with the R peaks before and after it if they are known. What is known of one side
/// stands in for the other. Streams call it as soon as the samples reach [`AFTER_S`] beyond the R.
pub fn delineate_beat(
    mv: &[f32],
    rate: SampleRate,
    before: Option<usize>,
    r: usize,
    after: Option<usize>,
) -> Delineation {
    let rate_hz = rate.hz();
    let absent = |why| Delineation { r, p: Err(why), qrs: Err(why), t: Err(why) };
    if r >= mv.len() || rate_hz < MIN_RATE_HZ {
        return absent(Absent::CutOff);
    }
    if !is_sample(mv[r]) {
        return absent(Absent::Gap);
    }
    let mut beat = Beat::cut(mv, rate_hz, r);
    let qrs = match beat.complex() {
        Ok(qrs) => qrs,
        Err(why) => return absent(why),
    };
    let distance = |from: Option<usize>, to: Option<usize>| {
        Some(to?.checked_sub(from?)? as f64 / rate_hz).filter(|interval| *interval > 0.0)
    };
    let (left, right) = (distance(before, Some(r)), distance(Some(r), after));
    let interval_before = left.or(right).unwrap_or(USUAL_INTERVAL_S);
    let interval_after = right.or(left).unwrap_or(USUAL_INTERVAL_S);
    beat.flatten(qrs);
    let slopes = wavelet(&beat.signal, beat.samples(WAVE_BOX_S));
    let p_reach = beat.samples((P_REACH.0 * interval_before).min(P_REACH.1));
    let p = beat.wave(&slopes, beat.r as isize - p_reach as isize, qrs.onset as isize, false);
    let t_reach = beat.samples((T_REACH.0 * interval_after).min(T_REACH.1));
    let t = beat.wave(&slopes, qrs.end as isize, (beat.r + t_reach) as isize, true);
    let start = beat.start;
    let placed = |wave: Wave| Wave {
        onset: start + wave.onset,
        peak: start + wave.peak,
        end: start + wave.end,
    };
    let qrs = Complex { onset: start + qrs.onset, end: start + qrs.end };
    Delineation { r, p: p.map(placed), qrs: Ok(qrs), t: t.map(placed) }
}

/// The samples around one beat; places are relative to `start`.
struct Beat {
    start: usize,
    r: usize,
    rate_hz: f64,
    /// With gaps bridged.
    signal: Vec<f64>,
    missing: Vec<bool>,
}

impl Beat {
    fn cut(mv: &[f32], rate_hz: f64, r: usize) -> Self {
        let start = r.saturating_sub((BEFORE_S * rate_hz) as usize);
        let end = (r + (AFTER_S * rate_hz) as usize + 1).min(mv.len());
        let level = f64::from(mv[r]);
        let missing: Vec<bool> = mv[start..end].iter().map(|value| !is_sample(*value)).collect();
        let mut signal: Vec<f64> =
            mv[start..end].iter().map(|value| f64::from(*value) - level).collect();
        bridge(&mut signal, &missing);
        Self { start, r: r - start, rate_hz, signal, missing }
    }

    fn samples(&self, seconds: f64) -> usize {
        ((seconds * self.rate_hz).round() as usize).max(1)
    }

    /// The range, if all of it and so much on either side is there.
    fn reach(&self, from: isize, to: isize, margin: usize) -> Result<Range<usize>, Absent> {
        let margin = margin as isize;
        if from >= to {
            return Err(Absent::NoRoom);
        }
        if from < margin || to + margin > self.signal.len() as isize {
            return Err(Absent::CutOff);
        }
        let (from, to, margin) = (from as usize, to as usize, margin as usize);
        let most = self.samples(MAX_BRIDGED_S);
        let mut run = 0;
        for missing in &self.missing[from - margin..to + margin] {
            run = if *missing { run + 1 } else { 0 };
            if run > most {
                return Err(Absent::Gap);
            }
        }
        Ok(from..to)
    }

    /// The complex: outwards from its steepest slope over all that belong to it, and down the last.
    fn complex(&self) -> Result<Complex, Absent> {
        let width = self.samples(COMPLEX_BOX_S);
        let (left, right) = COMPLEX_REACH_S;
        let r = self.r as isize;
        let (from, to) = (r - self.samples(left) as isize, r + self.samples(right) as isize + 1);
        let range = self.reach(from, to, 2 * width + 1)?;
        let slopes = wavelet(&self.signal, width);
        let near = self.samples(STEEPEST_S);
        let steepest = (self.r - near..=self.r + near)
            .max_by(|a, b| slopes[*a].abs().total_cmp(&slopes[*b].abs()))
            .ok_or(Absent::Indistinct)?;
        let most = slopes[steepest].abs();
        if most <= 0.0 {
            return Err(Absent::Indistinct);
        }
        let quiet = NOISE_QUARTILES * lower_quartile(&slopes);
        let far = self.samples(SLOPE_DISTANCE_S);
        let outermost = |places: &mut dyn Iterator<Item = usize>, share: f64| {
            places.fold(steepest, |last, place| {
                let belongs = place.abs_diff(last) <= far
                    && is_modulus_maximum(&slopes, place)
                    && slopes[place].abs() >= (share * most).max(SLOPE_OVER_NOISE * quiet);
                if belongs { place } else { last }
            })
        };
        let first = outermost(&mut (range.start..steepest).rev(), SLOPE_SHARE.0);
        let last = outermost(&mut (steepest + 1..range.end), SLOPE_SHARE.1);
        let floor = range.start.saturating_sub(width);
        let ceiling = (range.end + width).min(slopes.len());
        let share = |place: usize, share: f64| share.max(quiet / slopes[place].abs());
        let (before, after) = COMPLEX_END_SHARE;
        let onset = foot(&slopes, first, &mut (floor..first).rev(), share(first, before));
        let end = foot(&slopes, last, &mut (last + 1..ceiling), share(last, after));
        Ok(Complex { onset: onset.unwrap_or(floor), end: end.unwrap_or(ceiling - 1) })
    }

    /// Puts a straight line in the place of the complex.
    fn flatten(&mut self, qrs: Complex) {
        let (from, to) = (self.signal[qrs.onset], self.signal[qrs.end]);
        let step = (to - from) / (qrs.end - qrs.onset).max(1) as f64;
        for (k, value) in self.signal[qrs.onset..=qrs.end].iter_mut().enumerate() {
            *value = from + step * k as f64;
        }
    }

    /// The strongest wave that peaks within the range, if one stands out.
    fn wave(&self, slopes: &[f64], from: isize, to: isize, is_t: bool) -> Result<Wave, Absent> {
        let width = self.samples(WAVE_BOX_S);
        let range = self.reach(from, to, width)?;
        let extrema: Vec<usize> =
            range.clone().filter(|place| is_modulus_maximum(slopes, *place)).collect();
        // A peak lies between two slopes that go opposite ways.
        let (left, right) = extrema
            .windows(2)
            .map(|pair| (pair[0], pair[1]))
            .filter(|(left, right)| slopes[*left] * slopes[*right] < 0.0)
            .max_by(|a, b| strength(slopes, *a).total_cmp(&strength(slopes, *b)))
            .ok_or(Absent::Indistinct)?;
        let peak = (left + 1..=right)
            .find(|place| slopes[*place] * slopes[left] <= 0.0)
            .ok_or(Absent::Indistinct)?;
        let last = extrema
            .iter()
            .copied()
            .find(|place| *place > right)
            .filter(|place| {
                is_t && slopes[*place].abs() >= BIPHASIC_SHARE * strength(slopes, (left, right))
            })
            .unwrap_or(right);
        let shares = if is_t { T_END_SHARE } else { P_END_SHARE };
        let (floor, ceiling) = (range.start - width, range.end + width);
        let onset = foot(slopes, left, &mut (floor..left).rev(), shares.0);
        let end = foot(slopes, last, &mut (last + 1..ceiling), shares.1);
        let (Some(onset), Some(end)) = (onset, end) else { return Err(Absent::NoRoom) };
        if self.height(onset, peak, end) < self.visible(floor..ceiling, width) {
            return Err(Absent::Indistinct);
        }
        Ok(Wave { onset, peak, end })
    }

    /// Of the peak above the line between the ends.
    fn height(&self, onset: usize, peak: usize, end: usize) -> f64 {
        let width = self.samples(WAVE_BOX_S) / 2;
        let level = |place: usize| mean(&self.signal, place, width / 2);
        let share = (peak - onset) as f64 / (end - onset).max(1) as f64;
        (level(peak) - level(onset) - share * (level(end) - level(onset))).abs()
    }

    /// The height from which a wave is seen: what the noise has after averaging.
    fn visible(&self, range: Range<usize>, width: usize) -> f64 {
        // Second differences: of noise they have six times its variance, of waves next to nothing.
        let bends: f64 = self.signal[range.clone()]
            .windows(3)
            .map(|three| (three[0] - 2.0 * three[1] + three[2]).powi(2))
            .sum();
        let variance = bends / (6.0 * (range.len() as f64 - 2.0).max(1.0));
        MIN_WAVE_MV.max(NOISE_DEVIATIONS * (variance / width as f64).sqrt())
    }
}

/// Straight lines over what is missing, level at the ends; the sample at the R is always there.
fn bridge(signal: &mut [f64], missing: &[bool]) {
    let mut before: Option<usize> = None;
    for index in 0..signal.len() {
        if missing[index] {
            continue;
        }
        let first = before.map_or(0, |before| before + 1);
        let (from, to) = (before.map_or(signal[index], |before| signal[before]), signal[index]);
        let step = (to - from) / (index + 1 - first) as f64;
        for (k, value) in signal[first..index].iter_mut().enumerate() {
            *value = from + step * (k + 1) as f64;
        }
        before = Some(index);
    }
    if let Some(last) = before {
        let level = signal[last];
        signal[last + 1..].fill(level);
    }
}

/// Slope per sample of the signal after four averages over `width` samples, nothing shifted.
fn wavelet(signal: &[f64], width: usize) -> Vec<f64> {
    let mut smooth = signal.to_vec();
    let mut scratch = vec![0.0; signal.len()];
    for round in 0..4 {
        // An even width leans half a sample to the left and then to the right.
        let left = if round % 2 == 0 { width / 2 } else { (width - 1) / 2 };
        average(&smooth, &mut scratch, left, width - 1 - left);
        std::mem::swap(&mut smooth, &mut scratch);
    }
    let last = smooth.len() - 1;
    (0..smooth.len())
        .map(|index| (smooth[(index + 1).min(last)] - smooth[index.saturating_sub(1)]) / 2.0)
        .collect()
}

/// Mean of each sample with so many on either side; beyond the ends the outermost sample goes on.
fn average(from: &[f64], to: &mut [f64], left: usize, right: usize) {
    let last = from.len() - 1;
    let count = (left + right + 1) as f64;
    let mut sum = from[0] * left as f64 + (0..=right).map(|k| from[k.min(last)]).sum::<f64>();
    for (index, value) in to.iter_mut().enumerate() {
        *value = sum / count;
        sum += from[(index + right + 1).min(last)] - from[index.saturating_sub(left)];
    }
}

fn is_modulus_maximum(slopes: &[f64], place: usize) -> bool {
    place > 0
        && place + 1 < slopes.len()
        && slopes[place].abs() > slopes[place - 1].abs()
        && slopes[place].abs() >= slopes[place + 1].abs()
}

/// Of the moduli; of a slice that is not empty.
fn lower_quartile(slopes: &[f64]) -> f64 {
    let mut moduli: Vec<f64> = slopes.iter().map(|slope| slope.abs()).collect();
    let rank = moduli.len() / 4;
    *moduli.select_nth_unstable_by(rank, f64::total_cmp).1
}

/// Of a peak: its lesser slope.
fn strength(slopes: &[f64], (left, right): (usize, usize)) -> f64 {
    slopes[left].abs().min(slopes[right].abs())
}

/// The first place on the way from a slope at which it has sunk to a share, or turns up again.
fn foot(
    slopes: &[f64],
    from: usize,
    way: &mut dyn Iterator<Item = usize>,
    share: f64,
) -> Option<usize> {
    let enough = share * slopes[from].abs();
    let sign = slopes[from].signum();
    let mut last = from;
    for place in way {
        let here = slopes[place] * sign;
        if here <= enough {
            return Some(place);
        }
        if here > slopes[last] * sign {
            return Some(last);
        }
        last = place;
    }
    None
}

fn mean(signal: &[f64], place: usize, around: usize) -> f64 {
    let part = &signal[place.saturating_sub(around)..(place + around + 1).min(signal.len())];
    part.iter().sum::<f64>() / part.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecg::tests::{noise, rhythm};
    use proptest::prelude::*;

    fn rate(hz: f64) -> SampleRate {
        SampleRate::from_millihertz((hz * 1e3) as u32).unwrap()
    }

    fn peaks(rate_hz: f64, seconds: f64, interval_s: f64) -> Vec<usize> {
        (0..)
            .map(|beat| 0.4 + f64::from(beat) * interval_s)
            .take_while(|time| *time < seconds)
            .map(|time| (time * rate_hz).round() as usize)
            .collect()
    }

    /// Asserts that a place lies so many seconds from the R, within a tolerance.
    fn near(place: usize, r: usize, expected_s: f64, within_s: f64, rate_hz: f64) {
        let found_s = (place as f64 - r as f64) / rate_hz;
        assert!((found_s - expected_s).abs() <= within_s, "{found_s} {expected_s} at {rate_hz} Hz");
    }

    fn check(mv: &[f32], rate_hz: f64, interval_s: f64, tolerance_s: f64) {
        let peaks = peaks(rate_hz, mv.len() as f64 / rate_hz, interval_s);
        let beats = delineate(mv, rate(rate_hz), &peaks);
        assert_eq!(beats.len(), peaks.len());
        let step_s = 1.5 / rate_hz;
        for beat in &beats[1..beats.len() - 2] {
            let (p, qrs, t) = (beat.p.unwrap(), beat.qrs.unwrap(), beat.t.unwrap());
            // The Gaussians of `rhythm`: peaks where they are, ends at 2.2 to 3 widths.
            near(p.peak, beat.r, -0.17, tolerance_s + step_s, rate_hz);
            near(p.onset, beat.r, -0.226, 0.012 + tolerance_s + step_s, rate_hz);
            near(p.end, beat.r, -0.114, 0.012 + tolerance_s + step_s, rate_hz);
            near(qrs.onset, beat.r, -0.053, 0.012 + tolerance_s + step_s, rate_hz);
            near(qrs.end, beat.r, 0.056, 0.012 + tolerance_s + step_s, rate_hz);
            near(t.peak, beat.r, 0.27, tolerance_s + step_s, rate_hz);
            near(t.onset, beat.r, 0.162, 0.02 + tolerance_s + step_s, rate_hz);
            near(t.end, beat.r, 0.373, 0.012 + tolerance_s + step_s, rate_hz);
        }
    }

    #[test]
    fn waves_are_where_they_were_put() {
        for rate_hz in [100.0, 125.0, 250.0, 360.0, 500.0, 1_000.0] {
            for interval_s in [0.65, 0.8, 1.3] {
                check(&rhythm(rate_hz, 20.0, interval_s), rate_hz, interval_s, 0.004);
            }
        }
    }

    #[test]
    fn through_wander_inversion_and_a_little_noise() {
        let clean = rhythm(250.0, 20.0, 0.8);
        let wander: Vec<f32> = clean
            .iter()
            .enumerate()
            .map(|(i, v)| v - 3.0 + 0.5 * (i as f32 * 0.002).sin())
            .collect();
        check(&wander, 250.0, 0.8, 0.008);
        let inverted: Vec<f32> = clean.iter().map(|v| -v).collect();
        check(&inverted, 250.0, 0.8, 0.004);
        let noisy: Vec<f32> = clean.iter().zip(noise()).map(|(v, n)| v + 0.03 * n).collect();
        check(&noisy, 250.0, 0.8, 0.025);
    }

    #[test]
    fn what_is_not_there_says_why() {
        let mv = rhythm(250.0, 9.6, 0.8);
        let peaks = peaks(250.0, 9.6, 0.8);
        let last = peaks.len() - 1;
        let beats = delineate(&mv, rate(250.0), &peaks);
        assert_eq!(beats[0].p.map(|p| p.peak), Ok(58));
        // The last R lies 0.4 s before the end: 0.58 s would be needed for T.
        assert_eq!(beats[last].t, Err(Absent::CutOff));
        assert!(beats[last].qrs.is_ok());

        let mut holed = mv.clone();
        let r = peaks[4];
        holed[r - 50..r - 40].fill(f32::NAN);
        holed[peaks[6] - 50..peaks[6] - 47].fill(f32::NAN);
        let beats = delineate(&holed, rate(250.0), &peaks);
        assert_eq!(beats[4].p, Err(Absent::Gap));
        assert!(beats[4].qrs.is_ok() && beats[4].t.is_ok());
        assert!(beats[6].p.is_ok());

        // Without P: the same beats with the stretch before the complex flat.
        let mut flat = mv.clone();
        flat[r - 62..r - 20].fill(0.0);
        assert_eq!(delineate(&flat, rate(250.0), &peaks)[4].p, Err(Absent::Indistinct));
        let wide = delineate(&mv, rate(250.0), &[r, r + 12]);
        assert!(wide.iter().all(|beat| beat.qrs.is_ok()));
        assert_eq!(wide[0].t, Err(Absent::NoRoom));
    }

    #[test]
    fn a_biphasic_t_ends_with_its_second_phase() {
        let mv: Vec<f32> = rhythm(250.0, 10.0, 1.2)
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let away = ((index as f64 / 250.0 - 0.4).rem_euclid(1.2) - 0.37) / 0.035;
                value - 0.3 * (-0.5 * away * away).exp() as f32
            })
            .collect();
        let beats = delineate(&mv, rate(250.0), &peaks(250.0, 10.0, 1.2));
        let (r, t) = (beats[3].r, beats[3].t.unwrap());
        near(t.end, r, 0.45, 0.02, 250.0);
    }

    #[test]
    fn foreign_peaks_do_not_panic() {
        let mv = rhythm(250.0, 2.0, 0.8);
        let beats = delineate(&mv, rate(250.0), &[0, 9_999]);
        assert!(beats.iter().all(|beat| beat.qrs == Err(Absent::CutOff)));
        let flat = delineate(&[0.5; 500], rate(250.0), &[250]);
        assert_eq!(flat[0].qrs, Err(Absent::Indistinct));
        assert!(delineate(&[], rate(250.0), &[]).is_empty());
    }

    proptest! {
        #[test]
        fn places_are_in_order_and_independent_of_the_cut(
            interval_s in 0.4..1.4f64, noise_mv in 0.0..0.4f32, cut in 0usize..300,
            rate_hz in prop_oneof![Just(125.0), Just(250.0), Just(360.0)],
            holes in proptest::collection::vec(0usize..2_000, 0..6),
        ) {
            let mut mv: Vec<f32> = rhythm(rate_hz, 8.0, interval_s)
                .iter().zip(noise()).map(|(v, n)| v + noise_mv * n).collect();
            for hole in holes {
                let end = (hole + 9).min(mv.len());
                mv[hole.min(end)..end].fill(f32::NAN);
            }
            let peaks = peaks(rate_hz, 8.0, interval_s);
            let beats = delineate(&mv, rate(rate_hz), &peaks);
            for beat in &beats {
                let Ok(qrs) = beat.qrs else { continue };
                prop_assert!(qrs.onset <= beat.r && beat.r <= qrs.end);
                if let Ok(p) = beat.p {
                    prop_assert!(p.onset < p.peak && p.peak < p.end && p.peak < qrs.onset);
                }
                if let Ok(t) = beat.t {
                    prop_assert!(qrs.end < t.peak && t.onset < t.peak && t.peak < t.end);
                    prop_assert!(t.end < mv.len());
                }
            }
            let moved: Vec<usize> = peaks.iter().filter_map(|r| r.checked_sub(cut)).collect();
            let again = delineate(&mv[cut..], rate(rate_hz), &moved);
            let skipped = beats.len() - again.len();
            let reach = (BEFORE_S * rate_hz) as usize;
            for (index, beat) in again.iter().enumerate().filter(|(i, b)| *i > 0 && b.r >= reach) {
                let whole = &beats[skipped + index];
                prop_assert_eq!(beat.t.map(|t| t.end + cut), whole.t.map(|t| t.end));
                prop_assert_eq!(beat.p.map(|p| p.peak + cut), whole.p.map(|p| p.peak));
                prop_assert_eq!(beat.qrs.map(|q| q.onset + cut), whole.qrs.map(|q| q.onset));
            }
        }
    }
}
