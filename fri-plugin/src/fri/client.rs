//! A client of the interface over gRPC, for the `coppice` command and for tests.

use super::grpc::error_of;
use crate::proto;
use crate::proto::functions_client::FunctionsClient;
use crate::proto::instances_client::InstancesClient;
use crate::proto::node_client::NodeClient;
use crate::proto::seeds_client::SeedsClient;
use hyper_util::rt::TokioIo;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Bytes that a server may send ahead, per call and per connection.
const WINDOW: (u32, u32) = (2 << 20, 16 << 20);
/// Longest message of a server's: the list of many functions is one.
const MESSAGE: usize = 256 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no daemon.
    #[error(
        "is coppiced running? There is nobody at {path}; start it (systemctl start coppiced), or name its socket with --socket or COPPICE_SOCKET"
    )]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// This user may not talk to it.
    #[error("no permission for {path}: run this as root, or as a member of the group that owns the socket")]
    Forbidden {
        /// Which socket.
        path: PathBuf,
    },
    /// The socket cannot be used otherwise.
    #[error("cannot connect to coppiced at {path}")]
    Connect {
        /// Which socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to coppiced broke: {0}")]
    Broken(String),
    /// The daemon's answer is an error.
    #[error("{} [{}]", .0.message, .0.code)]
    Refused(proto::Error),
    /// The daemon did not keep to the protocol.
    #[error("coppiced answered out of protocol: is it of another version?")]
    Protocol,
}

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        match error_of(&status) {
            Some(error) => ClientError::Refused(error),
            None => ClientError::Broken(status.message().to_owned()),
        }
    }
}

/// A connection to a daemon, and the clients of its services.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects to a daemon's socket.
    pub async fn connect(path: &Path) -> Result<Client, ClientError> {
        let fail = |source: std::io::Error| match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                ClientError::Absent { path: path.to_owned() }
            }
            ErrorKind::PermissionDenied => ClientError::Forbidden { path: path.to_owned() },
            _ => ClientError::Connect { path: path.to_owned(), source },
        };
        // The first connection is made here: what is wrong with it can be told.
        let mut first = Some(UnixStream::connect(path).await.map_err(fail)?);
        let path = path.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let (first, path) = (first.take(), path.clone());
            async move {
                match first {
                    Some(stream) => Ok(TokioIo::new(stream)),
                    None => UnixStream::connect(path).await.map(TokioIo::new),
                }
            }
        });
        let endpoint = Endpoint::from_static("http://coppiced")
            .initial_stream_window_size(WINDOW.0)
            .initial_connection_window_size(WINDOW.1);
        let channel = endpoint.connect_with_connector(connector).await;
        Ok(Client { channel: channel.map_err(|e| ClientError::Broken(crate::daemon::error::chain(&e)))? })
    }

    /// What the clients of the services call through.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The service `Functions`.
    pub fn functions(&self) -> FunctionsClient<Channel> {
        FunctionsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE)
    }

    /// The service `Seeds`.
    pub fn seeds(&self) -> SeedsClient<Channel> {
        SeedsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE)
    }

    /// The service `Instances`.
    pub fn instances(&self) -> InstancesClient<Channel> {
        InstancesClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE)
    }

    /// The service `Node`.
    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE)
    }
}
