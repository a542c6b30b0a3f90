//! What patients allow, and who may therefore read what.
//!
//! A [`Grant`] or [`Revocation`] is a text that the patient signs ([`SignedStatement`]). It is
//! confidential: it becomes a [`Record`](crate::Record), of which only the commitment is put before the
//! members. FHIR R4 `Consent` is read and written ([`grant_from_fhir`], [`grant_to_fhir`]).
//!
//! # How access is decided
//! [`Decider::decide`] asks Cedar. There is one bundle of policies for all sites; its SHA-256
//! ([`bundle_hash`]) is part of the consortium's [`State`](crate::governance::State), and a site whose own
//! is another does not decide at all. The entities are the grants that are in force now and cover the
//! time of the event. Every decision becomes a record of kind `access-decision` whose body is a FHIR R4
//! `AuditEvent` ([`audit_record`]).
//!
//! # Time
//! Passed in. How old the site's view of the consortium log is, is passed in too: above 60 s everything is
//! refused but break-glass, which is meant for the case that nothing else works.
//!
//! # Not guaranteed
//! That the reader was who the key says; that a clinician had an emergency (patient and members are told
//! of it); that what was read is forgotten after a revocation.

mod audit;
mod codes;
mod decide;
mod fhir;
mod pseudonym;
mod request;
mod statement;

pub use audit::{Emergency, audit_event, audit_name, audit_record};
pub use codes::{
    DataKind, Grantee, GranteeRole, Interval, MAX_TIME_S, Purpose, Scope, Token, TokenError,
};
pub use decide::{
    AccessRequest, Action, BundleError, Data, Decider, Decision, MAX_VIEW_AGE_S, Principal,
    bundle_hash,
};
pub use fhir::{FhirError, MAX_FHIR_BYTES, grant_from_fhir, grant_to_fhir};
pub use pseudonym::{StudyKey, patient_key_name};
pub use request::{MAX_NONCES, MAX_SKEW_S, Nonces, RequestError, RequestSignature, SignedRequest};
pub use statement::{
    Consents, Grant, GrantError, MAX_GRANTS_PER_SUBJECT, MAX_STATEMENT_BYTES, Revocation,
    SignedStatement, Statement, StatementError,
};

#[cfg(test)]
mod tests;
