use super::*;
use crate::checkpoint::SignedCheckpoint;
use crate::evidence::{Evidence, EvidenceKind};
use crate::fixtures::{Hashes, hashes_of};
use haar_identity::Identity;
use proptest::prelude::*;
use std::sync::Mutex;

fn log() -> Identity {
    Identity::generate("log.example", [1; 32]).unwrap()
}

fn witness() -> Witness {
    over(crate::fixtures::memory())
}

fn over(db: Arc<Database>) -> Witness {
    of(db, vec![log().vkey().clone()])
}

fn of(db: Arc<Database>, logs: Vec<VerifierKey>) -> Witness {
    let cosigner = Cosigner::generate("w.example", [6; 32]).unwrap();
    Witness::open(db, cosigner, logs).unwrap()
}

/// A request from size `old` to `new` of the log whose leaf `i` is `salt` and `i`.
fn request(old: u64, new: u64, salt: &str) -> AddCheckpoint {
    request_of(old, new, &hashes_of(new, salt))
}

fn request_of(old: u64, new: u64, hashes: &Hashes) -> AddCheckpoint {
    let root = tlog_tiles::tree_hash(new, hashes).unwrap();
    let proof = if old == 0 || old == new {
        Vec::new()
    } else {
        let proof = tlog_tiles::prove_tree(new, old, hashes).unwrap();
        proof.into_iter().map(|hash| hash.0).collect()
    };
    let checkpoint = SignedCheckpoint::sign(&log(), new, root.0).unwrap().note().to_owned();
    AddCheckpoint { old_size: old, proof, checkpoint }
}

fn ask(witness: &Witness, request: &AddCheckpoint) -> Result<String, u16> {
    witness.add_checkpoint(request.to_text().as_bytes(), 1_000).map_err(|error| error.status())
}

fn evidence_of(seen: &Inconsistent) -> Evidence {
    let remembered = seen.remembered.as_ref().unwrap_or(&seen.offered);
    let by = Identity::generate("a.example", [9; 32]).unwrap();
    Evidence::of_checkpoints(log().vkey(), remembered, &seen.offered, Some(&by)).unwrap()
}

#[test]
fn what_follows_is_cosigned_and_remembered() {
    let witness = witness();
    let mut old = 0;
    for new in [1, 2, 3, 3, 8, 13, 300] {
        let request = request(old, new, "");
        let line = ask(&witness, &request).unwrap();
        let note = format!("{}{line}", request.checkpoint);
        assert_eq!(witness.cosigner().vkey().verify(&note), Ok(Some(1_000)));
        assert_eq!(witness.latest("log.example").unwrap().unwrap(), note);
        old = new;
    }
}

#[test]
fn what_does_not_follow_is_refused() {
    let witness = witness();
    ask(&witness, &request(0, 5, "")).unwrap();
    assert_eq!(ask(&witness, &request(0, 9, "")), Err(409));
    assert_eq!(ask(&witness, &request(4, 9, "")), Err(409));
    assert_eq!(ask(&witness, &request(3, 4, "")), Err(409), "a rollback");
    assert_eq!(ask(&witness, &request(5, 9, "fork")), Err(422));
    assert_eq!(ask(&witness, &request(5, 5, "fork")), Err(422));
    assert_eq!(ask(&witness, &AddCheckpoint { old_size: 10, ..request(5, 9, "") }), Err(400));
    let proof = vec![[0; 32]];
    assert_eq!(ask(&witness, &AddCheckpoint { proof, ..request(5, 5, "") }), Err(422));
    let other = request(5, 9, "").checkpoint.replace("log.example\n9", "other.example\n9");
    assert_eq!(ask(&witness, &AddCheckpoint { checkpoint: other, ..request(5, 9, "") }), Err(404));
    let altered = request(5, 9, "").checkpoint.replace("\n9\n", "\n10\n");
    assert_eq!(
        ask(&witness, &AddCheckpoint { checkpoint: altered, ..request(5, 9, "") }),
        Err(403)
    );
    assert_eq!(ask(&witness, &request(5, 9, "")).map(|_| ()), Ok(()), "and is not spoilt by it");
}

#[test]
fn two_roots_of_one_size_are_given_back_as_proof() {
    let witness = witness();
    ask(&witness, &request(0, 5, "")).unwrap();
    let offered = request(5, 5, "fork");
    let error = witness.add_checkpoint(offered.to_text().as_bytes(), 1_000).unwrap_err();
    let AddCheckpointError::Inconsistent(proof) = error else { panic!("{error}") };
    assert!(proof.fork && proof.offered == offered.checkpoint);
    assert!(proof.remembered.unwrap().starts_with("log.example\n5\n"));
}

fn note(log: &Identity, size: u64, root: [u8; 32]) -> String {
    SignedCheckpoint::sign(log, size, root).unwrap().note().to_owned()
}

/// C2SP tlog-witness, "add-checkpoint": each status in the order of the specification.
#[test]
fn every_status_of_the_specification() {
    let witness = witness();
    ask(&witness, &request(0, 5, "")).unwrap();
    let good = request(5, 9, "");
    let with = |checkpoint: String| AddCheckpoint { checkpoint, ..good.clone() };
    let (text, line) = good.checkpoint.split_once("\n\n").unwrap();
    let stranger = Identity::generate("log.example", [2; 32]).unwrap();
    let other = Identity::generate("other.example", [1; 32]).unwrap();
    let cases = [
        (404, "unknown origin", with(note(&other, 9, [1; 32]))),
        (403, "no signature of a trusted key", with(note(&stranger, 9, [1; 32]))),
        (
            403,
            "a trusted key's line that does not fit",
            with(good.checkpoint.replace("\n9\n", "\n8\n")),
        ),
        (403, "one that fits and one that does not", {
            let mut bytes =
                haar_identity::base64::decode(line.trim().split(' ').nth(2).unwrap()).unwrap();
            bytes[40] ^= 1;
            let broken = format!("— log.example {}\n", haar_identity::base64::encode(&bytes));
            with(format!("{text}\n\n{line}{broken}"))
        }),
        (400, "old size above the checkpoint's", AddCheckpoint { old_size: 10, ..good.clone() }),
        (409, "old size that is not remembered", AddCheckpoint { old_size: 4, ..good.clone() }),
        (
            409,
            "old size zero, to be told",
            AddCheckpoint { old_size: 0, proof: vec![], ..good.clone() },
        ),
        (409, "another root, asked from the wrong size", request(0, 5, "fork")),
        (422, "another root of the remembered size", request(5, 5, "fork")),
        (
            422,
            "a proof that does not hold",
            AddCheckpoint { proof: vec![[1; 32]; 3], ..good.clone() },
        ),
        (422, "no proof", AddCheckpoint { proof: vec![], ..good.clone() }),
        (422, "a proof with one hash more", {
            let mut proof = good.proof.clone();
            proof.push([0; 32]);
            AddCheckpoint { proof, ..good.clone() }
        }),
        (
            422,
            "a proof from a size to itself",
            AddCheckpoint { proof: vec![[0; 32]], ..request(5, 5, "") },
        ),
        (422, "sizes that no proof reaches", with(note(&log(), u64::MAX, [1; 32]))),
        (422, "sizes that no proof reaches", with(note(&log(), (1 << 63) + 1, [1; 32]))),
    ];
    for (status, why, request) in cases {
        assert_eq!(ask(&witness, &request), Err(status), "{why}");
    }
    let text = good.to_text();
    for malformed in [
        String::new(),
        text.replace("old 5", "old 05"),
        text.replace("old 5", "old +5"),
        text.replace("old 5", "old  5"),
        text.replace("old 5\n", ""),
        text.replace('\n', "\r\n"),
        text.replacen("=\n", "\n", 1),
        AddCheckpoint { proof: vec![[0; 32]; MAX_PROOF_LINES + 1], ..good.clone() }.to_text(),
        format!("{text}{}", "x".repeat(MAX_REQUEST_BYTES)),
    ] {
        let refused = witness.add_checkpoint(malformed.as_bytes(), 1_000).unwrap_err();
        assert_eq!(refused.status(), 400, "{}", malformed.get(..80).unwrap_or(&malformed));
    }
    for now_s in [0, 1 << 63] {
        let refused = witness.add_checkpoint(text.as_bytes(), now_s).unwrap_err();
        assert!(matches!(refused, AddCheckpointError::Clock), "{refused}");
    }
    assert!(ask(&witness, &good).is_ok(), "and nothing of it has spoilt the witness");
}

#[test]
fn an_empty_tree_has_one_root() {
    let own = witness();
    let empty =
        |root| AddCheckpoint { old_size: 0, proof: vec![], checkpoint: note(&log(), 0, root) };
    let error = own.add_checkpoint(empty([1; 32]).to_text().as_bytes(), 1_000).unwrap_err();
    assert_eq!(error.status(), 422);
    let proof = evidence_of(error.evidence().unwrap());
    assert!(proof.is_proof());
    assert!(ask(&own, &empty(tlog_tiles::EMPTY_HASH.0)).is_ok());
    // A proof where none belongs is the asker's mistake and no evidence against the log.
    let asked = AddCheckpoint { proof: vec![[1; 32]], ..request(0, 5, "") };
    let error = own.add_checkpoint(asked.to_text().as_bytes(), 1_000).unwrap_err();
    assert!(error.status() == 422 && error.evidence().is_none());
    assert!(ask(&own, &request(0, 5, "")).is_ok());
}

/// Anybody can append signature lines to a log's checkpoint; what is remembered must stay readable.
#[test]
fn lines_that_others_append_do_not_close_the_witness() {
    let witness = witness();
    let junk =
        |n: u64| format!("— s{n}.example {}\n", haar_identity::base64::encode(&[n as u8; 300]));
    for (old, new) in [(0, 5), (5, 9), (9, 9), (9, 12)] {
        let mut request = request(old, new, "");
        let plain = request.checkpoint.clone();
        request.checkpoint.extend((0..99).map(junk));
        let line = ask(&witness, &request).unwrap();
        assert_eq!(witness.latest("log.example").unwrap(), Some(format!("{plain}{line}")));
    }
}

#[test]
fn any_key_of_a_log_may_sign_and_none_of_another() {
    let db = crate::fixtures::memory();
    let witness = over(db.clone());
    let newer = Identity::generate("log.example", [2; 32]).unwrap();
    ask(&witness, &request(0, 5, "")).unwrap();
    let root = tlog_tiles::tree_hash(9, &hashes_of(9, "")).unwrap().0;
    let rotated = AddCheckpoint { checkpoint: note(&newer, 9, root), ..request(5, 9, "") };
    assert_eq!(ask(&witness, &rotated), Err(403));
    let witness = of(db, vec![log().vkey().clone(), newer.vkey().clone()]);
    assert!(ask(&witness, &rotated).is_ok());
    // What the older key signs afterwards is held to the same history.
    assert_eq!(ask(&witness, &request(9, 9, "fork")), Err(422));
    assert!(ask(&witness, &request(9, 9, "")).is_ok());
}

/// At every size the operator tries to fork, to roll back and to go on from the fork; at every size the honest
/// log goes on.
#[test]
fn forks_at_every_size_to_1024_are_refused_and_proven() {
    const SIZES: u64 = 1_024;
    let (honest, fork) = (hashes_of(SIZES + 1, ""), hashes_of(SIZES + 1, "fork"));
    let witness = witness();
    for size in 1..=SIZES {
        ask(&witness, &request_of(size - 1, size, &honest)).unwrap();
        let remembered = witness.latest("log.example").unwrap();
        for (status, request) in [
            (422, request_of(size, size, &fork)),
            (409, request_of(0, size, &fork)),
            (422, request_of(size, size + 1, &fork)),
            (409, request_of(size - 1, size - 1, &honest)),
            (409, request_of(size - 1, size, &honest)),
            (400, AddCheckpoint { old_size: size + 1, ..request_of(size, size, &honest) }),
            (409, request_of(size + 1, size + 1, &honest)),
        ] {
            let error = witness.add_checkpoint(request.to_text().as_bytes(), 1_000).unwrap_err();
            assert_eq!(error.status(), status, "size {size}, old {}", request.old_size);
            let forked = request.checkpoint == request_of(size, size, &fork).checkpoint;
            let evidence = error.evidence().map(|seen| evidence_of(seen).to_text());
            match evidence.map(|text| Evidence::parse(&text).unwrap()) {
                Some(proof) if forked => {
                    assert_eq!((proof.kind(), proof.is_proof()), (EvidenceKind::Fork, true));
                }
                Some(told) => assert_eq!((told.kind(), status), (EvidenceKind::Rewritten, 422)),
                None => assert!(!forked && status != 422, "size {size}"),
            }
        }
        assert_eq!(witness.latest("log.example").unwrap(), remembered);
    }
}

#[test]
fn of_two_histories_at_once_one_is_cosigned() {
    const ROUNDS: u64 = 200;
    let (one, two) = (hashes_of(ROUNDS + 1, ""), hashes_of(ROUNDS + 1, "fork"));
    for round in 1..=ROUNDS {
        let (witness, start) = (witness(), std::sync::Barrier::new(2));
        let cosigned = std::thread::scope(|scope| {
            let asks = [&one, &two].map(|hashes| {
                let (witness, start) = (&witness, &start);
                scope.spawn(move || {
                    let request = request_of(0, round, hashes);
                    start.wait();
                    ask(witness, &request).is_ok()
                })
            });
            asks.map(|ask| ask.join().unwrap())
        });
        assert_eq!(cosigned.iter().filter(|cosigned| **cosigned).count(), 1, "round {round}");
    }
}

/// A disk that fails at a given operation and never works again.
#[derive(Debug, Default)]
struct Disk {
    seen: Vec<u8>,
    /// What was there at the last sync.
    synced: Vec<u8>,
    /// Writes since then.
    written: Vec<(u64, Vec<u8>)>,
    operations: u64,
    fails_at: Option<u64>,
}

impl Disk {
    fn operate(&mut self) -> Result<(), std::io::Error> {
        self.operations += 1;
        if self.fails_at.is_some_and(|fails_at| self.operations > fails_at) {
            return Err(std::io::Error::other("the disk is gone"));
        }
        Ok(())
    }

    /// What is on the platters after a power cut: of the writes that were not synced any, in sectors of which any may
    /// be missing. `chance` 0 keeps none and 1 all; every other number is another mixture.
    fn after_cut(&self, chance: u64) -> Vec<u8> {
        const SECTOR: usize = 512;
        let mut image = self.synced.clone();
        for (place, (offset, bytes)) in self.written.iter().enumerate() {
            for (sector, part) in bytes.chunks(SECTOR).enumerate() {
                let seed = [chance, place as u64, sector as u64].map(u64::to_be_bytes).concat();
                let kept = match chance {
                    0 | 1 => chance == 1,
                    _ => tlog_tiles::record_hash(&seed).0[0].is_multiple_of(2),
                };
                let start = *offset as usize + sector * SECTOR;
                let end = start + part.len();
                if kept {
                    image.resize(image.len().max(end), 0);
                    image[start..end].copy_from_slice(part);
                }
            }
        }
        image.resize(image.len().max(self.seen.len()), 0);
        image
    }
}

#[derive(Clone, Debug, Default)]
struct Backend(Arc<Mutex<Disk>>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let disk = self.0.lock().unwrap();
        out.copy_from_slice(&disk.seen[offset as usize..offset as usize + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        let mut disk = self.0.lock().unwrap();
        disk.operate()?;
        disk.seen.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        let mut disk = self.0.lock().unwrap();
        disk.operate()?;
        disk.synced = disk.seen.clone();
        disk.written.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let mut disk = self.0.lock().unwrap();
        // The write that fails may still have reached the disk in part.
        disk.written.push((offset, data.to_vec()));
        disk.operate()?;
        let end = offset as usize + data.len();
        disk.seen[offset as usize..end].copy_from_slice(data);
        Ok(())
    }
}

fn on(backend: Backend) -> Witness {
    over(Arc::new(Database::builder().create_with_backend(backend).unwrap()))
}

/// The disk fails at each operation of each of some cosignings, and of what was not synced this or that survives.
#[test]
fn nothing_is_cosigned_that_is_not_remembered_after_a_power_cut() {
    const CHANCES: u64 = 24;
    let (mut failed, mut cuts) = (0, 0);
    for (before, old, new) in [(&[0, 5][..], 5, 9), (&[0, 5, 9, 40], 40, 41), (&[0, 3], 3, 3)] {
        for at in 0.. {
            let backend = Backend::default();
            let own = on(backend.clone());
            for step in before.windows(2) {
                ask(&own, &request(step[0], step[1], "")).unwrap();
            }
            {
                let mut disk = backend.0.lock().unwrap();
                disk.fails_at = Some(disk.operations + at);
            }
            let cosigned = own.add_checkpoint(request(old, new, "").to_text().as_bytes(), 1_001);
            if let Err(error) = &cosigned {
                assert_eq!(error.status(), 500);
                failed += 1;
            }
            for chance in 0..CHANCES {
                let image = backend.0.lock().unwrap().after_cut(chance);
                assert_remembers(image, (old, new), cosigned.is_ok());
                cuts += 1;
            }
            // One that the disk let pass to its end.
            if cosigned.is_ok() {
                break;
            }
        }
    }
    println!("{failed} failures of the disk, {cuts} power cuts");
    assert!(failed >= 9 && cuts >= CHANCES * 12, "{failed} failures, {cuts} cuts");
}

/// A witness with this disk remembers the new size if it cosigned it, else that or the old one; and holds to it.
fn assert_remembers(image: Vec<u8>, (old, new): (u64, u64), cosigned: bool) {
    let disk = Disk { seen: image.clone(), synced: image, ..Disk::default() };
    let again = on(Backend(Arc::new(Mutex::new(disk))));
    let latest = again.latest("log.example").unwrap().unwrap();
    let size = Head::open_stored(&latest).unwrap().size;
    assert!(size == new || size == old && !cosigned, "{old} to {new}: {size}");
    let time = again.cosigner().vkey().verify(&latest).unwrap();
    assert!(time == Some(1_001) || time == Some(1_000) && !cosigned);
    assert_eq!(ask(&again, &request(size, size, "fork")), Err(422));
    assert!(ask(&again, &request(size, 50, "")).is_ok());
}

#[test]
fn a_restarted_witness_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("witness.redb");
    for (old, new) in [(0, 5), (5, 5), (5, 9), (9, 40)] {
        let own = over(Arc::new(Database::create(&path).unwrap()));
        assert_eq!(ask(&own, &request(old + 1, new + 1, "")), Err(409));
        if old > 0 {
            assert_eq!(ask(&own, &request(old, old, "fork")), Err(422));
        }
        ask(&own, &request(old, new, "")).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn requests_have_one_form(old_size: u64, proof in prop::collection::vec(any::<[u8; 32]>(), 0..=63), tail in "[ -~\n—]{0,80}") {
        let request = AddCheckpoint { old_size, proof, checkpoint: tail };
        let parsed = AddCheckpoint::parse(request.to_text().as_bytes());
        prop_assert_eq!(parsed, Ok(request));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, head in "(old [0-9]{0,21}\n)?([A-Za-z0-9+/=]{0,46}\n){0,3}\n?") {
        for bytes in [bytes.clone(), [head.into_bytes(), bytes].concat()] {
            if let Ok(request) = AddCheckpoint::parse(&bytes) {
                prop_assert_eq!(request.to_text().into_bytes(), bytes);
            }
        }
    }

    /// Whatever is done to the bytes of a good request, what is cosigned is a checkpoint that the log signed.
    #[test]
    fn a_spoilt_request_gets_no_other_cosignature(at: prop::sample::Index, with: u8, cut: bool) {
        let witness = witness();
        ask(&witness, &request(0, 5, "")).unwrap();
        let good = request(5, 9, "");
        let mut bytes = good.to_text().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = with }
        if let Ok(line) = witness.add_checkpoint(&bytes, 1_000) {
            let note = format!("{}{line}", good.checkpoint);
            prop_assert_eq!(witness.cosigner().vkey().verify(&note), Ok(Some(1_000)));
        }
    }
}
