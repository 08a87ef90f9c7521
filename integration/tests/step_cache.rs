//! Earlier results: what is taken, what is not, and that nothing that was tampered with is ever signed anew.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use integration::{Project, can_run_steps};
use serde_json::{Value, json as value};

const RUN: [&str; 4] = ["run", "--no-scan", "-o", "json"];

fn json(project: &Project, arguments: &[&str]) -> Value {
    let ended = project.must(arguments);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Step by step how it ended: `passed`, `taken` or `failed`.
fn fates(run: &Value) -> Vec<(String, String)> {
    let step = |step: &Value| (step["step"].as_str().unwrap().to_owned(), step["status"].as_str().unwrap().to_owned());
    let mut fates: Vec<_> = run["steps"].as_array().unwrap().iter().map(step).collect();
    fates.sort();
    fates
}

fn all_are(run: &Value, status: &str) -> bool {
    fates(run).iter().all(|(_, found)| found == status)
}

fn step<'a>(run: &'a Value, name: &str) -> &'a Value {
    run["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap()
}

fn blob(project: &Project, digest: &Value) -> PathBuf {
    project.path("home").join("store/blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"))
}

fn entry(project: &Project, step: &Value) -> PathBuf {
    project
        .path("home")
        .join("cache/step-results/steps")
        .join(step["key"].as_str().unwrap().trim_start_matches("sha256:"))
}

#[test]
fn a_second_run_takes_every_result_gives_the_same_image_and_names_the_first_origin() {
    if !can_run_steps("a_second_run_takes_every_result_gives_the_same_image_and_names_the_first_origin") {
        return;
    }
    let project = Project::prepared();
    let first = json(&project, &RUN);
    assert!(all_are(&first, "passed"), "{first}");
    let second = json(&project, &RUN);
    assert!(all_are(&second, "taken"), "{second}");
    assert_eq!(first["images"][0]["digest"], second["images"][0]["digest"]);
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    // A hit of a hit names the run that did the work.
    let third = json(&project, &RUN);
    for name in ["build", "test"] {
        assert_eq!(step(&second, name)["origin"], step(&first, name)["attestation"]);
        assert_eq!(step(&third, name)["origin"], step(&first, name)["attestation"]);
        assert_eq!(step(&second, name)["key"], step(&first, name)["key"]);
    }
    // Whoever asks for it executes all the same.
    assert!(all_are(&json(&project, &["run", "--no-scan", "--no-cache", "-o", "json"]), "passed"));
    project.sluicegate(&["explain", "build"]).assert(0, "TAKEN");
    project.sluicegate(&["plan"]).assert(0, "3 taken");
}

#[test]
fn the_files_of_a_key_are_their_content_and_whether_they_may_be_executed() {
    if !can_run_steps("the_files_of_a_key_are_their_content_and_whether_they_may_be_executed") {
        return;
    }
    let project = Project::prepared();
    let steps = "  build:\n    run: mkdir -p /out && if test -x tool.sh; then echo may; else echo may not; fi > /out/says\n    \
                 inputs: { /src: src }\n    workdir: /src\n    reuse: { key: [tool.sh] }\n    outputs: { says: /out/says }\n";
    let text = format!(
        "version: 1\nname: keyed\nsources: {{ src: {{ path: src }} }}\ndefaults: {{ image: oci:images/base }}\nsteps:\n{steps}"
    );
    fs::write(project.path("sluicegate.yaml"), text).unwrap();
    fs::write(project.path("src/tool.sh"), "true\n").unwrap();
    let set_mode = |mode| fs::set_permissions(project.path("src/tool.sh"), fs::Permissions::from_mode(mode)).unwrap();
    let run = || {
        let run = json(&project, &RUN);
        let build = step(&run, "build").clone();
        let says = fs::read_to_string(blob(&project, &build["outputs"]["says"])).unwrap();
        (build["status"].as_str().unwrap().to_owned(), says)
    };
    set_mode(0o644);
    assert_eq!(run(), ("passed".to_owned(), "may not\n".to_owned()));
    // Neither another file nor the same content and mode written anew is a change.
    fs::write(project.path("src/hello.txt"), "other\n").unwrap();
    fs::write(project.path("src/tool.sh"), "true\n").unwrap();
    assert_eq!(run(), ("taken".to_owned(), "may not\n".to_owned()));
    set_mode(0o755);
    assert_eq!(run(), ("passed".to_owned(), "may\n".to_owned()));
    assert_eq!(run(), ("taken".to_owned(), "may\n".to_owned()));
}

#[test]
fn the_log_of_a_result_that_was_taken_is_the_one_of_the_run_that_did_the_work() {
    if !can_run_steps("the_log_of_a_result_that_was_taken_is_the_one_of_the_run_that_did_the_work") {
        return;
    }
    let project = Project::prepared();
    // The time of day, so that another log would be seen.
    project.replace("sluicegate.yaml", "    run: mkdir -p /out/app", "    run: date +%s.%N && mkdir -p /out/app");
    let log = || project.command(&["logs", "LAST", "build"]).output().unwrap().stdout;
    assert!(all_are(&json(&project, &RUN), "passed"));
    let first = log();
    assert!(first.len() > 10, "{first:?}");
    assert!(all_are(&json(&project, &RUN), "taken"));
    assert_eq!(log(), first);
    project.must(&["run", "--no-scan", "--no-cache"]);
    assert_ne!(log(), first);
}

#[test]
fn a_plan_for_programs_names_what_a_run_is_made_of_by_digest() {
    if !can_run_steps("a_plan_for_programs_names_what_a_run_is_made_of_by_digest") {
        return;
    }
    let project = Project::prepared();
    let (_, plan) = project.json(&["plan"]);
    let run = json(&project, &RUN);
    let image = integration::Layout::at(project.path("images/base")).index()["manifests"][0]["digest"].clone();
    assert_eq!(
        plan["images"],
        serde_json::json!([
            { "name": "oci:images/base", "platform": "linux/amd64", "digest": image, "indexes": [] }
        ])
    );
    let provenance = project.provenance("build");
    let dependencies = provenance["buildDefinition"]["resolvedDependencies"].as_array().unwrap().clone();
    let digest = |name: &str| {
        let found = dependencies.iter().find(|one| one["name"].as_str().is_some_and(|one| one.starts_with(name)));
        format!(
            "sha256:{}",
            found.unwrap_or_else(|| panic!("{name}: {dependencies:?}"))["digest"]["sha256"].as_str().unwrap()
        )
    };
    assert_eq!((digest("image").into(), digest("source:src").into()), (image, plan["sources"][0]["digest"].clone()));
    assert_eq!(plan["steps"][0]["key"], step(&run, "build")["key"]);
    // What waits for another step's outputs has no key yet.
    assert_eq!((&plan["steps"][1]["fate"], &plan["steps"][1]["key"]), (&"open".into(), &Value::Null));
}

#[test]
fn what_was_tampered_with_is_made_again_and_never_signed() {
    if !can_run_steps("what_was_tampered_with_is_made_again_and_never_signed") {
        return;
    }
    let project = Project::prepared();
    let first = json(&project, &RUN);
    let (build, test) = (step(&first, "build").clone(), step(&first, "test").clone());
    type Tampering<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let output = blob(&project, &build["outputs"].as_object().unwrap().values().next().unwrap().clone());
    let whole = fs::read(&output).unwrap();
    let tamperings: Vec<Tampering<'_>> = vec![
        ("an output is cut", Box::new(|| fs::write(&output, &whole[..whole.len() - 1]).unwrap())),
        ("an output is another one", Box::new(|| fs::write(&output, b"something else").unwrap())),
        ("an output is gone", Box::new(|| fs::remove_file(&output).unwrap())),
        ("the log is another one", Box::new(|| fs::write(blob(&project, &build["log"]), b"all good").unwrap())),
        (
            "the record leads to another step",
            Box::new(|| {
                fs::write(entry(&project, &build), test["attestation"].as_str().unwrap()).unwrap();
            }),
        ),
        (
            "the record leads to the image's provenance",
            Box::new(|| fs::write(entry(&project, &build), first["images"][0]["digest"].as_str().unwrap()).unwrap()),
        ),
        (
            "the statement is changed",
            Box::new(|| {
                let bundle =
                    blob(&project, &Value::String(fs::read_to_string(entry(&project, &build)).unwrap().trim().into()));
                let text = fs::read_to_string(&bundle).unwrap();
                fs::write(&bundle, text.replacen("mediaType", "mediatype", 1)).unwrap();
            }),
        ),
    ];
    for (what, tamper) in tamperings {
        tamper();
        let run = json(&project, &RUN);
        assert_eq!(step(&run, "build")["status"], "passed", "{what}: {run}");
        assert_eq!(step(&run, "build")["outputs"], build["outputs"], "{what}");
        assert_eq!(run["images"][0]["digest"], first["images"][0]["digest"], "{what}");
        project.must(&["verify", "--offline", "oci:out/tiny"]);
        assert!(all_are(&json(&project, &RUN), "taken"), "{what}: it is kept anew");
    }
}

#[test]
fn a_result_of_another_trust_domain_is_not_taken() {
    if !can_run_steps("a_result_of_another_trust_domain_is_not_taken") {
        return;
    }
    let project = Project::prepared();
    let first = json(&project, &RUN);
    let gateway = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    let other = gateway.replace("https://sluicegate.dev/gate/local", "https://sluicegate.dev/gate/other");
    assert_ne!(gateway, other);
    fs::write(project.path("gateway.yaml"), other).unwrap();
    let second = json(&project, &RUN);
    assert!(all_are(&second, "passed"), "{second}");
    // Even an index that says so leads to nothing: the statement has the other key.
    fs::copy(entry(&project, step(&first, "build")), entry(&project, step(&second, "build"))).unwrap();
    assert_eq!(step(&json(&project, &RUN), "build")["status"], "passed");
}

/// Whoever can put another volume in the place of the cache, of the store or of both: another home's, with other keys and of another trust
/// domain; one with the same keys that built older sources; one with the same keys whose outputs are others. Each is made to fit: its index
/// leads from our keys to its statements.
#[test]
fn a_whole_volume_of_another_home_is_never_signed_over() {
    if !can_run_steps("a_whole_volume_of_another_home_is_never_signed_over") {
        return;
    }
    let whole = Project::prepared();
    let older = whole.copy();
    fs::write(older.path("src/hello.txt"), "hello, but older\n").unwrap();
    let of_older = json(&older, &RUN);
    let stranger = Project::stranger();
    let of_stranger = json(&stranger, &RUN);
    let first = json(&whole, &RUN);
    let poisoned = whole.copy();
    for one in first["steps"].as_array().unwrap() {
        for output in one["outputs"].as_object().unwrap().values() {
            fs::write(blob(&poisoned, output), b"poison").unwrap();
        }
    }
    for (what, other, theirs) in [
        ("of other keys", &stranger, &of_stranger),
        ("of older sources", &older, &of_older),
        ("of other outputs", &poisoned, &first),
    ] {
        for parts in [&["home/cache"][..], &["home/store"], &["home/cache", "home/store"]] {
            let project = whole.copy();
            for part in parts {
                fs::remove_dir_all(project.path(part)).unwrap();
                let copied =
                    std::process::Command::new("cp").arg("-a").args([other.path(part), project.path(part)]).status();
                assert!(copied.unwrap().success());
            }
            for (ours, theirs) in first["steps"].as_array().unwrap().iter().zip(theirs["steps"].as_array().unwrap()) {
                assert_eq!(ours["step"], theirs["step"]);
                fs::write(entry(&project, ours), theirs["attestation"].as_str().unwrap()).unwrap();
            }
            let lost = json_of(&project, &["evidence", "fsck"]);
            let run = json(&project, &RUN);
            for (name, fate) in fates(&run) {
                // Our own statement about what is whole in that volume, or stands in our own store, is as good as ever.
                let is_whole = what == "of other outputs" && (name == "test" || parts == ["home/cache"]);
                assert_eq!(fate, if is_whole { "taken" } else { "passed" }, "{what}, {parts:?}: {name}");
            }
            for name in ["build", "test", "package"] {
                assert_eq!(step(&run, name)["outputs"], step(&first, name)["outputs"], "{what}, {parts:?}");
            }
            assert_eq!(run["images"][0]["digest"], first["images"][0]["digest"], "{what}, {parts:?}");
            project.must(&["verify", "--offline", "oci:out/tiny"]);
            // What was recorded here and is not in that store is missed aloud.
            let ours_are_there = what == "of other outputs" || parts == ["home/cache"];
            assert_eq!(lost["whole"], ours_are_there, "{what}, {parts:?}: {lost}");
        }
    }
}

fn json_of(project: &Project, arguments: &[&str]) -> Value {
    project.json(arguments).1
}

/// Unpacked layers and inputs are kept between runs. What somebody changes in them, or brings with a whole cache from elsewhere, no step
/// reads; what nobody changed is not unpacked again.
#[test]
fn what_was_changed_in_an_unpacked_layer_or_input_is_read_by_no_step() {
    if !can_run_steps("what_was_changed_in_an_unpacked_layer_or_input_is_read_by_no_step") {
        return;
    }
    const AGAIN: [&str; 5] = ["run", "--no-scan", "--no-cache", "-o", "json"];
    let project = Project::prepared();
    let first = json(&project, &AGAIN);
    let layers = |project: &Project| project.path("home/cache/layers");
    let find = |project: &Project, name: &str| -> Vec<PathBuf> {
        let found = std::process::Command::new("find")
            .arg(layers(project))
            .args(["-type", "f", "-name", name])
            .output()
            .unwrap();
        String::from_utf8(found.stdout).unwrap().lines().map(PathBuf::from).collect()
    };
    let numbers = |project: &Project| {
        let mut numbers = std::collections::BTreeSet::new();
        for kind in ["alone", "tree"] {
            for entry in fs::read_dir(layers(project).join(kind)).unwrap() {
                numbers.insert(std::os::unix::fs::DirEntryExt::ino(&entry.unwrap()));
            }
        }
        numbers
    };
    let as_ever = |project: &Project, what: &str| {
        let run = json(project, &AGAIN);
        assert!(all_are(&run, "passed"), "{what}: {run}");
        for name in ["build", "test", "package"] {
            assert_eq!(step(&run, name)["outputs"], step(&first, name)["outputs"], "{what}");
        }
        assert_eq!(run["images"][0]["digest"], first["images"][0]["digest"], "{what}");
    };
    let unpacked = numbers(&project);
    assert!(unpacked.len() >= 2, "{unpacked:?}");
    as_ever(&project, "nothing was changed");
    assert_eq!(numbers(&project), unpacked, "what is whole is used as it is");

    // The same length and the same times: what a step reads, and a program that it executes.
    let poison = |project: &Project, name: &str, text: &[u8]| {
        let files = find(project, name);
        assert!(!files.is_empty(), "no {name}");
        for file in files {
            let modified = fs::metadata(&file).unwrap().modified().unwrap();
            fs::write(&file, text).unwrap();
            fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        }
    };
    poison(&project, "hello.txt", b"hullo\n");
    as_ever(&project, "an input was changed");
    poison(&project, "cat", b"#!/bin/sh\necho poison\n");
    as_ever(&project, "a program was changed");
    for path in fs::read_dir(layers(&project).join("tree")).unwrap() {
        fs::write(path.unwrap().path().join("more.txt"), "more").unwrap();
    }
    as_ever(&project, "a file was added");
    // A whole cache from elsewhere, whose own seals would hold.
    let other = project.copy();
    as_ever(&other, "a copy of the home");
    poison(&other, "hello.txt", b"hullo\n");
    fs::remove_dir_all(layers(&project)).unwrap();
    fs::rename(layers(&other), layers(&project)).unwrap();
    as_ever(&project, "a cache of another home");
}

#[test]
fn what_could_not_be_made_durable_is_named_by_no_record() {
    if !can_run_steps("what_could_not_be_made_durable_is_named_by_no_record") {
        return;
    }
    let project = Project::prepared();
    let run = ["run", "--no-scan", "build", "test", "package"];
    project.must(&run);
    // Folders where the log's next tiles belong: nothing can be written there, also by root.
    let checkpoint = fs::read_to_string(project.path("home/log/checkpoint")).unwrap();
    let size: u64 = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    let in_the_way = |size: u64| project.path("home/log/tile/entries/000.p").join(size.to_string());
    for more in 1..20 {
        fs::create_dir_all(in_the_way(size + more).join("x")).unwrap();
    }
    let ended = project.sluicegate(&run);
    assert_ne!(ended.code, 0);
    ended.assert(ended.code, "home/log");
    assert!(!ended.stderr.contains("is proved") && !ended.stderr.contains("is taken"), "{ended:?}");
    let record = project.last_record("run");
    let steps = record["body"]["steps"].as_array().unwrap();
    assert_eq!((&record["outcome"], steps.len()), (&value!("failed"), 3), "{record:#}");
    for step in steps {
        assert_eq!((&step["status"], &step["attestation"]), (&value!("failed"), &Value::Null), "{record:#}");
    }
    let failures = record["body"]["failures"].as_array().unwrap();
    assert!(failures.len() == 3 && failures[0]["error"].as_str().unwrap().contains("could not be kept"), "{record:#}");
    // The home is whole, and the next run takes the same results.
    for more in 1..20 {
        fs::remove_dir_all(in_the_way(size + more)).unwrap();
    }
    project.sluicegate(&["evidence", "fsck"]).assert(0, "WHOLE");
    let (code, again) = project.json(&run);
    assert!(code == 0 && all_are(&again, "taken"), "{again:#}");
    let record = project.last_record("run");
    assert_eq!(record["body"]["steps"][0]["attestation"], again["steps"][0]["attestation"]);
    project.sluicegate(&["evidence", "fsck"]).assert(0, "WHOLE");
}

/// Every signed trace in the store.
fn traces(project: &Project) -> Vec<Value> {
    let blobs = fs::read_dir(project.path("home/store/blobs/sha256")).unwrap().flatten();
    let bundles = blobs.filter_map(|blob| serde_json::from_slice::<Value>(&fs::read(blob.path()).ok()?).ok());
    let payloads = bundles.filter_map(|bundle| Some(integration::decode(bundle["dsseEnvelope"]["payload"].as_str()?)));
    payloads.filter(|statement| statement["predicateType"].as_str().unwrap().contains("runtime-trace")).collect()
}

#[test]
fn a_trace_says_of_a_result_that_was_taken_neither_what_was_opened_nor_who_was_asked() {
    if !can_run_steps("a_trace_says_of_a_result_that_was_taken_neither_what_was_opened_nor_who_was_asked") {
        return;
    }
    let project = Project::prepared();
    project.replace(
        "sluicegate.yaml",
        "    inputs: { /src: src }\n",
        "    inputs: { /src: src }\n    workdir: /src\n    reuse: { key: [hello.txt] }\n    network: { allow: [\"nobody.example:443\"] }\n",
    );
    let run = ["run", "--no-scan", "--observe", "build"];
    project.must(&run);
    let first = traces(&project);
    let network = |trace: &Value| trace["predicate"]["monitorLog"].get("network").cloned();
    assert_eq!(first.iter().map(network).collect::<Vec<_>>(), [Some(value!([]))], "{first:#?}");
    let (code, taken) = project.json(&run);
    assert!(code == 0 && all_are(&taken, "taken"), "{taken:#}");
    let second: Vec<Value> = traces(&project).into_iter().filter(|trace| !first.contains(trace)).collect();
    assert_eq!(second.iter().map(network).collect::<Vec<_>>(), [None], "{second:#?}");
}
