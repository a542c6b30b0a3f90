//! Whether a checkpoint that a witness refused shows an attempt of the log's.
//!
//! Two roots of one size do, by their bytes. A checkpoint that no proof led to does not: whoever asks a witness may attach a
//! wrong proof to an honest checkpoint, and an honest witness would then testify against an honest log. So the witness looks for
//! itself: the entries that the log serves, copied and hashed here, lead to both checkpoints or they do not. Where they cannot be
//! read nothing is said; a log that serves nothing becomes stale, and that is said.

use super::follow::Follower;
use super::gossip::Gossip;
use crate::checkpoint::Head;
use crate::consortium::{CopyError, Tiles};
use crate::witness::Inconsistent;
use std::sync::Arc;

/// What a witness looks at. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Judge {
    /// The log itself or a copy, if this server has one.
    pub(crate) tiles: Option<Tiles>,
    /// Copies more, if this server follows the log.
    pub(crate) follower: Option<Arc<Follower>>,
    pub(crate) gossip: Gossip,
}

impl Judge {
    /// A witness refused a checkpoint that the log signed.
    pub(crate) async fn hear(&self, seen: &Inconsistent) {
        let Some(remembered) = seen.remembered.as_deref() else {
            // Impossible by itself: it needs no other.
            return self.gossip.contradiction(&seen.offered, &seen.offered).await;
        };
        if seen.fork {
            return self.gossip.contradiction(remembered, &seen.offered).await;
        }
        if let Some(follower) = &self.follower {
            match follower.take(seen.offered.as_bytes()).await {
                Ok(()) => {}
                // It has said so already.
                Err(CopyError::Inconsistent { .. }) => return,
                Err(error) => {
                    tracing::warn!(%error, "a proof did not lead to a checkpoint, and the log's entries cannot be read to see why");
                    return;
                }
            }
        }
        match (self.contradicts(remembered), self.contradicts(&seen.offered)) {
            (Some(true), _) | (_, Some(true)) => {
                self.gossip.contradiction(remembered, &seen.offered).await;
            }
            (Some(false), Some(false)) => {
                tracing::warn!("a wrong proof was attached to a checkpoint of the log");
            }
            _ => tracing::warn!(
                "a proof did not lead to a checkpoint; without a copy of the log ([follow]) nothing can be said"
            ),
        }
    }

    /// Whether the entries here lead to another root at the checkpoint's size; `None` if they do not reach so far.
    fn contradicts(&self, note: &str) -> Option<bool> {
        let head = Head::open_stored(note).ok()?;
        let root = self.tiles.as_ref()?.root_at(head.size).ok()?;
        Some(root != head.root)
    }
}
