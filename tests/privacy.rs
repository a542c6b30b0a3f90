//! What is published of a ward tells nothing of its patients, and what is stored tells it to nobody without the key.
//!
//! The ward is the one of [`crate::e2e`]: needles are made from what was sent.

use crate::e2e::{MONITORED, PATCH_ONLY, RUN};
use haar_ledger::privacy::scan::{Needle, Scan};
use haar_ledger::{RecordsKey, Snapshot, Trust, fsck, open_read_only, verify, verify_leaf};
use haar_schema::SignalId;
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
    let mut texts: BTreeSet<String> = MONITORED.map(str::to_owned).into();
    texts.insert(PATCH_ONLY.to_owned());
    texts.extend(SignalId::all().map(|signal| signal.definition().coding.code.to_owned()));
    assert!(texts.iter().any(|text| text == "8867-4"), "the schema names LOINC codes: {texts:?}");
    let mut needles: Vec<Needle> = texts.iter().map(|text| Needle::text(text)).collect();
    let mut values = BTreeSet::new();
    for ((subject, start), signals) in &RUN.published {
        needles.push(Needle::bytes("subject", &subject.to_bytes()));
        needles.push(Needle::text(&subject.to_hex()));
        needles.push(Needle::text(&start.to_string()));
        values.extend(signals.values().flatten().map(|value| value.to_bits()));
    }
    for (_, digest) in &RUN.leaves.digests {
        let computed = digest.features.values().filter_map(|feature| feature.get());
        values.extend(computed.map(f64::to_bits));
        needles.push(Needle::text(&digest.inputs.sha256));
    }
    needles.extend(values.into_iter().map(|bits| Needle::number(f64::from_bits(bits))));
    needles
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
        let found = scan.find(bytes);
        let labels: Vec<_> = found.iter().map(|found| needles[found.needle].label()).collect();
        assert!(found.is_empty(), "{path}: {labels:?}");
        // The same bytes with one of the needles in them, each in each of its spellings.
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
