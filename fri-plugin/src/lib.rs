//! The Function Runtime Interface service, containerd's sandbox controller and shim, the HTTP gateway.
//!
//! Empty so far: the crate holds its place in the workspace's borders (docs/ARCHITECTURE.md).
#![forbid(unsafe_code)]
