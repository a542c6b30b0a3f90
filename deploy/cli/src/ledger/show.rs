//! What the log says, for people.

use super::server::Server;
use crate::failure::Failure;
use crate::verify::{at, read_limited, read_policy};
use haar_ledger::governance::DeviceHistory;
use haar_ledger::{
    Entry as SignedEntry, MAX_PROOF_BYTES, PlainProof, Policy as TrustPolicy, Trust, VerifierKey,
    prove_entry, verify_entry,
};
use serde_json::Value;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    #[command(flatten)]
    server: Server,
    /// Print the server's JSON as it is.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Members {
    #[command(flatten)]
    server: Server,
    /// Print the server's JSON as it is.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Policy {
    #[command(flatten)]
    server: Server,
    /// For commitments to leaves of this kind, such as flagged-event; default for everything else.
    #[arg(long)]
    kind: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Keys {
    /// What the keys are called, such as hospital.example/monitor-7.
    name: String,
    #[command(flatten)]
    server: Server,
    /// Print the server's JSON as it is.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Entry {
    /// Its index.
    index: u64,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct Prove {
    /// The entry's index.
    index: u64,
    #[command(flatten)]
    server: Server,
    /// The policy that the checkpoint must satisfy (`haar ledger policy`, kept from when it was trusted).
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// For a commitment: the site's own proof of the record (`haar prove`), which opens it.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Where to write the proof, for `haar verify --policy`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Evidence {
    #[command(flatten)]
    server: Server,
    /// Only what came after this place.
    #[arg(long, default_value_t = 0)]
    after: u64,
}

pub(super) fn show(args: &Show) -> Result<(), Failure> {
    let state = args.server.json("/v1/state")?;
    if args.json {
        println!("{state}");
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    println!("{}, log {}", text(&state["consortium"]), text(&state["origin"]));
    println!("{} entries, rules of version {}", state["size"], state["version"]);
    println!("state {}", text(&state["digest"]));
    println!(
        "operator {} at {}",
        text(&state["operator"]["name"]),
        text(&state["operator"]["url"])
    );
    println!(
        "witness quorum {}, ballots {}",
        state["quorums"]["witness"], state["quorums"]["ballot"]
    );
    if !state["ended"].is_null() {
        println!("this log has ended: {} was elected to go on", text(&state["ended"]["name"]));
    }
    for open in state["open"].as_array().into_iter().flatten() {
        let inner = &open["proposal"];
        println!("\nproposal {}", text(&open["id"]));
        println!("  by {}: {}", text(&inner["by"]), text(&inner["proposal"]["reason"]));
        println!("  {}", inner["proposal"]["change"]);
        println!("  for {}, against {}", inner["yes"], inner["no"]);
    }
    Ok(())
}

pub(super) fn members(args: &Members) -> Result<(), Failure> {
    let members = args.server.json("/v1/members")?;
    if args.json {
        println!("{members}");
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    println!("{:<32} {:>6}  {:<40} key", "name", "weight", "server");
    for member in members.as_array().into_iter().flatten() {
        let weight = member["cosigners"].as_array().map_or(0, Vec::len);
        let (name, url, key) = (&member["name"], &member["url"], &member["key"]);
        println!("{:<32} {weight:>6}  {:<40} {}", text(name), text(url), text(key));
    }
    Ok(())
}

pub(super) fn policy(args: &Policy) -> Result<(), Failure> {
    let path = match &args.kind {
        Some(kind) => format!("/v1/policy?kind={kind}"),
        None => "/v1/policy".to_owned(),
    };
    let text = args.server.text(&path)?;
    // What is printed is pinned by somebody: it must be one.
    text.parse::<TrustPolicy>()?;
    print!("{text}");
    Ok(())
}

pub(super) fn keys(args: &Keys) -> Result<(), Failure> {
    let named = args.server.json(&format!("/v1/keys?name={}", args.name))?;
    if args.json {
        println!("{named}");
        return Ok(());
    }
    let keys = named["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    if keys.is_empty() {
        return Err(Failure::new(format!("the log knows no key of {}", args.name)));
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    for key in keys {
        println!("{} of {}, by {}", text(&key["role"]), text(&key["member"]), text(&key["by"]));
        println!("  {}", text(&key["key"]));
        match key["revoked"].as_u64() {
            Some(at) => println!("  registered by entry {}, revoked by {at}", key["registered"]),
            None => println!("  registered by entry {}", key["registered"]),
        }
    }
    if let Ok(history) = serde_json::from_value::<DeviceHistory>(named["device"].clone()) {
        let percent = |rate: Option<f64>| rate.map_or(0.0, |rate| 100.0 * rate);
        println!(
            "{} readings, {:.2} % faulty, {:.2} % late",
            history.readings,
            percent(history.fault_rate()),
            percent(history.late_rate())
        );
    }
    Ok(())
}

pub(super) fn entry(args: &Entry) -> Result<(), Failure> {
    print!("{}", args.server.text(&format!("/v1/entry?index={}", args.index))?);
    Ok(())
}

pub(super) fn prove(args: &Prove) -> Result<(), Failure> {
    let policy = read_policy(&args.policy)?;
    let record = match &args.record {
        // Whose signature it bears does not matter here: it must open what the entry commits to.
        Some(path) => {
            let text = read_limited(path, MAX_PROOF_BYTES as u64)?;
            Some(haar_ledger::verify(&text, Trust::Unpinned)?.record)
        }
        None => None,
    };
    let index = args.index;
    let (entry, text) = args
        .server
        .ask(async |client| Ok((client.entry(index).await?, client.proof(index).await?)))?;
    let signer = signer_of(&args.server, &entry)?;
    let file = prove_entry(&PlainProof::parse(&text)?, &entry, &signer, record.as_ref()).to_text();
    let verified = verify_entry(&file, &policy, Trust::Unpinned)?;
    if verified.index != index {
        return Err(Failure::new("the server proves another entry than was asked for"));
    }
    std::fs::write(&args.out, &file)?;
    println!("{}: {} bytes", args.out.display(), file.len());
    println!("under {} entries of {}", verified.checkpoint.size, verified.checkpoint.origin);
    for (name, time) in &verified.checkpoint.witnesses {
        println!("witnessed by {name} at {}", at(*time));
    }
    Ok(())
}

/// The key by which an entry was signed first, of those that the log knows under its name.
fn signer_of(server: &Server, entry: &SignedEntry) -> Result<VerifierKey, Failure> {
    let name = entry.signers().first().map_or("", String::as_str);
    let members = server.json("/v1/members")?;
    let member = members.as_array().into_iter().flatten().filter(|own| own["name"] == name);
    let mut keys: Vec<_> =
        member.filter_map(|own| own["key"].as_str().map(str::to_owned)).collect();
    let registered = server.json(&format!("/v1/keys?name={name}"))?;
    let registered = registered["keys"].as_array().into_iter().flatten();
    keys.extend(registered.filter_map(|own| own["key"].as_str().map(str::to_owned)));
    let parsed = keys.iter().filter_map(|key| key.parse::<VerifierKey>().ok());
    parsed.into_iter().find(|key| entry.verify(key).is_ok()).ok_or_else(|| {
        Failure::new(format!("the log knows no key of {name} that signed this entry"))
    })
}

pub(super) fn evidence(args: &Evidence) -> Result<(), Failure> {
    let mut after = args.after;
    loop {
        let (next, found) = args.server.ask(async |client| Ok(client.evidence(after).await?))?;
        if found.is_empty() {
            return Ok(());
        }
        for piece in found {
            let proven = if piece.is_proof() { "proof" } else { "testimony" };
            println!("{} ({proven}): {}", piece.kind(), piece.reason());
        }
        after = next;
    }
}
