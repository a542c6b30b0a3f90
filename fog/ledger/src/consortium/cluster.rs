//! Three nodes of one log on three members of etcd, each pair in a network namespace of its own, while
//! members are killed and frozen and the network between them is cut.
//!
//! Needs root (namespaces), `ip` and `etcd`. Without root nothing is tested here, and the test says so. A
//! direction is cut by a neighbour entry that leads nowhere: packets leave and nobody takes them, as with a
//! broken switch.

use super::{SequenceError, Sequencer, Tiles};
use crate::checkpoint::Head;
use crate::fixtures::memory;
use crate::store::EtcdStore;
use crate::store::tests::Etcd;
use haar_identity::Identity;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NODES: usize = 3;
/// How long each fault lasts, and how long it is quiet afterwards.
const FAULT: Duration = Duration::from_secs(6);
const QUIET: Duration = Duration::from_secs(2);
/// The longest time in which no node gets an entry into the log.
const GAP_MAX: Duration = Duration::from_secs(5);
const START_TIMEOUT: Duration = Duration::from_secs(60);

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("`ip` of iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Namespaces on a bridge, gone when dropped.
struct Network {
    name: String,
}

impl Network {
    fn new() -> Self {
        // Interfaces' names have at most 15 bytes.
        let own = Self { name: format!("hl{}", std::process::id() % 1_000_000) };
        let name = &own.name;
        ip(&format!("link add {name}b type bridge"));
        ip(&format!("link set {name}b up"));
        for node in 0..NODES {
            let space = own.space(node);
            ip(&format!("netns add {space}"));
            ip(&format!("link add {name}v{node} type veth peer name e0 netns {space}"));
            ip(&format!("link set {name}v{node} master {name}b up"));
            ip(&format!("-n {space} addr add {}/24 dev e0", address(node)));
            ip(&format!("-n {space} link set e0 up"));
            ip(&format!("-n {space} link set lo up"));
        }
        own
    }

    fn space(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }

    /// Nothing from `from` reaches `to` any more.
    fn cut(&self, from: usize, to: usize) {
        let (space, to) = (self.space(from), address(to));
        ip(&format!("-n {space} neigh replace {to} lladdr 02:00:00:00:de:ad dev e0 nud permanent"));
    }

    fn isolate(&self, node: usize) {
        for other in (0..NODES).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    fn mend(&self) {
        for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
            let arguments = format!("-n {} neigh del {} dev e0", self.space(from), address(to));
            // There may be none.
            let _ = Command::new("ip").args(arguments.split(' ')).output();
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in 0..NODES {
            let _ = Command::new("ip").args(["netns", "del", &self.space(node)]).status();
        }
        let _ = Command::new("ip").args(["link", "del", &format!("{}b", self.name)]).status();
    }
}

/// Addresses that nothing else has: the namespaces are not connected to anything.
fn address(node: usize) -> String {
    format!("10.213.77.{}", node + 1)
}

fn start(network: &Network, node: usize, dir: &Path) -> Etcd {
    let cluster: Vec<_> =
        (0..NODES).map(|node| format!("m{node}=http://{}:2380", address(node))).collect();
    let space = network.space(node);
    let command = ["ip", "netns", "exec", &space, "etcd"];
    let (name, cluster) = (format!("m{node}"), cluster.join(","));
    Etcd::start(&command, &name, &address(node), (2379, 2380), &cluster, dir)
}

/// Which member leads; `None` while there is no answer.
fn leader(network: &Network) -> Option<usize> {
    (0..NODES).find(|node| {
        let (space, url) = (network.space(*node), format!("http://{}:2379", address(*node)));
        let program = "etcdctl --write-out=fields endpoint status --command-timeout=1s";
        let output = Command::new("ip")
            .args(["netns", "exec", &space, "env", "ETCDCTL_API=3"])
            .args(program.split(' '))
            .args(["--endpoints", &url])
            .output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let text = text.unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next().map(str::to_owned)
        };
        field("\"MemberID\"").is_some_and(|member| field("\"Leader\"") == Some(member))
    })
}

/// What the nodes were told, and when.
#[derive(Default)]
struct Record {
    entries: BTreeMap<u64, Vec<u8>>,
    notes: Vec<String>,
    answers: Vec<Instant>,
    by_node: [u64; NODES],
}

/// A node that appends one entry after the other until it is stopped, then catches up.
async fn work(node: usize, stop: Arc<AtomicBool>, record: Arc<Mutex<Record>>) -> (Tiles, u64) {
    let log = Identity::generate("consortium.example/log", [1; 32]).unwrap();
    // Its own member first.
    let endpoints: Vec<_> =
        (0..NODES).map(|n| format!("http://{}:2379", address((node + n) % NODES))).collect();
    let tiles = Tiles::open(memory(), log.vkey().clone()).unwrap();
    let name = format!("node-{node}");
    let begun = Instant::now();
    let mut own = loop {
        let store = EtcdStore::new(&endpoints, log.origin()).unwrap();
        let key = Identity::generate("consortium.example/log", [1; 32]).unwrap();
        match Sequencer::open(store, tiles.clone(), key, &name, b"genesis").await {
            Ok(own) => break own,
            Err(error) => assert!(begun.elapsed() < START_TIMEOUT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let entry = format!("{name}/{number}").into_bytes();
        if own.find(&entry).unwrap().is_some() {
            number += 1;
            continue;
        }
        match own.append(&[&entry]).await {
            Ok(sequenced) => {
                let mut record = record.lock().unwrap();
                let other = record.entries.insert(sequenced.first_index, entry);
                assert_eq!(other, None, "two entries were given one place");
                record.notes.push(sequenced.checkpoint.note().to_owned());
                record.answers.push(Instant::now());
                record.by_node[node] += 1;
                number += 1;
            }
            // As an operator does: who lost the race tries again at once.
            Err(SequenceError::Behind) => {
                drop(own.catch_up().await);
                continue;
            }
            Err(SequenceError::Unknown(_) | SequenceError::Store(_)) => {}
            Err(error) => panic!("{error}"),
        }
        // Who won it gathers the next batch, each node in a rhythm of its own.
        tokio::time::sleep(Duration::from_millis(40 + 7 * node as u64)).await;
    }
    let begun = Instant::now();
    while let Err(error) = own.catch_up().await {
        assert!(begun.elapsed() < START_TIMEOUT, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let size = own.checkpoint().size();
    (tiles, size)
}

fn settle(seconds: Duration) {
    std::thread::sleep(seconds);
}

/// Every fault in turn; each is over before the next begins.
fn faults(network: &Network, etcds: &mut [Etcd; NODES], dir: &Path) {
    let freeze = |etcd: &Etcd, signal| {
        kill(Pid::from_raw(etcd.id() as i32), signal).unwrap();
    };
    // An election may take seconds where the processors are busy.
    let leads = || {
        let mut looks = (0..150).map(|_| {
            leader(network).or_else(|| {
                std::thread::sleep(Duration::from_millis(200));
                None
            })
        });
        looks.find_map(|found| found).expect("a member leads")
    };

    let at = leads();
    etcds[at].kill();
    settle(FAULT);
    etcds[at] = start(network, at, dir);
    settle(QUIET);

    let at = leads();
    freeze(&etcds[at], Signal::SIGSTOP);
    settle(FAULT);
    freeze(&etcds[at], Signal::SIGCONT);
    settle(QUIET);

    // Isolated with its node: the other two go on, it does not.
    let at = leads();
    network.isolate(at);
    settle(FAULT);
    network.mend();
    settle(QUIET);

    // One direction: the leader hears one follower and is not heard by it.
    let at = leads();
    network.cut(at, (at + 1) % NODES);
    settle(FAULT);
    network.mend();
    settle(QUIET);

    // Halved twice over: no two reach each other but through the leader.
    let at = leads();
    network.cut((at + 1) % NODES, (at + 2) % NODES);
    network.cut((at + 2) % NODES, (at + 1) % NODES);
    settle(FAULT);
    network.mend();
    settle(QUIET);
}

#[test]
fn three_nodes_on_three_members_lose_nothing_and_do_not_fork() {
    if !geteuid().is_root() {
        println!("LEFT OUT: the cluster's faults need root for network namespaces");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let network = Network::new();
    let mut etcds = [0, 1, 2].map(|node| start(&network, node, dir.path()));
    let (stop, record) =
        (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Record::default())));
    let nodes = [0, 1, 2].map(|node| {
        let (stop, record) = (Arc::clone(&stop), Arc::clone(&record));
        let space = File::open(format!("/run/netns/{}", network.space(node))).unwrap();
        std::thread::spawn(move || {
            // This thread only: its sockets are in the member's namespace.
            setns(space, CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work(node, stop, record))
        })
    });
    let begun = Instant::now();
    while record.lock().unwrap().by_node.contains(&0) {
        assert!(begun.elapsed() < START_TIMEOUT, "a node did not begin");
        settle(Duration::from_millis(50));
    }
    faults(&network, &mut etcds, dir.path());
    stop.store(true, Ordering::Relaxed);
    let nodes = nodes.map(|node| node.join().unwrap());

    let record = record.lock().unwrap();
    let gap = record.answers.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    println!("{:?} entries, longest gap {gap:?}", record.by_node);
    let size = nodes.iter().map(|(_, size)| *size).max().unwrap();
    let (first, _) = nodes.iter().find(|node| node.1 == size).unwrap();
    for (index, entry) in &record.entries {
        assert_eq!(first.entry(*index).unwrap(), *entry, "an acknowledged entry is lost");
    }
    let mut all = Vec::new();
    while (all.len() as u64) < size {
        all.extend(first.entries(all.len() as u64).unwrap());
    }
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "an entry is in the log twice");
    for note in &record.notes {
        let head = Head::parse(note.as_bytes()).unwrap();
        for (tiles, size) in nodes.iter().filter(|(_, size)| *size >= head.size) {
            assert_eq!(tiles.root_at(head.size).unwrap(), head.root, "a fork at {size}");
        }
    }
    for (tiles, size) in &nodes {
        assert_eq!(first.root_at(*size).unwrap(), tiles.root_at(*size).unwrap(), "a fork");
    }
    assert!(gap <= GAP_MAX, "no node got an entry in for {gap:?}");
}
