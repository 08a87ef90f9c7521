//! File trees: listing a source, packing entries into a deterministic tar.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

pub use sluicegate_attestation::output_sbom::{FileEntry, ITSELF};
use sluicegate_types::{Content, Digest};

use crate::{
    execute::{Layer, Stop},
    store::StoreError,
};

/// Files that one content may be listed with.
pub const MAX_FILES: usize = 100_000;

/// Packs entries into a deterministic uncompressed tar in the content store, and lists what such content holds.
pub trait TreePacker: Send + Sync {
    /// Packs exactly these entries, sorted by path: user and group 0, one mtime, missing parent folders added with mode 0755. The same
    /// entries give the same bytes on every machine.
    fn pack(&self, entries: Vec<TreeEntry>, epoch: u64) -> Result<(Digest, u64), TreeError>;

    /// Writes stored content, every byte hashed again, to a path of this machine where nothing stands yet: a file or a folder of whoever
    /// runs this. If it fails, nothing stands there.
    fn unpack(&self, content: Content, executable: bool, to: &Path) -> Result<(), TreeError>;

    /// Packs these entries as the layer that goes onto `below`, the layers of an image, lowest first. Links of the image on the way to an
    /// entry are followed inside the root and never replaced; a folder that the image has keeps owner, mode and time; what is new of a
    /// way is 0755 and root's. A folder of the image is not replaced by something else, and a file is no folder: both are errors of the
    /// entry. [`TreeError::Layer`] if a layer can't be read or is not the one of its digest.
    fn pack_onto(&self, entries: Vec<TreeEntry>, epoch: u64, below: &[Layer]) -> Result<(Digest, u64), TreeError>;

    /// Every regular file of stored content with its SHA-256 and size, sorted by path: a file is listed as [`ITSELF`], a directory's
    /// files by their paths in it, a hard link as the file that it leads to. Bytes of a path that are not UTF-8 are written `\xNN`.
    /// Symbolic links and folders are no files. An error if the content is missing or damaged or is no tree of ours;
    /// [`TreeError::TooMany`] if it has more than [`MAX_FILES`].
    fn files(&self, content: Content) -> Result<Vec<FileEntry>, TreeError>;

    /// The kind of machine that each program of stored content is for, by its path as in [`TreePacker::files`]: `e_machine` of the header
    /// of every ELF file that is a program or a shared library (System V ABI, "ELF Header"). What is none is not in the list. The same
    /// errors.
    fn elf_machines(&self, content: Content) -> Result<BTreeMap<String, u16>, TreeError>;
}

/// Lists what belongs to a source tree.
pub trait SourceLister: Send + Sync {
    /// Inside a git work tree: tracked files and untracked ones that git does not ignore, and those of submodules. Elsewhere: every file
    /// that `.sluicegateignore` does not name. `.git` and `excluded` files and folders (the home, keys, secrets) never belong to it.
    /// `folder` is relative to `project` and must lie in it, links followed.
    ///
    /// Each file of `include`, relative to `folder`, stands under its own name at the top beside them: a plain file in the project,
    /// links followed, that may be a source itself. One whose name stands there already is an error.
    ///
    /// [`TreeError::Stopped`] once `stop` is raised.
    fn list_including(
        &self,
        project: &Path,
        folder: &Path,
        include: &[PathBuf],
        excluded: &[PathBuf],
        stop: &Stop,
    ) -> Result<SourceTree, TreeError>;

    /// What is checked out around a folder, by what the repository's own HEAD says: whoever may write there may say another name.
    fn checkout(&self, folder: &Path) -> Result<Checkout, TreeError>;

    /// The same as [`Self::list_including`] with nothing beside what is in the folder, to its end.
    fn list(&self, project: &Path, folder: &Path, excluded: &[PathBuf]) -> Result<SourceTree, TreeError> {
        self.list_including(project, folder, &[], excluded, &Stop::default())
    }
}

/// What is checked out in a git work tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkout {
    /// It is none.
    Nothing,
    /// A commit, and no branch.
    Commit(String),
    /// A branch, by its full name; it may have no commit yet.
    Branch(String),
}

/// Fetches the source of a commit from where it is published.
pub trait SourceFetcher: Send + Sync {
    /// The files of the commit that `reference` (a branch, a tag, or a commit with all its digits) names in the repository at `url`
    /// now: as the commit holds them, without any filter, each compared with the name that the commit gives its bytes.
    /// [`TreeError::Stopped`] once `stop` is raised, however long the other side would take.
    fn fetch(&self, url: &str, reference: &str, stop: &Stop) -> Result<FetchedSource, TreeError>;
}

/// An entry of a tar to be.
#[derive(Clone, Debug)]
pub struct TreeEntry {
    /// Relative to the tree's root, without `.` and `..`.
    pub path: PathBuf,
    /// What stands there.
    pub kind: EntryKind,
}

/// What stands at a path.
#[derive(Clone, Debug)]
pub enum EntryKind {
    /// A folder with this mode.
    Directory(u32),
    /// A file of this machine, read when packed; mode 0755 if executable, else 0644.
    HostFile {
        /// Where it is.
        source: PathBuf,
        /// Whether it can be executed.
        executable: bool,
    },
    /// A file of a commit as it was fetched onto this machine, read when packed. It is an error if its bytes are not, or no longer, those
    /// that the commit names; mode as of a host file.
    GitBlob {
        /// Where it is.
        source: PathBuf,
        /// Its SHA-1 name as a git blob, in lower-case hexadecimal.
        id: String,
        /// Whether it can be executed.
        executable: bool,
    },
    /// These bytes, with this mode.
    Bytes(Vec<u8>, u32),
    /// A symbolic link to this target, kept as it is.
    Symlink(PathBuf),
    /// Content of the store: a file, or a directory whose every entry is put below the path.
    Stored {
        /// The content.
        content: Content,
        /// Whether a file can be executed.
        executable: bool,
    },
}

/// What belongs to a source.
#[derive(Clone, Debug)]
pub struct SourceTree {
    /// Its entries, relative to the source's folder.
    pub entries: Vec<TreeEntry>,
    /// The commit that is checked out, in a git work tree.
    pub commit: Option<String>,
    /// Whether these entries are anything else than what that commit holds in this folder, or there is no commit. Only bytes, names and
    /// modes count; what an index says does not.
    pub dirty: bool,
    /// When it was changed last, as far as the commits say. Changes that are in no commit have no date.
    pub last_change: LastChange,
    /// The submodules whose files are among the entries, by their folder, with the commit that each has checked out.
    pub submodules: BTreeMap<PathBuf, String>,
}

/// When a source was changed last: the date of a commit in seconds. It must depend on nothing but how the source came to be, for it
/// becomes part of what steps see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastChange {
    /// The date of the newest commit that changed it.
    At(u64),
    /// Nothing says it: there are no commits, or too many since.
    Unknown,
    /// The history here ends before that commit, as in a shallow clone.
    CutOff,
}

impl LastChange {
    /// The date, where it is known.
    pub fn seconds(self) -> Option<u64> {
        match self {
            Self::At(seconds) => Some(seconds),
            Self::Unknown | Self::CutOff => None,
        }
    }
}

/// What a commit holds, fetched by us.
#[derive(Clone, Debug)]
pub struct FetchedSource {
    /// The commit, with all its digits: what the reference named, resolved.
    pub commit: String,
    /// The full name of the branch or tag that named it; the commit itself where that was asked for.
    pub reference: String,
    /// The commit's date in seconds.
    pub commit_time: u64,
    /// Its files and links.
    pub entries: Vec<TreeEntry>,
}

/// Why a tree can't be listed or packed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It was stopped from outside.
    #[error("it was stopped")]
    Stopped,
    /// A file that can't be part of a tree.
    #[error("{path}: {reason}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A layer of an image that can't be read as what it is called.
    #[error("the layer {layer}: {reason}")]
    Layer {
        /// The blob.
        layer: Digest,
        /// Why not.
        reason: String,
    },
    /// More files than a list may have.
    #[error("{path}: more than {limit} files")]
    TooMany {
        /// The content.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// git failed.
    #[error("git in {path}: {reason}")]
    Git {
        /// The folder.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// What a source is to be fetched from can't be asked for.
    #[error("the git source {url}: {reason}")]
    Address {
        /// The address, without what may be a password.
        url: String,
        /// Why not.
        reason: String,
    },
    /// What a source is to be fetched at is no reference there.
    #[error("the git source {url}: {reason}")]
    Reference {
        /// The address, without what may be a password.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A source could not be fetched.
    #[error("cannot fetch the git source {url}: {reason}")]
    Fetch {
        /// The address.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The content store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file system.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
