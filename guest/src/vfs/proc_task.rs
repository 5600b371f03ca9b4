//! Files of proc that describe one process or thread: what they say and what writing them does.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::MmStats;
use crate::num::us;
use crate::task::{Process, Task, TaskState};

/// A task's name without its padding.
fn name_of(task: &Task) -> String {
    let bytes: Vec<u8> = task.name.iter().copied().take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn state_of(process: &Process, task: &Task) -> (char, &'static str) {
    match task.state {
        _ if process.zombie.is_some() => ('Z', "zombie"),
        TaskState::Runnable | TaskState::Running(_) => ('R', "running"),
        TaskState::Blocked(_) => ('S', "sleeping"),
        TaskState::Stopped => ('T', "stopped"),
        TaskState::Traced => ('t', "tracing stop"),
    }
}

impl Kernel {
    /// The number of a file system's mount, as mountinfo and statx(2) give it.
    pub fn mount_id(&self, fs: super::inode::FsKind) -> u64 {
        use super::inode::FsKind;
        20 + match fs {
            FsKind::Root => 0,
            FsKind::Proc => 1,
            FsKind::Sys => 2,
            FsKind::Dev => 3,
            FsKind::Shm => 4,
            FsKind::Mount(n) => u64::from(n).saturating_sub(20),
        }
    }

    /// The arguments as the process has them now (proc_pid_cmdline(5)): where the end of the last was written over, as setproctitle(3) does,
    /// what is there up to the next NUL, the environment's place included.
    fn cmdline(&mut self, mm: u64) -> Vec<u8> {
        let Some((args, env)) = self.mms.get(mm).map(|m| (m.args, m.env)) else { return Vec::new() };
        let mut text = self.strings(mm, args);
        if text.last().is_some_and(|last| *last != 0) {
            text.extend(self.strings(mm, env));
            let end = text.iter().position(|b| *b == 0).map_or(text.len(), |nul| nul + 1);
            text.truncate(end);
        }
        text
    }

    /// What a process has in a range of its memory, as far as it is mapped.
    fn strings(&mut self, mm: u64, (from, to): (crate::platform::Va, crate::platform::Va)) -> Vec<u8> {
        let mut text = vec![0; us(to.saturating_sub(from))];
        let n = self.mm_read_forced(mm, from, &mut text);
        text.truncate(n);
        text
    }

    /// What a file below `proc/PID` says. ESRCH when the process is gone, ENOENT for other paths.
    pub(super) fn task_text(&mut self, path: &str) -> Result<Vec<u8>, Errno> {
        let mm = self.synth_task(path).ok_or(Errno::ESRCH)?.1.mm;
        let file = path.rsplit('/').next().unwrap_or_default();
        let sizes = match file {
            "cmdline" => return Ok(self.cmdline(mm)),
            "environ" => {
                let range = self.mms.get(mm).map_or((0, 0), |m| m.env);
                return Ok(self.strings(mm, range));
            }
            "stat" | "statm" | "status" => self.mm_stats(mm),
            _ => MmStats::default(),
        };
        let (process, task, by_thread, rest) = self.synth_task(path).ok_or(Errno::ESRCH)?;
        let rss = sizes.resident.min(self.platform.resident());
        let text = match rest.as_slice() {
            ["auxv"] => return Ok(process.auxv.clone()),
            ["comm"] => format!("{}\n", name_of(task)),
            ["stat"] => self.stat_line(process, task, by_thread, sizes.total_vm, rss),
            ["statm"] => {
                let pages = [sizes.total_vm, rss, sizes.shared.min(rss), sizes.exe];
                let [size, resident, shared, text] = pages.map(|n| n / 4096);
                format!("{size} {resident} {shared} {text} 0 {} 0\n", (sizes.data + sizes.stack) / 4096)
            }
            ["status"] => self.status_text(process, task, &sizes, rss),
            ["limits"] => limits_text(process),
            ["mounts"] => {
                let fixed = MOUNTS.iter().map(|(t, at, o)| format!("{t} {at} {t} {o} 0 0\n"));
                let made = self.mount_lines();
                fixed
                    .chain(made.iter().map(|(_, at, source, t, o)| format!("{source} {at} {t} {o} 0 0\n")))
                    .collect()
            }
            ["mountinfo"] => (20..)
                .zip(MOUNTS)
                .map(|(n, (t, at, o))| {
                    let parent = if n == 20 { 1 } else { 20 };
                    format!("{n} {parent} 0:{n} / {at} {o} - {t} {t} {o}\n")
                })
                .chain(self.mount_lines().iter().map(|(n, at, source, t, o)| {
                    let (flags, rest) = o.split_once(",size").map_or((o.as_str(), ""), |(f, _)| (f, o));
                    format!(
                        "{n} 20 0:{n} / {at} {flags} - {t} {source} {}\n",
                        if rest.is_empty() { o } else { rest }
                    )
                }))
                .collect(),
            // Where it sleeps, by the name of its call; 0 for one that does not.
            ["wchan"] => match (&task.state, &task.syscall) {
                (TaskState::Blocked(_), Some(call)) => {
                    format!("__x64_sys_{}", crate::syscall::names::name(call.number))
                }
                (TaskState::Stopped, _) => "do_signal_stop".into(),
                (TaskState::Traced, _) => "ptrace_stop".into(),
                _ => "0".into(),
            },
            ["cgroup"] => "0::/\n".into(),
            // The default: anonymous memory, ELF headers, private huge pages. There are no core dumps.
            ["coredump_filter"] => "00000033\n".into(),
            ["net", name] => self.net_text(name).ok_or(Errno::ENOENT)?,
            ["oom_score"] => "0\n".into(),
            ["oom_score_adj"] => format!("{}\n", process.aux.oom_score_adj),
            ["io"] => "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\n\
                       cancelled_write_bytes: 0\n"
                .into(),
            ["fdinfo", n] => {
                let n: u32 = n.parse().map_err(|_| Errno::ENOENT)?;
                let fd = self.fd_tables.get(task.files).and_then(|t| t.fds.get(&n)).ok_or(Errno::ENOENT)?;
                let open = self.files.get(fd.file).ok_or(Errno::ENOENT)?;
                let cloexec = if fd.cloexec { linux_raw_sys::general::O_CLOEXEC } else { 0 };
                let ino = match open.kind.inode() {
                    Some(id) => self.vfs.inode(id)?.stat.ino,
                    None => fd.file,
                };
                format!("pos:\t{}\nflags:\t0{:o}\nmnt_id:\t20\nino:\t{ino}\n", open.pos, open.flags | cloexec)
            }
            _ => return Err(Errno::ENOENT),
        };
        Ok(text.into_bytes())
    }

    /// The lines `cpu` and `cpuN` of proc's stat, `up` ns after the start: what living processes used and what reaped ones left to their
    /// parents, in ticks of 10 ms. Time is not kept by vCPU: each has an equal share.
    pub(crate) fn cpu_lines(&self, up: u64) -> String {
        let mut used = self.time.buried;
        for p in self.processes.values() {
            let (user, system) = self.process_times(p.pid);
            used.0 = used.0.saturating_add(user).saturating_add(p.aux.child_cpu_ns);
            used.1 = used.1.saturating_add(system).saturating_add(p.aux.child_system_ns);
        }
        let cpus = u64::try_from(self.limits.cpus).unwrap_or(1).max(1);
        let (user, system) = (used.0 / 10_000_000, used.1 / 10_000_000);
        let idle = (up / 10_000_000).saturating_mul(cpus).saturating_sub(user.saturating_add(system));
        let line =
            |share: u64| format!("{} 0 {} {} 0 0 0 0 0 0\n", user / share, system / share, idle / share);
        let mut text = format!("cpu  {}", line(1));
        for n in 0..cpus {
            text.push_str(&format!("cpu{n} {}", line(cpus)));
        }
        text
    }

    /// The line of proc's stat for a process, or for one of its threads (`by_thread`).
    fn stat_line(&self, process: &Process, task: &Task, by_thread: bool, vsize: u64, rss: u64) -> String {
        let (user, system) = if by_thread { self.task_times(task) } else { self.process_times(process.pid) };
        let [user, system] = [user, system].map(|ns| ns / 10_000_000);
        let [child_user, child_system] =
            [process.aux.child_cpu_ns, process.aux.child_system_ns].map(|ns| ns / 10_000_000);
        let tty = self.controlling_tty(process.pid);
        let terminal = tty.map_or(0, crate::tty::pts::device_number);
        let foreground = tty.and_then(|n| self.tty(n).ok()).map_or(-1, |t| i64::from(t.group));
        let (state, _) = state_of(process, task);
        let started = process.started / 10_000_000;
        format!(
            "{} ({}) {state} {} {} {} {terminal} {foreground} 4194304 0 0 0 0 {user} {system} {child_user} {child_system} \
             {} {} {} 0 {started} {vsize} {} \
             18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 {} 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
            task.tid,
            name_of(task),
            process.parent,
            process.pgid,
            process.sid,
            i64::from(task.aux.nice) + 20,
            task.aux.nice,
            process.threads.len(),
            rss / 4096,
            process.exit_signal,
        )
    }

    fn status_text(&self, process: &Process, task: &Task, sizes: &MmStats, rss: u64) -> String {
        let c = &process.creds;
        let (state, word) = state_of(process, task);
        let groups: String = c.groups.iter().map(|g| format!("{g} ")).collect();
        let fds = self.fd_tables.get(task.files).and_then(|t| t.fds.keys().last()).map_or(64, |n| n | 63);
        let bits = |want: u64| {
            process.actions.iter().zip(0_u32..64).fold(0_u64, |m, (a, n)| {
                let hit = if want == 1 { a.handler == 1 } else { a.handler > 1 };
                if hit { m | 1 << n } else { m }
            })
        };
        let cpus = self.limits.cpus;
        let mask = (0..cpus.min(64)).fold(0_u64, |m, n| m | 1 << n);
        let pending = |q: &crate::signal::SigQueue| {
            q.queue.iter().fold(0_u64, |m, s| m | 1_u64.checked_shl(s.signo.wrapping_sub(1)).unwrap_or(0))
        };
        format!(
            "Name:\t{}\nUmask:\t{:04o}\nState:\t{state} ({word})\nTgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\n\
             TracerPid:\t{}\nUid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\nFDSize:\t{fds}\nGroups:\t{groups}\n\
             VmPeak:\t{:8} kB\nVmSize:\t{:8} kB\nVmLck:\t       0 kB\nVmHWM:\t{:8} kB\nVmRSS:\t{:8} kB\n\
             VmData:\t{:8} kB\nVmStk:\t{:8} kB\nVmExe:\t{:8} kB\nVmSwap:\t       0 kB\nThreads:\t{}\nSigQ:\t0/{}\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\n\
             SigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\nCapInh:\t{:016x}\nCapPrm:\t{:016x}\n\
             CapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t{:016x}\nNoNewPrivs:\t{}\nSeccomp:\t0\n\
             Cpus_allowed:\t{mask:x}\nCpus_allowed_list:\t{}\nMems_allowed:\t1\nMems_allowed_list:\t0\n\
             voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n",
            name_of(task),
            self.fs_contexts.get(task.fs).map_or(0o022, |f| f.umask),
            process.pid,
            task.tid,
            process.parent,
            self.tracer_of(task.tid),
            c.uid,
            c.euid,
            c.suid,
            c.fsuid,
            c.gid,
            c.egid,
            c.sgid,
            c.fsgid,
            sizes.total_vm / 1024,
            sizes.total_vm / 1024,
            rss / 1024,
            rss / 1024,
            sizes.data / 1024,
            sizes.stack / 1024,
            sizes.exe / 1024,
            process.threads.len(),
            self.limits.tasks,
            pending(&task.pending),
            pending(&process.pending),
            task.sigmask,
            bits(1),
            bits(2),
            c.caps.inheritable,
            c.caps.permitted,
            c.caps.effective,
            c.caps.bounding,
            c.caps.ambient,
            u8::from(process.no_new_privs),
            if cpus > 1 { format!("0-{}", cpus - 1) } else { "0".into() },
        )
    }

    /// Writes a file of proc: a task's name; the out-of-memory score is accepted and has no effect. EACCES, EINVAL, ESRCH.
    pub(super) fn synth_write(&mut self, path: &str, data: &[u8]) -> Result<usize, Errno> {
        let (_, task, _, rest) = self.synth_task(path).ok_or(Errno::EACCES)?;
        let (tid, pid) = (task.tid, task.pid);
        match rest.as_slice() {
            ["oom_score_adj"] => {
                let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
                let score: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
                if !(-1000..=1000).contains(&score) {
                    return Err(Errno::EINVAL);
                }
                self.processes.get_mut(&pid).ok_or(Errno::ESRCH)?.aux.oom_score_adj = score;
                Ok(data.len())
            }
            ["comm"] => {
                let mut name = [0; 16];
                let text = data.strip_suffix(b"\n").unwrap_or(data);
                for (to, from) in name.iter_mut().take(15).zip(text.iter().take_while(|b| **b != 0)) {
                    *to = *from;
                }
                self.task_mut(tid).ok_or(Errno::ESRCH)?.name = name;
                Ok(data.len())
            }
            _ => Err(Errno::EACCES),
        }
    }
}

/// Mounts: (type, where, options).
const MOUNTS: &[(&str, &str, &str)] = &[
    ("overlay", "/", "rw,relatime"),
    ("proc", "/proc", "rw,nosuid,nodev,noexec,relatime"),
    ("sysfs", "/sys", "ro,nosuid,nodev,noexec,relatime"),
    ("tmpfs", "/dev", "rw,nosuid,relatime"),
    ("tmpfs", "/dev/shm", "rw,nosuid,nodev"),
];

fn limits_text(process: &Process) -> String {
    let mut text = format!("{:<26}{:<21}{:<21}{:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (number, (name, unit)) in (0_u32..).zip([
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ]) {
        let (soft, hard) = process.rlimits.get(&number).copied().unwrap_or((u64::MAX, u64::MAX));
        let show = |x: u64| if x == u64::MAX { "unlimited".to_owned() } else { x.to_string() };
        text.push_str(&format!("{name:<26}{:<21}{:<21}{unit:<10}\n", show(soft), show(hard)));
    }
    text
}
