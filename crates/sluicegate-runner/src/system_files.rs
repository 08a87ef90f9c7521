//! Files about the network that a step finds in its `/etc`, whatever its image holds: `localhost` has to be known in a container that
//! has nothing else, and the host's network is of little use without the host's resolver. They lie in a file system of their own and are
//! gone before outputs are taken, so that no output ever has them.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    },
};
use sluicegate_ports::execute::Network;

use crate::{
    in_root::{self, IN_ROOT},
    job::{Job, SystemFile},
    mounts,
};

const HOSTS: &str = "/etc/hosts";
const RESOLVER: &str = "/etc/resolv.conf";

/// Bytes of one of the host's files.
const MAX_FILE: u64 = 1 << 20;

/// Where the files are in the run folder.
const ASIDE: &str = "system-files";

/// What a step of this name finds.
pub(crate) fn of_step(step: &str, network: &Network) -> io::Result<Vec<SystemFile>> {
    let itself = format!("127.0.0.1\tlocalhost {step}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let hosts = |text: Vec<u8>| SystemFile { at: HOSTS.into(), text };
    match network {
        Network::None | Network::Allow(_) => Ok(vec![hosts(itself.into_bytes())]),
        Network::Host => {
            let mut text = of_host(Path::new(HOSTS))?.unwrap_or_else(|| itself.into_bytes());
            // The step has a host name of its own, which programs look up.
            text.extend_from_slice(format!("\n127.0.0.1\t{step}\n").as_bytes());
            let resolver = of_host(Path::new(RESOLVER))?.map(|text| SystemFile { at: RESOLVER.into(), text });
            Ok(std::iter::once(hosts(text)).chain(resolver).collect())
        }
    }
}

/// Files that are mounted now.
pub(crate) struct Placed {
    files: Vec<PlacedFile>,
    folders: Vec<MadeFolder>,
}

struct PlacedFile {
    mounted: OwnedFd,
    folder: OwnedFd,
    name: OsString,
    before: Before,
}

/// What stood at a file's place.
enum Before {
    File,
    Nothing,
    Link(OsString, Timestamps),
}

/// A folder that the image lacks, and the one that it was made in.
struct MadeFolder {
    parent: OwnedFd,
    name: OsString,
}

/// Mounts the job's files in the root. What an input or an output of the step stands for stays as it is.
pub(crate) fn place(root: BorrowedFd<'_>, job: &Job) -> io::Result<Placed> {
    let mut placed = Placed { files: Vec::new(), folders: Vec::new() };
    let files: Vec<&SystemFile> = job.system_files.iter().filter(|file| !is_the_steps(&file.at, job)).collect();
    if files.is_empty() {
        return Ok(placed);
    }
    std::fs::create_dir(ASIDE)?;
    mounts::attach(&own_file_system()?, in_root::open_root(Path::new(ASIDE))?.as_fd())?;
    for file in files {
        let (Some(parent), Some(name)) = (file.at.parent(), file.at.file_name()) else { continue };
        let folder = match in_root::open_folder(root, parent, IN_ROOT | ResolveFlags::NO_XDEV) {
            // An input stands there.
            Err(Errno::XDEV) => continue,
            Err(Errno::NOENT) => match placed.make_folder(root, parent)? {
                Some(folder) => folder,
                None => continue,
            },
            result => result?,
        };
        let source = PathBuf::from(ASIDE).join(name);
        File::create_new(&source)?.write_all(&file.text)?;
        let tree = mounts::clone_mount(&source)?;
        let Some(before) = make_place(folder.as_fd(), name)? else { continue };
        let target = open_place(folder.as_fd(), name)?;
        mounts::attach(&tree, target.as_fd())?;
        let mounted = open_place(folder.as_fd(), name)?;
        placed.files.push(PlacedFile { mounted, folder, name: name.to_owned(), before });
    }
    Ok(placed)
}

impl Placed {
    /// A folder right below the root; `None` where a link leads nowhere, which is the image's to answer for.
    fn make_folder(&mut self, root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
        let Some(name) = path.file_name() else { return Ok(None) };
        let parent = in_root::open_folder(root, Path::new(""), IN_ROOT)?;
        if rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Ok(None);
        }
        let folder = unchanged(parent.as_fd(), || in_root::make_folders(root, path, (0, 0), IN_ROOT))?;
        self.folders.push(MadeFolder { parent, name: name.to_owned() });
        Ok(Some(folder))
    }

    /// Removes the files and whatever was made for them, and leaves the folders around them as old as they were.
    pub(crate) fn take_away(self) -> io::Result<()> {
        for file in self.files {
            let PlacedFile { mounted, folder, name, before } = file;
            rustix::mount::unmount(format!("/proc/self/fd/{}", mounted.as_raw_fd()), UnmountFlags::DETACH)?;
            drop(mounted);
            match before {
                Before::File => {}
                Before::Nothing => unchanged(folder.as_fd(), || remove(folder.as_fd(), &name))?,
                Before::Link(target, times) => unchanged(folder.as_fd(), || {
                    remove(folder.as_fd(), &name)?;
                    rustix::fs::symlinkat(target.as_os_str(), &folder, name.as_os_str())?;
                    Ok(rustix::fs::utimensat(&folder, name.as_os_str(), &times, AtFlags::SYMLINK_NOFOLLOW)?)
                })?,
            }
        }
        for MadeFolder { parent, name } in self.folders {
            unchanged(parent.as_fd(), || match rustix::fs::unlinkat(&parent, name.as_os_str(), AtFlags::REMOVEDIR) {
                // The step has put something there, or taken it away.
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR) => Ok(()),
                Err(error) => Err(error.into()),
            })?;
        }
        Ok(())
    }
}

/// Whether the step says itself what is there: an input at or above it, or the file as an output.
fn is_the_steps(path: &Path, job: &Job) -> bool {
    job.mounts.iter().any(|mount| path.starts_with(&mount.at)) || job.outputs.iter().any(|output| output == path)
}

/// Makes sure that there is a file to mount on; `None` if something else is there that is no link. A link gives way for as long as the
/// step runs: where it leads may not exist.
fn make_place(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Before>> {
    let before = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Before::Nothing,
        Err(error) => return Err(error.into()),
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(Some(Before::File)),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
                Before::Link(OsStr::from_bytes(target.as_bytes()).to_owned(), times_of(&stat))
            }
            _ => return Ok(None),
        },
    };
    unchanged(folder, || {
        if let Before::Link(..) = &before {
            remove(folder, name)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o644))?;
        Ok(())
    })?;
    Ok(Some(before))
}

fn open_place(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn remove(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Changes what is in a folder and leaves the folder's own times as they were.
fn unchanged<T>(folder: BorrowedFd<'_>, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let times = times_of(&rustix::fs::fstat(folder)?);
    let done = change()?;
    rustix::fs::futimens(folder, &times)?;
    Ok(done)
}

fn times_of(stat: &Stat) -> Timestamps {
    let moment = |tv_sec, nanoseconds: u64| Timespec { tv_sec, tv_nsec: nanoseconds.cast_signed() };
    Timestamps {
        last_access: moment(stat.st_atime, stat.st_atime_nsec),
        last_modification: moment(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// In memory: what stands in the step's own list of mounts says nothing of the host's folders, and its size is limited.
fn own_file_system() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", "8m"), ("nr_inodes", "16"), ("mode", "0755")] {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A file of the host; `None` if it has none.
fn of_host(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let of = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(of)?,
    };
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(of)?;
    if text.len() as u64 > MAX_FILE {
        return Err(of(io::Error::other(format!("larger than {MAX_FILE} bytes"))));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_knows_itself_and_localhost_and_with_the_hosts_network_what_the_host_knows() {
        let text = |files: &[SystemFile], at: &str| {
            files
                .iter()
                .find(|file| file.at == Path::new(at))
                .map(|file| String::from_utf8_lossy(&file.text).into_owned())
        };
        let none = of_step("compile", &Network::None).unwrap();
        assert!(text(&none, HOSTS).unwrap().contains("127.0.0.1\tlocalhost compile\n::1\tlocalhost "));
        assert_eq!(text(&none, RESOLVER), None);
        let host = of_step("compile", &Network::Host).unwrap();
        let own = std::fs::read(HOSTS).unwrap_or_default();
        let hosts = text(&host, HOSTS).unwrap();
        assert!(
            hosts.contains(&*String::from_utf8_lossy(&own)) && hosts.ends_with("\n127.0.0.1\tcompile\n"),
            "{hosts}"
        );
        let resolver = std::fs::read(RESOLVER).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(text(&host, RESOLVER), resolver);
    }
}
