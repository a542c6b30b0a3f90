//! What members say to the log.

use super::server::{Server, read_entry, signer};
use crate::failure::Failure;
use clap::ValueEnum;
use haar_ledger::governance::{Ballot, Change, Hex, KeyBody, Proposal, Role, Vote as Voice};
use haar_ledger::{Entry, EntryKind, VerifierKey};
use std::path::PathBuf;

/// Entries after which a proposal that nobody decided expires, unless told otherwise.
const EXPIRES_AFTER: u64 = 100_000;

#[derive(Debug, clap::Args)]
pub(super) struct Submit {
    /// The entry.
    entry: PathBuf,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct Key {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Debug, clap::Subcommand)]
enum KeyAction {
    /// Register a key: signed by a member (or by whom it stands under) and by the key itself.
    Register(Register),
    /// Revoke a key: nothing that it signs from here on counts.
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct Register {
    /// The registrar's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The new signing key, which signs too.
    #[arg(long, value_name = "FILE")]
    new: PathBuf,
    /// Whose key it is.
    #[arg(long, value_enum)]
    role: RoleName,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    /// The key of whoever may: the registrar, the member, or the key itself.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The verifier key that is revoked.
    #[arg(value_name = "VKEY")]
    revoked: String,
    #[command(flatten)]
    server: Server,
}

/// [`Role`], as it is written on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Device,
    Edge,
    Fog,
    Patient,
    Clinician,
    Researcher,
    Insurer,
    Custodian,
    Model,
}

#[derive(Debug, clap::Args)]
pub(super) struct Propose {
    /// The change, JSON, such as {"remove-member":{"member":"b.example"}} or
    /// {"change-policy":{"bundle":"64 hexadecimal digits"}}.
    #[arg(long, value_name = "JSON")]
    change: String,
    /// Why, for people.
    #[arg(long)]
    reason: String,
    /// Entries after which it expires.
    #[arg(long, default_value_t = EXPIRES_AFTER)]
    expires_after: u64,
    /// The key of the member who proposes.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct Vote {
    /// The proposal's id, as `haar ledger show` prints it.
    proposal: String,
    /// For or against.
    #[arg(value_enum)]
    vote: VoiceName,
    /// The key of the member who votes.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VoiceName {
    Yes,
    No,
}

pub(super) fn submit(args: &Submit) -> Result<(), Failure> {
    args.server.hand_in(&read_entry(&args.entry)?)
}

pub(super) fn key(args: &Key) -> Result<(), Failure> {
    match &args.action {
        KeyAction::Register(Register { key, new, role, server }) => {
            let (registrar, own) = (signer(key)?, signer(new)?);
            let body = KeyBody::Register { key: own.vkey().into(), role: (*role).into() };
            let origin = server.origin()?;
            let entry = Entry::sign(EntryKind::Key, &origin, &body, &[&registrar, &own])?;
            server.hand_in(&entry)
        }
        KeyAction::Revoke(Revoke { key, revoked, server }) => {
            let revoked: VerifierKey = revoked.parse()?;
            let body = KeyBody::Revoke { key: (&revoked).into() };
            let origin = server.origin()?;
            server.hand_in(&Entry::sign(EntryKind::Key, &origin, &body, &[&signer(key)?])?)
        }
    }
}

pub(super) fn propose(args: &Propose) -> Result<(), Failure> {
    let change: Change = serde_json::from_str(&args.change)
        .map_err(|error| Failure::usage(format!("--change: {error}")))?;
    let state = args.server.json("/v1/state")?;
    let version = state["version"].as_u64();
    let version = version.ok_or_else(|| Failure::new("the server names no version"))?;
    let (expires_after, reason) = (args.expires_after, args.reason.clone());
    let body = Proposal { change, version, expires_after, reason };
    let signer = signer(&args.key)?;
    let entry = Entry::sign(EntryKind::Proposal, &args.server.origin()?, &body, &[&signer])?;
    args.server.hand_in(&entry)
}

pub(super) fn vote(args: &Vote) -> Result<(), Failure> {
    let mut id = [0; 32];
    hex::decode_to_slice(&args.proposal, &mut id)
        .map_err(|_| Failure::usage("a proposal's id is 64 hexadecimal digits"))?;
    let vote = match args.vote {
        VoiceName::Yes => Voice::Yes,
        VoiceName::No => Voice::No,
    };
    let body = Ballot { proposal: Hex(id), vote };
    let signer = signer(&args.key)?;
    let entry = Entry::sign(EntryKind::Ballot, &args.server.origin()?, &body, &[&signer])?;
    args.server.hand_in(&entry)
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Device => Self::Device,
            RoleName::Edge => Self::Edge,
            RoleName::Fog => Self::Fog,
            RoleName::Patient => Self::Patient,
            RoleName::Clinician => Self::Clinician,
            RoleName::Researcher => Self::Researcher,
            RoleName::Insurer => Self::Insurer,
            RoleName::Custodian => Self::Custodian,
            RoleName::Model => Self::Model,
        }
    }
}
