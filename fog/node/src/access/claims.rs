//! The claims that the site's billing has handed to insurers: what of a patient belongs to which.
//!
//! # Format
//! TOML: `[[claim]]` with `number`, `subject` (the pseudonym, 32 hexadecimal digits), and the time that is
//! claimed for, `from_s` up to, not including, `until_s`, in POSIX seconds. Read at the start. At most
//! [`MAX_CLAIMS_BYTES`].

use haar_ledger::consent::{Interval, Token};
use haar_schema::Subject;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The longest file of claims.
const MAX_CLAIMS_BYTES: u64 = 16 << 20;

/// Why there are no claims.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimsError {
    /// The file.
    #[error("access.claims_file {path}: {problem}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong; no content.
        problem: String,
    },
}

/// All claims.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    #[serde(default)]
    claim: Vec<Claim>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    number: Token,
    subject: Subject,
    from_s: u64,
    until_s: u64,
}

impl Claims {
    pub(crate) fn load(path: &Path) -> Result<Self, ClaimsError> {
        let wrong = |problem: String| ClaimsError::File { path: path.to_owned(), problem };
        let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length > MAX_CLAIMS_BYTES {
            return Err(wrong(format!("has {length} bytes, at most {MAX_CLAIMS_BYTES} are read")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).ok_or_else(|| {
            wrong("is not [[claim]] tables of number, subject, from_s and until_s".to_owned())
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let claims: Self = toml::from_str(text).ok()?;
        let sound = claims.claim.iter().all(|own| Interval::new(own.from_s, own.until_s).is_ok());
        sound.then_some(claims)
    }

    /// The claims that something of a patient at a time belongs to.
    pub(crate) fn of(&self, subject: Subject, event_s: u64) -> BTreeSet<Token> {
        let belongs =
            |own: &&Claim| own.subject == subject && (own.from_s..own.until_s).contains(&event_s);
        self.claim.iter().filter(belongs).map(|own| own.number.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_of_one_patient_and_time() {
        let subject = Subject::from_bytes([7; 16]);
        let text = format!(
            "[[claim]]\nnumber = \"c-1\"\nsubject = \"{}\"\nfrom_s = 10\nuntil_s = 20\n",
            subject.to_hex()
        );
        let claims = Claims::parse(&text).unwrap();
        assert_eq!(claims.of(subject, 10), BTreeSet::from(["c-1".parse().unwrap()]));
        assert!(claims.of(subject, 20).is_empty());
        assert!(claims.of(Subject::from_bytes([8; 16]), 10).is_empty());
        assert!(Claims::parse(&text.replace("20", "10")).is_none());
    }
}
