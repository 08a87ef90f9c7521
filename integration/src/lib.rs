//! A real project, built and judged by the real program: what the tests of this folder share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this crate is test code")]

pub mod git_server;
pub mod object_server;
pub mod registry;
pub mod repository;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Once, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use sluicegate_testkit::reseal_cheaply;
use sluicegate_types::Digest;
use tempfile::TempDir;

/// The predicate type of provenance.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// A pipeline of three small steps, in an image of this machine's shell and core utilities.
pub const PIPELINE: &str = r#"
version: 1
name: tiny
sources: { src: { path: src } }
defaults: { image: oci:images/base, limits: { timeout: 1m } }
steps:
  build:
    run: mkdir -p /out/app && cp /src/hello.txt /out/app/ && printf 'built\n' > /out/app/built && chmod 700 /out/app
    inputs: { /src: src }
    outputs: { app: /out/app }
  test:
    run: >-
      grep -q hello /app/hello.txt && mkdir -p /out &&
      printf '<testsuite name="tiny" tests="1"><testcase classname="tiny" name="says hello"/></testsuite>' > /out/junit.xml
    inputs: { /app: build.app }
    reports: { junit: /out/junit.xml }
  package:
    run: mkdir -p /out/pack && cp -r /app/. /out/pack/ && cat /app/hello.txt > /out/one
    inputs: { /app: build.app }
    outputs: { pack: /out/pack, one: /out/one }
artifacts:
  tiny:
    base: oci:images/base
    files: { /opt/tiny: package.pack, /opt/one: package.one }
    config: { entrypoint: [/bin/sh], user: "65532" }
    needs: [test]
    repository: oci:out/tiny
"#;

/// Makes the image that [`PIPELINE`] stands on and runs in.
pub const FROM_HOST: [&str; 10] = [
    "image",
    "from-host",
    "--binary",
    "sh",
    "--package",
    "coreutils",
    "--binary",
    "grep",
    "--output",
    "oci:images/base",
];

/// The step `test` of [`PIPELINE`] without its report: nothing says what its tests came to.
pub const TEST_WITHOUT_REPORT: &str = "    run: grep -q hello /app/hello.txt\n    inputs: { /app: build.app }\n";

/// What `init` writes about sources that are in no commit.
pub const WITHOUT_COMMIT_DENIED: &str = "accept_sources_without_commit: false";

/// What the projects here say about them.
pub const WITHOUT_COMMIT_ACCEPTED: &str = "accept_sources_without_commit: true";

/// Asks the gate about the image of [`PIPELINE`].
pub const PROMOTE: [&str; 4] = ["promote", "oci:out/tiny", "--to", "production"];

/// The media type of a Sigstore bundle.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The passphrase of every key here.
pub const PASSPHRASE: &str = "integration";

/// The `sluicegate` to test: `SLUICEGATE_BIN`, or the one beside this test's own folder.
pub fn program() -> PathBuf {
    let named = std::env::var_os("SLUICEGATE_BIN").map(PathBuf::from);
    let beside = || {
        let own = std::env::current_exe().unwrap();
        own.ancestors().nth(2).unwrap().join("sluicegate")
    };
    let program = named.unwrap_or_else(beside);
    assert!(
        program.is_file(),
        "no sluicegate at {}: cargo build -p sluicegate-cli, or cargo xtask test",
        program.display()
    );
    program
}

/// A real program that a test needs: its path, or `None` with a visible line, or a failure where peers are demanded.
pub fn peer(variable: &str, test: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file()) {
        return Some(path);
    }
    lacking(test, &format!("{variable} names no program"));
    None
}

/// Skips a test visibly for want of something, or fails where peers are demanded.
#[track_caller]
pub fn lacking(test: &str, what: &str) {
    let demanded = std::env::var_os("SLUICEGATE_REQUIRE_PEERS").is_some();
    assert!(!demanded, "{test}: {what}, and peers are demanded");
    skip(test, what);
}

/// A file of the folder that is shared beside the repository (`SLUICEGATE_SHARED`, else `../shared`), or `None` with a visible line, or
/// a failure where peers are demanded.
pub fn shared(name: &str, test: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("SLUICEGATE_SHARED").filter(|v| !v.is_empty()).map_or_else(beside, PathBuf::from);
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    lacking(test, &format!("there is no {}", path.display()));
    None
}

/// Says that a test did not run, on the terminal and not only in the captured output.
pub fn skip(test: &str, why: &str) {
    use std::io::Write;
    let line = format!("SKIPPED {test}: {why}\n");
    match fs::OpenOptions::new().write(true).open("/dev/tty") {
        Ok(mut terminal) => terminal.write_all(line.as_bytes()).unwrap_or_default(),
        Err(_) => std::io::stderr().write_all(line.as_bytes()).unwrap_or_default(),
    }
}

/// Whether steps can run here: root on Linux. Elsewhere a visible skip, or a failure where peers are demanded.
pub fn can_run_steps(test: &str) -> bool {
    let root = fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    });
    let dpkg = Path::new("/var/lib/dpkg/status").is_file();
    if root && dpkg {
        return true;
    }
    lacking(test, "steps need root and a dpkg machine");
    false
}

/// A folder that is gone with its project. What is shared by all tests of a process is never dropped: whoever comes next takes away
/// what processes that have ended left.
fn own_folder() -> TempDir {
    const PREFIX: &str = "sluicegate-integration-";
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| {
        for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    });
    TempDir::with_prefix(format!("{PREFIX}{}-", std::process::id())).unwrap()
}

/// Whether a whole pipeline can run and be scanned here.
pub fn ready(test: &str) -> bool {
    can_run_steps(test) && peer("SLUICEGATE_TRIVY", test).is_some()
}

/// A project with its home, in a folder of its own.
pub struct Project {
    folder: TempDir,
    variables: BTreeMap<String, String>,
}

impl Project {
    /// A project without anything.
    pub fn empty() -> Self {
        Self { folder: own_folder(), variables: BTreeMap::new() }
    }

    /// A project with [`PIPELINE`] and its source, and nothing made yet.
    pub fn written() -> Self {
        let project = Self::empty();
        fs::create_dir_all(project.path("src")).unwrap();
        fs::write(project.path("src/hello.txt"), "hello\n").unwrap();
        fs::write(project.path("sluicegate.yaml"), PIPELINE).unwrap();
        project
    }

    /// A copy of one such project with base image, database and `init`, nothing run yet, made once for all tests of this process.
    pub fn prepared() -> Self {
        static PREPARED: OnceLock<Project> = OnceLock::new();
        let prepared = PREPARED.get_or_init(|| {
            let project = Self::stranger();
            reseal_cheaply(&project.path("home/keys"), PASSPHRASE.as_bytes());
            project
        });
        prepared.copy()
    }

    /// The same with keys and logs that no other project here has, sealed as cosign seals them: it opens no others.
    pub fn stranger() -> Self {
        let project = Self::written();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        xtask::advisory_db::write(&project.path("db"), now).unwrap();
        project.must(&FROM_HOST);
        let trivy = std::env::var("SLUICEGATE_TRIVY").unwrap_or_default();
        if trivy.is_empty() {
            project.must(&["init", "--allow-base", "oci:images/base"]);
        } else {
            project.must(&["init", "--trivy", &trivy, "--db", "db", "--allow-base", "oci:images/base"]);
        }
        // The project is no git work tree, so that its digests depend on no date of a commit.
        project.replace("policies/data.yaml", WITHOUT_COMMIT_DENIED, WITHOUT_COMMIT_ACCEPTED);
        project
    }

    /// A copy of one project that has been run, made once for all tests of this process.
    pub fn built() -> Self {
        static BUILT: OnceLock<Project> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            let project = Self::prepared();
            project.must(&["run"]);
            project
        });
        built.copy()
    }

    /// A copy of one project whose image was promoted, made once for all tests of this process.
    pub fn promoted() -> Self {
        static PROMOTED: OnceLock<Project> = OnceLock::new();
        let promoted = PROMOTED.get_or_init(|| {
            let project = Self::built();
            project.must(&PROMOTE);
            project
        });
        promoted.copy()
    }

    /// A copy of one project whose trust takes decisions of authority `self`, and whose image was promoted, made once for all tests of
    /// this process.
    pub fn admitted() -> Self {
        static ADMITTED: OnceLock<Project> = OnceLock::new();
        let admitted = ADMITTED.get_or_init(|| {
            let project = Self::built();
            // Before the decision: what it was decided by covers the trust file.
            project.replace("trust/trust.yaml", "authority_self: false", "authority_self: true");
            project.must(&PROMOTE);
            project
        });
        admitted.copy()
    }

    /// The same project, home and all, elsewhere.
    pub fn copy(&self) -> Self {
        let copy = Self { folder: own_folder(), variables: self.variables.clone() };
        // The scanner is large, named by its digest and never written to: one file serves all copies.
        let script = r#"cd "$1" && to=$2 &&
            find . -mindepth 1 -maxdepth 1 ! -name home -exec cp -a -t "$to" {} + &&
            if test -d home/cache; then
                mkdir -p "$to/home/cache" && chmod --reference=home "$to/home" && chmod --reference=home/cache "$to/home/cache" &&
                find home -mindepth 1 -maxdepth 1 ! -name cache -exec cp -a -t "$to/home" {} + &&
                find home/cache -mindepth 1 -maxdepth 1 ! -name scanner -exec cp -a -t "$to/home/cache" {} + &&
                if test -d home/cache/scanner; then cp -al home/cache/scanner "$to/home/cache"; fi
            elif test -d home; then cp -a home "$to"; fi"#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(self.path(".")).arg(copy.path("."));
        assert!(command.status().unwrap().success());
        // The gateway names the database by its whole path.
        let gateway = copy.path("gateway.yaml");
        if let Ok(text) = fs::read_to_string(&gateway) {
            let (old, new) = (self.path("db").display().to_string(), copy.path("db").display().to_string());
            fs::write(&gateway, text.replace(&old, &new)).unwrap();
        }
        copy
    }

    /// A path in the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a text in a file, which must hold it.
    #[track_caller]
    pub fn replace(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from:?}:\n{text}");
        fs::write(self.path(file), text.replace(from, to)).unwrap();
    }

    /// Adds a second artifact, `other` in `oci:out/other`, which stands on no test.
    pub fn write_other_artifact(&self) {
        let text = fs::read_to_string(self.path("sluicegate.yaml")).unwrap();
        let other = "  other:\n    base: oci:images/base\n    files: { /opt/one: package.one }\n    repository: oci:out/other\n";
        fs::write(self.path("sluicegate.yaml"), text + other).unwrap();
    }

    /// Writes the step `test` of the pipeline anew.
    pub fn write_test_step(&self, body: &str) {
        let text = fs::read_to_string(self.path("sluicegate.yaml")).unwrap();
        let (before, rest) = text.split_once("  test:\n").unwrap();
        let (_, after) = rest.split_once("  package:\n").unwrap();
        fs::write(self.path("sluicegate.yaml"), format!("{before}  test:\n{body}  package:\n{after}")).unwrap();
    }

    /// A copy of a folder or file of the project, in the project.
    pub fn keep(&self, from: &str, to: &str) {
        let done = Command::new("cp").arg("-a").arg(self.path(from)).arg(self.path(to)).status().unwrap();
        assert!(done.success());
    }

    /// Puts a copy in the place of what is there.
    pub fn restore(&self, from: &str, to: &str) {
        let done = Command::new("rm").arg("-rf").arg(self.path(to)).status().unwrap();
        assert!(done.success());
        self.keep(from, to);
    }

    /// Adds a person who may speak by hand, as the remedy that `attest` prints says.
    pub fn add_person(&self) {
        let made = self.must(&["keys", "generate", "person"]);
        fs::copy(made.stdout.trim(), self.path("trust/person.pub")).unwrap();
        let person = "  person: { key: person.pub, roles: [manual], repositories: [\"*\"] }\n";
        self.replace("trust/trust.yaml", "signers:\n", &format!("signers:\n{person}"));
        self.replace("gateway.yaml", "signing: {", "signing: { manual: key:person,");
    }

    /// The newest record of this kind.
    pub fn last_record(&self, kind: &str) -> Value {
        let (_, list) = self.json(&["evidence", "list"]);
        let records = list["records"].as_array().unwrap().clone();
        records.into_iter().find(|record| record["kind"] == kind).unwrap_or_else(|| panic!("no {kind}: {list:#}"))
    }

    /// The predicate of the provenance of a step of the newest run.
    pub fn provenance(&self, step: &str) -> Value {
        let (_, run) = self.json(&["logs", "LAST"]);
        let found = run["steps"].as_array().unwrap().iter().find(|one| one["step"] == step).unwrap();
        let hex = found["attestation"].as_str().unwrap().trim_start_matches("sha256:");
        let bundle = fs::read(self.path("home/store/blobs/sha256").join(hex)).unwrap();
        let bundle: Value = serde_json::from_slice(&bundle).unwrap();
        let statement = decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap());
        assert_eq!(statement["predicateType"], PROVENANCE);
        statement["predicate"].clone()
    }

    /// The log of a step of the newest run.
    pub fn log(&self, step: &str) -> String {
        self.must(&["logs", "LAST", step]).stdout
    }

    /// Sets a variable for every later command.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// `sluicegate` with these arguments, in the project, with its home and passphrase and nothing else of this environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        self.environment(&mut command);
        command.args(arguments);
        command
    }

    /// Gives another command the project's folder and environment.
    pub fn environment(&self, command: &mut Command) {
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SLUICEGATE_HOME", self.path("home"))
            .env("COSIGN_PASSWORD", PASSPHRASE)
            .envs(&self.variables);
    }

    /// Runs `sluicegate`.
    pub fn sluicegate(&self, arguments: &[&str]) -> Ended {
        Ended::of(arguments, self.command(arguments).output().unwrap())
    }

    /// Runs `sluicegate` without a passphrase and without anybody to ask for one.
    pub fn keyless(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        command.env_remove("COSIGN_PASSWORD").stdin(Stdio::null());
        Ended::of(arguments, command.output().unwrap())
    }

    /// Runs `sluicegate`, which must end with 0.
    pub fn must(&self, arguments: &[&str]) -> Ended {
        let ended = self.sluicegate(arguments);
        ended.assert(0, "");
        ended
    }

    /// Runs `sluicegate -o json` and reads the document.
    pub fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let ended = self.sluicegate(&[arguments, &["-o", "json"]].concat());
        let document = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        (ended.code, document)
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// What was asked.
    pub arguments: String,
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// Reads what a process left.
    pub fn of(arguments: &[&str], output: Output) -> Self {
        Self {
            arguments: arguments.join(" "),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Demands this exit code and these words in either output.
    #[track_caller]
    pub fn assert(&self, code: i32, says: &str) {
        let said = self.stdout.contains(says) || self.stderr.contains(says);
        assert!(
            self.code == code && said,
            "sluicegate {}: code {} (expected {code}), expected to say {says:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.arguments,
            self.code,
            self.stdout,
            self.stderr
        );
    }
}

/// A base64 payload as JSON.
pub fn decode(payload: &str) -> Value {
    serde_json::from_slice(&BASE64_STANDARD.decode(payload).unwrap()).unwrap()
}

/// An OCI layout on disk, for tests that change it.
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// The layout in this folder.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The index.
    pub fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder.join("index.json")).unwrap()).unwrap()
    }

    /// Writes the index.
    pub fn write_index(&self, index: &Value) {
        fs::write(self.folder.join("index.json"), index.to_string()).unwrap();
    }

    /// The digest of the image.
    pub fn image(&self) -> String {
        let index = self.index();
        let image =
            index["manifests"].as_array().unwrap().iter().find(|m| m["annotations"]["kind"].is_string()).unwrap();
        image["digest"].as_str().unwrap().to_owned()
    }

    /// The file of a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// A blob as JSON.
    pub fn json(&self, digest: &str) -> Value {
        serde_json::from_slice(&fs::read(self.blob(digest)).unwrap()).unwrap()
    }

    /// Stores a blob and returns its digest and size.
    pub fn put(&self, bytes: &[u8]) -> (String, usize) {
        let digest = Digest::of(bytes).to_string();
        fs::write(self.blob(&digest), bytes).unwrap();
        (digest, bytes.len())
    }

    /// Every blob that is reachable from the image's digest: its manifest, configuration, layers, and every referrer with its parts.
    pub fn reachable(&self) -> Vec<String> {
        let mut out = Vec::new();
        for entry in self.index()["manifests"].as_array().unwrap() {
            let digest = entry["digest"].as_str().unwrap().to_owned();
            let manifest = self.json(&digest);
            out.push(digest);
            let parts = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
            out.extend(parts.map(|part| part["digest"].as_str().unwrap().to_owned()));
        }
        out.sort();
        out.dedup();
        out
    }

    /// The manifests that refer to the image, with their descriptors' places in the index.
    pub fn referrers(&self) -> Vec<(usize, Value)> {
        let index = self.index();
        let entries = index["manifests"].as_array().unwrap();
        let manifest = |entry: &Value| self.json(entry["digest"].as_str().unwrap());
        entries
            .iter()
            .enumerate()
            .map(|(at, entry)| (at, manifest(entry)))
            .filter(|(_, m)| m["subject"].is_object())
            .collect()
    }

    /// The place in the index of the referrer that carries the bundle with this predicate type.
    pub fn referrer_of(&self, predicate_type: &str) -> usize {
        let found = self
            .referrers()
            .into_iter()
            .find(|(_, m)| m["annotations"]["dev.sigstore.bundle.predicateType"] == predicate_type);
        found.unwrap().0
    }

    /// The statement in a bundle.
    pub fn statement(&self, bundle: &str) -> Value {
        decode(self.json(bundle)["dsseEnvelope"]["payload"].as_str().unwrap())
    }

    /// The statement of this predicate type that is attached to the image.
    pub fn attached(&self, predicate_type: &str) -> Value {
        let at = self.referrer_of(predicate_type);
        let manifest = self.referrers().into_iter().find(|(place, _)| *place == at).unwrap().1;
        self.statement(manifest["layers"][0]["digest"].as_str().unwrap())
    }

    /// Stores a manifest and adds it to the index.
    pub fn add(&self, manifest: &Value) {
        let (digest, size) = self.put(manifest.to_string().as_bytes());
        let mut index = self.index();
        let entry = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "artifactType": manifest["artifactType"],
        });
        index["manifests"].as_array_mut().unwrap().push(entry);
        self.write_index(&index);
    }

    /// The evidence manifest and its place in the index.
    pub fn evidence(&self) -> (usize, Value) {
        let found = self.referrers().into_iter();
        found.into_iter().find(|(_, m)| m["artifactType"] == "application/vnd.sluicegate.evidence.v1+json").unwrap()
    }

    /// Replaces the manifest at a place of the index.
    pub fn replace(&self, at: usize, manifest: &Value) {
        let (digest, size) = self.put(manifest.to_string().as_bytes());
        let mut index = self.index();
        index["manifests"][at]["digest"] = digest.into();
        index["manifests"][at]["size"] = size.into();
        self.write_index(&index);
    }

    /// Takes an entry out of the index.
    pub fn remove(&self, at: usize) {
        let mut index = self.index();
        index["manifests"].as_array_mut().unwrap().remove(at);
        self.write_index(&index);
    }

    /// Flips one bit in the middle of a blob.
    pub fn flip(&self, digest: &str) {
        let path = self.blob(digest);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
}
