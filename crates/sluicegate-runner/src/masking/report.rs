//! Looks for secrets in a report of tests, whose words are told on: names of tests in statements, what is wrong with it in errors.

use std::io::{self, Read};

use super::{Forms, search::Search};

/// Bytes of the longest reference that is read as one: `&#x0010ffff;`, with some zeros.
const MAX_REFERENCE: usize = 16;

impl Forms {
    /// Whether a form stands in a document, as it is or with its characters written as XML's references.
    pub(crate) fn are_in(&self, mut document: impl Read) -> io::Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        let (mut written, mut meant) = (Search::new(), Search::new());
        let mut references = References::default();
        let (mut piece, mut text) = (vec![0; 64 * 1024], Vec::new());
        loop {
            let count = match document.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            text.clear();
            references.push(&piece[..count], &mut text);
            if self.found(&mut written, &piece[..count]) || self.found(&mut meant, &text) {
                return Ok(true);
            }
        }
        if self.found(&mut meant, &references.begun) {
            return Ok(true);
        }
        let mut found = false;
        [written, meant].iter_mut().for_each(|search| search.finish(&self.0, &mut |_| found = true));
        Ok(found)
    }

    fn found(&self, search: &mut Search, bytes: &[u8]) -> bool {
        let mut found = false;
        bytes.iter().for_each(|byte| search.take(&self.0, *byte, &mut |_| found = true));
        found
    }
}

/// Puts characters in place of references to them.
#[derive(Default)]
struct References {
    /// What may become a reference, from its `&` on.
    begun: Vec<u8>,
}

impl References {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            if *byte == b'&' {
                out.append(&mut self.begun);
                self.begun.push(b'&');
            } else if self.begun.is_empty() {
                out.push(*byte);
            } else {
                self.begun.push(*byte);
                if *byte == b';' {
                    match meaning(&self.begun[1..self.begun.len() - 1]) {
                        Some(character) => {
                            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                            self.begun.clear();
                        }
                        None => out.append(&mut self.begun),
                    }
                } else if self.begun.len() >= MAX_REFERENCE || !(byte.is_ascii_alphanumeric() || *byte == b'#') {
                    out.append(&mut self.begun);
                }
            }
        }
    }
}

fn meaning(name: &[u8]) -> Option<char> {
    match std::str::from_utf8(name).ok()? {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        other => {
            let number = other.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_types::Secret;

    use super::*;

    fn is_in(document: &str) -> bool {
        let forms = Forms::of(&[Secret::new(b"p<ss&w\"rd22".to_vec())]).unwrap();
        let whole = forms.are_in(document.as_bytes()).unwrap();
        // Where it is cut decides nothing.
        let halves = document.as_bytes().split_at(document.len() / 2);
        assert_eq!(forms.are_in(halves.0.chain(halves.1)).unwrap(), whole, "{document}");
        whole
    }

    #[test]
    fn a_secret_is_found_however_xml_writes_its_characters() {
        for written in [
            "p<ss&w\"rd22",
            "p&lt;ss&amp;w&quot;rd22",
            "p&#60;ss&#x26;w&#34;rd22",
            "&#112;&#x3C;s&#000115;&amp;w&#x22;rd22",
            "cDxzcyZ3InJkMjI=",
        ] {
            assert!(is_in(&format!("<testcase name=\"x {written} y\"/>")), "{written}");
            assert!(is_in(&format!("&{written}")), "{written}");
        }
        assert!(is_in("not XML &am p&lt;ss&amp;w&quot;rd22"));
    }

    #[test]
    fn what_only_resembles_it_is_no_secret() {
        for document in
            ["<testcase name=\"p&lt;ss\"/>", "p&lt;ss&amp;w&quot;rd&unknown;22", "", "&", "&#60", "&#x110000;"]
        {
            assert!(!is_in(document), "{document}");
        }
        let nothing = Forms::of(&[]).unwrap();
        assert!(!nothing.are_in(&b"anything"[..]).unwrap());
    }
}
