//! Charts over time: the lanes of a patient's episodes, and one small chart per vital sign.

use super::episode::Episode;
use super::scale::{Px, TimeAxis, ValueAxis, clock};
use super::trace::{Look, Point, VitalSeries};
use haar_schema::Priority;
use maud::{Markup, html};
use std::fmt::Write as _;

/// The most lanes drawn; further kinds of flags share the last.
const MAX_LANES: usize = 12;
/// At most this many labels on a time axis of a small chart, and of the lanes.
const CHART_TICKS: i64 = 5;
const LANE_TICKS: i64 = 9;

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 104.0;
const LEFT: f64 = 38.0;
/// Half a label of the time axis.
const RIGHT: f64 = 24.0;
const TOP: f64 = 8.0;

/// Colour class and sign of a priority: the sign is what is left of it in black and white.
pub(super) fn priority_look(priority: Priority) -> (&'static str, &'static str) {
    match priority {
        Priority::High => ("high", "!!!"),
        Priority::Medium => ("medium", "!!"),
        Priority::Low => ("low", "!"),
        Priority::Information => ("information", "i"),
    }
}

/// One row per kind of flag, each episode a numbered bar.
pub(super) fn lanes(episodes: &[Episode<'_>], axis: &TimeAxis) -> Markup {
    const NAME: f64 = 190.0;
    const PLOT: f64 = 780.0;
    const ROW: f64 = 20.0;
    let mut names: Vec<&str> = Vec::new();
    for episode in episodes {
        if !names.contains(&episode.flag()) && names.len() < MAX_LANES {
            names.push(episode.flag());
        }
    }
    let height = ROW * names.len() as f64;
    html! {
        div.scroll {
            svg.lanes viewBox=(format!("0 0 {} {}", Px(NAME + PLOT + 30.0), Px(height + 20.0))) role="img" {
                title { "Flags over time: " (names.len()) " kinds, " (episodes.len()) " episodes" }
                @for tick in axis.ticks(LANE_TICKS) {
                    @let x = Px(NAME + axis.x(tick, PLOT));
                    line.grid x1=(x) x2=(x) y1="0" y2=(Px(height)) {}
                    text.tick x=(x) y=(Px(height + 14.0)) text-anchor="middle" { (clock(tick)) }
                }
                @for (row, name) in names.iter().enumerate() {
                    @let y = ROW * row as f64;
                    line.grid x1="0" x2=(Px(NAME + PLOT)) y1=(Px(y + ROW)) y2=(Px(y + ROW)) {}
                    text.lane x="0" y=(Px(y + 14.0)) { (shortened(name, 26)) }
                }
                @for (index, episode) in episodes.iter().enumerate() {
                    @let row = names.iter().position(|name| *name == episode.flag());
                    @let y = ROW * row.unwrap_or(MAX_LANES - 1) as f64;
                    @let from = axis.x(episode.start, PLOT);
                    @let width = (axis.x(episode.end, PLOT) - from).max(3.0);
                    g class=(priority_look(episode.priority()).0) {
                        title { (said(index, episode)) }
                        rect.bar x=(Px(NAME + from)) y=(Px(y + 3.0)) width=(Px(width)) height=(Px(ROW - 6.0)) rx="2" {}
                        @if width > 12.0 {
                            text.number x=(Px(NAME + from + width / 2.0)) y=(Px(y + 14.0)) text-anchor="middle" { (index + 1) }
                        }
                    }
                }
            }
        }
    }
}

/// One series with band and line, the flags' episodes behind it.
pub(super) fn vital(series: &VitalSeries, episodes: &[Episode<'_>], axis: &TimeAxis) -> Markup {
    let look = series.trace.look();
    let pieces = series.pieces();
    let points = || pieces.iter().flatten();
    let low = points().map(|p| p.min).fold(f64::INFINITY, f64::min);
    let high = points().map(|p| p.max).fold(f64::NEG_INFINITY, f64::max);
    let Some(last) = points().next_back().filter(|_| low.is_finite() && high.is_finite()) else {
        return html! {};
    };
    let values = ValueAxis::around(low, high, look.span_min, look.range);
    let written = |value: f64| format!("{value:.*}", look.decimals);
    let from_to = format!("{} to {} {}", written(low), written(high), look.unit);
    let plot = Plot { axis, values, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - 18.0 };
    html! {
        figure.vital {
            figcaption {
                b { (look.title) } " "
                span.unit { (look.unit) }
                span.last title="at the end of the last window" { (written(last.mean)) }
                span.readout aria-hidden="true" {}
            }
            svg viewBox=(format!("0 0 {} {}", Px(WIDTH), Px(HEIGHT))) role="img"
                data-chart=(plot.data(&look)) {
                title {
                    (look.title) ", " (from_to) ", from " (clock(axis.from())) " to " (clock(axis.to()))
                    " UTC (" (look.legend) ")"
                }
                g transform=(format!("translate({} {})", Px(LEFT), Px(TOP))) {
                    (plot.background(&look, episodes))
                    @for piece in &pieces { (plot.piece(piece)) }
                    line.cursor x1="0" x2="0" y1="0" y2=(Px(plot.height)) {}
                }
            }
        }
    }
}

struct Plot<'a> {
    axis: &'a TimeAxis,
    values: ValueAxis,
    width: f64,
    height: f64,
}

impl Plot<'_> {
    fn y(&self, value: f64) -> f64 {
        self.values.y(value, self.height)
    }

    /// What the script needs to read a value off the line.
    fn data(&self, look: &Look) -> String {
        format!(
            "{} {} {} {} {} {} {} {} {}",
            Px(LEFT),
            Px(self.width),
            Px(self.height),
            self.values.low,
            self.values.high,
            self.axis.from().millis(),
            self.axis.to().millis(),
            look.decimals,
            look.unit
        )
    }

    fn background(&self, look: &Look, episodes: &[Episode<'_>]) -> Markup {
        let (width, height) = (self.width, self.height);
        let usual = look.usual.map(|(low, high)| (self.y(high), self.y(low)));
        html! {
            @if let Some((top, bottom)) = usual.filter(|(top, bottom)| bottom - top > 0.5) {
                rect.usual x="0" y=(Px(top)) width=(Px(width)) height=(Px(bottom - top)) {
                    title { "Scores 0 in NEWS2" }
                }
            }
            @for (index, episode) in episodes.iter().enumerate() {
                @let from = self.axis.x(episode.start, width);
                @let span = (self.axis.x(episode.end, width) - from).max(1.5);
                g class=(priority_look(episode.priority()).0) {
                    title { (said(index, episode)) }
                    rect.shade x=(Px(from)) y="0" width=(Px(span)) height=(Px(height)) {}
                    rect.bar x=(Px(from)) y="-5" width=(Px(span)) height="4" {}
                }
            }
            @for tick in self.values.ticks() {
                @let y = self.y(tick);
                line.grid x1="0" x2=(Px(width)) y1=(Px(y)) y2=(Px(y)) {}
                text.tick x="-5" y=(Px(y + 3.5)) text-anchor="end" {
                    (format!("{tick:.*}", self.values.decimals()))
                }
            }
            @for tick in self.axis.ticks(CHART_TICKS) {
                @let x = self.axis.x(tick, width);
                line.grid x1=(Px(x)) x2=(Px(x)) y1="0" y2=(Px(height)) {}
                text.tick x=(Px(x)) y=(Px(height + 13.0)) text-anchor="middle" {
                    (clock(tick))
                }
            }
        }
    }

    fn piece(&self, piece: &[Point]) -> Markup {
        let x = |p: &Point| Px(self.axis.x(p.at, self.width));
        if let [only] = piece {
            return html! {
                line.whisker x1=(x(only)) x2=(x(only)) y1=(Px(self.y(only.min))) y2=(Px(self.y(only.max))) {}
                circle.point cx=(x(only)) cy=(Px(self.y(only.mean))) r="2" {}
            };
        }
        let (mut line, mut band) = (String::new(), String::new());
        for point in piece {
            // Writing into a string does not fail.
            let _ = write!(line, "{},{} ", x(point), Px(self.y(point.mean)));
            let _ = write!(band, "{},{} ", x(point), Px(self.y(point.max)));
        }
        for point in piece.iter().rev() {
            let _ = write!(band, "{},{} ", x(point), Px(self.y(point.min)));
        }
        html! {
            polygon.band points=(band.trim_end()) {}
            polyline.mean points=(line.trim_end()) {}
        }
    }
}

/// What is said of an episode where there is no room for its text.
fn said(index: usize, episode: &Episode<'_>) -> String {
    format!(
        "{}. {} ({}), {} to {} UTC",
        index + 1,
        episode.flag(),
        episode.priority().as_str(),
        clock(episode.start),
        clock(episode.end)
    )
}

/// The text, cut to `most` characters.
fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}
