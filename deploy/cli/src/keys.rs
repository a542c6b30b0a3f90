//! `haar keys`: divides a secret among custodians, and puts it together again when the consortium log has the request.

use crate::failure::Failure;
use crate::verify::{KeyArgs, read_limited, read_policy};
use clap::Subcommand;
use haar_ledger::privacy::custodians::{
    EscrowId, MAX_SECRET_BYTES, MAX_SHARE_BYTES, Request, Share, recover, split,
};
use haar_ledger::{Entry, EntryKind, Identity, MAX_PROOF_BYTES, Trust, verify_entry};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Divide a secret, such as the key that makes pseudonyms, among custodians; put it together again.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Divide a secret into shares, of which some number puts it together.
    Split(SplitArgs),
    /// Make the entry that asks for a secret to be put together. It goes to the consortium log.
    Request(RequestArgs),
    /// Put a secret together from shares. Needs the proof that the request stands in the consortium log.
    Recover(RecoverArgs),
}

#[derive(clap::Args)]
struct SplitArgs {
    /// The file with the secret, 16 to 1024 bytes, as they are.
    secret: PathBuf,
    /// How many custodians must agree.
    #[arg(long, value_name = "K")]
    threshold: u8,
    /// How many there are.
    #[arg(long, value_name = "M")]
    custodians: u8,
    /// Folder for the shares, one file each; each is for its custodian only.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(clap::Args)]
struct RequestArgs {
    /// Which secret: 64 hexadecimal digits, as `haar keys split` said and every share says.
    #[arg(long, value_name = "HEX")]
    escrow: String,
    /// Why. All members read it; name no patient.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The origin of the consortium log.
    #[arg(long, value_name = "ORIGIN")]
    log: String,
    /// The signing key of whoever asks.
    #[arg(long, value_name = "FILE")]
    signing_key: PathBuf,
    /// Where to write the entry.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(clap::Args)]
struct RecoverArgs {
    /// The shares.
    #[arg(required = true)]
    shares: Vec<PathBuf>,
    /// The proof that the request stands in the consortium log.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// The policy of the consortium log.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    /// Where to write the secret.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Split(args) => divide(&args),
        Command::Request(args) => request(&args),
        Command::Recover(args) => put_together(&args),
    }
}

fn divide(args: &SplitArgs) -> Result<(), Failure> {
    let mut secret = Zeroizing::new(Vec::new());
    fs::File::open(&args.secret)
        .and_then(|file| file.take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut secret))
        .map_err(|error| Failure::new(format!("{}: {error}", args.secret.display())))?;
    let (escrow, shares) = split(&secret, args.threshold, args.custodians)?;
    fs::create_dir_all(&args.out)?;
    for share in &shares {
        let path = args.out.join(format!("share-{:02}.txt", share.number()));
        write_new(&path, share.to_text().as_bytes())?;
        println!("{}", path.display());
    }
    println!("escrow  {escrow}");
    println!("Any {} of these {} give the secret back.", args.threshold, args.custodians);
    Ok(())
}

fn request(args: &RequestArgs) -> Result<(), Failure> {
    let escrow: EscrowId = args.escrow.parse()?;
    let body = Request::new(escrow, &args.reason)?;
    let signer = Identity::load(&args.signing_key)?;
    let entry = Entry::sign(EntryKind::Reidentification, &args.log, &body, &[&signer])?;
    fs::write(&args.out, entry.as_bytes())?;
    println!("{}", args.out.display());
    Ok(())
}

fn put_together(args: &RecoverArgs) -> Result<(), Failure> {
    let policy = read_policy(&args.policy)?;
    let Some(keys) = args.keys.pinned()? else {
        return Err(Failure::usage("say with --key or --key-file who may ask for it"));
    };
    let proof = read_limited(&args.request, MAX_PROOF_BYTES as u64)?;
    let request = verify_entry(&proof, &policy, Trust::Pinned(&keys))?;
    let mut shares = Vec::new();
    for path in &args.shares {
        let text = Zeroizing::new(read_limited(path, MAX_SHARE_BYTES as u64)?);
        let named = |error| Failure::new(format!("{}: {error}", path.display()));
        shares.push(text.parse::<Share>().map_err(named)?);
    }
    let secret = recover(&request, &shares)?;
    write_new(&args.out, &secret)?;
    let body: Request = request.entry.body()?;
    println!("{}", args.out.display());
    println!("asked for by {} in entry {}: {}", request.signer, request.index, body.reason());
    for (name, _) in &request.checkpoint.witnesses {
        println!("witnessed by {name}");
    }
    Ok(())
}

/// Writes a secret to a file that was not there and that only its owner may read.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let named = |error| Failure::new(format!("{}: {error}", path.display()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(named)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(named)
}
