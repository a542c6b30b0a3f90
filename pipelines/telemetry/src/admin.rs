//! The admin endpoint of a node: plain HTTP/1.1, for Prometheus, systemd, Kubernetes and people.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus text format 0.0.4 |
//! | `/health/live` | 200 `ok` as long as the process answers |
//! | `/health/ready` | 200 `{"ready":true,"not_ready":[]}`, or 503 and the list of what is not ready and why |

use crate::{Metrics, Readiness};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long open requests may take after shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A bound admin endpoint.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    local_addr: SocketAddr,
}

/// Why there is no admin endpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Somebody else listens there.
    #[error(
        "{0} is in use: stop what listens there (`ss -ltnp` shows it) or set another admin address"
    )]
    InUse(SocketAddr),
    /// The address cannot be bound for another reason.
    #[error(
        "cannot listen on {addr} for the admin endpoint: {error}; set an address of this machine"
    )]
    Address {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// The listening socket failed.
    #[error("the admin endpoint failed: {0}")]
    Serve(#[source] std::io::Error),
}

impl Admin {
    /// Listens on `addr` (port 0: any free one).
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(addr: SocketAddr) -> Result<Self, AdminError> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => AdminError::InUse(addr),
            _ => AdminError::Address { addr, error },
        };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_addr })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The endpoints above, for one node; `merge` more as needed.
    pub fn router(metrics: &Metrics, readiness: &Readiness) -> Router {
        let (metrics, readiness) = (metrics.clone(), readiness.clone());
        let encode = move || async move {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.encode())
        };
        Router::new()
            .route("/metrics", get(encode))
            .route("/health/live", get(|| async { "ok" }))
            .route("/health/ready", get(move || async move { ready(&readiness) }))
    }

    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// If the listening socket fails.
    pub async fn serve(
        self,
        router: Router,
        shutdown: CancellationToken,
    ) -> Result<(), AdminError> {
        let serving = axum::serve(self.listener, router)
            .with_graceful_shutdown(shutdown.clone().cancelled_owned());
        tokio::select! {
            served = async { serving.await } => served.map_err(AdminError::Serve),
            () = async {
                shutdown.cancelled().await;
                tokio::time::sleep(DRAIN_TIMEOUT).await;
            } => Ok(()),
        }
    }
}

fn ready(readiness: &Readiness) -> impl IntoResponse + use<> {
    let unready = readiness.unready();
    let status = if unready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": unready.is_empty(), "not_ready": unready })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn fetch(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn says_what_is_not_ready_and_stops_when_told() {
        let (metrics, readiness) = (Metrics::new("haar-test").unwrap(), Readiness::new());
        metrics.counter(&crate::names::EDGE_BATCHES).add(7, &[]);
        let spool = readiness.condition("spool");
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = admin.local_addr();
        let shutdown = CancellationToken::new();
        let serving =
            tokio::spawn(admin.serve(Admin::router(&metrics, &readiness), shutdown.clone()));

        assert!(fetch(addr, "/metrics").await.contains("haar_edge_batches_total 7"));
        assert!(fetch(addr, "/health/live").await.starts_with("HTTP/1.1 200"));
        let answer = fetch(addr, "/health/ready").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains(r#"{"condition":"spool","reason":"starting"}"#), "{answer}");
        spool.ready();
        assert!(fetch(addr, "/health/ready").await.starts_with("HTTP/1.1 200"));

        let error = Admin::bind(addr).await.unwrap_err();
        assert!(matches!(error, AdminError::InUse(at) if at == addr), "{error}");
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}
