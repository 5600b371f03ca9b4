//! Programs that speak the AWS Lambda Runtime API: their environment, and what their invocations say beside the event.

use crate::caller::{self, Caller};
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
pub(crate) fn invocation(
    function: &Function,
    event: &[u8],
    id: &str,
    timeout_ms: u64,
    caller: Option<&Caller>,
) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline = now.as_millis() + u128::from(timeout_ms);
    let arn = format!("arn:aws:lambda:{REGION}:000000000000:function:{}", function.name);
    let context = caller.and_then(Caller::client_context).map(|c| ("Client-Context", caller::header(c)));
    let fields = [
        ("Aws-Request-Id", id.to_owned()),
        ("Deadline-Ms", deadline.to_string()),
        ("Invoked-Function-Arn", arn),
        ("Trace-Id", caller::trace(caller)),
    ];
    // A name with a line end in it must not add lines.
    let line = |(name, value): (&str, String)| {
        format!("Lambda-Runtime-{name}: {}\r\n", value.replace(['\r', '\n'], " "))
    };
    guest::lambda::invocation(id, &fields.into_iter().chain(context).map(line).collect::<String>(), event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;

    #[test]
    fn a_program_hears_of_its_caller_in_header_lines() {
        let function = Function {
            name: "f".into(),
            runtime: Runtime::Provided,
            dir: "/".into(),
            file: "bootstrap".into(),
            module: String::new(),
            function: "h".into(),
            memory: 128 << 20,
            timeout_ms: 1000,
            cpus: 1,
            env: Vec::new(),
        };
        let text = |caller: Option<&Caller>| {
            String::from_utf8_lossy(&invocation(&function, b"1", "id", 9, caller)).into_owned()
        };
        let context = b"{\r\n\"a\": 1}".to_vec();
        let said = text(Caller::new(Some(context), Some("Root=1-2-3")).unwrap().as_ref());
        assert!(said.contains("\r\nLambda-Runtime-Trace-Id: Root=1-2-3\r\n"), "{said}");
        assert!(said.contains("\r\nLambda-Runtime-Client-Context: {  \"a\": 1}\r\n"), "{said}");
        let said = text(None);
        assert!(said.contains("\r\nLambda-Runtime-Trace-Id: Root=1-"), "{said}");
        assert!(!said.contains("Client-Context"), "{said}");
    }
}
