//! Closed-loop load on a gateway: every client sends its next request when it has the answer of the one before, and checks that the answer
//! is its own.

use super::http::{Client, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The function that the load calls: it gives back what it got, and says what instance it is.
pub const PYTHON: &str = "import os\nuses = 0\ndef handler(event, context):\n    global uses\n    uses += 1\n    \
     return {'got': event, 'request': context.aws_request_id, 'uses': uses, 'random': os.urandom(8).hex()}\n";

/// The same for Node.js.
pub const NODE: &str = "import { randomBytes } from 'node:crypto';\nlet uses = 0;\n\
    export const handler = async (event, context) => ({ got: event, request: context.awsRequestId, uses: ++uses,\n\
      random: randomBytes(8).toString('hex') });\n";

/// A request without an HTTP answer.
#[derive(Clone, Debug)]
pub struct Lost {
    pub began: Instant,
    pub ended: Instant,
    pub why: String,
}

/// A right answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it came, since the start of the load.
    pub at: Duration,
    pub took: Duration,
    pub function: String,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests with the right answer.
    pub answered: u64,
    /// Errors with a type, by status and type.
    pub refused: BTreeMap<String, u64>,
    /// Their messages, numbers left out.
    pub reasons: BTreeMap<String, u64>,
    pub lost: Vec<Lost>,
    /// Anything that is neither: must be empty.
    pub wrong: Vec<String>,
    /// The right ones.
    pub answers: Vec<Answer>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.answered += other.answered;
        for (kind, n) in other.refused {
            *self.refused.entry(kind).or_default() += n;
        }
        for (reason, n) in other.reasons {
            *self.reasons.entry(reason).or_default() += n;
        }
        self.lost.extend(other.lost);
        self.wrong.extend(other.wrong);
        self.answers.extend(other.answers);
    }

    /// Answers per second between two times since the start.
    pub fn rate(&self, from: Duration, to: Duration) -> f64 {
        let n = self.answers.iter().filter(|a| (from..to).contains(&a.at)).count();
        n as f64 / (to - from).as_secs_f64()
    }

    /// A quantile of the latencies, 0 to 1; of one function, or of all.
    pub fn quantile(&self, q: f64, function: Option<&str>) -> Duration {
        let of = self.answers.iter().filter(|a| function.is_none_or(|f| a.function == f));
        let mut all: Vec<Duration> = of.map(|a| a.took).collect();
        all.sort_unstable();
        let last = all.len().saturating_sub(1);
        all.get(((last as f64) * q).round() as usize).copied().unwrap_or_default()
    }

    /// One line for the log.
    pub fn summary(&self) -> String {
        format!(
            "{} answers, p50 {:.2?}, p99 {:.2?}, refused {:?}, lost {}, wrong {}",
            self.answered,
            self.quantile(0.5, None),
            self.quantile(0.99, None),
            self.refused,
            self.lost.len(),
            self.wrong.len()
        )
    }
}

/// Load that goes on until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    address: Arc<Mutex<SocketAddr>>,
    clients: Vec<std::thread::JoinHandle<Tally>>,
}

impl Load {
    /// `kept` says that instances may serve more than once.
    pub fn start(address: SocketAddr, functions: &[String], clients: usize, kept: bool) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let address = Arc::new(Mutex::new(address));
        let start = Instant::now();
        let clients = (0..clients)
            .map(|client| {
                let (stop, address, functions) = (stop.clone(), address.clone(), functions.to_vec());
                std::thread::spawn(move || one_client(client, &stop, &address, &functions, kept, start))
            })
            .collect();
        Load { stop, address, clients }
    }

    /// The gateway is elsewhere now.
    pub fn moved(&self, address: SocketAddr) {
        *self.address.lock().unwrap() = address;
    }

    /// Ends the load, and what it saw.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Release);
        let mut tally = Tally::default();
        for client in self.clients {
            tally.add(client.join().expect("a client panicked"));
        }
        tally
    }
}

fn one_client(
    client: usize,
    stop: &AtomicBool,
    address: &Mutex<SocketAddr>,
    functions: &[String],
    kept: bool,
    start: Instant,
) -> Tally {
    let mut tally = Tally::default();
    let mut to = *address.lock().unwrap();
    let mut http = Client::new(to, Duration::from_secs(60));
    let mut n = client;
    while !stop.load(Ordering::Acquire) {
        let now = *address.lock().unwrap();
        if now != to {
            (to, http) = (now, Client::new(now, Duration::from_secs(60)));
        }
        n += 1;
        let function = &functions[n % functions.len()];
        let event = json!({"client": client, "n": n, "function": function, "pad": "x".repeat(n % 7 * 300)});
        let began = Instant::now();
        match http.invoke(function, event.to_string().as_bytes()) {
            Ok(response) => match judge(&response, &event, kept) {
                Verdict::Right => {
                    tally.answered += 1;
                    let (at, took) = (start.elapsed(), began.elapsed());
                    tally.answers.push(Answer { at, took, function: function.clone() });
                }
                Verdict::Refused(kind, reason) => {
                    *tally.refused.entry(kind).or_default() += 1;
                    *tally.reasons.entry(reason).or_default() += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Verdict::Wrong(why) => tally.wrong.push(why),
            },
            Err(error) => {
                tally.lost.push(Lost { began, ended: Instant::now(), why: error.to_string() });
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
    tally
}

enum Verdict {
    Right,
    /// Its status and type, and its message.
    Refused(String, String),
    Wrong(String),
}

fn judge(response: &Response, event: &Value, kept: bool) -> Verdict {
    let text = String::from_utf8_lossy(&response.body);
    let id = response.header("x-amzn-requestid").unwrap_or_default();
    let Ok(body) = serde_json::from_slice::<Value>(&response.body) else {
        return Verdict::Wrong(format!("{}: {text}", response.status));
    };
    if response.status == 200 && response.header("x-amz-function-error").is_none() {
        let own = body["got"] == *event && body["request"] == id && (kept || body["uses"] == 1);
        return if own { Verdict::Right } else { Verdict::Wrong(format!("{event} got {text} ({id})")) };
    }
    let kind = response.header("x-amzn-errortype").or(body["errorType"].as_str());
    match kind {
        Some(kind) => {
            let message = body["Message"].as_str().or(body["errorMessage"].as_str()).unwrap_or_default();
            Verdict::Refused(format!("{} {kind}", response.status), plain(message))
        }
        None => Verdict::Wrong(format!("{}: {text}", response.status)),
    }
}

/// A message without what differs from one time to the next.
fn plain(message: &str) -> String {
    let mut plain = String::new();
    for c in message.chars().take(300) {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if c != '#' || !plain.ends_with('#') {
            plain.push(c);
        }
    }
    plain
}
