//! Reads and writes JSON, as much of it as this program needs: what cargo prints, OCI layouts, the demo's record. The product uses
//! serde; this program has no dependencies, so that it compiles in seconds on a new machine.

use std::fmt::{self, Write as _};

/// How deep lists and objects may be nested when read.
pub const MAX_DEPTH: usize = 128;

/// A JSON value. Numbers keep the digits they were written with; objects keep their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Self>),
    /// An object.
    Object(Vec<(String, Self)>),
}

/// Where reading stopped, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The byte.
    pub at: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not JSON at byte {}: {}", self.at, self.reason)
    }
}

impl std::error::Error for JsonError {}

impl Json {
    /// Reads one value that fills `text`.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.blank();
        if reader.at < text.len() { Err(reader.error("more text after the value")) } else { Ok(value) }
    }

    /// A string value.
    pub fn text(value: impl Into<String>) -> Self {
        Self::Text(value.into())
    }

    /// An object of `fields`, in this order.
    pub fn object<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// The field `key` of an object; `Null` where there is none, so that a path of fields can be asked for at once.
    #[must_use]
    pub fn get(&self, key: &str) -> &Self {
        match self {
            Self::Object(fields) => fields.iter().find(|(name, _)| name == key).map_or(&Self::Null, |(_, value)| value),
            _ => &Self::Null,
        }
    }

    /// The elements of an array; none of anything else.
    #[must_use]
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(elements) => elements,
            _ => &[],
        }
    }

    /// The fields of an object; none of anything else.
    #[must_use]
    pub fn fields(&self) -> &[(String, Self)] {
        match self {
            Self::Object(fields) => fields,
            _ => &[],
        }
    }

    /// The string, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value over several lines, two spaces to a level, with a line feed at the end.
    #[must_use]
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        write_value(&mut out, self, Some(0));
        out.push('\n');
        out
    }
}

/// On one line without spaces.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        write_value(&mut out, self, None);
        f.write_str(&out)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn error(&self, reason: &'static str) -> JsonError {
        JsonError { at: self.at, reason }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn blank(&mut self) {
        self.at += self.rest().bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested too deep"));
        }
        self.blank();
        match self.rest().bytes().next() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.eat("null") => Ok(Json::Null),
            _ if self.eat("true") => Ok(Json::Bool(true)),
            _ if self.eat("false") => Ok(Json::Bool(false)),
            _ => Err(self.error("a value is missing")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut fields: Vec<(String, Json)> = Vec::new();
        self.blank();
        if self.eat("}") {
            return Ok(Json::Object(fields));
        }
        loop {
            self.blank();
            let key = self.string()?;
            if fields.iter().any(|(name, _)| *name == key) {
                return Err(self.error("a key given twice"));
            }
            self.blank();
            if !self.eat(":") {
                return Err(self.error("a colon is missing"));
            }
            fields.push((key, self.value(depth + 1)?));
            self.blank();
            if self.eat("}") {
                return Ok(Json::Object(fields));
            }
            if !self.eat(",") {
                return Err(self.error("a comma or a closing brace is missing"));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut elements = Vec::new();
        self.blank();
        if self.eat("]") {
            return Ok(Json::List(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            self.blank();
            if self.eat("]") {
                return Ok(Json::List(elements));
            }
            if !self.eat(",") {
                return Err(self.error("a comma or a closing bracket is missing"));
            }
        }
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let length =
            self.rest().bytes().take_while(|b| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')).count();
        let digits = self.rest().get(..length).unwrap_or_default().to_owned();
        if digits.parse::<f64>().is_err() {
            return Err(self.error("not a number"));
        }
        self.at += length;
        Ok(Json::Number(digits))
    }

    fn string(&mut self) -> Result<String, JsonError> {
        if !self.eat("\"") {
            return Err(self.error("a string is missing"));
        }
        let mut out = String::new();
        loop {
            let Some(next) = self.rest().chars().next() else { return Err(self.error("a string without an end")) };
            self.at += next.len_utf8();
            match next {
                '"' => return Ok(out),
                '\\' => out.push(self.escape()?),
                control if control < ' ' => return Err(self.error("a control character in a string")),
                other => out.push(other),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(next) = self.rest().chars().next() else { return Err(self.error("a string without an end")) };
        self.at += next.len_utf8();
        Ok(match next {
            '"' | '\\' | '/' => next,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut units = vec![self.code_unit()?];
                if matches!(units[..], [0xD800..0xDC00]) && self.eat("\\u") {
                    units.push(self.code_unit()?);
                }
                // One unit or a pair, so one character or none.
                match char::decode_utf16(units).next() {
                    Some(Ok(character)) => character,
                    _ => return Err(self.error("half of a surrogate pair")),
                }
            }
            _ => return Err(self.error("an unknown escape")),
        })
    }

    fn code_unit(&mut self) -> Result<u16, JsonError> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(unit) = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) else {
            return Err(self.error("four hexadecimal digits are missing"));
        };
        self.at += 4;
        Ok(unit)
    }
}

/// Writes `value`; with a level, over several lines.
fn write_value(out: &mut String, value: &Json, level: Option<usize>) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Json::Number(digits) => out.push_str(digits),
        Json::Text(text) => write_text(out, text),
        Json::List(elements) => {
            write_sequence(out, ['[', ']'], level, elements, write_value);
        }
        Json::Object(fields) => write_sequence(out, ['{', '}'], level, fields, |out, (key, value), inner| {
            write_text(out, key);
            out.push_str(if inner.is_some() { ": " } else { ":" });
            write_value(out, value, inner);
        }),
    }
}

fn write_sequence<T>(
    out: &mut String,
    [open, close]: [char; 2],
    level: Option<usize>,
    elements: &[T],
    write: impl Fn(&mut String, &T, Option<usize>),
) {
    out.push(open);
    let inner = level.map(|level| level + 1);
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        new_line(out, inner);
        write(out, element, inner);
    }
    if !elements.is_empty() {
        new_line(out, level);
    }
    out.push(close);
}

fn new_line(out: &mut String, level: Option<usize>) {
    if let Some(level) = level {
        out.push('\n');
        out.push_str(&"  ".repeat(level));
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for next in text.chars() {
        match next {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => {
                // Control characters end at U+009F, so four digits are enough; writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_and_written_unchanged() {
        let text = r#"{"a":[1,-2.5e3,true,false,null],"b":{"c":"q\"\\\n\u0001é😀"},"d":[],"e":{}}"#;
        let value = Json::parse(text).unwrap();
        assert_eq!(value.to_string(), text);
        assert_eq!(Json::parse(&value.pretty()).unwrap(), value);
        assert_eq!(value.get("b").get("c").as_text(), Some("q\"\\\n\u{1}é😀"));
        assert_eq!(value.get("a").list().len(), 5);
        assert_eq!(*value.get("nothing").get("at all"), Json::Null);
    }

    #[test]
    fn escapes_are_read_also_as_surrogate_pairs() {
        assert_eq!(Json::parse(r#""\u00e9\ud83d\ude00\/\b""#).unwrap(), Json::text("é😀/\u{8}"));
        for half in [r#""\ud83d""#, r#""\ud83dx""#, r#""\ude00""#, r#""\ud83d\u0041""#] {
            assert!(Json::parse(half).is_err(), "{half}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        let cases = [
            "",
            "{",
            "[1,]",
            "{\"a\" 1}",
            "tru",
            "\"a",
            "1 2",
            "{\"a\":1,\"a\":2}",
            "\"\u{1}\"",
            "-",
            "\"\\x\"",
            "\"\\u12\"",
        ];
        for text in cases {
            assert!(Json::parse(text).is_err(), "{text}");
        }
        assert_eq!(Json::parse("[1 2]"), Err(JsonError { at: 3, reason: "a comma or a closing bracket is missing" }));
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth: usize| Json::parse(&("[".repeat(depth) + &"]".repeat(depth)));
        assert!(nested(MAX_DEPTH + 1).is_ok());
        assert_eq!(nested(MAX_DEPTH + 2).unwrap_err().reason, "nested too deep");
        assert!(nested(1_000_000).is_err());
    }
}
