//! Faults of devices on any stream of numbers: stuck, drift, spike, noise, dropout, detached, clock.
//!
//! What is told apart is how the *device* misbehaves, not what is wrong with the patient. Nothing here knows what is
//! measured: a stream is described in its own terms ([`Scale`]: its centre, spread, noise, smallest step and usual interval), so one
//! model serves heart rates in beats per minute and temperatures of a fridge. If a physical range is known it may be given.
//!
//! - [`inject`]: puts documented faults into sound readings, from a seed. Training, evaluation and other tests use it.
//! - [`features`]: what the network sees of each reading.
//! - [`FaultModel`]: probabilities of each fault for each reading, segments, attribution.
//! - [`watch`]: the newest readings of many devices, as a running pipeline asks.
//! - [`rules`]: the rule-based baseline. [`evaluate`]: figures by window. [`live`]: figures of the watch.
//!
//! What lasts longer than a window, or is only unusual, is for two detectors that are not trained and see one reading at a time:
//! - [`excursion`]: streams that leave their own level at once and come back. [`motes`]: figures on labelled events.
//! - [`novelty`]: how unlike its past a stream is. [`nab`]: the benchmark's score, and other detectors for it.
//!
//! # A window
//! [`WINDOW`] readings are judged together, both directions in time, in the light of at most [`CONTEXT`] readings up to the
//! window's end that give the scale. Live, the last readings of a window are judged before what follows is known, and again
//! when it is. A stream needs [`MIN_VALUES`] values before anything can be said.
//!
//! # What counts as a fault
//! See [`inject::inject`]; above all: one or two lost readings in a row are not a dropout, and a gap in the time stamps with nothing
//! else wrong is a dropout, not a clock that jumped ahead: from the stream alone the two are the same.
//!
//! # Not guaranteed
//! A fault below the stream's own noise is not found, and cannot be. A true change of the patient that looks like one of these
//! (a fast rise, a pause) may be called a fault.

pub mod evaluate;
pub mod excursion;
pub mod features;
pub mod inject;
pub mod live;
mod model;
pub mod motes;
pub mod nab;
mod network;
pub mod novelty;
pub mod rules;
mod scale;
pub mod streams;
mod train;
pub mod watch;

pub use model::{FaultAttribution, FaultError, FaultModel, Judgement, Segment};
pub use network::Architecture;
pub use scale::{MIN_VALUES, Scale};
pub use train::{TrainFaultsError, TrainFaultsSettings, train_faults};

use std::fmt;

/// Readings judged together.
pub const WINDOW: usize = 128;
/// The most readings, those of the window included, that a window's scale is taken from.
pub const CONTEXT: usize = 512;

/// One reading: `value` is NaN where the device sent a stamp without a value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Reading {
    /// The device's stamp in seconds; any zero.
    pub time_s: f64,
    /// In the stream's unit.
    pub value: f32,
}

/// What is wrong with a reading.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FaultKind {
    /// Nothing.
    Sound,
    /// The last good value again and again.
    Stuck,
    /// Slowly away from the truth.
    Drift,
    /// Single values far off.
    Spike,
    /// Much more scatter than the stream has.
    Noise,
    /// Readings are missing.
    Dropout,
    /// The sensor is off its subject: another level altogether.
    Detached,
    /// Time stamps that stand still, repeat, go back, run wrong, or jump and return.
    Clock,
}

impl FaultKind {
    /// All, [`FaultKind::Sound`] first, in the order of the model's outputs.
    pub const ALL: [Self; 8] = [
        Self::Sound,
        Self::Stuck,
        Self::Drift,
        Self::Spike,
        Self::Noise,
        Self::Dropout,
        Self::Detached,
        Self::Clock,
    ];

    /// Its place in [`FaultKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// As manifests and reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sound => "none",
            Self::Stuck => "stuck",
            Self::Drift => "drift",
            Self::Spike => "spike",
            Self::Noise => "noise",
            Self::Dropout => "dropout",
            Self::Detached => "detached",
            Self::Clock => "clock",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_at_their_index() {
        for (at, kind) in FaultKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), at);
        }
        let mut names = FaultKind::ALL.map(FaultKind::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FaultKind::ALL.len());
    }
}
