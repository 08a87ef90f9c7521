//! Reads an SPDX 2.3 document in JSON (<https://spdx.github.io/spdx-spec/v2.3/>) into the small view of an SBOM that policies read.
//! Nothing is verified here. Tag-value, RDF and YAML are not read, nor is any other version.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use sluicegate_types::UnixTime;

use crate::{
    licences::{self, Named, Written},
    sbom::{About, Component, Sbom},
    spdx_schema::{self, SpdxSchemaError},
    strict_json,
    trivy_report::within_depth,
};

/// How deep a document may be nested (DESIGN section 7).
const DEPTH: usize = 128;
/// How many packages, files and snippets one document may have, and how many components they may come to.
const ELEMENTS: usize = 500_000;
/// How many relationships one document may have.
const RELATIONSHIPS: usize = 4_000_000;

/// How many licences of one element are compared with each other before they are joined.
const MAX_COMPARED: usize = 64;

/// What the document as a whole can be about: the words that Trivy and Syft have for an image, a source tree and a folder.
const SUBJECTS: [&str; 3] = ["CONTAINER", "FILE", "SOURCE"];

/// Relationships by which an element depends on another or consists of it (SPDX 2.3, section 11.1).
const DEPENDENCIES: [&str; 20] = [
    "BUILD_DEPENDENCY_OF",
    "BUILD_TOOL_OF",
    "CONTAINED_BY",
    "CONTAINS",
    "DEPENDENCY_MANIFEST_OF",
    "DEPENDENCY_OF",
    "DEPENDS_ON",
    "DEV_DEPENDENCY_OF",
    "DEV_TOOL_OF",
    "DYNAMIC_LINK",
    "HAS_PREREQUISITE",
    "OPTIONAL_COMPONENT_OF",
    "OPTIONAL_DEPENDENCY_OF",
    "PACKAGE_OF",
    "PREREQUISITE_FOR",
    "PROVIDED_DEPENDENCY_OF",
    "RUNTIME_DEPENDENCY_OF",
    "STATIC_LINK",
    "TEST_DEPENDENCY_OF",
    "TEST_TOOL_OF",
];

/// Why a document is no SPDX that this version can read.
#[derive(Debug, thiserror::Error)]
pub enum SpdxError {
    /// SPDX in one of its other forms.
    #[error("an SPDX document in {form}: only JSON is read")]
    OtherForm {
        /// Which.
        form: &'static str,
    },
    /// Not JSON, or JSON of another shape.
    #[error("not an SPDX JSON document (only JSON is read): {0}")]
    Syntax(String),
    /// Nested too deep.
    #[error("not an SPDX JSON document: nested deeper than {DEPTH}")]
    Depth,
    /// JSON that does not say it is SPDX.
    #[error("not an SPDX document: spdxVersion is {found:?}")]
    Format {
        /// What it says.
        found: String,
    },
    /// Another version.
    #[error("{found}: of SPDX this version reads only 2.3")]
    Version {
        /// What the document says.
        found: String,
    },
    /// SPDX 3, which is JSON-LD.
    #[error("SPDX 3 (JSON-LD, with @context or @graph): of SPDX this version reads only 2.3")]
    LinkedData,
    /// It is not what the official schema says.
    #[error(transparent)]
    Schema(#[from] SpdxSchemaError),
    /// More than this version takes.
    #[error("SPDX document with more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A text that must say something and is empty.
    #[error("SPDX document: {whose} has no {field}")]
    Empty {
        /// Of what.
        whose: String,
        /// Which field.
        field: &'static str,
    },
    /// The moment of its making is none.
    #[error("SPDX document: creationInfo.created is {found:?}, which is no time")]
    Created {
        /// What is written.
        found: String,
    },
    /// One identifier for two things.
    #[error("SPDX document: the identifier {id:?} stands twice")]
    Twice {
        /// The identifier.
        id: String,
    },
}

/// Reads a document by the official schema and by this view.
///
/// Each package is a component, and a second one for each further purl that it has, so that each is looked up. Each file is one of type
/// `file`. Only what the document as a whole is about is none, as in `CycloneDX`: the one element that it describes, if that is a package
/// whose purpose is `CONTAINER`, `FILE` or `SOURCE`, without a purl and without a licence.
///
/// A licence that is concluded and another that is declared apply together, so that neither hides the other. A file has instead of a
/// declared one those that were found in it; those found in the files of a package are not read for the package. `NOASSERTION` and `NONE`
/// say nothing: no licence is granted, and a policy judges the component as one without.
///
/// `path` stays empty: an element can be contained in several, and in a circle. `related` counts the components that stand in a
/// relationship of dependency or containment, so an element that the document has not is no related one. What other documents hold
/// (`externalDocumentRefs`) is not seen.
pub fn read(document: &Value) -> Result<Sbom, SpdxError> {
    Limits { elements: ELEMENTS, relationships: RELATIONSHIPS }.read(document)
}

/// The document in these bytes. Depth is limited, and no key stands twice in one object.
pub fn parse(sbom: &[u8]) -> Result<Value, SpdxError> {
    if let Some(form) = other_form(sbom) {
        return Err(SpdxError::OtherForm { form });
    }
    if !within_depth(sbom, DEPTH) {
        return Err(SpdxError::Depth);
    }
    let syntax = |error: serde_json::Error| SpdxError::Syntax(error.to_string());
    strict_json::check(sbom).map_err(syntax)?;
    serde_json::from_slice(sbom).map_err(syntax)
}

/// Its own type so that tests reach a limit without a document of its size.
struct Limits {
    elements: usize,
    relationships: usize,
}

impl Limits {
    fn read(&self, document: &Value) -> Result<Sbom, SpdxError> {
        check_version(document)?;
        // Counted before it is looked at as a whole, which costs more.
        let count = |list: &str| document[list].as_array().map_or(0, Vec::len);
        let too_many = |what, limit| Err(SpdxError::TooMany { what, limit });
        if count("packages") + count("files") + count("snippets") > self.elements {
            return too_many("elements", self.elements);
        }
        if count("relationships") > self.relationships {
            return too_many("relationships", self.relationships);
        }
        spdx_schema::validate(document)?;
        let raw = RawDocument::deserialize(document).map_err(|error| SpdxError::Syntax(error.to_string()))?;
        raw.check_names()?;
        let named = raw.named()?;
        let subject = raw.subject();
        let in_graph = raw.in_graph();
        let (mut components, mut related) = (Vec::new(), 0);
        for package in raw.packages.iter().filter(|package| Some(&package.id) != subject) {
            // An empty one where there is none.
            let purls = package.purls();
            for purl in if purls.is_empty() { BTreeSet::from([""]) } else { purls } {
                if components.len() == self.elements {
                    return too_many("components", self.elements);
                }
                components.push(package.component(purl, &named));
                related += usize::from(in_graph.contains(package.id.as_str()));
            }
        }
        for file in &raw.files {
            if components.len() == self.elements {
                return too_many("components", self.elements);
            }
            components.push(file.component(&named));
            related += usize::from(in_graph.contains(file.id.as_str()));
        }
        components.sort();
        let creation = raw.creation_info;
        let about = About {
            format: "SPDX".to_owned(),
            version: "2.3".to_owned(),
            timestamp: creation.created,
            authors: creation.creators.iter().filter_map(|creator| agent(creator)).map(str::to_owned).collect(),
            components: components.len(),
            related,
        };
        Ok(Sbom { about, components })
    }
}

/// The form that bytes seem to have which are not JSON.
fn other_form(sbom: &[u8]) -> Option<&'static str> {
    let start = &sbom[..sbom.len().min(4096)];
    let start = String::from_utf8_lossy(start);
    let start = start.trim_start_matches('\u{feff}').trim_start();
    let has_line = |key: &str| start.lines().any(|line| line.starts_with(key));
    match start.chars().next() {
        Some('<') => Some("XML (RDF)"),
        Some('{' | '[') | None => None,
        _ if has_line("SPDXVersion:") => Some("tag-value"),
        _ if has_line("spdxVersion:") || start.starts_with("---") => Some("YAML"),
        _ => None,
    }
}

fn check_version(document: &Value) -> Result<(), SpdxError> {
    if document.get("@context").is_some() || document.get("@graph").is_some() {
        return Err(SpdxError::LinkedData);
    }
    let found: String = document["spdxVersion"].as_str().unwrap_or_default().chars().take(32).collect();
    match found.as_str() {
        "SPDX-2.3" => Ok(()),
        other if other.starts_with("SPDX-") => Err(SpdxError::Version { found }),
        _ => Err(SpdxError::Format { found }),
    }
}

/// What a text says; nothing where the author says that it says nothing.
fn said(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !matches!(*text, "" | "NOASSERTION" | "NONE"))
}

/// Who is named, without what kind of one it is (SPDX 2.3, sections 6.8 and 7.5).
fn agent(text: &str) -> Option<&str> {
    let text = text.trim();
    let kinds = ["Tool:", "Person:", "Organization:"];
    said(kinds.iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text))
}

/// What licences come to that are said of one element in several places. What is said twice counts once, for a choice among licences
/// that is joined with itself would allow more than it says.
fn licences<'a>(said: impl Iterator<Item = &'a str>, named: &Named<'_>) -> (Vec<String>, licences::Options) {
    let texts: BTreeSet<&str> = said.collect();
    let mut entries: Vec<Written> = texts.into_iter().map(|text| Written::Expression(text.to_owned())).collect();
    if entries.len() <= MAX_COMPARED {
        let mut known = Vec::new();
        entries.retain(|entry| {
            let own = licences::read(std::slice::from_ref(entry), named);
            let is_new = !known.contains(&own);
            if is_new {
                known.push(own);
            }
            is_new
        });
    }
    licences::read(&entries, named)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    creation_info: RawCreation,
    #[serde(default)]
    document_describes: Vec<String>,
    #[serde(default)]
    packages: Vec<RawPackage>,
    #[serde(default)]
    files: Vec<RawFile>,
    #[serde(default)]
    snippets: Vec<RawSnippet>,
    #[serde(default)]
    relationships: Vec<RawRelationship>,
    #[serde(default)]
    has_extracted_licensing_infos: Vec<RawLicence>,
}

#[derive(Deserialize)]
struct RawCreation {
    created: String,
    creators: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPackage {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(default)]
    version_info: String,
    #[serde(default)]
    supplier: String,
    #[serde(default)]
    license_concluded: String,
    #[serde(default)]
    license_declared: String,
    #[serde(default)]
    primary_package_purpose: String,
    #[serde(default)]
    external_refs: Vec<RawReference>,
    #[serde(default)]
    has_files: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReference {
    reference_type: String,
    reference_locator: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    #[serde(rename = "SPDXID")]
    id: String,
    file_name: String,
    #[serde(default)]
    license_concluded: String,
    #[serde(default)]
    license_info_in_files: Vec<String>,
}

#[derive(Deserialize)]
struct RawSnippet {
    #[serde(rename = "SPDXID")]
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRelationship {
    spdx_element_id: String,
    related_spdx_element: String,
    relationship_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLicence {
    license_id: String,
    #[serde(default)]
    name: String,
}

impl RawDocument {
    /// Everything has a name, and no two elements share an identifier.
    fn check_names(&self) -> Result<(), SpdxError> {
        let empty = |whose: &str, field| Err(SpdxError::Empty { whose: whose.to_owned(), field });
        if self.name.trim().is_empty() {
            return empty("the document", "name");
        }
        let created = &self.creation_info.created;
        if created.parse::<UnixTime>().is_err() {
            return Err(SpdxError::Created { found: created.chars().take(64).collect() });
        }
        if let Some(package) = self.packages.iter().find(|package| package.name.is_empty()) {
            return empty(&format!("the package {}", package.id), "name");
        }
        if let Some(file) = self.files.iter().find(|file| file.file_name.is_empty()) {
            return empty(&format!("the file {}", file.id), "fileName");
        }
        let mut known = BTreeSet::new();
        let elements = self.packages.iter().map(|package| &package.id).chain(self.files.iter().map(|file| &file.id));
        for id in std::iter::once(&self.id).chain(elements).chain(self.snippets.iter().map(|snippet| &snippet.id)) {
            if id.is_empty() {
                return empty("an element", "SPDXID");
            }
            if !known.insert(id) {
                return Err(SpdxError::Twice { id: id.chars().take(200).collect() });
            }
        }
        Ok(())
    }

    /// The names of the licences that the document brings itself (SPDX 2.3, section 10).
    fn named(&self) -> Result<Named<'_>, SpdxError> {
        let mut named = BTreeMap::new();
        for licence in &self.has_extracted_licensing_infos {
            let Some(name) = said(&licence.name) else { continue };
            if named.insert(licence.license_id.as_str(), name).is_some_and(|before| before != name) {
                return Err(SpdxError::Twice { id: licence.license_id.chars().take(200).collect() });
            }
        }
        Ok(named)
    }

    /// The package that is no component, for the document as a whole is about it. To leave one out hides it, so whatever a rule could
    /// judge about it makes it a component.
    fn subject(&self) -> Option<&String> {
        let related = self.relationships.iter().filter_map(|relationship| {
            let (from, to) = (&relationship.spdx_element_id, &relationship.related_spdx_element);
            match relationship.relationship_type.as_str() {
                "DESCRIBES" if *from == self.id => Some(to),
                "DESCRIBED_BY" if *to == self.id => Some(from),
                _ => None,
            }
        });
        let described: BTreeSet<&String> = self.document_describes.iter().chain(related).collect();
        let only = described.first().filter(|_| described.len() == 1)?;
        let package = self.packages.iter().find(|package| package.id == **only)?;
        let is_subject = SUBJECTS.contains(&package.primary_package_purpose.as_str())
            && package.purls().is_empty()
            && package.licences_said().next().is_none();
        is_subject.then_some(&package.id)
    }

    /// Identifiers of elements that stand in a relationship of dependency or containment. Who depends on `NONE` is one; of who depends on
    /// `NOASSERTION` nothing is said.
    fn in_graph(&self) -> BTreeSet<&str> {
        let related = self
            .relationships
            .iter()
            .filter(|relationship| DEPENDENCIES.contains(&relationship.relationship_type.as_str()))
            .map(|relationship| [relationship.spdx_element_id.as_str(), relationship.related_spdx_element.as_str()])
            .filter(|ends| !ends.contains(&"NOASSERTION"))
            .flatten();
        let with_files = self.packages.iter().filter(|package| !package.has_files.is_empty());
        let files = with_files.flat_map(|package| std::iter::once(&package.id).chain(&package.has_files));
        related.chain(files.map(String::as_str)).collect()
    }
}

impl RawPackage {
    /// Its package URLs. Any category counts, for a purl is one wherever it stands; a type can be written as a URI (section 7.21).
    fn purls(&self) -> BTreeSet<&str> {
        let is_purl = |kind: &str| kind.rsplit('/').next().is_some_and(|kind| kind.eq_ignore_ascii_case("purl"));
        let listed = self.external_refs.iter().filter(|reference| is_purl(reference.reference_type.trim()));
        listed.filter_map(|reference| said(&reference.reference_locator)).collect()
    }

    fn licences_said(&self) -> impl Iterator<Item = &str> {
        [&self.license_concluded, &self.license_declared].into_iter().filter_map(|text| said(text))
    }

    fn component(&self, purl: &str, named: &Named<'_>) -> Component {
        let (licenses, license_options) = licences(self.licences_said(), named);
        Component {
            name: self.name.clone(),
            version: said(&self.version_info).unwrap_or_default().to_owned(),
            purl: purl.to_owned(),
            kind: self.primary_package_purpose.to_ascii_lowercase().replace('_', "-"),
            supplier: agent(&self.supplier).unwrap_or_default().to_owned(),
            licenses,
            license_options,
            path: Vec::new(),
        }
    }
}

impl RawFile {
    fn component(&self, named: &Named<'_>) -> Component {
        let listed = std::iter::once(&self.license_concluded).chain(&self.license_info_in_files);
        let (licenses, license_options) = licences(listed.filter_map(|text| said(text)), named);
        Component {
            name: self.file_name.clone(),
            version: String::new(),
            purl: String::new(),
            kind: "file".to_owned(),
            supplier: String::new(),
            licenses,
            license_options,
            path: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Of Trivy 0.76.0, shortened.
    const TRIVY: &str = r#"{"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "root",
      "documentNamespace": "http://trivy.dev/filesystem/root-7ad0a2c3",
      "creationInfo": {"creators": ["Organization: aquasecurity", "Tool: trivy-0.76.0"], "created": "2026-11-29T21:36:00Z"},
      "hasExtractedLicensingInfos": [{"licenseId": "LicenseRef-4f0e9e13bc07dfe0", "extractedText": "This component is …", "name": "GPL-2+"}],
      "packages": [
        {"name": "urllib3", "SPDXID": "SPDXRef-Package-c5399aef305f3f64", "versionInfo": "2.8.0", "supplier": "NOASSERTION",
         "downloadLocation": "NONE", "filesAnalyzed": true, "licenseConcluded": "MIT", "licenseDeclared": "MIT",
         "packageVerificationCode": {"packageVerificationCodeValue": "7acd12df302242817e2058788ad4347d2b776ceb"},
         "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": "pkg:pypi/urllib3@2.8.0"}],
         "primaryPackagePurpose": "LIBRARY"},
        {"name": "bison", "SPDXID": "SPDXRef-Package-b", "versionInfo": "2:3.8.2-1", "supplier": "Organization: Debian",
         "downloadLocation": "NONE", "licenseConcluded": "LicenseRef-4f0e9e13bc07dfe0 AND ISC",
         "licenseDeclared": "LicenseRef-4f0e9e13bc07dfe0 AND ISC", "primaryPackagePurpose": "LIBRARY"},
        {"name": "debian", "SPDXID": "SPDXRef-OperatingSystem-5e80f354941db0f7", "versionInfo": "12.11", "downloadLocation": "NONE",
         "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "primaryPackagePurpose": "OPERATING-SYSTEM"},
        {"name": "root", "SPDXID": "SPDXRef-Filesystem-2161e73b9d69620e", "downloadLocation": "NONE", "filesAnalyzed": false,
         "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "primaryPackagePurpose": "SOURCE"}],
      "files": [{"fileName": "site/urllib3-2.8.0.dist-info/METADATA", "SPDXID": "SPDXRef-File-2774ee6822a3674b",
        "checksums": [{"algorithm": "SHA1", "checksumValue": "c25b20cb0b0d5debb75dd71169e9feaa7831ad20"}], "copyrightText": ""}],
      "relationships": [
        {"spdxElementId": "SPDXRef-DOCUMENT", "relatedSpdxElement": "SPDXRef-Filesystem-2161e73b9d69620e", "relationshipType": "DESCRIBES"},
        {"spdxElementId": "SPDXRef-Filesystem-2161e73b9d69620e", "relatedSpdxElement": "SPDXRef-OperatingSystem-5e80f354941db0f7", "relationshipType": "CONTAINS"},
        {"spdxElementId": "SPDXRef-Package-c5399aef305f3f64", "relatedSpdxElement": "SPDXRef-File-2774ee6822a3674b", "relationshipType": "CONTAINS"}]}"#;

    fn trivy() -> Value {
        parse(TRIVY.as_bytes()).unwrap()
    }

    /// The sample, with one value of it another.
    fn with(place: &str, value: Value) -> Value {
        let mut document = trivy();
        let (parent, key) = place.rsplit_once('/').unwrap();
        match document.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            object => object[key] = value,
        }
        document
    }

    fn names(sbom: &Sbom) -> Vec<&str> {
        sbom.components.iter().map(|component| component.name.as_str()).collect()
    }

    fn options(sets: &[&[&str]]) -> licences::Options {
        Some(sets.iter().map(|set| set.iter().map(|id| (*id).to_owned()).collect()).collect())
    }

    /// What may be chosen for a package of which this is concluded and that declared.
    fn chosen(concluded: &str, declared: &str) -> licences::Options {
        let mut document = with("/packages/0/licenseConcluded", json!(concluded));
        document["packages"][0]["licenseDeclared"] = json!(declared);
        read(&document).unwrap().components.pop().unwrap().license_options
    }

    #[test]
    fn packages_and_files_are_components_and_the_subject_is_none() {
        let sbom = read(&trivy()).unwrap();
        assert_eq!(names(&sbom), ["bison", "debian", "site/urllib3-2.8.0.dist-info/METADATA", "urllib3"]);
        let [bison, system, file, urllib3] = sbom.components.as_slice() else { panic!() };
        assert_eq!((urllib3.purl.as_str(), urllib3.version.as_str()), ("pkg:pypi/urllib3@2.8.0", "2.8.0"));
        assert_eq!((urllib3.kind.as_str(), urllib3.supplier.as_str()), ("library", ""));
        assert_eq!((urllib3.licenses.as_slice(), &urllib3.path), (&["MIT".to_owned()][..], &vec![]));
        assert_eq!((bison.supplier.as_str(), bison.purl.as_str()), ("Debian", ""));
        assert_eq!(bison.license_options, options(&[&["GPL-2.0-or-later", "ISC"]]), "by its name");
        assert_eq!((system.kind.as_str(), system.license_options.as_ref()), ("operating-system", Some(&vec![])));
        assert_eq!((file.kind.as_str(), file.version.as_str()), ("file", ""));
        let about = sbom.about;
        assert_eq!((about.format.as_str(), about.version.as_str()), ("SPDX", "2.3"));
        assert_eq!((about.timestamp.as_str(), about.components, about.related), ("2026-11-29T21:36:00Z", 4, 3));
        assert_eq!(about.authors, ["aquasecurity", "trivy-0.76.0"]);
    }

    #[test]
    fn a_described_package_is_left_out_only_if_nothing_about_it_could_be_judged() {
        let has_root = |document: &Value| names(&read(document).unwrap()).contains(&"root");
        assert!(!has_root(&trivy()));
        for (place, value) in [
            ("/packages/3/primaryPackagePurpose", json!("LIBRARY")),
            ("/packages/3/licenseDeclared", json!("GPL-3.0-only")),
            (
                "/packages/3/externalRefs",
                json!([{"referenceCategory": "OTHER", "referenceType": "purl", "referenceLocator": "pkg:oci/root"}]),
            ),
            ("/documentDescribes", json!(["SPDXRef-Package-b"])),
            ("/relationships/0/relationshipType", json!("OTHER")),
            ("/relationships/0/spdxElementId", json!("SPDXRef-Package-b")),
        ] {
            assert!(has_root(&with(place, value.clone())), "{place} {value}");
        }
        let all: Vec<Value> = trivy()["packages"].as_array().unwrap().iter().map(|one| one["SPDXID"].clone()).collect();
        assert_eq!(read(&with("/documentDescribes", json!(all))).unwrap().components.len(), 5, "nothing is lost");
        let mut turned = with("/relationships/0/relationshipType", json!("DESCRIBED_BY"));
        turned["relationships"][0]["spdxElementId"] = json!("SPDXRef-Filesystem-2161e73b9d69620e");
        turned["relationships"][0]["relatedSpdxElement"] = json!("SPDXRef-DOCUMENT");
        assert!(!has_root(&turned), "the same said the other way round");
    }

    #[test]
    fn each_purl_is_looked_up() {
        let purl = |category: &str, kind: &str, locator: &str| json!({"referenceCategory": category, "referenceType": kind, "referenceLocator": locator});
        let purls = |references: Value| -> Vec<String> {
            let sbom = read(&with("/packages/0/externalRefs", references)).unwrap();
            assert_eq!((sbom.about.related, sbom.about.components), (sbom.components.len() - 1, sbom.components.len()));
            let own = sbom.components.into_iter().filter(|component| component.name == "urllib3");
            own.map(|component| component.purl).collect()
        };
        let two = json!([
            purl("PACKAGE_MANAGER", "purl", "pkg:a/b"),
            purl("SECURITY", "cpe23Type", "cpe:2.3:a:b"),
            purl("OTHER", "http://spdx.org/rdf/references/purl", "pkg:a/c"),
            purl("PACKAGE-MANAGER", "purl", "pkg:a/b"),
        ]);
        assert_eq!(purls(two), ["pkg:a/b", "pkg:a/c"]);
        assert_eq!(purls(json!([purl("PACKAGE-MANAGER", "npm", "b@1")])), [""]);
        assert_eq!(purls(json!([])), [""]);
    }

    #[test]
    fn a_concluded_licence_hides_no_declared_one() {
        assert_eq!(chosen("MIT", "GPL-3.0-only"), options(&[&["GPL-3.0-only", "MIT"]]));
        assert_eq!(chosen("MIT", "MIT OR GPL-3.0-only"), options(&[&["GPL-3.0-only", "MIT"], &["MIT"]]));
        assert_eq!(chosen("MIT OR ISC", "ISC OR MIT"), options(&[&["ISC"], &["MIT"]]), "the same twice");
        assert_eq!(chosen("NOASSERTION", "MIT"), options(&[&["MIT"]]));
        assert_eq!(chosen("MIT", "NONE"), options(&[&["MIT"]]));
        assert_eq!(chosen("NONE", "NOASSERTION"), options(&[]));
        assert_eq!(chosen("", ""), options(&[]));
        assert_eq!(chosen("MIT", "what nobody can read"), None);
        assert_eq!(chosen("NOASSERTION AND MIT", ""), options(&[&["MIT", "NOASSERTION"]]), "one that no list allows");
        assert_eq!(chosen("LicenseRef-unknown", ""), options(&[&["LicenseRef-unknown"]]));
    }

    #[test]
    fn a_file_has_the_licences_that_were_found_in_it() {
        let mut document = with("/files/0/licenseConcluded", json!("NOASSERTION"));
        document["files"][0]["licenseInfoInFiles"] = json!(["MIT", "NOASSERTION", "LicenseRef-4f0e9e13bc07dfe0"]);
        let sbom = read(&document).unwrap();
        assert_eq!(sbom.components[2].license_options, options(&[&["GPL-2.0-or-later", "MIT"]]));
        let many: Vec<String> = (0..1000).map(|nth| format!("LicenseRef-{nth}")).collect();
        document["files"][0]["licenseInfoInFiles"] = json!(many);
        let file = read(&document).unwrap().components.remove(2);
        assert_eq!((file.license_options, file.licenses.len()), (None, 1000));
    }

    #[test]
    fn only_what_the_document_has_is_related() {
        let related = |relationship: Value| {
            let mut document = trivy();
            document["relationships"].as_array_mut().unwrap().push(relationship);
            read(&document).unwrap().about.related
        };
        let relationship = |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
        assert_eq!(related(relationship("SPDXRef-Package-b", "DEPENDS_ON", "NONE")), 4);
        assert_eq!(related(relationship("SPDXRef-Package-b", "DEV_DEPENDENCY_OF", "DocumentRef-x:SPDXRef-y")), 4);
        assert_eq!(related(relationship("SPDXRef-Package-b", "DEPENDS_ON", "NOASSERTION")), 3);
        assert_eq!(related(relationship("SPDXRef-Package-b", "OTHER", "SPDXRef-DOCUMENT")), 3);
        assert_eq!(related(relationship("SPDXRef-nobody", "DEPENDS_ON", "SPDXRef-nothing")), 3);
        let with_files = with("/packages/1/hasFiles", json!(["SPDXRef-File-2774ee6822a3674b"]));
        assert_eq!(read(&with_files).unwrap().about.related, 4);
    }

    #[test]
    fn another_version_and_another_form_are_named() {
        let refusal = |text: &str| parse(text.as_bytes()).and_then(|document| read(&document)).unwrap_err().to_string();
        assert_eq!(refusal(&TRIVY.replace("SPDX-2.3", "SPDX-2.2")), "SPDX-2.2: of SPDX this version reads only 2.3");
        assert!(refusal(&TRIVY.replace("SPDX-2.3", "SPDX-2.4")).starts_with("SPDX-2.4"));
        assert!(
            refusal(r#"{"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": []}"#)
                .contains("SPDX 3")
        );
        assert!(refusal(r#"{"bomFormat": "CycloneDX"}"#).contains("spdxVersion is \"\""));
        assert!(refusal("SPDXVersion: SPDX-2.3\nDataLicense: CC0-1.0\n").contains("tag-value: only JSON is read"));
        assert!(refusal("\u{feff}# made by hand\nSPDXVersion: SPDX-2.3\n").contains("tag-value"));
        assert!(refusal("<?xml version=\"1.0\"?><rdf:RDF/>").contains("RDF"));
        assert!(refusal("SPDXID: \"SPDXRef-DOCUMENT\"\nspdxVersion: \"SPDX-2.3\"\n").contains("YAML"));
        assert!(refusal("nonsense").contains("only JSON is read"));
        assert!(refusal("").contains("only JSON is read"));
        assert!(refusal("[]").contains("spdxVersion"));
    }

    #[test]
    fn what_lacks_a_name_or_has_one_twice_is_refused() {
        let refusal = |place: &str, value: Value| read(&with(place, value)).unwrap_err();
        assert!(matches!(refusal("/name", json!("")), SpdxError::Empty { field: "name", .. }));
        assert!(matches!(refusal("/packages/0/name", json!("")), SpdxError::Empty { field: "name", .. }));
        assert!(matches!(refusal("/files/0/fileName", json!("")), SpdxError::Empty { field: "fileName", .. }));
        assert!(matches!(refusal("/SPDXID", json!("")), SpdxError::Empty { field: "SPDXID", .. }));
        assert!(matches!(refusal("/creationInfo/created", json!("yesterday")), SpdxError::Created { .. }));
        assert!(matches!(refusal("/packages/0/SPDXID", json!("SPDXRef-Package-b")), SpdxError::Twice { .. }));
        assert!(matches!(refusal("/files/0/SPDXID", json!("SPDXRef-Package-b")), SpdxError::Twice { .. }));
        assert!(matches!(refusal("/packages/0/SPDXID", json!("SPDXRef-DOCUMENT")), SpdxError::Twice { .. }));
        for key in ["SPDXID", "name", "creationInfo"] {
            let mut without = trivy();
            without.as_object_mut().unwrap().remove(key);
            assert!(matches!(read(&without), Err(SpdxError::Schema(_))), "{key}");
        }
        let mut licences = trivy();
        let again = licences["hasExtractedLicensingInfos"][0].clone();
        licences["hasExtractedLicensingInfos"].as_array_mut().unwrap().push(again);
        assert!(read(&licences).is_ok(), "the same again says nothing else");
        licences["hasExtractedLicensingInfos"][1]["name"] = json!("MIT");
        assert!(matches!(read(&licences), Err(SpdxError::Twice { .. })));
    }

    #[test]
    fn two_readers_see_one_document() {
        let twice = TRIVY.replacen("\"packages\"", "\"packages\": [], \"packages\"", 1);
        assert!(matches!(parse(twice.as_bytes()), Err(SpdxError::Syntax(reason)) if reason.contains("twice")));
    }

    #[test]
    fn limits_hold_at_n_and_fail_at_n_plus_1() {
        let limited = |elements, relationships| Limits { elements, relationships }.read(&trivy());
        assert_eq!(limited(5, 3).unwrap().components.len(), 4);
        assert!(matches!(limited(4, 3), Err(SpdxError::TooMany { what: "elements", limit: 4 })));
        assert!(matches!(limited(5, 2), Err(SpdxError::TooMany { what: "relationships", limit: 2 })));
        let purls = |n: usize| -> Value {
            let reference = |nth| json!({"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": format!("pkg:a/{nth}")});
            with("/packages/0/externalRefs", (0..n).map(reference).collect())
        };
        let limits = Limits { elements: 5, relationships: 3 };
        assert_eq!(limits.read(&purls(2)).unwrap().components.len(), 5);
        assert!(matches!(limits.read(&purls(3)), Err(SpdxError::TooMany { what: "components", limit: 5 })));
        let nested = |n: usize| format!("{{\"spdxVersion\":\"SPDX-2.3\",\"x\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(126).as_bytes()).is_ok());
        assert!(matches!(parse(nested(128).as_bytes()), Err(SpdxError::Depth)));
    }
}
