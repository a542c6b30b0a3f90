//! The page of `haar evaluate news2`.

use super::{CARRY_HOURS, Charts, Summary, inputs_at, lines};
use crate::evaluate::report::{Axis, Part, Plot, Report};
use haar_inference::statistics::{auroc, roc_curve};
use haar_recordings::cinc2019::Stay;
use haar_signals::news2::{MAX_POINTS, News2, Risk};

/// Hours in each list of disagreements, one of a stay.
const MAX_ROWS: usize = 12;
/// The most points drawn of a curve.
const MAX_CURVE_POINTS: usize = 400;
/// A share of fewer hours than this is not drawn.
const HOURS_MIN: usize = 50;

/// An hour of a stay: the number of the stay, that of the hour, and its score.
type Place<'c> = (usize, usize, &'c News2);

/// Figures, curves, sepsis by score, and the chart's rows where score and label disagree most.
pub(super) fn page(summary: &Summary, charts: &Charts) -> Report {
    let number = |value: Option<f64>, scale: f64, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{:.digits$}", scale * value))
    };
    let interval = summary.auroc_interval.map_or_else(
        || "of the lower bound".to_owned(),
        |interval| format!("{:.3}–{:.3}, 95 % over patients", interval.lower, interval.upper),
    );
    let tile = |name: &str, value: String, below: &str| [name.to_owned(), value, below.to_owned()];
    let carried = &summary.carried;
    Report {
        title: format!("NEWS2 of {} patients, {} hours", summary.patients, summary.hours),
        tiles: vec![
            tile("AUROC for sepsis", number(summary.auroc, 1.0, 3), &interval),
            tile(
                "All but consciousness known",
                format!("{} %", number(carried.all_but_consciousness, 100.0, 1)),
                "of hours, values carried",
            ),
            tile("Left open", number(carried.mean_width, 1.0, 1), "points between the bounds"),
            tile(
                "High risk for certain",
                format!("{} %", number(carried.high_risk_certain, 100.0, 1)),
                "of hours, whatever is missing",
            ),
        ],
        parts: vec![
            Part::Table {
                title: format!("Measured in the hour, and carried for up to {CARRY_HOURS} hours"),
                head: ["", "measured", "carried"].map(str::to_owned).into(),
                rows: lines(summary).into_iter().map(Vec::from).collect(),
            },
            curves(charts),
            by_score(charts),
            disagreements(charts, true),
            disagreements(charts, false),
        ],
    }
}

fn curves(charts: &Charts) -> Part {
    let curve = |name: &str, of: &dyn Fn(&News2) -> f64| {
        let (scores, labels) = charts.carried.labelled(of);
        (name.to_owned(), roc_curve(&scores, &labels, MAX_CURVE_POINTS), auroc(&scores, &labels))
    };
    Part::Roc {
        title: "Sepsis from six hours before its onset on, by hour, values carried".into(),
        curves: vec![
            curve("Lower bound", &|score| f64::from(score.lower)),
            curve("Upper bound", &|score| f64::from(score.upper)),
        ],
    }
}

fn by_score(charts: &Charts) -> Part {
    let mut hours = vec![(0_usize, 0_usize); usize::from(MAX_POINTS) + 1];
    let (scores, labels) = charts.carried.labelled(|score| f64::from(score.lower));
    for (score, label) in scores.iter().zip(&labels) {
        if let Some((all, septic)) = hours.get_mut(*score as usize) {
            *all += 1;
            *septic += usize::from(*label);
        }
    }
    let points: Vec<(f64, f64, String)> = hours
        .iter()
        .enumerate()
        .filter(|(_, (all, _))| *all >= HOURS_MIN)
        .map(|(score, (all, septic))| {
            let share = 100.0 * *septic as f64 / *all as f64;
            (score as f64, share, format!("{score}: {septic} of {all} hours, {share:.1} %"))
        })
        .collect();
    let septic = labels.iter().filter(|label| **label).count();
    let overall = 100.0 * septic as f64 / labels.len().max(1) as f64;
    Part::Plot(Plot {
        title: "Hours labelled as sepsis, by score".into(),
        note: format!("Lower bound, values carried; scores of {HOURS_MIN} hours or more."),
        x: Axis::new("points", 0.0, f64::from(MAX_POINTS)),
        y: Axis::around("labelled, %", points.iter().map(|point| point.1).chain([0.0]), 4.0),
        points,
        levels: vec![(overall, format!("of all hours {overall:.1} %"))],
        diagonal: false,
    })
}

/// Labelled hours with the lowest upper bounds, or hours of stays without sepsis with the highest lower ones.
fn disagreements(charts: &Charts, labelled: bool) -> Part {
    let septic = |stay: &Stay| stay.hours.iter().any(|hour| hour.sepsis == Some(true));
    let mut places: Vec<Place> = Vec::new();
    for (stay, hours) in charts.carried.stays.iter().enumerate() {
        if septic(&charts.stays[stay]) != labelled {
            continue;
        }
        let own = hours.iter().enumerate().filter(|(_, hour)| hour.1 == Some(labelled));
        let own = own.map(|(at, hour)| (stay, at, &hour.0));
        // The first of equals.
        places.extend(own.min_by_key(|place| rank(place, labelled)));
    }
    places.sort_by_key(|place| rank(place, labelled));
    let title = match labelled {
        true => "Sepsis near, and NEWS2 at most this: the lowest upper bounds, an hour of a stay",
        false => "No sepsis, and NEWS2 at least this: the highest lower bounds, an hour of a stay",
    };
    let head = [
        "stay",
        "breaths/min",
        "SpO2 %",
        "oxygen",
        "systolic mmHg",
        "pulse/min",
        "°C",
        "NEWS2",
        "risk",
    ];
    let rows = places.into_iter().take(MAX_ROWS).map(|place| row(charts, place));
    Part::Table { title: title.into(), head: head.map(str::to_owned).into(), rows: rows.collect() }
}

/// The least rank is shown first: what is known for certain counts, not what is left open.
fn rank(place: &Place, labelled: bool) -> (i16, usize) {
    let score = place.2;
    let points = if labelled { i16::from(score.upper) } else { -i16::from(score.lower) };
    (points, score.missing.len())
}

fn row(charts: &Charts, (stay, at, score): Place) -> Vec<String> {
    let inputs = inputs_at(&charts.stays[stay], at, CARRY_HOURS);
    let cell = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let oxygen = inputs.supplemental_oxygen.map_or("–", |yes| if yes { "yes" } else { "air" });
    let risk = match (score.risk, score.risk_at_least) {
        (Some(risk), _) => said(risk).to_owned(),
        (None, least) => format!("{} or more", said(least)),
    };
    let file = charts.paths[stay].rsplit('/').next().unwrap_or_default();
    vec![
        format!("{file}, hour {}", at + 1),
        cell(inputs.respiration_rate, 0),
        cell(inputs.spo2, 0),
        oxygen.to_owned(),
        cell(inputs.systolic_mmhg, 0),
        cell(inputs.heart_rate, 0),
        cell(inputs.temperature_celsius, 1),
        format!("{}–{}", score.lower, score.upper),
        risk,
    ]
}

const fn said(risk: Risk) -> &'static str {
    match risk {
        Risk::Low => "low",
        Risk::LowMedium => "low to medium",
        Risk::Medium => "medium",
        Risk::High => "high",
    }
}
