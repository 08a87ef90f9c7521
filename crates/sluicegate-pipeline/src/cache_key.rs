//! The key of a step's result: a digest over everything that can change it (DESIGN section 4, "Step cache").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluicegate_types::Digest;

/// Bytes of one part that are kept as they are; a longer one is kept as its digest.
const MAX_SHOWN: usize = 256;

/// What a key is made of, part by part, so that a difference has a name. A part is a name such as `env.CC` or `input./src` and what it
/// is; the order in which parts were added does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyParts(BTreeMap<String, String>);

/// How a part of a key is another one than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The part.
    pub part: String,
    /// What it was; `None` if it was not there.
    pub before: Option<String>,
    /// What it is; `None` if it is gone.
    pub now: Option<String>,
}

impl KeyParts {
    /// Adds a part. A part that is named twice is one part, and the last one counts.
    pub fn add(&mut self, part: impl Into<String>, value: impl ToString) {
        let value = value.to_string();
        let value = if value.len() > MAX_SHOWN { Digest::of(value.as_bytes()).to_string() } else { value };
        self.0.insert(part.into(), value);
    }

    /// The key: SHA-256 over every part with its name, each preceded by its length, so that no two lists of parts give the same bytes.
    pub fn key(&self) -> Digest {
        let mut bytes = b"sluicegate step cache key 1\n".to_vec();
        for (part, value) in &self.0 {
            for text in [part, value] {
                bytes.extend((text.len() as u64).to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
        Digest::of(&bytes)
    }

    /// What a part is.
    pub fn get(&self, part: &str) -> Option<&str> {
        self.0.get(part).map(String::as_str)
    }

    /// Every part by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(part, value)| (part.as_str(), value.as_str()))
    }

    /// What is another one than `before`, by the name of the part.
    pub fn differences(&self, before: &Self) -> Vec<Difference> {
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(before.0.keys()).collect();
        let changed = names.into_iter().filter(|part| self.0.get(*part) != before.0.get(*part));
        let difference = |part: &String| Difference {
            part: part.clone(),
            before: before.0.get(part).cloned(),
            now: self.0.get(part).cloned(),
        };
        changed.map(difference).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(of: &[(&str, &str)]) -> KeyParts {
        let mut parts = KeyParts::default();
        of.iter().for_each(|(part, value)| parts.add(*part, value));
        parts
    }

    #[test]
    fn order_does_not_count_and_every_boundary_does() {
        let key = |of: &[(&str, &str)]| parts(of).key();
        assert_eq!(key(&[("env.A", "1"), ("env.B", "2")]), key(&[("env.B", "2"), ("env.A", "1")]));
        let different = [
            vec![],
            vec![("env.A", "b c")],
            vec![("env.A", "b"), ("env.c", "")],
            vec![("env.A", "b"), ("env.c", "d")],
            vec![("env.Ab", ""), ("env.c", "")],
            vec![("argv.0", "a b")],
            vec![("argv.0", "a"), ("argv.1", "b")],
        ];
        let keys: std::collections::BTreeSet<Digest> = different.iter().map(|of| key(of)).collect();
        assert_eq!(keys.len(), different.len());
    }

    #[test]
    fn long_parts_differ_by_what_is_in_them() {
        let long = |end: &str| parts(&[("run", &format!("{}{end}", "x".repeat(300)))]);
        assert_ne!(long("a").key(), long("b").key());
        assert!(long("a").get("run").is_some_and(|value| value.starts_with("sha256:")));
    }

    #[test]
    fn a_difference_is_told_by_its_part() {
        let (before, now) =
            (parts(&[("a", "1"), ("b", "2"), ("c", "3")]), parts(&[("a", "1"), ("b", "5"), ("d", "4")]));
        let told = now.differences(&before);
        let names: Vec<&str> = told.iter().map(|one| one.part.as_str()).collect();
        assert_eq!(names, ["b", "c", "d"]);
        assert_eq!((told[0].before.as_deref(), told[0].now.as_deref()), (Some("2"), Some("5")));
        assert_eq!((told[1].now.as_deref(), told[2].before.as_deref()), (None, None));
        assert!(now.differences(&now).is_empty());
    }
}
