//! Rules: conditions over features, written in CEL.
//!
//! # Language
//! A rule is an expression of CEL, the Common Expression Language
//! (<https://github.com/google/cel-spec/blob/master/doc/langdef.md>), read by the parser of the `cel`
//! crate. Features are fields: `heart_rate.mean`. The part of CEL that rules may use: numbers, `true`
//! and `false`, features, `has(feature)`, `+ - * /`, `< <= > >= == !=`, `&& || !`, `? :`, parentheses.
//!
//! The expression is checked against the features that exist and lowered, once, to the tree in this
//! module; the `cel` crate's interpreter is not used. So that a rule which names no feature, is no
//! condition or mixes whole numbers with decimals is a mistake with a place when the definition is
//! read and not an error at the bedside; the work per window is bounded by the length of the rule; and
//! the features that kept a rule from a decision are known. A property test holds the tree against
//! that interpreter.
//!
//! # Missing features
//! A comparison that reads a missing feature is undetermined. `&&` and `||` absorb it as CEL's do an
//! error: `false && x` is false and `true || x` is true in either order, everything else stays
//! undetermined. `has(feature)` says whether there is a value.
//!
//! # Limits
//! [`MAX_RULE_BYTES`], [`MAX_RULE_FEATURES`], [`MAX_RULE_DEPTH`]; ASCII only.

mod lower;

use crate::feature::Vocabulary;
use haar_schema::{Evidence, Feature, Features, Missing};
use std::ops::Range;

/// The longest rule.
pub const MAX_RULE_BYTES: usize = 1_024;
/// The most different features in one rule.
pub const MAX_RULE_FEATURES: usize = 64;
/// How deep a rule may nest parentheses, calls and conditionals. The `cel` crate's parser recurses through
/// its whole grammar at each level: without optimisation, 24 overflow a stack of 2 MiB.
pub const MAX_RULE_DEPTH: u16 = 12;

/// What a rule says about a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It holds.
    Raised,
    /// It does not hold.
    NotRaised,
    /// Missing features keep it from a decision.
    Undetermined {
        /// Their names, sorted.
        missing: Vec<String>,
    },
}

/// A compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    text: String,
    /// The features it names, sorted; the tree refers to them by place.
    features: Vec<String>,
    condition: Truth,
}

/// What is wrong with a rule: bytes of its text, message, suggestion.
#[derive(Debug)]
pub(crate) struct RuleMistake {
    pub(crate) range: Range<usize>,
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

/// A condition. Features are places in [`Rule::features`].
#[derive(Debug)]
enum Truth {
    Constant(bool),
    Has(usize),
    Not(Box<Truth>),
    And(Box<Truth>, Box<Truth>),
    Or(Box<Truth>, Box<Truth>),
    Choose(Box<Truth>, Box<Truth>, Box<Truth>),
    Compare(Comparison, Number, Number),
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

/// A number; whole ones have become `f64` exactly.
#[derive(Debug)]
enum Number {
    Constant(f64),
    Feature(usize),
    Negate(Box<Number>),
    Binary(Arithmetic, Box<Number>, Box<Number>),
}

#[derive(Clone, Copy, Debug)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// Which features were missing, a bit each; at most [`MAX_RULE_FEATURES`] of them.
type MissingBits = u64;

impl Rule {
    /// Reads a rule; all mistakes at once.
    pub(crate) fn compile(text: &str, vocabulary: &Vocabulary) -> Result<Self, Vec<RuleMistake>> {
        let (features, condition) = lower::lower(text, vocabulary)?;
        Ok(Self { text: text.to_owned(), features, condition })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn features(&self) -> &[String] {
        &self.features
    }

    /// What the rule says about a window with these features.
    pub(crate) fn outcome(&self, features: &Features) -> Outcome {
        let value =
            |place: usize| features.get(&self.features[place]).and_then(|feature| feature.get());
        match self.condition.evaluate(&value) {
            Ok(true) => Outcome::Raised,
            Ok(false) => Outcome::NotRaised,
            Err(missing) => Outcome::Undetermined {
                missing: (self.features.iter().enumerate())
                    .filter(|(place, _)| missing & bit(*place) != 0)
                    .map(|(_, name)| name.clone())
                    .collect(),
            },
        }
    }

    /// The features that the rule names, with what they were.
    pub(crate) fn evidence(&self, features: &Features) -> Vec<Evidence> {
        let evidence = |name: &String| Evidence {
            feature: name.clone(),
            value: features.get(name).copied().unwrap_or(Feature::missing(Missing::NoData)),
        };
        self.features.iter().map(evidence).collect()
    }
}

impl Truth {
    fn evaluate(&self, value: &impl Fn(usize) -> Option<f64>) -> Result<bool, MissingBits> {
        match self {
            Self::Constant(constant) => Ok(*constant),
            Self::Has(feature) => Ok(value(*feature).is_some()),
            Self::Not(inner) => inner.evaluate(value).map(|truth| !truth),
            Self::And(left, right) => absorb(false, left.evaluate(value), || right.evaluate(value)),
            Self::Or(left, right) => absorb(true, left.evaluate(value), || right.evaluate(value)),
            Self::Choose(condition, then, otherwise) => {
                if condition.evaluate(value)? {
                    then.evaluate(value)
                } else {
                    otherwise.evaluate(value)
                }
            }
            Self::Compare(comparison, left, right) => {
                let (left, right) = both(left.evaluate(value), right.evaluate(value))?;
                Ok(comparison.holds(left, right))
            }
        }
    }
}

impl Comparison {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
        }
    }
}

impl Number {
    fn evaluate(&self, value: &impl Fn(usize) -> Option<f64>) -> Result<f64, MissingBits> {
        match self {
            Self::Constant(constant) => Ok(*constant),
            Self::Feature(feature) => value(*feature).ok_or(bit(*feature)),
            Self::Negate(inner) => inner.evaluate(value).map(|number| -number),
            Self::Binary(operation, left, right) => {
                let (left, right) = both(left.evaluate(value), right.evaluate(value))?;
                Ok(match operation {
                    Arithmetic::Add => left + right,
                    Arithmetic::Subtract => left - right,
                    Arithmetic::Multiply => left * right,
                    Arithmetic::Divide => left / right,
                })
            }
        }
    }
}

const fn bit(feature: usize) -> MissingBits {
    1 << feature
}

/// `&&` for `decisive` false, `||` for `decisive` true: the decisive value on one side settles it.
fn absorb(
    decisive: bool,
    left: Result<bool, MissingBits>,
    right: impl FnOnce() -> Result<bool, MissingBits>,
) -> Result<bool, MissingBits> {
    if left == Ok(decisive) {
        return left;
    }
    match (left, right()) {
        (_, Ok(right)) if right == decisive => Ok(decisive),
        (left, right) => both(left, right).map(|_| !decisive),
    }
}

/// Both values, or everything that was missing for either.
fn both<T>(
    left: Result<T, MissingBits>,
    right: Result<T, MissingBits>,
) -> Result<(T, T), MissingBits> {
    match (left, right) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (Err(left), Err(right)) => Err(left | right),
        (Err(missing), Ok(_)) | (Ok(_), Err(missing)) => Err(missing),
    }
}

#[cfg(test)]
mod tests;
