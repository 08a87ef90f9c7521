//! Which bytes of somebody's output only style the text around them: the sequences for colours and to erase the rest of a line, and the
//! selectors of variations. Whoever shows output leaves them out, so that what stands around them joins; whoever masks secrets passes over
//! them. Both ask here, so that no secret is put together by showing it.

/// Bytes of the longest sequence; what is longer is text like any other.
const MAX_BYTES: usize = 64;

/// A stream that is told apart into text and what styles it, byte by byte, however it is cut into pieces.
#[derive(Clone)]
pub struct Styling {
    /// What may become something that styles, from its first byte on.
    begun: [u8; MAX_BYTES],
    count: usize,
}

impl Default for Styling {
    fn default() -> Self {
        Self { begun: [0; MAX_BYTES], count: 0 }
    }
}

impl Styling {
    /// A whole text without what styles it.
    pub fn left_out_of(bytes: &[u8]) -> Vec<u8> {
        // Enough from the beginning: what a vector leaves behind when it grows is not overwritten, and this may be a secret.
        let (mut styling, mut text) = (Self::default(), Vec::with_capacity(bytes.len()));
        for byte in bytes {
            styling.push(*byte, &mut |byte| text.push(byte));
        }
        styling.finish(&mut |byte| text.push(byte));
        text
    }

    /// Whether a byte may begin something that styles, wherever it stands.
    pub fn may_begin_with(byte: u8) -> bool {
        matches!(byte, 0x1b | 0xef | 0xf3)
    }

    /// How many of the last bytes may yet become something that styles.
    pub fn begun(&self) -> usize {
        self.count
    }

    /// Takes one byte and hands on each that is text by now, in order. How many bytes style and end with this one.
    pub fn push(&mut self, byte: u8, text: &mut dyn FnMut(u8)) -> usize {
        if Self::may_begin_with(byte) {
            // None of these stands within one.
            self.finish(text);
        } else if self.count == 0 {
            text(byte);
            return 0;
        }
        self.begun[self.count] = byte;
        self.count += 1;
        match Kind::of(&self.begun[..self.count]) {
            Kind::Whole => std::mem::take(&mut self.count),
            Kind::Begun if self.count < MAX_BYTES => 0,
            Kind::Begun | Kind::Text => {
                self.finish(text);
                0
            }
        }
    }

    /// Nothing follows: hands on what is text for want of an end.
    pub fn finish(&mut self, text: &mut dyn FnMut(u8)) {
        self.begun[..std::mem::take(&mut self.count)].iter().for_each(|byte| text(*byte));
    }
}

enum Kind {
    Text,
    Begun,
    Whole,
}

impl Kind {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0x1b] | [0x1b, b'['] => Self::Begun,
            [0x1b, b'[', parameters @ .., last] if parameters.iter().all(is_parameter) => match last {
                b'm' | b'K' => Self::Whole,
                last if is_parameter(last) => Self::Begun,
                _ => Self::Text,
            },
            // U+FE00 to U+FE0F, and U+E0100 to U+E01EF.
            [0xef] | [0xef, 0xb8] | [0xf3] | [0xf3, 0xa0] | [0xf3, 0xa0, 0x84..=0x87] => Self::Begun,
            [0xef, 0xb8, 0x80..=0x8f] | [0xf3, 0xa0, 0x84..=0x86, 0x80..=0xbf] | [0xf3, 0xa0, 0x87, 0x80..=0xaf] => {
                Self::Whole
            }
            _ => Self::Text,
        }
    }
}

fn is_parameter(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b';' | b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(text: &str) -> String {
        String::from_utf8(Styling::left_out_of(text.as_bytes())).unwrap()
    }

    #[test]
    fn what_styles_is_left_out_and_everything_else_is_text() {
        for (styled, text) in [
            ("\u{1b}[01;31m\u{1b}[Kred\u{1b}[m\u{1b}[K", "red"),
            ("\u{1b}[38:5:9m\u{2764}\u{fe0f} a\u{e0100}b\u{e01ef}c\u{fe00}", "\u{2764} abc"),
            ("\u{1b}\u{1b}[m[31m", "\u{1b}[31m"),
            ("\u{1b}[3\u{1b}[1mx", "\u{1b}[3x"),
        ] {
            assert_eq!(without(styled), text, "{styled:?}");
        }
        let long = format!("\u{1b}[{}m", "1".repeat(MAX_BYTES - 3));
        assert_eq!(without(&long), "");
        let longer = format!("\u{1b}[{}m", "1".repeat(MAX_BYTES - 2));
        for text in
            ["\u{1b}[2J", "\u{1b}[", "\u{1b}[31", "\u{1b}[?25m", "\u{1b}m", "\u{fe10}\u{e01f0}\u{fffd}", &longer, ""]
        {
            assert_eq!(without(text), text, "{text:?}");
        }
    }

    #[test]
    fn selectors_are_those_of_unicode() {
        let selectors = (0..=0x10_ffff).filter_map(char::from_u32).filter(|c| without(&c.to_string()).is_empty());
        assert!(selectors.eq(('\u{fe00}'..='\u{fe0f}').chain('\u{e0100}'..='\u{e01ef}')));
    }
}
