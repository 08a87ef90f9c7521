use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, Metadata},
    io::{ErrorKind, Read},
    os::unix::{
        ffi::OsStringExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Component, Path, PathBuf},
};

use sluicegate_ports::{
    execute::Stop,
    trees::{Checkout, EntryKind, LastChange, SourceLister, SourceTree, TreeEntry, TreeError},
};

use crate::{
    git_objects::Kind,
    plain_file, source_commit,
    source_repository::{self, MAX_IGNORE, Repository, io},
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

/// What never reaches a step, wherever it lies and however it is called there: the home, secrets, keys.
struct Excluded {
    paths: Vec<PathBuf>,
    /// The files among them, by device and number: they may have other names.
    files: BTreeSet<(u64, u64)>,
}

impl Excluded {
    fn new(paths: &[PathBuf]) -> Result<Self, TreeError> {
        let mut excluded = Self { paths: Vec::new(), files: BTreeSet::new() };
        for path in paths {
            let written = std::path::absolute(path).map_err(|source| io("find", path, source))?;
            match fs::canonicalize(path) {
                Ok(real) => {
                    let metadata = fs::symlink_metadata(&real).map_err(|source| io("look at", &real, source))?;
                    if metadata.is_file() {
                        excluded.files.insert((metadata.dev(), metadata.ino()));
                    }
                    excluded.paths.push(real);
                }
                // It may come to be while files are listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(io("find", path, source)),
            }
            excluded.paths.push(written);
        }
        Ok(excluded)
    }

    /// Which of them a path is or lies in.
    fn around(&self, path: &Path) -> Option<&Path> {
        self.paths.iter().find(|no| path.starts_with(no)).map(PathBuf::as_path)
    }

    fn is_same_file(&self, metadata: &Metadata) -> bool {
        metadata.is_file() && self.files.contains(&(metadata.dev(), metadata.ino()))
    }

    fn covers(&self, path: &Path, metadata: &Metadata) -> bool {
        // The folders above are no links, so only what is one itself may lead elsewhere.
        let leads_there =
            || metadata.is_symlink() && fs::canonicalize(path).is_ok_and(|real| self.around(&real).is_some());
        self.around(path).is_some()
            || self.is_same_file(metadata)
            || leads_there()
            || (metadata.is_file() && is_private_key(path))
    }
}

/// The paths that the file of ignored names lists; none where there is no such file.
fn ignored_names(path: &Path) -> Result<BTreeSet<PathBuf>, TreeError> {
    let bytes = match plain_file::read(path, MAX_IGNORE) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(source) => return Err(io("read the list of ignored names", path, source)),
    };
    let text = String::from_utf8(bytes).map_err(|_| TreeError::Entry {
        path: path.to_owned(),
        reason: "the list of ignored names is not UTF-8; write it as UTF-8".to_owned(),
    })?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| PathBuf::from(line.trim_matches('/')))
        .collect())
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

/// Bytes at the beginning of a file that say it is a private key.
const KEY_MARKS: [&[u8]; 2] =
    [b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----", b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----"];

/// Whether these bytes begin as an encrypted signing key of ours or of cosign's does.
pub fn begins_as_private_key(bytes: &[u8]) -> bool {
    KEY_MARKS.iter().any(|mark| bytes.starts_with(mark))
}

/// Whether a file begins as a private key does.
pub(crate) fn is_private_key(path: &Path) -> bool {
    let mut head = [0; 64];
    // What is no regular file, or can't be read, is refused where it is taken into the source.
    let read = plain_file::open(path).and_then(|file| {
        let mut len = 0;
        let mut file = file.take(head.len() as u64);
        loop {
            match file.read(&mut head[len..])? {
                0 => return Ok(len),
                read => len += read,
            }
        }
    });
    read.is_ok_and(|len| begins_as_private_key(&head[..len]))
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
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use tempfile::TempDir;

    use super::*;

    pub(super) fn names(tree: &SourceTree) -> Vec<String> {
        tree.entries.iter().map(|entry| entry.path.display().to_string()).collect()
    }

    pub(super) fn run(folder: &Path, args: &[&str]) {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"];
        let done = Command::new("git").args(identity).args(args).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub(super) fn repository() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/tracked"), "1").unwrap();
        fs::write(folder.path().join(".gitignore"), "ignored\n").unwrap();
        run(folder.path(), &["init", "--quiet"]);
        run(folder.path(), &["add", "--all"]);
        run(folder.path(), &["commit", "--quiet", "--message", "x"]);
        folder
    }

    #[test]
    fn tracked_and_new_files_belong_to_a_source_and_ignored_ones_do_not() {
        let folder = repository();
        let list = || GitSourceLister.list(folder.path(), Path::new("src"), &[]).unwrap();
        let clean = list();
        assert_eq!((names(&clean), clean.dirty), (vec!["tracked".to_owned()], false));
        assert!(clean.commit.is_some() && clean.last_change.seconds().is_some());
        fs::write(folder.path().join("src/ignored"), "2").unwrap();
        assert!(!list().dirty);
        fs::write(folder.path().join("src/new"), "3").unwrap();
        let changed = list();
        assert_eq!((names(&changed), changed.dirty), (vec!["new".to_owned(), "tracked".to_owned()], true));
        fs::remove_file(folder.path().join("src/new")).unwrap();
        fs::write(folder.path().join("src/tracked"), "other").unwrap();
        assert!(list().dirty);
    }

    #[test]
    fn no_program_that_a_repository_names_is_started() {
        let folder = repository();
        let mark = folder.path().join("started");
        let command = format!("touch {}; cat", mark.display());
        for key in [
            "filter.own.clean",
            "filter.own.smudge",
            "filter.own.process",
            "core.fsmonitor",
            "gpg.program",
            "core.pager",
        ] {
            run(folder.path(), &["config", key, &command]);
        }
        run(folder.path(), &["config", "log.showSignature", "true"]);
        fs::write(folder.path().join(".gitattributes"), "* filter=own\n").unwrap();
        fs::write(folder.path().join("src/tracked"), "changed").unwrap();
        let tree = GitSourceLister.list(folder.path(), Path::new("src"), &[]).unwrap();
        assert!(tree.dirty);
        assert!(!mark.exists(), "a program of the repository was started");
        // git itself, with the repository's configuration, starts it.
        drop(Command::new("git").args(["status"]).current_dir(folder.path()).output().unwrap());
        assert!(mark.exists());
    }

    #[test]
    fn a_repository_that_is_committed_as_files_is_not_obeyed() {
        let folder = repository();
        let inner = folder.path().join("src");
        for part in ["objects", "refs"] {
            fs::create_dir(inner.join(part)).unwrap();
            fs::write(inner.join(part).join("kept"), "").unwrap();
        }
        let mark = folder.path().join("started");
        fs::write(inner.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        let filter = format!("[core]\nworktree = .\n[filter \"x\"]\nclean = \"touch {}; cat\"\n", mark.display());
        fs::write(inner.join("config"), filter).unwrap();
        fs::write(inner.join(".gitattributes"), "* filter=x\n").unwrap();
        run(folder.path(), &["add", "--all"]);
        drop(GitSourceLister.list(folder.path(), Path::new("src"), &[]));
        assert!(!mark.exists());
    }

    #[test]
    fn a_broken_repository_is_an_error_and_no_plain_folder() {
        let folder = repository();
        assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_ok());
        fs::write(folder.path().join(".git/HEAD"), "garbage").unwrap();
        assert!(matches!(GitSourceLister.list(folder.path(), Path::new("src"), &[]), Err(TreeError::Git { .. })));
    }

    #[test]
    fn a_folder_that_became_a_link_leads_nowhere() {
        let folder = repository();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("s.txt"), "secret").unwrap();
        fs::create_dir(folder.path().join("src/d")).unwrap();
        fs::write(folder.path().join("src/d/s.txt"), "own").unwrap();
        run(folder.path(), &["add", "--all"]);
        assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_ok());
        fs::remove_dir_all(folder.path().join("src/d")).unwrap();
        symlink(outside.path(), folder.path().join("src/d")).unwrap();
        assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_err());
    }

    #[test]
    fn a_source_stays_in_the_project_and_holds_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/a"), "1").unwrap();
        fs::write(folder.path().join("src/b"), "2").unwrap();
        fs::write(folder.path().join("src/.sluicegateignore"), "# not this\nb\n").unwrap();
        fs::write(folder.path().join("src/x.key"), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n").unwrap();
        fs::write(folder.path().join("src/innocent"), "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\n").unwrap();
        fs::create_dir(folder.path().join("src/home")).unwrap();
        fs::write(folder.path().join("src/home/evidence.db"), "e").unwrap();
        let excluded = [folder.path().join("src/home")];
        let tree = GitSourceLister.list(folder.path(), Path::new("src"), &excluded).unwrap();
        let mut found = names(&tree);
        found.sort();
        assert_eq!(found, [".sluicegateignore", "a"]);
        symlink(outside.path(), folder.path().join("link")).unwrap();
        assert!(GitSourceLister.list(folder.path(), Path::new("link"), &[]).is_err());
        fs::create_dir(folder.path().join("empty")).unwrap();
        assert!(GitSourceLister.list(folder.path(), Path::new("empty"), &[]).is_err());
    }

    #[test]
    fn the_list_of_ignored_names_is_a_plain_file_of_bounded_size() {
        let folder = tempfile::tempdir().unwrap();
        let src = folder.path().join("src");
        fs::create_dir(&src).unwrap();
        fs::write(src.join("a"), "1").unwrap();
        fs::write(src.join("b"), "2").unwrap();
        let list = src.join(IGNORE_FILE);
        let list_it = || GitSourceLister.list(folder.path(), Path::new("src"), &[]).map(|tree| names(&tree));
        let text = |len: u64| format!("b\n#{}", "x".repeat(usize::try_from(len).unwrap() - 3));
        fs::write(&list, text(MAX_IGNORE)).unwrap();
        assert_eq!(names(&listed(folder.path())).len(), 2, "all but b");
        let words = |error: TreeError| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", source.unwrap_or_default())
        };
        fs::write(&list, text(MAX_IGNORE + 1)).unwrap();
        let error = words(list_it().unwrap_err());
        assert!(error.contains(IGNORE_FILE) && error.contains("limit of 1048576 bytes"), "{error}");
        fs::write(&list, b"\xff\n").unwrap();
        assert!(words(list_it().unwrap_err()).contains("not UTF-8"));
        fs::remove_file(&list).unwrap();
        fs::write(folder.path().join("elsewhere"), "b\n").unwrap();
        symlink(folder.path().join("elsewhere"), &list).unwrap();
        assert!(words(list_it().unwrap_err()).contains("a link"));
        fs::remove_file(&list).unwrap();
        // A pipe that nobody writes to: whoever opens it to read waits for ever.
        rustix::fs::mkfifoat(rustix::fs::CWD, &list, rustix::fs::Mode::RUSR).unwrap();
        assert!(words(list_it().unwrap_err()).contains("not a regular file"));
        fs::remove_file(&list).unwrap();
        assert_eq!(names(&listed(folder.path())).len(), 2);
    }

    #[test]
    fn an_index_in_whose_place_a_pipe_stands_is_refused() {
        let folder = repository();
        assert!(!listed(folder.path()).dirty);
        let index = folder.path().join(".git/index");
        fs::remove_file(&index).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &index, rustix::fs::Mode::RUSR).unwrap();
        assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_err());
    }

    pub(super) fn listed(folder: &Path) -> SourceTree {
        GitSourceLister.list(folder, Path::new("src"), &[]).unwrap()
    }

    /// Says in the index that the file, as it lies there now, is the one that was committed.
    fn forge_stat_data(folder: &Path, name: &str) {
        use std::os::unix::fs::MetadataExt;
        let path = folder.join(".git/index");
        let mut index = fs::read(&path).unwrap();
        let at = index.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() - 62;
        let there = fs::symlink_metadata(folder.join(name)).unwrap();
        let stat = [there.ctime(), there.ctime_nsec(), there.mtime(), there.mtime_nsec()].map(|n| n as u32);
        let stat = [&stat[..], &[there.dev() as u32, there.ino() as u32]].concat();
        for (nth, value) in stat.iter().enumerate() {
            index[at + 4 * nth..at + 4 * nth + 4].copy_from_slice(&value.to_be_bytes());
        }
        index[at + 36..at + 40].copy_from_slice(&(there.len() as u32).to_be_bytes());
        let end = index.len() - 20;
        let sum = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &index[..end]);
        index[end..].copy_from_slice(sum.as_ref());
        fs::write(&path, index).unwrap();
        // Later than the file: git then trusts what the index says of it.
        let later = there.modified().unwrap() + std::time::Duration::from_secs(5);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    }

    #[test]
    fn tm11_an_index_that_hides_a_change_hides_it_from_git_and_not_from_us() {
        type Lie = fn(&Path);
        let lies: [(&str, Lie); 3] = [
            ("assume-unchanged", |folder| run(folder, &["update-index", "--assume-unchanged", "src/tracked"])),
            ("skip-worktree", |folder| run(folder, &["update-index", "--skip-worktree", "src/tracked"])),
            ("stat data", |_| {}),
        ];
        for (lie, tell) in lies {
            let folder = repository();
            tell(folder.path());
            assert!(!listed(folder.path()).dirty, "{lie}: nothing changed yet");
            fs::write(folder.path().join("src/tracked"), "in no commit").unwrap();
            if lie == "stat data" {
                forge_stat_data(folder.path(), "src/tracked");
            }
            let status = Command::new("git").args(["status", "--short"]).current_dir(folder.path()).output().unwrap();
            assert!(status.status.success() && status.stdout.is_empty(), "{lie}: git itself sees it");
            let tree = listed(folder.path());
            assert_eq!((names(&tree), tree.dirty), (vec!["tracked".to_owned()], true), "{lie}");
            fs::write(folder.path().join("src/tracked"), "1").unwrap();
            assert!(!listed(folder.path()).dirty, "{lie}: it is as it was committed");
        }
    }

    #[test]
    fn tm11_a_sparse_checkout_hides_no_file_that_lies_there() {
        let folder = repository();
        fs::create_dir_all(folder.path().join("src/deep/er")).unwrap();
        fs::write(folder.path().join("src/deep/er/file"), "2").unwrap();
        run(folder.path(), &["add", "--all"]);
        run(folder.path(), &["commit", "--quiet", "--message", "deep"]);
        assert!(!listed(folder.path()).dirty);
        run(folder.path(), &["sparse-checkout", "set", "--cone", "--sparse-index", "other"]);
        assert!(!folder.path().join("src").exists(), "git took them away");
        fs::create_dir_all(folder.path().join("src/deep/er")).unwrap();
        fs::write(folder.path().join("src/deep/er/file"), "2").unwrap();
        let missing = listed(folder.path());
        assert_eq!((names(&missing), missing.dirty), (vec!["deep/er/file".to_owned()], true));
        fs::write(folder.path().join("src/tracked"), "1").unwrap();
        let whole = listed(folder.path());
        assert_eq!((names(&whole).len(), whole.dirty), (2, false));
        fs::write(folder.path().join("src/deep/er/file"), "3").unwrap();
        assert!(listed(folder.path()).dirty);
    }

    #[test]
    fn tm11_what_is_staged_missing_or_of_another_kind_is_a_change() {
        let folder = repository();
        let (src, tracked) = (folder.path().join("src"), folder.path().join("src/tracked"));
        symlink("tracked", src.join("link")).unwrap();
        run(folder.path(), &["add", "--all"]);
        assert!(listed(folder.path()).dirty, "staged and in no commit");
        run(folder.path(), &["commit", "--quiet", "--message", "link"]);
        assert!(!listed(folder.path()).dirty);
        // Out of the index, ignored, and so out of the source: less than was committed.
        run(folder.path(), &["rm", "--quiet", "--cached", "src/tracked"]);
        assert!(!listed(folder.path()).dirty, "it still belongs to the source, as it was committed");
        fs::write(folder.path().join(".git/info/exclude"), "tracked\n").unwrap();
        let less = listed(folder.path());
        assert_eq!((names(&less), less.dirty), (vec!["link".to_owned()], true));
        fs::write(folder.path().join(".git/info/exclude"), "").unwrap();
        fs::set_permissions(&tracked, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(listed(folder.path()).dirty, "executable");
        fs::set_permissions(&tracked, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!listed(folder.path()).dirty);
        fs::remove_file(src.join("link")).unwrap();
        assert!(listed(folder.path()).dirty, "missing");
        symlink("elsewhere", src.join("link")).unwrap();
        assert!(listed(folder.path()).dirty, "another target");
        fs::remove_file(src.join("link")).unwrap();
        fs::write(src.join("link"), "tracked").unwrap();
        assert!(listed(folder.path()).dirty, "a file with the link's bytes");
        fs::remove_file(src.join("link")).unwrap();
        symlink("tracked", src.join("link")).unwrap();
        assert!(!listed(folder.path()).dirty);
        // What looks like a key never goes into a source; the committed file is missing there then.
        fs::write(&tracked, "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n").unwrap();
        let key = listed(folder.path());
        assert_eq!((names(&key), key.dirty), (vec!["link".to_owned()], true));
    }

    #[test]
    fn tm11_an_object_with_another_ones_name_is_not_believed() {
        let folder = repository();
        let ask = |args: &[&str]| {
            let out = Command::new("git").args(args).current_dir(folder.path()).output().unwrap();
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        };
        let path = |id: &str| folder.path().join(".git/objects").join(&id[..2]).join(&id[2..]);
        let honest = ask(&["rev-parse", "HEAD:src"]);
        fs::write(folder.path().join("src/tracked"), "in no commit").unwrap();
        run(folder.path(), &["add", "--all"]);
        let root = ask(&["write-tree"]);
        let forged = ask(&["rev-parse", &format!("{root}:src")]);
        assert!(listed(folder.path()).dirty);
        fs::remove_file(path(&honest)).unwrap();
        fs::copy(path(&forged), path(&honest)).unwrap();
        let error = GitSourceLister.list(folder.path(), Path::new("src"), &[]).unwrap_err().to_string();
        assert!(error.contains(&honest), "{error}");
    }

    #[test]
    fn a_commit_has_its_own_date_and_without_one_a_source_has_changes() {
        let folder = repository();
        let date = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(folder.path()).output().unwrap();
        let date: u64 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
        assert_eq!(listed(folder.path()).last_change, LastChange::At(date));
        fs::remove_dir_all(folder.path().join(".git")).unwrap();
        let none = listed(folder.path());
        assert_eq!((none.commit, none.dirty, none.last_change), (None, true, LastChange::Unknown));
        run(folder.path(), &["init", "--quiet"]);
        let unborn = listed(folder.path());
        assert_eq!((unborn.commit, unborn.dirty, unborn.last_change), (None, true, LastChange::Unknown));
    }

    #[test]
    fn a_source_is_as_old_as_the_commit_that_changed_it_last() {
        let folder = repository();
        let commit = |path: &str, text: &str, seconds: u64| {
            fs::write(folder.path().join(path), text).unwrap();
            run(folder.path(), &["add", "--all"]);
            commit_at(folder.path(), seconds);
        };
        let last = || listed(folder.path()).last_change;
        commit("src/tracked", "first of its own", 100_000_000);
        commit("beside", "another", 200_000_000);
        assert_eq!(last(), LastChange::At(100_000_000), "a commit that changes something else");
        let including = |path: &str| {
            GitSourceLister
                .list_including(folder.path(), Path::new("src"), &[PathBuf::from(path)], &[], &Stop::default())
                .unwrap()
                .last_change
        };
        assert_eq!(including("../beside"), LastChange::At(200_000_000), "unless it is included");
        fs::write(folder.path().join("src/tracked"), "in no commit").unwrap();
        assert_eq!(last(), LastChange::At(100_000_000), "what is in no commit has no date");
        commit("src/tracked", "two", 300_000_000);
        assert_eq!(last(), LastChange::At(300_000_000));
        run(folder.path(), &["checkout", "--quiet", "-b", "side"]);
        commit("src/tracked", "of the side", 400_000_000);
        run(folder.path(), &["checkout", "--quiet", "-"]);
        commit("beside", "and one more", 500_000_000);
        run(folder.path(), &["merge", "--quiet", "--no-commit", "--no-ff", "side"]);
        commit_at(folder.path(), 600_000_000);
        assert_eq!(last(), LastChange::At(600_000_000), "what was merged changed when it was merged");
        // A clone without the past.
        commit("beside", "later", 700_000_000);
        let clone = tempfile::tempdir().unwrap();
        let from = format!("file://{}", folder.path().display());
        run(clone.path(), &["clone", "--quiet", "--depth", "1", &from, "."]);
        assert_eq!(listed(clone.path()).last_change, LastChange::CutOff);
        run(clone.path(), &["fetch", "--quiet", "--depth", "2"]);
        assert_eq!(
            listed(clone.path()).last_change,
            LastChange::CutOff,
            "the first of what is here may not have changed it"
        );
        run(clone.path(), &["fetch", "--quiet", "--unshallow"]);
        assert_eq!(listed(clone.path()).last_change, LastChange::At(600_000_000));
    }

    fn commit_at(folder: &Path, seconds: u64) {
        let date = format!("{seconds} +0000");
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "x"]);
        let git = git.env("GIT_COMMITTER_DATE", &date).env("GIT_AUTHOR_DATE", &date).current_dir(folder);
        let done = git.output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    #[test]
    fn a_commit_is_dated_no_later_than_a_time_can_be_written() {
        let folder = repository();
        let own = folder.path().join("commit");
        let dated = |seconds: i64| {
            let tree =
                Command::new("git").args(["rev-parse", "HEAD^{tree}"]).current_dir(folder.path()).output().unwrap();
            let tree = String::from_utf8(tree.stdout).unwrap();
            let who = format!("t <t@example.org> {seconds} +0000");
            fs::write(&own, format!("tree {}\nauthor {who}\ncommitter {who}\n\nx\n", tree.trim())).unwrap();
            let made = ["hash-object", "-t", "commit", "-w", "--literally", "commit"];
            let made = Command::new("git").args(made).current_dir(folder.path()).output().unwrap();
            let made = String::from_utf8(made.stdout).unwrap();
            run(folder.path(), &["update-ref", "HEAD", made.trim()]);
            GitSourceLister.list(folder.path(), Path::new("src"), &[]).map(|tree| tree.last_change)
        };
        let last = sluicegate_types::UnixTime::LAST.seconds();
        assert_eq!(dated(last).unwrap(), LastChange::At(last.unsigned_abs()));
        let error = dated(last + 1).unwrap_err().to_string();
        assert!(error.contains("dated after 9999-12-29T23:59:59Z"), "{error}");
    }

    #[test]
    fn a_source_of_ten_thousand_files_in_many_folders_is_compared_whole() {
        let folder = repository();
        for at in 0..100 {
            let inner = folder.path().join(format!("src/{at}"));
            fs::create_dir(&inner).unwrap();
            (0..100).for_each(|nth| fs::write(inner.join(nth.to_string()), format!("{at} {nth}")).unwrap());
        }
        run(folder.path(), &["add", "--all"]);
        run(folder.path(), &["commit", "--quiet", "--message", "many"]);
        let tree = listed(folder.path());
        assert_eq!((tree.entries.len(), tree.dirty), (10_001, false));
        fs::write(folder.path().join("src/77/77"), "77 78").unwrap();
        assert!(listed(folder.path()).dirty);
    }
}
