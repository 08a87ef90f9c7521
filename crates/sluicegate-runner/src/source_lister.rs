mod excluded;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
    path::{Component, Path, PathBuf},
};

use sluicegate_ports::{
    execute::Stop,
    trees::{Checkout, EntryKind, LastChange, SourceLister, SourceTree, TreeEntry, TreeError},
};

use self::excluded::{Excluded, ignored_names};
use crate::{
    git_objects::Kind,
    plain_file,
    private_key::is_private_key,
    source_commit,
    source_repository::{self, Repository, io},
};

/// Files of one source.
pub(crate) const MAX_FILES: usize = 1_000_000;
/// Submodules in submodules.
const MAX_SUBMODULE_DEPTH: usize = 16;
/// Bytes of a symbolic link's target.
pub(crate) const MAX_LINK: u64 = 4096;
/// The file that names what is no source, outside git: one path a line, relative, `#` begins a comment.
const IGNORE_FILE: &str = ".sluicegateignore";

/// Lists source trees with the `git` program, or by walking where there is no git work tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct GitSourceLister;

impl SourceLister for GitSourceLister {
    fn checkout(&self, folder: &Path) -> Result<Checkout, TreeError> {
        let folder = fs::canonicalize(folder).map_err(|source| io("find", folder, source))?;
        source_repository::checkout(&folder)
    }

    fn list_including(
        &self,
        project: &Path,
        folder: &Path,
        include: &[PathBuf],
        excluded: &[PathBuf],
        stop: &Stop,
    ) -> Result<SourceTree, TreeError> {
        let listed = Self::list_until(project, folder, include, excluded, stop);
        // Whatever a git said that was stopped.
        listed.map_err(|error| if stop.is_raised() { TreeError::Stopped } else { error })
    }
}

impl GitSourceLister {
    fn list_until(
        project: &Path,
        folder: &Path,
        include: &[PathBuf],
        excluded: &[PathBuf],
        stop: &Stop,
    ) -> Result<SourceTree, TreeError> {
        let real = |path: &Path| fs::canonicalize(path).map_err(|source| io("find", path, source));
        let project = real(project)?;
        let written = without_dots(&project.join(folder));
        let folder = real(&project.join(folder))?;
        if !folder.starts_with(&project) {
            let reason = format!("a link leads it out of {}, where the pipeline file stands", project.display());
            return Err(TreeError::Entry { path: folder, reason });
        }
        let excluded = Excluded::new(excluded)?;
        if let Some(inside) = excluded.around(&folder) {
            let reason = format!("it lies in {}, which is never a source", inside.display());
            return Err(TreeError::Entry { path: folder, reason });
        }
        let repository = Repository::around(&folder, stop)?;
        let mut tree = match &repository {
            Some(repository) => in_git(repository, &folder, &excluded, 0)?,
            None => from_walk(&folder, &excluded, stop)?,
        };
        let included = included(&project, &folder, include, &excluded, repository.as_ref(), &tree.entries)?;
        if tree.entries.is_empty() && included.is_empty() {
            // A step would only find out in its own words, and a pipeline of nothing proves nothing.
            let why = if repository.is_some() {
                "no file belongs to this source: git ignores all of it"
            } else {
                "no file belongs to this source"
            };
            return Err(TreeError::Entry { path: folder, reason: why.to_owned() });
        }
        if let Some(repository) = &repository {
            compare(repository, &folder, &mut tree, &included)?;
        }
        // What a link leads to is not what the commit holds at the name that the pipeline file gives.
        let through_link = written != folder || included.iter().any(|included| included.through_link);
        tree.entries.extend(included.into_iter().map(|included| included.entry));
        Ok(SourceTree {
            entries: tree.entries,
            commit: repository.and_then(|repository| repository.head),
            dirty: tree.dirty || through_link,
            last_change: tree.last_change,
            submodules: tree.submodules,
        })
    }
}

/// What was found in a folder.
struct Listed {
    entries: Vec<TreeEntry>,
    /// Tracked files that lie there and are no source.
    left_out: Vec<TreeEntry>,
    /// The submodules in it, however deep, and the commit that each has checked out.
    submodules: BTreeMap<PathBuf, String>,
    /// Those that lie in no other.
    own_submodules: BTreeMap<PathBuf, String>,
    /// Whether anything is known to differ from what was committed.
    dirty: bool,
    last_change: LastChange,
}

/// A file from outside a source's folder.
struct Included {
    /// Where it is, links followed.
    path: PathBuf,
    entry: TreeEntry,
    through_link: bool,
}

/// What git lists in a folder, and in the submodules there. Only those are compared with their commits already.
fn in_git(repository: &Repository, folder: &Path, excluded: &Excluded, depth: usize) -> Result<Listed, TreeError> {
    let mut names: BTreeMap<PathBuf, Option<Kind>> =
        repository.untracked(folder)?.into_iter().map(|name| (name, None)).collect();
    names.extend(repository.tracked(folder, Path::new("."))?.into_iter().map(|(name, kind)| (name, Some(kind))));
    let mut listed = Listed::new(false);
    let mut files = Files { folder, excluded, repository: Some(repository), seen: BTreeSet::new() };
    for (name, tracked) in names {
        match files.find(&name, tracked)? {
            Found::Entry(entry) => listed.entries.push(entry),
            Found::LeftOut(entry) => listed.left_out.extend(entry.filter(|_| tracked.is_some())),
            // A tracked file that was deleted is no source any more; the tree is dirty then.
            Found::Nothing => {}
            Found::Folder if tracked == Some(Kind::Submodule) => {
                let (head, of_submodule) = submodule(&folder.join(&name), excluded, depth, &repository.stop)?;
                listed.add_submodule(&name, head, of_submodule);
            }
            Found::Folder => {
                let reason = "it is a repository of its own that git does not track here; make it a submodule, or let git ignore it";
                return Err(TreeError::Entry { path: folder.join(&name), reason: reason.to_owned() });
            }
        }
        listed.check_count(folder)?;
    }
    Ok(listed)
}

/// What a submodule holds, compared with the commit that it has checked out, and that commit.
fn submodule(folder: &Path, excluded: &Excluded, depth: usize, stop: &Stop) -> Result<(String, Listed), TreeError> {
    let fault = |reason: String| TreeError::Entry { path: folder.to_owned(), reason };
    if depth >= MAX_SUBMODULE_DEPTH {
        return Err(fault(format!("more than {MAX_SUBMODULE_DEPTH} submodules in each other")));
    }
    if fs::symlink_metadata(folder.join(".git")).is_err() {
        let reason =
            "the submodule is not checked out, so its files are missing; git submodule update --init --recursive";
        return Err(fault(reason.to_owned()));
    }
    let repository = Repository::around(folder, stop)?.filter(|repository| repository.work_tree == folder);
    let repository = repository.ok_or_else(|| fault("the submodule's .git leads to another work tree".to_owned()))?;
    let head = repository.head.clone().ok_or_else(|| fault("the submodule has no commit".to_owned()))?;
    let mut listed = in_git(&repository, folder, excluded, depth + 1)?;
    compare(&repository, folder, &mut listed, &[])?;
    Ok((head, listed))
}

/// Says whether what was found is what the commit holds that is checked out.
fn compare(
    repository: &Repository,
    folder: &Path,
    listed: &mut Listed,
    included: &[Included],
) -> Result<(), TreeError> {
    let Some(commit) = &repository.head else {
        listed.dirty = true;
        return Ok(());
    };
    let mut by_path = Vec::new();
    for included in included {
        match included.path.strip_prefix(&repository.work_tree) {
            Ok(path) => by_path.push((path.to_owned(), included.entry.clone())),
            // It is of no repository, or of another one.
            Err(_) => listed.dirty = true,
        }
    }
    let answer = source_commit::compare(source_commit::Question {
        objects: repository.command(folder),
        commit,
        shallow: &repository.shallow,
        below: folder.strip_prefix(&repository.work_tree).unwrap_or(folder),
        folder,
        entries: &listed.entries,
        left_out: &listed.left_out,
        submodules: &listed.own_submodules,
        included: &by_path,
        stop: &repository.stop,
    })?;
    listed.dirty |= answer.differs;
    listed.last_change = answer.last_change;
    Ok(())
}

fn from_walk(folder: &Path, excluded: &Excluded, stop: &Stop) -> Result<Listed, TreeError> {
    let ignored = ignored_names(&folder.join(IGNORE_FILE))?;
    let mut listed = Listed::new(true);
    let mut files = Files { folder, excluded, repository: None, seen: BTreeSet::new() };
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        if stop.is_raised() {
            return Err(TreeError::Stopped);
        }
        let path = folder.join(&at);
        for child in fs::read_dir(&path).map_err(|source| io("list", &path, source))? {
            let name = at.join(child.map_err(|source| io("list", &path, source))?.file_name());
            if name.file_name() == Some(OsStr::new(".git")) || ignored.contains(&name) {
                continue;
            }
            match files.find(&name, None)? {
                Found::Entry(entry) => listed.entries.push(entry),
                Found::Folder => open.push(name),
                // Something took it away after it was listed.
                Found::Nothing | Found::LeftOut(_) => {}
            }
            listed.check_count(folder)?;
        }
    }
    Ok(listed)
}

/// Looks for what a source includes from outside its folder.
fn included(
    project: &Path,
    folder: &Path,
    include: &[PathBuf],
    excluded: &Excluded,
    repository: Option<&Repository>,
    entries: &[TreeEntry],
) -> Result<Vec<Included>, TreeError> {
    if include.is_empty() {
        return Ok(Vec::new());
    }
    let mut at_the_top: BTreeSet<&OsStr> = entries.iter().filter_map(|entry| entry.path.iter().next()).collect();
    let mut out = Vec::new();
    for path in include {
        let written = without_dots(&folder.join(path));
        let fault = |reason: String| TreeError::Entry { path: path.clone(), reason };
        let name = path.file_name().ok_or_else(|| fault("it names no file".to_owned()))?;
        let real = fs::canonicalize(&written).map_err(|source| io("find the included file", &written, source))?;
        if path.is_absolute() || !written.starts_with(project) || !real.starts_with(project) {
            return Err(fault(format!("it is not in {}, where the pipeline file stands", project.display())));
        }
        if real.components().chain(path.components()).any(|part| part.as_os_str() == ".git") {
            return Err(fault("what is in .git is never a source".to_owned()));
        }
        let metadata = fs::symlink_metadata(&real).map_err(|source| io("look at", &real, source))?;
        if !metadata.is_file() {
            return Err(fault("it is not a plain file; only files can be included".to_owned()));
        }
        if let Some(no) = excluded.around(&real) {
            return Err(fault(format!("it lies in {}, which is never a source", no.display())));
        }
        if excluded.is_same_file(&metadata) {
            return Err(fault("it is a file that is never a source, by another name".to_owned()));
        }
        if is_private_key(&real) {
            return Err(fault("it is a private key, which is never a source".to_owned()));
        }
        if !at_the_top.insert(name) {
            let reason = format!("there is another {} at the top of the source", Path::new(name).display());
            return Err(fault(reason));
        }
        let executable = match repository.filter(|repository| !repository.has_execute_bits) {
            None => is_executable(&metadata),
            Some(repository) => match real.strip_prefix(&repository.work_tree) {
                Ok(below) => {
                    let tracked = repository.tracked(&repository.work_tree, below)?;
                    tracked.get(below) == Some(&Kind::File { executable: true })
                }
                Err(_) => false,
            },
        };
        let through_link = written != real;
        let kind = EntryKind::HostFile { source: real.clone(), executable };
        out.push(Included { path: real, entry: TreeEntry { path: PathBuf::from(name), kind }, through_link });
    }
    Ok(out)
}

/// The files of a folder, one by one.
struct Files<'a> {
    folder: &'a Path,
    excluded: &'a Excluded,
    repository: Option<&'a Repository>,
    /// Folders that were looked at, and are folders.
    seen: BTreeSet<PathBuf>,
}

enum Found {
    Entry(TreeEntry),
    /// It never belongs to a source; what it would be as one, if it is a file or link.
    LeftOut(Option<TreeEntry>),
    Folder,
    Nothing,
}

impl Files<'_> {
    /// What stands at a name, and as what it belongs to the source; an error for what can't.
    fn find(&mut self, name: &Path, tracked: Option<Kind>) -> Result<Found, TreeError> {
        let path = self.folder.join(name);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // In the second case a file stands where there was a folder.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Found::Nothing);
            }
            Err(source) => return Err(io("look at", &path, source)),
        };
        if self.excluded.around(&path).is_none() {
            self.check_folders_above(name)?;
        }
        let out = self.excluded.covers(&path, &metadata);
        let kind = if metadata.is_dir() {
            return Ok(if out { Found::LeftOut(None) } else { Found::Folder });
        } else if metadata.is_symlink() {
            EntryKind::Symlink(fs::read_link(&path).map_err(|source| io("read the link", &path, source))?)
        } else if !metadata.is_file() {
            if out {
                return Ok(Found::LeftOut(None));
            }
            let reason = "neither a file, a link nor a folder: it can't be a source";
            return Err(TreeError::Entry { path, reason: reason.to_owned() });
        } else if tracked == Some(Kind::Link) && self.repository.is_some_and(|repository| !repository.has_links) {
            EntryKind::Symlink(target_in(&path)?)
        } else {
            let executable = match (self.repository, tracked) {
                (Some(repository), tracked) if !repository.has_execute_bits => {
                    tracked == Some(Kind::File { executable: true })
                }
                _ => is_executable(&metadata),
            };
            EntryKind::HostFile { source: path, executable }
        };
        let entry = TreeEntry { path: name.to_owned(), kind };
        Ok(if out { Found::LeftOut(Some(entry)) } else { Found::Entry(entry) })
    }

    /// git may still list what stood in a folder that is a link now: what it leads to is not of this source.
    fn check_folders_above(&mut self, name: &Path) -> Result<(), TreeError> {
        for above in name.ancestors().skip(1).filter(|above| *above != Path::new("")) {
            if self.seen.contains(above) {
                break;
            }
            let path = self.folder.join(above);
            if !fs::symlink_metadata(&path).map_err(|source| io("look at", &path, source))?.is_dir() {
                let reason = format!("{} is a link: what lies behind it is no part of this source", above.display());
                return Err(TreeError::Entry { path: self.folder.join(name), reason });
            }
        }
        // Only once all of them are folders.
        for above in name.ancestors().skip(1) {
            if !self.seen.insert(above.to_owned()) {
                break;
            }
        }
        Ok(())
    }
}

impl Listed {
    fn new(dirty: bool) -> Self {
        Self {
            entries: Vec::new(),
            left_out: Vec::new(),
            submodules: BTreeMap::new(),
            own_submodules: BTreeMap::new(),
            dirty,
            last_change: LastChange::Unknown,
        }
    }

    fn add_submodule(&mut self, at: &Path, head: String, listed: Self) {
        self.entries
            .extend(listed.entries.into_iter().map(|entry| TreeEntry { path: at.join(&entry.path), kind: entry.kind }));
        self.submodules.extend(listed.submodules.into_iter().map(|(path, head)| (at.join(path), head)));
        self.submodules.insert(at.to_owned(), head.clone());
        self.own_submodules.insert(at.to_owned(), head);
        self.dirty |= listed.dirty;
    }

    fn check_count(&self, folder: &Path) -> Result<(), TreeError> {
        if self.entries.len().saturating_add(self.left_out.len()) > MAX_FILES {
            return Err(TreeError::Entry { path: folder.to_owned(), reason: format!("more than {MAX_FILES} files") });
        }
        Ok(())
    }
}

/// The target of a link that lies there as a file, because its file system keeps no links.
fn target_in(path: &Path) -> Result<PathBuf, TreeError> {
    let target = plain_file::read(path, MAX_LINK).map_err(|source| io("read the link", path, source))?;
    link_target(target).ok_or_else(|| TreeError::Entry {
        path: path.to_owned(),
        reason: "git tracks it as a link, and its text is no path".to_owned(),
    })
}

/// The target that these bytes say.
pub(crate) fn link_target(bytes: Vec<u8>) -> Option<PathBuf> {
    let usable = !bytes.is_empty() && bytes.len() as u64 <= MAX_LINK && !bytes.contains(&0);
    usable.then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// As git sees it: the owner's bit alone counts.
fn is_executable(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o100 != 0
}

/// The same path without `.` and `..`, as it is written: no link is followed.
fn without_dots(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod awkward_trees;

#[cfg(test)]
mod tests;
