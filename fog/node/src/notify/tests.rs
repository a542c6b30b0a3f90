//! Delivery over real sockets from a real database: to an HTTP server, an SMTP server and a FHIR server that behave as
//! their specifications say, and fail when told to.

use super::outbox::{Key, Outbox};
use super::*;
use crate::alarms::{Desk, Warden};
use crate::commit::now;
use crate::store::{Epoch, Notice, Store};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use haar_alarms::{AlarmId, Alarms, Cause, Condition, Phase, Policy};
use haar_ledger::{Identity, LeafKind, Record};
use haar_schema::{Priority, Subject, Timestamp};
use std::sync::Mutex;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

mod tls;

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn message() -> message::Message {
    let key = Key::new("a", Priority::High, 7);
    let news = message::News::Step(Box::new(step(Priority::High, 2)));
    message::Message::new(&key, "haar.test/site", news, true)
}

fn step(priority: Priority, seconds: i64) -> Transition {
    Transition {
        alarm: AlarmId::from_bytes([3; 32]),
        number: 1,
        subject: Some(Subject::from_bytes([9; 16])),
        flag: "hypoxia".to_owned(),
        priority,
        condition: Condition::Limit,
        text: "SpO2 stays at 91 % or below.".to_owned(),
        from: Phase::Pending,
        to: Phase::Active,
        cause: Cause::Held,
        at_us: Timestamp::from_micros(seconds * 1_000_000),
        event_us: Timestamp::from_micros(1_000_000),
        window: None,
        by: None,
        until_us: None,
        suppressed_by: None,
        level: 0,
        notify: vec!["ward".to_owned()],
    }
}

/// A database with steps of these priorities, to be told to `target`.
struct Site {
    store: Arc<Store>,
    desk: Desk,
    warden: Warden,
    metrics: Metrics,
}

impl Site {
    fn open(dir: &Path) -> Self {
        let identity = Identity::generate("haar.test/site", [7; 32]).unwrap();
        let store = Arc::new(Store::open(dir, identity).unwrap());
        let metrics = Metrics::new("haar-fog").unwrap();
        let (warden, desk) = Warden::new(Alarms::new(Policy::default()), &metrics);
        Self { store, desk, warden, metrics }
    }

    fn commit(&self, target: &str, priorities: &[Priority]) {
        let record = |priority: &Priority| Record {
            kind: LeafKind::AlarmTransition,
            name: [3; 32],
            key: [1; 32],
            body: step(*priority, 2).to_json(),
        };
        let notice = |(record, priority): (u64, &Priority)| Notice {
            record,
            priority: *priority,
            target: target.to_owned(),
        };
        let epoch = Epoch {
            records: priorities.iter().map(record).map(Into::into).collect(),
            notices: (0..).zip(priorities).map(notice).collect(),
            at: now(),
            ..Epoch::default()
        };
        self.store.commit(&epoch).unwrap();
    }

    fn outbox(&self) -> Outbox {
        Outbox::new(Arc::clone(&self.store))
    }

    fn waiting(&self) -> u64 {
        self.outbox().standing(9).unwrap().targets.iter().map(|own| own.waiting).sum()
    }

    /// Runs the couriers of targets until `done`.
    async fn deliver(&self, toml: &str, done: impl Fn() -> bool) {
        let targets = targets(toml);
        let roster = Roster::new(&targets, &Policy::default().contacts()).unwrap();
        let couriers =
            Couriers::new(&targets, &self.outbox(), &roster, &self.desk, &self.metrics).unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(couriers.run(stop.clone()));
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "not delivered in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
        running.await.unwrap();
    }
}

fn targets(toml: &str) -> Vec<NotifyTarget> {
    #[derive(serde::Deserialize)]
    struct Targets {
        notify: Vec<NotifyTarget>,
    }
    toml::from_str::<Targets>(toml).unwrap().notify
}

/// What a server was told, and how it is to answer: the first ones in turn, then 200.
#[derive(Clone, Default)]
struct Told {
    requests: Arc<Mutex<Vec<(HeaderMap, serde_json::Value)>>>,
    answers: Arc<Mutex<Vec<StatusCode>>>,
}

impl Told {
    fn answering(answers: &[StatusCode]) -> Self {
        let answers = Arc::new(Mutex::new(answers.iter().rev().copied().collect()));
        Self { requests: Arc::default(), answers }
    }

    fn requests(&self) -> Vec<(HeaderMap, serde_json::Value)> {
        self.requests.lock().unwrap().clone()
    }
}

async fn take(State(told): State<Told>, headers: HeaderMap, body: Bytes) -> StatusCode {
    told.requests.lock().unwrap().push((headers, serde_json::from_slice(&body).unwrap()));
    told.answers.lock().unwrap().pop().unwrap_or(StatusCode::OK)
}

/// Serves on a free port; returns its address.
async fn serve(told: &Told, path: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route(path, post(take)).with_state(told.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn webhook(address: &str, more: &str) -> String {
    format!(
        "[[notify]]\nname = \"pager\"\ncontacts = [\"ward\"]\n{more}\nwebhook = {{ url = \"{address}/hook\" }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_is_told_again_with_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::answering(&[StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS]);
    let address = serve(&told, "/hook").await;
    let site = Site::open(dir.path());
    site.commit("pager", &[Priority::High]);
    site.deliver(&webhook(&address, ""), || site.waiting() == 0).await;
    let requests = told.requests();
    assert_eq!(requests.len(), 3);
    let key = |at: usize| requests[at].0["idempotency-key"].to_str().unwrap().to_owned();
    assert!(key(0) == key(1) && key(1) == key(2));
    let body = &requests[0].1;
    assert_eq!(format!("{:?}", body["id"].as_str().unwrap()), key(0));
    assert_eq!((&body["flag"], &body["leaf"]), (&"hypoxia".into(), &0.into()));
    assert_eq!(body.get("subject"), None, "pseudonyms are told only where the target says so");
    assert!(site.outbox().standing(9).unwrap().dead_letters.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn high_alarms_overtake_and_signatures_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::default();
    let address = serve(&told, "/hook").await;
    std::fs::write(dir.path().join("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let site = Site::open(dir.path());
    site.commit("pager", &[Priority::Low; 12]);
    site.commit("pager", &[Priority::High]);
    let secret = dir.path().join("secret");
    let toml = format!(
        "[[notify]]\nname = \"pager\"\ncontacts = [\"ward\"]\n[notify.webhook]\nurl = \"{address}/hook\"\nsecret_file = {secret:?}\nshow_subject = true\n"
    );
    site.deliver(&toml, || site.waiting() == 0).await;
    let requests = told.requests();
    assert_eq!(requests.len(), 13);
    // Eight go at once: the high one is among the first eight, though it was queued last.
    let place = requests.iter().position(|(_, body)| body["priority"] == "high").unwrap();
    assert!(place < 8, "{place}");
    let (headers, body) = &requests[place];
    assert!(headers["webhook-signature"].to_str().unwrap().starts_with("v1,"));
    assert_eq!(body["subject"], "09090909090909090909090909090909");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::default();
    {
        let site = Site::open(dir.path());
        site.commit("pager", &[Priority::High, Priority::Medium]);
        // Nobody listens on this port.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let toml = webhook(&format!("http://{closed}"), "");
        let outbox = site.outbox();
        site.deliver(&toml, || outbox.standing(9).unwrap().targets[0].attempts_max > 0).await;
        assert_eq!(site.waiting(), 2);
    }
    let address = serve(&told, "/hook").await;
    let site = Site::open(dir.path());
    site.deliver(&webhook(&address, ""), || site.waiting() == 0).await;
    let leaves: Vec<_> =
        told.requests().iter().map(|(_, body)| body["leaf"].as_u64().unwrap()).collect();
    assert!(leaves.len() == 2 && leaves.contains(&0) && leaves.contains(&1), "{leaves:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_raises_an_alarm_of_the_site_and_a_delivery_clears_it() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::answering(&[StatusCode::BAD_REQUEST]);
    let address = serve(&told, "/hook").await;
    let mut site = Site::open(dir.path());
    site.commit("pager", &[Priority::Medium]);
    let toml = webhook(&address, "");
    site.deliver(&toml, || !site.outbox().standing(9).unwrap().dead_letters.is_empty()).await;
    let dead = site.outbox().standing(9).unwrap().dead_letters;
    assert_eq!((dead[0].leaf, dead[0].attempts), (0, 1));
    // The courier told the desk before it stopped, or tells it when it looks again.
    let steps = loop {
        let steps = site.warden.step(now(), []).transitions;
        if !steps.is_empty() {
            break steps;
        }
    };
    assert!(steps.iter().all(|step| step.flag == courier::FAILED_FLAG && step.subject.is_none()));
    assert_eq!(steps.last().unwrap().to, Phase::Active);
    assert!(!steps.last().unwrap().notify.is_empty(), "somebody is told by other targets");
    // The next start delivers, which takes the alarm off, or leaves it for somebody to acknowledge.
    site.commit("pager", &[Priority::Medium]);
    site.deliver(&toml, || site.waiting() == 0).await;
    let steps = site.warden.step(now(), []).transitions;
    assert_eq!(steps.last().unwrap().cause, Cause::Cleared);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_in_time_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::answering(&[StatusCode::INTERNAL_SERVER_ERROR; 50]);
    let address = serve(&told, "/hook").await;
    let site = Site::open(dir.path());
    site.commit("pager", &[Priority::High]);
    let toml = webhook(&address, "give_up_after_s = 2");
    site.deliver(&toml, || site.waiting() == 0).await;
    let dead = site.outbox().standing(9).unwrap().dead_letters;
    assert_eq!(dead[0].reason, outbox::Reason::Expired);
    assert!(dead[0].attempts >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_communication_is_created_once() {
    let dir = tempfile::tempdir().unwrap();
    // The first answer is lost after the server has taken the resource.
    let told = Told::answering(&[StatusCode::BAD_GATEWAY, StatusCode::OK]);
    let address = serve(&told, "/fhir/Communication").await;
    let site = Site::open(dir.path());
    site.commit("ehr", &[Priority::Medium]);
    let toml = format!(
        "[[notify]]\nname = \"ehr\"\ncontacts = [\"doctor\"]\nfhir = {{ url = \"{address}/fhir/\", show_subject = true }}\n"
    );
    site.deliver(&toml, || site.waiting() == 0).await;
    let requests = told.requests();
    assert_eq!(requests.len(), 2);
    let condition = |at: usize| requests[at].0["if-none-exist"].to_str().unwrap().to_owned();
    assert_eq!(condition(0), condition(1));
    let resource = &requests[0].1;
    let id = resource["identifier"][0]["value"].as_str().unwrap();
    assert_eq!(condition(0), format!("identifier={}|{id}", fhir::SYSTEM));
    assert_eq!(
        (&resource["resourceType"], &resource["priority"]),
        (&"Communication".into(), &"asap".into())
    );
}

/// A mail server for one mail after another; the first `refuse` are put off.
async fn mail_server(mails: Arc<Mutex<Vec<String>>>, mut refuse: u32) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            converse(socket, Some("220 test ESMTP"), false, &mails, &mut refuse).await;
        }
    });
    address
}

/// A conversation in SMTP (RFC 5321), in which mails and logins are kept. Gives the stream back where the client asks for STARTTLS, if that
/// is offered.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    greeting: Option<&str>,
    offers_tls: bool,
    mails: &Mutex<Vec<String>>,
    refuse: &mut u32,
) -> Option<S> {
    let mut stream = BufReader::new(stream);
    let mut say = greeting.map(|greeting| format!("{greeting}\r\n"));
    let mut mail: Option<String> = None;
    loop {
        if let Some(say) = say.take() {
            stream.get_mut().write_all(say.as_bytes()).await.ok()?;
        }
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if let Some(text) = &mut mail {
            if line == "." {
                mails.lock().unwrap().extend(mail.take());
                say = Some("250 taken\r\n".to_owned());
            } else {
                text.push_str(line);
                text.push('\n');
            }
            continue;
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" if offers_tls => "250-test\r\n250 STARTTLS",
            "EHLO" => "250-test\r\n250 AUTH PLAIN",
            "STAR" if offers_tls => {
                stream.get_mut().write_all(b"220 go on\r\n").await.ok()?;
                return Some(stream.into_inner());
            }
            "AUTH" => {
                mails.lock().unwrap().push(line.to_owned());
                "235 it is you"
            }
            "MAIL" if *refuse > 0 => {
                *refuse -= 1;
                "451 later"
            }
            "DATA" => {
                mail = Some(String::new());
                "354 go on"
            }
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        say = Some(format!("{answer}\r\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_sent_and_put_off_ones_go_again() {
    let dir = tempfile::tempdir().unwrap();
    let mails: Arc<Mutex<Vec<String>>> = Arc::default();
    let address = mail_server(Arc::clone(&mails), 1).await;
    let site = Site::open(dir.path());
    site.commit("mail", &[Priority::High]);
    let toml = format!(
        "[[notify]]\nname = \"mail\"\ncontacts = [\"charge-nurse\"]\n[notify.smtp]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"Haar <haar@hospital.example>\"\nto = [\"nurse@hospital.example\"]\n",
        address.port()
    );
    site.deliver(&toml, || site.waiting() == 0).await;
    let mails = mails.lock().unwrap().clone();
    assert_eq!(mails.len(), 1);
    let mail = &mails[0];
    let id = Key::new("mail", Priority::High, 0).id("haar.test/site");
    assert!(mail.contains(&format!("Message-ID: <{id}@hospital.example>")), "{mail}");
    assert!(mail.contains("Subject: [HIGH] hypoxia SpO2 stays at 91 % or below."), "{mail}");
    assert!(mail.contains("Leaf 0 of haar.test/site") && !mail.contains("09090909"), "{mail}");
}

#[test]
fn mistakes_are_said_at_the_start() {
    let contacts = Policy::default().contacts().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let known = contacts.iter().map(String::as_str).collect();
    let misspelt = targets(
        "[[notify]]\nname = \"a\"\ncontacts = [\"wrad\"]\nwebhook = { url = \"http://x\" }\n",
    );
    let error = Roster::new(&misspelt, &known).err().unwrap().to_string();
    assert!(error.contains("wrad") && error.contains("charge-nurse, doctor, ward"), "{error}");
    for (channel, wanted) in [
        ("webhook = { url = \"ftp://x\" }", "no http or https"),
        ("webhook = { url = \"http://x\", secret_file = \"/nonexistent\" }", "cannot read"),
        ("smtp = { host = \"x\", from = \"nobody\", to = [\"a@b.c\"] }", "no mail address"),
        (
            "smtp = { host = \"x\", tls = \"none\", username = \"u\", password_file = \"/dev/null\", from = \"a@b.c\", to = [\"a@b.c\"] }",
            "not sent without TLS",
        ),
        ("mqtt = { host = \"x\", topic = \"a/#\" }", "without wildcards"),
    ] {
        let toml = format!("[[notify]]\nname = \"a\"\ncontacts = [\"ward\"]\n{channel}\n");
        let error = Channel::new(&targets(&toml)[0]).err().unwrap().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
