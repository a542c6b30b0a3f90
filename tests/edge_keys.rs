//! Whose key signs an edge's batches, and what the members learn of the devices behind it.

use crate::consortium::{Consortium, put_before};
use crate::ward::{FAST_HEART, Site, Wanted, fast_hearts, http_get, until};
use haar_ledger::{LeafKind, RecordsKey, Snapshot, open_read_only};
use haar_normalize::BUILT_IN;
use serde_json::Value;
use std::sync::Arc;

/// Two vitals a second for a minute.
const READINGS: u64 = 120;
const DEVICE: &str = "m1.example/monitor-of-bed-1";

#[test]
fn a_batch_counts_by_its_key_and_a_devices_history_is_in_the_log() {
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| (*text).to_owned()).collect();
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: FAST_HEART, otlp: None });
    let consortium = Consortium::found(&site);
    consortium.admit_the_site();
    let first = consortium.key("m1.example/edge-1", "edge.sign", false);
    consortium.key(DEVICE, "monitor.key", false);
    put_before(&site, &consortium);
    site.edit("fog.toml", "[link]", "[link]\nedge_keys = \"registered\"");
    site.edit("edge.toml", "[uplink]", "[uplink]\nsigning_key_file = \"edge.sign\"");

    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    // A key that nobody has registered signs in vain; what it signed is kept.
    fast_hearts(&site, &["bed-1"]);
    until("the edge is refused", || site.log_of("edge").contains("has no key m1.example/edge-1"));
    assert_eq!(leaves(&site), 0);
    consortium.ask(0, "key register --key fog/log.key --new edge.sign --role edge");
    consortium.ask(0, "key register --key fog/log.key --new monitor.key --role device");
    site.wait_ready(&mut edge, site.edge_admin);
    until("the device has a history", || history(&consortium) == READINGS);

    // A fog that is killed counts nothing twice.
    fog.kill();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    fast_hearts(&site, &["bed-1", "bed-2"]);
    until("the history goes on", || history(&consortium) >= 2 * READINGS);
    let shown = consortium.ask(0, &format!("keys {DEVICE}"));
    assert!(shown.contains(&format!("{} readings, 0.00 % faulty", 2 * READINGS)), "{shown}");
    // Of a device that the members do not know, they learn nothing.
    let stranger = consortium.ask(0, "keys m1.example/edge-1 --json");
    assert!(stranger.contains("\"device\":null"), "{stranger}");

    // What a revoked key signs is refused, and kept until another key signs it.
    consortium.ask(0, &format!("key revoke --key member-1.key {first}"));
    until("the fog knows of it", || {
        fast_hearts(&site, &["bed-1"]);
        site.log_of("edge").contains("the key m1.example/edge-1 was revoked")
    });
    assert!(edge.terminate().success());
    std::fs::remove_file(site.path("edge.sign")).unwrap();
    let second = consortium.key("m1.example/edge-1", "edge.sign", false);
    consortium.ask(0, "key register --key fog/log.key --new edge.sign --role edge");
    let before = history(&consortium);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    until("what was kept has come", || history(&consortium) > before);
    assert_eq!(history(&consortium) % READINGS, 0);
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());
    for server in consortium.servers {
        assert!(server.terminate().success());
    }
    assert_eq!(vouched(&site), [first, second]);
}

/// Readings of the device, as the log has them.
fn history(consortium: &Consortium<'_>) -> u64 {
    let keys = consortium.ask(0, &format!("keys {DEVICE} --json"));
    let keys: Value = serde_json::from_str(&keys).unwrap();
    keys["device"]["readings"].as_u64().unwrap_or_default()
}

fn leaves(site: &Site) -> u64 {
    let (_, body) = http_get(site.fog_admin, "/v1/consortium").unwrap_or_default();
    let levels: Value = serde_json::from_str(&body).unwrap_or_default();
    levels["leaves"].as_u64().unwrap_or_default()
}

/// The keys that the site log's leaves name for the edge.
fn vouched(site: &Site) -> Vec<String> {
    let db = open_read_only(&site.database()).unwrap();
    let key = Arc::new(RecordsKey::load(&site.path("fog/records.key")).unwrap());
    let snapshot = Snapshot::open_with(&db, key).unwrap();
    let kind = LeafKind::EdgeKey.byte();
    let at = (0..snapshot.size()).filter(|at| snapshot.leaf(*at).unwrap()[1] == kind);
    at.map(|at| {
        let body: Value = serde_json::from_slice(&snapshot.record(at).unwrap().body).unwrap();
        assert_eq!(body["edge"], "edge-1");
        body["key"].as_str().unwrap().to_owned()
    })
    .collect()
}
