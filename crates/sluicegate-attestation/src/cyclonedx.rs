//! The small view of a CycloneDX JSON document (1.4 to 1.7) that policies read; the document itself is kept as bytes.
//! Nothing is verified here.

use serde::{Deserialize, Serialize};
use sluicegate_types::Digest;

use crate::trivy_report::within_depth;

/// How deep a document may be nested (DESIGN section 7).
const DEPTH: usize = 128;
/// How many components one document may hold, nested ones included.
const COMPONENTS: usize = 500_000;

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
    /// SPDX ids, licence names and licence expressions, as written, sorted.
    pub licenses: Vec<String>,
}

/// Why bytes are not an SBOM this version can read.
#[derive(Debug, thiserror::Error)]
pub enum CycloneDxError {
    /// Not JSON, or JSON of another shape.
    #[error("not a CycloneDX JSON document: {0}")]
    Syntax(String),
    /// Nested too deep.
    #[error("not a CycloneDX JSON document: nested deeper than {DEPTH}")]
    Depth,
    /// JSON that does not say it is CycloneDX.
    #[error("not a CycloneDX document: bomFormat is {found:?}")]
    Format {
        /// What it says.
        found: String,
    },
    /// A version of the format that this version of the program does not read.
    #[error("CycloneDX {found}: this version reads 1.4 to 1.7")]
    Version {
        /// What it says.
        found: String,
    },
    /// More than this version takes.
    #[error("CycloneDX document with more than {limit} components")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A component that names nothing.
    #[error("CycloneDX document: a component has no name")]
    Nameless,
}

/// Every component of the document, nested ones included, sorted; the document's own subject (`metadata.component`) is not one.
/// An empty list is a document without components, which the caller judges (DESIGN section 5).
pub fn components(sbom: &[u8]) -> Result<Vec<Component>, CycloneDxError> {
    components_up_to(sbom, COMPONENTS)
}

/// A serial number of a document: a UUID that says it is of version 8 (RFC 9562, section 5.8: own making), made of the digest that
/// tells it from other documents.
pub fn serial_number(subject: &Digest) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&subject.as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn components_up_to(sbom: &[u8], limit: usize) -> Result<Vec<Component>, CycloneDxError> {
    if !within_depth(sbom, DEPTH) {
        return Err(CycloneDxError::Depth);
    }
    let document: RawDocument =
        serde_json::from_slice(sbom).map_err(|error| CycloneDxError::Syntax(error.to_string()))?;
    if document.bom_format != "CycloneDX" {
        return Err(CycloneDxError::Format { found: document.bom_format.chars().take(32).collect() });
    }
    if !["1.4", "1.5", "1.6", "1.7"].contains(&document.spec_version.as_str()) {
        return Err(CycloneDxError::Version { found: document.spec_version.chars().take(16).collect() });
    }
    let mut out = Vec::new();
    let mut open = document.components.unwrap_or_default();
    while let Some(mut raw) = open.pop() {
        if out.len() == limit {
            return Err(CycloneDxError::TooMany { limit });
        }
        open.append(raw.components.get_or_insert_default());
        out.push(component(raw)?);
    }
    out.sort();
    Ok(out)
}

fn component(raw: RawComponent) -> Result<Component, CycloneDxError> {
    if raw.name.is_empty() {
        return Err(CycloneDxError::Nameless);
    }
    let mut licenses: Vec<String> =
        raw.licenses.unwrap_or_default().into_iter().filter_map(RawLicenseChoice::text).collect();
    licenses.sort_unstable();
    licenses.dedup();
    let name = match raw.group.filter(|group| !group.is_empty()) {
        Some(group) => format!("{group}/{}", raw.name),
        None => raw.name,
    };
    Ok(Component { name, version: raw.version.unwrap_or_default(), purl: raw.purl.unwrap_or_default(), licenses })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    bom_format: String,
    #[serde(default)]
    spec_version: String,
    components: Option<Vec<RawComponent>>,
}

#[derive(Deserialize)]
struct RawComponent {
    #[serde(default)]
    name: String,
    group: Option<String>,
    version: Option<String>,
    purl: Option<String>,
    licenses: Option<Vec<RawLicenseChoice>>,
    components: Option<Vec<Self>>,
}

#[derive(Deserialize)]
struct RawLicenseChoice {
    expression: Option<String>,
    license: Option<RawLicense>,
}

#[derive(Deserialize)]
struct RawLicense {
    id: Option<String>,
    name: Option<String>,
}

impl RawLicenseChoice {
    fn text(self) -> Option<String> {
        let license = self.license.and_then(|license| license.id.or(license.name));
        self.expression.or(license).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SBOM: &str = r#"{"bomFormat": "CycloneDX", "specVersion": "1.7", "metadata": {"component": {"name": "image"}},
      "components": [
        {"name": "zlib1g", "version": "1", "purl": "pkg:deb/debian/zlib1g@1", "licenses": [{"license": {"name": "Zlib"}}, {"license": {"id": "MIT"}}]},
        {"group": "@scope", "name": "outer", "licenses": [{"expression": "MIT OR Apache-2.0"}], "components": [{"name": "inner", "version": "2"}]}
      ]}"#;

    #[test]
    fn components_are_listed_with_their_licences_nested_ones_too() {
        let listed = components(SBOM.as_bytes()).unwrap();
        let names: Vec<_> = listed.iter().map(|component| component.name.as_str()).collect();
        assert_eq!(names, ["@scope/outer", "inner", "zlib1g"]);
        assert_eq!(listed[0].licenses, ["MIT OR Apache-2.0"]);
        assert_eq!(listed[2].licenses, ["MIT", "Zlib"]);
        assert_eq!((listed[1].version.as_str(), listed[1].purl.as_str()), ("2", ""));
    }

    #[test]
    fn what_is_not_cyclonedx_is_refused() {
        assert!(matches!(components(b"{}"), Err(CycloneDxError::Format { .. })));
        assert!(matches!(components(b"nonsense"), Err(CycloneDxError::Syntax(_))));
        let newer = SBOM.replace("\"1.7\"", "\"2.0\"");
        assert!(matches!(components(newer.as_bytes()), Err(CycloneDxError::Version { .. })));
        let nameless = SBOM.replace("\"inner\"", "\"\"");
        assert!(matches!(components(nameless.as_bytes()), Err(CycloneDxError::Nameless)));
        assert_eq!(components(br#"{"bomFormat":"CycloneDX","specVersion":"1.4"}"#).unwrap(), vec![]);
    }

    #[test]
    fn limits_hold_at_n_and_fail_at_n_plus_1() {
        assert_eq!(components_up_to(SBOM.as_bytes(), 3).unwrap().len(), 3);
        assert!(matches!(components_up_to(SBOM.as_bytes(), 2), Err(CycloneDxError::TooMany { limit: 2 })));
        let nested = |n: usize| {
            format!("{{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.7\",\"x\":{}{}}}", "[".repeat(n), "]".repeat(n))
        };
        assert_eq!(components(nested(127).as_bytes()).unwrap(), vec![]);
        assert!(matches!(components(nested(128).as_bytes()), Err(CycloneDxError::Depth)));
    }
}
