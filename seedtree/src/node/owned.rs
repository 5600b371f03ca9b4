//! Instances that clients own: forked without a request, given requests one after another, and ended when the client says so or forgets them.

use super::error::NodeError;
use super::instance::{Instance, Nowhere, Sink};
use super::listed::{Listed, State};
use super::serve::{Call, Served};
use super::version::{User, Version};
use super::{Inner, Node, lock};
use crate::proto::Role;
use crate::runtime::Reply;
use crate::sandbox::now;
use crate::tree::check_event;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// An instance that a client owns.
#[derive(Debug)]
pub(super) struct Owned {
    version: Arc<Version>,
    /// Since when it is idle, CLOCK_MONOTONIC, ns.
    since: u64,
    /// `None` while it is being made, while it waits for its turn, and while it is at work.
    instance: Option<Instance>,
    /// Ends it; `None` while it is being made.
    killer: Option<Arc<Notify>>,
}

impl Owned {
    /// Ends it, also where a request has it.
    pub(super) fn end(self) {
        if let Some(killer) = &self.killer {
            killer.notify_one();
        }
    }

    pub(super) fn listed(&self) -> Option<Listed> {
        let instance = self.instance.as_ref()?;
        Some(Listed::new(&self.version, instance, self.since, State::Idle))
    }
}

/// A place among the owned instances; given back unless the instance came to be idle in it.
struct Place<'a> {
    node: &'a Node,
    id: String,
    filled: bool,
}

impl Place<'_> {
    /// Puts the instance in; it is ended where it was destroyed meanwhile.
    fn fill(mut self, mut instance: Instance) {
        self.filled = true;
        instance.owned = true;
        let since = now();
        match lock(&self.node.0.owned).get_mut(&self.id) {
            Some(owned) => {
                owned.killer = Some(instance.killer());
                (owned.since, owned.instance) = (since, Some(instance));
            }
            None => return,
        }
        tokio::spawn(forget(Arc::downgrade(&self.node.0), self.id.clone(), since));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.filled {
            lock(&self.node.0.owned).remove(&self.id);
        }
    }
}

/// Ends an instance that was idle for too long.
async fn forget(node: Weak<Inner>, id: String, since: u64) {
    let Some(idle) = node.upgrade().map(|n| n.config.owned_idle_ms) else { return };
    tokio::time::sleep(Duration::from_millis(idle)).await;
    let Some(node) = node.upgrade() else { return };
    let mut owned = lock(&node.owned);
    let is_idle = |o: &Owned| o.instance.is_some() && o.since == since;
    let forgotten = owned.get(&id).is_some_and(is_idle).then(|| owned.remove(&id));
    drop(owned);
    drop(forgotten);
}

impl Node {
    /// Forks an instance of a function without a request; its id. It serves with [`Node::activate`] until [`Node::destroy`], or until it
    /// had no request for [`super::NodeConfig::owned_idle_ms`].
    pub async fn fork_ahead(&self, name: &str) -> Result<String, NodeError> {
        let _admitted = self.let_in()?;
        let version = self.enter(name)?;
        let id = self.next_id();
        let limit = self.0.config.owned;
        {
            let mut owned = lock(&self.0.owned);
            if owned.len() >= limit {
                return Err(NodeError::TooManyInstances(limit));
            }
            let (version, since) = (version.clone(), now());
            owned.insert(id.clone(), Owned { version, since, instance: None, killer: None });
        }
        let place = Place { node: self, id: id.clone(), filled: false };
        let instance = self.fork_idle(&version, id.clone()).await?;
        place.fill(instance);
        self.after(&version);
        Ok(id)
    }

    async fn fork_idle(&self, version: &User, id: String) -> Result<Instance, NodeError> {
        let what = "forking an instance";
        let timeout_ms = self.0.config.grow_timeout_ms;
        self.fork_deepest(
            version,
            |level| {
                // From the function's seed it is a spare that stays; from another it has yet to import the handler.
                let role = if level == 2 { Role::Spare } else { Role::Instance };
                let mut spec = self.spec(version, role, Vec::new(), timeout_ms);
                (spec.id, spec.keep) = (id.clone(), true);
                (spec, None)
            },
            what,
            timeout_ms,
        )
        .await
        .map(|(instance, _)| instance)?
        .imported(timeout_ms)
        .await
    }

    /// Gives a request to an instance that the caller owns.
    pub async fn activate(
        &self,
        id: &str,
        call: &Call<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Served, NodeError> {
        check_event(call.event)?;
        let _admitted = self.let_in()?;
        let arrived = now();
        let (place, mut instance, version) = {
            let mut all = lock(&self.0.owned);
            let owned = all.get_mut(id).ok_or_else(|| NodeError::NoSuchInstance(id.to_owned()))?;
            let instance = owned.instance.take().ok_or_else(|| NodeError::InstanceBusy(id.to_owned()))?;
            (Place { node: self, id: id.to_owned(), filled: false }, instance, owned.version.clone())
        };
        if let Err(error) = call.enters(&version, sink) {
            place.fill(instance);
            return Err(error);
        }
        let killer = instance.killer();
        let turn = tokio::select! {
            biased;
            () = killer.notified() => return Err(NodeError::Killed),
            turn = version.turn(call.limit_ms(&version, 0)) => turn,
        };
        let turn = match turn {
            Ok(turn) => turn,
            Err(error) => {
                // It has not got the request: it may be tried again.
                place.fill(instance);
                return Err(error);
            }
        };
        // It may have been destroyed when it had its turn already.
        if !lock(&self.0.owned).contains_key(id) {
            return Err(NodeError::Killed);
        }
        let started = now();
        version.count_request(self.0.rates, started);
        let timeout_ms = call.limit_ms(&version, started - arrived);
        let stream = sink.parts().is_some();
        let command =
            version.function.invoke_command(call.event, call.request_id, timeout_ms, stream, call.caller);
        instance.give(command, timeout_ms).await?;
        let answer = self.answer_of(&version, &mut instance, timeout_ms, started, sink).await?;
        let served = Served::new(&instance, answer, arrived, started);
        drop(turn);
        if served.reply == Reply::Imported {
            return Err(NodeError::Protocol);
        }
        place.fill(instance);
        Ok(served)
    }

    /// Ends an instance that a client owns; a request of it gets [`NodeError::Killed`].
    pub fn destroy(&self, id: &str) -> Result<(), NodeError> {
        if !lock(&self.0.owned).contains_key(id) {
            return Err(NodeError::NoSuchInstance(id.to_owned()));
        }
        self.kill(id)
    }

    /// Ends the owned instances of a function that are idle.
    pub(super) fn disown(&self, name: &str) {
        let mut owned = lock(&self.0.owned);
        let is_idle = |o: &Owned| o.version.spec.name == name && o.instance.is_some();
        let ids: Vec<String> = owned.iter().filter(|(_, o)| is_idle(o)).map(|(id, _)| id.clone()).collect();
        let gone: Vec<_> = ids.iter().filter_map(|id| owned.remove(id)).collect();
        drop(owned);
        drop(gone);
    }
}

impl Instance {
    /// Waits until one without a request is ready for it.
    async fn imported(mut self, timeout_ms: u64) -> Result<Instance, NodeError> {
        if self.spare {
            self.ready("forking an instance", timeout_ms, &mut Nowhere).await?;
            return Ok(self);
        }
        let reply = self.answer(timeout_ms, &mut Nowhere).await?.reply;
        self.served = 0;
        match reply {
            Reply::Imported => Ok(self),
            Reply::Error(error) => Err(NodeError::Import(error)),
            _ => Err(NodeError::Protocol),
        }
    }
}
