//! Continuous glucose monitoring: time in ranges, variability, risk, and data sufficiency.
//!
//! - Ranges, coverage and the report: Battelino et al. 2019, "Clinical targets for continuous glucose
//!   monitoring data interpretation", Diabetes Care 42:1593–1603.
//! - Glucose management indicator: Bergenstal et al. 2018, Diabetes Care 41:2275–2280: 3.31 + 0.02392 · mean.
//! - LBGI and HBGI: Kovatchev et al. 1997, Diabetes Care 20:1655–1658, and 2006, Diabetes Care 29:2433–2438:
//!   mean of 10·f² below and above zero, f = 1.509·(ln(BG)^1.084 − 5.381).
//! - MAGE: Service et al. 1970, Diabetes 19:644–655. MODD: Molnar, Taylor & Ho 1972, Diabetologia 8:342–348.
//!
//! Glucose is in mg/dL and time in microseconds. Shares are shares of readings, as the consensus has it: a
//! sensor that reads every five minutes gives each the same weight. What a sensor says beyond its range
//! ("Low", "High") is a reading: give [`SENSOR_LOW_MG_DL`] or [`SENSOR_HIGH_MG_DL`]. Anything that is not finite, or
//! outside of [`PLAUSIBLE_MG_DL`], is no reading.

mod forecast;
mod variability;

pub use forecast::{Forecast, Forecaster, HORIZON_US, MIN_OUTCOMES};
pub use variability::{RateOfChange, mage_mg_dl, modd_mg_dl, rate_of_change};

/// mg/dL in one mmol/L: the molar mass of glucose, 180.156 g/mol.
pub const MG_DL_PER_MMOL_L: f64 = 18.015_6;

/// What "Low" counts as: just below the range of the usual sensors.
pub const SENSOR_LOW_MG_DL: f64 = 39.0;

/// What "High" counts as: just above it.
pub const SENSOR_HIGH_MG_DL: f64 = 401.0;

/// Beyond these a value is no glucose of a living patient but an error.
pub const PLAUSIBLE_MG_DL: (f64, f64) = (20.0, 800.0);

/// Borders of the five ranges in whole mg/dL: below the first is very low, below the second low, up to and
/// with the third in range, up to and with the fourth high. In mmol/L 3.0, 3.9, 10.0 and 13.9.
pub const BORDERS_MG_DL: [f64; 4] = [54.0, 70.0, 180.0, 250.0];

/// The share of expected readings, in per cent, from which a report is sufficient.
pub const SUFFICIENT_PERCENT: f64 = 70.0;

/// The days from which a report is sufficient.
pub const SUFFICIENT_DAYS: f64 = 14.0;

/// A longer pause between readings breaks excursions and rates, in microseconds.
pub const MAX_PAUSE_US: i64 = 45 * 60_000_000;

pub(super) const DAY_US: i64 = 86_400_000_000;

/// One reading of a sensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Glucose {
    /// Event time in microseconds.
    pub time_us: i64,
    /// Interstitial glucose in mg/dL.
    pub mg_dl: f64,
}

impl Glucose {
    /// A reading in mmol/L.
    pub fn from_mmol_l(time_us: i64, mmol_l: f64) -> Self {
        Self { time_us, mg_dl: mmol_l * MG_DL_PER_MMOL_L }
    }

    /// The value in mmol/L.
    pub fn mmol_l(&self) -> f64 {
        self.mg_dl / MG_DL_PER_MMOL_L
    }

    fn is_reading(&self) -> bool {
        (PLAUSIBLE_MG_DL.0..=PLAUSIBLE_MG_DL.1).contains(&self.mg_dl)
    }
}

/// Shares of readings in the five ranges, in per cent; they add up to 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranges {
    /// Below 54 mg/dL (3.0 mmol/L): level 2 hypoglycaemia.
    pub very_low_percent: f64,
    /// 54–69 mg/dL (3.0–3.8 mmol/L): level 1.
    pub low_percent: f64,
    /// 70–180 mg/dL (3.9–10.0 mmol/L).
    pub in_range_percent: f64,
    /// 181–250 mg/dL (10.1–13.9 mmol/L): level 1 hyperglycaemia.
    pub high_percent: f64,
    /// Above 250 mg/dL (13.9 mmol/L): level 2.
    pub very_high_percent: f64,
}

/// The report of a period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Readings used.
    pub readings: usize,
    /// From the first to the last reading, and one interval.
    pub days: f64,
    /// Readings in per cent of those expected in that time; not above 100.
    pub active_percent: f64,
    /// At least [`SUFFICIENT_PERCENT`] of at least [`SUFFICIENT_DAYS`]. Less is reported all the same; say so
    /// beside it.
    pub sufficient: bool,
    /// Mean glucose.
    pub mean_mg_dl: f64,
    /// Standard deviation (n − 1).
    pub deviation_mg_dl: f64,
    /// Coefficient of variation; the consensus holds 36 and less for stable.
    pub cv_percent: f64,
    /// Glucose management indicator: what HbA1c would be expected, in per cent.
    pub gmi_percent: f64,
    /// Time in ranges.
    pub ranges: Ranges,
    /// Low blood glucose index; above 2.5 the risk of hypoglycaemia is held for moderate, above 5 for high.
    pub lbgi: f64,
    /// High blood glucose index.
    pub hbgi: f64,
    /// Mean amplitude of glycaemic excursions; absent if there is none.
    pub mage_mg_dl: Option<f64>,
    /// Mean of daily differences; absent if no two readings lie a day apart.
    pub modd_mg_dl: Option<f64>,
}

/// Why there is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CgmError {
    /// Fewer than two readings.
    #[error("{found} glucose readings, 2 are needed: take a longer period")]
    TooFew {
        /// Readings that there are.
        found: usize,
    },
    /// The expected interval is not positive.
    #[error("the sensor's interval must be positive: give the time between its readings")]
    NoInterval,
}

/// The report of `readings`, of a sensor that gives one every `interval_us`.
///
/// In rising order of time; one that is not later than the one before, or is no reading, is left out.
pub fn report(readings: &[Glucose], interval_us: i64) -> Result<Report, CgmError> {
    if interval_us <= 0 {
        return Err(CgmError::NoInterval);
    }
    let used = usable(readings);
    let ([first, .., last], count) = (&used[..], used.len()) else {
        return Err(CgmError::TooFew { found: used.len() });
    };
    let span_us = (last.time_us - first.time_us).saturating_add(interval_us) as f64;
    let active_percent = (100.0 * count as f64 * interval_us as f64 / span_us).min(100.0);
    let days = span_us / DAY_US as f64;
    let n = count as f64;
    let mean = used.iter().map(|reading| reading.mg_dl).sum::<f64>() / n;
    let squares: f64 = used.iter().map(|reading| (reading.mg_dl - mean).powi(2)).sum();
    let deviation = (squares / (n - 1.0)).sqrt();
    let (mut lbgi, mut hbgi) = (0.0, 0.0);
    for reading in &used {
        let f = 1.509 * (reading.mg_dl.ln().powf(1.084) - 5.381);
        *(if f < 0.0 { &mut lbgi } else { &mut hbgi }) += 10.0 * f * f / n;
    }
    Ok(Report {
        readings: count,
        days,
        active_percent,
        sufficient: active_percent >= SUFFICIENT_PERCENT && days >= SUFFICIENT_DAYS,
        mean_mg_dl: mean,
        deviation_mg_dl: deviation,
        cv_percent: 100.0 * deviation / mean,
        gmi_percent: 3.31 + 0.023_92 * mean,
        ranges: ranges(&used),
        lbgi,
        hbgi,
        mage_mg_dl: mage_mg_dl(&used),
        modd_mg_dl: modd_mg_dl(&used, interval_us),
    })
}

fn ranges(used: &[Glucose]) -> Ranges {
    let mut counts = [0_usize; 5];
    let [very_low, low, high, very_high] = BORDERS_MG_DL;
    for reading in used {
        // In whole mg/dL, so that 10.0 mmol/L (180.2 mg/dL) is in range in either unit.
        let whole = reading.mg_dl.round();
        let place = usize::from(whole >= very_low)
            + usize::from(whole >= low)
            + usize::from(whole > high)
            + usize::from(whole > very_high);
        counts[place] += 1;
    }
    let percent = counts.map(|count| 100.0 * count as f64 / used.len() as f64);
    Ranges {
        very_low_percent: percent[0],
        low_percent: percent[1],
        in_range_percent: percent[2],
        high_percent: percent[3],
        very_high_percent: percent[4],
    }
}

/// Those that are readings, rising in time.
fn usable(readings: &[Glucose]) -> Vec<Glucose> {
    let mut used: Vec<Glucose> = Vec::with_capacity(readings.len());
    for reading in readings.iter().filter(|reading| reading.is_reading()) {
        if used.last().is_none_or(|last| last.time_us < reading.time_us) {
            used.push(*reading);
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) const FIVE_MINUTES: i64 = 300_000_000;

    pub(super) fn every_five_minutes(values: impl IntoIterator<Item = f64>) -> Vec<Glucose> {
        let at = |(index, mg_dl)| Glucose { time_us: index as i64 * FIVE_MINUTES, mg_dl };
        values.into_iter().enumerate().map(at).collect()
    }

    #[test]
    fn a_report_by_hand() {
        let values = [53.0, 54.0, 69.0, 70.0, 180.0, 181.0, 250.0, 251.0, 100.0, 100.0];
        let found = report(&every_five_minutes(values), FIVE_MINUTES).unwrap();
        let expected = Ranges {
            very_low_percent: 10.0,
            low_percent: 20.0,
            in_range_percent: 40.0,
            high_percent: 20.0,
            very_high_percent: 10.0,
        };
        assert_eq!(found.ranges, expected);
        assert!((found.mean_mg_dl - 130.8).abs() < 1e-9);
        assert!((found.gmi_percent - (3.31 + 0.02392 * 130.8)).abs() < 1e-9);
        assert_eq!((found.active_percent, found.sufficient), (100.0, false));
    }

    #[test]
    fn ranges_are_the_same_in_either_unit() {
        let values = [2.9, 3.0, 3.8, 3.9, 10.0, 10.1, 13.9, 14.0];
        let readings: Vec<Glucose> = (0..)
            .zip(values)
            .map(|(i, mmol_l)| Glucose::from_mmol_l(i * FIVE_MINUTES, mmol_l))
            .collect();
        let found = report(&readings, FIVE_MINUTES).unwrap().ranges;
        assert_eq!(
            [found.very_low_percent, found.low_percent, found.in_range_percent],
            [12.5, 25.0, 25.0]
        );
        assert_eq!([found.high_percent, found.very_high_percent], [25.0, 12.5]);
        assert!((readings[0].mmol_l() - 2.9).abs() < 1e-12);
    }

    #[test]
    fn risk_as_published() {
        // Kovatchev's f is zero near 112.5 mg/dL; 10·f² is 100 at 20 and at 600 mg/dL by construction.
        let risk = |mg_dl: f64| {
            let found = report(&every_five_minutes([mg_dl; 3]), FIVE_MINUTES).unwrap();
            (found.lbgi, found.hbgi)
        };
        assert!(risk(112.5).0 + risk(112.5).1 < 0.01);
        assert!((risk(20.0).0 - 100.0).abs() < 0.5 && risk(20.0).1 == 0.0, "{:?}", risk(20.0));
        assert!((risk(600.0).1 - 100.0).abs() < 0.5 && risk(600.0).0 == 0.0, "{:?}", risk(600.0));
    }

    #[test]
    fn sufficiency_needs_days_and_readings() {
        let whole = every_five_minutes((0..14 * 288).map(|i| 120.0 + f64::from(i % 7)));
        assert!(report(&whole, FIVE_MINUTES).unwrap().sufficient);
        let holed: Vec<Glucose> =
            whole.iter().copied().filter(|g| g.time_us % DAY_US >= DAY_US / 3).collect();
        let found = report(&holed, FIVE_MINUTES).unwrap();
        assert!(found.active_percent < 70.0 && !found.sufficient, "{found:?}");
        assert!(!report(&whole[..10 * 288], FIVE_MINUTES).unwrap().sufficient);
    }

    #[test]
    fn what_is_no_reading_is_left_out() {
        let values = [f64::NAN, 100.0, 3.0, 4_000.0, 110.0];
        let mut readings = every_five_minutes(values);
        readings.push(Glucose { time_us: 0, mg_dl: 200.0 });
        let found = report(&readings, FIVE_MINUTES).unwrap();
        assert_eq!((found.readings, found.mean_mg_dl), (2, 105.0));
        assert_eq!(report(&readings[..2], FIVE_MINUTES), Err(CgmError::TooFew { found: 1 }));
        assert_eq!(report(&readings, 0), Err(CgmError::NoInterval));
    }

    proptest! {
        #[test]
        fn shares_are_shares(values in proptest::collection::vec(10.0..900.0f64, 0..200)) {
            let readings = every_five_minutes(values);
            if let Ok(found) = report(&readings, FIVE_MINUTES) {
                let r = found.ranges;
                let sum = r.very_low_percent + r.low_percent + r.in_range_percent
                    + r.high_percent + r.very_high_percent;
                prop_assert!((sum - 100.0).abs() < 1e-9);
                prop_assert!(found.lbgi >= 0.0 && found.hbgi >= 0.0);
                prop_assert!(found.active_percent <= 100.0);
                prop_assert!(found.mage_mg_dl.is_none_or(|mage| mage >= found.deviation_mg_dl));
            }
        }
    }
}
