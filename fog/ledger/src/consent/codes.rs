//! Who, what, why and when, in the codes of HL7 where it has them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The latest time that has a FHIR text: 9999-01-01T00:00:00Z, in seconds.
pub const MAX_TIME_S: u64 = 253_370_764_800;

/// The longest [`Token`].
const MAX_TOKEN_BYTES: usize = 128;

/// A text is not a name, code or time of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a token.
    #[error("a name has 1 to {MAX_TOKEN_BYTES} printable ASCII characters without spaces")]
    Token,
    /// Not an interval.
    #[error("an interval ends after it begins and before the year 9999")]
    Interval,
    /// Not a code that is known.
    #[error("the code {0} is not one that is known")]
    Code(&'static str),
}

/// A pseudonym, a key's name, the number of a claim or a study.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

impl Token {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let fits = (1..=MAX_TOKEN_BYTES).contains(&text.len());
        if fits && text.bytes().all(|c| c.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenError::Token)
        }
    }
}

impl TryFrom<String> for Token {
    type Error = TokenError;
    fn try_from(text: String) -> Result<Self, TokenError> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl fmt::Debug for Token {
    /// It may be about a patient.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// Seconds since 1970 from `from_s` up to, not including, `until_s`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct Interval {
    from_s: u64,
    until_s: u64,
}

impl Interval {
    /// The interval.
    ///
    /// # Errors
    /// If it is empty or ends after [`MAX_TIME_S`].
    pub fn new(from_s: u64, until_s: u64) -> Result<Self, TokenError> {
        let sound = from_s < until_s && until_s <= MAX_TIME_S;
        if sound { Ok(Self { from_s, until_s }) } else { Err(TokenError::Interval) }
    }

    /// Its first second.
    pub fn from_s(self) -> u64 {
        self.from_s
    }

    /// The second after its last.
    pub fn until_s(self) -> u64 {
        self.until_s
    }

    /// Whether it contains a time.
    pub fn contains(self, time_s: u64) -> bool {
        (self.from_s..self.until_s).contains(&time_s)
    }
}

impl TryFrom<(u64, u64)> for Interval {
    type Error = TokenError;
    fn try_from((from_s, until_s): (u64, u64)) -> Result<Self, TokenError> {
        Self::new(from_s, until_s)
    }
}

impl From<Interval> for (u64, u64) {
    fn from(interval: Interval) -> Self {
        (interval.from_s, interval.until_s)
    }
}

/// Makes an enum whose variants each have one code.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its code.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }

        impl FromStr for $name {
            type Err = TokenError;
            fn from_str(text: &str) -> Result<Self, TokenError> {
                let found = Self::ALL.iter().find(|one| one.code() == text);
                found.copied().ok_or(TokenError::Code(stringify!($name)))
            }
        }

        impl TryFrom<String> for $name {
            type Error = TokenError;
            fn try_from(text: String) -> Result<Self, TokenError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(one: $name) -> Self {
                one.code().to_owned()
            }
        }
    };
}

codes! {
    /// Why somebody reads: HL7 v3 PurposeOfUse (code system v3-ActReason).
    Purpose {
        /// Treatment.
        Treatment = "TREAT",
        /// Health care payment.
        Payment = "HPAYMT",
        /// Health care research.
        Research = "HRESCH",
        /// Emergency treatment: break-glass. Nobody grants it.
        Emergency = "ETREAT",
    }
}

codes! {
    /// What is read.
    DataKind {
        /// Vital signs and what was computed from them: window digests.
        Vitals = "vitals",
        /// Strips of waveforms.
        Waveform = "waveform",
        /// Flagged events and their corrections.
        FlaggedEvent = "flagged-event",
        /// What became of alarms.
        Alarm = "alarm",
        /// What a doctor has set for the patient.
        Parameters = "parameters",
    }
}

codes! {
    /// What somebody who is granted something is.
    GranteeRole {
        /// One doctor or nurse, by the name of the key.
        Clinician = "clinician",
        /// A member, and so all its clinicians.
        Member = "member",
        /// An insurer, by the name of the key, for one claim.
        Insurer = "insurer",
        /// A researcher, by the name of the key, for one study.
        Researcher = "researcher",
    }
}

/// Who is granted something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grantee {
    /// What it is.
    pub role: GranteeRole,
    /// The name of the member or of the registered key.
    pub name: Token,
}

/// What a reading by an insurer or a researcher is confined to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The events of one claim.
    Claim(Token),
    /// One study.
    Study(Token),
}

impl FromStr for Scope {
    type Err = TokenError;
    /// Reads `claim:NUMBER` or `study:NUMBER`.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        match text.split_once(':') {
            Some(("claim", number)) => Ok(Self::Claim(number.parse()?)),
            Some(("study", number)) => Ok(Self::Study(number.parse()?)),
            _ => Err(TokenError::Code("Scope")),
        }
    }
}

impl Scope {
    /// As it stands in the policies: `claim:` or `study:` and its number.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Claim(number) => format!("claim:{}", number.0),
            Self::Study(number) => format!("study:{}", number.0),
        }
    }
}
