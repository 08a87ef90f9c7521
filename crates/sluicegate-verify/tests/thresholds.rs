//! Several must say the same: what adds up, and what never does (trust model 6).

use std::collections::BTreeSet;

use serde_json::json;
use sluicegate_attestation::{predicate::PredicateType, statement::Statement};
use sluicegate_testkit::{VirtualLog, VirtualSigner, sign_statement, today};
use sluicegate_types::RepositoryPattern;
use sluicegate_verify::{
    Error, GroupRule, Person, Revocation, Role, SignerRule, Trust, TrustError, TrustRoot, TrustRules,
    VerifiedStatement,
    threshold::{Endorsed, endorsed},
    verify,
};

use crate::world::{LOG, about_image, rule, sbom};

fn vex(text: &str) -> Statement {
    about_image(PredicateType::Vex, json!({"@context": "https://openvex.dev/ns/v0.2.0", "statements": [text]}))
}

/// Two of alice, bob and anna say what is not affected; carol is nobody's member.
fn vexers() -> GroupRule {
    GroupRule {
        name: "vexers".to_owned(),
        threshold: 2,
        of: ["alice", "bob", "anna"].map(str::to_owned).into(),
        roles: BTreeSet::from([Role::Manual]),
        predicate_types: Some(BTreeSet::from([PredicateType::Vex])),
        repositories: Some(vec![RepositoryPattern::Any]),
    }
}

fn person(name: &str, signers: &[&str]) -> Person {
    let signers = signers.iter().map(|signer| (*signer).to_owned()).collect();
    Person { name: name.to_owned(), emails: BTreeSet::new(), signers }
}

fn rules() -> TrustRules {
    TrustRules {
        signers: vec![
            rule("alice", &[Role::Manual]),
            rule("anna", &[]),
            rule("bob", &[]),
            rule("carol", &[Role::Manual]),
            rule("dora", &[Role::Records]),
        ],
        groups: vec![vexers()],
        untimed: BTreeSet::from([LOG.to_owned()]),
        ..TrustRules::default()
    }
}

fn trust_of(rules: TrustRules) -> Result<Trust, TrustError> {
    let root = TrustRoot::parse(&VirtualLog::new(LOG).trusted_root_json()).unwrap();
    Trust::from_rules(rules, root)
}

/// One log with what each of them said, each verified under `rules`.
fn said(rules: TrustRules, by: &[(&str, &Statement)]) -> (Trust, Vec<Result<VerifiedStatement, Error>>) {
    let log = VirtualLog::new(LOG);
    let trust = trust_of(rules).unwrap();
    let statements = by
        .iter()
        .map(|(signer, statement)| {
            verify(&sign_statement(&VirtualSigner::new(signer), &log, statement), &trust, today())
        })
        .collect();
    (trust, statements)
}

fn adds_up(rules: TrustRules, by: &[(&str, &Statement)]) -> Vec<Endorsed> {
    let (trust, statements) = said(rules, by);
    endorsed(&statements.into_iter().map(Result::unwrap).collect::<Vec<_>>(), &trust, None)
}

#[test]
fn tm06_what_a_member_says_for_its_group_is_not_its_own_word() {
    let alone = TrustRules { groups: Vec::new(), ..rules() };
    let alone = TrustRules { signers: alone.signers.into_iter().filter(|s| !s.roles.is_empty()).collect(), ..alone };
    let (_, said_alone) = said(alone, &[("alice", &vex("x"))]);
    let own = said_alone.into_iter().next().unwrap().unwrap();
    assert!(own.is_in_role(Role::Manual) && own.endorses().is_empty());

    let (_, statements) = said(rules(), &[("alice", &vex("x")), ("bob", &vex("x"))]);
    for statement in statements {
        let statement = statement.unwrap();
        for role in [Role::Steps, Role::Decisions, Role::Records, Role::Manual] {
            assert!(!statement.is_in_role(role), "{}: {role}", statement.signer());
        }
        assert_eq!(statement.endorses(), &BTreeSet::from(["vexers".to_owned()]));
    }
    // What the group does not say stays alice's own; carol is no member.
    let (_, others) = said(rules(), &[("alice", &sbom()), ("carol", &vex("x"))]);
    for statement in others {
        let statement = statement.unwrap();
        assert!(statement.is_in_role(Role::Manual) && statement.endorses().is_empty());
    }
    let (_, others) = said(rules(), &[("bob", &sbom()), ("dora", &vex("x"))]);
    let texts: Vec<String> = others.into_iter().map(|other| other.unwrap_err().to_string()).collect();
    assert_eq!(texts, ["bob may not sign sbom: its roles are none", "dora may not sign vex: its roles are records"]);
}

#[test]
fn tm06_enough_members_over_the_same_bytes_are_the_groups_word() {
    let (x, y) = (vex("x"), vex("y"));
    let by = [("bob", &x), ("carol", &x), ("alice", &x), ("alice", &y), ("alice", &sbom())];
    let word = adds_up(rules(), &by);
    let [word] = word.as_slice() else { panic!("one: {word:?}") };
    assert_eq!((word.group(), word.by()), ("vexers", ["alice".to_owned(), "bob".to_owned()].as_slice()));
    assert!(word.is_in_role(Role::Manual) && !word.is_in_role(Role::Steps));
    assert_eq!(word.statement().statement().predicate, x.predicate);
    // All three of them, for both.
    let by = [("bob", &y), ("anna", &y), ("alice", &y), ("bob", &x), ("anna", &x)];
    let words = adds_up(rules(), &by);
    let mut counts: Vec<usize> = words.iter().map(|word| word.by().len()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 3]);
    // A threshold of three is not reached by two.
    let three = TrustRules { groups: vec![GroupRule { threshold: 3, ..vexers() }], ..rules() };
    assert_eq!(adds_up(three.clone(), &by[..3]).len(), 1);
    assert_eq!(adds_up(three, &by[1..3]).len(), 0);
}

#[test]
fn tm06_one_signer_one_person_and_different_words_never_add_up() {
    let x = vex("x");
    let nothing = |rules: TrustRules, by: &[(&str, &Statement)]| {
        assert!(adds_up(rules, by).is_empty(), "{:?}", by.iter().map(|(signer, _)| signer).collect::<Vec<_>>());
    };
    assert_eq!(adds_up(rules(), &[("alice", &x), ("bob", &x)]).len(), 1);
    nothing(rules(), &[]);
    nothing(rules(), &[("alice", &x)]);
    nothing(rules(), &[("alice", &x), ("alice", &x), ("alice", &x)]);
    nothing(rules(), &[("alice", &x), ("carol", &x)]);
    nothing(rules(), &[("alice", &x), ("bob", &vex("y"))]);
    // Equal as JSON is not enough: another subject is another statement.
    let mut elsewhere = x.clone();
    elsewhere.subjects = sluicegate_types::NonEmpty::one(sluicegate_attestation::statement::Subject {
        digest: sluicegate_types::Digest::of(b"another image"),
        ..x.subjects.first().clone()
    });
    nothing(rules(), &[("alice", &x), ("bob", &elsewhere)]);

    assert_eq!(adds_up(rules(), &[("alice", &x), ("anna", &x)]).len(), 1);
    let one_person = || TrustRules { people: vec![person("alice", &["alice", "anna"])], ..rules() };
    nothing(one_person(), &[("alice", &x), ("anna", &x)]);
    let word = adds_up(one_person(), &[("anna", &x), ("alice", &x), ("bob", &x)]);
    assert_eq!(word[0].by(), ["alice", "bob"], "one of each person");
    // A person and a signer of one name are two: the person called alice has another key than the signer called alice.
    let two_people = TrustRules { people: vec![person("alice", &["anna"]), person("bob", &["bob"])], ..rules() };
    assert_eq!(adds_up(two_people, &[("alice", &x), ("anna", &x)]).len(), 1);
}

#[test]
fn tm06_a_revoked_member_does_not_count() {
    let x = vex("x");
    let by = [("alice", &x), ("bob", &x)];
    let revoking = |before: Option<u64>| {
        let before = before.map(|size| (LOG.to_owned(), size));
        TrustRules { revoked: vec![Revocation { signer: "bob".to_owned(), before }], ..rules() }
    };
    // Bob's is the entry with index 1.
    assert_eq!(adds_up(revoking(Some(2)), &by).len(), 1);
    for before in [Some(1), None] {
        let (trust, statements) = said(revoking(before), &by);
        assert!(matches!(&statements[1], Err(Error::Revoked { signer, .. }) if signer == "bob"));
        // Nor does what was verified before bob was revoked.
        let (_, earlier) = said(rules(), &by);
        let earlier: Vec<_> = earlier.into_iter().map(Result::unwrap).collect();
        assert_eq!(endorsed(&earlier, &trust_of(rules()).unwrap(), None).len(), 1);
        assert!(endorsed(&earlier, &trust, None).is_empty());
    }
}

#[test]
fn tm06_what_was_verified_under_another_trust_counts_only_as_far_as_this_one_goes() {
    let (_, statements) = said(rules(), &[("alice", &vex("x")), ("bob", &vex("x"))]);
    let statements: Vec<_> = statements.into_iter().map(Result::unwrap).collect();
    let count = |rules: TrustRules| endorsed(&statements, &trust_of(rules).unwrap(), None).len();
    assert_eq!(count(rules()), 1);
    let without_bob = GroupRule { of: ["alice", "anna"].map(str::to_owned).into(), ..vexers() };
    assert_eq!(count(TrustRules { groups: vec![without_bob], ..rules() }), 0);
    let another_type = GroupRule { predicate_types: Some(BTreeSet::from([PredicateType::Sbom])), ..vexers() };
    assert_eq!(count(TrustRules { groups: vec![another_type], ..rules() }), 0);
    assert_eq!(count(TrustRules { groups: vec![GroupRule { name: "others".to_owned(), ..vexers() }], ..rules() }), 0);
    let mut another_key = rules();
    another_key.signers[2].public_key = rule("bob's new key", &[]).public_key;
    assert_eq!(count(another_key), 0);
}

#[test]
fn tm06_groups_and_people_that_would_mean_something_else_than_they_say_are_refused() {
    let group = |group: GroupRule| TrustRules { groups: vec![group], ..rules() };
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let listing = |types: &[PredicateType]| {
        let mut rules = rules();
        rules.signers[0] =
            SignerRule { predicate_types: Some(types.iter().cloned().collect()), ..rules.signers[0].clone() };
        rules
    };
    let people = |people: &[Person]| TrustRules { people: people.to_vec(), ..rules() };
    for good in [
        rules(),
        listing(&[PredicateType::Sbom]),
        group(GroupRule { threshold: 3, ..vexers() }),
        group(GroupRule { predicate_types: None, ..vexers() }),
        people(&[person("alice", &["alice", "anna"]), person("bob", &["bob"])]),
    ] {
        trust_of(good).unwrap();
    }
    for (bad, says) in [
        (group(GroupRule { threshold: 1, ..vexers() }), "signers.vexers: threshold 1: it lies between 2 and"),
        (group(GroupRule { threshold: 4, ..vexers() }), "signers.vexers: threshold 4"),
        (group(GroupRule { of: of(&["alice", "erin"]), ..vexers() }), "of: \"erin\" is no signer with a key"),
        (group(GroupRule { of: of(&[]), ..vexers() }), "signers.vexers: threshold 2"),
        (group(GroupRule { name: "alice".to_owned(), ..vexers() }), "signers.alice: two signers are called so"),
        (TrustRules { groups: vec![vexers(), vexers()], ..rules() }, "signers.vexers: two signers are called so"),
        (
            group(GroupRule { roles: BTreeSet::new(), predicate_types: None, ..vexers() }),
            "signers.vexers: a group has the role manual, this one: none",
        ),
        (
            group(GroupRule { roles: BTreeSet::from([Role::Records]), predicate_types: None, ..vexers() }),
            "signers.vexers: a group has the role manual, this one: records",
        ),
        (
            group(GroupRule { predicate_types: Some(BTreeSet::from([PredicateType::Provenance])), ..vexers() }),
            "signers.vexers.predicate_types: provenance: none of its roles may sign it; its roles are manual",
        ),
        (
            listing(&[PredicateType::Vex, PredicateType::Sbom]),
            "signers.alice.predicate_types: vex: alice says this only towards the threshold of vexers",
        ),
        (
            TrustRules { revoked: vec![Revocation { signer: "vexers".to_owned(), before: None }], ..rules() },
            "revoked names \"vexers\", which is no signer",
        ),
        (
            TrustRules {
                people: vec![person("a", &["alice", "anna"])],
                ..group(GroupRule { threshold: 3, ..vexers() })
            },
            "distinct identities among its signers, 2",
        ),
        (people(&[person("alice", &["vexers"])]), "people.alice: \"vexers\" is no signer with a key"),
        (people(&[person("a", &["alice"]), person("b", &["alice"])]), "people.b: the signer alice is a's already"),
    ] {
        let error = trust_of(bad).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
}
