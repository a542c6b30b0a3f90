//! What every engine must do, asked of both; and a real etcd to ask.

use super::*;
use crate::fixtures::memory;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an etcd may take to start, on a machine that does other things too.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// An etcd process of ours, ended when dropped.
pub(crate) struct Etcd {
    child: Child,
}

impl Etcd {
    /// A cluster of one, and its URL.
    pub(crate) fn single(dir: &Path) -> (Self, String) {
        let (client, peer) = (
            format!("http://127.0.0.1:{}", free_port()),
            format!("http://127.0.0.1:{}", free_port()),
        );
        let child = Command::new("etcd")
            .args(["--name", "one", "--log-level", "error", "--logger", "zap"])
            .arg("--data-dir")
            .arg(dir.join("one"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is needed for this test: apt-get install etcd-server");
        (Self { child }, client)
    }

    /// The process that was started.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until the store answers.
pub(crate) async fn answers(store: &impl CheckpointStore) {
    let start = Instant::now();
    while let Err(error) = store.fetch().await {
        assert!(start.elapsed() < START_TIMEOUT, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn staged<'a>(note: &'a str, old_size: u64, batch: &'a [u8]) -> Staged<'a> {
    Staged { note, old_size, batch }
}

/// What every engine must do. `handle` opens the same store once more, as another node does.
async fn behaves<S: CheckpointStore>(handle: impl Fn() -> S) {
    let store = handle();
    assert_eq!(store.fetch().await.unwrap(), None);
    assert_eq!(store.staged(0).await.unwrap(), None);
    let early = store.compare_and_swap("none", staged("a", 0, b"0")).await;
    assert!(matches!(early, Err(SwapError::Lost)), "there is nothing to swap: {early:?}");
    assert_eq!(store.fetch().await.unwrap(), None);

    store.create(staged("first\n", 0, b"\0\x01x")).await.unwrap();
    let again = handle().create(staged("other\n", 0, b"\0\x01y")).await;
    assert!(matches!(again, Err(SwapError::Lost)), "{again:?}");
    assert_eq!(handle().fetch().await.unwrap().unwrap(), "first\n");
    assert_eq!(handle().staged(0).await.unwrap().unwrap(), b"\0\x01x");

    // Nothing of a swap that is lost is written. A prefix of the note is not the note.
    for wrong in ["", "first", "first\n\n", "other\n"] {
        let lost = store.compare_and_swap(wrong, staged("second\n", 1, b"lost")).await;
        assert!(matches!(lost, Err(SwapError::Lost)), "{wrong:?}: {lost:?}");
    }
    assert_eq!(store.fetch().await.unwrap().unwrap(), "first\n");
    assert_eq!(store.staged(1).await.unwrap(), None);

    store.compare_and_swap("first\n", staged("second — ü\n", 1, &[0, 255, 10])).await.unwrap();
    assert_eq!(handle().fetch().await.unwrap().unwrap(), "second — ü\n");
    assert_eq!(handle().staged(1).await.unwrap().unwrap(), [0, 255, 10]);
    let repeated =
        store.compare_and_swap("first\n", staged("second — ü\n", 1, &[0, 255, 10])).await;
    assert!(matches!(repeated, Err(SwapError::Lost)), "{repeated:?}");
}

/// The longest batch is taken and given back; a longer one is refused, and nothing is written.
async fn takes_batches_up_to_its_limit<S: CheckpointStore>(store: S) {
    let mut batch = vec![0xa5; store.max_batch_bytes()];
    store.create(staged("first", 0, b"0")).await.unwrap();
    store.compare_and_swap("first", staged("long", 1, &batch)).await.unwrap();
    assert!(store.staged(1).await.unwrap().unwrap() == batch);
    batch.push(0);
    let longer = store.compare_and_swap("long", staged("longer", 2, &batch)).await;
    assert!(matches!(longer, Err(SwapError::Failed(_))), "a certain failure");
    assert_eq!(store.fetch().await.unwrap().unwrap(), "long");
    assert_eq!(store.staged(2).await.unwrap(), None);
}

/// Of many swaps of one checkpoint exactly one is taken, and its own batch is beside it.
async fn lets_one_of_many_win<S: CheckpointStore>(handle: impl Fn() -> S) {
    handle().create(staged("0", 0, b"0")).await.unwrap();
    for round in 0..8_u64 {
        let old = handle().fetch().await.unwrap().unwrap();
        let mut swaps = tokio::task::JoinSet::new();
        for node in 0..8 {
            let (store, old) = (handle(), old.clone());
            swaps.spawn(async move {
                let note = format!("{round} by {node}");
                let taken =
                    store.compare_and_swap(&old, staged(&note, round + 1, note.as_bytes())).await;
                match taken {
                    Ok(()) => Some(note),
                    Err(SwapError::Lost) => None,
                    Err(error) => panic!("{error}"),
                }
            });
        }
        let winners: Vec<String> = swaps.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(handle().fetch().await.unwrap().unwrap(), winners[0]);
        assert_eq!(handle().staged(round + 1).await.unwrap().unwrap(), winners[0].as_bytes());
    }
}

/// A batch is kept while a node that is known has not applied it, and not for ever.
async fn keeps_what_a_node_needs<S: CheckpointStore>(handle: impl Fn() -> S) {
    let (slow, fast) = (handle(), handle());
    slow.applied("slow", 0).await.unwrap();
    fast.create(staged("0", 0, b"0")).await.unwrap();
    let mut size = 0;
    let mut grow = async |count: u64| {
        for _ in 0..count {
            let (old, new) = (size.to_string(), (size + 1).to_string());
            fast.compare_and_swap(&old, staged(&new, size, &[1])).await.unwrap();
            size += 1;
            fast.applied("fast", size).await.unwrap();
        }
        size
    };
    let size = grow(KEPT_STAGED as u64 + 40).await;
    for old_size in 0..size {
        assert!(slow.staged(old_size).await.unwrap().is_some(), "{old_size}");
    }
    // A node says how far it is only now and then.
    for _ in 0..40 {
        slow.applied("slow", size).await.unwrap();
        fast.applied("fast", size).await.unwrap();
    }
    assert_eq!(slow.staged(0).await.unwrap(), None);
    assert_eq!(fast.fetch().await.unwrap().unwrap(), size.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redb_behaves() {
    let open = || {
        let db = memory();
        move || RedbStore::open(Arc::clone(&db)).unwrap()
    };
    behaves(open()).await;
    takes_batches_up_to_its_limit(open()()).await;
    lets_one_of_many_win(open()).await;
    keeps_what_a_node_needs(open()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_behaves() {
    let dir = tempfile::tempdir().unwrap();
    let (mut etcd, url) = Etcd::single(dir.path());
    // The first endpoint does not answer: the next one is asked.
    let endpoints = [format!("http://127.0.0.1:{}", free_port()), url];
    let open = |origin: &'static str| {
        let endpoints = endpoints.clone();
        move || EtcdStore::new(&endpoints, origin).unwrap()
    };
    answers(&open("a.example")()).await;
    behaves(open("a.example")).await;
    takes_batches_up_to_its_limit(open("b.example")()).await;
    lets_one_of_many_win(open("c.example")).await;
    keeps_what_a_node_needs(open("d.example")).await;
    assert_eq!(open("e.example")().fetch().await.unwrap(), None, "logs are apart");

    etcd.kill();
    let store = open("b.example")();
    assert!(store.fetch().await.is_err());
    let swap = store.compare_and_swap("long", staged("more", 2, b"")).await;
    assert!(matches!(swap, Err(SwapError::Failed(_))), "no connection is certain: {swap:?}");
}

#[tokio::test]
async fn an_etcd_that_does_not_answer_leaves_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let (etcd, url) = Etcd::single(dir.path());
    let store = EtcdStore::new(&[url], "a.example").unwrap();
    answers(&store).await;
    store.create(staged("0", 0, b"0")).await.unwrap();
    let signal = |signal| {
        let process = nix::unistd::Pid::from_raw(etcd.id() as i32);
        nix::sys::signal::kill(process, signal).unwrap();
    };
    signal(nix::sys::signal::Signal::SIGSTOP);
    let swap = store.compare_and_swap("0", staged("1", 1, b"1")).await;
    assert!(matches!(swap, Err(SwapError::Unknown(_))), "{swap:?}");
    signal(nix::sys::signal::Signal::SIGCONT);
    // Whatever became of the first try: one of the same swap is in it afterwards.
    let again = store.compare_and_swap("0", staged("1", 1, b"1")).await;
    assert!(matches!(again, Ok(()) | Err(SwapError::Lost)), "{again:?}");
    assert_eq!(store.fetch().await.unwrap().unwrap(), "1");
}
