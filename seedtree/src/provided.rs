//! Programs that speak the AWS Lambda Runtime API: their environment, and what their invocations say beside the event.

use crate::proto::Step;
use crate::runtime::{Function, NODE_HOOK, environment, node_files};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where programs of no region think that they are.
const REGION: &str = "us-east-1";

/// The step that starts a function's program, with the environment that it has on AWS Lambda.
pub(crate) fn start(function: &Function, env: &[(String, String)]) -> Step {
    let root = function.dir.display().to_string();
    let libraries = format!("/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:{root}:{root}/lib:/opt/lib");
    let defaults = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin".to_owned()),
        ("HOME", "/tmp".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TZ", ":UTC".to_owned()),
        ("LD_LIBRARY_PATH", libraries),
        ("LAMBDA_TASK_ROOT", root.clone()),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime".to_owned()),
        ("_HANDLER", function.function.clone()),
        ("AWS_LAMBDA_RUNTIME_API", format!("127.0.0.1:{}", guest::lambda::PORT)),
        ("AWS_LAMBDA_FUNCTION_NAME", function.name.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", (function.memory >> 20).to_string()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/coppice/{}", function.name)),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "seed".to_owned()),
        // What SnapStart calls a snapshot is a seed: clients that know of it run their hooks after each fork.
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start".to_owned()),
        // To Node.js only, and without it a fork repeats keys: see guest/runtimes/node/fork.js.
        ("NODE_OPTIONS", format!("--require={}", NODE_HOOK)),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_DEFAULT_REGION", REGION.to_owned()),
    ];
    let path = function.dir.join(&function.file).into_os_string().into_encoded_bytes();
    Step::Start {
        files: node_files(),
        api: true,
        cwd: root.into_bytes(),
        argv: vec![path.clone()],
        path,
        envp: environment(defaults.into_iter(), env),
    }
}

/// The command for an invocation.
pub(crate) fn invocation(function: &Function, event: &[u8], id: &str, timeout_ms: u64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline = now.as_millis() + u128::from(timeout_ms);
    let arn = format!("arn:aws:lambda:{REGION}:000000000000:function:{}", function.name);
    // The form of AWS X-Ray; both numbers only have to differ from those of other requests.
    let trace = format!(
        "Root=1-{:08x}-{:024x};Parent={:016x};Sampled=0",
        now.as_secs(),
        now.as_nanos(),
        now.as_micros()
    );
    let fields = [
        ("Aws-Request-Id", id.to_owned()),
        ("Deadline-Ms", deadline.to_string()),
        ("Invoked-Function-Arn", arn),
        ("Trace-Id", trace),
    ];
    // A name with a line end in it must not add lines.
    let line = |(name, value): (&str, String)| {
        format!("Lambda-Runtime-{name}: {}\r\n", value.replace(['\r', '\n'], " "))
    };
    guest::lambda::invocation(id, &fields.map(line).concat(), event)
}
