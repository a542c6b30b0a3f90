//! What `--report FILE.html` writes: the figures of an evaluation, its curves, and what it got wrong.
//!
//! One self-contained HTML page: style inline, drawings as SVG, nothing fetched, no script. Strips are of public
//! recordings; if the data are not public, neither is the page.

mod plot;

use crate::demo::report::{document, strip};
use crate::failure::Failure;
use haar_inference::statistics::{Calibration, Confusion, RocPoint};
use haar_schema::{Beat, SampleRate, SignalId, Strip, Timestamp};
use maud::{Markup, html};
use std::fmt::Write as _;
use std::path::Path;

pub(crate) use plot::{Axis, Plot};

/// The most strips of one part.
pub(crate) const MAX_STRIPS: usize = 12;

/// Side of a square drawing, and the room for its labels.
const SIDE: f64 = 320.0;
const MARGIN: f64 = 46.0;
/// Strips are drawn in steps of a microvolt.
const STEP_MV: f32 = 0.001;

/// A page.
pub(crate) struct Report {
    /// What was evaluated on what.
    pub(crate) title: String,
    /// Name, value and what it is of.
    pub(crate) tiles: Vec<[String; 3]>,
    /// What follows, in order.
    pub(crate) parts: Vec<Part>,
}

/// A part of the page.
pub(crate) enum Part {
    /// A table with a caption.
    Table { title: String, head: Vec<String>, rows: Vec<Vec<String>> },
    /// Receiver operating characteristics by name, each with its area.
    Roc { title: String, curves: Vec<(String, Vec<RocPoint>, Option<f64>)> },
    /// Predicted against observed.
    Calibration { title: String, calibration: Calibration },
    /// Points over two axes.
    Plot(Plot),
    /// Pieces of waveform, at most [`MAX_STRIPS`], the worst first.
    Strips { title: String, strips: Vec<(String, Strip)> },
    /// Pieces of a stream without a usual scale, at most [`MAX_STRIPS`], the worst first.
    Traces { title: String, note: String, traces: Vec<(String, Trace)> },
}

/// Some readings of any stream.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    /// NaN where there is none.
    pub(super) values: Vec<f32>,
    /// What lies behind: which readings are labelled.
    pub(super) labelled: Vec<bool>,
    /// What is underlined: which readings were called.
    pub(super) called: Vec<bool>,
    /// An interval around each reading, drawn as a band; empty for none, NaN where there is none.
    pub(super) around: Vec<(f32, f32)>,
}

impl Part {
    /// Classes by classes, with what was found of each.
    pub(crate) fn confusion(title: &str, confusion: &Confusion) -> Self {
        let percent = |share: Option<f64>| {
            share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", share * 100.0))
        };
        let mut head = vec!["true class".to_owned()];
        head.extend(confusion.names().iter().map(|name| format!("called {name}")));
        head.extend(["sensitivity", "PPV", "F1"].map(str::to_owned));
        let rows = confusion.names().iter().enumerate().map(|(class, name)| {
            let metrics = confusion.class(class);
            let counts = confusion.counts()[class].iter().map(u64::to_string);
            let shares = [metrics.sensitivity, metrics.ppv, metrics.f1].map(percent);
            std::iter::once((*name).to_owned()).chain(counts).chain(shares).collect()
        });
        Self::Table { title: title.into(), head, rows: rows.collect() }
    }
}

/// Samples in mV (NaN: none) as a strip, with beats at sample indices and a letter for each.
pub(crate) fn ecg_strip(mv: &[f32], rate: SampleRate, beats: &[(usize, char)]) -> Strip {
    let samples = mv
        .iter()
        .map(|mv| mv.is_finite().then(|| (mv / STEP_MV).round() as i16))
        .collect::<Vec<_>>();
    let inside = beats.iter().filter(|(at, _)| *at < mv.len());
    Strip {
        signal: SignalId::ECG,
        start_us: Timestamp::from_micros(0),
        rate_millihertz: rate,
        factor: STEP_MV,
        beats: inside
            .map(|(at, letter)| Beat { sample: *at as u32, class: Some(*letter) })
            .collect(),
        samples,
    }
}

/// Writes the page.
pub(crate) fn write(path: &Path, report: &Report) -> Result<(), Failure> {
    std::fs::write(path, render(report))
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    eprintln!("report: {}", path.display());
    Ok(())
}

fn render(report: &Report) -> String {
    let body = html! {
        header {
            h1 { (report.title) }
            p.warning role="note" { b { "Decision support; not a certified medical device." }
                " Measured on the recordings named here, and on no others." }
        }
        main {
            div.tiles {
                @for [name, value, below] in &report.tiles {
                    div.tile { span.name { (name) } span.value { (value) } span.below { (below) } }
                }
            }
            @for part in &report.parts { (draw(part)) }
        }
    };
    document(&report.title, &body)
}

fn draw(part: &Part) -> Markup {
    match part {
        Part::Table { title, head, rows } => html! {
            h2 { (title) }
            div.scroll { table.kinds {
                thead { tr { @for cell in head { th { (cell) } } } }
                tbody { @for row in rows { tr {
                    @for (at, cell) in row.iter().enumerate() {
                        @if at == 0 { th scope="row" { (cell) } } @else { td.number { (cell) } }
                    }
                } } }
            } }
        },
        Part::Roc { title, curves } => html! {
            h2 { (title) }
            div.vitals {
                @for (name, curve, area) in curves {
                    figure { (roc(curve)) figcaption {
                        b { (name) }
                        @if let Some(area) = area { ", area " (format!("{area:.4}")) }
                    } }
                }
            }
        },
        Part::Calibration { title, calibration: found } => html! {
            h2 { (title) }
            div.vitals { figure { (calibration(found)) figcaption {
                "Expected calibration error " (format!("{:.4}", found.expected_error))
                ", Brier score " (format!("{:.4}", found.brier))
                @if let Some(ratio) = found.ratio { ", predicted over observed " (format!("{ratio:.2}")) }
            } } }
        },
        Part::Plot(plot) => html! {
            h2 { (plot.title) }
            div.vitals { figure { (plot.draw()) figcaption { (plot.note) } } }
        },
        Part::Strips { title, strips } => html! {
            h2 { (title) }
            @if strips.is_empty() { p.note { "None." } }
            @for (caption, piece) in strips.iter().take(MAX_STRIPS) {
                p { (caption) }
                (strip::draw(piece))
            }
            @if strips.len() > MAX_STRIPS { p.note { (strips.len() - MAX_STRIPS) " more." } }
        },
        Part::Traces { title, note, traces } => html! {
            h2 { (title) }
            @if traces.is_empty() { p.note { "None." } }
            @else { p.note { (note) } }
            div.vitals {
                @for (caption, trace) in traces.iter().take(MAX_STRIPS) {
                    figure { (draw_trace(trace)) figcaption { (caption) } }
                }
            }
        },
    }
}

/// Readings evenly apart, from the least to the greatest value.
fn draw_trace(trace: &Trace) -> Markup {
    let (width, height) = (SIDE + MARGIN, SIDE / 2.0);
    let ends = trace.around.iter().flat_map(|(lower, upper)| [*lower, *upper]);
    let finite = trace.values.iter().copied().chain(ends).filter(|value| value.is_finite());
    let (low, high) = finite.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let step = width / trace.values.len().max(1) as f64;
    let span = f64::from(high - low).max(1e-9);
    let y = |value: f32| 6.0 + (1.0 - f64::from(value - low) / span) * (height - 22.0);
    let bars = trace.around.iter().enumerate().filter(|(_, (a, b))| (b - a).is_finite());
    let mut path = String::new();
    let mut pen = 'M';
    for (at, value) in trace.values.iter().enumerate() {
        if value.is_finite() {
            // Writing into a String has no failure.
            let _ = write!(path, "{pen}{:.1} {:.1}", (at as f64 + 0.5) * step, y(*value));
            pen = 'L';
        } else {
            pen = 'M';
        }
    }
    let stretches = |flags: &[bool]| -> Vec<(f64, f64)> {
        let mut begin = 0;
        let mut found = Vec::new();
        for stretch in flags.chunk_by(|a, b| a == b) {
            if stretch[0] {
                found.push((begin as f64 * step, stretch.len() as f64 * step));
            }
            begin += stretch.len();
        }
        found
    };
    html! {
        svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label="values by reading" {
            @for (x, wide) in stretches(&trace.labelled) {
                rect x=(format!("{x:.1}")) y="0" width=(format!("{wide:.1}")) height=(height - 8.0) fill="var(--band)" {}
            }
            @for (x, wide) in stretches(&trace.called) {
                rect x=(format!("{x:.1}")) y=(height - 6.0) width=(format!("{wide:.1}")) height="4" fill="var(--trace)" {}
            }
            @for (at, (lower, upper)) in bars {
                rect x=(format!("{:.1}", at as f64 * step)) y=(format!("{:.1}", y(*upper))) width=(format!("{step:.1}"))
                    height=(format!("{:.1}", (y(*lower) - y(*upper)).max(0.0))) fill="var(--good)" fill-opacity="0.22" {}
            }
            path d=(path) fill="none" stroke="var(--trace)" stroke-width="1.5" {}
        }
        @if low.is_finite() { span.unit { (format!("{} to {}", short(low), short(high))) } }
    }
}

/// To about four digits.
fn short(value: f32) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn roc(curve: &[RocPoint]) -> Markup {
    let mut path = String::new();
    for (at, point) in curve.iter().enumerate() {
        let (x, y) = place(point.false_positive_rate, point.true_positive_rate);
        // Writing into a String has no failure.
        let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
    }
    square(
        "1 − specificity",
        "sensitivity",
        [1.0, 1.0],
        &html! {
            path d=(path) fill="none" stroke="var(--trace)" stroke-width="2" {}
        },
    )
}

/// Both axes go as far as the largest bin, since rare events fill a corner of the unit square.
fn calibration(found: &Calibration) -> Markup {
    let largest = found.bins.iter().flat_map(|bin| [bin.predicted, bin.observed]);
    let end = largest.fold(1e-3, f64::max);
    square(
        "predicted",
        "observed",
        [end, end],
        &html! {
            @for bin in &found.bins {
                @let (x, y) = place(bin.predicted / end, bin.observed / end);
                circle cx=(format!("{x:.1}")) cy=(format!("{y:.1}")) r="4" fill="var(--trace)" {
                    title { (bin.cases) " cases: predicted " (format!("{:.4}", bin.predicted)) ", observed " (format!("{:.4}", bin.observed)) }
                }
            }
        },
    )
}

/// From shares of the axes to a place in the drawing.
fn place(x: f64, y: f64) -> (f64, f64) {
    (MARGIN + x.clamp(0.0, 1.0) * SIDE, MARGIN / 2.0 + (1.0 - y.clamp(0.0, 1.0)) * SIDE)
}

fn square(x_name: &str, y_name: &str, ends: [f64; 2], inside: &Markup) -> Markup {
    let (width, height) = (SIDE + MARGIN * 1.5, SIDE + MARGIN * 1.5);
    let steps = [0.0, 0.25, 0.5, 0.75, 1.0];
    let label = |end: f64, step: f64| {
        let value = end * step;
        if end >= 0.5 { format!("{value:.2}") } else { format!("{value:.3}") }
    };
    let ((left, bottom), (right, top)) = (place(0.0, 0.0), place(1.0, 1.0));
    html! {
        svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(format!("{y_name} by {x_name}")) {
            @for step in steps {
                @let (x, y) = place(step, step);
                path.grid d=(format!("M{x} {bottom}V{top}M{left} {y}H{right}")) {}
                text x=(x) y=(bottom + 14.0) text-anchor="middle" { (label(ends[0], step)) }
                text x=(left - 5.0) y=(y + 3.0) text-anchor="end" { (label(ends[1], step)) }
            }
            path d=(format!("M{left} {bottom}L{right} {top}")) stroke="var(--soft)" stroke-dasharray="4 4" fill="none" {}
            (inside)
            text x=((left + right) / 2.0) y=(height - 4.0) text-anchor="middle" { (x_name) }
            text transform=(format!("translate(10 {}) rotate(-90)", (top + bottom) / 2.0)) text-anchor="middle" { (y_name) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_inference::statistics::{calibration, roc_curve};

    #[test]
    fn a_page_has_what_it_was_given_and_escapes_it() {
        let (scores, positive) = ([0.1, 0.4, 0.35, 0.8], [false, false, true, true]);
        let mut confusion = Confusion::new(&["N", "V"]);
        confusion.add(0, 0);
        confusion.add(1, 0);
        let rate = SampleRate::from_hz(250).unwrap();
        let report = Report {
            title: "Beats <of> a test".into(),
            tiles: vec![["Accuracy".into(), "50 %".into(), "of 2 beats".into()]],
            parts: vec![
                Part::confusion("Classes", &confusion),
                Part::Roc {
                    title: "Curve".into(),
                    curves: vec![("all".into(), roc_curve(&scores, &positive, 10), Some(0.75))],
                },
                Part::Calibration {
                    title: "Calibration".into(),
                    calibration: calibration(&scores, &positive, 2).unwrap(),
                },
                Part::Traces {
                    title: "Streams".into(),
                    note: "Shaded: labelled.".into(),
                    traces: vec![(
                        "a stream".into(),
                        Trace {
                            values: vec![1.0, f32::NAN, 3.0],
                            labelled: vec![false, true, true],
                            around: vec![(0.5, 1.5), (f32::NAN, f32::NAN), (2.0, 3.5)],
                            called: vec![true, false, false],
                        },
                    )],
                },
                Part::Strips {
                    title: "Misses".into(),
                    strips: vec![(
                        "a miss".into(),
                        ecg_strip(&[0.0, 1.0, f32::NAN, 0.1], rate, &[(1, 'V'), (9, 'N')]),
                    )],
                },
            ],
        };
        let page = render(&report);
        assert!(page.contains("Beats &lt;of&gt; a test"));
        for expected in
            ["called V", "area 0.7500", "Brier score", "a miss", "50 %", "a stream", "0.5 to 3.5"]
        {
            assert!(page.contains(expected), "{expected}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        write(&path, &report).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), page);
        assert!(write(folder.path(), &report).is_err());
    }
}
