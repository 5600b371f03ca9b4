//! What is deployed: a function's description, and its code.

use super::error::NodeError;
use crate::runtime::{Function, Runtime};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a function's code is in the guest, as on AWS Lambda.
pub const TASK_ROOT: &str = "/var/task";
/// Where its layers are.
pub const LAYERS_ROOT: &str = "/opt";

/// What is deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSpec {
    /// Its name on this node.
    pub name: String,
    /// Whoever deploys it numbers its versions so: a request may ask for one, and is told which one it got.
    pub version: u64,
    /// Runtime.
    pub runtime: Runtime,
    /// As AWS Lambda has it: FILE.FUNCTION, where FILE may have directories before it.
    pub handler: String,
    /// Directory of its code on the host.
    pub code: PathBuf,
    /// Directory of its layers on the host, unpacked over one another.
    pub layers: Option<PathBuf>,
    /// Memory limit, bytes.
    pub memory: u64,
    /// vCPUs.
    pub cpus: usize,
    /// Time for one request, ms.
    pub timeout_ms: u64,
    /// Environment of its own.
    pub env: Vec<(String, String)>,
    /// Instances to fork ahead of need.
    pub spares: usize,
    /// Requests that it may serve at once.
    pub concurrency: usize,
    /// Requests that may wait for their turn.
    pub queue: usize,
    /// Instances that are kept after an answer.
    pub keep_alive: usize,
    /// An event to run once in the seed.
    pub warm: Option<Vec<u8>>,
}

impl FunctionSpec {
    /// The function as its runtime wants it. The handler's file must be in the code directory.
    pub fn function(&self) -> Result<Function, NodeError> {
        let refuse = |reason: String| NodeError::Handler { handler: self.handler.clone(), reason };
        let base = |file: String, module: String, function: &str, dir: &str| Function {
            name: self.name.clone(),
            runtime: self.runtime,
            dir: dir.into(),
            file,
            module,
            function: function.to_owned(),
            memory: self.memory,
            timeout_ms: self.timeout_ms,
            cpus: self.cpus,
            env: self.env.clone(),
        };
        if self.runtime == Runtime::Provided {
            let file = "bootstrap";
            if !self.code.join(file).is_file() {
                return Err(refuse(format!(
                    "there is no file {file} in the code: the runtime `provided` starts it"
                )));
            }
            return Ok(base(file.into(), file.into(), &self.handler, TASK_ROOT));
        }
        let (module, function) = self
            .handler
            .rsplit_once('.')
            .filter(|(m, f)| !m.is_empty() && !f.is_empty())
            .ok_or_else(|| refuse("write FILE.FUNCTION, such as app.handler".into()))?;
        if Path::new(module).components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
            return Err(refuse("the file must be one of the code, without .. or a leading slash".into()));
        }
        let extensions: &[&str] = match self.runtime {
            Runtime::Python => &["py"],
            _ => &["js", "mjs", "cjs"],
        };
        // AWS Lambda writes the directories of a Python module with dots or with slashes.
        let dotted = module.replace('.', "/");
        let found = [module, &dotted].into_iter().find_map(|stem| {
            let file =
                extensions.iter().map(|e| format!("{stem}.{e}")).find(|f| self.code.join(f).is_file())?;
            Some((stem.to_owned(), file))
        });
        let Some((stem, file)) = found else {
            let names: Vec<String> = extensions.iter().map(|e| format!("{module}.{e}")).collect();
            return Err(refuse(format!("there is no {} in the code", names.join(" or "))));
        };
        Ok(base(file, stem, function, TASK_ROOT))
    }
}

/// Directories that are mounted in the guest, held open.
#[derive(Debug)]
pub struct Code {
    /// The function's own.
    pub task: Arc<OwnedFd>,
    /// Its layers.
    pub layers: Option<Arc<OwnedFd>>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec(runtime: Runtime, handler: &str, code: &Path) -> FunctionSpec {
        FunctionSpec {
            name: "f".into(),
            version: 1,
            runtime,
            handler: handler.into(),
            code: code.into(),
            layers: None,
            memory: 128 << 20,
            cpus: 1,
            timeout_ms: 50,
            env: Vec::new(),
            spares: 0,
            concurrency: 1,
            queue: 1,
            keep_alive: 1,
            warm: None,
        }
    }

    #[test]
    fn handlers_are_found_as_on_lambda() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pkg")).unwrap();
        for file in ["app.py", "pkg/mod.py", "index.mjs"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let found = |runtime, handler| {
            spec(runtime, handler, dir.path()).function().map(|f| (f.file, f.module, f.function)).ok()
        };
        let three = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(found(Runtime::Python, "app.handler"), three("app.py", "app", "handler"));
        assert_eq!(found(Runtime::Python, "pkg/mod.run"), three("pkg/mod.py", "pkg/mod", "run"));
        assert_eq!(found(Runtime::Python, "pkg.mod.run"), three("pkg/mod.py", "pkg/mod", "run"));
        assert_eq!(found(Runtime::Node, "index.handler"), three("index.mjs", "index", "handler"));
        for bad in ["app", "", ".x", "x.", "../app.handler", "/app.handler", "none.handler"] {
            assert_eq!(found(Runtime::Python, bad), None, "{bad}");
        }
        assert_eq!(found(Runtime::Provided, "x"), None);
    }
}
