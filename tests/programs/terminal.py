# Plays the operator: runs a command on a pseudoterminal, types into an interactive shell, and looks at what comes back. Prints one line for each step
# that went wrong, and "done" at the end.
import fcntl, os, pty, select, signal, struct, sys, termios, time

pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", PS1="$ ")
    os.execvp(sys.argv[1], sys.argv[1:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", 33, 101, 0, 0))


rest = b""


def expect(wanted, seconds=60):
    global rest
    seen, end = rest, time.monotonic() + seconds
    while wanted not in seen:
        left = end - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            break
        try:
            more = os.read(fd, 4096)
        except OSError:
            break
        if not more:
            break
        seen += more
    if wanted not in seen:
        print(f"expected {wanted!r}, saw {seen!r}", flush=True)
    rest = seen.partition(wanted)[2]


def type_(keys, wanted):
    os.write(fd, keys)
    expect(wanted)


before = termios.tcgetattr(fd)
expect(b"$ ")
if termios.tcgetattr(fd)[3] & termios.ICANON:
    print("the operator's terminal is not in raw mode", flush=True)
type_(b"stty size; tty\n", b"33 101\r\n/dev/pts/0\r\n$ ")
type_(b"sleep 100 &\n", b"[1] ")
expect(b"$ ")
type_(b"jobs; kill %1; wait; echo waited\n", b"Running")
expect(b"\nwaited\r\n")
expect(b"$ ")
# In a shell of its own group, a job is stopped, goes on in the background and in the foreground, and is interrupted.
os.write(fd, b"echo begun; sleep 101\n")
expect(b"begun\r\n")
time.sleep(1)
type_(b"\x1a", b"Stopped")
expect(b"$ ")
type_(b"bg\n", b"$ ")
type_(b"jobs\n", b"Running")
expect(b"$ ")
os.write(fd, b"fg\n")
expect(b"sleep 101\r\n")
time.sleep(1)
type_(b"\x03", b"$ ")
type_(b"echo status $?\n", b"status 130\r\n")
expect(b"$ ")
# The line discipline edits while a program without an editor of its own reads.
os.write(fd, b"cat; echo ended\n")
expect(b"\r\n")
time.sleep(0.5)
type_(b"one twp\x7fo\n", b"\none two\r\n")
type_(b"\x04", b"ended\r\n")
expect(b"$ ")
# Another size of the operator's terminal.
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
os.kill(pid, signal.SIGWINCH)
time.sleep(0.5)
type_(b"stty size\n", b"40 120\r\n")
expect(b"$ ")
os.write(fd, b"exit 3\n")
while True:
    try:
        if not os.read(fd, 4096):
            break
    except OSError:
        break
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if termios.tcgetattr(fd) != before:
            print("the operator's terminal is not as it was", flush=True)
        break
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print("done", status, flush=True)
