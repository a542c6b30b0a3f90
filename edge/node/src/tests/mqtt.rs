//! Readings from a real broker.

use super::peers::{Broker, CountingFog, Site, free_port, until};
use crate::clock;
use crate::config::MqttProtocol;
use haar_schema::Timestamp;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::collections::BTreeSet;
use std::time::Duration;

/// Publishes `numbers` as vitals of one second each, with QoS 1, and waits for the broker's acknowledgements.
async fn publish(broker: u16, start: Timestamp, numbers: std::ops::Range<u64>) {
    let id = format!("monitor-{}", numbers.start);
    let mut options = MqttOptions::new(id, "127.0.0.1", broker);
    options.set_inflight(200);
    let (client, mut events) = AsyncClient::new(options, 10_000);
    let count = numbers.end - numbers.start;
    for number in numbers {
        let ts = start.plus_micros(number as i64 * 1_000_000);
        let payload = format!(r#"{{"ts":"{ts}","seq":{number},"hr":{}}}"#, 60 + number % 40);
        client.try_publish("ward/p1/m1/vitals", QoS::AtLeastOnce, false, payload).unwrap();
    }
    let mut acknowledged = 0;
    while acknowledged < count {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
            acknowledged += 1;
        }
    }
}

/// Times of what the fog has, and that none is twice.
fn received(fog: &CountingFog) -> BTreeSet<Timestamp> {
    let observations = fog.observations();
    let times: BTreeSet<Timestamp> = observations.iter().map(|o| o.effective).collect();
    assert_eq!(times.len(), observations.len(), "a reading came twice");
    times
}

fn expected(start: Timestamp, count: u64) -> BTreeSet<Timestamp> {
    (0..count).map(|number| start.plus_micros(number as i64 * 1_000_000)).collect()
}

/// An hour ago, on the millisecond, so that nothing lies in the future.
fn an_hour_ago() -> Timestamp {
    clock::now().plus_micros(-3_600_000_000).floor_to(1_000)
}

async fn published_is_received(protocol: MqttProtocol) {
    let (site, fog) = (Site::new(), CountingFog::committing(10_000));
    let serving = site.serve(&fog, None).await;
    let broker = Broker::start(free_port()).await;
    let edge = site.start(site.with_mqtt(serving.port, broker.port, protocol)).await;
    until("the edge is ready", || edge.running.readiness().is_ready()).await;
    let start = an_hour_ago();
    publish(broker.port, start, 0..500).await;
    let all = async {
        while fog.observations().len() < 500 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let all = tokio::time::timeout(Duration::from_secs(20), all).await;
    assert!(all.is_ok(), "{} came; {:?}", fog.observations().len(), edge.running.stats());
    assert_eq!(received(&fog), expected(start, 500));
    let text = edge.metrics.encode();
    assert!(text.contains(r#"haar_edge_readings_total{connector="mqtt"} 500"#), "{text}");
    assert!(text.contains("haar_edge_broker_connected 1"), "{text}");
    let stats = edge.stop().await;
    assert_eq!((stats.readings, stats.frames, stats.duplicates), (500, 500, 0));
    assert_eq!(stats.acked_through + 1, stats.next_seq);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_1_what_is_published_is_received_once() {
    published_is_received(MqttProtocol::V311).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_5_what_is_published_is_received_once() {
    published_is_received(MqttProtocol::V5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_there_is_waited_for() {
    let (site, fog) = (Site::new(), CountingFog::committing(10_000));
    let serving = site.serve(&fog, None).await;
    let port = free_port();
    let edge = site.start(site.with_mqtt(serving.port, port, MqttProtocol::V311)).await;
    until("the uplink is up", || edge.running.stats().uplink_connected).await;
    let unready = edge.running.readiness().unready();
    until("it says so", || {
        let unready = edge.running.readiness().unready();
        unready.iter().any(|u| u.condition == "broker" && u.reason.contains("no broker"))
    })
    .await;
    assert!(unready.iter().all(|u| u.condition != "uplink"), "{unready:?}");
    let broker = Broker::start(port).await;
    until("the broker is found", || edge.running.stats().broker_connected).await;
    let start = an_hour_ago();
    publish(broker.port, start, 0..10).await;
    until("all readings came", || fog.observations().len() >= 10).await;
    assert_eq!(received(&fog), expected(start, 10));
    edge.stop().await;
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_and_a_fog_that_is_away_lose_and_double_nothing() {
    let (site, fog) = (Site::new(), CountingFog::committing(10_000));
    let broker = Broker::start(free_port()).await;
    let fog_port = free_port();
    let config = site.with_mqtt(fog_port, broker.port, MqttProtocol::V311);
    let start = an_hour_ago();
    // The first edge makes the session at the broker. No fog is there to send to.
    let edge = site.start(config.clone()).await;
    until("subscribed", || edge.running.stats().broker_connected).await;
    publish(broker.port, start, 0..100).await;
    until("some are durable", || edge.running.stats().readings > 0).await;
    edge.crash(&site).await;
    // While the edge is away, the broker keeps them.
    publish(broker.port, start, 100..200).await;
    for _ in 0..3 {
        let edge = site.start(config.clone()).await;
        until("subscribed again", || edge.running.stats().broker_connected).await;
        edge.crash(&site).await;
    }
    let edge = site.start(config).await;
    publish(broker.port, start, 200..300).await;
    let serving = site.serve(&fog, Some(fog_port)).await;
    until("all readings came", || fog.observations().len() >= 300).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(received(&fog), expected(start, 300));
    // The fog restarts; the edge comes back by itself and sends nothing twice.
    serving.stop().await;
    publish(broker.port, start, 300..400).await;
    let serving = site.serve(&fog, Some(fog_port)).await;
    until("the rest came", || fog.observations().len() >= 400).await;
    assert_eq!(received(&fog), expected(start, 400));
    assert_eq!(fog.sessions(), 2);
    edge.stop().await;
    serving.stop().await;
}
