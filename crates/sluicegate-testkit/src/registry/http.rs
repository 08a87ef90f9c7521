//! HTTP/1.1 over anything that can be read and written: request heads, their bodies, and replies.

use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read, Write};

/// A request head may not be longer than this.
const HEAD_LIMIT: u64 = 64 * 1024;

/// A connection: a TCP stream, or TLS over one.
pub(super) trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

/// A connection with what was read ahead of it.
pub(super) type Wire<'a> = BufReader<&'a mut dyn Duplex>;

/// The head of a request.
pub(super) struct Request {
    pub(super) method: String,
    /// The path and the query as they came.
    pub(super) target: String,
    headers: Vec<(String, String)>,
    keep_alive: bool,
}

impl Request {
    /// Reads the next head; `None` where the connection ended before it.
    pub(super) fn read(wire: &mut Wire<'_>) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        let mut lines = wire.take(HEAD_LIMIT);
        loop {
            let start = head.len();
            lines.read_until(b'\n', &mut head)?;
            match &head[start..] {
                b"\r\n" | b"\n" if start > 0 => break,
                // Empty lines before a request are passed over (RFC 9112, 2.2).
                b"\r\n" | b"\n" => head.clear(),
                line if line.ends_with(b"\n") => {}
                [] if start == 0 => return Ok(None),
                _ => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut parsed = httparse::Request::new(&mut headers);
        let bad = |reason: String| io::Error::new(ErrorKind::InvalidData, reason);
        if parsed.parse(&head).map_err(|error| bad(error.to_string()))?.is_partial() {
            return Err(bad("the head has no end".to_owned()));
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(bad("no request line".to_owned()));
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers: Vec<_> = parsed.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect();
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut request = Self { method, target, headers, keep_alive: version == 1 };
        if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            request.keep_alive = false;
        }
        Ok(Some(request))
    }

    /// The value of a header, its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every header, names in lower case.
    pub(super) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The path without the query.
    pub(super) fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The values of a parameter of the query, decoded.
    pub(super) fn parameters(&self, name: &str) -> Vec<String> {
        form(self.target.split_once('?').map_or("", |(_, query)| query))
            .into_iter()
            .filter_map(|(key, value)| (key == name).then_some(value))
            .collect()
    }

    /// The first value of a parameter of the query, decoded.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).into_iter().next()
    }

    /// How long the body says it is; `None` where it comes in chunks.
    pub(super) fn body_length(&self) -> Option<u64> {
        if self.header("transfer-encoding").is_some() {
            return None;
        }
        Some(self.header("content-length").and_then(|value| value.trim().parse().ok()).unwrap_or(0))
    }

    /// Whether the connection is for more than this request.
    pub(super) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }
}

/// The pairs of a query or of a form, decoded.
pub(super) fn form(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

fn decode(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let escaped = text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, escaped) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A value for a query, encoded.
pub(super) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The body of a request, read from its connection as far as somebody asks for it.
pub(super) struct Body<'a, 'b> {
    wire: &'a mut Wire<'b>,
    framing: Framing,
    /// The client waits for leave to send it.
    awaited: bool,
    taken: u64,
}

enum Framing {
    Left(u64),
    Chunked { left: u64, first: bool },
}

impl<'a, 'b> Body<'a, 'b> {
    /// The body that belongs to `request`.
    pub(super) fn of(request: &Request, wire: &'a mut Wire<'b>) -> Self {
        let framing = request.body_length().map_or(Framing::Chunked { left: 0, first: true }, Framing::Left);
        let awaited = request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        Self { wire, framing, awaited, taken: 0 }
    }

    /// How many bytes of it were read.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Reads what is left, up to `limit`; whether the connection is now at the next request.
    pub(super) fn drain(&mut self, limit: u64) -> io::Result<bool> {
        if self.awaited && !matches!(self.framing, Framing::Left(0)) {
            return Ok(false);
        }
        let drained = io::copy(&mut self.take(limit), &mut io::sink())?;
        Ok(drained < limit)
    }

    fn chunk_size(&mut self, first: bool) -> io::Result<u64> {
        let bad = || io::Error::new(ErrorKind::InvalidData, "a chunk without a size");
        if !first {
            self.line()?;
        }
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| bad())?;
        if size == 0 {
            // Trailers are read and not looked at.
            while !self.line()?.is_empty() {}
        }
        Ok(size)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.wire.take(HEAD_LIMIT).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.awaited && !matches!(self.framing, Framing::Left(0)) {
            self.awaited = false;
            self.wire.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if let Framing::Chunked { left: 0, first } = self.framing {
            let left = self.chunk_size(first)?;
            self.framing = if left == 0 { Framing::Left(0) } else { Framing::Chunked { left, first: false } };
        }
        let left = match &mut self.framing {
            Framing::Left(left) | Framing::Chunked { left, .. } => left,
        };
        let most = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let n = self.wire.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        *left -= n as u64;
        self.taken += n as u64;
        Ok(n)
    }
}

/// What a request is answered with.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: Content,
    /// A length that the head claims, whatever the content has.
    pub(super) claimed: Option<u64>,
    /// The connection ends after so many bytes of the content.
    pub(super) cut: Option<u64>,
}

/// The body of a reply: a reader, and its length where that is known beforehand. Without one it is sent in chunks.
pub(super) struct Content {
    pub(super) reader: Box<dyn Read + Send>,
    pub(super) length: Option<u64>,
}

impl Reply {
    /// A status and nothing else.
    pub(super) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), content: Content::bytes(Vec::new()), claimed: None, cut: None }
    }

    /// A status with an error in the form of the distribution specification.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let document = serde_json::json!({"errors": [{"code": code, "message": message}]});
        Self::json(status, &document)
    }

    /// A status with a JSON document.
    pub(super) fn json(status: u16, document: &serde_json::Value) -> Self {
        let reply = Self::status(status).with("Content-Type", "application/json");
        Self { content: Content::bytes(document.to_string().into_bytes()), ..reply }
    }

    /// The same with one header more.
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The value of a header that it has.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Gives a header this value alone; without one the header is gone.
    pub(super) fn set(&mut self, name: &str, value: Option<String>) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
    }

    /// Sends it; whether the connection can be used for another request.
    pub(super) fn send(self, connection: &mut dyn Duplex, head_only: bool, keep_alive: bool) -> io::Result<bool> {
        let bodiless = self.status == 204 || self.status == 304;
        let length = self.claimed.or(self.content.length);
        let keep_alive = keep_alive && self.cut.is_none() && self.claimed.is_none();
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !bodiless {
            match length {
                Some(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
                None => head.push_str("Transfer-Encoding: chunked\r\n"),
            }
        }
        if !keep_alive {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut out = head.into_bytes();
        if bodiless || head_only {
            connection.write_all(&out)?;
            return connection.flush().map(|()| keep_alive);
        }
        let mut content = self.content.reader.take(self.cut.unwrap_or(u64::MAX));
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = content.read(&mut buffer)?;
            if length.is_none() && n > 0 {
                out.extend(format!("{n:x}\r\n").into_bytes());
            }
            out.extend_from_slice(&buffer[..n]);
            if length.is_none() && n > 0 {
                out.extend(b"\r\n");
            }
            if n == 0 && length.is_none() && self.cut.is_none() {
                out.extend(b"0\r\n\r\n");
            }
            if !out.is_empty() {
                connection.write_all(&out)?;
                out.clear();
            }
            if n == 0 {
                return connection.flush().map(|()| keep_alive);
            }
        }
    }
}

impl Content {
    /// These bytes.
    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self { length: Some(bytes.len() as u64), reader: Box::new(Cursor::new(bytes)) }
    }

    /// What a reader gives, which is so long.
    pub(super) fn sized(reader: impl Read + Send + 'static, length: u64) -> Self {
        Self { reader: Box::new(reader.take(length)), length: Some(length) }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
