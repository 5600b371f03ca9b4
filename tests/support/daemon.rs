//! A `coppiced` for a test: its own directories, ports of the system's choice, nothing left behind.

use super::{fresh_dir, open_dir, wait};
use fri_plugin::fri::client::{Client, ClientError};
use fri_plugin::proto;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time for a daemon to grow the seeds of its runtimes, and to end.
const LIMIT: Duration = Duration::from_secs(60);

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Runtimes that get a seed at start.
    pub runtimes: Vec<&'static str>,
    /// Group of the sockets; none where empty.
    pub group: String,
    /// More of the section [fri].
    pub fri: String,
    /// More of the section [gateway].
    pub gateway: String,
    /// More of the configuration (TOML), as keys outside of sections.
    pub keys: String,
    /// More of the configuration, as sections.
    pub more: String,
    /// Give it a small file system of its own for its state, and one for /dev/shm. Needs root.
    pub own_mounts: bool,
    /// Its directories are where everybody may reach them.
    pub in_the_open: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            runtimes: vec!["python"],
            group: String::new(),
            fri: String::new(),
            gateway: String::new(),
            keys: String::new(),
            more: String::new(),
            own_mounts: false,
            in_the_open: false,
        }
    }
}

/// A running daemon. Dropped, it is killed; its directories go with it, and its sandboxes must.
pub struct Coppiced {
    child: Option<Child>,
    options: Options,
    directory: tempfile::TempDir,
    mark: String,
    /// Holds the mount namespace that it runs in.
    namespace: Option<Child>,
}

impl Coppiced {
    /// Starts one, and waits until it is ready.
    pub fn start(options: Options) -> Coppiced {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("coppiced-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = if options.in_the_open { open_dir("d") } else { fresh_dir("d") };
        let namespace = options.own_mounts.then(|| own_mounts(&directory.path().join("state")));
        let mut daemon = Coppiced { child: None, options, directory, mark, namespace };
        daemon.start_again();
        daemon
    }

    /// Starts it again over the state that it has left.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coppiced"));
        if let Some(namespace) = &self.namespace {
            command = Command::new("nsenter");
            command.args(["-t", &namespace.id().to_string(), "-m", "--", env!("CARGO_BIN_EXE_coppiced")]);
        }
        std::fs::write(self.config(), self.configuration()).unwrap();
        command.arg("--config").arg(self.config());
        command.env("COPPICE_TEST_MARK", &self.mark).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let started = Instant::now();
        while !self.is_ready() {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                panic!("coppiced ended with {status}: {}", self.log());
            }
            assert!(started.elapsed() < LIMIT, "coppiced is not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_ready(&self) -> bool {
        block_on(async {
            let client = Client::connect(&self.grpc()).await.ok()?;
            let status = client.node().status(proto::StatusRequest::default()).await.ok()?;
            (status.into_inner().state == "ready").then_some(())
        })
        .is_some()
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("coppiced.toml")
    }

    fn configuration(&self) -> String {
        let (state, run) = (self.state(), self.run_directory());
        let mut text = format!("state = {state:?}\nrun = {run:?}\nruntimes = {:?}\n", self.options.runtimes);
        text.push_str(&self.options.keys);
        text.push_str(&format!("[fri]\ngroup = {:?}\n{}\n", self.options.group, self.options.fri));
        text.push_str(&format!("[gateway]\nlisten = \"127.0.0.1:0\"\n{}\n", self.options.gateway));
        text.push_str("[metrics]\nlisten = \"127.0.0.1:0\"\n");
        text.push_str(&self.options.more);
        text
    }

    /// Directory of what survives.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Directory of the sockets.
    pub fn run_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The socket for gRPC.
    pub fn grpc(&self) -> PathBuf {
        self.run_directory().join("fri.grpc.sock")
    }

    /// The socket for ttrpc.
    pub fn ttrpc(&self) -> PathBuf {
        self.run_directory().join("fri.ttrpc.sock")
    }

    /// A path as the daemon sees it, for the test.
    pub fn reach(&self, path: &Path) -> PathBuf {
        match &self.namespace {
            Some(holder) => {
                Path::new(&format!("/proc/{}/root", holder.id())).join(path.strip_prefix("/").unwrap())
            }
            None => path.to_owned(),
        }
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Where the gateway listens.
    pub fn gateway(&self) -> SocketAddr {
        self.listens("gateway.listen")
    }

    /// Where metrics are told.
    pub fn metrics(&self) -> SocketAddr {
        self.listens("metrics.listen")
    }

    /// The address that the present daemon has logged for a key.
    fn listens(&self, key: &str) -> SocketAddr {
        let log = self.log();
        let line = log.lines().rfind(|l| l.contains("listening") && l.contains(key));
        let address = line.and_then(|l| l.rsplit_once("address=")?.1.trim().parse().ok());
        address.unwrap_or_else(|| panic!("{key} listens nowhere: {log}"))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |c| i32::try_from(c.id()).unwrap())
    }

    /// Its sandboxes, by the mark that they inherit.
    pub fn sandboxes(&self) -> Vec<i32> {
        super::left::marked(&self.mark).into_iter().filter(|pid| *pid != self.pid()).collect()
    }

    /// A client over gRPC.
    pub async fn client(&self) -> Client {
        Client::connect(&self.grpc()).await.unwrap()
    }

    /// Tells it to end, and waits until it has; nothing of it may be there then.
    pub fn stop(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("it does not run");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait()
    }

    /// Waits until it has ended; nothing of it may be there then.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it does not run");
        let (status, late) = wait(&mut child, LIMIT);
        assert!(!late, "coppiced does not end: {}", self.log());
        self.nothing_is_left();
        status
    }

    /// Kills it with SIGKILL; its sandboxes must go with it.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it does not run");
        child.kill().unwrap();
        child.wait().unwrap();
        self.nothing_is_left();
    }

    fn nothing_is_left(&self) {
        let gone = super::left::eventually(|| self.sandboxes().is_empty());
        assert!(gone, "sandboxes are left: {:?}", self.sandboxes());
    }

    /// Deploys a function from files; names may have directories.
    pub fn deploy(
        &self,
        spec: proto::FunctionSpec,
        files: &[(&str, &str)],
    ) -> Result<proto::Function, ClientError> {
        block_on(async { deploy(&self.client().await, spec, archive(files)).await })
    }

    /// One request, and its answer: the function's result, or its error.
    pub fn invoke(&self, function: &str, event: &str) -> Result<(proto::InvokeEnd, Vec<u8>), ClientError> {
        block_on(async { invoke(&self.client().await, function, event.to_owned()).await })
    }
}

impl Drop for Coppiced {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "coppiced's log:\n{}", self.log());
        }
        for mut child in [self.child.take(), self.namespace.take()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A mount namespace with a small file system of its own in `state`, and one in /dev/shm; the process that holds it.
fn own_mounts(state: &Path) -> Child {
    std::fs::create_dir_all(state).unwrap();
    let script = "mount -t tmpfs -o size=48m tmpfs \"$1\" && mount -t tmpfs -o size=8m tmpfs /dev/shm && echo made && exec sleep 86400";
    let mut holder = Command::new("unshare");
    holder.args(["--mount", "--", "sh", "-c", script, "sh"]).arg(state).stdout(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut said = [0; 5];
    let made = std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said);
    assert!(made.is_ok() && said == *b"made\n", "this test mounts file systems: it needs root");
    holder
}

/// Runs a future to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A function in Python with its handler in app.py.
pub fn python(name: &str) -> proto::FunctionSpec {
    proto::FunctionSpec {
        name: name.into(),
        runtime: "python".into(),
        handler: "app.handler".into(),
        memory_bytes: 256 << 20,
        timeout_ms: 20_000,
        ..Default::default()
    }
}

/// A zip file of these files.
pub fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The messages of a deploy.
pub fn deploy_messages(spec: proto::FunctionSpec, code: Vec<u8>) -> Vec<proto::DeployRequest> {
    use proto::deploy_request::Part;
    let archive = proto::Archive { kind: proto::archive::Kind::Code.into() };
    let mut parts = vec![Part::Spec(spec), Part::Archive(archive)];
    parts.extend(code.chunks(1 << 20).map(|c| Part::Chunk(c.to_vec().into())));
    parts.into_iter().map(|part| proto::DeployRequest { part: Some(part) }).collect()
}

/// Deploys a function.
pub async fn deploy(
    client: &Client,
    spec: proto::FunctionSpec,
    code: Vec<u8>,
) -> Result<proto::Function, ClientError> {
    use proto::deploy_event::Event;
    let messages = futures::stream::iter(deploy_messages(spec, code));
    let mut events = client.functions().deploy(messages).await?.into_inner();
    while let Some(event) = events.message().await? {
        if let Some(Event::Deployed(function)) = event.event {
            return Ok(function);
        }
    }
    Err(ClientError::Protocol)
}

/// One request.
pub async fn invoke(
    client: &Client,
    function: &str,
    event: impl Into<Vec<u8>>,
) -> Result<(proto::InvokeEnd, Vec<u8>), ClientError> {
    use proto::invoke_request::Part;
    use proto::invoke_response::Part as Answer;
    let head = proto::InvokeHead { function: function.into(), ..Default::default() };
    let event: Vec<u8> = event.into();
    let chunks = event.chunks(1 << 20).map(|c| Part::Chunk(c.to_vec().into())).collect::<Vec<_>>();
    let parts = std::iter::once(Part::Head(head)).chain(chunks);
    let messages: Vec<_> = parts.map(|part| proto::InvokeRequest { part: Some(part) }).collect();
    let mut answers = client.instances().invoke(futures::stream::iter(messages)).await?.into_inner();
    let mut answer = Vec::new();
    while let Some(message) = answers.message().await? {
        match message.part {
            Some(Answer::Chunk(chunk)) => answer.extend_from_slice(&chunk),
            Some(Answer::End(end)) => return Ok((end, answer)),
            _ => {}
        }
    }
    Err(ClientError::Protocol)
}

/// Whether a path is there.
pub fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
