//! The networks: dilated convolutions, and the bidirectional GRU that they are held against.
//!
//! Both give, for each reading of a window, a score for each [`FaultKind`](super::FaultKind), before the softmax.
//!
//! *Dilated convolutions* (Bai, Kolter, Koltun, "An empirical evaluation of generic convolutional and recurrent networks for
//! sequence modeling", 2018; here looking both ways): a linear layer to [`WIDTH`] channels, then for each of [`DILATIONS`] a convolution of 3
//! whose rectified output is added to what it came from, then a linear layer. Each output sees 63 readings to either side.
//!
//! *Bidirectional GRU* (Cho et al., EMNLP 2014; Schuster, Paliwal, 1997) as the literature on sensor faults uses it: [`WIDTH`] units each way
//! over level, difference, gap and missing flag, then a linear layer.
//!
//! candle's own `conv1d` has wrong gradients on the CPU (see the crate's beat network), so a convolution is three shifted
//! copies side by side and one product, for training and use alike.

use super::features::FEATURES;
use super::{FaultKind, WINDOW};
use candle_core::{D, Device, Tensor};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Channels, or units each way.
const WIDTH: usize = 32;
/// How far apart the three readings of each convolution are.
const DILATIONS: [usize; 6] = [1, 2, 4, 8, 16, 32];
const CLASSES: usize = FaultKind::ALL.len();
/// The features that the GRU of the literature is given: level, difference, gap, missing.
const PLAIN: [u32; 4] = [0, 1, 4, 8];

/// Which network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// Dilated convolutions over all features.
    Convolutions,
    /// Bidirectional GRU over level, difference, gap and missing flag.
    Gru,
    /// Bidirectional GRU over all features.
    GruAllFeatures,
}

impl Architecture {
    /// As settings and reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Convolutions => "convolutions",
            Self::Gru => "gru",
            Self::GruAllFeatures => "gru-all-features",
        }
    }

    /// Name and shape of each parameter; weights are input × output.
    fn shapes(self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Vec::new();
        let mut layer = |name: &str, inputs: usize, outputs: usize| {
            shapes.push((format!("{name}.weight"), vec![inputs, outputs]));
            shapes.push((format!("{name}.bias"), vec![outputs]));
        };
        match self {
            Self::Convolutions => {
                layer("input", FEATURES, WIDTH);
                for dilation in DILATIONS {
                    layer(&format!("conv{dilation}"), 3 * WIDTH, WIDTH);
                }
                layer("output", WIDTH, CLASSES);
            }
            Self::Gru | Self::GruAllFeatures => {
                let inputs = if self == Self::Gru { PLAIN.len() } else { FEATURES };
                for way in ["forward", "backward"] {
                    layer(&format!("{way}.input"), inputs, 3 * WIDTH);
                    layer(&format!("{way}.state"), WIDTH, 3 * WIDTH);
                }
                layer("output", 2 * WIDTH, CLASSES);
            }
        }
        shapes
    }

    /// Random weights (uniform; He et al. for the convolutions, Glorot and Bengio for the GRU); no bias.
    pub(crate) fn initial(
        self,
        random: &mut ChaCha8Rng,
    ) -> candle_core::Result<BTreeMap<String, Tensor>> {
        self.shapes()
            .into_iter()
            .map(|(name, shape)| {
                let limit = match (self, shape.as_slice()) {
                    (_, [_]) => 0.0,
                    (Self::Convolutions, _) => (6.0 / shape[0] as f32).sqrt() * 0.7,
                    _ => (6.0 / (shape[0] + shape[1]) as f32).sqrt(),
                };
                let values: Vec<f32> = (0..shape.iter().product())
                    .map(|_| limit * random.random_range(-1.0..1.0_f32))
                    .collect();
                Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?))
            })
            .collect()
    }
}

/// The parameters by name. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    architecture: Architecture,
    parameters: BTreeMap<String, Tensor>,
}

impl Network {
    /// From tensors by name; which network it is follows from them.
    ///
    /// # Errors
    /// The name of a tensor that is missing, too many, or not f32 of its shape.
    pub(crate) fn new(parameters: BTreeMap<String, Tensor>) -> Result<Self, String> {
        let architecture = match parameters.get("forward.input.weight").map(Tensor::dims) {
            None => Architecture::Convolutions,
            Some([inputs, _]) if *inputs == PLAIN.len() => Architecture::Gru,
            Some(_) => Architecture::GruAllFeatures,
        };
        let shapes = architecture.shapes();
        for (name, shape) in &shapes {
            match parameters.get(name) {
                Some(tensor)
                    if tensor.dims() == shape && tensor.dtype() == candle_core::DType::F32 => {}
                _ => return Err(name.clone()),
            }
        }
        match parameters.keys().find(|name| shapes.iter().all(|(own, _)| own != *name)) {
            Some(name) => Err(name.clone()),
            None => Ok(Self { architecture, parameters }),
        }
    }

    /// Scores (batch × [`WINDOW`] × classes) of features (batch × [`WINDOW`] × [`FEATURES`]).
    pub(crate) fn forward(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        let batch = features.dim(0)?;
        let hidden = match self.architecture {
            Architecture::Convolutions => self.convolutions(features)?,
            Architecture::Gru => {
                let plain = Tensor::new(PLAIN.as_slice(), &Device::Cpu)?;
                self.gru(&features.index_select(&plain, 2)?)?
            }
            Architecture::GruAllFeatures => self.gru(features)?,
        };
        self.linear("output", &hidden.reshape((batch * WINDOW, ()))?)?
            .reshape((batch, WINDOW, CLASSES))
    }

    fn convolutions(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        let batch = features.dim(0)?;
        let rows = batch * WINDOW;
        let mut x = self.linear("input", &features.reshape((rows, FEATURES))?)?.relu()?;
        for dilation in DILATIONS {
            let padded =
                x.reshape((batch, WINDOW, WIDTH))?.pad_with_zeros(1, dilation, dilation)?;
            let shifted = [0, dilation, 2 * dilation]
                .map(|from| padded.narrow(1, from, WINDOW))
                .into_iter()
                .collect::<candle_core::Result<Vec<_>>>()?;
            let columns = Tensor::cat(&shifted, 2)?.reshape((rows, 3 * WIDTH))?;
            x = (&x + self.linear(&format!("conv{dilation}"), &columns)?.relu()?)?;
        }
        Ok(x)
    }

    fn gru(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        let forward = self.one_way("forward", features, (0..WINDOW).collect())?;
        let mut backward = self.one_way("backward", features, (0..WINDOW).rev().collect())?;
        backward.reverse();
        Tensor::cat(&[Tensor::stack(&forward, 1)?, Tensor::stack(&backward, 1)?], 2)
    }

    fn one_way(
        &self,
        way: &str,
        features: &Tensor,
        order: Vec<usize>,
    ) -> candle_core::Result<Vec<Tensor>> {
        let (input, state) = (format!("{way}.input"), format!("{way}.state"));
        let mut hidden =
            Tensor::zeros((features.dim(0)?, WIDTH), candle_core::DType::F32, &Device::Cpu)?;
        let mut all = Vec::with_capacity(WINDOW);
        for at in order {
            let from_input = self.linear(&input, &features.narrow(1, at, 1)?.squeeze(1)?)?;
            let from_state = self.linear(&state, &hidden)?;
            let gates =
                (from_input.narrow(1, 0, 2 * WIDTH)? + from_state.narrow(1, 0, 2 * WIDTH)?)?;
            let gates = sigmoid(&gates)?;
            let (reset, keep) = (gates.narrow(1, 0, WIDTH)?, gates.narrow(1, WIDTH, WIDTH)?);
            let new = (from_input.narrow(1, 2 * WIDTH, WIDTH)?
                + (reset * from_state.narrow(1, 2 * WIDTH, WIDTH)?)?)?
            .tanh()?;
            hidden = (&new + (keep * (hidden - &new)?)?)?;
            all.push(hidden.clone());
        }
        Ok(all)
    }

    fn linear(&self, name: &str, x: &Tensor) -> candle_core::Result<Tensor> {
        let weight = &self.parameters[&format!("{name}.weight")];
        x.contiguous()?.matmul(weight)?.broadcast_add(&self.parameters[&format!("{name}.bias")])
    }
}

fn sigmoid(x: &Tensor) -> candle_core::Result<Tensor> {
    (((x * 0.5)?.tanh()? + 1.0)? * 0.5)?.contiguous()
}

/// Logarithms of the classes' probabilities, over the last extent.
pub(crate) fn log_softmax(scores: &Tensor) -> candle_core::Result<Tensor> {
    let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    const ALL: [Architecture; 3] =
        [Architecture::Convolutions, Architecture::Gru, Architecture::GruAllFeatures];

    fn network(architecture: Architecture) -> Network {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        Network::new(architecture.initial(&mut random).unwrap()).unwrap()
    }

    /// Windows of numbers that are random and always the same.
    fn windows(count: usize) -> Tensor {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let values: Vec<f32> =
            (0..count * WINDOW * FEATURES).map(|_| random.random_range(-1.7_f32..1.7)).collect();
        Tensor::from_vec(values, (count, WINDOW, FEATURES), &Device::Cpu).unwrap()
    }

    #[test]
    fn shapes_decide_which_network_it_is() {
        for architecture in ALL {
            let network = network(architecture);
            assert_eq!(network.architecture, architecture);
            let scores = network.forward(&windows(2));
            assert_eq!(scores.unwrap().dims(), [2, WINDOW, CLASSES]);
            let mut missing = network.parameters.clone();
            missing.remove("output.bias");
            assert_eq!(Network::new(missing).unwrap_err(), "output.bias");
            let mut more = network.parameters;
            more.insert("surprise".into(), Tensor::new(1.0_f32, &Device::Cpu).unwrap());
            assert_eq!(Network::new(more).unwrap_err(), "surprise");
        }
    }

    /// The gradient by one input, against a difference.
    #[test]
    fn gradients_are_right() {
        for architecture in ALL {
            let network = network(architecture);
            let x = windows(3);
            let scores = |x: &Tensor| network.forward(x).unwrap().narrow(2, 3, 1).unwrap();
            let var = candle_core::Var::from_tensor(&x).unwrap();
            let sum = scores(var.as_tensor()).sqr().unwrap().sum_all().unwrap();
            let gradient = sum.backward().unwrap();
            let gradient =
                gradient.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let at = WINDOW * FEATURES + 60 * FEATURES;
            let mut values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut moved = |by: f32| {
                values[at] += by;
                let x =
                    Tensor::from_vec(values.clone(), (3, WINDOW, FEATURES), &Device::Cpu).unwrap();
                // Summed in f64: the difference is a small part of the sum.
                let scores = scores(&x).flatten_all().unwrap().to_vec1::<f32>().unwrap();
                scores.into_iter().map(|score| f64::from(score).powi(2)).sum::<f64>()
            };
            let difference = (moved(0.02) - moved(-0.04)) / 0.04;
            let found = f64::from(gradient[at]);
            assert!(
                (found - difference).abs() < 0.1 * difference.abs().max(0.1),
                "{architecture:?}: {found} {difference}"
            );
        }
    }
}
