// A function such as people deploy: JSON in, text work, a hash, JSON out.
const crypto = require('node:crypto');
const fs = require('node:fs/promises');
const handler = async (event) => {
  await fs.writeFile('state.json', JSON.stringify(event));
  const again = JSON.parse(await fs.readFile('state.json', 'utf8'));
  const words = again.text.toLowerCase().match(/\w+/g).reduce((m, w) => ({ ...m, [w]: (m[w] || 0) + 1 }), {});
  return { words, hash: crypto.createHash('sha256').update(again.text).digest('hex'), when: new Date(again.at).toISOString() };
};
handler({ text: 'the quick brown fox jumps over the lazy dog', at: 1700000000000 }).then((r) => console.log(JSON.stringify(r)));
