//! The same over TLS: to a server with a certificate of the authority that the target names, and never to another.

use super::*;
use haar_ledger::server::{Door, HttpConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use std::path::PathBuf;
use tokio_rustls::TlsAcceptor;

/// An authority, a certificate of it for `localhost`, and both as files.
struct Pki {
    dir: tempfile::TempDir,
    server: Arc<rustls::ServerConfig>,
}

impl Pki {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(dir.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder().with_no_client_auth();
        let server = server.with_single_cert(vec![certificate.der().clone()], secret).unwrap();
        Self { dir, server: Arc::new(server) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Every target once with the right authority, which it is delivered to, and once with another, which it gives up on.
async fn only_with_the_right_authority(pki: &Pki, name: &str, channel: impl Fn(&Path) -> String) {
    let toml = |ca: &Path| {
        let channel = channel(ca);
        format!(
            "[[notify]]\nname = \"{name}\"\ncontacts = [\"ward\"]\ngive_up_after_s = 2\n{channel}\n"
        )
    };
    let dir = tempfile::tempdir().unwrap();
    let site = Site::open(dir.path());
    site.commit(name, &[Priority::High]);
    let other = Pki::new();
    site.deliver(&toml(&other.file("ca.pem")), || site.waiting() == 0).await;
    assert_eq!(site.outbox().standing(9).unwrap().dead_letters.len(), 1);
    site.commit(name, &[Priority::High]);
    site.deliver(&toml(&pki.file("ca.pem")), || site.waiting() == 0).await;
    assert_eq!(site.outbox().standing(9).unwrap().dead_letters.len(), 1, "the second was taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_over_tls_alone() {
    let (pki, told) = (Pki::new(), Told::default());
    let config = HttpConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        cert_file: Some(pki.file("cert.pem")),
        key_file: Some(pki.file("key.pem")),
        ca_file: None,
    };
    let door = Door::open(&config).await.unwrap();
    let url = format!("https://localhost:{}/hook", door.addr().port());
    let router = Router::new().route("/hook", post(take)).with_state(told.clone());
    tokio::spawn(async move { axum::serve(door, router).await });
    let channel = |ca: &Path| format!("webhook = {{ url = \"{url}\", ca_file = {ca:?} }}");
    only_with_the_right_authority(&pki, "pager", channel).await;
    assert_eq!(told.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_and_its_password_go_over_tls_alone() {
    for tls in ["starttls", "implicit"] {
        let pki = Pki::new();
        std::fs::write(pki.file("password"), "secret\n").unwrap();
        let mails: Arc<Mutex<Vec<String>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (acceptor, taken) = (TlsAcceptor::from(Arc::clone(&pki.server)), Arc::clone(&mails));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let plain = match tls {
                    "starttls" => {
                        converse(socket, Some("220 test ESMTP"), true, &taken, &mut 0).await
                    }
                    _ => Some(socket),
                };
                let Some(plain) = plain else { continue };
                // Who does not trust the certificate goes away.
                let Ok(secure) = acceptor.accept(plain).await else { continue };
                let greeting = (tls == "implicit").then_some("220 test ESMTP");
                converse(secure, greeting, false, &taken, &mut 0).await;
            }
        });
        let password = pki.file("password");
        let channel = |ca: &Path| {
            format!(
                "[notify.smtp]\nhost = \"localhost\"\nport = {port}\ntls = \"{tls}\"\nca_file = {ca:?}\nusername = \"haar\"\n\
                 password_file = {password:?}\nfrom = \"haar@hospital.example\"\nto = [\"nurse@hospital.example\"]"
            )
        };
        only_with_the_right_authority(&pki, "mail", channel).await;
        let mails = mails.lock().unwrap();
        assert_eq!(mails.len(), 2, "{tls}: the login and the mail, both within TLS: {mails:?}");
        assert_eq!(mails[0], "AUTH PLAIN AGhhYXIAc2VjcmV0");
        assert!(mails[1].contains("Subject: [HIGH] hypoxia"));
    }
}
