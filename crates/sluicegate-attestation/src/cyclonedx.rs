//! The small view of a CycloneDX JSON document (1.4 to 1.7) that policies read; the document itself is kept as bytes.
//! Nothing is verified here.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use sluicegate_types::Digest;

use crate::{
    cyclonedx_schema,
    cyclonedx_schema::SchemaError,
    licences::{self, Named, Written},
    trivy_report::within_depth,
};

pub use crate::sbom::{About, Component, Sbom};

/// How deep a document may be nested (DESIGN section 7).
const DEPTH: usize = 128;
/// How many components one document may hold, nested ones included.
const COMPONENTS: usize = 500_000;

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
    /// It is not what the official schema of its version says, or of a version that is not read.
    #[error(transparent)]
    Schema(#[from] SchemaError),
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

/// Reads a document by the official schema of its version and by this view.
pub fn read(document: &Value) -> Result<Sbom, CycloneDxError> {
    read_up_to(document, COMPONENTS)
}

/// Every component of the document; an empty list is a document without components, which the caller judges (DESIGN section 5).
pub fn components(sbom: &[u8]) -> Result<Vec<Component>, CycloneDxError> {
    read(&parse(sbom)?).map(|sbom| sbom.components)
}

/// The document in these bytes.
pub fn parse(sbom: &[u8]) -> Result<Value, CycloneDxError> {
    if !within_depth(sbom, DEPTH) {
        return Err(CycloneDxError::Depth);
    }
    serde_json::from_slice(sbom).map_err(|error| CycloneDxError::Syntax(error.to_string()))
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

fn read_up_to(document: &Value, limit: usize) -> Result<Sbom, CycloneDxError> {
    let format = document["bomFormat"].as_str().unwrap_or_default();
    if format != "CycloneDX" {
        return Err(CycloneDxError::Format { found: format.chars().take(32).collect() });
    }
    let raw = RawDocument::deserialize(document).map_err(|error| CycloneDxError::Syntax(error.to_string()))?;
    let metadata = raw.metadata.unwrap_or_default();
    let inside = metadata.component.and_then(|own| own.components).unwrap_or_default();
    let mut open: Vec<(RawComponent, Vec<String>)> =
        raw.components.unwrap_or_default().into_iter().chain(inside).map(|raw| (raw, Vec::new())).collect();
    let mut components = Vec::new();
    while let Some((mut raw, path)) = open.pop() {
        if components.len() == limit {
            return Err(CycloneDxError::TooMany { limit });
        }
        let nested = raw.components.take().unwrap_or_default();
        let component = component(raw, path)?;
        let within: Vec<String> = component.path.iter().chain([&component.name]).cloned().collect();
        open.extend(nested.into_iter().map(|raw| (raw, within.clone())));
        components.push(component);
    }
    // Counted before it is looked at as a whole, which costs more.
    cyclonedx_schema::validate(document)?;
    components.sort();
    let graph = raw.dependencies.unwrap_or_default();
    let related: BTreeSet<String> = graph
        .into_iter()
        .flat_map(|node| std::iter::once(node.reference).chain(node.depends_on.unwrap_or_default()))
        .collect();
    let about = About {
        format: "CycloneDX".to_owned(),
        version: raw.spec_version,
        timestamp: metadata.timestamp.unwrap_or_default(),
        authors: metadata
            .authors
            .into_iter()
            .flatten()
            .filter_map(|author| author.name)
            .chain(tools(metadata.tools))
            .collect(),
        components: components.len(),
        related: related.len(),
    };
    Ok(Sbom { about, components })
}

/// The names of tools, in the form before 1.5 and since.
fn tools(tools: Option<Value>) -> Vec<String> {
    let tools = tools.unwrap_or_default();
    let listed = match &tools {
        Value::Array(old) => old.as_slice(),
        new => new["components"].as_array().map_or(&[][..], Vec::as_slice),
    };
    listed.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect()
}

fn component(raw: RawComponent, path: Vec<String>) -> Result<Component, CycloneDxError> {
    if raw.name.is_empty() {
        return Err(CycloneDxError::Nameless);
    }
    let written: Vec<Written> =
        raw.licenses.unwrap_or_default().into_iter().filter_map(RawLicenseChoice::written).collect();
    let (licenses, license_options) = licences::read(&written, &Named::new());
    let name = match raw.group.filter(|group| !group.is_empty()) {
        Some(group) => format!("{group}/{}", raw.name),
        None => raw.name,
    };
    let by = |named: Option<RawNamed>| named.and_then(|named| named.name).filter(|name| !name.is_empty());
    let supplier = by(raw.supplier).or_else(|| by(raw.manufacturer)).or(raw.publisher.filter(|name| !name.is_empty()));
    Ok(Component {
        name,
        version: raw.version.unwrap_or_default(),
        purl: raw.purl.unwrap_or_default(),
        kind: raw.kind.unwrap_or_default(),
        supplier: supplier.unwrap_or_default(),
        licenses,
        license_options,
        path,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    spec_version: String,
    metadata: Option<RawMetadata>,
    components: Option<Vec<RawComponent>>,
    dependencies: Option<Vec<RawDependency>>,
}

#[derive(Default, Deserialize)]
struct RawMetadata {
    timestamp: Option<String>,
    authors: Option<Vec<RawNamed>>,
    tools: Option<Value>,
    component: Option<RawSubject>,
}

#[derive(Deserialize)]
struct RawSubject {
    components: Option<Vec<RawComponent>>,
}

#[derive(Deserialize)]
struct RawNamed {
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDependency {
    #[serde(rename = "ref")]
    reference: String,
    depends_on: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawComponent {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    name: String,
    group: Option<String>,
    version: Option<String>,
    purl: Option<String>,
    supplier: Option<RawNamed>,
    manufacturer: Option<RawNamed>,
    publisher: Option<String>,
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
    fn written(self) -> Option<Written> {
        let license = self.license;
        let named = license.and_then(|license| license.id.map(Written::Id).or(license.name.map(Written::Name)));
        let written = self.expression.map(Written::Expression).or(named)?;
        (!written.text().is_empty()).then_some(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SBOM: &str = r#"{"bomFormat": "CycloneDX", "specVersion": "1.7",
      "metadata": {"timestamp": "2026-11-25T00:00:00Z", "authors": [{"name": "Ada"}],
        "tools": {"components": [{"type": "application", "name": "trivy"}]},
        "component": {"type": "container", "name": "image", "components": [{"type": "library", "name": "in-the-root"}]}},
      "components": [
        {"type": "library", "bom-ref": "z", "name": "zlib1g", "version": "1", "purl": "pkg:deb/debian/zlib1g@1",
         "supplier": {"name": "Debian"}, "licenses": [{"license": {"name": "Zlib"}}, {"license": {"id": "MIT"}}]},
        {"type": "library", "group": "@scope", "name": "outer", "licenses": [{"expression": "MIT OR Apache-2.0"}],
         "components": [{"type": "library", "name": "inner", "version": "2"}]}
      ],
      "dependencies": [{"ref": "z", "dependsOn": []}]}"#;

    fn read_text(text: &str) -> Result<Sbom, CycloneDxError> {
        read(&parse(text.as_bytes())?)
    }

    #[test]
    fn components_are_listed_with_their_licences_nested_ones_too() {
        let Sbom { about, components: listed } = read_text(SBOM).unwrap();
        let names: Vec<_> = listed.iter().map(|component| component.name.as_str()).collect();
        assert_eq!(names, ["@scope/outer", "in-the-root", "inner", "zlib1g"]);
        assert_eq!(listed[0].licenses, ["Apache-2.0", "MIT"]);
        let options = vec![vec!["Apache-2.0".to_owned()], vec!["MIT".to_owned()]];
        assert_eq!(listed[0].license_options, Some(options));
        assert_eq!(listed[2].path, ["@scope/outer"]);
        assert_eq!((listed[2].version.as_str(), listed[2].purl.as_str(), listed[2].licenses.len()), ("2", "", 0));
        assert_eq!(listed[3].license_options, Some(vec![vec!["MIT".to_owned(), "Zlib".to_owned()]]));
        assert_eq!((listed[3].kind.as_str(), listed[3].supplier.as_str()), ("library", "Debian"));
        assert_eq!((about.timestamp.as_str(), about.components, about.related), ("2026-11-25T00:00:00Z", 4, 1));
        assert_eq!(about.authors, ["Ada", "trivy"]);
    }

    #[test]
    fn two_components_with_one_reference_are_two() {
        let twice = SBOM.replace("\"name\": \"inner\"", "\"bom-ref\": \"z\", \"name\": \"inner\"");
        let read = read_text(&twice);
        // The schema does not say so for nested lists; whoever refuses it says why, and nothing is lost.
        assert!(read.is_err() || read.unwrap().components.len() == 4);
    }

    #[test]
    fn what_is_not_cyclonedx_is_refused() {
        assert!(matches!(read_text("{}"), Err(CycloneDxError::Format { .. })));
        assert!(matches!(read_text("nonsense"), Err(CycloneDxError::Syntax(_))));
        let newer = SBOM.replace("\"1.7\"", "\"2.0\"");
        assert!(matches!(read_text(&newer), Err(CycloneDxError::Schema(SchemaError::Version { .. }))));
        let nameless = SBOM.replace("\"inner\"", "\"\"");
        assert!(matches!(read_text(&nameless), Err(CycloneDxError::Nameless)));
        let odd = SBOM.replacen("\"library\"", "\"banana\"", 1);
        assert!(matches!(read_text(&odd), Err(CycloneDxError::Schema(SchemaError::Invalid { .. }))));
        assert_eq!(components(br#"{"bomFormat":"CycloneDX","specVersion":"1.4","version":1}"#).unwrap(), vec![]);
    }

    #[test]
    fn limits_hold_at_n_and_fail_at_n_plus_1() {
        let document = parse(SBOM.as_bytes()).unwrap();
        assert_eq!(read_up_to(&document, 4).unwrap().components.len(), 4);
        assert!(matches!(read_up_to(&document, 3), Err(CycloneDxError::TooMany { limit: 3 })));
        let nested = |n: usize| {
            format!("{{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.7\",\"x\":{}{}}}", "[".repeat(n), "]".repeat(n))
        };
        assert!(!matches!(components(nested(127).as_bytes()), Err(CycloneDxError::Depth)));
        assert!(matches!(components(nested(128).as_bytes()), Err(CycloneDxError::Depth)));
    }
}
