//! Bedside scores of deterioration besides [`crate::news2`].
//!
//! - [`qsofa()`]: quick SOFA, adults with suspected infection.
//! - [`mews()`]: the Modified Early Warning Score, adults.
//! - [`shock_index()`]: heart rate over pressure, plain, modified and by age.
//! - [`pews()`]: the Bedside Paediatric Early Warning System score, by age band.
//!
//! As in NEWS2 a parameter that was not measured, NaN, and a value that no patient has are *missing*, never zero: a
//! score is then known only to lie within bounds ([`PartialScore`]). None of these scores decides anything by itself.

mod mews;
mod pews;
mod qsofa;
mod shock;

pub use mews::{MEWS_CRITICAL, Mews, MewsInputs, MewsParameter, mews};
pub use pews::{
    AgeBand, OxygenTherapy, PEWS_CRITICAL, Pews, PewsInputs, PewsParameter, RespiratoryEffort, pews,
};
pub use qsofa::{QSOFA_POSITIVE, Qsofa, QsofaCriterion, QsofaInputs, qsofa};
pub use shock::{Range, ShockIndex, ShockInputs, paediatric_shock_limit, shock_index};

/// A sum of points over parameters, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialScore<P> {
    /// The sum if everything missing turned out normal.
    pub lower: u8,
    /// The sum if everything missing turned out worst.
    pub upper: u8,
    /// The sum, when nothing is missing.
    pub score: Option<u8>,
    /// Points by parameter, in the order of the table; `None` where they are not known.
    pub points: Vec<(P, Option<u8>)>,
    /// What is missing, in the order of the table.
    pub missing: Vec<P>,
}

impl<P: Copy> PartialScore<P> {
    /// Adds up rows of a parameter, its points if known, and the most that it can have.
    pub(crate) fn of(rows: impl IntoIterator<Item = (P, Option<u8>, u8)>) -> Self {
        let empty = Self { lower: 0, upper: 0, score: None, points: vec![], missing: vec![] };
        let mut sum = rows.into_iter().fold(empty, |mut sum, (parameter, known, most)| {
            sum.lower += known.unwrap_or(0);
            sum.upper += known.unwrap_or(most);
            sum.points.push((parameter, known));
            if known.is_none() {
                sum.missing.push(parameter);
            }
            sum
        });
        sum.score = sum.missing.is_empty().then_some(sum.lower);
        sum
    }

    /// Whether the sum reaches `threshold`; `None` while what is missing could decide it.
    pub fn reaches(&self, threshold: u8) -> Option<bool> {
        match (self.lower >= threshold, self.upper >= threshold) {
            (true, _) => Some(true),
            (_, false) => Some(false),
            _ => None,
        }
    }
}

/// Rounded, halves up; `None` for what is missing, NaN or outside of 0 to `most`.
pub(crate) fn whole(value: Option<f64>, most: f64) -> Option<i32> {
    // A tenth of a degree times ten is not exact: 35.05 °C must not fall to 350 by its last bit.
    value.filter(|value| (0.0..=most).contains(value)).map(|value| (value + 0.5 + 1e-9) as i32)
}

/// Tenths of a degree, rounded; `None` for what is missing, NaN or outside of 10 to 50 °C.
pub(crate) fn tenths(celsius: Option<f64>) -> Option<i32> {
    whole(celsius.filter(|celsius| *celsius >= 10.0).map(|celsius| celsius * 10.0), 500.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_widens_the_bounds() {
        let sum = PartialScore::of([('a', Some(2), 3), ('b', None, 4), ('c', Some(0), 2)]);
        assert_eq!((sum.lower, sum.upper, sum.score), (2, 6, None));
        assert_eq!(sum.missing, ['b']);
        assert_eq!([2, 3, 7].map(|at| sum.reaches(at)), [Some(true), None, Some(false)]);
        let whole = PartialScore::of([('a', Some(2), 3)]);
        assert_eq!(
            (whole.score, whole.reaches(2), whole.reaches(3)),
            (Some(2), Some(true), Some(false))
        );
    }
}
