//! A step by HTTP POST, signed.
//!
//! # Format
//! The body is [`Message`](super::message::Message) as JSON. Headers: `Idempotency-Key` (IETF draft-ietf-httpapi-idempotency-key-header-07,
//! a quoted string) and `webhook-id` with the message's id; with a secret also `webhook-timestamp` (seconds since 1970) and
//! `webhook-signature`: `v1,` and base64 of HMAC-SHA-256 over `{id}.{timestamp}.{body}` (Standard Webhooks 1.0.0). The
//! timestamp is that of the attempt.
//!
//! # Answers
//! 2xx: delivered. 408, 425, 429 and 5xx: tried again, not before `Retry-After` if it gives seconds. Redirects are not followed: they and all
//! other answers are refusals.

use super::message::{Message, unix_s};
use super::{NotifyError, Secrets, SendError};
use crate::config::WebhookTarget;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use sha2::Sha256;
use std::path::Path;
use std::time::Duration;

/// The most of an answer that is read, in bytes: enough to reuse the connection.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The longest wait that a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

pub(super) struct Webhook {
    client: Client,
    url: Url,
    secret: Option<Vec<u8>>,
    token: Option<HeaderValue>,
    pub(super) shows_subject: bool,
}

impl Webhook {
    pub(super) fn new(target: &WebhookTarget, secrets: &Secrets<'_>) -> Result<Self, NotifyError> {
        Ok(Self {
            client: client(target.ca_file.as_deref(), secrets)?,
            url: url(&target.url, secrets)?,
            secret: target.secret_file.as_deref().map(|path| secret(path, secrets)).transpose()?,
            token: target.token_file.as_deref().map(|path| token(path, secrets)).transpose()?,
            shows_subject: target.show_subject,
        })
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let body = message.to_json();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut set = |name: &'static str, value: String| {
            // Hexadecimal, digits and base64 only: no failure is possible.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        set("idempotency-key", format!("\"{}\"", message.id));
        set("webhook-id", message.id.clone());
        if let Some(secret) = &self.secret {
            let timestamp = unix_s(crate::commit::now());
            set("webhook-timestamp", timestamp.to_string());
            set("webhook-signature", signature(secret, &message.id, timestamp, &body));
        }
        if let Some(token) = &self.token {
            headers.insert(reqwest::header::AUTHORIZATION, token.clone());
        }
        let request = self.client.post(self.url.clone()).headers(headers).body(body);
        judge(request.send().await).await
    }
}

/// `v1,` and the base64 of the HMAC.
fn signature(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// The secret as Standard Webhooks writes it, `whsec_` and base64, or any other line as it is.
fn secret(path: &Path, secrets: &Secrets<'_>) -> Result<Vec<u8>, NotifyError> {
    let line = secrets.line(path)?;
    match line.strip_prefix("whsec_") {
        None => Ok(line.into_bytes()),
        Some(encoded) => STANDARD.decode(encoded).map_err(|error| {
            secrets
                .wrong(format!("{}: what follows `whsec_` is no base64: {error}", path.display()))
        }),
    }
}

/// A bearer token as header.
pub(super) fn token(path: &Path, secrets: &Secrets<'_>) -> Result<HeaderValue, NotifyError> {
    let header = HeaderValue::from_str(&format!("Bearer {}", secrets.line(path)?));
    let mut header =
        header.map_err(|_| secrets.wrong(format!("{} is no bearer token", path.display())))?;
    header.set_sensitive(true);
    Ok(header)
}

/// A client that follows no redirect and, with `ca`, trusts that authority alone.
pub(super) fn client(ca: Option<&Path>, secrets: &Secrets<'_>) -> Result<Client, NotifyError> {
    let mut builder =
        Client::builder().redirect(reqwest::redirect::Policy::none()).user_agent("haar-fog");
    if let Some(path) = ca {
        let certificates = reqwest::Certificate::from_pem_bundle(&secrets.read(path)?);
        let certificates =
            certificates.map_err(|error| secrets.wrong(format!("{}: {error}", path.display())))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| secrets.wrong(error.to_string()))
}

pub(super) fn url(text: &str, secrets: &Secrets<'_>) -> Result<Url, NotifyError> {
    let url = Url::parse(text).map_err(|error| secrets.wrong(format!("{text}: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(secrets.wrong(format!("{text} is no http or https address")));
    }
    Ok(url)
}

/// What an answer says of the delivery.
pub(super) async fn judge(answer: reqwest::Result<Response>) -> Result<(), SendError> {
    // Without the URL, which may carry a key.
    let answer = answer.map_err(|error| SendError::NoAnswer(describe(&error.without_url())))?;
    let status = answer.status();
    let wait = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = wait.and_then(|value| value.parse().ok()).map(Duration::from_secs);
    drain(answer).await;
    if status.is_success() {
        return Ok(());
    }
    let said = format!("HTTP {status}");
    let again = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
    match again {
        true => Err(SendError::NotNow(said, wait.map(|wait| wait.min(MAX_RETRY_AFTER)))),
        false => Err(SendError::Refused(said)),
    }
}

/// An error with its causes: reqwest's own text leaves them out.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// Reads a short rest of an answer so that its connection can be used again.
async fn drain(mut answer: Response) {
    let mut read = 0;
    while let Ok(Some(bytes)) = answer.chunk().await {
        read += bytes.len();
        if read > MAX_ANSWER_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification (spec/standard-webhooks.md, "Verifying signatures").
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }
}
