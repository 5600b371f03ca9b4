//! The instances of a node, as they are listed and ended.

use super::error::NodeError;
use super::instance::Instance;
use super::version::Version;
use super::{Node, lock};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It serves a request.
    Working,
    /// Forked ahead of need, it waits for its request.
    Spare,
    /// It has served, and was kept for another request.
    Kept,
    /// A client owns it, and has given it nothing to do.
    Idle,
}

/// An instance, as it is listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Whose.
    pub function: String,
    /// Number of the function's version.
    pub version: u64,
    /// Its process on the host.
    pub pid: i32,
    /// Since when it is in this state, CLOCK_MONOTONIC, ns; of a spare and a kept one since it was forked.
    pub since: u64,
    /// Level of the seed that it came from.
    pub level: u8,
    /// What it is doing.
    pub state: State,
    /// Whether a client owns it ([`Node::fork_ahead`]).
    pub owned: bool,
}

impl Listed {
    pub(super) fn new(version: &Version, instance: &Instance, since: u64, state: State) -> Listed {
        Listed {
            function: version.spec.name.clone(),
            version: version.number,
            pid: instance.pid(),
            since,
            level: instance.level,
            state,
            owned: instance.owned,
        }
    }
}

/// An instance at work.
#[derive(Debug)]
pub(super) struct Working {
    pub listed: Listed,
    pub kill: Arc<Notify>,
}

/// Keeps an instance in the list of those at work.
pub(super) struct AtWork<'a> {
    node: &'a Node,
    id: String,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        lock(&self.node.0.working).remove(&self.id);
    }
}

impl Node {
    pub(super) fn at_work(&self, version: &Version, instance: &Instance, since: u64) -> AtWork<'_> {
        let listed = Listed::new(version, instance, since, State::Working);
        lock(&self.0.working).insert(instance.id.clone(), Working { listed, kill: instance.killer() });
        AtWork { node: self, id: instance.id.clone() }
    }

    /// Instances, by id.
    pub fn instances(&self) -> BTreeMap<String, Listed> {
        let mut all = BTreeMap::new();
        for version in self.versions() {
            let mut idle = Vec::new();
            let entry = |i: &Instance, state| (i.id.clone(), Listed::new(&version, i, i.born, state));
            version.each_idle(|i| idle.push(entry(i, State::Spare)), |_| {});
            version.each_idle(|_| {}, |i| idle.push(entry(i, State::Kept)));
            all.extend(idle);
        }
        all.extend(lock(&self.0.owned).iter().filter_map(|(id, o)| Some((id.clone(), o.listed()?))));
        // Last: one that has just been given a request is at work.
        all.extend(lock(&self.0.working).iter().map(|(id, w)| (id.clone(), w.listed.clone())));
        all
    }

    /// Ends an instance. The request of one that is at work gets [`NodeError::Killed`].
    pub fn kill(&self, id: &str) -> Result<(), NodeError> {
        // An owned one is taken out also when it is at work: its answer may be there already.
        let owned = lock(&self.0.owned).remove(id);
        if let Some(owned) = owned {
            owned.end();
            return Ok(());
        }
        if let Some(working) = lock(&self.0.working).get(id) {
            working.kill.notify_one();
            return Ok(());
        }
        match self.versions().iter().find(|v| v.end_one(id)) {
            Some(version) => {
                self.refill(version);
                Ok(())
            }
            None => Err(NodeError::NoSuchInstance(id.to_owned())),
        }
    }
}
