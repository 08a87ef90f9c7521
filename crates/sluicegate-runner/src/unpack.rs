//! Unpacks layers of images and trees of inputs, both untrusted, into a folder and nowhere else.
//!
//! The `tar` crate only parses. Every path is resolved by `openat2` inside the folder, so that `lib -> usr/lib`
//! in a legitimate layer works and a link to the outside is a link to the inside. What a container's root cannot hold safely is
//! refused or dropped: `..`, ids that mean "no change", the extended attributes of overlayfs, device nodes.

mod content;
mod image_tree;
mod made;
mod merged;
mod said;
mod sparse;
mod stream;

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

pub(crate) use content::SAYS_ROOT;
pub(crate) use image_tree::{FolderMeta, ImageTree, Node};
pub(crate) use made::{Made, Thing, What};
pub(crate) use merged::is_opaque;
use rustix::fd::{AsFd, BorrowedFd};
use sluicegate_ports::execute::Compression;
use sluicegate_types::Digest;
use tar::{Archive, Entry};

use crate::{
    metered::{Meter, Metered},
    pack,
};

/// What is being unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A layer (OCI image-spec, "layer"): owners and times are the archive's, whiteouts become overlayfs' own, device nodes are
    /// skipped.
    Layer,
    /// The tree of an input: one owner, one time; whiteouts, device nodes and FIFOs are refused.
    Tree {
        /// User and group of every entry.
        owner: (u32, u32),
        /// Seconds since 1970 of every entry.
        mtime: u64,
        /// Where what is unpacked may be used.
        whereabouts: Whereabouts,
    },
}

/// Where the tree of an input may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In containers that raise nobody's privileges: modes are the archive's.
    Containers,
    /// On the machine itself, where a program of a step must be nobody else's than who starts it: no set-user-ID, set-group-ID or sticky
    /// bit, and no capabilities.
    Machine,
}

/// How much an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct UnpackLimits {
    /// Bytes of file content; one more is an error.
    pub max_bytes: u64,
    /// Entries; one more is an error.
    pub max_entries: u64,
    /// Folders above an entry; one more is an error.
    pub max_depth: usize,
}

impl Default for UnpackLimits {
    /// 32 GiB, [`pack::MAX_ENTRIES`] and [`pack::MAX_DEPTH`].
    fn default() -> Self {
        Self { max_bytes: 32 << 30, max_entries: pack::MAX_ENTRIES, max_depth: pack::MAX_DEPTH }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Over the uncompressed archive to its very end, padding included: a layer's diff id. The caller compares it before it uses
    /// anything.
    pub digest: Digest,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Block and character devices that were skipped.
    pub devices: u64,
    /// Extended attributes that were dropped; only `security.capability` is kept.
    pub attributes: u64,
    /// Whether what was made depends on what lies below: folders that the layer only implies, links to files of other layers. If not,
    /// the layer is the same in every image.
    pub asked_below: bool,
}

/// Why an archive was not unpacked. What was written until then stays and has to be thrown away by the caller.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry that is not taken.
    #[error("{path:?}: {reason}")]
    Refused {
        /// Its path as written.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// More than a limit allows.
    #[error("more than the limit of {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The archive or its compression is broken, cut off, or could not be read.
    #[error("the archive cannot be read: {0}")]
    Archive(io::Error),
    /// The file system would not take an entry.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The path inside the folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Unpacks `reader` into the empty folder `root`, which must be private until the caller has compared the digest. `below` are the roots
/// of the layers under this one, unpacked, the upper one first. What was made comes with it, which can be compared with what is there later.
fn unpack(
    reader: impl Read,
    compression: Compression,
    root: BorrowedFd<'_>,
    below: &[BorrowedFd<'_>],
    kind: Kind,
    limits: &UnpackLimits,
) -> Result<(Unpacked, Made), UnpackError> {
    let (plain, tally) = stream::plain(reader, compression, limits.max_bytes);
    let (metered, meter) = Metered::new(plain);
    let mut archive = Archive::new(metered);
    let mut content = content::Writer::new(root, below.to_vec(), kind, limits, &tally)?;
    for_each_entry(&mut archive, &meter, |entry| content.entry(entry))?;
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(UnpackError::Archive)?;
    let (counts, made) = content.finish()?;
    let unpacked = Unpacked {
        digest: tally.digest(),
        entries: counts.entries,
        bytes: counts.bytes,
        devices: counts.devices,
        attributes: counts.attributes,
        asked_below: counts.asked_below,
    };
    Ok((unpacked, made))
}

/// Reads the entries one after the other, each to its end; the headers of each are bounded.
fn for_each_entry<R: Read>(
    archive: &mut Archive<Metered<R>>,
    meter: &Meter,
    mut each: impl FnMut(&mut Entry<'_, Metered<R>>) -> Result<(), UnpackError>,
) -> Result<(), UnpackError> {
    let mut entries = archive.entries().map_err(UnpackError::Archive)?;
    loop {
        meter.begin_headers();
        let entry = entries.next();
        meter.begin_content();
        let Some(entry) = entry else { return Ok(()) };
        let mut entry = entry.map_err(UnpackError::Archive)?;
        each(&mut entry)?;
        // Whatever an entry carries that its kind does not need is read here, outside of the budget for headers.
        io::copy(&mut entry, &mut io::sink()).map_err(UnpackError::Archive)?;
    }
}

/// Opens `folder` and the folders of the layers below, and unpacks into it as [`unpack`] does.
pub(crate) fn unpack_into(
    reader: impl Read,
    compression: Compression,
    folder: &Path,
    below: &[PathBuf],
    kind: Kind,
    limits: &UnpackLimits,
) -> Result<(Unpacked, Made), UnpackError> {
    let open = |folder: &Path| {
        crate::in_root::open_root(folder).map_err(|error| UnpackError::Io {
            action: "open",
            path: folder.to_owned(),
            source: error.into(),
        })
    };
    let root = open(folder)?;
    let opened = below.iter().map(|folder| open(folder)).collect::<Result<Vec<_>, _>>()?;
    let below: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
    unpack(reader, compression, root.as_fd(), &below, kind, limits)
}

/// Whether nothing below an unpacked layer is seen.
pub(crate) fn hides_all_below(layer: &Path) -> bool {
    crate::in_root::open_root(layer).is_ok_and(|root| is_opaque(root.as_fd()))
}

#[cfg(test)]
mod tests;
