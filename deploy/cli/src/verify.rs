//! `haar verify`: checks a proof file, with no network and no state.

use crate::failure::Failure;
use haar_inference::package::Package;
use haar_ledger::{
    LeafKind, MAX_POLICY_BYTES, MAX_PROOF_BYTES, Policy, ProofFile, ProofKind, Record,
    SignedCheckpoint, Trust, Verified, VerifiedEntry, VerifiedLeaf, VerifierKey,
};
use haar_schema::{Attribution, Feature, FlaggedEvent, Scale, Score, WindowDigest, WindowKey};
use jiff::Timestamp;
use serde_json::json;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Inputs of a score that are named, of those that the event names.
const WHY_SHOWN: usize = 3;
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
    /// Accept only checkpoints that satisfy this policy (C2SP tlog-policy): of its logs, cosigned by its quorum.
    /// Needed for entries of the consortium log; --key then says who may have signed the entry.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The folder of a model package: the event must have been found by this very model.
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
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
    let policy = args.policy.as_deref().map(read_policy).transpose()?;
    let model = args.model.as_deref().map(model_hash).transpose()?;
    let text = read_limited(&args.file, MAX_PROOF_BYTES as u64)?;
    match check(&text, keys.as_deref(), policy.as_ref(), model.as_deref()) {
        Ok((object, _)) if args.json => println!("{object}"),
        Ok((_, words)) => print!("{words}"),
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

/// What the file proves, as an object and in words.
fn check(
    text: &str,
    keys: Option<&[VerifierKey]>,
    policy: Option<&Policy>,
    model: Option<&str>,
) -> Result<(serde_json::Value, String), Failure> {
    let pinned = keys.map_or(Trust::Unpinned, Trust::Pinned);
    let trust = policy.map_or(pinned, Trust::Policy);
    match ProofFile::parse(text)?.kind()? {
        ProofKind::Record => {
            let verified = haar_ledger::verify(text, trust)?;
            if let Some(keys) = keys
                && !keys.contains(verified.checkpoint.signer())
            {
                let signer = verified.checkpoint.signer();
                return Err(Failure::new(format!("signed by {signer}, not by a key given")));
            }
            same_model(model, Some(&verified.record))?;
            Ok((object(&verified), in_words(&verified)))
        }
        ProofKind::Leaf => {
            same_model(model, None)?;
            Ok(of_leaf(&haar_ledger::verify_leaf(text, trust)?))
        }
        ProofKind::Entry => {
            let needed = "it is of the consortium log, whose checkpoints count under a policy; pass --policy";
            let policy = policy.ok_or_else(|| Failure::new(needed))?;
            let verified = haar_ledger::verify_entry(text, policy, pinned)?;
            same_model(model, verified.record.as_ref())?;
            Ok(of_entry(&verified))
        }
    }
}

/// Reads a policy file.
pub fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let named = |error| Failure::usage(format!("{}: {error}", path.display()));
    read_limited(path, MAX_POLICY_BYTES as u64)?.parse().map_err(named)
}

/// The SHA-256 by which events name the model in this folder. Its weights are checked against its manifest.
fn model_hash(folder: &Path) -> Result<String, Failure> {
    Ok(Package::load(folder)?.reference().sha256.clone())
}

/// Refuses a record that was found by another model than the one with this hash.
fn same_model(wanted: Option<&str>, record: Option<&Record>) -> Result<(), Failure> {
    let Some(wanted) = wanted else { return Ok(()) };
    let record = record.ok_or_else(|| Failure::new("it opens no record, so it names no model"))?;
    let model = match record.kind {
        LeafKind::FlaggedEvent => {
            FlaggedEvent::from_json(&record.body).ok().and_then(|event| event.model)
        }
        LeafKind::WindowDigest | LeafKind::Correction => {
            WindowDigest::from_json(&record.body).ok().and_then(|digest| digest.model)
        }
        _ => None,
    };
    match model {
        Some(model) if model.sha256 == wanted => Ok(()),
        Some(model) => Err(Failure::new(format!(
            "it holds, but it was found by the model {} {}, not by {wanted}",
            model.id, model.sha256
        ))),
        None => Err(Failure::new("it holds, but it names no model")),
    }
}

/// A proof of a leaf that is not opened.
fn of_leaf(verified: &VerifiedLeaf) -> (serde_json::Value, String) {
    let VerifiedLeaf { index, leaf, checkpoint, key_pinned, witnesses } = verified;
    let kind = LeafKind::from_byte(leaf[1]).map_or("unknown", LeafKind::as_str);
    let object = json!({
        "verified": true,
        "key_pinned": key_pinned,
        "origin": checkpoint.origin(),
        "signer": checkpoint.signer().as_str(),
        "witnesses": witnesses_json(witnesses),
        "size": checkpoint.size(),
        "root": hex::encode(checkpoint.root()),
        "index": index,
        "kind": kind,
        "leaf": hex::encode(leaf),
    });
    let mut words = format!(
        "PASS  {kind}: leaf {index} of a log of {} leaves; what it commits to is not in the file\n",
        checkpoint.size()
    );
    words += &signed(checkpoint, *key_pinned, witnesses);
    (object, words)
}

/// A proof of an entry of the consortium log.
fn of_entry(verified: &VerifiedEntry) -> (serde_json::Value, String) {
    let VerifiedEntry { index, entry, signer, signer_pinned, checkpoint, record, .. } = verified;
    let object = json!({
        "verified": true,
        "origin": checkpoint.origin,
        "log": checkpoint.log.as_str(),
        "witnesses": witnesses_json(&checkpoint.witnesses),
        "size": checkpoint.size,
        "root": hex::encode(checkpoint.root),
        "index": index,
        "entry": String::from_utf8_lossy(entry.as_bytes()),
        "signer": signer.as_str(),
        "signer_pinned": signer_pinned,
        "kind": record.as_ref().map(|record| record.kind.as_str()),
        "name": record.as_ref().map(|record| hex::encode(record.name)),
        "content": record.as_ref().and_then(|record| {
            serde_json::from_slice::<serde_json::Value>(&record.body).ok()
        }),
    });
    let mut words = format!(
        "PASS  {} entry: number {index} of a consortium log of {} entries\n",
        entry.kind(),
        checkpoint.size
    );
    words += &line("log", &checkpoint.origin);
    words += &line("said by", signer.as_str());
    if !signer_pinned {
        words += &line("", "NOT PINNED: whether that key may say it, the log's state says");
    }
    words += &line("root", &hex::encode(checkpoint.root));
    words += &witnesses_in_words(&checkpoint.witnesses);
    if let Some(record) = record {
        words += &content(record.kind, &record.body);
    }
    (object, words)
}

fn witnesses_json(witnesses: &[(String, u64)]) -> Vec<serde_json::Value> {
    let one = |(name, time): &(String, u64)| json!({ "name": name, "time": at(*time) });
    witnesses.iter().map(one).collect()
}

fn witnesses_in_words(witnesses: &[(String, u64)]) -> String {
    let one = |(name, time): &(String, u64)| line("witness", &format!("{name} at {}", at(*time)));
    witnesses.iter().map(one).collect()
}

/// A time in POSIX seconds, as people read it.
pub fn at(time_s: u64) -> String {
    let time = i64::try_from(time_s).ok().and_then(|time| Timestamp::from_second(time).ok());
    time.map_or_else(|| format!("{time_s} s"), |time| time.to_string())
}

pub fn read_limited(path: &Path, bytes_max: u64) -> Result<String, Failure> {
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
    let Verified { index, record, checkpoint, key_pinned, witnesses, .. } = verified;
    json!({
        "verified": true,
        "key_pinned": key_pinned,
        "origin": checkpoint.origin(),
        "signer": checkpoint.signer().as_str(),
        "witnesses": witnesses_json(witnesses),
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
    let mut text = format!(
        "PASS  {}: leaf {} of a log of {} leaves, exactly as it was signed\n",
        verified.record.kind,
        verified.index,
        checkpoint.size()
    );
    text += &signed(checkpoint, verified.key_pinned, &verified.witnesses);
    text += &content(verified.record.kind, &verified.record.body);
    text
}

/// Who signed the checkpoint, and what that is worth.
fn signed(checkpoint: &SignedCheckpoint, pinned: bool, witnesses: &[(String, u64)]) -> String {
    let worth = match (pinned, witnesses.is_empty()) {
        (true, true) => "the key you gave",
        (true, false) => "a log of the policy you gave",
        (false, _) => {
            "NOT PINNED: this key was named by the file itself. That rules out damage, not a forger; \
             get the log's key from its operator and pass it with --key"
        }
    };
    let mut lines = line("log", checkpoint.origin());
    lines += &line("signed by", checkpoint.signer().as_str());
    lines += &line("", worth);
    lines += &line("root", &hex::encode(checkpoint.root()));
    lines + &witnesses_in_words(witnesses)
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
    for score in &event.scores {
        lines += &why(score);
    }
    if let Some(strip) = &event.strip {
        let (samples, hz) = (strip.samples.len(), strip.rate_millihertz.hz());
        lines += &line("strip", &format!("{samples} samples at {hz} Hz from {}", strip.start_us));
    }
    lines
}

/// What a model said, and the inputs that count most.
fn why(score: &Score) -> String {
    let percent = score.value * 100.0;
    let mut lines = line("score", &format!("{} {percent:.1} % by {}", score.name, score.model.id));
    let Attribution { scale, neutral, output, contributions, .. } = &score.attribution;
    let unit = match scale {
        Scale::Probability => "probability",
        _ => "log-odds",
    };
    let named = contributions.iter().take(WHY_SHOWN);
    let named: Vec<String> =
        named.map(|own| format!("{:+.2} by {}", own.share, own.input)).collect();
    lines += &line("why", &format!("{unit} {neutral:.2} to {output:.2}: {}", named.join(", ")));
    if !score.attribution.is_complete() {
        lines += &line("why", "the shares do not add up to the score");
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
    use haar_schema::{Evidence, Missing, ModelRef, Priority, Subject, Timestamp};

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
            scores: vec![Score {
                name: "condition-respiratory".into(),
                value: 0.81,
                uncertainty: None,
                horizon_h: None,
                model: ModelRef { id: "condition-group".into(), sha256: "cd".repeat(32) },
                features_sha256: "ef".repeat(32),
                attribution: Attribution::new(
                    Scale::Probability,
                    0.2,
                    0.81,
                    [("spo2.mean".into(), 0.5), ("heart_rate.mean".into(), 0.11)],
                ),
                over_time: None,
            }],
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
              score      condition-respiratory 81.0 % by condition-group
              why        probability 0.20 to 0.81: +0.50 by spo2.mean, +0.11 by heart_rate.mean
        "#]]
        .assert_eq(&shown(LeafKind::FlaggedEvent, &event.to_json()));
        expect_test::expect![[r#"
            PASS
              content    2 bytes that this build cannot read
        "#]]
        .assert_eq(&shown(LeafKind::WindowDigest, b"{}"));
    }
}
