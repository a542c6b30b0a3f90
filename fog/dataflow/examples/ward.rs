fn main() {
    let k = std::env::args().nth(1).unwrap().parse().unwrap();
    let s = std::env::args().nth(2).unwrap().parse().unwrap();
    let w = std::env::args().nth(3).unwrap().parse().unwrap();
    let r = haar_dataflow::load::ward(k, s, w).unwrap();
    println!("{r:?} {:.2}M/s", r.readings as f64 / r.elapsed.as_secs_f64() / 1e6);
}
