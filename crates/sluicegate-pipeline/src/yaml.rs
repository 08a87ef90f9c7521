//! Strict YAML: a bounded document without aliases, doubled keys or unquoted `yes`, `no`, `on`, `off`.

use granit_parser::{Event, Parser, ScalarStyle};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};

use crate::Error;

/// Bytes of one file.
pub(crate) const MAX_FILE: usize = 1024 * 1024;

/// Reads `text` as a `T`. `file` is how errors call it.
pub(crate) fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Error> {
    let syntax = |reason: String| Error::Syntax { file: file.to_owned(), reason };
    if text.len() > MAX_FILE {
        return Err(syntax(format!("larger than the limit of {MAX_FILE} bytes")));
    }
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| syntax(error.to_string()))?;
        let (line, column) = (span.start.line(), span.start.col() + 1);
        match event {
            Event::Scalar(value, ScalarStyle::Plain, ..) if is_norwegian(&value) => {
                return Err(syntax(format!(
                    "line {line}, column {column}: unquoted {value} is a truth value for one reader and a text for another; write \"{value}\", true or false"
                )));
            }
            Event::Alias(..) => {
                return Err(syntax(format!("line {line}, column {column}: an alias; write the value out")));
            }
            _ => {}
        }
    }
    serde_saphyr::from_str(text).map_err(|error| syntax(error.to_string()))
}

fn is_norwegian(value: &str) -> bool {
    ["yes", "no", "on", "off"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Whether a key stands in the file, whatever its value; a key without a value stands there too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given(pub(crate) bool);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// A mapping in the order of the file.
#[derive(Debug)]
pub(crate) struct Ordered<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut items: Vec<(String, T)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if items.iter().any(|(known, _)| *known == key) {
                        return Err(serde::de::Error::custom(format!("the key {key:?} stands here twice")));
                    }
                    items.push((key, value));
                }
                Ok(Ordered(items))
            }
        }
        deserializer.deserialize_map(InOrder(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        #[serde(rename = "a")]
        _a: String,
        #[serde(default, rename = "b")]
        _b: Ordered<String>,
    }

    #[test]
    fn ambiguous_documents_are_refused_with_their_line() {
        assert!(read::<Small>("f", "a: x\nb: { k: v }\n").is_ok());
        assert!(read::<Small>("f", "a: \"yes\"\n").is_ok());
        for (bad, says) in [
            ("a: yes\n", "line 1"),
            ("a: x\nb: { k: OFF }\n", "line 2"),
            ("a: x\nb: { k: v, k: w }\n", "line 2"),
            ("a: x\na: y\n", "line 2"),
            ("a: x\nc: y\n", "unknown field"),
            ("a: &x x\nb: { k: *x }\n", "alias"),
            ("a: x\n---\na: y\n", ""),
            ("", ""),
        ] {
            let error = read::<Small>("some.yaml", bad).unwrap_err().to_string();
            assert!(error.starts_with("some.yaml") && error.contains(says), "{bad:?}: {error}");
        }
    }

    #[test]
    fn files_and_nesting_are_limited() {
        let padded = |n: usize| format!("a: x\n#{}", "p".repeat(n - 6));
        assert!(read::<Small>("f", &padded(MAX_FILE)).is_ok());
        assert!(read::<Small>("f", &padded(MAX_FILE + 1)).is_err());
        assert!(read::<Small>("f", &format!("a: {}{}", "[".repeat(5000), "]".repeat(5000))).is_err());
    }
}
