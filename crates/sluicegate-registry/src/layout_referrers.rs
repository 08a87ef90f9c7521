//! What is attached to an image of a layout, in whichever way the tool that wrote the layout lists it (trust model 12).
//!
//! Three ways are known: manifests that `index.json` lists, with or without a name; an index that it names `sha256-HEX`, as a registry's
//! fallback tag; and one with the annotation `org.opencontainers.image.referrer.subject`. Some tools list nothing: then the blobs
//! themselves are looked through, within limits, for manifests with this subject. None of it decides anything: what is attached to an
//! image is attached by the manifest's own subject.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
};

use sluicegate_attestation::identifiers::{IMAGE_INDEX, IMAGE_MANIFEST};
use sluicegate_ports::images::{Descriptor, ImagePlaceError, ImageSource, Manifest};
use sluicegate_types::Digest;

use crate::{
    layout::{LayoutSource, blob_path, open_regular},
    layout_index::{MAX_ENTRIES, MAX_MANIFEST, REF_NAME},
};

/// The annotation of an index of referrers: the image that they refer to.
const REFERRER_SUBJECT: &str = "org.opencontainers.image.referrer.subject";
/// Files that are looked through where nothing is listed, and bytes of all that are read.
const MAX_FILES: usize = 20_000;
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Whether an entry of `index.json` is a list of what is attached to some image, and no image.
pub(crate) fn is_list(descriptor: &Descriptor) -> bool {
    let named = descriptor.annotations.get(REF_NAME).and_then(|name| name.strip_prefix("sha256-"));
    let is_fallback = named.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    descriptor.media_type == IMAGE_INDEX && (is_fallback || descriptor.annotations.contains_key(REFERRER_SUBJECT))
}

impl LayoutSource {
    pub(crate) fn listed_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImagePlaceError> {
        let mut listed: Vec<Descriptor> =
            self.index.manifests.iter().filter(|one| one.media_type == IMAGE_MANIFEST).cloned().collect();
        let fallback = format!("sha256-{}", subject.hex());
        let is_of_subject = |list: &&Descriptor| {
            let names = list.annotations.get(REF_NAME) == Some(&fallback);
            names || list.annotations.get(REFERRER_SUBJECT).is_some_and(|of| *of == subject.to_string())
        };
        for list in self.index.manifests.iter().filter(|entry| is_list(entry)).filter(is_of_subject) {
            listed.extend(self.entries_of(list)?);
        }
        let mut seen = BTreeSet::from([*subject]);
        let mut out = Vec::new();
        for descriptor in listed {
            if seen.insert(descriptor.digest) && self.refers_to(&descriptor, subject)? {
                out.push(Descriptor { annotations: Default::default(), ..descriptor });
            }
        }
        Ok(if out.is_empty() { self.unlisted(subject) } else { out })
    }

    /// The entries of a list; what is no list, or not there, has none: anyone may attach junk.
    fn entries_of(&self, list: &Descriptor) -> Result<Vec<Descriptor>, ImagePlaceError> {
        #[derive(serde::Deserialize)]
        struct Wire {
            manifests: Vec<serde_json::Value>,
        }
        let Some(bytes) = self.whole(list)? else { return Ok(Vec::new()) };
        let Ok(Wire { manifests }) = serde_json::from_slice(&bytes) else { return Ok(Vec::new()) };
        let entries = manifests.into_iter().take(MAX_ENTRIES).filter_map(|entry| serde_json::from_value(entry).ok());
        Ok(entries.filter(|entry: &Descriptor| entry.media_type == IMAGE_MANIFEST).collect())
    }

    fn refers_to(&self, descriptor: &Descriptor, subject: &Digest) -> Result<bool, ImagePlaceError> {
        let Some(bytes) = self.whole(descriptor)? else { return Ok(false) };
        let manifest = serde_json::from_slice::<Manifest>(&bytes);
        Ok(manifest.is_ok_and(|manifest| manifest.subject.is_some_and(|own| own.digest == *subject)))
    }

    /// The bytes of a manifest, hashed; `None` if it is not there, too large or not as large as described. Other bytes than its digest's
    /// are an error: whoever holds a layout holds it whole.
    fn whole(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, ImagePlaceError> {
        if descriptor.size > MAX_MANIFEST {
            return Ok(None);
        }
        let opened = match self.open(descriptor) {
            // What is not there refers to nothing; whoever needed it will miss it by its name.
            Err(ImagePlaceError::MissingBlob { .. }) => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        opened.take(MAX_MANIFEST + 1).read_to_end(&mut bytes).map_err(|source| ImagePlaceError::Io {
            action: "read",
            path: blob_path(&self.folder, &descriptor.digest),
            source,
        })?;
        let found = Digest::of(&bytes);
        if found != descriptor.digest {
            return Err(ImagePlaceError::Corrupt { place: self.place(), digest: descriptor.digest, found });
        }
        Ok((bytes.len() as u64 == descriptor.size).then_some(bytes))
    }

    /// Manifests with this subject among the blobs, where none is listed. What is beyond the limits, or can't be read, is not found: that
    /// something is there is all that this can say.
    fn unlisted(&self, subject: &Digest) -> Vec<Descriptor> {
        self.among_blobs.get_or_init(|| self.look_through()).get(subject).cloned().unwrap_or_default()
    }

    /// Every manifest among the blobs that refers to something, by what it refers to; looked for once, whatever is asked for.
    fn look_through(&self) -> BTreeMap<Digest, Vec<Descriptor>> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Referring {
            artifact_type: Option<String>,
            subject: Option<Descriptor>,
        }
        let folder = self.folder.join("blobs/sha256");
        let mut out: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
        let Ok(files) = fs::read_dir(&folder) else { return out };
        let names = files.take(MAX_FILES).flatten().filter_map(|file| file.file_name().into_string().ok());
        let mut digests: Vec<Digest> = names.filter_map(|name| Digest::from_hex(&name).ok()).collect();
        digests.sort();
        let mut budget = MAX_BYTES;
        for digest in digests {
            let Ok(file) = open_regular(&folder.join(digest.hex())) else { continue };
            let size = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
            if size > MAX_MANIFEST || size > budget {
                continue;
            }
            // A layer or another archive is known by its first byte.
            let mut bytes = Vec::new();
            let mut file = file.take(size);
            if (&mut file).take(1).read_to_end(&mut bytes).is_err() || bytes != b"{" {
                continue;
            }
            budget -= size;
            if file.read_to_end(&mut bytes).is_err() || Digest::of(&bytes) != digest {
                continue;
            }
            let Ok(Referring { artifact_type, subject: Some(subject) }) = serde_json::from_slice(&bytes) else {
                continue;
            };
            if subject.digest != digest {
                let found = Descriptor::new(IMAGE_MANIFEST, digest, bytes.len() as u64);
                out.entry(subject.digest).or_default().push(Descriptor { artifact_type, ..found });
            }
        }
        out
    }
}
