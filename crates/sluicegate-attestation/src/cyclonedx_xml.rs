//! Turns a CycloneDX document in XML, version 1.3 to 1.5 (<https://cyclonedx.org/docs/1.5/xml/>), into CycloneDX JSON 1.5, by the library
//! `cyclonedx-bom`.
//!
//! That library passes over what it does not know, keeps only the last of what it expects once, and drops some of what it knows. So the
//! XML is first looked through here, within limits, and what it says of its components is compared with what the JSON says of them. A
//! difference is an error: what is lost would be a component, a licence or a hash that no rule ever sees. What is not compared can be
//! lost: release notes, signatures, model cards, patches, analyses of vulnerabilities.

use std::collections::BTreeMap;

use cyclonedx_bom::{
    models::bom::{Bom, SpecVersion},
    validation::{Validate, ValidationErrorsKind, ValidationResult},
};
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use serde_json::Value;

use crate::{
    cyclonedx::{self, CycloneDxError},
    xml_rules::{self, shortened},
};

/// Bytes of one document.
pub const MAX_DOCUMENT: usize = 16 * 1024 * 1024;
/// Elements, comments and processing instructions in one document.
const MAX_NODES: usize = 1_000_000;
/// Elements inside each other (DESIGN section 7).
const MAX_DEPTH: usize = 128;
/// Attributes of one element.
const MAX_ATTRIBUTES: usize = 128;
/// Errors of one document that are told, and characters of one of them.
const MAX_TOLD: usize = 3;
const MAX_WORDS: usize = 300;

/// The namespace of every version, which follows it.
const NAMESPACE: &str = "http://cyclonedx.org/schema/bom/";

/// Keys that the library writes, and what CycloneDX 1.5 calls them. It has none of the former anywhere.
const MISNAMED: [(&str, &str); 5] = [
    ("Contact", "contact"),
    ("Organization", "organization"),
    ("bomRef", "bom-ref"),
    ("confidence_interval", "confidenceInterval"),
    ("responses", "response"),
];

/// What is compared of a component: elements inside it, by their names from it down.
const COMPARED: [&str; 13] = [
    "author",
    "cpe",
    "group",
    "hashes/hash",
    "licenses/expression",
    "licenses/license/id",
    "licenses/license/name",
    "name",
    "publisher",
    "purl",
    "scope",
    "supplier/name",
    "version",
];

/// Why bytes are not a `CycloneDX` document in XML that this version can read.
#[derive(Debug, thiserror::Error)]
pub enum CycloneDxXmlError {
    /// More bytes than allowed.
    #[error("CycloneDX XML document larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// More than this version takes.
    #[error("CycloneDX XML document with more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// No XML, or cut, or not UTF-8.
    #[error("not a CycloneDX XML document: {0}")]
    Malformed(String),
    /// Another encoding.
    #[error("CycloneDX XML document in {encoding}: only UTF-8 is read")]
    Encoding {
        /// What it declares.
        encoding: String,
    },
    /// A document type could bring entities and values of its own.
    #[error("CycloneDX XML document with a DOCTYPE: it is not read")]
    DocumentType,
    /// XML of something else.
    #[error("not a CycloneDX XML document: its root is {root:?} of the namespace {namespace:?}")]
    Foreign {
        /// The name of its root.
        root: String,
        /// The root's default namespace.
        namespace: String,
    },
    /// Another version.
    #[error("CycloneDX {found} in XML: this version reads 1.3 to 1.5; of newer ones it reads JSON")]
    Version {
        /// What the document says.
        found: String,
    },
    /// It is not what its version says, in the library's words.
    #[error("no CycloneDX {version}: {}", .told.join("; "))]
    Invalid {
        /// The version.
        version: &'static str,
        /// The first things that are wrong.
        told: Vec<String>,
    },
    /// The JSON would say less than the XML, or something else.
    #[error("the CycloneDX XML document says more than could be taken over: {what}; write it as JSON")]
    Lost {
        /// What differs.
        what: String,
    },
    /// What came of it is no document that can be read.
    #[error("as JSON: {0}")]
    Json(#[from] CycloneDxError),
}

/// Turns a document into JSON 1.5 that `cyclonedx::read` accepts, with the same components, each with the same name, group, version, purl,
/// type, reference, licences, hashes and suppliers, nested the same way.
///
/// Errors: a limit, a DOCTYPE, another encoding or version, what the library refuses, and whatever the JSON would not say.
pub fn to_json(xml: &[u8]) -> Result<Value, CycloneDxXmlError> {
    Limits { bytes: MAX_DOCUMENT, nodes: MAX_NODES }.to_json(xml)
}

/// Its own type so that tests reach a limit without a document of its size.
struct Limits {
    bytes: usize,
    nodes: usize,
}

impl Limits {
    fn to_json(&self, xml: &[u8]) -> Result<Value, CycloneDxXmlError> {
        if xml.len() > self.bytes {
            return Err(CycloneDxXmlError::TooLarge { limit: self.bytes });
        }
        let text = xml_rules::text(xml).map_err(CycloneDxXmlError::Malformed)?;
        let (version, before) = Reading::of(text, self.nodes)?;
        let invalid = |told: Vec<String>| {
            let told = told.into_iter().map(|words| words.chars().take(MAX_WORDS).collect()).collect();
            CycloneDxXmlError::Invalid { version: number(version), told }
        };
        let bom = Bom::parse_from_xml_with_version(text.as_bytes(), version)
            .map_err(|error| invalid(vec![error.to_string()]))?;
        let mut told = Vec::new();
        tell(bom.validate_version(version), "", &mut told);
        if !told.is_empty() {
            return Err(invalid(told));
        }
        let mut json = Vec::new();
        bom.output_as_json_v1_5(&mut json).map_err(|error| invalid(vec![error.to_string()]))?;
        let mut json: Value = serde_json::from_slice(&json).map_err(|error| invalid(vec![error.to_string()]))?;
        rename_keys(&mut json);
        before.compare(&Outline::of(&json))?;
        cyclonedx::read(&json)?;
        Ok(json)
    }
}

fn number(version: SpecVersion) -> &'static str {
    match version {
        SpecVersion::V1_3 => "1.3",
        SpecVersion::V1_4 => "1.4",
        SpecVersion::V1_5 => "1.5",
    }
}

/// The first things that the library finds wrong, each with where.
fn tell(result: ValidationResult, place: &str, told: &mut Vec<String>) {
    for (name, kind) in result.errors() {
        if told.len() == MAX_TOLD {
            return;
        }
        let place = if place.is_empty() { name } else { format!("{place}/{name}") };
        match kind {
            ValidationErrorsKind::Struct(inner) => tell(inner, &place, told),
            ValidationErrorsKind::List(items) => {
                items.into_iter().for_each(|(nth, inner)| tell(inner, &format!("{place}/{nth}"), told));
            }
            ValidationErrorsKind::Enum(error) => told.push(format!("{place}: {}", error.message)),
            ValidationErrorsKind::Field(errors) | ValidationErrorsKind::Custom(errors) => {
                told.extend(errors.into_iter().take(1).map(|error| format!("{place}: {}", error.message)));
            }
        }
    }
}

fn rename_keys(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(rename_keys),
        Value::Object(keys) => {
            for (wrong, right) in MISNAMED {
                if let Some(value) = keys.remove(wrong) {
                    keys.insert(right.to_owned(), value);
                }
            }
            keys.values_mut().for_each(rename_keys);
        }
        _ => {}
    }
}

/// What a document says that must not get lost.
#[derive(Debug, Default)]
struct Outline {
    components: Vec<Part>,
    counts: BTreeMap<&'static str, usize>,
}

/// A component, with everything in it sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    name: String,
    /// What stands around it: in the outermost ones with the part of the document.
    place: String,
    said: Vec<(String, String)>,
    inside: Vec<Self>,
}

impl Outline {
    fn of(json: &Value) -> Self {
        let mut out = Self::default();
        if let Value::Object(sections) = json {
            for (section, value) in sections {
                out.count_value(section, value);
                let mut found = out.parts_at(section, value, section);
                found.iter_mut().for_each(|part| part.place = format!("{section}/{}", part.place));
                out.components.append(&mut found);
            }
        }
        out.components.sort();
        out
    }

    /// The components that a value is or holds under this key of an object, which itself stands under another.
    fn parts_at(&mut self, key: &str, value: &Value, around: &str) -> Vec<Part> {
        match (key, value) {
            ("components" | "ancestors" | "descendants" | "variants", Value::Array(list)) => {
                list.iter().map(|component| self.part(component, key)).collect()
            }
            ("component", Value::Object(_)) => vec![self.part(value, around)],
            (_, Value::Array(list)) => list.iter().flat_map(|item| self.parts_in(item, key)).collect(),
            _ => self.parts_in(value, key),
        }
    }

    fn parts_in(&mut self, value: &Value, around: &str) -> Vec<Part> {
        let Value::Object(keys) = value else { return Vec::new() };
        let mut found = Vec::new();
        for (key, value) in keys {
            self.count_value(key, value);
            found.append(&mut self.parts_at(key, value, around));
        }
        found
    }

    fn part(&mut self, component: &Value, place: &str) -> Part {
        self.count("components");
        let mut part = Part { place: place.to_owned(), ..Part::default() };
        let mut say = |what: &str, value: &Value| {
            if let Some(text) = value.as_str() {
                part.say(what, text);
            }
        };
        for key in ["author", "bom-ref", "cpe", "group", "name", "publisher", "purl", "scope", "type", "version"] {
            say(key, &component[key]);
        }
        say("supplier/name", &component["supplier"]["name"]);
        for entry in component["licenses"].as_array().into_iter().flatten() {
            say("licenses/expression", &entry["expression"]);
            say("licenses/license/id", &entry["license"]["id"]);
            say("licenses/license/name", &entry["license"]["name"]);
        }
        for hash in component["hashes"].as_array().into_iter().flatten() {
            let text = |key: &str| hash[key].as_str().unwrap_or_default();
            part.say("hashes/hash", &format!("{} {}", text("alg"), text("content")));
        }
        part.inside = self.parts_in(component, "component");
        part.sorted()
    }

    fn count_value(&mut self, key: &str, value: &Value) {
        let (what, number) = match (key, value) {
            ("licenses", Value::Array(list)) => ("licences", list.len()),
            ("hashes", Value::Array(list)) => ("hashes", list.len()),
            ("dependencies" | "dependsOn", Value::Array(list)) => ("dependencies", list.len()),
            ("purl", Value::String(_)) => ("purls", 1),
            ("supplier", Value::Object(_)) => ("suppliers", 1),
            _ => return,
        };
        *self.counts.entry(what).or_default() += number;
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn compare(&self, json: &Self) -> Result<(), CycloneDxXmlError> {
        for what in ["components", "purls", "licences", "hashes", "suppliers", "dependencies"] {
            let number = |outline: &Self| outline.counts.get(what).copied().unwrap_or_default();
            let (xml, json) = (number(self), number(json));
            if xml != json {
                return Err(CycloneDxXmlError::Lost { what: format!("{xml} {what} in XML are {json} in JSON") });
            }
        }
        if self.components == json.components {
            return Ok(());
        }
        let other = self.components.iter().zip(&json.components).find(|(xml, json)| xml != json);
        let name = other.map(|(xml, json)| xml.difference(json)).unwrap_or_default();
        Err(CycloneDxXmlError::Lost { what: format!("the component {name:?} is another one in JSON") })
    }
}

impl Part {
    /// Space at the ends counts for nothing, and how much there is between words; nor does what is empty.
    fn say(&mut self, what: &str, text: &str) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.is_empty() {
            if what == "name" {
                self.name.clone_from(&text);
            }
            self.said.push((what.to_owned(), text));
        }
    }

    fn sorted(mut self) -> Self {
        self.said.sort();
        self.inside.sort();
        self
    }

    /// The name of the innermost component that differs.
    fn difference(&self, other: &Self) -> String {
        let inner = self.inside.iter().zip(&other.inside).find(|(own, other)| own != other);
        match inner {
            Some((own, theirs)) if self.said == other.said => own.difference(theirs),
            _ => shortened(&self.name),
        }
    }
}

/// What has been read of the XML so far.
struct Reading {
    version: Option<SpecVersion>,
    out: Outline,
    open: Vec<Open>,
    nodes: usize,
    limit: usize,
}

/// An element that is not closed yet.
struct Open {
    name: String,
    text: String,
    part: Option<Part>,
}

impl Reading {
    /// The version of a document and what must not get lost of it.
    fn of(text: &str, limit: usize) -> Result<(SpecVersion, Outline), CycloneDxXmlError> {
        let mut reading = Self { version: None, out: Outline::default(), open: Vec::new(), nodes: 0, limit };
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        let mut first = true;
        loop {
            let event = reader.read_event().map_err(|error| malformed(&error.to_string()))?;
            match event {
                Event::Decl(_) if !first => return Err(malformed("a declaration that is not at the beginning")),
                Event::Decl(declaration) => {
                    if let Some(encoding) =
                        xml_rules::foreign_encoding(&declaration).map_err(CycloneDxXmlError::Malformed)?
                    {
                        return Err(CycloneDxXmlError::Encoding { encoding: shortened(&encoding) });
                    }
                }
                Event::Start(tag) => reading.start(&tag)?,
                Event::End(_) => reading.end()?,
                Event::Text(text) => reading.text(&text)?,
                Event::CData(text) => reading.text(&text)?,
                Event::GeneralRef(name) => {
                    if !xml_rules::is_known_reference(&name) {
                        return Err(malformed(&format!("the entity {:?} is declared nowhere", shortened(&name))));
                    }
                    let number = name.resolve_char_ref().map_err(|error| malformed(&error.to_string()))?;
                    let own = quick_xml::escape::resolve_predefined_entity(&name);
                    match (number, own) {
                        (Some(character), _) => reading.text(character.encode_utf8(&mut [0; 4]))?,
                        (None, Some(text)) => reading.text(text)?,
                        (None, None) => return Err(malformed("a reference to no character")),
                    }
                }
                Event::Comment(_) | Event::PI(_) => reading.count_node()?,
                Event::DocType(_) => return Err(CycloneDxXmlError::DocumentType),
                // Not given by a reader that expands empty elements; refused rather than lost.
                Event::Empty(_) => return Err(malformed("an empty element")),
                Event::Eof => return reading.finish(),
            }
            first = false;
        }
    }

    fn start(&mut self, tag: &BytesStart<'_>) -> Result<(), CycloneDxXmlError> {
        self.count_node()?;
        if self.open.len() == MAX_DEPTH {
            return Err(CycloneDxXmlError::TooMany { what: "elements inside each other", limit: MAX_DEPTH });
        }
        let name = xml_rules::local(tag.name().0).map_err(CycloneDxXmlError::Malformed)?;
        let mut attributes = BTreeMap::new();
        for (count, attribute) in xml_rules::attributes(tag).map_err(CycloneDxXmlError::Malformed)?.enumerate() {
            if count == MAX_ATTRIBUTES {
                return Err(CycloneDxXmlError::TooMany { what: "attributes of one element", limit: MAX_ATTRIBUTES });
            }
            let attribute = attribute.map_err(CycloneDxXmlError::Malformed)?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            let value = value.map_err(|error| malformed(&error.to_string()))?;
            if matches!(attribute.key.0, "xmlns" | "type" | "bom-ref" | "alg") {
                attributes.insert(attribute.key.0, value.into_owned());
            }
        }
        let around = self.open.last().map(|open| open.name.as_str());
        match (around, name) {
            (None, _) if self.version.is_some() => return Err(malformed("something follows the root")),
            (None, _) => self.version = Some(version(name, attributes.get("xmlns").map_or("", String::as_str))?),
            (Some("licenses"), _) => self.out.count("licences"),
            (Some("hashes"), "hash") => self.out.count("hashes"),
            (_, "component") => self.out.count("components"),
            (_, "purl") => self.out.count("purls"),
            (_, "supplier") => self.out.count("suppliers"),
            (_, "dependency") => self.out.count("dependencies"),
            _ => {}
        }
        let mut opened = Open { name: name.to_owned(), text: String::new(), part: None };
        if name == "component" {
            let around = around.unwrap_or_default();
            let is_inside = self.open.iter().any(|open| open.part.is_some());
            let section = self.open.get(1).filter(|_| !is_inside);
            let place = section.map_or_else(|| around.to_owned(), |section| format!("{}/{around}", section.name));
            let mut part = Part { place, ..Part::default() };
            for key in ["type", "bom-ref"] {
                attributes.get(key).into_iter().for_each(|value| part.say(key, value));
            }
            opened.part = Some(part);
        }
        if let Some(algorithm) = attributes.get("alg") {
            opened.text = format!("{algorithm} ");
        }
        self.open.push(opened);
        Ok(())
    }

    fn end(&mut self) -> Result<(), CycloneDxXmlError> {
        let closed = self.open.pop().ok_or_else(|| malformed("an end without a beginning"))?;
        let outer = self.open.iter().rposition(|open| open.part.is_some());
        match (closed.part, outer) {
            (Some(part), None) => self.out.components.push(part.sorted()),
            (Some(part), Some(outer)) => {
                if let Some(around) = &mut self.open[outer].part {
                    around.inside.push(part.sorted());
                }
            }
            (None, Some(outer)) => {
                let between = self.open[outer + 1..].iter().map(|open| open.name.as_str());
                let path: Vec<&str> = between.chain([closed.name.as_str()]).collect();
                let path = path.join("/");
                if let (true, Some(around)) = (COMPARED.contains(&path.as_str()), &mut self.open[outer].part) {
                    around.say(&path, &closed.text);
                }
            }
            (None, None) => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), CycloneDxXmlError> {
        match self.open.last_mut() {
            Some(open) => open.text.push_str(text),
            None if text.trim().is_empty() => {}
            None => return Err(malformed("text outside the root")),
        }
        Ok(())
    }

    fn count_node(&mut self) -> Result<(), CycloneDxXmlError> {
        self.nodes += 1;
        if self.nodes > self.limit {
            return Err(CycloneDxXmlError::TooMany { what: "elements", limit: self.limit });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(SpecVersion, Outline), CycloneDxXmlError> {
        if !self.open.is_empty() {
            return Err(malformed("it ends before its root is closed"));
        }
        self.out.components.sort();
        self.version.map(|version| (version, self.out)).ok_or_else(|| malformed("no element"))
    }
}

/// The version that a root speaks of. `cyclonedx-bom` wants the namespace without a prefix.
fn version(root: &str, namespace: &str) -> Result<SpecVersion, CycloneDxXmlError> {
    match (root, namespace.strip_prefix(NAMESPACE)) {
        ("bom", Some("1.3")) => Ok(SpecVersion::V1_3),
        ("bom", Some("1.4")) => Ok(SpecVersion::V1_4),
        ("bom", Some("1.5")) => Ok(SpecVersion::V1_5),
        ("bom", Some(other)) => Err(CycloneDxXmlError::Version { found: other.chars().take(16).collect() }),
        _ => Err(CycloneDxXmlError::Foreign { root: shortened(root), namespace: shortened(namespace) }),
    }
}

fn malformed(reason: &str) -> CycloneDxXmlError {
    CycloneDxXmlError::Malformed(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As Syft 1.18.1 writes it, shortened, with a nested component, hashes and suppliers added.
    const SBOM: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<bom xmlns="http://cyclonedx.org/schema/bom/1.5" serialNumber="urn:uuid:ca31c92c-56a6-4ed5-9114-558388b71ee5" version="1">
  <metadata><timestamp>2026-11-29T21:32:59Z</timestamp>
    <tools><components><component type="application"><author>anchore</author><name>syft</name><version>1.18.1</version></component></components></tools>
    <component bom-ref="root" type="file"><name>proj</name><version>1</version></component></metadata>
  <components>
    <component bom-ref="certifi" type="library"><supplier><name>Kenneth &amp; others</name></supplier>
      <author>Kenneth Reitz &lt;me@kennethreitz.com&gt;</author><name>certifi</name><version>2026.10.19.post1</version>
      <hashes><hash alg="SHA-1">9188560f22e0b73070d2efce670c74af2bdf30af</hash></hashes>
      <licenses><license><id>MPL-2.0</id></license></licenses><purl>pkg:pypi/certifi@2026.10.19.post1</purl>
      <properties><property name="syft:package:language">python</property></properties>
      <components><component bom-ref="inner" type="library"><group>org</group><name>inner</name><version>2</version>
        <licenses><license><name>GPL-2+</name></license></licenses></component></components>
    </component>
    <component bom-ref="idna" type="library"><name>idna</name><version>3</version><licenses><expression>MIT OR ISC</expression></licenses></component>
  </components>
  <dependencies><dependency ref="certifi"><dependency ref="idna"/></dependency></dependencies>
</bom>"#;

    fn convert(text: &str) -> Result<Value, CycloneDxXmlError> {
        to_json(text.as_bytes())
    }

    /// What is said of the sample with one thing in it another.
    fn changed(from: &str, to: &str) -> Result<Value, CycloneDxXmlError> {
        assert!(SBOM.contains(from), "{from}");
        convert(&SBOM.replacen(from, to, 1))
    }

    fn is_lost(result: Result<Value, CycloneDxXmlError>, what: &str) -> bool {
        matches!(result, Err(CycloneDxXmlError::Lost { what: said }) if said.contains(what))
    }

    #[test]
    fn each_version_is_taken_over_whole() {
        let list = "<tools><components><component type=\"application\"><author>anchore</author><name>syft</name><version>1.18.1</version></component></components></tools>";
        let older = SBOM.replace(list, "<tools><tool><name>syft</name></tool></tools>");
        for (version, text) in
            [("1.3", older.as_str()), ("1.4", &older), ("1.5", SBOM), ("1.5", &format!("\u{feff}{SBOM}"))]
        {
            let json = convert(&text.replace("bom/1.5", &format!("bom/{version}"))).unwrap();
            assert_eq!(json["specVersion"], "1.5");
            let sbom = cyclonedx::read(&json).unwrap();
            let names: Vec<&str> = sbom.components.iter().map(|component| component.name.as_str()).collect();
            assert_eq!(names, ["certifi", "idna", "org/inner"], "{version}");
            let [certifi, idna, inner] = sbom.components.as_slice() else { panic!() };
            assert_eq!(
                (certifi.purl.as_str(), certifi.version.as_str()),
                ("pkg:pypi/certifi@2026.10.19.post1", "2026.10.19.post1")
            );
            assert_eq!((certifi.supplier.as_str(), certifi.kind.as_str()), ("Kenneth & others", "library"));
            assert_eq!(
                (certifi.licenses.join(" "), inner.licenses.join(" ")),
                ("MPL-2.0".into(), "GPL-2.0-or-later".into())
            );
            assert_eq!(idna.license_options.as_ref().unwrap().len(), 2);
            assert_eq!(inner.path, ["certifi"]);
            assert_eq!(json["components"][0]["hashes"][0]["content"], "9188560f22e0b73070d2efce670c74af2bdf30af");
            assert_eq!((sbom.about.timestamp.as_str(), sbom.about.related), ("2026-11-29T21:32:59Z", 2));
            assert_eq!(sbom.about.authors, ["syft"]);
        }
    }

    #[test]
    fn what_the_library_would_lose_is_refused() {
        let purl = "<purl>pkg:pypi/certifi@2026.10.19.post1</purl>";
        assert!(is_lost(changed(purl, &format!("<purl>pkg:pypi/evil@1</purl>{purl}")), "2 purls in XML are 1 in JSON"));
        let licences = "<licenses><license><id>MPL-2.0</id></license></licenses>";
        let gpl = "<licenses><license><id>GPL-3.0-only</id></license></licenses>";
        assert!(is_lost(changed(licences, &format!("{gpl}{licences}")), "licences"));
        let hashes = "<hashes><hash alg=\"SHA-1\">9188560f22e0b73070d2efce670c74af2bdf30af</hash></hashes>";
        assert!(is_lost(changed(hashes, &format!("{hashes}{hashes}")), "2 hashes in XML are 1 in JSON"));
        let supplier = "<supplier><name>Kenneth &amp; others</name></supplier>";
        assert!(is_lost(
            changed(supplier, &format!("<supplier><name>Mallory</name></supplier>{supplier}")),
            "suppliers"
        ));
        let lists =
            "<components><component type=\"library\"><name>a</name><version>1</version></component></components>";
        assert!(is_lost(changed("</metadata>", &format!("</metadata>{lists}")), "6 components in XML are 5 in JSON"));
        let hidden = format!("<x:extension xmlns:x=\"urn:x\">{lists}</x:extension><dependencies>");
        assert!(is_lost(changed("  <dependencies>", &hidden), "6 components in XML are 5"), "{hidden}");
        let without = "<x:extension xmlns:x=\"urn:x\"><x:other/></x:extension><dependencies>";
        assert!(changed("  <dependencies>", without).is_ok(), "what is no component may stand there");
        let more = "<dependencies><dependency ref=\"inner\"/></dependencies><dependencies>";
        assert!(is_lost(changed("  <dependencies>", more), "3 dependencies in XML are 2 in JSON"));
    }

    #[test]
    fn a_component_that_became_another_one_is_named() {
        for (from, to) in [
            ("<name>inner</name>", "<name>inner</name><x:name xmlns:x=\"urn:x\">other</x:name>"),
            ("<name>inner</name><version>2", "<name>inner</name><version>1</version><version>2"),
            ("<group>org</group><name>inner</name>", "<group>org</group><group>net</group><name>inner</name>"),
        ] {
            let refused = changed(from, to).unwrap_err().to_string();
            assert!(refused.contains(" is another one in JSON"), "{to}: {refused}");
        }
        let outline = |xml: &str| {
            let text = format!("<bom xmlns=\"{NAMESPACE}1.5\">{xml}</bom>");
            Reading::of(&text, MAX_NODES).unwrap().1
        };
        let nested = outline(
            "<components><component type='library'><name>a</name><components><component type='library'><name>b</name></component></components></component></components>",
        );
        let same =
            json!({"components": [{"type": "library", "name": "a", "components": [{"type": "library", "name": "b"}]}]});
        let flat = json!({"components": [{"type": "library", "name": "a"}, {"type": "library", "name": "b"}]});
        let ancestor = json!({"components": [{"type": "library", "name": "a", "pedigree": {"ancestors": [{"type": "library", "name": "b"}]}}]});
        let elsewhere = json!({"annotations": [{"annotator": {"component": same["components"][0]}}]});
        assert!(nested.compare(&Outline::of(&same)).is_ok());
        for other in [flat, ancestor, elsewhere] {
            let refused = nested.compare(&Outline::of(&other));
            assert!(matches!(refused, Err(CycloneDxXmlError::Lost { .. })), "{other}");
        }
        let annotator = outline(
            "<annotations><annotation><annotator><component type='library'><name>a</name></component></annotator></annotation></annotations>",
        );
        let same = json!({"annotations": [{"annotator": {"component": {"type": "library", "name": "a"}}}]});
        assert!(annotator.compare(&Outline::of(&same)).is_ok());
    }

    #[test]
    fn another_version_and_another_root_are_named() {
        for version in ["1.2", "1.6", "1.7", "2.0"] {
            let refused = changed("bom/1.5", &format!("bom/{version}"));
            assert!(matches!(refused, Err(CycloneDxXmlError::Version { found }) if found == version), "{version}");
        }
        for text in [
            "<testsuites/>",
            "<bom/>",
            "<bom xmlns='urn:other'/>",
            "<c:bom xmlns:c='http://cyclonedx.org/schema/bom/1.5'/>",
        ] {
            assert!(matches!(convert(text), Err(CycloneDxXmlError::Foreign { .. })), "{text}");
        }
        assert!(convert("<bom xmlns='http://cyclonedx.org/schema/bom/1.5'/>").is_ok());
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        assert!(matches!(
            changed("<bom ", "<!DOCTYPE bom [<!ENTITY a 'b'>]><bom "),
            Err(CycloneDxXmlError::DocumentType)
        ));
        for (from, to) in [
            ("<name>idna", "<name>&a;idna"),
            ("</bom>", ""),
            ("</bom>", "</bom><bom/>"),
            ("</bom>", "</bom>text"),
            ("<name>idna", "<name>\u{1}idna"),
            ("<name>idna", "<name>&#0;idna"),
            ("<bom ", "<bom version=\"2\" "),
            ("<name>idna</name>", "<name>idna</version>"),
        ] {
            assert!(matches!(changed(from, to), Err(CycloneDxXmlError::Malformed(_))), "{to:?}");
        }
        let whole = changed("<name>idna", "<!-- a comment --><name>&#105;<!-- another -->dna").unwrap();
        assert_eq!(whole["components"][1]["name"], "idna");
        let utf16: Vec<u8> = SBOM.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(matches!(to_json(&utf16), Err(CycloneDxXmlError::Malformed(reason)) if reason.contains("UTF-16")));
        let latin = changed("encoding=\"UTF-8\"", "encoding=\"ISO-8859-1\"");
        assert!(matches!(latin, Err(CycloneDxXmlError::Encoding { encoding }) if encoding == "ISO-8859-1"));
        assert!(matches!(convert(""), Err(CycloneDxXmlError::Malformed(_))));
    }

    #[test]
    fn what_is_no_cyclonedx_is_told_with_its_place() {
        for (from, to, told) in [
            ("<id>MPL-2.0", "<id>MPL-2.5", "components/inner/0/licenses/inner/0/license/license_identifier"),
            ("type=\"library\"><name>idna", "type=\"banana\"><name>idna", "components/inner/1/component_type"),
            ("<name>idna</name>", "", "name"),
            ("9188560f", "zz88560f", "hashes"),
            ("urn:uuid:ca31c92c", "urn:uuid:no", "serial_number"),
            ("<dependency ref=\"idna\"/>", "<dependency ref=\"nobody\"/>", "nobody"),
        ] {
            let refused = changed(from, to).unwrap_err();
            assert!(matches!(refused, CycloneDxXmlError::Invalid { version: "1.5", .. }), "{to}: {refused}");
            assert!(refused.to_string().contains(told), "{to}: {refused}");
        }
        let nameless = changed("<name>idna</name>", "<name/>");
        assert!(matches!(nameless, Err(CycloneDxXmlError::Json(CycloneDxError::Nameless))));
    }

    #[test]
    fn keys_that_the_library_misspells_are_put_right() {
        let json = changed("<license><id>MPL-2.0", "<license bom-ref=\"l\"><id>MPL-2.0").unwrap();
        assert_eq!(json["components"][0]["licenses"][0]["license"]["bom-ref"], "l");
        let analysis = "<vulnerabilities><vulnerability><id>CVE-2026-1</id><analysis><state>not_affected</state>\
            <responses><response>will_not_fix</response></responses></analysis></vulnerability></vulnerabilities></bom>";
        let json = changed("</bom>", analysis).unwrap();
        assert_eq!(json["vulnerabilities"][0]["analysis"]["response"], json!(["will_not_fix"]));
    }

    #[test]
    fn limits_hold_at_n_and_fail_at_n_plus_1() {
        let elements = SBOM.matches('<').count() - SBOM.matches("</").count() - 1;
        let within = |bytes, nodes| Limits { bytes, nodes }.to_json(SBOM.as_bytes());
        assert!(within(SBOM.len(), elements).is_ok());
        assert!(matches!(within(SBOM.len() - 1, elements), Err(CycloneDxXmlError::TooLarge { .. })));
        assert!(matches!(within(SBOM.len(), elements - 1), Err(CycloneDxXmlError::TooMany { what: "elements", .. })));
        let nested = |n: usize| {
            let (open, close) = ("<a>".repeat(n - 1), "</a>".repeat(n - 1));
            convert(&format!("<bom xmlns='{NAMESPACE}1.5'><components>{open}{close}</components></bom>"))
        };
        assert!(nested(MAX_DEPTH - 1).is_ok());
        assert!(matches!(nested(MAX_DEPTH), Err(CycloneDxXmlError::TooMany { limit: MAX_DEPTH, .. })));
        let mut inner = String::new();
        for nth in 0..62 {
            inner =
                format!("<components><component type='library'><name>c{nth}</name>{inner}</component></components>");
        }
        let deep = convert(&format!("<bom xmlns='{NAMESPACE}1.5'>{inner}</bom>")).unwrap();
        assert_eq!(cyclonedx::read(&deep).unwrap().components.len(), 62);
        let many = |n: usize| {
            let attributes: String = (0..n).map(|nth| format!(" a{nth}=''")).collect();
            convert(&format!("<bom xmlns='{NAMESPACE}1.5'{attributes}/>"))
        };
        assert!(many(MAX_ATTRIBUTES - 1).is_ok());
        assert!(matches!(many(MAX_ATTRIBUTES), Err(CycloneDxXmlError::TooMany { limit: MAX_ATTRIBUTES, .. })));
    }
}
