//! Offers a daemon on the sockets that its configuration names.

use super::access::{Access, GroupError};
use super::listen::Listener;
use super::places::Places;
use super::service::{Service, Uploads};
use super::{grpc, ttrpc};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::life::LifeError;
use crate::room::Room;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Why the interface cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The group cannot be used.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A directory cannot be made.
    #[error("cannot make the directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A socket cannot be made.
    #[error(transparent)]
    Listen(#[from] LifeError),
}

/// The interface at work. Dropped, it ends at once, and its sockets are removed.
#[derive(Debug)]
pub struct Served {
    service: Service,
    closing: watch::Sender<bool>,
    transports: JoinSet<()>,
}

/// Makes the sockets, and serves on them.
pub fn start(daemon: &Daemon, config: &Config) -> Result<Served, StartError> {
    let access = Access::for_group(&config.fri.group, config.fri.mode)?;
    let uploads = Uploads {
        directory: config.state.join("uploads"),
        bytes: config.code.zip_bytes,
        layers: config.code.layers,
        room: Room::new(config.fri.upload_bytes),
        patience: Duration::from_millis(config.fri.upload_timeout_ms),
    };
    let fail = |path: &PathBuf| {
        let path = path.clone();
        move |source| StartError::Directory { path, source }
    };
    std::fs::create_dir_all(&config.run).map_err(fail(&config.run))?;
    let failed = fail(&uploads.directory);
    let service = Service::new(daemon.clone(), uploads).map_err(failed)?;
    let closing = watch::Sender::new(false);
    let closed = || {
        let mut closing = closing.subscribe();
        async move { _ = closing.wait_for(|c| *c).await }
    };
    let idle = Duration::from_millis(config.fri.idle_timeout_ms);
    let places = || Places::new(config.fri.connections, idle);
    let mut transports = JoinSet::new();
    if let Some(path) = config.ttrpc_socket() {
        let listener = Listener::bind(&path, access, places())?;
        transports.spawn(ttrpc::serve(listener, service.clone(), closed()));
    }
    if let Some(path) = config.grpc_socket() {
        let listener = Listener::bind(&path, access, places())?;
        let serving = grpc::serve(listener, service.clone(), closed());
        transports.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(error = %crate::daemon::error::chain(&error), "gRPC is not served any more");
            }
        });
    }
    Ok(Served { service, closing, transports })
}

impl Served {
    /// Takes no more calls, and waits until those under way have ended. Dropped meanwhile, it ends them.
    pub async fn stop(mut self) {
        self.service.close();
        self.closing.send_replace(true);
        while self.transports.join_next().await.is_some() {}
    }
}
