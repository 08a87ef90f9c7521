//! Whether a source is, byte for byte, what a commit holds.
//!
//! The project's owner can edit everything in it: its index, its object files, its packs. So nothing is asked that answers from what git
//! remembers of files. The commit and its trees are read by name, each is hashed again before it is believed, and every file is hashed as
//! it lies there, without any filter. Names are SHA-1, as git's are: two files that were made to have the same one are not told apart,
//! except by the SHA-256 digest of the packed source, which is recorded anyway.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use sluicegate_ports::trees::{EntryKind, TreeEntry, TreeError};
use sluicegate_types::UnixTime;

use crate::{
    bounded_command::Patiently,
    plain_file,
    source_lister::{MAX_GIT_TIME, io},
};

/// Bytes of one commit or tree.
const MAX_OBJECT: u64 = 64 * 1024 * 1024;
/// Bytes of a file at a time.
const BUFFER: usize = 64 * 1024;
/// Folders in each other.
const MAX_DEPTH: usize = 512;

/// What is compared.
pub(crate) struct Question<'a> {
    /// git, confined, with its environment and before its arguments.
    pub(crate) objects: Command,
    /// The commit's full name.
    pub(crate) commit: &'a str,
    /// The source's folder, relative to the root of the work tree.
    pub(crate) below: &'a Path,
    /// The source's folder.
    pub(crate) folder: &'a Path,
    /// What goes into the source.
    pub(crate) entries: &'a [TreeEntry],
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whether a file differs, is missing, or is in no commit.
    pub(crate) differs: bool,
    /// The commit's date in seconds.
    pub(crate) commit_time: Option<u64>,
}

/// Compares the entries with the commit's folder. A file that the commit has and the source has not counts as a difference, unless
/// `is_excluded` says that it never belongs to a source; then it must still lie there as it was committed. Submodules are never part of a
/// source and are passed over.
pub(crate) fn compare(question: Question<'_>, is_excluded: &dyn Fn(&Path) -> bool) -> Result<Answer, TreeError> {
    let Question { objects, commit, below, folder, entries } = question;
    let mut objects = Objects::open(objects, folder)?;
    let text = objects.read(commit, "commit")?;
    let fault = |reason: String| TreeError::Git { path: folder.to_owned(), reason };
    let tree = header(&text, b"tree ").ok_or_else(|| fault(format!("the commit {commit} names no tree")))?;
    let mut tree = Some(String::from_utf8_lossy(tree).into_owned());
    let commit_time = header(&text, b"committer ").and_then(seconds);
    let last = UnixTime::LAST.seconds().unsigned_abs();
    if commit_time.is_some_and(|seconds| seconds > last) {
        return Err(fault(format!(
            "the commit {commit} is dated after {}; commit anew with a right clock",
            UnixTime::LAST
        )));
    }
    for name in below.components() {
        let Some(above) = tree else { break };
        tree = tree_entries(&objects.read(&above, "tree")?)
            .ok_or_else(|| fault(format!("the tree {above} can't be read")))?
            .into_iter()
            .find(|entry| entry.kind == Kind::Folder && entry.name == name.as_os_str().as_bytes())
            .map(|entry| entry.id);
    }
    let mut unseen: BTreeMap<&Path, &EntryKind> =
        entries.iter().map(|entry| (entry.path.as_path(), &entry.kind)).collect();
    let differs = Answer { differs: true, commit_time };
    let mut open: Vec<(PathBuf, String, usize)> = tree.into_iter().map(|id| (PathBuf::new(), id, 0)).collect();
    while let Some((at, id, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(fault(format!("more than {MAX_DEPTH} folders in each other")));
        }
        let read = tree_entries(&objects.read(&id, "tree")?);
        for entry in read.ok_or_else(|| fault(format!("the tree {id} can't be read")))? {
            let name = at.join(OsStr::from_bytes(&entry.name));
            let path = folder.join(&name);
            match entry.kind {
                // A folder that is gone, or a link now, can't hold what was committed; and only folders that are there are walked, so the
                // work has the size of what lies on the disk, whatever the commit's trees say.
                Kind::Folder if !fs::symlink_metadata(&path).is_ok_and(|there| there.is_dir()) => return Ok(differs),
                Kind::Folder => open.push((name, entry.id, depth + 1)),
                Kind::Submodule => {}
                Kind::File { .. } | Kind::Link => {
                    let found = match unseen.remove(name.as_path()) {
                        Some(kind) => packed(kind)?,
                        None if is_excluded(&name) => lying_at(&path)?,
                        None => None,
                    };
                    if found != Some((entry.kind, entry.id)) {
                        return Ok(differs);
                    }
                }
            }
        }
    }
    Ok(Answer { differs: !unseen.is_empty(), commit_time })
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

fn lying_at(path: &Path) -> Result<Option<(Kind, String)>, TreeError> {
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(None) };
    if there.is_symlink() {
        let target = fs::read_link(path).map_err(|source| io("read the link", path, source))?;
        return packed(&EntryKind::Symlink(target));
    }
    if !there.is_file() {
        return Ok(None);
    }
    let executable = there.permissions().mode() & 0o111 != 0;
    packed(&EntryKind::HostFile { source: path.to_owned(), executable })
}

/// The name of a file as a blob; nothing if it has another size than it said.
fn file_id(path: &Path) -> Result<Option<String>, TreeError> {
    let fault = |source| io("read", path, source);
    let file = plain_file::open(path).map_err(fault)?;
    let mut left = file.metadata().map_err(fault)?.len();
    let mut context = begin("blob", left);
    let mut reader = file.take(left.saturating_add(1));
    // Most files are small, and there may be many.
    let mut buffer = vec![0; usize::try_from(left).unwrap_or(BUFFER).saturating_add(1).min(BUFFER)];
    loop {
        let read = reader.read(&mut buffer).map_err(fault)?;
        if read == 0 {
            break;
        }
        let Some(rest) = left.checked_sub(read as u64) else { return Ok(None) };
        left = rest;
        context.update(&buffer[..read]);
    }
    Ok((left == 0).then(|| finish(context)))
}

fn object_id(kind: &str, bytes: &[u8]) -> String {
    let mut context = begin(kind, bytes.len() as u64);
    context.update(bytes);
    finish(context)
}

fn begin(kind: &str, len: u64) -> Context {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("{kind} {len}\0").as_bytes());
    context
}

fn finish(context: Context) -> String {
    hex(context.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first line of a commit's head that begins with this key.
fn header<'a>(commit: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    commit.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(key))
}

/// The seconds of `Name <mail> SECONDS ZONE`.
fn seconds(committer: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(committer);
    let (_, date) = text.rsplit_once('>')?;
    date.split_whitespace().next()?.parse().ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    File { executable: bool },
    Link,
    Submodule,
}

struct Committed {
    kind: Kind,
    name: Vec<u8>,
    id: String,
}

/// The entries of a tree object: `MODE NAME\0` and 20 bytes each. Nothing if they are not, or if a name would lead elsewhere.
fn tree_entries(mut bytes: &[u8]) -> Option<Vec<Committed>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at(bytes.iter().position(|byte| *byte == 0)?);
        let (id, after) = rest.get(1..)?.split_at_checked(20)?;
        let (mode, name) = head.split_at(head.iter().position(|byte| *byte == b' ')?);
        let kind = match mode {
            b"40000" | b"040000" => Kind::Folder,
            b"120000" => Kind::Link,
            b"160000" => Kind::Submodule,
            // Old commits have more bits; git takes the owner's alone.
            [b'1', b'0', b'0', owner @ b'0'..=b'7', _, _] => Kind::File { executable: (*owner & 1) != 0 },
            _ => return None,
        };
        let name = name.get(1..)?;
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return None;
        }
        entries.push(Committed { kind, name: name.to_owned(), id: hex(id) });
        bytes = after;
    }
    Some(entries)
}

/// The objects of a repository, one after the other, from one process.
struct Objects<'a> {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<Patiently<ChildStdout>>,
    folder: &'a Path,
}

impl<'a> Objects<'a> {
    fn open(mut command: Command, folder: &'a Path) -> Result<Self, TreeError> {
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let fault = |reason: String| TreeError::Git { path: folder.to_owned(), reason };
        let mut child = command.spawn().map_err(|error| fault(format!("cannot start git: {error}")))?;
        let (Some(ask), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(fault("it was started without pipes".to_owned()));
        };
        // Questions need no patience: each is short, and is asked when the one before it was answered.
        Ok(Self { child, ask, answers: BufReader::new(Patiently::new(answers, MAX_GIT_TIME)), folder })
    }

    /// An object of this kind, whose bytes have this name.
    fn read(&mut self, id: &str, kind: &str) -> Result<Vec<u8>, TreeError> {
        let fault = |reason: String| TreeError::Git { path: self.folder.to_owned(), reason };
        let stopped = |error: std::io::Error| fault(format!("the {kind} {id} can't be read: {error}"));
        if id.len() != 40 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(fault(format!("{id:?} names no object")));
        }
        writeln!(self.ask, "{id}").and_then(|()| self.ask.flush()).map_err(stopped)?;
        let mut line = Vec::new();
        (&mut self.answers).take(256).read_until(b'\n', &mut line).map_err(stopped)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let said = line.strip_prefix(id).and_then(|rest| rest.trim_start().strip_prefix(kind));
        let Some(len) = said.and_then(|rest| rest.trim_start().parse::<u64>().ok()) else {
            return Err(fault(format!("there is no {kind} {id}: {line}")));
        };
        if len > MAX_OBJECT {
            return Err(fault(format!("the {kind} {id} has more than {MAX_OBJECT} bytes")));
        }
        let mut bytes = Vec::new();
        (&mut self.answers).take(len + 1).read_to_end(&mut bytes).map_err(stopped)?;
        if bytes.pop() != Some(b'\n') || bytes.len() as u64 != len || object_id(kind, &bytes) != id {
            return Err(fault(format!("the {kind} {id} is damaged: its bytes have another name")));
        }
        Ok(bytes)
    }
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        // It may still be writing what nobody reads. Both fail only where it has ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
