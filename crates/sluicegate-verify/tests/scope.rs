//! For which repositories a signer speaks, and whose decisions count (trust model 6 and 7).

use std::collections::BTreeSet;

use sluicegate_testkit::VirtualLog;
use sluicegate_types::{Digest, Repository, RepositoryPattern};
use sluicegate_verify::{GroupRule, Role, SignerRule, Trust, TrustRoot, TrustRules};

use crate::world::{LOG, rule};

fn trust(rules: TrustRules) -> Trust {
    Trust::from_rules(rules, TrustRoot::parse(&VirtualLog::new(LOG).trusted_root_json()).unwrap()).unwrap()
}

/// Which of production, staging and a place without a name a signer of these roles and repositories covers.
fn covered(roles: &[Role], repositories: Option<&[&str]>) -> [bool; 3] {
    let repositories = repositories.map(|list| list.iter().map(|text| text.parse().unwrap()).collect());
    let trust = trust(TrustRules {
        signers: vec![SignerRule { repositories, ..rule("signer", roles) }],
        ..TrustRules::default()
    });
    let [production, staging] =
        ["production", "staging"].map(|name| Repository::of_environment(&name.parse().unwrap()));
    assert!(!trust.covers("stranger", Some(&production)) && !trust.covers("stranger", None));
    [Some(&production), Some(&staging), None].map(|repository| trust.covers("signer", repository))
}

#[test]
fn tm06_a_signer_speaks_about_the_repositories_that_are_listed() {
    for roles in
        [&[Role::Steps][..], &[Role::Manual], &[Role::Decisions], &[Role::Records], &[Role::Steps, Role::Records]]
    {
        assert_eq!(covered(roles, Some(&["*"])), [true, true, true], "{roles:?}");
        assert_eq!(covered(roles, Some(&["oci:production"])), [true, false, false], "{roles:?}");
        assert_eq!(covered(roles, Some(&["oci:production", "oci:staging"])), [true, true, false], "{roles:?}");
        assert_eq!(covered(roles, Some(&["oci:production/*", "oci:PRODUCTION"])), [false, false, false], "{roles:?}");
        assert_eq!(covered(roles, Some(&[])), [false, false, false], "{roles:?}");
    }
}

#[test]
fn tm06_repositories_that_are_left_out_allow_nothing_where_nothing_else_narrows() {
    for roles in [&[Role::Steps][..], &[Role::Manual], &[Role::Steps, Role::Records], &[Role::Manual, Role::Decisions]]
    {
        assert_eq!(covered(roles, None), [false, false, false], "{roles:?}");
    }
    // Environments and verifier ids narrow these.
    for roles in [&[Role::Decisions][..], &[Role::Records]] {
        assert_eq!(covered(roles, None), [true, true, true], "{roles:?}");
    }
    assert_eq!(covered(&[], None), [false, false, false], "no role, no word");
}

#[test]
fn tm06_a_group_speaks_about_its_own_repositories_whatever_its_signers_have() {
    let with = |repositories: Option<Vec<RepositoryPattern>>| {
        let group = GroupRule {
            name: "vexers".to_owned(),
            threshold: 2,
            of: ["alice", "bob"].map(str::to_owned).into(),
            roles: BTreeSet::from([Role::Manual]),
            predicate_types: None,
            repositories,
        };
        let signers = vec![rule("alice", &[]), rule("bob", &[])];
        trust(TrustRules { signers, groups: vec![group], ..TrustRules::default() })
    };
    let production = Repository::of_environment(&"production".parse().unwrap());
    assert!(with(Some(vec![RepositoryPattern::Any])).covers("vexers", Some(&production)));
    assert!(!with(Some(vec!["oci:staging".parse().unwrap()])).covers("vexers", Some(&production)));
    assert!(!with(None).covers("vexers", Some(&production)));
}

#[test]
fn tm07_a_judge_of_ones_own_choice_counts_only_where_trust_says_so() {
    let (listed, other) = (Digest::of(b"gateway"), Digest::of(b"another gateway"));
    let with = |authority_self: bool, gateways: &[Digest]| {
        trust(TrustRules {
            signers: vec![rule("decider", &[Role::Decisions])],
            gateways: gateways.iter().copied().collect(),
            authority_self,
            ..TrustRules::default()
        })
    };
    assert!(!with(false, &[]).accepts_authority("self", &listed));
    assert!(with(true, &[]).accepts_authority("self", &listed));
    assert!(with(false, &[listed]).accepts_authority("self", &listed));
    assert!(!with(false, &[listed]).accepts_authority("self", &other));
    for word in ["", "Self", "SELF", "self ", "gateway", "listed"] {
        assert!(!with(true, &[listed]).accepts_authority(word, &listed), "{word:?}");
    }
}
