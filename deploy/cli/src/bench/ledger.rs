//! `haar bench ledger`: the consortium log, durable on one node or through etcd, and what a proof costs.

mod witnessed;

use crate::demo::{self, Upstream};
use crate::failure::Failure;
use haar_ledger::consortium::{Sequencer, Tiles, included};
use haar_ledger::store::{CheckpointStore, EtcdStore, RedbStore};
use haar_ledger::{Cosigner, Identity, Policy};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tlog_tiles::{Hash, HashReader};

const ORIGIN: &str = "haar.invalid/bench";
/// The tree that a proof is made in, and the member that it is of.
const PROOF_LEAVES: u64 = 1_000_000_000;
const PROOF_INDEX: u64 = 314_159_265;
const COSIGNATURES: u8 = 4;

/// How fast entries become durable in the consortium log in batches, from the call to the tiles on disk, and how large
/// and how fast to check a proof is. Then how long it takes four members, over real sockets, from an entry's
/// submission to a quorum of cosignatures. Last, the demo is played to see how much of what devices send is
/// committed upstream.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Seconds of appending.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Entries in a batch; through etcd no more than it takes in one request.
    #[arg(long, default_value_t = 16_384)]
    batch: usize,
    /// Bytes of an entry.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Order by this etcd cluster (client URLs) and not by the node's own database.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    etcd: Vec<String>,
    /// Play these recordings, too (a WFDB record, or a folder of them), to see how much of them is committed upstream.
    #[arg(long, value_name = "PATH")]
    wfdb: Option<std::path::PathBuf>,
    /// Where to put the log; it is removed afterwards.
    #[arg(long, default_value = ".")]
    dir: std::path::PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the job.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let usable = (0.1..=600.0).contains(&args.seconds)
        && (1..=65_536).contains(&args.batch)
        && (16..=16_384).contains(&args.bytes);
    if !usable {
        return Err(Failure::usage(
            "--seconds must be 0.1 to 600, --batch 1 to 65536, --bytes 16 to 16384",
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = tempfile::Builder::new().prefix("haar-bench-ledger").tempdir_in(&args.dir)?;
    let appended = runtime.block_on(append(args, dir.path()))?;
    let members = tempfile::Builder::new().prefix("haar-bench-ledger").tempdir_in(&args.dir)?;
    let witnessed_ms = runtime.block_on(witnessed::witnessed_ms(members.path()))?;
    let proof = Proof::make()?;
    let verify_per_s = proof.verify_per_s()?;
    let ward = runtime.block_on(Upstream::measure(&demo::Args::usual(None)))?;
    let recordings = match &args.wfdb {
        Some(path) => {
            let recordings = demo::Args::usual(Some(path.clone()));
            Some(runtime.block_on(Upstream::measure(&recordings))?)
        }
        None => None,
    };
    let report = json!({
        "store": if args.etcd.is_empty() { "redb" } else { "etcd" },
        "leaves_per_s": appended.leaves as f64 / appended.seconds,
        "leaves": appended.leaves,
        "batch": appended.batch,
        "entry_bytes": args.bytes,
        "batch_ms_p50": appended.batch_ms[appended.batch_ms.len() / 2],
        "batch_ms_max": appended.batch_ms.last(),
        "megabytes_per_million_leaves": appended.file_bytes as f64 / appended.leaves as f64,
        "witnessed_ms_p50": percentile(&witnessed_ms, 50),
        "witnessed_ms_p99": percentile(&witnessed_ms, 99),
        "witnessed_ms_max": witnessed_ms.last(),
        "proof_leaves": PROOF_LEAVES,
        "proof_hashes": proof.path.len(),
        "proof_bytes": proof.text().len(),
        "verify_per_s": verify_per_s,
        "upstream_ratio_demo": ward.ratio(),
        "upstream_ratio_recordings": recordings.map(|played| played.ratio()),
    });
    if args.json {
        println!("{report}");
    } else if let Some(fields) = report.as_object() {
        for (name, value) in fields {
            println!("{name:30} {value}");
        }
    }
    Ok(())
}

/// The smallest of the ascending `values` that `percent` per cent do not exceed.
fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    values.get((values.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

struct Appended {
    leaves: u64,
    batch: usize,
    seconds: f64,
    /// In ascending order, never empty.
    batch_ms: Vec<f64>,
    file_bytes: u64,
}

async fn append(args: &Args, dir: &Path) -> Result<Appended, Failure> {
    let path = dir.join("ledger.redb");
    let db = Arc::new(redb::Database::create(&path)?);
    let log = Identity::generate(ORIGIN, [1; 32])?;
    let tiles = Tiles::open(db.clone(), log.vkey().clone())?;
    let mut appended = if args.etcd.is_empty() {
        measure(args, RedbStore::open(db)?, tiles, log).await?
    } else {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(Failure::new)?;
        let name = format!("{ORIGIN}/{}", hex::encode(seed));
        measure(args, EtcdStore::new(&args.etcd, &name)?, tiles, log).await?
    };
    appended.file_bytes = std::fs::metadata(&path)?.len();
    Ok(appended)
}

async fn measure<S: CheckpointStore>(
    args: &Args,
    store: S,
    tiles: Tiles,
    log: Identity,
) -> Result<Appended, Failure> {
    let batch = args.batch.min(store.max_batch_bytes() / (args.bytes + 2));
    let mut own = Sequencer::open(store, tiles, log, "bench", b"genesis").await?;
    let (mut number, mut batch_ms) = (0_u64, Vec::new());
    let start = Instant::now();
    // Making the entries is not the log's work.
    let mut elapsed = Duration::ZERO;
    while start.elapsed().as_secs_f64() < args.seconds || batch_ms.is_empty() {
        let mut bytes = vec![0xa5; batch * args.bytes];
        for entry in bytes.chunks_mut(args.bytes) {
            entry[..8].copy_from_slice(&number.to_be_bytes());
            number += 1;
        }
        let entries: Vec<&[u8]> = bytes.chunks(args.bytes).collect();
        let begun = Instant::now();
        own.append(&entries).await?;
        elapsed += begun.elapsed();
        batch_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    batch_ms.sort_by(f64::total_cmp);
    Ok(Appended { leaves: number, batch, seconds: elapsed.as_secs_f64(), batch_ms, file_bytes: 0 })
}

/// A proof in a tree of [`PROOF_LEAVES`] with as many cosignatures as there are members, and who they are.
struct Proof {
    path: Vec<[u8; 32]>,
    note: String,
    policy: Policy,
}

/// A tree of equal leaves: a full subtree's hash depends on its height only, so it has no need to be stored.
struct EqualLeaves(Vec<Hash>);

const ENTRY: &[u8] = b"the same entry everywhere";

impl HashReader for EqualLeaves {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let height = |&index: &u64| tlog_tiles::split_stored_hash_index(index).0;
        indexes.iter().map(|index| Ok(self.0[usize::from(height(index))])).collect()
    }
}

impl Proof {
    fn make() -> Result<Self, Failure> {
        let mut heights = vec![tlog_tiles::record_hash(ENTRY)];
        for height in 0..40 {
            heights.push(tlog_tiles::node_hash(heights[height], heights[height]));
        }
        let tree = EqualLeaves(heights);
        let root = tlog_tiles::tree_hash(PROOF_LEAVES, &tree).map_err(Failure::new)?;
        let path =
            tlog_tiles::prove_record(PROOF_LEAVES, PROOF_INDEX, &tree).map_err(Failure::new)?;
        let log = Identity::generate(ORIGIN, [1; 32])?;
        let text = format!("{ORIGIN}\n{PROOF_LEAVES}\n{root}\n");
        let mut note = String::from_utf8(log.sign(&text)?)?;
        let mut policy = format!("log {}\n", log.vkey());
        for member in 0..COSIGNATURES {
            let cosigner = Cosigner::generate(&format!("member-{member}.invalid"), [member; 32])?;
            note += &cosigner.cosign(&text, 1_800_000_000);
            policy += &format!("witness w{member} {}\n", cosigner.vkey());
        }
        policy += "group all 4 w0 w1 w2 w3\nquorum all\n";
        let path = path.into_iter().map(|hash| hash.0).collect();
        Ok(Self { path, note, policy: policy.parse()? })
    }

    /// The C2SP tlog-proof.
    fn text(&self) -> String {
        let path: String = self.path.iter().map(|hash| format!("{}\n", Hash(*hash))).collect();
        format!("c2sp.org/tlog-proof@v1\nindex {PROOF_INDEX}\n{path}\n{}", self.note)
    }

    /// Whether it holds: the log's signature, all cosignatures, the inclusion.
    fn holds(&self) -> Result<bool, Failure> {
        let head = self.policy.check(self.note.as_bytes())?;
        Ok(included(&self.path, head.size, head.root, PROOF_INDEX, ENTRY))
    }

    /// Whole verifications a second on one core, nothing remembered from one to the next.
    fn verify_per_s(&self) -> Result<f64, Failure> {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(2) {
            if !self.holds()? {
                return Err(Failure::new("the proof that was made does not hold"));
            }
            count += 1;
        }
        Ok(f64::from(count) / start.elapsed().as_secs_f64())
    }
}
