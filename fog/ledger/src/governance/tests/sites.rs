//! Checkpoints of sites, commitments, device histories.

use super::*;
use crate::SignedCheckpoint;
use tlog_tiles::{Error, Hash, HashReader, prove_tree, stored_hashes, tree_hash};

/// A tree in memory.
#[derive(Default)]
struct Tree(Vec<Hash>);

impl HashReader for Tree {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

impl Tree {
    fn of(leaves: u64, salt: &str) -> Self {
        let mut tree = Self::default();
        for n in 0..leaves {
            let hashes = stored_hashes(n, format!("{salt} {n}").as_bytes(), &tree).unwrap();
            tree.0.extend(hashes);
        }
        tree
    }

    fn body(&self, site: &Identity, from: u64, size: u64) -> SiteCheckpointBody {
        let root = tree_hash(size, self).unwrap().0;
        let checkpoint = SignedCheckpoint::sign(site, size, root).unwrap().note().to_owned();
        let proof = match from {
            0 => Vec::new(),
            from => prove_tree(size, from, self).unwrap().iter().map(|hash| Hex(hash.0)).collect(),
        };
        SiteCheckpointBody { checkpoint, proof, devices: BTreeMap::new() }
    }
}

fn with_site() -> (Consortium, Identity) {
    let mut consortium = Consortium::new();
    let site = identity("fog.a/site-log");
    consortium.register(&member("a", 1).1, site.origin(), Role::Fog).unwrap();
    consortium.members.insert("site".into(), site);
    (consortium, identity("fog.a/site-log"))
}

#[test]
fn a_site_only_grows() {
    let (mut consortium, site) = with_site();
    let (tree, other) = (Tree::of(40, "leaf"), Tree::of(40, "another"));
    let mut say =
        |body: SiteCheckpointBody| consortium.say("site", EntryKind::SiteCheckpoint, &body);
    let applied = |size| Ok(Applied::SiteCheckpoint { site: "fog.a/site-log".into(), size });
    assert_eq!(say(tree.body(&site, 0, 5)), applied(5));
    assert_eq!(say(tree.body(&site, 5, 20)), applied(20));
    assert_eq!(say(tree.body(&site, 0, 5)), Err(Refused::Again), "a repetition is nobody's fault");
    assert_eq!(say(tree.body(&site, 5, 12)), Err(Refused::SiteRollback));
    assert_eq!(say(other.body(&site, 5, 20)), Err(Refused::SiteFork));
    assert_eq!(say(other.body(&site, 0, 5)), Err(Refused::SiteFork), "an old one as well");
    assert_eq!(say(other.body(&site, 20, 30)), Err(Refused::SiteInconsistent));
    assert_eq!(say(tree.body(&site, 5, 30)), Err(Refused::SiteInconsistent));
    assert_eq!(say(tree.body(&site, 20, 30)), applied(30));
    assert_eq!(say(tree.body(&site, 0, 3)), Err(Refused::TooOld));
    let stranger = tree.body(&identity("fog.b/site-log"), 30, 31);
    assert!(matches!(say(stranger), Err(Refused::SiteCheckpoint(_))));
    assert_eq!(consortium.state.site("fog.a/site-log").unwrap().size, 30);
    let by_member = consortium.say("a", EntryKind::SiteCheckpoint, &tree.body(&site, 30, 31));
    assert!(matches!(by_member, Err(Refused::NotAllowed { .. })));
}

#[test]
fn every_growth_to_64_is_followed_and_every_fork_found() {
    let site = identity("fog.a/site-log");
    let tree = Tree::of(64, "leaf");
    for fork in 1..64 {
        let mut forked = Tree::of(fork, "leaf");
        for n in fork..64 {
            let hashes = stored_hashes(n, b"forked", &forked).unwrap();
            forked.0.extend(hashes);
        }
        let (mut consortium, _) = with_site();
        let mut say = |body| consortium.say("site", EntryKind::SiteCheckpoint, &body);
        say(tree.body(&site, 0, fork + 1)).unwrap();
        assert_eq!(say(forked.body(&site, 0, fork + 1)), Err(Refused::SiteFork), "{fork}");
        if fork < 63 {
            let inconsistent = say(forked.body(&site, fork + 1, 64));
            assert_eq!(inconsistent, Err(Refused::SiteInconsistent), "{fork}");
            say(tree.body(&site, fork + 1, 64)).unwrap();
        }
    }
}

#[test]
fn one_index_has_one_leaf() {
    let (mut consortium, _) = with_site();
    let leaf = |salt: u8| Hex([[1, 2].as_slice(), &[salt; 32]].concat().try_into().unwrap());
    let mut say = |index, salt| {
        let body = CommitmentBody { site: "fog.a/site-log".into(), index, leaf: leaf(salt) };
        consortium.say("site", EntryKind::Commitment, &body)
    };
    assert!(say(7, 1).is_ok() && say(5, 2).is_ok());
    assert_eq!(say(7, 1), Err(Refused::Again));
    assert_eq!(say(7, 2), Err(Refused::CommitmentFork));
    let elsewhere = CommitmentBody { site: "fog.b/site-log".into(), index: 1, leaf: leaf(1) };
    let refused = consortium.say("site", EntryKind::Commitment, &elsewhere);
    assert!(matches!(refused, Err(Refused::NotAllowed { .. })));
    let unknown = CommitmentBody { site: "fog.a/site-log".into(), index: 1, leaf: Hex([9; 34]) };
    assert_eq!(consortium.say("site", EntryKind::Commitment, &unknown), Err(Refused::Leaf));
}

#[test]
fn what_is_remembered_of_a_site_is_bounded() {
    let mut head = SiteHead::default();
    let leaf = Hex([1; 34]);
    for index in 10..MAX_RECENT_COMMITMENTS as u64 + 12 {
        assert_eq!(head.admits_leaf(index, &leaf), Ok(()));
        head.add_leaf(index, leaf);
    }
    assert_eq!(head.recent.len(), MAX_RECENT_COMMITMENTS);
    assert_eq!(head.admits_leaf(11, &leaf), Err(Refused::TooOld));
    assert_eq!(head.admits_leaf(12, &leaf), Err(Refused::Again));
}

#[test]
fn a_devices_history_is_the_sum_of_what_its_site_said() {
    let (mut consortium, site) = with_site();
    consortium.register(&site, "pump-7", Role::Device).unwrap();
    let tree = Tree::of(40, "leaf");
    for (from, size) in [(0, 5), (5, 9)] {
        let mut body = tree.body(&site, from, size);
        for name in ["pump-7", "unregistered"] {
            body.devices.insert(name.into(), DeviceTally { readings: 100, faulty: 3, late: 10 });
        }
        consortium.say("site", EntryKind::SiteCheckpoint, &body).unwrap();
    }
    let pump = consortium.state.device("pump-7").unwrap();
    assert_eq!((pump.fault_rate(), pump.late_rate()), (Some(0.03), Some(0.1)));
    assert_eq!(consortium.state.device("unregistered"), None);
}
