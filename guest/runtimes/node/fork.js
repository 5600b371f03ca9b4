// Loaded before anything else in every thread (--require): makes what Node.js remembers of chance new after a fork of the sandbox.
//
// - OpenSSL (TLS, keys, crypto.randomBytes, getRandomValues): fork.node takes each byte from the kernel, which is reseeded at a fork.
// - crypto.randomUUID and crypto.randomInt keep random bytes for later: after a fork those left over are used up first.
// - Math.random: V8 offers no way to seed it anew, so it is replaced by xoshiro128** (two outputs make 53 bits), in this context and in those
//   that vm makes, seeded from the kernel here and after each fork.
'use strict';

const path = __dirname + '/fork.node';
const { page, openssl } = require(path);
const crypto = require('crypto');
const vm = require('vm');

if (page === undefined || openssl !== true) {
  process.emitWarning('this build of Node.js keeps random numbers where a fork cannot renew them: ' +
    (page === undefined ? 'no page that a fork wipes' : 'OpenSSL takes no other generator'), 'CoppiceWarning');
}

const mark = page === undefined ? [1] : new Uint8Array(page);
// In an array of its own, so that no number of it is ever boxed.
const state = new Int32Array(4);
const { randomUUID, randomInt, randomFillSync } = crypto;
let usedIds = false, usedInts = false;

function renew() {
  mark[0] = 1;
  randomFillSync(state);
  state[3] |= 1;
  // The caches hold 128 identifiers and 1024 numbers.
  if (usedIds) for (let i = 0; i < 128; i++) randomUUID();
  if (usedInts) for (let i = 0; i < 1024; i++) randomInt(2);
  usedIds = usedInts = false;
}

// One output of xoshiro128**.
function next() {
  const b = state[1], x = Math.imul(b, 5), t = b << 9;
  const c = state[2] ^ state[0], d = state[3] ^ b;
  state[1] = b ^ c;
  state[0] ^= d;
  state[2] = c ^ t;
  state[3] = (d << 11) | (d >>> 21);
  return Math.imul((x << 7) | (x >>> 25), 9);
}

const wrappers = {
  random() {
    if (mark[0] === 0) renew();
    const high = next(), low = next();
    return ((high >>> 5) * 67108864 + (low >>> 6)) / 9007199254740992;
  },
  randomUUID(options) {
    if (mark[0] === 0) renew();
    usedIds = true;
    return randomUUID(options);
  },
  randomInt(...bounds) {
    if (mark[0] === 0) renew();
    usedInts = true;
    return randomInt(...bounds);
  },
};

function replace(object, name, value) {
  Object.defineProperty(object, name, { ...Object.getOwnPropertyDescriptor(object, name), value });
}

replace(Math, 'random', wrappers.random);
crypto.randomUUID = wrappers.randomUUID;
crypto.randomInt = wrappers.randomInt;
replace(Object.getPrototypeOf(crypto.webcrypto), 'randomUUID', {
  randomUUID() {
    if (this !== crypto.webcrypto) throw new TypeError('Illegal invocation');
    return wrappers.randomUUID();
  },
}.randomUUID);

const { createContext, Script } = vm;
const { runInContext } = Script.prototype;
const math = new Script('Math');
vm.createContext = function (...args) {
  const known = typeof args[0] === 'object' && args[0] !== null && vm.isContext(args[0]);
  const context = createContext.apply(this, args);
  if (!known) {
    try {
      replace(runInContext.call(math, context), 'random', wrappers.random);
    } catch {
      // Not a context with a Math of its own.
    }
  }
  return context;
};
const ofContext = ({ contextName: name, contextOrigin: origin, contextCodeGeneration: codeGeneration, microtaskMode }) =>
  ({ name, origin, codeGeneration, microtaskMode });
Script.prototype.runInNewContext = function (object, options) {
  const context = vm.createContext(object, options === undefined || options === null ? {} : ofContext(options));
  return runInContext.call(this, context, options);
};
vm.runInNewContext = function (code, object, options) {
  if (typeof options === 'string') options = { filename: options };
  return new Script(code, options).runInNewContext(object, options);
};

// A thread that is started with arguments of its own would go without.
const threads = require('worker_threads');
threads.Worker = class Worker extends threads.Worker {
  constructor(file, options) {
    const args = options?.execArgv;
    super(file, Array.isArray(args) ? { ...options, execArgv: ['--require', __filename, ...args] } : options);
  }
};

require('module').syncBuiltinESMExports();
renew();

module.exports = { renew };
