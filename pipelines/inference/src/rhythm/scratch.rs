#![allow(missing_docs, clippy::unwrap_used)]
use super::network::*;
use super::train::*;
use super::*;
use candle_core::{Device, Tensor};
use haar_recordings::corpus::CaseId;
use std::io::{Read, Write};
pub fn load() -> Vec<RhythmCase> {
    let p = "/tmp/rh/cases.bin";
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
fn f1(y: &[usize], p: &[usize]) -> [f64; 4] {
    std::array::from_fn(|c| {
        let tp = y.iter().zip(p).filter(|(a, b)| **a == c && **b == c).count();
        let s = y.iter().filter(|a| **a == c).count() + p.iter().filter(|a| **a == c).count();
        2.0 * tp as f64 / s.max(1) as f64
    })
}
pub fn report(name: &str, y: &[usize], r: &[[f32; 4]]) {
    let p: Vec<usize> =
        r.iter().map(|r| (0..4).max_by(|a, b| r[*a].total_cmp(&r[*b])).unwrap()).collect();
    let f = f1(y, &p);
    let acc = y.iter().zip(&p).filter(|(a, b)| a == b).count() as f64 / y.len() as f64;
    eprintln!("{name}: {:.3?} F1 {:.4} acc {acc:.4}", f, (f[0] + f[1] + f[2]) / 3.0);
}
pub fn fold(member: usize, epochs: u32, lr: f64) {
    crate::on_the_calling_thread();
    let t = std::time::Instant::now();
    let cases = load();
    eprintln!("loaded {} {:?}", cases.len(), t.elapsed());
    let s = RhythmSettings { epochs, learning_rate: lr, ..RhythmSettings::default() };
    let fold_of = crate::training::folds(cases.len(), s.members, s.seed);
    let seen: Vec<&RhythmCase> =
        cases.iter().zip(&fold_of).filter(|(_, f)| **f != member).map(|(c, _)| c).collect();
    let held: Vec<&RhythmCase> =
        cases.iter().zip(&fold_of).filter(|(_, f)| **f == member).map(|(c, _)| c).collect();
    let path = format!("/tmp/rh/resume_{}", std::env::var("TAG").unwrap_or("x".into()));
    let fp = fingerprint(&cases, &s);
    let run = crate::training::Run {
        seed: s.seed,
        stage: member,
        stages: 5,
        epochs,
        learning_rate: lr,
        weight_decay: s.weight_decay,
        fingerprint: &fp,
        resume: Some(std::path::Path::new(&path)),
    };
    let t = std::time::Instant::now();
    let mut m = train_member(&seen, &s, &run, &mut |p| {
        eprintln!("  {} {:.4} {:?}", p.epoch, p.loss, t.elapsed())
    })
    .unwrap();
    let st = super::standard::Standard::take_from(&mut m).unwrap();
    let (mut a, mut b, mut y) = (Vec::new(), Vec::new(), Vec::new());
    for c in &held {
        let f: Vec<f32> = st.apply(&c.whole.features).collect();
        let d = describe(
            &m,
            &Tensor::from_vec(f, (1, super::input::FEATURES), &Device::Cpu).unwrap(),
            None,
        )
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
        let mut sum = [0f32; 4];
        let st = c.whole.starts();
        for s0 in &st {
            let (w, v) = c.whole.window(*s0);
            let r = see(
                &m,
                &Tensor::from_vec(w, (1, super::input::WINDOW, CHANNELS), &Device::Cpu).unwrap(),
                &[v],
                None,
            )
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
            for k in 0..4 {
                sum[k] += r[0][k] / st.len() as f32;
            }
        }
        a.push(std::array::from_fn(|k| d[0][k]));
        b.push(sum);
        y.push(c.class.index());
    }
    report("described", &y, &a);
    report("seen", &y, &b);
    for w in [0.3f32, 0.4, 0.5, 0.6, 0.7] {
        let m: Vec<[f32; 4]> = a
            .iter()
            .zip(&b)
            .map(|(a, b)| std::array::from_fn(|k| a[k] * (1.0 - w) + b[k] * w))
            .collect();
        report(&format!("mix {w}"), &y, &m);
    }
    let mut o = std::fs::File::create(format!("{path}.out.{member}")).unwrap();
    for i in 0..y.len() {
        writeln!(
            o,
            "{:016x},{},{},{}",
            held[i].case.0,
            y[i],
            a[i].map(|x| x.to_string()).join(","),
            b[i].map(|x| x.to_string()).join(",")
        )
        .unwrap();
    }
}
