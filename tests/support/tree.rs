//! Seed trees for tests of the library: a handler written to a file, a tree grown for it, requests through it.

use seedtree::runtime::{Function, Reply};
use seedtree::tree::{Config, Pending, Served, Tree, TreeError};
use serde_json::Value;

/// A handler's file (in a directory of its own), its tree, and its function.
pub struct Grown {
    pub tree: Tree,
    pub function: Function,
    pub dir: tempfile::TempDir,
}

/// Writes a module and parses `MODULE:handler`. A name without an extension is Python's.
pub fn write(name: &str, source: &str) -> (tempfile::TempDir, Function) {
    let dir = super::fresh_dir(name);
    let file = dir.path().join(if name.contains('.') { name.to_owned() } else { format!("{name}.py") });
    std::fs::write(&file, source).unwrap();
    let function = Function::parse(&format!("{}:handler", file.display())).unwrap();
    (dir, function)
}

/// What the functions print goes to a file in their directory.
pub fn config(dir: &std::path::Path, prefill: bool) -> Config {
    Config {
        exe: env!("CARGO_BIN_EXE_coppice").into(),
        rootfs: "/".into(),
        log: std::fs::File::create(dir.join("log")).unwrap().into(),
        env: Vec::new(),
        prefill,
    }
}

/// Grows all three levels.
pub fn grow(name: &str, source: &str) -> Grown {
    let (dir, function) = write(name, source);
    let mut tree = Tree::plant(config(dir.path(), true)).unwrap();
    tree.grow_language(function.runtime).unwrap();
    if let Err(error) = tree.grow_function(&function, None) {
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        match error {
            TreeError::Import(e) => panic!("{} {log}", String::from_utf8_lossy(&e)),
            e => panic!("{e:?} {log}"),
        }
    }
    Grown { tree, function, dir }
}

/// The handler's result.
pub fn result(served: &Served) -> Value {
    match &served.reply {
        Reply::Result(bytes) => serde_json::from_slice(bytes).unwrap(),
        Reply::Error(bytes) => panic!("the handler failed: {}", String::from_utf8_lossy(bytes)),
        other => panic!("{other:?}"),
    }
}

impl Grown {
    /// One request.
    pub fn ask(&mut self, event: &str) -> Value {
        let served = self.tree.invoke(&self.function, event.as_bytes()).unwrap_or_else(|e| panic!("{e:?}"));
        result(&served)
    }

    /// `count` requests, `width` in flight at a time; `each` sees every result with its number.
    pub fn ask_many(
        &mut self,
        count: usize,
        width: usize,
        event: impl FnMut(usize) -> String,
        each: impl FnMut(usize, Value),
    ) {
        assert_eq!(self.ask_while_seeds_die(count, width, event, each), 0, "requests were given up");
    }

    /// The same; how many requests were in the hands of a seed that died, and were not run again.
    pub fn ask_while_seeds_die(
        &mut self,
        count: usize,
        width: usize,
        mut event: impl FnMut(usize) -> String,
        mut each: impl FnMut(usize, Value),
    ) -> usize {
        let mut given_up = 0;
        let mut flying: std::collections::VecDeque<(usize, Pending)> = std::collections::VecDeque::new();
        let mut next = 0;
        while next < count || !flying.is_empty() {
            while next < count && flying.len() < width {
                match self.tree.start(&self.function, event(next).as_bytes(), false) {
                    Ok(pending) => flying.push_back((next, pending)),
                    Err(TreeError::MayHaveRun { .. }) => given_up += 1,
                    Err(error) => panic!("request {next}: {error:?}"),
                }
                next += 1;
            }
            if let Some((number, pending)) = flying.pop_front() {
                let served = self.tree.finish(pending).unwrap_or_else(|e| panic!("request {number}: {e:?}"));
                each(number, result(&served));
            }
        }
        given_up
    }

    /// The function seed's process.
    pub fn seed_pid(&self) -> i32 {
        self.tree.seeds().last().unwrap().process.pid
    }
}
