//! From the submission of an entry until a quorum has cosigned it: four members in this process, over real sockets.

use crate::failure::Failure;
use haar_ledger::client::{Client, Level, http};
use haar_ledger::governance::{
    CommitmentBody, Digest, Genesis, Hex, KeyBody, Member, Operator, Quorums, Role as KeyRole,
};
use haar_ledger::server::{Config, Running, start};
use haar_ledger::{Cosigner, Entry, EntryKind, Identity, LeafKind, leaf};
use haar_telemetry::Metrics;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const ORIGIN: &str = "haar.invalid/bench";
const MEMBERS: u8 = 4;
const PATIENCE: Duration = Duration::from_secs(10);
/// Entries that are submitted, one after the other at this pace.
const ENTRIES: u64 = 300;
const PACE: Duration = Duration::from_millis(20);

/// Milliseconds from submission to quorum, ascending.
pub(super) async fn witnessed_ms(dir: &Path) -> Result<Vec<f64>, Failure> {
    let stop = CancellationToken::new();
    let consortium = Consortium::write(dir)?;
    let mut running = Vec::new();
    for n in 0..MEMBERS {
        let config = Config::load(&dir.join(format!("{n}.toml")))?;
        running.push(start(config, Metrics::new("haar-ledger")?, stop.clone()).await?);
    }
    let measured = consortium.measure().await;
    stop.cancel();
    for server in running {
        Running::join(server).await?;
    }
    measured
}

struct Consortium {
    site: Identity,
    member: Identity,
    client: Client,
}

impl Consortium {
    /// Writes keys, genesis and configurations.
    fn write(dir: &Path) -> Result<Self, Failure> {
        let log = Identity::generate(ORIGIN, [9; 32])?;
        log.save_new(&dir.join("log.key"))?;
        // All are free at once, so they are different.
        let listeners = (0..MEMBERS)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<Vec<_>, _>>()?;
        let mut members = Vec::new();
        let mut identities = Vec::new();
        for (n, listener) in (0..MEMBERS).zip(&listeners) {
            let name = format!("m{n}.invalid");
            let identity = Identity::generate(&name, [n + 1; 32])?;
            let cosigner = Cosigner::generate(&format!("{name}/witness"), [n + 101; 32])?;
            cosigner.save_new(&dir.join(format!("witness-{n}.key")))?;
            let port = listener.local_addr()?.port();
            members.push(Member {
                name: name.parse()?,
                key: identity.vkey().into(),
                cosigners: vec![cosigner.vkey().as_str().parse()?],
                url: format!("http://127.0.0.1:{port}").parse()?,
                admission: Digest::of(b""),
            });
            identities.push(identity);
            let role = if n == 0 { "'operator', 'witness'" } else { "'witness'" };
            let config = format!(
                "roles = [{role}]\ndata_dir = 'data-{n}'\nlog = '{}'\n[http]\nlisten = '127.0.0.1:{port}'\n\
                 [admin]\nlisten = '127.0.0.1:0'\n[witness]\nkey_file = 'witness-{n}.key'\n\
                 [operator]\nkey_file = 'log.key'\ngenesis_file = 'genesis.entry'\n",
                log.vkey()
            );
            std::fs::write(dir.join(format!("{n}.toml")), config)?;
        }
        let url = members[0].url.clone();
        let genesis = Genesis {
            consortium: "bench".to_owned(),
            operator: Operator {
                name: members[0].name.clone(),
                log: log.vkey().into(),
                url: url.clone(),
            },
            members,
            quorums: Quorums::default(),
            policy_bundle: Digest::of(b""),
            predecessor: None,
        };
        let signers: Vec<&Identity> = identities.iter().collect();
        let genesis = Entry::sign(EntryKind::Genesis, ORIGIN, &genesis, &signers)?;
        std::fs::write(dir.join("genesis.entry"), genesis.as_bytes())?;
        let client = Client::new(http(None)?, url.as_str());
        let site = Identity::generate("haar.invalid/site", [77; 32])?;
        Ok(Self { site, member: identities.remove(1), client })
    }

    async fn measure(&self) -> Result<Vec<f64>, Failure> {
        let body = KeyBody::Register { key: self.site.vkey().into(), role: KeyRole::Fog };
        let signers = [&self.member, &self.site];
        let entry = Entry::sign(EntryKind::Key, ORIGIN, &body, &signers)?;
        self.client.submit(&entry, Level::Witnessed, PATIENCE).await?;
        let mut submitted = tokio::task::JoinSet::new();
        for index in 0..ENTRIES {
            let entry = self.commitment(index)?;
            let client = self.client.clone();
            submitted.spawn(async move {
                let begun = Instant::now();
                let placed = client.submit(&entry, Level::Witnessed, PATIENCE).await;
                (begun.elapsed().as_secs_f64() * 1e3, placed)
            });
            tokio::time::sleep(PACE).await;
        }
        let mut ms = Vec::new();
        while let Some(done) = submitted.join_next().await {
            let (elapsed, placed) = done?;
            if placed?.level != Level::Witnessed {
                return Err(Failure::new("an entry was not witnessed in ten seconds"));
            }
            ms.push(elapsed);
        }
        ms.sort_by(f64::total_cmp);
        Ok(ms)
    }

    fn commitment(&self, index: u64) -> Result<Entry, Failure> {
        let leaf = leaf(LeafKind::FlaggedEvent, &[1; 32], &index.to_be_bytes(), &[2; 32]);
        let body = CommitmentBody { site: self.site.origin().to_owned(), index, leaf: Hex(leaf) };
        Ok(Entry::sign(EntryKind::Commitment, ORIGIN, &body, &[&self.site])?)
    }
}
