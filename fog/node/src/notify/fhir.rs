//! A step as a FHIR R4 `Communication` (<https://hl7.org/fhir/R4/communication.html>), created once.
//!
//! `POST {base}/Communication` with `If-None-Exist: identifier={system}|{id}` (FHIR R4, section 3.1.0.8.1, conditional create): a repeat finds the
//! first one and creates nothing. Answers are judged as those of a webhook; 412 (several match) is a delivery as well, since
//! one is there.

use super::message::Message;
use super::webhook::{client, judge, token, url};
use super::{NotifyError, Secrets, SendError};
use crate::config::FhirTarget;
use haar_schema::Priority;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use serde_json::{Value, json};

/// System of the identifiers that the messages' ids are.
pub(super) const SYSTEM: &str = "urn:haar:notification";

pub(super) struct Fhir {
    client: Client,
    url: Url,
    token: Option<HeaderValue>,
    subject_system: String,
    pub(super) shows_subject: bool,
}

impl Fhir {
    pub(super) fn new(target: &FhirTarget, secrets: &Secrets<'_>) -> Result<Self, NotifyError> {
        let base = target.url.trim_end_matches('/');
        Ok(Self {
            client: client(target.ca_file.as_deref(), secrets)?,
            url: url(&format!("{base}/Communication"), secrets)?,
            token: target.token_file.as_deref().map(|path| token(path, secrets)).transpose()?,
            subject_system: target.subject_system.clone(),
            shows_subject: target.show_subject,
        })
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let body = communication(message, &self.subject_system).to_string();
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/fhir+json")
            .header("if-none-exist", format!("identifier={SYSTEM}|{}", message.id))
            .body(body);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        let answer = request.send().await;
        if answer.as_ref().is_ok_and(|answer| answer.status().as_u16() == 412) {
            return Ok(());
        }
        judge(answer).await
    }
}

/// The resource. `priority` is of the value set request-priority: an immediate response is `stat`, a prompt one `asap`.
fn communication(message: &Message, subject_system: &str) -> Value {
    let priority = match message.priority {
        Priority::High => "stat",
        Priority::Medium => "asap",
        Priority::Low | Priority::Information => "routine",
    };
    let mut resource = json!({
        "resourceType": "Communication",
        "identifier": [{ "system": SYSTEM, "value": message.id }],
        "status": "completed",
        "category": [{ "coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/communication-category",
            "code": "alert",
            "display": "Alert",
        }] }],
        "priority": priority,
        "topic": { "text": message.headline() },
        "sent": message.at,
        "payload": [
            { "contentString": message.lines() },
            { "contentString": String::from_utf8_lossy(&message.to_json()) },
        ],
    });
    if let Some(subject) = message.subject {
        resource["subject"] =
            json!({ "identifier": { "system": subject_system, "value": subject.to_hex() } });
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::message;

    #[test]
    fn the_resource_has_what_r4_asks_for() {
        let resource = communication(&message(), "urn:example:pseudonym");
        assert_eq!(resource["resourceType"], "Communication");
        assert_eq!(resource["priority"], "stat");
        assert_eq!(resource["identifier"][0]["value"], message().id);
        assert_eq!(resource["subject"]["identifier"]["system"], "urn:example:pseudonym");
        // Communication.sent is a dateTime with a zone, payload[x] has exactly one content.
        assert_eq!(resource["sent"], "1970-01-01T00:00:02Z");
        let payload = resource["payload"].as_array().unwrap();
        assert!(payload.iter().all(|part| part.as_object().unwrap().len() == 1));
    }
}
