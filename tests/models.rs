//! A model's way into the ward: added to a registry, in shadow beside the live one, promoted by a signed statement from an event time on;
//! and a model that is not what was decided on keeps the fog from starting.

use crate::programs;
use crate::ward::{Leaves, Site, Wanted, metric, now, until};
use haar_ledger::LeafKind;
use haar_normalize::BUILT_IN;
use std::path::Path;
use std::process::{Command, Output};

const PIPELINE: &str = include_str!("../pipelines/catalog/definitions/ecg-rhythm.toml");
const MANIFEST: &str = include_str!("../pipelines/inference/models/ecg-beats/manifest.toml");
const WEIGHTS: &[u8] =
    include_bytes!("../pipelines/inference/models/ecg-beats/weights.safetensors");
/// Seconds of event time, twenty times as fast.
const SECONDS: &str = "90";

#[test]
fn a_model_goes_from_shadow_to_live_at_an_event_time() {
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| (*text).to_owned()).collect();
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: PIPELINE, otlp: None });
    let registry = site.path("models");
    let registry = registry.to_str().unwrap();
    let added = add(&site, registry);
    let key = site.path("officer.key");
    let key = key.to_str().unwrap();
    let vkey = haar(&["model", "key", "--name", "hospital.example/officer", "--out", key]);
    let decide = |what: &str, effective: &str| {
        let how = ["--registry", registry, "--key", key, "--effective", effective];
        haar(&[&["model", what, &added[..12]], &how[..], &["--reason", "test"]].concat());
    };
    // The middle of what will be sent.
    let promoted = now().plus_micros(-35_000_000);
    decide("shadow", "2020-01-01T00:00:00Z");
    decide("promote", &promoted.to_string());
    let path = site.path("fog.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let keys = vkey.trim();
    text.push_str(&format!("\n[models]\nregistry = \"models\"\ntrusted_keys = [{keys:?}]\n"));
    std::fs::write(&path, text).unwrap();

    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    let broker = format!("127.0.0.1:{}", site.broker_port);
    let ward = ["--patients", "2", "--seed", "7", "--seconds", SECONDS, "--speed", "20"];
    haar(&[&["simulate", "--broker", &broker][..], &ward].concat());
    until("windows are scored", || metric(site.fog_admin, "haar_fog_windows_total") >= 12.0);
    assert!(edge.terminate().success());
    // What was in shadow has the live one's weights: it agrees on every beat.
    let agreed = metric(site.fog_admin, "haar_fog_model_agreed_total");
    let scores = metric(site.fog_admin, "haar_fog_model_scores_total");
    assert!(agreed > 50.0 && scores >= 2.0 * agreed, "{agreed} of {scores}");
    assert!(fog.terminate().success());

    let leaves = Leaves::read(&site.database(), &site.vkey());
    let kinds: Vec<LeafKind> = leaves.others.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [LeafKind::ModelStatement; 2], "both decisions are in the log");
    let built_in: serde_json::Value =
        serde_json::from_str(&haar(&["model", "inspect", "ecg-beats", "--json"])).unwrap();
    let built_in = built_in["reference"]["sha256"].as_str().unwrap();
    let (mut before, mut after) = (0, 0);
    for digest in leaves.newest().into_values() {
        let is_after = digest.key.end_us >= promoted;
        let wanted = if is_after { &added } else { built_in };
        assert_eq!(digest.model.as_ref().unwrap().sha256, wanted, "{}", digest.key.end_us);
        *(if is_after { &mut after } else { &mut before }) += 1;
    }
    assert!(before > 2 && after > 2, "{before} windows before, {after} after");
    a_model_that_was_changed_is_not_run(&site, &added);
}

/// The built-in model under another version: another hash, the same scores.
fn add(site: &Site, registry: &str) -> String {
    let folder = site.path("trained");
    std::fs::create_dir(&folder).unwrap();
    let line = MANIFEST.lines().find(|line| line.starts_with("version = ")).unwrap();
    let manifest = MANIFEST.replacen(line, "version = 999", 1);
    std::fs::write(folder.join("manifest.toml"), manifest).unwrap();
    std::fs::write(folder.join("weights.safetensors"), WEIGHTS).unwrap();
    std::fs::write(folder.join("CARD.md"), "A copy for a test.\n").unwrap();
    let printed = haar(&["model", "add", folder.to_str().unwrap(), "--registry", registry]);
    printed.split_whitespace().nth(1).unwrap().to_owned()
}

fn a_model_that_was_changed_is_not_run(site: &Site, added: &str) {
    let weights = files(&site.path("models"), "weights.safetensors");
    for path in &weights {
        let mut bytes = std::fs::read(path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(weights.len(), 1);
    let config = site.path("fog.toml");
    let output = output(&programs::own("haar-fog"), &["--config", config.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{output:?}");
    assert!(said.contains("hash") || said.contains(&added[..12]), "{said}");
}

fn files(folder: &Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, name));
        } else if path.file_name().unwrap() == name {
            found.push(path);
        }
    }
    found
}

fn output(program: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

fn haar(args: &[&str]) -> String {
    let output = output(&programs::own("haar"), args);
    assert!(output.status.success(), "haar {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
