//! Streamed answers as clients see them: parts come while the function runs, over both transports and over HTTP, and an end that is none is
//! told.

mod support;

use fri_plugin::proto;
use fri_plugin::proto::invoke_response::Part as Answer;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use support::daemon::{Coppiced, Options, block_on, python};
use support::fri::{
    Answered, Call, Failure, Transport, both, connect, gathered, request_messages, until, working,
};
use support::gateway::metric;
use support::left::eventually;

const PARTS: &str = "
import os, time
def handler(event, context):
    if event == 'whole':
        return [1, 2]
    if event == 'raise':
        raise ValueError('at once')
    return pieces(event)
def pieces(event):
    yield 'first'
    if event == 'wait':
        time.sleep(600)
    if event == 'slow':
        time.sleep(2)
    if event == 'fail':
        raise KeyError('midway')
    if event == 'exit':
        os._exit(3)
    if event == 'print':
        print('between', flush=True)
    if event == 'eight':
        yield b'z' * (8 << 20)
    if event == 'endless':
        while True:
            yield b'y' * (1 << 20)
    yield bytes([0, 255])
";

fn daemon(options: Options) -> Coppiced {
    let daemon = Coppiced::start(options);
    let code = [("app.py", PARTS)];
    daemon.deploy(proto::FunctionSpec { timeout_ms: 60_000, ..python("parts") }, &code).unwrap();
    daemon.deploy(proto::FunctionSpec { timeout_ms: 2_000, ..python("short") }, &code).unwrap();
    daemon
}

type Streaming = Call<proto::InvokeRequest, proto::InvokeResponse>;

async fn stream(t: &Transport, function: &str, event: &str) -> Streaming {
    let head = proto::InvokeHead {
        function: function.into(),
        stream: true,
        logs: event == "print",
        ..Default::default()
    };
    t.call("Instances/Invoke", request_messages(head, json!(event).to_string().as_bytes())).await.unwrap()
}

async fn answered(t: &Transport, event: &str) -> Answered {
    gathered(stream(t, "parts", event).await.all().await.unwrap())
}

/// The next part, which must be one of the answer.
async fn part(call: &mut Streaming) -> Vec<u8> {
    let message = call.next().await.unwrap().expect("an end");
    let Some(Answer::Chunk(chunk)) = message.part else { panic!("{message:?}") };
    chunk.into()
}

/// The one that serves.
async fn at_work(t: &Transport) -> proto::Instance {
    let list = proto::ListInstancesRequest::default();
    let list: proto::ListInstancesResponse = t.unary("Instances/List", list).await.unwrap();
    let mut working = list.instances.into_iter().filter(|i| i.state == "working");
    let one = working.next().expect("nothing is at work");
    assert!(working.next().is_none());
    one
}

async fn kill(t: &Transport, id: String) {
    let _: proto::DestroyResponse = t.unary("Instances/Destroy", proto::DestroyRequest { id }).await.unwrap();
}

#[test]
fn parts_come_while_the_function_runs() {
    let mut daemon = daemon(Options::default());
    block_on(async {
        for t in both(&daemon).await {
            // It sleeps after its first part: that it ends is the doing of who has the part already.
            let mut call = stream(&t, "parts", "wait").await;
            assert_eq!(part(&mut call).await, b"first");
            kill(&t, at_work(&t).await.id).await;
            let error: Failure = call.all().await.unwrap_err();
            assert_eq!(error.code(), "Instance.Killed", "no good end");

            let whole = answered(&t, "").await;
            assert_eq!(
                (whole.bytes.as_slice(), whole.end.function_error.as_str()),
                (&b"first\x00\xff"[..], "")
            );
            assert!(whole.end.phases.is_some() && whole.end.version == 1);
            let whole = answered(&t, "print").await;
            assert_eq!((whole.logs.as_slice(), whole.bytes.len()), (&b"between\n"[..], 7));
            assert_eq!(answered(&t, "whole").await.bytes, b"[1, 2]");
            let eight = answered(&t, "eight").await;
            assert_eq!(eight.bytes.len(), (8 << 20) + 7);
            assert!(eight.bytes[5..(8 << 20) + 5].iter().all(|b| *b == b'z'));
            for (event, sent, kind) in [
                ("fail", &b"first"[..], "KeyError"),
                ("exit", b"first", "Runtime.ExitError"),
                ("raise", b"", "ValueError"),
            ] {
                let failed = answered(&t, event).await;
                assert_eq!(
                    (failed.bytes.as_slice(), failed.end.function_error.as_str()),
                    (sent, "Unhandled")
                );
                let error: Value = serde_json::from_slice(&failed.error).unwrap();
                assert_eq!(error["errorType"], kind);
            }
            let head = proto::InvokeHead { function: "none".into(), stream: true, ..Default::default() };
            let call = t.call::<_, proto::InvokeResponse>("Instances/Invoke", request_messages(head, b"1"));
            assert_eq!(call.await.unwrap().all().await.unwrap_err().code(), "Function.NotFound");
            own_instance(&t).await;
        }
    });
    assert!(daemon.stop().success());
}

/// The same of an instance that the client owns.
async fn own_instance(t: &Transport) {
    use proto::activate_request::Part;
    let own: proto::Instance =
        t.unary("Instances/Fork", proto::ForkRequest { function: "parts".into() }).await.unwrap();
    for _ in 0..2 {
        let head = proto::ActivateHead { id: own.id.clone(), stream: true, ..Default::default() };
        let parts = [Part::Head(head), Part::Chunk("\"\"".into())];
        let messages = parts.map(|part| proto::ActivateRequest { part: Some(part) }).to_vec();
        let mut call = t.call::<_, proto::InvokeResponse>("Instances/Activate", messages).await.unwrap();
        let mut all = call.all().await.unwrap();
        assert_eq!(all.len(), 3, "two parts and the end, each of its own");
        let Some(Answer::End(end)) = all.pop().unwrap().part else { panic!("no end") };
        assert_eq!((end.instance, end.function_error), (own.id.clone(), String::new()));
    }
    kill(t, own.id).await;
}

#[test]
fn who_leaves_ends_the_function_and_who_is_slow_holds_it() {
    let daemon = daemon(Options::default());
    block_on(async {
        let watching = Transport::grpc(&daemon.grpc()).await;
        let before = daemon.sandboxes().len();
        for over_grpc in [true, false] {
            for event in ["wait", "endless"] {
                let t = connect(&daemon, over_grpc).await;
                let mut call = stream(&t, "parts", event).await;
                assert_eq!(part(&mut call).await, b"first");
                at_work(&watching).await;
                drop((call, t));
                until(async || working(&watching).await == 0, "the instance of a client that is gone").await;
                until(async || daemon.sandboxes().len() == before, "nothing but seeds").await;
            }
            assert_eq!(answered(&connect(&daemon, over_grpc).await, "").await.bytes.len(), 7);
        }
        // Who takes nothing holds the function no longer than it may run, and the node keeps little of what it makes meanwhile.
        let mut call = stream(&watching, "short", "endless").await;
        assert_eq!(part(&mut call).await, b"first");
        until(async || working(&watching).await == 0, "the end of a function whose client sleeps").await;
        let rest = gathered(call.all().await.unwrap());
        assert!(rest.bytes.len() <= 32 << 20, "{} bytes were kept", rest.bytes.len());
        let error: Value = serde_json::from_slice(&rest.error).unwrap();
        assert_eq!(
            (rest.end.function_error.as_str(), &error["errorType"]),
            ("Unhandled", &json!("Sandbox.Timedout"))
        );
    });
}

#[test]
fn an_endless_answer_ends_at_its_limit() {
    let daemon = daemon(Options::default());
    block_on(async {
        let t = Transport::ttrpc(&daemon.ttrpc()).await;
        let mut call = stream(&t, "parts", "endless").await;
        let (mut sent, mut error) = (0, Vec::new());
        let end = loop {
            match call.next().await.unwrap().unwrap().part.unwrap() {
                Answer::Chunk(chunk) => sent += chunk.len(),
                Answer::Error(part) => error.extend_from_slice(&part),
                Answer::End(end) => break end,
                Answer::Log(_) => panic!("nothing is printed"),
            }
        };
        // The first part, and as many whole ones as fit.
        assert_eq!(sent, (199 << 20) + b"first".len());
        let error: Value = serde_json::from_slice(&error).unwrap();
        assert_eq!(error["errorType"], "Function.ResponseSizeTooLarge");
        assert_eq!(end.function_error, "Unhandled");
        until(async || working(&t).await == 0, "its end").await;
        assert_eq!(answered(&t, "").await.bytes.len(), 7);
    });
}

/// A request to the gateway whose answer is read as it comes.
fn post(daemon: &Coppiced, event: &str) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.gateway()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let event = json!(event).to_string();
    let path = "/2021-11-15/functions/parts/response-streaming-invocations";
    let head = format!("POST {path} HTTP/1.1\r\nhost: here\r\ncontent-length: {}\r\n\r\n", event.len());
    stream.write_all((head + &event).as_bytes()).unwrap();
    stream
}

/// Reads until this has come.
fn read_until(stream: &mut TcpStream, wanted: &[u8]) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while !all.windows(wanted.len()).any(|w| w == wanted) {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "it ends: {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..n]);
    }
    all
}

#[test]
fn events_of_the_gateway_come_while_the_function_runs() {
    // Much shorter than the silence in the middle of an answer.
    let gateway = "idle_timeout_ms = 500\nheader_timeout_ms = 500".to_owned();
    let daemon = daemon(Options { gateway, ..Options::default() });
    let running = || metric(&daemon, "coppice_running{function=\"parts\"}");
    for event in ["wait", "endless"] {
        let mut stream = post(&daemon, event);
        let head = read_until(&mut stream, b"first");
        let text = String::from_utf8_lossy(&head);
        assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("PayloadChunk"), "{text}");
        assert!(text.contains("content-type: application/vnd.amazon.eventstream\r\n"), "{text}");
        assert!(!text.contains("InvokeComplete"), "{text}");
        assert_eq!(running(), 1.0, "it runs yet");
        drop(stream);
        assert!(eventually(|| running() == 0.0), "its client has gone");
    }
    let whole = read_until(&mut post(&daemon, "slow"), b"0\r\n\r\n");
    let text = String::from_utf8_lossy(&whole);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what}: {text}"));
    assert!(at("first") < at("InvokeComplete") && !text.contains("ErrorCode"), "{text}");
    // One that the node cannot finish is told as such.
    let mut stream = post(&daemon, "wait");
    read_until(&mut stream, b"first");
    block_on(async {
        let t = Transport::grpc(&daemon.grpc()).await;
        kill(&t, at_work(&t).await.id).await;
    });
    let end = read_until(&mut stream, b"0\r\n\r\n");
    let text = String::from_utf8_lossy(&end);
    assert!(text.contains("InvokeComplete") && text.contains("Runtime.ExitError"), "{text}");
    for (path, kind, status) in [
        ("none/response-streaming-invocations", "ResourceNotFoundException", 404),
        ("parts/response-streaming-invocations?Qualifier=7", "ResourceNotFoundException", 404),
    ] {
        let path = format!("/2021-11-15/functions/{path}");
        let response = support::gateway::client(&daemon).request("POST", &path, &[], b"1").unwrap();
        assert_eq!((response.status, response.header("x-amzn-errortype")), (status, Some(kind)));
    }
    let path = "/2021-11-15/functions/parts/response-streaming-invocations";
    let kind = [("x-amz-invocation-type", "Event")];
    let response = support::gateway::client(&daemon).request("POST", path, &kind, b"1").unwrap();
    assert_eq!(
        (response.status, response.header("x-amzn-errortype")),
        (400, Some("InvalidParameterValueException"))
    );
}
