//! Random programs of system calls, made of valid calls on live descriptors, mappings and processes, run on the host and in a sandbox:
//! what each call gives (result, error, bytes, the comparable fields of structures) must be the same. A program that differs is cut
//! down to the few calls that it takes, and printed.
//!
//! By itself the test runs the same hundred programs every time. A search, for so many seconds from a seed that it prints:
//! `COPPICE_DIFF_SECONDS=3600 cargo test --release -p coppice --test differential -- --nocapture`; `COPPICE_DIFF_SEED` repeats one.
//! Differences that are known, with the reason, are in `differential/known.txt`; a program is not compared beyond one.

#[path = "differential/generate.rs"]
mod generate;
mod support;

use generate::{Random, program};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::{finish, fresh_dir, run_command};

/// Programs that one start of the interpreter executes.
const BATCH: usize = 100;
/// Batches without `COPPICE_DIFF_SECONDS`.
const BATCHES: usize = 1;
/// Calls of a program, about.
const CALLS: usize = 40;
/// Time for a batch. A program that sleeps is ended by its own alarm after five seconds.
const LIMIT: Duration = Duration::from_secs(120);

type Program = Vec<String>;

struct Bench {
    dir: tempfile::TempDir,
    interpreter: PathBuf,
    known: Vec<Known>,
}

/// A known difference: a call, and what its lines have in them on the host and in the sandbox.
struct Known {
    call: String,
    /// A call that the program has made before it.
    after: Option<String>,
    host: String,
    guest: String,
}

fn known() -> Vec<Known> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/differential/known.txt");
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [call, host, guest, reason] if !reason.is_empty() => {
                let (call, after) = match call.split_once(" after ") {
                    Some((call, after)) => (call, Some(after.to_owned())),
                    None => (call, None),
                };
                Known { call: call.to_owned(), after, host: host.to_owned(), guest: guest.to_owned() }
            }
            _ => panic!("known.txt: `{line}` is not call, host, sandbox and reason with tabs between"),
        })
        .collect()
}

/// Where two runs of a program part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    host: String,
    guest: String,
}

impl Difference {
    /// What is the same however the program is cut down: the call, and what it gave on both sides.
    fn signature(&self) -> String {
        let result = |line: &str| {
            let mut words = line.split(' ').skip(1);
            let name = words.next().unwrap_or_default().to_owned();
            let rest: Vec<&str> = words.take(4).filter(|w| w.parse::<u32>().is_err() || *w == "0").collect();
            (name, rest.join(" "), line.split("errno ").nth(1).unwrap_or_default().to_owned())
        };
        let ((name, a, ae), (other, b, be)) = (result(&self.host), result(&self.guest));
        format!("{name} {a} {ae} | {other} {b} {be}")
    }
}

impl Bench {
    fn new() -> Bench {
        let dir = fresh_dir("differential");
        let interpreter = dir.path().join("interpreter");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/differential");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-g", "-Wall", "-static", "-o"]).arg(&interpreter);
        gcc.args(["interpreter.c", "arguments.c"].map(|f| folder.join(f)));
        let outcome = finish(&mut gcc, b"", LIMIT);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        Bench { dir, interpreter, known: known() }
    }

    fn write(&self, programs: &[Program]) -> PathBuf {
        let mut text = String::new();
        for p in programs {
            let _ = writeln!(text, "P\n{}", p.join("\n"));
        }
        let file = self.dir.path().join("programs");
        std::fs::write(&file, text).unwrap();
        file
    }

    /// What each program printed.
    fn run(&self, programs: &[Program], inside: bool) -> Vec<Vec<String>> {
        let file = self.write(programs);
        let file = file.to_str().unwrap();
        let mut command = if inside {
            run_command(&["--memory", "1g"], &self.interpreter, &[file])
        } else {
            let mut command = Command::new(&self.interpreter);
            command.arg(file);
            command
        };
        let outcome = finish(&mut command, b"", LIMIT);
        let trouble = outcome.timed_out || outcome.stderr.contains("panicked") || outcome.status != 0;
        let mut all: Vec<Vec<String>> = Vec::new();
        for line in outcome.text().lines() {
            match line.strip_prefix("P ") {
                Some(_) => all.push(Vec::new()),
                None => all.last_mut().expect("a program's number comes first").push(line.to_owned()),
            }
        }
        assert!(inside || all.len() == programs.len(), "the host itself fails: {outcome:?}");
        if all.len() < programs.len() || trouble {
            // The one after the last that printed anything is to blame.
            all.truncate(programs.len());
            let what = format!("0 the-sandbox status {} timed out {}", outcome.status, outcome.timed_out);
            let told = outcome.stderr.lines().take(3).collect::<Vec<_>>().join(" ");
            all.resize(all.len().min(programs.len() - 1) + 1, vec![format!("{what} {told}")]);
        }
        all
    }

    /// The difference of each program, if it has one; `lacks` collects calls that the kernel has not.
    fn compare(&self, programs: &[Program], lacks: &mut BTreeSet<String>) -> Vec<Option<Difference>> {
        let host = self.run(programs, false);
        let guest = self.run(programs, true);
        let of = |(i, h): (usize, &Vec<String>)| self.difference(&programs[i], h, guest.get(i)?, lacks);
        host.iter().enumerate().map(of).collect()
    }

    /// Where two outputs of a program part.
    fn difference(
        &self,
        program: &Program,
        host: &[String],
        guest: &[String],
        lacks: &mut BTreeSet<String>,
    ) -> Option<Difference> {
        // Its alarm ended it: nothing to compare.
        if host.last().is_some_and(|l| l == "end e") {
            return None;
        }
        let longest = host.len().max(guest.len());
        for i in 0..longest {
            let (h, g) = (host.get(i).map_or("", String::as_str), guest.get(i).map_or("", String::as_str));
            if h == g {
                continue;
            }
            let call = h.split(' ').nth(1).unwrap_or_default();
            let at = h.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            let before =
                |name: &String| program.iter().take(at).any(|line| line.split(' ').next() == Some(name));
            let same = |k: &Known| {
                k.call == call
                    && h.contains(&k.host)
                    && g.contains(&k.guest)
                    && k.after.as_ref().is_none_or(before)
            };
            if self.known.iter().any(same) {
                return None;
            }
            if g.contains("errno 38") && !h.contains("errno 38") {
                lacks.insert(g.split(' ').nth(1).unwrap_or_default().to_owned());
                return None;
            }
            return Some(Difference { host: h.to_owned(), guest: g.to_owned() });
        }
        None
    }
}

/// Cuts a program down while it differs in the same way.
fn shrink(bench: &Bench, mut program: Program, signature: &str) -> (Program, Option<Difference>) {
    let mut last = None;
    let mut chunk = (program.len() / 2).max(1);
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        let candidates: Vec<Program> = (0..program.len())
            .step_by(chunk)
            .map(|from| {
                let mut p = program.clone();
                p.drain(from..(from + chunk).min(program.len()));
                p
            })
            .filter(|p| !p.is_empty())
            .collect();
        let found = bench
            .compare(&candidates, &mut BTreeSet::new())
            .into_iter()
            .zip(candidates)
            .find_map(|(d, p)| d.filter(|d| d.signature() == signature).map(|d| (d, p)));
        match found {
            Some((d, p)) => {
                last = Some(d);
                program = p;
            }
            None if chunk == 1 => break,
            None => chunk /= 2,
        }
    }
    (program, last)
}

/// The calls as C would have them.
fn as_c(program: &[String]) -> String {
    let mut text = String::new();
    for line in program {
        let words: Vec<&str> = line.split(' ').collect();
        let Some(number) = words.get(2).and_then(|n| n.parse().ok()).filter(|_| !line.starts_with('!'))
        else {
            let _ = writeln!(text, "    {line}");
            continue;
        };
        let kinds = guest::syscall::entry(number).map_or(&[][..], |e| e.args);
        let arguments: Vec<String> =
            words[3..].iter().enumerate().map(|(i, w)| argument(w, kinds.get(i))).collect();
        let kept = words[1].strip_prefix('>').map_or(String::new(), |slot| format!("fd{slot} = "));
        let _ = writeln!(text, "    {kept}{}({});", words[0], arguments.join(", "));
    }
    text
}

fn argument(word: &str, kind: Option<&guest::syscall::Arg>) -> String {
    use guest::syscall::Arg;
    let rest = word.get(1..).unwrap_or_default();
    match (word.chars().next(), kind) {
        (Some('f'), _) => format!("fd{rest}"),
        (Some('"'), _) => format!("{word}\""),
        (Some('i'), Some(Arg::DirFd)) if rest == "-100" => "AT_FDCWD".into(),
        (Some('i'), Some(Arg::Octal)) => format!("0{:o}", rest.parse::<i64>().unwrap_or(0)),
        (Some('i'), Some(Arg::Hex)) => format!("{:#x}", rest.parse::<i64>().unwrap_or(0)),
        (Some('i'), Some(Arg::Flags(names))) => {
            let value = rest.parse::<i64>().unwrap_or(0) as u64;
            let mut named: Vec<&str> =
                names.iter().filter(|(_, v)| *v != 0 && value & v == *v).map(|(n, _)| *n).collect();
            let left = value & !names.iter().fold(0, |a, (_, v)| if value & v == *v { a | v } else { a });
            let left = format!("{left:#x}");
            if left != "0x0" || named.is_empty() {
                named.push(&left);
            }
            named.join("|")
        }
        (Some('i'), _) => rest.into(),
        _ => word.into(),
    }
}

#[test]
fn random_programs_do_the_same_on_the_host_and_inside() {
    let var = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let search = var("COPPICE_DIFF_SECONDS").map(Duration::from_secs);
    let seed = var("COPPICE_DIFF_SEED").unwrap_or_else(|| match search {
        Some(_) => std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_nanos() as u64),
        None => 1,
    });
    println!("COPPICE_DIFF_SEED={seed}");
    let bench = Bench::new();
    let mut random = Random(seed);
    let (mut lacks, mut found) = (BTreeSet::new(), BTreeMap::new());
    let (mut programs_run, mut calls, mut unstable) = (0, 0, 0);
    let started = Instant::now();
    while search.map_or(programs_run < BATCHES * BATCH, |most| started.elapsed() < most) {
        let programs: Vec<Program> = (0..BATCH).map(|_| program(&mut random, CALLS)).collect();
        programs_run += programs.len();
        calls += programs.iter().map(Vec::len).sum::<usize>();
        let differences = bench.compare(&programs, &mut lacks);
        for (difference, p) in differences.into_iter().zip(programs) {
            let Some(difference) = difference else { continue };
            let signature = difference.signature();
            if found.contains_key(&signature) {
                continue;
            }
            // A program that differs from itself says nothing.
            let again = bench.run(&[p.clone(), p.clone(), p.clone()], false);
            let same = bench.compare(std::slice::from_ref(&p), &mut BTreeSet::new());
            let same = same.into_iter().flatten().any(|d| d.signature() == signature);
            if !same || again[0] != again[1] || again[1] != again[2] {
                unstable += 1;
                continue;
            }
            let (small, last) = shrink(&bench, p, &signature);
            let d = last.unwrap_or(difference);
            let report = format!("host:  {}\nguest: {}\n{}", d.host, d.guest, as_c(&small));
            println!("---- {signature}\n{report}    raw:\n{}", small.join("\n"));
            found.insert(signature, report);
        }
    }
    println!("{programs_run} programs, {calls} calls, {unstable} unstable, lacking: {lacks:?}");
    assert!(calls > 0);
    let reports: Vec<String> = found.into_values().collect();
    assert!(reports.is_empty(), "{} differences (seed {seed}):\n{}", reports.len(), reports.join("\n"));
}
