//! What the panes of the pipelines gather.

use crate::item::Segment;
use crate::window::Aggregate;
use haar_schema::{SampleRate, Timestamp};
use haar_signals::moments::Moments;

/// The longest waveform that is laid out, in samples: an hour at 1 kHz.
pub const MAX_WAVEFORM_SAMPLES: usize = 3_600_000;

/// Scalars: an unusable value (NaN) is counted among the inputs by its pane and stops here.
impl Aggregate for Moments {
    type Payload = f64;

    #[inline]
    fn add(&mut self, at_us: i64, value: f64) {
        if value.is_finite() {
            Moments::add(self, at_us, value);
        }
    }

    #[inline]
    fn merge(&mut self, later: &Self) {
        Moments::merge(self, later);
    }
}

/// Scalars one by one, in the order of their stamps; NaN for an unusable value. Two of one stamp and value are one: a frame that came
/// twice is no fault of a device's clock.
#[derive(Clone, Default, Debug)]
pub struct Readings(Vec<(i64, f64)>);

impl Readings {
    /// Event time in microseconds, and value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, f64)> {
        self.0.iter().copied()
    }
}

impl Aggregate for Readings {
    type Payload = f64;

    #[inline]
    fn add(&mut self, at_us: i64, value: f64) {
        let at = self.0.partition_point(|(time, _)| *time <= at_us);
        let twin =
            |(time, other): &&(i64, f64)| *time == at_us && other.to_bits() == value.to_bits();
        if self.0[..at].iter().rev().take_while(|(time, _)| *time == at_us).all(|own| !twin(&own)) {
            self.0.insert(at, (at_us, value));
        }
    }

    #[inline]
    fn merge(&mut self, later: &Self) {
        self.0.extend_from_slice(&later.0);
    }
}

/// Waveforms: the segments received, in the order of their times.
#[derive(Clone, Default, Debug)]
pub struct Segments(Vec<(i64, Segment)>);

impl Aggregate for Segments {
    type Payload = Segment;

    fn add(&mut self, at_us: i64, segment: Segment) {
        let at = self.0.partition_point(|(time, _)| *time <= at_us);
        self.0.insert(at, (at_us, segment));
    }

    fn merge(&mut self, later: &Self) {
        self.0.extend(later.0.iter().cloned());
    }
}

/// Samples on the regular grid of a window.
#[derive(Clone, PartialEq, Debug)]
pub struct Waveform {
    /// Time of the first grid point.
    pub start: Timestamp,
    /// Sampling rate.
    pub rate: SampleRate,
    /// One value a grid point in the signal's unit; NaN where nothing usable was received.
    pub samples: Vec<f32>,
}

impl Segments {
    /// Lays the segments out on the grid that begins at `start`, at the rate of the first segment;
    /// segments of another rate are left out (a device that changes its rate begins anew with the
    /// next window). Where segments overlap, the later one stands. `None` without a segment.
    pub fn lay_out(&self, start: Timestamp, end: Timestamp) -> Option<Waveform> {
        let rate = self.0.first()?.1.rate();
        let length_us = end.micros_since(start);
        let count = (i128::from(length_us) * i128::from(rate.millihertz()) / 1_000_000_000)
            .clamp(0, MAX_WAVEFORM_SAMPLES as i128) as usize;
        let mut samples = vec![f32::NAN; count];
        // A frame's first sample lies anywhere between two grid points: half a step makes it the nearest.
        let half_step_us = 500_000_000 / i64::from(rate.millihertz());
        for (at_us, segment) in self.0.iter().filter(|(_, segment)| segment.rate() == rate) {
            let offset_us = at_us.saturating_sub(start.micros()).saturating_add(half_step_us);
            let first = i128::from(offset_us) * i128::from(rate.millihertz()) / 1_000_000_000;
            for (step, (_, value)) in segment.samples().enumerate() {
                if let Some(place) =
                    usize::try_from(first + step as i128).ok().and_then(|i| samples.get_mut(i))
                {
                    *place = value;
                }
            }
        }
        Some(Waveform { start, rate, samples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_schema::SampledData;
    use std::sync::Arc;

    fn segment(start_us: i64, rate_hz: u32, values: &[i16]) -> (i64, Segment) {
        let rate = SampleRate::from_hz(rate_hz).unwrap();
        let data = Arc::new(SampledData::new(rate, 0.0, 0.5, values.to_vec()).unwrap());
        let to = values.len() as u32;
        (start_us, Segment { data, start_us, from: 0, to, usable: true })
    }

    #[test]
    fn gaps_stay_gaps_and_the_grid_is_the_nearest() {
        let mut segments = Segments::default();
        // 1 ms after the grid point at 500 ms, and arriving first.
        for (at, part) in [segment(501_000, 10, &[4, i16::MIN, 8]), segment(0, 10, &[2, 2])] {
            segments.add(at, part);
        }
        let laid =
            segments.lay_out(Timestamp::from_micros(0), Timestamp::from_micros(1_000_000)).unwrap();
        let shown: Vec<_> = laid.samples.iter().map(|v| (!v.is_nan()).then_some(*v)).collect();
        assert_eq!(
            shown,
            [Some(1.0), Some(1.0), None, None, None, Some(2.0), None, Some(4.0), None, None]
        );
    }

    #[test]
    fn readings_stand_in_the_order_of_their_stamps() {
        let mut readings = Readings::default();
        for (at, value) in [(2, 1.0), (1, 5.0), (2, 1.0), (2, 3.0), (1, f64::NAN)] {
            readings.add(at, value);
        }
        let mut later = Readings::default();
        later.add(3, 4.0);
        readings.merge(&later);
        let stamps: Vec<i64> = readings.iter().map(|(at, _)| at).collect();
        assert_eq!(stamps, [1, 1, 2, 2, 3]);
        let values: Vec<f64> = readings.iter().map(|(_, value)| value).collect();
        assert!(values[1].is_nan());
        assert_eq!([values[0], values[2], values[3], values[4]], [5.0, 1.0, 3.0, 4.0]);
    }

    #[test]
    fn nothing_has_no_grid() {
        assert_eq!(Segments::default().lay_out(Timestamp::MIN, Timestamp::MAX), None);
    }
}
