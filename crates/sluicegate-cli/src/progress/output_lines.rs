//! A step's output as lines that may be shown. Steps are hostile: nothing that they print may drive a terminal, begin a line that looks
//! like one of ours, or make this program remember without end. The exact bytes are in the step's log.

use sluicegate_types::Styling;
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

/// One line of somebody else's bytes as text that does nothing but stand there: what only styles is left out, as secrets are masked with
/// that in them; what else would drive a terminal or turn the text around is shown as U+FFFD. Nothing else may be left out without a trace:
/// what stood around it would join to something that nobody has looked for.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = Styling::left_out_of(String::from_utf8_lossy(bytes).as_bytes());
    let text = printable(&String::from_utf8_lossy(&text).replace('\t', "    "));
    let mut marks = 0;
    let without_towers = |c: char| {
        marks = if c.width() == Some(0) { marks + 1 } else { 0 };
        match marks {
            0..=MARKS => Some(c),
            // Once for all that is too much.
            _ => (marks == MARKS + 1).then_some('\u{fffd}'),
        }
    };
    text.chars().filter_map(without_towers).collect()
}

/// Bytes of whole characters at the beginning of a piece; all, if it does not end within a character.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to().max(1),
        _ => bytes.len(),
    }
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
            ("e\u{301}\u{301}\u{301}\u{301}! \u{2764}\u{fe0f}".as_bytes(), "e\u{301}\u{301}\u{fffd}! \u{2764}"),
        ] {
            assert_eq!(shown(bytes), text, "{bytes:?}");
        }
    }

    #[test]
    fn nothing_joins_but_what_the_masker_passes_over() {
        let towers = |c: char| c.to_string().repeat(5);
        let characters = (0..=0x10_ffff).filter_map(char::from_u32).flat_map(|c| [c.to_string(), towers(c)]);
        let orders =
            ["[31m", "[K", "[2J", "[31", "[?25l", "]0;x\u{7}", "(0", "[31n"].map(|order| format!("\u{1b}{order}"));
        let mut joined = 0;
        for between in characters.chain(orders) {
            if shown(format!("hun{between}ter").as_bytes()) == "hunter" {
                assert_eq!(Styling::left_out_of(between.as_bytes()), b"", "{between:?}");
                joined += 1;
            }
        }
        // Selectors of variations, singly and in towers, and two sequences.
        assert_eq!(joined, 2 * (16 + 240) + 2);
    }
}
