use super::*;
use crate::channel::Channel;
use crate::handle::sleeper;
use crate::proto::receive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A seed whose end of the channel is the test's.
fn seed(level: u8) -> (Seed, Channel) {
    let (ours, theirs) = Channel::pair().unwrap();
    (Seed::from_fork(level, format!("level {level}"), sleeper(), Fork { channel: ours }), theirs)
}

fn function() -> Function {
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("app.py"), "").unwrap();
    crate::node::function::tests::spec(Runtime::Python, "app.handler", code.path()).function().unwrap()
}

/// A request to a tree whose function seed dies after it has read the fork request, or before. What it came to, the forks that the language
/// seed was asked for, and whether the function seed is known to be gone.
fn request_to_a_dying_seed(reads: bool) -> (Result<Pending, TreeError>, usize, bool) {
    let (dying, theirs) = seed(2);
    let (parent, parents) = seed(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let function = function();
    let mut tree = Tree {
        config: Config {
            exe: "/proc/self/exe".into(),
            rootfs: "/".into(),
            log: std::fs::File::open("/dev/null").unwrap().into(),
            env: Vec::new(),
            prefill: false,
        },
        root: std::fs::File::open("/").unwrap().into(),
        ending: Vec::new(),
        spares: Spares::default(),
        function: Some((function.clone(), dying)),
        language: Some((Runtime::Python, parent)),
        os: None,
        forks: 0,
        trained: true,
    };
    let count = asked.clone();
    let parents = std::thread::spawn(move || {
        while receive::<Request>(&parents).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
            // There is no child to tell of.
            send(&parents, &Event::Failed(Failure::Stuck), &[]).unwrap();
        }
    });
    let dies = std::thread::spawn(move || {
        assert!(crate::handle::readable(&theirs, 10_000));
        if reads {
            receive::<Request>(&theirs).unwrap();
        }
    });
    let result = tree.start(&function, b"1", false);
    dies.join().unwrap();
    let gone = tree.function.is_none();
    drop(tree);
    parents.join().unwrap();
    (result, asked.load(Ordering::SeqCst), gone)
}

#[test]
fn a_request_that_may_have_begun_is_not_run_again() {
    let (result, asked, gone) = request_to_a_dying_seed(true);
    assert!(matches!(result, Err(TreeError::MayHaveRun { level: 2, .. })), "{result:?}");
    assert_eq!((asked, gone), (0, true));
}

#[test]
fn a_request_that_was_not_read_goes_to_the_level_above() {
    let (result, asked, gone) = request_to_a_dying_seed(false);
    assert!(matches!(result, Err(TreeError::Sandbox { .. })), "{result:?}");
    assert_eq!((asked, gone), (1, true));
}
