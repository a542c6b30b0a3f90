//! What the log says, for people.

use super::server::Server;
use crate::failure::Failure;
use haar_ledger::consortium::included;
use haar_ledger::{PlainProof, Policy as TrustPolicy};
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
    /// Where to write the proof; the entry is written beside it, with the ending .entry.
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

pub(super) fn entry(args: &Entry) -> Result<(), Failure> {
    print!("{}", args.server.text(&format!("/v1/entry?index={}", args.index))?);
    Ok(())
}

pub(super) fn prove(args: &Prove) -> Result<(), Failure> {
    let policy: TrustPolicy = std::fs::read_to_string(&args.policy)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.policy.display())))?
        .parse()?;
    let index = args.index;
    let (entry, text) = args
        .server
        .ask(async |client| Ok((client.entry(index).await?, client.proof(index).await?)))?;
    let proof = PlainProof::parse(&text)?;
    let cosigned = policy.check(proof.checkpoint.as_bytes())?;
    let bytes = entry.as_bytes();
    if proof.index != index || !included(&proof.path, cosigned.size, cosigned.root, index, bytes) {
        return Err(Failure::new("the server's proof does not hold: tell the log's members"));
    }
    std::fs::write(&args.out, &text)?;
    let beside = args.out.with_extension("entry");
    std::fs::write(&beside, bytes)?;
    println!("{} of {}, {} bytes", args.out.display(), beside.display(), text.len());
    println!("under {} entries of {}", cosigned.size, cosigned.origin);
    for (name, time) in &cosigned.witnesses {
        let at = i64::try_from(*time).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        println!(
            "witnessed by {name} at {}",
            at.map_or_else(|| "-".to_owned(), |at| at.to_string())
        );
    }
    Ok(())
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
