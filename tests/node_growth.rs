//! Seeds that are grown, multiplied, and reclaimed.

mod support;

#[path = "support/node.rs"]
mod node_support;

use node_support::*;
use rustix::process::{Pid, getpriority_process};
use seedtree::node::error::NodeError;
use seedtree::node::function::FunctionSpec;
use seedtree::node::instance::Nowhere;
use seedtree::reclaim::{Candidate, Policy};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use support::left::marked;

fn nice(pid: i32) -> i32 {
    getpriority_process(Pid::from_raw(pid)).unwrap()
}

#[test]
fn a_seed_grows_slowly_and_its_children_run_as_fast_as_others() {
    let code = python("import time\ntime.sleep(1)\ndef handler(event, context): time.sleep(event)\n");
    with_node(|node| async move {
        let normal = getpriority_process(None).unwrap();
        node.grow_language(seedtree::runtime::Runtime::Python).await.unwrap();
        let before = marked(&node.config().mark[0].1);
        let warm = Some(b"0".to_vec());
        let function = FunctionSpec { spares: 1, warm, ..spec("f", code.path()) };
        let deploy = tokio::spawn({
            let (node, function) = (node.clone(), function.clone());
            async move { node.deploy(function, &mut Nowhere).await.unwrap() }
        });
        let mark = node.config().mark[0].1.clone();
        let growing = || marked(&mark).into_iter().find(|pid| !before.contains(pid));
        until("a seed grows", || growing().is_some()).await;
        let pid = growing().unwrap();
        if getpriority_process(None).unwrap() < 10 && rustix::process::geteuid().is_root() {
            until("it grows slowly", || nice(pid) == normal + 10).await;
        }
        deploy.await.unwrap();
        let version = node.function("f").unwrap();
        until("a spare", || version.spares() == 1).await;
        let (spare, fork) = (spawn_call(&node, "f", json!(0.5)), spawn_call(&node, "f", json!(0.5)));
        until("both are at work", || version.running() == 2).await;
        for pid in marked(&mark) {
            assert_eq!(nice(pid), normal, "a sandbox is slower than it should be");
        }
        spare.await.unwrap().unwrap();
        fork.await.unwrap().unwrap();
    });
}

#[test]
fn a_hot_function_gets_further_seeds_and_loses_them_again() {
    let code = python(ECHO);
    with_config(
        |config| (config.replicas, config.replica_idle_ms) = (2, 400),
        |node| async move {
            let warm = Some(b"1".to_vec());
            let function = FunctionSpec { concurrency: 64, queue: 64, warm, ..spec("f", code.path()) };
            node.deploy(function, &mut Nowhere).await.unwrap();
            let version = node.function("f").unwrap();
            let clients: Vec<_> = (0..48)
                .map(|client| {
                    let (node, version) = (node.clone(), version.clone());
                    tokio::spawn(async move {
                        for n in 0..200 {
                            let served = call(&node, "f", &json!([client, n])).await.unwrap();
                            assert_eq!((result(&served), served.level), (json!([client, n]), 2));
                            if version.seeds().len() == 3 {
                                break;
                            }
                        }
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
            let seeds = version.seeds();
            assert_eq!(seeds.len(), 3);
            // One dies: the others go on, on the same level.
            signal(seeds[0].pid(), rustix::process::Signal::KILL);
            drop(seeds);
            until("it is known to be gone", || version.seeds().len() == 2).await;
            for n in 0..4 {
                let served = call(&node, "f", &json!(n)).await.unwrap();
                assert_eq!((result(&served), served.level), (json!(n), 2));
            }
            until("one is enough", || version.seeds().len() == 1).await;
            until("the others are gone", || sandboxes_of(&node) == 3).await;
            assert_eq!(call(&node, "f", &json!(9)).await.unwrap().level, 2);
        },
    );
}

/// Drops the functions that are asked for least; a function without a seed gets one only when it is asked for often.
#[derive(Debug)]
struct Rare;

impl Policy for Rare {
    fn name(&self) -> &'static str {
        "rare"
    }

    fn worth(&self, seed: &Candidate) -> f64 {
        seed.rate
    }

    fn wants(&self, rate: f64) -> bool {
        // With a half-life of 60 s each request counts 0.0116 a second.
        rate > 0.06
    }
}

#[test]
fn what_is_not_worth_its_memory_goes_and_comes_back_when_it_is_asked_for() {
    let code = python("kept = bytes(b'x' * 4096 * 2500)\ndef handler(event, context): return event\n");
    with_config(
        |config| (config.policy, config.rate_half_life_s) = (Arc::new(Rare), 60.0),
        |node| async move {
            for name in ["a", "b", "c", "d"] {
                let kept = FunctionSpec { keep_alive: 1, ..spec(name, code.path()) };
                node.deploy(kept, &mut Nowhere).await.unwrap();
            }
            for (name, requests) in [("a", 9), ("b", 2), ("c", 4)] {
                for n in 0..requests {
                    assert_eq!(call(&node, name, &json!(n)).await.unwrap().level, 2);
                }
            }
            let before = node.memory().await.total.pss_kib * 1024;
            assert!(node.reclaim(u64::MAX).await.dropped.is_empty());
            // Each holds ten megabytes and more: two of them have to go.
            let reclaimed = node.reclaim(before - (15 << 20)).await;
            let gone: Vec<_> = reclaimed.dropped.iter().map(|d| d.function.as_str()).collect();
            assert_eq!(gone, ["d", "b"], "{reclaimed:?}");
            assert!(reclaimed.dropped.iter().all(|d| d.known.bytes > 10 << 20 && d.known.saved > 0));
            assert!(reclaimed.held.abs_diff(before) < before / 4, "{reclaimed:?} of {before}");
            until("they are gone", || node.seeds().len() == 4).await;
            assert_eq!(node.function("b").unwrap().kept(), 0);
            let after = node.memory().await.total.pss_kib * 1024;
            assert!(after <= before - (15 << 20), "{after} of {before}");
            // Served without a seed, and not worth one yet.
            let version = node.function("b").unwrap();
            let served = call(&node, "b", &json!(1)).await.unwrap();
            assert_eq!((result(&served), served.level), (json!(1), 1));
            assert!(version.seed().is_none() && !version.is_growing());
            for _ in 0..4 {
                node.kill(node.instances().iter().find(|(_, i)| i.function == "b").unwrap().0).unwrap();
                call(&node, "b", &json!(1)).await.unwrap();
            }
            until("it has a seed again", || version.seed().is_some()).await;
            let (rate, saved) = node.worth(&version);
            assert!(rate > 0.06 && saved > 0, "{rate} {saved}");
            // Everything goes where there is nothing for it.
            let reclaimed = node.reclaim(0).await;
            assert_eq!(reclaimed.dropped.len(), 3);
            assert_eq!(call(&node, "a", &json!(7)).await.unwrap().level, 1);
        },
    );
}

#[test]
fn a_function_that_is_removed_or_replaced_while_its_seed_grows_is_not_grown_again() {
    let slow = python("import time\ntime.sleep(1)\ndef handler(event, context): return 'slow'\n");
    let quick = python("def handler(event, context): return 'quick'\n");
    with_node(|node| async move {
        node.grow_language(seedtree::runtime::Runtime::Python).await.unwrap();
        let growing = |name: &'static str| {
            node.deploy_lazily(spec(name, slow.path())).unwrap();
            let node = node.clone();
            tokio::spawn(async move { node.grow(name).await })
        };
        let removed = growing("removed");
        let first = node.function("removed").unwrap();
        until("it grows", || first.is_growing()).await;
        node.remove("removed").unwrap();
        let ended =
            tokio::time::timeout(Duration::from_secs(30), removed).await.expect("it is grown for ever");
        assert!(matches!(ended.unwrap(), Err(NodeError::NoSuchFunction(_))));

        let replaced = growing("replaced");
        let first = node.function("replaced").unwrap();
        until("it grows", || first.is_growing()).await;
        node.deploy_lazily(spec("replaced", quick.path())).unwrap();
        let ended =
            tokio::time::timeout(Duration::from_secs(30), replaced).await.expect("it is grown for ever");
        ended.unwrap().unwrap();
        assert!(node.function("replaced").unwrap().seed().is_some() && first.seed().is_none());
    });
}
