//! `# METADATA` blocks: what a rule says about itself, in OPA's annotation format. The engine skips comments, so they are read here.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use sluicegate_types::UnixTime;

use crate::policy_error::{Place, PolicyError};

/// One block with where it stands.
#[derive(Debug)]
pub(crate) struct Block {
    /// The line of `# METADATA`, from 1.
    pub(crate) line: u64,
    /// Its last comment line.
    pub(crate) last_line: u64,
    /// What it says.
    pub(crate) annotation: Annotation,
}

/// The keys of a block. OPA's own keys that decide nothing here are named so that a misspelt key is an error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Annotation {
    pub(crate) scope: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) custom: Option<Custom>,
    #[serde(rename = "entrypoint")]
    _entrypoint: Option<IgnoredAny>,
    #[serde(rename = "related_resources")]
    _related_resources: Option<IgnoredAny>,
    #[serde(rename = "authors")]
    _authors: Option<IgnoredAny>,
    #[serde(rename = "organizations")]
    _organizations: Option<IgnoredAny>,
    #[serde(rename = "schemas")]
    _schemas: Option<IgnoredAny>,
    #[serde(rename = "compile")]
    _compile: Option<IgnoredAny>,
}

/// The keys below `custom` that are read; others are the author's own.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Custom {
    pub(crate) short_name: Option<String>,
    pub(crate) solution: Option<String>,
    pub(crate) requires: Option<Vec<String>>,
    pub(crate) requires_fields: Option<Vec<String>>,
    pub(crate) effective_on: Option<String>,
    pub(crate) controls: Option<BTreeMap<String, Vec<String>>>,
    pub(crate) none_is_fine: Option<Vec<String>>,
}

/// What a block says that declares a code: everything a denial needs to explain itself is there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) short_name: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) solution: String,
    pub(crate) requires: Vec<String>,
    pub(crate) requires_fields: Vec<String>,
    pub(crate) effective_on: Option<UnixTime>,
    pub(crate) controls: BTreeMap<String, Vec<String>>,
}

/// Predicate types that one rule may require.
const MAX_REQUIRES: usize = 64;

/// Reads every block of `text`; `file` is for errors.
pub(crate) fn blocks(file: &str, text: &str) -> Result<Vec<Block>, PolicyError> {
    let mut found = Vec::new();
    let mut lines = (1_u64..).zip(text.lines()).peekable();
    while let Some((line, first)) = lines.next() {
        if !opens_a_block(first) {
            continue;
        }
        let mut yaml = String::new();
        let mut last_line = line;
        while let Some((number, next)) = lines.next_if(|(_, next)| !opens_a_block(next)) {
            let Some(comment) = next.trim_start().strip_prefix('#') else { break };
            yaml.push_str(comment.trim_end());
            yaml.push('\n');
            last_line = number;
        }
        found.push(Block { line, last_line, annotation: parse(file, line, &yaml)? });
    }
    Ok(found)
}

impl Annotation {
    /// What this block declares; `None` if it has no `custom.short_name` and its rule owes none.
    pub(crate) fn declared(&self, place: &Place, owes_a_code: bool) -> Result<Option<Declared>, PolicyError> {
        let wrong = |reason: String| PolicyError::Metadata { place: place.clone(), reason };
        let none = Custom::default();
        let custom = self.custom.as_ref().unwrap_or(&none);
        let Some(short_name) = &custom.short_name else {
            return if owes_a_code { Err(wrong(missing("custom.short_name"))) } else { Ok(None) };
        };
        if !is_identifier(short_name) {
            return Err(wrong(format!(
                "custom.short_name {short_name:?} is not a name: use at most 64 of a-z, 0-9 and _, and begin with a letter"
            )));
        }
        let text = |key: &str, value: &Option<String>| match value.as_deref().map(str::trim) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(wrong(missing(key))),
        };
        let requires = custom.requires.clone().ok_or_else(|| {
            wrong(missing("custom.requires") + " as a list of predicate types ([] if the rule needs no attestation)")
        })?;
        if requires.len() > MAX_REQUIRES {
            return Err(wrong(format!("custom.requires lists more than {MAX_REQUIRES} predicate types")));
        }
        if let Some(odd) = requires.iter().find(|kind| !kind.contains("://") || kind.chars().any(char::is_whitespace)) {
            return Err(wrong(format!(
                "custom.requires has {odd:?}, which is not a predicate type: write its whole URI"
            )));
        }
        let requires_fields = custom.requires_fields.clone().unwrap_or_default();
        let is_pointer = |pointer: &&String| {
            pointer.len() > 1 && pointer.starts_with('/') && !pointer.replace("~0", "").replace("~1", "").contains('~')
        };
        if custom.requires_fields.is_some()
            && (requires_fields.is_empty() || !requires_fields.iter().all(|p| is_pointer(&p)))
        {
            return Err(wrong(
                "custom.requires_fields lists at least one JSON pointer into the facts, such as /vulnerabilities"
                    .into(),
            ));
        }
        let moment = |text: &String| text.parse().map_err(|error| wrong(format!("custom.effective_on: {error}")));
        Ok(Some(Declared {
            requires_fields,
            effective_on: custom.effective_on.as_ref().map(moment).transpose()?,
            controls: custom.controls.clone().unwrap_or_default(),
            short_name: short_name.clone(),
            title: text("title", &self.title)?,
            description: text("description", &self.description)?,
            solution: text("custom.solution", &custom.solution)?,
            requires,
        }))
    }

    /// Whether the block speaks about a package and not about the rule below it.
    pub(crate) fn is_about_a_package(&self) -> bool {
        matches!(self.scope.as_deref(), Some("package" | "subpackages"))
    }
}

/// Whether `name` can be a part of a code: lower-case letters, digits and `_`, beginning with a letter, at most 64.
pub(crate) fn is_identifier(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn missing(key: &str) -> String {
    format!("{key} is missing or blank: write it")
}

fn opens_a_block(line: &str) -> bool {
    line.trim_start().strip_prefix('#').is_some_and(|comment| comment.trim() == "METADATA")
}

fn parse(file: &str, first: u64, yaml: &str) -> Result<Annotation, PolicyError> {
    let options = serde_saphyr::options! { no_schema: true, with_snippet: false };
    serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        PolicyError::Metadata {
            // The `#` that was cut off is one column.
            place: Place {
                file: file.to_owned(),
                line: first + line,
                column: if column == 0 { 0 } else { column + 1 },
            },
            reason: error.to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "\
package a

# METADATA
# title: a title
# description: what it says
# custom:
#   short_name: one
#   solution: what to do
#   requires: [\"https://slsa.dev/provenance/v1\"]
deny contains 1
";

    fn declared(text: &str) -> Result<Option<Declared>, PolicyError> {
        let block = blocks("a.rego", text)?.remove(0);
        block.annotation.declared(&Place { file: "a.rego".into(), line: block.line, column: 0 }, true)
    }

    #[test]
    fn a_whole_block_declares_its_code() {
        let block = blocks("a.rego", WHOLE).unwrap().remove(0);
        assert_eq!((block.line, block.last_line), (3, 9));
        let declared = declared(WHOLE).unwrap().unwrap();
        assert_eq!(declared.short_name, "one");
        assert_eq!(declared.title, "a title");
        assert_eq!(declared.description, "what it says");
        assert_eq!(declared.solution, "what to do");
        assert_eq!(declared.requires, ["https://slsa.dev/provenance/v1"]);
    }

    #[test]
    fn a_missing_or_blank_key_is_named() {
        for (line, key) in [
            ("# title: a title\n", "title"),
            ("# description: what it says\n", "description"),
            ("#   short_name: one\n", "custom.short_name"),
            ("#   solution: what to do\n", "custom.solution"),
            ("#   requires: [\"https://slsa.dev/provenance/v1\"]\n", "custom.requires"),
        ] {
            let error = declared(&WHOLE.replace(line, "")).unwrap_err().to_string();
            assert!(error.contains(&format!("a.rego:3: METADATA: {key} is missing")), "{error}");
        }
        let error = declared(&WHOLE.replace("a title", "\" \"")).unwrap_err().to_string();
        assert!(error.contains("title is missing or blank"), "{error}");
    }

    #[test]
    fn bad_yaml_names_its_own_line() {
        for (good, bad, line) in [
            ("# title: a title", "# title: [a title", 4),
            ("# title: a title", "# titel: a title", 4),
            ("# title: a title", "# title: yes", 4),
            ("#   solution: what to do", "#   short_name: again", 8),
        ] {
            let PolicyError::Metadata { place, reason } = declared(&WHOLE.replace(good, bad)).unwrap_err() else {
                unreachable!()
            };
            assert!(place.line >= line && place.line <= 9, "{bad}: {place}: {reason}");
        }
        assert!(declared(&WHOLE.replace("# title: a title", "# title: \"yes\"")).is_ok());
    }

    #[test]
    fn requires_are_whole_predicate_types() {
        let error = declared(&WHOLE.replace("\"https://slsa.dev/provenance/v1\"", "provenance")).unwrap_err();
        assert!(error.to_string().contains("write its whole URI"), "{error}");
        assert!(declared(&WHOLE.replace("\"https://slsa.dev/provenance/v1\"", "")).is_ok());
    }

    #[test]
    fn a_block_ends_where_the_comments_end_or_the_next_begins() {
        let two = "# METADATA\n# title: one\n# METADATA\n# title: two\n\n# not part of it: [\n";
        let titles: Vec<_> =
            blocks("a.rego", two).unwrap().into_iter().map(|block| block.annotation.title.unwrap()).collect();
        assert_eq!(titles, ["one", "two"]);
    }
}
