//! The policies' data: YAML and JSON documents read strictly and merged into the one tree that Rego sees as `data`.

use std::{collections::BTreeMap, fmt};

use granit_parser::{Event, ScalarStyle};
use serde::{
    Deserialize,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use crate::{
    policy_error::{Place, PolicyError},
    rego::SourceFile,
};

/// How deep a document may be nested (DESIGN section 7).
const DEPTH: usize = 128;

/// Bytes of one YAML document: its reader takes its time for each line.
const YAML_BYTES: usize = 4 << 20;
/// Values and keys of one JSON document.
const JSON_PARTS: usize = 2_000_000;

/// Refuses a JSON text with more values than a document may have, before any is made: a value takes many times the room of its text.
pub(crate) fn within_parts(what: &str, text: &str) -> Result<(), PolicyError> {
    let (mut parts, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b',' | b':' | b'[' | b'{' => parts += 1,
            _ => {}
        }
    }
    if parts <= JSON_PARTS {
        return Ok(());
    }
    Err(PolicyError::TooMuch { what: format!("values in {what}"), found: parts as u64, limit: JSON_PARTS as u64 })
}

/// Reads and merges `documents`. Each is an object; a value that two of them give, or that stands where one of `packages`
/// (as path components) keeps its rules, is a conflict, because one of the two would silently win.
pub(crate) fn merge(documents: &[SourceFile], packages: &[Vec<String>]) -> Result<Value, PolicyError> {
    let mut merged = Map::new();
    let mut given_by = BTreeMap::new();
    for document in documents {
        let Value::Object(tree) = read(document)? else {
            return Err(data_error(document, 1, 0, "a data document is a mapping of names to values".into()));
        };
        add(&mut merged, tree, &mut Vec::new(), &document.name, &mut given_by)?;
    }
    let merged = Value::Object(merged);
    for package in packages {
        let mut at = Some(&merged);
        for (depth, name) in package.iter().enumerate() {
            at = at.and_then(|value| value.get(name));
            if at.is_some_and(|value| depth + 1 == package.len() || !value.is_object()) {
                let path = &package[..=depth];
                return Err(PolicyError::DataConflict {
                    path: path.join("."),
                    first: first_giver(&given_by, path),
                    second: format!("package {}", package.join(".")),
                });
            }
        }
    }
    Ok(merged)
}

type Givers<'a> = BTreeMap<Vec<String>, &'a str>;

/// Moves `tree` into `into`, descending while both are objects.
fn add<'a>(
    into: &mut Map<String, Value>,
    tree: Map<String, Value>,
    path: &mut Vec<String>,
    file: &'a str,
    given_by: &mut Givers<'a>,
) -> Result<(), PolicyError> {
    for (key, value) in tree {
        path.push(key.clone());
        match (into.get_mut(&key), value) {
            (None, value) => {
                given_by.insert(path.clone(), file);
                into.insert(key, value);
            }
            (Some(Value::Object(old)), Value::Object(new)) => add(old, new, path, file, given_by)?,
            (Some(_), _) => {
                return Err(PolicyError::DataConflict {
                    path: path.join("."),
                    first: first_giver(given_by, path),
                    second: file.to_owned(),
                });
            }
        }
        path.pop();
    }
    Ok(())
}

/// The file that gave `path` or what it is a part of.
fn first_giver(given_by: &Givers<'_>, path: &[String]) -> String {
    (1..=path.len())
        .rev()
        .find_map(|length| given_by.get(&path[..length]))
        .map_or_else(|| "another file".to_owned(), |file| (*file).to_owned())
}

/// Reads one document of the policies' data the way a gate reads it.
pub fn read(document: &SourceFile) -> Result<Value, PolicyError> {
    if document.name.ends_with(".json") {
        within_parts(&document.name, &document.text)?;
        let mut reader = serde_json::Deserializer::from_str(&document.text);
        return Strict { depth: 0 }
            .deserialize(&mut reader)
            .and_then(|value| reader.end().map(|()| value))
            .map_err(|error| data_error(document, error.line() as u64, error.column() as u64, error.to_string()));
    }
    if document.text.len() > YAML_BYTES {
        let what = format!("bytes of the YAML document {}", document.name);
        return Err(PolicyError::TooMuch { what, found: document.text.len() as u64, limit: YAML_BYTES as u64 });
    }
    let read_with = |strict_booleans: bool| {
        let options = serde_saphyr::options! {
            strict_booleans: strict_booleans,
            no_schema: true,
            with_snippet: false,
            merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        };
        serde_saphyr::from_str_with_options::<Document>(&document.text, options).map_err(|error| {
            let (line, column) = error.location().map_or((1, 0), |at| (at.line(), at.column()));
            data_error(document, line, column, in_our_words(&error))
        })
    };
    let Document(value) = read_with(true)?;
    // `yes`, `no`, `on`, `off`, `y`, `n` mean one thing to YAML 1.1 and another to 1.2, so whoever wrote them unquoted is asked.
    let Document(old_reading) = read_with(false)?;
    match difference(&value, &old_reading) {
        None => Ok(value),
        Some((path, word)) => {
            let line = (1..)
                .zip(document.text.lines())
                .find(|(_, line)| line.split(|c: char| !c.is_alphanumeric()).any(|part| part == word))
                .map_or(1, |(line, _)| line);
            let reason = format!("{path} is {word} without quotes: write true or false, or {word:?} with quotes");
            Err(data_error(document, line, 0, reason))
        }
    }
}

/// What the library says, without its own settings and without the place, which stands before it.
fn in_our_words(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} is given twice"),
        other => {
            let said = other.to_string();
            match said.rsplit_once(" at line ") {
                Some((said, _)) => said.to_owned(),
                None => said,
            }
        }
    }
}

/// The first place where the readings differ, with the word that stands there.
fn difference(new: &Value, old: &Value) -> Option<(String, String)> {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => new.iter().zip(old.values()).find_map(|((key, new), old)| {
            difference(new, old).map(|(path, word)| (format!("{key}.{path}").trim_end_matches('.').to_owned(), word))
        }),
        (Value::Array(new), Value::Array(old)) => new.iter().zip(old).enumerate().find_map(|(index, (new, old))| {
            difference(new, old).map(|(path, word)| (format!("{index}.{path}").trim_end_matches('.').to_owned(), word))
        }),
        (Value::String(word), Value::Bool(_)) => Some((String::new(), word.clone())),
        _ => None,
    }
}

/// Values of a document that other readers of YAML, or its author, may take for something else: texts that read like truth values, which
/// are true in Rego whatever they say, and numbers that are not written as they are read.
pub(crate) fn odd_values(document: &SourceFile) -> Vec<(Place, String)> {
    if document.name.ends_with(".json") {
        return Vec::new();
    }
    let mut odd = Vec::new();
    // Of a mapping's scalars every second is a key; of a key nothing is said.
    let mut levels: Vec<Option<bool>> = Vec::new();
    for event in granit_parser::Parser::new_from_str(&document.text) {
        let Ok((event, span)) = event else { break };
        let is_key = match levels.last_mut() {
            Some(Some(next_is_key)) if !matches!(event, Event::MappingEnd) => {
                let is_key = *next_is_key;
                *next_is_key = !is_key;
                is_key
            }
            _ => false,
        };
        match event {
            Event::MappingStart(..) => levels.push(Some(true)),
            Event::SequenceStart(..) => levels.push(None),
            Event::MappingEnd | Event::SequenceEnd => drop(levels.pop()),
            Event::Scalar(value, style, ..) if !is_key => {
                if let Some(reason) = oddity(&value, style == ScalarStyle::Plain) {
                    let (line, column) = (span.start.line() as u64, span.start.col() as u64 + 1);
                    odd.push((Place { file: document.name.clone(), line, column }, reason));
                }
            }
            _ => {}
        }
    }
    odd
}

fn oddity(value: &str, is_plain: bool) -> Option<String> {
    let is_truth = ["true", "false", "yes", "no", "on", "off"].iter().any(|word| value.eq_ignore_ascii_case(word));
    if !is_plain && is_truth {
        return Some(format!(
            "the text {value:?} is true in Rego, as every text is: write true or false without quotes"
        ));
    }
    let unsigned = value.strip_prefix(['-', '+']).unwrap_or(value);
    if !is_plain || !unsigned.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let has_octal_look =
        unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.bytes().all(|b| b.is_ascii_digit());
    if has_octal_look {
        return Some(format!(
            "{value} is an octal number for some readers and a decimal one or a text for others: quote it"
        ));
    }
    let (whole, fraction) = unsigned.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(whole) && digits(fraction) && fraction.ends_with('0') {
        let read = value.trim_end_matches('0').trim_end_matches('.');
        return Some(format!("the number {value} is {read}: if it is a version, quote it"));
    }
    None
}

fn data_error(document: &SourceFile, line: u64, column: u64, reason: String) -> PolicyError {
    PolicyError::Data { place: Place { file: document.name.clone(), line, column }, reason }
}

/// A document read by [`Strict`].
struct Document(Value);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Strict { depth: 0 }.deserialize(deserializer).map(Self)
    }
}

/// Reads any value, refusing a key given twice, a number that JSON can't write and nesting beyond [`DEPTH`].
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH {
            return Err(E::custom(format_args!("nested more than {DEPTH} deep")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inner)?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} is given twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.into(), text: text.into() }
    }

    fn merged(files: &[SourceFile]) -> Result<Value, String> {
        merge(files, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn documents_are_merged_as_trees() {
        let yaml = file("a.yaml", "sluicegate:\n  allow_scratch: true\n");
        let json = file("b.json", r#"{"sluicegate": {"allowed_base_images": ["sha256:00"]}}"#);
        assert_eq!(
            merged(&[yaml, json]).unwrap(),
            serde_json::json!({"sluicegate": {"allow_scratch": true, "allowed_base_images": ["sha256:00"]}})
        );
        assert_eq!(merged(&[]).unwrap(), serde_json::json!({}));
    }

    #[test]
    fn one_value_from_two_files_is_a_conflict() {
        let files = [file("a.yaml", "s: { x: 1 }"), file("b.yaml", "s: { x: 1 }")];
        assert_eq!(merged(&files).unwrap_err(), "data.s.x is given by a.yaml and by b.yaml: leave one of them");
        assert!(merged(&[file("a.yaml", "s: { x: 1 }"), file("b.yaml", "s: { z: 1 }")]).is_ok());
        assert!(merged(&[file("a.yaml", "s: { x: 1 }"), file("b.yaml", "s: 1")]).is_err());
    }

    #[test]
    fn data_never_stands_where_a_package_keeps_its_rules() {
        let package = [vec!["provenance".to_owned()]];
        let error = merge(&[file("a.yaml", "provenance: { pass: [provenance.one] }")], &package).unwrap_err();
        assert_eq!(
            error.to_string(),
            "data.provenance is given by a.yaml and by package provenance: leave one of them"
        );
        assert!(merge(&[file("a.yaml", "provenances: { pass: [] }")], &package).is_ok());
        let nested = [vec!["a".to_owned(), "b".to_owned()]];
        assert!(merge(&[file("a.yaml", "a: 1")], &nested).is_err());
        assert!(merge(&[file("a.yaml", "a: { c: 1 }")], &nested).is_ok());
    }

    #[test]
    fn a_key_given_twice_is_refused_with_its_line() {
        assert!(merged(&[file("a.yaml", "x: 1\nz: 2")]).is_ok());
        let error = merged(&[file("a.yaml", "x: 1\nx: 2")]).unwrap_err();
        assert!(error.starts_with("a.yaml:2:"), "{error}");
        assert!(merged(&[file("a.json", "{\"x\": 1,\n\"y\": 2}")]).is_ok());
        let error = merged(&[file("a.json", "{\"x\": 1,\n\"x\": 2}")]).unwrap_err();
        assert!(error.starts_with("a.json:2:"), "{error}");
    }

    #[test]
    fn yes_and_no_without_quotes_are_refused_with_their_line() {
        for word in ["yes", "no", "on", "off", "Yes", "OFF", "n"] {
            let error = merged(&[file("a.yaml", &format!("x: 1\nlist:\n- {word}\n"))]).unwrap_err();
            assert!(error.starts_with("a.yaml:3: data: list.0 is"), "{error}");
            assert!(merged(&[file("a.yaml", &format!("x: 1\nlist:\n- \"{word}\"\n"))]).is_ok());
        }
        let error = merged(&[file("a.yaml", "on: 1")]).unwrap_err();
        assert!(error.starts_with("a.yaml:1:"), "{error}");
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        assert!(merged(&[file("a.yaml", "- 1")]).is_err());
        assert!(merged(&[file("a.yaml", "")]).is_err());
        assert!(merged(&[file("a.json", "{} {}")]).is_err());
        assert!(merged(&[file("a.json", "{}")]).is_ok());
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(merged(&[file("a.json", &nested(120))]).is_ok());
        assert!(merged(&[file("a.json", &nested(129))]).is_err());
        assert!(merged(&[file("a.yaml", &nested(100_000))]).is_err());
    }
}
