//! Seeds and instances are stopped and killed under load: every request gets its own answer or a typed error, what was lost is grown again,
//! and no process is left.

mod support;

#[path = "support/node.rs"]
mod node_support;

use node_support::*;
use rustix::process::Signal;
use seedtree::node::Node;
use seedtree::node::function::FunctionSpec;
use seedtree::node::instance::Nowhere;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One test at a time: they count the children of this process.
static ALONE: Mutex<()> = Mutex::new(());

/// Nothing but living seeds is left.
async fn settled(node: &Node, levels: &[u8]) {
    let present = || node.seeds().iter().map(|s| s.level).collect::<Vec<_>>();
    until("the seeds are there", || present() == levels).await;
    until("there is nothing but seeds", || sandboxes_of(node) == levels.len()).await;
    until("all that ended is reaped", || unreaped() == 0).await;
    assert!(node.instances().is_empty() && node.requests() == 0);
}

#[test]
fn a_stopped_seed_holds_nobody_for_ever() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let code = python(ECHO);
    with_config(
        |config| config.fork_timeout_ms = 700,
        |node| async move {
            node.deploy(spec("f", code.path()), &mut Nowhere).await.unwrap();
            let seed = node.function("f").unwrap().seed().unwrap();
            signal(seed.pid(), Signal::STOP);
            drop(seed);
            // More than its socket takes, one of them longer than the socket's buffer.
            let calls: Vec<_> = (0..8)
                .map(|n| spawn_call(&node, "f", json!([n, "x".repeat(if n == 3 { 4 << 20 } else { 9 })])))
                .collect();
            let mut failed = 0;
            for (n, call) in calls.into_iter().enumerate() {
                match call.await.unwrap() {
                    Ok(answer) => assert_eq!(answer[0], json!(n)),
                    Err(error) => {
                        assert_eq!(error.code(), "Sandbox.Failure", "{error:?}");
                        failed += 1;
                    }
                }
            }
            assert!(failed > 0, "the stopped seed served");
            assert_eq!(result(&call(&node, "f", &json!(1)).await.unwrap()), json!(1));
            settled(&node, &[0, 1, 2]).await;
            assert_eq!(call(&node, "f", &json!(2)).await.unwrap().level, 2);
        },
    );
}

/// Requests from several clients while `disturb` runs; how many were answered, and how many failed.
async fn under_load<F: Future<Output = ()>>(node: &Node, names: &[&str], disturb: F) -> (usize, usize) {
    let over = Arc::new(AtomicBool::new(false));
    let (answered, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients = (0..6usize).map(|client| {
        let (node, over, name) = (node.clone(), over.clone(), names[client % names.len()].to_owned());
        let (answered, failed) = (answered.clone(), failed.clone());
        tokio::spawn(async move {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let event = json!({"client": client, "n": n});
                match call(&node, &name, &event).await {
                    Ok(served) => {
                        assert_eq!(result(&served), event, "another's answer");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        // Where no seed was alive, nothing was run.
                        assert!(["Sandbox.Failure", "Node.NoSeed"].contains(&error.code()), "{error:?}");
                        failed.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    disturb.await;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    (answered.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
}

#[test]
fn a_seed_of_any_level_may_be_killed_under_load() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let code = python(ECHO);
    with_config(
        // Orphans are looked for this long after their seed's death.
        |config| config.fork_timeout_ms = 3_000,
        |node| async move {
            let warm = Some(b"1".to_vec());
            node.deploy(spec("fork", code.path()), &mut Nowhere).await.unwrap();
            node.deploy(FunctionSpec { spares: 1, warm, ..spec("spare", code.path()) }, &mut Nowhere)
                .await
                .unwrap();
            node.deploy(FunctionSpec { keep_alive: 2, ..spec("keep", code.path()) }, &mut Nowhere)
                .await
                .unwrap();
            for kill in [&[2][..], &[1], &[0], &[0, 1, 2]] {
                let disturb = async {
                    for _ in 0..3 {
                        let victims: Vec<_> =
                            node.seeds().into_iter().filter(|s| kill.contains(&s.level)).collect();
                        assert!(!victims.is_empty());
                        for victim in &victims {
                            signal(victim.pid(), Signal::KILL);
                        }
                        drop(victims);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        // All five, with the load that asks for those of the functions.
                        until("the seeds are grown again", || node.seeds().len() == 5).await;
                    }
                };
                let (answered, failed) = under_load(&node, &["fork", "spare", "keep"], disturb).await;
                eprintln!("killed {kill:?}: {answered} answered, {failed} failed");
                assert!(answered > 0);
            }
            for name in ["spare", "keep"] {
                node.remove(name).unwrap();
            }
            settled(&node, &[0, 1, 2]).await;
        },
    );
}

#[test]
fn instances_may_be_killed_under_load() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let code = python(ECHO);
    with_config(
        |config| config.fork_timeout_ms = 3_000,
        |node| async move {
            let warm = Some(b"1".to_vec());
            node.deploy(
                FunctionSpec { spares: 2, warm: warm.clone(), ..spec("spare", code.path()) },
                &mut Nowhere,
            )
            .await
            .unwrap();
            node.deploy(FunctionSpec { keep_alive: 2, ..spec("keep", code.path()) }, &mut Nowhere)
                .await
                .unwrap();
            let disturb = async {
                let mut killed = 0;
                while killed < 40 {
                    for instance in node.instances().values() {
                        // The list is a moment old: it may have ended, and be reaped.
                        let pid = rustix::process::Pid::from_raw(instance.pid).unwrap();
                        killed += usize::from(rustix::process::kill_process(pid, Signal::KILL).is_ok());
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let (answered, failed) = under_load(&node, &["spare", "keep"], disturb).await;
            eprintln!("{answered} answered, {failed} failed");
            assert!(answered > 0 && failed > 0);
            for name in ["spare", "keep"] {
                assert_eq!(result(&call(&node, name, &json!(name)).await.unwrap()), json!(name));
                node.remove(name).unwrap();
            }
            settled(&node, &[0, 1]).await;
        },
    );
}
