//! A model's way into the ward: added to a registry, in shadow beside the live one, promoted by a signed statement from an event time on,
//! and rolled back while the fog runs; and a model that is not what was decided on keeps the fog from starting.

use crate::programs;
use crate::ward::{Leaves, Site, Wanted, files, metric, now, until};
use haar_ledger::LeafKind;
use haar_normalize::BUILT_IN;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PIPELINE: &str = include_str!("../pipelines/catalog/definitions/ecg-rhythm.toml");
const MANIFEST: &str = include_str!("../pipelines/inference/models/ecg-beats/manifest.toml");
const WEIGHTS: &[u8] =
    include_bytes!("../pipelines/inference/models/ecg-beats/weights.safetensors");
/// Seconds of event time, twenty times as fast.
const SECONDS: &str = "90";
/// Seconds as they pass: windows of half a minute before and after a decision.
const LIVE_SECONDS: &str = "55";
/// How soon a running fog follows a decision; twice what is promised, for the machine has other work.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

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
    // What was in shadow has the live one's weights: it agrees on every beat.
    let agreed = metric(site.fog_admin, "haar_fog_model_agreed_total");
    let scores = metric(site.fog_admin, "haar_fog_model_scores_total");
    assert!(agreed > 50.0 && scores >= 2.0 * agreed, "{agreed} of {scores}");
    // Rolled back while the fog runs, and readings come as they are taken.
    let mut live = Command::new(programs::own("haar"))
        .args(["simulate", "--broker", &broker, "--patients", "2", "--seed", "8"])
        .args(["--seconds", LIVE_SECONDS, "--speed", "1"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let windows = metric(site.fog_admin, "haar_fog_windows_total");
    until("live windows are scored", || {
        metric(site.fog_admin, "haar_fog_windows_total") >= windows + 2.0
    });
    let signed = now();
    let asked = Instant::now();
    let how = ["--registry", registry, "--key", key, "--reason", "test"];
    haar(&[&["model", "rollback", "ecg-beats"], &how[..]].concat());
    until("the rollback is followed", || {
        metric(site.fog_admin, "haar_fog_model_decisions_total") == 1.0
    });
    let took = asked.elapsed();
    assert!(took < FOLLOWED_WITHIN, "{took:?}");
    let followed = now();
    assert!(live.wait().unwrap().success());
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());

    let leaves = Leaves::read(&site.database(), &site.vkey());
    let kinds: Vec<LeafKind> = leaves.others.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [LeafKind::ModelStatement; 3], "all decisions are in the log");
    let built_in: serde_json::Value =
        serde_json::from_str(&haar(&["model", "inspect", "ecg-beats", "--json"])).unwrap();
    let built_in = built_in["reference"]["sha256"].as_str().unwrap();
    let (mut before, mut after, mut back) = (0, 0, 0);
    for digest in leaves.newest().into_values() {
        let end = digest.key.end_us;
        // The rollback holds from when it was taken up, somewhere between these two.
        if end >= signed && end < followed {
            continue;
        }
        let (wanted, count) = match end {
            end if end < promoted => (built_in, &mut before),
            end if end < signed => (added.as_str(), &mut after),
            _ => (built_in, &mut back),
        };
        assert_eq!(digest.model.as_ref().unwrap().sha256, wanted, "{end}");
        *count += 1;
    }
    assert!(before > 2 && after > 2 && back > 1, "{before} before, {after} after, {back} back");
    a_model_that_was_changed_is_not_run(&site, &added);
}

/// The built-in model under another version: another hash, the same scores.
pub(crate) fn add(site: &Site, registry: &str) -> String {
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
    let mut weights = files(&site.path("models"));
    weights.retain(|path| path.ends_with("weights.safetensors"));
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

fn output(program: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

pub(crate) fn haar(args: &[&str]) -> String {
    let output = output(&programs::own("haar"), args);
    assert!(output.status.success(), "haar {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
