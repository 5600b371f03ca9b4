//! Every system call of the table with bad pointers and impossible lengths: the errno is the host's, and the sandbox survives.
//!
//! Each call is made with harmless arguments, then with one argument at a time replaced by each of the values below. Where the call would
//! harm the host (or the test), or where Linux itself leaves the outcome open, only survival is asked for; the lists say why.

mod support;

use guest::syscall::{Arg, Entry, Support, table};
use support::{
    Failures, Link, finish, fresh_dir, guest, native_randomised, program, run_command, two_at_a_time,
};

/// Values for a pointer argument.
const POINTERS: &[&str] = &[
    "0",
    "1",
    "0x7fffffffefff",
    "0x7fff00000000",
    "0xffff800000000000",
    "0x8000000000000000",
    "-1",
    "unmapped",
    "read-only",
    "last",
];

/// Values for an argument that is a number.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "0x7fffffff",
    "0x80000000",
    "-1",
    "0x800000000000",
    "4095",
    "4097",
    "0xffffffff",
    "0x7fffffffffffffff",
];

/// Values for a descriptor.
const DESCRIPTORS: &[&str] = &["-1", "99", "fd", "0x7fffffff", "-100", "0x100000000"];

/// Calls that are not made on the host, with the reason.
const NOT_ON_THE_HOST: &[(&str, &str)] = &[
    ("exit", "ends the program before the next line"),
    ("exit_group", "ends the program before the next line"),
    ("rt_sigreturn", "ends the program: there is no frame"),
    ("fork", "the child would read the same input"),
    ("vfork", "the child would run on the parent's stack"),
    ("clone", "the child would run on a stack of chance"),
    ("clone3", "the child would run on a stack of chance"),
    ("kill", "signals other processes"),
    ("tkill", "signals other processes"),
    ("tgkill", "signals other processes"),
    ("rt_sigqueueinfo", "signals other processes"),
    ("rt_tgsigqueueinfo", "signals other processes"),
    ("setpriority", "changes other processes"),
    ("ioprio_set", "changes other processes"),
    ("sched_setaffinity", "changes other processes"),
    ("sched_setparam", "changes other processes"),
    ("sched_setscheduler", "changes other processes"),
    ("setpgid", "changes other processes"),
    ("settimeofday", "sets the clock"),
    ("clock_settime", "sets the clock"),
    ("adjtimex", "sets the clock"),
    ("sethostname", "changes the host"),
    ("setdomainname", "changes the host"),
    ("syslog", "changes the host"),
    ("reboot", "changes the host"),
    ("mount", "changes the host"),
    ("umount2", "changes the host"),
    ("chroot", "changes the program's root"),
    ("sync", "waits for the host's disks"),
    ("setrlimit", "leaves the program without descriptors or memory"),
    ("prlimit64", "changes the limits of other processes"),
    ("personality", "changes how the program is run"),
    ("brk", "takes the heap from under the program"),
    ("munmap", "takes its own pages from the program"),
    ("mremap", "takes its own pages from the program"),
    ("mmap", "takes its own pages from the program"),
    ("mprotect", "takes its own pages from the program"),
    ("pkey_mprotect", "takes its own pages from the program"),
    ("madvise", "takes the contents of its pages from the program"),
    ("arch_prctl", "moves the thread pointer"),
    ("set_tid_address", "the kernel writes there when the program ends"),
    ("set_robust_list", "the kernel reads it when the program ends"),
    ("rseq", "the C library has registered one already"),
    ("execve", "replaces the program"),
    ("execveat", "replaces the program"),
    ("close_range", "closes what the program reads from"),
    ("sigaltstack", "the program's own handlers need theirs"),
    ("rt_sigaction", "the program's own handlers need theirs"),
    ("setsid", "leaves the test's session"),
    ("setuid", "drops privileges that the next line needs"),
    ("setgid", "drops privileges that the next line needs"),
    ("setreuid", "drops privileges that the next line needs"),
    ("setregid", "drops privileges that the next line needs"),
    ("setresuid", "drops privileges that the next line needs"),
    ("setresgid", "drops privileges that the next line needs"),
    ("setgroups", "drops privileges that the next line needs"),
    ("setfsuid", "drops privileges that the next line needs"),
    ("setfsgid", "drops privileges that the next line needs"),
    ("capset", "drops privileges that the next line needs"),
    ("wait4", "waits for children that only the host's run might have"),
    ("prctl", "changes how the program is run"),
    ("ptrace", "stops other processes"),
    ("sched_setattr", "changes other processes"),
    ("process_vm_writev", "changes other processes"),
    ("shmget", "makes or changes the host's System V objects"),
    ("shmat", "makes or changes the host's System V objects"),
    ("shmctl", "makes or changes the host's System V objects"),
    ("semget", "makes or changes the host's System V objects"),
    ("semop", "makes or changes the host's System V objects"),
    ("semtimedop", "makes or changes the host's System V objects"),
    ("semctl", "makes or changes the host's System V objects"),
    ("msgget", "makes or changes the host's System V objects"),
    ("msgsnd", "makes or changes the host's System V objects"),
    ("msgrcv", "makes or changes the host's System V objects"),
    ("msgctl", "makes or changes the host's System V objects"),
    ("unlink", "removes files"),
    ("unlinkat", "removes files"),
    ("rmdir", "removes files"),
];

/// Calls that are made on both sides, but whose errno is not compared, with the reason.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("ioctl", "the host's pipes and files know requests that the guest does not"),
    ("times", "any address is an error that glibc cannot tell from a result"),
    ("getpgid", "the host has processes of other numbers"),
    ("getsid", "the host has processes of other numbers"),
    ("getpriority", "the host has processes of other numbers"),
    ("sched_getparam", "the host has processes of other numbers"),
    ("sched_getscheduler", "the host has processes of other numbers"),
    ("sched_getaffinity", "the host has processes of other numbers"),
    ("sched_rr_get_interval", "the host has processes of other numbers"),
    ("sched_getattr", "the host has processes of other numbers"),
    ("pidfd_open", "the host has processes of other numbers"),
    ("process_vm_readv", "the host has processes of other numbers"),
    ("pkey_alloc", "what is refused depends on the processor"),
    ("get_robust_list", "the host has processes of other numbers"),
    ("ioprio_get", "the host has processes of other numbers"),
    ("mbind", "memory policies are accepted unseen: there is one node"),
    ("set_mempolicy", "memory policies are accepted unseen: there is one node"),
    ("get_mempolicy", "memory policies are accepted unseen: there is one node"),
    ("setxattr", "there are no extended attributes: the path is looked at first"),
    ("lsetxattr", "there are no extended attributes: the path is looked at first"),
    ("fsetxattr", "there are no extended attributes: the path is looked at first"),
    ("getxattr", "there are no extended attributes: the path is looked at first"),
    ("lgetxattr", "there are no extended attributes: the path is looked at first"),
    ("fgetxattr", "there are no extended attributes: the path is looked at first"),
    ("removexattr", "there are no extended attributes: the path is looked at first"),
    ("lremovexattr", "there are no extended attributes: the path is looked at first"),
    ("fremovexattr", "there are no extended attributes: the path is looked at first"),
    ("kcmp", "needs a kernel that was built with it"),
    ("readahead", "advice: whether a descriptor can take it is left to the file system"),
    ("sync_file_range", "advice: whether a descriptor can take it is left to the file system"),
];

/// Answers that differ and stay: (call, answer here, answer on Linux, reason).
const KNOWN: &[(&str, &str, &str, &str)] = &[
    (
        "futex",
        "ETIMEDOUT",
        "EFAULT",
        "Linux refuses a shared futex in private read-only memory, whose page it cannot name",
    ),
    ("futex", "EAGAIN", "EFAULT", "the same"),
    ("name_to_handle_at", "EINVAL", "ENOENT", "flags that Linux learnt in 6.12 and later are refused"),
    ("waitid", "EINVAL", "EFAULT", "Linux writes to the result even after an error"),
    ("fcntl", "ESRCH", "ok", "F_SETOWN: the host has processes of other numbers"),
    ("mincore", "EFAULT", "ok", "Linux has pages there that this program did not map"),
    ("sendfile", "EBADF", "ESPIPE", "an error all the same: the order of checks"),
    ("sendfile", "EBADF", "EFAULT", "an error all the same: the order of checks"),
    ("connect", "ENOTSOCK", "EFAULT", "an error all the same: the order of checks"),
    ("recvfrom", "ENOTSOCK", "EFAULT", "an error all the same: the order of checks"),
    ("sendto", "ENOTSOCK", "EFAULT", "an error all the same: the order of checks"),
    ("connect", "ENOTSOCK", "EINVAL", "an error all the same: the order of checks"),
    ("sendmsg", "ENOTSOCK", "EINVAL", "an error all the same: the order of checks"),
    ("recvmsg", "ENOTSOCK", "EINVAL", "an error all the same: the order of checks"),
    ("recvmmsg", "ENOTSOCK", "EINVAL", "an error all the same: the order of checks"),
    ("sendmmsg", "ENOTSOCK", "EINVAL", "an error all the same: the order of checks"),
    ("socketpair", "EAFNOSUPPORT", "EFAULT", "an error all the same: the order of checks"),
    ("socket", "EINVAL", "ESOCKTNOSUPPORT", "an error all the same: the order of checks"),
    ("socket", "EINVAL", "EPROTONOSUPPORT", "an error all the same: the order of checks"),
    ("socketpair", "EINVAL", "ESOCKTNOSUPPORT", "an error all the same: the order of checks"),
    ("socketpair", "EINVAL", "EPROTONOSUPPORT", "an error all the same: the order of checks"),
];

/// Calls that are made on a socket, too; there, only survival is asked for, because the order in which flags, lengths and addresses
/// are looked at differs from Linux's in many places.
const ON_SOCKETS: &[&str] = &[
    "read",
    "write",
    "readv",
    "writev",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "sendmmsg",
    "recvmmsg",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
    "shutdown",
    "lseek",
    "fstat",
    "ftruncate",
    "poll",
];

/// Calls that leave two processes on one stack, or in one memory: what becomes of them is chance, and may be an endless loop.
const CHAOS: &[&str] = &["clone", "clone3", "vfork"];

fn reason<'a>(list: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    list.iter().find(|(n, _)| *n == name).map(|(_, reason)| *reason)
}

/// A harmless value.
fn default(arg: &Arg) -> &'static str {
    match arg {
        Arg::Int | Arg::Uint | Arg::Hex | Arg::Octal | Arg::Flags(_) | Arg::Signal => "0",
        Arg::Ptr | Arg::In(_) | Arg::Out => "buffer",
        Arg::Fd => "fd",
        Arg::DirFd => "-100",
        Arg::Path => "path",
    }
}

fn values(arg: &Arg) -> &'static [&'static str] {
    match arg {
        Arg::Ptr | Arg::In(_) | Arg::Out | Arg::Path => POINTERS,
        Arg::Fd | Arg::DirFd => DESCRIPTORS,
        Arg::Int | Arg::Uint | Arg::Hex | Arg::Octal | Arg::Flags(_) | Arg::Signal => NUMBERS,
    }
}

/// The lines of input for a call.
fn lines(entry: &Entry) -> Vec<String> {
    let line = |args: &[&str]| {
        let mut words = vec![entry.number.to_string()];
        words.extend((0..6).map(|i| (*args.get(i).unwrap_or(&"0")).to_owned()));
        words.join(" ")
    };
    // Lengths are small by default, so that what a pointer points to is looked at.
    let mut bases = vec![entry.args.iter().map(default).collect::<Vec<_>>()];
    let some: Vec<&str> =
        entry.args.iter().map(|a| if matches!(a, Arg::Uint | Arg::Int) { "8" } else { default(a) }).collect();
    bases.push(some);
    let mut all = Vec::new();
    for base in bases {
        all.push(line(&base));
        for (i, arg) in entry.args.iter().enumerate() {
            for value in values(arg) {
                let mut args = base.clone();
                args[i] = value;
                all.push(line(&args));
            }
        }
    }
    all.dedup();
    if ON_SOCKETS.contains(&entry.name) {
        let more: Vec<String> =
            all.iter().filter(|l| l.contains(" fd ")).map(|l| l.replace(" fd ", " socket ")).collect();
        all.extend(more);
    }
    all
}

#[test]
fn every_call_answers_bad_pointers_and_lengths_as_linux_does() {
    let program = program("bad_pointers", Link::Static);
    let calls: Vec<&Entry> = table().iter().filter(|e| !matches!(e.support, Support::Refused(..))).collect();
    assert!(calls.len() > 60, "only {} calls in the table", calls.len());
    let failures = Failures::default();
    two_at_a_time(&calls, |entry| {
        failures.check(|| {
            let lines = lines(entry);
            let input = lines.join("\n") + "\n";
            let dir = fresh_dir("pointers");
            let workdir = dir.path().to_str().unwrap();
            let options = ["--workdir", workdir, "--memory", "256m"];
            if CHAOS.contains(&entry.name) {
                let mut command = run_command(&options, &program, &[]);
                let outcome = finish(&mut command, input.as_bytes(), std::time::Duration::from_secs(5));
                assert!(!outcome.stderr.contains("panicked"), "{}: {}", entry.name, outcome.stderr);
                return;
            }
            let outcome = guest(&options, &program, &[], input.as_bytes());
            if reason(NOT_ON_THE_HOST, entry.name).is_some() {
                return;
            }
            let expected = native_randomised(&program, dir.path(), input.as_bytes());
            if reason(NOT_COMPARED, entry.name).is_some() {
                return;
            }
            let (got, want) = (outcome.text(), expected.text());
            let mut wrong: Vec<String> = lines
                .iter()
                .zip(got.lines().zip(want.lines()))
                .filter(|(line, _)| !line.contains(" socket "))
                .filter(|(_, (g, w))| {
                    g != w
                        && !KNOWN.iter().any(|(n, here, linux, _)| (*n, *here, *linux) == (entry.name, g, w))
                })
                .map(|(l, (g, w))| format!("  {l}: {g}, on Linux {w}"))
                .collect();
            wrong.sort();
            wrong.dedup();
            if got.lines().count() != want.lines().count() {
                wrong.push(format!(
                    "  {} answers, on Linux {} of {}",
                    got.lines().count(),
                    want.lines().count(),
                    lines.len()
                ));
            }
            assert!(wrong.is_empty(), "{}:\n{}", entry.name, wrong.join("\n"));
            assert_eq!(outcome.status, expected.status, "{}", entry.name);
        });
    });
    failures.report();
}

#[test]
fn refused_and_unknown_calls_say_so_whatever_their_arguments() {
    let program = program("bad_pointers", Link::Static);
    let mut input = String::new();
    let mut expected = Vec::new();
    for number in (0..500).chain([1000, 0x7fff_ffff, 0x4000_0001, -1]) {
        let entry = u64::try_from(number).ok().and_then(guest::syscall::entry);
        let errno = match entry.map(|e| e.support) {
            None => "ENOSYS".to_owned(),
            Some(Support::Refused(errno, _)) => errno.name().to_owned(),
            _ => continue,
        };
        for value in ["0", "-1", "unmapped", "0x8000000000000000"] {
            input.push_str(&format!("{number} {value} {value} {value} {value} {value} {value}\n"));
            expected.push(format!("{number} {errno}"));
        }
    }
    assert!(expected.len() > 100);
    let outcome = guest(&["--json"], &program, &[], input.as_bytes());
    let text = outcome.text();
    let got: Vec<String> = text
        .lines()
        .zip(&expected)
        .map(|(line, e)| format!("{} {line}", e.split(' ').next().unwrap_or_default()))
        .collect();
    assert_eq!(got.len(), expected.len());
    // A refused call may still look at its flags first: pkey_alloc does.
    let wrong: Vec<_> = got.iter().zip(&expected).filter(|(g, e)| g != e && *g != "330 EINVAL").collect();
    assert!(wrong.is_empty(), "(got, expected): {wrong:?}");
    let unknown = &outcome.stats()["unknown_syscalls"];
    assert_eq!(unknown["syscall_1000"], 4, "{unknown}");
}

#[test]
fn a_program_that_tries_every_number_fills_no_memory_with_counters() {
    let program = program("bad_pointers", Link::Static);
    let input: String = (1000..4000).map(|n| format!("{n} 0 0 0 0 0 0\n")).collect();
    let outcome = guest(&["--json"], &program, &[], input.as_bytes());
    assert_eq!(outcome.text().lines().filter(|l| *l == "ENOSYS").count(), 3000);
    let stats = outcome.stats();
    for kind in ["syscalls", "unknown_syscalls"] {
        let counted = stats[kind].as_object().unwrap().len();
        assert!(counted < 1100, "{counted} {kind} counted");
    }
}

#[test]
fn the_lists_of_exceptions_name_each_call_once_and_with_a_reason() {
    let mut names: Vec<&str> = NOT_ON_THE_HOST
        .iter()
        .chain(NOT_COMPARED)
        .map(|(n, r)| {
            assert!(r.len() > 8);
            *n
        })
        .collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
