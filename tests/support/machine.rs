//! What the machine gives while a long test runs: its speed drifts, and a test that says nothing of it would call that its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Forks a process of 16 MiB twenty times, lets each child write to 256 pages and end, and prints the processor time of one, ms. Ends with
/// its parent.
const FORKS: &str = "import os, resource, sys, time
def used():
    all = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(r.ru_utime + r.ru_stime for r in all)
parent, memory = os.getppid(), bytearray(b'x') * (16 << 20)
while os.getppid() == parent:
    before = used()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            for page in range(256):
                memory[page * 8 * 4096] = 1
            os._exit(0)
        os.waitpid(child, 0)
    print((used() - before) * 1000 / 20, flush=True)
    time.sleep(float(sys.argv[1]))
";

/// Native forks, counted beside the load: nothing of ours is in them. Their cost is processor time, so that waiting for a processor is not
/// in it.
pub struct Control {
    child: Child,
    start: Instant,
    reader: JoinHandle<Vec<(Duration, f64)>>,
}

impl Control {
    /// Starts it: twenty forks, then a pause.
    pub fn start(pause: Duration) -> Control {
        let mut command = Command::new("python3");
        command
            .args(["-c", FORKS, &pause.as_secs_f64().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("the control needs python3");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let start = Instant::now();
        let read = move || {
            let costs = lines.map_while(Result::ok).filter_map(|line| line.parse().ok());
            costs.map(|ms: f64| (start.elapsed(), ms)).collect()
        };
        Control { child, start, reader: std::thread::spawn(read) }
    }

    /// Ends it: mean cost of one native fork, ms of processor time, in each of `parts` equal parts of the time.
    pub fn stop(mut self, parts: u32) -> Vec<f64> {
        let part = self.start.elapsed() / parts;
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let costs = self.reader.join().unwrap();
        let mean = |n: u32| {
            let of = |(at, _): &&(Duration, f64)| (part * n..part * (n + 1)).contains(at);
            let (count, sum) = costs.iter().filter(of).fold((0, 0.0), |(c, s), (_, ms)| (c + 1, s + ms));
            sum / f64::from(count)
        };
        (0..parts).map(mean).collect()
    }
}
