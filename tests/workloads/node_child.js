const { exec, execSync, execFileSync, fork, spawn, spawnSync } = require('node:child_process');
const { once } = require('node:events');
if (process.argv[2] === 'child') {
  process.on('message', (m) => { if (m === 'end') process.disconnect(); else process.send({ got: m }); });
  return;
}
(async () => {
  console.log(execSync('echo sync | tr a-z A-Z').toString().trim(), execFileSync('/usr/bin/printf', ['%s', 'file']).toString());
  console.log(spawnSync('/bin/sh', ['-c', 'cat; echo e >&2; exit 5'], { input: 'in' }).status);
  try { execSync('exit 3', { stdio: 'pipe' }); } catch (e) { console.log(e.status); }
  console.log(spawnSync('/none').error.code, spawnSync('/bin/sleep', ['60'], { timeout: 50 }).signal);
  const child = fork(__filename, ['child']);
  child.send({ a: 1 }); console.log((await once(child, 'message'))[0]);
  child.send('x'.repeat(200000)); console.log((await once(child, 'message'))[0].got.length);
  child.send('end'); console.log((await once(child, 'exit'))[0]);
  const codes = await Promise.all(Array.from({ length: 8 }, (_, i) => new Promise((done) => exec(`exit ${i}`, (e) => done(e ? e.code : 0)))));
  console.log(codes);
  const shell = spawn('sleep 60 | cat', { shell: true, detached: true, stdio: 'ignore' }); await once(shell, 'spawn'); process.kill(-shell.pid, 'SIGKILL'); console.log((await once(shell, 'exit'))[1]);
  const extra = spawn('/bin/sh', ['-c', 'echo on three >&3'], { stdio: ['ignore', 'ignore', 'inherit', 'pipe'] }); let text = ''; for await (const d of extra.stdio[3]) text += d; console.log(text.trim());
  console.log(spawnSync(process.execPath, ['-p', 'process.env.A + require("fs").readFileSync(0)'], { env: { A: 'env' }, input: 'stdin' }).stdout.toString().trim());
})();
