//! A step by mail (SMTP, RFC 5321), sent by lettre.
//!
//! `Message-ID` is the message's id at the sender's domain, so that a repeat is the same mail to whoever looks. Delivered means that the first
//! server took it. Permanent answers (5xx) are refusals, transient ones (4xx) are tried again. Without TLS only where the
//! configuration says `tls = "none"`, and never with a password.

use super::message::Message;
use super::{NotifyError, Secrets, SendError};
use crate::config::{MailTls, SmtpTarget};
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

/// The most receivers of one target.
pub(super) const MAX_RECEIVERS: usize = 64;

pub(super) struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    pub(super) shows_subject: bool,
}

impl Mail {
    pub(super) fn new(target: &SmtpTarget, secrets: &Secrets<'_>) -> Result<Self, NotifyError> {
        let mailbox = |text: &String| {
            let address: Result<Mailbox, _> = text.parse();
            address.map_err(|error| secrets.wrong(format!("{text} is no mail address: {error}")))
        };
        if target.to.is_empty() || target.to.len() > MAX_RECEIVERS {
            return Err(secrets.wrong(format!("smtp.to must have 1 to {MAX_RECEIVERS} addresses")));
        }
        let (tls, port) = tls(target, secrets)?;
        let mut transport =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(target.host.as_str())
                .port(target.port.unwrap_or(port))
                .tls(tls)
                .timeout(Some(super::ATTEMPT));
        if let Some(user) = &target.username {
            let Some(file) = &target.password_file else {
                return Err(secrets.wrong("smtp.username needs smtp.password_file".to_owned()));
            };
            if target.tls == MailTls::None {
                let problem =
                    "a password is not sent without TLS: set smtp.tls to starttls or implicit";
                return Err(secrets.wrong(problem.to_owned()));
            }
            transport = transport.credentials(Credentials::new(user.clone(), secrets.line(file)?));
        }
        Ok(Self {
            transport: transport.build(),
            from: mailbox(&target.from)?,
            to: target.to.iter().map(mailbox).collect::<Result<_, _>>()?,
            shows_subject: target.show_subject,
        })
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let mail = self.compose(message).map_err(|error| SendError::Refused(error.to_string()))?;
        match self.transport.send(mail).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(SendError::Refused(said(&error))),
            Err(error) if error.is_transient() => Err(SendError::NotNow(said(&error), None)),
            Err(error) => Err(SendError::NoAnswer(error.to_string())),
        }
    }

    fn compose(&self, message: &Message) -> Result<lettre::Message, lettre::error::Error> {
        let domain = self.from.email.domain();
        let mut mail = MessageBuilder::new()
            .from(self.from.clone())
            .subject(format!("{} {}", message.headline(), message.text))
            .message_id(Some(format!("<{}@{domain}>", message.id)));
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        mail.header(ContentType::TEXT_PLAIN).body(message.lines())
    }
}

/// The server's code alone: its text may repeat addresses.
fn said(error: &lettre::transport::smtp::Error) -> String {
    error.status().map_or_else(|| "SMTP".to_owned(), |code| format!("SMTP {code}"))
}

fn tls(target: &SmtpTarget, secrets: &Secrets<'_>) -> Result<(Tls, u16), NotifyError> {
    let parameters = || {
        let mut builder = TlsParameters::builder(target.host.clone());
        if let Some(path) = &target.ca_file {
            let certificate = Certificate::from_pem(&secrets.read(path)?);
            let certificate = certificate
                .map_err(|error| secrets.wrong(format!("{}: {error}", path.display())))?;
            builder = builder.add_root_certificate(certificate);
        }
        builder.build_rustls().map_err(|error| secrets.wrong(error.to_string()))
    };
    Ok(match target.tls {
        MailTls::Starttls => (Tls::Required(parameters()?), 587),
        MailTls::Implicit => (Tls::Wrapper(parameters()?), 465),
        MailTls::None => (Tls::None, 25),
    })
}
