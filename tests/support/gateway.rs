//! What the tests of the gateway share: a function that does what its event says, requests, and counters.

use super::daemon::{Coppiced, Options, python};
use super::http::{Client, Response};
use fri_plugin::proto::FunctionSpec;
use std::time::Duration;

/// Does what the event's `op` says, and answers with the event.
pub const PROBE: &str = r#"
import os, sys, time
def handler(event, context):
    op = event.get("op") if isinstance(event, dict) else None
    if op == "print":
        print(event["text"], flush=True)
    if op == "raise":
        raise ValueError("not today")
    if op == "exit":
        os._exit(event["status"])
    if op == "kill":
        os.kill(os.getpid(), 9)
    if op == "sleep":
        time.sleep(event["seconds"])
    if op == "size":
        return "x" * event["size"]
    if op == "stream":
        return pieces(event)
    if op == "context":
        told = context.client_context
        title = told and told.client and told.client.app_title
        answer = [told and told.custom, told and told.env, title, os.environ.get("_X_AMZN_TRACE_ID")]
        if "print" in event:
            print(answer)
        return answer
    return {"event": event, "id": context.aws_request_id}
def pieces(event):
    yield "first"
    print("between", flush=True)
    if "seconds" in event:
        time.sleep(event["seconds"])
    if "raise" in event:
        raise ValueError("midway")
    yield b"y" * event.get("size", 0)
    yield bytes([0, 255])
"#;

/// A daemon with the function `probe`; `hasty`, which has one second; and `alone`, which serves one request at once and queues none.
pub fn probed(options: Options) -> Coppiced {
    let daemon = Coppiced::start(options);
    let code = [("app.py", PROBE)];
    daemon.deploy(python("probe"), &code).unwrap();
    daemon.deploy(FunctionSpec { timeout_ms: 1_000, ..python("hasty") }, &code).unwrap();
    daemon.deploy(FunctionSpec { concurrency: 1, queue: Some(0), ..python("alone") }, &code).unwrap();
    daemon
}

/// A client of the gateway with a connection of its own.
pub fn client(daemon: &Coppiced) -> Client {
    Client::new(daemon.gateway(), Duration::from_secs(30))
}

/// `POST .../NAME/invocations` with headers, over a connection of its own.
pub fn invoke(daemon: &Coppiced, name: &str, headers: &[(&str, &str)], event: &[u8]) -> Response {
    let path = format!("/2015-03-31/functions/{name}/invocations");
    client(daemon).request("POST", &path, headers, event).unwrap()
}

/// The value of a series of the metrics, as `NAME{labels}` has it; 0 where there is none.
pub fn metric(daemon: &Coppiced, series: &str) -> f64 {
    let response = Client::new(daemon.metrics(), Duration::from_secs(30)).get("/metrics").unwrap();
    assert_eq!(response.status, 200);
    let text = String::from_utf8(response.body).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |v| v.parse().unwrap())
}
