//! Makes `fixtures/verified-layout` anew: a small image with its whole evidence, for machines where steps cannot run.
//!
//! Its keys and its log exist only while this runs; what is kept are public keys, so nobody can add to it later.

use std::fs;
use std::process::Command;

use crate::commands;
use crate::demo;
use crate::failure::{Failure, Outcome};
use crate::oci_layout;
use crate::workspace::Workspace;

const PIPELINE: &str = r#"version: 1
name: greeting
sources: { words: { path: words } }
defaults: { image: oci:image }
steps:
  write:
    run: mkdir -p /out && cat /words/hello.txt > /out/greeting
    inputs: { /words: words }
    outputs: { greeting: /out/greeting }
  read:
    run: >-
      mkdir -p /out && grep -q hello /greeting &&
      printf '<testsuite name="greeting" tests="1"><testcase classname="greeting" name="says hello"/></testsuite>' > /out/junit.xml
    inputs: { /greeting: write.greeting }
    reports: { junit: /out/junit.xml }
artifacts:
  greeting:
    base: scratch
    files: { /greeting: write.greeting }
    needs: [read]
    repository: oci:layout
"#;

/// Runs a pipeline in `target/shipped-layout` and copies what it left to `fixtures/verified-layout`.
pub fn make(workspace: &Workspace) -> Outcome {
    let sluicegate = demo::build(workspace)?;
    let work = workspace.path("target/shipped-layout");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(Failure::while_doing(format!("remove {}", work.display())))?;
    }
    let write = |name: &str, text: &str| {
        let path = work.join(name);
        fs::write(&path, text).map_err(Failure::while_doing(format!("write {}", path.display())))
    };
    let words = work.join("words");
    fs::create_dir_all(&words).map_err(Failure::while_doing(format!("create {}", words.display())))?;
    write("words/hello.txt", "hello\n")?;
    write("sluicegate.yaml", PIPELINE)?;
    // A work tree of its own: in ours, git ignores everything below target.
    commands::run(Command::new("git").args(["init", "--quiet"]).current_dir(&work))?;
    for arguments in [
        &[
            "image",
            "from-host",
            "--binary",
            "sh",
            "--binary",
            "grep",
            "--package",
            "coreutils",
            "--output",
            "oci:image",
        ][..],
        &["init"],
        &["run", "--no-scan"],
        &["verify", "--offline", "oci:layout"],
    ] {
        let mut command = Command::new(&sluicegate);
        command.args(arguments).current_dir(&work);
        commands::run(command.env("SLUICEGATE_HOME", work.join("home")).env("COSIGN_PASSWORD", "thrown away"))?;
    }
    let digest = oci_layout::image_digest(&work.join("layout"))?;
    write("DIGEST", &format!("{digest}\n"))?;
    let kept = workspace.path("fixtures/verified-layout");
    for part in ["layout", "trust", "gateway.yaml", "DIGEST"] {
        let to = kept.join(part);
        commands::run(Command::new("rm").arg("-rf").arg(&to))?;
        commands::run(Command::new("cp").arg("-r").arg(work.join(part)).arg(&to))?;
    }
    commands::run(Command::new("rm").arg("-f").arg(kept.join("layout/.sluicegate.lock")))
}
