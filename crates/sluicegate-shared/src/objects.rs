//! Objects of a shared store, read and written piece by piece, each piece within a limit of time and size.

use std::{
    future::Future,
    io::{self, Read},
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Instant,
};

use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, path::Path};
use sluicegate_ports::execute::Stop;
use sluicegate_types::{Digest, Hasher};
use tokio::runtime::{Builder, Runtime};

use crate::SharedLimits;

/// Characters of what a server says that are said again.
const SAID: usize = 300;

/// Why an object was not read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There is none.
    Absent,
    /// The store can't be used: no further try does better.
    Store(String),
    /// What is there is not what it should be.
    Wrong(String),
}

/// A place with objects, for one thread.
pub(crate) struct Objects {
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
    store: Arc<dyn ObjectStore>,
    /// The folder, if it is one.
    root: Option<PathBuf>,
    prefix: String,
    limits: SharedLimits,
}

impl Objects {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        root: Option<PathBuf>,
        prefix: &str,
        limits: SharedLimits,
    ) -> Result<Self, String> {
        let runtime = Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| format!("cannot begin to ask: {error}"))?;
        Ok(Self { runtime: Some(runtime), store, root, prefix: prefix.to_owned(), limits })
    }

    /// A whole small object.
    pub(crate) fn small(&self, name: &str, limit: u64) -> Result<Vec<u8>, Fault> {
        let (bytes, size) = self.piece(name, 0..limit)?;
        if size > limit { Err(larger(name, limit)) } else { Ok(bytes) }
    }

    /// The content of `expected`, to be read to its end, where an error says that it was something else.
    pub(crate) fn content<'a>(&'a self, name: String, expected: Digest, limit: u64, stop: &'a Stop) -> Incoming<'a> {
        Incoming {
            objects: self,
            stop,
            name,
            expected,
            limit,
            hasher: Hasher::new(),
            piece: Vec::new(),
            at: 0,
            read: 0,
            size: None,
            started: Instant::now(),
            fault: None,
        }
    }

    /// Writes a small object.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        let path = self.writable(name)?;
        self.wait(self.store.put(&path, bytes.into())).map(drop)
    }

    /// Begins an object of more than one piece. It is not there before [`Objects::complete`].
    pub(crate) fn begin(&self, name: &str) -> Result<Box<dyn MultipartUpload>, Fault> {
        let path = self.writable(name)?;
        self.wait(self.store.put_multipart(&path))
    }

    pub(crate) fn part(&self, upload: &mut dyn MultipartUpload, bytes: Vec<u8>) -> Result<(), Fault> {
        self.wait(upload.put_part(bytes.into()))
    }

    pub(crate) fn complete(&self, upload: &mut dyn MultipartUpload) -> Result<(), Fault> {
        self.wait(upload.complete()).map(drop)
    }

    /// Takes away what was written of it, if that can be done.
    pub(crate) fn abort(&self, upload: &mut dyn MultipartUpload) {
        let _ = self.wait(upload.abort());
    }

    pub(crate) fn limits(&self) -> SharedLimits {
        self.limits
    }

    /// A part of an object, and the size of the whole.
    fn piece(&self, name: &str, range: std::ops::Range<u64>) -> Result<(Vec<u8>, u64), Fault> {
        let path = self.readable(name)?;
        let (from, asked) = (range.start, range.end - range.start);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let got = self.wait(async {
            let found = self.store.get_opts(&path, options).await?;
            let size = found.meta.size;
            Ok((found.bytes().await?, size))
        });
        let (bytes, size) = match got {
            // Of nothing no part can be had, and stores say that in words of their own.
            Err(Fault::Store(said)) if from == 0 && is_about_a_range(&said) && self.is_empty(&path) => {
                return Ok((Vec::new(), 0));
            }
            got => got?,
        };
        if bytes.len() as u64 > asked {
            return Err(Fault::Wrong(format!("more of {name} came than was asked for")));
        }
        Ok((bytes.to_vec(), size))
    }

    fn is_empty(&self, path: &Path) -> bool {
        self.wait(self.store.head(path)).is_ok_and(|found| found.size == 0)
    }

    /// The bytes of an object, as it is said: asked for as its content is, since not everybody who may have that is told more.
    pub(crate) fn size(&self, name: &str) -> Result<u64, Fault> {
        self.piece(name, 0..1).map(|(_, size)| size)
    }

    /// Where an object is read from.
    fn readable(&self, name: &str) -> Result<Path, Fault> {
        let path = self.path(name)?;
        if let Some(root) = &self.root {
            check_file(&root.join(path.as_ref()))?;
        }
        Ok(path)
    }

    /// The whole name of an object.
    pub(crate) fn whole(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }

    pub(crate) fn path(&self, name: &str) -> Result<Path, Fault> {
        let whole = self.whole(name);
        Path::parse(&whole).map_err(|error| Fault::Store(format!("{whole} is no name there: {error}")))
    }

    /// Where an object is written to. A link in the folder could lead out of it.
    fn writable(&self, name: &str) -> Result<Path, Fault> {
        let path = self.path(name)?;
        if let Some(root) = &self.root {
            let mut folder = root.clone();
            for part in FilePath::new(path.as_ref()).parent().into_iter().flatten() {
                folder.push(part);
                match folder.symlink_metadata() {
                    Ok(found) if found.is_dir() => {}
                    Ok(_) => return Err(Fault::Store(format!("{} is no folder", folder.display()))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) => return Err(Fault::Store(format!("cannot look at {}: {error}", folder.display()))),
                }
            }
        }
        Ok(path)
    }

    pub(crate) fn wait<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> Result<T, Fault> {
        let Some(runtime) = &self.runtime else { return Err(Fault::Store("it is closed".to_owned())) };
        // A server is waited for by the client, which ends earlier; a folder may hang as well.
        let longest = self.limits.request.saturating_mul(self.limits.tries.saturating_add(1)) + self.limits.connect;
        match runtime.block_on(async { tokio::time::timeout(longest, work).await }) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(object_store::Error::NotFound { source, .. })) => Err(absent(source.as_ref())),
            Ok(Err(error)) => Err(Fault::Store(words(&error))),
            Err(_) => Err(Fault::Store(format!("it took longer than {} s", longest.as_secs()))),
        }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // What hangs in a folder is not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Content on its way here.
pub(crate) struct Incoming<'a> {
    objects: &'a Objects,
    stop: &'a Stop,
    name: String,
    expected: Digest,
    limit: u64,
    hasher: Hasher,
    piece: Vec<u8>,
    at: usize,
    /// Bytes that came.
    pub(crate) read: u64,
    size: Option<u64>,
    started: Instant,
    /// Why reading ended early.
    pub(crate) fault: Option<Fault>,
}

impl Incoming<'_> {
    fn next(&mut self) -> Result<(), Fault> {
        let limits = self.objects.limits;
        if self.stop.is_raised() {
            return Err(Fault::Wrong("fetching it was stopped".to_owned()));
        }
        if self.started.elapsed() > limits.patience(self.read) {
            return Err(Fault::Store(format!("it gives less than {} bytes in a second", limits.pace)));
        }
        let end = self.read + limits.piece as u64;
        let (bytes, size) = self.objects.piece(&self.name, self.read..end)?;
        if size > self.limit {
            return Err(larger(&self.name, self.limit));
        }
        if *self.size.get_or_insert(size) != size || (bytes.is_empty() && size > 0) {
            return Err(Fault::Wrong(format!("{} changed while it was read", self.name)));
        }
        self.hasher.update(&bytes);
        (self.read, self.piece, self.at) = (self.read + bytes.len() as u64, bytes, 0);
        Ok(())
    }

    fn is_whole(&self) -> Result<bool, Fault> {
        if self.size.is_none_or(|size| self.read < size) {
            return Ok(false);
        }
        let found = self.hasher.clone().finish();
        if found == self.expected {
            return Ok(true);
        }
        Err(Fault::Wrong(format!("what is there under {} has the digest {found}", self.expected)))
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.is_whole().and_then(|whole| if whole { Ok(true) } else { self.next().map(|()| false) }) {
                Ok(true) => return Ok(0),
                Ok(false) => {}
                Err(fault) => {
                    self.fault = Some(fault);
                    return Err(io::Error::other("the shared store does not give it"));
                }
            }
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// A server says the same of an object that is missing and of a bucket, but for a word.
fn absent(said: &(dyn std::error::Error + 'static)) -> Fault {
    let all = std::iter::successors(Some(said), |error| error.source());
    if all.map(ToString::to_string).any(|words| words.contains("NoSuchBucket")) {
        return Fault::Store("there is no such bucket".to_owned());
    }
    Fault::Absent
}

/// Whether it was answered, and that the range is wrong: what is not answered is not asked once more.
fn is_about_a_range(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    said.contains("range") || said.contains("416")
}

fn larger(name: &str, limit: u64) -> Fault {
    Fault::Wrong(format!("{name} is larger than the limit of {limit} bytes"))
}

/// A pipe in the folder would be waited for without end; a link leads to what nobody put there.
fn check_file(path: &FilePath) -> Result<(), Fault> {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(Fault::Wrong(format!("{} is no regular file", path.display()))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(Fault::Absent)
        }
        Err(error) => Err(Fault::Store(format!("cannot look at {}: {error}", path.display()))),
    }
}

/// What a person needs of an error: what the server said is cut.
fn words(error: &object_store::Error) -> String {
    let said = match error {
        object_store::Error::Unauthenticated { .. } => "the server does not know these credentials (401)".to_owned(),
        object_store::Error::PermissionDenied { .. } => {
            "the server refuses it to these credentials, or does not know them (403)".to_owned()
        }
        error => innermost(error),
    };
    cut(&said)
}

/// The reason of all reasons.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.last().map(ToString::to_string).unwrap_or_default()
}

/// In one line, the beginning of it.
pub(crate) fn cut(said: &str) -> String {
    said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SAID).collect()
}
