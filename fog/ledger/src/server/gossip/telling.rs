//! Telling each member what it has not heard.
//!
//! Each target is told in order, one piece at a time, and none waits for another: a member that does not answer holds up
//! nobody's news but its own. How far each has come is on disk, so nothing is forgotten in a crash, and who joins later hears
//! everything. A piece that a target refuses is passed over: it will not want it the next time either.

use super::Gossip;
use crate::client::{Client, FetchError, Level, SubmitError};
use crate::entry::{Entry, EntryKind};
use crate::evidence::Evidence;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long to wait for the log.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a failure a target is tried again: at first, and at most. News are everybody's within five seconds.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// How often it is looked whether there is anything to tell; members come and go.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Whom to tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// A member's name; empty for the log.
    pub(crate) name: String,
    pub(crate) url: String,
}

/// The task that tells.
pub(crate) struct Telling<M> {
    pub(crate) gossip: Gossip,
    pub(crate) http: reqwest::Client,
    /// The other members, and the log if evidence is put into it.
    pub(crate) targets: M,
}

/// What came of telling a target.
enum Told {
    Everything,
    /// Try again later.
    Unreached,
}

impl<M: Fn() -> Vec<Target> + Send + 'static> Telling<M> {
    /// Tells until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self { gossip, http, targets } = self;
        let mut under_way = JoinSet::new();
        let mut busy = BTreeSet::new();
        // Of those who have heard everything: up to which news.
        let mut heard: BTreeMap<String, u64> = BTreeMap::new();
        let mut resting: BTreeMap<String, (Instant, Duration)> = BTreeMap::new();
        let mut news = 0;
        loop {
            let (now, all) = (Instant::now(), targets());
            resting.retain(|name, _| all.iter().any(|target| target.name == *name));
            for target in all {
                let rests = resting.get(&target.name).is_some_and(|(until, _)| *until > now);
                let knows = heard.get(&target.name) == Some(&news);
                if !rests && !knows && busy.insert(target.name.clone()) {
                    let told = catch_up(gossip.clone(), http.clone(), target);
                    under_way.spawn(async move { (news, told.await) });
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = gossip.news.notified() => news += 1,
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Some(done) = under_way.join_next() => {
                    let Ok((upto, (name, told))) = done else { continue };
                    busy.remove(&name);
                    match told {
                        Told::Everything => {
                            resting.remove(&name);
                            heard.insert(name, upto);
                        }
                        Told::Unreached => {
                            let pause = resting.get(&name).map_or(PAUSE, |(_, pause)| *pause);
                            let next = (pause * 2).min(PAUSE_MAX);
                            resting.insert(name, (Instant::now() + pause, next));
                        }
                    }
                    gossip.instruments.untold(resting.len());
                }
            }
        }
    }
}

/// Tells a target all that it has not heard.
async fn catch_up(gossip: Gossip, http: reqwest::Client, target: Target) -> (String, Told) {
    let client = Client::new(http, &target.url);
    loop {
        let (own, name) = (gossip.clone(), target.name.clone());
        let next = tokio::task::spawn_blocking(move || own.untold(&name)).await;
        let (place, text) = match next {
            Ok(Ok(Some(next))) => next,
            Ok(Ok(None)) => return (target.name, Told::Everything),
            Ok(Err(error)) => {
                tracing::error!(%error, "the evidence that is to be told cannot be read");
                return (target.name, Told::Unreached);
            }
            Err(_) => return (target.name, Told::Unreached),
        };
        // It was checked before it was kept.
        let heard = match Evidence::parse(&text) {
            Ok(evidence) if target.name.is_empty() => enter(&gossip, &client, &evidence).await,
            Ok(evidence) => tell(&client, &evidence).await,
            Err(_) => true,
        };
        if !heard {
            return (target.name, Told::Unreached);
        }
        let (own, name) = (gossip.clone(), target.name.clone());
        let noted = tokio::task::spawn_blocking(move || own.told(&name, place)).await;
        if !matches!(noted, Ok(Ok(()))) {
            tracing::error!("it could not be noted that a member was told");
            return (target.name, Told::Unreached);
        }
    }
}

/// Whether a member need not be told again.
async fn tell(client: &Client, evidence: &Evidence) -> bool {
    match client.tell(evidence).await {
        Ok(()) => true,
        Err(error @ FetchError::Refused { .. }) => {
            tracing::warn!(%error, "a member does not want evidence");
            true
        }
        Err(error) => {
            tracing::debug!(%error, "a member was not told; it will be");
            false
        }
    }
}

/// Puts it into the log, signed by this member; whether that need not be tried again.
async fn enter(gossip: &Gossip, client: &Client, evidence: &Evidence) -> bool {
    let Some(identity) = &gossip.identity else { return true };
    let origin = gossip.log.origin();
    let entry = match Entry::sign(EntryKind::Evidence, origin, evidence, &[&**identity]) {
        Ok(entry) => entry,
        Err(error) => {
            tracing::warn!(%error, "evidence is too long for an entry");
            return true;
        }
    };
    match client.submit(&entry, Level::Sequenced, PATIENCE).await {
        Ok(_) | Err(SubmitError::Known(_)) => true,
        Err(error @ SubmitError::Refused(_)) => {
            tracing::warn!(%error, "the log does not want evidence");
            true
        }
        Err(error) => {
            tracing::debug!(%error, "evidence is not in the log yet; it will be");
            false
        }
    }
}
