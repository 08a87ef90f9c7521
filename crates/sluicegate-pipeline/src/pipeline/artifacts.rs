//! Artifacts: the images that are assembled of what steps leave.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use sluicegate_types::{NameError, NonEmpty, OutputName, Place, Platform};

use super::{Artifact, ImageConfig, Step, TagTemplate, container_path::absolute, wire::WireArtifact};
use crate::{Error, In, spot::Aim, yaml::Ordered};

pub(super) fn artifacts(at: &In<'_>, wire: Ordered<WireArtifact>, steps: &[Step]) -> Result<Vec<Artifact>, Error> {
    let mut out: Vec<Artifact> = Vec::new();
    for (name, artifact) in wire.0 {
        let place = format!("artifacts.{name}");
        let platforms = platforms(at, &format!("{place}.platforms"), artifact.platforms)?;
        let mut files = BTreeMap::new();
        for (path, product) in artifact.files.0 {
            let place = format!("{place}.files.{path}");
            let called = |name: &str| steps.iter().find(|step| step.name.as_str() == name);
            let Some((step, output)) = product.split_once('.') else {
                return Err(match called(&product) {
                    Some(step) => at.step_for_output(&place, &product, step.outputs.keys().map(OutputName::as_str)),
                    None => at.meaning(&place, "write STEP.OUTPUT"),
                });
            };
            let found = called(step);
            let known = || steps.iter().map(|step| step.name.as_str());
            let found = found.ok_or_else(|| at.unknown(&place, "step", step, known()))?;
            let output: OutputName = output.parse().map_err(|e: NameError| at.meaning(&place, e.of("output name")))?;
            if !found.outputs.contains_key(&output) {
                return Err(at.no_output(&place, (&found.name, &output), found.outputs.keys()));
            }
            let path = absolute(&path).map_err(|e| at.name(&place, e))?;
            if path == Path::new("/") {
                return Err(at.name(&place, "a path below / is needed"));
            }
            let other = files.keys().find(|other: &&PathBuf| path.starts_with(other) || other.starts_with(&path));
            if let Some(other) = other {
                let reason = match other == &path {
                    true => format!("two products would stand at {}", path.display()),
                    false => format!("{} and {} lie inside each other", path.display(), other.display()),
                };
                return Err(at.overlap(&place, Aim::Key, reason));
            }
            files.insert(path, (found.name.clone(), output));
        }
        if files.is_empty() {
            return Err(at.meaning(&place, "no files: an artifact is made of at least one product"));
        }
        let mut needs = Vec::new();
        for (nth, need) in artifact.needs.iter().enumerate() {
            let found = steps.iter().find(|s| s.name.as_str() == need);
            let known = steps.iter().map(|step| step.name.as_str());
            let found = found.ok_or_else(|| at.unknown(format!("{place}.needs[{nth}]"), "step", need, known))?;
            needs.push(found.name.clone());
        }
        let base = match artifact.base.as_str() {
            "scratch" => None,
            text => Some(text.parse().map_err(|e| at.meaning(format!("{place}.base"), e))?),
        };
        let repository: Place =
            artifact.repository.parse().map_err(|e| at.meaning(format!("{place}.repository"), e))?;
        if repository.folder().is_some_and(|folder| folder.to_string_lossy().contains(['@', ':'])) {
            return Err(
                at.meaning(format!("{place}.repository"), "a folder without a tag or digest; tags stand under tags:")
            );
        }
        let mut tags: Vec<TagTemplate> = Vec::new();
        for (nth, text) in artifact.tags.iter().enumerate() {
            let place = format!("{place}.tags[{nth}]");
            let tag = text.parse().map_err(|e| at.meaning(&place, e))?;
            if tags.contains(&tag) {
                return Err(at.overlap(&place, Aim::Value, format!("the tag {tag} stands here twice")));
            }
            tags.push(tag);
        }
        check_config(at, &format!("{place}.config"), &artifact.config)?;
        let leaves =
            |folder: &Path| folder.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir));
        if repository.folder().is_some_and(leaves) {
            return Err(at.escapes(format!("{place}.repository"), "a folder below the pipeline file's, without .."));
        }
        if out.iter().any(|other| is_same(&other.repository, &repository)) {
            return Err(at.overlap(
                format!("{place}.repository"),
                Aim::Value,
                "another artifact is written there: a layout holds one image, and each artifact has a repository of its own",
            ));
        }
        out.push(Artifact {
            name: name.parse().map_err(|e: NameError| at.name(&place, e.of("artifact name")))?,
            base,
            files,
            config: artifact.config,
            needs,
            repository,
            tags,
            platforms,
        });
    }
    Ok(out)
}

/// Whether two places are written for one, with or without `.` parts.
fn is_same(one: &Place, other: &Place) -> bool {
    let plain = |folder: &Path| folder.components().filter(|c| *c != Component::CurDir).collect::<PathBuf>();
    match (one.folder(), other.folder()) {
        (Some(one), Some(other)) => plain(one) == plain(other),
        _ => one == other,
    }
}

/// Platforms that one artifact may name.
const MAX_PLATFORMS: usize = 16;

fn platforms(at: &In<'_>, place: &str, written: Option<Vec<String>>) -> Result<NonEmpty<Platform>, Error> {
    let Some(written) = written else { return Ok(NonEmpty::one(Platform::of_steps())) };
    if written.len() > MAX_PLATFORMS {
        return Err(at.meaning(place, format!("more than {MAX_PLATFORMS}")));
    }
    let mut platforms: Vec<Platform> = Vec::new();
    for (nth, text) in written.into_iter().enumerate() {
        let place = &format!("{place}[{nth}]");
        let platform: Platform = text.parse().map_err(|error| at.meaning(place, error))?;
        if platforms.iter().any(|other| other.is_same(&platform)) {
            return Err(at.meaning(place, format!("{text} is named twice")));
        }
        platforms.push(platform);
    }
    NonEmpty::try_from(platforms).map_err(|_| at.meaning(place, "at least one, or leave it out"))
}

/// What a runtime would refuse, or read as something else, when the image is started.
fn check_config(at: &In<'_>, place: &str, config: &ImageConfig) -> Result<(), Error> {
    for (key, value) in &config.env {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(at.name(format!("{place}.env.{key}"), "not a variable: a name without =, no zero byte"));
        }
    }
    if let Some(workdir) = &config.workdir {
        absolute(workdir).map_err(|e| at.meaning(format!("{place}.workdir"), e))?;
    }
    if config.entrypoint.as_ref().is_some_and(|argv| argv.first().is_none_or(String::is_empty)) {
        return Err(at.meaning(format!("{place}.entrypoint"), "nothing to execute; leave it out to keep the base's"));
    }
    Ok(())
}
