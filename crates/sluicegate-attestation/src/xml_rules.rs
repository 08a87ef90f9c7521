//! What the readers of XML here ask of a document beyond what their parser does: UTF-8 as it says itself, characters and names that XML
//! has, and no entity but the five that need no declaration. Two readers could understand anything else differently.

use quick_xml::events::{BytesDecl, BytesRef, BytesStart, attributes::Attribute};

use sluicegate_types::borrowed_utf8;

/// The text of a document, without the mark of UTF-8 that stands before many that a tool of Windows wrote, and that XML lets stand.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, String> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = borrowed_utf8(bytes).map_err(|error| error.to_string())?;
    match text.chars().find(|c| !is_character(*c)) {
        Some(bad) => Err(format!("the character {bad:?} can't stand in XML")),
        None => Ok(text),
    }
}

/// Another encoding than that of the bytes, if the declaration names one.
pub(crate) fn foreign_encoding(declaration: &BytesDecl<'_>) -> Result<Option<String>, String> {
    let Some(encoding) = declaration.encoding() else { return Ok(None) };
    let encoding = encoding.map_err(|error| error.to_string())?;
    let is_ours = ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| encoding.eq_ignore_ascii_case(known));
    Ok((!is_ours).then(|| encoding.into_owned()))
}

/// An element's name without a namespace's prefix.
pub(crate) fn local(name: &str) -> Result<&str, String> {
    let first = name.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    if !first || !name.chars().all(|c| c.is_alphanumeric() || "_-.:".contains(c)) {
        return Err(format!("{:?} is no name of an element", shortened(name)));
    }
    Ok(name.rsplit(':').next().unwrap_or(name))
}

/// The attributes of an element, each of which is well-formed and none of which stands twice.
pub(crate) fn attributes<'a>(
    tag: &'a BytesStart<'_>,
) -> Result<impl Iterator<Item = Result<Attribute<'a>, String>>, String> {
    if tag.attributes_raw().contains('<') {
        return Err("< inside a tag".to_owned());
    }
    Ok(tag.attributes().map(|attribute| attribute.map_err(|error| error.to_string())))
}

/// Whether a reference needs no declaration: a character's number, or one of XML's own five names.
pub(crate) fn is_known_reference(name: &BytesRef<'_>) -> bool {
    name.starts_with('#') || ["amp", "lt", "gt", "quot", "apos"].contains(&&**name)
}

pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// XML 1.0, production 2; what Rust's `char` excludes is not asked for again.
fn is_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r') || (c >= ' ' && c != '\u{fffe}' && c != '\u{ffff}')
}
