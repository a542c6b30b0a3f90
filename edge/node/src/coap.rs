//! Readings from CoAP devices (RFC 7252) over UDP; messages by coap-lite.
//!
//! A device POSTs or PUTs its frame to a path that a device profile knows.
//!
//! | answer | when |
//! |---|---|
//! | 2.04 Changed | the spool has committed it, now or at an earlier delivery |
//! | 4.00 Bad Request | it could not be decoded; it is kept in quarantine, so sending it again does not help |
//! | 4.02 Bad Option | a critical option that this server does not know |
//! | 4.04 Not Found | no profile knows the path; kept in quarantine too |
//! | 4.05 Method Not Allowed | neither POST nor PUT |
//! | 4.13 Request Entity Too Large, with Size1 | over `max_payload_bytes`, or sent in blocks (RFC 7959), which are not put together |
//! | 5.03 Service Unavailable, with Max-Age | the spool takes nothing or too much waits for it: come back after Max-Age |
//!
//! Confirmable requests are answered in their acknowledgement; the commit takes milliseconds, a device retransmits after
//! two seconds. A retransmission gets the same answer and is not a second reading, except that one that was answered
//! 5.03 is tried anew.
//!
//! # Limits
//! `max_in_flight` requests wait for the spool; [`exchanges::MAX_EXCHANGES`] answers are remembered.
//!
//! # Trust
//! None: there is no DTLS yet. Whoever reaches the port can send readings for any path, and source addresses can be
//! forged. Answers are smaller than requests but for a handful of bytes, so the port amplifies nothing. Bind it to the
//! devices' network.

mod exchanges;

use crate::clock;
use crate::config::Coap;
use crate::intake::{Arrival, Outcome, Reply};
use crate::stats::Shared;
use bytes::Bytes;
use coap_lite::block_handler::BlockValue;
use coap_lite::{
    CoapOption, CoapRequest, MessageClass, MessageType, Packet, RequestType, ResponseType,
};
use exchanges::{Exchanges, Seen};
use haar_normalize::{Connector, RejectReason};
use haar_telemetry::Condition;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The longest UDP datagram.
const MAX_DATAGRAM_BYTES: usize = 65_535;
/// When a device that was answered 5.03 should come back.
const RETRY_AFTER_S: u32 = 5;
/// Critical options that are understood or may be passed over (RFC 7252 section 5.10, RFC 7959): Uri-Host, Uri-Port,
/// Uri-Path, Uri-Query, Accept, Block1.
const KNOWN_CRITICAL: [u16; 6] = [3, 7, 11, 15, 17, 27];

/// Why the CoAP server does not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoapError {
    /// Somebody else listens there.
    #[error(
        "{0}/udp is in use: stop what listens there (`ss -lunp` shows it) or set another coap.listen"
    )]
    InUse(SocketAddr),
    /// The address cannot be bound for another reason.
    #[error("cannot listen on {addr}/udp: {error}; set coap.listen to an address of this machine")]
    Address {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
}

/// A bound server.
pub(crate) struct CoapSource {
    socket: Arc<UdpSocket>,
    local_addr: SocketAddr,
    config: Coap,
}

/// What the requests share.
struct Server {
    socket: Arc<UdpSocket>,
    shared: Arc<Shared>,
    exchanges: Mutex<Exchanges>,
    max_payload_bytes: usize,
    /// Message id of the next answer to a non-confirmable request.
    next_message_id: AtomicU16,
}

/// Whom to answer.
struct Caller {
    from: SocketAddr,
    message_id: u16,
    kind: MessageType,
    token: Vec<u8>,
}

impl CoapSource {
    pub(crate) async fn bind(config: &Coap) -> Result<Self, CoapError> {
        let addr = config.listen;
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => CoapError::InUse(addr),
            _ => CoapError::Address { addr, error },
        };
        let socket = UdpSocket::bind(addr).await.map_err(failed)?;
        let local_addr = socket.local_addr().map_err(failed)?;
        Ok(Self { socket: Arc::new(socket), local_addr, config: config.clone() })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown`, then answers 5.03 until intake has `settled`.
    pub(crate) async fn run(
        self,
        arrivals: mpsc::Sender<Arrival>,
        shared: Arc<Shared>,
        condition: Condition,
        shutdown: CancellationToken,
        settled: CancellationToken,
    ) {
        condition.ready();
        let server = Arc::new(Server {
            socket: self.socket.clone(),
            shared,
            exchanges: Mutex::default(),
            max_payload_bytes: self.config.max_payload_bytes,
            // A restarted server must not repeat the ids that its peers remember.
            next_message_id: AtomicU16::new(getrandom::u32().unwrap_or_default() as u16),
        });
        let in_flight = Arc::new(Semaphore::new(self.config.max_in_flight));
        let answering = TaskTracker::new();
        let mut arrivals = Some(arrivals);
        let mut datagram = vec![0; MAX_DATAGRAM_BYTES];
        loop {
            let (length, from) = tokio::select! {
                biased;
                () = shutdown.cancelled(), if arrivals.is_some() => {
                    arrivals = None;
                    continue;
                }
                () = settled.cancelled() => break,
                received = self.socket.recv_from(&mut datagram) => match received {
                    Ok(received) => received,
                    // Such as an ICMP error for an earlier answer: that device has gone.
                    Err(_) => continue,
                },
            };
            let Some((caller, request)) = server.admit(&datagram[..length], from).await else {
                continue;
            };
            let Some(arrivals) = &arrivals else {
                server.unavailable(&caller, "stopping").await;
                continue;
            };
            if server.shared.stalled.load(Relaxed) {
                server.unavailable(&caller, "stalled").await;
                continue;
            }
            let Ok(permit) = in_flight.clone().try_acquire_owned() else {
                server.unavailable(&caller, "in_flight").await;
                continue;
            };
            let (reply, outcome) = oneshot::channel();
            match arrivals.try_send(request.arrival(reply)) {
                Ok(()) => {
                    let server = server.clone();
                    answering.spawn(async move {
                        server.conclude(&caller, outcome).await;
                        drop(permit);
                    });
                }
                Err(TrySendError::Full(_)) => server.unavailable(&caller, "queue").await,
                Err(TrySendError::Closed(_)) => server.unavailable(&caller, "stopping").await,
            }
        }
        answering.close();
        answering.wait().await;
    }
}

/// A request that goes to intake.
struct Accepted {
    path: String,
    payload: Bytes,
}

impl Accepted {
    fn arrival(self, reply: oneshot::Sender<Outcome>) -> Arrival {
        Arrival {
            connector: Connector::Coap,
            path: self.path,
            payload: self.payload,
            received: clock::now(),
            // A retransmission ends in `Exchanges`.
            redelivered: false,
            reply: Reply::Coap(reply),
        }
    }
}

impl Server {
    /// Reads a datagram; answers by itself what need not go to intake.
    async fn admit(&self, datagram: &[u8], from: SocketAddr) -> Option<(Caller, Accepted)> {
        // What is no CoAP message is silently ignored (RFC 7252 section 4.2).
        let packet = Packet::from_bytes(datagram).ok()?;
        let kind = packet.header.get_type();
        if !matches!(kind, MessageType::Confirmable | MessageType::NonConfirmable) {
            return None;
        }
        let message_id = packet.header.message_id;
        let caller = Caller { from, message_id, kind, token: packet.get_token().to_vec() };
        let MessageClass::Request(method) = packet.header.code else {
            // An empty confirmable message is a ping; a response was not asked for. Both get a reset.
            if kind == MessageType::Confirmable {
                self.reset(&caller).await;
            }
            return None;
        };
        let seen = self.exchanges().begin(from, message_id, Instant::now());
        match seen {
            Seen::New => {}
            // The answer is on its way.
            Seen::InProgress => return None,
            Seen::Answered(answer) => {
                self.transmit(&answer, from).await;
                return None;
            }
        }
        match self.judge(method, packet, from) {
            Ok(accepted) => Some((caller, accepted)),
            Err(status) => {
                self.answer(&caller, status).await;
                None
            }
        }
    }

    /// What can be said of a request without intake.
    fn judge(
        &self,
        method: RequestType,
        packet: Packet,
        from: SocketAddr,
    ) -> Result<Accepted, ResponseType> {
        if !matches!(method, RequestType::Post | RequestType::Put) {
            return Err(ResponseType::MethodNotAllowed);
        }
        let mut critical = packet.options().map(|(number, _)| *number).filter(|n| n % 2 == 1);
        if critical.any(|number| !KNOWN_CRITICAL.contains(&number)) {
            return Err(ResponseType::BadOption);
        }
        let in_blocks = packet
            .get_first_option_as::<BlockValue>(CoapOption::Block1)
            .is_some_and(|block| !block.is_ok_and(|block| block.num == 0 && !block.more));
        if in_blocks || packet.payload.len() > self.max_payload_bytes {
            return Err(ResponseType::RequestEntityTooLarge);
        }
        let request = CoapRequest::from_packet(packet, from);
        let path = request.get_path_as_vec().map_err(|_| ResponseType::BadRequest)?.join("/");
        Ok(Accepted { path, payload: request.message.payload.into() })
    }

    /// Waits for what became of a request, and says it.
    async fn conclude(&self, caller: &Caller, outcome: oneshot::Receiver<Outcome>) {
        match outcome.await {
            Ok(Outcome::Committed) => self.answer(caller, ResponseType::Changed).await,
            Ok(Outcome::Quarantined(RejectReason::NoProfile)) => {
                self.answer(caller, ResponseType::NotFound).await;
            }
            Ok(Outcome::Quarantined(_)) => self.answer(caller, ResponseType::BadRequest).await,
            // An error: intake has died, the edge is stopping.
            Ok(Outcome::Refused) | Err(_) => self.unavailable(caller, "spool").await,
        }
    }

    async fn answer(&self, caller: &Caller, status: ResponseType) {
        let mut packet = self.packet(caller, status);
        if status == ResponseType::RequestEntityTooLarge {
            let size = u32::try_from(self.max_payload_bytes).unwrap_or(u32::MAX);
            packet.add_option(CoapOption::Size1, uint(size));
            self.shared.refuse(Connector::Coap, "too_large");
        }
        // Has a size limit of its own that no answer here comes near.
        let Ok(datagram) = packet.to_bytes() else { return };
        self.exchanges().answered(caller.from, caller.message_id, datagram.clone());
        self.transmit(&datagram, caller.from).await;
    }

    /// 5.03: nothing was taken, so that a retransmission is a new attempt.
    async fn unavailable(&self, caller: &Caller, reason: &'static str) {
        self.shared.refuse(Connector::Coap, reason);
        let mut packet = self.packet(caller, ResponseType::ServiceUnavailable);
        packet.add_option(CoapOption::MaxAge, uint(RETRY_AFTER_S));
        self.exchanges().forget(caller.from, caller.message_id);
        if let Ok(datagram) = packet.to_bytes() {
            self.transmit(&datagram, caller.from).await;
        }
    }

    fn packet(&self, caller: &Caller, status: ResponseType) -> Packet {
        let mut packet = Packet::new();
        packet.header.set_version(1);
        match caller.kind {
            MessageType::Confirmable => {
                packet.header.set_type(MessageType::Acknowledgement);
                packet.header.message_id = caller.message_id;
            }
            _ => {
                packet.header.set_type(MessageType::NonConfirmable);
                packet.header.message_id = self.next_message_id.fetch_add(1, Relaxed);
            }
        }
        packet.header.code = MessageClass::Response(status);
        packet.set_token(caller.token.clone());
        packet
    }

    async fn reset(&self, caller: &Caller) {
        let mut packet = Packet::new();
        packet.header.set_version(1);
        packet.header.set_type(MessageType::Reset);
        packet.header.code = MessageClass::Empty;
        packet.header.message_id = caller.message_id;
        if let Ok(datagram) = packet.to_bytes() {
            self.transmit(&datagram, caller.from).await;
        }
    }

    async fn transmit(&self, datagram: &[u8], to: SocketAddr) {
        // UDP: an answer may be lost anyway, and the device asks again.
        let _ = self.socket.send_to(datagram, to).await;
    }

    fn exchanges(&self) -> MutexGuard<'_, Exchanges> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An option value of format uint: as few bytes as possible (RFC 7252 section 3.2).
fn uint(value: u32) -> Vec<u8> {
    value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}
