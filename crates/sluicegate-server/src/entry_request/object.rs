//! One JSON object as protojson reads it: fields in any order, each at most once, none that the message has not.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The fields of an object, as they were written.
#[derive(Default)]
pub(super) struct Object<'a> {
    whole: &'a str,
    fields: Vec<(String, &'a RawValue)>,
    /// Where the object begins in the whole text.
    start: usize,
}

impl<'a> Object<'a> {
    /// Reads `part`, a piece of the text `whole`, which error messages count lines and columns in.
    pub(super) fn parse(whole: &'a str, part: &'a str) -> Result<Self, String> {
        let start = place(whole, part);
        let Fields(fields) = serde_json::from_str(part).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                format!("proto: ({}): unexpected token {}", position(whole, start), super::cut(part))
            }
            _ => format!("proto: syntax error: {error}"),
        })?;
        Ok(Self { whole, fields, start })
    }

    /// The values of the fields with these names, in their order; `null` is no value. Any other field, and any that stands there twice,
    /// is an error.
    pub(super) fn fields<const N: usize>(self, names: &[&str; N]) -> Result<[Option<&'a RawValue>; N], String> {
        let mut found = [None; N];
        let mut seen = [false; N];
        let mut after = self.start;
        for (name, value) in &self.fields {
            // The name stands in front of its value, behind the value before.
            let begin = place(self.whole, value.get());
            let at = after + self.whole.get(after..begin).and_then(|between| between.find('"')).unwrap_or_default();
            after = begin + value.get().len();
            let Some(field) = names.iter().position(|known| name == known || *name == snake_case(known)) else {
                let written = self.whole.get(at..begin).unwrap_or_default().trim_end().trim_end_matches(':').trim_end();
                return Err(format!("proto: ({}): unknown field {}", position(self.whole, at), super::cut(written)));
            };
            if std::mem::replace(&mut seen[field], true) {
                return Err(format!("proto: ({}): duplicate field {name:?}", position(self.whole, at)));
            }
            found[field] = Some(*value).filter(|value| value.get() != "null");
        }
        Ok(found)
    }
}

/// Where `part` begins in `whole`, of which it is a piece.
fn place(whole: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize)
}

/// Line and column as protojson counts them, from 1.
fn position(whole: &str, at: usize) -> String {
    let before = whole.get(..at).unwrap_or(whole);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}:{column}")
}

/// The name that a field has in its `.proto` file.
fn snake_case(camel: &str) -> String {
    let mut out = String::new();
    for (at, letter) in camel.char_indices() {
        if letter.is_ascii_uppercase() {
            if at > 0 {
                out.push('_');
            }
            out.push(letter.to_ascii_lowercase());
        } else {
            out.push(letter);
        }
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

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let read =
            |text: &str| Object::parse(text, text).and_then(|object| object.fields(&["oneName", "two"]).map(|_| ()));
        assert_eq!(read(r#"{"oneName": {"a": [1]}, "two": null}"#), Ok(()));
        assert_eq!(read(r#"{"one_name": 1}"#), Ok(()));
        assert_eq!(read(r#"{"two": "x", "odd": 1}"#).unwrap_err(), r#"proto: (line 1:14): unknown field "odd""#);
        assert_eq!(read("{\"two\":\n  1,\n  \"odd\" : 1}").unwrap_err(), r#"proto: (line 3:3): unknown field "odd""#);
        assert_eq!(read(r#"{"two":1,"two":2}"#).unwrap_err(), r#"proto: (line 1:10): duplicate field "two""#);
        assert_eq!(
            read(r#"{"oneName":1,"one_name":2}"#).unwrap_err(),
            r#"proto: (line 1:14): duplicate field "one_name""#
        );
        assert_eq!(read("[1]").unwrap_err(), "proto: (line 1:1): unexpected token [1]");
        assert!(read("{").unwrap_err().starts_with("proto: syntax error"));
        assert!(read("{} {}").unwrap_err().starts_with("proto: syntax error"));
    }
}
