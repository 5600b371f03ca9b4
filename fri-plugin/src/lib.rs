//! The node daemon: it owns the seed tree, keeps functions deployed, and offers them over the Function Runtime Interface and over HTTP.
#![forbid(unsafe_code)]

pub mod code;
pub mod config;
pub mod coppiced;
pub mod daemon;
pub mod fri;
pub mod gateway;
pub mod life;
pub mod logs;
pub mod metrics;
mod metrics_scrape;
pub mod name;
pub mod proto;
mod rarely;
pub mod room;
pub mod store;
mod task;
pub mod trace;
