//! Field cases about trust that others reported (`shared/field/trust.md`), with the files that reproduce them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use integration::{Ended, Project, program, shared};
use serde_json::Value;
use sluicegate_types::Digest;

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
