//! Whether a source is, byte for byte, what a commit holds.
//!
//! The project's owner can edit everything in it: its index, its object files, its packs. So nothing is asked that answers from what git
//! remembers of files. The commit and its trees are read by name, each is hashed again before it is believed, and every file is hashed as
//! it lies there, without any filter. Names are SHA-1, as git's are: two files that were made to have the same one are not told apart,
//! except by the SHA-256 digest of the packed source, which is recorded anyway.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
};

use sluicegate_ports::{
    execute::Stop,
    trees::{EntryKind, LastChange, TreeEntry, TreeError},
};

use crate::{
    git_objects::{self, Commit, Kind, MAX_DEPTH, Objects, file_id, object_id},
    source_repository::MAX_GIT_TIME,
};

/// What is compared.
pub(crate) struct Question<'a> {
    /// git, confined, with its environment and before its arguments.
    pub(crate) objects: Command,
    /// The commit's full name.
    pub(crate) commit: &'a str,
    /// Commits whose parents are not here: the ends of a shallow history.
    pub(crate) shallow: &'a BTreeSet<String>,
    /// The source's folder, relative to the root of the work tree.
    pub(crate) below: &'a Path,
    /// The source's folder.
    pub(crate) folder: &'a Path,
    /// What goes into the source, but what is included from elsewhere.
    pub(crate) entries: &'a [TreeEntry],
    /// Tracked files that lie there and never belong to a source.
    pub(crate) left_out: &'a [TreeEntry],
    /// The commit that each submodule has checked out whose folder is in the source, and in no other submodule; what it holds is compared on its own.
    pub(crate) submodules: &'a BTreeMap<PathBuf, String>,
    /// What is included from elsewhere, by its path from the root of the work tree.
    pub(crate) included: &'a [(PathBuf, TreeEntry)],
    pub(crate) stop: &'a Stop,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whether a file differs, is missing, or is in no commit.
    pub(crate) differs: bool,
    /// When what stands at these places was changed last.
    pub(crate) last_change: LastChange,
}

/// Compares the entries with the commit's folder. What the commit has and the source has not counts as a difference, unless it never
/// belongs to a source; then it must still lie there as it was committed.
pub(crate) fn compare(question: Question<'_>) -> Result<Answer, TreeError> {
    let Question { objects, commit, shallow, below, folder, entries, left_out, submodules, included, stop } = question;
    let mut objects = Objects::open(objects, folder, MAX_GIT_TIME, stop)?;
    let read = objects.commit(commit)?;
    let root = read.tree.clone();
    let places: BTreeSet<&Path> = included.iter().map(|(path, _)| path.as_path()).chain([below]).collect();
    let last_change = last_change(&mut objects, (commit, read), shallow, &places)?;
    let differs = Answer { differs: true, last_change };
    for (path, entry) in included {
        if entry_at(&mut objects, &root, path)? != packed(&entry.kind)? {
            return Ok(differs);
        }
    }
    let mut unseen = by_path(entries);
    let mut unseen_submodules: BTreeMap<&Path, &String> =
        submodules.iter().map(|(path, commit)| (path.as_path(), commit)).collect();
    let left_out = by_path(left_out);
    let mut open: Vec<(PathBuf, String, usize)> =
        folder_at(&mut objects, &root, below)?.into_iter().map(|id| (PathBuf::new(), id, 0)).collect();
    while let Some((at, id, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            let reason = format!("more than {MAX_DEPTH} folders in each other");
            return Err(TreeError::Git { path: folder.to_owned(), reason });
        }
        for entry in objects.folder(&id)? {
            let name = git_objects::below(&at, &entry.name);
            match entry.kind {
                // A folder that is gone, or a link now, can't hold what was committed; and only folders that are there are walked, so the
                // work has the size of what lies on the disk, whatever the commit's trees say.
                Kind::Folder if !fs::symlink_metadata(folder.join(&name)).is_ok_and(|there| there.is_dir()) => {
                    return Ok(differs);
                }
                Kind::Folder => open.push((name, entry.id, depth + 1)),
                Kind::Submodule => {
                    if unseen_submodules.remove(name.as_path()) != Some(&entry.id) {
                        return Ok(differs);
                    }
                    unseen.retain(|path, _| !path.starts_with(&name));
                }
                Kind::File { .. } | Kind::Link => {
                    let found = match unseen.remove(name.as_path()).or_else(|| left_out.get(name.as_path()).copied()) {
                        Some(kind) => packed(kind)?,
                        None => None,
                    };
                    if found != Some((entry.kind, entry.id)) {
                        return Ok(differs);
                    }
                }
            }
        }
    }
    Ok(Answer { differs: !unseen.is_empty() || !unseen_submodules.is_empty(), last_change })
}

fn by_path(entries: &[TreeEntry]) -> BTreeMap<&Path, &EntryKind> {
    entries.iter().map(|entry| (entry.path.as_path(), &entry.kind)).collect()
}

/// Commits that are gone back through to find when a source was changed last.
const MAX_COMMITS: usize = 10_000;

/// When the newest commit was made before which something else stood at one of these places. It goes back along first parents, so that a
/// merge counts when it was merged. Unchanged for [`MAX_COMMITS`] commits, or by nobody but a commit without a date: unknown, as where a
/// shallow clone ends; and then it is unknown in the next commit, too, so that it changes with the source and never with the history.
fn last_change(
    objects: &mut Objects<'_>,
    (name, mut commit): (&str, Commit),
    shallow: &BTreeSet<String>,
    places: &BTreeSet<&Path>,
) -> Result<LastChange, TreeError> {
    let at = |objects: &mut Objects<'_>, root: &str| {
        let found = places.iter().map(|place| entry_at(objects, root, place));
        found.collect::<Result<Vec<_>, _>>()
    };
    let stands = at(objects, &commit.tree)?;
    if stands.iter().all(Option::is_none) {
        return Ok(LastChange::Unknown);
    }
    let mut name = name.to_owned();
    for _ in 0..MAX_COMMITS {
        if shallow.contains(&name) {
            return Ok(LastChange::CutOff);
        }
        let dated = commit.time.map_or(LastChange::Unknown, LastChange::At);
        let Some(parent) = commit.parent else { return Ok(dated) };
        // What is not here of the past (there are clones without old trees) only leaves the date open.
        let Ok(before) = objects.commit(&parent) else { return Ok(LastChange::CutOff) };
        match at(objects, &before.tree) {
            Ok(stood) if stood == stands => (name, commit) = (parent, before),
            Ok(_) => return Ok(dated),
            Err(_) => return Ok(LastChange::CutOff),
        }
    }
    Ok(LastChange::Unknown)
}

/// What stands at a path of a commit. The root is a folder.
fn entry_at(objects: &mut Objects<'_>, root: &str, path: &Path) -> Result<Option<(Kind, String)>, TreeError> {
    let Some(name) = path.file_name() else { return Ok(Some((Kind::Folder, root.to_owned()))) };
    let Some(tree) = folder_at(objects, root, path.parent().unwrap_or(Path::new("")))? else { return Ok(None) };
    let found = objects.folder(&tree)?.into_iter().find(|entry| entry.name == name.as_bytes());
    Ok(found.map(|entry| (entry.kind, entry.id)))
}

/// The tree of a folder of a commit; nothing if no folder stands there.
fn folder_at(objects: &mut Objects<'_>, root: &str, path: &Path) -> Result<Option<String>, TreeError> {
    let mut tree = root.to_owned();
    for name in path.components() {
        let mut entries = objects.folder(&tree)?.into_iter();
        match entries.find(|entry| entry.kind == Kind::Folder && entry.name == name.as_os_str().as_bytes()) {
            Some(entry) => tree = entry.id,
            None => return Ok(None),
        }
    }
    Ok(Some(tree))
}

/// What git would call an entry of a source; nothing for what no commit can hold.
fn packed(kind: &EntryKind) -> Result<Option<(Kind, String)>, TreeError> {
    match kind {
        EntryKind::HostFile { source, executable } => {
            Ok(file_id(source)?.map(|id| (Kind::File { executable: *executable }, id)))
        }
        EntryKind::Symlink(target) => Ok(Some((Kind::Link, object_id("blob", target.as_os_str().as_bytes())))),
        _ => Ok(None),
    }
}
