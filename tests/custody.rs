//! An item goes from member to member by the commands that people use, and the box that it lies in grows warm.

use crate::consortium::{Consortium, put_before};
use crate::privacy::members_learn_nothing;
use crate::ward::{Monitors, Site, Wanted, now, until};
use serde_json::Value;

const LOGGER: &str = r#"
name = "storage-logger"
connector = "mqtt"
path = "storage/{patient}/{device}"

[json]
time = { pointer = "/ts", format = "rfc3339" }
seq = "/seq"

[[json.observations]]
signal = "ambient_temperature"
pointer = "/temp"
unit = "Cel"
"#;

/// As the definition `cold-chain`, in shorter windows.
const COLD_CHAIN: &str = r#"
id = "cold"
version = 1
title = "Cold chain"
family = "vitals"

[window]
size = "10s"

[[signals]]
name = "ambient_temperature"
rate_hz = 1.0

[[flags]]
name = "cold-chain-warm"
priority = "medium"
text = "Warmer than 8 °C."
when = "ambient_temperature.mean > 8.0"
"#;
const SECONDS: i64 = 90;

#[test]
fn an_item_that_was_kept_wrongly_says_so_on_its_way() {
    let profiles = [LOGGER.to_owned()];
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: COLD_CHAIN, otlp: None });
    let consortium = Consortium::found(&site);
    consortium.admit_the_site();

    let issued = consortium.ask(
        0,
        "custody issue --what medication --serial LOT-7/0001 --secret m0.secret --papers lot.papers --key member-0.key",
    );
    let item = issued.split("item ").nth(1).unwrap()[..64].to_owned();
    consortium
        .ask(0, "custody hand-over lot.papers --to m1.example --key member-0.key --out lot.entry");
    let accept = "custody accept lot.papers --entry lot.entry --what medication --holdings m1-items --key member-1.key";
    assert!(consortium.ask(0, accept).contains("m1.example has it from m0.example"));
    // It is not m0's to give any more, and its number is nobody's to use again.
    let again = "custody hand-over lot.papers --to m2.example --key member-0.key --out x.entry";
    assert!(consortium.refused(0, again).contains("is held by m1.example"));
    let twice = "custody issue --what medication --serial LOT-7/0001 --secret m0.secret --papers other.papers --key member-0.key";
    assert!(consortium.refused(0, twice).contains("was issued already"));

    put_before(&site, &consortium);
    let subject = site.subject("box-1");
    let items = format!(
        "[[item]]\nid = \"{item}\"\nsubject = \"{}\"\nflags = [\"cold-chain-warm\"]\n",
        subject.to_hex()
    );
    std::fs::write(site.path("items.toml"), items).unwrap();
    site.edit("fog.toml", "every_ms = 200", "every_ms = 200\nitems_file = \"items.toml\"");
    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    warm(&site);
    let show = |json| {
        let text = consortium.ask(0, &format!("custody show lot.papers{json}"));
        text.trim().to_owned()
    };
    until("the excursion is on the chain", || show("").contains("kept wrongly at m1.example"));
    let chain: Value = serde_json::from_str(&show(" --json")).unwrap();
    let excursions = chain["excursions"].as_array().unwrap();
    assert_eq!((excursions.len(), &excursions[0]["site"]), (1, &"haar.invalid/site".into()));

    // Whoever is handed it next sees that.
    consortium
        .ask(0, "custody hand-over lot.papers --to m2.example --key member-1.key --out on.entry");
    consortium
        .ask(0, "custody accept lot.papers --entry on.entry --what medication --key member-2.key");
    consortium.ask(0, "custody end lot.papers --how destroyed --key member-2.key");
    let shown = show("");
    let holders: Vec<&str> = ["m0.example", "m1.example", "m2.example", "destroyed"]
        .into_iter()
        .filter(|word| shown.contains(word))
        .collect();
    assert_eq!(holders.len(), 4, "{shown}");
    // The number is on the papers alone.
    for n in 0..chain["handed"].as_array().unwrap().len() as u64 + 8 {
        let entry = consortium.ask(0, &format!("entry {n}"));
        assert!(!entry.contains("LOT-7"), "{entry}");
    }
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());
    for server in consortium.servers {
        assert!(server.terminate().success());
    }
    members_learn_nothing(&site, &["box-1", "LOT-7"]);
}

/// A minute and a half at 12 °C.
fn warm(site: &Site) {
    let begin = now().plus_micros(-SECONDS * 1_000_000);
    let mut monitors = Monitors::connect(site.broker_port);
    for second in 0..SECONDS {
        let at = begin.plus_micros(second * 1_000_000);
        let payload = format!(r#"{{"ts":"{at}","seq":{second},"temp":12.0}}"#);
        monitors.publish("storage/box-1/logger-1", &payload);
    }
    monitors.finish();
}
