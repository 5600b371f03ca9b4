//! The service `Seeds`.

use super::{Outgoing, Service};
use crate::fri::error::FriError;
use crate::proto;
use crate::proto::seed_event::Kind;
use async_stream::try_stream;
use futures::StreamExt;
use seedtree::node::error::NodeError;
use seedtree::node::seed::NodeSeed;
use seedtree::runtime::Runtime;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the tree is looked at for a client that watches it.
const LOOK: Duration = Duration::from_millis(200);

impl Service {
    /// `Seeds.List`.
    pub async fn seeds(
        &self,
        request: proto::ListSeedsRequest,
    ) -> Result<proto::ListSeedsResponse, FriError> {
        let mut seeds = self.all();
        if request.memory {
            for seed in &mut seeds {
                seed.memory = Some(memory_of(vec![seed.pid]).await?);
            }
        }
        Ok(proto::ListSeedsResponse { seeds })
    }

    /// `Seeds.Watch`: first every seed that is there.
    pub fn watch(&self, _: proto::WatchSeedsRequest) -> Outgoing<proto::SeedEvent> {
        let service = self.clone();
        try_stream! {
            let mut known: BTreeMap<i32, proto::Seed> = BTreeMap::new();
            loop {
                let present: BTreeMap<i32, proto::Seed> = service.all().into_iter().map(|s| (s.pid, s)).collect();
                for (_, seed) in known.iter().filter(|(pid, _)| !present.contains_key(pid)) {
                    yield event(Kind::Gone, seed);
                }
                for (_, seed) in present.iter().filter(|(pid, _)| !known.contains_key(pid)) {
                    yield event(Kind::Grown, seed);
                }
                known = present;
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = service.closing() => break,
                }
            }
        }
        .boxed()
    }

    /// `Seeds.Create`.
    pub async fn create_seed(&self, request: proto::CreateSeedRequest) -> Result<proto::Seed, FriError> {
        if let Some(runtime) = Runtime::named(&request.name) {
            self.daemon().node().grow_language(runtime).await?;
            return self.named(&request.name);
        }
        self.prewarm(proto::PrewarmRequest { function: request.name }).await
    }

    /// `Seeds.Delete`.
    pub async fn delete_seed(
        &self,
        request: proto::DeleteSeedRequest,
    ) -> Result<proto::DeleteSeedResponse, FriError> {
        self.daemon().node().drop_seed(&request.name)?;
        Ok(proto::DeleteSeedResponse {})
    }

    /// `Seeds.Prewarm`.
    pub async fn prewarm(&self, request: proto::PrewarmRequest) -> Result<proto::Seed, FriError> {
        self.daemon().prewarm(&request.function).await?;
        self.named(&request.function)
    }

    /// Every living seed.
    fn all(&self) -> Vec<proto::Seed> {
        let node = self.daemon().node();
        let parents: BTreeMap<String, &'static str> =
            node.functions().iter().map(|f| (f.spec.name.clone(), f.spec.runtime.name())).collect();
        node.seeds().iter().map(|seed| describe(seed, &parents)).collect()
    }

    fn named(&self, name: &str) -> Result<proto::Seed, FriError> {
        let found = self.all().into_iter().find(|seed| seed.name == name);
        Ok(found.ok_or_else(|| NodeError::NoSuchSeed(name.to_owned()))?)
    }
}

fn describe(seed: &Arc<NodeSeed>, parents: &BTreeMap<String, &'static str>) -> proto::Seed {
    let parent = match seed.level {
        0 => "",
        1 => "os",
        // A further seed of a hot function has a number after its name.
        _ => parents
            .get(seed.name.split('#').next().unwrap_or_default())
            .copied()
            .filter(|r| *r != Runtime::Provided.name())
            .unwrap_or("os"),
    };
    proto::Seed {
        name: seed.name.clone(),
        level: seed.level.into(),
        pid: seed.pid(),
        forks: seed.forks.load(Ordering::Relaxed),
        queued: u32::try_from(seed.queued()).unwrap_or(u32::MAX),
        age_ns: seed.age(),
        parent: parent.into(),
        memory: None,
    }
}

fn event(kind: Kind, seed: &proto::Seed) -> proto::SeedEvent {
    proto::SeedEvent { kind: kind.into(), seed: Some(seed.clone()) }
}

/// Memory of processes together, as the host counts it.
pub(super) async fn memory_of(pids: Vec<i32>) -> Result<proto::Memory, FriError> {
    let read = move || {
        let mut sum = proto::Memory::default();
        for usage in pids.into_iter().filter_map(seedtree::memory::usage) {
            sum.pss_bytes += usage.pss_kib << 10;
            sum.private_bytes += usage.private_kib << 10;
            sum.shared_bytes += usage.shared_kib << 10;
        }
        sum
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| FriError::Internal)
}
