//! Research formats: what replay, training and evaluation read.
//!
//! - [`wfdb`]: signals and annotations as PhysioNet publishes them.
//! - [`corpus`]: the files of a data set, from a folder or an archive.
//! - [`cinc2017`]: short single-lead ECGs with their rhythm, as the challenge of 2017 has them.
//!
//! Files are read whole and at once; nothing here is meant for the live path.
#![forbid(unsafe_code)]

pub mod cinc2017;
pub mod corpus;
pub mod wfdb;
