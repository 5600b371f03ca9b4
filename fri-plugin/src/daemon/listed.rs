//! Functions as they are listed.

use super::error::DaemonError;
use super::{Daemon, lock, spec};
use crate::proto;
use crate::store::Function;

impl Daemon {
    /// What is deployed, by name.
    pub fn functions(&self) -> Vec<proto::Function> {
        self.metrics().refresh_memory(self);
        self.0.store.list().iter().map(|f| self.describe(f)).collect()
    }

    /// A deployed function.
    pub fn function(&self, name: &str) -> Result<proto::Function, DaemonError> {
        self.metrics().refresh_memory(self);
        Ok(self.describe(&self.0.store.get(name)?))
    }

    fn describe(&self, function: &Function) -> proto::Function {
        let current = &function.current;
        let version = self.node().function(&current.name).ok();
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let counts = version.as_ref().map(|v| proto::FunctionCounts {
            requests: self.metrics().requests_of(&current.name),
            running: small(v.running()),
            waiting: small(v.waiting()),
            spares: small(v.spares()),
            kept: small(v.kept()),
            errors: self.metrics().errors_of(&current.name),
            refused: self.metrics().refusals_of(&current.name),
            pss_bytes: self.metrics().pss_of(&current.name),
        });
        let failed = lock(&self.0.serving).get(&current.name).and_then(|s| s.failed.clone());
        let failed = failed.or_else(|| version.as_ref().and_then(|v| v.failure()));
        let state = match (&version, &failed) {
            (Some(version), _) if version.seed().is_some() => "ready",
            (_, Some(_)) => "failed",
            (Some(version), _) if version.is_shrunk() => "shrunk",
            _ => "starting",
        };
        proto::Function {
            spec: Some(spec::described(&current.name, &current.new.spec)),
            version: current.number,
            code_sha256: current.new.code.to_string(),
            layer_sha256: current.new.layers.iter().map(ToString::to_string).collect(),
            created_unix_ns: current.created_ms.saturating_mul(1_000_000),
            state: state.to_owned(),
            reason: failed.unwrap_or_default(),
            versions: function.versions.iter().map(|v| v.number).collect(),
            counts,
            code_bytes: current.new.code_bytes,
        }
    }
}
