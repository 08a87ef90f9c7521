use std::{fmt, path::Path, str::FromStr};

use crate::{
    Digest, DigestError, EnvironmentName, NameError, Place, RegistryRepository, TagName, place::layout_folder,
};

/// What a person typed: an image by a name that may move.
///
/// An OCI layout folder is written `oci:DIR`, `oci:DIR:TAG` or `oci:DIR@sha256:HEX`; a repository of a registry
/// `HOST/PATH[:TAG][@sha256:HEX]`, where a tag counts for nothing beside a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// Where it is.
    pub place: Place,
    /// Which image of that place.
    pub selector: Selector,
}

/// Which image of a place is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The only one of a layout, more than one is an error; the one that a registry tags `latest`.
    Only,
    /// The one that carries this tag.
    Tag(TagName),
    /// Exactly this content.
    Digest(Digest),
}

impl ImageRef {
    /// The same reference with a relative folder taken from `base`.
    #[must_use]
    pub fn relative_to(&self, base: &Path) -> Self {
        Self { place: self.place.relative_to(base), selector: self.selector.clone() }
    }
}

impl FromStr for ImageRef {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        match text.strip_prefix("oci:") {
            Some(rest) => in_layout(rest),
            None => in_registry(text),
        }
    }
}

fn in_layout(rest: &str) -> Result<ImageRef, ImageError> {
    let image = |folder: &str, selector| Ok(ImageRef { place: Place::Layout(layout_folder(folder)?), selector });
    if let Some((directory, digest)) = rest.rsplit_once('@') {
        return image(directory, Selector::Digest(digest.parse()?));
    }
    match rest.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') => image(directory, Selector::Tag(tag.parse()?)),
        _ => image(rest, Selector::Only),
    }
}

fn in_registry(text: &str) -> Result<ImageRef, ImageError> {
    // What is no reference to a registry at all is said first: a folder without `oci:` is the usual slip.
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && name.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let repository: RegistryRepository = name.parse().map_err(|error| match error {
        ImageError::NoHost { .. } => {
            let text = text.chars().take(200).collect::<String>();
            if text.contains('/') { ImageError::NoHost { text } } else { ImageError::NameAlone { text } }
        }
        other => other,
    })?;
    let tag: Option<TagName> = tag.map(str::parse).transpose()?;
    let selector = match (digest, tag) {
        (Some(digest), _) => Selector::Digest(digest.parse()?),
        (None, Some(tag)) => Selector::Tag(tag),
        (None, None) => Selector::Only,
    };
    Ok(ImageRef { place: Place::Registry(repository), selector })
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        match &self.selector {
            Selector::Only => Ok(()),
            Selector::Tag(tag) => write!(f, ":{tag}"),
            Selector::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// The name under which an artifact is judged and signed for: never a path of this machine.
///
/// A registry's repository is called by its name, `HOST/PATH`; the `oci:` folder of an environment `oci:ENVIRONMENT` (DESIGN section 5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// The repository of an environment that is an OCI layout folder.
    pub fn of_environment(environment: &EnvironmentName) -> Self {
        Self(format!("oci:{environment}"))
    }

    /// The name of the environment's place.
    pub fn of(place: &Place, environment: &EnvironmentName) -> Self {
        Self::of_registry(place).unwrap_or_else(|| Self::of_environment(environment))
    }

    /// The name that a place has by itself; a layout's folder has none.
    pub fn of_registry(place: &Place) -> Option<Self> {
        match place {
            Place::Layout(_) => None,
            Place::Registry(repository) => Some(Self(repository.to_string())),
        }
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
    /// A folder without `oci:`, or a registry reference without its host.
    #[error("{}", without_host(text))]
    NoHost {
        /// What was written, cut at 200 characters.
        text: String,
    },
    /// A name alone, which Docker takes for one of its own images.
    #[error(
        "{text:?}: no host and no folder; an image of Docker Hub is written docker.io/library/{text}, one in a layout folder oci:{text}"
    )]
    NameAlone {
        /// What was written, cut at 200 characters.
        text: String,
    },
    /// A host, and something that is no repository.
    #[error("{text:?} names no repository: {rule}")]
    Repository {
        /// What was written, cut at 200 characters.
        text: String,
        /// What it breaks.
        rule: &'static str,
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

/// What a text without `oci:` and without a host was meant for.
fn without_host(text: &str) -> String {
    const HOST: &str = "a registry's image begins with its host, such as docker.io/library/debian:12";
    match format!("oci:{text}").parse::<ImageRef>() {
        Ok(meant) => format!("{text:?}: oci: is missing before the folder of a layout; did you mean {meant}? ({HOST})"),
        _ => format!("{text:?}: {HOST}; an OCI layout folder is written oci:DIR"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_references_name_a_folder_a_tag_or_a_digest() {
        let digest = Digest::of(b"x");
        let parse = |text: &str| text.parse::<ImageRef>().unwrap().selector;
        assert_eq!(parse("oci:out/shop"), Selector::Only);
        assert_eq!(parse("oci:out/shop:current"), Selector::Tag("current".parse().unwrap()));
        assert_eq!(parse(&format!("oci:/a:b/shop@{digest}")), Selector::Digest(digest));
        assert_eq!(parse("oci:/a:b/shop"), Selector::Only);
    }

    #[test]
    fn registry_references_name_a_repository_and_a_tag_or_a_digest() {
        let digest = Digest::of(b"x");
        let tag = |tag: &str| Selector::Tag(tag.parse().unwrap());
        for (text, place, selector) in [
            ("docker.io/library/debian:12".to_owned(), "docker.io/library/debian", tag("12")),
            ("docker.io/debian".to_owned(), "docker.io/library/debian", Selector::Only),
            ("localhost:5000/app".to_owned(), "localhost:5000/app", Selector::Only),
            ("localhost:5000/app:v1.2".to_owned(), "localhost:5000/app", tag("v1.2")),
            (format!("registry.example/a/b@{digest}"), "registry.example/a/b", Selector::Digest(digest)),
            (format!("registry.example/a/b:v1@{digest}"), "registry.example/a/b", Selector::Digest(digest)),
        ] {
            let parsed: ImageRef = text.parse().unwrap();
            assert_eq!((parsed.place.to_string(), &parsed.selector), (place.to_owned(), &selector), "{text}");
            assert_eq!(parsed.to_string().parse::<ImageRef>().unwrap(), parsed);
        }
        for bad in
            ["registry.example/a:", "registry.example/a@sha256:00", "registry.example/a@", "registry.example/a:x@b"]
        {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_without_its_scheme_is_said_to_be_one() {
        let says = |text: &str| text.parse::<ImageRef>().unwrap_err().to_string();
        for folder in ["images/build", "./images/build", "../x.y/z", "/srv/images", "images/build:v1.2"] {
            assert!(says(folder).contains(&format!("did you mean oci:{folder}?")), "{}", says(folder));
            assert!(format!("oci:{folder}").parse::<ImageRef>().is_ok());
        }
        for name in ["debian", "debian:12", "base"] {
            let hub = format!(
                "an image of Docker Hub is written docker.io/library/{name}, one in a layout folder oci:{name}"
            );
            assert!(says(name).contains(&hub), "{}", says(name));
            assert!(format!("docker.io/library/{name}").parse::<ImageRef>().is_ok());
        }
        assert!(says("https://example.com/app").contains("names no repository"), "{}", says("https://example.com/app"));
        assert_eq!("oci:".parse::<ImageRef>(), Err(ImageError::NoFolder));
        assert_eq!("oci:.".parse::<ImageRef>(), Err(ImageError::NoFolder));
    }

    #[test]
    fn the_name_of_a_place_is_never_a_path() {
        let environment: EnvironmentName = "production".parse().unwrap();
        assert_eq!(Repository::of(&Place::from("/srv/x"), &environment).as_str(), "oci:production");
        let registry: Place = "registry.example/prod/shop".parse().unwrap();
        assert_eq!(Repository::of(&registry, &environment).as_str(), "registry.example/prod/shop");
        assert_eq!(Repository::of_registry(&Place::from("/srv/x")), None);
    }
}
