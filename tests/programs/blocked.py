"""A handler whose module leaves more than twenty threads asleep, each in another system call, and two child processes.

Imported in a seed, it is forked in the middle of all of them. Each request goes to a child of that seed, which ends every sleep and
tells what each call gave. A call that the kernel does not have gives "absent".
"""

import array
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
HERE = tempfile.mkdtemp()
RESULTS = {}
THREADS = {}
RELEASE = {}
READY = threading.Semaphore(0)


def absent(code):
    return code in (errno.ENOSYS, errno.EOPNOTSUPP)


def c(name, *args):
    """Calls libc, with the GIL released; an error is an OSError."""
    result = getattr(libc, name)(*args)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def sleeper(name, sleep, release):
    """`sleep` runs in a thread of its own; `release`, in the main thread of a child, ends its sleep."""

    def body():
        READY.release()
        try:
            RESULTS[name] = sleep()
        except OSError as error:
            RESULTS[name] = "absent" if absent(error.errno) else "error %s" % errno.errorcode[error.errno]
        except BaseException as error:
            RESULTS[name] = "failed %r" % (error,)

    RELEASE[name] = release
    THREADS[name] = threading.Thread(target=body, name=name, daemon=True)


# Blocked everywhere, so that only those who wait for them take them. SIGALRM has a handler.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN})
signal.signal(signal.SIGALRM, lambda *_: None)


def to_thread(name, number):
    return lambda: signal.pthread_kill(THREADS[name].ident, number)


# Guest processes, made before there are threads.
def child(code):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(w)
        os._exit(code + len(os.read(r, 10)))
    os.close(r)
    return pid, w


first, first_in = child(3)
second, second_in = child(4)
third, third_in = child(5)
sleeper("wait4", lambda: os.waitstatus_to_exitcode(os.wait4(first, 0)[1]), lambda: os.write(first_in, b"x"))
sleeper("waitid", lambda: os.waitid(os.P_PID, second, os.WEXITED).si_status, lambda: os.write(second_in, b"xy"))


def poll_pidfd():
    fd = os.pidfd_open(third)
    events = select.poll()
    events.register(fd, select.POLLIN)
    ready = len(events.poll())
    return ready, os.waitid(os.P_PIDFD, fd, os.WEXITED).si_status


sleeper("pidfd", poll_pidfd, lambda: os.write(third_in, b"x"))

# Futexes.
lock = threading.Lock()
lock.acquire()
sleeper("lock", lock.acquire, lock.release)
condition = threading.Condition()


def wait_condition(timeout=None):
    with condition:
        return condition.wait(timeout)


def notify():
    with condition:
        condition.notify_all()


sleeper("condition", wait_condition, notify)
sleeper("condition, timeout far", lambda: wait_condition(3600), notify)
never = threading.Semaphore(0)
sleeper("semaphore, timeout near", lambda: never.acquire(timeout=1.0), lambda: None)

# Pipes and what is like them.
def pipe_sleeper(name, read):
    r, w = os.pipe()
    sleeper(name, lambda: read(r), lambda: os.write(w, name.encode()))


def with_epoll(fd, flags=0):
    e = select.epoll()
    e.register(fd, select.EPOLLIN | flags)
    return [events for _, events in e.poll()], os.read(fd, 100).decode()


def nested(fd):
    inner, outer = select.epoll(), select.epoll()
    inner.register(fd, select.EPOLLIN)
    outer.register(inner.fileno(), select.EPOLLIN | select.EPOLLET)
    return [f == inner.fileno() for f, _ in outer.poll()], [f == fd for f, _ in inner.poll()]


def with_poll(fd):
    p = select.poll()
    p.register(fd, select.POLLIN)
    return [events for _, events in p.poll()]


def with_pselect(fd):
    sets = (ctypes.c_ulong * 16)()
    sets[fd // 64] = 1 << (fd % 64)
    return c("pselect", fd + 1, sets, None, None, None, None), sets[fd // 64] == 1 << (fd % 64)


def with_splice(fd):
    r, w = os.pipe()
    try:
        n = c("splice", fd, None, w, None, 100, 0)
    except OSError as error:
        return "absent" if error.errno == errno.EINVAL else str(error)
    return os.read(r, n).decode()


pipe_sleeper("read", lambda fd: os.read(fd, 100).decode())
pipe_sleeper("readv", lambda fd: os.readv(fd, [bytearray(3), bytearray(10)]))
pipe_sleeper("epoll", with_epoll)
pipe_sleeper("epoll, edge", lambda fd: with_epoll(fd, select.EPOLLET | select.EPOLLONESHOT))
pipe_sleeper("epoll in epoll", nested)
pipe_sleeper("poll", with_poll)
pipe_sleeper("select", lambda fd: select.select([fd], [], [])[0] == [fd])
pipe_sleeper("pselect", with_pselect)
pipe_sleeper("splice", with_splice)

counter = os.eventfd(0)
sleeper("eventfd", lambda: os.eventfd_read(counter), lambda: os.eventfd_write(counter, 5))

full_r, full_w = os.pipe()
fcntl.fcntl(full_w, 1031, 4096)
os.write(full_w, b"f" * 4096)


def drain_pipe():
    while len(os.read(full_r, 4096)) == 4096:
        pass


sleeper("write to a full pipe", lambda: os.write(full_w, b"g" * 100), lambda: os.read(full_r, 4096))

fifo = HERE + "/fifo"
try:
    os.mkfifo(fifo)
except OSError:
    pass


def open_fifo():
    try:
        fd = os.open(fifo, os.O_RDONLY)
    except OSError as error:
        return "absent" if error.errno in (errno.ENXIO, errno.ENOENT) else str(error)
    return os.read(fd, 10).decode()


def feed_fifo():
    if THREADS["open of a FIFO"].is_alive():
        fd = os.open(fifo, os.O_WRONLY)
        os.write(fd, b"fifo")


sleeper("open of a FIFO", open_fifo, feed_fifo)

# Sockets.
def accept(server, dial):
    def sleep():
        peer, _ = server.accept()
        return peer.recv(10).decode()

    def release():
        s = dial()
        s.sendall(b"dialled")

    return sleep, release


tcp = socket.create_server(("127.0.0.1", 0))
sleeper("accept, TCP", *accept(tcp, lambda: socket.create_connection(tcp.getsockname())))
tcp6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
sleeper("accept, TCP6", *accept(tcp6, lambda: socket.create_connection(tcp6.getsockname()[:2])))
unix = socket.socket(socket.AF_UNIX)
unix.bind("\0" + HERE)
unix.listen()


def dial_unix():
    s = socket.socket(socket.AF_UNIX)
    s.connect("\0" + HERE)
    return s


sleeper("accept, AF_UNIX", *accept(unix, dial_unix))


def tcp_pair():
    a = socket.create_connection(tcp.getsockname())
    return a, tcp.accept()[0]


tcp_a, tcp_b = tcp_pair()
sleeper("recv, TCP", lambda: tcp_a.recv(100).decode(), lambda: tcp_b.send(b"stream"))
end_a, end_b = tcp_pair()
sleeper("recv, TCP, end", lambda: len(end_a.recv(100)), lambda: end_b.shutdown(socket.SHUT_WR))
dgram_a, dgram_b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


def recvmsg():
    data, ancillary, _, _ = dgram_a.recvmsg(100, 64)
    fd = struct.unpack("i", ancillary[0][2][:4])[0]
    return data.decode(), os.read(fd, 10).decode()


def sendmsg():
    r, w = os.pipe()
    os.write(w, b"passed")
    dgram_b.sendmsg([b"datagram"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [r]))])


sleeper("recvmsg", recvmsg, sendmsg)
udp_a, udp_b = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
udp_a.bind(("127.0.0.1", 0))
sleeper("recvfrom, UDP", lambda: udp_a.recvfrom(100)[0].decode(), lambda: udp_b.sendto(b"udp", udp_a.getsockname()))
late = socket.socket(type=socket.SOCK_DGRAM)
late.bind(("127.0.0.1", 0))
late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 1, 0))


def recv_late():
    try:
        return late.recv(10)
    except BlockingIOError:
        return "EAGAIN"


sleeper("recv, SO_RCVTIMEO", recv_late, lambda: None)
full_a, full_b = socket.socketpair()
full_a.setblocking(False)
STUFFED = 0
while True:
    try:
        STUFFED += full_a.send(b"s" * 65536)
    except BlockingIOError:
        break
full_a.setblocking(True)


def take_all():
    left = STUFFED + 200_000
    while left:
        left -= len(full_b.recv(65536))


sleeper("send, full", lambda: full_a.sendall(b"t" * 200_000) is None, take_all)
seq_a, seq_b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sleeper("recv, SEQPACKET", lambda: seq_a.recv(3).decode(), lambda: seq_b.send(b"packet"))

# Time.
def clock_nanosleep(clock, seconds):
    until = time.clock_gettime(clock) + seconds

    def sleep():
        spec = (ctypes.c_long * 2)(int(until), int((until % 1) * 1e9))
        result = libc.clock_nanosleep(clock, 1, spec, None)
        return result, time.clock_gettime(clock) >= until - 0.001

    return sleep


def nanosleep(seconds):
    def sleep():
        start = time.monotonic()
        spec = (ctypes.c_long * 2)(int(seconds), int((seconds % 1) * 1e9))
        result = libc.nanosleep(spec, None)
        return result, time.monotonic() >= start + seconds - 0.001

    return sleep


sleeper("nanosleep", nanosleep(1.0), lambda: None)
sleeper("clock_nanosleep, monotonic", clock_nanosleep(time.CLOCK_MONOTONIC, 1.2), lambda: None)
sleeper("clock_nanosleep, realtime", clock_nanosleep(time.CLOCK_REALTIME, 1.3), lambda: None)
timer = c("timerfd_create", 1, 0)


def set_timer(seconds):
    c("timerfd_settime", timer, 0, (ctypes.c_long * 4)(0, 0, seconds, 1000), None)


set_timer(3600)
sleeper("timerfd", lambda: struct.unpack("Q", os.read(timer, 8))[0], lambda: set_timer(0))

# Signals.
USR1 = {signal.SIGUSR1}
sleeper("sigtimedwait", lambda: signal.sigtimedwait(USR1, 3600).si_signo, to_thread("sigtimedwait", signal.SIGUSR1))
sleeper("sigwaitinfo", lambda: signal.sigwaitinfo({signal.SIGRTMIN}).si_signo, lambda: os.kill(os.getpid(), signal.SIGRTMIN))
mask = (ctypes.c_ulong * 16)(1 << (signal.SIGUSR2 - 1))
signals = c("signalfd", -1, mask, 0)
sleeper(
    "signalfd",
    lambda: struct.unpack_from("I", os.read(signals, 128))[0] == signal.SIGUSR2,
    lambda: os.kill(os.getpid(), signal.SIGUSR2),
)


def pause():
    libc.pause()
    return errno.errorcode[ctypes.get_errno()]


def sigsuspend():
    libc.sigsuspend((ctypes.c_ulong * 16)(~(1 << (signal.SIGALRM - 1)) & 0xFFFFFFFFFFFFFFFF))
    return errno.errorcode[ctypes.get_errno()]


sleeper("pause", pause, to_thread("pause", signal.SIGALRM))
sleeper("sigsuspend", sigsuspend, to_thread("sigsuspend", signal.SIGALRM))

# Locks on files.
open(HERE + "/locked", "w").close()
holder, waiter = os.open(HERE + "/locked", os.O_RDWR), os.open(HERE + "/locked", os.O_RDWR)
fcntl.flock(holder, fcntl.LOCK_EX)
sleeper("flock", lambda: fcntl.flock(waiter, fcntl.LOCK_EX) is None, lambda: fcntl.flock(holder, fcntl.LOCK_UN))
ofd_a, ofd_b = os.open(HERE + "/locked", os.O_RDWR), os.open(HERE + "/locked", os.O_RDWR)


def ofd(fd, command, kind):
    fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, 0, 0, 10, 0))
    return True


ofd(ofd_a, 37, fcntl.F_WRLCK)
sleeper("fcntl lock", lambda: ofd(ofd_b, 38, fcntl.F_WRLCK), lambda: ofd(ofd_a, 37, fcntl.F_UNLCK))

# System V, inotify, a terminal: where the kernel has them.
def optional(name, make):
    try:
        sleep, release = make()
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and not absent(error.errno) and error.errno != errno.ENOENT:
            raise
        sleep, release = (lambda: "absent"), (lambda: None)
    sleeper(name, sleep, release)


def inotify():
    fd = c("inotify_init1", 0)
    os.mkdir(HERE + "/watched")
    c("inotify_add_watch", fd, (HERE + "/watched").encode(), 0x100)

    def sleep():
        data = os.read(fd, 200)
        return struct.unpack_from("I", data, 4)[0], data[16:].rstrip(b"\0").decode()

    return sleep, lambda: open(HERE + "/watched/file", "w").close()


def messages():
    queue = c("msgget", 0, 0o1600)
    buffer = ctypes.create_string_buffer(100)

    def sleep():
        n = c("msgrcv", queue, buffer, 50, ctypes.c_long(7), 0)
        c("msgctl", queue, 0, None)  # IPC_RMID: nothing stays on a host
        return buffer.raw[8 : 8 + n].decode()

    def release():
        for kind, text in ((3, b"other"), (7, b"message")):
            c("msgsnd", queue, struct.pack("l", kind) + text, len(text), 0)

    return sleep, release


def semaphores():
    sem = c("semget", 0, 1, 0o1600)

    def sleep():
        done = c("semop", sem, struct.pack("Hhh", 0, -2, 0), 1)
        c("semctl", sem, 0, 0)
        return done

    return (
        sleep,
        lambda: [c("semop", sem, struct.pack("Hhh", 0, 1, 0), 1) for _ in range(2)],
    )


def terminal():
    master, slave = os.openpty()
    return lambda: os.read(slave, 100).decode(), lambda: os.write(master, b"typex\x7f\n")


def posix_messages():
    rt = ctypes.CDLL("librt.so.1", use_errno=True)
    attributes = (ctypes.c_long * 8)(0, 4, 64)
    name = b"/" + os.path.basename(HERE).encode()
    queue = rt.mq_open(name, os.O_RDWR | os.O_CREAT, 0o600, attributes)
    if queue == -1:
        raise OSError(ctypes.get_errno(), "mq_open")
    rt.mq_unlink(name)
    buffer = ctypes.create_string_buffer(64)

    def sleep():
        n = rt.mq_receive(queue, buffer, 64, None)
        return buffer.raw[:n].decode()

    return sleep, lambda: rt.mq_send(queue, b"posix", 5, 1)


optional("inotify", inotify)
optional("msgrcv", messages)
optional("semop", semaphores)
optional("terminal", terminal)
optional("mq_receive", posix_messages)

for thread in THREADS.values():
    thread.start()
for thread in THREADS:
    READY.acquire()


def handler(event, context):
    """Ends the sleeps in the order that the event asks for, and tells what each call gave."""
    asleep = [name for name, thread in THREADS.items() if thread.is_alive()]
    names = list(RELEASE)
    if event.get("reverse"):
        names.reverse()
    if event.get("look"):
        return {"threads": len(threading.enumerate()), "asleep": asleep}
    for name in names:
        RELEASE[name]()
        # One at a time: the next call must not hide that this one sleeps on.
        if event.get("one_by_one") and "time" not in name and "sleep" not in name and "RCVTIMEO" not in name:
            THREADS[name].join(20)
    stuck = []
    for name, thread in THREADS.items():
        thread.join(20)
        if thread.is_alive():
            stuck.append(name)
    return {"results": RESULTS, "stuck": stuck, "asleep": asleep, "own": os.urandom(8).hex()}


if __name__ == "__main__":
    import json

    print(json.dumps(handler({"one_by_one": True}, None), indent=1))
    sys.exit(0)
