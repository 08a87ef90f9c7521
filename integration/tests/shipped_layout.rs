//! The layout that is shipped for machines where steps can't run: it verifies, and a changed copy does not. Needs no root.

use std::{fs, path::Path, process::Command};

use integration::{Ended, Layout, program};

#[test]
fn the_shipped_layout_verifies_and_a_tampered_copy_is_refused() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/verified-layout");
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(shipped.join(".")).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let digest = fs::read_to_string(folder.path().join("DIGEST")).unwrap();
    let reference = format!("oci:layout@{}", digest.trim());
    let arguments = ["verify", "--offline", reference.as_str()];
    let verify = || {
        let mut command = Command::new(program());
        Ended::of(&arguments, command.args(arguments).current_dir(folder.path()).env_clear().output().unwrap())
    };
    verify().assert(0, "VERIFIED");
    let layout = Layout::at(folder.path().join("layout"));
    for blob in layout.reachable() {
        let good = fs::read(layout.blob(&blob)).unwrap();
        layout.flip(&blob);
        verify().assert(4, &blob);
        fs::write(layout.blob(&blob), good).unwrap();
    }
    verify().assert(0, "VERIFIED");
}

/// The shipped layout in a folder of its own, and `verify` there.
fn verify(arguments: &[&str]) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/verified-layout");
    assert!(Command::new("cp").arg("-r").arg(shipped.join(".")).arg(folder.path()).status().unwrap().success());
    let mut command = Command::new(program());
    command.arg("verify").args(arguments).current_dir(folder.path()).env_clear();
    (folder, command)
}

#[test]
fn one_image_that_cannot_be_read_hides_no_other() {
    let arguments = ["oci:layout", "oci:nowhere", "-o", "json"];
    let (_folder, mut command) = verify(&arguments);
    let ended = Ended::of(&arguments, command.output().unwrap());
    assert_eq!(ended.code, 2, "{ended:?}");
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&document["images"][0]["complete"], &document["images"][1]["exit"]), (&true.into(), &2.into()));
    // Each says what was asked about, and an error has the members of any other.
    for (document, reference) in document["images"].as_array().unwrap().iter().zip(arguments) {
        assert_eq!(document["reference"], reference, "{document:#}");
    }
    let error = &document["images"][1];
    assert!(error["error"].is_string() && error["causes"].is_array() && error["hint"].is_string(), "{error:#}");
    let arguments = ["oci:layout", "oci:nowhere"];
    let (_folder, mut command) = verify(&arguments);
    let ended = Ended::of(&arguments, command.output().unwrap());
    ended.assert(2, "NOT VERIFIED  oci:nowhere\n");
    ended.assert(2, "  now: ");
    let verified = ended.stdout.lines().find(|line| line.starts_with("VERIFIED")).unwrap();
    assert!(verified.ends_with("  oci:layout"), "{ended:?}");
    let arguments = ["oci:layout", "oci:layout"];
    let (_folder, mut command) = verify(&arguments);
    Ended::of(&arguments, command.output().unwrap()).assert(0, "VERIFIED");
}

#[test]
fn a_result_that_cannot_be_written_is_no_success() {
    let (_folder, mut command) = verify(&["oci:layout"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(command.stdout(full).status().unwrap().code(), Some(5));
    let (_folder, mut command) = verify(&["oci:layout"]);
    assert_eq!(command.stdout(std::process::Stdio::null()).status().unwrap().code(), Some(0));
}
