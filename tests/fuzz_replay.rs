//! Everything that a fuzzer kept, and what it began with, through the same checks on stable Rust.

use crate::checks::{TARGETS, check, seeds};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};

/// Mutations of each file of the corpus; more for a longer campaign.
const MUTATIONS: &str = "HAAR_FUZZ_MUTATIONS";
/// Set, the seeds are written into the corpus.
const WRITE: &str = "HAAR_FUZZ_WRITE";
/// What formats are made of.
const LETTERS: &[u8] = b"0123456789 \n=+/\"{}[]-";
/// The most that the whole corpus takes.
const MAX_CORPUS_BYTES: u64 = 512 * 1024;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

#[test]
fn the_seeds_are_those_of_this_version() {
    for (target, name, bytes) in seeds() {
        assert!(check(target, &bytes), "{target}/{name} is not read");
        let path = corpus(target).join(name);
        if std::env::var_os(WRITE).is_some() {
            std::fs::create_dir_all(corpus(target)).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let kept = std::fs::read(&path).unwrap_or_default();
        assert!(kept == bytes, "{}: write the seeds anew with {WRITE}=1", path.display());
    }
}

#[test]
fn what_was_kept_holds_and_so_do_its_mutations() {
    let mutations = std::env::var(MUTATIONS).ok().and_then(|count| count.parse().ok());
    let mutations: u32 = mutations.unwrap_or(300);
    let mut random = ChaCha8Rng::seed_from_u64(0x4841_4152);
    let mut size = 0;
    for (target, check) in TARGETS {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(corpus(target)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{target} has no corpus");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            size += bytes.len() as u64;
            // Whether it is read is another matter: a fuzzer keeps what is refused in a new way.
            let _ = check(&bytes);
            for _ in 0..mutations {
                let _ = check(&mutated(&bytes, &mut random));
            }
        }
    }
    assert!(size <= MAX_CORPUS_BYTES, "the corpus has {size} bytes; minimise it: cargo fuzz cmin");
}

/// A few bytes changed, cut out, doubled or put in.
fn mutated(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..16)).min(bytes.len());
        match random.random_range(0..5) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            2 => bytes.insert(at, random.random()),
            3 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            _ if at < bytes.len() => bytes[at] = LETTERS[random.random_range(0..LETTERS.len())],
            _ => {}
        }
    }
    bytes
}
