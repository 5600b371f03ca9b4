# asyncio: tasks, streams over TCP and Unix sockets, subprocesses, signals, executors, locks, timeouts.
import asyncio
import os
import signal


async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def talk(reader, writer, name):
    out = []
    for i in range(20):
        writer.write(f"{name} {i}\n".encode())
        await writer.drain()
        out.append(await reader.readline())
    writer.close()
    await writer.wait_closed()
    return b"".join(out)


async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    replies = await asyncio.gather(*[talk(*await asyncio.open_connection("127.0.0.1", port), f"tcp{n}") for n in range(10)])
    print(len(replies), all(r.startswith(b"TCP") and r.count(b"\n") == 20 for r in replies))
    unix = await asyncio.start_unix_server(echo, "echo.sock")
    print((await talk(*await asyncio.open_unix_connection("echo.sock"), "unix")).splitlines()[-1])
    for each in (server, unix):
        each.close()
        await each.wait_closed()

    child = await asyncio.create_subprocess_exec("/usr/bin/tr", "a-z", "A-Z", stdin=-1, stdout=-1)
    print(await child.communicate(b"through a child\n"), child.returncode)
    child = await asyncio.create_subprocess_shell("exec sleep 60")
    child.terminate()
    print(await child.wait())
    many = await asyncio.gather(*[asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {n}") for n in range(6)])
    print([await p.wait() for p in many])

    got = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, got.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(got.wait(), 30)
    print("signal")
    print(await asyncio.gather(*[asyncio.to_thread(pow, 3, n) for n in range(10)]))
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
    except TimeoutError:
        print("timeout")
    queue, order = asyncio.Queue(3), []

    async def produce():
        for i in range(10):
            await queue.put(i)
        await queue.put(None)

    async def consume():
        while (item := await queue.get()) is not None:
            order.append(item)

    await asyncio.gather(produce(), consume())
    print(order)
    r, w = os.pipe()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(r, "rb"))
    os.write(w, b"pipe\n")
    os.close(w)
    print(await reader.read())


asyncio.run(main())
