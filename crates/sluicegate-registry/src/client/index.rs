//! An index of referrers as it stands in a registry: read within limits, and added to without losing what others wrote into it.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, Serializer},
};
use serde_json::value::RawValue;
use sluicegate_attestation::identifiers::IMAGE_INDEX;
use sluicegate_ports::images::{Descriptor, FaultKind};
use sluicegate_types::Digest;

use super::fault::{Result, fault};
use crate::layout_index::MAX_MANIFEST;

/// Descriptors that are listed for one image (DESIGN section 7).
pub(crate) const MAX_LISTED: usize = 10_000;
/// Names at the top of an index.
const MAX_NAMES: usize = 64;

/// What is read of an index, and everything that stands in it as it stands there.
#[derive(Debug)]
pub(crate) struct ReferrersIndex {
    /// The entries that this version can read, without their annotations.
    pub(crate) manifests: Vec<Descriptor>,
    entries: Vec<Box<RawValue>>,
    others: Vec<(String, Box<RawValue>)>,
}

impl Default for ReferrersIndex {
    /// An index that lists nothing yet.
    fn default() -> Self {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).ok();
        let others = [("schemaVersion", raw("2")), ("mediaType", raw(&format!("{IMAGE_INDEX:?}")))];
        let others = others.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        Self { manifests: Vec::new(), entries: Vec::new(), others }
    }
}

impl ReferrersIndex {
    /// Reads an index. Entries that this version can't read, such as of another digest algorithm, are passed over: anyone may attach
    /// junk, and what is needed is missed by its digest. What is no index at all is an error.
    pub(crate) fn read(bytes: &[u8], what: &str) -> Result<Self> {
        let wrong = |why: &str| fault(FaultKind::OutOfForm, format!("{what}: {why}"));
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| match error.to_string() {
            words if words.contains(TOO_MANY) => fault(FaultKind::TooLarge, format!("{what}: {words}")),
            words => wrong(&format!("it is no image index: {words}")),
        })?;
        let of = |name: &str| wire.others.iter().find(|(known, _)| known == name).map(|(_, value)| value.get());
        if of("schemaVersion") != Some("2") {
            return Err(wrong("it is no image index of schema version 2"));
        }
        let is_index = |json: &str| serde_json::from_str::<String>(json).is_ok_and(|kind| kind == IMAGE_INDEX);
        if of("mediaType").is_some_and(|json| !is_index(json)) {
            return Err(wrong("it is no image index by its own type"));
        }
        let Some(Entries(entries)) = wire.manifests else {
            return Err(wrong("it is no image index: it has no manifests"));
        };
        let manifests = entries.iter().filter_map(|entry| descriptor(entry)).collect();
        Ok(Self { manifests, entries, others: wire.others })
    }

    /// Whether any of these was not in it.
    pub(crate) fn add(&mut self, referrers: &[Descriptor]) -> bool {
        let known: BTreeSet<Digest> = self.manifests.iter().map(|one| one.digest).collect();
        let new = referrers.iter().filter(|one| !known.contains(&one.digest));
        let new: Vec<_> =
            new.filter_map(|one| Some((one.clone(), serde_json::value::to_raw_value(one).ok()?))).collect();
        let is_any = !new.is_empty();
        let (manifests, entries): (Vec<_>, Vec<_>) = new.into_iter().unzip();
        self.manifests.extend(manifests);
        self.entries.extend(entries);
        is_any
    }

    /// Its bytes, if they can be read again.
    pub(crate) fn to_bytes(&self) -> std::result::Result<Vec<u8>, String> {
        let bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        if self.entries.len() > MAX_LISTED || bytes.len() as u64 > MAX_MANIFEST {
            return Err(format!(
                "an index of more than {MAX_LISTED} manifests or {MAX_MANIFEST} bytes would not be read again"
            ));
        }
        Ok(bytes)
    }
}

impl Serialize for ReferrersIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.others.len() + 1))?;
        for (name, value) in &self.others {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("manifests", &self.entries)?;
        map.end()
    }
}

/// An entry, if it is one that this version can read. Whoever lists it may write annotations without end, which nobody here asks for.
fn descriptor(entry: &RawValue) -> Option<Descriptor> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry {
        media_type: String,
        digest: Digest,
        size: u64,
        #[serde(default)]
        artifact_type: Option<String>,
    }
    let entry: Entry = serde_json::from_str(entry.get()).ok()?;
    let described = Descriptor::new(&entry.media_type, entry.digest, entry.size);
    Some(Descriptor { artifact_type: entry.artifact_type, ..described })
}

const TOO_MANY: &str = "more entries than are read";

struct Wire {
    manifests: Option<Entries>,
    others: Vec<(String, Box<RawValue>)>,
}

struct Entries(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Wire;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Wire, A::Error> {
                let mut wire = Wire { manifests: None, others: Vec::new() };
                while let Some(name) = map.next_key::<String>()? {
                    let is_twice = match name.as_str() {
                        "manifests" => wire.manifests.replace(map.next_value()?).is_some(),
                        _ => {
                            let is_twice = wire.others.iter().any(|(known, _)| *known == name);
                            wire.others.push((name, map.next_value()?));
                            is_twice
                        }
                    };
                    if is_twice {
                        return Err(A::Error::custom("a name stands in it twice"));
                    }
                    if wire.others.len() > MAX_NAMES {
                        return Err(A::Error::custom(TOO_MANY));
                    }
                }
                Ok(wire)
            }
        }
        deserializer.deserialize_map(Names)
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of manifests")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    if entries.len() == MAX_LISTED {
                        return Err(A::Error::custom(format!("{TOO_MANY}, {MAX_LISTED}")));
                    }
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ReferrersIndex> {
        ReferrersIndex::read(json.as_bytes(), "the index")
    }

    fn of(manifests: &str) -> String {
        format!(r#"{{"schemaVersion":2,"x":{{"y": 1}},"manifests":[{manifests}],"mediaType":"{IMAGE_INDEX}"}}"#)
    }

    fn entry(digest: &str) -> String {
        format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":1,"annotations":{{"k":"v"}},"other":[1, 2]}}"#)
    }

    #[test]
    fn what_others_wrote_stays_as_it_is() {
        let (one, two) = (Digest::of(b"1"), Descriptor::new("a/b", Digest::of(b"2"), 2));
        let junk = r#"{"digest":"sha512:00"}, 7, "x""#;
        let mut index = read(&of(&format!("{}, {junk}", entry(&one.to_string())))).unwrap();
        assert_eq!(index.manifests, [Descriptor::new("a/b", one, 1)]);
        assert!(index.add(&[two.clone(), Descriptor::new("a/b", one, 1)]) && !index.add(&[two]));
        let bytes = String::from_utf8(index.to_bytes().unwrap()).unwrap();
        for part in [entry(&one.to_string()).as_str(), r#"{"digest":"sha512:00"},7,"x","#, r#""x":{"y": 1}"#] {
            assert!(bytes.contains(part), "{part} in {bytes}");
        }
        assert_eq!(read(&bytes).unwrap().manifests.len(), 2);
    }

    #[test]
    fn neg_digest_string_dotdot_and_wrong_length_are_junk() {
        let hex = Digest::of(b"1").hex();
        for digest in [
            "sha256:../../../etc/passwd",
            "../x",
            "sha256:",
            &format!("sha256:{}", &hex[1..]),
            &format!("sha256:{hex}0"),
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("sha256:{hex}/../x"),
            &format!("sha256:{hex}\\n"),
            &format!(" sha256:{hex}"),
            &hex,
        ] {
            assert!(read(&of(&entry(digest))).unwrap().manifests.is_empty(), "{digest}");
        }
        assert_eq!(read(&of(&entry(&format!("sha256:{hex}")))).unwrap().manifests.len(), 1);
    }

    #[test]
    fn an_index_ends_where_its_limits_are() {
        let list = |count: usize| of(&vec!["0"; count].join(","));
        assert!(read(&list(MAX_LISTED)).is_ok());
        assert_eq!(read(&list(MAX_LISTED + 1)).unwrap_err().kind, FaultKind::TooLarge);
        let names = |count: usize| {
            let names: Vec<String> = (0..count).map(|number| format!(r#""n{number}":0"#)).collect();
            format!(r#"{{"schemaVersion":2,"manifests":[],{}}}"#, names.join(","))
        };
        assert!(read(&names(MAX_NAMES - 1)).is_ok());
        assert_eq!(read(&names(MAX_NAMES)).unwrap_err().kind, FaultKind::TooLarge);
    }

    #[test]
    fn an_index_that_would_not_be_read_again_is_not_written() {
        let one = Descriptor::new("a/b", Digest::of(b"1"), 1);
        let written = |held: usize, one: &Descriptor| {
            let mut index = read(&of(&vec!["0"; held].join(","))).unwrap();
            assert!(index.add(std::slice::from_ref(one)));
            index.to_bytes().map(|bytes| read(&String::from_utf8(bytes).unwrap()).unwrap().manifests.len())
        };
        assert_eq!(written(MAX_LISTED - 1, &one), Ok(1));
        assert!(written(MAX_LISTED, &one).is_err());
        let noted = |length: usize| {
            let annotations = [("note".to_owned(), "x".repeat(length))].into();
            Descriptor { annotations, ..one.clone() }
        };
        assert_eq!(written(0, &noted((MAX_MANIFEST - 4096) as usize)), Ok(1));
        assert!(written(0, &noted(MAX_MANIFEST as usize)).is_err());
    }

    #[test]
    fn what_is_no_index_is_said() {
        assert!(read(r#"{"schemaVersion":2,"manifests":[]}"#).is_ok());
        for bad in [
            "",
            "[]",
            "<html>",
            "{}",
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"manifests":null}"#,
            r#"{"schemaVersion":1,"manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#,
            r#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#,
            r#"{"schemaVersion":2,"mediaType":"text/html","manifests":[]}"#,
            r#"{"schemaVersion":2,"mediaType":null,"manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":{}}"#,
            r#"{"schemaVersion":2,"manifests":[]} x"#,
        ] {
            assert_eq!(read(bad).unwrap_err().kind, FaultKind::OutOfForm, "{bad}");
        }
    }
}
