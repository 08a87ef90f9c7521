//! Writers that die in the middle: the old image stays whole, and the next writer finds nothing in its way.

use std::{
    fs::{self, File},
    io::Read,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use sluicegate_ports::{
    images::{Descriptor, ImagePlaces},
    store::{ContentStore, StoreError},
};
use sluicegate_testkit::{MemoryStore, VirtualImage};
use sluicegate_types::Digest;

use crate::published_layout::{Layout, bytes, places, published};

#[test]
fn a_publication_that_breaks_off_anywhere_leaves_the_old_image_whole() {
    let (old, new) = (VirtualImage::new(b"old"), VirtualImage::new(b"new"));
    for opens in 0.. {
        let layout = Layout::new();
        layout.publish(&layout.publication(&old, None)).unwrap();
        let before = layout.index();
        let publication = layout.publication(&new, Some(old.digest()));
        let breaking = Breaking { store: &layout.store, opens: AtomicU32::new(opens) };
        let target = places().target(&layout.folder().into()).unwrap();
        // A panic is as near as a test comes to a process that dies there: nothing is cleaned up but what drops.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target.publish(&publication, &breaking)));
        if let Ok(result) = ended {
            result.unwrap();
            assert!(opens >= 4, "{opens}");
            assert_eq!(layout.current(), Some(new.digest()));
            return;
        }
        assert_eq!(layout.index(), before, "{opens}");
        let source = layout.source();
        for (digest, content) in &old.blobs {
            let descriptor = Descriptor::new("any/thing", *digest, content.len() as u64);
            assert_eq!(bytes(source.as_ref(), &descriptor).unwrap(), *content, "{opens}");
        }
        assert_eq!(source.referrers(&old.digest()).unwrap().len(), 1);
        layout.publish(&publication).unwrap();
        assert_eq!(layout.current(), Some(new.digest()), "the next attempt finds no lock in its way");
    }
}

#[test]
fn what_a_killed_writer_left_is_removed_by_the_next_one() {
    let (layout, _) = published();
    let image = VirtualImage::new(b"new");
    let left = [".sluicegate-tmp-a", "blobs/sha256/.sluicegate-tmp-b"].map(|name| layout.folder().join(name));
    let others = [".tmp-mine", "blobs/sha256/.hidden"].map(|name| layout.folder().join(name));
    left.iter().chain(&others).for_each(|path| fs::write(path, b"half").unwrap());
    layout.publish(&layout.publication(&image, layout.current())).unwrap();
    assert!(left.iter().all(|path| !path.exists()));
    assert!(others.iter().all(|path| path.exists()));
}

/// A store under which the process dies after some blobs.
struct Breaking<'a> {
    store: &'a MemoryStore,
    opens: AtomicU32,
}

impl ContentStore for Breaking<'_> {
    fn put(&self, reader: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
        self.store.put(reader, limit)
    }

    fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        let left = self.opens.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_ok(), "the process dies here, as this test wants");
        self.store.open(digest)
    }

    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.store.read(digest, limit)
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        self.store.path(digest)
    }
}
