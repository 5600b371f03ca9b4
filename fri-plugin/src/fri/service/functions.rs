//! The service `Functions`.

use super::{Incoming, Outgoing, Service, upload};
use crate::daemon::deploy::{Progress, Told};
use crate::daemon::error::DaemonError;
use crate::fri::error::FriError;
use crate::proto;
use crate::proto::deploy_event::Event;
use crate::task::Bound;
use async_stream::try_stream;
use futures::StreamExt;
use tokio::sync::mpsc;

/// Events of a deploy that wait for a slow client; what is told beyond them is dropped.
const WAITING: usize = 1024;

impl Service {
    /// `Functions.Deploy`.
    pub fn deploy(&self, input: Incoming<proto::DeployRequest>) -> Outgoing<proto::DeployEvent> {
        let service = self.clone();
        try_stream! {
            yield event(Event::Progress("receiving the code".into()));
            let received = upload::receive(&service.0.uploads, input).await?;
            let deployment = received.deployment();
            let daemon = service.daemon().clone();
            let mut events = told(move |progress| async move {
                let result = daemon.deploy(deployment, progress).await;
                drop(received);
                result
            });
            while let Some(event) = events.next().await {
                yield event?;
            }
        }
        .boxed()
    }

    /// `Functions.Rollback`.
    pub fn rollback(&self, request: proto::RollbackRequest) -> Outgoing<proto::DeployEvent> {
        let daemon = self.daemon().clone();
        told(move |progress| async move { daemon.rollback(&request.name, request.version, progress).await })
    }

    /// `Functions.Get`.
    pub async fn function(&self, request: proto::GetFunctionRequest) -> Result<proto::Function, FriError> {
        Ok(self.daemon().function(&request.name)?)
    }

    /// `Functions.List`.
    pub async fn functions(
        &self,
        _: proto::ListFunctionsRequest,
    ) -> Result<proto::ListFunctionsResponse, FriError> {
        Ok(proto::ListFunctionsResponse { functions: self.daemon().functions() })
    }

    /// `Functions.Remove`.
    pub async fn remove(
        &self,
        request: proto::RemoveFunctionRequest,
    ) -> Result<proto::RemoveFunctionResponse, FriError> {
        self.daemon().remove(&request.name).await?;
        Ok(proto::RemoveFunctionResponse {})
    }
}

fn event(event: Event) -> proto::DeployEvent {
    proto::DeployEvent { event: Some(event) }
}

/// Runs a deploy in a task of its own, which goes on when the client is slow, and ends when it is gone.
fn told<F>(work: impl FnOnce(Progress) -> F) -> Outgoing<proto::DeployEvent>
where
    F: Future<Output = Result<proto::Function, DaemonError>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let mut task = Bound::start(work(Progress::to(sender)));
    try_stream! {
        // The last sender goes with the task's future.
        while let Some(told) = receiver.recv().await {
            yield event(match told {
                Told::Step(text) => Event::Progress(text),
                Told::Printed(bytes) => Event::Output(bytes.into()),
            });
        }
        let error = match task.result().await? {
            Ok(function) => {
                yield event(Event::Deployed(function));
                return;
            }
            Err(error) => FriError::from(error),
        };
        yield event(Event::Failed(error.message()));
        Err(error)?;
    }
    .boxed()
}
