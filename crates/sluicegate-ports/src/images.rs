//! Images and what is attached to them: reading from anywhere, writing to a place that holds one image.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use sluicegate_types::{Digest, EnvironmentName, Place, Platform, Selector, TagName};

use crate::store::{ContentStore, StoreError};

/// Opens places where images are: OCI layout folders and repositories of registries.
pub trait ImagePlaces: Send + Sync {
    /// Opens an existing place for reading.
    fn source(&self, place: &Place) -> Result<Box<dyn ImageSource>, ImagePlaceError>;

    /// Opens a place for writing; it need not exist yet.
    fn target(&self, place: &Place) -> Result<Box<dyn ImageTarget>, ImagePlaceError>;
}

/// A place that images are read from. Nothing it says is believed beyond the digest that was asked for.
pub trait ImageSource: Send + Sync {
    /// The image that `selector` names; several or none are errors.
    fn resolve(&self, selector: &Selector) -> Result<Descriptor, ImagePlaceError>;

    /// The bytes of a blob, not yet hashed; a size other than the descriptor's is an error of whoever reads.
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, ImagePlaceError>;

    /// The file of this machine that holds a blob, if it is one: somebody else's, and not looked at yet.
    fn file(&self, _descriptor: &Descriptor) -> Option<PathBuf> {
        None
    }

    /// Whether reading here is reading over a network.
    fn is_far(&self) -> bool {
        false
    }

    /// Where the manifests attached to an image are listed, each place with what it lists: other verifiers look into some of them only.
    fn listings(&self, subject: &Digest) -> Result<Vec<Listing>, ImagePlaceError> {
        let manifests = self.referrers(subject)?.into_iter().map(|one| one.digest).collect();
        Ok(vec![Listing { by: ListedBy::Layout, manifests }])
    }

    /// Descriptors of the manifests whose `subject` is said to be this digest, each digest once. That there are none is said only by
    /// a place that has answered in form everywhere it was to be asked; whoever reads a manifest looks at its `subject` itself.
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, ImagePlaceError>;
}

/// One list of what is attached to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Which list.
    pub by: ListedBy,
    /// The manifests that stand in it.
    pub manifests: Vec<Digest>,
}

/// Lists of what is attached to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedBy {
    /// The index of a layout.
    Layout,
    /// A registry's referrers API.
    Api,
    /// A registry's fallback tag, `sha256-HEX`.
    FallbackTag,
}

/// A place that images are written to: a layout holds one, a repository of a registry one for each tag.
pub trait ImageTarget: Send + Sync {
    /// The image that is there now, and its tags: in a layout the only one, in a registry the one that `tag` names.
    fn current(&self, tag: Option<&TagName>) -> Result<Option<Occupant>, ImagePlaceError>;

    /// Lets the place come by blobs on its own, without their bytes coming through here: it has them, or gets them from `from`, another
    /// repository of the same registry. Gives those that it says it has now, each as large as described; [`ImageTarget::publish`] of this
    /// same target then needs no bytes of them in the store, and asks the place for each once more before a tag names the image.
    ///
    /// Nobody here reads or hashes what is taken over: that its bytes are those of its digest is the registry's word, until whoever
    /// verifies the image there hashes them. So a promotion takes nothing over (trust model 10).
    fn take_over(&self, _blobs: &[Descriptor], _from: &Place) -> Result<Vec<Descriptor>, ImagePlaceError> {
        Ok(Vec::new())
    }

    /// Writes every blob of `publication` from the store, then makes the image and its referrers visible, its tags last: a layout in
    /// one step, a registry in that order, so that a crash leaves an image without a tag and never a tag without its attestations.
    /// Refuses with [`ImagePlaceError::Moved`] if a layout, or the tag of a registry, does not hold `publication.expected` at that
    /// moment; the tag of a registry that is no promotion's never moves at all.
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
    /// The manifests that it names, if it is an index: those that others name before those.
    pub children: Vec<Descriptor>,
    /// Manifests that refer to it, or to one of these.
    pub referrers: Vec<Descriptor>,
    /// Every blob that the image reaches: layers and configuration.
    pub blobs: Vec<Digest>,
    /// Every blob that the referrers reach: bundles, reports, configurations.
    pub evidence: Vec<Digest>,
    /// Manifests with tags of their own that other tools look for beside the image, where there is a registry; all that is there by such a
    /// tag already stays.
    pub beside: Vec<Beside>,
    /// Where the image comes from: a registry may have its blobs in another repository already.
    pub source: Option<Place>,
    /// What the place must hold when this becomes visible.
    pub expected: Option<Digest>,
    /// The environment that this is a promotion to. A place that bears an environment's mark takes nothing else.
    pub environment: Option<EnvironmentName>,
}

/// A manifest that is found by a tag made of the image's digest.
#[derive(Clone, Debug)]
pub struct Beside {
    /// The tag.
    pub tag: TagName,
    /// The manifest.
    pub manifest: Descriptor,
    /// The blobs that it reaches.
    pub blobs: Vec<Digest>,
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

/// An OCI image index (image-spec, "image-index") or Docker's manifest list. Unknown keys are left alone when reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    /// 2.
    pub schema_version: u32,
    /// The index's own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests it names.
    pub manifests: Vec<IndexEntry>,
    /// What it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
}

/// A manifest that an index names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Which.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// The machines it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
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
    #[error("no image {selector} in {place}{hint}")]
    NoImage {
        /// The place.
        place: Place,
        /// What was asked for.
        selector: String,
        /// What is there; may be empty.
        hint: String,
    },
    /// A blob that is named and not there.
    #[error("blob {digest} is missing in {place}")]
    MissingBlob {
        /// The place.
        place: Place,
        /// The blob.
        digest: Digest,
    },
    /// Bytes that are not what their name says.
    #[error("blob {digest} in {place} is damaged: its bytes have the digest {found}")]
    Corrupt {
        /// The place.
        place: Place,
        /// The blob.
        digest: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// Somebody else changed the place in between.
    #[error("{place} changed meanwhile: it should hold {expected} and holds {found}; nothing was changed, ask again")]
    Moved {
        /// The place.
        place: Place,
        /// What was seen before.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A place of an environment, written to by something that is no promotion to it.
    #[error("{place} is the place of the environment {environment}: only a promotion to it writes there")]
    OfEnvironment {
        /// The place.
        place: Place,
        /// The environment.
        environment: String,
    },
    /// A registry did not do what was asked of it.
    #[error("cannot {action}")]
    Registry {
        /// What was being done, to what.
        action: String,
        /// Why not.
        #[source]
        fault: RegistryFault,
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

/// What a registry, or the way to it, did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RegistryFault {
    /// Which kind it is.
    pub kind: FaultKind,
    /// What happened, with the request, for a person.
    pub reason: String,
}

/// Kinds of [`RegistryFault`]; each has a word for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// No connection, or it broke, also when it was tried again.
    Unreachable,
    /// The deadline went by.
    Deadline,
    /// An answer with a status that ends the matter.
    Status,
    /// The registry wants somebody else's name and password, or does not take those it got.
    Unauthorized,
    /// A token service of another host than the registry's own.
    TokenServiceElsewhere,
    /// A redirect, an upload or the next page to an address that is not followed.
    AddressRefused,
    /// More redirects than are followed, or in a circle.
    Redirects,
    /// An answer that is not what the specification says.
    OutOfForm,
    /// An answer beyond a limit.
    TooLarge,
    /// Bytes, or a digest in an answer, that are not those of the digest that was asked for.
    DigestMismatch,
    /// A tag that the registry does not let anyone write.
    TagImmutable,
    /// A kind of manifest that the registry does not take.
    MediaTypeRefused,
    /// What was written is not there when it is read back.
    NotKept,
    /// The configuration of this machine: credentials, certificates, proxies.
    Configuration,
}

impl FaultKind {
    /// The word for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreachable => "registry_unreachable",
            Self::Deadline => "registry_deadline",
            Self::Status => "registry_status",
            Self::Unauthorized => "registry_unauthorized",
            Self::TokenServiceElsewhere => "token_service_elsewhere",
            Self::AddressRefused => "address_refused",
            Self::Redirects => "too_many_redirects",
            Self::OutOfForm => "registry_out_of_form",
            Self::TooLarge => "registry_too_large",
            Self::DigestMismatch => "digest_mismatch",
            Self::TagImmutable => "tag_immutable",
            Self::MediaTypeRefused => "media_type_refused",
            Self::NotKept => "registry_not_kept",
            Self::Configuration => "registry_configuration",
        }
    }
}
