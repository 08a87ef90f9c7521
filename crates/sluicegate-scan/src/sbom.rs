//! Makes Trivy's CycloneDX document the same for every scan of the same image.
//!
//! Trivy draws the serial number, the references of the subject, of the system and of every package list at random, writes the
//! time and the path it was given, and sorts by the random references. Here the references follow from what they name, the
//! subject is the image by its digest, and the findings are left out: they depend on the database and have a document of their
//! own. Everything else stays as Trivy wrote it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sluicegate_attestation::cyclonedx::serial_number;
use sluicegate_ports::scan::ScanError;
use sluicegate_types::{Digest, UnixTime};

/// Rewrites the document `raw`. `name` is the last part of the image's repository, in lower case (purl type `oci`); `epoch` is
/// SOURCE_DATE_EPOCH, and without it the document carries no time.
pub fn reproducible(raw: &[u8], name: &str, image: &Digest, epoch: Option<UnixTime>) -> Result<Vec<u8>, ScanError> {
    let mut document: Map<String, Value> =
        serde_json::from_slice(raw).map_err(|error| refused(&format!("the SBOM is not JSON: {error}")))?;
    if document.get("bomFormat").and_then(Value::as_str) != Some("CycloneDX") {
        return Err(refused("the SBOM does not say that it is CycloneDX"));
    }
    document.insert("serialNumber".into(), json!(serial_number(image)));
    document.remove("vulnerabilities");
    let new_names = stable_references(&document)?;
    set_subject(&mut document, name, image, epoch)?;
    let mut value = Value::Object(document);
    rename(&mut value, &new_names);
    for list in ["components", "dependencies"] {
        sort_by_reference(&mut value, list);
    }
    serde_json::to_vec(&value).map_err(|error| refused(&error.to_string()))
}

fn set_subject(
    document: &mut Map<String, Value>,
    name: &str,
    image: &Digest,
    epoch: Option<UnixTime>,
) -> Result<(), ScanError> {
    let metadata = document.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = metadata.ok_or_else(|| refused("the SBOM has no metadata"))?;
    match epoch {
        Some(epoch) => metadata.insert("timestamp".into(), json!(epoch.to_string())),
        None => metadata.remove("timestamp"),
    };
    let subject = metadata.get_mut("component").and_then(Value::as_object_mut);
    let subject = subject.ok_or_else(|| refused("the SBOM has no subject"))?;
    subject.insert("name".into(), json!(name));
    subject.insert("version".into(), json!(image.to_string()));
    subject.insert("purl".into(), json!(format!("pkg:oci/{name}@sha256%3A{}", image.hex())));
    Ok(())
}

/// New names for the random references: `image` for the subject, `os:NAME@VERSION` and `list:TYPE:NAME` for what has no package
/// URL. Two that would get one name keep their order apart by a number, the text of the rest deciding.
fn stable_references(document: &Map<String, Value>) -> Result<BTreeMap<String, String>, ScanError> {
    let mut names = BTreeMap::new();
    let subject = document.get("metadata").and_then(|metadata| metadata.get("component"));
    let reference = subject.and_then(reference_of).ok_or_else(|| refused("the SBOM's subject has no reference"))?;
    names.insert(reference.to_owned(), "image".to_owned());
    let components = document.get("components").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut random: Vec<_> = components
        .iter()
        .filter_map(|component| Some((stem_of(component), without_reference(component), reference_of(component)?)))
        .filter(|(_, _, reference)| is_random(reference))
        .collect();
    random.sort();
    let mut taken: BTreeSet<String> = components.iter().filter_map(reference_of).map(str::to_owned).collect();
    taken.insert("image".to_owned());
    for (stem, _, reference) in random {
        let mut name = stem.clone();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            name = format!("{stem}#{number}");
            number += 1;
        }
        names.insert(reference.to_owned(), name);
    }
    Ok(names)
}

fn stem_of(component: &Value) -> String {
    let text = |key: &str| component.get(key).and_then(Value::as_str).unwrap_or_default();
    let name = text("name");
    if text("type") == "operating-system" {
        return format!("os:{name}@{}", text("version"));
    }
    if !text("purl").is_empty() {
        return text("purl").to_owned();
    }
    format!("list:{}:{name}@{}", text("type"), text("version")).trim_end_matches('@').to_owned()
}

fn without_reference(component: &Value) -> String {
    let mut copy = component.clone();
    if let Some(object) = copy.as_object_mut() {
        object.remove("bom-ref");
    }
    copy.to_string()
}

fn reference_of(component: &Value) -> Option<&str> {
    component.get("bom-ref").and_then(Value::as_str)
}

/// Whether a reference is a bare UUID; Trivy's others are package URLs.
fn is_random(reference: &str) -> bool {
    let groups: Vec<_> = reference.split('-').collect();
    let sizes = [8, 4, 4, 4, 12];
    groups.len() == sizes.len()
        && groups
            .iter()
            .zip(sizes)
            .all(|(group, size)| group.len() == size && group.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Replaces references where CycloneDX holds one: `bom-ref`, `ref`, and the members of `dependsOn` and `provides`. The document's
/// depth was limited by its parser.
fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(object) => {
            for (key, member) in object.iter_mut() {
                match (key.as_str(), member) {
                    ("bom-ref" | "ref", Value::String(text)) => replace(text, names),
                    ("dependsOn" | "provides", Value::Array(items)) => {
                        for item in items.iter_mut() {
                            if let Value::String(text) = item {
                                replace(text, names);
                            }
                        }
                        items.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
                    }
                    (_, other) => rename(other, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        _ => {}
    }
}

fn replace(text: &mut String, names: &BTreeMap<String, String>) {
    if let Some(name) = names.get(text.as_str()) {
        name.clone_into(text);
    }
}

fn sort_by_reference(document: &mut Value, list: &str) {
    if let Some(items) = document.get_mut(list).and_then(Value::as_array_mut) {
        items.sort_by_cached_key(|item| {
            let reference = item.get("bom-ref").or_else(|| item.get("ref")).and_then(Value::as_str);
            (reference.map(str::to_owned), item.to_string())
        });
    }
}

fn refused(reason: &str) -> ScanError {
    ScanError::Report { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(ids: [&str; 3], path: &str, swapped: bool) -> String {
        let system = json!({"bom-ref": ids[1], "type": "operating-system", "name": "debian", "version": "12.11"});
        let list = json!({"bom-ref": ids[2], "type": "application", "name": "srv/Cargo.lock"});
        let package =
            json!({"bom-ref": "pkg:cargo/serde@1", "type": "library", "name": "serde", "purl": "pkg:cargo/serde@1"});
        let (mut first, mut second) = (system, list);
        if swapped {
            std::mem::swap(&mut first, &mut second);
        }
        json!({
            "bomFormat": "CycloneDX", "specVersion": "1.7", "serialNumber": format!("urn:uuid:{}", ids[0]), "version": 1,
            "metadata": {"timestamp": path.len().to_string(), "component": {"bom-ref": ids[0], "type": "container", "name": path}},
            "components": [first, second, package],
            "dependencies": [
                {"ref": ids[0], "dependsOn": [ids[1], ids[2]]},
                {"ref": ids[2], "dependsOn": ["pkg:cargo/serde@1"]},
            ],
            "vulnerabilities": [{"id": ids[0]}],
        })
        .to_string()
    }

    const ONE: [&str; 3] = [
        "d88a58b5-5edb-4711-930d-82d2005b2923",
        "31bb3811-f814-425a-a35a-1875a3a22ca2",
        "9ef23aed-33c1-43e2-8684-8df99b8a1c73",
    ];
    const TWO: [&str; 3] = [
        "d96e3392-7033-462d-869a-e069c0181f0b",
        "bd65608e-98b4-4523-8776-bac956f64724",
        "2d3ebcdd-8236-4e5e-ac79-e2608e63220f",
    ];

    #[test]
    fn two_scans_of_one_image_give_the_same_bytes() {
        let image = Digest::of(b"image");
        let one = reproducible(document(ONE, "/image", false).as_bytes(), "shop", &image, None).unwrap();
        let two = reproducible(document(TWO, "/another/path", true).as_bytes(), "shop", &image, None).unwrap();
        assert_eq!(String::from_utf8(one.clone()).unwrap(), String::from_utf8(two).unwrap());
        let other =
            reproducible(document(ONE, "/image", false).as_bytes(), "shop", &Digest::of(b"other"), None).unwrap();
        assert_ne!(one, other);
    }

    #[test]
    fn the_subject_is_the_image_and_references_still_meet() {
        let image = Digest::of(b"image");
        let epoch = UnixTime::from_seconds(0).unwrap();
        let bytes = reproducible(document(ONE, "/image", false).as_bytes(), "shop", &image, Some(epoch)).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let subject = &value["metadata"]["component"];
        assert_eq!(subject["purl"], format!("pkg:oci/shop@sha256%3A{}", image.hex()));
        assert_eq!(subject["version"], image.to_string());
        assert_eq!(value["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(
            value["dependencies"][0],
            json!({"ref": "image", "dependsOn": ["list:application:srv/Cargo.lock", "os:debian@12.11"]})
        );
        assert!(value.get("vulnerabilities").is_none());
        assert!(value["serialNumber"].as_str().unwrap().starts_with("urn:uuid:"));
        assert_eq!(value["components"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn what_is_not_an_sbom_is_refused() {
        let image = Digest::of(b"image");
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"bomFormat":"CycloneDX"}"#,
            r#"{"bomFormat":"SPDX","metadata":{"component":{"bom-ref":"x"}}}"#,
        ] {
            assert!(reproducible(bad.as_bytes(), "shop", &image, None).is_err(), "{bad}");
        }
        assert!(
            reproducible(
                br#"{"bomFormat":"CycloneDX","metadata":{"component":{"bom-ref":"x"}}}"#,
                "shop",
                &image,
                None
            )
            .is_ok()
        );
    }
}
