//! What programs say of bad input: which file, what is wrong, what to do, with an exit status; and that a
//! full disk costs nothing that was acknowledged. Bad frames are in `e2e` and in the crates' own tests.

use crate::programs;
use crate::ward::{Monitors, Process, Site, Wanted, http_get, metric, now, until};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output};

/// A pipeline that reads what the devices here send.
const PIPELINE: &str = r#"
id = "heart"
version = 1
title = "Heart rate"
family = "vitals"

[window]
size = "10s"
lateness = "600s"

[[signals]]
name = "heart_rate"
rate_hz = 1.0

[[flags]]
name = "fast"
priority = "medium"
text = "The heart beats fast."
when = "heart_rate.mean > 100"
"#;

/// A bedside monitor that sends its heart rate and a text that nobody reads.
const PROFILE: &str = r#"
name = "monitor"
connector = "mqtt"
path = "ward/{patient}/{device}/vitals"

[json]
time = { pointer = "/ts", format = "epoch_ms" }
seq = "/seq"

[[json.observations]]
signal = "heart_rate"
pointer = "/hr"
unit = "/min"
"#;

/// How much the spool's file may still grow on the disk that is full, in KiB.
const ROOM_KIB: u64 = 64;
/// Frames for the full disk: several times what fits.
const FRAMES: u64 = 20_000;

fn site() -> Site {
    Site::new(&Wanted { profiles: &[PROFILE.to_owned()], pipeline: PIPELINE, otlp: None })
}

/// Runs a program that is expected to end by itself.
fn ended(program: &str, args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        Command::new(programs::own(program)).args(args).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn node(site: &Site, program: &str, config: &str) -> (Option<i32>, String) {
    let path = site.path(config);
    ended(program, &["--config", path.to_str().unwrap()])
}

/// The configuration `from`, changed, as `changed.toml`.
fn change(site: &Site, from: &str, old: &str, new: &str) {
    let text = std::fs::read_to_string(site.path(from)).unwrap();
    assert!(text.contains(old), "{from} has no {old}");
    std::fs::write(site.path("changed.toml"), text.replace(old, new)).unwrap();
}

#[track_caller]
fn says(found: &(Option<i32>, String), status: i32, parts: &[&str]) {
    let (code, text) = found;
    assert_eq!(*code, Some(status), "{text}");
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_misspelt_key_is_shown_with_its_line() {
    let site = site();
    change(&site, "edge.toml", "drain_timeout_ms", "drain_timout_ms");
    let found = node(&site, "haar-edge", "changed.toml");
    says(
        &found,
        2,
        &["changed.toml", "line 6", "drain_timout_ms", "did you mean `drain_timeout_ms`"],
    );
    change(&site, "fog.toml", "pipelines", "pipeline");
    let found = node(&site, "haar-fog", "changed.toml");
    says(&found, 2, &["changed.toml", "line 8", "`pipeline`", "`pipelines`"]);
}

#[test]
fn a_port_in_use_is_named() {
    let site = site();
    let coap = UdpSocket::bind(("127.0.0.1", site.coap_port)).unwrap();
    let found = node(&site, "haar-edge", "edge.toml");
    says(&found, 2, &[&format!("127.0.0.1:{}", site.coap_port), "in use"]);
    drop(coap);
    let _admin = std::net::TcpListener::bind(("127.0.0.1", site.fog_admin)).unwrap();
    let found = node(&site, "haar-fog", "fog.toml");
    says(&found, 1, &[&format!("127.0.0.1:{}", site.fog_admin), "in use", "another admin address"]);
}

#[test]
fn an_authority_that_is_none_is_named() {
    let site = site();
    change(&site, "fog.toml", "ca.pem", "pseudonym.key");
    says(&node(&site, "haar-fog", "changed.toml"), 1, &["ca must hold the edges' CA"]);
    change(&site, "edge.toml", "ca.pem", "nowhere.pem");
    let found = node(&site, "haar-edge", "changed.toml");
    says(&found, 2, &["nowhere.pem", "uplink.ca_file"]);
}

#[test]
fn a_damaged_spool_is_named_and_not_overwritten() {
    let site = site();
    let mut edge = site.edge();
    edge.wait_until("up", || http_get(site.edge_admin, "/health/live").is_some());
    drop(edge);
    let spool = site.path("edge").join("spool.redb");
    let whole = std::fs::read(&spool).unwrap();
    // Sixteen bits in each page behind the header.
    let mut flipped = whole.clone();
    flipped.iter_mut().skip(4_096).step_by(256).for_each(|byte| *byte ^= 0x41);
    let damages: [(&[u8], &str); 3] = [
        (b"this is not a database, it is a letter", "is not a spool"),
        (&whole[..whole.len() / 2], "is damaged"),
        (&flipped, "is damaged"),
    ];
    for (bytes, message) in damages {
        std::fs::write(&spool, bytes).unwrap();
        says(&node(&site, "haar-edge", "edge.toml"), 1, &["spool.redb", message]);
        assert_eq!(std::fs::read(&spool).unwrap().len(), bytes.len(), "{message}");
    }
}

#[test]
fn a_log_with_another_key_or_a_cut_database_is_named() {
    let site = site();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    assert!(fog.terminate().success());
    let key = site.path("fog").join("log.key");
    let mine = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    says(
        &node(&site, "haar-fog", "fog.toml"),
        1,
        &["this site log belongs to", "the key file is of"],
    );
    std::fs::write(&key, "a letter").unwrap();
    says(&node(&site, "haar-fog", "fog.toml"), 1, &["holds no signing key", "Restore it"]);
    std::fs::write(&key, mine).unwrap();
    let whole = std::fs::read(site.database()).unwrap();
    for damaged in [&b"a letter"[..], &whole[..whole.len() / 2]] {
        std::fs::write(site.database(), damaged).unwrap();
        says(&node(&site, "haar-fog", "fog.toml"), 1, &["fog.redb does not open", "Restore it"]);
    }
}

/// The limit on the size of files stands for the disk: the system refuses to write in the same way, and
/// it needs no root. `prlimit` frees the space.
#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let site = site();
    let mut edge = site.edge();
    edge.wait_until("up", || http_get(site.edge_admin, "/health/live").is_some());
    drop(edge);
    let _broker = site.broker();
    let bytes = std::fs::metadata(site.path("edge").join("spool.redb")).unwrap().len();
    let script = format!(
        "trap '' XFSZ; echo $$ > \"$2\"; ulimit -S -f {}; exec \"$0\" --config \"$1\"",
        bytes / 1_024 + ROOM_KIB
    );
    let pid = site.path("edge.pid");
    let (program, config) = (programs::own("haar-edge"), site.path("edge.toml"));
    let [program, config, pid_file] = [&program, &config, &pid].map(|path| path.to_str().unwrap());
    let args = ["-c", &script, program, config, pid_file];
    let mut edge = Process::start(Path::new("/bin/bash"), &args, &site.path("edge.log"));
    edge.wait_until("connected to the broker", || {
        metric(site.edge_admin, "haar_edge_broker_connected") > 0.0
    });

    let mut monitors = Monitors::connect(site.broker_port);
    let start_ms = now().micros() / 1_000;
    for frame in 0..FRAMES {
        let (bed, at) = (frame % 8, start_ms - FRAMES as i64 + frame as i64);
        let payload = format!(r#"{{"ts":{at},"seq":{frame},"hr":72.5}}"#);
        monitors.publish(&format!("ward/bed-{bed}/monitor-{bed}/vitals"), &payload);
    }
    edge.wait_until("out of room", || {
        metric(site.edge_admin, "haar_edge_append_failures_total") > 0.0
    });
    assert!(site.log_of("edge").contains("the disk is full; free some space"));
    let kept = metric(site.edge_admin, "haar_edge_readings_total");
    assert!(kept < FRAMES as f64, "the disk was not full");

    let pid = std::fs::read_to_string(&pid).unwrap();
    let prlimit = programs::foreign(&["prlimit"], "util-linux");
    let pid = format!("--pid={}", pid.trim());
    assert!(Command::new(prlimit).args([&pid, "--fsize=unlimited"]).status().unwrap().success());
    until("every reading is in the spool", || {
        metric(site.edge_admin, "haar_edge_readings_total") >= FRAMES as f64
    });
    assert_eq!(monitors.finish(), FRAMES);
    assert_eq!(metric(site.edge_admin, "haar_edge_readings_total"), FRAMES as f64);

    let _fog = site.fog();
    until("the fog has every reading", || {
        metric(site.fog_admin, "haar_fog_observations_total") >= FRAMES as f64
    });
    assert!(edge.terminate().success());
    assert_eq!(metric(site.fog_admin, "haar_fog_observations_total"), FRAMES as f64);
}

#[test]
fn a_cut_recording_is_named_and_left_out() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    let demo = ["demo", "--wfdb", path, "--seconds", "2", "--speed", "40", "--dir"];
    let record = |name: &str, samples: usize| {
        // Format 16 at 250 Hz, with 20,000 samples promised.
        let header = format!("{name} 1 250 20000\n{name}.dat 16 200 16 0 0 0 0 ECG\n");
        std::fs::write(folder.path().join(format!("{name}.hea")), header).unwrap();
        std::fs::write(folder.path().join(format!("{name}.dat")), vec![0; samples * 2]).unwrap();
    };
    record("cut", 5_000);
    let to = folder.path().join("demo");
    let args: Vec<&str> = demo.into_iter().chain([to.to_str().unwrap()]).collect();
    says(&ended("haar", &args), 2, &["cut"]);
    record("whole", 20_000);
    says(&ended("haar", &args), 0, &["left out", "cut", "1 recording"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("demo");
    says(
        &ended("haar", &["demo", "--dir", below.to_str().unwrap()]),
        2,
        &["--dir", "another folder"],
    );
    says(&ended("haar", &["demo", "--speed", "0"]), 2, &["--speed must be above 0"]);
}
