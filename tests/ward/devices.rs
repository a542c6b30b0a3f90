//! Devices: monitors that publish by MQTT, patches that post by CoAP, and libcoap's client.

use super::PATIENCE;
use crate::programs;
use coap_lite::{CoapRequest, MessageClass, MessageType, Packet, RequestType};
use rumqttc::{Client, Event, MqttOptions, Packet as MqttPacket, QoS};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Messages that wait for the connection.
const QUEUE: usize = 4_096;

/// Monitors behind one MQTT 3.1.1 connection, publishing at QoS 1.
pub struct Monitors {
    client: Client,
    published: u64,
    acknowledged: Arc<AtomicU64>,
    leaving: Arc<AtomicBool>,
    connection: JoinHandle<()>,
}

impl Monitors {
    /// Connects.
    pub fn connect(broker_port: u16) -> Self {
        let mut options = MqttOptions::new("monitors", "127.0.0.1", broker_port);
        // rumqttc sends unacknowledged messages again only in a session that outlives the connection.
        options.set_clean_session(false).set_inflight(200);
        let (client, mut connection) = Client::new(options, QUEUE);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let leaving = Arc::new(AtomicBool::new(false));
        let (acks, ends) = (acknowledged.clone(), leaving.clone());
        let connection = std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(MqttPacket::PubAck(_))) => {
                        acks.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(_) => {}
                    Err(_) if ends.load(Ordering::SeqCst) => return,
                    // The next turn connects again.
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Self { client, published: 0, acknowledged, leaving, connection }
    }

    /// Publishes one message; waits if too many are under way.
    pub fn publish(&mut self, topic: &str, payload: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
        self.published += 1;
    }

    /// Waits until the broker has acknowledged every message, and disconnects.
    pub fn finish(self) -> u64 {
        let acknowledged = || self.acknowledged.load(Ordering::SeqCst);
        super::until("every message is acknowledged", || acknowledged() >= self.published);
        self.leaving.store(true, Ordering::SeqCst);
        self.client.disconnect().unwrap();
        self.connection.join().unwrap();
        self.published
    }
}

/// What came of a confirmable request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// 2.04: the edge has it on its disk.
    Changed,
    /// Another response.
    Other,
    /// None; whether the edge has it is not known.
    Silence,
}

/// A device that posts confirmable requests, one after another (RFC 7252 with a short ACK_TIMEOUT).
pub struct Patch {
    socket: UdpSocket,
    edge: SocketAddr,
    next_id: u16,
}

impl Patch {
    /// A device; `first_id` is its first message id.
    pub fn new(coap_port: u16, first_id: u16) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let edge = SocketAddr::from(([127, 0, 0, 1], coap_port));
        Self { socket, edge, next_id: first_id }
    }

    /// Posts until it has an answer, each `again_every` with the same message id, at most `times`.
    pub fn post(&mut self, path: &str, payload: &str, again_every: Duration, times: u32) -> Answer {
        let mut request = CoapRequest::<SocketAddr>::new();
        request.set_method(RequestType::Post);
        request.set_path(path);
        request.message.header.set_type(MessageType::Confirmable);
        request.message.header.message_id = self.next_id;
        request.message.payload = payload.as_bytes().to_vec();
        self.next_id = self.next_id.wrapping_add(1);
        let bytes = request.message.to_bytes().unwrap();
        for _ in 0..times {
            // Refused while the edge is away, which is what a lost datagram looks like here.
            let _ = self.socket.send_to(&bytes, self.edge);
            if let Some(answer) = self.answer(request.message.header.message_id, again_every) {
                return answer;
            }
        }
        Answer::Silence
    }

    fn answer(&self, message_id: u16, patience: Duration) -> Option<Answer> {
        let deadline = Instant::now() + patience;
        let mut datagram = [0; 1_500];
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|l| !l.is_zero())?;
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok(bytes) = self.socket.recv(&mut datagram) else { continue };
            let Ok(packet) = Packet::from_bytes(&datagram[..bytes]) else { continue };
            if packet.header.message_id == message_id {
                let changed = MessageClass::Response(coap_lite::ResponseType::Changed);
                let is_changed = packet.header.code == changed;
                return Some(if is_changed { Answer::Changed } else { Answer::Other });
            }
        }
    }
}

/// Posts with libcoap's client. `Ok` is a 2.xx response, `Err` what it printed.
pub fn coap_client(coap_port: u16, path: &str, payload: &str) -> Result<(), String> {
    let uri = format!("coap://127.0.0.1:{coap_port}/{path}");
    let patience = PATIENCE.as_secs().to_string();
    // 110 is application/senml+json.
    let args = ["-m", "post", "-t", "110", "-B", &patience, "-e", payload, &uri];
    let output = Command::new(programs::coap_client()).args(args).output().unwrap();
    if output.status.success() && output.stderr.is_empty() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
