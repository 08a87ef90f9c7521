//! Files of an image, looked up through its unpacked layers as overlayfs would show them: what a higher layer has hides what a lower one
//! has, whiteouts remove, opaque folders hide what is below them, and links lead nowhere but inside.
//!
//! The layers are private to this program and change no more, so that looking at a name and opening it later is the same file.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Component, Path, PathBuf},
};

use rustix::io::Errno;

use crate::plain_file;

/// Links that one look-up follows, as many as the kernel does.
const MAX_LINKS: usize = 40;

/// The bytes of the regular file at `path`, at most `limit` of them; `None` if the image has nothing there. The topmost layer comes first.
pub(crate) fn read(layers: &[PathBuf], path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match find(layers, path)? {
        None => Ok(None),
        Some(found) => plain_file::read(&found, limit).map(Some),
    }
}

/// The places of one folder of the image in its layers, topmost first.
type Places = Vec<PathBuf>;

enum Found {
    Nothing,
    Folder(Places),
    Link(PathBuf),
    Other(PathBuf),
}

fn find(layers: &[PathBuf], path: &Path) -> io::Result<Option<PathBuf>> {
    let mut at: Vec<Places> = vec![layers.to_vec()];
    let mut waiting: Vec<Option<OsString>> = names(path);
    let mut links = 0;
    while let Some(name) = waiting.pop() {
        let (Some(folder), Some(name)) = (at.last(), &name) else {
            // Above the root is the root.
            at.truncate((at.len() - 1).max(1));
            continue;
        };
        match look_up(folder, name)? {
            Found::Nothing => return Ok(None),
            Found::Folder(places) => at.push(places),
            Found::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("more than {MAX_LINKS} links")));
                }
                if target.is_absolute() {
                    at.truncate(1);
                }
                waiting.extend(names(&target));
            }
            Found::Other(file) => return Ok(waiting.is_empty().then_some(file)),
        }
    }
    Ok(at.pop().and_then(|places| places.into_iter().next()))
}

/// The names of a path, last one first; nothing for a step up.
fn names(path: &Path) -> Vec<Option<OsString>> {
    let name = |component| match component {
        Component::Normal(name) => Some(Some(name.to_owned())),
        Component::ParentDir => Some(None),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

fn look_up(folder: &[PathBuf], name: &OsStr) -> io::Result<Found> {
    let mut places = Vec::new();
    for layer in folder {
        let path = layer.join(name);
        let meta = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result?,
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            let opaque = is_opaque(&path)?;
            places.push(path);
            if opaque {
                break;
            }
        } else if !places.is_empty() {
            break;
        } else if kind.is_char_device() && meta.rdev() == 0 {
            return Ok(Found::Nothing);
        } else if kind.is_symlink() {
            return Ok(Found::Link(fs::read_link(path)?));
        } else {
            return Ok(Found::Other(path));
        }
    }
    Ok(if places.is_empty() { Found::Nothing } else { Found::Folder(places) })
}

fn is_opaque(path: &Path) -> io::Result<bool> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..]) {
        Ok(_) => Ok(&value == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        // Longer than a letter: not the mark.
        Err(Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

    use super::*;

    struct Layers(tempfile::TempDir);

    impl Layers {
        fn new(files: &[(&str, &str)]) -> Self {
            let layers = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                let path = layers.at(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            layers
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn whiteout(&self, path: &str) {
            mknodat(CWD, self.at(path), FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).unwrap();
        }

        /// What is seen with the layers `b` over `a`.
        fn seen(&self, path: &str) -> Option<String> {
            let layers = [self.at("b"), self.at("a")];
            read(&layers, Path::new(path), 100).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
        }
    }

    #[test]
    fn higher_layers_hide_whiteouts_remove_and_opaque_folders_hide_all() {
        let layers = Layers::new(&[
            ("a/etc/passwd", "low"),
            ("a/etc/group", "low"),
            ("a/etc/shadow", "low"),
            ("a/opt/x", "low"),
            ("a/file/x", "low"),
            ("b/etc/group", "high"),
            ("b/opt/y", "high"),
            ("b/file", "now a file"),
        ]);
        assert_eq!(layers.seen("/etc/passwd").as_deref(), Some("low"));
        assert_eq!(layers.seen("/etc/group").as_deref(), Some("high"));
        assert_eq!(layers.seen("/etc/nothing"), None);
        assert_eq!(layers.seen("/opt/x").as_deref(), Some("low"));
        assert_eq!(layers.seen("/file/x"), None);
        layers.whiteout("b/etc/shadow");
        assert_eq!(layers.seen("/etc/shadow"), None);
        setxattr(layers.at("b/opt"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        assert_eq!((layers.seen("/opt/x"), layers.seen("/opt/y").as_deref()), (None, Some("high")));
    }

    #[test]
    fn links_are_followed_inside_and_never_outside() {
        let layers = Layers::new(&[("a/usr/etc/passwd", "inside"), ("b/x", ""), ("outside", "outside")]);
        symlink("/usr/etc", layers.at("b/etc")).unwrap();
        symlink("../../../../outside", layers.at("a/usr/up")).unwrap();
        symlink(layers.at("outside"), layers.at("a/usr/absolute")).unwrap();
        symlink("../usr/etc/./passwd", layers.at("b/relative")).unwrap();
        symlink("loop", layers.at("b/loop")).unwrap();
        assert_eq!(layers.seen("/etc/passwd").as_deref(), Some("inside"));
        assert_eq!(layers.seen("/relative").as_deref(), Some("inside"));
        assert_eq!(layers.seen("/usr/../etc/passwd").as_deref(), Some("inside"));
        assert_eq!(layers.seen("/usr/up"), None);
        assert_eq!(layers.seen("/usr/absolute"), None);
        let error = read(&[layers.at("b")], Path::new("/loop"), 100).unwrap_err();
        assert!(error.to_string().contains("more than 40 links"), "{error}");
    }

    #[test]
    fn only_plain_files_up_to_the_limit_are_read() {
        let layers = Layers::new(&[("a/etc/passwd", "12345")]);
        fs::create_dir(layers.at("b")).unwrap();
        rustix::fs::mkfifoat(CWD, layers.at("b/pipe"), Mode::RUSR).unwrap();
        let read = |path, limit| read(&[layers.at("b"), layers.at("a")], Path::new(path), limit);
        assert_eq!(read("/etc/passwd", 5).unwrap().unwrap(), b"12345");
        assert!(read("/etc/passwd", 4).is_err());
        assert!(read("/pipe", 5).is_err());
        assert!(read("/etc", 5).is_err());
    }
}
