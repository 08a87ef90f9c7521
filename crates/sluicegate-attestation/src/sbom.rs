//! The small view of an SBOM that policies read, whichever format the document has. `cyclonedx` and `spdx_document` make it.

use serde::{Deserialize, Serialize};

/// A component of an SBOM: a package, a file, an operating system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Component {
    /// Its name, with the group (`group/name`) where there is one.
    pub name: String,
    /// Its version; empty where the document gives none.
    pub version: String,
    /// Its package URL; empty where the document gives none.
    pub purl: String,
    /// `library`, `file`, `operating-system`, …; empty where the document gives none.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who supplies it; empty where the document gives nobody.
    pub supplier: String,
    /// Identifiers of all its licences, sorted; where they can't be read, what is written.
    pub licenses: Vec<String>,
    /// Which licences may be chosen: each is a list that applies together. Empty: nothing is said. `None`: it can't be read.
    pub license_options: Option<Vec<Vec<String>>>,
    /// The names of the components that it is nested in, outermost first.
    pub path: Vec<String>,
}

/// What a document says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct About {
    /// `CycloneDX` or `SPDX`.
    pub format: String,
    /// Its version.
    pub version: String,
    /// When it was made; empty where it does not say.
    pub timestamp: String,
    /// Who or what made it: authors, manufacturers, tools.
    pub authors: Vec<String>,
    /// How many components it has.
    pub components: usize,
    /// How many components its dependency graph speaks of.
    pub related: usize,
}

/// A document as policies see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sbom {
    /// What it says of itself.
    pub about: About,
    /// Every component, nested ones included, sorted; what the document as a whole is about is none.
    pub components: Vec<Component>,
}
