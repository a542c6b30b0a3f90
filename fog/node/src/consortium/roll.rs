//! Which keys of this site's edges and devices count, as the members' log has it.
//!
//! A key's name ends, behind its last `/`, in the id of the edge or device whose it is; it stands under the member under
//! whom this site's own key stands. A key that the log has revoked is refused from the moment on at which this site has
//! read so, whatever the configuration demands. What the site has read last holds for as long as it is offline.

use crate::config::EdgeKeys;
use haar_ledger::VerifierKey;
use haar_ledger::governance::{Role, State};
use haar_link::{Refusal, RefusalReason};
use haar_schema::{DeviceId, EdgeId};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The roll, in the hands of those who ask it and those who renew it.
#[derive(Clone)]
pub(crate) struct Roll {
    site: Arc<str>,
    demanded: EdgeKeys,
    entries: Arc<RwLock<Arc<Entries>>>,
}

#[derive(Default)]
struct Entries {
    /// Whether the members' log was read at all.
    known: bool,
    /// By verifier key.
    edges: BTreeMap<String, EdgeKey>,
    /// The names of the keys that count.
    devices: Arc<BTreeMap<DeviceId, String>>,
}

struct EdgeKey {
    edge: Option<EdgeId>,
    counts: bool,
}

impl Roll {
    /// The roll of `site`, of which nothing is known yet.
    pub(crate) fn new(site: &str, demanded: EdgeKeys) -> Self {
        Self { site: site.into(), demanded, entries: Arc::default() }
    }

    /// Takes up what the members' log says now.
    pub(crate) fn renew(&self, state: Option<&State>) {
        let entries = state.map(|state| Entries::of(state, &self.site)).unwrap_or_default();
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(entries);
    }

    /// Whether a batch of `edge` counts that `key` has signed.
    pub(crate) fn admits(&self, edge: &EdgeId, key: Option<&VerifierKey>) -> Result<(), Refusal> {
        let demanded = self.demanded == EdgeKeys::Registered;
        let refused = |advice: String| Err(Refusal::new(RefusalReason::Key, advice));
        let Some(key) = key else {
            return match demanded {
                true => refused(
                    "this fog takes signed batches only; set uplink.signing_key_file".to_owned(),
                ),
                false => Ok(()),
            };
        };
        let name = key.origin();
        let entries = self.entries();
        match entries.edges.get(key.as_str()) {
            Some(own) if !own.counts => refused(format!(
                "the key {name} was revoked in the consortium log; give the edge another and register it"
            )),
            Some(own) if own.edge.as_ref() != Some(edge) => {
                refused(format!("the key {name} is registered for another edge"))
            }
            Some(_) => Ok(()),
            None if !demanded => Ok(()),
            None if !entries.known => Err(Refusal::new(
                RefusalReason::NotReady,
                "this fog has not read the consortium log yet; trying again helps",
            )),
            None => refused(format!(
                "the consortium log has no key {name} of an edge under this site's member; register it \
                 (`haar ledger key register --role edge`)"
            )),
        }
    }

    /// The names of the devices' keys that count.
    pub(crate) fn devices(&self) -> Arc<BTreeMap<DeviceId, String>> {
        self.entries().devices.clone()
    }

    fn entries(&self) -> Arc<Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Entries {
    fn of(state: &State, site: &str) -> Self {
        let next = state.next_index();
        let own = state.keys_named(site).iter().find(|key| key.counts_at(next));
        let Some(member) = own.map(|own| &own.member) else {
            return Self { known: true, ..Self::default() };
        };
        let (mut edges, mut devices) = (BTreeMap::new(), BTreeMap::new());
        for key in state.keys().filter(|key| key.member == *member) {
            let counts = key.counts_at(next);
            let id = key.key.name().rsplit('/').next().unwrap_or_default();
            match key.role {
                Role::Edge => {
                    let edge = id.parse().ok();
                    edges.insert(key.key.vkey().to_string(), EdgeKey { edge, counts });
                }
                // Of two names that end alike the first in their order stands.
                Role::Device if counts => {
                    if let Ok(device) = id.parse() {
                        devices.entry(device).or_insert_with(|| key.key.name().to_owned());
                    }
                }
                _ => {}
            }
        }
        Self { known: true, edges, devices: Arc::new(devices) }
    }
}
