//! The Bedside Paediatric Early Warning System score.
//!
//! Parshuram, Hutchison and Middaugh, *Development and initial validation of the Bedside Paediatric Early Warning System
//! score*, Critical Care 13:R135, 2009 (CC BY 2.0), table 1, of which the score has seven items; 0 to 26 points. Table 1 is followed
//! to the letter: at 4–12 years four points begin *above* 150 beats/min, and over 12 years the two points of a slow heart begin
//! *below* 50. Age bands are of completed months: under 3, 12, 48 and 144, and the rest to 18 years.
//!
//! The name and the charts belong to The Hospital for Sick Children, Toronto: who uses the score at the bedside asks there. Other
//! PEWS (Brighton, the UK's national charts) have other tables and thresholds.

use super::{PartialScore, whole};

/// From this score on urgent admission to intensive care is likelier (Parshuram 2009: sensitivity 82 %, specificity 93 %).
pub const PEWS_CRITICAL: u8 = 8;

/// An age band of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgeBand {
    /// Under 3 months.
    UnderThreeMonths,
    /// 3 to under 12 months.
    UnderOneYear,
    /// 1 to under 4 years.
    UnderFourYears,
    /// 4 to under 12 years.
    UnderTwelveYears,
    /// 12 to under 18 years.
    UnderEighteenYears,
}

impl AgeBand {
    /// Of completed months; `None` from 18 years on, where the score does not apply.
    pub fn of_months(months: u32) -> Option<Self> {
        match months {
            0..=2 => Some(Self::UnderThreeMonths),
            3..=11 => Some(Self::UnderOneYear),
            12..=47 => Some(Self::UnderFourYears),
            48..=143 => Some(Self::UnderTwelveYears),
            144..=215 => Some(Self::UnderEighteenYears),
            216.. => None,
        }
    }
}

/// How hard the child breathes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RespiratoryEffort {
    /// Normal.
    Normal,
    /// Mild increase.
    Mild,
    /// Moderate increase.
    Moderate,
    /// Severe increase, or any apnoea.
    Severe,
}

/// How much oxygen the child is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OxygenTherapy {
    /// Room air.
    None,
    /// Any, to less than 4 L/min or less than 50 %.
    Low,
    /// 4 L/min or 50 % and more.
    High,
}

/// What it is computed from, besides the age. Everything may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PewsInputs {
    /// Heart beats per minute; 0–400, anything else counts as missing.
    pub heart_rate: Option<f64>,
    /// Systolic pressure in mmHg; 0–400.
    pub systolic_mmhg: Option<f64>,
    /// Capillary refill time in seconds; 0–60.
    pub capillary_refill_s: Option<f64>,
    /// Breaths per minute; 0–200.
    pub respiration_rate: Option<f64>,
    /// Respiratory effort.
    pub effort: Option<RespiratoryEffort>,
    /// Oxygen saturation in per cent; 0–100.
    pub spo2: Option<f64>,
    /// Oxygen therapy.
    pub oxygen: Option<OxygenTherapy>,
}

/// An item, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PewsParameter {
    /// Heart rate.
    HeartRate,
    /// Systolic pressure.
    SystolicPressure,
    /// Capillary refill time.
    CapillaryRefill,
    /// Respiration rate.
    RespirationRate,
    /// Respiratory effort.
    RespiratoryEffort,
    /// Oxygen saturation.
    SpO2,
    /// Oxygen therapy.
    OxygenTherapy,
}

/// The score, 0 to 26, as far as it is known.
pub type Pews = PartialScore<PewsParameter>;

/// Computes the score of a child in an age band. Rates, pressure and saturation round to whole numbers, halves up;
/// capillary refill does not round.
pub fn pews(age: AgeBand, inputs: &PewsInputs) -> Pews {
    let [heart_rate, systolic, respiration_rate] = limits(age);
    let refill = inputs.capillary_refill_s.filter(|seconds| (0.0..=60.0).contains(seconds));
    let effort = inputs.effort.map(|effort| match effort {
        RespiratoryEffort::Normal => 0,
        RespiratoryEffort::Mild => 1,
        RespiratoryEffort::Moderate => 2,
        RespiratoryEffort::Severe => 4,
    });
    let spo2 = whole(inputs.spo2, 100.0).map(|spo2| match spo2 {
        ..=90 => 2,
        91..=94 => 1,
        95.. => 0,
    });
    let oxygen = inputs.oxygen.map(|oxygen| match oxygen {
        OxygenTherapy::None => 0,
        OxygenTherapy::Low => 2,
        OxygenTherapy::High => 4,
    });
    let banded = |value: Option<f64>, most: f64, limits: &Limits| {
        whole(value, most).map(|value| limits.points(value))
    };
    PartialScore::of([
        (PewsParameter::HeartRate, banded(inputs.heart_rate, 400.0, &heart_rate), 4),
        (PewsParameter::SystolicPressure, banded(inputs.systolic_mmhg, 400.0, &systolic), 4),
        (PewsParameter::CapillaryRefill, refill.map(|time| if time >= 3.0 { 4 } else { 0 }), 4),
        (
            PewsParameter::RespirationRate,
            banded(inputs.respiration_rate, 200.0, &respiration_rate),
            4,
        ),
        (PewsParameter::RespiratoryEffort, effort, 4),
        (PewsParameter::SpO2, spo2, 2),
        (PewsParameter::OxygenTherapy, oxygen, 4),
    ])
}

/// Where 1, 2 and 4 points begin: at and above the first of each pair, at and below the second.
struct Limits([(i32, i32); 3]);

impl Limits {
    fn points(&self, value: i32) -> u8 {
        let beyond = |(high, low): (i32, i32)| value >= high || value <= low;
        let [one, two, four] = self.0.map(beyond);
        match (four, two, one) {
            (true, _, _) => 4,
            (_, true, _) => 2,
            (_, _, true) => 1,
            _ => 0,
        }
    }
}

/// Heart rate, systolic pressure and respiration rate of table 1.
fn limits(age: AgeBand) -> [Limits; 3] {
    match age {
        AgeBand::UnderThreeMonths => [
            Limits([(150, 110), (180, 90), (190, 80)]),
            Limits([(80, 60), (100, 50), (130, 45)]),
            Limits([(61, 29), (81, 19), (91, 15)]),
        ],
        AgeBand::UnderOneYear => [
            Limits([(150, 100), (170, 80), (180, 70)]),
            Limits([(100, 80), (120, 70), (150, 60)]),
            Limits([(51, 24), (71, 19), (81, 15)]),
        ],
        AgeBand::UnderFourYears => [
            Limits([(120, 90), (150, 70), (170, 60)]),
            Limits([(110, 90), (125, 75), (160, 65)]),
            Limits([(41, 19), (61, 15), (71, 12)]),
        ],
        AgeBand::UnderTwelveYears => [
            Limits([(110, 70), (130, 60), (151, 50)]),
            Limits([(120, 90), (140, 80), (170, 70)]),
            Limits([(31, 19), (41, 14), (51, 10)]),
        ],
        AgeBand::UnderEighteenYears => [
            Limits([(100, 60), (120, 49), (140, 40)]),
            Limits([(130, 100), (150, 85), (190, 75)]),
            Limits([(17, 11), (23, 10), (30, 9)]),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANDS: [AgeBand; 5] = [
        AgeBand::UnderThreeMonths,
        AgeBand::UnderOneYear,
        AgeBand::UnderFourYears,
        AgeBand::UnderTwelveYears,
        AgeBand::UnderEighteenYears,
    ];

    /// Healthy values of each band: the middle of the table's column of 0 points.
    fn healthy(age: AgeBand) -> PewsInputs {
        let (heart_rate, systolic, rate) = match age {
            AgeBand::UnderThreeMonths => (130.0, 70.0, 45.0),
            AgeBand::UnderOneYear => (125.0, 90.0, 40.0),
            AgeBand::UnderFourYears => (105.0, 100.0, 30.0),
            AgeBand::UnderTwelveYears => (90.0, 105.0, 25.0),
            AgeBand::UnderEighteenYears => (80.0, 115.0, 14.0),
        };
        PewsInputs {
            heart_rate: Some(heart_rate),
            systolic_mmhg: Some(systolic),
            capillary_refill_s: Some(2.0),
            respiration_rate: Some(rate),
            effort: Some(RespiratoryEffort::Normal),
            spo2: Some(98.0),
            oxygen: Some(OxygenTherapy::None),
        }
    }

    fn check(age: AgeBand, cases: &[(f64, u8)], set: impl Fn(&mut PewsInputs, f64)) {
        for (value, points) in cases {
            let mut inputs = healthy(age);
            set(&mut inputs, *value);
            assert_eq!(pews(age, &inputs).score, Some(*points), "{age:?} {value}");
        }
    }

    #[test]
    fn a_healthy_child_has_no_points() {
        for age in BANDS {
            assert_eq!(pews(age, &healthy(age)).score, Some(0), "{age:?}");
        }
    }

    /// The heart-rate rows of table 1, written out as values on either side of every edge.
    #[test]
    fn heart_rate_at_every_edge() {
        let set = |inputs: &mut PewsInputs, value| inputs.heart_rate = Some(value);
        let edges: [(AgeBand, [(f64, u8); 12]); 5] = [
            (
                BANDS[0],
                [
                    (80., 4),
                    (81., 2),
                    (90., 2),
                    (91., 1),
                    (110., 1),
                    (111., 0),
                    (149., 0),
                    (150., 1),
                    (179., 1),
                    (180., 2),
                    (189., 2),
                    (190., 4),
                ],
            ),
            (
                BANDS[1],
                [
                    (70., 4),
                    (71., 2),
                    (80., 2),
                    (81., 1),
                    (100., 1),
                    (101., 0),
                    (149., 0),
                    (150., 1),
                    (169., 1),
                    (170., 2),
                    (179., 2),
                    (180., 4),
                ],
            ),
            (
                BANDS[2],
                [
                    (60., 4),
                    (61., 2),
                    (70., 2),
                    (71., 1),
                    (90., 1),
                    (91., 0),
                    (119., 0),
                    (120., 1),
                    (149., 1),
                    (150., 2),
                    (169., 2),
                    (170., 4),
                ],
            ),
            (
                BANDS[3],
                [
                    (50., 4),
                    (51., 2),
                    (60., 2),
                    (61., 1),
                    (70., 1),
                    (71., 0),
                    (109., 0),
                    (110., 1),
                    (129., 1),
                    (130., 2),
                    (150., 2),
                    (151., 4),
                ],
            ),
            (
                BANDS[4],
                [
                    (40., 4),
                    (41., 2),
                    (49., 2),
                    (50., 1),
                    (60., 1),
                    (61., 0),
                    (99., 0),
                    (100., 1),
                    (119., 1),
                    (120., 2),
                    (139., 2),
                    (140., 4),
                ],
            ),
        ];
        for (age, cases) in edges {
            check(age, &cases, set);
        }
    }

    #[test]
    fn pressure_and_breathing_at_every_edge() {
        let systolic: [[f64; 6]; 5] = [
            [45., 50., 60., 80., 100., 130.],
            [60., 70., 80., 100., 120., 150.],
            [65., 75., 90., 110., 125., 160.],
            [70., 80., 90., 120., 140., 170.],
            [75., 85., 100., 130., 150., 190.],
        ];
        let breathing: [[f64; 6]; 5] = [
            [15., 19., 29., 61., 81., 91.],
            [15., 19., 24., 51., 71., 81.],
            [12., 15., 19., 41., 61., 71.],
            [10., 14., 19., 31., 41., 51.],
            [9., 10., 11., 17., 23., 30.],
        ];
        let around = |edges: [f64; 6]| -> Vec<(f64, u8)> {
            let [low4, low2, low1, high1, high2, high4] = edges;
            vec![
                (low4, 4),
                (low4 + 1.0, 2),
                (low2, 2),
                (low2 + 1.0, 1),
                (low1, 1),
                (low1 + 1.0, 0),
                (high1 - 1.0, 0),
                (high1, 1),
                (high2 - 1.0, 1),
                (high2, 2),
                (high4 - 1.0, 2),
                (high4, 4),
            ]
        };
        for (k, age) in BANDS.into_iter().enumerate() {
            check(age, &around(systolic[k]), |inputs, value| inputs.systolic_mmhg = Some(value));
            check(age, &around(breathing[k]), |inputs, value| {
                inputs.respiration_rate = Some(value)
            });
        }
    }

    #[test]
    fn the_items_that_do_not_depend_on_age() {
        let age = AgeBand::UnderFourYears;
        check(age, &[(2.9, 0), (3.0, 4)], |inputs, value| inputs.capillary_refill_s = Some(value));
        check(age, &[(90.0, 2), (91.0, 1), (94.0, 1), (95.0, 0)], |inputs, value| {
            inputs.spo2 = Some(value)
        });
        use RespiratoryEffort::*;
        for (effort, points) in [(Normal, 0), (Mild, 1), (Moderate, 2), (Severe, 4)] {
            let inputs = PewsInputs { effort: Some(effort), ..healthy(age) };
            assert_eq!(pews(age, &inputs).score, Some(points));
        }
        for (oxygen, points) in
            [(OxygenTherapy::None, 0), (OxygenTherapy::Low, 2), (OxygenTherapy::High, 4)]
        {
            let inputs = PewsInputs { oxygen: Some(oxygen), ..healthy(age) };
            assert_eq!(pews(age, &inputs).score, Some(points));
        }
    }

    #[test]
    fn missing_is_not_zero_and_ages_have_bands() {
        let nothing = pews(AgeBand::UnderOneYear, &PewsInputs::default());
        assert_eq!((nothing.lower, nothing.upper, nothing.missing.len()), (0, 26, 7));
        let inputs = PewsInputs { spo2: Some(130.0), ..healthy(AgeBand::UnderOneYear) };
        let found = pews(AgeBand::UnderOneYear, &inputs);
        assert_eq!((found.lower, found.upper, found.score), (0, 2, None));
        let bands: Vec<Option<AgeBand>> =
            [2, 3, 12, 48, 144].map(AgeBand::of_months).into_iter().collect();
        assert_eq!(bands, BANDS.map(Some));
        assert_eq!(AgeBand::of_months(216), None);
    }
}
