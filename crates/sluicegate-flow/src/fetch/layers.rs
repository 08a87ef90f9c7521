//! Layers: hashed in a stream, several at a time, and kept where there is a store for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::atomic::{AtomicBool, Ordering},
};

use sluicegate_ports::{
    images::{Descriptor, ImageSource, Manifest},
    store::ContentStore,
};
use sluicegate_types::Digest;

use super::{Compared, is_within, unreadable, wrong};
use crate::{Error, in_parallel::in_parallel};

/// Bytes of one layer.
const MAX_LAYER: u64 = 64 * 1024 * 1024 * 1024;
/// Bytes of all layers of one image.
const MAX_LAYERS: u64 = 128 * 1024 * 1024 * 1024;
/// Blobs of one image that are read at a time: some wait for a place while others are hashed.
pub(crate) const AT_ONCE: usize = 4;
/// Hashes every layer, and keeps it if there is a store for it.
pub(crate) fn read_layers(
    source: &dyn ImageSource,
    manifest: &Manifest,
    keep: Option<&dyn ContentStore>,
) -> Result<(), Error> {
    stream_all(source, &layers(manifest)?, MAX_LAYER, keep)
}

/// Keeps every layer but those that are where they go to.
pub(crate) fn read_layers_but(
    source: &dyn ImageSource,
    manifest: &Manifest,
    store: &dyn ContentStore,
    held: &[Descriptor],
) -> Result<(), Error> {
    // One of the same digest and another size is wrong, and is found out when it is read.
    let held: BTreeSet<(Digest, u64)> = held.iter().map(|layer| (layer.digest, layer.size)).collect();
    let left = layers(manifest)?.into_iter().filter(|layer| !held.contains(&(layer.digest, layer.size)));
    stream_all(source, &left.collect::<Vec<_>>(), MAX_LAYER, Some(store))
}

/// Keeps a blob of at most `limit` bytes, whose bytes are never all in memory.
pub(crate) fn keep(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    limit: u64,
    store: &dyn ContentStore,
) -> Result<(), Error> {
    stream_all(source, &[descriptor], limit, Some(store))
}

/// The layers of several images of one index, each content once, under the same limit as those of one image.
pub(crate) fn layers_of_all<'m>(manifests: impl Iterator<Item = &'m Manifest>) -> Result<Vec<&'m Descriptor>, Error> {
    let mut all = BTreeMap::new();
    for manifest in manifests {
        all.extend(layers(manifest)?.into_iter().map(|layer| (layer.digest, layer)));
    }
    let whole = all.values().map(|layer| layer.size).fold(0_u64, u64::saturating_add);
    match all.values().next() {
        Some(first) if whole > MAX_LAYERS => {
            let reason = format!("the layers of the images of its index have {whole} bytes, the limit is {MAX_LAYERS}");
            Err(wrong(first, reason))
        }
        _ => Ok(all.into_values().collect()),
    }
}

/// The layers of an image: each content once, however often it is named, and no more of all of it than one image may have.
fn layers(manifest: &Manifest) -> Result<Vec<&Descriptor>, Error> {
    let mut seen = BTreeSet::new();
    let layers: Vec<&Descriptor> = manifest.layers.iter().filter(|layer| seen.insert(layer.digest)).collect();
    let whole = layers.iter().map(|layer| layer.size).fold(0_u64, u64::saturating_add);
    if let Some(first) = layers.first().filter(|_| whole > MAX_LAYERS) {
        let reason =
            format!("it and the other layers of its image are said to have {whole} bytes, the limit is {MAX_LAYERS}");
        return Err(wrong(first, reason));
    }
    layers.iter().try_for_each(|layer| is_within(layer, MAX_LAYER))?;
    Ok(layers)
}

/// Hashes each blob, several at a time, and keeps it if there is a store for it. The first failure ends all of them.
fn stream_all(
    source: &dyn ImageSource,
    blobs: &[&Descriptor],
    limit: u64,
    keep: Option<&dyn ContentStore>,
) -> Result<(), Error> {
    let (compared, is_over) = (Compared::here(), AtomicBool::new(false));
    let stream = |blob: &&Descriptor| {
        let streamed = is_within(blob, limit).and_then(|()| stream(source, blob, keep, (compared, &is_over)));
        // What only broke off because another one failed is no failure of its own.
        streamed.or_else(|error| if is_over.swap(true, Ordering::Relaxed) { Ok(()) } else { Err(error) })
    };
    in_parallel(AT_ONCE, blobs, stream).map(drop)
}

fn stream(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    keep: Option<&dyn ContentStore>,
    (compared, is_over): (Compared, &AtomicBool),
) -> Result<(), Error> {
    // What is here already, whole, is not brought here once more.
    if let Some(store) = keep.filter(|_| source.is_far())
        && let Ok(mut held) = store.open(&descriptor.digest)
        && Digest::of_reader(&mut held).is_ok_and(|found| found == (descriptor.digest, descriptor.size))
    {
        return Ok(());
    }
    // What the store can take as it lies there is hashed there. What it does not take, for whatever reason, is read as from anywhere.
    if let Some(store) = keep
        && let Some(file) = source.file(descriptor)
        && let Some((digest, size)) = store.borrow(&file, descriptor.size)
    {
        return compared.check(descriptor, digest, size);
    }
    let mut opened = Stoppable { inner: source.open(descriptor)?.take(descriptor.size + 1), is_over, failed: None };
    let found = match keep {
        // The store hashes what it keeps; once is enough.
        Some(store) => store.put(&mut opened, descriptor.size.saturating_add(1)).map_err(Error::from),
        None => Digest::of_reader(&mut opened).map_err(|error| unreadable(descriptor, error)),
    };
    // A place that can't be read is no fault of the store.
    if let Some(error) = opened.failed.take() {
        return Err(unreadable(descriptor, error));
    }
    let (digest, size) = found?;
    compared.check(descriptor, digest, size)
}

/// Bytes that end with an error when it is over.
struct Stoppable<'a, R> {
    inner: R,
    is_over: &'a AtomicBool,
    /// What went wrong at the place.
    failed: Option<std::io::Error>,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if self.is_over.load(Ordering::Relaxed) {
                return Err(std::io::Error::other("another one failed"));
            }
            match self.inner.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.failed = Some(error);
                    return Err(kind.into());
                }
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use sluicegate_attestation::identifiers::{EMPTY_CONFIG, LAYER_TAR};
    use sluicegate_ports::images::ImagePlaceError;
    use sluicegate_testkit::MemoryStore;
    use sluicegate_types::{Place, Selector};

    use super::*;

    /// A place where some blobs are, some break off, and some have no end.
    struct Odd;

    struct BreaksOff;

    impl Read for BreaksOff {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the line went dead"))
        }
    }

    impl ImageSource for Odd {
        fn resolve(&self, _: &Selector) -> Result<Descriptor, ImagePlaceError> {
            Err(missing(Digest::of(b"")))
        }

        fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, ImagePlaceError> {
            match descriptor.media_type.as_str() {
                "here" => Ok(Box::new(io::repeat(0))),
                "broken" => Ok(Box::new(BreaksOff)),
                _ => Err(missing(descriptor.digest)),
            }
        }

        fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>, ImagePlaceError> {
            Ok(Vec::new())
        }
    }

    fn missing(digest: Digest) -> ImagePlaceError {
        ImagePlaceError::MissingBlob { place: Place::Layout("/odd".into()), digest }
    }

    fn manifest(layers: &[(&str, u64)]) -> Manifest {
        let layer = |(at, (kind, size)): (usize, &(&str, u64))| Descriptor::new(kind, Digest::of(&[at as u8]), *size);
        Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: Descriptor::new(EMPTY_CONFIG, Digest::of(b"{}"), 2),
            layers: layers.iter().enumerate().map(layer).collect(),
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_first_failure_ends_what_would_take_hours_and_is_what_is_told() {
        let store = MemoryStore::new();
        // Bytes without end are nothing for a store in memory.
        let image = manifest(&[("here", MAX_LAYER), ("here", MAX_LAYER - 1), ("gone", 1)]);
        let error = read_layers(&Odd, &image, None).unwrap_err();
        assert!(matches!(error, Error::Place(ImagePlaceError::MissingBlob { .. })), "{error}");
        for keep in [None, Some(&store as &dyn ContentStore)] {
            let error = read_layers(&Odd, &manifest(&[("broken", 9)]), keep).unwrap_err();
            let words = error.causes().join(": ");
            assert!(
                matches!(error, Error::Io { action: "read", .. }) && words.contains("the line went dead"),
                "{words}"
            );
            let error = read_layers(&Odd, &manifest(&[("here", 9)]), keep).unwrap_err();
            assert!(matches!(error, Error::Content { .. }), "{error}");
        }
    }

    #[test]
    fn layers_beyond_a_limit_are_refused_before_any_is_read() {
        assert_eq!(layers(&manifest(&[(LAYER_TAR, MAX_LAYER), (LAYER_TAR, MAX_LAYER)])).unwrap().len(), 2);
        for layers in
            [&[("gone", 1), ("gone", MAX_LAYER + 1)][..], &[("gone", MAX_LAYER), ("gone", MAX_LAYER), ("gone", 1)]]
        {
            let error = read_layers(&Odd, &manifest(layers), None).unwrap_err();
            assert!(error.to_string().contains("the limit is"), "{error}");
        }
    }
}
