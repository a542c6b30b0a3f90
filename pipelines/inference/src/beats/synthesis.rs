//! Recordings with more supraventricular beats than there were.
//!
//! Few patients of the public recordings have supraventricular beats, and fewer have runs of them. What makes such a
//! beat is simple, though: it comes early and looks like the patient's others but for its P wave. So for training, normal
//! beats of a regular rhythm are moved forward in time: of the interval before them, what lies
//! between the T wave and the P wave is squeezed, the interval behind is stretched or left, and the P wave is scaled or
//! turned over. Single beats, runs, and sections where such beats outnumber the normal ones come about by chance; in
//! other sections the rate drifts and nothing is early. Where the rhythm is irregular to begin with, nothing is
//! changed.

use super::BeatClass;
use super::recordings::{AnnotatedRecord, LabelledBeat};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// Beats of a section with one kind of changes.
const SECTION_BEATS: usize = 120;
/// Beats on each side that must be regular.
const REGULAR_BEATS: usize = 6;
/// The most that intervals may change from one to the next, as the median share of them, in a regular rhythm.
const REGULAR: f64 = 0.06;
/// No interval gets shorter, in seconds.
const INTERVAL_MIN_S: f64 = 0.28;
/// What stays as it is behind and before an R peak, in seconds, where there is room.
const KEPT_BEHIND_S: f64 = 0.30;
const KEPT_BEFORE_S: f64 = 0.20;
/// Where the P wave is, before the R peak, in seconds.
const P_FROM_S: f64 = 0.22;
const P_TO_S: f64 = 0.06;

/// What becomes of a beat.
#[derive(Clone, Copy)]
struct Change {
    /// The interval before it by what it was.
    factor: f64,
    early: bool,
    p: f32,
}

const NONE: Change = Change { factor: 1.0, early: false, p: 1.0 };

/// The recording with beats moved; those that became early are of class S.
pub fn with_early_beats(record: &AnnotatedRecord, rng: &mut ChaCha8Rng) -> AnnotatedRecord {
    let changes = plan(record, rng);
    let rate = record.rate.hz();
    let samples = |seconds: f64| (seconds * rate) as usize;
    let mut made = AnnotatedRecord {
        beats: Vec::new(),
        leads: vec![Vec::new(); record.leads.len()],
        ..record.clone()
    };
    let mut from = 0;
    for (beat, change) in record.beats.iter().zip(&changes) {
        let whole = beat.sample - from;
        let wanted = (whole as f64 * change.factor) as usize;
        let kept_before = samples(KEPT_BEFORE_S).min(wanted / 3);
        let kept_behind = samples(KEPT_BEHIND_S).min(wanted * 6 / 10);
        let (old, new) = (
            whole.saturating_sub(kept_before + kept_behind),
            wanted.saturating_sub(kept_before + kept_behind),
        );
        for (lead, out) in record.leads.iter().zip(&mut made.leads) {
            if wanted == whole || old < 2 || new < 2 {
                out.extend_from_slice(&lead[from..beat.sample]);
                continue;
            }
            out.extend_from_slice(&lead[from..from + kept_behind]);
            for at in 0..new {
                let place = at as f64 * (old - 1) as f64 / (new - 1) as f64;
                let (first, part) = (from + kept_behind + place as usize, place.fract() as f32);
                let (here, next) = (lead[first], lead[(first + 1).min(lead.len() - 1)]);
                out.push(here + part * (next - here));
            }
            out.extend_from_slice(&lead[beat.sample - kept_before..beat.sample]);
            let end = out.len();
            scale(
                &mut out
                    [end.saturating_sub(samples(P_FROM_S))..end.saturating_sub(samples(P_TO_S))],
                change.p,
            );
        }
        let class = if change.early { BeatClass::S } else { beat.class };
        made.beats.push(LabelledBeat { sample: made.leads[0].len(), class });
        from = beat.sample;
    }
    for (lead, out) in record.leads.iter().zip(&mut made.leads) {
        out.extend_from_slice(&lead[from..]);
    }
    made
}

/// Scales what lies above the line from the first to the last value.
fn scale(values: &mut [f32], factor: f32) {
    let (Some(first), Some(last)) = (values.first().copied(), values.last().copied()) else {
        return;
    };
    let count = values.len() as f32;
    for (at, value) in values.iter_mut().enumerate() {
        let line = first + (last - first) * at as f32 / count;
        *value = line + factor * (*value - line);
    }
}

fn plan(record: &AnnotatedRecord, rng: &mut ChaCha8Rng) -> Vec<Change> {
    let count = record.beats.len();
    let regular: Vec<bool> = (0..count).map(|beat| is_regular(record, beat)).collect();
    let mut changes = vec![NONE; count];
    let mut section = 1;
    while section < count {
        let end = (section + SECTION_BEATS).min(count);
        match rng.random_range(0..6) {
            0 => single(record, section..end, &regular, &mut changes, rng),
            1 | 2 => runs(record, section..end, &regular, &mut changes, rng, 3..80, 2..30),
            3 => runs(record, section..end, &regular, &mut changes, rng, 1..6, 1..4),
            4 => fibrillation(section..end, &regular, &mut changes, rng),
            _ => drift(section..end, &regular, &mut changes, rng),
        }
        section = end;
    }
    changes
}

fn single(
    record: &AnnotatedRecord,
    beats: Range<usize>,
    regular: &[bool],
    changes: &mut [Change],
    rng: &mut ChaCha8Rng,
) {
    let share = rng.random_range(0.02..0.3);
    let mut last = 0;
    for beat in beats {
        if regular[beat] && beat > last + 1 && rng.random::<f64>() < share {
            early(record, beat, rng.random_range(0.5..0.87), changes, rng);
            pause(beat + 1, rng.random_range(0.9..1.4), changes);
            last = beat;
        }
    }
}

fn runs(
    record: &AnnotatedRecord,
    beats: Range<usize>,
    regular: &[bool],
    changes: &mut [Change],
    rng: &mut ChaCha8Rng,
    lengths: Range<usize>,
    gaps: Range<usize>,
) {
    let mut beat = beats.start;
    while beat < beats.end {
        // Short runs are more frequent than long ones.
        let longest = rng.random_range(lengths.start as f64..lengths.end as f64);
        let length = rng
            .random_range(lengths.start as f64..=longest.max(lengths.start as f64 + 0.5))
            as usize;
        let factor = rng.random_range(0.5..0.85);
        let p = p_wave(rng);
        let end = (beat + length).min(beats.end);
        if (beat..end).all(|beat| regular[beat]) {
            for run in beat..end {
                early(record, run, factor * rng.random_range(0.97..1.03), changes, rng);
                changes[run].p = p;
            }
            pause(end, rng.random_range(0.95..1.6), changes);
        }
        beat = end + rng.random_range(gaps.clone());
    }
}

/// The rate of a normal rhythm goes up and down.
fn drift(beats: Range<usize>, regular: &[bool], changes: &mut [Change], rng: &mut ChaCha8Rng) {
    let (depth, period, phase) =
        (rng.random_range(0.05..0.25), rng.random_range(8.0..80.0), rng.random_range(0.0..6.3));
    for beat in beats {
        if regular[beat] {
            changes[beat].factor =
                1.0 + depth * (beat as f64 / period * std::f64::consts::TAU + phase).sin();
        }
    }
}

/// Every interval is as long as it likes and there are no P waves.
fn fibrillation(
    beats: Range<usize>,
    regular: &[bool],
    changes: &mut [Change],
    rng: &mut ChaCha8Rng,
) {
    let (spread, rate) = (rng.random_range(0.08..0.3), rng.random_range(0.75..1.1));
    let p = rng.random_range(0.0..0.3);
    for beat in beats {
        if regular[beat] {
            let away: f64 = rng.sample(rand_distr::StandardNormal);
            let factor = (rate * (1.0 + spread * away)).clamp(0.5, 1.8);
            changes[beat] = Change { factor, early: false, p };
        }
    }
}

fn early(
    record: &AnnotatedRecord,
    beat: usize,
    factor: f64,
    changes: &mut [Change],
    rng: &mut ChaCha8Rng,
) {
    let interval_s =
        (record.beats[beat].sample - record.beats[beat - 1].sample) as f64 / record.rate.hz();
    if interval_s * factor < INTERVAL_MIN_S {
        return;
    }
    changes[beat] = Change { factor, early: true, p: p_wave(rng) };
}

fn pause(beat: usize, factor: f64, changes: &mut [Change]) {
    if let Some(change) = changes.get_mut(beat).filter(|change| !change.early) {
        change.factor = factor;
    }
}

fn p_wave(rng: &mut ChaCha8Rng) -> f32 {
    if rng.random::<f32>() < 0.3 { 1.0 } else { rng.random_range(-1.0..1.2) }
}

/// Whether a beat and its neighbours are normal and come in time.
fn is_regular(record: &AnnotatedRecord, beat: usize) -> bool {
    let from = beat.saturating_sub(REGULAR_BEATS);
    let Some(beats) = record.beats.get(from..=beat + REGULAR_BEATS) else { return false };
    if beat == 0 || record.beats[beat - 1..=beat + 1].iter().any(|beat| beat.class != BeatClass::N)
    {
        return false;
    }
    let intervals: Vec<f64> =
        beats.windows(2).map(|pair| (pair[1].sample - pair[0].sample) as f64).collect();
    let mut changes: Vec<f64> =
        intervals.windows(2).map(|pair| (pair[1] - pair[0]).abs() / pair[0].max(1.0)).collect();
    changes.sort_by(f64::total_cmp);
    changes[changes.len() / 2] < REGULAR
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beats::input::tests::train;
    use haar_recordings::corpus::CaseId;
    use haar_schema::SampleRate;
    use haar_signals::ecg::detect_r_peaks;
    use rand::SeedableRng;

    fn record(peaks: Vec<usize>) -> AnnotatedRecord {
        let rate = SampleRate::from_hz(250).unwrap();
        let beats =
            peaks.iter().map(|sample| LabelledBeat { sample: *sample, class: BeatClass::N });
        AnnotatedRecord {
            name: "a".into(),
            case: CaseId(1),
            rate,
            beats: beats.collect(),
            leads: vec![train(rate, 1_300, &peaks); 2],
            is_paced: false,
        }
    }

    #[test]
    fn beats_come_early_and_stay_where_they_are_said_to_be() {
        let record = record((1..1_600).map(|beat| beat * 200).collect());
        let made = with_early_beats(&record, &mut ChaCha8Rng::seed_from_u64(3));
        assert_eq!(made.beats.len(), record.beats.len());
        assert_eq!(made.leads[0].len(), made.leads[1].len());
        let early: Vec<usize> =
            (1..made.beats.len()).filter(|at| made.beats[*at].class == BeatClass::S).collect();
        assert!((100..1_000).contains(&early.len()), "{}", early.len());
        for at in &early {
            let interval = made.beats[*at].sample - made.beats[at - 1].sample;
            assert!((70..180).contains(&interval), "{interval}");
        }
        // The detector finds the beats in the new signal where the annotations are.
        let found = detect_r_peaks(&made.leads[0], made.rate);
        let near = |beat: &&LabelledBeat| {
            let at = found.partition_point(|peak| *peak + 10 < beat.sample);
            found.get(at).is_some_and(|peak| peak.abs_diff(beat.sample) <= 10)
        };
        let hits = made.beats.iter().filter(near).count();
        assert!(hits * 100 > made.beats.len() * 97, "{hits} of {}", made.beats.len());
        // The same seed, the same recording.
        let again = with_early_beats(&record, &mut ChaCha8Rng::seed_from_u64(3));
        assert!(again.beats == made.beats && again.leads == made.leads);
    }

    #[test]
    fn an_irregular_rhythm_stays_as_it_is() {
        let mut at = 0;
        let step = |beat: usize| 130 + (beat * beat * 7 + beat * 13) % 97;
        let peaks: Vec<usize> = (0..1_500)
            .map(|beat| {
                at += step(beat);
                at
            })
            .collect();
        let record = record(peaks);
        let made = with_early_beats(&record, &mut ChaCha8Rng::seed_from_u64(3));
        assert_eq!(made.beats, record.beats);
        assert_eq!(made.leads, record.leads);
    }
}
