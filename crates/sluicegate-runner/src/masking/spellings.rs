//! How programs write a text: as it is, encoded, and escaped for what stands around it.

use super::wipe;

/// Forms that are looked for in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// As it is, escaped for JSON, XML or a shell, or with percent escapes. Letters count as the same in upper and lower case: names of
    /// servers come in lower case, and programs differ in the case of their escapes.
    Text,
    /// base64, perhaps wrapped into lines that are indented.
    Base64,
    /// Pairs of hexadecimal digits, perhaps with something between them.
    Digits,
    /// The same, each behind `\x` or `0x`.
    MarkedDigits,
}

impl Family {
    pub(super) const ALL: [Self; 4] = [Self::Text, Self::Base64, Self::Digits, Self::MarkedDigits];

    /// Whether upper and lower case are the same.
    pub(super) fn folds(self) -> bool {
        self != Self::Base64
    }

    /// After how many bytes of a form something may be passed over, and after each such number.
    pub(super) fn unit(self) -> u32 {
        match self {
            Self::Text | Self::Base64 => 1,
            Self::Digits => 2,
            Self::MarkedDigits => 4,
        }
    }

    /// Whether a byte may stand in the midst of a form and is none of it.
    pub(super) fn passes_over(self, byte: u8, line_began: bool) -> bool {
        match self {
            Self::Text => false,
            Self::Base64 => matches!(byte, b'\r' | b'\n') || (line_began && matches!(byte, b' ' | b'\t')),
            Self::Digits => b" \t\r\n:-,".contains(&byte),
            Self::MarkedDigits => b" \t\r\n,".contains(&byte),
        }
    }
}

/// The texts by which a secret may stand somewhere: the whole, without the blanks around it, as a shell prints it that splits it into
/// words, and each of its lines.
pub(super) fn each_part(secret: &[u8], min_bytes: usize, tell: &mut dyn FnMut(&[u8])) {
    let mut words = in_words(secret);
    tell(secret);
    let mut told = secret;
    for part in [secret.trim_ascii_end(), secret.trim_ascii(), words.as_slice()] {
        // Only the next one can be the same once more.
        if part != told {
            tell(part);
            told = part;
        }
    }
    wipe(&mut words);
    for line in secret.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| line.len() < secret.len())
    {
        let mut words = in_words(line);
        let mut told: &[u8] = b"";
        for part in [line, line.trim_ascii_start(), words.as_slice()] {
            if part.len() >= min_bytes && part != told {
                tell(part);
                told = part;
            }
        }
        wipe(&mut words);
    }
}

/// The text with one blank wherever it has blanks, and none around it.
pub(super) fn in_words(text: &[u8]) -> Vec<u8> {
    // Enough from the beginning: what a vector leaves behind when it grows is not overwritten.
    let mut words = Vec::with_capacity(text.len() + 1);
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        words.extend_from_slice(word);
        words.push(b' ');
    }
    words.pop();
    words
}

/// Tells the text as it is and in each form.
pub(super) fn each_form(text: &[u8], tell: &mut dyn FnMut(Family, &[u8])) {
    let mut scratch = Vec::with_capacity(text.len() * 12 + 8);
    tell(Family::Text, text);
    for escape in ESCAPES {
        scratch.clear();
        text.iter().for_each(|byte| escape(*byte, &mut scratch));
        tell(Family::Text, &scratch);
    }
    if let Ok(text) = std::str::from_utf8(text) {
        scratch.clear();
        ascii_json(text, &mut scratch);
        tell(Family::Text, &scratch);
    }
    for (plain, blank) in PLAIN {
        scratch.clear();
        text.iter().for_each(|byte| percent((plain, blank), *byte, &mut scratch));
        tell(Family::Text, &scratch);
    }
    for (family, mark) in [(Family::Digits, ""), (Family::MarkedDigits, "\\x"), (Family::MarkedDigits, "0x")] {
        scratch.clear();
        for byte in text {
            scratch.extend_from_slice(mark.as_bytes());
            scratch.extend(digit_pair(LOWER, *byte));
        }
        tell(family, &scratch);
    }
    for alphabet in [STANDARD, URL_SAFE] {
        for before in 0..3 {
            base64(text, before, alphabet, &mut scratch, &mut |form| tell(Family::Base64, form));
        }
    }
    wipe(&mut scratch);
}

/// Writes one byte.
type Escape = fn(u8, &mut Vec<u8>);

const ESCAPES: [Escape; 18] = [
    // JSON: what must be escaped, with the slash, and with what HTML takes for its own.
    |byte, out| json(byte, b"", out),
    |byte, out| match byte {
        b'/' => out.extend_from_slice(b"\\/"),
        byte => json(byte, b"", out),
    },
    |byte, out| json(byte, b"<>&", out),
    // XML and HTML: between tags, and in attributes as libraries write quotes there.
    |byte, out| xml(byte, (b"\"", b"'"), out),
    |byte, out| xml(byte, (b"&quot;", b"'"), out),
    |byte, out| xml(byte, (b"&quot;", b"&apos;"), out),
    |byte, out| xml(byte, (b"&quot;", b"&#39;"), out),
    |byte, out| xml(byte, (b"&quot;", b"&#x27;"), out),
    |byte, out| xml(byte, (b"&#34;", b"&#39;"), out),
    // With tabs and line ends, as attributes have them: of libxml2, Python, browsers and Go.
    |byte, out| xml_line(byte, (b"&quot;", b"'"), [b"&#9;", b"&#10;", b"&#13;"], out),
    |byte, out| xml_line(byte, (b"&quot;", b"'"), [b"&#09;", b"&#10;", b"&#13;"], out),
    |byte, out| xml_line(byte, (b"&quot;", b"'"), [b"&#9;", b"&#xA;", b"&#xD;"], out),
    |byte, out| xml_line(byte, (b"&#34;", b"&#39;"), [b"&#x9;", b"&#xA;", b"&#xD;"], out),
    // A shell: in single quotes.
    |byte, out| match byte {
        b'\'' => out.extend_from_slice(b"'\\''"),
        byte => out.push(byte),
    },
    |byte, out| match byte {
        b'\'' => out.extend_from_slice(b"'\"'\"'"),
        byte => out.push(byte),
    },
    // In double quotes, without any, and where backslashes mean something in single quotes.
    |byte, out| behind_backslash(byte, b"\"\\$`", out),
    |byte, out| behind_backslash(byte, b" \t!\"$&'()*,;<>?[\\]^`{|}", out),
    |byte, out| match byte {
        b'\'' => out.extend_from_slice(b"\\'"),
        b'"' => out.push(byte),
        byte => json(byte, b"", out),
    },
];

/// What stands beside letters and digits without an escape, and what a blank is: of RFC 3986, of the same with slashes, of
/// encodeURIComponent, of forms, of forms in Python and Go; and nothing, not even letters.
const PLAIN: [(Option<&[u8]>, &[u8]); 6] = [
    (Some(b"-._~"), b"%20"),
    (Some(b"-._~/"), b"%20"),
    (Some(b"-._~!*'()"), b"%20"),
    (Some(b"-._*"), b"+"),
    (Some(b"-._~"), b"+"),
    (None, b"%20"),
];

const LOWER: &[u8; 16] = b"0123456789abcdef";
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn digit_pair(digits: &[u8; 16], byte: u8) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

fn behind_backslash(byte: u8, special: &[u8], out: &mut Vec<u8>) {
    if special.contains(&byte) {
        out.push(b'\\');
    }
    out.push(byte);
}

fn json(byte: u8, also: &[u8], out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend([b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        byte if byte < b' ' || also.contains(&byte) => {
            out.extend_from_slice(b"\\u00");
            out.extend(digit_pair(LOWER, byte));
        }
        byte => out.push(byte),
    }
}

/// JSON in ASCII alone.
fn ascii_json(text: &str, out: &mut Vec<u8>) {
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(byte) if byte < 0x7f => json(byte, b"", out),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(b"\\u");
                    out.extend(unit.to_be_bytes().iter().flat_map(|byte| digit_pair(LOWER, *byte)));
                }
            }
        }
    }
}

fn xml(byte: u8, (double, single): (&[u8], &[u8]), out: &mut Vec<u8>) {
    match byte {
        b'&' => out.extend_from_slice(b"&amp;"),
        b'<' => out.extend_from_slice(b"&lt;"),
        b'>' => out.extend_from_slice(b"&gt;"),
        b'"' => out.extend_from_slice(double),
        b'\'' => out.extend_from_slice(single),
        byte => out.push(byte),
    }
}

fn xml_line(byte: u8, quotes: (&[u8], &[u8]), [tab, line_feed, carriage_return]: [&[u8]; 3], out: &mut Vec<u8>) {
    match byte {
        b'\t' => out.extend_from_slice(tab),
        b'\n' => out.extend_from_slice(line_feed),
        b'\r' => out.extend_from_slice(carriage_return),
        byte => xml(byte, quotes, out),
    }
}

fn percent((plain, blank): (Option<&[u8]>, &[u8]), byte: u8, out: &mut Vec<u8>) {
    match byte {
        b' ' => out.extend_from_slice(blank),
        byte if plain.is_some_and(|plain| byte.is_ascii_alphanumeric() || plain.contains(&byte)) => out.push(byte),
        byte => {
            out.push(b'%');
            out.extend(digit_pair(LOWER, byte));
        }
    }
}

/// Tells base64 of the text as it stands after `before` other bytes of its group of three: the digits that are the text's alone, and
/// those with the end of an encoding that ends with the text, padded and not.
fn base64(text: &[u8], before: usize, alphabet: &[u8; 64], scratch: &mut Vec<u8>, tell: &mut dyn FnMut(&[u8])) {
    scratch.clear();
    let (mut bits, mut waiting) = (0_u32, 0);
    for byte in std::iter::repeat_n(&0, before).chain(text) {
        bits = (bits << 8 | u32::from(*byte)) & 0xffff;
        waiting += 8;
        while waiting >= 6 {
            waiting -= 6;
            scratch.push(alphabet[(bits >> waiting & 63) as usize]);
        }
    }
    // Digits that the bytes before have a share in.
    let first = [0, 2, 3][before % 3];
    tell(&scratch[first..]);
    if waiting > 0 {
        scratch.push(alphabet[(bits << (6 - waiting) & 63) as usize]);
        tell(&scratch[first..]);
        while !scratch.len().is_multiple_of(4) {
            scratch.push(b'=');
        }
        tell(&scratch[first..]);
    }
}
