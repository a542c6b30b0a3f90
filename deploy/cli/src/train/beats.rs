//! `haar train beats`: the classifier of heart beats.

use crate::failure::Failure;
use haar_inference::BeatModel;
use haar_inference::beats::{BeatProgress, BeatSettings, train};
use haar_inference::trees::Growth;
use indicatif::ProgressBar;
use std::path::{Path, PathBuf};

/// Reads WFDB recordings with `.atr` annotations, trains a committee by folds of patients, measures each member on the
/// patients that it has not seen, and writes manifest.toml, weights.safetensors and CARD.md. Broken off, it goes on when
/// the same command is given again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of WFDB recordings.
    #[arg(long)]
    data: PathBuf,
    /// Folder of short recordings with their rhythm (CinC 2017): in what is fibrillation no beat is supraventricular.
    #[arg(long)]
    rhythms: Option<PathBuf>,
    /// Folder for the model; made if it is not there.
    #[arg(long)]
    out: PathBuf,
    /// What all random numbers grow from.
    #[arg(long, default_value_t = BeatSettings::default().seed)]
    seed: u64,
    /// Trees in a forest; each member has three.
    #[arg(long, default_value_t = BeatSettings::default().growth.trees)]
    trees: usize,
    /// The most leaves of a tree.
    #[arg(long, default_value_t = BeatSettings::default().growth.leaves)]
    leaves: usize,
    /// How much of a tree's best values is taken.
    #[arg(long, default_value_t = BeatSettings::default().growth.learning_rate)]
    learning_rate: f64,
    /// Folds of patients, and members of the committee.
    #[arg(long, default_value_t = BeatSettings::default().folds)]
    folds: usize,
    /// Recordings of one patient, with commas between; once for each such patient.
    #[arg(long, value_name = "RECORD,RECORD")]
    same_patient: Vec<String>,
    /// The model's version, for the manifest.
    #[arg(long, default_value_t = BeatSettings::default().version)]
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
    /// Name of the recordings of known rhythm [default: the folder's name].
    #[arg(long)]
    rhythms_name: Option<String>,
    /// How their authors want to be cited.
    #[arg(long, default_value = "not given")]
    rhythms_citation: String,
    /// Their licence.
    #[arg(long, default_value = "not given")]
    rhythms_licence: String,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::new(format!("cannot make {}: {error}", args.out.display())))?;
    let bar = super::bar();
    let resume = args.out.join("resume.safetensors");
    let (draft, confusion) = train(
        &args.data,
        args.rhythms.as_deref(),
        &settings(args),
        Some(&resume),
        &mut |progress| show(&bar, progress),
    )?;
    bar.finish_and_clear();
    draft.write(&args.out)?;
    // What was written is what will be loaded: say its name only after it was.
    let model = BeatModel::load(&args.out)?;
    if args.json {
        let metrics = &model.manifest().metrics;
        println!(
            "{}",
            serde_json::json!({ "task": "beats", "model": model.reference(), "metrics": metrics })
        );
    } else {
        println!("{confusion}\n{} {}", model.reference().id, model.reference().sha256);
    }
    Ok(())
}

fn show(bar: &ProgressBar, progress: BeatProgress) {
    let (done, of, what) = match progress {
        BeatProgress::Read { records, of } => (records, of, "recordings read"),
        BeatProgress::Grown { trees, of } => (trees, of, "trees grown"),
        _ => return,
    };
    if bar.length() != Some(of as u64) {
        bar.set_length(of as u64);
        bar.reset_eta();
    }
    bar.set_position(done as u64);
    bar.set_message(what);
}

fn settings(args: &Args) -> BeatSettings {
    let named =
        |folder: &Path| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = format!(
        "haar train beats --data DIR --out DIR --seed {} --trees {} --leaves {} --learning-rate {} --folds {}",
        args.seed, args.trees, args.leaves, args.learning_rate, args.folds
    );
    if args.rhythms.is_some() {
        command.push_str(" --rhythms DIR");
    }
    for group in &args.same_patient {
        command.push_str(&format!(" --same-patient {group}"));
    }
    let names = |group: &String| group.split(',').map(|name| name.trim().to_owned()).collect();
    BeatSettings {
        seed: args.seed,
        growth: Growth {
            trees: args.trees,
            leaves: args.leaves,
            learning_rate: args.learning_rate,
            ..BeatSettings::default().growth
        },
        folds: args.folds,
        same_patient: args.same_patient.iter().map(names).collect(),
        version: args.model_version,
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        command,
        data: [
            args.data_name.clone().unwrap_or_else(|| named(&args.data)),
            args.citation.clone(),
            args.licence.clone(),
        ],
        fibrillation_data: [
            args.rhythms_name
                .clone()
                .unwrap_or_else(|| args.rhythms.as_deref().map(named).unwrap_or_default()),
            args.rhythms_citation.clone(),
            args.rhythms_licence.clone(),
        ],
        ..BeatSettings::default()
    }
}
