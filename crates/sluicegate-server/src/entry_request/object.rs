//! One JSON object as protojson reads it: fields in any order, each at most once, none that the message has not.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Characters of what a client wrote that are repeated to it.
const REPEATED: usize = 64;

/// The fields of an object, as they were written.
#[derive(Default)]
pub(super) struct Object<'a> {
    whole: &'a str,
    fields: Vec<(String, Field<'a>)>,
}

/// One field, as it was written.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    whole: &'a str,
    /// Where its name begins in the whole text.
    at: usize,
    value: &'a str,
}

impl<'a> Object<'a> {
    /// Reads a text that is one JSON object and nothing else.
    pub(super) fn read(text: &'a str) -> Result<Self, String> {
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| {
            if error.is_eof() { "unexpected EOF".to_owned() } else { format!("proto: syntax error: {error}") }
        })?;
        Self::parse(whole.get(), whole.get())
    }

    /// Reads `part`, a piece of the JSON text `whole`, in which error messages count lines and columns.
    fn parse(whole: &'a str, part: &'a str) -> Result<Self, String> {
        let start = offset(whole, part);
        let Fields(found) = serde_json::from_str(part).map_err(|_| {
            let token = if part.starts_with('[') { "[" } else { part };
            format!("proto: syntax error ({}): unexpected token {}", position(whole, start), cut(token))
        })?;
        let mut fields = Vec::new();
        let mut after = start;
        for (name, value) in found {
            // The name stands in front of its value, behind the value before.
            let begin = offset(whole, value.get());
            let at = after + whole.get(after..begin).and_then(|between| between.find('"')).unwrap_or_default();
            after = begin + value.get().len();
            fields.push((name, Field { whole, at, value: value.get() }));
        }
        Ok(Self { whole, fields })
    }

    /// The fields with these names, in their order; one that is `null` is not set. Any other field, and any that stands there twice, is an
    /// error.
    pub(super) fn fields<const N: usize>(self, names: &[&str; N]) -> Result<[Option<Field<'a>>; N], String> {
        let mut found = [None; N];
        let mut seen = [false; N];
        for (name, field) in self.fields {
            let place = position(self.whole, field.at);
            let Some(known) = names.iter().position(|known| name == *known || name == snake_case(known)) else {
                return Err(format!("proto: ({place}): unknown field {}", field.written()));
            };
            if std::mem::replace(&mut seen[known], true) {
                return Err(format!("proto: ({place}): duplicate field {}", field.written()));
            }
            found[known] = Some(field).filter(|field| field.value != "null");
        }
        Ok(found)
    }
}

impl<'a> Field<'a> {
    /// Its value, as it was written.
    pub(super) fn value(self) -> &'a str {
        self.value
    }

    /// Its value, which must be an object.
    pub(super) fn object(self) -> Result<Object<'a>, String> {
        Object::parse(self.whole, self.value)
    }

    /// Its name, as it was written.
    pub(super) fn written(self) -> String {
        let name = self.whole.get(self.at..offset(self.whole, self.value)).unwrap_or_default();
        cut(name.trim_end().trim_end_matches(':').trim_end())
    }

    /// Where its name stands.
    pub(super) fn place(self) -> String {
        position(self.whole, self.at)
    }

    pub(super) fn begins_before(self, other: &Self) -> bool {
        self.at < other.at
    }

    /// The words for a value that is none of what the field takes.
    pub(super) fn invalid(self, kind: &str) -> String {
        let place = position(self.whole, offset(self.whole, self.value));
        format!("proto: ({place}): invalid value for {kind}: {}", cut(self.value))
    }
}

/// Where `part` begins in `whole`, of which it is a piece.
fn offset(whole: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize)
}

/// Line and column as protojson counts them, from 1.
fn position(whole: &str, at: usize) -> String {
    let before = whole.get(..at).unwrap_or(whole);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}:{column}")
}

fn cut(text: &str) -> String {
    text.chars().take(REPEATED).collect()
}

/// The name that a field has in its `.proto` file.
fn snake_case(camel: &str) -> String {
    let mut out = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_two_spellings() {
        for (camel, snake) in [
            ("hashedRekordRequestV002", "hashed_rekord_request_v002"),
            ("x509Certificate", "x509_certificate"),
            ("keyDetails", "key_details"),
            ("digest", "digest"),
        ] {
            assert_eq!(snake_case(camel), snake);
        }
    }

    /// The texts are those of the real server (rekor-tiles 2.3.0).
    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let read = |text: &str| Object::read(text).and_then(|object| object.fields(&["oneName", "two"]).map(|_| ()));
        assert_eq!(read(r#"{"oneName": {"a": [1]}, "two": null}"#), Ok(()));
        assert_eq!(read(r#"{"one_name": 1}"#), Ok(()));
        let wrong = |text: &str, message: &str| assert_eq!(read(text).unwrap_err(), message);
        wrong(r#"{"two": "x", "odd": 1}"#, r#"proto: (line 1:14): unknown field "odd""#);
        wrong("{\"two\":\n  1,\n  \"odd\" : 1}", r#"proto: (line 3:3): unknown field "odd""#);
        wrong(r#"{"two":1,"two":2}"#, r#"proto: (line 1:10): duplicate field "two""#);
        wrong(r#"{"oneName":1,"one_name":2}"#, r#"proto: (line 1:14): duplicate field "one_name""#);
        wrong("[1]", "proto: syntax error (line 1:1): unexpected token [");
        wrong("\"x\"", "proto: syntax error (line 1:1): unexpected token \"x\"");
        wrong("{", "unexpected EOF");
        assert!(read("{} {}").unwrap_err().starts_with("proto: syntax error"));
        let long = format!("{{\"{}\":1}}", "x".repeat(1000));
        assert_eq!(read(&long).unwrap_err().len(), "proto: (line 1:2): unknown field ".len() + REPEATED);
    }
}
