//! What a client asks of the proxy: the head of one HTTP request (RFC 9112), read strictly. Pure.

use std::net::Ipv6Addr;

use sluicegate_types::Destination;

use super::address::is_number_in_disguise;

/// Bytes of a request's head.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Headers of a request.
const MAX_HEADERS: usize = 128;

/// Headers that are for the proxy alone (RFC 9110 7.6.1 and 7.6.2), beside those that `Connection` names.
const FOR_THE_PROXY: [&str; 9] = [
    "connection",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "keep-alive",
    "max-forwards",
    "te",
    "upgrade",
    "host",
];

/// A request that can be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A tunnel to a server.
    Tunnel(Destination),
    /// One message for a server.
    Message(Message),
}

/// A message with a whole URL of the scheme `http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The server in its URL.
    pub(crate) destination: Destination,
    /// How much follows.
    pub(crate) body: BodyLength,
    method: String,
    authority: String,
    path: String,
    headers: Vec<(String, String)>,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// By its bytes, which may be none.
    Bytes(u64),
    /// By its own chunks.
    Chunked,
}

impl Message {
    /// The head as it goes to the server, or to a proxy behind this one: with what that wants to know in the first place.
    pub(crate) fn head(&self, to_proxy: Option<&str>) -> Vec<u8> {
        let Self { method, authority, path, .. } = self;
        let mut head = match to_proxy {
            None => format!("{method} {path} HTTP/1.1\r\n"),
            Some(authorization) => format!("{method} http://{authority}{path} HTTP/1.1\r\n{authorization}"),
        };
        head.push_str(&format!("Host: {authority}\r\n"));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("Connection: close\r\n\r\n");
        head.into_bytes()
    }
}

/// The length of the head with its empty line, if it is all there.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a head; the text of an error is for the client.
pub(crate) fn parse(head: &[u8]) -> Result<Request, String> {
    let text = std::str::from_utf8(head).map_err(|_| "the head is not UTF-8".to_owned())?;
    let text = text.strip_suffix("\r\n\r\n").ok_or("the head has no end")?;
    if text.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return Err("a line of the head ends in something else than CR LF".to_owned());
    }
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("the first line is METHOD TARGET HTTP/1.1".to_owned());
    };
    if !is_token(method) || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err("the first line is METHOD TARGET HTTP/1.1".to_owned());
    }
    let headers = lines.map(header).collect::<Result<Vec<_>, _>>()?;
    if headers.len() > MAX_HEADERS {
        return Err(format!("more than {MAX_HEADERS} headers"));
    }
    if method == "CONNECT" {
        let (host, port) = target.rsplit_once(':').ok_or("CONNECT wants HOST:PORT")?;
        return Ok(Request::Tunnel(destination(host, Some(port))?));
    }
    // Whoever answers a TRACE repeats what it got, and the password for the proxy of this machine is in that. There are servers that read
    // a method in any case.
    if ["TRACE", "CONNECT"].iter().any(|no| method.eq_ignore_ascii_case(no)) {
        return Err(format!("{method} is not followed for a URL"));
    }
    let rest = strip_scheme(target).ok_or("only CONNECT HOST:PORT and http://HOST/… are answered here")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if path.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err("the URL has characters that have to be escaped".to_owned());
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let destination = destination(host, port)?;
    let body = body_length(&headers)?;
    Ok(Request::Message(Message {
        destination,
        body,
        method: method.to_owned(),
        authority: authority.to_ascii_lowercase(),
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        headers: for_the_server(headers),
    }))
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_at_checked("http://".len())?;
    scheme.eq_ignore_ascii_case("http://").then_some(rest)
}

/// A server as the lists write it: names in lower case, addresses in their one form.
fn destination(host: &str, port: Option<&str>) -> Result<Destination, String> {
    let wrong = || "the server is written as HOST:PORT, ADDRESS:PORT or [ADDRESS]:PORT".to_owned();
    let port = match port {
        None => 80,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
        return Ok(Destination { host: address.to_string(), port });
    }
    let host = host.to_ascii_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
        return Err(wrong());
    }
    if is_number_in_disguise(&host) {
        return Err("an IPv4 address is written as four decimal numbers".to_owned());
    }
    Ok(Destination { host, port })
}

fn header(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
    if !is_token(name) {
        return Err("a header's name is no token".to_owned());
    }
    let value = value.trim_matches([' ', '\t']);
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return Err("a header with control characters".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

/// Ambiguous lengths are refused: who follows would see another end than this proxy.
fn body_length(headers: &[(String, String)]) -> Result<BodyLength, String> {
    let values = |name: &str| -> Vec<&str> {
        headers.iter().filter(|header| header.0.eq_ignore_ascii_case(name)).map(|header| header.1.as_str()).collect()
    };
    match (values("transfer-encoding").as_slice(), values("content-length").as_slice()) {
        ([], []) => Ok(BodyLength::Bytes(0)),
        ([], [digits]) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map(BodyLength::Bytes).map_err(|_| "Content-Length is too large".to_owned())
        }
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(BodyLength::Chunked),
        _ => {
            Err("the body's length is said neither once by Content-Length nor by Transfer-Encoding: chunked".to_owned())
        }
    }
}

fn for_the_server(headers: Vec<(String, String)>) -> Vec<(String, String)> {
    let named: Vec<String> = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection") || name.eq_ignore_ascii_case("proxy-connection"))
        .flat_map(|(_, value)| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        // These say where the body ends, whatever a client would like to be dropped.
        .filter(|name| !matches!(name.as_str(), "content-length" | "transfer-encoding"))
        .collect();
    headers
        .into_iter()
        .filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            !FOR_THE_PROXY.contains(&name.as_str()) && !named.contains(&name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, String> {
        parse(text.as_bytes())
    }

    fn at(host: &str, port: u16) -> Destination {
        Destination { host: host.to_owned(), port }
    }

    #[test]
    fn tunnels_are_for_a_server_and_a_port() {
        for (target, host, port) in [
            ("Proxy.Example:443", "proxy.example", 443),
            ("10.0.0.1:80", "10.0.0.1", 80),
            ("[::1]:443", "::1", 443),
            ("[0:0::FFFF:127.0.0.1]:443", "::ffff:127.0.0.1", 443),
        ] {
            let text = format!("CONNECT {target} HTTP/1.1\r\nHost: other.example\r\n\r\n");
            assert_eq!(read(&text), Ok(Request::Tunnel(at(host, port))), "{target}");
        }
        for target in [
            "a.example",
            "a.example:",
            "a.example:0",
            "a.example:65536",
            "a.example:+80",
            ":443",
            "[::1:443",
            "::1:443",
            "[fe80::1%25lo]:443",
            "user@a.example:443",
            "a.example:443/x",
            "http://a.example:443",
            "a\u{e4}.example:443",
            "2130706433:80",
            "127.1:80",
            "0x7f.1:80",
            "0x7f000001:80",
            "0177.0.0.1:80",
            "127.0.0.1.:80",
            "1.2.3.4.5:80",
        ] {
            assert!(read(&format!("CONNECT {target} HTTP/1.1\r\n\r\n")).is_err(), "{target}");
        }
    }

    #[test]
    fn a_message_goes_on_without_what_is_for_the_proxy_and_with_the_host_of_its_url() {
        let text = "POST HTTP://A.example:8080/x?y=1 HTTP/1.1\r\nHost: internal.example\r\nAccept: a, b\r\n\
                    Proxy-Authorization: Basic x\r\nConnection: keep-alive, X-Mine, Content-Length\r\nX-Mine: 1\r\n\
                    Upgrade: websocket\r\nMax-Forwards: 0\r\nContent-Length: 3\r\n\r\n";
        let Ok(Request::Message(message)) = read(text) else { panic!("{:?}", read(text)) };
        assert_eq!((&message.destination, message.body), (&at("a.example", 8080), BodyLength::Bytes(3)));
        let head = String::from_utf8(message.head(None)).unwrap();
        let rest = "Host: a.example:8080\r\nAccept: a, b\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
        assert_eq!(head, format!("POST /x?y=1 HTTP/1.1\r\n{rest}"));
        let head = String::from_utf8(message.head(Some("Proxy-Authorization: Basic y\r\n"))).unwrap();
        assert_eq!(
            head,
            format!("POST http://a.example:8080/x?y=1 HTTP/1.1\r\nProxy-Authorization: Basic y\r\n{rest}")
        );
        let Ok(Request::Message(message)) = read("GET http://[::1]?q HTTP/1.0\r\n\r\n") else { panic!() };
        assert_eq!(message.destination, at("::1", 80));
        assert!(message.head(None).starts_with(b"GET /?q HTTP/1.1\r\nHost: [::1]\r\n"));
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        let good = "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n";
        assert!(read(good).is_ok());
        for (from, to) in [
            ("http://", "https://"),
            ("http://a.example", ""),
            ("http://a.example", "http://user@a.example"),
            ("http://a.example", "http://a.example@b.example"),
            ("http://a.example", "http://a.example\\@b.example"),
            ("http://a.example/", "http://a.example/#@b.example"),
            ("http://a.example/", "http://a.example/ x"),
            ("GET ", "GET  "),
            ("GET ", "G:T "),
            ("GET ", "TRACE "),
            ("GET ", "trace "),
            ("GET ", "connect "),
            ("HTTP/1.1", "HTTP/2.0"),
            ("Host:", "Host :"),
            ("Host: a.example", " Host: a.example"),
            ("Host: a.example", "Host"),
            ("\r\nHost", "\nHost"),
            ("\r\nHost", "\rHost"),
            ("Host: a.example", "Host: a.example\r\n folded"),
            ("Host: a.example", "Host: a.exa\u{1}mple"),
            ("Host: a.example", "Content-Length: 1\r\nContent-Length: 2"),
            ("Host: a.example", "Content-Length: 1\r\nTransfer-Encoding: chunked"),
            ("Host: a.example", "Transfer-Encoding: gzip, chunked"),
            ("Host: a.example", "Content-Length: +1"),
            ("Host: a.example", "Content-Length: 99999999999999999999"),
        ] {
            assert!(good.contains(from), "{from:?}");
            assert!(read(&good.replacen(from, to, 1)).is_err(), "{from:?} {to:?}");
        }
        let many = |count| format!("GET http://a.example/ HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(read(&many(MAX_HEADERS)).is_ok());
        assert!(read(&many(MAX_HEADERS + 1)).is_err());
    }
}
