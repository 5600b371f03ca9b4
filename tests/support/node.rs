//! A node in a runtime of its own, and functions for it.
#![allow(dead_code)]

use crate::support::fresh_dir;
use crate::support::left::{children, eventually, marked};
use seedtree::node::error::NodeError;
use seedtree::node::function::FunctionSpec;
use seedtree::node::instance::{Nowhere, Sink};
use seedtree::node::{Node, NodeConfig, Served};
use seedtree::runtime::{Reply, Runtime};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// A handler that answers with its event.
pub const ECHO: &str = "def handler(event, context): return event\n";

/// Runs a test with a node. Its sandboxes carry a mark, by which they are looked for when it has ended.
pub fn with_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F) {
    with_config(|_| {}, test);
}

/// The same with a configuration of the test's own.
pub fn with_config<F: Future<Output = ()>>(
    change: impl FnOnce(&mut NodeConfig),
    test: impl FnOnce(Node) -> F,
) {
    let mark = format!("node-{}-{:?}", std::process::id(), std::thread::current().id());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut config = NodeConfig {
        exe: env!("CARGO_BIN_EXE_coppice").into(),
        mark: vec![("COPPICE_TEST_MARK".into(), mark.clone())],
        ..NodeConfig::default()
    };
    change(&mut config);
    runtime.block_on(async {
        let node = Node::plant(config).await.unwrap();
        assert!(!marked(&mark).is_empty(), "the mark does not reach the sandboxes");
        test(node).await;
    });
    drop(runtime);
    assert!(eventually(|| marked(&mark).is_empty()), "left behind: {:?}", marked(&mark));
}

/// Living sandboxes of a node.
pub fn sandboxes_of(node: &Node) -> usize {
    marked(&node.config().mark[0].1).len()
}

/// Children of this process that have ended and that nobody has reaped.
pub fn unreaped() -> usize {
    let me = i32::try_from(std::process::id()).unwrap();
    children(me).iter().filter(|(_, state)| *state == 'Z').count()
}

/// A Python function.
pub fn spec(name: &str, code: &Path) -> FunctionSpec {
    FunctionSpec {
        name: name.into(),
        version: 1,
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

/// A directory with this app.py.
pub fn python(source: &str) -> tempfile::TempDir {
    let dir = fresh_dir("node");
    std::fs::write(dir.path().join("app.py"), source).unwrap();
    dir
}

/// The handler's result.
pub fn result(served: &Served) -> Value {
    match &served.reply {
        Reply::Result(bytes) => serde_json::from_slice(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// One request.
pub async fn call(node: &Node, name: &str, event: &Value) -> Result<Served, NodeError> {
    node.invoke(name, event.to_string().as_bytes(), "id", &mut Nowhere).await
}

/// The same in a task.
pub fn spawn_call(
    node: &Node,
    name: &str,
    event: Value,
) -> tokio::task::JoinHandle<Result<Value, NodeError>> {
    let (node, name) = (node.clone(), name.to_owned());
    tokio::spawn(async move { call(&node, &name, &event).await.map(|s| result(&s)) })
}

/// Waits up to ten seconds for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("in vain: {what}");
}

/// Sends a signal to a process.
pub fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// What a function prints.
#[derive(Default)]
pub struct Printed(pub Vec<u8>);

impl Sink for Printed {
    fn printed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}
