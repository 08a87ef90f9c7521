//! What a gate emits: SLSA verification summaries (VSA v1) and promotion records.

use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_types::{Digest, EnvironmentName, PinnedImage, UnixTime};

use crate::{Error, form, statement::sha256_of};

/// The predicate of `https://slsa.dev/verification_summary/v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationSummary {
    /// The gate's name, from the gateway file.
    pub verifier_id: String,
    /// When it was decided.
    pub time_verified: UnixTime,
    /// The target repository with the image's digest.
    pub resource: PinnedImage,
    /// The digest of the environment's whole resolved gateway.
    pub policy: Digest,
    /// Every attestation that was used.
    pub inputs: Vec<Digest>,
    /// Whether it was allowed.
    pub passed: bool,
    /// SLSA levels; `["FAILED"]` when denied.
    pub levels: Vec<String>,
    /// Where the image may go.
    pub environment: EnvironmentName,
    /// The last second at which it is worth something.
    pub expires: UnixTime,
    /// Who chose the judge: `self` for a gateway beside the pipeline (trust model 7).
    pub authority: String,
}

impl VerificationSummary {
    /// The predicate as JSON.
    pub fn to_predicate(&self) -> Value {
        json!({
            "verifier": {"id": self.verifier_id, "version": {"sluicegate": env!("CARGO_PKG_VERSION")}},
            "timeVerified": self.time_verified,
            "resourceUri": self.resource.to_string(),
            "policy": {"uri": "gateway.yaml", "digest": {"sha256": self.policy.hex()}},
            "inputAttestations": self.inputs.iter().map(|d| json!({"digest": {"sha256": d.hex()}})).collect::<Vec<_>>(),
            "verificationResult": if self.passed { "PASSED" } else { "FAILED" },
            "verifiedLevels": self.levels,
            "slsaVersion": "1.1",
            "sluicegate_environment": self.environment,
            "sluicegate_expires": self.expires,
            "sluicegate_authority": self.authority,
        })
    }
}

/// The predicate of `https://in-toto.io/attestation/promotion-record/v0.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// What was copied.
    pub image: Digest,
    /// From where, by name.
    pub source: String,
    /// To where.
    pub destination: PinnedImage,
    /// When.
    pub timestamp: UnixTime,
    /// Who copied.
    pub builder_id: String,
    /// The decision's bundle, or `None` where the environment has no gate.
    pub decision: Option<Digest>,
    /// The environment.
    pub environment: EnvironmentName,
}

impl Promotion {
    /// The predicate as JSON.
    pub fn to_predicate(&self) -> Value {
        json!({
            "srcRef": self.source,
            "dstRef": self.destination.to_string(),
            "digest": {"sha256": self.image.hex()},
            "timestamp": self.timestamp,
            "builderId": self.builder_id,
            "sluicegate_environment": self.environment,
            "sluicegate_basis": self.decision.map_or_else(|| json!("ungated"), |d| json!({"sha256": d.hex()})),
        })
    }
}

/// What a verification summary claims, as far as a reader needs it: for which resource, whether it passed, whose gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryClaim {
    /// The gate's name.
    pub verifier_id: String,
    /// The environment.
    pub environment: EnvironmentName,
    /// Whether it passed; anything but `PASSED` is no.
    pub passed: bool,
    /// The target repository and digest as written.
    pub resource: String,
    /// The digest of the gateway.
    pub policy: Digest,
    /// The last second at which it is worth something.
    pub expires: UnixTime,
}

impl SummaryClaim {
    /// Reads a summary of ours.
    pub fn parse(predicate: &Value) -> Result<Self, Error> {
        let wire = WireSummary::deserialize(predicate).map_err(form("the verification summary"))?;
        Ok(Self {
            verifier_id: wire.verifier.id,
            environment: wire.sluicegate_environment,
            passed: wire.verification_result == "PASSED",
            resource: wire.resource_uri,
            policy: sha256_of(&wire.policy.digest)?,
            expires: wire.sluicegate_expires,
        })
    }
}

/// The environment that a promotion record of ours names.
pub fn promoted_to(predicate: &Value) -> Result<EnvironmentName, Error> {
    EnvironmentName::deserialize(&predicate["sluicegate_environment"]).map_err(form("the promotion record"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSummary {
    verifier: WireVerifier,
    resource_uri: String,
    policy: WirePolicy,
    verification_result: String,
    #[serde(rename = "sluicegate_environment")]
    sluicegate_environment: EnvironmentName,
    #[serde(rename = "sluicegate_expires")]
    sluicegate_expires: UnixTime,
}

#[derive(Deserialize)]
struct WireVerifier {
    id: String,
}

#[derive(Deserialize)]
struct WirePolicy {
    digest: std::collections::BTreeMap<String, String>,
}
