use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use sluicegate_ports::execute::Layer;
use tar::{Archive, EntryType};

use super::{UnpackError, UnpackLimits, for_each_entry, said::Globals, stream};
use crate::{metered::Metered, pack::WHITEOUT_PREFIX};

/// Links that one path may lead through, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Bytes of all names and links of one image.
const MAX_NAMES: usize = 256 << 20;

/// What an image holds, by name: the entries of its layers merged, no content.
#[derive(Debug, Default)]
pub(crate) struct ImageTree {
    nodes: BTreeMap<PathBuf, Node>,
    names: usize,
}

/// What stands at a path of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A folder.
    Folder(FolderMeta),
    /// A symbolic link with this text.
    Link(PathBuf),
    /// Anything else.
    File,
}

/// Whose and how a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FolderMeta {
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: i64,
}

/// Of a folder that nobody describes.
const IMPLIED: FolderMeta = FolderMeta { mode: 0o755, owner: (0, 0), mtime: 0 };

impl ImageTree {
    /// Lays a layer over what is there: its headers are read in a stream, and its bytes compared with its name. A removal hides what
    /// lies below the layer only, wherever in the layer it stands.
    pub(crate) fn add(&mut self, layer: &Layer, blob: File) -> Result<(), UnpackError> {
        let limits = UnpackLimits::default();
        let (plain, tally) = stream::plain(blob, layer.compression, limits.max_bytes);
        let (metered, meter) = Metered::new(plain);
        let mut archive = Archive::new(metered);
        let mut globals = Globals::default();
        let mut entries: Vec<(PathBuf, Node, Option<PathBuf>)> = Vec::new();
        let mut removals = Vec::new();
        let mut names = 0;
        for_each_entry(&mut archive, &meter, |entry| {
            let Some(said) = globals.read(entry).map_err(UnpackError::Archive)? else { return Ok(()) };
            names += said.path.len() + said.link.len();
            if names > MAX_NAMES {
                return Err(UnpackError::Limit { what: "bytes of names", limit: MAX_NAMES as u64 });
            }
            if (entries.len() + removals.len()) as u64 >= limits.max_entries {
                return Err(UnpackError::Limit { what: "entries", limit: limits.max_entries });
            }
            let path = inside(&said.path)?;
            if let Some(hidden) = path.file_name().and_then(|name| name.as_bytes().strip_prefix(WHITEOUT_PREFIX)) {
                let hidden = OsStr::from_bytes(hidden).to_owned();
                removals.push((path.parent().map(Path::to_owned).unwrap_or_default(), hidden));
                return Ok(());
            }
            let link = PathBuf::from(OsStr::from_bytes(&said.link));
            let (node, target) = match said.kind {
                EntryType::Directory => {
                    let owner = (said.ids.0.unwrap_or(0), said.ids.1.unwrap_or(0));
                    (Node::Folder(FolderMeta { mode: said.mode, owner, mtime: said.mtime.0 }), None)
                }
                EntryType::Symlink => (Node::Link(link), None),
                EntryType::Link => (Node::File, Some(inside(&said.link)?)),
                _ => (Node::File, None),
            };
            entries.push((path, node, target));
            Ok(())
        })?;
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(UnpackError::Archive)?;
        let found = tally.digest();
        if found != layer.diff_id {
            let reason = format!("its uncompressed bytes have the digest {found}, expected {}", layer.diff_id);
            return Err(UnpackError::Archive(io::Error::other(reason)));
        }
        for (folder, hidden) in removals {
            self.remove(&folder, &hidden)?;
        }
        for (path, node, target) in entries {
            self.put(&path, node, target.as_deref())?;
        }
        Ok(())
    }

    /// What stands at a path that has no link on its way.
    pub(crate) fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// `path` without the links on its way, and with `follow` without one at its end; each is followed inside the root. What is missing
    /// stays as it is written. An error says what is no folder.
    pub(crate) fn resolve(&self, path: &Path, follow: bool) -> Result<PathBuf, String> {
        let mut left: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
        let (mut at, mut links) = (PathBuf::new(), 0);
        while let Some(name) = left.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            match self.nodes.get(&next) {
                Some(Node::Link(target)) if follow || !left.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(format!("/{} is a link that leads through more than {MAX_LINKS}", next.display()));
                    }
                    if target.is_absolute() {
                        at = PathBuf::new();
                    }
                    for component in target.components().rev() {
                        match component {
                            Component::Normal(name) => left.push_front(name.to_owned()),
                            Component::ParentDir => left.push_front("..".into()),
                            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                        }
                    }
                }
                Some(Node::File) if !left.is_empty() => return Err(format!("/{} is no folder there", next.display())),
                _ => at = next,
            }
        }
        Ok(at)
    }

    fn remove(&mut self, folder: &Path, hidden: &OsStr) -> Result<(), UnpackError> {
        let folder = self.resolve(folder, true).map_err(|reason| refused(folder, reason))?;
        match hidden.as_bytes() {
            b".wh..opq" => self.cut(&folder, false),
            bytes if bytes.starts_with(WHITEOUT_PREFIX) => {}
            b"" | b"." | b".." => return Err(refused(&folder, "a removal without a name".to_owned())),
            _ => self.cut(&folder.join(hidden), true),
        }
        Ok(())
    }

    fn put(&mut self, path: &Path, mut node: Node, target: Option<&Path>) -> Result<(), UnpackError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let parent = self.resolve(parent, true).or_else(|_| Ok(parent.to_owned()))?;
        for folder in parent.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            if !matches!(self.nodes.get(folder), Some(Node::Folder(_))) {
                self.insert(folder.to_owned(), Node::Folder(IMPLIED))?;
            }
        }
        let path = parent.join(path.file_name().unwrap_or_default());
        if let Some(target) = target
            && let Some(Node::Link(text)) = self.resolve(target, false).ok().and_then(|target| self.nodes.get(&target))
        {
            node = Node::Link(text.clone());
        }
        if !matches!(node, Node::Folder(_)) {
            self.cut(&path, true);
        }
        self.insert(path, node)
    }

    fn insert(&mut self, path: PathBuf, node: Node) -> Result<(), UnpackError> {
        self.names += path.as_os_str().len();
        if self.names > MAX_NAMES {
            return Err(UnpackError::Limit { what: "bytes of names", limit: MAX_NAMES as u64 });
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Forgets everything below a path, and with `itself` what stands there.
    fn cut(&mut self, path: &Path, itself: bool) {
        let below =
            self.nodes.range(path.to_owned()..).map(|(path, _)| path).take_while(|below| below.starts_with(path));
        let below: Vec<PathBuf> = below.filter(|below| itself || *below != path).cloned().collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }
}

fn inside(raw: &[u8]) -> Result<PathBuf, UnpackError> {
    let path = Path::new(OsStr::from_bytes(raw));
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(refused(path, "'..' in a path".to_owned())),
        }
    }
    Ok(inside)
}

fn refused(path: &Path, reason: String) -> UnpackError {
    UnpackError::Refused { path: path.to_owned(), reason }
}
