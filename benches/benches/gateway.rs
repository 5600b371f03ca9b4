//! `./setup bench gateway`: requests through the HTTP gateway, closed loop, beside other ways to run the same handler behind the same gateway
//! code, all in one run.
//!
//! Arguments after `--`: `--seconds N` per case (default 5), `--clients 1,12,24`, `--json FILE`. Absolute times move with the machine: quote
//! the ratios. The daemon lives in this process, so that a request can be measured without its HTTP too.
#![forbid(unsafe_code)]

#[allow(dead_code)]
#[path = "../../tests/support/http.rs"]
mod http;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Path as Name;
use axum::routing::post;
use clap::Parser;
use fri_plugin::config::Config;
use fri_plugin::daemon::Daemon;
use fri_plugin::daemon::deploy::{Deployment, Progress, Source};
use fri_plugin::daemon::invoke::{Call, new_request_id};
use fri_plugin::daemon::start::Sandboxes;
use fri_plugin::gateway::{Limits, serve, serve_routes};
use fri_plugin::proto::FunctionSpec;
use seedtree::node::instance::Nowhere;
use seedtree::runtime::Reply;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

const HANDLER: &str = "import json, sys\n\ndef handler(event, context):\n    return event\n\nif __name__ == '__main__':\n    \
                       print(json.dumps(handler(json.loads(sys.argv[1]), None)))\n";
const EVENT: &str = r#"{"name": "world", "numbers": [1, 2, 3]}"#;
/// Each case is measured in so many turns, in rotation with the others, so that what else happens on the machine meets all of them.
const ROUNDS: u32 = 5;

#[derive(Debug, Parser)]
struct Args {
    /// Time for each case, seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Clients at once.
    #[arg(long, value_delimiter = ',', default_value = "1,12,24")]
    clients: Vec<usize>,
    /// Also write the figures there.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    if let Err(error) = run(&Args::parse()) {
        eprintln!("gateway: {error:#}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<()> {
    let exe = benches::build().context("the release build failed")?;
    let directory = tempfile::Builder::new().prefix("coppice-bench").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bed = runtime.block_on(Bed::make(exe, directory.path(), args))?;
    let mut figures = Vec::new();
    println!(
        "{:<34}{:>8}{:>11}{:>11}{:>11}{:>10}{:>10}",
        "case", "clients", "p50, ms", "p99, ms", "answers/s", "p99/p50", "/ hot"
    );
    for &clients in &args.clients {
        let mut cases = bed.cases(clients);
        for _ in 0..ROUNDS {
            for case in &mut cases {
                let time = Duration::from_secs_f64(args.seconds / f64::from(ROUNDS));
                case.measure(&bed, &runtime, clients, time)?;
            }
        }
        let hot = |paced: bool| {
            let name = if paced { HOT_PACED } else { HOT };
            cases.iter().find(|c| c.name == name).map_or(f64::NAN, |c| c.quantile(0.5))
        };
        for case in &cases {
            figures.push(case.report(clients, hot(case.pace.is_some())));
        }
        if clients == 1 {
            for (over, under) in [(FORK, DIRECT_FORK), (SPARE, DIRECT_SPARE), (HOT, DIRECT_HOT)] {
                let of = |name| cases.iter().find(|c| c.name == name).map_or(f64::NAN, |c| c.quantile(0.5));
                println!(
                    "{:<34}{clients:>8}{:>11.3}",
                    format!("HTTP adds to: {under}"),
                    of(over) - of(under)
                );
            }
        }
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&figures)?)?;
    }
    runtime.block_on(bed.daemon.drain(None));
    Ok(())
}

const FORK: &str = "fork of the function's seed";
const SPARE: &str = "spare";
const HOT: &str = "kept instance (hot)";
const DIRECT_FORK: &str = "fork, without HTTP";
const DIRECT_SPARE: &str = "spare, without HTTP";
const DIRECT_HOT: &str = "kept, without HTTP";
/// The same with time between requests, as most functions have it: a spare costs some milliseconds of processor to make, so a loop without a
/// pause takes them faster than two cores can make them.
const SPARE_PACED: &str = "spare, 40 requests/s";
const HOT_PACED: &str = "kept instance, 40 requests/s";
/// Between two requests of all clients together.
const PACE: Duration = Duration::from_millis(25);
/// Bursts that a full pool can serve, without a pause within one; it is full again before the next. Answers a second are those within bursts.
const SPARE_BURST: &str = "spare, bursts of 32 of 64";
/// Of the pool that the configuration allows by default ([`Config`]'s `functions.max_spares`), and how many of it a burst takes.
const POOL: usize = 64;
const BURST: usize = POOL / 2;
const NATIVE: &str = "native cold python3";
const RUNSC: &str = "runsc do python3";

/// A daemon with its gateway, and the peers behind another one.
struct Bed {
    daemon: Daemon,
    gateway: SocketAddr,
    peers: SocketAddr,
    runsc: bool,
}

impl Bed {
    async fn make(exe: PathBuf, directory: &Path, args: &Args) -> Result<Bed> {
        let code = directory.join("code");
        std::fs::create_dir(&code)?;
        let file = code.join("app.py");
        std::fs::write(&file, HANDLER)?;
        let config = Config {
            state: directory.join("state"),
            run: directory.join("run"),
            runtimes: vec![seedtree::runtime::Runtime::Python],
            ..Config::default()
        };
        let daemon = Daemon::start(config, Sandboxes { exe, ..Sandboxes::default() }).await?;
        daemon.grow_languages(|_| ()).await?;
        let most = args.clients.iter().max().copied().unwrap_or(1);
        let mut functions = vec![("fork".to_owned(), 0, 0), ("hot".to_owned(), 0, most)];
        functions.push(("burst".to_owned(), POOL, 0));
        functions.extend(args.clients.iter().map(|n| (format!("spare{n}"), spares(*n), 0)));
        for (name, spares, keep_alive) in functions {
            let spec = FunctionSpec {
                name,
                runtime: "python".into(),
                handler: "app.handler".into(),
                spares: Some(u32::try_from(spares)?),
                keep_alive: u32::try_from(keep_alive)?,
                warm_event: EVENT.into(),
                ..FunctionSpec::default()
            };
            let deployment = Deployment { spec, code: Source::Directory(code.clone()), layers: Vec::new() };
            daemon.deploy(deployment, Progress::default()).await?;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let gateway = listener.local_addr()?;
        tokio::spawn(serve(daemon.clone(), listener, Limits::default(), std::future::pending()));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let peers = listener.local_addr()?;
        let file = Arc::new(file);
        let answer = move |Name(name): Name<String>, event: Bytes| peer(name, file.clone(), event);
        let routes = Router::new().route("/2015-03-31/functions/{name}/invocations", post(answer));
        tokio::spawn(async move {
            serve_routes(listener, routes, &Limits::default(), std::future::pending()).await;
        });
        let mut bed = Bed { daemon, gateway, peers, runsc: false };
        bed.runsc = tokio::task::spawn_blocking(move || ask(&mut client(peers), "runsc").is_ok()).await?;
        if !bed.runsc {
            eprintln!("gateway: runsc is not measured: it is not there, or does not work here");
        }
        Ok(bed)
    }

    fn cases(&self, clients: usize) -> Vec<Case> {
        let case = |name, function: &str, how| Case {
            name,
            function: function.into(),
            how,
            pace: None,
            burst: None,
            times: Vec::new(),
            wall: Duration::ZERO,
        };
        let pace = Some(PACE * u32::try_from(clients).unwrap_or(u32::MAX));
        let spare = format!("spare{clients}");
        let mut cases =
            vec![case(HOT, "hot", How::Http), case(SPARE, &spare, How::Http), case(FORK, "fork", How::Http)];
        if clients == 1 {
            cases.push(case(DIRECT_HOT, "hot", How::Direct));
            cases.push(case(DIRECT_SPARE, &spare, How::Direct));
            cases.push(case(DIRECT_FORK, "fork", How::Direct));
        }
        cases.push(Case { burst: Some(BURST), ..case(SPARE_BURST, "burst", How::Http) });
        cases.push(Case { pace, ..case(HOT_PACED, "hot", How::Http) });
        cases.push(Case { pace, ..case(SPARE_PACED, &spare, How::Http) });
        cases.push(case(NATIVE, "native", How::Peer));
        if self.runsc {
            cases.push(case(RUNSC, "runsc", How::Peer));
        }
        cases
    }
}

/// As many spares as are taken before the first is made again.
fn spares(clients: usize) -> usize {
    (clients * 2).clamp(4, 64)
}

/// A peer's answer: the handler as a program.
async fn peer(name: String, file: Arc<PathBuf>, event: Bytes) -> Result<Vec<u8>, axum::http::StatusCode> {
    let failed = axum::http::StatusCode::BAD_GATEWAY;
    let event = String::from_utf8(event.to_vec()).map_err(|_| failed)?;
    let program: &[&str] = match name.as_str() {
        "runsc" => &["runsc", "--network=none", "-platform", "systrap", "do", "/usr/bin/python3"],
        _ => &["/usr/bin/python3"],
    };
    let (first, rest) = program.split_first().ok_or(failed)?;
    let mut command = tokio::process::Command::new(first);
    command.args(rest).arg(&*file).arg(event).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|_| failed)?;
    if output.status.success() { Ok(output.stdout) } else { Err(failed) }
}

#[derive(Clone, Copy)]
enum How {
    Http,
    Direct,
    Peer,
}

struct Case {
    name: &'static str,
    function: String,
    how: How,
    /// From one request of a client to its next; none: as soon as it has its answer.
    pace: Option<Duration>,
    /// Requests of all clients together until the spares are waited for.
    burst: Option<usize>,
    /// ns.
    times: Vec<u64>,
    wall: Duration,
}

fn client(address: SocketAddr) -> http::Client {
    http::Client::new(address, Duration::from_secs(60))
}

/// One request, whose answer must be the event.
fn ask(client: &mut http::Client, function: &str) -> Result<()> {
    let response = client.invoke(function, EVENT.as_bytes())?;
    check(&response.body).with_context(|| format!("{function}: status {}", response.status))
}

fn check(answer: &[u8]) -> Result<()> {
    let is: Value = serde_json::from_slice(answer)?;
    if is == serde_json::from_str::<Value>(EVENT)? { Ok(()) } else { bail!("a wrong answer: {is}") }
}

async fn direct(daemon: &Daemon, function: &str) -> Result<()> {
    let id = new_request_id();
    let call = Call {
        function,
        event: EVENT.as_bytes(),
        request_id: &id,
        timeout_ms: None,
        version: None,
        caller: None,
    };
    match daemon.invoke(call, &mut Nowhere).await.result?.reply {
        Reply::Result(answer) => check(&answer),
        other => bail!("{other:?}"),
    }
}

impl Case {
    fn measure(
        &mut self,
        bed: &Bed,
        runtime: &tokio::runtime::Runtime,
        clients: usize,
        time: Duration,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            self.turn(bed, runtime, clients, time)?;
            if self.burst.is_none() || start.elapsed() >= time {
                return Ok(());
            }
        }
    }

    fn turn(
        &mut self,
        bed: &Bed,
        runtime: &tokio::runtime::Runtime,
        clients: usize,
        time: Duration,
    ) -> Result<()> {
        // What the case before has left to be done is not this one's.
        self.settle(bed)?;
        let left = AtomicUsize::new(self.burst.unwrap_or(usize::MAX));
        let mine = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        let start = Instant::now();
        let one = |n: usize| -> Result<Vec<u64>> {
            let mut http = client(if matches!(self.how, How::Peer) { bed.peers } else { bed.gateway });
            let mut times = Vec::new();
            // The clients take turns.
            let mut next = self.pace.map(|_| PACE * u32::try_from(n).unwrap_or_default());
            while start.elapsed() < time && mine() {
                if let (Some(at), Some(pace)) = (next, self.pace) {
                    std::thread::sleep(at.saturating_sub(start.elapsed()));
                    next = Some(at + pace);
                }
                let began = Instant::now();
                match self.how {
                    How::Direct => runtime.block_on(direct(&bed.daemon, &self.function))?,
                    _ => ask(&mut http, &self.function)?,
                }
                times.push(u64::try_from(began.elapsed().as_nanos())?);
            }
            Ok(times)
        };
        let one = &one;
        let all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..clients).map(|n| scope.spawn(move || one(n))).collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| bail!("a client panicked")))
                .collect::<Result<Vec<_>>>()
        })?;
        self.times.extend(all.into_iter().flatten());
        self.wall += start.elapsed();
        Ok(())
    }

    /// Waits until the spares are there.
    fn settle(&self, bed: &Bed) -> Result<()> {
        let start = Instant::now();
        while bed.daemon.node().functions().iter().any(|f| f.spares() < f.spec.spares) {
            if start.elapsed() > Duration::from_secs(30) {
                bail!("the spares are not there");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// ms.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let at = (sorted.len().saturating_sub(1) as f64 * q).round() as usize;
        sorted.get(at).map_or(f64::NAN, |ns| *ns as f64 / 1e6)
    }

    #[allow(clippy::cast_precision_loss)]
    fn report(&self, clients: usize, hot: f64) -> Value {
        let (p50, p99) = (self.quantile(0.5), self.quantile(0.99));
        let rate = self.times.len() as f64 / self.wall.as_secs_f64();
        println!(
            "{:<34}{clients:>8}{p50:>11.3}{p99:>11.3}{rate:>11.1}{:>10.2}{:>10.2}",
            self.name,
            p99 / p50,
            p50 / hot
        );
        json!({
            "case": self.name, "clients": clients, "answers": self.times.len(), "p50_ms": p50, "p99_ms": p99,
            "answers_per_s": rate, "p50_to_hot": p50 / hot,
        })
    }
}
