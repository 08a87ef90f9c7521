//! What groups say: the same bytes, signed by enough of their signers.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_types::{
    Digest, Repository,
    checks::{Check, is_on},
};

use crate::{Role, Trust, VerifiedStatement};

/// A statement that enough distinct identities of a group signed. Only [`endorsed`] makes one.
#[derive(Clone, Debug)]
pub struct Endorsed {
    group: String,
    roles: BTreeSet<Role>,
    statement: VerifiedStatement,
    bundles: Vec<Digest>,
    by: Vec<String>,
}

impl Endorsed {
    /// The group whose word it is.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Whether the group says it in this role.
    pub fn is_in_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// What was said: the one of its bundles with the smallest digest.
    pub fn statement(&self) -> &VerifiedStatement {
        &self.statement
    }

    /// Every bundle that was counted, sorted: whoever counts anew needs them all.
    pub fn bundles(&self) -> &[Digest] {
        &self.bundles
    }

    /// The signers that were counted, one of each identity, sorted.
    pub fn by(&self) -> &[String] {
        &self.by
    }
}

/// What the groups of `trust` say about `repository` among these statements, sorted by group and payload.
///
/// Statements add up only if their payloads are the same bytes. One signer counts once, and so do the signers of one person;
/// who is revoked, who is no member, whose key is another by now, and whose own `repositories` leave this one out, does not count.
pub fn endorsed(statements: &[VerifiedStatement], trust: &Trust, repository: Option<&Repository>) -> Vec<Endorsed> {
    let mut heaps: BTreeMap<(&str, Digest), Vec<&VerifiedStatement>> = BTreeMap::new();
    for statement in statements {
        let (signer, kind) = (statement.signer(), &statement.statement().predicate_type);
        let same_key = trust.signer_by_hint(statement.key_id()).is_some_and(|rule| rule.name == signer);
        let narrowed = is_on(Check::MemberRepositories) && !trust.lets_join_in(signer, repository);
        if !same_key || narrowed || trust.revocation(signer, statement.log()).is_some() {
            continue;
        }
        let groups = trust.groups_of(signer, kind).filter(|group| statement.endorses().contains(&group.name));
        for group in groups.filter(|group| trust.covers(&group.name, repository)) {
            heaps.entry((&group.name, statement.payload())).or_default().push(statement);
        }
    }
    let of_heap = |((name, _), mut heap): ((&str, Digest), Vec<&VerifiedStatement>)| {
        let group = trust.group(name)?;
        heap.sort_by_key(|statement| (statement.bundle(), statement.signer()));
        let mut by = BTreeMap::new();
        for statement in &heap {
            let counted: &mut &str = by.entry(trust.identity(statement.signer())).or_insert(statement.signer());
            *counted = (*counted).min(statement.signer());
        }
        let first = heap.first()?;
        if is_on(Check::Threshold) && by.len() < group.threshold {
            return None;
        }
        let mut by: Vec<String> = by.into_values().map(str::to_owned).collect();
        by.sort();
        let bundles: BTreeSet<Digest> = heap.iter().map(|statement| statement.bundle()).collect();
        Some(Endorsed {
            group: name.to_owned(),
            roles: group.roles_for(&first.statement().predicate_type),
            statement: (*first).clone(),
            bundles: bundles.into_iter().collect(),
            by,
        })
    };
    heaps.into_iter().filter_map(of_heap).collect()
}
