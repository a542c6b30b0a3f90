//! What the model is given of a recording.

use super::morphology::morphology;
use super::signal::{Signal, WORKING_HZ};
use super::statistic::Row;
use super::texture::texture;
use super::timing::timing;
use haar_schema::SampleRate;

/// Numbers that describe a recording, by name; NaN where one is not defined.
pub(super) fn features(signal: &Signal) -> Row {
    let mut row = Row::default();
    let beats: Vec<f64> =
        signal.peaks.iter().map(|peak| *peak as f64 / WORKING_HZ as f64).collect();
    timing(&beats, signal.seconds(), &mut row);
    let residue = morphology(signal, &mut row);
    texture(signal, &residue, &mut row);
    row
}

/// Scratch.
pub fn dump(mv: &[f32], rate: SampleRate) -> (Vec<(&'static str, f32)>, Vec<f32>, Vec<usize>) {
    let s = Signal::new(mv, rate).unwrap();
    (features(&s).0, s.waveform(), s.peaks)
}
