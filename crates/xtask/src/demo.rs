//! `cargo xtask demo`: the main job on the sample project, from an empty folder to a verified promotion. Each command is printed in a form
//! that a newcomer can repeat, its exit code is checked, and `target/demo/demo.json` records it.

mod registry;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::advisory_db;
use crate::commands;
use crate::demo_record::{self, Recorded};
use crate::failure::{Failure, Outcome};
use crate::json::Json;
use crate::oci_layout;
use crate::setup::{self, Extent};
use crate::tools::{self, Wheel};
use crate::workspace::Workspace;
use registry::Place;

/// h11 as the sample project locks it first: CVE-2025-43859 was published for it.
const VULNERABLE: Wheel = Wheel {
    project: "h11",
    version: "0.14.0",
    file: "h11-0.14.0-py3-none-any.whl",
    sha256: "e3fe4ac4b851c468cc8363d500db52c2ead036020723024a109d37346efaa761",
};
/// h11 with the fix.
const FIXED: Wheel = Wheel {
    project: "h11",
    version: "0.16.0",
    file: "h11-0.16.0-py3-none-any.whl",
    sha256: "63cf8bbe7522de3bf65932fda1d9c2772064ffb3dae62d55932da54b31cb6c86",
};

/// What the base image holds: Python with its library, and exactly what that needs.
const BASE: &[&str] = &["--package", "python3", "--closure"];
/// What the steps run in: the same, a shell and the usual small programs.
const BUILD: &[&str] = &["--package", "python3", "--package", "dash", "--package", "coreutils", "--closure"];

/// The same author and moment at each run, so that the source, and with it the image, has the same digest.
const ENVIRONMENT: [(&str, &str); 9] = [
    ("COSIGN_PASSWORD", "demo"),
    ("GIT_AUTHOR_NAME", "Demo"),
    ("GIT_AUTHOR_EMAIL", "demo@example.org"),
    ("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z"),
    ("GIT_COMMITTER_NAME", "Demo"),
    ("GIT_COMMITTER_EMAIL", "demo@example.org"),
    ("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
];

/// Asks the gate about what the pipeline left.
const PROMOTE: [&str; 4] = ["promote", "oci:out/shop", "--to", "production"];
/// The number of the denial's record: after a run, a decision that was left open, and another run.
const DENIAL: &str = "4";

const DENIED: i32 = 1;
const UNDECIDED: i32 = 3;
const WRONG: i32 = 4;
const UNAVAILABLE: i32 = 5;
/// How `sluicegate run` says, with exit code 5, that this machine cannot run containers.
const CANNOT_RUN: &str = "steps cannot run here";

const NO_STEPS: &str = "steps cannot run here, for the reason above";

/// How far the demo came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Everything.
    Everything,
    /// Steps cannot run on this machine: verification and its refusal only, on the layout shipped in `fixtures`.
    WithoutSteps,
}

/// Runs the demo, without Trivy if `scan` is false.
pub fn run(workspace: &Workspace, scan: bool) -> Outcome<Shown> {
    perform(workspace, scan, None)
}

/// Runs the demo with one act more: the same build in a registry, the one at `host`, or one of its own.
pub fn run_with_registry(workspace: &Workspace, host: Option<&str>) -> Outcome<Shown> {
    perform(workspace, true, Some(&Place::find(workspace, host)?))
}

fn perform(workspace: &Workspace, scan: bool, place: Option<&Place>) -> Outcome<Shown> {
    setup::check_machine(Extent::Trivy)?;
    let sluicegate = build(workspace)?;
    let trivy = if scan { Some(tools::trivy(workspace)?) } else { None };
    let started = Instant::now();
    let folder = workspace.path("target/demo");
    tools::remove(&folder)?;
    fs::create_dir_all(&folder).map_err(Failure::while_doing(format!("make {}", folder.display())))?;
    place_wheel(&VULNERABLE, &folder.join("wheels-vulnerable"))?;
    place_wheel(&FIXED, &folder.join("wheels-fixed"))?;

    let mut stage = Stage::open(&folder, &sluicegate)?;
    let shown = play(&mut stage, workspace, trivy.as_deref())?;
    let name = if scan { "demo.json" } else { "demo-no-scan.json" };
    demo_record::write(&folder.join(name), &stage.record)?;
    println!();
    println!(
        "{} commands in {:.1} s; target/demo/{name} lists them",
        stage.record.len(),
        started.elapsed().as_secs_f32()
    );
    if let Some(place) = place {
        with_registry(&mut stage, workspace, place, shown)?;
    }
    Ok(shown)
}

/// The further act, with a record of its own: its registry may be gone afterwards, so that it is not for `demo-replay`.
fn with_registry(stage: &mut Stage, workspace: &Workspace, place: &Place, shown: Shown) -> Outcome {
    let started = Instant::now();
    stage.record.clear();
    registry::play(stage, workspace, place, shown)?;
    demo_record::write(&stage.folder.join("demo-registry.json"), &stage.record)?;
    println!();
    println!(
        "{} commands more in {:.1} s; target/demo/demo-registry.json lists them",
        stage.record.len(),
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

/// The play in its acts.
fn play(stage: &mut Stage, workspace: &Workspace, trivy: Option<&Path>) -> Outcome<Shown> {
    stage.act("a fresh copy of the sample project, and a vulnerability database made of real advisories");
    prepare(stage, workspace)?;

    match system_python() {
        SystemPython::Installed => {}
        SystemPython::Missing => {
            return Err(Failure::new(
                "the images are made of this machine's own Python. As root:\n    apt-get install -y python3",
            ));
        }
        SystemPython::NotDebian => {
            return shipped_layout(stage, workspace, "images are made of Debian packages and this machine has none");
        }
    }
    stage.act("two images from this machine's own packages, and the project's keys, trust and gateway");
    let image = |of: &[&'static str], name: &'static str| [&["image", "from-host"], of, &["--output", name]].concat();
    stage.sluicegate(&image(BASE, "oci:images/base"), 0)?;
    stage.digest_of_image("images/base")?;
    stage.sluicegate(&image(BUILD, "oci:images/build"), 0)?;
    stage.digest_of_image("images/build")?;
    let mut init = vec!["init"];
    let trivy = trivy.map(|path| path.to_string_lossy());
    if let Some(trivy) = &trivy {
        init.extend(["--trivy", trivy, "--db", "../trivy-db"]);
    }
    init.extend(["--allow-base", "oci:images/base"]);
    stage.sluicegate(&init, 0)?;
    stage.act("whoever is judged here owns the judge too; the trust file has to say that such a decision counts");
    stage.run(&["sed", "-i", "s/^authority_self: false/authority_self: true/", "trust/trust.yaml"], 0)?;

    if trivy.is_none() {
        return play_without_scan(stage, workspace);
    }
    stage.act("build, test and package in containers; every step is proved, signed and logged. This pipeline reports no tests");
    stage.run(&["sh", "-c", "grep -v reports: sluicegate.yaml > without-report.yaml"], 0)?;
    if stage.pipeline(&["run", "--file", "without-report.yaml"])? == Shown::WithoutSteps {
        return shipped_layout(stage, workspace, NO_STEPS);
    }
    stage.act("the gate is undecided: nothing says what the tests came to, and nothing passes because it is missing");
    stage.sluicegate(&PROMOTE, UNDECIDED)?;

    stage.act("with the report the gate denies: a critical vulnerability with a fix");
    stage.run_again()?;
    stage.sluicegate(&PROMOTE, DENIED)?;
    stage.act("that decision again, from what was kept with it: the same bytes");
    stage.sluicegate(&["evidence", "replay", DENIAL], 0)?;

    stage.act("the fix");
    stage.run(&["python3", "apply_fix.py", "../wheels-fixed/h11-0.16.0-py3-none-any.whl"], 0)?;
    stage.run(&["git", "add", "--all", "app", "wheels"], 0)?;
    stage.run(&["git", "commit", "--quiet", "--message", "h11 0.16.0, for CVE-2025-43859"], 0)?;
    stage.run_again()?;
    stage.act("the gate allows, and what was promoted verifies without a network");
    stage.sluicegate(&PROMOTE, 0)?;
    let digest = stage.digest_of_image("env/production")?;
    let promoted = format!("oci:env/production@{digest}");
    stage.sluicegate(&["verify", "--offline", "--for", "production", &promoted], 0)?;
    tamper(stage, "env/production", "env/tampered", &digest)?;

    stage.act("the denial stays on record, and what was promoted proves that no record up to its decision was taken out since");
    stage.sluicegate(&["evidence", "list"], 0)?;
    stage.sluicegate(&["evidence", "fsck", "--against", &promoted], 0)?;
    Ok(Shown::Everything)
}

/// Whether the distribution's own Python is there, of which the images are made.
enum SystemPython {
    Installed,
    Missing,
    NotDebian,
}

fn system_python() -> SystemPython {
    if !commands::works(Command::new("dpkg-query").arg("--version")) {
        return SystemPython::NotDebian;
    }
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", "python3"]);
    match commands::output(&mut query) {
        Ok(status) if status.trim() == "installed" => SystemPython::Installed,
        _ => SystemPython::Missing,
    }
}

fn prepare(stage: &mut Stage, workspace: &Workspace) -> Outcome {
    let fixture = workspace.path("fixtures/shop").to_string_lossy().into_owned();
    stage.run(&["rm", "-rf", "shop", "home", "trivy-db", "verified"], 0)?;
    stage.run(&["cp", "-r", &fixture, "shop"], 0)?;
    stage.run(&["mkdir", "shop/wheels"], 0)?;
    stage.run(&["cp", "wheels-vulnerable/h11-0.14.0-py3-none-any.whl", "shop/wheels"], 0)?;
    let xtask = std::env::current_exe().map_err(Failure::while_doing("find this program's own file"))?;
    stage.run(&[&xtask.to_string_lossy(), "advisory-db", "trivy-db"], 0)?;
    let database =
        advisory_db::digest(&stage.folder.join("trivy-db")).map_err(Failure::while_doing("hash the database"))?;
    stage.note("trivy-db", &database);
    stage.enter("shop");
    stage.run(&["git", "-c", "init.defaultBranch=main", "init", "--quiet"], 0)?;
    stage.run(&["git", "add", "--all"], 0)?;
    stage.run(&["git", "commit", "--quiet", "--message", "The shop"], 0)
}

/// Without a scanner the gate cannot be asked: `Undecided`, by design.
fn play_without_scan(stage: &mut Stage, workspace: &Workspace) -> Outcome<Shown> {
    stage.act("build, test and package in containers; without a scan");
    if stage.pipeline(&["run", "--no-scan"])? == Shown::WithoutSteps {
        return shipped_layout(stage, workspace, NO_STEPS);
    }
    stage.act("the gate is undecided: nothing passes because nobody looked");
    stage.sluicegate(&PROMOTE, UNDECIDED)?;
    stage.sluicegate(&["evidence", "list"], 0)?;
    Ok(Shown::Everything)
}

/// Where steps cannot run: what an earlier run of this demo promoted, as it is shipped with the source.
fn shipped_layout(stage: &mut Stage, workspace: &Workspace, reason: &str) -> Outcome<Shown> {
    stage.act(&format!("{reason}; verification works everywhere: here on an image that is shipped with the source"));
    let shipped = workspace.path("fixtures/verified-layout");
    let digest = shipped.join("DIGEST");
    let digest = fs::read_to_string(&digest).map_err(Failure::while_doing(format!("read {}", digest.display())))?;
    stage.enter("");
    stage.run(&["cp", "-r", &shipped.to_string_lossy(), "verified"], 0)?;
    stage.enter("verified");
    let digest = digest.trim();
    stage.sluicegate(&["verify", "--offline", &format!("oci:layout@{digest}")], 0)?;
    tamper(stage, "layout", "tampered", digest)?;
    Ok(Shown::WithoutSteps)
}

/// A copy of the layout with one other bit, and its refusal.
fn tamper(stage: &mut Stage, layout: &str, copy: &str, digest: &str) -> Outcome {
    stage.act("one flipped bit in a copy is refused");
    let layer = oci_layout::last_layer(&stage.cwd.join(layout), digest)?;
    let layer = Path::new(copy).join(layer.strip_prefix(stage.cwd.join(layout)).unwrap_or(&layer));
    // Stored blobs may be read-only, and a copy keeps that.
    let flip = format!(
        r#"import os; p = "{}"; os.chmod(p, 0o644); b = bytearray(open(p, "rb").read()); b[len(b) // 2] ^= 1; open(p, "wb").write(b)"#,
        layer.display()
    );
    stage.run(&["cp", "-r", layout, copy], 0)?;
    stage.run(&["python3", "-c", &flip], 0)?;
    stage.sluicegate(&["verify", "--offline", &format!("oci:{copy}@{digest}")], WRONG)
}

/// Where commands are run, shown, checked and recorded.
struct Stage {
    folder: PathBuf,
    cwd: PathBuf,
    sluicegate: String,
    environment: Vec<(String, String)>,
    record: Vec<Recorded>,
}

impl Stage {
    fn open(folder: &Path, sluicegate: &Path) -> Outcome<Self> {
        let home = folder.join("home");
        let mut environment = vec![("SLUICEGATE_HOME".to_owned(), home.to_string_lossy().into_owned())];
        environment.extend(ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let programs = sluicegate.parent().unwrap_or(sluicegate);
        println!();
        commands::announce(&format!("export PATH={}:\"$PATH\"", commands::quoted(&programs.to_string_lossy())));
        for (name, value) in &environment {
            commands::announce(&format!("export {name}={}", commands::quoted(value)));
        }
        commands::announce(&format!("cd {}", commands::quoted(&folder.to_string_lossy())));
        let sluicegate = sluicegate.to_string_lossy().into_owned();
        Ok(Self { folder: folder.to_owned(), cwd: folder.to_owned(), sluicegate, environment, record: Vec::new() })
    }

    fn act(&self, title: &str) {
        println!("\n# {title}");
    }

    fn enter(&mut self, relative: &str) {
        self.cwd = if relative.is_empty() { self.folder.clone() } else { self.folder.join(relative) };
        commands::announce(&format!("cd {}", commands::quoted(&self.cwd.to_string_lossy())));
    }

    fn sluicegate(&mut self, arguments: &[&str], exit: i32) -> Outcome {
        let argv: Vec<&str> = std::iter::once(self.sluicegate.as_str()).chain(arguments.iter().copied()).collect();
        let argv: Vec<String> = argv.into_iter().map(str::to_owned).collect();
        self.perform(argv, &[exit]).map(|_| ())
    }

    /// What it says while it does all that it has to.
    fn told(&mut self, arguments: &[&str]) -> Outcome<String> {
        let argv =
            std::iter::once(self.sluicegate.clone()).chain(arguments.iter().map(|word| (*word).to_owned())).collect();
        self.perform(argv, &[0]).map(|(_, text)| text)
    }

    fn run(&mut self, argv: &[&str], exit: i32) -> Outcome {
        self.perform(argv.iter().map(|word| (*word).to_owned()).collect(), &[exit]).map(|_| ())
    }

    /// Runs the pipeline; a machine that cannot run steps is told from a pipeline that failed by exit code and words.
    fn pipeline(&mut self, arguments: &[&str]) -> Outcome<Shown> {
        let argv =
            std::iter::once(self.sluicegate.clone()).chain(arguments.iter().map(|word| (*word).to_owned())).collect();
        let (exit, text) = self.perform(argv, &[0, UNAVAILABLE])?;
        if exit == 0 {
            self.digest_of_image("out/shop")?;
            return Ok(Shown::Everything);
        }
        if text.contains(CANNOT_RUN) {
            Ok(Shown::WithoutSteps)
        } else {
            Err(Failure::new(format!("exit {exit}, expected 0")))
        }
    }

    /// Runs the pipeline where it has run before.
    fn run_again(&mut self) -> Outcome {
        match self.pipeline(&["run"])? {
            Shown::Everything => Ok(()),
            Shown::WithoutSteps => Err(Failure::new("steps ran once and cannot run again")),
        }
    }

    fn perform(&mut self, argv: Vec<String>, allowed: &[i32]) -> Outcome<(i32, String)> {
        let mut recorded =
            Recorded { argv, cwd: self.cwd.clone(), env: self.environment.clone(), exit: 0, digests: Vec::new() };
        commands::announce(&recorded.line());
        let started = Instant::now();
        let (exit, text) = recorded.run(true)?;
        let seconds = started.elapsed().as_secs_f32();
        if !allowed.contains(&exit) {
            return Err(Failure::new(format!(
                "`{}` ended with exit code {exit}, expected {allowed:?}",
                recorded.line()
            )));
        }
        if exit != 0 || seconds >= 0.1 {
            println!("  (exit {exit}, {seconds:.1} s)");
        }
        recorded.exit = exit;
        self.record.push(recorded);
        Ok((exit, text))
    }

    /// Notes the digest of a layout's image on the last command.
    fn digest_of_image(&mut self, layout: &str) -> Outcome<String> {
        let digest = oci_layout::image_digest(&self.cwd.join(layout))?;
        self.note(&format!("oci:{layout}"), &digest);
        Ok(digest)
    }

    fn note(&mut self, name: &str, digest: &str) {
        if let Some(last) = self.record.last_mut() {
            last.digests.push((name.to_owned(), digest.to_owned()));
        }
    }
}

/// Builds the program and says where it is; SLUICEGATE_BIN names one that is built already.
pub fn build(workspace: &Workspace) -> Outcome<PathBuf> {
    build_with(workspace, &[])
}

/// The same with further arguments for cargo, such as `--release`.
pub fn build_with(workspace: &Workspace, arguments: &[&str]) -> Outcome<PathBuf> {
    if let Some(named) = std::env::var_os("SLUICEGATE_BIN") {
        return fs::canonicalize(&named).map_err(Failure::while_doing("find the program that SLUICEGATE_BIN names"));
    }
    build_program(workspace, &[&["-p", "sluicegate-cli"], arguments].concat(), "sluicegate")
}

/// Builds what these arguments of `cargo build` name, and says where its program `name` is.
pub fn build_program(workspace: &Workspace, arguments: &[&str], name: &str) -> Outcome<PathBuf> {
    let words = [&["build"], arguments].concat();
    let mut cargo = workspace.cargo();
    commands::announce(&format!("cargo {}", words.join(" ")));
    cargo.args(words).arg("--message-format=json-render-diagnostics");
    for line in commands::output(&mut cargo)?.lines() {
        let Ok(message) = Json::parse(line) else { continue };
        if message.get("target").get("name").as_text() == Some(name)
            && let Some(executable) = message.get("executable").as_text()
        {
            return Ok(executable.into());
        }
    }
    Err(Failure::new(format!("cargo built no program {name}")))
}

fn place_wheel(wheel: &Wheel, folder: &Path) -> Outcome {
    let pip = "python3 -m pip download --no-deps --dest";
    let shown = folder.strip_prefix(folder.ancestors().nth(3).unwrap_or(folder)).unwrap_or(folder);
    commands::announce(&format!("{pip} {} {}=={}", shown.display(), wheel.project, wheel.version));
    let cached = tools::wheel(wheel)?;
    fs::create_dir_all(folder).map_err(Failure::while_doing(format!("make {}", folder.display())))?;
    let target = folder.join(wheel.file);
    fs::copy(&cached, &target).map_err(Failure::while_doing(format!("copy {}", target.display())))?;
    Ok(())
}
