//! `index.json` and `oci-layout`: bytes to types and back.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sluicegate_attestation::one_reading;
use sluicegate_ports::images::{Descriptor, ImagePlaceError};
use sluicegate_types::TagName;

use crate::layout::open_regular;

/// The annotation that carries a tag (image-spec, "annotations").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Our annotation of an index: the environment whose place this is.
pub(crate) const ENVIRONMENT: &str = "sluicegate.dev/environment";
/// cosign's annotation for the image itself; `cosign --local-image` refuses a layout without it.
pub(crate) const COSIGN_KIND: &str = "kind";
/// Its value.
pub(crate) const COSIGN_IMAGE: &str = "dev.cosignproject.cosign/image";
/// What all of cosign's values for it begin with.
const COSIGN_KINDS: &str = "dev.cosignproject.cosign/";
/// Bytes of `index.json` and of any manifest (DESIGN section 7).
pub(crate) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Entries of an index (DESIGN section 7).
pub(crate) const MAX_ENTRIES: usize = 1024;
pub(crate) const LAYOUT_FILE: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image index.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Whether an entry that can't be read, such as one with a digest of another algorithm, may be an image: it has neither a tag nor
    /// a type.
    #[serde(skip)]
    pub(crate) may_hold_more: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireIndex {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Vec<serde_json::Value>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Index {
    /// Reads the index of the layout `folder`; `None` if there is no layout at all.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, ImagePlaceError> {
        let fault = |reason: String| ImagePlaceError::NotALayout { path: folder.to_owned(), reason };
        let Some(bytes) = bytes(folder)? else { return Ok(None) };
        one_reading::check(&bytes).map_err(|reason| fault(format!("index.json: {reason}")))?;
        let wire: WireIndex = serde_json::from_slice(&bytes).map_err(|error| fault(format!("index.json: {error}")))?;
        let WireIndex { schema_version, media_type, manifests: entries, annotations } = wire;
        if schema_version != 2 {
            return Err(fault(format!("index.json has schemaVersion {schema_version}, not 2")));
        }
        if entries.len() > MAX_ENTRIES {
            return Err(fault(format!("index.json names more than {MAX_ENTRIES} manifests")));
        }
        let mut index = Self { schema_version, media_type, manifests: Vec::new(), annotations, may_hold_more: false };
        for entry in entries {
            let annotation = |name: &str| entry["annotations"][name].as_str().unwrap_or_default();
            let names_an_image = !annotation(REF_NAME).is_empty() || annotation(COSIGN_KIND).starts_with(COSIGN_KINDS);
            let has_type = !entry["artifactType"].is_null();
            match serde_json::from_value(entry) {
                Ok(descriptor) => index.manifests.push(descriptor),
                // Other readers may take it for the image.
                Err(error) if names_an_image => {
                    return Err(fault(format!("index.json: an entry with a name: {error}")));
                }
                // Anyone may attach junk; what is needed is missed by its digest.
                Err(_) => index.may_hold_more |= !has_type,
            }
        }
        Ok(Some(index))
    }

    /// The index of a layout with everything that stands in it, for a writer who adds to it.
    pub(crate) fn read_as_it_is(folder: &Path) -> Result<serde_json::Value, ImagePlaceError> {
        let fault = |reason: String| ImagePlaceError::NotALayout { path: folder.to_owned(), reason };
        let bytes = bytes(folder)?.ok_or_else(|| fault("there is no index.json".to_owned()))?;
        serde_json::from_slice(&bytes).map_err(|error| fault(format!("index.json: {error}")))
    }
}

/// The bytes of the index of `folder`; `None` if there is none.
fn bytes(folder: &Path) -> Result<Option<Vec<u8>>, ImagePlaceError> {
    let path = folder.join("index.json");
    let file = match open_regular(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            let reason = "index.json is not a regular file".to_owned();
            return Err(ImagePlaceError::NotALayout { path: folder.to_owned(), reason });
        }
        Err(source) => return Err(ImagePlaceError::Io { action: "open", path, source }),
    };
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes).map_err(|source| ImagePlaceError::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    if bytes.len() as u64 > MAX_MANIFEST {
        let reason = format!("index.json is larger than the limit of {MAX_MANIFEST} bytes");
        return Err(ImagePlaceError::NotALayout { path: folder.to_owned(), reason });
    }
    Ok(Some(bytes))
}

/// The tag that a descriptor of an index carries.
pub(crate) fn tag_of(descriptor: &Descriptor) -> Option<TagName> {
    descriptor.annotations.get(REF_NAME).and_then(|text| text.parse().ok())
}
