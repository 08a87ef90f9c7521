//! `trust.yaml`, version 1: who may say what.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::Deserialize;
use sluicegate_types::{Digest, EnvironmentName, RepositoryPattern, UnixTime};

use crate::{
    Error, In,
    yaml::{self, Given, Longer, Ordered, TextOr, Truth},
};

/// A trust file. Key files are as written: relative to the file's folder.
#[derive(Clone, Debug)]
pub struct TrustFile {
    /// Signers with keys, in the order of the file.
    pub signers: Vec<SignerEntry>,
    /// Groups of signers that say something only together, in the order of the file.
    pub groups: Vec<GroupEntry>,
    /// Signers that are not believed any more.
    pub revoked: Vec<RevokedEntry>,
    /// Which signers and addresses are one person's, in the order of the file.
    pub people: Vec<PersonEntry>,
    /// Logs whose entries count although they carry no time.
    pub untimed: Vec<String>,
    /// Resolved gateways that are more than their own authority here.
    pub gateways: BTreeSet<Digest>,
    /// The SLSA level that a signer's builds have earned.
    pub levels: Vec<(String, String)>,
    /// Whether decisions count whose judge was chosen by who is judged.
    pub authority_self: bool,
}

/// One signer.
#[derive(Clone, Debug)]
pub struct SignerEntry {
    /// Its name.
    pub name: String,
    /// Its public key file (PEM).
    pub key: PathBuf,
    /// `steps`, `decisions`, `records`, `manual`; at least one, except for members of a group.
    pub roles: Vec<String>,
    /// Short names or URIs of predicate types; `None`: the roles' own.
    pub predicate_types: Option<Vec<String>>,
    /// Builders it may claim.
    pub builder_ids: Vec<String>,
    /// Verifiers it may claim.
    pub verifier_ids: Vec<String>,
    /// Environments it decides for.
    pub environments: Vec<EnvironmentName>,
    /// Repositories it may speak about, at least one; `None`: left out.
    pub repositories: Option<Vec<RepositoryPattern>>,
}

/// A group: a threshold of signers.
#[derive(Clone, Debug)]
pub struct GroupEntry {
    /// Its name, which no signer has.
    pub name: String,
    /// How many distinct identities must say the same; at least 2, at most as many as `of` has.
    pub threshold: usize,
    /// The names of its signers, each of which has a key.
    pub of: Vec<String>,
    /// `manual`.
    pub roles: Vec<String>,
    /// Short names or URIs of predicate types; `None`: the role's own.
    pub predicate_types: Option<Vec<String>>,
    /// Repositories it may speak about, at least one; `None`: left out.
    pub repositories: Option<Vec<RepositoryPattern>>,
}

/// One person.
#[derive(Clone, Debug)]
pub struct PersonEntry {
    /// Their name.
    pub name: String,
    /// Their addresses. Nothing folds case.
    pub emails: Vec<String>,
    /// The signers that are theirs.
    pub signers: Vec<String>,
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
    ///
    /// Types of predicates are checked where roles are known, by whoever makes a trust of it; keys where they are read.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let wire: WireTrust = yaml::read(file, text)?;
        let at = In { file, text };
        at.version(wire.version)?;
        check_formats(&at, &wire.formats)?;
        let (mut signers, mut groups) = (Vec::new(), Vec::new());
        for (name, signer) in wire.signers.0 {
            let place = format!("signers.{name}");
            at.absent(&place, "identity", signer.identity)?;
            if signer.threshold.is_some() || signer.of.is_some() {
                groups.push(group_of(&at, name, signer)?);
            } else {
                signers.push(signer_of(&at, name, signer)?);
            }
        }
        let people = people_of(&at, wire.people.unwrap_or_default().0, &signers)?;
        for group in &groups {
            check_members(&at, group, &signers, &people)?;
        }
        for signer in &signers {
            // A member of a group may have no word of its own.
            if signer.roles.is_empty() && !groups.iter().any(|group| group.of.contains(&signer.name)) {
                return Err(at.meaning(format!("signers.{}", signer.name), "a signer without a role can say nothing"));
            }
        }
        let known = |name: &str| signers.iter().any(|signer| signer.name == name);
        let is_group = |name: &str| groups.iter().any(|group| group.name == name);
        let mut revoked = Vec::new();
        for (nth, entry) in wire.revoked.into_iter().enumerate() {
            let here = format!("revoked[{nth}].signer");
            let place = format!("revoked: {}", entry.signer);
            if is_group(&entry.signer) {
                return Err(at.meaning_at(
                    here,
                    place,
                    "a threshold of signers; revoke those of its signers that are meant",
                ));
            }
            if !known(&entry.signer) {
                return Err(at.meaning_at(here, place, "which is no signer of this file"));
            }
            // A date says nothing about entries that carry no time, and key-signed ones never do: all of them are refused then.
            if let Some(date) = &entry.from {
                let parsed: Result<UnixTime, _> = date.parse();
                parsed
                    .map_err(|error| at.meaning_at(format!("revoked[{nth}].from"), format!("{place}: from"), error))?;
            }
            if entry.from.is_some() && entry.at.is_some() {
                return Err(at.meaning_at(here, place, "either at or from"));
            }
            revoked.push(RevokedEntry { signer: entry.signer, at: entry.at.map(|at| (at.log, at.size)) });
        }
        let gateways = gateways_of(&at, wire.gateways.unwrap_or_default())?;
        for (signer, level) in &wire.levels.0 {
            let place = format!("levels.{signer}");
            if is_group(signer) {
                return Err(at.meaning(place, "a threshold of signers builds nothing"));
            }
            if !known(signer) {
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
        Ok(Self {
            signers,
            groups,
            revoked,
            people,
            untimed: wire.formats.untimed,
            gateways,
            levels: wire.levels.0,
            authority_self: wire.authority_self.0,
        })
    }
}

fn check_formats(at: &In<'_>, formats: &WireFormats) -> Result<(), Error> {
    for (what, as_built) in [
        ("bundles", formats.bundles == ["v0.3"]),
        ("statements", formats.statements == ["v1"]),
        ("legacy_tags", !formats.legacy_tags.0),
        ("promise_only", !formats.promise_only.0),
        ("unlogged", !formats.unlogged.0),
    ] {
        if !as_built {
            return Err(at.later_value(
                format!("formats.{what}"),
                "",
                "write bundles: [v0.3], statements: [v1] and false for the others",
            ));
        }
    }
    Ok(())
}

fn signer_of(at: &In<'_>, name: String, wire: WireSigner) -> Result<SignerEntry, Error> {
    let place = format!("signers.{name}");
    let key = wire.key.ok_or_else(|| at.meaning(&place, "a key is needed: the file of a public key"))?;
    check_roles(at, &place, &wire.roles)?;
    let decides = wire.roles.iter().any(|role| role == "decisions");
    if decides && wire.roles.len() > 1 {
        return Err(at.meaning(
            format!("{place}.roles"),
            "a key that decides signs nothing else: cosign takes anything it signed for a signature",
        ));
    }
    let environments = wire.environments.unwrap_or_default();
    if decides && environments.is_empty() {
        return Err(at.meaning(&place, "environments: a signer that decides names those it decides for"));
    }
    if wire.repositories.is_none() && wire.roles.iter().any(|role| role == "steps" || role == "manual") {
        return Err(
            at.meaning(&place, "no repositories: a list that is left out allows nothing; write repositories: [\"*\"]")
        );
    }
    Ok(SignerEntry {
        name,
        key: key.into(),
        roles: wire.roles,
        predicate_types: wire.predicate_types,
        builder_ids: ids(at, &place, "builder_ids", wire.builder_ids)?,
        verifier_ids: ids(at, &place, "verifier_ids", wire.verifier_ids)?,
        environments,
        repositories: repositories_of(at, &place, wire.repositories)?,
    })
}

fn group_of(at: &In<'_>, name: String, wire: WireSigner) -> Result<GroupEntry, Error> {
    let place = format!("signers.{name}");
    for (key, given) in [
        ("key", wire.key.is_some()),
        ("builder_ids", wire.builder_ids.is_some()),
        ("verifier_ids", wire.verifier_ids.is_some()),
        ("environments", wire.environments.is_some()),
    ] {
        if given {
            return Err(at.meaning(format!("{place}.{key}"), "a threshold of signers has none; its signers have"));
        }
    }
    let of = wire.of.ok_or_else(|| at.meaning(&place, "threshold without of: [SIGNER, SIGNER]"))?;
    let threshold = wire.threshold.ok_or_else(|| at.meaning(&place, "of without threshold: 2 or more"))?;
    check_roles(at, &place, &wire.roles)?;
    if wire.roles.is_empty() {
        return Err(at.meaning(&place, "a group without a role can say nothing"));
    }
    if let Some(role) = wire.roles.iter().find(|role| *role != "manual") {
        return Err(at.later_value(
            format!("{place}.roles"),
            &format!("{role} of a threshold"),
            "a threshold of signers has the role manual",
        ));
    }
    if wire.repositories.is_none() {
        return Err(
            at.meaning(&place, "no repositories: a list that is left out allows nothing; write repositories: [\"*\"]")
        );
    }
    Ok(GroupEntry {
        name,
        threshold,
        of,
        roles: wire.roles,
        predicate_types: wire.predicate_types,
        repositories: repositories_of(at, &place, wire.repositories)?,
    })
}

fn check_roles(at: &In<'_>, place: &str, roles: &[String]) -> Result<(), Error> {
    for (nth, role) in roles.iter().enumerate() {
        let place = format!("{place}.roles[{nth}]");
        match role.as_str() {
            "logs" | "time" => {
                return Err(at.later_value(place, role, "logs are trusted by the trusted root"));
            }
            role if !ROLES.contains(&role) => {
                return Err(at.meaning(place, format!("{role:?} is no role; roles are {}", ROLES.join(", "))));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Exact ids; one that looks like a pattern would be taken for one by whoever reads the file.
fn ids(at: &In<'_>, place: &str, key: &str, list: Option<Vec<String>>) -> Result<Vec<String>, Error> {
    let list = list.unwrap_or_default();
    match list.iter().find(|id| *id == "*") {
        Some(_) => Err(at.meaning(format!("{place}.{key}"), "\"*\": ids are exact; write them out")),
        None => Ok(list),
    }
}

fn repositories_of(
    at: &In<'_>,
    place: &str,
    list: Option<Vec<String>>,
) -> Result<Option<Vec<RepositoryPattern>>, Error> {
    let Some(list) = list else { return Ok(None) };
    let place = format!("{place}.repositories");
    if list.is_empty() {
        return Err(at.meaning(place, "an empty list allows nothing; write names, PREFIX/* or \"*\""));
    }
    let pattern = |text: &String| text.parse().map_err(|error| at.meaning(&place, error));
    list.iter().map(pattern).collect::<Result<_, _>>().map(Some)
}

fn people_of(at: &In<'_>, wire: Vec<(String, WirePerson)>, signers: &[SignerEntry]) -> Result<Vec<PersonEntry>, Error> {
    let (mut mails, mut keys) = (BTreeMap::new(), BTreeMap::new());
    let mut people = Vec::new();
    for (name, person) in wire {
        let place = format!("people.{name}");
        let signers_of_person = match person.signer {
            None => Vec::new(),
            Some(TextOr::Text(one)) => vec![one],
            Some(TextOr::More(Several(many))) => many,
        };
        if person.emails.is_empty() && signers_of_person.is_empty() {
            return Err(at.meaning(place, "nothing is known of them; write emails or signer"));
        }
        for email in &person.emails {
            let parts = email.split_once('@').filter(|(user, host)| !user.is_empty() && !host.is_empty());
            let odd = |c: char| c.is_whitespace() || c.is_control();
            if parts.is_none_or(|(_, host)| host.contains('@')) || email.contains(odd) {
                return Err(at.meaning(format!("{place}.emails"), format!("{email:?} is no address")));
            }
            if let Some(other) = mails.insert(email.clone(), name.clone()) {
                return Err(at.meaning(format!("{place}.emails"), format!("{email} is {other}'s already")));
            }
        }
        for signer in &signers_of_person {
            if !signers.iter().any(|known| known.name == *signer) {
                let reason = format!("{signer:?} is no signer of this file with a key");
                return Err(at.meaning(format!("{place}.signer"), reason));
            }
            if let Some(other) = keys.insert(signer.clone(), name.clone()) {
                return Err(at.meaning(format!("{place}.signer"), format!("{signer} is {other}'s already")));
            }
        }
        people.push(PersonEntry { name, emails: person.emails, signers: signers_of_person });
    }
    Ok(people)
}

fn check_members(
    at: &In<'_>,
    group: &GroupEntry,
    signers: &[SignerEntry],
    people: &[PersonEntry],
) -> Result<(), Error> {
    let place = format!("signers.{}", group.name);
    let (mut seen, mut distinct) = (BTreeSet::new(), BTreeSet::new());
    for name in &group.of {
        if !signers.iter().any(|signer| signer.name == *name) {
            return Err(at.meaning(format!("{place}.of"), format!("{name:?} is no signer of this file with a key")));
        }
        if !seen.insert(name) {
            return Err(at.meaning(format!("{place}.of"), format!("{name} stands here twice")));
        }
        let person = people.iter().find(|person| person.signers.contains(name));
        // A person and a signer may have one name and be two.
        distinct.insert((person.is_some(), person.map_or(name, |person| &person.name)));
    }
    let distinct = distinct.len();
    if group.threshold < 2 || group.threshold > distinct {
        return Err(at.meaning(
            format!("{place}.threshold"),
            format!(
                "{}: it lies between 2 and the number of distinct identities among its signers, {distinct}",
                group.threshold
            ),
        ));
    }
    Ok(())
}

fn gateways_of(at: &In<'_>, wire: Vec<TextOr<WireSignedGateway>>) -> Result<BTreeSet<Digest>, Error> {
    let mut gateways = BTreeSet::new();
    for (number, gateway) in wire.into_iter().enumerate() {
        let (here, place) = (format!("gateways[{number}]"), format!("gateways, entry {}", number + 1));
        match gateway {
            TextOr::Text(text) => {
                let digest = text.parse().map_err(|error| at.meaning_at(&here, &place, error))?;
                if !gateways.insert(digest) {
                    return Err(at.meaning_at(here, place, format!("{digest} stands here twice")));
                }
            }
            TextOr::More(signed) => {
                return Err(at.later_value(
                    &here,
                    &format!("entry {}: signed gateways ({{ signer: {} }})", number + 1, signed.signer),
                    "list the digest of the gateway",
                ));
            }
        }
    }
    Ok(gateways)
}

/// The trust file: who may say what. Relative paths are relative to the file.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(title = "trust.yaml, version 1"))]
#[serde(deny_unknown_fields)]
pub(crate) struct WireTrust {
    /// The version of this format.
    #[cfg_attr(test, schemars(extend("const" = 1)))]
    version: u32,
    /// Signers by name, and groups of them.
    signers: Ordered<WireSigner>,
    /// Signers that are not believed any more.
    #[serde(default)]
    revoked: Vec<WireRevoked>,
    /// Which signers and addresses are one person's.
    #[serde(default, deserialize_with = "yaml::given")]
    people: Option<Ordered<WirePerson>>,
    /// Which forms of statements count.
    formats: WireFormats,
    /// Resolved gateways that are more than their own authority here: sha256:HEX each.
    #[serde(default, deserialize_with = "yaml::given")]
    gateways: Option<Vec<TextOr<WireSignedGateway>>>,
    /// The SLSA level that a signer's builds have earned.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("additionalProperties" = {"enum": ["SLSA_BUILD_LEVEL_0", "SLSA_BUILD_LEVEL_1"]})))]
    levels: Ordered<String>,
    /// Whether decisions count whose judge was chosen by who is judged.
    #[serde(default)]
    authority_self: Truth,
}

/// A signer with a key, or a threshold of signers.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireSigner {
    /// The file of a public key (PEM).
    #[serde(default, deserialize_with = "yaml::given")]
    key: Option<String>,
    /// Reserved: refused with "not in this version".
    #[serde(default)]
    identity: Given,
    /// How many distinct identities must say the same; with of.
    #[serde(default, deserialize_with = "yaml::given")]
    #[cfg_attr(test, schemars(range(min = 2)))]
    threshold: Option<usize>,
    /// The signers of a group; with threshold.
    #[serde(default, deserialize_with = "yaml::given")]
    of: Option<Vec<String>>,
    /// steps, decisions, records or manual.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("items" = {"enum": ["steps", "decisions", "records", "manual"]})))]
    roles: Vec<String>,
    /// Short names or URIs; the roles' own if left out.
    #[serde(default, deserialize_with = "yaml::given")]
    predicate_types: Option<Vec<String>>,
    /// Builders that it may claim.
    #[serde(default, deserialize_with = "yaml::given")]
    builder_ids: Option<Vec<String>>,
    /// Verifiers that it may claim.
    #[serde(default, deserialize_with = "yaml::given")]
    verifier_ids: Option<Vec<String>>,
    /// Environments that it decides for.
    #[serde(default, deserialize_with = "yaml::given")]
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    environments: Option<Vec<EnvironmentName>>,
    /// Repositories that it may speak about: names, PREFIX/*, or *.
    #[serde(default, deserialize_with = "yaml::given")]
    repositories: Option<Vec<String>>,
}

/// A person.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WirePerson {
    /// Addresses; nothing folds case.
    #[serde(default)]
    emails: Vec<String>,
    /// Signers that are theirs.
    #[serde(default, deserialize_with = "yaml::given")]
    signer: Option<TextOr<Several>>,
}

/// A list where one would do.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
struct Several(Vec<String>);

impl Longer for Several {
    const EXPECTED: &'static str = "a text or a list of texts";
    const IS_LIST: bool = true;
}

/// A signed gateway; reserved: refused with "not in this version".
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireSignedGateway {
    /// Who signs it.
    signer: String,
}

impl Longer for WireSignedGateway {
    const EXPECTED: &'static str = "sha256:HEX or { signer: NAME }";
}

/// A revocation: with at, later entries and those of other logs are refused; else all are.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireRevoked {
    /// The signer.
    signer: String,
    /// Up to where entries still count.
    #[serde(default, deserialize_with = "yaml::given")]
    at: Option<WireRevokedAt>,
    /// A time; statements here carry none, so that all are refused.
    #[serde(default, deserialize_with = "yaml::given")]
    from: Option<String>,
}

/// A place in a log.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireRevokedAt {
    /// The log's origin.
    log: String,
    /// The size of its tree.
    size: u64,
}

/// Which forms count.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireFormats {
    /// `[v0.3]`.
    #[cfg_attr(test, schemars(extend("const" = ["v0.3"])))]
    bundles: Vec<String>,
    /// `[v1]`.
    #[cfg_attr(test, schemars(extend("const" = ["v1"])))]
    statements: Vec<String>,
    /// false.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("const" = false)))]
    legacy_tags: Truth,
    /// false.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("const" = false)))]
    promise_only: Truth,
    /// false.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("const" = false)))]
    unlogged: Truth,
    /// Origins of logs whose entries count although they carry no time.
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
  recorder: { key: recorder.pub, roles: [records], verifier_ids: ["https://gate.example"] }
  production: { key: production.pub, roles: [decisions], environments: [production], verifier_ids: ["https://gate.example"], repositories: ["oci:production"] }
  vexers: { threshold: 2, of: [alice, bob], roles: [manual], predicate_types: [vex], repositories: ["oci:vexed"] }
  alice: { key: alice.pub, roles: [manual], repositories: ["registry.example/shop/*", "registry.example/shop"] }
  bob: { key: bob.pub }
revoked: [{ signer: builder, at: { log: log.example, size: 4711 } }, { signer: alice, from: 2026-01-01T00:00:00Z }, { signer: recorder }]
people: { alice: { emails: [alice@example, Alice@example], signer: alice }, bob: { emails: [bob@example] } }
formats: { bundles: [v0.3], statements: [v1], legacy_tags: false, promise_only: false, unlogged: false, untimed: [log.example] }
gateways: [sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad]
levels: { builder: SLSA_BUILD_LEVEL_1 }
authority_self: false
"#;

    /// The good file with one place changed.
    fn changed(from: &str, to: &str) -> Result<TrustFile, Error> {
        assert!(GOOD.contains(from), "{from}");
        TrustFile::parse("t.yaml", &GOOD.replacen(from, to, 1))
    }

    fn refused(changes: &[(&str, &str, &str)]) {
        assert!(TrustFile::parse("t.yaml", GOOD).is_ok());
        for (from, to, says) in changes {
            let error = changed(from, to).unwrap_err().to_string();
            assert!(error.starts_with("t.yaml") && error.contains(says), "{to}: {error}");
        }
    }

    #[test]
    fn everything_that_the_file_says_is_carried() {
        let file = TrustFile::parse("t.yaml", GOOD).unwrap();
        let names = |signers: &[SignerEntry]| signers.iter().map(|signer| signer.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&file.signers), ["builder", "recorder", "production", "alice", "bob"]);
        assert_eq!(file.signers[3].repositories.as_ref().unwrap().len(), 2);
        assert_eq!((file.signers[1].repositories.is_none(), file.signers[4].roles.is_empty()), (true, true));
        let [group] = file.groups.as_slice() else { panic!("one group") };
        assert_eq!(
            (group.name.as_str(), group.threshold, group.of.as_slice()),
            ("vexers", 2, ["alice".to_owned(), "bob".to_owned()].as_slice())
        );
        assert_eq!(file.revoked[0].at, Some(("log.example".to_owned(), 4711)));
        assert!(file.revoked[1].at.is_none() && file.revoked[2].at.is_none());
        assert_eq!(file.people[0].emails, ["alice@example", "Alice@example"]);
        assert_eq!(
            (file.people[0].signers.as_slice(), file.people[1].signers.len()),
            (["alice".to_owned()].as_slice(), 0)
        );
        assert_eq!(file.gateways.into_iter().collect::<Vec<_>>(), [Digest::of(b"abc")]);
        assert!(
            !file.authority_self && changed("authority_self: false", "authority_self: true").unwrap().authority_self
        );
    }

    #[test]
    fn what_is_not_built_yet_or_contradicts_is_refused() {
        refused(&[
            ("key: builder.pub", "identity: { issuer: x }", "signers.builder.identity: not in this version"),
            ("key: builder.pub, ", "", "signers.builder: a key is needed"),
            ("roles: [steps]", "roles: []", "without a role"),
            ("roles: [steps]", "roles: [boss]", "\"boss\" is no role"),
            ("roles: [steps]", "roles: [steps, logs]", "signers.builder.roles: logs: not in this version"),
            ("roles: [steps]", "roles: [time]", "signers.builder.roles: time: not in this version"),
            ("roles: [decisions]", "roles: [decisions, steps]", "signs nothing else"),
            ("environments: [production], ", "", "names those it decides for"),
            (
                "builder_ids: [\"https://sluicegate.dev/builder/local@v1\"]",
                "builder_ids: [\"*\"]",
                "signers.builder.builder_ids",
            ),
            ("verifier_ids: [\"https://gate.example\"]", "verifier_ids: [\"*\"]", "signers.recorder.verifier_ids"),
            ("bundles: [v0.3]", "bundles: [v0.3, v0.2]", "formats.bundles: not in this version"),
            ("statements: [v1]", "statements: [v0.1]", "formats.statements: not in this version"),
            ("legacy_tags: false", "legacy_tags: true", "formats.legacy_tags: not in this version"),
            ("promise_only: false", "promise_only: true", "formats.promise_only: not in this version"),
            ("unlogged: false", "unlogged: true", "formats.unlogged: not in this version"),
            ("authority_self: false", "authority_self: perhaps", "line 15"),
            ("authority_self: false", "authority_self: \"true\"", "line 15, column 1: authority_self: invalid type"),
            ("unlogged: false", "unlogged: 'false'", "true or false without quotes"),
            ("SLSA_BUILD_LEVEL_1", "SLSA_BUILD_LEVEL_3", "and no more"),
            ("levels: { builder:", "levels: { stranger:", "no signer of this file"),
            ("levels: { builder:", "levels: { vexers:", "levels.vexers: a threshold"),
        ]);
    }

    #[test]
    fn tm06_repositories_are_names_prefixes_or_everything() {
        refused(&[
            (", repositories: [\"*\"]", "", "left out allows nothing"),
            ("repositories: [\"*\"]", "repositories: []", "signers.builder.repositories: an empty list"),
            ("repositories: [\"*\"]", "repositories: [\"shop*\"]", "signers.builder.repositories: \"shop*\""),
            ("[\"oci:production\"]", "[\"*/shop\"]", "signers.production.repositories"),
            ("[\"registry.example/shop/*\", ", "[\"registry.example/shop:v1\", ", "no tag and no digest"),
        ]);
        for (list, pattern) in [
            ("[\"registry.example/team/*\"]", RepositoryPattern::Below("registry.example/team/".to_owned())),
            ("[\"registry.example/shop\"]", RepositoryPattern::Exactly("registry.example/shop".to_owned())),
            ("[\"*\"]", RepositoryPattern::Any),
        ] {
            let file = changed("repositories: [\"*\"]", &format!("repositories: {list}")).unwrap();
            assert_eq!(file.signers[0].repositories, Some(vec![pattern]));
        }
    }

    #[test]
    fn tm06_a_threshold_is_of_distinct_signers_with_keys_and_has_none_itself() {
        let group = "{ threshold: 2, of: [alice, bob], roles: [manual], predicate_types: [vex], repositories: [\"oci:vexed\"] }";
        let of_three = "{ threshold: 3, of: [alice, bob, recorder], roles: [manual], repositories: [\"*\"] }";
        assert_eq!(changed(group, of_three).unwrap().groups[0].threshold, 3);
        let named = changed(group, &group.replace("[\"oci:vexed\"]", "[\"*\"]")).unwrap();
        assert_eq!(named.groups[0].repositories, Some(vec![RepositoryPattern::Any]));
        refused(&[
            (", repositories: [\"oci:vexed\"]", "", "signers.vexers: no repositories"),
            (
                ", repositories: [\"registry.example/shop/*\", \"registry.example/shop\"]",
                "",
                "signers.alice: no repositories",
            ),
            ("threshold: 2", "threshold: 0", "signers.vexers.threshold: 0: it lies between 2 and"),
            ("threshold: 2", "threshold: 1", "signers.vexers.threshold: 1: it lies between 2 and"),
            ("threshold: 2", "threshold: 3", "distinct identities among its signers, 2"),
            ("threshold: 2", "threshold: -2", "line 7"),
            ("threshold: 2, ", "", "signers.vexers: of without threshold"),
            ("of: [alice, bob], ", "", "signers.vexers: threshold without of"),
            ("of: [alice, bob]", "of: [alice, alice]", "signers.vexers.of: alice stands here twice"),
            ("of: [alice, bob]", "of: [alice, carol]", "signers.vexers.of: \"carol\" is no signer"),
            ("of: [alice, bob]", "of: [alice, vexers]", "signers.vexers.of: \"vexers\" is no signer"),
            ("threshold: 2", "key: vexers.pub, threshold: 2", "signers.vexers.key: a threshold of signers has none"),
            ("threshold: 2", "builder_ids: [x], threshold: 2", "signers.vexers.builder_ids"),
            ("threshold: 2", "verifier_ids: [x], threshold: 2", "signers.vexers.verifier_ids"),
            ("threshold: 2", "environments: [production], threshold: 2", "signers.vexers.environments"),
            ("threshold: 2", "identity: { issuer: x }, threshold: 2", "signers.vexers.identity: not in this version"),
            ("of: [alice, bob], roles: [manual]", "of: [alice, bob], roles: [manual, records]", "not in this version"),
            ("of: [alice, bob], roles: [manual]", "of: [alice, bob], roles: []", "a group without a role"),
            ("of: [alice, bob], roles: [manual]", "of: [alice, bob], roles: [boss]", "is no role"),
            // Without a group bob could say nothing at all.
            ("of: [alice, bob]", "of: [alice, recorder]", "signers.bob: a signer without a role"),
        ]);
    }

    #[test]
    fn tm06_two_signers_of_one_person_are_one_identity() {
        let both = "people: { alice: { signer: [alice, bob] }, ";
        let error = changed("people: { alice: { emails: [alice@example, Alice@example], signer: alice }, ", both);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("signers.vexers.threshold") && error.contains("among its signers, 1"), "{error}");
        let third = GOOD
            .replace("of: [alice, bob]", "of: [alice, bob, recorder]")
            .replace("signer: alice }, bob", "signer: [alice, bob] }, bob");
        assert_eq!(TrustFile::parse("t.yaml", &third).unwrap().groups[0].threshold, 2);
        // A signer that has a person's name and is somebody else's is another identity.
        assert!(changed("signer: alice }, bob: { emails: [bob@example] }", "signer: bob }").is_ok());
    }

    #[test]
    fn people_have_an_address_or_a_signer_and_share_neither() {
        refused(&[
            ("bob: { emails: [bob@example] }", "bob: {}", "people.bob: nothing is known of them"),
            ("emails: [bob@example]", "emails: []", "people.bob: nothing is known of them"),
            ("emails: [bob@example]", "emails: [alice@example]", "people.bob.emails: alice@example is alice's already"),
            ("emails: [bob@example]", "emails: [bob@example, bob@example]", "bob@example is bob's already"),
            ("emails: [bob@example]", "emails: [bob]", "\"bob\" is no address"),
            ("emails: [bob@example]", "emails: [\"bob @example\"]", "is no address"),
            ("emails: [bob@example]", "emails: [\"@example\"]", "is no address"),
            ("emails: [bob@example]", "signer: carol", "people.bob.signer: \"carol\" is no signer"),
            ("emails: [bob@example]", "signer: vexers", "people.bob.signer: \"vexers\" is no signer"),
            ("emails: [bob@example]", "signer: alice", "people.bob.signer: alice is alice's already"),
            ("emails: [bob@example]", "signer: [bob, bob]", "people.bob.signer: bob is bob's already"),
            ("emails: [bob@example]", "signer: { name: bob }", "a text or a list of texts"),
            ("emails: [bob@example]", "phone: 1", "unknown key"),
        ]);
        assert!(changed("emails: [bob@example]", "signer: bob").is_ok());
        assert!(changed("emails: [bob@example]", "emails: [ALICE@example]").is_ok(), "nothing folds case");
    }

    #[test]
    fn tm07_gateways_are_digests() {
        let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        refused(&[
            (digest, "{ signer: platform }", "entry 1: signed gateways ({ signer: platform }): not in this version"),
            (digest, "sha256:00", "gateways, entry 1: a sha256 digest has 64"),
            (digest, "platform", "gateways, entry 1"),
            (digest, "{ keys: platform }", "unknown key \"keys\""),
            (&format!("[{digest}]"), &format!("[{digest}, {digest}]"), "gateways, entry 2"),
        ]);
    }

    #[test]
    fn tm14_a_revocation_names_a_signer_and_a_place_or_a_date() {
        refused(&[
            ("at: { log: log.example, size: 4711 }", "from: whenever", "revoked: builder: from"),
            ("size: 4711 }", "size: 4711 }, from: 2026-01-01T00:00:00Z", "either at or from"),
            ("{ signer: recorder }", "{ signer: stranger }", "revoked: stranger: which is no signer"),
            ("{ signer: recorder }", "{ signer: vexers }", "revoked: vexers: a threshold of signers"),
            ("size: 4711", "size: -1", "line 10"),
        ]);
        let twice = changed("{ signer: recorder }", "{ signer: builder }").unwrap();
        assert_eq!(twice.revoked.iter().filter(|line| line.signer == "builder").count(), 2);
    }
}
