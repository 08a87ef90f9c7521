use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use sluicegate_ports::{
    execute::{Compression, Layer},
    store::{ContentStore, StoreError},
    trees::{EntryKind, FileEntry, ITSELF, MAX_FILES, TreeEntry, TreeError, TreePacker},
};
use sluicegate_types::{Content, ContentKind, Digest};

use crate::{
    git_objects::BlobCheck,
    pack::{LayerOnto, LayerWriter, PackError, PackOptions, elf_machine, list_elf_machines, list_files},
    unpack::{self, ImageTree},
};

/// Bytes of one packed tree.
const MAX_TREE: u64 = 64 * 1024 * 1024 * 1024;

/// Packs trees into the content store.
pub struct StoreTreePacker {
    store: Arc<dyn ContentStore>,
    scratch: PathBuf,
}

impl StoreTreePacker {
    /// A packer that writes through temporary files in `scratch`.
    pub fn new(store: Arc<dyn ContentStore>, scratch: PathBuf) -> Self {
        Self { store, scratch }
    }

    fn write(&self, out: &mut impl Write, entries: BTreeMap<PathBuf, EntryKind>, epoch: u64) -> Result<(), TreeError> {
        let mut writer = LayerWriter::new(out, &PackOptions::fixed(epoch, MAX_TREE));
        for (path, kind) in entries {
            let fault = |error: PackError| TreeError::Entry { path: path.clone(), reason: chain(&error) };
            match kind {
                EntryKind::Directory(mode) => writer.add_directory(&path, mode).map_err(fault)?,
                EntryKind::HostFile { source, executable } => {
                    writer.add_file(&path, &source, if executable { 0o755 } else { 0o644 }).map_err(fault)?;
                }
                EntryKind::GitBlob { source, id, executable } => {
                    let mut blob = open_blob(&source)?;
                    let size = blob.size();
                    let mode = if executable { 0o755 } else { 0o644 };
                    writer.add_reader(&path, &mut blob, size, mode).map_err(fault)?;
                    check_blob(blob, &id, &path, &source)?;
                }
                EntryKind::Bytes(bytes, mode) => writer.add_bytes(&path, &bytes, mode).map_err(fault)?,
                EntryKind::Symlink(target) => writer.add_symlink(&path, &target).map_err(fault)?,
                EntryKind::Stored { content, executable } => {
                    let mut file = self.store.open(&content.digest)?;
                    let checked = HashCheck::new(&mut file, content.digest);
                    match content.kind {
                        ContentKind::Directory => {
                            writer.add_directory(&path, 0o755).map_err(fault)?;
                            let mut checked = checked;
                            writer.add_tar(&path, &mut checked).map_err(fault)?;
                            checked.finish(&path)?;
                        }
                        ContentKind::File => {
                            let size = checked.size(&path)?;
                            let mode = if executable { 0o755 } else { 0o644 };
                            let mut checked = checked;
                            writer.add_reader(&path, &mut checked, size, mode).map_err(fault)?;
                            checked.finish(&path)?;
                        }
                    }
                }
            }
        }
        writer.finish().map_err(|error| TreeError::Entry { path: PathBuf::new(), reason: chain(&error) })?;
        Ok(())
    }
}

impl TreePacker for StoreTreePacker {
    fn pack(&self, entries: Vec<TreeEntry>, epoch: u64) -> Result<(Digest, u64), TreeError> {
        let entries = with_parents(entries)?;
        self.packed(|out| self.write(out, entries, epoch))
    }

    fn pack_onto(&self, entries: Vec<TreeEntry>, epoch: u64, below: &[Layer]) -> Result<(Digest, u64), TreeError> {
        if entries.is_empty() {
            return self.pack(entries, epoch);
        }
        let entries = with_parents(entries)?;
        let mut image = ImageTree::default();
        for layer in below {
            let added = image.add(layer, self.store.open(&layer.blob)?);
            added.map_err(|error| TreeError::Layer { layer: layer.blob, reason: chain(&error) })?;
        }
        self.packed(|out| self.write_onto(out, entries, epoch, &image))
    }

    fn unpack(&self, content: Content, executable: bool, to: &Path) -> Result<(), TreeError> {
        let io = |action| {
            let path = to.to_owned();
            move |source| TreeError::Io { action, path, source }
        };
        let beside = to.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let draft = tempfile::Builder::new().prefix(".unpacked-").tempdir_in(beside).map_err(io("write beside"))?;
        let whole = draft.path().join("content");
        let refused = |error: unpack::UnpackError| TreeError::Entry { path: to.to_owned(), reason: error.to_string() };
        match content.kind {
            ContentKind::File => {
                let mut file = self.store.open(&content.digest)?;
                let mut checked = HashCheck::new(&mut file, content.digest);
                let mode = if executable { 0o755 } else { 0o644 };
                let mut out =
                    File::options().write(true).create_new(true).mode(mode).open(&whole).map_err(io("write"))?;
                std::io::copy(&mut checked, &mut out).map_err(io("write"))?;
                checked.finish(to)?;
            }
            ContentKind::Directory => {
                std::fs::create_dir(&whole).map_err(io("write"))?;
                let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
                let mtime = rustix::fs::stat(beside).map_or(0, |stat| stat.st_mtime.max(0).unsigned_abs());
                let file = self.store.open(&content.digest)?;
                let kind = unpack::Kind::Tree { owner, mtime, whereabouts: unpack::Whereabouts::Machine };
                let unpacked =
                    unpack::unpack_into(file, Compression::None, &whole, &[], kind, &unpack::UnpackLimits::default());
                let found = unpacked.map_err(refused)?.0.digest;
                if found != content.digest {
                    return Err(StoreError::Corrupt { digest: content.digest, found }.into());
                }
            }
        }
        // Not over what has come there meanwhile.
        rustix::fs::renameat_with(rustix::fs::CWD, &whole, rustix::fs::CWD, to, rustix::fs::RenameFlags::NOREPLACE)
            .map_err(|error| io("write")(error.into()))
    }

    fn files(&self, content: Content) -> Result<Vec<FileEntry>, TreeError> {
        self.look_through(content, |checked, place| match content.kind {
            ContentKind::File => {
                let size = checked.size(place)?;
                Ok(vec![FileEntry { path: ITSELF.to_owned(), digest: content.digest, size, executable: false }])
            }
            ContentKind::Directory => list_files(checked, MAX_FILES).map_err(|error| no_tree_of_ours(error, place)),
        })
    }

    fn elf_machines(&self, content: Content) -> Result<BTreeMap<String, u16>, TreeError> {
        self.look_through(content, |checked, place| match content.kind {
            ContentKind::File => {
                let read = |source| TreeError::Io { action: "read", path: place.to_owned(), source };
                let machine = elf_machine(checked).map_err(read)?;
                Ok(machine.map(|machine| (ITSELF.to_owned(), machine)).into_iter().collect())
            }
            ContentKind::Directory => list_elf_machines(checked).map_err(|error| no_tree_of_ours(error, place)),
        })
    }
}

impl StoreTreePacker {
    /// What `write` writes, in the store.
    fn packed(
        &self,
        write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), TreeError>,
    ) -> Result<(Digest, u64), TreeError> {
        let io = |action| {
            let path = self.scratch.clone();
            move |source| TreeError::Io { action, path, source }
        };
        let mut file: File = tempfile::tempfile_in(&self.scratch).map_err(io("create a file in"))?;
        let mut buffered = BufWriter::with_capacity(256 * 1024, &mut file);
        write(&mut buffered)?;
        buffered.flush().map_err(io("write a tree to"))?;
        drop(buffered);
        file.rewind().map_err(io("read a tree from"))?;
        Ok(self.store.put(&mut file, u64::MAX)?)
    }

    fn write_onto(
        &self,
        out: &mut impl Write,
        entries: BTreeMap<PathBuf, EntryKind>,
        epoch: u64,
        image: &ImageTree,
    ) -> Result<(), TreeError> {
        let mut layer = LayerOnto::new(out, &PackOptions::fixed(epoch, MAX_TREE), image);
        for (path, kind) in entries {
            let fault = |error: PackError| TreeError::Entry { path: path.clone(), reason: chain(&error) };
            let mode_of = |executable: bool| if executable { 0o755 } else { 0o644 };
            match kind {
                EntryKind::Directory(mode) => layer.add_directory(&path, mode),
                EntryKind::Symlink(target) => layer.add_symlink(&path, &target),
                EntryKind::Bytes(bytes, mode) => layer.add_file(&path, |layer, at| layer.add_bytes(at, &bytes, mode)),
                EntryKind::HostFile { source, executable } => {
                    layer.add_file(&path, |layer, at| layer.add_file(at, &source, mode_of(executable)))
                }
                EntryKind::GitBlob { source, id, executable } => {
                    let mut blob = open_blob(&source)?;
                    let (size, mode) = (blob.size(), mode_of(executable));
                    layer.add_file(&path, |layer, at| layer.add_reader(at, &mut blob, size, mode)).map_err(fault)?;
                    check_blob(blob, &id, &path, &source)?;
                    Ok(())
                }
                EntryKind::Stored { content, executable } => {
                    let mut file = self.store.open(&content.digest)?;
                    let mut checked = HashCheck::new(&mut file, content.digest);
                    match content.kind {
                        ContentKind::Directory => layer.add_tar(&path, &mut checked),
                        ContentKind::File => {
                            let size = checked.size(&path)?;
                            let mode = mode_of(executable);
                            layer.add_file(&path, |layer, at| layer.add_reader(at, &mut checked, size, mode))
                        }
                    }
                    .map_err(fault)?;
                    checked.finish(&path)?;
                    Ok(())
                }
            }
            .map_err(fault)?;
        }
        layer.finish().map_err(|error| TreeError::Entry { path: PathBuf::new(), reason: chain(&error) })?;
        Ok(())
    }

    /// What `look` finds in stored content, which is hashed meanwhile.
    fn look_through<T>(
        &self,
        content: Content,
        look: impl FnOnce(&mut HashCheck<'_>, &Path) -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        let place = PathBuf::from(content.digest.to_string());
        let mut file = self.store.open(&content.digest)?;
        let mut checked = HashCheck::new(&mut file, content.digest);
        let found = look(&mut checked, &place)?;
        checked.finish(&place)?;
        Ok(found)
    }
}

fn no_tree_of_ours(error: PackError, place: &Path) -> TreeError {
    match error {
        PackError::TooMany { limit } => {
            TreeError::TooMany { path: place.to_owned(), limit: usize::try_from(limit).unwrap_or(usize::MAX) }
        }
        other => TreeError::Entry { path: place.to_owned(), reason: chain(&other) },
    }
}

/// Sorted, each path once, every folder above an entry present.
fn with_parents(entries: Vec<TreeEntry>) -> Result<BTreeMap<PathBuf, EntryKind>, TreeError> {
    let mut out: BTreeMap<PathBuf, EntryKind> = BTreeMap::new();
    for entry in entries {
        if out.contains_key(&entry.path) {
            return Err(TreeError::Entry { path: entry.path, reason: "it stands in the tree twice".to_owned() });
        }
        out.insert(entry.path, entry.kind);
    }
    let below: Vec<PathBuf> = out.keys().cloned().collect();
    for path in below {
        for parent in path.ancestors().skip(1).filter(|p| *p != Path::new("")) {
            match out.get(parent) {
                None => {
                    out.insert(parent.to_owned(), EntryKind::Directory(0o755));
                }
                Some(EntryKind::Directory(_)) => break,
                Some(_) => {
                    let reason = format!("{} is no folder", parent.display());
                    return Err(TreeError::Entry { path, reason });
                }
            }
        }
    }
    Ok(out)
}

fn open_blob(source: &Path) -> Result<BlobCheck, TreeError> {
    BlobCheck::open(source).map_err(|error| TreeError::Io { action: "read", path: source.to_owned(), source: error })
}

/// What was fetched lies where somebody else may write: its name counts when it is packed, and not only when it arrived.
fn check_blob(blob: BlobCheck, id: &str, path: &Path, source: &Path) -> Result<(), TreeError> {
    let found = blob.finish();
    if found == id {
        return Ok(());
    }
    let reason = format!(
        "{} was changed after it was fetched: its bytes have the git name {found}, and the commit names {id}; run again, and see who \
         else writes there",
        source.display()
    );
    Err(TreeError::Entry { path: path.to_owned(), reason })
}

/// Hashes what is taken from the store while it is packed: a blob that was damaged on disk must not become part of an image.
struct HashCheck<'a> {
    file: &'a mut File,
    hasher: sluicegate_types::Hasher,
    expected: Digest,
}

impl<'a> HashCheck<'a> {
    fn new(file: &'a mut File, expected: Digest) -> Self {
        Self { file, hasher: sluicegate_types::Hasher::new(), expected }
    }

    fn size(&self, path: &Path) -> Result<u64, TreeError> {
        let metadata = self.file.metadata();
        metadata.map(|m| m.len()).map_err(|source| TreeError::Io { action: "look at", path: path.to_owned(), source })
    }

    fn finish(mut self, path: &Path) -> Result<(), TreeError> {
        std::io::copy(&mut self, &mut std::io::sink()).map_err(|source| TreeError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let found = self.hasher.finish();
        if found == self.expected {
            Ok(())
        } else {
            Err(sluicegate_ports::store::StoreError::Corrupt { digest: self.expected, found }.into())
        }
    }
}

impl std::io::Read for HashCheck<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use sluicegate_ports::store::StoreError;

    use super::*;

    /// Blobs as files of a folder.
    struct Folder(tempfile::TempDir);

    impl ContentStore for Folder {
        fn put(&self, reader: &mut dyn Read, _: u64) -> Result<(Digest, u64), StoreError> {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            let digest = Digest::of(&bytes);
            std::fs::write(self.0.path().join(digest.hex()), &bytes).unwrap();
            Ok((digest, bytes.len() as u64))
        }

        fn open(&self, digest: &Digest) -> Result<File, StoreError> {
            File::open(self.path(digest)?).map_err(|_| StoreError::Missing { digest: *digest })
        }

        fn read(&self, digest: &Digest, _: u64) -> Result<Vec<u8>, StoreError> {
            Ok(std::fs::read(self.path(digest)?).unwrap())
        }

        fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
            Ok(self.0.path().join(digest.hex()))
        }
    }

    fn packer() -> (Arc<Folder>, StoreTreePacker) {
        let store = Arc::new(Folder(tempfile::tempdir().unwrap()));
        let scratch = store.0.path().to_owned();
        (store.clone(), StoreTreePacker::new(store, scratch))
    }

    #[test]
    fn what_was_packed_is_listed_and_damage_is_found() {
        let (store, packer) = packer();
        let bytes = |path: &str, text: &str| TreeEntry {
            path: path.into(),
            kind: EntryKind::Bytes(text.as_bytes().to_vec(), 0o644),
        };
        let (tree, _) = packer.pack(vec![bytes("a/b", "one"), bytes("c", "two")], 0).unwrap();
        let directory = Content { kind: ContentKind::Directory, digest: tree };
        let entry = |path: &str, text: &str| FileEntry {
            path: path.to_owned(),
            digest: Digest::of(text.as_bytes()),
            size: text.len() as u64,
            executable: false,
        };
        assert_eq!(packer.files(directory).unwrap(), [entry("a/b", "one"), entry("c", "two")]);
        let (file, _) = store.put(&mut &b"elf"[..], 3).unwrap();
        let file = Content { kind: ContentKind::File, digest: file };
        assert_eq!(packer.files(file).unwrap(), [entry(ITSELF, "elf")]);
        assert!(packer.files(Content { kind: ContentKind::Directory, ..file }).is_err());

        for content in [directory, file] {
            let path = store.path(&content.digest).unwrap();
            let mut damaged = std::fs::read(&path).unwrap();
            *damaged.last_mut().unwrap() ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let found = packer.files(content);
            assert!(matches!(found, Err(TreeError::Store(StoreError::Corrupt { .. }))), "{found:?}");
        }
        let missing = Content { kind: ContentKind::File, digest: Digest::of(b"nothing") };
        assert!(matches!(packer.files(missing), Err(TreeError::Store(StoreError::Missing { .. }))));
    }

    #[test]
    fn a_fetched_file_is_packed_only_as_the_commit_names_it() {
        let (store, packer) = packer();
        let source = store.0.path().join("fetched");
        // What git hash-object says of these bytes.
        let id = "5626abf0f72e58d7a153368ba57db4c673c0e171".to_owned();
        let fetched = || {
            let kind = EntryKind::GitBlob { source: source.clone(), id: id.clone(), executable: true };
            vec![TreeEntry { path: "a/run".into(), kind }]
        };
        let plain = EntryKind::Bytes(b"one\n".to_vec(), 0o755);
        let same = packer.pack(vec![TreeEntry { path: "a/run".into(), kind: plain }], 0).unwrap();
        std::fs::write(&source, "one\n").unwrap();
        assert_eq!(packer.pack(fetched(), 0).unwrap(), same);
        assert_eq!(packer.pack_onto(fetched(), 0, &[]).unwrap(), same);
        for other in ["two\n", "one\nand more", ""] {
            std::fs::write(&source, other).unwrap();
            for packed in [packer.pack(fetched(), 0), packer.pack_onto(fetched(), 0, &[])] {
                let error = packed.unwrap_err();
                assert!(matches!(&error, TreeError::Entry { path, .. } if path == Path::new("a/run")), "{error:?}");
                assert!(error.to_string().contains("was changed after it was fetched"), "{error}");
            }
        }
        std::fs::remove_file(&source).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &source).unwrap();
        assert!(matches!(packer.pack(fetched(), 0), Err(TreeError::Io { .. })));
    }
}
