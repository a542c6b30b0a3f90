//! Research formats: what replay, training and evaluation read.
//!
//! - [`wfdb`]: signals and annotations as PhysioNet publishes them.
//! - [`bidmc`]: waveforms and breaths of the BIDMC set.
//! - [`corpus`]: the files of a data set, from a folder or an archive.
//! - [`cgm`]: continuous glucose monitoring, as Glucose-ML harmonises it.
//! - [`suthaharan`]: labelled temperature and humidity of sensor motes.
//! - [`nab`]: series and labelled windows of the Numenta Anomaly Benchmark.
//!
//! Files are read whole and at once; nothing here is meant for the live path.
#![forbid(unsafe_code)]

pub mod bidmc;
pub mod cgm;
pub mod corpus;
pub mod nab;
pub mod suthaharan;
pub mod wfdb;
