//! What is allowed beyond the types.

use super::values::size;
use super::{Config, ConfigError};
use crate::fri::access::Access;
use seedtree::reclaim::policies;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest path of a unix socket, bytes: sun_path without its final zero (unix(7)).
const SOCKET_PATH: usize = 107;

/// What `hidden` may name.
const NOT_THE_ROOT: &str = "must be a directory or file below rootfs: not rootfs, and none that rootfs is in";

/// `memory.events`, bytes: at least one event with what is around it.
pub(super) const EVENTS: RangeInclusive<u64> = 8 << 20..=64 << 30;

/// In milliseconds.
const HOUR: u64 = 3_600_000;

fn refuse(key: &'static str, value: impl Display, allowed: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), allowed: allowed.into() }
}

fn number<T: Copy + PartialOrd + Display>(
    key: &'static str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(refuse(key, value, format!("must be {} to {}", allowed.start(), allowed.end())))
}

fn bytes(key: &'static str, value: u64, allowed: RangeInclusive<u64>) -> Result<(), ConfigError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = (size::text(*allowed.start()), size::text(*allowed.end()));
    Err(refuse(key, format!("\"{}\"", size::text(value)), format!("must be {least} to {most}")))
}

fn absolute(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(refuse(key, format!("\"{}\"", path.display()), "must be an absolute path"))
}

impl Config {
    /// Whether every value is one that the daemon can work with.
    pub fn check(&self) -> Result<(), ConfigError> {
        absolute("state", &self.state)?;
        absolute("run", &self.run)?;
        absolute("rootfs", &self.rootfs)?;
        for (key, path) in [("state", &self.state), ("run", &self.run)] {
            // What is in it is the daemon's to remove, and no guest sees the state.
            if path.file_name().is_none() || self.rootfs.starts_with(path) {
                let allowed = "must be a directory of the daemon's own, such as /var/lib/coppice: not /, and none that rootfs is in";
                return Err(refuse(key, format!("\"{}\"", path.display()), allowed));
            }
        }
        for path in &self.hidden {
            absolute("hidden", path)?;
            if path.file_name().is_none() || self.rootfs.starts_with(path) {
                return Err(refuse("hidden", format!("\"{}\"", path.display()), NOT_THE_ROOT));
            }
        }
        for (n, runtime) in self.runtimes.iter().enumerate() {
            if self.runtimes[..n].contains(runtime) {
                let allowed = "is there twice: name each runtime once";
                return Err(refuse("runtimes", format!("{:?}", runtime.name()), allowed));
            }
        }
        number("fork_queue", self.fork_queue, 1..=65_536)?;
        number("replicas", self.replicas, 1..=16)?;
        number("grow_timeout_ms", self.grow_timeout_ms, 100..=HOUR)?;
        number("drain_timeout_ms", self.drain_timeout_ms, 0..=HOUR)?;
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                let allowed = "a name must not be empty or have = or NUL in it, a value no NUL";
                return Err(refuse("env", format!("{name:?}"), allowed));
            }
        }
        self.check_fri()?;
        let gateway = &self.gateway;
        bytes("gateway.event_bytes", gateway.event_bytes, 1 << 10..=seedtree::runtime::MAX_PAYLOAD as u64)?;
        number("gateway.connections", gateway.connections, 1..=65_536)?;
        number("gateway.header_timeout_ms", gateway.header_timeout_ms, 100..=600_000)?;
        number("gateway.body_timeout_ms", gateway.body_timeout_ms, 100..=HOUR)?;
        number("gateway.idle_timeout_ms", gateway.idle_timeout_ms, 100..=HOUR)?;
        number("gateway.async_running", gateway.async_running, 1..=10_000)?;
        number("gateway.async_function_running", gateway.async_function_running, 1..=10_000)?;
        number("gateway.async_retries", gateway.async_retries, 0..=10)?;
        number("gateway.async_retry_ms", gateway.async_retry_ms, 0..=HOUR)?;
        number("gateway.async_queue", gateway.async_queue, 0..=1_000_000)?;
        bytes("gateway.async_bytes", gateway.async_bytes, 1 << 20..=64 << 30)?;
        if gateway.listen.is_some_and(|a| a.port() != 0) && gateway.listen == self.metrics.listen {
            let allowed = "must not be the gateway's address";
            return Err(refuse("metrics.listen", format!("{:?}", self.metrics.listen), allowed));
        }
        self.check_functions()?;
        let code = &self.code;
        bytes("code.zip_bytes", code.zip_bytes, 1 << 10..=4 << 30)?;
        bytes("code.unzipped_bytes", code.unzipped_bytes, 1 << 10..=16 << 30)?;
        number("code.entries", code.entries, 1..=1_000_000)?;
        number("code.layers", code.layers, 0..=32)?;
        bytes("fri.upload_bytes", self.fri.upload_bytes, code.zip_bytes..=1 << 40)?;
        bytes("memory.events", self.memory.events, EVENTS)?;
        let reclaim = &self.reclaim;
        if !policies::NAMES.contains(&reclaim.policy.as_str()) {
            let allowed = format!("must be one of {}", policies::NAMES.join(", "));
            return Err(refuse("reclaim.policy", format!("{:?}", reclaim.policy), allowed));
        }
        number("reclaim.idle_ms", reclaim.idle_ms, 1000..=168 * HOUR)?;
        number("reclaim.interval_ms", reclaim.interval_ms, 100..=HOUR)?;
        if self.logs.bytes != 0 {
            bytes("logs.bytes", self.logs.bytes, 64 << 10..=16 << 30)?;
        }
        bytes("logs.memory", self.logs.memory, 4 << 10..=64 << 20)?;
        if let Some(url) = &self.traces.otlp
            && !url.starts_with("http://")
        {
            let allowed = "must be a URL such as \"http://127.0.0.1:4318\", or \"off\"";
            return Err(refuse("traces.otlp", format!("{url:?}"), allowed));
        }
        number("traces.sample", self.traces.sample, 0.0..=1.0)
    }

    /// Whether what it names is there on this host: before anything is made.
    pub fn check_host(&self) -> Result<(), ConfigError> {
        let there = |key, path: &Path, directory: bool, advice: &str| {
            let shown = || format!("\"{}\"", path.display());
            match std::fs::metadata(path) {
                Ok(meta) if meta.is_dir() || !directory => Ok(()),
                Ok(_) => Err(refuse(key, shown(), format!("is not a directory: {advice}"))),
                Err(error) => Err(refuse(key, shown(), format!("cannot be used ({error}): {advice}"))),
            }
        };
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        there("rootfs", &self.rootfs, true, "name the directory that has the programs of the runtimes")?;
        for path in &self.hidden {
            there("hidden", path, false, "name what is there when the daemon starts, or leave it out")?;
            if real(&self.rootfs).starts_with(real(path)) {
                return Err(refuse("hidden", format!("\"{}\"", path.display()), NOT_THE_ROOT));
            }
        }
        let group = &self.fri.group;
        let access = Access::for_group(group, self.fri.mode);
        access.map_err(|error| refuse("fri.group", format!("{group:?}"), error.to_string()))?;
        Ok(())
    }

    fn check_fri(&self) -> Result<(), ConfigError> {
        let (ttrpc, grpc) = (self.ttrpc_socket(), self.grpc_socket());
        for (key, path) in [("fri.ttrpc", &ttrpc), ("fri.grpc", &grpc)] {
            let Some(path) = path else { continue };
            if path.as_os_str().as_bytes().len() > SOCKET_PATH {
                let allowed = format!("the path of a socket has at most {SOCKET_PATH} bytes");
                return Err(refuse(key, format!("\"{}\"", path.display()), allowed));
            }
        }
        if ttrpc.is_some() && ttrpc == grpc {
            return Err(refuse(
                "fri.grpc",
                format!("{:?}", self.fri.grpc),
                "must not be the socket of ttrpc",
            ));
        }
        // Who may connect may run code as any function, and read every function's environment.
        if self.fri.mode & !0o660 != 0 || self.fri.mode & 0o600 != 0o600 {
            return Err(refuse("fri.mode", format!("0o{:o}", self.fri.mode), "must be 0o600 or 0o660"));
        }
        number("fri.connections", self.fri.connections, 1..=65_536)?;
        number("fri.idle_timeout_ms", self.fri.idle_timeout_ms, 100..=HOUR)?;
        number("fri.event_timeout_ms", self.fri.event_timeout_ms, 100..=HOUR)?;
        number("fri.upload_timeout_ms", self.fri.upload_timeout_ms, 100..=HOUR)
    }

    fn check_functions(&self) -> Result<(), ConfigError> {
        let f = &self.functions;
        bytes("functions.max_memory", f.max_memory, 16 << 20..=32 << 30)?;
        bytes("functions.memory", f.memory, 16 << 20..=f.max_memory)?;
        number("functions.max_cpus", f.max_cpus, 1..=8)?;
        number("functions.cpus", f.cpus, 1..=f.max_cpus)?;
        number("functions.max_timeout_ms", f.max_timeout_ms, 1..=86_400_000)?;
        number("functions.timeout_ms", f.timeout_ms, 1..=f.max_timeout_ms)?;
        number("functions.max_concurrency", f.max_concurrency, 1..=100_000)?;
        number("functions.concurrency", f.concurrency, 1..=f.max_concurrency)?;
        number("functions.max_queue", f.max_queue, 0..=1_000_000)?;
        number("functions.queue", f.queue, 0..=f.max_queue)?;
        number("functions.max_spares", f.max_spares, 0..=1000)?;
        number("functions.spares", f.spares, 0..=f.max_spares)?;
        number("functions.max_keep_alive", f.max_keep_alive, 0..=1000)?;
        number("functions.keep_alive", f.keep_alive, 0..=f.max_keep_alive)?;
        bytes("functions.env_bytes", f.env_bytes, 0..=128 << 10)?;
        number("functions.count", f.count, 1..=1_000_000)?;
        number("functions.versions", f.versions, 1..=100)
    }
}
