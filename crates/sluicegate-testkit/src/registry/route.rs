//! What the path of a request names.

/// A place of the API.
pub(super) enum Route {
    Base,
    Token,
    Signed { repository: String, digest: String },
    Blob { repository: String, digest: String },
    NewUpload { repository: String },
    Upload { repository: String, session: String },
    Manifest { repository: String, reference: String },
    Tags { repository: String },
    Referrers { repository: String, digest: String },
    BadName,
    Nowhere,
}

impl Route {
    /// The place that `path` names.
    pub(super) fn of(path: &str) -> Self {
        if path == "/token" {
            return Self::Token;
        }
        if let Some((repository, digest)) = path.strip_prefix("/signed/").and_then(|rest| rest.rsplit_once('/')) {
            return Self::Signed { repository: repository.to_owned(), digest: digest.to_owned() };
        }
        let Some(rest) = path.strip_prefix("/v2") else { return Self::Nowhere };
        let rest = match rest {
            "" | "/" => return Self::Base,
            rest => rest.strip_prefix('/').unwrap_or(rest),
        };
        let mut parts = rest.rsplitn(4, '/');
        let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let third = parts.next();
        let join = |parts: &[Option<&str>]| parts.iter().flatten().copied().collect::<Vec<_>>().join("/");
        let front = parts.next();
        let last = last.to_owned();
        let (name, route): (String, fn(String, String) -> Self) = match (third, before, last.as_str()) {
            (Some("blobs"), "uploads", "") => (join(&[front]), |repository, _| Self::NewUpload { repository }),
            (Some("blobs"), "uploads", _) => {
                (join(&[front]), |repository, session| Self::Upload { repository, session })
            }
            (third, "blobs", "uploads") => (join(&[front, third]), |repository, _| Self::NewUpload { repository }),
            (third, "tags", "list") => (join(&[front, third]), |repository, _| Self::Tags { repository }),
            (third, "blobs", _) => (join(&[front, third]), |repository, digest| Self::Blob { repository, digest }),
            (third, "manifests", _) => {
                (join(&[front, third]), |repository, reference| Self::Manifest { repository, reference })
            }
            (third, "referrers", _) => {
                (join(&[front, third]), |repository, digest| Self::Referrers { repository, digest })
            }
            _ => return Self::Nowhere,
        };
        if is_name(&name) { route(name, last) } else { Self::BadName }
    }

    /// The repository that it is in.
    pub(super) fn repository(&self) -> Option<&str> {
        match self {
            Self::Base | Self::Token | Self::BadName | Self::Nowhere => None,
            Self::Signed { repository, .. }
            | Self::Blob { repository, .. }
            | Self::NewUpload { repository }
            | Self::Upload { repository, .. }
            | Self::Manifest { repository, .. }
            | Self::Tags { repository }
            | Self::Referrers { repository, .. } => Some(repository),
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`
pub(super) fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let component = |component: &str| {
        let bytes = component.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends.iter().all(|end| end.is_some_and(|byte| letter(*byte)))
            && separators.into_iter().all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|byte| byte == b'-'))
    };
    name.len() <= 255 && name.split('/').all(component)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
pub(super) fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags() {
        for name in ["a", "library/alpine", "a__b/c.d", "x--y/z1", "blobs/uploads/manifests"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "A", "a..b", "a/", "/a", "a//b", "-a", "a___b", "a/../b", &"a".repeat(256)] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_tag("sha256-0") && is_tag("_") && !is_tag(".a") && !is_tag("a:b") && !is_tag(&"a".repeat(129)));
    }

    #[test]
    fn repositories_may_be_called_like_parts_of_the_api() {
        let repository = |path: &str| Route::of(path).repository().map(str::to_owned);
        assert_eq!(repository("/v2/a/blobs/blobs/uploads/"), Some("a/blobs".to_owned()));
        assert_eq!(repository("/v2/tags/list/manifests/latest"), Some("tags/list".to_owned()));
        assert_eq!(repository("/v2/one/tags/list"), Some("one".to_owned()));
        assert!(matches!(Route::of("/v2/A/tags/list"), Route::BadName));
        assert!(matches!(Route::of("/v2/tags/list"), Route::BadName));
        assert!(matches!(Route::of("/v2/a/b"), Route::Nowhere));
        assert!(matches!(Route::of("/v2"), Route::Base));
    }
}
