//! Starting programs: which file runs (scripts, interpreters), its new address space, and what execve(2) resets.
//!
//! A new address space is complete before the old one goes, so a failure leaves the caller as it was.

use crate::abi::AT_FDCWD;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::mmap::{MapRequest, RLIMIT_STACK};
use crate::mm::{Backing, Prot, Special, VmFlags};
use crate::num::{align_down, u64_of};
use crate::platform::{PAGE_SIZE, Regs, TASK_SIZE, Va, Vcpu};
use crate::task::creds::{Creds, FileRights, Watchers};
use crate::task::{Process, Task, TaskState, Tid};
use crate::vfs::FileKind;
use crate::vfs::file::O_PATH;
use std::collections::BTreeMap;

pub mod elf;
pub mod stack;

use elf::Image;

/// Scripts that may interpret one another.
const SCRIPT_DEPTH: usize = 4;
/// Bytes of a file's head that are looked at for `#!` (BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// Longest argument or environment string with its NUL (MAX_ARG_STRLEN).
const MAX_STRING: usize = 131_072;
/// Largest stack that is mapped.
const STACK_MAX: u64 = 64 << 20;
/// The part at a new stack's top that is backed at once, bytes. More would cost every fork the copying of its page tables.
const STACK_READY: u64 = 128 << 10;
/// Where position-independent programs start, before randomisation.
const PIE_BASE: Va = 0x5555_5555_4000;
/// Bits of personality(2) that a program with more rights than its caller does not inherit: READ_IMPLIES_EXEC, ADDR_COMPAT_LAYOUT,
/// MMAP_PAGE_ZERO, ADDR_NO_RANDOMIZE.
const CLEARED_WHEN_SECURE: u32 = 0x74_0000;
/// The initial flags: interrupts on, and the bit that is always set.
const RFLAGS: u64 = 0x202;

/// What to start as the first process of a sandbox.
#[derive(Clone, Debug, Default)]
pub struct Spawn {
    /// Path inside the guest (already resolved against PATH).
    pub path: Vec<u8>,
    /// Arguments, the program's name first.
    pub argv: Vec<Vec<u8>>,
    /// Environment as NAME=value.
    pub envp: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: Vec<u8>,
}

/// A program that has been found runnable. Holds references to its files.
#[derive(Debug)]
struct Program {
    file: u64,
    image: Image,
    interp: Option<(u64, Image)>,
    /// Path that execve named: a script keeps its own name.
    path: Vec<u8>,
    argv: Vec<Vec<u8>>,
    /// Credentials that it runs with.
    creds: Creds,
    /// It runs with more rights than its caller (AT_SECURE).
    secure: bool,
    /// The caller may read it, and so its memory.
    readable: bool,
}

/// A loaded address space and where the program starts in it.
#[derive(Debug)]
struct Ready {
    mm: u64,
    entry: Va,
    sp: Va,
    auxv: Vec<u8>,
}

impl Kernel {
    /// Makes process 1 with stdin, stdout and stderr on host descriptors (and optionally descriptor 3 on the work channel), and loads its
    /// program. It is runnable on return; on failure nothing is left behind.
    pub fn spawn_init(&mut self, spawn: &Spawn, stdio: crate::vfs::Stdio) -> Result<Tid, Errno> {
        let tid = self.next_id;
        let mm = self.mm_new()?;
        let files = self.fd_table_new();
        let root = self.vfs.root();
        let fs = self.fs_contexts.insert(crate::task::FsContext { root, cwd: root, umask: 0o022, refs: 1 });
        self.next_id += 1;
        self.processes.insert(tid, first_process(tid, self.platform.monotonic(), self.limits.tasks));
        self.tasks.insert(tid, new_task(tid, mm, files, fs));
        match self.start_first(tid, fs, spawn, stdio) {
            Ok(()) => {
                self.sched.push(tid);
                Ok(tid)
            }
            Err(e) => {
                if let Some(task) = self.tasks.remove(&tid) {
                    self.mm_release(task.mm);
                }
                self.processes.remove(&tid);
                self.fd_table_release(files);
                self.fs_contexts.remove(fs);
                self.next_id = tid;
                Err(e)
            }
        }
    }

    fn start_first(
        &mut self,
        tid: Tid,
        fs: u64,
        spawn: &Spawn,
        stdio: crate::vfs::Stdio,
    ) -> Result<(), Errno> {
        if !spawn.cwd.is_empty() {
            let cwd = self.lookup_dir(tid, &spawn.cwd)?;
            if let Some(context) = self.fs_contexts.get_mut(fs) {
                context.cwd = cwd;
            }
        }
        self.install_stdio(tid, stdio);
        self.exec(None, tid, &spawn.path, &spawn.argv, &spawn.envp)
    }

    /// execve(2) for a task: on success its memory, signals and registers are the new program's; on failure nothing has changed.
    ///
    /// A thread other than the first takes the process id over as its own: its old id is gone on return. EAGAIN when other threads
    /// have still to leave their vCPUs: they are about to, and the caller tries again when it is the only one.
    pub fn exec(
        &mut self,
        vcpu: Option<&mut dyn Vcpu>,
        tid: Tid,
        path: &[u8],
        argv: &[Vec<u8>],
        envp: &[Vec<u8>],
    ) -> Result<(), Errno> {
        let file = self.open_path(tid, AT_FDCWD, path, O_PATH, 0)?;
        self.exec_file(vcpu, tid, file, path, argv, envp)
    }

    /// The same for a file that is open already (execveat(2) with AT_EMPTY_PATH, then `path` is `/dev/fd/N`). Takes over the caller's
    /// reference to the file, also on failure.
    pub fn exec_file(
        &mut self,
        vcpu: Option<&mut dyn Vcpu>,
        tid: Tid,
        file: u64,
        path: &[u8],
        argv: &[Vec<u8>],
        envp: &[Vec<u8>],
    ) -> Result<(), Errno> {
        let mut files = vec![file];
        let result = self.prepare(tid, path, argv, envp, &mut files);
        let done = result.and_then(|(program, ready)| {
            self.exit_siblings(tid);
            if self.process_of(tid).is_some_and(|p| p.threads.len() > 1) {
                self.mm_release(ready.mm);
                return Err(Errno::EAGAIN);
            }
            self.commit(vcpu, tid, &program, ready);
            Ok(())
        });
        for file in files {
            self.file_unref(file);
        }
        done
    }

    /// Opens a file for execution. EACCES unless it is a regular file with an x bit.
    fn open_program(&mut self, tid: Tid, path: &[u8]) -> Result<u64, Errno> {
        let file = self.open_path(tid, AT_FDCWD, path, O_PATH, 0)?;
        match self.check_program(tid, file) {
            Ok(()) => Ok(file),
            Err(e) => {
                self.file_unref(file);
                Err(e)
            }
        }
    }

    /// EACCES unless it is a regular file that the task may execute.
    fn check_program(&mut self, tid: Tid, file: u64) -> Result<(), Errno> {
        let FileKind::Inode(inode) = self.open_file(file)?.kind else { return Err(Errno::EACCES) };
        match self.file_stat(file)?.mode & 0o170_000 {
            0o100_000 => {}
            0o120_000 => return Err(Errno::ELOOP),
            _ => return Err(Errno::EACCES),
        }
        self.permission(&self.creds_of(tid), inode, crate::vfs::path::MAY_EXEC)
    }

    /// Everything that can fail. `files` collects the references that the caller gives back.
    fn prepare(
        &mut self,
        tid: Tid,
        path: &[u8],
        argv: &[Vec<u8>],
        envp: &[Vec<u8>],
        files: &mut Vec<u64>,
    ) -> Result<(Program, Ready), Errno> {
        self.check_program(tid, *files.first().ok_or(Errno::ENOENT)?)?;
        let limit = self.soft_limit(tid, RLIMIT_STACK);
        check_sizes(argv, envp, limit)?;
        let program = self.find_program(tid, path, argv, files)?;
        let mm = self.mm_new()?;
        match self.load(mm, &program, path, envp, limit) {
            Ok(ready) => Ok((program, ready)),
            Err(e) => {
                self.mm_release(mm);
                Err(e)
            }
        }
    }

    fn find_program(
        &mut self,
        tid: Tid,
        path: &[u8],
        argv: &[Vec<u8>],
        files: &mut Vec<u64>,
    ) -> Result<Program, Errno> {
        let mut file = *files.last().ok_or(Errno::ENOENT)?;
        let name = path.to_vec();
        let mut path = name.clone();
        let mut argv = argv.to_vec();
        if argv.is_empty() {
            argv.push(Vec::new());
        }
        for depth in 0.. {
            let mut head = vec![0; HEAD];
            let n = self.file_read_at(file, 0, &mut head)?;
            head.truncate(n);
            let Some(line) = head.strip_prefix(b"#!") else { break };
            if depth > SCRIPT_DEPTH {
                return Err(Errno::ELOOP);
            }
            let (interp, arg) = script_line(line, n == HEAD)?;
            let rest = argv.split_off(1);
            argv = vec![interp.clone()];
            argv.extend(arg);
            argv.push(path);
            argv.extend(rest);
            file = self.open_program(tid, &interp)?;
            files.push(file);
            path = interp;
        }
        let image = self.parse_elf(file)?;
        self.file_map_source(file)?;
        let (creds, secure) = self.creds_after(tid, file)?;
        let before = self.creds_of(tid);
        let readable = files.iter().all(|f| {
            let inode = self.files.get(*f).and_then(|f| f.kind.inode());
            inode.is_some_and(|i| self.permission(&before, i, crate::vfs::path::MAY_READ).is_ok())
        });
        let interp = match &image.interp {
            Some(name) => {
                let f = self.open_program(tid, name)?;
                files.push(f);
                let interp = self.parse_elf(f).map_err(|e| match e {
                    Errno::ENOEXEC => Errno::ELIBBAD,
                    other => other,
                })?;
                self.file_map_source(f)?;
                Some((f, interp))
            }
            None => None,
        };
        Ok(Program { file, image, interp, path: name, argv, creds, secure, readable })
    }

    /// Credentials that a program of this file runs with when the task executes it, and whether it runs in secure mode.
    fn creds_after(&self, tid: Tid, file: u64) -> Result<(Creds, bool), Errno> {
        let inode = self.open_file(file)?.kind.inode().ok_or(Errno::EACCES)?;
        let node = self.vfs.inode(inode)?;
        let Some(process) = self.process_of(tid) else { return Ok((Creds::default(), false)) };
        let mut rights = FileRights::default();
        if !process.no_new_privs && !self.is_nosuid(node.fs) {
            let stat = &node.stat;
            rights.setuid = (stat.mode & 0o4000 != 0).then_some(stat.uid);
            rights.setgid = (stat.mode & 0o2010 == 0o2010).then_some(stat.gid);
        }
        let fs = self.task(tid).map_or(0, |t| t.fs);
        let sharers = self.tasks.values().filter(|t| t.fs == fs && t.pid != process.pid).count();
        let traced = self.traced_by_weaker(tid);
        let by = Watchers { no_new_privs: process.no_new_privs, shares_fs: sharers > 0, traced };
        Ok(process.creds.after_exec(rights, by))
    }

    /// Builds the new address space.
    fn load(
        &mut self,
        mm: u64,
        program: &Program,
        execfn: &[u8],
        envp: &[Vec<u8>],
        limit: u64,
    ) -> Result<Ready, Errno> {
        let image = &program.image;
        // The stack first: the choice of other addresses depends on it.
        let stack_len = align_down(limit.clamp(32 * PAGE_SIZE, STACK_MAX), PAGE_SIZE);
        let stack_end = TASK_SIZE - (1 + self.random_below(1 << 12)) * PAGE_SIZE;
        let stack_start = stack_end - stack_len;
        let mut prot = Prot::READ | Prot::WRITE;
        prot.set(Prot::EXEC, image.exec_stack);
        let mut request = MapRequest::anon(stack_start, stack_len, prot, true);
        request.backing = Backing::Special(Special::Stack);
        request.flags = VmFlags::GROWSDOWN;
        self.mm_map(mm, request)?;
        self.mm_populate(mm, stack_end - STACK_READY.min(stack_len), stack_end)?;
        // At least 1 MiB stays free below the stack (stack_guard_gap).
        let base = stack_start - (256 + self.random_below(1 << 16)) * PAGE_SIZE;
        if let Some(m) = self.mms.get_mut(mm) {
            m.mmap_base = base;
        }
        let pie = PIE_BASE + self.random_below(1 << 22) * PAGE_SIZE;
        let main = self.load_elf(mm, program.file, image, pie)?;
        let brk_gap = self.random_below(1 << 13) * PAGE_SIZE;
        let (mut entry, mut at_base) = (image.entry.wrapping_add(main.bias), 0);
        if let Some((file, interp)) = &program.interp {
            let (first, last) = interp.span();
            let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
            let at = m.find_gap((last - first).max(PAGE_SIZE), crate::mm::vma::MMAP_MIN_ADDR, base);
            let loaded = self.load_elf(mm, *file, interp, at.ok_or(Errno::ENOMEM)?)?;
            at_base = loaded.bias;
            entry = interp.entry.wrapping_add(loaded.bias);
        }
        if entry >= TASK_SIZE {
            return Err(Errno::EINVAL);
        }
        let vdso = self.map_vdso(mm)?;
        let mut random = [0; 16];
        self.entropy.fill(&mut random);
        let creds = &program.creds;
        let mut aux = vec![
            (51, u64_of(self.platform.xstate_len()) + 1024), // AT_MINSIGSTKSZ
            (16, 0),                                         // AT_HWCAP
            (6, PAGE_SIZE),                                  // AT_PAGESZ
            (17, 100),                                       // AT_CLKTCK
            (3, image.phdr.wrapping_add(main.bias)),         // AT_PHDR
            (4, elf::PHENT),                                 // AT_PHENT
            (5, image.phnum),                                // AT_PHNUM
            (7, at_base),                                    // AT_BASE
            (8, 0),                                          // AT_FLAGS
            (9, image.entry.wrapping_add(main.bias)),        // AT_ENTRY
            (11, u64::from(creds.uid)),                      // AT_UID
            (12, u64::from(creds.euid)),                     // AT_EUID
            (13, u64::from(creds.gid)),                      // AT_GID
            (14, u64::from(creds.egid)),                     // AT_EGID
            (23, u64::from(program.secure)),                 // AT_SECURE
            (26, 0),                                         // AT_HWCAP2
            (27, 20),                                        // AT_RSEQ_FEATURE_SIZE
            (28, 32),                                        // AT_RSEQ_ALIGN
        ];
        if vdso != 0 {
            aux.insert(0, (33, vdso)); // AT_SYSINFO_EHDR
        }
        let contents = stack::Contents { argv: &program.argv, envp, execfn, random, aux: &aux };
        let stack = stack::build(stack_end, stack_len, &contents)?;
        if self.mm_write_partial(mm, stack.sp, &stack.bytes) != stack.bytes.len() {
            return Err(Errno::ENOMEM);
        }
        if let Some(m) = self.mms.get_mut(mm) {
            m.brk_start = main.end.saturating_add(brk_gap);
            m.brk = m.brk_start;
            m.code = main.code;
            m.stack_start = stack.sp;
            m.args = stack.args;
            m.env = stack.env;
            m.vdso = vdso;
        }
        Ok(Ready { mm, entry, sp: stack.sp, auxv: stack.auxv })
    }

    /// Makes the new program the task's. Cannot fail.
    fn commit(&mut self, vcpu: Option<&mut dyn Vcpu>, tid: Tid, program: &Program, ready: Ready) {
        let Some(pid) = self.task(tid).map(|t| t.pid) else {
            self.mm_release(ready.mm);
            return;
        };
        self.reset_for_exec(tid);
        let exe = self.file_path(program.file);
        let exe = if exe.is_empty() { program.path.clone() } else { exe };
        if let Some(task) = self.tasks.get_mut(&tid) {
            let old = std::mem::replace(&mut task.mm, ready.mm);
            task.regs = Regs { rip: ready.entry, rsp: ready.sp, rflags: RFLAGS, ..Regs::default() };
            task.xstate = None;
            task.robust_list = 0;
            task.name = task_name(&program.path);
            self.mm_release(old);
        }
        match vcpu {
            Some(vcpu) if self.sched.fpu_owner(vcpu.index()) == Some(tid) => vcpu.reset_xstate(),
            _ => {}
        }
        self.fd_table_exec(tid);
        if let Some(p) = self.processes.get_mut(&pid) {
            p.exe = exe;
            p.auxv = ready.auxv;
            let same = (p.creds.euid, p.creds.egid) == (p.creds.uid, p.creds.gid);
            p.dumpable = u32::from(program.readable && same);
            if program.secure {
                p.aux.personality &= !CLEARED_WHEN_SECURE;
                if let Some((soft, _)) = p.rlimits.get_mut(&RLIMIT_STACK).filter(|(soft, _)| *soft > 8 << 20)
                {
                    *soft = 8 << 20;
                }
            }
        }
        if program.secure
            && let Some(task) = self.tasks.get_mut(&tid)
        {
            task.aux.pdeathsig = 0;
        }
        self.commit_creds(tid, program.creds.clone());
        if tid != pid {
            self.become_first(tid, pid);
        }
    }

    /// The thread that called execve goes on under the id of its process.
    fn become_first(&mut self, tid: Tid, pid: u32) {
        let Some(mut task) = self.tasks.remove(&tid) else { return };
        self.sched.remove(tid);
        task.tid = pid;
        task.syscall = None;
        task.resume = None;
        task.state = TaskState::Runnable;
        self.tasks.insert(pid, task);
        if let Some(p) = self.processes.get_mut(&pid) {
            p.threads.remove(&tid);
            p.threads.insert(pid);
        }
        self.sched.push(pid);
    }

    /// A random number below `n`, a power of two.
    fn random_below(&mut self, n: u64) -> u64 {
        let mut b = [0; 8];
        self.entropy.fill(&mut b);
        u64::from_le_bytes(b) & (n - 1)
    }
}

/// E2BIG when a string or all of them are too long (execve(2), "Limits on size of arguments and environment").
fn check_sizes(argv: &[Vec<u8>], envp: &[Vec<u8>], stack: u64) -> Result<(), Errno> {
    let limit = (stack / 4).clamp(131_072, 6 << 20);
    let mut total = 0;
    for s in argv.iter().chain(envp) {
        if s.len() >= MAX_STRING {
            return Err(Errno::E2BIG);
        }
        total += u64_of(s.len()) + 1 + 8;
        if total > limit {
            return Err(Errno::E2BIG);
        }
    }
    Ok(())
}

/// The interpreter and its optional argument from what follows `#!`.
fn script_line(line: &[u8], full: bool) -> Result<(Vec<u8>, Option<Vec<u8>>), Errno> {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let end = line.iter().position(|b| *b == b'\n' || *b == 0);
    let cut = end.is_none() && full;
    let line = line.get(..end.unwrap_or(line.len())).unwrap_or_default().trim_ascii();
    let mut parts = line.splitn(2, blank);
    let name = parts.next().unwrap_or_default().to_vec();
    let arg = parts.next().map(|a| a.trim_ascii().to_vec()).filter(|a| !a.is_empty());
    // A name that the buffer may have cut short is not run.
    if name.is_empty() || (cut && arg.is_none()) {
        return Err(Errno::ENOEXEC);
    }
    Ok((name, arg))
}

/// The thread's name: the last part of the path, 15 bytes, NUL-padded.
fn task_name(path: &[u8]) -> [u8; 16] {
    let base = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().take(15).zip(base) {
        *to = *from;
    }
    name
}

fn new_task(tid: Tid, mm: u64, files: u64, fs: u64) -> Task {
    Task { mm, files, fs, ..Task::new(tid, tid) }
}

fn first_process(pid: u32, started: u64, tasks: usize) -> Process {
    let unlimited = (u64::MAX, u64::MAX);
    let mut rlimits: BTreeMap<u32, (u64, u64)> = (0..16).map(|n| (n, unlimited)).collect();
    rlimits.insert(RLIMIT_STACK, (8 << 20, u64::MAX));
    rlimits.insert(4, (0, u64::MAX)); // RLIMIT_CORE
    rlimits.insert(6, (u64_of(tasks), u64_of(tasks))); // RLIMIT_NPROC
    rlimits.insert(7, (1024, 1_048_576)); // RLIMIT_NOFILE
    // The first process's on Linux 6.x: include/asm-generic/resource.h, include/uapi/linux/resource.h.
    rlimits.insert(8, (8 << 20, 8 << 20)); // RLIMIT_MEMLOCK
    rlimits.insert(11, (4096, 4096)); // RLIMIT_SIGPENDING: what a queue holds here
    rlimits.insert(12, (819_200, 819_200)); // RLIMIT_MSGQUEUE
    rlimits.insert(13, (0, 0)); // RLIMIT_NICE
    rlimits.insert(14, (0, 0)); // RLIMIT_RTPRIO
    Process { threads: [pid].into(), rlimits, started, ..Process::new(pid, 0) }
}

/// A runnable task and its process, for tests of other subsystems.
#[cfg(test)]
pub(crate) fn test_task(k: &mut Kernel, tid: Tid, mm: u64, files: u64, fs: u64) {
    k.processes.insert(tid, first_process(tid, 0, 16));
    k.tasks.insert(tid, new_task(tid, mm, files, fs));
}

#[cfg(test)]
mod tests;
