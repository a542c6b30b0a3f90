//! Logs and traces of the process.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fmt;
use std::io::IsTerminal;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The exporter is an HTTP client itself: spans about its own requests would beget spans.
const EXPORTED: &str = "info,hyper=off,hyper_util=off,h2=off,reqwest=off,tonic=off,tower=off";

/// What the process says, and to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The name of the process in traces, such as `haar-edge`.
    pub service: String,
    /// Which log lines: a level, or directives such as `info,haar_link=debug`
    /// (<https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html>).
    pub log: String,
    /// Log lines as JSON objects instead of text.
    pub json: bool,
    /// Where traces go by OTLP over HTTP, such as `http://127.0.0.1:4318`; nowhere by default.
    pub otlp_endpoint: Option<String>,
}

/// The telemetry of a process. End it with [`Telemetry::shutdown`], else the last spans are lost.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log filter cannot be read.
    #[error(
        "the log filter `{filter}` is not one: {error}; write a level such as `info`, or `info,haar_link=debug`"
    )]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        #[source]
        error: ParseError,
    },
    /// The endpoint cannot be used.
    #[error("traces cannot go to `{endpoint}`: {error}; write http://host:4318")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// What is wrong with it.
        #[source]
        error: opentelemetry_otlp::ExporterBuildError,
    },
    /// The process has a subscriber already.
    #[error("logging was started twice in this process")]
    AlreadyStarted,
}

impl Telemetry {
    /// Starts logs, and traces if there is an endpoint. Once per process.
    ///
    /// # Errors
    /// If a setting cannot be used, or telemetry was started before.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        // The exporters' own notes are no news of a node; directives of the caller come after and win.
        let filter = format!("opentelemetry=warn,opentelemetry_sdk=warn,{}", settings.log)
            .parse::<EnvFilter>()
            .map_err(|error| StartError::Filter { filter: settings.log.clone(), error })?;
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let lines = if settings.json { lines.json().boxed() } else { lines.boxed() };
        let traces = settings
            .otlp_endpoint
            .as_deref()
            .map(|endpoint| exporter(&settings.service, endpoint))
            .transpose()?;
        let spans = traces.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("haar"))
                .with_filter(EnvFilter::new(EXPORTED))
        });
        tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .with(spans)
            .try_init()
            .map_err(|_| StartError::AlreadyStarted)?;
        Ok(Self { traces })
    }

    /// Sends the spans that still wait, for a few seconds at most.
    pub async fn shutdown(self) {
        let Some(traces) = self.traces else { return };
        // The exporter blocks its thread, so not one of the runtime's.
        match tokio::task::spawn_blocking(move || traces.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
            Err(error) => tracing::warn!(%error, "the last spans were not sent"),
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("traces", &self.traces.is_some()).finish()
    }
}

fn exporter(service: &str, endpoint: &str) -> Result<SdkTracerProvider, StartError> {
    // The exporter's client takes the process's provider of TLS; that there is one already is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The builder takes the full path, unlike the environment variable.
    let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .build()
        .map_err(|error| StartError::Endpoint { endpoint: endpoint.to_owned(), error })?;
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use std::sync::{Arc, Mutex};

    /// One test: a process has one subscriber.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn spans_reach_the_collector_by_shutdown() {
        let settings = Settings {
            service: "haar-test".to_owned(),
            log: "warn".to_owned(),
            json: false,
            otlp_endpoint: None,
        };
        let bad = Settings { log: "haar=loud".to_owned(), ..settings.clone() };
        assert!(matches!(Telemetry::start(bad), Err(StartError::Filter { .. })));

        let received = Arc::new(Mutex::new(Vec::new()));
        let sink = received.clone();
        let collector = axum::Router::new().route(
            "/v1/traces",
            axum::routing::post(move |body: Bytes| async move {
                sink.lock().unwrap().extend_from_slice(&body);
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, collector).await });

        let settings = Settings { otlp_endpoint: Some(endpoint), ..settings };
        let telemetry = Telemetry::start(settings.clone()).unwrap();
        tracing::info_span!("edge.batch").in_scope(|| ());
        assert!(matches!(Telemetry::start(settings), Err(StartError::AlreadyStarted)));
        telemetry.shutdown().await;
        let received = received.lock().unwrap();
        for name in ["edge.batch", "haar-test"] {
            assert!(
                received.windows(name.len()).any(|window| window == name.as_bytes()),
                "{name} did not arrive"
            );
        }
    }
}
