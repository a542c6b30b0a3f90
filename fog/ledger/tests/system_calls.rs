//! EIO, ENOSPC and KILL at every write-side system call of one commit, by `strace -e inject`; then the log is
//! opened again, exported and hashed from the entries up.

#![allow(
    clippy::unwrap_used,
    reason = "this is a test binary: a failure is a failed test with its line"
)]

use haar_ledger::Identity;
use haar_ledger::consortium::{Sequencer, Tiles, fsck_folder};
use haar_ledger::store::RedbStore;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

/// What a commit writes by, as redb and the standard library do.
const WRITES: [&str; 6] = ["pwrite64", "fdatasync", "fsync", "ftruncate", "fallocate", "write"];
const FAULTS: [&str; 3] = ["error=EIO", "error=ENOSPC", "signal=KILL"];
/// More system calls of one kind than a commit has.
const MAX_CALLS: usize = 200;

fn program() -> PathBuf {
    // …/debug/deps/<this test>, …/debug/examples/one_commit.
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/one_commit")
}

/// In memory where there is such a folder: the faults are injected, and a disk would only make it slow.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Cargo builds examples before tests, but not if it is asked for this test alone.
fn build() {
    if program().is_file() {
        return;
    }
    let arguments = ["build", "--quiet", "--package", "haar-ledger", "--example", "one_commit"];
    assert!(Command::new(env!("CARGO")).args(arguments).status().unwrap().success());
}

fn strace(arguments: &[&str], dir: &Path, entry: &str) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(dir.join("trace")).args(arguments);
    command.arg(program()).arg(dir).arg(entry);
    command.output().expect("strace is needed for this test: apt-get install strace")
}

fn log_in(dir: &Path) {
    let first = Command::new(program()).arg(dir).arg("first").output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
}

/// Which calls, and how many of each, are made by a commit on a log that is there.
fn calls() -> Vec<(&'static str, usize)> {
    let dir = folder();
    log_in(dir.path());
    let traced = strace(&["-e", &format!("trace={}", WRITES.join(","))], dir.path(), "second");
    assert!(traced.status.success(), "{}", String::from_utf8_lossy(&traced.stderr));
    let trace = std::fs::read_to_string(dir.path().join("trace")).unwrap();
    let count =
        |call: &str| trace.lines().filter(|line| line.contains(&format!(" {call}("))).count();
    WRITES.into_iter().map(|call| (call, count(call))).filter(|(_, count)| *count > 0).collect()
}

async fn check(dir: &Path, acknowledged: bool, case: &str) {
    let db = redb::Database::create(dir.join("ledger.redb"));
    let db = Arc::new(db.unwrap_or_else(|error| panic!("{case}: {error}")));
    let log = Identity::generate("consortium.example/log", [1; 32]).unwrap();
    let tiles = Tiles::open(db.clone(), log.vkey().clone()).unwrap();
    let store = RedbStore::open(db).unwrap();
    let key = log.vkey().clone();
    let own = Sequencer::open(store, tiles, log, "node-1", b"genesis").await;
    let own = own.unwrap_or_else(|error| panic!("{case}: {error}"));
    let entries = own.tiles().entries(0).unwrap();
    assert_eq!(entries[..2], [b"genesis".to_vec(), b"first".to_vec()], "{case}");
    assert!(entries.len() <= 3, "{case}");
    assert!(!acknowledged || entries[2..] == [b"second".to_vec()], "{case}: lost");
    own.tiles().publish(own.checkpoint().note()).unwrap();
    let folder = dir.join("tiles");
    own.tiles().export(&folder).unwrap();
    let report = fsck_folder(&folder, &key, &mut |_, _| {});
    assert_eq!((report.leaves, report.problems), (Some(entries.len() as u64), vec![]), "{case}");
}

#[tokio::test]
async fn every_write_of_a_commit_may_fail() {
    build();
    let calls = calls();
    let total: usize = calls.iter().map(|(_, count)| count).sum();
    println!("{calls:?}: {total} calls, {} faults", total * FAULTS.len());
    assert!(total > 4 && calls.iter().any(|(call, _)| *call == "pwrite64"), "{calls:?}");
    let begun = folder();
    log_in(begun.path());
    let (mut failed, mut killed) = (0, 0);
    for (call, count) in calls {
        assert!(count < MAX_CALLS);
        for (at, fault) in (1..=count).flat_map(|at| FAULTS.map(|fault| (at, fault))) {
            let dir = folder();
            std::fs::copy(begun.path().join("ledger.redb"), dir.path().join("ledger.redb"))
                .unwrap();
            let (trace, inject) =
                (format!("trace={call}"), format!("inject={call}:{fault}:when={at}"));
            let output = strace(&["-e", &trace, "-e", &inject], dir.path(), "second");
            let acknowledged = output.stdout.starts_with(b"2 3");
            failed += usize::from(output.status.code() == Some(1));
            killed += usize::from(fault == "signal=KILL" && !output.status.success());
            check(dir.path(), acknowledged, &inject).await;
        }
    }
    println!("{failed} said that they failed, {killed} were killed");
    assert!(failed > 4 && killed > 4, "the faults must be met");
}
