//! `haar bench inference`: a small convolutional network.

use crate::failure::Failure;
use candle_core::{Device, Tensor};
use haar_inference::{Convolution, Stride, mean_over_length};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The batches that are measured.
const BATCHES: [usize; 3] = [1, 32, 256];
/// Inputs that go through the layers together.
const PIECE: usize = 16;
/// Samples of one input.
const SAMPLES: usize = 200;
/// Convolutions of 7 at stride 2, then dense layers: outputs and inputs.
const CONVOLUTIONS: [(usize, usize); 3] = [(16, 1), (32, 16), (48, 32)];
const DENSE: [(usize, usize); 2] = [(64, 48), (5, 64)];
const TAPS: usize = 7;
/// The best of so many rounds counts: other programs on the machine only ever make a round slower.
const ROUNDS: u32 = 5;
/// How far the peer's outputs may be off.
const DIFFERENCE_MAX: f64 = 1e-4;

/// Three convolutions of 7 at stride 2 over 200 samples (16, 32, 48 channels), their mean over time, dense layers of 64
/// and 5: 18,005 parameters, random but always the same. On one thread, through the code of the shipped models.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Seconds for each batch size.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Run ONNX Runtime on the same weights and inputs too, one thread, and compare the outputs; needs Python with
    /// numpy, onnx and onnxruntime.
    #[arg(long)]
    peer: bool,
    /// The Python to start.
    #[arg(long, default_value = "python3", env = "PYTHON")]
    python: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the job.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if !(0.01..=600.0).contains(&args.seconds) {
        return Err(Failure::usage("--seconds must be 0.01 to 600"));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut tensors = weights(&mut rng)?;
    let network = Network::new(&tensors)?;
    let mut rates = BTreeMap::new();
    for batch in BATCHES {
        let x = random(&mut rng, &[batch, 1, SAMPLES], 1.0)?;
        rates.insert(batch.to_string(), network.rate(&x, args.seconds)?);
        tensors.insert(format!("y{batch}"), network.forward(&x)?);
        tensors.insert(format!("x{batch}"), x);
    }
    let peer = if args.peer { Some(peer(args, &tensors)?) } else { None };
    if args.json {
        println!("{}", report(&rates, peer.as_ref()));
    } else {
        print_table(&rates, peer.as_ref());
    }
    match peer.and_then(|peer| peer["largest_difference"].as_f64()) {
        Some(off) if off.is_nan() || off > DIFFERENCE_MAX => Err(Failure::new(format!(
            "the peer's outputs differ by {off}, more than {DIFFERENCE_MAX}: one of both computes wrongly"
        ))),
        _ => Ok(()),
    }
}

struct Network {
    convolutions: Vec<Convolution>,
    dense: Vec<Convolution>,
}

impl Network {
    fn new(tensors: &BTreeMap<String, Tensor>) -> candle_core::Result<Self> {
        let layer = |at: usize| (&tensors[&format!("w{at}")], &tensors[&format!("b{at}")]);
        let how = Stride { stride: 2, padding: TAPS / 2, relu: true };
        let convolutions = (1..=3)
            .map(&layer)
            .map(|(kernel, bias)| Convolution::new(kernel, bias, how))
            .collect::<candle_core::Result<_>>()?;
        let dense = (4..=5)
            .map(|at| Convolution::dense(layer(at).0, layer(at).1, at == 4))
            .collect::<candle_core::Result<_>>()?;
        Ok(Self { convolutions, dense })
    }

    /// In pieces of [`PIECE`] inputs, as the models are asked: what is between two layers stays in the cache then.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let batch = x.dim(0)?;
        let pieces = (0..batch)
            .step_by(PIECE)
            .map(|first| self.forward_piece(&x.narrow(0, first, PIECE.min(batch - first))?));
        Tensor::cat(&pieces.collect::<candle_core::Result<Vec<_>>>()?, 0)
    }

    fn forward_piece(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = x.reshape((x.dim(0)?, SAMPLES, 1))?;
        for layer in &self.convolutions {
            x = layer.apply(&x)?;
        }
        x = mean_over_length(&x)?;
        for layer in &self.dense {
            x = layer.apply_dense(&x)?;
        }
        Ok(x)
    }

    /// Inferences per second.
    fn rate(&self, x: &Tensor, seconds: f64) -> candle_core::Result<f64> {
        let round = Duration::from_secs_f64(seconds / f64::from(ROUNDS));
        let mut best = 0.0_f64;
        for _ in 0..ROUNDS {
            let (begin, mut done) = (Instant::now(), 0);
            while begin.elapsed() < round {
                std::hint::black_box(self.forward(std::hint::black_box(x))?);
                done += x.dim(0)?;
            }
            best = best.max(done as f64 / begin.elapsed().as_secs_f64());
        }
        Ok(best)
    }
}

/// As `w1`, `b1` to `w5`, `b5`.
fn weights(rng: &mut ChaCha8Rng) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let convolutions = CONVOLUTIONS.map(|(out, inputs)| vec![out, inputs, TAPS]);
    let dense = DENSE.map(|(out, inputs)| vec![out, inputs]);
    let mut tensors = BTreeMap::new();
    for (at, shape) in convolutions.into_iter().chain(dense).enumerate() {
        tensors.insert(format!("w{}", at + 1), random(rng, &shape, 0.2)?);
        tensors.insert(format!("b{}", at + 1), random(rng, &shape[..1], 0.2)?);
    }
    Ok(tensors)
}

fn random(rng: &mut ChaCha8Rng, shape: &[usize], limit: f32) -> candle_core::Result<Tensor> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-limit..limit)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// What the peer's program prints.
fn peer(args: &Args, tensors: &BTreeMap<String, Tensor>) -> Result<Value, Failure> {
    let folder = tempfile::tempdir()?;
    let (program, file) = (folder.path().join("inference.py"), folder.path().join("network"));
    std::fs::write(&program, include_str!("../../../../benches/peers/inference.py"))?;
    std::fs::write(&file, safetensors::serialize(tensors, None)?)?;
    start(&args.python, &program, &file, args.seconds)
}

fn start(python: &Path, program: &Path, file: &Path, seconds: f64) -> Result<Value, Failure> {
    let output = Command::new(python)
        .arg(program)
        .arg(file)
        .arg(seconds.to_string())
        .env("OMP_NUM_THREADS", "1")
        .output()
        .map_err(|error| Failure::new(format!("cannot start {}: {error}", python.display())))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().last().unwrap_or("no message");
        return Err(Failure::new(format!(
            "the peer failed ({last}); `{} -m pip install numpy onnx onnxruntime` gives what it needs",
            python.display()
        )));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn parameters() -> usize {
    let convolutions = CONVOLUTIONS.iter().map(|(out, inputs)| out * (inputs * TAPS + 1));
    convolutions.chain(DENSE.iter().map(|(out, inputs)| out * (inputs + 1))).sum()
}

/// Ours by theirs, by batch.
fn ratio(rates: &BTreeMap<String, f64>, peer: &Value) -> BTreeMap<String, Option<f64>> {
    let theirs = &peer["inferences_per_s"];
    rates
        .iter()
        .map(|(batch, rate)| (batch.clone(), theirs[batch].as_f64().map(|theirs| rate / theirs)))
        .collect()
}

fn report(rates: &BTreeMap<String, f64>, peer: Option<&Value>) -> Value {
    let mut object = json!({
        "job": "inference", "threads": 1, "parameters": parameters(), "inferences_per_s": rates,
    });
    if let Some(peer) = peer {
        object["peer"] = peer.clone();
        object["ratio"] = json!(ratio(rates, peer));
    }
    object
}

fn print_table(rates: &BTreeMap<String, f64>, peer: Option<&Value>) {
    println!("{} parameters, one thread, inferences/s", parameters());
    println!("batch {:>12} {:>12} {:>6}", "haar", "peer", "ratio");
    let ratios = peer.map(|peer| ratio(rates, peer)).unwrap_or_default();
    for batch in BATCHES.map(|batch| batch.to_string()) {
        let theirs = peer.and_then(|peer| peer["inferences_per_s"][&batch].as_f64());
        let theirs = theirs.map_or_else(|| "–".into(), |rate| format!("{rate:.0}"));
        let ratio = ratios.get(&batch).copied().flatten();
        let ratio = ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}"));
        println!("{batch:>5} {:>12.0} {theirs:>12} {ratio:>6}", rates[&batch]);
    }
    if let Some(peer) = peer {
        let name = peer["peer"].as_str().unwrap_or("peer");
        println!("peer: {name}, largest difference of outputs {}", peer["largest_difference"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_candles() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let tensors = weights(&mut rng).unwrap();
        let x = random(&mut rng, &[3, 1, SAMPLES], 1.0).unwrap();
        let mut theirs = x.clone();
        for at in 1..=3 {
            let bias = tensors[&format!("b{at}")].reshape((1, (), 1)).unwrap();
            theirs = theirs.conv1d(&tensors[&format!("w{at}")], 3, 2, 1, 1).unwrap();
            theirs = theirs.broadcast_add(&bias).unwrap().relu().unwrap();
        }
        theirs = theirs.mean(2).unwrap();
        for at in 4..=5 {
            theirs = theirs.matmul(&tensors[&format!("w{at}")].t().unwrap()).unwrap();
            theirs = theirs.broadcast_add(&tensors[&format!("b{at}")]).unwrap();
            theirs = if at == 4 { theirs.relu().unwrap() } else { theirs };
        }
        let ours = Network::new(&tensors).unwrap().forward(&x).unwrap();
        let off = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-5);
        let count: usize = tensors.values().map(Tensor::elem_count).sum();
        assert_eq!((parameters(), count), (18_005, 18_005));
    }

    #[test]
    fn a_peer_that_is_not_there_is_said() {
        let nowhere = Path::new("/nowhere/python");
        let error = start(nowhere, nowhere, nowhere, 1.0).unwrap_err();
        assert!(error.to_string().starts_with("cannot start /nowhere/python"), "{error}");
    }
}
