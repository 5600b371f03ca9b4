//! The HTTP gateway as its clients see it: the AWS Lambda Invoke API, with raw requests and with boto3, and `/fn`.

mod support;

use base64::Engine as _;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use support::daemon::{Coppiced, Options, python};
use support::gateway::{client, invoke, metric, probed};
use support::http::Response;
use support::left::eventually;
use support::{LIMIT, finish, fresh_dir, installed};

fn with_probe(test: impl FnOnce(&Coppiced)) {
    let mut daemon = probed(Options::default());
    test(&daemon);
    assert!(daemon.stop().success());
}

fn tail(response: &Response) -> String {
    let encoded = response.header("x-amz-log-result").unwrap();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).unwrap()).unwrap()
}

/// Status, type of the error, and its fields.
fn refusal(response: &Response) -> (u16, &str, Value) {
    (response.status, response.header("x-amzn-errortype").unwrap_or_default(), response.json())
}

#[test]
fn the_invoke_api_answers_as_lambda_does() {
    with_probe(|daemon| {
        answers_and_names(daemon);
        failures_of_functions(daemon);
        refusals(daemon);
        sizes(daemon);
        listings(daemon);
    });
}

fn answers_and_names(daemon: &Coppiced) {
    let response = invoke(daemon, "probe", &[], b"{\"a\": [1, \"\xc3\xbc\"]}");
    assert_eq!(response.status, 200);
    let id = response.header("x-amzn-requestid").unwrap().to_owned();
    assert_eq!(response.json(), json!({"event": {"a": [1, "ü"]}, "id": id}));
    for (name, value) in [
        ("content-type", Some("application/json")),
        ("x-amz-executed-version", Some("$LATEST")),
        ("x-coppice-version", Some("1")),
        ("x-amz-function-error", None),
        ("x-amz-log-result", None),
    ] {
        assert_eq!(response.header(name), value, "{name}");
    }
    assert_eq!(invoke(daemon, "probe", &[], b"").json()["event"], json!({}));
    assert_eq!(invoke(daemon, "probe", &[], b"null").json()["event"], json!(null));
    for name in [
        "probe:$LATEST",
        "probe%3A%24LATEST",
        "000000000000:function:probe",
        "arn:aws:lambda:us-east-1:000000000000:function:probe",
        "arn%3Aaws%3Alambda%3Aeu-west-1%3A000000000000%3Afunction%3Aprobe",
    ] {
        let response = invoke(daemon, name, &[], b"1");
        assert_eq!(
            (response.status, response.header("x-amz-executed-version")),
            (200, Some("$LATEST")),
            "{name}"
        );
    }
    let path = "/2015-03-31/functions/probe/invocations?Qualifier=1";
    let response = client(daemon).request("POST", path, &[], b"1").unwrap();
    assert_eq!((response.status, response.header("x-amz-executed-version")), (200, Some("1")));
    let response = invoke(daemon, "probe", &[("X-Amz-Invocation-Type", "DryRun")], b"");
    assert_eq!((response.status, response.body.len()), (204, 0));

    let response =
        invoke(daemon, "probe", &[("X-Amz-Log-Type", "Tail")], br#"{"op": "print", "text": "hello"}"#);
    let id = response.header("x-amzn-requestid").unwrap();
    let log = tail(&response);
    assert!(
        log.starts_with(&format!("START RequestId: {id} Version: $LATEST\nhello\nEND RequestId: {id}\n")),
        "{log}"
    );
    assert!(
        log.contains(&format!("\nREPORT RequestId: {id}\tDuration: "))
            && log.contains("\tMemory Size: 256 MB"),
        "{log}"
    );
    let event = json!({"op": "print", "text": "ü".repeat(50_000)}).to_string();
    let log = tail(&invoke(daemon, "probe", &[("x-amz-log-type", "Tail")], event.as_bytes()));
    assert!(
        (4095..=4096).contains(&log.len()) && log.starts_with('ü') && log.contains("\nREPORT "),
        "{}",
        log.len()
    );
}

fn failures_of_functions(daemon: &Coppiced) {
    let headers = [("X-Amz-Log-Type", "Tail")];
    let response = invoke(daemon, "probe", &headers, br#"{"op": "raise"}"#);
    assert_eq!((response.status, response.header("x-amz-function-error")), (200, Some("Unhandled")));
    let error = response.json();
    assert_eq!((&error["errorType"], &error["errorMessage"]), (&json!("ValueError"), &json!("not today")));
    assert!(error["stackTrace"][0].as_str().unwrap().contains("/var/task/app.py"));
    let log = tail(&response);
    assert!(log.contains("[ERROR] ValueError: not today\n") && log.contains("in handler"), "{log}");
    for (name, event, kind, message) in [
        (
            "probe",
            json!({"op": "exit", "status": 7}),
            "Runtime.ExitError",
            "Runtime exited with error: exit status 7",
        ),
        (
            "probe",
            json!({"op": "exit", "status": 0}),
            "Runtime.ExitError",
            "Runtime exited without providing a reason",
        ),
        ("probe", json!({"op": "kill"}), "Runtime.ExitError", "Runtime exited with error: signal: killed"),
        (
            "hasty",
            json!({"op": "sleep", "seconds": 30}),
            "Sandbox.Timedout",
            "Task timed out after 1.00 seconds",
        ),
    ] {
        let response = invoke(daemon, name, &headers, event.to_string().as_bytes());
        assert_eq!(
            (response.status, response.header("x-amz-function-error")),
            (200, Some("Unhandled")),
            "{event}"
        );
        let id = response.header("x-amzn-requestid").unwrap();
        let want = json!({"errorType": kind, "errorMessage": format!("RequestId: {id} Error: {message}")});
        assert_eq!(response.json(), want);
        let log = tail(&response);
        assert!(log.contains(message) && log.contains(&format!("\tError Type: {kind}\t")), "{log}");
    }
    let event = json!({"op": "size", "size": 6 << 20}).to_string();
    let response = invoke(daemon, "probe", &[], event.as_bytes());
    assert_eq!(response.json()["errorType"], "Function.ResponseSizeTooLarge");
}

fn refusals(daemon: &Coppiced) {
    let path = |rest: &str| format!("/2015-03-31/functions/{rest}");
    let not_found = |name: &str| {
        let text = format!("Function not found: arn:aws:lambda:us-east-1:000000000000:function:{name}");
        (404, "ResourceNotFoundException", json!({"Type": "User", "Message": text, "message": text}))
    };
    assert_eq!(refusal(&invoke(daemon, "none", &[], b"{}")), not_found("none"));
    assert_eq!(refusal(&invoke(daemon, "probe:9", &[], b"{}")), not_found("probe:9"));
    assert_eq!(refusal(&invoke(daemon, "probe:prod", &[], b"{}")), not_found("probe:prod"));
    for (name, headers, event, status, kind) in [
        ("probe", &[][..], &b"{"[..], 400, "InvalidRequestContentException"),
        ("probe", &[], b"\xff", 400, "InvalidRequestContentException"),
        ("a%20b", &[], b"{}", 400, "ValidationException"),
        ("%ff", &[], b"{}", 400, "InvalidParameterValueException"),
        ("..%2Fprobe", &[], b"{}", 400, "ValidationException"),
        ("probe", &[("x-amz-invocation-type", "Sometimes")], b"{}", 400, "InvalidParameterValueException"),
        ("probe", &[("x-amz-log-type", "Head")], b"{}", 400, "InvalidParameterValueException"),
        ("probe", &[("x-amz-client-context", "e30")], b"{}", 400, "InvalidRequestContentException"),
        ("probe", &[("x-amz-client-context", "bm8=")], b"{}", 400, "InvalidRequestContentException"),
        ("probe", &[("x-amz-invocation-type", "Event")], b"{", 400, "InvalidRequestContentException"),
        ("none", &[("x-amz-invocation-type", "Event")], b"{}", 404, "ResourceNotFoundException"),
        ("none", &[("x-amz-invocation-type", "DryRun")], b"{}", 404, "ResourceNotFoundException"),
    ] {
        let response = invoke(daemon, name, headers, event);
        let (is, kind_is, body) = refusal(&response);
        assert_eq!((is, kind_is), (status, kind), "{name} {headers:?} {body}");
        assert_eq!(body["Type"], "User");
        assert!(response.header("x-amzn-requestid").is_some());
    }
    assert_eq!(invoke(daemon, "probe", &[("x-amz-client-context", "e30=")], b"1").status, 200);
    let response = client(daemon).get(&path("probe/invocations")).unwrap();
    assert_eq!(response.status, 405);
    assert_eq!(client(daemon).get("/2015-03-31/nothing").unwrap().status, 404);
    // One at once, and none may wait.
    std::thread::scope(|scope| {
        let first = scope.spawn(|| invoke(daemon, "alone", &[], br#"{"op": "sleep", "seconds": 2}"#).status);
        assert!(eventually(|| metric(daemon, "coppice_running{function=\"alone\"}") == 1.0));
        let response = invoke(daemon, "alone", &[], b"{}");
        let (status, kind, body) = refusal(&response);
        assert_eq!((status, kind), (429, "TooManyRequestsException"));
        assert_eq!(body["Reason"], "ReservedFunctionConcurrentInvocationLimitExceeded");
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(first.join().unwrap(), 200);
    });
}

fn sizes(daemon: &Coppiced) {
    // The longest event, and the longest answer: a string of JSON has two quotes.
    let limit = 6 << 20;
    let event = format!("\"{}\"", "y".repeat(limit - 2));
    let response = invoke(daemon, "probe", &[], event.as_bytes());
    // The answer with it is longer still.
    assert_eq!(response.json()["errorType"], "Function.ResponseSizeTooLarge");
    // So are those that fit no channel at all.
    for size in [limit - 1, 10 << 20, 50 << 20] {
        let event = json!({"op": "size", "size": size}).to_string();
        let response = invoke(daemon, "probe", &[], event.as_bytes());
        assert_eq!((response.status, response.header("x-amz-function-error")), (200, Some("Unhandled")));
        assert_eq!(response.json()["errorType"], "Function.ResponseSizeTooLarge", "{size}");
    }
    let event = json!({"op": "size", "size": limit - 2}).to_string();
    let response = invoke(daemon, "probe", &[], event.as_bytes());
    assert_eq!((response.status, response.body.len()), (200, limit));
    let long = vec![b' '; limit + 1];
    let response = invoke(daemon, "probe", &[], &long);
    let (status, kind, body) = refusal(&response);
    assert_eq!((status, kind), (413, "RequestTooLargeException"));
    assert_eq!(
        body["message"],
        "6291457 byte payload is too large for the RequestResponse invocation type (limit 6291456 bytes)"
    );
    let response = invoke(daemon, "probe", &[("x-amz-invocation-type", "Event")], &long[..(1 << 20) + 1]);
    assert_eq!(refusal(&response).0, 413);
}

fn listings(daemon: &Coppiced) {
    let mut client = client(daemon);
    let list = client.get("/2015-03-31/functions/?MaxItems=2").unwrap().json();
    assert_eq!(list["NextMarker"], "hasty");
    let names = |list: &Value| -> Vec<String> {
        list["Functions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["FunctionName"].as_str().unwrap().into())
            .collect()
    };
    assert_eq!(names(&list), ["alone", "hasty"]);
    let list = client.get("/2015-03-31/functions/?Marker=hasty").unwrap().json();
    assert_eq!((names(&list), &list["NextMarker"]), (vec!["probe".to_owned()], &json!(null)));
    let function = client.get("/2015-03-31/functions/probe").unwrap().json();
    let configuration = client.get("/2015-03-31/functions/probe/configuration").unwrap().json();
    assert_eq!(function["Configuration"], configuration);
    assert_eq!((&configuration["Handler"], &configuration["Timeout"]), (&json!("app.handler"), &json!(20)));
    assert_eq!(client.get("/2015-03-31/functions/none").unwrap().status, 404);
}

#[test]
fn events_run_in_the_background_and_are_tried_again() {
    let gateway = "async_queue = 3\nasync_running = 1\nasync_retry_ms = 100".to_owned();
    let mut daemon = probed(Options { gateway, ..Options::default() });
    let count = |what: &str| metric(&daemon, &format!("coppice_async_events_total{{what=\"{what}\"}}"));
    let send = |name: &str, event: Value| {
        let headers = [("X-Amz-Invocation-Type", "Event")];
        invoke(&daemon, name, &headers, event.to_string().as_bytes())
    };
    let response = send("probe", json!(1));
    let empty = (response.status, response.body.len(), response.header("x-amz-function-error"));
    assert_eq!(empty, (202, 0, None));
    assert!(response.header("x-amzn-requestid").is_some());
    assert!(eventually(|| count("done") == 1.0));
    // A function that fails gets its event three times.
    assert_eq!(send("probe", json!({"op": "raise"})).status, 202);
    assert!(eventually(|| count("failed") == 1.0));
    assert_eq!((count("retried"), count("done"), metric(&daemon, "coppice_async_waiting")), (2.0, 1.0, 0.0));
    assert!(daemon.log().contains("an event is given up"), "{}", daemon.log());
    // The queue has a bound.
    for _ in 0..3 {
        assert_eq!(send("probe", json!({"op": "sleep", "seconds": 1})).status, 202);
    }
    let response = send("probe", json!(1));
    assert_eq!((response.status, refusal(&response).1), (429, "TooManyRequestsException"));
    assert_eq!(count("refused"), 1.0);
    assert!(eventually(|| count("done") == 4.0));
    // What has not begun when the daemon ends is told to be gone.
    for _ in 0..3 {
        assert_eq!(send("probe", json!({"op": "sleep", "seconds": 1})).status, 202);
    }
    assert!(eventually(|| metric(&daemon, "coppice_running{function=\"probe\"}") == 1.0));
    assert!(daemon.stop().success());
    assert_eq!(daemon.log().matches("an event is dropped").count(), 2, "{}", daemon.log());
}

/// A virtual environment with packages of PyPI's.
fn python_with(packages: &[&str]) -> std::path::PathBuf {
    let name = packages.join("-").replace("==", "-");
    let dir = installed(&name, |dir| {
        let mut venv = Command::new("/usr/bin/python3");
        venv.args(["-m", "venv"]).arg(dir.join("venv"));
        let mut pip = Command::new(dir.join("venv/bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages);
        vec![venv, pip]
    });
    dir.join("venv/bin")
}

/// A client of AWS's with made-up credentials, and nothing of the user's configuration.
fn aws(mut command: Command) -> Command {
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("NO_PROXY", "*"),
    ] {
        command.env(name, value);
    }
    command
}

#[test]
fn boto3_works_unchanged() {
    let bin = python_with(&["boto3==1.40.0", "botocore==1.40.76"]);
    with_probe(|daemon| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs/lambda_boto3.py");
        let mut command = aws(Command::new(bin.join("python3")));
        command.arg(script).arg(format!("http://{}", daemon.gateway()));
        let outcome = finish(&mut command, b"", LIMIT);
        assert_eq!((outcome.status, outcome.text().as_str()), (0, "all as expected\n"), "{}", outcome.stderr);
    });
}

#[test]
fn the_aws_cli_works_unchanged() {
    let bin = python_with(&["awscli==1.42.0"]);
    with_probe(|daemon| {
        let out = fresh_dir("aws").path().with_extension("json");
        let run = |arguments: &[&str]| {
            let mut command = aws(Command::new(bin.join("aws")));
            command
                .args(["lambda", "--endpoint-url", &format!("http://{}", daemon.gateway())])
                .args(arguments);
            let outcome = finish(&mut command, b"", LIMIT);
            assert_eq!(outcome.status, 0, "{arguments:?}: {}", outcome.stderr);
            serde_json::from_str::<Value>(&outcome.text()).unwrap()
        };
        let out_text = out.to_str().unwrap();
        let told = run(&[
            "invoke",
            "--function-name",
            "probe",
            "--payload",
            r#"{"a": 1}"#,
            "--log-type",
            "Tail",
            out_text,
        ]);
        assert_eq!((&told["StatusCode"], &told["ExecutedVersion"]), (&json!(200), &json!("$LATEST")));
        let answer: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        assert_eq!(answer["event"], json!({"a": 1}));
        let list = run(&["list-functions"]);
        assert_eq!(list["Functions"].as_array().unwrap().len(), 3);
        assert_eq!(
            run(&["get-function", "--function-name", "probe"])["Configuration"]["FunctionName"],
            "probe"
        );
        std::fs::remove_file(out).unwrap();
    });
}

#[test]
fn many_requests_share_a_connection_of_http_2() {
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    with_probe(|daemon| {
        let uri = format!("http://{}/2015-03-31/functions/probe/invocations", daemon.gateway());
        support::daemon::block_on(async {
            let client: Client<_, String> =
                Client::builder(TokioExecutor::new()).http2_only(true).build_http();
            let asked = (0..20).map(|n| {
                let request = hyper::Request::post(&uri).body(n.to_string()).unwrap();
                client.request(request)
            });
            for response in futures::future::join_all(asked).await {
                let response = response.unwrap();
                assert_eq!((response.status().as_u16(), response.version()), (200, hyper::Version::HTTP_2));
                assert!(!response.headers().contains_key("x-amz-function-error"));
            }
        });
    });
}

#[test]
fn http_requests_reach_functions_as_events() {
    with_probe(|daemon| {
        let mut http = client(daemon);
        let headers = [("X-One", "1"), ("Cookie", "a=1; b=2"), ("Content-Type", "application/json")];
        let response = http.request("PATCH", "/fn/probe/a%2Fb/c?x=1&x=2", &headers, b"{\"k\": 1}").unwrap();
        assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
        let id = response.header("apigw-requestid").unwrap().to_owned();
        let event = response.json()["event"].clone();
        for (pointer, want) in [
            ("/version", json!("2.0")),
            ("/rawPath", json!("/a%2Fb/c")),
            ("/rawQueryString", json!("x=1&x=2")),
            ("/queryStringParameters/x", json!("1,2")),
            ("/cookies", json!(["a=1", "b=2"])),
            ("/headers/x-one", json!("1")),
            ("/requestContext/http/method", json!("PATCH")),
            ("/requestContext/http/sourceIp", json!("127.0.0.1")),
            ("/requestContext/requestId", json!(id)),
            ("/body", json!("{\"k\": 1}")),
        ] {
            assert_eq!(event.pointer(pointer), Some(&want), "{pointer}");
        }
        assert_eq!(http.get("/fn/probe").unwrap().json()["event"]["rawPath"], "/");
        assert_eq!(http.get("/fn/probe/").unwrap().json()["event"]["rawPath"], "/");
        let mut ask = |answer: Value| {
            // The event of a plain request has no `op`; the function of this one reads it from the body.
            let event = json!({"op": "http", "answer": answer}).to_string();
            http.request("POST", "/fn/web", &[("content-type", "application/json")], event.as_bytes())
                .unwrap()
        };
        let source = "import json\ndef handler(event, context): return json.loads(event['body'])['answer']\n";
        daemon.deploy(python("web"), &[("app.py", source)]).unwrap();
        let response = ask(
            json!({"statusCode": 418, "headers": {"X-A": "b", "Connection": "close", "Content-Length": "1"},
            "cookies": ["c=1", "d=2"], "body": "/wA=", "isBase64Encoded": true}),
        );
        assert_eq!(
            (response.status, response.body.as_slice(), response.header("x-a")),
            (418, &[0xFF, 0][..], Some("b"))
        );
        let cookies: Vec<&str> =
            response.headers.iter().filter(|(n, _)| n == "set-cookie").map(|(_, v)| v.as_str()).collect();
        assert_eq!((cookies, response.header("connection")), (vec!["c=1", "d=2"], None));
        assert_eq!(ask(json!("text")).body, b"text");
        assert_eq!(ask(json!([1])).json(), json!([1]));
        for bad in [
            json!({"statusCode": 200, "headers": {"a": "b\r\nSet-Cookie: x=1"}}),
            json!({"statusCode": 101}),
            json!({"statusCode": 200, "cookies": ["a\r\n\r\nHTTP/1.1 200 OK"]}),
        ] {
            let response = ask(bad.clone());
            assert_eq!(
                (response.status, response.json()),
                (502, json!({"message": "Internal Server Error"})),
                "{bad}"
            );
            assert_eq!(response.header("set-cookie"), None);
        }
        for (name, status, message) in
            [("none", 404, "Not Found"), ("a%20b", 404, "Not Found"), ("web", 502, "Internal Server Error")]
        {
            let response = client(daemon).get(&format!("/fn/{name}")).unwrap();
            assert_eq!((response.status, response.json()), (status, json!({"message": message})), "{name}");
        }
        let long = vec![b'x'; (6 << 20) + 1];
        assert_eq!(client(daemon).request("POST", "/fn/probe", &[], &long).unwrap().status, 413);
    });
}
