//! The page of `haar evaluate burden`.

use super::{Line, Summary, percent};
use crate::evaluate::report::{Axis, MAX_STRIPS, Part, Plot, Report};
use haar_schema::Strip;

/// Figures, burdens called and annotated, and of the mistakes those that the model was most sure of.
pub(super) fn page(summary: &Summary, mut mistakes: Vec<(f32, String, Strip)>) -> Report {
    let tile = |name: &str, share: Option<f64>, below: String| {
        [name.to_owned(), format!("{} %", percent(share)), below]
    };
    let head =
        ["record", "min", "annotated %", "called %", "bounds %", "unknown %", "Se %", "PPV %"];
    let row = |line: &Line| {
        let bounds = line.bounds.map_or_else(String::new, |(low, high)| {
            format!("{:.1}–{:.1}", 100.0 * low, 100.0 * high)
        });
        let seconds = &line.seconds;
        vec![
            line.record.clone(),
            format!("{:.1}", seconds.annotated_s / 60.0),
            percent(Some(line.reference_burden)),
            percent(line.burden),
            bounds,
            percent(Some(seconds.unknown_s / seconds.annotated_s.max(1.0))),
            percent(line.sensitivity),
            percent(line.ppv),
        ]
    };
    let points = summary.per_record.iter().filter_map(|line| {
        let (x, y) = (100.0 * line.reference_burden, 100.0 * line.burden?);
        Some((x, y, format!("{}: annotated {x:.1} %, called {y:.1} %", line.record)))
    });
    mistakes.sort_by(|a, b| b.0.total_cmp(&a.0));
    let strips = mistakes.into_iter().take(MAX_STRIPS).map(|(_, said, strip)| (said, strip));
    Report {
        title: format!("Burden of atrial fibrillation in {} records", summary.records),
        tiles: vec![
            tile("Sensitivity", summary.sensitivity, "of annotated time".into()),
            tile("PPV", summary.ppv, "of called time".into()),
            tile("Error of the burden", summary.mae, "mean, absolute, by record".into()),
            tile("The same", summary.mae_with_fibrillation, "records with fibrillation".into()),
        ],
        parts: vec![
            Part::Plot(Plot {
                title: "Burden by record".into(),
                note: "A point for each record; on the line both agree.".into(),
                x: Axis::new("annotated, %", 0.0, 100.0),
                y: Axis::new("called, %", 0.0, 100.0),
                points: points.collect(),
                levels: Vec::new(),
                diagonal: true,
            }),
            Part::Table {
                title: "Records".into(),
                head: head.map(str::to_owned).into(),
                rows: summary.per_record.iter().map(row).collect(),
            },
            Part::Strips {
                title: "Most surely called wrongly, one of a kind by record".into(),
                strips: strips.collect(),
            },
        ],
    }
}
