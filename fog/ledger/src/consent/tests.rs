//! What patients sign and who may then read what.

mod fhir;
mod property;

use super::*;
use crate::governance::tests::{Consortium, identity, member};
use crate::governance::{KeyBody, Role};
use crate::{Entry, EntryKind, Identity, LeafKind};
use std::collections::BTreeSet;

const SITE: &str = "fog.a/site-log";
const NOW_S: u64 = 1_790_000_000;

fn token(text: &str) -> Token {
    text.parse().unwrap()
}

fn grant(role: GranteeRole, name: &str, purpose: Purpose, scope: Option<Scope>) -> Grant {
    Grant {
        subject: token("subject-1"),
        grantee: Grantee { role, name: token(name) },
        kinds: [DataKind::Vitals, DataKind::FlaggedEvent].into(),
        purpose,
        period: Interval::new(NOW_S - 100, NOW_S + 100).unwrap(),
        data_period: None,
        scope,
    }
}

fn claim(number: &str) -> Option<Scope> {
    Some(Scope::Claim(token(number)))
}

fn study(number: &str) -> Option<Scope> {
    Some(Scope::Study(token(number)))
}

/// A consortium in which a patient, two clinicians, insurers and researchers have keys.
fn registered() -> (Consortium, Identity) {
    let mut consortium = Consortium::new();
    let (a, b) = (member("a", 1).1, member("b", 1).1);
    for subject in ["subject-1", "subject-2"] {
        consortium.register(&a, &patient_key_name(subject), Role::Patient).unwrap();
    }
    consortium.register(&a, "dr-a", Role::Clinician).unwrap();
    consortium.register(&b, "dr-b", Role::Clinician).unwrap();
    consortium.register(&b, "insurer", Role::Insurer).unwrap();
    consortium.register(&b, "researcher", Role::Researcher).unwrap();
    consortium.register(&b, "pump", Role::Device).unwrap();
    (consortium, identity(&patient_key_name("subject-1")))
}

fn signed(consortium: &Consortium, patient: &Identity, statement: &Statement) -> SignedStatement {
    let note = SignedStatement::sign(statement, SITE, patient).unwrap();
    SignedStatement::open(&note, SITE, &consortium.state).unwrap()
}

/// The grants of the first patient to everybody.
fn consents(consortium: &Consortium, patient: &Identity) -> Consents {
    let mut consents = Consents::default();
    for grant in [
        grant(GranteeRole::Clinician, "dr-a", Purpose::Treatment, None),
        grant(GranteeRole::Insurer, "insurer", Purpose::Payment, claim("claim-1")),
        grant(GranteeRole::Researcher, "researcher", Purpose::Research, study("study-1")),
    ] {
        consents.add(&signed(consortium, patient, &Statement::Grant(grant))).unwrap();
    }
    consents
}

fn ask(
    consortium: &Consortium,
    who: &str,
    purpose: Purpose,
    scope: Option<Scope>,
) -> AccessRequest {
    let key = consortium.state.keys_named(who).last().unwrap();
    let research = key.role == Role::Researcher;
    AccessRequest {
        who: Principal::of(key).unwrap(),
        action: if research { Action::ReadPseudonymised } else { Action::Read },
        purpose,
        scope,
        data: Data {
            subject: token("subject-1"),
            kind: DataKind::Vitals,
            event_s: NOW_S - 10,
            claims: [token("claim-1")].into(),
        },
        now_s: NOW_S,
    }
}

#[test]
fn the_bundle_is_sound_and_must_be_the_agreed_one() {
    assert!(Decider::new(bundle_hash()).is_ok());
    let other = Decider::new(crate::governance::Digest::of(b"other"));
    assert!(matches!(other, Err(BundleError::Other { .. })));
    let text = include_str!("../../policies/access.cedar");
    assert!(text.contains(&format!("context.viewAge > {MAX_VIEW_AGE_S} ")));
}

/// Who changes a policy changes what all sites must agree on; it must not happen by accident.
#[test]
fn the_bundle_is_the_one_that_was_agreed_on() {
    expect_test::expect!["72542be225336be9b3779055c01495757c5a0a8419b6e1da444b99f66be0568d"]
        .assert_eq(&bundle_hash().to_string());
}

/// Who may read: name, purpose, scope, and the policies that allow it; none where it is denied.
#[test]
fn access_is_as_the_patient_has_allowed() {
    let (consortium, patient) = registered();
    let (decider, consents) =
        (Decider::new(bundle_hash()).unwrap(), consents(&consortium, &patient));
    let me = patient_key_name("subject-1");
    let other = patient_key_name("subject-2");
    let (treat, pay, research) = (Purpose::Treatment, Purpose::Payment, Purpose::Research);
    for (who, purpose, scope, by) in [
        (me.as_str(), treat, None, Some("patient-reads-own")),
        (&other, treat, None, None),
        (&other, Purpose::Emergency, None, None),
        ("dr-a", treat, None, Some("clinician-treats")),
        ("dr-a", pay, None, None),
        ("dr-a", research, study("study-1"), None),
        ("dr-a", pay, claim("claim-1"), None),
        ("dr-b", treat, None, None),
        ("dr-b", Purpose::Emergency, None, Some("break-glass")),
        ("insurer", pay, claim("claim-1"), Some("insurer-settles-claim")),
        ("insurer", pay, claim("claim-2"), None),
        ("insurer", pay, study("claim-1"), None),
        ("insurer", pay, None, None),
        ("insurer", treat, claim("claim-1"), None),
        ("insurer", Purpose::Emergency, claim("claim-1"), None),
        ("researcher", research, study("study-1"), Some("researcher-studies")),
        ("researcher", research, study("study-2"), None),
        ("researcher", research, None, None),
        ("researcher", treat, None, None),
        ("pump", treat, None, None),
    ] {
        let request = ask(&consortium, who, purpose, scope.clone());
        let decision = decider.decide(&request, &consents, 3);
        let line = format!("{who} {purpose:?} {scope:?}: {decision:?}");
        assert_eq!(decision.allowed, by.is_some(), "{line}");
        if let Some(by) = by {
            assert_eq!(decision.reasons, [by], "{line}");
        }
        assert_eq!(
            decision.break_glass,
            decision.allowed && purpose == Purpose::Emergency,
            "{line}"
        );
    }
}

#[test]
fn a_grant_to_a_member_is_one_to_its_clinicians() {
    let (consortium, patient) = registered();
    let decider = Decider::new(bundle_hash()).unwrap();
    let mut consents = Consents::default();
    let to_b = Statement::Grant(grant(GranteeRole::Member, "b", Purpose::Treatment, None));
    consents.add(&signed(&consortium, &patient, &to_b)).unwrap();
    let allowed = |who| {
        decider.decide(&ask(&consortium, who, Purpose::Treatment, None), &consents, 0).allowed
    };
    assert!(allowed("dr-b") && !allowed("dr-a") && !allowed("insurer"));
}

#[test]
fn an_insurer_sees_the_events_of_one_claim_and_nothing_else() {
    let (consortium, patient) = registered();
    let (decider, consents) =
        (Decider::new(bundle_hash()).unwrap(), consents(&consortium, &patient));
    let mut seen = Vec::new();
    let sets = [&[][..], &["claim-1"], &["claim-2"], &["claim-1", "claim-2"]];
    for subject in ["subject-1", "subject-2"] {
        for (n, claims) in sets.iter().enumerate() {
            for kind in DataKind::ALL {
                for asked in [None, claim("claim-1"), claim("claim-2"), study("claim-1")] {
                    let mut request = ask(&consortium, "insurer", Purpose::Payment, asked);
                    request.data.subject = token(subject);
                    request.data.kind = *kind;
                    request.data.claims = claims.iter().map(|claim| token(claim)).collect();
                    if decider.decide(&request, &consents, 0).allowed {
                        seen.push((subject, n, kind.code()));
                    }
                }
            }
        }
    }
    let (vitals, event) = ("vitals", "flagged-event");
    let one = [
        ("subject-1", 1, vitals),
        ("subject-1", 1, event),
        ("subject-1", 3, vitals),
        ("subject-1", 3, event),
    ];
    assert_eq!(seen, one);
}

#[test]
fn a_researcher_never_reads_under_the_sites_pseudonym() {
    let (consortium, patient) = registered();
    let (decider, consents) =
        (Decider::new(bundle_hash()).unwrap(), consents(&consortium, &patient));
    let mut request = ask(&consortium, "researcher", Purpose::Research, study("study-1"));
    request.action = Action::Read;
    let decision = decider.decide(&request, &consents, 0);
    assert_eq!(
        (decision.allowed, decision.reasons),
        (false, vec!["researcher-never-identified".into()])
    );
}

#[test]
fn an_old_view_decides_nothing_but_emergencies() {
    let (consortium, patient) = registered();
    let (decider, consents) =
        (Decider::new(bundle_hash()).unwrap(), consents(&consortium, &patient));
    let decide = |who: &str, purpose, age| {
        decider.decide(&ask(&consortium, who, purpose, None), &consents, age)
    };
    assert!(decide("dr-a", Purpose::Treatment, 60).allowed);
    for age in [61, u64::MAX] {
        let late = decide("dr-a", Purpose::Treatment, age);
        assert_eq!((late.allowed, late.reasons), (false, vec!["view-too-old".to_owned()]));
        assert!(!decide(&patient_key_name("subject-1"), Purpose::Treatment, age).allowed);
        let emergency = decide("dr-b", Purpose::Emergency, age);
        assert!(emergency.allowed && emergency.break_glass);
    }
}

#[test]
fn a_grant_holds_in_its_time_for_its_data() {
    let (consortium, patient) = registered();
    let decider = Decider::new(bundle_hash()).unwrap();
    let mut given = grant(GranteeRole::Clinician, "dr-a", Purpose::Treatment, None);
    given.data_period = Some(Interval::new(NOW_S - 50, NOW_S).unwrap());
    let mut consents = Consents::default();
    consents.add(&signed(&consortium, &patient, &Statement::Grant(given))).unwrap();
    for (now_s, event_s, allowed) in [
        (NOW_S, NOW_S - 1, true),
        (NOW_S - 100, NOW_S - 50, true),
        (NOW_S - 101, NOW_S - 50, false),
        (NOW_S + 99, NOW_S - 50, true),
        (NOW_S + 100, NOW_S - 50, false),
        (NOW_S, NOW_S, false),
        (NOW_S, NOW_S - 51, false),
    ] {
        let mut request = ask(&consortium, "dr-a", Purpose::Treatment, None);
        (request.now_s, request.data.event_s) = (now_s, event_s);
        assert_eq!(decider.decide(&request, &consents, 0).allowed, allowed, "{now_s} {event_s}");
    }
}

#[test]
fn a_revocation_holds_whichever_comes_first() {
    let (consortium, patient) = registered();
    let decider = Decider::new(bundle_hash()).unwrap();
    let given = grant(GranteeRole::Clinician, "dr-a", Purpose::Treatment, None);
    let given = signed(&consortium, &patient, &Statement::Grant(given));
    let revocation = Revocation { subject: token("subject-1"), grant: given.id() };
    let revocation = signed(&consortium, &patient, &Statement::Revocation(revocation));
    let request = ask(&consortium, "dr-a", Purpose::Treatment, None);
    for order in [[&given, &revocation, &given], [&revocation, &given, &revocation]] {
        let mut consents = Consents::default();
        for statement in order {
            consents.add(statement).unwrap();
        }
        assert!(!decider.decide(&request, &consents, 0).allowed);
    }
    // Another patient's revocation of it is nothing.
    let other = identity(&patient_key_name("subject-2"));
    let foreign = Revocation { subject: token("subject-2"), grant: given.id() };
    let foreign = signed(&consortium, &other, &Statement::Revocation(foreign));
    let mut consents = Consents::default();
    consents.add(&given).unwrap();
    consents.add(&foreign).unwrap();
    assert!(decider.decide(&request, &consents, 0).allowed);
    consents.forget(&token("subject-1"));
    assert!(!decider.decide(&request, &consents, 0).allowed, "the patient was erased");
}

#[test]
fn only_the_patient_signs() {
    let (mut consortium, patient) = registered();
    let statement =
        Statement::Grant(grant(GranteeRole::Clinician, "dr-a", Purpose::Treatment, None));
    let note = SignedStatement::sign(&statement, SITE, &patient).unwrap();
    let open = |note: &[u8], site: &str, consortium: &Consortium| {
        SignedStatement::open(note, site, &consortium.state).map(drop)
    };
    assert_eq!(open(&note, SITE, &consortium), Ok(()));
    assert_eq!(open(&note, "fog.b/site-log", &consortium), Err(StatementError::Site));
    for byte in 0..note.len() {
        let mut flipped = note.clone();
        flipped[byte] ^= 1;
        assert!(open(&flipped, SITE, &consortium).is_err(), "byte {byte}");
    }
    let other = identity(&patient_key_name("subject-2"));
    let signed = SignedStatement::sign(&statement, SITE, &other);
    assert_eq!(signed, Err(StatementError::Signature));
    let stolen = Identity::generate(patient.origin(), [1; 32]).unwrap();
    let stolen = SignedStatement::sign(&statement, SITE, &stolen).unwrap();
    assert_eq!(open(&stolen, SITE, &consortium), Err(StatementError::Signature));
    let revoke = KeyBody::Revoke { key: patient.vkey().into() };
    let before = consortium.state.next_index();
    consortium.say("a", EntryKind::Key, &revoke).unwrap();
    assert_eq!(open(&note, SITE, &consortium), Err(StatementError::Signature));
    let then = |index| SignedStatement::open_at(&note, SITE, &consortium.state, index).is_ok();
    assert!(then(before - 1) && !then(before + 1), "it was committed to before, or after");
}

#[test]
fn a_revoked_reader_is_nobody() {
    let (mut consortium, _) = registered();
    let key = identity("dr-a");
    let revoke = KeyBody::Revoke { key: key.vkey().into() };
    let entry =
        Entry::sign(EntryKind::Key, crate::governance::tests::LOG, &revoke, &[&key]).unwrap();
    consortium.apply(entry).unwrap();
    assert_eq!(Principal::of(&consortium.state.keys_named("dr-a")[0]), None);
}

#[test]
fn grants_that_nothing_acts_on_are_refused() {
    use GranteeRole::{Clinician, Insurer, Member, Researcher};
    let mut usable = Vec::new();
    for role in [Clinician, Member, Insurer, Researcher] {
        for purpose in Purpose::ALL {
            for scope in [None, claim("1"), study("1")] {
                if grant(role, "x", *purpose, scope.clone()).check().is_ok() {
                    usable.push((role, purpose.code(), scope));
                }
            }
        }
    }
    let expected = [
        (Clinician, "TREAT", None),
        (Member, "TREAT", None),
        (Insurer, "HPAYMT", claim("1")),
        (Researcher, "HRESCH", study("1")),
    ];
    assert_eq!(usable, expected);
    let mut empty = grant(Clinician, "x", Purpose::Treatment, None);
    empty.kinds = BTreeSet::new();
    assert_eq!(empty.check(), Err(GrantError::Nothing));
}

#[test]
fn records_open_to_what_was_signed() {
    let (consortium, patient) = registered();
    let given = Statement::Grant(grant(GranteeRole::Clinician, "dr-a", Purpose::Treatment, None));
    let given = signed(&consortium, &patient, &given);
    let record = given.record([9; 32]);
    assert_eq!((record.kind, record.name), (LeafKind::ConsentGrant, given.id().0));
    assert_eq!(SignedStatement::open(&record.body, SITE, &consortium.state).unwrap(), given);
    assert!(!format!("{given:?}").contains("subject-1"));
}

#[test]
fn a_decision_is_an_audit_event() {
    let (consortium, patient) = registered();
    let (decider, consents) =
        (Decider::new(bundle_hash()).unwrap(), consents(&consortium, &patient));
    let shown = |request: &AccessRequest| {
        let decision = decider.decide(request, &consents, 4);
        let record = audit_record(request, &decision, SITE, [9; 32]);
        assert_eq!(record.kind, LeafKind::AccessDecision);
        let event: serde_json::Value = serde_json::from_slice(&record.body).unwrap();
        serde_json::to_string_pretty(&event).unwrap().replace(&bundle_hash().to_string(), "BUNDLE")
    };
    let emergency = shown(&ask(&consortium, "dr-b", Purpose::Emergency, None));
    expect_test::expect![[r#"
        {
          "resourceType": "AuditEvent",
          "type": {
            "system": "http://dicom.nema.org/resources/ontology/DCM",
            "code": "110110"
          },
          "action": "R",
          "recorded": "2026-09-21T14:13:20Z",
          "outcome": "0",
          "purposeOfEvent": [
            {
              "coding": [
                {
                  "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
                  "code": "ETREAT"
                }
              ]
            }
          ],
          "agent": [
            {
              "role": [
                {
                  "coding": [
                    {
                      "system": "urn:haar:role",
                      "code": "clinician"
                    }
                  ]
                }
              ],
              "who": {
                "identifier": {
                  "system": "urn:haar:key",
                  "value": "dr-b"
                }
              },
              "altId": "b",
              "requestor": true,
              "policy": [
                "urn:haar:policy:break-glass"
              ]
            }
          ],
          "source": {
            "observer": {
              "identifier": {
                "system": "urn:haar:site",
                "value": "fog.a/site-log"
              }
            }
          },
          "entity": [
            {
              "what": {
                "identifier": {
                  "system": "urn:haar:subject",
                  "value": "subject-1"
                }
              },
              "type": {
                "system": "http://terminology.hl7.org/CodeSystem/audit-entity-type",
                "code": "1"
              },
              "role": {
                "system": "http://terminology.hl7.org/CodeSystem/object-role",
                "code": "1"
              }
            },
            {
              "type": {
                "system": "urn:haar:data-kind",
                "code": "vitals"
              },
              "role": {
                "system": "http://terminology.hl7.org/CodeSystem/object-role",
                "code": "3"
              },
              "detail": [
                {
                  "type": "action",
                  "valueString": "read"
                },
                {
                  "type": "event-time",
                  "valueString": "2026-09-21T14:13:10Z"
                },
                {
                  "type": "view-age-s",
                  "valueString": "4"
                },
                {
                  "type": "policy-bundle",
                  "valueString": "BUNDLE"
                }
              ]
            }
          ],
          "subtype": [
            {
              "system": "http://dicom.nema.org/resources/ontology/DCM",
              "code": "110127"
            }
          ]
        }"#]]
    .assert_eq(&emergency);
    let denied = shown(&ask(&consortium, "insurer", Purpose::Payment, claim("claim-2")));
    assert!(denied.contains(r#""outcome": "4""#) && !denied.contains("110127"));
    assert!(denied.contains("urn:haar:policy:insurer-only-its-claim"));
    assert!(denied.contains(r#""valueString": "claim:claim-2""#));
}
