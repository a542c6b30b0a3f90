//! Readings from CoAP devices.

use super::peers::{CountingFog, Site, until};
use coap_lite::{
    CoapOption, CoapRequest, MessageClass, MessageType, Packet, RequestType, ResponseType,
};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tokio::net::UdpSocket;

const PATH: &str = "ward/p1/patch1/temperature";

/// A device with a socket of its own.
struct Device {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Device {
    async fn new(server: SocketAddr) -> Self {
        Self { socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(), server }
    }

    async fn ask(&self, method: RequestType, path: &str, id: u16, payload: Vec<u8>) -> Packet {
        let mut request = CoapRequest::<SocketAddr>::new();
        request.set_method(method);
        request.set_path(path);
        request.message.header.message_id = id;
        request.message.set_token(id.to_be_bytes().to_vec());
        request.message.payload = payload;
        self.exchange(&request.message).await
    }

    async fn exchange(&self, message: &Packet) -> Packet {
        let datagram = message.to_bytes_unlimited().unwrap();
        self.socket.send_to(&datagram, self.server).await.unwrap();
        let mut answer = vec![0; 2_048];
        let received = self.socket.recv_from(&mut answer);
        let (length, _) = tokio::time::timeout(Duration::from_secs(10), received)
            .await
            .expect("no answer within 10 s")
            .unwrap();
        let answer = Packet::from_bytes(&answer[..length]).unwrap();
        assert_eq!(answer.get_token(), message.get_token());
        answer
    }
}

fn temperature(value: f64) -> Vec<u8> {
    format!(r#"[{{"n":"temperature","u":"Cel","v":{value}}}]"#).into_bytes()
}

fn status(answer: &Packet) -> ResponseType {
    let MessageClass::Response(status) = answer.header.code else { panic!("{answer:?}") };
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_has_its_answer_and_a_retransmission_is_no_second_reading() {
    let (site, fog) = (Site::new(), CountingFog::committing(10_000));
    let serving = site.serve(&fog, None).await;
    let edge = site.start(site.with_coap(&serving)).await;
    let device = Device::new(edge.running.coap_addr.unwrap()).await;

    let first = device.ask(RequestType::Post, PATH, 1, temperature(36.9)).await;
    assert_eq!(status(&first), ResponseType::Changed);
    assert_eq!(first.header.get_type(), MessageType::Acknowledgement);
    let again = device.ask(RequestType::Post, PATH, 1, temperature(36.9)).await;
    assert_eq!(again, first);
    let put = device.ask(RequestType::Put, PATH, 2, temperature(37.0)).await;
    assert_eq!(status(&put), ResponseType::Changed);

    let unknown = device.ask(RequestType::Post, "kitchen/toaster", 3, temperature(180.0)).await;
    assert_eq!(status(&unknown), ResponseType::NotFound);
    let malformed = device.ask(RequestType::Post, PATH, 4, b"36.9".to_vec()).await;
    assert_eq!(status(&malformed), ResponseType::BadRequest);
    let get = device.ask(RequestType::Get, PATH, 5, vec![]).await;
    assert_eq!(status(&get), ResponseType::MethodNotAllowed);
    let large = device.ask(RequestType::Post, PATH, 6, vec![b' '; 2_000]).await;
    assert_eq!(status(&large), ResponseType::RequestEntityTooLarge);
    assert_eq!(large.get_first_option(CoapOption::Size1), Some(&vec![4, 0]));

    let mut critical = CoapRequest::<SocketAddr>::new();
    critical.set_method(RequestType::Post);
    critical.set_path(PATH);
    critical.message.header.message_id = 7;
    critical.message.add_option(CoapOption::IfMatch, vec![1]);
    assert_eq!(status(&device.exchange(&critical.message).await), ResponseType::BadOption);

    let mut unconfirmed = CoapRequest::<SocketAddr>::new();
    unconfirmed.set_method(RequestType::Post);
    unconfirmed.set_path(PATH);
    unconfirmed.message.header.set_type(MessageType::NonConfirmable);
    unconfirmed.message.header.message_id = 8;
    unconfirmed.message.payload = temperature(37.1);
    let answer = device.exchange(&unconfirmed.message).await;
    assert_eq!(status(&answer), ResponseType::Changed);
    assert_eq!(answer.header.get_type(), MessageType::NonConfirmable);

    let mut ping = Packet::new();
    ping.header.set_type(MessageType::Confirmable);
    ping.header.code = MessageClass::Empty;
    ping.header.message_id = 9;
    let pong = device.exchange(&ping).await;
    assert_eq!((pong.header.get_type(), pong.header.message_id), (MessageType::Reset, 9));

    until("three readings came", || fog.observations().len() == 3).await;
    let stats = edge.stop().await;
    assert_eq!((stats.readings, stats.quarantined, stats.frames), (3, 2, 5));
    assert_eq!(fog.observations().len(), 3);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libcoap_is_understood() {
    let (site, fog) = (Site::new(), CountingFog::committing(10_000));
    let serving = site.serve(&fog, None).await;
    let edge = site.start(site.with_coap(&serving)).await;
    let uri = format!("coap://{}/{PATH}", edge.running.coap_addr.unwrap());
    let post = move |payload: &'static str| {
        Command::new("coap-client-notls")
            .args(["-m", "post", "-t", "110", "-B", "10", "-e", payload, &uri])
            .output()
            .expect("libcoap's client is missing: apt-get install libcoap3-bin")
    };
    let outputs = tokio::task::spawn_blocking(move || {
        [post(r#"[{"n":"temperature","u":"Cel","v":36.5}]"#), post("no senml")]
    });
    let [good, bad] = outputs.await.unwrap();
    assert!(good.status.success() && good.stderr.is_empty(), "{good:?}");
    assert!(String::from_utf8_lossy(&bad.stderr).contains("4.00"), "{bad:?}");
    until("the reading came", || fog.observations().len() == 1).await;
    edge.stop().await;
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_refuses_and_takes_again_once_the_fog_has_committed() {
    let (site, fog) = (Site::new(), CountingFog::holding(10_000));
    let serving = site.serve(&fog, None).await;
    let mut config = site.with_coap(&serving);
    config.spool.capacity_bytes = 1_500;
    let edge = site.start(config).await;
    let device = Device::new(edge.running.coap_addr.unwrap()).await;
    let mut taken = 0;
    let full = loop {
        let payload = temperature(36.0 + f64::from(taken) / 10.0);
        let answer = device.ask(RequestType::Post, PATH, taken, payload).await;
        match status(&answer) {
            ResponseType::Changed => taken += 1,
            _ => break answer,
        }
        assert!(taken < 1_000, "a spool of 1,500 bytes takes everything");
    };
    assert!(taken > 2, "{taken}");
    assert_eq!(status(&full), ResponseType::ServiceUnavailable);
    assert_eq!(full.get_first_option(CoapOption::MaxAge), Some(&vec![5]));
    assert!(!edge.running.readiness().is_ready());
    until("all that was taken came", || fog.observations().len() == usize::from(taken)).await;

    fog.commit();
    until("the spool was relieved", || edge.running.stats().spool_entries == 0).await;
    let answer = device.ask(RequestType::Post, PATH, taken, temperature(38.0)).await;
    assert_eq!(status(&answer), ResponseType::Changed);
    until("it came", || fog.observations().len() == usize::from(taken) + 1).await;
    assert!(edge.running.readiness().is_ready(), "{:?}", edge.running.readiness().unready());
    let stats = edge.stop().await;
    assert_eq!((stats.readings, stats.refused), (u64::from(taken) + 1, 1));
    serving.stop().await;
}
