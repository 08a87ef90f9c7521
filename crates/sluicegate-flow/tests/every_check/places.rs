//! What is read from a place, and what is written to one.

use sluicegate_attestation::identifiers::BUNDLE;
use sluicegate_flow::{Ports, fetch::fetch, push::push};
use sluicegate_ports::{
    images::{Descriptor, ImagePlaceError, ImagePlaces, ImageSource, ImageTarget, Manifest, Occupant, Publication},
    store::ContentStore,
};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{FakePacker, MemoryPlaces, MemoryStore, VirtualImage, today};
use sluicegate_types::{Digest, Place, Selector, TagName};
use sluicegate_verify::closed_set::Asked;

use crate::{
    fixture::{Said, Tried, environment, said},
    gate_world::World,
};

const PLACE: &str = "/project/out/shop";

fn fetched(places: &MemoryPlaces) -> Said {
    let source = places.source(&PLACE.into()).unwrap();
    let (world, _) = World::good();
    let asked = Asked { trust: &world.trust, repository: None, at: today() };
    said(fetch(source.as_ref(), &source.resolve(&Selector::Only).unwrap(), asked))
}

/// The image with its evidence; one blob of it damaged.
fn damaged(blob: impl Fn(&VirtualImage) -> Option<Digest>) -> Said {
    let (world, _) = World::good();
    if let Some(blob) = blob(&world.image) {
        world.places.flip_byte(PLACE, &blob);
    }
    fetched(&world.places)
}

pub(crate) fn tm01_bytes_are_those_of_their_digest() -> Tried {
    let words = "its bytes are not those of its digest";
    let bundle = |_: &VirtualImage| Some(World::good().1.digest("image"));
    let config = |image: &VirtualImage| {
        let manifest: Manifest = serde_json::from_slice(&image.blobs[&image.digest()]).unwrap();
        Some(manifest.config.digest)
    };
    Tried::good(damaged(|_| None))
        .fault("a layer", words, damaged(|image| Some(image.layer)))
        .fault("the configuration", words, damaged(config))
        .fault("a bundle", words, damaged(bundle))
}

pub(crate) fn tm01_bytes_are_as_many_as_described() -> Tried {
    let described = |more: u64, edit: fn(&mut Manifest, u64)| {
        let image = VirtualImage::new(b"the layer of the shop");
        let mut manifest: Manifest = serde_json::from_slice(&image.blobs[&image.digest()]).unwrap();
        edit(&mut manifest, more);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let mut other = image.clone();
        other.descriptor = Descriptor::new(&image.descriptor.media_type, Digest::of(&bytes), bytes.len() as u64);
        other.blobs.insert(Digest::of(&bytes), bytes);
        let places = MemoryPlaces::new();
        places.put_image(PLACE, &other, None);
        fetched(&places)
    };
    let layer = |manifest: &mut Manifest, more: u64| manifest.layers[0].size += more;
    let config = |manifest: &mut Manifest, more: u64| manifest.config.size += more;
    Tried::good(described(0, layer).and(described(0, config)))
        .fault("a layer", "its bytes are not those", described(1, layer))
        .fault("the configuration", "its bytes are not those", described(1, config))
}

/// What is listed for an image is about it only by its own subject: the same manifest, once of this image and once of another, lends a
/// bundle or nothing.
pub(crate) fn tm12_what_is_listed_is_attached_by_its_own_subject() -> Tried {
    let (world, build) = World::good();
    let listed = |subject: Option<&VirtualImage>| {
        let places = MemoryPlaces::new();
        places.put_image(PLACE, &world.image, None);
        let bundle = build.digest("image");
        let bytes = build.attached()[&bundle].clone();
        let (_, blobs) = subject.unwrap_or(&world.image).referrer(BUNDLE, &[(BUNDLE, &bytes)]);
        let manifest = blobs.values().find_map(|bytes| serde_json::from_slice::<Manifest>(bytes).ok()).unwrap();
        places.attach(PLACE, &world.image, "application/octet-stream", &[("application/octet-stream", &bytes)]);
        places.attach_manifest(PLACE, &manifest);
        let source = places.source(&PLACE.into()).unwrap();
        let asked = Asked { trust: &world.trust, repository: None, at: today() };
        let fetched = fetch(source.as_ref(), &source.resolve(&Selector::Only).unwrap(), asked).unwrap();
        if fetched.attached.contains_key(&bundle) {
            Ok(())
        } else {
            Err(fetched.unread.values().copied().collect::<Vec<_>>().join(", "))
        }
    };
    let other = VirtualImage::new(b"another image");
    Tried::good(listed(None)).fault("another image's", "its subject is another image", listed(Some(&other)))
}

/// `image` with a bundle beside it, to be published as production over `expected`.
fn publication(store: &MemoryStore, image: &VirtualImage, expected: Option<Digest>) -> Publication {
    let (referrer, parts) = image.referrer(BUNDLE, &[(BUNDLE, b"a bundle")]);
    for bytes in image.blobs.values().chain(parts.values()) {
        store.put_bytes(bytes).unwrap();
    }
    let manifests = [image.digest(), referrer.digest];
    let blobs = image.blobs.keys().chain(parts.keys()).copied().filter(|digest| !manifests.contains(digest)).collect();
    Publication {
        image: image.descriptor.clone(),
        tags: vec!["current".parse().unwrap()],
        children: Vec::new(),
        referrers: vec![referrer],
        blobs,
        evidence: Vec::new(),
        beside: Vec::new(),
        source: None,
        expected,
        environment: Some(environment("production")),
    }
}

/// A real layout that holds one image of production, and then another publication to it.
fn published(second: impl FnOnce(&VirtualImage, &mut Publication)) -> Said {
    let (folder, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let target = Places::new(RegistrySettings::default()).target(&folder.path().join("layout").into()).unwrap();
    let (first, next) = (VirtualImage::new(b"last week's"), VirtualImage::new(b"this week's"));
    target.publish(&publication(&store, &first, None), &store).unwrap();
    let mut publication = publication(&store, &next, Some(first.digest()));
    second(&first, &mut publication);
    let said = said(target.publish(&publication, &store));
    let held = if said.is_ok() { next.digest() } else { first.digest() };
    assert_eq!(target.current(None).unwrap().unwrap().image, held);
    said
}

pub(crate) fn tm10_the_tag_moves_only_from_what_the_permit_saw() -> Tried {
    let other = Digest::of(b"what the permit saw");
    Tried::good(published(|_, _| {}))
        .fault("another", "changed meanwhile", published(|_, next| next.expected = Some(other)))
        .fault("nothing", "changed meanwhile", published(|_, next| next.expected = None))
}

pub(crate) fn tm10_only_a_promotion_writes_to_an_environments_place() -> Tried {
    let words = "only a promotion to it writes there";
    Tried::good(published(|_, _| {})).fault("a run", words, published(|_, next| next.environment = None)).fault(
        "staging",
        words,
        published(|_, next| next.environment = Some(environment("staging"))),
    )
}

/// A place that does not keep what is written to it.
struct Forgetful {
    places: MemoryPlaces,
    loses: Option<Digest>,
    loses_tag: bool,
}

struct ForgetfulTarget {
    target: Box<dyn ImageTarget>,
    places: MemoryPlaces,
    loses: Option<Digest>,
    loses_tag: bool,
}

impl ImagePlaces for Forgetful {
    fn source(&self, folder: &Place) -> Result<Box<dyn ImageSource>, ImagePlaceError> {
        self.places.source(folder)
    }

    fn target(&self, folder: &Place) -> Result<Box<dyn ImageTarget>, ImagePlaceError> {
        Ok(Box::new(ForgetfulTarget {
            target: self.places.target(folder)?,
            places: self.places.clone(),
            loses: self.loses,
            loses_tag: self.loses_tag,
        }))
    }
}

impl ImageTarget for ForgetfulTarget {
    fn current(&self, tag: Option<&TagName>) -> Result<Option<Occupant>, ImagePlaceError> {
        let held = self.target.current(tag)?;
        Ok(held.map(|held| if self.loses_tag { Occupant { tags: Vec::new(), ..held } } else { held }))
    }

    fn publish(&self, publication: &Publication, store: &dyn ContentStore) -> Result<(), ImagePlaceError> {
        self.target.publish(publication, store)?;
        self.loses.iter().for_each(|blob| self.places.drop_blob(PLACE, blob));
        Ok(())
    }

    fn attach(
        &self,
        image: &Digest,
        referrers: &[Descriptor],
        blobs: &[Digest],
        store: &dyn ContentStore,
    ) -> Result<(), ImagePlaceError> {
        self.target.attach(image, referrers, blobs, store)
    }
}

fn pushed(loses: Option<Digest>, loses_tag: bool) -> Said {
    let (world, _) = World::good();
    let places = Forgetful { places: MemoryPlaces::new(), loses, loses_tag };
    let tell = |_: &str| {};
    let ports = Ports {
        clock: &world.clock,
        store: &world.store,
        places: &places,
        packer: &FakePacker::new(&world.store),
        log: &world.log,
        evidence: &world.evidence,
        ledger: &world.ledger,
        tell: &tell,
        warn: &tell,
    };
    let publication = publication(&world.store, &world.image, None);
    said(push(&ports, &PLACE.into(), &publication))
}

pub(crate) fn tm10_the_tag_is_read_back() -> Tried {
    Tried::good(pushed(None, false)).fault("a lost tag", "does not hold what was just written", pushed(None, true))
}

pub(crate) fn tm10_every_blob_is_read_back() -> Tried {
    let lost = pushed(Some(Digest::of(b"a bundle")), false);
    Tried::good(pushed(None, false)).fault("a lost bundle", "can't be read there", lost)
}
