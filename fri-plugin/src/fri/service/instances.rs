//! The service `Instances`.

use super::answer::{self, Printed, respond};
use super::asked::{self, Wants};
use super::{Incoming, Outgoing, Service, payload};
use crate::daemon::invoke::Invoked;
use crate::daemon::streamed::{Asked, Next, Target};
use crate::fri::error::FriError;
use crate::proto;
use crate::proto::invoke_response::Part as Answer;
use crate::trace::Marks;
use async_stream::try_stream;
use futures::StreamExt;
use seedtree::node::error::NodeError;
use seedtree::node::instance::Nowhere;
use seedtree::node::{Listed, State};

impl Service {
    /// `Instances.Invoke`.
    pub async fn invoke(
        &self,
        input: Incoming<proto::InvokeRequest>,
    ) -> Result<Outgoing<proto::InvokeResponse>, FriError> {
        self.run(asked::read(self, input).await?).await
    }

    /// `Instances.Activate`.
    pub async fn activate(
        &self,
        input: Incoming<proto::ActivateRequest>,
    ) -> Result<Outgoing<proto::InvokeResponse>, FriError> {
        self.run(asked::read(self, input).await?).await
    }

    async fn run(
        &self,
        (asked, wants, marks): (Asked, Wants, Option<Marks>),
    ) -> Result<Outgoing<proto::InvokeResponse>, FriError> {
        let marks = marks.map(|marks| (marks, self.function_of(&asked.target)));
        if wants.logs || wants.parts {
            return Ok(self.run_apart(asked, wants, marks));
        }
        let invoked = asked.serve(self.daemon(), &mut Nowhere).await;
        self.trace(marks, &asked.request_id, &invoked);
        let parts = answer::parts(invoked, asked.request_id, Answer::Chunk)?;
        Ok(futures::stream::iter(parts.map(Ok)).boxed())
    }

    /// Whom a request is for, for its trace.
    fn function_of(&self, target: &Target) -> String {
        match target {
            Target::Function(name) => name.clone(),
            Target::Instance(id) => {
                self.daemon().node().instances().remove(id).map(|i| i.function).unwrap_or_default()
            }
        }
    }

    /// Tells of a request that is over, where requests are traced.
    fn trace(&self, marks: Option<(Marks, String)>, request_id: &str, invoked: &Invoked) {
        if let Some((marks, function)) = marks {
            self.daemon().trace(Some(marks), &function, request_id, &invoked.result);
        }
    }

    fn run_apart(
        &self,
        asked: Asked,
        wants: Wants,
        marks: Option<(Marks, String)>,
    ) -> Outgoing<proto::InvokeResponse> {
        let service = self.clone();
        let printed = Printed::new(wants.logs);
        let request_id = asked.request_id.clone();
        let mut request = asked.begin(self.daemon(), printed.clone(), wants.parts);
        try_stream! {
            let ended = loop {
                let next = tokio::select! {
                    biased;
                    () = printed.more() => None,
                    next = request.next() => Some(next),
                };
                // Also before an error: it is what the function said last.
                if let Some(log) = printed.take() {
                    yield respond(Answer::Log(log));
                }
                match next.transpose()? {
                    None => {}
                    Some(Next::Part(part)) => {
                        for chunk in payload::chunks(part) {
                            yield respond(Answer::Chunk(chunk));
                        }
                    }
                    Some(Next::End(invoked)) => break invoked,
                }
            };
            service.trace(marks, &request_id, &ended);
            let error = if wants.parts { Answer::Error } else { Answer::Chunk };
            for part in answer::parts(*ended, request_id, error)? {
                yield part;
            }
        }
        .boxed()
    }

    /// `Instances.List`.
    pub async fn instances(
        &self,
        request: proto::ListInstancesRequest,
    ) -> Result<proto::ListInstancesResponse, FriError> {
        let now = seedtree::sandbox::now();
        let all = self.daemon().node().instances().into_iter();
        let wanted = all.filter(|(_, i)| request.function.is_empty() || i.function == request.function);
        let instances = wanted.map(|(id, listed)| describe(id, listed, now)).collect();
        Ok(proto::ListInstancesResponse { instances })
    }

    /// `Instances.Destroy`.
    pub async fn destroy(&self, request: proto::DestroyRequest) -> Result<proto::DestroyResponse, FriError> {
        self.daemon().node().kill(&request.id)?;
        Ok(proto::DestroyResponse {})
    }

    /// `Instances.Fork`.
    pub async fn fork(&self, request: proto::ForkRequest) -> Result<proto::Instance, FriError> {
        let node = self.daemon().node();
        let id = node.fork_ahead(&request.function).await?;
        let listed = node.instances().remove(&id);
        // Somebody else may have ended it already.
        let listed = listed.ok_or_else(|| NodeError::NoSuchInstance(id.clone()))?;
        Ok(describe(id, listed, seedtree::sandbox::now()))
    }
}

fn describe(id: String, listed: Listed, now: u64) -> proto::Instance {
    proto::Instance {
        id,
        function: listed.function,
        pid: listed.pid,
        level: listed.level.into(),
        state: state(listed.state).into(),
        age_ns: now.saturating_sub(listed.since),
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Working => "working",
        State::Spare => "spare",
        State::Kept => "kept",
        State::Idle => "idle",
    }
}
