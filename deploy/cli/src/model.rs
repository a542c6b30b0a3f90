//! `haar model`: which models there are, and who decided which of them are at work.

use crate::failure::Failure;
use clap::{Args as ClapArgs, Subcommand};
use haar_catalog::Pipeline;
use haar_inference::package::{Manifest, Package};
use haar_inference::registry::{Action, Decision, Deployment, History, Registry};
use haar_inference::{BUILTIN, Builtin};
use haar_ledger::Identity;
use haar_schema::ModelRef;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Look at models, and decide which are at work.
///
/// A model that is added runs nowhere. `shadow` lets it run beside the live one, whose flags alone count;
/// `promote` makes it live; `rollback` goes back to the one before. Each is a statement, signed with a key
/// that the fogs trust (`models.trusted_keys` of the fog; with `registered_keys`, those of the consortium log's role `model`), and becomes a leaf of their logs. A fog that runs follows it
/// within seconds, for windows that end from then on.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The models that are built in or in a registry, and which are at work.
    List(List),
    /// What a model is: inputs, outputs, data, metrics, card.
    Inspect(Inspect),
    /// Copy a trained model into a registry.
    Add(Add),
    /// Let a model run beside the live one.
    Shadow(Decide),
    /// Make the model in shadow the live one.
    Promote(Decide),
    /// Go back to the model that was live before.
    Rollback(Rollback),
    /// Take a model out of shadow.
    Withdraw(Decide),
    /// Make a key to sign decisions with, and print the half that fogs are to trust.
    Key(Key),
}

#[derive(Debug, ClapArgs)]
struct List {
    /// Folder of the registry; without it only what is built in.
    #[arg(long, value_name = "DIR")]
    registry: Option<PathBuf>,
    /// Verifier keys of those who may decide; without one decisions are not looked at.
    #[arg(long = "trust", value_name = "VKEY")]
    trusted: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
struct Inspect {
    /// The model's id if it is built in or in the registry, the beginning of its hash, or its folder.
    model: String,
    /// Folder of the registry.
    #[arg(long, value_name = "DIR")]
    registry: Option<PathBuf>,
    /// Print one JSON object: the manifest and the hash.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
struct Add {
    /// Folder of the model, as `haar train` writes it.
    folder: PathBuf,
    /// Folder of the registry; made if it is not there.
    #[arg(long, value_name = "DIR")]
    registry: PathBuf,
}

#[derive(Debug, ClapArgs)]
struct Decide {
    /// The model's id, or the beginning of its hash.
    model: String,
    #[command(flatten)]
    signing: Signing,
}

#[derive(Debug, ClapArgs)]
struct Rollback {
    /// The id of the model that is live.
    id: String,
    #[command(flatten)]
    signing: Signing,
}

#[derive(Debug, ClapArgs)]
struct Signing {
    /// Folder of the registry.
    #[arg(long, value_name = "DIR")]
    registry: PathBuf,
    /// File of the key that signs.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Verifier keys of others who may decide, if their statements are in the registry.
    #[arg(long = "trust", value_name = "VKEY")]
    trusted: Vec<String>,
    /// From which event time on it holds (RFC 3339) [default: now].
    #[arg(long, value_name = "TIME")]
    effective: Option<jiff::Timestamp>,
    /// Why, in one line.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, ClapArgs)]
struct Key {
    /// Whose key it is, such as hospital.example/safety-officer.
    #[arg(long)]
    name: String,
    /// File to write; it must not be there.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::List(args) => list(&args),
        Command::Inspect(args) => inspect(&args),
        Command::Add(args) => {
            let added = Registry::at(args.registry).add(&args.folder)?;
            println!("{} {}", added.id, added.sha256);
            Ok(())
        }
        Command::Shadow(args) => decide(Action::Shadow, &args),
        Command::Promote(args) => decide(Action::Promote, &args),
        Command::Withdraw(args) => decide(Action::Withdraw, &args),
        Command::Rollback(args) => rollback(&args),
        Command::Key(args) => {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(Failure::new)?;
            let identity = Identity::generate(&args.name, seed)?;
            identity.save_new(&args.out)?;
            println!("{}", identity.vkey());
            Ok(())
        }
    }
}

/// One line of the list.
struct Line {
    reference: ModelRef,
    manifest: Manifest,
    built_in: bool,
}

fn lines(registry: Option<&Path>) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for package in BUILTIN.iter().map(Builtin::package) {
        let package = package?;
        let (reference, manifest) = (package.reference().clone(), package.manifest().clone());
        lines.push(Line { reference, manifest, built_in: true });
    }
    if let Some(root) = registry {
        let added = Registry::at(root).models()?.into_iter();
        lines.extend(added.map(|listed| Line {
            reference: listed.reference,
            manifest: listed.manifest,
            built_in: false,
        }));
    }
    lines.sort_by(|a, b| {
        let key = |line: &Line| (line.reference.id.clone(), !line.built_in, line.manifest.version);
        key(a).cmp(&key(b))
    });
    Ok(lines)
}

/// Which windows the models of an id are asked about.
fn asked_about(id: &str) -> Result<String, Failure> {
    // Asked by the fog itself, not by a definition.
    match id {
        "condition-group" => return Ok("flagged windows".to_owned()),
        "personal-normal" | "sepsis" => return Ok("vital signs".to_owned()),
        _ => {}
    }
    let own = |pipeline: &Pipeline| pipeline.model() == Some(id);
    let mut names: Vec<String> = haar_catalog::builtin()
        .iter()
        .filter(|pipeline| own(pipeline))
        .map(|pipeline| pipeline.reference().id.clone())
        .collect();
    for (file, text) in haar_catalog::OPTIONAL {
        let pipeline = Pipeline::parse(file, text).map_err(Failure::new)?;
        if own(&pipeline) {
            names.push(format!("{} if named", pipeline.reference().id));
        }
    }
    Ok(if names.is_empty() { "nothing".to_owned() } else { names.join(", ") })
}

/// What a model is doing, in a word.
fn state(line: &Line, history: Option<&History>) -> &'static str {
    let now = history.map_or_else(Deployment::default, |history| history.now(&line.reference.id));
    let named = Some(&line.reference);
    match (&now.live, &now.shadow) {
        (None, _) if line.built_in => "live",
        (live, _) if live.as_ref() == named => "live",
        (_, shadow) if shadow.as_ref() == named => "shadow",
        _ => "idle",
    }
}

fn list(args: &List) -> Result<(), Failure> {
    let history = match &args.registry {
        Some(root) if !args.trusted.is_empty() => Some(Registry::at(root).history(&args.trusted)?),
        _ => None,
    };
    let lines = lines(args.registry.as_deref())?;
    if args.json {
        let models: Vec<_> = lines
            .iter()
            .map(|line| {
                Ok(json!({
                    "id": line.reference.id, "sha256": line.reference.sha256,
                    "version": line.manifest.version, "task": line.manifest.task,
                    "date": line.manifest.date, "built_in": line.built_in,
                    "state": state(line, history.as_ref()), "metrics": line.manifest.metrics.values,
                    "asked_about": asked_about(&line.reference.id)?,
                }))
            })
            .collect::<Result<_, Failure>>()?;
        println!("{}", json!({ "models": models, "decisions": decisions(history.as_ref()) }));
        return Ok(());
    }
    println!(
        "{:<16} {:>3}  {:<12}  {:<6}  {:<25}  {:<10}  title",
        "id", "v", "sha256", "state", "asked about", "trained"
    );
    for line in &lines {
        println!(
            "{:<16} {:>3}  {:<12}  {:<6}  {:<25}  {:<10}  {}",
            line.reference.id,
            line.manifest.version,
            &line.reference.sha256[..12],
            state(line, history.as_ref()),
            asked_about(&line.reference.id)?,
            line.manifest.date,
            line.manifest.title,
        );
    }
    for decision in history.iter().flat_map(|history| history.decisions()) {
        let statement = &decision.statement;
        let from = jiff::Timestamp::from_microsecond(statement.effective_us)?;
        println!(
            "{:>4}  {from:.0}  {:<8}  {} {}  by {}: {}",
            statement.number,
            statement.action,
            statement.model.id,
            &statement.model.sha256[..12],
            signers(decision).join(", "),
            statement.reason,
        );
    }
    Ok(())
}

fn decisions(history: Option<&History>) -> Vec<serde_json::Value> {
    let decisions = history.map_or(&[][..], |history| history.decisions());
    decisions
        .iter()
        .map(|decision| {
            let statement = &decision.statement;
            json!({
                "number": statement.number, "action": statement.action.as_str(),
                "id": statement.model.id, "sha256": statement.model.sha256,
                "effective_us": statement.effective_us, "by": signers(decision),
                "reason": statement.reason,
            })
        })
        .collect()
}

/// The names of those who signed it.
fn signers(decision: &Decision) -> Vec<&str> {
    decision.by.iter().filter_map(|key| key.split('+').next()).collect()
}

fn inspect(args: &Inspect) -> Result<(), Failure> {
    let folder = Path::new(&args.model);
    let (package, card) = if folder.join("manifest.toml").is_file() {
        (Package::load(folder)?, std::fs::read_to_string(folder.join("CARD.md")).ok())
    } else {
        let line = find(&args.model, args.registry.as_deref())?;
        match &args.registry {
            Some(root) if !line.built_in => {
                let registry = Registry::at(root);
                let card = registry.folder(&line.reference).join("CARD.md");
                (registry.package(&line.reference)?, std::fs::read_to_string(card).ok())
            }
            _ => built_in(&line.reference)?,
        }
    };
    let (manifest, reference) = (package.manifest(), package.reference());
    if args.json {
        println!(
            "{}",
            json!({ "reference": reference, "manifest": manifest, "trained_on": package.lineage().len() })
        );
        return Ok(());
    }
    println!("{} version {}: {}", reference.id, manifest.version, manifest.title);
    println!("sha256    {}", reference.sha256);
    println!("weights   {}", manifest.weights.sha256);
    println!("task      {}, {} members", manifest.task, manifest.members);
    println!("trained   {} on {} files", manifest.date, package.lineage().len());
    for input in &manifest.inputs {
        println!("input     {} [{}] {:?}", input.name, input.unit, input.shape);
    }
    for output in &manifest.outputs {
        println!("output    {} [{}]", output.name, output.unit);
    }
    for (name, value) in &manifest.metrics.values {
        println!("metric    {name} {value:.4}");
    }
    if let Some(card) = card {
        println!("\n{}", card.trim());
    }
    Ok(())
}

fn built_in(reference: &ModelRef) -> Result<(Package, Option<String>), Failure> {
    for builtin in BUILTIN {
        let package = builtin.package()?;
        if package.reference() == reference {
            return Ok((package, Some(builtin.card.to_owned())));
        }
    }
    Err(Failure::new(format!("{} is not built in", reference.id)))
}

/// The one model with this id or the beginning of this hash.
fn find(wanted: &str, registry: Option<&Path>) -> Result<Line, Failure> {
    let mut found = lines(registry)?;
    found.retain(|line| {
        line.reference.id == wanted
            || (wanted.len() >= 6 && line.reference.sha256.starts_with(wanted))
    });
    // Of an id, the one that was added last counts before the one that is built in only if it is alone.
    match found.len() {
        0 => Err(Failure::usage(format!(
            "no model has the id `{wanted}`, or a hash that begins so; `haar model list` shows them"
        ))),
        1 => Ok(found.remove(0)),
        _ => {
            let hashes: Vec<&str> = found.iter().map(|line| &line.reference.sha256[..12]).collect();
            Err(Failure::usage(format!(
                "`{wanted}` are several models; name one by the beginning of its hash: {}",
                hashes.join(", ")
            )))
        }
    }
}

fn decide(action: Action, args: &Decide) -> Result<(), Failure> {
    let line = find(&args.model, Some(&args.signing.registry))?;
    if line.built_in {
        return Err(Failure::usage(
            "this model is built in: it is live without a decision, and `rollback` goes back to it",
        ));
    }
    // Whatever is decided on must be there, and whole.
    Registry::at(&args.signing.registry).package(&line.reference)?;
    sign(action, line.reference, &args.signing)
}

fn rollback(args: &Rollback) -> Result<(), Failure> {
    let (_, history, _) = open(&args.signing)?;
    let Some(before) = history.before(&args.id) else {
        return Err(Failure::usage(format!(
            "no model {} was live before the present one",
            args.id
        )));
    };
    let model = match before {
        Some(model) => model,
        None => {
            let lines = lines(None)?;
            let line = lines.into_iter().find(|line| line.reference.id == args.id);
            line.map(|line| line.reference)
                .ok_or_else(|| Failure::new(format!("no model {} is built in", args.id)))?
        }
    };
    sign(Action::Rollback, model, &args.signing)
}

/// The registry, its history, and the key that is to sign.
fn open(args: &Signing) -> Result<(Registry, History, Identity), Failure> {
    let identity = Identity::load(&args.key)?;
    let mut keys = args.trusted.clone();
    keys.push(identity.vkey().to_string());
    let registry = Registry::at(&args.registry);
    let history = registry.history(&keys)?;
    Ok((registry, history, identity))
}

fn sign(action: Action, model: ModelRef, args: &Signing) -> Result<(), Failure> {
    let (registry, mut history, identity) = open(args)?;
    let effective = args.effective.unwrap_or_else(jiff::Timestamp::now);
    let next = history.next(action, model, effective.as_microsecond(), args.reason.clone())?;
    let note = identity.sign(&next.text())?;
    registry.append(&mut history, &note)?;
    println!(
        "{}: {} {} {} from {effective:.0}; fogs that run follow within seconds",
        next.number, next.action, next.model.id, next.model.sha256
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_what_a_model_does() {
        let folder = tempfile::tempdir().unwrap();
        let lines = lines(Some(folder.path())).unwrap();
        assert_eq!(lines.len(), BUILTIN.len());
        for line in &lines {
            assert_eq!(state(line, None), "live");
        }
        let asked = |id| asked_about(id).unwrap();
        assert_eq!(asked("ecg-beats"), "ecg-rhythm");
        assert_eq!(asked("device-faults"), "device-faults if named");
        assert_eq!(asked("sepsis"), "vital signs");
        assert_eq!(asked("another"), "nothing");
        let error = find("no-such-model", None).err().unwrap();
        assert!(error.to_string().contains("haar model list"), "{error}");
    }

    #[test]
    fn a_key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("officer.key");
        let key = || Args {
            command: Command::Key(Key {
                name: "hospital.example/officer".into(),
                out: out.clone(),
            }),
        };
        run(key()).unwrap();
        assert!(run(key()).is_err());
        let (_, history, identity) = open(&Signing {
            registry: folder.path().into(),
            key: out,
            trusted: Vec::new(),
            effective: None,
            reason: "test".into(),
        })
        .unwrap();
        assert!(history.decisions().is_empty());
        assert_eq!(identity.origin(), "hospital.example/officer");
    }
}
