//! Whether the folders and files are there that a pipeline file names: found out before anything is read or fetched, and said with the line
//! that names them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sluicegate_pipeline::pipeline::{Artifact, Pipeline, Step};
use sluicegate_ports::trees::TreeError;
use sluicegate_types::{
    ImageRef, OutputName,
    nearest::{nearest, suggestion},
};

use crate::Error;

/// Refuses what these steps and artifacts, and every source, name and what is not there.
pub(crate) fn check(pipeline: &Pipeline, project: &Path, steps: &[&Step], artifacts: &[Artifact]) -> Result<(), Error> {
    for (name, source) in &pipeline.sources {
        let Some(folder) = source.folder() else { continue };
        if let Some(Missing { reason, hint }) = missing(project, folder) {
            return Err(pipeline.refuse(&[&format!("sources.{name}.path")], format!("{reason}{hint}")).into());
        }
        for (nth, file) in source.include.iter().enumerate() {
            let whole = project.join(folder).join(file);
            if is_gone(fs::symlink_metadata(&whole).err().as_ref()) {
                let reason = format!("there is no file {}", file.display());
                return Err(pipeline.refuse(&[&format!("sources.{name}.include[{nth}]")], reason).into());
            }
        }
    }
    for step in steps {
        let own = format!("steps.{}.image", step.name);
        check_image(pipeline, project, &step.image, &[&own, "defaults.image"])?;
    }
    for artifact in artifacts {
        let place = format!("artifacts.{}.base", artifact.name);
        artifact.base.iter().try_for_each(|base| check_image(pipeline, project, base, &[&place]))?;
    }
    Ok(())
}

/// What can't be fetched as it is named, with the line that names it.
pub(crate) fn at_its_reference(pipeline: &Pipeline, source: &OutputName, error: Error) -> Error {
    let (key, url, reason) = match error {
        Error::Tree(TreeError::Address { url, reason }) => ("git", url, reason),
        Error::Tree(TreeError::Reference { url, reason }) => ("ref", url, reason),
        other => return other,
    };
    pipeline.refuse(&[&format!("sources.{source}.{key}")], format!("the git source {url}: {reason}")).into()
}

fn check_image(pipeline: &Pipeline, project: &Path, image: &ImageRef, places: &[&str]) -> Result<(), Error> {
    let Some(Missing { reason, hint }) = image.place.folder().and_then(|folder| missing(project, folder)) else {
        return Ok(());
    };
    let makes = if hint.starts_with("; did you mean") {
        String::new()
    } else {
        format!("; sluicegate image from-host --output {} makes one of programs of this machine", image.place)
    };
    Err(pipeline.refuse(places, format!("{reason}{hint}{makes}")).into())
}

struct Missing {
    reason: String,
    /// What may be meant, after a semicolon.
    hint: String,
}

/// Entries of a folder that are looked at for a name that may be meant.
const MAX_LOOKED_AT: usize = 1000;

/// Why a folder can't be read, if that is because it is not there or no folder. Any other reason is told by who reads it.
fn missing(project: &Path, named: &Path) -> Option<Missing> {
    let said = named.display();
    match fs::metadata(project.join(named)) {
        Ok(there) if there.is_dir() => return None,
        Ok(_) => return Some(Missing { reason: format!("{said} is no folder"), hint: String::new() }),
        Err(error) if is_gone(Some(&error)) => {}
        Err(_) => return None,
    }
    let mut there = PathBuf::new();
    let mut components = named.components();
    let gone = components.find(|component| {
        let is_there = project.join(&there).join(component).is_dir();
        if is_there {
            there.push(component);
        }
        !is_there
    })?;
    // What else this machine has is nothing that a pipeline file may ask.
    let own = fs::canonicalize(project).ok().zip(fs::canonicalize(project.join(&there)).ok());
    let is_own = own.is_some_and(|(project, there)| there.starts_with(project));
    let folders = if is_own { folders_in(&project.join(&there)) } else { Vec::new() };
    let known = || folders.iter().map(String::as_str);
    let gone = gone.as_os_str().to_string_lossy();
    let hint = match nearest(&gone, known()) {
        Some(meant) => {
            let meant: PathBuf = there.join(meant).components().chain(components).collect();
            format!("; did you mean {}?", meant.display())
        }
        None => {
            let whole: Vec<String> = folders.iter().map(|name| there.join(name).display().to_string()).collect();
            suggestion(&gone, whole.iter().map(String::as_str))
        }
    };
    Some(Missing { reason: format!("there is no folder {said}"), hint })
}

fn is_gone(error: Option<&io::Error>) -> bool {
    error.is_some_and(|error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

/// Names of folders in a folder, hidden ones left out.
fn folders_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(MAX_LOOKED_AT).flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version: 1\nname: p\nsources:\n  src: { path: src }\ndefaults:\n  image: oci:images/build\nsteps:\n  a:\n    \
                        run: x\n    outputs: { o: /out/o }\n  b:\n    run: x\n    image: oci:images/build:v1\nartifacts:\n  i:\n    \
                        base: oci:images/base\n    files: { /o: a.o }\n    repository: oci:out\n";

    fn found(from: &str, to: &str) -> Result<(), String> {
        let project = tempfile::tempdir().unwrap();
        for folder in ["src/web", "images/build", "images/base", ".git"] {
            fs::create_dir_all(project.path().join(folder)).unwrap();
        }
        fs::write(project.path().join("file"), "").unwrap();
        assert!(TEXT.contains(from), "{from}");
        let pipeline = Pipeline::parse("p.yaml", &TEXT.replacen(from, to, 1)).unwrap();
        let steps: Vec<&Step> = pipeline.steps.iter().collect();
        check(&pipeline, project.path(), &steps, &pipeline.artifacts).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_there_is_refused_with_its_line_and_what_may_be_meant() {
        for there in ["path: src", "path: ./src/web", "path: src, include: [../file]"] {
            assert_eq!(found("path: src", there), Ok(()), "{there}");
        }
        for (from, to, says) in [
            (
                "path: src",
                "path: srcs",
                "line 4, column 16: sources.src.path: there is no folder srcs; did you mean src?",
            ),
            ("path: src", "path: src/we", "there is no folder src/we; did you mean src/web?"),
            ("path: src", "path: sr/web", "there is no folder sr/web; did you mean src/web?"),
            ("path: src", "path: elsewhere", "there is no folder elsewhere; there is images, src"),
            ("path: src", "path: file", "sources.src.path: file is no folder"),
            ("path: src", "path: file/x", "there is no folder file/x"),
            ("path: src", "path: src, include: [../flie]", "sources.src.include: there is no file ../flie"),
            ("image: oci:images/build\n", "image: oci:images/biuld\n", "line 6, column 10: defaults.image: "),
            (
                "oci:images/build\n",
                "oci:images/biuld\n",
                "there is no folder images/biuld; did you mean images/build?\n",
            ),
            ("oci:images/build:v1", "oci:images/biuld:v1", "line 13, column 12: steps.b.image: there is no folder"),
            (
                "oci:images/build\n",
                "oci:gone\n",
                "there is no folder gone; there is images, src; sluicegate image from-host",
            ),
            (
                "oci:images/base",
                "oci:images/bse",
                "artifacts.i.base: there is no folder images/bse; did you mean images/base?",
            ),
        ] {
            let found = found(from, to).unwrap_err();
            assert!(found.contains(says), "{to}: {found}");
        }
        // What else there is on this machine is not told.
        let outside = found("oci:images/build\n", "oci:/usr/nothing\n").unwrap_err();
        assert!(outside.contains("there is no folder /usr/nothing") && !outside.contains("/usr/bin"), "{outside}");
    }
}
