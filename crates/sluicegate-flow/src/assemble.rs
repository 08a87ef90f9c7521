//! Assembles an image from a base and products, and the manifests that carry its evidence. Same inputs, same digests.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Component, PathBuf},
};

use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::{
        BUNDLE, DOCKER_LAYER_GZIP, EMPTY_CONFIG, EVIDENCE_ARTIFACT, IMAGE_CONFIG, IMAGE_INDEX, IMAGE_MANIFEST,
        LAYER_TAR, LAYER_TAR_GZIP,
    },
    predicate::PredicateType,
};
use sluicegate_pipeline::pipeline::ImageConfig;
use sluicegate_ports::{
    execute::Product,
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
    let (layer, size) = ports.packer.pack(entries, epoch)?;
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
    for layer in &mut layers {
        layer.annotations.clear();
        // The same bytes by OCI's names, in an image of OCI's.
        if layer.media_type == DOCKER_LAYER_GZIP {
            layer.media_type = LAYER_TAR_GZIP.to_owned();
        }
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
    let inherited = |pointer: &str| base.and_then(|base| base.config.pointer(pointer)).cloned();
    let mut config = inherited("/config").filter(Value::is_object).unwrap_or_else(|| json!({}));
    if let Some(entrypoint) = &own.entrypoint {
        config["Entrypoint"] = json!(entrypoint);
        // A base's arguments belong to the base's entry point.
        config["Cmd"] = json!(own.cmd.clone().unwrap_or_default());
    } else if let Some(cmd) = &own.cmd {
        config["Cmd"] = json!(cmd);
    }
    if let Some(workdir) = &own.workdir {
        config["WorkingDir"] = json!(workdir);
    }
    if let Some(user) = &own.user {
        config["User"] = json!(user);
    }
    if !own.env.is_empty() {
        let mut env: Vec<Value> = config["Env"].as_array().cloned().unwrap_or_default();
        env.retain(|old| !own.env.keys().any(|k| old.as_str().is_some_and(|old| old.split('=').next() == Some(k))));
        env.extend(own.env.iter().map(|(key, value)| json!(format!("{key}={value}"))));
        config["Env"] = json!(env);
    }
    if !own.labels.is_empty() {
        let mut labels = config["Labels"].as_object().cloned().unwrap_or_default();
        labels.extend(own.labels.iter().map(|(key, value)| (key.clone(), json!(value))));
        config["Labels"] = Value::Object(labels);
    }
    let mut diff_ids: Vec<Value> =
        base.map(|base| base.layers.iter().map(|l| json!(l.diff_id)).collect()).unwrap_or_default();
    diff_ids.push(json!(layer));
    let mut steps: Vec<Value> = inherited("/history").and_then(|h| h.as_array().cloned()).unwrap_or_default();
    steps.push(json!({"created": created, "created_by": history}));
    let mut document = json!({
        "architecture": platform.architecture, "os": platform.os, "created": created, "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": steps,
    });
    if let Some(variant) = &platform.variant {
        document["variant"] = json!(variant);
    }
    Ok(document)
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
