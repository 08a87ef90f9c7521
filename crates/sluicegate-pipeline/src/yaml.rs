//! Strict YAML: one bounded document that every reader of YAML understands in the same way. Refused are aliases, merge keys, tags,
//! doubled keys, unquoted words that are truth values for some readers, quoted ones where a truth value belongs, other versions of YAML
//! than 1.2, and line breaks that only some readers take for such.

use std::{fmt, marker::PhantomData};

use granit_parser::{Event, Parser, ScalarStyle};
use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeOwned, MapAccess, SeqAccess, Unexpected, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use serde_saphyr::{Error as YamlError, Location, options::MergeKeyPolicy};
use sluicegate_types::nearest::{nearest, shortened};

use crate::{
    Error,
    error::said_as,
    spot::{self, Aim, Part, Spot},
};

/// Bytes of one file.
pub(crate) const MAX_FILE: usize = 1024 * 1024;

/// What stands where in a kind of file: keys that lead there, joined by dots, where `*` is any key and `[]` any entry of a list, and what
/// that is in words, with an example.
pub(crate) type Forms = &'static [(&'static str, &'static str)];

/// Reads `text` as a `T`. `file` is how errors call it.
pub(crate) fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Error> {
    read_as(file, text, &[])
}

/// The same for a kind of file of which is known in words what stands where.
pub(crate) fn read_as<T: DeserializeOwned>(file: &str, text: &str, forms: Forms) -> Result<T, Error> {
    if text.len() > MAX_FILE {
        let reason = format!("larger than the limit of {MAX_FILE} bytes");
        return Err(Error::Syntax { spot: Spot::file(file), reason });
    }
    let syntax = |line: usize, column: usize, width: usize, reason: String| Error::Syntax {
        spot: Spot::at(file, text, line, column, width),
        reason,
    };
    check_line_breaks(text).map_err(|(line, column, reason)| syntax(line, column, 1, reason))?;
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event
            .map_err(|error| syntax(error.marker().line(), error.marker().col() + 1, 1, broken(text, &error.info())))?;
        documents += usize::from(matches!(event, Event::DocumentStart(..)));
        let refusal =
            if documents > 1 { Some("a second document; a file holds one".to_owned()) } else { refusal(&event) };
        if let Some(reason) = refusal {
            let width = span.end.col().saturating_sub(span.start.col()).max(1);
            return Err(syntax(span.start.line(), span.start.col() + 1, width, reason));
        }
    }
    // What the events show was refused above; the options say it again for what they might not show.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        merge_keys: MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| words(file, text, forms, &error))
}

/// Why this part of a document is refused, whatever it should be read as.
fn refusal(event: &Event<'_>) -> Option<String> {
    match event {
        Event::DocumentStart(_, Some(version)) if (version.major, version.minor) != (1, 2) => {
            Some(format!("YAML {}.{}; take the directive away, files are YAML 1.2", version.major, version.minor))
        }
        Event::Alias(..) => Some("an alias; write the value out".to_owned()),
        Event::Scalar(.., Some(tag)) | Event::SequenceStart(.., Some(tag)) | Event::MappingStart(.., Some(tag)) => {
            let tag = shortened(&tag.to_string());
            Some(format!("the tag {tag:?}; write the value without a tag"))
        }
        Event::Scalar(value, ScalarStyle::Plain, ..) if is_norwegian(value) => Some(format!(
            "unquoted {value} is a truth value for one reader and a text for another; quote it (\"{value}\"), or write true or false"
        )),
        Event::Scalar(value, ScalarStyle::Plain, ..) if value == "<<" => Some(
            "unquoted << is a merge key for some readers; write the keys out, or \"<<\" if it is a text".to_owned(),
        ),
        _ => None,
    }
}

fn is_norwegian(value: &str) -> bool {
    ["yes", "no", "on", "off", "y", "n"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Refuses what ends a line for one reader and not for another: what is a comment for one of them is a key for the other. A lone
/// carriage return is one; the three others were line breaks in YAML 1.1.
fn check_line_breaks(text: &str) -> Result<(), (usize, usize, String)> {
    let (mut line, mut column) = (1, 1);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let lone_return = c == '\r' && characters.peek() != Some(&'\n');
        if lone_return || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}') {
            let code = u32::from(c);
            let reason = format!(
                "the character U+{code:04X} ends a line for some readers only; write a line feed, or an escape in a quoted text"
            );
            return Err((line, column, reason));
        }
        (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    Ok(())
}

/// Why a text is no YAML at all, with the way to where that is and what is usually the matter.
fn broken(text: &str, said: &str) -> String {
    let usual = [
        (
            "did not find expected key",
            "this line begins neither where the keys before it do nor below one of them; indent it as they are",
        ),
        ("found a tab", "a tab; indent with spaces"),
        (
            "mapping values are not allowed",
            "a colon and a space within a text; quote the text, or write it on lines of its own below | ",
        ),
        ("illegal placement of ':'", "a colon where none may stand; is a bracket or a quote before it still open?"),
    ];
    let usual = usual.into_iter().find(|(part, _)| said.contains(part));
    let said = usual.map_or_else(|| said.to_owned(), |(_, usual)| format!("{} ({said})", usual.trim_end()));
    match said_as(spot::written(&spot::parts_to(text, None, Aim::Value).0)).as_str() {
        "" => said,
        path => format!("{path}: {said}"),
    }
}

/// An error of the library in our words: its place first, and each thing once.
fn words(file: &str, text: &str, forms: Forms, error: &YamlError) -> Error {
    let error = error.without_snippet();
    let place = error.location().filter(|place| *place != Location::UNKNOWN);
    let place = place.map(|place| (place.line() as usize, place.column() as usize));
    // What is refused by its type is pointed at by its key.
    let aim = if matches!(error, YamlError::SerdeInvalidType { .. }) { Aim::Key } else { Aim::Value };
    let (mut parts, is_key) = place.map(|place| spot::parts_to(text, Some(place), aim)).unwrap_or_default();
    if is_key && matches!(error, YamlError::SerdeMissingField { .. }) {
        // The library points at the last key of the mapping where one is missing.
        parts.pop();
    }
    let path = said_as(spot::written(&parts));
    let at_path = |reason: String| if path.is_empty() { reason } else { format!("{path}: {reason}") };
    let is = |form: &str| match parts.last() {
        None => format!("the file is {form}"),
        Some(Part::Item(_)) => format!("an entry of {path} is {form}"),
        Some(Part::Key(_)) => format!("{path} is {form}"),
    };
    let mut width = 1;
    let reason = match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            width = field.chars().count();
            unknown_key(field, expected)
        }
        YamlError::SerdeMissingField { field, .. } => {
            let form = form_of(forms, parts.iter().map(Some).chain([None]), field);
            let form = form.map(|form| format!("; it is {form}")).unwrap_or_default();
            let reason = at_path(format!("the key {field} is missing{form}"));
            let spot = match path.as_str() {
                "" => Spot::file(file),
                _ => Spot::of(file, text, &spot::written(&parts), Aim::Key),
            };
            return Error::Syntax { spot, reason };
        }
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            format!("a duplicate: the key {:?} stands here twice", shortened(key))
        }
        // Nothing, null and ~ are no text for some readers, and which text they are differs between the others.
        YamlError::NullIntoString { .. } => {
            at_path("no text: a value is missing; if the text null or ~ is meant, quote it".to_owned())
        }
        YamlError::Unexpected { .. } | YamlError::InvalidScalar { .. } => {
            let form = form_of(forms, parts.iter().map(Some), "");
            form.or_else(|| any_form(error)).map_or_else(|| at_path(error.to_string()), is)
        }
        YamlError::SerdeInvalidType { .. } | YamlError::SerdeInvalidValue { .. } => {
            form_of(forms, parts.iter().map(Some), "").map_or_else(|| at_path(error.to_string()), is)
        }
        other => other.to_string(),
    };
    match place {
        Some((line, column)) => {
            let said = format!(" at line {line}, column {column}");
            let reason = reason.strip_suffix(&said).unwrap_or(&reason).to_owned();
            Error::Syntax { spot: Spot::at(file, text, line, column, width), reason }
        }
        None => Error::Syntax { spot: Spot::file(file), reason },
    }
}

/// What stands at the end of these parts; `None` among them is the key `last`.
fn form_of<'a>(
    forms: Forms,
    parts: impl Iterator<Item = Option<&'a Part>> + Clone,
    last: &str,
) -> Option<&'static str> {
    let fits = |pattern: &str| {
        let mut wanted = pattern.split('.').filter(|wanted| !wanted.is_empty());
        let fit = parts.clone().all(|part| match (wanted.next(), part) {
            (Some("[]"), Some(Part::Item(_))) | (Some("*"), Some(Part::Key(_)) | None) => true,
            (Some(wanted), Some(Part::Key(key))) => wanted == key,
            (Some(wanted), None) => wanted == last,
            _ => false,
        });
        fit && wanted.next().is_none()
    };
    forms.iter().find(|(pattern, _)| fits(pattern)).map(|(_, form)| *form)
}

/// What the library wants, where nobody says what that is for.
fn any_form(error: &YamlError) -> Option<&'static str> {
    match error {
        YamlError::Unexpected { expected: "mapping start", .. } => Some("a mapping: { KEY: VALUE }"),
        YamlError::Unexpected { expected: "sequence start", .. } => Some("a list: [VALUE]"),
        YamlError::Unexpected { expected: "string scalar", .. } => Some("a text"),
        YamlError::InvalidScalar { ty, .. } if ty.starts_with(['u', 'i']) => Some("a whole number"),
        YamlError::InvalidScalar { ty, .. } if ty.starts_with("floating") => Some("a number"),
        _ => None,
    }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let key = shortened(key);
    let meant = nearest(&key, known.iter().copied());
    let meant = meant.map(|known| format!("; did you mean {known}?")).unwrap_or_default();
    match known {
        [] => format!("unknown key {key:?}: there are none here"),
        [one] => format!("unknown key {key:?}{meant} (the one key here is {one})"),
        known => format!("unknown key {key:?}{meant} (the keys here are {})", known.join(", ")),
    }
}

/// A truth value: `true` or `false`, without quotes. A quoted one is a text, and false for readers that take texts for what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Truth(pub(crate) bool);

impl<'de> Deserialize<'de> for Truth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unquoted;
        impl Visitor<'_> for Unquoted {
            type Value = Truth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false without quotes")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Truth, E> {
                Ok(Truth(value))
            }
        }
        // Not `deserialize_bool`, for which the library takes quoted texts too.
        deserializer.deserialize_any(Unquoted)
    }
}

/// Whether a key stands in the file, whatever its value; a key without a value stands there too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given(pub(crate) bool);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// Reads a key that may be left out and, where it stands, has a value: null is none.
pub(crate) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Either a text, or something longer. Told apart by hand, so that an error names the key that is wrong.
pub(crate) enum TextOr<T> {
    /// A text, as it is written.
    Text(String),
    /// The longer form.
    More(T),
}

/// What may stand where a [`TextOr`] is read.
pub(crate) trait Longer {
    /// The texts and the longer form, in words.
    const EXPECTED: &'static str;
    /// Whether the longer form is a list; else it is a mapping, which a list of its values is not.
    const IS_LIST: bool = false;
}

impl<'de, T: Deserialize<'de> + Longer> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Longer> Visitor<'de> for Either<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextOr<T>, A::Error> {
                if T::IS_LIST {
                    return Err(de::Error::invalid_type(Unexpected::Map, &self));
                }
                T::deserialize(MapAccessDeserializer::new(map)).map(TextOr::More)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<TextOr<T>, A::Error> {
                if !T::IS_LIST {
                    return Err(de::Error::invalid_type(Unexpected::Seq, &self));
                }
                T::deserialize(SeqAccessDeserializer::new(seq)).map(TextOr::More)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
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
        struct InOrder<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        deserializer.deserialize_map(InOrder(PhantomData))
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
        #[serde(default, rename = "is_so")]
        is_so: Truth,
    }

    #[test]
    fn ambiguous_documents_are_refused_with_their_line() {
        assert!(read::<Small>("f", "a: x\nb: { k: v }\n").is_ok());
        assert!(read::<Small>("f", "a: \"yes\"\n").is_ok());
        for (bad, says) in [
            ("a: yes\n", "line 1"),
            ("a: x\nb: { k: OFF }\n", "line 2"),
            ("a: x\nb: { k: v, k: w }\n", "line 2"),
            ("a: x\na: w\n", "line 2"),
            ("a: x\nc: w\n", "line 2, column 1: unknown key"),
            ("a: &x x\nb: { k: *x }\n", "alias"),
            ("a: x\n---\na: w\n", "line 2, column 1: a second document"),
            ("", ""),
        ] {
            let error = read::<Small>("some.yaml", bad).unwrap_err().to_string();
            assert!(error.starts_with("some.yaml") && error.contains(says), "{bad:?}: {error}");
        }
    }

    fn refusal(text: &str) -> String {
        read::<Small>("some.yaml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_truth_value_is_true_or_false_without_quotes_and_nothing_else_is_one() {
        assert!(read::<Small>("f", "a: x\nis_so: true\n").unwrap().is_so.0);
        assert!(!read::<Small>("f", "a: x\nis_so: false\n").unwrap().is_so.0);
        for word in ["y", "Y", "n", "N", "yes", "No", "ON", "off"] {
            for text in
                [format!("a: x\nis_so: {word}\n"), format!("a: {word}\n"), format!("a: x\nb: {{ {word}: v }}\n")]
            {
                assert!(refusal(&text).contains(&format!("unquoted {word} is a truth value")), "{text}");
            }
            assert!(read::<Small>("f", &format!("a: \"{word}\"\nb: {{ '{word}': {word}{word} }}\n")).is_ok());
        }
        for quoted in ["\"true\"", "'true'", "\"false\"", "'y'", "|-\n  true", "1", "~"] {
            let found = refusal(&format!("a: x\nis_so: {quoted}\n"));
            assert!(found.contains("line 2, column") || found.contains("line 3, column"), "{quoted}: {found}");
            assert!(found.contains("true or false without quotes"), "{quoted}: {found}");
        }
    }

    #[test]
    fn tags_merge_keys_and_other_versions_are_refused() {
        let good = "a: x\nb: { k: v }\nis_so: true\n";
        assert!(read::<Small>("f", good).is_ok());
        assert!(read::<Small>("f", &format!("%YAML 1.2\n---\n{good}")).is_ok());
        assert!(read::<Small>("f", "a: x\nb: { \"<<\": v, \"!t\": \"!t v\" }\n").is_ok());
        for (from, to, says) in [
            ("is_so: true", "is_so: !!bool true", "line 3, column 15: the tag \"tag:yaml.org,2002:bool\""),
            ("is_so: true", "is_so: !!bool \"true\"", "the tag"),
            ("a: x", "a: !!str x", "the tag"),
            ("a: x", "a: !!binary eA==", "the tag"),
            ("a: x", "a: ! x", "the tag"),
            ("a: x", "a: !own x", "the tag \"!own\""),
            ("b: {", "b: !!map {", "the tag"),
            ("b: { k: v }", "b: !own [v]", "the tag"),
            ("a: x", "!own a: x", "the tag"),
            ("{ k: v }", "{ <<: { k: v } }", "line 2, column 6: unquoted << is a merge key"),
            ("b: { k: v }", "<<: { b: { k: v } }", "merge key"),
            ("b: { k: v }", "<<: [{ b: { k: v } }]", "merge key"),
            ("a: x", "%YAML 1.1\n---\na: x", "YAML 1.1"),
        ] {
            assert!(good.contains(from), "{from}");
            let found = refusal(&good.replacen(from, to, 1));
            assert!(found.contains(says), "{to}: {found}");
        }
    }

    #[test]
    fn what_ends_a_line_for_some_readers_only_is_refused() {
        let good = "a: x # comment\r\nb: { k: \"\\r\\N\\L\\P\" }\n";
        assert!(read::<Small>("f", good).is_ok());
        for c in ['\r', '\u{85}', '\u{2028}', '\u{2029}'] {
            for text in [good.replace("comment", &format!("é{c}b: {{}} #")), good.replace("\\r", &c.to_string())] {
                let found = refusal(&text);
                assert!(
                    found.contains(&format!("the character U+{:04X} ends a line", u32::from(c))),
                    "{text:?}: {found}"
                );
            }
            let found = refusal(&good.replace("comment", &format!("é{c}b: {{}} #")));
            assert!(found.starts_with("some.yaml: line 1, column 9: "), "{found}");
        }
    }

    #[test]
    fn a_misspelt_key_is_said_once_with_its_place_and_the_nearest_one() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wide {
            #[serde(rename = "workdir")]
            _workdir: String,
            #[serde(rename = "outputs")]
            _outputs: String,
        }
        let found = |key: &str| {
            let text = format!("workdir: x\noutputs: w\n{key}: z\n");
            read::<Wide>("some.yaml", &text).unwrap_err().to_string()
        };
        assert_eq!(
            found("wrokdir"),
            "some.yaml: line 3, column 1: unknown key \"wrokdir\"; did you mean workdir? (the keys here are workdir, outputs)\n\
             3 | wrokdir: z\n  | ^^^^^^^"
        );
        let far = found("timeout");
        assert_eq!(
            far,
            "some.yaml: line 3, column 1: unknown key \"timeout\" (the keys here are workdir, outputs)\n3 | timeout: z\n  | ^^^^^^^"
        );
        assert!(found(&"w".repeat(300)).len() < 500);
    }

    #[test]
    fn what_the_library_says_has_its_place_first_and_once() {
        for (text, says) in [
            ("b: {}\n", "some.yaml: the key a is missing"),
            ("a: [x]\n", "some.yaml: line 1, column 4: a is a text"),
            ("a: x\na: w\n", "some.yaml: line 2, column 1: a duplicate: the key \"a\" stands here twice"),
            ("a: x\nb: [k]\n", "some.yaml: line 2, column 4: b is a mapping: { KEY: VALUE }"),
            ("a: x\nb: { k: {} }\n", "some.yaml: line 2, column 9: b.k is a text"),
            ("a: \"x\n", "some.yaml: line 1, column 4: a: unclosed quote"),
        ] {
            let found = refusal(text);
            assert!(found.starts_with(says), "{text:?}: {found}");
            assert!(!found.contains(" at line") && !found.contains("<input>"), "{found}");
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
