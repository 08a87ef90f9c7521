//! A step's output as lines that may be shown. Steps are hostile: nothing that they print may drive a terminal, begin a line that looks
//! like one of ours, or make this program remember without end. The exact bytes are in the step's log.

use unicode_width::UnicodeWidthChar;

use crate::words::printable;

/// Bytes of a line that is shown although it has not ended.
const LONG: usize = 8192;

/// Characters without a width of their own that may follow one that has one: accents, not towers of them.
const MARKS: usize = 2;

/// Puts output together to whole lines, however it arrives, and remembers only the line that has not ended.
#[derive(Default)]
pub(crate) struct OutputLines {
    pending: Vec<u8>,
    /// Whether the line begins again with the next byte, as it does on a terminal after a carriage return.
    returned: bool,
}

impl OutputLines {
    /// Takes bytes and hands on every line that they end.
    pub(crate) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(String)) {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, end) = match piece.split_last() {
                Some((end @ (b'\n' | b'\r'), text)) => (text, Some(*end)),
                _ => (piece, None),
            };
            if self.returned && !text.is_empty() {
                self.pending.clear();
                self.returned = false;
            }
            for part in text.chunks(LONG) {
                self.pending.extend_from_slice(part);
                while self.pending.len() >= LONG {
                    let rest = self.pending.split_off(whole_characters(&self.pending[..LONG]));
                    line(shown(&self.pending));
                    self.pending = rest;
                }
            }
            match end {
                Some(b'\n') => {
                    line(shown(&self.pending));
                    self.pending.clear();
                    self.returned = false;
                }
                Some(_) => self.returned = true,
                None => {}
            }
        }
    }

    /// The line that has not ended, if anything stands in it.
    pub(crate) fn unfinished(&self) -> Option<String> {
        (!self.pending.is_empty()).then(|| shown(&self.pending))
    }

    /// The same, taken: nothing follows.
    pub(crate) fn finish(&mut self) -> Option<String> {
        let last = self.unfinished();
        *self = Self::default();
        last
    }
}

/// One line of somebody else's bytes as text that does nothing but stand there: colours are left out, and what else would drive a terminal
/// or turn the text around is shown as U+FFFD.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = printable(&without_colours(&text).replace('\t', "    "));
    let mut marks = 0;
    let keep = |c: &char| {
        marks = if c.width() == Some(0) { marks + 1 } else { 0 };
        // They make of what stands before them something of another width.
        let selects = matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}');
        marks <= MARKS && !selects
    };
    text.chars().filter(keep).collect()
}

/// Bytes of whole characters at the beginning of a piece; all, if it does not end within a character.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to().max(1),
        _ => bytes.len(),
    }
}

/// Without the sequences that programs print for colours and to erase the rest of a line, which hold no text.
fn without_colours(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        left.push_str(before);
        let end = after.find(|c: char| !matches!(c, '0'..='9' | ';' | ':'));
        match end.map(|end| after.split_at(end)) {
            Some((_, tail)) if tail.starts_with(['m', 'K']) => rest = &tail[1..],
            _ => {
                left.push_str("\u{1b}[");
                rest = after;
            }
        }
    }
    left.push_str(rest);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut output, mut lines) = (OutputLines::default(), Vec::new());
        for piece in pieces {
            output.push(piece, |line| lines.push(line));
        }
        lines.extend(output.finish());
        assert_eq!(output.finish(), None);
        lines
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let whole = lines(&[b"one\ntwo\r\n\nlast"]);
        assert_eq!(whole, ["one", "two", "", "last"]);
        let bytes: Vec<&[u8]> = b"one\ntwo\r\n\nlast".chunks(1).collect();
        assert_eq!(lines(&bytes), whole);
        // As on a terminal: a counter is the number that it shows, not all that it has shown.
        assert_eq!(lines(&[b"10%\r20%\r", b"30%\r\ndone\r\r\n"]), ["30%", "done"]);
        let mut output = OutputLines::default();
        output.push("half of ü".as_bytes().split_last().unwrap().1, |_| panic!("it has not ended"));
        assert_eq!(output.unfinished().unwrap(), "half of \u{fffd}");
        output.push(b"\xbc", |_| panic!("it has not ended"));
        assert_eq!(output.unfinished().unwrap(), "half of ü");
    }

    #[test]
    fn a_line_without_an_end_is_cut_between_characters_and_not_remembered() {
        let mut output = OutputLines::default();
        let mut cut = Vec::new();
        // Two bytes each, behind one: a cut at a round number of bytes would halve a character.
        output.push(b"x", |line| cut.push(line));
        output.push("ü".repeat(1 << 20).as_bytes(), |line| cut.push(line));
        assert!(output.pending.capacity() <= 4 * LONG, "{}", output.pending.capacity());
        cut.extend(output.finish());
        assert!(cut.len() > 200 && cut.iter().all(|line| line.len() <= LONG && !line.contains('\u{fffd}')));
        assert_eq!(cut.concat().chars().filter(|c| *c == 'ü').count(), 1 << 20);
        assert!(lines(&[&[0x80; 3 * LONG]]).iter().all(|line| line.chars().all(|c| c == '\u{fffd}')));
    }

    #[test]
    fn nothing_that_is_shown_drives_a_terminal() {
        for (bytes, text) in [
            (&b"\x1b[31mred\x1b[0m \x1b[1;38:5:9mbold\x1b[K"[..], "red bold"),
            (b"\x1b[2J\x1b[H\x1b[10Aforged", "\u{fffd}[2J\u{fffd}[H\u{fffd}[10Aforged"),
            (b"\x1b]0;title\x07 \x1b]52;c;aGk=\x1b\\", "\u{fffd}]0;title\u{fffd} \u{fffd}]52;c;aGk=\u{fffd}\\"),
            (b"\x1bc\x9b31m\xc2\x9b31m\x7f\x08\x00", "\u{fffd}c\u{fffd}31m\u{fffd}31m\u{fffd}\u{fffd}\u{fffd}"),
            ("a\u{202e}b\u{2066}c\u{2028}d\tz".as_bytes(), "a\u{fffd}b\u{fffd}c\u{fffd}d    z"),
            (b"\x1b[\x1b[31m", "\u{fffd}["),
            (b"\x1b[999", "\u{fffd}[999"),
            ("e\u{301}\u{301}\u{301}\u{301}! \u{2764}\u{fe0f}".as_bytes(), "e\u{301}\u{301}! \u{2764}"),
        ] {
            assert_eq!(shown(bytes), text, "{bytes:?}");
        }
    }
}
