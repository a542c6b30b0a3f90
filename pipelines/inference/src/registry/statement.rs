//! One decision about a model, signed.
//!
//! # Format
//! A C2SP signed-note whose text has eight lines:
//!
//! ```text
//! haar.invalid/model-statement/v1
//! <number, from 1>
//! <SHA-256 of the note before, in hexadecimal; 64 zeros for the first>
//! shadow | promote | rollback | withdraw
//! <the model's id>
//! <SHA-256 of its manifest>
//! <event time from which it holds, microseconds since 1970>
//! <why, one line>
//! ```
//!
//! and one signature line or more.

use haar_schema::ModelRef;
use std::fmt;
use std::str::FromStr;

/// The longest note.
pub const MAX_NOTE_BYTES: usize = 4 * 1024;
/// The longest reason.
pub const MAX_REASON_CHARS: usize = 500;

const HEAD: &str = "haar.invalid/model-statement/v1";

/// What is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Runs beside the live model; nothing depends on what it says.
    Shadow,
    /// Becomes the live model.
    Promote,
    /// The model that was live before the present one becomes live again.
    Rollback,
    /// Stops running in shadow.
    Withdraw,
}

impl Action {
    /// The word in a statement.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Withdraw => "withdraw",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = StatementError;
    fn from_str(word: &str) -> Result<Self, StatementError> {
        [Self::Shadow, Self::Promote, Self::Rollback, Self::Withdraw]
            .into_iter()
            .find(|action| action.as_str() == word)
            .ok_or(StatementError)
    }
}

/// A decision about a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Its place among all, from 1.
    pub number: u64,
    /// SHA-256 of the note before, zeros for the first.
    pub previous: [u8; 32],
    /// What is decided.
    pub action: Action,
    /// About which model. For a rollback, the one that becomes live.
    pub model: ModelRef,
    /// From which event time on it holds, microseconds since 1970.
    pub effective_us: i64,
    /// Why, one line for people.
    pub reason: String,
}

/// Not the text of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a model statement in its one form")]
pub struct StatementError;

impl Statement {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let Self { number, previous, action, model, effective_us, reason } = self;
        let (previous, ModelRef { id, sha256 }) = (hex::encode(previous), model);
        format!(
            "{HEAD}\n{number}\n{previous}\n{action}\n{id}\n{sha256}\n{effective_us}\n{reason}\n"
        )
    }

    /// Reads the text of a note.
    ///
    /// # Errors
    /// If it is not exactly what [`Self::text`] gives.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let lines: Vec<&str> = text.lines().collect();
        let [HEAD, number, previous, action, id, sha256, effective, reason] = lines[..] else {
            return Err(StatementError);
        };
        let mut hash = [0; 32];
        hex::decode_to_slice(previous, &mut hash).map_err(|_| StatementError)?;
        let statement = Self {
            number: number.parse().map_err(|_| StatementError)?,
            previous: hash,
            action: action.parse()?,
            model: ModelRef { id: id.into(), sha256: sha256.into() },
            effective_us: effective.parse().map_err(|_| StatementError)?,
            reason: reason.into(),
        };
        let is_hash = sha256.len() == 64
            && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_id = (1..=64).contains(&id.len()) && id.chars().all(plain);
        let is_reason = (1..=MAX_REASON_CHARS).contains(&reason.chars().count())
            && !reason.chars().any(char::is_control);
        match statement.text() == text && is_hash && is_id && is_reason {
            true => Ok(statement),
            false => Err(StatementError),
        }
    }
}
