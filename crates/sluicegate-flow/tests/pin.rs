//! Which layers an image may have that a pipeline is built upon.

use std::{collections::BTreeMap, io::Read, path::Path};

use sluicegate_attestation::identifiers::{
    DOCKER_LAYER_GZIP, DOCKER_LAYER_TAR, DOCKER_LAYER_ZSTD, LAYER_TAR, LAYER_TAR_GZIP, LAYER_TAR_ZSTD,
};
use sluicegate_flow::{
    Error, assemble,
    pin::{self, PinnedBase},
};
use sluicegate_pipeline::pipeline::ImageConfig;
use sluicegate_ports::{
    execute::{Compression, Layer},
    images::Manifest,
    store::ContentStore,
};
use sluicegate_testkit::VirtualImage;
use sluicegate_types::{Digest, Platform};

use crate::gate_world::World;

const PLAIN: &[u8] = b"what is stored";
const GZIP: &[u8] = b"\x1f\x8b\x08 what is stored";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd what is stored";
const SKIPPED: &[u8] = b"\x50\x2a\x4d\x18 what is stored";

fn pinned(world: &World, media_type: &str, stored: &[u8]) -> Result<PinnedBase, Error> {
    let image = VirtualImage::of_layer(media_type, stored, Digest::of(b"its tar"));
    world.places.put_image("/base", &image, None);
    world.with_ports(|ports| {
        pin::image(&ports.workbench(), &"oci:/base".parse().unwrap(), Path::new("/project"), &Platform::of_steps())
    })
}

#[test]
fn a_base_may_be_compressed_as_the_runner_can_read_it() {
    let (world, _) = World::good();
    // By its bytes, whatever it is called.
    for (media_type, stored, compression) in [
        (LAYER_TAR, PLAIN, Compression::None),
        (LAYER_TAR, GZIP, Compression::Gzip),
        (LAYER_TAR_GZIP, GZIP, Compression::Gzip),
        (DOCKER_LAYER_TAR, PLAIN, Compression::None),
        (DOCKER_LAYER_GZIP, GZIP, Compression::Gzip),
        (DOCKER_LAYER_ZSTD, ZSTD, Compression::Zstd),
        (LAYER_TAR_ZSTD, SKIPPED, Compression::Zstd),
    ] {
        let base = pinned(&world, media_type, stored).unwrap();
        let layer = Layer { blob: Digest::of(stored), compression, diff_id: Digest::of(b"its tar") };
        assert_eq!(base.layers, [layer], "{media_type}");
        assert!(world.store.open(&Digest::of(stored)).is_ok());
    }
    for other in
        ["application/vnd.oci.image.layer.v1.tar+xz", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"]
    {
        let error = pinned(&world, other, GZIP).unwrap_err().to_string();
        assert!(error.contains("not in this version"), "{error}");
    }
}

/// What is built upon it has the base's layers as they are, by OCI's names.
#[test]
fn an_image_keeps_the_compression_of_its_base() {
    let (world, _) = World::good();
    for (media_type, stored, kept) in [
        (LAYER_TAR_ZSTD, ZSTD, LAYER_TAR_ZSTD),
        (LAYER_TAR, GZIP, LAYER_TAR_GZIP),
        (DOCKER_LAYER_GZIP, GZIP, LAYER_TAR_GZIP),
        (DOCKER_LAYER_ZSTD, ZSTD, LAYER_TAR_ZSTD),
    ] {
        let base = pinned(&world, media_type, stored).unwrap();
        let assembled = world.with_ports(|ports| {
            assemble::image(ports, Some(&base), &BTreeMap::new(), (&ImageConfig::default(), &Platform::of_steps()), 0)
                .unwrap()
        });
        let mut bytes = Vec::new();
        world.store.open(&assembled.image.digest).unwrap().read_to_end(&mut bytes).unwrap();
        let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        let layers: Vec<_> = manifest.layers.iter().map(|layer| (layer.media_type.as_str(), layer.digest)).collect();
        assert_eq!((layers[0], layers[1].0), ((kept, Digest::of(stored)), LAYER_TAR));
    }
}
