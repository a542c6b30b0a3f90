//! What researchers read: records of all who agreed to a study, each under the patient's name in that study.
//!
//! Who has granted the study to this researcher is known from the statements; only their records are looked at, and Cedar decides on each
//! as on any other, with a leaf for the patient's audit before anything is answered. Of whoever has not agreed nothing is looked at, decided or
//! recorded.
//!
//! # What is answered
//! Of a record only the fields in [`KEPT`], the window's pipeline and times, and the pseudonym ([`StudyKey`]). Not the window's id, its inputs' digest,
//! the edge or the leaf: they are the same in every study.
//!
//! # Format
//! `studies.key` in the data directory: 64 hexadecimal digits, made at the first start, readable by its owner. A study's key is
//! derived from it. Whoever has the file can tell who is who in every study, if they know the site's pseudonyms.
//!
//! # Not guaranteed
//! Times and values are those of the patient: who knows when a patient was flagged may know them again in the answer.

use super::gatekeeper::{Call, Gatekeeper, Refused, Walk};
use super::shown::Shown;
use haar_ledger::consent::{
    AccessRequest, Action, Data, DataKind, GranteeRole, Purpose, Scope, StudyKey, Token,
};
use haar_ledger::governance::Role;
use haar_ledger::{IdentityError, read_key_file, write_key_file};
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Name of the key's file in the data directory.
pub(crate) const KEY_FILE: &str = "studies.key";

/// What a researcher is shown of a record.
const KEPT: [&str; 20] = [
    "beats",
    "cause",
    "condition",
    "evidence",
    "factor",
    "features",
    "flag",
    "flags",
    "from",
    "model",
    "pipeline",
    "priority",
    "rate_millihertz",
    "revision",
    "rule",
    "samples",
    "scores",
    "signal",
    "text",
    "to",
];

/// What the pseudonyms of all studies are made from.
pub(crate) struct StudyKeys(Zeroizing<[u8; 32]>);

/// Why there are no pseudonyms.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudyKeysError {
    /// The file.
    #[error(transparent)]
    File(#[from] IdentityError),
    /// Its content.
    #[error("{path} is no key: 64 hexadecimal digits. Put the right file back: with another one every patient has another name in every study", path = .0.display())]
    Malformed(PathBuf),
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

impl StudyKeys {
    /// Reads the key, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, StudyKeysError> {
        let mut secret = Zeroizing::new([0; 32]);
        if !path.exists() {
            getrandom::fill(&mut *secret).map_err(StudyKeysError::Random)?;
            write_key_file(path, &Zeroizing::new(hex::encode(*secret)))?;
            return Ok(Self(secret));
        }
        hex::decode_to_slice(read_key_file(path)?.as_str(), &mut *secret)
            .map_err(|_| StudyKeysError::Malformed(path.to_owned()))?;
        Ok(Self(secret))
    }

    fn of(&self, study: &Token) -> StudyKey {
        StudyKey::derive(&self.0, study.as_str())
    }
}

/// What is asked for.
pub(crate) struct StudyQuestion {
    pub(crate) study: Token,
    pub(crate) kind: DataKind,
    /// Only leaves before this one.
    pub(crate) before: Option<u64>,
    pub(crate) limit: usize,
}

/// What is answered.
#[derive(Serialize)]
pub(crate) struct StudyAnswer {
    pub(crate) records: Vec<StudyRecord>,
    /// Where to go on; `None` at the beginning of the log.
    pub(crate) before: Option<u64>,
}

/// A record under the patient's name in the study.
#[derive(Serialize)]
pub(crate) struct StudyRecord {
    pub(crate) pseudonym: String,
    pub(crate) record: Value,
}

impl Gatekeeper {
    /// Decides on the records of all who agreed, records each decision, and answers what is allowed.
    pub(crate) fn study(
        &self,
        call: &Call<'_>,
        question: &StudyQuestion,
    ) -> Result<StudyAnswer, Refused> {
        let view = self.view.read();
        let who = self.who(&view, call)?;
        if who.role() != Role::Researcher {
            return Err(Refused::NoResearcher);
        }
        let decider = Self::decider(&view)?;
        let scope = Scope::Study(question.study.clone());
        // A doctor's note names patient and doctor, and is signed: there is no form of it that is nobody's.
        if question.kind == DataKind::Parameters {
            return Err(Refused::Kind);
        }
        let agreed = |shown: &Shown| {
            let Ok(subject) = shown.subject.to_hex().parse() else { return false };
            let mut grants = view.consents.in_force(&subject, call.now_s, shown.event_s());
            grants.any(|grant| {
                grant.grantee.role == GranteeRole::Researcher
                    && grant.grantee.name.as_str() == who.name()
                    && grant.kinds.contains(&question.kind)
                    && grant.scope.as_ref() == Some(&scope)
            })
        };
        let Walk { found, before } =
            self.walk(question.kind, question.before, question.limit, &agreed)?;
        let mut decided = Vec::new();
        for (_, own) in &found {
            let subject = own.subject.to_hex().parse().map_err(|_| Refused::Subject)?;
            let (kind, event_s) = (question.kind, own.event_s());
            let request = AccessRequest {
                who: who.clone(),
                action: Action::ReadPseudonymised,
                purpose: Purpose::Research,
                scope: Some(scope.clone()),
                data: Data { subject, kind, event_s, claims: Default::default() },
                now_s: call.now_s,
            };
            let age_s = view.age_s(call.now_s);
            let decision = decider.decide(&request, &view.consents, age_s);
            decided.push((own.subject, request, decision));
        }
        drop(view);
        self.record(call, true, &decided)?;
        if let Some((_, _, refused)) = decided.first()
            && decided.iter().all(|(_, _, decision)| !decision.allowed)
        {
            return Err(Refused::Denied(Box::new(refused.clone())));
        }
        let key = self.studies.of(&question.study);
        let allowed = found.iter().zip(&decided).filter(|(_, (_, _, own))| own.allowed);
        let records = allowed.map(|((_, shown), _)| StudyRecord {
            pseudonym: key.pseudonym(&shown.subject.to_hex()),
            record: without_identity(shown),
        });
        Ok(StudyAnswer { records: records.collect(), before })
    }
}

/// What of a record is nobody's in particular.
fn without_identity(shown: &Shown) -> Value {
    let mut kept = Map::new();
    for name in KEPT {
        if let Some(value) = shown.body.get(name) {
            kept.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(pipeline) = &shown.pipeline {
        kept.insert("window_pipeline".to_owned(), Value::from(pipeline.as_str()));
    }
    let (start, end) = shown.span;
    kept.insert("start_us".to_owned(), Value::from(start.micros()));
    kept.insert("end_us".to_owned(), Value::from(end.micros()));
    Value::Object(kept)
}
