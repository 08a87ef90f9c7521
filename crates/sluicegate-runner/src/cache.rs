//! Unpacked layers and inputs, by digest: disposable, private, and only ever complete. A folder gets its name after every byte of
//! its content has been compared with the digest and written to the disk, and is used while its seal holds.
//!
//! Several runs use one cache at a time, and a folder whose seal is broken may be what a step of another run reads: it loses its name and
//! nothing else. What has lost its name is removed by `prune`, which nobody runs beside.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use rustix::{
    fd::AsFd,
    fs::{CWD, RenameFlags, Timestamps},
    io::Errno,
};
use sluicegate_ports::{
    execute::{Compression, Layer, Stop},
    store::{ContentStore, StoreError},
};
use sluicegate_types::{Digest, Hasher};

use crate::{
    collect::with_sources,
    disposable_folder::{self, GOING, KINDS, MARKS},
    in_root,
    mounts::FILE_NAME,
    run_folder::{self, RunFolder},
    seal::{self, Found, Inode, Seal, Seals},
    unpack::{Kind, Made, Thing, UnpackLimits, Unpacked, What, Whereabouts, hides_all_below, unpack_into},
};

/// How often a place is looked at anew that others change meanwhile.
const MAX_TRIES: usize = 16;

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

/// A folder of the cache as it was when it was found whole, or made.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    /// Where it is.
    pub(crate) path: PathBuf,
    content: Digest,
    seal: Seal,
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
    pub(crate) fn layers(&self, layers: &[Layer], stop: &Stop) -> Result<Vec<Whole>, CacheError> {
        let mut folders: Vec<Whole> = Vec::new();
        let mut chain: Option<Digest> = None;
        for layer in layers {
            let link = match chain {
                None => layer.diff_id,
                Some(below) => Digest::of(format!("{below} {}", layer.diff_id).as_bytes()),
            };
            chain = Some(link);
            let folder = self.layer(layer, &link, &folders, stop)?;
            self.note_use(&folder.path);
            if hides_all_below(&folder.path) {
                folders.clear();
            }
            folders.insert(0, folder);
        }
        Ok(folders)
    }

    /// Whether these are the very same folders still and as they were: an error names the first content of which they are not. All of their
    /// entries are looked at once more, some microseconds each, and none is read.
    pub(crate) fn require_unchanged(&self, folders: &[Whole]) -> Result<(), CacheError> {
        for Whole { path, content, seal } in folders {
            let holds = seal.holds(path);
            if !holds.as_ref().is_ok_and(|holds| *holds) {
                self.seals.doubt(path);
            }
            if !holds.map_err(io_error("look once more at what was unpacked"))? {
                let reason = "what was unpacked of it was changed by somebody else while it was used".to_owned();
                return Err(CacheError::Content { digest: *content, reason });
            }
        }
        Ok(())
    }

    fn layer(&self, layer: &Layer, chain: &Digest, below: &[Whole], stop: &Stop) -> Result<Whole, CacheError> {
        let known =
            [("alone", layer.diff_id), ("chain", *chain)].map(|(kind, name)| self.root.join(kind).join(name.hex()));
        for known in &known {
            if let Some(whole) = self.find(known, &layer.blob)? {
                return Ok(whole);
            }
        }
        self.make(&layer.blob, |folder| {
            let (blob, expected) = (&layer.blob, &layer.diff_id);
            let lower: Vec<_> = below.iter().map(|below| below.path.clone()).collect();
            let (unpacked, made) =
                self.unpack((blob, expected), layer.compression, folder, &lower, Kind::Layer, stop)?;
            let [alone, chain] = &known;
            if !unpacked.asked_below {
                return Ok((alone.clone(), made));
            }
            // What was made of something else than was judged must not outlive this.
            self.require_unchanged(below)?;
            Ok((chain.clone(), made))
        })
    }

    /// The folder with the tree of a directory product.
    pub(crate) fn tree(&self, digest: &Digest, stamp: Stamp, stop: &Stop) -> Result<Whole, CacheError> {
        self.entry("tree", digest, name(digest, stamp), |folder| {
            let kind = Kind::Tree { owner: stamp.owner, mtime: stamp.epoch, whereabouts: Whereabouts::Containers };
            let (_, mut made) = self.unpack((digest, digest), Compression::None, folder, &[], kind, stop)?;
            let failed = io_error("own an unpacked input");
            chown(folder, Some(stamp.owner.0), Some(stamp.owner.1)).map_err(&failed)?;
            let noted = File::open(folder).and_then(|folder| Ok(made.own(&folder, stamp.owner)?));
            noted.map(|()| made).map_err(failed)
        })
    }

    /// A folder with one file, [`FILE_NAME`].
    pub(crate) fn file(&self, digest: &Digest, executable: bool, stamp: Stamp) -> Result<Whole, CacheError> {
        let suffix = if executable { "-x" } else { "" };
        self.entry("file", digest, format!("{}{suffix}", name(digest, stamp)), |folder| {
            self.copy(digest, folder, executable, stamp)
        })
    }

    fn entry(
        &self,
        kind: &str,
        content: &Digest,
        name: String,
        fill: impl FnOnce(&Path) -> Result<Made, CacheError>,
    ) -> Result<Whole, CacheError> {
        let path = self.root.join(kind).join(name);
        let whole = match self.find(&path, content)? {
            Some(whole) => whole,
            None => self.make(content, |folder| Ok((path.clone(), fill(folder)?)))?,
        };
        self.note_use(&path);
        Ok(whole)
    }

    /// What is at `path`, if it is as it was made; something else makes room.
    fn find(&self, path: &Path, content: &Digest) -> Result<Option<Whole>, CacheError> {
        let failed = io_error("look at what is in the cache of unpacked content");
        for _ in 0..MAX_TRIES {
            match self.seals.find(path).map_err(&failed)? {
                Found::Nothing => return Ok(None),
                Found::Whole(seal) => return Ok(Some(Whole { path: path.to_owned(), content: *content, seal })),
                Found::Broken(judged) => self.set_aside(path, judged).map_err(&failed)?,
            }
        }
        Err(contended(path))
    }

    /// Takes the name from the folder that was judged and from no other. It stays as it is for whoever reads it.
    fn set_aside(&self, path: &Path, judged: Inode) -> io::Result<()> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let aside = path.with_file_name(format!("{GOING}{name}-{:x}", judged.number));
        match rustix::fs::renameat_with(CWD, path, CWD, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // Another process was faster, and what has the name now is judged anew.
            Err(Errno::NOENT | Errno::EXIST) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if Inode::at(&aside)? == judged {
            self.seals.forget(path, judged);
            return Ok(());
        }
        // Meanwhile somebody else had made it anew. If there is yet another one, this one is spare.
        match rustix::fs::renameat_with(CWD, &aside, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT | Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// For whoever has to decide what is kept.
    fn note_use(&self, path: &Path) {
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        if let (Some(kind), Some(name)) = (path.parent().and_then(name), name(path)) {
            disposable_folder::note_use(&self.root, &kind, &name);
        }
    }

    /// A new folder, by the name that whoever fills it gives it; or the one that somebody else made meanwhile, if its seal holds.
    ///
    /// A seal says that a folder is as it was left. That it was left as its content says is compared before: all of it is read back, between
    /// two looks that have to find the same.
    fn make(
        &self,
        content: &Digest,
        fill: impl FnOnce(&Path) -> Result<(PathBuf, Made), CacheError>,
    ) -> Result<Whole, CacheError> {
        let failed = io_error("write to the cache of unpacked content");
        let temporary = RunFolder::new(&self.root.join("tmp")).map_err(&failed)?;
        let folder = temporary.path().join("content");
        fs::create_dir(&folder).map_err(&failed)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(&failed)?;
        let (path, made) = fill(&folder)?;
        let seal = Seal::of(&folder).map_err(&failed)?;
        // What is changed in this tick is read back; what is changed later has a later date, which the seal shows.
        seal::wait_for_the_next_tick(temporary.path()).map_err(&failed)?;
        let opened = File::open(&folder).map_err(&failed)?;
        let (written, difference) = thread::scope(|scope| {
            // After a power failure a name must not stand for files whose bytes never reached the disk.
            let sync = || rustix::fs::syncfs(&opened);
            let written = thread::Builder::new().spawn_scoped(scope, sync);
            // What is read back comes from memory, and costs nothing beside the disk.
            let difference = made.difference(&folder);
            // Without a thread it is done one after the other.
            let written = written.map_or_else(|_| sync(), |written| written.join().unwrap_or(Err(Errno::IO)));
            (written, difference)
        });
        written.map_err(|error| failed(error.into()))?;
        let foreign = |what: &Path| {
            let reason = format!("somebody else changed what was unpacked of it: /{}", what.display());
            CacheError::Content { digest: *content, reason }
        };
        if let Some(path) = difference.map_err(&failed)? {
            return Err(foreign(&path));
        }
        if !seal.holds(&folder).map_err(&failed)? {
            return Err(foreign(Path::new("")));
        }
        self.seals.put(&seal, &path);
        for _ in 0..MAX_TRIES {
            match rustix::fs::renameat_with(CWD, &folder, CWD, &path, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.seals.believe(&path, seal);
                    return Ok(Whole { path, content: *content, seal });
                }
                Err(Errno::EXIST) => {
                    if let Some(whole) = self.find(&path, content)? {
                        return Ok(whole);
                    }
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        Err(contended(&path))
    }

    fn unpack(
        &self,
        (blob, expected): (&Digest, &Digest),
        compression: Compression,
        folder: &Path,
        below: &[PathBuf],
        kind: Kind,
        stop: &Stop,
    ) -> Result<(Unpacked, Made), CacheError> {
        let content = |reason| CacheError::Content { digest: *blob, reason };
        let reader = self.store.open(blob).map_err(CacheError::Store)?;
        let reader = UntilStopped { inner: reader, stop };
        let unpacked = unpack_into(reader, compression, folder, below, kind, &UnpackLimits::default());
        // What a reader says that was stopped is nothing about the content.
        let (unpacked, made) = match unpacked {
            Err(_) if stop.is_raised() => return Err(CacheError::Stopped),
            unpacked => unpacked.map_err(|error| content(with_sources(&error)))?,
        };
        if unpacked.digest == *expected {
            Ok((unpacked, made))
        } else {
            let found = unpacked.digest;
            Err(content(format!("its uncompressed bytes have the digest {found}, expected {expected}")))
        }
    }

    fn copy(&self, digest: &Digest, folder: &Path, executable: bool, stamp: Stamp) -> Result<Made, CacheError> {
        let failed = io_error("copy an input");
        let path = folder.join(FILE_NAME);
        let mut source = self.store.open(digest).map_err(CacheError::Store)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(&failed)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 * 1024];
        let mut size = 0;
        loop {
            let n = source.read(&mut buffer).map_err(&failed)?;
            if n == 0 {
                break;
            }
            size += n as u64;
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
        let note = || -> io::Result<Made> {
            rustix::fs::futimens(&file, &times(stamp.epoch))?;
            let folder = in_root::open_root(folder)?;
            let mut made = Made::in_folder(folder.as_fd())?;
            let thing = Thing::new(What::File { size, digest: found }, mode, stamp.owner);
            made.put(&folder, FILE_NAME.as_ref(), &rustix::fs::fstat(&file)?, thing)?;
            Ok(made)
        };
        note().map_err(failed)
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

fn contended(path: &Path) -> CacheError {
    let reason = format!("others change {} all the time", path.display());
    CacheError::Io { action: "take a place in the cache of unpacked content", reason }
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
    use std::{os::fd::OwnedFd, sync::Mutex};

    use rustix::fs::{Mode, OFlags};
    use sluicegate_ports::prune::Disposable;

    use super::*;
    use crate::{
        DisposableFolder,
        pack::{LayerWriter, PackOptions},
    };

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

    /// A store of this blob, any number of times.
    struct Stored(Vec<u8>);

    impl ContentStore for Stored {
        fn put(&self, _: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
            Err(StoreError::TooLarge { limit })
        }

        fn open(&self, _: &Digest) -> Result<File, StoreError> {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&self.0).unwrap();
            io::Seek::rewind(&mut file).unwrap();
            Ok(file)
        }

        fn read(&self, digest: &Digest, _: u64) -> Result<Vec<u8>, StoreError> {
            Err(StoreError::Missing { digest: *digest })
        }

        fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
            Err(StoreError::Missing { digest: *digest })
        }
    }

    /// A home that several processes unpack this layer in.
    struct Home {
        folder: tempfile::TempDir,
        tar: Vec<u8>,
        layer: Layer,
    }

    impl Home {
        fn new() -> Self {
            let mut tar = LayerWriter::new(Vec::new(), &PackOptions::fixed(0, 1 << 30));
            tar.add_bytes(Path::new("program"), b"a program", 0o755).unwrap();
            let tar = tar.finish().unwrap().0;
            let blob = Digest::of(&tar);
            let layer = Layer { blob, compression: Compression::None, diff_id: blob };
            Self { folder: tempfile::tempdir().unwrap(), tar, layer }
        }

        fn root(&self) -> PathBuf {
            self.folder.path().join("cache")
        }

        /// The cache as a process has it that begins now.
        fn cache(&self) -> Cache {
            Cache::open(&self.root(), &self.folder.path().join("seals"), Arc::new(Stored(self.tar.clone()))).unwrap()
        }

        fn layer(&self, cache: &Cache) -> Whole {
            cache.layers(std::slice::from_ref(&self.layer), &Stop::default()).unwrap().remove(0)
        }
    }

    #[test]
    fn what_another_run_reads_stays_when_its_seal_is_broken_until_it_is_pruned() {
        for is_changed in [false, true] {
            let home = Home::new();
            let first = home.layer(&home.cache());
            // As a mounted layer is held: by the folder and not by its name.
            let mounted = File::open(&first.path).unwrap();
            let program = first.path.join("program");
            if is_changed {
                fs::set_permissions(&program, program.metadata().unwrap().permissions()).unwrap();
            }
            let second = home.layer(&home.cache());
            assert_eq!(second.path, first.path);
            assert_eq!(second.seal.eq(&first.seal), !is_changed);
            let read = rustix::fs::openat(&mounted, "program", OFlags::RDONLY, Mode::empty()).unwrap();
            assert_eq!(io::read_to_string(File::from(read)).unwrap(), "a program");

            let disposable = DisposableFolder::of_layers(home.folder.path(), home.root());
            let things = disposable.things().unwrap();
            let going: Vec<_> = things.iter().filter(|thing| thing.name.contains(GOING)).collect();
            assert_eq!(going.len(), usize::from(is_changed), "{things:?}");
            going.iter().for_each(|thing| disposable.remove(&thing.name).unwrap());
            assert_eq!(disposable.things().unwrap().len(), 1);
            let seals = fs::read_dir(home.folder.path().join("seals")).unwrap().count();
            assert_eq!(seals, 1, "one for each folder that has a name");
            assert_eq!(home.layer(&home.cache()).seal, second.seal);
        }
    }

    #[test]
    fn what_was_changed_while_it_was_used_is_named_and_made_anew() {
        let home = Home::new();
        let cache = home.cache();
        let used = [home.layer(&cache)];
        cache.require_unchanged(&used).unwrap();
        let program = used[0].path.join("program");
        fs::set_permissions(&program, program.metadata().unwrap().permissions()).unwrap();
        for _ in 0..2 {
            let error = cache.require_unchanged(&used).unwrap_err();
            assert!(matches!(error, CacheError::Content { digest, .. } if digest == home.layer.blob), "{error:?}");
        }
        // The same where another process has made it anew already.
        home.layer(&home.cache());
        assert!(cache.require_unchanged(&used).is_err());
        cache.require_unchanged(&[home.layer(&cache)]).unwrap();
    }

    #[test]
    fn only_the_folder_that_was_judged_loses_its_name() {
        let home = Home::new();
        let cache = home.cache();
        let first = home.layer(&cache);
        let judged = Inode::at(&first.path).unwrap();
        // While it was judged another process has made it anew.
        fs::rename(&first.path, home.root().join("alone/away")).unwrap();
        let second = home.layer(&home.cache());
        assert_ne!(second.seal, first.seal);
        cache.set_aside(&first.path, judged).unwrap();
        assert!(second.path.exists());
        assert_eq!(home.layer(&cache).seal, second.seal);
        // And the same folder, judged rightly.
        cache.set_aside(&second.path, Inode::at(&second.path).unwrap()).unwrap();
        assert!(!second.path.exists());
    }

    #[test]
    fn what_gets_the_name_meanwhile_is_used_if_it_is_whole_and_not_otherwise() {
        for is_whole in [true, false] {
            let home = Home::new();
            let cache = home.cache();
            let path = home.root().join("alone").join(home.layer.diff_id.hex());
            let made = cache.make(&home.layer.blob, |folder| {
                let layer =
                    unpack_into(&home.tar[..], Compression::None, folder, &[], Kind::Layer, &UnpackLimits::default());
                if is_whole {
                    home.layer(&home.cache());
                } else {
                    fs::create_dir(&path).unwrap();
                    fs::write(path.join("program"), "a foreign one").unwrap();
                }
                Ok((path.clone(), layer.unwrap().1))
            });
            let made = made.unwrap();
            cache.require_unchanged(std::slice::from_ref(&made)).unwrap();
            assert_eq!(fs::read_to_string(path.join("program")).unwrap(), "a program");
            assert_eq!(home.layer(&home.cache()).seal, made.seal);
            let names = fs::read_dir(home.root().join("alone")).unwrap().count();
            assert_eq!(names, if is_whole { 1 } else { 2 });
        }
    }

    #[test]
    fn what_somebody_else_puts_into_a_layer_that_is_being_unpacked_is_never_used() {
        let mut tar = LayerWriter::new(Vec::new(), &PackOptions::fixed(7, 1 << 30));
        tar.add_directory(Path::new("bin"), 0o755).unwrap();
        tar.add_bytes(Path::new("bin/tool"), b"a tool", 0o755).unwrap();
        tar.add_symlink(Path::new("link"), Path::new("bin")).unwrap();
        tar.add_bytes(Path::new("zeros"), &vec![0; 4 << 20], 0o644).unwrap();
        let tar = tar.finish().unwrap().0;
        let blob = Digest::of(&tar);
        let layers = [Layer { blob, compression: Compression::None, diff_id: blob }];
        type Change = (&'static str, fn(&Path));
        let changes: [Change; 10] = [
            ("", |_| {}),
            ("/bin/more", |draft| fs::write(draft.join("bin/more"), "").unwrap()),
            ("/more", |draft| fs::create_dir(draft.join("more")).unwrap()),
            // The same length, and the time set back.
            ("/bin/tool", |draft| {
                let tool = draft.join("bin/tool");
                let modified = fs::metadata(&tool).unwrap().modified().unwrap();
                fs::write(&tool, "a fool").unwrap();
                File::options().write(true).open(&tool).unwrap().set_modified(modified).unwrap();
            }),
            ("/bin/tool", |draft| {
                fs::set_permissions(draft.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
            }),
            ("/bin/tool", |draft| {
                let file = File::open(draft.join("bin/tool")).unwrap();
                rustix::fs::fsetxattr(&file, "user.more", b"y", rustix::fs::XattrFlags::empty()).unwrap();
            }),
            ("/bin/tool", |draft| {
                fs::copy(draft.join("bin/tool"), draft.join("copy")).unwrap();
                fs::rename(draft.join("copy"), draft.join("bin/tool")).unwrap();
            }),
            ("/bin", |draft| fs::remove_file(draft.join("bin/tool")).unwrap()),
            ("/link", |draft| {
                fs::remove_file(draft.join("link")).unwrap();
                std::os::unix::fs::symlink("zeros", draft.join("link")).unwrap();
            }),
            ("/", |draft| fs::set_permissions(draft, fs::Permissions::from_mode(0o777)).unwrap()),
        ];
        for (says, change) in changes {
            let folder = tempfile::tempdir().unwrap();
            let (reader, mut writer) = io::pipe().unwrap();
            let root = folder.path().join("cache");
            let store = Arc::new(Coming(Mutex::new(Some(reader))));
            let cache = Cache::open(&root, &folder.path().join("seals"), store).unwrap();
            let unpacked = thread::scope(|scope| {
                let unpacked = scope.spawn(|| cache.layers(&layers, &Stop::default()));
                // More than a pipe and a buffer hold: all but the last file is there.
                let (begin, rest) = tar.split_at(2 << 20);
                writer.write_all(begin).unwrap();
                let run = fs::read_dir(root.join("tmp")).unwrap().map(|entry| entry.unwrap().path());
                let draft = run.map(|run| run.join("content")).find(|draft| draft.exists()).unwrap();
                change(&draft);
                writer.write_all(rest).unwrap();
                drop(writer);
                unpacked.join().unwrap()
            });
            match unpacked {
                Ok(found) => assert!(says.is_empty() && found[0].path.join("bin/tool").exists(), "{says}"),
                Err(CacheError::Content { digest, reason }) => {
                    assert!(digest == blob && !says.is_empty() && reason.ends_with(says), "{says}: {reason}");
                }
                Err(error) => panic!("{says}: {error:?}"),
            }
            let kept = fs::read_dir(root.join("alone")).unwrap().count();
            assert_eq!(kept, usize::from(says.is_empty()), "{says}");
            let seals = fs::read_dir(folder.path().join("seals")).unwrap().count();
            assert_eq!(seals, kept, "{says}");
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
                Ok(folders) => assert!(!stops && folders[0].path.join("large").is_file()),
                Err(error) => assert!(stops && matches!(error, CacheError::Stopped), "{error:?}"),
            }
            let left = |part: &str| fs::read_dir(folder.path().join("cache").join(part)).unwrap().flatten();
            assert_eq!(left("alone").count(), usize::from(!stops));
            assert!(left("tmp").all(|entry| entry.file_name().to_string_lossy().starts_with('.')));
        }
    }
}
