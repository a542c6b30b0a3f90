//! A running fog, asked by its admin address.

use crate::failure::Failure;
use serde_json::Value;
use std::time::Duration;

/// How long an answer may take; an action waits for its commit.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Which fog.
#[derive(Debug, clap::Args)]
pub(crate) struct Fog {
    /// The fog's admin address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9465", env = "HAAR_FOG")]
    fog: String,
    /// Print the fog's JSON as it is.
    #[arg(long)]
    json: bool,
}

impl Fog {
    /// Asks for something.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(path, None)
    }

    /// Hands something in.
    pub(crate) fn post(
        &self,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Value, Failure> {
        self.ask(path, Some((content_type, body)))
    }

    /// Prints an answer: as it is, or as a table.
    pub(crate) fn show(&self, answer: &Value, table: impl Fn(&Value) -> String) {
        match self.json {
            true => println!("{answer}"),
            false => print!("{}", table(answer)),
        }
    }

    fn ask(&self, path: &str, body: Option<(&'static str, Vec<u8>)>) -> Result<Value, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.exchange(path, body)).await })?
    }

    async fn exchange(
        &self,
        path: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Value, Failure> {
        // reqwest takes the process's provider; that there is one already is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = format!("{}{path}", self.fog.trim_end_matches('/'));
        let client = reqwest::Client::builder().build()?;
        let request = match body {
            None => client.get(&url),
            Some((kind, body)) => client.post(&url).header("content-type", kind).body(body),
        };
        let mut answer = request.send().await.map_err(|error| {
            let cause = Failure::from(error.without_url());
            Failure::new(format!(
                "no fog answers at {}: {cause}; give its admin address with --fog",
                self.fog
            ))
        })?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER_BYTES {
                return Err(Failure::new("the answer is longer than any of a fog"));
            }
        }
        if !status.is_success() {
            let said = String::from_utf8_lossy(&bytes);
            return Err(Failure::new(format!("the fog says: {} ({status})", said.trim())));
        }
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// A text of an answer.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// A time of an answer, RFC 3339.
pub(crate) fn time(micros: &Value) -> String {
    let time = micros.as_i64().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
