//! What is plotted over time, and the points read off window digests.

use super::MAX_POINTS_PER_SERIES;
use haar_schema::{Feature, Features, SignalId, SignalKind, Timestamp, WindowDigest};
use std::collections::BTreeMap;

/// Something plotted over time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trace {
    /// A scalar signal: mean, minimum and maximum of each window.
    Signal(SignalId),
    /// The NEWS2 score: what is certain, and what it could be if missing inputs were at their worst.
    News2,
    /// Heart rate from R peaks.
    EcgHeartRate,
    /// Root mean square of successive RR differences.
    Rmssd,
    /// Share of beats that are not normal.
    EctopicFraction,
}

/// The part of a chart's axis and text that a [`Trace`] settles.
pub(super) struct Look {
    pub title: &'static str,
    /// As people write it.
    pub unit: &'static str,
    /// The axis spans at least this much, so that noise does not look like an event.
    pub span_min: f64,
    /// The axis never leaves this range.
    pub range: (f64, f64),
    /// Values that score 0 in NEWS2 (Royal College of Physicians, 2017, chart 1).
    pub usual: Option<(f64, f64)>,
    pub decimals: usize,
    /// What line and band are.
    pub legend: &'static str,
}

impl Trace {
    /// Everything that may be plotted, in the order of the page.
    fn all() -> impl Iterator<Item = Self> {
        SignalId::all()
            .filter(|signal| signal.definition().kind == SignalKind::Scalar)
            .map(Self::Signal)
            .chain([Self::News2, Self::EcgHeartRate, Self::Rmssd, Self::EctopicFraction])
    }

    pub(super) fn look(self) -> Look {
        const WINDOW: &str = "line: mean of the window; band: its minimum to maximum";
        let look = |title, unit, span_min, range, usual, decimals, legend| Look {
            title,
            unit,
            span_min,
            range,
            usual,
            decimals,
            legend,
        };
        const UP: (f64, f64) = (0.0, f64::MAX);
        match self {
            Self::Signal(signal) => {
                let row = signal.definition();
                let (span_min, usual, decimals) = match signal {
                    SignalId::HEART_RATE => (30.0, Some((51.0, 90.0)), 0),
                    SignalId::SPO2 => (8.0, Some((96.0, 100.0)), 1),
                    SignalId::RESPIRATION_RATE => (12.0, Some((12.0, 20.0)), 1),
                    SignalId::SYSTOLIC => (40.0, Some((111.0, 219.0)), 0),
                    SignalId::DIASTOLIC => (40.0, None, 0),
                    SignalId::TEMPERATURE => (2.0, Some((36.1, 38.0)), 1),
                    _ => (1.0, None, 1),
                };
                look(row.title, unit(row.unit), span_min, row.plausible, usual, decimals, WINDOW)
            }
            Self::News2 => look(
                "NEWS2 score",
                "points",
                8.0,
                (0.0, 20.0),
                None,
                0,
                "line: certain points; band: up to the worst that missing inputs allow",
            ),
            Self::EcgHeartRate => {
                let legend = "from R peaks in the window";
                look("Heart rate from ECG", "/min", 30.0, UP, Some((51.0, 90.0)), 0, legend)
            }
            Self::Rmssd => {
                let legend = "successive RR differences in the window";
                look("RMSSD", "ms", 40.0, UP, None, 0, legend)
            }
            Self::EctopicFraction => {
                let legend = "share of the window's beats";
                look("Ectopic beats", "%", 20.0, (0.0, 100.0), None, 0, legend)
            }
        }
    }

    /// The point of one window, if the window has one.
    fn point(self, features: &Features, at: Timestamp) -> Option<Point> {
        let get = |name: &str| features.get(name).copied().and_then(Feature::get);
        let flat = |value| Point { at, mean: value, min: value, max: value };
        match self {
            Self::Signal(signal) => {
                let name = signal.name();
                let mean = get(&format!("{name}.mean"))?;
                let min = get(&format!("{name}.min")).unwrap_or(mean);
                let max = get(&format!("{name}.max")).unwrap_or(mean);
                Some(Point { at, mean, min, max })
            }
            Self::News2 => {
                let lower = get("news2.lower").or_else(|| get("news2.score"))?;
                let upper = get("news2.upper").unwrap_or(lower);
                Some(Point { at, mean: lower, min: lower, max: upper })
            }
            Self::EcgHeartRate => get("ecg.heart_rate").map(flat),
            Self::Rmssd => get("ecg.rmssd_ms").map(flat),
            Self::EctopicFraction => get("ecg.ectopic_fraction").map(|share| flat(share * 100.0)),
        }
    }
}

/// A window's end, and the value there.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub at: Timestamp,
    pub mean: f64,
    pub min: f64,
    pub max: f64,
}

/// One patient's values of one [`Trace`], in order of time.
pub(super) struct VitalSeries {
    pub trace: Trace,
    pub points: Vec<Point>,
}

/// The series of one patient's windows. If several pipelines compute the same features, the one
/// with the most points is plotted (of equals the first by name).
pub(super) fn series(windows: &[&WindowDigest]) -> Vec<VitalSeries> {
    let mut found: BTreeMap<Trace, BTreeMap<&str, Vec<Point>>> = BTreeMap::new();
    for trace in Trace::all() {
        for digest in windows {
            if let Some(point) = trace.point(&digest.features, digest.key.end_us) {
                let by_pipeline = found.entry(trace).or_default();
                by_pipeline.entry(&digest.key.pipeline).or_default().push(point);
            }
        }
    }
    found
        .into_iter()
        .filter_map(|(trace, by_pipeline)| {
            // `max_by_key` takes the last of equals; reversed, that is the first by name.
            let mut points = by_pipeline.into_values().rev().max_by_key(Vec::len)?;
            points.sort_by_key(|point| point.at);
            Some(VitalSeries { trace, points })
        })
        .collect()
}

impl VitalSeries {
    /// The points cut where a window has no value, each piece merged down to its share of
    /// [`MAX_POINTS_PER_SERIES`].
    pub(super) fn pieces(&self) -> Vec<Vec<Point>> {
        let points: Vec<Point> = self
            .points
            .iter()
            .filter(|p| p.mean.is_finite() && p.min.is_finite() && p.max.is_finite())
            .copied()
            .collect();
        let mut steps: Vec<i64> =
            points.windows(2).map(|pair| pair[1].at.micros_since(pair[0].at)).collect();
        steps.sort_unstable();
        let usual_step = steps.get(steps.len() / 2).copied().unwrap_or(0);
        // One missed window may be shown bridged only if it is shorter than one and a half steps.
        let gap = usual_step.saturating_add(usual_step / 2);
        let mut pieces: Vec<Vec<Point>> = Vec::new();
        let group = points.len().div_ceil(MAX_POINTS_PER_SERIES).max(1);
        for piece in points.chunk_by(|a, b| b.at.micros_since(a.at) <= gap) {
            pieces.push(piece.chunks(group).map(merged).collect());
        }
        pieces.truncate(MAX_POINTS_PER_SERIES);
        pieces
    }
}

/// One point for several: the middle one's time, the mean of means, the outermost bounds.
fn merged(points: &[Point]) -> Point {
    let mut whole = points[points.len() / 2];
    whole.mean = points.iter().map(|p| p.mean).sum::<f64>() / points.len() as f64;
    for point in points {
        whole.min = whole.min.min(point.min);
        whole.max = whole.max.max(point.max);
    }
    whole
}

/// A UCUM unit as people write it.
pub(super) fn unit(ucum: &'static str) -> &'static str {
    match ucum {
        "mm[Hg]" => "mmHg",
        "Cel" => "°C",
        "1" => "",
        other => other,
    }
}
