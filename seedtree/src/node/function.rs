//! A deployed function: its description, its seed, its spares and kept instances, and who may enter.

use super::error::NodeError;
use super::instance::Instance;
use super::seed::NodeSeed;
use crate::runtime::{Function, Runtime};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where a function's code is in the guest, as on AWS Lambda.
pub const TASK_ROOT: &str = "/var/task";
/// Where its layers are.
pub const LAYERS_ROOT: &str = "/opt";

const UNTRAINED: u8 = 0;
const TRAINING: u8 = 1;
const TRAINED: u8 = 2;

/// What is deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSpec {
    /// Its name on this node.
    pub name: String,
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

/// One version of a function, with the seed that was grown of it.
#[derive(Debug)]
pub struct Version {
    /// What was deployed.
    pub spec: FunctionSpec,
    /// As its runtime wants it.
    pub function: Function,
    /// Its code.
    pub code: Code,
    /// Its seed; `None` while it is being grown, and after it was reclaimed.
    seed: Mutex<Option<Arc<NodeSeed>>>,
    spares: Mutex<VecDeque<Instance>>,
    kept: Mutex<VecDeque<Instance>>,
    /// Spares that are being made.
    pub making: AtomicUsize,
    training: AtomicU8,
    /// Whether a seed is being grown.
    pub growing: AtomicBool,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Requests begun.
    pub requests: AtomicU64,
    /// The version that replaced it may come; it takes no spares any more.
    pub retired: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Version {
    /// A version without a seed.
    pub fn new(spec: FunctionSpec, function: Function, code: Code) -> Version {
        let turns = Arc::new(Semaphore::new(spec.concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        Version {
            spec,
            function,
            code,
            seed: Mutex::new(None),
            spares: Mutex::default(),
            kept: Mutex::default(),
            making: AtomicUsize::new(0),
            training: AtomicU8::new(UNTRAINED),
            growing: AtomicBool::new(false),
            turns,
            waiting: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            retired: AtomicBool::new(false),
        }
    }

    /// Its seed, where it has a living one.
    pub fn seed(&self) -> Option<Arc<NodeSeed>> {
        lock(&self.seed).as_ref().filter(|s| !s.is_gone()).cloned()
    }

    /// Gives it a seed, or takes its seed away; what was forked ahead from the old one goes too.
    pub fn set_seed(&self, seed: Option<Arc<NodeSeed>>) {
        let old = std::mem::replace(&mut *lock(&self.seed), seed);
        let spares = std::mem::take(&mut *lock(&self.spares));
        self.training.store(UNTRAINED, Ordering::Release);
        drop((old, spares));
    }

    /// Whether the caller's instance is to record the working set: one at a time does, until one has.
    pub fn begin_training(self: &Arc<Self>) -> Option<Training> {
        let free = self.training.compare_exchange(UNTRAINED, TRAINING, Ordering::AcqRel, Ordering::Acquire);
        free.is_ok().then(|| Training(self.clone()))
    }

    /// Whether the seed has its working set.
    pub fn is_trained(&self) -> bool {
        self.training.load(Ordering::Acquire) == TRAINED
    }

    /// Takes the oldest spare.
    pub fn take_spare(&self) -> Option<Instance> {
        lock(&self.spares).pop_front()
    }

    /// Adds a spare.
    pub fn put_spare(&self, spare: Instance) {
        if !self.retired.load(Ordering::Acquire) {
            lock(&self.spares).push_back(spare);
        }
    }

    /// Spares that are ready.
    pub fn spares(&self) -> usize {
        lock(&self.spares).len()
    }

    /// Takes the instance that was used last: the others may then be given up.
    pub fn take_kept(&self) -> Option<Instance> {
        lock(&self.kept).pop_back()
    }

    /// Keeps an instance, or gives it back where there are enough.
    pub fn keep(&self, instance: Instance) -> Option<Instance> {
        let mut kept = lock(&self.kept);
        if kept.len() >= self.spec.keep_alive || self.retired.load(Ordering::Acquire) {
            return Some(instance);
        }
        kept.push_back(instance);
        None
    }

    /// Instances that are kept and idle.
    pub fn kept(&self) -> usize {
        lock(&self.kept).len()
    }

    /// Requests that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Requests at work.
    pub fn running(&self) -> usize {
        self.spec.concurrency.saturating_sub(self.turns.available_permits())
    }

    /// Ends what waits for requests: the version is not to be used any more.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.set_seed(None);
        let kept = std::mem::take(&mut *lock(&self.kept));
        drop(kept);
    }

    /// Waits for a turn: at most [`FunctionSpec::queue`] requests do, and none longer than the function may run.
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, NodeError> {
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let _queued =
            Queued::enter(&self.waiting, self.spec.queue).ok_or_else(|| NodeError::TooManyRequests {
                function: self.spec.name.clone(),
                limit: self.spec.concurrency,
                queued: self.spec.queue,
            })?;
        let limit = Duration::from_millis(self.spec.timeout_ms);
        match tokio::time::timeout(limit, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(NodeError::Draining),
            Err(_) => Err(NodeError::WaitedTooLong(self.spec.timeout_ms)),
        }
    }
}

/// The right to record a version's working set. Dropped, also with a request that is given up midway, it is another instance's turn.
#[derive(Debug)]
pub struct Training(Arc<Version>);

impl Training {
    /// The seed has its working set.
    pub fn done(self) {
        self.0.training.store(TRAINED, Ordering::Release);
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        let state = &self.0.training;
        let _ = state.compare_exchange(TRAINING, UNTRAINED, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A place in a queue, given back when it is dropped.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn enter(count: &'a AtomicUsize, bound: usize) -> Option<Self> {
        let more = |n| (n < bound).then_some(n + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Queued(count))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(runtime: Runtime, handler: &str, code: &Path) -> FunctionSpec {
        FunctionSpec {
            name: "f".into(),
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

    #[tokio::test]
    async fn the_queue_has_a_bound_and_a_time() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("app.py"), "").unwrap();
        let spec = spec(Runtime::Python, "app.handler", dir.path());
        let function = spec.function().unwrap();
        let task = Arc::new(OwnedFd::from(std::fs::File::open(dir.path()).unwrap()));
        let version = Arc::new(Version::new(spec, function, Code { task, layers: None }));
        let first = version.turn().await.unwrap();
        let second = tokio::spawn({
            let version = version.clone();
            async move { version.turn().await.map(|_| ()) }
        });
        while version.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(version.turn().await, Err(NodeError::TooManyRequests { .. })));
        assert!(matches!(second.await.unwrap(), Err(NodeError::WaitedTooLong(50))));
        assert_eq!((version.waiting(), version.running()), (0, 1));
        drop(first);
        assert!(version.turn().await.is_ok());
        // Who records the working set may be given up; then the next one does.
        let training = version.begin_training().unwrap();
        assert!(version.begin_training().is_none());
        drop(training);
        version.begin_training().unwrap().done();
        assert!(version.is_trained() && version.begin_training().is_none());
    }
}
