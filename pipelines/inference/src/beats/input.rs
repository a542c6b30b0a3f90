//! From samples and R peaks to the numbers that the model is given.
//!
//! Everything is computed from the samples that are given and never looks beyond them. Per beat there are [`NUMBERS`]:
//! [`super::RHYTHM_NAMES`], then [`super::SHAPE_NAMES`], then [`super::SURROUNDING_NAMES`]. All are ratios, ranks,
//! correlations and differences in heights of the patient's dominant beat, so that gain does not matter and polarity does. With more
//! context the dominant beat and the patient's usual interval are better known; with one lead the numbers are of that lead.
//! The model is trained on all of these.
//!
//! # How a beat is cut out
//! The baseline is the moving average over 0.6 s, taken twice (a triangle of 1.2 s), and is
//! subtracted. A beat's centre is that of its squared slope within 80 ms of the R peak, so it does not matter which corner
//! of the QRS complex a detector or a person has marked. A sample at time `t` is the mean of the linear interpolations at
//! `t` ± 2 ms, which loses 1 dB at 40 Hz from 250 or 360 Hz and is no guard against aliasing from
//! rates above 250 Hz, where an ECG holds little.

use super::intervals::{Intervals, RHYTHM_FEATURES};
use super::shape::SHAPE_FEATURES;
use super::surroundings::SURROUNDING_FEATURES;
use super::template::{LeadBeats, compare};
use super::{RHYTHM_NAMES, SHAPE_NAMES, SURROUNDING_NAMES};
use haar_schema::SampleRate;
use sha2::{Digest, Sha256};

/// Rate of the segment's samples.
pub const SEGMENT_RATE: SampleRate = match SampleRate::from_hz(125) {
    Some(rate) => rate,
    None => unreachable!(),
};
/// Samples of a segment before the beat's centre: 320 ms, where the P wave is.
pub const SEGMENT_BEFORE: usize = 40;
/// Samples of a segment: 784 ms, the centre among them.
pub const SEGMENT_SAMPLES: usize = 98;
/// Leads that are looked at; more are left out.
pub const LEADS_MAX: usize = 2;
/// Numbers about rhythm and shape.
pub const NUMBERS: usize = RHYTHM_FEATURES + SHAPE_FEATURES + SURROUNDING_FEATURES;
/// The most samples in one lead: a day at 360 Hz. Behind it no beat has an input.
pub const MAX_WINDOW_SAMPLES: usize = 31_104_000;

/// Goes up when a number is computed otherwise under the same name, so that no older model is asked about it.
const REVISION: u32 = 1;
/// Rates below cannot show a QRS complex.
const RATE_MIN_HZ: f64 = 100.0;
/// Half the width of the moving average that makes the baseline.
const BASELINE_HALF_S: f64 = 0.3;
/// How far from the R peak the centre is looked for.
const CENTRE_S: f64 = 0.08;
/// Half the distance of the two values that make a sample.
const SMOOTH_S: f64 = 0.002;

/// What the model is given about one beat.
#[derive(Clone, PartialEq, Debug)]
pub struct BeatInput {
    pub(super) numbers: [f32; NUMBERS],
}

impl BeatInput {
    /// Rhythm and shape: [`super::RHYTHM_NAMES`], [`super::SHAPE_NAMES`], [`super::SURROUNDING_NAMES`]. All finite.
    pub const fn numbers(&self) -> &[f32; NUMBERS] {
        &self.numbers
    }
}

/// The numbers' name in a manifest, with a digest of what they are: a model of other numbers is refused.
pub(super) fn numbers_name() -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{REVISION}"));
    for name in RHYTHM_NAMES.iter().chain(&SHAPE_NAMES).chain(&SURROUNDING_NAMES) {
        digest.update(format!("\n{name}"));
    }
    format!("numbers {}", &hex::encode(digest.finalize())[..16])
}

/// The inputs of a window's beats from one lead: [`beat_inputs_of_leads`] with `mv` alone.
pub fn beat_inputs(mv: &[f32], rate: SampleRate, peaks: &[usize]) -> Vec<Option<BeatInput>> {
    beat_inputs_of_leads(&[mv], rate, peaks)
}

/// The inputs of beats: `leads` are samples in millivolt of up to [`LEADS_MAX`] leads of equal length (NaN where there is
/// none; further leads are left out), `peaks` the indices of the R peaks, ascending.
///
/// A beat has no input (`None`)
/// - at the window's edges: without a peak on both sides, or without 320 ms before and 464 ms after it;
/// - at a gap: with a sample missing in every lead's segment, or in the first lead anywhere between the neighbouring
///   peaks, where a beat may have gone unseen;
/// - without at least three known intervals around it, for then no rhythm is usual;
/// - if its peak does not lie behind the one before it or not in the window;
/// - if all leads are flat (dominant beat below 0.05 mV);
///
/// and no beat has one if the rate is below 100 Hz or a lead longer than [`MAX_WINDOW_SAMPLES`].
pub fn beat_inputs_of_leads(
    leads: &[&[f32]],
    rate: SampleRate,
    peaks: &[usize],
) -> Vec<Option<BeatInput>> {
    let leads = &leads[..leads.len().min(LEADS_MAX)];
    let fits = |lead: &&[f32]| lead.len() <= MAX_WINDOW_SAMPLES && lead.len() == leads[0].len();
    if leads.is_empty() || !leads.iter().all(fits) || rate.hz() < RATE_MIN_HZ {
        return vec![None; peaks.len()];
    }
    let signals: Vec<Vec<f32>> = leads.iter().map(|mv| without_baseline(mv, rate)).collect();
    let centres: Vec<f64> = peaks.iter().map(|peak| centre(&signals, rate, *peak)).collect();
    let cuts: Vec<Vec<Option<Vec<f32>>>> = signals
        .iter()
        .map(|signal| centres.iter().map(|centre| cut(signal, rate, *centre)).collect())
        .collect();
    let beats: Vec<LeadBeats<'_>> =
        cuts.iter().map(|lead| lead.iter().map(Option::as_deref).collect()).collect();
    let intervals = Intervals::new(leads[0], rate, peaks);
    let position_s: Vec<f64> = peaks.iter().map(|peak| *peak as f64 / rate.hz()).collect();
    compare(&beats, &intervals, &position_s)
        .into_iter()
        .enumerate()
        .map(|(beat, compared)| {
            let compared = compared?;
            let rhythm = intervals.features(beat, &compared.far)?;
            let all = rhythm.into_iter().chain(compared.shape).chain(compared.surrounding);
            let mut numbers = [0.0; NUMBERS];
            numbers.iter_mut().zip(all).for_each(|(slot, number)| *slot = number);
            Some(BeatInput { numbers })
        })
        .collect()
}

/// Subtracts the moving average of the moving average. Missing samples stay missing and do not count.
fn without_baseline(mv: &[f32], rate: SampleRate) -> Vec<f32> {
    let half = ((rate.hz() * BASELINE_HALF_S).round() as usize).max(1);
    let once = moving_average(mv, half);
    let twice = moving_average(&once, half);
    mv.iter().zip(twice).map(|(mv, baseline)| mv - baseline).collect()
}

/// The mean of the samples at most `half` away that are there; at the edges of those inside.
fn moving_average(values: &[f32], half: usize) -> Vec<f32> {
    let present = |value: &f32| if value.is_finite() { (f64::from(*value), 1) } else { (0.0, 0) };
    let (mut sum, mut count) = (0.0, 0);
    for value in values.iter().take(half) {
        let (value, one) = present(value);
        sum += value;
        count += one;
    }
    (0..values.len())
        .map(|at| {
            if let Some((value, one)) = values.get(at + half).map(present) {
                sum += value;
                count += one;
            }
            if let Some((value, one)) = at.checked_sub(half + 1).map(|left| present(&values[left]))
            {
                sum -= value;
                count -= one;
            }
            if count == 0 { f32::NAN } else { (sum / f64::from(count)) as f32 }
        })
        .collect()
}

/// The centre of the squared slope around a peak, over all leads; the peak itself where there is none.
fn centre(signals: &[Vec<f32>], rate: SampleRate, peak: usize) -> f64 {
    let reach = ((CENTRE_S * rate.hz()) as usize).max(1);
    let (mut total, mut moment) = (0.0, 0.0);
    for signal in signals {
        let from = peak.saturating_sub(reach).min(signal.len());
        let to = peak.saturating_add(reach).min(signal.len());
        for (at, pair) in signal[from..to].windows(2).enumerate() {
            let energy = f64::from(pair[1] - pair[0]).powi(2);
            if energy.is_finite() {
                total += energy;
                moment += energy * ((from + at) as f64 + 0.5 - peak as f64);
            }
        }
    }
    peak as f64 + if total > 0.0 { moment / total } else { 0.0 }
}

/// The segment around `centre`; `None` if a sample of it is missing.
fn cut(signal: &[f32], rate: SampleRate, centre: f64) -> Option<Vec<f32>> {
    let step = rate.hz() / SEGMENT_RATE.hz();
    let (before, smooth) = (SEGMENT_BEFORE as f64, SMOOTH_S * rate.hz());
    let value = |position: f64| {
        if position < 0.0 {
            return None;
        }
        let first = position as usize;
        let part = (position - first as f64) as f32;
        let here = *signal.get(first)?;
        let value = if part == 0.0 { here } else { here + part * (signal.get(first + 1)? - here) };
        value.is_finite().then_some(value)
    };
    (0..SEGMENT_SAMPLES)
        .map(|at| {
            let position = centre + (at as f64 - before) * step;
            Some(0.5 * (value(position - smooth)? + value(position + smooth)?))
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: SampleRate = match SampleRate::from_hz(250) {
        Some(rate) => rate,
        None => unreachable!(),
    };

    /// A spike of 1 mV and 40 ms at each peak, on a slow wave.
    pub(crate) fn train(rate: SampleRate, seconds: usize, peaks: &[usize]) -> Vec<f32> {
        let count = (rate.hz() * seconds as f64) as usize;
        let mut mv: Vec<f32> =
            (0..count).map(|at| (at as f64 / rate.hz() * 1.2).sin() as f32 * 0.2).collect();
        for peak in peaks {
            let reach = (rate.hz() * 0.2) as usize;
            let (from, to) = (peak.saturating_sub(reach), (peak + reach).min(count));
            for (at, mv) in mv.iter_mut().enumerate().take(to).skip(from) {
                let away = (at as f64 - *peak as f64) / rate.hz() / 0.02;
                *mv += (-away * away).exp() as f32;
            }
        }
        mv
    }

    fn regular() -> Vec<usize> {
        (1..12).map(|beat| beat * 200).collect()
    }

    fn number(input: &BeatInput, name: &str) -> f32 {
        let names = RHYTHM_NAMES.iter().chain(&SHAPE_NAMES).chain(&SURROUNDING_NAMES);
        input.numbers[names.into_iter().position(|other| *other == name).unwrap()]
    }

    #[test]
    fn a_regular_rhythm_is_neutral_at_any_rate() {
        for hz in [200, 250, 360, 500] {
            let rate = SampleRate::from_hz(hz).unwrap();
            let peaks: Vec<usize> = (1..12).map(|beat| beat * hz as usize * 4 / 5).collect();
            let inputs = beat_inputs(&train(rate, 10, &peaks), rate, &peaks);
            assert!(inputs[0].is_none() && inputs[10].is_none());
            for input in inputs[1..10].iter().flatten() {
                assert!(input.numbers[..14].iter().all(|n| n.abs() < 0.02), "{:?}", input.numbers);
                // Usual beats hardly differ from the dominant one.
                for name in ["3 (1 - correlation of QRS)", "10 difference of QRS"] {
                    assert!(number(input, name).abs() < 0.2, "{hz} Hz: {name}");
                }
                assert_eq!(number(input, "4 ln(pre / wide)"), 0.0);
            }
            assert_eq!(inputs.iter().flatten().count(), 9);
        }
    }

    #[test]
    fn an_early_beat_is_early_and_a_broad_one_unlike() {
        let mut peaks = regular();
        peaks[5] -= 60;
        let mut mv = train(RATE, 10, &peaks);
        for at in 0..40 {
            mv[peaks[5] + at] += 0.8 * (at as f32 / 13.0).sin();
        }
        let inputs = beat_inputs(&mv, RATE, &peaks);
        let (odd, usual) = (inputs[5].as_ref().unwrap(), inputs[3].as_ref().unwrap());
        assert!(number(odd, "4 ln(pre / near)") < -1.0);
        assert!(number(odd, "4 ln(post / pre)") > 2.0);
        assert!(number(odd, "4 ln((pre + post) / (2 near))").abs() < 0.1);
        for name in
            ["3 (1 - correlation of QRS)", "10 difference of QRS", "4 ln(width / template's)"]
        {
            assert!(number(odd, name) > number(usual, name) + 0.2, "{name}");
        }
        assert!(number(odd, "share of alike beats") < 0.5);
        assert!(
            number(inputs[6].as_ref().unwrap(), "3 (1 - correlation of QRS) of the beat before")
                > 0.2
        );
    }

    #[test]
    fn gaps_take_the_beats_that_they_touch() {
        let peaks = regular();
        let mut mv = train(RATE, 10, &peaks);
        mv[1150] = f32::NAN;
        let inputs = beat_inputs(&mv, RATE, &peaks);
        let there: Vec<bool> = inputs.iter().map(Option::is_some).collect();
        // 1150 lies between the peaks at 1000 and 1200: neither knows its interval there.
        let expected = [false, true, true, true, false, false, true, true, true, true, false];
        assert_eq!(there, expected);
        // A gap in the second lead costs that lead only.
        let whole = train(RATE, 10, &peaks);
        assert_eq!(beat_inputs_of_leads(&[&whole, &mv], RATE, &peaks).iter().flatten().count(), 9);
    }

    #[test]
    fn flat_slow_and_disordered_windows_have_no_inputs() {
        let peaks = regular();
        assert!(beat_inputs(&vec![0.5; 2500], RATE, &peaks).iter().all(Option::is_none));
        let slow = SampleRate::from_hz(50).unwrap();
        assert!(beat_inputs(&train(RATE, 10, &peaks), slow, &peaks).iter().all(Option::is_none));
        assert!(beat_inputs(&[], RATE, &[7]).iter().all(Option::is_none));
        assert!(beat_inputs(&train(RATE, 10, &peaks), RATE, &[]).is_empty());
        let disordered = beat_inputs(&train(RATE, 10, &peaks), RATE, &[600, 400, 400, 9_999_999]);
        assert!(disordered.iter().all(Option::is_none));
        assert_eq!(beat_inputs_of_leads(&[], RATE, &peaks), vec![None; peaks.len()]);
    }

    proptest! {
        #[test]
        fn any_window_gives_finite_inputs(
            mv in proptest::collection::vec(prop_oneof![9 => -5.0_f32..5.0, 1 => Just(f32::NAN)], 0..2000),
            peaks in proptest::collection::vec(0_usize..2100, 0..30),
        ) {
            let inputs = beat_inputs(&mv, RATE, &peaks);
            prop_assert_eq!(inputs.len(), peaks.len());
            for input in inputs.iter().flatten() {
                prop_assert!(input.numbers().iter().all(|value| value.is_finite()));
            }
        }

        #[test]
        fn gain_does_not_matter(gain in 0.2_f32..5.0) {
            let peaks = regular();
            let mv = train(RATE, 10, &peaks);
            let louder: Vec<f32> = mv.iter().map(|mv| mv * gain).collect();
            for (a, b) in beat_inputs(&mv, RATE, &peaks).iter().zip(beat_inputs(&louder, RATE, &peaks)) {
                if let (Some(a), Some(b)) = (a, b) {
                    for (a, b) in a.numbers().iter().zip(b.numbers()) {
                        prop_assert!((a - b).abs() < 1e-2);
                    }
                }
            }
        }
    }
}
