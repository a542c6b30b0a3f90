//! The edge's side: one connection at a time. Whoever calls [`connect`] decides when to try again.

use crate::signing::Origin;
use crate::wire::{self, EdgeMessage, FogMessage, FromFog, UplinkClient};
use crate::{
    Ack, Batch, HANDSHAKE_TIMEOUT, Hello, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_BATCH_BYTES,
    MAX_BATCH_ENTRIES, MAX_MESSAGE_BYTES, OUTBOUND_BATCHES, Refusal, Welcome,
};
use haar_identity::Identity;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Status, Streaming};

/// The edge's certificate and the CA of its fog, in PEM.
#[derive(Clone)]
pub struct ClientTls {
    /// The fog must have a certificate that one of these issued.
    pub ca_pem: Vec<u8>,
    /// The edge's certificate chain; its first `dNSName` is the edge's id.
    pub cert_pem: Vec<u8>,
    /// Its private key (PKCS #8, SEC1 or PKCS #1).
    pub key_pem: Vec<u8>,
    /// The name that the fog's certificate must have, if it is not the endpoint's host.
    pub server_name: Option<String>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Why no session came about. Certain: the fog has taken no batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The endpoint or the TLS files cannot be used at all; trying again does not help.
    #[error("{endpoint} with these TLS files cannot be used: {}; the endpoint is https://host:port, cert and key must belong together", crate::chain(.error))]
    Configuration {
        /// The endpoint.
        endpoint: String,
        /// What is wrong.
        #[source]
        error: tonic::transport::Error,
    },
    /// No connection, or no TLS: nobody there, or one of the two certificates is not trusted by the other side.
    #[error("cannot reach the fog at {endpoint}: {detail}")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// What the transport says.
        detail: String,
    },
    /// The fog does not want this edge.
    #[error("the fog refused: {0}")]
    Refused(Refusal),
    /// What answers does not speak this protocol.
    #[error("{endpoint} does not speak this protocol; is it a haar-fog of this version?")]
    Protocol {
        /// The endpoint.
        endpoint: String,
    },
    /// No answer within [`HANDSHAKE_TIMEOUT`].
    #[error("{endpoint} did not answer within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout {
        /// The endpoint.
        endpoint: String,
    },
}

/// Why a batch was not sent. Certain: the fog did not get it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Not the next sequence, or over the limits or the credit: a fault of the caller.
    #[error(
        "a batch of {entries} entries from {first_seq} does not fit: {next_seq} is next and {limit} the last allowed"
    )]
    Misfit {
        /// First sequence of the batch.
        first_seq: u64,
        /// Its entries.
        entries: usize,
        /// The sequence that is next.
        next_seq: u64,
        /// The highest sequence that may be sent.
        limit: u64,
    },
    /// The session has ended; [`AckReceiver::recv`] says why.
    #[error("the session has ended")]
    Ended,
}

/// Why a session ended. Unknown: what was sent beyond the last ack may or may not have arrived.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The fog ended it and said why.
    #[error("the fog ended the session: {0}")]
    Refused(Refusal),
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Lost(#[source] Box<Status>),
    /// The fog closed the stream without a word.
    #[error("the fog closed the stream")]
    Closed,
    /// The fog said something that is not of this protocol.
    #[error("the fog sent what this protocol does not have; update the older side")]
    Protocol,
}

/// An open session. Drop all of it to end it.
#[derive(Debug)]
pub struct Uplink {
    /// Where to go on.
    pub welcome: Welcome,
    /// Takes batches.
    pub batches: BatchSender,
    /// Gives acks.
    pub acks: AckReceiver,
}

/// Sends batches in sequence.
#[derive(Debug)]
pub struct BatchSender {
    out: mpsc::Sender<EdgeMessage>,
    next_seq: u64,
    limit: Arc<AtomicU64>,
    origin: Origin,
    key: Option<Arc<Identity>>,
}

/// Receives acks; the credit in them reaches the [`BatchSender`] only when they are received.
#[derive(Debug)]
pub struct AckReceiver {
    inbound: Streaming<FogMessage>,
    limit: Arc<AtomicU64>,
    /// Keeps the connection's driver alive as long as the stream.
    _channel: Channel,
}

/// Connects to the fog at `endpoint` (`https://host:port`) and introduces the edge. With a `key`, every batch is signed.
///
/// # Errors
/// If no session came about. None of them is fatal by itself but [`ConnectError::Configuration`].
pub async fn connect(
    endpoint: &str,
    tls: &ClientTls,
    hello: Hello,
    key: Option<Arc<Identity>>,
) -> Result<Uplink, ConnectError> {
    let origin = Origin { edge: hello.edge.clone(), incarnation: hello.incarnation };
    let at = || endpoint.to_owned();
    let held = hello.oldest_seq..=hello.next_seq;
    let connecting = async {
        let channel = open_channel(endpoint, tls).await?;
        let (out, outbound) = mpsc::channel(OUTBOUND_BATCHES);
        let ended = |_| ConnectError::Protocol { endpoint: at() };
        out.send(wire::encode_hello(hello)).await.map_err(ended)?;
        let mut inbound = UplinkClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
            .open(ReceiverStream::new(outbound))
            .await
            .map_err(|status| lost_early(endpoint, &status))?
            .into_inner();
        let first = inbound.message().await.map_err(|status| lost_early(endpoint, &status))?;
        let welcome = match first.and_then(wire::decode_fog) {
            Some(FromFog::Welcome(welcome)) if held.contains(&welcome.resume_from) => welcome,
            Some(FromFog::Refused(refusal)) => return Err(ConnectError::Refused(refusal)),
            _ => return Err(ConnectError::Protocol { endpoint: at() }),
        };
        let limit = welcome.resume_from.saturating_sub(1).saturating_add(welcome.credit.into());
        let limit = Arc::new(AtomicU64::new(limit));
        let next_seq = welcome.resume_from;
        let batches = BatchSender { out, next_seq, limit: limit.clone(), origin, key };
        Ok(Uplink { welcome, batches, acks: AckReceiver { inbound, limit, _channel: channel } })
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::Timeout { endpoint: at() }),
    }
}

impl BatchSender {
    /// The sequence that the next batch begins with.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The highest sequence that credit allows now.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sends a batch. Waits while [`OUTBOUND_BATCHES`] wait for the socket. If dropped while it waits, the batch
    /// was not sent.
    ///
    /// # Errors
    /// If the batch does not fit, or the session has ended.
    pub async fn send(&mut self, mut batch: Batch) -> Result<(), SendError> {
        let end_seq = batch.end_seq();
        let fits = batch.first_seq == self.next_seq
            && (1..=MAX_BATCH_ENTRIES).contains(&batch.entries.len())
            && batch.bytes() <= MAX_BATCH_BYTES
            && end_seq - 1 <= self.limit();
        if !fits {
            return Err(SendError::Misfit {
                first_seq: batch.first_seq,
                entries: batch.entries.len(),
                next_seq: self.next_seq,
                limit: self.limit(),
            });
        }
        let signature = self.key.as_ref().map(|key| self.origin.sign(&mut batch, key));
        self.out.send(wire::encode_batch(batch, signature)).await.map_err(|_| SendError::Ended)?;
        self.next_seq = end_seq;
        Ok(())
    }
}

#[cfg(test)]
impl BatchSender {
    /// Goes on elsewhere, as a faulty edge would.
    pub(crate) fn skip_to(&mut self, next_seq: u64) {
        self.next_seq = next_seq;
    }
}

impl AckReceiver {
    /// Waits for the next ack. May be dropped while it waits without losing one.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn recv(&mut self) -> Result<Ack, SessionEnd> {
        match self.inbound.message().await {
            Ok(Some(message)) => match wire::decode_fog(message) {
                Some(FromFog::Ack(ack)) => {
                    self.limit.store(ack.limit(), Ordering::Relaxed);
                    Ok(ack)
                }
                Some(FromFog::Refused(refusal)) => Err(SessionEnd::Refused(refusal)),
                Some(FromFog::Welcome(_)) | None => Err(SessionEnd::Protocol),
            },
            Ok(None) => Err(SessionEnd::Closed),
            Err(status) => Err(SessionEnd::Lost(Box::new(status))),
        }
    }
}

async fn open_channel(endpoint: &str, tls: &ClientTls) -> Result<Channel, ConnectError> {
    crate::use_ring();
    let configuration =
        |error| ConnectError::Configuration { endpoint: endpoint.to_owned(), error };
    let mut config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&tls.ca_pem))
        .identity(tonic::transport::Identity::from_pem(&tls.cert_pem, &tls.key_pem))
        .timeout(HANDSHAKE_TIMEOUT);
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    Endpoint::from_shared(endpoint.to_owned())
        .map_err(configuration)?
        .tls_config(config)
        .map_err(configuration)?
        .connect_timeout(HANDSHAKE_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(|error| ConnectError::Unreachable {
            endpoint: endpoint.to_owned(),
            detail: crate::chain(&error),
        })
}

/// In TLS 1.3 a fog that does not trust the edge's certificate says so after the handshake.
fn lost_early(endpoint: &str, status: &Status) -> ConnectError {
    ConnectError::Unreachable { endpoint: endpoint.to_owned(), detail: crate::chain(status) }
}
