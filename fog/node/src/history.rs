//! How devices did: counted where readings are taken, kept beside what they led to, told to the members.
//!
//! A reading is *faulty* if it may not enter a feature ([`haar_schema::Quality::usable`]: implausible, questionable by the device's own
//! word, sensor off), and *late* if its event time lies behind what the edge's mark for its device and subject promised. Both follow
//! from the edge's spool alone. A replay counts nothing twice: only what is not committed yet counts, and the sums are
//! written in the epoch's own transaction.
//!
//! # Format
//! Table `fog.devices`, device id → (readings, faulty, late), each u64, since the database was made; `fog.devices-told` likewise,
//! what of it stands in the members' log. Row `told` of `fog.consortium`: the leaf of that log which told last.
//!
//! # Who is told what
//! Devices whose key the members know ([`crate::consortium::roll`]), under their keys' names; of others nothing leaves the site.
//!
//! # Not guaranteed
//! Devices over [`MAX_DEVICES`] of one edge are not counted. What a device sent to an edge that could not decode it, the edge's
//! quarantine has. Where the members go on under another operator, counts may be missing that only the log before had.

use haar_ledger::governance::{DeviceTally, MAX_DEVICE_TALLIES};
use haar_schema::{DeviceId, Mark, MarkKind, Observation, Subject};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, HashMap};

type Sums = TableDefinition<'static, &'static str, (u64, u64, u64)>;

const DEVICES: Sums = TableDefinition::new("fog.devices");
const TOLD: Sums = TableDefinition::new("fog.devices-told");
/// In `fog.consortium`.
pub(crate) const TOLD_BY: &str = "told";

/// Devices of one edge that are counted.
const MAX_DEVICES: usize = 16_384;
/// Subjects whose marks are remembered for one device.
const MAX_SUBJECTS: usize = 64;

/// Makes the tables.
pub(crate) fn create(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(DEVICES)?;
    tx.open_table(TOLD)?;
    Ok(())
}

/// The devices of one lane.
#[derive(Default)]
pub(crate) struct Counting(HashMap<DeviceId, Device>);

#[derive(Default)]
struct Device {
    /// By subject, before which time readings are late, microseconds.
    promised: Vec<(Subject, i64)>,
    tally: DeviceTally,
}

impl Counting {
    /// Takes a reading that is new.
    pub(crate) fn reading(&mut self, observation: &Observation) {
        let Some(device) = self.device(&observation.device) else { return };
        let promised = device.promised.iter().find(|(subject, _)| *subject == observation.subject);
        let late = promised.is_some_and(|(_, before)| observation.effective.micros() < *before);
        device.tally.readings += 1;
        device.tally.faulty += u64::from(!observation.quality.usable());
        device.tally.late += u64::from(late);
    }

    /// Takes a mark, new or not.
    pub(crate) fn mark(&mut self, mark: &Mark) {
        let Some(device) = self.device(&mark.device) else { return };
        let place = device.promised.iter().position(|(subject, _)| *subject == mark.subject);
        match (mark.kind, place) {
            (MarkKind::Gone, Some(place)) => {
                device.promised.swap_remove(place);
            }
            (MarkKind::Progress(at) | MarkKind::Idle(at), Some(place)) => {
                let promised = &mut device.promised[place].1;
                *promised = at.micros().max(*promised);
            }
            (MarkKind::Progress(at) | MarkKind::Idle(at), None)
                if device.promised.len() < MAX_SUBJECTS =>
            {
                device.promised.push((mark.subject, at.micros()));
            }
            _ => {}
        }
    }

    /// What came since it was last taken. Devices that the edge has forgotten are forgotten here.
    pub(crate) fn take_into(&mut self, sums: &mut BTreeMap<DeviceId, DeviceTally>) {
        for (id, device) in &mut self.0 {
            if device.tally.readings > 0 {
                sums.entry(id.clone()).or_default().add(&std::mem::take(&mut device.tally));
            }
        }
        self.0.retain(|_, device| !device.promised.is_empty());
    }

    fn device(&mut self, id: &DeviceId) -> Option<&mut Device> {
        if !self.0.contains_key(id) {
            if self.0.len() >= MAX_DEVICES {
                return None;
            }
            self.0.insert(id.clone(), Device::default());
        }
        self.0.get_mut(id)
    }
}

/// Adds an epoch's counts, in its transaction.
pub(crate) fn count(
    tx: &WriteTransaction,
    sums: &BTreeMap<DeviceId, DeviceTally>,
) -> Result<(), redb::Error> {
    let mut table = tx.open_table(DEVICES)?;
    for (device, tally) in sums {
        add_row(&mut table, device.as_str(), tally)?;
    }
    Ok(())
}

/// What the members were not told yet, by the names of keys: at most [`MAX_DEVICE_TALLIES`], those with the most readings.
pub(crate) fn untold(
    db: &Database,
    names: &BTreeMap<DeviceId, String>,
) -> Result<BTreeMap<String, DeviceTally>, redb::Error> {
    let tx = db.begin_read()?;
    let (sums, told) = (tx.open_table(DEVICES)?, tx.open_table(TOLD)?);
    let mut untold = Vec::new();
    for (device, name) in names {
        let row = |table: &redb::ReadOnlyTable<&'static str, (u64, u64, u64)>| {
            Ok::<_, redb::Error>(table.get(device.as_str())?.map_or((0, 0, 0), |row| row.value()))
        };
        let (sum, told) = (row(&sums)?, row(&told)?);
        let tally = DeviceTally {
            readings: sum.0.saturating_sub(told.0),
            faulty: sum.1.saturating_sub(told.1),
            late: sum.2.saturating_sub(told.2),
        };
        if tally.readings > 0 {
            untold.push((name.clone(), tally));
        }
    }
    untold.sort_by(|(a, one), (b, other)| other.readings.cmp(&one.readings).then_with(|| a.cmp(b)));
    untold.truncate(MAX_DEVICE_TALLIES);
    Ok(untold.into_iter().collect())
}

/// Notes what leaf `index` of the members' log has told them; durable, so that nothing is told twice. Waits for
/// the committer's transaction to end.
pub(crate) fn told(
    db: &Database,
    index: u64,
    devices: &BTreeMap<String, DeviceTally>,
) -> Result<(), redb::Error> {
    let tx = db.begin_write()?;
    if crate::consortium::envoy::raise(&tx, TOLD_BY, index)? {
        let mut table = tx.open_table(TOLD)?;
        for (name, tally) in devices {
            let device = name.rsplit('/').next().unwrap_or_default();
            add_row(&mut table, device, tally)?;
        }
    }
    tx.commit()?;
    Ok(())
}

fn add_row(
    table: &mut redb::Table<'_, &'static str, (u64, u64, u64)>,
    device: &str,
    tally: &DeviceTally,
) -> Result<(), redb::Error> {
    let (readings, faulty, late) = table.get(device)?.map_or((0, 0, 0), |row| row.value());
    let mut sum = DeviceTally { readings, faulty, late };
    sum.add(tally);
    table.insert(device, (sum.readings, sum.faulty, sum.late))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_schema::{ClockEvidence, Quality, Quantity, SignalId, SignalSet, Timestamp, Value};

    fn observation(device: &str, at_ms: i64, quality: Quality) -> Observation {
        Observation {
            subject: Subject::from_bytes([1; 16]),
            device: device.parse().unwrap(),
            signal: SignalId::HEART_RATE,
            value: Value::Quantity(Quantity::new(70.0).unwrap()),
            effective: Timestamp::from_millis(at_ms),
            ingested: Timestamp::from_millis(at_ms),
            quality,
            clock: ClockEvidence::Device,
        }
    }

    fn mark(device: &str, kind: MarkKind) -> Mark {
        let (device, subject) = (device.parse().unwrap(), Subject::from_bytes([1; 16]));
        Mark { device, subject, signals: SignalSet::EMPTY, kind }
    }

    #[test]
    fn what_is_unusable_is_faulty_and_what_is_behind_the_mark_is_late() {
        let mut counting = Counting::default();
        counting.reading(&observation("a", 5, Quality::GOOD));
        counting.mark(&mark("a", MarkKind::Progress(Timestamp::from_millis(10))));
        counting.reading(&observation("a", 9, Quality::GOOD));
        counting.reading(&observation("a", 10, Quality::IMPLAUSIBLE));
        counting.reading(&observation("a", 11, Quality::CLOCK_CLAMPED));
        // Another device has other marks.
        counting.reading(&observation("b", 1, Quality::GOOD));
        let mut sums = BTreeMap::new();
        counting.take_into(&mut sums);
        let expected = [
            ("a", DeviceTally { readings: 4, faulty: 1, late: 1 }),
            ("b", DeviceTally { readings: 1, faulty: 0, late: 0 }),
        ];
        assert_eq!(sums, expected.map(|(id, tally)| (id.parse().unwrap(), tally)).into());
        // The mark stands; what was taken is not taken again.
        counting.reading(&observation("a", 9, Quality::GOOD));
        let mut sums = BTreeMap::new();
        counting.take_into(&mut sums);
        assert_eq!(sums[&"a".parse().unwrap()], DeviceTally { readings: 1, faulty: 0, late: 1 });
        counting.mark(&mark("a", MarkKind::Gone));
        counting.take_into(&mut sums);
        assert!(counting.0.is_empty());
    }

    #[test]
    fn what_one_leaf_has_told_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::create(dir.path().join("db")).unwrap();
        let tx = db.begin_write().unwrap();
        create(&tx).unwrap();
        crate::consortium::envoy::create(&tx).unwrap();
        let tally = |readings| DeviceTally { readings, faulty: 1, late: 0 };
        let ids: Vec<DeviceId> = (0..300).map(|n| format!("d{n}").parse().unwrap()).collect();
        let sums = ids.iter().zip(1..).map(|(id, readings)| (id.clone(), tally(readings)));
        count(&tx, &sums.collect()).unwrap();
        tx.commit().unwrap();
        let names: BTreeMap<_, _> =
            ids.iter().map(|id| (id.clone(), format!("h.example/{id}"))).collect();
        // No key, no word.
        assert!(untold(&db, &BTreeMap::new()).unwrap().is_empty());
        let first = untold(&db, &names).unwrap();
        assert_eq!(first.len(), MAX_DEVICE_TALLIES);
        assert_eq!(first["h.example/d299"], tally(300));
        told(&db, 7, &first).unwrap();
        // Found again after an answer was lost.
        told(&db, 7, &first).unwrap();
        let rest = untold(&db, &names).unwrap();
        assert_eq!(rest.len(), 300 - MAX_DEVICE_TALLIES);
        assert_eq!(rest["h.example/d0"], tally(1));
        told(&db, 8, &rest).unwrap();
        assert!(untold(&db, &names).unwrap().is_empty());
    }
}
