//! Growing seeds where it is hard: imports that hang or fail, no seed at all, and a budget that is too small for everything.

mod support;

#[path = "support/node.rs"]
mod node_support;

use node_support::*;
use rustix::process::Signal;
use seedtree::node::Node;
use seedtree::node::error::NodeError;
use seedtree::node::instance::Nowhere;
use seedtree::runtime::Runtime;
use serde_json::json;
use std::time::Duration;

const HANGS: &str = "import time\ntime.sleep(600)\ndef handler(event, context): return event\n";

/// Begins to grow the seed of a function whose import hangs.
async fn grow_for_long(node: &Node, name: &str, code: &std::path::Path) {
    node.grow_language(Runtime::Python).await.unwrap();
    let before = sandboxes_of(node);
    node.deploy_lazily(spec(name, code)).unwrap();
    let (grower, name) = (node.clone(), name.to_owned());
    tokio::spawn(async move { grower.grow(&name).await });
    until("its import is at work", || sandboxes_of(node) > before).await;
}

#[test]
fn seeds_that_functions_share_do_not_wait_for_an_import_that_hangs() {
    let (hangs, echo) = (python(HANGS), python(ECHO));
    with_node(|node| async move {
        grow_for_long(&node, "hangs", hangs.path()).await;
        node.deploy_lazily(spec("f", echo.path())).unwrap();
        let language = node.seeds().into_iter().find(|s| s.level == 1).unwrap();
        signal(language.pid(), Signal::KILL);
        until("it is known to be gone", || language.is_gone()).await;
        until("it is there again", || node.seeds().iter().any(|s| s.level == 1)).await;
        assert!(node.function("hangs").unwrap().is_growing(), "nothing hangs");
        assert_eq!(call(&node, "f", &json!(1)).await.unwrap().level, 1);
        assert_eq!(node.regrown(), [0, 1, 0]);
        // Its growth ends with the version.
        node.remove("hangs").unwrap();
        node.grow("f").await.unwrap();
        assert_eq!(call(&node, "f", &json!(2)).await.unwrap().level, 2);
    });
}

#[test]
fn an_import_that_hangs_is_ended_and_those_that_wait_have_their_turns() {
    let (hangs, echo) = (python(HANGS), python(ECHO));
    with_config(
        |config| config.grow_timeout_ms = 4_000,
        |node| async move {
            grow_for_long(&node, "hangs", hangs.path()).await;
            let waiting: Vec<_> = ["a", "b"]
                .map(|name| {
                    let (node, spec) = (node.clone(), spec(name, echo.path()));
                    tokio::spawn(async move { node.deploy(spec, &mut Nowhere).await })
                })
                .into();
            for deploy in waiting {
                let deployed = tokio::time::timeout(Duration::from_secs(60), deploy).await;
                deployed.expect("it waits for ever").unwrap().unwrap();
            }
            let reason = node.function("hangs").unwrap().failure().unwrap();
            assert!(reason.contains("timed out after 4000 ms"), "{reason}");
        },
    );
}

#[test]
fn a_seed_that_cannot_be_grown_is_not_tried_at_every_request() {
    let code = python("raise ValueError('not today')\n");
    with_node(|node| async move {
        node.grow_language(Runtime::Python).await.unwrap();
        node.deploy_lazily(spec("f", code.path())).unwrap();
        let version = node.function("f").unwrap();
        let before = node.forks();
        for _ in 0..40 {
            let served = call(&node, "f", &json!(1)).await.unwrap();
            assert_eq!(served.level, 1, "the level above serves");
            until("no attempt is under way", || !version.is_growing()).await;
        }
        let attempts = node.forks() - before - 40;
        assert!((1..=10).contains(&attempts), "{attempts} attempts at 40 requests");
        assert!(version.failure().unwrap().contains("the handler does not import"), "{version:?}");
        // It is tried again when the pause is over.
        std::fs::write(code.path().join("app.py"), ECHO).unwrap();
        for _ in 0..600 {
            if version.seed().is_some() {
                break;
            }
            let _ = call(&node, "f", &json!(1)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(version.seed().is_some() && version.failure().is_none());
    });
}

/// Kills the OS seed, and waits until that is known.
async fn lose_the_os(node: &Node) {
    let os = node.seeds().into_iter().next().unwrap();
    signal(os.pid(), Signal::KILL);
    while !os.is_gone() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_request_that_no_seed_can_serve_waits_for_one() {
    let code = python(ECHO);
    with_node(|node| async move {
        node.deploy_lazily(spec("f", code.path())).unwrap();
        lose_the_os(&node).await;
        let served = call(&node, "f", &json!(1)).await.unwrap();
        assert_eq!((result(&served), served.level), (json!(1), 0));
    });
}

#[test]
fn a_request_that_no_seed_will_serve_is_told_why() {
    let code = python(ECHO);
    let dir = tempfile::tempdir().unwrap();
    let exe = dir.path().join("coppice");
    let there = exe.clone();
    with_config(
        move |config| {
            std::os::unix::fs::symlink(&config.exe, &there).unwrap();
            config.exe = there;
        },
        |node| async move {
            node.deploy_lazily(spec("f", code.path())).unwrap();
            let target = std::fs::read_link(&exe).unwrap();
            std::fs::remove_file(&exe).unwrap();
            lose_the_os(&node).await;
            let error = call(&node, "f", &json!(1)).await.unwrap_err();
            assert!(matches!(error, NodeError::NoSeed { .. }), "{error:?}");
            assert!(error.to_string().contains("No such file"), "{error}");
            std::os::unix::fs::symlink(target, &exe).unwrap();
            until("it is there again", || node.seeds().iter().any(|s| s.level == 0)).await;
            assert_eq!(result(&call(&node, "f", &json!(1)).await.unwrap()), json!(1));
        },
    );
}

/// Each seed holds twenty megabytes; the import is what a request without one waits for.
const LARGE: &str = "import time\ntime.sleep(0.3)\nkept = bytes(b'x' * 4096 * 5000)\ndef handler(event, context): return event\n";

async fn held(node: &Node) -> u64 {
    node.memory().await.total.pss_kib * 1024
}

#[test]
fn a_budget_holds_while_seeds_grow_and_seeds_do_not_drive_out_one_another() {
    let code = python(LARGE);
    let path = code.path();
    let deploy = async |node: &Node, name: &str| node.deploy(spec(name, path), &mut Nowhere).await.unwrap();
    let mut two = 0;
    with_node(|node| {
        let two = &mut two;
        async move {
            deploy(&node, "a").await;
            deploy(&node, "b").await;
            *two = held(&node).await;
        }
    });
    let budget = two + (10 << 20);
    with_config(
        |config| config.budget = Some(budget),
        |node| async move {
            for (name, requests) in [("a", 20), ("b", 5)] {
                deploy(&node, name).await;
                for n in 0..requests {
                    assert_eq!(call(&node, name, &json!(n)).await.unwrap().level, 2);
                }
            }
            node.deploy_lazily(spec("c", path)).unwrap();
            let [a, b, c] = ["a", "b", "c"].map(|name| node.function(name).unwrap());
            for n in 0..2 {
                assert_eq!(call(&node, "c", &json!(n)).await.unwrap().level, 1);
            }
            assert!(c.seed().is_none() && !c.is_growing(), "it is not worth more than the others");
            // Until it is worth more than b, and has been grown.
            for n in 0..80 {
                if c.seed().is_none() {
                    call(&node, "c", &json!(n)).await.unwrap();
                }
            }
            assert!(c.seed().is_some(), "{:?} {:?}", node.worth(&b), node.worth(&c));
            assert!(held(&node).await <= budget, "{} of {budget}", held(&node).await);
            assert!(a.seed().is_some() && b.seed().is_none());
            assert_eq!(node.reclaimed(), 1);
            // What was dropped does not come back until it is worth clearly more.
            for n in 0..5 {
                assert_eq!(call(&node, "b", &json!(n)).await.unwrap().level, 1);
                assert_eq!(call(&node, "c", &json!(n)).await.unwrap().level, 2);
            }
            assert!(b.seed().is_none() && !b.is_growing() && node.regrown() == [0, 0, 0]);
            // A deploy has its seed, and the budget holds then too.
            deploy(&node, "d").await;
            assert!(held(&node).await <= budget, "{} of {budget}", held(&node).await);
            node.reclaim(budget).await;
            assert_eq!(node.seeds().iter().filter(|s| s.level == 2).count(), 2);
        },
    );
}

#[test]
fn a_seed_that_never_fits_the_budget_drives_nobody_out() {
    let (small, code) = (python(LARGE), python(&LARGE.replace("5000", "50000")));
    with_config(
        |config| config.budget = Some(150 << 20),
        |node| async move {
            for name in ["a", "b"] {
                node.deploy(spec(name, small.path()), &mut Nowhere).await.unwrap();
            }
            node.deploy(spec("large", code.path()), &mut Nowhere).await.unwrap();
            let version = node.function("large").unwrap();
            assert!(version.seed().is_none(), "a seed of 200 MiB in a budget of 150");
            assert!(version.failure().unwrap().contains("memory budget"), "{version:?}");
            // Asked for by name it is refused, at once from the second time on: its size is known.
            for _ in 0..2 {
                let forks = node.forks();
                let error = node.grow("large").await.unwrap_err();
                assert!(matches!(error, NodeError::OverBudget { .. }), "{error:?}");
                assert_eq!(node.forks(), forks, "it was grown to be refused");
            }
            for n in 0..3 {
                assert_eq!(call(&node, "large", &json!(n)).await.unwrap().level, 1);
            }
            assert!(["a", "b"].iter().all(|name| node.function(name).unwrap().seed().is_some()));
            assert_eq!(node.reclaimed(), 0);
            assert!(!node.has_room(&version));
        },
    );
}
