//! Excursions: a sudden departure of some streams from their own level, until they are back.
//!
//! For what no single window shows: something happens to a patient or a sensor (a hot breath on a mote, a hand on an electrode, a
//! cuff on the same arm), the readings leave their level within seconds and need many readings to return. Slow changes are none.
//!
//! # Method
//! Each stream has a *level*, the median of its last [`LEVEL`] readings, and a *departure*, how far a reading lies from it. What departures are
//! usual is the [`USUAL`] quantile of the last [`MEMORY`]; so a stream that always wanders is given room. An excursion opens when a departure in any of the
//! streams is [`Excursions::OPENS`] times the usual one. Level and usual departure are then held as they were, so that the excursion does not become
//! normal by lasting, and it closes when every stream that left is back within [`CLOSES`] of its greatest departure (the
//! 10 % at which rise and fall times of pulses are measured, IEEE Std 181). After [`LONGEST`] readings the new level is taken for the stream's own.
//!
//! Everything is relative to the streams' own past: no unit, no range, nothing trained. Causal: a reading is judged when it comes, and never again.
//!
//! # Not guaranteed
//! The first [`FEWEST`] departures are not judged. Whether the patient, the surroundings or the sensor did it is not said.

use std::collections::VecDeque;

/// Readings whose median is the level.
pub const LEVEL: usize = 60;
/// Departures that tell what is usual.
pub const MEMORY: usize = 720;
/// Share of departures that are at most the usual one.
pub const USUAL: f32 = 0.9;
/// An excursion is over when this share of its greatest departure is left.
pub const CLOSES: f32 = 0.1;
/// Readings after which a new level is the stream's own.
pub const LONGEST: usize = 720;
/// Fewest readings for a level, and fewest departures for what is usual.
pub const FEWEST: usize = 30;

/// Follows some streams that are read together.
#[derive(Clone, PartialEq, Debug)]
pub struct Excursions {
    opens: f32,
    channels: Vec<Channel>,
    /// Readings since the excursion opened.
    open: Option<usize>,
}

/// What one set of readings is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Departure {
    /// Whether it belongs to an excursion.
    pub excursion: bool,
    /// The greatest departure among the streams, in usual ones; 0 while too little is known.
    pub size: f32,
}

impl Excursions {
    /// So many usual departures open an excursion. On the motes that it was tried on, 14 to 32 do about equally well.
    pub const OPENS: f32 = 20.0;

    /// For so many streams, with nothing known of them yet.
    pub fn new(streams: usize) -> Self {
        Self::opening_at(Self::OPENS, streams)
    }

    /// As [`Excursions::new`], opening at another multiple of the usual departure.
    pub fn opening_at(opens: f32, streams: usize) -> Self {
        Self { opens, channels: vec![Channel::default(); streams], open: None }
    }

    /// Judges one value of each stream; what is not finite is passed over, values beyond the streams are not looked at.
    pub fn push(&mut self, values: &[f32]) -> Departure {
        match self.open {
            None => self.usual(values),
            Some(readings) => self.during(values, readings + 1),
        }
    }

    fn usual(&mut self, values: &[f32]) -> Departure {
        let mut size = 0.0_f32;
        for (channel, value) in pairs(&mut self.channels, values) {
            if let Some(bounds) = channel.bounds() {
                size = size.max((value - bounds.level).abs() / bounds.usual);
            }
        }
        let excursion = size > self.opens;
        if excursion {
            self.open = Some(1);
            for channel in &mut self.channels {
                channel.held = channel.bounds().map(|bounds| Held { bounds, greatest: 0.0 });
                channel.since.clear();
            }
            self.departed(values);
        } else {
            for (channel, value) in pairs(&mut self.channels, values) {
                channel.learn(value);
            }
        }
        Departure { excursion, size }
    }

    fn during(&mut self, values: &[f32], readings: usize) -> Departure {
        let (away, size) = self.departed(values);
        if away && readings < LONGEST {
            self.open = Some(readings);
            return Departure { excursion: true, size };
        }
        self.open = None;
        for channel in &mut self.channels {
            channel.held = None;
            if away {
                channel.recent = std::mem::take(&mut channel.since);
            }
        }
        if !away {
            for (channel, value) in pairs(&mut self.channels, values) {
                channel.learn(value);
            }
        }
        Departure { excursion: false, size }
    }

    /// Whether any stream is still away, and the greatest departure in usual ones.
    fn departed(&mut self, values: &[f32]) -> (bool, f32) {
        let (mut away, mut size) = (false, 0.0_f32);
        let opens = self.opens;
        for (channel, value) in pairs(&mut self.channels, values) {
            keep(&mut channel.since, value, LEVEL);
            let Some(Held { bounds, greatest }) = &mut channel.held else { continue };
            let departure = (value - bounds.level).abs();
            *greatest = greatest.max(departure);
            away |= *greatest > opens * bounds.usual && departure > CLOSES * *greatest;
            size = size.max(departure / bounds.usual);
        }
        (away, size)
    }
}

/// The channels that have a finite value.
fn pairs<'c>(
    channels: &'c mut [Channel],
    values: &'c [f32],
) -> impl Iterator<Item = (&'c mut Channel, f32)> {
    channels.iter_mut().zip(values.iter().copied()).filter(|(_, value)| value.is_finite())
}

#[derive(Clone, PartialEq, Debug, Default)]
struct Channel {
    /// Readings that were no excursion.
    recent: VecDeque<f32>,
    departures: VecDeque<f32>,
    held: Option<Held>,
    /// Readings of the excursion.
    since: VecDeque<f32>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Bounds {
    level: f32,
    usual: f32,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Held {
    bounds: Bounds,
    greatest: f32,
}

impl Channel {
    fn bounds(&self) -> Option<Bounds> {
        if self.departures.len() < FEWEST {
            return None;
        }
        let level = quantile(&self.recent, 0.5)?;
        // No finer than f32 tells apart, and never zero.
        let least = (level.abs() * 1e-5).max(f32::MIN_POSITIVE);
        Some(Bounds { level, usual: quantile(&self.departures, USUAL)?.max(least) })
    }

    fn learn(&mut self, value: f32) {
        if self.recent.len() >= FEWEST
            && let Some(level) = quantile(&self.recent, 0.5)
        {
            keep(&mut self.departures, (value - level).abs(), MEMORY);
        }
        keep(&mut self.recent, value, LEVEL);
    }
}

fn keep(values: &mut VecDeque<f32>, value: f32, most: usize) {
    if values.len() == most {
        values.pop_front();
    }
    values.push_back(value);
}

fn quantile(values: &VecDeque<f32>, share: f32) -> Option<f32> {
    let mut values: Vec<f32> = values.iter().copied().collect();
    let last = values.len().checked_sub(1)?;
    let at = ((last as f32 * share).round() as usize).min(last);
    Some(*values.select_nth_unstable_by(at, f32::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::super::inject::tests::wave;
    use super::*;

    /// Two waves; from 800 on the first is off by so much, which decays by so many readings.
    fn called(off: f32, decay: f32, rows: usize) -> Vec<usize> {
        let (first, second) = (wave(rows, 1), wave(rows, 2));
        let mut excursions = Excursions::new(2);
        let mut called = Vec::new();
        for at in 0..rows {
            let away = if at < 800 { 0.0 } else { off * (-((at - 800) as f32) / decay).exp() };
            let values = [first[at].value + away, second[at].value];
            if excursions.push(&values).excursion {
                called.push(at);
            }
        }
        called
    }

    #[test]
    fn it_opens_at_once_and_closes_at_a_tenth() {
        let found = called(60.0, 20.0, 1_200);
        assert_eq!(found.first(), Some(&800));
        // A tenth of 60 is left after 46 readings.
        let last = *found.last().unwrap();
        assert!((842..=850).contains(&last), "{last}");
        assert_eq!(found.len(), last - 799);
    }

    #[test]
    fn what_is_usual_or_slow_is_none() {
        assert!(called(0.0, 20.0, 1_200).is_empty());
        let mut excursions = Excursions::new(1);
        for (at, reading) in wave(3_000, 3).iter().enumerate() {
            let rising = reading.value + at as f32 * 0.01;
            assert!(!excursions.push(&[rising]).excursion, "{at}");
        }
    }

    #[test]
    fn a_new_level_becomes_the_streams_own() {
        let found = called(60.0, 1e9, 2_400);
        assert_eq!(found.len(), LONGEST - 1);
        assert_eq!(found.last(), Some(&(800 + LONGEST - 2)));
    }

    #[test]
    fn unit_does_not_matter_and_damage_is_passed_over() {
        let mut excursions = [Excursions::new(1), Excursions::new(1)];
        for (at, reading) in wave(900, 4).iter().enumerate() {
            let value = if at == 850 { 90.0 } else { reading.value };
            let [plain, scaled] = &mut excursions;
            let (a, b) = (plain.push(&[value]), scaled.push(&[value * 1024.0]));
            assert_eq!(a.excursion, b.excursion);
            assert!((a.size - b.size).abs() <= 1e-3 * a.size.max(1.0));
            assert_eq!(a.excursion, at == 850);
        }
        let before = excursions[0].clone();
        excursions[0].push(&[f32::NAN]);
        excursions[0].push(&[]);
        assert_eq!(before, excursions[0]);
    }
}
