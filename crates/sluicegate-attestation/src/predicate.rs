//! Predicate types by URI, and the short names that gateway files use for them.

use std::fmt;

use serde_json::Value;
use sluicegate_types::{NotUtf8, borrowed_utf8, nearest::nearest};

use crate::{
    Error,
    cyclonedx_xml::{self, CycloneDxXmlError},
    form, strict_json,
};

/// What a statement claims. Known types have a variant; any other is kept as it is and is never a fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PredicateType {
    /// SLSA provenance v1.
    Provenance,
    /// CycloneDX, by the unversioned URI that Trivy and cosign read.
    Sbom,
    /// SPDX, by the unversioned URI that cosign writes.
    Spdx,
    /// in-toto vulns v0.2.
    Vulns,
    /// in-toto test-result v0.1.
    TestResult,
    /// SLSA verification summary v1.
    VerificationSummary,
    /// A promotion record v0.1.
    Promotion,
    /// cosign's image signature.
    ImageSignature,
    /// An OpenVEX document v0.2.0.
    Vex,
    /// in-toto runtime-trace v0.1.
    RuntimeTrace,
    /// Anything else.
    Other(String),
}

const KNOWN: [(PredicateType, &str, &str); 10] = [
    (PredicateType::Provenance, "provenance", "https://slsa.dev/provenance/v1"),
    (PredicateType::Sbom, "sbom", "https://cyclonedx.org/bom"),
    (PredicateType::Spdx, "spdx", "https://spdx.dev/Document"),
    (PredicateType::Vulns, "vulns", "https://in-toto.io/attestation/vulns/v0.2"),
    (PredicateType::TestResult, "test-result", "https://in-toto.io/attestation/test-result/v0.1"),
    (PredicateType::VerificationSummary, "verification-summary", "https://slsa.dev/verification_summary/v1"),
    (PredicateType::Promotion, "promotion", "https://in-toto.io/attestation/promotion-record/v0.1"),
    (PredicateType::ImageSignature, "signature", "https://sigstore.dev/cosign/sign/v1"),
    (PredicateType::Vex, "vex", "https://openvex.dev/ns/v0.2.0"),
    (PredicateType::RuntimeTrace, "runtime-trace", "https://in-toto.io/attestation/runtime-trace/v0.1"),
];

impl PredicateType {
    /// The type that this URI names; matched whole, nothing folds case.
    pub fn from_uri(uri: &str) -> Self {
        KNOWN
            .iter()
            .find(|(_, _, known)| *known == uri)
            .map_or_else(|| Self::Other(uri.to_owned()), |(kind, ..)| kind.clone())
    }

    /// The type with this short name, as `require:` in a gateway file writes it.
    pub fn from_short(name: &str) -> Option<Self> {
        KNOWN.iter().find(|(_, short, _)| *short == name).map(|(kind, ..)| kind.clone())
    }

    /// The type that this text names where people write types: a short name, or a whole URI, which has a colon.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::from_short(name).or_else(|| name.contains(':').then(|| Self::from_uri(name)))
    }

    /// The URI of a known type that somebody probably meant who wrote this URI, which is no known one.
    pub fn meant_by(uri: &str) -> Option<&'static str> {
        let is_known = KNOWN.iter().any(|(_, short, known)| *short == uri || *known == uri);
        let known = KNOWN.iter().map(|(_, _, known)| *known);
        if is_known { None } else { nearest(uri, known) }
    }

    /// The short names.
    pub fn short_names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|(_, short, _)| *short)
    }

    /// The URI.
    pub fn uri(&self) -> &str {
        match self {
            Self::Other(uri) => uri,
            known => KNOWN.iter().find(|(kind, ..)| kind == known).map_or("", |(_, _, uri)| uri),
        }
    }

    /// The short name, or the URI of an unknown type.
    pub fn short(&self) -> &str {
        match self {
            Self::Other(uri) => uri,
            known => KNOWN.iter().find(|(kind, ..)| kind == known).map_or("", |(_, short, _)| short),
        }
    }
}

/// What errors call it.
const WHAT: &str = "the predicate";

/// Bytes of a predicate that somebody hands over.
pub const MAX_PREDICATE: usize = 16 * 1024 * 1024;

/// Objects and lists of a predicate in each other, the predicate itself being the first. Less than a JSON document may have
/// (DESIGN section 7): a predicate is read again inside others, the statement, the policies' input and a decision's document, and what
/// could be said but not be read there would stand in the way of every later decision about its image.
pub const MAX_PREDICATE_DEPTH: usize = 100;

/// Reads a predicate: one JSON object of at most 16 MiB, no key twice in one object, at most [`MAX_PREDICATE_DEPTH`] deep, and no
/// number that would be signed as another one.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    if bytes.len() > MAX_PREDICATE {
        return Err(Error::TooLarge { what: WHAT, limit: MAX_PREDICATE });
    }
    if let Err(error @ NotUtf8::Other(_)) = borrowed_utf8(bytes) {
        return Err(Error::Invalid { what: WHAT, reason: error.to_string() });
    }
    strict_json::check(bytes).map_err(form(WHAT))?;
    let value: Value = serde_json::from_slice(bytes).map_err(form(WHAT))?;
    if let Some(number) = rounded_number(bytes) {
        let number: String = number.chars().take(40).collect();
        return Err(Error::Invalid {
            what: WHAT,
            reason: format!("the number {number} would be rounded; write it as a string"),
        });
    }
    check_depth(&value)?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Error::Invalid { what: WHAT, reason: "it is JSON and no object".to_owned() })
    }
}

/// Takes a CycloneDX document in XML over as a predicate: as JSON, within the same limits.
pub fn from_cyclonedx_xml(xml: &[u8]) -> Result<Value, Error> {
    let invalid = |error: CycloneDxXmlError| Error::Invalid { what: WHAT, reason: error.to_string() };
    let value = cyclonedx_xml::to_json(xml).map_err(invalid)?;
    check_depth(&value)?;
    Ok(value)
}

/// Refuses a predicate that is nested deeper than [`MAX_PREDICATE_DEPTH`].
pub(crate) fn check_depth(predicate: &Value) -> Result<(), Error> {
    fn fits(value: &Value, levels: usize) -> bool {
        match value {
            Value::Array(items) => levels > 0 && items.iter().all(|item| fits(item, levels - 1)),
            Value::Object(items) => levels > 0 && items.values().all(|item| fits(item, levels - 1)),
            _ => true,
        }
    }
    if fits(predicate, MAX_PREDICATE_DEPTH) {
        Ok(())
    } else {
        let reason = format!("nested deeper than {MAX_PREDICATE_DEPTH} levels; make it flatter");
        Err(Error::Invalid { what: "the predicate", reason })
    }
}

/// The first number of a JSON document that does not fit into 64 bits: a whole one beyond them, or one of more than 15 significant
/// digits, of which a double keeps no more for certain.
fn rounded_number(json: &[u8]) -> Option<&str> {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let length = match byte {
            b'"' => string_length(&json[at..]),
            b'-' | b'0'..=b'9' => {
                let part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let length = json[at..].iter().take_while(|byte| part(byte)).count();
                let text = std::str::from_utf8(&json[at..at + length]).ok()?;
                if !is_exact(text) {
                    return Some(text);
                }
                length
            }
            _ => 1,
        };
        at += length;
    }
    None
}

/// Bytes of the JSON string that begins here, both quotes included.
fn string_length(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn is_exact(number: &str) -> bool {
    if !number.contains(['.', 'e', 'E']) {
        return number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
    }
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_start_matches('0').trim_end_matches('0').len() <= 15
        && serde_json::from_str::<f64>(number).ok() == number.parse().ok()
}

impl fmt::Display for PredicateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_type_is_found_by_its_uri_and_by_its_name() {
        for (kind, short, uri) in KNOWN {
            assert_eq!(PredicateType::from_uri(uri), kind);
            assert_eq!(PredicateType::from_short(short), Some(kind.clone()));
            assert_eq!((kind.short(), kind.uri()), (short, uri));
        }
        assert_eq!(PredicateType::from_name("sbom"), Some(PredicateType::Sbom));
        assert_eq!(PredicateType::from_name("https://cyclonedx.org/bom"), Some(PredicateType::Sbom));
        assert_eq!(PredicateType::from_name("x:y"), Some(PredicateType::Other("x:y".to_owned())));
        assert_eq!(PredicateType::from_name("SBOM"), None);
        let near = "https://SLSA.dev/provenance/v1";
        assert_eq!(PredicateType::from_uri(near), PredicateType::Other(near.to_owned()));
    }

    #[test]
    fn a_number_that_would_be_signed_as_another_one_is_refused() {
        for fits in [
            "0",
            "-1",
            "0.1",
            "1.50",
            "-2.5e-3",
            "1E5",
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551615",
            "0.123456789012345",
            "\"123456789012345678901234567890\"",
            "\"\\\"1.0000000000000000000001\"",
        ] {
            let predicate = format!("{{\"a\": [{fits}], \"123456789012345678901234567890\": {fits}}}");
            assert!(parse(predicate.as_bytes()).is_ok(), "{fits}");
        }
        for rounded in
            ["18446744073709551616", "-9223372036854775809", "0.1234567890123456", "1.00000000000000000001e3"]
        {
            let error = parse(format!("{{\"a\": [\"x\\\\\", {rounded}]}}").as_bytes()).unwrap_err().to_string();
            assert!(error.contains(rounded) && error.contains("would be rounded"), "{error}");
        }
        assert!(parse(b"{\"a\": 1e999}").is_err());
    }

    #[test]
    fn a_predicate_is_one_object_with_unique_keys_within_the_limits() {
        assert!(parse(br#" {"reviewed": true} "#).is_ok());
        for bad in ["", "[]", "null", "\"x\"", "{", "{}{}", r#"{"a":1,"a":2}"#, r#"{"x":{"a":1,"\u0061":2}}"#] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(parse(nested(MAX_PREDICATE_DEPTH).as_bytes()).is_ok());
        let error = parse(nested(MAX_PREDICATE_DEPTH + 1).as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "the predicate: nested deeper than 100 levels; make it flatter");
        assert!(parse(nested(100_000).as_bytes()).is_err());
        let mut large = b"{}".to_vec();
        large.resize(MAX_PREDICATE, b' ');
        assert!(parse(&large).is_ok());
        large.push(b' ');
        assert!(matches!(parse(&large), Err(Error::TooLarge { .. })));
    }
}
