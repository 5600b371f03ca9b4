const zlib = require('node:zlib'), crypto = require('node:crypto'), { promisify } = require('node:util');
const data = Buffer.from(Array.from({ length: 300000 }, (_, i) => (i * i) % 251));
(async () => {
  for (const [pack, unpack] of [['gzip', 'gunzip'], ['deflate', 'inflate'], ['brotliCompress', 'brotliDecompress'], ['deflateRaw', 'inflateRaw']]) {
    const packed = await promisify(zlib[pack])(data);
    console.log(pack, packed.length < data.length, (await promisify(zlib[unpack])(packed)).equals(data));
  }
  await Promise.all(Array.from({ length: 20 }, (_, i) => promisify(zlib.gzip)(data.subarray(i * 1000)))).then((l) => console.log(l.length));
  for (const name of ['md5', 'sha1', 'sha256', 'sha512', 'sha3-256']) console.log(name, crypto.createHash(name).update(data).digest('hex').slice(0, 16));
  console.log(crypto.createHmac('sha256', 'key').update(data).digest('base64'));
  console.log((await promisify(crypto.pbkdf2)('p', 'salt', 10000, 16, 'sha256')).toString('hex'), (await promisify(crypto.scrypt)('p', 'salt', 16)).toString('hex'), crypto.hkdfSync('sha256', 'k', 's', 'i', 8).byteLength);
  for (const name of ['aes-256-cbc', 'aes-128-ctr', 'chacha20-poly1305']) {
    const iv = Buffer.alloc(name.startsWith('chacha') ? 12 : 16), key = Buffer.alloc(name === 'aes-128-ctr' ? 16 : 32, 1), options = { authTagLength: 16 };
    const c = crypto.createCipheriv(name, key, iv, options), out = Buffer.concat([c.update(data), c.final()]);
    const d = crypto.createDecipheriv(name, key, iv, options); if (name.startsWith('chacha')) d.setAuthTag(c.getAuthTag());
    console.log(name, crypto.createHash('md5').update(out).digest('hex'), Buffer.concat([d.update(out), d.final()]).equals(data));
  }
  const rsa = await promisify(crypto.generateKeyPair)('rsa', { modulusLength: 2048 }), sign = crypto.sign('sha256', data, rsa.privateKey); console.log(crypto.verify('sha256', data, rsa.publicKey, sign));
  const a = crypto.createECDH('prime256v1'), b = crypto.createECDH('prime256v1'); a.generateKeys(); b.generateKeys(); console.log(a.computeSecret(b.getPublicKey()).equals(b.computeSecret(a.getPublicKey())));
  const ed = crypto.generateKeyPairSync('ed25519'); console.log(crypto.sign(null, data, ed.privateKey).length);
  console.log(new Set(Array.from({ length: 1000 }, () => crypto.randomUUID())).size, crypto.randomBytes(32).length, crypto.randomInt(5) < 5, crypto.getRandomValues(new Uint8Array(8)).length);
  console.log(Buffer.from(await crypto.subtle.digest('SHA-256', data)).toString('hex').slice(0, 16));
})();
