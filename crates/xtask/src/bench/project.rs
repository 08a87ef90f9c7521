//! A project with a home of its own, made and run by the program that is measured.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::process::Program;
use crate::advisory_db;
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::json::Json;
use crate::tools;

const PASSPHRASE: &str = "bench";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A project folder with its home beside it.
#[derive(Clone, Debug)]
pub(super) struct Project {
    folder: PathBuf,
    scratch: PathBuf,
    sluicegate: PathBuf,
}

/// What stands in an image's layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Bundles attached to the image itself.
    pub attached: u64,
    /// All bundles: those attached and those that evidence manifests carry.
    pub bundles: u64,
    /// Bytes of all blobs that are reached from the index, each once: what a verification has to hash.
    pub bytes: u64,
}

/// What a verification found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    /// Statements that it verified.
    pub(super) statements: u64,
    /// Different places in logs that these have.
    pub(super) log_places: u64,
}

impl Project {
    /// An empty project in `folder/project`, which is made anew.
    pub(super) fn new(folder: &Path, sluicegate: &Path) -> Outcome<Self> {
        tools::remove(folder)?;
        let project =
            Self { folder: folder.join("project"), scratch: folder.join("scratch"), sluicegate: sluicegate.to_owned() };
        for path in [&project.folder, &project.scratch] {
            fs::create_dir_all(path).map_err(Failure::while_doing(format!("make {}", path.display())))?;
        }
        Ok(project)
    }

    /// A path in the project.
    #[must_use]
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    /// Where outputs of programs are kept while they run.
    #[must_use]
    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Writes a file of the project.
    pub(super) fn write(&self, relative: &str, text: &str) -> Outcome {
        let path = self.path(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Failure::while_doing(format!("make {}", parent.display())))?;
        }
        fs::write(&path, text).map_err(Failure::while_doing(format!("write {}", path.display())))
    }

    /// Another program in this project.
    #[must_use]
    pub(super) fn program(&self, program: &Path) -> Program {
        Program::new(program, &self.folder).env("HOME", &self.scratch)
    }

    /// `sluicegate` with these arguments, the project's home and its passphrase.
    #[must_use]
    pub(super) fn sluicegate(&self, arguments: &[&str]) -> Program {
        self.program(&self.sluicegate)
            .args(arguments)
            .env("SLUICEGATE_HOME", self.home())
            .env("COSIGN_PASSWORD", PASSPHRASE)
    }

    fn home(&self) -> PathBuf {
        self.scratch.join("home")
    }

    /// Runs `sluicegate`, shown as a person types it.
    pub(super) fn must(&self, arguments: &[&str]) -> Outcome {
        let program = self.sluicegate(arguments);
        commands::announce(&program.line());
        program.run(&self.scratch).map(drop)
    }

    /// Runs `sluicegate -o json` and reads the document.
    pub(super) fn json(&self, arguments: &[&str]) -> Outcome<Json> {
        let program = self.sluicegate(&[arguments, &["-o", "json"]].concat());
        let ran = program.run(&self.scratch)?;
        Json::parse(&ran.stdout).map_err(|error| Failure::new(format!("{}: {error}", program.line())))
    }

    /// Makes an image of these parts of the machine, a database of today, and runs `init` with the scanner.
    pub(super) fn prepare(&self, image: &[&str], trivy: &Path) -> Outcome {
        // A work tree of its own: in ours, git ignores everything below target.
        Program::new("git", &self.folder).args(["init", "--quiet"]).env("HOME", &self.scratch).run(&self.scratch)?;
        self.must(&[&["image", "from-host"], image, &["--output", "oci:images/base"]].concat())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
        let database = self.path("db");
        advisory_db::write(&database, now).map_err(Failure::while_doing(format!("write {}", database.display())))?;
        let trivy = trivy.to_string_lossy();
        self.must(&["init", "--trivy", &trivy, "--db", "db", "--allow-base", "oci:images/base"])?;
        // Nothing is committed in that work tree.
        let data = self.path("policies/data.yaml");
        let reading = || format!("change {}", data.display());
        let text = fs::read_to_string(&data).map_err(Failure::while_doing(reading()))?;
        let text = text.replace("accept_sources_without_commit: false", "accept_sources_without_commit: true");
        fs::write(&data, text).map_err(Failure::while_doing(reading()))
    }

    /// Entries of the home's log.
    pub(super) fn log_size(&self) -> Outcome<u64> {
        let path = self.home().join("log/checkpoint");
        let text = fs::read_to_string(&path).map_err(Failure::while_doing(format!("read {}", path.display())))?;
        checkpoint_size(&text).ok_or_else(|| Failure::new(format!("{} is no checkpoint", path.display())))
    }

    /// Records of the home, and how many of them say that a run succeeded.
    pub(super) fn records(&self) -> Outcome<(u64, u64)> {
        let document = self.json(&["evidence", "list", "--limit", "10000"])?;
        let records = document.get("records").list();
        let succeeded = records.iter().filter(|record| {
            record.get("kind").as_text() == Some("run") && record.get("outcome").as_text() == Some("succeeded")
        });
        Ok((records.len() as u64, succeeded.count() as u64))
    }

    /// What `verify -o json` verified in a layout.
    pub(super) fn verified(&self, reference: &str) -> Outcome<Verified> {
        statements(&self.json(&["verify", "--offline", reference])?)
    }
}

/// The statements of a document of `verify -o json` that it calls verified; an image that is not whole is a failure.
pub(super) fn statements(document: &Json) -> Outcome<Verified> {
    if *document.get("complete") != Json::Bool(true) {
        return Err(Failure::new(format!("verify did not find the image whole: {document}")));
    }
    let statements = document.get("statements").list().iter();
    let verified: Vec<_> =
        statements.filter(|statement| statement.get("status").as_text() == Some("verified")).collect();
    let places: BTreeSet<String> = verified.iter().map(|statement| statement.get("log").to_string()).collect();
    Ok(Verified { statements: verified.len() as u64, log_places: places.len() as u64 })
}

/// What stands in the layout `folder`.
pub(super) fn contents(folder: &Path) -> Outcome<Contents> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).map_err(Failure::while_doing(format!("read {}", path.display())))?;
        Json::parse(&text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
    };
    let mut blobs: Vec<(String, u64)> = Vec::new();
    let mut contents = Contents::default();
    for entry in read(folder.join("index.json"))?.get("manifests").list() {
        let digest = entry.get("digest").as_text().unwrap_or_default();
        let manifest = read(folder.join("blobs").join(digest.replace(':', "/")))?;
        let is_attached = manifest.get("artifactType").as_text() == Some(BUNDLE);
        blobs.push((digest.to_owned(), size(entry)));
        for part in manifest.get("layers").list().iter().chain([manifest.get("config")]) {
            let digest = part.get("digest").as_text().unwrap_or_default().to_owned();
            if blobs.iter().any(|(known, _)| *known == digest) {
                continue;
            }
            if part.get("mediaType").as_text() == Some(BUNDLE) {
                contents.bundles += 1;
                contents.attached += u64::from(is_attached);
            }
            blobs.push((digest, size(part)));
        }
    }
    contents.bytes = blobs.iter().map(|(_, size)| size).sum();
    Ok(contents)
}

fn size(descriptor: &Json) -> u64 {
    match descriptor.get("size") {
        Json::Number(digits) => digits.parse().unwrap_or_default(),
        _ => 0,
    }
}

/// The second line of a checkpoint (C2SP tlog-checkpoint): how many entries it promises.
fn checkpoint_size(note: &str) -> Option<u64> {
    let mut lines = note.lines();
    lines.next().filter(|origin| !origin.is_empty())?;
    lines.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_promises_the_entries_of_its_second_line() {
        assert_eq!(checkpoint_size("log.example\n53\nAAAA=\n\n— sig\n"), Some(53));
        assert_eq!(checkpoint_size("log.example\n"), None);
        assert_eq!(checkpoint_size("\n53\n"), None);
        assert_eq!(checkpoint_size("log.example\n-1\n"), None);
    }

    #[test]
    fn statements_are_counted_in_a_whole_image_only() {
        let at = |index| format!(r#"{{"status":"verified","log":{{"origin":"log","index":{index}}}}}"#);
        let text = |complete| {
            format!(r#"{{"complete":{complete},"statements":[{},{},{{"status":"ignored"}},{}]}}"#, at(0), at(1), at(1))
        };
        assert_eq!(statements(&Json::parse(&text(true)).unwrap()).unwrap(), Verified { statements: 3, log_places: 2 });
        assert!(statements(&Json::parse(&text(false)).unwrap()).is_err());
        assert!(statements(&Json::Null).is_err());
    }

    #[test]
    fn the_shipped_layout_has_its_bundles_and_bytes_counted_once() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/verified-layout/layout");
        let found = contents(&shipped).unwrap();
        let blobs = fs::read_dir(shipped.join("blobs/sha256")).unwrap();
        let on_disk: u64 = blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(found, Contents { attached: 1, bundles: 5, bytes: on_disk });
        assert!(contents(&shipped.join("blobs")).is_err());
    }
}
