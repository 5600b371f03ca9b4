//! The service `Node`.

use super::Service;
use super::seeds::memory_of;
use crate::fri::error::FriError;
use crate::proto;
use std::time::Duration;

impl Service {
    /// `Node.Status`.
    pub async fn status(&self, request: proto::StatusRequest) -> Result<proto::StatusResponse, FriError> {
        let daemon = self.daemon();
        let node = daemon.node();
        let (seeds, instances) = (node.seeds(), node.instances());
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let state = match (node.is_draining(), daemon.is_ready()) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "starting",
        };
        let memory = if request.memory {
            let pids = seeds.iter().map(|s| s.pid()).chain(instances.values().map(|i| i.pid));
            Some(memory_of(pids.collect()).await?)
        } else {
            None
        };
        Ok(proto::StatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            state: state.into(),
            uptime_ns: u64::try_from(daemon.uptime().as_nanos()).unwrap_or(u64::MAX),
            functions: small(daemon.functions().len()),
            seeds: small(seeds.len()),
            instances: small(instances.len()),
            forks: node.forks(),
            memory,
            memory_budget_bytes: daemon.config().memory.budget,
        })
    }

    /// `Node.Pools`.
    pub async fn pools(&self, _: proto::PoolsRequest) -> Result<proto::PoolsResponse, FriError> {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let functions = self.daemon().node().functions();
        let pools = functions.iter().filter(|f| f.spec.spares > 0).map(|f| proto::Pool {
            name: format!("spares of {}", f.spec.name),
            ready: small(f.spares()),
            wanted: small(f.spec.spares),
            making: small(f.making()),
        });
        Ok(proto::PoolsResponse { pools: pools.collect() })
    }

    /// `Node.Drain`.
    pub async fn drain(&self, request: proto::DrainRequest) -> Result<proto::DrainResponse, FriError> {
        let limit = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
        let given_up = self.daemon().drain(limit).await;
        Ok(proto::DrainResponse { given_up: u32::try_from(given_up).unwrap_or(u32::MAX) })
    }
}
