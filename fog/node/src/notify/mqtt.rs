//! A step on an MQTT 3.1.1 topic, QoS 1, by rumqttc. Delivered means that the broker has acknowledged it.
//!
//! `{priority}`, `{flag}`, `{site}` in the topic stand for the message's own; characters that have a meaning in topics become `-`. The payload is the
//! message as JSON, which carries the id: MQTT itself has no key by which a repeat is known. Not retained.
//!
//! A connection is made for each message and closed behind it: alarms are rare, and a connection that nobody watches is dead when it
//! is needed.

use super::message::Message;
use super::{NotifyError, Secrets, SendError};
use crate::config::MqttTarget;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, Packet, QoS, Transport,
};
use std::time::Duration;

/// The longest topic, in bytes.
const MAX_TOPIC_BYTES: usize = 1_024;
/// The longest packet, in bytes.
const MAX_PACKET_BYTES: usize = 256 * 1024;

pub(super) struct Mqtt {
    options: MqttOptions,
    topic: String,
    pub(super) shows_subject: bool,
}

impl Mqtt {
    pub(super) fn new(target: &MqttTarget, secrets: &Secrets<'_>) -> Result<Self, NotifyError> {
        let has_wildcard = target.topic.contains(['+', '#', '\0']);
        if target.topic.is_empty() || target.topic.len() > MAX_TOPIC_BYTES || has_wildcard {
            let problem =
                "mqtt.topic must be a topic without wildcards, such as haar/alarms/{priority}";
            return Err(secrets.wrong(problem.to_owned()));
        }
        let (transport, port) = match &target.ca_file {
            None => (Transport::tcp(), 1883),
            Some(path) => (Transport::tls(secrets.read(path)?, None, None), 8883),
        };
        let port = target.port.unwrap_or(port);
        let mut options = MqttOptions::new(target.client_id.as_str(), target.host.as_str(), port);
        options
            .set_transport(transport)
            .set_clean_session(true)
            .set_keep_alive(Duration::from_secs(30))
            .set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        if let Some(user) = &target.username {
            let password =
                target.password_file.as_ref().map(|path| secrets.line(path)).transpose()?;
            options.set_credentials(user.as_str(), password.unwrap_or_default());
        }
        Ok(Self { options, topic: target.topic.clone(), shows_subject: target.show_subject })
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let no_answer = |error: ConnectionError| match error {
            ConnectionError::ConnectionRefused(
                code @ (ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized),
            ) => SendError::NotNow(format!("the broker refuses the login: {code:?}"), None),
            error => SendError::NoAnswer(error.to_string()),
        };
        let (client, mut events) = AsyncClient::new(self.options.clone(), 4);
        let topic = topic(&self.topic, message);
        let queued = client.try_publish(topic, QoS::AtLeastOnce, false, message.to_json());
        queued.map_err(|error| SendError::Refused(error.to_string()))?;
        loop {
            match events.poll().await.map_err(no_answer)? {
                Event::Incoming(Packet::PubAck(_)) => break,
                Event::Incoming(Packet::Disconnect) => {
                    return Err(SendError::NoAnswer("the broker said goodbye".to_owned()));
                }
                _ => {}
            }
        }
        // It is delivered, however the goodbye goes.
        if client.try_disconnect().is_ok() {
            while let Ok(event) = events.poll().await {
                if event == Event::Outgoing(rumqttc::Outgoing::Disconnect) {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The topic of a message.
fn topic(template: &str, message: &Message) -> String {
    let plain = |text: &str| text.replace(['/', '+', '#', '\0'], "-");
    template
        .replace("{priority}", message.priority.as_str())
        .replace("{flag}", &plain(&message.flag))
        .replace("{site}", &plain(&message.site))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_filled_in() {
        let mut message = crate::notify::tests::message();
        message.flag = "a/b#".to_owned();
        assert_eq!(topic("x/{priority}/{flag}/{site}", &message), "x/high/a-b-/haar.test-site");
    }
}
