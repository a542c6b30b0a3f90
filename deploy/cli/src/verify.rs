//! `haar verify`: checks a proof file, with no network and no state.

use crate::failure::Failure;
use haar_ledger::{LeafKind, MAX_PROOF_BYTES, Trust, Verified, VerifierKey};
use haar_schema::{Feature, FlaggedEvent, WindowDigest, WindowKey};
use serde_json::json;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest file of verifier keys.
const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// Check a proof file: that its content is in a log at its index, under the log's signature. Needs no
/// network. Exit status 0 if it holds, 1 if not.
#[derive(clap::Args)]
pub struct Args {
    /// The proof file, as `haar prove` writes it.
    file: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Whose signature counts.
#[derive(clap::Args)]
pub struct KeyArgs {
    /// Accept the signature of this verifier key only, got from the log's operator another way than
    /// the file to be checked.
    #[arg(long, value_name = "VKEY", conflicts_with = "key_file")]
    key: Option<String>,
    /// Accept the signatures of the verifier keys in this file, one a line.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The keys given; `None` if there are none.
    pub fn pinned(&self) -> Result<Option<Vec<VerifierKey>>, Failure> {
        let text = match (&self.key, &self.key_file) {
            (Some(key), _) => key.clone(),
            (None, Some(path)) => read_limited(path, MAX_KEY_FILE_BYTES)?,
            (None, None) => return Ok(None),
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Result<Vec<VerifierKey>, _> = lines.map(str::parse).collect();
        match keys {
            Ok(keys) if keys.is_empty() => Err(Failure::usage("the key file holds no key")),
            Ok(keys) => Ok(Some(keys)),
            Err(error) => Err(Failure::usage(error)),
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let keys = args.keys.pinned()?;
    let trust = keys.as_deref().map_or(Trust::Unpinned, Trust::Pinned);
    let text = read_limited(&args.file, MAX_PROOF_BYTES as u64)?;
    match haar_ledger::verify(&text, trust) {
        Ok(verified) if args.json => println!("{}", object(&verified)),
        Ok(verified) => print!("{}", in_words(&verified)),
        Err(error) => {
            if args.json {
                println!("{}", json!({ "verified": false, "reason": error.to_string() }));
            }
            let file = args.file.display();
            return Err(Failure::new(format!("FAIL  {file} proves nothing: {error}")));
        }
    }
    Ok(())
}

fn read_limited(path: &Path, bytes_max: u64) -> Result<String, Failure> {
    let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut text = String::new();
    File::open(path)
        .map_err(named)?
        .take(bytes_max + 1)
        .read_to_string(&mut text)
        .map_err(named)?;
    if text.len() as u64 > bytes_max {
        let path = path.display();
        return Err(Failure::new(format!("{path} has more than {bytes_max} bytes; wrong file?")));
    }
    Ok(text)
}

fn object(verified: &Verified) -> serde_json::Value {
    let Verified { index, record, checkpoint, key_pinned, .. } = verified;
    json!({
        "verified": true,
        "key_pinned": key_pinned,
        "origin": checkpoint.origin(),
        "signer": checkpoint.signer().as_str(),
        "size": checkpoint.size(),
        "root": hex::encode(checkpoint.root()),
        "index": index,
        "kind": record.kind.as_str(),
        "name": hex::encode(record.name),
        "content": serde_json::from_slice::<serde_json::Value>(&record.body).ok(),
        "content_bytes": record.body.len(),
    })
}

fn in_words(verified: &Verified) -> String {
    let checkpoint = &verified.checkpoint;
    let pinned = if verified.key_pinned {
        "the key you gave"
    } else {
        "NOT PINNED: this key was named by the file itself. That rules out damage, not a forger; \
         get the log's key from its operator and pass it with --key"
    };
    let mut text = format!(
        "PASS  {kind}: leaf {index} of a log of {size} leaves, exactly as it was signed\n\
         \x20 log        {origin}\n\
         \x20 signed by  {signer}\n\
         \x20            {pinned}\n\
         \x20 root       {root}\n",
        kind = verified.record.kind,
        index = verified.index,
        size = checkpoint.size(),
        origin = checkpoint.origin(),
        signer = checkpoint.signer(),
        root = hex::encode(checkpoint.root()),
    );
    text += &content(verified.record.kind, &verified.record.body);
    text
}

/// What was committed to, in short.
fn content(kind: LeafKind, body: &[u8]) -> String {
    let text = match kind {
        LeafKind::FlaggedEvent => FlaggedEvent::from_json(body).ok().map(|event| flagged(&event)),
        LeafKind::WindowDigest | LeafKind::Correction => {
            WindowDigest::from_json(body).ok().map(|digest| windowed(&digest))
        }
        // Both are for people to read as they are.
        LeafKind::AlarmTransition | LeafKind::ModelStatement => {
            std::str::from_utf8(body).ok().map(|text| format!("{}\n", text.trim_end()))
        }
        _ => None,
    };
    let bytes = body.len();
    text.unwrap_or_else(|| format!("  content    {bytes} bytes that this build cannot read\n"))
}

fn flagged(event: &FlaggedEvent) -> String {
    let FlaggedEvent { flag, priority, text, rule, .. } = event;
    let mut lines = format!("  flag       {flag} ({}): {text}\n", priority.as_str());
    lines += &window(&event.key, event.revision);
    lines += &line("rule", rule);
    for evidence in &event.evidence {
        lines += &line("evidence", &feature(&evidence.feature, evidence.value));
    }
    if let Some(model) = &event.model {
        lines += &line("model", &format!("{} {}", model.id, model.sha256));
    }
    if let Some(condition) = &event.condition {
        let percent = f64::from(condition.per_mille) / 10.0;
        lines += &line("group", &format!("{} ({percent:.1} %)", condition.group));
    }
    if let Some(strip) = &event.strip {
        let (samples, hz) = (strip.samples.len(), strip.rate_millihertz.hz());
        lines += &line("strip", &format!("{samples} samples at {hz} Hz from {}", strip.start_us));
    }
    lines
}

fn windowed(digest: &WindowDigest) -> String {
    let mut lines = window(&digest.key, digest.revision);
    let inputs = &digest.inputs;
    lines += &line("inputs", &format!("{} observations, {}", inputs.observations, inputs.sha256));
    if !digest.flags.is_empty() {
        lines += &line("flags", &digest.flags.join(", "));
    }
    for (name, value) in &digest.features {
        lines += &line("feature", &feature(name, *value));
    }
    lines
}

fn window(key: &WindowKey, revision: u32) -> String {
    let mut lines = line("window", &format!("{} to {}", key.start_us, key.end_us));
    lines += &line("pipeline", &format!("{} at {}", key.pipeline, key.edge));
    lines += &line("subject", &key.subject.to_hex());
    lines += &line("revision", &revision.to_string());
    lines
}

fn feature(name: &str, value: Feature) -> String {
    match value {
        Feature::Value(value) => format!("{name} = {value}"),
        Feature::Missing { missing } => {
            let why = serde_json::to_value(missing).unwrap_or_default();
            format!("{name} is missing ({})", why.as_str().unwrap_or("no reason given"))
        }
    }
}

fn line(label: &str, text: &str) -> String {
    let mut line = String::new();
    // Writing to a string has no failure.
    let _ = writeln!(line, "  {label:<10} {text}");
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_schema::{Evidence, Missing, Priority, Subject, Timestamp};

    #[test]
    fn a_flag_in_words() {
        let key = WindowKey {
            edge: "edge-1".parse().unwrap(),
            subject: Subject::from_bytes([1; 16]),
            pipeline: "ward-vitals".into(),
            start_us: Timestamp::from_millis(0),
            end_us: Timestamp::from_millis(60_000),
        };
        let evidence = |feature: &str, value| Evidence { feature: feature.into(), value };
        let event = FlaggedEvent {
            window: key.id(),
            revision: 0,
            key,
            flag: "news2-high".into(),
            priority: Priority::High,
            text: "NEWS2 of 7 or more".into(),
            rule: "news2.lower >= 7".into(),
            evidence: vec![
                evidence("news2.lower", Feature::value(8.0)),
                evidence("spo2.mean", Feature::missing(Missing::NoData)),
            ],
            model: None,
            condition: None,
            scores: Vec::new(),
            strip: None,
        };
        // Snapshots lose their common indentation; the first line keeps it.
        let shown = |kind, body: &[u8]| format!("PASS\n{}", content(kind, body));
        expect_test::expect![[r#"
            PASS
              flag       news2-high (high): NEWS2 of 7 or more
              window     1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z
              pipeline   ward-vitals at edge-1
              subject    01010101010101010101010101010101
              revision   0
              rule       news2.lower >= 7
              evidence   news2.lower = 8
              evidence   spo2.mean is missing (no-data)
        "#]]
        .assert_eq(&shown(LeafKind::FlaggedEvent, &event.to_json()));
        expect_test::expect![[r#"
            PASS
              content    2 bytes that this build cannot read
        "#]]
        .assert_eq(&shown(LeafKind::WindowDigest, b"{}"));
    }
}
