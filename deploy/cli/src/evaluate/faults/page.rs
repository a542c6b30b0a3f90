//! What `--report` draws of device faults.

use super::{Events, Nab, Summary, percent};
use crate::evaluate::report::{Part, Report, Trace};
use haar_inference::faults::FaultKind;
use haar_inference::faults::evaluate::{InjectedFigures, Mistake};
use haar_inference::statistics::{auroc, calibration, roc_curve};
use std::collections::BTreeMap;

const CURVE_POINTS: usize = 400;
const CALIBRATION_BINS: usize = 10;

/// The page; `figures` are the injected faults' by the model, if there were streams.
pub(super) fn page(summary: &Summary, figures: Option<&InjectedFigures>) -> Report {
    let mut tiles = Vec::new();
    let mut parts = Vec::new();
    if let Some(figures) = figures {
        let cases = format!("{} windows", figures.windows.cases());
        tiles.push(["Mean F1 of seven faults".into(), percent(summary.f1), cases]);
        injected(figures, &mut parts);
    }
    if let Some(motes) = &summary.motes {
        tiles.push(["F1 of motes' events".into(), percent(motes.f1), "by reading".into()]);
        let row = |name: &str, own: &Events| {
            let wrong = own.false_events.map_or("–".to_owned(), |count| count.to_string());
            let found = format!("{} of {}", own.events_found, own.events);
            vec![name.to_owned(), percent(own.f1), found, wrong]
        };
        parts.push(Part::Table {
            title: "Labelled events of motes".into(),
            head: cells(["detector", "F1 by reading", "events found", "false events"]),
            rows: vec![
                row("excursions", &motes.excursions),
                row("z-score", &motes.z_score),
                row("model", &motes.model),
                row("rules", &motes.rules),
            ],
        });
    }
    if let Some(nab) = &summary.nab {
        let score = nab.novelty.score.map_or("–".into(), |score| format!("{score:.1}"));
        tiles.push(["NAB, novelty".into(), score, format!("{} series", nab.series)]);
        parts.push(benchmark(nab));
    }
    Report { title: "Faults of devices".into(), tiles, parts }
}

fn injected(figures: &InjectedFigures, parts: &mut Vec<Part>) {
    parts.push(Part::confusion("Injected faults, by window", &figures.windows));
    for (origin, own) in &figures.origins {
        parts.push(Part::confusion(&format!("By window, {}", origin.name()), own));
    }
    parts.push(Part::confusion("By reading", &figures.readings));
    let (scores, positive) = &figures.scores;
    parts.push(Part::Roc {
        title: "Whether anything is wrong, by window".into(),
        curves: vec![(
            "any fault".into(),
            roc_curve(scores, positive, CURVE_POINTS),
            auroc(scores, positive),
        )],
    });
    let (scores, positive) = &figures.reading_scores;
    if let Some(calibration) = calibration(scores, positive, CALIBRATION_BINS) {
        let title = "Probability that something is wrong, by reading".into();
        parts.push(Part::Calibration { title, calibration });
    }
    let titles = ["Surest false alarms", "Surest misses"];
    for (title, mistakes) in titles.into_iter().zip(&figures.mistakes) {
        let traces = mistakes.iter().map(|mistake| (caption(mistake), trace(mistake))).collect();
        parts.push(Part::Traces {
            title: title.into(),
            note: "Shaded: labelled. Underlined: called.".into(),
            traces,
        });
    }
}

fn caption(mistake: &Mistake) -> String {
    format!(
        "{}: {} called {}, at most {:.2} that something is wrong",
        mistake.origin.name(),
        mistake.truth,
        mistake.called,
        mistake.wrong
    )
}

fn trace(mistake: &Mistake) -> Trace {
    let wrong = |kinds: &[FaultKind]| kinds.iter().map(|own| *own != FaultKind::Sound).collect();
    Trace {
        values: mistake.values.clone(),
        labelled: wrong(&mistake.labels),
        called: wrong(&mistake.readings),
        around: Vec::new(),
    }
}

fn benchmark(nab: &Nab) -> Part {
    let mut scores: BTreeMap<String, [Option<f64>; 2]> = BTreeMap::new();
    for (name, part) in
        [("novelty", &nab.novelty), ("our Gaussian", &nab.gaussian), ("model", &nab.model)]
    {
        scores.entry(format!("Haar: {name}")).or_default()[0] = part.score;
    }
    for (at, published) in
        [&nab.published_these_series, &nab.published_all_series].into_iter().enumerate()
    {
        for (name, score) in published {
            scores.entry((*name).to_owned()).or_default()[at] = Some(*score);
        }
    }
    let mut rows: Vec<(String, [Option<f64>; 2])> = scores.into_iter().collect();
    rows.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal));
    let cell = |score: Option<f64>| score.map_or("–".into(), |score| format!("{score:.1}"));
    Part::Table {
        title: "Numenta Anomaly Benchmark, standard profile".into(),
        head: cells(["detector", "these series", "all 58 series, published"]),
        rows: rows
            .into_iter()
            .map(|(name, [these, all])| vec![name, cell(these), cell(all)])
            .collect(),
    }
}

fn cells<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).into()
}
