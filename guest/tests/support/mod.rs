//! A booted kernel on the fake platform, driven as a vCPU would drive it: tests make system calls of guest tasks by setting
//! their registers and look at the results in guest memory.

// Each test binary uses a part of this.
#![allow(dead_code, clippy::panic)]

use guest::exec::Spawn;
use guest::kernel::{Kernel, Limits, Next};
use guest::platform::fake::{FakePlatform, FakeVcpu};
use guest::platform::{Exit, Platform};
use guest::task::{TaskState, Tid};
use guest::vfs::Stdio;
use std::sync::Arc;

/// A static program of one page: headers, and one instruction that is never run. Its memory is 0x400000..0x440000.
pub fn tiny_elf() -> Vec<u8> {
    let mut elf = vec![0_u8; 4096];
    elf[..16].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let put = |elf: &mut Vec<u8>, at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(&mut elf, 16, &2_u16.to_le_bytes()); // ET_EXEC
    put(&mut elf, 18, &62_u16.to_le_bytes()); // EM_X86_64
    put(&mut elf, 20, &1_u32.to_le_bytes());
    put(&mut elf, 24, &0x40_0100_u64.to_le_bytes()); // entry
    put(&mut elf, 32, &64_u64.to_le_bytes()); // phoff
    put(&mut elf, 52, &64_u16.to_le_bytes());
    put(&mut elf, 54, &56_u16.to_le_bytes());
    put(&mut elf, 56, &1_u16.to_le_bytes());
    put(&mut elf, 64, &1_u32.to_le_bytes()); // PT_LOAD
    put(&mut elf, 68, &7_u32.to_le_bytes()); // rwx
    put(&mut elf, 80, &0x40_0000_u64.to_le_bytes());
    put(&mut elf, 88, &0x40_0000_u64.to_le_bytes());
    put(&mut elf, 96, &4096_u64.to_le_bytes());
    put(&mut elf, 104, &(64 * 4096_u64).to_le_bytes());
    put(&mut elf, 112, &4096_u64.to_le_bytes());
    elf
}

/// A root directory with the program in it, some directories and a file.
pub fn populate(root: &std::path::Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for sub in ["bin", "tmp", "dir", "etc"] {
        std::fs::create_dir(root.join(sub)).unwrap();
    }
    std::fs::write(root.join("bin/tiny"), tiny_elf()).unwrap();
    std::fs::write(root.join("dir/file"), vec![7; 10_000]).unwrap();
    std::fs::set_permissions(root.join("bin/tiny"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/dir/file", root.join("link")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
}

/// Where user memory for tests begins.
const HEAP: u64 = 0x40_1000;

/// One guest with one vCPU.
pub struct Machine {
    pub kernel: Kernel,
    pub platform: Arc<FakePlatform>,
    pub vcpu: FakeVcpu,
    root: tempfile::TempDir,
    /// Who is in user mode.
    current: Option<Tid>,
    heap: u64,
}

/// The first task.
pub const INIT: Tid = 1;

impl Machine {
    pub fn boot() -> Machine {
        Machine::with(Stdio { work: true, ..Stdio::default() })
    }

    pub fn with(stdio: Stdio) -> Machine {
        let root = tempfile::tempdir().unwrap();
        populate(root.path());
        let platform = Arc::new(FakePlatform::new(1 << 30));
        let limits = Limits { memory: 128 << 20, cpus: 1, tasks: 32 };
        let mut kernel = Kernel::new(platform.clone(), limits).unwrap();
        kernel.mount_root(std::fs::File::open(root.path()).unwrap().into()).unwrap();
        let spawn = Spawn {
            path: b"/bin/tiny".to_vec(),
            argv: vec![b"tiny".to_vec()],
            envp: vec![b"PATH=/bin".to_vec()],
            cwd: b"/".to_vec(),
        };
        kernel.spawn_init(&spawn, stdio).unwrap();
        let vcpu = FakeVcpu::new(0);
        let mut m = Machine { kernel, platform, vcpu, root, current: None, heap: HEAP };
        assert!(m.run(INIT), "the first task runs");
        m
    }

    /// Lets the vCPU go on until `tid` is in user mode; false when it sleeps or is gone.
    pub fn run(&mut self, tid: Tid) -> bool {
        for _ in 0..1000 {
            if self.current == Some(tid) {
                return true;
            }
            if let Some(other) = self.current.take() {
                self.kernel.on_exit(&mut self.vcpu, other, Exit::Preempted);
            }
            match self.kernel.next(&mut self.vcpu) {
                Next::Run(t) => self.current = Some(t),
                Next::Idle { deadline: Some(d), .. } if d <= self.platform.monotonic() => continue,
                _ => return false,
            }
            let state = self.kernel.task(tid).map(|t| t.state.clone());
            if !matches!(state, Some(TaskState::Runnable | TaskState::Running(_))) {
                return false;
            }
        }
        panic!("task {tid} is runnable and never runs");
    }

    /// Makes a system call of a task. `None` when it sleeps in it (or does not come back).
    pub fn start(&mut self, tid: Tid, number: u64, args: &[u64]) -> Option<i64> {
        assert!(self.run(tid), "task {tid} sleeps already");
        let regs = &mut self.kernel.task_mut(tid).unwrap().regs;
        regs.rax = number;
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9) =
            (all[0], all[1], all[2], all[3], all[4], all[5]);
        self.current = None;
        self.kernel.on_exit(&mut self.vcpu, tid, Exit::Syscall);
        self.finish(tid)
    }

    /// The result of a call that slept; `None` while it still sleeps.
    pub fn finish(&mut self, tid: Tid) -> Option<i64> {
        if self.run(tid) { Some(self.kernel.task(tid)?.regs.rax as i64) } else { None }
    }

    /// A call of the first task that does not sleep.
    pub fn call(&mut self, number: u64, args: &[u64]) -> i64 {
        self.start(INIT, number, args).unwrap_or_else(|| panic!("call {number} sleeps"))
    }

    /// A call that succeeds.
    pub fn ok(&mut self, number: u64, args: &[u64]) -> u64 {
        let result = self.call(number, args);
        assert!(result >= 0, "call {number} {args:x?} gave {result}");
        result as u64
    }

    /// Lets time pass.
    pub fn advance(&mut self, ns: u64) {
        self.platform.advance(ns);
        if let Some(tid) = self.current.take() {
            self.kernel.on_exit(&mut self.vcpu, tid, Exit::Preempted);
        }
    }

    /// Fresh user memory.
    pub fn alloc(&mut self, len: usize) -> u64 {
        let at = self.heap;
        self.heap += (len as u64).next_multiple_of(16);
        assert!(self.heap <= 0x44_0000, "the program is too small for the test");
        at
    }

    /// Bytes in fresh user memory.
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.alloc(bytes.len());
        self.write(at, bytes);
        at
    }

    /// A path in fresh user memory.
    pub fn path(&mut self, text: &str) -> u64 {
        self.put(&[text.as_bytes(), b"\0"].concat())
    }

    pub fn words(&mut self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.put(&bytes)
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.kernel.copy_out(INIT, at, bytes).unwrap();
    }

    pub fn read(&mut self, at: u64, len: usize) -> Vec<u8> {
        self.kernel.copy_in_vec(INIT, at, len).unwrap()
    }

    pub fn u32(&mut self, at: u64) -> u32 {
        self.kernel.get_u32(INIT, at).unwrap()
    }

    pub fn u64(&mut self, at: u64) -> u64 {
        self.kernel.get_u64(INIT, at).unwrap()
    }

    /// A second thread of the first process.
    pub fn thread(&mut self) -> Tid {
        let stack = self.alloc(8192) + 8192;
        // CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM
        self.ok(56, &[0x5_0f00, stack, 0, 0, 0]) as Tid
    }
}

/// The number of an error, as a call returns it.
pub fn err(e: guest::errno::Errno) -> i64 {
    -i64::from(e.0)
}
