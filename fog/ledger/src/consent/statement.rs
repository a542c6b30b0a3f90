//! Grants and revocations: what patients sign.
//!
//! # Format
//! A C2SP signed-note of at most [`MAX_STATEMENT_BYTES`] with one signature, whose text is three lines:
//!
//! ```text
//! haar.invalid/consent/v1
//! <origin of the site's log>
//! {"grant":{…}} or {"revocation":{…}}, without white space, in the one form that serde writes
//! ```
//!
//! The key is the patient's, registered under [`patient_key_name`] of the subject: so nobody can grant
//! for another, and the consortium log has no table of who is who.
//!
//! # Order
//! A revocation counts whether or not its grant is known yet. A grant cannot be taken up again; a new one
//! is another text, since it begins at another second.

use super::codes::{DataKind, Grantee, GranteeRole, Interval, Purpose, Scope, Token};
use super::pseudonym::patient_key_name;
use crate::governance::{Digest, Role, State};
use crate::leaf::{LeafKey, LeafKind};
use crate::tables::Record;
use haar_identity::Identity;
use serde::{Deserialize, Serialize};
use signed_note::{Note, VerifierList};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The longest signed statement.
pub const MAX_STATEMENT_BYTES: usize = 16 * 1024;

/// The most grants of one patient that a site holds.
pub const MAX_GRANTS_PER_SUBJECT: usize = 1_024;

const HEAD: &str = "haar.invalid/consent/v1";

/// What a patient says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statement {
    /// Something is allowed.
    Grant(Grant),
    /// It no longer is.
    Revocation(Revocation),
}

/// Somebody may read something for some purpose in some time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The patient's pseudonym.
    pub subject: Token,
    /// Who may read.
    pub grantee: Grantee,
    /// What.
    pub kinds: BTreeSet<DataKind>,
    /// Why.
    pub purpose: Purpose,
    /// When it may be read.
    pub period: Interval,
    /// From when the data may be; `None`: from any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_period: Option<Interval>,
    /// The claim or study that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// A grant no longer holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The patient's pseudonym.
    pub subject: Token,
    /// [`SignedStatement::id`] of the grant.
    pub grant: Digest,
}

/// A grant that no policy would ever act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Nothing is granted.
    #[error("a grant names at least one kind of data")]
    Nothing,
    /// Role, purpose and scope do not go together.
    #[error(
        "clinicians and members are granted TREAT without a scope, insurers HPAYMT for one claim, \
         researchers HRESCH for one study; ETREAT (break-glass) is granted to nobody"
    )]
    Unusable,
}

/// Why bytes are not a statement to act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// Too long, or not a signed note of three lines in its one form.
    #[error("not a signed statement of consent (`haar ledger grant` makes them)")]
    Malformed,
    /// Made for another site.
    #[error("the statement is meant for another site")]
    Site,
    /// Not signed by a key of this patient that counts.
    #[error(
        "the statement is not signed by a registered key of the patient that has not been revoked"
    )]
    Signature,
    /// A grant that does nothing.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// Too many.
    #[error("a patient has at most {MAX_GRANTS_PER_SUBJECT} grants and as many revocations")]
    Full,
}

impl Grant {
    /// # Errors
    /// If no policy would ever act on it.
    pub fn check(&self) -> Result<(), GrantError> {
        if self.kinds.is_empty() {
            return Err(GrantError::Nothing);
        }
        match (self.grantee.role, self.purpose, &self.scope) {
            (GranteeRole::Clinician | GranteeRole::Member, Purpose::Treatment, None)
            | (GranteeRole::Insurer, Purpose::Payment, Some(Scope::Claim(_)))
            | (GranteeRole::Researcher, Purpose::Research, Some(Scope::Study(_))) => Ok(()),
            _ => Err(GrantError::Unusable),
        }
    }
}

impl Statement {
    /// The patient's pseudonym.
    pub fn subject(&self) -> &Token {
        match self {
            Self::Grant(grant) => &grant.subject,
            Self::Revocation(revocation) => &revocation.subject,
        }
    }

    fn text(&self, site: &str) -> Option<String> {
        Some(format!("{HEAD}\n{site}\n{}\n", serde_json::to_string(self).ok()?))
    }
}

/// A statement whose signature has been checked.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedStatement {
    note: Vec<u8>,
    statement: Statement,
    id: Digest,
}

impl SignedStatement {
    /// Signs a statement for a site, by the patient's key.
    ///
    /// # Errors
    /// If the grant would do nothing, or the key does not bear the patient's name.
    pub fn sign(
        statement: &Statement,
        site: &str,
        patient: &Identity,
    ) -> Result<Vec<u8>, StatementError> {
        if let Statement::Grant(grant) = statement {
            grant.check()?;
        }
        if patient.origin() != patient_key_name(statement.subject().as_str()) {
            return Err(StatementError::Signature);
        }
        let text = statement.text(site).ok_or(StatementError::Malformed)?;
        patient.sign(&text).map_err(|_| StatementError::Malformed)
    }

    /// Reads a new statement and checks it against the keys that the consortium log has registered.
    ///
    /// # Errors
    /// If it is not one for this site that a key of the patient has signed which counts now.
    pub fn open(bytes: &[u8], site: &str, state: &State) -> Result<Self, StatementError> {
        Self::open_at(bytes, site, state, state.next_index())
    }

    /// Reads a statement whose commitment has been put before the members at leaf `index`: what a key
    /// signed before it was revoked goes on to hold.
    ///
    /// # Errors
    /// If it is not one for this site that a key of the patient has signed which counted then.
    pub fn open_at(
        bytes: &[u8],
        site: &str,
        state: &State,
        index: u64,
    ) -> Result<Self, StatementError> {
        let malformed = || StatementError::Malformed;
        if bytes.len() > MAX_STATEMENT_BYTES {
            return Err(malformed());
        }
        let note = Note::from_bytes(bytes).map_err(|_| malformed())?;
        let text = std::str::from_utf8(note.text()).map_err(|_| malformed())?;
        let signatures =
            bytes.split(|c| *c == b'\n').filter(|line| line.starts_with("— ".as_bytes()));
        if note.to_bytes() != bytes || signatures.count() != 1 {
            return Err(malformed());
        }
        let mut lines = text.split('\n');
        let (Some(HEAD), Some(origin), Some(body)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(malformed());
        };
        let statement: Statement = serde_json::from_str(body).map_err(|_| malformed())?;
        if statement.text(origin).as_deref() != Some(text) {
            return Err(malformed());
        }
        if origin != site {
            return Err(StatementError::Site);
        }
        if let Statement::Grant(grant) = &statement {
            grant.check()?;
        }
        let keys = state.keys_named(&patient_key_name(statement.subject().as_str()));
        let signed = |key: &crate::VerifierKey| {
            note.verify(&VerifierList::new(vec![Box::new(key.note_verifier().clone())])).is_ok()
        };
        let mut keys = keys.iter().filter(|key| key.role == Role::Patient && key.counts_at(index));
        if !keys.any(|key| signed(key.key.vkey())) {
            return Err(StatementError::Signature);
        }
        let id = Digest::of(text.as_bytes());
        Ok(Self { note: bytes.to_vec(), statement, id })
    }

    /// What it says.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// SHA-256 of the text.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The record that goes into the site's log. `key` must be fresh and uniformly random.
    pub fn record(&self, key: LeafKey) -> Record {
        let kind = match self.statement {
            Statement::Grant(_) => LeafKind::ConsentGrant,
            Statement::Revocation(_) => LeafKind::ConsentRevocation,
        };
        Record { kind, name: self.id.0, key, body: self.note.clone() }
    }
}

impl fmt::Debug for SignedStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedStatement({})", self.id)
    }
}

/// All grants and revocations that a site knows.
#[derive(Default)]
pub struct Consents {
    subjects: BTreeMap<Token, Subject>,
}

#[derive(Default)]
struct Subject {
    grants: BTreeMap<Digest, Grant>,
    revoked: BTreeSet<Digest>,
}

impl Consents {
    /// Takes note of a statement; the same one twice changes nothing.
    ///
    /// # Errors
    /// If the patient has too many.
    pub fn add(&mut self, signed: &SignedStatement) -> Result<(), StatementError> {
        self.has_room_for(signed)?;
        let subject = self.subjects.entry(signed.statement.subject().clone()).or_default();
        match &signed.statement {
            Statement::Grant(grant) => drop(subject.grants.insert(signed.id, grant.clone())),
            Statement::Revocation(revocation) => drop(subject.revoked.insert(revocation.grant)),
        }
        Ok(())
    }

    /// Whether [`Self::add`] would take it.
    ///
    /// # Errors
    /// As that.
    pub fn has_room_for(&self, signed: &SignedStatement) -> Result<(), StatementError> {
        let Some(subject) = self.subjects.get(signed.statement.subject()) else { return Ok(()) };
        let said = match &signed.statement {
            Statement::Grant(_) => subject.grants.len(),
            Statement::Revocation(_) => subject.revoked.len(),
        };
        if said < MAX_GRANTS_PER_SUBJECT { Ok(()) } else { Err(StatementError::Full) }
    }

    /// The patient was erased: what they said is not known any more, and nothing holds.
    pub fn forget(&mut self, subject: &Token) {
        self.subjects.remove(subject);
    }

    /// The patient's grants that hold at `now_s` for data from `event_s`.
    pub fn in_force(
        &self,
        subject: &Token,
        now_s: u64,
        event_s: u64,
    ) -> impl Iterator<Item = &Grant> {
        let held = self.subjects.get(subject).into_iter().flat_map(|subject| {
            subject.grants.iter().filter(|(id, _)| !subject.revoked.contains(*id))
        });
        held.map(|(_, grant)| grant).filter(move |grant| {
            grant.period.contains(now_s)
                && grant.data_period.is_none_or(|data| data.contains(event_s))
        })
    }
}
