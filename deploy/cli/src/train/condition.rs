//! `haar train condition`: the sorter of flagged windows.

use crate::failure::Failure;
use haar_inference::condition::{ConditionModel, ConditionSettings, train};
use haar_inference::package::Package;
use std::path::PathBuf;

/// Trains on cases drawn from published ranges (there is no recording with such labels), and writes
/// manifest.toml, weights.safetensors and CARD.md. Broken off, it goes on when the same command is given again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder for the model; made if it is not there.
    #[arg(long)]
    out: PathBuf,
    /// What all random numbers grow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Passes over the cases.
    #[arg(long, default_value_t = 8)]
    epochs: u32,
    /// Cases for each member.
    #[arg(long, default_value_t = 60_000)]
    cases: usize,
    /// The model's version, for the manifest.
    #[arg(long, default_value_t = 1)]
    model_version: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the training.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::new(format!("cannot make {}: {error}", args.out.display())))?;
    let settings = ConditionSettings {
        seed: args.seed,
        epochs: args.epochs,
        cases: args.cases,
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        command: format!(
            "haar train condition --out DIR --seed {} --epochs {} --cases {}",
            args.seed, args.epochs, args.cases
        ),
        version: args.model_version,
    };
    let bar = super::bar();
    let resume = args.out.join("resume.safetensors");
    let (draft, confusion) =
        train(&settings, Some(&resume), &mut |progress| super::show(&bar, progress))?;
    bar.finish_and_clear();
    draft.write(&args.out)?;
    let package = Package::load(&args.out)?;
    let model = ConditionModel::from_package(&package)?;
    if args.json {
        let metrics = &package.manifest().metrics;
        println!(
            "{}",
            serde_json::json!({ "task": "condition", "model": model.reference(), "metrics": metrics })
        );
    } else {
        println!("{confusion}\n{} {}", model.reference().id, model.reference().sha256);
    }
    Ok(())
}
