use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use super::{
    LayerWriter, PackError, PackOptions, PackStats,
    retarget::{self, Placed, Placing},
};
use crate::unpack::{ImageTree, Node};

/// Writes a layer that goes onto an image. What is put below a link of the image goes where the link leads, inside the root. A folder
/// that the image has stays as it is there, owner, mode and time; what is new of a way is 0755 and root's. Nothing of the image is
/// replaced but a file or a link by what was asked for at exactly that path.
pub(crate) struct LayerOnto<'a, W: Write> {
    writer: LayerWriter<W>,
    placing: Onto<'a>,
}

struct Onto<'a> {
    image: &'a ImageTree,
    /// What stands in the layer: whether it is a folder.
    made: BTreeMap<PathBuf, bool>,
    /// Where went what did not go where it was asked for.
    moved: BTreeMap<PathBuf, PathBuf>,
}

impl<'a, W: Write> LayerOnto<'a, W> {
    /// A layer without entries, to be written to `out`.
    pub(crate) fn new(out: W, options: &PackOptions, image: &'a ImageTree) -> Self {
        let placing = Onto { image, made: BTreeMap::new(), moved: BTreeMap::new() };
        Self { writer: LayerWriter::in_any_order(out, options), placing }
    }

    /// Adds a folder, with this mode unless it is there.
    pub(crate) fn add_directory(&mut self, path: &Path, mode: u32) -> Result<(), PackError> {
        match self.placing.place(&mut self.writer, path, Placed::Folder)? {
            Some(at) => self.writer.add_directory(&at, mode),
            None => Ok(()),
        }
    }

    /// Adds a file, by `add`, which gets its place.
    pub(crate) fn add_file(
        &mut self,
        path: &Path,
        add: impl FnOnce(&mut LayerWriter<W>, &Path) -> Result<(), PackError>,
    ) -> Result<(), PackError> {
        match self.placing.place(&mut self.writer, path, Placed::File)? {
            Some(at) => add(&mut self.writer, &at),
            None => Ok(()),
        }
    }

    /// Adds a symbolic link with this text.
    pub(crate) fn add_symlink(&mut self, path: &Path, target: &Path) -> Result<(), PackError> {
        match self.placing.place(&mut self.writer, path, Placed::Link)? {
            Some(at) => self.writer.add_symlink(&at, target),
            None => Ok(()),
        }
    }

    /// Adds the tree of a directory product at `path`.
    pub(crate) fn add_tar(&mut self, path: &Path, reader: impl Read) -> Result<(), PackError> {
        self.add_directory(path, 0o755)?;
        retarget::add_tar(&mut self.writer, path, reader, &mut self.placing)
    }

    /// Writes the end.
    pub(crate) fn finish(self) -> Result<(W, PackStats), PackError> {
        self.writer.finish()
    }
}

impl<W: Write> Placing<W> for Onto<'_> {
    fn place(&mut self, writer: &mut LayerWriter<W>, path: &Path, kind: Placed) -> Result<Option<PathBuf>, PackError> {
        let refuse = |reason: String| PackError::Onto { path: path.to_owned(), reason };
        let at = self.image.resolve(path, kind == Placed::Folder).map_err(&refuse)?;
        let shown = at.display();
        let Some(parent) = at.parent() else {
            return if kind == Placed::Folder {
                Ok(None)
            } else {
                Err(refuse("it is the root of the image".to_owned()))
            };
        };
        let ways: Vec<&Path> = parent.ancestors().filter(|way| !way.as_os_str().is_empty()).collect();
        for way in ways.into_iter().rev() {
            self.folder(writer, way).map_err(&refuse)??;
        }
        if kind == Placed::Folder {
            let (is_new, below) = (!self.made.contains_key(&at), self.image.get(&at).is_some());
            if is_new && !below {
                self.made.insert(at.clone(), true);
                return Ok(Some(at));
            }
            self.folder(writer, &at).map_err(&refuse)??;
            return Ok(None);
        }
        if self.made.contains_key(&at) {
            return Err(refuse(format!("something else goes to /{shown} already")));
        }
        match self.image.get(&at) {
            Some(Node::Folder(_)) => return Err(refuse(format!("the image has the folder /{shown} there"))),
            Some(Node::Link(_)) if kind == Placed::File => {
                let target = self.image.resolve(&at, true).map_err(&refuse)?;
                if matches!(self.image.get(&target), Some(Node::Folder(_))) || target.as_os_str().is_empty() {
                    let target = target.display();
                    return Err(refuse(format!("in the image /{shown} is a link to the folder /{target}")));
                }
            }
            _ => {}
        }
        self.made.insert(at.clone(), false);
        if at != path {
            self.moved.insert(path.to_owned(), at.clone());
        }
        Ok(Some(at))
    }

    fn placed(&self, path: PathBuf) -> PathBuf {
        self.moved.get(&path).cloned().unwrap_or(path)
    }
}

impl Onto<'_> {
    /// Sees to it that a folder is in the layer, as it is in the image or new. The outer error is about what stands there.
    fn folder<W: Write>(&mut self, writer: &mut LayerWriter<W>, at: &Path) -> Result<Result<(), PackError>, String> {
        match (self.made.get(at), self.image.get(at)) {
            (Some(true), _) => return Ok(Ok(())),
            (Some(false), _) => return Err(format!("/{} is no folder", at.display())),
            (None, Some(Node::Folder(meta))) => {
                self.made.insert(at.to_owned(), true);
                return Ok(writer.add_folder_of(at, *meta));
            }
            (None, Some(_)) => return Err(format!("in the image /{} is no folder", at.display())),
            (None, None) => {}
        }
        self.made.insert(at.to_owned(), true);
        Ok(writer.add_directory(at, 0o755))
    }
}
