//! What an image consists of: one manifest, or an index with everything that it names.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_attestation::{
    identifiers::{DOCKER_INDEX, DOCKER_MANIFEST, IMAGE_INDEX, IMAGE_MANIFEST},
    one_reading,
};
use sluicegate_ports::images::{Descriptor, ImageIndex, ImageSource, Manifest};
use sluicegate_types::{Digest, Platform};

use crate::{
    Error,
    fetch::{self, MAX_MANIFEST},
};

/// Entries of all indexes of one image together, and how deep they may lie in each other (DESIGN section 7).
const MAX_ENTRIES: usize = 1_024;
const MAX_DEPTH: usize = 4;
/// Bytes of all manifests of one image.
const MAX_TREE: u64 = 16 * 1024 * 1024;

/// An image with every manifest that it reaches, each read once and known by its digest.
#[derive(Debug)]
pub struct ImageTree {
    /// The image itself.
    pub root: Descriptor,
    /// Every manifest below it, those that others name first; without the image itself.
    pub below: Vec<Node>,
    /// The image's own manifest, if it is one and no index.
    pub manifest: Option<Manifest>,
    /// The bytes of all of them.
    pub bytes: BTreeMap<Digest, Vec<u8>>,
    /// Entries of all its indexes.
    entries: usize,
    subjects: Vec<(Digest, Descriptor)>,
}

/// A manifest that an index names.
#[derive(Debug)]
pub struct Node {
    /// Which.
    pub descriptor: Descriptor,
    /// The machines that it is said to be for, once for each time that it is named.
    pub platforms: Vec<Option<Platform>>,
    /// The manifest; `None` for an index.
    pub manifest: Option<Manifest>,
}

impl ImageTree {
    /// Its manifests that say that they are attached to something, each with what that is.
    pub fn subjects(&self) -> impl Iterator<Item = (&Digest, &Descriptor)> {
        self.subjects.iter().map(|(digest, subject)| (digest, subject))
    }

    /// The images in it, each once: what has layers and a configuration.
    pub fn images(&self) -> impl Iterator<Item = (&Descriptor, &Manifest)> {
        let below =
            self.below.iter().filter_map(|node| node.manifest.as_ref().map(|manifest| (&node.descriptor, manifest)));
        self.manifest.iter().map(|manifest| (&self.root, manifest)).chain(below)
    }
}

/// The image that `root` is, or that the index `root` says is for `platform`; and the indexes that lead there. No other image of
/// it is read; an error lists what there is.
pub fn for_platform(
    source: &dyn ImageSource,
    root: &Descriptor,
    platform: &Platform,
) -> Result<(Descriptor, Vec<Digest>), Error> {
    let mut walk = Walk { platform, found: Vec::new(), held: Vec::new(), seen: BTreeSet::new(), entries: 0 };
    look_for_platform(source, root, &mut Vec::new(), &mut walk)?;
    let Walk { mut found, mut held, .. } = walk;
    if found.len() == 1
        && let Some(one) = found.pop()
    {
        return Ok(one);
    }
    held.truncate(20);
    let held = if held.is_empty() { "none that says what it is for".to_owned() } else { held.join(", ") };
    let reason = format!("{} of its images are for {platform}, and one is needed; it holds {held}", found.len());
    Err(Error::Image { image: root.digest.to_string(), reason })
}

/// Every image that `root` is or names, each once, with the platforms that an index says it is for.
pub fn named_images(source: &dyn ImageSource, root: &Descriptor) -> Result<Vec<(Option<String>, Digest)>, Error> {
    let tree = read(source, root)?;
    if tree.manifest.is_some() {
        return Ok(vec![(None, root.digest)]);
    }
    let named = tree.below.iter().filter(|node| node.manifest.is_some()).map(|node| {
        let platforms: Vec<String> = node.platforms.iter().flatten().map(ToString::to_string).collect();
        (Some(platforms.join(", ")).filter(|name| !name.is_empty()), node.descriptor.digest)
    });
    // What is for no machine is nothing to stand on.
    Ok(named.filter(|(name, _)| name.as_deref() != Some("unknown/unknown")).collect())
}

/// What a look through indexes has come by: each manifest once, however often it is named.
struct Walk<'a> {
    platform: &'a Platform,
    found: Vec<(Descriptor, Vec<Digest>)>,
    held: Vec<String>,
    seen: BTreeSet<Digest>,
    entries: usize,
}

fn look_for_platform(
    source: &dyn ImageSource,
    at: &Descriptor,
    path: &mut Vec<Digest>,
    walk: &mut Walk<'_>,
) -> Result<(), Error> {
    let fault = |reason: String| Err(Error::Image { image: at.digest.to_string(), reason });
    if !walk.seen.insert(at.digest) {
        return Ok(());
    }
    if !is_index(&at.media_type) {
        walk.found.push((at.clone(), path.clone()));
        return Ok(());
    }
    if path.len() >= MAX_DEPTH {
        return fault(format!("its indexes lie deeper than {MAX_DEPTH} in each other"));
    }
    let Document::Index(index) = document(source, at, &mut BTreeMap::new())? else {
        return fault("it is no image index".to_owned());
    };
    walk.entries += index.manifests.len();
    if walk.entries > MAX_ENTRIES {
        return fault(format!("it names more than {MAX_ENTRIES} manifests"));
    }
    path.push(at.digest);
    for entry in &index.manifests {
        let fits = entry.platform.as_ref().map(|platform| platform.is_same(walk.platform));
        walk.held.extend(entry.platform.iter().map(ToString::to_string));
        // An index inside need not say what it is for; an image has to.
        if fits.unwrap_or(is_index(&entry.descriptor.media_type)) {
            look_for_platform(source, &entry.descriptor, path, walk)?;
        }
    }
    path.pop();
    Ok(())
}

pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(media_type, IMAGE_INDEX | DOCKER_INDEX)
}

/// Reads the manifests of an image. A document that can be read as an image and as an index is neither.
pub fn read(source: &dyn ImageSource, root: &Descriptor) -> Result<ImageTree, Error> {
    let mut tree = ImageTree {
        root: root.clone(),
        below: Vec::new(),
        manifest: None,
        bytes: BTreeMap::new(),
        entries: 0,
        subjects: Vec::new(),
    };
    let document = document(source, root, &mut tree.bytes)?;
    tree.subjects.extend(document.subject().map(|subject| (root.digest, subject.clone())));
    match document {
        Document::Image(manifest) => tree.manifest = Some(*manifest),
        Document::Index(index) => descend(source, index, &mut tree, 1)?,
    }
    Ok(tree)
}

fn descend(source: &dyn ImageSource, index: ImageIndex, tree: &mut ImageTree, depth: usize) -> Result<(), Error> {
    let fault = |reason: String| Error::Image { image: tree.root.digest.to_string(), reason };
    if depth > MAX_DEPTH {
        return Err(fault(format!("its indexes lie deeper than {MAX_DEPTH} in each other")));
    }
    tree.entries += index.manifests.len();
    if tree.entries > MAX_ENTRIES {
        return Err(fault(format!("it names more than {MAX_ENTRIES} manifests")));
    }
    for entry in index.manifests {
        let is_known = |node: &&mut Node| node.descriptor.digest == entry.descriptor.digest;
        if let Some(known) = tree.below.iter_mut().find(is_known) {
            // Who takes the other entry takes something else.
            let (one, other) = (&known.descriptor, &entry.descriptor);
            if one.media_type != other.media_type || one.size != other.size || one.artifact_type != other.artifact_type
            {
                let reason = format!("it names {} twice, and not as the same", one.digest);
                return Err(Error::Image { image: tree.root.digest.to_string(), reason });
            }
            known.platforms.push(entry.platform);
            continue;
        }
        let read: u64 = tree.bytes.values().map(|bytes| bytes.len() as u64).sum();
        if read > MAX_TREE {
            let reason = format!("it names more than {MAX_TREE} bytes of manifests");
            return Err(Error::Image { image: tree.root.digest.to_string(), reason });
        }
        let document = document(source, &entry.descriptor, &mut tree.bytes)?;
        tree.subjects.extend(document.subject().map(|subject| (entry.descriptor.digest, subject.clone())));
        let manifest = match document {
            Document::Image(manifest) => Some(*manifest),
            Document::Index(index) => {
                descend(source, index, tree, depth + 1)?;
                None
            }
        };
        tree.below.push(Node { descriptor: entry.descriptor, platforms: vec![entry.platform], manifest });
    }
    Ok(())
}

/// The manifest of one image, read.
pub(crate) fn image(descriptor: &Descriptor, bytes: &[u8]) -> Result<Manifest, Error> {
    match parse(descriptor, bytes)? {
        Document::Image(manifest) => Ok(*manifest),
        Document::Index(_) => Err(Error::Image {
            image: descriptor.digest.to_string(),
            reason: "it is an image index, and an image is needed".to_owned(),
        }),
    }
}

/// Whether these bytes are an image's manifest or an image index, as their descriptor says.
pub(crate) fn check_form(descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
    parse(descriptor, bytes).map(drop)
}

enum Document {
    Image(Box<Manifest>),
    Index(ImageIndex),
}

impl Document {
    fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Image(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }
}

/// What a manifest is, by its descriptor and by its own bytes, which must agree.
fn document(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    bytes: &mut BTreeMap<Digest, Vec<u8>>,
) -> Result<Document, Error> {
    let read = fetch::read(source, descriptor, MAX_MANIFEST)?;
    let document = parse(descriptor, &read)?;
    bytes.insert(descriptor.digest, read);
    Ok(document)
}

fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, Error> {
    let fault = |reason: String| Error::Image { image: descriptor.digest.to_string(), reason };
    let media_type = descriptor.media_type.as_str();
    one_reading::check(bytes).map_err(|reason| fault(format!("its manifest: {reason}")))?;
    let unreadable = |error: serde_json::Error| fault(format!("its manifest: {error}"));
    let (document, says) = match media_type {
        IMAGE_MANIFEST | DOCKER_MANIFEST => {
            let manifest: Manifest = serde_json::from_slice(bytes).map_err(unreadable)?;
            let says = (manifest.schema_version, manifest.media_type.clone());
            (Document::Image(Box::new(manifest)), says)
        }
        IMAGE_INDEX | DOCKER_INDEX => {
            let index: ImageIndex = serde_json::from_slice(bytes).map_err(unreadable)?;
            let says = (index.schema_version, index.media_type.clone());
            (Document::Index(index), says)
        }
        other => {
            return Err(fault(format!(
                "media type {other:?}: not in this version; an image or an image index is needed"
            )));
        }
    };
    if says.0 != 2 || says.1.is_some_and(|own| own != media_type) {
        return Err(fault(format!("it is named as {media_type} and says something else of itself")));
    }
    Ok(document)
}
