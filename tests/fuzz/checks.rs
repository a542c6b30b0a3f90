//! What must hold of any bytes that come from outside a ledger: one function a format, for the fuzzer and for the tests alike.
//!
//! Each takes bytes, must not panic, and asserts what the format promises: what is read is written as the same bytes (one text for one
//! thing), and nothing counts that the keys of [`Fixture`] did not sign. [`seeds`] are real objects, made deterministically; they are where a
//! fuzzer begins.
//!
//! `tests/fuzz_replay.rs` runs every file of `corpus/` through these on stable Rust. To fuzz: `cd tests/fuzz && cargo +nightly fuzz run policy --sanitizer none`.

use haar_ledger::consent::{
    DataKind, Grant, Grantee, GranteeRole, Interval, Purpose, Scope, SignedRequest,
    SignedStatement, Statement, grant_from_fhir, grant_to_fhir, patient_key_name,
};
use haar_ledger::consortium::{decode_entries, fsck_folder};
use haar_ledger::evidence::Evidence;
use haar_ledger::governance::{
    CommitmentBody, Digest, Genesis, Hex, KeyBody, Member, Operator, Quorums, Role, State,
};
use haar_ledger::{
    AddCheckpoint, Cosigner, Entry, EntryKind, Identity, LeafKind, PlainProof, Policy, ProofFile,
    Record, SignedCheckpoint, SiteLog, Trust, Witness, leaf, prove_entry, verify, verify_entry,
    verify_leaf,
};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// A format's name, and what must hold of it; it says whether the bytes were read as what they are to be.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All of them; a folder of the corpus each.
pub const TARGETS: [Target; 12] = [
    ("add_checkpoint", add_checkpoint),
    ("bundle", bundle),
    ("checkpoint", checkpoint),
    ("consistency", consistency),
    ("cosigned", cosigned),
    ("evidence", evidence),
    ("fhir_consent", fhir_consent),
    ("policy", policy),
    ("proof", proof),
    ("request", request),
    ("submit", submit),
    ("tile", tile),
];

/// Runs the check of this name.
pub fn check(name: &str, bytes: &[u8]) -> bool {
    let own = TARGETS.iter().find(|(own, _)| *own == name);
    let (_, check) = own.unwrap_or_else(|| panic!("there is no check of {name}"));
    check(bytes)
}

const ORIGIN: &str = "consortium.example/log";
const SITE: &str = "fog.example/site";
const SUBJECT: &str = "07070707070707070707070707070707";
const NOW_S: u64 = 1_790_000_000;
/// Where the commitment is in the log.
const COMMITMENT: u64 = 3;

/// Parties with fixed keys, and what they have signed.
pub struct Fixture {
    log: Identity,
    member: Identity,
    site: Identity,
    patient: Identity,
    witness: Cosigner,
    policy: Policy,
    state: State,
    entries: Vec<Entry>,
    /// Texts of all checkpoints that the log signed.
    signed: BTreeSet<String>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::new);

/// What the fixture's site has proven of its own log.
static PROOFS: LazyLock<BTreeSet<String>> = LazyLock::new(|| site_proofs(identity(SITE, 3)).into());

/// The evidence that the fixture's member has signed.
static SAID: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let texts = seeds().into_iter().filter(|(target, _, _)| *target == "evidence");
    texts.filter_map(|(_, _, bytes)| String::from_utf8(bytes).ok()).collect()
});

impl Fixture {
    fn new() -> Self {
        let (log, member) = (identity(ORIGIN, 1), identity("a.example", 2));
        let (site, patient) = (identity(SITE, 3), identity(&patient_key_name(SUBJECT), 4));
        let witness = Cosigner::generate("a.example/witness", [5; 32]).unwrap();
        let genesis = Genesis {
            consortium: "fuzz".to_owned(),
            operator: Operator {
                name: "a.example".parse().unwrap(),
                log: log.vkey().into(),
                url: "https://a.example".parse().unwrap(),
            },
            members: vec![Member {
                name: "a.example".parse().unwrap(),
                key: member.vkey().into(),
                cosigners: vec![witness.vkey().as_str().parse().unwrap()],
                url: "https://a.example".parse().unwrap(),
                admission: Digest::of(b"a"),
            }],
            quorums: Quorums::default(),
            policy_bundle: Digest::of(b""),
            predecessor: None,
        };
        let genesis = Entry::sign(EntryKind::Genesis, ORIGIN, &genesis, &[&member]).unwrap();
        let mut state = State::genesis(&genesis).unwrap();
        let mut entries = vec![genesis];
        for (key, role) in [(&site, Role::Fog), (&patient, Role::Patient)] {
            let body = KeyBody::Register { key: key.vkey().into(), role };
            let entry = Entry::sign(EntryKind::Key, ORIGIN, &body, &[&member, key]).unwrap();
            state.append(&entry).unwrap();
            entries.push(entry);
        }
        let body = CommitmentBody {
            site: SITE.to_owned(),
            index: 7,
            leaf: Hex(leaf(LeafKind::FlaggedEvent, &[1; 32], b"{}", &[2; 32])),
        };
        entries.push(Entry::sign(EntryKind::Commitment, ORIGIN, &body, &[&site]).unwrap());
        let policy = state.policy_text(None).parse().unwrap();
        let mut signed: BTreeSet<String> =
            [(7, 1), (7, 2), (9, 3)].map(|(size, root)| checkpoint_text(size, [root; 32])).into();
        signed.insert(checkpoint_text(4, tree(&entries).0));
        Self { log, member, site, patient, witness, policy, state, entries, signed }
    }

    /// What a witness is asked: to remember two entries, and to follow from them to all four.
    fn grown(&self) -> (AddCheckpoint, AddCheckpoint) {
        let two = self.note(2, self.root_of_two());
        let (root, path) = tree(&self.entries);
        let first = AddCheckpoint { old_size: 0, proof: vec![], checkpoint: two };
        // RFC 6962, section 2.1.2: of two of four it is the other half.
        let right = node(&leaves(&self.entries)[2..]);
        let proof = vec![right];
        assert_ne!(path[1], right);
        (first, AddCheckpoint { old_size: 2, proof, checkpoint: self.note(4, root) })
    }

    fn root_of_two(&self) -> [u8; 32] {
        node(&leaves(&self.entries)[..2])
    }

    fn note(&self, size: u64, root: [u8; 32]) -> String {
        String::from_utf8(self.log.sign(&checkpoint_text(size, root)).unwrap()).unwrap()
    }
}

/// The RFC 6962 root of four entries, and the path from the last.
fn tree(entries: &[Entry]) -> ([u8; 32], Vec<[u8; 32]>) {
    let leaves = leaves(entries);
    let (left, right) = (node(&leaves[..2]), node(&leaves[2..]));
    (node(&[left, right]), vec![leaves[2], left])
}

fn leaves(entries: &[Entry]) -> Vec<[u8; 32]> {
    let hash = |entry: &Entry| Sha256::digest([&[0], entry.as_bytes()].concat()).into();
    entries.iter().map(hash).collect()
}

fn node(two: &[[u8; 32]]) -> [u8; 32] {
    Sha256::digest([&[1], two.concat().as_slice()].concat()).into()
}

/// Proofs of a record of the site's log: opened, and of the leaf alone.
fn site_proofs(site: Identity) -> [String; 2] {
    let db = redb::Database::builder().create_with_backend(redb::backends::InMemoryBackend::new());
    let db = Arc::new(db.unwrap());
    let log = SiteLog::open(Arc::clone(&db), site).unwrap();
    let record = |name| Record { name, ..record() };
    let tx = db.begin_write().unwrap();
    log.append(&tx, &[record([1; 32]), record([2; 32]), record([3; 32])]).unwrap();
    tx.commit().unwrap();
    let snapshot = log.snapshot().unwrap();
    [snapshot.prove(1).unwrap().to_text(), snapshot.prove_leaf(2).unwrap().to_text()]
}

fn record() -> Record {
    Record { kind: LeafKind::FlaggedEvent, name: [1; 32], key: [2; 32], body: b"{}".to_vec() }
}

fn checkpoint_text(size: u64, root: [u8; 32]) -> String {
    // A request writes hashes as checkpoints do.
    let hash = AddCheckpoint { old_size: 0, proof: vec![root], checkpoint: String::new() };
    let hash = hash.to_text();
    format!("{ORIGIN}\n{size}\n{}\n", hash.lines().nth(1).unwrap_or_default())
}

fn identity(name: &str, seed: u8) -> Identity {
    Identity::generate(name, [seed; 32]).unwrap()
}

/// The text that a note's lines sign.
fn text_of(note: &str) -> String {
    note.rsplit_once("\n\n").map_or_else(String::new, |(text, _)| format!("{text}\n"))
}

fn utf8(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// C2SP tlog-witness.
fn add_checkpoint(bytes: &[u8]) -> bool {
    let Ok(read) = AddCheckpoint::parse(bytes) else { return false };
    assert_eq!(read.to_text().as_bytes(), bytes, "one text for one request");
    true
}

/// C2SP tlog-tiles, entry bundles.
fn bundle(bytes: &[u8]) -> bool {
    let Some(entries) = decode_entries(bytes) else { return false };
    assert_eq!(written(&entries), bytes, "one text for one bundle");
    true
}

/// A bundle of these, each with its length in front.
fn written(entries: &[&[u8]]) -> Vec<u8> {
    let length = |entry: &[u8]| u16::try_from(entry.len()).unwrap().to_be_bytes();
    entries.iter().flat_map(|entry| [&length(entry), *entry].concat()).collect()
}

/// C2SP tlog-checkpoint with one signature.
fn checkpoint(bytes: &[u8]) -> bool {
    let key = std::slice::from_ref(FIXTURE.log.vkey());
    let Ok(read) = SignedCheckpoint::open(bytes, key) else { return false };
    assert_eq!(read.note().as_bytes(), bytes);
    assert!(FIXTURE.signed.contains(&text_of(read.note())), "nobody signed this");
    true
}

/// C2SP tlog-witness, asked of a witness that remembers two entries of the fixture's log: it cosigns the four that are
/// there, and no other tree that the log may have signed.
fn consistency(bytes: &[u8]) -> bool {
    let own = &*FIXTURE;
    let db = redb::Database::builder().create_with_backend(redb::backends::InMemoryBackend::new());
    let cosigner = Cosigner::generate("a.example/witness", [5; 32]).unwrap();
    let logs = vec![own.log.vkey().clone()];
    let witness = Witness::open(Arc::new(db.unwrap()), cosigner, logs).unwrap();
    let (first, _) = own.grown();
    witness.add_checkpoint(first.to_text().as_bytes(), NOW_S).unwrap();
    let Ok(line) = witness.add_checkpoint(bytes, NOW_S) else { return false };
    let asked = AddCheckpoint::parse(bytes).unwrap();
    let honest = [checkpoint_text(2, own.root_of_two()), checkpoint_text(4, tree(&own.entries).0)];
    assert!(honest.contains(&text_of(&asked.checkpoint)), "that does not follow");
    assert_eq!(line, own.witness.cosign(&text_of(&asked.checkpoint), NOW_S));
    true
}

/// C2SP tlog-tiles, a tile of hashes, as it lies in a folder that somebody exported.
fn tile(bytes: &[u8]) -> bool {
    static FOLDER: LazyLock<Mutex<tempfile::TempDir>> =
        LazyLock::new(|| Mutex::new(tempfile::tempdir().unwrap()));
    let own = &*FIXTURE;
    let folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    let write = |path: &str, bytes: &[u8]| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let bundle: Vec<&[u8]> = own.entries.iter().map(Entry::as_bytes).collect();
    write("checkpoint", own.note(4, tree(&own.entries).0).as_bytes());
    write("tile/entries/000.p/4", &written(&bundle));
    write("tile/0/000.p/4", bytes);
    let report = fsck_folder(folder.path(), own.log.vkey(), &mut |_, _| {});
    let is_it = bytes == leaves(&own.entries).concat();
    assert_eq!(report.problems.is_empty(), is_it, "{:?}", report.problems);
    is_it
}

/// The same with cosignatures, under a policy.
fn cosigned(bytes: &[u8]) -> bool {
    let Ok(read) = FIXTURE.policy.check(bytes) else { return false };
    let note = utf8(bytes).unwrap_or_default();
    assert!(FIXTURE.signed.contains(&text_of(note)), "nobody signed this");
    assert!(read.witnesses.iter().all(|(_, time_s)| *time_s == NOW_S), "nor then");
    true
}

fn evidence(bytes: &[u8]) -> bool {
    let Some(text) = utf8(bytes) else { return false };
    let Ok(read) = Evidence::parse(text) else { return false };
    assert_eq!(read.to_text(), text, "one text for one attempt");
    let said = read.is_said_by(FIXTURE.member.vkey());
    assert!(!said || SAID.contains(text), "nobody said this");
    true
}

/// FHIR R4 Consent.
fn fhir_consent(bytes: &[u8]) -> bool {
    let Ok(grant) = grant_from_fhir(bytes) else { return false };
    let written = grant_to_fhir(&grant, "id", NOW_S, true);
    assert_eq!(grant_from_fhir(&written).as_ref(), Ok(&grant), "written and read again");
    true
}

/// C2SP tlog-policy.
fn policy(bytes: &[u8]) -> bool {
    let Some(Ok(read)) = utf8(bytes).map(str::parse::<Policy>) else { return false };
    assert_eq!(read.to_text().parse().as_ref(), Ok(&read), "written and read again");
    // Whatever is asked for, all together are enough, or nobody is.
    assert!(read.is_quorum(|_| true) || !read.is_quorum(|_| false));
    true
}

/// C2SP tlog-proof: of a record, of a leaf and of an entry with what opens it, and the plain one. Those of the fixture lead to
/// signed trees, so that a proof of anything else would be a forgery.
fn proof(bytes: &[u8]) -> bool {
    let Some(text) = utf8(bytes) else { return false };
    if let Ok(read) = ProofFile::parse(text) {
        assert_eq!(read.to_text(), text, "one text for one proof");
    }
    let plain = PlainProof::parse(text);
    if let Ok(read) = &plain {
        assert_eq!(read.to_text(), text, "one text for one proof");
    }
    let keys = [FIXTURE.site.vkey().clone()];
    let record = verify(text, Trust::Pinned(&keys)).is_ok();
    let leaf = verify_leaf(text, Trust::Pinned(&keys)).is_ok();
    assert!(!(record || leaf) || PROOFS.contains(text), "the site proved no such thing");
    let entry = verify_entry(text, &FIXTURE.policy, Trust::Pinned(&keys));
    if let Ok(read) = &entry {
        assert!(read.index == COMMITMENT && read.entry == FIXTURE.entries[3], "nobody signed this");
    }
    plain.is_ok() || record || leaf || entry.is_ok()
}

/// RFC 9421: `Signature-Input` and `Signature`, a line each.
fn request(bytes: &[u8]) -> bool {
    let Some((input, signature)) = utf8(bytes).and_then(|text| text.split_once('\n')) else {
        return false;
    };
    let Ok(read) = SignedRequest::parse(input, signature) else { return false };
    assert!(!read.key_name().is_empty());
    let keys = || std::iter::once(FIXTURE.patient.vkey());
    let mut nonces = haar_ledger::consent::Nonces::default();
    let target = "/v1/access/view";
    let by = read.check("GET", target, SITE, NOW_S, keys(), &mut nonces);
    if by.is_ok() {
        assert!(read.check("GET", target, SITE, NOW_S, keys(), &mut nonces).is_err(), "once only");
    }
    by.is_ok()
}

/// What is handed in: an entry of the log, a statement of a patient.
fn submit(bytes: &[u8]) -> bool {
    let mut state = FIXTURE.state.clone();
    let next = state.next_index();
    let before = state.digest();
    let entry = Entry::parse(bytes);
    match &entry {
        Ok(entry) => {
            assert_eq!(entry.as_bytes(), bytes, "one text for one entry");
            let applied = state.append(entry).is_ok();
            assert_eq!(applied, state.next_index() > next);
            assert_eq!(applied, state.digest() != before, "a refused entry changes nothing");
            if applied {
                let same = FIXTURE.entries.iter().any(|own| own.id() == entry.id());
                assert!(same, "nobody made this entry");
            }
        }
        Err(_) => assert!(state.apply_leaf(next, bytes).is_err()),
    }
    let statement = SignedStatement::open(bytes, SITE, &FIXTURE.state);
    if let Ok(read) = &statement {
        assert_eq!(read.statement().subject().as_str(), SUBJECT);
    }
    entry.is_ok() || statement.is_ok()
}

/// Real objects: a format's name, what it is, and its bytes. The same each time.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let own = &*FIXTURE;
    let (one, two) = (own.note(7, [1; 32]), own.note(7, [2; 32]));
    let (root, path) = tree(&own.entries);
    let whole = own.note(4, root);
    let line = own.witness.cosign(&text_of(&one), NOW_S);
    let fork = Evidence::of_checkpoints(own.log.vkey(), &one, &two, None).unwrap();
    let stale = Evidence::of_stale(own.log.vkey(), &one, NOW_S, &own.member).unwrap();
    let wrong = own.witness.cosign(&text_of(&two), NOW_S);
    let bad = Evidence::of_bad_signature(
        own.log.vkey(),
        &format!("{one}{wrong}"),
        own.witness.vkey().as_str(),
        &own.member,
    )
    .unwrap();
    let grant = Grant {
        subject: SUBJECT.parse().unwrap(),
        grantee: Grantee { role: GranteeRole::Researcher, name: "lab.example".parse().unwrap() },
        kinds: [DataKind::FlaggedEvent, DataKind::Vitals].into(),
        purpose: Purpose::Research,
        period: Interval::new(NOW_S, NOW_S + 1_000).unwrap(),
        data_period: Some(Interval::new(NOW_S, NOW_S + 10).unwrap()),
        scope: Some(Scope::Study("s-1".parse().unwrap())),
    };
    let bundle: Vec<&[u8]> = own.entries.iter().map(Entry::as_bytes).collect();
    let commitment = &own.entries[3];
    let asked =
        AddCheckpoint { old_size: 7, proof: vec![[8; 32], [9; 32]], checkpoint: one.clone() };
    let cosignature = own.witness.cosign(&text_of(&whole), NOW_S);
    let plain = PlainProof { index: COMMITMENT, path, checkpoint: format!("{whole}{cosignature}") };
    let entry_proof = prove_entry(&plain, commitment, own.site.vkey(), Some(&record()));
    let request = haar_ledger::consent::RequestSignature::sign(
        "GET",
        "/v1/access/view",
        SITE,
        NOW_S,
        [6; 16],
        &own.patient,
    );
    let [opened, bare] = site_proofs(identity(SITE, 3));
    let fhir = grant_to_fhir(&grant, "id", NOW_S, true);
    let statement = SignedStatement::sign(&Statement::Grant(grant), SITE, &own.patient).unwrap();
    vec![
        ("add_checkpoint", "from_7", asked.to_text().into_bytes()),
        ("bundle", "four_entries", written(&bundle)),
        ("checkpoint", "of_7", one.clone().into_bytes()),
        ("consistency", "two_to_four", own.grown().1.to_text().into_bytes()),
        ("cosigned", "by_one", format!("{one}{line}").into_bytes()),
        ("evidence", "fork", fork.to_text().into_bytes()),
        ("evidence", "stale", stale.to_text().into_bytes()),
        ("evidence", "bad_signature", bad.to_text().into_bytes()),
        ("fhir_consent", "study", fhir),
        ("policy", "of_one", own.policy.to_text().into_bytes()),
        ("proof", "plain", plain.to_text().into_bytes()),
        ("proof", "entry", entry_proof.to_text().into_bytes()),
        ("proof", "record", opened.into_bytes()),
        ("proof", "leaf", bare.into_bytes()),
        ("request", "view", format!("{}\n{}", request.input, request.signature).into_bytes()),
        ("submit", "commitment", commitment.as_bytes().to_vec()),
        ("submit", "key", own.entries[2].as_bytes().to_vec()),
        ("submit", "grant", statement),
        ("tile", "of_four", leaves(&own.entries).concat()),
    ]
}
