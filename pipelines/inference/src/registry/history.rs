//! All decisions, in order, and what they come to at a time.
//!
//! Each decision names the hash of the one before, so whoever signs one signs all before it.

use super::statement::{Action, MAX_NOTE_BYTES, Statement, StatementError};
use haar_identity::{SignedText, VerifierKey};
use haar_schema::ModelRef;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A decision whose signature was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What was decided.
    pub statement: Statement,
    /// The trusted verifier keys that signed it.
    pub by: Vec<String>,
    /// The signed note, byte for byte.
    pub note: Vec<u8>,
}

/// Which models of one id are at work.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Deployment {
    /// The live one; `None`: the one that is built in.
    pub live: Option<ModelRef>,
    /// The one that runs beside it.
    pub shadow: Option<ModelRef>,
    /// Those that were live before, oldest first; `None`: the built-in one.
    before: Vec<Option<ModelRef>>,
}

/// The chain of decisions, checked.
#[derive(Clone, Debug)]
pub struct History {
    decisions: Vec<Decision>,
    /// Verifier keys, each of which parses.
    keys: Vec<String>,
}

/// Why a chain of statements is not to be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// Not a verifier key.
    #[error("`{0}` is no verifier key; one is <name>+<8 hexadecimal digits>+<base64>")]
    Key(String),
    /// Not a signed note with a statement.
    #[error("statement {number} is damaged: {error}")]
    Malformed {
        /// Which.
        number: u64,
        /// What of.
        error: StatementError,
    },
    /// Signed by nobody who is trusted, or altered.
    #[error("statement {number} bears no signature of a trusted key that fits it")]
    Signature {
        /// Which.
        number: u64,
    },
    /// Its number or the hash of the one before does not fit.
    #[error("statement {number} does not follow the one before it: one was taken out or exchanged")]
    Chain {
        /// Which.
        number: u64,
    },
    /// A file is missing though later ones are there.
    #[error("statement {number} is missing though later ones are there")]
    Missing {
        /// Which.
        number: u64,
    },
    /// It decides what cannot be decided.
    #[error("statement {number} cannot take effect: {refused}")]
    Refused {
        /// Which.
        number: u64,
        /// Why.
        refused: Refused,
    },
}

/// Why a decision cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is the live model.
    #[error("the model is live already")]
    Live,
    /// It did not run in shadow.
    #[error("a model goes live after it ran in shadow: `haar model shadow` first")]
    NotInShadow,
    /// There is none in shadow to withdraw, or another.
    #[error("this model does not run in shadow")]
    NoShadow,
    /// There was no other model before.
    #[error("no model was live before this one")]
    NothingBefore,
    /// Another than the one before.
    #[error("a rollback goes to the model that was live before, not to another")]
    NotBefore,
    /// The time runs backwards.
    #[error("it would hold from before the decision that precedes it")]
    TooEarly,
}

impl History {
    /// No decision yet, to be signed by `keys`.
    ///
    /// # Errors
    /// If a key is none.
    pub fn new(keys: &[String]) -> Result<Self, HistoryError> {
        if let Some(wrong) = keys.iter().find(|key| key.parse::<VerifierKey>().is_err()) {
            return Err(HistoryError::Key(wrong.clone()));
        }
        Ok(Self { decisions: Vec::new(), keys: keys.into() })
    }

    /// The decisions of signed notes, in order.
    ///
    /// # Errors
    /// At the first that does not hold.
    pub fn open(notes: &[Vec<u8>], keys: &[String]) -> Result<Self, HistoryError> {
        Self::open_after(0, notes, keys)
    }

    /// The same, of which the caller has checked the first `checked` when their keys were trusted, and has kept them since: nobody is
    /// asked for their signatures again.
    ///
    /// # Errors
    /// At the first that does not hold.
    pub fn open_after(
        checked: usize,
        notes: &[Vec<u8>],
        keys: &[String],
    ) -> Result<Self, HistoryError> {
        let mut history = Self::new(keys)?;
        for (at, note) in notes.iter().enumerate() {
            history.add(note, at >= checked)?;
        }
        Ok(history)
    }

    /// Adds the next decision.
    ///
    /// # Errors
    /// If it is no statement, not signed by a key that is trusted, does not follow, or cannot take effect.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), HistoryError> {
        self.add(bytes, true)
    }

    fn add(&mut self, bytes: &[u8], must_be_signed: bool) -> Result<(), HistoryError> {
        let number = self.decisions.len() as u64 + 1;
        let malformed = |error| HistoryError::Malformed { number, error };
        let SignedText { text, by } = SignedText::open(bytes, MAX_NOTE_BYTES, &self.keys)
            .ok_or_else(|| malformed(StatementError))?;
        let statement = Statement::parse(&text).map_err(malformed)?;
        if by.is_empty() && must_be_signed {
            return Err(HistoryError::Signature { number });
        }
        if statement.number != number || statement.previous != self.previous() {
            return Err(HistoryError::Chain { number });
        }
        self.take_effect(&statement)
            .map_err(|refused| HistoryError::Refused { number, refused })?;
        self.decisions.push(Decision { statement, by, note: bytes.into() });
        Ok(())
    }

    /// The first `count` of its decisions.
    #[must_use]
    pub fn until(&self, count: usize) -> Self {
        let decisions = self.decisions.iter().take(count).cloned().collect();
        Self { decisions, keys: self.keys.clone() }
    }

    /// All decisions, in order.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// The statement that would be next; it has to be signed.
    ///
    /// # Errors
    /// If it could not take effect.
    pub fn next(
        &self,
        action: Action,
        model: ModelRef,
        effective_us: i64,
        reason: String,
    ) -> Result<Statement, Refused> {
        let (number, previous) = (self.decisions.len() as u64 + 1, self.previous());
        let next = Statement { number, previous, action, model, effective_us, reason };
        self.take_effect(&next)?;
        Ok(next)
    }

    /// The model that a rollback of `id` would go to: `Some(None)` is the built-in one, `None` if there was none before.
    pub fn before(&self, id: &str) -> Option<Option<ModelRef>> {
        self.now(id).before.pop()
    }

    /// What is at work for models of `id` after all decisions, whenever they hold from.
    pub fn now(&self, id: &str) -> Deployment {
        self.at(id, i64::MAX)
    }

    /// What is at work for models of `id` at an event time, in microseconds.
    pub fn at(&self, id: &str, event_us: i64) -> Deployment {
        let mut deployment = Deployment::default();
        let own = self.decisions.iter().map(|decision| &decision.statement);
        for statement in own.filter(|own| own.model.id == id && own.effective_us <= event_us) {
            deployment.follow(statement);
        }
        deployment
    }

    /// The times at which something changes for models of `id`, in order, with what is at work from then on.
    pub fn timeline(&self, id: &str) -> BTreeMap<i64, Deployment> {
        let own = self.decisions.iter().filter(|decision| decision.statement.model.id == id);
        own.map(|decision| decision.statement.effective_us)
            .map(|from| (from, self.at(id, from)))
            .collect()
    }

    fn previous(&self) -> [u8; 32] {
        self.decisions.last().map_or([0; 32], |last| Sha256::digest(&last.note).into())
    }

    fn take_effect(&self, next: &Statement) -> Result<(), Refused> {
        let last = self.decisions.last().map_or(i64::MIN, |last| last.statement.effective_us);
        if next.effective_us < last {
            return Err(Refused::TooEarly);
        }
        let now = self.now(&next.model.id);
        let model = Some(&next.model);
        match next.action {
            Action::Shadow | Action::Promote if now.live.as_ref() == model => Err(Refused::Live),
            Action::Promote if now.shadow.as_ref() != model => Err(Refused::NotInShadow),
            Action::Withdraw if now.shadow.as_ref() != model => Err(Refused::NoShadow),
            Action::Rollback => match now.before.last() {
                None => Err(Refused::NothingBefore),
                Some(Some(before)) if before != &next.model => Err(Refused::NotBefore),
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl Deployment {
    fn follow(&mut self, statement: &Statement) {
        let model = statement.model.clone();
        match statement.action {
            Action::Shadow => self.shadow = Some(model),
            Action::Withdraw => self.shadow = None,
            Action::Promote => {
                self.before.push(self.live.replace(model));
                self.shadow = None;
            }
            Action::Rollback => {
                if let Some(before) = self.before.pop() {
                    self.live = before;
                }
            }
        }
    }
}
