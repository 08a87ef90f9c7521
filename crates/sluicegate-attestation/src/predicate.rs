//! Predicate types by URI, and the short names that gateway files use for them.

use std::fmt;

/// What a statement claims. Known types have a variant; any other is kept as it is and is never a fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PredicateType {
    /// SLSA provenance v1.
    Provenance,
    /// CycloneDX, by the unversioned URI that Trivy and cosign read.
    Sbom,
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
    /// Anything else.
    Other(String),
}

const KNOWN: [(PredicateType, &str, &str); 8] = [
    (PredicateType::Provenance, "provenance", "https://slsa.dev/provenance/v1"),
    (PredicateType::Sbom, "sbom", "https://cyclonedx.org/bom"),
    (PredicateType::Vulns, "vulns", "https://in-toto.io/attestation/vulns/v0.2"),
    (PredicateType::TestResult, "test-result", "https://in-toto.io/attestation/test-result/v0.1"),
    (PredicateType::VerificationSummary, "verification-summary", "https://slsa.dev/verification_summary/v1"),
    (PredicateType::Promotion, "promotion", "https://in-toto.io/attestation/promotion-record/v0.1"),
    (PredicateType::ImageSignature, "signature", "https://sigstore.dev/cosign/sign/v1"),
    (PredicateType::Vex, "vex", "https://openvex.dev/ns/v0.2.0"),
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
}
