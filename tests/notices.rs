//! Alarms reach people: a fog that is killed with notifications in its outbox delivers each of them after it starts again, by
//! HTTP and through mosquitto; and `haar alarms` shows them and acts on them.

use crate::programs;
use crate::ward::{FAST_HEART, Site, Wanted, fast_hearts, http_get, until};
use haar_normalize::BUILT_IN;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENTS: [&str; 3] = ["bed-1", "bed-2", "bed-3"];

/// Bodies by idempotency key, and how often each came.
pub(crate) type Received = Arc<Mutex<BTreeMap<String, (u32, Value)>>>;

#[test]
fn a_killed_fog_delivers_what_was_in_its_outbox() {
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| (*text).to_owned()).collect();
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: FAST_HEART, otlp: None });
    let hook = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook_port = hook.local_addr().unwrap().port();
    // Nobody answers until the fog has been killed and started again.
    drop(hook);
    notify(&site, hook_port);
    let _broker = site.broker();
    let by_mqtt = subscribe(site.broker_port);
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    fast_hearts(&site, &PATIENTS);
    until("every patient's alarm waits for the pager", || waiting(&site, "pager") >= 3);
    fog.kill();
    let by_http = serve(hook_port);
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    until("nothing waits any more", || waiting(&site, "pager") + waiting(&site, "broker") == 0);

    let told = told(&site);
    assert!(told.len() >= PATIENTS.len(), "{told:?}");
    for received in [&by_http, &by_mqtt] {
        until("each of them has come", || leaves(received) == told);
    }
    let by_http = by_http.lock().unwrap();
    // One key a step: repeats have the key of the first.
    assert_eq!(by_http.len(), told.len());
    assert!(by_http.values().all(|(_, body)| body["flag"] == "fast" && body["priority"] == "high"));
    assert!(by_http.values().all(|(_, body)| body.get("subject").is_none()));
    drop(by_http);
    act(&site);
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());
}

/// Adds two targets for the contact that the built-in policy tells first.
fn notify(site: &Site, hook_port: u16) {
    let path = site.path("fog.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str(&format!(
        "\n[[notify]]\nname = \"pager\"\ncontacts = [\"ward\"]\n\
         webhook = {{ url = \"http://127.0.0.1:{hook_port}/hook\" }}\n\
         [[notify]]\nname = \"broker\"\ncontacts = [\"ward\"]\n\
         mqtt = {{ host = \"127.0.0.1\", port = {}, topic = \"alarms/{{priority}}/{{flag}}\" }}\n",
        site.broker_port
    ));
    std::fs::write(&path, text).unwrap();
}

fn outbox(site: &Site) -> Value {
    let (_, body) = http_get(site.fog_admin, "/v1/alarms/outbox").unwrap_or_default();
    serde_json::from_str(&body).unwrap_or_default()
}

fn waiting(site: &Site, target: &str) -> u64 {
    let standing = outbox(site);
    let targets = standing["targets"].as_array().into_iter().flatten();
    targets.filter(|own| own["target"] == target).filter_map(|own| own["waiting"].as_u64()).sum()
}

/// The leaves of the steps that name the contact, from the history.
fn told(site: &Site) -> BTreeSet<u64> {
    let (status, body) = http_get(site.fog_admin, "/v1/alarms/history?limit=1000").unwrap();
    assert_eq!(status, 200, "{body}");
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(page["before"], Value::Null, "all steps are on one page");
    let steps = page["steps"].as_array().unwrap();
    let names =
        |step: &&Value| step["notify"].as_array().unwrap().iter().any(|name| name == "ward");
    steps.iter().filter(names).map(|step| step["leaf"].as_u64().unwrap()).collect()
}

pub(crate) fn leaves(received: &Received) -> BTreeSet<u64> {
    received.lock().unwrap().values().map(|(_, body)| body["leaf"].as_u64().unwrap()).collect()
}

fn note(received: &Received, body: &[u8]) {
    let body: Value = serde_json::from_slice(body).unwrap();
    let key = body["id"].as_str().unwrap().to_owned();
    let mut received = received.lock().unwrap();
    let (times, first) = received.entry(key).or_insert_with(|| (0, body.clone()));
    assert_eq!(*first, body, "a repeat says the same");
    *times += 1;
}

/// A receiver of webhooks. It breaks every third connection before it answers: whoever sends must not know.
fn serve(port: u16) -> Received {
    let received = Received::default();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let own = Arc::clone(&received);
    std::thread::spawn(move || {
        for (number, stream) in (0..).zip(listener.incoming()) {
            let stream = stream.unwrap();
            let body = read_request(&stream);
            note(&own, &body);
            if number % 3 != 0 {
                let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
                (&stream).write_all(answer).unwrap();
            }
        }
    });
    received
}

fn read_request(stream: &TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut has_key) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        has_key |= line.starts_with("idempotency-key: \"");
        if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.parse().unwrap();
        }
    }
    assert!(has_key);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    body
}

pub(crate) fn subscribe(broker_port: u16) -> Received {
    let received = Received::default();
    let options = MqttOptions::new("nurses", "127.0.0.1", broker_port);
    let (client, mut connection) = Client::new(options, 16);
    client.subscribe("alarms/high/fast", QoS::AtLeastOnce).unwrap();
    let own = Arc::clone(&received);
    std::thread::spawn(move || {
        // Keeps the client: when it is dropped the connection ends.
        let _client = client;
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Packet::Publish(publish))) => note(&own, &publish.payload),
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    });
    received
}

/// `haar alarms`, as a nurse would use it.
fn act(site: &Site) {
    let fog = format!("http://127.0.0.1:{}", site.fog_admin);
    let haar = |args: &[&str], status: i32| {
        let mut command = Command::new(programs::own("haar"));
        let output = command.arg("alarms").args(args).args(["--fog", &fog]).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "haar alarms {args:?}: {output:?}");
        String::from_utf8(if status == 0 { output.stdout } else { output.stderr }).unwrap()
    };
    let list = haar(&["list"], 0);
    let line = list.lines().find(|line| line.contains("fast")).unwrap();
    let id = line.split_whitespace().next().unwrap();
    assert!(haar(&["pause", id, "--by", "nurse 7", "--seconds", "60"], 0).starts_with("paused"));
    assert!(haar(&["resume", id, "--by", "nurse 7"], 0).contains("committed as leaf"));
    let done = haar(&["acknowledge", id, "--by", "nurse 7"], 0);
    assert!(done.contains("committed as leaf"), "{done}");
    let refused = haar(&["acknowledge", "ffffffffffff0", "--by", "nurse 7"], 2);
    assert!(refused.contains("haar alarms list"), "{refused}");
    assert!(haar(&["history", "--limit", "3"], 0).contains("by nurse 7"));
    // Pausing and resuming are told as well, some of it after a retry.
    until("the outbox is empty", || haar(&["outbox"], 0) == "nothing waits\n");
}
