//! The page of `haar evaluate respiration`.

use super::{Figures, Summary, Window};
use crate::evaluate::report::{Axis, MAX_STRIPS, Part, Plot, Report, Trace};
use haar_recordings::bidmc::{self, Recording};
use haar_signals::respiration::WINDOW_S;
use std::ops::Range;

/// A trace takes every so manieth sample: 25 a second are enough for breaths.
const DECIMATION: usize = 5;
/// How wide the mark of a breath is, in seconds.
const MARK_S: f64 = 0.24;

/// Figures, agreement by Bland and Altman, and the windows with the largest errors.
pub(super) fn page(summary: &Summary, windows: &[Window]) -> Report {
    let fused = &summary.fused;
    let rate = |rate: Option<f64>| number(rate, 1.0, 2);
    let interval = summary.mae_interval.map_or_else(
        || "breaths/min".to_owned(),
        |interval| format!("{:.2}–{:.2}, 95 % over people", interval.lower, interval.upper),
    );
    let tile = |name: &str, value: String, below: String| [name.to_owned(), value, below];
    Report {
        title: format!(
            "Respiration rate of {} recordings of {} people",
            summary.recordings, summary.people
        ),
        tiles: vec![
            tile("Mean absolute error", rate(fused.mae), interval),
            tile(
                "Kept",
                format!("{} %", number(fused.kept, 100.0, 1)),
                format!("of {} windows of {WINDOW_S} s", fused.windows),
            ),
            tile("Bias", rate(fused.bias), "rate − reference, breaths/min".into()),
            tile(
                "Without reference",
                summary.reference.excluded.to_string(),
                "windows: too few breaths marked, or annotators differ".into(),
            ),
        ],
        parts: vec![
            agreement(fused, windows),
            sources(summary),
            recordings(summary),
            worst(windows),
        ],
    }
}

/// A window's breaths as impedance shows them, else the pulse wave; shaded where the first annotator marked one.
pub(super) fn trace(recording: &Recording, span: &Range<usize>) -> Trace {
    let signal = recording.signal("RESP").or_else(|| recording.signal("PLETH"));
    let samples = signal.and_then(|signal| signal.get(span.clone())).unwrap_or_default();
    let values: Vec<f32> = samples.iter().step_by(DECIMATION).copied().collect();
    let mut labelled = vec![false; values.len()];
    let half = (MARK_S / 2.0 * f64::from(bidmc::RATE_HZ)) as usize;
    let within = recording.breaths[0].iter().filter(|breath| span.contains(breath));
    for breath in within.map(|breath| breath - span.start) {
        let marked = breath.saturating_sub(half) / DECIMATION..=(breath + half) / DECIMATION;
        for at in marked {
            if let Some(label) = labelled.get_mut(at) {
                *label = true;
            }
        }
    }
    let called = vec![false; values.len()];
    Trace { values, labelled, called, around: Vec::new() }
}

fn agreement(fused: &Figures, windows: &[Window]) -> Part {
    let pairs: Vec<(f64, f64)> = windows
        .iter()
        .filter_map(|window| {
            let rate = window.rates[0]?;
            Some(((rate + window.reference) / 2.0, rate - window.reference))
        })
        .collect();
    let mut levels = Vec::new();
    if let (Some(bias), Some([low, high])) = (fused.bias, fused.limits_of_agreement) {
        levels = vec![
            (high, format!("bias + 1.96 s: {high:.2}")),
            (bias, format!("bias: {bias:.2}")),
            (low, format!("bias − 1.96 s: {low:.2}")),
        ];
    }
    // As far up as down, and even, so that half of it is whole.
    let reach = 2.0 * pairs.iter().map(|pair| pair.1.abs() / 2.0).fold(1.0, f64::max).ceil();
    Part::Plot(Plot {
        title: "Agreement (Bland and Altman)".into(),
        note: "A point for each window that was kept, all sources fused.".into(),
        x: Axis::around("mean of rate and reference, /min", pairs.iter().map(|pair| pair.0), 5.0),
        y: Axis::new("rate − reference, /min", -reach, reach),
        points: pairs.into_iter().map(|(mean, error)| (mean, error, String::new())).collect(),
        levels,
        diagonal: false,
    })
}

fn sources(summary: &Summary) -> Part {
    let own = summary.sources.iter().map(|(name, figures)| row(name, figures));
    let rows = std::iter::once(row("fused", &summary.fused)).chain(own).collect();
    Part::Table { title: "By source".into(), head: head("source"), rows }
}

fn recordings(summary: &Summary) -> Part {
    let rows = summary.per_recording.iter().map(|line| row(&line.recording, &line.figures));
    Part::Table { title: "By recording".into(), head: head("recording"), rows: rows.collect() }
}

fn head(first: &str) -> Vec<String> {
    [first, "windows", "kept %", "MAE /min", "RMSE /min", "bias /min", "95 % limits"]
        .map(str::to_owned)
        .into()
}

fn row(name: &str, figures: &Figures) -> Vec<String> {
    let limits = figures.limits_of_agreement.map(|[low, high]| format!("{low:.2} to {high:.2}"));
    vec![
        name.to_owned(),
        figures.windows.to_string(),
        number(figures.kept, 100.0, 1),
        number(figures.mae, 1.0, 2),
        number(figures.rmse, 1.0, 2),
        number(figures.bias, 1.0, 2),
        limits.unwrap_or_else(|| "–".into()),
    ]
}

fn worst(windows: &[Window]) -> Part {
    let mut kept: Vec<(f64, &Window)> = windows
        .iter()
        .filter_map(|window| Some((window.rates[0]? - window.reference, window)))
        .collect();
    kept.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
    let traces = kept.into_iter().take(MAX_STRIPS).filter_map(|(error, window)| {
        let caption = format!(
            "{}, from {:.0} s: {:.1} /min, {:+.1} against the {:.1} marked",
            window.recording,
            window.start_s,
            window.reference + error,
            error,
            window.reference
        );
        Some((caption, window.trace.clone()?))
    });
    Part::Traces {
        title: "Largest errors of windows kept".into(),
        note: "Impedance, else the pulse wave. Shaded: a breath that the first annotator marked."
            .into(),
        traces: traces.collect(),
    }
}

fn number(value: Option<f64>, scale: f64, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{:.digits$}", scale * value))
}
