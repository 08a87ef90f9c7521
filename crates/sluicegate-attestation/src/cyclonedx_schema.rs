//! Whether a document is CycloneDX as its own version says it: by the official JSON Schemas, 1.4 to 1.7, formats asserted.

use std::sync::OnceLock;

use jsonschema::{Draft, Registry, ValidationError, Validator};
use serde_json::Value;

/// A schema as it was published.
macro_rules! schema {
    ($name:literal) => {
        include_str!(concat!("../../../attestations/sbom/cyclonedx/", $name, ".schema.json"))
    };
}

/// What the schemas refer to, under the names that they use.
const PARTS: [(&str, &str); 3] = [
    ("http://cyclonedx.org/schema/spdx.schema.json", schema!("spdx")),
    ("http://cyclonedx.org/schema/jsf-0.82.schema.json", schema!("jsf-0.82")),
    ("http://cyclonedx.org/schema/cryptography-defs.schema.json", schema!("cryptography-defs")),
];

const VERSIONS: [(&str, &str); 4] = [
    ("1.4", schema!("bom-1.4")),
    ("1.5", schema!("bom-1.5")),
    ("1.6", schema!("bom-1.6")),
    ("1.7", schema!("bom-1.7")),
];

/// Errors of one document that are told.
const MAX_TOLD: usize = 3;
/// Characters of one of them.
const MAX_WORDS: usize = 300;

/// Why a document is none of its version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A version that there is no schema of here.
    #[error("CycloneDX {found}: this version reads 1.4 to 1.7")]
    Version {
        /// What the document says.
        found: String,
    },
    /// It is not what its version says.
    #[error("no CycloneDX {version}: {}", .told.join("; "))]
    Invalid {
        /// The version.
        version: &'static str,
        /// The first things that are wrong, each with where.
        told: Vec<String>,
    },
    /// A schema of ours is none.
    #[error("the schema of CycloneDX {version} cannot be used: {reason}")]
    Schema {
        /// The version.
        version: &'static str,
        /// Why not.
        reason: String,
    },
}

/// Refuses what is not, by the official schema of its own version, a CycloneDX document.
pub fn validate(document: &Value) -> Result<(), SchemaError> {
    static VALIDATORS: [OnceLock<Result<Validator, String>>; VERSIONS.len()] =
        [const { OnceLock::new() }; VERSIONS.len()];
    let said = document["specVersion"].as_str().unwrap_or_default();
    let Some(nth) = VERSIONS.iter().position(|(version, _)| *version == said) else {
        return Err(SchemaError::Version { found: said.chars().take(16).collect() });
    };
    let (version, schema) = VERSIONS[nth];
    let validator = VALIDATORS[nth].get_or_init(|| validator(schema)).as_ref();
    let validator = validator.map_err(|reason| SchemaError::Schema { version, reason: reason.clone() })?;
    let told = told(validator.iter_errors(document));
    if told.is_empty() { Ok(()) } else { Err(SchemaError::Invalid { version, told }) }
}

/// The first of these errors in words, each with its place.
pub(crate) fn told<'a>(errors: impl Iterator<Item = ValidationError<'a>>) -> Vec<String> {
    errors
        .take(MAX_TOLD)
        .map(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { "the document".to_owned() } else { place };
            format!("{place}: {error}").chars().take(MAX_WORDS).collect()
        })
        .collect()
}

fn validator(schema: &str) -> Result<Validator, String> {
    let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
    let mut registry = Registry::new();
    for (name, text) in PARTS {
        registry = registry.add(name, read(text)?).map_err(|error| error.to_string())?;
    }
    let registry = registry.prepare().map_err(|error| error.to_string())?;
    jsonschema::options()
        .with_draft(Draft::Draft7)
        .with_registry(&registry)
        .should_validate_formats(true)
        .build(&read(schema)?)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let good =
            json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "library", "name": "a"}]});
        assert_eq!(validate(&good), Ok(()));
        let mut bad = good.clone();
        bad["components"][0]["type"] = json!("banana");
        bad["serialNumber"] = json!("urn:uuid:none");
        let said = validate(&bad).unwrap_err().to_string();
        assert!(said.contains("/components/0/type") && said.contains("/serialNumber"), "{said}");
        let mut later = good;
        later["specVersion"] = json!("2.0");
        assert!(matches!(validate(&later), Err(SchemaError::Version { .. })));
        assert!(matches!(validate(&json!([])), Err(SchemaError::Version { .. })));
    }

    /// 269 documents of the specification's own tests: what is called valid is accepted, and nothing else. A clone without them says so.
    #[test]
    fn the_official_documents_are_judged_as_they_are_called() {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
        let shared = std::env::var_os("SLUICEGATE_SHARED").filter(|v| !v.is_empty()).map_or_else(beside, Into::into);
        let suite = shared.join("conformance/cyclonedx");
        if !suite.is_dir() {
            let demanded = std::env::var_os("SLUICEGATE_REQUIRE_PEERS").is_some();
            assert!(!demanded, "no {}, and peers are demanded", suite.display());
            println!("skipped: no {}", suite.display());
            return;
        }
        let (mut seen, mut faults) = (0, Vec::new());
        for version in ["1.4", "1.5", "1.6", "1.7"] {
            for entry in fs::read_dir(suite.join(version)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let mut document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                // By the schema of its folder, whatever it says itself.
                let own = validate(&document);
                document["specVersion"] = json!(version);
                let verdict = if own.is_ok() { own } else { validate(&document).and(own) };
                seen += 1;
                if verdict.is_ok() != name.starts_with("valid-") {
                    faults.push(format!("{version}/{name}: {verdict:?}"));
                }
            }
        }
        assert_eq!((seen, faults), (269, Vec::<String>::new()));
    }
}
