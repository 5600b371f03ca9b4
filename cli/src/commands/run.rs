//! `coppice run`: one program in a sandbox, no seeds. This process becomes the sandbox.

use crate::signals::Inbox;
use crate::terminal::{self, Raw, When};
use anyhow::{Context, anyhow, bail};
use guest::errno::Errno;
use guest::exec::Spawn;
use guest::kernel::{Kernel, Limits};
use guest::signal::SigInfo;
use guest::task::ExitStatus;
use guest::vfs::Stdio;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use vmm::sandbox::{Config, RunOptions, Sandbox, Stop};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coppice run -- python3 -c 'print(1)'\n  coppice run --strace -- /bin/true\n  coppice run --summary -- node app.js\n\n\
    The status is the program's own, 128 + N when signal N killed it, 127 when it is not found, 126 when it\n\
    cannot be executed, 125 for an error of coppice's own."
)]
pub struct Args {
    /// Root directory of the guest; it is never written to
    #[arg(long, value_name = "DIR", default_value = "/")]
    rootfs: PathBuf,
    /// Memory limit, such as 512m or 2g
    #[arg(long, value_name = "SIZE", default_value = "2g", value_parser = crate::size::parse)]
    memory: u64,
    /// vCPUs that may run at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    cpus: u16,
    /// Environment variable for the program; without =VALUE it is taken from this one's environment
    #[arg(long = "env", short = 'e', value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Working directory in the guest [default: this directory over the host's root, / over another]
    #[arg(long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    #[command(flatten)]
    mounts: crate::mounts::MountArgs,
    /// Give the program a terminal of its own (job control, line editing, window size) that is shown on this one [default: auto;
    /// with -t alone: always]
    #[arg(short = 't', long, value_name = "WHEN", value_enum, num_args = 0..=1, require_equals = true,
          default_missing_value = "always", default_value = "auto", hide_default_value = true)]
    tty: When,
    /// Print every system call with its arguments and result on stderr
    #[arg(long)]
    strace: bool,
    /// Print exits, faults and system calls on stderr at the end
    #[arg(long)]
    stats: bool,
    /// Print at the end, on stderr: each call's count, errors and time in the guest kernel, and what was refused although Linux has it
    #[arg(long)]
    summary: bool,
    /// Print the statistics (and the exit status) as one line of JSON on stderr at the end
    #[arg(long)]
    json: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the program to its end.
pub fn run(args: Args) -> anyhow::Result<u8> {
    let root = std::fs::File::open(&args.rootfs)
        .with_context(|| format!("cannot open the root directory {}", args.rootfs.display()))?;
    if !root.metadata().is_ok_and(|m| m.is_dir()) {
        bail!("the root {} is not a directory", args.rootfs.display());
    }
    let envp = environment(&args.env)?;
    let tty = args.tty.resolve() && !(args.strace && args.tty == When::Auto);
    let cpus = usize::from(args.cpus).min(seedtree::sandbox::host_cpus());
    let mut inbox = Inbox::new().context("cannot catch signals")?;
    let limits = Limits { memory: args.memory, cpus, ..Limits::default() };
    let mut sandbox = Sandbox::boot(Config { max_vcpus: cpus, ..Config::default() }, limits)?;
    {
        let mut kernel = sandbox.kernel();
        kernel.mount_root(root.into()).map_err(|e| anyhow!("cannot mount the root directory: {e}"))?;
        args.mounts.apply(&mut kernel)?;
        if args.strace {
            let fd = std::io::stderr().as_fd().try_clone_to_owned()?;
            kernel.strace = Some(guest::strace::Sink { fd });
        }
        kernel.counters.timed = args.summary;
        let argv: Vec<Vec<u8>> = args.command.iter().map(|a| a.as_bytes().to_vec()).collect();
        if let Err((code, message)) = start(
            &mut kernel,
            argv,
            envp,
            workdir(args.workdir, &args.rootfs).into_os_string().into_encoded_bytes(),
            tty,
        ) {
            tell!("coppice: {message}");
            return Ok(code);
        }
    }
    let raw = if tty { Some(Raw::enter()) } else { None };
    let status = loop {
        let options = RunOptions { deadline: None, control: Some(inbox.fd()), stop_when_quiescent: false };
        match sandbox.run(&options)? {
            Stop::Exited(status) => break status,
            Stop::Control => {
                for signal in inbox.take() {
                    // The guest's terminal tells its foreground group; it is not for the first process.
                    match (&raw, signal) {
                        (Some(_), signal_hook::consts::SIGWINCH) => {
                            sandbox.kernel().console_resize(terminal::size());
                            continue;
                        }
                        (Some(raw), signal_hook::consts::SIGCONT) => {
                            raw.again();
                            continue;
                        }
                        _ => {}
                    }
                    let signo = u32::try_from(signal).unwrap_or(15);
                    let info = SigInfo { signo, code: 0x80, ..SigInfo::default() };
                    sandbox.kernel().signal_process(1, info);
                }
            }
            Stop::Quiescent | Stop::Stuck => bail!("every thread of the program sleeps for ever"),
            Stop::TimedOut | Stop::Answer(_) => {}
        }
    };
    sandbox.kernel().console_drain();
    drop(raw);
    let oom = sandbox.kernel().counters.oom_kills > 0;
    if oom {
        tell!("coppice: the program exceeded its memory limit of {} MiB and was killed", args.memory >> 20);
    }
    if args.json {
        crate::summary::print_json(&sandbox, status);
    } else {
        if args.stats {
            crate::summary::print_stats(&sandbox);
        }
        if args.summary {
            crate::summary::print_summary(&sandbox.kernel());
        }
    }
    Ok(match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128 | signal,
    })
}

/// Where the program starts when nothing is said: here, if the guest's root is the host's.
fn workdir(asked: Option<PathBuf>, rootfs: &Path) -> PathBuf {
    let host_root = std::fs::canonicalize(rootfs).is_ok_and(|p| p == Path::new("/"));
    let here = || if host_root { std::env::current_dir().ok() } else { None };
    asked.or_else(here).unwrap_or_else(|| "/".into())
}

fn environment(extra: &[String]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut env: Vec<(String, String)> =
        vec![("PATH".into(), DEFAULT_PATH.into()), ("HOME".into(), "/root".into())];
    for name in ["TERM", "LANG", "LC_ALL", "TZ"] {
        if let Ok(value) = std::env::var(name) {
            env.push((name.into(), value));
        }
    }
    for item in extra {
        let (name, value) = match item.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => match std::env::var(item) {
                Ok(value) => (item.clone(), value),
                Err(_) => bail!("--env {item}: there is no such variable here; write {item}=VALUE"),
            },
        };
        if name.is_empty() {
            bail!("--env {item}: the name is empty");
        }
        env.retain(|(n, _)| *n != name);
        env.push((name, value));
    }
    Ok(env.into_iter().map(|(n, v)| format!("{n}={v}").into_bytes()).collect())
}

/// Starts the program, looking a bare name up in PATH. The error is an exit status and a message.
fn start(
    kernel: &mut Kernel,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
    cwd: Vec<u8>,
    tty: bool,
) -> Result<(), (u8, String)> {
    if let Err(e) = kernel.lookup_dir(0, &cwd) {
        let shown = String::from_utf8_lossy(&cwd).into_owned();
        let message = format!(
            "the working directory {shown} cannot be entered in the guest ({e}): choose one with --workdir"
        );
        return Err((125, message));
    }
    let name = argv.first().cloned().unwrap_or_default();
    let shown = String::from_utf8_lossy(&name).into_owned();
    let path = envp.iter().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or_default().to_vec();
    let candidates: Vec<Vec<u8>> = if name.contains(&b'/') {
        vec![name]
    } else {
        path.split(|b| *b == b':').filter(|d| !d.is_empty()).map(|d| [d, b"/", &name[..]].concat()).collect()
    };
    let mut failed = Errno::ENOENT;
    for path in candidates {
        let (stdin, stdout) = (duplicate(std::io::stdin().as_fd()), duplicate(std::io::stdout().as_fd()));
        let stderr = duplicate(std::io::stderr().as_fd());
        // Where standard error goes elsewhere than to the terminal it still does.
        let apart = !rustix::termios::isatty(std::io::stderr()) && rustix::termios::isatty(std::io::stdout());
        let stdio = if tty {
            Kernel::console_stdio(stderr.filter(|_| apart))
        } else {
            Stdio { stdin, stdout, stderr, work: false }
        };
        let spawn = Spawn { path, argv: argv.clone(), envp: envp.clone(), cwd: cwd.clone() };
        match kernel.spawn_init(&spawn, stdio) {
            Ok(tid) if tty => {
                return attach(kernel, tid, apart)
                    .map_err(|e| (125, format!("cannot give the program a terminal: {e:#}")));
            }
            Ok(_) => return Ok(()),
            Err(Errno::ENOENT | Errno::ENOTDIR) if failed != Errno::ENOENT => {}
            Err(error) => failed = error,
        }
    }
    Err(match failed {
        Errno::ENOENT | Errno::ENOTDIR => {
            (127, format!("{shown}: not found in the guest (or its ELF interpreter is missing)"))
        }
        Errno::ENOEXEC => (126, format!("{shown}: not a program for x86-64 Linux (ENOEXEC)")),
        Errno::EACCES => (126, format!("{shown}: permission denied")),
        other => (126, format!("{shown}: cannot be executed: {other}")),
    })
}

/// Gives the first process a terminal that is shown on this command's.
fn attach(kernel: &mut Kernel, tid: u32, apart: bool) -> anyhow::Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    kernel.attach_console(tid, input, output, apart, terminal::size()).map_err(|e| anyhow!("{e}"))
}

fn duplicate(fd: std::os::fd::BorrowedFd<'_>) -> Option<OwnedFd> {
    fd.try_clone_to_owned().ok()
}
