//! Assembles an image from a base and products, and the manifests that carry its evidence. Same inputs, same digests.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Component, PathBuf},
};

use serde_json::{Map, Value, json};
use sluicegate_attestation::{
    identifiers::{
        BUNDLE, EMPTY_CONFIG, EVIDENCE_ARTIFACT, IMAGE_CONFIG, IMAGE_INDEX, IMAGE_MANIFEST, LAYER_TAR, LAYER_TAR_GZIP,
        LAYER_TAR_ZSTD,
    },
    predicate::PredicateType,
};
use sluicegate_pipeline::pipeline::ImageConfig;
use sluicegate_ports::{
    execute::{Compression, Product},
    images::{Descriptor, ImageIndex, IndexEntry, Manifest},
    trees::{EntryKind, TreeEntry},
};
use sluicegate_types::{ContentKind, Digest, Platform, UnixTime};

use crate::{Error, Ports, pin::PinnedBase};

/// An assembled image: its manifest's descriptor and every blob it needs, all in the store.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// The image's manifest.
    pub image: Descriptor,
    /// Layers and configuration.
    pub blobs: Vec<Digest>,
}

/// Assembles an image for `platform`: the base's layers as they are, then one uncompressed layer with the products at their paths.
pub fn image(
    ports: &Ports<'_>,
    base: Option<&PinnedBase>,
    files: &BTreeMap<PathBuf, Product>,
    config: (&ImageConfig, &Platform),
    epoch: u64,
) -> Result<Assembled, Error> {
    let entries = files.iter().map(|(path, product)| TreeEntry {
        path: path.components().filter(|c| matches!(c, Component::Normal(_))).collect(),
        kind: EntryKind::Stored { content: product.content, executable: product.executable },
    });
    layered(ports, base, entries.collect(), config, epoch, "sluicegate: products of the pipeline")
}

/// Assembles an image from a base and one layer with `entries`; `history` says where the layer is from.
pub fn layered(
    ports: &Ports<'_>,
    base: Option<&PinnedBase>,
    entries: Vec<TreeEntry>,
    config: (&ImageConfig, &Platform),
    epoch: u64,
    history: &str,
) -> Result<Assembled, Error> {
    let (layer, size) = match base {
        Some(base) => ports.packer.pack_onto(entries, epoch, &base.layers)?,
        None => ports.packer.pack(entries, epoch)?,
    };
    with_layer(ports, base, Descriptor::new(LAYER_TAR, layer, size), config, epoch, history)
}

/// An image of one layer with a step's output: a directory as it is, a file by the name `file_name`.
pub fn of_output(ports: &Ports<'_>, product: &Product, file_name: &OsStr) -> Result<Assembled, Error> {
    let Product { content, executable, size, .. } = *product;
    let (layer, size) = match content.kind {
        ContentKind::Directory => (content.digest, size),
        ContentKind::File => {
            let kind = EntryKind::Stored { content, executable };
            ports.packer.pack(vec![TreeEntry { path: file_name.into(), kind }], 0)?
        }
    };
    let layer = Descriptor::new(LAYER_TAR, layer, size);
    let config = (&ImageConfig::default(), &Platform::of_steps());
    with_layer(ports, None, layer, config, 0, "sluicegate: output of a step")
}

fn with_layer(
    ports: &Ports<'_>,
    base: Option<&PinnedBase>,
    layer: Descriptor,
    config: (&ImageConfig, &Platform),
    epoch: u64,
    history: &str,
) -> Result<Assembled, Error> {
    let config_bytes =
        json_bytes("the image configuration", &image_config(base, config, &layer.digest, epoch, history)?)?;
    let config_digest = ports.store.put_bytes(&config_bytes)?;
    let mut layers = base.map(|base| base.manifest.layers.clone()).unwrap_or_default();
    for (layer, read) in layers.iter_mut().zip(base.iter().flat_map(|base| &base.layers)) {
        layer.annotations.clear();
        // The same bytes by OCI's names, in an image of OCI's, and by what they are.
        layer.media_type = match read.compression {
            Compression::None => LAYER_TAR,
            Compression::Gzip => LAYER_TAR_GZIP,
            Compression::Zstd => LAYER_TAR_ZSTD,
        }
        .to_owned();
    }
    layers.push(layer);
    let blobs = layers.iter().map(|layer| layer.digest).chain([config_digest]).collect();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(IMAGE_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(IMAGE_CONFIG, config_digest, config_bytes.len() as u64),
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    Ok(Assembled { image: store_manifest(ports, &manifest)?, blobs })
}

fn image_config(
    base: Option<&PinnedBase>,
    (own, platform): (&ImageConfig, &Platform),
    layer: &Digest,
    epoch: u64,
    history: &str,
) -> Result<Value, Error> {
    let created = time(epoch);
    let mut document = base.map_or_else(|| Ok(Map::new()), |base| object(base, "its configuration", &base.config))?;
    let mut config = match (base, document.get("config").filter(|config| !config.is_null())) {
        (Some(base), Some(config)) => object(base, "\"config\" of its configuration", config)?,
        _ => Map::new(),
    };
    if let Some(entrypoint) = &own.entrypoint {
        config.insert("Entrypoint".to_owned(), json!(entrypoint));
        // A base's arguments belong to the base's entry point.
        config.remove("Cmd");
    }
    if let Some(cmd) = &own.cmd {
        config.insert("Cmd".to_owned(), json!(cmd));
    }
    if let Some(workdir) = &own.workdir {
        config.insert("WorkingDir".to_owned(), json!(workdir));
    }
    if let Some(user) = &own.user {
        config.insert("User".to_owned(), json!(user));
    }
    if !own.env.is_empty() {
        let env = config.get("Env").filter(|env| !env.is_null());
        let env = env.map_or_else(|| Some(&[][..]), |env| env.as_array().map(Vec::as_slice));
        let env = env.ok_or_else(|| malformed(base, "\"Env\" is no list"))?;
        config.insert("Env".to_owned(), json!(merged_env(env, &own.env)));
    }
    if !own.labels.is_empty() {
        let labels = config.get("Labels").filter(|labels| !labels.is_null());
        let labels = labels.map_or_else(|| Some(Map::new()), |labels| labels.as_object().cloned());
        let mut labels = labels.ok_or_else(|| malformed(base, "\"Labels\" is no object"))?;
        labels.extend(own.labels.iter().map(|(key, value)| (key.clone(), json!(value))));
        config.insert("Labels".to_owned(), Value::Object(labels));
    }
    let mut diff_ids: Vec<Value> =
        base.map(|base| base.layers.iter().map(|l| json!(l.diff_id)).collect()).unwrap_or_default();
    // A history counts as many layers as there are, or it is none.
    let mut steps = document.remove("history").and_then(|steps| steps.as_array().cloned()).unwrap_or_default();
    let is_of_a_layer = |step: &&Value| step["empty_layer"] != true;
    if steps.iter().filter(is_of_a_layer).count() == diff_ids.len() {
        steps.push(json!({"created": created, "created_by": history}));
        document.insert("history".to_owned(), Value::Array(steps));
    }
    diff_ids.push(json!(layer));
    // What Docker writes of the container that made the base's last layer, and of the image before it, is not about this image.
    for key in ["id", "parent", "container", "container_config"] {
        document.remove(key);
    }
    document.remove("variant");
    if let Some(variant) = &platform.variant {
        document.insert("variant".to_owned(), json!(variant));
    }
    for (key, value) in [
        ("architecture", json!(platform.architecture)),
        ("os", json!(platform.os)),
        ("created", json!(created)),
        ("config", Value::Object(config)),
        ("rootfs", json!({"type": "layers", "diff_ids": diff_ids})),
    ] {
        document.insert(key.to_owned(), value);
    }
    Ok(Value::Object(document))
}

fn object(base: &PinnedBase, what: &str, value: &Value) -> Result<Map<String, Value>, Error> {
    let object = value.as_object().cloned();
    object.ok_or_else(|| Error::Image { image: base.name.clone(), reason: format!("{what} is no JSON object") })
}

fn malformed(base: Option<&PinnedBase>, reason: &str) -> Error {
    let image = base.map_or_else(|| "scratch".to_owned(), |base| base.name.clone());
    Error::Image { image, reason: format!("{reason} in its configuration") }
}

/// The base's variables in its order, those that are given anew in their places, then the others by name.
fn merged_env(base: &[Value], own: &BTreeMap<String, String>) -> Vec<Value> {
    let mut left = own.clone();
    let mut env = Vec::new();
    for old in base {
        let name = old.as_str().and_then(|old| old.split('=').next()).unwrap_or_default();
        match left.remove(name) {
            Some(value) => env.push(json!(format!("{name}={value}"))),
            // Named twice in the base: it was given its value where it stood first.
            None if own.contains_key(name) => {}
            None => env.push(old.clone()),
        }
    }
    env.extend(left.iter().map(|(name, value)| json!(format!("{name}={value}"))));
    env
}

/// A bundle about an image as a referrer, in the form that cosign reads (interop.md section 4).
pub fn bundle_referrer(
    ports: &Ports<'_>,
    image: &Descriptor,
    bundle: Digest,
    size: u64,
    predicate: &PredicateType,
    created: UnixTime,
) -> Result<Descriptor, Error> {
    let annotations = BTreeMap::from([
        ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
        ("dev.sigstore.bundle.predicateType".to_owned(), predicate.uri().to_owned()),
        ("org.opencontainers.image.created".to_owned(), created.to_string()),
    ]);
    referrer(ports, image, BUNDLE, vec![Descriptor::new(BUNDLE, bundle, size)], annotations)
}

/// The evidence manifest: what the image's provenance names and is not about the image itself (trust model 3).
pub fn evidence_manifest(ports: &Ports<'_>, image: &Descriptor, parts: Vec<Descriptor>) -> Result<Descriptor, Error> {
    referrer(ports, image, EVIDENCE_ARTIFACT, parts, BTreeMap::new())
}

/// A manifest of type `artifact_type` that refers to `image` and carries `parts`.
pub fn referrer(
    ports: &Ports<'_>,
    image: &Descriptor,
    artifact_type: &str,
    parts: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
) -> Result<Descriptor, Error> {
    let empty = ports.store.put_bytes(b"{}")?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(IMAGE_MANIFEST.to_owned()),
        artifact_type: Some(artifact_type.to_owned()),
        config: Descriptor::new(EMPTY_CONFIG, empty, 2),
        layers: parts,
        subject: Some(Descriptor::new(&image.media_type, image.digest, image.size)),
        annotations,
    };
    let mut descriptor = store_manifest(ports, &manifest)?;
    descriptor.artifact_type = Some(artifact_type.to_owned());
    Ok(descriptor)
}

/// The index of images, each for a platform, in this order; in the store.
pub fn index(ports: &Ports<'_>, images: &[(Platform, Descriptor)]) -> Result<Descriptor, Error> {
    let entry = |(platform, image): &(Platform, Descriptor)| IndexEntry {
        descriptor: Descriptor::new(&image.media_type, image.digest, image.size),
        platform: Some(platform.clone()),
    };
    let index = ImageIndex {
        schema_version: 2,
        media_type: Some(IMAGE_INDEX.to_owned()),
        manifests: images.iter().map(entry).collect(),
        subject: None,
    };
    let bytes = json_bytes("an image index", &index)?;
    let digest = ports.store.put_bytes(&bytes)?;
    Ok(Descriptor::new(IMAGE_INDEX, digest, bytes.len() as u64))
}

/// The digest of the empty configuration that every referrer has.
pub fn empty_config() -> Digest {
    Digest::of(b"{}")
}

fn store_manifest(ports: &Ports<'_>, manifest: &Manifest) -> Result<Descriptor, Error> {
    let bytes = json_bytes("a manifest", manifest)?;
    let digest = ports.store.put_bytes(&bytes)?;
    Ok(Descriptor::new(IMAGE_MANIFEST, digest, bytes.len() as u64))
}

pub(crate) fn json_bytes(what: &'static str, value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|source| Error::Json { what, source })
}

fn time(epoch: u64) -> String {
    let seconds = i64::try_from(epoch).unwrap_or(0);
    UnixTime::from_seconds(seconds).map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |t| t.to_string())
}
