//! The guest kernel's state is plain data: written out, dropped and read back onto the same memory, the sandbox goes on.

use guest::exec::Spawn;
use guest::kernel::{Kernel, Limits};
use guest::task::ExitStatus;
use guest::vfs::Stdio;
use std::io::Read;
use std::os::fd::OwnedFd;
use vmm::sandbox::{Config, RunOptions, Sandbox, Stop};

const PROGRAM: &str = r#"
import os, threading, time, select
f = open("/etc/passwd", "rb"); first = f.read(10)
r, w = os.pipe()
ep = select.epoll(); ep.register(r, select.EPOLLIN)
got = []
t1 = threading.Thread(target=lambda: got.append(os.read(r, 5)))
t2 = threading.Thread(target=lambda: (time.sleep(1.0), got.append("slept")))
t1.start(); t2.start()
os.write(3, b"\x05\0\0\0ready")
n = os.read(3, 100)
os.write(w, b"hello")
t1.join(); t2.join()
open("/tmp/x", "w").write("in memory")
again = open("/etc/passwd", "rb").read(10)
print(len(n), got, first == again, f.read(10) != first, open("/tmp/x").read(), flush=True)
"#;

#[test]
fn a_sandbox_goes_on_after_its_state_was_written_out_and_read_back() {
    let config = Config { arena_len: 8 << 30, max_vcpus: 1 };
    let mut sandbox = Sandbox::boot(config, Limits::default()).expect("this test needs a working /dev/kvm");
    let root = || OwnedFd::from(std::fs::File::open("/").expect("a root directory"));
    let (mut output, write) = std::io::pipe().expect("a pipe");
    let stdio = |work| {
        let copy = || Some(OwnedFd::from(write.try_clone().expect("a descriptor")));
        Stdio { stdin: None, stdout: copy(), stderr: copy(), work }
    };
    {
        let mut kernel = sandbox.kernel();
        kernel.mount_root(root()).expect("the root mounts");
        let spawn = Spawn {
            path: b"/usr/bin/python3".to_vec(),
            argv: [&b"python3"[..], b"-c", PROGRAM.as_bytes()].map(<[u8]>::to_vec).to_vec(),
            envp: vec![b"PATH=/usr/bin:/bin".to_vec()],
            cwd: b"/".to_vec(),
        };
        kernel.spawn_init(&spawn, stdio(true)).expect("python3 starts");
    }
    let stop = sandbox.run(&RunOptions::default()).expect("a run");
    assert_eq!(stop, Stop::Answer(b"ready".to_vec()));
    let bytes = {
        sandbox.pause().expect("a pause");
        let kernel = sandbox.kernel();
        postcard::to_allocvec(&*kernel).expect("the state is serialisable")
    };
    let mut kernel: Kernel = postcard::from_bytes(&bytes).expect("the state reads back");
    kernel.set_root_fd(root());
    kernel.reissue_stdio(stdio(false));
    drop(sandbox.replace_kernel(kernel).expect("a paused sandbox"));
    sandbox.kernel().push_work(b"go on");
    let deadline = vmm::machine::now() + 60_000_000_000;
    let stop = sandbox.run(&RunOptions { deadline: Some(deadline), ..RunOptions::default() }).expect("a run");
    drop(sandbox);
    drop(write);
    let mut text = String::new();
    output.read_to_string(&mut text).expect("what the program printed");
    assert_eq!(text, "9 [b'hello', 'slept'] True True in memory\n");
    assert_eq!(stop, Stop::Exited(ExitStatus::Code(0)));
    println!("{} bytes of state", bytes.len());
}
