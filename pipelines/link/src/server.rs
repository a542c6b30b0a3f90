//! The fog's side: a listening socket and the trait that takes what comes.

use crate::session::{self, Sessions};
use crate::wire::{self, EdgeMessage, FogMessage, UplinkServer};
use crate::{
    AckSender, Batch, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, Hello, KEEPALIVE_INTERVAL,
    KEEPALIVE_TIMEOUT, MAX_MESSAGE_BYTES, Refusal, RefusalReason, STREAM_WINDOW_BYTES, SessionId,
    Welcome, identity,
};
use haar_schema::EdgeId;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// Messages to an edge that wait for its socket: a Welcome, an ack, a refusal.
const OUTBOUND_MESSAGES: usize = 4;
/// HTTP/2 streams of one connection; an edge needs one.
const STREAMS_PER_CONNECTION: u32 = 4;

/// What takes the readings: the fog.
///
/// For one edge, calls never overlap: after an `open` that succeeded, batches come in order, then exactly one
/// `closed`, and only then the next `open`. Different edges call at the same time.
pub trait Fog: Send + Sync + 'static {
    /// Once per connection, before any batch: decides where the edge goes on. If the future is dropped (the
    /// edge reconnected, the server stops) or it fails, no `closed` follows.
    fn open(
        &self,
        edge: &EdgeId,
        session: SessionId,
        hello: Hello,
        acks: AckSender,
    ) -> impl Future<Output = Result<Welcome, Refusal>> + Send;

    /// One batch, contiguous with the last, within the limits and the credit. While it waits, nothing more is
    /// read from the edge. The future is dropped when the session ends: it must leave a batch either taken or
    /// not taken (such as `mpsc::Sender::send`).
    fn batch(
        &self,
        edge: &EdgeId,
        session: SessionId,
        batch: Batch,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The session is over. Must not block.
    fn closed(&self, edge: &EdgeId, session: SessionId);
}

/// The fog's certificate and the CA of its edges, in PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// Edges must have a certificate that one of these issued.
    pub ca_pem: Vec<u8>,
    /// The fog's certificate chain.
    pub cert_pem: Vec<u8>,
    /// Its private key (PKCS #8, SEC1 or PKCS #1).
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls(redacted)")
    }
}

/// Why a [`LinkServer`] did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody else listens there.
    #[error(
        "{0} is in use: stop what listens there (`ss -ltnp` shows it) or set another address for the uplink"
    )]
    InUse(SocketAddr),
    /// The address cannot be bound for another reason.
    #[error(
        "cannot listen on {addr}: {error}; set an address of this machine, and a port from 1024 up unless privileged"
    )]
    Address {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// The PEM files do not make a TLS server.
    #[error("the uplink's TLS files are not usable: {}; ca must hold the edges' CA, cert and key must belong together", crate::chain(.0))]
    Tls(#[source] tonic::transport::Error),
}

/// Why a [`LinkServer`] ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The listening socket failed.
    #[error("the uplink's listening socket failed: {}", crate::chain(.0))]
    Transport(#[source] tonic::transport::Error),
}

/// A bound server that does not serve yet.
pub struct LinkServer {
    builder: Server,
    incoming: TcpIncoming,
    local_addr: SocketAddr,
}

impl LinkServer {
    /// Listens on `addr` (port 0: any free one). Connections wait until [`LinkServer::serve`].
    ///
    /// # Errors
    /// If the address cannot be bound or the TLS files are not usable.
    pub async fn bind(addr: SocketAddr, tls: ServerTls) -> Result<Self, BindError> {
        crate::use_ring();
        let config = ServerTlsConfig::new()
            .identity(Identity::from_pem(&tls.cert_pem, &tls.key_pem))
            .client_ca_root(Certificate::from_pem(&tls.ca_pem))
            .timeout(HANDSHAKE_TIMEOUT);
        let builder = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(STREAM_WINDOW_BYTES)
            .tls_config(config)
            .map_err(BindError::Tls)?;
        let address = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => BindError::InUse(addr),
            _ => BindError::Address { addr, error },
        };
        let listener = TcpListener::bind(addr).await.map_err(address)?;
        let local_addr = listener.local_addr().map_err(address)?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Ok(Self { builder, incoming, local_addr })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown`: then every session is refused with [`RefusalReason::Stopping`] and closed.
    /// Returns after the last `closed`.
    ///
    /// # Errors
    /// If the listening socket fails.
    pub async fn serve<F: Fog>(
        mut self,
        fog: Arc<F>,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let tracker = TaskTracker::new();
        // Sessions end with the server, also when it ends by an error.
        let stopping = shutdown.child_token();
        let _stop_sessions = stopping.clone().drop_guard();
        let service =
            Service { fog, sessions: Sessions::new(stopping.clone()), tracker: tracker.clone() };
        let service = UplinkServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let serving = self
            .builder
            .add_service(service)
            .serve_with_incoming_shutdown(self.incoming, shutdown.clone().cancelled_owned());
        let served = tokio::select! {
            served = serving => served.map_err(ServeError::Transport),
            // A connection that does not close is cut off.
            () = async {
                shutdown.cancelled().await;
                tokio::time::sleep(DRAIN_TIMEOUT).await;
            } => Ok(()),
        };
        stopping.cancel();
        tracker.close();
        tracker.wait().await;
        served
    }
}

struct Service<F> {
    fog: Arc<F>,
    sessions: Arc<Sessions>,
    tracker: TaskTracker,
}

#[tonic::async_trait]
impl<F: Fog> wire::Uplink for Service<F> {
    type OpenStream = ReceiverStream<Result<FogMessage, Status>>;

    async fn open(
        &self,
        request: Request<Streaming<EdgeMessage>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let certified = match request.peer_certs().as_deref().map(Vec::as_slice) {
            Some([certificate, ..]) => identity::certified_edge(certificate),
            // TLS asked for one, so this does not happen; it must not become an anonymous edge if it does.
            _ => Err(Refusal::new(RefusalReason::Identity, "no client certificate was given")),
        };
        let (out, outbound) = mpsc::channel(OUTBOUND_MESSAGES);
        let (fog, sessions) = (self.fog.clone(), self.sessions.clone());
        self.tracker.spawn(session::run(fog, sessions, certified, request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}
