//! What an alarm about the ECG was about: the seconds before it sounded.

use haar_catalog::{Family, Pipeline};
use haar_schema::{Beat, Strip};
use haar_signals::ecg::detect_r_peaks;

use super::machine::{Episode, LAG_US};
use super::recordings::Recording;
use super::replay::BEGIN_US;
use crate::evaluate::report::ecg_strip;

/// How much is shown, in seconds.
const STRIP_S: f64 = 10.0;

/// A strip of a recording.
pub(super) struct AlarmStrip {
    /// The recording's name.
    pub(super) record: String,
    /// What sounded, and when.
    pub(super) caption: String,
    /// The seconds before.
    pub(super) strip: Strip,
}

/// Of the first alarm that sounded by a pipeline of ECGs; `None` if there is none.
pub(super) fn first(
    recording: &Recording,
    pipelines: &[Pipeline],
    heard: &[Episode],
) -> Option<AlarmStrip> {
    let ecg = recording.ecg.as_ref()?;
    let of_ecg = pipelines.iter().filter(|pipeline| pipeline.family() == Family::Ecg);
    let flags: Vec<_> = of_ecg.flat_map(Pipeline::flags).collect();
    let about_ecg = |episode: &&Episode| flags.iter().any(|flag| flag.name == episode.kind.flag);
    let (episode, sounded) =
        heard.iter().filter(about_ecg).find_map(|episode| Some((episode, episode.sounded?)))?;
    let end_s = (sounded.micros() - LAG_US - BEGIN_US) as f64 / 1e6;
    let sample = |seconds: f64| ((seconds.max(0.0) * ecg.rate.hz()) as usize).min(ecg.mv.len());
    let shown = &ecg.mv[sample(end_s - STRIP_S)..sample(end_s)];
    let mut strip = ecg_strip(shown, ecg.rate, &[]);
    let beat = |peak: usize| Beat { sample: peak as u32, class: None };
    strip.beats = detect_r_peaks(shown, ecg.rate).into_iter().map(beat).collect();
    Some(AlarmStrip {
        record: recording.name.clone(),
        caption: format!("{} at {end_s:.0} s: {}", recording.name, episode.kind.flag),
        strip,
    })
}
