//! Host resources made ahead of time: cgroups, veth pairs, network namespaces, compiled seccomp programs.
//!
//! Empty so far: the crate holds its place in the workspace's borders (docs/ARCHITECTURE.md). Until it is filled, a sandbox process
//! runs without a jail, and the README and docs/THREAT-MODEL.md say so.
#![forbid(unsafe_code)]
