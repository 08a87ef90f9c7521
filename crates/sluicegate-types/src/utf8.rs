/// The text that bytes of a file are, which must be UTF-8 without a byte order mark.
///
/// A shell that redirects a tool's output may write another encoding than the tool did, and a reader that does not know it sees no text,
/// or an empty one.
pub fn utf8(bytes: Vec<u8>) -> Result<String, NotUtf8> {
    borrowed_utf8(&bytes)?;
    String::from_utf8(bytes).map_err(|error| NotUtf8::At(error.utf8_error().valid_up_to()))
}

/// The same of bytes that stay where they are.
pub fn borrowed_utf8(bytes: &[u8]) -> Result<&str, NotUtf8> {
    match encoding_of(bytes) {
        Some(encoding) => Err(NotUtf8::Other(encoding)),
        None => std::str::from_utf8(bytes).map_err(|error| NotUtf8::At(error.valid_up_to())),
    }
}

/// Why bytes are no such text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUtf8 {
    /// Another encoding, or a mark that readers of UTF-8 trip over.
    #[error(
        "this file is {0}: write it as UTF-8 without a byte order mark, by an option of the tool that made it and not of the shell"
    )]
    Other(&'static str),
    /// A byte that no text has.
    #[error("not UTF-8: the byte at {0} is none of a text")]
    At(usize),
}

/// The encoding that the first bytes speak of, if it is not UTF-8 as it should be.
fn encoding_of(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] => Some("UTF-32 (little endian)"),
        [0, 0, 0xfe, 0xff, ..] => Some("UTF-32 (big endian)"),
        [0xff, 0xfe, ..] => Some("UTF-16 (little endian)"),
        [0xfe, 0xff, ..] => Some("UTF-16 (big endian)"),
        [0xef, 0xbb, 0xbf, ..] => Some("UTF-8 with a byte order mark"),
        // Without a mark: a text of ASCII in two bytes each has a zero in every second one.
        [a, 0, b, 0, ..] if *a != 0 && *b != 0 => Some("UTF-16 (little endian)"),
        [0, a, 0, b, ..] if *a != 0 && *b != 0 => Some("UTF-16 (big endian)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_encodings_are_called_by_their_names() {
        let text = "{\"a\": 1}";
        assert_eq!(utf8(text.into()).as_deref(), Ok(text));
        assert_eq!(utf8(Vec::new()).as_deref(), Ok(""));
        assert_eq!(utf8("ä".into()).as_deref(), Ok("ä"));
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (mark, bytes, name) in [
            (&[0xff, 0xfe][..], &little, "UTF-16 (little endian)"),
            (&[], &little, "UTF-16 (little endian)"),
            (&[0xfe, 0xff], &big, "UTF-16 (big endian)"),
            (&[], &big, "UTF-16 (big endian)"),
            (&[0xef, 0xbb, 0xbf], &text.as_bytes().to_vec(), "UTF-8 with a byte order mark"),
        ] {
            let said = utf8([mark, bytes].concat()).unwrap_err().to_string();
            assert!(said.starts_with(&format!("this file is {name}: write it as UTF-8")), "{said}");
        }
        assert_eq!(utf8(b"ab\xff".to_vec()), Err(NotUtf8::At(2)));
    }
}
