//! What the demo found: checks, proofs, summary, report.

use super::report::{self, FlagEntry, Latency, ProofState, Report, Summary};
use super::script::{self, Score};
use crate::failure::Failure;
use crate::members::Members;
use haar_edge::EdgeStats;
use haar_fog::{DATABASE_FILE, FogStats, RECORDS_KEY_FILE};
use haar_ledger::{
    Identity, LEAF_BYTES, LeafKind, Record, RecordsKey, Snapshot, Trust, VerifierKey, fsck,
    open_read_only, verify,
};
use haar_schema::{FlaggedEvent, Priority, Subject, WindowDigest};
use haar_simulator::transport::Sent;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most flags whose proofs are made and checked; the log's fsck covers the rest.
const MAX_PROVEN: usize = 10_000;

/// How wide the summary is.
const COLUMNS: usize = 100;

/// A finished run.
pub struct Done<'a> {
    pub dir: &'a Path,
    pub sent: Sent,
    /// Whether everything that was sent arrived in time.
    pub settled: bool,
    /// Whether the members witnessed it in time.
    pub is_witnessed: bool,
    pub edge: EdgeStats,
    pub fog: FogStats,
    pub names: BTreeMap<Subject, String>,
    /// Whether a simulated ward was played, which leaves a truth file.
    pub is_ward: bool,
    pub origin: &'a str,
}

/// What is in the log.
struct Contents {
    digests: Vec<WindowDigest>,
    flags: Vec<FlagEntry>,
    size: u64,
    root: String,
    vkey: VerifierKey,
    /// The most pressing flag that was proven.
    shown: Option<Shown>,
    /// What a check of the whole log found.
    problems: Vec<String>,
}

/// A flag's leaf, to be shown.
struct Shown {
    priority: Priority,
    index: u64,
    leaf: [u8; LEAF_BYTES],
    record: Record,
    /// The site's own proof.
    file: PathBuf,
}

/// What the members say of the leaf that is shown.
struct Witnessed {
    /// Their proof of it.
    file: PathBuf,
    /// Who has cosigned.
    by: Vec<String>,
}

/// Checks the run, prints its summary, writes the report.
///
/// # Errors
/// If anything was lost or a proof fails.
pub async fn conclude(done: Done<'_>, members: &Members, site: &Identity) -> Result<(), Failure> {
    let mut contents = read(&done)?;
    let witnessed = match &contents.shown {
        Some(shown) => match witnessed(done.dir, shown, members, site).await {
            Ok(witnessed) => Some(witnessed),
            Err(error) => {
                let problem = format!("the members do not prove leaf {}: {error}", shown.index);
                contents.problems.push(problem);
                None
            }
        },
        None => None,
    };
    print(&done, &contents);
    print_members(&done, witnessed.as_ref());
    if done.is_ward {
        print_score(&script::score(&done.dir.join(super::TRUTH), &contents.flags, &done.names)?);
    }
    let report_file = done.dir.join("report.html");
    let faults = faults(&done, &contents);
    let label = |subject| done.names.get(&subject).cloned().unwrap_or_else(|| "unknown".to_owned());
    let summary = summary(&done, &contents);
    let vkey = contents.vkey.to_string();
    let proof = contents.shown.as_ref().map(|shown| shown.file.clone());
    let log = done.dir.join("fog").join(DATABASE_FILE);
    let page = report::render(&Report {
        title: "Haar demo".to_owned(),
        generated: super::now(),
        summary,
        patients: report::patients(contents.digests, contents.flags, label),
    });
    std::fs::write(&report_file, page)?;
    println!("\nreport    {}", report_file.display());
    // The path of this very program: the lines work when they are pasted, installed or not.
    let haar = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("haar"));
    let haar = quoted(&haar);
    if let Some(proof) = proof {
        println!("a proof   {haar} verify {} --key '{vkey}'", quoted(&proof));
    }
    if let Some(witnessed) = witnessed {
        let (proof, policy) = (quoted(&witnessed.file), quoted(members.policy_file()));
        println!("witnessed {haar} verify {proof} --policy {policy} --key '{vkey}'");
    }
    println!("the log   {haar} fsck --log {} --key '{vkey}'", quoted(&log));
    if faults.is_empty() {
        println!("\nnothing lost, every proof holds");
        Ok(())
    } else {
        Err(Failure::new(faults.join("\n      ")))
    }
}

/// What makes the run a failure.
fn faults(done: &Done<'_>, contents: &Contents) -> Vec<String> {
    let Done { sent, edge, fog, .. } = done;
    let mut faults = contents.problems.clone();
    if sent.failed > 0 {
        faults.push(format!("{} frames were never acknowledged", sent.failed));
    }
    if !done.settled {
        faults.push(format!(
            "not everything arrived in time: {} frames acknowledged, {} received by the edge, \
             {} of {} spool entries committed",
            sent.acked,
            edge.frames,
            edge.acked_through,
            edge.next_seq.saturating_sub(1)
        ));
    }
    let accounted = edge.readings + edge.quarantined;
    if accounted < sent.readings_acked {
        faults.push(format!(
            "{} readings were acknowledged, the edge has {}",
            sent.readings_acked, accounted
        ));
    }
    if !done.is_witnessed {
        faults.push(format!(
            "the members have witnessed {} of {} leaves in time",
            fog.witnessed.unwrap_or(0),
            fog.leaves
        ));
    }
    if edge.acked_through + 1 < edge.next_seq {
        faults.push(format!(
            "{} entries of the spool were not committed",
            edge.next_seq - 1 - edge.acked_through
        ));
    }
    if fog.undecodable > 0 || fog.dropped_limit.values().sum::<u64>() > 0 {
        faults.push("the fog dropped readings; see its log".to_owned());
    }
    faults
}

fn read(done: &Done<'_>) -> Result<Contents, Failure> {
    let db = open_read_only(&done.dir.join("fog").join(DATABASE_FILE))?;
    let records_key = Arc::new(RecordsKey::load(&done.dir.join("fog").join(RECORDS_KEY_FILE))?);
    let snapshot = Snapshot::open_with(&db, Arc::clone(&records_key))?;
    let vkey = snapshot.vkey().clone();
    let keys = [vkey.clone()];
    let checked = fsck(&db, Trust::Pinned(&keys), Some(&records_key), &mut |_, _| {})?;
    let mut problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
    let (mut digests, mut flags, mut shown) = (Vec::new(), Vec::new(), None::<Shown>);
    for index in 0..snapshot.size() {
        let record = snapshot.record(index)?;
        if matches!(record.kind, LeafKind::WindowDigest | LeafKind::Correction) {
            let digest = WindowDigest::from_json(&record.body)?;
            if done.names.contains_key(&digest.key.subject) {
                digests.push(digest);
            }
            continue;
        }
        if record.kind != LeafKind::FlaggedEvent {
            continue;
        }
        let event = FlaggedEvent::from_json(&record.body)?;
        // An earlier run in the same folder had other pseudonyms; fsck covers what it left.
        if flags.len() >= MAX_PROVEN || !done.names.contains_key(&event.key.subject) {
            continue;
        }
        let text = snapshot.prove(index)?.to_text();
        let state = match verify(&text, Trust::Pinned(&keys)) {
            Ok(verified) => ProofState {
                verified: true,
                detail: format!("in the tree of {} leaves", verified.checkpoint.size()),
            },
            Err(error) => {
                problems.push(format!("the proof of leaf {index} fails: {error}"));
                ProofState { verified: false, detail: error.to_string() }
            }
        };
        // The one to show is the most pressing.
        let priority = event.priority;
        if shown.as_ref().is_none_or(|shown| shown.priority < priority) {
            let file = done.dir.join("flag.tlog-proof");
            std::fs::write(&file, &text)?;
            shown = Some(Shown { priority, index, leaf: snapshot.leaf(index)?, record, file });
        }
        flags.push(FlagEntry { event, leaf_index: index, proof: state, latency_ms: None });
    }
    let checkpoint = snapshot.checkpoint()?;
    Ok(Contents {
        digests,
        flags,
        size: snapshot.size(),
        root: hex::encode(checkpoint.root()),
        vkey,
        shown,
        problems,
    })
}

fn summary(done: &Done<'_>, contents: &Contents) -> Summary {
    let fog = &done.fog;
    Summary {
        readings: done.edge.readings,
        windows: fog.windows.values().sum(),
        flags: contents.flags.len() as u64,
        bytes_in: done.edge.bytes,
        bytes_committed: fog.bytes_committed,
        latency_ms: fog
            .latency_p50_ms
            .zip(fog.latency_p99_ms)
            .map(|(p50, p99)| Latency { p50: p50 as f64, p99: p99 as f64 }),
        log_size: contents.size,
        witnessed: fog.witnessed.unwrap_or(0),
        members: super::MEMBERS.len(),
        origin: done.origin.to_owned(),
        root: contents.root.clone(),
    }
}

fn print(done: &Done<'_>, contents: &Contents) {
    let Done { sent, edge, fog, .. } = done;
    let windows: Vec<String> =
        fog.windows.iter().map(|(pipeline, count)| format!("{count} {pipeline}")).collect();
    println!(
        "\nreadings in   {} in {} frames ({} acknowledged by broker or edge)",
        edge.readings, edge.frames, sent.acked
    );
    println!(
        "              {} delivered twice, {} quarantined, {} with a clock that was ahead",
        edge.duplicates, edge.quarantined, edge.clamped
    );
    println!("windows       {} ({})", fog.windows.values().sum::<u64>(), windows.join(", "));
    let late: u64 = fog.dropped_late.values().sum();
    println!(
        "              {} corrections, {late} readings too late for every window",
        fog.corrections
    );
    println!("flags         {} flagged windows in {} episodes", contents.flags.len(), fog.episodes);
    print_flags(done, contents);
    print!("bytes         {} in, {} committed upstream", edge.bytes, fog.bytes_committed);
    match fog.bytes_committed {
        0 => println!(),
        committed => println!(", {:.0} : 1", edge.bytes as f64 / committed as f64),
    }
    match (fog.latency_p50_ms, fog.latency_p99_ms) {
        (Some(p50), Some(p99)) => {
            println!("latency       p50 {p50} ms, p99 {p99} ms from reading to committed flag");
        }
        _ => println!("latency       no flag, so none"),
    }
    println!("site log      {} leaves, origin {}", contents.size, done.origin);
}

/// The proof that the members have of a leaf, in a file.
async fn witnessed(
    dir: &Path,
    shown: &Shown,
    members: &Members,
    site: &Identity,
) -> Result<Witnessed, Failure> {
    let commitment = members.commitment(site, shown.index, shown.leaf)?;
    let (text, verified) = members.prove(&commitment, site.vkey(), &shown.record).await?;
    let file = dir.join("witnessed.tlog-proof");
    std::fs::write(&file, text)?;
    let by = verified.checkpoint.witnesses.into_iter().map(|(name, _)| name).collect();
    Ok(Witnessed { file, by })
}

fn print_members(done: &Done<'_>, witnessed: Option<&Witnessed>) {
    let fog = &done.fog;
    println!(
        "members       {} of {} leaves witnessed by a quorum of the {}",
        fog.witnessed.unwrap_or(0),
        fog.leaves,
        super::MEMBERS.len()
    );
    if let Some(Witnessed { by, .. }) = witnessed {
        println!("              the flag below by {}", by.join(", "));
    }
}

/// What the ward's script did, and what was flagged of it.
fn print_score(score: &Score) {
    let Score { found, missing, false_alarms } = score;
    let expected = found + missing.len();
    println!("expected      {found} of the {expected} flags that the ward's script calls for");
    if !missing.is_empty() {
        println!("              not raised, or not yet:");
        print_wrapped("                ", missing);
    }
    println!(
        "              flagged windows of patients to whom nothing had happened: {false_alarms}"
    );
}

/// Prints words with commas between in lines of at most [`COLUMNS`], the second and later ones indented
/// as far as `head` is long.
fn print_wrapped(head: &str, words: &[String]) {
    let indent = " ".repeat(head.chars().count());
    let mut line = head.to_owned();
    for (index, word) in words.iter().enumerate() {
        if line.chars().count() + word.chars().count() >= COLUMNS && index > 0 {
            println!("{}", line.trim_end());
            line.clone_from(&indent);
        }
        line.push_str(word);
        if index + 1 < words.len() {
            line.push_str(", ");
        }
    }
    println!("{line}");
}

/// A path as a shell reads it back.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if text.bytes().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Flagged windows by flag and patient, as a table.
fn print_flags(done: &Done<'_>, contents: &Contents) {
    let mut counts: BTreeMap<(std::cmp::Reverse<Priority>, &str), BTreeMap<&str, u64>> =
        BTreeMap::new();
    for FlagEntry { event, .. } in &contents.flags {
        let patient = done.names.get(&event.key.subject).map_or("unknown", String::as_str);
        let row = counts.entry((std::cmp::Reverse(event.priority), &event.flag)).or_default();
        *row.entry(patient).or_default() += 1;
    }
    for ((std::cmp::Reverse(priority), flag), row) in counts {
        let cells: Vec<String> =
            row.iter().map(|(patient, count)| format!("{patient} ×{count}")).collect();
        print_wrapped(&format!("  {:<12}{flag:<29} ", priority.as_str()), &cells);
    }
}
