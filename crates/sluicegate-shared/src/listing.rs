//! What a server lists (S3 API, ListObjectsV2), read with as little as is needed of it: one object with a name that nobody can read, which
//! anybody may put there who can write, does not hide the others.

use quick_xml::{Reader, escape::resolve_predefined_entity, events::Event};
use sluicegate_types::{Digest, UnixTime};

/// One answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Objects that are called by a digest directly below what was asked for; others are left out.
    pub(crate) objects: Vec<Listed>,
    /// How to ask for more, if there is more.
    pub(crate) more: Option<String>,
}

/// An object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) put: UnixTime,
}

/// Reads an answer about the objects `below` a name, which ends with a slash.
pub(crate) fn page(answer: &[u8], below: &str) -> Result<Page, String> {
    let answer = String::from_utf8_lossy(answer);
    let mut reader = Reader::from_str(&answer);
    let (mut page, mut is_a_list, mut is_cut) = (Page::default(), false, false);
    // The names of the elements that are open, the text of the innermost one, and the members of an object.
    let (mut open, mut text, mut object): (Vec<String>, _, _) = (Vec::new(), String::new(), Object::default());
    loop {
        match reader.read_event().map_err(|error| format!("its list of objects is no XML: {error}"))? {
            Event::Start(tag) => {
                if open.len() >= MAX_DEPTH {
                    return Err("its list of objects is nested too deeply".to_owned());
                }
                open.push(tag.local_name().as_ref().to_owned());
                text.clear();
            }
            Event::Text(part) => text.push_str(&part),
            Event::CData(part) => text.push_str(&part),
            Event::GeneralRef(name) => {
                let character = name.resolve_char_ref().ok().flatten();
                let known = || resolve_predefined_entity(&name).map(str::to_owned);
                // No name that counts has another one, and no token.
                text.push_str(&character.map(String::from).or_else(known).unwrap_or_else(|| UNREADABLE.to_string()));
            }
            Event::Empty(tag) if open.is_empty() && tag.local_name().as_ref() == "ListBucketResult" => is_a_list = true,
            Event::End(_) => {
                let element = open.pop().unwrap_or_default();
                let at = open.iter().map(String::as_str).collect::<Vec<_>>();
                match (at.as_slice(), element.as_str()) {
                    ([], "ListBucketResult") => is_a_list = true,
                    (["ListBucketResult"], "IsTruncated") => is_cut = text.trim() == "true",
                    (["ListBucketResult"], "NextContinuationToken") => {
                        page.more = Some(std::mem::take(&mut text)).filter(|token| !token.is_empty());
                        if page.more.as_ref().is_some_and(|token| token.contains(UNREADABLE)) {
                            return Err("how to ask for more of its list cannot be read".to_owned());
                        }
                    }
                    (["ListBucketResult"], "Contents") => {
                        page.objects.extend(std::mem::take(&mut object).listed(below)?)
                    }
                    (["ListBucketResult", "Contents"], member) => object.add(member, &text),
                    _ => {}
                }
                text.clear();
            }
            Event::Eof if is_a_list && open.is_empty() && is_cut && page.more.is_none() => {
                return Err("it lists only a part, and does not say how to ask for more".to_owned());
            }
            Event::Eof if is_a_list && open.is_empty() => return Ok(page),
            Event::Eof => return Err("its list of objects is cut off, or none".to_owned()),
            _ => {}
        }
    }
}

/// Elements in each other.
const MAX_DEPTH: usize = 16;

/// What stands for what cannot be read.
const UNREADABLE: char = '\u{fffd}';

/// What is said of an object.
#[derive(Default)]
struct Object {
    key: String,
    size: Option<u64>,
    put: Option<UnixTime>,
}

impl Object {
    fn add(&mut self, member: &str, text: &str) {
        match member {
            // Of what our names consist, only this is written otherwise.
            "Key" => self.key = text.replace("%2F", "/").replace("%2f", "/"),
            "Size" => self.size = text.trim().parse().ok(),
            "LastModified" => self.put = text.trim().parse().ok(),
            _ => {}
        }
    }

    /// One that counts, if its name is one. The server, and nobody else, says how large it is and since when it is there.
    fn listed(self, below: &str) -> Result<Option<Listed>, String> {
        let Some(name) = self.key.strip_prefix(below).filter(|name| Digest::from_hex(name).is_ok()) else {
            return Ok(None);
        };
        match (self.size, self.put) {
            (Some(size), Some(put)) => Ok(Some(Listed { name: name.to_owned(), size, put })),
            _ => Err(format!("its list does not say how large {name} is, or since when it is there")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, day: &str, size: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>{day}T09:00:00.000Z</LastModified><ETag>&quot;x&quot;</ETag><Size>{size}</Size>\
             <Owner><DisplayName>x</DisplayName></Owner></Contents>"
        )
    }

    fn list(inner: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</ListBucketResult>"
        )
    }

    fn names(answer: &str) -> Vec<String> {
        page(answer.as_bytes(), "team/v1/sha256/").unwrap().objects.into_iter().map(|object| object.name).collect()
    }

    #[test]
    fn what_nobody_can_read_hides_nothing_else_and_only_names_directly_below_count() {
        let (one, other) = (Digest::of(b"one").hex(), Digest::of(b"other").hex());
        let good = object(&format!("team/v1/sha256/{one}"), "2026-11-01", "7");
        let read = page(list(&good).as_bytes(), "team/v1/sha256/").unwrap();
        let put = "2026-11-01T09:00:00Z".parse().unwrap();
        assert_eq!(read, Page { objects: vec![Listed { name: one.clone(), size: 7, put }], more: None });
        for bad in [
            object("team/v1/sha256/a&#9;b", "2026-11-01", "1"),
            object("team/v1/sha256/a%09b", "2026-11-01", "1"),
            object("team/v1/sha256/&#0;", "2026-11-01", "1"),
            object("team/v1/sha256/&unknown;", "2026-11-01", "1"),
            object("team/v1/sha256//", "2026-11-01", "1"),
            object("..", "2026-11-01", "1"),
            object("", "2026-11-01", "1"),
            object(&format!("team/v1/sha256/{other}&#9;"), "2026-11-01", "1"),
            object(&format!("team/v1/sha256/deeper/{other}"), "2026-11-01", "1"),
            object(&format!("elsewhere/{other}"), "2026-11-01", "1"),
            object(&other, "2026-11-01", "1"),
            format!("<CommonPrefixes><Prefix>team/v1/sha256/{other}</Prefix></CommonPrefixes>"),
            format!(
                "<CommonPrefixes>{}</CommonPrefixes>",
                object(&format!("team/v1/sha256/{other}"), "2026-11-01", "1")
            ),
            "<Contents></Contents><!-- x --><Contents/>".to_owned(),
        ] {
            assert_eq!(names(&list(&format!("{bad}{good}{bad}"))), [one.as_str()], "{bad}");
        }
        for written in [format!("team%2Fv1%2fsha256/{other}"), format!("<![CDATA[team/v1/sha256/{other}]]>")] {
            assert_eq!(names(&list(&object(&written, "2026-11-01", "1"))), [other.as_str()]);
        }
    }

    #[test]
    fn there_is_more_where_a_token_says_so_and_what_is_no_list_is_none() {
        let token = |token: &str| page(list(token).as_bytes(), "x/").unwrap().more;
        let written = "<IsTruncated>true</IsTruncated><NextContinuationToken>a&#43;b&amp;&lt;&gt;&quot;&apos;</NextContinuationToken>";
        assert_eq!(token(written), Some("a+b&<>\"'".to_owned()));
        for nothing in ["", "<NextContinuationToken></NextContinuationToken>", "<NextContinuationToken/>"] {
            assert_eq!(token(nothing), None);
            assert_eq!(token(&format!("<IsTruncated>false</IsTruncated>{nothing}")), None);
        }
        assert_eq!(page(b"<ListBucketResult xmlns=\"x\"/>", "x/"), Ok(Page::default()));
        for lost in [
            "<IsTruncated>true</IsTruncated>".to_owned(),
            "<NextContinuationToken>a&unknown;</NextContinuationToken>".to_owned(),
            "<NextContinuationToken>a\u{fffd}</NextContinuationToken>".to_owned(),
            object(&format!("x/{}", Digest::of(b"one").hex()), "in spring", "1"),
            object(&format!("x/{}", Digest::of(b"one").hex()), "2026-11-01", "many"),
        ] {
            assert!(page(list(&lost).as_bytes(), "x/").is_err(), "{lost}");
        }
        let deep = format!("{}{}", "<a>".repeat(40), "</a>".repeat(40));
        for bad in ["", "<html></html>", "<ListBucketResult><Contents>", "<ListBucketResult></Contents>", "no", &deep] {
            assert!(page(bad.as_bytes(), "x/").is_err(), "{bad}");
        }
    }
}
