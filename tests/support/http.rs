//! A small HTTP/1.1 client with keep-alive, for tests that want to see every byte and every failure of the connection.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        let text = || String::from_utf8_lossy(&self.body).into_owned();
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}: {}", self.status, text()))
    }
}

/// A client with at most one connection, which it makes when it needs it.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    limit: Duration,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// `limit` bounds each read and write.
    pub fn new(address: SocketAddr, limit: Duration) -> Client {
        Client { address, limit, stream: None }
    }

    pub fn get(&mut self, path: &str) -> std::io::Result<Response> {
        self.request("GET", path, &[], b"")
    }

    /// Invokes a function over the AWS Lambda API.
    pub fn invoke(&mut self, function: &str, event: &[u8]) -> std::io::Result<Response> {
        self.request("POST", &format!("/2015-03-31/functions/{function}/invocations"), &[], event)
    }

    /// One request. An error closes the connection; nothing is sent twice.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let result = self.exchange(method, path, headers, body);
        let closing = |r: &Response| r.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        if !result.as_ref().is_ok_and(|r| !closing(r)) {
            self.stream = None;
        }
        result
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect_timeout(&self.address, self.limit)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(self.limit))?;
                stream.set_write_timeout(Some(self.limit))?;
                none.insert(BufReader::new(stream))
            }
        };
        let mut message = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            message += &format!("{name}: {value}\r\n");
        }
        message += &format!("content-length: {}\r\n\r\n", body.len());
        let mut message = message.into_bytes();
        message.extend_from_slice(body);
        stream.get_mut().write_all(&message)?;
        read_response(stream)
    }
}

/// Reads a response off a connection.
pub fn read_response(stream: &mut impl BufRead) -> std::io::Result<Response> {
    let bad = |what: String| Error::new(ErrorKind::InvalidData, what);
    let first = line(stream)?;
    let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| bad(format!("no status line: {first}")))?;
    let mut headers = Vec::new();
    loop {
        let next = line(stream)?;
        if next.is_empty() {
            break;
        }
        let (name, value) = next.split_once(':').ok_or_else(|| bad(format!("no header: {next}")))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = line(stream)?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| bad(format!("no chunk size: {size}")))?;
            let mut chunk = vec![0; size];
            stream.read_exact(&mut chunk)?;
            response.body.extend(chunk);
            line(stream)?;
            if size == 0 {
                return Ok(response);
            }
        }
    }
    let length = response.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    response.body = vec![0; length];
    stream.read_exact(&mut response.body)?;
    Ok(response)
}

fn line(stream: &mut impl BufRead) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    stream.take(64 << 10).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|e| Error::new(ErrorKind::InvalidData, e))
}
