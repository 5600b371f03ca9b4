//! A custom runtime for AWS Lambda of the plainest kind: the standard library, one connection, HTTP by hand.
//! `_HANDLER` says what it does with its events.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

struct Api {
    stream: BufReader<TcpStream>,
    host: String,
}

struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> String {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone()).unwrap_or_default()
    }
}

impl Api {
    fn connect() -> Api {
        let host = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
        Api { stream: BufReader::new(TcpStream::connect(&host).unwrap()), host }
    }

    fn call(&mut self, method: &str, path: &str, extra: &str, body: &[u8]) -> Answer {
        let head = format!("{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nHost: {}\r\n{extra}", self.host);
        let head = if extra.contains("chunked") { head + "\r\n" } else { format!("{head}Content-Length: {}\r\n\r\n", body.len()) };
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Answer {
        let mut line = || {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let status = line().split(' ').nth(1).unwrap().parse().unwrap();
        let mut fields = Vec::new();
        loop {
            let line = line();
            match line.split_once(": ") {
                Some((name, value)) => fields.push((name.to_owned(), value.to_owned())),
                None => break,
            }
        }
        let mut answer = Answer { status, fields, body: Vec::new() };
        answer.body = vec![0; answer.field("content-length").parse().unwrap()];
        self.stream.read_exact(&mut answer.body).unwrap();
        answer
    }
}

fn random() -> String {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn main() {
    let mode = std::env::var("_HANDLER").unwrap();
    println!("starting {mode}");
    let mut api = Api::connect();
    if mode == "init" {
        let body = br#"{"errorType": "Init.Bad", "errorMessage": "cannot start"}"#;
        api.call("POST", "init/error", "Lambda-Runtime-Function-Error-Type: Init.Bad\r\n", body);
        std::process::exit(1);
    }
    // Work of the seed that goes on in its children.
    let (to, from) = std::sync::mpsc::channel::<u64>();
    let (back, results) = std::sync::mpsc::channel();
    std::thread::spawn(move || from.iter().for_each(|n| back.send(n + 1).unwrap()));
    let mut count = 0;
    loop {
        let next = api.call("GET", "invocation/next", "", b"");
        assert_eq!(next.status, 200);
        count += 1;
        let id = next.field("Lambda-Runtime-Aws-Request-Id");
        let event = String::from_utf8(next.body.clone()).unwrap();
        let (response, error) = (format!("invocation/{id}/response"), format!("invocation/{id}/error"));
        match mode.as_str() {
            "echo" => {
                to.send(count).unwrap();
                let left: u128 = next.field("Lambda-Runtime-Deadline-Ms").parse().unwrap();
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
                let body = format!(
                    r#"{{"event": {event}, "count": {count}, "thread": {}, "left": {}, "arn": "{}", "trace": "{}", "random": "{}"}}"#,
                    results.recv().unwrap(), left - now, next.field("Lambda-Runtime-Invoked-Function-Arn"),
                    next.field("Lambda-Runtime-Trace-Id"), random(),
                );
                assert_eq!(api.call("POST", "invocation/wrong/response", "", b"1").status, 400);
                assert_eq!(api.call("GET", "invocation/other", "", b"").status, 404);
                assert_eq!(api.call("POST", &response, "Content-Type: application/json\r\n", body.as_bytes()).status, 202);
            }
            "size" => {
                let mut body = vec![b'x'; event.trim().parse().unwrap()];
                body[0] = b'"';
                *body.last_mut().unwrap() = b'"';
                let status = api.call("POST", &response, "", &body).status;
                if status == 413 {
                    api = Api::connect();
                    api.call("POST", &error, "", br#"{"errorType": "TooLarge", "errorMessage": "413"}"#);
                }
            }
            "error" => {
                api.call("POST", &error, "Lambda-Runtime-Function-Error-Type: Own.Kind\r\n", br#"{"errorType": "Own.Kind", "errorMessage": "failed", "stackTrace": ["one", "two"]}"#);
            }
            "stream" => {
                let extra = "Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n";
                let chunks = b"5\r\n[1, 2\r\n1\r\n]\r\n0\r\n\r\n";
                assert_eq!(api.call("POST", &response, extra, chunks).status, 202);
            }
            "exit" => std::process::exit(7),
            "silent" => std::thread::sleep(std::time::Duration::from_secs(1000)),
            other => panic!("no handler {other}"),
        }
    }
}
