//! Confirmable CoAP messages (RFC 7252) over UDP, with its retransmission.
//!
//! A request that gets no answer is sent again after 2 to 3 s, then after twice that, and so on ([`MAX_RETRANSMIT`] times;
//! section 4.2 and the parameters of section 4.8). An empty acknowledgement stops that; the response then comes by itself and
//! is acknowledged. 5.03 is asked again, as a new request, after the response's Max-Age.
//!
//! # Limits
//! Devices share [`ENDPOINTS`] sockets with [`OUTSTANDING`] exchanges each. A message ID may come back only
//! after 247 s (EXCHANGE_LIFETIME), which allows 265 messages/s a socket. Frames fit one datagram: no block-wise transfer.
//!
//! # Not kept
//! NSTART = 1 per device: two frames of one patch may be under way at once if the ward runs much faster than real time.

use super::Counts;
use crate::format::SENML_JSON;
use crate::frame::{Connector, Frame};
use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType, ResponseType};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Sockets that the devices share.
pub const ENDPOINTS: usize = 16;
/// Exchanges under way on one socket.
pub const OUTSTANDING: u32 = 16;
/// ACK_TIMEOUT.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// ACK_RANDOM_FACTOR.
pub const ACK_RANDOM_FACTOR: f64 = 1.5;
/// MAX_RETRANSMIT.
pub const MAX_RETRANSMIT: u32 = 4;
/// How often a request is made anew after 5.03, and how long is waited for that at most.
const ANEW: (u32, Duration) = (10, Duration::from_secs(5));
/// How long a response may take after an empty acknowledgement.
const SEPARATE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest datagram that is read.
const MAX_DATAGRAM_BYTES: usize = 2_048;

/// All sockets.
#[derive(Debug)]
pub(super) struct Endpoints {
    endpoints: Vec<Arc<Endpoint>>,
    readers: Vec<JoinHandle<()>>,
}

impl Endpoints {
    pub(super) async fn open(
        server: SocketAddr,
        seed: u64,
        counts: Arc<Counts>,
    ) -> io::Result<Self> {
        let mut endpoints = Vec::new();
        let mut readers = Vec::new();
        for number in 0..ENDPOINTS as u64 {
            let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(server).await?;
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(number);
            let endpoint = Arc::new(Endpoint {
                socket,
                state: Mutex::new(State { next_id: rng.random(), rng, exchanges: BTreeMap::new() }),
                free: Arc::new(Semaphore::new(OUTSTANDING as usize)),
                counts: Arc::clone(&counts),
            });
            readers.push(tokio::spawn(Arc::clone(&endpoint).read()));
            endpoints.push(endpoint);
        }
        Ok(Self { endpoints, readers })
    }

    pub(super) async fn send(&self, frame: Frame) {
        let endpoint = &self.endpoints[frame.bed as usize % ENDPOINTS];
        endpoint.counts.sent(&frame);
        // Never closed.
        let Ok(permit) = Arc::clone(&endpoint.free).acquire_owned().await else { return };
        let endpoint = Arc::clone(endpoint);
        tokio::spawn(async move {
            if endpoint.deliver(&frame).await {
                endpoint.counts.acked(&frame);
            } else {
                endpoint.counts.failed(1);
            }
            drop(permit);
        });
    }

    pub(super) async fn finish(&self) {
        for endpoint in &self.endpoints {
            // All free again means that every exchange is over.
            drop(endpoint.free.acquire_many(OUTSTANDING).await);
        }
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

/// One socket.
#[derive(Debug)]
struct Endpoint {
    socket: UdpSocket,
    state: Mutex<State>,
    free: Arc<Semaphore>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct State {
    rng: ChaCha8Rng,
    next_id: u16,
    exchanges: BTreeMap<u16, mpsc::Sender<Packet>>,
}

/// How one exchange ended.
enum Outcome {
    Done,
    Later(Duration),
    Failed,
}

impl Endpoint {
    /// Tries everything; `true` if the server has taken the frame.
    async fn deliver(&self, frame: &Frame) -> bool {
        for _ in 0..ANEW.0 {
            match self.exchange(frame).await {
                Outcome::Done => return true,
                Outcome::Later(wait) => sleep(wait.min(ANEW.1)).await,
                Outcome::Failed => return false,
            }
        }
        false
    }

    async fn exchange(&self, frame: &Frame) -> Outcome {
        let (replies, mut inbox) = mpsc::channel(4);
        let (id, token, factor) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let id = state.next_id;
            state.next_id = id.wrapping_add(1);
            state.exchanges.insert(id, replies);
            // The first half finds the exchange again, the second cannot be guessed.
            let token = [id.to_be_bytes(), state.rng.random::<u16>().to_be_bytes()].concat();
            (id, token, state.rng.random_range(1.0..ACK_RANDOM_FACTOR))
        };
        let outcome = match request(frame, id, &token).to_bytes() {
            Ok(bytes) => self.converse(&bytes, &token, factor, &mut inbox).await,
            Err(_) => Outcome::Failed,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.exchanges.remove(&id);
        outcome
    }

    async fn converse(
        &self,
        request: &[u8],
        token: &[u8],
        factor: f64,
        inbox: &mut mpsc::Receiver<Packet>,
    ) -> Outcome {
        let mut wait = ACK_TIMEOUT.mul_f64(factor);
        for _ in 0..=MAX_RETRANSMIT {
            // An error here is ICMP's report of an earlier datagram; to us that is a datagram lost.
            let _ = self.socket.send(request).await;
            let Ok(Some(reply)) = timeout(wait, inbox.recv()).await else {
                wait *= 2;
                continue;
            };
            let reply = if reply.header.code == MessageClass::Empty {
                if reply.header.get_type() == MessageType::Reset {
                    return Outcome::Failed;
                }
                // It is acknowledged; the response comes separately.
                match timeout(SEPARATE_TIMEOUT, inbox.recv()).await {
                    Ok(Some(reply)) => reply,
                    _ => return Outcome::Failed,
                }
            } else {
                reply
            };
            return if reply.get_token() == token { outcome(&reply) } else { Outcome::Failed };
        }
        Outcome::Failed
    }

    /// Takes what comes in to the exchanges that it belongs to.
    async fn read(self: Arc<Self>) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        loop {
            let Ok(length) = self.socket.recv(&mut buffer).await else {
                // ICMP's report of a datagram that went nowhere; do not spin on it.
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            let Ok(packet) = Packet::from_bytes(&buffer[..length]) else { continue };
            let id = match (packet.header.code, packet.get_token()) {
                (MessageClass::Empty, _) => packet.header.message_id,
                (_, [high, low, ..]) => u16::from_be_bytes([*high, *low]),
                _ => continue,
            };
            if packet.header.get_type() == MessageType::Confirmable {
                let mut acknowledgement = Packet::new();
                acknowledgement.header.set_type(MessageType::Acknowledgement);
                acknowledgement.header.code = MessageClass::Empty;
                acknowledgement.header.message_id = packet.header.message_id;
                if let Ok(bytes) = acknowledgement.to_bytes() {
                    let _ = self.socket.send(&bytes).await;
                }
            }
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(exchange) = state.exchanges.get(&id) {
                // Full: copies of what is already there.
                let _ = exchange.try_send(packet);
            }
        }
    }
}

fn request(frame: &Frame, id: u16, token: &[u8]) -> Packet {
    let mut packet = Packet::new();
    packet.header.set_type(MessageType::Confirmable);
    packet.header.code = MessageClass::Request(RequestType::Post);
    packet.header.message_id = id;
    packet.set_token(token.to_vec());
    if let Connector::Coap(path) = &frame.connector {
        for segment in path.split('/') {
            packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec());
        }
    }
    // A number below 256 is one byte (RFC 7252, section 3.2).
    packet.add_option(CoapOption::ContentFormat, vec![SENML_JSON as u8]);
    packet.payload = frame.payload.to_vec();
    packet
}

fn outcome(reply: &Packet) -> Outcome {
    match reply.header.code {
        MessageClass::Response(ResponseType::ServiceUnavailable) => {
            let max_age = reply.get_first_option(CoapOption::MaxAge).map(|bytes| {
                bytes.iter().take(4).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
            });
            // Without the option it means 60 s (section 5.10.5).
            Outcome::Later(Duration::from_secs(max_age.unwrap_or(60)))
        }
        // Class 2 is success.
        code => match u8::from(code) >> 5 {
            2 => Outcome::Done,
            _ => Outcome::Failed,
        },
    }
}
