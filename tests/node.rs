//! The tree of a node: many functions and requests at once, every way to an instance, and nothing left behind.

mod support;

#[path = "support/node.rs"]
mod node_support;

use node_support::*;
use seedtree::node::error::NodeError;
use seedtree::node::function::FunctionSpec;
use seedtree::node::instance::{Nowhere, Sink};
use seedtree::node::{Call, State};
use seedtree::runtime::Runtime;
use serde_json::{Value, json};
use support::fresh_dir;

#[test]
fn requests_take_forks_spares_and_kept_instances() {
    let code = python(ECHO);
    with_node(|node| async move {
        node.deploy(FunctionSpec { warm: Some(b"1".to_vec()), ..spec("fork", code.path()) }, &mut Nowhere)
            .await
            .unwrap();
        node.deploy(
            FunctionSpec { spares: 2, warm: Some(b"1".to_vec()), ..spec("spare", code.path()) },
            &mut Nowhere,
        )
        .await
        .unwrap();
        node.deploy(FunctionSpec { keep_alive: 1, ..spec("keep", code.path()) }, &mut Nowhere).await.unwrap();
        for n in 0..5 {
            let served = call(&node, "fork", &json!({"n": n})).await.unwrap();
            assert_eq!((result(&served), served.level, served.spare), (json!({"n": n}), 2, false));
            until("spares", || node.function("spare").unwrap().spares() == 2).await;
            let served = call(&node, "spare", &json!(n)).await.unwrap();
            assert_eq!((result(&served), served.spare), (json!(n), true));
            let served = call(&node, "keep", &json!(n)).await.unwrap();
            assert_eq!((result(&served), served.kept), (json!(n), n > 0));
        }
        assert_eq!(node.function("keep").unwrap().kept(), 1);
        let listed: Vec<_> = node.instances().into_values().map(|i| (i.function, i.state)).collect();
        assert!(listed.contains(&("keep".into(), State::Kept)), "{listed:?}");
        assert!(listed.iter().all(|(_, state)| *state != State::Working), "{listed:?}");
        assert_eq!(node.seeds().len(), 5);
        assert!(matches!(call(&node, "none", &json!(0)).await, Err(NodeError::NoSuchFunction(_))));
        node.remove("keep").unwrap();
        assert!(matches!(call(&node, "keep", &json!(0)).await, Err(NodeError::NoSuchFunction(_))));
    });
}

#[test]
fn spares_stand_beside_kept_instances_and_are_made_anew_when_they_die() {
    let code = python(ECHO);
    with_node(|node| async move {
        let warm = || FunctionSpec { warm: Some(b"1".to_vec()), spares: 3, ..spec("f", code.path()) };
        for keep_alive in [0, 1] {
            node.deploy(FunctionSpec { keep_alive, ..warm() }, &mut Nowhere).await.unwrap();
            until("spares", || node.function("f").unwrap().spares() == 3).await;
            let spares = || {
                let idle = node.instances().into_iter().filter(|(_, i)| i.state == State::Spare);
                idle.map(|(id, i)| (id, i.pid)).collect::<Vec<_>>()
            };
            // Somebody else kills two, and the operator one: nobody asks for them meanwhile.
            let before = spares();
            for (_, pid) in &before[..2] {
                signal(*pid, rustix::process::Signal::KILL);
            }
            node.kill(&before[2].0).unwrap();
            until("new ones", || {
                let now = spares();
                now.len() == 3 && now.iter().all(|one| !before.contains(one))
            })
            .await;
            assert!(call(&node, "f", &json!(0)).await.unwrap().spare);
        }
    });
}

#[test]
fn what_was_printed_is_there_when_the_handler_does_not_come_back() {
    #[derive(Default)]
    struct Printed(Vec<u8>);
    impl Sink for Printed {
        fn printed(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
    }
    let code =
        python("import time\ndef handler(event, context):\n print('this far')\n time.sleep(60)\n return 1\n");
    with_node(|node| async move {
        node.deploy(spec("f", code.path()), &mut Nowhere).await.unwrap();
        let mut printed = Printed::default();
        let late =
            Call { event: b"{}", request_id: "id", limit_ms: Some(1_000), version: None, caller: None };
        let error = node.call("f", &late, &mut printed).await.map(|_| ()).unwrap_err();
        assert_eq!(error.code(), "Sandbox.Timedout");
        assert_eq!(String::from_utf8(printed.0).unwrap(), "this far\n");
    });
}

#[test]
fn many_at_once_get_each_its_own_answer() {
    let code = python(ECHO);
    with_node(|node| async move {
        node.deploy(FunctionSpec { spares: 3, ..spec("f", code.path()) }, &mut Nowhere).await.unwrap();
        let clients = (0..24).map(|client| {
            let node = node.clone();
            tokio::spawn(async move {
                for n in 0..8 {
                    let event = json!({"client": client, "n": n, "pad": "x".repeat(n * 9000)});
                    let served = call(&node, "f", &event).await.unwrap();
                    assert_eq!(result(&served), event);
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        assert_eq!(node.function("f").unwrap().requests.load(std::sync::atomic::Ordering::Relaxed), 192);
    });
}

#[test]
fn code_environment_and_layers_are_where_lambda_has_them() {
    let code = python(
        "import os\nfrom shared import word\ndef handler(event, context):\n print('printed', flush=True)\n \
         return [os.environ['WORD'], word, __file__, os.path.exists('/opt/python/shared.py'), event]\n",
    );
    let layers = fresh_dir("layers");
    std::fs::create_dir(layers.path().join("python")).unwrap();
    std::fs::write(layers.path().join("python/shared.py"), "word = 'from the layer'\n").unwrap();
    let node_code = fresh_dir("node");
    std::fs::write(
        node_code.path().join("index.mjs"),
        "export const handler = async (event) => [process.env.WORD, import.meta.url, event];\n",
    )
    .unwrap();
    with_node(|node| async move {
        let env = vec![("WORD".to_owned(), "own".to_owned())];
        let layers = Some(layers.path().to_owned());
        node.deploy(FunctionSpec { env: env.clone(), layers, ..spec("f", code.path()) }, &mut Nowhere)
            .await
            .unwrap();
        let mut printed = Printed::default();
        let served = node.invoke("f", b"7", "id", &mut printed).await.unwrap();
        let want = json!(["own", "from the layer", "/var/task/app.py", true, 7]);
        assert_eq!(result(&served), want);
        assert_eq!(printed.0, b"printed\n");
        let (runtime, handler) = (Runtime::Node, "index.handler".to_owned());
        node.deploy(FunctionSpec { env, runtime, handler, ..spec("js", node_code.path()) }, &mut Nowhere)
            .await
            .unwrap();
        let served = call(&node, "js", &json!(8)).await.unwrap();
        assert_eq!(result(&served), json!(["own", "file:///var/task/index.mjs", 8]));
    });
}

#[test]
fn a_bad_version_leaves_the_old_one_serving() {
    let good = python("def handler(event, context): return 'old'\n");
    let bad = python("print('on the way')\nraise ValueError('not today')\n");
    let better = python("def handler(event, context): return 'new'\n");
    with_node(|node| async move {
        node.deploy(spec("f", good.path()), &mut Nowhere).await.unwrap();
        let mut printed = Printed::default();
        match node.deploy(spec("f", bad.path()), &mut printed).await {
            Err(NodeError::Import(error)) => {
                let error: Value = serde_json::from_slice(&error).unwrap();
                assert_eq!(
                    (&error["errorType"], &error["errorMessage"]),
                    (&json!("ValueError"), &json!("not today"))
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(printed.0, b"on the way\n");
        assert_eq!(result(&call(&node, "f", &json!(0)).await.unwrap()), json!("old"));
        node.deploy(spec("f", better.path()), &mut Nowhere).await.unwrap();
        assert_eq!(result(&call(&node, "f", &json!(0)).await.unwrap()), json!("new"));
    });
}

#[test]
fn what_dies_is_told_and_grown_again() {
    let code = python(
        "import os, time\ndef handler(event, context):\n if event == 'exit': os._exit(3)\n if event == 'sleep': time.sleep(60)\n return event\n",
    );
    with_node(|node| async move {
        node.deploy(FunctionSpec { timeout_ms: 10_000, ..spec("f", code.path()) }, &mut Nowhere)
            .await
            .unwrap();
        let error = call(&node, "f", &json!("exit")).await.unwrap_err();
        assert_eq!((error.code(), error.is_functions()), ("Runtime.ExitError", true));
        // An operator ends one.
        let sleeper = spawn_call(&node, "f", json!("sleep"));
        until("it is at work", || !node.instances().is_empty()).await;
        let id = node.instances().keys().next().unwrap().clone();
        node.kill(&id).unwrap();
        assert!(matches!(sleeper.await.unwrap(), Err(NodeError::Killed)));
        assert!(matches!(node.kill(&id), Err(NodeError::NoSuchInstance(_))));
        // The function's seed dies: requests go to the language's, and a new one is grown.
        let seed = node.function("f").unwrap().seed().unwrap();
        signal(seed.pid(), rustix::process::Signal::KILL);
        // A request that it has got meanwhile would fail: it might have been begun.
        until("it is known to be gone", || seed.is_gone()).await;
        drop(seed);
        let served = call(&node, "f", &json!(1)).await.unwrap();
        assert_eq!((result(&served), served.level), (json!(1), 1));
        until("a new seed", || node.function("f").unwrap().seed().is_some()).await;
        assert_eq!(call(&node, "f", &json!(2)).await.unwrap().level, 2);
    });
}

#[test]
fn bounds_are_kept() {
    let code = python("import time\ndef handler(event, context):\n time.sleep(event)\n return event\n");
    with_node(|node| async move {
        node.deploy(FunctionSpec { concurrency: 1, queue: 1, ..spec("f", code.path()) }, &mut Nowhere)
            .await
            .unwrap();
        let running = spawn_call(&node, "f", json!(1));
        let version = node.function("f").unwrap();
        until("the first is at work", || version.running() == 1).await;
        let waiting = spawn_call(&node, "f", json!(0));
        until("the second waits", || version.waiting() == 1).await;
        let error = call(&node, "f", &json!(0)).await.unwrap_err();
        assert_eq!(error.code(), "Function.TooManyRequests");
        assert_eq!(running.await.unwrap().unwrap(), json!(1));
        assert_eq!(waiting.await.unwrap().unwrap(), json!(0));
        assert_eq!(node.invoke("f", b"{", "id", &mut Nowhere).await.unwrap_err().code(), "Request.NotJson");
        let long = vec![b' '; (6 << 20) + 1];
        assert_eq!(node.invoke("f", &long, "id", &mut Nowhere).await.unwrap_err().code(), "Request.TooLarge");
    });
}

#[test]
fn draining_waits_for_those_that_wait_and_leaves_no_instance() {
    let code = python("import time\ndef handler(event, context):\n time.sleep(event)\n return event\n");
    with_node(|node| async move {
        let warm = Some(b"0".to_vec());
        let one = FunctionSpec { concurrency: 1, spares: 2, warm, ..spec("f", code.path()) };
        node.deploy(one, &mut Nowhere).await.unwrap();
        node.deploy(FunctionSpec { keep_alive: 1, ..spec("keep", code.path()) }, &mut Nowhere).await.unwrap();
        call(&node, "keep", &json!(0)).await.unwrap();
        let owned = node.fork_ahead("f").await.unwrap();
        let version = node.function("f").unwrap();
        until("spares", || version.spares() == 2).await;
        let calls: Vec<_> = (0..3).map(|_| spawn_call(&node, "f", json!(0.3))).collect();
        until("two wait", || version.waiting() == 2).await;
        assert_eq!((node.requests(), version.running()), (3, 1));
        node.drain().await;
        assert_eq!((node.requests(), node.instances().len()), (0, 0));
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), json!(0.3));
        }
        assert!(matches!(call(&node, "f", &json!(0)).await, Err(NodeError::Draining)));
        assert!(matches!(node.fork_ahead("f").await, Err(NodeError::Draining)));
        assert!(matches!(node.destroy(&owned), Err(NodeError::NoSuchInstance(_))));
        until("only seeds are left", || sandboxes_of(&node) == node.seeds().len()).await;
    });
}

#[test]
fn a_caller_may_have_less_time_than_the_function() {
    let code = python(
        "import time\ndef handler(event, context):\n time.sleep(event)\n return context.get_remaining_time_in_millis()\n",
    );
    with_node(|node| async move {
        node.deploy(FunctionSpec { concurrency: 1, ..spec("f", code.path()) }, &mut Nowhere).await.unwrap();
        let call = |event: &'static [u8], limit| {
            let node = node.clone();
            async move {
                let call = Call { event, request_id: "id", limit_ms: limit, version: None, caller: None };
                node.call("f", &call, &mut Nowhere).await
            }
        };
        let left = result(&call(b"0", Some(5_000)).await.unwrap()).as_u64().unwrap();
        assert!((1..=5_000).contains(&left), "{left}");
        let left = result(&call(b"0", Some(60_000)).await.unwrap()).as_u64().unwrap();
        assert!((5_001..=20_000).contains(&left), "the function's own limit holds: {left}");
        let error = call(b"9", Some(300)).await.unwrap_err();
        assert_eq!(error.code(), "Sandbox.Timedout", "{error:?}");
        // Waiting counts.
        let running = spawn_call(&node, "f", json!(1));
        let version = node.function("f").unwrap();
        until("it is at work", || version.running() == 1).await;
        assert!(matches!(call(b"0", Some(200)).await, Err(NodeError::WaitedTooLong(200))));
        running.await.unwrap().unwrap();
    });
}

#[test]
fn a_request_tells_what_it_cost_and_a_node_what_it_holds() {
    let code = python("def handler(event, context):\n x = bytearray(event)\n return len(x)\n");
    with_node(|node| async move {
        node.deploy(FunctionSpec { keep_alive: 1, ..spec("f", code.path()) }, &mut Nowhere).await.unwrap();
        let first = call(&node, "f", &json!(1)).await.unwrap().phases;
        let (kept, large) = (call(&node, "f", &json!(1)).await, call(&node, "f", &json!(8 << 20)).await);
        let (kept, large) = (kept.unwrap(), large.unwrap());
        assert!(kept.kept && large.kept);
        assert!(first.exits > 0 && kept.phases.exits > 0 && kept.phases.faults < first.faults);
        // Eight megabytes that are touched for the first time are 2048 pages; the host may map several at once.
        assert!(large.phases.faults > kept.phases.faults, "{kept:?} {large:?}");
        let memory = node.memory().await;
        let levels: Vec<u8> = memory.seeds.iter().map(|s| s.level).collect();
        assert_eq!(levels, [0, 1, 2]);
        let instances = memory.instances["f"];
        assert!(instances.pss_kib > 0 && instances.pss_kib <= instances.rss_kib);
        let parts: u64 = memory.seeds.iter().map(|s| s.usage.pss_kib).sum::<u64>() + instances.pss_kib;
        assert_eq!(memory.total.pss_kib, parts);
        assert!(memory.total.pss_kib < memory.total.rss_kib, "what is shared counts once: {memory:?}");
        let seed = node.function("f").unwrap().seed().unwrap();
        assert!(node.memory_of(seed.pid()).await.is_some());
        assert!(node.memory_of(1).await.is_none(), "a process of somebody else's");
        assert!(seed.age() > 0 && seed.queued() == 0);
    });
}

#[test]
fn a_kept_instance_answers_each_request_with_its_own_answer() {
    // The child of a handler that forks goes on in the runtime's loop: it must neither read a request nor answer one.
    let code = python(
        "import os, time\ndef handler(event, context):\n    if event == 'fork':\n        if os.fork() == 0:\n            time.sleep(0.05)\n            \
         return 'the child'\n        return 'the parent'\n    time.sleep(0.2)\n    return [event, os.getpid()]\n",
    );
    with_node(|node| async move {
        node.deploy(FunctionSpec { keep_alive: 1, ..spec("f", code.path()) }, &mut Nowhere).await.unwrap();
        let first = result(&call(&node, "f", &json!(0)).await.unwrap())[1].clone();
        for n in 0..3 {
            assert_eq!(result(&call(&node, "f", &json!("fork")).await.unwrap()), json!("the parent"));
            for event in [10 * n, 10 * n + 1] {
                let served = call(&node, "f", &json!(event)).await.unwrap();
                assert_eq!((result(&served), served.kept), (json!([event, first]), true));
            }
        }
    });
}
