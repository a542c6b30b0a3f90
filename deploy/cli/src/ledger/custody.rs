//! Numbered items on their way from member to member.

use super::server::{Server, read_entry, signer};
use crate::failure::Failure;
use crate::verify::read_limited;
use clap::ValueEnum;
use haar_ledger::custody::{
    Chain, CustodyBody, CustodySecret, Ending, Holdings, ItemKind, Opening, Step,
};
use haar_ledger::governance::{Digest, MemberName};
use haar_ledger::{Entry, EntryKind, Identity, read_key_file, write_key_file};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The longest file with the papers of an item: two names, a number and a key.
const MAX_PAPERS_BYTES: u64 = 4_096;

#[derive(Debug, clap::Args)]
pub(super) struct Custody {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Give a number to a new item, as the member who holds it first; writes its papers.
    Issue(Issue),
    /// As its holder, sign that somebody else is to have it; the receiver accepts.
    HandOver(HandOver),
    /// As the receiver, look whether it is what its papers say, and sign that it is here.
    Accept(Accept),
    /// As its holder, say that it is no more.
    End(End),
    /// Where it has been, and when it was kept wrongly.
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Issue {
    /// What it is.
    #[arg(long, value_enum)]
    what: What,
    /// Its serial number; it does not go into the log.
    #[arg(long)]
    serial: String,
    /// The secret that the issuer's item keys come from; made if it is not there. Keep it for as long as items are issued.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// Where to write the item's papers, which go along with it and are confidential.
    #[arg(long, value_name = "FILE")]
    papers: PathBuf,
    /// The member's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
struct HandOver {
    /// The item's papers.
    papers: PathBuf,
    /// The member who is to have it.
    #[arg(long, value_name = "NAME")]
    to: String,
    /// The holder's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where to write the entry, for the receiver to accept.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
struct Accept {
    /// The papers that came with the item.
    papers: PathBuf,
    /// The entry that came with it, signed by who gives it.
    #[arg(long, value_name = "FILE")]
    entry: PathBuf,
    /// What it is said to be.
    #[arg(long, value_enum)]
    what: What,
    /// A folder with the papers of all items that were here before: another with this number is found. These go there too.
    #[arg(long, value_name = "DIR")]
    holdings: Option<PathBuf>,
    /// The receiver's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
struct End {
    /// The item's papers.
    papers: PathBuf,
    /// How.
    #[arg(long, value_enum)]
    how: How,
    /// The holder's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The item's papers.
    papers: PathBuf,
    #[command(flatten)]
    server: Server,
    /// Print the server's JSON as it is.
    #[arg(long)]
    json: bool,
}

/// [`ItemKind`], as it is written on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Medication,
    Device,
    Sample,
}

/// [`Ending`], as it is written on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum How {
    Used,
    Destroyed,
    Recalled,
    Lost,
}

pub(super) fn custody(args: &Custody) -> Result<(), Failure> {
    match &args.action {
        Action::Issue(args) => issue(args),
        Action::HandOver(args) => hand_over(args),
        Action::Accept(args) => accept(args),
        Action::End(args) => end(args),
        Action::Show(args) => show(args),
    }
}

fn issue(args: &Issue) -> Result<(), Failure> {
    let key = signer(&args.key)?;
    let issuer = member(key.origin())?;
    let serial =
        args.serial.parse().map_err(|error| Failure::usage(format!("--serial: {error}")))?;
    let papers = secret(&args.secret)?.open(issuer, serial);
    let item = papers.item();
    if let Some(known) = find(&args.server, &papers)? {
        let at = known.handed.first().map_or(0, |handed| handed.index);
        return Err(Failure::new(format!("this number was issued already, by entry {at}")));
    }
    // Before the log has it: an item whose papers are lost could never be handed over. They may be there from a first try.
    let is_there = args.papers.exists() && read_papers(&args.papers)?.item() == item;
    if !is_there {
        write_papers(&args.papers, &papers)?;
    }
    println!("item {item}, papers in {}", args.papers.display());
    submit(&args.server, item, Step::Issue { what: args.what.into() }, &key)
}

fn hand_over(args: &HandOver) -> Result<(), Failure> {
    let (papers, key, to) = (read_papers(&args.papers)?, signer(&args.key)?, member(&args.to)?);
    let chain = chain(&args.server, &papers)?;
    let previous = head(&chain, &papers, key.origin())?;
    let body = CustodyBody { item: papers.item(), step: Step::HandOver { to, previous } };
    let entry = Entry::sign(EntryKind::Custody, &args.server.origin()?, &body, &[&key])?;
    std::fs::write(&args.out, entry.as_bytes())?;
    println!("{}: signed by {}; {} accepts it", args.out.display(), key.origin(), args.to);
    Ok(())
}

fn accept(args: &Accept) -> Result<(), Failure> {
    let (papers, key) = (read_papers(&args.papers)?, signer(&args.key)?);
    let entry = read_entry(&args.entry)?;
    let body: CustodyBody = entry.body()?;
    let giver = entry.signers().first().cloned().unwrap_or_default();
    let (giver, what) = (member(&giver)?, ItemKind::from(args.what));
    match &body.step {
        Step::HandOver { to, .. } if to.as_str() == key.origin() => {}
        _ => return Err(Failure::new("the entry is no hand-over to the member of this key")),
    }
    if body.item != papers.item() {
        return Err(Failure::new("the entry is of another item than the papers: do not accept it"));
    }
    let chain = chain(&args.server, &papers)?;
    papers
        .check_chain(what, &giver, Some(&chain))
        .map_err(|flag| Failure::new(format!("do not accept it, and tell the members: {flag}")))?;
    if let Some(folder) = &args.holdings {
        account(folder, &papers)?;
    }
    args.server.hand_in(&entry.countersign(&key)?)?;
    println!("{} has it from {giver}", key.origin());
    Ok(())
}

fn end(args: &End) -> Result<(), Failure> {
    let (papers, key) = (read_papers(&args.papers)?, signer(&args.key)?);
    let previous = head(&chain(&args.server, &papers)?, &papers, key.origin())?;
    submit(&args.server, papers.item(), Step::End { how: args.how.into(), previous }, &key)
}

fn show(args: &Show) -> Result<(), Failure> {
    let papers = read_papers(&args.papers)?;
    if args.json {
        println!("{}", args.server.json(&format!("/v1/item?id={}", papers.item()))?);
        return Ok(());
    }
    let chain = chain(&args.server, &papers)?;
    println!("{} {}, item {}", chain.what, papers.serial.as_str(), papers.item());
    for handed in &chain.handed {
        println!("  entry {:>8}  {}", handed.index, handed.holder);
    }
    for excursion in &chain.excursions {
        println!(
            "  entry {:>8}  kept wrongly at {}: leaf {} of {}",
            excursion.index, excursion.holder, excursion.site_index, excursion.site
        );
    }
    if let Some((index, how)) = chain.ended {
        println!("  entry {index:>8}  {how}");
    }
    if chain.issuer() != Some(&papers.issuer) {
        return Err(Failure::new("issued by another than the papers say: it is a forgery"));
    }
    Ok(())
}

fn submit(server: &Server, item: Digest, step: Step, key: &Identity) -> Result<(), Failure> {
    let body = CustodyBody { item, step };
    server.hand_in(&Entry::sign(EntryKind::Custody, &server.origin()?, &body, &[key])?)
}

fn chain(server: &Server, papers: &Opening) -> Result<Chain, Failure> {
    find(server, papers)?.ok_or_else(|| {
        Failure::new("the log has no such item: it was never issued under this number and key")
    })
}

fn find(server: &Server, papers: &Opening) -> Result<Option<Chain>, Failure> {
    let path = format!("/v1/item?id={}", papers.item());
    let found = server.ask(async |client| match client.get(&path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(haar_ledger::client::FetchError::Absent(_)) => Ok(None),
        Err(error) => Err(error.into()),
    })?;
    Ok(found.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
}

/// The entry that the next step builds on, if `holder` has the item.
fn head(chain: &Chain, papers: &Opening, holder: &str) -> Result<Digest, Failure> {
    let last = chain.handed.last().filter(|last| last.holder.as_str() == holder);
    let last = last.ok_or_else(|| {
        let held = chain.holder().map_or("nobody", MemberName::as_str);
        Failure::new(format!("item {} is held by {held}, not by {holder}", papers.item()))
    })?;
    Ok(last.entry)
}

/// Takes the papers into account; another item with the same number is found.
fn account(folder: &Path, papers: &Opening) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let mut holdings = Holdings::default();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "papers") {
            // What lay there already was accepted.
            let _ = holdings.add(&read_papers(&path)?);
        }
    }
    holdings
        .add(papers)
        .map_err(|flag| Failure::new(format!("do not accept it, and tell the members: {flag}")))?;
    let own = folder.join(format!("{}.papers", papers.item()));
    if own.exists() { Ok(()) } else { write_papers(&own, papers) }
}

fn read_papers(path: &Path) -> Result<Opening, Failure> {
    let text = read_limited(path, MAX_PAPERS_BYTES)?;
    serde_json::from_str(&text)
        .map_err(|_| Failure::usage(format!("{} holds no papers of an item", path.display())))
}

fn write_papers(path: &Path, papers: &Opening) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options
        .open(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    file.write_all(serde_json::to_string_pretty(papers)?.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    Ok(())
}

/// The issuer's secret, 64 hexadecimal digits in a file of mode 0600.
fn secret(path: &Path) -> Result<CustodySecret, Failure> {
    if !path.exists() {
        let mut fresh = [0; 32];
        getrandom::fill(&mut fresh).map_err(|error| Failure::new(error.to_string()))?;
        write_key_file(path, &hex::encode(fresh))?;
        println!("made the secret {}; back it up", path.display());
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(read_key_file(path)?.as_str(), &mut bytes).map_err(|_| {
        Failure::usage(format!("{} holds no secret: 64 hexadecimal digits", path.display()))
    })?;
    Ok(CustodySecret::new(bytes))
}

fn member(name: &str) -> Result<MemberName, Failure> {
    name.parse().map_err(|error| Failure::usage(format!("{name}: {error}")))
}

impl From<What> for ItemKind {
    fn from(what: What) -> Self {
        match what {
            What::Medication => Self::Medication,
            What::Device => Self::Device,
            What::Sample => Self::Sample,
        }
    }
}

impl From<How> for Ending {
    fn from(how: How) -> Self {
        match how {
            How::Used => Self::Used,
            How::Destroyed => Self::Destroyed,
            How::Recalled => Self::Recalled,
            How::Lost => Self::Lost,
        }
    }
}
