//! What functions are told of their callers over the AWS Lambda API: client context and trace.

mod support;

use base64::Engine as _;
use fri_plugin::proto::{FunctionSpec, InvokeHead, LogsRequest};
use serde_json::{Value, json};
use support::daemon::{Coppiced, Options, block_on, python};
use support::fri::{Answered, Failure, Transport, both, gathered, request_messages};
use support::gateway::{PROBE, client, invoke, metric};
use support::left::eventually;

const NODE: &str = "export const handler = async (event, { clientContext: c }) =>\n  \
    [c?.custom ?? null, c?.env ?? null, c?.client?.app_title ?? null, process.env._X_AMZN_TRACE_ID];\n";
const ASKS: &[u8] = br#"{"op": "context"}"#;
const TRACE: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";

/// Calls `js` with a client context.
async fn told(t: &Transport, client_context: &str) -> Result<Answered, Failure> {
    let (function, client_context) = ("js".to_owned(), client_context.to_owned());
    let head = InvokeHead { function, client_context, amzn_trace_id: TRACE.to_owned(), ..Default::default() };
    let mut call = t.call("Instances/Invoke", request_messages(head, b"1")).await?;
    Ok(gathered(call.all().await?))
}

/// Everything that is in a function's log.
async fn printed_by(daemon: &Coppiced, function: &str) -> String {
    let request = LogsRequest { function: function.into(), tail: 100, follow: false };
    let mut lines = daemon.client().await.functions().logs(request).await.unwrap().into_inner();
    let mut all = String::new();
    while let Some(line) = lines.message().await.unwrap() {
        all.push_str(&line.text);
    }
    all
}

#[test]
fn functions_hear_of_their_caller() {
    let mut daemon = Coppiced::start(Options { runtimes: vec!["python", "node"], ..Options::default() });
    let keeps =
        |spec: FunctionSpec| FunctionSpec { name: format!("{}-kept", spec.name), keep_alive: 1, ..spec };
    let node = || FunctionSpec { runtime: "node".into(), ..python("js") };
    for spec in [python("py"), keeps(python("py"))] {
        daemon.deploy(spec, &[("app.py", PROBE)]).unwrap();
    }
    for spec in [node(), keeps(node())] {
        daemon.deploy(spec, &[("app.mjs", NODE)]).unwrap();
    }
    let context = json!({"custom": {"a": "\u{fc}"}, "env": {"locale": "de"}, "client": {"app_title": "app"}});
    let context = base64::engine::general_purpose::STANDARD.encode(context.to_string());
    let headers = [("x-amz-client-context", context.as_str()), ("x-amzn-trace-id", TRACE)];
    let all = json!([{"a": "\u{fc}"}, {"locale": "de"}, "app", TRACE]);
    for name in ["py", "py-kept", "js", "js-kept"] {
        let ask = |headers: &[(&str, &str)]| invoke(&daemon, name, headers, ASKS).json();
        assert_eq!(ask(&headers), all, "{name}");
        // A kept instance does not take one caller's for another's.
        let own = |answer: Value| {
            assert_eq!(answer.as_array().unwrap()[..3], [Value::Null, Value::Null, Value::Null], "{name}");
            answer[3].as_str().unwrap().to_owned()
        };
        let (first, second) = (own(ask(&[])), own(ask(&[("x-amzn-trace-id", &"x".repeat(257))])));
        assert!(first.starts_with("Root=1-") && second.starts_with("Root=1-"), "{first} {second}");
        assert!(first != TRACE && second != TRACE && first != second, "{first} {second}");
        assert_eq!(own(ask(&headers[1..])), TRACE, "{name}");
        assert_eq!(ask(&headers), all, "{name}");
        let kept = format!("coppice_requests_total{{function=\"{name}\",level=\"2\",source=\"kept\"}}");
        assert_eq!(metric(&daemon, &kept), if name.ends_with("kept") { 4.0 } else { 0.0 }, "{name}");
    }
    // Later: its trace only.
    let event = [&headers[..], &[("x-amz-invocation-type", "Event")]].concat();
    let show = br#"{"op": "context", "print": true}"#;
    assert_eq!(invoke(&daemon, "py", &event, show).status, 202);
    let printed = format!("[None, None, None, '{TRACE}']");
    assert!(eventually(|| block_on(printed_by(&daemon, "py")).contains(&printed)));
    // Streamed, and as HTTP requests, which have a trace only.
    let path = "/2021-11-15/functions/py/response-streaming-invocations";
    let streamed = client(&daemon).request("POST", path, &headers, ASKS).unwrap();
    let text = String::from_utf8_lossy(&streamed.body).into_owned();
    assert!(text.contains(r#""locale": "de""#) && text.contains(TRACE), "{text}");
    let answer: Value = client(&daemon).request("GET", "/fn/js/", &headers, b"").unwrap().json();
    assert_eq!(answer, json!([null, null, null, TRACE]));
    // Over the Function Runtime Interface, which takes the JSON itself.
    block_on(async {
        for t in both(&daemon).await {
            let answered = told(&t, r#"{"custom": 1}"#).await.unwrap();
            let answer: Value = serde_json::from_slice(&answered.bytes).unwrap();
            assert_eq!(answer, json!([1, null, null, TRACE]));
            for bad in [r#"{"custom": "#, "[]"] {
                assert_eq!(told(&t, bad).await.err().unwrap().code(), "Request.Malformed");
            }
        }
    });
    assert!(daemon.stop().success());
}
