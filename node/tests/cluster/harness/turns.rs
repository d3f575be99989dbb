//! Whose turn it is: how many tests run nodes at the same time.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Who has it may run nodes. Several clusters of one test may share it.
pub(crate) type Turn = Arc<Place>;

/// What it takes. Given up in this order, the lock last.
pub(crate) struct Place {
    _places: SemaphorePermit<'static>,
    _alone: Option<fs::File>,
}

/// Tests that run nodes at the same time. Most of the time each waits: for an election, or for a process to start.
const AT_ONCE: u32 = 2;
/// It is fair: who waits for all places is not passed by those who need one.
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE as usize);

/// For a test that runs nodes without a [`Cluster`], or more than one.
pub(crate) async fn turn() -> Turn {
    let place = PLACES.acquire().await.expect("it is never closed");
    Arc::new(Place { _places: place, _alone: None })
}

/// For a test beside which none may run nodes: it fills the machine. Nor does a case
/// on Kubernetes (k8s/test/cases) go meanwhile. It is waited for first, so that other tests' clusters do not wait as well.
pub(crate) async fn turn_alone() -> Turn {
    let lock = tokio::task::spawn_blocking(|| {
        let lock = lock_file();
        lock.lock().unwrap();
        lock
    });
    let lock = Some(lock.await.unwrap());
    let places = PLACES.acquire_many(AT_ONCE).await.expect("it is never closed");
    Arc::new(Place { _places: places, _alone: lock })
}

fn lock_file() -> fs::File {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    fs::create_dir_all(&target).unwrap();
    fs::File::create(target.join("alone.lock")).unwrap()
}

#[tokio::test]
async fn nothing_else_begins_while_a_test_is_alone() {
    let alone = turn_alone().await;
    assert!(lock_file().try_lock().is_err(), "a case on Kubernetes could begin");
    assert_eq!(PLACES.available_permits(), 0, "another test could begin");
    drop(alone);
}
