//! Objects of a git repository, read by name from one process, each hashed again before it is believed.
//!
//! Names are SHA-1, as git's are: two contents that were made to have the same one are not told apart here.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use sluicegate_ports::{execute::Stop, trees::TreeError};
use sluicegate_types::UnixTime;

use crate::{bounded_command::Patiently, plain_file, source_repository::io};

/// Bytes of one commit, tag or tree.
const MAX_OBJECT: u64 = 64 * 1024 * 1024;
/// Bytes of a file at a time.
const BUFFER: usize = 64 * 1024;
/// Folders in each other.
pub(crate) const MAX_DEPTH: usize = 512;

/// The objects of a repository, one after the other.
pub(crate) struct Objects<'a> {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<Patiently<ChildStdout>>,
    /// What errors are about.
    place: &'a Path,
}

/// What a commit says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Its tree.
    pub(crate) tree: String,
    /// The commit that it was made on; of a merge, the one that was merged into.
    pub(crate) parent: Option<String>,
    /// Its date in seconds, where it can be read.
    pub(crate) time: Option<u64>,
}

/// What stands in a folder of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File { executable: bool },
    Link,
    Submodule,
}

/// An entry of a commit's folder.
pub(crate) struct Committed {
    pub(crate) kind: Kind,
    pub(crate) name: Vec<u8>,
    pub(crate) id: String,
}

impl Kind {
    /// What git's mode, in octal digits, says.
    pub(crate) fn of_mode(mode: &[u8]) -> Option<Self> {
        Some(match mode {
            b"40000" | b"040000" => Self::Folder,
            b"120000" => Self::Link,
            b"160000" => Self::Submodule,
            // Old commits have more bits; git takes the owner's alone.
            [b'1', b'0', b'0', owner @ b'0'..=b'7', _, _] => Self::File { executable: (*owner & 1) != 0 },
            _ => return None,
        })
    }
}

impl<'a> Objects<'a> {
    /// Those that `command` sees: git, confined, before its arguments. `time` is how long it is waited for, all in all, unless it is
    /// to stop.
    pub(crate) fn open(mut command: Command, place: &'a Path, time: Duration, stop: &Stop) -> Result<Self, TreeError> {
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let fault = |reason: String| TreeError::Git { path: place.to_owned(), reason };
        let mut child = command.spawn().map_err(|error| fault(format!("cannot start git: {error}")))?;
        let (Some(ask), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(fault("it was started without pipes".to_owned()));
        };
        // Questions need no patience: each is short, and is asked when the one before it was answered.
        let answers = BufReader::with_capacity(BUFFER, Patiently::new(answers, time, stop));
        Ok(Self { child, ask, answers, place })
    }

    /// A commit, and what it says.
    pub(crate) fn commit(&mut self, id: &str) -> Result<Commit, TreeError> {
        let text = self.read(id, "commit")?;
        let tree = header(&text, b"tree ").ok_or_else(|| self.fault(format!("the commit {id} names no tree")))?;
        let tree = String::from_utf8_lossy(tree).into_owned();
        let parent = header(&text, b"parent ").map(|parent| String::from_utf8_lossy(parent).into_owned());
        let time = header(&text, b"committer ").and_then(seconds);
        let last = UnixTime::LAST.seconds().unsigned_abs();
        if time.is_some_and(|seconds| seconds > last) {
            let last = UnixTime::LAST;
            return Err(self.fault(format!("the commit {id} is dated after {last}; commit anew with a right clock")));
        }
        Ok(Commit { tree, parent, time })
    }

    /// The commit that a name leads to, through signed and annotated tags.
    pub(crate) fn commit_behind(&mut self, id: &str) -> Result<String, TreeError> {
        let mut id = id.to_owned();
        for _ in 0..MAX_TAGS {
            let (kind, bytes) = self.read_any(&id, &["commit", "tag"])?;
            if kind == "commit" {
                return Ok(id);
            }
            let object = header(&bytes, b"object ");
            let object = object.ok_or_else(|| self.fault(format!("the tag {id} names nothing")))?;
            id = String::from_utf8_lossy(object).into_owned();
        }
        Err(self.fault(format!("more than {MAX_TAGS} tags of tags")))
    }

    /// What a folder of a commit holds.
    pub(crate) fn folder(&mut self, id: &str) -> Result<Vec<Committed>, TreeError> {
        tree_entries(&self.read(id, "tree")?).ok_or_else(|| self.fault(format!("the tree {id} can't be read")))
    }

    /// A blob; nothing if it has more than `limit` bytes. Then no further question is answered.
    pub(crate) fn blob(&mut self, id: &str, limit: u64) -> Result<Option<Vec<u8>>, TreeError> {
        let mut bytes = Vec::new();
        Ok(self.copy_blob(id, limit, &mut bytes)?.map(|_| bytes))
    }

    /// Writes a blob and says its size; nothing if it has more than `limit` bytes, and then no further question is answered. What was
    /// written counts only once this ended well: its name is known at its end.
    pub(crate) fn copy_blob(&mut self, id: &str, limit: u64, out: &mut dyn Write) -> Result<Option<u64>, TreeError> {
        let (_, len) = self.ask(id, &["blob"])?;
        if len > limit {
            return Ok(None);
        }
        let stopped = |error: std::io::Error| TreeError::Git {
            path: self.place.to_owned(),
            reason: format!("the file {id} can't be read: {error}"),
        };
        let mut context = begin("blob", len);
        let mut left = len;
        let mut buffer = vec![0; BUFFER];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let read = self.answers.read(&mut buffer[..most]).map_err(stopped)?;
            if read == 0 {
                return Err(self.damaged("file", id));
            }
            context.update(&buffer[..read]);
            out.write_all(&buffer[..read]).map_err(|source| io("write a file of", self.place, source))?;
            left -= read as u64;
        }
        let mut end = [0];
        self.answers.read_exact(&mut end).map_err(stopped)?;
        if end != *b"\n" || finish(context) != id {
            return Err(self.damaged("file", id));
        }
        Ok(Some(len))
    }

    /// An object of this kind, whose bytes have this name.
    fn read(&mut self, id: &str, kind: &'static str) -> Result<Vec<u8>, TreeError> {
        self.read_any(id, &[kind]).map(|(_, bytes)| bytes)
    }

    /// An object of one of these kinds, and which, whose bytes have this name.
    fn read_any(&mut self, id: &str, kinds: &[&'static str]) -> Result<(&'static str, Vec<u8>), TreeError> {
        let (kind, len) = self.ask(id, kinds)?;
        if len > MAX_OBJECT {
            return Err(self.fault(format!("the {kind} {id} has more than {MAX_OBJECT} bytes")));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.answers).take(len + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.fault(format!("the {kind} {id} can't be read: {error}")))?;
        if bytes.pop() != Some(b'\n') || bytes.len() as u64 != len || object_id(kind, &bytes) != id {
            return Err(self.damaged(kind, id));
        }
        Ok((kind, bytes))
    }

    /// Asks for an object of one of these kinds: which it is, and how long.
    fn ask(&mut self, id: &str, kinds: &[&'static str]) -> Result<(&'static str, u64), TreeError> {
        if !is_object_id(id) {
            return Err(self.fault(format!("{id:?} names no object")));
        }
        let wanted = kinds.join(" or ");
        let asked = writeln!(self.ask, "{id}").and_then(|()| self.ask.flush());
        let mut line = Vec::new();
        let heard = asked.and_then(|()| (&mut self.answers).take(256).read_until(b'\n', &mut line));
        heard.map_err(|error| self.fault(format!("the {wanted} {id} can't be read: {error}")))?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let said = line.strip_prefix(id).map(str::trim_start).unwrap_or_default();
        for kind in kinds {
            let len = said.strip_prefix(kind).and_then(|rest| rest.strip_prefix(' ')?.parse::<u64>().ok());
            if let Some(len) = len {
                return Ok((kind, len));
            }
        }
        Err(self.fault(format!("there is no {wanted} {id}: {line}")))
    }

    fn damaged(&self, kind: &str, id: &str) -> TreeError {
        self.fault(format!("the {kind} {id} is damaged: its bytes have another name"))
    }

    fn fault(&self, reason: String) -> TreeError {
        TreeError::Git { path: self.place.to_owned(), reason }
    }
}

/// Tags that name each other before they name a commit.
const MAX_TAGS: usize = 8;

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        // It may still be writing what nobody reads. Both fail only where it has ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// Whether this is how a SHA-1 name is written, with all its digits.
pub(crate) fn is_object_id(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of a file as a blob; nothing if it has another size than it said.
pub(crate) fn file_id(path: &Path) -> Result<Option<String>, TreeError> {
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

/// Hashes a file as a blob while somebody else reads it.
pub(crate) struct BlobCheck {
    file: File,
    context: Context,
    size: u64,
}

impl BlobCheck {
    /// Of a regular file, which may not be a link.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = plain_file::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, context: begin("blob", size), size })
    }

    /// The bytes that it had when it was opened.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The name of what was read.
    pub(crate) fn finish(self) -> String {
        finish(self.context)
    }
}

impl Read for BlobCheck {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.context.update(&buffer[..count]);
        Ok(count)
    }
}

/// The name of an object with these bytes.
pub(crate) fn object_id(kind: &str, bytes: &[u8]) -> String {
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

/// The first line of an object's head that begins with this key.
fn header<'a>(object: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    object.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(key))
}

/// The seconds of `Name <mail> SECONDS ZONE`.
fn seconds(committer: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(committer);
    let (_, date) = text.rsplit_once('>')?;
    date.split_whitespace().next()?.parse().ok()
}

/// The entries of a tree object: `MODE NAME\0` and 20 bytes each. Nothing if they are not, or if a name would lead elsewhere.
fn tree_entries(mut bytes: &[u8]) -> Option<Vec<Committed>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at(bytes.iter().position(|byte| *byte == 0)?);
        let (id, after) = rest.get(1..)?.split_at_checked(20)?;
        let (mode, name) = head.split_at(head.iter().position(|byte| *byte == b' ')?);
        let kind = Kind::of_mode(mode)?;
        let name = name.get(1..)?;
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return None;
        }
        entries.push(Committed { kind, name: name.to_owned(), id: hex(id) });
        bytes = after;
    }
    Some(entries)
}

/// Where a committed entry would stand.
pub(crate) fn below(folder: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    folder.join(std::ffi::OsStr::from_bytes(name))
}
