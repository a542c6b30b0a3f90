//! Training the committee on sound streams with faults put in.
//!
//! Patients and motes are shuffled by the seed and dealt into folds; member `k` is trained without fold `k`. In each epoch every stream gives some sound
//! windows, each with a fault of a random kind put in anew (or none, in one of five), so no case is seen twice. Half the time the physical range is
//! not told to the network. Nothing is chosen by how a held-out patient is judged: settings are fixed beforehand.
//!
//! Loss: cross-entropy by reading, weighted by kind ([`WEIGHTS`]: a spike has few readings).

use super::features::{FEATURES, features};
use super::inject::{Injected, blemish, inject};
use super::model::{TASK, inputs, outputs};
use super::network::{Network, log_softmax};
use super::streams::{Origin, Stream};
use super::{Architecture, FaultKind, WINDOW};
use crate::package::{Draft, Lineage, Manifest, Metrics, TrainingData, TrainingRun, WeightsFile};
use crate::training::{FitError, FitProgress, Run, fit, folds, random};
use candle_core::{Device, Tensor};
use haar_recordings::corpus::CaseId;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Weight of a reading in the loss, by kind in the order of [`FaultKind::ALL`].
pub const WEIGHTS: [f32; FaultKind::ALL.len()] = [1.0, 1.0, 1.0, 5.0, 1.0, 2.0, 1.0, 2.0];
/// Share of windows without a fault.
const SOUND_SHARE: f64 = 0.2;
/// Readings between the ends of windows that may be drawn.
const STEP: usize = 8;
/// The most epochs.
const EPOCHS_MAX: u32 = 200;

/// How to train. What is random grows from `seed` alone.
#[derive(Clone, PartialEq, Debug)]
pub struct TrainFaultsSettings {
    /// What the random numbers grow from.
    pub seed: u64,
    /// Passes over the data.
    pub epochs: u32,
    /// Members of the committee, and folds.
    pub members: usize,
    /// Which network.
    pub architecture: Architecture,
    /// Windows in a step.
    pub batch: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Windows drawn from each stream in an epoch: of BIDMC, of glucose, of motes.
    pub windows: [usize; 3],
}

impl Default for TrainFaultsSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 20,
            members: 3,
            architecture: Architecture::Convolutions,
            batch: 32,
            learning_rate: 3e-3,
            windows: [48, 12, 60],
        }
    }
}

/// Why there is no trained model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainFaultsError {
    /// A setting is out of its bounds.
    #[error("{0}")]
    Setting(&'static str),
    /// Too few patients and motes with sound windows.
    #[error("{cases} patients and motes are too few for {members} members; give more data")]
    TooFew {
        /// Patients and motes.
        cases: usize,
        /// Members.
        members: usize,
    },
    /// The training failed.
    #[error(transparent)]
    Fit(#[from] FitError),
}

/// Trains a committee on the sound windows of `streams`. The draft's card is empty and its metrics are to be filled in by whoever measures it.
/// `resume` keeps how far it has come ([`crate::training::forget`] deletes that).
///
/// # Errors
/// If settings are out of bounds, there are too few patients, or the training diverges.
pub fn train_faults(
    streams: &[Stream],
    settings: &TrainFaultsSettings,
    date: &str,
    command: &str,
    resume: Option<&Path>,
    progress: &mut dyn FnMut(FitProgress),
) -> Result<Draft, TrainFaultsError> {
    settings.check()?;
    let pool = Pool::new(streams);
    let cases: Vec<CaseId> = pool.cases.iter().copied().collect();
    if cases.len() < settings.members {
        return Err(TrainFaultsError::TooFew { cases: cases.len(), members: settings.members });
    }
    let fold = folds(cases.len(), settings.members, settings.seed);
    let fold: BTreeMap<CaseId, usize> = cases.into_iter().zip(fold).collect();
    let fingerprint = pool.fingerprint(settings);
    let mut members = Vec::new();
    for member in 0..settings.members {
        let run = Run {
            seed: settings.seed,
            stage: member,
            stages: settings.members,
            epochs: settings.epochs,
            learning_rate: settings.learning_rate,
            weight_decay: 0.01,
            fingerprint: &fingerprint,
            resume,
        };
        let initial = settings
            .architecture
            .initial(&mut random(settings.seed, member, 0))
            .map_err(FitError::from)?;
        let own = |place: usize| fold[&pool.streams[place].0.case] != member;
        let weights = fit(
            &run,
            initial,
            |_, random| pool.plan(settings, own, random),
            |parameters, batch, random| pool.loss(parameters, batch, random),
            progress,
        )?;
        members.push(weights);
    }
    let lineage = Lineage::new(fold.into_iter().map(|(case, fold)| (case, fold as u8)));
    let manifest = manifest(settings, &pool, date, command);
    Ok(Draft { manifest, members, lineage, card: String::new() })
}

impl TrainFaultsSettings {
    fn check(&self) -> Result<(), TrainFaultsError> {
        let rules = [
            ((1..=EPOCHS_MAX).contains(&self.epochs), "epochs must be 1 to 200"),
            ((2..=16).contains(&self.members), "there must be 2 to 16 members"),
            ((1..=1_024).contains(&self.batch), "the batch must be 1 to 1024 windows"),
            (
                self.learning_rate > 0.0 && self.learning_rate < 1.0,
                "the learning rate must be more than 0 and less than 1",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, message)) => Err(TrainFaultsError::Setting(message)),
            None => Ok(()),
        }
    }
}

/// The streams that have sound windows, and where these end.
struct Pool<'s> {
    streams: Vec<(&'s Stream, Vec<usize>)>,
    cases: BTreeSet<CaseId>,
    /// All windows that may be drawn: place of the stream and end.
    windows: Vec<(usize, usize)>,
    /// Where each stream's windows begin among them, and at the end their number.
    begins: Vec<usize>,
}

impl<'s> Pool<'s> {
    fn new(streams: &'s [Stream]) -> Self {
        let streams: Vec<(&Stream, Vec<usize>)> = streams
            .iter()
            .map(|stream| (stream, stream.sound_windows(STEP)))
            .filter(|(_, ends)| !ends.is_empty())
            .collect();
        let cases = streams.iter().map(|(stream, _)| stream.case).collect();
        let (mut windows, mut begins) = (Vec::new(), Vec::new());
        for (place, (_, ends)) in streams.iter().enumerate() {
            begins.push(windows.len());
            windows.extend(ends.iter().map(|end| (place, *end)));
        }
        begins.push(windows.len());
        Self { streams, cases, windows, begins }
    }

    /// The windows of an epoch, in batches, from the streams that a member may see.
    fn plan(
        &self,
        settings: &TrainFaultsSettings,
        own: impl Fn(usize) -> bool,
        random: &mut ChaCha8Rng,
    ) -> Vec<Vec<usize>> {
        let mut drawn = Vec::new();
        for (place, (stream, _)) in self.streams.iter().enumerate().filter(|(at, _)| own(*at)) {
            for _ in 0..settings.windows[stream.origin as usize] {
                drawn.push(random.random_range(self.begins[place]..self.begins[place + 1]));
            }
        }
        drawn.shuffle(random);
        // Only whole batches, for one shape; the rest comes again in the next epoch.
        drawn.chunks_exact(settings.batch).map(<[usize]>::to_vec).collect()
    }

    fn loss(
        &self,
        parameters: &BTreeMap<String, Tensor>,
        batch: &[usize],
        random: &mut ChaCha8Rng,
    ) -> candle_core::Result<Tensor> {
        let rows = batch.len() * WINDOW;
        let mut numbers = Vec::with_capacity(rows * FEATURES);
        let mut targets = vec![0.0_f32; rows * FaultKind::ALL.len()];
        let mut total = 0.0;
        for (at, window) in batch.iter().enumerate() {
            let (injected, range) = self.draw(*window, random);
            let Some(features) = features(&injected.readings, range) else {
                numbers.resize((at + 1) * WINDOW * FEATURES, 0.0);
                continue;
            };
            let labels = &injected.labels[injected.labels.len() - features.rows..];
            for (row, label) in labels.iter().enumerate() {
                let weight = WEIGHTS[label.index()];
                total += weight;
                targets[(at * WINDOW + row) * FaultKind::ALL.len() + label.index()] = weight;
            }
            numbers.extend_from_slice(&features.numbers);
        }
        let input = Tensor::from_vec(numbers, (batch.len(), WINDOW, FEATURES), &Device::Cpu)?;
        let shape = (batch.len(), WINDOW, FaultKind::ALL.len());
        let targets = Tensor::from_vec(targets, shape, &Device::Cpu)?;
        let misfit = |name| candle_core::Error::Msg(format!("tensor `{name}` does not fit"));
        let network = Network::new(parameters.clone()).map_err(misfit)?;
        let errors = (log_softmax(&network.forward(&input)?)? * targets)?.sum_all()?.neg()?;
        errors / f64::from(total.max(1.0))
    }

    /// A window's context with a fault of a random kind, and the range if it is told.
    fn draw(&self, window: usize, random: &mut ChaCha8Rng) -> (Injected, Option<(f32, f32)>) {
        let (place, end) = self.windows[window];
        let stream = self.streams[place].0;
        let mut sound = stream.context(end).to_vec();
        blemish(&mut sound, random);
        let kind = match random.random_bool(SOUND_SHARE) {
            true => FaultKind::Sound,
            false => FaultKind::ALL[random.random_range(1..FaultKind::ALL.len())],
        };
        let injected = inject(&sound, kind, stream.range, random);
        let range = stream.range.filter(|_| random.random_bool(0.5));
        (injected.unwrap_or_else(|| Injected::sound(sound)), range)
    }

    fn fingerprint(&self, settings: &TrainFaultsSettings) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{settings:?} {:?}", self.begins));
        for case in &self.cases {
            hash.update(case.0.to_le_bytes());
        }
        hex::encode(hash.finalize())
    }
}

fn manifest(settings: &TrainFaultsSettings, pool: &Pool, date: &str, command: &str) -> Manifest {
    let setting = |name: &str, value: String| (name.to_owned(), value);
    Manifest {
        id: "device-faults".into(),
        version: 1,
        task: TASK.into(),
        title: "Faults of devices on any stream of numbers".into(),
        date: date.into(),
        members: settings.members as u32,
        inputs: inputs(),
        outputs: outputs(),
        weights: WeightsFile::default(),
        data: Origin::ALL.into_iter().filter_map(|origin| pool.about(origin)).collect(),
        training: TrainingRun {
            seed: settings.seed,
            epochs: settings.epochs,
            folds: settings.members as u32,
            command: command.into(),
            settings: [
                setting("network", settings.architecture.name().into()),
                setting("batch", settings.batch.to_string()),
                setting("learning_rate", settings.learning_rate.to_string()),
                setting("windows_per_stream_and_epoch", format!("{:?}", settings.windows)),
            ]
            .into(),
        },
        metrics: Metrics::default(),
    }
}

impl Pool<'_> {
    fn about(&self, origin: Origin) -> Option<TrainingData> {
        let own = self.streams.iter().filter(|(stream, _)| stream.origin == origin);
        let cases: BTreeSet<CaseId> = own.map(|(stream, _)| stream.case).collect();
        let (name, citation, licence, note) = match origin {
            Origin::Bidmc => (
                "BIDMC PPG and Respiration Dataset 1.0.0, numerics",
                "Pimentel MAF et al., IEEE Trans Biomed Eng 64(8):1914-1923, 2017; Goldberger AL et al., Circulation 101(23):e215-e220, 2000",
                "ODC-BY 1.0",
                "windows without gaps or missing values",
            ),
            Origin::Cgm => (
                "Glucose-ML: AZT1D, BIGIDEAs, Bris-T1D Open, Colas 2019, HUPA-UCM, Hall 2018, PhysioCGM, T1D-UOM",
                "Prioleau T et al., arXiv:2507.14077, 2025, and each study: doi 10.17632/gk9m674wcx.1, 10.13026/zthx-5212, 10.5523/bris.33z5jc8fa6tob21ptrugzqog08, 10.1371/journal.pone.0225817, 10.17632/3hbcscwz44.1, 10.1371/journal.pbio.2005143, 10.6084/m9.figshare.28136294.v1, 10.5281/zenodo.15806142",
                "CC BY 4.0, ODC-BY 1.0, CC0 1.0 by study",
                "windows without gaps or missing values",
            ),
            Origin::Suthaharan => (
                "Labelled wireless sensor network data",
                "Suthaharan S, Alzahrani M, Rajasegarar S, Leckie C, Palaniswami M, ISSNIP 2010",
                "ODC-BY 1.0, CC BY 4.0",
                "windows whose context has no labelled event",
            ),
        };
        (!cases.is_empty()).then(|| TrainingData {
            name: name.into(),
            citation: citation.into(),
            licence: licence.into(),
            cases: cases.len() as u64,
            note: note.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::FaultModel;
    use super::super::evaluate::{Cases, Judge, injected};
    use super::super::inject::tests::wave;
    use super::*;
    use crate::package::Package;

    fn streams() -> Vec<Stream> {
        (0..4)
            .map(|seed| Stream {
                case: CaseId(seed),
                origin: Origin::Bidmc,
                range: None,
                readings: wave(700, seed),
                events: Vec::new(),
            })
            .collect()
    }

    #[test]
    fn it_learns_on_waves_it_has_not_seen() {
        let settings = TrainFaultsSettings {
            epochs: 12,
            members: 2,
            batch: 16,
            windows: [80, 0, 0],
            ..TrainFaultsSettings::default()
        };
        let draft =
            train_faults(&streams(), &settings, "2026-11-22", "cargo test", None, &mut |_| {})
                .unwrap();
        let (manifest, weights) = draft.encode().unwrap();
        let model =
            FaultModel::from_package(Package::from_parts(&manifest, &weights).unwrap()).unwrap();
        let cases = Cases { seed: 5, windows_per_stream: 6 };
        let figures = injected(&streams(), cases, Judge::Model(&model), &mut |_| {}).unwrap();
        assert_eq!((figures.held_out, figures.unknown), (4, 0));
        assert!(figures.mean_f1() > Some(0.6), "{}", figures.windows);
    }

    #[test]
    fn settings_out_of_bounds_and_too_few_patients_are_refused() {
        let train = |settings: &TrainFaultsSettings, streams: &[Stream]| {
            train_faults(streams, settings, "2026-11-22", "cargo test", None, &mut |_| {})
                .unwrap_err()
        };
        let default = TrainFaultsSettings::default();
        let settings = TrainFaultsSettings { members: 1, ..default.clone() };
        assert!(matches!(train(&settings, &streams()), TrainFaultsError::Setting(_)));
        assert!(matches!(
            train(&default, &streams()[..2]),
            TrainFaultsError::TooFew { cases: 2, .. }
        ));
    }
}
