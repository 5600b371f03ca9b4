//! Deploying, going back, and taking away.

use super::error::DaemonError;
use super::{Daemon, lock};
use crate::proto;
use seedtree::node::error::NodeError;
use seedtree::node::function::FunctionSpec;
use seedtree::node::instance::Sink;
use seedtree::runtime::Runtime;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// Where a function's code or a layer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A zip file on this host.
    Zip(PathBuf),
    /// A directory on this host.
    Directory(PathBuf),
}

/// What is to be deployed.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// As the client described it.
    pub spec: proto::FunctionSpec,
    /// The function's code.
    pub code: Source,
    /// Its layers, the lowest first.
    pub layers: Vec<Source>,
}

/// What is told while a deploy goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A step begins.
    Step(String),
    /// The handler's import printed this.
    Printed(Vec<u8>),
}

/// Whom a deploy tells of its progress. What nobody takes in time is dropped.
#[derive(Clone, Debug, Default)]
pub struct Progress(Option<mpsc::Sender<Told>>);

impl Progress {
    /// Tells through a channel.
    pub fn to(sender: mpsc::Sender<Told>) -> Progress {
        Progress(Some(sender))
    }

    /// A step begins.
    pub fn step(&self, text: impl Into<String>) {
        self.tell(Told::Step(text.into()));
    }

    fn tell(&self, told: Told) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(told);
        }
    }
}

impl Sink for Progress {
    fn printed(&mut self, bytes: &[u8]) {
        self.tell(Told::Printed(bytes.to_owned()));
    }
}

/// A deployed function, as the daemon remembers it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    spec: proto::FunctionSpec,
    pub(super) version: u64,
    created_unix_ns: u64,
}

impl Daemon {
    /// Deploys a function or a new version of one. Where that fails, nothing changes.
    pub async fn deploy(
        &self,
        deployment: Deployment,
        mut progress: Progress,
    ) -> Result<proto::Function, DaemonError> {
        let spec = deployment.spec;
        let turn = lock(&self.0.changing).entry(spec.name.clone()).or_default().clone();
        let _alone = turn.lock().await;
        let Source::Directory(code) = deployment.code else {
            return Err(DaemonError::Spec { field: "code", reason: "only directories for now".into() });
        };
        progress.step("growing the seed");
        self.node().deploy(node_spec(&spec, code)?, &mut progress).await?;
        let version = lock(&self.0.records).get(&spec.name).map_or(1, |r| r.version + 1);
        let record = Record { version, created_unix_ns: unix_ns(), spec };
        let described = self.describe(&record);
        lock(&self.0.records).insert(record.spec.name.clone(), record);
        Ok(described)
    }

    /// Goes back to a version; 0 is the one before the present one.
    pub async fn rollback(
        &self,
        name: &str,
        version: u64,
        _progress: Progress,
    ) -> Result<proto::Function, DaemonError> {
        self.function(name)?;
        Err(DaemonError::NoSuchVersion { function: name.to_owned(), version })
    }

    /// Takes a function out of service.
    pub async fn remove(&self, name: &str) -> Result<(), DaemonError> {
        lock(&self.0.records).remove(name).ok_or_else(|| NodeError::NoSuchFunction(name.to_owned()))?;
        Ok(self.node().remove(name)?)
    }

    pub(super) fn describe(&self, record: &Record) -> proto::Function {
        let version = self.node().function(&record.spec.name).ok();
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let counts = version.as_ref().map(|v| proto::FunctionCounts {
            requests: v.requests.load(Ordering::Relaxed),
            running: small(v.running()),
            waiting: small(v.waiting()),
            spares: small(v.spares()),
            kept: small(v.kept()),
            ..Default::default()
        });
        let ready = version.is_some_and(|v| v.seed().is_some());
        proto::Function {
            spec: Some(record.spec.clone()),
            version: record.version,
            created_unix_ns: record.created_unix_ns,
            state: if ready { "ready" } else { "starting" }.into(),
            counts,
            ..Default::default()
        }
    }
}

/// The runtime of a name, also of AWS Lambda's names with versions.
pub fn runtime_named(name: &str) -> Result<Runtime, DaemonError> {
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == 'x');
    let known = match base {
        "nodejs" => Some(Runtime::Node),
        "provided.al" => Some(Runtime::Provided),
        base => Runtime::named(base),
    };
    known.ok_or_else(|| DaemonError::Spec {
        field: "runtime",
        reason: format!("'{name}' is none of python, node, provided, or AWS Lambda's names for them"),
    })
}

fn node_spec(spec: &proto::FunctionSpec, code: PathBuf) -> Result<FunctionSpec, DaemonError> {
    let or = |n: u64, default: u64| if n == 0 { default } else { n };
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(FunctionSpec {
        name: spec.name.clone(),
        runtime: runtime_named(&spec.runtime)?,
        handler: spec.handler.clone(),
        code,
        layers: None,
        memory: or(spec.memory_bytes, 128 << 20),
        cpus: size(or(spec.cpus.into(), 1)),
        timeout_ms: or(spec.timeout_ms, 3_000),
        env: spec.env.clone().into_iter().collect(),
        spares: size(spec.spares.unwrap_or(0).into()),
        concurrency: size(or(spec.concurrency.into(), 64)),
        queue: size(spec.queue.unwrap_or(256).into()),
        keep_alive: size(spec.keep_alive.into()),
        warm: (!spec.warm_event.is_empty()).then(|| spec.warm_event.to_vec()),
    })
}

fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
