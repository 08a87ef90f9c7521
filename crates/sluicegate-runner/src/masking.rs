//! Replaces secrets in a stream, however it is cut into pieces, as they are and as programs usually encode them. Pure: nothing is opened
//! here.
//!
//! All forms of all secrets are found at once (Aho and Corasick, 1975). Every byte that is part of an occurrence is hidden, also where
//! occurrences overlap or touch: such a run becomes one [`MASK`]. What is held back is exactly the longest end of the stream with which a
//! form begins, so that a step that waits after its prompt is seen to have prompted.

use std::{collections::VecDeque, hint::black_box, ops::Range, sync::Arc};

use sluicegate_types::Secret;

/// What stands for a secret.
const MASK: &[u8] = b"***";

/// Anything shorter would be found everywhere.
const MIN_BYTES: usize = 4;

/// Bytes of all secrets together: each byte costs up to fifty nodes of 28 bytes.
const MAX_BYTES: usize = 32 * 1024;

/// Refuses secrets that cannot be masked, by their number and never by their value.
pub(crate) fn check(secrets: &[Secret]) -> Result<(), String> {
    for (index, secret) in secrets.iter().enumerate() {
        // A line end is what an editor adds; programs print the rest without it.
        if secret.expose().trim_ascii_end().len() < MIN_BYTES {
            return Err(format!(
                "secret number {} has less than {MIN_BYTES} bytes: it cannot be masked, for it would be found everywhere; use a longer one",
                index + 1
            ));
        }
    }
    if secrets.iter().map(|secret| secret.expose().len()).sum::<usize>() > MAX_BYTES {
        return Err(format!(
            "the secrets of a step have at most {MAX_BYTES} bytes together; give it fewer or shorter ones"
        ));
    }
    Ok(())
}

/// Every form of every secret, ready to be looked for; shared by the streams of a step.
#[derive(Clone)]
pub(crate) struct Forms(Arc<Automaton>);

impl Forms {
    /// Prepares the forms of these secrets.
    pub(crate) fn of(secrets: &[Secret]) -> Self {
        let mut automaton = Automaton::new();
        for secret in secrets {
            let whole = secret.expose();
            each_form(whole, &mut |form| automaton.insert(form));
            for line in whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end) {
                if line.len() >= MIN_BYTES && line.len() < whole.len() {
                    each_form(line, &mut |form| automaton.insert(form));
                }
            }
        }
        automaton.connect();
        Self(Arc::new(automaton))
    }

    /// A stream from its beginning.
    pub(crate) fn stream(&self) -> Masker {
        Masker {
            forms: self.clone(),
            state: ROOT,
            held: Vec::new(),
            front: 0,
            given: 0,
            read: 0,
            runs: VecDeque::new(),
            hiding: false,
        }
    }
}

/// One stream.
pub(crate) struct Masker {
    forms: Forms,
    state: u32,
    /// What was read and not given; before `front` stands what was given already.
    held: Vec<u8>,
    front: usize,
    /// Bytes of the stream that were given, in one form or the other.
    given: u64,
    /// Bytes of the stream that were read.
    read: u64,
    /// What is to be hidden, in order, neither overlapping nor touching.
    runs: VecDeque<Range<u64>>,
    /// Whether what was given last is a mask.
    hiding: bool,
}

impl Masker {
    /// Takes the next bytes and appends to `out` what is decided.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        for byte in bytes {
            self.read += 1;
            let (state, covers) = self.forms.0.step(self.state, *byte);
            self.state = state;
            if covers > 0 {
                self.hide(self.read - u64::from(covers)..self.read);
            }
        }
        let undecided = self.forms.0.nodes[self.state as usize].depth;
        self.give(self.read - u64::from(undecided), out);
    }

    /// The stream has ended: appends what was held back.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.state = ROOT;
        self.give(self.read, out);
    }

    fn hide(&mut self, mut run: Range<u64>) {
        while let Some(last) = self.runs.back().filter(|last| last.end >= run.start) {
            run.start = run.start.min(last.start);
            self.runs.pop_back();
        }
        self.runs.push_back(run);
    }

    fn give(&mut self, until: u64, out: &mut Vec<u8>) {
        while self.given < until {
            let next = self.runs.front().cloned();
            let end = match &next {
                Some(run) if run.start <= self.given => {
                    if !self.hiding {
                        out.extend_from_slice(MASK);
                    }
                    self.hiding = true;
                    run.end.min(until)
                }
                _ => {
                    self.hiding = false;
                    next.as_ref().map_or(until, |run| run.start.min(until))
                }
            };
            let count = usize::try_from(end - self.given).unwrap_or(usize::MAX);
            if !self.hiding {
                out.extend_from_slice(&self.held[self.front..self.front + count]);
            }
            self.front += count;
            self.given = end;
            if next.is_some_and(|run| run.end <= end) {
                self.runs.pop_front();
            }
        }
        // Only when it pays, so that a stream of single bytes does not move the rest for each of them.
        if self.front * 2 >= self.held.len() {
            self.held.drain(..self.front);
            self.front = 0;
        }
    }
}

impl Drop for Masker {
    fn drop(&mut self) {
        wipe(&mut self.held);
    }
}

const ROOT: u32 = 0;

/// No node: the root is nobody's child.
const NONE: u32 = 0;

struct Automaton {
    nodes: Vec<Node>,
    /// The root's children by their bytes; the root where there is none.
    first: [u32; 256],
}

/// A beginning of a form.
#[derive(Clone, Copy, Default)]
struct Node {
    byte: u8,
    is_form: bool,
    depth: u32,
    child: u32,
    sibling: u32,
    /// The longest other beginning with which this one ends.
    fallback: u32,
    /// Bytes of the longest form with which this one ends.
    covers: u32,
    /// This one if a form goes on from it, else the longest such fallback: nothing else needs to be held back.
    rest: u32,
}

impl Automaton {
    fn new() -> Self {
        Self { nodes: vec![Node::default()], first: [NONE; 256] }
    }

    fn insert(&mut self, form: &[u8]) {
        let mut at = ROOT;
        for byte in form {
            at = match self.child(at, *byte) {
                NONE => self.add(at, *byte),
                child => child,
            };
        }
        self.nodes[at as usize].is_form = at != ROOT;
    }

    fn add(&mut self, parent: u32, byte: u8) -> u32 {
        // The limit of all secrets together keeps this far below 2^32.
        let index = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let above = &mut self.nodes[parent as usize];
        let node = Node { byte, depth: above.depth + 1, sibling: above.child, ..Node::default() };
        above.child = index;
        if parent == ROOT {
            self.first[usize::from(byte)] = index;
        }
        self.nodes.push(node);
        index
    }

    /// Finds the fallbacks, those of short beginnings first.
    fn connect(&mut self) {
        let mut order = Vec::with_capacity(self.nodes.len());
        order.push(ROOT);
        let mut next = 0;
        while let Some(parent) = order.get(next).copied() {
            next += 1;
            let mut child = self.nodes[parent as usize].child;
            while child != NONE {
                let Node { byte, sibling, .. } = self.nodes[child as usize];
                let fallback = match parent {
                    ROOT => ROOT,
                    _ => self.advance(self.nodes[parent as usize].fallback, byte),
                };
                let Node { covers, rest, .. } = self.nodes[fallback as usize];
                let node = &mut self.nodes[child as usize];
                node.fallback = fallback;
                node.covers = if node.is_form { node.depth } else { covers };
                node.rest = if node.child == NONE { rest } else { child };
                order.push(child);
                child = sibling;
            }
        }
    }

    /// The state after one more byte, and how many of the last bytes are an occurrence.
    fn step(&self, state: u32, byte: u8) -> (u32, u32) {
        let node = &self.nodes[self.advance(state, byte) as usize];
        (node.rest, node.covers)
    }

    fn advance(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            match self.child(state, byte) {
                NONE if state == ROOT => return ROOT,
                NONE => state = self.nodes[state as usize].fallback,
                child => return child,
            }
        }
    }

    fn child(&self, parent: u32, byte: u8) -> u32 {
        if parent == ROOT {
            return self.first[usize::from(byte)];
        }
        let mut child = self.nodes[parent as usize].child;
        while child != NONE && self.nodes[child as usize].byte != byte {
            child = self.nodes[child as usize].sibling;
        }
        child
    }
}

impl Drop for Automaton {
    fn drop(&mut self) {
        self.nodes.fill(Node::default());
        black_box(&self.nodes);
    }
}

/// Tells the text as it is, and as base64, hexadecimal digits and percent escapes show it.
fn each_form(text: &[u8], tell: &mut dyn FnMut(&[u8])) {
    tell(text);
    let mut scratch = Vec::with_capacity(text.len() * 3 + 8);
    for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
        scratch.clear();
        for byte in text {
            scratch.extend(digit_pair(digits, *byte));
        }
        tell(&scratch);
        for plain in PLAIN {
            scratch.clear();
            for byte in text {
                match byte {
                    b' ' if plain == Some(FORM) => scratch.push(b'+'),
                    byte if plain.is_some_and(|plain| byte.is_ascii_alphanumeric() || plain.contains(byte)) => {
                        scratch.push(*byte);
                    }
                    byte => {
                        scratch.push(b'%');
                        scratch.extend(digit_pair(digits, *byte));
                    }
                }
            }
            tell(&scratch);
        }
    }
    for alphabet in [STANDARD, URL_SAFE] {
        for before in 0..3 {
            base64(text, before, alphabet, &mut scratch, tell);
        }
    }
    wipe(&mut scratch);
}

/// What stands beside letters and digits without an escape: of RFC 3986, of the same with slashes, of encodeURIComponent, of forms (where
/// a space is a plus); and nothing, not even letters.
const PLAIN: [Option<&[u8]>; 5] = [Some(b"-._~"), Some(b"-._~/"), Some(b"-._~!*'()"), Some(FORM), None];
const FORM: &[u8] = b"-._*";

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn digit_pair(digits: &[u8; 16], byte: u8) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
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

fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[&[u8]]) -> Vec<Secret> {
        values.iter().map(|value| Secret::new(value.to_vec())).collect()
    }

    fn masked(values: &[&[u8]], pieces: &[&[u8]]) -> String {
        let mut masker = Forms::of(&secrets(values)).stream();
        let mut out = Vec::new();
        for piece in pieces {
            masker.push(piece, &mut out);
        }
        masker.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn an_occurrence_is_masked_also_in_pieces_and_the_rest_stays() {
        assert_eq!(masked(&[b"hunter22"], &[b"a hunter22 b hunter2"]), "a *** b hunter2");
        assert_eq!(masked(&[b"hunter22"], &[b"a hun", b"", b"ter22", b" b"]), "a *** b");
        assert_eq!(masked(&[], &[b"a hunter22"]), "a hunter22");
        assert_eq!(masked(&[b"hunter22"], &[]), "");
        // Each byte of overlapping and touching occurrences is hidden.
        assert_eq!(masked(&[b"abcd", b"cdef"], &[b"-abcdef-"]), "-***-");
        assert_eq!(masked(&[b"abcd"], &[b"-abcdabcd-"]), "-***-");
        assert_eq!(masked(&[b"abcd", b"abcdefgh"], &[b"abcdefg abcdefgh"]), "***efg ***");
        assert_eq!(masked(&[b"aaaa"], &[b"aaa", b"b", b"aaaaaaa"]), "aaab***");
    }

    #[test]
    fn usual_encodings_are_masked() {
        let secret: &[u8] = b"p@ss w/rd?\xfb";
        for text in [
            "p%40ss%20w%2Frd%3F%FB",
            "p%40ss%20w%2frd%3f%fb",
            "p%40ss+w%2Frd%3F%FB",
            "p%40ss%20w/rd%3F%FB",
            "%70%40%73%73%20%77%2F%72%64%3F%FB",
            "7040737320772f72643ffb",
            "7040737320772F72643FFB",
        ] {
            assert_eq!(masked(&[secret], &[text.as_bytes()]), "***", "{text}");
        }
        // base64 of the secret alone, after one byte and after two, with and without more behind it.
        for (text, expected) in [
            ("cEBzcyB3L3JkP/s=", "***"),
            ("cEBzcyB3L3JkP_s", "***"),
            ("eHBAc3Mgdy9yZD/7", "eH***"),
            ("eHBAc3Mgdy9yZD_7", "eH***"),
            ("eHhwQHNzIHcvcmQ/+w==", "eHh***"),
            ("eHhwQHNzIHcvcmQ_-w", "eHh***"),
            ("eHhwQHNzIHcvcmQ/+3g=", "eHh***3g="),
        ] {
            assert_eq!(masked(&[secret], &[text.as_bytes()]), expected, "{text}");
        }
    }

    #[test]
    fn lines_are_masked_singly() {
        let secret: &[u8] = b"-----BEGIN\r\nfirst line\nabc\n\nsecond line\n";
        assert_eq!(masked(&[secret], &[b"1 first line 2 second line 3 abc\n"]), "1 *** 2 *** 3 abc\n");
        assert_eq!(masked(&[secret], &[secret]), "***");
        assert_eq!(masked(&[b"token\n"], &[b"token"]), "***");
    }

    #[test]
    fn a_secret_is_refused_by_its_number_and_not_by_its_value() {
        assert_eq!(check(&secrets(&[b"abcd", b"12345678"])), Ok(()));
        for short in [&b"xyz"[..], b"xyz\n", b"xyz  \r\n", b""] {
            let reason = check(&secrets(&[b"abcd", short])).unwrap_err();
            assert!(reason.contains("number 2") && !reason.contains("xyz"), "{reason}");
        }
        let half = vec![b'x'; MAX_BYTES / 2];
        assert_eq!(check(&secrets(&[&half, &half])), Ok(()));
        assert!(check(&secrets(&[&half, &half, b"abcd"])).is_err());
    }

    /// Numbers that are the same in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 11).unwrap() % bound
        }
    }

    #[test]
    fn cuts_change_nothing_no_form_remains_and_little_is_held_back() {
        let mut numbers = Numbers(0x5eed);
        for round in 0..1000 {
            // Few letters, so that beginnings, overlaps and repetitions are frequent.
            let letters: &[u8] = [&b"ab"[..], b"abc\n", b"a+/ \xff%4"][round % 3];
            let values: Vec<Vec<u8>> = (0..1 + numbers.below(3))
                .map(|_| (0..4 + numbers.below(12)).map(|_| letters[numbers.below(letters.len())]).collect())
                .collect();
            let secrets: Vec<Secret> = values.iter().map(|value| Secret::new(value.clone())).collect();
            let mut all_forms: Vec<Vec<u8>> = Vec::new();
            for value in &values {
                each_form(value, &mut |form| all_forms.push(form.to_vec()));
                for line in
                    value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| line.len() >= 4)
                {
                    each_form(line, &mut |form| all_forms.push(form.to_vec()));
                }
            }
            let mut text = Vec::new();
            while text.len() < 200 {
                match numbers.below(3) {
                    0 => text.push(letters[numbers.below(letters.len())]),
                    1 => text.extend_from_slice(&all_forms[numbers.below(all_forms.len())]),
                    _ => {
                        let form = &all_forms[numbers.below(all_forms.len())];
                        text.extend_from_slice(&form[..numbers.below(form.len())]);
                    }
                }
            }
            let forms = Forms::of(&secrets);
            let mut whole = Vec::new();
            let mut masker = forms.stream();
            masker.push(&text, &mut whole);
            masker.finish(&mut whole);

            let longest = all_forms.iter().map(Vec::len).max().unwrap();
            let (mut out, mut masker, mut rest) = (Vec::new(), forms.stream(), &text[..]);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((1 + numbers.below(9)).min(rest.len()));
                masker.push(piece, &mut out);
                assert!(masker.read - masker.given < longest as u64, "round {round}");
                rest = after;
            }
            masker.finish(&mut out);
            assert_eq!(out, whole, "round {round}");

            // The slow way: every byte of every occurrence is hidden, every other one is there.
            let mut hidden = vec![false; text.len()];
            for form in &all_forms {
                for at in 0..=text.len().saturating_sub(form.len()) {
                    if text[at..].starts_with(form) {
                        hidden[at..at + form.len()].fill(true);
                    }
                }
            }
            let mut expected = Vec::new();
            for (index, byte) in text.iter().enumerate() {
                match hidden[index] {
                    false => expected.push(*byte),
                    true if index == 0 || !hidden[index - 1] => expected.extend_from_slice(MASK),
                    true => {}
                }
            }
            assert_eq!(out, expected, "round {round}");
            assert!(
                all_forms.iter().all(|form| !out.windows(form.len()).any(|window| window == form)),
                "round {round}"
            );
        }
    }

    #[test]
    fn single_bytes_of_a_stream_that_looks_like_a_secret_cost_no_more_than_a_large_piece() {
        // A stream that is held back at the secret's whole length all the time; with a move of the rest for each byte, or a new search
        // of it, this would be 10^10 steps.
        let mut value = vec![b'a'; 16_000];
        value.push(b'b');
        let mut masker = Forms::of(&secrets(&[&value])).stream();
        let mut out = Vec::new();
        for _ in 0..600_000 {
            masker.push(b"a", &mut out);
        }
        masker.finish(&mut out);
        assert_eq!(out.len(), 600_000);
    }
}
