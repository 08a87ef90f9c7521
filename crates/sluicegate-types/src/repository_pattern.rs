use std::{fmt, str::FromStr};

use crate::Repository;

/// Bytes of one pattern.
const MAX_PATTERN: usize = 512;

/// Which repositories a signer of trust.yaml may speak about: one name, the names below a prefix, or all.
///
/// Written `registry.example/shop` (exactly this name), `registry.example/team/*` (every name below, at any depth, never
/// `registry.example/team` itself nor `registry.example/teamX`) or `*`. Nothing folds case, and a `*` stands nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepositoryPattern {
    /// `*`: every repository, and places that have no name.
    Any,
    /// `PREFIX/*`: what begins with this text, which ends in `/`, and goes on after it.
    Below(String),
    /// One name.
    Exactly(String),
}

impl RepositoryPattern {
    /// Whether it lets this repository through. `None` is a place without a name, such as an OCI layout folder that belongs
    /// to no environment: only `*` does.
    pub fn matches(&self, repository: Option<&Repository>) -> bool {
        match (self, repository.map(Repository::as_str)) {
            (Self::Any, _) => true,
            (_, None) => false,
            (Self::Below(prefix), Some(name)) => name.len() > prefix.len() && name.starts_with(prefix.as_str()),
            (Self::Exactly(exactly), Some(name)) => name == exactly,
        }
    }
}

impl FromStr for RepositoryPattern {
    type Err = RepositoryPatternError;

    fn from_str(text: &str) -> Result<Self, RepositoryPatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let fault = |rule| Err(RepositoryPatternError { text: text.chars().take(200).collect(), rule });
        let name = text.strip_suffix("/*").unwrap_or(text);
        let last = name.rsplit('/').next().unwrap_or_default();
        if name.split('/').any(str::is_empty) {
            return fault("a name has no empty parts");
        }
        if text.len() > MAX_PATTERN {
            return fault("longer than 512 bytes");
        }
        if name.contains('*') {
            return fault("* stands alone or after the last /");
        }
        if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return fault("a name has no spaces and no control characters");
        }
        // What Docker's own programs call docker.io/debian has a longer name, by which it is asked about here.
        if name.strip_prefix("docker.io/").is_some_and(|rest| name == text && !rest.contains('/')) {
            return fault("an image of Docker's own library is called docker.io/library/NAME");
        }
        if name.contains("://") {
            return fault("a name begins with its host, without https://");
        }
        if name.contains('@') || (name.contains('/') && name == text && last.contains(':')) {
            return fault("a repository has no tag and no digest");
        }
        Ok(if name == text { Self::Exactly(name.to_owned()) } else { Self::Below(format!("{name}/")) })
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(prefix) => write!(f, "{prefix}*"),
            Self::Exactly(name) => f.write_str(name),
        }
    }
}

/// Why a text is no pattern of repositories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no repositories: {rule}; write a name, PREFIX/* or *")]
pub struct RepositoryPatternError {
    text: String,
    rule: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::named;

    #[test]
    fn a_pattern_is_a_name_what_lies_below_a_prefix_or_everything() {
        for (pattern, name, matches) in [
            ("registry.example/shop", "registry.example/shop", true),
            ("registry.example/shop", "registry.example/Shop", false),
            ("registry.example/shop", "registry.example/shop/web", false),
            ("registry.example/shop/*", "registry.example/shop/web", true),
            ("registry.example/shop/*", "registry.example/shop/web/api", true),
            ("registry.example/shop/*", "registry.example/shop", false),
            ("registry.example/shop/*", "registry.example/shop/", false),
            ("registry.example/shop/*", "registry.example/shopX", false),
            ("registry.example/shop/*", "registry.example/SHOP/web", false),
            ("registry.example/shop/*", "evil.example/registry.example/shop/web", false),
            ("registry.example/*", "registry.example/shop", true),
            ("localhost:5000/*", "localhost:5000/shop", true),
            ("oci:production", "oci:production", true),
            ("oci:production", "oci:staging", false),
            ("*", "registry.example/shop", true),
            ("*", "oci:production", true),
        ] {
            let parsed: RepositoryPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(Some(&named(name))), matches, "{pattern} and {name}");
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn a_place_without_a_name_is_covered_by_everything_only() {
        assert!("*".parse::<RepositoryPattern>().unwrap().matches(None));
        for pattern in ["oci:production", "registry.example/*"] {
            assert!(!pattern.parse::<RepositoryPattern>().unwrap().matches(None), "{pattern}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_pattern() {
        for good in
            ["registry.example/shop", "localhost:5000/shop", "shop", "docker.io/library/debian", "docker.io/team/*"]
        {
            assert!(good.parse::<RepositoryPattern>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "/*",
            "**",
            "shop*",
            "registry.example/shop*",
            "registry.example/*/shop",
            "*/shop",
            "*.example/shop",
            "registry.example//shop",
            "registry.example/shop/",
            "registry.example/sh op",
            "registry.example/shop\n",
            "registry.example/shop:current",
            "docker.io/debian",
            "https://registry.example/shop",
            "registry.example/shop@sha256:00",
        ] {
            let error = bad.parse::<RepositoryPattern>().unwrap_err().to_string();
            assert!(error.contains("names no repositories"), "{bad}: {error}");
        }
        let long = |bytes: usize| "x".repeat(bytes).parse::<RepositoryPattern>();
        assert!(long(MAX_PATTERN).is_ok());
        assert!(long(MAX_PATTERN + 1).is_err());
    }
}
