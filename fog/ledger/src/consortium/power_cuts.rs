//! Power cuts, torn writes and full disks under a log of one node.
//!
//! A disk in memory keeps what was synced and, apart from it, every write since. A cut keeps any subset of
//! those, some of them torn at a sector, in a seeded random way. `HAAR_LEDGER_CUTS` sets how many cuts are
//! made, `HAAR_LEDGER_SEED` the first seed.

use super::{SequenceError, Sequencer, Tiles};
use crate::fixtures::Dice;
use crate::store::{RedbStore, StoreError};
use haar_identity::Identity;
use redb::{BackendError, Builder, StorageBackend};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Faults of each kind unless `HAAR_LEDGER_CUTS` says otherwise.
const DEFAULT_CUTS: u64 = 5_000;
/// Faults in the life of one log, before the next one begins.
const FAULTS_OF_A_LIFE: u64 = 10;

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
enum Unsynced {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Default)]
struct Disk {
    synced: Vec<u8>,
    /// What the running system sees: `synced` and all of `unsynced`.
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
    operations: u64,
    /// The operation at which it fails, and how.
    fault: Option<(u64, Fault)>,
}

#[derive(Debug, Clone, Default)]
struct FaultyDisk(Arc<Mutex<Disk>>);

impl FaultyDisk {
    fn fail_after(&self, operations: u64, fault: Fault) {
        let mut disk = self.0.lock().unwrap();
        disk.fault = Some((disk.operations + operations, fault));
    }

    /// The power is back: of the writes that were not synced any subset is there.
    fn cut(&self, dice: &mut Dice) {
        let mut disk = self.0.lock().unwrap();
        let mut kept = std::mem::take(&mut disk.synced);
        for unsynced in std::mem::take(&mut disk.unsynced) {
            match unsynced {
                Unsynced::Length(length) if dice.below(10) < 7 => kept.resize(length, 0),
                Unsynced::Write(offset, bytes) if dice.below(10) < 6 => {
                    let torn = dice.below(10) < 3;
                    for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if !torn || dice.below(2) == 0 {
                            write_at(&mut kept, offset + number * SECTOR_BYTES, sector);
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

    async fn open(&self) -> Result<Sequencer<RedbStore>, SequenceError> {
        let failed = |error: redb::Error| SequenceError::Store(StoreError(error.to_string()));
        let db = Builder::new().create_with_backend(self.clone());
        let db = Arc::new(db.map_err(|error| failed(error.into()))?);
        let log = Identity::generate("consortium.example/log", [1; 32]).unwrap();
        let tiles = Tiles::open(db.clone(), log.vkey().clone())?;
        Sequencer::open(RedbStore::open(db)?, tiles, log, "node-1", b"genesis").await
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
        let bytes = disk.current.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        let mut disk = self.0.lock().unwrap();
        disk.step()?;
        disk.current.resize(length as usize, 0);
        disk.unsynced.push(Unsynced::Length(length as usize));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut disk = self.0.lock().unwrap();
        match disk.fault {
            // A full disk still syncs what it took.
            Some((_, Fault::DiskFull)) => disk.operations += 1,
            _ => drop(disk.step()?),
        }
        // Writes since the last sync, in their order, are what is synced now.
        let Disk { synced, unsynced, .. } = &mut *disk;
        for unsynced in unsynced.drain(..) {
            match unsynced {
                Unsynced::Length(length) => synced.resize(length, 0),
                Unsynced::Write(offset, bytes) => write_at(synced, offset, &bytes),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut disk = self.0.lock().unwrap();
        let short = disk.step()? == Some(Fault::ShortWrite);
        let stored = if short { &data[..data.len() / 2] } else { data };
        write_at(&mut disk.current, offset as usize, stored);
        disk.unsynced.push(Unsynced::Write(offset as usize, stored.to_vec()));
        if short { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

/// The life of one log with faults; how many it met.
async fn life(seed: u64, fault: Fault) -> u64 {
    let mut dice = Dice(seed);
    let disk = FaultyDisk::default();
    let mut own = disk.open().await.unwrap();
    let (mut expected, mut signed) = (vec![b"genesis".to_vec()], Vec::new());
    let (mut number, mut faults) = (0_u64, 0);
    disk.fail_after(dice.below(60), fault);
    while faults < FAULTS_OF_A_LIFE {
        let new: Vec<Vec<u8>> = (0..1 + dice.below(40))
            .map(|_| {
                number += 1;
                [&number.to_be_bytes()[..], &vec![0xa5; dice.below(200) as usize]].concat()
            })
            .collect();
        let slices: Vec<&[u8]> = new.iter().map(Vec::as_slice).collect();
        let failed = match own.append(&slices).await {
            Ok(sequenced) => {
                assert_eq!(sequenced.first_index, expected.len() as u64, "seed {seed}");
                expected.extend(new.clone());
                signed.push(sequenced.checkpoint);
                None
            }
            Err(error) => Some(error),
        };
        let Some(error) = failed else {
            // A fault that met a write which may be lost is over and was not seen.
            if disk.0.lock().unwrap().fault.is_none() {
                disk.fail_after(dice.below(60), fault);
            }
            continue;
        };
        faults += 1;
        drop(own);
        match fault {
            Fault::PowerCut => disk.cut(&mut dice),
            _ => disk.repair(),
        }
        own = disk.open().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let found = own.tiles().entries(0).unwrap();
        assert!(found.len() >= expected.len(), "seed {seed}: acknowledged entries are lost");
        if found.len() > expected.len() {
            let certain = matches!(error, SequenceError::Store(_));
            assert!(!certain, "seed {seed}: it said that nothing was written: {error}");
            expected.extend(new);
        }
        assert!(found == expected, "seed {seed}: other entries than were appended");
        disk.fail_after(dice.below(60), fault);
    }
    disk.repair();
    for checkpoint in signed {
        let root = own.tiles().root_at(checkpoint.size());
        assert_eq!(
            root.unwrap(),
            checkpoint.root(),
            "seed {seed}: a checkpoint was signed that no longer holds"
        );
    }
    faults
}

async fn lives(fault: Fault) {
    let number = |name: &str, standard| {
        std::env::var(name).map_or(standard, |text| text.parse::<u64>().unwrap())
    };
    let first = number("HAAR_LEDGER_SEED", 0x4841_4152);
    let count = number("HAAR_LEDGER_CUTS", DEFAULT_CUTS);
    let (mut seed, mut faults) = (first, 0);
    while faults < count {
        faults += life(seed, fault).await;
        seed += 1;
    }
    println!("{fault:?}: {faults} faults in {} lives from seed {first}", seed - first);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_in_a_power_cut() {
    lives(Fault::PowerCut).await;
}

#[tokio::test]
async fn nothing_is_lost_when_a_write_fails_halfway() {
    lives(Fault::ShortWrite).await;
}

#[tokio::test]
async fn nothing_is_lost_when_the_disk_is_full() {
    lives(Fault::DiskFull).await;
}
