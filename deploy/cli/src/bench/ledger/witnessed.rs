//! From the submission of an entry until a quorum has cosigned it: four members in this process, over real sockets.

use crate::failure::Failure;
use crate::members::{Members, Wanted};
use haar_ledger::client::Level;
use haar_ledger::{Identity, LeafKind, leaf};
use std::path::Path;
use std::time::{Duration, Instant};

const ORIGIN: &str = "haar.invalid/bench";
const PATIENCE: Duration = Duration::from_secs(10);
/// Entries that are submitted, one after the other at this pace.
const ENTRIES: u64 = 300;
const PACE: Duration = Duration::from_millis(20);

/// Milliseconds from submission to quorum, ascending.
pub(super) async fn witnessed_ms(dir: &Path) -> Result<Vec<f64>, Failure> {
    let names = ["m0.invalid", "m1.invalid", "m2.invalid", "m3.invalid"];
    let members = Members::found(Wanted { dir, origin: ORIGIN, names, tls: None }).await?;
    let measured = measure(&members).await;
    members.stop().await?;
    measured
}

async fn measure(members: &Members) -> Result<Vec<f64>, Failure> {
    let site = Identity::generate("haar.invalid/site", [77; 32])?;
    members.register(&site).await?;
    let mut submitted = tokio::task::JoinSet::new();
    for index in 0..ENTRIES {
        let leaf = leaf(LeafKind::FlaggedEvent, &[1; 32], &index.to_be_bytes(), &[2; 32]);
        let entry = members.commitment(&site, index, leaf)?;
        let client = members.operator().clone();
        submitted.spawn(async move {
            let begun = Instant::now();
            let placed = client.submit(&entry, Level::Witnessed, PATIENCE).await;
            (begun.elapsed().as_secs_f64() * 1e3, placed)
        });
        tokio::time::sleep(PACE).await;
    }
    let mut ms = Vec::new();
    while let Some(done) = submitted.join_next().await {
        let (elapsed, placed) = done?;
        if placed?.level != Level::Witnessed {
            return Err(Failure::new("an entry was not witnessed in ten seconds"));
        }
        ms.push(elapsed);
    }
    ms.sort_by(f64::total_cmp);
    Ok(ms)
}
