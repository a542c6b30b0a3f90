//! Collecting cosignatures, and publishing a checkpoint once it has as many as the log's policy demands.
//!
//! A round takes the newest checkpoint to all witnesses at once (C2SP tlog-witness). When enough have
//! cosigned it is published, and the next round begins with whatever is newest then; cosignatures that come
//! later are added to what is published. A witness that is slow misses rounds and holds up nobody. Where some kinds of entries want
//! more cosignatures than others, a round goes on for [`LINGER`] after it was published, or until all have answered: else the
//! stricter kinds would wait until nothing new comes.
//!
//! When nothing new comes, the witnesses are asked again every `refresh`: each cosignature carries its time,
//! so a reader can tell a quiet log from one that is withheld.

use super::gossip::Gossip;
use super::instruments::Instruments;
use crate::checkpoint::{Head, SignedCheckpoint};
use crate::client::Client;
use crate::consortium::{Published, Tiles};
use crate::policy::{Policy, PolicyWitness};
use crate::witness::AddCheckpoint;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a witness is asked for one checkpoint when it remembers another size than we thought.
const MAX_ASKS: u32 = 3;
/// How long to wait after a round in which the quorum was not reached.
const RETRY: Duration = Duration::from_millis(500);
/// For how long witnesses may be ahead before it is called a fault: another node may have been quicker.
const AHEAD_FOR: Duration = Duration::from_secs(10);
/// How long a round waits for more cosignatures than it needs.
const LINGER: Duration = Duration::from_millis(500);

/// Takes checkpoints to witnesses.
pub(crate) struct Cosigning<P> {
    pub(crate) tiles: Tiles,
    pub(crate) http: reqwest::Client,
    /// The policy that holds now, and whether some kinds of entries want more than it.
    pub(crate) policy: P,
    pub(crate) latest: watch::Receiver<SignedCheckpoint>,
    /// Size 0 before the first.
    pub(crate) published: watch::Sender<Published>,
    pub(crate) refresh: Duration,
    pub(crate) gossip: Gossip,
    pub(crate) instruments: Instruments,
    /// Since when each witness has been ahead of what is here.
    pub(crate) ahead_since: BTreeMap<String, Instant>,
}

/// One checkpoint on its way to the quorum.
struct Round {
    size: u64,
    signed: String,
    /// By witness: its line.
    lines: BTreeMap<String, String>,
    published: Option<Instant>,
    began: Instant,
}

/// What one witness answered.
struct Answer {
    witness: String,
    /// The checkpoint that it was asked about, by its note.
    signed: String,
    remembers: Option<u64>,
    line: Option<String>,
    /// A line under its key that does not fit the checkpoint, and the key.
    bad: Option<(String, String)>,
    /// A checkpoint that the log signed and that is larger than any here.
    ahead: Option<String>,
}

impl<P: Fn() -> (Policy, bool)> Cosigning<P> {
    /// Publishes until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut asked = JoinSet::new();
        let mut busy = BTreeSet::new();
        let mut remembered: BTreeMap<String, u64> = BTreeMap::new();
        loop {
            let (policy, some_are_stricter) = (self.policy)();
            let linger = if some_are_stricter { LINGER } else { Duration::ZERO };
            let checkpoint = self.latest.borrow_and_update().clone();
            let mut round = Round {
                size: checkpoint.size(),
                signed: checkpoint.note().to_owned(),
                lines: BTreeMap::new(),
                published: None,
                began: Instant::now(),
            };
            let refresh = Instant::now() + self.refresh;
            self.ask(&mut asked, &mut busy, &remembered, &policy, &round);
            self.publish(&policy, &mut round);
            loop {
                let until = round.published.map(|at| at + linger);
                let is_over =
                    until.is_some_and(|until| asked.is_empty() || Instant::now() >= until);
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep_until(until.unwrap_or(refresh)), if until.is_some() && !is_over => {}
                    Some(answer) = asked.join_next() => {
                        let Ok(answer) = answer else { continue };
                        busy.remove(&answer.witness);
                        if let Some(size) = answer.remembers {
                            remembered.insert(answer.witness.clone(), size);
                        }
                        self.tell(&answer).await;
                        if answer.signed != round.signed {
                            // It was busy with an older checkpoint until now.
                            self.ask(&mut asked, &mut busy, &remembered, &policy, &round);
                        } else if let Some(line) = answer.line {
                            round.lines.insert(answer.witness, line);
                            self.publish(&policy, &mut round);
                        }
                    }
                    changed = self.latest.changed(), if is_over => {
                        if changed.is_err() { return }
                        break;
                    }
                    () = tokio::time::sleep_until(refresh), if is_over => break,
                    () = tokio::time::sleep(RETRY), if round.published.is_none() && asked.is_empty() => {
                        tracing::warn!(
                            size = round.size,
                            cosignatures = round.lines.len(),
                            "too few witnesses answer for the quorum; asking again"
                        );
                        break;
                    }
                }
            }
        }
    }

    /// Asks every witness that is not busy and has not answered.
    fn ask(
        &self,
        asked: &mut JoinSet<Answer>,
        busy: &mut BTreeSet<String>,
        remembered: &BTreeMap<String, u64>,
        policy: &Policy,
        round: &Round,
    ) {
        for witness in policy.witnesses() {
            let Some(url) = &witness.url else { continue };
            let answered = round.lines.contains_key(&witness.name);
            if answered || !busy.insert(witness.name.clone()) {
                continue;
            }
            asked.spawn(take_to(
                witness.clone(),
                Client::new(self.http.clone(), url),
                self.tiles.clone(),
                remembered.get(&witness.name).copied().unwrap_or(0),
                (round.size, round.signed.clone()),
            ));
        }
    }

    /// What a witness's answer shows beside its cosignature.
    async fn tell(&mut self, answer: &Answer) {
        if let Some((line, key)) = &answer.bad {
            tracing::error!(witness = answer.witness, "a cosignature does not fit");
            self.gossip.bad_signature(&format!("{}{line}", answer.signed), key).await;
        }
        if let Some(ahead) = &answer.ahead {
            // Another node of this log may have been quicker; then this one has it too in a moment.
            let newest = self.latest.borrow().size();
            let theirs =
                Head::open_cosigned(ahead.as_bytes(), std::slice::from_ref(self.tiles.log()));
            let is_ahead = theirs.is_ok_and(|(head, _)| head.size > newest);
            if !is_ahead {
                self.ahead_since.remove(&answer.witness);
                return;
            }
            let since = self.ahead_since.entry(answer.witness.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= AHEAD_FOR {
                tracing::error!(
                    witness = answer.witness,
                    ours = newest,
                    "a witness has a larger checkpoint of this log than its operator: the operator's store was put back to \
                     an older state, or another node is ahead. Restore the newest copy; the witnesses refuse a second history"
                );
                self.instruments.behind_witness();
            }
        } else if answer.line.is_some() {
            self.ahead_since.remove(&answer.witness);
        }
    }

    /// Publishes the round's checkpoint if it counts, with all cosignatures that it has.
    fn publish(&self, policy: &Policy, round: &mut Round) {
        let note: String = std::iter::once(&round.signed)
            .chain(round.lines.values())
            .map(String::as_str)
            .collect();
        let Ok(cosigned) = policy.check(note.as_bytes()) else { return };
        match self.tiles.publish(&note) {
            Ok(()) => {
                let behind = policy.witnesses().len().saturating_sub(round.lines.len());
                let seconds = round.began.elapsed().as_secs_f64();
                match round.published {
                    None => self.instruments.published(round.size, seconds, behind),
                    // Cosignatures that come later say nothing of how soon it counted.
                    Some(_) => self.instruments.behind(behind),
                }
                if let Some(since_s) = policy.vouched_s(&cosigned) {
                    self.instruments.vouched(since_s);
                }
                round.published = round.published.or(Some(Instant::now()));
                let _ = self.published.send_replace(Published { size: round.size, note });
            }
            Err(error) => tracing::error!(%error, "a checkpoint that counts was not published"),
        }
    }
}

/// Asks one witness about one checkpoint.
async fn take_to(
    witness: PolicyWitness,
    client: Client,
    tiles: Tiles,
    mut old_size: u64,
    (size, signed): (u64, String),
) -> Answer {
    let name = witness.name.clone();
    let mut answer =
        Answer { witness: name, signed, remembers: None, line: None, bad: None, ahead: None };
    for _ in 0..MAX_ASKS {
        let proof = match tiles.consistency(old_size.min(size), size) {
            Ok(proof) => proof,
            Err(error) => {
                tracing::error!(%error, "no consistency proof for a witness");
                return answer;
            }
        };
        let checkpoint = answer.signed.clone();
        let request = AddCheckpoint { old_size: old_size.min(size), proof, checkpoint };
        match client.add_checkpoint(request.to_text()).await {
            Ok((200, body)) => {
                let own = format!("— {} ", witness.key.name());
                let line = body.split_inclusive('\n').find(|line| line.starts_with(&own));
                if let Some(line) = line {
                    match witness.key.verify(&format!("{}{line}", answer.signed)) {
                        Ok(Some(_)) => answer.line = Some(line.to_owned()),
                        Ok(None) => {}
                        Err(_) => {
                            let key = witness.key.as_str().to_owned();
                            answer.bad = Some((line.to_owned(), key));
                        }
                    }
                }
                answer.remembers = Some(size);
                return answer;
            }
            Ok((409, body)) => match body.trim().parse::<u64>() {
                Ok(remembers) if remembers <= size => {
                    answer.remembers = Some(remembers);
                    old_size = remembers;
                }
                Ok(_) => {
                    let origin = hex::encode(Sha256::digest(tiles.log().origin()));
                    let theirs = client.get(&format!("/{origin}/checkpoint")).await.ok();
                    answer.ahead = theirs.and_then(|note| String::from_utf8(note).ok());
                    return answer;
                }
                Err(_) => return answer,
            },
            Ok((status, _)) => {
                tracing::warn!(witness = witness.name, status, "a witness refuses the checkpoint");
                return answer;
            }
            Err(error) => {
                tracing::debug!(witness = witness.name, %error, "a witness does not answer");
                return answer;
            }
        }
    }
    answer
}
