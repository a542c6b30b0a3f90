//! Pipeline definitions, and what they mean.
//!
//! A definition is a TOML file: which signals, which windows, which model, which flags. A [`Pipeline`]
//! is one that has been read and checked; it describes a window by features ([`Features`]) and decides
//! which flags are raised on it. What it does depends on its text and the window alone: no clock, no
//! random, no state from window to window. `haar-dataflow` cuts the windows and `haar-inference` runs
//! the model; neither knows a rule, and nothing here knows a stream.
//!
//! - the file's format: [`Pipeline::parse`], and the definitions that are built in: [`builtin`]
//! - mistakes, with place and suggestion: [`Diagnostics`]
//! - features, with units and meanings: [`features`], and the table in `README.md`
//! - rules: a part of CEL, with missing features kept apart from false: [`Outcome`]
//!
//! # What is not guaranteed
//! The rules that are built in follow published thresholds, named beside each of them. They are
//! decision support on a demonstrator, not a certified medical device, and no substitute for a
//! hospital's own policy.
//!
//! [`Features`]: haar_schema::Features
#![forbid(unsafe_code)]

mod definition;
mod device;
mod diagnostics;
mod ecg;
mod feature;
mod group;
mod limits;
pub mod parameters;
mod pipeline;
mod pulse;
mod rule;
mod vitals;
mod window;

pub use definition::{
    MAX_DEFINITION_BYTES, MAX_FLAGS, MAX_NAME_BYTES, MAX_SIGNALS, MAX_TEXT_CHARS,
};
pub use diagnostics::{Diagnostic, Diagnostics, MAX_DIAGNOSTICS};
pub use ecg::EcgDescription;
pub use feature::{FeatureDoc, features};
pub use group::Group;
pub use pipeline::{Decision, Family, FlagDoc, OPTIONAL, Pipeline, Raised, Undetermined, builtin};
pub use pulse::Curve;
pub use rule::{MAX_RULE_BYTES, MAX_RULE_DEPTH, MAX_RULE_FEATURES, Outcome};
pub use window::{MAX_ECG_SIZE_US, MAX_LATENESS_US, MAX_SIZE_US, MIN_SLIDE_US, WindowSpec};
