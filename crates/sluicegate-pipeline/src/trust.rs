//! `trust.yaml`, version 1: who may say what.

use std::path::PathBuf;

use serde::{Deserialize, de::IgnoredAny};
use sluicegate_types::{EnvironmentName, UnixTime};

use crate::{
    Error, In,
    yaml::{self, Given, Ordered},
};

/// A trust file. Key files are as written: relative to the file's folder.
#[derive(Clone, Debug)]
pub struct TrustFile {
    /// Signers in the order of the file.
    pub signers: Vec<SignerEntry>,
    /// Signers that are not believed any more.
    pub revoked: Vec<RevokedEntry>,
    /// Logs whose entries count although they carry no time.
    pub untimed: Vec<String>,
    /// The SLSA level that a signer's builds have earned.
    pub levels: Vec<(String, String)>,
}

/// One signer.
#[derive(Clone, Debug)]
pub struct SignerEntry {
    /// Its name.
    pub name: String,
    /// Its public key file (PEM).
    pub key: PathBuf,
    /// `steps`, `decisions`, `records`, `manual`; at least one.
    pub roles: Vec<String>,
    /// Short names of predicate types; `None`: the roles' own.
    pub predicate_types: Option<Vec<String>>,
    /// Builders it may claim.
    pub builder_ids: Vec<String>,
    /// Verifiers it may claim.
    pub verifier_ids: Vec<String>,
    /// Environments it decides for.
    pub environments: Vec<EnvironmentName>,
}

/// One revocation.
#[derive(Clone, Debug)]
pub struct RevokedEntry {
    /// The signer.
    pub signer: String,
    /// Log origin and tree size up to which its entries still count.
    pub at: Option<(String, u64)>,
}

const EARNED_LEVELS: [&str; 2] = ["SLSA_BUILD_LEVEL_0", "SLSA_BUILD_LEVEL_1"];
const ROLES: [&str; 4] = ["steps", "decisions", "records", "manual"];

impl TrustFile {
    /// Reads a trust file; `file` is how errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let wire: WireTrust = yaml::read(file, text)?;
        let at = In(file);
        at.version(wire.version)?;
        if wire.people.is_some_and(|people| !people.0.is_empty()) {
            return Err(at.later("people"));
        }
        if wire.gateways.is_some_and(|list| !list.is_empty()) {
            return Err(at.later("gateways"));
        }
        if wire.authority_self {
            return Err(at.later_but("authority_self: true", "write false"));
        }
        let formats = &wire.formats;
        for (what, as_built) in [
            ("bundles", formats.bundles == ["v0.3"]),
            ("statements", formats.statements == ["v1"]),
            ("legacy_tags", !formats.legacy_tags),
            ("promise_only", !formats.promise_only),
            ("unlogged", !formats.unlogged),
        ] {
            if !as_built {
                return Err(at.later_but(
                    format!("formats.{what}"),
                    "write bundles: [v0.3], statements: [v1] and false for the others",
                ));
            }
        }
        let mut signers = Vec::new();
        for (name, signer) in wire.signers.0 {
            signers.push(signer_of(&at, name, signer)?);
        }
        let mut revoked = Vec::new();
        for entry in wire.revoked {
            // A date says nothing about entries that carry no time, and key-signed ones never do: all of them are refused then.
            if let Some(date) = &entry.from {
                let parsed: Result<UnixTime, _> = date.parse();
                parsed.map_err(|error| at.meaning(format!("revoked: {}: from", entry.signer), error))?;
            }
            if entry.from.is_some() && entry.at.is_some() {
                return Err(at.meaning(format!("revoked: {}", entry.signer), "either at or from"));
            }
            revoked.push(RevokedEntry { signer: entry.signer, at: entry.at.map(|at| (at.log, at.size)) });
        }
        for (signer, level) in &wire.levels.0 {
            let place = format!("levels.{signer}");
            if !signers.iter().any(|known: &SignerEntry| known.name == *signer) {
                return Err(at.meaning(place, "no signer of this file is called so"));
            }
            // With a key on the machine that builds, step and builder share a machine and a person (trust model 18).
            if !EARNED_LEVELS.contains(&level.as_str()) {
                return Err(at.meaning(
                    place,
                    format!("{level:?}: a local key earns {} and no more", EARNED_LEVELS.join(" or ")),
                ));
            }
        }
        Ok(Self { signers, revoked, untimed: wire.formats.untimed, levels: wire.levels.0 })
    }
}

fn signer_of(at: &In<'_>, name: String, wire: WireSigner) -> Result<SignerEntry, Error> {
    let place = format!("signers.{name}");
    at.absent(&place, "identity", wire.identity)?;
    at.absent(&place, "threshold", wire.threshold)?;
    at.absent(&place, "of", wire.of)?;
    if wire.repositories.as_ref().is_some_and(|list| list != &["*"]) {
        return Err(at.later_but(format!("{place}.repositories"), "write [\"*\"]"));
    }
    let key = wire.key.ok_or_else(|| at.meaning(&place, "a key is needed: the file of a public key"))?;
    if wire.roles.is_empty() {
        return Err(at.meaning(&place, "a signer without a role can say nothing"));
    }
    for role in &wire.roles {
        match role.as_str() {
            "logs" | "time" => {
                return Err(at.later_but(format!("{place}.roles: {role}"), "logs are trusted by the trusted root"));
            }
            role if !ROLES.contains(&role) => {
                return Err(at.meaning(
                    format!("{place}.roles"),
                    format!("{role:?} is no role; roles are {}", ROLES.join(", ")),
                ));
            }
            _ => {}
        }
    }
    let decides = wire.roles.iter().any(|role| role == "decisions");
    if decides && wire.roles.len() > 1 {
        return Err(at.meaning(
            format!("{place}.roles"),
            "a key that decides signs nothing else: cosign takes anything it signed for a signature",
        ));
    }
    if decides && wire.environments.is_empty() {
        return Err(at.meaning(&place, "environments: a signer that decides names those it decides for"));
    }
    if wire.repositories.is_none() && wire.roles.iter().any(|role| role == "steps") {
        return Err(
            at.meaning(&place, "no repositories: a list that is left out allows nothing; write repositories: [\"*\"]")
        );
    }
    Ok(SignerEntry {
        name,
        key: key.into(),
        roles: wire.roles,
        predicate_types: wire.predicate_types,
        builder_ids: wire.builder_ids,
        verifier_ids: wire.verifier_ids,
        environments: wire.environments,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTrust {
    version: u32,
    signers: Ordered<WireSigner>,
    #[serde(default)]
    revoked: Vec<WireRevoked>,
    people: Option<Ordered<IgnoredAny>>,
    formats: WireFormats,
    gateways: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    levels: Ordered<String>,
    #[serde(default)]
    authority_self: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSigner {
    key: Option<String>,
    #[serde(default)]
    identity: Given,
    #[serde(default)]
    threshold: Given,
    #[serde(default)]
    of: Given,
    #[serde(default)]
    roles: Vec<String>,
    predicate_types: Option<Vec<String>>,
    #[serde(default)]
    builder_ids: Vec<String>,
    #[serde(default)]
    verifier_ids: Vec<String>,
    #[serde(default)]
    environments: Vec<EnvironmentName>,
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRevoked {
    signer: String,
    at: Option<WireRevokedAt>,
    from: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRevokedAt {
    log: String,
    size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFormats {
    bundles: Vec<String>,
    statements: Vec<String>,
    #[serde(default)]
    legacy_tags: bool,
    #[serde(default)]
    promise_only: bool,
    #[serde(default)]
    unlogged: bool,
    #[serde(default)]
    untimed: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version: 1
signers:
  builder: { key: builder.pub, roles: [steps], builder_ids: ["https://sluicegate.dev/builder/local@v1"], repositories: ["*"] }
  production: { key: production.pub, roles: [decisions], environments: [production], verifier_ids: ["https://gate.example"] }
revoked: [{ signer: builder, at: { log: log.example, size: 4711 } }]
formats: { bundles: [v0.3], statements: [v1], legacy_tags: false, promise_only: false, unlogged: false, untimed: [log.example] }
levels: { builder: SLSA_BUILD_LEVEL_1 }
authority_self: false
"#;

    #[test]
    fn what_is_not_built_yet_or_contradicts_is_refused() {
        assert_eq!(TrustFile::parse("t.yaml", GOOD).unwrap().signers.len(), 2);
        for (from, to, says) in [
            ("key: builder.pub", "identity: { issuer: x }", "not in this version"),
            ("roles: [steps]", "roles: []", "without a role"),
            ("roles: [steps]", "roles: [boss]", "no role"),
            ("roles: [decisions]", "roles: [decisions, steps]", "signs nothing else"),
            ("environments: [production], ", "", "names those it decides for"),
            ("repositories: [\"*\"]", "repositories: [\"a\"]", "not in this version"),
            ("unlogged: false", "unlogged: true", "not in this version"),
            ("authority_self: false", "authority_self: true", "not in this version"),
            ("authority_self: false", "people: { alice: {} }", "not in this version"),
            (", repositories: [\"*\"]", "", "left out allows nothing"),
            ("SLSA_BUILD_LEVEL_1", "SLSA_BUILD_LEVEL_3", "and no more"),
            ("levels: { builder:", "levels: { stranger:", "no signer of this file"),
            ("at: { log: log.example, size: 4711 }", "from: whenever", "not a time"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = TrustFile::parse("t.yaml", &GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(says), "{to}: {error}");
        }
    }
}
