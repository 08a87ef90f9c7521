//! Writes an image with its evidence to a place, and reads all of it back (trust model 10).

use std::collections::BTreeSet;

use sluicegate_attestation::{
    bundle::{Bundle, MAX_BUNDLE},
    identifiers::{BUNDLE, DENIAL_ARTIFACT, GATE_SCAN_ARTIFACT},
};
use sluicegate_policy::judge::Grant;
use sluicegate_ports::images::{Descriptor, ImageSource, Manifest, Publication};
use sluicegate_types::{
    Digest, Place, Selector, UnixTime,
    checks::{Check, is_on},
};
use sluicegate_verify::{Trust, VerifiedStatement, closed_set::ClosedSet};

use crate::{
    Error, Ports, assemble,
    attest::Attested,
    fetch::{self, Fetched},
    image_tree::{self, ImageTree, is_index},
};

/// One image of a decision, with everything that goes with it.
pub struct Decided<'a> {
    /// The image, as it was read.
    pub fetched: &'a Fetched,
    /// The closed set; always named whole.
    pub set: &'a ClosedSet,
    /// What is said about the image, verified: what the grant does not name stays behind.
    pub said: Vec<&'a VerifiedStatement>,
    /// The gate's scan and its report.
    pub gate_scan: &'a [Descriptor],
    /// What was granted for it.
    pub grant: &'a Grant,
    /// What was signed about it.
    pub decisions: Vec<Attested>,
}

/// An index of such images.
pub struct DecidedIndex<'a> {
    /// Every manifest that it names.
    pub tree: &'a ImageTree,
    /// What is attached to the index itself.
    pub fetched: &'a Fetched,
    /// What is said about the index, verified: what the grant does not name stays behind.
    pub said: Vec<&'a VerifiedStatement>,
    /// What was granted for it.
    pub grant: &'a Grant,
    /// What was signed about it.
    pub decisions: &'a [Attested],
}

/// Exactly what the decision names: the image, its closed set, what was said by hand and counted, the gate's scan and the decision
/// itself. What else was attached at the source stays there.
pub fn publication(
    ports: &Ports<'_>,
    source: &Place,
    image: &Decided<'_>,
    now: UnixTime,
) -> Result<Publication, Error> {
    let descriptor = described(&image.fetched.descriptor);
    let mut publication = empty(descriptor, source, image.grant);
    add(ports, &mut publication, image, now)?;
    Ok(publication)
}

/// The same of an index: every manifest that it names, exactly what the decision names of each of its images and of the index, and the
/// decision about the index itself.
pub fn index_publication(
    ports: &Ports<'_>,
    source: &Place,
    index: &DecidedIndex<'_>,
    images: &[Decided<'_>],
    now: UnixTime,
) -> Result<Publication, Error> {
    let DecidedIndex { tree, fetched, said, grant, decisions } = index;
    let mut publication = empty(described(&tree.root), source, grant);
    publication.children = tree.below.iter().map(|node| described(&node.descriptor)).collect();
    for image in images {
        add(ports, &mut publication, image, now)?;
    }
    // What holds nothing but documents is part of the index all the same.
    for (_, manifest) in tree.images() {
        publication.blobs.extend(manifest.layers.iter().map(|layer| layer.digest).chain([manifest.config.digest]));
    }
    publication.blobs.sort();
    publication.blobs.dedup();
    let root = publication.image.clone();
    for statement in said.iter().filter(|said| grant.used.contains(&said.bundle())) {
        let (digest, kind) = (statement.bundle(), &statement.statement().predicate_type);
        let size = fetched.attached.get(&digest).map_or(0, |bytes| bytes.len() as u64);
        publication.evidence.push(digest);
        publication.referrers.push(assemble::bundle_referrer(ports, &root, digest, size, kind, now)?);
    }
    add_decisions(ports, &mut publication, &root, decisions, now)?;
    Ok(publication)
}

fn described(descriptor: &Descriptor) -> Descriptor {
    Descriptor::new(&descriptor.media_type, descriptor.digest, descriptor.size)
}

fn empty(image: Descriptor, source: &Place, grant: &Grant) -> Publication {
    Publication {
        image,
        tags: vec![grant.tag.clone()],
        children: Vec::new(),
        referrers: Vec::new(),
        blobs: Vec::new(),
        evidence: vec![assemble::empty_config()],
        beside: Vec::new(),
        source: Some(source.clone()),
        expected: grant.previous,
        environment: Some(grant.environment.clone()),
    }
}

/// Adds an image's blobs and what is attached to it.
fn add(ports: &Ports<'_>, publication: &mut Publication, decided: &Decided<'_>, now: UnixTime) -> Result<(), Error> {
    let Decided { fetched, set, said, gate_scan, grant, decisions } = decided;
    let image = described(&fetched.descriptor);
    publication.blobs.extend(fetched.manifest.layers.iter().map(|layer| layer.digest));
    publication.blobs.push(fetched.manifest.config.digest);
    let size_of = |digest: &Digest| {
        let bytes = fetched.attached.get(digest).or_else(|| fetched.blobs.get(digest));
        bytes.map_or(0, |bytes| bytes.len() as u64)
    };
    let (mut parts, mut referrers) = (Vec::new(), Vec::new());
    let of_set: BTreeSet<Digest> = set.statements().map(VerifiedStatement::bundle).collect();
    let said = said.iter().copied().filter(|said| grant.used.contains(&said.bundle()));
    let said = said.filter(|said| !of_set.contains(&said.bundle()));
    for statement in set.statements().chain(said) {
        let digest = statement.bundle();
        publication.evidence.push(digest);
        if statement.statement().is_about_image(&image.digest) {
            let kind = &statement.statement().predicate_type;
            referrers.push(assemble::bundle_referrer(ports, &image, digest, size_of(&digest), kind, now)?);
        } else {
            parts.push(Descriptor::new(BUNDLE, digest, size_of(&digest)));
        }
    }
    for (digest, media_type) in set.reports() {
        publication.evidence.push(*digest);
        parts.push(Descriptor::new(media_type, *digest, size_of(digest)));
    }
    publication.referrers.push(assemble::evidence_manifest(ports, &image, parts)?);
    publication.referrers.append(&mut referrers);
    if !gate_scan.is_empty() {
        publication.evidence.extend(gate_scan.iter().map(|part| part.digest));
        let scan = assemble::referrer(ports, &image, GATE_SCAN_ARTIFACT, gate_scan.to_vec(), Default::default())?;
        publication.referrers.push(scan);
    }
    add_decisions(ports, publication, &image, decisions, now)
}

fn add_decisions(
    ports: &Ports<'_>,
    publication: &mut Publication,
    image: &Descriptor,
    decisions: &[Attested],
    now: UnixTime,
) -> Result<(), Error> {
    for attested in decisions {
        let kind = &attested.statement.statement().predicate_type;
        let bundle = attested.statement.bundle();
        publication.evidence.push(bundle);
        publication.referrers.push(assemble::bundle_referrer(ports, image, bundle, attested.size, kind, now)?);
    }
    Ok(())
}

/// Writes a promotion to its place. The tag moves only from what the permit saw; then the tag is read back, and every byte that was
/// copied is read from there and hashed once more.
pub fn push(ports: &Ports<'_>, target: &Place, publication: &Publication) -> Result<(), Error> {
    let place = ports.places.target(target)?;
    place.publish(publication, ports.store)?;
    let held = place.current(publication.tags.first())?;
    let reads_back = held.is_some_and(|held| held.image == publication.image.digest && held.tags == publication.tags);
    if is_on(Check::ReadBackTag) && !reads_back {
        return Err(Error::Again(format!("{target} does not hold what was just written to it")));
    }
    let source = ports.places.source(target)?;
    let image = source.resolve(&Selector::Digest(publication.image.digest))?;
    let tree = image_tree::read(source.as_ref(), &image)?;
    let mut there = BTreeSet::from([assemble::empty_config()]);
    let of_root = is_index(&image.media_type).then_some(&tree.root);
    for descriptor in tree.images().map(|(descriptor, _)| descriptor).chain(of_root) {
        let fetched = fetch::fetch_unasked(source.as_ref(), descriptor)?;
        there.extend(fetched.attached.keys().chain(fetched.blobs.keys()));
        there.extend(fetched.manifest.layers.iter().map(|layer| layer.digest));
        there.insert(fetched.manifest.config.digest);
    }
    match publication.blobs.iter().chain(&publication.evidence).find(|blob| !there.contains(blob)) {
        None => Ok(()),
        Some(_) if !is_on(Check::ReadBackBlobs) => Ok(()),
        Some(missing) => Err(Error::Content {
            what: "blob",
            digest: *missing,
            reason: format!("it was copied to {target} and can't be read there"),
        }),
    }
}

/// What was attached to an image since it was built and that a new run of the same image must not drop: bundles of other keys than the
/// run's own, whose hint is `own`, and denials; [`MAX_KEPT`] of them, first what `trust` believes, so that junk pushes nothing out.
/// Their manifests and parts are in the store afterwards.
pub(crate) fn said_since(
    ports: &Ports<'_>,
    place: &Place,
    image: &Descriptor,
    own: &str,
    trust: &Trust,
) -> Result<(Vec<Descriptor>, Vec<Digest>), Error> {
    let source = ports.places.source(place)?;
    let mut referrers = source.referrers(&image.digest)?;
    referrers.sort_by_key(|referrer| (referrer.size, referrer.digest));
    let now = ports.clock.now();
    let (mut manifests, mut blobs, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for referrer in referrers {
        match read_said(source.as_ref(), &referrer, own) {
            Ok(None) => {}
            Ok(Some(said))
                if manifests.len() < MAX_KEPT && sluicegate_verify::verify(&said.bundle, trust, now).is_ok() =>
            {
                blobs.extend(said.keep(ports)?);
                manifests.push(Descriptor { annotations: Default::default(), ..referrer });
            }
            Ok(Some(_)) => others.push(referrer),
            Err(error) => (ports.warn)(&format!("{} was attached and can't be kept: {error}", referrer.digest)),
        }
    }
    let room = MAX_KEPT - manifests.len();
    if others.len() > room {
        (ports.warn)(&format!(
            "more than {MAX_KEPT} manifests of others are attached to {}; {} are not kept",
            image.digest,
            others.len() - room
        ));
    }
    for referrer in others.into_iter().take(room) {
        if let Ok(Some(said)) = read_said(source.as_ref(), &referrer, own) {
            blobs.extend(said.keep(ports)?);
            manifests.push(Descriptor { annotations: Default::default(), ..referrer });
        }
    }
    Ok((manifests, blobs))
}

/// A manifest that no run makes, with what it carries.
struct Said {
    manifest: Vec<u8>,
    bundle: Vec<u8>,
    config: Vec<u8>,
}

impl Said {
    fn keep(&self, ports: &Ports<'_>) -> Result<[Digest; 2], Error> {
        ports.store.put_bytes(&self.manifest)?;
        Ok([ports.store.put_bytes(&self.bundle)?, ports.store.put_bytes(&self.config)?])
    }
}

/// `None` if it is a run's, or nothing that says anything.
fn read_said(source: &dyn ImageSource, referrer: &Descriptor, own: &str) -> Result<Option<Said>, Error> {
    let bytes = fetch::read(source, referrer, fetch::MAX_MANIFEST)?;
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(None) };
    let artifact = manifest.artifact_type.as_deref();
    let [part] = manifest.layers.as_slice() else { return Ok(None) };
    if ![Some(DENIAL_ARTIFACT), Some(BUNDLE)].contains(&artifact) {
        return Ok(None);
    }
    let bundle = fetch::read(source, part, MAX_BUNDLE as u64)?;
    // What the same key said about an earlier run gives way to what it says about this one.
    let of_a_run = Bundle::parse(&bundle).map_or(true, |bundle| bundle.key_hint == own);
    if artifact == Some(BUNDLE) && of_a_run {
        return Ok(None);
    }
    let config = fetch::read(source, &manifest.config, fetch::MAX_MANIFEST)?;
    Ok(Some(Said { manifest: bytes, bundle, config }))
}

/// Manifests that outlive a new run of the same image.
const MAX_KEPT: usize = 256;

/// Lays a manifest beside an image that is there already. Where that can't be done, it stays in the store and the record names it.
pub fn lay_beside(ports: &Ports<'_>, place: &Place, image: &Digest, manifest: &Descriptor, parts: &[Digest]) {
    let mut blobs = parts.to_vec();
    blobs.push(assemble::empty_config());
    let laid = ports
        .places
        .target(place)
        .and_then(|place| place.attach(image, std::slice::from_ref(manifest), &blobs, ports.store));
    if let Err(error) = laid {
        (ports.warn)(&format!("{} stays in the store and was not laid beside the image: {error}", manifest.digest));
    }
}
