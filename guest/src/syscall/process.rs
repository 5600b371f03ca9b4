//! System calls: birth and death of tasks, ids, credentials, attributes.

use super::{Arg, Context, Entry, Support, ret};
use crate::errno::Errno;
use crate::num::{int, low8, low32, u64_of, us};
use crate::platform::TASK_SIZE;
use crate::signal::frame::{le64, put};
use crate::task::clone::{CloneArgs, flag};
use crate::task::creds::secure;
use crate::task::{Creds, ExitStatus, Rseq};
use crate::vfs::file::O_PATH;
use crate::wait::{Block, Outcome, Restart, SysResult, WaitKey};

const fn refused(number: u32, name: &'static str, errno: Errno, why: &'static str) -> Entry {
    // One handler for each error: a function pointer carries no data.
    let handler: super::Handler = match errno {
        Errno::EPERM => |_, _| Err(Errno::EPERM),
        Errno::EINVAL => |_, _| Err(Errno::EINVAL),
        _ => |_, _| Err(Errno::ENOSYS),
    };
    Entry {
        number,
        name,
        args: &[Arg::Hex, Arg::Hex, Arg::Hex],
        support: Support::Refused(errno, why),
        handler,
    }
}

const NO_NAMESPACES: &str = "no namespaces; CLONE_SIGHAND without CLONE_THREAD copies dispositions";
const CLONES: Arg = Arg::Flags(&[
    ("CLONE_VM", 0x100),
    ("CLONE_FS", 0x200),
    ("CLONE_FILES", 0x400),
    ("CLONE_SIGHAND", 0x800),
    ("CLONE_VFORK", 0x4000),
    ("CLONE_THREAD", 0x1_0000),
    ("CLONE_SYSVSEM", 0x4_0000),
    ("CLONE_SETTLS", 0x8_0000),
    ("CLONE_PARENT_SETTID", 0x10_0000),
    ("CLONE_CHILD_CLEARTID", 0x20_0000),
    ("CLONE_CHILD_SETTID", 0x100_0000),
]);

mod creds;
mod pidfd;
mod wait;

const NO_FILE_CAPS: &str = "a file's own capabilities (security.capability) give nothing";
const CREDS: &str = "credentials are the process's: a change is every thread's, as the C library makes it";

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(39, "getpid", &[], |c, _| ret(u64::from(c.pid()?))),
    Entry::partial(56, "clone", &[CLONES, Arg::Hex, Arg::Ptr, Arg::Ptr, Arg::Hex], NO_NAMESPACES, clone),
    Entry::full(57, "fork", &[], fork),
    Entry::full(58, "vfork", &[], vfork),
    Entry::partial(59, "execve", &[Arg::Path, Arg::Ptr, Arg::Ptr], NO_FILE_CAPS, execve),
    Entry::full(60, "exit", &[Arg::Int], exit),
    Entry::full(61, "wait4", &[Arg::Int, Arg::Ptr, Arg::Hex, Arg::Ptr], wait::wait4),
    Entry::full(102, "getuid", &[], |c, _| id(c, |x| x.uid)),
    Entry::full(104, "getgid", &[], |c, _| id(c, |x| x.gid)),
    Entry::full(105, "setuid", &[Arg::Uint], creds::setuid),
    Entry::full(106, "setgid", &[Arg::Uint], creds::setgid),
    Entry::full(107, "geteuid", &[], |c, _| id(c, |x| x.euid)),
    Entry::full(108, "getegid", &[], |c, _| id(c, |x| x.egid)),
    Entry::full(109, "setpgid", &[Arg::Int, Arg::Int], creds::setpgid),
    Entry::full(110, "getppid", &[], |c, _| ret(c.k.process_of(c.tid).map_or(0, |p| u64::from(p.parent)))),
    Entry::full(111, "getpgrp", &[], |c, _| ret(c.k.process_of(c.tid).map_or(0, |p| u64::from(p.pgid)))),
    Entry::full(112, "setsid", &[], creds::setsid),
    Entry::full(113, "setreuid", &[Arg::Uint, Arg::Uint], creds::setreuid),
    Entry::full(114, "setregid", &[Arg::Uint, Arg::Uint], creds::setregid),
    Entry::full(115, "getgroups", &[Arg::Int, Arg::Ptr], creds::getgroups),
    Entry::full(116, "setgroups", &[Arg::Int, Arg::Ptr], creds::setgroups),
    Entry::full(117, "setresuid", &[Arg::Uint, Arg::Uint, Arg::Uint], creds::setresuid),
    Entry::full(118, "getresuid", &[Arg::Ptr, Arg::Ptr, Arg::Ptr], creds::getresuid),
    Entry::full(119, "setresgid", &[Arg::Uint, Arg::Uint, Arg::Uint], creds::setresgid),
    Entry::full(120, "getresgid", &[Arg::Ptr, Arg::Ptr, Arg::Ptr], creds::getresgid),
    Entry::full(121, "getpgid", &[Arg::Int], creds::getpgid),
    Entry::full(122, "setfsuid", &[Arg::Uint], creds::setfsuid),
    Entry::full(123, "setfsgid", &[Arg::Uint], creds::setfsgid),
    Entry::full(124, "getsid", &[Arg::Int], creds::getsid),
    Entry::full(125, "capget", &[Arg::Ptr, Arg::Ptr], creds::capget),
    Entry::partial(126, "capset", &[Arg::Ptr, Arg::Ptr], CREDS, creds::capset),
    Entry::partial(135, "personality", &[Arg::Hex], "recorded without effect", personality),
    Entry::partial(
        157,
        "prctl",
        &[Arg::Int, Arg::Hex, Arg::Hex, Arg::Hex, Arg::Hex],
        "the common options",
        prctl,
    ),
    Entry::partial(158, "arch_prctl", &[Arg::Hex, Arg::Hex], "the bases of FS and GS only", arch_prctl),
    Entry::full(186, "gettid", &[], |c, _| ret(u64::from(c.tid))),
    Entry::full(218, "set_tid_address", &[Arg::Ptr], set_tid_address),
    Entry::full(231, "exit_group", &[Arg::Int], exit_group),
    Entry::full(247, "waitid", &[Arg::Int, Arg::Int, Arg::Ptr, Arg::Hex, Arg::Ptr], wait::waitid),
    refused(308, "setns", Errno::EPERM, "no name spaces but the initial ones"),
    refused(312, "kcmp", Errno::ENOSYS, "checkpointing aid"),
    refused(317, "seccomp", Errno::EINVAL, "no filters inside the sandbox"),
    Entry::partial(
        322,
        "execveat",
        &[Arg::DirFd, Arg::Path, Arg::Ptr, Arg::Ptr, Arg::Hex],
        NO_FILE_CAPS,
        execveat,
    ),
    Entry::full(334, "rseq", &[Arg::Ptr, Arg::Uint, Arg::Hex, Arg::Hex], rseq),
    Entry::full(
        424,
        "pidfd_send_signal",
        &[Arg::Fd, Arg::Signal, Arg::Ptr, Arg::Hex],
        pidfd::pidfd_send_signal,
    ),
    Entry::full(434, "pidfd_open", &[Arg::Int, Arg::Hex], pidfd::pidfd_open),
    Entry::full(438, "pidfd_getfd", &[Arg::Fd, Arg::Fd, Arg::Hex], pidfd::pidfd_getfd),
    Entry::partial(435, "clone3", &[Arg::Ptr, Arg::Uint], NO_NAMESPACES, clone3),
];

fn id(c: &Context<'_>, f: impl Fn(&Creds) -> u32) -> SysResult {
    ret(c.k.process_of(c.tid).map_or(0, |p| u64::from(f(&p.creds))))
}

// ---- birth and death ----

fn do_clone(c: &mut Context<'_>, a: &CloneArgs) -> SysResult {
    let resumed = c.k.task(c.tid).and_then(|t| t.resume);
    let child = match resumed {
        Some(r) => low32(r.memo.first().copied().unwrap_or(0)),
        None => c.k.clone_task(c.vcpu, c.tid, a).map_err(|e| {
            let lacking = a.flags & (flag::NAMESPACES | flag::INTO_CGROUP | flag::PIDFD);
            if lacking != 0 && matches!(e, Errno::EINVAL | Errno::EPERM) {
                return c.refuse("flags", &[lacking], e);
            }
            e
        })?,
    };
    if resumed.is_none() {
        c.k.trace_birth(c.tid, child, a);
    }
    if a.flags & flag::VFORK != 0 && c.k.processes.get(&child).is_some_and(|p| p.aux.vforked) {
        let on = vec![WaitKey::Vfork(child)];
        let memo = [u64::from(child), 0];
        return Ok(Outcome::Block(Block {
            on,
            deadline: None,
            relative: false,
            restart: Restart::WithDeadline,
            memo,
        }));
    }
    if a.flags & flag::VFORK != 0 {
        c.k.trace_vfork_done(c.tid, child);
    }
    ret(u64::from(child))
}

fn clone(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [flags, stack, parent_tid, child_tid, tls, _] = *a;
    // The upper half is clone3's; the lowest byte is the signal.
    let flags = u64::from(low32(flags));
    let args = CloneArgs {
        flags: flags & !0xff,
        exit_signal: low32(flags & 0xff),
        stack,
        parent_tid,
        child_tid,
        tls,
        set_tid: 0,
        pidfd: parent_tid,
    };
    // Both results of the old call share an argument.
    if flags & flag::PIDFD != 0 && flags & (flag::PARENT_SETTID | 0x40_0000) != 0 {
        return Err(Errno::EINVAL);
    }
    do_clone(c, &args)
}

fn fork(c: &mut Context<'_>, _: &[u64; 6]) -> SysResult {
    do_clone(c, &CloneArgs { exit_signal: 17, ..CloneArgs::default() })
}

fn vfork(c: &mut Context<'_>, _: &[u64; 6]) -> SysResult {
    do_clone(c, &CloneArgs { flags: flag::VM | flag::VFORK, exit_signal: 17, ..CloneArgs::default() })
}

fn clone3(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [va, size, ..] = *a;
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    if size < 64 {
        return Err(Errno::EINVAL);
    }
    let b = c.k.copy_in_vec(c.tid, va, us(size))?;
    if b.iter().skip(88).any(|x| *x != 0) {
        return Err(Errno::E2BIG);
    }
    let w = |i: usize| le64(&b, i * 8);
    let (flags, exit_signal, stack, stack_size, set_tid, set_tid_size) = (w(0), w(4), w(5), w(6), w(8), w(9));
    if set_tid_size > 32 || (set_tid == 0) != (set_tid_size == 0) {
        return Err(Errno::EINVAL);
    }
    if exit_signal > 64 || (flags & flag::INTO_CGROUP != 0 && (size < 88 || w(10) > 0x7fff_ffff)) {
        return Err(Errno::EINVAL);
    }
    let set_tid = match set_tid_size {
        0 => 0,
        1 => {
            let id = c.k.get_u32(c.tid, set_tid)?;
            if id == 0 || id >= 4_194_304 {
                return Err(Errno::EINVAL);
            }
            id
        }
        // One id for each nested pid namespace, and there is one.
        _ => return Err(Errno::EINVAL),
    };
    // CLONE_NEWTIME (0x80) is the only flag in the signal's byte.
    let known = 0xffff_ff80 | flag::CLEAR_SIGHAND | flag::INTO_CGROUP;
    if flags & !known != 0
        || flags & 0x40_0000 != 0
        || flags & (flag::SIGHAND | flag::CLEAR_SIGHAND) == flag::SIGHAND | flag::CLEAR_SIGHAND
        || (flags & (flag::THREAD | flag::PARENT) != 0 && exit_signal != 0)
    {
        return Err(Errno::EINVAL);
    }
    let top = stack.checked_add(stack_size).filter(|t| *t <= TASK_SIZE);
    if (stack == 0) != (stack_size == 0) || top.is_none() {
        return Err(Errno::EINVAL);
    }
    let args = CloneArgs {
        flags,
        child_tid: w(2),
        parent_tid: w(3),
        exit_signal: low32(exit_signal),
        stack: top.unwrap_or(0),
        tls: w(7),
        set_tid,
        pidfd: w(1),
    };
    do_clone(c, &args)
}

fn exit(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [code, ..] = *a;
    if c.k.trace_exit(c.tid, ExitStatus::Code(low8(code)), false) {
        return Ok(Outcome::Done);
    }
    c.k.exit_task(c.tid, ExitStatus::Code(low8(code)));
    Ok(Outcome::Done)
}

fn exit_group(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [code, ..] = *a;
    let pid = c.pid()?;
    if c.k.trace_exit(c.tid, ExitStatus::Code(low8(code)), true) {
        return Ok(Outcome::Done);
    }
    c.k.exit_process(pid, ExitStatus::Code(low8(code)));
    Ok(Outcome::Done)
}

/// Strings of argv or envp: at most 128 KiB each, 2 MiB together (E2BIG).
fn strings(c: &mut Context<'_>, va: u64, total: &mut usize) -> Result<Vec<Vec<u8>>, Errno> {
    let mut out = Vec::new();
    if va == 0 {
        return Ok(out);
    }
    loop {
        let at = va.checked_add(u64_of(out.len()).saturating_mul(8)).ok_or(Errno::EFAULT)?;
        let p = c.k.get_u64(c.tid, at)?;
        if p == 0 {
            return Ok(out);
        }
        let s =
            c.k.copy_in_str(c.tid, p, 128 << 10)
                .map_err(|e| if e == Errno::ENAMETOOLONG { Errno::E2BIG } else { e })?;
        *total = total.saturating_add(s.len() + 9);
        if *total > 2 << 20 {
            return Err(Errno::E2BIG);
        }
        out.push(s);
    }
}

fn do_exec(c: &mut Context<'_>, path: &[u8], argv: u64, envp: u64) -> SysResult {
    let mut total = 0;
    let argv = strings(c, argv, &mut total)?;
    let envp = strings(c, envp, &mut total)?;
    let pid = c.pid()?;
    exec_as(c, pid, argv, envp, |c, argv, envp| c.k.exec(Some(c.vcpu), c.tid, path, argv, envp))
}

/// Runs one way of starting a program and does what execve(2) does besides.
fn exec_as(
    c: &mut Context<'_>,
    pid: u32,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
    start: impl FnOnce(&mut Context<'_>, &[Vec<u8>], &[Vec<u8>]) -> Result<(), Errno>,
) -> SysResult {
    // The path can be read only while the old memory is there; a failure is printed with its error afterwards.
    if let Some(call) = c.k.task(c.tid).and_then(|t| t.syscall.clone()) {
        c.k.trace_call(c.tid, &call, &Ok(Outcome::Done));
    }
    match start(c, &argv, &envp) {
        Err(Errno::EAGAIN) if c.k.process_of(c.tid).is_some_and(|p| p.threads.len() > 1) => {
            let restart = Restart::WithDeadline;
            return Ok(Outcome::Block(Block { restart, ..Block::on(WaitKey::Vfork(pid)) }));
        }
        other => other?,
    }
    c.k.drop_posix_timers(pid);
    if let Some(p) = c.k.processes.get_mut(&pid) {
        p.aux.executed = true;
    }
    c.k.vfork_done(pid);
    c.k.trace_exec(pid, c.tid);
    Ok(Outcome::Done)
}

fn execve(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, argv, envp, ..] = *a;
    let path = c.k.copy_in_str(c.tid, path, crate::abi::PATH_MAX)?;
    do_exec(c, &path, argv, envp)
}

fn execveat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, argv, envp, flags, _] = *a;
    let flags = low32(flags);
    if flags & !0x1100 != 0 {
        return Err(Errno::EINVAL);
    }
    let path = c.k.copy_in_str(c.tid, path, crate::abi::PATH_MAX)?;
    if flags & 0x100 == 0
        && (path.first() == Some(&b'/') || (int(dirfd) == crate::abi::AT_FDCWD && !path.is_empty()))
    {
        return do_exec(c, &path, argv, envp);
    }
    if path.is_empty() && flags & 0x1000 == 0 {
        return Err(Errno::ENOENT);
    }
    let mut total = 0;
    let argv = strings(c, argv, &mut total)?;
    let envp = strings(c, envp, &mut total)?;
    let pid = c.pid()?;
    let fd = int(dirfd);
    let mut name = if fd == crate::abi::AT_FDCWD { Vec::new() } else { format!("/dev/fd/{fd}").into_bytes() };
    if !path.is_empty() {
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend(&path);
    }
    // AT_SYMLINK_NOFOLLOW
    let nofollow = if flags & 0x100 != 0 { linux_raw_sys::general::O_NOFOLLOW } else { 0 };
    exec_as(c, pid, argv, envp, |c, argv, envp| {
        let file = if path.is_empty() {
            let file = c.k.file_of(c.tid, fd)?;
            c.k.file_ref(file);
            file
        } else {
            c.k.open_path(c.tid, fd, &path, O_PATH | nofollow, 0)?
        };
        c.k.exec_file(Some(c.vcpu), c.tid, file, &name, argv, envp)
    })
}

// ---- attributes ----

fn personality(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [p, ..] = *a;
    let aux = &mut c.k.process_of_mut(c.tid).ok_or(Errno::ESRCH)?.aux;
    let was = aux.personality;
    if low32(p) != u32::MAX {
        aux.personality = low32(p);
    }
    ret(u64::from(was))
}

fn set_tid_address(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [va, ..] = *a;
    c.k.task_mut(c.tid).ok_or(Errno::ESRCH)?.clear_child_tid = va;
    ret(u64::from(c.tid))
}

fn arch_prctl(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [code, addr, ..] = *a;
    let tid = c.tid;
    let regs = &mut c.k.task_mut(tid).ok_or(Errno::ESRCH)?.regs;
    match low32(code) {
        0x1001 | 0x1002 if addr >= TASK_SIZE => return Err(Errno::EPERM),
        0x1001 => regs.gs_base = addr,
        0x1002 => regs.fs_base = addr,
        0x1003 => {
            let x = regs.fs_base;
            c.k.put_u64(tid, addr, x)?;
        }
        0x1004 => {
            let x = regs.gs_base;
            c.k.put_u64(tid, addr, x)?;
        }
        _ => return Err(Errno::EINVAL),
    }
    ret(0)
}

fn prctl(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [option, x, x3, x4, x5, _] = *a;
    let tid = c.tid;
    let rest = x3 | x4 | x5;
    let flag = |v: u64| if v > 1 { Err(Errno::EINVAL) } else { Ok(v == 1) };
    match int(option) {
        1 => {
            if x > 64 {
                return Err(Errno::EINVAL);
            }
            c.k.task_mut(tid).ok_or(Errno::ESRCH)?.aux.pdeathsig = low32(x);
        }
        2 => {
            let s = c.k.task(tid).map_or(0, |t| t.aux.pdeathsig);
            c.k.put_u32(tid, x, s)?;
        }
        3 => return ret(c.k.process_of(tid).map_or(0, |p| u64::from(p.dumpable))),
        4 => {
            let on = flag(x)?;
            c.k.process_of_mut(tid).ok_or(Errno::ESRCH)?.dumpable = u32::from(on);
        }
        7 => return ret(u64::from(c.k.creds_of(tid).securebits & secure::KEEP_CAPS != 0)),
        8 => return creds::set_keep_caps(c, x),
        15 => {
            let mut name = [0; 16];
            // Byte by byte: the string may end right before unmapped memory.
            for (i, to) in name.iter_mut().take(15).enumerate() {
                let mut b = [0];
                c.k.copy_in(tid, x.wrapping_add(u64_of(i)), &mut b)?;
                if b == [0] {
                    break;
                }
                *to = b.first().copied().unwrap_or(0);
            }
            c.k.task_mut(tid).ok_or(Errno::ESRCH)?.name = name;
        }
        16 => {
            let name = c.k.task(tid).ok_or(Errno::ESRCH)?.name;
            c.k.copy_out(tid, x, &name)?;
        }
        23 => return creds::bounding(c, false, x),
        24 => return creds::bounding(c, true, x),
        // PR_SET_TIMERSLACK, PR_GET_TIMERSLACK
        29 => c.k.task_mut(tid).ok_or(Errno::ESRCH)?.aux.timer_slack = x,
        30 => {
            return ret(c
                .k
                .task(tid)
                .map_or(0, |t| if t.aux.timer_slack == 0 { 50_000 } else { t.aux.timer_slack }));
        }
        // PR_GET_TIMING, PR_SET_TIMING: statistical.
        13 => return ret(0),
        14 if x == 0 => {}
        // PR_GET_SECCOMP: none.
        21 => return ret(0),
        27 => return ret(u64::from(c.k.creds_of(tid).securebits)),
        28 => return creds::set_securebits(c, x),
        // PR_GET_TSC: PR_TSC_ENABLE.
        25 => c.k.put_u32(tid, x, 1)?,
        26 if x == 1 => {}
        // PR_MCE_KILL_GET: PR_MCE_KILL_DEFAULT.
        34 if x | rest == 0 => return ret(2),
        // PR_GET_TID_ADDRESS
        40 => {
            let va = c.k.task(tid).map_or(0, |t| t.clear_child_tid);
            c.k.put_u64(tid, x, va)?;
        }
        // PR_SET_THP_DISABLE, PR_GET_THP_DISABLE
        41 => {
            if rest != 0 {
                return Err(Errno::EINVAL);
            }
            c.k.process_of_mut(tid).ok_or(Errno::ESRCH)?.aux.thp_disabled = x != 0;
        }
        42 => {
            if x | rest != 0 {
                return Err(Errno::EINVAL);
            }
            return ret(c.k.process_of(tid).map_or(0, |p| u64::from(p.aux.thp_disabled)));
        }
        47 => return creds::ambient(c, [x, x3, x4, x5]),
        36 => c.k.process_of_mut(tid).ok_or(Errno::ESRCH)?.aux.subreaper = x != 0,
        37 => {
            let on = c.k.process_of(tid).is_some_and(|p| p.aux.subreaper);
            c.k.put_u32(tid, x, u32::from(on))?;
        }
        38 => {
            if x != 1 || rest != 0 {
                return Err(Errno::EINVAL);
            }
            c.k.process_of_mut(tid).ok_or(Errno::ESRCH)?.no_new_privs = true;
        }
        39 => {
            if x | rest != 0 {
                return Err(Errno::EINVAL);
            }
            return ret(c.k.process_of(tid).map_or(0, |p| u64::from(p.no_new_privs)));
        }
        // PR_SET_VMA: names of anonymous memory are accepted.
        0x5356_4d41 => {}
        _ if crate::refused::prctl_name(u64::from(low32(option))).is_some() => {
            return Err(c.refuse("option", &[u64::from(low32(option))], Errno::EINVAL));
        }
        _ => return Err(Errno::EINVAL),
    }
    ret(0)
}

fn rseq(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [addr, len, flags, signature, ..] = *a;
    let (len, signature) = (low32(len), low32(signature));
    let task = c.k.task_mut(c.tid).ok_or(Errno::ESRCH)?;
    let old = task.rseq;
    let same = old.addr == addr && old.len == len;
    match int(flags) {
        1 => {
            if old.addr == 0 || !same {
                return Err(Errno::EINVAL);
            }
            if old.signature != signature {
                return Err(Errno::EPERM);
            }
            let mut b = [0; 8];
            put(&mut b, 4, &u32::MAX.to_le_bytes());
            c.k.copy_out(c.tid, addr, &b)?;
            let task = c.k.task_mut(c.tid).ok_or(Errno::ESRCH)?;
            task.rseq = Rseq::default();
            return ret(0);
        }
        0 => {}
        _ => return Err(Errno::EINVAL),
    }
    if old.addr != 0 {
        return Err(match (same, old.signature == signature) {
            (false, _) => Errno::EINVAL,
            (true, false) => Errno::EPERM,
            (true, true) => Errno::EBUSY,
        });
    }
    if len < 32 || addr % 32 != 0 {
        return Err(Errno::EINVAL);
    }
    if addr == 0 || addr.checked_add(u64::from(len)).is_none_or(|end| end > TASK_SIZE) {
        return Err(Errno::EFAULT);
    }
    task.rseq = Rseq { addr, len, signature };
    // The number is written at the return to user mode.
    task.aux.rseq_cpu = None;
    ret(0)
}
