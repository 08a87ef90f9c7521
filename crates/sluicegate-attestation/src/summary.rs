//! What a gate emits: SLSA verification summaries (VSA v1) and promotion records.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate_types::{Digest, EnvironmentName, PinnedImage, UnixTime};

use crate::{Error, form, statement::sha256_of};

/// How far the gate's ledger was when something was said: whoever holds the statement can tell later that what was recorded up to
/// then is still there and the same (trust model 16).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerHead {
    /// The ledger's name, a bare host name.
    pub origin: String,
    /// Leaves: evidence records.
    pub size: u64,
    /// The Merkle root over them (RFC 6962).
    pub root: Digest,
}

impl LedgerHead {
    /// As it is written in predicates, under `sluicegate_ledger`.
    fn to_extension(&self) -> Value {
        json!({"origin": self.origin, "size": self.size, "root": {"sha256": self.root.hex()}})
    }
}

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
    /// The gate's ledger, with the decision's own record.
    pub ledger: LedgerHead,
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
            "sluicegate_ledger": self.ledger.to_extension(),
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
    /// The gate's name, from the gateway file.
    pub verifier_id: String,
    /// The digest of the whole resolved gateway.
    pub gateway: Digest,
    /// Who chose the gateway.
    pub authority: String,
    /// The environment.
    pub environment: EnvironmentName,
    /// The gate's ledger, with the record of what this promotion rests on.
    pub ledger: LedgerHead,
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
            "sluicegate_verifier": self.verifier_id,
            "sluicegate_gateway": {"sha256": self.gateway.hex()},
            "sluicegate_authority": self.authority,
            "sluicegate_ledger": self.ledger.to_extension(),
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
    /// When it was decided.
    pub time_verified: UnixTime,
    /// Every attestation that was used.
    pub inputs: Vec<Digest>,
    /// Who chose the judge.
    pub authority: String,
    /// How far the gate's ledger was; `None` in summaries of versions that had none.
    pub ledger: Option<LedgerHead>,
}

/// Input attestations of one summary.
const MAX_INPUTS: usize = 10_000;

impl SummaryClaim {
    /// Reads a summary of ours.
    pub fn parse(predicate: &Value) -> Result<Self, Error> {
        let wire = WireSummary::deserialize(predicate).map_err(form("the verification summary"))?;
        if wire.input_attestations.len() > MAX_INPUTS {
            return Err(Error::TooMany { what: "inputAttestations", limit: MAX_INPUTS });
        }
        let inputs = wire.input_attestations.iter().map(|input| sha256_of(&input.digest)).collect::<Result<_, _>>()?;
        Ok(Self {
            verifier_id: wire.verifier.id,
            environment: wire.sluicegate_environment,
            passed: wire.verification_result == "PASSED",
            resource: wire.resource_uri,
            policy: sha256_of(&wire.policy.digest)?,
            expires: wire.sluicegate_expires,
            time_verified: wire.time_verified,
            inputs,
            authority: wire.sluicegate_authority,
            ledger: wire.sluicegate_ledger.map(LedgerHead::try_from).transpose()?,
        })
    }
}

/// What a promotion record claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionClaim {
    /// The environment.
    pub environment: EnvironmentName,
    /// The target repository and digest as written.
    pub destination: String,
    /// What was copied.
    pub image: Digest,
    /// When.
    pub timestamp: UnixTime,
    /// What it rests on.
    pub basis: Basis,
    /// The gate's name.
    pub verifier_id: String,
    /// The digest of the gateway.
    pub gateway: Digest,
    /// Who chose it.
    pub authority: String,
    /// How far the gate's ledger was; `None` in records of versions that had none.
    pub ledger: Option<LedgerHead>,
}

/// What a promotion rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Nothing: the environment has no gate.
    Ungated,
    /// The bundle of the gate's decision.
    Decision(Digest),
}

impl PromotionClaim {
    /// Reads a promotion record of ours.
    pub fn parse(predicate: &Value) -> Result<Self, Error> {
        let wire = WirePromotion::deserialize(predicate).map_err(form("the promotion record"))?;
        Ok(Self {
            environment: wire.sluicegate_environment,
            destination: wire.dst_ref,
            image: sha256_of(&wire.digest)?,
            timestamp: wire.timestamp,
            basis: match wire.sluicegate_basis {
                WireBasis::Word(WireUngated::Ungated) => Basis::Ungated,
                WireBasis::Decision(digest) => Basis::Decision(sha256_of(&digest)?),
            },
            verifier_id: wire.sluicegate_verifier,
            gateway: sha256_of(&wire.sluicegate_gateway)?,
            authority: wire.sluicegate_authority,
            ledger: wire.sluicegate_ledger.map(LedgerHead::try_from).transpose()?,
        })
    }
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
    time_verified: UnixTime,
    input_attestations: Vec<WirePolicy>,
    #[serde(rename = "sluicegate_authority")]
    sluicegate_authority: String,
    #[serde(rename = "sluicegate_ledger")]
    sluicegate_ledger: Option<WireLedger>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePromotion {
    dst_ref: String,
    digest: std::collections::BTreeMap<String, String>,
    timestamp: UnixTime,
    #[serde(rename = "sluicegate_environment")]
    sluicegate_environment: EnvironmentName,
    #[serde(rename = "sluicegate_basis")]
    sluicegate_basis: WireBasis,
    #[serde(rename = "sluicegate_verifier")]
    sluicegate_verifier: String,
    #[serde(rename = "sluicegate_gateway")]
    sluicegate_gateway: std::collections::BTreeMap<String, String>,
    #[serde(rename = "sluicegate_authority")]
    sluicegate_authority: String,
    #[serde(rename = "sluicegate_ledger")]
    sluicegate_ledger: Option<WireLedger>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireBasis {
    Word(WireUngated),
    Decision(std::collections::BTreeMap<String, String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireUngated {
    Ungated,
}

#[derive(Deserialize)]
struct WireLedger {
    origin: String,
    size: u64,
    root: std::collections::BTreeMap<String, String>,
}

impl TryFrom<WireLedger> for LedgerHead {
    type Error = Error;

    fn try_from(wire: WireLedger) -> Result<Self, Error> {
        Ok(Self { origin: wire.origin, size: wire.size, root: sha256_of(&wire.root)? })
    }
}

#[derive(Deserialize)]
struct WireVerifier {
    id: String,
}

#[derive(Deserialize)]
struct WirePolicy {
    digest: std::collections::BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

    use sluicegate_types::Repository;

    use super::*;

    fn head() -> LedgerHead {
        LedgerHead { origin: "ledger.example".to_owned(), size: 7, root: Digest::of(b"root") }
    }

    fn image() -> PinnedImage {
        let environment = "production".parse().unwrap();
        PinnedImage { repository: Repository::of_environment(&environment), digest: Digest::of(b"image") }
    }

    fn summary() -> Value {
        VerificationSummary {
            verifier_id: "https://example.com/gate".to_owned(),
            time_verified: UnixTime::EPOCH,
            resource: image(),
            policy: Digest::of(b"gateway"),
            inputs: vec![Digest::of(b"bundle")],
            passed: true,
            levels: vec!["SLSA_BUILD_LEVEL_1".to_owned()],
            environment: "production".parse().unwrap(),
            expires: UnixTime::EPOCH.plus(60),
            authority: "self".to_owned(),
            ledger: head(),
        }
        .to_predicate()
    }

    fn promotion(decision: Option<Digest>) -> Value {
        Promotion {
            image: image().digest,
            source: "build".to_owned(),
            destination: image(),
            timestamp: UnixTime::EPOCH,
            builder_id: "https://example.com/builder".to_owned(),
            decision,
            verifier_id: "https://example.com/gate".to_owned(),
            gateway: Digest::of(b"gateway"),
            authority: "self".to_owned(),
            environment: "production".parse().unwrap(),
            ledger: head(),
        }
        .to_predicate()
    }

    #[test]
    fn the_ledger_of_a_decision_is_read_back_as_it_was_written() {
        assert_eq!(SummaryClaim::parse(&summary()).unwrap().ledger, Some(head()));
        assert_eq!(
            summary()["sluicegate_ledger"],
            json!({"origin": "ledger.example", "size": 7, "root": {"sha256": Digest::of(b"root").hex()}})
        );
        let claim = PromotionClaim::parse(&promotion(Some(Digest::of(b"decision")))).unwrap();
        assert_eq!((claim.ledger, claim.basis), (Some(head()), Basis::Decision(Digest::of(b"decision"))));
        assert_eq!((claim.destination, claim.image), (image().to_string(), image().digest));
        assert_eq!((claim.environment.as_str(), claim.timestamp), ("production", UnixTime::EPOCH));
        assert_eq!(PromotionClaim::parse(&promotion(None)).unwrap().basis, Basis::Ungated);
    }

    #[test]
    fn a_ledger_that_is_not_there_is_none_and_one_that_is_odd_is_refused() {
        let without = |mut predicate: Value| {
            predicate.as_object_mut().unwrap().remove("sluicegate_ledger").unwrap();
            predicate
        };
        assert_eq!(SummaryClaim::parse(&without(summary())).unwrap().ledger, None);
        assert_eq!(PromotionClaim::parse(&without(promotion(None))).unwrap().ledger, None);
        for (member, odd) in [
            ("size", json!(-1)),
            ("size", json!("7")),
            ("size", json!(null)),
            ("origin", json!(null)),
            ("root", json!("00")),
            ("root", json!({})),
            ("root", json!({"sha512": "00"})),
        ] {
            let with = |mut predicate: Value| {
                predicate["sluicegate_ledger"][member] = odd.clone();
                predicate
            };
            assert!(SummaryClaim::parse(&with(summary())).is_err(), "{member} {odd}");
            assert!(PromotionClaim::parse(&with(promotion(None))).is_err(), "{member} {odd}");
        }
    }

    #[test]
    fn a_promotion_without_a_basis_or_with_another_word_is_refused() {
        assert!(PromotionClaim::parse(&promotion(None)).is_ok());
        for odd in [json!(null), json!("gated"), json!("Ungated"), json!({}), json!({"sha256": "00"})] {
            let mut predicate = promotion(None);
            predicate["sluicegate_basis"] = odd.clone();
            assert!(PromotionClaim::parse(&predicate).is_err(), "{odd}");
        }
    }
}
