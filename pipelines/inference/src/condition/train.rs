//! Training the sorter of flags on drawn cases, and measuring it on others.

use super::{
    CONDITION_TASK, COUNT, ConditionGroup, INPUTS, PARAMETERS, cases, forward, input_specs,
    output_specs, softmax,
};
use crate::package::{Draft, Lineage, Manifest, Metrics, TrainingData, TrainingRun, WeightsFile};
use crate::statistics::Confusion;
use crate::training::{FitError, FitProgress, Run, fit, forget, initial, random};
use candle_core::{D, Device, Tensor};
use rand::seq::SliceRandom;
use std::collections::BTreeMap;
use std::path::Path;

/// Members of the committee; each has cases of its own.
const MEMBERS: usize = 3;
const BATCH: usize = 256;
/// Cases that no member was trained on.
const HELD_OUT: usize = 12_000;

/// How to train.
#[derive(Clone, PartialEq, Debug)]
pub struct ConditionSettings {
    /// What all random numbers grow from.
    pub seed: u64,
    /// Passes over the cases.
    pub epochs: u32,
    /// Cases for each member.
    pub cases: usize,
    /// Today, `YYYY-MM-DD`, for the manifest.
    pub date: String,
    /// The command, for the manifest.
    pub command: String,
    /// The model's version.
    pub version: u32,
}

/// Trains; `resume` keeps where it stands.
///
/// # Errors
/// If the training diverges, candle fails, or the file to resume from is another's.
pub fn train(
    settings: &ConditionSettings,
    resume: Option<&Path>,
    progress: &mut dyn FnMut(FitProgress),
) -> Result<(Draft, Confusion), FitError> {
    let mut members = Vec::new();
    for member in 0..MEMBERS {
        // Seeds of cases are far from each other and from the one of the cases that are held out.
        let drawn: Vec<cases::Case> =
            cases::draw(settings.seed + 1 + member as u64, settings.cases).collect();
        let fingerprint = format!("{settings:?}");
        let run = Run {
            seed: settings.seed,
            stage: member,
            stages: MEMBERS,
            epochs: settings.epochs,
            learning_rate: 3e-3,
            weight_decay: 0.01,
            fingerprint: &fingerprint,
            resume,
        };
        let trained = fit(
            &run,
            initial(&PARAMETERS, &mut random(settings.seed, member, 0))?,
            |_, rng| {
                let mut order: Vec<usize> = (0..drawn.len()).collect();
                order.shuffle(rng);
                order.chunks(BATCH).map(<[usize]>::to_vec).collect()
            },
            |parameters, batch, _| loss(parameters, batch, &drawn),
            progress,
        )?;
        members.push(trained);
    }
    if let Some(path) = resume {
        forget(path, MEMBERS)?;
    }
    let confusion = held_out(settings.seed, &members)?;
    Ok((draft(settings, members, &confusion), confusion))
}

fn loss(
    parameters: &BTreeMap<String, Tensor>,
    batch: &[usize],
    drawn: &[cases::Case],
) -> candle_core::Result<Tensor> {
    let scores = forward(&named(parameters), &rows(batch.iter().map(|at| &drawn[*at]))?)?;
    let truth: Vec<u32> = batch.iter().map(|at| drawn[*at].group.index() as u32).collect();
    let truth = Tensor::from_vec(truth, (batch.len(), 1), &Device::Cpu)?;
    softmax(&scores)?.gather(&truth, 1)?.clamp(1e-9, 1.0)?.log()?.mean_all()?.neg()
}

fn rows<'c>(cases: impl ExactSizeIterator<Item = &'c cases::Case>) -> candle_core::Result<Tensor> {
    let count = cases.len();
    let values: Vec<f32> = cases.flat_map(|case| case.features.0).collect();
    Tensor::from_vec(values, (count, 2 * COUNT), &Device::Cpu)
}

fn named(parameters: &BTreeMap<String, Tensor>) -> BTreeMap<&'static str, Tensor> {
    let shared = |name: &'static str| Some((name, parameters.get(name)?.clone()));
    PARAMETERS.iter().filter_map(|(name, _)| shared(name)).collect()
}

fn held_out(seed: u64, members: &[BTreeMap<String, Tensor>]) -> candle_core::Result<Confusion> {
    let unseen: Vec<cases::Case> = cases::draw(seed + 1_000_000, HELD_OUT).collect();
    let rows = rows(unseen.iter())?;
    let each = members
        .iter()
        .map(|member| softmax(&forward(&named(member), &rows)?))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let called = Tensor::stack(&each, 0)?.mean(0)?.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let mut confusion = Confusion::new(&ConditionGroup::NAMES);
    for (case, called) in unseen.iter().zip(called) {
        confusion.add(case.group.index(), called as usize);
    }
    Ok(confusion)
}

fn draft(
    settings: &ConditionSettings,
    members: Vec<BTreeMap<String, Tensor>>,
    confusion: &Confusion,
) -> Draft {
    let evaluation = format!(
        "{HELD_OUT} cases drawn from another seed; drawn, not recorded: this says how well the network learned \
         the drawing, not how often it is right on a ward"
    );
    let classes = (0..6).map(|at| (ConditionGroup::NAMES[at].to_owned(), confusion.class(at)));
    let names: Vec<&str> = INPUTS.iter().map(|input| input.name).collect();
    let card = format!(
        "## Use\n\nSorts flagged windows into six groups, so that a list of flags can be ordered. It raises and withholds nothing.\n\
         Decision support; not a certified medical device.\n\n\
         ## Data\n\nNo recording: there is no public one with such labels. {} cases for each of {MEMBERS} members were drawn from published\n\
         ranges (`pipelines/inference/src/condition/cases.rs` names each). No patient's data.\n\n\
         ## Inputs\n\n{}; each with a mask for missing.\n\n\
         ## Metrics\n\n{evaluation}.\n\n```text\n{confusion}\n```\n\n\
         ## Training\n\nSeed {}, {} epochs. Again:\n\n```\n{}\n```\n",
        settings.cases,
        names.join(", "),
        settings.seed,
        settings.epochs,
        settings.command,
    );
    Draft {
        manifest: Manifest {
            id: "condition-group".into(),
            version: settings.version,
            task: CONDITION_TASK.into(),
            title: "Group of conditions that a flagged window is about".into(),
            date: settings.date.clone(),
            members: MEMBERS as u32,
            inputs: input_specs(),
            outputs: output_specs(),
            weights: WeightsFile::default(),
            data: vec![TrainingData {
                name: "cases drawn from published ranges".into(),
                citation: "Haar, pipelines/inference/src/condition/cases.rs".into(),
                licence: "MIT OR Apache-2.0".into(),
                cases: 0,
                note: "no patient's data".into(),
            }],
            training: TrainingRun {
                seed: settings.seed,
                epochs: settings.epochs,
                folds: MEMBERS as u32,
                command: settings.command.clone(),
                settings: [("cases".to_owned(), settings.cases.to_string())].into(),
            },
            metrics: Metrics {
                evaluation,
                values: confusion
                    .accuracy()
                    .map(|share| ("accuracy".to_owned(), share))
                    .into_iter()
                    .collect(),
                classes: classes.collect(),
                confusion: Some(confusion.counts().to_vec()),
            },
        },
        members,
        lineage: Lineage::default(),
        card,
    }
}
