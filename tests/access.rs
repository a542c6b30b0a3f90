//! Reading under the patients' consent: a consortium of four, a hospital, and everybody who asks it.

use crate::consortium::{Consortium, put_before, runtime};
use crate::privacy::members_learn_nothing;
use crate::programs;
use crate::ward::{FAST_HEART, Site, Wanted, fast_hearts, free_port, until, within};
use haar_ledger::consent::{MAX_VIEW_AGE_S, patient_key_name};
use haar_ledger::governance::CommitmentBody;
use haar_ledger::{EntryKind, LeafKind};
use haar_normalize::BUILT_IN;
use std::process::Command;
use std::time::{Duration, Instant};

/// How soon a statement is in force.
const EFFECTIVE: Duration = Duration::from_secs(5);

/// A hospital whose read API is asked by the commands that people use.
struct Hospital<'a> {
    site: &'a Site,
    port: u16,
    subject: String,
}

impl Hospital<'_> {
    /// What a command answered, or said.
    fn run(&self, key: &str, words: &str) -> Result<String, String> {
        let url = format!("https://localhost:{}", self.port);
        let subject = ["--subject", &self.subject];
        let of_nobody =
            words.contains("--study") || words.contains("--fhir") && !words.starts_with("audit");
        let with_subject = if of_nobody { &subject[..0] } else { &subject[..] };
        let made = Command::new(programs::own("haar"))
            .arg("ledger")
            .args(words.split_ascii_whitespace())
            .args(with_subject)
            .args(["--fog", &url, "--site", "haar.invalid/site", "--ca-file", "ca.pem"])
            .args(["--key", &format!("{key}.key")])
            .current_dir(self.site.path(""))
            .output()
            .unwrap();
        if made.status.success() {
            Ok(String::from_utf8(made.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&made.stderr).into_owned())
        }
    }

    fn read(&self, key: &str, kind: &str, purpose: &str, scope: &str) -> Result<String, String> {
        let scope = if scope.is_empty() { String::new() } else { format!("--scope {scope}") };
        self.run(key, &format!("read --kind {kind} --purpose {purpose} {scope}"))
    }

    /// Grants, and the id.
    fn grant(&self, words: &str) -> String {
        let said = self.run("patient", &format!("grant {words}")).unwrap();
        said.lines().find_map(|line| line.strip_prefix("id ")).unwrap().to_owned()
    }

    /// How many decisions the patient sees, and how many of them were emergencies.
    fn audited(&self) -> (usize, usize) {
        let said = self.run("patient", "audit").unwrap();
        (said.lines().count(), said.matches("BREAK-GLASS").count())
    }
}

#[test]
fn who_reads_what_is_the_patients_to_say() {
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| (*text).to_owned()).collect();
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: FAST_HEART, otlp: None });
    let mut consortium = Consortium::found(&site);
    let subject = site.subject("bed-1").to_hex();
    let hospital = Hospital { site: &site, port: free_port(), subject };
    register_everybody(&consortium, &hospital);
    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    fast_hearts(&site, &["bed-1", "bed-2"]);
    until("the patient reads what is theirs", || {
        hospital
            .read("patient", "flagged-event", "TREAT", "")
            .is_ok_and(|said| said.contains("\"flag\":\"fast\""))
    });
    let (already, _) = hospital.audited();

    let refused = hospital.read("doctor", "flagged-event", "TREAT", "").unwrap_err();
    assert!(refused.contains("no policy allows it"), "{refused}");
    let granted = Instant::now();
    let grant =
        hospital.grant("--to clinician:doctor.example --kinds flagged-event --purpose TREAT");
    let read = hospital.read("doctor", "flagged-event", "TREAT", "").unwrap();
    assert!(granted.elapsed() < EFFECTIVE, "{:?}", granted.elapsed());
    assert!(read.contains("\"flag\":\"fast\"") && read.contains(&hospital.subject), "{read}");
    assert!(!read.contains(&site.subject("bed-2").to_hex()), "{read}");
    every_role_and_purpose(&hospital);
    insurers_get_the_proofs_of_their_claim(&hospital);
    researchers_get_another_name_in_each_study(&hospital);

    // Nothing of it is lost with the process.
    let (before_restart, _) = hospital.audited();
    fog.kill();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    until("the grant holds again", || {
        hospital.read("doctor", "flagged-event", "TREAT", "").is_ok()
    });
    assert!(hospital.audited().0 > before_restart);

    let revoked = Instant::now();
    hospital.run("patient", &format!("revoke {grant}")).unwrap();
    let refused = hospital.read("doctor", "flagged-event", "TREAT", "").unwrap_err();
    assert!(refused.contains("no policy allows it"), "{refused}");
    assert!(revoked.elapsed() < EFFECTIVE, "{:?}", revoked.elapsed());

    let (_, emergencies) = hospital.audited();
    let read = hospital.read("doctor", "vitals", "ETREAT", "").unwrap();
    assert!(read.contains("\"break_glass\":true"), "{read}");
    let (all, now) = hospital.audited();
    assert!(now > emergencies && all > already + 10, "{all} {now}");
    // Others do not see who asked, and nobody speaks for the patient.
    assert!(hospital.run("doctor", "audit").unwrap_err().contains("patient's own key"));
    let forged = "grant --to clinician:doctor.example --kinds vitals --purpose TREAT";
    assert!(hospital.run("doctor", forged).unwrap_err().contains("registered key"));
    members_are_told(&consortium);
    cut_off_only_an_emergency_reads(&mut consortium, &hospital);
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());
    for server in std::mem::take(&mut consortium.servers) {
        assert!(server.terminate().success());
    }
    members_learn_nothing(&site, &["bed-1", "bed-2", "asthma-3", "copd-1", "claim:c-1"]);
}

/// Makes and registers the keys, and configures the hospital.
fn register_everybody(consortium: &Consortium<'_>, hospital: &Hospital<'_>) {
    let site = hospital.site;
    consortium.admit_the_site();
    consortium.key(&patient_key_name(&hospital.subject), "patient.key", false);
    for role in ["doctor", "insurer", "researcher"] {
        consortium.key(&format!("{role}.example"), &format!("{role}.key"), false);
    }
    for (key, role) in [
        ("patient", "patient"),
        ("doctor", "clinician"),
        ("insurer", "insurer"),
        ("researcher", "researcher"),
    ] {
        let register = format!("key register --key member-1.key --new {key}.key --role {role}");
        assert!(consortium.ask(0, &register).contains("is witnessed by a quorum"));
    }
    put_before(site, consortium);
    let claims = format!(
        "[[claim]]\nnumber = \"c-1\"\nsubject = \"{}\"\nfrom_s = 0\nuntil_s = 9000000000\n",
        hospital.subject
    );
    std::fs::write(site.path("claims.toml"), claims).unwrap();
    let path = site.path("fog.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += &format!(
        "[access]\nlisten = \"127.0.0.1:{}\"\ncert_file = \"localhost.pem\"\n\
         key_file = \"localhost.key\"\nclaims_file = \"claims.toml\"\n",
        hospital.port
    );
    std::fs::write(&path, text).unwrap();
}

/// With one grant, of flagged events to the doctor for treatment, in force.
fn every_role_and_purpose(hospital: &Hospital<'_>) {
    for (who, purpose, allowed) in [
        ("patient", "TREAT", true),
        ("patient", "HPAYMT", true),
        ("patient", "HRESCH", true),
        ("doctor", "TREAT", true),
        ("doctor", "HPAYMT", false),
        ("doctor", "HRESCH", false),
        ("doctor", "ETREAT", true),
        ("insurer", "TREAT", false),
        ("insurer", "HPAYMT", false),
        ("insurer", "HRESCH", false),
        ("insurer", "ETREAT", false),
        ("researcher", "TREAT", false),
        ("researcher", "HPAYMT", false),
        ("researcher", "HRESCH", false),
        ("researcher", "ETREAT", false),
    ] {
        let said = hospital.read(who, "flagged-event", purpose, "");
        assert_eq!(said.is_ok(), allowed, "{who} {purpose}: {said:?}");
    }
    assert!(hospital.read("doctor", "vitals", "TREAT", "").is_err());
    // A key that nobody registered.
    assert!(hospital.read("member-2", "vitals", "TREAT", "").unwrap_err().contains("401"));
}

fn insurers_get_the_proofs_of_their_claim(hospital: &Hospital<'_>) {
    let asks = |kind, scope| hospital.read("insurer", kind, "HPAYMT", scope);
    assert!(asks("flagged-event", "claim:c-1").is_err(), "not granted yet");
    hospital.grant(
        "--to insurer:insurer.example --kinds flagged-event --purpose HPAYMT --scope claim:c-1",
    );
    let proofs = asks("flagged-event", "claim:c-1").unwrap();
    assert!(proofs.contains("\"proof\"") && !proofs.contains("\"record\":"), "{proofs}");
    assert!(asks("vitals", "claim:c-1").is_err());
    assert!(asks("flagged-event", "claim:c-2").is_err());
    assert!(asks("flagged-event", "").is_err());
}

fn researchers_get_another_name_in_each_study(hospital: &Hospital<'_>) {
    let asks =
        |who, study| hospital.run(who, &format!("read --kind flagged-event --study {study}"));
    assert!(asks("researcher", "asthma-3").unwrap().contains("\"records\":[]"), "nobody agreed");
    let mut names = Vec::new();
    for study in ["asthma-3", "copd-1"] {
        hospital.grant(&format!(
            "--to researcher:researcher.example --kinds flagged-event --purpose HRESCH --scope study:{study}"
        ));
        let read = asks("researcher", study).unwrap();
        assert!(read.contains("\"flag\":\"fast\"") && !read.contains(&hospital.subject), "{read}");
        let answer: serde_json::Value = serde_json::from_str(&read).unwrap();
        names.push(answer["records"][0]["pseudonym"].clone());
    }
    assert_ne!(names[0], names[1]);
    assert!(asks("doctor", "asthma-3").unwrap_err().contains("researcher's key"));
}

/// Without its operator the site's view grows old. The limit is in the policies that all have agreed on, so this
/// takes its minute.
fn cut_off_only_an_emergency_reads(consortium: &mut Consortium<'_>, hospital: &Hospital<'_>) {
    let own = || hospital.read("patient", "vitals", "TREAT", "");
    consortium.servers.remove(0).kill();
    let cut = Instant::now();
    assert!(own().is_ok());
    let mut refused = String::new();
    let old = within(Duration::from_secs(MAX_VIEW_AGE_S + 10), || {
        std::thread::sleep(Duration::from_secs(1));
        refused = own().err().unwrap_or_default();
        !refused.is_empty()
    });
    assert!(old && refused.contains("view-too-old"), "{refused}");
    // Witnesses had cosigned at most a refresh, and some seconds, before.
    assert!(cut.elapsed() > Duration::from_secs(MAX_VIEW_AGE_S / 2), "{:?}", cut.elapsed());
    let read = hospital.read("doctor", "vitals", "ETREAT", "").unwrap();
    assert!(read.contains("\"break_glass\":true"), "{read}");
}

/// The consortium log has the statements and the break-glass, as commitments.
fn members_are_told(consortium: &Consortium<'_>) {
    let runtime = runtime();
    let told = || -> Option<Vec<LeafKind>> {
        let mut kinds = Vec::new();
        let client = consortium.client(0);
        let note = runtime.block_on(client.checkpoint()).ok()?;
        let size: u64 = std::str::from_utf8(&note).ok()?.lines().nth(1)?.parse().ok()?;
        for index in 0..size {
            let entry = runtime.block_on(client.entry(index)).ok()?;
            if entry.kind() == EntryKind::Commitment {
                let body: CommitmentBody = entry.body().ok()?;
                kinds.extend(LeafKind::from_byte(body.leaf.0[1]));
            }
        }
        Some(kinds)
    };
    until("the members are told", || {
        told().is_some_and(|kinds| {
            let count = |kind| kinds.iter().filter(|own| **own == kind).count();
            count(LeafKind::ConsentGrant) == 4
                && count(LeafKind::ConsentRevocation) == 1
                && count(LeafKind::AccessDecision) > 0
        })
    });
}
