use std::{collections::BTreeMap, path::Path};

use sluicegate_ports::{
    execute::Layer,
    store::ContentStore,
    trees::{EntryKind, FileEntry, ITSELF, TreeEntry, TreeError, TreePacker},
};
use sluicegate_types::{Content, ContentKind, Digest};

/// Packs entries into a text that lists them: other entries, other bytes. It is no tar.
pub struct FakePacker<'a> {
    store: &'a dyn ContentStore,
}

impl<'a> FakePacker<'a> {
    /// A packer that puts its packs into `store`.
    pub fn new(store: &'a dyn ContentStore) -> Self {
        Self { store }
    }
}

impl TreePacker for FakePacker<'_> {
    fn pack(&self, mut entries: Vec<TreeEntry>, epoch: u64) -> Result<(Digest, u64), TreeError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut text = format!("pack of {epoch}\n");
        for entry in entries {
            let what = match entry.kind {
                EntryKind::HostFile { source, executable } | EntryKind::GitBlob { source, executable, .. } => {
                    let bytes = std::fs::read(&source).map_err(|error| TreeError::Io {
                        action: "read",
                        path: source,
                        source: error,
                    })?;
                    format!("{} {executable}", Digest::of(&bytes))
                }
                other => format!("{other:?}"),
            };
            text.push_str(&format!("{} {what}\n", entry.path.display()));
        }
        Ok((self.store.put_bytes(text.as_bytes())?, text.len() as u64))
    }

    /// What lies below is not looked at.
    fn pack_onto(&self, entries: Vec<TreeEntry>, epoch: u64, _: &[Layer]) -> Result<(Digest, u64), TreeError> {
        self.pack(entries, epoch)
    }

    /// As a pack is no tar, a directory is listed as one file, `content`, with the bytes that are stored.
    fn unpack(&self, content: Content, _: bool, to: &Path) -> Result<(), TreeError> {
        let bytes = self.store.read(&content.digest, u64::MAX)?;
        std::fs::write(to, bytes).map_err(|source| TreeError::Io { action: "write", path: to.to_owned(), source })
    }

    fn files(&self, content: Content) -> Result<Vec<FileEntry>, TreeError> {
        let size = self.store.read(&content.digest, u64::MAX)?.len() as u64;
        let path = match content.kind {
            ContentKind::File => ITSELF,
            ContentKind::Directory => "content",
        };
        Ok(vec![FileEntry { path: path.to_owned(), digest: content.digest, size, executable: false }])
    }

    /// A file that begins as an ELF file does is one; a directory holds none.
    fn elf_machines(&self, content: Content) -> Result<BTreeMap<String, u16>, TreeError> {
        let bytes = self.store.read(&content.digest, u64::MAX)?;
        let machine = bytes.get(18..20).filter(|_| bytes.starts_with(b"\x7fELF"));
        let machine = machine.map(|machine| (ITSELF.to_owned(), u16::from_le_bytes([machine[0], machine[1]])));
        Ok(machine.into_iter().collect())
    }
}
