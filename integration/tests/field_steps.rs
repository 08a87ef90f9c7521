//! Field cases about running and caching steps that others reported (`shared/field/executor.md`).

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use integration::{Ended, Project, can_run_steps};
use serde_json::{Value, json};
use sluicegate_types::Digest;

use crate::field_executor::Inputs;

const BASE: &str = "oci:images/base";
const RUN: [&str; 2] = ["run", "--no-scan"];

fn blob(project: &Project, digest: &Value) -> PathBuf {
    project.path("home/store/blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"))
}

/// The log of a step of the newest run, byte for byte as the product gives it.
fn log(project: &Project, step: &str) -> Vec<u8> {
    let output = project.command(&["logs", "LAST", step]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn ex_11_the_report_of_a_failing_test_is_kept_proved_and_never_reused() {
    let test = "ex_11_the_report_of_a_failing_test_is_kept_proved_and_never_reused";
    let Some(inputs) = Inputs::open(test) else { return };
    let project = inputs.project("EX-11-failing-test.yaml", BASE, "");
    let report =
        br#"<testsuite name="s" tests="2"><testcase name="a"/><testcase name="b"><failure/></testcase></testsuite>"#;
    fs::write(project.path("src/report.xml"), report).unwrap();
    for arguments in [&["run", "--no-scan", "-j", "1"][..], &["run", "--no-scan", "--keep-going", "--export", "kept"]] {
        let failed = project.sluicegate(arguments);
        failed.assert(6, "step test ended with code 3");
        assert!(failed.stderr.contains("1 failed"), "{failed:?}");
        let found = project.command(&["logs", "LAST", "test", "--report"]).output().unwrap();
        assert_eq!(found.stdout, report);
        assert_eq!(fs::read(blob(&project, &json!(Digest::of(report)))).unwrap(), report);
        let (_, list) = project.json(&["logs", "LAST"]);
        let step = |name: &str| list["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).cloned();
        let tested = step("test").unwrap();
        assert_eq!((&tested["status"], &tested["exitCode"]), (&json!("failed"), &json!(3)));
        let bundle: Value = serde_json::from_slice(&fs::read(blob(&project, &tested["testResult"])).unwrap()).unwrap();
        let statement = integration::decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap());
        assert_eq!(statement["predicate"]["result"], "FAILED");
        assert_eq!(statement["predicate"]["failedTests"].as_array().unwrap().len(), 1);
        if arguments.contains(&"--keep-going") {
            assert!(step("other").is_some(), "{list}");
            assert_eq!(fs::read(project.path("kept/test/junit")).unwrap(), report);
        }
    }
}

#[test]
fn ex_19_users_streams_and_surroundings_are_what_programs_expect() {
    let test = "ex_19_users_streams_and_surroundings_are_what_programs_expect";
    let Some(inputs) = Inputs::open(test) else { return };
    for (case, id, home) in
        [("user-numeric-no-path", "12345 0", "/"), ("user-named-groups", "1000 1000 2000", "/home/app")]
    {
        let project = Project::prepared();
        // The images of the case have no programs: these lie on top of them, and everything else is as it was.
        let make = format!(
            "version: 1\nname: make\ndefaults: {{ image: \"{BASE}\" }}\nsteps:\n  copy:\n    run: |\n      \
             mkdir -p /o/bin /o/lib /o/lib64; cp -L /usr/bin/sh /usr/bin/id /usr/bin/tee /o/bin/; cp -L /lib64/ld-*.so* /o/lib64/\n      \
             for f in /lib/*/*.so* /usr/lib/*/*.so*; do test -f \"$f\" && cp -L \"$f\" /o/lib/; done\n    \
             outputs: {{ bin: /o/bin, lib: /o/lib, ld: /o/lib64 }}\nartifacts:\n  image:\n    base: \"{}\"\n    \
             files: {{ /usr/bin: copy.bin, /usr/lib: copy.lib, /lib64: copy.ld }}\n    repository: oci:user\n",
            inputs.reference(case)
        );
        fs::write(project.path("make.yaml"), make).unwrap();
        project.must(&["run", "--no-scan", "-f", "make.yaml"]);
        let config = inputs.flatten(&inputs.layout(case), None)["config"]["config"].clone();
        assert_eq!(config.get("Env").is_none(), case == "user-numeric-no-path", "{config}");
        let text = fs::read_to_string(inputs.layout("../pipelines/EX-19-streams.yaml")).unwrap();
        let text = text.replace("@IMG@", "oci:user").replace("path: .", "path: src");
        fs::write(project.path("sluicegate.yaml"), text).unwrap();
        // Ours stays open and has something to say; the step's is empty at once.
        let mut command = project.command(&RUN);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let (held, ended) = {
            let mut child = child;
            let held = child.stdin.take();
            (held, child.wait_with_output().unwrap())
        };
        Ended::of(&RUN, ended).assert(0, "");
        drop(held);
        let log = String::from_utf8(log(&project, "streams")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        let (uid, groups) = id.split_once(' ').unwrap();
        assert_eq!(lines[..3], [uid, groups, &format!("HOME={home}")], "{log}");
        assert!(lines[3].len() > "PATH=".len() && lines[3].starts_with("PATH="), "{log}");
        let mut rest = lines[4..].to_vec();
        rest.sort_unstable();
        assert_eq!(rest, ["fd", "stdin-is-empty", "tee", "tee", "to-stderr", "to-stdout"], "{log}");
    }
}

#[test]
fn ex_23_a_log_is_kept_byte_for_byte_and_shown_harmlessly() {
    let test = "ex_23_a_log_is_kept_byte_for_byte_and_shown_harmlessly";
    let Some(inputs) = Inputs::open(test) else { return };
    let mut expected = vec![b'x'; 3 * 1024 * 1024];
    expected.extend_from_slice(b"\xff\xfe not utf-8 \r over \x1b[31mred\x1b[0m nul:\0: no newline at the end");
    for (exit, code) in [("", 0), ("exit 9", 6)] {
        let project = inputs.project("EX-23-log-bytes.yaml", BASE, "");
        project.replace("sluicegate.yaml", "at the end'\n", &format!("at the end'\n      {exit}\n"));
        let ended = project.sluicegate(&["run", "--no-scan", "-o", "json"]);
        ended.assert(code, "");
        let document: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert!(!ended.stderr.contains('\x1b') && !ended.stderr.contains('\0'));
        assert_eq!(log(&project, "noisy"), expected);
        if code == 0 {
            assert_eq!(document["steps"][0]["log"], json!(Digest::of(&expected)));
        }
    }
}

#[test]
fn ex_24_values_and_scripts_arrive_as_they_were_written() {
    let test = "ex_24_values_and_scripts_arrive_as_they_were_written";
    let Some(inputs) = Inputs::open(test) else { return };
    // Words that one reader takes for a truth value and another for a text are refused with their line.
    let project = inputs.project("EX-24-scalars.yaml", BASE, "");
    project.sluicegate(&RUN).assert(2, "line 8");
    project.replace("sluicegate.yaml", "B: on,", "B: \"on\",");
    project.replace("sluicegate.yaml", "G: null", "G: \"null\"");
    project.must(&RUN);
    assert_eq!(log(&project, "show"), b"[1.20][on][0755][0x10][1e3][2024-01-02][null]");
    let project = inputs.project("EX-24-crlf.yaml", BASE, "");
    project.must(&RUN);
    let (_, list) = project.json(&["logs", "LAST"]);
    assert_eq!(log(&project, list["steps"][0]["step"].as_str().unwrap()), b"first\nlast\n");
    let project = inputs.project("EX-24-long-script.yaml", BASE, "");
    project.sluicegate(&RUN).assert(2, "131071");
}

#[test]
fn ex_31_a_localhost_without_a_network_and_mounts_in_mounts() {
    let test = "ex_31_a_localhost_without_a_network_and_mounts_in_mounts";
    let Some(inputs) = Inputs::open(test) else { return };
    let project = inputs.project("EX-31-nested-mounts.yaml", BASE, "");
    fs::create_dir(project.path("src/vendor")).unwrap();
    fs::write(project.path("src/vendor/own"), "own").unwrap();
    fs::write(project.path("src/data"), "data").unwrap();
    project.must(&["run", "--no-scan", "--export", "kept"]);
    assert_eq!(log(&project, "use"), b"dep\n/src/data\n");
    let names = |folder: &str| {
        let list = fs::read_dir(project.path(folder)).unwrap();
        let mut names: Vec<String> = list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("kept/use/all/vendor"), ["dep"]);
    assert_eq!(names("kept/use/all"), ["data", "hello.txt", "vendor"]);
    project.replace("sluicegate.yaml", "/src/vendor: dep.dep, /src: src", "/src: src, /src/vendor: dep.dep");
    let (_, run) = project.json(&["run", "--no-scan"]);
    assert!(run["steps"].as_array().unwrap().iter().all(|step| step["status"] == "taken"), "{run}");
    // What the container needs for names is in no output.
    let etc = format!(
        "version: 1\nname: etc\ndefaults: {{ image: \"{BASE}\" }}\nsteps:\n  keep:\n    run: [\"true\"]\n    outputs: {{ etc: /etc }}\n"
    );
    fs::write(project.path("sluicegate.yaml"), etc).unwrap();
    project.must(&["run", "--no-scan", "--export", "etc"]);
    let etc = project.path("etc/keep/etc");
    assert!(etc.join("passwd").exists(), "what the image has is kept");
    for name in ["hosts", "resolv.conf", "hostname", "mtab"] {
        assert!(!etc.join(name).exists(), "{name}");
    }
}

/// What is changed between two runs, and whether the second one may take the first one's result.
type Row = (&'static str, fn(&Project), &'static str);

#[test]
fn ex_32_every_row_of_the_table_of_cache_keys() {
    let test = "ex_32_every_row_of_the_table_of_cache_keys";
    let Some(inputs) = Inputs::open(test) else { return };
    let rows: [Row; 16] = [
        ("touch", |p| touch(&p.path("src/data")), "taken"),
        ("rename", |p| fs::rename(p.path("src/data"), p.path("src/datb")).unwrap(), "passed"),
        (
            "swap",
            |p| {
                fs::write(p.path("src/ab"), "data").unwrap();
                fs::write(p.path("src/data"), "c").unwrap();
            },
            "passed",
        ),
        ("exec-bit", |p| mode(&p.path("src/data"), 0o755), "passed"),
        ("write-bit", |p| mode(&p.path("src/data"), 0o664), "taken"),
        ("symlink-target", |p| link(p, "two"), "passed"),
        (
            "file-to-symlink",
            |p| {
                fs::remove_file(p.path("src/two")).unwrap();
                symlink("one", p.path("src/two")).unwrap();
            },
            "passed",
        ),
        (
            "boundary",
            |p| {
                fs::remove_file(p.path("src/ab")).unwrap();
                fs::write(p.path("src/a"), "bc").unwrap();
            },
            "passed",
        ),
        ("ignored-file", |p| fs::write(p.path("src/ignored"), "other").unwrap(), "taken"),
        ("env-order", |p| p.replace("sluicegate.yaml", "{ A: \"1\", B: \"2\" }", "{ B: \"2\", A: \"1\" }"), "taken"),
        (
            "env-boundary",
            |p| p.replace("sluicegate.yaml", "{ A: \"1\", B: \"2\" }", "{ A: \"1\", B: \"\", c: \"2\" }"),
            "passed",
        ),
        ("argv-split", |p| p.replace("sluicegate.yaml", "[echo, 'a b']", "[echo, a, b]"), "passed"),
        ("string-or-list", |p| p.replace("sluicegate.yaml", "[echo, 'a b']", "echo a b"), "passed"),
        ("comment", |p| p.replace("sluicegate.yaml", "steps:\n", "# a comment\nsteps:\n"), "taken"),
        ("lost-output", |p| damage(p, |path| fs::remove_file(path).unwrap()), "passed"),
        (
            "cut-output",
            |p| {
                damage(p, |path| {
                    let bytes = fs::read(path).unwrap();
                    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
                })
            },
            "passed",
        ),
    ];
    let table: Value = serde_json::from_slice(&fs::read(inputs.layout("../CACHE.json")).unwrap()).unwrap();
    let named: Vec<&str> = table.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(named, rows.map(|(id, ..)| id), "the table has these rows");
    for ((id, change, expected), row) in rows.into_iter().zip(table.as_array().unwrap()) {
        let says = if expected == "taken" { "hit" } else { "miss" };
        assert!(row["expect"].as_str().unwrap().starts_with(says), "{id}");
        let project = Project::prepared();
        for (name, text) in
            [("data", "data"), ("ab", "c"), ("d", ""), ("one", "same"), ("two", "same"), ("ignored", "x")]
        {
            fs::write(project.path("src").join(name), text).unwrap();
        }
        fs::write(project.path("src/.sluicegateignore"), "ignored\n").unwrap();
        link(&project, "one");
        let text = format!(
            "version: 1\nname: table\nsources: {{ src: {{ path: src }} }}\ndefaults: {{ image: \"{BASE}\" }}\nsteps:\n  step:\n    \
             run: {}\n    inputs: {{ /src: src }}\n    env: {{ A: \"1\", B: \"2\" }}\n    outputs: {{ all: /out/all }}\n",
            if ["argv-split", "string-or-list"].contains(&id) {
                "[echo, 'a b']"
            } else {
                "ls /src && mkdir -p /out && cp -r /src /out/all && touch /out/all/more"
            }
        );
        let text = if ["argv-split", "string-or-list"].contains(&id) {
            text.replace("    outputs: { all: /out/all }\n", "")
        } else {
            text
        };
        fs::write(project.path("sluicegate.yaml"), text).unwrap();
        let (_, first) = project.json(&RUN);
        assert_eq!(first["steps"][0]["status"], "passed", "{id}: {first}");
        change(&project);
        let (code, second) = project.json(&RUN);
        assert_eq!((code, &second["steps"][0]["status"]), (0, &json!(expected)), "{id}");
        if id.ends_with("-output") {
            assert_eq!(first["steps"][0]["outputs"], second["steps"][0]["outputs"], "{id}: it healed");
        }
        if expected == "passed" && !id.ends_with("-output") {
            assert_ne!(first["steps"][0]["key"], second["steps"][0]["key"], "{id}");
        }
    }
}

fn touch(path: &Path) {
    assert!(Command::new("touch").args(["-d", "2001-01-01T00:00:00Z"]).arg(path).status().unwrap().success());
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn link(project: &Project, to: &str) {
    let path = project.path("src/link");
    let _ = fs::remove_file(&path);
    symlink(to, path).unwrap();
}

fn damage(project: &Project, damage: impl Fn(&Path)) {
    let (_, list) = project.json(&["logs", "LAST"]);
    damage(&blob(project, &list["steps"][0]["outputs"]["all"]));
}

#[test]
fn explain_names_the_part_of_the_key_that_changed() {
    if !can_run_steps("explain_names_the_part_of_the_key_that_changed") {
        return;
    }
    let project = Project::prepared();
    project.must(&RUN);
    project.sluicegate(&["explain", "build"]).assert(0, "nothing of its key has changed");
    project.replace("sluicegate.yaml", "printf 'built\\n'", "printf 'built again\\n'");
    project.sluicegate(&["explain", "build"]).assert(0, "run.2: ");
    let (_, explained) = project.json(&["explain", "test"]);
    assert_eq!((&explained["fate"], &explained["waitsFor"]), (&json!("open"), &json!(["build"])));
    // Only with --diff it says what has changed.
    let (changed, plain) = (project.must(&["plan", "--diff"]), project.must(&["plan"]));
    for (said, has) in [(changed.stdout, true), (plain.stdout, false)] {
        assert!(said.contains("RUNS") && said.contains("    run.2: ") == has, "{said}");
    }
    let plan = |arguments: &[&str]| project.json(arguments).1;
    let build =
        |plan: &Value| plan["steps"].as_array().unwrap().iter().find(|step| step["step"] == "build").unwrap().clone();
    assert_eq!(build(&plan(&["plan", "--diff"]))["changed"][0]["part"], "run.2");
    assert_eq!(build(&plan(&["plan"])).get("changed"), None);
    project.sluicegate(&["plan", "--dot"]).assert(0, "\"build\" -> \"test\"");
}
