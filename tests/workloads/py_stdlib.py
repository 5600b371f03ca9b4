# A wide walk over what the standard library asks of the system.
import array, bz2, ctypes, curses.ascii, errno, fcntl, glob, grp, gzip, io, itertools, json, lzma, mmap, os, pathlib, pickle
import pty, pwd, queue, random, resource, sched, select, selectors, shutil, signal, socket, stat, struct, sys, tarfile, tempfile
import termios, threading, time, tty, uuid, zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


def section(name):
    print("==", name)


section("files")
root = pathlib.Path("tree")
(root / "a/b/c").mkdir(parents=True)
for i in range(30):
    (root / "a" / f"{i}.txt").write_text(f"{i}\n" * i)
print(len(list(root.rglob("*.txt"))), sum(p.stat().st_size for p in root.rglob("*.txt")))
os.symlink("a/1.txt", root / "link")
os.link(root / "a/2.txt", root / "hard")
print(os.readlink(root / "link"), (root / "hard").stat().st_nlink, (root / "link").read_text())
os.rename(root / "a/3.txt", root / "a/b/three")
os.replace(root / "a/4.txt", root / "a/5.txt")
os.chmod(root / "hard", 0o640)
print(oct(os.stat(root / "hard").st_mode), stat.filemode(os.lstat(root / "link").st_mode))
os.utime(root / "hard", ns=(10**18, 10**18 + 5))
print(os.stat(root / "hard").st_mtime_ns)
os.truncate(root / "hard", 100000)
with open(root / "hard", "r+b") as f:
    f.seek(50000)
    f.write(b"middle")
    f.flush()
    os.fsync(f.fileno())
    print(os.pread(f.fileno(), 8, 49999), os.pwrite(f.fileno(), b"zz", 0), os.fstat(f.fileno()).st_size)
    os.posix_fallocate(f.fileno(), 0, 200000)
    print(os.fstat(f.fileno()).st_size)
shutil.copytree(root, "copy", symlinks=True)
print(sorted(os.listdir("copy")), len(list(os.walk("copy"))))
shutil.make_archive("archive", "gztar", "copy")
with tarfile.open("archive.tar.gz") as tar:
    print(len(tar.getnames()))
    tar.extractall("untar")
with zipfile.ZipFile("z.zip", "w", zipfile.ZIP_DEFLATED) as z:
    for p in sorted(root.rglob("*.txt")):
        z.write(p)
print(len(zipfile.ZipFile("z.zip").namelist()))
shutil.rmtree("copy")
print(os.path.exists("copy"), sorted(glob.glob("tree/a/1*.txt"))[:3])
for call in (lambda: os.rmdir("tree"), lambda: os.mkdir("tree"), lambda: open("none"), lambda: os.unlink("tree"), lambda: os.readlink("tree"),
             lambda: os.scandir("z.zip"), lambda: os.open("tree", os.O_WRONLY)):
    try:
        call()
    except OSError as error:
        print(type(error).__name__, errno.errorcode[error.errno])
with tempfile.TemporaryDirectory(dir=".") as d, tempfile.NamedTemporaryFile(dir=d) as f, tempfile.TemporaryFile(dir=d) as g:
    f.write(b"x"), g.write(b"y")
    print(len(os.listdir(d)))
print(os.statvfs(".").f_namemax, os.access("/etc/passwd", os.R_OK), os.umask(0o22) >= 0)
os.setxattr("z.zip", "user.k", b"v")
print(os.getxattr("z.zip", "user.k"), os.listxattr("z.zip"))
os.mkfifo("fifo")
fd = os.open("fifo", os.O_RDWR | os.O_NONBLOCK)
os.write(fd, b"fifo")
print(os.read(fd, 10))
os.close(fd)
with open("sparse", "wb") as f:
    f.truncate(1 << 20)
    f.seek(1 << 19)
    f.write(b"data")
    f.flush()
    print(os.lseek(f.fileno(), 0, os.SEEK_DATA) >= 0)
print(os.copy_file_range and shutil.copyfile("sparse", "dense") and os.stat("dense").st_size)

section("compression")
data = bytes(random.Random(1).choices(range(20), k=200_000))
for module in (gzip, bz2, lzma):
    print(module.__name__, module.decompress(module.compress(data)) == data)

section("mmap")
with open("mapped", "w+b") as f:
    f.write(bytes(100_000))
    f.flush()
    with mmap.mmap(f.fileno(), 0) as m:
        m[70_000:70_005] = b"hello"
        print(m.find(b"hello"))
        m.flush()
    f.seek(70_000)
    print(f.read(5))
anonymous = mmap.mmap(-1, 1 << 20)
pid = os.fork()
if pid == 0:
    anonymous[:5] = b"child"
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), anonymous[:5])

section("threads")
lock, total, work = threading.Lock(), 0, queue.Queue()
def add():
    global total
    while (item := work.get()) is not None:
        with lock:
            total += item
threads = [threading.Thread(target=add) for _ in range(8)]
for t in threads:
    t.start()
for i in range(1000):
    work.put(i)
for _ in threads:
    work.put(None)
for t in threads:
    t.join()
barrier, event = threading.Barrier(3), threading.Event()
waiting = [threading.Thread(target=lambda: (barrier.wait(), event.wait())) for _ in range(2)]
for t in waiting:
    t.start()
barrier.wait()
event.set()
for t in waiting:
    t.join()
print(total, threading.active_count())
with ThreadPoolExecutor(4) as pool:
    print(list(pool.map(lambda n: n * n, range(10))))
with ProcessPoolExecutor(2) as pool:
    print(list(pool.map(abs, range(-5, 0))))

section("signals and timers")
seen = []
for signum in (signal.SIGALRM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGVTALRM):
    signal.signal(signum, lambda n, frame: seen.append(signal.Signals(n).name))
signal.setitimer(signal.ITIMER_REAL, 0.02)
signal.pause()
os.kill(os.getpid(), signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR1)
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
print(seen)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
os.kill(os.getpid(), signal.SIGUSR2)
print(signal.sigpending(), signal.sigwait([signal.SIGUSR2]), signal.sigtimedwait([signal.SIGUSR2], 0.01))
signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
start = time.process_time()
while seen[-1] != "SIGVTALRM" and time.process_time() - start < 20:
    pass
print(seen[-1])
scheduler, ran = sched.scheduler(), []
for n in (3, 1, 2):
    scheduler.enter(n / 100, 1, ran.append, (n,))
scheduler.run()
print(ran, time.monotonic() > 0, time.clock_getres(time.CLOCK_MONOTONIC) < 0.1)

section("processes")
print(os.waitstatus_to_exitcode(os.system("exit 4")), os.popen("echo popen").read().strip())
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 6"], {})
print(os.waitid(os.P_PID, pid, os.WEXITED).si_status)
pid = os.fork()
if pid == 0:
    os.setsid()
    while True:
        signal.pause()
os.kill(pid, signal.SIGSTOP)
print(os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1]))
os.kill(pid, signal.SIGCONT)
print(os.WIFCONTINUED(os.waitpid(pid, os.WCONTINUED)[1]))
os.kill(pid, signal.SIGKILL)
print(os.WTERMSIG(os.waitpid(pid, 0)[1]))
pidfd_child = os.fork()
if pidfd_child == 0:
    os._exit(3)
fd = os.pidfd_open(pidfd_child)
select.select([fd], [], [], 30)
print(os.waitid(os.P_PIDFD, fd, os.WEXITED).si_status)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0)
print(pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name, os.getuid(), os.nice(0), os.sched_yield() is None)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.getpid() == os.getpid(), libc.close(-1), errno.errorcode[ctypes.get_errno()])

section("locks")
with open("locked", "w") as f:
    fcntl.flock(f, fcntl.LOCK_EX)
    with open("locked") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            print(errno.errorcode[error.errno])
    fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
    pid = os.fork()
    if pid == 0:
        try:
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
        except OSError:
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

section("polling")
a, b = socket.socketpair()
r, w = os.pipe()
for kind in (selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector):
    with kind() as s:
        s.register(a, selectors.EVENT_READ, "a")
        s.register(r, selectors.EVENT_READ, "r")
        empty = s.select(0)
        b.send(b"1")
        os.write(w, b"2")
        print(kind.__name__, empty, sorted(k.data for k, _ in s.select(5)), a.recv(1), os.read(r, 1))
fd = os.eventfd(3, os.EFD_NONBLOCK)
print(os.eventfd_read(fd))
fd = os.memfd_create("m")
os.write(fd, b"memory")
print(os.pread(fd, 6, 0))

section("sockets")
socket.send_fds(a, [b"fds"], [fd])
message, fds, _, _ = socket.recv_fds(b, 10, 5)
print(message, os.pread(fds[0], 6, 0))
for family, where in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.socket(family, socket.SOCK_DGRAM) as u, socket.socket(family, socket.SOCK_DGRAM) as v:
        u.bind((where, 0))
        v.sendto(b"datagram", u.getsockname())
        print(u.recvfrom(100)[0])
    with socket.create_server((where, 0), family=family) as listener:
        with socket.create_connection(listener.getsockname()[:2]) as client:
            server, _ = listener.accept()
            client.sendall(b"tcp")
            client.shutdown(socket.SHUT_WR)
            print(server.recv(100), server.recv(100), client.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
            server.close()
print(socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4])
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as u:
    u.bind("\0abstract")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as v:
        v.sendto(b"abstract", "\0abstract")
    print(u.recv(100))

section("terminals")
pid, master = pty.fork()
if pid == 0:
    os.write(1, b"tty %d\n" % os.isatty(0))
    line = os.read(0, 100)
    os.write(1, b"got " + line)
    os._exit(0)
text = b""
while b"\n" not in text:
    text += os.read(master, 1000)
os.write(master, b"line\n")
try:
    while part := os.read(master, 1000):
        text += part
except OSError:
    pass
print(text, os.waitpid(pid, 0)[1])
m, s = pty.openpty()
termios.tcsetwinsize(m, (40, 100))
print(termios.tcgetwinsize(s))
tty.setraw(s)
print(bool(termios.tcgetattr(s)[3] & termios.ECHO), os.ttyname(s).startswith("/dev/pts/"))

section("random")
print(len({uuid.uuid4() for _ in range(100)}), len(os.urandom(20)), len(os.getrandom(16)), random.Random(5).random())
