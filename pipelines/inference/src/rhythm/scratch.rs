#![allow(missing_docs, clippy::unwrap_used)]
use super::network::*;
use super::train::*;
use super::*;
use candle_core::{Device, Tensor};
use haar_recordings::corpus::CaseId;
use std::io::{Read, Write};
pub fn load() -> Vec<RhythmCase> {
    let p = "/tmp/rh/cases2.bin";
    if let Ok(mut f) = std::fs::File::open(p) {
        let mut b = Vec::new();
        f.read_to_end(&mut b).unwrap();
        let mut at = 0;
        let mut out = Vec::new();
        let u = |at: &mut usize| {
            let v = u64::from_le_bytes(b[*at..*at + 8].try_into().unwrap());
            *at += 8;
            v
        };
        let n = u(&mut at);
        let fl = |at: &mut usize| {
            let n = u64::from_le_bytes(b[*at..*at + 8].try_into().unwrap()) as usize;
            *at += 8;
            let v: Vec<f32> = b[*at..*at + 4 * n]
                .chunks(4)
                .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
                .collect();
            *at += 4 * n;
            v
        };
        for _ in 0..n {
            let case = CaseId(u(&mut at));
            let class = RhythmClass::ALL[u(&mut at) as usize];
            let np = u(&mut at);
            let features = fl(&mut at);
            let waveform = fl(&mut at);
            let parts = (0..np).map(|_| fl(&mut at)).collect();
            out.push(RhythmCase { case, class, whole: RhythmInput { features, waveform }, parts });
        }
        return out;
    }
    let recs = haar_recordings::cinc2017::read(std::path::Path::new("/work/shared/data/cinc2017"))
        .unwrap();
    let cases: Vec<_> = recs
        .iter()
        .map(|r| {
            RhythmCase::new(
                r.case,
                r.rhythm.into(),
                &r.mv,
                haar_schema::SampleRate::from_millihertz(r.rate_millihertz).unwrap(),
            )
            .unwrap()
        })
        .collect();
    let mut b = Vec::new();
    let w = |b: &mut Vec<u8>, v: u64| b.extend(v.to_le_bytes());
    fn fl(b: &mut Vec<u8>, v: &[f32]) {
        b.extend((v.len() as u64).to_le_bytes());
        for x in v {
            b.extend(x.to_le_bytes());
        }
    }
    w(&mut b, cases.len() as u64);
    for c in &cases {
        w(&mut b, c.case.0);
        w(&mut b, c.class.index() as u64);
        w(&mut b, c.parts.len() as u64);
        fl(&mut b, &c.whole.features);
        fl(&mut b, &c.whole.waveform);
        for p in &c.parts {
            fl(&mut b, p);
        }
    }
    std::fs::File::create(p).unwrap().write_all(&b).unwrap();
    cases
}
pub fn all(out: &str, epochs: u32) {
    let t = std::time::Instant::now();
    let cases = load();
    eprintln!("loaded {} {:?}", cases.len(), t.elapsed());
    let s = RhythmSettings { epochs, ..RhythmSettings::default() };
    let p = std::path::Path::new(out);
    std::fs::create_dir_all(p).unwrap();
    let c = train_rhythm(&cases, &s, Some(&p.join("resume.safetensors")), &mut |p| {
        eprintln!("{} {} {:.4} {:?}", p.stage, p.epoch, p.loss, t.elapsed())
    })
    .unwrap();
    let about = RhythmAbout {
        version: 1,
        date: "2026-11-23".into(),
        command: format!(
            "haar train rhythm --data DIR --out DIR --seed {} --epochs {} --batch {} --learning-rate {} --members {}",
            s.seed, s.epochs, s.batch, s.learning_rate, s.members
        ),
    };
    let d = rhythm_draft(&c, &cases, &s, &about).unwrap();
    d.write(p).unwrap();
    eprintln!("{}", d.card);
    eprintln!("{:?} {:?}", d.manifest.metrics, t.elapsed());
}
