//! Replaces secrets in a stream, however it is cut into pieces, as they are and as programs usually write them, and in what else a step
//! decides and the runner tells. Pure: nothing is opened here.
//!
//! All forms of all secrets are found at once. Every byte that is part of an occurrence is hidden, also where occurrences overlap or touch:
//! such a run becomes one [`MASK`]. What is held back is the longest end of the stream with which a form begins, so that a step that
//! waits after its prompt is seen to have prompted; between digits of a form line ends and the like may stand, a limited number of them,
//! and within any form what only styles it: whoever shows the output leaves that out (`Styling`), and must not put a secret together.
//!
//! Not masked, beside what no program prints as a matter of course: letters beyond ASCII in the other case; text of which only some bytes
//! are escaped, as Python prints bytes (`b'caf\xc3\xa9'`); percent escapes that leave other marks than the usual ones as they are.

mod automaton;
mod outcome;
mod report;
mod search;
mod spellings;
mod stream;

use std::{hint::black_box, sync::Arc};

use sluicegate_types::{Secret, Styling};

use automaton::Automaton;
use search::Lane;
use spellings::{Family, each_form, each_part, in_words};
pub(crate) use stream::Masker;

/// What stands for a secret.
const MASK: &[u8] = b"***";

/// Anything shorter would be found everywhere.
const MIN_BYTES: usize = 4;

/// Bytes of all secrets together: each byte of a usual one costs some thirty nodes of 28 bytes, three times if it has lines.
const MAX_BYTES: usize = 32 * 1024;

/// Refuses secrets that cannot be masked, by their number and never by their value.
pub(crate) fn check(secrets: &[Secret]) -> Result<(), String> {
    for (index, secret) in secrets.iter().enumerate() {
        check_secret(secret).map_err(|reason| format!("secret number {} {reason}", index + 1))?;
    }
    if secrets.iter().map(|secret| secret.expose().len()).sum::<usize>() > MAX_BYTES {
        return Err(format!(
            "the secrets of a step have at most {MAX_BYTES} bytes together; give it fewer or shorter ones"
        ));
    }
    Ok(())
}

/// Refuses a secret that cannot be masked. What it says stands behind the secret's name.
pub fn check_secret(secret: &Secret) -> Result<(), String> {
    // A line end is what an editor adds, and a shell makes one blank of many; programs print the rest without them.
    let mut words = in_words(secret.expose());
    let length = words.len();
    wipe(&mut words);
    if length < MIN_BYTES {
        return Err(format!(
            "has less than {MIN_BYTES} bytes: it cannot be masked, for it would be found everywhere; use a longer one"
        ));
    }
    Ok(())
}

/// Every form of every secret, ready to be looked for; shared by the streams of a step.
#[derive(Clone)]
pub(crate) struct Forms(Arc<[Lane]>);

impl Forms {
    /// Prepares the forms of these secrets; refuses those that [`check`] refuses.
    pub(crate) fn of(secrets: &[Secret]) -> Result<Self, String> {
        check(secrets)?;
        let mut lanes = Family::ALL.map(|family| Lane { family, automaton: Automaton::new() });
        for secret in secrets {
            each_part(secret.expose(), MIN_BYTES, &mut |part| {
                each_form(part, &mut |family, form| {
                    let lane = &mut lanes[family as usize];
                    lane.insert(form);
                    // As it is shown, a secret lacks what styles it.
                    let mut shown = Styling::left_out_of(form);
                    if shown.len() < form.len() && shown.trim_ascii().len() >= MIN_BYTES {
                        lane.insert(&shown);
                    }
                    wipe(&mut shown);
                });
            });
        }
        lanes.iter_mut().for_each(|lane| lane.automaton.connect());
        Ok(Self(Arc::new(lanes)))
    }

    /// A stream from its beginning.
    pub(crate) fn stream(&self) -> Masker {
        Masker::new(self.clone())
    }

    /// Whether there is nothing to look for.
    fn is_empty(&self) -> bool {
        self.0.iter().all(|lane| lane.automaton.is_empty())
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
        let mut masker = Forms::of(&secrets(values)).unwrap().stream();
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
    fn escapes_of_forms_and_of_attributes_are_masked() {
        for text in ["my+pass~word%2A1", "my+pass%7Eword*1", "my%20pass~word%2a1", "my%20pass~word*1"] {
            assert_eq!(masked(&[b"my pass~word*1"], &[format!("a={text}&b").as_bytes()]), "a=***&b", "{text}");
        }
        assert_eq!(masked(&[b"my pass~word*1"], &[b"my+pass~word*1"]), "my+pass~word*1");
        // As a whole: its last line is too short to be masked alone.
        let secret: &[u8] = b"ab\tc\"\r\nd'e";
        for text in [
            "ab&#9;c&quot;&#13;&#10;d'e",
            "ab&#09;c&quot;&#13;&#10;d'e",
            "ab&#9;c&quot;&#xD;&#xA;d'e",
            "ab&#x9;c&#34;&#xD;&#xA;d&#39;e",
        ] {
            assert_eq!(masked(&[secret], &[format!("<a b=\"{text}\"/>").as_bytes()]), "<a b=\"***\"/>", "{text}");
        }
        assert_eq!(masked(&[secret], &[b"ab&#11;c"]), "ab&#11;c");
    }

    #[test]
    fn lines_are_masked_singly() {
        let secret: &[u8] = b"-----BEGIN\r\nfirst line\nabc\n\nsecond line\n";
        assert_eq!(masked(&[secret], &[b"1 first line 2 second line 3 abc\n"]), "1 *** 2 *** 3 abc\n");
        assert_eq!(masked(&[secret], &[secret]), "***");
        assert_eq!(masked(&[b"token\n"], &[b"token"]), "***");
        // A line that is indented in the file and not where it is printed.
        assert_eq!(masked(&[b"a:\n    password1\n"], &[b"is password1."]), "is ***.");
    }

    #[test]
    fn what_a_shell_makes_of_blanks_is_masked() {
        let secret: &[u8] = b"  first \t  second\nthird ";
        for text in ["  first \t  second\nthird ", "first \t  second\nthird", "first second third"] {
            assert_eq!(masked(&[secret], &[text.as_bytes()]).trim(), "***", "{text:?}");
        }
        assert_eq!(masked(&[secret], &[b"is first second."]), "is ***.");
        assert_eq!(masked(&[secret], &[b"first  second"]), "first  second");
    }

    #[test]
    fn base64_that_is_wrapped_is_masked_at_each_width() {
        let secret: Vec<u8> = (0..93_u8).map(|n| b'!' + n).collect();
        let mut encoded = Vec::new();
        each_form(&secret, &mut |family, form| {
            if family == Family::Base64 {
                encoded.push(form.to_vec());
            }
        });
        for (width, end) in [(76, "\n"), (64, "\r\n"), (60, "\n    "), (4, "\n\n"), (3, "\n")] {
            for form in &encoded {
                let mut text = b"data: ".to_vec();
                for line in form.chunks(width) {
                    text.extend_from_slice(line);
                    text.extend_from_slice(end.as_bytes());
                }
                assert_eq!(masked(&[&secret], &[&text]).trim_end(), "data: ***", "{width} {end:?}");
                let (one, other) = text.split_at(text.len() / 2);
                assert_eq!(masked(&[&secret], &[one, other]).trim_end(), "data: ***", "{width} {end:?}");
            }
        }
        // Blanks in the midst of a line and long gaps belong to no encoding.
        let form = String::from_utf8(encoded[0].clone()).unwrap();
        for gap in [" ", &"\n".repeat(65)] {
            let text = format!("{}{gap}{}", &form[..40], &form[40..]);
            assert_eq!(masked(&[&secret], &[text.as_bytes()]), text);
        }
    }

    #[test]
    fn digits_are_masked_as_programs_group_them() {
        for text in [
            "68 75 6e 74 65 72 32 32",
            "68:75:6E:74:65:72:32:32",
            "6875 6e74\n  6572 3232",
            "68756E7465723232",
            "68756e74\r\n65723232",
            "\\x68\\x75\\x6e\\x74\\x65\\x72\\x32\\x32",
            "0x68, 0x75, 0x6e, 0x74,\n  0x65, 0x72, 0x32, 0x32",
            "0x68,0x75,0x6E,0x74,0x65,0x72,0x32,0x32",
        ] {
            assert_eq!(masked(&[b"hunter22"], &[text.as_bytes()]), "***", "{text}");
            assert_eq!(masked(&[b"hunter22"], &[format!(" 00 {text}\n").as_bytes()]), " 00 ***\n", "{text}");
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(masked(&[b"hunter22"], &pieces), "***", "{text}");
        }
        assert_eq!(masked(&[b"hunter22"], &[b"6 87 56 e7 46 57 23 23 2"]), "6 87 56 e7 46 57 23 23 2");
    }

    #[test]
    fn escapes_of_json_xml_and_shells_are_masked() {
        let secret = "a\"b\\c'd<e&f/g\th\u{fc}";
        for text in [
            r#"a\"b\\c'd<e&f/g\thü"#,
            r#"a\"b\\c'd<e&f\/g\thü"#,
            r#"a\"b\\c'd\u003Ce\u0026f/g\thü"#,
            r#"a\"b\\c'd<e&f/g\th\u00fc"#,
            "a\"b\\c'd&lt;e&amp;f/g\thü",
            "a&quot;b\\c'd&lt;e&amp;f/g\thü",
            "a&quot;b\\c&apos;d&lt;e&amp;f/g\thü",
            "a&quot;b\\c&#39;d&lt;e&amp;f/g\thü",
            "a&quot;b\\c&#x27;d&lt;e&amp;f/g\thü",
            "a&#34;b\\c&#39;d&lt;e&amp;f/g\thü",
            "a\"b\\c'\\''d<e&f/g\thü",
            "a\"b\\c'\"'\"'d<e&f/g\thü",
            "a\\\"b\\\\c'd<e&f/g\thü",
            "a\\\"b\\\\c\\'d\\<e\\&f/g\\\thü",
            r#"a"b\\c\'d<e&f/g\thü"#,
        ] {
            assert_eq!(masked(&[secret.as_bytes()], &[format!("<{text}>").as_bytes()]), "<***>", "{text}");
        }
    }

    #[test]
    fn what_styles_a_secret_does_not_hide_it_from_the_masker() {
        let secret: &[u8] = b"hunter22-long-secret";
        let grep = "\u{1b}[01;31m\u{1b}[K";
        let end = "\u{1b}[m\u{1b}[K";
        for (text, expected) in [
            (format!("is hun{grep}ter{end}22-long-secret!\n"), "is ***!\n".to_owned()),
            (format!("is {grep}hunter22-long-secret{end}!\n"), format!("is {grep}***{end}!\n")),
            ("hun\u{fe0f}ter22-l\u{e0101}ong-secret\u{fe0f}".to_owned(), "***\u{fe0f}".to_owned()),
            // In each way of writing it, with what a way of its own passes over.
            (
                format!("{grep}68 75{end} 6e {grep}74 65{end}\n72 32 32 2d 6c 6f 6e 67 2d 73 65 63 72 65 74"),
                format!("{grep}***"),
            ),
            (format!("aHVudGVyM{grep}jIt\nbG9u{end}Zy1zZWNyZXQ="), "***".to_owned()),
            (
                format!(
                    "\\x68{end}\\x75\\x6e\\x74\\x65\\x72\\x32\\x32\\x2d\\x6c\\x6f\\x6e\\x67\\x2d\\x73\\x65\\x63\\x72\\x65\\x74"
                ),
                "***".to_owned(),
            ),
        ] {
            assert_eq!(masked(&[secret], &[text.as_bytes()]), expected, "{text:?}");
            for cut in 0..text.len() {
                let (one, other) = text.as_bytes().split_at(cut);
                assert_eq!(masked(&[secret], &[one, other]), expected, "{cut} {text:?}");
            }
        }
        // Without a secret it stays as it was, also where something else stands within what looks like one.
        for text in [
            format!("{grep}harmless{end} \u{2764}\u{fe0f} hun{grep}ter{end}23"),
            "hun\u{1b}[2Jter22-long-secret hun\u{1b}ter22-long-secret hun\u{fffd}ter22-long-secret".to_owned(),
            format!("hunter{grep}"),
            "hunter\u{1b}[3".to_owned(),
        ] {
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(masked(&[secret], &bytes), text, "{text:?}");
        }
    }

    #[test]
    fn a_secret_that_is_styled_itself_is_masked_with_and_without_that() {
        let secret = "pass\u{2764}\u{fe0f}word \u{1b}[1m22";
        for text in [secret, "pass\u{2764}word 22", "pa\u{1b}[mss\u{2764}\u{fe0f}word \u{1b}[1m22"] {
            assert_eq!(masked(&[secret.as_bytes()], &[format!("<{text}>").as_bytes()]), "<***>", "{text:?}");
        }
        // Of this one nothing is shown that could be masked.
        assert_eq!(masked(&[b"\x1b[1;31mab\x1b[0m"], &[b"ab \x1b[1;31mab\x1b[0m"]), "ab ***");
        // The end of the stream makes text of what did not become a sequence.
        assert_eq!(masked(&[b"hunter\x1b[3"], &[b"hun\x1b[mter\x1b[3"]), "***");
        assert_eq!(masked(&[b"hunter\x1b[3"], &[b"hun\x1b[mter\x1b[3 "]), "*** ");
    }

    #[test]
    fn little_is_held_back_however_much_styles_a_beginning() {
        let forms = Forms::of(&secrets(&[b"hunter22"])).unwrap();
        let (mut masker, mut out) = (forms.stream(), Vec::new());
        for letter in ["hunt", "er2"] {
            masker.push(letter.as_bytes(), &mut out);
            for _ in 0..100_000 {
                masker.push(b"\x1b[m", &mut out);
                assert!(masker.held() < search::MAX_STYLING + 100);
            }
        }
        masker.push(b"2", &mut out);
        masker.finish(&mut out);
        assert!(out.starts_with(b"hunt\x1b[m") && out.ends_with(b"\x1b[m2"));
        // A line as long as those that are shown is not too much; a beginning within one that is given up counts.
        let much = "\x1b[m".repeat(4000);
        assert_eq!(masked(&[b"hunter22"], &[format!("hun{much}ter{much}22").as_bytes()]), "***");
        let (long, later) = ("\x1b[m".repeat(20_000), "\x1b[m".repeat(10_000));
        let seen = masked(&[b"aaaabbbb"], &[format!("aa{long}aa{later}aabb{later}bb").as_bytes()]);
        assert_eq!(seen, format!("aa{long}***"));
    }

    #[test]
    fn letters_count_in_either_case_but_not_in_base64() {
        assert_eq!(masked(&[b"Hunter22"], &[b"HUNTER22.hunter22"]), "***.***");
        assert_eq!(masked(&[b"Hunter22"], &[b"SHVUDGVYMJI"]), "SHVUDGVYMJI");
    }

    #[test]
    fn a_line_end_after_what_only_begins_like_a_form_is_not_waited_for() {
        let mut masker = Forms::of(&secrets(&[b"hunter22"])).unwrap().stream();
        let mut out = Vec::new();
        // "68" begins its digits, "aH" its base64.
        for line in ["took 68\n", "said aH\n"] {
            masker.push(line.as_bytes(), &mut out);
            assert!(out.ends_with(line.as_bytes()), "{line}");
        }
        masker.push(b"said aHVu\n", &mut out);
        assert!(out.ends_with(b"said "));
        masker.push(b"dGVyMjI=\n", &mut out);
        masker.finish(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), "took 68\nsaid aH\nsaid ***\n");
    }

    #[test]
    fn a_secret_is_refused_by_its_number_and_not_by_its_value() {
        assert_eq!(check(&secrets(&[b"abcd", b"12345678"])), Ok(()));
        for short in [&b"xyz"[..], b"xyz\n", b"xyz  \r\n", b"  xyz", b"x   z", b""] {
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
        let (mut numbers, mut exact) = (Numbers(0x5eed), 0);
        for round in 0..1400 {
            // Few letters, so that beginnings, overlaps and repetitions are frequent.
            let letters: &[u8] = [&b"ab"[..], b"abc\n", b"a+/ \xff%4", b"ab\x1b[m"][round % 4];
            let values: Vec<Vec<u8>> = (0..1 + numbers.below(3))
                .map(|_| (0..4 + numbers.below(12)).map(|_| letters[numbers.below(letters.len())]).collect())
                .collect();
            let secrets: Vec<Secret> = values.iter().map(|value| Secret::new(value.clone())).collect();
            if check(&secrets).is_err() {
                continue;
            }
            let mut all_forms: Vec<(Family, Vec<u8>)> = Vec::new();
            for value in &values {
                each_part(value, MIN_BYTES, &mut |part| {
                    each_form(part, &mut |family, form| all_forms.push((family, form.to_vec())));
                });
            }
            let is_form = |text: &[u8], (family, form): &(Family, Vec<u8>)| {
                if family.folds() { text.eq_ignore_ascii_case(form) } else { text == form }
            };
            let mut text = Vec::new();
            while text.len() < 200 {
                match numbers.below(4) {
                    3 if letters.contains(&0x1b) => text.extend_from_slice(b"\x1b[m"),
                    0 => text.push(letters[numbers.below(letters.len())]),
                    1 => text.extend_from_slice(&all_forms[numbers.below(all_forms.len())].1),
                    _ => {
                        let form = &all_forms[numbers.below(all_forms.len())].1;
                        text.extend_from_slice(&form[..numbers.below(form.len())]);
                    }
                }
            }
            let forms = Forms::of(&secrets).unwrap();
            let mut whole = Vec::new();
            let mut masker = forms.stream();
            masker.push(&text, &mut whole);
            masker.finish(&mut whole);

            let longest = all_forms.iter().map(|(_, form)| form.len()).max().unwrap();
            let (mut out, mut masker, mut rest) = (Vec::new(), forms.stream(), &text[..]);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((1 + numbers.below(9)).min(rest.len()));
                masker.push(piece, &mut out);
                assert!(masker.held() < longest as u64 * 65, "round {round}");
                rest = after;
            }
            masker.finish(&mut out);
            assert_eq!(out, whole, "round {round}");
            let remains = |form: &(Family, Vec<u8>)| out.windows(form.1.len()).any(|window| is_form(window, form));
            assert!(!all_forms.iter().any(remains), "round {round}");
            let shown = Styling::left_out_of(&out);
            let joined = |(family, form): &(Family, Vec<u8>)| {
                let form = (*family, Styling::left_out_of(form));
                form.1.len() >= MIN_BYTES && shown.windows(form.1.len()).any(|window| is_form(window, &form))
            };
            assert!(!all_forms.iter().any(joined), "round {round}");

            // Where nothing is passed over, the slow way: every byte of every occurrence is hidden, every other one is there.
            let passed_over =
                |byte: &u8| *byte == 0x1b || Family::ALL.iter().any(|family| family.passes_over(*byte, true));
            if text.iter().any(passed_over) {
                continue;
            }
            exact += 1;
            let mut hidden = vec![false; text.len()];
            for form in &all_forms {
                for (at, window) in text.windows(form.1.len()).enumerate() {
                    if is_form(window, form) {
                        hidden[at..at + form.1.len()].fill(true);
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
        }
        assert!(exact > 300, "{exact}");
    }

    #[test]
    fn single_bytes_of_a_stream_that_looks_like_a_secret_cost_no_more_than_a_large_piece() {
        // A stream that is held back at the secret's whole length all the time; with a move of the rest for each byte, or a new search
        // of it, this would be 10^10 steps.
        let mut value = vec![b'a'; 16_000];
        value.push(b'b');
        let mut masker = Forms::of(&secrets(&[&value])).unwrap().stream();
        let mut out = Vec::new();
        for _ in 0..600_000 {
            masker.push(b"a", &mut out);
        }
        masker.finish(&mut out);
        assert_eq!(out.len(), 600_000);
    }
}
