//! `haar bench signals`: R peaks and heart-rate variability on one core.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use haar_recordings::wfdb::{Record, find_records};
use haar_schema::SampleRate;
use haar_signals::ecg::{Detector, NnSeries, RrSeries, detect_r_peaks, hrv};
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;

/// What the peers do with the same records.
const PEER_SCRIPT: &str = include_str!("../../../../benches/peers/signals.py");

/// Each job is done so often and the fastest counts: what else runs on the machine only slows it down.
const ROUNDS: usize = 5;

/// The most samples of recordings that are held, 1 GiB: records beyond are left out.
const MAX_SAMPLES: usize = 1 << 28;

/// Patients, and their windows: five minutes at 250 Hz (Task Force 1996: short-term variability).
const PATIENTS: u32 = 1_000;
const WINDOW_S: f64 = 300.0;
const RATE_HZ: u32 = 250;

/// R peaks of the first leads of recordings, whole and in frames, as a stream; and the features of 1,000
/// patients' five-minute windows of synthetic ECG: R peaks, RR statistics, and variability in time, frequency
/// (Lomb–Scargle) and complexity. All on the calling thread.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Folder of WFDB records, or one record.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Samples in a frame.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..))]
    frame: u32,
    /// Run NeuroKit2 and wfdb on the same records afterwards, one after the other.
    #[arg(long)]
    peer: bool,
    /// The Python for that.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Figures {
    job: &'static str,
    records: usize,
    samples: usize,
    frame_samples: u32,
    beats: usize,
    /// In frames.
    qrs_samples_per_s: f64,
    /// Records given at once.
    qrs_whole_samples_per_s: f64,
    #[serde(flatten)]
    patients: PatientFigures,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<Value>,
}

#[derive(Serialize)]
struct PatientFigures {
    patients: u32,
    window_s: f64,
    patients_beats: usize,
    /// From the ECG to the R peaks.
    r_peaks_1000_patients_s: f64,
    /// From the R peaks to all features.
    features_1000_patients_s: f64,
    hrv_windows_per_s: f64,
    /// Of the features that are defined in each window, so that nothing is left out unseen.
    features_defined: usize,
}

/// Runs the job.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let leads = read_leads(&args.data)?;
    let samples: usize = leads.iter().map(|(mv, _)| mv.len()).sum();
    let (whole, beats) = fastest(|| beats_in_whole(&leads));
    let (framed, framed_beats) = fastest(|| beats_in_frames(&leads, args.frame as usize));
    if framed_beats != beats {
        return Err(Failure::new(format!(
            "{framed_beats} beats in frames, {beats} in whole records: report this as a bug"
        )));
    }
    let figures = Figures {
        job: "signals",
        records: leads.len(),
        samples,
        frame_samples: args.frame,
        beats,
        qrs_samples_per_s: samples as f64 / framed.as_secs_f64(),
        qrs_whole_samples_per_s: samples as f64 / whole.as_secs_f64(),
        patients: patients()?,
        peers: if args.peer { Some(peers(&args.python, &args.data)?) } else { None },
    };
    if args.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        print_figures(&figures);
    }
    Ok(())
}

fn read_leads(data: &Path) -> Result<Vec<(Vec<f32>, SampleRate)>, Failure> {
    let (mut leads, mut samples) = (Vec::new(), 0);
    for path in find_records(data)? {
        let mut record = Record::open(&path)?;
        let rate = SampleRate::from_millihertz((record.header.rate_hz * 1_000.0).round() as u32);
        let (Some(rate), false) = (rate, record.signals.is_empty()) else { continue };
        let mv = record.signals.swap_remove(0);
        samples += mv.len();
        if samples > MAX_SAMPLES {
            break;
        }
        leads.push((mv, rate));
    }
    if leads.is_empty() {
        let data = data.display();
        return Err(Failure::usage(format!(
            "no record with a signal in {data}; name a folder of .hea files"
        )));
    }
    Ok(leads)
}

/// The shortest time of some rounds, and what the job gave.
fn fastest(mut job: impl FnMut() -> usize) -> (Duration, usize) {
    let mut shortest = Duration::MAX;
    let mut result = 0;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        result = job();
        shortest = shortest.min(begin.elapsed());
    }
    (shortest, result)
}

fn beats_in_whole(leads: &[(Vec<f32>, SampleRate)]) -> usize {
    leads.iter().map(|(mv, rate)| detect_r_peaks(mv, *rate).len()).sum()
}

fn beats_in_frames(leads: &[(Vec<f32>, SampleRate)], frame: usize) -> usize {
    let beats = |(mv, rate): &(Vec<f32>, SampleRate)| {
        let mut detector = Detector::new(*rate);
        let beats: usize = mv.chunks(frame).map(|frame| detector.push(frame).len()).sum();
        beats + detector.finish().len()
    };
    leads.iter().map(beats).sum()
}

/// A patient at a time, so that the windows of all need not be held; only the features are timed.
fn patients() -> Result<PatientFigures, Failure> {
    let rate = SampleRate::from_hz(RATE_HZ)
        .ok_or_else(|| Failure::new("no sampling rate: report this as a bug"))?;
    let (mut detecting, mut describing) = (Duration::ZERO, Duration::ZERO);
    let (mut beats, mut defined) = (0, usize::MAX);
    for patient in 0..PATIENTS {
        let mv = synthetic_ecg(patient);
        let begin = Instant::now();
        let peaks = detect_r_peaks(&mv, rate);
        detecting += begin.elapsed();
        beats += peaks.len();
        let begin = Instant::now();
        let features = features(&peaks, rate);
        describing += begin.elapsed();
        defined = defined.min(features.iter().filter(|feature| feature.is_finite()).count());
    }
    Ok(PatientFigures {
        patients: PATIENTS,
        window_s: WINDOW_S,
        patients_beats: beats,
        r_peaks_1000_patients_s: detecting.as_secs_f64(),
        features_1000_patients_s: describing.as_secs_f64(),
        hrv_windows_per_s: f64::from(PATIENTS) / describing.as_secs_f64(),
        features_defined: defined,
    })
}

/// Rhythm and variability; NaN where the window does not allow a measure.
fn features(peaks: &[usize], rate: SampleRate) -> Vec<f64> {
    let rhythm = RrSeries::from_peaks(peaks, rate);
    let nn: NnSeries = rhythm.nn();
    let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
    let mut features = vec![
        or_nan(rhythm.heart_rate().ok()),
        or_nan(rhythm.ectopic_fraction().ok()),
        or_nan(rhythm.irregularity().ok()),
        or_nan(nn.kept()),
        or_nan(hrv::sample_entropy(&nn).ok()),
        or_nan(hrv::dfa_alpha1(&nn).ok()),
    ];
    if let Ok(time) = hrv::time_domain(&nn) {
        features.extend([time.mean_nn_ms, time.sdnn_ms, time.rmssd_ms, time.sdsd_ms]);
        features.extend([time.pnn50_percent, time.triangular_index]);
    }
    if let Ok(bands) = hrv::frequency_domain(&nn) {
        features.extend([bands.vlf_ms2, bands.lf_ms2, bands.lf_hf].map(or_nan));
        features.extend([bands.hf_ms2, bands.hf_peak_hz]);
    }
    if let Ok(scatter) = hrv::poincare(&nn) {
        features.extend([scatter.sd1_ms, scatter.sd2_ms]);
    }
    features
}

/// R and T waves as Gaussians; 55 to 100 beats a minute by patient, breathing and slower waves in the intervals.
fn synthetic_ecg(patient: u32) -> Vec<f32> {
    let rate_hz = f64::from(RATE_HZ);
    let mut mv = vec![0.0_f32; (WINDOW_S * rate_hz) as usize];
    let usual_s = 60.0 / (55.0 + f64::from(patient % 46));
    let breathing_hz = 0.2 + 0.002 * f64::from(patient % 50);
    // A linear congruential generator (Numerical Recipes): the same beats in every run.
    let mut state = patient;
    let mut at_s = 0.5;
    while at_s < WINDOW_S {
        for (height, place_s, width_s) in [(1.1, 0.0, 0.011), (0.3, 0.27, 0.045)] {
            let (middle, reach) = ((at_s + place_s) * rate_hz, 4.0 * width_s * rate_hz);
            let (from, to) = ((middle - reach).max(0.0) as usize, (middle + reach) as usize);
            for (index, value) in mv.iter_mut().enumerate().take(to).skip(from) {
                let away = (index as f64 - middle) / (width_s * rate_hz);
                *value += (height * (-0.5 * away * away).exp()) as f32;
            }
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let random = f64::from(state >> 8) / f64::from(1 << 24) - 0.5;
        let phase = std::f64::consts::TAU * at_s;
        let waves = 0.03 * (phase * breathing_hz).sin() + 0.02 * (phase * 0.1).sin();
        at_s += usual_s * (1.0 + waves + 0.02 * random);
    }
    mv
}

/// What the peers' script prints: one JSON object.
fn peers(python: &Path, data: &Path) -> Result<Value, Failure> {
    let program = python.display();
    let mut child = Command::new(python)
        .args(["-", "--data"])
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Failure::usage(format!(
                "{program} does not start ({error}); name a Python 3 with --python"
            ))
        })?;
    if let Some(mut script) = child.stdin.take() {
        script.write_all(PEER_SCRIPT.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "{program} could not run the peers; `{program} -m pip install neurokit2 wfdb` installs them"
        )));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn print_figures(figures: &Figures) {
    let million = |per_s: f64| format!("{:.1} million samples/s", per_s / 1e6);
    println!("{} records, {} samples, {} beats", figures.records, figures.samples, figures.beats);
    println!(
        "R peaks, frames of {:<6} {}",
        figures.frame_samples,
        million(figures.qrs_samples_per_s)
    );
    println!("R peaks, whole records    {}", million(figures.qrs_whole_samples_per_s));
    let patients = &figures.patients;
    println!(
        "{} patients × {} s: {} beats",
        patients.patients, patients.window_s, patients.patients_beats
    );
    println!("  ECG to R peaks          {:.3} s", patients.r_peaks_1000_patients_s);
    println!(
        "  R peaks to features     {:.3} s   ({:.0} windows/s, at least {} features each)",
        patients.features_1000_patients_s, patients.hrv_windows_per_s, patients.features_defined
    );
    let empty = serde_json::Map::new();
    let peers = figures.peers.as_ref().and_then(Value::as_object).unwrap_or(&empty);
    for (name, value) in peers {
        match value.as_f64() {
            Some(per_s) if name.ends_with("samples_per_s") => {
                let times = figures.qrs_samples_per_s / per_s;
                println!("{name:<46} {}   (Haar × {times:.1})", million(per_s));
            }
            _ => println!("{name:<46} {value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_of_a_synthetic_window_is_defined() {
        let rate = SampleRate::from_hz(RATE_HZ).unwrap();
        for patient in [0, 45, 999] {
            let peaks = detect_r_peaks(&synthetic_ecg(patient), rate);
            let minutes = WINDOW_S / 60.0;
            let expected = (55.0 + f64::from(patient % 46)) * minutes;
            assert!((peaks.len() as f64 - expected).abs() < 0.02 * expected, "{}", peaks.len());
            let features = features(&peaks, rate);
            assert_eq!(features.len(), 19);
            assert!(features.iter().all(|feature| feature.is_finite()), "{features:?}");
        }
    }

    #[test]
    fn frames_and_whole_records_have_the_same_beats() {
        let leads = [(synthetic_ecg(7), SampleRate::from_hz(RATE_HZ).unwrap())];
        assert_eq!(beats_in_frames(&leads, 33), beats_in_whole(&leads));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let missing = peers(Path::new("/nonexistent/python"), folder.path()).unwrap_err();
        assert!(missing.to_string().contains("--python"), "{missing}");
        let error = read_leads(folder.path()).unwrap_err();
        assert!(error.to_string().contains(".hea"), "{error}");
    }
}
