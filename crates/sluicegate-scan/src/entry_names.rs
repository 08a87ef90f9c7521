//! Under which name an entry of a layer's tar stands in the image: long names of GNU and pax, paths in one spelling, bytes that are no text.

use std::io::{self, Read};

/// Bytes of a long name or of a pax header.
const NAME: u64 = 1024 * 1024;

/// `./usr//bin/sh` as `usr/bin/sh`. A path with `..` is refused: no builder writes one, and tools disagree on what it means.
pub(crate) fn normal(raw: &[u8]) -> io::Result<String> {
    let text = legible(raw);
    let parts: Vec<_> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(io::Error::other("an entry's path has .. in it"));
    }
    Ok(parts.join("/"))
}

/// A name as text. Two names are never the same text, or one file would hide another: a byte that is no UTF-8 becomes U+FFFD and its two
/// hexadecimal digits, and a U+FFFD that stands there is followed by `_`.
fn legible(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\u{fffd}', "\u{fffd}_"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\u{fffd}{byte:02x}")));
    }
    text
}

/// What GNU and pax headers say about the entry that follows them.
#[derive(Default)]
pub(crate) struct LongNames {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
}

impl LongNames {
    /// Takes a header entry in; false for an entry that is a file of the image.
    pub(crate) fn take(&mut self, kind: tar::EntryType, entry: &mut impl Read) -> io::Result<bool> {
        if kind.is_gnu_longname() {
            self.path = Some(until_nul(bounded(entry)?));
        } else if kind.is_gnu_longlink() {
            self.link = Some(until_nul(bounded(entry)?));
        } else if kind.is_pax_local_extensions() {
            self.pax(&bounded(entry)?)?;
        } else if kind.is_gnu_sparse() {
            return Err(io::Error::other("a sparse entry, which this version does not read"));
        } else {
            return Ok(kind.is_pax_global_extensions());
        }
        Ok(true)
    }

    /// Records of `LENGTH KEY=VALUE\n` (POSIX.1-2001, pax).
    fn pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let bad = || io::Error::other("a pax header that is not one");
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length: usize =
                std::str::from_utf8(&records[..space]).ok().and_then(|n| n.parse().ok()).ok_or_else(bad)?;
            let record =
                records.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let value = &record[equals + 1..];
            match &record[..equals] {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok()).ok_or_else(bad)?;
                    self.size = Some(size);
                }
                key if key.starts_with(b"GNU.sparse") => {
                    return Err(io::Error::other("a sparse entry, which this version does not read"));
                }
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

fn bounded(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(NAME + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > NAME { Err(io::Error::other("a name longer than 1 MiB")) } else { Ok(bytes) }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    bytes
}
