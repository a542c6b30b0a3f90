//! Research formats: what replay, training and evaluation read.
//!
//! - [`wfdb`]: signals and annotations as PhysioNet publishes them.
//!
//! Files are read whole and at once; nothing here is meant for the live path.
#![forbid(unsafe_code)]

pub mod wfdb;
