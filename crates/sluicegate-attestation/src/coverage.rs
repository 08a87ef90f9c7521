//! What a scan read, saw and left, and could not know. It travels with the scan's statement.

use serde::{Deserialize, Serialize};
use sluicegate_types::Digest;

/// What a scan read, saw and left, and could not know (trust model 4). A list, never one yes or no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Coverage {
    /// Package lists that an analyser read.
    pub read: Vec<Read>,
    /// What was seen in the image and not read.
    pub unread: Vec<Gap>,
    /// The operating system, if one was recognised.
    pub system: Option<System>,
    /// What can be executed and is in no package; `None` where nobody can say, as its package manager's lists are not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executables: Option<Executables>,
}

/// What can be executed and is in no package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Executables {
    /// By content, those of the base first, then by place; at most 500.
    pub listed: Vec<Executable>,
    /// How many more the base has.
    pub beyond: u64,
    /// How many more the uppermost layer has. Written where there are any.
    #[serde(default, skip_serializing_if = "is_none")]
    pub beyond_products: u64,
}

fn is_none(number: &u64) -> bool {
    *number == 0
}

/// Something that can be executed, by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Executable {
    /// The first path in the image.
    pub place: String,
    /// The content's digest.
    pub digest: Digest,
    /// How many more paths have the same content.
    pub more: u64,
    /// Whether it is from the uppermost layer: in an image that a pipeline assembled from its products, which provenance explains.
    pub product: bool,
}

/// A package list that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Read {
    /// What it is: `debian`, `python-pkg`, …
    pub kind: String,
    /// Where it stands, as the scanner writes it.
    pub place: String,
    /// How many packages it gave.
    pub packages: u64,
    /// Whether it is a lock file, which says what may be installed. Written where it is so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lock_file: bool,
}

/// Something that keeps a scan from being whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gap {
    /// What kind of gap: `lock-file`, `package-list`, `system-unknown`, `system-ended`, `system-not-in-database`,
    /// `system-contradicted`, `ecosystem-not-in-database`, `records-rewritten`, `nothing-recognised`, `java-archive`. A strict gate
    /// makes some of `executable` and `executables-unknown`.
    pub kind: String,
    /// The path in the image, or the system's name.
    pub place: String,
    /// The digest of the file, or of the image where there is no file.
    pub digest: Digest,
    /// One sentence for a person.
    pub reason: String,
}

/// An operating system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct System {
    /// Its family: `debian`.
    pub family: String,
    /// Its release: `12.11`.
    pub release: String,
    /// Whether its support has ended, as far as the scanner knows.
    pub ended: bool,
}
