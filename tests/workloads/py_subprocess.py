# subprocess: pipes both ways, shells, groups, signals, environment, descriptors, timeouts.
import os
import signal
import subprocess
import sys

run = subprocess.run
print(run(["/bin/echo", "hi"], capture_output=True, text=True).stdout.strip())
print(run("cat | sort -r | head -2", shell=True, input="a\nc\nb\n", capture_output=True, text=True).stdout.split())
print(run(["/bin/sh", "-c", "echo $A; exit 3"], env={"A": "value"}, capture_output=True, text=True))
print(run(["/bin/sh", "-c", "kill -9 $$"]).returncode)
try:
    run(["/bin/nothing"])
except FileNotFoundError as error:
    print(error)
try:
    run(["/bin/sleep", "60"], timeout=0.05)
except subprocess.TimeoutExpired:
    print("timeout")
a = subprocess.Popen(["/usr/bin/seq", "100000"], stdout=subprocess.PIPE)
b = subprocess.Popen(["/usr/bin/wc", "-l"], stdin=a.stdout, stdout=subprocess.PIPE, text=True)
a.stdout.close()
print(b.communicate()[0].strip(), a.wait())
big = os.urandom(3_000_000)
print(run(["/bin/cat"], input=big, capture_output=True).stdout == big)
child = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & wait"], start_new_session=True)
print(os.getpgid(child.pid) == child.pid, os.getsid(child.pid) == child.pid)
os.killpg(child.pid, signal.SIGTERM)
print(child.wait())
r, w = os.pipe()
child = subprocess.Popen(["/bin/sh", "-c", f"echo from the child >&{w}"], pass_fds=[w])
os.close(w)
print(os.fdopen(r).read().strip(), child.wait())
code = "import sys; print(sys.stdin.read().upper(), end=''); print('e', file=sys.stderr)"
done = run([sys.executable, "-c", code], input="abc\n", text=True, capture_output=True, cwd="/")
print(repr(done.stdout), repr(done.stderr))
print(run(["/bin/pwd"], cwd="/usr", capture_output=True, text=True).stdout.strip())
print(subprocess.getstatusoutput("echo out; exit 5"))
print(run(["/bin/sh", "-c", "umask"], umask=0o27, capture_output=True, text=True).stdout.strip())
print([run(["/bin/true"]).returncode for _ in range(20)].count(0))
print(run(["/usr/bin/yes"], stdout=open("/dev/full", "w"), stderr=subprocess.DEVNULL).returncode)
