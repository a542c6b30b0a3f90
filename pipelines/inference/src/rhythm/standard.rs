//! Features brought to one scale.

use super::input::FEATURES;
use super::statistic::{deviation, median, quantile};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// Names of the tensors that hold it.
const CENTRE: &str = "features.centre";
const SCALE: &str = "features.scale";

/// Centre and scale of each feature over the recordings that a member has seen.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Standard {
    centre: Vec<f32>,
    scale: Vec<f32>,
}

impl Standard {
    /// Of rows of features; NaN is left out.
    pub(super) fn of(rows: &[&[f32]]) -> Self {
        let (mut centre, mut scale) = (Vec::new(), Vec::new());
        for feature in 0..FEATURES {
            let values: Vec<f64> = rows
                .iter()
                .map(|row| f64::from(row[feature]))
                .filter(|value| value.is_finite())
                .collect();
            // Nine tenths of a normal distribution lie within 2.56 deviations; a rare feature is zero nearly always.
            let spread = (quantile(&values, 0.9) - quantile(&values, 0.1)) / 2.56;
            let spread = spread.max(0.3 * deviation(&values)) as f32;
            let middle = median(&values) as f32;
            centre.push(if middle.is_finite() { middle } else { 0.0 });
            scale.push(if spread > 1e-6 { spread } else { 1.0 });
        }
        Self { centre, scale }
    }

    /// A row on the common scale: 0 for the usual value and for what is not defined; beyond 1 it grows as a logarithm.
    pub(super) fn apply<'s>(&'s self, row: &'s [f32]) -> impl Iterator<Item = f32> + 's {
        row.iter().zip(self.centre.iter().zip(&self.scale)).map(|(value, (centre, scale))| {
            let away = (value - centre) / scale;
            if away.is_finite() {
                away.signum() * away.abs().min(1.0 + away.abs().max(1.0).ln())
            } else {
                0.0
            }
        })
    }

    pub(super) fn tensors(&self) -> candle_core::Result<[(String, Tensor); 2]> {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu);
        Ok([(CENTRE.into(), tensor(&self.centre)?), (SCALE.into(), tensor(&self.scale)?)])
    }

    /// Takes the standard out of a member's tensors; the name of one that does not fit.
    pub(super) fn take_from(tensors: &mut BTreeMap<String, Tensor>) -> Result<Self, String> {
        let mut take = |name: &str| {
            let values = tensors.remove(name).and_then(|tensor| tensor.to_vec1::<f32>().ok());
            values.filter(|values| values.len() == FEATURES).ok_or_else(|| name.to_owned())
        };
        Ok(Self { centre: take(CENTRE)?, scale: take(SCALE)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_is_zero_and_the_rare_bounded() {
        let rows: Vec<Vec<f32>> = (0..101).map(|i| vec![i as f32; FEATURES]).collect();
        let standard = Standard::of(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let of = |value: f32| standard.apply(&vec![value; FEATURES]).next().unwrap();
        assert_eq!(of(50.0), 0.0);
        assert!((of(50.0 + 80.0 / 2.56) - 1.0).abs() < 1e-5);
        assert!(of(1e9) < 20.0 && of(-1e9) > -20.0);
        assert_eq!(of(f32::NAN), 0.0);
        let mut tensors: BTreeMap<String, Tensor> = standard.tensors().unwrap().into();
        assert_eq!(Standard::take_from(&mut tensors), Ok(standard));
        assert_eq!(Standard::take_from(&mut tensors), Err(CENTRE.to_owned()));
    }
}
