//! The tree of a node: many functions and requests at once, every way to an instance, and nothing left behind.

mod support;

use seedtree::node::error::NodeError;
use seedtree::node::function::FunctionSpec;
use seedtree::node::instance::{Nowhere, Sink};
use seedtree::node::{Node, NodeConfig, Served};
use seedtree::runtime::{Reply, Runtime};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use support::fresh_dir;
use support::left::{eventually, marked};

/// A node in a runtime of its own. Its sandboxes carry a mark, by which they are looked for when it has ended.
fn with_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F) {
    let mark = format!("node-{}-{:?}", std::process::id(), std::thread::current().id());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = NodeConfig {
            exe: env!("CARGO_BIN_EXE_coppice").into(),
            rootfs: "/".into(),
            env: Vec::new(),
            prefill: true,
            fork_queue: 64,
            grow_timeout_ms: 60_000,
            mark: vec![("COPPICE_TEST_MARK".into(), mark.clone())],
        };
        let node = Node::plant(config).await.unwrap();
        assert!(!marked(&mark).is_empty(), "the mark does not reach the sandboxes");
        test(node).await;
    });
    drop(runtime);
    assert!(eventually(|| marked(&mark).is_empty()), "left behind: {:?}", marked(&mark));
}

fn spec(name: &str, code: &Path) -> FunctionSpec {
    FunctionSpec {
        name: name.into(),
        runtime: Runtime::Python,
        handler: "app.handler".into(),
        code: code.into(),
        layers: None,
        memory: 256 << 20,
        cpus: 1,
        timeout_ms: 20_000,
        env: Vec::new(),
        spares: 0,
        concurrency: 16,
        queue: 64,
        keep_alive: 0,
        warm: None,
    }
}

fn python(source: &str) -> tempfile::TempDir {
    let dir = fresh_dir("node");
    std::fs::write(dir.path().join("app.py"), source).unwrap();
    dir
}

fn result(served: &Served) -> Value {
    match &served.reply {
        Reply::Result(bytes) => serde_json::from_slice(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn call(node: &Node, name: &str, event: &Value) -> Result<Served, NodeError> {
    node.invoke(name, event.to_string().as_bytes(), "id", &mut Nowhere).await
}

const ECHO: &str = "def handler(event, context): return event\n";

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
            while node.function("spare").unwrap().spares() < 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let served = call(&node, "spare", &json!(n)).await.unwrap();
            assert_eq!((result(&served), served.spare), (json!(n), true));
            let served = call(&node, "keep", &json!(n)).await.unwrap();
            assert_eq!((result(&served), served.kept), (json!(n), n > 0));
        }
        assert_eq!(node.function("keep").unwrap().kept(), 1);
        assert!(node.instances().is_empty());
        assert_eq!(node.seeds().len(), 5);
        assert!(matches!(call(&node, "none", &json!(0)).await, Err(NodeError::NoSuchFunction(_))));
        node.remove("keep").unwrap();
        assert!(matches!(call(&node, "keep", &json!(0)).await, Err(NodeError::NoSuchFunction(_))));
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

#[derive(Default)]
struct Printed(Vec<u8>);

impl Sink for Printed {
    fn printed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
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
        let sleeper = tokio::spawn({
            let node = node.clone();
            async move { call(&node, "f", &json!("sleep")).await.map(|_| ()) }
        });
        while node.instances().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let id = node.instances().keys().next().unwrap().clone();
        node.kill(&id).unwrap();
        assert!(matches!(sleeper.await.unwrap(), Err(NodeError::Killed)));
        assert!(matches!(node.kill(&id), Err(NodeError::NoSuchInstance(_))));
        // The function's seed dies: requests go to the language's, and a new one is grown.
        let seed = node.function("f").unwrap().seed().unwrap();
        let pid = rustix::process::Pid::from_raw(seed.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        drop(seed);
        let served = call(&node, "f", &json!(1)).await.unwrap();
        assert_eq!((result(&served), served.level), (json!(1), 1));
        while node.function("f").unwrap().seed().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(call(&node, "f", &json!(2)).await.unwrap().level, 2);
    });
}

#[test]
fn bounds_are_kept_and_a_drained_node_refuses() {
    let code = python("import time\ndef handler(event, context):\n time.sleep(event)\n return event\n");
    with_node(|node| async move {
        node.deploy(FunctionSpec { concurrency: 1, queue: 1, ..spec("f", code.path()) }, &mut Nowhere)
            .await
            .unwrap();
        let running = tokio::spawn({
            let node = node.clone();
            async move { call(&node, "f", &json!(1)).await.map(|s| result(&s)) }
        });
        let version = node.function("f").unwrap();
        while version.running() == 0 {
            tokio::task::yield_now().await;
        }
        let waiting = tokio::spawn({
            let node = node.clone();
            async move { call(&node, "f", &json!(0)).await.map(|s| result(&s)) }
        });
        while version.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let error = call(&node, "f", &json!(0)).await.unwrap_err();
        assert_eq!(error.code(), "Function.TooManyRequests");
        assert_eq!(running.await.unwrap().unwrap(), json!(1));
        assert_eq!(waiting.await.unwrap().unwrap(), json!(0));
        assert_eq!(node.invoke("f", b"{", "id", &mut Nowhere).await.unwrap_err().code(), "Request.NotJson");
        let long = vec![b' '; (6 << 20) + 1];
        assert_eq!(node.invoke("f", &long, "id", &mut Nowhere).await.unwrap_err().code(), "Request.TooLarge");
        node.drain().await;
        assert!(matches!(call(&node, "f", &json!(0)).await, Err(NodeError::Draining)));
    });
}
