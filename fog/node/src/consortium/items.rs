//! Items that a fog watches over: an alarm of the right kind is attached to the item's chain of custody.
//!
//! # Format
//! TOML, read again for each round that finds an alarm: `[[item]]` with `id` (64 hexadecimal digits, as `haar ledger custody issue` says), `subject` (the
//! pseudonym under which its sensor reports) and `flags` (the names of those that mean it was kept wrongly). At most [`MAX_BYTES`].
//!
//! # What is attached
//! The leaf with the transition by which such an alarm becomes active, once an episode. What was measured stays at the site; the members
//! learn that the item was kept wrongly, where and when.
//!
//! # Not guaranteed
//! An item is found by its sensor alone: whoever puts another item beside the sensor, or the sensor beside another item, attaches to the
//! wrong chain. What is not held by this site's member any more gets nothing attached, nor what has [`MAX_EXCURSIONS`].

use haar_alarms::{Phase, Transition};
use haar_ledger::LEAF_BYTES;
use haar_ledger::custody::{Chain, CustodyBody, MAX_EXCURSIONS, Step};
use haar_ledger::governance::{Digest, Hex, State};
use haar_schema::Subject;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The longest file.
const MAX_BYTES: u64 = 4 << 20;

/// Which items are watched over.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Items {
    #[serde(default)]
    item: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    id: Digest,
    subject: Subject,
    flags: Vec<String>,
}

/// Why the file is not read.
#[derive(Debug, thiserror::Error)]
#[error("consortium.items_file {path}: {problem}", path = .path.display())]
pub(crate) struct ItemsError {
    path: PathBuf,
    problem: String,
}

impl Items {
    pub(crate) fn load(path: &Path) -> Result<Self, ItemsError> {
        let wrong = |problem: String| ItemsError { path: path.to_owned(), problem };
        let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length > MAX_BYTES {
            return Err(wrong(format!("has {length} bytes, at most {MAX_BYTES} are read")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        // No content in the message: it names items and pseudonyms.
        toml::from_str(&text)
            .map_err(|_| wrong("is not [[item]] tables of id, subject and flags".to_owned()))
    }

    /// The excursions that a transition at leaf `index` means, of items that the site's member holds by the members' log.
    pub(crate) fn excursions(
        &self,
        body: &[u8],
        (index, leaf): (u64, [u8; LEAF_BYTES]),
        (state, site): (&State, &str),
    ) -> Vec<CustodyBody> {
        let Ok(transition) = Transition::from_json(body) else { return Vec::new() };
        let begins = transition.to == Phase::Active
            && !matches!(transition.from, Phase::Active | Phase::Acknowledged | Phase::Paused);
        if !begins {
            return Vec::new();
        }
        let key = state.keys_named(site).iter().find(|key| key.counts_at(state.next_index()));
        let holds = |item: &Digest| {
            let open =
                |chain: &&Chain| chain.ended.is_none() && chain.excursions.len() < MAX_EXCURSIONS;
            let chain = state.item(item).filter(open);
            chain.and_then(|chain| chain.holder()) == key.map(|key| &key.member)
        };
        let concerned = self.item.iter().filter(|own| {
            transition.subject == Some(own.subject) && own.flags.contains(&transition.flag)
        });
        let held = concerned.filter(|own| {
            let held = key.is_some() && holds(&own.id);
            if !held {
                tracing::warn!(item = %own.id, "an item that was kept wrongly is not held by this site's member, or has as many excursions as can be; nothing is attached");
            }
            held
        });
        held.map(|own| CustodyBody {
            item: own.id,
            step: Step::Excursion { index, leaf: Hex(leaf) },
        })
        .collect()
    }
}
