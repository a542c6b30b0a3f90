//! The figures as text, and as a page.

use std::fmt::Write as _;

use super::strip::AlarmStrip;
use super::tally::{Figures, RecordLine, Summary};
use crate::evaluate::report::{Part, Report};

/// The ways of counting, as they are called where people read them.
const STAGES: [&str; 5] =
    ["(a) windows", "(b) runs", "(c) episodes", "(d) delayed", "(e) suppressed"];
/// What they are.
const MEANING: [&str; 5] = [
    "(a) every flagged window is an alarm",
    "(b) every run of flagged windows, one right after the other",
    "(c) episodes of the machine without delays and suppression",
    "(d) with delays: raised in m of n windows over a time",
    "(e) the whole machine: what technical and greater alarms explain is silent",
];
/// The most recordings that are listed.
const MAX_LISTED: usize = 10;

/// What is printed.
pub(super) fn text(summary: &Summary) -> String {
    let mut text = String::new();
    // Writing into a String has no failure.
    let _ = writeln!(text, "{}", scope(summary));
    let _ = writeln!(text, "alarms per patient-day, nobody acknowledging:");
    for meaning in MEANING {
        let _ = writeln!(text, "  {meaning}");
    }
    let mut table = |title: &str, rows: Vec<(String, &Figures)>| {
        let _ = write!(text, "\n{title:<40}");
        for stage in STAGES {
            let _ = write!(text, " {stage:>14}");
        }
        let _ = writeln!(text);
        for (name, figures) in rows {
            let _ = write!(text, "{name:<40}");
            for (rate, count) in rates(figures) {
                let _ = write!(text, " {rate:>8.1} {count:>5}");
            }
            let _ = writeln!(text);
        }
    };
    table("per patient-day, and how many", kinds(summary));
    table("recordings with the most alarms (e)", worst(summary));
    text.push('\n');
    for line in notes(summary) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// The page; strips of the recordings with the most alarms come first.
pub(super) fn page(summary: &Summary, mut strips: Vec<AlarmStrip>) -> Report {
    let records = ranked(summary);
    strips.sort_by_key(|strip| records.iter().position(|line| line.record == strip.record));
    let head = |first: &str| {
        std::iter::once(first.to_owned()).chain(STAGES.map(str::to_owned)).collect::<Vec<_>>()
    };
    let rows = |lines: Vec<(String, &Figures)>| {
        lines
            .into_iter()
            .map(|(name, figures)| {
                let cells = rates(figures).map(|(rate, count)| format!("{rate:.1} ({count})"));
                std::iter::once(name).chain(cells).collect()
            })
            .collect()
    };
    let total = &summary.total.per_patient_day;
    let below = "alarms per patient-day".to_owned();
    let tile = |name: &str, rate: f64| [name.to_owned(), format!("{rate:.1}"), below.clone()];
    let said = |lines: Vec<String>| lines.into_iter().map(|line| vec![line]).collect();
    Report {
        title: format!("Alarms on {}", scope(summary)),
        tiles: vec![
            tile("Every flagged window", total.windows),
            tile("Runs of windows", total.runs),
            tile("With delay and episodes", total.delayed),
            tile("With suppression", total.full),
        ],
        parts: vec![
            Part::Table {
                title: "Alarms per patient-day (and how many), nobody acknowledging".into(),
                head: head("alarms"),
                rows: rows(kinds(summary)),
            },
            Part::Table {
                title: "Recordings with the most alarms".into(),
                head: head("recording"),
                rows: rows(worst(summary)),
            },
            Part::Strips {
                title: "The first alarm about the ECG, of the recordings with the most alarms"
                    .into(),
                strips: strips.into_iter().map(|own| (own.caption, own.strip)).collect(),
            },
            Part::Table {
                title: "What the figures are".into(),
                head: vec![String::new()],
                rows: said(MEANING.map(str::to_owned).into_iter().chain(notes(summary)).collect()),
            },
        ],
    }
}

fn scope(summary: &Summary) -> String {
    format!(
        "{} recordings of {} patients, {:.2} hours",
        summary.recordings, summary.patients, summary.hours
    )
}

/// All, by priority, by condition and by flag.
fn kinds(summary: &Summary) -> Vec<(String, &Figures)> {
    let mut rows = vec![("all".to_owned(), &summary.total)];
    rows.extend(
        summary.by_priority.iter().map(|line| (format!("priority {}", line.name), &line.figures)),
    );
    rows.extend(
        summary.by_condition.iter().map(|line| (format!("condition {}", line.name), &line.figures)),
    );
    rows.extend(summary.by_flag.iter().map(|line| {
        (format!("{} ({}, {})", line.flag, line.priority.as_str(), line.condition), &line.figures)
    }));
    rows
}

/// The recordings, first those on which most sounds by the whole machine, then most windows are flagged.
fn ranked(summary: &Summary) -> Vec<&RecordLine> {
    let mut records: Vec<_> = summary.per_record.iter().collect();
    let rate = |figures: &Figures| (figures.per_patient_day.full, figures.per_patient_day.windows);
    records.sort_by(|a, b| {
        let ((full, windows), (other_full, other_windows)) = (rate(&a.figures), rate(&b.figures));
        other_full.total_cmp(&full).then(other_windows.total_cmp(&windows))
    });
    records
}

fn worst(summary: &Summary) -> Vec<(String, &Figures)> {
    let flagged = ranked(summary).into_iter().filter(|line| line.figures.count.windows > 0);
    let shown = flagged.take(MAX_LISTED);
    shown.map(|line| (format!("{} ({:.2} h)", line.record, line.hours), &line.figures)).collect()
}

fn rates(figures: &Figures) -> impl Iterator<Item = (f64, u64)> {
    figures.per_patient_day.each().into_iter().zip(figures.count.each())
}

fn notes(summary: &Summary) -> Vec<String> {
    let seconds = |value: Option<f64>| value.map_or_else(|| "–".into(), |s| format!("{s:.0} s"));
    let found = &summary.suppression;
    let mut lines = vec![match found.share {
        None => "suppressed: nothing was there to suppress".to_owned(),
        Some(share) => format!(
            "suppressed: {} of {} episodes never sounded ({:.1} %), {} sounded later",
            found.silenced,
            found.episodes,
            100.0 * share,
            found.postponed
        ),
    }];
    lines.extend(found.by.iter().map(|(by, own)| {
        format!("  by {by}: {} never sounded, {} sounded later", own.silenced, own.postponed)
    }));
    lines.push(format!(
        "from the first flagged window to sounding: median {}, 90th percentile {} (without suppression {}, {})",
        seconds(summary.delay_s.median),
        seconds(summary.delay_s.p90),
        seconds(summary.delay_without_suppression_s.median),
        seconds(summary.delay_without_suppression_s.p90),
    ));
    lines.push(format!(
        "nobody acknowledges in a replay: a latching alarm sounds to the recording's end, and {} times a condition came back \
         in an episode that had sounded ((c) {}, (d) {}); reminders and escalations are not counted",
        summary.returns.full, summary.returns.undelayed, summary.returns.delayed
    ));
    if summary.recordings_held_out > 0 {
        lines.push(format!(
            "beats of {} recordings that the model knows were scored by the member of its committee that was not trained on them",
            summary.recordings_held_out
        ));
    }
    if !summary.left_out.is_empty() {
        lines.push(format!("nothing to replay in {}", summary.left_out.join(", ")));
    }
    lines
}
