//! Manifests that every reader reads alike. Go's JSON, which the field's registries, runtimes and tools are written with, takes keys without
//! regard to case and the last of several; ours takes them exactly. A document on which the two would differ has two readings under one
//! digest: one is judged, the other is run (the kind of GHSA-qq97-vm5h-rrhg).

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The members of manifests, indexes and descriptors (image-spec), by which a reader goes.
const MEMBERS: [&str; 20] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "digest",
    "size",
    "urls",
    "data",
    "platform",
    "os",
    "os.version",
    "os.features",
    "architecture",
    "variant",
    "features",
    "blobs",
];
/// Whose own members are names that somebody chose.
const FREE: &str = "annotations";

/// Refuses a manifest or index in which two keys of one object are one to a reader that does not mind case, or a key is one of the format's
/// but for its case; and one that is an image and an index at once. The error says which.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let top = Look { free: false }.deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    let has = |name: &str| top.contains(name);
    if has("manifests") && (has("layers") || has("config")) {
        return Err("it can be read as an image and as an index: it is neither".to_owned());
    }
    if top.is_empty() { Err("it is no JSON object with members".to_owned()) } else { Ok(()) }
}

/// As Go's encoding/json compares keys: without ASCII case, and with the two other letters that fold to one of ASCII.
fn folded(key: &str) -> String {
    let fold = |c: char| match c {
        '\u{017f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}

/// Looks through a value and gives the keys of an object.
#[derive(Clone, Copy)]
struct Look {
    /// Whether the keys are names that somebody chose.
    free: bool,
}

impl<'de> DeserializeSeed<'de> for Look {
    type Value = BTreeSet<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look {
    type Value = BTreeSet<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(BTreeSet::new())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(BTreeSet::new())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(BTreeSet::new())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(BTreeSet::new())
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(BTreeSet::new())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeSet::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element_seed(Self { free: false })?.is_some() {}
        Ok(BTreeSet::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut keys, mut all) = (BTreeSet::new(), BTreeSet::new());
        while let Some(key) = map.next_key::<String>()? {
            let known = if self.free { key.clone() } else { folded(&key) };
            let is_other = !self.free && MEMBERS.iter().any(|member| *member != key && folded(member) == known);
            let is_doubled = !all.insert(known);
            if is_other || is_doubled {
                map.next_value::<IgnoredAny>()?;
                let key: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format!(
                    "the key {key:?} is another one to readers that do not mind case"
                )));
            }
            map.next_value_seed(Self { free: !self.free && key == FREE })?;
            keys.insert(key);
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neg_ambiguous_manifest_index() {
        for good in [
            r#"{"schemaVersion":2,"config":{"digest":"x"},"layers":[{"annotations":{"Digest":"a","digest":"b"}}]}"#,
            r#"{"schemaVersion":2,"manifests":[{"platform":{"os":"linux","os.version":"1"}}],"annotations":{"a":"b","A":"c"}}"#,
            r#"{"schemaVersion":2,"manifests":[],"unknown":{"x":1}}"#,
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            r#"{"config":{},"layers":[],"manifests":[]}"#,
            r#"{"layers":[],"manifests":[]}"#,
            r#"{"config":{},"manifests":[]}"#,
            r#"{"layers":[],"layers":[{}]}"#,
            r#"{"manifests":[],"Manifests":[]}"#,
            r#"{"manifests":[],"manifest\u017f":[]}"#,
            r#"{"Manifests":[]}"#,
            r#"{"manifests":[{"digest":"a","Digest":"b"}]}"#,
            r#"{"manifests":[{"SIZE":1}]}"#,
            r#"{"manifests":[{"x":1,"X":2}]}"#,
            r#"{"annotations":{"a":"b","a":"c"}}"#,
            r#"{"config":{},"LAYERS":[]}"#,
            "[]",
            "1",
            "",
            "{}",
            r#"{"manifests":[]} x"#,
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
