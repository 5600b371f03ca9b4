// The Node.js runtime loop: waits for commands on the work channel (descriptor 3), imports a handler, answers requests. The messages are those
// of ../python/runtime.py.
//
// It waits in a blocking read: the seed is taken with the main thread there and every other thread (V8's workers, libuv's pool) asleep.
// Between a command and its answer the event loop runs as ever.
'use strict';

const fs = require('fs');
const path = require('path');
const { Writable } = require('stream');
const { format } = require('util');
const { pathToFileURL } = require('url');
const { performance } = require('perf_hooks');
const { renew } = require('./fork.js');

const { exit } = process;
const chunk = Buffer.allocUnsafeSlow(65536);
const longest = 6 << 20;
let handler;
// The command at work: its `finish` takes the answer, once.
let current;
// What went wrong while no command was at work; the next one reports it.
let stray;

function fill(buffer, from, to) {
  while (from < to) {
    const n = fs.readSync(3, buffer, from, to - from, null);
    if (n === 0) exit(0);
    from += n;
  }
}

function receive() {
  let have = 0;
  while (have < 4) {
    const n = fs.readSync(3, chunk, have, chunk.length - have, null);
    if (n === 0) exit(0);
    have += n;
  }
  const need = 4 + chunk.readUInt32LE(0);
  let message = chunk;
  if (need > chunk.length) {
    message = Buffer.allocUnsafeSlow(need);
    chunk.copy(message, 0, 0, have);
  }
  fill(message, have, need);
  return [String.fromCharCode(message[4]), message.toString('utf8', 5, need)];
}

function send(status, body) {
  if (body.length > longest) body = Buffer.from(body.slice(0, longest + 1)).subarray(0, longest + 1);
  const length = Buffer.byteLength(body);
  const message = Buffer.allocUnsafe(length + 5);
  message.writeUInt32LE(length + 1, 0);
  message.write(status, 4, 'latin1');
  if (typeof body === 'string') message.write(body, 5);
  else body.copy(message, 5);
  for (let done = 0; done < message.length;) done += fs.writeSync(3, message, done);
}

// An error as AWS Lambda reports it; `trace` without the frames of this file.
function describe(error, type) {
  try {
    if (error instanceof Error || Object.prototype.toString.call(error) === '[object Error]') {
      const stack = typeof error.stack === 'string' ? error.stack.split('\n') : [];
      const trace = stack.filter((line) => !line.includes(__filename));
      return { errorType: type ?? String(error.name ?? 'Error'), errorMessage: String(error.message), trace };
    }
    return { errorType: type ?? typeof error, errorMessage: typeof error === 'string' ? error : format(error), trace: [] };
  } catch {
    return { errorType: type ?? 'Error', errorMessage: '<no message: it could not be read>', trace: [] };
  }
}

function failure(errorType, errorMessage) {
  return { errorType, errorMessage, trace: [] };
}

class Context {
  constructor(fields, done) {
    const deadline = performance.now() + (fields.timeout_ms ?? 0);
    this.callbackWaitsForEmptyEventLoop = true;
    this.functionName = fields.function_name ?? '';
    this.functionVersion = fields.function_version ?? '$LATEST';
    this.invokedFunctionArn = fields.invoked_function_arn ?? '';
    this.memoryLimitInMB = String(fields.memory_limit_in_mb ?? 0);
    this.awsRequestId = fields.request_id ?? '';
    this.logGroupName = fields.log_group_name ?? '';
    this.logStreamName = fields.log_stream_name ?? '';
    this.identity = undefined;
    this.clientContext = fields.client_context;
    this.getRemainingTimeInMillis = () => Math.max(0, Math.floor(deadline - performance.now()));
    this.succeed = (result) => done(null, result);
    this.fail = (error) => done(error ?? 'handled');
    this.done = done;
  }
}

async function load(command) {
  Object.assign(process.env, command.env);
  // Layers of AWS Lambda lie here.
  const layers = [`/opt/nodejs/node${process.versions.node.split('.')[0]}/node_modules`, '/opt/nodejs/node_modules'].filter((dir) => fs.existsSync(dir));
  if (layers.length > 0) {
    process.env.NODE_PATH = [process.env.NODE_PATH, ...layers].filter(Boolean).join(':');
    require('module').Module._initPaths();
  }
  process.chdir(command.dir);
  const file = path.join(command.dir, command.file);
  process.argv[1] = file;
  const namespace = await import(pathToFileURL(file).href);
  const find = (from) => command.function.split('.').reduce((object, name) => object?.[name], from);
  const found = find(namespace) ?? find(namespace.default);
  if (typeof found !== 'function') {
    throw Object.assign(new Error(`${command.file} exports no function ${command.function}`), { name: 'Runtime.HandlerNotFound', stack: '' });
  }
  return found;
}

// Handlers that write their answer to a stream, as AWS Lambda has them.
const STREAMS = Symbol('streams');
const PREAMBLE = 'application/vnd.awslambda.http-integration-response';
globalThis.awslambda = {
  streamifyResponse: (handler) => Object.assign(handler, { [STREAMS]: true }),
  HttpResponseStream: {
    // Status and headers come first, as JSON, and 8 zero bytes after them.
    from(stream, metadata) {
      stream.setContentType(PREAMBLE);
      stream.write(JSON.stringify(metadata ?? {}));
      stream.write(Buffer.alloc(8));
      return stream;
    },
  },
};

// Calls such a handler. What it writes goes out in parts, or together where nobody takes parts.
function invokeStreaming(command, finish) {
  const together = [];
  let open = true;
  const end = (status, answer) => {
    open = false;
    finish(status, answer);
  };
  const put = (piece) => {
    if (!open) return;
    if (!command.context.stream) return together.push(piece);
    for (let at = 0; at < piece.length; at += 1 << 20) send('P', piece.subarray(at, at + (1 << 20)));
  };
  const stream = new Writable({
    write(piece, encoding, done) {
      put(piece);
      done();
    },
    final(done) {
      done();
      written = true;
      check();
    },
  });
  let settled = false;
  let written = false;
  const check = () => {
    if (settled && written) end('K', Buffer.concat(together));
  };
  const settle = () => {
    settled = true;
    if (stream.writableEnded) check();
    else stream.end();
  };
  stream.setContentType = () => {};
  stream.on('error', (error) => end('E', describe(error)));
  current.whenIdle = settle;
  const context = new Context(command.context, () => {});
  Promise.resolve(handler(command.event, stream, context)).then(settle, (error) => end('E', describe(error)));
}

// Calls the handler. Its answer is what its promise settles to, or what its callback gets, or a value that it returns at once.
function invoke(command, finish) {
  if (handler[STREAMS]) return invokeStreaming(command, finish);
  let called = false;
  const settle = (error, result) => {
    if (error !== undefined && error !== null) return finish('E', describe(error));
    try {
      finish('K', JSON.stringify(result === undefined ? null : result) ?? 'null');
    } catch (error) {
      finish('E', failure('Runtime.MarshalError', `Unable to marshal response: ${describe(error).errorMessage}`));
    }
  };
  const callback = (error, result) => {
    if (called) return;
    called = true;
    const wait = context.callbackWaitsForEmptyEventLoop && (error === undefined || error === null);
    if (wait) current.whenIdle = () => settle(error, result);
    else settle(error, result);
  };
  const context = new Context(command.context, callback);
  const returned = handler(command.event, context, callback);
  if (typeof returned?.then === 'function') {
    returned.then((result) => settle(null, result), (error) => settle(error ?? 'undefined'));
  } else if (returned !== undefined && handler.length < 3) {
    settle(null, returned);
  }
}

function writeOut(stream, then) {
  if (stream.writableLength > 0 && !stream.destroyed) stream.write('', () => then());
  else then();
}

function work() {
  const [kind, text] = receive();
  renew();
  let open = true;
  const finish = (status, answer) => {
    if (!open) return;
    open = false;
    writeOut(process.stdout, () => writeOut(process.stderr, () => {
      current = undefined;
      send(status, typeof answer === 'string' || Buffer.isBuffer(answer) ? answer : JSON.stringify(answer));
      // What the last turn of the event loop left over (rejections, closing sockets) comes before the next wait.
      setImmediate(work);
    }));
  };
  current = { finish, whenIdle: () => finish('K', 'null') };
  if (stray !== undefined) {
    const error = stray;
    stray = undefined;
    return finish('E', error);
  }
  const fail = (error) => finish('E', describe(error));
  try {
    const command = JSON.parse(text);
    if (kind === 'I') {
      current.whenIdle = () => finish('E', failure('Runtime.ImportError', `${command.file} awaits at its top level what never comes`));
      load(command).then((found) => {
        handler = found;
        setImmediate(() => {
          collect();
          finish('R', '');
        });
      }, fail);
    } else {
      process.env._X_AMZN_TRACE_ID = command.context.trace ?? '';
      invoke(command, finish);
    }
  } catch (error) {
    fail(error);
  }
}

function broken(error) {
  if (current !== undefined) current.finish('E', error);
  else stray ??= error;
}

process.on('uncaughtException', (error) => broken(describe(error)));
process.on('unhandledRejection', (reason) => {
  const { errorMessage, trace, errorType } = describe(reason);
  broken({ errorType: 'Runtime.UnhandledPromiseRejection', errorMessage: `${errorType}: ${errorMessage}`, trace });
});
// Nothing is left to wait for, and no answer came.
process.on('beforeExit', () => current?.whenIdle());
process.on('exit', (code) => {
  if (current !== undefined) send('E', JSON.stringify(failure('Runtime.ExitError', `the function exited with status ${code}`)));
});

let collect = () => {};

// What functions need is loaded and run once here, in the seed.
async function warm() {
  for (const name of ['assert', 'async_hooks', 'child_process', 'dns', 'events', 'fs/promises', 'http', 'https', 'net', 'os', 'querystring', 'readline',
    'stream', 'stream/promises', 'string_decoder', 'timers/promises', 'tls', 'worker_threads', 'zlib']) require(name);
  const touched = [fetch, Headers, Request, Response, FormData, ReadableStream, TextDecoder, URLSearchParams, AbortController, structuredClone, Blob];
  await import('data:text/javascript,export default ' + touched.length);
  // The pool's threads exist from now on.
  await require('util').promisify(require('crypto').pbkdf2)('a', 'b', 1, 16, 'sha256');
  handler = async (event, context) => ({ ...event, left: context.getRemainingTimeInMillis() });
  for (let i = 0; i < 3; i++) {
    await new Promise((done) => {
      current = {};
      invoke({ event: JSON.parse('{"a": [1, 2.5, null, true, "\\u00e9"]}'), context: { timeout_ms: 1000 } }, done);
    });
  }
  handler = current = undefined;
  const v8 = require('v8');
  v8.setFlagsFromString('--expose-gc');
  collect = require('vm').runInNewContext('gc');
  v8.setFlagsFromString('--no-expose-gc');
  collect();
}

// The program as others see it: child processes get the hook of fork.js and nothing else.
warm().then(() => setImmediate(work));
