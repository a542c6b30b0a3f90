//! The glucose forecast on public recordings, as far as `HAAR_DATA` has them.
#![allow(clippy::unwrap_used)] // The helpers belong to tests as much as the tests do.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use haar_signals::cgm::{
    Forecast, Forecaster, Glucose, HORIZON_US, SENSOR_HIGH_MG_DL, SENSOR_LOW_MG_DL, report,
};

const MINUTE_US: i64 = 60_000_000;
const HYPO_MG_DL: f64 = 70.0;

/// Chances of hypoglycaemia from which it counts as foretold; the limits hold at the second.
const ALARMS: [f64; 4] = [0.1, 0.2, 0.3, 0.5];

/// Every wearer's readings with full dates, by study and wearer.
fn wearers() -> BTreeMap<(String, String), Vec<Glucose>> {
    let root = std::env::var_os("HAAR_DATA")
        .expect("set HAAR_DATA to the folder with the recordings (cgm, …), see README");
    let file = std::fs::File::open(PathBuf::from(root).join("cgm/cgm_open.csv.zst")).unwrap();
    let mut text = String::new();
    ruzstd::decoding::StreamingDecoder::new(std::io::BufReader::new(file))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let mut wearers: BTreeMap<(String, String), Vec<Glucose>> = BTreeMap::new();
    let mut open: Option<((&str, &str), Vec<Glucose>)> = None;
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let Some(time_us) = time_us(fields[2]) else { continue };
        let mg_dl = match fields[3] {
            "Low" => SENSOR_LOW_MG_DL,
            "High" => SENSOR_HIGH_MG_DL,
            value => value.parse().unwrap(),
        };
        let key = (fields[0], fields[1]);
        if open.as_ref().is_none_or(|(other, _)| *other != key)
            && let Some(((study, wearer), readings)) = open.replace((key, Vec::new()))
        {
            wearers.insert((study.to_owned(), wearer.to_owned()), readings);
        }
        open.as_mut().unwrap().1.push(Glucose { time_us, mg_dl });
    }
    wearers.extend(
        open.map(|((study, wearer), readings)| ((study.to_owned(), wearer.to_owned()), readings)),
    );
    wearers
}

/// Microseconds of `2023-12-08 00:04:00`; `None` without a date.
fn time_us(stamp: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| stamp.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let seconds = number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
    // Days of the civil calendar, years beginning in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    Some((days * 86_400 + seconds) * 1_000_000)
}

#[derive(Default, Debug)]
struct Score {
    events: usize,
    foretold: usize,
    lead_min: Vec<f64>,
    alarms: usize,
    false_alarms: usize,
    days: f64,
    outcomes: usize,
    inside: usize,
    squares: f64,
    lasting_squares: f64,
    /// Forecasts and outcomes by tenths of the chance.
    calibration: [(usize, f64, usize); 10],
}

/// Readings in rising order with the forecast made from each.
fn run(readings: &[Glucose]) -> Vec<(Glucose, Option<Forecast>)> {
    let mut forecaster = Forecaster::default();
    let mut last = i64::MIN;
    let mut all = Vec::with_capacity(readings.len());
    for reading in readings {
        if reading.time_us > last {
            last = reading.time_us;
            all.push((*reading, forecaster.push(*reading)));
        }
    }
    all
}

impl Score {
    fn add(&mut self, all: &[(Glucose, Option<Forecast>)], alarm: f64) {
        let within = |index: usize, us: i64| {
            let now = all[index].0.time_us;
            all[index + 1..].iter().take_while(move |(g, _)| g.time_us - now <= us)
        };
        let given = all.iter().filter(|(_, forecast)| forecast.is_some()).count();
        let steps =
            all.windows(2).filter(|w| w[0].1.is_some()).map(|w| w[1].0.time_us - w[0].0.time_us);
        let watched: i64 = steps.filter(|step| *step <= 20 * MINUTE_US).sum();
        self.days += watched as f64 / 86_400e6;
        if given == 0 {
            return;
        }
        let mut last_alarm = i64::MIN / 2;
        let mut last_low = i64::MIN / 2;
        for (index, (now, forecast)) in all.iter().enumerate() {
            if now.mg_dl < HYPO_MG_DL {
                if now.time_us - last_low > HORIZON_US && starts_event(all, index) {
                    self.event(all, index, alarm);
                }
                last_low = now.time_us;
            }
            let Some(forecast) = forecast else { continue };
            let nearest = within(index, HORIZON_US + 3 * MINUTE_US)
                .find(|(g, _)| (g.time_us - forecast.at_us).abs() <= 3 * MINUTE_US);
            if let Some((then, _)) = nearest {
                self.outcomes += 1;
                let inside = (forecast.low_mg_dl..=forecast.high_mg_dl).contains(&then.mg_dl);
                self.inside += usize::from(inside);
                self.squares += (forecast.mg_dl - then.mg_dl).powi(2);
                self.lasting_squares += (now.mg_dl - then.mg_dl).powi(2);
                let bin = &mut self.calibration[((forecast.hypoglycaemia * 10.0) as usize).min(9)];
                bin.0 += 1;
                bin.1 += forecast.hypoglycaemia;
                bin.2 += usize::from(then.mg_dl < HYPO_MG_DL);
            }
            if now.mg_dl >= HYPO_MG_DL && forecast.hypoglycaemia >= alarm {
                if now.time_us - last_alarm > HORIZON_US {
                    self.alarms += 1;
                    let comes = within(index, 45 * MINUTE_US).any(|(g, _)| g.mg_dl < HYPO_MG_DL);
                    self.false_alarms += usize::from(!comes);
                }
                last_alarm = now.time_us;
            }
        }
    }

    fn sensitivity(&self) -> f64 {
        self.foretold as f64 / self.events as f64
    }

    fn false_a_day(&self) -> f64 {
        self.false_alarms as f64 / self.days
    }

    /// Hypoglycaemia begins here: was it foretold in the 45 minutes before, with forecasts to be had?
    fn event(&mut self, all: &[(Glucose, Option<Forecast>)], index: usize, alarm: f64) {
        let onset = all[index].0.time_us;
        let before: Vec<&(Glucose, Option<Forecast>)> = all[..index]
            .iter()
            .rev()
            .take_while(|(g, _)| onset - g.time_us <= 45 * MINUTE_US)
            .filter(|(g, forecast)| forecast.is_some() && g.mg_dl >= HYPO_MG_DL)
            .collect();
        if before.is_empty() {
            return;
        }
        self.events += 1;
        let earliest = before
            .iter()
            .rev()
            .find(|(_, forecast)| forecast.is_some_and(|f| f.hypoglycaemia >= alarm));
        if let Some((g, _)) = earliest {
            self.foretold += 1;
            self.lead_min.push((onset - g.time_us) as f64 / MINUTE_US as f64);
        }
    }
}

/// At least 15 minutes below the border (consensus definition of an event).
fn starts_event(all: &[(Glucose, Option<Forecast>)], index: usize) -> bool {
    let onset = all[index].0.time_us;
    let mut last = onset;
    for (g, _) in &all[index + 1..] {
        if g.mg_dl >= HYPO_MG_DL || g.time_us - last > 20 * MINUTE_US {
            return false;
        }
        if g.time_us - onset >= 15 * MINUTE_US {
            return true;
        }
        last = g.time_us;
    }
    false
}

#[test]
fn recorded_hypoglycaemia_is_foretold() {
    let wearers = wearers();
    let mut scores: [Score; ALARMS.len()] = Default::default();
    for readings in wearers.values() {
        let all = run(readings);
        for (score, alarm) in scores.iter_mut().zip(ALARMS) {
            score.add(&all, alarm);
        }
    }
    println!("{} wearers, {:.0} days, {} events", wearers.len(), scores[0].days, scores[0].events);
    for (score, alarm) in scores.iter_mut().zip(ALARMS) {
        score.lead_min.sort_by(f64::total_cmp);
        println!(
            "chance of {alarm} and more: sensitivity {:.3}, median lead {} min, {:.2} false alarms a day, \
             precision {:.3}",
            score.sensitivity(),
            score.lead_min[score.lead_min.len() / 2],
            score.false_a_day(),
            1.0 - score.false_alarms as f64 / score.alarms as f64,
        );
    }
    let score = &scores[1];
    let rmse = (score.squares / score.outcomes as f64).sqrt();
    let lasting = (score.lasting_squares / score.outcomes as f64).sqrt();
    let coverage = score.inside as f64 / score.outcomes as f64;
    println!("RMSE {rmse:.1} mg/dL, of no change {lasting:.1}; 90 % interval held {coverage:.3}");
    for (count, chance, low) in score.calibration {
        let (chance, share) = (chance / count as f64, low as f64 / count as f64);
        println!("of {count} with a chance of {chance:.3} were low {share:.3}");
        assert!((chance - share).abs() < 0.15);
    }
    assert!(score.sensitivity() > 0.55 && score.false_a_day() < 1.0);
    assert!(rmse < 0.9 * lasting);
    assert!((0.88..0.92).contains(&coverage));
}

#[test]
fn recorded_reports_are_plausible() {
    for readings in wearers().values() {
        let found = report(readings, 5 * MINUTE_US).unwrap();
        assert!((60.0..300.0).contains(&found.mean_mg_dl), "{found:?}");
        assert!((4.5..11.0).contains(&found.gmi_percent), "{found:?}");
        let r = found.ranges;
        let low = r.very_low_percent + r.low_percent;
        let high = r.high_percent + r.very_high_percent;
        assert!((low + r.in_range_percent + high - 100.0).abs() < 1e-9);
        assert!(found.mage_mg_dl.is_none_or(|mage| mage > found.deviation_mg_dl), "{found:?}");
    }
}
