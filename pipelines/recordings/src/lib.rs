//! Research formats: what replay, training and evaluation read.
//!
//! - [`wfdb`]: signals and annotations as PhysioNet publishes them.
//! - [`cinc2019`]: hourly stays in intensive care, PhysioNet/CinC Challenge 2019.
//! - [`corpus`]: the files of a data set, from a folder or an archive.
//!
//! Files are read whole and at once; nothing here is meant for the live path.
#![forbid(unsafe_code)]

pub mod cinc2019;
pub mod corpus;
pub mod wfdb;
