const { Worker, isMainThread, parentPort, workerData, MessageChannel, receiveMessageOnPort } = require('node:worker_threads');
if (isMainThread) {
  const shared = new Int32Array(new SharedArrayBuffer(16));
  const one = (n) => new Promise((done, fail) => {
    const w = new Worker(__filename, { workerData: { n, shared } });
    let value; w.on('message', (m) => { value = m; }); w.on('error', fail); w.on('exit', () => done(value));
  });
  Promise.all([1, 2, 3, 4].map(one)).then(async (values) => {
    console.log(values, shared[0]);
    const { port1, port2 } = new MessageChannel();
    port1.postMessage({ big: new Uint8Array(100000) });
    console.log(receiveMessageOnPort(port2).message.big.length); port1.close();
    const waiting = new Worker("const {workerData:s,parentPort:p}=require('worker_threads');p.postMessage(Atomics.wait(s,1,0))", { eval: true, workerData: shared });
    waiting.on('message', (m) => { console.log(m); });
    waiting.on('online', () => setTimeout(() => { Atomics.store(shared, 1, 1); Atomics.notify(shared, 1); }, 20));
    await new Promise((r) => waiting.on('exit', r));
    const endless = new Worker('for(;;);', { eval: true }); await new Promise((r) => endless.on('online', r)); console.log('terminated', await endless.terminate());
    const bad = new Worker("throw new Error('inside')", { eval: true }); bad.on('error', (e) => console.log(e.message));
    await new Promise((r) => bad.on('exit', r));
  });
} else {
  const { n, shared } = workerData;
  for (let i = 0; i < 10000; i++) Atomics.add(shared, 0, 1);
  let x = 0; for (let i = 0; i < 200000 * n; i++) x = (x + i) % 9973;
  parentPort.postMessage(x);
}
