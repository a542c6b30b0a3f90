//! `haar train rhythm`: the committee that tells the rhythm of short single-lead ECGs.

use crate::failure::Failure;
use haar_inference::package::Draft;
use haar_inference::rhythm::{
    RhythmAbout, RhythmCase, RhythmModel, RhythmSettings, rhythm_draft, train_rhythm,
};
use haar_inference::training::forget;
use haar_recordings::cinc2017;
use haar_schema::SampleRate;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where a training stands, beside the model; deleted when it is done.
const RESUME: &str = "resume.safetensors";

/// Reads the PhysioNet/CinC Challenge 2017, trains a committee whose members have each not seen one fold of the
/// recordings, measures it on those, and writes manifest.toml, weights.safetensors and CARD.md. Broken off, it goes
/// on when the same command is given again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with .hea and .mat files and REFERENCE-v3.csv, or with their .tar.zst.
    #[arg(long)]
    data: PathBuf,
    /// Folder for the model; made if it is not there.
    #[arg(long)]
    out: PathBuf,
    /// What all random numbers grow from.
    #[arg(long, default_value_t = RhythmSettings::default().seed)]
    seed: u64,
    /// Passes over the recordings, for each member.
    #[arg(long, default_value_t = RhythmSettings::default().epochs)]
    epochs: u32,
    /// Recordings in a step.
    #[arg(long, default_value_t = RhythmSettings::default().batch)]
    batch: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = RhythmSettings::default().learning_rate)]
    learning_rate: f64,
    /// Members of the committee, and folds of recordings.
    #[arg(long, default_value_t = RhythmSettings::default().members)]
    members: usize,
    /// The model's version, for the manifest.
    #[arg(long, default_value_t = 1)]
    model_version: u32,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let begin = Instant::now();
    if args.members < 2 || args.batch == 0 || args.epochs == 0 {
        return Err(Failure::usage("give at least 2 members, 1 epoch and 1 recording in a step"));
    }
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::new(format!("cannot make {}: {error}", args.out.display())))?;
    let settings = RhythmSettings {
        seed: args.seed,
        epochs: args.epochs,
        batch: args.batch,
        learning_rate: args.learning_rate,
        members: args.members,
        ..RhythmSettings::default()
    };
    let resume = args.out.join(RESUME);
    let draft = train(args, &settings, &resume)?;
    draft.write(&args.out)?;
    forget(&resume, settings.members)?;
    // What was written is what will be loaded: say its name only after it was.
    let model = RhythmModel::load(&args.out)?;
    let figures = &model.package().manifest().metrics.values;
    for (name, value) in figures {
        println!("{name} {value:.4}");
    }
    println!("model {} {}", model.reference().id, model.reference().sha256);
    println!("written to {} in {:.0} s", args.out.display(), begin.elapsed().as_secs_f64());
    Ok(())
}

fn train(args: &Args, settings: &RhythmSettings, resume: &Path) -> Result<Draft, Failure> {
    // Drawn on standard error, and only where that is a terminal.
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{wide_bar} {pos}/{len} {elapsed} elapsed, {eta} to go  {msg}",
    )?);
    let recordings = cinc2017::read(&args.data)?;
    bar.set_length(recordings.len() as u64);
    bar.set_message("recordings described");
    let mut cases = Vec::with_capacity(recordings.len());
    for recording in recordings {
        let rate = SampleRate::from_millihertz(recording.rate_millihertz).ok_or_else(|| {
            Failure::usage("a recording has no sampling rate; correct its header")
        })?;
        let (case, rhythm) = (recording.case, recording.rhythm.into());
        cases.push(RhythmCase::new(case, rhythm, &recording.mv, rate)?);
        bar.inc(1);
    }
    // The clock of the estimate starts with the training, which says nothing before its first epoch is over.
    bar.set_length(settings.members as u64 * u64::from(settings.epochs));
    bar.set_position(0);
    bar.reset_eta();
    let committee = train_rhythm(&cases, settings, Some(resume), &mut |progress| {
        bar.set_position(
            progress.stage as u64 * u64::from(progress.epochs) + u64::from(progress.epoch),
        );
        bar.set_message(format!(
            "member {} of {}, epoch {}, loss {:.3}",
            progress.stage + 1,
            progress.stages,
            progress.epoch,
            progress.loss
        ));
    })?;
    bar.finish_and_clear();
    Ok(rhythm_draft(&committee, &cases, settings, &about(args))?)
}

fn about(args: &Args) -> RhythmAbout {
    RhythmAbout {
        version: args.model_version,
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        command: format!(
            "haar train rhythm --data DIR --out DIR --seed {} --epochs {} --batch {} --learning-rate {} --members {}",
            args.seed, args.epochs, args.batch, args.learning_rate, args.members
        ),
    }
}
