//! `haar validate`: reads pipeline definitions and points at every mistake.
//!
//! A file without a mistake is summed up on standard output. Mistakes go to standard error, each under the
//! line it is in, with a suggestion where there is one; then the exit status is 2. With `--json` both
//! are in one object on standard output. Files are read up to the size that a definition may have;
//! nothing is written and nothing is sent.

use crate::failure::Failure;
use haar_catalog::{Diagnostics, FeatureDoc, MAX_DEFINITION_BYTES, Pipeline};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

/// Check pipeline definitions.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pipeline definitions (TOML), such as pipelines/catalog/definitions/ward-vitals.toml.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// What there is to say about one file.
enum Verdict {
    Sound(Pipeline),
    Mistaken(Diagnostics),
    Unreadable(io::Error),
}

/// Checks all files, then fails if one of them is not a sound definition.
pub fn run(args: Args) -> Result<(), Failure> {
    let verdicts: Vec<(String, Verdict)> =
        args.files.iter().map(|path| (path.display().to_string(), check(path))).collect();
    if args.json {
        let files: Vec<Value> =
            verdicts.iter().map(|(name, verdict)| as_json(name, verdict)).collect();
        let valid = verdicts.iter().all(|(_, verdict)| matches!(verdict, Verdict::Sound(_)));
        println!("{}", json!({ "valid": valid, "files": files }));
    } else {
        let colour = io::stderr().is_terminal();
        for (name, verdict) in &verdicts {
            match verdict {
                Verdict::Sound(pipeline) => print!("{}", summary(name, pipeline)),
                Verdict::Mistaken(diagnostics) => eprint!("{}", diagnostics.render(colour)),
                Verdict::Unreadable(error) => eprintln!("error: cannot read {name}: {error}"),
            }
        }
    }
    let wrong: Vec<String> =
        verdicts.iter().filter_map(|(name, verdict)| count(name, verdict)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Failure::usage(wrong.join("; "))) }
}

fn check(path: &Path) -> Verdict {
    match read(path) {
        Ok(text) => match Pipeline::parse(&path.display().to_string(), &text) {
            Ok(pipeline) => Verdict::Sound(pipeline),
            Err(diagnostics) => Verdict::Mistaken(diagnostics),
        },
        Err(error) => Verdict::Unreadable(error),
    }
}

/// The text, and one byte more than a definition may have, so that the limit is told as a mistake.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_DEFINITION_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    // The cut may go through a character; a file that long is refused for its length.
    if bytes.len() > MAX_DEFINITION_BYTES {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("byte {valid} is not UTF-8; save it as UTF-8"),
        )
    })
}

fn count(name: &str, verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Sound(_) => None,
        Verdict::Mistaken(diagnostics) => Some(match diagnostics.count() {
            1 => format!("{name}: 1 mistake"),
            count => format!("{name}: {count} mistakes"),
        }),
        Verdict::Unreadable(_) => Some(format!("{name}: cannot be read")),
    }
}

fn summary(name: &str, pipeline: &Pipeline) -> String {
    let reference = pipeline.reference();
    let signals: Vec<String> = pipeline
        .signals()
        .iter()
        .map(|signal| match pipeline.expected(signal) {
            Some(rate) => format!("{} ({} Hz)", signal.name(), rate.hz()),
            None => signal.name().to_owned(),
        })
        .collect();
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(text, "{name}: no mistakes");
    let _ = writeln!(
        text,
        "  pipeline  {} version {}, family {}: {}",
        reference.id,
        reference.version,
        pipeline.family(),
        pipeline.title()
    );
    let _ = writeln!(text, "  sha256    {}", reference.sha256);
    let _ = writeln!(text, "  windows   {}", pipeline.window());
    let _ = writeln!(text, "  signals   {}", signals.join(", "));
    let _ = writeln!(text, "  model     {}", pipeline.model().unwrap_or("none"));
    for flag in pipeline.flags() {
        let _ = writeln!(
            text,
            "  flag      {}, {}: {}",
            flag.name,
            flag.priority.as_str(),
            flag.rule.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    for (group, names) in grouped(&pipeline.features()) {
        let _ = writeln!(text, "  features  {group}. {names}");
    }
    text
}

/// Feature names by what stands before their dot, in order.
fn grouped(features: &[FeatureDoc]) -> Vec<(String, String)> {
    let mut groups: Vec<(String, String)> = Vec::new();
    for feature in features {
        let (group, name) = feature.name.split_once('.').unwrap_or(("", &feature.name));
        match groups.last_mut() {
            Some((last, names)) if last == group => {
                names.push(' ');
                names.push_str(name);
            }
            _ => groups.push((group.to_owned(), name.to_owned())),
        }
    }
    groups
}

fn as_json(name: &str, verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Sound(pipeline) => json!({
            "file": name,
            "valid": true,
            "mistakes": [],
            "pipeline": pipeline_as_json(pipeline),
        }),
        Verdict::Mistaken(diagnostics) => {
            let mistakes: Vec<Value> = diagnostics
                .iter()
                .map(|diagnostic| {
                    json!({
                        "line": diagnostic.line,
                        "column": diagnostic.column,
                        "message": diagnostic.message,
                        "suggestion": diagnostic.suggestion,
                    })
                })
                .collect();
            json!({ "file": name, "valid": false, "mistakes": mistakes, "count": diagnostics.count() })
        }
        Verdict::Unreadable(error) => {
            json!({ "file": name, "valid": false, "mistakes": [], "error": error.to_string() })
        }
    }
}

fn pipeline_as_json(pipeline: &Pipeline) -> Value {
    let window = pipeline.window();
    let signals: Vec<Value> = pipeline
        .signals()
        .iter()
        .map(|signal| {
            let rate_hz = pipeline.expected(signal).map(|rate| rate.hz());
            json!({ "name": signal.name(), "rate_hz": rate_hz })
        })
        .collect();
    let flags: Vec<Value> = pipeline
        .flags()
        .map(|flag| {
            let priority = flag.priority.as_str();
            json!({ "name": flag.name, "priority": priority, "text": flag.text, "when": flag.rule })
        })
        .collect();
    let features: Vec<Value> = pipeline
        .features()
        .iter()
        .map(|feature| {
            json!({ "name": feature.name, "unit": feature.unit, "meaning": feature.meaning })
        })
        .collect();
    json!({
        "reference": pipeline.reference(),
        "title": pipeline.title(),
        "family": pipeline.family().as_str(),
        "window": {
            "size_us": window.size_us,
            "slide_us": window.slide_us,
            "lateness_us": window.lateness_us,
        },
        "model": pipeline.model(),
        "signals": signals,
        "flags": flags,
        "features": features,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn validate(path: &Path) -> Result<(), Failure> {
        run(Args { files: vec![path.to_owned()], json: true })
    }

    #[test]
    fn the_built_in_definitions_are_sound() {
        let definitions =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/catalog/definitions");
        for name in ["ward-vitals.toml", "ecg-rhythm.toml"] {
            let path = definitions.join(name);
            validate(&path).unwrap();
            let Verdict::Sound(pipeline) = check(&path) else { panic!("{name} has mistakes") };
            let summary = summary(name, &pipeline);
            assert!(summary.contains("no mistakes"));
            for flag in pipeline.flags() {
                assert!(summary.contains(flag.name), "{}", flag.name);
            }
        }
    }

    #[test]
    fn mistakes_end_in_status_2() {
        let wrong = file("id = \"x\"\n");
        let failure = validate(wrong.path()).unwrap_err();
        assert_eq!(
            format!("{:?}", failure.status()),
            format!("{:?}", std::process::ExitCode::from(2))
        );
        assert!(failure.to_string().ends_with("mistakes"));
        let gone = validate(Path::new("/nonexistent/x.toml")).unwrap_err();
        assert!(gone.to_string().contains("cannot be read"));
    }

    #[test]
    fn json_has_places_and_suggestions() {
        let wrong = file("id = \"X\"\n");
        let verdict = check(wrong.path());
        let object = as_json("x.toml", &verdict);
        let mistake = object["mistakes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|mistake| mistake["column"] == 6)
            .unwrap();
        assert_eq!(mistake["line"], 1);
        assert_eq!(mistake["suggestion"], "write `x`");
        assert_eq!(object["valid"], false);
    }

    #[test]
    fn what_is_no_text_is_said_to_be_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0x69, 0xff, 0xfe]).unwrap();
        let Verdict::Unreadable(error) = check(file.path()) else { panic!("read as text") };
        assert!(error.to_string().contains("byte 1 is not UTF-8"));
        std::fs::write(file.path(), vec![0xff; MAX_DEFINITION_BYTES + 9]).unwrap();
        let Verdict::Mistaken(diagnostics) = check(file.path()) else { panic!("not refused") };
        assert!(diagnostics.to_string().contains("at most"));
    }
}
