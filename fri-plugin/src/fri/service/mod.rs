//! What the interface does, apart from how it is spoken: every method of every service, on the protocol's messages.
//!
//! A method takes a message or a stream of them, and gives one or a stream. Dropping the future or the stream that it gave ends what was
//! begun: the instance, the upload, the deploy. Nothing here knows of gRPC or ttrpc.

mod answer;
mod asked;
mod functions;
mod instances;
mod logs;
mod node;
mod payload;
mod seeds;
mod upload;

use super::error::FriError;
use crate::daemon::Daemon;
use crate::room::Room;
use futures::stream::BoxStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Messages that come from a client.
pub type Incoming<T> = BoxStream<'static, Result<T, FriError>>;
/// Messages that go to a client. The first error is the last item.
pub type Outgoing<T> = BoxStream<'static, Result<T, FriError>>;

/// What uploads may be.
#[derive(Clone, Debug)]
pub struct Uploads {
    /// Directory for archives on their way; of this daemon only.
    pub directory: PathBuf,
    /// Longest archive, bytes.
    pub bytes: u64,
    /// Most layers of a function.
    pub layers: usize,
    /// Bytes of all archives that are there.
    pub room: Room,
    /// Time between two messages of a deploy.
    pub patience: Duration,
}

/// The services. A handle: copies are of the same one.
#[derive(Clone, Debug)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    daemon: Daemon,
    uploads: Uploads,
    intake: payload::Intake,
    closing: watch::Sender<bool>,
}

impl Service {
    /// The services of a daemon. Makes the directory for uploads.
    pub fn new(daemon: Daemon, uploads: Uploads) -> std::io::Result<Service> {
        upload::prepare(&uploads.directory)?;
        let time = Duration::from_millis(daemon.config().fri.event_timeout_ms);
        let intake = payload::Intake { room: daemon.room().clone(), time };
        Ok(Service(Arc::new(Inner { daemon, uploads, intake, closing: watch::Sender::new(false) })))
    }

    fn daemon(&self) -> &Daemon {
        &self.0.daemon
    }

    /// The bound on the bytes of events.
    pub(crate) fn room(&self) -> &Room {
        &self.0.intake.room
    }

    /// Ends what would never end by itself: logs that are followed, seeds that are watched.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
    }

    /// Resolves when [`Service::close`] was called.
    async fn closing(&self) {
        let mut closing = self.0.closing.subscribe();
        // The sender lives as long as this does.
        let _ = closing.wait_for(|closing| *closing).await;
    }
}
