//! A consortium of four members in one process, over real sockets.

mod news;
mod succession;

use super::*;
use crate::client::{Level, SubmitError};
use crate::consortium::included;
use crate::entry::EntryKind;
use crate::evidence::EvidenceKind;
use crate::governance::{
    CommitmentBody, Digest, Genesis, Hex, KeyBody, Member, Operator as OperatorBody, Quorum,
    Quorums, Role as KeyRole,
};
use crate::leaf::LeafKind;
use crate::policy::Policy;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::TempDir;

const ORIGIN: &str = "consortium.example/log";
const NAMES: [&str; 4] = ["a.example", "b.example", "c.example", "d.example"];
const SOON: Duration = Duration::from_secs(10);

/// Four members: the first operates, all witness, the last also monitors.
struct Consortium {
    folder: TempDir,
    ports: Vec<u16>,
    members: Vec<Identity>,
    log: Identity,
    shutdown: CancellationToken,
    running: Vec<Option<Running>>,
    http: reqwest::Client,
    stale_s: u64,
}

impl Consortium {
    async fn found() -> Self {
        let ports: Vec<u16> = (0..4).map(|_| free_port()).collect();
        let members: Vec<_> =
            (0..4).map(|n| Identity::generate(NAMES[n], [n as u8 + 1; 32]).unwrap()).collect();
        let log = Identity::generate(ORIGIN, [9; 32]).unwrap();
        let mut own = Self {
            folder: tempfile::tempdir().unwrap(),
            ports,
            members,
            log,
            shutdown: CancellationToken::new(),
            running: (0..4).map(|_| None).collect(),
            http: client::http(None).unwrap(),
            stale_s: 60,
        };
        let genesis = own.genesis();
        std::fs::write(own.path("genesis.entry"), genesis.as_bytes()).unwrap();
        own.log.save_new(&own.path("log.key")).unwrap();
        for n in 0..4 {
            own.members[n].save_new(&own.path(&format!("member-{n}.key"))).unwrap();
            own.cosigner(n).save_new(&own.path(&format!("witness-{n}.key"))).unwrap();
            own.start(n).await;
        }
        own
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cosigner(&self, n: usize) -> Cosigner {
        Cosigner::generate(&format!("{}/witness", NAMES[n]), [n as u8 + 21; 32]).unwrap()
    }

    fn url(&self, n: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[n])
    }

    fn client(&self, n: usize) -> Client {
        Client::new(self.http.clone(), &self.url(n))
    }

    fn genesis(&self) -> Entry {
        let member = |n: usize| Member {
            name: NAMES[n].parse().unwrap(),
            key: self.members[n].vkey().into(),
            cosigners: vec![self.cosigner(n).vkey().as_str().parse().unwrap()],
            url: self.url(n).parse().unwrap(),
            admission: Digest::of(&[n as u8]),
        };
        let genesis = Genesis {
            consortium: "test".to_owned(),
            operator: OperatorBody {
                name: NAMES[0].parse().unwrap(),
                log: self.log.vkey().into(),
                url: self.url(0).parse().unwrap(),
            },
            members: (0..4).map(member).collect(),
            quorums: Quorums {
                // Of some kinds all must know.
                commitments: [(LeafKind::Correction, Quorum::All)].into(),
                ..Quorums::default()
            },
            policy_bundle: Digest::of(b""),
            predecessor: None,
        };
        let signers: Vec<&Identity> = self.members.iter().collect();
        Entry::sign(EntryKind::Genesis, ORIGIN, &genesis, &signers).unwrap()
    }

    fn config(&self, n: usize) -> Config {
        let roles = match n {
            0 => "['operator', 'witness']",
            3 => "['witness', 'monitor']",
            _ => "['witness', 'mirror']",
        };
        let text = format!(
            "roles = {roles}\ndata_dir = 'data-{n}'\nlog = '{}'\n[http]\nlisten = '127.0.0.1:{}'\n\
             [admin]\nlisten = '127.0.0.1:0'\n[member]\nkey_file = 'member-{n}.key'\n\
             [witness]\nkey_file = 'witness-{n}.key'\n[follow]\nurl = '{}'\npoll_ms = 100\nstale_s = {}\n\
             [operator]\nkey_file = 'log.key'\ngenesis_file = 'genesis.entry'\nbatch_ms = 5\n\
             refresh_s = {}\n",
            self.log.vkey(),
            self.ports[n],
            self.url(0),
            self.stale_s,
            self.stale_s.div_ceil(4)
        );
        let path = self.path(&format!("{n}.toml"));
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    }

    async fn start(&mut self, n: usize) {
        let metrics = Metrics::new("haar-ledger").unwrap();
        let started = start(self.config(n), metrics, self.shutdown.child_token()).await;
        self.running[n] = Some(started.unwrap());
    }

    async fn stop(&mut self, n: usize) {
        let running = self.running[n].take().unwrap();
        running.shutdown.cancel();
        running.join().await.unwrap();
    }

    fn policy(&self) -> Policy {
        State::genesis(&self.genesis()).unwrap().policy_text(None).parse().unwrap()
    }

    /// The site's key, registered by the second member.
    async fn register_site(&self) -> Identity {
        let site = Identity::generate("fog.example/site", [77; 32]).unwrap();
        let key = KeyBody::Register { key: site.vkey().into(), role: KeyRole::Fog };
        let signers = [&self.members[1], &site];
        let entry = Entry::sign(EntryKind::Key, ORIGIN, &key, &signers).unwrap();
        self.client(0).submit(&entry, Level::Sequenced, SOON).await.unwrap();
        site
    }
}

/// A port that nobody listens on, below those that the system gives to clients.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port =
            10_000 + (std::process::id() % 200 * 100) as u16 + NEXT.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn commitment(site: &Identity, index: u64) -> Entry {
    commitment_of(LeafKind::FlaggedEvent, site, index)
}

fn commitment_of(kind: LeafKind, site: &Identity, index: u64) -> Entry {
    let leaf = crate::leaf::leaf(kind, &[1; 32], &index.to_be_bytes(), &[2; 32]);
    let body = CommitmentBody { site: site.origin().to_owned(), index, leaf: Hex(leaf) };
    Entry::sign(EntryKind::Commitment, ORIGIN, &body, &[site]).unwrap()
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..200 {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not happen in ten seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_sequenced_then_witnessed_then_proven_and_copied() {
    let consortium = Consortium::found().await;
    let site = consortium.register_site().await;
    let client = consortium.client(0);
    let entry = commitment(&site, 7);
    let placed = client.submit(&entry, Level::Witnessed, SOON).await.unwrap();
    assert_eq!((placed.index, placed.level), (2, Level::Witnessed));
    // The same bytes again have the same place.
    assert_eq!(client.submit(&entry, Level::Sequenced, SOON).await.unwrap().index, 2);

    let proof = client.proof(2).await.unwrap();
    let (head, note) = proof.split_once("\n\n").unwrap();
    let cosigned = consortium.policy().check(note.as_bytes()).unwrap();
    assert!(cosigned.witnesses.len() >= 3);
    let path: Vec<[u8; 32]> = head
        .lines()
        .skip(2)
        .map(|line| haar_identity::base64::decode_array(line).unwrap())
        .collect();
    assert!(included(&path, cosigned.size, cosigned.root, 2, entry.as_bytes()));

    let policy = client.get("/v1/policy").await.unwrap();
    let policy: Policy = String::from_utf8(policy).unwrap().parse().unwrap();
    assert_eq!(policy, consortium.policy());
    let admin = consortium.running[0].as_ref().unwrap().admin_addr();
    let answer = consortium.http.get(format!("http://{admin}/metrics")).send().await.unwrap();
    let metrics = answer.text().await.unwrap();
    for line in [
        "haar_ledger_entries_total{kind=\"commitment\"} 1",
        "haar_ledger_entries 3",
        "haar_ledger_sequenced_seconds_count 2",
        "haar_ledger_witness_requests_total{result=\"cosigned\"}",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    // A mirror serves the same, from its own copy.
    let mirror = consortium.client(1);
    let copied = eventually("the mirror's copy", async || mirror.proof(2).await.ok()).await;
    assert_eq!(copied.lines().nth(1), proof.lines().nth(1));
}

/// A submitter who got no answer hands in the same bytes again: it must not be held against it.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_at_the_same_time_are_one_entry_and_no_attempt() {
    let consortium = Consortium::found().await;
    let site = consortium.register_site().await;
    let entry = commitment(&site, 1);
    let submitted = (0..16).map(|_| {
        let (client, entry) = (consortium.client(0), entry.clone());
        async move { client.submit(&entry, Level::Sequenced, SOON).await.unwrap().index }
    });
    let places = futures_util::future::join_all(submitted).await;
    assert!(places.iter().all(|place| *place == 2), "{places:?}");
    assert!(consortium.client(0).evidence(0).await.unwrap().1.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quorum_is_needed_and_two_of_four_are_none() {
    let mut consortium = Consortium::found().await;
    let site = consortium.register_site().await;
    let client = consortium.client(0);
    consortium.stop(2).await;
    let patience = Duration::from_secs(5);
    let three = client.submit(&commitment(&site, 1), Level::Witnessed, patience).await.unwrap();
    assert_eq!(three.level, Level::Witnessed);
    consortium.stop(3).await;
    let patience = Duration::from_millis(1_500);
    let two = client.submit(&commitment(&site, 2), Level::Witnessed, patience).await.unwrap();
    assert_eq!(two.level, Level::Sequenced);
    let before = consortium.policy().check(&client.checkpoint().await.unwrap()).unwrap();
    assert!(before.size <= two.index);
    // When one comes back, what was sequenced is witnessed.
    consortium.start(2).await;
    eventually("the quorum", async || {
        let note = client.checkpoint().await.ok()?;
        (consortium.policy().check(&note).ok()?.size > two.index).then_some(())
    })
    .await;
}

/// Also while there is always something newer.
#[tokio::test(flavor = "multi_thread")]
async fn what_all_must_know_is_witnessed_by_all() {
    let mut consortium = Consortium::found().await;
    let site = Arc::new(consortium.register_site().await);
    // The fourth is always a little later than the quorum.
    consortium.stop(3).await;
    let slow = slow_witness(&consortium, 3).await;
    let (load, own) = (consortium.client(0), Arc::clone(&site));
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let loaded = tokio::spawn(async move {
        for index in 100.. {
            if stopped.is_cancelled() {
                return index - 100;
            }
            load.submit(&commitment(&own, index), Level::Sequenced, SOON).await.unwrap();
        }
        0
    });
    let client = consortium.client(0);
    for index in 1..4 {
        let entry = commitment_of(LeafKind::Correction, &site, index);
        let placed = client.submit(&entry, Level::Witnessed, SOON).await.unwrap();
        assert_eq!(placed.level, Level::Witnessed);
    }
    // One of four is away: enough for everything else, and not for these.
    slow.abort();
    let patience = Duration::from_secs(2);
    let entry = commitment_of(LeafKind::Correction, &site, 9);
    let placed = client.submit(&entry, Level::Witnessed, patience).await.unwrap();
    assert_eq!(placed.level, Level::Sequenced);
    let placed = client.submit(&commitment(&site, 10), Level::Witnessed, SOON).await.unwrap();
    assert_eq!(placed.level, Level::Witnessed);
    stop.cancel();
    assert!(loaded.await.unwrap() > 20, "there was always something newer");
}

/// A witness that thinks for a while, in a member's place.
async fn slow_witness(consortium: &Consortium, n: usize) -> tokio::task::JoinHandle<()> {
    let cosigner = Arc::new(consortium.cosigner(n));
    let answer = axum::routing::post(async move |body: String| {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let asked = crate::AddCheckpoint::parse(body.as_bytes()).unwrap();
        let (text, _) = asked.checkpoint.split_once("\n\n").unwrap();
        cosigner.cosign(&format!("{text}\n"), now_s())
    });
    let address = ("127.0.0.1", consortium.ports[n]);
    let listener =
        eventually("the address", async || tokio::net::TcpListener::bind(address).await.ok()).await;
    let router = Router::new().route("/add-checkpoint", answer);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_refuse_is_everybodys_news() {
    let consortium = Consortium::found().await;
    let stranger = Identity::generate("fog.example/site", [78; 32]).unwrap();
    // A stranger's attempt is refused and no news; a member's is.
    for signer in [&stranger, &consortium.members[2]] {
        let entry = commitment(signer, 1);
        let refused = consortium.client(0).submit(&entry, Level::Sequenced, SOON).await;
        assert!(matches!(refused, Err(SubmitError::Refused(_))), "{refused:?}");
    }
    for n in 0..4 {
        let client = consortium.client(n);
        let told = eventually("the news", async || {
            client.evidence(0).await.ok().map(|(_, told)| told).filter(|told| !told.is_empty())
        })
        .await;
        assert_eq!(told[0].kind(), EvidenceKind::RefusedEntry);
        assert_eq!(told.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forked_checkpoint_is_refused_and_everybodys_news() {
    let consortium = Consortium::found().await;
    let client = consortium.client(0);
    let note = eventually("the first checkpoint", async || client.checkpoint().await.ok()).await;
    let size = consortium.policy().check(&note).unwrap().size;
    // The operator signs another root of the same size, and shows it to one witness.
    let forked = crate::SignedCheckpoint::sign(&consortium.log, size, [66; 32]).unwrap();
    let request = crate::AddCheckpoint {
        old_size: size,
        proof: Vec::new(),
        checkpoint: forked.note().to_owned(),
    };
    let (status, _) = consortium.client(1).add_checkpoint(request.to_text()).await.unwrap();
    assert_eq!(status, 422);
    for n in 0..4 {
        let client = consortium.client(n);
        let told = eventually("the news", async || {
            client.evidence(0).await.ok().map(|(_, told)| told).filter(|told| !told.is_empty())
        })
        .await;
        assert!(told[0].is_proof());
    }
}

/// C2SP tlog-witness, as a client of somebody else's sees it.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_answers_as_the_specification_says() {
    use sha2::{Digest as _, Sha256};
    let consortium = Consortium::found().await;
    let (http, url) = (&consortium.http, consortium.url(1));
    let key = consortium.cosigner(1).vkey().clone();
    let remembered = format!("{url}/{}/checkpoint", hex::encode(Sha256::digest(ORIGIN)));
    let note = eventually("the first cosignature", async || {
        let answer = http.get(&remembered).send().await.ok()?.error_for_status().ok()?;
        answer.text().await.ok()
    })
    .await;
    assert!(key.verify(&note).unwrap().is_some());
    let size = consortium.policy().signed(note.as_bytes()).unwrap().size;

    let ask = async |old_size: u64, checkpoint: &str| {
        let (proof, checkpoint) = (Vec::new(), checkpoint.to_owned());
        let body = crate::AddCheckpoint { old_size, proof, checkpoint }.to_text();
        let answer = http.post(format!("{url}/add-checkpoint")).body(body).send().await.unwrap();
        let kind = answer.headers().get("content-type").unwrap().to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.text().await.unwrap())
    };
    let (status, _, line) = ask(size, &note).await;
    assert_eq!(status, 200);
    let (text, _) = note.split_once("\n\n").unwrap();
    assert!(key.verify(&format!("{text}\n\n{line}")).unwrap().is_some());
    let conflict = (409, "text/x.tlog.size".to_owned(), format!("{size}\n"));
    assert_eq!(ask(0, &note).await, conflict);
    assert_eq!(ask(size + 1, &note).await.0, 400);
    assert_eq!(ask(size, "nothing").await.0, 404);
    assert_eq!(ask(size, &note.replacen(ORIGIN, "other.example/log", 1)).await.0, 404);
    assert_eq!(ask(size, &note.replacen(&format!("\n{size}\n"), "\n77\n", 1)).await.0, 403);
    let long = "x".repeat(crate::MAX_REQUEST_BYTES + 1);
    let refused = http.post(format!("{url}/add-checkpoint")).body(long).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 413);
    let other = remembered.replace(&hex::encode(Sha256::digest(ORIGIN)), &"0".repeat(64));
    assert_eq!(http.get(other).send().await.unwrap().status().as_u16(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was() {
    let mut consortium = Consortium::found().await;
    let site = consortium.register_site().await;
    let client = consortium.client(0);
    let entry = commitment(&site, 1);
    let placed = client.submit(&entry, Level::Witnessed, SOON).await.unwrap();
    for n in 0..4 {
        consortium.stop(n).await;
    }
    for n in 0..4 {
        consortium.start(n).await;
    }
    assert_eq!(client.submit(&entry, Level::Sequenced, SOON).await.unwrap().index, placed.index);
    let next = client.submit(&commitment(&site, 2), Level::Witnessed, SOON).await.unwrap();
    assert_eq!((next.index, next.level), (placed.index + 1, Level::Witnessed));
}

#[tokio::test]
async fn what_cannot_work_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let log = Identity::generate(ORIGIN, [9; 32]).unwrap();
    let other = Identity::generate(ORIGIN, [8; 32]).unwrap();
    other.save_new(&folder.path().join("log.key")).unwrap();
    let text = format!(
        "roles = ['operator']\ndata_dir = 'data'\nlog = '{}'\n[http]\nlisten = '127.0.0.1:0'\n\
         [admin]\nlisten = '127.0.0.1:0'\n[operator]\nkey_file = 'log.key'\ngenesis_file = 'none'\n",
        log.vkey()
    );
    let path = folder.path().join("ledger.toml");
    std::fs::write(&path, text).unwrap();
    let failed = |path: &Path| Config::load(path).unwrap();
    let started =
        start(failed(&path), Metrics::new("haar-ledger").unwrap(), CancellationToken::new()).await;
    let error = started.err().unwrap().to_string();
    assert!(error.contains("configure the log's own key"), "{error}");
}
