//! Points over two axes with their own units: agreement, scatter, how often what was promised came.

use super::{MARGIN, SIDE};
use maud::{Markup, html};

/// The most points that are drawn; of more, every so manieth.
const MAX_POINTS: usize = 2_000;
/// Labelled steps of an axis.
const STEPS: u8 = 4;

/// One axis.
pub(crate) struct Axis {
    /// What it is, with the unit.
    name: String,
    low: f64,
    high: f64,
}

impl Axis {
    /// From `low` to `high`; a span without length becomes one of 1.
    pub(crate) fn new(name: impl Into<String>, low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { name: name.into(), low, high }
    }

    /// From the least to the greatest of the finite values, widened to whole multiples of `step`.
    pub(crate) fn around(
        name: impl Into<String>,
        values: impl Iterator<Item = f64>,
        step: f64,
    ) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            return Self::new(name, 0.0, step);
        }
        Self::new(name, (low / step).floor() * step, (high / step).ceil() * step)
    }

    fn share(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn at(&self, share: f64) -> f64 {
        self.low + share * (self.high - self.low)
    }

    fn label(&self, share: f64) -> String {
        let value = self.at(share);
        let digits = match self.high - self.low {
            span if span >= 20.0 => 0,
            span if span >= 2.0 => 1,
            span if span >= 0.2 => 2,
            _ => 3,
        };
        format!("{value:.digits$}")
    }
}

/// Points over two axes.
pub(crate) struct Plot {
    pub(crate) title: String,
    /// A sentence below.
    pub(crate) note: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Place and what a point says when it is pointed at. What lies outside is drawn on the edge.
    pub(crate) points: Vec<(f64, f64, String)>,
    /// Horizontal lines with what they are.
    pub(crate) levels: Vec<(f64, String)>,
    /// Whether equality is drawn.
    pub(crate) diagonal: bool,
}

impl Plot {
    pub(super) fn draw(&self) -> Markup {
        let place = |x: f64, y: f64| {
            (MARGIN + self.x.share(x) * SIDE, MARGIN / 2.0 + (1.0 - self.y.share(y)) * SIDE)
        };
        let (width, height) = (SIDE + MARGIN * 1.5, SIDE + MARGIN * 1.5);
        let (left, bottom) = place(self.x.low, self.y.low);
        let (right, top) = place(self.x.high, self.y.high);
        let every = self.points.len().div_ceil(MAX_POINTS).max(1);
        // Many points are small and let each other through.
        let (radius, opacity) =
            if self.points.len() > 100 { ("2.5", "0.4") } else { ("4", "0.85") };
        let (from, to) = (self.x.low.max(self.y.low), self.x.high.min(self.y.high));
        html! {
            svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(format!("{} by {}", self.y.name, self.x.name)) {
                @for step in 0..=STEPS {
                    @let share = f64::from(step) / f64::from(STEPS);
                    @let (x, y) = place(self.x.at(share), self.y.at(share));
                    path.grid d=(format!("M{x} {bottom}V{top}M{left} {y}H{right}")) {}
                    text x=(x) y=(bottom + 14.0) text-anchor="middle" { (self.x.label(share)) }
                    text x=(left - 5.0) y=(y + 3.0) text-anchor="end" { (self.y.label(share)) }
                }
                @if self.diagonal && to > from {
                    @let ((x1, y1), (x2, y2)) = (place(from, from), place(to, to));
                    path d=(format!("M{x1} {y1}L{x2} {y2}")) stroke="var(--soft)" stroke-dasharray="4 4" fill="none" {}
                }
                @for (level, _) in &self.levels {
                    @let (_, y) = place(self.x.low, *level);
                    path d=(format!("M{left} {y:.1}H{right}")) stroke="var(--soft)" stroke-dasharray="4 4" fill="none" {}
                }
                @for (x, y, said) in self.points.iter().step_by(every) {
                    @let (x, y) = place(*x, *y);
                    circle cx=(format!("{x:.1}")) cy=(format!("{y:.1}")) r=(radius) fill="var(--trace)" fill-opacity=(opacity) {
                        @if !said.is_empty() { title { (said) } }
                    }
                }
                // Over the points, with a rim that keeps them legible.
                @for (level, said) in &self.levels {
                    @let (_, y) = place(self.x.low, *level);
                    text x=(right - 3.0) y=(format!("{:.1}", y - 4.0)) text-anchor="end"
                        style="paint-order:stroke;stroke:var(--paper);stroke-width:4px;fill:var(--ink)" { (said) }
                }
                text x=((left + right) / 2.0) y=(height - 4.0) text-anchor="middle" { (self.x.name) }
                text transform=(format!("translate(10 {}) rotate(-90)", (top + bottom) / 2.0)) text-anchor="middle" { (self.y.name) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_reach_around_their_values() {
        let axis = Axis::around("x", [1.2, f64::NAN, -0.3].into_iter(), 0.5);
        assert_eq!((axis.low, axis.high), (-0.5, 1.5));
        assert_eq!((axis.share(0.5), axis.share(9.0)), (0.5, 1.0));
        assert_eq!(axis.label(0.5), "0.5");
        // Nothing at all, and a single value on a step, still are a span.
        for values in [vec![], vec![2.0]] {
            let axis = Axis::around("x", values.into_iter(), 1.0);
            assert!(axis.high > axis.low);
        }
    }

    #[test]
    fn points_are_where_they_should_be_and_no_more_than_allowed() {
        let plot = |points: usize| Plot {
            title: "t".into(),
            note: String::new(),
            x: Axis::new("x", 0.0, 10.0),
            y: Axis::new("y", -1.0, 1.0),
            points: (0..points).map(|_| (5.0, 0.0, "<middle>".to_owned())).collect(),
            levels: vec![(0.5, "half".into())],
            diagonal: true,
        };
        let drawn = plot(1).draw().into_string();
        assert!(drawn.contains(r#"cx="206.0" cy="183.0""#), "{drawn}");
        assert!(drawn.contains("&lt;middle&gt;") && drawn.contains("half"));
        assert!(drawn.contains(">10.0<") && drawn.contains(">-1.0<"), "{drawn}");
        assert_eq!(
            plot(MAX_POINTS * 3).draw().into_string().matches("<circle").count(),
            MAX_POINTS
        );
    }
}
