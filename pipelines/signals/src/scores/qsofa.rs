//! Quick SOFA.
//!
//! Singer et al., *The Third International Consensus Definitions for Sepsis and Septic Shock (Sepsis-3)*, JAMA
//! 315(8):801, 2016, box 4: one point each for a respiration rate of 22 or more, altered mentation (Glasgow Coma Scale under 15) and
//! a systolic pressure of 100 mmHg or less. For adults with suspected infection; it says who needs a closer look, not
//! who has sepsis.

use super::{PartialScore, whole};
use crate::news2::Consciousness;

/// From this score on a poor outcome is likelier (Singer 2016).
pub const QSOFA_POSITIVE: u8 = 2;

/// What it is computed from. Everything may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QsofaInputs {
    /// Breaths per minute; 0–150, anything else counts as missing.
    pub respiration_rate: Option<f64>,
    /// Systolic blood pressure in mmHg; 0–400.
    pub systolic_mmhg: Option<f64>,
    /// Level of consciousness; anything but alert is altered mentation.
    pub consciousness: Option<Consciousness>,
}

/// A criterion, in the order of the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QsofaCriterion {
    /// 22 breaths per minute or more.
    RespirationRate,
    /// Not alert.
    AlteredMentation,
    /// 100 mmHg or less.
    SystolicPressure,
}

/// The score, 0 to 3, as far as it is known.
pub type Qsofa = PartialScore<QsofaCriterion>;

/// Computes the score. Readings round to whole numbers, halves up.
pub fn qsofa(inputs: &QsofaInputs) -> Qsofa {
    let rate = whole(inputs.respiration_rate, 150.0).map(|rate| u8::from(rate >= 22));
    let mentation = inputs.consciousness.map(|level| u8::from(level != Consciousness::Alert));
    let systolic = whole(inputs.systolic_mmhg, 400.0).map(|pressure| u8::from(pressure <= 100));
    PartialScore::of([
        (QsofaCriterion::RespirationRate, rate, 1),
        (QsofaCriterion::AlteredMentation, mentation, 1),
        (QsofaCriterion::SystolicPressure, systolic, 1),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(rate: f64, systolic: f64, level: Consciousness) -> Option<u8> {
        let inputs = QsofaInputs {
            respiration_rate: Some(rate),
            systolic_mmhg: Some(systolic),
            consciousness: Some(level),
        };
        qsofa(&inputs).score
    }

    #[test]
    fn each_criterion_at_its_edge() {
        use Consciousness::{Alert, Confusion};
        assert_eq!(score(21.0, 101.0, Alert), Some(0));
        assert_eq!(score(22.0, 101.0, Alert), Some(1));
        assert_eq!(score(21.0, 100.0, Alert), Some(1));
        assert_eq!(score(21.0, 101.0, Confusion), Some(1));
        assert_eq!(score(22.0, 100.0, Confusion), Some(3));
    }

    #[test]
    fn missing_is_not_zero() {
        let inputs = QsofaInputs { respiration_rate: Some(30.0), ..QsofaInputs::default() };
        let found = qsofa(&inputs);
        assert_eq!((found.lower, found.upper, found.score), (1, 3, None));
        assert_eq!(
            found.missing,
            [QsofaCriterion::AlteredMentation, QsofaCriterion::SystolicPressure]
        );
        assert_eq!(found.reaches(QSOFA_POSITIVE), None);
        let impossible = QsofaInputs { systolic_mmhg: Some(f64::NAN), ..inputs };
        assert_eq!(qsofa(&impossible), found);
    }
}
