//! Where a test runs: natively, in a sandbox, or under a peer. Every side has the same root, /tmp of its own, and loopback alone.

use crate::suite::{Item, Suite, first_line};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A side of the comparison.
#[derive(Clone, Debug)]
pub enum Side {
    /// On the host's kernel, in fresh namespaces (mounts, network, processes, IPC, host name).
    Native,
    /// `coppice run`.
    Coppice {
        /// The command.
        binary: PathBuf,
    },
    /// `runsc do` on systrap.
    Runsc {
        /// Its version.
        version: String,
    },
}

const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
];

/// Arguments: a directory of the test's own, the working directory, the command. The shell stays, as the namespace's init.
const ON_HOST: &str = r#"mount --bind "$1" /tmp && mount -t proc proc /proc && ip link set lo up && cd "$2" || exit 125
shift 2; "$@"; exit $?"#;

/// The same with a root: below a writable layer in memory.
const IN_ROOT: &str = r#"mount -t tmpfs coppice "$1" && cd "$1" && mkdir up work root &&
mount -t overlay -o "lowerdir=$3,upperdir=up,workdir=work" coppice root && mount -t proc proc root/proc &&
mount --rbind /dev root/dev && mount -t tmpfs coppice root/tmp && ip link set lo up || exit 125
to=$2; root=$PWD/root; shift 3; chroot "$root" sh -c 'cd "$1"; shift; "$@"; exit $?' sh "$to" "$@"; exit $?"#;

impl Side {
    /// The peer, if it is there.
    pub fn runsc() -> anyhow::Result<Side> {
        let version = first_line("runsc", &["--version"]).context("--peer runsc")?;
        Ok(Side::Runsc { version })
    }

    /// Its name in results and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Side::Native => "native",
            Side::Coppice { .. } => "coppice",
            Side::Runsc { .. } => "runsc",
        }
    }

    /// What a result of it depends on, besides the suite and the kernel.
    pub fn version(&self) -> String {
        match self {
            Side::Native => String::new(),
            Side::Coppice { binary } => {
                let made = std::fs::metadata(binary).and_then(|m| Ok((m.len(), m.modified()?)));
                made.map(|(len, time)| format!("coppice {len} {time:?}")).unwrap_or_default()
            }
            Side::Runsc { version } => version.clone(),
        }
    }

    /// The command for a test. `scratch` is an empty directory of its own. It leads a session and a process group.
    pub fn command(&self, suite: &Suite, item: &Item, scratch: &Path) -> Command {
        let mut command = Command::new("setsid");
        let environment: Vec<(&str, &str)> = ENVIRONMENT.iter().chain(&suite.environment).copied().collect();
        command.env_clear().envs(environment.iter().copied());
        let namespaces = |command: &mut Command, kinds: &[&str]| {
            command.arg("unshare").args(kinds).args(["--fork", "--kill-child"]);
            if !rustix::process::geteuid().is_root() {
                command.arg("--map-root-user");
            }
        };
        match self {
            Side::Native => {
                namespaces(&mut command, &["--mount", "--net", "--pid", "--ipc", "--uts"]);
                command.args(["sh", "-c", if suite.root.is_some() { IN_ROOT } else { ON_HOST }, "sh"]);
                command.arg(scratch).arg(suite.workdir);
                command.args(&suite.root).args(&item.argv);
            }
            Side::Coppice { binary } => {
                command.arg(binary).args([
                    "run",
                    "--cpus",
                    "2",
                    "--memory",
                    "2g",
                    "--workdir",
                    suite.workdir,
                ]);
                for (name, value) in environment {
                    command.arg("--env").arg(format!("{name}={value}"));
                }
                if let Some(root) = &suite.root {
                    command.arg("--rootfs").arg(root);
                }
                command.arg("--").args(&item.argv);
            }
            Side::Runsc { .. } => {
                // In a namespace of processes, so that its helpers end with it.
                namespaces(&mut command, &["--mount", "--pid", "--mount-proc"]);
                command.args(["runsc", "--network=none", "-platform", "systrap", "do"]);
                match &suite.root {
                    // It looks for the working directory on the host, whatever the root.
                    Some(root) => {
                        command.args(["-cwd", "/", "-root"]).arg(root);
                        command.args(["sh", "-c", r#"cd "$1" && shift && exec "$@""#, "sh", suite.workdir]);
                    }
                    None => {
                        command.args(["-cwd", suite.workdir]);
                    }
                }
                command.args(&item.argv);
            }
        }
        command
    }
}

/// The host kernel's release: native results depend on it.
pub fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
