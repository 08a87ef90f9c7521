//! Attests many statements one after the other, each of which may name the bundle of the one before, and makes all of it durable at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    mem::take,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sluicegate_attestation::bundle::{LogEntry, MAX_BUNDLE};
use sluicegate_ports::{
    sign::{Envelope, SignError, TransparencyLog},
    store::{ContentStore, StoreError},
};
use sluicegate_types::Digest;

use crate::{Error, Ports};

/// A log and a store that keep in memory what [`attest`](crate::attest::attest) gives them, until [`Together::make_durable`]: first the
/// log's entries, then the bundles that have them, so that no bundle is ever on a disk whose entry is not. What is not made durable was
/// never said.
pub(crate) struct Together<'a> {
    log: &'a dyn TransparencyLog,
    store: &'a dyn ContentStore,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bundles: BTreeMap<Digest, Vec<u8>>,
    settled: Vec<Vec<u8>>,
    /// Whether the log was asked to hold something; it does so under its lock, whatever became of the bundle.
    has_appended: bool,
    /// Bundles that could not be made durable.
    lost: BTreeSet<Digest>,
    /// Lines to tell once what they are about is durable, and warnings.
    lines: Vec<Line>,
}

enum Line {
    Tell(String),
    Warn(String),
}

impl<'a> Together<'a> {
    pub(crate) fn new(ports: &Ports<'a>) -> Self {
        Self { log: ports.log, store: ports.store, kept: Mutex::default() }
    }

    /// The same ports, but for the log and the store.
    pub(crate) fn ports<'b>(&'b self, ports: &Ports<'b>) -> Ports<'b> {
        Ports { log: self, store: self, ..*ports }
    }

    /// Keeps a line until what it is about is durable: whoever it is told to may be slow, and the log waits for nobody.
    pub(crate) fn tell(&self, line: &str) {
        self.kept().lines.push(Line::Tell(line.to_owned()));
    }

    /// Keeps a warning until the log is free again.
    pub(crate) fn warn(&self, line: &str) {
        self.kept().lines.push(Line::Warn(line.to_owned()));
    }

    /// Makes durable what was attested since the last time, and tells of it.
    pub(crate) fn make_durable(&self, ports: &Ports<'_>) -> Result<(), Error> {
        let flushed = self.flush();
        let lines = take(&mut self.kept().lines);
        for line in lines {
            match line {
                Line::Tell(line) => (ports.tell)(&line),
                Line::Warn(line) => (ports.warn)(&line),
            }
        }
        Ok(flushed?)
    }

    /// Whether this bundle was attested and could not be made durable, so that nobody may be told of it.
    pub(crate) fn has_lost(&self, bundle: &Digest) -> bool {
        self.kept().lost.contains(bundle)
    }

    fn flush(&self) -> Result<(), Flush> {
        let (bundles, settled, has_appended) = {
            let mut kept = self.kept();
            (take(&mut kept.bundles), take(&mut kept.settled), take(&mut kept.has_appended))
        };
        if bundles.is_empty() && settled.is_empty() && !has_appended {
            return Ok(());
        }
        let (digests, bundles): (Vec<Digest>, Vec<Vec<u8>>) = bundles.into_iter().unzip();
        let stored = self.log.make_durable().map_err(Flush::Log);
        let stored = stored.and_then(|()| self.store.put_all(&bundles).map(drop).map_err(Flush::Store));
        if stored.is_err() {
            let mut kept = self.kept();
            kept.lost.extend(digests);
            kept.lines.retain(|line| matches!(line, Line::Warn(_)));
        }
        stored?;
        self.log.settled(&settled).map_err(Flush::Log)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store, with this content if it was kept here.
    fn stored(&self, digest: &Digest) -> Result<&'a dyn ContentStore, StoreError> {
        if !self.kept().bundles.contains_key(digest) {
            return Ok(self.store);
        }
        match self.flush() {
            Ok(()) => Ok(self.store),
            Err(Flush::Store(error)) => Err(error),
            Err(Flush::Log(error)) => Err(StoreError::Io {
                action: "log what is stored in",
                path: PathBuf::from("the store"),
                source: std::io::Error::other(error),
            }),
        }
    }
}

/// Which of the two could not do it.
enum Flush {
    Log(SignError),
    Store(StoreError),
}

impl From<Flush> for Error {
    fn from(flush: Flush) -> Self {
        match flush {
            Flush::Log(error) => error.into(),
            Flush::Store(error) => error.into(),
        }
    }
}

impl TransparencyLog for Together<'_> {
    fn append(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
        self.kept().has_appended = true;
        self.log.append_held(bodies)
    }

    fn about_to_append(&self, envelopes: &[Envelope<'_>]) -> Result<(), SignError> {
        self.log.about_to_append(envelopes)
    }

    fn settled(&self, bodies: &[Vec<u8>]) -> Result<(), SignError> {
        self.kept().settled.extend_from_slice(bodies);
        Ok(())
    }

    fn origin(&self) -> &str {
        self.log.origin()
    }

    fn size(&self) -> Result<u64, SignError> {
        self.log.size()
    }

    fn root(&self) -> Result<Digest, SignError> {
        self.log.root()
    }
}

impl ContentStore for Together<'_> {
    fn put(&self, reader: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
        if limit > MAX_BUNDLE as u64 {
            return self.store.put(reader, limit);
        }
        let mut bytes = Vec::new();
        let read = reader.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|source| StoreError::Io {
            action: "read the content for",
            path: PathBuf::from("the store"),
            source,
        })?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge { limit });
        }
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        self.kept().bundles.insert(digest, bytes);
        Ok((digest, size))
    }

    fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        self.stored(digest)?.open(digest)
    }

    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.stored(digest)?.read(digest, limit)
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        self.stored(digest)?.path(digest)
    }

    fn give(&self, digest: &Digest, to: &Path) -> Option<File> {
        self.stored(digest).ok()?.give(digest, to)
    }

    fn borrow(&self, file: &Path, limit: u64) -> Option<(Digest, u64)> {
        self.store.borrow(file, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a log and a store were asked, in order.
    #[derive(Default)]
    struct Asked(Mutex<Vec<String>>, bool);

    impl Asked {
        fn note(&self, what: &str) {
            self.0.lock().unwrap().push(what.to_owned());
        }
    }

    impl TransparencyLog for Asked {
        fn append(&self, _: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
            self.note("append");
            Ok(Vec::new())
        }

        fn append_held(&self, _: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
            self.note("append, held");
            Ok(Vec::new())
        }

        fn make_durable(&self) -> Result<(), SignError> {
            self.note("durable");
            if self.1 { Err(SignError::Io { action: "sync".to_owned(), reason: "full".to_owned() }) } else { Ok(()) }
        }

        fn settled(&self, _: &[Vec<u8>]) -> Result<(), SignError> {
            self.note("settled");
            Ok(())
        }

        fn origin(&self) -> &str {
            "log"
        }

        fn size(&self) -> Result<u64, SignError> {
            Ok(0)
        }

        fn root(&self) -> Result<Digest, SignError> {
            Ok(Digest::of(b""))
        }
    }

    impl ContentStore for Asked {
        fn put(&self, reader: &mut dyn Read, _: u64) -> Result<(Digest, u64), StoreError> {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            self.note(&format!("put {}", String::from_utf8_lossy(&bytes)));
            Ok((Digest::of(&bytes), bytes.len() as u64))
        }

        fn open(&self, digest: &Digest) -> Result<File, StoreError> {
            Err(StoreError::Missing { digest: *digest })
        }

        fn read(&self, digest: &Digest, _: u64) -> Result<Vec<u8>, StoreError> {
            self.note("read");
            Err(StoreError::Missing { digest: *digest })
        }

        fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
            Err(StoreError::Missing { digest: *digest })
        }
    }

    fn together(asked: &Asked) -> Together<'_> {
        Together { log: asked, store: asked, kept: Mutex::default() }
    }

    #[test]
    fn a_bundle_is_stored_after_the_log_has_its_entry_for_good_and_forgotten_nowhere_before() {
        let asked = Asked::default();
        let together = together(&asked);
        for bundle in [&b"one"[..], b"two"] {
            TransparencyLog::append(&together, &[bundle.to_vec()]).unwrap();
            together.put_bytes(bundle).unwrap();
            together.settled(&[bundle.to_vec()]).unwrap();
        }
        together.read(&Digest::of(b"other"), 10).unwrap_err();
        together.flush().map_err(Error::from).unwrap();
        together.flush().map_err(Error::from).unwrap();
        let said = asked.0.lock().unwrap().clone();
        let (first, last) = said.split_at(4);
        assert_eq!(first, ["append, held", "append, held", "read", "durable"]);
        assert_eq!((last.len(), last[2].as_str()), (3, "settled"), "{last:?}");
        assert!(last[..2].iter().all(|said| said.starts_with("put ")), "{last:?}");
    }

    #[test]
    fn a_log_that_holds_an_entry_is_let_go_although_no_bundle_came_of_it() {
        let asked = Asked::default();
        let together = together(&asked);
        TransparencyLog::append(&together, &[b"one".to_vec()]).unwrap();
        together.flush().map_err(Error::from).unwrap();
        together.flush().map_err(Error::from).unwrap();
        assert_eq!(*asked.0.lock().unwrap(), ["append, held", "durable", "settled"]);
    }

    #[test]
    fn what_is_asked_for_is_stored_first_and_what_no_log_has_is_not_stored() {
        let asked = Asked::default();
        together(&asked).put_bytes(b"never made durable").unwrap();
        assert_eq!(*asked.0.lock().unwrap(), [""; 0]);
        let kept = together(&asked);
        let digest = kept.put_bytes(b"one").unwrap();
        kept.read(&digest, 10).unwrap_err();
        assert_eq!(*asked.0.lock().unwrap(), ["durable", "put one", "settled", "read"]);
        let full = Asked(Mutex::default(), true);
        let kept = together(&full);
        kept.put_bytes(b"one").unwrap();
        assert!(matches!(kept.flush().map_err(Error::from), Err(Error::Sign(_))));
        assert_eq!(*full.0.lock().unwrap(), ["durable"]);
    }
}
