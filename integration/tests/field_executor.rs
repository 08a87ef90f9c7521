//! Field cases about images that others reported (`shared/field/executor.md`): what is put onto a base, and what steps run in.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use integration::{Ended, Layout, Project, can_run_steps, program, ready, shared};
use serde_json::{Value, json};
use sluicegate_testkit::{Behaviour, TestRegistry, VirtualLog};
use sluicegate_types::Digest;

use crate::another_builder::{OTHER_LOG, project_of_another_builder, publish_proved};

/// The unpacked inputs, with the independent reading of images beside them.
pub(crate) struct Inputs {
    folder: tempfile::TempDir,
    flatten: PathBuf,
    pub(crate) cases: Value,
}

impl Inputs {
    /// `None` with a visible line, or a failure where peers are demanded.
    pub(crate) fn open(test: &str) -> Option<Self> {
        if !can_run_steps(test) {
            return None;
        }
        let (archive, flatten) = (shared("field/executor.tar.gz", test)?, shared("field/flatten.py", test)?);
        let folder = tempfile::tempdir().unwrap();
        let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder.path()).status();
        assert!(unpacked.is_ok_and(|status| status.success()), "tar -xzf {}", archive.display());
        let cases = fs::read(folder.path().join("executor/CASES.json")).unwrap();
        Some(Self { folder, flatten, cases: serde_json::from_slice(&cases).unwrap() })
    }

    pub(crate) fn layout(&self, case: &str) -> PathBuf {
        self.folder.path().join("executor/layouts").join(case)
    }

    /// The cases of one id that are layouts.
    fn of(&self, id: &str) -> Vec<String> {
        let cases = self.cases.as_object().unwrap().iter();
        let of_id = cases.filter(|(_, case)| case["scenario"].as_str().unwrap().split(' ').any(|one| one == id));
        of_id.map(|(name, _)| name.clone()).filter(|name| self.layout(name).is_dir()).collect()
    }

    /// A project whose pipeline is that of a case.
    pub(crate) fn project(&self, pipeline: &str, image: &str, base: &str) -> Project {
        let project = Project::prepared();
        let text = fs::read_to_string(self.folder.path().join("executor/pipelines").join(pipeline)).unwrap();
        let text = text.replace("@IMG@", image).replace("@BASE@", base).replace("@DEST@", "dest");
        fs::write(project.path("sluicegate.yaml"), text.replace("path: .", "path: src")).unwrap();
        project
    }

    pub(crate) fn reference(&self, case: &str) -> String {
        format!("oci:{}", self.layout(case).display())
    }

    /// What the independent reading finds in a layout.
    pub(crate) fn flatten(&self, layout: &Path, digest: Option<&str>) -> Value {
        let output = Command::new("python3").arg(&self.flatten).arg(layout).args(digest).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a run left at `dest`, without a problem.
    fn built(&self, project: &Project) -> Value {
        let image = Layout::at(project.path("dest")).image();
        let flat = self.flatten(&project.path("dest"), Some(&image));
        assert_eq!(flat["problems"], json!([]), "{flat:#}");
        flat
    }

    /// That a tree has what the case expects.
    #[track_caller]
    fn assert_expected(&self, case: &str, tree: &Value) {
        for (path, expected) in self.cases[case]["expect"].as_object().unwrap() {
            assert!(tree[path].is_object(), "{case}: no {path}");
            for (key, value) in expected.as_object().unwrap() {
                assert_eq!(&tree[path][key], value, "{case}: {path}: {key}");
            }
        }
    }
}

const BASE: &str = "oci:images/base";
const RUN: [&str; 2] = ["run", "--no-scan"];
const EX_12: &str = "EX-12-existing-parents.yaml";
const EX_18: &str = "EX-18-entrypoint.yaml";

fn owner(entry: &Value) -> (&Value, &Value, &Value) {
    (&entry["mode"], &entry["uid"], &entry["gid"])
}

#[test]
fn ex_12_parents_of_a_copied_file_stay_as_the_base_has_them() {
    let Some(inputs) = Inputs::open("ex_12_parents_of_a_copied_file_stay_as_the_base_has_them") else { return };
    let base = inputs.reference("base-rich-config");
    let digest = |umask: &str, more: &str| {
        let project = inputs.project(EX_12, BASE, &base);
        project.replace("sluicegate.yaml", "files: {", &format!("files: {{{more}"));
        let mut command = Command::new("sh");
        project.environment(&mut command);
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(program()).args(RUN);
        Ended::of(&RUN, command.output().unwrap()).assert(0, "");
        let flat = inputs.built(&project);
        let tree = &flat["tree"];
        inputs.assert_expected("base-rich-config", tree);
        for new in ["opt", "opt/new", "opt/new/deep"] {
            assert_eq!(owner(&tree[new]), (&json!("0755"), &json!(0), &json!(0)), "{new}");
        }
        for file in ["tmp/seed", "home/app/x", "opt/new/deep/x"] {
            assert_eq!(tree[file]["type"], "file", "{file}");
        }
        if !more.is_empty() {
            for (link, file) in [("bin", "usr/bin/x"), ("var/run", "run/x")] {
                assert_eq!((&tree[link]["type"], &tree[file]["type"]), (&json!("symlink"), &json!("file")), "{link}");
            }
        }
        flat["digest"].clone()
    };
    assert_eq!(digest("022", ""), digest("077", ""));
    assert_eq!(
        digest("022", " /bin/x: make.tool, /var/run/x: make.tool,"),
        digest("077", " /bin/x: make.tool, /var/run/x: make.tool,")
    );
    // What would take something of the base away is refused, beside what does not.
    for (path, says) in
        [("/bin", "is a link to the folder"), ("/tmp", "has the folder"), ("/etc/passwd/x", "is no folder")]
    {
        let project = inputs.project(EX_12, BASE, &base);
        project.replace("sluicegate.yaml", "/tmp/seed:", &format!("{path}:"));
        project.sluicegate(&RUN).assert(2, says);
    }
    let project = inputs.project(EX_12, BASE, &base);
    project.replace("sluicegate.yaml", "/tmp/seed:", "/etc/passwd:");
    project.must(&RUN);
}

#[test]
fn ex_14_the_image_is_for_another_platform() {
    let Some(inputs) = Inputs::open("ex_14_the_image_is_for_another_platform") else { return };
    for case in inputs.of("EX-14") {
        for (image, base) in [(BASE, inputs.reference(&case)), (&inputs.reference(&case), BASE.to_owned())] {
            let project = inputs.project(EX_18, image, &base);
            let ended = project.sluicegate(&RUN);
            ended.assert(2, "linux/arm64");
            ended.assert(2, "linux/amd64");
            assert!(!ended.stderr.contains("step make runs"), "{ended:?}");
            assert!(!project.path("dest").exists());
        }
    }
    inputs.project(EX_18, BASE, BASE).must(&RUN);
}

#[test]
fn ex_17_a_pretty_manifest_keeps_its_digest() {
    let Some(inputs) = Inputs::open("ex_17_a_pretty_manifest_keeps_its_digest") else { return };
    let digest = inputs.cases["pretty-manifest"]["digest"].as_str().unwrap();
    let base = inputs.reference("pretty-manifest");
    let project = inputs.project(EX_18, BASE, &base);
    project.must(&RUN).assert(0, digest);
    inputs.assert_expected("pretty-manifest", &inputs.built(&project)["tree"]);
    let provenance = Layout::at(project.path("dest")).attached("https://slsa.dev/provenance/v1");
    assert!(provenance["predicate"]["buildDefinition"]["resolvedDependencies"].to_string().contains(&digest[7..]));
    // And as the image of a step.
    let looked = Project::prepared();
    fs::write(looked.path("src/script"), "exit 0\n").unwrap();
    fs::write(looked.path("sluicegate.yaml"), LOOK.replace("@IMG@", &base)).unwrap();
    let (_, plan) = looked.json(&["plan"]);
    assert!(plan["images"].as_array().unwrap().iter().any(|image| image["digest"] == digest), "{plan:#}");
    looked.must(&RUN);
    assert!(looked.provenance("look")["buildDefinition"]["resolvedDependencies"].to_string().contains(&digest[7..]));
    let original = fs::read(Layout::at(inputs.layout("pretty-manifest")).blob(digest)).unwrap();
    let registry = TestRegistry::start(Behaviour::default());
    let first = format!("{}/first:a", registry.host());
    project.must(&["copy", &base, &first]);
    project.must(&["copy", &first, &format!("{}/second:a", registry.host())]);
    // And back to a folder, where any other program sees its bytes.
    project.must(&["copy", &format!("{}/second:a", registry.host()), "oci:back"]);
    let copied = fs::read(Layout::at(project.path("back")).blob(digest)).unwrap();
    assert_eq!((Digest::of(&copied).to_string().as_str(), &copied), (digest, &original));
    // What nobody proved is promoted nowhere; proved, it arrives as it was. Without a gate, as no scanner knows the system in it.
    if !ready("ex_17_a_pretty_manifest_keeps_its_digest") {
        return;
    }
    let log = VirtualLog::new(OTHER_LOG);
    let releasing = project_of_another_builder(&log);
    let staging = format!("{}/staging/tiny", registry.host());
    releasing.replace("gateway.yaml", "oci:env/staging", &staging);
    let promote = |from: &str| releasing.sluicegate(&["promote", from, "--to", "staging"]);
    promote(&first).assert(3, "UNDECIDED");
    assert_eq!(registry.tags("staging/tiny"), Vec::<String>::new());
    let layout = Layout::at(inputs.layout("pretty-manifest"));
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let image = publish_proved(&layout, (media_type, original.clone()), &log, &registry);
    assert_eq!(image.digest().to_string(), digest);
    promote(&format!("{}/build/tiny@{digest}", registry.host())).assert(0, digest);
    releasing.must(&["copy", &format!("{staging}:current"), "oci:promoted"]);
    let promoted = Layout::at(releasing.path("promoted"));
    assert_eq!(promoted.image(), digest);
    assert_eq!(fs::read(promoted.blob(digest)).unwrap(), original);
}

#[test]
fn ex_18_what_the_bases_configuration_becomes() {
    let Some(inputs) = Inputs::open("ex_18_what_the_bases_configuration_becomes") else { return };
    for case in ["base-rich-config", "base-no-history", "base-docker-types"] {
        let own = inputs.flatten(&inputs.layout(case), None)["config"].clone();
        let run = || {
            let project = inputs.project(EX_18, BASE, &inputs.reference(case));
            project.must(&RUN);
            inputs.built(&project)
        };
        let flat = run();
        let mut expected = own["config"].clone();
        expected.as_object_mut().unwrap().remove("Cmd");
        expected["Entrypoint"] = json!(["/opt/tool"]);
        assert_eq!(flat["config"]["config"], expected, "{case}");
        match own["history"].as_array() {
            None => assert!(flat["config"].get("history").is_none(), "{case}"),
            Some(steps) => {
                let history = flat["config"]["history"].as_array().unwrap();
                assert_eq!((&history[..steps.len()], history.len()), (&steps[..], steps.len() + 1), "{case}");
            }
        }
        for _ in 0..9 {
            assert_eq!(run()["digest"], flat["digest"], "{case}");
        }
    }
    // Key by key: what is given anew in its place, and everything else as it was.
    let project = inputs.project(EX_18, BASE, &inputs.reference("base-rich-config"));
    let anew = "config: { cmd: [x], env: { PATH: /bin, A: b }, labels: { own: label } }";
    project.replace("sluicegate.yaml", "config: { entrypoint: [/opt/tool] }", anew);
    project.must(&RUN);
    let config = inputs.built(&project)["config"]["config"].clone();
    assert_eq!((&config["Cmd"], &config["Env"]), (&json!(["x"]), &json!(["PATH=/bin", "A=b"])));
    assert_eq!((&config["Labels"], &config["User"]), (&json!({"from": "base", "own": "label"}), &json!("app")));
}

/// A pipeline that packs everything in the image of its second step, by programs of the first one's: the images of the cases have none.
const LOOK: &str = r#"version: 1
name: look
sources: { src: { path: src } }
defaults: { image: oci:images/base }
steps:
  tools:
    run: |
      mkdir -p /out/lib; cp -L /usr/bin/sh /usr/bin/stat /usr/bin/sha256sum /usr/bin/cat /out/
      for f in /lib/*/*.so* /usr/lib/*/*.so* /lib64/ld-*.so*; do test -f "$f" && cp -L "$f" /out/lib/; done
      for f in /out/lib/ld-*.so*; do cp "$f" /out/ld; done
    outputs: { t: /out }
  look:
    image: "@IMG@"
    run: [/t/ld, --library-path, /t/lib, /t/sh, /t-script/script]
    inputs: { /t: tools.t, /t-script: src }
artifacts:
  img: { base: oci:images/base, files: { /x: tools.t }, needs: [look], repository: oci:dest }
"#;

#[test]
fn ex_25_the_layer_zoo() {
    let Some(inputs) = Inputs::open("ex_25_the_layer_zoo") else { return };
    let cases = inputs.of("EX-25");
    assert!(cases.len() >= 8, "{cases:?}");
    for case in cases {
        let project = inputs.project(EX_18, BASE, &inputs.reference(&case));
        project.must(&RUN);
        inputs.assert_expected(&case, &inputs.built(&project)["tree"]);
        let original = inputs.flatten(&inputs.layout(&case), None);
        let project = Project::prepared();
        let mut script = "l='/t/ld --library-path /t/lib'\n".to_owned();
        let mut expected = Vec::new();
        for (path, entry) in original["tree"].as_object().unwrap() {
            if path.contains('%') || path == "/" {
                continue;
            }
            script.push_str(&format!("$l /t/stat -c '%n %a %u %g %s %Y %F' '/{path}'\n"));
            let mode = entry["mode"].as_str().unwrap().trim_start_matches('0').to_owned();
            let line = format!("/{path} {mode} {} {} ", entry["uid"], entry["gid"]);
            let line = match entry["type"].as_str().unwrap() {
                "file" => {
                    let sum = entry["sha256"].as_str().unwrap();
                    script.push_str(&format!("$l /t/sha256sum '/{path}'\n"));
                    expected.push(format!("{sum}  /{path}"));
                    let time = entry["mtime"].as_str().unwrap_or("0").split('.').next().unwrap().to_owned();
                    format!("{line}{} {time} regular", entry["size"])
                }
                "dir" => line,
                _ => format!("/{path} 777 "),
            };
            expected.push(line);
        }
        script.push_str(
            "$l /t/stat -c 'root %a' /\nfor f in /zoo/latin*; do if test -e \"$f\"; then $l /t/cat \"$f\"; fi; done\n",
        );
        expected.push(format!("root {}", original["tree"]["/"]["mode"].as_str().unwrap().trim_start_matches('0')));
        fs::write(project.path("src/script"), script).unwrap();
        fs::write(project.path("sluicegate.yaml"), LOOK.replace("@IMG@", &inputs.reference(&case))).unwrap();
        let ended = project.sluicegate(&RUN);
        ended.assert(0, "");
        let said: Vec<&str> = ended.stdout.lines().chain(ended.stderr.lines()).collect();
        for line in expected {
            assert!(said.iter().any(|said| said.contains(&line)), "{case}: {line:?} is not in\n{}", said.join("\n"));
        }
        if case == "zoo" {
            assert!(said.iter().any(|said| said.contains("raw")), "{}", said.join("\n"));
        }
    }
}

#[test]
fn ex_26_an_index_in_an_index_and_two_names() {
    let Some(inputs) = Inputs::open("ex_26_an_index_in_an_index_and_two_names") else { return };
    let nested = inputs.cases["index-nested"].clone();
    let project = inputs.project(EX_18, BASE, &inputs.reference("index-nested"));
    project.must(&RUN).assert(0, nested["amd64"].as_str().unwrap());
    let dependencies = Layout::at(project.path("dest")).attached("https://slsa.dev/provenance/v1");
    let dependencies = dependencies["predicate"]["buildDefinition"]["resolvedDependencies"].to_string();
    for name in ["amd64", "index"] {
        assert!(dependencies.contains(&nested[name].as_str().unwrap()[7..]), "{name}: {dependencies}");
    }
    assert!(!dependencies.contains(&nested["arm64"].as_str().unwrap()[7..]));
    let project = Project::prepared();
    fs::write(project.path("src/script"), "/t/ld --library-path /t/lib /t/cat /arch\n").unwrap();
    fs::write(project.path("sluicegate.yaml"), LOOK.replace("@IMG@", &inputs.reference("index-nested"))).unwrap();
    project.must(&RUN).assert(0, "amd64");

    let two = inputs.reference("index-two-tags");
    let run = |base: &str| inputs.project(EX_18, BASE, base).sluicegate(&RUN);
    for unclear in [two.clone(), format!("{two}:c")] {
        let ended = run(&unclear);
        ended.assert(2, "(a)");
        ended.assert(2, "registry.example/shop:b");
    }
    run(&format!("{two}:a")).assert(0, inputs.cases["index-two-tags"]["a"].as_str().unwrap());
}
