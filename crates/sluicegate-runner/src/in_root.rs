//! Paths that are resolved inside a root and nowhere else: each look-up is one `openat2` with RESOLVE_IN_ROOT, so that neither
//! `..` nor a link, absolute or not, ever names something outside.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, AtFlags, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid},
    io::Errno,
};

/// Inside the root, and never through a link of /proc.
pub(crate) const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a folder by a path of the host, which may not end in a link.
pub(crate) fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    fs::open(path, FOLDER | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens `path` inside `root` with these flags.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        // EAGAIN: something was renamed while the kernel made sure that it stays inside.
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens the folder `path` inside `root`.
pub(crate) fn open_folder(root: BorrowedFd<'_>, path: &Path, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    open(root, path, FOLDER, resolve)
}

/// Opens the folder `path` inside `root` and makes what is missing of it, mode 0755 whatever the umask, owned by `owner`.
pub(crate) fn make_folders(
    root: BorrowedFd<'_>,
    path: &Path,
    owner: (u32, u32),
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    make_folders_telling(root, path, owner, resolve, |_, _, _| Ok(()))
}

/// The same, and tells of each folder that it makes: in which one, by which name, and itself.
pub(crate) fn make_folders_telling(
    root: BorrowedFd<'_>,
    path: &Path,
    owner: (u32, u32),
    resolve: ResolveFlags,
    mut tell: impl FnMut(&OwnedFd, &OsStr, &OwnedFd) -> rustix::io::Result<()>,
) -> io::Result<OwnedFd> {
    match open_folder(root, path, resolve) {
        Err(Errno::NOENT) => {}
        result => return result.map_err(io::Error::from),
    }
    let mut at = PathBuf::new();
    let mut folder = open_folder(root, &at, resolve)?;
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        at.push(name);
        folder = match open_folder(root, &at, resolve) {
            Err(Errno::NOENT) => {
                fs::mkdirat(&folder, name, Mode::from_raw_mode(0o700))?;
                let made = fs::openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                fs::fchown(&made, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
                fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                tell(&folder, name, &made)?;
                made
            }
            result => result?,
        };
    }
    Ok(folder)
}

/// Removes `name` in `folder` with everything below it, without following a link and however deep it is.
///
/// A tree may be deeper than the stack or the file table, so that a folder that is not empty is moved up to the top of the tree
/// and emptied there in its turn. Two processes may do this to the same tree.
pub(crate) fn remove(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    while !remove_shallow(folder, name)? {
        let Some(top) = open_to_remove(folder, name)? else { return Ok(()) };
        for_each_name(&top, |child| {
            let Some(inner) = remove_or_open(&top, child)? else { return Ok(()) };
            for_each_name(&inner, |grandchild| match remove_shallow(inner.as_fd(), grandchild)? {
                true => Ok(()),
                false => move_up(&inner, grandchild, &top),
            })
        })?;
    }
    Ok(())
}

fn remove_or_open(folder: &OwnedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    if remove_shallow(folder.as_fd(), name)? { Ok(None) } else { open_to_remove(folder.as_fd(), name) }
}

fn open_to_remove(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    match fs::openat(folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        result => Ok(Some(result?)),
    }
}

fn for_each_name(folder: &OwnedFd, mut each: impl FnMut(&OsStr) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            each(name)?;
        }
    }
    Ok(())
}

fn move_up(from: &OwnedFd, name: &OsStr, top: &OwnedFd) -> io::Result<()> {
    static MOVED: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = MOVED.fetch_add(1, Ordering::Relaxed);
        let place = format!(".removed-{}-{number}", std::process::id());
        match fs::renameat_with(from, name, top, &place, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes what is not a folder with content; says whether it is gone.
fn remove_shallow(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    match fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_are_made_through_links_inside_and_never_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root_path = dir.path().join("root");
        std::fs::create_dir_all(root_path.join("usr")).unwrap();
        symlink("/usr", root_path.join("inside")).unwrap();
        symlink("../../..", root_path.join("up")).unwrap();
        let root = open_root(&root_path).unwrap();
        make_folders(root.as_fd(), Path::new("/inside/a/b"), (0, 0), IN_ROOT).unwrap();
        assert!(root_path.join("usr/a/b").is_dir());
        make_folders(root.as_fd(), Path::new("up/c"), (0, 0), IN_ROOT).unwrap();
        assert!(root_path.join("c").is_dir());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        symlink("nowhere", root_path.join("dangling")).unwrap();
        assert!(make_folders(root.as_fd(), Path::new("dangling/x"), (0, 0), IN_ROOT).is_err());
    }

    #[test]
    fn a_tree_deeper_than_any_stack_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_root(dir.path()).unwrap();
        fs::mkdirat(&root, "deep", Mode::from_raw_mode(0o700)).unwrap();
        let mut at = fs::openat(&root, "deep", FOLDER, Mode::empty()).unwrap();
        for _ in 0..3000 {
            fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            fs::mkdirat(&at, "e", Mode::from_raw_mode(0o000)).unwrap();
            at = fs::openat(&at, "d", FOLDER, Mode::empty()).unwrap();
        }
        std::fs::write(dir.path().join("outside"), "").unwrap();
        symlink(dir.path().join("outside"), dir.path().join("deep/link")).unwrap();
        remove(root.as_fd(), OsStr::new("deep")).unwrap();
        assert!(!dir.path().join("deep").exists());
        assert!(dir.path().join("outside").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
