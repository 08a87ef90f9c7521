//! Build tags as they are written: perhaps with the commit in them.

use std::{fmt, str::FromStr};

use sluicegate_types::TagName;

/// A build tag with what stands in braces left to be filled: `git-{commit}`, or a tag without any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Text(String),
    Commit,
}

/// Why a tag's text is none, or cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagFault {
    /// Braces around what there is not.
    #[error("{{{name}}}: there is nothing to put there; in braces stands {{commit}} and nothing else")]
    Placeholder {
        /// What stands in them.
        name: String,
    },
    /// A brace without its other half.
    #[error("a {{ or }} without its other half; {{commit}} is all that stands in braces")]
    Brace,
    /// With a commit in its place it is no tag.
    #[error("{0}")]
    Tag(String),
    /// There is no commit to put there.
    #[error("the tag {tag} needs the one commit that all sources of the artifact are of, and there is none")]
    NoCommit {
        /// The tag as it is written.
        tag: String,
    },
}

const COMMIT: &str = "commit";
/// The longest that may stand for a commit: SHA-256, and that there are changes.
const LONGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000-dirty";
const DIRTY: &str = "-dirty";

impl TagTemplate {
    /// Whether it can only be filled with a commit.
    pub fn needs_commit(&self) -> bool {
        self.0.contains(&Part::Commit)
    }

    /// The tag. `commit` is the one that all sources of the artifact are of, in hexadecimal digits; `dirty` says that there are changes
    /// beyond it, which stands behind it. A tag without `{commit}` is the same whatever the commit.
    pub fn fill(&self, commit: Option<&str>, dirty: bool) -> Result<TagName, TagFault> {
        let is_commit = |text: &&str| matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit());
        let commit = match commit.filter(is_commit) {
            None if self.needs_commit() => return Err(TagFault::NoCommit { tag: self.to_string() }),
            commit => commit.unwrap_or_default().to_ascii_lowercase(),
        };
        self.with(&if dirty { format!("{commit}{DIRTY}") } else { commit })
    }

    fn with(&self, commit: &str) -> Result<TagName, TagFault> {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Commit => commit,
        });
        parts.collect::<String>().parse().map_err(|error: sluicegate_types::NameError| TagFault::Tag(error.to_string()))
    }
}

impl FromStr for TagTemplate {
    type Err = TagFault;

    fn from_str(text: &str) -> Result<Self, TagFault> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(TagFault::Brace)?;
            if name != COMMIT {
                return Err(TagFault::Placeholder { name: sluicegate_types::nearest::shortened(name) });
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Commit);
            rest = after;
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let template = Self(parts);
        if template.0.iter().any(|part| matches!(part, Part::Text(text) if text.contains('}'))) {
            return Err(TagFault::Brace);
        }
        template.with(LONGEST).map(|_| template)
    }
}

impl fmt::Display for TagTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Commit => write!(f, "{{{COMMIT}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT_ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_commit_is_filled_in_and_changes_are_said() {
        let fill = |text: &str, commit: Option<&str>, dirty: bool| {
            let template: TagTemplate = text.parse().unwrap();
            assert_eq!(template.to_string(), text);
            template.fill(commit, dirty).map(|tag| tag.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(fill("git-{commit}", Some(COMMIT_ID), false), Ok(format!("git-{COMMIT_ID}")));
        assert_eq!(fill("{commit}-amd64", Some(COMMIT_ID), true), Ok(format!("{COMMIT_ID}-dirty-amd64")));
        for (commit, dirty) in [(None, false), (None, true), (Some(COMMIT_ID), true)] {
            assert_eq!(fill("v1.2", commit, dirty), Ok("v1.2".to_owned()));
        }
        for commit in [None, Some(""), Some("main"), Some("../x"), Some(&COMMIT_ID[1..])] {
            let found = fill("git-{commit}", commit, true).unwrap_err();
            assert!(found.starts_with("the tag git-{commit} needs the one commit"), "{found}");
        }
    }

    #[test]
    fn other_braces_and_what_is_no_tag_are_refused() {
        let refused = |text: &str| text.parse::<TagTemplate>().unwrap_err().to_string();
        for bad in ["{branch}", "a{}", "{commit }", "{{commit}}", "{Commit}"] {
            assert!(refused(bad).contains("in braces stands {commit} and nothing else"), "{bad}: {}", refused(bad));
        }
        for bad in ["a}", "{commit", "{commit}}"] {
            assert!(refused(bad).contains("without its other half"), "{bad}: {}", refused(bad));
        }
        for bad in
            ["", ".a", "-{commit}", "a b", "{commit}/x", &"x".repeat(129), &format!("{}{{commit}}", "x".repeat(59))]
        {
            assert!(refused(bad).starts_with("tag "), "{bad}: {}", refused(bad));
        }
        assert!(format!("{}{{commit}}", "x".repeat(58)).parse::<TagTemplate>().is_ok());
    }
}
