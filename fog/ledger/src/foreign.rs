//! What we hand out, checked by a program that shares no code with us: `tests/foreign_verifier.py`.
//!
//! It must take what we make and refuse every altered copy.

use crate::consortium::{Tiles, included};
use crate::cosignature::Cosigner;
use crate::entry::{Entry, EntryKind};
use crate::fixtures::{append, identity, memory, record};
use crate::leaf::LeafKind;
use crate::policy::{Policy, PolicyLog, PolicyWitness, Rule};
use crate::site_log::SiteLog;
use crate::tables::Record;
use haar_identity::Identity;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// More than one full tile.
const LEAVES: u64 = 300;

fn cosigners() -> Vec<Cosigner> {
    (0..4).map(|n| Cosigner::generate(&format!("w{n}.example"), [n + 10; 32]).unwrap()).collect()
}

/// Two groups of two witnesses, all of which must have cosigned; or none of them.
fn policy(log: &Identity, witnessed: bool) -> Policy {
    let logs = vec![PolicyLog { key: log.vkey().clone(), url: Some("https://a.example/".into()) }];
    let witnesses = cosigners().into_iter().map(|own| {
        let name = own.vkey().name().split('.').next().unwrap_or_default().to_owned();
        PolicyWitness { name, key: own.vkey().clone(), url: None }
    });
    let two = |one: &str, two: &str| {
        Rule::AtLeast(2, vec![Rule::Witness(one.into()), Rule::Witness(two.into())])
    };
    let rule = Rule::AtLeast(2, vec![two("w0", "w1"), two("w2", "w3")]);
    Policy::new(logs, witnesses.collect(), witnessed.then_some(&rule)).unwrap()
}

/// The note with the cosignatures of the first `count` witnesses.
fn cosigned(note: &str, count: usize) -> String {
    let text = &note[..=note.rfind("\n\n").unwrap()];
    let lines = cosigners().into_iter().take(count).map(|own| own.cosign(text, 1_700_000_000));
    std::iter::once(note.to_owned()).chain(lines).collect()
}

/// What the program says of each of these, in their order; it must have come to an end.
fn foreign(arguments: &[&Path], paths: &[PathBuf]) -> Vec<String> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign_verifier.py");
    let output = Command::new("python3")
        .arg(program)
        .args(arguments)
        .args(paths)
        .output()
        .expect("python3 is needed; tests/run installs it");
    let said = String::from_utf8(output.stdout).unwrap();
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<String> = said.lines().map(str::to_owned).collect();
    assert_eq!(
        lines.len(),
        paths.len(),
        "is Debian's python3-cryptography there? tests/run installs it: {problem}"
    );
    let ok = lines.iter().all(|line| line.starts_with("ok "));
    assert_eq!(output.status.code(), Some(i32::from(!ok)), "{problem}");
    lines
}

fn all_ok(arguments: &[&Path], paths: &[PathBuf]) {
    for line in foreign(arguments, paths) {
        assert!(line.starts_with("ok "), "{line}");
    }
}

fn all_refused(arguments: &[&Path], paths: &[PathBuf]) {
    assert!(!paths.is_empty());
    for line in foreign(arguments, paths) {
        assert!(line.starts_with("refused "), "{line}");
    }
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

/// A site log with leaves of every kind.
fn site_log() -> SiteLog {
    let db = memory();
    let log = SiteLog::open(db.clone(), identity()).unwrap();
    let kinds: Vec<LeafKind> = (0..=u8::MAX).filter_map(LeafKind::from_byte).collect();
    let record = |index: u64| Record { kind: kinds[index as usize % kinds.len()], ..record(index) };
    append(&db, &log, &(0..LEAVES).map(record).collect::<Vec<_>>());
    log
}

/// Copies of a text with one bit flipped, spread over all of it, each in a file of its own.
fn flipped(folder: &Path, text: &str) -> Vec<PathBuf> {
    let flip = |at: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] ^= 1 << (at % 8);
        write(folder, &format!("flipped-{at}"), bytes)
    };
    (0..text.len()).map(flip).collect()
}

#[test]
fn proof_files_are_taken_and_altered_ones_refused() {
    let (folder, log) = (tempfile::tempdir().unwrap(), site_log());
    let folder = folder.path();
    let plain = write(folder, "plain", policy(log.identity(), false).to_text());
    let strict = write(folder, "strict", policy(log.identity(), true).to_text());
    let (plain, strict) = (
        [Path::new("--policy"), &plain, Path::new("proof")],
        [Path::new("--policy"), &strict, Path::new("proof")],
    );
    let proofs = |count: usize| -> Vec<PathBuf> {
        let indexes =
            (0..LEAVES).filter(|index| *index < 24 || index % 41 == 0 || *index > LEAVES - 4);
        let text = |index| {
            let proof = log.prove(index).unwrap().to_text();
            let (head, note) = proof.split_once("\n\n").unwrap();
            format!("{head}\n\n{}", cosigned(note, count))
        };
        indexes.map(|index| write(folder, &format!("{count}-{index}"), text(index))).collect()
    };
    let (bare, full) = (proofs(0), proofs(4));
    all_ok(&plain, &bare);
    all_ok(&plain, &full);
    all_ok(&strict, &full);
    all_refused(&strict, &bare);
    all_refused(&strict, &proofs(3));

    let text = fs::read_to_string(&full[3]).unwrap();
    all_refused(&strict, &flipped(folder, &text));
    // Signed by whoever has no place in the policy.
    let stranger = Identity::generate(identity().origin(), [7; 32]).unwrap();
    let other = write(folder, "other", policy(&stranger, false).to_text());
    all_refused(&[Path::new("--policy"), &other, Path::new("proof")], &bare);
    let own = fs::read_to_string(&bare[3]).unwrap();
    let next = log.prove(4).unwrap().to_text();
    let swapped = [
        own.lines()
            .nth(1)
            .map(|extra| next.replacen(next.lines().nth(1).unwrap(), extra, 1))
            .unwrap(),
        own.replacen("index 3\n", "index 4\n", 1),
        own.replacen("index 3\n", "index 03\n", 1),
        own.replacen("index 3\n", &format!("index {LEAVES}\n"), 1),
        own.replace('\n', "\r\n"),
    ];
    let swapped: Vec<PathBuf> = (0..)
        .zip(&swapped)
        .map(|(n, text)| {
            assert_ne!(*text, own);
            write(folder, &format!("swapped-{n}"), text)
        })
        .collect();
    all_refused(&plain, &swapped);
}

/// Every path of tlog-tiles that a log of this size has.
fn paths(size: u64) -> Vec<String> {
    let widths = |count: u64| {
        let full = (0..count / 256).map(|index| format!("{index:03}"));
        let part =
            (!count.is_multiple_of(256)).then(|| format!("{:03}.p/{}", count / 256, count % 256));
        full.chain(part).collect::<Vec<_>>()
    };
    let mut paths = vec!["checkpoint".to_owned()];
    paths.extend(widths(size).iter().map(|place| format!("tile/entries/{place}")));
    let (mut count, mut level) = (size, 0);
    while count > 0 {
        paths.extend(widths(count).iter().map(|place| format!("tile/{level}/{place}")));
        (count, level) = (count / 256, level + 1);
    }
    paths
}

/// What is done to a file.
type Alter<'a> = &'a dyn Fn(&mut Vec<u8>);

/// Takes a folder of tiles and refuses each copy in which one file is altered, cut or gone.
fn tiles_are_taken_and_altered_ones_refused(
    folder: &Path,
    policy: &Path,
    resources: &[(String, Vec<u8>)],
) {
    let arguments = [Path::new("--policy"), policy, Path::new("tiles")];
    let copy = |name: &str, altered: Option<(&str, Alter<'_>)>| {
        let folder = folder.join(name);
        for (path, bytes) in resources {
            let mut bytes = bytes.clone();
            match altered {
                Some((own, alter)) if own == path => alter(&mut bytes),
                _ => {}
            }
            write(&folder, path, bytes);
        }
        folder
    };
    all_ok(&arguments, &[copy("good", None)]);
    let mut altered = Vec::new();
    for (n, (path, bytes)) in resources.iter().enumerate() {
        for at in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1;
            altered.push(copy(&format!("flipped-{n}-{at}"), Some((path, &flip))));
        }
        let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
        altered.push(copy(&format!("cut-{n}"), Some((path, &cut))));
        let gone = copy(&format!("gone-{n}"), None);
        fs::remove_file(gone.join(path)).unwrap();
        altered.push(gone);
    }
    all_refused(&arguments, &altered);
}

#[test]
fn tiles_of_a_site_log_are_taken_and_altered_ones_refused() {
    let (folder, log) = (tempfile::tempdir().unwrap(), site_log());
    let policy = write(folder.path(), "policy", policy(log.identity(), false).to_text());
    let resources: Vec<(String, Vec<u8>)> = paths(LEAVES)
        .into_iter()
        .map(|path| {
            let bytes = log.resource(&path).unwrap().expect(&path);
            (path, bytes)
        })
        .collect();
    assert_eq!(resources.len(), 6, "a checkpoint, two bundles, two tiles and one above");
    tiles_are_taken_and_altered_ones_refused(folder.path(), &policy, &resources);
}

#[test]
fn the_consortium_log_is_taken_and_altered_copies_refused() {
    use crate::consortium::Sequencer;
    use crate::store::RedbStore;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let log = || Identity::generate("consortium.example/log", [1; 32]).unwrap();
    let member = Identity::generate("m.example", [2; 32]).unwrap();
    let db = memory();
    let tiles = Tiles::open(db.clone(), log().vkey().clone()).unwrap();
    let entries: Vec<Entry> = (0..LEAVES)
        .map(|n| {
            let body = serde_json::json!({ "n": n });
            Entry::sign(EntryKind::Ballot, "consortium.example/log", &body, &[&member]).unwrap()
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let checkpoint = runtime.block_on(async {
        let store = RedbStore::open(db.clone()).unwrap();
        let mut sequencer =
            Sequencer::open(store, tiles.clone(), log(), "node-1", entries[0].as_bytes())
                .await
                .unwrap();
        let bytes: Vec<&[u8]> = entries[1..].iter().map(Entry::as_bytes).collect();
        sequencer.append(&bytes).await.unwrap().checkpoint
    });
    let note = cosigned(checkpoint.note(), 4);
    policy(&log(), true).check(note.as_bytes()).unwrap();
    tiles.publish(&note).unwrap();

    let strict = write(folder, "policy", policy(&log(), true).to_text());
    let resources: Vec<(String, Vec<u8>)> = paths(LEAVES)
        .into_iter()
        .map(|path| {
            let bytes = tiles.resource(&path).unwrap().expect(&path);
            (path, bytes)
        })
        .collect();
    tiles_are_taken_and_altered_ones_refused(folder, &strict, &resources);

    for index in [0, 255, 256, LEAVES - 1] {
        let path = tiles.inclusion(LEAVES, index).unwrap();
        let entry = entries[index as usize].as_bytes();
        assert!(included(&path, LEAVES, checkpoint.root(), index, entry));
        let text =
            crate::plain_proof::PlainProof { index, path, checkpoint: note.clone() }.to_text();
        let proof = write(folder, &format!("proof-{index}"), &text);
        let given = |entry: &[u8]| write(folder, "entry", entry);
        let ask = |entry: &PathBuf| {
            [
                PathBuf::from("--policy"),
                strict.clone(),
                PathBuf::from("--entry"),
                entry.clone(),
                PathBuf::from("proof"),
            ]
        };
        let of = |entry: &[u8]| ask(&given(entry));
        let asked = of(entry);
        let asked: Vec<&Path> = asked.iter().map(PathBuf::as_path).collect();
        all_ok(&asked, std::slice::from_ref(&proof));
        if index == 256 {
            all_refused(&asked, &flipped(folder, &text));
        }
        let mut other = entry.to_vec();
        other[70] ^= 1;
        given(&other);
        all_refused(&asked, &[proof]);
    }
}
