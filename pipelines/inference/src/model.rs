//! Loading a model and asking it.

use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError};
use crate::network::{Network, log_softmax};
use crate::{BeatClass, BeatInput, CHANNELS, RR_FEATURES, SEGMENT_SAMPLES};
use candle_core::{Device, Tensor};
use haar_schema::ModelRef;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Beats in one call of the network; fewer are padded with zeros. There is one shape only: with
/// other shapes the matrix products choose other kernels, and scores would differ in the last bits
/// with how many beats happen to come together.
pub const BATCH: usize = 32;

/// The largest file of weights.
pub const MAX_WEIGHTS_BYTES: usize = 1024 * 1024;

/// A classifier of heart beats. Cheap to clone: the weights are shared.
#[derive(Clone, Debug)]
pub struct BeatModel {
    manifest: Manifest,
    reference: ModelRef,
    pub(crate) network: Network,
}

/// What the model says of one beat.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BeatScore {
    /// The most probable class.
    pub class: BeatClass,
    /// Probability of each class in the order of [`BeatClass::ALL`]; their sum is 1. They are the
    /// network's, trained with rare classes weighted up, and not calibrated to how common a class is.
    pub probabilities: [f32; 5],
}

/// Why a model is not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than it may be.
    #[error("{path} has more than {limit} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// [`MAX_MANIFEST_BYTES`] or [`MAX_WEIGHTS_BYTES`].
        limit: usize,
    },
    /// The manifest does not fit.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The weights are not those that the manifest speaks of.
    #[error(
        "the weights' SHA-256 is {found}, the manifest says {expected}: they do not belong together, fetch both again"
    )]
    Hash {
        /// What the file has.
        found: String,
        /// What the manifest says.
        expected: String,
    },
    /// The weights are not safetensors.
    #[error("the weights are not readable safetensors: {0}")]
    Weights(#[source] candle_core::Error),
    /// A tensor is missing, left over, or of another shape or type than the network's.
    #[error(
        "the weights' tensor `{0}` does not fit this build's network: train anew with `haar train beats`"
    )]
    Tensor(String),
}

/// Why beats were not classified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifyError {
    /// candle failed.
    #[error("the network could not be computed: {0}")]
    Network(#[from] candle_core::Error),
    /// The weights give no number for this input.
    #[error("the model gave no finite score for beat {0} of the batch: its weights are damaged")]
    NotFinite(usize),
}

impl BeatModel {
    /// The model that is built in.
    ///
    /// # Errors
    /// None that a build which passed its tests can give; the built-in files are checked like any others.
    pub fn builtin() -> Result<Self, LoadError> {
        Self::from_parts(
            include_str!("../models/ecg-beats/manifest.toml"),
            include_bytes!("../models/ecg-beats/weights.safetensors"),
        )
    }

    /// The model in a folder with `manifest.toml` and the weights it names.
    ///
    /// # Errors
    /// If a file is missing or too large, or hash, unit, shape or classes do not fit.
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join("manifest.toml");
        let text = String::from_utf8(read(&path, MAX_MANIFEST_BYTES)?).map_err(|error| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
            LoadError::Read { path, source }
        })?;
        let manifest = Manifest::parse(&text)?;
        let weights = read(&folder.join(&manifest.weights.file), MAX_WEIGHTS_BYTES)?;
        Self::from_parts(&text, &weights)
    }

    /// The model of a manifest's text and its weights.
    ///
    /// # Errors
    /// If hash, unit, shape or classes do not fit.
    pub fn from_parts(manifest: &str, weights: &[u8]) -> Result<Self, LoadError> {
        on_the_calling_thread();
        let text = manifest;
        let manifest = Manifest::parse(text)?;
        let found = hex::encode(Sha256::digest(weights));
        if found != manifest.weights.sha256 {
            return Err(LoadError::Hash { found, expected: manifest.weights.sha256 });
        }
        let tensors = candle_core::safetensors::load_buffer(weights, &Device::Cpu)
            .map_err(LoadError::Weights)?;
        let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
        let network = Network::new(tensors).map_err(LoadError::Tensor)?;
        let reference = manifest.reference(text);
        Ok(Self { manifest, reference, network })
    }

    /// The manifest.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model's name in digests.
    pub const fn reference(&self) -> &ModelRef {
        &self.reference
    }

    /// Scores each beat, in order. Beats of many windows may come in one call: a beat's score
    /// does not depend on the others, not even in its last bit.
    ///
    /// # Errors
    /// If the network cannot be computed or gives no number.
    pub fn classify(&self, inputs: &[BeatInput]) -> Result<Vec<BeatScore>, ClassifyError> {
        let mut scores = Vec::with_capacity(inputs.len());
        for chunk in inputs.chunks(BATCH) {
            let (waveform, rr) = batch(chunk, BATCH)?;
            let probabilities = log_softmax(&self.network.forward(&waveform, &rr, None)?)?
                .exp()?
                .to_vec2::<f32>()?;
            for row in probabilities.into_iter().take(chunk.len()) {
                scores.push(score(&row).ok_or(ClassifyError::NotFinite(scores.len()))?);
            }
        }
        Ok(scores)
    }
}

/// The inputs as tensors, padded with zeros to `rows` beats.
pub(crate) fn batch(inputs: &[BeatInput], rows: usize) -> candle_core::Result<(Tensor, Tensor)> {
    let mut waveform = Vec::with_capacity(rows * CHANNELS * SEGMENT_SAMPLES);
    let mut rr = Vec::with_capacity(rows * RR_FEATURES);
    for input in inputs {
        waveform.extend_from_slice(input.waveform());
        rr.extend_from_slice(input.rr());
    }
    waveform.resize(rows * CHANNELS * SEGMENT_SAMPLES, 0.0);
    rr.resize(rows * RR_FEATURES, 0.0);
    let waveform = Tensor::from_vec(waveform, (rows, CHANNELS, SEGMENT_SAMPLES), &Device::Cpu)?;
    Ok((waveform, Tensor::from_vec(rr, (rows, RR_FEATURES), &Device::Cpu)?))
}

/// Keeps candle's matrix products on the calling thread, in this whole process: see the crate's head.
pub(crate) fn on_the_calling_thread() {
    gemm::set_threading_threshold(usize::MAX);
}

/// The probabilities with the largest one's class, the first of equals; `None` if one is no number.
fn score(row: &[f32]) -> Option<BeatScore> {
    let probabilities: [f32; 5] = row.try_into().ok()?;
    if !probabilities.iter().all(|probability| probability.is_finite()) {
        return None;
    }
    let mut class = BeatClass::N;
    for other in BeatClass::ALL {
        if probabilities[other.index()] > probabilities[class.index()] {
            class = other;
        }
    }
    Some(BeatScore { class, probabilities })
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, LoadError> {
    let error = |source| LoadError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(error)?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() > limit {
        return Err(LoadError::TooLarge { path: path.into(), limit });
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::manifest::tests::manifest;
    use crate::network::PARAMETERS;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Weights that are random but always the same.
    pub(crate) fn weights() -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let tensors: BTreeMap<&str, Tensor> = PARAMETERS
            .into_iter()
            .map(|(name, shape)| {
                let count: usize = shape.iter().product();
                let limit = (4.0 / (count / shape[0]) as f32).sqrt();
                let values: Vec<f32> =
                    (0..count).map(|_| rng.random_range(-limit..limit)).collect();
                (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
            })
            .collect();
        safetensors::serialize(&tensors, None).unwrap()
    }

    pub(crate) fn model() -> BeatModel {
        let weights = weights();
        BeatModel::from_parts(&manifest(&weights).to_toml().unwrap(), &weights).unwrap()
    }

    pub(crate) fn inputs(count: usize, seed: u64) -> Vec<BeatInput> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..count)
            .map(|_| {
                let waveform =
                    (0..CHANNELS * SEGMENT_SAMPLES).map(|_| rng.random_range(-1.0..1.0)).collect();
                BeatInput::from_parts(
                    waveform,
                    std::array::from_fn(|_| rng.random_range(-2.0..2.0)),
                )
            })
            .collect()
    }

    fn bits(score: &BeatScore) -> [u32; 5] {
        score.probabilities.map(f32::to_bits)
    }

    #[test]
    fn probabilities_are_probabilities() {
        let scores = model().classify(&inputs(40, 1)).unwrap();
        assert_eq!(scores.len(), 40);
        for score in &scores {
            assert!((score.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let largest = score.probabilities[score.class.index()];
            assert!(score.probabilities.iter().all(|other| *other <= largest));
        }
        assert!(model().classify(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_score_is_the_same_alone_and_at_every_place_of_a_batch() {
        let model = model();
        let beats = inputs(BATCH, 2);
        let together = model.classify(&beats).unwrap();
        for turn in 0..BATCH {
            let mut turned = beats.clone();
            turned.rotate_left(turn);
            let scores = model.classify(&turned).unwrap();
            for (place, score) in scores.iter().enumerate() {
                assert_eq!(bits(score), bits(&together[(place + turn) % BATCH]), "{place} {turn}");
            }
        }
        for (beat, score) in beats.iter().zip(&together) {
            assert_eq!(bits(&model.classify(std::slice::from_ref(beat)).unwrap()[0]), bits(score));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn neighbours_do_not_matter(seed in 4_u64..1000, before in 0_usize..70, behind in 0_usize..70) {
            let model = model();
            let beat = inputs(1, 3);
            let alone = model.classify(&beat).unwrap();
            let mut many = inputs(before, seed);
            many.extend(beat);
            many.extend(inputs(behind, seed + 1));
            prop_assert_eq!(bits(&model.classify(&many).unwrap()[before]), bits(&alone[0]));
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let good = weights();
        let text = manifest(&good).to_toml().unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let error = BeatModel::from_parts(&text, &flipped).unwrap_err();
        assert!(matches!(error, LoadError::Hash { .. }), "{error}");

        let other: BTreeMap<&str, Tensor> = [(
            "conv1.weight",
            Tensor::zeros((1, 2, 3), candle_core::DType::F32, &Device::Cpu).unwrap(),
        )]
        .into();
        let other = safetensors::serialize(&other, None).unwrap();
        let text = manifest(&other).to_toml().unwrap();
        let error = BeatModel::from_parts(&text, &other).unwrap_err();
        assert!(matches!(&error, LoadError::Tensor(name) if name == "conv1.weight"), "{error}");

        let text = manifest(b"no tensors").to_toml().unwrap();
        let error = BeatModel::from_parts(&text, b"no tensors").unwrap_err();
        assert!(matches!(error, LoadError::Weights(_)), "{error}");
    }

    #[test]
    fn a_folder_is_loaded_or_says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let missing = BeatModel::load(folder.path()).unwrap_err();
        assert!(matches!(missing, LoadError::Read { .. }), "{missing}");
        let weights = weights();
        let text = manifest(&weights).to_toml().unwrap();
        std::fs::write(folder.path().join("manifest.toml"), &text).unwrap();
        std::fs::write(folder.path().join("weights.safetensors"), &weights).unwrap();
        let model = BeatModel::load(folder.path()).unwrap();
        assert_eq!(model.reference().sha256, hex::encode(Sha256::digest(&text)));
        std::fs::write(folder.path().join("weights.safetensors"), vec![0; MAX_WEIGHTS_BYTES + 1])
            .unwrap();
        let large = BeatModel::load(folder.path()).unwrap_err();
        assert!(matches!(large, LoadError::TooLarge { .. }), "{large}");
    }

    #[test]
    fn the_built_in_model_is_whole_and_small() {
        let model = BeatModel::builtin().unwrap();
        assert_eq!(model.reference().id, "ecg-beats");
        let size = include_bytes!("../models/ecg-beats/weights.safetensors").len();
        assert!(size <= 200 * 1024, "{size} bytes");
        assert!(
            include_str!("../models/ecg-beats/CARD.md").contains(&model.manifest().weights.sha256)
        );
    }

    /// The built-in weights were trained on these recordings: this holds the whole way from file to
    /// class, not how well strangers' beats are classified, which the manifest says.
    #[test]
    fn recorded_beats_are_classified() {
        let data = std::env::var("HAAR_DATA")
            .expect("set HAAR_DATA to the folder that holds mitdb (PhysioNet) to run this test");
        let model = BeatModel::builtin().unwrap();
        let mut confusion = crate::Confusion::default();
        let mut without_input = 0;
        for header in haar_recordings::wfdb::find_records(Path::new(&data).join("mitdb")).unwrap() {
            let Some(beats) = crate::train::labelled_beats(&header).unwrap() else { continue };
            let (classes, inputs): (Vec<BeatClass>, Vec<BeatInput>) =
                beats.iter().filter_map(|beat| Some((beat.class, beat.input.clone()?))).unzip();
            without_input += beats.len() - inputs.len();
            for (class, score) in classes.iter().zip(model.classify(&inputs).unwrap()) {
                confusion.add(*class, score.class);
            }
        }
        println!("{confusion}\n{without_input} beats without an input");
        let v = confusion.class(BeatClass::V);
        assert!(v.sensitivity >= Some(0.90) && v.ppv >= Some(0.85), "{confusion}");
        assert!(confusion.class(BeatClass::S).sensitivity >= Some(0.75), "{confusion}");
        assert!(confusion.accuracy() >= Some(0.95), "{confusion}");
        assert!(without_input * 500 < confusion.beats() as usize, "{without_input}");
    }
}
