use haar_inference::sepsis::*;
use haar_recordings::{cinc2019::read_stay, corpus::Corpus};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let step: usize = a[1].parse().unwrap();
    let corpus = Corpus::open(std::path::Path::new("/work/shared/data/cinc2019"), "x", |p| {
        p.ends_with(".psv")
    })
    .unwrap();
    let mut cases = vec![];
    let mut b = vec![];
    for (i, f) in corpus.into_iter().enumerate() {
        if i % step != 0 {
            continue;
        }
        let case = Case {
            id: f.case(),
            group: if f.path.contains("setA") {
                "training_setA".into()
            } else {
                "training_setB".into()
            },
            stay: read_stay(&f.bytes).unwrap(),
        };
        if case.group.ends_with('A') { cases.push(case) } else { b.push(case) }
    }
    eprintln!("{} {}", cases.len(), b.len());
    let s = SepsisSettings::default();
    let t0 = std::time::Instant::now();
    let t = train(
        &cases,
        &s,
        "haar train sepsis --data DIR --out DIR --group training_setA --seed 2019 --trees 200",
        "2026-11-23",
        None,
        &mut |p| {
            if let TrainProgress::Grown { trees, .. } = p {
                if trees % 200 == 0 {
                    eprintln!("{trees} {:?}", t0.elapsed())
                }
            }
        },
    )
    .unwrap();
    eprintln!("{:?}", t0.elapsed());
    t.draft.write(std::path::Path::new("/tmp/sepsis-scratch/model")).unwrap();
    println!("{}", serde_json::to_string_pretty(&t.held_out).unwrap());
    let m = SepsisModel::load(std::path::Path::new("/tmp/sepsis-scratch/model")).unwrap();
    let t0 = std::time::Instant::now();
    let e = evaluate(&m, &b, &mut |_| {});
    println!("{} {:?}", serde_json::to_string_pretty(&e).unwrap(), t0.elapsed());
}
