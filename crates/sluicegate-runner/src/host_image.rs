//! A base image from what stands on a Debian-like host: programs with the libraries they need, whole packages, and dpkg's records
//! of exactly those packages, so that a scanner sees what is in it.
//!
//! Nothing is executed and nothing is written: the result is a sorted list that a layer is made from.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

mod dpkg;
mod elf;
#[cfg(test)]
mod test_tree;
#[cfg(test)]
mod tests;
mod tree;

use dpkg::Dpkg;
use elf::Elf;
use tree::{Found, Tree};

/// Entries of one image.
const ENTRIES: usize = 200_000;
/// Where a program is looked for when it is given by name.
const PROGRAMS: &[&str] = &["usr/bin", "bin", "usr/sbin", "sbin"];
/// Folders at the top that are links on a merged system; programs are called by both names.
const LINKS_AT_TOP: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Parts of a package that a step does not need. A package's `copyright` stays: it says what the licences are.
const LEFT_OUT: &[&str] =
    &["usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian", "usr/share/bug"];
/// Files that name the system for programs and scanners; each where the host has it.
const SYSTEM: &[&str] = &["etc/os-release", "usr/lib/os-release", "etc/debian_version", "etc/lsb-release"];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// What to take from the host.
#[derive(Clone, Debug)]
pub struct HostImageRequest {
    /// The host's root: `/`.
    pub root: PathBuf,
    /// Programs, by name (looked for in `/usr/bin`, `/bin`, `/usr/sbin`, `/sbin`) or absolute path, with their libraries.
    pub binaries: Vec<String>,
    /// Installed packages, whole but for documentation, manuals and translations.
    pub packages: Vec<String>,
    /// Also take every package that `packages` depend on.
    pub closure: bool,
    /// Take files that belong to no package, which no scanner will see.
    pub allow_unowned: bool,
}

/// A base image.
#[derive(Clone, Debug)]
pub struct HostImage {
    /// What stands in it, sorted by path, parents before what is in them.
    pub entries: Vec<HostEntry>,
    /// The packages of which something is in it, in the host's order.
    pub packages: Vec<HostPackage>,
    /// Files that belong to no package; empty unless the request allows them.
    pub unowned: Vec<PathBuf>,
    /// Bytes of all files.
    pub bytes: u64,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPackage {
    /// Its name.
    pub name: String,
    /// Its version, as dpkg writes it.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
}

/// One path of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// Relative to the image's root, without a slash in front.
    pub path: PathBuf,
    /// What stands there.
    pub kind: HostEntryKind,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEntryKind {
    /// A file with the bytes of a file of the host.
    File {
        /// The host's file, no link.
        source: PathBuf,
        /// Permission bits without set-id bits.
        mode: u32,
        /// Its size when it was found.
        size: u64,
    },
    /// A file that was made here.
    Made {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// A directory.
    Directory {
        /// Permission bits and the sticky bit.
        mode: u32,
    },
    /// A symbolic link.
    Symlink {
        /// As on the host.
        target: PathBuf,
    },
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum HostImageError {
    /// The host is not a Debian-like system.
    #[error("{root}: no dpkg records; an image from a host without dpkg is not in this version")]
    NotDebian {
        /// The root that was looked at.
        root: PathBuf,
    },
    /// No such program.
    #[error("no program {name} in /usr/bin, /bin, /usr/sbin or /sbin: install it, or give an absolute path")]
    NoProgram {
        /// Its name.
        name: String,
    },
    /// No such package.
    #[error("package {name} is not installed: apt-get install {name}")]
    NoPackage {
        /// Its name.
        name: String,
    },
    /// A dependency that is not there.
    #[error("package {package} depends on {missing}, which is not installed: apt-get -f install")]
    Depends {
        /// Which package.
        package: String,
        /// What it needs.
        missing: String,
    },
    /// A file that ought to be there.
    #[error("{path} is missing on this host")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// A library that was not found.
    #[error("{program} needs the library {library}, which is in no standard folder: install its package")]
    NoLibrary {
        /// What needs it.
        program: PathBuf,
        /// Its name.
        library: String,
    },
    /// Links that lead in a circle.
    #[error("{path}: too many symbolic links")]
    Links {
        /// The path.
        path: PathBuf,
    },
    /// A device, pipe or socket.
    #[error("{path} is neither a file, a directory nor a link")]
    Special {
        /// The path.
        path: PathBuf,
    },
    /// A file that no package owns.
    #[error(
        "{path} belongs to no installed package, so no scanner would see it: install it as a package, or allow it with --allow-unowned"
    )]
    Unowned {
        /// The path.
        path: PathBuf,
    },
    /// Too much.
    #[error("more than {limit} files")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The request names nothing.
    #[error("nothing was asked for: name a program or a package")]
    Nothing,
    /// The system.
    #[error("cannot read {path}: {reason}")]
    Io {
        /// What was being read.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// Finds everything that the request asks for and all that it needs.
pub fn collect(request: &HostImageRequest) -> Result<HostImage, HostImageError> {
    if request.binaries.is_empty() && request.packages.is_empty() {
        return Err(HostImageError::Nothing);
    }
    let dpkg = Dpkg::open(&request.root)?;
    let mut build = Build { tree: Tree::new(&request.root), open: VecDeque::new(), done: BTreeSet::new() };
    for link in LINKS_AT_TOP.iter().filter(|link| request.root.join(link).is_symlink()) {
        build.tree.add(Path::new(link))?;
    }
    let mut packages = BTreeSet::new();
    for name in &request.packages {
        packages.insert(dpkg.named(name).ok_or_else(|| HostImageError::NoPackage { name: name.clone() })?);
    }
    if request.closure {
        packages = dpkg.closure(&packages)?;
    }
    for index in &packages {
        build.package(&dpkg.files(*index)?)?;
    }
    for name in &request.binaries {
        build.program(name)?;
    }
    for path in SYSTEM.iter().map(Path::new) {
        if build.tree.find(path).is_some() {
            build.file(path, Origin::Package)?;
        }
    }
    build.libraries()?;
    let (owners, unowned) = build.owners(&dpkg, packages)?;
    if let (Some(path), false) = (unowned.first(), request.allow_unowned) {
        return Err(HostImageError::Unowned { path: Path::new("/").join(path) });
    }
    build.records(&dpkg, &owners)?;
    build.finish(&dpkg, &owners, unowned)
}

/// The packages that own a program: its links and the file they lead to, in the host's order.
pub fn owners(root: &Path, program: &str) -> Result<Vec<HostPackage>, HostImageError> {
    let dpkg = Dpkg::open(root)?;
    let mut tree = Tree::new(root);
    let path = locate(&tree, program)?;
    tree.add(&path)?;
    let at_top = |path: &Path| LINKS_AT_TOP.iter().any(|link| path == Path::new(link));
    let files =
        tree.entries.iter().filter(|(path, kind)| !matches!(kind, HostEntryKind::Directory { .. }) && !at_top(path));
    let owners: BTreeSet<_> = dpkg.owners(files.map(|(path, _)| path.as_path()))?.into_values().flatten().collect();
    Ok(owners.into_iter().map(|index| host_package(&dpkg, index)).collect())
}

/// Why a file is in the image, which decides how much is done for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It was asked for, or something that was asked for needs it.
    Asked,
    /// It came with its package, whose dependencies are the package's own matter.
    Package,
}

struct Build {
    tree: Tree,
    /// Files whose needs are still to be looked at.
    open: VecDeque<(PathBuf, PathBuf, Origin)>,
    done: BTreeSet<PathBuf>,
}

impl Build {
    fn package(&mut self, files: &[PathBuf]) -> Result<(), HostImageError> {
        for path in files.iter().filter(|path| is_kept(path)) {
            match self.file(path, Origin::Package) {
                // Settings and data may be taken away by the host's owner.
                Err(HostImageError::Missing { .. }) if path.starts_with("etc") || path.starts_with("var") => {}
                Err(HostImageError::Special { .. }) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn program(&mut self, name: &str) -> Result<(), HostImageError> {
        let path = locate(&self.tree, name)?;
        self.file(&path, Origin::Asked)
    }

    fn file(&mut self, path: &Path, origin: Origin) -> Result<(), HostImageError> {
        let found = self.tree.add(path)?;
        if self.tree.entries.len() > ENTRIES {
            return Err(HostImageError::TooMany { limit: ENTRIES });
        }
        if found.is_file && self.done.insert(found.path.clone()) {
            self.open.push_back((found.path, found.source, origin));
        }
        Ok(())
    }

    /// Adds interpreters and libraries until nothing is missing.
    fn libraries(&mut self) -> Result<(), HostImageError> {
        while let Some((path, source, origin)) = self.open.pop_front() {
            let read = |error: &io::Error| HostImageError::read(&source, error);
            let mut file = File::open(&source).map_err(|error| read(&error))?;
            if let Some(elf) = elf::read(&mut file).map_err(|error| read(&error))? {
                if let Some(interpreter) = &elf.interpreter {
                    self.file(Path::new(interpreter), origin)?;
                }
                for name in &elf.needed {
                    self.library(&path, &elf, name, origin)?;
                }
            } else if let Some(interpreter) =
                script(&source).map_err(|error| read(&error))?.filter(|_| origin == Origin::Asked)
            {
                self.program(&interpreter)?;
            }
        }
        Ok(())
    }

    fn library(&mut self, needed_by: &Path, elf: &Elf, name: &str, origin: Origin) -> Result<(), HostImageError> {
        if name.contains('/') {
            return self.file(Path::new(name), origin);
        }
        let own = needed_by.parent().unwrap_or(Path::new(""));
        let asked = elf.folders.iter().filter(|folder| !folder.is_empty()).map(|folder| {
            let origin = format!("/{}", own.display());
            PathBuf::from(folder.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin))
        });
        let triplet = elf.machine.triplet();
        let standard = ["lib", "usr/lib"]
            .into_iter()
            .filter(|_| !triplet.is_empty())
            .map(|folder| Path::new(folder).join(triplet));
        let plain = ["lib64", "usr/lib64", "lib", "usr/lib"].into_iter().map(PathBuf::from);
        for folder in asked.chain(standard).chain(plain) {
            let path = folder.join(name);
            if self.tree.find(&path).is_some_and(|found| fits(&found, elf)) {
                return self.file(&path, origin);
            }
        }
        // A plug-in may rely on a library that its program has loaded from a folder of its own.
        let present = self.tree.entries.keys().any(|path| path.file_name().is_some_and(|file| file == name));
        if origin == Origin::Package && present {
            return Ok(());
        }
        Err(HostImageError::NoLibrary { program: Path::new("/").join(needed_by), library: name.to_owned() })
    }

    /// The packages of what is in the tree, and the files that have none. Links may be unowned: alternatives are.
    fn owners(
        &mut self,
        dpkg: &Dpkg,
        mut owners: BTreeSet<usize>,
    ) -> Result<(BTreeSet<usize>, Vec<PathBuf>), HostImageError> {
        let mut unowned = Vec::new();
        // A licence file that is added may belong to one more package.
        for _ in 0..8 {
            // The links at the top stand in many packages' lists, as the folders that they once were.
            let kept = |path: &Path, kind: &HostEntryKind| {
                !matches!(kind, HostEntryKind::Directory { .. })
                    && !LINKS_AT_TOP.iter().any(|link| path == Path::new(link))
            };
            let files =
                self.tree.entries.iter().filter(|(path, kind)| kept(path, kind)).map(|(path, _)| path.as_path());
            let owned = dpkg.owners(files)?;
            let is_file = |kind: &HostEntryKind| matches!(kind, HostEntryKind::File { .. });
            let files = self.tree.entries.iter().filter(|(_, kind)| is_file(kind)).map(|(path, _)| path);
            unowned = files.filter(|path| !owned.contains_key(*path)).cloned().collect();
            let before = owners.len();
            owners.extend(owned.into_values().flatten());
            for index in &owners {
                let copyright = Path::new("usr/share/doc").join(&dpkg.packages[*index].name).join("copyright");
                if self.tree.find(&copyright).is_some() {
                    self.tree.add(&copyright)?;
                }
            }
            if owners.len() == before {
                break;
            }
        }
        Ok((owners, unowned))
    }

    /// dpkg's records of the packages that are in the image: what scanners read.
    fn records(&mut self, dpkg: &Dpkg, owners: &BTreeSet<usize>) -> Result<(), HostImageError> {
        let status: String = owners.iter().map(|index| format!("{}\n\n", dpkg.packages[*index].paragraph)).collect();
        self.directories(&["var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info"], 0o755);
        self.tree
            .entries
            .insert("var/lib/dpkg/status".into(), HostEntryKind::Made { bytes: status.into_bytes(), mode: 0o644 });
        for record in
            owners.iter().flat_map(|index| ["list", "md5sums"].map(|kind| dpkg.record(*index, kind))).flatten()
        {
            if let Some(name) = record.file_name() {
                self.tree.add(&Path::new("var/lib/dpkg/info").join(name))?;
            }
        }
        Ok(())
    }

    fn directories(&mut self, paths: &[&str], mode: u32) {
        for path in paths {
            self.tree.make(path, HostEntryKind::Directory { mode });
        }
    }

    fn finish(
        mut self,
        dpkg: &Dpkg,
        owners: &BTreeSet<usize>,
        unowned: Vec<PathBuf>,
    ) -> Result<HostImage, HostImageError> {
        self.directories(&["etc"], 0o755);
        self.directories(&["root"], 0o700);
        self.tree.entries.insert("tmp".into(), HostEntryKind::Directory { mode: 0o1777 });
        for (path, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP)] {
            let made = HostEntryKind::Made { bytes: text.as_bytes().to_vec(), mode: 0o644 };
            self.tree.entries.insert(path.into(), made);
        }
        let bytes = self.tree.entries.values().map(|kind| match kind {
            HostEntryKind::File { size, .. } => *size,
            HostEntryKind::Made { bytes, .. } => bytes.len() as u64,
            HostEntryKind::Directory { .. } | HostEntryKind::Symlink { .. } => 0,
        });
        Ok(HostImage {
            bytes: bytes.sum(),
            entries: self.tree.entries.into_iter().map(|(path, kind)| HostEntry { path, kind }).collect(),
            packages: owners.iter().map(|index| host_package(dpkg, *index)).collect(),
            unowned,
        })
    }
}

impl HostImageError {
    fn read(path: &Path, error: &io::Error) -> Self {
        Self::Io { path: path.to_owned(), reason: error.to_string() }
    }
}

fn host_package(dpkg: &Dpkg, index: usize) -> HostPackage {
    let package = &dpkg.packages[index];
    HostPackage {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
    }
}

fn locate(tree: &Tree, name: &str) -> Result<PathBuf, HostImageError> {
    if name.starts_with('/') {
        return Ok(PathBuf::from(name));
    }
    let found = PROGRAMS.iter().map(|folder| Path::new(folder).join(name)).find(|path| tree.find(path).is_some());
    found
        .filter(|_| !name.is_empty() && !name.contains('/'))
        .ok_or_else(|| HostImageError::NoProgram { name: name.to_owned() })
}

fn is_kept(path: &Path) -> bool {
    let left_out = LEFT_OUT.iter().any(|folder| path.starts_with(folder));
    !left_out || (path.starts_with("usr/share/doc") && path.file_name().is_some_and(|name| name == "copyright"))
}

/// The loader takes the first library of the program's own architecture.
fn fits(found: &Found, elf: &Elf) -> bool {
    let library = File::open(&found.source).and_then(|mut file| elf::read(&mut file));
    library.is_ok_and(|library| library.is_some_and(|library| library.machine == elf.machine))
}

/// The program after `#!`, or after `env` there.
fn script(path: &Path) -> io::Result<Option<String>> {
    let mut start = Vec::new();
    File::open(path)?.take(256).read_to_end(&mut start)?;
    let Some(line) = start.strip_prefix(b"#!").and_then(|rest| rest.split(|byte| *byte == b'\n').next()) else {
        return Ok(None);
    };
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let Some(first) = words.next() else { return Ok(None) };
    let named =
        if first.ends_with("/env") { words.find(|word| !word.starts_with('-') && !word.contains('=')) } else { None };
    Ok(Some(named.unwrap_or(first).to_owned()))
}
