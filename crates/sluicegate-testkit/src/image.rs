use std::collections::BTreeMap;

use sluicegate_attestation::identifiers::{
    DOCKER_MANIFEST, EMPTY_CONFIG, IMAGE_CONFIG, IMAGE_INDEX, IMAGE_MANIFEST, LAYER_TAR,
};
use sluicegate_ports::images::{Descriptor, ImageIndex, IndexEntry, Manifest};
use sluicegate_types::{Digest, Platform};

/// An image of one layer, and manifests that refer to it.
#[derive(Clone)]
pub struct VirtualImage {
    /// Its manifest.
    pub descriptor: Descriptor,
    /// Its manifest, configuration and layer, by digest.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// The digest of its layer.
    pub layer: Digest,
}

impl VirtualImage {
    /// The image whose layer holds these bytes, which need not be a tar.
    pub fn new(layer: &[u8]) -> Self {
        Self::of_layer(LAYER_TAR, layer, Digest::of(layer))
    }

    /// The image whose layer has this type and these bytes, and unpacks to the tar of digest `diff_id`.
    pub fn of_layer(media_type: &str, layer: &[u8], diff_id: Digest) -> Self {
        let config =
            format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(IMAGE_MANIFEST.to_owned()),
            artifact_type: None,
            config: describe(IMAGE_CONFIG, config.as_bytes()),
            layers: vec![describe(media_type, layer)],
            subject: None,
            annotations: BTreeMap::new(),
        };
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let descriptor = describe(IMAGE_MANIFEST, &manifest);
        let blobs = [manifest, config.into_bytes(), layer.to_vec()];
        let blobs = blobs.into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect();
        Self { descriptor, blobs, layer: Digest::of(layer) }
    }

    /// An image of which only the manifest is here.
    pub fn of_manifest(media_type: &str, bytes: Vec<u8>) -> Self {
        let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        let descriptor = describe(media_type, &bytes);
        let layer = manifest.layers[0].digest;
        Self { blobs: BTreeMap::from([(descriptor.digest, bytes)]), descriptor, layer }
    }

    /// The same image with media types as Docker writes them.
    pub fn of_dockers_types(mut self) -> Self {
        let bytes = self.blobs.remove(&self.descriptor.digest).unwrap();
        let mut manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        manifest.media_type = Some(DOCKER_MANIFEST.to_owned());
        manifest.config.media_type = "application/vnd.docker.container.image.v1+json".to_owned();
        for layer in &mut manifest.layers {
            layer.media_type = "application/vnd.docker.image.rootfs.diff.tar".to_owned();
        }
        let bytes = serde_json::to_vec(&manifest).unwrap();
        self.descriptor = describe(DOCKER_MANIFEST, &bytes);
        self.blobs.insert(self.descriptor.digest, bytes);
        self
    }

    /// The digest of its manifest.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// A manifest of type `artifact_type` that refers to this image and carries `parts`, with the blobs it needs.
    pub fn referrer(&self, artifact_type: &str, parts: &[(&str, &[u8])]) -> (Descriptor, BTreeMap<Digest, Vec<u8>>) {
        referrer_to(&self.descriptor, artifact_type, parts)
    }
}

/// A manifest of type `artifact_type` that refers to `subject` and carries `parts`, with the blobs it needs.
pub(crate) fn referrer_to(
    subject: &Descriptor,
    artifact_type: &str,
    parts: &[(&str, &[u8])],
) -> (Descriptor, BTreeMap<Digest, Vec<u8>>) {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(IMAGE_MANIFEST.to_owned()),
        artifact_type: Some(artifact_type.to_owned()),
        config: describe(EMPTY_CONFIG, b"{}"),
        layers: parts.iter().map(|(media_type, bytes)| describe(media_type, bytes)).collect(),
        subject: Some(subject.clone()),
        annotations: BTreeMap::new(),
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut descriptor = describe(IMAGE_MANIFEST, &manifest);
    descriptor.artifact_type = Some(artifact_type.to_owned());
    let parts = parts.iter().map(|(_, bytes)| bytes.to_vec());
    let blobs = parts.chain([manifest, b"{}".to_vec()]).map(|bytes| (Digest::of(&bytes), bytes)).collect();
    (descriptor, blobs)
}

/// An index of images, each for a machine that runs Linux.
#[derive(Clone)]
pub struct VirtualIndex {
    /// Its own manifest.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The images that it names.
    pub images: Vec<VirtualImage>,
}

impl VirtualIndex {
    /// The index of these images, each with the architecture that it is for.
    pub fn new(images: &[(&VirtualImage, &str)]) -> Self {
        let entry = |(image, architecture): &(&VirtualImage, &str)| IndexEntry {
            descriptor: image.descriptor.clone(),
            platform: Some(Platform {
                os: "linux".to_owned(),
                architecture: (*architecture).to_owned(),
                variant: None,
            }),
        };
        let index = ImageIndex {
            schema_version: 2,
            media_type: Some(IMAGE_INDEX.to_owned()),
            manifests: images.iter().map(entry).collect(),
            subject: None,
        };
        let bytes = serde_json::to_vec(&index).unwrap();
        let images = images.iter().map(|(image, _)| (*image).clone()).collect();
        Self { descriptor: describe(IMAGE_INDEX, &bytes), bytes, images }
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }
}

fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
}
