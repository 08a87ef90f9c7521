use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use sluicegate_attestation::identifiers::IMAGE_MANIFEST;
use sluicegate_ports::{
    images::{Descriptor, ImagePlaceError, ImagePlaces, ImageSource, ImageTarget, Manifest, Occupant, Publication},
    store::{ContentStore, StoreError},
};
use sluicegate_types::{Digest, Place, Selector, TagName};

use crate::{SignedBuild, VirtualImage, VirtualIndex, image::referrer_to};

/// Layouts in memory, by folder. Knobs damage what is there; clones share it.
#[derive(Clone, Default)]
pub struct MemoryPlaces(Arc<Mutex<BTreeMap<PathBuf, Layout>>>);

#[derive(Clone, Default)]
struct Layout {
    image: Option<Descriptor>,
    tags: Vec<TagName>,
    /// Of an index: what it names.
    children: Vec<Descriptor>,
    referrers: Vec<Descriptor>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    moves_to: Option<Descriptor>,
    breaks: bool,
    environment: Option<String>,
}

impl MemoryPlaces {
    /// No layout yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `image` into `folder`, with nothing attached.
    pub fn put_image(&self, folder: &str, image: &VirtualImage, tag: Option<&str>) {
        self.change(folder, |layout| {
            layout.image = Some(image.descriptor.clone());
            layout.children.clear();
            layout.tags = tag.iter().map(|tag| tag.parse().unwrap()).collect();
            layout.blobs.extend(image.blobs.clone());
        });
    }

    /// Puts an index with its images into `folder`, with nothing attached.
    pub fn put_index(&self, folder: &str, index: &VirtualIndex) {
        self.change(folder, |layout| {
            layout.image = Some(index.descriptor.clone());
            layout.tags.clear();
            layout.children = index.images.iter().map(|image| image.descriptor.clone()).collect();
            layout.blobs.extend(index.images.iter().flat_map(|image| image.blobs.clone()));
            layout.blobs.insert(index.digest(), index.bytes.clone());
        });
    }

    /// Attaches to the image what a run attaches: an evidence manifest and one referrer for each bundle about the image.
    pub fn attach_build(&self, folder: &str, image: &VirtualImage, build: &SignedBuild) {
        for (descriptor, blobs) in build.referrers(image) {
            self.change(folder, |layout| {
                layout.referrers.push(descriptor);
                layout.blobs.extend(blobs);
            });
        }
    }

    /// Attaches a manifest of type `artifact_type` with these parts, and gives its digest.
    pub fn attach(&self, folder: &str, image: &VirtualImage, artifact_type: &str, parts: &[(&str, &[u8])]) -> Digest {
        self.attach_to(folder, &image.descriptor, artifact_type, parts)
    }

    /// The same to whatever `subject` describes.
    pub fn attach_to(
        &self,
        folder: &str,
        subject: &Descriptor,
        artifact_type: &str,
        parts: &[(&str, &[u8])],
    ) -> Digest {
        let (descriptor, blobs) = referrer_to(subject, artifact_type, parts);
        let digest = descriptor.digest;
        self.change(folder, |layout| {
            layout.referrers.push(descriptor);
            layout.blobs.extend(blobs);
        });
        digest
    }

    /// Attaches a manifest as it is; of what it names, nothing comes with it.
    pub fn attach_manifest(&self, folder: &str, manifest: &Manifest) -> Digest {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let descriptor = Descriptor::new(IMAGE_MANIFEST, Digest::of(&bytes), bytes.len() as u64);
        let digest = descriptor.digest;
        self.change(folder, |layout| {
            layout.referrers.insert(0, descriptor);
            layout.blobs.insert(digest, bytes);
        });
        digest
    }

    /// Takes everything out of `folder`.
    pub fn clear(&self, folder: &str) {
        self.change(folder, |layout| *layout = Layout::default());
    }

    /// Changes one bit of a blob.
    pub fn flip_byte(&self, folder: &str, blob: &Digest) {
        self.change(folder, |layout| layout.blobs.get_mut(blob).unwrap()[0] ^= 1);
    }

    /// Removes a blob.
    pub fn drop_blob(&self, folder: &str, blob: &Digest) {
        self.change(folder, |layout| assert!(layout.blobs.remove(blob).is_some(), "{blob} is not in {folder}"));
    }

    /// Lets somebody else publish `image` to `folder` just before the next publication becomes visible.
    pub fn move_before_publish(&self, folder: &str, image: &VirtualImage) {
        self.change(folder, |layout| layout.moves_to = Some(image.descriptor.clone()));
    }

    /// Lets publications to `folder` break off after the blobs are written.
    pub fn break_publish(&self, folder: &str) {
        self.change(folder, |layout| layout.breaks = true);
    }

    /// Marks `folder` as the place of an environment.
    pub fn mark_environment(&self, folder: &str, environment: &str) {
        self.change(folder, |layout| layout.environment = Some(environment.to_owned()));
    }

    /// The image that is visible in `folder`, with its tags.
    pub fn occupant(&self, folder: &str) -> Option<Occupant> {
        self.lock().get(Path::new(folder)).and_then(Layout::occupant)
    }

    /// The manifests that refer to the image of `folder`, parsed.
    pub fn attached(&self, folder: &str) -> Vec<Manifest> {
        let layouts = self.lock();
        let Some(layout) = layouts.get(Path::new(folder)) else { return Vec::new() };
        layout.referrers.iter().map(|d| serde_json::from_slice(&layout.blobs[&d.digest]).unwrap()).collect()
    }

    /// The digests of every blob in `folder`.
    pub fn blobs(&self, folder: &str) -> Vec<Digest> {
        self.lock().get(Path::new(folder)).map(|layout| layout.blobs.keys().copied().collect()).unwrap_or_default()
    }

    fn change(&self, folder: &str, change: impl FnOnce(&mut Layout)) {
        change(self.lock().entry(folder.into()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Layout>> {
        self.0.lock().unwrap()
    }
}

impl Layout {
    fn occupant(&self) -> Option<Occupant> {
        self.image.as_ref().map(|image| Occupant {
            image: image.digest,
            tags: self.tags.clone(),
            environment: self.environment.clone(),
        })
    }
}

impl ImagePlaces for MemoryPlaces {
    fn source(&self, place: &Place) -> Result<Box<dyn ImageSource>, ImagePlaceError> {
        let folder = folder_of(place)?;
        let layout = self.lock().get(folder).cloned().ok_or_else(|| ImagePlaceError::NotALayout {
            path: folder.to_owned(),
            reason: "there is none in memory".to_owned(),
        })?;
        Ok(Box::new(Source { folder: folder.to_owned(), layout }))
    }

    fn target(&self, place: &Place) -> Result<Box<dyn ImageTarget>, ImagePlaceError> {
        Ok(Box::new(Target { folder: folder_of(place)?.to_owned(), places: self.clone() }))
    }
}

/// Places in memory are called by folders.
fn folder_of(place: &Place) -> Result<&Path, ImagePlaceError> {
    place.folder().ok_or_else(|| ImagePlaceError::NoImage {
        place: place.clone(),
        selector: "of a registry".to_owned(),
        hint: "; this world has no registries".to_owned(),
    })
}

struct Source {
    folder: PathBuf,
    layout: Layout,
}

impl ImageSource for Source {
    fn resolve(&self, selector: &Selector) -> Result<Descriptor, ImagePlaceError> {
        let image = match selector {
            Selector::Only => self.layout.image.as_ref(),
            Selector::Tag(tag) => self.layout.image.as_ref().filter(|_| self.layout.tags.contains(tag)),
            Selector::Digest(digest) => {
                self.layout.image.iter().chain(&self.layout.children).find(|image| image.digest == *digest)
            }
        };
        image.cloned().ok_or_else(|| ImagePlaceError::NoImage {
            place: Place::Layout(self.folder.clone()),
            selector: format!("{selector:?}"),
            hint: String::new(),
        })
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, ImagePlaceError> {
        let missing =
            || ImagePlaceError::MissingBlob { place: Place::Layout(self.folder.clone()), digest: descriptor.digest };
        let bytes = self.layout.blobs.get(&descriptor.digest).ok_or_else(missing)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImagePlaceError> {
        let held = self.layout.image.as_ref().is_some_and(|image| image.digest == *subject);
        if self.layout.children.is_empty() {
            return Ok(if held { self.layout.referrers.clone() } else { Vec::new() });
        }
        let is_of_subject = |referrer: &&Descriptor| {
            let manifest: Manifest = serde_json::from_slice(&self.layout.blobs[&referrer.digest]).unwrap();
            manifest.subject.is_some_and(|own| own.digest == *subject)
        };
        Ok(self.layout.referrers.iter().filter(is_of_subject).cloned().collect())
    }
}

struct Target {
    folder: PathBuf,
    places: MemoryPlaces,
}

impl ImageTarget for Target {
    fn current(&self, _: Option<&TagName>) -> Result<Option<Occupant>, ImagePlaceError> {
        Ok(self.places.lock().get(&self.folder).and_then(Layout::occupant))
    }

    fn publish(&self, publication: &Publication, store: &dyn ContentStore) -> Result<(), ImagePlaceError> {
        let mut layouts = self.places.lock();
        let layout = layouts.entry(self.folder.clone()).or_default();
        let attached = publication.referrers.iter().chain(&publication.children).map(|d| d.digest);
        let manifests = attached.chain([publication.image.digest]);
        for digest in publication.blobs.iter().chain(&publication.evidence).copied().chain(manifests) {
            let bytes = store.read(&digest, u64::MAX)?;
            layout.blobs.insert(digest, bytes);
        }
        if layout.breaks {
            return Err(ImagePlaceError::Io {
                action: "rename to",
                path: self.folder.join("index.json"),
                source: io::Error::other("the disk is gone"),
            });
        }
        if let Some(other) = layout.moves_to.take() {
            layout.image = Some(other);
            layout.tags.clear();
            layout.referrers.clear();
        }
        let found = layout.image.as_ref().map(|image| image.digest);
        if found != publication.expected {
            let name = |digest: Option<Digest>| digest.map_or_else(|| "no image".to_owned(), |d| d.to_string());
            return Err(ImagePlaceError::Moved {
                place: Place::Layout(self.folder.clone()),
                expected: name(publication.expected),
                found: name(found),
            });
        }
        if publication.blobs.iter().chain(&publication.evidence).any(|digest| !layout.blobs.contains_key(digest)) {
            return Err(StoreError::Missing { digest: publication.image.digest }.into());
        }
        layout.image = Some(publication.image.clone());
        layout.children = publication.children.clone();
        layout.tags = publication.tags.clone();
        layout.referrers = publication.referrers.clone();
        layout.environment = publication.environment.as_ref().map(ToString::to_string);
        Ok(())
    }

    fn attach(
        &self,
        image: &Digest,
        referrers: &[Descriptor],
        blobs: &[Digest],
        store: &dyn ContentStore,
    ) -> Result<(), ImagePlaceError> {
        let mut layouts = self.places.lock();
        let holds = |layout: &Layout| layout.image.iter().chain(&layout.children).any(|held| held.digest == *image);
        let held = layouts.get_mut(&self.folder).filter(|layout| holds(layout));
        let layout = held.ok_or_else(|| ImagePlaceError::NoImage {
            place: Place::Layout(self.folder.clone()),
            selector: image.to_string(),
            hint: String::new(),
        })?;
        for digest in blobs.iter().copied().chain(referrers.iter().map(|d| d.digest)) {
            let bytes = store.read(&digest, u64::MAX)?;
            layout.blobs.insert(digest, bytes);
        }
        if layout.breaks {
            return Err(ImagePlaceError::Io {
                action: "rename to",
                path: self.folder.join("index.json"),
                source: io::Error::other("the disk is gone"),
            });
        }
        for referrer in referrers {
            if !layout.referrers.iter().any(|held| held.digest == referrer.digest) {
                layout.referrers.push(referrer.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_attestation::identifiers::BUNDLE;

    use super::*;
    use crate::MemoryStore;

    #[test]
    fn attachers_at_the_same_time_lose_nothing_and_touch_nothing() {
        let (places, store, image) = (MemoryPlaces::new(), MemoryStore::new(), VirtualImage::new(b"one"));
        places.put_image("/place", &image, Some("current"));
        places.mark_environment("/place", "production");
        places.attach("/place", &image, BUNDLE, &[(BUNDLE, b"first")]);
        let before = places.occupant("/place");
        std::thread::scope(|scope| {
            for number in 0..32_u8 {
                let (places, store, image) = (&places, &store, &image);
                scope.spawn(move || {
                    let (referrer, blobs) = image.referrer(BUNDLE, &[(BUNDLE, &[number / 2])]);
                    for bytes in blobs.values() {
                        store.put_bytes(bytes).unwrap();
                    }
                    let blobs: Vec<Digest> = blobs.into_keys().collect();
                    let target = places.target(&"/place".into()).unwrap();
                    target.attach(&image.digest(), &[referrer], &blobs, store).unwrap();
                });
            }
        });
        assert_eq!(places.attached("/place").len(), 17, "the same referrer twice is there once");
        assert_eq!(places.occupant("/place"), before);
    }

    #[test]
    fn nothing_is_attached_to_an_image_that_is_not_there() {
        let (places, store, image) = (MemoryPlaces::new(), MemoryStore::new(), VirtualImage::new(b"one"));
        let attach = |folder: &str| places.target(&folder.into()).unwrap().attach(&image.digest(), &[], &[], &store);
        assert!(matches!(attach("/nowhere"), Err(ImagePlaceError::NoImage { .. })));
        places.put_image("/other", &VirtualImage::new(b"two"), None);
        assert!(matches!(attach("/other"), Err(ImagePlaceError::NoImage { .. })));
        places.put_image("/place", &image, None);
        attach("/place").unwrap();
    }
}
