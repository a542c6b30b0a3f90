//! Micro-benchmarks: `cargo bench -p haar-benches`. Figures drift with the machine: compare within a run.
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macro, and a bench that fails is a failed bench"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use haar_inference::{BeatModel, beat_inputs};
use haar_ledger::{Held, Identity, Keyholder, LeafKind, Record, Sealing, SiteLog};
use haar_schema::SampleRate;
use haar_signals::ecg;
use std::hint::black_box;
use std::sync::Arc;

/// Half an hour at 250 Hz: Gaussian R and T waves at 72 beats a minute on a wandering baseline.
fn waveform() -> Vec<f32> {
    let beat_s = 60.0 / 72.0;
    (0..450_000)
        .map(|index| {
            let time = f64::from(index) / 250.0;
            let phase = time % beat_s;
            let wave = |centre: f64, width: f64| (-((phase - centre) / width).powi(2)).exp();
            (wave(0.3, 0.012) + 0.25 * wave(0.55, 0.06) + 0.1 * (time * 0.9).sin()) as f32
        })
        .collect()
}

fn windows(c: &mut Criterion) {
    let mut group = c.benchmark_group("windows");
    group.throughput(Throughput::Elements(200_000)).sample_size(10);
    for workers in [1, 2] {
        group.bench_function(format!("ward 1000 keys, 200 s, {workers} workers"), |b| {
            b.iter(|| haar_dataflow::load::ward(1_000, 200, workers).unwrap());
        });
    }
    group.finish();
}

fn signals(c: &mut Criterion) {
    let (mv, rate) = (waveform(), SampleRate::from_hz(250).unwrap());
    let mut group = c.benchmark_group("signals");
    group.throughput(Throughput::Elements(mv.len() as u64)).sample_size(20);
    group.bench_function("R peaks, half an hour", |b| {
        b.iter(|| ecg::detect_r_peaks(black_box(&mv), rate))
    });
    group.finish();
}

fn inference(c: &mut Criterion) {
    let (mv, rate) = (waveform(), SampleRate::from_hz(250).unwrap());
    let peaks = ecg::detect_r_peaks(&mv, rate);
    let inputs: Vec<_> = beat_inputs(&mv, rate, &peaks).into_iter().flatten().take(256).collect();
    let model = BeatModel::builtin().unwrap();
    let mut group = c.benchmark_group("inference");
    group.throughput(Throughput::Elements(inputs.len() as u64)).sample_size(20);
    group.bench_function("beats, one thread", |b| {
        b.iter(|| model.classify(black_box(&inputs)).unwrap())
    });
    group.finish();
}

fn ledger(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(redb::Database::create(dir.path().join("log.redb")).unwrap());
    let log =
        SiteLog::open(Arc::clone(&db), Identity::generate("haar.test/bench", [7; 32]).unwrap())
            .unwrap();
    let records: Vec<Record> = (0..1_000u32)
        .map(|n| {
            let mut name = [0; 32];
            name[..4].copy_from_slice(&n.to_le_bytes());
            Record { kind: LeafKind::WindowDigest, name, key: [9; 32], body: vec![b'x'; 1_500] }
        })
        .collect();
    let mut group = c.benchmark_group("ledger");
    group.throughput(Throughput::Elements(records.len() as u64)).sample_size(10);
    group.bench_function("append 1000 records, durable", |b| {
        b.iter(|| {
            let tx = db.begin_write().unwrap();
            log.append(&tx, &records).unwrap();
            tx.commit().unwrap();
        });
    });
    let db = Arc::new(redb::Database::create(dir.path().join("sealed.redb")).unwrap());
    let identity = Identity::generate("haar.test/bench", [7; 32]).unwrap();
    let random = |bytes: &mut [u8; 32]| Ok(bytes.fill(5));
    let sealing = Sealing { key_file: dir.path().join("records.key"), random };
    let log = SiteLog::open_sealed(Arc::clone(&db), identity, sealing).unwrap();
    let held: Vec<Held> = records
        .into_iter()
        .enumerate()
        .map(|(n, record)| Held { keyholder: Some(Keyholder::of(&[(n % 50) as u8])), record })
        .collect();
    group.bench_function("append 1000 records of 50 patients, sealed, durable", |b| {
        b.iter(|| {
            let tx = db.begin_write().unwrap();
            log.append_held(&tx, &held).unwrap();
            tx.commit().unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, windows, signals, inference, ledger);
criterion_main!(benches);
