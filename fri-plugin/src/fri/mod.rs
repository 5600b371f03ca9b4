//! The Function Runtime Interface: one implementation of its services, and the two transports that offer it on Unix sockets.
//!
//! [`service`] knows the daemon and no transport; [`grpc`] and [`ttrpc`] translate to and from it. [`access`] says who may connect,
//! [`listen`] makes the sockets. docs/FRI.md describes the interface for its users.

pub mod access;
pub mod client;
pub mod error;
pub mod grpc;
mod grpc_calls;
mod http2;
pub mod listen;
pub mod places;
pub mod service;
pub mod start;
pub mod ttrpc;

use std::time::Duration;

/// What the names of uploads begin with.
pub(crate) const UPLOAD: &str = "upload-";
/// Longest chunk of an archive, of an event and of an answer, bytes.
pub const CHUNK: usize = 1 << 20;
/// Longest message, bytes: what ttrpc allows.
pub const MESSAGE: usize = 4 << 20;
/// Most calls that one connection may have under way.
pub const CALLS: usize = 128;
/// Time for the rest of a message whose beginning has come, and for a peer to take what is sent to it.
pub const PATIENCE: Duration = Duration::from_secs(30);
