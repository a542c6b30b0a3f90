//! Pulse arrival time: from the ECG's R peak to the foot of the pulse at the sensor.
//!
//! The foot is found by intersecting tangents ([`Pulse::foot`]), which is steadier than the onset or the peak (Chiu et
//! al. 1991; Mukkamala et al., *IEEE Trans. Biomed. Eng.* 62(8):1879, 2015). From the R peak it is pulse *transit* time plus the
//! pre-ejection period, some 50–120 ms that vary by themselves: it follows changes of pressure within one patient, and
//! is no pressure. A monitor's own filtering delays its PPG, often by some 0.2 s: what counts is change.

use haar_schema::SampleRate;

use super::{Pulse, median};

/// A foot sooner than this after the R peak belongs to the beat before.
pub const MIN_ARRIVAL_MS: f64 = 80.0;
/// A foot later than this does not belong to the R peak.
pub const MAX_ARRIVAL_MS: f64 = 700.0;
/// Fewer pairs than this tell nothing.
pub const MIN_ARRIVALS: usize = 5;

/// Arrival times.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// Of each beat that has a pulse: its R peak (sample) and the time to the foot in ms.
    pub beats: Vec<(usize, f64)>,
    /// Median in ms.
    pub median_ms: f64,
    /// Median absolute deviation in ms.
    pub spread_ms: f64,
    /// R peaks without a pulse (extrasystoles without output, missed pulses, no signal).
    pub unpaired: usize,
}

/// Too few pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} beats with a pulse of {MIN_ARRIVALS}; check that ECG and PPG share one clock")]
pub struct ArrivalError {
    /// How many there were.
    pub found: usize,
}

/// Pairs each R peak with the first foot [`MIN_ARRIVAL_MS`] to [`MAX_ARRIVAL_MS`] after it and before the next R peak's
/// own. Both count samples of one clock at `rate` from the same beginning; R peaks rise.
///
/// # Errors
/// With fewer than [`MIN_ARRIVALS`] pairs.
pub fn pulse_arrival(
    r_peaks: &[usize],
    pulses: &[Pulse],
    rate: SampleRate,
) -> Result<Arrival, ArrivalError> {
    let ms = 1_000.0 / rate.hz();
    let mut beats = Vec::new();
    let mut pulses = pulses.iter().peekable();
    for (beat, peak) in r_peaks.iter().enumerate() {
        let since = |pulse: &Pulse, peak: usize| (pulse.foot - peak as f64) * ms;
        while pulses.next_if(|pulse| since(pulse, *peak) < MIN_ARRIVAL_MS).is_some() {}
        // What the next beat could have sent is the next beat's.
        let before_next = |pulse: &Pulse| {
            r_peaks.get(beat + 1).is_none_or(|next| since(pulse, *next) < MIN_ARRIVAL_MS)
        };
        let own = |pulse: &&Pulse| since(pulse, *peak) <= MAX_ARRIVAL_MS && before_next(pulse);
        if let Some(pulse) = pulses.next_if(own) {
            beats.push((*peak, since(pulse, *peak)));
        }
    }
    let median_ms = median(beats.iter().map(|(_, time)| *time).collect())
        .filter(|_| beats.len() >= MIN_ARRIVALS)
        .ok_or(ArrivalError { found: beats.len() })?;
    let deviations = beats.iter().map(|(_, time)| (time - median_ms).abs()).collect();
    let spread_ms = median(deviations).unwrap_or(0.0);
    Ok(Arrival { median_ms, spread_ms, unpaired: r_peaks.len() - beats.len(), beats })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ppg::detect_pulses;
    use crate::ppg::tests::pulses_at;

    fn rate() -> SampleRate {
        SampleRate::from_hz(500).unwrap()
    }

    /// R peaks every 0.8 s from 1 s on, and pulses that peak so long after each.
    fn arrivals(delay: impl Fn(usize) -> f64) -> Result<Arrival, ArrivalError> {
        let r_peaks: Vec<usize> = (0..30).map(|beat| 500 + beat * 400).collect();
        let peaks: Vec<(f64, f64)> =
            (0..30).map(|beat| (1.0 + 0.8 * beat as f64 + delay(beat), 1.0)).collect();
        let pulses = detect_pulses(&pulses_at(500.0, 26.0, &peaks), rate());
        pulse_arrival(&r_peaks, &pulses, rate())
    }

    #[test]
    fn a_shift_of_the_pulse_is_a_shift_of_its_arrival() {
        let (early, late) = (arrivals(|_| 0.35).unwrap(), arrivals(|_| 0.40).unwrap());
        assert_eq!((early.beats.len(), early.unpaired), (30, 0));
        assert!((late.median_ms - early.median_ms - 50.0).abs() < 1.0, "{early:?}");
        // The wave rises over about two widths of 70 ms before its peak.
        assert!((early.median_ms - 210.0).abs() < 30.0, "{}", early.median_ms);
        assert!(early.spread_ms < 1.0);
    }

    #[test]
    fn beats_without_a_pulse_stay_alone() {
        let r_peaks: Vec<usize> = (0..30).map(|beat| 500 + beat * 400).collect();
        let peaks: Vec<(f64, f64)> = (0..30)
            .filter(|beat| beat % 3 != 0)
            .map(|beat| (1.35 + 0.8 * f64::from(beat), 1.0))
            .collect();
        let pulses = detect_pulses(&pulses_at(500.0, 26.0, &peaks), rate());
        let found = pulse_arrival(&r_peaks, &pulses, rate()).unwrap();
        assert_eq!((found.beats.len(), found.unpaired), (20, 10));
        assert!(found.spread_ms < 2.0);
        assert_eq!(pulse_arrival(&r_peaks, &[], rate()), Err(ArrivalError { found: 0 }));
        assert_eq!(pulse_arrival(&r_peaks[..5], &pulses[..2], rate()).unwrap_err().found, 2);
    }
}
