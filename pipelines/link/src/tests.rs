//! The protocol over real sockets, with throwaway CAs.

use crate::*;
use bytes::Bytes;
use haar_schema::EdgeId;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A certificate authority that lives as long as a test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    fn server(&self) -> ServerTls {
        let (cert_pem, key_pem) = self.issue("localhost");
        ServerTls { ca_pem: self.0.pem().into_bytes(), cert_pem, key_pem }
    }

    fn client(&self, edge: &str) -> ClientTls {
        let (cert_pem, key_pem) = self.issue(edge);
        ClientTls { ca_pem: self.0.pem().into_bytes(), cert_pem, key_pem, server_name: None }
    }
}

/// A fog that notes what happens; each batch costs it a permit.
struct Notes {
    events: Mutex<Vec<String>>,
    entries: Mutex<Vec<(u64, Bytes)>>,
    acks: Mutex<Option<AckSender>>,
    permits: Semaphore,
    credit: u32,
}

impl Notes {
    fn new(credit: u32, permits: usize) -> Arc<Self> {
        Arc::new(Self {
            events: Mutex::default(),
            entries: Mutex::default(),
            acks: Mutex::default(),
            permits: Semaphore::new(permits),
            credit,
        })
    }

    fn note(&self, event: String) {
        self.events.lock().unwrap().push(event);
    }

    fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    fn received(&self) -> u64 {
        self.entries.lock().unwrap().last().map_or(0, |entry| entry.0)
    }

    fn ack(&self, ack: Ack) {
        self.acks.lock().unwrap().as_ref().unwrap().send(ack);
    }
}

impl Fog for Notes {
    async fn open(
        &self,
        edge: &EdgeId,
        session: SessionId,
        hello: Hello,
        acks: AckSender,
    ) -> Result<Welcome, Refusal> {
        if hello.incarnation == [0; 16] {
            return Err(Refusal::new(RefusalReason::Incarnation, "a new spool"));
        }
        self.note(format!("open {edge} {session}"));
        *self.acks.lock().unwrap() = Some(acks);
        Ok(Welcome { resume_from: self.received() + 1, credit: self.credit })
    }

    async fn batch(
        &self,
        _edge: &EdgeId,
        _session: SessionId,
        batch: Batch,
    ) -> Result<(), Refusal> {
        self.permits.acquire().await.unwrap().forget();
        if let Some(key) = &batch.key {
            self.note(format!("signed by {}", key.origin()));
        }
        let mut entries = self.entries.lock().unwrap();
        entries.extend((batch.first_seq..).zip(batch.entries));
        Ok(())
    }

    fn closed(&self, edge: &EdgeId, session: SessionId) {
        self.note(format!("closed {edge} {session}"));
    }
}

struct Serving {
    endpoint: String,
    authority: Authority,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
}

async fn serve(fog: &Arc<Notes>) -> Serving {
    let authority = Authority::new();
    let server =
        LinkServer::bind("127.0.0.1:0".parse().unwrap(), authority.server()).await.unwrap();
    let endpoint = format!("https://localhost:{}", server.local_addr().port());
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(server.serve(fog.clone(), shutdown.clone()));
    Serving { endpoint, authority, shutdown, server }
}

impl Serving {
    async fn connect(&self, edge: &str) -> Result<Uplink, ConnectError> {
        connect(&self.endpoint, &self.authority.client(edge), hello(edge), None).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
    }
}

fn hello(edge: &str) -> Hello {
    Hello {
        edge: edge.parse().unwrap(),
        incarnation: [1; 16],
        oldest_seq: 1,
        next_seq: 1_000_000,
        base_marks: vec![],
    }
}

fn batch(first_seq: u64, count: u64) -> Batch {
    let entries = (first_seq..first_seq + count).map(|seq| Bytes::from(seq.to_string())).collect();
    Batch { first_seq, entries, traceparent: None, key: None }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "waited 10 s until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_arrive_in_order_and_acks_come_back() {
    let fog = Notes::new(100, 1_000);
    let serving = serve(&fog).await;
    let mut uplink = serving.connect("edge-1").await.unwrap();
    assert_eq!(uplink.welcome, Welcome { resume_from: 1, credit: 100 });
    uplink.batches.send(batch(1, 40)).await.unwrap();
    uplink.batches.send(batch(41, 60)).await.unwrap();
    until("100 entries came", || fog.received() == 100).await;
    let ack = Ack { durable_through: 100, keep_from: 31, credit: 50 };
    fog.ack(ack);
    assert_eq!(uplink.acks.recv().await.unwrap(), ack);
    assert_eq!(uplink.batches.limit(), 150);
    for (seq, bytes) in &*fog.entries.lock().unwrap() {
        assert_eq!(bytes, seq.to_string().as_bytes());
    }
    drop(uplink);
    until("the fog heard of the end", || fog.events().len() == 2).await;
    assert_eq!(fog.events(), ["open edge-1 1", "closed edge-1 1"]);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fog_learns_by_whose_key_a_batch_is_signed() {
    let fog = Notes::new(100, 1_000);
    let serving = serve(&fog).await;
    let key = haar_identity::Identity::generate("site.example/edge-1", [3; 32]).unwrap();
    let tls = serving.authority.client("edge-1");
    let connected = connect(&serving.endpoint, &tls, hello("edge-1"), Some(Arc::new(key))).await;
    let mut uplink = connected.unwrap();
    uplink.batches.send(batch(1, 3)).await.unwrap();
    until("3 entries came", || fog.received() == 3).await;
    assert_eq!(fog.events(), ["open edge-1 1", "signed by site.example/edge-1"]);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_connection_resumes_without_loss_or_repetition() {
    let fog = Notes::new(1_000, 1_000);
    let serving = serve(&fog).await;
    let mut uplink = serving.connect("edge-1").await.unwrap();
    uplink.batches.send(batch(1, 10)).await.unwrap();
    until("10 entries came", || fog.received() == 10).await;
    drop(uplink);
    let mut uplink = serving.connect("edge-1").await.unwrap();
    assert_eq!(uplink.welcome.resume_from, 11);
    uplink.batches.send(batch(11, 5)).await.unwrap();
    until("15 entries came", || fog.received() == 15).await;
    let seqs: Vec<u64> = fog.entries.lock().unwrap().iter().map(|entry| entry.0).collect();
    assert_eq!(seqs, (1..=15).collect::<Vec<_>>());
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_replaces_the_older_and_never_overlaps_it() {
    let fog = Notes::new(1_000, 0);
    let serving = serve(&fog).await;
    let mut older = serving.connect("edge-1").await.unwrap();
    // The fog hangs in this batch, and is taken out of it.
    older.batches.send(batch(1, 1)).await.unwrap();
    let _newer = serving.connect("edge-1").await.unwrap();
    let end = older.acks.recv().await.unwrap_err();
    let SessionEnd::Refused(refusal) = end else { panic!("{end}") };
    assert_eq!(refusal.reason, RefusalReason::Replaced);
    assert_eq!(fog.events(), ["open edge-1 1", "closed edge-1 1", "open edge-1 2"]);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_impostors_are_refused() {
    let fog = Notes::new(10, 10);
    let serving = serve(&fog).await;
    let elsewhere = Authority::new();

    let impostor = serving.authority.client("edge-2");
    let error = connect(&serving.endpoint, &impostor, hello("edge-1"), None).await.unwrap_err();
    let ConnectError::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.reason, RefusalReason::Identity);

    // A client certificate of another CA, though it trusts this fog.
    let mut stranger = elsewhere.client("edge-1");
    stranger.ca_pem = serving.authority.client("x").ca_pem;
    let error = connect(&serving.endpoint, &stranger, hello("edge-1"), None).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");

    // A fog of another CA.
    let mut trusting = serving.authority.client("edge-1");
    trusting.ca_pem = elsewhere.client("x").ca_pem;
    let error = connect(&serving.endpoint, &trusting, hello("edge-1"), None).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Unreachable { detail, .. } if detail.contains("certificate")),
        "{error}"
    );

    let unknown = Hello { incarnation: [0; 16], ..hello("edge-1") };
    let known = serving.authority.client("edge-1");
    let error = connect(&serving.endpoint, &known, unknown, None).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Refused(r) if r.reason == RefusalReason::Incarnation));
    assert!(fog.events().is_empty());
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_ends_the_session() {
    let fog = Notes::new(100, 100);
    let serving = serve(&fog).await;
    let mut uplink = serving.connect("edge-1").await.unwrap();
    uplink.batches.send(batch(1, 3)).await.unwrap();
    // This side checks too; a faulty one would not.
    assert!(matches!(uplink.batches.send(batch(5, 1)).await, Err(SendError::Misfit { .. })));
    uplink.batches.skip_to(5);
    uplink.batches.send(batch(5, 1)).await.unwrap();
    let end = uplink.acks.recv().await.unwrap_err();
    assert!(matches!(&end, SessionEnd::Refused(r) if r.reason == RefusalReason::Gap), "{end}");
    assert_eq!(fog.received(), 3);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_is_honoured_and_a_slow_fog_holds_the_edge_back() {
    let fog = Notes::new(1_000_000, 0);
    let serving = serve(&fog).await;
    let mut uplink = serving.connect("edge-1").await.unwrap();
    // 64 batches of 1 MiB: more than all buffers between the two together.
    let heavy = |number: u64| Batch {
        first_seq: number * 32 + 1,
        entries: vec![Bytes::from(vec![0; 32 * 1024]); 32],
        traceparent: None,
        key: None,
    };
    let mut sent = 0;
    while sent < 64 {
        let sending = uplink.batches.send(heavy(sent));
        if tokio::time::timeout(Duration::from_millis(500), sending).await.is_err() {
            break;
        }
        sent += 1;
    }
    assert!((1..32).contains(&sent), "{sent} MiB were sent to a fog that takes nothing");
    fog.permits.add_permits(64);
    uplink.batches.send(heavy(sent)).await.unwrap();
    until("everything came", || fog.received() == (sent + 1) * 32).await;

    // No credit left: the sender says so, and the fog refuses who sends all the same.
    let all = (sent + 1) * 32;
    fog.ack(Ack { durable_through: all, keep_from: 1, credit: 2 });
    uplink.acks.recv().await.unwrap();
    assert_eq!(uplink.batches.limit(), all + 2);
    uplink.batches.send(batch(all + 1, 2)).await.unwrap();
    assert!(matches!(uplink.batches.send(batch(all + 3, 1)).await, Err(SendError::Misfit { .. })));
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_fog_says_so_and_a_port_in_use_is_named() {
    let fog = Notes::new(100, 0);
    let serving = serve(&fog).await;
    let mut uplink = serving.connect("edge-1").await.unwrap();
    uplink.batches.send(batch(1, 3)).await.unwrap();
    let port = serving.endpoint.rsplit_once(':').unwrap().1;
    let addr = format!("127.0.0.1:{port}").parse().unwrap();
    let Err(error) = LinkServer::bind(addr, serving.authority.server()).await else { panic!() };
    assert!(matches!(error, BindError::InUse(at) if at == addr), "{error}");

    serving.shutdown.cancel();
    let end = uplink.acks.recv().await.unwrap_err();
    assert!(matches!(&end, SessionEnd::Refused(r) if r.reason.is_transient()), "{end}");
    serving.server.await.unwrap().unwrap();
    assert_eq!(fog.events(), ["open edge-1 1", "closed edge-1 1"]);
}

#[tokio::test]
async fn unusable_tls_files_are_named() {
    let mut tls = Authority::new().server();
    tls.key_pem = b"no key".to_vec();
    let Err(error) = LinkServer::bind("127.0.0.1:0".parse().unwrap(), tls).await else { panic!() };
    assert!(matches!(error, BindError::Tls(_)), "{error}");
}
