//! HTTP/1.1 requests as a byte stream brings them (RFC 9112): a strict parser with a limit on everything. Knows nothing of sockets.

/// Longest request line with header fields, bytes.
const MAX_HEAD: usize = 16 << 10;
/// Most header fields.
const MAX_FIELDS: usize = 64;
/// Longest line of chunked framing (a chunk's size with its extensions), bytes.
const MAX_LINE: usize = 256;

/// A request that cannot be answered as it is; the connection ends after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// 400.
    Malformed,
    /// 413.
    TooLarge,
    /// 431.
    HeadTooLarge,
    /// 501: a transfer coding other than chunked.
    Coding,
    /// 505.
    Version,
}

/// A whole request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub method: String,
    /// The target's path, without its query.
    pub path: String,
    /// Fields and, after a chunked body, its trailer; names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// No further request comes after this one.
    pub last: bool,
}

impl Request {
    /// The first field of that name (lower case).
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// What the bytes so far come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More are needed.
    More,
    /// More are needed, and the client waits for "100 Continue" before it sends them.
    Continue,
    /// A request.
    Request(Request),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum State {
    #[default]
    Head,
    /// So many bytes of the body are missing.
    Sized(usize),
    ChunkSize,
    Chunk(usize),
    /// The line end after a chunk.
    ChunkEnd,
    Trailer,
}

/// Bytes of one connection on their way to become requests.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Parser {
    buf: Vec<u8>,
    /// Bytes of `buf` that are dealt with.
    at: usize,
    /// Up to here in `buf` no line ends: however few bytes come at a time, each is looked at once.
    scanned: usize,
    state: State,
    method: String,
    path: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    last: bool,
}

/// What may stand in a field's name and in a method (RFC 9110, section 5.6.2).
fn is_token(text: &[u8]) -> bool {
    let fine = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(fine)
}

/// Text of a line as far as it is printable ASCII, spaces and tabs included.
fn text(bytes: &[u8]) -> Result<String, Fault> {
    if bytes.iter().all(|b| *b == b'\t' || (0x20..0x7f).contains(b) || *b >= 0x80) {
        Ok(String::from_utf8_lossy(bytes).into_owned())
    } else {
        Err(Fault::Malformed)
    }
}

impl Parser {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Bytes that it holds.
    pub fn len(&self) -> usize {
        self.rest().len().saturating_add(self.body.len())
    }

    fn rest(&self) -> &[u8] {
        self.buf.get(self.at..).unwrap_or_default()
    }

    /// Where in the rest something begins.
    fn find(&mut self, what: &[u8]) -> Option<usize> {
        let from = self.scanned.max(self.at);
        let found = self.buf.get(from..)?.windows(what.len()).position(|w| w == what);
        if found.is_none() {
            self.scanned = self.buf.len().saturating_sub(what.len().saturating_sub(1)).max(from);
        }
        found.map(|p| p.saturating_add(from).saturating_sub(self.at))
    }

    /// Gives back the room of what is dealt with, when that is most of it.
    fn compact(&mut self) {
        if self.at > self.buf.len() / 2 {
            self.buf.drain(..self.at.min(self.buf.len()));
            self.scanned = self.scanned.saturating_sub(self.at);
            self.at = 0;
        }
    }

    /// Goes on with the bytes that are there. A body longer than `limit` is refused before it is kept.
    pub fn step(&mut self, limit: usize) -> Result<Step, Fault> {
        let step = self.go_on(limit);
        self.compact();
        step
    }

    fn go_on(&mut self, limit: usize) -> Result<Step, Fault> {
        loop {
            match self.state {
                State::Head => match self.head(limit)? {
                    Some(step) => return Ok(step),
                    None if self.state == State::Head => return Ok(Step::More),
                    None => {}
                },
                State::Sized(missing) => {
                    let left = self.take_body(missing);
                    if left > 0 {
                        self.state = State::Sized(left);
                        return Ok(Step::More);
                    }
                    return Ok(self.finish());
                }
                State::ChunkSize => {
                    let Some(line) = self.line(MAX_LINE, Fault::Malformed)? else { return Ok(Step::More) };
                    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii_end();
                    let digits = std::str::from_utf8(digits).map_err(|_| Fault::Malformed)?;
                    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                        return Err(Fault::Malformed);
                    }
                    let size = usize::from_str_radix(digits, 16).map_err(|_| Fault::TooLarge)?;
                    if self.body.len().saturating_add(size) > limit {
                        return Err(Fault::TooLarge);
                    }
                    self.state = if size == 0 { State::Trailer } else { State::Chunk(size) };
                }
                State::Chunk(missing) => {
                    let left = self.take_body(missing);
                    if left > 0 {
                        self.state = State::Chunk(left);
                        return Ok(Step::More);
                    }
                    self.state = State::ChunkEnd;
                }
                State::ChunkEnd => {
                    let Some(line) = self.line(2, Fault::Malformed)? else { return Ok(Step::More) };
                    if !line.is_empty() {
                        return Err(Fault::Malformed);
                    }
                    self.state = State::ChunkSize;
                }
                State::Trailer => {
                    let Some(line) = self.line(MAX_HEAD, Fault::HeadTooLarge)? else { return Ok(Step::More) };
                    if line.is_empty() {
                        return Ok(self.finish());
                    }
                    self.add_field(&line)?;
                }
            }
        }
    }

    /// Moves up to `missing` bytes to the body; how many are missing then.
    fn take_body(&mut self, missing: usize) -> usize {
        let part = self.buf.get(self.at..).unwrap_or_default();
        let n = missing.min(part.len());
        self.body.extend_from_slice(part.get(..n).unwrap_or_default());
        self.at = self.at.saturating_add(n);
        missing.saturating_sub(n)
    }

    /// Takes a line that ends in CR LF, without the two.
    fn line(&mut self, limit: usize, fault: Fault) -> Result<Option<Vec<u8>>, Fault> {
        match self.find(b"\r\n") {
            Some(end) if end <= limit => {
                let line = self.rest().get(..end).unwrap_or_default().to_vec();
                self.at = self.at.saturating_add(end).saturating_add(2);
                Ok(Some(line))
            }
            None if self.rest().len() < limit.saturating_add(2) => Ok(None),
            _ => Err(fault),
        }
    }

    fn finish(&mut self) -> Step {
        self.state = State::Head;
        Step::Request(Request {
            method: std::mem::take(&mut self.method),
            path: std::mem::take(&mut self.path),
            fields: std::mem::take(&mut self.fields),
            body: std::mem::take(&mut self.body),
            last: self.last,
        })
    }

    fn add_field(&mut self, line: &[u8]) -> Result<(), Fault> {
        let colon = line.iter().position(|b| *b == b':').ok_or(Fault::Malformed)?;
        let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon..).unwrap_or_default());
        if !is_token(name) {
            return Err(Fault::Malformed);
        }
        if self.fields.len() >= MAX_FIELDS {
            return Err(Fault::HeadTooLarge);
        }
        let value = text(value.get(1..).unwrap_or_default().trim_ascii())?;
        self.fields.push((text(name)?.to_ascii_lowercase(), value));
        Ok(())
    }

    /// The request line and the fields, once they are complete. `None`: see the state.
    fn head(&mut self, limit: usize) -> Result<Option<Step>, Fault> {
        // Empty lines before a request are ignored (RFC 9112, section 2.2).
        while self.rest().starts_with(b"\r\n") {
            self.at = self.at.saturating_add(2);
        }
        let Some(end) = self.find(b"\r\n\r\n").filter(|end| *end < MAX_HEAD) else {
            return if self.rest().len() > MAX_HEAD { Err(Fault::HeadTooLarge) } else { Ok(None) };
        };
        let head = self.rest().get(..end).unwrap_or_default().to_vec();
        self.at = self.at.saturating_add(end).saturating_add(4);
        let mut lines = head.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l));
        let first = text(lines.next().unwrap_or_default())?;
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Fault::Malformed);
        };
        if !is_token(method.as_bytes()) || !target.starts_with('/') {
            return Err(Fault::Malformed);
        }
        self.method = method.to_owned();
        self.path = target.split('?').next().unwrap_or_default().to_owned();
        self.fields.clear();
        for line in lines {
            self.add_field(line)?;
        }
        let old = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            v if v.starts_with("HTTP/") => return Err(Fault::Version),
            _ => return Err(Fault::Malformed),
        };
        let of =
            |name: &'static str| self.fields.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str());
        let says = |word: &str| {
            of("connection").flat_map(|v| v.split(',')).any(|w| w.trim().eq_ignore_ascii_case(word))
        };
        let last = says("close") || (old && !says("keep-alive"));
        let continues = !old && of("expect").any(|v| v.eq_ignore_ascii_case("100-continue"));
        let coding: Vec<&str> = of("transfer-encoding").collect();
        let lengths: Vec<&str> = of("content-length").flat_map(|v| v.split(',')).map(str::trim).collect();
        let state = match (coding.as_slice(), lengths.first()) {
            ([], None) => State::Sized(0),
            ([], Some(length)) => {
                if !lengths.iter().all(|l| l == length) || !length.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(Fault::Malformed);
                }
                if length.is_empty() {
                    return Err(Fault::Malformed);
                }
                let n = length.parse().map_err(|_| Fault::TooLarge)?;
                if n > limit {
                    return Err(Fault::TooLarge);
                }
                State::Sized(n)
            }
            // Both together are how requests are smuggled past others.
            ([_, ..], Some(_)) => return Err(Fault::Malformed),
            ([one], None) if one.eq_ignore_ascii_case("chunked") && !old => State::ChunkSize,
            _ => return Err(Fault::Coding),
        };
        (self.last, self.state) = (last, state);
        let waits = continues && state != State::Sized(0) && self.rest().is_empty();
        Ok(waits.then_some(Step::Continue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn requests(input: &[u8], piece: usize) -> Result<Vec<Request>, Fault> {
        let mut parser = Parser::default();
        let mut out = Vec::new();
        for bytes in input.chunks(piece.max(1)) {
            parser.push(bytes);
            loop {
                match parser.step(100)? {
                    Step::Request(r) => out.push(r),
                    Step::Continue => {}
                    Step::More => break,
                }
            }
        }
        Ok(out)
    }

    const TWO: &[u8] = b"\r\nPOST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcPOST /d HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\
        Connection: x, Close\r\n\r\n2;x=y\r\nhe\r\nA\r\n0123456789\r\n0\r\nTrailing:  yes \r\n\r\n";

    #[test]
    fn pipelined_requests_split_anywhere_come_whole() {
        for piece in 1..TWO.len() {
            let got = requests(TWO, piece).unwrap();
            assert_eq!(got.len(), 2, "{piece}");
            assert_eq!((got[0].method.as_str(), got[0].path.as_str(), got[0].last), ("POST", "/a", false));
            assert_eq!((&got[0].body[..], &got[1].body[..]), (&b"abc"[..], &b"he0123456789"[..]));
            assert_eq!((got[1].field("trailing"), got[1].last), (Some("yes"), true));
        }
    }

    /// Six mebibytes in chunks of a byte, and a head that comes byte by byte: looking at all that was kept for each of them took hours.
    #[test]
    fn many_small_pieces_cost_no_more_than_a_few_large_ones() {
        let mut parser = Parser::default();
        for byte in
            format!("POST / HTTP/1.1\r\nA: {}\r\nTransfer-Encoding: chunked\r\n\r\n", "x".repeat(16_000))
                .bytes()
        {
            parser.push(&[byte]);
            assert!(matches!(parser.step(6 << 20), Ok(Step::More)));
        }
        let framed = b"1\r\ny\r\n".repeat(65536);
        for part in std::iter::repeat_n(framed.as_slice(), 6 * 16) {
            for piece in part.chunks(65536) {
                parser.push(piece);
                assert!(matches!(parser.step(6 << 20), Ok(Step::More)));
            }
        }
        parser.push(b"0\r\n\r\n");
        let Ok(Step::Request(request)) = parser.step(6 << 20) else { panic!("no request") };
        assert_eq!(request.body.len(), 6 << 20);
        assert_eq!(parser.len(), 0);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        let cases: &[(&str, Fault)] = &[
            ("GET /\r\n\r\n", Fault::Malformed),
            ("GET  / HTTP/1.1\r\n\r\n", Fault::Malformed),
            ("G(T / HTTP/1.1\r\n\r\n", Fault::Malformed),
            ("GET x HTTP/1.1\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/2.0\r\n\r\n", Fault::Version),
            ("GET / FTP\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\n: x\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\na : x\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\na: \0\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\na: x\r\n folded\r\n\r\n", Fault::Malformed),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Fault::Malformed),
            ("POST / HTTP/1.1\r\nContent-Length: \r\n\r\n", Fault::Malformed),
            ("POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n", Fault::Malformed),
            ("POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", Fault::TooLarge),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", Fault::TooLarge),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::Malformed),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Fault::Coding),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n", Fault::TooLarge),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", Fault::TooLarge),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\n", Fault::Malformed),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", Fault::Malformed),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", Fault::Malformed),
            (&long, Fault::HeadTooLarge),
            (&many, Fault::HeadTooLarge),
        ];
        for (input, fault) in cases {
            assert_eq!(requests(input.as_bytes(), 4096), Err(*fault), "{input:.60}");
        }
    }

    #[test]
    fn a_client_that_waits_to_go_on_is_told() {
        let mut p = Parser::default();
        p.push(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(p.step(10), Ok(Step::Continue));
        assert_eq!(p.step(10), Ok(Step::More));
        p.push(b"x");
        assert!(matches!(p.step(10), Ok(Step::Request(_))));
        assert_eq!((p.len(), p.state), (0, State::Head));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_keep_more_than_the_limits(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..TWO.len(), piece in 1..50usize
        ) {
            let mut all = TWO[..at].to_vec();
            all.append(&mut bytes);
            let mut parser = Parser::default();
            'all: for part in all.chunks(piece) {
                parser.push(part);
                loop {
                    match parser.step(100) {
                        Ok(Step::More) => break,
                        Ok(_) => {}
                        Err(_) => break 'all,
                    }
                }
                prop_assert!(parser.len() <= MAX_HEAD + 100 + 50);
            }
        }
    }
}
