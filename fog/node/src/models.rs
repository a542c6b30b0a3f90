//! Which models this node runs: those that are built in, or what was decided in a registry.
//!
//! Decisions are read when the node starts, and looked for every [`LOOK_EVERY`] while it runs. A new one is checked and its models are
//! loaded beside the dataflow ([`Follower`]); the commit thread then takes it up between two epochs ([`Decided`]), and it
//! becomes a leaf in the epoch's transaction.
//!
//! # From when on a decision holds
//! From its effective time, in event time, but not from before it was taken up: windows of then are concluded. For one that
//! was found at the start, not from before the last commit of the run before. That time is kept in `fog.decisions` with the
//! leaf; so which model a window has is a function of its end and of the log, and a replay comes to the same.
//!
//! # Trust
//! A decision counts if a key signed it that [`Signers`] has, and it follows the one before. The newest of those that are not followed yet must
//! be by a key that counts now: who signs it has signed the hash of what came before, of which a key since revoked may have been
//! the signer. What this node has followed stands in its own log and is not asked for signatures again. At the start, a decision that
//! does not hold, a model that does not fit its hash or this build, or a registry that lacks what this node has followed, keeps the node from
//! starting: running something else than what was decided is worse than not running. In a running node such a thing is logged,
//! counted and not followed; the models that ran go on.
//!
//! # Limits
//! [`QUEUED_DECISIONS`] wait for the commit thread; more are looked at again.

mod monitor;

pub(crate) use monitor::{Classes, Monitor};

use crate::config::ModelsConfig;
use crate::consortium::signers::Signers;
use crate::store::{Store, StoreError};
use haar_dataflow::deployment::{Deployed, Deployments, SharedDeployments, Timeline, expected};
use haar_inference::condition::ConditionModel;
use haar_inference::faults::FaultModel;
use haar_inference::personal::Normals;
use haar_inference::registry::{self, Decision, Registry, RegistryError};
use haar_inference::rhythm::RhythmModel;
use haar_inference::sepsis::SepsisModel;
use haar_inference::{BUILTIN, BeatModel, LoadError};
use haar_schema::{ModelRef, Timestamp};
use haar_telemetry::{Counter, KeyValue, Metrics, names};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a running node looks for decisions.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Decisions that wait for an epoch to end.
const QUEUED_DECISIONS: usize = 16;

/// Why the models are not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelsError {
    /// The registry, or a decision in it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What this node has followed before cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nor its leaf.
    #[error(transparent)]
    Log(#[from] haar_ledger::ReadError),
    /// A kind of model that no build of this version runs.
    #[error("the registry has decisions about {0}, a model that no node runs")]
    Kind(String),
    /// What this node has followed is not there any more.
    #[error(
        "the registry has another statement {0} than the one that this node has followed and logged, or none: restore the registry"
    )]
    Rewritten(u64),
    /// By a key that was revoked.
    #[error(
        "statement {0} of the registry is signed by nobody whose key still counts: the consortium log has revoked it. Take the statement out, or sign the next one with a key that counts"
    )]
    Revoked(u64),
}

/// A decision that was followed, as `fog.decisions` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Followed {
    pub(crate) number: u64,
    /// Event time from which it holds, microseconds.
    pub(crate) from_us: i64,
    /// The leaf with the signed note.
    pub(crate) leaf: u64,
}

/// What runs when the node starts.
pub(crate) struct Models {
    pub(crate) deployments: SharedDeployments,
    /// How each model's predictions were distributed when it was measured, by the manifest's hash.
    pub(crate) expected: BTreeMap<String, Classes>,
    /// For the commit thread.
    pub(crate) decided: Decided,
    /// To be run beside it; none without a registry.
    pub(crate) follower: Option<Follower>,
}

impl Models {
    /// What was decided so far.
    pub(crate) fn open(
        config: &ModelsConfig,
        signers: Signers,
        store: &Store,
        metrics: &Metrics,
    ) -> Result<Self, ModelsError> {
        let mut opened = Opened { deployments: Deployments::built_in()?, expected: built_in()? };
        let (sender, receiver) = sync_channel(QUEUED_DECISIONS);
        let followed = store.decisions().map_err(StoreError::from)?;
        let mut taken = Vec::new();
        let mut last_us = i64::MIN;
        let mut follower = None;
        if let Some(root) = &config.registry {
            let registry = Registry::at(root);
            let history = match signers.are_known() {
                true => registry.history_after(followed.len(), &signers.ever())?,
                // What is new waits, for the follower, until it is known whose signatures count.
                false => registry.history_after(usize::MAX, &[])?.until(followed.len()),
            };
            check_followed(&followed, history.decisions(), store)?;
            check_newest(&history, followed.len(), &signers)?;
            let committed_us = store.committed_us().map_err(StoreError::from)?;
            for (at, decision) in history.decisions().iter().enumerate() {
                let from_us = match followed.get(at) {
                    Some(followed) => followed.from_us,
                    None => decision.statement.effective_us.max(committed_us).max(last_us),
                };
                last_us = from_us;
                let prepared = opened.prepare(&registry, &history.until(at + 1), decision)?;
                (prepared.apply)(&mut opened.deployments, from_us);
                if at >= followed.len() {
                    taken.push(prepared.taken(from_us));
                }
            }
            follower = Some(Follower {
                registry,
                signers,
                notes: history.decisions().iter().map(|own| own.note.clone()).collect(),
                opened: opened.clone(),
                sender,
                refused: metrics.counter(&names::FOG_MODEL_DECISIONS_REFUSED),
                last_refusal: String::new(),
            });
        } else if !followed.is_empty() {
            tracing::warn!(
                followed = followed.len(),
                "decisions about models were followed before and are not any more: no registry is configured"
            );
        }
        let Opened { deployments, expected } = opened;
        let deployments = SharedDeployments::new(deployments);
        let decided = Decided {
            receiver,
            deployments: deployments.clone(),
            taken,
            last_us,
            followed: metrics.counter(&names::FOG_MODEL_DECISIONS),
        };
        Ok(Self { deployments, expected, decided, follower })
    }
}

/// What this node has followed must still stand in the registry.
fn check_followed(
    followed: &[Followed],
    decisions: &[Decision],
    store: &Store,
) -> Result<(), ModelsError> {
    for (at, own) in followed.iter().enumerate() {
        let record = store.log().record(own.leaf)?;
        let same = decisions.get(at).is_some_and(|decision| decision.note == record.body);
        if own.number != at as u64 + 1 || !same {
            return Err(ModelsError::Rewritten(at as u64 + 1));
        }
    }
    Ok(())
}

/// Of more than the first `followed` decisions, the newest is by a key that counts.
fn check_newest(
    history: &registry::History,
    followed: usize,
    signers: &Signers,
) -> Result<(), ModelsError> {
    let newest = history.decisions().get(followed..).and_then(<[Decision]>::last);
    let keys = signers.now();
    match newest {
        Some(newest) if !newest.by.iter().any(|key| keys.contains(key)) => {
            Err(ModelsError::Revoked(newest.statement.number))
        }
        _ => Ok(()),
    }
}

/// How the predictions of built-in models were distributed.
fn built_in() -> Result<BTreeMap<String, Classes>, LoadError> {
    let mut all = BTreeMap::new();
    for builtin in BUILTIN {
        let package = builtin.package()?;
        let reference = package.reference();
        let classes = match reference.id.as_str() {
            BeatModel::ID => expected::<BeatModel>(package.manifest()),
            RhythmModel::ID => expected::<RhythmModel>(package.manifest()),
            FaultModel::ID => expected::<FaultModel>(package.manifest()),
            ConditionModel::ID => expected::<ConditionModel>(package.manifest()),
            _ => Classes::new(),
        };
        if !classes.is_empty() {
            all.insert(reference.sha256.clone(), classes);
        }
    }
    Ok(all)
}

/// Adds what was decided to the models, from an event time on.
type Apply = Arc<dyn Fn(&mut Deployments, i64) + Send + Sync>;

/// A decision that was checked, with its models in memory.
pub(crate) struct Prepared {
    decision: Decision,
    apply: Apply,
    /// Of the models that are named.
    expected: BTreeMap<String, Classes>,
}

/// A decision that is in force and is to be committed.
pub(crate) struct Taken {
    pub(crate) number: u64,
    pub(crate) from_us: i64,
    pub(crate) note: Vec<u8>,
    pub(crate) expected: BTreeMap<String, Classes>,
}

impl Prepared {
    fn taken(self, from_us: i64) -> Taken {
        let Self { decision, expected, .. } = self;
        Taken { number: decision.statement.number, from_us, note: decision.note, expected }
    }
}

/// The commit thread's half.
pub(crate) struct Decided {
    receiver: Receiver<Prepared>,
    deployments: SharedDeployments,
    /// In force since the start, not yet committed.
    taken: Vec<Taken>,
    last_us: i64,
    followed: Counter<u64>,
}

impl Decided {
    /// The models as they are.
    pub(crate) fn deployments(&self) -> &SharedDeployments {
        &self.deployments
    }

    /// Takes up what waits: from here on it is in force for windows that end at `now` or later.
    pub(crate) fn take(&mut self, now: Timestamp) -> Vec<Taken> {
        let mut taken = std::mem::take(&mut self.taken);
        for prepared in self.receiver.try_iter().take(QUEUED_DECISIONS) {
            let statement = &prepared.decision.statement;
            let from_us = statement.effective_us.max(now.micros()).max(self.last_us);
            self.last_us = from_us;
            let mut deployments = Deployments::clone(&self.deployments.now());
            (prepared.apply)(&mut deployments, from_us);
            self.deployments.put(deployments);
            let action = KeyValue::new(names::label::ACTION, statement.action.as_str());
            self.followed.add(1, &[action]);
            tracing::info!(
                number = statement.number,
                action = %statement.action,
                model = statement.model.id,
                sha256 = statement.model.sha256,
                from = %Timestamp::from_micros(from_us),
                "a decision about a model is in force"
            );
            taken.push(prepared.taken(from_us));
        }
        taken
    }
}

/// Looks for new decisions while the node runs.
pub(crate) struct Follower {
    registry: Registry,
    signers: Signers,
    /// Of all decisions that were handed to the commit thread, in order.
    notes: Vec<Vec<u8>>,
    opened: Opened,
    sender: SyncSender<Prepared>,
    refused: Counter<u64>,
    /// What was said last, so that it is not said every two seconds.
    last_refusal: String,
}

impl Follower {
    /// Looks until it is told to stop, or the commit thread has ended.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // Models are read from disk and checked.
            let looked = tokio::task::spawn_blocking(move || {
                let goes_on = self.look();
                (self, goes_on)
            });
            match looked.await {
                Ok((back, true)) => self = back,
                Ok((_, false)) => return,
                Err(error) => {
                    tracing::error!(%error, "decisions about models are not followed any more; restart the node");
                    return;
                }
            }
        }
    }

    /// Hands over what is new. `false`: nobody takes it any more.
    fn look(&mut self) -> bool {
        match self.hand_over() {
            Ok(goes_on) => {
                self.last_refusal.clear();
                goes_on
            }
            Err(error) => {
                self.refused.add(1, &[]);
                let refusal = error.to_string();
                if refusal != self.last_refusal {
                    tracing::error!(
                        error = refusal,
                        "a decision about models is not followed; the models that ran go on"
                    );
                    self.last_refusal = refusal;
                }
                true
            }
        }
    }

    fn hand_over(&mut self) -> Result<bool, ModelsError> {
        let is_all = self.registry.newest_statement()? == self.notes.len() as u64;
        if is_all || !self.signers.are_known() {
            return Ok(true);
        }
        let history = self.registry.history_after(self.notes.len(), &self.signers.ever())?;
        for (at, note) in self.notes.iter().enumerate() {
            if history.decisions().get(at).is_none_or(|decision| decision.note != *note) {
                return Err(ModelsError::Rewritten(at as u64 + 1));
            }
        }
        check_newest(&history, self.notes.len(), &self.signers)?;
        for (at, decision) in history.decisions().iter().enumerate().skip(self.notes.len()) {
            let until = history.until(at + 1);
            let prepared = self.opened.prepare(&self.registry, &until, decision)?;
            let apply = Arc::clone(&prepared.apply);
            match self.sender.try_send(prepared) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => return Ok(true),
                Err(TrySendError::Disconnected(_)) => return Ok(false),
            }
            // Only for its models: they are found here when they are named again.
            apply(&mut self.opened.deployments, i64::MAX);
            self.notes.push(decision.note.clone());
        }
        Ok(true)
    }
}

/// Models that are in memory.
#[derive(Clone)]
struct Opened {
    deployments: Deployments,
    expected: BTreeMap<String, Classes>,
}

impl Opened {
    /// Loads what the decision is about; `until` are all decisions up to and with it.
    fn prepare(
        &mut self,
        registry: &Registry,
        until: &registry::History,
        decision: &Decision,
    ) -> Result<Prepared, ModelsError> {
        let id = decision.statement.model.id.as_str();
        let now = until.now(id);
        let apply = match id {
            BeatModel::ID => self.step::<BeatModel>(registry, &now)?,
            RhythmModel::ID => self.step::<RhythmModel>(registry, &now)?,
            FaultModel::ID => self.step::<FaultModel>(registry, &now)?,
            ConditionModel::ID => self.step::<ConditionModel>(registry, &now)?,
            SepsisModel::ID => self.step::<SepsisModel>(registry, &now)?,
            Normals::ID => self.step::<Normals>(registry, &now)?,
            other => return Err(ModelsError::Kind(other.to_owned())),
        };
        let named = now.live.iter().chain(&now.shadow);
        let expected = named.filter_map(|own| self.expected.get_key_value(&own.sha256));
        let expected = expected.map(|(hash, classes)| (hash.clone(), classes.clone())).collect();
        Ok(Prepared { decision: decision.clone(), apply, expected })
    }

    fn step<M: Deployed>(
        &mut self,
        registry: &Registry,
        now: &registry::Deployment,
    ) -> Result<Apply, ModelsError> {
        let live = match &now.live {
            // The first of all is the one that is built in.
            None => Arc::clone(&M::timeline(&mut self.deployments).step(0).live),
            Some(reference) => self.open::<M>(registry, reference)?,
        };
        let shadow = match &now.shadow {
            None => None,
            Some(reference) => Some(self.open::<M>(registry, reference)?),
        };
        Ok(Arc::new(move |deployments, from_us| {
            M::timeline(deployments).then(from_us, Arc::clone(&live), shadow.clone());
        }))
    }

    /// The model of this name, read if it was not before.
    fn open<M: Deployed>(
        &mut self,
        registry: &Registry,
        reference: &ModelRef,
    ) -> Result<Arc<M>, ModelsError> {
        let timeline: &Timeline<M> = M::timeline(&mut self.deployments);
        if let Some(model) = timeline.models().find(|own| own.name() == reference) {
            return Ok(Arc::clone(model));
        }
        // Checks the hash before the model is used.
        let package = registry.package(reference)?;
        let classes = expected::<M>(package.manifest());
        let model = M::of(package)?;
        if !classes.is_empty() {
            self.expected.insert(reference.sha256.clone(), classes);
        }
        Ok(Arc::new(model))
    }
}

#[cfg(test)]
mod tests;
