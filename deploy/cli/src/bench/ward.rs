//! `haar bench ward`: sliding windows over vitals.

use crate::failure::Failure;
use haar_dataflow::load;
use serde_json::json;

/// Readings at 1 Hz per key, 1 % of them up to 5 s late; windows of 60 s sliding by 10 s; count, mean,
/// extremes, deviation and slope. It is the production window operator that runs.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Series: patients times five vitals.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Seconds of event time.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Dataflow workers.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the job.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let result = load::ward(args.keys, args.seconds, args.workers).map_err(Failure::usage)?;
    let elapsed_s = result.elapsed.as_secs_f64();
    let readings_per_s = result.readings as f64 / elapsed_s;
    if args.json {
        let object = json!({
            "job": "ward", "keys": args.keys, "seconds": args.seconds, "workers": args.workers,
            "readings": result.readings, "windows": result.windows,
            "count_sum": result.count_sum, "mean_sum": result.mean_sum,
            "min_sum": result.min_sum, "max_sum": result.max_sum,
            "standard_deviation_sum": result.standard_deviation_sum,
            "slope_sum": result.slope_sum,
            "elapsed_s": elapsed_s, "readings_per_s": readings_per_s,
        });
        println!("{object}");
    } else {
        println!("readings            {:>16}", result.readings);
        println!("windows             {:>16}", result.windows);
        println!("sum of counts       {:>16}", result.count_sum);
        println!("sum of means        {:>16.3}", result.mean_sum);
        println!("sum of minima       {:>16.3}", result.min_sum);
        println!("sum of maxima       {:>16.3}", result.max_sum);
        println!("sum of deviations   {:>16.3}", result.standard_deviation_sum);
        println!("sum of slopes per s {:>16.3}", result.slope_sum);
        println!("elapsed             {elapsed_s:>14.2} s");
        println!("readings/s          {readings_per_s:>16.0}   ({} workers)", args.workers);
    }
    Ok(())
}
