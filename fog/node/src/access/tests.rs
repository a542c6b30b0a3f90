//! Deciding, with the time passed in.

use super::claims::Claims;
use super::gatekeeper::{Call, Gatekeeper, Question, Refused};
use super::studies::{StudyKeys, StudyQuestion};
use crate::consortium::view::{SharedView, View};
use crate::notify::Roster;
use crate::notify::message::{Message, News};
use crate::notify::outbox::Outbox;
use crate::store::{Store, keyholder};
use haar_ledger::consent::{
    DataKind, Grant, Grantee, GranteeRole, Interval, MAX_VIEW_AGE_S, Purpose, RequestError,
    RequestSignature, Scope, SignedRequest, SignedStatement, Statement, audit_name, bundle_hash,
    patient_key_name,
};
use haar_ledger::consortium::Lineage;
use haar_ledger::governance::{Digest, KeyBody, Role};
use haar_ledger::{Cosigner, Entry, EntryKind, Held, Identity, LeafKind, Record};
use haar_schema::{Subject, Timestamp};
use haar_telemetry::Metrics;
use std::sync::Arc;

const SITE: &str = "haar.test/site";
const LOG: &str = "log.example/consortium";
const NOW_S: u64 = 1_790_000_000;
const TARGET: &str = "/v1/access/records";

fn subject() -> Subject {
    Subject::from_bytes([7; 16])
}

fn identity(name: &str) -> Identity {
    Identity::generate(name, Digest::of(name.as_bytes()).0).unwrap()
}

fn metrics() -> Metrics {
    Metrics::new("haar-fog").unwrap()
}

fn keys() -> StudyKeys {
    StudyKeys::open(&tempfile::tempdir().unwrap().path().join("studies.key")).unwrap()
}

/// Of a site that tells nobody.
fn open(store: &Arc<Store>, keys: StudyKeys) -> Gatekeeper {
    let (claims, roster) = (Claims::default(), Roster::default());
    Gatekeeper::new(Arc::clone(store), view(), claims, keys, roster, &metrics()).unwrap()
}

fn patient() -> Identity {
    identity(&patient_key_name(&subject().to_hex()))
}

/// A consortium of one member, under which a patient and a doctor have keys; vouched for at [`NOW_S`].
fn view() -> SharedView {
    let (member, log) = (identity("a.example"), identity(LOG));
    let cosigner = Cosigner::generate("a.example/witness", [9; 32]).unwrap();
    let genesis = serde_json::json!({
        "consortium": "test",
        "operator": {"name": "a.example", "log": log.vkey().to_string(), "url": "https://a.example"},
        "members": [{
            "name": "a.example",
            "key": member.vkey().to_string(),
            "cosigners": [cosigner.vkey().to_string()],
            "url": "https://a.example",
            "admission": "00".repeat(32),
        }],
        "quorums": haar_ledger::governance::Quorums::default(),
        "policy_bundle": bundle_hash(),
    });
    let genesis: haar_ledger::governance::Genesis = serde_json::from_value(genesis).unwrap();
    let mut entries = vec![Entry::sign(EntryKind::Genesis, LOG, &genesis, &[&member]).unwrap()];
    let keys = [
        (patient(), Role::Patient),
        (identity("dr.example"), Role::Clinician),
        (identity("lab.example"), Role::Researcher),
    ];
    for (key, role) in keys {
        let body = KeyBody::Register { key: key.vkey().into(), role };
        entries.push(Entry::sign(EntryKind::Key, LOG, &body, &[&member, &key]).unwrap());
    }
    let mut view = View::default();
    for (index, entry) in (0..).zip(&entries) {
        view.apply(&Lineage::default(), index, entry.as_bytes());
    }
    assert_eq!(view.state.as_ref().unwrap().keys().count(), 3);
    view.vouched_s = Some(NOW_S);
    let shared = SharedView::default();
    *shared.write() = view;
    shared
}

/// A site log with one flagged event of the patient.
fn store(dir: &std::path::Path) -> Arc<Store> {
    let store = Arc::new(Store::open(dir, identity(SITE)).unwrap());
    let key = serde_json::json!({
        "edge": "edge-1",
        "subject": subject(),
        "pipeline": "p",
        "start_us": haar_schema::Timestamp::from_millis(NOW_S as i64 * 1_000),
        "end_us": haar_schema::Timestamp::from_millis(NOW_S as i64 * 1_000 + 1),
    });
    let body = serde_json::json!({"key": key, "flag": "fast", "strip": {"samples": [1]}});
    let body = body.to_string().into_bytes();
    let record = Record { kind: LeafKind::FlaggedEvent, name: [1; 32], key: [2; 32], body };
    let held = Held { keyholder: Some(keyholder(subject())), record };
    store.append(&[held], |_, _| Ok(())).unwrap();
    store
}

fn call(who: &str, now_s: u64) -> Call<'static> {
    let key = if who == "patient" { patient() } else { identity(who) };
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).unwrap();
    let signed = RequestSignature::sign("GET", TARGET, SITE, now_s, nonce, &key);
    let signed = SignedRequest::parse(&signed.input, &signed.signature).unwrap();
    Call { method: "GET", target: TARGET, signed, now_s }
}

fn question(purpose: Purpose) -> Question {
    let (kind, scope, before) = (DataKind::FlaggedEvent, None, None);
    Question { subject: subject(), kind, purpose, scope, before, limit: 10 }
}

fn grant() -> Vec<u8> {
    let grant = Grant {
        subject: subject().to_hex().parse().unwrap(),
        grantee: Grantee { role: GranteeRole::Clinician, name: "dr.example".parse().unwrap() },
        kinds: [DataKind::FlaggedEvent].into(),
        purpose: Purpose::Treatment,
        period: Interval::new(NOW_S, NOW_S + 1_000).unwrap(),
        data_period: None,
        scope: None,
    };
    SignedStatement::sign(&Statement::Grant(grant), SITE, &patient()).unwrap()
}

#[test]
fn with_a_view_older_than_a_minute_only_an_emergency_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let metrics = metrics();
    let portal =
        "name = 'portal'\ncontacts = ['patient']\nwebhook = { url = 'http://127.0.0.1:1/' }";
    let roster = Roster::new(&[toml::from_str(portal).unwrap()], &Default::default()).unwrap();
    let gatekeeper =
        Gatekeeper::new(Arc::clone(&store), view(), Claims::default(), keys(), roster, &metrics)
            .unwrap();
    let taken = gatekeeper.take(&grant()).unwrap();
    assert_eq!(gatekeeper.take(&grant()).unwrap(), taken, "the same once more is the same leaf");
    let read = |who, purpose, now_s| gatekeeper.read(&call(who, now_s), &question(purpose));
    let (last, late) = (NOW_S + MAX_VIEW_AGE_S, NOW_S + MAX_VIEW_AGE_S + 1);
    let answer = read("dr.example", Purpose::Treatment, last).unwrap();
    assert!(!answer.break_glass);
    assert_eq!(answer.records[0]["record"]["flag"], "fast");
    assert!(answer.records[0]["record"]["strip"].is_null(), "a strip is another kind");
    for who in ["dr.example", "patient"] {
        let refused = read(who, Purpose::Treatment, late).err().unwrap().to_string();
        assert!(refused.contains("view-too-old"), "{refused}");
    }
    let answer = read("dr.example", Purpose::Emergency, late).unwrap();
    assert!(answer.break_glass && answer.records.len() == 1);
    let counted = metrics.encode();
    for (result, count) in [("allowed", 1), ("denied", 2), ("break-glass", 1)] {
        let line = format!("haar_fog_access_decisions_total{{result=\"{result}\"}} {count}");
        assert!(counted.contains(&line), "{line} in {counted}");
    }
    // What was answered was recorded before, what was refused too.
    let leaves = store.log().find(&audit_name(&subject().to_hex())).unwrap();
    assert_eq!(leaves.len(), 4);
    assert_eq!(leaves.last(), answer.decisions.last());
    let recorded = store.log().record(leaves[3]).unwrap();
    assert!(haar_ledger::consent::Emergency::read(&recorded.body).is_some());
    // Of that one the patient is told.
    let due = Outbox::new(Arc::clone(&store)).due("portal", Timestamp::MAX, 9).unwrap().0;
    assert_eq!(due.iter().map(|row| row.key.leaf).collect::<Vec<_>>(), [leaves[3]]);
    let Some(News::BreakGlass(told)) = News::read(&recorded) else { panic!("it is news") };
    assert_eq!(told.subject, subject().to_hex());
    let told = Message::new(&due[0].key, SITE, News::BreakGlass(told), false);
    assert_eq!(
        (told.flag.as_str(), told.subject, told.step.is_none()),
        ("break-glass", None, true)
    );
    assert!(!told.lines().contains(&subject().to_hex()) && told.lines().contains("emergency"));
    assert_eq!(gatekeeper.audit(&call("patient", NOW_S), subject()).unwrap().len(), 4);
}

/// Whoever overhears a request gains nothing by a restart.
#[test]
fn a_request_counts_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = |store: &Arc<Store>| self::open(store, keys());
    let read = call("dr.example", NOW_S);
    let audit = call("patient", NOW_S);
    {
        let store = store(dir.path());
        let gatekeeper = open(&store);
        gatekeeper.take(&grant()).unwrap();
        gatekeeper.read(&read, &question(Purpose::Treatment)).unwrap();
        gatekeeper.audit(&audit, subject()).unwrap();
    }
    let store = Arc::new(Store::open(dir.path(), identity(SITE)).unwrap());
    let gatekeeper = open(&store);
    let again = gatekeeper.read(&read, &question(Purpose::Treatment));
    assert!(matches!(again, Err(Refused::Request(RequestError::Repeated))));
    let again = gatekeeper.audit(&audit, subject());
    assert!(matches!(again, Err(Refused::Request(RequestError::Repeated))));
}

#[test]
fn who_is_not_known_is_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let size = store.log().size().unwrap();
    let gatekeeper = open(&store, keys());
    let stranger = gatekeeper.read(&call("x.example", NOW_S), &question(Purpose::Emergency));
    assert!(matches!(stranger, Err(Refused::Request(RequestError::Signature))));
    let once = call("dr.example", NOW_S);
    assert!(gatekeeper.read(&once, &question(Purpose::Emergency)).is_ok());
    let again = gatekeeper.read(&once, &question(Purpose::Emergency));
    assert!(matches!(again, Err(Refused::Request(RequestError::Repeated))));
    assert_eq!(store.log().size().unwrap(), size + 1, "only the one that counted was decided on");
    let empty = Gatekeeper::new(
        store,
        SharedView::default(),
        Claims::default(),
        keys(),
        Roster::default(),
        &metrics(),
    )
    .unwrap();
    assert!(matches!(
        empty.read(&call("dr.example", NOW_S), &question(Purpose::Emergency)),
        Err(Refused::NoView)
    ));
}

#[test]
fn a_researcher_reads_those_who_agreed_under_other_names() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let keys = || StudyKeys::open(&dir.path().join("studies.key")).unwrap();
    let gatekeeper = open(&store, keys());
    let ask = |gatekeeper: &Gatekeeper, who, study: &str, now_s| {
        let (study, kind) = (study.parse().unwrap(), DataKind::FlaggedEvent);
        let question = StudyQuestion { study, kind, before: None, limit: 10 };
        gatekeeper.study(&call(who, now_s), &question)
    };
    let nobody = ask(&gatekeeper, "lab.example", "asthma-3", NOW_S).unwrap();
    assert!(nobody.records.is_empty(), "nobody has agreed");
    for study in ["asthma-3", "copd-1"] {
        let grant = Grant {
            subject: subject().to_hex().parse().unwrap(),
            grantee: Grantee {
                role: GranteeRole::Researcher,
                name: "lab.example".parse().unwrap(),
            },
            kinds: [DataKind::FlaggedEvent].into(),
            purpose: Purpose::Research,
            period: Interval::new(NOW_S, NOW_S + 1_000).unwrap(),
            data_period: None,
            scope: Some(Scope::Study(study.parse().unwrap())),
        };
        let note = SignedStatement::sign(&Statement::Grant(grant), SITE, &patient()).unwrap();
        gatekeeper.take(&note).unwrap();
    }
    let answer = ask(&gatekeeper, "lab.example", "asthma-3", NOW_S).unwrap();
    let [record] = &answer.records[..] else { panic!("{} records", answer.records.len()) };
    assert_eq!(record.record["flag"], "fast");
    let text = serde_json::to_string(&answer).unwrap();
    for identity in [subject().to_hex().as_str(), "edge-1", "subject", "\"window\"", "leaf"] {
        assert!(!text.contains(identity), "{identity} in {text}");
    }
    // The same name in one study also after a restart, another in another.
    let again = open(&store, keys());
    let statements = [again.take(&grant())];
    assert!(statements[0].is_ok());
    let other = ask(&gatekeeper, "lab.example", "copd-1", NOW_S).unwrap();
    assert_ne!(other.records[0].pseudonym, record.pseudonym);
    let same = ask(&gatekeeper, "lab.example", "asthma-3", NOW_S).unwrap();
    assert_eq!(same.records[0].pseudonym, record.pseudonym);
    // Who else asks, or with too old a view, reads nothing; the patient finds each decision.
    assert!(matches!(
        ask(&gatekeeper, "dr.example", "asthma-3", NOW_S),
        Err(Refused::NoResearcher)
    ));
    let late = ask(&gatekeeper, "lab.example", "asthma-3", NOW_S + MAX_VIEW_AGE_S + 1);
    assert!(late.err().unwrap().to_string().contains("view-too-old"));
    let plain = gatekeeper.read(&call("lab.example", NOW_S), &question(Purpose::Research));
    assert!(matches!(plain, Err(Refused::Denied(_))), "never under the site's own pseudonym");
    assert_eq!(gatekeeper.audit(&call("patient", NOW_S), subject()).unwrap().len(), 5);
}

#[test]
fn a_study_key_that_is_none_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("studies.key");
    std::fs::write(&path, "short\n").unwrap();
    assert!(StudyKeys::open(&path).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "short\n");
}

#[test]
fn alarms_and_parameters_are_kinds_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let doctor = identity("ward-doctor");
    let own = haar_catalog::parameters::Parameters {
        subject: subject(),
        version: 3,
        effective: haar_schema::Timestamp::from_millis(NOW_S as i64 * 1_000),
        spo2_scale: haar_signals::news2::SpO2Scale::Two,
        limits: Default::default(),
        reason: "hypercapnia".to_owned(),
    };
    let note = doctor.sign(&own.text()).unwrap();
    let transition = serde_json::json!({
        "alarm": "ab".repeat(32), "number": 0, "subject": subject(), "flag": "fast", "priority": "medium",
        "condition": "limit", "text": "Fast.", "from": "inactive", "to": "active", "cause": "raised",
        "at_us": haar_schema::Timestamp::from_millis(NOW_S as i64 * 1_000),
        "event_us": haar_schema::Timestamp::from_millis(NOW_S as i64 * 1_000),
        "window": null, "by": "nurse-7", "until_us": null, "suppressed_by": null, "level": 0,
        "notify": ["charge-nurse"],
    });
    let transition = transition.to_string().into_bytes();
    assert!(haar_alarms::Transition::from_json(&transition).is_ok());
    let held = [(LeafKind::PatientParameters, note), (LeafKind::AlarmTransition, transition)].map(
        |(kind, body)| Held {
            keyholder: Some(keyholder(subject())),
            record: Record { kind, name: [3; 32], key: [4; 32], body },
        },
    );
    store.append(&held, |_, _| Ok(())).unwrap();
    let gatekeeper = open(&store, keys());
    let read = |kind| {
        let question = Question { kind, ..question(Purpose::Treatment) };
        gatekeeper.read(&call("patient", NOW_S), &question).unwrap().records
    };
    let [alarm] = &read(DataKind::Alarm)[..] else { panic!("one alarm") };
    assert_eq!(alarm["record"]["to"], "active");
    assert!(!alarm.to_string().contains("nurse"), "{alarm}");
    let [set] = &read(DataKind::Parameters)[..] else { panic!("one note") };
    assert_eq!(set["record"]["version"], 3);
    assert!(set["record"]["note"].as_str().unwrap().contains("hypercapnia"));
    assert_eq!(read(DataKind::FlaggedEvent).len(), 1);
    // A doctor with a grant for flagged events reads neither.
    gatekeeper.take(&grant()).unwrap();
    let other = Question { kind: DataKind::Alarm, ..question(Purpose::Treatment) };
    let refused = gatekeeper.read(&call("dr.example", NOW_S), &other);
    assert!(matches!(refused, Err(Refused::Denied(_))));
    let study = StudyQuestion {
        study: "asthma-3".parse().unwrap(),
        kind: DataKind::Parameters,
        before: None,
        limit: 10,
    };
    let refused = gatekeeper.study(&call("lab.example", NOW_S), &study);
    assert!(matches!(refused, Err(Refused::Kind)));
}
