//! The layout that is shipped for machines where steps can't run: it verifies, and a changed copy does not. Needs no root.
#![allow(clippy::unwrap_used, reason = "test code")]

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
