//! The SBOM of content in which nobody knows a package: its files by their own hashes (CycloneDX 1.6).

use serde_json::{Value, json};
use sluicegate_types::{Content, Digest};

use crate::cyclonedx::serial_number;

/// The path of [`FileEntry`] for content that is itself a file.
pub const ITSELF: &str = ".";

/// A regular file of stored content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// Relative to the content's root; [`ITSELF`] if the content is the file.
    pub path: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// The document about `content`, which people call `name`: a component of type `file` for each of `files`, with its path as name and
/// its SHA-256, sorted. It holds no time and nothing random; the same arguments give the same document, in whatever order the files
/// come. A document without files has no component.
pub fn file_sbom(name: &str, content: Content, files: &[FileEntry]) -> Value {
    let mut files: Vec<&FileEntry> = files.iter().collect();
    files.sort();
    let components: Vec<Value> = files
        .into_iter()
        .map(|file| {
            let name = if file.path == ITSELF { name } else { &file.path };
            json!({"type": "file", "name": name, "hashes": [hash(&file.digest)]})
        })
        .collect();
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial_number(&content.digest),
        "version": 1,
        "metadata": {"component": {
            "bom-ref": "output",
            "type": "file",
            "name": name,
            "version": content.digest,
            "mime-type": content.kind.media_type(),
            "hashes": [hash(&content.digest)],
        }},
        "components": components,
    })
}

fn hash(digest: &Digest) -> Value {
    json!({"alg": "SHA-256", "content": digest.hex()})
}

#[cfg(test)]
mod tests {
    use sluicegate_types::ContentKind;

    use super::*;
    use crate::cyclonedx::components;

    fn entry(path: &str, bytes: &[u8]) -> FileEntry {
        FileEntry { path: path.to_owned(), digest: Digest::of(bytes), size: bytes.len() as u64 }
    }

    #[test]
    fn each_file_is_a_component_with_its_own_hash_in_any_order_of_arguments() {
        let content = Content { kind: ContentKind::Directory, digest: Digest::of(b"tar") };
        let (a, b) = (entry("bin/shop", b"elf"), entry("share/shop.txt", b"text"));
        let document = file_sbom("build.shop", content, &[b.clone(), a.clone()]);
        assert_eq!(document, file_sbom("build.shop", content, &[a, b]));
        assert_eq!(
            document["components"][0],
            json!({"type": "file", "name": "bin/shop", "hashes": [{"alg": "SHA-256", "content": Digest::of(b"elf").hex()}]})
        );
        let listed = components(document.to_string().as_bytes()).unwrap();
        assert_eq!(listed.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["bin/shop", "share/shop.txt"]);
        assert_eq!(document["metadata"]["component"]["version"], content.digest.to_string());
        assert!(document["metadata"].get("timestamp").is_none());
        let other = Content { digest: Digest::of(b"other"), ..content };
        assert_ne!(file_sbom("build.shop", other, &[])["serialNumber"], document["serialNumber"]);
    }

    #[test]
    fn a_file_is_called_as_the_output_is_and_an_empty_folder_has_no_component() {
        let content = Content { kind: ContentKind::File, digest: Digest::of(b"elf") };
        let document = file_sbom("build.shop", content, &[entry(ITSELF, b"elf")]);
        assert_eq!(document["components"][0]["name"], "build.shop");
        assert_eq!(document["metadata"]["component"]["mime-type"], "application/octet-stream");
        let empty = file_sbom("build.shop", Content { kind: ContentKind::Directory, ..content }, &[]);
        assert_eq!(components(empty.to_string().as_bytes()).unwrap(), vec![]);
    }
}
