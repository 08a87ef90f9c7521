//! Writes the file of an embedded key-value store (bbolt, file format 2) from a tree in memory: bottom-up, once, never updated.
//!
//! The format is the one that `go.etcd.io/bbolt` reads, in little-endian byte order: pages of 4096 bytes, two meta pages, an empty
//! free list, then leaf and branch pages. A bucket of at most a quarter of a page and without inner buckets stands inside its parent's value.

use std::collections::BTreeMap;
use std::fmt;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// The longest key that bbolt accepts.
pub const MAX_KEY: usize = 32_768;
/// The longest value that this writer accepts: two of them fit a page's 32-bit offsets with room to spare.
pub const MAX_VALUE: usize = 16 << 20;
/// How deep buckets may be nested.
pub const MAX_DEPTH: usize = 16;

const MAGIC: u32 = 0xED0C_DAED;
const FORMAT: u32 = 2;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE_LIST: u16 = 0x10;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const IS_BUCKET: u32 = 1;

/// Why a tree cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub enum BoltError {
    /// Keys have one to [`MAX_KEY`] bytes.
    Key {
        /// How many this one has.
        bytes: usize,
    },
    /// Values have at most [`MAX_VALUE`] bytes.
    Value {
        /// Under which key.
        key: String,
        /// How many this one has.
        bytes: usize,
    },
    /// A key names a value and a bucket.
    TwoKinds {
        /// Which.
        key: String,
    },
    /// Buckets are nested deeper than [`MAX_DEPTH`].
    Depth,
}

impl fmt::Display for BoltError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { bytes } => write!(f, "a key of {bytes} bytes: one to {MAX_KEY} are possible"),
            Self::Value { key, bytes } => write!(f, "the value of {key} has {bytes} bytes: {MAX_VALUE} is the limit"),
            Self::TwoKinds { key } => write!(f, "{key} would be a value and a bucket at once"),
            Self::Depth => write!(f, "buckets nested deeper than {MAX_DEPTH}"),
        }
    }
}

impl std::error::Error for BoltError {}

/// A sorted map from keys to values and inner buckets.
#[derive(Debug, Default)]
pub struct Bucket {
    entries: BTreeMap<Vec<u8>, Entry>,
}

#[derive(Debug)]
enum Entry {
    Value(Vec<u8>),
    Bucket(Bucket),
}

impl Bucket {
    /// Sets `key` to `value`; a value that was there is replaced.
    pub fn put(&mut self, key: &str, value: impl Into<Vec<u8>>) -> Result<(), BoltError> {
        let value = value.into();
        check_key(key)?;
        if value.len() > MAX_VALUE {
            return Err(BoltError::Value { key: key.to_owned(), bytes: value.len() });
        }
        if let Some(Entry::Bucket(_)) = self.entries.get(key.as_bytes()) {
            return Err(BoltError::TwoKinds { key: key.to_owned() });
        }
        self.entries.insert(key.as_bytes().to_vec(), Entry::Value(value));
        Ok(())
    }

    /// The inner bucket `key`, made empty if it is not there.
    pub fn bucket(&mut self, key: &str) -> Result<&mut Self, BoltError> {
        check_key(key)?;
        match self.entries.entry(key.as_bytes().to_vec()).or_insert_with(|| Entry::Bucket(Self::default())) {
            Entry::Bucket(bucket) => Ok(bucket),
            Entry::Value(_) => Err(BoltError::TwoKinds { key: key.to_owned() }),
        }
    }

    /// The whole file with this bucket as its root. The same tree gives the same bytes.
    pub fn file_bytes(&self) -> Result<Vec<u8>, BoltError> {
        let mut pages = Pages { bytes: vec![0; 2 * PAGE] };
        let free_list = pages.add(FREE_LIST, 0, &[]);
        let root = write_tree(&mut pages, self, 0)?;
        let pages_in_use = pages.next();
        for (at, transaction) in [0_u64, 1].into_iter().enumerate() {
            let mut fields = Vec::with_capacity(64);
            for field in [MAGIC, FORMAT, PAGE as u32, 0] {
                fields.extend_from_slice(&field.to_le_bytes());
            }
            for field in [root, 0, free_list, pages_in_use, transaction] {
                fields.extend_from_slice(&field.to_le_bytes());
            }
            fields.extend_from_slice(&fnv1a(&fields).to_le_bytes());
            let page: Vec<u8> = page_header(transaction, META, 0, 0).into_iter().chain(fields).collect();
            for (slot, byte) in pages.bytes.iter_mut().skip(at * PAGE).zip(page) {
                *slot = byte;
            }
        }
        Ok(pages.bytes)
    }

    /// The bytes this bucket takes inside its parent, or nothing if it has to stand on pages of its own.
    fn inline_bytes(&self) -> Option<Vec<u8>> {
        let mut elements = Vec::with_capacity(self.entries.len());
        for (key, entry) in &self.entries {
            match entry {
                Entry::Value(value) => elements.push(Leaf { flags: 0, key: key.clone(), value: value.clone() }),
                Entry::Bucket(_) => return None,
            }
        }
        let size = PAGE_HEADER + elements.iter().map(Leaf::size).sum::<usize>();
        (size <= PAGE / 4).then(|| {
            let mut bytes = page_header(0, LEAF, elements.len(), 0).to_vec();
            bytes.extend(leaf_body(&elements));
            bytes
        })
    }
}

fn check_key(key: &str) -> Result<(), BoltError> {
    if key.is_empty() || key.len() > MAX_KEY { Err(BoltError::Key { bytes: key.len() }) } else { Ok(()) }
}

struct Pages {
    bytes: Vec<u8>,
}

impl Pages {
    fn next(&self) -> u64 {
        (self.bytes.len() / PAGE) as u64
    }

    /// Appends a page, with as many overflow pages as its body needs, and says its number.
    fn add(&mut self, flags: u16, count: usize, body: &[u8]) -> u64 {
        let number = self.next();
        let in_all = (PAGE_HEADER + body.len()).div_ceil(PAGE).max(1);
        let end = self.bytes.len() + in_all * PAGE;
        self.bytes.extend_from_slice(&page_header(number, flags, count, in_all - 1));
        self.bytes.extend_from_slice(body);
        self.bytes.resize(end, 0);
        number
    }
}

fn page_header(number: u64, flags: u16, count: usize, overflow: usize) -> [u8; PAGE_HEADER] {
    let mut header = [0; PAGE_HEADER];
    // A page holds at most 4096 / 16 elements, or two that are larger, and two values of 16 MiB overflow into 8193 pages: both fit.
    let fields = [
        &number.to_le_bytes()[..],
        &flags.to_le_bytes(),
        &(count as u16).to_le_bytes(),
        &(overflow as u32).to_le_bytes(),
    ];
    for (slot, byte) in header.iter_mut().zip(fields.concat()) {
        *slot = byte;
    }
    header
}

struct Leaf {
    flags: u32,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Leaf {
    fn size(&self) -> usize {
        ELEMENT + self.key.len() + self.value.len()
    }
}

struct Child {
    first_key: Vec<u8>,
    page: u64,
}

fn leaf_body(elements: &[Leaf]) -> Vec<u8> {
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    for (index, leaf) in elements.iter().enumerate() {
        // Offsets count from the element itself, not from the page.
        let offset = (elements.len() - index) * ELEMENT + data.len();
        for field in [leaf.flags, offset as u32, leaf.key.len() as u32, leaf.value.len() as u32] {
            heads.extend_from_slice(&field.to_le_bytes());
        }
        data.extend_from_slice(&leaf.key);
        data.extend_from_slice(&leaf.value);
    }
    heads.append(&mut data);
    heads
}

fn branch_body(children: &[Child]) -> Vec<u8> {
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    for (index, child) in children.iter().enumerate() {
        let offset = (children.len() - index) * ELEMENT + data.len();
        heads.extend_from_slice(&(offset as u32).to_le_bytes());
        heads.extend_from_slice(&(child.first_key.len() as u32).to_le_bytes());
        heads.extend_from_slice(&child.page.to_le_bytes());
        data.extend_from_slice(&child.first_key);
    }
    heads.append(&mut data);
    heads
}

/// Writes the pages of one bucket, its inner buckets first, and says the number of its root page.
fn write_tree(pages: &mut Pages, bucket: &Bucket, depth: usize) -> Result<u64, BoltError> {
    let mut leaves = Vec::with_capacity(bucket.entries.len());
    for (key, entry) in &bucket.entries {
        leaves.push(match entry {
            Entry::Value(value) => Leaf { flags: 0, key: key.clone(), value: value.clone() },
            Entry::Bucket(inner) => {
                Leaf { flags: IS_BUCKET, key: key.clone(), value: bucket_value(pages, inner, depth + 1)? }
            }
        });
    }
    let mut level = Vec::new();
    for group in grouped(leaves, Leaf::size) {
        let first_key = group.first().map(|leaf| leaf.key.clone()).unwrap_or_default();
        level.push(Child { first_key, page: pages.add(LEAF, group.len(), &leaf_body(&group)) });
    }
    while level.len() > 1 {
        let mut above = Vec::new();
        for group in grouped(level, |child| ELEMENT + child.first_key.len()) {
            let first_key = group.first().map(|child| child.first_key.clone()).unwrap_or_default();
            above.push(Child { first_key, page: pages.add(BRANCH, group.len(), &branch_body(&group)) });
        }
        level = above;
    }
    // An empty bucket is one empty leaf page.
    Ok(level.first().map_or_else(|| pages.add(LEAF, 0, &[]), |child| child.page))
}

fn bucket_value(pages: &mut Pages, bucket: &Bucket, depth: usize) -> Result<Vec<u8>, BoltError> {
    if depth > MAX_DEPTH {
        return Err(BoltError::Depth);
    }
    let (root, inline) = match bucket.inline_bytes() {
        Some(bytes) => (0, bytes),
        None => (write_tree(pages, bucket, depth)?, Vec::new()),
    };
    // The root page's number (0 says: inline), then the bucket's own sequence, which nobody uses.
    Ok([&root.to_le_bytes()[..], &0_u64.to_le_bytes(), &inline].concat())
}

/// Splits `elements` into pages: at least two each (bbolt's own minimum), otherwise as many as fit.
fn grouped<T>(elements: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut groups = Vec::new();
    let (mut group, mut used) = (Vec::new(), PAGE_HEADER);
    for element in elements {
        let more = size(&element);
        if group.len() >= 2 && used + more > PAGE {
            groups.push(std::mem::take(&mut group));
            used = PAGE_HEADER;
        }
        used += more;
        group.push(element);
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads what the writer wrote, by the format's description: every key and value under a root page, buckets flattened to paths.
    fn read(file: &[u8]) -> Vec<(String, Vec<u8>)> {
        let root = u64::from_le_bytes(file[PAGE_HEADER + 16..PAGE_HEADER + 24].try_into().unwrap());
        let mut found = Vec::new();
        read_page(file, &file[root as usize * PAGE..], "", &mut found);
        found
    }

    fn read_page(file: &[u8], page: &[u8], path: &str, found: &mut Vec<(String, Vec<u8>)>) {
        let number = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap()) as usize;
        let flags = u16::from_le_bytes(page[8..10].try_into().unwrap());
        let count = u16::from_le_bytes(page[10..12].try_into().unwrap()) as usize;
        for index in 0..count {
            let at = PAGE_HEADER + index * ELEMENT;
            if flags == BRANCH {
                let child = u64::from_le_bytes(page[at + 8..at + 16].try_into().unwrap()) as usize;
                read_page(file, &file[child * PAGE..], path, found);
                continue;
            }
            assert_eq!(flags, LEAF);
            let (is_bucket, from) = (number(at), at + number(at + 4));
            let (key, value) = (number(at + 8), number(at + 12));
            let name = format!("{path}/{}", String::from_utf8(page[from..from + key].to_vec()).unwrap());
            let value = &page[from + key..from + key + value];
            if is_bucket == 0 {
                found.push((name, value.to_vec()));
                continue;
            }
            let root = u64::from_le_bytes(value[..8].try_into().unwrap()) as usize;
            if root == 0 {
                read_page(file, &value[16..], &name, found);
            } else {
                read_page(file, &file[root * PAGE..], &name, found);
            }
        }
    }

    #[test]
    fn what_was_put_is_read_back_in_key_order_across_inline_leaf_branch_and_overflow_pages() {
        let mut root = Bucket::default();
        let mut wanted = Vec::new();
        for outer in 0..3 {
            let bucket = root.bucket(&format!("bucket {outer}")).unwrap();
            for inner in 0..400 {
                let value = vec![b'x'; (inner * 37) % 900];
                bucket.bucket(&format!("{inner:04}")).unwrap().put("value", value.clone()).unwrap();
                wanted.push((format!("/bucket {outer}/{inner:04}/value"), value));
            }
        }
        root.put("long", vec![7; 3 * PAGE]).unwrap();
        wanted.push(("/long".to_owned(), vec![7; 3 * PAGE]));
        root.bucket("nothing in it").unwrap();

        let file = root.file_bytes().unwrap();

        assert_eq!(read(&file), wanted);
        assert_eq!(file.len() % PAGE, 0);
        assert_eq!(file, root.file_bytes().unwrap());
    }

    #[test]
    fn both_meta_pages_carry_the_magic_the_page_count_and_a_valid_checksum() {
        let mut root = Bucket::default();
        root.put("a", "b").unwrap();
        let file = root.file_bytes().unwrap();
        for page in [0, PAGE] {
            let meta = &file[page + PAGE_HEADER..page + PAGE_HEADER + 64];
            assert_eq!(meta[..4], [0xED, 0xDA, 0x0C, 0xED]);
            assert_eq!(u64::from_le_bytes(meta[40..48].try_into().unwrap()) as usize * PAGE, file.len());
            assert_eq!(u64::from_le_bytes(meta[56..].try_into().unwrap()), fnv1a(&meta[..56]));
        }
    }

    #[test]
    fn empty_long_and_doubled_keys_are_refused_and_their_neighbours_are_not() {
        let mut root = Bucket::default();
        assert_eq!(root.put("", "v"), Err(BoltError::Key { bytes: 0 }));
        assert_eq!(root.put(&"k".repeat(MAX_KEY + 1), "v"), Err(BoltError::Key { bytes: MAX_KEY + 1 }));
        root.put(&"k".repeat(MAX_KEY), "v").unwrap();
        let too_long = root.put("v", vec![0; MAX_VALUE + 1]);
        assert_eq!(too_long, Err(BoltError::Value { key: "v".into(), bytes: MAX_VALUE + 1 }));
        root.put("v", vec![0; MAX_VALUE]).unwrap();
        assert_eq!(root.bucket("v").map(|_| ()), Err(BoltError::TwoKinds { key: "v".into() }));
        root.bucket("b").unwrap();
        assert_eq!(root.put("b", "v"), Err(BoltError::TwoKinds { key: "b".into() }));
        root.file_bytes().unwrap();
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |depth: usize| {
            let mut root = Bucket::default();
            let mut bucket = &mut root;
            for _ in 0..depth {
                bucket = bucket.bucket("deeper").unwrap();
            }
            root.file_bytes().map(|_| ())
        };
        assert_eq!(nested(MAX_DEPTH), Ok(()));
        assert_eq!(nested(MAX_DEPTH + 1), Err(BoltError::Depth));
    }
}
