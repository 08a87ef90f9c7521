//! `gateway.yaml`, version 1: environments, gates and who judges. It belongs to whoever answers for production, not to the
//! pipeline (trust model 7).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;
use sluicegate_types::{
    CoverageException, Destination, Digest, EnvironmentName, ImageRef, LogUrl, LogUrlError, NonEmpty, Place,
    RegistryRepository, TagName,
};

use crate::{
    Error, In,
    shared_store::{SharedStore, WireCache, shared_store},
    units, waivers,
    waivers::{Accepted, WireCoverage},
    yaml::{self, Given, Longer, Ordered, TextOr},
};

/// A gateway file. Paths are as written: relative to the file's folder.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Places an artifact may be promoted to.
    pub environments: BTreeMap<EnvironmentName, Environment>,
    /// trust.yaml.
    pub trust: PathBuf,
    /// trusted_root.json.
    pub trust_root: PathBuf,
    /// Which key signs what.
    pub signing: Signing,
    /// `verifier.id` of its verification summaries.
    pub verifier_id: String,
    /// How images are scanned; without it nothing can be gated that requires `vulns`.
    pub scanner: Option<Trivy>,
    /// waivers.yaml, if there is one.
    pub waivers: Option<PathBuf>,
    /// Gaps of scans that are accepted.
    pub coverage: Vec<Accepted<CoverageException>>,
    /// Where attestations of registries' images are, if not in the image's own repository.
    pub evidence: Option<RegistryRepository>,
    /// Where statements are logged.
    pub log: LogPlace,
    /// Servers in inner networks (loopback, link-local, private, where clouds hand out credentials) that steps may reach if their
    /// pipeline lists them.
    pub private_destinations: BTreeSet<Destination>,
    /// A store that machines share.
    pub shared: Option<SharedStore>,
}

/// Where statements are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// The home's own log.
    Embedded,
    /// A log elsewhere, in the API of Rekor v2.
    Remote {
        /// Where entries are sent.
        url: LogUrl,
        /// Where checkpoint and tiles are read, if another server has them.
        read: Option<LogUrl>,
    },
}

/// An environment and its gate, resolved.
#[derive(Clone, Debug)]
pub struct Environment {
    /// An OCI layout folder, or a repository of a registry.
    pub repository: Place,
    /// The tag that moves.
    pub tag: TagName,
    /// The gate; `None` only where the file says `gate: none`, and then every record says so.
    pub gate: Option<Gate>,
}

/// A named set of policies with what they need.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// Folders with Rego, or files.
    pub policies: Vec<PathBuf>,
    /// Data files.
    pub data: Vec<PathBuf>,
    /// Kinds of evidence that must be there, by short name (`provenance`, `sbom`, `vulns`, `test-result`); rules may only add.
    pub require: NonEmpty<String>,
    /// Whether each executable of the base has to be in a package.
    pub strict_executables: bool,
    /// How long a decision is worth something.
    pub valid_for: Duration,
}

/// Names of keys in the home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    /// Signs what steps did.
    pub steps: String,
    /// Signs denials and the gate's scans.
    pub records: String,
    /// Signs what was allowed, one key for each environment.
    pub decisions: BTreeMap<EnvironmentName, String>,
    /// Signs what somebody says by hand.
    pub manual: Option<String>,
}

/// The scanner and its database, both by digest.
#[derive(Clone, Debug)]
pub struct Trivy {
    /// Executables that are allowed.
    pub digests: NonEmpty<Digest>,
    /// Its database of vulnerabilities: `trivy.db` and `metadata.json`.
    pub database: TrivyDatabase,
    /// Its database of Java archives: `trivy-java.db` and `metadata.json`.
    pub java_database: Option<TrivyDatabase>,
}

/// A database of Trivy.
#[derive(Clone, Debug)]
pub struct TrivyDatabase {
    /// Where it is.
    pub from: DatabaseFrom,
    /// Over both files, as `sha256sum metadata.json FILE | sha256sum` prints it.
    pub digest: Digest,
    /// How old it may be when it is asked.
    pub max_age: Duration,
}

/// Where the scanner's database comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseFrom {
    /// A folder with both files.
    Folder(PathBuf),
    /// An artifact in the form of Trivy's own, in a layout or by its digest in a registry.
    Artifact(ImageRef),
}

impl fmt::Display for DatabaseFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Artifact(artifact) => artifact.fmt(f),
        }
    }
}

/// What a gate requires if it does not say (trust model 2), and all that it can require.
const KNOWN_KINDS: [&str; 4] = ["provenance", "sbom", "vulns", "test-result"];

/// How an environment says that nothing is asked before an image goes there.
const NO_GATE: &str = "none";

impl Gateway {
    /// Reads a gateway file; `file` is how errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let wire: WireGateway = yaml::read(file, text)?;
        let at = In { file, text };
        at.version(wire.version)?;
        at.absent("", "limits", wire.limits)?;
        let log = log_of(&at, wire.log)?;
        let evidence = match wire.evidence.as_deref() {
            None | Some("same") => None,
            Some(text) => {
                let wrong = |e| at.meaning("evidence", format!("{e}; write same or a repository of a registry"));
                Some(text.parse::<RegistryRepository>().map_err(wrong)?)
            }
        };
        if wire.verifier_id.is_empty() || wire.verifier_id.len() > 512 {
            return Err(at.meaning("verifier_id", "a URI that names this gate is needed, at most 512 bytes"));
        }
        let signing = signing(&at, wire.signing)?;
        let mut gates = BTreeMap::new();
        for (name, gate) in wire.gates.0 {
            gates.insert(name.clone(), gate_of(&at, &name, gate)?);
        }
        let mut environments = BTreeMap::new();
        for (name, environment) in wire.environments.0 {
            let (name, environment) = environment_of(&at, &name, environment, &gates)?;
            match (&environment.gate, signing.decisions.contains_key(&name)) {
                (Some(_), false) => {
                    return Err(at.meaning("signing.decisions", format!("no key for the environment {name}")));
                }
                (None, true) => {
                    return Err(at.meaning(
                        format!("signing.decisions.{name}"),
                        "gate: none decides nothing, so there is nothing to sign; take the key away or name a gate",
                    ));
                }
                _ => {}
            }
            if environments.values().any(|other: &Environment| other.repository == environment.repository) {
                return Err(
                    at.meaning(format!("environments.{name}.repository"), "another environment has the same place")
                );
            }
            environments.insert(name, environment);
        }
        if environments.is_empty() {
            return Err(at.meaning("environments", "at least one is needed"));
        }
        if let Some(name) = signing.decisions.keys().find(|name| !environments.contains_key(*name)) {
            let known = environments.keys().map(EnvironmentName::as_str);
            return Err(at.unknown(format!("signing.decisions.{name}"), "environment", name.as_str(), known));
        }
        Ok(Self {
            environments,
            trust: wire.trust.into(),
            trust_root: wire.trust_root.into(),
            signing,
            verifier_id: wire.verifier_id,
            waivers: wire.waivers.map(PathBuf::from),
            coverage: waivers::coverage(&at, wire.coverage.unwrap_or_default())?,
            scanner: wire.scanner.map(|scanner| trivy(&at, scanner)).transpose()?,
            evidence,
            log,
            private_destinations: private_destinations(&at, wire.egress)?,
            shared: wire.cache.map(|cache| shared_store(&at, cache)).transpose()?,
        })
    }
}

fn private_destinations(at: &In<'_>, wire: Option<WireEgress>) -> Result<BTreeSet<Destination>, Error> {
    let place = "egress.private";
    let mut destinations = BTreeSet::new();
    for text in wire.and_then(|egress| egress.private).unwrap_or_default() {
        let destination: Destination = text.parse().map_err(|e: String| at.meaning(place, e))?;
        if !destinations.insert(destination) {
            return Err(at.meaning(place, format!("{text} is listed twice")));
        }
    }
    Ok(destinations)
}

fn log_of(at: &In<'_>, wire: TextOr<WireRemote>) -> Result<LogPlace, Error> {
    let url =
        |place: &str, text: &str| text.parse().map_err(|e: LogUrlError| at.meaning(place, format!("{text:?}: {e}")));
    match wire {
        TextOr::Text(word) if word == "embedded" => Ok(LogPlace::Embedded),
        TextOr::Text(word) => {
            Err(at.meaning("log", format!("{word:?} is unknown; write embedded or {{ rekor: URL }}")))
        }
        TextOr::More(WireRemote { rekor, read }) => Ok(LogPlace::Remote {
            url: url("log.rekor", &rekor)?,
            read: read.map(|read| url("log.read", &read)).transpose()?,
        }),
    }
}

fn environment_of(
    at: &In<'_>,
    name: &str,
    wire: WireEnvironment,
    gates: &BTreeMap<String, Gate>,
) -> Result<(EnvironmentName, Environment), Error> {
    let place = format!("environments.{name}");
    at.absent(&place, "after", wire.after)?;
    at.absent(&place, "approvals", wire.approvals)?;
    let gate = match wire.gate.as_str() {
        NO_GATE => None,
        name => {
            let found = gates
                .get(name)
                .ok_or_else(|| at.unknown(format!("{place}.gate"), "gate", name, gates.keys().map(String::as_str)))?;
            Some(found.clone())
        }
    };
    let repository = wire.repository.parse().map_err(|e| at.meaning(format!("{place}.repository"), e))?;
    Ok((
        name.parse().map_err(|e| at.name(&place, e))?,
        Environment { repository, tag: wire.tag.parse().map_err(|e| at.meaning(format!("{place}.tag"), e))?, gate },
    ))
}

fn gate_of(at: &In<'_>, name: &str, wire: WireGate) -> Result<Gate, Error> {
    let place = format!("gates.{name}");
    if name == NO_GATE {
        return Err(at.meaning(place, "this name says that there is no gate; choose another one"));
    }
    if wire.policies.is_empty() {
        return Err(at.meaning(format!("{place}.policies"), "a gate without policies can't allow anything"));
    }
    let strict_executables = match wire.executables.as_deref() {
        None | Some("report") => false,
        Some("strict") => true,
        Some(other) => {
            let reason = format!("{other:?} is unknown; write report or strict");
            return Err(at.meaning(format!("{place}.executables"), reason));
        }
    };
    let require = wire.require.unwrap_or_else(|| KNOWN_KINDS.map(str::to_owned).to_vec());
    for (nth, kind) in require.iter().enumerate() {
        let place = format!("{place}.require[{nth}]");
        if !KNOWN_KINDS.contains(&kind.as_str()) {
            let known = format!("this version knows {}", KNOWN_KINDS.join(", "));
            // A predicate type's whole name may be right; a word that is none of these is a slip.
            return Err(if kind.contains(':') {
                at.later_value(place, kind, &known)
            } else {
                at.meaning(place, format!("{kind:?} is unknown; {known}"))
            });
        }
    }
    if !require.iter().any(|kind| kind == "provenance") {
        return Err(at.meaning(format!("{place}.require"), "provenance is always required: it names everything else"));
    }
    Ok(Gate {
        strict_executables,
        name: name.to_owned(),
        policies: wire.policies.into_iter().map(PathBuf::from).collect(),
        data: wire.data.into_iter().map(PathBuf::from).collect(),
        require: require.try_into().map_err(|e| at.meaning(format!("{place}.require"), e))?,
        valid_for: match wire.valid_for {
            Some(text) => units::duration(&text).map_err(|e| at.meaning(format!("{place}.valid_for"), e))?,
            None => Duration::from_secs(30 * 86_400),
        },
    })
}

fn signing(at: &In<'_>, wire: WireSigning) -> Result<Signing, Error> {
    let key = |place: &str, text: &str| match text.strip_prefix("key:") {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(at.later_value(place, text, "write key:NAME, a key of the home")),
    };
    let mut decisions = BTreeMap::new();
    for (environment, text) in wire.decisions.0 {
        let place = format!("signing.decisions.{environment}");
        decisions.insert(environment.parse().map_err(|e| at.meaning(&place, e))?, key(&place, &text)?);
    }
    let signing = Signing {
        steps: key("signing.steps", &wire.steps)?,
        records: key("signing.records", &wire.records)?,
        decisions,
        manual: wire.manual.map(|text| key("signing.manual", &text)).transpose()?,
    };
    // cosign takes any bundle of a key for that key's signature, so a key that signs two kinds of thing proves neither.
    let mut names: Vec<&String> =
        signing.decisions.values().chain([&signing.steps, &signing.records]).chain(&signing.manual).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(at.meaning(
            "signing",
            format!("the key {} has two roles: every role and environment needs one of its own", twice[0]),
        ));
    }
    Ok(signing)
}

fn trivy(at: &In<'_>, wire: WireScanner) -> Result<Trivy, Error> {
    let wire = wire.trivy;
    Ok(Trivy {
        digests: wire.digests.try_into().map_err(|e| at.meaning("scanner.trivy.digests", e))?,
        database: database(at, "db", wire.db)?,
        java_database: wire.java_db.map(|java| database(at, "java_db", java)).transpose()?,
    })
}

fn database(at: &In<'_>, name: &str, wire: WireDatabase) -> Result<TrivyDatabase, Error> {
    let place = |key: &str| format!("scanner.trivy.{name}.{key}");
    at.absent(&format!("scanner.trivy.{name}"), "signer", wire.signer)?;
    // A folder's name may look like a registry's, so that an artifact of a registry is one only by its digest.
    let from = if wire.from.starts_with("oci:") || wire.from.contains('@') {
        let artifact = wire.from.parse().map_err(|e| at.meaning(place("from"), e))?;
        DatabaseFrom::Artifact(artifact)
    } else {
        DatabaseFrom::Folder(wire.from.into())
    };
    let max_age = units::duration(&wire.max_age).map_err(|e| at.meaning(place("max_age"), e))?;
    Ok(TrivyDatabase { from, digest: wire.digest, max_age })
}

/// The gateway file: places that images are promoted to, what is asked before, and who judges. Relative paths are relative to the file.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(title = "gateway.yaml, version 1"))]
#[serde(deny_unknown_fields)]
pub(crate) struct WireGateway {
    /// The version of this format.
    #[cfg_attr(test, schemars(extend("const" = 1)))]
    version: u32,
    /// Places that an image may be promoted to, by name.
    environments: Ordered<WireEnvironment>,
    /// Sets of policies with what they need, by name; none is no name.
    gates: Ordered<WireGate>,
    /// trust.yaml: who may sign what.
    trust: String,
    /// Which key of the home signs what; every role and environment has one of its own.
    signing: WireSigning,
    /// verifier.id of the verification summaries: a URI that names this gate.
    verifier_id: String,
    /// trusted_root.json.
    trust_root: String,
    /// waivers.yaml: denials that somebody accepts for a while.
    #[serde(default, deserialize_with = "yaml::given")]
    waivers: Option<String>,
    /// Gaps of scans that somebody accepts for a while.
    #[serde(default, deserialize_with = "yaml::given")]
    coverage: Option<Vec<WireCoverage>>,
    /// embedded: the log of the home; or a log elsewhere.
    log: TextOr<WireRemote>,
    /// How images are scanned; without it nothing is decided that requires vulns.
    #[serde(default, deserialize_with = "yaml::given")]
    scanner: Option<WireScanner>,
    /// same (if left out), or HOST/REPOSITORY: where attestations of images of registries are.
    #[serde(default, deserialize_with = "yaml::given")]
    evidence: Option<String>,
    /// What steps may reach beside the public internet.
    #[serde(default, deserialize_with = "yaml::given")]
    egress: Option<WireEgress>,
    /// A store that machines share.
    #[serde(default, deserialize_with = "yaml::given")]
    cache: Option<WireCache>,
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    limits: Given,
}

/// Inner servers.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireEgress {
    /// HOST:PORT that steps may reach although they lead to loopback, link-local, private or metadata addresses, where the pipeline
    /// file lists them too.
    #[serde(default, deserialize_with = "yaml::given")]
    private: Option<Vec<String>>,
}

/// A log elsewhere, in the API of Rekor v2.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireRemote {
    /// Where entries are sent: https://, or http:// on this machine.
    rekor: String,
    /// Where checkpoint and tiles are read, if another server has them.
    #[serde(default, deserialize_with = "yaml::given")]
    read: Option<String>,
}

impl Longer for WireRemote {
    const EXPECTED: &'static str = "embedded, or { rekor: URL }";
}

/// A place that images are promoted to.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireEnvironment {
    /// oci:DIR or HOST/REPOSITORY, which no other environment has.
    repository: String,
    /// The tag that moves.
    tag: String,
    /// A gate, or none.
    gate: String,
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    after: Given,
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    approvals: Given,
}

/// A set of policies with what they need.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireGate {
    /// report, as if left out: executables of the base that are in no package are facts; strict: each is a gap of the scan.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("enum" = ["report", "strict"])))]
    executables: Option<String>,
    /// Folders with Rego, or files.
    #[cfg_attr(test, schemars(extend("minItems" = 1)))]
    policies: Vec<String>,
    /// Data files.
    #[serde(default)]
    data: Vec<String>,
    /// Kinds of evidence that must be there: provenance (always), sbom, vulns, test-result; all four if left out.
    #[serde(default, deserialize_with = "yaml::given")]
    #[cfg_attr(test, schemars(extend("items" = {"enum": ["provenance", "sbom", "vulns", "test-result"]})))]
    require: Option<Vec<String>>,
    /// How long a decision is worth something, such as 24h; 30d if left out.
    #[serde(default, deserialize_with = "yaml::given")]
    #[cfg_attr(test, schemars(extend("pattern" = "^[0-9]+[smhd]$")))]
    valid_for: Option<String>,
}

/// Names of keys of the home, key:NAME each.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireSigning {
    /// Signs what steps did.
    #[cfg_attr(test, schemars(extend("pattern" = "^key:.")))]
    steps: String,
    /// Signs denials and the gate's scans.
    #[cfg_attr(test, schemars(extend("pattern" = "^key:.")))]
    records: String,
    /// Signs what was allowed: a key for each environment that has a gate.
    #[cfg_attr(test, schemars(extend("additionalProperties" = {"type": "string", "pattern": "^key:."})))]
    decisions: Ordered<String>,
    /// Signs what somebody says by hand.
    #[serde(default, deserialize_with = "yaml::given")]
    #[cfg_attr(test, schemars(extend("pattern" = "^key:.")))]
    manual: Option<String>,
}

/// The scanner.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireScanner {
    /// Trivy.
    trivy: WireTrivy,
}

/// Trivy and its database, both by digest.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireTrivy {
    /// Executables that are allowed, sha256:HEX each.
    #[cfg_attr(test, schemars(with = "Vec<String>", extend("minItems" = 1)))]
    digests: Vec<Digest>,
    /// The database of vulnerabilities.
    db: WireDatabase,
    /// The database of Java archives: without one an image that has such archives is undecided.
    #[serde(default)]
    java_db: Option<WireDatabase>,
}

/// A scanner's database.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireDatabase {
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    signer: Given,
    /// A folder, `oci:DIR[@DIGEST]` or HOST/REPOSITORY@DIGEST.
    from: String,
    /// Over both files, as sha256sum metadata.json trivy.db | sha256sum prints it; of java_db, trivy-java.db is the second.
    #[cfg_attr(test, schemars(with = "String", extend("pattern" = "^sha256:[0-9a-f]{64}$")))]
    digest: Digest,
    /// How old it may be when it is asked, such as 24h.
    #[cfg_attr(test, schemars(extend("pattern" = "^[0-9]+[smhd]$")))]
    max_age: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_store::SharedPlace;

    const GOOD: &str = r#"
version: 1
environments:
  production: { repository: oci:env/production, tag: current, gate: release }
gates:
  release: { policies: [policies], data: [policies/data.yaml], require: [provenance, sbom, vulns], valid_for: 30d }
trust: trust/trust.yaml
signing: { steps: key:builder, records: key:recorder, decisions: { production: key:production } }
verifier_id: https://gate.example
trust_root: trust/trusted_root.json
log: embedded
scanner:
  trivy:
    digests: [sha256:1111111111111111111111111111111111111111111111111111111111111111]
    db: { from: db, digest: sha256:1111111111111111111111111111111111111111111111111111111111111111, max_age: 24h }
"#;

    fn error(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from:?}");
        Gateway::parse("g.yaml", &GOOD.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_gateway_is_read() {
        let gateway = Gateway::parse("g.yaml", GOOD).unwrap();
        let production = &gateway.environments[&"production".parse().unwrap()];
        assert_eq!(production.gate.as_ref().unwrap().require.as_slice().len(), 3);
    }

    #[test]
    fn all_four_kinds_are_required_where_nothing_is_said() {
        let gateway = Gateway::parse("g.yaml", &GOOD.replace("require: [provenance, sbom, vulns], ", "")).unwrap();
        let gate = gateway.environments[&"production".parse().unwrap()].gate.clone().unwrap();
        assert_eq!(gate.require.as_slice(), ["provenance", "sbom", "vulns", "test-result"]);
    }

    #[test]
    fn no_gate_is_said_in_these_words_and_needs_no_key() {
        let staging = "environments:\n  staging: { repository: oci:env/staging, tag: current, gate: none }\n";
        let text = GOOD.replace("environments:\n", staging);
        let gateway = Gateway::parse("g.yaml", &text).unwrap();
        assert!(gateway.environments[&"staging".parse().unwrap()].gate.is_none());
        let with_key = text.replace("decisions: { production", "decisions: { staging: key:staging, production");
        let error = Gateway::parse("g.yaml", &with_key).unwrap_err().to_string();
        assert!(error.contains("nothing to sign"), "{error}");
    }

    #[test]
    fn tm06_a_key_for_what_is_said_by_hand_is_optional_and_one_of_its_own() {
        assert_eq!(Gateway::parse("g.yaml", GOOD).unwrap().signing.manual, None);
        let with = GOOD.replacen("key:recorder,", "key:recorder, manual: key:person,", 1);
        assert_eq!(Gateway::parse("g.yaml", &with).unwrap().signing.manual.as_deref(), Some("person"));
    }

    #[test]
    fn a_log_elsewhere_is_named_by_its_url() {
        let log = |text: &str| Gateway::parse("g.yaml", &GOOD.replace("log: embedded", text)).unwrap().log;
        assert_eq!(log("log: embedded"), LogPlace::Embedded);
        let url = |text: &str| text.parse::<LogUrl>().unwrap();
        let (here, there) = (url("http://127.0.0.1:3003"), url("https://tiles.example/log"));
        let remote = LogPlace::Remote { url: here.clone(), read: None };
        assert_eq!(log("log: { rekor: \"http://127.0.0.1:3003\" }"), remote);
        let both = LogPlace::Remote { url: here, read: Some(there) };
        assert_eq!(log("log:\n  rekor: http://127.0.0.1:3003\n  read: https://tiles.example/log"), both);
    }

    #[test]
    fn inner_servers_are_listed_with_their_ports() {
        let listed = |text: &str| Gateway::parse("g.yaml", &format!("{GOOD}{text}\n")).unwrap().private_destinations;
        assert!(
            listed("").is_empty() && listed("egress: {}").is_empty() && listed("egress: { private: [] }").is_empty()
        );
        let all = listed("egress: { private: [Nexus.Example:8443, 10.0.0.1:80, \"[0:0::1]:80\"] }");
        let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:80", "[::1]:80", "nexus.example:8443"]);
    }

    #[test]
    fn a_shared_store_is_a_folder_or_a_bucket_and_nothing_is_put_there_unless_the_file_says_so() {
        let shared = |text: &str| Gateway::parse("g.yaml", &format!("{GOOD}{text}\n")).unwrap().shared;
        assert_eq!(shared(""), None);
        let folder = shared("cache: { store: \"file:../cache\" }").unwrap();
        assert_eq!((folder.place, folder.push), (SharedPlace::Folder("../cache".into()), false));
        let bucket = |prefix: &str, endpoint: Option<&str>, region: &str| SharedPlace::Bucket {
            bucket: "ci-cache".to_owned(),
            prefix: prefix.to_owned(),
            endpoint: endpoint.map(str::to_owned),
            region: region.to_owned(),
        };
        let amazon = shared("cache: { store: s3://ci-cache, push: true }").unwrap();
        assert_eq!((amazon.place, amazon.push), (bucket("", None, "us-east-1"), true));
        let own = "cache: { store: s3://ci-cache/team/a/, endpoint: \"http://127.0.0.1:9000\", region: eu-1 }";
        assert_eq!(shared(own).unwrap().place, bucket("team/a", Some("http://127.0.0.1:9000"), "eu-1"));
    }

    #[test]
    fn what_would_let_everything_through_is_refused() {
        for (from, to, says) in [
            ("policies: [policies]", "policies: []", "can't allow anything"),
            ("require: [provenance, sbom, vulns]", "require: []", "provenance is always required"),
            ("require: [provenance, sbom, vulns]", "require: [sbom]", "provenance is always required"),
            (
                "require: [provenance, sbom, vulns]",
                "require: [provenence]",
                "\"provenence\" is unknown; this version knows prov",
            ),
            (
                "require: [provenance, sbom, vulns]",
                "require: [provenance, \"https://x.example/v1\"]",
                "not in this version",
            ),
            ("gate: release", "gate: none", "nothing to sign"),
            ("gate: release", "gate: None", "no gate is called"),
            ("  release: {", "  none: {", "choose another one"),
            ("decisions: { production", "decisions: { prodcution: key:p, production", "no environment"),
            ("gate: release", "gate: other", "no gate is called"),
            ("key:recorder", "key:builder", "two roles"),
            ("key:recorder,", "key:recorder, manual: key:recorder,", "two roles"),
            ("key:recorder,", "key:recorder, manual: key:production,", "two roles"),
            ("key:recorder,", "key:recorder, manual: person,", "not in this version"),
            ("decisions: { production: key:production }", "decisions: {}", "no key for the environment"),
            (
                "digests: [sha256:1111111111111111111111111111111111111111111111111111111111111111]",
                "digests: []",
                "at least one",
            ),
            ("log: embedded", "log: elsewhere", "write embedded or { rekor: URL }"),
            ("log: embedded", "log: { rekor: x }", "log.rekor"),
            ("log: embedded", "log: { rekor: \"http://log.example\" }", "write https://"),
            ("log: embedded", "log: { rekor: \"https://log.example/\" }", "last slash"),
            ("log: embedded", "log: { rekor: \"https://log.example\", read: x }", "log.read"),
            ("log: embedded", "log: { rekor: \"https://log.example\", raed: x }", "raed"),
            ("log: embedded", "log: { read: \"https://log.example\" }", "rekor"),
            ("log: embedded", "log: {}", "rekor"),
            ("log: embedded", "log: [embedded]", "expected embedded, or { rekor: URL }"),
            ("log: embedded", "log: 7", "expected embedded, or { rekor: URL }"),
            ("tag: current", "tag: current, after: { staging: 24h }", "not in this version"),
            ("oci:env/production", "env/production", "did you mean oci:env/production?"),
            ("oci:env/production", "registry.example/x:tag", "no tag, no digest"),
            ("from: db", "from: registry.example/db@sha256:00", "scanner.trivy.db.from"),
            ("log: embedded", "log: embedded\nevidence: elsewhere", "write same or a repository"),
            ("max_age: 24h", "max_age: 24h, max_aeg: 1h", "max_aeg"),
            ("log: embedded", "log: embedded\negress: { private: [nexus.example] }", "egress.private"),
            ("log: embedded", "log: embedded\negress: { private: [\"*:443\"] }", "no server and port"),
            ("log: embedded", "log: embedded\negress: { private: [10.0.0.0/8] }", "no server and port"),
            ("log: embedded", "log: embedded\negress: { private: [A.example:1, a.example:1] }", "twice"),
            ("log: embedded", "log: embedded\negress: { privat: [a.example:1] }", "privat"),
            ("log: embedded", "log: embedded\ncache: { store: redis://x }", "write file:DIR"),
            ("log: embedded", "log: embedded\ncache: { store: \"file:\" }", "file: and a folder"),
            ("log: embedded", "log: embedded\ncache: { store: \"file://x/y\" }", "file: and a folder"),
            ("log: embedded", "log: embedded\ncache: { store: \"file:/x\", region: a }", "a folder has none"),
            ("log: embedded", "log: embedded\ncache: { store: s3://A }", "no name of a bucket"),
            ("log: embedded", "log: embedded\ncache: { store: s3://abc/../x }", "no prefix"),
            (
                "log: embedded",
                "log: embedded\ncache: { store: s3://abc, endpoint: \"http://s3.example\" }",
                "write https://",
            ),
            ("log: embedded", "log: embedded\ncache: { store: s3://abc, region: \"\" }", "no region"),
            ("log: embedded", "log: embedded\ncache: { store: s3://abc, secret: x }", "secret"),
            ("log: embedded", "log: embedded\ncache: {}", "store"),
        ] {
            assert!(error(from, to).contains(says), "{to}: {}", error(from, to));
        }
    }
}
