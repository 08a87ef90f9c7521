//! The demo's last act, if it is asked for: the same build in a registry of this machine.

use std::path::PathBuf;

use super::{Shown, Stage};
use crate::failure::{Failure, Outcome};
use crate::registry::{self, Registry};
use crate::tools;
use crate::workspace::Workspace;

const PIPELINE: &str = "registry.yaml";
const GATEWAY: &str = "registry-gateway.yaml";

/// The registry of the act.
#[derive(Debug)]
pub(super) enum Place {
    /// One that is running, by its host.
    Running(String),
    /// One that this program starts and ends.
    Ours(PathBuf),
}

impl Place {
    /// The one at `host`, else the one that is installed. The demo writes there, so it has to be on this machine.
    pub(super) fn find(workspace: &Workspace, host: Option<&str>) -> Outcome<Self> {
        let Some(host) = host else {
            return tools::peer(workspace, "registry").map(Self::Ours).ok_or_else(|| {
                Failure::new(
                    "there is no registry: `cargo xtask setup --peers` installs one, or name a HOST of this machine",
                )
            });
        };
        if !registry::is_loopback(host) {
            return Err(Failure::new(format!(
                "{host} is not this machine, and the demo writes to it: name localhost, an address of 127.0.0.0/8 or [::1], and a port"
            )));
        }
        if !registry::answers(host) {
            return Err(Failure::new(format!("nobody at {host} answers in HTTP")));
        }
        Ok(Self::Running(host.to_owned()))
    }
}

/// Plays it after everything else, in the same project with the same keys.
pub(super) fn play(stage: &mut Stage, workspace: &Workspace, place: &Place, shown: Shown) -> Outcome {
    if shown == Shown::WithoutSteps {
        stage.act("nothing was built here, so nothing goes to a registry");
        return Ok(());
    }
    let own;
    let host = match place {
        Place::Running(host) => host,
        Place::Ours(program) => {
            stage.act("a registry on this machine, empty, for as long as this lasts");
            own = Registry::start(program, &stage.folder.join("registry"))?;
            own.announce(program);
            own.host()
        }
    };
    let (build, production) = (format!("{host}/demo/build"), format!("{host}/demo/production"));
    stage.act("the same project, now with repositories in the registry: one of the build, one of production");
    replace(stage, "sluicegate.yaml", "oci:out/shop", &build, PIPELINE)?;
    replace(stage, "gateway.yaml", "oci:env/production", &production, GATEWAY)?;

    stage.act("build: image and evidence go where the pipeline says");
    let said = stage.told(&["run", "--file", PIPELINE, "--gateway", GATEWAY])?;
    let digest = built(&said).ok_or_else(|| Failure::new("run did not say which image it built"))?;
    stage.note(&build, &digest);

    stage.act("the gate allows, and the tag in the registry moves last");
    stage.sluicegate(&["promote", &format!("{build}@{digest}"), "--to", "production", "--gateway", GATEWAY], 0)?;
    let current = format!("{production}:current");
    stage.sluicegate(&["verify", "--for", "production", "--gateway", GATEWAY, &current], 0)?;

    stage.act("who else would see what of it");
    stage.sluicegate(&["doctor", "--gateway", GATEWAY, &current], 0)?;
    cosign(stage, workspace, &current)?;

    stage.act("image and evidence on a stick, verified without a network");
    stage.sluicegate(&["copy", &current, "oci:stick"], 0)?;
    let carried = stage.digest_of_image("stick")?;
    if carried != digest {
        return Err(Failure::new(format!("{carried} is on the stick and {digest} was promoted")));
    }
    stage.sluicegate(&["verify", "--offline", "oci:stick"], 0)
}

/// An unmodified cosign on what was promoted, if it is installed.
fn cosign(stage: &mut Stage, workspace: &Workspace, reference: &str) -> Outcome {
    let Some(cosign) = tools::peer(workspace, "cosign") else {
        stage.act("skipped: cosign is not installed (`cargo xtask setup --peers` installs it)");
        return Ok(());
    };
    stage.act("an unmodified cosign answers the same");
    let trust = ["--key", "trust/production.pub", "--trusted-root", "trust/trusted_root.json"];
    stage.run(&[&[&*cosign.to_string_lossy(), "verify"], &trust[..], &[reference]].concat(), 0)
}

/// A copy of a file of the project with one place in it replaced; it fails if the place is not there.
fn replace(stage: &mut Stage, file: &str, from: &str, to: &str, copy: &str) -> Outcome {
    stage.run(&["grep", "-c", &format!("repository: {from}"), file], 0)?;
    stage.run(&["sh", "-c", &format!("sed 's|repository: {from}|repository: {to}|' {file} > {copy}")], 0)
}

/// The digest of the image that `run` says it built.
fn built(said: &str) -> Option<String> {
    let line = said.lines().find(|line| line.starts_with("BUILT "))?;
    line.split_whitespace().find(|word| word.starts_with("sha256:")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_that_was_built_is_in_the_words_of_run() {
        let said = "image shop is sha256:00\nBUILT  shop  sha256:ab\n  9 attestations, in 127.0.0.1:5000/demo/build\n";
        assert_eq!(built(said).as_deref(), Some("sha256:ab"));
        assert_eq!(built("FAILED  shop  sha256:ab\n"), None);
    }

    #[test]
    fn a_registry_of_others_is_not_written_to() {
        let workspace = Workspace::at(std::env::temp_dir());
        for host in ["registry.example", "10.0.0.1:5000", "localhost.evil.example", "127.0.0.1:5000/x"] {
            let words = Place::find(&workspace, Some(host)).unwrap_err().to_string();
            assert!(words.contains("is not this machine"), "{words}");
        }
    }
}
