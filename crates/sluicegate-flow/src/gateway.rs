//! A gateway with everything it names, resolved: the judge of an environment as one value with one digest.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::json;
use sluicegate_attestation::{identifiers::LOCAL_BUILDER, predicate::PredicateType};
use sluicegate_pipeline::{
    gateway::{Environment, Gate, Gateway, Trivy, TrivyDatabase},
    trust::{GroupEntry, PersonEntry, SignerEntry, TrustFile},
    waivers,
    waivers::Accepted,
};
use sluicegate_policy::{
    exceptions::{Exceptions, Listed},
    judge::{AcceptedDatabase, AcceptedDatabases, Conditions},
    rego::{SourceFile, check_files},
};
use sluicegate_types::{Digest, EnvironmentName, NonEmpty, Repository, RepositoryPattern, UnixTime, utf8};
use sluicegate_verify::{Allowed, GroupRule, Person, Revocation, Role, SignerRule, Trust, TrustRoot, TrustRules};

use crate::{Error, assemble::json_bytes};

/// Reads the files that a gateway names. Implemented by whoever knows where the gateway came from.
pub trait GatewayFiles {
    /// The file's bytes; `path` is as the gateway file writes it.
    fn read(&self, path: &Path) -> Result<Vec<u8>, Error>;

    /// The Rego files of a policy folder (or the file itself), sorted by name, tests left out.
    fn policies(&self, path: &Path) -> Result<Vec<SourceFile>, Error>;
}

/// What a judge was made of, to be kept with its decisions.
pub trait JudgeRecord {
    /// The gateway file itself, and every file that was read so far by the path that was asked for.
    fn all_read(&self) -> (Vec<u8>, Vec<(PathBuf, Vec<u8>)>);
}

/// Whose earlier results count for runs under this gateway (trust model 9): a digest over who builds, under which name is decided, and who
/// is believed. What else the gateway says, such as a newer database, changes nothing about what a step left.
pub fn trust_domain(gateway: &Gateway, files: &dyn GatewayFiles) -> Result<Digest, Error> {
    let trust_file = text(files, &gateway.trust)?;
    let domain = json!({
        "version": 1,
        "builder": LOCAL_BUILDER,
        "verifierId": gateway.verifier_id,
        "trust": Digest::of(trust_file.as_bytes()),
        "keys": keys(gateway, &trust_file, files)?,
        "trustRoot": Digest::of(&files.read(&gateway.trust_root)?),
    });
    Ok(Digest::of(&json_bytes("the trust domain", &domain)?))
}

/// The judge of one environment.
pub struct Judge {
    /// The environment's name.
    pub name: EnvironmentName,
    /// The environment.
    pub environment: Environment,
    /// The digest of everything that a decision of this environment depends on.
    pub gateway: Digest,
    /// The name it signs with.
    pub verifier_id: String,
    /// What is asked; `None` only for `gate: none`.
    pub gate: Option<GateRules>,
}

impl Judge {
    /// The name under which it judges and signs: the environment's repository.
    pub fn repository(&self) -> Repository {
        Repository::of(&self.environment.repository, &self.name)
    }
}

/// What a gate asks.
#[derive(Clone)]
pub struct GateRules {
    /// What is demanded beside the rules.
    pub conditions: Conditions,
    /// Rego.
    pub policies: Vec<SourceFile>,
    /// Data.
    pub data: Vec<SourceFile>,
}

/// Which databases the gate believes.
fn databases(scanner: &Trivy) -> AcceptedDatabases {
    let accepted = |named: &TrivyDatabase| AcceptedDatabase { digest: named.digest, max_age: named.max_age };
    AcceptedDatabases {
        vulnerabilities: Some(accepted(&scanner.database)),
        java: scanner.java_database.as_ref().map(accepted),
    }
}

/// trust.yaml with its keys and the trusted root.
pub fn trust(gateway: &Gateway, files: &dyn GatewayFiles) -> Result<(Trust, BTreeMap<String, String>), Error> {
    let text = text(files, &gateway.trust)?;
    let file = TrustFile::parse(&gateway.trust.display().to_string(), &text)?;
    let fault = |reason: String| Error::Trust { file: gateway.trust.clone(), reason };
    let folder = gateway.trust.parent().unwrap_or(Path::new(""));
    let mut signers = Vec::new();
    for entry in file.signers {
        let path = folder.join(&entry.key);
        let key = public_key(&files.read(&path)?).map_err(|reason| Error::Trust { file: path, reason })?;
        signers.push(signer(entry, key).map_err(fault)?);
    }
    let rules = TrustRules {
        signers,
        groups: file.groups.into_iter().map(group).collect::<Result<_, _>>().map_err(fault)?,
        people: file.people.into_iter().map(person).collect(),
        untimed: file.untimed.into_iter().collect(),
        revoked: file.revoked.into_iter().map(|entry| Revocation { signer: entry.signer, before: entry.at }).collect(),
        gateways: file.gateways,
        authority_self: file.authority_self,
    };
    let root = TrustRoot::parse(&files.read(&gateway.trust_root)?)
        .map_err(|error| Error::Trust { file: gateway.trust_root.clone(), reason: error.to_string() })?;
    let trust = Trust::from_rules(rules, root).map_err(|error| fault(error.to_string()))?;
    Ok((trust, file.levels.into_iter().collect()))
}

/// Trust in one key, for steps only and as any builder (`--key`).
pub fn trust_in_key(pem: &[u8], trusted_root: &[u8]) -> Result<Trust, Error> {
    trust_in_keys(Some(pem), None, trusted_root)
}

/// Trust in the keys that somebody names instead of a trust file: `--key` for steps alone, of whatever builder, and
/// `--decision-key` for decisions alone, of whatever verifier and for whatever environment. At least one; never one for both.
///
/// Who names a key says nothing about who chose its judge: a decision of authority `self` counts for no trust made here.
pub fn trust_in_keys(steps: Option<&[u8]>, decisions: Option<&[u8]>, trusted_root: &[u8]) -> Result<Trust, Error> {
    let fault = |file: &str, reason: String| Error::Trust { file: file.into(), reason };
    let root = TrustRoot::parse(trusted_root).map_err(|error| fault("--trust-root", error.to_string()))?;
    let mut rules = Vec::new();
    for (flag, pem, role) in [("--key", steps, Role::Steps), ("--decision-key", decisions, Role::Decisions)] {
        let Some(pem) = pem else { continue };
        let public_key = public_key(pem).map_err(|reason| fault(flag, reason))?;
        rules.push(rule_of_flag(flag, public_key, role));
    }
    let untimed = root.origins().map(str::to_owned).collect();
    let flags = if steps.is_some() { "--key" } else { "--decision-key" };
    Trust::new(rules, untimed, Vec::new(), root).map_err(|error| fault(flags, error.to_string()))
}

/// What somebody who names a key believes of it: everything that its one role may say, about every repository.
fn rule_of_flag(flag: &str, public_key: Vec<u8>, role: Role) -> SignerRule {
    let decides = role == Role::Decisions;
    SignerRule {
        name: flag.to_owned(),
        public_key,
        roles: BTreeSet::from([role]),
        predicate_types: None,
        builder_ids: if decides { Allowed::nothing() } else { Allowed::Any },
        verifier_ids: if decides { Allowed::Any } else { Allowed::nothing() },
        environments: if decides { Allowed::Any } else { Allowed::nothing() },
        repositories: Some(vec![RepositoryPattern::Any]),
    }
}

/// Resolves the judge of `environment`: everything that a decision depends on goes into its `gateway` digest.
///
/// `at` is when it judges: what somebody accepts for longer than anybody may from then on is an error.
pub fn judge_of(
    gateway: &Gateway,
    environment: &EnvironmentName,
    files: &dyn GatewayFiles,
    at: UnixTime,
) -> Result<Judge, Error> {
    let found = gateway.environments.get(environment).ok_or_else(|| {
        let known: Vec<&str> = gateway.environments.keys().map(EnvironmentName::as_str).collect();
        Error::Usage(format!("the gateway has no environment {environment}; it has {}", known.join(", ")))
    })?;
    let (mut policies, mut data) = (Vec::new(), Vec::new());
    if let Some(gate) = &found.gate {
        for path in &gate.policies {
            policies.extend(files.policies(path)?);
        }
        for path in &gate.data {
            data.push(SourceFile { name: path.display().to_string(), text: text(files, path)? });
        }
    }
    check_files(&policies, &data)?;
    let digests = |files: &[SourceFile]| -> Vec<_> {
        files.iter().map(|file| json!({"name": file.name, "digest": Digest::of(file.text.as_bytes())})).collect()
    };
    let trust_file = text(files, &gateway.trust)?;
    let mut resolved = json!({
        "version": 1,
        "environment": environment,
        "repository": Repository::of(&found.repository, environment).as_str(),
        "tag": found.tag,
        "gate": found.gate.as_ref().map(|gate| json!({
            "name": gate.name, "require": gate.require, "validForSeconds": gate.valid_for.as_secs(),
        })),
        "policies": digests(&policies),
        "data": digests(&data),
        "trust": Digest::of(trust_file.as_bytes()),
        "keys": keys(gateway, &trust_file, files)?,
        "trustRoot": Digest::of(&files.read(&gateway.trust_root)?),
        "verifierId": gateway.verifier_id,
        "scanner": gateway.scanner.as_ref().map(|scanner| json!({
            "digests": scanner.digests, "database": scanner.database.digest,
            "maxAgeSeconds": scanner.database.max_age.as_secs(),
        })),
        "policyLimits": sluicegate_policy::rego::EvaluationLimits::default(),
    });
    // A gateway that names none is the same judge as before there was such a thing.
    if found.gate.as_ref().is_some_and(|gate| gate.strict_executables) {
        resolved["gate"]["executables"] = json!("strict");
    }
    if let Some(java) = gateway.scanner.as_ref().and_then(|scanner| scanner.java_database.as_ref()) {
        resolved["scanner"]["javaDatabase"] = json!({"digest": java.digest, "maxAgeSeconds": java.max_age.as_secs()});
    }
    if !gateway.private_destinations.is_empty() {
        let listed: Vec<String> = gateway.private_destinations.iter().map(ToString::to_string).collect();
        resolved["egress"] = json!({ "private": listed });
    }
    let people = TrustFile::parse(&gateway.trust.display().to_string(), &trust_file)?.people;
    waivers::check(&gateway.coverage, |exception| &exception.acceptance, &people, at)?;
    let mut waived = Vec::new();
    if let Some(path) = &gateway.waivers {
        let text = text(files, path)?;
        waived = waivers::parse(&path.display().to_string(), &text)?;
        waivers::check(&waived, |waiver| &waiver.acceptance, &people, at)?;
        resolved["waivers"] = json!(Digest::of(text.as_bytes()));
    }
    if !gateway.coverage.is_empty() {
        resolved["coverage"] = gateway
            .coverage
            .iter()
            .map(|Accepted { what, .. }| {
                json!({
                    "digest": what.digest, "gap": what.gap, "acceptance": what.acceptance,
                })
            })
            .collect();
    }
    let digest = Digest::of(&json_bytes("the gateway", &resolved)?);
    let gate = found.gate.as_ref().map(|gate| -> Result<_, Error> {
        Ok(GateRules {
            conditions: Conditions {
                require: required(gate)?,
                strict_executables: gate.strict_executables,
                databases: gateway.scanner.as_ref().map(databases).unwrap_or_default(),
                valid_for: gate.valid_for,
                gateway: digest,
                exceptions: Exceptions {
                    waivers: waived.into_iter().map(listed).collect(),
                    coverage: gateway.coverage.iter().cloned().map(listed).collect(),
                },
            },
            policies,
            data,
        })
    });
    Ok(Judge {
        name: environment.clone(),
        environment: found.clone(),
        gateway: digest,
        verifier_id: gateway.verifier_id.clone(),
        gate: gate.transpose()?,
    })
}

fn listed<T>(Accepted { what, spot }: Accepted<T>) -> Listed<T> {
    Listed { what, place: spot.file_and_line() }
}

fn required(gate: &Gate) -> Result<NonEmpty<PredicateType>, Error> {
    let kinds = gate.require.iter().map(|kind| {
        PredicateType::from_short(kind).ok_or_else(|| Error::Usage(format!("no kind of evidence is called {kind}")))
    });
    NonEmpty::try_from(kinds.collect::<Result<Vec<_>, _>>()?).map_err(|error| Error::Usage(format!("require: {error}")))
}

/// The digest of every key that trust.yaml names.
fn keys(gateway: &Gateway, trust_file: &str, files: &dyn GatewayFiles) -> Result<BTreeMap<String, Digest>, Error> {
    let folder = gateway.trust.parent().unwrap_or(Path::new(""));
    let mut keys = BTreeMap::new();
    for entry in TrustFile::parse(&gateway.trust.display().to_string(), trust_file)?.signers {
        keys.insert(entry.name, Digest::of(&files.read(&folder.join(&entry.key))?));
    }
    Ok(keys)
}

fn text(files: &dyn GatewayFiles, path: &Path) -> Result<String, Error> {
    utf8(files.read(path)?).map_err(|error| Error::Trust { file: path.to_owned(), reason: error.to_string() })
}

fn signer(entry: SignerEntry, public_key: Vec<u8>) -> Result<SignerRule, String> {
    Ok(SignerRule {
        roles: roles(&entry.name, &entry.roles)?,
        predicate_types: predicate_types(&entry.name, entry.predicate_types)?,
        name: entry.name,
        public_key,
        builder_ids: entry.builder_ids.into_iter().collect(),
        verifier_ids: entry.verifier_ids.into_iter().collect(),
        environments: entry.environments.into_iter().collect(),
        repositories: entry.repositories,
    })
}

fn group(entry: GroupEntry) -> Result<GroupRule, String> {
    Ok(GroupRule {
        roles: roles(&entry.name, &entry.roles)?,
        predicate_types: predicate_types(&entry.name, entry.predicate_types)?,
        name: entry.name,
        threshold: entry.threshold,
        of: entry.of.into_iter().collect(),
        repositories: entry.repositories,
    })
}

fn person(entry: PersonEntry) -> Person {
    Person {
        name: entry.name,
        emails: entry.emails.into_iter().collect(),
        signers: entry.signers.into_iter().collect(),
    }
}

fn roles(signer: &str, names: &[String]) -> Result<BTreeSet<Role>, String> {
    let role = |name: &String| Role::from_name(name).ok_or_else(|| format!("signers.{signer}.roles: no {name:?}"));
    names.iter().map(role).collect()
}

fn predicate_types(signer: &str, names: Option<Vec<String>>) -> Result<Option<BTreeSet<PredicateType>>, String> {
    let kind = |name: &String| {
        PredicateType::from_name(name).ok_or_else(|| {
            format!("signers.{signer}.predicate_types: no type is called {name:?}; write a short name or a whole URI")
        })
    };
    names.map(|names| names.iter().map(kind).collect()).transpose()
}

/// Bytes of a P-256 SubjectPublicKeyInfo.
const P256_SPKI: usize = 91;

/// The DER of a `PUBLIC KEY` PEM; only P-256.
fn public_key(pem: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "a P-256 public key in PEM is needed (-----BEGIN PUBLIC KEY-----)".to_owned();
    let text = std::str::from_utf8(pem).map_err(|_| wrong())?;
    let body = text
        .trim()
        .strip_prefix("-----BEGIN PUBLIC KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
        .ok_or_else(wrong)?;
    let der = BASE64.decode(body.split_whitespace().collect::<String>()).map_err(|_| wrong())?;
    let prefix = [0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    if der.len() == P256_SPKI && der.starts_with(&prefix) {
        Ok(der)
    } else {
        Err("not a P-256 key: other kinds are not in this version".to_owned())
    }
}
