//! Deploying, going back, and taking away.
//!
//! The order makes a crash at any moment harmless: the code is on the disk before the store names it, the store names the version as pending
//! until its seed is there, and the switch in the store comes before the one in the tree. What is left of a deploy that did not come to its
//! end is forgotten at the next start.

use super::error::DaemonError;
use super::start::blocking;
use super::{Daemon, Serving, lock, spec};
use crate::code::{Pin, Stored};
use crate::proto;
use crate::store::{New, Version};
use seedtree::node::error::NodeError;
use seedtree::node::function::FunctionSpec;
use seedtree::node::instance::Sink;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
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

/// The right to change a function.
struct Turn {
    daemon: Daemon,
    name: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.daemon.0.changing).remove(&self.name);
    }
}

/// A version in the store that does not serve yet. Dropped, it is forgotten.
struct Pending {
    daemon: Daemon,
    version: Option<Version>,
}

impl Pending {
    /// It serves.
    fn done(mut self) {
        self.version = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(version) = self.version.take() else { return };
        let daemon = self.daemon.clone();
        // The store blocks. What is not forgotten here is at the next start.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = daemon.0.store.discard(&version) {
                tracing::warn!(
                    function = version.name,
                    error = super::error::chain(&error),
                    "a failed deploy stays in the store"
                );
            }
            daemon.collect();
        });
    }
}

impl Daemon {
    /// Deploys a function or a new version of one. Where that fails or is dropped midway, what serves goes on as before.
    pub async fn deploy(
        &self,
        deployment: Deployment,
        progress: Progress,
    ) -> Result<proto::Function, DaemonError> {
        let result = self.deploy_uncounted(deployment, progress).await;
        self.metrics().deployed(result.is_ok());
        result
    }

    async fn deploy_uncounted(
        &self,
        deployment: Deployment,
        progress: Progress,
    ) -> Result<proto::Function, DaemonError> {
        let given = spec::checked(&deployment.spec, &self.0.config.functions)?;
        let name = deployment.spec.name.clone();
        let limit = self.0.config.code.layers;
        if deployment.layers.len() > limit {
            let given = deployment.layers.len();
            return Err(crate::code::CodeError::TooManyLayers { given, limit }.into());
        }
        let turn = self.turn(&name)?;
        progress.step("unpacking the code");
        let daemon = self.clone();
        let (version, _pins) = blocking(move || {
            let code = daemon.take(deployment.code)?;
            let layers = deployment.layers.into_iter().map(|l| daemon.take(l));
            let layers = layers.collect::<Result<Vec<Stored>, DaemonError>>()?;
            let new = New {
                spec: given,
                code: code.digest,
                code_bytes: code.bytes,
                layers: layers.iter().map(|l| l.digest).collect(),
            };
            let version = daemon.0.store.put_version(&name, new)?;
            let pins: Vec<Pin> = layers.into_iter().chain([code]).map(|s| s.pin).collect();
            let pending = Pending { daemon: daemon.clone(), version: Some(version) };
            Ok((pending, pins))
        })
        .await?;
        self.put_into_service(version, turn, progress).await
    }

    /// Goes back to a version that has served; 0 is the one before the present one.
    pub async fn rollback(
        &self,
        name: &str,
        version: u64,
        progress: Progress,
    ) -> Result<proto::Function, DaemonError> {
        let turn = self.turn(name)?;
        let before = self.0.store.before(name, (version > 0).then_some(version))?;
        let before = Pending { daemon: self.clone(), version: Some(before) };
        self.put_into_service(before, turn, progress).await
    }

    async fn put_into_service(
        &self,
        pending: Pending,
        turn: Turn,
        mut progress: Progress,
    ) -> Result<proto::Function, DaemonError> {
        let version = pending.version.clone().ok_or(DaemonError::GoingDown)?;
        let (spec, pins) = self.placed(&version).await?;
        progress.step("growing the seed");
        let prepared = self.node().prepare(spec, &mut progress).await?;
        // From here on it is done also if the caller goes away.
        let (daemon, to) = (self.clone(), version.clone());
        let switched = tokio::task::spawn_blocking(move || {
            daemon.0.store.switch(&to)?;
            pending.done();
            let serving = Serving { pins, failed: None };
            let old = lock(&daemon.0.serving).insert(to.name.clone(), serving);
            let retired = daemon.node().switch(prepared);
            daemon.retire(retired, old);
            drop(turn);
            Ok::<(), DaemonError>(())
        });
        switched.await.map_err(DaemonError::Task)??;
        tracing::info!(function = version.name, version = version.number, "deployed");
        self.function(&version.name)
    }

    /// Takes a function out of service. Requests at work are finished.
    pub async fn remove(&self, name: &str) -> Result<(), DaemonError> {
        let turn = self.turn(name)?;
        let daemon = self.clone();
        let turn = blocking(move || {
            let name = &turn.name;
            daemon.0.store.remove(name)?;
            let old = lock(&daemon.0.serving).remove(name);
            let retired = daemon.node().function(name).ok();
            match daemon.node().remove(name) {
                // One that could not be put into service at the start.
                Ok(()) | Err(NodeError::NoSuchFunction(_)) => {}
                Err(error) => return Err(error.into()),
            }
            daemon.retire(retired, old);
            daemon.metrics().forget(name);
            tracing::info!(function = name, "removed");
            Ok(turn)
        })
        .await?;
        self.0.logs.remove(&turn.name).await;
        Ok(())
    }

    /// One change of a function at a time: a second one is told so.
    fn turn(&self, name: &str) -> Result<Turn, DaemonError> {
        if self.node().is_draining() {
            return Err(DaemonError::GoingDown);
        }
        if lock(&self.0.changing).insert(name.to_owned()) {
            return Ok(Turn { daemon: self.clone(), name: name.to_owned() });
        }
        Err(DaemonError::Changing(name.to_owned()))
    }

    fn take(&self, source: Source) -> Result<Stored, DaemonError> {
        match source {
            Source::Directory(path) => Ok(self.0.code.add_directory(&path)?),
            Source::Zip(path) => {
                let file = File::open(&path).map_err(|source| DaemonError::Upload { path, source })?;
                Ok(self.0.code.add_zip(file)?)
            }
        }
    }

    /// A version as the node wants it, with its code in place, and what keeps that.
    pub(super) async fn placed(&self, version: &Version) -> Result<(FunctionSpec, Vec<Pin>), DaemonError> {
        let (daemon, version) = (self.clone(), version.clone());
        blocking(move || {
            let code = daemon.0.code.get(&version.new.code)?;
            let layers = daemon.0.code.merged_layers(&version.new.layers, version.new.code_bytes)?;
            let (mut pins, mut opt) = (vec![code.pin], None);
            if let Some(layers) = layers {
                pins.push(layers.pin);
                opt = Some(layers.path);
            }
            Ok((version.new.spec.of_node(&version.name, version.number, code.path, opt), pins))
        })
        .await
    }

    /// Keeps the code of a version as long as somebody has it: requests that it finishes, instances that clients own, a seed that grows. Then
    /// collects what is not needed any more.
    fn retire(&self, version: Option<Arc<seedtree::node::version::Version>>, old: Option<Serving>) {
        let daemon = self.clone();
        tokio::spawn(async move {
            while version.as_ref().is_some_and(|v| Arc::strong_count(v) > 1) {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            drop((version, old));
            let _ = tokio::task::spawn_blocking(move || daemon.collect()).await;
        });
    }
}
