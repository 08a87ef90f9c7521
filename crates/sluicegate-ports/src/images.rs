//! Images and what is attached to them: reading from anywhere, writing to a place that holds one image.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sluicegate_types::{Digest, EnvironmentName, LayoutSelector, TagName};

use crate::store::{ContentStore, StoreError};

/// Opens places where images are. This version has one kind: OCI layout folders.
pub trait ImagePlaces: Send + Sync {
    /// Opens an existing place for reading.
    fn source(&self, folder: &Path) -> Result<Box<dyn ImageSource>, ImagePlaceError>;

    /// Opens a place for writing; it need not exist yet.
    fn target(&self, folder: &Path) -> Result<Box<dyn ImageTarget>, ImagePlaceError>;
}

/// A place that images are read from. Nothing it says is believed beyond the digest that was asked for.
pub trait ImageSource {
    /// The image that `selector` names; several or none are errors.
    fn resolve(&self, selector: &LayoutSelector) -> Result<Descriptor, ImagePlaceError>;

    /// The bytes of a blob, not yet hashed; a size other than the descriptor's is an error of whoever reads.
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, ImagePlaceError>;

    /// Descriptors of the manifests whose `subject` is this digest.
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImagePlaceError>;
}

/// A place that one image is written to.
pub trait ImageTarget {
    /// The image that is there now, and its tags.
    fn current(&self) -> Result<Option<Occupant>, ImagePlaceError>;

    /// Writes every blob of `publication` from the store, then makes the image, its referrers and its tags visible in one
    /// step. Refuses with [`ImagePlaceError::Moved`] if the place does not hold `publication.expected` at that moment.
    fn publish(&self, publication: &Publication, store: &dyn ContentStore) -> Result<(), ImagePlaceError>;

    /// Writes `referrers` and `blobs` from the store, then makes the referrers visible beside everything that is there: the image,
    /// its tags, other referrers and an environment's mark stay as they are, whoever attaches at the same time. What is attached
    /// already is there once. Refuses with [`ImagePlaceError::NoImage`] if the place does not hold `image` at that moment.
    fn attach(
        &self,
        image: &Digest,
        referrers: &[Descriptor],
        blobs: &[Digest],
        store: &dyn ContentStore,
    ) -> Result<(), ImagePlaceError>;
}

/// What a place holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// The image.
    pub image: Digest,
    /// Its tags.
    pub tags: Vec<TagName>,
    /// The environment whose place this is, if it was promoted to.
    pub environment: Option<String>,
}

/// An image with everything that is attached to it, all of it in the content store.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The image's manifest.
    pub image: Descriptor,
    /// Its tags.
    pub tags: Vec<TagName>,
    /// Manifests that refer to it.
    pub referrers: Vec<Descriptor>,
    /// Every other blob that these reach: layers, configurations, bundles, reports.
    pub blobs: Vec<Digest>,
    /// What the place must hold when this becomes visible.
    pub expected: Option<Digest>,
    /// The environment that this is a promotion to. A place that bears an environment's mark takes nothing else.
    pub environment: Option<EnvironmentName>,
}

/// An OCI content descriptor (image-spec, "descriptor").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its content address.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// The artifact type of a manifest in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, artifact_type: None, annotations: BTreeMap::new() }
    }
}

/// An OCI image manifest (image-spec, "manifest"). Unknown keys are left alone when reading; the bytes are what is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// The manifest's own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// Layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Why a place can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ImagePlaceError {
    /// No OCI layout there, or a broken one.
    #[error("{path} is not an OCI layout: {reason}")]
    NotALayout {
        /// The folder.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Nothing by that name.
    #[error("no image {selector} in {path}{hint}")]
    NoImage {
        /// The folder.
        path: PathBuf,
        /// What was asked for.
        selector: String,
        /// What is there; may be empty.
        hint: String,
    },
    /// A blob that is named and not there.
    #[error("blob {digest} is missing in {path}")]
    MissingBlob {
        /// The folder.
        path: PathBuf,
        /// The blob.
        digest: Digest,
    },
    /// Bytes that are not what their name says.
    #[error("blob {digest} in {path} is damaged: its bytes have the digest {found}")]
    Corrupt {
        /// The folder.
        path: PathBuf,
        /// The blob.
        digest: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// Somebody else changed the place in between.
    #[error("{path} changed meanwhile: it should hold {expected} and holds {found}; nothing was changed, ask again")]
    Moved {
        /// The folder.
        path: PathBuf,
        /// What was seen before.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A place of an environment, written to by something that is no promotion to it.
    #[error("{path} is the place of the environment {environment}: only a promotion to it writes there")]
    OfEnvironment {
        /// The folder.
        path: PathBuf,
        /// The environment.
        environment: String,
    },
    /// The content store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file system.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
