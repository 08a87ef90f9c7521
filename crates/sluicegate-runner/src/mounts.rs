//! Builds a step's root in the helper's own mount namespace: the layers under a writable folder, and the inputs inside of it.
//! Nothing of it is ever visible on the host, and it is gone when the helper ends, however it ends.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Timespec, Timestamps, Uid},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_remount, move_mount, open_tree,
    },
};

use crate::{
    in_root::{self, IN_ROOT},
    job::{Job, MountJob, MountKind, Stage},
    unpack::SAYS_ROOT,
};

/// The name of a file input inside its folder.
pub(crate) const FILE_NAME: &str = "content";

/// The root's name in the run folder.
pub(crate) const ROOT: &str = "rootfs";

/// A step's root, while it is mounted.
pub(crate) struct Root {
    pub(crate) folder: OwnedFd,
    /// What is shared with other runs.
    shared: Vec<OwnedFd>,
}

impl Root {
    /// Takes away what is shared with other runs: nothing of it is in an output, whatever link leads there. An output that is in it itself
    /// would only be missing then, or empty; it is an error, with its number.
    pub(crate) fn take_shared_away(&mut self, outputs: &[PathBuf]) -> Result<(), (Stage, String)> {
        let shared: Vec<u64> = self.shared.iter().filter_map(mount_of).collect();
        for (index, path) in outputs.iter().enumerate().filter(|_| !shared.is_empty()) {
            let found =
                open_output(self.folder.as_fd(), path).map_err(|error| (Stage::Output(index), error.to_string()))?;
            if found.and_then(|(opened, _)| mount_of(&opened)).is_some_and(|mount| shared.contains(&mount)) {
                let reason = "it leads into a shared cache, of which nothing is kept: let the step copy what it needs";
                return Err((Stage::Output(index), reason.to_owned()));
            }
        }
        self.detach_shared().map_err(|error| (Stage::Folders, error.to_string()))
    }

    fn detach_shared(&mut self) -> io::Result<()> {
        for mounted in self.shared.drain(..) {
            let at = format!("/proc/self/fd/{}", mounted.as_raw_fd());
            rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH)?;
        }
        Ok(())
    }
}

/// The number of the mount that something open is in; `None` where the system does not say.
fn mount_of(opened: &OwnedFd) -> Option<u64> {
    let stat = rustix::fs::statx(opened, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
}

/// Stacks the layers and mounts the inputs; returns the root. The run folder is the current folder: names in the step's own
/// `/proc/self/mountinfo` are relative to it and say nothing about the host.
pub(crate) fn build_root(job: &Job) -> Result<Root, (Stage, String)> {
    let root = mount_layers(job).map_err(|error| (Stage::Overlay, error.to_string()))?;
    let (mut read_only, mut shared) = (Vec::new(), Vec::new());
    for (index, mount) in job.mounts.iter().enumerate() {
        let mounted = mount_input(root.as_fd(), index, mount, job);
        match mounted.map_err(|error| (Stage::Mount(index), error.to_string()))? {
            Some(mounted) if mount.read_only => read_only.push((index, mounted)),
            Some(mounted) if matches!(mount.what, MountKind::Shared { .. }) => shared.push(mounted),
            _ => {}
        }
    }
    // Only now, for an input may be mounted inside of another.
    for (index, mounted) in read_only {
        forbid_writes(&mounted).map_err(|error| (Stage::Mount(index), error.to_string()))?;
    }
    make_missing_folders(root.as_fd(), job).map_err(|error| (Stage::Folders, error.to_string()))?;
    Ok(Root { folder: root, shared })
}

fn mount_layers(job: &Job) -> io::Result<OwnedFd> {
    let lowers: Vec<&str> = job.lowers.iter().map(String::as_str).collect();
    let (owner, mode) = root_of(&lowers)?;
    private_folder("upper", owner, mode)?;
    private_folder("work", (0, 0), 0o755)?;
    fs::create_dir(ROOT)?;
    let mount = overlay(&lowers, "upper", "work")?;
    attach(&mount, in_root::open_root(Path::new(ROOT))?.as_fd())?;
    Ok(in_root::open_root(Path::new(ROOT))?)
}

/// Owner and mode of the root: of the uppermost layer that says them, for overlayfs shows those of the writable folder.
fn root_of(lowers: &[&str]) -> io::Result<((u32, u32), u32)> {
    for lower in lowers {
        let root = in_root::open(
            rustix::fs::CWD,
            Path::new(lower),
            OFlags::RDONLY | OFlags::DIRECTORY,
            ResolveFlags::empty(),
        )?;
        if rustix::fs::fgetxattr(&root, SAYS_ROOT, &mut [0; 1][..]).is_ok() {
            let stat = rustix::fs::fstat(&root)?;
            return Ok(((stat.st_uid, stat.st_gid), stat.st_mode & 0o7777));
        }
    }
    Ok(((0, 0), 0o755))
}

/// An overlay that is attached nowhere yet.
///
/// The upper folder has to be a plain difference, so nothing of overlayfs' own bookkeeping is written; `nofollow` makes forged
/// redirects in a layer inert; `volatile` saves the syncs, for a broken run is thrown away anyway.
fn overlay(lowers: &[&str], upper: &str, work: &str) -> io::Result<OwnedFd> {
    let build = |separate: bool| -> rustix::io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &str, value: &str| fsconfig_set_string(context.as_fd(), key, value);
        if separate {
            lowers.iter().try_for_each(|lower| set("lowerdir+", lower))?;
        } else {
            set("lowerdir", &lowers.join(":"))?;
        }
        for (key, value) in [
            ("upperdir", upper),
            ("workdir", work),
            ("redirect_dir", "nofollow"),
            ("metacopy", "off"),
            ("index", "off"),
        ] {
            set(key, value)?;
        }
        fsconfig_set_flag(context.as_fd(), "volatile")?;
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    // Kernels before 6.8 take `lowerdir+` without complaint and fail only when the file system is made.
    match build(true) {
        Err(Errno::INVAL) => Ok(build(false)?),
        result => Ok(result?),
    }
}

fn mount_input(root: BorrowedFd<'_>, index: usize, mount: &MountJob, job: &Job) -> io::Result<Option<OwnedFd>> {
    match &mount.what {
        MountKind::Folder(name) => {
            let target = in_root::make_folders(root, &mount.at, (0, 0), IN_ROOT)?;
            attach(&input_overlay(index, name, job)?, target.as_fd())?;
            let mounted = in_root::open_folder(root, &mount.at, IN_ROOT)?;
            rustix::fs::futimens(&mounted, &moment(job.epoch))?;
            Ok(Some(mounted))
        }
        MountKind::File(name, _) if mount.read_only => {
            // A single file cannot be an overlay: its folder is, and the file is taken out of that.
            let aside = format!("aside{index}");
            fs::create_dir(&aside)?;
            attach(&input_overlay(index, name, job)?, in_root::open_root(Path::new(&aside))?.as_fd())?;
            let file = Path::new(&aside).join(FILE_NAME);
            let tree = clone_mount(&file)?;
            make_file(root, &mount.at)?;
            attach_at(root, &tree, &mount.at).map(Some)
        }
        MountKind::File(name, executable) => {
            // Copied and not mounted: a mounted file could neither be renamed over nor removed, which `sed -i` does.
            let mut source = File::open(Path::new(name).join(FILE_NAME))?;
            let mut file = make_file(root, &mount.at)?;
            io::copy(&mut source, &mut file)?;
            rustix::fs::fchown(&file, Some(Uid::from_raw(job.owner.0)), Some(Gid::from_raw(job.owner.1)))?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(if *executable { 0o755 } else { 0o644 }))?;
            rustix::fs::futimens(&file, &moment(job.epoch))?;
            Ok(None)
        }
        MountKind::Host(path) => {
            let tree = clone_mount(path)?;
            if fs::symlink_metadata(path)?.is_dir() {
                in_root::make_folders(root, &mount.at, (0, 0), IN_ROOT)?;
            } else {
                make_file(root, &mount.at)?;
            }
            attach_at(root, &tree, &mount.at).map(Some)
        }
        MountKind::Shared { root: all, folder } => {
            // Steps write below the folder and never above it; that no link leads elsewhere is asked of the kernel all the same.
            let shared = in_root::open_folder(in_root::open_root(all)?.as_fd(), folder, NEVER_THROUGH_A_LINK)?;
            let flags =
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
            let tree = open_tree(&shared, "", flags)?;
            let target = in_root::make_folders(root, &mount.at, (0, 0), IN_ROOT)?;
            attach(&tree, target.as_fd())?;
            let mounted = in_root::open_folder(root, &mount.at, IN_ROOT)?;
            remount(&mounted, MountFlags::empty())?;
            Ok(Some(mounted))
        }
    }
}

/// Below the root, and through no link at all.
const NEVER_THROUGH_A_LINK: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn input_overlay(index: usize, name: &str, job: &Job) -> io::Result<OwnedFd> {
    let (upper, work) = (format!("upper{index}"), format!("work{index}"));
    private_folder(&upper, job.owner, 0o755)?;
    private_folder(&work, (0, 0), 0o755)?;
    overlay(&[name], &upper, &work)
}

pub(crate) fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    Ok(open_tree(rustix::fs::CWD, path, flags)?)
}

pub(crate) fn attach(mount: &OwnedFd, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount.as_fd(), "", target, "", flags)?)
}

/// Attaches at an existing path and returns what stands there now.
fn attach_at(root: BorrowedFd<'_>, mount: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let target = in_root::open(root, path, OFlags::PATH | OFlags::NOFOLLOW, IN_ROOT)?;
    attach(mount, target.as_fd())?;
    Ok(in_root::open(root, path, OFlags::PATH | OFlags::NOFOLLOW, IN_ROOT)?)
}

fn forbid_writes(mounted: &OwnedFd) -> io::Result<()> {
    remount(mounted, MountFlags::RDONLY)
}

/// Gives a mount further flags; it never has devices and programs that change who runs them.
fn remount(mounted: &OwnedFd, flags: MountFlags) -> io::Result<()> {
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | flags;
    Ok(mount_remount(format!("/proc/self/fd/{}", mounted.as_raw_fd()), flags, "")?)
}

/// Makes an empty file; another file or a link that the image has there gives way, a folder does not.
fn make_file(root: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("a file needs a name"));
    };
    let folder = in_root::make_folders(root, parent, (0, 0), IN_ROOT)?;
    match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o600))?.into())
}

/// `/tmp`, the working folder, and the folders above outputs, so that a step of any user can write there. Inside of an input
/// nothing is made: its tree is the step's to change.
fn make_missing_folders(root: BorrowedFd<'_>, job: &Job) -> io::Result<()> {
    let temporary = OsStr::new("tmp");
    if let Err(error) = rustix::fs::statat(root, temporary, AtFlags::SYMLINK_NOFOLLOW) {
        if error != Errno::NOENT {
            return Err(error.into());
        }
        rustix::fs::mkdirat(root, temporary, Mode::from_raw_mode(0o700))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(root, temporary, flags, Mode::empty())?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o1777))?;
    }
    in_root::make_folders(root, &job.workdir, job.owner, IN_ROOT)?;
    let inside_input = |path: &&Path| job.mounts.iter().any(|mount| path.starts_with(&mount.at));
    for parent in job.outputs.iter().filter_map(|output| output.parent()).filter(|parent| !inside_input(parent)) {
        in_root::make_folders(root, parent, job.owner, IN_ROOT)?;
    }
    Ok(())
}

fn private_folder(name: &str, owner: (u32, u32), mode: u32) -> io::Result<()> {
    fs::create_dir(name)?;
    chown(name, Some(owner.0), Some(owner.1))?;
    fs::set_permissions(name, fs::Permissions::from_mode(mode))
}

fn moment(seconds: u64) -> Timestamps {
    let moment = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    Timestamps { last_access: moment, last_modification: moment }
}

/// Opens what an output path names inside the root, following links, without waiting for a FIFO or waking a device.
pub(crate) fn open_output(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<(OwnedFd, FileType)>> {
    let inspect = match in_root::open(root, path, OFlags::PATH, IN_ROOT) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        result => result?,
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&inspect)?.st_mode);
    match kind {
        FileType::RegularFile | FileType::Directory => {
            let opened = in_root::open(root, path, OFlags::RDONLY | OFlags::NONBLOCK, IN_ROOT)?;
            Ok(Some((opened, kind)))
        }
        _ => Ok(Some((inspect, kind))),
    }
}

/// A new file of the run folder that nobody else reads.
pub(crate) fn new_result(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}
