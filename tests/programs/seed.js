// A Node seed: V8's workers, a pool of four threads that have worked, two worker threads, a server on loopback, timers. Its pool reads
// commands from descriptor 3 (4 bytes of length, then JSON) and each answer tells what every one of these gave.
'use strict';
const fs = require('fs');
const http = require('http');
const zlib = require('zlib');
const crypto = require('crypto');
const { execFile } = require('child_process');
const { promisify } = require('util');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');

if (!isMainThread) {
  parentPort.on('message', (n) => parentPort.postMessage(n * workerData));
  return;
}

const pbkdf2 = promisify(crypto.pbkdf2), read = promisify(fs.read);
const key = (n) => pbkdf2(`password ${n}`, 'salt', 500, 16, 'sha256').then((k) => k.toString('hex'));
const workers = [2, 3].map((by) => new Worker(__filename, { workerData: by }));
const ask = (worker, n) => new Promise((resolve) => {
  worker.once('message', resolve);
  worker.postMessage(n);
});
const server = http.createServer((request, response) => response.end(`hello ${request.url}`));
const fetched = (path) => new Promise((resolve, reject) => {
  http.get({ host: '127.0.0.1', port: server.address().port, path, agent: false }, (response) => {
    let text = '';
    response.on('data', (part) => { text += part; });
    response.on('end', () => resolve(text));
  }).on('error', reject);
});
let ticks = 0;
setInterval(() => { ticks += 1; }, 20);

function fibonacci(n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

async function work(event) {
  const before = ticks;
  const keys = await Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map(key));
  const squares = await Promise.all(workers.map((w) => ask(w, event.n)));
  const text = 'coppice '.repeat(5000);
  const packed = await promisify(zlib.gzip)(text);
  const unpacked = (await promisify(zlib.gunzip)(packed)).toString();
  await fs.promises.writeFile('/tmp/coppice-seed-file', 'written');
  const file = await fs.promises.readFile('/tmp/coppice-seed-file', 'utf8');
  const pages = await Promise.all(['/a', '/b'].map(fetched));
  const shell = event.shell ? (await promisify(execFile)('/bin/sh', ['-c', 'echo from a shell | tr a-z A-Z'])).stdout : '';
  await new Promise((resolve) => setTimeout(resolve, 60));
  return {
    keys: crypto.createHash('sha256').update(keys.join()).digest('hex'),
    squares, unpacked: unpacked === text, file, pages, shell,
    ticked: ticks > before, sum: fibonacci(20),
    threads: fs.readdirSync('/proc/self/task').length,
    uuid: crypto.randomUUID(),
  };
}

async function command() {
  const head = Buffer.alloc(4);
  await read(3, head, 0, 4, null);
  const body = Buffer.alloc(head.readUInt32LE());
  for (let at = 0; at < body.length;) {
    at += (await read(3, body, at, body.length - at, null)).bytesRead;
  }
  return JSON.parse(body);
}

function answer(value) {
  const body = Buffer.from(JSON.stringify(value));
  const head = Buffer.alloc(4);
  head.writeUInt32LE(body.length);
  fs.writeSync(3, Buffer.concat([head, body]));
}

async function main() {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  await Promise.all([0, 1, 2, 3].map(key));
  await Promise.all(workers.map((w) => ask(w, 1)));
  if (process.argv[2] === 'once') {
    console.log(JSON.stringify(await work({ n: 7, shell: true })));
    process.exit(0);
  }
  for (;;) {
    const event = await command();
    answer(await work(event).catch((error) => ({ error: String(error.stack) })));
  }
}
main();
