//! An image of several platforms: the index and every image that it names are one graph, and each platform is proved by itself or leaves
//! the whole open.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_attestation::dsse;
use sluicegate_ports::images::{Descriptor, ImageSource, Manifest};
use sluicegate_types::{
    Platform,
    checks::{Check, is_on},
};
use sluicegate_verify::closed_set::Asked;

use crate::{
    Error, Failure,
    fetch::{self, MAX_MANIFEST},
    image_tree::{self, ImageTree, Node},
    verify::{VerifyReport, verify_image},
};

/// One image that an index names.
#[derive(Debug)]
pub struct PlatformReport {
    /// The machines that the index says it is for, each time that it names it.
    pub platforms: Vec<Platform>,
    /// What was found about it.
    pub report: VerifyReport,
}

impl PlatformReport {
    /// What the index says it is for.
    pub fn name(&self) -> String {
        name_of(&self.platforms)
    }
}

/// What an index names.
#[derive(Debug, Default)]
pub struct IndexReport {
    /// Every image, which has to be proved.
    pub platforms: Vec<PlatformReport>,
    /// Manifests that hold nothing but in-toto documents, as BuildKit writes them: unsigned, so listed and never facts. Each with its
    /// digest and the types that its documents claim.
    pub unsigned: Vec<Value>,
}

impl IndexReport {
    /// `None` if there is an image and each has a whole set; else the worst of what is wrong.
    pub(crate) fn failure(&self) -> Option<Failure> {
        if self.platforms.is_empty() {
            return Some(Failure::Undecided);
        }
        if !is_on(Check::EveryPlatform) {
            return None;
        }
        let failures: Vec<Failure> = self.platforms.iter().filter_map(|platform| platform.report.failure()).collect();
        if failures.contains(&Failure::Wrong) { Some(Failure::Wrong) } else { failures.into_iter().next() }
    }
}

/// Bytes of one document, of all documents of one manifest, and documents of it.
const MAX_DOCUMENT: u64 = 16 * 1024 * 1024;
const MAX_DOCUMENTS: u64 = 64 * 1024 * 1024;
const MAX_PARTS: usize = 64;
/// Predicate types of one manifest of documents that are listed, and characters of each.
const MAX_TYPES: usize = 8;
const MAX_TYPE: usize = 200;
/// Images of one index, and manifests of documents beside them.
const MAX_IMAGES: usize = 64;
/// Bytes of a name of a platform.
const MAX_NAME: usize = 64;

/// What an index names, told apart.
pub(crate) struct Index {
    /// Every manifest below it.
    pub(crate) tree: ImageTree,
    /// Its images, which have to be proved, each once.
    pub(crate) images: Vec<PlatformImage>,
    /// What holds nothing but documents, as [`IndexReport::unsigned`] has it.
    pub(crate) unsigned: Vec<Value>,
}

/// An image that an index names.
pub(crate) struct PlatformImage {
    pub(crate) descriptor: Descriptor,
    /// The machines that the index says it is for, each time that it names it.
    pub(crate) platforms: Vec<Platform>,
}

impl PlatformImage {
    /// What the index says it is for.
    pub(crate) fn name(&self) -> String {
        name_of(&self.platforms)
    }
}

fn name_of(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "unknown/unknown".to_owned();
    }
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Reads the index `root` and everything below it. An index inside another one is no image; what it names is in the list.
pub(crate) fn read_index(source: &dyn ImageSource, root: &Descriptor) -> Result<Index, Error> {
    let tree = image_tree::read(source, root)?;
    let fault = |reason: String| Error::Image { image: root.digest.to_string(), reason };
    let (mut images, mut unsigned) = (Vec::new(), Vec::new());
    for Node { descriptor, platforms, manifest } in &tree.below {
        if let Some(odd) = platforms.iter().flatten().find(|platform| !is_sayable(platform)) {
            return Err(fault(format!("it says that {} is for {:?}", descriptor.digest, odd.to_string())));
        }
        let Some(manifest) = manifest else { continue };
        if images.len() + unsigned.len() >= 2 * MAX_IMAGES {
            return Err(fault(format!("an image index of more than {} manifests", 2 * MAX_IMAGES)));
        }
        if platforms.iter().all(|platform| is_for_no_machine(platform.as_ref()))
            && let Some(types) = only_documents(source, manifest)?
        {
            unsigned.push(json!({"digest": descriptor.digest, "predicateTypes": types, "signed": false}));
            continue;
        }
        let platforms = platforms.iter().flatten().filter(|platform| !is_for_no_machine(Some(platform)));
        images.push(PlatformImage { descriptor: descriptor.clone(), platforms: platforms.cloned().collect() });
        if images.len() > MAX_IMAGES {
            return Err(fault(format!("an image index of more than {MAX_IMAGES} images")));
        }
    }
    Ok(Index { tree, images, unsigned })
}

/// Verifies every image below the index `root`.
pub(crate) fn verify_index(
    source: &dyn ImageSource,
    root: &Descriptor,
    asked: Asked<'_>,
) -> Result<IndexReport, Error> {
    let Index { images, unsigned, .. } = read_index(source, root)?;
    let mut index = IndexReport { platforms: Vec::new(), unsigned };
    for PlatformImage { descriptor, platforms } in images {
        let report = verify_image(source, &descriptor, asked)?;
        index.platforms.push(PlatformReport { platforms, report });
    }
    Ok(index)
}

/// Whether the names of a platform are names: what stands in records and answers must not look like something else.
fn is_sayable(platform: &Platform) -> bool {
    let is_name = |text: &String| {
        !text.is_empty()
            && text.len() <= MAX_NAME
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    is_name(&platform.os) && is_name(&platform.architecture) && platform.variant.as_ref().is_none_or(is_name)
}

/// Whether an index says that no machine runs it. What it calls an image for a machine is one, whatever is in it.
fn is_for_no_machine(platform: Option<&Platform>) -> bool {
    platform.is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown")
}

/// The predicate types that the documents of a manifest claim, if it holds nothing else: each part is named and is an in-toto statement.
/// Whatever is anything else makes it an image, which has to be proved.
fn only_documents(source: &dyn ImageSource, manifest: &Manifest) -> Result<Option<BTreeSet<String>>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        #[serde(rename = "_type")]
        kind: String,
        predicate_type: String,
    }
    let whole = manifest.layers.iter().map(|layer| layer.size).fold(0_u64, u64::saturating_add);
    let named = manifest.layers.iter().all(|layer| layer.media_type == dsse::IN_TOTO && layer.size <= MAX_DOCUMENT);
    let out_of_form = manifest.layers.is_empty() || manifest.layers.len() > MAX_PARTS || whole > MAX_DOCUMENTS;
    if (out_of_form || !named) && is_on(Check::OnlyDocuments) {
        return Ok(None);
    }
    let mut types = BTreeSet::new();
    for layer in &manifest.layers {
        let bytes = fetch::read(source, layer, MAX_DOCUMENT)?;
        match serde_json::from_slice::<Document>(&bytes) {
            Ok(document) if document.kind.starts_with("https://in-toto.io/Statement/") => {
                if types.len() < MAX_TYPES {
                    types.insert(document.predicate_type.chars().take(MAX_TYPE).collect());
                }
            }
            _ if !is_on(Check::OnlyDocuments) => {}
            _ => return Ok(None),
        }
    }
    // The configuration is no layer; it has to be the JSON that it is named as all the same.
    let config = fetch::read(source, &manifest.config, MAX_MANIFEST)?;
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&config).is_ok();
    Ok(is_json.then_some(types))
}
