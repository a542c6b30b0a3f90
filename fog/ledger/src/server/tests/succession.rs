//! The operator is gone for good, and the members go on with another.

use super::*;
use crate::consortium::LineageError;
use crate::governance::{Genesis as GenesisBody, Refused};

const NEXT: &str = "consortium.example/log-2";

impl Consortium {
    fn next_log(&self) -> Identity {
        Identity::generate(NEXT, [19; 32]).unwrap()
    }

    /// Member `n` proposes that the second operates the next log; from its own copy.
    fn elect(&self, n: usize) -> Entry {
        self.next_log().save_new(&self.path("next.key")).unwrap();
        let operator = OperatorBody {
            name: NAMES[1].parse().unwrap(),
            log: self.next_log().vkey().into(),
            url: self.url(1).parse().unwrap(),
        };
        succeed(&self.config(n), operator, &self.members[n]).unwrap()
    }

    /// Member `n` of the log that follows; the second operates it.
    fn next_config(&self, n: usize) -> Config {
        let log = self.next_log();
        let roles = if n == 1 { "['operator', 'witness']" } else { "['witness', 'monitor']" };
        let text = format!(
            "roles = {roles}\ndata_dir = 'next-{n}'\nlog = '{}'\n[http]\nlisten = '127.0.0.1:{}'\n\
             [admin]\nlisten = '127.0.0.1:0'\n[member]\nkey_file = 'member-{n}.key'\n\
             [witness]\nkey_file = 'witness-{n}.key'\n[follow]\nurl = '{}'\npoll_ms = 100\n\
             [operator]\nkey_file = 'next.key'\ngenesis_file = 'next.entry'\nbatch_ms = 5\n\
             [[predecessor]]\nlog = '{}'\ndata_dir = 'data-{n}'\n",
            log.vkey(),
            self.ports[n],
            self.url(1),
            self.log.vkey(),
        );
        let path = self.path(&format!("next-{n}.toml"));
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    }

    /// What became of starting it; in one process a database is closed a little after the server that did not start.
    async fn start_next(&mut self, n: usize) -> Result<(), ServerError> {
        let started = eventually("an end of the one before", async || {
            let metrics = Metrics::new("haar-ledger").unwrap();
            match start(self.next_config(n), metrics, self.shutdown.child_token()).await {
                Err(
                    ServerError::Database(redb::Error::DatabaseAlreadyOpen)
                    | ServerError::Predecessor { .. },
                ) => None,
                started => Some(started),
            }
        })
        .await;
        self.running[n] = Some(started?);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_members_go_on_with_another_operator() {
    let mut consortium = Consortium::found().await;
    let site = consortium.register_site().await;
    let client = consortium.client(0);
    let placed = client.submit(&commitment(&site, 1), Level::Witnessed, SOON).await.unwrap();
    assert_eq!(placed.level, Level::Witnessed);
    let proof = client.proof(placed.index).await.unwrap();
    for n in 1..4 {
        let client = consortium.client(n);
        eventually("the copy", async || client.proof(placed.index).await.ok()).await;
    }
    for n in 0..4 {
        consortium.stop(n).await;
    }
    let genesis = consortium.elect(2);
    let two = genesis.countersign(&consortium.members[1]).unwrap();
    let three = two.countersign(&consortium.members[3]).unwrap();

    // Two of four are no quorum for a change of operator; nor may anything else be changed along with it.
    std::fs::write(consortium.path("next.entry"), two.as_bytes()).unwrap();
    let begun = consortium.start_next(1).await;
    assert!(matches!(begun, Err(ServerError::Begin(LineageError::Refused(Refused::Signers(_))))));
    let mut body: GenesisBody = three.body().unwrap();
    body.members.pop();
    let signers: Vec<&Identity> = consortium.members.iter().collect();
    let fewer = Entry::sign(EntryKind::Genesis, NEXT, &body, &signers).unwrap();
    std::fs::write(consortium.path("next.entry"), fewer.as_bytes()).unwrap();
    let begun = consortium.start_next(1).await;
    assert!(matches!(begun, Err(ServerError::Begin(LineageError::Refused(Refused::Successor(_))))));

    std::fs::write(consortium.path("next.entry"), three.as_bytes()).unwrap();
    for n in 1..4 {
        consortium.start_next(n).await.unwrap();
    }
    // The site's key and what it has committed to go on; the first member is away, three are a quorum.
    let client = consortium.client(1);
    let entry = |index| {
        let leaf = commitment(&site, index).body::<CommitmentBody>().unwrap();
        Entry::sign(EntryKind::Commitment, NEXT, &leaf, &[&site]).unwrap()
    };
    let next = client.submit(&entry(2), Level::Witnessed, SOON).await.unwrap();
    assert_eq!((next.index, next.level), (1, Level::Witnessed));
    let known = client.submit(&entry(1), Level::Sequenced, SOON).await;
    assert!(matches!(known, Err(SubmitError::Known(_))), "{known:?}");
    for n in 1..4 {
        let client = consortium.client(n);
        let state = eventually("the state", async || client.get("/v1/state").await.ok()).await;
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        assert_eq!(state["origin"], NEXT);
        assert_eq!(state["predecessor"]["origin"], ORIGIN);
    }
    // What was proven stays so, by the policy of then; and nobody cosigns for the one who was left.
    let (_, note) = proof.split_once("\n\n").unwrap();
    assert!(consortium.policy().check(note.as_bytes()).is_ok());
    let request = crate::AddCheckpoint {
        old_size: 0,
        proof: Vec::new(),
        checkpoint: crate::SignedCheckpoint::sign(&consortium.log, 99, [1; 32])
            .unwrap()
            .note()
            .to_owned(),
    };
    let (status, _) = consortium.client(2).add_checkpoint(request.to_text()).await.unwrap();
    assert_eq!(status, 404, "the old log is not watched any more");
    // And again after a restart.
    for n in 1..4 {
        consortium.stop(n).await;
    }
    for n in 1..4 {
        consortium.start_next(n).await.unwrap();
    }
    let next = client.submit(&entry(3), Level::Witnessed, SOON).await.unwrap();
    assert_eq!((next.index, next.level), (2, Level::Witnessed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_not_whole_begins_nothing() {
    let mut consortium = Consortium::found().await;
    let client = consortium.client(0);
    eventually("a checkpoint", async || client.checkpoint().await.ok()).await;
    for n in 0..4 {
        consortium.stop(n).await;
    }
    let genesis = consortium.elect(0);
    let signed = genesis.countersign(&consortium.members[1]).unwrap();
    let signed = signed.countersign(&consortium.members[2]).unwrap();
    std::fs::write(consortium.path("next.entry"), signed.as_bytes()).unwrap();
    let config = consortium.config(1);
    std::fs::remove_file(config.data_dir.join(DATABASE_FILE)).unwrap();
    drop(redb::Database::create(config.data_dir.join(DATABASE_FILE)).unwrap());
    let begun = consortium.start_next(1).await;
    assert!(matches!(begun, Err(ServerError::Begin(LineageError::Short { have: 0, .. }))));
}
