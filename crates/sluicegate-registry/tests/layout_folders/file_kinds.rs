//! Links, pipes and folders where a file should be.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use sluicegate_ports::images::{Descriptor, ImagePlaceError, ImagePlaces};
use sluicegate_testkit::VirtualImage;

use crate::published_layout::{Layout, bytes, places, published};

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
