//! `haar train personal`: what is usual for a patient.

use crate::evaluate::personal_table;
use crate::failure::Failure;
use crate::sepsis_data::read_cases;
use haar_inference::personal::{Normals, PersonalFigures, Series, evaluate, fit, series};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Reads stays of the PhysioNet/CinC Challenge 2019, fits a committee by folds of patients, judges each patient by the member
/// that has not seen them, and writes manifest.toml, weights.safetensors and CARD.md. It takes seconds: there is nothing to resume.
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
    /// What patients are dealt into folds by.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folds of patients, and members of the committee.
    #[arg(long, default_value_t = 5)]
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
    let patients: Vec<Series> = read_cases(&args.data, &args.group)?
        .iter()
        .map(|case| series(case.id, &case.group, &case.stay))
        .collect();
    let command = command(args);
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut draft = fit(&patients, args.folds, args.seed, &command, &date)?;
    draft.manifest.version = args.model_version;
    // Judged as it will be loaded.
    let (text, weights) = draft.encode()?;
    let normals = Normals::new(haar_inference::package::Package::from_parts(&text, &weights)?)?;
    let figures = evaluate(&normals, &patients);
    let table = personal_table(&figures);
    draft.manifest.metrics.evaluation = evaluation(&figures);
    draft.card = card(&table, &command);
    draft.write(&args.out)?;
    let model = Normals::load(&args.out)?;
    if args.json {
        let summary = serde_json::json!({
            "task": "personal", "model": model.reference(), "held_out": figures,
        });
        println!("{summary}");
    } else {
        print!("{table}");
        println!("model {} {}", model.reference().id, model.reference().sha256);
    }
    Ok(())
}

fn command(args: &Args) -> String {
    let groups: String = args.group.iter().map(|group| format!(" --group {group}")).collect();
    format!(
        "haar train personal --data DIR --out DIR{groups} --seed {} --folds {}",
        args.seed, args.folds
    )
}

/// One line for the manifest.
fn evaluation(figures: &BTreeMap<String, BTreeMap<&'static str, PersonalFigures>>) -> String {
    let rates = figures.iter().filter_map(|(group, own)| Some((group, own.get("heart_rate")?)));
    let line = |(group, own): (&String, &PersonalFigures)| {
        let within = own.coverages.last().map_or(f64::NAN, |coverage| 100.0 * coverage.measured);
        format!(
            "{group}: 95 % intervals of heart rate held {within:.1} % of {} readings",
            own.readings
        )
    };
    let lines: Vec<String> = rates.map(line).collect();
    format!("patients held out by folds; {}", lines.join("; "))
}

/// What people should know, from the text beside and the figures of this fit.
fn card(table: &str, command: &str) -> String {
    format!(
        "{}\n## Figures on patients held out\n\nEach patient judged by the one member that was fitted without them. `first` are readings judged by everybody's values; pinball loss is the mean at the four ends of both intervals, beside that of the last value with everybody's steps and of everybody's values.\n\n```\n{table}```\n\nFitted again by `{command}`.\n",
        include_str!("personal_card.md"),
    )
}
