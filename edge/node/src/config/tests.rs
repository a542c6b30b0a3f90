use super::*;

const EXAMPLE: &str = include_str!("../../haar-edge.example.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/haar/edge.toml"), text)
}

#[test]
fn the_example_has_every_key_at_its_default() {
    let example = parse(EXAMPLE).unwrap();
    let uplink = Uplink::new(
        "https://fog.example.org:7443",
        "/etc/haar/fog-ca.pem",
        "/etc/haar/edge.pem",
        "/etc/haar/edge.key",
    );
    let mut defaults = Config::new(
        "edge-1".parse().unwrap(),
        "/var/lib/haar-edge",
        "/etc/haar/pseudonym.key",
        uplink,
    );
    defaults.mqtt = Some(Mqtt { port: None, ..Mqtt::new("localhost", 0) });
    defaults.coap = Some(Coap::default());
    assert_eq!(example, defaults);

    // Optional keys stand commented out, with a value; switched on, they are known too.
    let all: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("#") {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let all = parse(&all).unwrap();
    let mqtt = all.mqtt.unwrap();
    assert_eq!(mqtt.password_file, Some("/etc/haar/mqtt.password".into()));
    for key in [&mqtt.client_id, &mqtt.username, &all.uplink.server_name] {
        assert!(key.is_some());
    }
    for file in [&mqtt.ca_file, &mqtt.cert_file, &mqtt.key_file, &all.uplink.signing_key_file] {
        assert!(file.is_some());
    }
    assert!(all.telemetry.otlp_endpoint.is_some() && mqtt.port.is_some());
}

#[test]
fn a_mistake_is_shown_with_its_place_and_a_suggestion() {
    let text = EXAMPLE.replace("inflight =", "in_flight =");
    let error = parse(&text).unwrap_err().to_string();
    let line = 1 + text.lines().position(|line| line.starts_with("in_flight")).unwrap();
    assert!(error.contains(&format!("line {line}, column 1")), "{error}");
    assert!(error.contains("did you mean `inflight`?"), "{error}");
    let text = EXAMPLE.replace(r#"protocol = "3.1.1""#, r#"protocol = "4""#);
    let error = parse(&text).unwrap_err().to_string();
    assert!(error.contains("`3.1.1`"), "{error}");
}

#[test]
fn bounds_and_conflicts_are_errors() {
    let error = parse(&EXAMPLE.replace("batch_entries = 4096", "batch_entries = 0"));
    assert!(matches!(error, Err(ConfigError::Bounds { key: "uplink.batch_entries", .. })));
    let error = parse(&EXAMPLE.replace("#cert_file", "cert_file"));
    assert!(matches!(error, Err(ConfigError::Conflict(_))), "{error:?}");
    let error = Config::load(Path::new("/nowhere/edge.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
}
