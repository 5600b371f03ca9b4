//! What a daemon tells of itself over HTTP: metrics that equal what was done, traces of one request, health.

mod support;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::daemon::{Coppiced, Options, block_on, python};
use support::fri::until;
use support::gateway::{client, invoke, metric, probed};
use support::http::Client;
use support::left::eventually;

fn metrics_text(daemon: &Coppiced) -> String {
    let response = Client::new(daemon.metrics(), Duration::from_secs(30)).get("/metrics").unwrap();
    assert!(response.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    String::from_utf8(response.body).unwrap()
}

#[test]
fn metrics_equal_what_was_done() {
    let mut daemon = probed(Options::default());
    let spared =
        fri_plugin::proto::FunctionSpec { spares: Some(2), warm_event: "1".into(), ..python("spared") };
    daemon.deploy(spared, &[("app.py", support::gateway::PROBE)]).unwrap();
    assert!(daemon.deploy(python("broken"), &[("app.py", "raise ValueError(1)")]).is_err());
    let mut http = client(&daemon);
    for _ in 0..7 {
        assert_eq!(http.invoke("probe", b"1").unwrap().status, 200);
    }
    for event in
        [json!({"op": "raise"}), json!({"op": "exit", "status": 3}), json!({"op": "exit", "status": 3})]
    {
        assert_eq!(http.invoke("probe", event.to_string().as_bytes()).unwrap().status, 200);
    }
    assert_eq!(http.invoke("probe", b"{").unwrap().status, 400);
    assert_eq!(http.invoke("none", b"1").unwrap().status, 404);
    assert_eq!(http.get("/fn/probe/x").unwrap().status, 200);
    assert!(eventually(|| metric(&daemon, "coppice_spares_ready{function=\"spared\"}") == 2.0));
    assert_eq!(http.invoke("spared", b"1").unwrap().status, 200);
    let of = |series: &str| metric(&daemon, series);
    for (series, want) in [
        (r#"coppice_requests_total{function="probe",level="2",source="fork"}"#, 9.0),
        (r#"coppice_requests_total{function="spared",level="2",source="spare"}"#, 1.0),
        (r#"coppice_errors_total{function="probe",code="Function.Unhandled"}"#, 1.0),
        (r#"coppice_errors_total{function="probe",code="Runtime.ExitError"}"#, 2.0),
        (r#"coppice_refusals_total{function="probe",code="Request.NotJson"}"#, 1.0),
        (r#"coppice_phase_seconds_count{function="probe",level="2",phase="run"}"#, 9.0),
        (r#"coppice_phase_seconds_count{function="probe",level="2",phase="clone"}"#, 9.0),
        (r#"coppice_phase_seconds_bucket{le="60.0",function="probe",level="2",phase="total"}"#, 9.0),
        (r#"coppice_phase_seconds_count{function="spared",level="2",phase="clone"}"#, 0.0),
        (r#"coppice_phase_seconds_count{function="spared",level="2",phase="total"}"#, 1.0),
        (r#"coppice_gateway_answers_total{api="invoke",status="2xx"}"#, 11.0),
        (r#"coppice_gateway_answers_total{api="invoke",status="4xx"}"#, 2.0),
        (r#"coppice_gateway_answers_total{api="fn",status="2xx"}"#, 1.0),
        (r#"coppice_deploys_total{result="done"}"#, 4.0),
        (r#"coppice_deploys_total{result="failed"}"#, 1.0),
        ("coppice_unknown_requests_total", 1.0),
        ("coppice_functions", 4.0),
        (r#"coppice_seeds{level="0"}"#, 1.0),
        (r#"coppice_seeds{level="1"}"#, 1.0),
        (r#"coppice_seeds{level="2"}"#, 4.0),
        (r#"coppice_spares_wanted{function="spared"}"#, 2.0),
        (r#"coppice_running{function="probe"}"#, 0.0),
        (r#"coppice_fork_queue{seed="probe",level="2"}"#, 0.0),
    ] {
        assert_eq!(of(series), want, "{series}");
    }
    assert!(of(r#"coppice_exits_total{function="probe",level="2"}"#) > 9.0);
    assert!(of(r#"coppice_faults_total{function="probe",level="2"}"#) > 9.0);
    assert!(of("coppice_daemon_descriptors") > 10.0 && of("coppice_daemon_resident_bytes") > 1e6);
    // Memory is read in the background.
    assert!(eventually(|| of(r#"coppice_seed_pss_bytes{seed="python",level="1"}"#) > 1e5));
    assert!(of("coppice_sandboxes_pss_bytes") > 1e6);
    // What is taken away takes its series along.
    let removal = fri_plugin::proto::RemoveFunctionRequest { name: "probe".into() };
    block_on(async { daemon.client().await.functions().remove(removal).await.unwrap() });
    assert!(!metrics_text(&daemon).contains("\"probe\""), "{}", metrics_text(&daemon));
    assert!(metrics_text(&daemon).ends_with("# EOF\n"));
    assert!(daemon.stop().success());
}

#[test]
fn who_leaves_before_the_answer_is_counted_and_logged() {
    const LEFT: &str = r#"coppice_errors_total{function="probe",code="Request.Abandoned"}"#;
    let daemon = probed(Options::default());
    let left = || metric(&daemon, LEFT);
    let working = || metric(&daemon, r#"coppice_instances{state="working"}"#);
    // At once answered: not counted.
    assert_eq!(client(&daemon).invoke("probe", b"1").unwrap().status, 200);
    let event = json!({"op": "sleep", "seconds": 30}).to_string();
    let mut stream = TcpStream::connect(daemon.gateway()).unwrap();
    let length = event.len();
    let path = "/2015-03-31/functions/probe/invocations";
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + &event).as_bytes()).unwrap();
    assert!(eventually(|| working() == 1.0));
    assert_eq!(left(), 0.0);
    drop(stream);
    assert!(eventually(|| left() == 1.0));
    block_on(async {
        use fri_plugin::proto::{InvokeHead, InvokeRequest, LogsRequest, invoke_request::Part};
        for (number, stream) in [(2.0, false), (3.0, true)] {
            let (function, payload) = ("probe".to_owned(), event.clone().into());
            let head = InvokeHead { function, payload, stream, ..Default::default() };
            let message = InvokeRequest { part: Some(Part::Head(head)) };
            let caller = daemon.client().await;
            let call =
                tokio::spawn(
                    async move { caller.instances().invoke(futures::stream::iter([message])).await },
                );
            until(async || working() == 1.0, "the request is at work").await;
            call.abort();
            // Of a streamed answer it has begun.
            drop(call.await);
            until(async || left() == number, "it is counted").await;
        }
        let request = LogsRequest { function: "probe".into(), tail: 100, follow: false };
        let mut lines = daemon.client().await.functions().logs(request).await.unwrap().into_inner();
        let mut told = 0;
        while let Some(line) = lines.message().await.unwrap() {
            if line.text.starts_with("[ERROR] Request.Abandoned: ") {
                assert!(!line.instance.is_empty() && !line.request_id.is_empty(), "{line:?}");
                told += 1;
            }
        }
        assert_eq!(told, 3);
    });
}

#[test]
fn health_and_readiness_are_told_at_both_addresses() {
    let mut daemon = Coppiced::start(Options::default());
    for address in [daemon.gateway(), daemon.metrics()] {
        let mut client = Client::new(address, Duration::from_secs(10));
        for path in ["/healthz", "/readyz"] {
            let response = client.get(path).unwrap();
            assert_eq!((response.status, response.body.as_slice()), (200, &b"ok\n"[..]), "{path}");
        }
        assert_eq!(client.get("/metrics").unwrap().status, 200);
    }
    // The address of the metrics offers nothing else.
    assert_eq!(Client::new(daemon.metrics(), Duration::from_secs(10)).get("/fn/x").unwrap().status, 404);
    assert!(daemon.stop().success());
}

#[test]
fn a_daemon_is_not_ready_until_its_seeds_are_there() {
    use fri_plugin::daemon::{Daemon, start::Sandboxes};
    let directory = support::fresh_dir("g");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = fri_plugin::config::Config {
        state: directory.path().join("state"),
        run: directory.path().join("run"),
        runtimes: vec![seedtree::runtime::Runtime::Python],
        ..Default::default()
    };
    let exe = env!("CARGO_BIN_EXE_coppice").into();
    let sandboxes = Sandboxes { exe, ..Sandboxes::default() };
    let daemon = runtime.block_on(Daemon::start(config, sandboxes)).unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let mut client = Client::new(listener.local_addr().unwrap(), Duration::from_secs(10));
    let limits = fri_plugin::gateway::Limits::default();
    runtime.spawn(fri_plugin::gateway::serve(daemon.clone(), listener, limits, std::future::pending()));
    let mut told = |path: &str| {
        let response = client.get(path).unwrap();
        (response.status, String::from_utf8(response.body).unwrap())
    };
    assert_eq!(told("/readyz"), (503, "seeds are being grown\n".to_owned()));
    assert_eq!(told("/healthz").0, 200);
    runtime.block_on(daemon.grow_languages(|_| ())).unwrap();
    assert_eq!(told("/readyz").0, 200);
    runtime.block_on(daemon.drain(None));
    assert_eq!(told("/readyz"), (503, "draining\n".to_owned()));
    // Without its OS seed it is of no use.
    let os = daemon.node().seeds().first().unwrap().pid();
    rustix::process::kill_process(rustix::process::Pid::from_raw(os).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    assert!(eventually(
        || told("/healthz").0 == 503 || daemon.node().seeds().first().is_some_and(|s| s.pid() != os)
    ));
}

#[test]
fn the_log_may_be_json() {
    let directory = support::fresh_dir("g");
    let config = directory.path().join("coppiced.toml");
    let (state, run) = (directory.path().join("state"), directory.path().join("run"));
    let off = "[gateway]\nlisten = \"off\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&config, format!("state = {state:?}\nrun = {run:?}\nruntimes = []\n{off}")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_coppiced"));
    command.args(["--log", "json", "--config"]).arg(&config).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let listening = lines.by_ref().map_while(Result::ok).find(|l| l.contains("listening"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(support::wait(&mut child, support::LIMIT).0.success(), "{rest:?}");
    let line: serde_json::Value = serde_json::from_str(&listening.unwrap()).unwrap();
    assert_eq!((&line["level"], &line["key"]), (&json!("INFO"), &json!("metrics.listen")));
}

/// An OTLP endpoint that keeps the spans it is sent.
fn sink() -> (SocketAddr, Arc<Mutex<Vec<Span>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let spans = Arc::new(Mutex::new(Vec::new()));
    let kept = spans.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut reader, kept) = (BufReader::new(stream.unwrap()), kept.clone());
            std::thread::spawn(move || {
                loop {
                    let mut length = 0;
                    let mut lines = 0;
                    loop {
                        let mut line = String::new();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        lines += 1;
                        assert!(lines > 1 || line.starts_with("POST /v1/traces "), "{line}");
                        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = n.trim().parse().unwrap();
                        }
                        if line == "\r\n" {
                            break;
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
                    let sent = request.resource_spans.into_iter().flat_map(|r| r.scope_spans);
                    kept.lock().unwrap().extend(sent.flat_map(|s| s.spans));
                    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    (address, spans)
}

#[test]
fn a_request_is_one_trace_from_the_gateway_to_the_end() {
    let (address, spans) = sink();
    let more = format!("[traces]\notlp = \"http://{address}\"\nsample = 0.0\n");
    let mut daemon = probed(Options { more, ..Options::default() });
    // Without a trace of the caller's, a share of none is traced.
    assert_eq!(invoke(&daemon, "probe", &[], b"1").status, 200);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let response = invoke(&daemon, "probe", &[("traceparent", parent)], b"1");
    let id = response.header("x-amzn-requestid").unwrap().to_owned();
    let refused = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(
        invoke(&daemon, "alone", &[("traceparent", refused)], br#"{"op": "exit", "status": 1}"#).status,
        200
    );
    let queued = "00-2af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", queued), ("x-amz-invocation-type", "Event")];
    assert_eq!(invoke(&daemon, "probe", &headers, b"1").status, 202);
    let done = || metric(&daemon, r#"coppice_async_events_total{what="done"}"#);
    assert!(eventually(|| done() == 1.0));
    let called = "00-3af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    block_on(async {
        use fri_plugin::proto::{InvokeHead, InvokeRequest, invoke_request::Part};
        for (traceparent, logs) in [(called, false), ("", false), (called, true)] {
            let (function, payload) = ("probe".to_owned(), "1".into());
            let head =
                InvokeHead { function, payload, logs, traceparent: traceparent.into(), ..Default::default() };
            let message = InvokeRequest { part: Some(Part::Head(head)) };
            let client = daemon.client().await;
            let answers = client.instances().invoke(futures::stream::iter([message])).await;
            let mut answers = answers.unwrap().into_inner();
            while answers.message().await.unwrap().is_some() {}
        }
    });
    // The last ones are sent when the daemon ends.
    assert!(daemon.stop().success());
    let spans = spans.lock().unwrap();
    let trace = |id: &[u8]| -> BTreeMap<String, Span> {
        let of = spans.iter().filter(|s| s.trace_id == id);
        of.map(|s| (s.name.clone(), s.clone())).collect()
    };
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    };
    let first = trace(&hex(&parent[3..35]));
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    assert_eq!(names, ["clone", "gateway", "invoke", "lookup", "prefill", "queue", "run", "teardown", "vm"]);
    let root = &first["invoke"];
    assert_eq!(root.parent_span_id, hex(&parent[36..52]));
    let attribute = |name: &str| {
        let value = root.attributes.iter().find(|a| a.key == name).and_then(|a| a.value.clone());
        format!("{value:?}")
    };
    assert!(attribute("faas.name").contains("probe") && attribute("faas.invocation_id").contains(&id));
    let mut at = root.start_time_unix_nano;
    for name in ["gateway", "queue", "lookup", "clone", "vm", "prefill", "run", "teardown"] {
        let span = &first[name];
        assert_eq!(span.parent_span_id, root.span_id, "{name}");
        assert!(span.start_time_unix_nano >= at, "{name} begins before what comes before it");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{name}");
        at = span.start_time_unix_nano;
    }
    assert!(first["run"].end_time_unix_nano > first["run"].start_time_unix_nano);
    assert!(first["teardown"].end_time_unix_nano <= root.end_time_unix_nano);
    let failed = trace(&hex(&refused[3..35]));
    assert_eq!(failed["invoke"].status.as_ref().unwrap().message, "Runtime.ExitError");
    let event = trace(&hex(&queued[3..35]));
    assert!(event["invoke"].kind() == SpanKind::Consumer && event.contains_key("run"), "{event:?}");
    let (waiting, run) = (&event["waiting"], &event["run"]);
    assert!(waiting.end_time_unix_nano <= run.start_time_unix_nano);
    let call = trace(&hex(&called[3..35]));
    assert_eq!(call["invoke"].parent_span_id, hex(&called[36..52]));
    assert!(call["fri"].end_time_unix_nano <= call["run"].start_time_unix_nano, "{call:?}");
    let all = first.len() + failed.len() + event.len() + 2 * call.len();
    assert_eq!(spans.len(), all, "the request that was not sampled is traced");
}
