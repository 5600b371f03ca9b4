//! Deploying: a version is prepared, with a seed of its own, and then put into service in one step.

use super::error::NodeError;
use super::function::{Code, FunctionSpec};
use super::instance::Sink;
use super::version::Version;
use super::{Node, lock, open_dir};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// A version that is ready to serve and does not yet. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Prepared(Option<Arc<Version>>);

impl Prepared {
    /// Its number, by which it is known when it serves.
    pub fn number(&self) -> u64 {
        self.0.as_ref().map_or(0, |v| v.number)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(version) = &self.0 {
            version.retire();
        }
    }
}

impl Node {
    /// Grows a seed of the function. What serves goes on until [`Node::switch`]; where this fails, or is dropped, nothing has changed.
    pub async fn prepare(&self, spec: FunctionSpec, printed: &mut dyn Sink) -> Result<Prepared, NodeError> {
        let prepared = Prepared(Some(self.version(spec)?));
        if let Some(version) = &prepared.0 {
            let growing = version.begin_growing();
            match self.grow_function(version, printed).await {
                Ok(()) => self.train(version).await,
                // It can serve, as functions do whose seeds were given up.
                Err(error @ NodeError::OverBudget { .. }) => {
                    tracing::warn!(function = version.spec.name, %error, "a function is deployed without a seed");
                }
                Err(error) => return Err(error),
            }
            drop(growing);
        }
        Ok(prepared)
    }

    /// Puts a version into service, and returns the one that it takes the place of, which goes on with the requests that it has. Of several
    /// deploys of a name the last switch counts.
    pub fn switch(&self, mut prepared: Prepared) -> Option<Arc<Version>> {
        prepared.0.take().and_then(|version| self.serve_with(version))
    }

    /// Both at once.
    pub async fn deploy(&self, spec: FunctionSpec, printed: &mut dyn Sink) -> Result<(), NodeError> {
        let prepared = self.prepare(spec, printed).await?;
        self.switch(prepared);
        Ok(())
    }

    /// Puts a version into service without waiting for a seed: requests are served from the levels above until there is one.
    pub fn deploy_lazily(&self, spec: FunctionSpec) -> Result<(), NodeError> {
        let version = self.version(spec)?;
        self.serve_with(version);
        Ok(())
    }

    fn version(&self, spec: FunctionSpec) -> Result<Arc<Version>, NodeError> {
        let open = |path: &Path| {
            let refuse =
                |source| NodeError::Code { function: spec.name.clone(), path: path.to_owned(), source };
            open_dir(path).map(Arc::new).map_err(refuse)
        };
        let task = open(&spec.code)?;
        let layers = spec.layers.as_deref().map(open).transpose()?;
        let function = spec.function()?;
        let number = self.0.versions.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Arc::new(Version::new(number, spec, function, Code { task, layers })))
    }

    fn serve_with(&self, version: Arc<Version>) -> Option<Arc<Version>> {
        let mut functions = self.0.functions.write().unwrap_or_else(PoisonError::into_inner);
        let old = functions.insert(version.spec.name.clone(), version.clone());
        drop(functions);
        if let Some(old) = &old {
            self.retire(old);
        }
        self.refill(&version);
        old
    }

    /// Takes a function out of service. Requests at work and waiting are finished.
    pub fn remove(&self, name: &str) -> Result<(), NodeError> {
        let mut functions = self.0.functions.write().unwrap_or_else(PoisonError::into_inner);
        let old = functions.remove(name).ok_or_else(|| NodeError::NoSuchFunction(name.to_owned()))?;
        drop(functions);
        self.retire(&old);
        self.disown(name);
        Ok(())
    }

    fn retire(&self, version: &Arc<Version>) {
        version.retire();
        let mut retired = lock(&self.0.retired);
        retired.retain(|v| v.strong_count() > 0);
        retired.push(Arc::downgrade(version));
    }
}
