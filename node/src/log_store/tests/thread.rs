//! The store as Raft has it: on a real disk, with its threads.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::{command, flushed, vote};
use crate::log_store::{Error, LogStore, Options};
use crate::raft::codec::log_id;

/// What waits for the log gives up after this.
const DEADLINE: Duration = Duration::from_secs(20);

fn open(dir: &Path) -> LogStore {
    LogStore::open(dir, Options { segment_bytes: 64 * 1024, ..Options::default() }).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await.expect("the log answers in time") })
}

async fn append(store: &mut LogStore, term: u64, indexes: std::ops::Range<u64>) {
    let (flushed, done) = flushed();
    let entries = indexes.map(|index| command(term, index, 300));
    store.append(entries, flushed).await.unwrap();
    done.await.unwrap().unwrap();
}

#[test]
fn reopening_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut store = open(dir.path());
        store.save_vote(&vote(4)).await.unwrap();
        append(&mut store, 1, 0..1000).await;
        store.truncate_after(Some(log_id(1, 799))).await.unwrap();
        append(&mut store, 2, 800..900).await;
        store.save_committed(Some(log_id(2, 850))).await.unwrap();
        store.purge(log_id(1, 99)).await.unwrap();
        drop(store);
        let mut store = open(dir.path());
        let mut reader = store.get_log_reader().await;
        assert_eq!(reader.read_vote().await.unwrap(), Some(vote(4)));
        assert_eq!(store.read_committed().await.unwrap(), Some(log_id(2, 850)));
        let state = store.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 99)), Some(log_id(2, 899))));
        let entries = reader.try_get_log_entries(0..2000).await.unwrap();
        let term = |index| if index < 800 { 1 } else { 2 };
        assert!(entries.into_iter().eq((100..900).map(|index| command(term(index), index, 300))));
    });
}

#[test]
fn segments_are_recycled_after_a_purge() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut store = open(dir.path());
        for round in 0..40 {
            append(&mut store, 1, round * 100..round * 100 + 100).await;
            store.purge(log_id(1, round * 100 + 50)).await.unwrap();
        }
        let handle = store.handle();
        assert!(handle.metrics().segments_recycled.load(Ordering::Relaxed) > 5);
        drop(store);
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert!(files < 12, "{files} files");
        assert_eq!(open(dir.path()).handle().range(), 3951..4000);
    });
}

#[test]
fn flushed_follows_the_log() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut store = open(dir.path());
        let handle = store.handle();
        let waiter = {
            let handle = handle.clone();
            std::thread::spawn(move || handle.wait_flushed_blocking(log_id(1, 7)))
        };
        append(&mut store, 1, 0..10).await;
        waiter.join().unwrap().unwrap();
        handle.wait_flushed(log_id(1, 9)).await.unwrap();
        store.truncate_after(Some(log_id(1, 4))).await.unwrap();
        assert_eq!(handle.flushed(), Some(log_id(1, 4)));
        assert_eq!(handle.status().borrow().flushed, Some(log_id(1, 4)));
    });
}

#[test]
fn a_directory_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(LogStore::open(dir.path(), Options::default()), Err(Error::Locked { .. })));
    drop(store);
    open(dir.path());
}

#[test]
fn many_appends_in_flight_are_all_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut store = open(dir.path());
        let mut waiting = Vec::new();
        for index in 0..5000 {
            let (flushed, done) = flushed();
            store.append([command(1, index, 200)], flushed).await.unwrap();
            waiting.push(done);
        }
        for done in waiting {
            done.await.unwrap().unwrap();
        }
        let syncs = store.handle().metrics().syncs.count();
        assert!(syncs < 2500, "{syncs} syncs for 5000 appends");
        assert_eq!(store.get_log_reader().await.try_get_log_entries(0..9999).await.unwrap().len(), 5000);
    });
}

#[test]
fn a_closed_log_answers_with_errors() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut store = open(dir.path());
        store.shared.queue.close();
        assert!(store.save_vote(&vote(1)).await.is_err());
        let (flushed, done) = flushed();
        assert!(store.append([command(1, 0, 1)], flushed).await.is_err());
        assert!(done.await.unwrap().is_err());
        let handle = store.handle();
        drop(store);
        assert!(matches!(handle.wait_flushed(log_id(1, 7)).await, Err(Error::Closed)));
        assert!(matches!(handle.wait_flushed_blocking(log_id(1, 7)), Err(Error::Closed)));
    });
}
