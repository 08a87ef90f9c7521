//! Follows the body of one message to its end, so that nothing after it goes to a server that was not asked for it. Pure.

use super::request::BodyLength;

/// Bytes of a line with a chunk's length, and of all trailers.
const MAX_LINE: usize = 16 * 1024;

/// How far a body has come.
#[derive(Clone, Debug)]
pub(crate) struct Body(State);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Bytes(u64),
    /// The line of a chunk's length.
    Size(Vec<u8>),
    /// A chunk with its CR LF.
    Data(u64),
    /// Trailers: what was read of the line, and of all of them.
    Trailers(Vec<u8>, usize),
    Done,
}

/// Chunks that cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Body {
    pub(crate) fn new(length: BodyLength) -> Self {
        Self(match length {
            BodyLength::Bytes(0) => State::Done,
            BodyLength::Bytes(count) => State::Bytes(count),
            BodyLength::Chunked => State::Size(Vec::new()),
        })
    }

    /// Whether nothing more belongs to it.
    pub(crate) fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// How many of these bytes belong to it.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.0 {
                State::Done => break,
                State::Bytes(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    at += count;
                    *left -= count as u64;
                    if *left == 0 {
                        self.0 = State::Done;
                    }
                }
                State::Data(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    // The last two are the chunk's own end.
                    for (index, byte) in rest[..count].iter().enumerate() {
                        let behind = *left - index as u64;
                        if (behind == 2 && *byte != b'\r') || (behind == 1 && *byte != b'\n') {
                            return Err(Broken);
                        }
                    }
                    at += count;
                    *left -= count as u64;
                    if *left == 0 {
                        self.0 = State::Size(Vec::new());
                    }
                }
                State::Size(line) => {
                    line.push(rest[0]);
                    at += 1;
                    if line.len() > MAX_LINE {
                        return Err(Broken);
                    }
                    if rest[0] == b'\n' {
                        self.0 = match size(line)? {
                            0 => State::Trailers(Vec::new(), 0),
                            count => State::Data(count.checked_add(2).ok_or(Broken)?),
                        };
                    }
                }
                State::Trailers(line, all) => {
                    line.push(rest[0]);
                    at += 1;
                    *all += 1;
                    if *all > MAX_LINE {
                        return Err(Broken);
                    }
                    if rest[0] == b'\n' {
                        match line.as_slice() {
                            b"\r\n" => self.0 = State::Done,
                            [.., b'\r', b'\n'] => line.clear(),
                            _ => return Err(Broken),
                        }
                    }
                }
            }
        }
        Ok(at)
    }
}

/// The length in a line such as `1f;name=value` with its CR LF.
fn size(line: &[u8]) -> Result<u64, Broken> {
    let text = line.strip_suffix(b"\r\n").ok_or(Broken)?;
    let digits = text.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = std::str::from_utf8(digits).map_err(|_| Broken)?.trim_end_matches([' ', '\t']);
    if digits.is_empty() || text.contains(&b'\r') || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Broken);
    }
    u64::from_str_radix(digits, 16).map_err(|_| Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(length: BodyLength, text: &str, step: usize) -> Result<(usize, bool), Broken> {
        let mut body = Body::new(length);
        let mut all = 0;
        for part in text.as_bytes().chunks(step) {
            let count = body.take(part)?;
            all += count;
            if count < part.len() {
                break;
            }
        }
        Ok((all, body.is_done()))
    }

    #[test]
    fn a_body_ends_where_it_says_however_it_comes() {
        let chunks = "4;a=b\r\nab\r\n\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        let text = format!("{chunks}GET http://b.example/ HTTP/1.1\r\n");
        for step in [1, 2, 3, 7, 1000] {
            assert_eq!(taken(BodyLength::Bytes(3), "abcdef", step), Ok((3, true)));
            assert_eq!(taken(BodyLength::Bytes(0), "abcdef", step), Ok((0, true)));
            assert_eq!(taken(BodyLength::Bytes(9), "abcdef", step), Ok((6, false)));
            assert_eq!(taken(BodyLength::Chunked, &text, step), Ok((chunks.len(), true)), "{step}");
            assert_eq!(taken(BodyLength::Chunked, &chunks[..20], step), Ok((20, false)));
        }
    }

    #[test]
    fn chunks_that_two_readers_could_cut_in_two_ways_are_refused() {
        for text in [
            "\r\n",
            "x\r\n",
            "+1\r\na\r\n",
            "1\na\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "-1\r\n",
            "0\r\nT: x\n\n",
            "1\r;\r\n",
            "ffffffffffffffff\r\n",
            "10000000000000000\r\n",
            "0x1\r\na\r\n",
        ] {
            assert_eq!(taken(BodyLength::Chunked, text, 1000), Err(Broken), "{text:?}");
        }
        assert_eq!(taken(BodyLength::Chunked, &"1".repeat(MAX_LINE + 1), 1000), Err(Broken));
        assert_eq!(taken(BodyLength::Chunked, &format!("0\r\n{}", "a: b\r\n".repeat(MAX_LINE)), 1000), Err(Broken));
    }
}
