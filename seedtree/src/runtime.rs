//! Language runtimes: how one is started, and the commands that its loop understands.

use crate::caller::Caller;
use crate::proto::Step;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longest event or answer, bytes: AWS Lambda's limit for a synchronous invocation.
pub const MAX_PAYLOAD: usize = 6 << 20;
/// Most bytes of an answer that is streamed in parts, as on AWS Lambda.
pub const MAX_STREAMED: usize = 200 << 20;
/// Longest part of an answer that is streamed, bytes.
pub const MAX_PART: usize = 1 << 20;
/// First byte of a runtime's message that is a part of an answer.
pub const PART: u8 = b'P';

/// A language runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// CPython, `/usr/bin/python3` of the root directory.
    Python,
    /// Node.js, `/usr/local/bin/node` or `/usr/bin/node` of the root directory.
    Node,
    /// A program of the user's that speaks the AWS Lambda Runtime API. It has no language seed: its function seed is taken when it asks for its
    /// first invocation.
    Provided,
}

const PYTHON_LOOP: &str = include_str!("../../guest/runtimes/python/runtime.py");
/// Where the guest has what makes Node.js fit to be forked.
pub(crate) const NODE_HOOK: &str = "/run/coppice/node/fork.js";
/// Files of the Node.js runtime, and what they contain.
const NODE_FILES: [(&str, &[u8]); 3] = [
    ("/run/coppice/node/runtime.js", include_bytes!("../../guest/runtimes/node/runtime.js")),
    (NODE_HOOK, include_bytes!("../../guest/runtimes/node/fork.js")),
    ("/run/coppice/node/fork.node", include_bytes!(concat!(env!("OUT_DIR"), "/fork.node"))),
];

impl Runtime {
    /// Every runtime.
    pub const ALL: [Runtime; 3] = [Runtime::Python, Runtime::Node, Runtime::Provided];

    /// Its name, as in `coppice demo --runtime`.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Python => "python",
            Runtime::Node => "node",
            Runtime::Provided => "provided",
        }
    }

    /// The runtime of that name.
    pub fn named(name: &str) -> Option<Runtime> {
        Runtime::ALL.into_iter().find(|r| r.name() == name)
    }

    /// The runtime for a handler file, by its extension.
    pub fn for_file(path: &Path) -> Option<Runtime> {
        match path.extension()?.to_str()? {
            "py" => Some(Runtime::Python),
            "js" | "mjs" | "cjs" => Some(Runtime::Node),
            _ => None,
        }
    }

    /// Path in the guest of the program that runs the language; a provided program is its own.
    pub fn interpreter(self, rootfs: &Path) -> &'static str {
        let local = "/usr/local/bin/node";
        match self {
            Runtime::Python => "/usr/bin/python3",
            Runtime::Node if std::fs::symlink_metadata(rootfs.join(&local[1..])).is_ok() => local,
            Runtime::Node => "/usr/bin/node",
            Runtime::Provided => "",
        }
    }

    /// What makes an OS seed's child a seed of this language, `None` where there is no such seed. `rootfs` is where the language's program is
    /// looked for.
    pub fn start(self, env: &[(String, String)], rootfs: &Path) -> Option<Step> {
        let (files, argv, own) = match self {
            Runtime::Python => {
                (Vec::new(), vec!["python3", "-c", PYTHON_LOOP], &[("PYTHONDONTWRITEBYTECODE", "1")][..])
            }
            Runtime::Node => (node_files(), vec!["node", "--require", NODE_HOOK, NODE_FILES[0].0], &[][..]),
            Runtime::Provided => return None,
        };
        let bytes = |text: &str| text.as_bytes().to_vec();
        let defaults = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/tmp"),
            ("LANG", "C.UTF-8"),
        ];
        let defaults = defaults.iter().chain(own).map(|(n, v)| (*n, (*v).to_owned()));
        Some(Step::Start {
            files,
            api: false,
            cwd: bytes("/"),
            path: bytes(self.interpreter(rootfs)),
            argv: argv.into_iter().map(bytes).collect(),
            envp: environment(defaults, env),
        })
    }
}

/// The files as a step has them.
pub(crate) fn node_files() -> Vec<(Vec<u8>, Vec<u8>)> {
    NODE_FILES.iter().map(|(path, data)| (path.as_bytes().to_vec(), data.to_vec())).collect()
}

/// Defaults as NAME=VALUE, where the operator's environment does not say otherwise, and that.
pub(crate) fn environment(
    defaults: impl Iterator<Item = (&'static str, String)>,
    env: &[(String, String)],
) -> Vec<Vec<u8>> {
    let unset = defaults.filter(|(name, _)| !env.iter().any(|(n, _)| n == name));
    let mut envp: Vec<Vec<u8>> = unset.map(|(name, value)| format!("{name}={value}").into_bytes()).collect();
    envp.extend(env.iter().map(|(n, v)| format!("{n}={v}").into_bytes()));
    envp
}

/// A user's function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, for logs and the context object.
    pub name: String,
    /// Runtime.
    pub runtime: Runtime,
    /// Directory that holds the module, as the guest sees it.
    pub dir: PathBuf,
    /// The handler's file in it.
    pub file: String,
    /// Module to import.
    pub module: String,
    /// Attribute of the module to call.
    pub function: String,
    /// Memory limit, bytes.
    pub memory: u64,
    /// Time for one request, ms.
    pub timeout_ms: u64,
    /// vCPUs.
    pub cpus: usize,
    /// Environment of its own, set before the handler is imported.
    pub env: Vec<(String, String)>,
}

/// Errors of a function's description.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// Not FILE:HANDLER.
    #[error("'{0}' is not FILE:HANDLER, such as app.py:handler or app.mjs:handler")]
    Form(String),
    /// The file cannot be read.
    #[error("cannot read the handler file {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No runtime for such a file.
    #[error("no runtime for {0}: the file name must end in .py, .js, .mjs or .cjs")]
    Language(PathBuf),
}

impl Function {
    /// Parses `FILE.py:handler`; the file must exist.
    pub fn parse(spec: &str) -> Result<Function, FunctionError> {
        Function::parse_as(spec, None)
    }

    /// The same with a runtime of the caller's choice instead of the one that the file's extension says.
    pub fn parse_as(spec: &str, runtime: Option<Runtime>) -> Result<Function, FunctionError> {
        let form = || FunctionError::Form(spec.to_owned());
        let (file, function) = spec.rsplit_once(':').ok_or_else(form)?;
        if file.is_empty() || function.is_empty() {
            return Err(form());
        }
        let path = std::fs::canonicalize(file)
            .and_then(|p| std::fs::File::open(&p).map(|_| p))
            .map_err(|source| FunctionError::File { path: file.into(), source })?;
        let runtime = runtime
            .or_else(|| Runtime::for_file(&path))
            .ok_or_else(|| FunctionError::Language(path.clone()))?;
        let module = path.file_stem().and_then(|s| s.to_str()).ok_or_else(form)?.to_owned();
        let name = path.file_name().and_then(|s| s.to_str()).ok_or_else(form)?.to_owned();
        let dir = path.parent().ok_or_else(form)?.to_owned();
        Ok(Function {
            name: module.clone(),
            runtime,
            dir,
            file: name,
            module,
            function: function.to_owned(),
            memory: 512 << 20,
            timeout_ms: 30_000,
            cpus: 1,
            env: Vec::new(),
        })
    }

    /// Describes a provided program: an executable file, or a directory with one named `bootstrap`. `handler` is what it finds in `_HANDLER`.
    pub fn provided(path: &Path, handler: &str) -> Result<Function, FunctionError> {
        let refuse = |source| FunctionError::File { path: path.into(), source };
        let mut file = std::fs::canonicalize(path).map_err(refuse)?;
        if file.is_dir() {
            file.push("bootstrap");
        }
        std::fs::File::open(&file).map_err(|source| FunctionError::File { path: file.clone(), source })?;
        let form = || FunctionError::Form(path.display().to_string());
        let dir = file.parent().ok_or_else(form)?.to_owned();
        let name = file.file_name().and_then(|s| s.to_str()).ok_or_else(form)?.to_owned();
        let called = if name == "bootstrap" { dir.file_name().and_then(|s| s.to_str()) } else { None };
        Ok(Function {
            name: called.unwrap_or(&name).to_owned(),
            runtime: Runtime::Provided,
            dir,
            module: name.clone(),
            file: name,
            function: handler.to_owned(),
            memory: 512 << 20,
            timeout_ms: 30_000,
            cpus: 1,
            env: Vec::new(),
        })
    }

    /// What makes an OS seed's child ready for [`Function::import_command`].
    pub fn start(&self, env: &[(String, String)], rootfs: &Path) -> Step {
        self.runtime.start(env, rootfs).unwrap_or_else(|| crate::provided::start(self, env))
    }

    /// The command that imports the handler.
    pub fn import_command(&self) -> Vec<u8> {
        let env: BTreeMap<&str, &str> = self.env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let body = json!({
            "dir": self.dir.to_string_lossy(), "file": self.file, "module": self.module, "function": self.function,
            "env": env,
        });
        let mut bytes = vec![b'I'];
        bytes.extend(body.to_string().into_bytes());
        bytes
    }

    /// The command that serves an event once in the seed, before it is paused.
    pub fn warm_up_command(&self, event: &[u8]) -> Vec<u8> {
        self.invoke_command(event, "warm-up", self.timeout_ms, false, None)
    }

    /// The command that serves a request within a time, ms. The event is JSON text already, and is not parsed again. With `stream` the function
    /// may answer in parts.
    pub fn invoke_command(
        &self,
        event: &[u8],
        request_id: &str,
        timeout_ms: u64,
        stream: bool,
        caller: Option<&Caller>,
    ) -> Vec<u8> {
        if self.runtime == Runtime::Provided {
            return crate::provided::invocation(self, event, request_id, timeout_ms, caller);
        }
        let context = json!({
            "request_id": request_id,
            "function_name": self.name,
            "memory_limit_in_mb": self.memory >> 20,
            "timeout_ms": timeout_ms,
            "log_group_name": format!("/coppice/{}", self.name),
            "log_stream_name": request_id,
            "trace": crate::caller::trace(caller),
        })
        .to_string();
        let client_context = caller.and_then(Caller::client_context);
        let more = client_context.map_or(0, str::len);
        let mut bytes = Vec::with_capacity(event.len() + context.len() + more + 64);
        bytes.extend_from_slice(b"V{\"context\":");
        bytes.extend_from_slice(context.as_bytes());
        bytes.pop();
        if let Some(client_context) = client_context {
            bytes.extend_from_slice(b",\"client_context\":");
            bytes.extend_from_slice(client_context.as_bytes());
        }
        if stream {
            bytes.extend_from_slice(b",\"stream\":true");
        }
        bytes.push(b'}');
        bytes.extend_from_slice(b",\"event\":");
        bytes.extend_from_slice(event);
        bytes.push(b'}');
        bytes
    }
}

/// What a runtime answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The handler is imported.
    Imported,
    /// The handler's result, JSON text; of a Node.js handler that streams, what it wrote. Empty where it was streamed in parts.
    Result(Vec<u8>),
    /// The function's own error, JSON text with errorMessage, errorType, stackTrace.
    Error(Vec<u8>),
    /// Not an answer of the protocol.
    Malformed,
}

impl Reply {
    /// Splits an answer's status byte from its body.
    pub fn parse(mut bytes: Vec<u8>) -> Reply {
        if bytes.is_empty() {
            return Reply::Malformed;
        }
        match bytes.remove(0) {
            b'R' => Reply::Imported,
            b'K' => Reply::Result(bytes),
            b'E' => Reply::Error(bytes),
            _ => Reply::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_a_file_and_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.py");
        std::fs::write(&file, "def handler(e, c): return e\n").unwrap();
        let f = Function::parse(&format!("{}:handler", file.display())).unwrap();
        assert_eq!((f.module.as_str(), f.function.as_str()), ("app", "handler"));
        assert!(matches!(Function::parse("app.py"), Err(FunctionError::Form(_))));
        assert!(matches!(Function::parse("/nowhere/x.py:h"), Err(FunctionError::File { .. })));
        let other = dir.path().join("app.rb");
        std::fs::write(&other, "").unwrap();
        assert!(matches!(
            Function::parse(&format!("{}:h", other.display())),
            Err(FunctionError::Language(_))
        ));
    }

    #[test]
    fn the_invoke_command_is_json_around_the_event() {
        let f = Function {
            name: "f".into(),
            runtime: Runtime::Python,
            dir: "/".into(),
            file: "m.py".into(),
            module: "m".into(),
            function: "h".into(),
            memory: 128 << 20,
            timeout_ms: 1000,
            cpus: 1,
            env: Vec::new(),
        };
        let bytes = f.invoke_command(br#"{"a":[1]}"#, "id-1", 700, true, None);
        let value: serde_json::Value = serde_json::from_slice(&bytes[1..]).unwrap();
        assert_eq!(value["event"]["a"][0], 1);
        assert_eq!(value["context"]["request_id"], "id-1");
        assert_eq!(value["context"]["timeout_ms"], 700);
        assert_eq!(value["context"]["stream"], true);
        let bytes = f.invoke_command(b"1", "id-1", 700, false, None);
        let value: serde_json::Value = serde_json::from_slice(&bytes[1..]).unwrap();
        assert_eq!((&value["context"]["stream"], &value["event"]), (&serde_json::Value::Null, &json!(1)));
        assert_eq!(value["context"].get("client_context"), None);
        let caller = Caller::new(Some(br#"{"custom": {}}"#.to_vec()), Some("Root=\"1\"")).unwrap();
        let bytes = f.invoke_command(b"1", "id-1", 700, true, caller.as_ref());
        let value: serde_json::Value = serde_json::from_slice(&bytes[1..]).unwrap();
        assert_eq!(value["context"]["client_context"], json!({"custom": {}}));
        assert_eq!(
            (&value["context"]["trace"], &value["context"]["stream"]),
            (&json!("Root=\"1\""), &json!(true))
        );
    }
}
