//! Read-only view of a bbolt file (format version 2, as Go's `go.etcd.io/bbolt` writes it): which buckets stand at the top, and
//! how many keys one of them holds.
//!
//! The scanner reports nothing about a system that its database does not know, and ends well; this reader is how that is seen.
//! It reads pages by seeking and holds one page's element table (at most 1 MiB) at a time, whatever the file's size. Every page
//! number, count, offset and length is checked against the file before it is used; the pages read are counted, so that a
//! cycle ends as an error.

use std::io::{Read, Seek, SeekFrom};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Bytes of a page's header: id u64, flags u16, count u16, overflow u32.
const HEADER: u64 = 16;
/// Bytes of an element in a branch (pos u32, key size u32, page u64) or a leaf (flags u32, pos u32, key size u32, value size u32).
const ELEMENT: usize = 16;
const BRANCH_PAGE: u16 = 0x01;
const LEAF_PAGE: u16 = 0x02;
const META_PAGE: u16 = 0x04;
/// The leaf flag of an element whose value is a bucket.
const BUCKET: u32 = 0x01;
/// bbolt's own largest key.
const KEY: u32 = 32_768;
/// How deep a tree of pages may be; 200 000 advisories reach 4.
const DEPTH: u32 = 32;
/// How many names may stand at the top.
const NAMES: usize = 100_000;

/// A bbolt file.
#[derive(Debug)]
pub struct Bolt<R> {
    file: R,
    page_size: u64,
    pages: u64,
    top: Vec<(Vec<u8>, Place)>,
}

/// Where a bucket's keys stand.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a tree below this page.
    Page(u64),
    /// In the bucket's own value: this many keys.
    Inline(u64),
}

/// Why a file is not a bbolt file, or is a damaged one.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    /// The file can't be read.
    #[error("cannot read the database file: {0}")]
    Io(#[from] std::io::Error),
    /// Neither of the two meta pages is whole.
    #[error("not a bbolt file of version 2: no valid meta page")]
    NoMeta,
    /// A structure points out of the file or contradicts itself.
    #[error("damaged bbolt file: page {page}: {reason}")]
    Damaged {
        /// Which page.
        page: u64,
        /// What is wrong.
        reason: &'static str,
    },
}

impl<R: Read + Seek> Bolt<R> {
    /// Reads the meta pages and the names of the top buckets.
    pub fn open(mut file: R) -> Result<Self, BoltError> {
        let length = file.seek(SeekFrom::End(0))?;
        let meta = newest_meta(&mut file, length)?;
        let mut bolt = Self { file, page_size: meta.page_size, pages: length / meta.page_size, top: Vec::new() };
        if meta.pages > bolt.pages {
            return Err(damaged(meta.pages, "the file is shorter than its meta page says"));
        }
        bolt.top = bolt.top_buckets(meta.root)?;
        Ok(bolt)
    }

    /// The names of the buckets at the top, in the file's order; a name that is not UTF-8 is left out.
    pub fn buckets(&self) -> impl Iterator<Item = &str> {
        self.top.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok())
    }

    /// How many keys the top bucket `name` holds; `None` where there is no such bucket. Buckets in it count as keys.
    pub fn keys(&mut self, name: &str) -> Result<Option<u64>, BoltError> {
        let place = self.top.iter().find(|(top, _)| top == name.as_bytes()).map(|(_, place)| *place);
        match place {
            None => Ok(None),
            Some(Place::Inline(keys)) => Ok(Some(keys)),
            Some(Place::Page(root)) => {
                let mut keys = 0;
                self.walk(root, &mut |_, page| {
                    keys += page.elements.len() as u64;
                    Ok(())
                })?;
                Ok(Some(keys))
            }
        }
    }

    fn top_buckets(&mut self, root: u64) -> Result<Vec<(Vec<u8>, Place)>, BoltError> {
        let mut found = Vec::new();
        self.walk(root, &mut |bolt, page| {
            for (index, element) in page.elements.iter().enumerate() {
                if word(element, 0) & BUCKET == 0 {
                    continue;
                }
                if found.len() == NAMES {
                    return Err(damaged(page.id, "too many buckets"));
                }
                found.push(bolt.bucket(page, index, element)?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Reads a leaf element that is a bucket: its key, and the bucket header (root u64, sequence u64) in its value.
    fn bucket(&mut self, page: &Page, index: usize, element: &[u8; ELEMENT]) -> Result<(Vec<u8>, Place), BoltError> {
        let (position, key_size, value_size) = (word(element, 4), word(element, 8), word(element, 12));
        if key_size == 0 || key_size > KEY {
            return Err(damaged(page.id, "a key of an impossible size"));
        }
        let start = page.offset + HEADER + (index * ELEMENT) as u64 + u64::from(position);
        let value = start + u64::from(key_size);
        if value + u64::from(value_size) > page.end {
            return Err(damaged(page.id, "an element reaches out of its page"));
        }
        if value_size < 16 {
            return Err(damaged(page.id, "a bucket without a header"));
        }
        let mut name = vec![0; key_size as usize];
        self.read(start, &mut name)?;
        let mut header = [0; 16];
        self.read(value, &mut header)?;
        let place = match long(&header, 0) {
            0 if value_size < 32 => return Err(damaged(page.id, "an inline bucket without a page")),
            0 => {
                let mut inline = [0; 16];
                self.read(value + 16, &mut inline)?;
                let count = u64::from(half(&inline, 10));
                if half(&inline, 8) & LEAF_PAGE == 0 || 32 + count * ELEMENT as u64 > u64::from(value_size) {
                    return Err(damaged(page.id, "an inline bucket that is no leaf"));
                }
                Place::Inline(count)
            }
            root => Place::Page(root),
        };
        Ok((name, place))
    }

    /// Calls `leaf` with every leaf page below `root`.
    fn walk(
        &mut self,
        root: u64,
        leaf: &mut dyn FnMut(&mut Self, &Page) -> Result<(), BoltError>,
    ) -> Result<(), BoltError> {
        let mut open = vec![(root, 0)];
        let mut seen = 0;
        while let Some((id, depth)) = open.pop() {
            seen += 1;
            if seen > self.pages || depth > DEPTH {
                return Err(damaged(id, "its tree of pages has a cycle or is too deep"));
            }
            let page = self.page(id)?;
            if page.flags & LEAF_PAGE != 0 {
                leaf(self, &page)?;
            } else if page.flags & BRANCH_PAGE != 0 {
                if page.elements.is_empty() || page.elements.len() as u64 > self.pages {
                    return Err(damaged(id, "a branch with an impossible number of children"));
                }
                open.extend(page.elements.iter().rev().map(|element| (long(element, 8), depth + 1)));
            } else {
                return Err(damaged(id, "neither a branch nor a leaf"));
            }
        }
        Ok(())
    }

    fn page(&mut self, id: u64) -> Result<Page, BoltError> {
        if id < 2 || id >= self.pages {
            return Err(damaged(id, "outside of the file"));
        }
        let offset = id * self.page_size;
        let mut header = [0; HEADER as usize];
        self.read(offset, &mut header)?;
        if long(&header, 0) != id {
            return Err(damaged(id, "says it is another page"));
        }
        let overflow = u64::from(word(&header, 12));
        if overflow >= self.pages - id {
            return Err(damaged(id, "reaches out of the file"));
        }
        let end = offset + (overflow + 1) * self.page_size;
        let count = usize::from(half(&header, 10));
        if offset + HEADER + (count * ELEMENT) as u64 > end {
            return Err(damaged(id, "more elements than fit"));
        }
        let mut table = vec![0; count * ELEMENT];
        self.read(offset + HEADER, &mut table)?;
        let elements = table.as_chunks::<ELEMENT>().0.to_vec();
        Ok(Page { id, flags: half(&header, 8), offset, end, elements })
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), BoltError> {
        self.file.seek(SeekFrom::Start(offset))?;
        Ok(self.file.read_exact(into)?)
    }
}

struct Page {
    id: u64,
    flags: u16,
    offset: u64,
    end: u64,
    elements: Vec<[u8; ELEMENT]>,
}

struct Meta {
    page_size: u64,
    root: u64,
    pages: u64,
    transaction: u64,
}

/// The meta page with the higher transaction of the two that are whole. Meta 0 stands at the start; meta 1 one page later, and
/// the page size is known only from a meta page, so every size that bbolt uses is tried.
fn newest_meta(file: &mut (impl Read + Seek), length: u64) -> Result<Meta, BoltError> {
    let mut best: Option<Meta> = None;
    let sizes = (10..=16).map(|power| 1_u64 << power);
    for offset in std::iter::once(0).chain(sizes) {
        let mut bytes = [0; 80];
        if offset + bytes.len() as u64 > length {
            continue;
        }
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)?;
        let Some(meta) = meta(&bytes) else { continue };
        if (offset == 0 || offset == meta.page_size)
            && best.as_ref().is_none_or(|best| meta.transaction > best.transaction)
        {
            best = Some(meta);
        }
    }
    best.ok_or(BoltError::NoMeta)
}

fn meta(bytes: &[u8; 80]) -> Option<Meta> {
    let body = &bytes[16..72];
    let page_size = u64::from(word(body, 8));
    let whole = half(bytes, 8) & META_PAGE != 0
        && word(body, 0) == MAGIC
        && word(body, 4) == VERSION
        && (1024..=65_536).contains(&page_size)
        && page_size.is_power_of_two()
        && long(bytes, 72) == fnv_1a(body);
    whole.then(|| Meta { page_size, root: long(body, 16), pages: long(body, 40), transaction: long(body, 48) })
}

fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(fixed(bytes, at))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(fixed(bytes, at))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(fixed(bytes, at))
}

/// The `N` bytes at `at`; zeros where the slice ends before, which no caller's fixed-size arrays reach.
fn fixed<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn damaged(page: u64, reason: &'static str) -> BoltError {
    BoltError::Damaged { page, reason }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::test_database::{Entry, bolt_file, sample};

    #[test]
    fn the_buckets_and_their_keys_are_seen() {
        let mut bolt = Bolt::open(Cursor::new(bolt_file(&sample()))).unwrap();
        let names: Vec<_> = bolt.buckets().map(str::to_owned).collect();
        assert_eq!(names, ["data-source", "debian 12", "pip::GitHub Security Advisory pip", "vulnerability"]);
        assert_eq!(bolt.keys("debian 12").unwrap(), Some(2));
        assert_eq!(bolt.keys("vulnerability").unwrap(), Some(400));
        assert_eq!(bolt.keys("debian 13").unwrap(), None);
    }

    #[test]
    fn an_empty_bucket_has_no_keys() {
        let mut bolt = Bolt::open(Cursor::new(bolt_file(&[("debian 12", vec![])]))).unwrap();
        assert_eq!(bolt.keys("debian 12").unwrap(), Some(0));
    }

    #[test]
    fn a_truncated_file_is_an_error_and_never_a_panic() {
        let whole = bolt_file(&sample());
        for length in (0..whole.len()).step_by(97) {
            assert!(everything(&whole[..length]).is_err(), "cut at {length}");
        }
        assert!(everything(&whole).is_ok());
    }

    #[test]
    fn flipped_bytes_never_panic_and_never_count_without_end() {
        let whole = bolt_file(&sample());
        for at in (0..whole.len()).filter(|at| at % 4096 < 600) {
            let mut broken = whole.clone();
            broken[at] ^= [0x01, 0x80, 0xff][at % 3];
            if let Ok(keys) = everything(&broken) {
                assert!(keys.iter().sum::<u64>() < 100_000, "flipped {at}");
            }
        }
    }

    #[test]
    fn a_branch_that_points_at_itself_ends() {
        let mut file = bolt_file(&sample());
        let pages = file.len() / 4096;
        let branch = (2..pages).find(|page| file[page * 4096 + 8] == 1).unwrap();
        let id = (branch as u64).to_le_bytes();
        file[branch * 4096 + 16 + 8..branch * 4096 + 16 + 16].copy_from_slice(&id);
        let mut bolt = Bolt::open(Cursor::new(file)).unwrap();
        assert!(matches!(bolt.keys("vulnerability"), Err(BoltError::Damaged { .. })));
    }

    #[test]
    fn another_format_is_refused() {
        assert!(matches!(Bolt::open(Cursor::new(b"SQLite format 3".to_vec())), Err(BoltError::NoMeta)));
        let mut other = bolt_file(&[("debian 12", vec![Entry { key: "a".into(), value: b"1".to_vec() }])]);
        for meta in [0, 4096] {
            other[meta + 16] ^= 1;
        }
        assert!(matches!(Bolt::open(Cursor::new(other)), Err(BoltError::NoMeta)));
    }

    fn everything(bytes: &[u8]) -> Result<Vec<u64>, BoltError> {
        let mut bolt = Bolt::open(Cursor::new(bytes))?;
        let names: Vec<_> = bolt.buckets().map(str::to_owned).collect();
        names.iter().map(|name| Ok(bolt.keys(name)?.unwrap_or_default())).collect()
    }
}
