//! OCI layout folders on disk: what is published is read back, what is broken is refused, what breaks off changes nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, symlink},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use sluicegate_attestation::identifiers::{BUNDLE, IMAGE_INDEX, IMAGE_MANIFEST};
use sluicegate_ports::{
    images::{Descriptor, ImagePlaceError, ImagePlaces, ImageSource, Publication},
    store::{ContentStore, StoreError},
};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{MemoryStore, VirtualImage};
use sluicegate_types::{Digest, Selector};

fn places() -> Places {
    Places::new(RegistrySettings::default())
}

struct Layout {
    root: tempfile::TempDir,
    store: MemoryStore,
}

impl Layout {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), store: MemoryStore::new() }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("layout")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder().join("blobs/sha256").join(digest.hex())
    }

    fn publish(&self, publication: &Publication) -> Result<(), ImagePlaceError> {
        places().target(&self.folder().into()).unwrap().publish(publication, &self.store)
    }

    fn source(&self) -> Box<dyn ImageSource> {
        places().source(&self.folder().into()).unwrap()
    }

    fn current(&self) -> Option<Digest> {
        places().target(&self.folder().into()).unwrap().current(None).unwrap().map(|held| held.image)
    }

    /// The image with one referrer, everything in the store.
    fn publication(&self, image: &VirtualImage, expected: Option<Digest>) -> Publication {
        let (referrer, parts) = image.referrer(BUNDLE, &[(BUNDLE, b"a bundle")]);
        for bytes in image.blobs.values().chain(parts.values()) {
            self.store.put_bytes(bytes).unwrap();
        }
        let manifests = [image.digest(), referrer.digest];
        let blobs = image.blobs.keys().chain(parts.keys()).copied().filter(|d| !manifests.contains(d)).collect();
        Publication {
            image: image.descriptor.clone(),
            tags: vec!["current".parse().unwrap()],
            children: Vec::new(),
            referrers: vec![referrer],
            blobs,
            evidence: Vec::new(),
            beside: Vec::new(),
            source: None,
            expected,
            environment: None,
        }
    }

    fn index(&self) -> Vec<u8> {
        fs::read(self.folder().join("index.json")).unwrap()
    }

    fn index_json(&self) -> Value {
        serde_json::from_slice(&self.index()).unwrap()
    }

    fn edit_index(&self, edit: impl FnOnce(&mut Value)) {
        let mut index: Value = serde_json::from_slice(&self.index()).unwrap();
        edit(&mut index);
        fs::write(self.folder().join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    }
}

fn bytes(source: &dyn ImageSource, descriptor: &Descriptor) -> Result<Vec<u8>, ImagePlaceError> {
    let mut bytes = Vec::new();
    source.open(descriptor)?.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

/// An image published to a new folder.
fn published() -> (Layout, VirtualImage) {
    let layout = Layout::new();
    let image = VirtualImage::new(b"one");
    layout.publish(&layout.publication(&image, None)).unwrap();
    (layout, image)
}

#[test]
fn what_is_published_is_read_back() {
    let (layout, image) = published();
    let source = layout.source();
    let selectors = [Selector::Only, Selector::Tag("current".parse().unwrap()), Selector::Digest(image.digest())];
    for selector in selectors {
        assert_eq!(source.resolve(&selector).unwrap().digest, image.digest(), "{selector:?}");
    }
    for (digest, content) in &image.blobs {
        let descriptor = Descriptor::new("any/thing", *digest, content.len() as u64);
        assert_eq!(bytes(source.as_ref(), &descriptor).unwrap(), *content);
    }
    let referrers = source.referrers(&image.digest()).unwrap();
    assert_eq!(referrers.len(), 1);
    assert_eq!(referrers[0].artifact_type.as_deref(), Some(BUNDLE));
    assert_eq!(source.referrers(&Digest::of(b"another image")).unwrap(), []);
    let held = places().target(&layout.folder().into()).unwrap().current(None).unwrap().unwrap();
    assert_eq!((held.image, held.tags), (image.digest(), vec!["current".parse().unwrap()]));
}

#[test]
fn the_folder_has_the_form_that_other_tools_read() {
    let (layout, image) = published();
    assert_eq!(fs::read(layout.folder().join("oci-layout")).unwrap(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: Value = serde_json::from_slice(&layout.index()).unwrap();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(IMAGE_INDEX)));
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries[0]["digest"], json!(image.digest()));
    assert_eq!(
        entries[0]["annotations"],
        json!({"kind": "dev.cosignproject.cosign/image", "org.opencontainers.image.ref.name": "current"})
    );
    assert_eq!(entries[1].get("annotations"), None, "a referrer has no ref name");
    for path in [layout.folder().join("index.json"), layout.blob(&image.layer)] {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644, "{}", path.display());
    }
    let left = fs::read_dir(layout.folder())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("tmp-"));
    assert_eq!(left.count(), 0, "no temporary file is left");
}

#[test]
fn an_image_replaces_only_the_one_that_was_expected() {
    let (one, two) = (VirtualImage::new(b"one"), VirtualImage::new(b"two"));
    let stranger = Digest::of(b"a stranger");
    for (held, expected, moves) in [
        (None, None, true),
        (None, Some(one.digest()), false),
        (Some(&one), Some(one.digest()), true),
        (Some(&one), None, false),
        (Some(&one), Some(stranger), false),
        (Some(&one), Some(two.digest()), false),
    ] {
        let layout = Layout::new();
        if let Some(held) = held {
            layout.publish(&layout.publication(held, None)).unwrap();
        }
        let before = held.map(|_| layout.index());
        match layout.publish(&layout.publication(&two, expected)) {
            Ok(()) => {
                assert!(moves, "{expected:?}");
                assert_eq!(layout.current(), Some(two.digest()));
                let tagged = layout.source().resolve(&Selector::Tag("current".parse().unwrap())).unwrap();
                assert_eq!(tagged.digest, two.digest());
            }
            Err(ImagePlaceError::Moved { .. }) => {
                assert!(!moves, "{expected:?}");
                assert_eq!(held.map(|_| layout.index()), before, "nothing that can be seen was changed");
                assert_eq!(layout.current(), held.map(VirtualImage::digest));
            }
            Err(other) => panic!("{expected:?}: {other}"),
        }
    }
}

#[test]
fn of_two_writers_who_expect_the_same_one_wins() {
    let layout = Layout::new();
    let publications: Vec<Publication> =
        (0..4_u8).map(|number| layout.publication(&VirtualImage::new(&[number]), None)).collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> =
            publications.iter().map(|publication| scope.spawn(|| layout.publish(publication))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let won: Vec<usize> = (0..4).filter(|number| results[*number].is_ok()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(layout.current(), Some(publications[won[0]].image.digest));
    for result in results.into_iter().filter_map(Result::err) {
        assert!(matches!(result, ImagePlaceError::Moved { .. }), "{result}");
    }
}

#[test]
fn a_blob_that_the_store_holds_wrongly_or_not_at_all_is_not_published() {
    let image = VirtualImage::new(b"one");
    let layout = Layout::new();
    let publication = layout.publication(&image, None);
    for digest in [image.layer, image.digest(), publication.referrers[0].digest] {
        let layout = Layout::new();
        let publication = layout.publication(&image, None);
        layout.store.replace(digest, b"wrong");
        let error = layout.publish(&publication).unwrap_err();
        assert!(
            matches!(error, ImagePlaceError::Store(StoreError::Corrupt { digest: d, .. }) if d == digest),
            "{error}"
        );
        assert!(!layout.folder().join("index.json").exists() && !layout.blob(&digest).exists());
        layout.store.remove(&digest);
        let error = layout.publish(&publication).unwrap_err();
        assert!(matches!(error, ImagePlaceError::Store(StoreError::Missing { .. })), "{error}");
        assert_eq!(layout.current(), None);
    }
    layout.publish(&publication).unwrap();
}

#[test]
fn what_stands_in_a_blobs_place_is_written_anew_unless_it_is_the_blob() {
    let (layout, image) = published();
    let path = layout.blob(&image.layer);
    let again = || layout.publish(&layout.publication(&image, Some(image.digest())));
    let outside = layout.root.path().join("outside");
    fs::write(&outside, b"one").unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    again().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "a good blob is left alone");
    let spoil: [&dyn Fn(); 4] = [
        &|| fs::write(&path, b"two").unwrap(),
        &|| fs::write(&path, b"").unwrap(),
        &|| symlink(&outside, &path).unwrap(),
        &|| mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        fs::remove_file(&path).unwrap();
        spoil();
        again().unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{number}");
        assert_eq!(fs::read(&path).unwrap(), b"one", "{number}");
    }
    assert_eq!(fs::read(&outside).unwrap(), b"one");
}

#[test]
fn only_a_regular_file_is_a_blob() {
    let (layout, image) = published();
    let path = layout.blob(&image.layer);
    let descriptor = Descriptor::new("any/thing", image.layer, 3);
    assert_eq!(bytes(layout.source().as_ref(), &descriptor).unwrap(), b"one");
    let outside = layout.root.path().join("outside");
    fs::write(&outside, b"one").unwrap();
    let place: [&dyn Fn(); 4] = [
        &|| symlink(&outside, &path).unwrap(),
        &|| symlink("/dev/zero", &path).unwrap(),
        &|| mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
        &|| fs::create_dir(&path).unwrap(),
    ];
    for (number, place) in place.into_iter().enumerate() {
        fs::remove_file(&path).unwrap();
        place();
        let error = bytes(layout.source().as_ref(), &descriptor).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{number}: {error}");
    }
    fs::remove_dir(&path).unwrap();
    let error = bytes(layout.source().as_ref(), &descriptor).unwrap_err();
    assert!(matches!(error, ImagePlaceError::MissingBlob { digest, .. } if digest == image.layer));
}

#[test]
fn an_index_that_is_no_regular_file_is_not_read() {
    let (layout, _) = published();
    let path = layout.folder().join("index.json");
    let outside = layout.root.path().join("outside");
    fs::rename(&path, &outside).unwrap();
    let refused = || places().source(&layout.folder().into()).map(|_| ()).unwrap_err();
    assert!(matches!(refused(), ImagePlaceError::NotALayout { .. }));
    symlink(&outside, &path).unwrap();
    assert!(matches!(refused(), ImagePlaceError::NotALayout { .. }));
    fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    assert!(matches!(refused(), ImagePlaceError::NotALayout { .. }));
    fs::remove_file(&path).unwrap();
    fs::rename(&outside, &path).unwrap();
    assert!(places().source(&layout.folder().into()).is_ok());
}

#[test]
fn the_lock_never_touches_a_file_elsewhere() {
    let layout = Layout::new();
    let precious = layout.root.path().join("precious");
    fs::write(&precious, b"do not lose me").unwrap();
    fs::create_dir_all(layout.folder()).unwrap();
    let lock = layout.folder().join(".sluicegate.lock");
    symlink(&precious, &lock).unwrap();
    let image = VirtualImage::new(b"one");
    let publish = || layout.publish(&layout.publication(&image, None));
    assert!(matches!(publish(), Err(ImagePlaceError::Io { .. })));
    assert_eq!(fs::read(&precious).unwrap(), b"do not lose me");
    fs::remove_file(&lock).unwrap();
    publish().unwrap();
}

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

#[test]
fn an_index_has_at_most_1024_entries_and_4_mebibytes() {
    let (layout, image) = published();
    let entries = |count: usize| {
        layout.edit_index(|index| {
            let entry = json!({"mediaType": "text/plain", "digest": Digest::of(b"x"), "size": 1});
            let list = index["manifests"].as_array_mut().unwrap();
            list.truncate(1);
            list.resize(count, entry);
        });
        places().source(&layout.folder().into()).map(|source| source.resolve(&Selector::Only).unwrap().digest)
    };
    assert_eq!(entries(1024).unwrap(), image.digest());
    let error = entries(1025).unwrap_err().to_string();
    assert!(error.contains("more than 1024"), "{error}");
    entries(2).unwrap();
    let index = layout.index();
    let sized = |size: usize| {
        fs::write(layout.folder().join("index.json"), [index.clone(), vec![b' '; size - index.len()]].concat())
            .unwrap();
        places().source(&layout.folder().into()).map(|_| ())
    };
    assert!(sized(4 << 20).is_ok());
    assert!(matches!(sized((4 << 20) + 1), Err(ImagePlaceError::NotALayout { .. })));
}

#[test]
fn an_index_that_would_not_be_read_again_is_not_written() {
    let layout = Layout::new();
    let image = VirtualImage::new(b"one");
    let mut publication = layout.publication(&image, None);
    let referrer = publication.referrers[0].clone();
    publication.referrers = vec![referrer.clone(); 1024];
    assert!(matches!(layout.publish(&publication), Err(ImagePlaceError::NotALayout { .. })));
    assert_eq!(layout.current(), None);
    publication.referrers = vec![referrer; 1023];
    layout.publish(&publication).unwrap();
    assert_eq!(layout.current(), Some(image.digest()));
}

#[test]
fn an_index_that_is_not_one_is_refused() {
    let (layout, _) = published();
    let good = layout.index();
    let refused = |text: &[u8]| {
        fs::write(layout.folder().join("index.json"), text).unwrap();
        assert!(matches!(places().source(&layout.folder().into()), Err(ImagePlaceError::NotALayout { .. })));
        assert!(matches!(
            places().target(&layout.folder().into()).unwrap().current(None),
            Err(ImagePlaceError::NotALayout { .. })
        ));
    };
    let good_text = String::from_utf8(good.clone()).unwrap();
    refused(b"");
    refused(b"{}");
    refused(good_text.replace("\"schemaVersion\":2", "\"schemaVersion\":1").as_bytes());
    refused(good_text.replace("sha256:", "sha512:").as_bytes());
    refused("[".repeat(100_000).as_bytes());
    fs::write(layout.folder().join("index.json"), good).unwrap();
    assert!(places().source(&layout.folder().into()).is_ok());
    let nothing = places().source(&"/nonexistent/layout".into()).map(|_| ()).unwrap_err();
    assert!(nothing.to_string().contains("no index.json"), "{nothing}");
}

#[test]
fn an_image_that_is_not_there_is_answered_with_what_is() {
    let (layout, image) = published();
    let refused = |selector: Selector| layout.source().resolve(&selector).unwrap_err().to_string();
    let error = refused(Selector::Tag("other".parse().unwrap()));
    assert!(error.contains("tagged other") && error.contains(&format!("{} (current)", image.digest())), "{error}");
    let error = refused(Selector::Digest(Digest::of(b"another")));
    assert!(error.contains(&image.digest().to_string()), "{error}");
    layout.edit_index(|index| index["manifests"] = json!([]));
    assert!(refused(Selector::Only).contains("it holds none"));
    layout.edit_index(|index| {
        index["manifests"] = json!([{"mediaType": IMAGE_INDEX, "digest": Digest::of(b"i"), "size": 1}]);
    });
    // An index is an image, too; what it is good for is for whoever reads it.
    assert_eq!(layout.source().resolve(&Selector::Only).unwrap().media_type, IMAGE_INDEX);
}

#[test]
fn of_several_images_none_is_guessed() {
    let (layout, one) = published();
    let two = VirtualImage::new(b"two");
    for (digest, content) in &two.blobs {
        fs::write(layout.blob(digest), content).unwrap();
    }
    layout.edit_index(|index| {
        let mut entry = json!(two.descriptor);
        entry["annotations"] =
            json!({"kind": "dev.cosignproject.cosign/image", "org.opencontainers.image.ref.name": "next"});
        index["manifests"].as_array_mut().unwrap().push(entry);
    });
    let source = layout.source();
    let error = source.resolve(&Selector::Only).unwrap_err().to_string();
    assert!(error.contains("several fit"), "{error}");
    for digest in [one.digest(), two.digest()] {
        assert!(error.contains(&digest.to_string()), "{error}");
        assert_eq!(source.resolve(&Selector::Digest(digest)).unwrap().digest, digest);
    }
    assert_eq!(source.resolve(&Selector::Tag("next".parse().unwrap())).unwrap().digest, two.digest());
    let error = places().target(&layout.folder().into()).unwrap().current(None).unwrap_err().to_string();
    assert!(error.contains("several images"), "{error}");
    let before = layout.index();
    assert!(layout.publish(&layout.publication(&one, Some(one.digest()))).is_err());
    assert_eq!(layout.index(), before);
}

#[test]
fn an_image_of_another_tool_is_found_without_our_annotation() {
    let (layout, image) = published();
    layout.edit_index(|index| {
        index["manifests"][0].as_object_mut().unwrap().remove("annotations");
        // Without its artifact type only the referrer's manifest says that it refers to something.
        index["manifests"][1].as_object_mut().unwrap().remove("artifactType");
    });
    assert_eq!(layout.source().resolve(&Selector::Only).unwrap().digest, image.digest());
    assert_eq!(layout.current(), Some(image.digest()));
}

#[test]
fn an_entry_that_cannot_be_read_is_nothing_unless_it_may_be_the_image() {
    let odd = |more: Value| {
        let mut entry =
            json!({"mediaType": IMAGE_MANIFEST, "digest": format!("sha512:{}", "0".repeat(128)), "size": -1});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let with = |entry: Value, marked: bool| {
        let (layout, image) = published();
        layout.edit_index(|index| {
            if !marked {
                index["manifests"][0].as_object_mut().unwrap().remove("annotations");
            }
            index["manifests"].as_array_mut().unwrap().push(entry);
        });
        let source = places().source(&layout.folder().into()).map_err(|error| error.to_string())?;
        let found = source.resolve(&Selector::Only).map_err(|error| error.to_string())?;
        assert_eq!(found.digest, image.digest());
        assert_eq!(source.referrers(&image.digest()).unwrap().len(), 1);
        Ok::<_, String>(())
    };
    let (untyped, typed) = (odd(json!({})), odd(json!({"artifactType": BUNDLE})));
    let named = odd(json!({"artifactType": BUNDLE, "annotations": {"org.opencontainers.image.ref.name": "current"}}));
    let noted = odd(json!({"annotations": {"kind": "note", "org.opencontainers.image.ref.name": ""}}));
    for (entry, marked) in [(&noted, true), (&untyped, true), (&typed, true), (&typed, false), (&json!("text"), true)] {
        with(entry.clone(), marked).unwrap();
    }
    assert!(with(untyped, false).unwrap_err().contains("entries that this version can't read"));
    assert!(with(named, true).unwrap_err().contains("an entry with a name"));
}

#[test]
fn an_image_that_an_entry_describes_falsely_is_still_the_image() {
    for edit in
        [|entry: &mut Value| entry["size"] = json!(1), |entry: &mut Value| entry["mediaType"] = json!("text/plain")]
    {
        for at in [0, 1] {
            let (layout, image) = published();
            layout.edit_index(|index| {
                let mut entry = index["manifests"][0].clone();
                edit(&mut entry);
                index["manifests"].as_array_mut().unwrap().insert(at, entry);
            });
            for selector in [Selector::Only, Selector::Digest(image.digest())] {
                assert_eq!(layout.source().resolve(&selector).unwrap(), named(&image), "{at} {selector:?}");
            }
        }
    }
}

/// The image as the layout's index describes it.
fn named(image: &VirtualImage) -> Descriptor {
    let annotations = [("kind", "dev.cosignproject.cosign/image"), ("org.opencontainers.image.ref.name", "current")];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Descriptor { annotations, ..image.descriptor.clone() }
}

#[test]
fn what_is_not_as_large_as_described_refers_to_nothing() {
    let (layout, image) = published();
    layout.edit_index(|index| {
        let mut entry = index["manifests"][1].clone();
        entry["size"] = json!(1);
        index["manifests"].as_array_mut().unwrap().insert(1, entry);
    });
    assert_eq!(layout.source().referrers(&image.digest()).unwrap().len(), 1);
    layout.edit_index(|index| drop(index["manifests"].as_array_mut().unwrap().remove(2)));
    // Where nothing is listed rightly, what lies among the blobs is found by its own subject, as large as it is.
    let [found] = layout.source().referrers(&image.digest()).unwrap().try_into().unwrap();
    assert_ne!(found.size, 1);
    fs::remove_file(layout.blob(&found.digest)).unwrap();
    assert_eq!(layout.source().referrers(&image.digest()).unwrap(), []);
}

#[test]
fn tr_17_what_is_attached_is_found_however_a_tool_lists_it() {
    let (layout, image) = published();
    let [referrer] = layout.source().referrers(&image.digest()).unwrap().try_into().unwrap();
    let entry = layout.index_json()["manifests"][1].clone();
    let list = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [entry, {"junk": 1}]}).to_string();
    let digest = Digest::of(list.as_bytes());
    fs::write(layout.blob(&digest), &list).unwrap();
    let listed = |annotations: Value| {
        layout.edit_index(|index| {
            let list =
                json!({"mediaType": IMAGE_INDEX, "digest": digest, "size": list.len(), "annotations": annotations});
            index["manifests"] = json!([index["manifests"][0], list]);
        });
        let source = layout.source();
        assert_eq!(source.resolve(&Selector::Only).unwrap().digest, image.digest(), "a list is no image");
        source.referrers(&image.digest()).unwrap().into_iter().map(|found| found.digest).collect::<Vec<_>>()
    };
    let name = |hex: String| json!({"org.opencontainers.image.ref.name": format!("sha256-{hex}")});
    let subject = |digest: Digest| json!({"org.opencontainers.image.referrer.subject": digest});
    assert_eq!(listed(name(image.digest().hex())), [referrer.digest]);
    assert_eq!(listed(subject(image.digest())), [referrer.digest]);
    // A list of another image lends nothing; where none is of this one, the blobs are looked through.
    assert_eq!(listed(subject(Digest::of(b"other"))), [referrer.digest]);
    fs::rename(layout.blob(&referrer.digest), layout.folder().join("away")).unwrap();
    assert_eq!(listed(subject(Digest::of(b"other"))), []);
    assert_eq!(listed(name(image.digest().hex())), [], "what is listed and not there is not there");
}

#[test]
fn a_referrer_that_is_damaged_is_an_error_and_one_that_is_missing_is_not_there() {
    let (layout, image) = published();
    let referrer = layout.source().referrers(&image.digest()).unwrap().remove(0);
    let path = layout.blob(&referrer.digest);
    let good = fs::read(&path).unwrap();
    fs::write(&path, b"{}").unwrap();
    let error = layout.source().referrers(&image.digest()).unwrap_err();
    assert!(matches!(error, ImagePlaceError::Corrupt { digest, .. } if digest == referrer.digest), "{error}");
    fs::remove_file(&path).unwrap();
    assert_eq!(layout.source().referrers(&image.digest()).unwrap(), []);
    fs::write(&path, good).unwrap();
    assert_eq!(layout.source().referrers(&image.digest()).unwrap().len(), 1);
    // What is no manifest, or refers to something else, is nobody's referrer.
    layout.edit_index(|index| {
        let text = b"plain text";
        fs::write(layout.blob(&Digest::of(text)), text).unwrap();
        let entry = json!({"mediaType": IMAGE_MANIFEST, "digest": Digest::of(text), "size": text.len()});
        index["manifests"].as_array_mut().unwrap().push(entry);
    });
    assert_eq!(layout.source().referrers(&image.digest()).unwrap().len(), 1);
}

/// A referrer that carries these bytes, in the layout's store.
fn referrer(layout: &Layout, image: &VirtualImage, bytes: &[u8]) -> (Descriptor, Vec<Digest>) {
    let (referrer, blobs) = image.referrer(BUNDLE, &[(BUNDLE, bytes)]);
    for bytes in blobs.values() {
        layout.store.put_bytes(bytes).unwrap();
    }
    let blobs = blobs.into_keys().filter(|digest| *digest != referrer.digest).collect();
    (referrer, blobs)
}

fn attach(layout: &Layout, image: &VirtualImage, bytes: &[u8]) -> Result<Descriptor, ImagePlaceError> {
    let (referrer, blobs) = referrer(layout, image, bytes);
    let target = places().target(&layout.folder().into()).unwrap();
    target.attach(&image.digest(), std::slice::from_ref(&referrer), &blobs, &layout.store)?;
    Ok(referrer)
}

#[test]
fn what_is_attached_is_read_back_beside_everything_that_was_there() {
    let (layout, image) = published();
    layout.edit_index(|index| {
        index["annotations"] = json!({"sluicegate.dev/environment": "production", "by": "another tool"});
        index["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "amd64"});
    });
    let before: Value = serde_json::from_slice(&layout.index()).unwrap();
    let held = places().target(&layout.folder().into()).unwrap().current(None).unwrap();
    assert_eq!(held.as_ref().unwrap().environment.as_deref(), Some("production"));
    let referrer = attach(&layout, &image, b"by hand").unwrap();
    assert_eq!(places().target(&layout.folder().into()).unwrap().current(None).unwrap(), held);
    let referrers = layout.source().referrers(&image.digest()).unwrap();
    assert_eq!(referrers.len(), 2);
    assert_eq!(referrers[1], referrer);
    assert_eq!(
        bytes(layout.source().as_ref(), &Descriptor::new(BUNDLE, Digest::of(b"by hand"), 7)).unwrap(),
        b"by hand"
    );
    let mut after: Value = serde_json::from_slice(&layout.index()).unwrap();
    assert!(after["manifests"].as_array_mut().unwrap().pop().is_some());
    assert_eq!(after, before, "nothing else changed");
    let once = layout.index();
    attach(&layout, &image, b"by hand").unwrap();
    assert_eq!(layout.index(), once, "the same referrer twice is there once");
}

#[test]
fn thirty_two_attachers_at_once_lose_nothing() {
    let (layout, image) = published();
    std::thread::scope(|scope| {
        for number in 0..32_u8 {
            let (layout, image) = (&layout, &image);
            scope.spawn(move || attach(layout, image, &[number]).unwrap());
        }
    });
    assert_eq!(layout.source().referrers(&image.digest()).unwrap().len(), 33);
    let held = places().target(&layout.folder().into()).unwrap().current(None).unwrap().unwrap();
    assert_eq!((held.image, held.tags), (image.digest(), vec!["current".parse().unwrap()]));
}

#[test]
fn nothing_is_attached_to_an_image_that_is_not_there_and_nothing_is_made() {
    let layout = Layout::new();
    let image = VirtualImage::new(b"one");
    assert!(matches!(attach(&layout, &image, b"x"), Err(ImagePlaceError::NoImage { .. })));
    assert!(!layout.folder().exists());
    layout.publish(&layout.publication(&image, None)).unwrap();
    let before = layout.index();
    let other = VirtualImage::new(b"another");
    assert!(matches!(attach(&layout, &other, b"x"), Err(ImagePlaceError::NoImage { .. })));
    assert_eq!(layout.index(), before);
    assert!(!layout.blob(&Digest::of(b"x")).exists());
    attach(&layout, &image, b"x").unwrap();
}

#[test]
fn a_referrer_that_the_store_holds_wrongly_or_not_at_all_is_not_attached() {
    let (layout, image) = published();
    let before = layout.index();
    let (missing, _) = image.referrer(BUNDLE, &[(BUNDLE, b"never stored")]);
    let target = places().target(&layout.folder().into()).unwrap();
    let attached = target.attach(&image.digest(), &[missing], &[], &layout.store);
    assert!(matches!(attached, Err(ImagePlaceError::Store(StoreError::Missing { .. }))));
    assert_eq!(layout.index(), before);
}

#[test]
fn an_index_that_is_full_takes_no_more_referrers() {
    let (layout, image) = published();
    layout.edit_index(|index| {
        let entries = index["manifests"].as_array_mut().unwrap();
        let filler = json!({"mediaType": "text/plain", "digest": Digest::of(b"filler"), "size": 6});
        entries.resize(1023, filler);
    });
    attach(&layout, &image, b"the last one").unwrap();
    let before = layout.index();
    let refused = attach(&layout, &image, b"one too many");
    assert!(matches!(refused, Err(ImagePlaceError::NotALayout { .. })), "{refused:?}");
    assert_eq!(layout.index(), before);
}

#[test]
fn what_is_attached_never_leads_out_of_the_folder() {
    let (layout, image) = published();
    let outside = layout.root.path().join("outside");
    fs::rename(layout.folder().join("blobs/sha256"), &outside).unwrap();
    symlink(&outside, layout.folder().join("blobs/sha256")).unwrap();
    let before = fs::read_dir(&outside).unwrap().count();
    assert!(matches!(attach(&layout, &image, b"x"), Err(ImagePlaceError::NotALayout { .. })));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), before);
    fs::remove_file(layout.folder().join("blobs/sha256")).unwrap();
    fs::rename(&outside, layout.folder().join("blobs/sha256")).unwrap();
    attach(&layout, &image, b"x").unwrap();
}
