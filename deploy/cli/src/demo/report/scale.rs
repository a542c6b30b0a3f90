//! From values and times to places in a drawing.

use haar_schema::Timestamp;
use std::fmt;

/// The steps that a time axis may have, in seconds.
const TIME_STEPS_S: [i64; 17] =
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200];

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;

/// A place in a drawing: one decimal, and never something that is not a number.
pub(super) struct Px(pub f64);

impl fmt::Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Adding zero turns −0 into 0.
        let place = if self.0.is_finite() { (self.0 * 10.0).round() / 10.0 + 0.0 } else { 0.0 };
        write!(f, "{place}")
    }
}

/// The interval of time that all drawings of one patient share.
#[derive(Clone, Copy)]
pub(super) struct TimeAxis {
    from: Timestamp,
    to: Timestamp,
}

impl TimeAxis {
    /// The smallest axis with all these times, at least ten seconds long; `None` without a time.
    pub(super) fn around(times: impl Iterator<Item = Timestamp> + Clone) -> Option<Self> {
        const SHORTEST_US: i64 = 10 * SECOND_US;
        let (from, to) = (times.clone().min()?, times.max()?);
        let short = (SHORTEST_US - to.micros_since(from)).max(0);
        Some(Self { from: from.plus_micros(-short / 2), to: to.plus_micros(short / 2) })
    }

    pub(super) fn from(&self) -> Timestamp {
        self.from
    }

    pub(super) fn to(&self) -> Timestamp {
        self.to
    }

    /// Where `at` lies between 0 and `width`.
    pub(super) fn x(&self, at: Timestamp, width: f64) -> f64 {
        let whole = self.to.micros_since(self.from).max(1) as f64;
        (at.micros_since(self.from) as f64 / whole).clamp(0.0, 1.0) * width
    }

    /// At most `count` round times on the axis.
    pub(super) fn ticks(&self, count: i64) -> Vec<Timestamp> {
        let span_s = self.to.micros_since(self.from) / SECOND_US;
        let fits = |step: &i64| span_s / step < count;
        let days = (span_s / count / DAY_S + 1).saturating_mul(DAY_S);
        let step_us = TIME_STEPS_S.into_iter().find(fits).unwrap_or(days).saturating_mul(SECOND_US);
        let mut tick = self.from.floor_to(step_us);
        let mut ticks = Vec::new();
        while tick <= self.to && ticks.len() <= count as usize {
            if tick >= self.from {
                ticks.push(tick);
            }
            tick = tick.plus_micros(step_us);
        }
        ticks
    }
}

/// The interval of values of one chart.
#[derive(Clone, Copy)]
pub(super) struct ValueAxis {
    pub low: f64,
    pub high: f64,
    step: f64,
}

impl ValueAxis {
    /// Round bounds around `low..=high`, at least `span_min` apart, inside `range`.
    pub(super) fn around(low: f64, high: f64, span_min: f64, range: (f64, f64)) -> Self {
        let (low, high) = (low.max(range.0), high.min(range.1).max(low.max(range.0)));
        let widen = ((span_min - (high - low)) / 2.0).max((high - low) * 0.05);
        let (mut low, mut high) = (low - widen, high + widen);
        if low < range.0 {
            (low, high) = (range.0, high + range.0 - low);
        }
        if high > range.1 {
            (low, high) = ((low + range.1 - high).max(range.0), range.1);
        }
        let step = round_step((high - low) / 3.0);
        Self {
            low: ((low / step).floor() * step).max(range.0),
            high: ((high / step).ceil() * step).min(range.1),
            step,
        }
    }

    /// Where `value` lies between `height` (low) and 0 (high).
    pub(super) fn y(&self, value: f64, height: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low).max(f64::MIN_POSITIVE);
        height - share.clamp(0.0, 1.0) * height
    }

    /// The round values on the axis.
    pub(super) fn ticks(&self) -> Vec<f64> {
        const MOST: usize = 12;
        let first = (self.low / self.step).ceil();
        (0..MOST)
            .map(|index| (first + index as f64) * self.step)
            .take_while(|tick| *tick <= self.high + self.step * 1e-9)
            .collect()
    }

    /// How many decimals its ticks need.
    pub(super) fn decimals(&self) -> usize {
        if self.step >= 1.0 { 0 } else { (-self.step.log10()).ceil().clamp(0.0, 6.0) as usize }
    }
}

/// 1, 2 or 5 times a power of ten, not under `raw`.
fn round_step(raw: f64) -> f64 {
    if !(raw.is_finite() && raw > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw).unwrap_or(power)
}

/// `HH:MM:SS` in UTC.
pub(super) fn clock(at: Timestamp) -> String {
    let second = at.micros().div_euclid(SECOND_US).rem_euclid(DAY_S);
    format!("{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
}

/// The date in UTC, or nothing if the time has none.
pub(super) fn date(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('T').map_or_else(String::new, |(date, _)| date.to_owned())
}

/// A whole number with its thousands apart.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the decimal unit that suits it.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1_000.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1_000.0;
    }
    format!("{value:.1} TB")
}

/// A duration between two times.
pub(super) fn duration(micros: i64) -> String {
    let seconds = micros.max(0) as f64 / SECOND_US as f64;
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_round_and_stay_in_range() {
        let axis = ValueAxis::around(96.2, 97.9, 8.0, (0.0, 100.0));
        assert_eq!((axis.low, axis.high), (90.0, 100.0));
        assert_eq!(axis.ticks(), [90.0, 95.0, 100.0]);
        let flat = ValueAxis::around(0.0, 0.0, 0.0, (0.0, f64::MAX));
        assert!(flat.y(0.0, 10.0).is_finite());
    }

    #[test]
    fn time_ticks_are_round_and_few() {
        let at = Timestamp::from_millis;
        let axis = TimeAxis::around([at(61_200), at(118_000)].into_iter()).unwrap();
        let ticks: Vec<String> = axis.ticks(5).into_iter().map(clock).collect();
        assert_eq!(ticks, ["00:01:15", "00:01:30", "00:01:45"]);
        let whole = TimeAxis::around([Timestamp::MIN, Timestamp::MAX].into_iter()).unwrap();
        assert!(whole.ticks(5).len() <= 6);
        assert_eq!(TimeAxis::around(std::iter::empty()).map(|axis| axis.from), None);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(thousands(1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!(thousands(999), "999");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_234_567), "1.2 MB");
        assert_eq!(Px(f64::NAN).to_string(), "0");
        assert_eq!(Px(-0.01).to_string(), "0");
        assert_eq!(clock(Timestamp::from_millis(-1_000)), "23:59:59");
    }
}
