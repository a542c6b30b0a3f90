//! Faults in the storage: power cuts, disks that fill up, writes that fail halfway.
//!
//! A disk in memory keeps what was synced and, apart from it, every write since. A cut keeps any subset of
//! those, some of them torn at a sector, in a seeded random way. `HAAR_SPOOL_CUTS` sets how many
//! campaigns are run, `HAAR_SPOOL_SEED` the first seed.

use crate::{Appended, Certainty, NewEntry, NewFrame, OpenError, Quarantined, Settings, Spool};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::{BackendError, Builder, StorageBackend};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Campaigns unless `HAAR_SPOOL_CUTS` says otherwise.
const DEFAULT_CUTS: u64 = 300;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// From this operation on nothing works any more.
    PowerCut,
    /// This write stores its first half, then fails; later ones work.
    ShortWrite,
    /// From this operation on nothing that grows the file or writes works.
    DiskFull,
}

#[derive(Debug)]
struct Disk {
    synced: Vec<u8>,
    /// What the running system sees: `synced` and all of `pending`.
    current: Vec<u8>,
    pending: Vec<Pending>,
    /// Writes, syncs and changes of length so far.
    operations: u64,
    /// The operation at which it fails, and how.
    fault: Option<(u64, Fault)>,
}

#[derive(Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Clone)]
struct FaultyDisk(Arc<Mutex<Disk>>);

impl FaultyDisk {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Disk {
            synced: vec![],
            current: vec![],
            pending: vec![],
            operations: 0,
            fault: None,
        })))
    }

    fn fail_after(&self, operations: u64, fault: Fault) {
        let mut disk = self.0.lock().unwrap();
        disk.fault = Some((disk.operations + operations, fault));
    }

    /// The power is back: of the writes that were not synced any subset is there.
    fn cut(&self, random: &mut impl Rng) {
        let mut disk = self.0.lock().unwrap();
        let mut kept = std::mem::take(&mut disk.synced);
        for pending in std::mem::take(&mut disk.pending) {
            match pending {
                Pending::Length(length) if random.random_bool(0.7) => {
                    kept.resize(length as usize, 0);
                }
                Pending::Write(offset, bytes) if random.random_bool(0.6) => {
                    let torn = random.random_bool(0.3);
                    for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if !torn || random.random_bool(0.5) {
                            write_at(&mut kept, offset as usize + number * SECTOR_BYTES, sector);
                        }
                    }
                }
                _ => {}
            }
        }
        disk.current.clone_from(&kept);
        disk.synced = kept;
        disk.fault = None;
    }

    /// The process is gone, the system is not: nothing is lost.
    fn repair(&self) {
        self.0.lock().unwrap().fault = None;
    }

    fn spool(&self, settings: &Settings) -> Result<Spool, OpenError> {
        let disk = self.clone();
        let opener = move |_: &Settings| Builder::new().create_with_backend(disk.clone());
        Spool::open_with(Path::new("/nonexistent/memory"), Box::new(opener), settings.clone())
    }
}

fn write_at(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Disk {
    /// Counts an operation; what becomes of it.
    fn step(&mut self) -> Result<Option<Fault>, io::Error> {
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if self.operations > at => match fault {
                Fault::PowerCut => Err(io::Error::other("power cut")),
                Fault::DiskFull => Err(io::ErrorKind::StorageFull.into()),
                Fault::ShortWrite => {
                    self.fault = None;
                    Ok(Some(fault))
                }
            },
            _ => Ok(None),
        }
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let disk = self.0.lock().unwrap();
        let from = offset as usize;
        let bytes = disk.current.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        let mut disk = self.0.lock().unwrap();
        disk.step()?;
        disk.current.resize(length as usize, 0);
        disk.pending.push(Pending::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut disk = self.0.lock().unwrap();
        if let Some((at, Fault::DiskFull)) = disk.fault
            && disk.operations >= at
        {
            // A full disk still syncs what it took.
            disk.operations += 1;
        } else {
            disk.step()?;
        }
        disk.synced = disk.current.clone();
        disk.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut disk = self.0.lock().unwrap();
        let short = disk.step()? == Some(Fault::ShortWrite);
        let stored = if short { &data[..data.len() / 2] } else { data };
        write_at(&mut disk.current, offset as usize, stored);
        disk.pending.push(Pending::Write(offset, stored.to_vec()));
        if short { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    fn try_lock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<(), BackendError> {
        Ok(())
    }
}

/// What was appended and acknowledged, kept beside the spool under test.
#[derive(Default)]
struct Witness {
    entries: BTreeMap<u64, Vec<u8>>,
    acknowledged_frames: Vec<NewFrame>,
    /// Up to where forgetting was asked for.
    oldest_seq: u64,
    frame_number: u64,
}

impl Witness {
    fn frames(&mut self, random: &mut impl Rng) -> Vec<NewFrame> {
        let mut frames = Vec::new();
        for _ in 0..random.random_range(1..6) {
            if random.random_bool(0.2) && !self.acknowledged_frames.is_empty() {
                // A broker that has not seen our acknowledgement sends it again.
                let again = random.random_range(0..self.acknowledged_frames.len());
                frames.push(self.acknowledged_frames[again].clone());
                continue;
            }
            self.frame_number += 1;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&self.frame_number.to_le_bytes());
            let size = random.random_range(10..3_000);
            let mut bytes = self.frame_number.to_le_bytes().to_vec();
            bytes.resize(size, 0xa5);
            let key = vec![random.random_range(0..4)];
            let mark = [&bytes[..8], b"mark"].concat();
            let forget = random.random_bool(0.1);
            frames.push(NewFrame {
                frame_id: Some(id),
                entries: vec![NewEntry::mark(key, forget, mark), NewEntry::vital(bytes)],
            });
        }
        frames
    }

    /// The append is acknowledged.
    fn took(&mut self, frames: &[NewFrame], appended: &Appended) {
        let mut seq = appended.first_seq;
        for (frame, duplicate) in frames.iter().zip(&appended.duplicates) {
            if *duplicate {
                continue;
            }
            for entry in &frame.entries {
                self.entries.insert(seq, entry.bytes.clone());
                seq += 1;
            }
            self.acknowledged_frames.push(frame.clone());
        }
        assert_eq!(seq, appended.next_seq);
    }

    /// What was not acknowledged is there: the same frames are recognised.
    fn was_written_all_the_same(&mut self, frames: &[NewFrame], spool: &Spool, seed: u64) {
        let again = spool.append(frames, &[]).unwrap();
        assert!(again.duplicates.iter().all(|duplicate| *duplicate), "seed {seed}");
        let known = |(at, frame): (usize, &NewFrame)| {
            self.acknowledged_frames.contains(frame) || frames[..at].contains(frame)
        };
        let duplicates = frames.iter().enumerate().map(known).collect();
        let (first_seq, next_seq) = (self.next_seq(), spool.next_seq());
        self.took(frames, &Appended { first_seq, next_seq, duplicates, shed_entries: 0 });
    }

    fn next_seq(&self) -> u64 {
        self.entries.last_key_value().map_or(1, |(seq, _)| seq + 1)
    }

    /// Everything acknowledged and not pruned is there, in its place, and nothing else.
    fn check(&self, spool: &Spool, seed: u64) {
        let found = spool.read(spool.oldest_seq(), usize::MAX, usize::MAX).unwrap();
        let expected = self.entries.range(spool.oldest_seq()..);
        let expected: Vec<_> = expected.map(|(seq, bytes)| (*seq, bytes.clone())).collect();
        assert_eq!(found.len(), expected.len(), "seed {seed}");
        assert!(found == expected, "seed {seed}: other entries than were acknowledged");
        assert!(spool.oldest_seq() <= self.oldest_seq.max(1), "seed {seed}: forgot too much");
        let bytes: u64 = spool.stats().bytes;
        assert_eq!(bytes == 0, expected.is_empty(), "seed {seed}");
    }
}

/// One life of a spool with faults; how many faults it met.
fn campaign(seed: u64, fault: Fault) -> u64 {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let disk = FaultyDisk::new();
    let settings = Settings { cache_bytes: 64 << 10, ..Settings::new([9; 16]) };
    let mut spool = disk.spool(&settings).unwrap();
    let mut witness = Witness::default();
    let mut faults = 0;
    let mut pending: Option<Vec<NewFrame>> = None;
    disk.fail_after(random.random_range(0..60), fault);
    for _ in 0..30 {
        let frames = pending.take().unwrap_or_else(|| witness.frames(&mut random));
        let rejected = Quarantined {
            received_us: 1,
            reason: "malformed_payload".to_owned(),
            path: "ward".to_owned(),
            payload: vec![1; 40],
        };
        match spool.append(&frames, std::slice::from_ref(&rejected)) {
            Ok(appended) => {
                witness.took(&frames, &appended);
                if random.random_bool(0.25) {
                    let until = random.random_range(spool.oldest_seq()..=spool.next_seq());
                    witness.oldest_seq = witness.oldest_seq.max(until);
                    if spool.prune(until).is_ok() {
                        continue;
                    }
                } else {
                    continue;
                }
            }
            Err(error) => {
                assert!(error.needs_recover(), "seed {seed}: {error}");
                let unchanged = spool.next_seq();
                pending = Some(frames);
                if error.certainty() == Certainty::NotWritten && fault != Fault::PowerCut {
                    disk.repair();
                    assert_eq!(spool.recover().unwrap(), unchanged, "seed {seed}: {error}");
                }
            }
        }
        // After the fault: the power comes back, or somebody made room.
        faults += 1;
        if fault == Fault::PowerCut {
            drop(spool);
            disk.cut(&mut random);
            spool = disk.spool(&settings).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        } else {
            disk.repair();
            spool.recover().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        if let Some(frames) = pending.take_if(|_| spool.next_seq() > witness.next_seq()) {
            witness.was_written_all_the_same(&frames, &spool, seed);
        }
        witness.check(&spool, seed);
        disk.fail_after(random.random_range(0..60), fault);
    }
    disk.repair();
    spool.recover().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    if pending.is_none() {
        witness.check(&spool, seed);
    }
    faults
}

fn campaigns(fault: Fault) {
    let number = |name: &str, standard| {
        std::env::var(name).map_or(standard, |text| text.parse::<u64>().unwrap())
    };
    let first = number("HAAR_SPOOL_SEED", 0x4841_4152);
    let count = number("HAAR_SPOOL_CUTS", DEFAULT_CUTS).div_ceil(3).max(1);
    let mut faults = 0;
    for seed in first..first + count {
        faults += campaign(seed, fault);
    }
    println!("{fault:?}: {faults} faults in {count} campaigns from seed {first}");
    assert!(faults > count, "the faults must be met");
}

#[test]
fn nothing_acknowledged_is_lost_in_a_power_cut() {
    campaigns(Fault::PowerCut);
}

#[test]
fn nothing_is_lost_or_doubled_when_a_write_fails_halfway() {
    campaigns(Fault::ShortWrite);
}

#[test]
fn nothing_is_lost_or_doubled_when_the_disk_is_full() {
    campaigns(Fault::DiskFull);
}
