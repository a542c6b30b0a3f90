use super::*;
use coap_lite::{MessageClass, MessageType, Packet as CoapPacket, ResponseType};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use tokio::net::UdpSocket;

/// A mosquitto of our own on a free port; gone when dropped.
struct Mosquitto {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let directory = tempfile::tempdir().unwrap();
        let child = Self::spawn(directory.path(), port);
        Self { child, port, directory }
    }

    fn spawn(directory: &std::path::Path, port: u16) -> Child {
        let config = directory.join("mosquitto.conf");
        // Its default of a thousand queued messages would drop some of a slow subscriber's.
        let text = "allow_anonymous true\nmax_queued_messages 0\n";
        std::fs::write(&config, format!("listener {port} 127.0.0.1\n{text}")).unwrap();
        let mut child = Command::new("mosquitto")
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is needed: apt-get install mosquitto");
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return child;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("mosquitto does not listen on {port}");
    }

    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(self.directory.path(), self.port);
    }

    fn target(&self) -> Target {
        let mqtt = MqttTarget { connections: 2, ..MqttTarget::plain("127.0.0.1", self.port) };
        Target { mqtt: Some(mqtt), ..Target::default() }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn frame(number: u32, connector: Connector) -> Frame {
    Frame {
        bed: number % 4,
        patient: "p".to_owned(),
        device: "d".parse().unwrap(),
        connector,
        at: Timestamp::from_millis(0),
        payload: number.to_le_bytes().to_vec().into(),
        readings: 2,
        repeat: number % 10 == 9,
    }
}

fn by_mqtt(number: u32) -> Frame {
    frame(number, Connector::Mqtt(format!("ward/p{}/d/vitals", number % 4)))
}

fn by_coap(number: u32) -> Frame {
    frame(number, Connector::Coap("ward/p/d/temperature".to_owned()))
}

/// Counts what arrives at a mosquitto until `want` different payloads have.
async fn collect(port: u16, want: usize) -> BTreeMap<Vec<u8>, u32> {
    let mut options = MqttOptions::new("collector", "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 100);
    client.subscribe("ward/#", QoS::AtLeastOnce).await.unwrap();
    let mut seen = BTreeMap::new();
    while seen.len() < want {
        let event = tokio::time::timeout(Duration::from_secs(20), events.poll()).await;
        if let Ok(Event::Incoming(Packet::Publish(publish))) = event.expect("mosquitto is silent") {
            *seen.entry(publish.payload.to_vec()).or_insert(0) += 1;
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_gets_every_frame_once_and_all_are_acked() {
    let mosquitto = Mosquitto::start();
    let collected = tokio::spawn(collect(mosquitto.port, 5_000));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let publisher = Publisher::connect(mosquitto.target()).await.unwrap();
    for number in 0..5_000 {
        publisher.send(by_mqtt(number)).await.unwrap();
    }
    let sent = publisher.finish().await;
    assert_eq!((sent.frames, sent.acked, sent.failed), (5_000, 5_000, 0));
    assert_eq!((sent.readings, sent.readings_acked, sent.bytes), (9_000, 9_000, 20_000));
    assert!(collected.await.unwrap().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_costs_no_frame() {
    let mut mosquitto = Mosquitto::start();
    let publisher = Publisher::connect(mosquitto.target()).await.unwrap();
    for number in 0..3_000 {
        publisher.send(by_mqtt(number)).await.unwrap();
        if number == 1_000 {
            mosquitto.restart();
        }
    }
    let sent = publisher.finish().await;
    assert_eq!((sent.frames, sent.acked, sent.failed), (3_000, 3_000, 0));
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_said_to_be() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mqtt = Some(MqttTarget::plain("127.0.0.1", port));
    let error = Publisher::connect(Target { mqtt, ..Target::default() }).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("is the broker running"));
}

/// How the CoAP server of a test behaves.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers in the acknowledgement.
    Piggybacked,
    /// Does not see the first copy of each request.
    Deaf,
    /// Acknowledges first and answers later, confirmably.
    Separate,
    /// 4.00
    Refusing,
    /// 5.03 with Max-Age 0 the first time.
    Busy,
}

async fn server(manner: Manner) -> (SocketAddr, JoinCounts) {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let addr = socket.local_addr().unwrap();
    let counts: JoinCounts = Arc::default();
    let seen = Arc::clone(&counts);
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let packet = CoapPacket::from_bytes(&buffer[..length]).unwrap();
            if packet.header.get_type() != MessageType::Confirmable {
                continue;
            }
            let copies = {
                let mut seen = seen.lock().unwrap();
                let copies = seen.entry(packet.payload.clone()).or_insert(0);
                *copies += 1;
                *copies
            };
            let mut reply = CoapPacket::new();
            reply.header.set_type(MessageType::Acknowledgement);
            reply.header.message_id = packet.header.message_id;
            reply.header.code = MessageClass::Response(ResponseType::Changed);
            match manner {
                Manner::Deaf if copies == 1 => continue,
                Manner::Refusing => {
                    reply.header.code = MessageClass::Response(ResponseType::BadRequest);
                }
                Manner::Busy if copies == 1 => {
                    let code = ResponseType::ServiceUnavailable;
                    reply.header.code = MessageClass::Response(code);
                    reply.add_option(coap_lite::CoapOption::MaxAge, vec![0]);
                }
                Manner::Separate => {
                    let mut empty = CoapPacket::new();
                    empty.header.set_type(MessageType::Acknowledgement);
                    empty.header.code = MessageClass::Empty;
                    empty.header.message_id = packet.header.message_id;
                    socket.send_to(&empty.to_bytes().unwrap(), peer).await.unwrap();
                    reply.header.set_type(MessageType::Confirmable);
                    reply.header.message_id = packet.header.message_id ^ 0x5555;
                }
                _ => {}
            }
            reply.set_token(packet.get_token().to_vec());
            socket.send_to(&reply.to_bytes().unwrap(), peer).await.unwrap();
        }
    });
    (addr, counts)
}

type JoinCounts = Arc<std::sync::Mutex<BTreeMap<Vec<u8>, u32>>>;

async fn send_by_coap(manner: Manner, frames: u32) -> (Sent, Vec<u32>) {
    let (addr, counts) = server(manner).await;
    let target = Target { coap: Some(addr), seed: 1, ..Target::default() };
    let publisher = Publisher::connect(target).await.unwrap();
    for number in 0..frames {
        publisher.send(by_coap(number)).await.unwrap();
    }
    let sent = publisher.finish().await;
    let copies = counts.lock().unwrap().values().copied().collect();
    (sent, copies)
}

#[tokio::test]
async fn coap_counts_what_the_server_took() {
    let (sent, copies) = send_by_coap(Manner::Piggybacked, 100).await;
    assert_eq!((sent.frames, sent.acked, sent.failed), (100, 100, 0));
    assert_eq!(copies, vec![1; 100]);
    let (sent, _) = send_by_coap(Manner::Separate, 20).await;
    assert_eq!((sent.acked, sent.failed), (20, 0));
    let (sent, _) = send_by_coap(Manner::Refusing, 5).await;
    assert_eq!((sent.acked, sent.failed), (0, 5));
    let (sent, copies) = send_by_coap(Manner::Busy, 5).await;
    assert_eq!((sent.acked, sent.failed), (5, 0));
    assert_eq!(copies, vec![2; 5]);
}

#[tokio::test]
async fn coap_sends_again_what_was_lost() {
    let began = Instant::now();
    let (sent, copies) = send_by_coap(Manner::Deaf, 4).await;
    assert_eq!((sent.acked, sent.failed), (4, 0));
    assert_eq!(copies, vec![2; 4]);
    assert!((ACK_TIMEOUT_S..ACK_TIMEOUT_S * 1.6).contains(&began.elapsed().as_secs_f64()));
}

const ACK_TIMEOUT_S: f64 = 2.0;

#[tokio::test]
async fn frames_without_an_address_are_counted() {
    let publisher = Publisher::connect(Target::default()).await.unwrap();
    publisher.send(by_mqtt(0)).await.unwrap();
    publisher.send(by_coap(1)).await.unwrap();
    assert_eq!(publisher.finish().await, Sent { skipped: 2, ..Sent::default() });
}

#[test]
fn event_time_never_passes_the_wall_clock() {
    let now = Timestamp::from_millis(1_000_000_000);
    for (seconds, speed) in [(Some(600), 20.0), (Some(30), 1.0), (Some(30), 0.5), (None, 20.0)] {
        let pace = Pace::ending_now(now, seconds, speed);
        for elapsed_s in [0, 1, 10, 30, 60, 3_600, 7_200] {
            let event = pace.event_time(Duration::from_secs(elapsed_s));
            assert!(event <= now.plus_micros(elapsed_s as i64 * 1_000_000));
            assert!(event >= pace.start);
        }
    }
    let pace = Pace::ending_now(now, Some(600), 20.0);
    assert_eq!(pace.event_time(Duration::from_secs(30)), pace.end.unwrap());
    assert_eq!(pace.event_time(Duration::from_secs(15)).micros_since(pace.start), 300_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ward_runs_at_its_pace() {
    let mosquitto = Mosquitto::start();
    let (coap, _) = server(Manner::Piggybacked).await;
    let target = Target { coap: Some(coap), ..mosquitto.target() };
    let publisher = Publisher::connect(target).await.unwrap();
    let now = Timestamp::from_millis(1_800_000_000_000);
    let pace = Pace::ending_now(now, Some(40), 20.0);
    let mut ward = crate::Ward::new(1, 4, pace.start, crate::Scenario::default()).unwrap();
    let began = Instant::now();
    let mut truths = 0;
    run(&mut ward, &publisher, pace, &CancellationToken::new(), |ward, _| {
        truths += ward.take_truth().len();
    })
    .await
    .unwrap();
    assert!((1.9..4.0).contains(&began.elapsed().as_secs_f64()));
    let sent = publisher.finish().await;
    // 40 s of four MQTT frames for four patients, and four patch frames for two.
    assert_eq!((sent.frames, sent.acked, sent.failed), (4 * 40 * 4 + 2 * 4, sent.frames, 0));
    assert!(truths > 300);
}
