//! proc and sys: directories, files and links that are made from the kernel's state when they are looked at.
//!
//! A node is known by its path (`proc/1/stat`, `sys/devices/system/cpu/online`); `shape` says whether a path exists and
//! what it is, `synth_list` what a directory holds, `synth_text` what a file says. Formats: proc(5), sysfs(5).

use super::InodeId;
use super::inode::{FsKind, Kind, S_IFDIR, S_IFLNK, S_IFREG, dtype};
use super::ops::DirLine;
use super::path::Link;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::net::proc as net;
use crate::num::u64_of;
use crate::task::{Process, Task, Tid};

/// Inodes of proc and sys that are kept before those of dead processes are forgotten.
const MAX_SYNTH: usize = 4096;

const PROC_TOP: &[&str] = &[
    "cmdline",
    "cgroups",
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "mounts",
    "net",
    "self",
    "stat",
    "sys",
    "thread-self",
    "uptime",
    "version",
];
const PROC_TASK: &[&str] = &[
    "auxv",
    "cgroup",
    "cmdline",
    "comm",
    "coredump_filter",
    "cwd",
    "environ",
    "exe",
    "fd",
    "fdinfo",
    "io",
    "limits",
    "maps",
    "mem",
    "mountinfo",
    "mounts",
    "net",
    "ns",
    "oom_score",
    "oom_score_adj",
    "pagemap",
    "root",
    "smaps",
    "smaps_rollup",
    "stat",
    "statm",
    "status",
    "wchan",
];
/// Name spaces: their links in PID/ns, their kinds, and the numbers that the initial ones have on Linux.
const NAMESPACES: &[(&str, &str, u32)] = &[
    ("cgroup", "cgroup", 4_026_531_835),
    ("ipc", "ipc", 4_026_531_839),
    ("mnt", "mnt", 4_026_531_841),
    ("net", "net", 4_026_531_840),
    ("pid", "pid", 4_026_531_836),
    ("pid_for_children", "pid", 4_026_531_836),
    ("time", "time", 4_026_531_834),
    ("time_for_children", "time", 4_026_531_834),
    ("user", "user", 4_026_531_837),
    ("uts", "uts", 4_026_531_838),
];
/// Fixed files and directories (trailing slash) besides the ones above.
const FIXED: &[&str] = &[
    "proc/sys/",
    "proc/sys/kernel/",
    "proc/sys/kernel/cap_last_cap",
    "proc/sys/kernel/hostname",
    "proc/sys/kernel/ngroups_max",
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/ostype",
    "proc/sys/kernel/pid_max",
    "proc/sys/kernel/random/",
    "proc/sys/kernel/random/boot_id",
    "proc/sys/kernel/random/uuid",
    "proc/sys/kernel/threads-max",
    "proc/sys/vm/",
    "proc/sys/vm/max_map_count",
    "proc/sys/vm/mmap_min_addr",
    "proc/sys/vm/overcommit_memory",
    "proc/sys/vm/unprivileged_userfaultfd",
    "proc/tty/",
    "proc/tty/drivers",
    "proc/sys/fs/",
    "proc/sys/fs/aio-max-nr",
    "proc/sys/fs/aio-nr",
    "proc/sys/fs/dir-notify-enable",
    "proc/sys/fs/file-max",
    "proc/sys/fs/file-nr",
    "proc/sys/fs/nr_open",
    "proc/sys/fs/pipe-max-size",
    "proc/sys/fs/fanotify/",
    "proc/sys/fs/fanotify/max_queued_events",
    "proc/sys/fs/fanotify/max_user_groups",
    "proc/sys/fs/fanotify/max_user_marks",
    "proc/sys/fs/inotify/",
    "proc/sys/fs/inotify/max_queued_events",
    "proc/sys/fs/inotify/max_user_instances",
    "proc/sys/fs/inotify/max_user_watches",
    "sys/devices/",
    "sys/devices/system/",
    "sys/devices/system/cpu/",
    "sys/devices/system/cpu/online",
    "sys/devices/system/cpu/possible",
    "sys/devices/system/cpu/present",
    "sys/devices/system/node/",
    "sys/devices/system/node/online",
    "sys/devices/system/node/possible",
    "sys/devices/system/node/node0/",
    "sys/devices/system/node/node0/cpulist",
    "sys/devices/system/node/node0/cpumap",
    "sys/devices/system/node/node0/meminfo",
    "sys/fs/",
    "sys/fs/cgroup/",
    "sys/kernel/",
    "sys/kernel/debug/",
    "sys/kernel/mm/",
    "sys/kernel/mm/hugepages/",
    "sys/kernel/mm/transparent_hugepage/",
    "sys/kernel/mm/transparent_hugepage/enabled",
    "sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
];
const TOPOLOGY: &[&str] = &["core_id", "core_siblings_list", "physical_package_id", "thread_siblings_list"];

/// The release that uname(2) and proc report.
pub use crate::syscall::info::RELEASE as OS_RELEASE;

/// The first processor's lines of the host's /proc/cpuinfo, without the `processor` line; empty when it cannot be read.
pub(super) fn host_cpuinfo() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().take_while(|l| !l.is_empty()).filter(|l| !l.starts_with("processor")).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    )
}

/// A canonical decimal number.
fn number(text: &str) -> Option<u32> {
    let n: u32 = text.parse().ok()?;
    (n.to_string() == text).then_some(n)
}

fn hex_id(bytes: [u8; 16]) -> String {
    let mut id = u128::from_be_bytes(bytes);
    // Version 4, variant 1 (RFC 9562, section 5.4).
    id = (id & !(0xf << 76)) | (4 << 76);
    id = (id & !(3 << 62)) | (2 << 62);
    let h = format!("{id:032x}");
    let part = |a: usize, b: usize| h.get(a..b).unwrap_or_default().to_owned();
    format!("{}-{}-{}-{}-{}\n", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

impl Kernel {
    /// The process and task a path below proc names: `proc/PID` or `proc/PID/task/TID`, and the components that follow.
    pub(super) fn synth_task<'p>(&self, path: &'p str) -> Option<(&Process, &Task, bool, Vec<&'p str>)> {
        let parts: Vec<&str> = path.split('/').collect();
        let (pid, rest) = match parts.as_slice() {
            ["proc", pid, rest @ ..] => (number(pid)?, rest),
            _ => return None,
        };
        let process = self.processes.get(&pid).filter(|p| self.exists(p.pid))?;
        match rest {
            ["task", tid, rest @ ..] => {
                let task = self.tasks.get(&number(tid)?).filter(|t| t.pid == pid)?;
                Some((process, task, true, rest.to_vec()))
            }
            _ => {
                let task = self
                    .tasks
                    .get(&pid)
                    .or_else(|| process.threads.iter().find_map(|t| self.tasks.get(t)))?;
                Some((process, task, false, rest.to_vec()))
            }
        }
    }

    /// The process and address space behind a path that stands for memory (`proc/PID/mem`).
    pub(super) fn synth_memory(&self, path: &str) -> Option<(u32, u64)> {
        let (process, task, _, rest) = path.ends_with("/mem").then(|| self.synth_task(path)).flatten()?;
        (rest == ["mem"]).then_some((process.pid, task.mm))
    }

    /// The address space behind a path of page-table entries (`proc/PID/pagemap`).
    pub(super) fn synth_pagemap(&self, path: &str) -> Option<u64> {
        let (_, task, _, rest) = path.ends_with("/pagemap").then(|| self.synth_task(path)).flatten()?;
        (rest == ["pagemap"]).then_some(task.mm)
    }

    /// The task that a file of proc tells too much about for other users: what it holds in memory and where that lies.
    pub(super) fn synth_private(&self, path: &str) -> Option<crate::task::Tid> {
        const PRIVATE: [&str; 8] =
            ["mem", "pagemap", "maps", "smaps", "smaps_rollup", "environ", "auxv", "io"];
        let (_, task, _, rest) = self.synth_task(path)?;
        rest.as_slice().first().filter(|name| rest.len() == 1 && PRIVATE.contains(name)).map(|_| task.tid)
    }

    /// Whether an open file tells of a process that is no business of `tid`'s any more: since it was opened the process may have got other
    /// credentials, or its id another process. Nothing can be read from it or written to it then, as on Linux, where it stays with the
    /// memory that was.
    pub(crate) fn became_private(&self, tid: crate::task::Tid, f: &super::OpenFile) -> bool {
        let super::FileKind::Inode(id) = f.kind else { return false };
        let Ok(Kind::Synth(path)) = self.vfs.inode(id).map(|n| &n.kind) else { return false };
        self.synth_private(path).is_some_and(|target| self.may_inspect(tid, target, false).is_err())
    }

    /// Mode of the node at a path, or `None` where nothing is.
    fn shape(&self, path: &str) -> Option<u32> {
        let dir = S_IFDIR | 0o555;
        let file = S_IFREG | 0o444;
        if path == "proc" || path == "sys" {
            return Some(dir);
        }
        if matches!(path, "proc/self" | "proc/thread-self" | "proc/mounts" | "proc/net") {
            return Some(S_IFLNK | 0o777);
        }
        for fixed in FIXED.iter().chain(net::FIXED.iter().map(|(name, _)| name)) {
            match fixed.strip_suffix('/') {
                Some(d) if d == path => return Some(dir),
                None if *fixed == path => return Some(file),
                _ => {}
            }
        }
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["proc", name] if PROC_TOP.contains(name) => return Some(file),
            ["sys", "devices", "system", "cpu", cpu, rest @ ..] => {
                let n = number(cpu.strip_prefix("cpu")?)?;
                if u64::from(n) >= u64_of(self.limits.cpus) {
                    return None;
                }
                return match rest {
                    [] | ["topology"] => Some(dir),
                    ["topology", name] if TOPOLOGY.contains(name) => Some(file),
                    _ => None,
                };
            }
            _ => {}
        }
        let (_, task, in_task, rest) = self.synth_task(path)?;
        match rest.as_slice() {
            [] => Some(dir),
            ["task"] if !in_task => Some(dir),
            ["fd" | "fdinfo"] => Some(S_IFDIR | 0o500),
            ["ns"] => Some(S_IFDIR | 0o511),
            ["ns", name] => NAMESPACES.iter().any(|(n, ..)| n == name).then_some(S_IFLNK | 0o777),
            ["pagemap"] => Some(S_IFREG | 0o400),
            ["net"] => Some(dir),
            ["net", name] if net::FILES.contains(name) => Some(file),
            ["exe" | "cwd" | "root"] => Some(S_IFLNK | 0o777),
            ["fd", n] => {
                self.fd_tables.get(task.files)?.fds.get(&number(n)?)?;
                Some(S_IFLNK | 0o700)
            }
            ["fdinfo", n] => {
                self.fd_tables.get(task.files)?.fds.get(&number(n)?)?;
                Some(S_IFREG | 0o400)
            }
            ["comm" | "oom_score_adj"] => Some(S_IFREG | 0o644),
            ["environ" | "auxv" | "io"] => Some(S_IFREG | 0o400),
            ["mem"] => Some(S_IFREG | 0o600),
            [name] if PROC_TASK.contains(name) => Some(file),
            _ => None,
        }
    }

    /// The process that a directory /proc/PID describes.
    pub(crate) fn proc_directory(&self, inode: InodeId) -> Option<u32> {
        let Kind::Synth(path) = &self.vfs.inode(inode).ok()?.kind else { return None };
        number(path.strip_prefix("proc/")?)
    }

    /// User and group of what proc has on a process: its effective ones, but user 0 for the files of one that hides its memory
    /// (PR_SET_DUMPABLE; proc(5)).
    fn synth_owner(&self, path: &str) -> Option<(u32, u32)> {
        let (p, _, _, rest) = self.synth_task(path)?;
        let hides = p.dumpable != 1 && !matches!(rest.as_slice(), [] | ["task"] | ["net"]);
        Some(if hides { (0, 0) } else { (p.creds.euid, p.creds.egid) })
    }

    /// A name in a directory of proc or sys.
    pub(super) fn synth_lookup(&mut self, dir: InodeId, name: &[u8]) -> Result<Option<InodeId>, Errno> {
        let Kind::Synth(above) = &self.vfs.inode(dir)?.kind else { return Err(Errno::ENOTDIR) };
        let Ok(text) = std::str::from_utf8(name) else { return Ok(None) };
        let path = format!("{above}/{text}");
        let Some(mode) = self.shape(&path) else { return Ok(None) };
        if let Some(id) = self.vfs.synth.get(&path).copied() {
            // The process may have other credentials by now, or be another one with the same id.
            let owner = self.synth_owner(&path);
            if let Some((uid, gid)) = owner
                && let Ok(node) = self.vfs.inode_mut(id)
            {
                (node.stat.uid, node.stat.gid) = (uid, gid);
            }
            return Ok(Some(id));
        }
        if self.vfs.synth.len() >= MAX_SYNTH {
            self.sweep_synth();
        }
        let fs = if path.starts_with("proc") { FsKind::Proc } else { FsKind::Sys };
        let mut stat = self.fresh_stat(mode);
        if let Some((uid, gid)) = self.synth_owner(&path) {
            (stat.uid, stat.gid) = (uid, gid);
        }
        if mode & S_IFDIR == S_IFDIR && mode & S_IFLNK != S_IFLNK {
            stat.nlink = 2;
        }
        let id = self.vfs.add(Kind::Synth(path.clone()), stat, dir, name, fs)?;
        self.vfs.synth.insert(path, id);
        Ok(Some(id))
    }

    /// Forgets nodes that nobody has open, deepest first, keeping the two roots and whatever a process stands in.
    fn sweep_synth(&mut self) {
        let used: Vec<InodeId> = self.fs_contexts.iter().flat_map(|(_, f)| [f.root, f.cwd]).collect();
        let mut keep: Vec<String> = vec!["proc".into(), "sys".into()];
        for (path, id) in &self.vfs.synth {
            if used.contains(id) || self.vfs.inode(*id).is_ok_and(|n| n.opens > 0) {
                keep.push(path.clone());
            }
        }
        let gone: Vec<InodeId> = self
            .vfs
            .synth
            .iter()
            .filter(|(path, _)| !keep.iter().any(|k| k == *path || k.starts_with(&format!("{path}/"))))
            .map(|(_, id)| *id)
            .collect();
        for id in gone {
            self.vfs.drop_inode(id);
        }
    }

    /// Where a link of proc leads.
    pub(super) fn synth_link(&self, tid: Tid, path: &str) -> Result<Link, Errno> {
        let me = self.task(tid);
        match path {
            "proc/self" => {
                return Ok(Link::Path(me.ok_or(Errno::ENOENT)?.pid.to_string().into_bytes()));
            }
            "proc/thread-self" => {
                let me = me.ok_or(Errno::ENOENT)?;
                return Ok(Link::Path(format!("{}/task/{}", me.pid, me.tid).into_bytes()));
            }
            "proc/mounts" => return Ok(Link::Path(b"self/mounts".to_vec())),
            "proc/net" => return Ok(Link::Path(b"self/net".to_vec())),
            _ => {}
        }
        let (process, task, _, rest) = self.synth_task(path).ok_or(Errno::ENOENT)?;
        let fs = self.fs_contexts.get(task.fs);
        // These links lead on without asking for rights on the way.
        if matches!(rest.as_slice(), ["exe" | "cwd" | "root"] | ["fd" | "ns", _]) {
            self.may_inspect(tid, task.tid, false).map_err(|_| Errno::EACCES)?;
        }
        match rest.as_slice() {
            ["exe"] if process.exe.is_empty() => Err(Errno::ENOENT),
            ["exe"] => Ok(Link::Path(process.exe.clone())),
            ["cwd"] => Ok(Link::Inode(fs.ok_or(Errno::ENOENT)?.cwd)),
            ["ns", name] => {
                let (_, kind, id) = NAMESPACES.iter().find(|(n, ..)| n == name).ok_or(Errno::ENOENT)?;
                Ok(Link::Path(format!("{kind}:[{id}]").into_bytes()))
            }
            ["root"] => Ok(Link::Inode(fs.ok_or(Errno::ENOENT)?.root)),
            ["fd", n] => {
                let n = number(n).ok_or(Errno::ENOENT)?;
                let fd = self.fd_tables.get(task.files).and_then(|t| t.fds.get(&n)).ok_or(Errno::ENOENT)?;
                match self.files.get(fd.file).ok_or(Errno::ENOENT)?.kind.inode() {
                    Some(id) => Ok(Link::Inode(id)),
                    None => Ok(Link::File(fd.file)),
                }
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// A directory's entries after `.` and `..`, in the order of their positions.
    pub(super) fn synth_list(&self, path: &str) -> Vec<DirLine> {
        let mut names: Vec<(u64, String)> = Vec::new();
        let mut fixed: Vec<String> = Vec::new();
        let prefix = format!("{path}/");
        for f in FIXED.iter().chain(net::FIXED.iter().map(|(name, _)| name)) {
            if let Some(rest) = f.strip_prefix(prefix.as_str()) {
                let rest = rest.strip_suffix('/').unwrap_or(rest);
                if !rest.is_empty() && !rest.contains('/') {
                    fixed.push(rest.to_owned());
                }
            }
        }
        let parts: Vec<&str> = path.split('/').collect();
        let numbered = 1 << 20;
        match parts.as_slice() {
            ["proc"] => {
                fixed.extend(PROC_TOP.iter().filter(|n| **n != "sys").map(|n| (*n).to_owned()));
                names.extend(
                    self.processes
                        .keys()
                        .filter(|p| self.exists(**p))
                        .map(|p| (numbered + u64::from(*p), p.to_string())),
                );
            }
            ["sys", "devices", "system", "cpu"] => {
                for n in 0..u64_of(self.limits.cpus) {
                    names.push((numbered + n, format!("cpu{n}")));
                }
            }
            ["sys", "devices", "system", "cpu", _] => fixed.push("topology".into()),
            ["sys", "devices", "system", "cpu", _, "topology"] => {
                fixed.extend(TOPOLOGY.iter().map(|n| (*n).to_owned()));
            }
            _ => {}
        }
        if let Some((process, task, in_task, rest)) = self.synth_task(path) {
            match rest.as_slice() {
                [] => {
                    fixed.extend(PROC_TASK.iter().map(|n| (*n).to_owned()));
                    if !in_task {
                        fixed.push("task".into());
                    }
                }
                ["task"] => {
                    names.extend(process.threads.iter().map(|t| (numbered + u64::from(*t), t.to_string())));
                }
                ["ns"] => fixed.extend(NAMESPACES.iter().map(|(n, ..)| (*n).to_owned())),
                ["net"] => fixed.extend(net::FILES.iter().map(|n| (*n).to_owned())),
                ["fd" | "fdinfo"] => {
                    if let Some(table) = self.fd_tables.get(task.files) {
                        names.extend(table.fds.keys().map(|n| (numbered + u64::from(*n), n.to_string())));
                    }
                }
                _ => {}
            }
        }
        let mut all: Vec<(u64, String)> = (3..).zip(fixed).collect();
        all.extend(names);
        all.into_iter()
            .filter_map(|(next, name)| {
                let full = format!("{path}/{name}");
                let mode = self.shape(&full)?;
                // A number that differs between entries; stat(2) gives the real one once the node exists.
                let ino = self
                    .vfs
                    .synth
                    .get(&full)
                    .and_then(|id| self.vfs.inode(*id).ok())
                    .map_or(next, |n| n.stat.ino);
                Some(DirLine { ino, dtype: dtype(mode), name: name.into_bytes(), next })
            })
            .collect()
    }

    /// What a file of proc or sys says now. ENOENT; ESRCH when its process is gone.
    pub(super) fn synth_text(&mut self, path: &str) -> Result<Vec<u8>, Errno> {
        if path == "proc/sys/kernel/random/uuid" {
            let mut id = [0; 16];
            self.entropy.fill(&mut id);
            return Ok(hex_id(id).into_bytes());
        }
        if let Some(text) = net::fixed_text(path) {
            return Ok(text.as_bytes().to_vec());
        }
        if let Some(text) = self.system_text(path) {
            return Ok(text.into_bytes());
        }
        let mm = match self.synth_task(path) {
            Some((_, task, ..)) => task.mm,
            None => return Err(Errno::ESRCH),
        };
        if path.ends_with("/smaps_rollup") {
            return Ok(self.mm_rollup_text(mm).into_bytes());
        }
        self.task_text(path)
    }

    fn system_text(&self, path: &str) -> Option<String> {
        let parts: Vec<&str> = path.split('/').collect();
        let cpus = self.limits.cpus;
        let last = cpus.saturating_sub(1);
        let range = if last == 0 { "0\n".to_owned() } else { format!("0-{last}\n") };
        let up = self.platform.monotonic();
        let (secs, centis) = (up / 1_000_000_000, up / 10_000_000 % 100);
        Some(match parts.as_slice() {
            ["proc", "cmdline"] => "coppice\n".into(),
            ["proc", "cpuinfo"] => {
                (0..cpus).map(|n| format!("processor\t: {n}\n{}\n", self.vfs.cpuinfo)).collect()
            }
            ["proc", "filesystems"] => "nodev\tproc\nnodev\tsysfs\nnodev\ttmpfs\nnodev\toverlay\n".into(),
            // No controller of version 1 is there; version 2 has none to list here.
            ["proc", "cgroups"] => "#subsys_name\thierarchy\tnum_cgroups\tenabled\n".into(),
            ["proc", "loadavg"] => {
                let (load, running) = (self.load_text(), self.running_tasks());
                format!("{load} {running}/{} {}\n", self.tasks.len(), self.next_id.saturating_sub(1))
            }
            ["proc", "meminfo"] => self.meminfo(""),
            ["sys", "devices", "system", "node", "node0", "meminfo"] => self.meminfo("Node 0 "),
            ["proc", "stat"] => {
                let mut text = self.cpu_lines(up);
                let boot = self.platform.realtime().saturating_sub(up) / 1_000_000_000;
                text.push_str(&format!(
                    "intr 0\nctxt 0\nbtime {boot}\nprocesses {}\nprocs_running {}\nprocs_blocked 0\n",
                    self.next_id.saturating_sub(1),
                    self.running_tasks()
                ));
                text
            }
            // Name, device, major and minor numbers, type: the terminals that there are.
            ["proc", "tty", "drivers"] => "/dev/tty             /dev/tty        5       0 system:/dev/tty\n\
                pty_slave            /dev/pts      136 0-1048575 pty:slave\n\
                pty_master           /dev/ptm      128 0-1048575 pty:master\n"
                .into(),
            ["proc", "uptime"] => format!("{secs}.{centis:02} 0.00\n"),
            ["proc", "version"] => format!("Linux version {OS_RELEASE} (coppice) #1 SMP\n"),
            ["proc", "sys", "kernel", name] => match *name {
                "osrelease" => format!("{OS_RELEASE}\n"),
                "hostname" => format!("{}\n", self.identity.hostname),
                "ostype" => "Linux\n".into(),
                "pid_max" => "4194304\n".into(),
                "threads-max" => format!("{}\n", self.limits.tasks),
                "ngroups_max" => "65536\n".into(),
                "cap_last_cap" => "40\n".into(),
                _ => return None,
            },
            ["proc", "sys", "kernel", "random", "boot_id"] => hex_id(self.vfs.boot_id),
            ["proc", "sys", "vm", "overcommit_memory"] => "1\n".into(),
            ["proc", "sys", "vm", "unprivileged_userfaultfd"] => "0\n".into(),
            ["proc", "sys", "vm", "max_map_count"] => "65530\n".into(),
            ["proc", "sys", "vm", "mmap_min_addr"] => "65536\n".into(),
            ["proc", "sys", "fs", "aio-max-nr"] => format!("{}\n", crate::aio::MAX_REQUESTS),
            ["proc", "sys", "fs", "aio-nr"] => format!("{}\n", self.aio.requests),
            ["proc", "sys", "fs", "dir-notify-enable"] => "1\n".into(),
            ["proc", "sys", "fs", "file-max"] => format!("{}\n", self.descriptor_limit()),
            ["proc", "sys", "fs", "file-nr"] => {
                format!("{}\t0\t{}\n", self.files.len(), self.descriptor_limit())
            }
            ["proc", "sys", "fs", "nr_open"] => "1048576\n".into(),
            ["proc", "sys", "fs", "pipe-max-size"] => format!("{}\n", super::pipe::MAX_CAPACITY),
            ["proc", "sys", "fs", "fanotify", "max_queued_events"] => {
                format!("{}\n", super::fanotify::MAX_EVENTS)
            }
            ["proc", "sys", "fs", "fanotify", "max_user_groups"] => {
                format!("{}\n", super::fanotify::MAX_GROUPS)
            }
            ["proc", "sys", "fs", "fanotify", "max_user_marks"] => {
                format!("{}\n", super::fanotify::MAX_MARKS)
            }
            ["proc", "sys", "fs", "inotify", "max_queued_events"] => "16384\n".into(),
            ["proc", "sys", "fs", "inotify", "max_user_instances"] => {
                format!("{}\n", super::inotify::MAX_QUEUES)
            }
            ["proc", "sys", "fs", "inotify", "max_user_watches"] => {
                format!("{}\n", super::inotify::MAX_WATCHES)
            }
            ["sys", "devices", "system", "cpu", "online" | "possible" | "present"] => range,
            ["sys", "devices", "system", "cpu", cpu, "topology", name] => {
                let n = number(cpu.strip_prefix("cpu")?)?;
                match *name {
                    "physical_package_id" => "0\n".into(),
                    "core_siblings_list" => range,
                    _ => format!("{n}\n"),
                }
            }
            ["sys", "devices", "system", "node", "node0", "cpulist"] => range,
            ["sys", "devices", "system", "node", "node0", "cpumap"] => {
                let mask = (0..cpus.min(64)).fold(0_u64, |m, n| m | 1 << n);
                format!("{mask:x}\n")
            }
            ["sys", "devices", "system", "node", "online" | "possible"] => "0\n".into(),
            ["sys", "kernel", "mm", "transparent_hugepage", "enabled"] => "always [madvise] never\n".into(),
            ["sys", "kernel", "mm", "transparent_hugepage", "hpage_pmd_size"] => "2097152\n".into(),
            _ => return None,
        })
    }

    fn meminfo(&self, prefix: &str) -> String {
        let total = self.limits.memory / 1024;
        let free = total.saturating_sub(self.platform.resident() / 1024);
        let mut text = String::new();
        for (name, kb) in [
            ("MemTotal", total),
            ("MemFree", free),
            ("MemAvailable", free),
            ("Buffers", 0),
            ("Cached", 0),
            ("SwapCached", 0),
            ("Active", total - free.min(total)),
            ("Inactive", 0),
            ("SwapTotal", 0),
            ("SwapFree", 0),
            ("Shmem", 0),
            ("Slab", 0),
            ("CommitLimit", total),
            ("Committed_AS", total - free.min(total)),
            ("HugePages_Total", 0),
            ("Hugepagesize", 2048),
        ] {
            let unit = if name.starts_with("HugePages_") { "" } else { " kB" };
            text.push_str(&format!("{prefix}{:<16}{kb:>8}{unit}\n", format!("{name}:")));
        }
        text
    }
}
