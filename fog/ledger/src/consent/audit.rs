//! Decisions as FHIR R4 `AuditEvent` (<https://hl7.org/fhir/R4/auditevent.html>): bodies of the records
//! of kind `access-decision`.
//!
//! `type` is DICOM's 110110 (Patient Record); a break-glass has the subtype 110127 (Emergency Override
//! Started). `outcome` is 0 if it was allowed and 4 if not; `agent.policy` names the policies that decided
//! as `urn:haar:policy:<id>`. What is asked about stands in `entity.detail`.

use super::codes::Scope;
use super::decide::{AccessRequest, Action, Decision};
use super::fhir::{KIND, REASON, ROLE, SUBJECT, coding, identifier, instant};
use crate::leaf::{LeafKey, LeafKind, Name};
use crate::tables::Record;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const DICOM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const EMERGENCY: &str = "110127";
const ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
const OBJECT_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
const NAME_DOMAIN: &[u8] = b"haar-access-v1";

/// The `AuditEvent` of a decision at the site whose log has this origin.
pub fn audit_event(request: &AccessRequest, decision: &Decision, site: &str) -> Vec<u8> {
    let policy: Vec<_> =
        decision.reasons.iter().map(|id| format!("urn:haar:policy:{id}")).collect();
    let mut agent = json!({
        "role": [{"coding": [coding(ROLE, &request.who.role().to_string())]}],
        "who": {"identifier": {"system": super::fhir::KEY, "value": request.who.name()}},
        "altId": request.who.member().as_str(),
        "requestor": true,
    });
    if !policy.is_empty() {
        agent["policy"] = json!(policy);
    }
    let mut event = json!({
        "resourceType": "AuditEvent",
        "type": coding(DICOM, "110110"),
        "action": "R",
        "recorded": instant(request.now_s),
        "outcome": if decision.allowed { "0" } else { "4" },
        "purposeOfEvent": [{"coding": [coding(REASON, request.purpose.code())]}],
        "agent": [agent],
        "source": {"observer": {"identifier": {"system": "urn:haar:site", "value": site}}},
        "entity": [{
            "what": identifier(SUBJECT, &request.data.subject),
            "type": coding(ENTITY_TYPE, "1"),
            "role": coding(OBJECT_ROLE, "1"),
        }, {
            "type": coding(KIND, request.data.kind.code()),
            "role": coding(OBJECT_ROLE, "3"),
            "detail": details(request, decision),
        }],
    });
    if decision.break_glass {
        event["subtype"] = json!([coding(DICOM, EMERGENCY)]);
    }
    event.to_string().into_bytes()
}

/// The name under which all decisions about a patient are found: SHA-256 over `haar-access-v1` and the
/// pseudonym.
pub fn audit_name(subject: &str) -> Name {
    Sha256::new().chain_update(NAME_DOMAIN).chain_update(subject).finalize().into()
}

/// The record of a decision, under [`audit_name`]. `key` must be fresh and uniformly random.
pub fn audit_record(
    request: &AccessRequest,
    decision: &Decision,
    site: &str,
    key: LeafKey,
) -> Record {
    let name = audit_name(request.data.subject.as_str());
    let body = audit_event(request, decision, site);
    Record { kind: LeafKind::AccessDecision, name, key, body }
}

/// A break-glass that is recorded.
#[derive(Clone, PartialEq, Eq)]
pub struct Emergency {
    /// Whose records were read: the pseudonym, as the decision has it.
    pub subject: String,
    /// When it was decided, RFC 3339.
    pub recorded: String,
}

impl Emergency {
    /// From the body of a decision's record; `None` if it was no break-glass.
    pub fn read(body: &[u8]) -> Option<Self> {
        let event: Value = serde_json::from_slice(body).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        (event["subtype"][0]["code"] == EMERGENCY).then_some(())?;
        let subject = text(&event["entity"][0]["what"]["identifier"]["value"])?;
        Some(Self { subject, recorded: text(&event["recorded"])? })
    }
}

fn details(request: &AccessRequest, decision: &Decision) -> Vec<Value> {
    let action = match request.action {
        Action::Read => "read",
        Action::ReadPseudonymised => "read-pseudonymised",
    };
    let mut details = vec![
        ("action", action.to_owned()),
        ("event-time", instant(request.data.event_s)),
        ("view-age-s", decision.view_age_s.to_string()),
        ("policy-bundle", decision.bundle.to_string()),
    ];
    details.extend(request.scope.as_ref().map(|scope| ("scope", Scope::text(scope))));
    details.into_iter().map(|(name, value)| json!({"type": name, "valueString": value})).collect()
}
