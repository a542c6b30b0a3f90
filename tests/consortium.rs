//! A consortium of four members, each a process, over HTTPS; a hospital whose fog puts its log before them.

use crate::programs;
use crate::ward::{FAST_HEART, Process, Site, Wanted, fast_hearts, free_port, http_get, until};
use haar_ledger::client::{Client, Level, http};
use haar_ledger::governance::{CommitmentBody, State};
use haar_ledger::{AddCheckpoint, Entry, EntryKind, Identity, LeafKind, Policy};
use haar_normalize::BUILT_IN;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const ORIGIN: &str = "consortium.example/log";
const MEMBERS: usize = 4;

/// Four members of which the first operates, all witness, the second mirrors and the fourth monitors.
pub(crate) struct Consortium<'a> {
    site: &'a Site,
    ports: [u16; MEMBERS],
    pub(crate) servers: Vec<Process>,
}

impl<'a> Consortium<'a> {
    /// Made by the commands that people use.
    pub(crate) fn found(site: &'a Site) -> Self {
        let ports = std::array::from_fn(|_| free_port());
        let mut own = Self { site, ports, servers: Vec::new() };
        let log = own.key(ORIGIN, "consortium.key", false);
        let mut text = format!(
            "consortium = \"test\"\n[operator]\nname = \"m0.example\"\nlog = \"{log}\"\nurl = \"{}\"\n",
            own.url(0)
        );
        for n in 0..MEMBERS {
            let name = format!("m{n}.example");
            let key = own.key(&name, &format!("member-{n}.key"), false);
            let witness = format!("witness-{n}.key");
            let cosigner = own.key(&format!("{name}/witness"), &witness, true);
            text += &format!(
                "[[members]]\nname = \"{name}\"\nkey = \"{key}\"\ncosigners = [\"{cosigner}\"]\n\
                 url = \"{}\"\nadmission = \"{}\"\n",
                own.url(n),
                "0".repeat(64)
            );
        }
        std::fs::write(site.path("consortium.toml"), text).unwrap();
        own.haar("genesis --describe consortium.toml --key member-0.key --out genesis.entry");
        for n in 1..MEMBERS {
            own.haar(&format!("sign genesis.entry --key member-{n}.key"));
        }
        for n in 0..MEMBERS {
            own.configure(n, &log);
            own.servers.push(own.serve(n));
        }
        for n in 0..MEMBERS {
            let port = own.ports[n];
            until("a member listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        own
    }

    pub(crate) fn key(&self, name: &str, file: &str, cosigner: bool) -> String {
        let mut command = Command::new(programs::own("haar-ledger"));
        command.args(["key", name, "--out"]).arg(self.site.path(file));
        if cosigner {
            command.arg("--cosigner");
        }
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    /// `haar ledger …` in the site's folder; what it printed.
    pub(crate) fn haar(&self, args: &str) -> String {
        let made = self.run(args);
        let error = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "haar ledger {args}: {error}");
        String::from_utf8(made.stdout).unwrap()
    }

    /// The same, asked of a member's server, which fails; what it said.
    pub(crate) fn refused(&self, n: usize, args: &str) -> String {
        let made = self.run(&format!("{args} --ledger {} --ca-file ca.pem", self.url(n)));
        assert!(!made.status.success(), "haar ledger {args}");
        String::from_utf8(made.stderr).unwrap()
    }

    /// The same, asked of a member's server.
    pub(crate) fn ask(&self, n: usize, args: &str) -> String {
        self.haar(&format!("{args} --ledger {} --ca-file ca.pem", self.url(n)))
    }

    fn run(&self, args: &str) -> Output {
        Command::new(programs::own("haar"))
            .arg("ledger")
            .args(args.split_ascii_whitespace())
            .current_dir(self.site.path(""))
            .output()
            .unwrap()
    }

    /// Once a quorum has witnessed the log: its policy is pinned, and the site's fog has a key, which the second member registers.
    pub(crate) fn admit_the_site(&self) {
        until("the first checkpoint is witnessed", || {
            runtime().block_on(self.client(0).checkpoint()).is_ok()
        });
        std::fs::write(self.policy_file(), self.ask(0, "policy")).unwrap();
        std::fs::create_dir(self.site.path("fog")).unwrap();
        self.key("haar.invalid/site", "fog/log.key", false);
        let registered = "key register --key member-1.key --new fog/log.key --role fog";
        assert!(self.ask(0, registered).contains("is witnessed by a quorum"));
    }

    fn configure(&self, n: usize, log: &str) {
        let roles =
            ["'operator', 'witness'", "'witness', 'mirror'", "'witness'", "'witness', 'monitor'"]
                [n];
        let text = format!(
            "roles = [{roles}]\ndata_dir = 'ledger-{n}'\nlog = '{log}'\n\
             [http]\nlisten = '127.0.0.1:{}'\ncert_file = 'localhost.pem'\nkey_file = 'localhost.key'\n\
             ca_file = 'ca.pem'\n[admin]\nlisten = '127.0.0.1:0'\n[member]\nkey_file = 'member-{n}.key'\n\
             [witness]\nkey_file = 'witness-{n}.key'\n[follow]\nurl = '{}'\npoll_ms = 200\n\
             [operator]\nkey_file = 'consortium.key'\ngenesis_file = 'genesis.entry'\n",
            self.ports[n],
            self.url(0)
        );
        std::fs::write(self.site.path(&format!("ledger-{n}.toml")), text).unwrap();
    }

    fn serve(&self, n: usize) -> Process {
        let config = self.site.path(&format!("ledger-{n}.toml"));
        let args = ["serve", "--config", config.to_str().unwrap()];
        let log = self.site.path(&format!("ledger-{n}.log"));
        Process::start(&programs::own("haar-ledger"), &args, &log)
    }

    fn url(&self, n: usize) -> String {
        format!("https://localhost:{}", self.ports[n])
    }

    pub(crate) fn client(&self, n: usize) -> Client {
        Client::new(http(Some(&self.site.path("ca.pem"))).unwrap(), &self.url(n))
    }

    pub(crate) fn policy_file(&self) -> PathBuf {
        self.site.path("consortium.policy")
    }
}

#[test]
fn a_hospitals_log_is_put_before_members_whom_nobody_has_to_trust() {
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| (*text).to_owned()).collect();
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: FAST_HEART, otlp: None });
    let mut consortium = Consortium::found(&site);
    consortium.admit_the_site();
    let policy = std::fs::read_to_string(consortium.policy_file()).unwrap();

    put_before(&site, &consortium);
    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    fast_hearts(&site, &["bed-1", "bed-2"]);
    until("the whole site log is witnessed", || {
        let levels = levels(&site);
        levels["leaves"].as_u64() > Some(10) && levels["witnessed"] == levels["leaves"]
    });
    assert_eq!(levels(&site)["put_forward"], levels(&site)["leaves"]);
    flagged_events_are_proven(&consortium, &policy);

    // An operator that signs another history is found out, and every site has it in its log in 5 s.
    let forked = Instant::now();
    fork(&consortium);
    until("the site log has the evidence", || has_evidence(&site));
    assert!(forked.elapsed() < Duration::from_secs(5), "{:?}", forked.elapsed());

    // An operator that is killed goes on where it was.
    consortium.servers.remove(0).kill();
    consortium.servers.insert(0, consortium.serve(0));
    until("the evidence is witnessed as well", || {
        let levels = levels(&site);
        levels["witnessed"] == levels["leaves"]
    });
    assert!(consortium.ask(1, "members").contains("m3.example"));
    assert!(consortium.ask(1, "show").contains("version 0"));
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());
    let log = Identity::load(&site.path("consortium.key")).unwrap().vkey().to_string();
    // And one that is gone for good is not missed.
    consortium.servers.remove(0).kill();
    for server in std::mem::take(&mut consortium.servers) {
        assert!(server.terminate().success());
    }
    exported_tiles_are_sound(&site, &log);
    the_members_go_on_with_another(&site, &mut consortium, &log);
}

/// By the commands that people use: the second member's server operates the next log, and the hospital goes on.
fn the_members_go_on_with_another(site: &Site, consortium: &mut Consortium<'_>, log: &str) {
    let next = consortium.key("consortium.example/log-2", "next.key", false);
    let run = |args: &str| {
        let mut command = Command::new(programs::own("haar-ledger"));
        command.args(args.split_ascii_whitespace()).current_dir(site.path(""));
        let done = command.output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let url = consortium.url(1);
    let made = run(&format!(
        "succeed --config ledger-1.toml --name m1.example --log {next} --url {url} --key member-1.key \
         --out next.entry"
    ));
    assert!(made.0, "{}", made.1);
    consortium.haar("sign next.entry --key member-2.key");
    assert!(!run("succeed --config ledger-3.toml --check next.entry").0, "two of four are too few");
    consortium.haar("sign next.entry --key member-3.key");
    let (begins, said) = run("succeed --config ledger-3.toml --check next.entry");
    assert!(begins && said.contains("it begins the log"), "{said}");
    for n in 1..MEMBERS {
        let path = site.path(&format!("ledger-{n}.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text
            .replace("data_dir = 'ledger-", "data_dir = 'next-")
            .replace(log, &next)
            .replace("consortium.key", "next.key")
            .replace("genesis.entry", "next.entry")
            .replace(&consortium.url(0), &url)
            .replace("roles = ['witness', 'mirror']", "roles = ['operator', 'witness']");
        let before = format!("[[predecessor]]\nlog = '{log}'\ndata_dir = 'ledger-{n}'\n");
        std::fs::write(&path, text + &before).unwrap();
        let server = consortium.serve(n);
        consortium.servers.push(server);
    }
    until("the next log is witnessed", || {
        runtime().block_on(consortium.client(1).checkpoint()).is_ok()
    });
    std::fs::write(consortium.policy_file(), consortium.ask(1, "policy")).unwrap();
    let path = site.path("fog.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text
        .replace(&consortium.url(0), &url)
        .replace("evidence_from", &format!("predecessors = [\"{log}\"]\nevidence_from"));
    std::fs::write(&path, text).unwrap();
    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let leaves = levels(site)["leaves"].as_u64().unwrap();
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    fast_hearts(site, &["bed-3"]);
    until("the whole site log is witnessed by the next log", || {
        let levels = levels(site);
        levels["leaves"].as_u64() > Some(leaves + 2) && levels["witnessed"] == levels["leaves"]
    });
    assert!(consortium.ask(3, "show").contains("consortium.example/log-2"));
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());
    for server in std::mem::take(&mut consortium.servers) {
        assert!(server.terminate().success());
    }
}

/// What the mirror has is written as static files, and hashed again from the entries up; so is what servers keep.
fn exported_tiles_are_sound(site: &Site, log: &str) {
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(programs::own(program));
        let done = command.args(args).current_dir(site.path("")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    run("haar-ledger", &["export", "--config", "ledger-1.toml", "--out", "tiles"]);
    // As static files, and as a mirror and a monitor keep it.
    for kept in ["tiles", "ledger-1/ledger.redb", "ledger-3/ledger.redb"] {
        let checked = run("haar", &["fsck", "--log", kept, "--key", log]);
        assert!(checked.contains("PASS"), "{kept}: {checked}");
    }
}

/// The fog's configuration: its log goes before the members, and edges keep what is not witnessed.
pub(crate) fn put_before(site: &Site, consortium: &Consortium<'_>) {
    let path = site.path("fog.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += &format!(
        "\n[consortium]\nurls = [\"{}\"]\npolicy_file = \"consortium.policy\"\nca_file = \"ca.pem\"\n\
         every_ms = 200\nedges_keep_until = \"witnessed\"\nevidence_from = [\"{}\"]\n",
        consortium.url(0),
        consortium.url(1)
    );
    std::fs::write(&path, text).unwrap();
}

fn levels(site: &Site) -> Value {
    let (_, body) = http_get(site.fog_admin, "/v1/consortium").unwrap_or_default();
    serde_json::from_str(&body).unwrap_or_default()
}

/// Every flagged event of the site is an entry of its own, proven under the pinned policy by the mirror.
fn flagged_events_are_proven(consortium: &Consortium<'_>, policy: &str) {
    let runtime = runtime();
    let policy: Policy = policy.parse().unwrap();
    let checkpoint = runtime.block_on(consortium.client(0).checkpoint()).unwrap();
    let size = policy.check(&checkpoint).unwrap().size;
    let mut state: Option<State> = None;
    let mut flagged = Vec::new();
    for index in 0..size {
        let entry = runtime.block_on(consortium.client(0).entry(index)).unwrap();
        match &mut state {
            None => state = Some(State::genesis(&entry).unwrap()),
            Some(state) => drop(state.apply(index, &entry).unwrap()),
        }
        if entry.kind() == EntryKind::Commitment {
            let body: CommitmentBody = entry.body().unwrap();
            assert_eq!(LeafKind::from_byte(body.leaf.0[1]), Some(LeafKind::FlaggedEvent));
            flagged.push(index);
        }
    }
    assert!(flagged.len() >= 2, "{flagged:?}");
    until("the mirror has them", || {
        let proof = runtime.block_on(consortium.client(1).proof(flagged[0]));
        proof.is_ok()
    });
    let prove = format!("prove {} --policy consortium.policy --out event.tlog-proof", flagged[0]);
    let printed = consortium.ask(1, &prove);
    assert!(printed.matches("witnessed by").count() >= 3, "{printed}");
    let verified = Command::new(programs::own("haar"))
        .args(["verify", "event.tlog-proof", "--policy", "consortium.policy"])
        .current_dir(consortium.site.path(""))
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && words.starts_with("PASS  commitment entry"), "{words}");
    // An entry of nobody's is refused.
    let stranger = Identity::generate("stranger.example", [5; 32]).unwrap();
    let first = runtime.block_on(consortium.client(0).entry(flagged[0])).unwrap();
    let body: CommitmentBody = first.body().unwrap();
    let entry = Entry::sign(EntryKind::Commitment, ORIGIN, &body, &[&stranger]).unwrap();
    let refused = runtime.block_on(consortium.client(0).submit(
        &entry,
        Level::Sequenced,
        Duration::from_secs(5),
    ));
    assert!(refused.is_err());
}

/// The operator signs another root of the size that a witness has cosigned.
fn fork(consortium: &Consortium<'_>) {
    let runtime = runtime();
    let log = Identity::load(&consortium.site.path("consortium.key")).unwrap();
    let note = runtime.block_on(consortium.client(0).checkpoint()).unwrap();
    let text = String::from_utf8(note).unwrap();
    let size = text.lines().nth(1).unwrap();
    let other = format!("{ORIGIN}\n{size}\n{}\n", "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=");
    let checkpoint = String::from_utf8(log.sign(&other).unwrap()).unwrap();
    let request = AddCheckpoint { old_size: size.parse().unwrap(), proof: Vec::new(), checkpoint };
    let (status, body) =
        runtime.block_on(consortium.client(2).add_checkpoint(request.to_text())).unwrap();
    // 422, or 409 if the log has grown since; either way nothing was cosigned.
    assert!([409, 422].contains(&status), "{status}: {body}");
}

fn has_evidence(site: &Site) -> bool {
    let leaves = levels(site)["leaves"].as_u64().unwrap_or_default();
    (0..leaves).rev().take(50).any(|index| {
        http_get(site.fog_admin, &format!("/v1/records/{index}"))
            .is_some_and(|(_, body)| body.contains("\"evidence\""))
    })
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
