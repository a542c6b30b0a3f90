//! From a window of readings to what is wrong with the devices that sent them.
//!
//! All windows that fire in one epoch on one worker go through the model together; it pads its batches, so nothing depends on
//! neighbours. What is said of a window is a function of its readings alone: their stamps, values and gaps.
//!
//! A flag whose rule read a probability carries, for each kind of fault that stands behind it, a [`Score`]: the mean probability
//! over the stretch of readings that is called so, why ([`haar_inference::faults::FaultModel::attribute`]; the mean log-odds over
//! the same stretch), and a digest of what the model was shown.
//!
//! # Limits and non-guarantees
//! - The last [`WINDOW`] readings of a window are judged, in the light of at most [`CONTEXT`]. A device that sends less than
//!   `MIN_VALUES` readings a window (glucose every five minutes) is not judged: windows are an hour long at most.
//! - Readings stand in the order of their stamps, since datagrams overtake each other: a clock that went back shows by stamps too close
//!   together. One that is wrong by the same amount throughout does not show at all. One ahead by more than the edge allows is set
//!   to ingest time there (`CLOCK_CLAMPED`), and what is older than the edge accepts is rejected: for both the edge has counters.
//! - Two readings of one stamp and value are one, so a clock that stands still while the value does, too, looks like a dropout.
//! - That readings ceased is not seen until they come again; for that there is coverage. Two devices that send the
//!   same signal of one patient are one series: where they disagree, noise or spikes may be seen.
//! - A flag comes when the window ends whose readings show it: up to a slide (30 s) after the reading that does, and as much later as
//!   the slowest device's stamps are behind.
//! - What [`haar_inference::faults`] says of true changes of the patient holds.
//!
//! [`WINDOW`]: haar_inference::faults::WINDOW
//! [`CONTEXT`]: haar_inference::faults::CONTEXT

use crate::aggregate::Readings;
use crate::conclude::{Concluded, Conclusion, Means, Scorer, by_epoch, conclude};
use crate::deployment::{Deployments, Said, Step, Timeline};
use crate::operator::Report;
use crate::window::Fired;
use haar_inference::faults::watch::{Series, Watched};
use haar_inference::faults::{FaultKind, FaultModel, Reading};
use haar_schema::{Attribution, FlaggedEvent, Scale, Score, SignalId, features_digest, quantise};
use timely::dataflow::StreamVec;

/// A probability below which a kind is no ground for a flag, whatever a rule says of it.
const GROUND_MIN: f64 = 0.5;

/// Concludes the windows of a pipeline that watches devices.
pub fn faults<'scope>(
    reports: StreamVec<'scope, u64, Report<Readings>>,
    means: Means,
) -> StreamVec<'scope, u64, Conclusion> {
    by_epoch(reports, means, conclude_epoch)
}

/// One signal of a window: as the model takes it, and what it found.
struct Own {
    signal: SignalId,
    readings: Vec<Reading>,
    watched: Option<Watched>,
}

impl Own {
    fn series(&self) -> Series<'_> {
        let (low, high) = self.signal.definition().plausible;
        Series { readings: &self.readings, range: Some((low as f32, high as f32)) }
    }
}

fn conclude_epoch(means: &Means, reports: Vec<Report<Readings>>) -> Vec<Conclusion> {
    let mut conclusions = Vec::new();
    let mut windows: Vec<(Fired<Readings>, Vec<Own>)> = Vec::new();
    for report in reports {
        match report {
            Report::Fired(fired) => {
                let own = fired.series.iter().map(|(signal, readings)| Own {
                    signal: *signal,
                    readings: in_seconds(readings, fired.start.micros()),
                    watched: None,
                });
                let own = own.collect();
                windows.push((*fired, own));
            }
            Report::Holds(holds) => conclusions.push(Conclusion::Holds(means.number, holds)),
            Report::Counts(counts) => conclusions.push(Conclusion::Counts(means.number, counts)),
        }
    }
    if means.scorer != Some(Scorer::Faults) {
        return conclusions;
    }
    let (models, mut said) = (means.models.now(), Said::default());
    let unjudged = judge(&models.faults, &mut windows, &mut said);
    if unjudged > 0 {
        conclusions.push(Conclusion::Unjudged(unjudged));
    }
    for (fired, own) in windows {
        let concluded = conclude_window(means, &models, fired, &own, &mut said);
        conclusions.push(Conclusion::Window(Box::new(concluded)));
    }
    conclusions.extend(said.into_conclusion());
    conclusions
}

/// Stamps from the window's beginning on, so that no float depends on the date.
fn in_seconds(readings: &Readings, start_us: i64) -> Vec<Reading> {
    let seconds = |at_us: i64| at_us.saturating_sub(start_us) as f64 * 1e-6;
    readings
        .iter()
        .map(|(at_us, value)| Reading { time_s: seconds(at_us), value: value as f32 })
        .collect()
}

/// A window that fired, with its signals.
type Judged = (Fired<Readings>, Vec<Own>);

/// Asks the models of their time about all series of the epoch, each in one go; says of how many it could not be asked.
fn judge(models: &Timeline<FaultModel>, windows: &mut [Judged], said: &mut Said) -> u64 {
    let mut unjudged = 0;
    for (place, mut windows) in models.divide(windows, |window| window.0.end) {
        let Step { live, shadow, .. } = models.step(place);
        let all: Vec<Series<'_>> =
            windows.iter().flat_map(|(_, own)| own.iter().map(Own::series)).collect();
        let Ok(found) = live.watch(&all) else {
            unjudged += all.len() as u64;
            continue;
        };
        let beside = shadow.as_ref().and_then(|own| Some((own.reference(), own.watch(&all).ok()?)));
        let edges = windows.iter().flat_map(|(fired, own)| own.iter().map(|_| &fired.edge));
        for (at, (edge, found)) in edges.zip(&found).enumerate() {
            let Some(kind) = found.as_ref().map(likeliest) else { continue };
            said.live(live.reference(), edge).add(kind.name());
            let other = beside.as_ref().and_then(|(model, all)| Some((model, all[at].as_ref()?)));
            if let Some((model, other)) = other {
                said.shadow(model, edge).compare(likeliest(other).name(), kind.name());
            }
        }
        let every = windows.iter_mut().flat_map(|(_, own)| own.iter_mut());
        for (own, watched) in every.zip(found) {
            own.watched = watched;
        }
    }
    unjudged
}

/// In a word: the kind with the likeliest stretch, if it is more likely than not.
fn likeliest(watched: &Watched) -> FaultKind {
    let kinds = FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::Sound);
    let probability = |kind: &FaultKind| f64::from(watched.probability(*kind));
    kinds
        .filter(|kind| probability(kind) >= GROUND_MIN)
        .max_by(|a, b| probability(a).total_cmp(&probability(b)))
        .unwrap_or(FaultKind::Sound)
}

fn conclude_window(
    means: &Means,
    models: &Deployments,
    fired: Fired<Readings>,
    own: &[Own],
    said: &mut Said,
) -> Concluded {
    let model = models.faults.live(fired.end.micros());
    let found: Vec<(SignalId, Option<&Watched>)> =
        own.iter().map(|own| (own.signal, own.watched.as_ref())).collect();
    let features = means.pipeline.describe_devices(&found);
    let mut concluded = conclude(means, models, fired, features, None, said);
    for event in &mut concluded.flagged {
        // What a flag says of a patient is sorted; this one is of a device.
        event.condition = None;
        event.scores = own.iter().flat_map(|own| scores(model, own, event)).collect();
    }
    concluded
}

/// What the model said of a series that speaks for this flag, and why.
fn scores(model: &FaultModel, own: &Own, event: &FlaggedEvent) -> Vec<Score> {
    let Some(watched) = &own.watched else { return Vec::new() };
    let grounds = FaultKind::ALL.into_iter().filter_map(|kind| {
        let stretch = watched.stretch(kind)?;
        let name = format!("{}.{kind}", own.signal.name());
        let read = event.evidence.iter().find(|evidence| evidence.feature == name)?;
        read.value.get().filter(|probability| *probability >= GROUND_MIN)?;
        // A flag without its reasons is still a flag.
        let why = model.explain_stretch(own.series(), stretch).ok()?;
        let shares =
            why.features.iter().map(|(input, share)| ((*input).to_owned(), f64::from(*share)));
        Some(Score {
            name,
            value: quantise(f64::from(stretch.probability)),
            uncertainty: None,
            horizon_h: None,
            model: model.reference().clone(),
            features_sha256: features_digest(
                watched.numbers().iter().map(|number| f64::from(*number)),
            ),
            attribution: Attribution::new(
                Scale::LogOdds,
                f64::from(why.neutral),
                f64::from(why.output),
                shares,
            ),
            over_time: None,
        })
    });
    grounds.collect()
}
