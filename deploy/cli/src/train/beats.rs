//! `haar train beats`: the classifier of heart beats.

use crate::failure::Failure;
use haar_inference::train::{About, Progress, TrainSettings, Trained, beats};
use haar_inference::{BeatModel, Manifest};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where a training stands, beside the model; deleted when it is done.
const RESUME: &str = "resume.safetensors";

/// Reads WFDB recordings with `.atr` annotations, measures by folds of patients, trains on all, and writes
/// manifest.toml, weights.safetensors and CARD.md. Broken off, it goes on when the same command is given again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of WFDB recordings.
    #[arg(long)]
    data: PathBuf,
    /// Folder for the model; made if it is not there.
    #[arg(long)]
    out: PathBuf,
    /// What all random numbers grow from.
    #[arg(long, default_value_t = TrainSettings::default().seed)]
    seed: u64,
    /// Passes over the data in each fold and in the final training.
    #[arg(long, default_value_t = TrainSettings::default().epochs)]
    epochs: u32,
    /// Beats in a step.
    #[arg(long, default_value_t = TrainSettings::default().batch)]
    batch: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = TrainSettings::default().learning_rate)]
    learning_rate: f64,
    /// Folds of patients for the metrics.
    #[arg(long, default_value_t = TrainSettings::default().folds)]
    folds: usize,
    /// Recordings of one patient, with commas between; once for each such patient.
    #[arg(long, value_name = "RECORD,RECORD")]
    same_patient: Vec<String>,
    /// The model's version, for the manifest.
    #[arg(long, default_value_t = 1)]
    model_version: u32,
    /// Name of the data, for manifest and card [default: the folder's name].
    #[arg(long)]
    data_name: Option<String>,
    /// How the data's authors want to be cited, for manifest and card.
    #[arg(long, default_value = "not given")]
    citation: String,
    /// Licence of the data, for manifest and card.
    #[arg(long, default_value = "not given")]
    licence: String,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let begin = Instant::now();
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::new(format!("cannot make {}: {error}", args.out.display())))?;
    let resume = args.out.join(RESUME);
    let trained = train(args, &resume)?;
    let manifest = trained.write(&args.out, &about(args))?;
    std::fs::remove_file(&resume)
        .map_err(|error| Failure::new(format!("cannot delete {}: {error}", resume.display())))?;
    // What was written is what will be loaded: say its name only after it was.
    let model = BeatModel::load(&args.out)?;
    if args.json {
        println!("{}", json(&manifest, &model, begin.elapsed().as_secs_f64()));
    } else {
        println!("Beats of patients held out ({} folds):\n\n{}\n", args.folds, trained.held_out);
        println!(
            "{} recordings, {} left out (paced)",
            trained.records.len(),
            trained.left_out.len()
        );
        println!("model {} {}", model.reference().id, model.reference().sha256);
        println!("written to {} in {:.0} s", args.out.display(), begin.elapsed().as_secs_f64());
    }
    Ok(())
}

fn train(args: &Args, resume: &Path) -> Result<Trained, Failure> {
    let settings = TrainSettings {
        seed: args.seed,
        epochs: args.epochs,
        batch: args.batch,
        learning_rate: args.learning_rate,
        folds: args.folds,
        same_patient: args.same_patient.iter().map(|group| names(group)).collect(),
        ..TrainSettings::default()
    };
    // Drawn on standard error, and only where that is a terminal.
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{wide_bar} {pos}/{len} {elapsed} elapsed, {eta} to go  {msg}",
    )?);
    let trained = beats(&args.data, &settings, Some(resume), &mut |progress| match progress {
        Progress::Loaded { records, of } => {
            bar.set_length(of as u64);
            bar.set_position(records as u64);
            bar.set_message("recordings read");
            if records == of {
                // The clock of the estimate starts with the training, which says nothing before its
                // first epoch is over.
                bar.set_position(0);
                bar.reset_eta();
                bar.set_message("first epoch");
            }
        }
        Progress::Epoch { stage, stages, epoch, epochs, loss } => {
            let done = stage as u64 * u64::from(epochs) + u64::from(epoch);
            let total = stages as u64 * u64::from(epochs);
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(match stage + 1 == stages {
                true => format!("all patients, epoch {epoch}, loss {loss:.3}"),
                false => {
                    format!("fold {} of {}, epoch {epoch}, loss {loss:.3}", stage + 1, stages - 1)
                }
            });
        }
        _ => {}
    });
    bar.finish_and_clear();
    Ok(trained?)
}

fn about(args: &Args) -> About {
    let folder = args.data.file_name().unwrap_or_default().to_string_lossy();
    let mut command = format!(
        "haar train beats --data DIR --out DIR --seed {} --epochs {} --batch {} --learning-rate {} --folds {}",
        args.seed, args.epochs, args.batch, args.learning_rate, args.folds
    );
    for group in &args.same_patient {
        command.push_str(&format!(" --same-patient {group}"));
    }
    About {
        id: "ecg-beats".into(),
        version: args.model_version,
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        data: args.data_name.clone().unwrap_or_else(|| folder.into_owned()),
        citation: args.citation.clone(),
        licence: args.licence.clone(),
        command,
    }
}

fn names(group: &str) -> Vec<String> {
    group.split(',').map(|name| name.trim().to_string()).collect()
}

fn json(manifest: &Manifest, model: &BeatModel, seconds: f64) -> serde_json::Value {
    serde_json::json!({
        "task": "beats",
        "model": model.reference(),
        "accuracy": manifest.metrics.accuracy,
        "classes": manifest.metrics.classes,
        "confusion": manifest.metrics.confusion,
        "evaluation": manifest.metrics.evaluation,
        "records": manifest.data.records.len(),
        "left_out": manifest.data.left_out.len(),
        "seconds": seconds,
    })
}
