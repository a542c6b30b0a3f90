//! Ed25519 keys of logs, sites, edges, members and people, in the form that C2SP signed-note gives them, and their files.
//!
//! Whoever signs anything in Haar has one of these: the ledger's entries and checkpoints, the edges' batches, decisions
//! about models and patients. What is signed, and what a key may do, its users say.
#![forbid(unsafe_code)]

pub mod base64;
mod key;
mod signed_text;

pub use key::{
    Identity, IdentityError, MAX_KEY_BYTES, MAX_ORIGIN_BYTES, SignError, VerifierKey,
    VerifierKeyError, is_origin, parse_typed_secret, read_key_file, write_key_file,
};
pub use signed_text::SignedText;
