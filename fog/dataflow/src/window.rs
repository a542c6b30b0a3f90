//! Event-time windows over one worker's share of the subjects: the state machine, without timely.
//!
//! A window is `[end − size, end)` with `end` a multiple of the slide (tumbling: slide = size).
//! Readings go into *panes*, one slide wide, so that a reading is added once however many windows it
//! is in; a window that fires merges its panes.
//!
//! # Time
//! Each (lane, subject) has its own watermark: the lowest promise among its devices that are not idle
//! and send a signal of this pipeline. It is moved by [`Body::Mark`] items only, which stand in the
//! lane's own sequence, so the output is a function of the lane: no clock, and no dependence on how
//! the lane was cut into batches and epochs or on other lanes.
//! - A window fires at the first mark that takes the watermark to its end, if anything is in it.
//! - A reading behind the watermark but within the allowed lateness re-fires its windows, with the
//!   next revision, at the next mark. What comes later still is dropped and counted.
//! - When every device is idle, all windows with the latest of their promises fire and are final at once,
//!   and what lies beyond these windows (the last samples of a run) is let go: a patient who left must not
//!   hold the spool's tail.
//!
//! # Replay
//! Fed again from [`Windows::holds`] of a lane, after a [`Body::Base`] for the last mark of each device
//! and subject before that place, a machine without state fires the same from the point of the holds on,
//! to the bit and with the same revisions. Firings carry the number of the mark that caused them; whoever
//! commits drops those it has already. Why it holds:
//! - The watermark is nearly always what the last marks alone give, and base marks give the same, in
//!   whatever order they come.
//! - A watermark does not go back. So one device that joins or wakes with a lower promise than the
//!   watermark, or a subject that wakes within windows that are final, leaves it *ahead* of what the last
//!   marks give until they catch up. While that lasts, the mark that began it is held.
//! - A pane holds its first reading, or, if it was opened while the watermark was ahead, the mark that
//!   began that. It is kept until the last of its windows is final: so nothing is missing of a window
//!   that can still fire, and it fires at the same marks.
//!
//! Not for subjects with more than [`MAX_SOURCES_PER_SUBJECT`] devices, nor when the last device that
//! was active is forgotten before it is idle (an edge with too many devices): whoever commits must be
//! able to drop a window it has.

use crate::item::{Body, Item, Lane, Reading, SourceMark};
use haar_schema::{
    EdgeId, Fingerprint, InputsDigest, MarkKind, SignalId, SignalSet, Subject, Timestamp,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

pub use windowing::Windowing;

#[cfg(test)]
mod tests;
mod windowing;

/// The most devices that are followed for one subject; the marks of further ones are not waited for.
pub const MAX_SOURCES_PER_SUBJECT: usize = 64;

/// The most panes that one signal of one subject keeps. A reading further ahead is dropped and
/// counted: it would take a device clock that outran the edge's clamping.
pub const MAX_PANES_PER_SERIES: usize = 8_192;

/// The most readings that one pane takes. More in one slide is a device that runs wild.
pub const MAX_READINGS_PER_PANE: usize = 65_536;

/// What panes gather of the readings of one signal.
pub trait Aggregate: Default + Clone {
    /// What a reading brings.
    type Payload;
    /// Takes one reading.
    fn add(&mut self, at_us: i64, payload: Self::Payload);
    /// Takes all that a later pane of the same signal gathered.
    fn merge(&mut self, later: &Self);
}

/// A window that fired.
#[derive(Clone, Debug)]
pub struct Fired<A> {
    /// Its lane.
    pub lane: Lane,
    /// The edge whose lane it is.
    pub edge: EdgeId,
    /// The sequence number of the mark that fired it.
    pub seq: u64,
    /// Whom it is about.
    pub subject: Subject,
    /// First microsecond in it.
    pub start: Timestamp,
    /// First microsecond behind it.
    pub end: Timestamp,
    /// 0, or how often late readings have corrected it.
    pub revision: u32,
    /// What was gathered, by signal, in the signals' order; none is empty.
    pub series: SmallVec<[(SignalId, A); 5]>,
    /// What went in.
    pub inputs: InputsDigest,
    /// When the edge received the latest of it, microseconds.
    pub ingested_us: i64,
}

/// What became of readings that were not simply added.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Readings added to a pane.
    pub added: u64,
    /// Of these, readings that came late and correct a window that had fired.
    pub late: u64,
    /// Readings that came too late for every window.
    pub dropped_late: u64,
    /// Readings too far ahead, over [`MAX_PANES_PER_SERIES`].
    pub dropped_ahead: u64,
    /// Readings over [`MAX_READINGS_PER_PANE`].
    pub dropped_excess: u64,
    /// Marks of devices over [`MAX_SOURCES_PER_SUBJECT`].
    pub sources_refused: u64,
}

/// All windows of one pipeline on one worker.
pub struct Windows<A> {
    windowing: Windowing,
    signals: SignalSet,
    edges: BTreeMap<Lane, EdgeId>,
    subjects: FxHashMap<(Lane, Subject), SubjectWindows<A>>,
    counts: Counts,
}

struct SubjectWindows<A> {
    sources: SmallVec<[Source; 2]>,
    watermark_us: i64,
    /// Windows that end here or before never fire again, lateness or not.
    final_us: i64,
    /// The mark since which these two are ahead of what the last marks alone give.
    ahead_since: Option<u64>,
    series: SmallVec<[Series<A>; 5]>,
    /// Windows that fired and may yet be corrected: end, revision, whether a correction is due.
    correctable: VecDeque<Correctable>,
}

/// A device's last mark.
struct Source {
    device: u64,
    promised_us: i64,
    idle: bool,
}

struct Series<A> {
    signal: SignalId,
    panes: VecDeque<Pane<A>>,
    /// The room of a pane that was let go, for the next one.
    spare: Vec<Fingerprint>,
}

struct Pane<A> {
    index: i64,
    /// From where a replay must begin to fill it again.
    hold: u64,
    ingested_us: i64,
    aggregate: A,
    fingerprints: Vec<Fingerprint>,
    /// Of the fingerprints, once sorted; none after a further reading.
    digest: Option<[u8; 32]>,
}

struct Correctable {
    end_us: i64,
    revision: u32,
    due: bool,
}

impl<A: Aggregate> Windows<A> {
    /// Without state, for the readings of these signals; other readings are passed over.
    pub fn new(windowing: Windowing, signals: SignalSet) -> Self {
        Self {
            windowing,
            signals,
            edges: BTreeMap::new(),
            subjects: FxHashMap::default(),
            counts: Counts::default(),
        }
    }

    /// Takes the next item of its lane and hands on the windows that it fires, in order of their ends.
    #[inline]
    pub fn push(&mut self, item: Item<A::Payload>, fire: &mut impl FnMut(Fired<A>)) {
        match item.body {
            Body::Reading(reading) => {
                if self.signals.contains(reading.signal) {
                    self.read(item.lane, item.seq, reading);
                }
            }
            Body::Mark(mark) => {
                if self.signals.intersects(mark.signals) {
                    self.mark(item.lane, item.seq, &mark, fire);
                }
            }
            Body::Base(mark) => {
                if self.signals.intersects(mark.signals) {
                    self.base(item.lane, &mark);
                }
            }
            Body::Open { edge, .. } => {
                self.edges.insert(item.lane, edge);
            }
            Body::Close { .. } => {
                self.edges.remove(&item.lane);
                self.subjects.retain(|(lane, _), _| *lane != item.lane);
            }
        }
    }

    /// For each lane that has any, the lowest sequence number that a replay must begin with, see above.
    pub fn holds(&self) -> BTreeMap<Lane, u64> {
        let mut holds = BTreeMap::new();
        for ((lane, _), subject) in &self.subjects {
            let panes = subject.series.iter().flat_map(|series| &series.panes);
            if let Some(first) = panes.map(|pane| pane.hold).chain(subject.ahead_since).min() {
                let hold = holds.entry(*lane).or_insert(first);
                *hold = first.min(*hold);
            }
        }
        holds
    }

    /// What became of the readings since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    #[inline]
    fn read(&mut self, lane: Lane, seq: u64, reading: Reading<A::Payload>) {
        let spec = self.windowing;
        let subject = self.subjects.entry((lane, reading.subject)).or_default();
        let pane = spec.pane_of(reading.at_us);
        let last_end = spec.last_end(pane);
        if last_end <= subject.final_us
            || last_end.saturating_add(spec.lateness_us) <= subject.watermark_us
        {
            self.counts.dropped_late += 1;
            return;
        }
        if spec.first_end(pane) <= subject.watermark_us {
            self.counts.late += u64::from(subject.correct(spec, pane));
        }
        let hold = subject.ahead_since.unwrap_or(seq);
        let Some(pane) = subject.series(reading.signal).pane(pane, hold) else {
            self.counts.dropped_ahead += 1;
            return;
        };
        if pane.fingerprints.len() == MAX_READINGS_PER_PANE {
            self.counts.dropped_excess += 1;
            return;
        }
        pane.ingested_us = pane.ingested_us.max(reading.ingested_us);
        pane.digest = None;
        pane.fingerprints.push(reading.fingerprint);
        pane.aggregate.add(reading.at_us, reading.payload);
        self.counts.added += 1;
    }

    fn mark(&mut self, lane: Lane, seq: u64, mark: &SourceMark, fire: &mut impl FnMut(Fired<A>)) {
        // A lane that was not opened, or is closed, has nothing to fire.
        let Some(edge) = self.edges.get(&lane) else { return };
        let key = (lane, mark.subject);
        let subject = self.subjects.entry(key).or_default();
        if !subject.note(mark) {
            self.counts.sources_refused += 1;
        }
        let spec = self.windowing;
        let origin = Origin { lane, edge, seq, subject: mark.subject };
        match subject.promise() {
            Some(Promise::Progress(watermark_us)) => {
                subject.advance(spec, watermark_us, origin, fire);
                subject.compare(spec, watermark_us, seq);
            }
            Some(Promise::AllIdle(latest_us)) => {
                let end_us = spec.last_end(spec.pane_of(latest_us));
                subject.advance(spec, end_us, origin, fire);
                subject.finish(end_us);
            }
            None => {
                subject.advance(spec, i64::MAX, origin, fire);
                self.subjects.remove(&key);
            }
        }
    }

    /// Takes one of the marks that were in force where the lane begins.
    fn base(&mut self, lane: Lane, mark: &SourceMark) {
        let subject = self.subjects.entry((lane, mark.subject)).or_default();
        if !subject.note(mark) {
            self.counts.sources_refused += 1;
        }
        // Set and not raised: the order of base marks says nothing.
        match subject.promise() {
            Some(Promise::Progress(watermark_us)) => {
                (subject.watermark_us, subject.final_us) = (watermark_us, i64::MIN);
            }
            Some(Promise::AllIdle(latest_us)) => {
                let spec = self.windowing;
                subject.finish(spec.last_end(spec.pane_of(latest_us)));
            }
            None => {}
        }
    }
}

/// Where a firing comes from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    lane: Lane,
    edge: &'a EdgeId,
    seq: u64,
    subject: Subject,
}

enum Promise {
    Progress(i64),
    AllIdle(i64),
}

impl<A> Default for SubjectWindows<A> {
    fn default() -> Self {
        Self {
            sources: SmallVec::new(),
            watermark_us: i64::MIN,
            final_us: i64::MIN,
            ahead_since: None,
            series: SmallVec::new(),
            correctable: VecDeque::new(),
        }
    }
}

impl<A: Aggregate> SubjectWindows<A> {
    /// Writes down what a device promised; `false` if there are too many devices to follow it.
    fn note(&mut self, mark: &SourceMark) -> bool {
        let (time, idle) = match mark.kind {
            MarkKind::Progress(time) => (time, false),
            MarkKind::Idle(time) => (time, true),
            MarkKind::Gone => {
                self.sources.retain(|source| source.device != mark.device);
                return true;
            }
        };
        let source = Source { device: mark.device, promised_us: time.micros(), idle };
        if let Some(known) = self.sources.iter_mut().find(|known| known.device == mark.device) {
            *known = source;
            return true;
        }
        let room = self.sources.len() < MAX_SOURCES_PER_SUBJECT;
        if room {
            self.sources.push(source);
        }
        room
    }

    fn promise(&self) -> Option<Promise> {
        let times = |idle| {
            let sources = self.sources.iter().filter(move |source| source.idle == idle);
            sources.map(|source| source.promised_us)
        };
        match times(false).min() {
            Some(lowest) => Some(Promise::Progress(lowest)),
            None => times(true).max().map(Promise::AllIdle),
        }
    }

    fn series(&mut self, signal: SignalId) -> &mut Series<A> {
        // In the signals' order, so that digests need no sorting. A handful: scanning is fastest.
        let at = self.series.iter().position(|series| series.signal >= signal);
        match at {
            Some(at) if self.series[at].signal == signal => &mut self.series[at],
            at => {
                let at = at.unwrap_or(self.series.len());
                self.series.insert(at, Series::new(signal));
                &mut self.series[at]
            }
        }
    }

    /// Marks the windows with this pane that have fired as due for correction, and those that ended
    /// without a reading as due to fire; `false` if all that have ended are final.
    fn correct(&mut self, spec: Windowing, pane: i64) -> bool {
        let mut any = false;
        let mut end_us = spec.first_end(pane);
        while end_us <= spec.last_end(pane) && end_us <= self.watermark_us {
            let open = end_us > self.final_us
                && end_us.saturating_add(spec.lateness_us) > self.watermark_us;
            if open {
                any = true;
                match self.correctable.binary_search_by_key(&end_us, |window| window.end_us) {
                    Ok(at) => self.correctable[at].due = true,
                    Err(at) => {
                        // It ended empty. Its first result counts as revision 0, one up from here.
                        let window = Correctable { end_us, revision: u32::MAX, due: true };
                        self.correctable.insert(at, window);
                    }
                }
            }
            end_us += spec.slide_us;
        }
        any
    }

    fn advance(
        &mut self,
        spec: Windowing,
        watermark_us: i64,
        origin: Origin<'_>,
        fire: &mut impl FnMut(Fired<A>),
    ) {
        let before_us = self.watermark_us;
        self.watermark_us = before_us.max(watermark_us);
        for at in 0..self.correctable.len() {
            if std::mem::take(&mut self.correctable[at].due) {
                self.correctable[at].revision = self.correctable[at].revision.wrapping_add(1);
                let Correctable { end_us, revision, .. } = self.correctable[at];
                self.fire(spec, end_us, revision, origin, fire);
            }
        }
        // The common case of a mark that passes no border ends here.
        if spec.pane_of(self.watermark_us) <= spec.pane_of(before_us) {
            return;
        }
        if let Some((first_end, last_end)) = self.ends(spec, before_us) {
            let mut end_us = first_end;
            while end_us <= last_end {
                if self.fire(spec, end_us, 0, origin, fire) && spec.lateness_us > 0 {
                    self.correctable.push_back(Correctable { end_us, revision: 0, due: false });
                }
                end_us += spec.slide_us;
            }
        }
        self.evict(spec);
    }

    /// The ends after `before_us` and up to the watermark of windows that may have a pane.
    fn ends(&self, spec: Windowing, before_us: i64) -> Option<(i64, i64)> {
        let fronts = self.series.iter().filter_map(|series| series.panes.front());
        let backs = self.series.iter().filter_map(|series| series.panes.back());
        let first = fronts.map(|pane| pane.index).min()?;
        let last = backs.map(|pane| pane.index).max()?;
        let after = spec.pane_of(before_us).saturating_add(1).saturating_mul(spec.slide_us);
        let reached = spec.pane_of(self.watermark_us).saturating_mul(spec.slide_us);
        Some((after.max(spec.first_end(first)), reached.min(spec.last_end(last))))
    }

    /// Fires the window that ends at `end_us`; `false` if nothing is in it.
    fn fire(
        &mut self,
        spec: Windowing,
        end_us: i64,
        revision: u32,
        origin: Origin<'_>,
        fire: &mut impl FnMut(Fired<A>),
    ) -> bool {
        let behind = end_us / spec.slide_us;
        let panes = behind - spec.panes()..behind;
        let mut merged: SmallVec<[(SignalId, A); 5]> = SmallVec::new();
        let mut observations = 0;
        let mut ingested_us = i64::MIN;
        let mut digests: SmallVec<[(SignalId, [u8; 32]); 40]> = SmallVec::new();
        for series in &mut self.series {
            let mut whole: Option<A> = None;
            let signal = series.signal;
            for pane in series.within(panes.clone()) {
                match &mut whole {
                    None => whole = Some(pane.aggregate.clone()),
                    Some(whole) => whole.merge(&pane.aggregate),
                }
                observations += pane.fingerprints.len() as u64;
                ingested_us = ingested_us.max(pane.ingested_us);
                digests.push((signal, pane.digest()));
            }
            if let Some(whole) = whole {
                merged.push((signal, whole));
            }
        }
        if merged.is_empty() {
            return false;
        }
        fire(Fired {
            lane: origin.lane,
            edge: origin.edge.clone(),
            seq: origin.seq,
            subject: origin.subject,
            start: Timestamp::from_micros(end_us - spec.size_us),
            end: Timestamp::from_micros(end_us),
            revision,
            series: merged,
            inputs: InputsDigest::of_window(observations, digests.into_iter()),
            ingested_us,
        });
        true
    }

    /// Lets go of panes and fired windows that no late reading can change any more.
    fn evict(&mut self, spec: Windowing) {
        let watermark_us = self.watermark_us;
        let done = |end_us: i64| end_us.saturating_add(spec.lateness_us) <= watermark_us;
        for series in &mut self.series {
            while series.panes.front().is_some_and(|pane| done(spec.last_end(pane.index))) {
                if let Some(pane) = series.panes.pop_front() {
                    series.spare = pane.fingerprints;
                }
            }
        }
        while self.correctable.front().is_some_and(|window| done(window.end_us)) {
            self.correctable.pop_front();
        }
    }

    /// Finds out whether the watermark, or what is final, is ahead of what the last marks alone give.
    fn compare(&mut self, spec: Windowing, promised_us: i64, seq: u64) {
        let level = self.watermark_us == promised_us
            && self.final_us.saturating_add(spec.lateness_us) <= self.watermark_us;
        self.ahead_since = if level { None } else { self.ahead_since.or(Some(seq)) };
    }

    /// All windows that end here or before have fired and are final; of later ones nothing is kept.
    fn finish(&mut self, end_us: i64) {
        self.watermark_us = end_us;
        self.final_us = end_us;
        self.ahead_since = None;
        self.correctable.clear();
        self.series.clear();
    }
}

impl<A: Aggregate> Series<A> {
    fn new(signal: SignalId) -> Self {
        Self { signal, panes: VecDeque::new(), spare: Vec::new() }
    }

    #[inline]
    fn pane(&mut self, index: i64, hold: u64) -> Option<&mut Pane<A>> {
        // Nearly always the newest pane or the one before it.
        let mut at = self.panes.len();
        while at > 0 && self.panes[at - 1].index > index {
            at -= 1;
        }
        if at > 0 && self.panes[at - 1].index == index {
            return self.panes.get_mut(at - 1);
        }
        if self.panes.len() >= MAX_PANES_PER_SERIES {
            return None;
        }
        let mut fingerprints = std::mem::take(&mut self.spare);
        fingerprints.clear();
        let pane = Pane {
            index,
            hold,
            ingested_us: i64::MIN,
            aggregate: A::default(),
            fingerprints,
            digest: None,
        };
        self.panes.insert(at, pane);
        self.panes.get_mut(at)
    }

    fn within(&mut self, panes: std::ops::Range<i64>) -> impl Iterator<Item = &mut Pane<A>> {
        self.panes
            .iter_mut()
            .skip_while(move |pane| pane.index < panes.start)
            .take_while(move |pane| pane.index < panes.end)
    }
}

impl<A> Pane<A> {
    fn digest(&mut self) -> [u8; 32] {
        *self.digest.get_or_insert_with(|| {
            self.fingerprints.sort_unstable();
            InputsDigest::of_pane(&self.fingerprints)
        })
    }
}
