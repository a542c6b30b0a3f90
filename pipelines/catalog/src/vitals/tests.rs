use crate::Pipeline;
use haar_recordings::cgm;
use haar_schema::SignalId;
use haar_signals::moments::Moments;
use std::io::Read;

const MINUTE_US: i64 = 60_000_000;
/// Another event begins after so long above the limit.
const APART_US: i64 = 30 * MINUTE_US;
/// A warning counts if it comes so long before.
const AHEAD_US: i64 = 40 * MINUTE_US;

fn glucose() -> Pipeline {
    let own = crate::OPTIONAL.into_iter().find(|(name, _)| *name == "glucose.toml");
    let (name, text) = own.unwrap();
    Pipeline::parse(name, text).unwrap()
}

/// What the windows of a quarter of an hour raise, every five minutes, by their ends.
fn raised(pipeline: &Pipeline, readings: &[(i64, f64)]) -> Vec<(i64, Vec<String>)> {
    let (Some((first, _)), Some((last, _))) = (readings.first(), readings.last()) else {
        return Vec::new();
    };
    let slide = 5 * MINUTE_US;
    let mut begin = 0;
    let mut windows = Vec::new();
    for end in (first / slide + 1..=last / slide).map(|slides| slides * slide) {
        while readings[begin].0 < end - 3 * slide {
            begin += 1;
        }
        let own = readings[begin..].iter().take_while(|(at, _)| *at < end);
        let mut moments = Moments::default();
        own.for_each(|(at, value)| moments.add(*at, *value));
        if moments.count() > 0 {
            let features = pipeline.describe_vitals(&[(SignalId::GLUCOSE, moments)]);
            let decision = pipeline.decide(&features, None);
            let names = decision.raised.into_iter().map(|raised| raised.flag.to_owned());
            windows.push((end, names.collect()));
        }
    }
    windows
}

#[test]
fn what_is_low_and_what_will_be_is_flagged() {
    let pipeline = glucose();
    let course = |values: &[f64]| -> Vec<(i64, f64)> {
        (1..).map(|at| at * 5 * MINUTE_US - 1).zip(values.iter().copied()).collect()
    };
    let last = |values: &[f64]| raised(&pipeline, &course(values)).pop().unwrap().1;
    let nothing: [&str; 0] = [];
    assert_eq!(last(&[120.0, 121.0, 119.0, 120.0, 120.0]), nothing);
    assert_eq!(last(&[120.0, 110.0, 100.0, 90.0, 90.0]), ["glucose-low-soon"]);
    assert_eq!(last(&[90.0, 80.0, 72.0, 66.0, 66.0]), ["glucose-low"]);
    assert_eq!(last(&[70.0, 60.0, 53.0, 53.0]), ["glucose-very-low"]);
    assert_eq!(last(&[260.0, 270.0, 280.0, 280.0]), ["glucose-high"]);
    assert_eq!(last(&[71.0, 72.0, 71.0, 73.0]), nothing, "near is not falling");
}

/// How often a fall below 70 mg/dL was foretold, on sensors of people whom the definition has never seen.
#[test]
fn recorded_glucose_is_foretold_as_often_as_the_definition_says() {
    let data = std::env::var("HAAR_DATA").expect("set HAAR_DATA to the folder that holds cgm/");
    let file = std::fs::File::open(std::path::Path::new(&data).join("cgm/cgm_open.csv.zst"));
    let mut table = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(file.unwrap())
        .unwrap()
        .read_to_end(&mut table)
        .unwrap();
    let pipeline = glucose();
    let (mut events, mut foretold, mut warnings, mut in_vain) = (0, 0, 0, 0);
    let (mut lead_min, mut days) = (Vec::new(), 0.0);
    for wearer in cgm::read(&table).unwrap() {
        let mut readings: Vec<(i64, f64)> = wearer
            .readings
            .iter()
            .map(|(at_s, value)| ((at_s * 1e6) as i64, f64::from(value.mg_dl())))
            .filter(|(_, value)| value.is_finite())
            .collect();
        // Stamps may repeat or go back: as the fog drops what comes too late.
        let mut newest = i64::MIN;
        readings.retain(|(at, _)| {
            let is_later = *at > newest;
            newest = newest.max(*at);
            is_later
        });
        let steps = readings.windows(2).map(|pair| pair[1].0 - pair[0].0);
        days += steps.filter(|step| *step <= 20 * MINUTE_US).sum::<i64>() as f64 / 86_400e6;
        let windows = raised(&pipeline, &readings);
        let soon: Vec<i64> = windows
            .iter()
            .filter(|(_, flags)| flags.iter().any(|flag| flag == "glucose-low-soon"))
            .map(|(end, _)| *end)
            .collect();
        let low: Vec<i64> =
            readings.iter().filter(|(_, value)| *value < 70.0).map(|(at, _)| *at).collect();
        let begins = |at: usize| at == 0 || low[at] - low[at - 1] > APART_US;
        for begin in (0..low.len()).filter(|at| begins(*at)).map(|at| low[at]) {
            events += 1;
            let warned = soon.iter().find(|at| (begin - AHEAD_US..=begin).contains(*at));
            if let Some(at) = warned {
                foretold += 1;
                lead_min.push((begin - at) / MINUTE_US);
            }
        }
        let first = |at: usize| at == 0 || soon[at] - soon[at - 1] > APART_US;
        for warned in (0..soon.len()).filter(|at| first(*at)).map(|at| soon[at]) {
            warnings += 1;
            let follows = low.iter().any(|at| (warned - APART_US..=warned + AHEAD_US).contains(at));
            in_vain += i64::from(!follows);
        }
    }
    lead_min.sort_unstable();
    println!(
        "{events} falls below 70 mg/dL in {days:.0} days, {foretold} foretold, by {} min (median); {warnings} warnings, {in_vain} in vain, {:.2} a day",
        lead_min[lead_min.len() / 2],
        in_vain as f64 / days
    );
    assert!(foretold * 4 >= events * 3, "of {events} only {foretold}");
    assert!((in_vain as f64) < 1.5 * days, "{in_vain} warnings are in vain");
}
