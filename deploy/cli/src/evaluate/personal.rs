//! `haar evaluate personal`: whether intervals hold what they promise, and what they are worth.

mod page;

use crate::failure::Failure;
use crate::sepsis_data::read_cases;
use haar_inference::personal::{Normals, PersonalFigures, Series, evaluate, series};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Each patient is judged by the member that was fitted without them, or, if unknown to the model, by the mean of all members.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of `.psv` files of the CinC 2019 challenge, or of `.tar.zst` archives of them.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only stays in folders of this name; once for each.
    #[arg(long, value_name = "FOLDER")]
    group: Vec<String>,
    /// Folder of another model than the built-in one.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Write a page with the figures, coverage promised and measured, and the patients whose intervals held least.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the task.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let normals = match &args.model {
        Some(folder) => Normals::load(folder)?,
        None => Normals::builtin()?,
    };
    let patients: Vec<Series> = read_cases(&args.data, &args.group)?
        .iter()
        .map(|case| series(case.id, &case.group, &case.stay))
        .collect();
    let figures = evaluate(&normals, &patients);
    if let Some(path) = &args.report {
        super::report::write(path, &page::page(&figures, &normals, &patients))?;
    }
    if args.json {
        let model = &normals.reference().sha256;
        let summary = json!({
            "task": "personal", "model": model, "patients": patients.len(), "groups": figures,
        });
        println!("{summary}");
    } else {
        print!("{}", table(&figures));
    }
    Ok(())
}

/// The figures by group and signal.
pub(crate) fn table(figures: &Groups) -> String {
    let mut text = String::new();
    for (group, signals) in figures {
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "{group}\n{:<18} {:>8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8}",
            "signal",
            "readings",
            "90 %",
            "95 %",
            "first",
            "width",
            "MAE",
            "MAE last",
            "pinball",
            "last",
            "everybody"
        );
        for (signal, own) in signals {
            let [ninety, most] = [0, 1].map(|at| own.coverages.get(at).cloned());
            let percent = |share: Option<f64>| 100.0 * share.unwrap_or(f64::NAN);
            let _ = writeln!(
                text,
                "{signal:<18} {:>8} {:>7.1} {:>7.1} {:>7.1} {:>7.2} {:>7.3} {:>8.3} {:>8.4} {:>8.4} {:>8.4}",
                own.readings,
                percent(ninety.as_ref().map(|coverage| coverage.measured)),
                percent(most.as_ref().map(|coverage| coverage.measured)),
                percent(most.as_ref().map(|coverage| coverage.measured_first)),
                most.as_ref().map_or(f64::NAN, |coverage| coverage.width),
                own.mae,
                own.mae_last_value,
                own.pinball,
                own.pinball_last_value,
                own.pinball_everybody,
            );
        }
    }
    text
}

/// The figures of all groups.
type Groups = BTreeMap<String, BTreeMap<&'static str, PersonalFigures>>;

#[cfg(test)]
mod tests {
    use super::*;
    use haar_recordings::corpus::CaseId;

    /// The built-in model on patients whom each of its members had not seen: intervals hold what they promise within a
    /// percent, and are sharper than those around the last value.
    #[test]
    fn recorded_intervals_hold_what_they_promise() {
        let data = std::env::var("HAAR_DATA").expect("set HAAR_DATA to the recordings, see README");
        let data = PathBuf::from(data).join("cinc2019");
        let patients: Vec<Series> = read_cases(&data, &[])
            .unwrap()
            .iter()
            .take(2_000)
            .map(|case| series(case.id, "all", &case.stay))
            .collect();
        let normals = Normals::builtin().unwrap();
        let unknown = Series { id: CaseId(1), ..patients[0].clone() };
        assert!(evaluate(&normals, &[unknown]).contains_key("all"));
        for (signal, own) in &evaluate(&normals, &patients)["all"] {
            for coverage in &own.coverages {
                let off = (coverage.measured - coverage.promised).abs();
                assert!(off < 0.02, "{signal} {coverage:?}");
            }
            assert!(own.mae < own.mae_last_value, "{signal} {own:?}");
            assert!(own.pinball < own.pinball_last_value, "{signal} {own:?}");
        }
    }
}
