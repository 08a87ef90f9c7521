//! `copy`: mirrors an image with everything that is attached to it, unchanged, to a place that is no environment's.

use std::{collections::BTreeSet, path::Path};

use serde_json::json;
use sluicegate_ports::{
    images::{Descriptor, ImagePlaceError, ImagePlaces, ImageSource, ImageTarget, Manifest, Publication},
    store::ContentStore,
};
use sluicegate_types::{Digest, ImageRef, Selector, TagName};

use crate::{
    Error,
    fetch::{self, MAX_MANIFEST},
    folders::{EnvironmentPlaces, is_same},
    image_tree::{self, ImageTree},
    in_parallel::in_parallel,
};

/// What to copy where.
pub struct CopyRequest<'a> {
    /// The image.
    pub from: &'a ImageRef,
    /// A place, with a tag if it is to get one.
    pub to: &'a ImageRef,
    /// The folder that both are relative to.
    pub folder: &'a Path,
    /// Where images and what is attached to them are read from.
    pub sources: &'a dyn ImagePlaces,
    /// Where they are written to.
    pub targets: &'a dyn ImagePlaces,
    /// The places of a gateway's environments, where only `promote` writes.
    pub environments: &'a EnvironmentPlaces,
    /// Holds what is on its way.
    pub store: &'a dyn ContentStore,
    /// Told what is not copied.
    pub warn: &'a dyn Fn(&str),
}

/// What was copied.
#[derive(Debug)]
pub struct Copied {
    /// The image.
    pub image: Digest,
    /// Manifests that it names, if it is an index.
    pub children: usize,
    /// Manifests that are attached to it or to these.
    pub attached: usize,
}

/// Manifests attached to one image that are copied (DESIGN section 7), and bytes of one part.
const MAX_ATTACHED: usize = 10_000;
const MAX_PART: u64 = 256 * 1024 * 1024;

/// Copies an image, every manifest that it names and every manifest that is attached to any of them, byte for byte. No tag moves from
/// one image to another, and nothing is judged: what a copy is worth is for whoever verifies it there.
///
/// Manifests, configurations and what is attached are read and hashed here. So are layers, but those that the target has or gets from
/// its own registry: of these it only says that they are there ([`ImageTarget::take_over`]), and who verifies the copy hashes them.
pub fn copy(request: &CopyRequest<'_>) -> Result<Copied, Error> {
    let (from, to) = (request.from.relative_to(request.folder), request.to.relative_to(request.folder));
    let tags = tags(&to)?;
    if is_same(&from.place, &to.place) {
        return Err(Error::Usage(format!("{} is where the image is already", request.to.place)));
    }
    let target = request.targets.target(&to.place)?;
    refuse_environments(request, &to, target.as_ref(), tags.first())?;
    let source = request.sources.source(&from.place)?;
    let root = source.resolve(&from.selector)?;
    let tree = image_tree::read(source.as_ref(), &root)?;
    for bytes in tree.bytes.values() {
        request.store.put_bytes(bytes)?;
    }
    // Before anything is written there.
    expected(request, &to, target.as_ref(), (&root.digest, tags.first()))?;
    let layers = fetch::layers_of_all(tree.images().map(|(_, manifest)| manifest))?;
    let layers: Vec<Descriptor> = layers.into_iter().cloned().collect();
    let held = target.take_over(&layers, &from.place)?;
    let mut blobs = BTreeSet::new();
    for (_, manifest) in tree.images() {
        fetch::keep(source.as_ref(), &manifest.config, MAX_MANIFEST, request.store)?;
        fetch::read_layers_but(source.as_ref(), manifest, request.store, &held)?;
        blobs.extend(manifest.layers.iter().map(|layer| layer.digest).chain([manifest.config.digest]));
    }
    let (referrers, evidence) = attached(request, source.as_ref(), &tree)?;
    let (children, attached) = (tree.below.len(), referrers.len());
    let expected = expected(request, &to, target.as_ref(), (&root.digest, tags.first()))?;
    target.publish(
        &Publication {
            image: Descriptor::new(&root.media_type, root.digest, root.size),
            tags,
            children: tree.below.into_iter().map(|node| node.descriptor).collect(),
            referrers,
            blobs: blobs.into_iter().collect(),
            evidence: evidence.into_iter().collect(),
            beside: Vec::new(),
            source: Some(from.place),
            expected,
            environment: None,
        },
        request.store,
    )?;
    Ok(Copied { image: root.digest, children, attached })
}

fn tags(to: &ImageRef) -> Result<Vec<TagName>, Error> {
    match &to.selector {
        Selector::Only => Ok(Vec::new()),
        Selector::Tag(tag) => Ok(vec![tag.clone()]),
        Selector::Digest(_) => {
            Err(Error::Usage(format!("{to}: a copy has the digest that it has; name a tag, or none")))
        }
    }
}

/// What the target holds now. What holds this very image may get it once more; what holds another one is somebody's.
fn expected(
    request: &CopyRequest<'_>,
    to: &ImageRef,
    target: &dyn ImageTarget,
    (image, tag): (&Digest, Option<&TagName>),
) -> Result<Option<Digest>, Error> {
    let expected = target.current(tag)?.map(|occupant| occupant.image);
    if let Some(held) = expected.filter(|held| held != image) {
        return Err(Error::Usage(match tag.filter(|_| to.place.folder().is_none()) {
            Some(tag) => format!("the tag {tag} of {} names {held}, and copy moves no tag; name another one", to.place),
            None => format!("{} holds {held}, and a layout holds one image; name another folder", request.to.place),
        }));
    }
    Ok(expected)
}

fn refuse_environments(
    request: &CopyRequest<'_>,
    to: &ImageRef,
    target: &dyn ImageTarget,
    tag: Option<&TagName>,
) -> Result<(), Error> {
    if let Some(environment) = request.environments.at(&to.place) {
        return Err(Error::Usage(format!(
            "{} is the place of {environment}, which changes only by promote; copy to another one",
            request.to.place
        )));
    }
    let occupant = target.current(tag)?;
    match occupant.and_then(|occupant| occupant.environment) {
        Some(environment) => Err(ImagePlaceError::OfEnvironment { place: to.place.clone(), environment }.into()),
        None => Ok(()),
    }
}

/// Everything that is attached to the image and to what it names, brought into the store: the manifests, and the blobs that they reach.
fn attached(
    request: &CopyRequest<'_>,
    source: &dyn ImageSource,
    tree: &ImageTree,
) -> Result<(Vec<Descriptor>, BTreeSet<Digest>), Error> {
    let (mut manifests, mut blobs, mut seen) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let subjects = tree.below.iter().map(|node| node.descriptor.digest).chain([tree.root.digest]);
    for subject in subjects {
        let listed = source.referrers(&subject)?.into_iter();
        let listed: Vec<Descriptor> = listed.filter(|referrer| seen.insert(referrer.digest)).collect();
        let mut left = listed.as_slice();
        while !left.is_empty() {
            // Those that can't be read do not count, so that more may be left when as many as there is room for were tried.
            let room = MAX_ATTACHED.saturating_sub(manifests.len());
            if room == 0 {
                return Err(Error::Image {
                    image: tree.root.digest.to_string(),
                    reason: format!("more than {MAX_ATTACHED} manifests are attached to it"),
                });
            }
            let tried;
            (tried, left) = left.split_at(left.len().min(room));
            let read = in_parallel(fetch::AT_ONCE, tried, |referrer| {
                match referrer_of(source, referrer, &subject, request.store) {
                    // What can't be read where it comes from can't be of use where it goes to; it is said, and stops nothing.
                    Err(error @ (Error::Place(ImagePlaceError::MissingBlob { .. }) | Error::Image { .. })) => {
                        Ok(Err(error))
                    }
                    read => read.map(Ok),
                }
            })?;
            for (referrer, read) in tried.iter().zip(read) {
                match read {
                    Ok((descriptor, parts)) => {
                        manifests.push(descriptor);
                        blobs.extend(parts);
                    }
                    Err(error) => (request.warn)(&format!(
                        "{} was attached to {subject} and is not copied: {error}",
                        referrer.digest
                    )),
                }
            }
        }
    }
    Ok((manifests, blobs))
}

fn referrer_of(
    source: &dyn ImageSource,
    referrer: &Descriptor,
    subject: &Digest,
    store: &dyn ContentStore,
) -> Result<(Descriptor, Vec<Digest>), Error> {
    let fault = |reason: &str| Error::Image { image: referrer.digest.to_string(), reason: reason.to_owned() };
    let bytes = fetch::read(source, referrer, MAX_MANIFEST)?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|_| fault("it is no manifest"))?;
    if manifest.subject.as_ref().is_none_or(|own| own.digest != *subject) {
        return Err(fault("its subject is another image"));
    }
    fetch::keep(source, &manifest.config, MAX_MANIFEST, store)?;
    manifest.layers.iter().try_for_each(|part| fetch::keep(source, part, MAX_PART, store))?;
    store.put_bytes(&bytes)?;
    let parts = manifest.layers.iter().map(|part| part.digest).chain([manifest.config.digest]).collect();
    let artifact_type = manifest.artifact_type;
    Ok((Descriptor { artifact_type, ..Descriptor::new(&referrer.media_type, referrer.digest, referrer.size) }, parts))
}

impl Copied {
    /// As `copy -o json` writes it.
    pub fn to_json(&self) -> serde_json::Value {
        json!({"schemaVersion": 1, "image": self.image, "children": self.children, "attached": self.attached})
    }
}
