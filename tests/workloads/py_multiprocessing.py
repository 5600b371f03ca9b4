# multiprocessing: pools, queues, pipes, locks, shared memory, managers, all three start methods.
import multiprocessing as mp
import os
import sys
from multiprocessing import shared_memory


def square(n):
    return n * n


def fill(queue, number):
    queue.put((number, number * 10))


def count(value, lock):
    for _ in range(200):
        with lock:
            value.value += 1


def echo(connection):
    while (item := connection.recv()) is not None:
        connection.send(item[::-1])
    connection.close()


def write_shared(name):
    block = shared_memory.SharedMemory(name)
    block.buf[:5] = b"child"
    block.close()


def fail():
    sys.exit(7)


def main():
    for method in ("fork", "spawn", "forkserver"):
        context = mp.get_context(method)
        queue = context.Queue()
        process = context.Process(target=fill, args=(queue, 4))
        process.start()
        print(method, queue.get(timeout=60))
        process.join()
        print(process.exitcode)
    with mp.Pool(4) as pool:
        print(pool.map(square, range(20), chunksize=3), pool.apply_async(square, (12,)).get(60))
    value, lock = mp.Value("i", 0), mp.Lock()
    workers = [mp.Process(target=count, args=(value, lock)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(value.value)
    here, there = mp.Pipe()
    process = mp.Process(target=echo, args=(there,))
    process.start()
    for item in (b"abc", [1, 2, 3], "x" * 100_000):
        here.send(item)
        reply = here.recv()
        print(len(reply), reply[:3])
    here.send(None)
    process.join()
    block = shared_memory.SharedMemory(create=True, size=4096)
    process = mp.Process(target=write_shared, args=(block.name,))
    process.start()
    process.join()
    print(bytes(block.buf[:5]))
    block.close()
    block.unlink()
    with mp.Manager() as manager:
        shared = manager.dict()
        shared["a"] = 1
        print(dict(shared), list(manager.list([1, 2])))
    process = mp.Process(target=fail)
    process.start()
    process.join()
    process_2 = mp.Process(target=os.abort)
    process_2.start()
    process_2.join()
    print(process.exitcode, process_2.exitcode)


if __name__ == "__main__":
    main()
