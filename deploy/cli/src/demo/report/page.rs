//! The page: summary, then a card per patient.

use super::episode::{Episode, episodes};
use super::scale::{TimeAxis, bytes, clock, date, duration, thousands};
use super::{
    FlagEntry, MAX_EPISODES_PER_PATIENT, MAX_PATIENTS, MAX_STRIPS_PER_PATIENT, Patient, Report,
    Summary, chart, strip, trace,
};
use haar_schema::{Attribution, Feature, Missing, Priority, Scale, Score, SignalId};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Inputs of a score that are named, of those that the event names.
const MAX_SHARES: usize = 5;
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page as one HTML text.
pub fn render(report: &Report) -> String {
    let shown = &report.patients[..report.patients.len().min(MAX_PATIENTS)];
    let cards: Vec<Card<'_>> = shown.iter().enumerate().map(Card::of).collect();
    let body = html! {
        header {
            h1 { (report.title) }
            p.made { "Made " (date(report.generated)) " " (clock(report.generated)) " UTC. All times are UTC." }
            p.warning role="note" { b { "Decision support; not a certified medical device." }
                " Flags point at something to look at. They are no diagnosis." }
        }
        main {
            (summary(&report.summary, &cards))
            @for card in &cards { (card.draw()) }
            @if shown.len() < report.patients.len() {
                p.note { (report.patients.len() - shown.len()) " more patients are in the site log, not on this page." }
            }
        }
        footer {
            "Site log " code { (report.summary.origin) } ", " (thousands(report.summary.log_size))
            " leaves, root " code.hash { (report.summary.root) }
            ". A flag is proved by its proof file (" code { "haar verify FILE" } "), not by this page."
        }
        script { (PreEscaped(SCRIPT)) }
    };
    document(&report.title, &body)
}

/// A self-contained page in the look of all reports, with what its strips refer to.
pub(crate) fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (strip::patterns())
                (body)
            }
        }
    };
    page.into_string()
}

fn summary(summary: &Summary, cards: &[Card<'_>]) -> Markup {
    let flags = || cards.iter().flat_map(|card| &card.patient.flags);
    let (total, verified) = (flags().count(), flags().filter(|entry| entry.proof.verified).count());
    let ratio = summary.bytes_in as f64 / summary.bytes_committed.max(1) as f64;
    html! {
        section aria-label="Summary" {
            div.tiles {
                (tile("Readings", &thousands(summary.readings), "taken in"))
                (tile("Windows", &thousands(summary.windows), "computed and committed"))
                (tile("Flags", &thousands(summary.flags), "flagged windows"))
                (tile("Proofs", &format!("{verified} of {total}"),
                    if verified == total { "✓ verified" } else { "✗ not all verified" }))
                (tile("Committed", &bytes(summary.bytes_committed),
                    &format!("of {} in, ratio {ratio:.1} : 1", bytes(summary.bytes_in))))
                @if let Some(latency) = summary.latency_ms {
                    (tile("Reading to flag", &format!("{:.0} ms", latency.p50),
                        &format!("median; p99 {:.0} ms", latency.p99)))
                }
                (tile("Site log", &thousands(summary.log_size), "leaves"))
                (tile("Witnessed", &format!("{} of {}", thousands(summary.witnessed), thousands(summary.log_size)),
                    &format!("leaves, by a quorum of {} members", summary.members)))
            }
            (flags_by_kind(cards))
        }
    }
}

fn tile(name: &str, value: &str, below: &str) -> Markup {
    html! {
        div.tile { span.name { (name) } span.value { (value) } span.below { (below) } }
    }
}

/// Rows: kinds of flags, the most urgent first. Columns: patients.
fn flags_by_kind(cards: &[Card<'_>]) -> Markup {
    // Of a kind and a patient: how many episodes, of how many windows.
    type Row = Vec<(usize, usize)>;
    let mut kinds: BTreeMap<(Reverse<Priority>, &str), Row> = BTreeMap::new();
    for (column, card) in cards.iter().enumerate() {
        for episode in &card.episodes {
            let kind = (Reverse(episode.priority()), episode.flag());
            let row = kinds.entry(kind).or_insert_with(|| vec![(0, 0); cards.len()]);
            row[column].0 += 1;
            row[column].1 += episode.entries.len();
        }
    }
    if kinds.is_empty() {
        return html! { p { "No window was flagged." } };
    }
    html! {
        h2 { "Flags by kind and patient" }
        p.note { "Episodes (in brackets: the flagged windows they are made of)." }
        div.scroll {
            table.kinds {
                thead { tr {
                    th scope="col" { "Flag" } th scope="col" { "Priority" }
                    @for card in cards {
                        th scope="col" { a href=(format!("#{}", card.anchor)) { (card.patient.label) } }
                    }
                    th scope="col" { "All" }
                } }
                tbody {
                    @for ((priority, flag), row) in &kinds {
                        tr {
                            th scope="row" { (flag) }
                            td { (badge(priority.0)) }
                            @for cell in row { td.count { (count(*cell)) } }
                            td.count { (count(row.iter().fold((0, 0), |sum, cell| (sum.0 + cell.0, sum.1 + cell.1)))) }
                        }
                    }
                }
            }
        }
    }
}

fn count((episodes, windows): (usize, usize)) -> Markup {
    html! {
        @if episodes == 0 { span.none { "–" } } @else { b { (episodes) } " (" (windows) ")" }
    }
}

fn badge(priority: Priority) -> Markup {
    let (class, sign) = chart::priority_look(priority);
    html! { span class=(format!("badge {class}")) { span.sign aria-hidden="true" { (sign) } " " (priority.as_str()) } }
}

/// A patient with what is derived for the page.
struct Card<'a> {
    patient: &'a Patient,
    anchor: String,
    episodes: Vec<Episode<'a>>,
}

impl<'a> Card<'a> {
    fn of((index, patient): (usize, &'a Patient)) -> Self {
        let episodes = episodes(&patient.flags);
        Self { patient, anchor: format!("patient-{}", index + 1), episodes }
    }

    fn draw(&self) -> Markup {
        let listed = &self.episodes[..self.episodes.len().min(MAX_EPISODES_PER_PATIENT)];
        let drawn = self.with_strip(listed);
        html! {
            section.patient id=(self.anchor) aria-label=(self.patient.label) {
                h2 { (self.patient.label)
                    @if let Some(worst) = listed.first() { " " (badge(worst.priority())) }
                }
                (self.charts(listed))
                @if !self.patient.flags.is_empty() {
                    h3 { "Flags" }
                }
                @for (index, episode) in listed.iter().enumerate() {
                    (self.episode(index, episode, drawn.contains(&index)))
                }
                @if listed.len() < self.episodes.len() {
                    p.note { (self.episodes.len() - listed.len()) " less urgent episodes are in the site log, not on this page." }
                }
            }
        }
    }

    /// Which episodes get their strip drawn: round by round one of each kind of flag, so that many
    /// episodes of one kind do not crowd out another.
    fn with_strip(&self, listed: &[Episode<'_>]) -> Vec<usize> {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut turns: Vec<(usize, usize)> = Vec::new();
        for (index, episode) in listed.iter().enumerate() {
            if episode.shown.event.strip.is_some() {
                let round = seen.entry(episode.flag()).or_default();
                turns.push((*round, index));
                *round += 1;
            }
        }
        turns.sort_unstable();
        turns.into_iter().take(MAX_STRIPS_PER_PATIENT).map(|(_, index)| index).collect()
    }

    fn charts(&self, listed: &[Episode<'_>]) -> Markup {
        let points = self.patient.vitals.iter().flat_map(|series| &series.points);
        let edges = self.episodes.iter().flat_map(|episode| [episode.start, episode.end]);
        let Some(axis) = TimeAxis::around(points.map(|point| point.at).chain(edges)) else {
            return html! { p.note { "No window of this patient was complete." } };
        };
        html! {
            p.span { (date(axis.from())) ", " (clock(axis.from())) " to " (clock(axis.to())) " UTC"
                @if listed.is_empty() { ", nothing flagged" } }
            @if !listed.is_empty() { (chart::lanes(listed, &axis)) }
            @if self.patient.vitals.is_empty() { p.note { "No vital signs in the windows." } }
            div.vitals {
                @for series in &self.patient.vitals { (chart::vital(series, listed, &axis)) }
            }
            @if !self.patient.vitals.is_empty() { (self.chart_key()) }
        }
    }

    fn chart_key(&self) -> Markup {
        let vitals = &self.patient.vitals;
        html! {
            p.key-line {
                span.key-mean {} " window mean " span.key-band {} " minimum to maximum "
                @if vitals.iter().any(|series| series.trace.look().usual.is_some()) {
                    span.key-usual {} " scores 0 in NEWS2 "
                }
                @if !self.episodes.is_empty() { span.key-flag {} " flagged, numbers as below " }
                @if vitals.iter().any(|series| series.trace == trace::Trace::News2) {
                    "(NEWS2: the band is what missing inputs could add)"
                }
            }
        }
    }

    fn episode(&self, index: usize, episode: &Episode<'_>, draw_strip: bool) -> Markup {
        let entry = episode.shown;
        let event = &entry.event;
        let anchor = format!("{}-flag-{}", self.anchor, index + 1);
        let (class, _) = chart::priority_look(episode.priority());
        let windows = episode.entries.len();
        html! {
            details class=(format!("flag {class}")) id=(anchor) open[draw_strip || index == 0] {
                summary {
                    span.index { (index + 1) } " " (badge(episode.priority())) " "
                    b { (event.flag) } " "
                    span.when { (clock(episode.start)) " – " (clock(episode.end))
                        ", " (windows) (if windows == 1 { " window" } else { " windows" }) } " "
                    (proof_mark(episode))
                }
                p.text { (event.text) }
                @match (&event.strip, draw_strip) {
                    (Some(strip), true) => {
                        @let why = event.scores.iter().find_map(|score| score.over_time.as_ref());
                        (strip::explained(strip, why))
                    }
                    (Some(_), false) => { p.note { "Its strip is in the record; this page draws at most " (MAX_STRIPS_PER_PATIENT) " per patient." } }
                    (None, _) => {}
                }
                div.why {
                    (evidence(entry))
                    (origin(episode))
                }
            }
        }
    }
}

fn proof_mark(episode: &Episode<'_>) -> Markup {
    let (verified, all) = (episode.verified(), episode.entries.len());
    html! {
        @if verified == all { span.proof.good { "✓ " (if all == 1 { "proof" } else { "proofs" }) " verified" } }
        @else { span.proof.bad { "✗ " (all - verified) " of " (all) " proofs not verified" } }
    }
}

/// The rule and what it read.
fn evidence(entry: &FlagEntry) -> Markup {
    let event = &entry.event;
    html! {
        div {
            h4 { "Why" }
            p.rule { "Rule: " code { (event.rule) } }
            table.evidence {
                thead { tr { th scope="col" { "Feature" } th.number scope="col" { "Value" } th scope="col" { "Unit" } } }
                tbody {
                    @for item in &event.evidence {
                        @let (number, unit) = measured(&item.feature, item.value);
                        tr {
                            th scope="row" { code { (item.feature) } }
                            @match item.value {
                                Feature::Value(_) => { td.number { (number) } td { (unit) } }
                                Feature::Missing { missing } => { td.missing colspan="2" { "missing: " (reason(missing)) } }
                            }
                        }
                    }
                }
            }
            @if let Some(condition) = &event.condition {
                p.model { "Sorted under " b { (condition.group) } ", " (condition.per_mille / 10) " % by " code { (condition.model.id) } " (a key for sorting, learned from drawn cases)" }
            }
            @for score in &event.scores { (why(score)) }
            @if let Some(model) = &event.model {
                p.model { "Model " code { (model.id) } ", SHA-256 " code.hash { (model.sha256) } }
            }
        }
    }
}

/// What a model said, and what counted most.
fn why(score: &Score) -> Markup {
    let Attribution { scale, neutral, output, contributions, .. } = &score.attribution;
    let unit = if *scale == Scale::Probability { "probability" } else { "log-odds" };
    html! {
        p.model {
            b { (score.name) } (format!(" {:.1} %", score.value * 100.0)) " by " code { (score.model.id) }
            (format!(", {unit} {neutral:.2} to {output:.2}: "))
            @for (at, own) in contributions.iter().take(MAX_SHARES).enumerate() {
                @if at > 0 { ", " }
                span class=(if own.share > 0.0 { "for" } else { "against" }) { (format!("{:+.2}", own.share)) }
                " " (own.input)
            }
            @if contributions.len() > MAX_SHARES { ", …" }
        }
    }
}

/// The window shown, its leaf and its proof.
fn origin(episode: &Episode<'_>) -> Markup {
    let entry = episode.shown;
    let event = &entry.event;
    let bad: Vec<&&FlagEntry> = episode
        .entries
        .iter()
        .filter(|other| !other.proof.verified && other.leaf_index != entry.leaf_index)
        .collect();
    html! {
        div {
            h4 { "Window shown, and its proof" }
            dl {
                dt { "Window" }
                dd { (clock(event.key.start_us)) " – " (clock(event.key.end_us))
                    " (" (duration(event.key.end_us.micros_since(event.key.start_us))) "), pipeline "
                    code { (event.key.pipeline) } ", edge " code { (event.key.edge) }
                    @if event.revision > 0 { ", correction " (event.revision) " by late readings" } }
                @if let Some(latency) = entry.latency_ms {
                    dt { "Reading to flag" } dd { (format!("{latency:.0} ms")) }
                }
                dt { "Leaf" } dd { (entry.leaf_index) }
                dt { "Proof" }
                dd {
                    @if entry.proof.verified { span.proof.good { "✓ verified" } }
                    @else { span.proof.bad { "✗ not verified" } }
                    ": " (entry.proof.detail)
                }
                @if let Some(first) = bad.first() {
                    dt { "Other leaves" }
                    dd { span.proof.bad { "✗ not verified" } ": " (bad.len()) ", the first is leaf "
                        (first.leaf_index) ": " (first.proof.detail) }
                }
            }
        }
    }
}

/// A feature's value as people write it, and its unit if the name gives one.
fn measured(feature: &str, value: Feature) -> (String, &'static str) {
    let value = value.get().unwrap_or_default();
    let (stem, stat) = feature.rsplit_once('.').unwrap_or((feature, ""));
    let is_share = matches!(stat, "coverage" | "continuity") || stat.contains("fraction");
    let (value, unit) = match (stem, stat) {
        _ if is_share => (value * 100.0, "%"),
        ("news2", _) => (value, "points"),
        ("ecg", "heart_rate") => (value, "/min"),
        (_, stat) if stat.ends_with("_ms") => (value, "ms"),
        (stem, "mean" | "min" | "max" | "standard_deviation") => (value, signal_unit(stem)),
        (stem, "slope_per_min") => (value, slope_unit(stem)),
        _ => (value, ""),
    };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    (if text == "-0" { "0".to_owned() } else { text.to_owned() }, unit)
}

fn signal_unit(name: &str) -> &'static str {
    SignalId::by_name(name).map_or("", |signal| trace::unit(signal.definition().unit))
}

fn slope_unit(name: &str) -> &'static str {
    match signal_unit(name) {
        "/min" => "/min per min",
        "%" => "% per min",
        "mmHg" => "mmHg per min",
        "°C" => "°C per min",
        _ => "per min",
    }
}

fn reason(missing: Missing) -> &'static str {
    match missing {
        Missing::NoData => "no reading in the window",
        Missing::TooFew => "too few readings",
        Missing::PoorQuality => "signal quality too poor",
        Missing::Incomplete => "an input is missing",
        _ => "not computed",
    }
}
