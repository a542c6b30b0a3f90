//! One log on three nodes: `haar-ledger` on three members of etcd, each pair in a network namespace of its own, while
//! members and nodes are killed and frozen, the network between them is cut, and the nodes' clocks step.
//!
//! Needs root (namespaces), `ip`, `etcd` and libfaketime. Without root nothing is tested here, and the test says so. A
//! direction is cut by a neighbour entry that leads nowhere: packets leave and nobody takes them, as with a
//! broken switch. Witnesses and submitters are outside and reach every node at any time.

use crate::consortium::runtime;
use crate::programs;
use crate::ward::{Process, free_port, until, within};
use haar_ledger::client::{Client, Level, SubmitError, http};
use haar_ledger::consortium::{Copy, Reader, Tiles};
use haar_ledger::governance::{CommitmentBody, Hex, KeyBody, Role};
use haar_ledger::{Entry, EntryKind, Identity, Policy, VerifierKey};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ORIGIN: &str = "consortium.example/log";
const NODES: usize = 3;
const MEMBERS: usize = 4;
/// Where witnesses are and submitters come from.
const OUTSIDE: &str = "10.213.77.250";
const NODE_PORT: u16 = 7543;
/// How long each fault lasts, and how long it is quiet afterwards.
const FAULT: Duration = Duration::from_secs(6);
const QUIET: Duration = Duration::from_secs(2);
/// The longest time in which no node gets an entry into the log.
const GAP_MAX: Duration = Duration::from_secs(5);
/// How long a submitter waits for its node.
const ANSWER: Duration = Duration::from_secs(1);

/// Addresses that nothing else has: the bridge is connected to nothing but this machine.
fn address(node: usize) -> String {
    format!("10.213.77.{}", node + 1)
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("`ip` of iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a member of etcd says of itself (its JSON gateway); `None` if it says nothing within a second.
fn etcd_status(address: &str) -> Option<serde_json::Value> {
    let patience = Duration::from_secs(1);
    let to = format!("{address}:2379").parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    write!(
        stream,
        "POST /v3/maintenance/status HTTP/1.1\r\nHost: {address}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
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
        ip(&format!("addr add {OUTSIDE}/24 dev {name}b"));
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

    /// Starts a program in a node's namespace, with these variables.
    fn start(
        &self,
        node: usize,
        set: &[String],
        program: &Path,
        args: &[&str],
        log: &Path,
    ) -> Process {
        let space = self.space(node);
        let mut all = vec!["netns", "exec", &space, "env"];
        all.extend(set.iter().map(String::as_str));
        all.push(program.to_str().unwrap());
        all.extend(args);
        Process::start(&programs::foreign(&["ip"], "iproute2"), &all, log)
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

/// The cluster, its members' witnesses, and their files.
struct Cluster {
    network: Network,
    folder: TempDir,
    log: VerifierKey,
    etcds: [Option<Process>; NODES],
    nodes: [Option<Process>; NODES],
    witnesses: Vec<Process>,
    witness_ports: [u16; MEMBERS],
}

impl Cluster {
    /// All of it, at work.
    fn start() -> Self {
        let (network, folder) = (Network::new(), TempDir::new().unwrap());
        let log = Identity::generate(ORIGIN, [1; 32]).unwrap();
        log.save_new(&folder.path().join("log.key")).unwrap();
        let mut own = Self {
            network,
            folder,
            log: log.vkey().clone(),
            etcds: [None, None, None],
            nodes: [None, None, None],
            witnesses: Vec::new(),
            witness_ports: std::array::from_fn(|_| free_port()),
        };
        own.certificate();
        own.found();
        for node in 0..NODES {
            own.step_clock(node, 0);
            own.start_etcd(node);
        }
        until("a member of etcd leads", || own.leader().is_some());
        for member in 0..MEMBERS {
            own.witnesses.push(own.start_witness(member));
        }
        for node in 0..NODES {
            own.start_node(node);
        }
        for node in 0..NODES {
            until("a node publishes", || own.checkpoint(node).is_some());
            // Its clock is what the test says.
            let maps = format!("/proc/{}/maps", own.nodes[node].as_ref().unwrap().id());
            assert!(std::fs::read_to_string(maps).unwrap().contains("libfaketime"));
        }
        own
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// One certificate for every address, by an authority of this test alone.
    fn certificate(&self) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let names = (0..NODES).map(address).chain([OUTSIDE.to_owned()]);
        let (params, key) =
            (CertificateParams::new(names.collect::<Vec<_>>()), KeyPair::generate().unwrap());
        let certificate = params.unwrap().signed_by(&key, &authority).unwrap();
        self.write("ca.pem", &authority.pem());
        self.write("cert.pem", &certificate.pem());
        self.write("cert.key", &key.serialize_pem());
    }

    /// The first entry: four members that witness, the first of which operates the nodes.
    fn found(&self) {
        let run = |program: &str, args: &str| {
            let mut command = Command::new(programs::own(program));
            let made = command.args(args.split(' ')).current_dir(&self.folder).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            String::from_utf8(made.stdout).unwrap().trim().to_owned()
        };
        let mut text = format!(
            "consortium = \"test\"\n[operator]\nname = \"m0.example\"\nlog = \"{}\"\nurl = \"{}\"\n",
            self.log,
            url(&address(0), NODE_PORT)
        );
        for (n, port) in self.witness_ports.iter().enumerate() {
            let key = run("haar-ledger", &format!("key m{n}.example --out member-{n}.key"));
            let cosigner = format!("key m{n}.example/witness --out witness-{n}.key --cosigner");
            let cosigner = run("haar-ledger", &cosigner);
            text += &format!(
                "[[members]]\nname = \"m{n}.example\"\nkey = \"{key}\"\ncosigners = [\"{cosigner}\"]\n\
                 url = \"{}\"\nadmission = \"{}\"\n",
                url(OUTSIDE, *port),
                "0".repeat(64)
            );
        }
        self.write("consortium.toml", &text);
        run(
            "haar",
            "ledger genesis --describe consortium.toml --key member-0.key --out genesis.entry",
        );
        for n in 1..MEMBERS {
            run("haar", &format!("ledger sign genesis.entry --key member-{n}.key"));
        }
    }

    fn start_etcd(&mut self, node: usize) {
        let peers: Vec<_> =
            (0..NODES).map(|node| format!("e{node}=http://{}:2380", address(node))).collect();
        let own = address(node);
        let (client, peer) = (format!("http://{own}:2379"), format!("http://{own}:2380"));
        let (name, dir) = (format!("e{node}"), self.path(&format!("etcd-{node}")));
        let peers = peers.join(",");
        let args = [
            ["--name", &name],
            ["--data-dir", dir.to_str().unwrap()],
            ["--log-level", "error"],
            ["--logger", "zap"],
            // Half of what is the default: see the ledger's README.
            ["--election-timeout", "500"],
            ["--listen-client-urls", &client],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
            ["--initial-cluster", &peers],
        ]
        .concat();
        let program = programs::foreign(&["etcd"], "etcd-server");
        let log = self.path(&format!("etcd-{node}.log"));
        self.etcds[node] = Some(self.network.start(node, &[], &program, &args, &log));
    }

    fn configuration(&self, roles: &str, dir: &str, listen: &str) -> String {
        format!(
            "roles = {roles}\ndata_dir = '{dir}'\nlog = '{}'\n[http]\nlisten = '{listen}'\n\
             cert_file = 'cert.pem'\nkey_file = 'cert.key'\nca_file = 'ca.pem'\n[admin]\nlisten = '127.0.0.1:0'\n",
            self.log
        )
    }

    /// A node, under a clock that the test can step.
    fn start_node(&mut self, node: usize) {
        let own = address(node);
        let (dir, listen) = (format!("node-{node}"), format!("{own}:{NODE_PORT}"));
        // Its own member of etcd first.
        let endpoints: Vec<_> =
            (0..NODES).map(|n| format!("http://{}:2379", address((node + n) % NODES))).collect();
        let text = format!(
            "{}[member]\nkey_file = 'member-0.key'\n[operator]\nkey_file = 'log.key'\ngenesis_file = 'genesis.entry'\n\
             refresh_s = 2\n[operator.etcd]\nendpoints = {endpoints:?}\nnode = 'n{node}'\n",
            self.configuration("['operator']", &dir, &listen)
        );
        self.write(&format!("node-{node}.toml"), &text);
        let set = [
            format!("LD_PRELOAD={}", faketime().display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.path(&format!("clock-{node}")).display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
        ];
        let config = self.path(&format!("node-{node}.toml"));
        let args = ["serve", "--config", config.to_str().unwrap()];
        let log = self.path(&format!("node-{node}.log"));
        let program = programs::own("haar-ledger");
        self.nodes[node] = Some(self.network.start(node, &set, &program, &args, &log));
    }

    fn step_clock(&self, node: usize, seconds: i64) {
        // Whole at any time: the node may be reading it.
        self.write("clock", &format!("{seconds:+}\n"));
        std::fs::rename(self.path("clock"), self.path(&format!("clock-{node}"))).unwrap();
    }

    fn start_witness(&self, member: usize) -> Process {
        let (name, port) = (format!("witness-{member}"), self.witness_ports[member]);
        let text = format!(
            "{}[member]\nkey_file = 'member-{member}.key'\n[witness]\nkey_file = '{name}.key'\n[follow]\nurl = '{}'\n\
             poll_ms = 500\n",
            self.configuration("['witness', 'monitor']", &name, &format!("{OUTSIDE}:{port}")),
            // Each member follows another node.
            url(&address(member % NODES), NODE_PORT)
        );
        self.write(&format!("{name}.toml"), &text);
        let config = self.path(&format!("{name}.toml"));
        let args = ["serve", "--config", config.to_str().unwrap()];
        Process::start(&programs::own("haar-ledger"), &args, &self.path(&format!("{name}.log")))
    }

    fn client(&self, node: usize) -> Client {
        let http = http(Some(&self.path("ca.pem"))).unwrap();
        Client::new(http, &url(&address(node), NODE_PORT))
    }

    fn checkpoint(&self, node: usize) -> Option<Vec<u8>> {
        runtime().block_on(self.client(node).checkpoint()).ok()
    }

    /// Which member of etcd leads; `None` while there is no answer.
    fn leader(&self) -> Option<usize> {
        (0..NODES).find(|node| {
            let Some(status) = etcd_status(&address(*node)) else { return false };
            let (member, leader) = (&status["header"]["member_id"], &status["leader"]);
            member.is_string() && member == leader
        })
    }

    fn leads(&self) -> usize {
        let mut leads = None;
        // An election may take seconds where the processors are busy.
        until("a member of etcd leads", || {
            leads = self.leader();
            leads.is_some()
        });
        leads.unwrap()
    }

    /// Every fault in turn; each is over before the next begins.
    fn faults(&mut self, mut during: impl FnMut(&str)) {
        let freeze = |process: &Option<Process>, signal| {
            let pid = process.as_ref().unwrap().id() as i32;
            kill(Pid::from_raw(pid), signal).unwrap();
        };
        let mut lasts = |what: &str| {
            during(what);
            std::thread::sleep(FAULT);
        };
        let settle = || std::thread::sleep(QUIET);

        let at = self.leads();
        self.etcds[at].take().unwrap().kill();
        lasts("the leader of etcd is killed");
        self.start_etcd(at);
        settle();

        let at = self.leads();
        freeze(&self.etcds[at], Signal::SIGSTOP);
        lasts("the leader of etcd is frozen");
        freeze(&self.etcds[at], Signal::SIGCONT);
        settle();

        // The other two go on, its node does not.
        let at = self.leads();
        self.network.isolate(at);
        lasts("the leader of etcd and its node are isolated");
        self.network.mend();
        settle();

        // The leader hears one follower and is not heard by it.
        let at = self.leads();
        self.network.cut(at, (at + 1) % NODES);
        lasts("one direction is cut");
        self.network.mend();
        settle();

        // No two reach each other but through the leader.
        let at = self.leads();
        self.network.cut((at + 1) % NODES, (at + 2) % NODES);
        self.network.cut((at + 2) % NODES, (at + 1) % NODES);
        lasts("two followers are cut from each other");
        self.network.mend();
        settle();

        self.nodes[0].take().unwrap().kill();
        lasts("a node is killed");
        self.start_node(0);
        settle();

        freeze(&self.nodes[1], Signal::SIGSTOP);
        lasts("a node is frozen");
        freeze(&self.nodes[1], Signal::SIGCONT);
        settle();

        self.step_clock(0, 3_600);
        self.step_clock(2, -3_600);
        lasts("one node's clock is an hour ahead, another's an hour behind");
        self.step_clock(0, 0);
        self.step_clock(2, 0);
        settle();
    }
}

fn url(address: &str, port: u16) -> String {
    format!("https://{address}:{port}")
}

/// The library that gives one process a clock of its own.
fn faketime() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let mut libraries = places.map(|place| place.join("faketime/libfaketime.so.1"));
    libraries.find(|library| library.is_file()).expect("libfaketime: apt-get install libfaketime")
}

/// What submitters were told, and when.
#[derive(Default)]
struct Record {
    entries: BTreeMap<u64, Vec<u8>>,
    answers: Vec<Instant>,
    by_node: [u64; NODES],
}

/// A site that hands its leaves to one node, one after the other, each until it is told its place.
async fn submit(
    node: usize,
    client: Client,
    site: Identity,
    stop: Arc<AtomicBool>,
    record: Arc<Mutex<Record>>,
) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut leaf = [7; 34];
        (leaf[0], leaf[1]) = (1, 2);
        let body =
            CommitmentBody { site: site.origin().to_owned(), index: number, leaf: Hex(leaf) };
        let entry = Entry::sign(EntryKind::Commitment, ORIGIN, &body, &[&site]).unwrap();
        match client.submit(&entry, Level::Sequenced, ANSWER).await {
            Ok(placed) => {
                let mut record = record.lock().unwrap();
                let other = record.entries.insert(placed.index, entry.as_bytes().to_vec());
                assert_eq!(other, None, "two entries were given one place");
                record.answers.push(Instant::now());
                record.by_node[node] += 1;
                number += 1;
            }
            Err(SubmitError::NotNow(_) | SubmitError::Unknown(_)) => {}
            Err(error) => panic!("{error}"),
        }
        // Each in a rhythm of its own.
        tokio::time::sleep(Duration::from_millis(40 + 7 * node as u64)).await;
    }
}

#[test]
fn three_nodes_on_three_members_lose_nothing_and_do_not_fork() {
    if !geteuid().is_root() {
        println!("LEFT OUT: the cluster's faults need root for network namespaces");
        return;
    }
    let mut cluster = Cluster::start();
    let sites = [2, 3, 4]
        .map(|seed| Identity::generate(&format!("site-{seed}.example"), [seed; 32]).unwrap());
    let member = Identity::load(&cluster.path("member-0.key")).unwrap();
    for (node, site) in sites.iter().enumerate() {
        let body = KeyBody::Register { key: site.vkey().into(), role: Role::Fog };
        let entry = Entry::sign(EntryKind::Key, ORIGIN, &body, &[&member, site]).unwrap();
        let client = cluster.client(node);
        let placed = client.submit(&entry, Level::Witnessed, Duration::from_secs(10));
        runtime().block_on(placed).unwrap();
    }
    let (stop, record) =
        (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Record::default())));
    let mut node = 0;
    let submitters = sites.map(|site| {
        let (stop, record, client) = (Arc::clone(&stop), Arc::clone(&record), cluster.client(node));
        let own = node;
        node += 1;
        std::thread::spawn(move || runtime().block_on(submit(own, client, site, stop, record)))
    });
    until("each node has sequenced", || !record.lock().unwrap().by_node.contains(&0));
    let mut begun: Vec<(String, usize)> = Vec::new();
    cluster.faults(|what| begun.push((what.to_owned(), record.lock().unwrap().answers.len())));
    stop.store(true, Ordering::Relaxed);
    submitters.into_iter().for_each(|submitter| submitter.join().unwrap());

    let record = record.lock().unwrap();
    let gaps = gaps(&record.answers, &begun);
    println!("{:?} entries; longest gaps:", record.by_node);
    gaps.iter().for_each(|(what, gap)| println!("{gap:>8.0?}  {what}"));
    let last = record.entries.keys().next_back().copied().unwrap();
    let copies = [0, 1, 2].map(|node| copy(&cluster, node, last + 1));
    for (index, entry) in &record.entries {
        assert_eq!(copies[0][*index as usize], *entry, "an acknowledged entry is lost");
    }
    let different: BTreeSet<_> = copies[0].iter().collect();
    assert_eq!(different.len(), copies[0].len(), "an entry is in the log twice");
    for copy in &copies[1..] {
        let both = copy.len().min(copies[0].len());
        assert!(copies[0][..both] == copy[..both], "a fork");
    }
    // Nobody has seen an attempt: nodes that were behind have shown no other history.
    for port in cluster.witness_ports {
        let http = http(Some(&cluster.path("ca.pem"))).unwrap();
        let client = Client::new(http, &url(OUTSIDE, port));
        let (_, evidence) = runtime().block_on(client.evidence(0)).unwrap();
        let kinds: Vec<_> = evidence.iter().map(|piece| piece.kind().to_string()).collect();
        assert!(kinds.is_empty(), "evidence of {kinds:?}");
    }
    let longest = gaps.iter().map(|(_, gap)| *gap).max().unwrap();
    assert!(longest <= GAP_MAX, "no node got an entry in for {longest:?}");
    for process in cluster.nodes.into_iter().flatten().chain(cluster.witnesses) {
        assert!(process.terminate().success());
    }
}

/// The longest time without an answer from the beginning of each fault to that of the next.
fn gaps(answers: &[Instant], begun: &[(String, usize)]) -> Vec<(String, Duration)> {
    let ends = begun.iter().skip(1).map(|(_, at)| *at).chain([answers.len()]);
    let longest = |from: usize, to: usize| {
        let own = &answers[from.saturating_sub(1)..to];
        own.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
    };
    begun.iter().zip(ends).map(|((what, from), to)| (what.clone(), longest(*from, to))).collect()
}

/// A node's entries, checked against what the quorum has cosigned there, once it has `size` of them.
fn copy(cluster: &Cluster, node: usize, size: u64) -> Vec<Vec<u8>> {
    let runtime = runtime();
    let client = cluster.client(node);
    let policy = runtime.block_on(client.get("/v1/policy")).unwrap();
    let policy: Policy = String::from_utf8(policy).unwrap().parse().unwrap();
    let mut note = Vec::new();
    let held = within(Duration::from_secs(30), || {
        note = cluster.checkpoint(node).unwrap_or_default();
        policy.check(&note).is_ok_and(|cosigned| cosigned.size >= size)
    });
    assert!(held, "node {node} does not publish all that was acknowledged");
    let db = redb::Database::builder().create_with_backend(redb::backends::InMemoryBackend::new());
    let tiles = Tiles::open(Arc::new(db.unwrap()), cluster.log.clone()).unwrap();
    let mut copy = Copy::open(tiles).unwrap();
    let new = runtime.block_on(copy.advance(&Reader::new(client), &note)).unwrap();
    new.into_iter().map(|(_, entry)| entry).collect()
}
