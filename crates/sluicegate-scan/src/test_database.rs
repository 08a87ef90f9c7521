//! Builds bbolt files for tests: top buckets of plain keys, each in its own leaves, larger ones below a branch.

const PAGE: usize = 4096;

/// A key and its value.
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
}

/// A database that knows Debian 12 and Python packages, with enough advisories for a branch page.
pub(crate) fn sample() -> Vec<(&'static str, Vec<Entry>)> {
    let entry = |key: &str, value: &str| Entry { key: key.to_owned(), value: value.as_bytes().to_vec() };
    vec![
        ("data-source", vec![entry("debian 12", "{}")]),
        ("debian 12", vec![entry("bash", "{}"), entry("zlib", "{}")]),
        ("pip::GitHub Security Advisory pip", vec![entry("h11", "{}")]),
        ("vulnerability", (0..400).map(|n| entry(&format!("CVE-2099-{n:04}"), "{\"Severity\":\"LOW\"}")).collect()),
    ]
}

/// The bytes of a file with these buckets, which must come in byte order.
pub(crate) fn bolt_file(buckets: &[(&str, Vec<Entry>)]) -> Vec<u8> {
    let mut file = vec![0; 2 * PAGE];
    push(&mut file, 0x10, 0, &[]);
    let mut top = Vec::new();
    for (name, entries) in buckets {
        let size: usize = 16 + entries.iter().map(|entry| 16 + entry.key.len() + entry.value.len()).sum::<usize>();
        let plain: Vec<_> = entries.iter().map(|entry| (0, entry.key.as_bytes(), entry.value.as_slice())).collect();
        let mut value = vec![0; 16];
        if size <= PAGE / 4 {
            value.extend(header(0, 2, plain.len(), 0));
            value.extend(leaf(&plain));
        } else {
            let children: Vec<_> = plain
                .chunks(50)
                .map(|chunk| (chunk[0].1.to_vec(), push(&mut file, 2, chunk.len(), &leaf(chunk))))
                .collect();
            let root = push(&mut file, 1, children.len(), &branch(&children));
            value[..8].copy_from_slice(&root.to_le_bytes());
        }
        top.push((1, name.as_bytes(), value));
    }
    let top: Vec<_> = top.iter().map(|(flag, name, value)| (*flag, *name, value.as_slice())).collect();
    let root = push(&mut file, 2, top.len(), &leaf(&top));
    let pages = (file.len() / PAGE) as u64;
    for id in 0..2_u64 {
        let mut body = Vec::new();
        for word in [0xED0C_DAED_u32, 2, PAGE as u32, 0] {
            body.extend(word.to_le_bytes());
        }
        for long in [root, 0, 2, pages, id] {
            body.extend(long.to_le_bytes());
        }
        let sum = body
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let page = [header(id, 4, 0, 0), body, sum.to_le_bytes().to_vec()].concat();
        let at = id as usize * PAGE;
        file[at..at + page.len()].copy_from_slice(&page);
    }
    file
}

fn push(file: &mut Vec<u8>, flags: u16, count: usize, body: &[u8]) -> u64 {
    let id = (file.len() / PAGE) as u64;
    let pages = (16 + body.len()).div_ceil(PAGE);
    file.extend(header(id, flags, count, pages as u32 - 1));
    file.extend(body);
    file.resize((id as usize + pages) * PAGE, 0);
    id
}

fn header(id: u64, flags: u16, count: usize, overflow: u32) -> Vec<u8> {
    let mut out = id.to_le_bytes().to_vec();
    out.extend(flags.to_le_bytes());
    out.extend((count as u16).to_le_bytes());
    out.extend(overflow.to_le_bytes());
    out
}

fn leaf(entries: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
    let (mut table, mut data) = (Vec::new(), Vec::new());
    for (index, (flags, key, value)) in entries.iter().enumerate() {
        let position = (entries.len() - index) * 16 + data.len();
        for word in [*flags, position as u32, key.len() as u32, value.len() as u32] {
            table.extend(word.to_le_bytes());
        }
        data.extend_from_slice(key);
        data.extend_from_slice(value);
    }
    [table, data].concat()
}

fn branch(children: &[(Vec<u8>, u64)]) -> Vec<u8> {
    let (mut table, mut data) = (Vec::new(), Vec::new());
    for (index, (key, page)) in children.iter().enumerate() {
        let position = (children.len() - index) * 16 + data.len();
        table.extend((position as u32).to_le_bytes());
        table.extend((key.len() as u32).to_le_bytes());
        table.extend(page.to_le_bytes());
        data.extend_from_slice(key);
    }
    [table, data].concat()
}
