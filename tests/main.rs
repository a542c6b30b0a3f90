//! What crosses crates: the house rules, and the whole path over real sockets.
//!
//! One binary, a module per topic. Run by `tests/run`, which also builds the programs that the tests
//! start (see [`programs`]) and installs the foreign ones.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "this is a test binary: a failure is a failed test with its line"
)]

mod access;
mod bad_input;
#[path = "fuzz/checks.rs"]
mod checks;
mod cluster;
mod consortium;
mod custody;
mod demo;
mod devices;
mod e2e;
mod edge_keys;
mod erasure;
mod fuzz_replay;
mod kills;
mod models;
mod notices;
mod officers;
mod parameters;
mod privacy;
mod programs;
mod sepsis;
mod tidy;
mod tls;
mod ward;
