//! A fork is a new individual: nothing that should be random is ever repeated, and what a seed had open works on in each child as the
//! inheritance table says.

mod support;

use serde_json::{Value, json};
use std::collections::HashMap;
use support::tree::grow;

/// Everything that a Python program calls random, asked for in a process that had used each of them before the fork.
const RANDOM: &str = r#"
import hashlib, os, random, secrets, ssl, tempfile, uuid, threading, time, ctypes
libc = ctypes.CDLL(None)
libcrypto = ssl.RAND_bytes(8)
used = [os.urandom(8), uuid.uuid4(), uuid.uuid1(), random.random(), secrets.token_hex(8), tempfile.mktemp(), random.SystemRandom().random()]
own = random.Random()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

def raw():
    buffer = ctypes.create_string_buffer(16)
    assert libc.syscall(318, buffer, 16, 0) == 16
    return buffer.raw.hex()

def handler(event, context):
    name = tempfile.NamedTemporaryFile(delete=False).name
    with open("/dev/urandom", "rb") as f:
        device = f.read(16).hex()
    with open("/proc/sys/kernel/random/uuid") as f:
        kernel = f.read().strip()
    return {
        "urandom": os.urandom(16).hex(), "uuid4": str(uuid.uuid4()), "uuid1": str(uuid.uuid1()), "random": random.random(),
        "bits": random.getrandbits(128), "system": random.SystemRandom().getrandbits(128), "token": secrets.token_hex(16),
        "temporary": name, "directory": tempfile.mkdtemp(), "tls": ssl.RAND_bytes(16).hex(), "getrandom": raw(), "device": device,
        "node": uuid.uuid1().node, "own node": uuid.getnode() + 1, "kernel": kernel, "shuffle": random.sample(range(10**15), 2), "request": context.aws_request_id,
    }
"#;

/// The same for Node.js: in the main thread, in a thread that the seed started and in a new one, in a context that vm made before and in one
/// that it makes now; and what is cached for later by crypto.
const RANDOM_NODE: &str = r#"
const crypto = require('crypto'), vm = require('vm'), fs = require('fs'), os = require('os'), path = require('path'), tls = require('tls');
const { Worker, isMainThread, parentPort } = require('worker_threads');
const { promisify } = require('util');
const random = Math.random;
const hello = () => new Promise((ok) => {
  // The random bytes of a TLS client's first message.
  const { Duplex } = require('stream');
  const wire = new Duplex({ read() {}, write(data, _, done) { ok(data.subarray(11, 43).toString('hex')); done(); } });
  tls.connect({ socket: wire }).on('error', () => {});
});
const all = async () => ({
  math: random(), mathNow: Math.random(), uuid: crypto.randomUUID(), webUuid: crypto.webcrypto.randomUUID(), int: crypto.randomInt(2 ** 48 - 1),
  intLater: await promisify(crypto.randomInt)(2 ** 48 - 1), bytes: crypto.randomBytes(16).toString('hex'),
  bytesLater: (await promisify(crypto.randomBytes)(16)).toString('hex'), fill: crypto.randomFillSync(Buffer.alloc(16)).toString('hex'),
  web: Buffer.from(crypto.webcrypto.getRandomValues(new Uint8Array(16))).toString('hex'),
  hello: await hello(), temporary: fs.mkdtempSync(path.join(os.tmpdir(), 'x-')), context: vm.runInContext('Math.random()', context),
  contextNow: vm.runInNewContext('Math.random()'), scriptNow: new vm.Script('Math.random()').runInNewContext(), form: boundary(),
});
// What takes longer.
const keys = async () => ({
  key: crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' }).toString('hex'),
  keyLater: (await promisify(crypto.generateKeyPair)('ed25519')).publicKey.export({ type: 'spki', format: 'der' }).toString('hex'),
  prime: crypto.generatePrimeSync(128, { bigint: true }).toString(), sign: crypto.sign('sha256', 'x', ec).toString('hex'),
});
const boundary = () => new Response(new FormData()).headers.get('content-type');
const ec = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const context = vm.createContext({});
if (isMainThread) {
  const ask = (worker) => new Promise((ok, no) => { worker.once('message', ok); worker.once('error', no); worker.postMessage(0); });
  const early = new Worker(__filename);
  early.unref();
  const used = Promise.all([all(), keys(), ask(early), promisify(crypto.pbkdf2)('a', 'b', 1, 16, 'sha256')]);
  exports.handler = async (threads) => {
    await used;
    const out = await all();
    if (!threads) return out;
    Object.assign(out, await keys());
    for (const [name, worker] of [['early', early], ['late', new Worker(__filename, { execArgv: [] })]])
      for (const [kind, value] of Object.entries(await ask(worker))) out[name + ' ' + kind] = value;
    return out;
  };
} else {
  parentPort.on('message', async () => parentPort.postMessage({ ...await all(), ...await keys() }));
  all().then(keys);
}
"#;

#[test]
fn a_thousand_forks_repeat_no_random_value() {
    no_repeats("randomness", RANDOM, "{}", (1000, 24), 17);
}

#[test]
fn a_thousand_forks_of_node_repeat_no_random_value() {
    no_repeats("randomness.js", RANDOM_NODE, "false", (1000, 24), 16);
}

#[test]
fn threads_of_node_repeat_no_random_value() {
    no_repeats("randomness.js", RANDOM_NODE, "true", (40, 4), 60);
}

fn no_repeats(file: &str, source: &str, event: &str, (forks, width): (usize, usize), kinds: usize) {
    let mut g = grow(file, source);
    let mut seen: HashMap<String, HashMap<String, usize>> = HashMap::new();
    let mut repeats = Vec::new();
    g.ask_many(
        forks,
        width,
        |_| event.into(),
        |i, value| {
            for (kind, value) in value.as_object().unwrap() {
                if let Some(other) = seen.entry(kind.clone()).or_default().insert(value.to_string(), i) {
                    repeats.push(format!("{kind}: {value} in {other} and {i}"));
                }
            }
        },
    );
    assert_eq!(seen.len(), kinds);
    assert!(seen.values().all(|values| values.len() + repeats.len() >= forks));
    assert!(
        repeats.is_empty(),
        "{} repeats, such as {}",
        repeats.len(),
        repeats[..repeats.len().min(10)].join("\n")
    );
}

#[test]
fn spares_and_children_of_every_level_repeat_no_random_value() {
    let mut g = grow("randomness", RANDOM);
    g.tree.train(b"{}").unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut check = |value: Value| {
        for (kind, value) in value.as_object().unwrap() {
            assert!(seen.insert(format!("{kind} {value}")), "{kind} {value} is repeated");
        }
    };
    g.tree.fill_spares(12, false).unwrap();
    (0..12).for_each(|_| check(g.ask("{}")));
    (0..12).for_each(|_| check(g.ask("{}")));
    let seeds: Vec<i32> = g.tree.seeds().iter().map(|s| s.process.pid).collect();
    for pid in seeds.iter().skip(1).rev() {
        support::left::kill_dead(*pid);
        (0..3).for_each(|_| check(g.ask("{}")));
    }
}

#[test]
fn each_child_reads_on_from_the_seeds_file_offset() {
    let source = "import os\nfd = os.open('/etc/services', os.O_RDONLY)\nfirst = os.read(fd, 100)\nf = open('/etc/services')\nf.readline()\n\
                  def handler(e, c):\n return [os.read(fd, 50).decode(), os.read(fd, 50).decode(), f.readline(), os.lseek(fd, 0, 1)]\n";
    let mut g = grow("offsets", source);
    let text = std::fs::read_to_string("/etc/services").unwrap();
    let line = text.lines().nth(1).unwrap_or_default();
    for _ in 0..4 {
        assert_eq!(g.ask("{}"), json!([&text[100..150], &text[150..200], format!("{line}\n"), 200]));
    }
}

#[test]
fn files_that_the_seed_wrote_are_each_childs_own() {
    let source = "import os\nos.makedirs('/tmp/coppice-state', exist_ok=True)\nopen('/tmp/coppice-state/f', 'w').write('seed')\nlog = open('/tmp/coppice-state/log', 'a')\nlog.write('0'); log.flush()\n\
                  def handler(e, c):\n before = open('/tmp/coppice-state/f').read()\n open('/tmp/coppice-state/f', 'w').write('child %d' % e)\n log.write(str(e)); log.flush()\n\
                  \x20os.mkdir('/tmp/coppice-state/%d' % e)\n return [before, open('/tmp/coppice-state/f').read(), open('/tmp/coppice-state/log').read(), sorted(os.listdir('/tmp/coppice-state'))]\n";
    let mut g = grow("files", source);
    for i in 1..4 {
        assert_eq!(
            g.ask(&i.to_string()),
            json!(["seed", format!("child {i}"), format!("0{i}"), [i.to_string(), "f", "log"]])
        );
    }
    assert!(!std::path::Path::new("/tmp/coppice-state/f").exists(), "the host sees what a guest wrote");
}

#[test]
fn an_epoll_set_of_the_seed_works_in_each_child() {
    let source = r#"
import os, select
r, w = os.pipe()
poll = select.epoll()
poll.register(r, select.EPOLLIN)
edge = select.epoll()
edge.register(r, select.EPOLLIN | select.EPOLLET)
e = os.eventfd(3) if hasattr(os, "eventfd") else None
os.write(w, b"from the seed")

def handler(event, context):
    ready = [fd == r for fd, _ in poll.poll(1)]
    edges = [len(edge.poll(0.2)), len(edge.poll(0))]
    data = os.read(r, 100).decode()
    empty = poll.poll(0)
    os.write(w, str(event).encode())
    again = len(poll.poll(1))
    return [ready, edges, data, empty, again, os.read(r, 100).decode(), os.eventfd_read(e) if e is not None else 3]
"#;
    let mut g = grow("epoll", source);
    let answers: Vec<Value> = (0..3).map(|i| g.ask(&i.to_string())).collect();
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, json!([[true], [1, 0], "from the seed", [], 1, i.to_string(), 3]));
    }
}

#[test]
fn threads_that_slept_in_the_seed_go_on_in_each_child() {
    let source = r#"
import os, queue, select, threading, time
started = time.monotonic()
log = []
work, done = queue.Queue(), queue.Queue()
r, w = os.pipe()
pr, pw = os.pipe()
poll = select.epoll()
poll.register(pr, select.EPOLLIN)
condition = threading.Condition()

def sleeper():
    time.sleep(0.05)
    log.append("slept")
    while True:
        time.sleep(0.02)
        log.append("tick")
def worker():
    while True:
        done.put(work.get() + 1)
def reader():
    while True:
        done.put(os.read(r, 100).decode())
def poller():
    while True:
        poll.poll()
        done.put("epoll " + os.read(pr, 100).decode())
def waiter():
    with condition:
        condition.wait()
    done.put("notified")
for f in (sleeper, worker, reader, poller, waiter):
    threading.Thread(target=f, daemon=True).start()

def handler(event, context):
    work.put(event)
    a = done.get(timeout=5)
    os.write(w, b"pipe")
    b = done.get(timeout=5)
    os.write(pw, b"poll")
    c = done.get(timeout=5)
    with condition:
        condition.notify()
    d = done.get(timeout=5)
    n = len(log)
    time.sleep(0.15)
    fresh = threading.Thread(target=lambda: done.put("new"))
    fresh.start()
    return [a, b, c, d, done.get(timeout=5), len(log) - n >= 2]
"#;
    let mut g = grow("sleepers", source);
    for i in 0..4 {
        assert_eq!(g.ask(&i.to_string()), json!([i + 1, "pipe", "epoll poll", "notified", "new", true]));
    }
}

#[test]
fn time_moves_on_between_seed_and_child() {
    let source = "import time\nloaded = (time.time(), time.monotonic())\ndef handler(e, c):\n a = (time.time(), time.monotonic())\n time.sleep(0.05)\n\
                  \x20b = (time.time(), time.monotonic())\n return [loaded, a, b, time.clock_gettime(time.CLOCK_BOOTTIME)]\n";
    let mut g = grow("clocks", source);
    let mut last = 0.0;
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let wall =
            || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let before = wall();
        let answer = g.ask("{}");
        let at = |i: usize, j: usize| answer[i][j].as_f64().unwrap();
        assert!(
            at(1, 0) >= before - 0.001 && at(2, 0) <= wall() + 0.001,
            "the wall clock is the host's: {answer}"
        );
        assert!(
            at(1, 1) > at(0, 1) + 0.1 && at(1, 1) > last,
            "monotonic time has moved on since the seed: {answer}"
        );
        assert!(at(2, 1) - at(1, 1) >= 0.05 && at(2, 0) - at(1, 0) >= 0.049, "{answer}");
        last = at(2, 1);
    }
}

#[test]
fn an_interval_timer_of_the_seed_is_no_burst_in_the_child() {
    let source = "import signal, time\nhits = []\nsignal.signal(signal.SIGALRM, lambda *a: hits.append(1))\nsignal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)\n\
                  def handler(e, c):\n del hits[:]\n t = time.monotonic()\n while time.monotonic() < t + 0.3: time.sleep(0.01)\n return len(hits)\n";
    let mut g = grow("timer", source);
    std::thread::sleep(std::time::Duration::from_millis(700));
    for _ in 0..2 {
        let hits = g.ask("{}").as_u64().unwrap();
        assert!((2..=8).contains(&hits), "{hits} ticks in 0.3 s of a 50 ms timer");
    }
}
