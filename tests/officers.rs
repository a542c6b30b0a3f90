//! Who decides at a hospital stands in the members' log: a key decides once it is registered, and nothing more once it is revoked.

use crate::consortium::{Consortium, put_before};
use crate::models::{add, haar};
use crate::programs;
use crate::ward::{FAST_HEART, Site, Wanted, metric, now, until};
use haar_normalize::BUILT_IN;
use std::process::{Command, Output};

#[test]
fn a_key_decides_from_its_registration_to_its_revocation() {
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| (*text).to_owned()).collect();
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: FAST_HEART, otlp: None });
    let consortium = Consortium::found(&site);
    consortium.admit_the_site();
    let model = add(&site, site.path("models").to_str().unwrap());
    let officer = consortium.key("m1.example/officer", "officer.key", false);
    let doctor = consortium.key("m1.example/doctor", "doctor.key", false);
    put_before(&site, &consortium);
    let path = site.path("fog.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += "[models]\nregistry = \"models\"\nregistered_keys = true\n\
             [parameters]\nregistered_keys = true\n";
    std::fs::write(&path, text).unwrap();
    decide(&site, "shadow", &model);
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    until("the decision of somebody unknown is refused", || refused(&site) > 0.0);
    assert!(String::from_utf8(set(&site, 1).stderr).unwrap().contains("no authorised key"));
    for (key, role) in [("officer", "model"), ("doctor", "clinician")] {
        consortium
            .ask(0, &format!("key register --key member-1.key --new {key}.key --role {role}"));
    }
    until("it is followed", || metric(site.fog_admin, "haar_fog_model_decisions_total") == 1.0);
    until("the doctor's limits are taken", || set(&site, 1).status.success());

    for key in [officer, doctor] {
        consortium.ask(0, &format!("key revoke --key member-1.key {key}"));
    }
    until("the doctor's limits are refused", || {
        let answer = set(&site, 2);
        let error = String::from_utf8_lossy(&answer.stderr);
        !answer.status.success() && error.contains("no authorised key")
    });
    let before = refused(&site);
    decide(&site, "promote", &model);
    until("what the officer signs now is refused", || refused(&site) > before);
    assert!(
        site.log_of("fog").contains("statement 2 of the registry is signed by nobody whose key")
    );
    assert!(fog.terminate().success());

    // What was followed stays; with what was refused in the registry, the fog does not start.
    let config = path.to_str().unwrap();
    let started = Command::new(programs::own("haar-fog")).args(["--config", config]).output();
    let started = started.unwrap();
    let error = String::from_utf8_lossy(&started.stderr);
    assert!(!started.status.success() && error.contains("statement 2"), "{error}");
    std::fs::remove_file(site.path("models/statements/000002.note")).unwrap();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    assert!(fog.terminate().success());
    for server in consortium.servers {
        assert!(server.terminate().success());
    }
}

fn refused(site: &Site) -> f64 {
    metric(site.fog_admin, "haar_fog_model_decisions_refused_total")
}

fn decide(site: &Site, what: &str, model: &str) {
    let (registry, key) = (site.path("models"), site.path("officer.key"));
    let how = ["--registry", registry.to_str().unwrap(), "--key", key.to_str().unwrap()];
    haar(&[&["model", what, &model[..12]], &how[..], &["--reason", "test"]].concat());
}

/// The doctor signs limits and hands them in.
fn set(site: &Site, revision: u32) -> Output {
    let run = |args: &str| {
        let words = args.split_ascii_whitespace();
        let mut command = Command::new(programs::own("haar"));
        command.arg("parameters").args(words).current_dir(site.path("")).output().unwrap()
    };
    let subject = site.subject("bed-1").to_hex();
    let effective = now().plus_micros(60_000_000);
    let signed = run(&format!(
        "sign --subject {subject} --revision {revision} --effective {effective} \
         --limit heart_rate=40..150 --key doctor.key --reason paced"
    ));
    assert!(signed.status.success(), "{signed:?}");
    std::fs::write(site.path("note.txt"), signed.stdout).unwrap();
    run(&format!("set note.txt --fog http://127.0.0.1:{}", site.fog_admin))
}
