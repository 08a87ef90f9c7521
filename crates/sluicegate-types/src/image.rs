use std::{
    fmt,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use crate::{Digest, DigestError, EnvironmentName, NameError, TagName};

/// What a person typed: an image by a name that may move.
///
/// This version takes OCI layout folders, `oci:DIR`, `oci:DIR:TAG` or `oci:DIR@sha256:HEX`; a registry reference is
/// refused with [`ImageError::Registry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// The folder as written.
    pub directory: PathBuf,
    /// Which image of the folder.
    pub selector: LayoutSelector,
}

/// Which image of a layout is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutSelector {
    /// The only one; more than one is an error.
    Only,
    /// The one that carries this tag.
    Tag(TagName),
    /// Exactly this content.
    Digest(Digest),
}

impl ImageRef {
    /// The same reference with a relative folder taken from `base`.
    pub fn relative_to(self, base: &Path) -> Self {
        Self { directory: base.join(self.directory), selector: self.selector }
    }
}

impl FromStr for ImageRef {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let Some(rest) = text.strip_prefix("oci:") else {
            return Err(ImageError::Registry { text: text.chars().take(200).collect() });
        };
        if let Some((directory, digest)) = rest.rsplit_once('@') {
            return Ok(Self { directory: folder(directory)?, selector: LayoutSelector::Digest(digest.parse()?) });
        }
        match rest.rsplit_once(':') {
            Some((directory, tag)) if !tag.contains('/') => {
                Ok(Self { directory: folder(directory)?, selector: LayoutSelector::Tag(tag.parse()?) })
            }
            _ => Ok(Self { directory: folder(rest)?, selector: LayoutSelector::Only }),
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.directory.display())?;
        match &self.selector {
            LayoutSelector::Only => Ok(()),
            LayoutSelector::Tag(tag) => write!(f, ":{tag}"),
            LayoutSelector::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

fn folder(text: &str) -> Result<PathBuf, ImageError> {
    let path = PathBuf::from(text);
    if text.is_empty() || text.contains('\0') || path.components().all(|c| matches!(c, Component::CurDir)) {
        return Err(ImageError::NoFolder);
    }
    Ok(path)
}

/// The name under which an artifact is judged and signed for: never a path of this machine.
///
/// An `oci:` folder of an environment is called `oci:ENVIRONMENT`, that of a build `oci:NAME` (DESIGN section 5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// The repository of an environment that is an OCI layout folder.
    pub fn of_environment(environment: &EnvironmentName) -> Self {
        Self(format!("oci:{environment}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository of any name, for tests of this crate.
#[cfg(test)]
pub(crate) fn named(name: &str) -> Repository {
    Repository(name.to_owned())
}

/// An image named by content. The only form that may be attested, gated, signed or admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedImage {
    /// Where it is to be found, by name.
    pub repository: Repository,
    /// The digest of its manifest.
    pub digest: Digest,
}

impl fmt::Display for PinnedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository, self.digest)
    }
}

/// Why a text does not name an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A registry reference, or a folder without `oci:`.
    #[error("{}", without_scheme(text))]
    Registry {
        /// What was written, cut at 200 characters.
        text: String,
    },
    /// `oci:` without a folder.
    #[error("no folder after oci:")]
    NoFolder,
    /// The digest after `@`.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The tag after the last colon.
    #[error(transparent)]
    Tag(#[from] NameError),
}

/// What a text without `oci:` was meant for: only a registry's name has a dot or a port before the first slash.
fn without_scheme(text: &str) -> String {
    const NO_REGISTRY: &str = "registry references are not in this version";
    let host = text.split_once('/').map_or("", |(host, _)| host);
    let is_host = host.contains(['.', ':']) && !host.starts_with('.');
    match format!("oci:{text}").parse::<ImageRef>() {
        Ok(meant) if !is_host => {
            format!("{text:?}: oci: is missing before the folder of a layout; did you mean {meant}? ({NO_REGISTRY})")
        }
        _ => format!("{text:?}: {NO_REGISTRY}; write oci:DIR for an OCI layout folder"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_references_name_a_folder_a_tag_or_a_digest() {
        let digest = Digest::of(b"x");
        let parse = |text: &str| text.parse::<ImageRef>().unwrap().selector;
        assert_eq!(parse("oci:out/shop"), LayoutSelector::Only);
        assert_eq!(parse("oci:out/shop:current"), LayoutSelector::Tag("current".parse().unwrap()));
        assert_eq!(parse(&format!("oci:/a:b/shop@{digest}")), LayoutSelector::Digest(digest));
        assert_eq!(parse("oci:/a:b/shop"), LayoutSelector::Only);
    }

    #[test]
    fn a_registry_reference_is_refused_in_its_own_words() {
        assert!(matches!("docker.io/library/debian:12".parse::<ImageRef>(), Err(ImageError::Registry { .. })));
        let says = |text: &str| text.parse::<ImageRef>().unwrap_err().to_string();
        for registry in ["docker.io/library/debian:12", "localhost:5000/app", "https://example.com/app", "a/b@sha256:0"]
        {
            assert!(says(registry).contains("write oci:DIR"), "{}", says(registry));
        }
        for folder in ["images/build", "./images/build", "../x.y/z", "/srv/images", "images/build:v1.2", "base"] {
            assert!(says(folder).contains(&format!("did you mean oci:{folder}?")), "{}", says(folder));
            assert!(format!("oci:{folder}").parse::<ImageRef>().is_ok());
        }
        assert_eq!("oci:".parse::<ImageRef>(), Err(ImageError::NoFolder));
        assert_eq!("oci:.".parse::<ImageRef>(), Err(ImageError::NoFolder));
    }
}
