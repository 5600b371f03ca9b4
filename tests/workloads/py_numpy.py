import numpy as np

rng = np.random.default_rng(7)
a = rng.integers(0, 100, (300, 300)).astype(np.float64)
b = a @ a.T
print(b.shape, int(b.sum()), int(np.trace(b)))
print(np.sort(rng.integers(0, 10**9, 200_000))[::50_000])
np.save("a.npy", a)
np.savez_compressed("b.npz", a=a, b=b)
print(np.array_equal(np.load("a.npy"), a), np.load("b.npz")["b"].shape)
m = np.memmap("mapped", dtype=np.int32, mode="w+", shape=(1000, 1000))
m[:] = np.arange(1_000_000).reshape(1000, 1000)
m.flush()
print(int(np.memmap("mapped", dtype=np.int32, mode="r", shape=(1000, 1000))[::100].sum()))
x = np.linalg.solve(np.eye(50) * 4, np.ones(50))
print(x[0], int(np.fft.fft(np.ones(1024))[0].real), np.unique(a).size)
big = np.zeros(5_000_000)
big += 1
print(int(big.sum()))
