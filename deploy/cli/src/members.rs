//! A consortium of four on this machine, for `haar demo` and `haar bench ledger`: keys, first entry, servers.
//!
//! Each is the code of `haar-ledger`, with a key, a database and a socket of its own; only that they share a process makes
//! them less than members are. Real members make their keys each on a machine of theirs (`haar ledger genesis`).

use crate::failure::Failure;
use haar_ledger::client::{Client, FetchError, Level, http};
use haar_ledger::consent::bundle_hash;
use haar_ledger::governance::{
    CommitmentBody, Digest, Genesis, Hex, KeyBody, Member, Operator, Quorums, Role as KeyRole,
    State,
};
use haar_ledger::server::{
    AdminConfig, Config, FollowConfig, HttpConfig, MemberConfig, OperatorConfig, Role, Running,
    TelemetryConfig, WitnessConfig, start,
};
use haar_ledger::{
    Cosigner, Entry, EntryKind, Identity, LEAF_BYTES, PlainProof, Policy, Record, Trust,
    VerifiedEntry, VerifierKey, prove_entry, verify_entry,
};
use haar_telemetry::Metrics;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What each does. All witness: a quorum is three of the four.
const ROLES: [&[Role]; 4] = [
    &[Role::Operator, Role::Witness],
    &[Role::Witness, Role::Mirror],
    &[Role::Witness],
    &[Role::Witness, Role::Monitor],
];
/// Of the member that mirrors, and registers sites.
const MIRROR: usize = 1;
/// How long the log may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often mirror and monitor look.
const POLL_MS: u64 = 500;

/// The certificate of all servers, and its authority.
pub(crate) struct Tls {
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    pub(crate) ca_file: PathBuf,
}

/// Who the members are.
pub(crate) struct Wanted<'a> {
    /// Where keys and databases lie: a folder that is not there yet.
    pub(crate) dir: &'a Path,
    /// The log's origin.
    pub(crate) origin: &'a str,
    /// The members' names, in their order; the first operates.
    pub(crate) names: [&'a str; ROLES.len()],
    /// HTTPS for `localhost`; without it plain HTTP over loopback.
    pub(crate) tls: Option<Tls>,
}

/// The members at work, until `stop`.
pub(crate) struct Members {
    origin: String,
    identities: Vec<Identity>,
    policy_file: PathBuf,
    policy: Policy,
    clients: Vec<Client>,
    running: Vec<Running>,
    stop: CancellationToken,
}

impl Members {
    /// Founds the consortium and starts its servers.
    pub(crate) async fn found(wanted: Wanted<'_>) -> Result<Self, Failure> {
        let Wanted { dir, origin, names, tls } = wanted;
        std::fs::create_dir_all(dir)?;
        let log = identity(origin)?;
        log.save_new(&dir.join("log.key"))?;
        let ports = free_ports()?;
        let scheme = if tls.is_some() { "https://localhost" } else { "http://127.0.0.1" };
        let urls = ports.map(|port| format!("{scheme}:{port}"));
        let (mut identities, mut members) = (Vec::new(), Vec::new());
        for (name, url) in names.iter().zip(&urls) {
            let folder = dir.join(name);
            std::fs::create_dir_all(&folder)?;
            let identity = identity(name)?;
            identity.save_new(&folder.join("member.key"))?;
            let cosigner = Cosigner::generate(&format!("{name}/witness"), random()?)?;
            cosigner.save_new(&folder.join("witness.key"))?;
            members.push(Member {
                name: name.parse()?,
                key: identity.vkey().into(),
                cosigners: vec![cosigner.vkey().as_str().parse()?],
                url: url.parse()?,
                // Who was admitted by which document is the business of real members.
                admission: Digest::of(b""),
            });
            identities.push(identity);
        }
        let genesis = Genesis {
            consortium: origin.to_owned(),
            operator: Operator {
                name: members[0].name.clone(),
                log: log.vkey().into(),
                url: members[0].url.clone(),
            },
            members,
            quorums: Quorums::default(),
            policy_bundle: bundle_hash(),
            predecessor: None,
        };
        let signers: Vec<&Identity> = identities.iter().collect();
        let genesis = Entry::sign(EntryKind::Genesis, origin, &genesis, &signers)?;
        std::fs::write(dir.join("genesis.entry"), genesis.as_bytes())?;
        let policy = State::genesis(&genesis)?.policy_text(None);
        let policy_file = dir.join("policy");
        std::fs::write(&policy_file, &policy)?;

        let stop = CancellationToken::new();
        let mut running = Vec::new();
        // The operator asks the others to witness: it comes last.
        for n in (0..ROLES.len()).rev() {
            let config = config(n, dir, &log, (names[n], ports[n], urls[0].as_str()), tls.as_ref());
            running.push(start(config, Metrics::new("haar-ledger")?, stop.clone()).await?);
        }
        let http = http(tls.as_ref().map(|tls| tls.ca_file.as_path()))?;
        let clients = urls.iter().map(|url| Client::new(http.clone(), url)).collect();
        Ok(Self {
            origin: origin.to_owned(),
            identities,
            policy: policy.parse()?,
            policy_file,
            clients,
            running,
            stop,
        })
    }

    /// The operator's server.
    pub(crate) fn operator(&self) -> &Client {
        &self.clients[0]
    }

    /// Which cosignatures make a checkpoint count, as a C2SP tlog-policy file.
    pub(crate) fn policy_file(&self) -> &Path {
        &self.policy_file
    }

    /// Registers a fog's key: from when this returns, the log takes what it signs.
    pub(crate) async fn register(&self, site: &Identity) -> Result<(), Failure> {
        let body = KeyBody::Register { key: site.vkey().into(), role: KeyRole::Fog };
        let signers = [&self.identities[MIRROR], site];
        let entry = Entry::sign(EntryKind::Key, &self.origin, &body, &signers)?;
        self.operator().submit(&entry, Level::Witnessed, PATIENCE).await?;
        Ok(())
    }

    /// A site's commitment to a leaf of its log: always the same bytes.
    pub(crate) fn commitment(
        &self,
        site: &Identity,
        index: u64,
        leaf: [u8; LEAF_BYTES],
    ) -> Result<Entry, Failure> {
        let body = CommitmentBody { site: site.origin().to_owned(), index, leaf: Hex(leaf) };
        Ok(Entry::sign(EntryKind::Commitment, &self.origin, &body, &[site])?)
    }

    /// The proof file of a commitment that the log has, with the record that opens it, from the member that mirrors: not from
    /// the operator. It is checked.
    pub(crate) async fn prove(
        &self,
        commitment: &Entry,
        site: &VerifierKey,
        record: &Record,
    ) -> Result<(String, VerifiedEntry), Failure> {
        // The same bytes again: it answers where they are.
        let placed = self.operator().submit(commitment, Level::Witnessed, PATIENCE).await?;
        let deadline = Instant::now() + PATIENCE;
        let plain = loop {
            match self.clients[MIRROR].proof(placed.index).await {
                Ok(text) => break PlainProof::parse(&text)?,
                Err(FetchError::Absent(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let text = prove_entry(&plain, commitment, site, Some(record)).to_text();
        let pinned = [site.clone()];
        let verified = verify_entry(&text, &self.policy, Trust::Pinned(&pinned))?;
        Ok((text, verified))
    }

    /// Stops the servers.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        self.stop.cancel();
        for server in self.running {
            server.join().await?;
        }
        Ok(())
    }
}

/// The configuration of the member `n`, of this name, at this port; and where the operator is.
fn config(
    n: usize,
    dir: &Path,
    log: &Identity,
    (name, port, operator): (&str, u16, &str),
    tls: Option<&Tls>,
) -> Config {
    let folder = dir.join(name);
    let follows = ROLES[n].iter().any(|role| matches!(role, Role::Mirror | Role::Monitor));
    Config {
        data_dir: folder.join("data"),
        roles: ROLES[n].to_vec(),
        log: log.vkey().to_string(),
        http: HttpConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            cert_file: tls.map(|tls| tls.cert_file.clone()),
            key_file: tls.map(|tls| tls.key_file.clone()),
            ca_file: tls.map(|tls| tls.ca_file.clone()),
        },
        member: Some(MemberConfig { key_file: folder.join("member.key") }),
        operator: ROLES[n]
            .contains(&Role::Operator)
            .then(|| OperatorConfig::new(dir.join("log.key"), dir.join("genesis.entry"))),
        witness: Some(WitnessConfig { key_file: folder.join("witness.key") }),
        follow: follows
            .then(|| FollowConfig { poll_ms: POLL_MS, ..FollowConfig::new(operator.to_owned()) }),
        predecessor: Vec::new(),
        admin: AdminConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) },
        telemetry: TelemetryConfig::default(),
    }
}

/// Ports that are free. All are taken at once, so they are different.
fn free_ports() -> Result<[u16; ROLES.len()], Failure> {
    let listeners = [(); ROLES.len()].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = [0; ROLES.len()];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

fn identity(name: &str) -> Result<Identity, Failure> {
    Ok(Identity::generate(name, random()?)?)
}

fn random() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Failure::new)?;
    Ok(seed)
}
