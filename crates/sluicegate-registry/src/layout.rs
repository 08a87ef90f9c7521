//! Reading an OCI layout folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use sluicegate_attestation::identifiers::{DOCKER_INDEX, IMAGE_INDEX};
use sluicegate_ports::images::{Descriptor, ImageIndex, ImagePlaceError, ImageSource, Manifest};
use sluicegate_types::{Digest, Place, Selector};

use crate::{
    client::MANIFEST_TYPES,
    layout_index::{COSIGN_IMAGE, COSIGN_KIND, Index, MAX_ENTRIES, MAX_MANIFEST, REF_NAME, tag_of},
    layout_referrers::is_list,
};

/// How deep indexes may lie in each other (DESIGN section 7).
const MAX_DEPTH: usize = 4;

pub(crate) struct LayoutSource {
    pub(crate) folder: PathBuf,
    pub(crate) index: Index,
    /// What was found among the blobs.
    pub(crate) among_blobs: OnceLock<BTreeMap<Digest, Vec<Descriptor>>>,
}

impl LayoutSource {
    pub(crate) fn open(folder: &Path) -> Result<Self, ImagePlaceError> {
        let index = Index::read(folder)?.ok_or_else(|| ImagePlaceError::NotALayout {
            path: folder.to_owned(),
            reason: "there is no index.json".to_owned(),
        })?;
        Ok(Self { folder: folder.to_owned(), index, among_blobs: OnceLock::new() })
    }

    pub(crate) fn place(&self) -> Place {
        Place::Layout(self.folder.clone())
    }
}

impl ImageSource for LayoutSource {
    fn resolve(&self, selector: &Selector) -> Result<Descriptor, ImagePlaceError> {
        let images = images(&self.folder, &self.index)?;
        let named: Vec<&Descriptor> = match selector {
            Selector::Only => images,
            Selector::Tag(tag) => images.into_iter().filter(|d| tag_of(d).as_ref() == Some(tag)).collect(),
            Selector::Digest(digest) => images.into_iter().filter(|d| d.digest == *digest).collect(),
        };
        let mut digests: Vec<Digest> = named.iter().map(|d| d.digest).collect();
        if let Selector::Tag(tag) = selector {
            // An entry that only other readers take for the image would make one name two images.
            let others = self.index.manifests.iter().filter(|d| tag_of(d).as_ref() == Some(tag));
            digests.extend(others.map(|d| d.digest));
        }
        digests.sort();
        digests.dedup();
        match (digests.as_slice(), named.first()) {
            // An entry beside it may say another size of the same content; the file's own decides which is read.
            ([digest], Some(descriptor)) => {
                let size =
                    blob_path(&self.folder, digest).symlink_metadata().map_or(descriptor.size, |file| file.len());
                let fits = named
                    .iter()
                    .find(|named| named.size == size && MANIFEST_TYPES.contains(&named.media_type.as_str()));
                Ok((*fits.unwrap_or(descriptor)).clone())
            }
            ([], _) => match selector {
                Selector::Digest(digest) => match self.below(digest)? {
                    Some(descriptor) => Ok(descriptor),
                    None => Err(self.none(selector, self.holdings())),
                },
                _ => Err(self.none(selector, self.holdings())),
            },
            _ => Err(self.none(selector, format!("; several fit, name one by digest{}", self.holdings()))),
        }
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, ImagePlaceError> {
        let path = blob_path(&self.folder, &descriptor.digest);
        let file = match open_regular(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ImagePlaceError::MissingBlob { place: self.place(), digest: descriptor.digest });
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                return Err(ImagePlaceError::NotALayout {
                    path: self.folder.clone(),
                    reason: format!("blob {} is not a regular file", descriptor.digest),
                });
            }
            Err(source) => return Err(ImagePlaceError::Io { action: "open", path, source }),
        };
        Ok(Box::new(file))
    }

    fn file(&self, descriptor: &Descriptor) -> Option<PathBuf> {
        Some(blob_path(&self.folder, &descriptor.digest))
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImagePlaceError> {
        self.listed_referrers(subject)
    }
}

/// `O_NOFOLLOW` and `O_NONBLOCK` of Linux on x86_64 and aarch64 (asm-generic/fcntl.h; aarch64 differs for the first).
#[cfg(target_arch = "aarch64")]
const O_NOFOLLOW: i32 = 0o100_000;
#[cfg(not(target_arch = "aarch64"))]
const O_NOFOLLOW: i32 = 0o400_000;
pub(crate) const O_NONBLOCK: i32 = 0o4_000;

/// Opens a regular file of a layout for reading. A layout may come from anywhere: a link in place of a file is not followed and a pipe
/// not waited for; what is no regular file is [`ErrorKind::InvalidInput`].
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let not_regular = || io::Error::new(ErrorKind::InvalidInput, "it is not a regular file");
    let opened = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_file() => not_regular(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Opens or makes a file to lock. What it holds stays; a link is not followed, so that nothing elsewhere is made or locked.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)
}

impl LayoutSource {
    /// How an index that is an image here, or one below it, describes the manifest with this digest. An index that can't be read names
    /// nothing here; whoever asks about the index is told why.
    pub(crate) fn below(&self, digest: &Digest) -> Result<Option<Descriptor>, ImagePlaceError> {
        let mut waiting: Vec<(Descriptor, usize)> =
            images(&self.folder, &self.index)?.into_iter().map(|image| (image.clone(), 0)).collect();
        let mut seen = BTreeSet::new();
        while let Some((descriptor, depth)) = waiting.pop() {
            let is_index = [IMAGE_INDEX, DOCKER_INDEX].contains(&descriptor.media_type.as_str());
            if !is_index || depth >= MAX_DEPTH || seen.len() >= MAX_ENTRIES || !seen.insert(descriptor.digest) {
                continue;
            }
            for entry in self.named_by(&descriptor) {
                if entry.digest == *digest {
                    return Ok(Some(entry));
                }
                waiting.push((entry, depth + 1));
            }
        }
        Ok(None)
    }

    fn named_by(&self, index: &Descriptor) -> Vec<Descriptor> {
        let mut bytes = Vec::new();
        let read = open_regular(&blob_path(&self.folder, &index.digest))
            .and_then(|file| file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes));
        let is_whole = read.is_ok() && bytes.len() as u64 <= MAX_MANIFEST && Digest::of(&bytes) == index.digest;
        let index = is_whole.then(|| serde_json::from_slice::<ImageIndex>(&bytes).ok()).flatten();
        index.map(|index| index.manifests.into_iter().map(|entry| entry.descriptor).collect()).unwrap_or_default()
    }

    fn none(&self, selector: &Selector, hint: String) -> ImagePlaceError {
        let selector = match selector {
            Selector::Only => "without a tag or digest".to_owned(),
            Selector::Tag(tag) => format!("tagged {tag}"),
            Selector::Digest(digest) => digest.to_string(),
        };
        ImagePlaceError::NoImage { place: self.place(), selector, hint }
    }

    fn holdings(&self) -> String {
        let held = images(&self.folder, &self.index).unwrap_or_default();
        let held: Vec<String> = held
            .iter()
            .take(5)
            .map(|d| match d.annotations.get(REF_NAME) {
                None => d.digest.to_string(),
                Some(_) if tag_of(d).is_some() => format!("{} ({})", d.digest, d.annotations[REF_NAME]),
                // No tag of ours, but a name that other tools give: it is seen, and taken by its digest.
                Some(name) => format!("{} (named {:?})", d.digest, name.chars().take(100).collect::<String>()),
            })
            .collect();
        if held.is_empty() { "; it holds none".to_owned() } else { format!("; it holds {}", held.join(", ")) }
    }
}

/// The entries that are images: those that cosign's annotation marks, or, where none is marked, those that refer to nothing.
pub(crate) fn images<'a>(folder: &Path, index: &'a Index) -> Result<Vec<&'a Descriptor>, ImagePlaceError> {
    let marked: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|d| d.annotations.get(COSIGN_KIND).is_some_and(|kind| kind == COSIGN_IMAGE))
        .collect();
    if !marked.is_empty() {
        return Ok(marked);
    }
    if index.may_hold_more {
        let reason = "index.json marks no image and has entries that this version can't read".to_owned();
        return Err(ImagePlaceError::NotALayout { path: folder.to_owned(), reason });
    }
    let mut out = Vec::new();
    for descriptor in &index.manifests {
        if descriptor.artifact_type.is_none() && !is_list(descriptor) && !refers_to_something(folder, descriptor)? {
            out.push(descriptor);
        }
    }
    Ok(out)
}

fn refers_to_something(folder: &Path, descriptor: &Descriptor) -> Result<bool, ImagePlaceError> {
    let path = blob_path(folder, &descriptor.digest);
    let mut bytes = Vec::new();
    match open_regular(&path) {
        Ok(file) => file.take(MAX_MANIFEST).read_to_end(&mut bytes).map_err(|source| ImagePlaceError::Io {
            action: "read",
            path,
            source,
        })?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(ImagePlaceError::Io { action: "open", path, source }),
    };
    Ok(serde_json::from_slice::<Manifest>(&bytes).is_ok_and(|manifest| manifest.subject.is_some()))
}

pub(crate) fn blob_path(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("blobs/sha256").join(digest.hex())
}
