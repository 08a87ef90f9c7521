use std::{fmt, str::FromStr};

/// A package URL (the purl specification), such as `pkg:npm/%40scope/name@1.2.0`, in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageUrl(packageurl::PackageUrl<'static>);

/// Bytes of one that somebody wrote into a file.
const MAX_BYTES: usize = 4096;

impl PackageUrl {
    /// Which kind of package: `deb`, `npm`, …
    pub fn kind(&self) -> &str {
        self.0.ty()
    }

    /// The namespace, if it has one.
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The version, if it has one.
    pub fn version(&self) -> Option<&str> {
        self.0.version()
    }

    /// The qualifiers, by name.
    pub fn qualifiers(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut all: Vec<(&str, &str)> =
            self.0.qualifiers().iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
        all.sort_unstable();
        all.into_iter()
    }

    /// The path in the package, if it has one.
    pub fn subpath(&self) -> Option<&str> {
        self.0.subpath()
    }

    /// Whether `other` is this very package: kind, namespace, name and version are the same, and so is everything else that this one
    /// says. What `other` says beyond that, such as its architecture, does not matter.
    pub fn names(&self, other: &Self) -> bool {
        let same = |of: fn(&Self) -> Option<&str>| of(self) == of(other);
        self.kind() == other.kind()
            && self.name() == other.name()
            && same(Self::namespace)
            && same(Self::version)
            && (self.subpath().is_none() || same(Self::subpath))
            && self.0.qualifiers().iter().all(|(name, value)| other.0.qualifiers().get(name) == Some(value))
    }
}

impl FromStr for PackageUrl {
    type Err = PackageUrlError;

    fn from_str(text: &str) -> Result<Self, PackageUrlError> {
        let fault = |reason: String| PackageUrlError { text: text.chars().take(64).collect(), reason };
        if text.len() > MAX_BYTES {
            return Err(fault(format!("more than {MAX_BYTES} bytes")));
        }
        text.parse().map(Self).map_err(|error: packageurl::Error| fault(error.to_string()))
    }
}

impl fmt::Display for PackageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a text is no package URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a package URL ({reason}): write pkg:TYPE/NAME@VERSION")]
pub struct PackageUrlError {
    text: String,
    reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purl(text: &str) -> PackageUrl {
        text.parse().unwrap()
    }

    #[test]
    fn one_names_another_with_more_said_and_never_one_with_less_or_other() {
        let seen = purl("pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=amd64&distro=debian-12.11");
        for names in [
            "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1",
            "pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1",
            "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=amd64",
        ] {
            assert!(purl(names).names(&seen), "{names}");
        }
        for other in [
            "pkg:deb/debian/zlib1g",
            "pkg:deb/debian/zlib1g@1.2.13.dfsg-1",
            "pkg:deb/ubuntu/zlib1g@1:1.2.13.dfsg-1",
            "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=arm64",
            "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?epoch=1",
            "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1#lib",
            "pkg:npm/zlib1g@1:1.2.13.dfsg-1",
        ] {
            assert!(!purl(other).names(&seen), "{other}");
        }
        assert!(!seen.names(&purl("pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1")));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "zlib1g", "pkg:", "pkg:npm", "pkg:npm/", "https://example.com/x", "pkg:npm/@1"] {
            assert!(text.parse::<PackageUrl>().is_err(), "{text}");
        }
        assert!(format!("pkg:npm/{}", "a".repeat(5000)).parse::<PackageUrl>().is_err());
        assert_eq!(purl("pkg:npm/%40scope/name@1").to_string(), "pkg:npm/%40scope/name@1");
    }
}
