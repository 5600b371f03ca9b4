//! The seed tree: paused sandboxes that instances are forked from.
//!
//! Level 0 is a booted guest OS, level 1 a language runtime that waits for work, level 2 the user's handler imported. The
//! [`tree::Tree`] (one function, for the command) or [`node::Node`] (many functions and requests, for the daemon) lives in the process that asks; each seed and instance is a process of its own ([`sandbox`]) that
//! talks to it over a packet socket ([`channel`], [`proto`]). An instance is forked from the deepest seed that is alive.
#![forbid(unsafe_code)]

pub mod caller;
pub mod channel;
pub mod handle;
pub mod memory;
pub mod node;
pub mod proto;
mod provided;
pub mod reclaim;
pub mod runtime;
pub mod sandbox;
pub mod spares;
pub mod tree;
