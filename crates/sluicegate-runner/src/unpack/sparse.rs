use std::io::{self, Read};

/// Bytes of the map that stands before the content of a sparse file.
const MAX_MAP: usize = 4 << 20;

/// How the content of a sparse file is spread over it, where pax records say so (GNU tar, "Storing Sparse Files", PAX formats 0.0, 0.1
/// and 1.0). The older form with a header type of its own is the parser's.
pub(super) struct Sparse {
    /// Bytes of the whole file.
    pub(super) size: u64,
    /// Where each piece of content belongs and how long it is; `None` if that stands before the content.
    pieces: Option<Vec<(u64, u64)>>,
}

/// What the records have said so far.
#[derive(Default)]
pub(super) struct Unsaid {
    version: (Option<u64>, Option<u64>),
    size: Option<u64>,
    numbers: Vec<u64>,
    any: bool,
}

impl Sparse {
    /// Before the first record.
    pub(super) fn unsaid() -> Unsaid {
        Unsaid::default()
    }

    /// The pieces, in order and within the file. If they stand before the content, `reader` is read up to the content.
    pub(super) fn pieces(self, reader: &mut impl Read) -> io::Result<Vec<(u64, u64)>> {
        let pieces = match self.pieces {
            Some(pieces) => pieces,
            None => map(reader)?,
        };
        let mut end = 0;
        for (at, length) in &pieces {
            let next = at.checked_add(*length).filter(|next| *at >= end && *next <= self.size);
            end = next.ok_or_else(|| io::Error::other("the pieces of a sparse file overlap or lie behind its end"))?;
        }
        Ok(pieces)
    }
}

impl Unsaid {
    /// Takes the record `GNU.sparse.KEY`.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.any = true;
        match key {
            b"major" => self.version.0 = Some(number(value)?),
            b"minor" => self.version.1 = Some(number(value)?),
            b"realsize" | b"size" => self.size = Some(number(value)?),
            b"offset" | b"numbytes" => self.numbers.push(number(value)?),
            b"map" => self.numbers = value.split(|byte| *byte == b',').map(number).collect::<io::Result<_>>()?,
            // The count of what is counted.
            b"numblocks" => {}
            other => return unknown(&format!("record {:?}", String::from_utf8_lossy(other))),
        }
        Ok(())
    }

    /// What they came to; `None` if the file is not sparse.
    pub(super) fn said(self) -> io::Result<Option<Sparse>> {
        if !self.any {
            return Ok(None);
        }
        let Some(size) = self.size else { return unknown("file without its size") };
        let pieces = match self.version {
            (Some(1), Some(0)) => None,
            (None | Some(0), _) if self.numbers.len().is_multiple_of(2) => {
                Some(self.numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
            }
            other => return unknown(&format!("file of version {other:?}")),
        };
        Ok(Some(Sparse { size, pieces }))
    }
}

/// The map of version 1.0: decimal numbers, one a line, how many pieces first; padded to whole blocks.
fn map(reader: &mut impl Read) -> io::Result<Vec<(u64, u64)>> {
    let mut read = 0;
    let mut block = [0; 512];
    let mut at = block.len();
    let mut next = || -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            if at == block.len() {
                read += block.len();
                if read > MAX_MAP {
                    return Err(io::Error::other("the map of a sparse file is larger than 4 MiB"));
                }
                reader.read_exact(&mut block)?;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            match byte {
                b'\n' => return number(&digits),
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(io::Error::other("the map of a sparse file has a number that is none")),
            }
        }
    };
    let count = next()?;
    (0..count).map(|_| Ok((next()?, next()?))).collect()
}

fn number(text: &[u8]) -> io::Result<u64> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("a sparse file says {:?}", String::from_utf8_lossy(text))))
}

fn unknown<T>(what: &str) -> io::Result<T> {
    Err(io::Error::other(format!("a sparse {what}: not in this version")))
}
