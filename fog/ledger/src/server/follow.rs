//! Following a log that somebody else operates: a mirror's copy, and a monitor's eyes.
//!
//! A follower copies every entry ([`Copy`]) and applies it to the log's own rules ([`State`]), so it knows
//! what the members agreed on without asking anybody. What it finds becomes evidence:
//!
//! | found | how |
//! |---|---|
//! | a history that was rewritten | the copied entries do not lead to the new checkpoint |
//! | a split view | a witness, or another node, has a checkpoint of a size that hashes differently here |
//! | a rule that was broken | an entry in the log that the rules refuse |
//! | a stale checkpoint | no quorum has cosigned anything within `stale_s`, whether or not the log answers |
//! | a bad signature | a line of the log, or of a witness, that does not fit the checkpoint |
//! | a checkpoint without a quorum | published below the policy |

use super::gossip::Gossip;
use super::instruments::Instruments;
use super::operator::SharedState;
use crate::checkpoint::{CheckpointError, Head};
use crate::client::Client;
use crate::consortium::{Copy, CopyError, Lineage, Reader, Tiles};
use crate::entry::Entry;
use crate::evidence::EvidenceKind;
use crate::governance::State;
use crate::policy::Policy;
use haar_telemetry::Outage;
use sha2::{Digest, Sha256};
use std::sync::{PoisonError, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Follows one log. Whoever has it may have it take a checkpoint; one at a time does.
pub(crate) struct Follower {
    pub(crate) copy: Mutex<Copy>,
    pub(crate) tiles: Tiles,
    pub(crate) state: SharedState,
    pub(crate) reader: Reader,
    pub(crate) http: reqwest::Client,
    pub(crate) gossip: Gossip,
    pub(crate) poll: Duration,
    pub(crate) stale_s: u64,
    /// Whether it compares what others are shown.
    pub(crate) monitors: bool,
    pub(crate) instruments: Instruments,
    /// The logs before.
    pub(crate) before: Lineage,
}

impl Follower {
    /// Follows until `shutdown`.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        let mut pace = tokio::time::interval(self.poll);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut outage = Outage::default();
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                () = shutdown.cancelled() => return,
            }
            self.look(&mut outage).await;
        }
    }

    /// Copies up to a checkpoint that the log signed, cosigned or not.
    pub(crate) async fn take(&self, note: &[u8]) -> Result<(), CopyError> {
        let mut copy = self.copy.lock().await;
        let new = match copy.advance(&self.reader, note).await {
            Ok(new) => new,
            Err(error) => {
                if let CopyError::Inconsistent { notes, .. } = &error {
                    let (remembered, offered) = &**notes;
                    let remembered = remembered.as_deref().unwrap_or(offered);
                    self.gossip.contradiction(remembered, offered).await;
                }
                if let CopyError::Checkpoint(CheckpointError::Signature { .. }) = &error {
                    let (note, key) = (String::from_utf8_lossy(note), self.tiles.log().as_str());
                    self.gossip.bad_signature(&note, key).await;
                }
                return Err(error);
            }
        };
        self.instruments.size(copy.size());
        for (index, bytes) in &new {
            let followed = self.before.apply(&mut write(&self.state), *index, bytes);
            if let Err(refused) = followed {
                // Why may name a key, and that of a patient is a pseudonym: the entry is in the log for who may look.
                tracing::error!(index, "the operator put into the log what its rules refuse");
                if let Ok(entry) = Entry::parse(bytes) {
                    let reason = refused.to_string();
                    self.gossip.refused(EvidenceKind::BrokenRule, &entry, &reason).await;
                }
            }
        }
        Ok(())
    }

    /// One look at the log, and at what others are shown of it.
    async fn look(&self, outage: &mut Outage) {
        match self.reader.client().checkpoint().await {
            Ok(note) => {
                if outage.ends() {
                    tracing::info!("the log answers again");
                }
                match self.take(&note).await {
                    Ok(()) => self.publish(&note).await,
                    Err(error) => tracing::warn!(%error, "the log was not copied"),
                }
            }
            Err(error) if outage.begins() => tracing::warn!(%error, "the log does not answer"),
            Err(error) => tracing::debug!(%error, "the log does not answer"),
        }
        self.tell_age(super::now_s()).await;
        if self.monitors {
            self.compare().await;
        }
    }

    /// Serves what was copied, if it counts.
    async fn publish(&self, note: &[u8]) {
        let policy = self.policy();
        match policy.check(note) {
            Ok(cosigned) => {
                if let Err(error) = self.tiles.publish(&String::from_utf8_lossy(note)) {
                    tracing::warn!(%error, "the copy's checkpoint was not kept");
                }
                self.instruments.serves(cosigned.size);
                if let Some(since_s) = policy.vouched_s(&cosigned) {
                    self.instruments.vouched(since_s);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the log publishes what does not count");
                self.tell_bad_cosignatures(&policy, note).await;
            }
        }
    }

    /// Which witnesses' lines do not fit a checkpoint that the log signed.
    async fn tell_bad_cosignatures(&self, policy: &Policy, note: &[u8]) {
        let Ok((head, _)) = Head::open_cosigned(note, std::slice::from_ref(self.tiles.log()))
        else {
            return;
        };
        let plain = head.signed_by_log(self.tiles.log());
        for witness in policy.witnesses() {
            for line in head.note.split_inclusive('\n') {
                let one = format!("{plain}{line}");
                if line.starts_with("— ") && witness.key.verify(&one).is_err() {
                    self.gossip.bad_signature(&one, witness.key.as_str()).await;
                }
            }
        }
    }

    /// Says if it is long since a quorum has vouched for what is served here, whether or not the log answers: once for each time
    /// that it happens.
    async fn tell_age(&self, now_s: u64) {
        let Ok(Some(own)) = self.tiles.published() else { return };
        let policy = self.policy();
        let cosigned = policy.check(own.note.as_bytes()).ok();
        let vouched_s = cosigned.and_then(|cosigned| policy.vouched_s(&cosigned));
        if let Some(since_s) = vouched_s.filter(|since_s| since_s + self.stale_s < now_s) {
            tracing::error!("the log is stale: no quorum has cosigned it recently");
            self.gossip.stale(&own.note, since_s).await;
        }
    }

    /// Asks every witness what it remembers, and holds it against the copy.
    async fn compare(&self) {
        let policy = self.policy();
        let origin = hex::encode(Sha256::digest(self.tiles.log().origin()));
        for witness in policy.witnesses() {
            let Some(url) = &witness.url else { continue };
            let client = Client::new(self.http.clone(), url);
            let Ok(note) = client.get(&format!("/{origin}/checkpoint")).await else { continue };
            let Ok(seen) = policy.signed(&note) else { continue };
            let size = self.copy.lock().await.size();
            if seen.size > size {
                continue;
            }
            match self.tiles.root_at(seen.size) {
                Ok(root) if root == seen.root => {}
                Ok(_) => {
                    let own = self.tiles.published().ok().flatten().map(|own| own.note);
                    let other = String::from_utf8_lossy(&note).into_owned();
                    self.gossip.contradiction(own.as_deref().unwrap_or(&other), &other).await;
                }
                Err(error) => tracing::warn!(%error, "the copy could not be read"),
            }
        }
    }

    fn policy(&self) -> Policy {
        policy_of(&self.state)
    }
}

fn write(state: &SharedState) -> RwLockWriteGuard<'_, Option<State>> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}

/// Whose cosignatures make a checkpoint count, by what is known of the log here.
pub(crate) fn policy_of(state: &SharedState) -> Policy {
    let state = state.read().unwrap_or_else(PoisonError::into_inner);
    // What a state writes is a policy; before the genesis nothing counts.
    state.as_ref().and_then(|state| state.policy_text(None).parse().ok()).unwrap_or_default()
}
