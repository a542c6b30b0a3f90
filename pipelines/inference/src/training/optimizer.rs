//! AdamW (Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2) whose
//! state can be kept: candle's own keeps its moments to itself, so a training could not go on
//! exactly where it was broken off.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use std::collections::BTreeMap;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Parameters in training, with their moments.
#[derive(Debug)]
pub(crate) struct AdamW {
    slots: BTreeMap<String, Slot>,
    steps: u32,
    weight_decay: f64,
}

#[derive(Debug)]
struct Slot {
    parameter: Var,
    first: Tensor,
    second: Tensor,
}

impl AdamW {
    /// At the start, with zero moments.
    pub(crate) fn new(
        parameters: BTreeMap<String, Tensor>,
        weight_decay: f64,
    ) -> candle_core::Result<Self> {
        let slots = parameters
            .into_iter()
            .map(|(name, tensor)| {
                let zeros = tensor.zeros_like()?;
                let parameter = Var::from_tensor(&tensor)?;
                Ok((name, Slot { parameter, first: zeros.clone(), second: zeros }))
            })
            .collect::<candle_core::Result<_>>()?;
        Ok(Self { slots, steps: 0, weight_decay })
    }

    /// The parameters as they are, tracked for gradients.
    pub(crate) fn tracked(&self) -> BTreeMap<String, Tensor> {
        let tensor = |slot: &Slot| slot.parameter.as_tensor().clone();
        self.slots.iter().map(|(name, slot)| (name.clone(), tensor(slot))).collect()
    }

    /// The parameters as they are now, apart from what becomes of them.
    pub(crate) fn parameters(&self) -> candle_core::Result<BTreeMap<String, Tensor>> {
        self.slots
            .iter()
            .map(|(name, slot)| Ok((name.clone(), slot.parameter.as_tensor().copy()?.detach())))
            .collect()
    }

    /// One step down the gradient.
    pub(crate) fn step(&mut self, gradients: &GradStore, rate: f64) -> candle_core::Result<()> {
        self.step_scaled(gradients, rate, 1.0)
    }

    fn step_scaled(
        &mut self,
        gradients: &GradStore,
        rate: f64,
        scale: f64,
    ) -> candle_core::Result<()> {
        self.steps += 1;
        let steps = f64::from(self.steps);
        let (unbias_1, unbias_2) = (1.0 - BETA_1.powf(steps), 1.0 - BETA_2.powf(steps));
        for slot in self.slots.values_mut() {
            let Some(gradient) = gradients.get(&slot.parameter) else { continue };
            // candle leaves a parameter's gradient joined to the whole graph; kept in the moments, it would keep
            // every step's graph in memory.
            let gradient = (gradient.detach() * scale)?;
            slot.first = ((&slot.first * BETA_1)? + (&gradient * (1.0 - BETA_1))?)?;
            slot.second = ((&slot.second * BETA_2)? + (gradient.sqr()? * (1.0 - BETA_2))?)?;
            let deviation = ((&slot.second / unbias_2)?.sqrt()? + EPSILON)?;
            let change = ((&slot.first / unbias_1)? / deviation)?;
            let kept = (slot.parameter.as_tensor() * (1.0 - rate * self.weight_decay))?;
            slot.parameter.set(&(kept - (change * rate)?)?)?;
        }
        Ok(())
    }

    /// As [`Self::step`], with the whole gradient shortened to `norm_max` where it is longer (Pascanu, Mikolov,
    /// Bengio, "On the difficulty of training recurrent neural networks", ICML 2013).
    pub(crate) fn step_clipped(
        &mut self,
        gradients: &GradStore,
        rate: f64,
        norm_max: f64,
    ) -> candle_core::Result<()> {
        let mut squares = 0.0;
        for slot in self.slots.values() {
            if let Some(gradient) = gradients.get(&slot.parameter) {
                squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
            }
        }
        let scale = (norm_max / squares.sqrt().max(1e-12)).min(1.0);
        self.step_scaled(gradients, rate, scale)
    }

    /// Everything that is needed to go on: parameters, moments and the number of steps.
    pub(crate) fn state(&self) -> (BTreeMap<String, Tensor>, u32) {
        let mut tensors = BTreeMap::new();
        for (name, slot) in &self.slots {
            tensors.insert(format!("parameter.{name}"), slot.parameter.as_tensor().clone());
            tensors.insert(format!("first.{name}"), slot.first.clone());
            tensors.insert(format!("second.{name}"), slot.second.clone());
        }
        (tensors, self.steps)
    }

    /// Goes back to such a state; `Ok(false)` if a tensor is missing or of another shape.
    pub(crate) fn restore(
        &mut self,
        state: &BTreeMap<String, Tensor>,
        steps: u32,
    ) -> candle_core::Result<bool> {
        for (name, slot) in &mut self.slots {
            let part = |part: &str| {
                let tensor = state.get(&format!("{part}.{name}"))?;
                (tensor.dims() == slot.parameter.dims()).then(|| tensor.clone())
            };
            let (Some(parameter), Some(first), Some(second)) =
                (part("parameter"), part("first"), part("second"))
            else {
                return Ok(false);
            };
            slot.parameter.set(&parameter)?;
            (slot.first, slot.second) = (first, second);
        }
        self.steps = steps;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn it_walks_downhill_and_resumes_exactly() {
        let start = || {
            let tensor = Tensor::new(&[3.0_f32, -2.0], &Device::Cpu).unwrap();
            AdamW::new([("x".to_string(), tensor)].into(), 0.0).unwrap()
        };
        let step = |optimizer: &mut AdamW| {
            let loss = optimizer.tracked()["x"].sqr().unwrap().sum_all().unwrap();
            optimizer.step(&loss.backward().unwrap(), 0.1).unwrap();
        };
        let values =
            |optimizer: &AdamW| optimizer.parameters().unwrap()["x"].to_vec1::<f32>().unwrap();
        let mut whole = start();
        let mut broken = start();
        for _ in 0..10 {
            step(&mut whole);
            step(&mut broken);
        }
        let (state, steps) = broken.state();
        let mut resumed = start();
        assert!(resumed.restore(&state, steps).unwrap());
        for _ in 0..100 {
            step(&mut whole);
            step(&mut resumed);
        }
        assert_eq!(values(&whole), values(&resumed));
        assert!(values(&whole).iter().all(|x| x.abs() < 0.05), "{:?}", values(&whole));
        assert!(!start().restore(&BTreeMap::new(), 0).unwrap());
    }
}
