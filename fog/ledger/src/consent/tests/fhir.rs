//! Grants as FHIR `Consent`, there and back.

use super::*;
use serde_json::{Value, json};

fn all() -> Vec<Grant> {
    let mut dated = grant(GranteeRole::Clinician, "dr-a", Purpose::Treatment, None);
    dated.data_period = Some(Interval::new(0, NOW_S).unwrap());
    vec![
        dated,
        grant(GranteeRole::Member, "b", Purpose::Treatment, None),
        grant(GranteeRole::Insurer, "insurer", Purpose::Payment, claim("claim-1")),
        grant(GranteeRole::Researcher, "researcher", Purpose::Research, study("study-1")),
    ]
}

#[test]
fn grants_round_trip() {
    for grant in all() {
        let resource = grant_to_fhir(&grant, "0f", NOW_S, true);
        assert_eq!(grant_from_fhir(&resource), Ok(grant.clone()));
        let revoked = grant_to_fhir(&grant, "0f", NOW_S, false);
        assert_eq!(grant_from_fhir(&revoked), Err(FhirError::Value("status".into())));
    }
}

#[test]
fn a_consent_is_as_documented() {
    let resource: Value =
        serde_json::from_slice(&grant_to_fhir(&all()[2], "0f", NOW_S, true)).unwrap();
    expect_test::expect![[r#"
        {
          "resourceType": "Consent",
          "id": "0f",
          "status": "active",
          "scope": {
            "coding": [
              {
                "system": "http://terminology.hl7.org/CodeSystem/consentscope",
                "code": "patient-privacy"
              }
            ]
          },
          "category": [
            {
              "coding": [
                {
                  "system": "http://loinc.org",
                  "code": "59284-0"
                }
              ]
            }
          ],
          "patient": {
            "identifier": {
              "system": "urn:haar:subject",
              "value": "subject-1"
            }
          },
          "dateTime": "2026-09-21T14:13:20Z",
          "policyRule": {
            "coding": [
              {
                "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
                "code": "OPTIN"
              }
            ]
          },
          "provision": {
            "type": "permit",
            "period": {
              "start": "2026-09-21T14:11:40Z",
              "end": "2026-09-21T14:14:59Z"
            },
            "actor": [
              {
                "role": {
                  "coding": [
                    {
                      "system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType",
                      "code": "IRCP"
                    },
                    {
                      "system": "urn:haar:role",
                      "code": "insurer"
                    }
                  ]
                },
                "reference": {
                  "identifier": {
                    "system": "urn:haar:key",
                    "value": "insurer"
                  }
                }
              }
            ],
            "action": [
              {
                "coding": [
                  {
                    "system": "http://terminology.hl7.org/CodeSystem/consentaction",
                    "code": "access"
                  }
                ]
              }
            ],
            "purpose": [
              {
                "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
                "code": "HPAYMT"
              }
            ],
            "class": [
              {
                "system": "urn:haar:data-kind",
                "code": "vitals"
              },
              {
                "system": "urn:haar:data-kind",
                "code": "flagged-event"
              }
            ],
            "data": [
              {
                "meaning": "instance",
                "reference": {
                  "identifier": {
                    "system": "urn:haar:claim",
                    "value": "claim-1"
                  }
                }
              }
            ]
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&resource).unwrap());
}

/// Whatever is added or taken away: an error that names it, or the same grant.
#[test]
fn what_does_not_map_is_named() {
    let resource: Value =
        serde_json::from_slice(&grant_to_fhir(&all()[2], "0f", NOW_S, true)).unwrap();
    let with = |path: &str, value: Value| {
        let mut edited = resource.clone();
        let (parent, name) = path.rsplit_once('/').unwrap();
        edited.pointer_mut(parent).unwrap()[name] = value;
        grant_from_fhir(edited.to_string().as_bytes())
    };
    let unmapped = |path: &str| Err(FhirError::Unmapped(path.into()));
    let value = |path: &str| Err(FhirError::Value(path.into()));
    let nested = with("/provision/provision", json!([{"type": "deny"}]));
    assert_eq!(nested, unmapped("provision.provision"));
    assert_eq!(with("/modifierExtension", json!([])), unmapped("modifierExtension"));
    assert_eq!(with("/implicitRules", json!("urn:x")), unmapped("implicitRules"));
    assert_eq!(with("/scope/coding/0/code", json!("adr")), value("scope.coding"));
    assert_eq!(with("/performer", json!([])), unmapped("performer"));
    assert_eq!(with("/provision/securityLabel", json!([])), unmapped("provision.securityLabel"));
    assert_eq!(with("/provision/type", json!("deny")), value("provision.type"));
    assert_eq!(with("/status", json!("draft")), value("status"));
    assert_eq!(with("/provision/period/end", json!("2027-01-01")), value("provision.period.end"));
    let precise = json!("2027-01-01T00:00:00.5Z");
    assert_eq!(with("/provision/period/end", precise), value("provision.period.end"));
    assert_eq!(
        with("/provision/purpose/0/code", json!("HOPERAT")),
        value("provision.purpose.code")
    );
    let emergency = with("/provision/purpose/0/code", json!("ETREAT"));
    assert_eq!(emergency, Err(FhirError::Grant(GrantError::Unusable)));
    let actor = resource["provision"]["actor"][0].clone();
    assert_eq!(with("/provision/actor", json!([actor, actor])), value("provision.actor"));
    let patient = json!({"reference": "Patient/f001"});
    assert_eq!(with("/patient", patient), Err(FhirError::Missing("patient.identifier".into())));
    assert_eq!(grant_from_fhir(b"{}"), Err(FhirError::NotConsent));
    assert_eq!(grant_from_fhir(b"["), Err(FhirError::Json));
    // A zone other than UTC is the same time.
    let zoned = with("/provision/period/start", json!("2026-09-21T16:11:40+02:00"));
    assert_eq!(zoned, Ok(all()[2].clone()));
}

/// The example of HL7 names neither who nor why; with these and our names for the rest it is a grant.
#[test]
fn recorded_the_example_of_hl7_is_read_once_it_says_who_and_why() {
    let file = crate::fixtures::folder()
        .with_file_name("fixtures-health/fhir-test-cases/r4/examples/consent-example.json");
    let mut example: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let read = |example: &Value| grant_from_fhir(example.to_string().as_bytes());
    assert_eq!(read(&example), Err(FhirError::Missing("patient.identifier".into())));
    let ours: Value = serde_json::from_slice(&grant_to_fhir(&all()[1], "0f", NOW_S, true)).unwrap();
    example["patient"] = ours["patient"].clone();
    assert_eq!(read(&example), Err(FhirError::Value("provision.period.start".into())));
    example["provision"]["period"] = ours["provision"]["period"].clone();
    assert_eq!(read(&example), Err(FhirError::Missing("provision.actor".into())));
    for name in ["actor", "purpose", "class"] {
        example["provision"][name] = ours["provision"][name].clone();
    }
    assert_eq!(read(&example), Ok(all()[1].clone()));
}
