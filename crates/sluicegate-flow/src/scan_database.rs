//! The scanner's database from where images are kept: pinned by the digest of its manifest, brought into the store once.

use std::path::Path;

use sluicegate_ports::{
    images::{ImagePlaces, Manifest},
    store::ContentStore,
};
use sluicegate_types::{Digest, ImageRef, Platform, Selector};

use crate::{
    Error, fetch,
    image_tree::{self, for_platform},
};

/// Brings the one layer of type `layer_type` of the artifact `reference` into the store, every byte of it hashed, and gives its digest.
pub fn bring(
    places: &dyn ImagePlaces,
    reference: &ImageRef,
    folder: &Path,
    layer_type: &str,
    store: &dyn ContentStore,
) -> Result<Digest, Error> {
    let image = reference.relative_to(folder);
    // A digest says the same tomorrow: what is here already is not asked for again.
    if let Selector::Digest(digest) = &image.selector
        && let Ok(bytes) = store.read(digest, fetch::MAX_MANIFEST)
        && let Ok(Manifest { layers, .. }) = serde_json::from_slice(&bytes)
        && let [layer] = layers.as_slice()
        && layer.media_type == layer_type
        && store.open(&layer.digest).is_ok()
    {
        return Ok(layer.digest);
    }
    let source = places.source(&image.place)?;
    let (descriptor, _) = for_platform(source.as_ref(), &source.resolve(&image.selector)?, &Platform::of_steps())?;
    let bytes = fetch::read(source.as_ref(), &descriptor, fetch::MAX_MANIFEST)?;
    let manifest = image_tree::image(&descriptor, &bytes)?;
    match manifest.layers.as_slice() {
        [layer] if layer.media_type == layer_type => {
            fetch::read_layers(source.as_ref(), &manifest, Some(store))?;
            store.put_bytes(&bytes)?;
            Ok(layer.digest)
        }
        _ => Err(Error::Image {
            image: reference.to_string(),
            reason: format!("it is no database of the scanner: one layer of type {layer_type} is needed"),
        }),
    }
}
