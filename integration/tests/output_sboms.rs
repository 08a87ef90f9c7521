//! What a run says of the outputs of its steps: the packages that the scanner knows there, and each file by its own hash.

use std::{collections::BTreeMap, fs, path::Path};

use integration::{Layout, Project, peer, ready};
use serde_json::Value;
use sluicegate_types::Digest;

const SBOM: &str = "https://cyclonedx.org/bom";
const VULNS: &str = "https://in-toto.io/attestation/vulns/v0.2";

/// Python and npm packages with a file that no package lists, records that are broken, and names that look like more than they are.
const SITE: [(&str, &str); 8] = [
    ("h11-0.16.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: h11\nVersion: 0.16.0\nLicense: MIT\n\nHTTP\n"),
    ("h11-0.16.0.dist-info/RECORD", "h11/__init__.py,,\n"),
    ("h11/__init__.py", "import h11\n"),
    ("h11/unlisted.py", "import os\n"),
    ("node_modules/left-pad/package.json", r#"{"name": "left-pad", "version": "1.3.0", "license": "WTFPL"}"#),
    ("node_modules/broken/package.json", "{\"name\": "),
    ("nameless-1.dist-info/METADATA", "Version: 1\n"),
    ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
];

/// A file that the scanner knows by its name alone.
const LOCK: &str = "version = 3\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n";

/// A project whose output `package.pack` is this folder, and whose outputs `package.one` and `package.plain` are this file by its name and
/// by another one.
fn project() -> Project {
    let project = Project::prepared();
    for (path, text) in SITE {
        let path = project.path("src/site").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::write(project.path("src/lock"), LOCK).unwrap();
    project.replace("sluicegate.yaml", "cp /src/hello.txt /out/app/", "cp -r /src/. /out/app/");
    project.replace("sluicegate.yaml", "cp -r /app/. /out/pack/", "cp -r /app/site/. /out/pack/");
    project.replace(
        "sluicegate.yaml",
        "cat /app/hello.txt > /out/one",
        "cp /app/lock /out/Cargo.lock && cp /app/lock /out/plain",
    );
    project.replace("sluicegate.yaml", "one: /out/one }", "one: /out/Cargo.lock, plain: /out/plain }");
    // A second image of the same steps, and an output with the content of another one.
    let pipeline = fs::read_to_string(project.path("sluicegate.yaml")).unwrap();
    let (_, tiny) = pipeline.split_once("  tiny:\n").unwrap();
    let second = format!("{pipeline}  second:\n{}", tiny.replace("oci:out/tiny", "oci:out/second"));
    let second = second.replace("outputs: { app: /out/app }", "outputs: { app: /out/app, same: /out/same }");
    let second = second.replace("chmod 700 /out/app", "chmod 700 /out/app && cp -a /out/app /out/same");
    fs::write(project.path("sluicegate.yaml"), second).unwrap();
    project
}

/// The SBOMs of what steps left, by the name of the output.
fn sboms(project: &Project, image: &str) -> BTreeMap<String, Value> {
    let layout = Layout::at(project.path(image));
    let (_, evidence) = layout.evidence();
    let bundles = evidence["layers"].as_array().unwrap().iter().filter(|part| part["mediaType"] == integration::BUNDLE);
    bundles
        .map(|part| layout.statement(part["digest"].as_str().unwrap()))
        .filter(|s| s["predicateType"] == SBOM && s["predicate"]["metadata"]["component"]["bom-ref"] == "output")
        .map(|statement| (statement["subject"][0]["name"].as_str().unwrap().to_owned(), statement["predicate"].clone()))
        .collect()
}

/// The scans of what steps left, by the name of the output.
fn scans(project: &Project, image: &str) -> BTreeMap<String, Value> {
    let layout = Layout::at(project.path(image));
    let (_, evidence) = layout.evidence();
    let bundles = evidence["layers"].as_array().unwrap().iter().filter(|part| part["mediaType"] == integration::BUNDLE);
    bundles
        .map(|part| layout.statement(part["digest"].as_str().unwrap()))
        .filter(|s| s["predicateType"] == VULNS && s["subject"][0]["name"].as_str().unwrap().contains('.'))
        .map(|statement| (statement["subject"][0]["name"].as_str().unwrap().to_owned(), statement["predicate"].clone()))
        .collect()
}

fn of_type<'a>(sbom: &'a Value, kind: &str) -> Vec<&'a Value> {
    sbom["components"].as_array().unwrap().iter().filter(|component| component["type"] == kind).collect()
}

fn hashes(sbom: &Value) -> BTreeMap<&str, &str> {
    of_type(sbom, "file")
        .into_iter()
        .map(|file| (file["name"].as_str().unwrap(), file["hashes"][0]["content"].as_str().unwrap()))
        .collect()
}

#[test]
fn an_output_names_its_packages_and_every_file_by_its_hash() {
    let test = "an_output_names_its_packages_and_every_file_by_its_hash";
    if !ready(test) {
        return;
    }
    let project = project();
    project.must(&["run"]);
    let found = sboms(&project, "out/tiny");
    assert_eq!(sboms(&project, "out/second"), found, "what both are made of is described once");
    assert_eq!(found.keys().collect::<Vec<_>>(), ["build.app", "package.one", "package.pack", "package.plain"]);

    let pack = &found["package.pack"];
    let packages = of_type(pack, "library");
    let named: Vec<_> = packages.iter().map(|package| (package["purl"].as_str(), &package["evidence"])).collect();
    let at = |place: &str| serde_json::json!({"occurrences": [{"location": place}]});
    assert_eq!(
        named,
        [
            (Some("pkg:pypi/h11@0.16.0"), &at("h11-0.16.0.dist-info/METADATA")),
            (Some("pkg:npm/left-pad@1.3.0"), &at("node_modules/left-pad/package.json")),
        ],
        "{pack:#}"
    );
    assert_eq!(packages[0]["licenses"][0]["license"]["name"], "MIT");
    let expected: BTreeMap<_, _> = SITE.map(|(path, text)| (path, Digest::of(text.as_bytes()).hex())).into();
    let listed: BTreeMap<_, _> = hashes(pack).into_iter().map(|(path, hash)| (path, hash.to_owned())).collect();
    assert_eq!(listed, expected, "a package takes no file's own hash away");

    let one = &found["package.one"];
    assert_eq!(of_type(one, "library")[0]["purl"], "pkg:cargo/serde@1.0.0", "{one:#}");
    assert_eq!(of_type(one, "library")[0]["evidence"], at("package.one"));
    let lock = Digest::of(LOCK.as_bytes()).hex();
    assert_eq!(hashes(one), [("package.one", lock.as_str())].into());
    // The same bytes by another name: the scanner does not know them, and neither word is the other's.
    let plain = &found["package.plain"];
    assert!(of_type(plain, "library").is_empty(), "{plain:#}");
    assert_eq!(hashes(plain), [("package.plain", lock.as_str())].into());
    for sbom in found.values() {
        assert_eq!(sbom["metadata"]["tools"]["components"][0]["name"], "trivy", "{sbom:#}");
    }

    // Each is scanned, too, with its own raw report; what lock files pin is told apart.
    let scans = scans(&project, "out/tiny");
    assert_eq!(scans.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    let lists = |name: &str| {
        let read = scans[name]["sluicegate_coverage"]["read"].as_array().unwrap().iter();
        read.map(|list| (list["kind"].as_str().unwrap(), list["lockFile"] == true)).collect::<Vec<_>>()
    };
    assert_eq!(lists("package.pack"), [("node-pkg", false), ("python-pkg", false)]);
    assert_eq!(lists("package.plain"), []);
    assert_eq!(scans["package.one"]["scanner"]["result"].as_array().unwrap().len(), 0);

    // The same outputs are not scanned again, and the documents are the same.
    let again = project.must(&["run"]);
    assert!(!again.stderr.contains("output package.pack is scanned"), "{}", again.stderr);
    assert_eq!(sboms(&project, "out/tiny"), found);
    // The index is believed in nothing: where it leads to something else, the scanner is asked again.
    let (_, evidence) = Layout::at(project.path("out/tiny")).evidence();
    let parts = evidence["layers"].as_array().unwrap();
    let lead_to =
        parts.iter().find(|part| part["mediaType"] == integration::BUNDLE).unwrap()["digest"].as_str().unwrap();
    for entry in fs::read_dir(project.path("home/cache/scans")).unwrap() {
        fs::write(entry.unwrap().path(), format!("{lead_to}\n")).unwrap();
    }
    let led_astray = project.must(&["run"]);
    assert!(led_astray.stderr.contains("package.pack is scanned"), "{}", led_astray.stderr);
    assert_eq!(sboms(&project, "out/tiny"), found);

    // Without a scanner outputs are described by their files alone, and that is seen.
    project.must(&["run", "--no-scan"]);
    let unscanned = sboms(&project, "out/tiny");
    assert_eq!(unscanned.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for (name, sbom) in &unscanned {
        assert!(of_type(sbom, "library").is_empty() && sbom["metadata"].get("tools").is_none(), "{sbom:#}");
        assert_eq!(hashes(sbom), hashes(&found[name]));
    }
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    // Such a one is no SBOM of a scanner, wherever the index says that it is.
    let (_, evidence) = Layout::at(project.path("out/tiny")).evidence();
    let layout = Layout::at(project.path("out/tiny"));
    let parts = evidence["layers"].as_array().unwrap().iter().filter(|part| part["mediaType"] == integration::BUNDLE);
    let of_files = parts.map(|part| part["digest"].as_str().unwrap()).find(|bundle| {
        let statement = layout.statement(bundle);
        statement["predicateType"] == SBOM && statement["subject"][0]["name"] == "package.pack"
    });
    for entry in fs::read_dir(project.path("home/cache/scans")).unwrap() {
        fs::write(entry.unwrap().path(), format!("{}\n", of_files.unwrap())).unwrap();
    }
    project.must(&["run"]);
    assert_eq!(sboms(&project, "out/tiny"), found);
}

#[test]
fn a_program_names_the_modules_that_it_was_built_from() {
    let test = "a_program_names_the_modules_that_it_was_built_from";
    if !ready(test) {
        return;
    }
    let Some(opa) = peer("SLUICEGATE_OPA", test) else { return };
    let project = Project::prepared();
    fs::copy(&opa, project.path("src/tool")).unwrap();
    project.replace("sluicegate.yaml", "cp /src/hello.txt /out/app/", "cp -r /src/. /out/app/");
    project.replace("sluicegate.yaml", "cat /app/hello.txt > /out/one", "cp /app/tool /out/one");
    project.must(&["run"]);
    let one = &sboms(&project, "out/tiny")["package.one"];
    let module = of_type(one, "library").into_iter().find(|p| p["name"] == "github.com/open-policy-agent/opa");
    assert!(module.is_some_and(|p| p["purl"].as_str().unwrap().starts_with("pkg:golang/")), "{one:#}");
    assert_eq!(hashes(one), [("package.one", Digest::of(&fs::read(&opa).unwrap()).hex().as_str())].into());
}

#[test]
fn an_output_that_is_empty_or_too_much_is_said_to_be() {
    if !integration::can_run_steps("an_output_that_is_empty_or_too_much_is_said_to_be") {
        return;
    }
    let project = Project::prepared();
    let good = fs::read_to_string(project.path("sluicegate.yaml")).unwrap();
    let described = |made: &str| {
        fs::write(project.path("sluicegate.yaml"), good.replace("cp -r /app/. /out/pack/", made)).unwrap();
        let said = project.must(&["run", "--no-scan"]).stderr;
        (said, sboms(&project, "out/tiny").remove("package.pack").unwrap())
    };
    let (said, sbom) = described("true");
    assert!(said.contains("output package.pack holds no file"), "{said}");
    assert_eq!(sbom["components"], serde_json::json!([]));

    // Each file is named by as long a path as a file system takes; nothing but the number, or the names, is too much.
    let files =
        |names: &str| format!("cd /out/pack && {names} | split -l 1 -a 5 --numeric-suffixes - {}", "n".repeat(200));
    let long = "n".repeat(200);
    let (said, sbom) = described(&files("seq 20000"));
    assert!(!said.contains("as a whole"), "{said}");
    let named = hashes(&sbom);
    assert_eq!((named.len(), named.contains_key(format!("{long}19999").as_str())), (20_000, true));
    let whole = |sbom: &Value| {
        let own = sbom["metadata"]["component"]["hashes"][0]["content"].as_str().unwrap().to_owned();
        hashes(sbom) == BTreeMap::from([("package.pack", own.as_str())])
    };
    let (said, sbom) = described(&files("seq 20001"));
    assert!(said.contains("output package.pack has more than 20000 files: its SBOM names it as a whole"), "{said}");
    assert!(whole(&sbom), "{sbom:#}");
    let deep = format!(
        "d={long} && mkdir -p /out/pack/$d/$d/$d && cd /out/pack/$d/$d/$d && seq 16000 | split -l 1 -a 5 -d - $d"
    );
    let (said, sbom) = described(&deep);
    assert!(said.contains("longer names than one statement holds: its SBOM names it as a whole"), "{said}");
    assert!(whole(&sbom), "{sbom:#}");
}

#[test]
fn a_scanner_that_cannot_read_an_output_ends_the_run_and_says_which() {
    let test = "a_scanner_that_cannot_read_an_output_ends_the_run_and_says_which";
    if !ready(test) {
        return;
    }
    let Some(opa) = peer("SLUICEGATE_OPA", test) else { return };
    let project = Project::prepared();
    // A program that runs in the sandbox as Trivy does, and does not understand what it is asked.
    let listed = |program: &Path| Digest::of(&fs::read(program).unwrap()).to_string();
    let trivy = std::env::var("SLUICEGATE_TRIVY").unwrap();
    project.replace("gateway.yaml", &listed(Path::new(&trivy)), &listed(&opa));
    let failed = project.sluicegate(&["run", "--trivy", opa.to_str().unwrap()]);
    failed.assert(
        5,
        "cannot look for packages in the output build.app\n  because: the scanner failed: it ended with code 1",
    );
    failed.assert(5, "now: see what is in that output");
    assert!(!project.path("out/tiny/index.json").exists());
    project.must(&["run", "--no-scan"]);
}
