//! Research formats: what replay, training and evaluation read.
//!
//! - [`wfdb`]: signals and annotations as PhysioNet publishes them.
//! - [`bidmc`]: waveforms and breaths of the BIDMC set.
//! - [`cinc2019`]: hourly stays in intensive care, PhysioNet/CinC Challenge 2019.
//! - [`corpus`]: the files of a data set, from a folder or an archive.
//! - [`cgm`]: continuous glucose monitoring, as Glucose-ML harmonises it.
//! - [`suthaharan`]: labelled temperature and humidity of sensor motes.
//! - [`nab`]: series and labelled windows of the Numenta Anomaly Benchmark.
//! - [`cinc2017`]: short single-lead ECGs with their rhythm, as the challenge of 2017 has them.
//!
//! Files are read whole and at once; nothing here is meant for the live path.
#![forbid(unsafe_code)]

pub mod bidmc;
pub mod cgm;
pub mod cinc2017;
pub mod cinc2019;
pub mod corpus;
pub mod nab;
pub mod suthaharan;
pub mod wfdb;
