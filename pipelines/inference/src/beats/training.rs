//! Training the classifier of beats.
//!
//! The patients are shuffled by the seed and dealt into folds; member `k` of the committee is trained on the patients of
//! all folds but `k`. The metrics are those of every patient's beats asked of the one member that has not seen the
//! patient, with the whole recording as context and at annotated R peaks.
//!
//! Every beat comes in variants, one of which is drawn whenever it is used: both leads with the whole recording around
//! it, and each lead alone with only a window of 30 s. So the network learns to do with what there is.
//!
//! Loss: cross-entropy. Beats of a class that a patient has many of are drawn, so that no patient outweighs the
//! others; this makes rare classes more frequent than in life, which [`BeatSettings::class_bias`] takes back.

use super::input::Segment;
use super::intervals::RHYTHM_NAMES;
use super::model::{BEAT_TASK, input_specs, output_specs, score};
use super::network::{Batch, MASK_WIDTH, Network, PARAMETERS, log_softmax};
use super::recordings::{AnnotatedRecord, ReadError};
use super::{BeatClass, BeatInput, SHAPE_NAMES};
use crate::package::{Draft, Lineage, Manifest, Metrics, TrainingData, TrainingRun, WeightsFile};
use crate::statistics::Confusion;
use crate::training::{FitError, FitProgress, Run, fit, folds, forget, initial, random};
use candle_core::{Device, Tensor};
use haar_recordings::corpus::CaseId;
use haar_recordings::wfdb::{FindError, find_records};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Samples of 8 ms by which training may move a beat.
const MARGIN: usize = 3;
/// How often each variant of a beat is drawn: whole recording with all leads, window of the first, of the second lead.
const VARIANTS: [f32; 3] = [0.6, 0.25, 0.15];

/// How to train. What is random grows from `seed` alone.
#[derive(Clone, PartialEq, Debug)]
pub struct BeatSettings {
    /// What the random numbers grow from.
    pub seed: u64,
    /// Passes over the data.
    pub epochs: u32,
    /// Beats in a step.
    pub batch: usize,
    /// AdamW's highest learning rate.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Folds of patients and members of the committee, at least 2.
    pub folds: usize,
    /// The most beats of one patient in one epoch, by class.
    pub beats_per_patient: [usize; 5],
    /// Added to the scores of the classes after the training: takes back that rare classes are drawn more often than they
    /// are met.
    pub class_bias: [f32; 5],
    /// Share of the last layers' features that a step leaves out, 0 to less than 1.
    pub dropout: f32,
    /// Standard deviation of noise on the numbers.
    pub numbers_noise: f32,
    /// Largest standard deviation of white noise, in heights of the dominant beat.
    pub noise: f32,
    /// Standard deviation of the gain around 1.
    pub gain: f32,
    /// Recordings that are of one patient, by name; none of a group's is in two folds.
    pub same_patient: Vec<Vec<String>>,
    /// For the manifest: the model's version.
    pub version: u32,
    /// For the manifest: today, `YYYY-MM-DD`.
    pub date: String,
    /// For the manifest: the command.
    pub command: String,
    /// For the manifest: name, citation and licence of the data.
    pub data: [String; 3],
}

impl Default for BeatSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 4,
            batch: 64,
            learning_rate: 2e-3,
            weight_decay: 0.05,
            folds: 5,
            beats_per_patient: [400, 150, 250, 80, 20],
            // ln(N drawn by N there is / class drawn by class there is) on mitdb's first half.
            class_bias: [0.0, -1.35, -1.1, -0.4, 0.0],
            dropout: 0.3,
            numbers_noise: 0.1,
            noise: 0.05,
            gain: 0.15,
            same_patient: Vec::new(),
            version: 2,
            date: String::new(),
            command: String::new(),
            data: Default::default(),
        }
    }
}

/// Why there is no trained model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting is out of its bounds.
    #[error("{0}")]
    Setting(&'static str),
    /// The folder has no recordings.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A recording is not usable.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Too few patients.
    #[error(
        "{patients} patients are too few for {folds} folds; give more recordings or fewer folds"
    )]
    TooFew {
        /// Patients who are not paced.
        patients: usize,
        /// Folds.
        folds: usize,
    },
    /// The network was not trained.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// candle failed.
    #[error("the network could not be computed: {0}")]
    Network(#[from] candle_core::Error),
}

/// Trains on all WFDB recordings with `.atr` annotations under `folder`. `loaded` hears how many recordings were read, and of
/// how many; with `resume` a training that was broken off goes on to the same result.
///
/// # Errors
/// If recordings are unreadable or too few, settings are out of bounds, or the training fails.
pub fn train(
    folder: &Path,
    settings: &BeatSettings,
    resume: Option<&Path>,
    loaded: &mut dyn FnMut(usize, usize),
    progress: &mut dyn FnMut(FitProgress),
) -> Result<(Draft, Confusion), TrainError> {
    settings.check()?;
    let headers: Vec<_> = find_records(folder)?
        .into_iter()
        .filter(|header| header.with_extension("atr").is_file())
        .collect();
    let mut data = Dataset::default();
    for (at, header) in headers.iter().enumerate() {
        data.add(&AnnotatedRecord::read(header)?, &settings.same_patient);
        loaded(at + 1, headers.len());
    }
    data.train(settings, resume, progress)
}

impl BeatSettings {
    fn check(&self) -> Result<(), TrainError> {
        let rules = [
            ((1..=1_000).contains(&self.epochs), "epochs must be 1 to 1000"),
            ((1..=4_096).contains(&self.batch), "the batch must be 1 to 4096 beats"),
            ((2..=16).contains(&self.folds), "there must be 2 to 16 folds"),
            ((0.0..1.0).contains(&self.dropout), "the dropout must be 0 to less than 1"),
            (
                self.learning_rate > 0.0 && self.learning_rate < 1.0,
                "the learning rate must be more than 0 and less than 1",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, message)) => Err(TrainError::Setting(message)),
            None => Ok(()),
        }
    }
}

/// What was read.
#[derive(Default)]
struct Dataset {
    patients: Vec<Patient>,
    paced: u64,
}

/// One person's beats.
struct Patient {
    records: Vec<String>,
    cases: Vec<CaseId>,
    beats: Vec<Beat>,
}

struct Beat {
    class: BeatClass,
    /// In the order of [`VARIANTS`]; the first may be missing while another is not.
    variants: [Option<Segment>; 3],
}

impl Dataset {
    fn add(&mut self, record: &AnnotatedRecord, same_patient: &[Vec<String>]) {
        if record.is_paced {
            self.paced += 1;
            return;
        }
        let peaks: Vec<usize> = record.beats.iter().map(|beat| beat.sample).collect();
        let leads = record.leads.len();
        let mut variants = [
            record.segments(0..leads, &peaks, false, MARGIN),
            record.segments(0..1, &peaks, true, MARGIN),
            record.segments(1.min(leads - 1)..leads, &peaks, true, MARGIN),
        ]
        .map(Vec::into_iter);
        let beats = record.beats.iter().map(|beat| Beat {
            class: beat.class,
            variants: variants.each_mut().map(|variant| variant.next().flatten()),
        });
        let beats = beats.collect();
        let group = same_patient.iter().find(|group| group.contains(&record.name));
        let known = group.and_then(|group| {
            let of_group =
                |patient: &&mut Patient| patient.records.iter().any(|r| group.contains(r));
            self.patients.iter_mut().find(of_group)
        });
        match known {
            Some(patient) => {
                patient.records.push(record.name.clone());
                patient.cases.push(record.case);
                patient.beats.extend::<Vec<Beat>>(beats);
            }
            None => {
                let (records, cases) = (vec![record.name.clone()], vec![record.case]);
                self.patients.push(Patient { records, cases, beats });
            }
        }
    }

    fn train(
        &self,
        settings: &BeatSettings,
        resume: Option<&Path>,
        progress: &mut dyn FnMut(FitProgress),
    ) -> Result<(Draft, Confusion), TrainError> {
        let patients = self.patients.len();
        if patients < settings.folds {
            return Err(TrainError::TooFew { patients, folds: settings.folds });
        }
        let fold_of = folds(patients, settings.folds, settings.seed);
        let fingerprint = self.fingerprint(settings);
        let mut members = Vec::new();
        let mut confusion = Confusion::new(&BeatClass::NAMES);
        for fold in 0..settings.folds {
            let (unseen, seen): (Vec<usize>, Vec<usize>) =
                (0..patients).partition(|patient| fold_of[*patient] == fold);
            let run = Run {
                seed: settings.seed,
                stage: fold,
                stages: settings.folds,
                epochs: settings.epochs,
                learning_rate: settings.learning_rate,
                weight_decay: settings.weight_decay,
                fingerprint: &fingerprint,
                resume,
            };
            let member = self.member(&run, &seen, settings, progress)?;
            let network = Network::learned(&member)?;
            for patient in unseen {
                self.patients[patient].ask(&network, &mut confusion)?;
            }
            members.push(member);
        }
        if let Some(path) = resume {
            forget(path, settings.folds)?;
        }
        let lineage = self.patients.iter().zip(&fold_of).flat_map(|(patient, fold)| {
            patient.cases.iter().map(|case| (*case, u8::try_from(*fold).unwrap_or(u8::MAX)))
        });
        let draft = self.draft(settings, members, Lineage::new(lineage), &confusion);
        Ok((draft, confusion))
    }

    fn member(
        &self,
        run: &Run,
        seen: &[usize],
        settings: &BeatSettings,
        progress: &mut dyn FnMut(FitProgress),
    ) -> Result<BTreeMap<String, Tensor>, TrainError> {
        let all: Vec<&Beat> = seen.iter().flat_map(|at| &self.patients[*at].beats).collect();
        let mut groups = Vec::new();
        let mut first = 0;
        for patient in seen {
            let beats = &self.patients[*patient].beats;
            for class in BeatClass::ALL {
                let usable = |at: &usize| {
                    beats[*at].class == class && beats[*at].variants.iter().any(Option::is_some)
                };
                let of_class: Vec<usize> =
                    (0..beats.len()).filter(usable).map(|at| first + at).collect();
                groups.push((settings.beats_per_patient[class.index()], of_class));
            }
            first += beats.len();
        }
        let plan = |_, rng: &mut ChaCha8Rng| {
            let mut chosen = Vec::new();
            for (most, of_class) in &groups {
                chosen.extend(of_class.sample(rng, *most).copied());
            }
            chosen.shuffle(rng);
            chosen.chunks(settings.batch).map(<[usize]>::to_vec).collect()
        };
        let start = initial(&PARAMETERS, &mut random(settings.seed, run.stage, 0))?;
        let loss = |parameters: &BTreeMap<String, Tensor>,
                    chosen: &[usize],
                    rng: &mut ChaCha8Rng| {
            let inputs: Vec<BeatInput> =
                chosen.iter().filter_map(|at| all[*at].draw(settings, rng)).collect();
            let truth: Vec<u32> = chosen.iter().map(|at| all[*at].class.index() as u32).collect();
            let truth = Tensor::from_vec(truth, (chosen.len(), 1), &Device::Cpu)?;
            let mask = dropout(chosen.len(), settings.dropout, rng)?;
            let scores =
                Network::learned(parameters)?.forward(&Batch::new(&inputs)?, Some(&mask))?;
            log_softmax(&scores)?.gather(&truth, 1)?.mean_all()?.neg()
        };
        let mut member = fit(run, start, plan, loss, progress)?;
        if let Some(bias) = member.get_mut("output.bias") {
            *bias = (&*bias + Tensor::new(&settings.class_bias, &Device::Cpu)?)?;
        }
        Ok(member)
    }

    /// Settings and what was read, in one hash.
    fn fingerprint(&self, settings: &BeatSettings) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{settings:?}"));
        for patient in &self.patients {
            hash.update(format!("{:?}", patient.cases));
        }
        hex::encode(hash.finalize())
    }

    fn draft(
        &self,
        settings: &BeatSettings,
        members: Vec<BTreeMap<String, Tensor>>,
        lineage: Lineage,
        confusion: &Confusion,
    ) -> Draft {
        let evaluation =
            "each patient's beats asked of the one member that was trained without the patient; \
                          annotated R peaks, whole recordings as context, up to two leads"
                .to_owned();
        let [name, citation, licence] = settings.data.clone();
        let data = TrainingData {
            name,
            citation,
            licence,
            cases: lineage.len() as u64,
            note: format!("{} recordings of paced patients left out", self.paced),
        };
        let named = |at: usize| (BeatClass::NAMES[at].to_owned(), confusion.class(at));
        let card = self.card(settings, &data, &evaluation, confusion);
        Draft {
            manifest: Manifest {
                id: "ecg-beats".into(),
                version: settings.version,
                task: BEAT_TASK.into(),
                title: "AAMI class of each heart beat of an ECG".into(),
                date: settings.date.clone(),
                members: settings.folds as u32,
                inputs: input_specs(),
                outputs: output_specs(),
                weights: WeightsFile::default(),
                data: vec![data],
                training: TrainingRun {
                    seed: settings.seed,
                    epochs: settings.epochs,
                    folds: settings.folds as u32,
                    command: settings.command.clone(),
                    settings: settings.named(),
                },
                metrics: Metrics {
                    evaluation,
                    values: confusion
                        .accuracy()
                        .map(|share| ("accuracy".to_owned(), share))
                        .into_iter()
                        .collect(),
                    classes: (0..5).map(named).collect(),
                    confusion: Some(confusion.counts().to_vec()),
                },
            },
            members,
            lineage,
            card,
        }
    }

    fn card(
        &self,
        settings: &BeatSettings,
        data: &TrainingData,
        evaluation: &str,
        confusion: &Confusion,
    ) -> String {
        let TrainingData { name, citation, licence, cases, note } = data;
        format!(
            "## Use\n\nFor flags that a person looks at. Decision support, measured on the data below; not a certified medical device.\n\
             Not for paced patients: none were in training. Class Q is nearly empty without them. Fusion beats (F)\n\
             and supraventricular beats (S) are few and from few patients.\n\n\
             ## Inputs\n\nOf one lead or two, and of as much context as there is (up to 150 s on both sides): 98 samples at 125 Hz around the beat and\n\
             their difference from the patient's dominant beat, and numbers about rhythm\n({})\nand shape\n({}).\n\n\
             ## Data\n\n{name}, {cases} recordings of {} patients; {note}. Licence: {licence}.\n{citation}\n\n\
             ## Metrics\n\n{evaluation}.\n\n```text\n{confusion}\n```\n\n\
             ## Training\n\nSeed {}, {} epochs, {} members. Settings:\n\n```text\n{:#?}\n```\n\nAgain:\n\n```\n{}\n```\n",
            RHYTHM_NAMES.join("; "),
            SHAPE_NAMES.join("; "),
            self.patients.len(),
            settings.seed,
            settings.epochs,
            settings.folds,
            settings.named(),
            settings.command,
        )
    }
}

impl BeatSettings {
    fn named(&self) -> BTreeMap<String, String> {
        [
            ("batch", self.batch.to_string()),
            ("learning_rate", self.learning_rate.to_string()),
            ("weight_decay", self.weight_decay.to_string()),
            ("beats_per_patient", format!("{:?}", self.beats_per_patient)),
            ("class_bias", format!("{:?}", self.class_bias)),
            ("dropout", self.dropout.to_string()),
            ("numbers_noise", self.numbers_noise.to_string()),
            ("noise", self.noise.to_string()),
            ("gain", self.gain.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

impl Patient {
    /// Asks about every beat, with the whole recording as context.
    fn ask(&self, network: &Network, confusion: &mut Confusion) -> candle_core::Result<()> {
        let known: Vec<(BeatClass, BeatInput)> = self
            .beats
            .iter()
            .filter_map(|beat| Some((beat.class, beat.variants[0].as_ref()?.input(0.0))))
            .collect();
        for chunk in known.chunks(64) {
            let inputs: Vec<BeatInput> = chunk.iter().map(|(_, input)| input.clone()).collect();
            let scores = network.forward(&Batch::new(&inputs)?, None)?.to_vec2::<f32>()?;
            for ((class, _), row) in chunk.iter().zip(scores) {
                let called = score(&row).map_or(BeatClass::Q, |score| score.class);
                confusion.add(class.index(), called.index());
            }
        }
        Ok(())
    }
}

impl Beat {
    /// One of its variants, changed at random within what real recordings show.
    fn draw(&self, settings: &BeatSettings, rng: &mut ChaCha8Rng) -> Option<BeatInput> {
        let mut at = rng.random_range(0.0..VARIANTS.iter().sum());
        let weight = |(segment, weight): (&Option<Segment>, f32)| {
            segment.as_ref().map(|segment| (segment.clone(), weight))
        };
        let there: Vec<(Segment, f32)> =
            self.variants.iter().zip(VARIANTS).filter_map(weight).collect();
        let chosen = there.iter().find(|(_, weight)| {
            at -= weight;
            at < 0.0
        });
        let (segment, _) = chosen.or_else(|| there.first())?;
        let limit = MARGIN as f32;
        let mut input = segment.input(rng.random_range(-limit..=limit));
        let gain = 1.0 + settings.gain * rng.sample::<f32, _>(StandardNormal);
        let noise = settings.noise * rng.random::<f32>();
        for pair in input.waveform.chunks_exact_mut(2) {
            let template = pair[0] - pair[1];
            if pair[0] != 0.0 || template != 0.0 {
                pair[0] = pair[0] * gain + noise * rng.sample::<f32, _>(StandardNormal);
                pair[1] = pair[0] - template;
            }
        }
        for number in &mut input.numbers {
            *number += settings.numbers_noise * rng.sample::<f32, _>(StandardNormal);
        }
        Some(input)
    }
}

fn dropout(rows: usize, share: f32, rng: &mut ChaCha8Rng) -> candle_core::Result<Tensor> {
    let kept = 1.0 / (1.0 - share);
    let mask: Vec<f32> = (0..rows * MASK_WIDTH)
        .map(|_| if rng.random::<f32>() < share { 0.0 } else { kept })
        .collect();
    Tensor::from_vec(mask, (rows, MASK_WIDTH), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beats::BeatModel;
    use crate::beats::recordings::LabelledBeat;
    use haar_schema::SampleRate;

    /// A patient with a ventricular beat (early, broad) after every seventh.
    fn record(name: &str, period: usize) -> AnnotatedRecord {
        let mut mv = vec![0.0_f32; 250 * 60];
        let mut beats = Vec::new();
        let mut at = period;
        while at + 2 * period < mv.len() {
            let ventricular = beats.len() % 7 == 6;
            let sample = if ventricular { at - period / 3 } else { at };
            let width = if ventricular { 12.0 } else { 4.0 };
            for (place, value) in mv.iter_mut().enumerate() {
                let away = (place as f32 - sample as f32) / width;
                *value += (-away * away).exp();
            }
            let class = if ventricular { BeatClass::V } else { BeatClass::N };
            beats.push(LabelledBeat { sample, class });
            at += period;
        }
        AnnotatedRecord {
            name: name.into(),
            case: CaseId(period as u64),
            rate: SampleRate::from_hz(250).unwrap(),
            leads: vec![mv],
            beats,
            is_paced: false,
        }
    }

    fn data() -> Dataset {
        let mut data = Dataset::default();
        for (name, period) in [("a", 190), ("b", 200), ("c", 220), ("d", 180)] {
            data.add(&record(name, period), &[]);
        }
        data.add(&AnnotatedRecord { is_paced: true, ..record("e", 210) }, &[]);
        data
    }

    fn settings() -> BeatSettings {
        BeatSettings { epochs: 8, folds: 2, batch: 16, ..BeatSettings::default() }
    }

    #[test]
    fn it_learns_and_what_it_writes_is_loaded() {
        let data = data();
        let (draft, confusion) = data.train(&settings(), None, &mut |_| {}).unwrap();
        let v = confusion.class(BeatClass::V.index());
        assert!(v.cases > 30 && v.f1 > Some(0.9), "{confusion}");
        let folder = tempfile::tempdir().unwrap();
        draft.write(folder.path()).unwrap();
        let model = BeatModel::load(folder.path()).unwrap();
        assert_eq!((model.lineage().len(), model.members()), (4, 2));
        assert_eq!(model.manifest().data[0].note, "1 recordings of paced patients left out");
        let beat = &data.patients[0].beats[20];
        let input = beat.variants[0].as_ref().unwrap().input(0.0);
        assert_eq!(model.classify(&[input]).unwrap()[0].class, beat.class);
    }

    #[test]
    fn recordings_of_one_patient_stay_together() {
        let mut data = Dataset::default();
        let same = [vec!["a".to_owned(), "c".into()]];
        for (name, period) in [("a", 190), ("b", 200), ("c", 220)] {
            data.add(&record(name, period), &same);
        }
        let records: Vec<_> = data.patients.iter().map(|p| p.records.join(" ")).collect();
        assert_eq!(records, ["a c", "b"]);
        assert_eq!(data.patients[0].cases.len(), 2);
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        let nowhere = Path::new("/nowhere");
        let attempt = |settings: BeatSettings| {
            train(nowhere, &settings, None, &mut |_, _| {}, &mut |_| {}).unwrap_err()
        };
        for settings in [
            BeatSettings { epochs: 0, ..settings() },
            BeatSettings { folds: 1, ..settings() },
            BeatSettings { learning_rate: f64::NAN, ..settings() },
        ] {
            let error = attempt(settings);
            assert!(matches!(error, TrainError::Setting(_)), "{error}");
        }
        assert!(matches!(attempt(settings()), TrainError::Find(_)));
        let few = BeatSettings { folds: 5, ..settings() };
        let error = data().train(&few, None, &mut |_| {}).unwrap_err();
        assert!(matches!(error, TrainError::TooFew { patients: 4, folds: 5 }), "{error}");
    }
}
