//! Two nodes of one log over a store that fails in every way it may: seeded, and the seed is printed.
//!
//! A swap may be refused, be carried out without an answer, not be carried out without an answer, or be
//! carried out later, when the node that asked for it has gone on. Reads fail too.

use super::{SequenceError, Sequenced, Sequencer, Tiles};
use crate::fixtures::{Dice, memory};
use crate::store::{CheckpointStore, RedbStore, Staged, StoreError, SwapError};
use haar_identity::Identity;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Seeds that are tried.
const CAMPAIGNS: u64 = 60;
const STEPS: u64 = 60;

/// A swap that the network holds back.
struct Late {
    old: String,
    note: String,
    old_size: u64,
    batch: Vec<u8>,
}

#[derive(Clone)]
struct FaultyStore {
    inner: Arc<RedbStore>,
    dice: Arc<Mutex<Dice>>,
    late: Arc<Mutex<Vec<Late>>>,
    /// Of a hundred calls, how many fail.
    faults_percent: u64,
}

impl FaultyStore {
    fn roll(&self) -> u64 {
        let mut dice = self.dice.lock().unwrap();
        if dice.below(100) < self.faults_percent { dice.below(4) + 1 } else { 0 }
    }

    /// Lets what was held back through.
    async fn deliver(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        for Late { old, note, old_size, batch } in late {
            let staged = Staged { note: &note, old_size, batch: &batch };
            let _ = self.inner.compare_and_swap(&old, staged).await;
        }
    }
}

impl CheckpointStore for FaultyStore {
    async fn fetch(&self) -> Result<Option<String>, StoreError> {
        match self.roll() {
            1 => Err(StoreError("no answer".to_owned())),
            _ => self.inner.fetch().await,
        }
    }

    async fn create(&self, first: Staged<'_>) -> Result<(), SwapError> {
        self.inner.create(first).await
    }

    async fn compare_and_swap(&self, old: &str, new: Staged<'_>) -> Result<(), SwapError> {
        if self.dice.lock().unwrap().below(2) == 0 {
            self.deliver().await;
        }
        let unknown = || SwapError::Unknown(StoreError("no answer".to_owned()));
        match self.roll() {
            0 => self.inner.compare_and_swap(old, new).await,
            1 => Err(SwapError::Failed(StoreError("no connection".to_owned()))),
            2 => Err(unknown()),
            3 => {
                let _ = self.inner.compare_and_swap(old, new).await;
                Err(unknown())
            }
            _ => {
                let Staged { note, old_size, batch } = new;
                let (old, note, batch) = (old.to_owned(), note.to_owned(), batch.to_vec());
                self.late.lock().unwrap().push(Late { old, note, old_size, batch });
                Err(unknown())
            }
        }
    }

    async fn staged(&self, old_size: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self.roll() {
            1 => Err(StoreError("no answer".to_owned())),
            _ => self.inner.staged(old_size).await,
        }
    }

    async fn applied(&self, node: &str, size: u64) -> Result<(), StoreError> {
        self.inner.applied(node, size).await
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn max_batch_bytes(&self) -> usize {
        self.inner.max_batch_bytes()
    }
}

/// A node, and what its caller believes to be in the log.
struct Node {
    sequencer: Sequencer<FaultyStore>,
    known: Vec<Vec<u8>>,
}

impl Node {
    async fn open(store: FaultyStore, name: &str) -> Self {
        let log = Identity::generate("consortium.example/log", [1; 32]).unwrap();
        let tiles = Tiles::open(memory(), log.vkey().clone()).unwrap();
        let sequencer = Sequencer::open(store, tiles, log, name, b"genesis").await.unwrap();
        let known = sequencer.tiles().entries(0).unwrap();
        Self { sequencer, known }
    }

    /// Appends as the operator does; what it was told.
    async fn append(&mut self, entries: &[Vec<u8>]) -> Option<Sequenced> {
        for _ in 0..8 {
            let new: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
            match self.sequencer.append(&new).await {
                Ok(sequenced) => {
                    assert_eq!(sequenced.first_index, self.known.len() as u64);
                    self.known.extend_from_slice(entries);
                    return Some(sequenced);
                }
                Err(SequenceError::Behind) => {
                    self.catch_up().await;
                    if self.known.contains(&entries[0]) {
                        return None;
                    }
                }
                Err(SequenceError::Store(_) | SequenceError::Unknown(_)) => return None,
                Err(error) => panic!("{error}"),
            }
        }
        None
    }

    async fn catch_up(&mut self) {
        match self.sequencer.catch_up().await {
            Ok(new) => {
                for (index, entry) in new {
                    assert_eq!(index, self.known.len() as u64, "each entry once, in order");
                    self.known.push(entry);
                }
            }
            Err(SequenceError::Store(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// One life of a log of two nodes; how many appends had no certain answer.
async fn campaign(seed: u64) -> u64 {
    let inner = Arc::new(RedbStore::open(memory()).unwrap());
    let store = |salt, faults_percent| FaultyStore {
        inner: Arc::clone(&inner),
        dice: Arc::new(Mutex::new(Dice(seed * 4 + salt))),
        late: Arc::default(),
        faults_percent,
    };
    // Both are known before anything is forgotten.
    inner.applied("node-1", 0).await.unwrap();
    inner.applied("node-2", 0).await.unwrap();
    let mut nodes =
        [Node::open(store(0, 0), "node-1").await, Node::open(store(1, 0), "node-2").await];
    let faulty = [store(0, 40), store(1, 40)];
    for (node, store) in nodes.iter_mut().zip(faulty.clone()) {
        *node.sequencer.store_mut() = store;
    }
    let mut dice = Dice(seed * 4 + 2);
    let mut signed: BTreeMap<u64, String> = BTreeMap::new();
    let (mut unanswered, mut acknowledged) = (0, Vec::new());
    for step in 0..STEPS {
        let node = &mut nodes[dice.below(2) as usize];
        let entries: Vec<_> =
            (0..1 + dice.below(3)).map(|n| format!("{step}/{n}").into_bytes()).collect();
        match node.append(&entries).await {
            Some(Sequenced { first_index, checkpoint }) => {
                acknowledged.extend((first_index..).zip(entries));
                let note = checkpoint.note().to_owned();
                let other = signed.insert(checkpoint.size(), note.clone());
                assert!(other.is_none_or(|other| other == note), "seed {seed}: two roots");
            }
            None => unanswered += 1,
        }
    }
    for (node, store) in nodes.iter_mut().zip(faulty) {
        store.deliver().await;
        *node.sequencer.store_mut() = FaultyStore { faults_percent: 0, ..store };
    }
    for _ in 0..2 {
        for node in &mut nodes {
            node.append(&[b"last".to_vec()]).await;
        }
    }
    for node in &mut nodes {
        node.catch_up().await;
        let all = node.sequencer.tiles().entries(0).unwrap();
        assert!(all == node.known, "seed {seed}: the caller knows another log than the node has");
        for (index, entry) in &acknowledged {
            assert_eq!(&all[*index as usize], entry, "seed {seed}: lost");
        }
        for (size, note) in &signed {
            let root = crate::checkpoint::Head::parse(note.as_bytes()).unwrap().root;
            assert_eq!(node.sequencer.tiles().root_at(*size).unwrap(), root, "seed {seed}: a fork");
        }
    }
    assert_eq!(nodes[0].sequencer.checkpoint(), nodes[1].sequencer.checkpoint());
    unanswered
}

#[tokio::test]
async fn nothing_is_lost_or_forked_by_a_store_that_fails_in_any_way() {
    let mut unanswered = 0;
    for seed in 0..CAMPAIGNS {
        unanswered += campaign(seed).await;
    }
    println!("{unanswered} appends without an answer in {CAMPAIGNS} campaigns");
    assert!(unanswered > CAMPAIGNS, "the faults must be met");
}
