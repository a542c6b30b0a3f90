//! Vectors and logs that others made, against what we use: RFC 6962 trees, consistency proofs, Ed25519, notes.
//!
//! What may not hold is as much part of them as what must.

use crate::checkpoint::Head;
use crate::cosignature::{Cosigner, CosignerKey};
use crate::fixtures::{Hashes, TESSERA_VKEY, folder, hashes_of, memory};
use crate::tree::Edge;
use crate::witness::{AddCheckpoint, Witness};
use ct_merkle::digest::consts::U32;
use ct_merkle::digest::{FixedOutput, HashMarker, Output, OutputSizeUser, Update};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use haar_identity::VerifierKey;
use haar_identity::base64;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use signed_note::Verifier;
use std::convert::Infallible;
use tlog_tiles::Hash;

fn read<T: DeserializeOwned>(path: &str) -> T {
    serde_json::from_slice(&std::fs::read(folder().join(path)).unwrap()).unwrap()
}

/// A vkey of this signature type around a public key.
fn vkey(kind: u8, key: &[u8]) -> String {
    let typed = [&[kind], key].concat();
    let id = signed_note::key_id("a.example", &typed);
    format!("a.example+{id:08x}+{}", base64::encode(&typed))
}

/// Whether a log's key (type 1) and a cosigner's (type 4) take this signature.
fn accepted(key: &[u8], message: &[u8], signature: &[u8]) -> (bool, bool) {
    let log = vkey(1, key).parse::<VerifierKey>();
    let cosigner = vkey(4, key).parse::<CosignerKey>();
    (
        log.is_ok_and(|key| key.note_verifier().verify(message, signature)),
        cosigner.is_ok_and(|key| key.fits(message, signature)),
    )
}

#[test]
fn recorded_wycheproof_ed25519() {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct File {
        number_of_tests: usize,
        test_groups: Vec<Group>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Group {
        public_key: Key,
        tests: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Key {
        pk: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Case {
        tc_id: u32,
        comment: String,
        msg: String,
        sig: String,
        result: String,
    }
    let file: File = read("wycheproof/testvectors_v1/ed25519_test.json");
    let (mut valid, mut invalid) = (0, 0);
    for group in &file.test_groups {
        let key = hex::decode(&group.public_key.pk).unwrap();
        for case in &group.tests {
            let (message, signature) =
                (hex::decode(&case.msg).unwrap(), hex::decode(&case.sig).unwrap());
            let wanted = match case.result.as_str() {
                "valid" => true,
                "invalid" => false,
                other => panic!("{other}"),
            };
            let got = accepted(&key, &message, &signature);
            assert_eq!(got, (wanted, wanted), "{}: {}", case.tc_id, case.comment);
            *(if wanted { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert_eq!((valid, invalid, valid + invalid), (88, 63, file.number_of_tests));
}

/// Edge cases of the curve: keys of small order are refused by both, commitments of small order by cosigners.
#[test]
fn recorded_cctv_ed25519() {
    #[derive(Deserialize)]
    struct Case {
        number: u32,
        key: String,
        sig: String,
        msg: String,
        flags: Option<Vec<String>>,
    }
    let cases: Vec<Case> = read("cctv/ed25519/ed25519vectors.json");
    assert_eq!(cases.len(), 914);
    let (mut by_log, mut by_cosigner) = (0, 0);
    for case in cases {
        let flags = case.flags.unwrap_or_default();
        let has = |flag: &str| flags.iter().any(|own| own == flag);
        let (key, signature) = (hex::decode(&case.key).unwrap(), hex::decode(&case.sig).unwrap());
        let never = has("low_order_A") || has("low_order_residue") || has("non_canonical_R");
        let wanted = (!never, !never && !has("low_order_R"));
        let got = accepted(&key, case.msg.as_bytes(), &signature);
        assert_eq!(got, wanted, "{} {flags:?}", case.number);
        by_log += u32::from(got.0);
        by_cosigner += u32::from(got.1);
    }
    assert!(by_log > by_cosigner && by_cosigner > 30, "{by_log}, {by_cosigner}");
}

#[test]
fn recorded_consistency_proofs() {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Vector {
        size1: u64,
        size2: u64,
        root1: Option<String>,
        root2: Option<String>,
        proof: Option<Vec<String>>,
        desc: String,
        want_err: bool,
    }
    let hash = |text: Option<&str>| Some(Hash(base64::decode_array(text?)?));
    let mut folders = vec![folder().join("merkle/testdata/consistency")];
    let (mut checked, mut good) = (0, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let vector: Vector = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let proof = vector.proof.unwrap_or_default();
            let proof: Option<Vec<_>> = proof.iter().map(|text| hash(Some(text))).collect();
            // Some vectors do not care what the roots are and give other lengths; a checkpoint cannot. One
            // hash stands for such a root then, so that equal ones stay equal.
            let root = |text: Option<&str>| {
                let other = || Some(tlog_tiles::record_hash(text?.as_bytes()));
                hash(text).or_else(other)
            };
            let roots = (root(vector.root1.as_deref()), root(vector.root2.as_deref()));
            // A hash of the wrong length is refused where a request is read.
            let holds = match (proof, roots) {
                (Some(proof), (Some(one), Some(two))) => {
                    tlog_tiles::check_tree(&proof, vector.size2, two, vector.size1, one).is_ok()
                }
                _ => false,
            };
            assert_eq!(holds, !vector.want_err, "{}: {}", path.display(), vector.desc);
            checked += 1;
            good += u32::from(holds);
        }
    }
    assert_eq!(checked, 98);
    assert!(good >= 5, "{good} good proofs");
}

#[test]
fn recorded_rfc6962_hashes() {
    #[derive(Deserialize)]
    struct Vectors {
        leaf_inputs_hex: Vec<String>,
        node_hashes_hex_by_level: Vec<Vec<String>>,
        root_hash_hex_by_size: Vec<String>,
    }
    let vectors: Vectors = read("rfc6962_vectors.json");
    let mut hashes = Hashes(Vec::new());
    let mut edge = Edge::empty();
    assert_eq!(hex::encode(edge.root().unwrap()), vectors.root_hash_hex_by_size[0]);
    for (place, input) in vectors.leaf_inputs_hex.iter().enumerate() {
        let input = hex::decode(input).unwrap();
        let leaf = tlog_tiles::record_hash(&input);
        assert_eq!(hex::encode(leaf.0), vectors.node_hashes_hex_by_level[0][place]);
        let new = tlog_tiles::stored_hashes(place as u64, &input, &hashes).unwrap();
        for (level, hash) in new.iter().enumerate() {
            let at = place >> level;
            assert_eq!(hex::encode(hash.0), vectors.node_hashes_hex_by_level[level][at]);
        }
        hashes.0.extend(new);
        edge.push(leaf, |_, _, _| Ok::<(), Infallible>(())).unwrap();
        let root = tlog_tiles::tree_hash(place as u64 + 1, &hashes).unwrap();
        assert_eq!(hex::encode(root.0), vectors.root_hash_hex_by_size[place + 1]);
        assert_eq!(edge.root().unwrap(), root.0);
    }
    assert_eq!(edge.size(), 8);
}

/// Every pair of sizes of a log that Tessera wrote: our witness follows it, in every step that leads through it.
#[test]
fn recorded_tessera_is_cosigned_from_every_size_to_every_other() {
    let folder = folder().join("tessera/testdata/log");
    let log: VerifierKey = TESSERA_VKEY.parse().unwrap();
    let bundle = std::fs::read(folder.join("tile/entries/000.p/15")).unwrap();
    let mut hashes = Hashes(Vec::new());
    for (index, entry) in (0..).zip(crate::consortium::decode_entries(&bundle).unwrap()) {
        let new = tlog_tiles::stored_hashes(index, entry, &hashes).unwrap();
        hashes.0.extend(new);
    }
    let note =
        |size: u64| std::fs::read_to_string(folder.join(format!("checkpoint.{size}"))).unwrap();
    let mut pairs = 0;
    for new in 0..=15 {
        for old in 0..=new {
            let cosigner = Cosigner::generate("w.example", [6; 32]).unwrap();
            let witness = Witness::open(memory(), cosigner, vec![log.clone()]).unwrap();
            let ask = |old_size, new, proof| {
                let request = AddCheckpoint { old_size, proof, checkpoint: note(new) };
                witness.add_checkpoint(request.to_text().as_bytes(), 1_000).map_err(|e| e.status())
            };
            ask(0, old, vec![]).unwrap();
            let proof = match old {
                0 => vec![],
                old if old == new => vec![],
                old => tlog_tiles::prove_tree(new, old, &hashes).unwrap(),
            };
            let line = ask(old, new, proof.iter().map(|hash| hash.0).collect()).unwrap();
            let cosigned = format!("{}{line}", note(new));
            assert_eq!(witness.cosigner().vkey().verify(&cosigned), Ok(Some(1_000)));
            if !proof.is_empty() {
                assert_eq!(ask(new, old, vec![]), Err(400), "not back again");
            }
            pairs += 1;
        }
    }
    assert_eq!(pairs, 16 * 17 / 2);
}

/// SHA-256 for `ct_merkle`, which wants a newer version of the hash's traits than we have.
#[derive(Clone, Default)]
struct Hasher(Sha256);

impl OutputSizeUser for Hasher {
    type OutputSize = U32;
}

impl HashMarker for Hasher {}

impl Update for Hasher {
    fn update(&mut self, data: &[u8]) {
        Digest::update(&mut self.0, data);
    }
}

impl FixedOutput for Hasher {
    fn finalize_into(self, out: &mut Output<Self>) {
        out.copy_from_slice(&self.0.finalize());
    }
}

/// Roots, inclusion and consistency proofs are byte for byte those of another implementation.
#[test]
fn trees_are_those_of_ct_merkle() {
    const SIZE: u64 = 600;
    let hashes = hashes_of(SIZE, "x");
    let mut tree = MemoryBackedTree::<Hasher, Vec<u8>>::new();
    let bytes = |proof: Vec<Hash>| proof.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>();
    for size in 1..=SIZE {
        tree.push(format!("x{}", size - 1).into_bytes());
        let root = tlog_tiles::tree_hash(size, &hashes).unwrap();
        assert_eq!(tree.root().as_bytes().as_slice(), root.0, "size {size}");
        // All below 70, then some on both sides of every edge of a tile or subtree.
        let olds = (1..size).filter(|old| size < 70 || (old * 7 + size) % 61 == 0 || old % 256 < 2);
        for old in olds {
            let own = bytes(tlog_tiles::prove_tree(size, old, &hashes).unwrap());
            let other = tree.prove_consistency((size - old) as usize);
            assert_eq!(other.as_bytes(), own, "{old} to {size}");
            let own = bytes(tlog_tiles::prove_record(size, old, &hashes).unwrap());
            assert_eq!(tree.prove_inclusion(old as usize).as_bytes(), own, "{old} in {size}");
        }
    }
}

/// The examples in the text of C2SP signed-note, tlog-checkpoint and tlog-witness (CC BY 4.0).
#[test]
fn the_examples_of_the_specifications() {
    let key: VerifierKey =
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k".parse().unwrap();
    let text = "This is an example message.\n";
    let line = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=";
    let bytes = base64::decode(line).unwrap();
    assert_eq!(bytes[..4], key.note_verifier().key_id().to_be_bytes());
    assert!(key.note_verifier().verify(text.as_bytes(), &bytes[4..]));
    assert!(!key.note_verifier().verify(b"This is an example message.", &bytes[4..]));

    let checkpoint = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        — example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
    let head = Head::open_stored(checkpoint).unwrap();
    assert_eq!((head.origin.as_str(), head.size), ("example.com/behind-the-sofa", 20_852_163));
    assert!(Head::parse(checkpoint.as_bytes()).is_err(), "a site log's checkpoint has one line");

    let request = format!(
        "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
        \n{checkpoint}"
    );
    let read = AddCheckpoint::parse(request.as_bytes()).unwrap();
    assert_eq!((read.old_size, read.proof.len()), (20_852_014, 4));
    assert_eq!(read.checkpoint, checkpoint);
    assert_eq!(read.to_text(), request);
}
