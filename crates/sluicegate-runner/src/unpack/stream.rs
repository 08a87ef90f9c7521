use std::{
    cell::{Cell, RefCell},
    io::{self, BufReader, Read},
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use sluicegate_ports::execute::Compression;
use sluicegate_types::{Digest, Hasher};
use sluicegate_zstd::MultiFrameDecoder;

/// Content that may unpack without a look at the ratio: small layers of zeros are legitimate.
const FREE_BYTES: u64 = 64 << 20;

/// Plain bytes for one stored byte (DESIGN section 7).
const MAX_RATIO: u64 = 200;

/// Room for headers and padding beside the content.
const OVERHEAD_BYTES: u64 = 1 << 30;

/// The uncompressed archive, hashed and counted while it is read.
pub(super) struct Plain<'r> {
    inner: Box<dyn Read + 'r>,
    tally: Tally,
    max_bytes: u64,
}

/// What has gone by: a second handle for whoever does not hold the reader.
#[derive(Clone)]
pub(super) struct Tally(Rc<Counters>);

struct Counters {
    hasher: RefCell<Hasher>,
    stored: Cell<u64>,
    plain: Cell<u64>,
}

/// Decompresses `reader`; the archive may be `max_bytes` and some headers long.
pub(super) fn plain<'r>(reader: impl Read + 'r, compression: Compression, max_bytes: u64) -> (Plain<'r>, Tally) {
    let tally =
        Tally(Rc::new(Counters { hasher: RefCell::new(Hasher::new()), stored: Cell::new(0), plain: Cell::new(0) }));
    let stored = BufReader::with_capacity(128 * 1024, Stored { inner: reader, tally: tally.clone() });
    let inner: Box<dyn Read + 'r> = match compression {
        Compression::None => Box::new(stored),
        Compression::Gzip => Box::new(MultiGzDecoder::new(stored)),
        Compression::Zstd => Box::new(MultiFrameDecoder::new(stored)),
    };
    (Plain { inner, tally: tally.clone(), max_bytes: max_bytes.saturating_add(OVERHEAD_BYTES) }, tally)
}

impl Tally {
    /// Over all plain bytes so far.
    pub(super) fn digest(&self) -> Digest {
        self.0.hasher.borrow().clone().finish()
    }

    /// Whether `bytes` came out of too few stored ones.
    pub(super) fn is_a_bomb(&self, bytes: u64) -> bool {
        bytes > FREE_BYTES && bytes / MAX_RATIO > self.0.stored.get()
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let counters = &self.tally.0;
        let total = counters.plain.get() + n as u64;
        counters.plain.set(total);
        counters.hasher.borrow_mut().update(&buffer[..n]);
        if total > self.max_bytes {
            return Err(io::Error::other(format!("it is larger than the limit of {} bytes", self.max_bytes)));
        }
        if self.tally.is_a_bomb(total) {
            return Err(io::Error::other(format!("it unpacks to more than {MAX_RATIO} times its size")));
        }
        Ok(n)
    }
}

struct Stored<R> {
    inner: R,
    tally: Tally,
}

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let stored = &self.tally.0.stored;
        stored.set(stored.get() + n as u64);
        Ok(n)
    }
}
