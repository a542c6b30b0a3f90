//! Consecutive windows that raise the same flag are one episode for a person.

use super::FlagEntry;
use haar_schema::{Priority, Timestamp};
use std::collections::BTreeMap;

/// A run of windows, each overlapping or touching the one before, that raised the same flag.
pub(super) struct Episode<'a> {
    /// In order of time; never empty.
    pub entries: Vec<&'a FlagEntry>,
    /// The entry that is drawn and whose evidence is listed.
    pub shown: &'a FlagEntry,
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Episode<'_> {
    pub(super) fn flag(&self) -> &str {
        &self.shown.event.flag
    }

    pub(super) fn priority(&self) -> Priority {
        self.shown.event.priority
    }

    /// Whether every entry's proof held.
    pub(super) fn verified(&self) -> usize {
        self.entries.iter().filter(|entry| entry.proof.verified).count()
    }
}

/// The episodes of one patient's flags (in order of time): the most urgent first, then by time.
pub(super) fn episodes(flags: &[FlagEntry]) -> Vec<Episode<'_>> {
    let mut open: BTreeMap<(&str, &str), Episode<'_>> = BTreeMap::new();
    let mut done = Vec::new();
    for entry in flags {
        let event = &entry.event;
        let name = (event.key.pipeline.as_str(), event.flag.as_str());
        let (start, end) = (event.key.start_us, event.key.end_us);
        match open.get_mut(&name) {
            Some(episode) if start <= episode.end => {
                episode.end = episode.end.max(end);
                episode.entries.push(entry);
            }
            _ => {
                let fresh = Episode { entries: vec![entry], shown: entry, start, end };
                done.extend(open.insert(name, fresh));
            }
        }
    }
    done.extend(open.into_values());
    for episode in &mut done {
        // The first of those that tell the most.
        for entry in &episode.entries {
            if telling(entry) > telling(episode.shown) {
                episode.shown = entry;
            }
        }
    }
    done.sort_by(|a, b| {
        let urgency = b.priority().cmp(&a.priority());
        urgency.then(a.start.cmp(&b.start)).then_with(|| a.flag().cmp(b.flag()))
    });
    done
}

/// How much an entry shows: a strip before none, then the more abnormal beats.
fn telling(entry: &FlagEntry) -> (bool, usize) {
    let Some(strip) = &entry.event.strip else { return (false, 0) };
    let abnormal = |class: Option<char>| class.is_some_and(|class| class != 'N');
    (true, strip.beats.iter().filter(|beat| abnormal(beat.class)).count())
}
