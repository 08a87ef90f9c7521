use std::{
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use tar::{EntryType, Header};

use super::*;

/// An archive made by hand, with what no writer would make.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(self, path: &str, kind: EntryType, link: &str, content: &[u8]) -> Self {
        self.with(path, kind, link, content, |_| {})
    }

    fn with(
        mut self,
        path: &str,
        kind: EntryType,
        link: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_ustar();
        if path.len() > 100 {
            self = self.entry("././@LongLink", EntryType::GNULongName, "", path.as_bytes());
        }
        let short = &path.as_bytes()[..path.len().min(100)];
        header.as_mut_bytes()[..short.len()].copy_from_slice(short);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        header.set_mtime(9);
        header.set_uid(0);
        header.set_gid(0);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(path, EntryType::Regular, "", content.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, target, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, target, b"")
    }

    fn pax(self, key: &str, value: &[u8]) -> Self {
        let body = 2 + key.len() + value.len() + 1;
        let length = (1..).find(|digits| (body + digits).to_string().len() == *digits).unwrap() + body;
        let mut record = format!("{length} {key}=").into_bytes();
        record.extend(value);
        record.push(b'\n');
        self.entry("pax", EntryType::XHeader, "", &record)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A root with a neighbour that nothing may touch.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::write(dir.path().join("canary"), "untouched").unwrap();
        Self(dir)
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, UnpackError> {
        self.unpack_as(bytes, Kind::Layer, &UnpackLimits::default())
    }

    fn unpack_as(&self, bytes: &[u8], kind: Kind, limits: &UnpackLimits) -> Result<Unpacked, UnpackError> {
        let result = unpack_into(bytes, Compression::None, &self.root(), &[], kind, limits).map(|(unpacked, made)| {
            assert_eq!(made.difference(&self.root()).unwrap(), None, "something else was made than was noted");
            unpacked
        });
        assert_eq!(fs::read(self.0.path().join("canary")).unwrap(), b"untouched");
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 2, "something was made outside");
        result
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }
}

fn unpack_new(tar: Tar) -> Result<Unpacked, UnpackError> {
    Place::new().unpack(&tar.end())
}

fn is_refused(tar: Tar) -> bool {
    matches!(unpack_new(tar), Err(UnpackError::Refused { .. }))
}

#[test]
fn a_legitimate_layer_keeps_modes_owners_times_and_links() {
    let place = Place::new();
    let bytes = Tar::default()
        .dir("./")
        .dir("usr/")
        .dir("usr/lib/")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .file("lib/f", "through a link")
        .file("abs/g", "through an absolute one")
        .with("su", EntryType::Regular, "", b"x", |header| {
            header.set_mode(0o4755);
            header.set_uid(7);
            header.set_gid(8);
        })
        .hard_link("su2", "su")
        .end();
    let unpacked = place.unpack(&bytes).unwrap();
    assert_eq!(unpacked.digest, Digest::of(&bytes));
    assert_eq!(
        (place.text("usr/lib/f"), place.text("usr/lib/g")),
        ("through a link".into(), "through an absolute one".into())
    );
    let meta = fs::metadata(place.root().join("su")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime(), meta.nlink()), (0o4755, 7, 8, 9, 2));
    assert_eq!(fs::metadata(place.root().join("usr/lib")).unwrap().mtime(), 9);
}

#[test]
fn a_path_with_dots_is_refused_and_an_absolute_one_stays_inside() {
    for path in ["../canary", "a/../../canary", "a/..", "/../canary"] {
        assert!(is_refused(Tar::default().file(path, "x")), "{path}");
    }
    let place = Place::new();
    place.unpack(&Tar::default().file("/canary", "inside").file("./b", "x").end()).unwrap();
    assert_eq!(place.text("canary"), "inside");
}

#[test]
fn nothing_is_written_through_a_link_to_the_outside() {
    for target in ["..", "/..", "../../../../..", "/"] {
        let place = Place::new();
        place.unpack(&Tar::default().symlink("out", target).file("out/canary", "inside").end()).unwrap();
        assert_eq!(place.text("canary"), "inside", "{target}");
    }
    // Where nothing is, it is made, inside.
    for target in ["/nowhere/at/all", "../../nowhere/at/all"] {
        let place = Place::new();
        place.unpack(&Tar::default().symlink("out", target).file("out/x", "inside").end()).unwrap();
        assert_eq!(place.text("nowhere/at/all/x"), "inside", "{target}");
    }
    let round = Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "x");
    assert!(matches!(unpack_new(round), Err(UnpackError::Io { .. })));
}

#[test]
fn a_later_entry_replaces_a_link_and_does_not_follow_it() {
    let place = Place::new();
    let bytes = Tar::default()
        .file("target", "kept")
        .symlink("l", "target")
        .file("l", "a file now")
        .dir("d")
        .symlink("m", "d")
        .dir("m")
        .file("m/x", "in the new folder")
        .file("f", "x")
        .dir("f")
        .dir("g")
        .file("g/h", "x")
        .file("g", "a file now")
        .end();
    place.unpack(&bytes).unwrap();
    assert_eq!((place.text("target"), place.text("l")), ("kept".into(), "a file now".into()));
    assert!(fs::read_dir(place.root().join("d")).unwrap().next().is_none());
    assert_eq!((place.text("m/x"), place.text("g")), ("in the new folder".into(), "a file now".into()));
    assert!(place.root().join("f").is_dir());
}

#[test]
fn hard_links_end_inside_at_a_file() {
    assert!(is_refused(Tar::default().hard_link("x", "../canary")));
    assert!(matches!(unpack_new(Tar::default().hard_link("x", "/canary")), Err(UnpackError::Io { .. })));
    let through = Tar::default().symlink("out", "..").hard_link("x", "out/canary");
    assert!(matches!(unpack_new(through), Err(UnpackError::Io { .. })));
    assert!(is_refused(Tar::default().dir("d").hard_link("x", "d")));
    assert!(unpack_new(Tar::default().file("f", "x").hard_link("x", "/f")).is_ok());
}

#[test]
fn devices_are_skipped_in_layers_and_refused_in_inputs() {
    let tar = || Tar::default().entry("null", EntryType::Char, "", b"").entry("disk", EntryType::Block, "", b"");
    let place = Place::new();
    assert_eq!(place.unpack(&tar().end()).unwrap().devices, 2);
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0);
    let tree = Kind::Tree { owner: (0, 0), mtime: 0, whereabouts: Whereabouts::Containers };
    for bytes in [tar().end(), Tar::default().entry("f", EntryType::Fifo, "", b"").end()] {
        let result = Place::new().unpack_as(&bytes, tree, &UnpackLimits::default());
        assert!(matches!(result, Err(UnpackError::Refused { .. })));
    }
    assert!(matches!(
        unpack_new(Tar::default().entry("x", EntryType::new(b'Z'), "", b"")),
        Err(UnpackError::Refused { .. })
    ));
}

#[test]
fn only_file_capabilities_survive_of_the_extended_attributes() {
    // struct vfs_cap_data, revision 2 (linux/capability.h): CAP_NET_BIND_SERVICE permitted and effective.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let place = Place::new();
    let bytes = Tar::default()
        .pax("SCHILY.xattr.security.capability", &capability)
        .file("able", "x")
        .pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc")
        .dir("redirected")
        .pax("SCHILY.xattr.user.overlay.opaque", b"y")
        .dir("opaque")
        .end();
    assert_eq!(place.unpack(&bytes).unwrap().attributes, 2);
    let attribute = |path: &str, name: &str| {
        let mut value = [0; 64];
        rustix::fs::getxattr(place.root().join(path), name, &mut value[..]).map(|n| value[..n].to_vec())
    };
    assert_eq!(attribute("able", "security.capability").unwrap(), capability);
    assert!(attribute("redirected", "trusted.overlay.redirect").is_err());
    assert!(attribute("opaque", "user.overlay.opaque").is_err());
}

#[test]
fn whiteouts_become_overlayfs_own_and_odd_ones_are_refused() {
    let place = Place::new();
    let bytes = Tar::default()
        .dir("d")
        .file("d/.wh.gone", "")
        .file("d/.wh..wh..opq", "")
        .file(".wh..wh.plnk", "")
        .file("both", "added")
        .file(".wh.both", "")
        .end();
    place.unpack(&bytes).unwrap();
    let gone = fs::symlink_metadata(place.root().join("d/gone")).unwrap();
    assert_eq!((gone.rdev(), gone.mode() & 0o170_000), (0, 0o020_000));
    let mut value = [0; 1];
    rustix::fs::getxattr(place.root().join("d"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!((&value, place.text("both").as_str()), (b"y", "added"));
    for path in [".wh.", ".wh..", ".wh...", "d/.wh.", ".wh.folder/x"] {
        assert!(is_refused(Tar::default().file(path, "")), "{path}");
    }
    let tree = Kind::Tree { owner: (0, 0), mtime: 0, whereabouts: Whereabouts::Containers };
    let result = Place::new().unpack_as(&Tar::default().file(".wh.x", "").end(), tree, &UnpackLimits::default());
    assert!(matches!(result, Err(UnpackError::Refused { .. })));
}

#[test]
fn ids_that_mean_no_change_are_refused() {
    let with = |id: u64, pax: Option<&str>| {
        let tar = Tar::default();
        let tar = match pax {
            Some(key) => tar.pax(key, id.to_string().as_bytes()),
            None => tar,
        };
        tar.with("f", EntryType::Regular, "", b"x", |header| {
            if pax.is_none() {
                header.set_uid(id);
            }
        })
    };
    assert!(unpack_new(with(65_534, None)).is_ok());
    assert!(unpack_new(with((1 << 31) - 1, Some("uid"))).is_ok());
    for (id, pax) in [
        (1 << 31, Some("uid")),
        (u64::from(u32::MAX), Some("gid")),
        (1 << 32, Some("gid")),
        (u64::from(u32::MAX), None),
    ] {
        assert!(is_refused(with(id, pax)), "{id}");
    }
}

#[test]
fn the_root_is_a_folder_and_as_the_layer_says() {
    let place = Place::new();
    fs::set_permissions(place.root(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    place
        .unpack(&Tar::default().with("./", EntryType::Directory, "", b"", |header| header.set_mode(0o555)).end())
        .unwrap();
    let meta = fs::metadata(place.root()).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o555, 9));
    assert!(is_refused(Tar::default().symlink("./", "/etc")));
    assert!(is_refused(Tar::default().symlink(".", "..")));
}

#[test]
fn limits_are_exact() {
    let bytes = Tar::default().file("a", "12345").file("b", "678").dir("d").file("d/e", "").end();
    let with = |max_bytes, max_entries, max_depth| {
        Place::new().unpack_as(&bytes, Kind::Layer, &UnpackLimits { max_bytes, max_entries, max_depth })
    };
    let whole = with(8, 4, 1).unwrap();
    assert_eq!((whole.bytes, whole.entries), (8, 4));
    assert!(matches!(with(7, 4, 1), Err(UnpackError::Limit { what: "bytes", .. })));
    assert!(matches!(with(8, 3, 1), Err(UnpackError::Limit { what: "entries", .. })));
    assert!(matches!(with(8, 4, 0), Err(UnpackError::Limit { what: "folders below each other", .. })));
}

#[test]
fn two_thousand_nested_folders_are_refused_at_once() {
    let nested = |levels: usize| Tar::default().file(&format!("{}f", "d/".repeat(levels)), "x");
    assert!(unpack_new(nested(64)).is_ok());
    assert!(matches!(unpack_new(nested(65)), Err(UnpackError::Limit { .. })));
    assert!(unpack_new(nested(2000)).is_err());
}

#[test]
fn a_cut_archive_never_has_the_digest_of_the_whole() {
    let whole = Tar::default().file("a", &"x".repeat(2000)).file("b", "y").end();
    for length in [700, 512, 1024, 2560 + 100, whole.len() - 1024, whole.len() - 1] {
        match Place::new().unpack(&whole[..length]) {
            Err(UnpackError::Archive(_)) => {}
            Ok(unpacked) => assert_ne!(unpacked.digest, Digest::of(&whole), "{length}"),
            Err(error) => panic!("{length}: {error}"),
        }
    }
    let huge = Tar::default().with("a", EntryType::Regular, "", b"short", |header| header.set_size(1 << 50));
    assert!(unpack_new(huge).is_err());
}

#[test]
fn padding_after_the_end_belongs_to_the_digest() {
    let mut bytes = Tar::default().file("a", "x").end();
    bytes.extend([0; 8192]);
    assert_eq!(Place::new().unpack(&bytes).unwrap().digest, Digest::of(&bytes));
}

#[test]
fn headers_that_would_fill_the_memory_are_refused() {
    let long = |size: usize| {
        Tar::default().entry("././@LongLink", EntryType::GNULongName, "", &vec![b'a'; size]).file("x", "")
    };
    let error = unpack_new(long(2 << 20)).unwrap_err();
    assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
    let pax = Tar::default().pax("comment", &vec![b'a'; 1000]).file("x", "");
    assert!(unpack_new(pax).is_ok());
    let pax = Tar::default().pax("comment", &vec![b'a'; 2 << 20]).file("x", "");
    assert!(unpack_new(pax).is_err());
}

#[test]
fn gzip_may_have_several_members_but_not_two_hundred_times_its_size() {
    let whole = Tar::default().file("a", &"content ".repeat(100)).end();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let unpack_gzip = |bytes: &[u8]| {
        let place = Place::new();
        unpack_into(bytes, Compression::Gzip, &place.root(), &[], Kind::Layer, &UnpackLimits::default())
            .map(|done| done.0)
    };
    let (head, tail) = whole.split_at(300);
    let members = [gzip(head), gzip(tail)].concat();
    assert_eq!(unpack_gzip(&members).unwrap().digest, Digest::of(&whole));
    assert!(unpack_gzip(&members[..members.len() - 9]).is_err());
    assert!(unpack_gzip(&whole).is_err());

    let zeros = |size: usize| gzip(&Tar::default().entry("z", EntryType::Regular, "", &vec![0; size]).end());
    assert!(unpack_gzip(&zeros(32 << 20)).is_ok());
    let error = unpack_gzip(&zeros(80 << 20)).unwrap_err();
    assert!(error.to_string().contains("200 times"), "{error}");
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn unpack_zstd(bytes: &[u8], limits: &UnpackLimits) -> Result<Unpacked, UnpackError> {
    let place = Place::new();
    unpack_into(bytes, Compression::Zstd, &place.root(), &[], Kind::Layer, limits).map(|done| done.0)
}

#[test]
fn zstd_may_have_several_frames_but_not_two_hundred_times_its_size() {
    let limits = UnpackLimits::default();
    let whole = Tar::default().file("a", &"content ".repeat(100)).end();
    let (head, tail) = whole.split_at(300);
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0], b"any".as_slice()].concat();
    let frames = [&skipped, &zstd(head), &skipped, &zstd(tail), &skipped].map(Vec::as_slice).concat();
    assert_eq!(unpack_zstd(&frames, &limits).unwrap().digest, Digest::of(&whole));
    let refused = |bytes: &[u8], words: &str| {
        let error = unpack_zstd(bytes, &limits).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&frames[..frames.len() - 1], "cut off");
    refused(&[frames.as_slice(), &[0; 4]].concat(), "bytes where a zstd frame should begin");
    refused(&whole, "bytes where a zstd frame should begin");
    refused(b"", "no zstd frame");

    let zeros = |size: usize| zstd(&Tar::default().entry("z", EntryType::Regular, "", &vec![0; size]).end());
    assert!(unpack_zstd(&zeros(32 << 20), &limits).is_ok());
    refused(&zeros(80 << 20), "200 times");
}

#[test]
fn zstd_layers_have_the_limits_of_others() {
    let tar = Tar::default().dir("d").file("d/a", "12345").file("d/b", "12345").end();
    let bytes = zstd(&tar);
    let limits = UnpackLimits { max_bytes: 10, max_entries: 3, max_depth: 1 };
    assert_eq!(unpack_zstd(&bytes, &limits).unwrap().digest, Digest::of(&tar));
    for less in [
        UnpackLimits { max_bytes: 9, ..limits },
        UnpackLimits { max_entries: 2, ..limits },
        UnpackLimits { max_depth: 0, ..limits },
    ] {
        assert!(matches!(unpack_zstd(&bytes, &less), Err(UnpackError::Limit { .. })), "{less:?}");
    }
}

/// `fixtures/zstd-layers`: one tar, by several writers.
#[test]
fn zstd_layers_of_real_writers_are_unpacked_and_hostile_ones_are_not() {
    let read = |name: &str| {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/zstd-layers").join(name)).unwrap()
    };
    let digest = Digest::of(&read("layer.tar"));
    for name in ["level-19.zst", "chunked.zst", "pzstd.zst", "window-27.zst"] {
        assert_eq!(unpack_zstd(&read(name), &UnpackLimits::default()).unwrap().digest, digest, "{name}");
    }
    for (name, words) in [
        ("window-28.zst", "a window of 268435456 bytes, more than the limit of 134217728"),
        ("dictionary.zst", "needs the dictionary"),
    ] {
        let error = unpack_zstd(&read(name), &UnpackLimits::default()).unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
}

#[test]
fn a_tree_has_one_owner_and_one_time() {
    let place = Place::new();
    let bytes = Tar::default().dir("d").file("d/f", "x").symlink("l", "d").file("made/above", "x").end();
    place
        .unpack_as(
            &bytes,
            Kind::Tree { owner: (11, 12), mtime: 13, whereabouts: Whereabouts::Containers },
            &UnpackLimits::default(),
        )
        .unwrap();
    for path in ["d", "d/f", "l", "made/above"] {
        let meta = fs::symlink_metadata(place.root().join(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mtime()), (11, 12, 13), "{path}");
    }
    assert_eq!(fs::metadata(place.root().join("made")).unwrap().uid(), 11);
}

#[test]
fn what_is_packed_is_unpacked_and_packed_again_to_the_same_bytes() {
    let (source, place) = (tempfile::tempdir().unwrap(), Place::new());
    fs::create_dir_all(source.path().join("a/b")).unwrap();
    fs::write(source.path().join("a/b/c"), "x").unwrap();
    fs::hard_link(source.path().join("a/b/c"), source.path().join("a/d")).unwrap();
    fs::write(source.path().join(std::ffi::OsStr::from_bytes(b"not \xff text")), "y").unwrap();
    let options = crate::pack::PackOptions::fixed(5, 1000);
    let packed = |root: &Path| {
        let mut out = Vec::new();
        crate::pack::pack_directory(root, &mut out, &options).unwrap();
        out
    };
    let bytes = packed(source.path());
    place
        .unpack_as(
            &bytes,
            Kind::Tree { owner: (1, 1), mtime: 5, whereabouts: Whereabouts::Containers },
            &UnpackLimits::default(),
        )
        .unwrap();
    assert_eq!(packed(&place.root()), bytes);
}

/// Layers on each other, lowest first, each with all below it.
fn stack(layers: &[Vec<u8>]) -> (tempfile::TempDir, Vec<std::path::PathBuf>, Vec<Unpacked>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut folders, mut unpacked) = (Vec::new(), Vec::new());
    for (number, layer) in layers.iter().enumerate() {
        let folder = dir.path().join(number.to_string());
        fs::create_dir(&folder).unwrap();
        let limits = UnpackLimits::default();
        let (done, made) = unpack_into(&layer[..], Compression::None, &folder, &folders, Kind::Layer, &limits).unwrap();
        assert_eq!(made.difference(&folder).unwrap(), None);
        unpacked.push(done);
        folders.insert(0, folder);
    }
    folders.reverse();
    (dir, folders, unpacked)
}

#[test]
fn folders_that_a_layer_only_implies_are_as_they_are_below() {
    let open = |header: &mut Header| {
        header.set_mode(0o1777);
        header.set_uid(7);
    };
    let below = Tar::default()
        .with("tmp", EntryType::Directory, "", b"", open)
        .dir("usr")
        .dir("usr/bin")
        .symlink("bin", "usr/bin")
        .symlink("out", "../../etc")
        .end();
    let above = Tar::default().file("tmp/x", "x").file("bin/tool", "x").file("out/y", "y").file("new/z", "z").end();
    let whole = Tar::default().dir("usr").file("usr/w", "w").end();
    let (_dir, folders, unpacked) = stack(&[below, above, whole]);
    let upper = &folders[1];
    let tmp = fs::metadata(upper.join("tmp")).unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.uid(), tmp.mtime()), (0o1777, 7, 9));
    assert!(upper.join("usr/bin/tool").is_file() && upper.join("etc/y").is_file() && !upper.join("bin").exists());
    let new = fs::metadata(upper.join("new")).unwrap();
    assert_eq!((new.mode() & 0o7777, new.uid(), new.mtime()), (0o755, 0, 0));
    // Only the layer that says nothing of its folders depends on what is below.
    assert_eq!(unpacked.iter().map(|one| one.asked_below).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn a_hard_link_may_lead_to_a_file_of_a_layer_below_unless_it_was_removed() {
    let below = Tar::default().dir("a").file("a/file", "shared").symlink("l", "a").end();
    let link = Tar::default().dir("b").hard_link("b/link", "l/file").hard_link("b/l", "l").end();
    let (dir, folders, unpacked) = stack(&[below.clone(), link]);
    assert_eq!(fs::read_to_string(folders[1].join("b/link")).unwrap(), "shared");
    assert_eq!(fs::read_link(folders[1].join("b/l")).unwrap(), Path::new("a"));
    assert!(unpacked[1].asked_below);
    // The file below is as it was: a layer that others use is not changed by one that is stacked on it.
    let (file, link) = (folders[0].join("a/file"), folders[1].join("b/link"));
    let (file, link) = (fs::metadata(file).unwrap(), fs::metadata(link).unwrap());
    assert_eq!((file.nlink(), link.nlink()), (1, 1));
    assert_eq!((file.mode(), file.uid(), file.mtime()), (link.mode(), link.uid(), link.mtime()));
    drop(dir);
    let removed = Tar::default().file("a/.wh.file", "").end();
    let (dir, mut folders, _) = stack(&[below, removed]);
    folders.reverse();
    let folder = dir.path().join("third");
    fs::create_dir(&folder).unwrap();
    let limits = UnpackLimits::default();
    let link = Tar::default().dir("b").hard_link("b/link", "l/file").end();
    let third = unpack_into(&link[..], Compression::None, &folder, &folders, Kind::Layer, &limits);
    assert!(matches!(third, Err(UnpackError::Io { .. })), "{third:?}");
}

#[test]
fn a_link_to_a_large_file_below_is_no_bomb() {
    let large = "x".repeat(65 << 20);
    let below = Tar::default().file("large", &large).end();
    let link = Tar::default().hard_link("link", "large").end();
    let (_dir, folders, _) = stack(&[below, link]);
    assert_eq!(fs::metadata(folders[1].join("link")).unwrap().len(), large.len() as u64);
}

#[test]
fn a_folder_that_is_removed_and_made_anew_hides_what_is_below() {
    let below = Tar::default().dir("d").file("d/old", "old").end();
    let is_opaque = |folder: &Path| {
        let mut value = [0; 1];
        rustix::fs::getxattr(folder, "trusted.overlay.opaque", &mut value[..]).is_ok()
    };
    for above in [
        Tar::default().file(".wh.d", "").dir("d").file("d/new", "new"),
        Tar::default().dir("d").file("d/new", "new").file(".wh.d", ""),
        Tar::default().file(".wh.d", "").file("d/new", "new"),
        Tar::default().file("d/new", "new").file(".wh.d", ""),
        Tar::default().file("d/new", "new").file("d/.wh..wh..opq", ""),
    ] {
        let (_dir, folders, _) = stack(&[below.clone(), above.end()]);
        assert!(is_opaque(&folders[1].join("d")) && folders[1].join("d/new").is_file());
    }
    let (_dir, folders, _) = stack(&[below, Tar::default().file(".wh..wh..opq", "").file("e", "").end()]);
    assert!(hides_all_below(&folders[1]) && !hides_all_below(&folders[0]));
}

#[test]
fn every_form_of_a_sparse_file_has_its_holes() {
    let expected = [&[0; 1000][..], b"abc", &[0; 997], b"de", &[0; 8]].concat();
    let form = |records: &[(&str, &str)], content: &[u8]| {
        let mut tar = Tar::default();
        let mut all = Vec::new();
        for (key, value) in records {
            let body = 2 + key.len() + value.len() + 1;
            let length = (1..).find(|digits| (body + digits).to_string().len() == *digits).unwrap() + body;
            all.extend(format!("{length} {key}={value}\n").bytes());
        }
        tar = tar.entry("pax", EntryType::XHeader, "", &all);
        unpack_kept(tar.entry("stored", EntryType::Regular, "", content))
    };
    let mut map = b"2\n1000\n3\n2000\n2\n".to_vec();
    map.resize(512, 0);
    let mapped = [&map[..], b"abcde"].concat();
    let named = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "f")];
    let sized = [&named[..], &[("GNU.sparse.realsize", "2010")]].concat();
    let zero_one = [("GNU.sparse.size", "2010"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", "1000,3,2000,2")];
    let zero_one = [&zero_one[..], &[("GNU.sparse.name", "f")]].concat();
    let pieces = ["1000", "3", "2000", "2"].map(|number| number);
    let zero_zero = [
        ("GNU.sparse.size", "2010"),
        ("GNU.sparse.offset", pieces[0]),
        ("GNU.sparse.numbytes", pieces[1]),
        ("GNU.sparse.offset", pieces[2]),
        ("GNU.sparse.numbytes", pieces[3]),
        ("GNU.sparse.name", "f"),
    ];
    for (records, content) in [(&sized[..], &mapped[..]), (&zero_one, b"abcde"), (&zero_zero, b"abcde")] {
        let place = form(records, content).unwrap();
        assert_eq!(fs::read(place.root().join("f")).unwrap(), expected, "{records:?}");
        assert!(!place.root().join("stored").exists());
        // The same, cut or longer, beyond the file's end, or of another version.
        assert!(form(records, &content[..content.len() - 1]).is_err(), "{records:?}");
        assert!(form(records, &[content, b"f"].concat()).is_err(), "{records:?}");
        let short: Vec<_> = records.iter().map(|(k, v)| (*k, if *v == "2010" { "2001" } else { *v })).collect();
        assert!(form(&short, content).is_err(), "{records:?}");
    }
    assert!(form(&named, &mapped).is_err());
    let newer: Vec<_> = sized.iter().map(|(k, v)| (*k, if *k == "GNU.sparse.minor" { "1" } else { *v })).collect();
    assert!(form(&newer, &mapped).is_err());
}

fn unpack_kept(tar: Tar) -> Result<Place, UnpackError> {
    let place = Place::new();
    place.unpack(&tar.end()).map(|_| place)
}

#[test]
fn what_a_global_header_says_holds_for_all_or_is_refused() {
    let global = |record: &str| {
        let tar = Tar::default().entry("pax", EntryType::XGlobalHeader, "", record.as_bytes());
        unpack_kept(tar.file("f", "x").pax("uid", b"8").file("g", "x"))
    };
    global("21 comment=012345678\n").unwrap();
    let place = global("9 uid=77\n").unwrap();
    let owner = |name: &str| fs::metadata(place.root().join(name)).unwrap().uid();
    assert_eq!((owner("f"), owner("g")), (77, 8));
    assert!(global("10 path=x\n").is_err());
    assert!(global("10 size=1\n").is_err());
}

#[test]
fn a_name_that_ends_with_a_slash_is_a_folder_and_the_later_entry_wins() {
    let old = |header: &mut Header| header.as_mut_bytes()[156] = 0;
    let tar = Tar::default().with("d/", EntryType::Regular, "", b"", old).file("d/f", "x");
    let place = unpack_kept(tar.dir("e").with("e", EntryType::Directory, "", b"", |h| h.set_mode(0o700))).unwrap();
    assert_eq!(place.text("d/f"), "x");
    assert_eq!(fs::metadata(place.root().join("e")).unwrap().mode() & 0o7777, 0o700);
}
