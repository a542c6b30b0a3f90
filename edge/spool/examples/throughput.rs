//! Prints how many commits and entries a second the spool takes: `cargo run --release -p haar-spool
//! --example throughput -- [FOLDER]`. Each commit is synced, so the folder's disk decides.

use haar_spool::{NewEntry, NewFrame, Settings, Spool};
use std::path::PathBuf;
use std::time::Instant;

/// What one measurement appends at most.
const MAX_SECONDS: f64 = 2.0;
/// An encoded vital sign has about so many bytes.
const ENTRY_BYTES: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("throughput-{}.redb", std::process::id()));
    let spool = Spool::open(&path, Settings::new([1; 16]))?;
    let mut number = 0u64;
    for batch in [1, 10, 100, 1_000, 10_000] {
        let (start, first) = (Instant::now(), spool.next_seq());
        let (mut commits, mut worst) = (0u32, 0f64);
        while start.elapsed().as_secs_f64() < MAX_SECONDS {
            let mut frames = Vec::with_capacity(batch);
            for _ in 0..batch {
                number += 1;
                let mut frame_id = [0; 16];
                frame_id[..8]
                    .copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
                let entries = vec![NewEntry::vital(vec![7; ENTRY_BYTES])];
                frames.push(NewFrame { frame_id: Some(frame_id), entries });
            }
            let begun = Instant::now();
            spool.append(&frames, &[])?;
            worst = worst.max(begun.elapsed().as_secs_f64());
            commits += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        let entries = (spool.next_seq() - first) as f64 / seconds;
        let commits = f64::from(commits) / seconds;
        println!(
            "{batch:>6} entries a commit: {commits:>6.0} commits/s {entries:>9.0} entries/s, worst {:.1} ms",
            worst * 1e3
        );
    }
    let stats = spool.stats();
    println!("{} entries, {} bytes, file {} bytes", stats.entries, stats.bytes, stats.file_bytes);
    let start = Instant::now();
    let mut from = spool.oldest_seq();
    while let Some((last, _)) = spool.read(from, 4_096, 1 << 20)?.last() {
        from = last + 1;
    }
    println!("read {:.0} entries/s", stats.entries as f64 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    spool.prune(spool.next_seq())?;
    println!("pruned {:.0} entries/s", stats.entries as f64 / start.elapsed().as_secs_f64());
    drop(spool);
    std::fs::remove_file(&path)?;
    Ok(())
}
