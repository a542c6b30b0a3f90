//! The shock index and its relatives.
//!
//! - Shock index: heart rate / systolic pressure (Allgöwer and Burri, *Dtsch. Med. Wochenschr.* 92:1947, 1967). 0.5–0.7 in
//!   health; over 0.9 calls for care (Rady et al., *Ann. Emerg. Med.* 24:685, 1994).
//! - Modified: heart rate / mean pressure (Liu et al., *World J. Emerg. Med.* 3:114, 2012): 0.7–1.3.
//! - By age: years × shock index (Zarzaur et al., *J. Surg. Res.* 147:229, 2008), adults; 50 and over.
//! - In children the limit depends on age: [`paediatric_shock_limit`].

/// Beats per minute and mmHg that anybody can have; others count as missing.
const MOST: f64 = 400.0;
/// Ages to which the index by age applies.
const ADULT_YEARS: std::ops::RangeInclusive<f64> = 18.0..=120.0;

/// What they are computed from. Everything may be missing; what is not within its range counts as missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShockInputs {
    /// Heart beats per minute; 0–400.
    pub heart_rate: Option<f64>,
    /// Systolic pressure in mmHg; above 0, to 400.
    pub systolic_mmhg: Option<f64>,
    /// Diastolic pressure in mmHg; above 0, to 400.
    pub diastolic_mmhg: Option<f64>,
    /// Mean arterial pressure in mmHg, above 0, to 400; if missing, (systolic + 2 × diastolic) / 3.
    pub mean_mmhg: Option<f64>,
    /// Age in years; 18–120.
    pub age_years: Option<f64>,
}

/// Where a figure lies: from `lower` to `upper`, which are equal when it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The least that what is known allows.
    pub lower: f64,
    /// The most; infinite if a pressure is missing.
    pub upper: f64,
}

impl Range {
    /// The figure, if it is known.
    pub fn value(&self) -> Option<f64> {
        (self.lower == self.upper).then_some(self.lower)
    }

    fn known(value: f64) -> Self {
        Self { lower: value, upper: value }
    }

    fn over(self, other: Self) -> Self {
        Self { lower: self.lower / other.upper, upper: self.upper / other.lower }
    }

    fn times(self, other: Self) -> Self {
        Self { lower: self.lower * other.lower, upper: self.upper * other.upper }
    }
}

/// The indices, in min⁻¹ mmHg⁻¹ (by age: times years).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShockIndex {
    /// Heart rate over systolic pressure.
    pub index: Range,
    /// Heart rate over mean pressure. With a systolic pressure alone it is known to lie between that over the systolic
    /// and three times as much.
    pub modified: Range,
    /// Years times the index.
    pub by_age: Range,
}

/// Computes the indices.
pub fn shock_index(inputs: &ShockInputs) -> ShockIndex {
    let pressure = |value: Option<f64>| value.filter(|value| *value > 0.0 && *value <= MOST);
    let heart_rate = match inputs.heart_rate.filter(|rate| (0.0..=MOST).contains(rate)) {
        Some(rate) => Range::known(rate),
        None => Range { lower: 0.0, upper: MOST },
    };
    let systolic = pressure(inputs.systolic_mmhg);
    let diastolic = pressure(inputs.diastolic_mmhg);
    let unknown = Range { lower: 0.0, upper: MOST };
    let mean = match (pressure(inputs.mean_mmhg), systolic, diastolic) {
        (Some(mean), _, _) => Range::known(mean),
        (None, Some(systolic), Some(diastolic)) => Range::known((systolic + 2.0 * diastolic) / 3.0),
        (None, Some(systolic), None) => Range { lower: systolic / 3.0, upper: systolic },
        (None, None, Some(diastolic)) => Range { lower: diastolic, upper: MOST },
        (None, None, None) => unknown,
    };
    let age = match inputs.age_years.filter(|age| ADULT_YEARS.contains(age)) {
        Some(age) => Range::known(age),
        None => Range { lower: *ADULT_YEARS.start(), upper: *ADULT_YEARS.end() },
    };
    let index = heart_rate.over(systolic.map_or(unknown, Range::known));
    ShockIndex { index, modified: heart_rate.over(mean), by_age: index.times(age) }
}

/// The shock index above which an injured child is at risk: 1.22 at 4 to 6 years, 1.0 at 7 to 12, 0.9 at 13 to 16 (SIPA;
/// Acker et al., *J. Pediatr. Surg.* 50:331, 2015). `age_years` are completed years; `None` at other ages.
pub fn paediatric_shock_limit(age_years: u32) -> Option<f64> {
    match age_years {
        4..=6 => Some(1.22),
        7..=12 => Some(1.0),
        13..=16 => Some(0.9),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> ShockInputs {
        ShockInputs {
            heart_rate: Some(120.0),
            systolic_mmhg: Some(100.0),
            diastolic_mmhg: Some(70.0),
            mean_mmhg: None,
            age_years: Some(50.0),
        }
    }

    #[test]
    fn by_hand() {
        let found = shock_index(&full());
        assert_eq!(found.index.value(), Some(1.2));
        assert_eq!(found.modified.value(), Some(1.5));
        assert_eq!(found.by_age.value(), Some(60.0));
        let measured = shock_index(&ShockInputs { mean_mmhg: Some(60.0), ..full() });
        assert_eq!(measured.modified.value(), Some(2.0));
        assert_eq!(
            [3, 4, 6, 7, 13, 17].map(paediatric_shock_limit),
            [None, Some(1.22), Some(1.22), Some(1.0), Some(0.9), None]
        );
    }

    #[test]
    fn what_is_missing_leaves_a_range_around_the_value() {
        let whole = shock_index(&full());
        let without: [fn(&mut ShockInputs); 4] = [
            |inputs| inputs.heart_rate = None,
            |inputs| inputs.systolic_mmhg = Some(0.0),
            |inputs| inputs.diastolic_mmhg = Some(f64::NAN),
            |inputs| inputs.age_years = None,
        ];
        for remove in without {
            let mut inputs = full();
            remove(&mut inputs);
            let part = shock_index(&inputs);
            let pairs = [
                (part.index, whole.index),
                (part.modified, whole.modified),
                (part.by_age, whole.by_age),
            ];
            assert!(pairs.iter().any(|(part, _)| part.value().is_none()), "{part:?}");
            for (part, whole) in pairs {
                assert!(part.lower <= whole.lower && whole.upper <= part.upper, "{part:?}");
            }
        }
        let nothing = shock_index(&ShockInputs::default()).index;
        assert_eq!((nothing.lower, nothing.upper), (0.0, f64::INFINITY));
    }
}
