//! Answers that are streamed: parts reach the caller as the function makes them, and the function waits for a caller who is slow.

mod support;

#[path = "support/node.rs"]
mod node_support;

use node_support::*;
use seedtree::node::error::NodeError;
use seedtree::node::function::FunctionSpec;
use seedtree::node::instance::{Nowhere, Sink};
use seedtree::node::{Node, Served};
use seedtree::proto::Failure;
use seedtree::runtime::{Reply, Runtime};
use serde_json::{Value, json};
use support::fresh_dir;
use tokio::sync::mpsc;

struct Parts(mpsc::Sender<Vec<u8>>);

impl Sink for Parts {
    fn printed(&mut self, _: &[u8]) {}

    fn parts(&self) -> Option<&mpsc::Sender<Vec<u8>>> {
        Some(&self.0)
    }
}

/// A request whose parts come out of the channel.
fn stream(
    node: &Node,
    name: &str,
    event: &Value,
    room: usize,
) -> (mpsc::Receiver<Vec<u8>>, tokio::task::JoinHandle<Result<Served, NodeError>>) {
    let (sender, parts) = mpsc::channel(room);
    let (node, name, event) = (node.clone(), name.to_owned(), event.to_string());
    let call = async move { node.invoke(&name, event.as_bytes(), "id", &mut Parts(sender)).await };
    (parts, tokio::spawn(call))
}

/// All parts together, and what came after them.
async fn all(node: &Node, name: &str, event: &Value) -> (Vec<Vec<u8>>, Result<Served, NodeError>) {
    let (mut parts, call) = stream(node, name, event, 1);
    let mut got = Vec::new();
    while let Some(part) = parts.recv().await {
        got.push(part);
    }
    (got, call.await.unwrap())
}

const PYTHON: &str = "
import time
def handler(event, context):
    if event == 'plain':
        return [1, 2]
    if event == 'large':
        return iter([b'x' * (3 << 20)])
    return pieces(event)
def pieces(event):
    yield 'first'
    if event == 'fail':
        raise KeyError('midway')
    if event == 'number':
        yield 7
    if event == 'endless':
        while True:
            yield b'y' * 100000
    if event == 'slow':
        time.sleep(0.3)
    yield ''
    yield bytes([0, 255])
";

#[test]
fn a_python_function_streams_what_its_iterator_gives() {
    let code = python(PYTHON);
    with_node(|node| async move {
        node.deploy(FunctionSpec { timeout_ms: 3_000, ..spec("f", code.path()) }, &mut Nowhere)
            .await
            .unwrap();
        node.deploy(FunctionSpec { keep_alive: 1, ..spec("keep", code.path()) }, &mut Nowhere).await.unwrap();
        for name in ["f", "keep", "keep"] {
            let (parts, served) = all(&node, name, &json!("a")).await;
            assert_eq!(parts, [b"first".to_vec(), vec![0, 255]]);
            assert_eq!(served.unwrap().reply, Reply::Result(Vec::new()));
        }
        let (parts, served) = all(&node, "f", &json!("plain")).await;
        assert_eq!((parts.len(), result(&served.unwrap())), (0, json!([1, 2])));
        let (parts, served) = all(&node, "f", &json!("large")).await;
        assert_eq!(served.unwrap().reply, Reply::Result(Vec::new()));
        assert!(parts.concat() == vec![b'x'; 3 << 20]);
        for (event, kind) in [("fail", "KeyError"), ("number", "TypeError")] {
            let (parts, served) = all(&node, "f", &json!(event)).await;
            assert_eq!(parts, [b"first"]);
            let Reply::Error(error) = served.unwrap().reply else { panic!("{event}") };
            assert_eq!(serde_json::from_slice::<Value>(&error).unwrap()["errorType"], json!(kind));
        }
        // A part is there before the function has gone on.
        let (mut parts, call) = stream(&node, "f", &json!("slow"), 4);
        assert_eq!(parts.recv().await.unwrap(), b"first");
        assert!(!call.is_finished());
        call.await.unwrap().unwrap();
        // Nobody asked for parts.
        let served = call_plain(&node, "f").await;
        assert!(matches!(served.reply, Reply::Error(_)), "{served:?}");
    });
}

async fn call_plain(node: &Node, name: &str) -> Served {
    call(node, name, &json!("a")).await.unwrap()
}

#[test]
fn a_function_waits_for_its_caller_and_ends_with_it() {
    let code = python(PYTHON);
    with_node(|node| async move {
        node.deploy(FunctionSpec { timeout_ms: 1_500, ..spec("f", code.path()) }, &mut Nowhere)
            .await
            .unwrap();
        // Who goes away ends the function.
        let (mut parts, call) = stream(&node, "f", &json!("endless"), 1);
        for _ in 0..20 {
            parts.recv().await.unwrap();
        }
        drop(parts);
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, NodeError::Abandoned), "{error:?}");
        // Who takes nothing holds it no longer than it may run.
        let (parts, call) = stream(&node, "f", &json!("endless"), 1);
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, NodeError::Function(Failure::TimedOut(1_500))), "{error:?}");
        drop(parts);
        until("there is nothing but seeds", || sandboxes_of(&node) == 3).await;
        assert_eq!(result(&call_of(&node, "plain").await), json!([1, 2]));
    });
}

async fn call_of(node: &Node, event: &str) -> Served {
    call(node, "f", &json!(event)).await.unwrap()
}

#[test]
fn a_node_function_streams_what_it_writes() {
    let code = fresh_dir("node");
    let source = "
import { setTimeout } from 'node:timers/promises';
export const handler = awslambda.streamifyResponse(async (event, stream, context) => {
  if (event === 'http') stream = awslambda.HttpResponseStream.from(stream, { statusCode: 201 });
  stream.write('first');
  if (event === 'fail') throw new RangeError('midway');
  await setTimeout(event === 'slow' ? 300 : 1);
  stream.write(Buffer.from([0, 255]));
  if (event !== 'open') stream.end();
});
";
    std::fs::write(code.path().join("app.mjs"), source).unwrap();
    with_node(|node| async move {
        let function = FunctionSpec { runtime: Runtime::Node, ..spec("f", code.path()) };
        node.deploy(function, &mut Nowhere).await.unwrap();
        let whole = b"first\x00\xff".to_vec();
        for event in ["a", "open"] {
            let (parts, served) = all(&node, "f", &json!(event)).await;
            assert_eq!(parts, [b"first".to_vec(), vec![0, 255]]);
            assert_eq!(served.unwrap().reply, Reply::Result(Vec::new()));
            let served = call(&node, "f", &json!(event)).await.unwrap();
            assert_eq!(served.reply, Reply::Result(whole.clone()), "together where nobody takes parts");
        }
        let (parts, served) = all(&node, "f", &json!("http")).await;
        served.unwrap();
        let head = b"{\"statusCode\":201}\0\0\0\0\0\0\0\0".to_vec();
        assert_eq!(parts.concat(), [head, whole].concat());
        let (parts, served) = all(&node, "f", &json!("fail")).await;
        assert_eq!(parts, [b"first"]);
        let Reply::Error(error) = served.unwrap().reply else { panic!("no error") };
        assert_eq!(serde_json::from_slice::<Value>(&error).unwrap()["errorType"], json!("RangeError"));
        let (mut parts, call) = stream(&node, "f", &json!("slow"), 4);
        assert_eq!(parts.recv().await.unwrap(), b"first");
        assert!(!call.is_finished());
        call.await.unwrap().unwrap();
    });
}
