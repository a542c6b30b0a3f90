//! The page of `haar evaluate personal`.

use super::Groups;
use crate::evaluate::report::{Axis, Part, Plot, Report, Trace};
use haar_inference::personal::{
    COVERAGES, JudgedReading, Normals, PersonalFigures, SIGNALS, Series, judge,
};

/// Patients with fewer judged readings of a signal are not drawn.
const READINGS_MIN: usize = 24;
/// The widest of the intervals is drawn.
const DRAWN: usize = COVERAGES.len() - 1;

/// Figures, coverage, and by signal the patient whose intervals held least beside one in the middle.
pub(super) fn page(figures: &Groups, normals: &Normals, patients: &[Series]) -> Report {
    let all = || figures.values().flat_map(|signals| signals.values());
    let readings: usize = all().map(|own| own.readings).sum();
    let coverages = || all().flat_map(|own| &own.coverages);
    let off = coverages().map(|own| (own.measured - own.promised).abs()).fold(0.0, f64::max);
    let tenth = coverages()
        .filter(|own| own.promised >= COVERAGES[DRAWN])
        .map(|own| own.tenth_patient)
        .fold(f64::INFINITY, f64::min);
    let sharper = all().filter(|own| own.pinball < own.pinball_last_value).count();
    let promised = percent(COVERAGES[DRAWN]);
    let mut parts: Vec<Part> = figures
        .iter()
        .map(|(group, signals)| coverage(group, signals.iter().map(|(name, own)| (*name, own))))
        .collect();
    parts.extend(figures.iter().map(|(group, signals)| Part::Table {
        title: format!("Figures, {group}"),
        head: HEAD.map(str::to_owned).into(),
        rows: signals.iter().map(|(signal, own)| row(signal, own)).collect(),
    }));
    parts.push(courses(normals, patients));
    let tile = |name: &str, value: String, below: String| [name.to_owned(), value, below];
    Report {
        title: format!("What is usual for {} patients", patients.len()),
        tiles: vec![
            tile("Readings", readings.to_string(), "judged by the patient's own course".into()),
            tile(
                "Largest error of a coverage",
                format!("{:.1}", 100.0 * off),
                "points, of all signals and intervals".into(),
            ),
            tile(
                "A tenth of patients below",
                format!("{} %", percent(tenth)),
                format!("of their readings in the {promised} % interval, the worst signal"),
            ),
            tile(
                "Sharper than the last value",
                format!("{sharper} of {}", all().count()),
                "signals by group, pinball loss".into(),
            ),
        ],
        parts,
    }
}

const HEAD: [&str; 11] = [
    "signal",
    "readings",
    "in 90 %",
    "in 95 %",
    "first in 95 %",
    "tenth of patients",
    "width",
    "error",
    "error of last",
    "pinball",
    "pinball of last",
];

fn row(signal: &str, own: &PersonalFigures) -> Vec<String> {
    let share = |of: &dyn Fn(&haar_inference::personal::Coverage) -> f64, at: usize| {
        own.coverages.get(at).map_or_else(|| "–".to_owned(), |coverage| percent(of(coverage)))
    };
    let width = own.coverages.get(DRAWN).map_or(f64::NAN, |coverage| coverage.width);
    vec![
        signal.to_owned(),
        own.readings.to_string(),
        share(&|coverage| coverage.measured, 0),
        share(&|coverage| coverage.measured, DRAWN),
        share(&|coverage| coverage.measured_first, DRAWN),
        share(&|coverage| coverage.tenth_patient, DRAWN),
        format!("{width:.2}"),
        format!("{:.3}", own.mae),
        format!("{:.3}", own.mae_last_value),
        format!("{:.4}", own.pinball),
        format!("{:.4}", own.pinball_last_value),
    ]
}

fn coverage<'f>(
    group: &str,
    signals: impl Iterator<Item = (&'f str, &'f PersonalFigures)>,
) -> Part {
    let points = signals.flat_map(|(signal, own)| {
        own.coverages.iter().map(move |coverage| {
            let (promised, measured) = (100.0 * coverage.promised, 100.0 * coverage.measured);
            let said = format!("{signal}: promised {promised:.0} %, measured {measured:.1} %");
            (promised, measured, said)
        })
    });
    let points: Vec<(f64, f64, String)> = points.collect();
    let values = || points.iter().flat_map(|(x, y, _)| [*x, *y]).chain([88.0, 98.0]);
    Part::Plot(Plot {
        title: format!("Coverage, {group}"),
        note: "A point for each signal and interval; on the line it holds what it promises.".into(),
        x: Axis::around("promised, %", values(), 2.0),
        y: Axis::around("measured, %", values(), 2.0),
        points,
        levels: Vec::new(),
        diagonal: true,
    })
}

/// For each signal the patient whose intervals held the least share of readings, and the one in the middle.
fn courses(normals: &Normals, patients: &[Series]) -> Part {
    let mut shares: Vec<Vec<(f64, usize)>> = vec![Vec::new(); SIGNALS.len()];
    for (patient, series) in patients.iter().enumerate() {
        for (signal, readings) in judge(normals, series).iter().enumerate() {
            let (own, within) = held(readings);
            if own >= READINGS_MIN {
                shares[signal].push((within as f64 / own as f64, patient));
            }
        }
    }
    let mut traces = Vec::new();
    for (signal, shares) in shares.iter_mut().enumerate() {
        shares.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let picked = [(shares.first(), "least"), (shares.get(shares.len() / 2), "median")];
        for (patient, said) in picked {
            let Some((share, patient)) = patient else { continue };
            let Some(readings) = judge(normals, &patients[*patient]).into_iter().nth(signal) else {
                continue;
            };
            let (judged, _) = held(&readings);
            let (name, unit) = (SIGNALS[signal].0.name(), SIGNALS[signal].0.definition().unit);
            let caption = format!(
                "{name}, {unit}: {said} of {} patients, {} % of {} judged readings held",
                shares.len(),
                percent(*share),
                judged
            );
            traces.push((caption, trace(&readings)));
        }
    }
    let promised = percent(COVERAGES[DRAWN]);
    Part::Traces {
        title: "Courses of patients, by signal".into(),
        note: format!(
            "Green: the {promised} % interval that was expected before each reading. Shaded: readings outside."
        ),
        traces,
    }
}

/// Readings judged by the patient's own course, and how many of these were within.
fn held(readings: &[JudgedReading]) -> (usize, usize) {
    let own = readings.iter().filter(|reading| reading.judgement.personal);
    own.fold((0, 0), |(own, within), reading| (own + 1, within + usize::from(!is_outside(reading))))
}

fn is_outside(reading: &JudgedReading) -> bool {
    let (lower, upper) = reading.judgement.intervals[DRAWN];
    !(lower..=upper).contains(&reading.value)
}

fn trace(readings: &[JudgedReading]) -> Trace {
    let interval = |reading: &JudgedReading| {
        let (lower, upper) = reading.judgement.intervals[DRAWN];
        (lower as f32, upper as f32)
    };
    Trace {
        values: readings.iter().map(|reading| reading.value as f32).collect(),
        labelled: readings.iter().map(is_outside).collect(),
        called: vec![false; readings.len()],
        around: readings.iter().map(interval).collect(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}
