//! Whether a document is SPDX 2.3 as its official JSON Schema says it.

use std::sync::OnceLock;

use jsonschema::{Draft, ValidationError, Validator};
use serde_json::Value;

use crate::cyclonedx_schema::told;

/// As it was published.
const SCHEMA: &str = include_str!("../../../attestations/sbom/spdx/spdx-2.3.schema.json");

/// Values that tools write and this schema has not: the first is that of the specification's text (section 7.24), the others are those of
/// the schemas before it.
const OTHER_SPELLINGS: [(&str, &str); 3] = [
    ("primaryPackagePurpose", "OPERATING-SYSTEM"),
    ("referenceCategory", "PACKAGE_MANAGER"),
    ("referenceCategory", "PERSISTENT_ID"),
];

/// Why a document is none of its version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpdxSchemaError {
    /// It is not what its version says.
    #[error("no SPDX 2.3: {}", .told.join("; "))]
    Invalid {
        /// The first things that are wrong, each with where.
        told: Vec<String>,
    },
    /// The schema of ours is none.
    #[error("the schema of SPDX 2.3 cannot be used: {reason}")]
    Schema {
        /// Why not.
        reason: String,
    },
}

/// Refuses what is not, by the official schema, an SPDX 2.3 document.
pub fn validate(document: &Value) -> Result<(), SpdxSchemaError> {
    static VALIDATOR: OnceLock<Result<Validator, String>> = OnceLock::new();
    let validator = VALIDATOR.get_or_init(validator).as_ref();
    let validator = validator.map_err(|reason| SpdxSchemaError::Schema { reason: reason.clone() })?;
    let told = told(validator.iter_errors(document).filter(|error| !is_other_spelling(error)));
    if told.is_empty() { Ok(()) } else { Err(SpdxSchemaError::Invalid { told }) }
}

fn is_other_spelling(error: &ValidationError<'_>) -> bool {
    let place = error.instance_path().to_string();
    let key = place.rsplit('/').next().unwrap_or_default();
    error.instance().as_str().is_some_and(|value| OTHER_SPELLINGS.contains(&(key, value)))
}

fn validator() -> Result<Validator, String> {
    let schema: Value = serde_json::from_str(SCHEMA).map_err(|error| error.to_string())?;
    jsonschema::options().with_draft(Draft::Draft7).build(&schema).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let good = json!({"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "dataLicense": "CC0-1.0", "name": "a",
          "creationInfo": {"created": "2026-11-25T00:00:00Z", "creators": ["Tool: a"]},
          "packages": [{"SPDXID": "SPDXRef-a", "name": "a", "downloadLocation": "NONE", "primaryPackagePurpose": "LIBRARY"}]});
        assert_eq!(validate(&good), Ok(()));
        let mut bad = good.clone();
        bad["packages"][0]["primaryPackagePurpose"] = json!("BANANA");
        bad["creationInfo"]["creators"] = json!([]);
        let said = validate(&bad).unwrap_err().to_string();
        assert!(
            said.contains("/packages/0/primaryPackagePurpose") && said.contains("/creationInfo/creators"),
            "{said}"
        );
        for missing in ["SPDXID", "name", "creationInfo", "dataLicense"] {
            let mut without = good.clone();
            without.as_object_mut().unwrap().remove(missing);
            assert!(validate(&without).unwrap_err().to_string().contains(missing), "{missing}");
        }
    }

    #[test]
    fn spellings_of_the_text_are_taken_where_they_belong() {
        let with = |purpose: &str, category: &str| {
            let reference =
                json!({"referenceCategory": category, "referenceType": "purl", "referenceLocator": "pkg:a/b"});
            json!({"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "dataLicense": "CC0-1.0", "name": "a",
              "creationInfo": {"created": "2026-11-25T00:00:00Z", "creators": ["Tool: a"]},
              "packages": [{"SPDXID": "SPDXRef-a", "name": "a", "downloadLocation": "NONE",
                "primaryPackagePurpose": purpose, "externalRefs": [reference]}]})
        };
        for purpose in ["OPERATING-SYSTEM", "OPERATING_SYSTEM"] {
            for category in ["PACKAGE-MANAGER", "PACKAGE_MANAGER", "PERSISTENT-ID", "PERSISTENT_ID"] {
                assert_eq!(validate(&with(purpose, category)), Ok(()), "{purpose} {category}");
            }
        }
        assert!(validate(&with("PACKAGE_MANAGER", "PACKAGE_MANAGER")).is_err());
        assert!(validate(&with("LIBRARY", "OPERATING-SYSTEM")).is_err());
    }
}
