//! `haar train sepsis`: the committee that warns of sepsis.

use crate::evaluate::sepsis_table;
use crate::failure::Failure;
use crate::sepsis_data::read_cases;
use haar_inference::sepsis::{
    Evaluation, SepsisModel, SepsisSettings, TrainProgress, Trained, train,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::Instant;

/// Where a training stands, beside the model; deleted when it is done.
const RESUME: &str = "resume.safetensors";

/// Reads stays of the PhysioNet/CinC Challenge 2019, trains a committee over folds of patients, judges each stay by the member
/// that has not seen it, and writes manifest.toml, weights.safetensors and CARD.md. Broken off, it goes on when the same
/// command is given again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of `.psv` files, or of `.tar.zst` archives of them.
    #[arg(long)]
    data: PathBuf,
    /// Only stays in folders of this name; once for each.
    #[arg(long, value_name = "FOLDER")]
    group: Vec<String>,
    /// Folder for the model; made if it is not there.
    #[arg(long)]
    out: PathBuf,
    /// What all random numbers grow from.
    #[arg(long, default_value_t = SepsisSettings::default().seed)]
    seed: u64,
    /// Trees in each forest.
    #[arg(long, default_value_t = SepsisSettings::default().growth.trees)]
    trees: usize,
    /// Folds of patients, and members of the committee. A forest is grown for each pair of folds.
    #[arg(long, default_value_t = SepsisSettings::default().folds)]
    folds: usize,
    /// The model's version, for the manifest.
    #[arg(long, default_value_t = 1)]
    model_version: u32,
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
    let mut settings = SepsisSettings { seed: args.seed, ..SepsisSettings::default() };
    settings.growth.trees = args.trees;
    settings.folds = args.folds;
    let cases = read_cases(&args.data, &args.group)?;
    // Drawn on standard error, and only where that is a terminal.
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{wide_bar} {pos}/{len} {elapsed} elapsed, {eta} to go  {msg}",
    )?);
    let tell = &mut |progress| {
        let (done, of, what) = match progress {
            TrainProgress::Grown { trees, of } => (trees, of, "trees"),
            TrainProgress::Judged { stays, of } => (stays, of, "stays judged"),
            _ => return,
        };
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(what);
    };
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut trained = train(&cases, &settings, &command(args), &date, Some(&resume), tell)?;
    bar.finish_and_clear();
    trained.draft.manifest.version = args.model_version;
    trained.draft.card = card(&trained.held_out, &command(args));
    trained.draft.write(&args.out)?;
    Trained::forget(&settings, &resume)?;
    // What was written is what will be loaded: say its name only after it was.
    let model = SepsisModel::load(&args.out)?;
    let seconds = begin.elapsed().as_secs_f64();
    if args.json {
        let summary = serde_json::json!({
            "task": "sepsis", "model": model.reference(), "held_out": trained.held_out, "seconds": seconds,
        });
        println!("{summary}");
    } else {
        print!("{}", sepsis_table(&trained.held_out));
        println!("model {} {}", model.reference().id, model.reference().sha256);
        println!("written to {} in {seconds:.0} s", args.out.display());
    }
    Ok(())
}

fn command(args: &Args) -> String {
    let mut command = "haar train sepsis --data DIR --out DIR".to_owned();
    for group in &args.group {
        command.push_str(&format!(" --group {group}"));
    }
    command
        .push_str(&format!(" --seed {} --trees {} --folds {}", args.seed, args.trees, args.folds));
    command
}

/// What people should know, from the text beside and the figures of this training.
fn card(held_out: &Evaluation, command: &str) -> String {
    format!(
        "{}\n## Figures on stays held out\n\nBy hour, each stay judged by the one member that was trained without it; 95 % intervals over patients.\n\n```\n{}```\n\nTrained again by `{command}`.\n",
        include_str!("sepsis_card.md"),
        sepsis_table(held_out),
    )
}
