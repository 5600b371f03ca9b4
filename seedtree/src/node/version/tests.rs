//! Who may enter, and what is counted.

use super::super::function::tests::spec;
use super::*;
use crate::runtime::Runtime;
use std::os::fd::OwnedFd;

fn version() -> Arc<Version> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("app.py"), "").unwrap();
    let spec = spec(Runtime::Python, "app.handler", dir.path());
    let function = spec.function().unwrap();
    let task = Arc::new(OwnedFd::from(std::fs::File::open(dir.path()).unwrap()));
    Arc::new(Version::new(1, spec, function, Code { task, layers: None }))
}

#[tokio::test]
async fn the_queue_has_a_bound_and_a_time() {
    let version = version();
    let first = version.turn(50).await.unwrap();
    let second = tokio::spawn({
        let version = version.clone();
        async move { version.turn(50).await.map(|_| ()) }
    });
    while version.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(version.turn(50).await, Err(NodeError::TooManyRequests { .. })));
    assert!(matches!(second.await.unwrap(), Err(NodeError::WaitedTooLong(50))));
    assert_eq!((version.waiting(), version.running()), (0, 1));
    assert_eq!(version.refused.load(Ordering::Relaxed), 2);
    drop(first);
    assert!(version.turn(50).await.is_ok());
    // Who records the working set may be given up; then the next one does.
    let training = version.begin_training().unwrap();
    assert!(version.begin_training().is_none());
    drop(training);
    version.begin_training().unwrap().done();
    assert!(version.is_trained() && version.begin_training().is_none());
}

#[test]
fn a_retired_version_takes_no_one_in() {
    let version = version();
    let user = version.enter().unwrap();
    version.retire();
    assert!(version.enter().is_none() && version.is_used());
    drop(user);
    assert!(!version.is_used());
}

#[test]
fn one_grows_a_seed() {
    let version = version();
    let growing = version.begin_growing().unwrap();
    assert!(version.begin_growing().is_none() && version.is_growing());
    drop(growing);
    assert!(version.begin_growing().is_some());
}
