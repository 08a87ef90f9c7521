//! The arrow between our own crates, and which crate may name which engine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use xtask::json::Json;

/// What each of our crates may name of our own, in its normal dependencies. This list is the arrow: it changes when the design does.
const ARROW: [(&str, &[&str]); 21] = [
    // Nothing but tests, and what they share.
    ("integration", &["sluicegate-testkit", "sluicegate-types", "xtask"]),
    ("sluicegate-attestation", &["sluicegate-types"]),
    (
        "sluicegate-cli",
        &[
            "sluicegate-attestation",
            "sluicegate-evidence",
            "sluicegate-flow",
            "sluicegate-outbound",
            "sluicegate-pipeline",
            "sluicegate-policy",
            "sluicegate-ports",
            "sluicegate-registry",
            "sluicegate-runner",
            "sluicegate-scan",
            "sluicegate-server",
            "sluicegate-shared",
            "sluicegate-sigstore",
            "sluicegate-store",
            "sluicegate-types",
            "sluicegate-verify",
        ],
    ),
    ("sluicegate-evidence", &["sluicegate-ports", "sluicegate-types"]),
    (
        "sluicegate-flow",
        &[
            "sluicegate-attestation",
            "sluicegate-pipeline",
            "sluicegate-policy",
            "sluicegate-ports",
            "sluicegate-types",
            "sluicegate-verify",
        ],
    ),
    ("sluicegate-outbound", &["sluicegate-types"]),
    ("sluicegate-pipeline", &["sluicegate-types"]),
    ("sluicegate-policy", &["sluicegate-attestation", "sluicegate-types", "sluicegate-verify"]),
    ("sluicegate-ports", &["sluicegate-attestation", "sluicegate-types"]),
    ("sluicegate-registry", &["sluicegate-attestation", "sluicegate-outbound", "sluicegate-ports", "sluicegate-types"]),
    ("sluicegate-runner", &["sluicegate-ports", "sluicegate-types", "sluicegate-zstd"]),
    ("sluicegate-scan", &["sluicegate-attestation", "sluicegate-ports", "sluicegate-types", "sluicegate-zstd"]),
    ("sluicegate-server", &["sluicegate-attestation", "sluicegate-ports", "sluicegate-types"]),
    ("sluicegate-shared", &["sluicegate-outbound", "sluicegate-ports", "sluicegate-types"]),
    ("sluicegate-sigstore", &["sluicegate-attestation", "sluicegate-outbound", "sluicegate-ports", "sluicegate-types"]),
    ("sluicegate-store", &["sluicegate-ports", "sluicegate-types"]),
    ("sluicegate-testkit", &["sluicegate-attestation", "sluicegate-ports", "sluicegate-types"]),
    ("sluicegate-types", &[]),
    ("sluicegate-verify", &["sluicegate-attestation", "sluicegate-types"]),
    ("sluicegate-zstd", &[]),
    ("xtask", &[]),
];

/// Crates that decide and open nothing, and what their whole trees are therefore free of.
const PURE: [&str; 6] = [
    "sluicegate-types",
    "sluicegate-attestation",
    "sluicegate-pipeline",
    "sluicegate-verify",
    "sluicegate-policy",
    "sluicegate-zstd",
];
const IMPURE: [&str; 5] = ["tokio", "hyper", "reqwest", "rusqlite", "libcontainer"];

/// Engines, by the beginning of their crates' names, and who may name them.
const ENGINES: [(&str, &[&str]); 12] = [
    ("sigstore-", &["sluicegate-sigstore", "sluicegate-verify"]),
    ("regorus", &["sluicegate-policy"]),
    ("oci-client", &["sluicegate-registry"]),
    ("object_store", &["sluicegate-shared"]),
    ("ureq", &["sluicegate-outbound", "sluicegate-registry", "sluicegate-shared", "sluicegate-sigstore"]),
    ("rustls", &["sluicegate-outbound", "sluicegate-testkit"]),
    ("libcontainer", &["sluicegate-runner"]),
    ("rusqlite", &["sluicegate-evidence", "sluicegate-store"]),
    ("ruzstd", &["sluicegate-zstd"]),
    ("axum", &["sluicegate-server"]),
    ("hyper", &["sluicegate-server"]),
    (
        "tokio",
        &[
            "sluicegate-registry",
            "sluicegate-sigstore",
            "sluicegate-server",
            "sluicegate-shared",
            "sluicegate-flow",
            "sluicegate-cli",
            "sluicegate-testkit",
        ],
    ),
];

/// Each of our crates with the names of its direct dependencies.
type Names = BTreeMap<String, BTreeSet<String>>;

#[test]
fn our_crates_name_each_other_exactly_as_the_arrow_allows() {
    assert_eq!(differences_from_the_arrow(&direct_dependencies(), &ARROW), Vec::<String>::new());
}

#[test]
fn pure_crates_have_no_engine_and_no_network_anywhere_in_their_trees() {
    for pure in PURE {
        let tree = tree(pure);
        // An empty or foreign answer would be free of everything.
        assert!(tree.iter().any(|name| name == pure) && tree.len() > 1, "{pure}: {tree:?}");
        assert_eq!(forbidden_in(&tree, &IMPURE), Vec::<String>::new(), "in the tree of {pure}");
    }
}

#[test]
fn each_engine_is_named_only_where_it_belongs() {
    assert_eq!(engines_out_of_place(&direct_dependencies(), &ENGINES), Vec::<String>::new());
}

/// The feature that turns checks off is for tests: what is built for use has no switch, whatever features its packages have.
#[test]
fn no_build_for_use_can_turn_a_check_off() {
    let features = |arguments: &[&str]| {
        let tree = ["tree", "--prefix", "none", "--locked", "--all-features"];
        let listed = cargo(&[&tree[..], arguments].concat());
        assert!(listed.contains("sluicegate-types"), "{listed}");
        listed.contains("sluicegate-types feature \"switches\"")
    };
    assert!(features(&["--package", "sluicegate-flow", "--edges", "normal,dev,features"]), "tests have it");
    for package in ["sluicegate-cli", "sluicegate-flow", "sluicegate-runner"] {
        assert!(!features(&["--package", package, "--edges", "normal,build,features"]), "{package}");
    }
}

#[test]
fn the_checks_find_faults_in_made_up_lists() {
    let made_up = names(&[("a", &["b", "c", "tokio"]), ("b", &[]), ("d", &["regorus"])]);
    let arrow: [(&str, &[&str]); 3] = [("a", &["b"]), ("b", &["a"]), ("c", &[])];
    assert_eq!(
        differences_from_the_arrow(&made_up, &arrow),
        [
            "a names c, which the arrow does not allow",
            "b no longer names a",
            "c is no longer a crate",
            "d is not in the arrow"
        ]
    );
    let tree = ["serde", "tokio", "tokio-util", "hyper"].map(str::to_owned);
    assert_eq!(forbidden_in(&tree, &IMPURE), ["hyper", "tokio", "tokio-util"]);
    assert_eq!(forbidden_in(&["serde".to_owned(), "hyperloop".to_owned()], &IMPURE), Vec::<String>::new());
    assert_eq!(
        engines_out_of_place(&made_up, &[("regorus", &["a"]), ("tokio", &["a"])]),
        ["d names regorus, which is for a"]
    );
}

fn differences_from_the_arrow(found: &Names, arrow: &[(&str, &[&str])]) -> Vec<String> {
    let ours: BTreeSet<&str> = found.keys().map(String::as_str).chain(arrow.iter().map(|(name, _)| *name)).collect();
    let mut differences = Vec::new();
    for name in &ours {
        match (found.get(*name), arrow.iter().find(|(crate_name, _)| crate_name == name)) {
            (Some(named), Some((_, allowed))) => {
                let named: BTreeSet<&str> =
                    named.iter().map(String::as_str).filter(|other| ours.contains(other)).collect();
                let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
                let more = named.difference(&allowed);
                differences.extend(more.map(|other| format!("{name} names {other}, which the arrow does not allow")));
                differences.extend(allowed.difference(&named).map(|other| format!("{name} no longer names {other}")));
            }
            (Some(_), None) => differences.push(format!("{name} is not in the arrow")),
            (None, _) => differences.push(format!("{name} is no longer a crate")),
        }
    }
    differences
}

/// The names in `tree` that are one of `banned` or a part of its family (`tokio-util`).
fn forbidden_in(tree: &[String], banned: &[&str]) -> Vec<String> {
    let is_banned = |name: &str| {
        banned.iter().any(|ban| name == *ban || name.strip_prefix(ban).is_some_and(|rest| rest.starts_with('-')))
    };
    let found: BTreeSet<&String> = tree.iter().filter(|name| is_banned(name)).collect();
    found.into_iter().cloned().collect()
}

fn engines_out_of_place(found: &Names, engines: &[(&str, &[&str])]) -> Vec<String> {
    let mut faults = Vec::new();
    for (crate_name, named) in found {
        for name in named {
            for (engine, allowed) in engines {
                if name.starts_with(engine) && !allowed.contains(&crate_name.as_str()) {
                    faults.push(format!("{crate_name} names {name}, which is for {}", allowed.join(", ")));
                }
            }
        }
    }
    faults
}

fn names(list: &[(&str, &[&str])]) -> Names {
    list.iter().map(|(name, named)| ((*name).to_owned(), named.iter().map(|n| (*n).to_owned()).collect())).collect()
}

/// The normal dependencies that the manifests of this workspace declare, on every platform and with every feature.
fn direct_dependencies() -> Names {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked"]);
    let metadata = Json::parse(&metadata).unwrap();
    let text = |value: &Json, key: &str| value.get(key).as_text().unwrap_or_default().to_owned();
    let packages = metadata.get("packages").list();
    assert!(!packages.is_empty());
    packages
        .iter()
        .map(|package| {
            let normal =
                package.get("dependencies").list().iter().filter(|dependency| *dependency.get("kind") == Json::Null);
            (text(package, "name"), normal.map(|dependency| text(dependency, "name")).collect())
        })
        .collect()
}

/// Every crate in the normal dependency tree of `package`, itself included.
fn tree(package: &str) -> Vec<String> {
    let listed =
        cargo(&["tree", "--edges", "normal", "--package", package, "--prefix", "none", "--format", "{p}", "--locked"]);
    listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
