use std::{
    collections::BTreeMap,
    fs::File,
    io::{Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use sluicegate_ports::{
    store::ContentStore,
    trees::{EntryKind, TreeEntry, TreeError, TreePacker},
};
use sluicegate_types::{ContentKind, Digest};

use crate::pack::{LayerWriter, PackError, PackOptions};

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
        let io = |action| {
            let path = self.scratch.clone();
            move |source| TreeError::Io { action, path, source }
        };
        let mut file: File = tempfile::tempfile_in(&self.scratch).map_err(io("create a file in"))?;
        let mut buffered = std::io::BufWriter::with_capacity(256 * 1024, &mut file);
        self.write(&mut buffered, entries, epoch)?;
        buffered.flush().map_err(io("write a tree to"))?;
        drop(buffered);
        file.rewind().map_err(io("read a tree from"))?;
        Ok(self.store.put(&mut file, u64::MAX)?)
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
