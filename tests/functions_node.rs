//! Functions of Node.js through `coppice invoke` and the tree's API: every form of a handler, every way to fail, and forks that go on with
//! all of the seed's threads.

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::tree::grow;
use support::{LIMIT, Outcome, coppice, finish, fresh_dir, installed};

/// Runs `coppice invoke` on a function in a directory.
fn invoke_in(dir: &Path, spec: &str, args: &[&str]) -> Outcome {
    let mut command = coppice();
    command.arg("invoke").arg(dir.join(spec)).args(args);
    let outcome = finish(&mut command, b"", LIMIT);
    assert!(!outcome.timed_out, "hangs: {spec} {args:?} {}", outcome.stderr);
    assert!(!outcome.by_signal && !outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    outcome
}

fn invoke(file: &str, source: &str, args: &[&str]) -> Outcome {
    let dir = fresh_dir("node");
    std::fs::write(dir.path().join(file), source).unwrap();
    invoke_in(dir.path(), &format!("{file}:handler"), args)
}

fn answer(outcome: &Outcome) -> Value {
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    serde_json::from_slice(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.text()))
}

#[test]
fn every_form_of_a_handler_answers() {
    let forms = [
        ("app.js", "exports.handler = async (event) => event;"),
        ("app.js", "module.exports = { handler: (event) => Promise.resolve(event) };"),
        ("app.js", "exports.handler = (event) => event;"),
        (
            "app.js",
            "exports.handler = (event, context, callback) => setTimeout(() => callback(null, event), 5);",
        ),
        ("app.js", "exports.handler = (event, context, callback) => { callback(null, event); };"),
        (
            "app.js",
            "exports.handler = (event, context, done) => { context.callbackWaitsForEmptyEventLoop = false; setInterval(() => {}, 1000); done(null, event); };",
        ),
        ("app.js", "exports.handler = (event, context) => { setImmediate(() => context.succeed(event)); };"),
        ("app.cjs", "exports.handler = async (event) => event;"),
        ("app.mjs", "export const handler = async (event) => event;"),
        ("app.mjs", "export default { handler: async (event) => event };"),
        (
            "app.mjs",
            "await new Promise((r) => setTimeout(r, 10));\nconst { readFile } = await import('node:fs/promises');\nexport async function handler(event) { await readFile('/etc/passwd'); return event; }",
        ),
        ("a.b.js", "exports.handler = async (event) => event;"),
        ("fs.js", "exports.handler = async (event) => event;"),
    ];
    let event = json!({"größe": "日本", "list": [1, 2.5, null, true]});
    for (file, source) in forms {
        assert_eq!(
            answer(&invoke(file, source, &["--event", &event.to_string()])),
            event,
            "{file}: {source}"
        );
    }
}

#[test]
fn a_package_says_what_its_files_are_and_modules_beside_the_handler_load() {
    let dir = fresh_dir("node-package");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("package.json", r#"{"type": "module"}"#);
    write(
        "app.js",
        "import { a } from './a.js';\nimport b from './b.cjs';\nimport c from 'c';\nexport const in_ = { deep: { handler: () => [a, b, c, import.meta.url.endsWith('app.js')] } };",
    );
    write("a.js", "export const a = 1;");
    write("b.cjs", "module.exports = 2;");
    write("node_modules/c/index.js", "module.exports = 3;");
    write("view.txt", "found from the function's directory");
    write(
        "read.mjs",
        "import fs from 'node:fs';\nexport const handler = () => fs.readFileSync('view.txt', 'utf8');",
    );
    assert_eq!(answer(&invoke_in(dir.path(), "app.js:in_.deep.handler", &[])), json!([1, 2, 3, true]));
    assert_eq!(
        answer(&invoke_in(dir.path(), "read.mjs:handler", &[])),
        json!("found from the function's directory")
    );
}

#[test]
fn the_context_and_the_environment_are_the_functions_own() {
    let source = "exports.handler = async (e, c) => [c.functionName, c.functionVersion, c.memoryLimitInMB, c.awsRequestId.length > 0, c.callbackWaitsForEmptyEventLoop,\n\
        c.getRemainingTimeInMillis() > 0 && c.getRemainingTimeInMillis() <= 5000, process.env.COLOUR, process.argv.length];";
    let outcome = invoke("app.js", source, &["--env", "COLOUR=green", "--timeout", "5", "--memory", "256m"]);
    assert_eq!(answer(&outcome), json!(["app", "$LATEST", "256", true, true, true, "green", 2]));
}

#[test]
fn what_is_printed_goes_to_stderr_whole_and_the_answer_to_stdout() {
    let source = "console.log('at import');\nexports.handler = async () => { console.log('x'.repeat(1 << 20)); console.error('end'); return 1; };";
    let outcome = invoke("app.js", source, &[]);
    assert_eq!(outcome.text(), "1\n");
    assert!(outcome.stderr.starts_with("at import\n"), "{}", &outcome.stderr[..20.min(outcome.stderr.len())]);
    // All of both streams; which of them goes on first in a full pipe is not said.
    assert_eq!(outcome.stderr.len(), "at import\n".len() + (1 << 20) + "\nend\n".len());
    assert!(outcome.stderr.contains("end\n"));
}

#[test]
fn an_answer_that_never_comes_is_null_and_one_without_json_an_error() {
    for source in [
        "exports.handler = () => new Promise(() => {});",
        "exports.handler = (e, c, callback) => {};",
        "exports.handler = () => {};",
    ] {
        assert_eq!(answer(&invoke("app.js", source, &[])), Value::Null, "{source}");
    }
    assert_eq!(answer(&invoke("app.js", "exports.handler = async () => undefined;", &[])), Value::Null);
    let outcome = invoke("app.js", "exports.handler = async () => 10n;", &[]);
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.contains("Runtime.MarshalError: Unable to marshal"), "{}", outcome.stderr);
}

#[test]
fn each_failure_is_told_with_the_functions_own_trace() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "app.js",
            "function inner() { throw new TypeError('no good'); }\nexports.handler = async () => inner();",
            &["at inner (", "app.js:1:", "TypeError: no good"],
        ),
        ("app.js", "exports.handler = () => { throw 'text'; };", &["failed: string: text"]),
        (
            "app.js",
            "exports.handler = (e, c, callback) => callback(new RangeError('far'));",
            &["RangeError: far"],
        ),
        ("app.js", "exports.handler = (e, c, callback) => callback('plain');", &["failed: string: plain"]),
        ("app.js", "exports.handler = (e, c) => c.fail(new Error('legacy'));", &["failed: Error: legacy"]),
        (
            "app.js",
            "exports.handler = async () => { Promise.reject(new Error('lost')); await new Promise((r) => setTimeout(r, 50)); };",
            &["Runtime.UnhandledPromiseRejection: Error: lost", "at exports.handler"],
        ),
        (
            "app.js",
            "exports.handler = () => new Promise(() => setTimeout(() => { throw new Error('late'); }, 5));",
            &["failed: Error: late", "app.js:1:"],
        ),
        (
            "app.js",
            "exports.handler = async () => process.exit(3);",
            &["Runtime.ExitError: the function exited with status 3"],
        ),
        ("app.js", "exports.handler = async () => process.abort();", &["signal 6"]),
        ("app.js", "exports.handler = async () => process.kill(process.pid, 'SIGKILL');", &["signal 9"]),
        ("app.js", "throw new Error('at import');", &["failed: Error: at import", "app.js:1:"]),
        (
            "app.js",
            "exports.handler = async () => 1;\nPromise.reject(new Error('at import'));",
            &["Runtime.UnhandledPromiseRejection: Error: at import"],
        ),
        ("app.js", "exports.handler = ;", &["SyntaxError"]),
        ("app.js", "require('./missing');", &["Cannot find module './missing'"]),
        ("app.mjs", "import x from 'missing';", &["Cannot find package 'missing'"]),
        ("app.mjs", "await new Promise(() => {});", &["Runtime.ImportError"]),
        ("app.js", "exports.other = 1;", &["Runtime.HandlerNotFound: app.js exports no function handler"]),
        (
            "app.js",
            "exports.handler = async () => { class E extends Error { get message() { throw 1; } } throw new E(); };",
            &["no message"],
        ),
    ];
    for (file, source, texts) in cases {
        let outcome = invoke(file, source, &[]);
        assert_eq!(outcome.status, 1, "{source}: {} {}", outcome.text(), outcome.stderr);
        for text in *texts {
            assert!(outcome.stderr.contains(text), "{source}: no {text:?} in {}", outcome.stderr);
        }
        assert!(outcome.stdout.is_empty(), "{}", outcome.text());
        // What Node.js itself prints when it aborts has its own frames.
        assert!(
            texts.contains(&"signal 6") || !outcome.stderr.contains("/run/coppice"),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn an_answer_is_refused_for_its_length_however_long_it_is() {
    for size in [(6 << 20) - 1, 10 << 20, 50 << 20] {
        let source = format!("exports.handler = async () => 'x'.repeat({size});");
        let outcome = invoke("app.js", &source, &[]);
        assert!(
            outcome.status != 0 && outcome.stderr.contains("longer than 6291456 bytes"),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn the_error_in_json_has_lambdas_shape() {
    let outcome =
        invoke("app.js", "exports.handler = async () => { throw new TypeError('x'); };", &["--json"]);
    let value: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    let error = &value["error"];
    assert_eq!((&error["errorType"], &error["errorMessage"]), (&json!("TypeError"), &json!("x")));
    assert_eq!(error["trace"][0], "TypeError: x");
}

#[test]
fn time_and_memory_limits_hold() {
    let outcome = invoke("app.js", "exports.handler = () => { for (;;); };", &["--timeout", "1"]);
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.contains("timed out after 1000 ms"), "{}", outcome.stderr);
    let outcome = invoke(
        "app.js",
        "exports.handler = async () => { for (const all = [];;) all.push(Buffer.alloc(8 << 20, 1)); };",
        &["--memory", "256m"],
    );
    assert_eq!(outcome.status, 1);
    let told = ["memory limit of 256 MiB", "allocation failed"].iter().any(|t| outcome.stderr.contains(t));
    assert!(told, "{}", outcome.stderr);
}

/// Every part of Node.js that works with other threads or processes, begun in the seed or in the child.
const BUSY: &str = r#"
const crypto = require('crypto'), zlib = require('zlib'), fs = require('fs'), http = require('http'), cp = require('child_process');
const { Worker } = require('worker_threads'), { promisify } = require('util');
const ticks = [];
setInterval(() => ticks.push(1), 20).unref();
const early = new Worker("require('worker_threads').parentPort.on('message', function (m) { this.postMessage(m * 2); })", { eval: true });
early.unref();
const server = http.createServer((q, r) => r.end('seed ' + q.url)).listen(8123, '127.0.0.1');
let kept = new Array(1000).fill(0).map((_, i) => ({ i }));
const message = (w) => new Promise((ok, no) => { w.once('message', ok); w.once('error', no); });

exports.handler = async (event) => {
  const out = {};
  out.pbkdf2 = (await promisify(crypto.pbkdf2)('a', 'b', 1000, 16, 'sha256')).toString('hex');
  out.zlib = (await promisify(zlib.gunzip)(await promisify(zlib.gzip)('a'.repeat(100000)))).length;
  await fs.promises.writeFile('/tmp/coppice-busy', 'data' + event);
  out.fs = await fs.promises.readFile('/tmp/coppice-busy', 'utf8');
  const later = message(early);
  early.postMessage(event);
  out.early = await later;
  out.worker = await message(new Worker("require('worker_threads').parentPort.postMessage(42)", { eval: true }));
  out.exec = (await promisify(cp.execFile)('/bin/echo', ['x'])).stdout;
  out.fork = await message(cp.fork(__dirname + '/child.js'));
  out.seed = await (await fetch('http://127.0.0.1:8123/a')).text();
  const own = http.createServer((q, r) => r.end('own ' + q.url)).listen(0, '127.0.0.1');
  await new Promise((r) => own.on('listening', r));
  out.own = await (await fetch(`http://127.0.0.1:${own.address().port}/b`)).text();
  own.closeAllConnections();
  own.close();
  let garbage = [];
  for (let i = 0; i < 50; i++) { garbage.push(new Array(20000).fill({ i })); if (garbage.length > 20) garbage.shift(); }
  out.kept = kept.every((k, i) => k.i === i);
  const n = ticks.length;
  await new Promise((r) => setTimeout(r, 150));
  out.ticks = ticks.length - n >= 2 && ticks.length - n <= 8;
  return out;
};
"#;

#[test]
fn children_go_on_with_every_thread_of_the_seed() {
    let dir = fresh_dir("node-busy");
    std::fs::write(dir.path().join("busy.js"), BUSY).unwrap();
    std::fs::write(dir.path().join("child.js"), "process.send('child');").unwrap();
    let spec = format!("{}:handler", dir.path().join("busy.js").display());
    let function = seedtree::runtime::Function::parse(&spec).unwrap();
    let mut tree = seedtree::tree::Tree::plant(support::tree::config(dir.path(), true)).unwrap();
    tree.grow_language(function.runtime).unwrap();
    tree.grow_function(&function, Some(b"1")).unwrap();
    tree.train(b"1").unwrap();
    tree.fill_spares(1, false).unwrap();
    for i in 2..6 {
        let served = tree.invoke(&function, i.to_string().as_bytes()).unwrap();
        assert_eq!(
            support::tree::result(&served),
            json!({
                "pbkdf2": "a9ad83929ae9ec538bc0f44e36ada66f", "zlib": 100000, "fs": format!("data{i}"), "early": i * 2, "worker": 42,
                "exec": "x\n", "fork": "child", "seed": "seed /a", "own": "own /b", "kept": true, "ticks": true,
            })
        );
        assert_eq!(served.spare, i == 2);
    }
}

#[test]
fn a_request_is_served_from_every_level_that_is_left() {
    let mut g = grow("levels.mjs", "export const handler = async (event) => event + 1;");
    let seeds: Vec<i32> = g.tree.seeds().iter().map(|s| s.process.pid).collect();
    assert_eq!(g.ask("1"), json!(2));
    for pid in seeds.iter().skip(1).rev() {
        support::left::kill_dead(*pid);
        assert_eq!(g.ask("2"), json!(3));
    }
}

#[test]
fn the_demo_runs_node() {
    let mut command = coppice();
    command.args(["demo", "--runtime", "node", "--runs", "5", "--no-peers", "--json"]);
    let outcome = finish(&mut command, b"", LIMIT);
    let line = outcome.text().lines().last().map(str::to_owned).unwrap_or_default();
    let value: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {}", outcome.stderr));
    assert_eq!((&value["ok"], &value["seeds"][1]["name"]), (&json!(5), &json!("node")));
}

#[test]
fn an_application_of_express_and_nunjucks_answers_an_http_event() {
    let packages = installed("express-nunjucks", |dir| {
        let mut npm = std::process::Command::new("npm");
        npm.args([
            "install",
            "--no-audit",
            "--no-fund",
            "express@4.21.2",
            "serverless-http@3.2.0",
            "nunjucks@3.2.4",
        ]);
        npm.current_dir(dir);
        vec![npm]
    });
    let dir = fresh_dir("node-express");
    std::os::unix::fs::symlink(packages.join("node_modules"), dir.path().join("node_modules")).unwrap();
    std::fs::create_dir(dir.path().join("views")).unwrap();
    let view = "<p>{{ name }}: {% for i in items %}{{ i | upper }} {% endfor %}</p>";
    std::fs::write(dir.path().join("views/hello.html"), view).unwrap();
    let source = "import express from 'express';\nimport serverless from 'serverless-http';\nimport nunjucks from 'nunjucks';\n\
        const app = express();\napp.use(express.json());\nnunjucks.configure('views', { express: app, autoescape: true });\n\
        app.post('/hello/:name', (q, r) => r.status(201).render('hello.html', { name: q.params.name, items: q.body.items }));\n\
        export const handler = serverless(app);\n";
    std::fs::write(dir.path().join("app.mjs"), source).unwrap();
    let event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/hello/w%26w", "rawQueryString": "",
        "headers": {"content-type": "application/json"}, "isBase64Encoded": false, "body": "{\"items\": [\"a\", \"b\"]}",
        "requestContext": {"http": {"method": "POST", "path": "/hello/w%26w", "sourceIp": "1.2.3.4"}},
    });
    let got = answer(&invoke_in(dir.path(), "app.mjs:handler", &["--event", &event.to_string()]));
    assert_eq!((&got["statusCode"], &got["body"]), (&json!(201), &json!("<p>w&amp;w: A B </p>")));
}
