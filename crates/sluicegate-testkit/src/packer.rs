use sluicegate_ports::{
    store::ContentStore,
    trees::{EntryKind, TreeEntry, TreeError, TreePacker},
};
use sluicegate_types::Digest;

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
                EntryKind::HostFile { source, executable } => {
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
}
