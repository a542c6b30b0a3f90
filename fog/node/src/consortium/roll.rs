//! Which keys of this site's edges, devices and people count, as the members' log has it.
//!
//! The name of an edge's or device's key ends, behind its last `/`, in the id of whose it is. Those keys count that stand under the
//! member under whom this site's own key stands. A key that the log has revoked is refused from the moment on at which this site has
//! read so, whatever the configuration demands. What the site has read last holds for as long as it is offline.

use crate::config::EdgeKeys;
use haar_ledger::VerifierKey;
use haar_ledger::governance::{Role, State};
use haar_link::{Refusal, RefusalReason};
use haar_schema::{DeviceId, EdgeId};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Verifier keys of this member's people who decide, those that were revoked among them.
    people: Vec<(Role, String)>,
    /// Verifier keys of anybody.
    revoked: BTreeSet<String>,
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

    /// Whether the members' log was read at all.
    pub(crate) fn is_known(&self) -> bool {
        self.entries().known
    }

    /// The verifier keys of this member's people in a role, whether they count or were revoked.
    pub(crate) fn keys_of(&self, role: Role) -> Vec<String> {
        let entries = self.entries();
        let own = entries.people.iter().filter(|(own, _)| *own == role);
        own.map(|(_, key)| key.clone()).collect()
    }

    /// Whether the members' log has revoked this verifier key. Only who holds a key registers it, so nobody has another's revoked.
    pub(crate) fn is_revoked(&self, key: &str) -> bool {
        self.entries().revoked.contains(key)
    }

    fn entries(&self) -> Arc<Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Entries {
    fn of(state: &State, site: &str) -> Self {
        let next = state.next_index();
        let revoked = state.keys().filter(|key| key.revoked.is_some());
        let revoked = revoked.map(|key| key.key.vkey().to_string()).collect();
        let own = state.keys_named(site).iter().find(|key| key.counts_at(next));
        let Some(member) = own.map(|own| &own.member) else {
            return Self { known: true, revoked, ..Self::default() };
        };
        let (mut edges, mut devices, mut people) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
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
                Role::Clinician | Role::Model => {
                    people.push((key.role, key.key.vkey().to_string()));
                }
                _ => {}
            }
        }
        Self { known: true, edges, devices: Arc::new(devices), people, revoked }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use haar_ledger::consent::bundle_hash;
    use haar_ledger::governance::{Genesis, KeyBody, Quorums};
    use haar_ledger::{Cosigner, Entry, EntryKind, Identity};

    const LOG: &str = "consortium.example/log";

    fn identity(name: &str, seed: u8) -> Identity {
        Identity::generate(name, [seed; 32]).unwrap()
    }

    /// Two members, each with a fog, an edge and a device; the second member's edge bears the first one's id. The first member has registered
    /// these `people`, and has one key revoked.
    pub(crate) fn state(people: &[(&Identity, Role)], revoked: Option<&Identity>) -> State {
        let members = [("a.example", 1), ("b.example", 2)].map(|(name, seed)| identity(name, seed));
        let mut seed = 20;
        let described = members.each_ref().map(|member| {
            seed += 1;
            let cosigner =
                Cosigner::generate(&format!("{}/w", member.origin()), [seed; 32]).unwrap();
            serde_json::json!({
                "name": member.origin(),
                "key": member.vkey().to_string(),
                "cosigners": [cosigner.vkey().to_string()],
                "url": "https://a.example",
                "admission": "00".repeat(32),
            })
        });
        let genesis: Genesis = serde_json::from_value(serde_json::json!({
            "consortium": "test",
            "operator": {"name": "a.example", "log": identity(LOG, 3).vkey().to_string(), "url": "https://a.example"},
            "members": described,
            "quorums": Quorums::default(),
            "policy_bundle": bundle_hash(),
        }))
        .unwrap();
        let signers = [&members[0], &members[1]];
        let entry = Entry::sign(EntryKind::Genesis, LOG, &genesis, &signers).unwrap();
        let mut state = State::genesis(&entry).unwrap();
        for (member, (site, first)) in members.iter().zip([("a", 4), ("b", 14)]) {
            for (name, seed, role) in [
                (format!("{site}.example/site"), first, Role::Fog),
                (format!("{site}.example/edge-1"), first + 1, Role::Edge),
                (format!("{site}.example/monitor-1"), first + 2, Role::Device),
            ] {
                let key = identity(&name, seed);
                let body = KeyBody::Register { key: key.vkey().into(), role };
                state
                    .append(&Entry::sign(EntryKind::Key, LOG, &body, &[member, &key]).unwrap())
                    .unwrap();
            }
        }
        for (key, role) in people {
            let body = KeyBody::Register { key: key.vkey().into(), role: *role };
            state
                .append(&Entry::sign(EntryKind::Key, LOG, &body, &[&members[0], key]).unwrap())
                .unwrap();
        }
        if let Some(key) = revoked {
            let body = KeyBody::Revoke { key: key.vkey().into() };
            state
                .append(&Entry::sign(EntryKind::Key, LOG, &body, &[&members[0]]).unwrap())
                .unwrap();
        }
        state
    }

    #[test]
    fn a_key_counts_for_its_own_edge_at_its_own_members_site() {
        let (own, other) = (identity("a.example/edge-1", 5), identity("b.example/edge-1", 15));
        let edge = |id: &str| id.parse::<EdgeId>().unwrap();
        let reason = |roll: &Roll, id: &str, key: Option<&Identity>| {
            roll.admits(&edge(id), key.map(Identity::vkey)).map_err(|refusal| refusal.reason)
        };
        let registered = Roll::new("a.example/site", EdgeKeys::Registered);
        let unread = reason(&registered, "edge-1", Some(&own));
        assert_eq!(unread, Err(RefusalReason::NotReady), "nothing was read yet");
        registered.renew(Some(&state(&[], None)));
        assert_eq!(reason(&registered, "edge-1", Some(&own)), Ok(()));
        for (id, key) in [("edge-2", Some(&own)), ("edge-1", Some(&other)), ("edge-1", None)] {
            assert_eq!(reason(&registered, id, key), Err(RefusalReason::Key), "{id}");
        }
        let devices = registered.devices();
        assert_eq!(devices[&"monitor-1".parse().unwrap()], "a.example/monitor-1");
        assert_eq!(devices.len(), 1, "the other member's are its own");

        let optional = Roll::new("a.example/site", EdgeKeys::Optional);
        for key in [Some(&own), Some(&other), None] {
            assert_eq!(reason(&optional, "edge-1", key), Ok(()));
        }
        optional.renew(Some(&state(&[], Some(&own))));
        assert_eq!(reason(&optional, "edge-1", Some(&own)), Err(RefusalReason::Key), "revoked");
        assert_eq!(reason(&optional, "edge-1", None), Ok(()));
        // A site that the members do not know has no edges and no devices.
        let unknown = Roll::new("c.example/site", EdgeKeys::Registered);
        unknown.renew(Some(&state(&[], None)));
        assert_eq!(reason(&unknown, "edge-1", Some(&own)), Err(RefusalReason::Key));
        assert!(unknown.devices().is_empty());
    }
}
