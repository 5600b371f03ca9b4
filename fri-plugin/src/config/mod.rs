//! Configuration of the daemon: a TOML file, checked when it is read.
//!
//! `default.toml` beside this file shows every key with its default and what is allowed; tests hold the two together.

mod check;
pub mod values;

use seedtree::runtime::Runtime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use values::{off, size};

/// Every default with a comment, as `coppiced config default` prints it.
pub const DEFAULT: &str = include_str!("default.toml");

/// Where a daemon's configuration is looked for.
pub const PATH: &str = "/etc/coppice/coppiced.toml";

/// Why a configuration is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}; `coppiced config default` prints one to start from")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, has a key that there is not, or a value of another type. The source says where.
    #[error("the configuration {path} is not accepted; `coppiced config default` shows every key")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Line, column and reason.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is outside of what is allowed.
    #[error("{key} = {value}: {allowed}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// As it was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

/// What a daemon is run with. The fields are explained in `default.toml` ([`DEFAULT`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What has to survive.
    pub state: PathBuf,
    /// Sockets and the lock.
    pub run: PathBuf,
    /// Root directory of the guests.
    pub rootfs: PathBuf,
    /// Show guests only what everybody may see of it.
    pub public_only: bool,
    /// Directories that guests see empty, and files that they cannot read, by their paths and as the objects that they are at start.
    pub hidden: Vec<PathBuf>,
    /// Runtimes with a seed at start.
    pub runtimes: Vec<Runtime>,
    /// Record working sets and prefill them.
    pub prefill: bool,
    /// Forks that may wait for one seed.
    pub fork_queue: usize,
    /// Most seeds of one function.
    pub replicas: usize,
    /// Time for growing a seed, ms.
    pub grow_timeout_ms: u64,
    /// Time for requests at work at the end, ms.
    pub drain_timeout_ms: u64,
    /// Environment of the runtimes.
    pub env: BTreeMap<String, String>,
    /// The Function Runtime Interface.
    pub fri: Fri,
    /// The HTTP gateway.
    pub gateway: Gateway,
    /// Defaults and bounds of functions.
    pub functions: Functions,
    /// Bounds of uploads.
    pub code: CodeLimits,
    /// Memory of seeds and spares.
    pub memory: Memory,
    /// Which seeds are given up.
    pub reclaim: Reclaim,
    /// What functions print.
    pub logs: Logs,
    /// Prometheus.
    pub metrics: Metrics,
    /// OpenTelemetry.
    pub traces: Traces,
}

/// `[fri]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fri {
    /// Socket for ttrpc as it was given: see [`Config::ttrpc_socket`].
    #[serde(with = "off")]
    pub ttrpc: Option<PathBuf>,
    /// Socket for gRPC as it was given: see [`Config::grpc_socket`].
    #[serde(with = "off")]
    pub grpc: Option<PathBuf>,
    /// Permission bits of the sockets.
    pub mode: u32,
    /// Group of the sockets, name or number; empty for the daemon's own.
    pub group: String,
    /// Most open connections per socket.
    pub connections: usize,
    /// One without a call for so long makes room for another one where all are taken, ms.
    pub idle_timeout_ms: u64,
    /// Time for an event, ms.
    pub event_timeout_ms: u64,
    /// Time between two messages of a deploy, ms.
    pub upload_timeout_ms: u64,
    /// Bytes of all archives on their way.
    #[serde(with = "size")]
    pub upload_bytes: u64,
}

/// `[gateway]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Where it listens.
    #[serde(with = "off")]
    pub listen: Option<SocketAddr>,
    /// Longest event, bytes.
    #[serde(with = "size")]
    pub event_bytes: u64,
    /// Most open connections.
    pub connections: usize,
    /// Time for the head of a request, ms.
    pub header_timeout_ms: u64,
    /// Time for the body, ms.
    pub body_timeout_ms: u64,
    /// A connection on which nothing happens for so long is closed, ms.
    pub idle_timeout_ms: u64,
    /// Asynchronous events that may wait.
    pub async_queue: usize,
    /// Their bytes.
    #[serde(with = "size")]
    pub async_bytes: u64,
    /// Of these, how many run at once.
    pub async_running: usize,
    /// Of those, how many of one function.
    pub async_function_running: usize,
    /// Tries after a failure of the function.
    pub async_retries: u32,
    /// Time before the first of them, ms.
    pub async_retry_ms: u64,
    /// What `memory.events` was called before it held for the Function Runtime Interface too, where it is given: see [`Config::superseded`].
    #[serde(skip_serializing, deserialize_with = "size::deserialize_given")]
    pub buffered_bytes: Option<u64>,
}

/// `[functions]`: what a function gets, and the most that it may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // each pair is explained in default.toml
pub struct Functions {
    #[serde(with = "size")]
    pub memory: u64,
    #[serde(with = "size")]
    pub max_memory: u64,
    pub cpus: usize,
    pub max_cpus: usize,
    pub timeout_ms: u64,
    pub max_timeout_ms: u64,
    pub concurrency: usize,
    pub max_concurrency: usize,
    pub queue: usize,
    pub max_queue: usize,
    pub spares: usize,
    pub max_spares: usize,
    pub keep_alive: usize,
    pub max_keep_alive: usize,
    #[serde(with = "size")]
    pub env_bytes: u64,
    pub count: usize,
    pub versions: usize,
}

/// `[code]`: what an upload may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodeLimits {
    /// A zip file, bytes.
    #[serde(with = "size")]
    pub zip_bytes: u64,
    /// The same unpacked, bytes.
    #[serde(with = "size")]
    pub unzipped_bytes: u64,
    /// Files, directories and links.
    pub entries: usize,
    /// Layers of a function.
    pub layers: usize,
}

/// `[memory]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Bytes of seeds and spares; 0 for no budget.
    #[serde(with = "size")]
    pub budget: u64,
    /// Bytes of all events of requests.
    #[serde(with = "size")]
    pub events: u64,
}

/// `[reclaim]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reclaim {
    /// One of [`seedtree::reclaim::policies::NAMES`].
    pub policy: String,
    /// For `keep-alive`, ms.
    pub idle_ms: u64,
    /// Between two looks at the memory, ms.
    pub interval_ms: u64,
}

/// `[logs]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// Bytes on disk per function; 0 for none.
    #[serde(with = "size")]
    pub bytes: u64,
    /// Bytes in memory per function.
    #[serde(with = "size")]
    pub memory: u64,
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Where Prometheus asks.
    #[serde(with = "off")]
    pub listen: Option<SocketAddr>,
}

/// `[traces]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// Endpoint of OTLP over HTTP.
    #[serde(with = "off")]
    pub otlp: Option<String>,
    /// Share of the requests that are traced, 0 to 1.
    pub sample: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            state: "/var/lib/coppice".into(),
            run: "/run/coppice".into(),
            rootfs: "/".into(),
            public_only: true,
            hidden: Vec::new(),
            runtimes: vec![Runtime::Python, Runtime::Node],
            prefill: true,
            fork_queue: 256,
            replicas: 2,
            grow_timeout_ms: 60_000,
            drain_timeout_ms: 30_000,
            env: BTreeMap::new(),
            fri: Fri::default(),
            gateway: Gateway::default(),
            functions: Functions::default(),
            code: CodeLimits::default(),
            memory: Memory::default(),
            reclaim: Reclaim::default(),
            logs: Logs::default(),
            metrics: Metrics::default(),
            traces: Traces::default(),
        }
    }
}

impl Default for Fri {
    fn default() -> Self {
        Fri {
            ttrpc: Some("fri.ttrpc.sock".into()),
            grpc: Some("fri.grpc.sock".into()),
            mode: 0o660,
            group: String::new(),
            connections: 256,
            idle_timeout_ms: 10_000,
            event_timeout_ms: 30_000,
            upload_timeout_ms: 30_000,
            upload_bytes: 1 << 30,
        }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Gateway {
            listen: Some((Ipv4Addr::LOCALHOST, 9800).into()),
            event_bytes: seedtree::runtime::MAX_PAYLOAD as u64,
            connections: 1024,
            header_timeout_ms: 10_000,
            body_timeout_ms: 60_000,
            idle_timeout_ms: 60_000,
            async_queue: 1000,
            async_bytes: 64 << 20,
            async_running: 16,
            async_function_running: 8,
            async_retries: 2,
            async_retry_ms: 60_000,
            buffered_bytes: None,
        }
    }
}

impl Default for Functions {
    fn default() -> Self {
        Functions {
            memory: 128 << 20,
            max_memory: 10 << 30,
            cpus: 1,
            max_cpus: 8,
            timeout_ms: 3_000,
            max_timeout_ms: 900_000,
            concurrency: 64,
            max_concurrency: 1000,
            queue: 256,
            max_queue: 10_000,
            spares: 0,
            max_spares: 64,
            keep_alive: 0,
            max_keep_alive: 64,
            env_bytes: 4 << 10,
            count: 10_000,
            versions: 5,
        }
    }
}

impl Default for CodeLimits {
    fn default() -> Self {
        CodeLimits { zip_bytes: 50 << 20, unzipped_bytes: 250 << 20, entries: 100_000, layers: 5 }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory { budget: 0, events: 256 << 20 }
    }
}

impl Default for Reclaim {
    fn default() -> Self {
        Reclaim { policy: "benefit".into(), idle_ms: 600_000, interval_ms: 5_000 }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Logs { bytes: 16 << 20, memory: 256 << 10 }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { listen: Some((Ipv4Addr::LOCALHOST, 9801).into()) }
    }
}

impl Default for Traces {
    fn default() -> Self {
        Traces { otlp: None, sample: 1.0 }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(&text, path)
    }

    /// The same with the text at hand; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let refuse = |e| ConfigError::Parse { path: path.to_owned(), source: Box::new(e) };
        let mut config: Config = toml::from_str(text).map_err(refuse)?;
        if let Some(bytes) = config.gateway.buffered_bytes {
            let given: toml::Table = toml::from_str(text).map_err(refuse)?;
            if given.get("memory").and_then(|memory| memory.get("events")).is_none() {
                // The old key had a lower bound of its own.
                config.memory.events = bytes.clamp(*check::EVENTS.start(), *check::EVENTS.end());
            }
        }
        config.check()?;
        Ok(config)
    }

    /// What the operator is to change, where a key of an earlier version is given. It is accepted, so that an upgrade does not stop the
    /// daemon.
    pub fn superseded(&self) -> Option<String> {
        self.gateway.buffered_bytes?;
        let events = size::text(self.memory.events);
        Some(format!(
            "gateway.buffered_bytes is now memory.events, which bounds the events of the Function Runtime Interface too: write [memory] events = \"{events}\" instead"
        ))
    }

    /// The socket for ttrpc.
    pub fn ttrpc_socket(&self) -> Option<PathBuf> {
        self.fri.ttrpc.as_ref().map(|p| self.run.join(p))
    }

    /// The socket for gRPC.
    pub fn grpc_socket(&self) -> Option<PathBuf> {
        self.fri.grpc.as_ref().map(|p| self.run.join(p))
    }
}

#[cfg(test)]
mod tests;
