//! Real programs of others, from where they are really kept: a C program from its distribution's source package, and a tree of npm
//! packages by its lock file. Both are built, tested, judged and promoted, and built once more elsewhere to the same digests.

mod debian;
mod npm_registry;

use std::{fs, os::unix::fs::symlink, path::Path};

use integration::{Project, WITHOUT_COMMIT_ACCEPTED, ready};
use serde_json::{Value, json};

use self::{
    debian::{Debian, Image},
    npm_registry::NpmRegistry,
};

/// What a program of Debian stands on: the essential packages.
const BASE: Image = Image { name: "base", packages: &[], without: &[], user: None };
const BUILD: Image = Image {
    name: "build",
    packages: &["gcc", "libc6-dev", "make"],
    // Optimisation at link time, and what watches programs while they run.
    without: &["/usr/bin/*lto-dump*", "/usr/lib/gcc/*/lto*", "/usr/lib/*/lib[alt]san.*", "/usr/lib/*/libubsan.*"],
    user: None,
};
const NODE: Image = Image {
    name: "node",
    packages: &["ca-certificates", "nodejs", "npm", "passwd"],
    // What npm's own packages are developed with.
    without: &[
        "/usr/share/nodejs/@types/*",
        "/usr/share/nodejs/@webassemblyjs/*",
        "/usr/share/nodejs/caniuse-lite/*",
        "/usr/share/nodejs/core-js*/*",
        "/usr/share/nodejs/es-abstract/*",
        "/usr/share/nodejs/lodash*/*",
        "/usr/share/nodejs/regenerate-unicode-properties/*",
        "/usr/share/nodejs/web-streams-polyfill/*",
    ],
    user: Some("node"),
};

/// A project with the files of a folder beside this one, in which images have been laid.
fn project(name: &str, debian: &Debian, images: &[&Image], base: &str) -> Project {
    let project = Project::prepared();
    fs::remove_dir_all(project.path("src")).unwrap();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_input").join(name);
    debian::done(std::process::Command::new("cp").arg("-aT").arg(files).arg(project.path(".")));
    // Those of this machine's own packages give way.
    fs::remove_dir_all(project.path("images")).unwrap();
    fs::create_dir(project.path("images")).unwrap();
    for image in images {
        symlink(debian.image(image), project.path("images").join(image.name)).unwrap();
    }
    project.must(&["init", "--allow-base", base]);
    assert!(fs::read_to_string(project.path("policies/data.yaml")).unwrap().contains(WITHOUT_COMMIT_ACCEPTED));
    // Whoever admits here takes decisions of this very project.
    project.replace("trust/trust.yaml", "authority_self: false", "authority_self: true");
    project
}

/// Runs the pipeline: the digests of all outputs of all steps, and of its image.
fn run(project: &Project, arguments: &[&str]) -> (Value, Value) {
    let (code, run) = project.json(arguments);
    assert_eq!(code, 0, "{run:#}");
    let outputs = run["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["step"].as_str().unwrap().to_owned(), step["outputs"].clone()));
    (Value::Object(outputs.collect()), run["images"][0]["digest"].clone())
}

/// What a command prints in the image that was promoted.
fn promoted_says(project: &Project, command: &str) -> String {
    let text =
        format!("version: 1\nname: use\nsteps: {{ use: {{ image: \"oci:env/production\", run: {command} }} }}\n");
    fs::write(project.path("use.yaml"), text).unwrap();
    project.must(&["run", "--no-scan", "-f", "use.yaml"]);
    project.log("use")
}

#[test]
fn a_c_program_of_the_distribution_is_built_tested_and_promoted_and_comes_out_the_same_elsewhere() {
    const TEST: &str = "a_c_program_of_the_distribution_is_built_tested_and_promoted_and_comes_out_the_same_elsewhere";
    if !ready(TEST) {
        return;
    }
    let Some(debian) = Debian::of_this_machine(TEST) else { return };
    let project = project("mawk", &debian, &[&BASE, &BUILD], "oci:images/base");
    debian.unpack_source("mawk", &project.path("mawk"));
    let elsewhere = project.copy();

    let here = run(&project, &["run"]);
    let tests = project.json(&["logs", "LAST"]).1["steps"][1]["testResult"].clone();
    assert!(tests.is_string(), "{tests}");
    project.sluicegate(&["promote", "oci:out/mawk", "--to", "production"]).assert(0, "ALLOWED");
    project.must(&["verify", "oci:env/production", "--for", "production"]);
    assert_eq!(promoted_says(&project, "[/usr/local/bin/mawk, 'BEGIN { print 6 * 7 }']"), "42\n");

    assert_eq!(run(&elsewhere, &["run", "--no-scan", "--no-cache"]), here);

    // The same program, of which nothing but the tests is run again, on one that does nothing.
    project.replace("sluicegate.yaml", "MAWK: /built/mawk", "MAWK: /bin/false");
    project.must(&["run"]);
    let denied = project.sluicegate(&["promote", "oci:out/mawk", "--to", "production"]);
    denied.assert(1, "input and field splitting");
}

#[test]
fn a_lock_file_of_npm_is_installed_by_the_proxy_and_comes_out_the_same_elsewhere() {
    const TEST: &str = "a_lock_file_of_npm_is_installed_by_the_proxy_and_comes_out_the_same_elsewhere";
    if !ready(TEST) {
        return;
    }
    let (Some(debian), Some(registry)) = (Debian::of_this_machine(TEST), NpmRegistry::of_this_machine(TEST)) else {
        return;
    };
    let mut project = project("greeter", &debian, &[&NODE], "oci:images/node");
    let as_it_was = fs::read_to_string(project.path("sluicegate.yaml")).unwrap();
    registry.introduce(&mut project);
    let set = format!("registry={}", registry.url);
    let elsewhere = project.copy();

    let here = run(&project, &["run", "--set", &set]);
    let (host, port) = registry.server.rsplit_once(':').unwrap();
    let contacts = project.provenance("install")["buildDefinition"]["internalParameters"]["contacts"].clone();
    let contacts = contacts.as_array().unwrap();
    assert!(contacts.len() == 1 && contacts[0]["refused"].is_null(), "{contacts:#?}");
    assert_eq!(contacts[0]["destination"], json!(format!("{host}:{port}")));
    assert!(contacts[0]["received"].as_u64().unwrap() > 100_000, "{contacts:#?}");
    project.sluicegate(&["promote", "oci:out/greeter", "--to", "production"]).assert(0, "ALLOWED");
    project.must(&["verify", "oci:env/production", "--for", "production"]);
    let greets = "[node, -e, \"console.log(typeof require('/srv/greeter/server.js').greeter())\"]";
    assert_eq!(promoted_says(&project, greets), "function\n");

    assert_eq!(run(&elsewhere, &["run", "--no-scan", "--no-cache", "--set", &set]), here);

    // The same step, of which the pipeline lists another server.
    fs::write(elsewhere.path("sluicegate.yaml"), as_it_was.replace("[\"REGISTRY\"]", "[\"registry.invalid:443\"]"))
        .unwrap();
    let refused = elsewhere.sluicegate(&["run", "--no-scan", "--no-cache", "--set", &set, "install"]);
    refused.assert(6, &format!("step install was refused {}: it is not in the step's list", registry.server));
}
