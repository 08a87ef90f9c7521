//! Field cases about trust that others reported (`shared/field/trust.md`), with the files that reproduce them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use integration::{
    Ended, Layout, Project, peer, program, ready,
    registry::{Kind, RealRegistry},
    shared,
};
use serde_json::{Value, json};
use sluicegate_testkit::{Behaviour, Fault, TestRegistry, VirtualImage, VirtualLog};
use sluicegate_types::Digest;

use crate::another_builder::{OTHER_LOG, project_of_another_builder, publish_proved};

/// The unpacked inputs, or `None` with a visible line, or a failure where peers are demanded.
fn inputs(test: &str) -> Option<tempfile::TempDir> {
    let archive = shared("field/trust.tar.gz", test)?;
    let folder = tempfile::tempdir().unwrap();
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder.path()).status();
    match unpacked {
        Ok(status) if status.success() => Some(folder),
        other => panic!("tar -xzf {}: {other:?}", archive.display()),
    }
}

/// `verify SUBJECT --bundle …` of a case, in a folder and with an environment of its own.
fn verify(case: &Path, subject: &str, more: &[&str]) -> Ended {
    let file = |name: &str| case.join(name).display().to_string();
    let (bundle, key, root) = (file("bundle.sigstore.json"), file("key.pub"), file("trusted_root.json"));
    let arguments: Vec<&str> = ["verify", subject, "--bundle", &bundle, "--key", &key, "--trust-root", &root]
        .iter()
        .chain(more)
        .copied()
        .collect();
    let output = Command::new(program()).args(&arguments).env_clear().output().unwrap();
    let ended = Ended::of(&arguments, output);
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    ended
}

/// The cases of one id, sorted.
fn cases(folder: &Path, id: &str) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| name(case).starts_with(id));
    cases.sort();
    cases
}

fn name(case: &Path) -> String {
    case.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn tr_28_odd_subjects_odd_files() {
    let Some(inputs) = inputs("tr_28_odd_subjects_odd_files") else { return };
    let cases = cases(&inputs.path().join("trust/bundles"), "TR-28-");
    assert!(cases.len() >= 15, "{cases:?}");
    for case in &cases {
        let name = name(case);
        let artifact = case.join("artifact");
        let digest = Digest::of(&fs::read(&artifact).unwrap()).to_string();
        for subject in [artifact.display().to_string(), digest.clone()] {
            let ended = verify(case, &subject, &[]);
            let json = verify(case, &subject, &["-o", "json"]);
            let document: Value =
                serde_json::from_str(&json.stdout).unwrap_or_else(|e| panic!("{name}: {e}: {json:?}"));
            assert_eq!(ended.code, json.code, "{name}");
            if name.contains("two-bundles") {
                ended.assert(2, "holds 2 bundles; one is supported");
                assert_eq!(document["reason"], "not_one_bundle", "{name}");
            } else if name.ends_with("_fail") {
                ended.assert(4, "subject digest malformed");
                assert!(!ended.stderr.contains("something else"), "{name}: {ended:?}");
                assert_eq!(document["reason"], "subject_digest_malformed", "{name}");
            } else {
                ended.assert(0, "VERIFIED");
                ended.assert(0, "no gate was asked");
                assert_eq!(
                    (&document["file"], &document["verified"]),
                    (&digest.as_str().into(), &true.into()),
                    "{name}"
                );
                assert_eq!(document["statement"]["signer"], "--key", "{name}");
            }
        }
    }
    // Beside what fits, the same bundle is refused for another file, another key and another root.
    let good = cases.iter().find(|case| !name(case).ends_with("_fail")).unwrap();
    let other = inputs.path().join("other");
    fs::write(&other, "another file").unwrap();
    let ended = verify(good, &other.display().to_string(), &[]);
    ended.assert(4, &Digest::of(b"another file").to_string());
    ended.assert(4, &Digest::of(&fs::read(good.join("artifact")).unwrap()).to_string());
}

#[test]
fn tr_28_files_that_are_no_bundle_or_not_there_are_mistakes_of_the_command() {
    let test = "tr_28_files_that_are_no_bundle_or_not_there_are_mistakes_of_the_command";
    let Some(inputs) = inputs(test) else { return };
    let bundles = inputs.path().join("trust/bundles");
    let good = cases(&bundles, "TR-28-no-name").remove(0);
    let artifact = good.join("artifact").display().to_string();
    let bundle = fs::read(good.join("bundle.sigstore.json")).unwrap();
    let case = inputs.path().join("case");
    fs::create_dir(&case).unwrap();
    for part in ["artifact", "key.pub", "trusted_root.json"] {
        fs::copy(good.join(part), case.join(part)).unwrap();
    }
    let mut large = bundle.clone();
    large.resize((16 << 20) + 1, b' ');
    for (bytes, says) in [
        (Vec::new(), "it is empty"),
        (b"not a bundle".to_vec(), "not one JSON document"),
        (large, "larger than the limit of 16777216 bytes"),
        ([&b"\xef\xbb\xbf"[..], &bundle].concat(), "byte order mark"),
        ([&bundle[..], b"\0"].concat(), "not one JSON document"),
        ([&b"["[..], &bundle, b",", &bundle, b"]"].concat(), "holds 2 bundles"),
    ] {
        fs::write(case.join("bundle.sigstore.json"), bytes).unwrap();
        verify(&case, &artifact, &[]).assert(2, says);
    }
    fs::write(case.join("bundle.sigstore.json"), &bundle).unwrap();
    verify(&case, &artifact, &[]).assert(0, "VERIFIED");
    verify(&case, &case.join("nowhere").display().to_string(), &[]).assert(2, "nowhere");
    verify(&case, &case.display().to_string(), &[]).assert(2, "not a regular file");
    verify(&case, "sha256:7e37", &[]).assert(2, "64 hexadecimal digits");
    verify(&case, "oci:out/tiny", &[]).assert(2, "--bundle is about a file");
    verify(&case, &artifact, &[&artifact]).assert(2, "--bundle is about one file");
    let root = fs::read(case.join("trusted_root.json")).unwrap();
    for bad in [&b""[..], b"{}", b"[]"] {
        fs::write(case.join("trusted_root.json"), bad).unwrap();
        verify(&case, &artifact, &[]).assert(2, "trusted root");
    }
    fs::write(case.join("trusted_root.json"), root).unwrap();
    fs::remove_file(case.join("bundle.sigstore.json")).unwrap();
    verify(&case, &artifact, &[]).assert(2, "bundle.sigstore.json");
}

#[test]
fn a_file_without_its_bundle_is_told_what_it_needs() {
    let project = Project::empty();
    fs::write(project.path("file"), "x").unwrap();
    project.sluicegate(&["verify", "file"]).assert(2, "a file needs --bundle");
    project.sluicegate(&["verify", &Digest::of(b"x").to_string()]).assert(2, "a file needs --bundle");
    project.sluicegate(&["verify", "library/debian:12"]).assert(2, "begins with its host");
    project.sluicegate(&["verify"]).assert(2, "");
}

/// `verify -o json` of the image of a case that a registry answers as the case says; with what the registry was asked.
fn verify_in_registry(case: &Path) -> (Ended, Value, TestRegistry) {
    let told: Value = serde_json::from_slice(&fs::read(case.join("case.json")).unwrap()).unwrap();
    let registry = TestRegistry::start(Behaviour::with_faults(Fault::routes(case)));
    let file = |name: &str| case.join(told[name].as_str().unwrap()).display().to_string();
    let image = format!("{}/shop@{}", registry.host(), told["digest"].as_str().unwrap());
    let (key, root) = (file("key"), file("trust_root"));
    let arguments = ["verify", &image, "--key", &key, "--trust-root", &root, "-o", "json"];
    let output = Command::new(program()).args(arguments).env_clear().output().unwrap();
    let ended = Ended::of(&arguments, output);
    let document = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (ended, document, registry)
}

/// The same of the layout of a case.
fn verify_in_layout(case: &Path) -> (Ended, Value) {
    let told: Value = serde_json::from_slice(&fs::read(case.join("case.json")).unwrap()).unwrap();
    let file = |name: &str| case.join(told[name].as_str().unwrap()).display().to_string();
    let image = format!("oci:{}@{}", case.display(), told["digest"].as_str().unwrap());
    let (key, root) = (file("key"), file("trust_root"));
    let arguments = ["verify", &image, "--key", &key, "--trust-root", &root, "-o", "json"];
    let ended = Ended::of(&arguments, Command::new(program()).args(arguments).env_clear().output().unwrap());
    let document = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (ended, document)
}

/// The statements with this status.
fn with_status<'a>(document: &'a Value, status: &str) -> Vec<&'a Value> {
    let statements = document["statements"].as_array().unwrap_or_else(|| panic!("{document:#}"));
    statements.iter().filter(|statement| statement["status"] == status).collect()
}

/// Four attestations are verified, each once, of four types that stand in what is signed. What they say makes no whole set for our gate.
#[track_caller]
fn four_are_found(case: &str, ended: &Ended, document: &Value) {
    let verified = with_status(document, "verified");
    let mut kinds: Vec<_> = verified.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["provenance", "sbom", "test-result", "vulns"], "{case}: {document:#}");
    assert_eq!((ended.code, &document["reasons"][0]["code"]), (3, &"no_provenance".into()), "{case}: {document:#}");
    let text = document["reasons"][0]["text"].as_str().unwrap();
    assert!(text.contains(" 4 verified"), "{case}: {text}");
}

#[test]
fn tr_03_what_only_the_tag_or_only_the_api_lists_is_found_and_each_once() {
    let test = "tr_03_what_only_the_tag_or_only_the_api_lists_is_found_and_each_once";
    let Some(inputs) = inputs(test) else { return };
    let cases = cases(&inputs.path().join("trust/registry"), "TR-03-");
    assert_eq!(cases.len(), 2, "{cases:?}");
    for case in &cases {
        let (ended, document, registry) = verify_in_registry(case);
        four_are_found(&name(case), &ended, &document);
        assert_eq!(document["statements"].as_array().unwrap().len(), 4, "{}: {document:#}", name(case));
        let warnings: Vec<_> = ended.stderr.lines().filter(|line| line.contains("only under the tag")).collect();
        let [warning] = warnings.as_slice() else { panic!("{}: {ended:?}", name(case)) };
        let count = if name(case).contains("split") { "2 of 4" } else { "4 of 4" };
        assert!(warning.contains(count), "{}: {warning}", name(case));
        // So does doctor, by the place's name.
        let digest = document["image"].as_str().unwrap();
        let doctor = Project::empty().sluicegate(&["doctor", &format!("{}/shop@{digest}", registry.host())]);
        let tag = format!("  the fallback tag {}: ", digest.replace(':', "-"));
        let line = doctor.stdout.lines().find_map(|line| line.strip_prefix(&tag));
        let listed = line.unwrap_or_else(|| panic!("{}: {doctor:?}", name(case))).split(", ").count();
        assert_eq!((doctor.code, listed), (0, if name(case).contains("split") { 3 } else { 4 }), "{doctor:?}");
    }
}

#[test]
fn tr_13_every_page_is_read_and_none_of_another_host_or_twice() {
    let Some(inputs) = inputs("tr_13_every_page_is_read_and_none_of_another_host_or_twice") else { return };
    let cases = cases(&inputs.path().join("trust/registry"), "TR-13-");
    assert_eq!(cases.len(), 4, "{cases:?}");
    for case in &cases {
        let started = Instant::now();
        let (ended, document, registry) = verify_in_registry(case);
        let took = started.elapsed();
        let log = registry.log();
        let pages = log.iter().filter(|asked| asked.path_and_query.contains("/referrers/")).count();
        let name = name(case);
        let because = document["causes"].to_string();
        if name.ends_with("-loop") {
            assert_eq!((ended.code, &document["reason"]), (5, &"too_many_redirects".into()), "{name}: {document:#}");
            assert!(because.contains("its pages go round") && because.contains("/referrers/"), "{name}: {because}");
            assert!(took.as_secs() < 5 && pages <= 3, "{name}: {pages} pages in {took:?}");
        } else if name.ends_with("-other-host") {
            assert_eq!((ended.code, &document["reason"]), (5, &"address_refused".into()), "{name}: {document:#}");
            assert!(because.contains("on another server, http://127.0.0.2:9/"), "{name}: {because}");
            assert_eq!(pages, 1, "{name}: {log:#?}");
        } else {
            four_are_found(&name, &ended, &document);
            assert_eq!(with_status(&document, "ignored").len(), 3, "{name}: {document:#}");
            assert!(document["reasons"][0]["text"].as_str().unwrap().contains("7 attached"), "{name}: {document:#}");
            assert_eq!(pages, 2, "{name}: {log:#?}");
        }
    }
}

#[test]
fn tr_20_what_a_list_says_of_its_entries_decides_nothing() {
    let Some(inputs) = inputs("tr_20_what_a_list_says_of_its_entries_decides_nothing") else { return };
    let cases = cases(&inputs.path().join("trust/registry"), "TR-20-");
    assert_eq!(cases.len(), 4, "{cases:?}");
    for case in &cases {
        let (ended, document, _) = verify_in_registry(case);
        four_are_found(&name(case), &ended, &document);
        let ignored: Vec<_> = with_status(&document, "ignored").iter().map(|one| one["reason"].clone()).collect();
        let expected = if name(case).contains("foreign") { vec!["its subject is another image"] } else { Vec::new() };
        assert_eq!(ignored, expected, "{}: {document:#}", name(case));
    }
}

#[test]
fn tr_17_what_is_attached_is_found_however_a_tool_lists_it_in_a_layout() {
    let test = "tr_17_what_is_attached_is_found_however_a_tool_lists_it_in_a_layout";
    let Some(inputs) = inputs(test) else { return };
    let case = |name: &str| inputs.path().join("trust/layouts").join(name);
    for name in ["TR-17-listed-untagged", "TR-17-fallback-name", "TR-17-referrer-annotation", "TR-17-blobs-only"] {
        let (ended, document) = verify_in_layout(&case(name));
        four_are_found(name, &ended, &document);
        // The list of referrers is no second image.
        let (key, root) = (case(name).join("key.pub"), case(name).join("trusted_root.json"));
        let (layout, key, root) = (format!("oci:{}", case(name).display()), key.display(), root.display());
        let arguments = ["verify", &layout, "--key", &key.to_string(), "--trust-root", &root.to_string()];
        Project::empty().sluicegate(&arguments).assert(3, "4 verified");
    }
    let index = "TR-17-blobs-only-index";
    let (ended, document) = verify_in_layout(&case(index));
    four_are_found(index, &ended, &document);
    let platforms = document["platforms"].as_array().unwrap_or_else(|| panic!("{document:#}"));
    let verified = platforms.iter().map(|platform| with_status(platform, "verified").len());
    assert_eq!(verified.collect::<Vec<_>>(), [2, 2], "{document:#}");
}

#[test]
fn tr_23_a_manifest_of_dockers_type_goes_through_real_registries_unchanged_or_is_refused() {
    let test = "tr_23_a_manifest_of_dockers_type_goes_through_real_registries_unchanged_or_is_refused";
    let Some(inputs) = inputs(test) else { return };
    let (Some(crane), Some(oras)) = (peer("SLUICEGATE_CRANE", test), peer("SLUICEGATE_ORAS", test)) else { return };
    let case = inputs.path().join("trust/layouts/TR-23-docker-image");
    let told: Value = serde_json::from_slice(&fs::read(case.join("case.json")).unwrap()).unwrap();
    let digest = told["digest"].as_str().unwrap();
    let blob = case.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let manifest = fs::read_to_string(blob).unwrap();
    let project = Project::empty();
    let mut from = format!("oci:{}@{digest}", case.display());
    let mut registries = Vec::new();
    for kind in [Kind::Distribution, Kind::Refreg, Kind::Docker] {
        let Some(registry) = RealRegistry::start(kind, test) else { return };
        let to = registry.repository("shop/app");
        let copied = project.must(&["copy", &from, &format!("{to}:v1")]);
        copied.assert(0, &format!("COPIED  {digest}"));
        copied.assert(0, "4 manifests attached");
        let there = |client: &Path, arguments: &[&str]| registry.client(client, &project, arguments);
        there(&crane, &["digest", &format!("{to}:v1")]).assert(0, digest);
        assert_eq!(there(&crane, &["manifest", &format!("{to}:v1")]).stdout, manifest, "{kind:?}");
        let image = format!("{to}@{digest}");
        let listed = there(&oras, &["discover", "--format", "json", "--depth", "1", "--plain-http", &image]);
        let listed: Value = serde_json::from_str(&listed.stdout).unwrap_or_else(|_| panic!("{kind:?}: {listed:?}"));
        assert_eq!(listed["referrers"].as_array().map(Vec::len), Some(4), "{kind:?}: {listed:#}");
        // The next one has it from this one.
        from = image;
        registries.push(registry);
    }
    let refusing = Fault::media_type_refused(DOCKER_MANIFEST, 400);
    let refusing = TestRegistry::start(Behaviour::with_faults([refusing]));
    let ended = project.sluicegate(&["copy", &from, &format!("{}/shop/app:v1", refusing.host())]);
    ended.assert(5, &format!("does not take {DOCKER_MANIFEST}"));
    assert_eq!((refusing.tags("shop/app"), refusing.manifests("shop/app")), (Vec::new(), Vec::new()));
}

/// What Docker would have made of the image in this layout, with the evidence of a run, in a registry.
fn publish_as_docker(layout: &Layout, log: &VirtualLog, registry: &TestRegistry) -> VirtualImage {
    let manifest = layout.json(&layout.image());
    let (mut config, mut layers) = (manifest["config"].clone(), manifest["layers"].clone());
    config["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    for layer in layers.as_array_mut().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar");
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar".into();
    }
    let manifest = json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": layers});
    publish_proved(layout, (DOCKER_MANIFEST, manifest.to_string().into_bytes()), log, registry)
}

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[test]
fn tr_23_a_proved_image_of_dockers_type_is_promoted_unchanged_or_not_at_all() {
    let test = "tr_23_a_proved_image_of_dockers_type_is_promoted_unchanged_or_not_at_all";
    if !ready(test) {
        return;
    }
    let (Some(crane), Some(oras)) = (peer("SLUICEGATE_CRANE", test), peer("SLUICEGATE_ORAS", test)) else { return };
    let Some(cosign) = peer("SLUICEGATE_COSIGN", test) else { return };
    let Some(registry) = RealRegistry::start(Kind::Distribution, test) else { return };
    let log = VirtualLog::new(OTHER_LOG);
    let project = project_of_another_builder(&log);
    let built = TestRegistry::start(Behaviour::default());
    let image = publish_as_docker(&Layout::at(project.path("out/tiny")), &log, &built);
    let digest = image.digest().to_string();
    let promote = |to: &str| {
        project.replace("gateway.yaml", "oci:env/production", &format!("{to}/prod/tiny"));
        let from = format!("{}/build/tiny@{digest}", built.host());
        let ended = project.sluicegate(&["promote", &from, "--to", "production"]);
        project.replace("gateway.yaml", &format!("{to}/prod/tiny"), "oci:env/production");
        ended
    };
    let refusing = Fault::media_type_refused(DOCKER_MANIFEST, 400);
    let refusing = TestRegistry::start(Behaviour::with_faults([refusing]));
    let ended = promote(&refusing.host());
    ended.assert(5, &format!("does not take {DOCKER_MANIFEST}"));
    assert_eq!(refusing.tags("prod/tiny"), Vec::<String>::new());
    assert_eq!(project.last_record("promotion")["outcome"], "failed");
    promote(registry.host()).assert(0, &digest);
    let there = |client: &Path, arguments: &[&str]| registry.client(client, &project, arguments);
    let tag = format!("{}:current", registry.repository("prod/tiny"));
    let held = there(&crane, &["manifest", &tag]);
    assert_eq!(Digest::of(held.stdout.as_bytes()).to_string(), digest);
    let image = format!("{}@{digest}", registry.repository("prod/tiny"));
    let listed = there(&oras, &["discover", "--format", "json", "--depth", "1", "--plain-http", &image]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap_or_else(|_| panic!("{listed:?}"));
    // Its evidence, the gate's scan, three statements of the run and three of the decision.
    assert_eq!(listed["referrers"].as_array().map(Vec::len), Some(8), "{listed:#}");
    let arguments = ["verify", "--key", "trust/production.pub", "--trusted-root", "trust/trusted_root.json", &image];
    there(&cosign, &arguments).assert(0, "");
    project.replace("gateway.yaml", "oci:env/production", &registry.repository("prod/tiny"));
    project.must(&["verify", &image, "--for", "production"]);
}
