//! Founding: the first entry, signed by one founder after the other.

use super::server::{read_entry, signer};
use crate::failure::Failure;
use haar_ledger::consent::bundle_hash;
use haar_ledger::governance::{
    Digest, Genesis as Body, Member, Operator, Predecessor, Quorums, Refused, State,
};
use haar_ledger::{Entry, EntryKind};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The longest description.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Genesis {
    /// The description, TOML: consortium, operator, members; quorums if not the usual ones.
    /// fog/ledger/consortium.example.toml shows every key.
    #[arg(long, value_name = "FILE")]
    describe: PathBuf,
    /// The key of the founder who signs first.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where to write the entry; the other founders sign it with `haar ledger sign`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Sign {
    /// The entry; the signature is added to it.
    entry: PathBuf,
    /// The key that signs.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// A consortium, as people describe it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    consortium: String,
    operator: Operator,
    members: Vec<Member>,
    #[serde(default)]
    quorums: Option<Quorums>,
    policy_bundle: Option<Digest>,
    predecessor: Option<Predecessor>,
}

pub(super) fn genesis(args: &Genesis) -> Result<(), Failure> {
    let body = describe(&args.describe)?;
    let signer = signer(&args.key)?;
    let origin = body.operator.log.name().to_owned();
    let entry = Entry::sign(EntryKind::Genesis, &origin, &body, &[&signer])?;
    write_new(&args.out, entry.as_bytes())?;
    say(&entry, &args.out);
    Ok(())
}

pub(super) fn sign(args: &Sign) -> Result<(), Failure> {
    let entry = read_entry(&args.entry)?;
    let signer = signer(&args.key)?;
    if entry.verify(signer.vkey()).is_ok() {
        return Err(Failure::usage(format!("{} has signed this already", signer.origin())));
    }
    println!("{}", String::from_utf8_lossy(entry.as_bytes()));
    let signed = entry.countersign(&signer)?;
    let beside = args.entry.with_extension("signing");
    std::fs::write(&beside, signed.as_bytes())?;
    std::fs::rename(&beside, &args.entry)?;
    say(&signed, &args.entry);
    Ok(())
}

fn describe(path: &Path) -> Result<Body, Failure> {
    let named = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    if std::fs::metadata(path).map_err(named)?.len() > MAX_DESCRIPTION_BYTES {
        return Err(Failure::usage(format!("{} is too long", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(named)?;
    let read: Description = toml::from_str(&text)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(Body {
        consortium: read.consortium,
        operator: read.operator,
        members: read.members,
        quorums: read.quorums.unwrap_or_default(),
        policy_bundle: read.policy_bundle.unwrap_or_else(bundle_hash),
        predecessor: read.predecessor,
    })
}

/// Who has signed, and whether it can begin a log now.
fn say(entry: &Entry, path: &Path) {
    println!("{}: signed by {}", path.display(), entry.signers().join(", "));
    if entry.kind() != EntryKind::Genesis {
        return;
    }
    match State::genesis(entry) {
        Ok(_) => println!("it can begin the log {}", entry.origin()),
        Err(Refused::Successor(_)) => println!(
            "it is to follow another log; `haar-ledger succeed --check` says whether it does"
        ),
        Err(refused) => println!("it cannot begin a log yet: {refused}"),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    file.write_all(bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_describes_a_consortium() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fog/ledger/consortium.example.toml");
        let body = describe(&path).unwrap();
        assert_eq!(body.members.len(), 2);
        assert!(body.members.iter().any(|member| member.name == body.operator.name));
    }
}
