use std::collections::{BTreeMap, BTreeSet};

use sluicegate_attestation::{bundle::key_hint, identifiers::AUTHORITY_SELF, predicate::PredicateType};
use sluicegate_types::{
    Digest, Repository,
    checks::{Check, is_on},
};

use crate::{
    GroupRule, LogPlace, Person, Role, SignerRule, TrustRoot,
    signer_rule::{role_names, roles_for},
};

/// Who is trusted to say what, and which logs count: trust.yaml and trusted_root.json as one value.
#[derive(Debug)]
pub struct Trust {
    signers: BTreeMap<String, SignerRule>,
    groups: BTreeMap<String, GroupRule>,
    people: Vec<Person>,
    by_hint: BTreeMap<String, String>,
    pub(crate) untimed: BTreeSet<String>,
    pub(crate) revoked: Vec<Revocation>,
    gateways: BTreeSet<Digest>,
    authority_self: bool,
    pub(crate) root: TrustRoot,
}

/// Everything that trust.yaml says, with its keys read: what [`Trust::from_rules`] joins.
#[derive(Clone, Debug, Default)]
pub struct TrustRules {
    /// Signers with keys.
    pub signers: Vec<SignerRule>,
    /// Groups of them.
    pub groups: Vec<GroupRule>,
    /// Which signers are one person's.
    pub people: Vec<Person>,
    /// Logs whose entries count although they carry no time.
    pub untimed: BTreeSet<String>,
    /// Signers that are not believed any more.
    pub revoked: Vec<Revocation>,
    /// Resolved gateways (the digest in a decision's `policy`) that are more than their own authority here.
    pub gateways: BTreeSet<Digest>,
    /// Whether decisions count whose judge was chosen by who is judged.
    pub authority_self: bool,
}

/// A signer that is not believed any more.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// The signer.
    pub signer: String,
    /// Entries of this log below this index still count; those beyond it and those of other logs don't. `None`: nothing counts.
    /// (A date alone is `None` too: key-signed entries carry no time, and untimed ones are refused; trust model 14.)
    pub before: Option<(String, u64)>,
}

/// Who somebody is, however many keys they have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Identity<'a> {
    Person(&'a str),
    Signer(&'a str),
}

impl Trust {
    /// Joins signers, log trust and revocations: a trust without groups, people and gateways.
    pub fn new(
        signers: Vec<SignerRule>,
        untimed: BTreeSet<String>,
        revoked: Vec<Revocation>,
        root: TrustRoot,
    ) -> Result<Self, TrustError> {
        Self::from_rules(TrustRules { signers, untimed, revoked, ..TrustRules::default() }, root)
    }

    /// Joins everything that trust.yaml says with the trusted root. Whatever would mean something else than it says is refused.
    pub fn from_rules(rules: TrustRules, root: TrustRoot) -> Result<Self, TrustError> {
        let TrustRules { signers, groups, people, untimed, revoked, gateways, authority_self } = rules;
        if signers.is_empty() {
            return Err(TrustError::NoSigner);
        }
        let mut by_hint = BTreeMap::new();
        let mut by_name: BTreeMap<String, SignerRule> = BTreeMap::new();
        for signer in signers {
            let other = by_hint.insert(key_hint(&signer.public_key), signer.name.clone());
            if is_on(Check::OneKeyOneSigner)
                && let Some(other) = other
            {
                return Err(TrustError::SameKey { one: other, two: signer.name });
            }
            check_types(&signer.name, &signer.roles, signer.predicate_types.as_ref())?;
            if let Some(other) = by_name.insert(signer.name.clone(), signer) {
                return Err(TrustError::SameName { name: other.name });
            }
        }
        let mut trust = Self {
            signers: by_name,
            groups: BTreeMap::new(),
            people: Vec::new(),
            by_hint,
            untimed,
            revoked,
            gateways,
            authority_self,
            root,
        };
        for person in people {
            trust.add_person(person)?;
        }
        for group in groups {
            trust.add_group(group)?;
        }
        for line in &trust.revoked {
            if !trust.signers.contains_key(&line.signer) {
                return Err(TrustError::RevokedStranger { signer: line.signer.clone() });
            }
        }
        Ok(trust)
    }

    /// Whether what this signer or group says may be about this repository. `None` is a place without a name, such as an OCI
    /// layout folder that belongs to no environment; only `*` covers it. An unknown signer covers nothing.
    ///
    /// Without `repositories`, the roles steps and manual cover nothing. A signer of the roles decisions and records alone is
    /// narrowed by its environments and verifiers already, and covers all; `repositories` narrows it as well if it is given.
    pub fn covers(&self, signer: &str, repository: Option<&Repository>) -> bool {
        let (roles, repositories) = match (self.signers.get(signer), self.groups.get(signer)) {
            (Some(rule), _) => (&rule.roles, &rule.repositories),
            (None, Some(group)) => (&group.roles, &group.repositories),
            (None, None) => return false,
        };
        match repositories {
            _ if !is_on(Check::Repositories) => true,
            Some(patterns) => patterns.iter().any(|pattern| pattern.matches(repository)),
            None => !roles.is_empty() && roles.iter().all(|role| matches!(role, Role::Decisions | Role::Records)),
        }
    }

    /// Whether this signer may be counted towards what a group says about this repository: a list of its own narrows it there too,
    /// without one it follows the group's.
    pub(crate) fn lets_join_in(&self, signer: &str, repository: Option<&Repository>) -> bool {
        let patterns = self.signers.get(signer).and_then(|rule| rule.repositories.as_ref());
        patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(repository)))
    }

    /// Whether a decision that says it was made by this authority, under this resolved gateway, counts for who has this trust
    /// (trust model 7). `self`, a judge chosen by who is judged, does only where `authority_self` says so or the gateway is
    /// listed; no other word is known, and none of them counts.
    pub fn accepts_authority(&self, authority: &str, gateway: &Digest) -> bool {
        authority == AUTHORITY_SELF && (self.authority_self || self.gateways.contains(gateway))
    }

    /// Whether entries of this log count although they carry no time.
    pub fn takes_untimed(&self, origin: &str) -> bool {
        self.untimed.contains(origin)
    }

    /// Everybody whom trust.yaml names.
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// The groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = &GroupRule> {
        self.groups.values()
    }

    /// Every signer, by name.
    pub fn signers(&self) -> impl Iterator<Item = &SignerRule> {
        self.signers.values()
    }

    /// Whether this hint names the key of a signer.
    pub(crate) fn knows(&self, hint: &str) -> bool {
        self.by_hint.contains_key(hint)
    }

    /// The signer whose key this hint names.
    pub(crate) fn signer_by_hint(&self, hint: &str) -> Option<&SignerRule> {
        self.by_hint.get(hint).and_then(|name| self.signers.get(name))
    }

    /// Which groups this signer's statement of this type counts towards.
    pub(crate) fn groups_of(&self, signer: &str, predicate: &PredicateType) -> impl Iterator<Item = &GroupRule> {
        self.groups.values().filter(move |group| group.of.contains(signer) && !group.roles_for(predicate).is_empty())
    }

    pub(crate) fn group(&self, name: &str) -> Option<&GroupRule> {
        self.groups.get(name)
    }

    /// Two signers of one person are one identity.
    pub(crate) fn identity<'a>(&'a self, signer: &'a str) -> Identity<'a> {
        let person =
            self.people.iter().find(|person| person.signers.contains(signer) && is_on(Check::DistinctIdentities));
        person.map_or(Identity::Signer(signer), |person| Identity::Person(&person.name))
    }

    /// Why this entry of the signer does not count any more. Every line that names the signer must let it through.
    pub(crate) fn revocation(&self, signer: &str, log: &LogPlace) -> Option<String> {
        self.revoked.iter().filter(|line| line.signer == signer).find_map(|line| match &line.before {
            Some((origin, size)) if *origin == log.origin && log.index < *size => None,
            Some((origin, size)) => {
                Some(format!("only entries below {size} of {origin} count, this is {} of {}", log.index, log.origin))
            }
            None => Some("none of its statements count".to_owned()),
        })
    }

    fn add_person(&mut self, person: Person) -> Result<(), TrustError> {
        for signer in &person.signers {
            if !self.signers.contains_key(signer) {
                return Err(TrustError::PersonStranger { person: person.name, signer: signer.clone() });
            }
            if let Some(other) = self.people.iter().find(|other| other.signers.contains(signer)) {
                let (one, two) = (other.name.clone(), person.name);
                return Err(TrustError::TwoPeople { signer: signer.clone(), one, two });
            }
        }
        self.people.push(person);
        Ok(())
    }

    fn add_group(&mut self, group: GroupRule) -> Result<(), TrustError> {
        if self.signers.contains_key(&group.name) || self.groups.contains_key(&group.name) {
            return Err(TrustError::SameName { name: group.name });
        }
        check_types(&group.name, &group.roles, group.predicate_types.as_ref())?;
        let fault = |reason: String| Err(TrustError::Group { group: group.name.clone(), reason });
        if group.roles.iter().ne([&Role::Manual]) {
            return fault(format!("a group has the role manual, this one: {}", role_names(&group.roles)));
        }
        for name in &group.of {
            let Some(member) = self.signers.get(name) else {
                return fault(format!("of: {name:?} is no signer with a key"));
            };
            let own = member.predicate_types.iter().flatten().find(|kind| {
                roles_for(&member.roles, None, kind).iter().any(|role| group.roles_for(kind).contains(role))
            });
            if let Some(kind) = own {
                return Err(TrustError::OwnWord { group: group.name, signer: name.clone(), predicate: kind.clone() });
            }
        }
        let distinct = group.of.iter().map(|name| self.identity(name)).collect::<BTreeSet<_>>().len();
        if group.threshold < 2 || group.threshold > distinct {
            return fault(format!(
                "threshold {}: it lies between 2 and the number of distinct identities among its signers, {distinct}",
                group.threshold
            ));
        }
        self.groups.insert(group.name.clone(), group);
        Ok(())
    }
}

impl GroupRule {
    /// The roles in which this group says this type.
    pub(crate) fn roles_for(&self, predicate: &PredicateType) -> BTreeSet<Role> {
        roles_for(&self.roles, self.predicate_types.as_ref(), predicate)
    }
}

/// A listed type that no role may sign would silently do nothing.
fn check_types(name: &str, roles: &BTreeSet<Role>, listed: Option<&BTreeSet<PredicateType>>) -> Result<(), TrustError> {
    match listed.into_iter().flatten().find(|kind| !roles.iter().any(|role| role.may_sign(kind))) {
        Some(kind) => {
            Err(TrustError::IdleType { signer: name.to_owned(), predicate: kind.clone(), roles: role_names(roles) })
        }
        None => Ok(()),
    }
}

/// Why signers can't be trusted together.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Two names for one key: roles could no longer be told apart.
    #[error("signers {one} and {two} have the same key: every role needs a key of its own")]
    SameKey {
        /// One.
        one: String,
        /// The other.
        two: String,
    },
    /// One name for two signers or groups.
    #[error("signers.{name}: two signers are called so")]
    SameName {
        /// The name.
        name: String,
    },
    /// Nobody.
    #[error("no signer is trusted, so nothing could be verified")]
    NoSigner,
    /// A revocation that would silently do nothing.
    #[error("revoked names {signer:?}, which is no signer of this file")]
    RevokedStranger {
        /// The name.
        signer: String,
    },
    /// A listed type that would silently do nothing.
    #[error("signers.{signer}.predicate_types: {predicate}: none of its roles may sign it; its roles are {roles}")]
    IdleType {
        /// The signer or group.
        signer: String,
        /// What it lists.
        predicate: PredicateType,
        /// The roles it has.
        roles: String,
    },
    /// A member that lists what it may say only together with others.
    #[error(
        "signers.{signer}.predicate_types: {predicate}: {signer} says this only towards the threshold of {group}; leave it out here"
    )]
    OwnWord {
        /// The group.
        group: String,
        /// The member.
        signer: String,
        /// The type.
        predicate: PredicateType,
    },
    /// A group that can't be.
    #[error("signers.{group}: {reason}")]
    Group {
        /// The group.
        group: String,
        /// Why not.
        reason: String,
    },
    /// A person with a signer that is none.
    #[error("people.{person}: {signer:?} is no signer with a key")]
    PersonStranger {
        /// The person.
        person: String,
        /// The name.
        signer: String,
    },
    /// One key of two people: neither could be held to it.
    #[error("people.{two}: the signer {signer} is {one}'s already")]
    TwoPeople {
        /// The signer.
        signer: String,
        /// One.
        one: String,
        /// The other.
        two: String,
    },
}
