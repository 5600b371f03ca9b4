// A wide walk over node's own library.
const fs = require('node:fs'), os = require('node:os'), path = require('node:path'), net = require('node:net'), dgram = require('node:dgram');
const { pipeline } = require('node:stream/promises'), zlib = require('node:zlib'), crypto = require('node:crypto'), dns = require('node:dns/promises');
const { execFile, spawn } = require('node:child_process'), { promisify } = require('node:util'), { Worker } = require('node:worker_threads'), readline = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises'), { once } = require('node:events'), v8 = require('node:v8'), vm = require('node:vm'), url = require('node:url');
(async () => {
  fs.mkdirSync('d/e/f', { recursive: true });
  for (let i = 0; i < 50; i++) fs.writeFileSync(`d/${i}`, 'x'.repeat(i * 100));
  console.log(fs.readdirSync('d').length, fs.statSync('d/20').size, fs.existsSync('d/none'));
  fs.renameSync('d/1', 'd/one'); fs.linkSync('d/2', 'd/two'); fs.symlinkSync('3', 'd/three'); fs.copyFileSync('d/4', 'd/four');
  console.log(fs.readlinkSync('d/three'), fs.statSync('d/2').nlink, fs.realpathSync('d/three').endsWith('d/3'), fs.readdirSync('.', { recursive: true }).length);
  const handle = await fs.promises.open('d/5', 'r+');
  await handle.write('hello', 10); await handle.truncate(100); await handle.sync(); await handle.utimes(1, 2);
  console.log((await handle.stat()).size, (await handle.stat()).mtimeMs, (await handle.read(Buffer.alloc(5), 0, 5, 10)).buffer.toString()); await handle.close();
  for (const f of [() => fs.readFileSync('none'), () => fs.mkdirSync('d'), () => fs.rmdirSync('d'), () => fs.readdirSync('d/6')]) try { f(); } catch (e) { console.log(e.code, e.syscall); }
  const watcher = fs.watch('d'); const changed = once(watcher, 'change'); fs.writeFileSync('d/watched', 'now'); console.log((await changed)[1]); watcher.close();
  await pipeline(fs.createReadStream(process.execPath, { end: 3_000_000 }), zlib.createGzip({ level: 1 }), fs.createWriteStream('gz'));
  let size = 0; for await (const part of fs.createReadStream('gz').pipe(zlib.createGunzip())) size += part.length; console.log(size);
  console.log((await promisify(execFile)('/bin/echo', ['child'])).stdout.trim());
  const cat = spawn('/bin/cat'); cat.stdin.end('through cat'); let text = ''; for await (const d of cat.stdout) text += d; console.log(text, (await once(cat, 'close'))[0]);
  const killed = spawn('/bin/sleep', ['60']); killed.kill('SIGTERM'); console.log((await once(killed, 'exit'))[1]);
  const lines = readline.createInterface({ input: spawn('/usr/bin/seq', ['1000']).stdout }); let sum = 0; for await (const l of lines) sum += Number(l); console.log(sum);
  const echo = net.createServer((s) => s.pipe(s)).listen(0, '127.0.0.1'); await once(echo, 'listening');
  const c = net.connect(echo.address().port, '127.0.0.1'); c.end('tcp '.repeat(50_000)); let got = 0; for await (const d of c) got += d.length; console.log(got); echo.close();
  const unix = net.createServer((s) => s.end('unix')).listen('sock'); await once(unix, 'listening'); text = ''; for await (const d of net.connect('sock')) text += d; console.log(text); unix.close();
  const v6 = net.createServer((s) => s.end('v6')).listen(0, '::1'); await once(v6, 'listening'); text = ''; for await (const d of net.connect(v6.address().port, '::1')) text += d; console.log(text); v6.close();
  const udp = dgram.createSocket('udp4').bind(0, '127.0.0.1'); await once(udp, 'listening'); const message = once(udp, 'message');
  const sender = dgram.createSocket('udp4'); sender.send('datagram', udp.address().port, '127.0.0.1', () => sender.close()); console.log((await message)[0].toString()); udp.close();
  try { await once(net.connect(1, '127.0.0.1'), 'connect'); } catch (e) { console.log(e.code); }
  console.log((await dns.lookup('localhost', 4)).address, os.cpus().length > 0, os.totalmem() > 0, os.userInfo().username, os.type(), os.hostname().length > 0);
  const w = new Worker("const {parentPort:p}=require('worker_threads');p.on('message',m=>{p.postMessage(m*2);p.close()})", { eval: true }); w.postMessage(21); console.log((await once(w, 'message'))[0], (await once(w, 'exit'))[0]);
  const order = []; setImmediate(() => order.push('immediate')); process.nextTick(() => order.push('tick')); setTimeout(() => order.push('timer'), 5); queueMicrotask(() => order.push('micro')); await sleep(30); console.log(order.join());
  const usr = once(process, 'SIGUSR2'); process.kill(process.pid, 'SIGUSR2'); console.log((await usr)[0]);
  console.log(new vm.Script('6*7').runInNewContext(), v8.deserialize(v8.serialize(new Map([[1, 2]]))).get(1), crypto.randomUUID().length, (await promisify(crypto.scrypt)('p', 's', 32)).toString('hex').slice(0, 8));
  console.log(process.memoryUsage().rss > 0, process.resourceUsage().userCPUTime > 0, process.hrtime.bigint() > 0n, process.umask().toString(8), process.cwd() === path.resolve('.'), process.title.length > 0);
  fs.rmSync('d', { recursive: true }); console.log(fs.existsSync('d')); process.exitCode = 6;
})();
