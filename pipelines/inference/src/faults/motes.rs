//! Figures for detectors of the labelled events of motes (hot steam; [`haar_recordings::suthaharan`]).
//!
//! # Whose threshold
//! A detector has one threshold, from a given grid: the one in the middle of those whose F1 is within [`NEAR_BEST`] of the best on *other* motes. Where there are
//! several tables (deployments), a table's motes are judged by the threshold of the other tables, else a mote's by that of the other motes. Nothing else is
//! fitted. By reading: temperature and humidity of a mote are judged together.

use super::evaluate::EVENT_NAMES;
use super::excursion::{Excursions, MEMORY};
use crate::statistics::Confusion;
use haar_recordings::corpus::Corpus;
use haar_recordings::suthaharan::{self, Mote, SuthaharanError};
use std::collections::VecDeque;

/// How much worse than the best a threshold may be and still be as good.
pub const NEAR_BEST: f64 = 0.01;

/// How a detector did.
#[derive(Clone, PartialEq, Debug)]
pub struct MoteFigures {
    /// By reading.
    pub readings: Confusion,
    /// Events of which a reading was found, and all.
    pub events: (u64, u64),
    /// Stretches that were called where no event was.
    pub false_events: u64,
    /// The threshold of each table, or of each mote if there is one table.
    pub thresholds: Vec<f32>,
}

/// The motes of each table in a data set.
///
/// # Errors
/// If a table is damaged.
pub fn read(corpus: &Corpus) -> Result<Vec<Vec<Mote>>, SuthaharanError> {
    let tables = corpus.iter().filter(|(_, bytes)| suthaharan::is_suthaharan(bytes));
    tables.map(|(_, bytes)| suthaharan::read(bytes)).collect()
}

/// [`Excursions`], opening at the threshold.
pub fn by_excursion(tables: &[Vec<Mote>]) -> MoteFigures {
    held_out(tables, &[8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 24.0, 32.0, 48.0], excursions)
}

/// The baseline: further than the threshold, in standard deviations of the last [`MEMORY`] readings, from their mean.
pub fn by_z_score(tables: &[Vec<Mote>]) -> MoteFigures {
    held_out(tables, &[2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0], z_scores)
}

/// Which readings of a mote are in an excursion that opens at some multiple of the usual departure.
pub fn excursions(mote: &Mote, opens: f32) -> Vec<bool> {
    let mut excursions = Excursions::opening_at(opens, 2);
    let readings = mote.readings.iter();
    readings
        .map(|row| excursions.push(&[row.humidity_percent, row.temperature_c]).excursion)
        .collect()
}

fn z_scores(mote: &Mote, threshold: f32) -> Vec<bool> {
    let mut past: [VecDeque<f32>; 2] = Default::default();
    let mut judge = |row: &suthaharan::MoteReading| {
        let mut called = false;
        for (past, value) in past.iter_mut().zip([row.humidity_percent, row.temperature_c]) {
            let count = past.len().max(1) as f32;
            let mean = past.iter().sum::<f32>() / count;
            let variance = past.iter().map(|own| (own - mean).powi(2)).sum::<f32>() / count;
            called |= past.len() >= MEMORY / 12
                && (value - mean).abs() > threshold * variance.sqrt().max(1e-3);
            if past.len() == MEMORY {
                past.pop_front();
            }
            past.push_back(value);
        }
        called
    };
    mote.readings.iter().map(&mut judge).collect()
}

fn held_out(
    tables: &[Vec<Mote>],
    grid: &[f32],
    detect: impl Fn(&Mote, f32) -> Vec<bool>,
) -> MoteFigures {
    let groups: Vec<Vec<&Mote>> = match tables {
        [only] => only.iter().map(|mote| vec![mote]).collect(),
        several => several.iter().map(|table| table.iter().collect()).collect(),
    };
    // What is called, by group, threshold and mote.
    let called: Vec<Vec<Vec<Vec<bool>>>> = groups
        .iter()
        .map(|group| {
            let by = |at: &f32| group.iter().map(|mote| detect(mote, *at)).collect();
            grid.iter().map(by).collect()
        })
        .collect();
    let mut figures = MoteFigures {
        readings: Confusion::new(&EVENT_NAMES),
        events: (0, 0),
        false_events: 0,
        thresholds: Vec::new(),
    };
    for (own, group) in groups.iter().enumerate() {
        let others = |at: usize| {
            let mut readings = Confusion::new(&EVENT_NAMES);
            for (other, group) in groups.iter().enumerate().filter(|(other, _)| *other != own) {
                for (mote, called) in group.iter().zip(&called[other][at]) {
                    add(&mut readings, mote, called);
                }
            }
            readings.class(1).f1.unwrap_or(0.0)
        };
        let f1: Vec<f64> = (0..grid.len()).map(others).collect();
        let best = f1.iter().copied().fold(0.0, f64::max);
        let good: Vec<usize> = (0..grid.len()).filter(|at| f1[*at] >= best - NEAR_BEST).collect();
        let chosen = good[good.len() / 2];
        figures.thresholds.push(grid[chosen]);
        for (mote, called) in group.iter().zip(&called[own][chosen]) {
            figures.count(mote, called);
        }
    }
    figures
}

fn add(readings: &mut Confusion, mote: &Mote, called: &[bool]) {
    for (row, called) in mote.readings.iter().zip(called) {
        readings.add(usize::from(row.event), usize::from(*called));
    }
}

impl MoteFigures {
    fn count(&mut self, mote: &Mote, called: &[bool]) {
        add(&mut self.readings, mote, called);
        let rows: Vec<(bool, bool)> =
            mote.readings.iter().map(|row| row.event).zip(called.iter().copied()).collect();
        for event in rows.chunk_by(|a, b| a.0 == b.0).filter(|stretch| stretch[0].0) {
            self.events.1 += 1;
            self.events.0 += u64::from(event.iter().any(|row| row.1));
        }
        let stretches = rows.chunk_by(|a, b| a.1 == b.1).filter(|stretch| stretch[0].1);
        self.false_events +=
            stretches.filter(|stretch| stretch.iter().all(|row| !row.0)).count() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::inject::tests::wave;
    use super::*;
    use haar_recordings::corpus::CaseId;
    use haar_recordings::suthaharan::MoteReading;

    fn mote(seed: u64, event: bool) -> Mote {
        let (humidity, temperature) = (wave(1_600, seed), wave(1_600, seed + 50));
        let reading = |at: usize| {
            let event = event && (900..1_000).contains(&at);
            let away = if event { 40.0 } else { 0.0 };
            MoteReading {
                time_s: at as f64 * 5.0,
                humidity_percent: humidity[at].value + away,
                temperature_c: temperature[at].value,
                event,
            }
        };
        Mote { case: CaseId(seed), indoor: true, readings: (0..1_600).map(reading).collect() }
    }

    #[test]
    fn thresholds_come_from_others() {
        let tables = [vec![mote(1, true), mote(2, false)], vec![mote(3, true)]];
        let figures = by_excursion(&tables);
        assert_eq!(figures.thresholds.len(), 2);
        assert_eq!((figures.events, figures.false_events), ((2, 2), 0));
        assert!(figures.readings.class(1).f1 > Some(0.95), "{}", figures.readings);
        // One table: by mote.
        assert_eq!(by_excursion(&tables[..1]).thresholds.len(), 2);
        assert_eq!(by_excursion(&[]).events, (0, 0));
        // A z-score takes the event for normal before it is over.
        let plain = by_z_score(&tables);
        assert_eq!(plain.events, (2, 2));
        assert!(plain.readings.class(1).f1 < figures.readings.class(1).f1);
    }

    #[test]
    fn recorded_events_hold_the_bar() {
        let data =
            std::env::var_os("HAAR_DATA").expect("set HAAR_DATA to the recordings, see README");
        let folder = std::path::PathBuf::from(data).join("suthaharan-wsn");
        let tables = read(&super::super::streams::open(&folder).unwrap()).unwrap();
        let figures = by_excursion(&tables);
        assert!(figures.readings.class(1).f1 >= Some(0.9), "{}", figures.readings);
        assert_eq!(figures.events.0, figures.events.1);
    }
}
