//! The AWS Lambda Runtime API, served inside the sandbox by the kernel itself on 127.0.0.1:9001, so that any program that speaks it is a
//! runtime: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.
//!
//! No process and no thread stands behind it: a connection is a socket without a file, an open request is data. While the program waits for its
//! next invocation the sandbox is quiescent, and a seed can be taken; a child's event is the answer to the inherited request.
//!
//! Commands come over the work channel: `I` (say when the program asks for its first invocation) and `N` (an invocation: see
//! [`invocation`]); answers are those of the language runtimes (`R`, `K`, `E`). What is wrong with a request concerns its sender alone.

use crate::kernel::Kernel;
use crate::net::addr::{Address, Family};
use crate::net::{State, Style};
use crate::num::{u64_of, us};
use http::{Fault, Parser, Request, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

mod http;
#[cfg(test)]
mod tests;

/// Where the service listens, as in AWS's own emulator.
pub const PORT: u16 = 9001;
/// Longest response, bytes: AWS Lambda's limit for a synchronous invocation.
pub const MAX_PAYLOAD: usize = 6 << 20;
/// Most connections at once; further ones are reset.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of unfinished requests that all connections together may hold.
const MAX_HELD: usize = 4 * MAX_PAYLOAD;
/// Bytes moved between a socket and its connection at a time.
const PIECE: usize = 64 << 10;

const VERSION: &str = "/2018-06-01/runtime/";

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Wait {
    /// Requests.
    #[default]
    No,
    /// The next invocation, since this many requests.
    Next(u64),
    /// To go on after its snapshot (SnapStart's restore/next).
    Restore,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Connection {
    parser: Parser,
    /// Bytes to send, and how many of them are sent.
    out: Vec<u8>,
    sent: usize,
    wait: Wait,
    /// Ends once `out` is sent.
    last: bool,
    /// Has sent all that it ever will. What still comes is thrown away until the client ends the connection: one that has not finished its
    /// request could not read the answer to it otherwise.
    ended: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Invocation {
    id: String,
    /// Header lines for the program.
    head: Vec<u8>,
    event: Vec<u8>,
}

/// How far the program has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// It has not asked for an invocation yet.
    #[default]
    Init,
    /// It has, and the host has been told where it wanted to know.
    Ready,
    /// It said that it cannot start.
    Failed,
}

/// The service's state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Service {
    /// Its listening socket, while it serves.
    listener: Option<u64>,
    /// By their sockets.
    connections: BTreeMap<u64, Connection>,
    /// Something has happened to one of its sockets.
    due: bool,
    phase: Phase,
    /// The host wants to know when the program is ready.
    asked: bool,
    /// An invocation that nobody has taken yet.
    pending: Option<Invocation>,
    /// The invocation at work.
    current: Option<String>,
    /// Counts requests for an invocation, so that the oldest is served first.
    turns: u64,
}

impl Service {
    /// Whether a program waits for its next invocation.
    pub fn awaits_work(&self) -> bool {
        self.pending.is_none() && self.connections.values().any(|c| c.wait != Wait::No)
    }

    /// A socket changed: if it is one of the service's, [`Kernel::lambda_pump`] has something to do.
    pub(crate) fn socket_changed(&mut self, id: u64) {
        self.due |= self.listener == Some(id) || self.connections.contains_key(&id);
    }
}

/// The command for an invocation: its id, header lines for the program (each ended by CR LF), and the event.
pub fn invocation(id: &str, head: &str, event: &[u8]) -> Vec<u8> {
    let mut message = vec![b'N'];
    for part in [id, head] {
        message.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        message.extend(part.as_bytes());
    }
    message.extend(event);
    message
}

fn parse_invocation(message: &[u8]) -> Option<Invocation> {
    let part = |from: &[u8]| -> Option<(Vec<u8>, Vec<u8>)> {
        let (len, rest) = from.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(us(u64::from(u32::from_le_bytes(*len))))?;
        Some((part.to_vec(), rest.to_vec()))
    };
    let (id, rest) = part(message)?;
    let (head, event) = part(&rest)?;
    Some(Invocation { id: String::from_utf8(id).ok()?, head, event })
}

/// An answer with a JSON body.
fn answer(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An error as Lambda words it. Both texts are ours: nothing in them needs an escape.
fn refusal(status: &str, kind: &str, message: &str) -> Vec<u8> {
    answer(status, &format!("{{\"errorMessage\":\"{message}\",\"errorType\":\"{kind}\"}}"))
}

fn accepted() -> Vec<u8> {
    answer("202 Accepted", "{\"status\":\"OK\"}\n")
}

fn fault(f: Fault) -> Vec<u8> {
    let reply = match f {
        Fault::Malformed => refusal("400 Bad Request", "BadRequest", "The request is malformed"),
        Fault::TooLarge => refusal(
            "413 Content Too Large",
            "RequestEntityTooLarge",
            "Exceeded maximum allowed payload size (6291456 bytes).",
        ),
        Fault::HeadTooLarge => {
            refusal("431 Request Header Fields Too Large", "BadRequest", "The request's header is too long")
        }
        Fault::Coding => {
            refusal("501 Not Implemented", "BadRequest", "Of transfer codings only chunked is known")
        }
        Fault::Version => refusal("505 HTTP Version Not Supported", "BadRequest", "HTTP/1.1 is spoken here"),
    };
    closing(reply)
}

/// A reply after which the connection ends.
fn closing(mut reply: Vec<u8>) -> Vec<u8> {
    if let Some(end) = reply.windows(2).position(|w| w == b"\r\n") {
        let at = end.saturating_add(2);
        reply.splice(at..at, *b"Connection: close\r\n");
    }
    reply
}

/// A JSON string.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The error that a program reported, for the host: its body, or what its header says where there is none.
fn reported(request: &Request, fallback: &str) -> Vec<u8> {
    let mut message = vec![b'E'];
    if request.body.is_empty() {
        let kind = request.field("lambda-runtime-function-error-type").unwrap_or("Unhandled");
        let text = format!("{{\"errorType\":{},\"errorMessage\":{}}}", quote(kind), quote(fallback));
        message.extend(text.as_bytes());
    } else {
        message.extend(&request.body);
    }
    message
}

impl Kernel {
    /// Starts serving; to be called before the program starts, whose sandbox has no other sockets then. The errors of socket(2), bind(2), listen(2).
    pub fn lambda_serve(&mut self) -> Result<(), crate::errno::Errno> {
        let id = self.socket_create(0, Family::Inet, Style::Stream)?;
        let given = crate::net::addr::Given::Address(Address::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT));
        self.socket_bind(0, id, given)?;
        self.socket_listen(0, id, 128)?;
        self.lambda.listener = Some(id);
        Ok(())
    }

    /// Does what there is to do: takes commands, reads and answers requests.
    pub fn lambda_pump(&mut self) {
        // What a pass sends can make room for another; each pass moves bytes, of which there are finitely many.
        while std::mem::take(&mut self.lambda.due) {
            let Some(listener) = self.lambda.listener else { return };
            while let Ok(id) = self.socket_accept(listener) {
                self.lambda_admit(id);
            }
            self.lambda_commands();
            let ids: Vec<u64> = self.lambda.connections.keys().copied().collect();
            for id in ids {
                let Some(mut c) = self.lambda.connections.remove(&id) else { continue };
                if self.lambda_step(id, &mut c) {
                    self.lambda.connections.insert(id, c);
                } else {
                    self.socket_drop(id);
                }
            }
            self.lambda_dispatch();
        }
    }

    /// A new connection. Where there are too many, one that has ended on our side makes room, or the new one is reset.
    fn lambda_admit(&mut self, id: u64) {
        if self.lambda.connections.len() >= MAX_CONNECTIONS {
            let ended = self.lambda.connections.iter().find(|(_, c)| c.ended).map(|(id, _)| *id);
            let Some(old) = ended else { return self.socket_drop(id) };
            self.lambda.connections.remove(&old);
            self.socket_drop(old);
        }
        self.lambda.connections.insert(id, Connection::default());
    }

    /// The work channel has news.
    pub(crate) fn lambda_poke(&mut self) {
        if self.lambda.listener.is_some() {
            self.lambda.due = true;
            self.lambda_pump();
        }
    }

    fn lambda_commands(&mut self) {
        loop {
            let inbox = &mut self.work.inbox;
            let len: Vec<u8> = inbox.iter().take(4).copied().collect();
            let Some(len) = len.first_chunk::<4>() else { return };
            let end = us(u64::from(u32::from_le_bytes(*len))).saturating_add(4);
            if inbox.len() < end {
                return;
            }
            let message: Vec<u8> = inbox.drain(..end).skip(4).collect();
            match message.split_first() {
                Some((b'I', _)) => self.lambda.asked = true,
                Some((b'N', rest)) => self.lambda.pending = parse_invocation(rest),
                _ => {}
            }
            self.lambda_report();
        }
    }

    /// Tells the host that the program is ready, once, where it asked and is.
    fn lambda_report(&mut self) {
        if self.lambda.asked && self.lambda.phase == Phase::Ready {
            self.lambda.asked = false;
            self.work.outbox.push_back(vec![b'R']);
        }
    }

    /// Gives the invocation to whoever has waited longest, and lets go on who waits to be restored.
    fn lambda_dispatch(&mut self) {
        if self.lambda.pending.is_none() {
            return;
        }
        for c in self.lambda.connections.values_mut().filter(|c| c.wait == Wait::Restore) {
            c.wait = Wait::No;
            c.out.extend(answer("200 OK", ""));
            self.lambda.due = true;
        }
        let turn = |c: &Connection| if let Wait::Next(turn) = c.wait { Some(turn) } else { None };
        let waiting = self.lambda.connections.values_mut().filter(|c| turn(c).is_some());
        let Some(c) = waiting.min_by_key(|c| turn(c)) else { return };
        let Some(invocation) = self.lambda.pending.take() else { return };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            invocation.event.len()
        );
        c.wait = Wait::No;
        c.out.extend(head.into_bytes());
        c.out.extend(invocation.head);
        c.out.extend(b"\r\n");
        c.out.extend(invocation.event);
        self.lambda.current = Some(invocation.id);
        self.lambda.due = true;
    }

    /// Goes on with a connection; whether it lives.
    fn lambda_step(&mut self, id: u64, c: &mut Connection) -> bool {
        loop {
            if !self.lambda_send(id, c) {
                return false;
            }
            if !c.out.is_empty() {
                return true;
            }
            if c.last && !c.ended {
                c.ended = self.socket_shutdown(id, 2).is_ok();
                c.parser = Parser::default();
                if !c.ended {
                    return false;
                }
            }
            if c.wait == Wait::No && !c.ended {
                match c.parser.step(MAX_PAYLOAD) {
                    Ok(Step::Request(request)) => {
                        self.lambda_route(c, &request);
                        c.last |= request.last && c.wait == Wait::No;
                        continue;
                    }
                    Ok(Step::Continue) => {
                        c.out.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
                        continue;
                    }
                    Ok(Step::More) => {}
                    Err(f) => {
                        c.out.extend(fault(f));
                        c.last = true;
                        continue;
                    }
                }
            }
            let Ok(s) = self.objects.net.get(id) else { return false };
            let gone = s.state != State::Connected || s.shut_read;
            if c.wait != Wait::No {
                // Further requests stay in the socket. One whose sender is gone is no request.
                return !gone;
            }
            if c.ended {
                let n = s.queue.front().map_or(0, |m| m.rest().len());
                if n == 0 {
                    return !gone;
                }
                self.socket_take(id, n);
                continue;
            }
            let held: usize = self.lambda.connections.values().map(|c| c.parser.len()).sum();
            let rest = s.queue.front().map(|m| m.rest()).unwrap_or_default();
            let bytes = rest.get(..PIECE.min(rest.len())).unwrap_or_default().to_vec();
            if bytes.is_empty() {
                return !gone;
            }
            if held.saturating_add(c.parser.len()).saturating_add(bytes.len()) > MAX_HELD {
                c.out.extend(closing(refusal(
                    "503 Service Unavailable",
                    "TooManyRequests",
                    "Too much is under way",
                )));
                c.last = true;
                continue;
            }
            self.socket_take(id, bytes.len());
            c.parser.push(&bytes);
        }
    }

    /// Sends what there is room for; false when nobody will read it.
    fn lambda_send(&mut self, id: u64, c: &mut Connection) -> bool {
        while let Some(rest) = c.out.get(c.sent..).filter(|r| !r.is_empty()) {
            let part = rest.get(..PIECE.min(rest.len())).unwrap_or_default().to_vec();
            match self.socket_put(id, part) {
                Ok(0) => return true,
                Ok(n) => c.sent = c.sent.saturating_add(n),
                Err(_) => return false,
            }
        }
        (c.out, c.sent) = (Vec::new(), 0);
        true
    }

    /// Answers a request, or makes its connection wait.
    fn lambda_route(&mut self, c: &mut Connection, request: &Request) {
        let path = request.path.as_str();
        let Some(call) = path.strip_prefix(VERSION) else {
            let ping = request.method == "GET" && path == "/2018-06-01/ping";
            let known = if ping { answer("200 OK", "\"pong\"") } else { unknown(request) };
            c.out.extend(known);
            return;
        };
        let reply = match (request.method.as_str(), call) {
            ("GET", "invocation/next") => {
                self.lambda.turns = self.lambda.turns.saturating_add(1);
                c.wait = Wait::Next(self.lambda.turns);
                self.lambda.phase = Phase::Ready;
                self.lambda_report();
                return;
            }
            ("GET", "restore/next") => {
                c.wait = Wait::Restore;
                self.lambda.phase = Phase::Ready;
                self.lambda_report();
                return;
            }
            ("POST", "init/error") if self.lambda.phase == Phase::Init => {
                (self.lambda.phase, self.lambda.asked) = (Phase::Failed, false);
                self.work.outbox.push_back(reported(request, "the program failed to start"));
                accepted()
            }
            ("POST", "restore/error") if self.lambda.pending.is_some() => {
                self.lambda.pending = None;
                self.work
                    .outbox
                    .push_back(reported(request, "the program failed to go on after its snapshot"));
                accepted()
            }
            ("POST", "init/error" | "restore/error") => {
                refusal("403 Forbidden", "InvalidStateTransition", "This is not the time for it")
            }
            ("POST", call) => match call.strip_prefix("invocation/").and_then(|c| c.split_once('/')) {
                Some((id, what @ ("response" | "error"))) => {
                    if self.lambda.current.as_deref() == Some(id) {
                        self.lambda.current = None;
                        self.work.outbox.push_back(result(request, what == "error"));
                        accepted()
                    } else {
                        refusal("400 Bad Request", "InvalidRequestID", "Invalid request ID")
                    }
                }
                _ => unknown(request),
            },
            _ => unknown(request),
        };
        c.out.extend(reply);
    }
}

/// 404; to HEAD without the body that it announces.
fn unknown(request: &Request) -> Vec<u8> {
    let mut reply = refusal("404 Not Found", "NotFound", "404 page not found");
    if request.method == "HEAD"
        && let Some(end) = reply.windows(4).position(|w| w == b"\r\n\r\n")
    {
        reply.truncate(end.saturating_add(4));
    }
    reply
}

/// A response or an error of the function, for the host. A streamed response may still end in an error, which its trailer tells.
fn result(request: &Request, is_error: bool) -> Vec<u8> {
    if is_error {
        return reported(request, "the function failed");
    }
    if let Some(kind) = request.field("lambda-runtime-function-error-type") {
        let text = "the function failed after the beginning of its response";
        return format!("E{{\"errorType\":{},\"errorMessage\":{}}}", quote(kind), quote(text)).into_bytes();
    }
    let mut message = Vec::with_capacity(request.body.len().saturating_add(1));
    message.push(b'K');
    message.extend(&request.body);
    message
}

impl Kernel {
    /// A summary for tests: (connections, bytes that they hold).
    pub fn lambda_load(&self) -> (usize, u64) {
        let held =
            self.lambda.connections.values().map(|c| u64_of(c.parser.len().saturating_add(c.out.len())));
        (self.lambda.connections.len(), held.sum())
    }
}
