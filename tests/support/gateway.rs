//! A daemon in the test's own process with a gateway, for tests that look at HTTP.

use crate::support::fresh_dir;
use crate::support::http::Client;
use crate::support::left::{eventually, marked};
use fri_plugin::config::Config;
use fri_plugin::daemon::Daemon;
use fri_plugin::daemon::deploy::{Deployment, Progress, Source};
use fri_plugin::daemon::start::Sandboxes;
use fri_plugin::gateway::{Limits, serve};
use fri_plugin::proto::FunctionSpec;
use seedtree::runtime::Runtime;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::sync::oneshot;

/// The daemon, and where its gateway listens.
pub struct Gateway {
    pub daemon: Daemon,
    pub address: SocketAddr,
    pub runtime: tokio::runtime::Runtime,
}

impl Gateway {
    /// A client with a connection of its own.
    pub fn client(&self) -> Client {
        Client::new(self.address, Duration::from_secs(30))
    }

    /// Deploys a directory; the specification's name, handler and so on are the caller's.
    pub fn deploy(&self, spec: FunctionSpec, code: &Path) {
        let spec = FunctionSpec {
            runtime: or(spec.runtime, "python3.12"),
            handler: or(spec.handler, "app.handler"),
            ..spec
        };
        let deployment = Deployment { spec, code: Source::Directory(code.to_owned()), layers: Vec::new() };
        self.runtime.block_on(self.daemon.deploy(deployment, Progress::default())).unwrap();
    }
}

fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.into() } else { text }
}

/// Runs a test with a gateway on a port of its own. Afterwards no process of it is left.
pub fn with_gateway(limits: Limits, test: impl FnOnce(&Gateway)) {
    let mark = format!("gateway-{}-{:?}", std::process::id(), std::thread::current().id());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let state = fresh_dir("gateway-state");
    let config = Config {
        state: state.path().join("state"),
        run: state.path().join("run"),
        runtimes: vec![Runtime::Python],
        ..Config::default()
    };
    let sandboxes = Sandboxes {
        exe: env!("CARGO_BIN_EXE_coppice").into(),
        mark: vec![("COPPICE_TEST_MARK".into(), mark.clone())],
    };
    let daemon = runtime.block_on(Daemon::start(config, sandboxes)).unwrap();
    runtime.block_on(daemon.grow_languages(|_| {})).unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = runtime.spawn(serve(daemon.clone(), listener, limits, async {
        let _ = stopped.await;
    }));
    let gateway = Gateway { daemon, address, runtime };
    test(&gateway);
    drop(stop);
    let Gateway { daemon, runtime, .. } = gateway;
    runtime.block_on(serving).unwrap();
    drop((daemon, runtime));
    assert!(eventually(|| marked(&mark).is_empty()), "left behind: {:?}", marked(&mark));
}
