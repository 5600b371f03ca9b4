//! `coppice run`: what goes in and comes out, and ordinary programs, which must behave as on the host.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{
    Failures, LIMIT, Link, cases, coppice, finish, fresh_dir, guest, program, run_command, same, survived,
    wait,
};

const PYTHON: &str = "/usr/bin/python3";

fn python(options: &[&str], code: &str, input: &[u8]) -> support::Outcome {
    guest(options, PYTHON.as_ref(), &["-c", code], input)
}

#[test]
fn stdin_stdout_stderr_and_the_status_pass_through() {
    let outcome = python(
        &[],
        "import sys; d = sys.stdin.read(); print(d.upper()); print('err', file=sys.stderr); sys.exit(41)",
        b"abc",
    );
    assert_eq!((outcome.status, outcome.text().as_str(), outcome.stderr.as_str()), (41, "ABC\n", "err\n"));
    let long: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let outcome = guest(&[], "/bin/cat".as_ref(), &[], &long);
    assert!(outcome.stdout == long, "{} bytes of {}: {}", outcome.stdout.len(), long.len(), outcome.stderr);
    for status in [0, 1, 2, 125, 126, 127, 128, 255] {
        let outcome = finish(
            &mut run_command(&[], PYTHON.as_ref(), &["-c", &format!("import os; os._exit({status})")]),
            b"",
            LIMIT,
        );
        assert_eq!(outcome.status, status);
    }
}

#[test]
fn stdio_may_be_files_devices_or_closed() {
    let dir = fresh_dir("stdio");
    std::fs::write(dir.path().join("in"), "from a file\n").unwrap();
    let file = |name: &str| std::fs::File::open(dir.path().join(name)).unwrap();
    let out = std::fs::File::create(dir.path().join("out")).unwrap();
    let status = run_command(&[], "/bin/cat".as_ref(), &[]).stdin(file("in")).stdout(out).status().unwrap();
    assert!(status.success());
    assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), "from a file\n");
    let mut appended = std::fs::OpenOptions::new().append(true).open(dir.path().join("out")).unwrap();
    writeln!(appended, "more").unwrap();
    assert!(
        run_command(&[], "/bin/echo".as_ref(), &["end"])
            .stdin(Stdio::null())
            .stdout(appended)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), "from a file\nmore\nend\n");
    let status = run_command(&[], "/bin/cat".as_ref(), &[])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let exe = env!("CARGO_BIN_EXE_coppice");
    let script = format!(
        "{exe} run -- /bin/true <&- >&- 2>&-; echo $?; {exe} run -- /bin/echo x >/dev/full 2>/dev/null; echo $?"
    );
    let outcome = finish(Command::new("sh").args(["-c", &script]), b"", LIMIT);
    assert_eq!(outcome.text(), "0\n1\n", "{}", outcome.stderr);
}

#[test]
fn full_or_closed_streams_end_a_command_without_a_panic() {
    let exe = env!("CARGO_BIN_EXE_coppice");
    let dir = support::fresh_dir("full");
    let handler = dir.path().join("fails.py");
    std::fs::write(&handler, "def handler(event, context): raise ValueError(event)\n").unwrap();
    let handler = format!("{}:handler", handler.display());
    let commands = [
        ("run --stats -- /bin/true".to_owned(), ">&-", "2>/dev/full", 0),
        ("run --stats -- /bin/true".to_owned(), "", "2>&-", 0),
        ("run --strace -- /bin/true".to_owned(), "", "2>/dev/full", 0),
        ("run -- /nowhere".to_owned(), "", "2>/dev/full", 127),
        ("run --rootfs /nowhere -- /bin/true".to_owned(), "", "2>/dev/full", 125),
        ("--help".to_owned(), ">/dev/full", "", 125),
        ("--version".to_owned(), ">/dev/full", "2>/dev/full", 125),
        ("--no-such-option".to_owned(), "", "2>/dev/full", 2),
        ("check".to_owned(), ">/dev/full", "2>/dev/full", 125),
        (format!("invoke {handler}"), "", "2>/dev/full", 1),
        (format!("invoke {handler} --json"), ">/dev/full", "2>/dev/full", 125),
        ("demo --runs 1 --no-peers".to_owned(), ">/dev/full", "2>/dev/full", 125),
    ];
    for (command, out, err, status) in commands {
        // A panic would be 101, whatever can be seen of it.
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {exe} {command} {out} {err}")]);
        let outcome = finish(&mut shell, b"", LIMIT);
        assert_eq!(outcome.status, status, "{command} {out} {err}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
    // Standard error is a pipe that nobody reads.
    let broken = format!(
        "{exe} run --stats -- /bin/sh -c 'exit 3' 2>&1 >/dev/null | true; exec 3>&1; \
        status=$({{ {{ sleep 0.3; {exe} run --stats -- /bin/sh -c 'exit 3' 2>&1 >/dev/null; echo $? >&3; }} | true; }} 3>&1); echo $status"
    );
    let outcome = finish(Command::new("sh").args(["-c", &broken]), b"", LIMIT);
    assert_eq!(outcome.text().trim(), "3", "{}", outcome.stderr);
}

#[test]
fn a_low_limit_of_open_files_is_raised_or_named() {
    let exe = env!("CARGO_BIN_EXE_coppice");
    let dir = support::fresh_dir("limit");
    let handler = dir.path().join("fine.py");
    std::fs::write(&handler, "import asyncio, sqlite3, ssl\ndef handler(event, context): return 'fine'\n")
        .unwrap();
    let shell = |limit: &str, command: &str| {
        finish(
            Command::new("sh").args(["-c", &format!("ulimit {limit} && exec {exe} {command}")]),
            b"",
            LIMIT,
        )
    };
    let invoke = format!("invoke {}:handler", handler.display());
    for command in [&invoke, "run -- /bin/true", "demo --runs 1 --no-peers"] {
        let outcome = shell("-n 24", command);
        assert_eq!(outcome.status, 125, "{command}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("raise the limit of open files to at least"), "{}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
    // A soft limit is ours to raise; the least that is allowed suffices for whoever opens thousands of files.
    for limit in ["-Sn 24", "-n 256"] {
        let outcome = shell(limit, &invoke);
        assert_eq!((outcome.status, outcome.text().trim()), (0, "\"fine\""), "{limit}: {}", outcome.stderr);
        let many =
            "for d, _, n in os.walk('/usr/lib/python3.11'): [open(d + '/' + f, 'rb').read(1) for f in n]";
        let outcome =
            shell(limit, &format!("run -- /usr/bin/python3 -c \"import os\n{many}\nprint('read')\""));
        assert_eq!((outcome.status, outcome.text().trim()), (0, "read"), "{limit}: {}", outcome.stderr);
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_program_with_sigpipe() {
    let mut command = run_command(&[], "/usr/bin/yes".as_ref(), &[]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let (status, timed_out) = wait(&mut child, LIMIT);
    assert!(!timed_out);
    assert!([1, 141].contains(&support::status_number(status)), "{status:?}");
}

/// Sends a signal once the program says that it is ready, and gives its status and what it printed then.
fn signalled(program: &str, args: &[&str], signal: Signal) -> (i32, String) {
    let mut child = run_command(&[], program.as_ref(), args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut byte = [0];
    if program == PYTHON {
        stdout.read_exact(&mut byte).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
    let (status, timed_out) = wait(&mut child, Duration::from_secs(10));
    assert!(!timed_out, "{program} {args:?} does not end on {signal:?}");
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (support::status_number(status), text)
}

#[test]
fn signals_pass_through_to_the_program() {
    assert_eq!(signalled("/bin/sleep", &["30"], Signal::TERM).0, 143);
    assert_eq!(signalled("/bin/sleep", &["30"], Signal::HUP).0, 129);
    let (status, text) = signalled(PYTHON, &["-uc", "import time; print(); time.sleep(30)"], Signal::INT);
    assert!(text.contains("KeyboardInterrupt") && status == 130, "{status} {text}");
    let (_, text) = signalled(PYTHON, &["-uc", "print()\nwhile True: pass"], Signal::INT);
    assert!(text.contains("KeyboardInterrupt"), "{text}");
    let code = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda n, f: (print('got', n), sys.exit(9)))\nprint()\ntime.sleep(30)";
    assert_eq!(signalled(PYTHON, &["-uc", code], Signal::TERM), (9, "got 15\n".into()));
    // Nothing but a signal can ever wake this one.
    let code =
        "import signal\nsignal.signal(signal.SIGUSR1, lambda n, f: print('woke'))\nprint()\nsignal.pause()";
    assert_eq!(signalled(PYTHON, &["-uc", code], Signal::USR1), (0, "woke\n".into()));
}

#[test]
fn environment_and_working_directory_are_what_the_options_say() {
    let outcome = guest(&["--env", "A=b=c", "-e", "EMPTY="], "/usr/bin/env".as_ref(), &[], b"");
    let mut lines: Vec<String> = outcome.text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "A=b=c",
            "EMPTY=",
            "HOME=/root",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        ]
    );
    assert_eq!(guest(&["--workdir", "/usr/lib"], "/bin/pwd".as_ref(), &[], b"").text(), "/usr/lib\n");
    let mut here = run_command(&[], "/bin/pwd".as_ref(), &[]);
    here.current_dir("/usr/share");
    assert_eq!(
        finish(&mut here, b"", LIMIT).text(),
        "/usr/share\n",
        "over the host's root the guest starts where we are"
    );
    let there = std::fs::canonicalize(std::env::current_dir().unwrap()).unwrap();
    assert_eq!(guest(&[], "pwd".as_ref(), &[], b"").text(), format!("{}\n", there.display()));
    // On Debian /usr is whole enough to be a root.
    assert_eq!(guest(&["--rootfs", "/usr"], "/bin/pwd".as_ref(), &[], b"").text(), "/\n");
    for args in [
        &["--env", "NOT_SET_ANYWHERE"][..],
        &["--env", "=x"],
        &["--rootfs", "/nowhere"],
        &["--rootfs", "/etc/passwd"],
    ] {
        let outcome = finish(&mut run_command(args, "/bin/true".as_ref(), &[]), b"", LIMIT);
        assert_eq!(
            (outcome.status, outcome.stderr.lines().count()),
            (125, 1),
            "{args:?}: {}",
            outcome.stderr
        );
    }
    let outcome = finish(&mut run_command(&["--workdir", "/nowhere"], "/bin/true".as_ref(), &[]), b"", LIMIT);
    assert!(
        outcome.status == 125 && outcome.stderr.contains("the working directory /nowhere"),
        "{} {}",
        outcome.status,
        outcome.stderr
    );
}

#[test]
fn strace_and_stats_tell_what_the_program_asked_for() {
    let outcome = guest(&["--strace"], "/bin/cat".as_ref(), &["/etc/hostname"], b"");
    assert!(
        outcome.stderr.lines().any(|l| l.contains("openat(") && l.contains("\"/etc/hostname\"")),
        "{}",
        outcome.stderr
    );
    let code =
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.syscall(999), ctypes.get_errno())";
    let outcome = python(&["--stats", "--json"], code, b"");
    assert_eq!(outcome.text(), "-1 38\n");
    let stats = outcome.stats();
    assert_eq!(stats["unknown_syscalls"]["syscall_999"], 1, "{stats}");
    assert_eq!(stats["status"]["code"], 0);
    assert!(
        stats["exits"].as_u64().unwrap() > 50 && stats["syscalls"]["openat"].as_u64().unwrap() > 5,
        "{stats}"
    );
}

/// Changes bytes of a copy of a program and runs it: the status and the one line that coppice says.
fn patched(name: &str, change: impl Fn(&mut Vec<u8>)) -> (i32, String) {
    let dir = fresh_dir("patched");
    let path = dir.path().join(name);
    let mut bytes = std::fs::read(program("run_memory", Link::Dynamic)).unwrap();
    change(&mut bytes);
    std::fs::copy("/bin/true", &path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let outcome = finish(&mut run_command(&[], &path, &[]), b"", LIMIT);
    assert!(
        !outcome.timed_out && !outcome.stderr.contains("panicked") && !outcome.by_signal,
        "{name}: {}",
        outcome.stderr
    );
    assert!(outcome.stderr.lines().count() <= 1, "{name}: {}", outcome.stderr);
    (outcome.status, outcome.stderr)
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

#[test]
fn what_is_not_a_program_gets_one_line_and_126_or_127() {
    assert_eq!(patched("text", |b| *b = b"hello\n".to_vec()).0, 126);
    assert_eq!(patched("empty", Vec::clear).0, 126);
    assert_eq!(patched("arm", |b| put(b, 18, &[183, 0])).0, 126);
    assert_eq!(patched("32-bit", |b| b[4] = 1).0, 126);
    assert_eq!(patched("object", |b| put(b, 16, &[1, 0])).0, 126);
    let (status, text) = patched("interpreter", |b| {
        let at = b.windows(8).position(|w| w == b"/lib64/l").unwrap();
        put(b, at, b"/none99/");
    });
    assert!(status == 127 && text.contains("interpreter"), "{status} {text}");
    let (status, text) = (finish(&mut run_command(&[], "/no/such".as_ref(), &[]), b"", LIMIT), "not found");
    assert!(status.status == 127 && status.stderr.contains(text), "{}", status.stderr);
    assert_eq!(finish(&mut run_command(&[], "no-such-command".as_ref(), &[]), b"", LIMIT).status, 127);
    assert_eq!(finish(&mut run_command(&[], "/etc".as_ref(), &[]), b"", LIMIT).status, 126);
    assert_eq!(finish(&mut run_command(&[], "/etc/passwd".as_ref(), &[]), b"", LIMIT).status, 126);
    assert_eq!(finish(coppice().arg("run"), b"", LIMIT).status, 2);
}

#[test]
fn a_damaged_program_harms_nobody() {
    let failures = Failures::default();
    let mut state = 88172645463325252_u64;
    for i in 0..60 {
        let mut chance = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        // Header and program headers, where the loader looks.
        let changes: Vec<(usize, u8)> = (0..1 + chance() % 6)
            .map(|_| (if chance() % 3 == 0 { chance() % 64 } else { chance() % 900 }, chance() as u8))
            .collect();
        let length = if chance() % 4 == 0 { chance() % 5000 } else { usize::MAX };
        failures.check(|| {
            patched(&format!("damaged-{i}"), |b| {
                changes.iter().for_each(|(at, value)| b[*at] = *value);
                b.truncate(length);
            });
        });
    }
    failures.report();
}

#[test]
fn without_kvm_there_is_one_clear_line() {
    for hide in ["mount --bind /dev/null /dev/kvm", "mount -t tmpfs none /dev"] {
        let script = format!("{hide} && exec {} run -- /bin/true", env!("CARGO_BIN_EXE_coppice"));
        let outcome = finish(Command::new("unshare").args(["-m", "sh", "-c", &script]), b"", LIMIT);
        if outcome.stderr.contains("unshare") || outcome.stderr.contains("mount:") {
            eprintln!("skipped: no mount namespaces here: {}", outcome.stderr);
            return;
        }
        assert_eq!(outcome.status, 125, "{}", outcome.stderr);
        assert!(
            outcome.stderr.starts_with("coppice: ") && outcome.stderr.contains("/dev/kvm"),
            "{}",
            outcome.stderr
        );
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
}

#[test]
fn ordinary_programs_do_what_they_do_on_the_host() {
    let failures = Failures::default();
    for link in [Link::Static, Link::Dynamic] {
        for cpus in ["1", "2"] {
            failures.check(|| same(&["--cpus", cpus], &program("run_threads", link), &[]));
            failures.check(|| same(&["--cpus", cpus], &program("run_signals", link), &[]));
        }
        failures.check(|| same(&[], &program("run_memory", link), &[]));
        let io = program("run_io", link);
        for case in cases(&io) {
            failures.check(|| same(&[], &io, &[&case]));
        }
    }
    failures.report();
}

#[test]
fn what_a_program_writes_stays_in_the_sandbox() {
    let dir = fresh_dir("overlay");
    std::fs::write(dir.path().join("kept"), "host").unwrap();
    let code = "import os\nopen('kept', 'w').write('guest')\nopen('new', 'w').write('x')\nos.mkdir('d')\nos.chmod('kept', 0o600)\n\
                os.rename('new', 'd/moved')\nprint(open('kept').read(), sorted(os.listdir('.')), os.listdir('d'))\nos.remove('kept')\n\
                print(os.listdir('.'), os.path.exists('kept'))\nopen('/etc/passwd', 'a').write('x')\nos.remove('/bin/ls')\nprint(os.path.exists('/bin/ls'))";
    let outcome = python(&["--workdir", dir.path().to_str().unwrap()], code, b"");
    assert_eq!(outcome.text(), "guest ['d', 'kept'] ['moved']\n['d'] False\nFalse\n", "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(dir.path().join("kept")).unwrap(), "host");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(
        std::path::Path::new("/bin/ls").exists()
            && !std::fs::read_to_string("/etc/passwd").unwrap().ends_with('x')
    );
}

#[test]
fn an_orphan_that_ended_is_gone_until_process_one_waits_for_any_child() {
    // Process 1 first waits for its own child only, as a runtime for applications does.
    let code = r#"
import os, time
r, w = os.pipe()
child = os.fork()
if child == 0:
    orphan = os.fork()
    if orphan == 0:
        os._exit(5)
    os.write(w, str(orphan).encode())
    os._exit(0)
os.waitpid(child, 0)
orphan = int(os.read(r, 20))
for _ in range(1000):
    try:
        os.kill(orphan, 0)
    except ProcessLookupError:
        print("gone", os.path.exists(f"/proc/{orphan}"), str(orphan) in os.listdir("/proc"))
        break
    time.sleep(0.01)
pid, status = os.wait()
print(pid == orphan, os.waitstatus_to_exitcode(status))
"#;
    let o = python(&[], code, b"");
    assert_eq!((o.text().as_str(), o.status), ("gone False False\nTrue 5\n", 0), "{}", o.stderr);
}

#[test]
fn proc_self_describes_the_program() {
    let code = r#"
import os, sys
assert os.readlink('/proc/self/exe').startswith('/usr/bin/python3')
maps = open('/proc/self/maps').read()
assert '[stack]' in maps and 'python3' in maps and '[heap]' in maps, maps
address = int(maps.split('-')[0], 16)
for line in maps.splitlines():
    a, b = (int(x, 16) for x in line.split()[0].split('-'))
    assert address <= a < b, line
    address = b
stat = open('/proc/self/stat').read()
assert stat.split()[0] == str(os.getpid()) and '(python3' in stat and len(stat.split()) == 52, stat
status = dict(l.split(':\t', 1) for l in open('/proc/self/status').read().splitlines() if ':\t' in l)
assert status['Pid'].strip() == str(os.getpid()) and status['Threads'].strip() == '1' and status['State'][0] == 'R', status
fds = set(os.listdir('/proc/self/fd'))
assert {'0', '1', '2'} <= fds, fds
with open('/etc/passwd') as f:
    assert os.readlink('/proc/self/fd/%d' % f.fileno()) == '/etc/passwd'
assert os.path.isdir('/proc/%d' % os.getpid()) and open('/proc/self/cmdline').read().split('\0')[1] == '-c'
assert int(open('/proc/meminfo').read().split()[1]) > 1000 and open('/proc/cpuinfo').read().count('processor\t') >= 1
assert open('/dev/urandom', 'rb').read(8) != open('/dev/urandom', 'rb').read(8) and os.getrandom(16) != os.getrandom(16)
assert os.uname().sysname == 'Linux' and os.cpu_count() >= 1
for path in ('/proc/1/mem', '/proc/kcore', '/dev/kvm', '/dev/mem', '/dev/sda', '/dev/vda'):
    assert not os.path.exists(path) or path == '/proc/1/mem', path
assert not os.path.exists('/sys/kernel/debug') or os.listdir('/sys/kernel/debug') == []
print('ok')
"#;
    let outcome = python(&[], code, b"");
    assert_eq!(outcome.text(), "ok\n", "{}", outcome.stderr);
}

#[test]
fn python_computes_what_it_computes_on_the_host() {
    let code = r#"
import json, re, threading, decimal, hashlib, zlib, sqlite3, struct, datetime, collections, itertools, math, csv, io, base64, random, statistics
print(json.dumps(json.loads('{"a": [1, 2.5, null, "\\u00e9"]}')), re.sub(r'(\w+) (\w+)', r'\2 \1', 'hello world'))
decimal.getcontext().prec = 60
print(decimal.Decimal(2).sqrt(), hashlib.sha256(b'x' * 1000000).hexdigest(), zlib.crc32(b'abc' * 9999))
total = [0]; lock = threading.Lock()
def work(n):
    for i in range(2000):
        with lock: total[0] += n
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
db = sqlite3.connect(':memory:'); db.execute('create table t(a)'); db.executemany('insert into t values(?)', [(i,) for i in range(500)])
print(total, db.execute('select sum(a) from t').fetchone(), struct.pack('>dI', 1.5, 7).hex(), math.sin(1e22), statistics.pstdev(range(100)))
random.seed(5); print(random.random(), datetime.datetime(2020, 2, 29).isoformat(), base64.b64encode(bytes(range(256)))[:40])
"#;
    for cpus in ["1", "2"] {
        same(&["--cpus", cpus], PYTHON.as_ref(), &["-c", code]);
    }
}

#[test]
fn a_program_that_waits_for_nothing_is_said_to_be_stuck_or_can_be_ended() {
    let start = Instant::now();
    let outcome = finish(
        &mut run_command(
            &[],
            PYTHON.as_ref(),
            &[
                "-c",
                "import threading; threading.Lock().acquire(); l = threading.Lock(); l.acquire(); l.acquire()",
            ],
        ),
        b"",
        Duration::from_secs(3),
    );
    assert!(outcome.timed_out || outcome.status == 125, "{} {}", outcome.status, outcome.stderr);
    assert!(start.elapsed() < Duration::from_secs(10));
    survived(&finish(&mut run_command(&[], "/bin/true".as_ref(), &[]), b"", LIMIT), "true");
}

#[test]
fn a_processor_that_is_kept_busy_delays_neither_timers_nor_input_of_the_other() {
    let script = "while :; do :; done & p=$!; for i in 1 2 3 4 5; do sleep 0.02; read line && echo $line; done; kill $p; echo end";
    for cpus in ["1", "2"] {
        let outcome = guest(&["--cpus", cpus], "/bin/sh".as_ref(), &["-c", script], b"a\nb\nc\nd\ne\n");
        assert_eq!((outcome.status, outcome.text().as_str()), (0, "a\nb\nc\nd\ne\nend\n"), "{cpus} vCPUs");
    }
}

#[test]
fn a_summary_lists_calls_and_what_was_refused_although_linux_has_it() {
    let asker = program("refused", Link::Static);
    let outcome = guest(&["--summary", "--json"], &asker, &[], b"");
    let stats = outcome.stats();
    let mut refused: Vec<String> = (stats["refused"].as_array().unwrap().iter())
        .map(|r| {
            format!("{} x{} in {}", r["text"].as_str().unwrap(), r["count"], r["program"].as_str().unwrap())
        })
        .collect();
    refused.sort();
    assert_eq!(
        refused,
        [
            "clone flags 0x20000000: EPERM x1 in asker",
            "io_uring_setup: ENOSYS x3 in asker",
            "prctl option 22 (PR_SET_SECCOMP): EINVAL x1 in asker",
            "setsockopt level, option 1, 26 (SO_ATTACH_FILTER): ENOPROTOOPT x1 in asker",
            "socket family, type, protocol 17, 3, 0 (AF_PACKET): EAFNOSUPPORT x1 in asker",
            "socket family, type, protocol 2, 1, 132 (AF_INET): EPROTONOSUPPORT x1 in asker",
        ]
    );
    let prctl = &stats["calls"]["prctl"];
    assert_eq!((prctl["calls"].as_u64(), prctl["errors"].as_u64()), (Some(3), Some(2)), "{prctl}");
    assert!(prctl["ns"].as_u64() > Some(0), "{prctl}");

    let outcome = guest(&["--summary", "--strace"], &asker, &[], b"");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(lines.iter().any(|line| line.contains("prctl(12345")), "{}", outcome.stderr);
    assert!(lines.iter().any(|line| line.ends_with("  total")), "{}", outcome.stderr);
    assert!(lines.contains(&"        3  io_uring_setup: ENOSYS, in asker"), "{}", outcome.stderr);
    let outcome = guest(&["--summary"], "/bin/true".as_ref(), &[], b"");
    assert!(outcome.stderr.contains("nothing was refused"), "{}", outcome.stderr);
}

#[test]
fn secret_memory_is_mapped_and_keeps_what_is_written() {
    let code = "import ctypes, mmap, os\nfd = ctypes.CDLL(None).syscall(447, 0)\nos.ftruncate(fd, 8192)\nm = mmap.mmap(fd, 8192)\n\
                m[4000:4003] = b'abc'\nprint(fd >= 3, ctypes.CDLL(None).syscall(447, 1), m[4000:4003])";
    let outcome = guest(&[], PYTHON.as_ref(), &["-c", code], b"");
    assert_eq!(outcome.text(), "True -1 b'abc'\n", "{}", outcome.stderr);
}
