//! The server's name in the first bytes of a TLS connection (RFC 8446 4.1.2, RFC 6066 3). Pure.

/// Bytes of a ClientHello with its records; one of today has two thousand.
pub(crate) const MAX_HELLO: usize = 32 * 1024;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FirstBytes {
    /// Too few to say.
    TooFew,
    /// No TLS.
    NotTls,
    /// A ClientHello with the name that it asks for, if it asks for one.
    Hello(Option<String>),
    /// Begun as TLS, and nothing that could be followed.
    Unreadable,
}

/// Looks at what a client has sent so far.
pub(crate) fn look_at(bytes: &[u8]) -> FirstBytes {
    match bytes.first() {
        None => return FirstBytes::TooFew,
        Some(&HANDSHAKE_RECORD) => {}
        // Records that no connection begins with, and that some servers pass over until the hello comes: a change of ciphers, an alert,
        // data, a heartbeat. And a hello of SSL 2.0, whose length begins with a bit that is set.
        Some(20 | 21 | 23 | 24 | 0x80..) => return FirstBytes::Unreadable,
        Some(_) => return FirstBytes::NotTls,
    }
    match handshake(bytes) {
        Some(Ok(message)) => name_of(&message).map_or(FirstBytes::Unreadable, FirstBytes::Hello),
        Some(Err(())) => FirstBytes::Unreadable,
        None if bytes.len() >= MAX_HELLO => FirstBytes::Unreadable,
        None => FirstBytes::TooFew,
    }
}

/// The body of the first handshake message, which may lie in several records; `None` if it is not all there.
fn handshake(bytes: &[u8]) -> Option<Result<Vec<u8>, ()>> {
    let mut reader = Reader(bytes);
    let mut message = Vec::new();
    loop {
        let (kind, major, _minor) = (reader.byte()?, reader.byte()?, reader.byte()?);
        if kind != HANDSHAKE_RECORD || major != 3 {
            return Some(Err(()));
        }
        let length = reader.short()?;
        // A record of a handshake is neither empty nor larger than 2^14 (RFC 8446 5.1).
        if length == 0 || length > 1 << 14 {
            return Some(Err(()));
        }
        let (part, whole) = match reader.take(usize::from(length)) {
            Some(part) => (part, true),
            None => (reader.0, false),
        };
        message.extend_from_slice(part);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Some(Err(()));
        }
        if let [_, high, middle, low, body @ ..] = message.as_slice() {
            let length = (usize::from(*high) << 16) | (usize::from(*middle) << 8) | usize::from(*low);
            if length > MAX_HELLO {
                return Some(Err(()));
            }
            if body.len() >= length {
                return Some(Ok(body[..length].to_vec()));
            }
        }
        if !whole {
            return None;
        }
    }
}

/// The name in a ClientHello; the outer `None` if it cannot be followed or names more than one.
fn name_of(hello: &[u8]) -> Option<Option<String>> {
    let mut reader = Reader(hello);
    reader.take(2 + 32)?;
    let session = reader.byte()?;
    reader.take(usize::from(session))?;
    let suites = reader.short()?;
    reader.take(usize::from(suites))?;
    let compressions = reader.byte()?;
    reader.take(usize::from(compressions))?;
    if reader.0.is_empty() {
        return Some(None);
    }
    let length = reader.short()?;
    let mut extensions = Reader(reader.take(usize::from(length))?);
    if !reader.0.is_empty() {
        return None;
    }
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.short()?;
        let length = extensions.short()?;
        let content = extensions.take(usize::from(length))?;
        if kind == SERVER_NAME {
            if name.is_some() {
                return None;
            }
            name = Some(server_name(content)?);
        }
    }
    Some(name)
}

/// The one name of the extension.
fn server_name(content: &[u8]) -> Option<String> {
    let mut reader = Reader(content);
    let length = reader.short()?;
    let mut list = Reader(reader.take(usize::from(length))?);
    let kind = list.byte()?;
    let length = list.short()?;
    let name = list.take(usize::from(length))?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let alone = reader.0.is_empty() && list.0.is_empty() && kind == HOST_NAME;
    if !alone || name.is_empty() || name.len() > 255 || !name.iter().all(plain) {
        return None;
    }
    Some(String::from_utf8_lossy(name).to_ascii_lowercase())
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn short(&mut self) -> Option<u16> {
        self.take(2).map(|taken| u16::from_be_bytes([taken[0], taken[1]]))
    }
}

/// A ClientHello for this name in records of at most `record` bytes, for tests.
#[cfg(test)]
pub(crate) fn hello_for(name: Option<&str>, record: usize) -> Vec<u8> {
    let short = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
    if let Some(name) = name {
        extensions.extend([0, 0]);
        extensions.extend(short(name.len() + 5));
        extensions.extend(short(name.len() + 3));
        extensions.push(HOST_NAME);
        extensions.extend(short(name.len()));
        extensions.extend(name.as_bytes());
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(short(extensions.len()));
    body.extend(extensions);
    let mut message = vec![CLIENT_HELLO, 0];
    message.extend(short(body.len()));
    message.extend(body);
    let mut out = Vec::new();
    for part in message.chunks(record) {
        out.extend([HANDSHAKE_RECORD, 3, 1]);
        out.extend(short(part.len()));
        out.extend(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_however_the_hello_is_cut_into_records() {
        for record in [16_384, 100, 7, 1] {
            let hello = hello_for(Some("Server.Example"), record);
            assert_eq!(look_at(&hello), FirstBytes::Hello(Some("server.example".to_owned())), "{record}");
            for end in 0..hello.len() {
                assert_eq!(look_at(&hello[..end]), FirstBytes::TooFew, "{record} {end}");
            }
        }
        assert_eq!(look_at(&hello_for(None, 16_384)), FirstBytes::Hello(None));
    }

    #[test]
    fn what_is_no_tls_is_told_from_what_only_begins_like_it() {
        assert_eq!(look_at(b"SSH-2.0-x"), FirstBytes::NotTls);
        assert_eq!(look_at(b""), FirstBytes::TooFew);
        for first in 0..=u8::MAX {
            let told = match first {
                22 => FirstBytes::TooFew,
                20..=24 | 0x80.. => FirstBytes::Unreadable,
                _ => FirstBytes::NotTls,
            };
            assert_eq!(look_at(&[first, 3, 1]), told, "{first}");
        }
        let good = hello_for(Some("a.example"), 16_384);
        // The version, an empty record, an alert in place of the rest, another message, a length that no hello has.
        for (at, byte) in [(1, 2), (5, 2), (6, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(look_at(&bad), FirstBytes::Unreadable, "{at}");
        }
        assert_eq!(look_at(&[22, 3, 1, 0, 0]), FirstBytes::Unreadable);
        let mut interrupted = hello_for(Some("a.example"), 20);
        interrupted[25] = 21;
        assert_eq!(look_at(&interrupted), FirstBytes::Unreadable);
        let two_names = {
            let mut hello = good.clone();
            let at = hello.len() - 9 - 3 - 2;
            hello[at + 1] -= 1;
            hello
        };
        assert_eq!(look_at(&two_names), FirstBytes::Unreadable);
        assert_eq!(look_at(&hello_for(Some("a\u{1}b"), 16_384)), FirstBytes::Unreadable);
    }

    #[test]
    fn a_hello_without_end_is_given_up() {
        let mut endless = Vec::new();
        while endless.len() < MAX_HELLO {
            endless.extend([22, 3, 1, 0, 4, 1, 0, 0x7f, 0xff]);
        }
        assert_eq!(look_at(&endless), FirstBytes::Unreadable);
    }
}
