//! What somebody attempts, and who hears of it.

use super::*;
use crate::evidence::Evidence;
use axum::Router;
use axum::routing::{get, post};
use std::collections::BTreeSet;

/// What a member has heard of one kind.
async fn heard(consortium: &Consortium, n: usize, kind: EvidenceKind) -> Vec<Evidence> {
    let told = consortium.client(n).evidence(0).await.map(|(_, told)| told).unwrap_or_default();
    told.into_iter().filter(|own| own.kind() == kind).collect()
}

/// An attempt of the third member's: a commitment in the name of a site that is not its own.
async fn attempt(consortium: &Consortium) {
    let entry = commitment(&consortium.members[2], 1);
    let refused = consortium.client(0).submit(&entry, Level::Sequenced, SOON).await;
    assert!(matches!(refused, Err(SubmitError::Refused(_))), "{refused:?}");
}

/// Somebody else at a member's address.
async fn in_place_of(consortium: &Consortium, n: usize, router: Router) {
    let address = ("127.0.0.1", consortium.ports[n]);
    let listener =
        eventually("the address", async || tokio::net::TcpListener::bind(address).await.ok()).await;
    tokio::spawn(async move { axum::serve(listener, router).await });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_hears_it_though_everybody_was_restarted() {
    let mut consortium = Consortium::found().await;
    consortium.stop(1).await;
    attempt(&consortium).await;
    for n in [0, 2, 3] {
        eventually("the news", async || {
            (heard(&consortium, n, EvidenceKind::RefusedEntry).await.len() == 1).then_some(())
        })
        .await;
    }
    for n in [0, 2, 3] {
        consortium.stop(n).await;
    }
    for n in [0, 2, 3, 1] {
        consortium.start(n).await;
    }
    eventually("the old news", async || {
        (heard(&consortium, 1, EvidenceKind::RefusedEntry).await.len() == 1).then_some(())
    })
    .await;
}

/// Anybody may ask a witness, with an honest checkpoint and a wrong proof.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_proof_makes_no_witness_testify() {
    let mut consortium = Consortium::found().await;
    let site = consortium.register_site().await;
    let client = consortium.client(0);
    client.submit(&commitment(&site, 1), Level::Witnessed, SOON).await.unwrap();
    for n in [1, 3] {
        consortium.stop(n).await;
        let placed =
            client.submit(&commitment(&site, 2 + n as u64), Level::Witnessed, SOON).await.unwrap();
        assert_eq!(placed.level, Level::Witnessed);
        let checkpoint = String::from_utf8(client.checkpoint().await.unwrap()).unwrap();
        consortium.start(n).await;
        let origin = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(ORIGIN));
        let own = consortium.client(n).get(&format!("/{origin}/checkpoint")).await.unwrap();
        let old_size = consortium.policy().signed(&own).unwrap().size;
        let request = crate::AddCheckpoint { old_size, proof: vec![[7; 32]], checkpoint };
        let (status, _) = consortium.client(n).add_checkpoint(request.to_text()).await.unwrap();
        assert_eq!(status, 422);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (_, told) = consortium.client(n).evidence(0).await.unwrap();
        assert!(told.is_empty(), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_falls_silent_is_everybodys_news_and_enters_the_log_when_it_is_back() {
    let mut consortium = Consortium::found().await;
    consortium.stale_s = 2;
    for n in 0..4 {
        consortium.stop(n).await;
    }
    for n in 0..4 {
        consortium.start(n).await;
    }
    let client = consortium.client(0);
    eventually("a checkpoint", async || client.checkpoint().await.ok()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(heard(&consortium, 3, EvidenceKind::Stale).await.is_empty(), "cosigned every second");
    consortium.stop(0).await;
    let speakers = async |n: usize| -> BTreeSet<String> {
        let told = heard(&consortium, n, EvidenceKind::Stale).await;
        told.iter().map(|own| own.speaker().unwrap().to_owned()).collect()
    };
    let all: BTreeSet<String> = NAMES[1..].iter().map(|name| (*name).to_owned()).collect();
    for n in 1..4 {
        eventually("the news", async || (speakers(n).await == all).then_some(())).await;
    }
    consortium.start(0).await;
    eventually("the entries", async || {
        let mut entered = BTreeSet::new();
        for index in 1.. {
            let Ok(entry) = consortium.client(0).entry(index).await else { break };
            if entry.kind() == EntryKind::Evidence {
                let said: Evidence = entry.body().ok()?;
                entered.insert(said.speaker()?.to_owned());
            }
        }
        (entered == all).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cosignature_that_does_not_fit_is_everybodys_news() {
    let mut consortium = Consortium::found().await;
    let site = consortium.register_site().await;
    consortium.stop(2).await;
    // The third member's witness signs another text than it was shown.
    let line = consortium.cosigner(2).cosign("consortium.example/log\n7\nAAAA\n", 1_000);
    let witness = Router::new().route("/add-checkpoint", post(async move || line));
    in_place_of(&consortium, 2, witness).await;
    let client = consortium.client(0);
    let placed = client.submit(&commitment(&site, 1), Level::Witnessed, SOON).await.unwrap();
    assert_eq!(placed.level, Level::Witnessed, "the other three are enough");
    for n in [0, 1, 3] {
        let told = eventually("the news", async || {
            heard(&consortium, n, EvidenceKind::BadSignature).await.pop()
        })
        .await;
        assert_eq!(told.speaker(), Some(NAMES[0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_under_a_signature_that_does_not_fit_is_everybodys_news() {
    let mut consortium = Consortium::found().await;
    let client = consortium.client(0);
    let note = eventually("a checkpoint", async || client.checkpoint().await.ok()).await;
    let size = consortium.policy().check(&note).unwrap().size;
    for n in 1..4 {
        let client = consortium.client(n);
        eventually("the copy", async || client.checkpoint().await.ok()).await;
    }
    consortium.stop(0).await;
    let note = String::from_utf8(note).unwrap();
    let altered = note.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size + 1), 1);
    let log = Router::new().route("/checkpoint", get(async move || altered));
    in_place_of(&consortium, 0, log).await;
    for n in 1..4 {
        eventually("the news", async || {
            let told = heard(&consortium, n, EvidenceKind::BadSignature).await;
            let speakers: BTreeSet<&str> = told.iter().filter_map(Evidence::speaker).collect();
            (speakers.len() == 3).then_some(())
        })
        .await;
    }
}

/// Whoever is no member is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_word_is_not_kept() {
    let consortium = Consortium::found().await;
    let client = consortium.client(3);
    let note = eventually("a checkpoint", async || client.checkpoint().await.ok()).await;
    let note = String::from_utf8(note).unwrap();
    // Under a member's name, with another key.
    let stranger = Identity::generate(NAMES[1], [99; 32]).unwrap();
    let word = Evidence::of_stale(consortium.log.vkey(), &note, 7, &stranger).unwrap();
    let told = client.tell(&word).await;
    assert!(matches!(told, Err(client::FetchError::Refused { status: 403, .. })), "{told:?}");
    assert!(heard(&consortium, 3, EvidenceKind::Stale).await.is_empty());
    // An entry that a member did make, said to have been refused by somebody who is none.
    let entry = eventually("the genesis", async || client.entry(0).await.ok()).await;
    let (log, kind) = (consortium.log.vkey(), EvidenceKind::RefusedEntry);
    let word = Evidence::of_entry(log, kind, &entry, "forbidden", &stranger).unwrap();
    let told = client.tell(&word).await;
    assert!(matches!(told, Err(client::FetchError::Refused { status: 403, .. })), "{told:?}");
    assert!(heard(&consortium, 3, kind).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_withholds_its_entries_is_everybodys_news() {
    let mut consortium = Consortium::found().await;
    consortium.stale_s = 2;
    let client = consortium.client(0);
    eventually("a checkpoint", async || client.checkpoint().await.ok()).await;
    for n in 0..4 {
        consortium.stop(n).await;
    }
    for n in 1..4 {
        consortium.start(n).await;
    }
    // A greater tree, which everybody has cosigned just now; of its entries nothing is shown.
    let text = format!("{ORIGIN}\n900\n{}=\n", "A".repeat(43));
    let signed = String::from_utf8(consortium.log.sign(&text).unwrap()).unwrap();
    let cosigners: Vec<Cosigner> = (0..4).map(|n| consortium.cosigner(n)).collect();
    let note = Arc::new(move || {
        let lines = cosigners.iter().map(|cosigner| cosigner.cosign(&text, now_s()));
        signed.clone() + &lines.collect::<String>()
    });
    assert!(consortium.policy().check(note().as_bytes()).is_ok(), "the quorum's word for it");
    let shown = Router::new().route("/checkpoint", get(async move || note()));
    in_place_of(&consortium, 0, shown).await;
    let all: BTreeSet<&str> = NAMES[1..].iter().copied().collect();
    for n in 1..4 {
        eventually("the news", async || {
            let told = heard(&consortium, n, EvidenceKind::Stale).await;
            let speakers: BTreeSet<&str> = told.iter().filter_map(Evidence::speaker).collect();
            (speakers == all).then_some(())
        })
        .await;
    }
}
