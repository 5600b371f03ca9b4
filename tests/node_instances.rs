//! Instances that clients own, and versions that come and go: nothing is left of what is given up midway.

mod support;

#[path = "support/node.rs"]
mod node_support;

use node_support::*;
use seedtree::node::error::NodeError;
use seedtree::node::function::FunctionSpec;
use seedtree::node::instance::{Nowhere, Sink};
use seedtree::node::{Call, Node, Served, State};
use serde_json::{Value, json};
use std::time::Duration;

async fn activate(node: &Node, id: &str, event: &Value) -> Result<Served, NodeError> {
    let event = event.to_string();
    let call =
        Call { event: event.as_bytes(), request_id: "id", limit_ms: None, version: None, caller: None };
    node.activate(id, &call, &mut Nowhere).await
}

#[test]
fn a_client_owns_an_instance_until_it_is_destroyed_or_forgotten() {
    let code = python(
        "import time\nn = 0\ndef handler(event, context):\n global n\n n += 1\n time.sleep(event)\n return n\n",
    );
    with_config(
        |config| (config.owned, config.owned_idle_ms) = (2, 1_500),
        |node| async move {
            node.deploy(spec("f", code.path()), &mut Nowhere).await.unwrap();
            let (a, b) = (node.fork_ahead("f").await.unwrap(), node.fork_ahead("f").await.unwrap());
            assert!(matches!(node.fork_ahead("f").await, Err(NodeError::TooManyInstances(2))));
            let listed = node.instances();
            assert!(listed.len() == 2 && listed.values().all(|i| i.owned && i.state == State::Idle));
            for n in 1..4 {
                let served = activate(&node, &a, &json!(0)).await.unwrap();
                assert_eq!((result(&served), served.level, served.kept), (json!(n), 2, n > 1));
            }
            assert_eq!(result(&activate(&node, &b, &json!(0)).await.unwrap()), json!(1));
            // One request at a time; destroyed under it, the request is told.
            let running = tokio::spawn({
                let (node, a) = (node.clone(), a.clone());
                async move { activate(&node, &a, &json!(60)).await.map(|_| ()) }
            });
            until("it is at work", || node.instances().get(&a).is_some_and(|i| i.state == State::Working))
                .await;
            assert_eq!(activate(&node, &a, &json!(0)).await.unwrap_err().code(), "Instance.Busy");
            node.destroy(&a).unwrap();
            assert!(matches!(running.await.unwrap(), Err(NodeError::Killed)));
            assert!(matches!(activate(&node, &a, &json!(0)).await, Err(NodeError::NoSuchInstance(_))));
            assert!(matches!(node.destroy(&a), Err(NodeError::NoSuchInstance(_))));
            // Nobody asks for the other one.
            until("it is forgotten", || node.instances().is_empty()).await;
            // A function's removal takes those with it that are idle.
            let c = node.fork_ahead("f").await.unwrap();
            node.remove("f").unwrap();
            assert!(matches!(activate(&node, &c, &json!(0)).await, Err(NodeError::NoSuchInstance(_))));
            until("only seeds are left", || sandboxes_of(&node) == 2).await;
        },
    );
}

#[test]
fn an_owned_instance_comes_from_any_level() {
    let code = python(ECHO);
    with_node(|node| async move {
        node.deploy_lazily(spec("f", code.path())).unwrap();
        // There is no seed but the OS's.
        let id = node.fork_ahead("f").await.unwrap();
        let served = activate(&node, &id, &json!({"a": 1})).await.unwrap();
        assert_eq!((result(&served), served.level), (json!({"a": 1}), 0));
        until("a seed", || node.function("f").unwrap().seed().is_some()).await;
    });
}

#[test]
fn a_version_is_prepared_before_it_serves_and_leaves_nothing_when_dropped() {
    let (old, new) =
        (python("def handler(e, c): return 'old'\n"), python("def handler(e, c): return 'new'\n"));
    with_node(|node| async move {
        node.deploy(spec("f", old.path()), &mut Nowhere).await.unwrap();
        let before = sandboxes_of(&node);
        let prepared = node.prepare(spec("f", new.path()), &mut Nowhere).await.unwrap();
        assert_eq!(sandboxes_of(&node), before + 1);
        assert_eq!(result(&call(&node, "f", &json!(0)).await.unwrap()), json!("old"));
        drop(prepared);
        until("its seed is gone", || sandboxes_of(&node) == before).await;
        let prepared = node.prepare(spec("f", new.path()), &mut Nowhere).await.unwrap();
        let number = prepared.number();
        let replaced = node.switch(prepared).unwrap();
        assert!(replaced.number < number && replaced.is_retired());
        assert_eq!(node.function("f").unwrap().number, number);
        drop(replaced);
        assert_eq!(result(&call(&node, "f", &json!(0)).await.unwrap()), json!("new"));
        until("the old seed is gone", || sandboxes_of(&node) == before).await;
        // A client that goes away midway.
        for ms in [0, 5, 20, 60] {
            let mut nowhere = Nowhere;
            let deploy = node.deploy(spec("g", new.path()), &mut nowhere);
            let _ = tokio::time::timeout(Duration::from_millis(ms), deploy).await;
        }
        if node.function("g").is_ok() {
            node.remove("g").unwrap();
        }
        until("nothing is left of it", || sandboxes_of(&node) == before).await;
        node.deploy(spec("g", new.path()), &mut Nowhere).await.unwrap();
    });
}

#[test]
fn a_destroyed_instance_does_not_run_the_request_that_waits_for_its_turn() {
    let code = python("import time\ndef handler(event, context):\n time.sleep(event)\n return event\n");
    with_node(|node| async move {
        node.deploy(FunctionSpec { concurrency: 1, ..spec("f", code.path()) }, &mut Nowhere).await.unwrap();
        let version = node.function("f").unwrap();
        let id = node.fork_ahead("f").await.unwrap();
        let running = spawn_call(&node, "f", json!(2));
        until("it is at work", || version.running() == 1).await;
        let waiting = tokio::spawn({
            let (node, id) = (node.clone(), id.clone());
            async move { activate(&node, &id, &json!(0)).await.map(|served| result(&served)) }
        });
        until("it waits", || version.waiting() == 1).await;
        node.destroy(&id).unwrap();
        let ended = waiting.await.unwrap();
        assert!(matches!(ended, Err(NodeError::Killed)), "{ended:?}");
        assert_eq!(version.running(), 1, "it had waited for its turn");
        assert!(node.instances().values().all(|i| !i.owned));
        assert_eq!(running.await.unwrap().unwrap(), json!(2));
    });
}

#[test]
fn requests_of_a_replaced_version_are_finished_by_it() {
    let slow = |word| python(&format!("import time\ndef handler(e, c):\n time.sleep(e)\n return '{word}'\n"));
    let (old, new) = (slow("old"), slow("new"));
    with_node(|node| async move {
        node.deploy(FunctionSpec { concurrency: 1, ..spec("f", old.path()) }, &mut Nowhere).await.unwrap();
        let next = FunctionSpec { concurrency: 1, ..spec("f", new.path()) };
        let next = node.prepare(next, &mut Nowhere).await.unwrap();
        let version = node.function("f").unwrap();
        let running = spawn_call(&node, "f", json!(2));
        until("it is at work", || version.running() == 1).await;
        let waiting = spawn_call(&node, "f", json!(0));
        until("it waits", || version.waiting() == 1).await;
        node.switch(next);
        assert_eq!(node.versions().len(), 2);
        assert_eq!(result(&call(&node, "f", &json!(0)).await.unwrap()), json!("new"));
        assert_eq!(running.await.unwrap().unwrap(), json!("old"));
        assert_eq!(waiting.await.unwrap().unwrap(), json!("old"));
        until("the old one is gone", || node.versions().len() == 1 && version.seed().is_none()).await;
        assert_eq!(node.seeds().len(), 3);
    });
}

/// Hears which version serves.
#[derive(Default)]
struct Entered(u64);

impl Sink for Entered {
    fn printed(&mut self, _: &[u8]) {}

    fn entered(&mut self, version: u64) {
        self.0 = version;
    }
}

#[test]
fn a_request_for_a_version_is_served_by_it_or_refused() {
    let code: Vec<_> = (0..2).map(|n| python(&format!("def handler(e, c): return {n}\n"))).collect();
    with_node(|node| async move {
        let version =
            |n: u64| FunctionSpec { version: n, ..spec("f", code[usize::try_from(n % 2).unwrap()].path()) };
        node.deploy(version(0), &mut Nowhere).await.unwrap();
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let node = node.clone();
                tokio::spawn(async move {
                    let (mut served, mut refused, mut seen) = (0, 0, 0);
                    while seen < 5 {
                        seen = node.function("f").unwrap().spec.version;
                        let asked = (client > 0).then_some(seen);
                        let mut sink = Entered::default();
                        let call = Call {
                            event: b"0",
                            request_id: "id",
                            limit_ms: None,
                            version: asked,
                            caller: None,
                        };
                        match node.call("f", &call, &mut sink).await {
                            Ok(answer) => {
                                assert!(asked.is_none_or(|asked| asked == sink.0), "{asked:?} {}", sink.0);
                                assert_eq!(result(&answer), json!(sink.0 % 2));
                                served += 1;
                            }
                            Err(NodeError::NoSuchVersion { version, .. }) => {
                                assert!(Some(version) == asked && sink.0 > version);
                                refused += 1;
                            }
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                    (served, refused)
                })
            })
            .collect();
        for n in 1..=5 {
            node.deploy(version(n), &mut Nowhere).await.unwrap();
        }
        for client in clients {
            let (served, refused) = client.await.unwrap();
            assert!(served > refused, "{served} {refused}");
        }
        let call = Call { event: b"0", request_id: "id", limit_ms: None, version: Some(4), caller: None };
        let error = node.call("f", &call, &mut Nowhere).await.unwrap_err();
        assert_eq!(error.code(), "Function.VersionNotFound");
    });
}

#[test]
fn racing_deploys_and_removes_leave_what_the_last_one_says() {
    let code: Vec<_> = (0..3).map(|n| python(&format!("def handler(e, c): return {n}\n"))).collect();
    with_node(|node| async move {
        let deploys = (0..9).map(|n| {
            let (node, spec) = (node.clone(), spec("f", code[n % 3].path()));
            tokio::spawn(async move { node.deploy(spec, &mut Nowhere).await.map(|()| n % 3) })
        });
        let deploys: Vec<_> = deploys.collect();
        let requests = tokio::spawn({
            let node = node.clone();
            async move {
                for _ in 0..40 {
                    match call(&node, "f", &json!(0)).await {
                        Ok(served) => assert!(result(&served).as_u64().unwrap() < 3),
                        Err(error) => assert!(matches!(error, NodeError::NoSuchFunction(_)), "{error:?}"),
                    }
                    let _ = node.remove("f");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
        for deploy in deploys {
            deploy.await.unwrap().unwrap();
        }
        requests.await.unwrap();
        // Removed while a seed is being grown for it.
        node.deploy_lazily(spec("g", code[0].path())).unwrap();
        call(&node, "g", &json!(0)).await.unwrap();
        assert!(node.function("g").unwrap().is_growing() || node.function("g").unwrap().seed().is_some());
        node.remove("g").unwrap();
        let _ = node.remove("f");
        until("only shared seeds are left", || sandboxes_of(&node) == 2 && node.seeds().len() == 2).await;
        node.deploy(spec("f", code[2].path()), &mut Nowhere).await.unwrap();
        assert_eq!(result(&call(&node, "f", &json!(0)).await.unwrap()), json!(2));
    });
}
