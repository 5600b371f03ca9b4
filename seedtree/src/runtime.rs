//! Language runtimes: how one is started, and the commands that its loop understands.

use crate::proto::Step;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Longest event or answer, bytes: AWS Lambda's limit for a synchronous invocation.
pub const MAX_PAYLOAD: usize = 6 << 20;

/// A language runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runtime {
    /// CPython, `/usr/bin/python3` of the root directory.
    Python,
    /// Node.js, `/usr/local/bin/node` or `/usr/bin/node` of the root directory.
    Node,
}

const PYTHON_LOOP: &str = include_str!("../../guest/runtimes/python/runtime.py");
/// Files of the Node.js runtime, and what they contain.
const NODE_FILES: [(&str, &[u8]); 3] = [
    ("/run/coppice/node/runtime.js", include_bytes!("../../guest/runtimes/node/runtime.js")),
    ("/run/coppice/node/fork.js", include_bytes!("../../guest/runtimes/node/fork.js")),
    ("/run/coppice/node/fork.node", include_bytes!(concat!(env!("OUT_DIR"), "/fork.node"))),
];

/// How a runtime's program is started.
struct Program {
    files: &'static [(&'static str, &'static [u8])],
    path: &'static str,
    argv: Vec<&'static str>,
    /// Beyond what every runtime gets.
    env: &'static [(&'static str, &'static str)],
}

impl Runtime {
    /// Every runtime.
    pub const ALL: [Runtime; 2] = [Runtime::Python, Runtime::Node];

    /// Its name, as in `coppice demo --runtime`.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Python => "python",
            Runtime::Node => "node",
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

    /// Path in the guest of the program that runs the language.
    pub fn interpreter(self, rootfs: &Path) -> &'static str {
        let local = "/usr/local/bin/node";
        match self {
            Runtime::Python => "/usr/bin/python3",
            Runtime::Node if std::fs::symlink_metadata(rootfs.join(&local[1..])).is_ok() => local,
            Runtime::Node => "/usr/bin/node",
        }
    }

    fn program(self, rootfs: &Path) -> Program {
        let path = self.interpreter(rootfs);
        match self {
            Runtime::Python => Program {
                files: &[],
                path,
                argv: vec!["python3", "-c", PYTHON_LOOP],
                env: &[("PYTHONDONTWRITEBYTECODE", "1")],
            },
            Runtime::Node => Program {
                files: &NODE_FILES,
                path,
                argv: vec!["node", "--require", NODE_FILES[1].0, NODE_FILES[0].0],
                env: &[],
            },
        }
    }

    /// What makes an OS seed's child a seed of this language. `rootfs` is where its program is looked for.
    pub fn start(self, env: &[(String, String)], rootfs: &Path) -> Step {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let Program { files, path, argv, env: own } = self.program(rootfs);
        let defaults = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/tmp"),
            ("LANG", "C.UTF-8"),
        ];
        let mut envp: Vec<Vec<u8>> = Vec::new();
        for (name, value) in defaults.iter().chain(own) {
            if !env.iter().any(|(n, _)| n == name) {
                envp.push(format!("{name}={value}").into_bytes());
            }
        }
        envp.extend(env.iter().map(|(n, v)| format!("{n}={v}").into_bytes()));
        Step::Start {
            files: files.iter().map(|(path, data)| (bytes(path), data.to_vec())).collect(),
            path: bytes(path),
            argv: argv.into_iter().map(bytes).collect(),
            envp,
        }
    }
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
        let form = || FunctionError::Form(spec.to_owned());
        let (file, function) = spec.rsplit_once(':').ok_or_else(form)?;
        if file.is_empty() || function.is_empty() {
            return Err(form());
        }
        let path = std::fs::canonicalize(file)
            .and_then(|p| std::fs::File::open(&p).map(|_| p))
            .map_err(|source| FunctionError::File { path: file.into(), source })?;
        let runtime = Runtime::for_file(&path).ok_or_else(|| FunctionError::Language(path.clone()))?;
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
        })
    }

    /// The command that imports the handler.
    pub fn import_command(&self) -> Vec<u8> {
        let body = json!({
            "dir": self.dir.to_string_lossy(), "file": self.file, "module": self.module, "function": self.function,
        });
        let mut bytes = vec![b'I'];
        bytes.extend(body.to_string().into_bytes());
        bytes
    }

    /// The command that serves a request. The event is JSON text already, and is not parsed again.
    pub fn invoke_command(&self, event: &[u8], request_id: &str) -> Vec<u8> {
        let context = json!({
            "request_id": request_id,
            "function_name": self.name,
            "memory_limit_in_mb": self.memory >> 20,
            "timeout_ms": self.timeout_ms,
            "log_group_name": format!("/coppice/{}", self.name),
            "log_stream_name": request_id,
        })
        .to_string();
        let mut bytes = Vec::with_capacity(event.len() + context.len() + 32);
        bytes.extend_from_slice(b"V{\"context\":");
        bytes.extend_from_slice(context.as_bytes());
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
    /// The handler's result, JSON text.
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
        };
        let bytes = f.invoke_command(br#"{"a":[1]}"#, "id-1");
        let value: serde_json::Value = serde_json::from_slice(&bytes[1..]).unwrap();
        assert_eq!(value["event"]["a"][0], 1);
        assert_eq!(value["context"]["request_id"], "id-1");
    }
}
