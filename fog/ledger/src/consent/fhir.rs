//! Grants as FHIR R4 `Consent` (<https://hl7.org/fhir/R4/consent.html>).
//!
//! # What maps
//! | `Consent` | [`Grant`] |
//! |---|---|
//! | `patient.identifier`, system `urn:haar:subject` | subject |
//! | `provision.actor[0]`: role of system `urn:haar:role`; reference's identifier of `urn:haar:key` | grantee |
//! | `provision.class`, system `urn:haar:data-kind` | kinds |
//! | `provision.purpose[0]`, system v3-ActReason | purpose |
//! | `provision.period`, to the second; FHIR's end is the last second in it | period |
//! | `provision.dataPeriod` | data period |
//! | `provision.data[0]`, meaning `instance`: identifier of `urn:haar:claim` or `urn:haar:study` | scope |
//!
//! `status` must be `active`, `scope` patient-privacy or research, `policyRule` absent or OPTIN, `provision.type` absent or `permit`,
//! `provision.action` absent or `access`. What says nothing about who may read (narrative, organisation,
//! source, category and so on) is passed over. *Everything* else is an error that names the element:
//! an exception that somebody wrote into a nested provision must not get lost.
//!
//! What is read is not signed; the patient signs the [`Grant`].

use super::codes::{DataKind, Grantee, Interval, MAX_TIME_S, Purpose, Scope, Token};
use super::statement::{Grant, GrantError};
use serde_json::{Map, Value, json};
use std::str::FromStr;

/// The longest resource that is read.
pub const MAX_FHIR_BYTES: usize = 64 * 1024;

pub(super) const SUBJECT: &str = "urn:haar:subject";
pub(super) const KEY: &str = "urn:haar:key";
pub(super) const ROLE: &str = "urn:haar:role";
pub(super) const KIND: &str = "urn:haar:data-kind";
pub(super) const CLAIM: &str = "urn:haar:claim";
pub(super) const STUDY: &str = "urn:haar:study";
pub(super) const REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
const CONSENT_SCOPE: &str = "http://terminology.hl7.org/CodeSystem/consentscope";
const CONSENT_ACTION: &str = "http://terminology.hl7.org/CodeSystem/consentaction";
const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";

/// Elements that do not say who may read what.
const PASSED_OVER: [&str; 10] = [
    "id",
    "meta",
    "language",
    "text",
    "identifier",
    "dateTime",
    "organization",
    "category",
    "sourceAttachment",
    "sourceReference",
];

/// Why a resource is not a grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FhirError {
    /// Too long or not JSON.
    #[error("not a FHIR resource in JSON of at most {MAX_FHIR_BYTES} bytes")]
    Json,
    /// Another resource.
    #[error("not a Consent resource")]
    NotConsent,
    /// Something that a grant needs is not there.
    #[error("Consent has no {0} that a grant can be made of")]
    Missing(String),
    /// Something is there that a grant cannot say.
    #[error("Consent.{0} says what a grant cannot say; write a consent without it")]
    Unmapped(String),
    /// A value that a grant cannot have.
    #[error("Consent.{0} has a value that a grant cannot have")]
    Value(String),
    /// It would do nothing.
    #[error(transparent)]
    Grant(#[from] GrantError),
}

/// Reads a grant from a `Consent`.
///
/// # Errors
/// If it is none, or says more or less than a grant can say.
pub fn grant_from_fhir(bytes: &[u8]) -> Result<Grant, FhirError> {
    if bytes.len() > MAX_FHIR_BYTES {
        return Err(FhirError::Json);
    }
    let value = serde_json::from_slice(bytes).map_err(|_| FhirError::Json)?;
    let mut consent = Fields::of("", value).map_err(|_| FhirError::NotConsent)?;
    if consent.map.remove("resourceType") != Some("Consent".into()) {
        return Err(FhirError::NotConsent);
    }
    consent.fixed("status", "active")?;
    consent.object("scope")?.coded(CONSENT_SCOPE, &["patient-privacy", "research"])?;
    for passed in PASSED_OVER {
        consent.map.remove(passed);
    }
    if consent.map.contains_key("policyRule") {
        consent.object("policyRule")?.coded(ACT_CODE, &["OPTIN"])?;
    }
    let subject = consent.object("patient")?.identifier(&[SUBJECT])?.1;
    let grant = provision(consent.object("provision")?, subject)?;
    consent.done()?;
    grant.check()?;
    Ok(grant)
}

/// Writes a grant as a `Consent`: active, or inactive once it is revoked. `id` names it in the resource
/// (64 characters of FHIR's id type at most, such as the statement's in hexadecimal), `signed_s` is when it
/// was signed.
pub fn grant_to_fhir(grant: &Grant, id: &str, signed_s: u64, active: bool) -> Vec<u8> {
    let classes: Vec<_> = grant.kinds.iter().map(|kind| coding(KIND, kind.code())).collect();
    let role = [coding(PARTICIPATION, "IRCP"), coding(ROLE, grant.grantee.role.code())];
    let mut provision = json!({
        "type": "permit",
        "period": period(grant.period),
        "actor": [{
            "role": {"coding": role},
            "reference": identifier(KEY, &grant.grantee.name),
        }],
        "action": [{"coding": [coding(CONSENT_ACTION, "access")]}],
        "purpose": [coding(REASON, grant.purpose.code())],
        "class": classes,
    });
    if let Some(data) = grant.data_period {
        provision["dataPeriod"] = period(data);
    }
    if let Some(scope) = &grant.scope {
        let reference = match scope {
            Scope::Claim(number) => identifier(CLAIM, number),
            Scope::Study(number) => identifier(STUDY, number),
        };
        provision["data"] = json!([{"meaning": "instance", "reference": reference}]);
    }
    let about = if grant.purpose == Purpose::Research { "research" } else { "patient-privacy" };
    let consent = json!({
        "resourceType": "Consent",
        "id": id,
        "status": if active { "active" } else { "inactive" },
        "scope": {"coding": [coding(CONSENT_SCOPE, about)]},
        "category": [{"coding": [coding("http://loinc.org", "59284-0")]}],
        "patient": identifier(SUBJECT, &grant.subject),
        "dateTime": instant(signed_s),
        "policyRule": {"coding": [coding(ACT_CODE, "OPTIN")]},
        "provision": provision,
    });
    consent.to_string().into_bytes()
}

/// A time as FHIR writes it.
pub(super) fn instant(time_s: u64) -> String {
    let seconds = i64::try_from(time_s.min(MAX_TIME_S)).unwrap_or_default();
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

pub(super) fn coding(system: &str, code: &str) -> Value {
    json!({"system": system, "code": code})
}

pub(super) fn identifier(system: &str, value: &Token) -> Value {
    json!({"identifier": {"system": system, "value": value.as_str()}})
}

fn period(interval: Interval) -> Value {
    json!({"start": instant(interval.from_s()), "end": instant(interval.until_s() - 1)})
}

fn provision(mut provision: Fields, subject: Token) -> Result<Grant, FhirError> {
    if provision.map.contains_key("type") {
        provision.fixed("type", "permit")?;
    }
    let period = provision.object("period")?.interval()?;
    let data_period = match provision.map.contains_key("dataPeriod") {
        true => Some(provision.object("dataPeriod")?.interval()?),
        false => None,
    };
    let grantee = provision.only("actor")?.grantee()?;
    if provision.map.contains_key("action") {
        provision.only("action")?.coded(CONSENT_ACTION, &["access"])?;
    }
    let purpose = provision.only("purpose")?.code(REASON)?;
    let kinds = provision.list("class")?.into_iter().map(|class| class.code::<DataKind>(KIND));
    let kinds = kinds.collect::<Result<_, _>>()?;
    let scope = match provision.map.contains_key("data") {
        true => Some(provision.only("data")?.scope()?),
        false => None,
    };
    provision.done()?;
    Ok(Grant { subject, grantee, kinds, purpose, period, data_period, scope })
}

/// The elements of an object that have not been read yet, and where it is.
struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    fn of(path: &str, value: Value) -> Result<Self, FhirError> {
        match value {
            Value::Object(map) => Ok(Self { path: path.to_owned(), map }),
            _ => Err(FhirError::Value(path.to_owned())),
        }
    }

    fn at(&self, name: &str) -> String {
        // A name of another's making: no longer than any in FHIR.
        let name: String = name.chars().take(64).collect();
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }

    fn take(&mut self, name: &str) -> Result<Value, FhirError> {
        self.map.remove(name).ok_or_else(|| FhirError::Missing(self.at(name)))
    }

    fn object(&mut self, name: &str) -> Result<Self, FhirError> {
        let value = self.take(name)?;
        Self::of(&self.at(name), value)
    }

    fn list(&mut self, name: &str) -> Result<Vec<Self>, FhirError> {
        let (path, value) = (self.at(name), self.take(name)?);
        let Value::Array(items) = value else { return Err(FhirError::Value(path)) };
        items.into_iter().map(|item| Self::of(&path, item)).collect()
    }

    fn only(&mut self, name: &str) -> Result<Self, FhirError> {
        let mut items = self.list(name)?;
        match (items.pop(), items.is_empty()) {
            (Some(item), true) => Ok(item),
            _ => Err(FhirError::Value(self.at(name))),
        }
    }

    fn text(&mut self, name: &str) -> Result<String, FhirError> {
        match self.take(name)? {
            Value::String(text) => Ok(text),
            _ => Err(FhirError::Value(self.at(name))),
        }
    }

    fn fixed(&mut self, name: &str, wanted: &str) -> Result<(), FhirError> {
        let found = self.text(name)?;
        if found == wanted { Ok(()) } else { Err(FhirError::Value(self.at(name))) }
    }

    /// Everything must have been read.
    fn done(&self) -> Result<(), FhirError> {
        match self.map.keys().next() {
            Some(name) => Err(FhirError::Unmapped(self.at(name))),
            None => Ok(()),
        }
    }

    /// `self` as a Coding of `system`.
    fn code<T: FromStr>(mut self, system: &str) -> Result<T, FhirError> {
        self.fixed("system", system)?;
        self.map.remove("display");
        let code = self.text("code")?;
        self.done()?;
        code.parse().map_err(|_| FhirError::Value(self.at("code")))
    }

    /// `self` as a CodeableConcept of exactly one code, which is one of `wanted`.
    fn coded(mut self, system: &str, wanted: &[&str]) -> Result<(), FhirError> {
        self.map.remove("text");
        let found: String = self.only("coding")?.code(system)?;
        self.done()?;
        if wanted.contains(&found.as_str()) {
            Ok(())
        } else {
            Err(FhirError::Value(self.at("coding")))
        }
    }

    /// `self` as a Reference by an identifier of one of `systems`; which, and its value.
    fn identifier(mut self, systems: &[&'static str]) -> Result<(&'static str, Token), FhirError> {
        self.map.remove("display");
        let mut identifier = self.object("identifier")?;
        self.done()?;
        let (system, value) = (identifier.text("system")?, identifier.text("value")?);
        identifier.done()?;
        let system = systems.iter().find(|known| **known == system);
        let system = system.ok_or_else(|| FhirError::Value(identifier.at("system")))?;
        let value = value.parse().map_err(|_| FhirError::Value(identifier.at("value")))?;
        Ok((system, value))
    }

    fn grantee(mut self) -> Result<Grantee, FhirError> {
        let mut role = self.object("role")?;
        role.map.remove("text");
        // Beside ours there may be HL7's code for "recipient of information".
        let mut own = None;
        for mut coding in role.list("coding")? {
            if coding.map.get("system") == Some(&ROLE.into()) && own.is_none() {
                own = Some(coding.code(ROLE)?);
            } else {
                coding.fixed("system", PARTICIPATION)?;
                coding.fixed("code", "IRCP")?;
            }
        }
        role.done()?;
        let role = own.ok_or_else(|| FhirError::Missing(self.at("role")))?;
        let name = self.object("reference")?.identifier(&[KEY])?.1;
        self.done()?;
        Ok(Grantee { role, name })
    }

    fn scope(mut self) -> Result<Scope, FhirError> {
        self.fixed("meaning", "instance")?;
        let (system, number) = self.object("reference")?.identifier(&[CLAIM, STUDY])?;
        self.done()?;
        Ok(if system == CLAIM { Scope::Claim(number) } else { Scope::Study(number) })
    }

    /// `self` as a Period with both ends, to the second.
    fn interval(mut self) -> Result<Interval, FhirError> {
        let (from_s, last_s) = (self.second("start")?, self.second("end")?);
        self.done()?;
        Interval::new(from_s, last_s.saturating_add(1)).map_err(|_| FhirError::Value(self.path))
    }

    fn second(&mut self, name: &str) -> Result<u64, FhirError> {
        let wrong = |fields: &Self| FhirError::Value(fields.at(name));
        let time: jiff::Timestamp = self.text(name)?.parse().map_err(|_| wrong(self))?;
        let whole = time.subsec_nanosecond() == 0;
        u64::try_from(time.as_second()).ok().filter(|_| whole).ok_or_else(|| wrong(self))
    }
}
