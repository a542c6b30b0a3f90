//! What is published of a ward tells nothing of its patients, and what is stored tells it to nobody without the key.
//!
//! The ward is the one of [`crate::e2e`]: needles are made from what was sent. Tests with members hand in what they hold
//! ([`members_learn_nothing`]).

use crate::e2e::{MONITORED, PATCH_ONLY, RUN};
use crate::ward::{Site, files};
use haar_ledger::privacy::scan::{Needle, Scan};
use haar_ledger::{RecordsKey, Snapshot, Trust, fsck, open_read_only, verify, verify_leaf};
use haar_schema::{SignalId, Subject, WindowDigest};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Leaves in a full tile.
const TILE_WIDTH: u64 = 256;
/// Above these a log of this size has no tiles.
const LEVELS: u8 = 3;

/// Patients, pseudonyms, codes and values: everything that somebody outside must not find.
fn needles() -> Vec<Needle> {
    let patients = MONITORED.into_iter().chain([PATCH_ONLY]);
    let digests = RUN.leaves.digests.iter().map(|(_, digest)| digest);
    let mut needles = needles_of(patients, digests, Needle::number);
    let mut values = BTreeSet::new();
    for ((subject, start), signals) in &RUN.published {
        needles.extend(pseudonym(*subject));
        needles.push(Needle::text(&start.to_string()));
        values.extend(signals.values().flatten().map(|value| value.to_bits()));
    }
    needles.extend(values.into_iter().map(|bits| Needle::number(f64::from_bits(bits))));
    needles
}

/// These texts, the schema's codes, and what the digests say.
fn needles_of<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    digests: impl IntoIterator<Item = &'a WindowDigest>,
    number: impl Fn(f64) -> Needle,
) -> Vec<Needle> {
    let mut all: BTreeSet<String> = texts.into_iter().map(str::to_owned).collect();
    all.extend(SignalId::all().map(|signal| signal.definition().coding.code.to_owned()));
    assert!(all.contains("8867-4"), "the schema names LOINC codes: {all:?}");
    let mut needles: BTreeSet<Needle> = all.iter().map(|text| Needle::text(text)).collect();
    for digest in digests {
        needles.extend(pseudonym(digest.key.subject));
        needles.insert(Needle::text(&digest.inputs.sha256));
        let computed = digest.features.values().filter_map(|feature| feature.get());
        needles.extend(computed.map(&number));
    }
    needles.into_iter().collect()
}

/// Entries of the members' log are JSON, in which indices and sizes are whole numbers: of a value that is one, only what its float looks like
/// is looked for.
fn number_among_indices(value: f64) -> Needle {
    match value.fract() == 0.0 {
        // Eight zeros say nothing.
        true if value == 0.0 => Needle::bytes("0", &[]),
        true => Needle::bytes(&value.to_string(), &value.to_le_bytes()),
        false => Needle::number(value),
    }
}

fn pseudonym(subject: Subject) -> [Needle; 2] {
    [Needle::bytes("subject", &subject.to_bytes()), Needle::text(&subject.to_hex())]
}

/// None of the needles is in the bytes, and each would be found in them, in each of its spellings.
fn assert_clean(path: &str, bytes: &[u8], needles: &[Needle], scan: &Scan<'_>) {
    let found = scan.find(bytes);
    let labels: Vec<_> = found.iter().map(|found| needles[found.needle].label()).collect();
    assert!(found.is_empty(), "{path}: {labels:?}");
    for (number, needle) in needles.iter().enumerate() {
        for spelling in needle.spellings() {
            let middle = bytes.len() / 2;
            let planted = [&bytes[..middle], spelling, &bytes[middle..]].concat();
            let found = scan.find(&planted[middle.saturating_sub(16)..middle + spelling.len()]);
            let it = found.iter().any(|found| found.needle == number);
            assert!(it, "{} planted in {path} was not found", needle.label());
        }
    }
}

/// What members hold of a hospital tells nothing of its patients: the log of many parties as the mirror, which must have stopped, keeps it,
/// written out as the files that it serves.
pub(crate) fn members_learn_nothing(site: &Site, patients_and_numbers: &[&str]) {
    let exported = Command::new(crate::programs::own("haar-ledger"))
        .args(["export", "--config", "ledger-1.toml", "--out", "scanned"])
        .current_dir(site.path(""))
        .output()
        .unwrap();
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let db = open_read_only(&site.database()).unwrap();
    let key = Arc::new(RecordsKey::load(&site.path("fog/records.key")).unwrap());
    let snapshot = Snapshot::open_with(&db, key).unwrap();
    let digest = |index| WindowDigest::from_json(&snapshot.record(index).unwrap().body).ok();
    let digests: Vec<WindowDigest> = (0..snapshot.size()).filter_map(digest).collect();
    assert!(!digests.is_empty());
    let texts = patients_and_numbers.iter().copied();
    let needles = needles_of(texts, &digests, number_among_indices);
    let scan = Scan::new(&needles);
    let files = files(&site.path("scanned"));
    let mut bytes_read = 0;
    for path in &files {
        let bytes = std::fs::read(path).unwrap();
        bytes_read += bytes.len();
        assert_clean(&path.display().to_string(), &bytes, &needles, &scan);
    }
    assert!(files.len() >= 3, "checkpoint, entries, hashes: {files:?}");
    let (needles, files) = (needles.len(), files.len());
    println!("{needles} needles, {files} files, {bytes_read} bytes of the members' log");
}

/// Everything that is served under `/log/`, with its path.
fn served(snapshot: &Snapshot) -> Vec<(String, Vec<u8>)> {
    let mut paths = vec!["checkpoint".to_owned()];
    let mut width = snapshot.size();
    let whole = |kind: &str, width: u64| -> Vec<String> {
        let full = (0..width / TILE_WIDTH).map(|index| format!("tile/{kind}/{index:03}"));
        let part = (!width.is_multiple_of(TILE_WIDTH))
            .then(|| format!("tile/{kind}/{:03}.p/{}", width / TILE_WIDTH, width % TILE_WIDTH));
        full.chain(part).collect()
    };
    paths.extend(whole("entries", width));
    for level in 0..LEVELS {
        paths.extend(whole(&level.to_string(), width));
        width /= TILE_WIDTH;
    }
    let get = |path: String| {
        let bytes = snapshot.resource(&path).unwrap().unwrap_or_else(|| panic!("{path}"));
        (path, bytes)
    };
    paths.into_iter().map(get).collect()
}

#[test]
fn nothing_that_is_served_tells_anything_of_a_patient() {
    let (_folder, database) = RUN.copy();
    let db = open_read_only(&database).unwrap();
    let served = served(&Snapshot::open(&db).unwrap());
    let needles = needles();
    let scan = Scan::new(&needles);
    let mut bytes_read = 0;
    for (path, bytes) in &served {
        bytes_read += bytes.len();
        assert_clean(path, bytes, &needles, &scan);
    }
    println!("{} needles, {} resources, {bytes_read} bytes", needles.len(), served.len());
}

#[test]
fn nothing_of_a_patient_is_stored_in_clear_in_the_log() {
    const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("site_log.records");
    let (_folder, database) = RUN.copy();
    let db = open_read_only(&database).unwrap();
    let key = Arc::new(RecordsKey::load(&database.with_file_name("records.key")).unwrap());
    let snapshot = Snapshot::open_with(&db, key).unwrap();
    let needles = needles();
    let scan = Scan::new(&needles);
    let table = db.begin_read().unwrap().open_table(RECORDS).unwrap();
    let mut opened = 0;
    for row in table.iter().unwrap() {
        let (index, row) = row.unwrap();
        // Between the name and the nonce is the slot's number, eight bytes that are mostly zero as is the number 0.
        let (name, sealed) = (&row.value()[2..34], &row.value()[42..]);
        for part in [name, sealed] {
            let found = scan.find(part);
            assert!(found.is_empty(), "record {}", index.value());
        }
        opened += scan.find(&snapshot.record(index.value()).unwrap().body).len();
    }
    assert!(opened > 1_000, "what is sealed does hold what is looked for: {opened}");
    println!("{opened} findings in the opened records, none in the sealed ones");
}

#[test]
fn a_patient_is_erased_from_a_stopped_fog() {
    let (folder, database) = RUN.copy();
    std::fs::write(folder.path().join("log.key"), &RUN.log_key).unwrap();
    restrict(&folder.path().join("log.key"));
    let subject = RUN.published.keys().next().unwrap().0;
    let theirs: Vec<u64> = RUN
        .leaves
        .digests
        .iter()
        .filter(|(_, digest)| digest.key.subject == subject)
        .map(|(index, _)| *index)
        .collect();
    assert!(!theirs.is_empty());
    let trust = Trust::Pinned(std::slice::from_ref(&RUN.vkey));
    let before = {
        let db = open_read_only(&database).unwrap();
        let key = Arc::new(RecordsKey::load(&database.with_file_name("records.key")).unwrap());
        Snapshot::open_with(&db, key).unwrap().prove(theirs[0]).unwrap().to_text()
    };
    let dir = folder.path().to_str().unwrap();
    let erased = Command::new(crate::programs::own("haar"))
        .args(["erase", "--data-dir", dir, "--subject", &subject.to_hex(), "--json"])
        .output()
        .unwrap();
    assert!(erased.status.success(), "{}", String::from_utf8_lossy(&erased.stderr));

    let db = open_read_only(&database).unwrap();
    let key = Arc::new(RecordsKey::load(&database.with_file_name("records.key")).unwrap());
    let snapshot = Snapshot::open_with(&db, Arc::clone(&key)).unwrap();
    for index in &theirs {
        let error = snapshot.record(*index).unwrap_err();
        assert!(error.to_string().contains("erased"), "{error}");
        let leaf = snapshot.prove_leaf(*index).unwrap().to_text();
        assert_eq!(verify_leaf(&leaf, trust).unwrap().index, *index);
    }
    assert!(verify(&before, trust).is_ok(), "a proof that was handed out before holds");
    let report = fsck(&db, trust, Some(&key), &mut |_, _| {}).unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    assert!(report.erased >= theirs.len() as u64);
    println!("{} leaves erased of {}, the log is sound", report.erased, report.leaves);
}

fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
