//! A broker that wants TLS and a password, as a hospital's does: readings come in through it, and alarms go out.

use crate::notices::{leaves, subscribe};
use crate::programs;
use crate::ward::{FAST_HEART, Site, Wanted, fast_hearts, free_port, until};
use haar_normalize::BUILT_IN;
use std::process::Command;

#[test]
fn readings_and_alarms_go_through_a_broker_with_tls_and_passwords() {
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| (*text).to_owned()).collect();
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: FAST_HEART, otlp: None });
    let port = free_port();
    secure(&site, port);
    std::fs::write(site.path("mqtt.password"), "edge secret\n").unwrap();
    let plain = format!("host = \"127.0.0.1\"\nport = {}", site.broker_port);
    let login = "username = \"edge\"\npassword_file = \"mqtt.password\"";
    let tls = format!("host = \"localhost\"\nport = {port}\nca_file = \"ca.pem\"\n{login}");
    site.edit("edge.toml", &plain, &tls);
    let alarms = format!(
        "[[notify]]\nname = \"broker\"\ncontacts = [\"ward\"]\n[notify.mqtt]\n{tls}\n\
         topic = \"alarms/{{priority}}/{{flag}}\"\n[admin]"
    );
    site.edit("fog.toml", "[admin]", &alarms);
    let _broker = site.broker();
    // Monitors and nurses are on the ward's own network: the plain listener.
    let told = subscribe(site.broker_port);
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    fast_hearts(&site, &["bed-1"]);
    until("the alarm has come", || !leaves(&told).is_empty());
    assert!(edge.terminate().success());

    // With another password the broker refuses, and the edge says so and goes on asking.
    std::fs::write(site.path("mqtt.password"), "wrong\n").unwrap();
    let edge = site.edge();
    until("the edge says why", || site.log_of("edge").contains("refuses the login"));
    drop(edge);
    assert!(fog.terminate().success());
    let fog = site.log_of("fog") + &site.log_of("edge");
    assert!(!fog.contains("edge secret"), "no password in the logs");
}

/// A second listener with TLS, where only who has a password may come in.
fn secure(site: &Site, port: u16) {
    let passwords = site.path("passwords");
    let program = programs::foreign(&["mosquitto_passwd"], "mosquitto");
    let mut command = Command::new(program);
    let made = command.args(["-b", "-c"]).arg(&passwords).args(["edge", "edge secret"]).status();
    assert!(made.unwrap().success());
    let path = site.path("mosquitto.conf");
    // Settings stand behind the listener that they are of.
    let text = format!(
        "per_listener_settings true\n{}listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\ncafile {}\n\
         certfile {}\nkeyfile {}\n",
        std::fs::read_to_string(&path).unwrap(),
        passwords.display(),
        site.path("ca.pem").display(),
        site.path("localhost.pem").display(),
        site.path("localhost.key").display()
    );
    std::fs::write(&path, text).unwrap();
}
