// http: a server and many keep-alive and fresh requests, streams, WebStreams fetch.
const http = require('node:http');
const crypto = require('node:crypto');
const server = http.createServer((req, res) => {
  const hash = crypto.createHash('sha256');
  let size = 0;
  req.on('data', (d) => { hash.update(d); size += d.length; });
  req.on('end', () => {
    if (req.url === '/big') { res.end(Buffer.alloc(3_000_000, 'ab')); return; }
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify({ url: req.url, method: req.method, size, hash: hash.digest('hex').slice(0, 8) }));
  });
});
const ask = (options, body) => new Promise((done, fail) => {
  const req = http.request({ host: '127.0.0.1', port: server.address().port, ...options }, (res) => {
    const parts = [];
    res.on('data', (d) => parts.push(d));
    res.on('end', () => done(Buffer.concat(parts)));
  });
  req.on('error', fail);
  req.end(body);
});
server.listen(0, '127.0.0.1', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  const replies = await Promise.all(Array.from({ length: 40 }, (_, i) => ask({ path: `/${i}`, agent })));
  console.log(replies.length, replies[39].toString());
  console.log((await ask({ path: '/post', method: 'POST' }, 'x'.repeat(1_000_000))).toString());
  console.log((await ask({ path: '/big' })).length);
  const answer = await fetch(`http://127.0.0.1:${server.address().port}/fetch`, { method: 'PUT', body: 'fetched' });
  console.log(answer.status, await answer.text());
  agent.destroy();
  server.close(() => console.log('closed'));
  server.closeAllConnections();
});
