"""A handler whose module leaves guest processes behind: a shell pipeline, three workers of multiprocessing, and pipes between them all."""

import multiprocessing
import os
import subprocess


def worker(connection, by):
    total = 0
    while True:
        number = connection.recv()
        total += number * by
        connection.send((total, os.getppid()))


def start(by):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=worker, args=(theirs, by), daemon=True)
    process.start()
    theirs.close()
    return process, ours


workers = [start(by) for by in (2, 3, 5)]
pipeline = subprocess.Popen(
    ["/bin/sh", "-c", "while read line; do echo line $((line + 1)); done | tr a-z A-Z | sort -r"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
)
pipeline.stdin.write(b"41\n")
pipeline.stdin.flush()
shell = subprocess.Popen(["/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
shell.stdin.write(b"x=kept; cat /proc/sys/kernel/ostype; sed -u s/a/b/ | while read l; do echo got $l; done\n")
shell.stdin.flush()
shell.stdout.readline()


def handler(event, context):
    """Everybody answers, then everybody ends."""
    number = event["n"]
    totals = []
    for _ in range(2):
        for process, connection in workers:
            connection.send(number)
        for process, connection in workers:
            total, parent = connection.recv()
            totals.append((total, parent == os.getpid(), process.is_alive()))
    shell.stdin.write(b"banana\n")
    shell.stdin.flush()
    line = shell.stdout.readline().decode()
    if event.get("keep"):
        return {"totals": totals, "line": line}
    shell.stdin.close()
    rest = shell.stdout.read().decode()
    ended = []
    for process, connection in workers:
        process.terminate()
        process.join(20)
        ended.append(process.exitcode)
    lines = pipeline.communicate(b"%d\n" % number, timeout=20)[0].decode()
    again = subprocess.run(["/bin/sh", "-c", "echo new; exit 3"], stdout=subprocess.PIPE)
    return {
        "totals": totals,
        "line": line,
        "rest": rest,
        "ended": ended,
        "pipeline": (pipeline.returncode, lines),
        "shell": shell.wait(20),
        "again": (again.returncode, again.stdout.decode()),
    }


if __name__ == "__main__":
    import json

    print(json.dumps(handler({"n": 7}, None)))
