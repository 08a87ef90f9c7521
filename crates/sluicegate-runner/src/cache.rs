//! Unpacked layers and inputs, by digest: disposable, private, and only ever complete. A folder gets its name after every byte of
//! its content has been compared with the digest and written to the disk, and is used while its seal holds.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::Timestamps;
use sluicegate_ports::{
    execute::{Compression, Layer, Stop},
    store::{ContentStore, StoreError},
};
use sluicegate_types::{Digest, Hasher};

use crate::{
    collect::with_sources,
    disposable_folder::{self, KINDS, MARKS},
    mounts::FILE_NAME,
    run_folder::{self, RunFolder},
    seal::Seals,
    unpack::{Kind, UnpackLimits, Unpacked, Whereabouts, hides_all_below, unpack_into},
};

/// Who owns the entries of an input, and their one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// User and group.
    pub(crate) owner: (u32, u32),
    /// Seconds since 1970.
    pub(crate) epoch: u64,
}

/// Folders by digest.
pub(crate) struct Cache {
    root: PathBuf,
    seals: Seals,
    store: Arc<dyn ContentStore>,
}

/// Why content could not be unpacked.
#[derive(Debug)]
pub(crate) enum CacheError {
    /// The content is broken, hostile or beyond a limit.
    Content { digest: Digest, reason: String },
    /// The store.
    Store(StoreError),
    /// It was stopped from outside.
    Stopped,
    /// The file system.
    Io { action: &'static str, reason: String },
}

impl Cache {
    /// Opens the cache, whose seals are in another folder, and removes what dead processes left half done.
    pub(crate) fn open(root: &Path, seals: &Path, store: Arc<dyn ContentStore>) -> io::Result<Self> {
        for folder in ["", "tmp", MARKS].iter().chain(&KINDS) {
            run_folder::make_private(&root.join(folder))?;
        }
        let root = fs::canonicalize(root)?;
        run_folder::sweep(&root.join("tmp"))?;
        Ok(Self { root, seals: Seals::open(seals)?, store })
    }

    /// The folders with the content of an image's layers: given lowest first, found upper first, for overlayfs to stack.
    ///
    /// A layer may say nothing of folders that it puts files into, and link to files of a layer below. Such a layer is unpacked for what
    /// lies below it and kept by the chain of all of them (OCI image-spec, "Layer ChainID"); any other is the same in every image.
    pub(crate) fn layers(&self, layers: &[Layer], stop: &Stop) -> Result<Vec<PathBuf>, CacheError> {
        let mut folders: Vec<PathBuf> = Vec::new();
        let mut chain: Option<Digest> = None;
        for layer in layers {
            let link = match chain {
                None => layer.diff_id,
                Some(below) => Digest::of(format!("{below} {}", layer.diff_id).as_bytes()),
            };
            chain = Some(link);
            let folder = self.layer(layer, &link, &folders, stop)?;
            self.note_use(&folder);
            if hides_all_below(&folder) {
                folders.clear();
            }
            folders.insert(0, folder);
        }
        Ok(folders)
    }

    fn layer(&self, layer: &Layer, chain: &Digest, below: &[PathBuf], stop: &Stop) -> Result<PathBuf, CacheError> {
        let known =
            [("alone", layer.diff_id), ("chain", *chain)].map(|(kind, name)| self.root.join(kind).join(name.hex()));
        for known in &known {
            if self.is_whole(known)? {
                return Ok(known.clone());
            }
        }
        self.make(|folder| {
            let (blob, expected) = (&layer.blob, &layer.diff_id);
            let unpacked = self.unpack((blob, expected), layer.compression, folder, below, Kind::Layer, stop)?;
            let [alone, chain] = &known;
            Ok(if unpacked.asked_below { chain.clone() } else { alone.clone() })
        })
    }

    /// The folder with the tree of a directory product.
    pub(crate) fn tree(&self, digest: &Digest, stamp: Stamp, stop: &Stop) -> Result<PathBuf, CacheError> {
        self.entry("tree", name(digest, stamp), |folder| {
            let kind = Kind::Tree { owner: stamp.owner, mtime: stamp.epoch, whereabouts: Whereabouts::Containers };
            self.unpack((digest, digest), Compression::None, folder, &[], kind, stop)?;
            chown(folder, Some(stamp.owner.0), Some(stamp.owner.1)).map_err(io_error("own an unpacked input"))
        })
    }

    /// A folder with one file, [`FILE_NAME`].
    pub(crate) fn file(&self, digest: &Digest, executable: bool, stamp: Stamp) -> Result<PathBuf, CacheError> {
        let suffix = if executable { "-x" } else { "" };
        self.entry("file", format!("{}{suffix}", name(digest, stamp)), |folder| {
            self.copy(digest, &folder.join(FILE_NAME), executable, stamp)
        })
    }

    fn entry(
        &self,
        kind: &str,
        name: String,
        fill: impl FnOnce(&Path) -> Result<(), CacheError>,
    ) -> Result<PathBuf, CacheError> {
        let path = self.root.join(kind).join(name);
        if !self.is_whole(&path)? {
            self.make(|folder| fill(folder).map(|()| path.clone()))?;
        }
        self.note_use(&path);
        Ok(path)
    }

    /// Whether there is something at `path` that is as it was made; something else makes room.
    fn is_whole(&self, path: &Path) -> Result<bool, CacheError> {
        if path.symlink_metadata().is_err() {
            return Ok(false);
        }
        if self.seals.hold(path) {
            return Ok(true);
        }
        // It gets another name first: what is half removed is nobody's.
        let failed = io_error("remove what was changed in the cache of unpacked content");
        let aside = RunFolder::new(&self.root.join("tmp")).map_err(&failed)?;
        match fs::rename(path, aside.path().join("changed")) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            renamed => renamed.map(|()| false).map_err(failed),
        }
    }

    /// For whoever has to decide what is kept.
    fn note_use(&self, path: &Path) {
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        if let (Some(kind), Some(name)) = (path.parent().and_then(name), name(path)) {
            disposable_folder::note_use(&self.root, &kind, &name);
        }
    }

    /// A new folder, by the name that whoever fills it gives it.
    fn make(&self, fill: impl FnOnce(&Path) -> Result<PathBuf, CacheError>) -> Result<PathBuf, CacheError> {
        let failed = io_error("write to the cache of unpacked content");
        let temporary = RunFolder::new(&self.root.join("tmp")).map_err(&failed)?;
        let folder = temporary.path().join("content");
        fs::create_dir(&folder).map_err(&failed)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(&failed)?;
        let path = fill(&folder)?;
        // After a power failure a name must not stand for files whose bytes never reached the disk.
        rustix::fs::syncfs(File::open(&folder).map_err(&failed)?).map_err(|error| failed(error.into()))?;
        self.seals.put(&folder, &path);
        match fs::rename(&folder, &path) {
            Ok(()) => Ok(path),
            // Another run was faster with the same content.
            Err(_) if path.is_dir() => Ok(path),
            Err(error) => Err(failed(error)),
        }
    }

    fn unpack(
        &self,
        (blob, expected): (&Digest, &Digest),
        compression: Compression,
        folder: &Path,
        below: &[PathBuf],
        kind: Kind,
        stop: &Stop,
    ) -> Result<Unpacked, CacheError> {
        let content = |reason| CacheError::Content { digest: *blob, reason };
        let reader = self.store.open(blob).map_err(CacheError::Store)?;
        let reader = UntilStopped { inner: reader, stop };
        let unpacked = unpack_into(reader, compression, folder, below, kind, &UnpackLimits::default());
        // What a reader says that was stopped is nothing about the content.
        let unpacked = match unpacked {
            Err(_) if stop.is_raised() => return Err(CacheError::Stopped),
            unpacked => unpacked.map_err(|error| content(with_sources(&error)))?,
        };
        if unpacked.digest == *expected {
            Ok(unpacked)
        } else {
            let found = unpacked.digest;
            Err(content(format!("its uncompressed bytes have the digest {found}, expected {expected}")))
        }
    }

    fn copy(&self, digest: &Digest, path: &Path, executable: bool, stamp: Stamp) -> Result<(), CacheError> {
        let failed = io_error("copy an input");
        let mut source = self.store.open(digest).map_err(CacheError::Store)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(&failed)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let n = source.read(&mut buffer).map_err(&failed)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(&failed)?;
        }
        let found = hasher.finish();
        if found != *digest {
            return Err(CacheError::Store(StoreError::Corrupt { digest: *digest, found }));
        }
        std::os::unix::fs::fchown(&file, Some(stamp.owner.0), Some(stamp.owner.1)).map_err(&failed)?;
        let mode = if executable { 0o755 } else { 0o644 };
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(&failed)?;
        rustix::fs::futimens(&file, &times(stamp.epoch)).map_err(|error| failed(error.into()))
    }
}

/// Stored bytes, until it is to stop.
struct UntilStopped<'a, R> {
    inner: R,
    stop: &'a Stop,
}

impl<R: Read> Read for UntilStopped<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_raised() {
            return Err(io::Error::other("it was stopped"));
        }
        self.inner.read(buffer)
    }
}

fn name(digest: &Digest, stamp: Stamp) -> String {
    format!("{}-{}-{}-{}", digest.hex(), stamp.epoch, stamp.owner.0, stamp.owner.1)
}

fn times(epoch: u64) -> Timestamps {
    let moment = rustix::fs::Timespec { tv_sec: i64::try_from(epoch).unwrap_or(i64::MAX), tv_nsec: 0 };
    Timestamps { last_access: moment, last_modification: moment }
}

fn io_error(action: &'static str) -> impl Fn(io::Error) -> CacheError {
    move |error| CacheError::Io { action, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::OwnedFd, sync::Mutex, thread};

    use super::*;
    use crate::pack::{LayerWriter, PackOptions};

    /// A store of one blob, which comes through a pipe.
    struct Coming(Mutex<Option<io::PipeReader>>);

    impl ContentStore for Coming {
        fn put(&self, _: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
            Err(StoreError::TooLarge { limit })
        }

        fn open(&self, digest: &Digest) -> Result<File, StoreError> {
            let pipe = self.0.lock().unwrap().take().ok_or(StoreError::Missing { digest: *digest })?;
            Ok(OwnedFd::from(pipe).into())
        }

        fn read(&self, digest: &Digest, _: u64) -> Result<Vec<u8>, StoreError> {
            Err(StoreError::Missing { digest: *digest })
        }

        fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
            Err(StoreError::Missing { digest: *digest })
        }
    }

    #[test]
    fn a_layer_is_left_in_the_middle_when_it_is_to_stop() {
        let mut tar = LayerWriter::new(Vec::new(), &PackOptions::fixed(0, 1 << 30));
        tar.add_bytes(Path::new("large"), &vec![7; 4 << 20], 0o644).unwrap();
        let tar = tar.finish().unwrap().0;
        let blob = Digest::of(&tar);
        let layers = [Layer { blob, compression: Compression::None, diff_id: blob }];
        for stops in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let (reader, mut writer) = io::pipe().unwrap();
            let cache = Cache::open(
                &folder.path().join("cache"),
                &folder.path().join("seals"),
                Arc::new(Coming(Mutex::new(Some(reader)))),
            )
            .unwrap();
            let stop = Stop::default();
            let unpacked = thread::scope(|scope| {
                let unpacked = scope.spawn(|| cache.layers(&layers, &stop));
                // More than a pipe and a buffer hold: by now it is being unpacked.
                let (begin, rest) = tar.split_at(2 << 20);
                writer.write_all(begin).unwrap();
                if stops {
                    stop.raise();
                }
                // Whoever stopped does not take it.
                writer.write_all(rest).map_err(drop).unwrap_or_default();
                drop(writer);
                unpacked.join().unwrap()
            });
            match unpacked {
                Ok(folders) => assert!(!stops && folders[0].join("large").is_file()),
                Err(error) => assert!(stops && matches!(error, CacheError::Stopped), "{error:?}"),
            }
            let left = |part: &str| fs::read_dir(folder.path().join("cache").join(part)).unwrap().flatten();
            assert_eq!(left("alone").count(), usize::from(!stops));
            assert!(left("tmp").all(|entry| entry.file_name().to_string_lossy().starts_with('.')));
        }
    }
}
