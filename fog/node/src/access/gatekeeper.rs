//! Decides, records, and only then answers. Time is passed in.

use super::claims::Claims;
use super::nonces;
use super::shown::{self, Shown};
use super::studies::StudyKeys;
use crate::consortium::view::{SharedView, View, statements};
use crate::notify::Roster;
use crate::notify::message::BREAK_GLASS_PRIORITY;
use crate::notify::outbox::{self, Key};
use crate::store::{CommitError, Store, keyholder};
use haar_ledger::consent::{
    AccessRequest, Action, BundleError, Data, DataKind, Decider, Decision, Nonces, Principal,
    Purpose, RequestError, Scope, SignedRequest, SignedStatement, Statement, StatementError, Token,
    audit_name, audit_record, patient_key_name,
};
use haar_ledger::governance::Role;
use haar_ledger::{Held, LeafKind, ReadError};
use haar_schema::Subject;
use haar_telemetry::{Counter, KeyValue, Metrics, names};
use serde::Serialize;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// The most records in one answer; each is decided on and recorded by itself.
pub(crate) const MAX_RECORDS: usize = 32;
/// Leaves that are looked at for one answer.
pub(crate) const MAX_LOOKED_AT: u64 = 20_000;
/// The most decisions in one answer to a patient.
const MAX_DECISIONS: usize = 1_000;

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Refused {
    /// Nobody of whom the site knows.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Somebody who is not asked about here: a device, say.
    #[error("only patients, clinicians, insurers and researchers read here")]
    Role,
    /// The policies say no.
    #[error("refused, and recorded: {}", reasons(.0))]
    Denied(Box<Decision>),
    /// Studies are for researchers.
    #[error("a study is read by a researcher's key")]
    NoResearcher,
    /// Not the patient.
    #[error("the decisions about a patient are shown to the patient's own key")]
    NotOwn,
    /// A kind that is not served.
    #[error("records of this kind are not served here")]
    Kind,
    /// A statement that does not count.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Not a pseudonym of this site.
    #[error("the statement's subject is no pseudonym of this site")]
    Subject,
    /// The consortium log was never read here.
    #[error("this site knows nothing of the consortium yet; try again in a few seconds")]
    NoView,
    /// The members agree on other policies.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was decided could not be recorded, so nothing is answered.
    #[error("not recorded, so not answered: {0}")]
    Commit(#[from] CommitError),
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

fn reasons(decision: &Decision) -> String {
    if decision.reasons.is_empty() {
        "no policy allows it".to_owned()
    } else {
        decision.reasons.join(", ")
    }
}

/// Who asks: a signed request.
pub(crate) struct Call<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) signed: SignedRequest,
    pub(crate) now_s: u64,
}

/// What is asked for.
pub(crate) struct Question {
    pub(crate) subject: Subject,
    pub(crate) kind: DataKind,
    pub(crate) purpose: Purpose,
    pub(crate) scope: Option<Scope>,
    /// Only leaves before this one.
    pub(crate) before: Option<u64>,
    pub(crate) limit: usize,
}

/// What is answered.
#[derive(Serialize)]
pub(crate) struct Answer {
    pub(crate) break_glass: bool,
    /// The leaves with the decisions.
    pub(crate) decisions: Vec<u64>,
    pub(crate) records: Vec<Value>,
    /// Where to go on; `None` at the beginning of the log.
    pub(crate) before: Option<u64>,
}

/// A statement that is in force.
#[derive(Serialize, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub(crate) leaf: u64,
    /// By which a revocation names it.
    pub(crate) id: String,
}

/// The site and the age of its view.
#[derive(Serialize)]
pub(crate) struct Standing {
    pub(crate) site: String,
    /// `None` if nobody ever vouched for it.
    pub(crate) view_age_s: Option<u64>,
}

/// What was found, and where to go on.
pub(super) struct Walk {
    /// By leaf.
    pub(super) found: Vec<(u64, Shown)>,
    pub(super) before: Option<u64>,
}

/// Stands between the records and those who ask.
pub(crate) struct Gatekeeper {
    store: Arc<Store>,
    pub(super) view: SharedView,
    claims: Claims,
    pub(super) studies: StudyKeys,
    nonces: Mutex<Nonces>,
    roster: Roster,
    decisions: Counter<u64>,
}

impl Gatekeeper {
    pub(crate) fn new(
        store: Arc<Store>,
        view: SharedView,
        claims: Claims,
        studies: StudyKeys,
        roster: Roster,
        metrics: &Metrics,
    ) -> Result<Self, redb::Error> {
        let decisions = metrics.counter(&names::FOG_ACCESS_DECISIONS);
        let nonces = Mutex::new(nonces::restore(store.database())?);
        Ok(Self { store, view, claims, studies, nonces, roster, decisions })
    }

    pub(crate) fn standing(&self, now_s: u64) -> Standing {
        let view = self.view.read();
        let view_age_s = view.vouched_s.map(|_| view.age_s(now_s));
        Standing { site: self.site().to_owned(), view_age_s }
    }

    /// Takes a patient's statement; it is committed and in force when this returns.
    pub(crate) fn take(&self, note: &[u8]) -> Result<Taken, Refused> {
        let mut view = self.view.write();
        let state = view.state.as_ref().ok_or(Refused::NoView)?;
        let entries = state.next_index();
        let signed = SignedStatement::open(note, self.site(), state)?;
        let id = signed.id();
        if let Some(leaf) = self.store.log().find(&id.0)?.first() {
            return Ok(Taken { leaf: *leaf, id: id.to_string() });
        }
        let subject = Subject::from_hex(signed.statement().subject().as_str());
        let subject = subject.ok_or(Refused::Subject)?;
        view.consents.has_room_for(&signed)?;
        let record = signed.record(fresh_key()?);
        let held = Held { keyholder: Some(keyholder(subject)), record };
        // What is not durable is not in force.
        let leaf = self.store.append(&[held], |tx, first| statements(tx, first, entries))?;
        view.consents.add(&signed)?;
        let what = match signed.statement() {
            Statement::Grant(_) => "grant",
            Statement::Revocation(_) => "revocation",
        };
        tracing::info!(leaf, what, "a patient's statement is in force");
        Ok(Taken { leaf, id: id.to_string() })
    }

    /// Decides on what is asked for, records it, and answers what is allowed.
    pub(crate) fn read(&self, call: &Call<'_>, question: &Question) -> Result<Answer, Refused> {
        let who = self.who(&self.view.read(), call)?;
        let insurer = who.role() == Role::Insurer;
        // It may look at many leaves: nobody waits for the view meanwhile.
        let Walk { found, before } = self.find(question, insurer)?;
        let view = self.view.read();
        let decider = Self::decider(&view)?;
        let mut decided = Vec::new();
        for event_s in found.iter().map(|(_, shown)| shown.event_s()) {
            decided.push(self.decide(&view, decider, &who, call.now_s, question, event_s)?);
        }
        if found.is_empty() {
            decided.push(self.decide(&view, decider, &who, call.now_s, question, call.now_s)?);
        }
        drop(view);
        let known = !found.is_empty();
        let decisions = self.record(call, known, &decided)?;
        let allowed = decided.iter().filter(|(_, _, decision)| decision.allowed).count();
        let break_glass = decided.iter().any(|(_, _, decision)| decision.break_glass);
        if break_glass {
            tracing::warn!("a clinician broke the glass; patient and members are told");
        }
        if allowed == 0 {
            let refused = decided.into_iter().next().map(|(_, _, decision)| Box::new(decision));
            return Err(refused.map_or(Refused::NoView, Refused::Denied));
        }
        let mut records = Vec::new();
        let allowed = found.into_iter().zip(&decided).filter(|(_, (_, _, own))| own.allowed);
        for ((leaf, shown), _) in allowed {
            records.push(match insurer {
                true => serde_json::json!({
                    "leaf": leaf,
                    "proof": self.store.log().prove(leaf)?.to_text(),
                }),
                false => serde_json::json!({"leaf": leaf, "record": shown.body}),
            });
        }
        Ok(Answer { break_glass, decisions, records, before })
    }

    /// Every decision about a patient, the newest first, for the patient.
    pub(crate) fn audit(&self, call: &Call<'_>, subject: Subject) -> Result<Vec<Value>, Refused> {
        let who = self.who(&self.view.read(), call)?;
        let subject = subject.to_hex();
        if who.role() != Role::Patient || who.name() != patient_key_name(&subject) {
            return Err(Refused::NotOwn);
        }
        // Before it is answered: it must not count again after a restart.
        self.store.append(&[], |tx, _| nonces::note(tx, &call.signed, call.now_s))?;
        let log = self.store.log().snapshot()?;
        let mut decisions = Vec::new();
        for leaf in log.find(&audit_name(&subject))?.into_iter().rev().take(MAX_DECISIONS) {
            let record = match log.record(leaf) {
                Err(ReadError::Erased { .. }) => continue,
                record => record?,
            };
            let event: Value = serde_json::from_slice(&record.body).unwrap_or_default();
            decisions.push(serde_json::json!({"leaf": leaf, "event": event}));
        }
        Ok(decisions)
    }

    fn site(&self) -> &str {
        self.store.log().identity().origin()
    }

    /// What decides, by the policies that the members have agreed on.
    pub(super) fn decider(view: &View) -> Result<&Decider, Refused> {
        match &view.decider {
            Some(Ok(decider)) => Ok(decider),
            Some(Err(error)) => Err(error.clone().into()),
            None => Err(Refused::NoView),
        }
    }

    /// Who signed, as the consortium log has it.
    pub(super) fn who(&self, view: &View, call: &Call<'_>) -> Result<Principal, Refused> {
        let state = view.state.as_ref().ok_or(Refused::NoView)?;
        let next = state.next_index();
        let registered = state.keys_named(call.signed.key_name());
        let counting = || registered.iter().filter(|own| own.counts_at(next));
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = counting().map(|own| own.key.vkey());
        let key = call.signed.check(
            call.method,
            call.target,
            self.site(),
            call.now_s,
            keys,
            &mut nonces,
        )?;
        let own = counting().find(|own| own.key.vkey() == key);
        let who = own.and_then(Principal::of).ok_or(RequestError::Signature)?;
        match who.role() {
            Role::Patient | Role::Clinician | Role::Insurer | Role::Researcher => Ok(who),
            _ => Err(Refused::Role),
        }
    }

    fn decide(
        &self,
        view: &View,
        decider: &Decider,
        who: &Principal,
        now_s: u64,
        question: &Question,
        event_s: u64,
    ) -> Result<(Subject, AccessRequest, Decision), Refused> {
        let subject: Token = question.subject.to_hex().parse().map_err(|_| Refused::Subject)?;
        let claims = self.claims.of(question.subject, event_s);
        let request = AccessRequest {
            who: who.clone(),
            action: Action::Read,
            purpose: question.purpose,
            scope: question.scope.clone(),
            data: Data { subject, kind: question.kind, event_s, claims },
            now_s,
        };
        let decision = decider.decide(&request, &view.consents, view.age_s(now_s));
        Ok((question.subject, request, decision))
    }

    /// Makes every decision a leaf; their indexes. Sealed under the patient's key only where there is something of
    /// theirs (`known`): who asks about made-up patients shall not make keys.
    pub(super) fn record(
        &self,
        call: &Call<'_>,
        known: bool,
        decided: &[(Subject, AccessRequest, Decision)],
    ) -> Result<Vec<u64>, Refused> {
        let mut held = Vec::with_capacity(decided.len());
        for (subject, request, decision) in decided {
            let record = audit_record(request, decision, self.site(), fresh_key()?);
            held.push(Held { keyholder: known.then(|| keyholder(*subject)), record });
        }
        let emergency = decided.iter().position(|(_, _, decision)| decision.break_glass);
        let emergency = emergency.filter(|_| known).map(|at| at as u64);
        // All of one request: one break-glass is told once.
        let keys = |first: u64| -> Vec<Key> {
            let leaf = emergency.map(|at| first + at);
            let key = |target: &str| Some(Key::new(target, BREAK_GLASS_PRIORITY, leaf?));
            self.roster.of_patients().filter_map(key).collect()
        };
        let first = self.store.append(&held, |tx, first| {
            nonces::note(tx, &call.signed, call.now_s)?;
            outbox::queue(tx, &keys(first), crate::commit::now()).map(drop)
        })?;
        if emergency.is_some() {
            self.roster.news.notify_waiters();
        }
        self.count(decided.iter().map(|(_, _, decision)| decision));
        Ok((first..).take(held.len()).collect())
    }

    fn count<'a>(&self, decided: impl Iterator<Item = &'a Decision>) {
        for decision in decided {
            let result = match (decision.allowed, decision.break_glass) {
                (_, true) => "break-glass",
                (true, false) => "allowed",
                (false, false) => "denied",
            };
            self.decisions.add(1, &[KeyValue::new(names::label::RESULT, result)]);
        }
    }

    /// The newest records of a kind; for an insurer those of the claim that is asked about.
    fn find(&self, question: &Question, insurer: bool) -> Result<Walk, Refused> {
        let of_claim = |event_s| match &question.scope {
            Some(Scope::Claim(number)) => {
                self.claims.of(question.subject, event_s).contains(number)
            }
            _ => false,
        };
        let wanted = |shown: &Shown| {
            shown.subject == question.subject && (!insurer || of_claim(shown.event_s()))
        };
        self.walk(question.kind, question.before, question.limit, &wanted)
    }

    /// The newest records of a kind that are wanted.
    pub(super) fn walk(
        &self,
        kind: DataKind,
        before: Option<u64>,
        limit: usize,
        wanted: &dyn Fn(&Shown) -> bool,
    ) -> Result<Walk, Refused> {
        let kinds = shown::leaves(kind);
        if kinds.is_empty() {
            return Err(Refused::Kind);
        }
        let log = self.store.log().snapshot()?;
        let end = before.unwrap_or(u64::MAX).min(log.size());
        let first = end.saturating_sub(MAX_LOOKED_AT);
        let (mut found, mut left) = (Vec::new(), first);
        for leaf in (first..end).rev() {
            if found.len() >= limit.clamp(1, MAX_RECORDS) {
                left = leaf + 1;
                break;
            }
            if LeafKind::from_byte(log.leaf(leaf)?[1]).is_none_or(|kind| !kinds.contains(&kind)) {
                continue;
            }
            let record = match log.record(leaf) {
                Err(ReadError::Erased { .. }) => continue,
                record => record?,
            };
            match Shown::read(kind, &record.body) {
                Some(shown) if wanted(&shown) => found.push((leaf, shown)),
                _ => {}
            }
        }
        Ok(Walk { found, before: (left > 0).then_some(left) })
    }
}

fn fresh_key() -> Result<[u8; 32], Refused> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(Refused::Random)?;
    Ok(key)
}
