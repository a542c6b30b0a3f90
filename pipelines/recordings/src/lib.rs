//! Research formats: what replay, training and evaluation read.
//!
//! - [`wfdb`]: signals and annotations as PhysioNet publishes them.
//! - [`bidmc`]: waveforms and breaths of the BIDMC set.
//! - [`corpus`]: the files of a data set, from a folder or an archive.
//!
//! Files are read whole and at once; nothing here is meant for the live path.
#![forbid(unsafe_code)]

pub mod bidmc;
pub mod corpus;
pub mod wfdb;
