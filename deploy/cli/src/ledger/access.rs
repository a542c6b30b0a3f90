//! What patients allow, and reading under it: asked of a site's read API.
//!
//! Statements are signed notes; requests to read are signed by RFC 9421. Both name the site, so that one that is
//! caught on its way is of no use at another.

use super::server::signer;
use crate::failure::Failure;
use haar_ledger::Identity;
use haar_ledger::client::http;
use haar_ledger::consent::{
    DataKind, Grant as Granted, Grantee, Interval, Purpose, RequestSignature, Revocation,
    SignedStatement, Statement, Token, grant_from_fhir,
};
use haar_ledger::governance::Digest;
use serde_json::Value;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds in a day.
const DAY_S: u64 = 86_400;

/// Which site.
#[derive(Debug, clap::Args)]
struct Site {
    /// The URL of the site's read API.
    #[arg(long, value_name = "URL")]
    fog: String,
    /// The origin of the site's log, from someone who can be trusted to know it.
    #[arg(long, value_name = "ORIGIN")]
    site: String,
    /// The only authorities that are trusted for HTTPS; default the system's.
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
    /// The signing key of whoever asks.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Grant {
    #[command(flatten)]
    site: Site,
    /// The grant as a FHIR R4 Consent; nothing else is needed then.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["subject", "to", "kinds", "purpose"])]
    fhir: Option<PathBuf>,
    /// The patient's pseudonym at this site, 32 hexadecimal digits.
    #[arg(long, required_unless_present = "fhir")]
    subject: Option<Token>,
    /// Who may read: clinician:NAME, member:NAME, insurer:NAME or researcher:NAME.
    #[arg(long, value_name = "ROLE:NAME", required_unless_present = "fhir")]
    to: Option<String>,
    /// What: vitals, waveform, flagged-event, alarm, parameters.
    #[arg(long, value_delimiter = ',', required_unless_present = "fhir")]
    kinds: Vec<DataKind>,
    /// Why: TREAT, HPAYMT or HRESCH.
    #[arg(long, required_unless_present = "fhir")]
    purpose: Option<Purpose>,
    /// The claim or study that it is for: claim:NUMBER or study:NUMBER.
    #[arg(long)]
    scope: Option<String>,
    /// For how many days from now on.
    #[arg(long, default_value_t = 365)]
    days: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    site: Site,
    /// The patient's pseudonym at this site.
    #[arg(long)]
    subject: Token,
    /// The grant's id, as `haar ledger grant` printed it.
    grant: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Audit {
    #[command(flatten)]
    site: Site,
    /// The patient's pseudonym at this site.
    #[arg(long)]
    subject: Token,
    /// Print the FHIR AuditEvents, one a line.
    #[arg(long)]
    fhir: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Read {
    #[command(flatten)]
    site: Site,
    /// The patient's pseudonym at this site.
    #[arg(long, required_unless_present = "study")]
    subject: Option<Token>,
    /// As a researcher: records of all who have granted this study to you, under their names in it.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["subject", "purpose", "scope"])]
    study: Option<Token>,
    /// What: vitals, waveform or flagged-event.
    #[arg(long)]
    kind: DataKind,
    /// Why: TREAT, HPAYMT, or ETREAT in an emergency, of which patient and members are told.
    #[arg(long, required_unless_present = "study")]
    purpose: Option<Purpose>,
    /// The claim that it is for: claim:NUMBER.
    #[arg(long)]
    scope: Option<String>,
    /// Only what stands before this leaf.
    #[arg(long)]
    before: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct PatientKeyName {
    /// The patient's pseudonym at a site.
    subject: Token,
}

pub(super) fn patient_key_name(args: &PatientKeyName) -> Result<(), Failure> {
    println!("{}", haar_ledger::consent::patient_key_name(args.subject.as_str()));
    Ok(())
}

pub(super) fn grant(args: &Grant) -> Result<(), Failure> {
    let grant = match &args.fhir {
        Some(path) => grant_from_fhir(&std::fs::read(path)?)?,
        None => described(args)?,
    };
    args.site.state(&Statement::Grant(grant))
}

pub(super) fn revoke(args: &Revoke) -> Result<(), Failure> {
    let id: Digest = serde_json::from_value(Value::from(args.grant.as_str()))
        .map_err(|_| Failure::usage("a grant's id is 64 hexadecimal digits"))?;
    let revocation = Revocation { subject: args.subject.clone(), grant: id };
    args.site.state(&Statement::Revocation(revocation))
}

pub(super) fn audit(args: &Audit) -> Result<(), Failure> {
    let decisions = args.site.get(&format!("/v1/access/audit/{}", args.subject.as_str()))?;
    let decisions: Value = serde_json::from_str(&decisions)?;
    for decision in decisions.as_array().into_iter().flatten() {
        let event = &decision["event"];
        if args.fhir {
            println!("{event}");
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let agent = &event["agent"][0];
        let policies = agent["policy"].as_array().into_iter().flatten();
        let policies: Vec<_> = policies
            .filter_map(|policy| policy.as_str()?.strip_prefix("urn:haar:policy:"))
            .collect();
        println!(
            "leaf {}  {}  {}  {} ({}) asked for {}, {}: {}{}",
            decision["leaf"],
            text(&event["recorded"]),
            if event["outcome"] == "0" { "allowed" } else { "refused" },
            text(&agent["who"]["identifier"]["value"]),
            text(&agent["role"][0]["coding"][0]["code"]),
            text(&event["entity"][1]["type"]["code"]),
            text(&event["purposeOfEvent"][0]["coding"][0]["code"]),
            if policies.is_empty() {
                "no policy allows it".to_owned()
            } else {
                policies.join(", ")
            },
            if event["subtype"].is_null() { "" } else { "  BREAK-GLASS" },
        );
    }
    Ok(())
}

pub(super) fn read(args: &Read) -> Result<(), Failure> {
    let kind = args.kind.code();
    let mut target = match (&args.study, &args.subject, args.purpose) {
        (Some(study), _, _) => format!("/v1/access/studies/{}/records?kind={kind}", study.as_str()),
        (None, Some(subject), Some(purpose)) => {
            let (subject, purpose) = (subject.as_str(), purpose.code());
            format!("/v1/access/records/{subject}?kind={kind}&purpose={purpose}")
        }
        _ => return Err(Failure::usage("name --subject and --purpose, or a --study")),
    };
    if let Some(scope) = &args.scope {
        target += &format!("&scope={scope}");
    }
    if let Some(before) = args.before {
        target += &format!("&before={before}");
    }
    println!("{}", args.site.get(&target)?);
    Ok(())
}

fn described(args: &Grant) -> Result<Granted, Failure> {
    let missing = || Failure::usage("a grant needs --subject, --to, --kinds and --purpose");
    let to = args.to.as_deref().ok_or_else(missing)?;
    let (role, name) = to
        .split_once(':')
        .ok_or_else(|| Failure::usage("--to is ROLE:NAME, as clinician:a.example"))?;
    let now_s = now_s()?;
    Ok(Granted {
        subject: args.subject.clone().ok_or_else(missing)?,
        grantee: Grantee { role: role.parse()?, name: name.parse()? },
        kinds: args.kinds.iter().copied().collect(),
        purpose: args.purpose.ok_or_else(missing)?,
        period: Interval::new(now_s, now_s.saturating_add(args.days.saturating_mul(DAY_S)))?,
        data_period: None,
        scope: args.scope.as_deref().map(str::parse).transpose()?,
    })
}

impl Site {
    /// Signs a statement, hands it in, and says where it is.
    fn state(&self, statement: &Statement) -> Result<(), Failure> {
        let note = SignedStatement::sign(statement, &self.site, &signer(&self.key)?)?;
        let client = http(self.ca_file.as_deref())?;
        let request = client.post(self.url("/v1/access/statements")).body(note);
        let taken: Value = serde_json::from_str(&ask(request)?)?;
        println!("in force, leaf {} of {}", taken["leaf"], self.site);
        println!("id {}", taken["id"].as_str().unwrap_or("-"));
        Ok(())
    }

    /// What stands under a target, asked for by this key.
    fn get(&self, target: &str) -> Result<String, Failure> {
        let identity: Identity = signer(&self.key)?;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)?;
        let signed = RequestSignature::sign("GET", target, &self.site, now_s()?, nonce, &identity);
        let client = http(self.ca_file.as_deref())?;
        let request = client.get(self.url(target));
        ask(request.header("signature-input", signed.input).header("signature", signed.signature))
    }

    fn url(&self, target: &str) -> String {
        format!("{}{target}", self.fog.trim_end_matches('/'))
    }
}

fn ask(request: reqwest::RequestBuilder) -> Result<String, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        match status.is_success() {
            true => Ok(text),
            false => Err(Failure::new(format!("{status}: {}", text.trim()))),
        }
    })
}

fn now_s() -> Result<u64, Failure> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
