//! Which contents a content names, and all that are reached from some.
//!
//! It is asked generously: whatever looks like the name of a content and is one counts, be it in a bundle's statement, a manifest, a list of
//! a decision's inputs or a report that somebody else's program wrote. So no form of document has to be known here for what it names to be
//! kept, and what a later version writes is kept, too. Too much may be kept for it, never too little.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use sluicegate_attestation::bundle::MAX_BUNDLE;
use sluicegate_ports::store::{ContentStore, StoreError};
use sluicegate_types::{Digest, Hasher};

pub(super) type Contents = BTreeSet<Digest>;

/// Characters of a digest in hexadecimal.
const HEX: usize = 64;

/// What of a bundle holds a statement.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

/// A content whose references could not be read.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) content: Digest,
    pub(super) error: StoreError,
}

/// The contents of a store, and which of them each names; each is read once.
pub(super) struct References<'a> {
    store: &'a dyn ContentStore,
    held: &'a BTreeMap<Digest, u64>,
    known: BTreeMap<Digest, Vec<Digest>>,
}

impl<'a> References<'a> {
    /// Of what `store` holds, with the sizes of it.
    pub(super) fn new(store: &'a dyn ContentStore, held: &'a BTreeMap<Digest, u64>) -> Self {
        Self { store, held, known: BTreeMap::new() }
    }

    pub(super) fn holds(&self, content: &Digest) -> bool {
        self.held.contains_key(content)
    }

    /// Bytes of a content; nothing if it is not there.
    pub(super) fn size(&self, content: &Digest) -> u64 {
        self.held.get(content).copied().unwrap_or_default()
    }

    pub(super) fn held(&self) -> impl Iterator<Item = (&Digest, &u64)> {
        self.held.iter()
    }

    /// What the store holds of `roots`, and of all that these name, and so on; it goes no further where it comes upon one of `already`.
    pub(super) fn reach(&mut self, roots: Contents, already: &Contents) -> Result<Contents, Unread> {
        let mut reached = Contents::new();
        let mut waiting: Vec<Digest> = roots.into_iter().collect();
        while let Some(content) = waiting.pop() {
            if !self.holds(&content) || already.contains(&content) || !reached.insert(content) {
                continue;
            }
            waiting.extend(self.of(&content).map_err(|error| Unread { content, error })?);
        }
        Ok(reached)
    }

    fn of(&mut self, content: &Digest) -> Result<Vec<Digest>, StoreError> {
        if let Some(known) = self.known.get(content) {
            return Ok(known.clone());
        }
        let mut named = match self.held.get(content) {
            Some(size) if *size <= MAX_BUNDLE as u64 => self.of_document(content)?,
            Some(_) => self.of_large(content)?,
            None => Contents::new(),
        };
        named.remove(content);
        let named: Vec<Digest> = named.into_iter().filter(|named| self.holds(named)).collect();
        self.known.insert(*content, named.clone());
        Ok(named)
    }

    fn of_document(&self, content: &Digest) -> Result<Contents, StoreError> {
        // Bytes that are not those of the name say nothing about what the right ones would name.
        let bytes = self.store.read(content, MAX_BUNDLE as u64)?;
        let mut named = Contents::new();
        named_in(&bytes, &mut named);
        // Whatever the rest of a bundle is: one that is not verified today may be by a later version.
        if bytes.first() == Some(&b'{')
            && let Ok(signed) = serde_json::from_slice::<Signed>(&bytes)
            && let Ok(payload) = BASE64.decode(signed.dsse_envelope.payload)
        {
            named_in(&payload, &mut named);
        }
        Ok(named)
    }

    /// A report may be larger than a bundle. What does not begin like JSON is a layer, an output or a source, which names nothing.
    fn of_large(&self, content: &Digest) -> Result<Contents, StoreError> {
        let failed = |source| StoreError::Io { action: "read", path: content.to_string().into(), source };
        let mut file = self.store.open(content)?;
        let (mut runs, mut hasher, mut named) = (Runs::default(), Hasher::new(), Contents::new());
        let (mut buffer, mut is_first) = (vec![0; 256 * 1024], true);
        loop {
            let n = match std::io::Read::read(&mut file, &mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            if is_first && !matches!(buffer[0], b'{' | b'[') {
                return Ok(named);
            }
            is_first = false;
            hasher.update(&buffer[..n]);
            runs.feed(&buffer[..n], &mut named);
        }
        runs.end(&mut named);
        let found = hasher.finish();
        if found == *content { Ok(named) } else { Err(StoreError::Corrupt { digest: *content, found }) }
    }
}

/// Adds whatever has the form of a SHA-256 in hexadecimal, with or without `sha256:` before it.
pub(super) fn named_in(bytes: &[u8], named: &mut Contents) {
    let mut runs = Runs::default();
    runs.feed(bytes, named);
    runs.end(named);
}

/// The run of hexadecimal digits that the bytes so far end with.
struct Runs {
    digits: [u8; HEX],
    length: usize,
}

impl Default for Runs {
    fn default() -> Self {
        Self { digits: [0; HEX], length: 0 }
    }
}

impl Runs {
    fn feed(&mut self, bytes: &[u8], named: &mut Contents) {
        for byte in bytes {
            if !matches!(byte, b'0'..=b'9' | b'a'..=b'f') {
                self.end(named);
                continue;
            }
            if let Some(digit) = self.digits.get_mut(self.length) {
                *digit = *byte;
            }
            self.length = self.length.saturating_add(1);
        }
    }

    fn end(&mut self, named: &mut Contents) {
        if self.length == HEX {
            let text = std::str::from_utf8(&self.digits).ok();
            named.extend(text.and_then(|text| Digest::from_hex(text).ok()));
        }
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<Digest> {
        let mut named = Contents::new();
        named_in(text.as_bytes(), &mut named);
        named.into_iter().collect()
    }

    #[test]
    fn a_digest_is_found_in_whatever_form_and_a_part_of_something_longer_is_none() {
        let digest = Digest::of(b"x");
        let hex = digest.hex();
        for text in [
            hex.clone(),
            format!("{{\"digest\":\"{digest}\"}}"),
            format!("{{\"sha256\":\"{hex}\"}}"),
            format!("blobs/sha256/{hex}\n"),
            format!("0\n{hex} "),
        ] {
            assert_eq!(named(&text), [digest], "{text}");
        }
        for text in [String::new(), format!("{hex}0"), format!("{hex}{hex}"), hex[1..].to_owned(), hex.to_uppercase()] {
            assert_eq!(named(&text), [], "{text}");
        }
        let other = Digest::of(b"y");
        let mut both = vec![digest, other];
        both.sort();
        assert_eq!(named(&format!("{digest}{other}")), both);
    }

    #[test]
    fn a_digest_that_lies_over_two_reads_is_found() {
        let digest = Digest::of(b"x");
        let text = format!("sha256:{}\"", digest.hex());
        for at in 0..text.len() {
            let (mut runs, mut named) = (Runs::default(), Contents::new());
            runs.feed(&text.as_bytes()[..at], &mut named);
            runs.feed(&text.as_bytes()[at..], &mut named);
            runs.end(&mut named);
            assert_eq!(named, Contents::from([digest]), "{at}");
        }
    }
}
